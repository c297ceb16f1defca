//! Where a request came from, its id, and the token that it brings.

use crate::admission::address_key;
use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, header, request::Parts},
};
use passavant_proto::secret::Secret;
use std::net::SocketAddr;

/// Our own id of a request, which also appears in logs and audit trail. Never a caller's.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// The id of a request and the address it came from.
pub fn origin_of(parts: &Parts) -> (String, String) {
    let id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    (id, peer.map(|peer| address_key(peer.0.ip())).unwrap_or_default())
}

/// The token of the one `Authorization` header, if that has the scheme `Bearer` (RFC 6750 section 2.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<Secret> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
}
