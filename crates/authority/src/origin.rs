//! Where a request came from, and its id.

use crate::admission::address_key;
use axum::{extract::ConnectInfo, http::request::Parts};
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
