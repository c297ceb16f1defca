//! Who is calling.

use carnet_proto::{access_token::AccessToken, scope::Scopes, time::Timestamp};

/// The verified caller of a request. Only the layer makes one, so that a handler that has one knows
/// that the token was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(AccessToken);

impl Caller {
    pub(crate) fn new(token: AccessToken) -> Self {
        Self(token)
    }
    /// The person, as the authorization server names them: unique with [`Caller::issuer`].
    pub fn subject(&self) -> &str {
        &self.0.subject
    }
    /// The authorization server.
    pub fn issuer(&self) -> &str {
        self.0.issuer.as_str()
    }
    /// The client (agent) that calls for the person.
    pub fn client(&self) -> &str {
        &self.0.client
    }
    /// Scopes of the token.
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }
    /// `jti` of the token.
    pub fn token_id(&self) -> &str {
        &self.0.jti
    }
    /// `jti` of the ID-JAG that the token came from: the link to the IdP's audit trail.
    pub fn transaction(&self) -> Option<&str> {
        self.0.transaction.as_deref()
    }
    /// When the token ends.
    pub fn expires(&self) -> Timestamp {
        self.0.expires
    }
    pub(crate) fn key_thumbprint(&self) -> Option<&str> {
        self.0.key_thumbprint.as_deref()
    }
}
