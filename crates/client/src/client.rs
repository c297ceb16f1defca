//! A person's client: its state. The operations are in the other files.

use crate::{
    discovery::McpServer,
    error::Error,
    settings::Settings,
    vault::{Access, Session, Vault},
};
use passavant_outbound::{Discovered, Outbound};
use passavant_proto::{
    identifier::Resource,
    oauth::scope::Scopes,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
};

/// An access token for one MCP server.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: Secret,
    /// Granted scopes; empty if the RAS did not return any.
    pub scopes: Scopes,
    /// When it expires.
    pub expires: Timestamp,
    /// Thumbprint of the key it is bound to: then it is of use only with a proof for each request.
    pub dpop_jkt: Option<String>,
}

impl AccessToken {
    pub(crate) fn new(secret: Secret, scopes: Scopes, expires: Timestamp) -> Self {
        Self { secret, scopes, expires, dpop_jkt: None }
    }

    #[must_use]
    pub(crate) fn bound_to(self, dpop_jkt: Option<String>) -> Self {
        Self { dpop_jkt, ..self }
    }

    /// The token, for the `Authorization` header of requests to its MCP server only.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// What the person is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To sign in at the company: the earlier sign-in has ended.
    SignIn,
    /// To sign in again, because the policy requires a fresher or stronger sign-in.
    StepUp,
    /// To consent at the authorization server of an MCP server without cross-app access.
    Consent,
}

/// Opens URLs for a person.
pub trait Browser: Send + Sync {
    /// Opens `url`; `false` if this program does not ask people for this purpose.
    fn open(&self, url: &str, purpose: Purpose) -> bool;
}

/// What the person was last asked for, for one MCP server.
pub(crate) struct ConsentAttempt {
    /// When the first tab was opened.
    pub(crate) at: Timestamp,
    pub(crate) issuer: String,
    pub(crate) scopes: Scopes,
    pub(crate) is_first: bool,
    pub(crate) is_answered: bool,
}

/// The IdP's answers about MCP servers (by authorization server and server), and when they were
/// given.
pub(crate) type Verdicts = HashMap<(String, Resource), (bool, Timestamp)>;

/// A person's client: signs them in once, then obtains tokens for any MCP server they may use.
/// Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) outbound: Outbound,
    pub(crate) vault: Box<dyn Vault>,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) browser: OnceLock<Arc<dyn Browser>>,
    /// Cloned by each renewal in progress.
    pub(crate) renewing: Arc<()>,
    /// The consents that the person was asked for, by MCP server.
    pub(crate) consent_attempts: Mutex<HashMap<String, ConsentAttempt>>,
    pub(crate) tokens: Mutex<HashMap<(String, Resource), AccessToken>>,
    /// Authorization servers that reject `resource` at a redemption.
    pub(crate) without_resource: Mutex<HashSet<String>>,
    /// MCP servers that were discovered, by the URL they were requested with.
    pub(crate) servers: Mutex<HashMap<String, McpServer>>,
    /// Authorization servers that the company's catalog names.
    pub(crate) company: Mutex<HashSet<String>>,
    /// The IdP's answers about MCP servers.
    pub(crate) verdicts: Mutex<Verdicts>,
    /// Tokens by URL, as they are in the vault.
    pub(crate) accesses: Mutex<HashMap<String, Access>>,
    /// The IdP's metadata, and when they were fetched.
    pub(crate) idp_metadata: Mutex<Option<(Timestamp, Discovered)>>,
    /// What [`Vault::generation`] said last.
    pub(crate) generation: AtomicU64,
    /// The last DPoP nonce of each origin.
    pub(crate) nonces: Mutex<HashMap<String, String>>,
}

impl Client {
    /// A client with these settings that stores the sign-in in `vault`.
    pub fn new(
        settings: Settings,
        vault: Box<dyn Vault>,
        outbound: Outbound,
        clock: Clock,
        entropy: Entropy,
    ) -> Self {
        outbound.compare_with(&clock);
        Self(Arc::new(Inner {
            settings,
            outbound,
            vault,
            clock,
            entropy,
            browser: OnceLock::new(),
            renewing: Arc::default(),
            consent_attempts: Mutex::default(),
            tokens: Mutex::default(),
            without_resource: Mutex::default(),
            servers: Mutex::default(),
            company: Mutex::default(),
            verdicts: Mutex::default(),
            accesses: Mutex::default(),
            idp_metadata: Mutex::default(),
            generation: AtomicU64::new(crate::ended::UNREAD),
            nonces: Mutex::default(),
        }))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The HTTP client that restricts which addresses may be reached.
    pub fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }

    /// The stored sign-in, if there is one for this IdP and client.
    pub async fn session(&self) -> Result<Option<Session>, Error> {
        let session = self.0.vault.load().await?;
        Ok(session.filter(|session| self.is_ours(session) && session.ended.is_none()))
    }

    /// Whether a sign-in is of this IdP and client.
    pub(crate) fn is_ours(&self, session: &Session) -> bool {
        session.issuer == self.0.settings.idp.as_str()
            && session.idp_client_id == self.0.settings.idp_client.client_id
    }

    /// Caches a token that [`Client::redeem`] returned, so that [`Client::access_token`] finds it.
    pub fn hold(&self, server: &McpServer, token: AccessToken) {
        self.tokens().insert(key(server), token);
    }

    /// Removes a cached token, after a 401.
    pub fn forget(&self, server: &McpServer) {
        self.tokens().remove(&key(server));
    }

    pub(crate) fn tokens(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<(String, Resource), AccessToken>> {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn key(server: &McpServer) -> (String, Resource) {
    (server.authorization_server.to_string(), server.resource.clone())
}
