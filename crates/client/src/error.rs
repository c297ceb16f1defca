//! What can go wrong on the way to a token, in words that name what to change.

use crate::{outbound::OutboundError, vault::VaultError};
use carnet_proto::jws::JwtError;
use serde::Deserialize;
use std::fmt;

/// Part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Sign-in at the IdP.
    SignIn,
    /// Sign-in to ID-JAG at the IdP.
    Exchange,
    /// ID-JAG to access token at the RAS.
    Redeem,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignIn => "sign-in at the identity provider",
            Self::Exchange => "token exchange at the identity provider",
            Self::Redeem => "redemption at the resource authorization server",
        })
    }
}

/// An OAuth error answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is signed in, or the sign-in has ended.
    #[error("nobody is signed in at {issuer}, or the sign-in has ended\nhint: run `carnet login`")]
    SignInNeeded {
        /// The IdP.
        issuer: String,
    },
    /// The policy wants a fresher or stronger sign-in (RFC 9470).
    #[error(
        "the company's policy wants a fresher or stronger sign-in for this MCP server: {}\n\
         hint: run `carnet login` again", .0.error_description
    )]
    StepUpNeeded(OAuthError),
    /// The company's policy refuses; there is no other way in.
    #[error("{party} refused: {error} ({description})\nhint: this is the company's policy; ask IT", 
            error = .error.error, description = .error.error_description)]
    RefusedByPolicy {
        /// Who refused.
        party: String,
        /// Its words.
        error: OAuthError,
    },
    /// A party refused for another reason.
    #[error("the {leg} failed: {party} says {error} ({description})",
            error = .error.error, description = .error.error_description)]
    Refused {
        /// Where.
        leg: Leg,
        /// Who refused.
        party: String,
        /// Its words.
        error: OAuthError,
    },
    /// An answer breaks the protocol; it was thrown away.
    #[error("the answer of the {leg} was thrown away: {what}")]
    BadAnswer {
        /// Where.
        leg: Leg,
        /// What is wrong with it.
        what: String,
    },
    /// An ID token does not verify.
    #[error("the ID token of {issuer} is refused: {error}")]
    IdToken {
        /// The IdP.
        issuer: String,
        /// Why.
        error: JwtError,
    },
    /// A discovery document is missing or wrong.
    #[error("{0}")]
    Discovery(String),
    /// The MCP server does not offer cross-app access.
    #[error(
        "the authorization server {0} does not offer cross-app access (no \
         `urn:ietf:params:oauth:grant-profile:id-jag` in its metadata)\nhint: ask its operator, or \
         configure this authorization server explicitly"
    )]
    NotOffered(String),
    /// The client has no registration at this RAS.
    #[error(
        "there is no client registration for the authorization server {0}\nhint: add its client id \
         and secret with `carnet login --ras-client`"
    )]
    NoRegistration(String),
    /// The request did not reach its goal.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The credential store failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The loopback listener failed.
    #[error("the sign-in listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// The browser came back with something else than the answer to this sign-in.
    #[error("the sign-in was aborted: {0}")]
    Callback(String),
}
