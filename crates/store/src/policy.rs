//! The policy of an identity provider, as it is on record.

use crate::{
    database::{Store, StoreError},
    people::Group,
};
use passavant_proto::{
    identifier::Issuer,
    policy::{Connection, Policy, RegisteredResource, ResourceAuthorizationServer, Written},
};
use serde_json::Value;

impl Store {
    /// What the administrators of the identity provider `issuer` said. A record that cannot be read opens nothing, and
    /// what is closed while it can be read does not open because it cannot.
    pub async fn policy(&self, issuer: &Issuer) -> Result<Policy, StoreError> {
        let servers = self.held::<ResourceAuthorizationServer>().await?;
        let resources = self.held::<RegisteredResource>().await?;
        let connections = self.held::<Connection>().await?;
        let groups = self.held::<Group>().await?;
        let mut governed: Vec<String> =
            resources.unreadable.into_iter().map(|(id, _)| id).collect();
        let mut governs_all = false;
        for (id, document) in servers.unreadable {
            // By which other names it is known, only its document tells.
            match document.as_ref().map(|document| document.get("aliases")) {
                Some(Some(Value::Array(aliases))) => {
                    governed.extend(aliases.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                Some(None) => {}
                _ => governs_all = true,
            }
            governed.push(id);
        }
        Ok(Policy::new(
            issuer,
            Written {
                servers: servers.records,
                resources: resources.records,
                connections: connections.records,
                governed,
                governs_all,
                lacks_connections: !connections.unreadable.is_empty(),
                closed_groups: groups.unreadable.into_iter().map(|(name, _)| name).collect(),
            },
        ))
    }
}
