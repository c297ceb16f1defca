//! The policy of an identity provider, from its stored records.

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
    /// The policy from the administrators' records of the identity provider `issuer`. A record that
    /// cannot be read opens nothing, and nothing that a readable record closes is opened because
    /// the record cannot be read.
    pub async fn policy(&self, issuer: &Issuer) -> Result<Policy, StoreError> {
        self.policy_as_if(issuer, |_| {}).await
    }

    /// The policy as it would be if each connection were changed so.
    pub async fn policy_as_if(
        &self,
        issuer: &Issuer,
        change: impl FnMut(&mut Connection) + Send,
    ) -> Result<Policy, StoreError> {
        let servers = self.readings::<ResourceAuthorizationServer>().await?;
        let resources = self.readings::<RegisteredResource>().await?;
        let mut connections = self.readings::<Connection>().await?;
        connections.records.iter_mut().for_each(change);
        let groups = self.readings::<Group>().await?;
        let mut governed: Vec<String> =
            resources.unreadable.into_iter().map(|(id, _)| id).collect();
        let mut governs_all = false;
        for (id, document) in servers.unreadable {
            // The server's other names are known only from its document.
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
