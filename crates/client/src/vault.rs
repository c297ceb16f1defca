//! Where a person's sign-in is kept between runs.

use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

/// The credential store failed.
#[derive(Debug, thiserror::Error)]
#[error("the credential store failed: {0}")]
pub struct VaultError(pub String);

/// A sign-in with its tokens. It has no `Debug`: it must never be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The IdP's issuer; tokens are sent to no other party.
    pub issuer: String,
    /// The client that signed in.
    pub idp_client_id: String,
    /// What to call the person.
    pub name: String,
    /// ID token.
    pub id_token: String,
    /// When the ID token ends, in seconds since the epoch.
    pub id_token_expires: i64,
    /// Refresh token, if the IdP gave one.
    pub refresh_token: Option<String>,
    /// When the tokens were last renewed, in seconds since the epoch.
    pub renewed_at: i64,
}

/// Held while tokens are renewed: other processes wait.
pub type VaultLock = Box<dyn Send>;

/// A future of a vault.
pub type VaultFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, VaultError>> + Send + 'a>>;

/// A credential store: the OS keychain, a file, or memory.
pub trait Vault: Send + Sync {
    /// The sign-in kept, if there is one.
    fn load(&self) -> VaultFuture<'_, Option<Session>>;
    /// Keeps a sign-in in place of the one before, wholly or not at all; `None` forgets it.
    fn store<'a>(&'a self, session: Option<&'a Session>) -> VaultFuture<'a, ()>;
    /// Waits for the sole right to renew, across processes.
    fn lock(&self) -> VaultFuture<'_, VaultLock>;
}

/// A vault that forgets when the process ends.
#[derive(Default)]
pub struct MemoryVault(Mutex<Option<Session>>, std::sync::Arc<tokio::sync::Mutex<()>>);

impl MemoryVault {
    /// A vault with a sign-in made elsewhere.
    pub fn with(session: Session) -> Self {
        Self(Mutex::new(Some(session)), std::sync::Arc::default())
    }
}

impl Vault for MemoryVault {
    fn load(&self) -> VaultFuture<'_, Option<Session>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move { Ok(held) })
    }

    fn store<'a>(&'a self, session: Option<&'a Session>) -> VaultFuture<'a, ()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = session.cloned();
        Box::pin(async { Ok(()) })
    }

    fn lock(&self) -> VaultFuture<'_, VaultLock> {
        let lock = std::sync::Arc::clone(&self.1);
        Box::pin(async move { Ok(Box::new(lock.lock_owned().await) as VaultLock) })
    }
}
