//! Errors on the way to a token, in words that name what to change.

use crate::{ended::AccessEnded, vault::VaultError};
use passavant_outbound::{Differs, DiscoveryError, OAuthError, OutboundError};
use passavant_proto::{jose::jws::JwtError, oauth::scope::Scopes, others_text::shown};
use std::fmt;

/// A part of the way to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Sign-in at the IdP.
    SignIn,
    /// Enrolment of this installation at the IdP.
    Enrol,
    /// From the sign-in to an ID-JAG, at the IdP.
    Exchange,
    /// From the ID-JAG to an access token, at the RAS.
    Redeem,
    /// The person's own consent at an authorization server without cross-app access.
    Consent,
    /// The IdP's catalog of MCP servers.
    Catalog,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignIn => "sign-in at the identity provider",
            Self::Enrol => "enrolment at the identity provider",
            Self::Exchange => "token exchange at the identity provider",
            Self::Redeem => "redemption at the resource authorization server",
            Self::Consent => "consent at the MCP server's authorization server",
            Self::Catalog => "request for the catalog",
        })
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is signed in, or the sign-in has ended.
    #[error(
        "nobody is signed in at {issuer}, or the sign-in has ended\nhint: run `passavant login`"
    )]
    SignInNeeded {
        /// The IdP.
        issuer: String,
    },
    /// The IdP has ended the sign-in or the enrolment, or the company's policy the access to an MCP
    /// server. What was kept of it is deleted.
    #[error(transparent)]
    AccessEnded(Box<AccessEnded>),
    /// The IdP does not accept the key of this installation, which it still publishes.
    #[error(
        "{issuer} does not accept the key of this computer\nhint: compare the clocks; if they are right, run \
         `passavant login --enrol`"
    )]
    EnrolmentEnded {
        /// The IdP.
        issuer: String,
    },
    /// The policy requires a fresher or stronger sign-in (RFC 9470).
    #[error(
        "the company's policy wants a fresher or stronger sign-in for this MCP server: {}\n\
         hint: run `passavant login` again", .0.error_description
    )]
    StepUpNeeded(OAuthError),
    /// The company's policy refuses access. Nothing else is tried.
    #[error("{party} refused: {error}\nhint: this is the company's policy; ask IT")]
    RefusedByPolicy {
        /// The party that refused.
        party: String,
        /// Its error response.
        error: OAuthError,
    },
    /// A party refused for another reason.
    #[error("the {leg} failed: {party} says {error}")]
    Refused {
        /// The part of the way.
        leg: Leg,
        /// The party that refused.
        party: String,
        /// Its error response.
        error: OAuthError,
    },
    /// Two strings that have to be equal are not.
    #[error(transparent)]
    Differs(#[from] Differs),
    /// A party asks for fewer requests (429).
    #[error("{party} limits the rate of requests; try again in {seconds} s")]
    TooMany {
        /// The party.
        party: String,
        /// Seconds to wait before the next attempt.
        seconds: u64,
    },
    /// A response violates the protocol; it was discarded.
    #[error("the answer to the {leg} was rejected: {what}")]
    BadAnswer {
        /// The part of the way.
        leg: Leg,
        /// What is wrong with it.
        what: String,
    },
    /// An ID token cannot be verified.
    #[error("the ID token of {issuer} is refused: {error}")]
    IdToken {
        /// The IdP.
        issuer: String,
        /// The reason.
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
    /// The RAS knows this client by a registration whose secret is not stored here.
    #[error(
        "the authorization server {issuer} knows this client as `{client_id}`, and its secret is not \
         kept here yet\nhint: run `passavant secret {issuer} {client_id}` once; IT has the secret",
        client_id = shown(.client_id, 200)
    )]
    NoRegistration {
        /// The RAS.
        issuer: String,
        /// The client's id there, as the company's connection names it.
        client_id: String,
    },
    /// The RAS accepts neither the client's metadata document nor a registration that is known
    /// here.
    #[error(
        "the ID-JAG for {issuer} names the client `{claimed}`, but this client is registered there \
         as `{registered}`\n\
         hint: the two must be equal: IT has to correct the connection's ras_client_id, or the \
         registration kept here (`passavant secret {issuer} {claimed}`)",
        claimed = shown(.claimed, 200),
        registered = shown(.registered, 200)
    )]
    ClientMismatch {
        /// The RAS.
        issuer: String,
        /// `client_id` of the ID-JAG.
        claimed: String,
        /// The id that is stored here.
        registered: String,
    },
    /// The MCP server does not offer cross-app access, and the person has not consented at its own
    /// authorization server, or the consent has ended.
    #[error(
        "{url} does not offer cross-app access: its authorization server {issuer} asks you itself, in \
         the browser\nhint: run `passavant tools {url}` in a terminal; your company's IT does not see \
         what is granted there"
    )]
    ConsentNeeded {
        /// The MCP server.
        url: String,
        /// Its authorization server.
        issuer: String,
        /// Scopes to ask for, if more are needed than the server's challenge names.
        scopes: Option<Scopes>,
    },
    /// There is no way to be a client of an authorization server.
    #[error(
        "{0} accepts neither client metadata documents nor dynamic registration, and no client is \
         registered there by hand\n\
         hint: register one with its operator, then run `passavant secret {0} CLIENT_ID`"
    )]
    NoClient(String),
    /// A 403 `insufficient_scope` that names no scope which the token lacks.
    #[error(
        "{url} says that the token has insufficient scope, but does not name the missing scopes\n\
         hint: its operator has to name the scopes in the challenge (RFC 6750 section 3.1)"
    )]
    NothingToWiden {
        /// The MCP server.
        url: String,
    },
    /// A new token has no more scopes than the previous one.
    #[error(
        "{url} needs the scopes `{missing}` for this, and they are not granted to you\nhint: this is \
         the company's policy, or the authorization server's; ask IT"
    )]
    ScopesNotGranted {
        /// The MCP server.
        url: String,
        /// The missing scopes.
        missing: Scopes,
    },
    /// The MCP server keeps rejecting fresh tokens.
    #[error(
        "{url} refuses every token: {error}\nhint: its operator has to compare the `aud` and `iss` of \
         the token with what the server accepts; `passavant doctor {url}` shows both",
        error = shown(.error, 500)
    )]
    TokenRefused {
        /// The MCP server.
        url: String,
        /// The error in its challenge.
        error: String,
    },
    /// A request was not delivered.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The credential store failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The loopback listener failed.
    #[error("the sign-in listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// The browser returned with something other than the response to this sign-in.
    #[error("the sign-in was aborted: {0}")]
    Callback(String),
}

impl From<DiscoveryError> for Error {
    fn from(error: DiscoveryError) -> Self {
        match error {
            DiscoveryError::Unusable(text) => Self::Discovery(text),
            DiscoveryError::Differs(differs) => Self::Differs(differs),
            DiscoveryError::Outbound(error) => Self::Outbound(error),
        }
    }
}
