//! Introspection answers (RFC 7662) and revocation answers (RFC 7009), the same at IdP and RAS.

use crate::answer;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use passavant_proto::oauth::access_token::AccessToken;
use serde_json::json;

/// The only answer about a token that is not active, or that the client may not introspect.
pub fn inactive() -> Response<Body> {
    answer::no_store(StatusCode::OK, &json!({"active": false}))
}

/// The answer about an active access token.
pub fn active(token: &AccessToken, audience: &[String]) -> Response<Body> {
    let mut body = json!({
        "active": true,
        "token_type": if token.key_thumbprint.is_some() { "DPoP" } else { "Bearer" },
        "iss": token.issuer,
        "sub": token.subject,
        "client_id": token.client,
        "aud": if let [one] = audience { json!(one) } else { json!(audience) },
        "jti": token.jti,
        "exp": token.expires,
        "scope": token.scopes.to_string(),
    });
    if let Some(jkt) = &token.key_thumbprint {
        body["cnf"] = json!({"jkt": jkt});
    }
    answer::no_store(StatusCode::OK, &body)
}

/// 200 for any token: whether it was known is not revealed (RFC 7009 section 2.2).
pub fn revoked() -> Response<Body> {
    let mut response = StatusCode::OK.into_response();
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}
