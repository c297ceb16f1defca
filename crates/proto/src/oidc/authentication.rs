//! How and when a person signed in.

use crate::time::Timestamp;

/// The `acr` of a sign-in with a password.
pub const ACR_PASSWORD: &str = "urn:passavant:acr:password";

/// One sign-in of one person, as ID tokens describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// When the person proved their identity.
    pub auth_time: Timestamp,
    /// Authentication context class reached.
    pub acr: String,
    /// Methods used (RFC 8176 names).
    pub amr: Vec<String>,
    /// The issuer that vouched for it, if it was another one.
    pub issuer: Option<crate::identifier::Issuer>,
}
