//! A resource authorization server: its settings and its state.

use crate::{directory::RasDirectory, ended_tokens::Feed};
use passavant_authority::{
    admission::{Admission, Rates},
    authority::{Authority, Context, Keys},
};
use passavant_proto::identifier::Issuer;
use passavant_store::{Store, StoreError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The settings of a RAS.
#[derive(Clone, Debug)]
pub struct RasSettings {
    /// Rate limits.
    pub rates: Rates,
    /// Whether clients may register themselves (RFC 7591).
    pub registration: bool,
    /// Whether any https metadata document is accepted as a client that people may consent to,
    /// whatever its host.
    pub client_documents: bool,
    /// A refresh token of the interactive path expires after this time without use, in seconds.
    pub refresh_idle: i64,
    /// All refresh tokens of one sign-in expire after this time, in seconds. Until then it is not
    /// noticed that a person has left the company.
    pub refresh_absolute: i64,
}

impl Default for RasSettings {
    fn default() -> Self {
        Self {
            rates: Rates::default(),
            registration: false,
            client_documents: false,
            refresh_idle: 8 * 3600,
            refresh_absolute: 24 * 3600,
        }
    }
}

/// A resource authorization server. Cheap to clone.
#[derive(Clone)]
pub struct Ras(pub(crate) Arc<RasState>);

pub(crate) struct RasState {
    pub(crate) authority: Authority<RasDirectory>,
    pub(crate) settings: RasSettings,
    pub(crate) admission: Admission,
    /// One for each trusted issuer that says that access has ended.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    pub(crate) feed: Feed,
}

impl Ras {
    /// Opens a RAS on its store.
    pub async fn open(
        issuer: Issuer,
        store: Store,
        keys: impl Into<Keys>,
        context: Context,
        settings: RasSettings,
    ) -> Result<Self, StoreError> {
        let authority = Authority::open("ras", issuer, store, keys.into(), context).await?;
        let authority = authority.with_open_documents(settings.client_documents);
        let admission = Admission::new(settings.rates);
        let (turns, feed) = (Mutex::default(), Feed::default());
        Ok(Self(Arc::new(RasState { authority, settings, admission, turns, feed })))
    }

    /// The turn of a trusted issuer to end access: one request after the other.
    pub(crate) async fn turn_of(&self, issuer: &str) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(1));
            Arc::clone(turns.entry(issuer.to_owned()).or_insert_with(new))
        };
        turn.acquire_owned().await.ok()
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.0.authority.issuer
    }
}
