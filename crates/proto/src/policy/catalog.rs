//! What a person may reach, or why not: for each MCP server the same decision as of the token
//! exchange.

use super::{
    decide::{Denial, DenialReason, Permit, Person, Policy, Question},
    records::{Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
};
use crate::{oidc::authentication::Authentication, time::Timestamp};
use std::collections::BTreeSet;

/// One MCP server in a person's catalog.
#[derive(Clone, Debug)]
pub struct CatalogEntry<'a> {
    /// The MCP server.
    pub resource: &'a RegisteredResource,
    /// The RAS that governs it.
    pub server: &'a ResourceAuthorizationServer,
    /// The decision that the exchange would make.
    pub decision: Result<Permit, Denial>,
    /// Groups that connections open the MCP server to.
    pub groups: BTreeSet<&'a str>,
}

impl CatalogEntry<'_> {
    /// Why it is refused, in words for a person.
    pub fn explanation(&self, denial: &Denial) -> String {
        match &denial.reason {
            DenialReason::NotAssigned | DenialReason::ResourceNotAllowed => {
                let groups: Vec<&str> = self.groups.iter().copied().collect();
                match groups.as_slice() {
                    [one] => format!("group {one} required"),
                    many => format!("one of the groups {} required", many.join(", ")),
                }
            }
            DenialReason::AuthenticationTooOld { max_age } => {
                format!("a sign-in of the last {max_age} s required")
            }
            DenialReason::AuthenticationTooWeak { acr_values } => {
                format!("a sign-in of class {} required", acr_values.join(" or "))
            }
            _ => "no scope is granted".to_owned(),
        }
    }
}

impl Policy {
    /// The MCP servers that connections of `idp_client_id` open to this person, to everyone or to a
    /// group. Each has the decision that the exchange would make for this person, by the same
    /// function.
    pub fn catalog(
        &self,
        person: Person<'_>,
        idp_client_id: &str,
        document: Option<&str>,
        authentication: &Authentication,
        now: Timestamp,
    ) -> Vec<CatalogEntry<'_>> {
        let mut entries = Vec::new();
        for resource in self.resources.values().filter(|resource| !resource.disabled) {
            let issuer = resource.authorization_server.as_str();
            let Some(server) = self.servers.get(issuer).filter(|server| !server.disabled) else {
                continue;
            };
            let key = (idp_client_id.to_owned(), issuer.to_owned());
            let connections = self.connections.get(&key).into_iter().flatten();
            let opening: Vec<&Connection> = connections
                .filter(|c| !c.disabled && c.resources.contains(&resource.resource))
                .collect();
            // A connection only for other single people is not shown.
            let shown = opening.iter().any(|c| {
                self.is_for(c, person) || c.subjects.iter().any(|s| matches!(s, Subject::Group(_)))
            });
            if !shown {
                continue;
            }
            let subjects = opening.iter().flat_map(|c| &c.subjects);
            let groups = subjects.filter_map(|subject| match subject {
                Subject::Group(name) => Some(name.as_str()),
                _ => None,
            });
            let asked = [resource.resource.clone()];
            let question = Question {
                person,
                idp_client_id,
                document,
                authentication,
                audience: issuer,
                resources: &asked,
                scopes: None,
                now,
            };
            let decision = self.decide(&question);
            entries.push(CatalogEntry { resource, server, decision, groups: groups.collect() });
        }
        entries.sort_by(|a, b| {
            (&a.resource.name, &a.resource.resource).cmp(&(&b.resource.name, &b.resource.resource))
        });
        entries
    }
}
