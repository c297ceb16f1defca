//! Shared signals: others whose signals count here, and those who listen to ours.

use super::written::{AlgorithmName, SecureUrl, given, said};
use passavant_proto::{identifier::Issuer, jose::jwk::Algorithm, ssf, time::Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whom a client is told of as a receiver of signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignalsAbout {
    /// People who signed in to it.
    ItsPeople,
    /// Everyone.
    Everyone,
}

impl From<SignalsAbout> for ssf::Told {
    fn from(about: SignalsAbout) -> Self {
        match about {
            SignalsAbout::ItsPeople => Self::ItsPeople,
            SignalsAbout::Everyone => Self::Everyone,
        }
    }
}

impl From<ssf::Told> for SignalsAbout {
    fn from(told: ssf::Told) -> Self {
        match told {
            ssf::Told::ItsPeople => Self::ItsPeople,
            ssf::Told::Everyone => Self::Everyone,
        }
    }
}

/// Another party whose signals are to count here. It gets a token to push with, which the answer shows this once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransmitter {
    /// Its name here, the last part of the address that it pushes to.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")]
    pub name: String,
    /// `iss` of its security event tokens, byte for byte.
    #[schema(value_type = SecureUrl)]
    pub issuer: Issuer,
    /// `aud` of those that are for us, byte for byte: as it says when the stream is made.
    #[schema(pattern = "^[ -~]{1,1024}$")]
    pub audience: String,
    /// Whose people it speaks of: at an identity provider an upstream, by its name; at an authorization server a
    /// trusted issuer.
    #[schema(min_length = 1, max_length = 1024)]
    pub speaks_for: String,
    /// URL of its keys, where the metadata of its issuer do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecureUrl>)]
    pub jwks_uri: Option<String>,
    /// The one algorithm it signs with; RS256 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// What is to be another about a transmitter.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct TransmitterChange {
    /// `aud` of the tokens that are for us.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[ -~]{1,1024}$")]
    pub audience: Option<String>,
    /// URL of its keys; `null` where the metadata of its issuer tell.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecureUrl>)]
    pub jwks_uri: Option<Option<String>>,
    /// The one algorithm it signs with.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// Another party whose signals count here.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TransmitterView {
    /// Its name here.
    pub name: String,
    /// `iss` of its tokens.
    #[schema(value_type = String)]
    pub issuer: Issuer,
    /// `aud` of those that are for us.
    pub audience: String,
    /// Whose people it speaks of.
    pub speaks_for: String,
    /// URL of its keys, where it was given.
    pub jwks_uri: Option<String>,
    /// The one algorithm it signs with.
    #[schema(value_type = AlgorithmName)]
    pub algorithm: Algorithm,
    /// Where it pushes (`endpoint_url` of its stream).
    pub endpoint_url: String,
    /// The header that it pushes with (`authorization_header` of its stream): only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_header: Option<String>,
    /// Switched off.
    pub disabled: bool,
}

/// The stream of a client that listens to signals.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StreamView {
    /// The client.
    pub client: String,
    /// The stream's id.
    pub id: String,
    /// Which events it wants: the last parts of their names.
    pub events: Vec<String>,
    /// Where they are posted; absent where the client fetches them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// `enabled`, `paused` or `disabled`.
    pub status: String,
    /// Why it is not enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many events wait.
    pub waiting: i64,
    /// Since when the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub waiting_since: Option<Timestamp>,
    /// Since when nothing was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub failing_since: Option<Timestamp>,
    /// Why nothing was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When it was made.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
}
