//! What other parties answer wrongly, in words that name what to change.

use crate::{http::Answer, trouble::OutboundError};
use passavant_proto::{jose::jws::JwtError, others_text::shown};
use serde::Deserialize;
use std::fmt;

/// An OAuth error answer. The texts are another party's: made harmless and short where they are read.
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
    /// The error of an answer: in its own words, whatever they are.
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

/// The first words of a body: of a page, what its title says.
pub fn first_words(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if !text.starts_with('<') {
        return text;
    }
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once('<'));
    title.map_or("a page (HTML)", |(title, _)| title.trim())
}

/// Two texts that have to be equal are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}\n  found:    {}\n  expected: {}\nhint: {hint}",
    shown(found, 2048),
    shown(expected, 2048)
)]
pub struct Differs {
    /// Which.
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
    /// The request did not reach its goal.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// Why nobody could be signed in at an issuer.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The issuer's metadata are missing or wrong.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The browser came back with something else than the answer to this sign-in.
    #[error("the sign-in was aborted: {0}")]
    Callback(String),
    /// The issuer refused.
    #[error("the sign-in at the identity provider failed: {party} says {error}")]
    Refused {
        /// Who refused.
        party: String,
        /// Its words.
        error: OAuthError,
    },
    /// An answer breaks the protocol; it was thrown away.
    #[error("the answer of the sign-in at the identity provider was thrown away: {0}")]
    BadAnswer(String),
    /// An ID token does not verify.
    #[error("the ID token of {issuer} is refused: {error}")]
    IdToken {
        /// The issuer.
        issuer: String,
        /// Why.
        error: JwtError,
    },
    /// The request did not reach its goal.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}
