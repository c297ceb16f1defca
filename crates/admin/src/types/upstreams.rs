//! Identity providers at which the company's people sign in.

use super::written::{
    AlgorithmName, DomainName, ScopeToken, SecureUrl, given, given_object, maybe_object,
    maybe_whole, said,
};
use passavant_proto::{identifier::Issuer, jose::jwk::Algorithm, time::Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// The product that an upstream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresetName {
    /// Any provider of OpenID Connect.
    #[default]
    Generic,
    /// Microsoft Entra ID.
    Entra,
    /// Google Workspace.
    Google,
    /// Okta.
    Okta,
    /// Keycloak.
    Keycloak,
}

/// How this IdP proves itself at an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProofMethod {
    /// Signed with a key of this IdP, which the upstream reads at `/jwks`.
    #[default]
    PrivateKeyJwt,
    /// Signed with PS256 by a certificate, made here and uploaded there. Where there is one already,
    /// this makes the one that follows it: it is used when `next_certificate` says so.
    Certificate,
    /// The certificate that follows is uploaded there: use it from now on.
    NextCertificate,
    /// A secret in the form.
    ClientSecretPost,
    /// A secret by HTTP Basic.
    ClientSecretBasic,
}

/// How this IdP is to prove itself at an upstream.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamProof {
    /// The method.
    #[serde(default)]
    pub method: ProofMethod,
    /// The algorithm of the key, for `private_key_jwt`; absent: the one that this IdP signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
    /// The secret. It is sealed, and never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
}

/// An upstream to add that speaks SAML 2.0.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSaml {
    /// Its metadata: the XML document.
    #[serde(default)]
    #[schema(max_length = 262_144)]
    pub metadata: String,
    /// Requests to it are signed; absent: as its metadata wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_requests: Option<bool>,
    /// The format of the name identifiers that people are known by: `persistent`, `unspecified`,
    /// `email`, or a URI; absent: `persistent`, which no other person ever gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_id_format: Option<String>,
    /// The attribute that people are known by, instead of their name identifier; absent: at Entra the
    /// object id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_attribute: Option<String>,
}

/// What is to be another about an upstream's side of SAML. What people are known by cannot change.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SamlChange {
    /// Its metadata, with the same entity ID.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 262_144)]
    pub metadata: Option<String>,
    /// Requests to it are signed.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sign_requests: Option<bool>,
}

/// An upstream's side of SAML.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SamlView {
    /// This IdP's entity ID there, which is where its metadata is.
    pub service_provider: String,
    /// Where it takes requests by redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Where it takes requests by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<String>,
    /// The certificates that it signs with, in PEM.
    pub certificates: Vec<String>,
    /// Requests to it are signed.
    pub sign_requests: bool,
    /// The format of the name identifiers that people are known by.
    pub name_id_format: String,
    /// The attribute that people are known by, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_attribute: Option<String>,
}

/// An upstream to add.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUpstream {
    /// Its name, in the redirect URI and in commands: lower-case letters, digits, hyphens.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    pub name: String,
    /// Its name on the sign-in page; absent: `name`.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Which product it is.
    #[serde(default)]
    pub preset: PresetName,
    /// Its issuer identifier, byte for byte, where it speaks OpenID Connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecureUrl>)]
    pub issuer: Option<Issuer>,
    /// What it is where it speaks SAML 2.0: instead of `issuer`, `client_id`, and what else belongs to
    /// OpenID Connect alone.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    pub saml: Option<NewSaml>,
    /// Tenants of Entra whose people may sign in, where the issuer stands for several: GUIDs.
    #[serde(default)]
    pub tenants: BTreeSet<String>,
    /// Values that the `hd` claim of Google may have.
    #[serde(default)]
    #[schema(value_type = Vec<DomainName>)]
    pub hosted_domains: BTreeSet<String>,
    /// This IdP's client id there, where it speaks OpenID Connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// How this IdP proves itself there; absent: by certificate at Entra and where it speaks SAML,
    /// elsewhere by `private_key_jwt`.
    #[serde(default, deserialize_with = "maybe_object")]
    pub proof: Option<UpstreamProof>,
    /// The algorithm of its ID tokens; absent: RS256.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_token_signing_alg: Option<Algorithm>,
    /// E-mail domains of its people: they are sent there, and only addresses in these count as
    /// verified.
    #[serde(default)]
    #[schema(value_type = Vec<DomainName>)]
    pub domains: BTreeSet<String>,
    /// Scopes to ask for beyond the usual ones.
    #[serde(default)]
    #[schema(value_type = Vec<ScopeToken>)]
    pub scopes: BTreeSet<String>,
    /// The claim that new people are named by; absent: what is usual for the product.
    #[serde(default)]
    pub username_claim: Option<String>,
    /// The claim that holds groups; absent: `groups`.
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// People are asked at each sign-in there whether this IdP may be told of them later on
    /// (`prompt=consent`); absent: only where the product is generic.
    #[serde(default)]
    pub asks_consent: Option<bool>,
    /// Which group here a group there means, by the value in the token. Others mean nothing.
    #[serde(default)]
    pub groups: BTreeMap<String, String>,
    /// Which class here an authentication context class there means.
    #[serde(default)]
    pub acr_values: BTreeMap<String, String>,
    /// People are added at their first sign-in.
    #[serde(default)]
    pub just_in_time: bool,
    /// Somebody whom its provisioning added is found by `externalId` at the first sign-in: it is the
    /// subject there. Absent: as the preset has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id_is_subject: Option<bool>,
}

/// What is to be another about an upstream. Its issuer cannot change: people are known by it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct UpstreamChange {
    /// Its name on the sign-in page.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub display_name: Option<String>,
    /// Its side of SAML.
    #[serde(default, deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub saml: Option<SamlChange>,
    /// Tenants whose people may sign in.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tenants: Option<BTreeSet<String>>,
    /// Values that the `hd` claim of Google may have.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<DomainName>>)]
    pub hosted_domains: Option<BTreeSet<String>>,
    /// This IdP's client id there.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_id: Option<String>,
    /// How this IdP proves itself there. A certificate is made anew.
    #[serde(default, deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub proof: Option<UpstreamProof>,
    /// The algorithm of its ID tokens.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<AlgorithmName>)]
    pub id_token_signing_alg: Option<Algorithm>,
    /// E-mail domains of its people.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<DomainName>>)]
    pub domains: Option<BTreeSet<String>>,
    /// Scopes to ask for beyond the usual ones.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<ScopeToken>>)]
    pub scopes: Option<BTreeSet<String>>,
    /// The claim that new people are named by; `null`: what is usual for the product.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub username_claim: Option<Option<String>>,
    /// The claim that holds groups; `null`: `groups`.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub groups_claim: Option<Option<String>>,
    /// People are asked at each sign-in there whether this IdP may be told of them later on.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub asks_consent: Option<bool>,
    /// Which group here a group there means.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub groups: Option<BTreeMap<String, String>>,
    /// Which class here an authentication context class there means.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub acr_values: Option<BTreeMap<String, String>>,
    /// People are added at their first sign-in.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub just_in_time: Option<bool>,
    /// `externalId` of its provisioning is the subject that people sign in with.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub external_id_is_subject: Option<bool>,
}

/// An upstream.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// Its name on the sign-in page.
    pub display_name: String,
    /// Which product it is.
    pub preset: PresetName,
    /// Its issuer identifier; the entity ID, where it speaks SAML.
    pub issuer: String,
    /// Its side of SAML, if it speaks that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saml: Option<SamlView>,
    /// The redirect URI to register there; the assertion consumer service, where it speaks SAML.
    pub redirect_uri: String,
    /// Where it may say that a session there has ended (OpenID Connect Back-Channel Logout).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backchannel_logout_uri: Option<String>,
    /// Where it may say that somebody's access has ended (Global Token Revocation; Okta's Universal Logout).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_token_revocation_endpoint: Option<String>,
    /// This IdP's client id there, where it speaks OpenID Connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// How this IdP proves itself there.
    pub proof: ProofMethod,
    /// The algorithm of the key it proves itself with, where it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub proof_algorithm: Option<Algorithm>,
    /// The certificate to upload there, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The certificate that follows it, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_certificate: Option<String>,
    /// Tenants whose people may sign in.
    pub tenants: BTreeSet<String>,
    /// Values that the `hd` claim of Google may have.
    pub hosted_domains: BTreeSet<String>,
    /// The algorithm of its ID tokens, where it speaks OpenID Connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_token_signing_alg: Option<Algorithm>,
    /// E-mail domains of its people.
    pub domains: BTreeSet<String>,
    /// Scopes to ask for beyond the usual ones.
    pub scopes: BTreeSet<String>,
    /// The claim that new people are named by.
    pub username_claim: Option<String>,
    /// The claim that holds groups.
    pub groups_claim: Option<String>,
    /// People are asked at each sign-in there whether this IdP may be told of them later on.
    pub asks_consent: bool,
    /// Which group here a group there means.
    pub groups: BTreeMap<String, String>,
    /// Which class here an authentication context class there means.
    pub acr_values: BTreeMap<String, String>,
    /// People are added at their first sign-in.
    pub just_in_time: bool,
    /// `externalId` of its provisioning is the subject that people sign in with.
    #[serde(default)]
    pub external_id_is_subject: bool,
    /// Where it provisions people and groups (SCIM 2.0, RFC 7644).
    #[serde(default)]
    pub provisioning_url: String,
    /// Switched off.
    pub disabled: bool,
}

/// A provisioning token to make.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProvisioningToken {
    /// After how many days it ends, 366 at most; 366 if it is absent.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 366)]
    pub days: Option<i64>,
}

/// A token with which an upstream provisions people and groups.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProvisioningTokenView {
    /// Its id, which the audit trail names.
    pub id: String,
    /// The token, once: it is stored as a hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Where it is used: the address to enter there.
    pub provisioning_url: String,
    /// When it was made, in seconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it ends.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
    /// When it was used last, to the hour; absent if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub used_at: Option<Timestamp>,
}

/// Whom to link to a user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPersonLink {
    /// The user, by name or id.
    pub user: String,
    /// What the upstream knows the person by: `sub`, at Entra `oid`.
    pub subject: String,
    /// The person's tenant, at Entra.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// Whom to unlink.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonLinkQuery {
    /// What the upstream knows the person by.
    pub subject: String,
    /// The person's tenant, at Entra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// A person of an upstream who is linked to a user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PersonLinkView {
    /// The user's name.
    pub username: String,
    /// The user's id.
    pub user: String,
    /// The issuer that the person is known at.
    pub issuer: String,
    /// What the upstream knows the person by.
    pub subject: String,
    /// The person's tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When they were linked, in seconds since 1970.
    pub linked_at: i64,
}

/// One leg of an upstream, as it was found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpstreamLeg {
    /// What was looked at.
    pub leg: String,
    /// Whether it works.
    pub works: bool,
    /// What was found.
    pub found: String,
    /// Who has to change what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
