//! OAuth clients as registered at the IdP or at a RAS.

use crate::{jose::jwk::Algorithm, oauth::scope::Scopes, time::Timestamp};

/// The hash of one client secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretHash {
    /// SHA-256 in base64url ([`crate::secret::Secret::hash`]).
    pub hash: String,
    /// When it stops being accepted; `None` for never.
    pub expires: Option<Timestamp>,
}

/// Where the public keys of a `private_key_jwt` client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKeys {
    /// A JWK Set, kept with the registration.
    Inline(serde_json::Value),
    /// An https URL of a JWK Set, fetched through the guarded client.
    Fetched(String),
}

/// How a client authenticates. Exactly one method, the registered one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic` or `client_secret_post`.
    Secret(Vec<SecretHash>),
    /// `private_key_jwt`.
    PrivateKeyJwt {
        /// Its public keys.
        keys: ClientKeys,
        /// The one algorithm it signs with.
        algorithm: Algorithm,
    },
    /// None: a public client, allowed only if an administrator permits it.
    Public,
}

impl ClientAuthentication {
    /// The registered method, as RFC 7591 names it.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Secret(_) => "client_secret",
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::Public => "none",
        }
    }
}

/// The id of the client that stands for all installations which people enrol at the IdP. A
/// connection that names it as its client applies to every installation.
pub const ENROLLED_CLIENT: &str = "passavant";

/// One client registration.
#[allow(clippy::struct_excessive_bools)] // switches of the registration, each by the name that its standard gives it
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its id at this authorization server: the `idp_client_id` at an IdP, the `ras_client_id` at a
    /// RAS. Only characters of `[A-Za-z0-9_.~-]`, so that Basic credentials read the same raw and
    /// form-decoded.
    pub id: String,
    /// Display name.
    pub name: String,
    /// How it authenticates.
    pub authentication: ClientAuthentication,
    /// Where sign-ins may return to; compared exactly, except for the port of a loopback address.
    pub redirect_uris: Vec<String>,
    /// Where sign-outs may return to; compared exactly.
    pub post_logout_redirect_uris: Vec<String>,
    /// Where it is told that a session has ended (OpenID Connect Back-Channel Logout 1.0, section 2.2).
    pub backchannel_logout_uri: Option<String>,
    /// Lifetime of its ID tokens in seconds; `None` for 600.
    pub id_token_lifetime: Option<i64>,
    /// The algorithm of its ID tokens (OpenID Connect Registration 1.0, 2); `None` for the server's own.
    pub id_token_signed_response_alg: Option<Algorithm>,
    /// Whether it may omit PKCE: only for confidential clients, whose codes are useless without
    /// their secret or key (RFC 9700 2.1.1).
    pub pkce_optional: bool,
    /// Whether it may sign people in by a code that they type elsewhere (RFC 8628).
    pub device_grant: bool,
    /// Whether it gets a token only with a DPoP proof (RFC 9449 section 5.2).
    pub dpop_bound_access_tokens: bool,
    /// Whether authorization requests must be pushed (RFC 9126 section 6).
    pub require_pushed_authorization_requests: bool,
    /// The MCP servers that this client represents: it may introspect tokens whose audience is one
    /// of them.
    pub resources: Vec<crate::identifier::Resource>,
    /// Its entity ID at a SAML identity provider, where it signs people in by SAML: it may exchange
    /// assertions for that audience for a refresh token (ID-JAG draft section 4.5).
    pub saml_entity_id: Option<String>,
    /// Whom it is told of as a receiver of signals, if it may be one (SSF 1.0).
    pub signals: Option<crate::ssf::Told>,
    /// The MCP client that it is registered for, by its name in `passavant install` (`vscode`,
    /// `claude-code`). People's catalogs contain it, and the installer writes native settings for
    /// it.
    pub software: Option<String>,
    /// Set if it registered itself (RFC 7591); `None` if an administrator registered it.
    pub registered: Option<SelfRegistered>,
    /// Switched off by an administrator.
    pub disabled: bool,
}

/// Facts about a client that registered itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfRegistered {
    /// When.
    pub at: Timestamp,
    /// Whether a person has authorized it since.
    pub used: bool,
}

impl Default for Client {
    /// A client without name, redirect URIs or authentication, to be filled in.
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            authentication: ClientAuthentication::Secret(Vec::new()),
            redirect_uris: Vec::new(),
            post_logout_redirect_uris: Vec::new(),
            backchannel_logout_uri: None,
            id_token_lifetime: None,
            id_token_signed_response_alg: None,
            pkce_optional: false,
            device_grant: false,
            dpop_bound_access_tokens: false,
            require_pushed_authorization_requests: false,
            resources: Vec::new(),
            saml_entity_id: None,
            signals: None,
            software: None,
            registered: None,
            disabled: false,
        }
    }
}

impl Client {
    /// Whether no administrator has registered it: it registered itself, or is known only by its
    /// document. The same checks apply to both kinds.
    pub fn is_stranger(&self) -> bool {
        self.registered.is_some() || is_document_url(&self.id)
    }

    /// Whether it may get a code without a PKCE challenge.
    pub fn may_omit_pkce(&self) -> bool {
        self.pkce_optional && self.authentication != ClientAuthentication::Public
    }

    /// Whether it may use a grant type. A self-registered client may use those that its
    /// registration lists: authorization codes and refresh tokens.
    pub fn may_use(&self, grant_type: &str) -> bool {
        self.registered.is_none() || matches!(grant_type, "authorization_code" | "refresh_token")
    }

    /// The built-in public client whose only use is to enrol an installation under a person.
    pub fn enrolment() -> Self {
        let redirect_uris = crate::oauth::redirect_uri::LOOPBACK_REDIRECTS;
        Self {
            id: ENROLLED_CLIENT.to_owned(),
            name: "Passavant, on the computer you are using".to_owned(),
            authentication: ClientAuthentication::Public,
            redirect_uris: redirect_uris.map(str::to_owned).to_vec(),
            device_grant: true,
            ..Self::default()
        }
    }
}

/// Whether `id` may be a client id (see [`Client::id`]), 1 to 128 characters.
pub fn is_client_id(id: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    (1..=128).contains(&id.len()) && id.bytes().all(legal)
}

/// An MCP server, as known to the RAS that governs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GovernedResource {
    /// Its resource identifier, the `aud` of tokens.
    pub resource: crate::identifier::Resource,
    /// Display name.
    pub name: String,
    /// All its scopes; others are never granted.
    pub scopes: Scopes,
    /// Granted when an ID-JAG carries no `scope` claim.
    pub default_scopes: Scopes,
    /// What each scope allows, in words for people.
    pub descriptions: std::collections::BTreeMap<String, String>,
    /// Lifetime of its access tokens in seconds; `None` for 300, at most 3600.
    pub access_token_lifetime: Option<i64>,
    /// The algorithm that its access tokens are signed with; `None` for the server's own.
    pub access_token_signing_alg: Option<Algorithm>,
    /// Whether its tokens must be bound to a DPoP key (ID-JAG draft section 9.9.1.2).
    pub require_dpop: bool,
    /// Switched off by an administrator.
    pub disabled: bool,
}

impl GovernedResource {
    /// A switched-off resource of which only the identifier is known.
    pub fn switched_off(resource: crate::identifier::Resource) -> Self {
        Self {
            resource,
            name: String::new(),
            scopes: Scopes::default(),
            default_scopes: Scopes::default(),
            descriptions: std::collections::BTreeMap::new(),
            access_token_lifetime: None,
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: true,
        }
    }
}

/// Whether a client id has the form of a document's URL, so that it is not looked up only among ids
/// that a server made.
pub fn is_document_url(client_id: &str) -> bool {
    client_id.starts_with("https://") || client_id.starts_with("http://")
}
