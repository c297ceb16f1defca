//! Access policy, as the identity provider knows it.

use super::written::{
    AlgorithmName, ReleasedName, ScopeToken, SecureUrl, SubIdFormatName, given, given_object,
    maybe_whole, object, said, whole,
};
use passavant_proto::{
    formerly,
    identifier::Issuer,
    identifier::Resource,
    jose::jwk::Algorithm,
    oauth::scope::Scopes,
    policy::Conditions,
    policy::{ReleasedClaim, SubIdFormat},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// A resource authorization server to register at the IdP.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServer {
    /// Its issuer identifier, byte for byte.
    #[schema(value_type = SecureUrl)]
    pub issuer: Issuer,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Other values of `audience` that mean it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Claims about the person that it may learn: `email`, `auth_time`, `acr`, `amr`.
    #[serde(default)]
    #[schema(value_type = Vec<ReleasedName>)]
    pub release: BTreeSet<ReleasedClaim>,
    /// `aud_tenant` of ID-JAGs for it: its name for the company's tenant there, if it has several.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub aud_tenant: Option<String>,
    /// What of a person `aud_sub` of ID-JAGs for it says: `email`, `username`, or an attribute by its name.
    #[serde(default)]
    #[schema(max_length = 64, pattern = "^[A-Za-z0-9]+$")]
    pub aud_sub: Option<String>,
    /// What `sub_id` of ID-JAGs for it says: with `saml-nameid`, the name identifier of people who sign
    /// in at an upstream of SAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SubIdFormatName>)]
    pub sub_id: Option<SubIdFormat>,
    /// The algorithm of ID-JAGs for it; the IdP's own unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_jag_signing_alg: Option<Algorithm>,
    /// The algorithm of its access tokens, for gateways that present them here.
    #[serde(default)]
    #[schema(value_type = AlgorithmName)]
    pub algorithm: Algorithm,
}

/// What is to be another about a resource authorization server.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct ServerChange {
    /// What people call it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Other values of `audience` that mean it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub aliases: Option<Vec<String>>,
    /// Claims about the person that it may learn.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<ReleasedName>>)]
    pub release: Option<BTreeSet<ReleasedClaim>>,
    /// `aud_tenant` of ID-JAGs for it; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub aud_tenant: Option<Option<String>>,
    /// What of a person `aud_sub` says; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 64, pattern = "^[A-Za-z0-9]+$")]
    pub aud_sub: Option<Option<String>>,
    /// What `sub_id` says; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SubIdFormatName>)]
    pub sub_id: Option<Option<SubIdFormat>>,
    /// The algorithm of ID-JAGs for it; `null` for the IdP's own.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_jag_signing_alg: Option<Option<Algorithm>>,
    /// The algorithm of its access tokens.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// A resource authorization server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// Its issuer identifier.
    #[schema(value_type = String)]
    pub issuer: Issuer,
    /// What people call it.
    pub name: String,
    /// Other values of `audience` that mean it.
    pub aliases: Vec<String>,
    /// Claims about the person that it may learn.
    #[schema(value_type = Vec<ReleasedName>)]
    pub release: BTreeSet<ReleasedClaim>,
    /// `aud_tenant` of ID-JAGs for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud_tenant: Option<String>,
    /// What of a person `aud_sub` of ID-JAGs for it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud_sub: Option<String>,
    /// What `sub_id` of ID-JAGs for it says: with `saml-nameid`, the name identifier of people who sign
    /// in at an upstream of SAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SubIdFormatName>)]
    pub sub_id: Option<SubIdFormat>,
    /// The algorithm of ID-JAGs for it.
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_jag_signing_alg: Option<Algorithm>,
    /// The algorithm of its access tokens.
    #[schema(value_type = AlgorithmName)]
    pub algorithm: Algorithm,
    /// Switched off.
    pub disabled: bool,
}

/// An MCP server to register at the IdP.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewResource {
    /// Its resource identifier.
    #[schema(value_type = SecureUrl)]
    pub resource: Resource,
    /// Issuer of the authorization server that governs it.
    #[schema(value_type = SecureUrl)]
    pub authorization_server: Issuer,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// The scopes it knows.
    #[serde(default)]
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: Scopes,
}

/// What is to be another about an MCP server.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceChange {
    /// What people call it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// The scopes it knows.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<ScopeToken>>)]
    pub scopes: Option<Scopes>,
}

/// An MCP server, as the IdP knows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResourceView {
    /// Its resource identifier.
    #[schema(value_type = String)]
    pub resource: Resource,
    /// Issuer of the authorization server that governs it.
    #[schema(value_type = String)]
    pub authorization_server: Issuer,
    /// What people call it.
    pub name: String,
    /// The scopes it knows.
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: Scopes,
    /// Switched off.
    pub disabled: bool,
}

/// What a sign-in has to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInConditions {
    /// At most this old, in seconds.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub max_authentication_age: Option<i64>,
    /// Of one of these classes.
    #[serde(default)]
    pub acr_values: Vec<String>,
}

impl From<SignInConditions> for Conditions {
    fn from(said: SignInConditions) -> Self {
        Self {
            max_authentication_age: said.max_authentication_age,
            acr_values: said
                .acr_values
                .iter()
                .map(|acr| formerly::current(acr).to_owned())
                .collect(),
        }
    }
}

impl From<&Conditions> for SignInConditions {
    fn from(held: &Conditions) -> Self {
        Self {
            max_authentication_age: held.max_authentication_age,
            acr_values: held.acr_values.clone(),
        }
    }
}

/// A connection to add.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConnection {
    /// What to call it.
    #[schema(pattern = "^(?!\\.{1,2}$)[A-Za-z0-9._-]{1,128}$")]
    pub id: String,
    /// The client, by its id at the IdP; `passavant` for the installations that people enrol.
    pub idp_client_id: String,
    /// Issuer of the authorization server.
    #[schema(value_type = SecureUrl)]
    pub audience: Issuer,
    /// The client's id at that authorization server.
    #[serde(default)]
    pub ras_client_id: Option<String>,
    /// The MCP servers it opens.
    #[schema(value_type = Vec<SecureUrl>, min_items = 1)]
    pub resources: Vec<Resource>,
    /// The scopes it grants at most.
    #[serde(default)]
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: Scopes,
    /// For everyone who can sign in.
    #[serde(default)]
    pub everyone: bool,
    /// For the members of these groups.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// For these people, by user name or id.
    #[serde(default)]
    pub users: BTreeSet<String>,
    /// What their sign-in has to be like.
    #[serde(default, deserialize_with = "object")]
    pub conditions: SignInConditions,
}

/// What is to be another about a connection. Client and authorization server stay: another pair is another connection.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionChange {
    /// The client's id at the authorization server.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ras_client_id: Option<String>,
    /// The MCP servers it opens.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<SecureUrl>>, min_items = 1)]
    pub resources: Option<Vec<Resource>>,
    /// The scopes it grants at most.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<ScopeToken>>)]
    pub scopes: Option<Scopes>,
    /// For everyone who can sign in.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub everyone: Option<bool>,
    /// For the members of these groups.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub groups: Option<BTreeSet<String>>,
    /// For these people, by user name or id.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub users: Option<BTreeSet<String>>,
    /// What their sign-in has to be like.
    #[serde(default, deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub conditions: Option<SignInConditions>,
}

/// A connection.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ConnectionView {
    /// What it is called.
    pub id: String,
    /// The client, by its id at the IdP.
    pub idp_client_id: String,
    /// Issuer of the authorization server.
    #[schema(value_type = String)]
    pub audience: Issuer,
    /// The client's id at that authorization server.
    pub ras_client_id: Option<String>,
    /// The MCP servers it opens.
    #[schema(value_type = Vec<String>)]
    pub resources: Vec<Resource>,
    /// The scopes it grants at most.
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: Scopes,
    /// For everyone who can sign in.
    pub everyone: bool,
    /// For the members of these groups.
    pub groups: BTreeSet<String>,
    /// For these people, by user name (by id where nobody has it any more).
    pub users: BTreeSet<String>,
    /// What their sign-in has to be like.
    pub conditions: SignInConditions,
    /// Switched off.
    pub disabled: bool,
}

/// Would this person, through this client, get these scopes on that MCP server?
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuestion {
    /// User name or id.
    pub user: String,
    /// Client id at the IdP; `passavant` for an installation, or the URL of one.
    pub client: String,
    /// The MCP server.
    #[schema(value_type = SecureUrl)]
    pub resource: Resource,
    /// Scopes; all there are unless given.
    #[serde(default)]
    #[schema(value_type = Option<Vec<ScopeToken>>)]
    pub scopes: Option<Scopes>,
    /// How long ago the person signed in, in seconds.
    #[serde(default, deserialize_with = "whole")]
    pub signed_in_ago: i64,
    /// The class that the sign-in reached; that of a password unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
}

/// What the exchange would say.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Whether it would be granted.
    pub granted: bool,
    /// Why not, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which rules decided.
    pub rule: String,
    /// The same in a sentence.
    pub text: String,
    /// The authorization server that the ID-JAG would be for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The client's id there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ras_client_id: Option<String>,
    /// The scopes it would have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<ScopeToken>>)]
    pub scopes: Option<Scopes>,
    /// Those that were asked for and would not be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<ScopeToken>>)]
    pub not_granted: Option<Scopes>,
}
