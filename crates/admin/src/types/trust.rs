//! What an authorization server trusts and protects.

use super::written::{
    AlgorithmName, DomainName, ScopeToken, SecureUrl, given, given_object, maybe_object,
    maybe_whole, object, said, said_object, said_whole,
};
use passavant_proto::{
    identifier::Resource,
    identifier::{Issuer, SubjectIssuer},
    jose::jwk::Algorithm,
    oauth::scope::Scopes,
    xaa::trust::AccountResolution,
    xaa::trust::InteractiveSignIn,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An IdP to trust.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrust {
    /// Its issuer identifier, byte for byte.
    #[schema(value_type = SecureUrl)]
    pub issuer: Issuer,
    /// URL of its keys, where its discovery document does not tell.
    #[serde(default)]
    #[schema(value_type = Option<SecureUrl>)]
    pub jwks_uri: Option<String>,
    /// The one algorithm it signs with.
    #[serde(default)]
    #[schema(value_type = AlgorithmName)]
    pub algorithm: Algorithm,
    /// Value that its `tenant` claim must have.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Value that its `aud_tenant` claim must have.
    #[serde(default)]
    pub audience_tenant: Option<String>,
    /// How its people become accounts here.
    #[serde(default, deserialize_with = "object")]
    pub accounts: AccountRules,
    /// An ID-JAG of it may be presented again while it lives.
    #[serde(default)]
    pub allow_reuse: bool,
    /// Clients may be named by the documents of installations that its people enrolled there.
    #[serde(default)]
    pub client_documents: bool,
    /// How its people sign in in the browser; absent: not at all.
    #[serde(default, deserialize_with = "maybe_object")]
    pub sign_in: Option<SignInThere>,
}

/// How people of an issuer become accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountRules {
    /// An account is made at first sight.
    #[serde(default)]
    pub just_in_time: bool,
    /// Accounts that are there are linked by addresses in these domains, which the issuer owns.
    #[serde(default)]
    pub email_domains: Vec<String>,
}

impl From<AccountRules> for AccountResolution {
    fn from(said: AccountRules) -> Self {
        Self { just_in_time: said.just_in_time, email_domains: said.email_domains }
    }
}

impl From<&AccountResolution> for AccountRules {
    fn from(held: &AccountResolution) -> Self {
        Self { just_in_time: held.just_in_time, email_domains: held.email_domains.clone() }
    }
}

/// How people sign in at an issuer without cross-app access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInThere {
    /// This authorization server's client id there; it authenticates by the keys at its `/jwks`.
    pub client_id: String,
    /// People whose addresses are in these domains are sent there.
    #[serde(default)]
    #[schema(value_type = Vec<DomainName>)]
    pub domains: Vec<String>,
}

impl From<SignInThere> for InteractiveSignIn {
    fn from(said: SignInThere) -> Self {
        Self { client_id: said.client_id, domains: said.domains }
    }
}

impl From<&InteractiveSignIn> for SignInThere {
    fn from(held: &InteractiveSignIn) -> Self {
        Self { client_id: held.client_id.clone(), domains: held.domains.clone() }
    }
}

/// What is to be another about a trusted issuer.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct TrustChange {
    /// URL of its keys; `null` where its discovery document tells.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecureUrl>)]
    pub jwks_uri: Option<Option<String>>,
    /// The one algorithm it signs with.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
    /// Value that its `aud_tenant` claim must have; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub audience_tenant: Option<Option<String>>,
    /// How its people become accounts here.
    #[serde(default, deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub accounts: Option<AccountRules>,
    /// An ID-JAG of it may be presented again while it lives.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub allow_reuse: Option<bool>,
    /// Clients may be named by the documents of installations enrolled there.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_documents: Option<bool>,
    /// How its people sign in in the browser; `null`: not at all, and what they had this way ends.
    #[serde(default, deserialize_with = "said_object", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignInThere>)]
    pub sign_in: Option<Option<SignInThere>>,
}

/// A trusted issuer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustView {
    /// Its issuer identifier.
    #[schema(value_type = String)]
    pub issuer: Issuer,
    /// URL of its keys, where it was given.
    pub jwks_uri: Option<String>,
    /// The one algorithm it signs with.
    #[schema(value_type = AlgorithmName)]
    pub algorithm: Algorithm,
    /// Value that its `tenant` claim must have.
    pub tenant: Option<String>,
    /// Value that its `aud_tenant` claim must have.
    pub audience_tenant: Option<String>,
    /// How its people become accounts here.
    pub accounts: AccountRules,
    /// An ID-JAG of it may be presented again while it lives.
    pub allow_reuse: bool,
    /// Clients may be named by the documents of installations enrolled there.
    pub client_documents: bool,
    /// How its people sign in in the browser.
    pub sign_in: Option<SignInThere>,
    /// Switched off.
    pub disabled: bool,
}

/// An origin of client metadata documents to accept.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClientHost {
    /// Scheme, host, and port if any: `https://app.example`.
    #[schema(pattern = "^https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}$")]
    pub origin: String,
}

/// An origin of client metadata documents.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClientHostView {
    /// Scheme, host, and port if any.
    pub origin: String,
    /// Switched off.
    pub disabled: bool,
}

/// An MCP server to govern.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGoverned {
    /// Its resource identifier.
    #[schema(value_type = SecureUrl)]
    pub resource: Resource,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Every scope it knows.
    #[serde(default)]
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: Scopes,
    /// Granted where an ID-JAG names none.
    #[serde(default)]
    #[schema(value_type = Vec<ScopeToken>)]
    pub default_scopes: Scopes,
    /// What a scope lets somebody do, in words.
    #[serde(default)]
    pub descriptions: BTreeMap<String, String>,
    /// Lifetime of its access tokens in seconds, up to 3600.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 1, maximum = 3600)]
    pub access_token_lifetime: Option<i64>,
    /// The algorithm of its access tokens; the server's own unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub access_token_signing_alg: Option<Algorithm>,
    /// It takes only DPoP-bound tokens.
    #[serde(default)]
    pub require_dpop: bool,
}

/// What is to be another about an MCP server that is governed.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct GovernedChange {
    /// What people call it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Every scope it knows.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<ScopeToken>>)]
    pub scopes: Option<Scopes>,
    /// Granted where an ID-JAG names none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<ScopeToken>>)]
    pub default_scopes: Option<Scopes>,
    /// What a scope lets somebody do, in words.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub descriptions: Option<BTreeMap<String, String>>,
    /// Lifetime of its access tokens in seconds; `null` for the usual one.
    #[serde(default, deserialize_with = "said_whole", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 3600)]
    pub access_token_lifetime: Option<Option<i64>>,
    /// The algorithm of its access tokens; `null` for the server's own.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub access_token_signing_alg: Option<Option<Algorithm>>,
    /// It takes only DPoP-bound tokens.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub require_dpop: Option<bool>,
}

/// An MCP server that is governed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GovernedView {
    /// Its resource identifier.
    #[schema(value_type = String)]
    pub resource: Resource,
    /// What people call it.
    pub name: String,
    /// Every scope it knows.
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: Scopes,
    /// Granted where an ID-JAG names none.
    #[schema(value_type = Vec<ScopeToken>)]
    pub default_scopes: Scopes,
    /// What a scope lets somebody do, in words.
    pub descriptions: BTreeMap<String, String>,
    /// Lifetime of its access tokens in seconds.
    pub access_token_lifetime: Option<i64>,
    /// The algorithm of its access tokens.
    #[schema(value_type = Option<AlgorithmName>)]
    pub access_token_signing_alg: Option<Algorithm>,
    /// It takes only DPoP-bound tokens.
    pub require_dpop: bool,
    /// Switched off.
    pub disabled: bool,
}

/// An account to add.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The address that people can be linked to it by.
    #[schema(
        max_length = 254,
        pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s@\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub email: String,
}

/// What is to be another about an account.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct AccountChange {
    /// The address that people can be linked to it by; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 254, pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s@\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub email: Option<Option<String>>,
}

/// An account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// `sub` of the access tokens issued here.
    pub id: String,
    /// Its address.
    pub email: Option<String>,
    /// Switched off.
    pub disabled: bool,
}

/// A person of a trusted issuer that an account is linked to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkView {
    /// The trusted issuer.
    #[schema(value_type = SecureUrl)]
    pub issuer: SubjectIssuer,
    /// Its tenant, where it has several.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Its `sub` for them.
    pub subject: String,
}
