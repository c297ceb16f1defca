//! OAuth clients, at either server.

use super::SignalsAbout;
use super::written::{
    AlgorithmName, RedirectUri, SecureUrl, given, given_object, maybe_whole, said, said_whole,
    whole,
};
use passavant_proto::{identifier::Resource, jose::jwk::Algorithm, time::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

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
    #[schema(pattern = "^(?!passavant$)(?!\\.{1,2}$)[A-Za-z0-9_.~-]{1,128}$")]
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
    /// Where it is told that a session has ended (OpenID Connect Back-Channel Logout).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecureUrl>)]
    pub backchannel_logout_uri: Option<String>,
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
    /// Its entity ID at a SAML identity provider that is an upstream here: it may exchange assertions for
    /// this audience for a refresh token. Not for public clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._~:/-]{1,200}$")]
    pub saml_entity_id: Option<String>,
    /// It may listen to signals (OpenID Shared Signals Framework), and of whom; not for public clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<SignalsAbout>,
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
    /// Where it is told that a session has ended; `null` for nowhere.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SecureUrl>)]
    pub backchannel_logout_uri: Option<Option<String>>,
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
    /// Its entity ID at a SAML identity provider; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._~:/-]{1,200}$")]
    pub saml_entity_id: Option<Option<String>>,
    /// Of whom it may listen to signals; `null`: of nobody.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignalsAbout>)]
    pub signals: Option<Option<SignalsAbout>>,
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
    /// Where it is told that a session has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backchannel_logout_uri: Option<String>,
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
    /// Its entity ID at a SAML identity provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saml_entity_id: Option<String>,
    /// Of whom it may listen to signals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<SignalsAbout>,
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
