//! A resource authorization server: what it is set to, and what it holds.

use crate::directory::RasDirectory;
use passavant_authority::{
    admission::{Admission, Rates},
    authority::{Authority, Context, Keys},
};
use passavant_proto::identifier::Issuer;
use passavant_store::{Store, StoreError};
use std::sync::Arc;

/// What an administrator sets for a RAS.
#[derive(Clone, Debug)]
pub struct RasSettings {
    /// How much is let in.
    pub rates: Rates,
    /// Whether clients may register themselves (RFC 7591).
    pub registration: bool,
    /// Whether any https metadata document names a client that a person may let in, whoever its host is.
    pub client_documents: bool,
    /// Refresh tokens of the interactive path end after this long without use, in seconds.
    pub refresh_idle: i64,
    /// Refresh tokens of one sign-in end after this long, in seconds: whoever has left the company since is
    /// not noticed before.
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
        Ok(Self(Arc::new(RasState { authority, settings, admission })))
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.0.authority.issuer
    }
}
