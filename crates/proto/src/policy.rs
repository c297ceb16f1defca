//! Connections: who may use which client to reach which MCP servers. Default is deny. One pure
//! function decides; the exchange and the simulator (`passavant admin explain`) both call it.

use crate::{
    authentication::Authentication,
    identifier::{Issuer, Resource},
    refusal::{StepUp, Wire},
    scope::Scopes,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// A resource authorization server as the IdP knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceAuthorizationServer {
    /// Its issuer identifier: the `aud` of ID-JAGs for it.
    pub issuer: Issuer,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Other values of `audience` that mean this one (JAG-X4).
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Claims about the person that ID-JAGs for it may carry: `email`, `auth_time`, `acr`, `amr`.
    /// Nothing unless listed (EMA 7.4.3).
    #[serde(default)]
    pub release: BTreeSet<ReleasedClaim>,
    /// The algorithm that ID-JAGs for it are signed with; `None` for the identity provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_jag_signing_alg: Option<crate::jwk::Algorithm>,
    /// The algorithm that it signs access tokens with, for gateways that present them here.
    #[serde(default)]
    pub algorithm: crate::jwk::Algorithm,
    /// Switched off by an administrator.
    #[serde(default)]
    pub disabled: bool,
}

/// A claim about the person that an administrator may release to a RAS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the claim of its name
pub enum ReleasedClaim {
    Email,
    AuthTime,
    Acr,
    Amr,
}

/// An MCP server as the IdP knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredResource {
    /// Its resource identifier.
    pub resource: Resource,
    /// The RAS that governs it.
    pub authorization_server: Issuer,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// The scopes it knows.
    #[serde(default)]
    pub scopes: Scopes,
    /// Switched off by an administrator.
    #[serde(default)]
    pub disabled: bool,
}

/// Whom a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Everyone who can sign in.
    Everyone,
    /// The members of a group, by name.
    Group(String),
    /// One person, by user id.
    User(String),
}

/// What must be true of the sign-in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The sign-in may be at most this old, in seconds.
    #[serde(default)]
    pub max_authentication_age: Option<i64>,
    /// The sign-in must have reached one of these classes; empty: any.
    #[serde(default, deserialize_with = "crate::formerly::texts")]
    pub acr_values: Vec<String>,
}

/// The administrator's record that a client may reach a RAS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its name, unique; what audit and explanations call it.
    pub id: String,
    /// The client, by its `idp_client_id`.
    #[serde(deserialize_with = "crate::formerly::text")]
    pub idp_client_id: String,
    /// The RAS.
    pub audience: Issuer,
    /// The client's id at the RAS: the `client_id` claim (JAG-X12). `None` for a client whose own id
    /// is the URL of its metadata document, where that is its id at the RAS too.
    #[serde(default)]
    pub ras_client_id: Option<String>,
    /// The MCP servers it opens.
    pub resources: Vec<Resource>,
    /// The scopes it grants at most.
    #[serde(default)]
    pub scopes: Scopes,
    /// Whom it is for; nobody when empty.
    #[serde(default)]
    pub subjects: Vec<Subject>,
    /// Conditions on the sign-in.
    #[serde(default)]
    pub conditions: Conditions,
    /// Switched off by an administrator.
    #[serde(default)]
    pub disabled: bool,
}

/// The person of a decision.
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
    /// Who.
    pub person: Person<'a>,
    /// Through which client.
    pub idp_client_id: &'a str,
    /// The URL of the client's metadata document, if that is its identity.
    pub document: Option<&'a str>,
    /// How they signed in.
    pub authentication: &'a Authentication,
    /// `audience` as asked for: a RAS issuer or alias.
    pub audience: &'a str,
    /// The MCP servers asked for, as spelled; may be empty.
    pub resources: &'a [Resource],
    /// The scopes asked for; `None` for all there are.
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
    /// The MCP servers, in the spelling that was asked for.
    pub resources: Vec<Resource>,
    /// The scopes.
    pub scopes: Scopes,
    /// Claims that may be released.
    pub release: BTreeSet<ReleasedClaim>,
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
    /// None of the scopes asked for is granted.
    ScopeNotAllowed,
    /// The sign-in is too old.
    AuthenticationTooOld {
        /// Allowed age in seconds.
        max_age: i64,
    },
    /// The sign-in is too weak.
    AuthenticationTooWeak {
        /// Classes one of which is needed.
        acr_values: Vec<String>,
    },
}

impl DenialReason {
    /// Whether it asks for another sign-in, and is no word about person, client or server.
    pub const fn is_about_the_sign_in(&self) -> bool {
        matches!(self, Self::AuthenticationTooOld { .. } | Self::AuthenticationTooWeak { .. })
    }

    /// The stable word for the audit record.
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

    /// The answer to the client: what does not exist and what is not open to this person read the
    /// same (C13), so that nobody can list a company's servers.
    pub fn wire(&self) -> Wire {
        let (error, description) = match &self.reason {
            DenialReason::AudienceUnknown
            | DenialReason::NotConnected
            | DenialReason::NotAssigned => (
                "access_denied",
                "This person may not reach this audience through this client by the company's \
                 policy, or there is no such audience. `audience` must be the issuer identifier \
                 of the MCP server's authorization server, not the URL of the MCP server. If both \
                 are right, ask IT for access.",
            ),
            DenialReason::ResourceNotGoverned | DenialReason::ResourceNotAllowed => (
                "access_denied",
                "This person may not reach this resource at this audience by the company's \
                 policy, or there is no such resource. `resource` must be the MCP server's URL as \
                 its protected-resource metadata spells it. If it is, ask IT for access.",
            ),
            DenialReason::ResourceRequired => (
                "invalid_target",
                "Name the MCP server with `resource`: this audience governs several.",
            ),
            DenialReason::ScopeNotAllowed => (
                "access_denied",
                "None of the scopes asked for is granted to this person by the company's policy. \
                 Ask IT for access.",
            ),
            DenialReason::AuthenticationTooOld { .. } => (
                "insufficient_user_authentication",
                "The sign-in is older than the company's policy allows for this MCP server. Sign \
                 in again.",
            ),
            DenialReason::AuthenticationTooWeak { .. } => (
                "insufficient_user_authentication",
                "The sign-in is weaker than the company's policy asks for this MCP server. Sign \
                 in again with one of acr_values.",
            ),
        };
        let step_up = match &self.reason {
            DenialReason::AuthenticationTooOld { max_age } => Some(StepUp::MaxAge(*max_age)),
            DenialReason::AuthenticationTooWeak { acr_values } => {
                Some(StepUp::AcrValues(acr_values.join(" ")))
            }
            _ => None,
        };
        Wire { status: 400, error, description: description.into(), step_up }
    }
}

/// Everything the administrators said, indexed for deciding.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    servers: HashMap<String, ResourceAuthorizationServer>,
    spellings: HashMap<String, String>,
    resources: HashMap<Resource, RegisteredResource>,
    connections: HashMap<(String, String), Vec<Connection>>,
}

impl Policy {
    /// The algorithm that ID-JAGs for an authorization server are signed with, where one was chosen.
    pub fn id_jag_signing_alg(&self, audience: &Issuer) -> Option<crate::jwk::Algorithm> {
        self.servers.get(audience.as_str())?.id_jag_signing_alg
    }

    /// Indexes the records of an IdP with issuer `idp`; a RAS with that very issuer is left out
    /// (JAG-X10).
    pub fn new(
        idp: &Issuer,
        servers: Vec<ResourceAuthorizationServer>,
        resources: Vec<RegisteredResource>,
        mut connections: Vec<Connection>,
    ) -> Self {
        connections.sort_by(|a, b| a.id.cmp(&b.id));
        let mut policy = Self::default();
        for connection in connections {
            let key = (connection.idp_client_id.clone(), connection.audience.as_str().to_owned());
            policy.connections.entry(key).or_default().push(connection);
        }
        let slashless = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
        let servers: Vec<_> =
            servers.into_iter().filter(|s| !idp.is_spelled(s.issuer.as_str())).collect();
        // Issuers first: an alias never captures another's issuer, nor the IdP's own.
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
    fn server(&self, audience: &str) -> Option<&ResourceAuthorizationServer> {
        // Exactly first: two that differ by a slash alone are two.
        let exact = self.servers.get(audience);
        let slashless = audience.strip_suffix('/').unwrap_or(audience);
        let spelled = || self.servers.get(self.spellings.get(slashless)?);
        exact.or_else(spelled).filter(|server| !server.disabled)
    }

    /// The registered MCP server with this identifier.
    pub fn resource(&self, resource: &Resource) -> Option<&RegisteredResource> {
        self.resources.get(resource)
    }

    /// Whether the company decides about an MCP server: it is registered here, or its authorization
    /// server is; switched on or off, and whoever may reach it (EMA-C2).
    pub fn governs(&self, resource: &Resource, authorization_server: &str) -> bool {
        let slashless = authorization_server.strip_suffix('/').unwrap_or(authorization_server);
        self.resources.contains_key(resource)
            || self.servers.contains_key(authorization_server)
            || self.spellings.contains_key(slashless)
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
            connected.iter().copied().filter(|c| is_for(c, question.person)).collect();
        if assigned.is_empty() {
            return Err(Denial::by(DenialReason::NotAssigned, first));
        }
        let governed = |r: &Resource| {
            self.resources
                .get(r)
                .is_some_and(|held| held.authorization_server == server.issuer && !held.disabled)
        };
        let asked = match question.resources {
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

    /// Unites what the connections whose conditions are met grant. If only a connection whose
    /// conditions are unmet stands in the way, its denial asks for the step-up.
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
            // A registered client has no id of its own to fall back on.
            return Err(Denial::by(DenialReason::NotConnected, first));
        };
        let mut permit = Permit {
            audience: server.issuer.clone(),
            ras_client_id: ras_client_id.clone(),
            resources: Vec::new(),
            scopes: Scopes::default(),
            release: server.release.clone(),
            rules: Vec::new(),
        };
        // Connections that map the client to another id cannot be united with the first.
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
            // Left out, the RAS would fill in its defaults: more than the connection grants.
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

/// One MCP server in a person's catalog.
#[derive(Clone, Debug)]
pub struct CatalogEntry<'a> {
    /// The MCP server.
    pub resource: &'a RegisteredResource,
    /// The RAS that governs it.
    pub server: &'a ResourceAuthorizationServer,
    /// What the exchange would answer.
    pub decision: Result<Permit, Denial>,
    /// Groups that connections open it to.
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
    /// The MCP servers that connections of `idp_client_id` open to anyone but single other people,
    /// each with what the exchange would answer this person: the same function decides.
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
            // A connection for one person is nobody else's business.
            let shown = opening.iter().any(|c| {
                is_for(c, person) || c.subjects.iter().any(|s| matches!(s, Subject::Group(_)))
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

fn is_for(connection: &Connection, person: Person<'_>) -> bool {
    connection.subjects.iter().any(|subject| match subject {
        Subject::Everyone => true,
        Subject::Group(name) => person.groups.contains(name),
        Subject::User(id) => id == person.id,
    })
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
    if !conditions.acr_values.is_empty() && !conditions.acr_values.contains(&authentication.acr) {
        let acr_values = conditions.acr_values.clone();
        return Err(DenialReason::AuthenticationTooWeak { acr_values });
    }
    match conditions.max_authentication_age {
        Some(max_age) if question.now.since(authentication.auth_time) > max_age => {
            Err(DenialReason::AuthenticationTooOld { max_age })
        }
        _ => Ok(()),
    }
}
