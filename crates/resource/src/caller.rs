//! The caller of a request.

use passavant_proto::{oauth::access_token::AccessToken, oauth::scope::Scopes, time::Timestamp};
use std::sync::Arc;

/// The verified caller of a request. Only the layer creates it: a handler that gets one knows that
/// the token was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Arc<Admitted>);

#[derive(Debug, PartialEq, Eq)]
struct Admitted {
    token: AccessToken,
    hash: String,
}

impl Caller {
    pub(crate) fn new(token: AccessToken, hash: String) -> Self {
        Self(Arc::new(Admitted { token, hash }))
    }
    /// The person, as the authorization server identifies them: unique together with
    /// [`Caller::issuer`].
    pub fn subject(&self) -> &str {
        &self.0.token.subject
    }
    /// The authorization server.
    pub fn issuer(&self) -> &str {
        self.0.token.issuer.as_str()
    }
    /// The client (agent) that calls for the person.
    pub fn client(&self) -> &str {
        &self.0.token.client
    }
    /// Scopes of the token.
    pub fn scopes(&self) -> &Scopes {
        &self.0.token.scopes
    }
    /// SHA-256 of the whole token in base64url: a key for caches of what is known about one token.
    pub fn token_hash(&self) -> &str {
        &self.0.hash
    }
    /// `jti` of the token.
    pub fn token_id(&self) -> &str {
        &self.0.token.jti
    }
    /// `jti` of the ID-JAG that the token came from: the link to the IdP's audit trail.
    pub fn transaction(&self) -> Option<&str> {
        self.0.token.transaction.as_deref()
    }
    /// When the token expires.
    pub fn expires(&self) -> Timestamp {
        self.0.token.expires
    }
    /// When the person signed in, if the token says so.
    pub fn auth_time(&self) -> Option<Timestamp> {
        self.0.token.auth_time
    }
    /// The authentication context class of the sign-in, if the token says so.
    pub fn acr(&self) -> Option<&str> {
        self.0.token.acr.as_deref()
    }
    pub(crate) fn key_thumbprint(&self) -> Option<&str> {
        self.0.token.key_thumbprint.as_deref()
    }
}
