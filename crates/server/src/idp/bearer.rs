//! Our own access tokens at our own endpoints: userinfo, catalog, installations.

use super::Idp;
use crate::answer::{Failure, no_store};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
};
use carnet_proto::{
    access_token::{AccessToken, verify_any_audience},
    challenge::Challenge,
    dpop,
    secret::Secret,
};
use carnet_store::{HotOutcome, StoreError, UsedJti, User};
use serde_json::json;
use std::sync::Arc;

/// A live token with the scope an endpoint needs, and its person.
pub(super) struct Bearer {
    pub(super) token: AccessToken,
    pub(super) user: Arc<User>,
}

impl Bearer {
    /// Reads the token of a request to the endpoint at `path`, or answers with the challenge.
    pub(super) async fn admit(
        idp: &Idp,
        parts: &Parts,
        path: &str,
        scope: &str,
    ) -> Result<Self, Response<Body>> {
        match person_of(idp, parts, path).await {
            Ok(Some((token, user))) if token.scopes.contains(scope) => Ok(Self { token, user }),
            Ok(Some(_)) => {
                let challenge = Challenge::new("Bearer")
                    .with("error", "insufficient_scope")
                    .with("scope", scope);
                Err(refused(StatusCode::FORBIDDEN, &challenge))
            }
            Ok(None) => {
                let mut challenge = Challenge::new("Bearer");
                if parts.headers.contains_key(header::AUTHORIZATION) {
                    challenge = challenge.with("error", "invalid_token");
                }
                Err(refused(StatusCode::UNAUTHORIZED, &challenge))
            }
            Err(error) => Err(crate::answer::broken(&error)),
        }
    }
}

fn refused(status: StatusCode, challenge: &Challenge) -> Response<Body> {
    let error = challenge.get("error").unwrap_or("invalid_token");
    let mut response = no_store(status, &json!({"error": error}));
    if let Ok(value) = HeaderValue::from_str(&challenge.to_header()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// The token and its person, if the token is live in every respect.
async fn person_of(
    idp: &Idp,
    parts: &Parts,
    path: &str,
) -> Result<Option<(AccessToken, Arc<User>)>, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return Ok(None) };
    let presented = header.to_str().ok().and_then(|header| header.split_once(' '));
    let Some((scheme, presented)) = presented else { return Ok(None) };
    let presented = Secret::new(presented.trim());
    let keys = authority.keys.verifying();
    let verified = verify_any_audience(presented.expose(), keys, &authority.issuer, now);
    let Ok((token, audience)) = verified else { return Ok(None) };
    if audience != [authority.issuer.as_str()] {
        return Ok(None);
    }
    let proved = match &token.key_thumbprint {
        None => scheme.eq_ignore_ascii_case("bearer"),
        Some(bound) => {
            scheme.eq_ignore_ascii_case("dpop")
                && proves(idp, parts, path, presented.expose(), bound).await?
        }
    };
    if !proved || !is_live(idp, &token).await? {
        return Ok(None);
    }
    let snapshot = authority.fresh().await?;
    let user = snapshot.directory.person(&authority.store, &token.subject).await?;
    Ok(user.map(|user| (token, user)))
}

/// Whether a token of ours still stands: on record, its session not ended, its client live.
pub(super) async fn is_live(idp: &Idp, token: &AccessToken) -> Result<bool, StoreError> {
    let authority = &idp.0.authority;
    let on_record = authority.store.live_grant(&token.jti).await?.is_some();
    let session = match &token.session {
        Some(session) => authority.store.session_not_ended(session).await?,
        None => false,
    };
    let snapshot = authority.fresh().await?;
    let person = snapshot.directory.person(&authority.store, &token.subject).await?.is_some();
    let client = match authority.client(&snapshot.directory, &token.client).await {
        Ok(client) => client.is_some(),
        Err(Failure::Broken(error)) => return Err(error),
        Err(_) => false,
    };
    Ok(on_record && session && person && client)
}

async fn proves(
    idp: &Idp,
    parts: &Parts,
    path: &str,
    token: &str,
    bound: &str,
) -> Result<bool, StoreError> {
    let authority = &idp.0.authority;
    let mut proofs = parts.headers.get_all("dpop").iter();
    let (Some(proof), None) = (proofs.next(), proofs.next()) else { return Ok(false) };
    let Ok(proof) = proof.to_str() else { return Ok(false) };
    let url = authority.issuer.endpoint(path);
    let method = parts.method.as_str();
    let asked = dpop::Request { method, url: &url, access_token: Some(token) };
    let now = authority.now();
    let Ok(proof) = dpop::verify(proof, asked, now) else { return Ok(false) };
    if proof.key_thumbprint != bound {
        return Ok(false);
    }
    let namespace = format!("dpop {}", proof.key_thumbprint);
    let jti = UsedJti { namespace, jti: proof.jti, forget_after: proof.forget_after };
    Ok(authority.store.remember_jti(jti, now).await? == HotOutcome::Recorded)
}
