//! The stored form of a checked authorization request: behind `request_uri`, a code or a device
//! code.

use super::Stored;
use passavant_proto::{
    identifier::Resource,
    oauth::{authorize::AuthorizationRequest, pkce::CodeChallenge, scope::Scopes},
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct AuthorizationRequestRow {
    client_id: String,
    redirect_uri: String,
    scopes: Scopes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code_challenge: Option<CodeChallenge>,
    state: Option<String>,
    nonce: Option<String>,
    silent: bool,
    fresh: bool,
    max_age: Option<i64>,
    login_hint: Option<String>,
    dpop_jkt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    essential_acr: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acr_values: Vec<String>,
}

impl Stored for AuthorizationRequest {
    type Row = AuthorizationRequestRow;

    fn row(&self) -> AuthorizationRequestRow {
        let Self {
            client_id,
            redirect_uri,
            scopes,
            code_challenge,
            state,
            nonce,
            silent,
            fresh,
            max_age,
            login_hint,
            dpop_jkt,
            resource,
            subject,
            essential_acr,
            acr_values,
        } = self.clone();
        AuthorizationRequestRow {
            client_id,
            redirect_uri,
            scopes,
            code_challenge,
            state,
            nonce,
            silent,
            fresh,
            max_age,
            login_hint,
            dpop_jkt,
            resource,
            subject,
            essential_acr,
            acr_values,
        }
    }

    fn of_row(row: AuthorizationRequestRow) -> Self {
        let AuthorizationRequestRow {
            client_id,
            redirect_uri,
            scopes,
            code_challenge,
            state,
            nonce,
            silent,
            fresh,
            max_age,
            login_hint,
            dpop_jkt,
            resource,
            subject,
            essential_acr,
            acr_values,
        } = row;
        Self {
            client_id,
            redirect_uri,
            scopes,
            code_challenge,
            state,
            nonce,
            silent,
            fresh,
            max_age,
            login_hint,
            dpop_jkt,
            resource,
            subject,
            essential_acr,
            acr_values,
        }
    }
}
