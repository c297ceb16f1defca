//! Installations of Passavant: enrolled by a person, published as client metadata documents, listed
//! and revoked by the person and by IT.

use super::{bearer::Bearer, state::Idp};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Path, Request, State},
    http::{Response, StatusCode},
    response::IntoResponse,
};
use passavant_authority::{
    answer::{broken, no_store, revocable},
    authority::{Directory as _, Look},
    origin::origin_of,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    jose::claims::Claims,
    jose::jwk::{Algorithm, KeySet},
    oauth::authorize::SCOPE_ENROL,
    oauth::client::ENROLLED_CLIENT,
    oauth::client_document::{self, INSTALLATIONS},
    others_text::shown,
};
use passavant_store::{AuditEvent, Installation, MOST_INSTALLATIONS};
use serde::Deserialize;
use serde_json::{Value, json};

/// The registration of an installation, with member names of RFC 7591.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewInstallation {
    /// Name of the computer.
    client_name: String,
    /// Its one public key.
    jwks: Value,
}

fn refused(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    no_store(status, &json!({"error": error, "error_description": description}))
}

/// POST: enrols the public key in the request for the person of the access token, which can be used
/// once.
pub(super) async fn enrol(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if !idp.0.settings.enrolment {
        let text = "Enrolment is switched off here. Ask IT for a client registration.";
        return refused(StatusCode::FORBIDDEN, "access_denied", text);
    }
    // Read the body first, because that may take time: the decision must not be older than that.
    let bytes = match Bytes::from_request(Request::new(body), &()).await {
        Ok(bytes) => bytes,
        Err(rejection) => return rejection.into_response(),
    };
    let (token, person) = match Bearer::admit(&idp, &parts, INSTALLATIONS, SCOPE_ENROL).await {
        Ok(bearer) => (bearer.token, bearer.standing.person),
        Err(refused) => return refused,
    };
    let asked = match serde_json::from_slice::<NewInstallation>(&bytes) {
        Ok(asked) => asked,
        Err(error) => {
            let text = format!("The installation cannot be read: {error}.");
            return refused(StatusCode::BAD_REQUEST, "invalid_client_metadata", &text);
        }
    };
    let Some((public_jwk, algorithm)) = single_key(&asked.jwks) else {
        let text = "jwks must hold exactly one public key, for ES256 or EdDSA.";
        return refused(StatusCode::BAD_REQUEST, "invalid_client_metadata", text);
    };
    let authority = &idp.0.authority;
    let now = authority.now();
    let device = shown(asked.client_name.trim(), 100);
    let installation = Installation {
        id: authority.context.entropy.id(),
        user_id: person.user.id.clone(),
        device,
        public_jwk,
        algorithm,
        enrolled_at: now,
        used_at: now,
    };
    let url = authority.issuer.endpoint(&format!("{INSTALLATIONS}/{}", installation.id));
    let event = AuditEvent::granted(RequestEvent::Enrol, now)
        .person(&person.user.id)
        .client(ENROLLED_CLIENT)
        .with(Detail::Installation, installation.id.as_str())
        .with(Detail::Device, installation.device.as_str())
        .with(Detail::RequestId, origin_of(&parts).0);
    let spent = AuditEvent::granted(RequestEvent::EnrolmentTokenUsed, now)
        .person(&person.user.id)
        .client(ENROLLED_CLIENT)
        .with(Detail::Jti, token.jti.as_str());
    let first_use = match authority.store.revoke_grant(&token.jti, spent, now).await {
        Ok(first_use) => first_use,
        Err(error) => return broken(&error),
    };
    if !first_use {
        let text = "This token was already used to enrol an installation. Sign in again.";
        return refused(StatusCode::UNAUTHORIZED, "invalid_token", text);
    }
    let session = token.session.as_deref().unwrap_or_default();
    match authority.store.enrol(&installation, session, event).await {
        Ok(true) => {
            let mut document =
                client_document::of_installation(&url, &installation.public_jwk, algorithm);
            document["client_id_issued_at"] = now.0.into();
            no_store(StatusCode::CREATED, &document)
        }
        Ok(false) => {
            let text = format!(
                "This person cannot enrol an installation: the sign-in has ended meanwhile, or \
                 {MOST_INSTALLATIONS} are enrolled already. Sign in again, or revoke one that is not \
                 used any more."
            );
            refused(StatusCode::FORBIDDEN, "access_denied", &text)
        }
        Err(error) => broken(&error),
    }
}

/// The only key of a set, without its private part, for an algorithm that installations sign with.
fn single_key(jwks: &Value) -> Option<(Value, Algorithm)> {
    let keys = jwks.get("keys")?.as_array()?;
    let [key] = keys.as_slice() else { return None };
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let algorithm = match text("kty")? {
        "EC" => Algorithm::ES256,
        "OKP" => Algorithm::EdDSA,
        _ => return None,
    };
    KeySet::parse(jwks.to_string().as_bytes(), algorithm).ok()?;
    let thumbprint =
        passavant_proto::jose::jwk::thumbprint(&Claims::parse(key.to_string().as_bytes()).ok()?)?;
    // Copy only the members that define the key: a document must not contain anything else of
    // theirs.
    let mut public = json!({"kid": thumbprint, "use": "sig", "alg": algorithm.name()});
    for name in ["kty", "crv", "x", "y"] {
        if let Some(value) = text(name) {
            public[name] = value.into();
        }
    }
    Some((public, algorithm))
}

/// GET of one installation: its client metadata document. Public; it disappears with the
/// installation or its person.
pub(super) async fn document(State(idp): State<Idp>, Path(id): Path<String>) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint(&format!("{INSTALLATIONS}/{id}"));
    let snapshot = match authority.fresh().await {
        Ok(snapshot) => snapshot,
        Err(error) => return broken(&error),
    };
    let client = match snapshot.directory.document_client(authority, &url, Look::Now).await {
        Ok(client) => client,
        Err(passavant_authority::answer::Failure::Broken(error)) => return broken(&error),
        Err(_) => None,
    };
    let installation = match client {
        None => None,
        Some(_) => match authority.store.installation(&id).await {
            Ok(installation) => installation,
            Err(error) => return broken(&error),
        },
    };
    match installation {
        Some((held, _)) => {
            revocable(&client_document::of_installation(&url, &held.public_jwk, held.algorithm))
        }
        None => refused(StatusCode::NOT_FOUND, "not_found", "There is no such installation."),
    }
}

/// Admits a token that was issued to an installation: it may list and revoke its person's
/// installations.
async fn of_an_installation(
    idp: &Idp,
    request: Request,
    path: &str,
) -> Result<(Bearer, String), Response<Body>> {
    let (parts, _) = request.into_parts();
    let bearer = Bearer::admit(idp, &parts, path, "openid").await?;
    let prefix = idp.0.authority.issuer.endpoint(&format!("{INSTALLATIONS}/"));
    if bearer.token.client.starts_with(&prefix) {
        return Ok((bearer, origin_of(&parts).0));
    }
    let text = "Only an enrolled installation may see and revoke its person's installations.";
    Err(refused(StatusCode::FORBIDDEN, "access_denied", text))
}

/// GET: the installations of the token's person.
pub(super) async fn list(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (token, person) = match of_an_installation(&idp, request, INSTALLATIONS).await {
        Ok((bearer, _)) => (bearer.token, bearer.standing.person),
        Err(refused) => return refused,
    };
    let authority = &idp.0.authority;
    let held = match authority.store.installations(Some(&person.user.id)).await {
        Ok(held) => held,
        Err(error) => return broken(&error),
    };
    let list: Vec<Value> = held
        .iter()
        .map(|held| {
            let url = authority.issuer.endpoint(&format!("{INSTALLATIONS}/{}", held.id));
            json!({"id": held.id, "device": held.device, "enrolled_at": held.enrolled_at,
                   "used_at": held.used_at, "this_one": url == token.client, "client_id": url})
        })
        .collect();
    no_store(StatusCode::OK, &json!({"installations": list}))
}

/// DELETE of one of the person's own installations: it loses access at once.
pub(super) async fn revoke(
    State(idp): State<Idp>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    let path = format!("{INSTALLATIONS}/{id}");
    let (token, person, request_id) = match of_an_installation(&idp, request, &path).await {
        Ok((bearer, request_id)) => (bearer.token, bearer.standing.person, request_id),
        Err(refused) => return refused,
    };
    let authority = &idp.0.authority;
    let now = authority.now();
    let event = AuditEvent::granted(RequestEvent::RevokeInstallation, now)
        .person(&person.user.id)
        .client(&token.client)
        .with(Detail::Installation, id.as_str())
        .with(Detail::RequestId, request_id);
    let client = authority.issuer.endpoint(&path);
    match authority.store.revoke_installation(&id, Some(&person.user.id), &client, event, now).await
    {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => {
            refused(StatusCode::NOT_FOUND, "not_found", "There is no such installation of yours.")
        }
        Err(error) => broken(&error),
    }
}
