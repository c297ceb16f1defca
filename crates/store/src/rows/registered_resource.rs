//! The stored form of an MCP server that an identity provider knows.

use super::Stored;
use passavant_proto::{
    identifier::{Issuer, Resource},
    oauth::scope::Scopes,
    policy::RegisteredResource,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct RegisteredResourceRow {
    resource: Resource,
    authorization_server: Issuer,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    disabled: bool,
}

impl Stored for RegisteredResource {
    type Row = RegisteredResourceRow;

    fn row(&self) -> RegisteredResourceRow {
        let Self { resource, authorization_server, name, scopes, disabled } = self.clone();
        RegisteredResourceRow { resource, authorization_server, name, scopes, disabled }
    }

    fn of_row(row: RegisteredResourceRow) -> Self {
        let RegisteredResourceRow { resource, authorization_server, name, scopes, disabled } = row;
        Self { resource, authorization_server, name, scopes, disabled }
    }
}
