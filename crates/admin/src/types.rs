//! What the administration API takes and shows: one type for each, strict in, and an allow-list out. The server, the
//! typed client and the OpenAPI document are made from them.

use passavant_proto::{
    formerly,
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::scope::Scopes,
    policy::{Conditions, ReleasedClaim},
    time::Timestamp,
    xaa::trust::{AccountResolution, InteractiveSignIn},
};
use passavant_store::{AdminRole, Outcome};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A kind of record that is administered: how it is named, and what is said of it.
pub trait Kind: Send + Sync + 'static {
    /// Its collection's segment in paths.
    const PATH: &'static str;
    /// What messages and `passavant admin` call it.
    const NOUN: &'static str;
    /// What makes one.
    type New: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
    /// What may be another about one; what is left out stays.
    type Change: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
    /// What is shown of one.
    type View: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $path:literal, $noun:literal, $new:ty, $change:ty, $view:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $kind;

            impl Kind for $kind {
                const PATH: &'static str = $path;
                const NOUN: &'static str = $noun;
                type New = $new;
                type Change = $change;
                type View = $view;
            }
        )*
    };
}

kinds! {
    /// People at the IdP.
    Users: "users", "user", NewUser, UserChange, UserView;
    /// Groups at the IdP.
    Groups: "groups", "group", NewGroup, GroupChange, GroupView;
    /// OAuth clients, at either server.
    Clients: "clients", "client", NewClient, ClientChange, ClientView;
    /// Resource authorization servers, as the IdP knows them.
    AuthorizationServers: "authorization-servers", "server", NewServer, ServerChange, ServerView;
    /// MCP servers, as the IdP knows them.
    Resources: "resources", "resource", NewResource, ResourceChange, ResourceView;
    /// Who may use which client to reach which MCP servers.
    Connections: "connections", "connection", NewConnection, ConnectionChange, ConnectionView;
    /// Identity providers that a RAS trusts.
    TrustedIssuers: "trusted-issuers", "trust", NewTrust, TrustChange, TrustView;
    /// Origins of client metadata documents that a RAS accepts.
    ClientHosts: "client-hosts", "client-host", NewClientHost, Nothing, ClientHostView;
    /// MCP servers that a RAS governs.
    GovernedResources: "resources", "resource", NewGoverned, GovernedChange, GovernedView;
    /// Accounts at a RAS.
    Accounts: "accounts", "account", NewAccount, AccountChange, AccountView;
    /// Administrators with names, at either server.
    Administrators:
        "administrators", "administrator", NewAdministrator, AdministratorChange, AdministratorView;
}

/// A member that may be taken away: left out it stays, `null` takes it away.
#[allow(clippy::option_option)] // the three things that can be said
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What the document calls texts that are read as something.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $pattern:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(ToSchema)]
            #[schema(pattern = $pattern)]
            #[allow(dead_code, reason = "only its schema is used")]
            struct $name(String);
        )*
    };
}

texts! {
    /// A scope (RFC 6749 section 3.3), or several with a space between them.
    ScopeToken: "^([!#-\\[\\]-~]+( [!#-\\[\\]-~]+)*)?$";
    /// A URL of `https`, or of this machine.
    SecureUrl: "^(https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}|http://(localhost|127\\.0\\.0\\.1))(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{1,30}){0,4}$";
    /// Where a browser may return to.
    RedirectUri: "^(https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{1,30}){0,4}|http://127\\.0\\.0\\.1/[A-Za-z0-9._~-]{1,30})$";
    /// A domain of addresses.
    DomainName: "^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}$";
}

/// An algorithm of signatures.
#[derive(ToSchema)]
#[allow(dead_code, clippy::upper_case_acronyms, reason = "only its schema is used")]
enum AlgorithmName {
    ES256,
    #[schema(rename = "EdDSA")]
    EdDsa,
    PS256,
    RS256,
}

/// What an administrator may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum RoleName {
    Owner,
    Admin,
    Helpdesk,
    Auditor,
}

/// How a decision ended.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum OutcomeName {
    Granted,
    Refused,
}

/// A claim about a person.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum ReleasedName {
    Email,
    AuthTime,
    Acr,
    Amr,
}

/// A whole number: also one that is written with a point and nothing behind it, as JSON Schema has it.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    // Beyond this a float is not the number that was written.
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)] // looked at a line above
    let float = || value.as_f64().filter(exact).map(|number| number as i64);
    let found = value.as_i64().or_else(float);
    found.ok_or_else(|| serde::de::Error::custom(format!("expected a whole number, found {value}")))
}

fn maybe_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        Ok(None)
    } else {
        whole(value).map(Some).map_err(serde::de::Error::custom)
    }
}

/// What is to be another one, and cannot be taken away: `null` is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[allow(clippy::option_option)] // the three things that can be said
fn said_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    maybe_whole(deserializer).map(Some)
}

/// An object: serde would take an array of its members, too.
fn object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if !value.is_object() {
        return Err(serde::de::Error::custom(format!("expected an object, found {value}")));
    }
    T::deserialize(value).map_err(serde::de::Error::custom)
}

fn maybe_object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    object(value).map(Some).map_err(serde::de::Error::custom)
}

fn given_object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

#[allow(clippy::option_option)] // the three things that can be said
fn said_object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    maybe_object(deserializer).map(Some)
}

/// Nothing of these can be changed but whether they are on.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Some records of a kind, by id.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Listed<V> {
    /// What can be read.
    pub items: Vec<V>,
    /// Records that this version cannot read; they count as not there, and can be deleted.
    #[serde(default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// Ask for the next ones with `after` set to this; absent where these are the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnreadableRecord {
    /// Its id.
    pub id: String,
    /// Why.
    pub cannot_be_read: String,
}

/// Which records.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Those after this id: `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Those whose id or name has this in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// How many at most: 100 unless given, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
}

/// What goes with a record that is deleted.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Dependents {
    /// Records that name it: they are deleted with it, or lose it.
    pub records: Vec<Dependent>,
}

/// A record that names another one.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Dependent {
    /// Its kind, as messages call it.
    pub kind: String,
    /// Its id, or the name that people know it by.
    pub name: String,
    /// What becomes of it.
    pub then: Fate,
}

/// What becomes of a record when one that it names is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is deleted too.
    Deleted,
    /// It stays, without the other one.
    Changed,
    /// It ends: a session, an installation.
    Ended,
}

/// A person to add.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What they type to sign in; compared without regard to case.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub username: String,
    /// Their address; RASes may find their account by it.
    #[serde(default)]
    #[schema(
        max_length = 254,
        pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s@\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub email: Option<String>,
    /// It is known to be theirs.
    #[serde(default)]
    pub email_verified: bool,
    /// What others call them.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Their given name.
    #[serde(default)]
    pub given_name: Option<String>,
    /// Their family name.
    #[serde(default)]
    pub family_name: Option<String>,
    /// Groups they are in, by name.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// 12 characters or more; without one they cannot sign in with a password.
    #[serde(default)]
    #[schema(format = "password", min_length = 12, max_length = 1024)]
    pub password: Option<String>,
}

/// What is to be another about a person.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct UserChange {
    /// What they type to sign in.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub username: Option<String>,
    /// Their address; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 254, pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s@\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub email: Option<Option<String>>,
    /// Whether it is known to be theirs.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub email_verified: Option<bool>,
    /// What others call them; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub display_name: Option<Option<String>>,
    /// Their given name; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub given_name: Option<Option<String>>,
    /// Their family name; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub family_name: Option<Option<String>>,
    /// All groups they are in, by name.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub groups: Option<BTreeSet<String>>,
}

/// A person.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
pub struct UserView {
    /// `sub` of their ID tokens. It never changes.
    pub id: String,
    /// What they type to sign in.
    pub username: String,
    /// Their address.
    pub email: Option<String>,
    /// It is known to be theirs.
    pub email_verified: bool,
    /// What others call them.
    pub display_name: Option<String>,
    /// Their given name.
    pub given_name: Option<String>,
    /// Their family name.
    pub family_name: Option<String>,
    /// Groups they are in.
    pub groups: BTreeSet<String>,
    /// Whether they can sign in with a password.
    pub has_password: bool,
    /// Switched off.
    pub disabled: bool,
}

/// A new password.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// 12 characters or more.
    #[schema(format = "password", min_length = 12, max_length = 1024)]
    pub password: String,
}

/// A group to add.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Its name, which never changes: policy and tokens say it.
    #[schema(min_length = 1, max_length = 256, pattern = "^\\S([\\s\\S]*\\S)?$")]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// What is to be another about a group.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// What it is for.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
}

/// A group.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// A JWK Set (RFC 7517 section 5) of public keys. At least one is usable with the algorithm of the client.
#[derive(Debug, ToSchema)]
pub struct JwkSet {
    /// The keys; those of other algorithms are passed over.
    #[schema(min_items = 1, max_items = 100)]
    pub keys: Vec<Jwk>,
}

/// A public key (RFC 7517 section 4), without its private part.
#[derive(Debug, ToSchema)]
pub struct Jwk {
    /// `EC`, `OKP` or `RSA`.
    pub kty: String,
    /// Its name, where the set holds several.
    pub kid: Option<String>,
}

/// A client to register. Without `jwks`, `jwks_uri` and `public` it gets a secret, which the answer shows this once.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
pub struct NewClient {
    /// Client ID [default: generated].
    #[serde(default)]
    #[schema(pattern = "^(?!passavant$)[A-Za-z0-9_.~-]{1,128}$")]
    pub id: Option<String>,
    /// What people call it.
    pub name: String,
    /// Where sign-ins may return to; the port of a loopback address does not matter.
    #[serde(default)]
    #[schema(value_type = Vec<RedirectUri>)]
    pub redirect_uris: Vec<String>,
    /// Where sign-outs may return to.
    #[serde(default)]
    #[schema(value_type = Vec<RedirectUri>)]
    pub post_logout_redirect_uris: Vec<String>,
    /// Lifetime of its ID tokens in seconds, up to 43200.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 1, maximum = 43200)]
    pub id_token_lifetime: Option<i64>,
    /// The algorithm of its ID tokens; the server's own unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_token_signed_response_alg: Option<Algorithm>,
    /// It may leave PKCE out; not for public clients.
    #[serde(default)]
    pub pkce_optional: bool,
    /// It may sign people in by a code that they type elsewhere (RFC 8628).
    #[serde(default)]
    pub device_grant: bool,
    /// It gets no token without a DPoP proof (RFC 9449).
    #[serde(default)]
    pub dpop_bound_access_tokens: bool,
    /// It must push its authorization requests (RFC 9126).
    #[serde(default)]
    pub require_pushed_authorization_requests: bool,
    /// MCP servers it stands for: it may introspect their tokens.
    #[serde(default)]
    #[schema(value_type = Vec<SecureUrl>)]
    pub resources: Vec<Resource>,
    /// Which MCP client it is for: `vscode` or `claude-code`.
    #[serde(default)]
    pub software: Option<String>,
    /// It authenticates with `private_key_jwt` by these public keys.
    #[serde(default)]
    #[schema(value_type = Option<JwkSet>)]
    pub jwks: Option<Value>,
    /// The same, by the keys at this URL.
    #[serde(default)]
    #[schema(value_type = Option<SecureUrl>)]
    pub jwks_uri: Option<String>,
    /// The algorithm of those keys; ES256 unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
    /// It has no secret: anybody can claim to be it.
    #[serde(default)]
    pub public: bool,
}

/// What is to be another about a client. What it proves itself with is changed by its secret, or by `jwks` and
/// `jwks_uri`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct ClientChange {
    /// What people call it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Where sign-ins may return to.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<RedirectUri>>)]
    pub redirect_uris: Option<Vec<String>>,
    /// Where sign-outs may return to.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<RedirectUri>>)]
    pub post_logout_redirect_uris: Option<Vec<String>>,
    /// Lifetime of its ID tokens in seconds, up to 43200; `null` for the usual one.
    #[serde(default, deserialize_with = "said_whole", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 43200)]
    pub id_token_lifetime: Option<Option<i64>>,
    /// The algorithm of its ID tokens; `null` for the server's own.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_token_signed_response_alg: Option<Option<Algorithm>>,
    /// It may leave PKCE out.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pkce_optional: Option<bool>,
    /// It may sign people in by a code that they type elsewhere.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device_grant: Option<bool>,
    /// It gets no token without a DPoP proof.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dpop_bound_access_tokens: Option<bool>,
    /// It must push its authorization requests.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub require_pushed_authorization_requests: Option<bool>,
    /// MCP servers it stands for.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<SecureUrl>>)]
    pub resources: Option<Vec<Resource>>,
    /// Which MCP client it is for; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub software: Option<Option<String>>,
    /// Other public keys, for one that has keys.
    #[serde(default, deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<JwkSet>)]
    pub jwks: Option<Value>,
    /// Another URL of its keys, for one that has keys.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<SecureUrl>)]
    pub jwks_uri: Option<String>,
    /// The algorithm of its keys.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientProof {
    /// A secret.
    ClientSecret,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
    /// Not at all: it is public.
    None,
}

/// A client.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
pub struct ClientView {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How it proves who it is.
    pub authentication: ClientProof,
    /// Its secret: only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// Where its keys are, if they are fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The algorithm of its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
    /// Where sign-ins may return to.
    pub redirect_uris: Vec<String>,
    /// Where sign-outs may return to.
    pub post_logout_redirect_uris: Vec<String>,
    /// Lifetime of its ID tokens in seconds.
    pub id_token_lifetime: Option<i64>,
    /// The algorithm of its ID tokens.
    #[schema(value_type = Option<AlgorithmName>)]
    pub id_token_signed_response_alg: Option<Algorithm>,
    /// It may leave PKCE out.
    pub pkce_optional: bool,
    /// It may sign people in by a code that they type elsewhere.
    pub device_grant: bool,
    /// It gets no token without a DPoP proof.
    pub dpop_bound_access_tokens: bool,
    /// It must push its authorization requests.
    pub require_pushed_authorization_requests: bool,
    /// MCP servers it stands for.
    #[schema(value_type = Vec<String>)]
    pub resources: Vec<Resource>,
    /// Which MCP client it is for.
    pub software: Option<String>,
    /// When it registered itself, in seconds since 1970; absent where an administrator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub registered_at: Option<Timestamp>,
    /// Switched off.
    pub disabled: bool,
}

/// A new secret for a client.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// Seconds that the old secrets go on working, 30 days at most.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 2_592_000)]
    pub overlap: i64,
}

/// A secret, shown this once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// The client.
    pub id: String,
    /// Its secret.
    pub client_secret: String,
}

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
    #[schema(pattern = "^[A-Za-z0-9._-]{1,128}$")]
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
    #[schema(value_type = Vec<SecureUrl>)]
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
    #[schema(nullable = false, value_type = Option<Vec<SecureUrl>>)]
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

/// An installation of Passavant that somebody enrolled.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InstallationView {
    /// Its id.
    pub id: String,
    /// Whose it is, by user name (by id where nobody has it any more).
    pub user: String,
    /// The computer, as they call it.
    pub device: String,
    /// When it was enrolled, in seconds since 1970.
    #[schema(value_type = i64)]
    pub enrolled_at: Timestamp,
    /// When it was used last, to the hour.
    #[schema(value_type = i64)]
    pub used_at: Timestamp,
}

/// A sign-in that stands.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its id: `sid` of ID tokens.
    pub id: String,
    /// Who has signed in: by user name at the IdP, by account at a RAS.
    pub user: String,
    /// When, in seconds since 1970.
    #[schema(value_type = i64)]
    pub signed_in_at: Timestamp,
    /// The class that it reached.
    pub acr: String,
    /// By which means.
    pub amr: Vec<String>,
    /// When the browser has to sign in again; what it brought may last longer.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
}

/// Whose.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoseQuery {
    /// Only this person's: user name or id at the IdP, account at a RAS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

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
    pub issuer: Issuer,
    /// Its tenant, where it has several.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Its `sub` for them.
    pub subject: String,
}

/// An administrator to add.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdministrator {
    /// Their name in the audit trail.
    #[schema(pattern = "^[a-z0-9][a-z0-9._@+-]{0,63}$")]
    pub name: String,
    /// What they may do.
    #[schema(value_type = RoleName)]
    pub role: AdminRole,
    /// Days that their token is good for: 90 unless given, 366 at most.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 1, maximum = 366)]
    pub days: Option<i64>,
}

/// What is to be another about an administrator.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdministratorChange {
    /// What they may do.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<RoleName>)]
    pub role: Option<AdminRole>,
}

/// Another token for an administrator.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Days that it is good for: 90 unless given, 366 at most.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 1, maximum = 366)]
    pub days: Option<i64>,
}

/// An administrator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AdministratorView {
    /// Their name.
    pub name: String,
    /// What they may do.
    #[schema(value_type = RoleName)]
    pub role: AdminRole,
    /// When their token ends, in seconds since 1970.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
    /// When they were added.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// By whom.
    pub added_by: String,
    /// Their token: only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What a signing key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is published, and signs later.
    Published,
    /// It signs.
    Signs,
    /// It verifies what it signed.
    Verifies,
    /// Nothing that it signed is alive any more.
    Ended,
}

/// A signing key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made, in seconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it begins to sign.
    #[schema(value_type = i64)]
    pub signs_from: Timestamp,
    /// What it does now.
    pub state: KeyState,
}

/// A new signing key.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// It signs at once: for a key that is in other hands.
    #[serde(default)]
    pub now: bool,
    /// The algorithm whose key is rotated; the server's own unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// A signing key that was made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// Its id.
    pub kid: String,
    /// When it begins to sign, in seconds since 1970.
    #[schema(value_type = i64)]
    pub signs_from: Timestamp,
}

/// Which rows of the audit trail.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only this person's: user name or id at the IdP, account at a RAS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Only this client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Only `granted` or `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OutcomeName>)]
    pub outcome: Option<Outcome>,
    /// Only this event; with a dot at its end, all that begin so (`admin.`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Only acts of this administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only rows before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// How many at most: 50 unless given, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
}

/// A row of the audit trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its place in the trail.
    pub id: i64,
    /// When, in seconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// What was asked for, or done.
    pub event: String,
    /// `granted` or `refused`.
    pub outcome: String,
    /// The id of the person.
    pub person: String,
    /// What they are called now, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person_name: Option<String>,
    /// The id of the client.
    pub client: String,
    /// Everything else by name.
    pub details: BTreeMap<String, String>,
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

/// What runs here.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RolesView {
    /// Issuer of the IdP, where there is one.
    pub idp: Option<String>,
    /// The RASes.
    pub ras: Vec<RasRole>,
    /// Whether gateways are administered here.
    pub gateway: bool,
}

/// A RAS that runs here.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RasRole {
    /// What the config calls it.
    pub name: String,
    /// Its issuer identifier.
    pub issuer: String,
}

/// What a caller reads when a call fails (RFC 9457).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was found, and what was expected.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
