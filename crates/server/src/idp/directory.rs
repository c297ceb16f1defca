//! The IdP's directory: policy and clients held in memory, people looked up as they come.

use crate::authority::{Directory, RegisteredClient, registered};
use carnet_proto::{
    client::{Client, ClientAuthentication},
    identifier::Issuer,
    policy::{Connection, Policy, RegisteredResource, ResourceAuthorizationServer},
};
use carnet_store::{Store, StoreError, User};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most people remembered in one generation.
const MOST: usize = 20_000;

pub(crate) struct IdpDirectory {
    pub(crate) policy: Policy,
    clients: HashMap<String, Arc<RegisteredClient>>,
    /// People seen since this generation began. They die with it.
    people: Mutex<HashMap<String, Arc<User>>>,
}

impl Directory for IdpDirectory {
    async fn load(store: &Store, issuer: &Issuer) -> Result<Self, StoreError> {
        let servers = store.all::<ResourceAuthorizationServer>().await?;
        let resources = store.all::<RegisteredResource>().await?;
        let connections = store.all::<Connection>().await?;
        Ok(Self {
            policy: Policy::new(issuer, servers, resources, connections),
            clients: registered(store.all::<Client>().await?),
            people: Mutex::default(),
        })
    }

    fn client(&self, id: &str) -> Option<&Arc<RegisteredClient>> {
        self.clients.get(id)
    }
}

impl IdpDirectory {
    /// A person who is not switched off.
    pub(crate) async fn person(
        &self,
        store: &Store,
        id: &str,
    ) -> Result<Option<Arc<User>>, StoreError> {
        let held = self.people().get(id).cloned();
        if held.is_some() {
            return Ok(held);
        }
        let Some(user) = store.by_id::<User>(id).await?.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        let user = Arc::new(user);
        let mut people = self.people();
        if people.len() >= MOST {
            people.clear();
        }
        people.insert(id.to_owned(), Arc::clone(&user));
        Ok(Some(user))
    }

    fn people(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<User>>> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_public_clients(&self) -> bool {
        let public =
            |c: &Arc<RegisteredClient>| c.record.authentication == ClientAuthentication::Public;
        self.clients.values().any(public)
    }
}
