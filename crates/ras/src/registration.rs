//! Dynamic client registration (RFC 7591): off by default. A client that registers itself gets only
//! what a person consents to; it cannot be read, changed or deleted from outside, and no URL in its
//! registration is ever fetched.

use super::{directory::SELF_REGISTERED, state::Ras};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use passavant_authority::{answer, origin::origin_of};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Resource,
    jose::claims::Claims,
    jose::jwk::{Algorithm, KeySet},
    oauth::client::{Client, ClientAuthentication, ClientKeys, SecretHash, SelfRegistered},
    oauth::redirect_uri,
    others_text::shown,
};
use passavant_store::{AuditEvent, StoreError};
use serde_json::{Value, json};
use url::{Host, Url};

/// Maximum number of self-registered clients, and how long one that nobody consented to is kept, in
/// seconds.
const MOST: usize = 1000;
const UNUSED: i64 = 86_400;
/// How long a person may take to read the consent page, in seconds.
const READING: i64 = 600;
/// Maximum number of redirect URIs of one client.
const REDIRECTS: usize = 10;

/// A rejected registration: OAuth `error`, and what to change.
struct Refused(&'static str, String);

/// POST /register.
pub(super) async fn register(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (request_id, address) = origin_of(&parts);
    // Every registration counts, valid or not.
    if let Err(busy) = ras.0.admission.registration(&address) {
        return answer::throttled(busy.0);
    }
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
    if !make_room(ras).await.map_err(broken)? {
        let body = json!({"error": "temporarily_unavailable",
                          "error_description": "Too many clients have registered; try again later."});
        let mut response = answer::no_store(StatusCode::SERVICE_UNAVAILABLE, &body);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("600"));
        return Err(Ok(response));
    }
    let entropy = &authority.context.entropy;
    client.id = format!("{SELF_REGISTERED}{}", entropy.id());
    client.registered = Some(SelfRegistered { at: now, used: false });
    let secret = secret_wanted.then(|| entropy.secret());
    if let Some(secret) = &secret {
        let hash = SecretHash { hash: secret.hash(), expires: None };
        client.authentication = ClientAuthentication::Secret(vec![hash]);
    }
    let event = AuditEvent::granted(RequestEvent::Registration, now)
        .client(&client.id)
        .with(Detail::Record, client.name.as_str())
        .with(Detail::RequestId, request_id);
    authority.store.put_stranger(&client, event).await.map_err(broken)?;
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
    if client.dpop_bound_access_tokens {
        body["dpop_bound_access_tokens"] = true.into();
    }
    if let Some(secret) = secret {
        body["client_secret"] = secret.expose().into();
        body["client_secret_expires_at"] = 0.into();
    }
    Ok(answer::no_store(StatusCode::CREATED, &body))
}

/// Makes room for one more registration; returns whether there is any. Clients are removed if
/// nobody consented to them for a day, or if their last refresh token is gone. If there are still
/// too many, the oldest one without consent is removed, but none whose consent page a person may
/// just be reading.
async fn make_room(ras: &Ras) -> Result<bool, StoreError> {
    let authority = &ras.0.authority;
    let (now, store) = (authority.now(), &authority.store);
    let mut all = store.all::<Client>().await?;
    all.retain(|client| client.registered.is_some());
    let age = |client: &Client| client.registered.map_or(0, |registered| now.since(registered.at));
    let used = |client: &Client| client.registered.is_some_and(|registered| registered.used);
    let mut gone = Vec::new();
    for client in &all {
        // Removing a client that was consented to also frees its place in that person's limit.
        let over = age(client) > UNUSED
            && !(used(client) && store.has_live_tokens(&client.id, now).await?);
        if over {
            gone.push(client.id.clone());
        }
    }
    if all.len() - gone.len() >= MOST {
        let evictable = all.iter().filter(|client| !used(client) && age(client) > READING);
        let oldest = evictable.filter(|c| !gone.contains(&c.id)).max_by_key(|client| age(client));
        match oldest {
            Some(oldest) => gone.push(oldest.id.clone()),
            None => return Ok(false),
        }
    }
    for id in gone {
        let event = AuditEvent::granted(RequestEvent::RegistrationForgotten, now).client(&id);
        store.forget_stranger(&id, event).await?;
    }
    Ok(true)
}

/// Parses a registration. Unknown members are not stored.
fn read(bytes: &[u8]) -> Result<(Client, bool), Refused> {
    let bad = |text: &str| Refused("invalid_client_metadata", text.to_owned());
    let claims = Claims::parse(bytes)
        .map_err(|_| bad("The request is not one JSON object with distinct members."))?;
    let text = |name: &'static str| {
        claims.optional_str(name).map_err(|_| bad(&format!("`{name}` must be a string.")))
    };
    let list = |name: &'static str| match claims.value(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad(&format!("`{name}` must be an array of strings."))),
        Some(_) => Err(bad(&format!("`{name}` must be an array of strings."))),
    };
    let redirect_uris = list("redirect_uris")?;
    let redirects = |text: &str| Refused("invalid_redirect_uri", text.to_owned());
    if redirect_uris.is_empty() || redirect_uris.len() > REDIRECTS {
        return Err(redirects("Give 1 to 10 redirect_uris."));
    }
    let web = text("application_type")? == Some("web");
    // With or without a secret, the same rule applies: nobody vouched for a client that registers
    // itself.
    for uri in &redirect_uris {
        redirect_uri::check_for(true, uri)
            .map_err(|error| Refused("invalid_redirect_uri", error.to_string()))?;
        if web && !uri.starts_with("https://") {
            return Err(redirects("The redirect URIs of a web application must be https URLs."));
        }
    }
    let known = |name: &'static str, allowed: &[&str]| -> Result<(), Refused> {
        let fits = list(name)?.iter().all(|item| allowed.contains(&item.as_str()));
        if fits { Ok(()) } else { Err(bad(&format!("`{name}` may have: {}.", allowed.join(", ")))) }
    };
    known("grant_types", &["authorization_code", "refresh_token"])?;
    known("response_types", &["code"])?;
    // None of these is ever fetched, shown or followed; but a client that sends an invalid one gets
    // an error.
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
    let name = shown(name, 100);
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
            return Err(bad("`jwks` is only for private_key_jwt."));
        }
        _ => {
            return Err(bad("`token_endpoint_auth_method` is not one that the metadata lists in \
                            token_endpoint_auth_methods_supported."));
        }
    };
    let bound = claims.optional_bool("dpop_bound_access_tokens");
    let dpop_bound_access_tokens = bound
        .map_err(|_| bad("`dpop_bound_access_tokens` must be true or false."))?
        .unwrap_or_default();
    let client = Client {
        name,
        authentication,
        redirect_uris,
        dpop_bound_access_tokens,
        ..Client::default()
    };
    Ok((client, secret))
}

fn is_public_page(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let named =
        matches!(url.host(), Some(Host::Domain(name)) if name.contains('.') && name != "localhost");
    text.starts_with("https://") && named && Resource::parse(text).is_ok()
}
