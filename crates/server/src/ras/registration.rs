//! Dynamic client registration (RFC 7591): off unless switched on. A client that registers itself gets nothing but
//! what a person lets it have; it cannot be read, changed or deleted from outside, and nothing it names is
//! ever fetched.

use super::Ras;
use crate::{answer, token_endpoint::origin_of};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use carnet_proto::{
    claims::Claims,
    client::{Client, ClientAuthentication, ClientKeys, SecretHash, SelfRegistered},
    identifier::Resource,
    jwk::{Algorithm, KeySet},
    redirect_uri,
};
use carnet_store::{AuditEvent, Put};
use serde_json::{Value, json};
use url::{Host, Url};

/// Most clients that registered themselves, and how long one that nobody let in is kept, in seconds.
const MOST: usize = 1000;
const UNUSED: i64 = 86_400;
/// Most redirect URIs of one.
const REDIRECTS: usize = 10;

/// A registration that is not taken: OAuth `error`, and what to change.
struct Refused(&'static str, String);

/// POST /register.
pub(super) async fn register(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (request_id, address) = origin_of(&parts);
    if let Some(seconds) = ras.0.registrations.wait(&address) {
        return answer::throttled(seconds);
    }
    // Every one counts, good or bad.
    ras.0.registrations.failed(&address);
    let refuse = |Refused(error, text)| {
        let body = json!({"error": error, "error_description": text});
        answer::no_store(StatusCode::BAD_REQUEST, &body)
    };
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        let text = "A registration is application/json.".to_owned();
        return refuse(Refused("invalid_client_metadata", text));
    }
    let bytes = match Bytes::from_request(Request::new(body), &()).await {
        Ok(bytes) => bytes,
        Err(rejection) => return rejection.into_response(),
    };
    match registered(&ras, &bytes, request_id).await {
        Ok(response) | Err(Ok(response)) => response,
        Err(Err(refused)) => refuse(refused),
    }
}

async fn registered(
    ras: &Ras,
    bytes: &[u8],
    request_id: String,
) -> Result<Response<Body>, Result<Response<Body>, Refused>> {
    let authority = &ras.0.authority;
    let now = authority.now();
    let (mut client, secret_wanted) = read(bytes).map_err(Err)?;
    let broken = |error| Ok(answer::broken(&error));
    make_room(ras).await.map_err(broken)?;
    let all = authority.store.all::<Client>().await.map_err(broken)?;
    let dynamic = all.iter().filter_map(|client| Some((client.registered?, client)));
    // Who registers many does not keep others out: the oldest that nobody let in goes.
    if dynamic.clone().count() >= MOST
        && let Some((_, oldest)) = dynamic.filter(|(r, _)| !r.used).min_by_key(|(r, _)| r.at)
    {
        let event = AuditEvent::granted("registration.forgotten", now).client(&oldest.id);
        authority.store.delete::<Client>(&oldest.id, event).await.map_err(broken)?;
    } else if all.iter().filter(|client| client.registered.is_some()).count() >= MOST {
        let body = json!({"error": "temporarily_unavailable",
                          "error_description": "As many clients have registered as may."});
        let mut response = answer::no_store(StatusCode::SERVICE_UNAVAILABLE, &body);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3600"));
        return Err(Ok(response));
    }
    let entropy = &authority.context.entropy;
    client.id = format!("dyn-{}", entropy.id());
    client.registered = Some(SelfRegistered { at: now, used: false });
    let secret = secret_wanted.then(|| entropy.secret());
    if let Some(secret) = &secret {
        let hash = SecretHash { hash: secret.hash(), expires: None };
        client.authentication = ClientAuthentication::Secret(vec![hash]);
    }
    let event = AuditEvent::granted("registration", now)
        .client(&client.id)
        .with("record", client.name.as_str())
        .with("request_id", request_id);
    authority.store.put(&client, Put::Create, event).await.map_err(broken)?;
    let method = match (&client.authentication, &secret) {
        (_, Some(_)) => "client_secret_basic",
        (authentication, None) => authentication.method(),
    };
    let mut body = json!({
        "client_id": client.id,
        "client_id_issued_at": now,
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "token_endpoint_auth_method": method,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if let Some(secret) = secret {
        body["client_secret"] = secret.expose().into();
        body["client_secret_expires_at"] = 0.into();
    }
    Ok(answer::no_store(StatusCode::CREATED, &body))
}

/// Forgets those that nobody let in for a day.
async fn make_room(ras: &Ras) -> Result<(), carnet_store::StoreError> {
    let authority = &ras.0.authority;
    let now = authority.now();
    for client in authority.store.all::<Client>().await? {
        let old = client.registered.is_some_and(|r| !r.used && now.since(r.at) > UNUSED);
        if old {
            let event = AuditEvent::granted("registration.forgotten", now).client(&client.id);
            authority.store.delete::<Client>(&client.id, event).await?;
        }
    }
    Ok(())
}

/// Reads a registration. What is not known here is not kept (H09).
fn read(bytes: &[u8]) -> Result<(Client, bool), Refused> {
    let bad = |text: &str| Refused("invalid_client_metadata", text.to_owned());
    let claims = Claims::parse(bytes)
        .map_err(|_| bad("It is not one JSON object with distinct members."))?;
    let text = |name: &'static str| {
        claims.optional_str(name).map_err(|_| bad(&format!("`{name}` is not a text.")))
    };
    let list = |name: &'static str| match claims.value(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad(&format!("`{name}` is not a list of texts."))),
        Some(_) => Err(bad(&format!("`{name}` is not a list of texts."))),
    };
    let redirect_uris = list("redirect_uris")?;
    let redirects = |text: &str| Refused("invalid_redirect_uri", text.to_owned());
    if redirect_uris.is_empty() || redirect_uris.len() > REDIRECTS {
        return Err(redirects("Give 1 to 10 redirect_uris."));
    }
    let web = text("application_type")? == Some("web");
    for uri in &redirect_uris {
        redirect_uri::check(uri)
            .map_err(|error| Refused("invalid_redirect_uri", error.to_string()))?;
        if web && !uri.starts_with("https://") {
            return Err(redirects("A web application has no redirect URI on loopback."));
        }
    }
    let known = |name: &'static str, allowed: &[&str]| -> Result<(), Refused> {
        let fits = list(name)?.iter().all(|item| allowed.contains(&item.as_str()));
        if fits { Ok(()) } else { Err(bad(&format!("`{name}` may have: {}.", allowed.join(", ")))) }
    };
    known("grant_types", &["authorization_code", "refresh_token"])?;
    known("response_types", &["code"])?;
    // Nothing of this is ever fetched, shown or followed; but whoever sends a bad one gets told.
    for name in
        ["jwks_uri", "sector_identifier_uri", "initiate_login_uri", "backchannel_logout_uri"]
    {
        if claims.value(name).is_some() {
            return Err(bad(&format!("`{name}` is not supported; leave it out.")));
        }
    }
    if !list("request_uris")?.is_empty() {
        return Err(bad("`request_uris` are not supported; leave them out."));
    }
    for name in ["client_uri", "logo_uri", "tos_uri", "policy_uri"] {
        if text(name)?.is_some_and(|uri| !is_public_page(uri)) {
            return Err(bad(&format!("`{name}` is not an https URL of a public host.")));
        }
    }
    let name = text("client_name")?.unwrap_or("A program without a name");
    let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    let jwks = claims.value("jwks");
    let method = text("token_endpoint_auth_method")?.unwrap_or("client_secret_basic");
    let (authentication, secret) = match (method, jwks) {
        ("none", None) => (ClientAuthentication::Public, false),
        ("client_secret_basic" | "client_secret_post", None) => {
            (ClientAuthentication::Secret(Vec::new()), true)
        }
        ("private_key_jwt", Some(jwks)) => {
            let algorithm = Algorithm::default();
            let keys = KeySet::parse(jwks.to_string().as_bytes(), algorithm);
            keys.map_err(|error| bad(&format!("The keys cannot be used: {error}")))?;
            let keys = ClientKeys::Inline(jwks.clone());
            (ClientAuthentication::PrivateKeyJwt { keys, algorithm }, false)
        }
        ("private_key_jwt", None) => return Err(bad("private_key_jwt needs `jwks`.")),
        ("none" | "client_secret_basic" | "client_secret_post", Some(_)) => {
            return Err(bad("`jwks` is for private_key_jwt alone."));
        }
        _ => return Err(bad("`token_endpoint_auth_method` is not one that this server lists.")),
    };
    Ok((Client { name, authentication, redirect_uris, ..Client::default() }, secret))
}

fn is_public_page(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let named =
        matches!(url.host(), Some(Host::Domain(name)) if name.contains('.') && name != "localhost");
    text.starts_with("https://") && named && Resource::parse(text).is_ok()
}
