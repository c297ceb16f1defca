//! Access tokens of this IdP at its own endpoints: userinfo, catalog, installations.

use super::{
    standing::{Chain, Standing},
    state::Idp,
};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
};
use passavant_authority::{answer::no_store, bearer};
use passavant_proto::{
    jose::jwk::Algorithm,
    oauth::access_token::{AccessToken, verify_any_audience},
    oauth::challenge::Challenge,
};
use passavant_store::StoreError;
use serde_json::json;

/// A valid token with the scope that an endpoint needs, and the records it rests on.
pub(super) struct Bearer {
    pub(super) token: AccessToken,
    pub(super) standing: Standing,
}

/// Why the request has no usable token.
enum NoBearer {
    /// There is no token, or it is not valid.
    Token,
    /// The token is bound to a key, and the request does not prove possession of it (RFC 9449,
    /// 7.1).
    Proof,
    Broken(StoreError),
}

impl From<StoreError> for NoBearer {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

impl Bearer {
    /// Checks the token of a request to the endpoint at `path`. The error is a response with the
    /// challenge.
    pub(super) async fn admit(
        idp: &Idp,
        parts: &Parts,
        path: &str,
        scope: &str,
    ) -> Result<Self, Response<Body>> {
        let presented = parts.headers.contains_key(header::AUTHORIZATION);
        match person_of(idp, parts, path).await {
            Ok(bearer) if bearer.token.scopes.contains(scope) => Ok(bearer),
            Ok(bearer) => {
                let scheme = if bearer.token.key_thumbprint.is_some() { "DPoP" } else { "Bearer" };
                let challenge =
                    Challenge::new(scheme).with("error", "insufficient_scope").with("scope", scope);
                Err(refused(StatusCode::FORBIDDEN, &challenge))
            }
            Err(NoBearer::Token) => {
                let mut challenge = Challenge::new("Bearer");
                if presented {
                    challenge = challenge.with("error", "invalid_token");
                }
                Err(refused(StatusCode::UNAUTHORIZED, &challenge))
            }
            Err(NoBearer::Proof) => {
                let challenge = Challenge::new("DPoP")
                    .with("error", "invalid_dpop_proof")
                    .with("algs", Algorithm::ALL.map(Algorithm::name).join(" "));
                Err(refused(StatusCode::UNAUTHORIZED, &challenge))
            }
            Err(NoBearer::Broken(error)) => Err(passavant_authority::answer::broken(&error)),
        }
    }
}

fn refused(status: StatusCode, challenge: &Challenge) -> Response<Body> {
    // A request without a token is not wrong in itself: neither body nor header names an error (RFC
    // 6750 3.1).
    let body = challenge.get("error").map_or_else(|| json!({}), |error| json!({"error": error}));
    let mut response = no_store(status, &body);
    if let Ok(value) = HeaderValue::from_str(&challenge.to_header()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// The token and its person, if the token is valid in every respect.
async fn person_of(idp: &Idp, parts: &Parts, path: &str) -> Result<Bearer, NoBearer> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let presented = bearer::presented(parts).ok_or(NoBearer::Token)?;
    let keys = authority.fresh().await?.keys.verifying();
    let verified = verify_any_audience(presented.token.expose(), &keys, &authority.issuer, now);
    let (token, audience) = verified.map_err(|_| NoBearer::Token)?;
    if audience != [authority.issuer.as_str()] {
        return Err(NoBearer::Token);
    }
    let bound = token.key_thumbprint.as_deref();
    if !bearer::is_proved(authority, parts, path, &presented, bound).await? {
        return Err(if bound.is_some() { NoBearer::Proof } else { NoBearer::Token });
    }
    let standing = standing_of(idp, &token).await?.ok_or(NoBearer::Token)?;
    Ok(Bearer { token, standing })
}

/// The standing of a token of this IdP; `None` if something it rests on is not valid any more.
pub(super) async fn standing_of(
    idp: &Idp,
    token: &AccessToken,
) -> Result<Option<Standing>, StoreError> {
    let authority = &idp.0.authority;
    let Some(grant) = authority.store.live_grant(&token.jti).await? else { return Ok(None) };
    let Some(session) = &token.session else { return Ok(None) };
    let snapshot = authority.fresh().await?;
    let chain = Chain {
        user_id: &token.subject,
        client: &token.client,
        session,
        family: Some(&grant.lineage),
    };
    idp.standing(&snapshot, chain).await
}
