//! A person's client: what it holds. What it does is in the files of each.

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
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// An access token for one MCP server.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: Secret,
    /// Scopes granted; empty if the RAS did not say.
    pub scopes: Scopes,
    /// When it ends.
    pub expires: Timestamp,
}

impl AccessToken {
    pub(crate) fn new(secret: Secret, scopes: Scopes, expires: Timestamp) -> Self {
        Self { secret, scopes, expires }
    }

    /// The token, for the `Authorization` header of requests to its MCP server alone.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// What the person is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To sign in at the company: the sign-in before has ended.
    SignIn,
    /// To sign in again, because the policy wants it fresher or stronger.
    StepUp,
    /// To consent at the authorization server of an MCP server without cross-app access.
    Consent,
}

/// Opens URLs for a person.
pub trait Browser: Send + Sync {
    /// Shows `url`; `false` if this program does not ask people for that.
    fn open(&self, url: &str, purpose: Purpose) -> bool;
}

/// What a person was last asked for, for one MCP server.
pub(crate) struct Asked {
    /// When the first tab was opened.
    pub(crate) at: Timestamp,
    pub(crate) issuer: String,
    pub(crate) scopes: Scopes,
    pub(crate) is_first: bool,
    pub(crate) is_answered: bool,
}

/// What the IdP said of an MCP server (its authorization server, and the server), and when.
pub(crate) type Verdicts = HashMap<(String, Resource), (bool, Timestamp)>;

/// A person's client: signs them in once, then gets a token for any MCP server they are allowed.
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
    /// Held by each renewal that is under way.
    pub(crate) renewing: Arc<()>,
    /// What a person was asked for consent to, by MCP server.
    pub(crate) asked: Mutex<HashMap<String, Asked>>,
    pub(crate) tokens: Mutex<HashMap<(String, Resource), AccessToken>>,
    /// Authorization servers that take no `resource` at a redemption.
    pub(crate) without_resource: Mutex<HashSet<String>>,
    /// MCP servers found, by the URL they were asked for.
    pub(crate) servers: Mutex<HashMap<String, McpServer>>,
    /// Authorization servers that the company's catalog names.
    pub(crate) company: Mutex<HashSet<String>>,
    /// What the IdP said about MCP servers that were asked for by name.
    pub(crate) verdicts: Mutex<Verdicts>,
    /// Tokens by URL, as the vault keeps them.
    pub(crate) accesses: Mutex<HashMap<String, Access>>,
    /// The IdP's metadata, and when it was read.
    pub(crate) idp_metadata: Mutex<Option<(Timestamp, Discovered)>>,
}

impl Client {
    /// A client with these settings, keeping the sign-in in `vault`.
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
            asked: Mutex::default(),
            tokens: Mutex::default(),
            without_resource: Mutex::default(),
            servers: Mutex::default(),
            company: Mutex::default(),
            verdicts: Mutex::default(),
            accesses: Mutex::default(),
            idp_metadata: Mutex::default(),
        }))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The guarded HTTP client.
    pub fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }

    /// The sign-in kept, if there is one for this IdP and client.
    pub async fn session(&self) -> Result<Option<Session>, Error> {
        let session = self.0.vault.load().await?;
        Ok(session.filter(|s| {
            s.issuer == self.0.settings.idp.as_str()
                && s.idp_client_id == self.0.settings.idp_client.client_id
        }))
    }

    /// Holds a token that [`Client::redeem`] brought, for [`Client::access_token`] to find.
    pub fn hold(&self, server: &McpServer, token: AccessToken) {
        self.tokens().insert(key(server), token);
    }

    /// Forgets a held token, after a 401.
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
