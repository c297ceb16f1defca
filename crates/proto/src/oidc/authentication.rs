//! How and when a person signed in.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The `acr` of a sign-in with a password.
pub const ACR_PASSWORD: &str = "urn:passavant:acr:password";

/// One sign-in of one person, as ID tokens tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// When the person proved who they are.
    pub auth_time: Timestamp,
    /// Authentication context class reached.
    #[serde(deserialize_with = "crate::formerly::text")]
    pub acr: String,
    /// Methods used (RFC 8176 names).
    pub amr: Vec<String>,
    /// The issuer that vouched for it, where that was somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<crate::identifier::Issuer>,
}
