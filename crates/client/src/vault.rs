//! Stores a person's sign-in between runs.

use passavant_proto::oauth::scope::Scopes;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The credential store failed.
#[derive(Debug, thiserror::Error)]
#[error("the credential store failed: {0}")]
pub struct VaultError(pub String);

/// A sign-in with its tokens. It has no `Debug`: it must never be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The IdP's issuer; tokens are sent to no other party.
    pub issuer: String,
    /// The client that signed in.
    pub idp_client_id: String,
    /// The person's name for display.
    pub name: String,
    /// ID token.
    pub id_token: String,
    /// When the ID token expires, in seconds since the epoch.
    pub id_token_expires: i64,
    /// Refresh token, if the IdP issued one.
    pub refresh_token: Option<String>,
    /// When the tokens were last renewed, in seconds since the epoch.
    pub renewed_at: i64,
    /// Access token for the IdP's own endpoints, such as the catalog.
    #[serde(default)]
    pub access_token: Option<String>,
    /// When that expires, in seconds since the epoch.
    #[serde(default)]
    pub access_token_expires: i64,
    /// Set if the IdP refused the tokens: then there is none in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedSignIn>,
}

/// What is known of a sign-in that is over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSignIn {
    /// When this client learnt of it, in seconds since the epoch.
    pub at: i64,
    /// Who ended it; `None` if it may have expired.
    #[serde(default)]
    pub by: Option<String>,
    /// Issuer and subject of its ID token.
    #[serde(default)]
    pub subject: Option<(String, String)>,
    /// Whether the enrolment of this computer has ended as well.
    #[serde(default)]
    pub enrolment: bool,
}

/// What is stored for one MCP server between runs. It has no `Debug`: it must never be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// URL of the MCP server.
    pub url: String,
    /// Its resource identifier.
    pub resource: String,
    /// The authorization server that issued the token; its credentials are sent to no other.
    pub authorization_server: String,
    /// The access token.
    pub token: String,
    /// Granted scopes.
    pub scopes: Scopes,
    /// When it expires, in seconds since the epoch.
    pub expires: i64,
    /// Thumbprint of the key it is bound to, if it is (RFC 9449).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpop_jkt: Option<String>,
    /// How to renew it, if it comes from the person's own consent, outside of the company's
    /// control.
    #[serde(default)]
    pub consent: Option<Consent>,
}

/// A consent that the person gave at an authorization server without cross-app access.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// This client's id there.
    pub client_id: String,
    /// The client's secret, if it has one.
    #[serde(default)]
    pub client_secret: Option<String>,
    /// Whether the client authenticates with this installation's key.
    #[serde(default)]
    pub by_key: bool,
    /// Refresh token, if there is one.
    #[serde(default)]
    pub refresh_token: Option<String>,
    /// The authorization endpoint that the person was sent to: no other authorization server may
    /// name it as its own (RFC 9700 4.4).
    // The name under which it was first stored.
    #[serde(default, rename = "endpoint", skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
}

/// Held while tokens are renewed: other processes wait for it.
pub type VaultLock = Box<dyn Send>;

/// A future of a vault.
pub type VaultFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, VaultError>> + Send + 'a>>;

/// A credential store: the OS keychain, a file, or memory.
pub trait Vault: Send + Sync {
    /// The stored sign-in, if there is one.
    fn load(&self) -> VaultFuture<'_, Option<Session>>;
    /// Replaces the stored sign-in, completely or not at all; `None` deletes it.
    fn store<'a>(&'a self, session: Option<&'a Session>) -> VaultFuture<'a, ()>;
    /// What is stored for the MCP server at `url`.
    fn load_access<'a>(&'a self, url: &'a str) -> VaultFuture<'a, Option<Access>>;
    /// Stores it; `None` deletes it.
    fn store_access<'a>(&'a self, url: &'a str, access: Option<&'a Access>) -> VaultFuture<'a, ()>;
    /// URLs of the MCP servers that something is stored for.
    fn accesses(&self) -> VaultFuture<'_, Vec<String>>;
    /// Waits for the exclusive right to ask the person, across processes: one browser tab for all.
    fn lock_person(&self) -> VaultFuture<'_, VaultLock>;
    /// Waits for the exclusive right to renew, across processes.
    fn lock(&self) -> VaultFuture<'_, VaultLock>;
    /// A number that changes when a process ends a sign-in ([`Self::next_generation`]): tokens that
    /// were held in memory before are not used any more. A vault of one process needs none.
    fn generation(&self) -> VaultFuture<'_, u64> {
        Box::pin(async { Ok(0) })
    }
    /// Changes that number.
    fn next_generation(&self) -> VaultFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl<V: Vault + ?Sized> Vault for std::sync::Arc<V> {
    fn load(&self) -> VaultFuture<'_, Option<Session>> {
        (**self).load()
    }

    fn store<'a>(&'a self, session: Option<&'a Session>) -> VaultFuture<'a, ()> {
        (**self).store(session)
    }

    fn load_access<'a>(&'a self, url: &'a str) -> VaultFuture<'a, Option<Access>> {
        (**self).load_access(url)
    }

    fn store_access<'a>(&'a self, url: &'a str, access: Option<&'a Access>) -> VaultFuture<'a, ()> {
        (**self).store_access(url, access)
    }

    fn accesses(&self) -> VaultFuture<'_, Vec<String>> {
        (**self).accesses()
    }

    fn lock_person(&self) -> VaultFuture<'_, VaultLock> {
        (**self).lock_person()
    }

    fn lock(&self) -> VaultFuture<'_, VaultLock> {
        (**self).lock()
    }

    fn generation(&self) -> VaultFuture<'_, u64> {
        (**self).generation()
    }

    fn next_generation(&self) -> VaultFuture<'_, ()> {
        (**self).next_generation()
    }
}

/// A vault in memory, lost when the process ends.
#[derive(Default)]
pub struct MemoryVault {
    session: Mutex<Option<Session>>,
    accesses: Mutex<BTreeMap<String, Access>>,
    lock: std::sync::Arc<tokio::sync::Mutex<()>>,
    person: std::sync::Arc<tokio::sync::Mutex<()>>,
    generation: AtomicU64,
}

impl MemoryVault {
    /// A vault with a sign-in made elsewhere.
    pub fn with(session: Session) -> Self {
        Self { session: Mutex::new(Some(session)), ..Self::default() }
    }
}

impl Vault for MemoryVault {
    fn load(&self) -> VaultFuture<'_, Option<Session>> {
        let held = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move { Ok(held) })
    }

    fn store<'a>(&'a self, session: Option<&'a Session>) -> VaultFuture<'a, ()> {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session.cloned();
        Box::pin(async { Ok(()) })
    }

    fn load_access<'a>(&'a self, url: &'a str) -> VaultFuture<'a, Option<Access>> {
        let held = self.accesses.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        Box::pin(async move { Ok(held) })
    }

    fn store_access<'a>(&'a self, url: &'a str, access: Option<&'a Access>) -> VaultFuture<'a, ()> {
        let mut held = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        match access {
            Some(access) => held.insert(url.to_owned(), access.clone()),
            None => held.remove(url),
        };
        Box::pin(async { Ok(()) })
    }

    fn accesses(&self) -> VaultFuture<'_, Vec<String>> {
        let held = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        let urls = held.keys().cloned().collect();
        Box::pin(async move { Ok(urls) })
    }

    fn lock_person(&self) -> VaultFuture<'_, VaultLock> {
        let lock = std::sync::Arc::clone(&self.person);
        Box::pin(async move { Ok(Box::new(lock.lock_owned().await) as VaultLock) })
    }

    fn lock(&self) -> VaultFuture<'_, VaultLock> {
        let lock = std::sync::Arc::clone(&self.lock);
        Box::pin(async move { Ok(Box::new(lock.lock_owned().await) as VaultLock) })
    }

    fn generation(&self) -> VaultFuture<'_, u64> {
        let generation = self.generation.load(Ordering::Relaxed);
        Box::pin(async move { Ok(generation) })
    }

    fn next_generation(&self) -> VaultFuture<'_, ()> {
        self.generation.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
}
