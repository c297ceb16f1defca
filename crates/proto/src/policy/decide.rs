//! The decision: one pure function that the exchange, the catalog and the simulator call.

use super::records::{
    Connection, RegisteredResource, ReleasedClaim, ResourceAuthorizationServer, SubIdFormat,
    Subject,
};
use crate::{
    identifier::{Issuer, Resource},
    oauth::scope::Scopes,
    oidc::authentication::{Authentication, reaches},
    time::{SKEW, Timestamp},
};
use std::collections::{BTreeSet, HashMap};

/// The person that a decision is about.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// User id.
    pub id: &'a str,
    /// Names of the groups they are in.
    pub groups: &'a BTreeSet<String>,
}

/// A question to the policy.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The person.
    pub person: Person<'a>,
    /// The client.
    pub idp_client_id: &'a str,
    /// The URL of the client's metadata document, if that is its identity.
    pub document: Option<&'a str>,
    /// How they signed in.
    pub authentication: &'a Authentication,
    /// The requested `audience`: a RAS issuer or alias.
    pub audience: &'a str,
    /// The requested MCP servers, as spelled; may be empty.
    pub resources: &'a [Resource],
    /// The requested scopes; `None` for all available.
    pub scopes: Option<&'a Scopes>,
    /// Now.
    pub now: Timestamp,
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The RAS, as registered.
    pub audience: Issuer,
    /// The client's id there.
    pub ras_client_id: String,
    /// The MCP servers, in the requested spelling.
    pub resources: Vec<Resource>,
    /// The scopes.
    pub scopes: Scopes,
    /// Claims that may be released.
    pub release: BTreeSet<ReleasedClaim>,
    /// The RAS's name for the company's tenant there.
    pub aud_tenant: Option<String>,
    /// What of the person `aud_sub` says.
    pub aud_sub: Option<String>,
    /// What `sub_id` says.
    pub sub_id: Option<SubIdFormat>,
    /// The connections that granted it.
    pub rules: Vec<String>,
}

/// Why the policy refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenialReason {
    /// No RAS has this issuer or alias, or it is switched off, or is the IdP itself.
    AudienceUnknown,
    /// No connection of this client to this RAS.
    NotConnected,
    /// There is a connection, but it is not for this person.
    NotAssigned,
    /// A resource is unknown, switched off, or governed by another RAS.
    ResourceNotGoverned,
    /// No resource was named, and the connection has not exactly one.
    ResourceRequired,
    /// The resource is governed by the RAS but no connection opens it to this person.
    ResourceNotAllowed,
    /// None of the requested scopes is granted.
    ScopeNotAllowed,
    /// The sign-in is too old.
    AuthenticationTooOld {
        /// Allowed age in seconds.
        max_age: i64,
    },
    /// The sign-in is too weak.
    AuthenticationTooWeak {
        /// The classes, one of which is required.
        acr_values: Vec<String>,
    },
}

impl DenialReason {
    /// Whether another sign-in would help: the refusal says nothing about person, client or server.
    pub const fn is_about_the_sign_in(&self) -> bool {
        matches!(self, Self::AuthenticationTooOld { .. } | Self::AuthenticationTooWeak { .. })
    }

    /// Whether nothing is open to this person by this client there, whatever was asked for.
    pub const fn is_about_the_whole(&self) -> bool {
        matches!(self, Self::AudienceUnknown | Self::NotConnected | Self::NotAssigned)
    }

    /// The stable name in the audit record.
    pub fn word(&self) -> &'static str {
        match self {
            Self::AudienceUnknown => "policy.audience_unknown",
            Self::NotConnected => "policy.not_connected",
            Self::NotAssigned => "policy.not_assigned",
            Self::ResourceNotGoverned => "policy.resource_not_governed",
            Self::ResourceRequired => "policy.resource_required",
            Self::ResourceNotAllowed => "policy.resource_not_allowed",
            Self::ScopeNotAllowed => "policy.scope_not_allowed",
            Self::AuthenticationTooOld { .. } => "policy.authentication_too_old",
            Self::AuthenticationTooWeak { .. } => "policy.authentication_too_weak",
        }
    }
}

/// A refusal by policy, with the rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: DenialReason,
    /// The deciding rule: `connection <id>`, or `default deny`.
    pub rule: String,
}

impl Denial {
    fn by_default(reason: DenialReason) -> Self {
        Self { reason, rule: "default deny".to_owned() }
    }

    fn by(reason: DenialReason, connection: &Connection) -> Self {
        Self { reason, rule: format!("connection {}", connection.id) }
    }
}

/// All records of the administrators, as stored.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Authorization servers.
    pub servers: Vec<ResourceAuthorizationServer>,
    /// MCP servers.
    pub resources: Vec<RegisteredResource>,
    /// Connections.
    pub connections: Vec<Connection>,
    /// Authorization servers and MCP servers whose records cannot be read, by identifiers and
    /// aliases. The company decides about them, and nobody may reach them.
    pub governed: Vec<String>,
    /// Not even the names of such a server are known, so the company governs every server.
    pub governs_all: bool,
    /// Some connections cannot be read, so no resource can be inferred as the only one.
    pub lacks_connections: bool,
    /// Groups whose records cannot be read; membership opens nothing.
    pub closed_groups: BTreeSet<String>,
}

/// All records of the administrators, indexed for decisions.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    governed: BTreeSet<String>,
    governs_all: bool,
    lacks_connections: bool,
    closed_groups: BTreeSet<String>,
    pub(super) servers: HashMap<String, ResourceAuthorizationServer>,
    spellings: HashMap<String, String>,
    pub(super) resources: HashMap<Resource, RegisteredResource>,
    pub(super) connections: HashMap<(String, String), Vec<Connection>>,
}

impl Policy {
    /// The algorithm that ID-JAGs for an authorization server are signed with, if one was chosen.
    pub fn id_jag_signing_alg(&self, audience: &Issuer) -> Option<crate::jose::jwk::Algorithm> {
        self.servers.get(audience.as_str())?.id_jag_signing_alg
    }

    /// Indexes the records of an IdP with issuer `idp`. A RAS with the same issuer is left out
    /// (ID-JAG draft, section 9.3).
    pub fn new(idp: &Issuer, written: Written) -> Self {
        let Written { servers, resources, mut connections, .. } = written;
        connections.sort_by(|a, b| a.id.cmp(&b.id));
        let mut policy = Self {
            governed: written.governed.iter().map(|name| slashless(name)).collect(),
            governs_all: written.governs_all,
            lacks_connections: written.lacks_connections,
            closed_groups: written.closed_groups,
            ..Self::default()
        };
        for connection in connections {
            let key = (connection.idp_client_id.clone(), connection.audience.as_str().to_owned());
            policy.connections.entry(key).or_default().push(connection);
        }
        let servers: Vec<_> =
            servers.into_iter().filter(|s| !idp.is_spelled(s.issuer.as_str())).collect();
        // Issuers take precedence: an alias never captures another server's issuer, nor the IdP's
        // own.
        for server in &servers {
            let issuer = server.issuer.as_str();
            policy.spellings.insert(slashless(issuer), issuer.to_owned());
        }
        for server in servers {
            let issuer = server.issuer.as_str().to_owned();
            for alias in server.aliases.iter().filter(|alias| !idp.is_spelled(alias)) {
                policy.spellings.entry(slashless(alias)).or_insert_with(|| issuer.clone());
            }
            policy.servers.insert(issuer, server);
        }
        policy.resources = resources.into_iter().map(|r| (r.resource.clone(), r)).collect();
        policy
    }

    /// The RAS that `audience` names by its issuer or an alias, modulo one trailing slash.
    pub fn server(&self, audience: &str) -> Option<&ResourceAuthorizationServer> {
        // Exact match first: two servers may differ only by a trailing slash.
        let exact = self.servers.get(audience);
        let slashless = audience.strip_suffix('/').unwrap_or(audience);
        let spelled = || self.servers.get(self.spellings.get(slashless)?);
        exact.or_else(spelled).filter(|server| !server.disabled)
    }

    /// The registered MCP server with this identifier.
    pub fn resource(&self, resource: &Resource) -> Option<&RegisteredResource> {
        self.resources.get(resource)
    }

    /// Whether the company decides about an MCP server: if the server or its authorization server
    /// is registered here, switched on or off, no matter who may reach it.
    pub fn governs(&self, resource: &Resource, authorization_server: &str) -> bool {
        let server = slashless(authorization_server);
        self.governs_all
            || self.resources.contains_key(resource)
            || self.servers.contains_key(authorization_server)
            || self.spellings.contains_key(&server)
            || self.governed.contains(&server)
            || self.governed.contains(&slashless(resource.normalized()))
    }

    /// Decides: a permit, or one refusal with the rule that decided.
    pub fn decide(&self, question: &Question<'_>) -> Result<Permit, Denial> {
        let server = self
            .server(question.audience)
            .ok_or_else(|| Denial::by_default(DenialReason::AudienceUnknown))?;
        let key = (question.idp_client_id.to_owned(), server.issuer.as_str().to_owned());
        let connected: Vec<&Connection> =
            self.connections.get(&key).into_iter().flatten().filter(|c| !c.disabled).collect();
        let Some(first) = connected.first() else {
            return Err(Denial::by_default(DenialReason::NotConnected));
        };
        let assigned: Vec<&Connection> =
            connected.iter().copied().filter(|c| self.is_for(c, question.person)).collect();
        if assigned.is_empty() {
            return Err(Denial::by(DenialReason::NotAssigned, first));
        }
        let governed = |r: &Resource| {
            self.resources
                .get(r)
                .is_some_and(|held| held.authorization_server == server.issuer && !held.disabled)
        };
        let asked = match question.resources {
            [] if self.lacks_connections => {
                return Err(Denial::by(DenialReason::ResourceRequired, assigned[0]));
            }
            [] => vec![single_resource(&assigned)?],
            asked => asked.to_vec(),
        };
        if !asked.iter().all(governed) {
            return Err(Denial::by_default(DenialReason::ResourceNotGoverned));
        }
        let opening: Vec<&Connection> = assigned
            .iter()
            .copied()
            .filter(|c| asked.iter().any(|r| c.resources.contains(r)))
            .collect();
        if opening.is_empty() {
            return Err(Denial::by(DenialReason::ResourceNotAllowed, assigned[0]));
        }
        let mut met = Vec::new();
        let mut unmet = None;
        for connection in opening {
            match conditions_met(connection, question) {
                Ok(()) => met.push(connection),
                Err(reason) => {
                    unmet.get_or_insert(Denial::by(reason, connection));
                }
            }
        }
        self.grant(server, &met, &asked, question, unmet)
    }

    /// Whether a connection is for a person.
    pub(super) fn is_for(&self, connection: &Connection, person: Person<'_>) -> bool {
        connection.subjects.iter().any(|subject| match subject {
            Subject::Everyone => true,
            Subject::Group(name) => {
                person.groups.contains(name) && !self.closed_groups.contains(name)
            }
            Subject::User(id) => id == person.id,
        })
    }

    /// Unites the grants of the connections whose conditions are met. If only a connection whose
    /// conditions are not met could grant the request, its denial asks for a step-up.
    fn grant(
        &self,
        server: &ResourceAuthorizationServer,
        met: &[&Connection],
        asked: &[Resource],
        question: &Question<'_>,
        unmet: Option<Denial>,
    ) -> Result<Permit, Denial> {
        let Some(first) = met.first() else {
            return Err(unmet.unwrap_or_else(|| Denial::by_default(DenialReason::NotConnected)));
        };
        let claimed =
            |c: &Connection| c.ras_client_id.clone().or(question.document.map(str::to_owned));
        let Some(ras_client_id) = claimed(first) else {
            // A registered client has no id of its own to use instead.
            return Err(Denial::by(DenialReason::NotConnected, first));
        };
        let mut permit = Permit {
            audience: server.issuer.clone(),
            ras_client_id: ras_client_id.clone(),
            resources: Vec::new(),
            scopes: Scopes::default(),
            release: server.release.clone(),
            aud_tenant: server.aud_tenant.clone(),
            aud_sub: server.aud_sub.clone(),
            sub_id: server.sub_id,
            rules: Vec::new(),
        };
        // Connections that map the client to another id are not united with the first.
        let united: Vec<&&Connection> =
            met.iter().filter(|c| claimed(c).as_ref() == Some(&ras_client_id)).collect();
        permit.rules = united.iter().map(|c| format!("connection {}", c.id)).collect();
        // One scope value speaks for all resources of an ID-JAG, so it carries only what is granted
        // on each of them: a scope of one resource must not leak to another.
        let mut scopes_of_all: Option<Scopes> = None;
        let mut has_scopes = false;
        for resource in asked {
            let opening = united.iter().filter(|c| c.resources.contains(resource));
            let Some(registered) = self.resources.get(resource) else { continue };
            let mut granted: Option<Scopes> = None;
            for connection in opening {
                let more = connection.scopes.intersection(&registered.scopes);
                granted = Some(granted.map_or(more.clone(), |held| held.union(&more)));
            }
            if let Some(granted) = granted {
                permit.resources.push(resource.clone());
                has_scopes |= !registered.scopes.is_empty();
                scopes_of_all =
                    Some(scopes_of_all.map_or(granted.clone(), |all| all.intersection(&granted)));
            }
        }
        permit.scopes = scopes_of_all.unwrap_or_default();
        if has_scopes && permit.scopes.is_empty() {
            // Without scopes, the RAS would apply its defaults, which is more than the connection
            // grants.
            return Err(unmet.unwrap_or_else(|| Denial::by(DenialReason::ScopeNotAllowed, first)));
        }
        if let Some(wanted) = question.scopes {
            let granted = permit.scopes.intersection(wanted);
            if granted.is_empty() && !wanted.is_empty() {
                return Err(
                    unmet.unwrap_or_else(|| Denial::by(DenialReason::ScopeNotAllowed, first))
                );
            }
            permit.scopes = granted;
        }
        Ok(permit)
    }
}

/// A name without its trailing slash. Two names that differ only by it are the same, unless both
/// are registered.
fn slashless(text: &str) -> String {
    text.strip_suffix('/').unwrap_or(text).to_owned()
}

fn single_resource(assigned: &[&Connection]) -> Result<Resource, Denial> {
    let all: BTreeSet<&Resource> = assigned.iter().flat_map(|c| &c.resources).collect();
    match all.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => Ok((*one).clone()),
        _ => Err(Denial::by(DenialReason::ResourceRequired, assigned[0])),
    }
}

fn conditions_met(connection: &Connection, question: &Question<'_>) -> Result<(), DenialReason> {
    let conditions = &connection.conditions;
    let authentication = question.authentication;
    let strong = |wanted: &String| reaches(&authentication.acr, wanted);
    if !conditions.acr_values.is_empty() && !conditions.acr_values.iter().any(strong) {
        let acr_values = conditions.acr_values.clone();
        return Err(DenialReason::AuthenticationTooWeak { acr_values });
    }
    match conditions.max_authentication_age {
        // One that is yet to come is no recent one.
        Some(max_age)
            if !(-SKEW..=max_age).contains(&question.now.since(authentication.auth_time)) =>
        {
            Err(DenialReason::AuthenticationTooOld { max_age })
        }
        _ => Ok(()),
    }
}
