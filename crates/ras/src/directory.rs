//! The RAS's directory: whom it trusts, what it governs; accounts looked up as they come.

use passavant_authority::{
    answer::Failure,
    authority::{Authority, Directory, Look, RegisteredClient, registered},
};
use passavant_outbound::{DocumentError, Reach};
use passavant_proto::{
    identifier::{Issuer, Resource, is_loopback},
    oauth::client::{Client, GovernedResource},
    oauth::client_document::{DocumentUrl, INSTALLATIONS},
    refusal::{ClientDocumentRefusal, Refusal},
    xaa::trust::{Account, ClientHost, SubjectLink, TrustedIssuer},
};
use passavant_store::{Held, Seen, Store, StoreError};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use url::Url;

/// What ids of clients that registered themselves begin with.
pub(super) const SELF_REGISTERED: &str = "dyn-";

/// Most accounts remembered in one generation.
const MOST: usize = 20_000;

/// An account, whether or not it is switched off, and what a decision on it is recorded against: the link, and itself.
pub(crate) struct Linked {
    pub(crate) account: Account,
    pub(crate) seen: [Seen; 2],
}

pub struct RasDirectory {
    /// What cannot be read stands as switched off: it is not there for anybody, and nothing else is the only one.
    pub(crate) governed: Vec<GovernedResource>,
    /// Some trusted issuers cannot be read: no other one is the only one.
    pub(crate) lacks_issuers: bool,
    clients: HashMap<String, Arc<RegisteredClient>>,
    /// In order, so that every node takes the same one.
    trusted: BTreeMap<String, TrustedIssuer>,
    /// What URLs of accepted client metadata documents begin with, and how far their fetch may go.
    documents: Vec<(String, Reach)>,
    /// What URLs of documents begin with that are not taken, whatever else is: hosts that an administrator switched off.
    barred: Vec<String>,
    /// Some of those are listed hosts.
    lists_hosts: bool,
    /// Accounts seen since this generation began, for what is recorded against their rows.
    accounts: Mutex<HashMap<SubjectLink, Arc<Linked>>>,
}

impl Directory for RasDirectory {
    async fn load(store: &Store, issuer: &Issuer) -> Result<Self, StoreError> {
        let Held { records: trusted, unreadable } = store.held::<TrustedIssuer>().await?;
        let lacks_issuers = !unreadable.is_empty();
        // Never ourselves (ID-JAG draft section 9.3), and never one that is switched off.
        let live = |t: &TrustedIssuer| !t.disabled && !issuer.is_spelled(t.issuer.as_str());
        let trusted: BTreeMap<_, _> =
            trusted.into_iter().filter(live).map(|t| (t.issuer.to_string(), t)).collect();
        let mut documents = Vec::new();
        // Issuers first: what they are trusted with holds where their origin is listed as well. Of an issuer it is
        // the installations enrolled there, and nothing else that has a URL below it.
        for issuer in trusted.values().filter(|t| t.client_documents).map(|t| &t.issuer) {
            let reach = Reach::of_trusted_url(issuer.as_str());
            documents.push((issuer.endpoint(&format!("{INSTALLATIONS}/")), reach));
        }
        let mut lists_hosts = false;
        let (off, hosts): (Vec<_>, Vec<_>) =
            store.all::<ClientHost>().await?.into_iter().partition(|host| host.disabled);
        let barred = off.into_iter().map(|host| format!("{}/", host.origin)).collect();
        for host in hosts {
            // The path is a stranger's, so the host must not lead into our network; nor into this machine, but where
            // we are on it ourselves.
            let reach = match Reach::of_trusted_url(&host.origin) {
                Reach::Loopback if Reach::of_trusted_url(issuer.as_str()) == Reach::Loopback => {
                    Reach::Loopback
                }
                Reach::Loopback => {
                    tracing::warn!(
                        origin = host.origin,
                        "not asked for documents: it is on this machine"
                    );
                    continue;
                }
                _ => Reach::Public,
            };
            documents.push((format!("{}/", host.origin), reach));
            lists_hosts = true;
        }
        Ok(Self {
            lists_hosts,
            barred,
            documents,
            governed: governed(store.held().await?),
            lacks_issuers,
            // Those that registered themselves are read as they come: they are many, and begin no new generation.
            clients: registered(
                store
                    .all::<Client>()
                    .await?
                    .into_iter()
                    .filter(|c| c.registered.is_none())
                    .collect(),
            ),
            trusted,
            accounts: Mutex::default(),
        })
    }

    fn client(&self, id: &str) -> Option<&Arc<RegisteredClient>> {
        self.clients.get(id)
    }

    fn takes_public_documents(&self) -> bool {
        self.interactive().next().is_some()
    }

    fn costs_a_fetch(&self, authority: &Authority<Self>, url: &str) -> bool {
        let url = DocumentUrl::parse(url).ok();
        let place = url.and_then(|url| Some((self.fetch(authority, &url)?, url)));
        place.is_some_and(|(reach, url)| !authority.context.client_documents.is_held(&url, reach))
    }

    async fn stranger(
        &self,
        authority: &Authority<Self>,
        id: &str,
    ) -> Result<Option<Arc<RegisteredClient>>, Failure> {
        if !id.starts_with(SELF_REGISTERED) {
            return Ok(None);
        }
        let found = match authority.store.seen::<Client>(id).await {
            Err(StoreError::Document(..)) => None,
            found => found?,
        };
        let found = found.filter(|(client, _)| client.registered.is_some());
        let found = found.and_then(|(client, seen)| RegisteredClient::of_stranger(client, seen));
        Ok(found.map(Arc::new))
    }

    /// A client with a metadata document (MCP Enterprise-Managed Authorization, section 5). Nothing is fetched unless
    /// its host is on the list.
    async fn document_client(
        &self,
        authority: &Authority<Self>,
        url: &str,
        _: Look,
    ) -> Result<Option<Arc<RegisteredClient>>, Failure> {
        let refused = |why| Failure::Refused(Refusal::ClientDocument(why));
        let url = DocumentUrl::parse(url).map_err(|e| refused(e.into()))?;
        let Some(reach) = self.fetch(authority, &url) else {
            return Err(refused(ClientDocumentRefusal::HostNotAllowed));
        };
        let public = self.takes_public_documents();
        match authority.context.client_documents.client(&url, reach, public).await {
            Ok(held) => {
                let (record, keys) = (held.client.clone(), held.keys.clone());
                Ok(Some(Arc::new(RegisteredClient::of_document(record, keys, reach))))
            }
            Err(DocumentError::NotFetched) => Err(refused(ClientDocumentRefusal::NotFetched)),
            Err(DocumentError::Busy) => Err(Refusal::ClientDocumentsBusy.into()),
            Err(DocumentError::Invalid(error)) => Err(refused(error.into())),
        }
    }
}

fn governed(held: Held<GovernedResource>) -> Vec<GovernedResource> {
    let Held { mut records, unreadable } = held;
    let resources = unreadable.iter().filter_map(|(id, _)| Resource::parse(id).ok());
    records.extend(resources.map(GovernedResource::switched_off));
    records
}

impl RasDirectory {
    /// How far the fetch of a document may go; `None` where it may not be fetched at all.
    fn reach_of(&self, url: &DocumentUrl) -> Option<Reach> {
        let found = self.documents.iter().find(|(prefix, _)| url.as_str().starts_with(prefix));
        found.map(|(_, reach)| *reach)
    }

    /// The same where any document may be asked for by somebody who signs in here: from public addresses alone.
    fn fetch(&self, authority: &Authority<Self>, url: &DocumentUrl) -> Option<Reach> {
        if self.barred.iter().any(|prefix| url.as_str().starts_with(prefix)) {
            return None;
        }
        let anybodys = authority.open_documents && self.takes_public_documents();
        // Where we are on this machine ourselves, as in a demo, whoever comes is on it too, and so may the document be.
        let is_here = |url: &str| Url::parse(url).is_ok_and(|url| is_loopback(&url));
        let near = is_here(authority.issuer.as_str()) && is_here(url.as_str());
        let reach = if near { Reach::Loopback } else { Reach::Public };
        self.reach_of(url).or_else(|| anybodys.then_some(reach))
    }

    /// Whether a client is known by a document of a host that nobody has listed: a person may let it in, and that is
    /// all.
    pub(super) fn is_anybodys(&self, id: &str) -> bool {
        !self.clients.contains_key(id)
            && DocumentUrl::parse(id).is_ok_and(|url| self.reach_of(&url).is_none())
    }

    /// The issuers whose people may sign in here.
    pub(crate) fn interactive(&self) -> impl Iterator<Item = &TrustedIssuer> {
        self.trusted.values().filter(|trusted| trusted.open_sign_in().is_some())
    }

    /// Whether clients may be named by metadata documents of hosts that an administrator listed. Installations are known
    /// to those who enrolled them, and to nobody else: programs that read this would send documents of their own.
    pub(crate) fn takes_documents_of_others(&self) -> bool {
        self.lists_hosts
    }

    /// Whether a token's client is still registered, or its document's host still on the list. Asks
    /// nobody: a token does not die because a document cannot be fetched just now.
    pub(crate) async fn may_be_client(
        &self,
        authority: &Authority<Self>,
        id: &str,
    ) -> Result<bool, StoreError> {
        if self.clients.contains_key(id)
            || DocumentUrl::parse(id).is_ok_and(|url| self.fetch(authority, &url).is_some())
        {
            return Ok(true);
        }
        match self.stranger(authority, id).await {
            Ok(found) => Ok(found.is_some()),
            Err(Failure::Broken(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// The trusted issuer with this identifier, byte for byte.
    pub(crate) fn trusted(&self, issuer: &str) -> Option<&TrustedIssuer> {
        self.trusted.get(issuer)
    }

    /// The account that a person is linked to, if any.
    pub(crate) async fn account(
        &self,
        store: &Store,
        link: &SubjectLink,
        look: Look,
    ) -> Result<Option<Arc<Linked>>, StoreError> {
        if look == Look::Remembered {
            let held = self.accounts().get(link).cloned();
            if held.is_some() {
                return Ok(held);
            }
        }
        self.accounts().remove(link);
        let Some((account, seen)) = store.linked_account(link).await? else { return Ok(None) };
        let account = Arc::new(Linked { account, seen });
        let mut accounts = self.accounts();
        if accounts.len() >= MOST {
            accounts.clear();
        }
        accounts.insert(link.clone(), Arc::clone(&account));
        Ok(Some(account))
    }

    fn accounts(&self) -> std::sync::MutexGuard<'_, HashMap<SubjectLink, Arc<Linked>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
