//! Signing keys.

use super::written::AlgorithmName;
use passavant_proto::{jose::jwk::Algorithm, time::Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a signing key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is published, and signs later.
    Published,
    /// It signs.
    Signs,
    /// It verifies what it signed.
    Verifies,
    /// Nothing that it signed is alive any more.
    Ended,
}

/// A signing key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made, in seconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it begins to sign.
    #[schema(value_type = i64)]
    pub signs_from: Timestamp,
    /// What it does now.
    pub state: KeyState,
}

/// A new signing key.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// It signs at once: for a key that is in other hands.
    #[serde(default)]
    pub now: bool,
    /// The algorithm whose key is rotated; the server's own unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// A signing key that was made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// Its id.
    pub kid: String,
    /// When it begins to sign, in seconds since 1970.
    #[schema(value_type = i64)]
    pub signs_from: Timestamp,
}
