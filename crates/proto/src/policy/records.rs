//! The administrators' records about who may reach what.

use crate::{
    identifier::{Issuer, Resource},
    oauth::scope::Scopes,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A resource authorization server, as known to the IdP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceAuthorizationServer {
    /// Its issuer identifier: the `aud` of ID-JAGs for it.
    pub issuer: Issuer,
    /// Display name.
    pub name: String,
    /// Other values of `audience` that mean this server; the `aud` of ID-JAGs is always the issuer.
    pub aliases: Vec<String>,
    /// Claims about the person that ID-JAGs for it may carry: `email`, `auth_time`, `acr`, `amr`.
    /// Nothing unless listed (MCP Enterprise-Managed Authorization, section 7.4.3).
    pub release: BTreeSet<ReleasedClaim>,
    /// `aud_tenant` of ID-JAGs for it: its own name for the company's tenant there, if it has several
    /// (ID-JAG draft section 6).
    pub aud_tenant: Option<String>,
    /// What of a person `aud_sub` of ID-JAGs for it says, its own name for them: `email`, `username`, or
    /// an attribute by its name; `None` if it needs none.
    pub aud_sub: Option<String>,
    /// What `sub_id` of ID-JAGs for it says; `None` if it needs none.
    pub sub_id: Option<SubIdFormat>,
    /// The algorithm that ID-JAGs for it are signed with; `None` for the identity provider's own.
    pub id_jag_signing_alg: Option<crate::jose::jwk::Algorithm>,
    /// The algorithm that it signs access tokens with, for gateways that present them here.
    pub algorithm: crate::jose::jwk::Algorithm,
    /// Switched off by an administrator.
    pub disabled: bool,
}

/// How `sub_id` of an ID-JAG names a person (RFC 9493, and ID-JAG draft section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubIdFormat {
    /// By the name identifier that a SAML identity provider has for them: for a RAS whose people sign in
    /// there, too.
    #[serde(rename = "saml-nameid")]
    SamlNameId,
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

/// An MCP server, as known to the IdP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredResource {
    /// Its resource identifier.
    pub resource: Resource,
    /// The RAS that governs it.
    pub authorization_server: Issuer,
    /// Display name.
    pub name: String,
    /// Its scopes.
    pub scopes: Scopes,
    /// Switched off by an administrator.
    pub disabled: bool,
}

/// Whom a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Everyone who can sign in.
    Everyone,
    /// The members of a group, by name.
    Group(String),
    /// One person, by user id.
    User(String),
}

/// Conditions on the sign-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The sign-in may be at most this old, in seconds.
    pub max_authentication_age: Option<i64>,
    /// The sign-in must have reached one of these classes; empty: any.
    pub acr_values: Vec<String>,
}

/// An administrator's record that a client may reach a RAS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its unique name, which audit records and explanations show.
    pub id: String,
    /// The client, by its `idp_client_id`.
    pub idp_client_id: String,
    /// The RAS.
    pub audience: Issuer,
    /// The client's id at the RAS: the `client_id` claim (ID-JAG draft, section 5). `None` for a
    /// client whose own id is the URL of its metadata document and also its id at the RAS.
    pub ras_client_id: Option<String>,
    /// The MCP servers it opens.
    pub resources: Vec<Resource>,
    /// The maximum scopes that it grants.
    pub scopes: Scopes,
    /// The people it is for; nobody if empty.
    pub subjects: Vec<Subject>,
    /// Conditions on the sign-in.
    pub conditions: Conditions,
    /// Switched off by an administrator.
    pub disabled: bool,
}
