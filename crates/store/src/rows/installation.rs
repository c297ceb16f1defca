//! The stored form of an installation.

use super::Stored;
use crate::people::Installation;
use passavant_proto::{jose::jwk::Algorithm, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, Deserialize)]
pub struct InstallationRow {
    id: String,
    user_id: String,
    device: String,
    public_jwk: Value,
    algorithm: Algorithm,
    enrolled_at: Timestamp,
    used_at: Timestamp,
}

impl Stored for Installation {
    type Row = InstallationRow;

    fn row(&self) -> InstallationRow {
        let Self { id, user_id, device, public_jwk, algorithm, enrolled_at, used_at } =
            self.clone();
        InstallationRow { id, user_id, device, public_jwk, algorithm, enrolled_at, used_at }
    }

    fn of_row(row: InstallationRow) -> Self {
        let InstallationRow { id, user_id, device, public_jwk, algorithm, enrolled_at, used_at } =
            row;
        Self { id, user_id, device, public_jwk, algorithm, enrolled_at, used_at }
    }
}
