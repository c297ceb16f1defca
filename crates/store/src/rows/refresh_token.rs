//! The stored form of a refresh token.

use super::{Stored, authentication::AuthenticationRow};
use crate::sign_in::RefreshToken;
use passavant_proto::{
    identifier::Resource, oauth::scope::Scopes, oidc::authentication::Authentication,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct RefreshTokenRow {
    family: String,
    sid: String,
    user_id: String,
    client_id: String,
    scopes: Scopes,
    authentication: AuthenticationRow,
    dpop_jkt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_method: Option<String>,
    idle_expires_at: Timestamp,
    expires_at: Timestamp,
}

impl Stored for RefreshToken {
    type Row = RefreshTokenRow;

    fn row(&self) -> RefreshTokenRow {
        let Self {
            family,
            sid,
            user_id,
            client_id,
            scopes,
            authentication,
            dpop_jkt,
            resource,
            client_method,
            idle_expires_at,
            expires_at,
        } = self.clone();
        RefreshTokenRow {
            family,
            sid,
            user_id,
            client_id,
            scopes,
            authentication: authentication.row(),
            dpop_jkt,
            resource,
            client_method,
            idle_expires_at,
            expires_at,
        }
    }

    fn of_row(row: RefreshTokenRow) -> Self {
        let RefreshTokenRow {
            family,
            sid,
            user_id,
            client_id,
            scopes,
            authentication,
            dpop_jkt,
            resource,
            client_method,
            idle_expires_at,
            expires_at,
        } = row;
        Self {
            family,
            sid,
            user_id,
            client_id,
            scopes,
            authentication: Authentication::of_row(authentication),
            dpop_jkt,
            resource,
            client_method,
            idle_expires_at,
            expires_at,
        }
    }
}
