//! Discovery documents: OpenID Connect Discovery, RFC 8414, RFC 9728.

use crate::{
    GRANT_DEVICE_CODE, GRANT_JWT_BEARER, GRANT_PROFILE_ID_JAG, GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ID_JAG,
};
use crate::{
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::scope::Scopes,
    oauth::{ended_tokens, global_token_revocation},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Client authentication methods of a token endpoint; `none` is listed only if an administrator
/// allowed public clients.
fn authentication_methods(public_clients: bool) -> Vec<&'static str> {
    let mut methods = vec!["client_secret_basic", "client_secret_post", "private_key_jwt"];
    if public_clients {
        methods.push("none");
    }
    methods
}

fn algorithms() -> Vec<&'static str> {
    Algorithm::ALL.iter().map(|a| a.name()).collect()
}

/// What an IdP offers besides the sign-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdpOffers {
    /// An administrator allowed public clients.
    pub public_clients: bool,
    /// People may enrol installations.
    pub enrolment: bool,
    /// Devices may show a code that the person types elsewhere (RFC 8628).
    pub devices: bool,
}

/// The IdP's document, served both as OpenID configuration and as RFC 8414 metadata. `signing` are
/// the algorithms that ID tokens may be signed with, the default first.
pub fn idp(issuer: &Issuer, signing: &[Algorithm], offers: IdpOffers) -> Value {
    let IdpOffers { public_clients, enrolment, devices } = offers;
    let signing: Vec<&str> = signing.iter().map(|algorithm| algorithm.name()).collect();
    let methods = authentication_methods(public_clients);
    let confidential = authentication_methods(false);
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": issuer.endpoint("/authorize"),
        "token_endpoint": issuer.endpoint("/token"),
        "jwks_uri": issuer.endpoint("/jwks"),
        "userinfo_endpoint": issuer.endpoint("/userinfo"),
        "revocation_endpoint": issuer.endpoint("/revoke"),
        "introspection_endpoint": issuer.endpoint("/introspect"),
        "pushed_authorization_request_endpoint": issuer.endpoint("/par"),
        "end_session_endpoint": issuer.endpoint("/logout"),
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", GRANT_TOKEN_EXCHANGE,
            "client_credentials"],
        "identity_chaining_requested_token_types_supported": [TOKEN_TYPE_ID_JAG],
        "scopes_supported": crate::oauth::authorize::SCOPES,
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "acr", "amr", "sid",
            "session_expiry", "nonce", "at_hash", "email", "email_verified", "name", "preferred_username",
            "given_name", "family_name", "groups"],
        "acr_values_supported": crate::oidc::authentication::CLASSES.map(|(class, _)| class),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": signing,
        "prompt_values_supported": ["none", "login", "select_account"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "claims_parameter_supported": false,
        "dpop_signing_alg_values_supported": algorithms(),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms(),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms(),
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms(),
        "passavant_catalog_endpoint": issuer.endpoint("/catalog"),
        "passavant_installations_endpoint": issuer.endpoint("/installations"),
        "passavant_gateway_records_endpoint": issuer.endpoint("/gateway-records"),
    });
    if devices {
        document["device_authorization_endpoint"] = issuer.endpoint("/device_authorization").into();
        if let Some(grants) = document["grant_types_supported"].as_array_mut() {
            grants.push(GRANT_DEVICE_CODE.into());
        }
    }
    if enrolment {
        // The client id to sign in with before there is an installation.
        document["passavant_enrolment_client_id"] = crate::oauth::client::ENROLLED_CLIENT.into();
    }
    crate::formerly::say_too(&mut document);
    document
}

/// What a RAS offers besides cross-app access.
#[derive(Clone, Copy, Debug, Default)]
pub struct RasOffers {
    /// Clients may have metadata documents.
    pub documents: bool,
    /// People may sign in at a trusted issuer.
    pub people: bool,
    /// Clients may register themselves.
    pub registration: bool,
}

/// The RAS's RFC 8414 document. It names no trusted issuer (ID-JAG draft section 9.5). If people
/// may not sign in, the authorization endpoint answers every request with an error page that says
/// why. It is listed anyway, because widely used clients consider metadata without one malformed.
pub fn ras(issuer: &Issuer, scopes: &Scopes, offers: RasOffers) -> Value {
    let methods = authentication_methods(offers.people);
    let confidential = authentication_methods(false);
    let mut grants = vec![GRANT_JWT_BEARER];
    if offers.people {
        grants.extend(["authorization_code", "refresh_token"]);
    }
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": issuer.endpoint("/authorize"),
        "token_endpoint": issuer.endpoint("/token"),
        "jwks_uri": issuer.endpoint("/jwks"),
        "revocation_endpoint": issuer.endpoint("/revoke"),
        "introspection_endpoint": issuer.endpoint("/introspect"),
        "global_token_revocation_endpoint": issuer.endpoint(global_token_revocation::PATH),
        "passavant_id_jag_revocation": true,
        "passavant_ended_tokens_endpoint": issuer.endpoint(ended_tokens::PATH),
        // Even if nobody may sign in: clients fail silently without it (RFC 8414 requires the
        // member).
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grants,
        "authorization_grant_profiles_supported": [GRANT_PROFILE_ID_JAG],
        "client_id_metadata_document_supported": offers.documents,
        "request_uri_parameter_supported": false,
        "scopes_supported": scopes,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "dpop_signing_alg_values_supported": algorithms(),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms(),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms(),
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms(),
    });
    if scopes.is_empty() {
        // A member without elements is omitted (RFC 8414, 3.2).
        let members = document.as_object_mut();
        members.map(|members| members.remove("scopes_supported"));
    }
    if offers.registration {
        document["registration_endpoint"] = issuer.endpoint("/register").into();
    }
    document
}

/// RFC 9728 protected-resource metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedResourceMetadata {
    /// The resource identifier.
    pub resource: String,
    /// Issuers of the authorization servers whose tokens are accepted.
    #[serde(default)]
    pub authorization_servers: Vec<String>,
    /// The available scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes_supported: Option<Vec<String>>,
    /// How a token may be presented: in the header only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_methods_supported: Option<Vec<String>>,
    /// Algorithms of DPoP proofs, if it takes any (RFC 9728 section 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// Whether only DPoP-bound tokens are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpop_bound_access_tokens_required: Option<bool>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// URL of the keys that it signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
}

impl ProtectedResourceMetadata {
    /// The document of a resource (RFC 9728 section 2).
    pub fn new(resource: &Resource, authorization_server: &Issuer, scopes: &Scopes) -> Self {
        Self {
            resource: resource.as_str().to_owned(),
            authorization_servers: vec![authorization_server.as_str().to_owned()],
            scopes_supported: Some(scopes.iter().map(str::to_owned).collect()),
            bearer_methods_supported: Some(vec!["header".to_owned()]),
            dpop_signing_alg_values_supported: Some(
                algorithms().into_iter().map(str::to_owned).collect(),
            ),
            dpop_bound_access_tokens_required: None,
            resource_name: None,
            jwks_uri: None,
        }
    }
}

/// Which ends of access an authorization server can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocations {
    /// None: it has no such endpoint.
    None,
    /// Those of everything that a person has there.
    People,
    /// Those of single ID-JAGs as well.
    IdJags,
}

/// Authorization-server metadata as a client reads it. Unknown members are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthorizationServerMetadata {
    /// The issuer; must be identical to the one the URL was built from (RFC 8414 section 3.3).
    pub issuer: String,
    /// Token endpoint.
    pub token_endpoint: String,
    /// Authorization endpoint, if people can sign in.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// Keys.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Revocation endpoint.
    #[serde(default)]
    pub revocation_endpoint: Option<String>,
    /// Introspection endpoint.
    #[serde(default)]
    pub introspection_endpoint: Option<String>,
    /// Global Token Revocation.
    #[serde(default)]
    pub global_token_revocation_endpoint: Option<String>,
    /// Passavant's own: a request to that endpoint may name single ID-JAGs.
    #[serde(default)]
    pub passavant_id_jag_revocation: bool,
    /// Passavant's own: a feed of ended access tokens.
    #[serde(default)]
    pub passavant_ended_tokens_endpoint: Option<String>,
    /// Logout endpoint.
    #[serde(default)]
    pub end_session_endpoint: Option<String>,
    /// Userinfo endpoint.
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    /// PKCE methods.
    #[serde(default)]
    pub code_challenge_methods_supported: Vec<String>,
    /// Whether authorization responses contain `iss` (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    /// Grant profiles (ID-JAG draft section 7.2).
    #[serde(default)]
    pub authorization_grant_profiles_supported: Vec<String>,
    /// Client authentication methods; RFC 8414's default is Basic.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Algorithms of ID tokens.
    #[serde(default)]
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// The available scopes.
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    /// Whether clients may have metadata documents.
    #[serde(default)]
    pub client_id_metadata_document_supported: bool,
    /// Device authorization endpoint (RFC 8628).
    #[serde(default)]
    pub device_authorization_endpoint: Option<String>,
    /// Dynamic client registration (RFC 7591).
    #[serde(default)]
    pub registration_endpoint: Option<String>,
    /// Grants; RFC 8414's default is code and implicit.
    #[serde(default)]
    pub grant_types_supported: Option<Vec<String>>,
    /// Token types that token exchange can return (ID-JAG draft section 7.1).
    #[serde(default)]
    pub identity_chaining_requested_token_types_supported: Vec<String>,
    /// Algorithms of DPoP proofs (RFC 9449 section 5.1).
    #[serde(default)]
    pub dpop_signing_alg_values_supported: Vec<String>,
    /// The company's name (OpenID Federation 1.0 section 5.2.2).
    #[serde(default)]
    pub organization_name: Option<String>,
    /// Passavant's own: the catalog of MCP servers that a person may reach.
    #[serde(default)]
    pub passavant_catalog_endpoint: Option<String>,
    /// Passavant's own: the endpoint that enrols installations.
    #[serde(default)]
    pub passavant_installations_endpoint: Option<String>,
    /// Passavant's own: the endpoint where the company's gateways report tool calls.
    #[serde(default)]
    pub passavant_gateway_records_endpoint: Option<String>,
    /// Passavant's own: the client to enrol with.
    #[serde(default)]
    pub passavant_enrolment_client_id: Option<String>,
}

impl AuthorizationServerMetadata {
    /// Which ends of access it can be told of. A server of another maker would end all that a person has
    /// there where a single ID-JAG is named.
    pub const fn takes_revocations(&self) -> Revocations {
        match (&self.global_token_revocation_endpoint, self.passavant_id_jag_revocation) {
            (None, _) => Revocations::None,
            (Some(_), false) => Revocations::People,
            (Some(_), true) => Revocations::IdJags,
        }
    }
}
