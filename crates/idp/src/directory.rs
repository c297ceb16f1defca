//! The IdP's directory: policy and clients are in memory, people are looked up when needed.

use passavant_authority::{
    answer::Failure,
    authority::{Authority, Directory, Look, RegisteredClient, registered},
};
use passavant_proto::{
    identifier::Issuer,
    oauth::client::{Client, ClientAuthentication, ENROLLED_CLIENT, is_client_id},
    oauth::client_document::INSTALLATIONS,
    oidc::upstream::UpstreamProvider,
    policy::Policy,
    ssf::Transmitter,
};
use passavant_store::{Seen, Store, StoreError, User};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// Maximum number of people that are cached in one generation.
const MOST: usize = 20_000;

/// A person who is enabled, and the version that a decision about them is recorded against.
pub struct Living {
    pub(crate) user: User,
    pub(crate) seen: Seen,
}

pub struct IdpDirectory {
    pub(crate) policy: Policy,
    /// The identity providers at which people sign in, by name.
    upstreams: Vec<UpstreamProvider>,
    /// Those whose records cannot be read here: a later version may have written them.
    unreadable_upstreams: BTreeSet<String>,
    clients: HashMap<String, Arc<RegisteredClient>>,
    /// Others whose signals count here, unless they are switched off.
    transmitters: Vec<Transmitter>,
    /// People that were read in this generation, for decisions that are recorded against their
    /// rows.
    people: Mutex<HashMap<String, Arc<Living>>>,
    /// Installations that were read in this generation.
    installations: Mutex<HashMap<String, Arc<RegisteredClient>>>,
}

impl Directory for IdpDirectory {
    async fn load(store: &Store, issuer: &Issuer) -> Result<Self, StoreError> {
        let policy = store.policy(issuer).await?;
        let mut clients = store.all::<Client>().await?;
        clients.push(Client::enrolment());
        let upstreams = store.readings::<UpstreamProvider>().await?;
        Ok(Self {
            policy,
            upstreams: upstreams.records,
            unreadable_upstreams: upstreams.unreadable.into_iter().map(|(id, _)| id).collect(),
            clients: registered(clients),
            transmitters: passavant_signals::transmitters(store).await?,
            people: Mutex::default(),
            installations: Mutex::default(),
        })
    }

    fn client(&self, id: &str) -> Option<&Arc<RegisteredClient>> {
        self.clients.get(id)
    }

    /// One of this IdP's own installations, if its person is enabled.
    async fn document_client(
        &self,
        authority: &Authority<Self>,
        url: &str,
        look: Look,
    ) -> Result<Option<Arc<RegisteredClient>>, Failure> {
        if look == Look::Remembered {
            let held = self.installations().get(url).cloned();
            if held.is_some() {
                return Ok(held);
            }
        }
        let prefix = authority.issuer.endpoint(INSTALLATIONS);
        let id = url.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('/'));
        let Some(id) = id.filter(|id| is_client_id(id)) else { return Ok(None) };
        let Some((found, seen)) = authority.store.installation(id).await? else {
            self.installations().remove(url);
            return Ok(None);
        };
        if self.person(&authority.store, &found.user_id, look).await?.is_none() {
            return Ok(None);
        }
        let client = Arc::new(RegisteredClient::of_installation(url, &found, seen));
        let mut installations = self.installations();
        if installations.len() >= MOST {
            installations.clear();
        }
        installations.insert(url.to_owned(), Arc::clone(&client));
        Ok(Some(client))
    }
}

impl IdpDirectory {
    /// One whose signals count here, and the upstream that it speaks of.
    pub(crate) fn transmitter(&self, name: &str) -> Option<(&Transmitter, &UpstreamProvider)> {
        let transmitter = self.transmitters.iter().find(|held| held.name == name)?;
        Some((transmitter, self.upstream(&transmitter.speaks_for)?))
    }

    fn installations(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<RegisteredClient>>> {
        self.installations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity providers at which people may sign in.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &UpstreamProvider> {
        self.upstreams.iter().filter(|upstream| !upstream.disabled)
    }

    /// Those that are switched off too.
    pub(crate) fn all_upstreams(&self) -> impl Iterator<Item = &UpstreamProvider> {
        self.upstreams.iter()
    }

    /// Whether the record of some cannot be read.
    pub(crate) fn has_unreadable_upstreams(&self) -> bool {
        !self.unreadable_upstreams.is_empty()
    }

    /// Whether there are any, readable or not.
    pub(crate) fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty() || !self.unreadable_upstreams.is_empty()
    }

    /// Whether the record of one is there and cannot be read.
    pub(crate) fn is_unreadable_upstream(&self, name: &str) -> bool {
        self.unreadable_upstreams.contains(name)
    }

    /// One of them.
    pub(crate) fn upstream(&self, name: &str) -> Option<&UpstreamProvider> {
        self.upstreams().find(|upstream| upstream.name == name)
    }

    /// The one for an e-mail address. A domain of two selects neither.
    pub(crate) fn upstream_for(&self, email: &str) -> Option<&UpstreamProvider> {
        let mut taking = self.upstreams().filter(|upstream| upstream.takes(email));
        taking.next().filter(|_| taking.next().is_none())
    }

    /// Registered clients that stand for a known MCP client (`passavant install`).
    pub(crate) fn native_clients(&self) -> impl Iterator<Item = (&str, &str)> {
        let software = |c: &'_ Arc<RegisteredClient>| c.record.software.is_some();
        self.clients
            .values()
            .filter(move |c| software(c))
            .map(|c| (c.record.id.as_str(), c.record.software.as_deref().unwrap_or_default()))
    }

    /// A person, if they are enabled.
    pub(crate) async fn person(
        &self,
        store: &Store,
        id: &str,
        look: Look,
    ) -> Result<Option<Arc<Living>>, StoreError> {
        if look == Look::Remembered {
            let held = self.people().get(id).cloned();
            if held.is_some() {
                return Ok(held);
            }
        }
        let found = match store.seen::<User>(id).await {
            Err(StoreError::Document(..)) => None,
            found => found?,
        };
        let Some((user, seen)) = found.filter(|(user, _)| !user.is_off()) else {
            self.people().remove(id);
            return Ok(None);
        };
        let living = Arc::new(Living { user, seen });
        let mut people = self.people();
        if people.len() >= MOST {
            people.clear();
        }
        people.insert(id.to_owned(), Arc::clone(&living));
        Ok(Some(living))
    }

    fn people(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Living>>> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_public_clients(&self) -> bool {
        let public = |c: &Arc<RegisteredClient>| {
            c.record.authentication == ClientAuthentication::Public
                && c.record.id != ENROLLED_CLIENT
        };
        self.clients.values().any(public)
    }
}
