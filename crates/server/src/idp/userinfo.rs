//! Userinfo (OpenID Connect Core 5.3), for our own access tokens with `openid`.

use super::Idp;
use crate::{
    answer::{broken, no_store},
    authority::Directory as _,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
};
use carnet_proto::{
    access_token::{AccessToken, verify_any_audience},
    challenge::Challenge,
    dpop,
    secret::Secret,
};
use carnet_store::{HotOutcome, StoreError, UsedJti, User};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn tell(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match person_of(&idp, &parts).await {
        Ok(Some((token, user))) => {
            if token.scopes.contains("openid") {
                no_store(StatusCode::OK, &claims(&token, &user))
            } else {
                let challenge = Challenge::new("Bearer")
                    .with("error", "insufficient_scope")
                    .with("scope", "openid");
                refused(StatusCode::FORBIDDEN, &challenge)
            }
        }
        Ok(None) => {
            let mut challenge = Challenge::new("Bearer");
            if parts.headers.contains_key(header::AUTHORIZATION) {
                challenge = challenge.with("error", "invalid_token");
            }
            refused(StatusCode::UNAUTHORIZED, &challenge)
        }
        Err(error) => broken(&error),
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
                && proves(idp, parts, presented.expose(), bound).await?
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
    Ok(on_record && session && person && snapshot.directory.client(&token.client).is_some())
}

async fn proves(idp: &Idp, parts: &Parts, token: &str, bound: &str) -> Result<bool, StoreError> {
    let authority = &idp.0.authority;
    let mut proofs = parts.headers.get_all("dpop").iter();
    let (Some(proof), None) = (proofs.next(), proofs.next()) else { return Ok(false) };
    let Ok(proof) = proof.to_str() else { return Ok(false) };
    let url = authority.issuer.endpoint("/userinfo");
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

fn claims(token: &AccessToken, user: &User) -> Value {
    let mut claims = json!({"sub": user.id});
    if token.scopes.contains("email")
        && let Some(email) = &user.email
    {
        claims["email"] = email.as_str().into();
        claims["email_verified"] = user.email_verified.into();
    }
    if token.scopes.contains("profile") {
        claims["preferred_username"] = user.username.as_str().into();
        if let Some(name) = &user.display_name {
            claims["name"] = name.as_str().into();
        }
    }
    claims
}
