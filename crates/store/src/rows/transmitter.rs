//! The stored form of another party whose signals count here.

use super::Stored;
use passavant_proto::{identifier::Issuer, jose::jwk::Algorithm, ssf::Transmitter};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct TransmitterRow {
    name: String,
    issuer: Issuer,
    audience: String,
    speaks_for: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwks_uri: Option<String>,
    #[serde(default)]
    algorithm: Algorithm,
    token_hash: String,
    #[serde(default)]
    disabled: bool,
}

impl Stored for Transmitter {
    type Row = TransmitterRow;

    fn row(&self) -> TransmitterRow {
        let Self { name, issuer, audience, speaks_for, jwks_uri, algorithm, token_hash, disabled } =
            self.clone();
        TransmitterRow {
            name,
            issuer,
            audience,
            speaks_for,
            jwks_uri,
            algorithm,
            token_hash,
            disabled,
        }
    }

    fn of_row(row: TransmitterRow) -> Self {
        let TransmitterRow {
            name,
            issuer,
            audience,
            speaks_for,
            jwks_uri,
            algorithm,
            token_hash,
            disabled,
        } = row;
        Self { name, issuer, audience, speaks_for, jwks_uri, algorithm, token_hash, disabled }
    }
}
