//! The stored form of how and when a person signed in.

use super::Stored;
use passavant_proto::{
    formerly, identifier::SubjectIssuer, oidc::authentication::Authentication, time::Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct AuthenticationRow {
    auth_time: Timestamp,
    #[serde(deserialize_with = "formerly::text")]
    acr: String,
    amr: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<SubjectIssuer>,
}

impl Stored for Authentication {
    type Row = AuthenticationRow;

    fn row(&self) -> AuthenticationRow {
        let Self { auth_time, acr, amr, issuer } = self.clone();
        AuthenticationRow { auth_time, acr, amr, issuer }
    }

    fn of_row(row: AuthenticationRow) -> Self {
        let AuthenticationRow { auth_time, acr, amr, issuer } = row;
        Self { auth_time, acr, amr, issuer }
    }
}
