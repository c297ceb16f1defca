//! The stored form of an MCP server at the authorization server that governs it.

use super::Stored;
use passavant_proto::{
    identifier::Resource,
    jose::jwk::Algorithm,
    oauth::{client::GovernedResource, scope::Scopes},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
pub struct GovernedResourceRow {
    resource: Resource,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    default_scopes: Scopes,
    #[serde(default)]
    descriptions: BTreeMap<String, String>,
    #[serde(default)]
    access_token_lifetime: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_token_signing_alg: Option<Algorithm>,
    #[serde(default)]
    require_dpop: bool,
    #[serde(default)]
    disabled: bool,
}

impl Stored for GovernedResource {
    type Row = GovernedResourceRow;

    fn row(&self) -> GovernedResourceRow {
        let Self {
            resource,
            name,
            scopes,
            default_scopes,
            descriptions,
            access_token_lifetime,
            access_token_signing_alg,
            require_dpop,
            disabled,
        } = self.clone();
        GovernedResourceRow {
            resource,
            name,
            scopes,
            default_scopes,
            descriptions,
            access_token_lifetime,
            access_token_signing_alg,
            require_dpop,
            disabled,
        }
    }

    fn of_row(row: GovernedResourceRow) -> Self {
        let GovernedResourceRow {
            resource,
            name,
            scopes,
            default_scopes,
            descriptions,
            access_token_lifetime,
            access_token_signing_alg,
            require_dpop,
            disabled,
        } = row;
        Self {
            resource,
            name,
            scopes,
            default_scopes,
            descriptions,
            access_token_lifetime,
            access_token_signing_alg,
            require_dpop,
            disabled,
        }
    }
}
