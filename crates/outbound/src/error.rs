//! Errors in other parties' responses, in words that say what to change.

use crate::{http::Answer, trouble::OutboundError};
use passavant_proto::{jose::jws::JwtError, others_text::shown};
use serde::Deserialize;
use std::fmt;

/// An OAuth error response. The texts are another party's; they are sanitized and shortened when
/// they are parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "AsSent")]
pub struct OAuthError {
    /// `error`.
    pub error: String,
    /// `error_description`.
    #[serde(default)]
    pub error_description: String,
    /// `max_age` of RFC 9470.
    #[serde(default)]
    pub max_age: Option<i64>,
    /// `acr_values` of RFC 9470.
    #[serde(default)]
    pub acr_values: Option<String>,
}

/// As the party sent it.
#[derive(Deserialize)]
struct AsSent {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    max_age: Option<i64>,
    #[serde(default)]
    acr_values: Option<String>,
}

impl From<AsSent> for OAuthError {
    fn from(sent: AsSent) -> Self {
        Self {
            error: shown(&sent.error, 100),
            error_description: shown(&sent.error_description, 500),
            max_age: sent.max_age,
            acr_values: sent.acr_values.map(|values| shown(&values, 500)),
        }
    }
}

impl OAuthError {
    /// The error in a response, in the party's own words.
    pub fn of(answer: &Answer) -> Self {
        answer.json().unwrap_or_else(|_| Self {
            error: format!("HTTP {}", answer.status),
            error_description: shown(first_words(&answer.body), 300),
            ..Self::default()
        })
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if self.error_description.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.error_description)
    }
}

/// The first words of a body; of an HTML page, its title.
pub fn first_words(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if !text.starts_with('<') {
        return text;
    }
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once('<'));
    title.map_or("a page (HTML)", |(title, _)| title.trim())
}

/// Two strings that have to be equal are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}\n  found:    {}\n  expected: {}\nhint: {hint}",
    shown(found, 2048),
    shown(expected, 2048)
)]
pub struct Differs {
    /// What they are.
    pub what: String,
    /// What is there.
    pub found: String,
    /// What has to be there.
    pub expected: String,
    /// What to do.
    pub hint: String,
}

/// A discovery document is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// It cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// It is another party's.
    #[error(transparent)]
    Differs(#[from] Differs),
    /// The request was not delivered.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// Why nobody could be signed in at an issuer.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The issuer's metadata are missing or wrong.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The browser returned with something other than the response to this sign-in.
    #[error("the sign-in was aborted: {0}")]
    Callback(String),
    /// The issuer refused.
    #[error("the sign-in at the identity provider failed: {party} says {error}")]
    Refused {
        /// The party that refused.
        party: String,
        /// Its error response.
        error: OAuthError,
    },
    /// A response violates the protocol; it was discarded.
    #[error("the answer to the sign-in at the identity provider was rejected: {0}")]
    BadAnswer(String),
    /// An ID token cannot be verified.
    #[error("the ID token of {issuer} is refused: {error}")]
    IdToken {
        /// The issuer.
        issuer: String,
        /// The reason.
        error: JwtError,
    },
    /// The ID token is of a tenant that is not listed.
    #[error("the ID token of {issuer} is of the tenant `{tenant}`, which is not listed")]
    Tenant {
        /// The issuer.
        issuer: String,
        /// The tenant.
        tenant: String,
    },
    /// The request was not delivered.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}
