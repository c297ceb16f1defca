//! The RAS's directory: whom it trusts, what it governs; accounts looked up as they come.

use crate::authority::{Directory, RegisteredClient, registered};
use carnet_proto::{
    client::{Client, GovernedResource},
    identifier::Issuer,
    trust::{Account, SubjectLink, TrustedIssuer},
};
use carnet_store::{Store, StoreError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most accounts remembered in one generation.
const MOST: usize = 20_000;

pub(crate) struct RasDirectory {
    pub(crate) governed: Vec<GovernedResource>,
    clients: HashMap<String, Arc<RegisteredClient>>,
    trusted: HashMap<String, TrustedIssuer>,
    accounts: Mutex<HashMap<SubjectLink, Arc<Account>>>,
}

impl Directory for RasDirectory {
    async fn load(store: &Store, issuer: &Issuer) -> Result<Self, StoreError> {
        let trusted = store.all::<TrustedIssuer>().await?;
        // Never ourselves (JAG 9.3), and never one that is switched off.
        let live = |t: &TrustedIssuer| !t.disabled && !issuer.is_spelled(t.issuer.as_str());
        Ok(Self {
            governed: store.all::<GovernedResource>().await?,
            clients: registered(store.all::<Client>().await?),
            trusted: trusted.into_iter().filter(live).map(|t| (t.issuer.to_string(), t)).collect(),
            accounts: Mutex::default(),
        })
    }

    fn client(&self, id: &str) -> Option<&Arc<RegisteredClient>> {
        self.clients.get(id)
    }
}

impl RasDirectory {
    /// The trusted issuer with this identifier, byte for byte.
    pub(crate) fn trusted(&self, issuer: &str) -> Option<&TrustedIssuer> {
        self.trusted.get(issuer)
    }

    /// The account that a person is linked to, if any, whether or not it is switched off.
    pub(crate) async fn account(
        &self,
        store: &Store,
        link: &SubjectLink,
    ) -> Result<Option<Arc<Account>>, StoreError> {
        let held = self.accounts().get(link).cloned();
        if held.is_some() {
            return Ok(held);
        }
        let Some(account) = store.linked_account(link).await? else { return Ok(None) };
        let account = Arc::new(account);
        let mut accounts = self.accounts();
        if accounts.len() >= MOST {
            accounts.clear();
        }
        accounts.insert(link.clone(), Arc::clone(&account));
        Ok(Some(account))
    }

    fn accounts(&self) -> std::sync::MutexGuard<'_, HashMap<SubjectLink, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
