//! The assertion by which a gateway tells the MCP server behind it who calls: a short-lived signed
//! JWT that replaces the caller's token, which is never forwarded.

use crate::{jose::jwk::SigningKey, jose::jws, time::Timestamp};
use serde::Serialize;

/// Header `typ`, so that no verifier of another kind of JWT accepts it.
pub const TYPE: &str = "passavant-caller+jwt";
/// Lifetime in seconds.
pub const LIFETIME: i64 = 60;

/// The claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallerClaims<'a> {
    /// The gateway: the resource identifier of the MCP server as callers know it. Its keys are at
    /// the `jwks_uri` of that resource's metadata (RFC 9728).
    pub iss: &'a str,
    /// The MCP server behind the gateway: its URL, or the value that the administrator configured.
    pub aud: &'a str,
    /// The person, as the authorization server identifies them.
    pub sub: &'a str,
    /// The authorization server: `sub` is unique together with it.
    pub sub_issuer: &'a str,
    /// The client (agent) that calls for the person.
    pub client_id: &'a str,
    /// Scopes of the caller's token.
    pub scope: String,
    /// `jti` of the ID-JAG that the caller's token was issued for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<&'a str>,
    /// When it expires.
    pub exp: Timestamp,
    /// When it was issued.
    pub iat: Timestamp,
    /// Unique.
    pub jti: String,
}

impl CallerClaims<'_> {
    /// The signed assertion.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }
}
