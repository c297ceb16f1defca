//! The RAS's directory: trusted issuers and governed MCP servers are in memory, accounts are looked
//! up when needed.

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
    ssf::Transmitter,
    xaa::trust::{Account, ClientHost, SubjectLink, TrustedIssuer},
};
use passavant_store::{Readings, Seen, Store, StoreError};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use url::Url;

/// The prefix of ids of clients that registered themselves.
pub(super) const SELF_REGISTERED: &str = "dyn-";

/// Maximum number of accounts that are cached in one generation.
const MOST: usize = 20_000;

/// An account, enabled or not, and the versions that a decision about it is recorded against: those
/// of the link and of the account.
pub(crate) struct Linked {
    pub(crate) account: Account,
    pub(crate) seen: [Seen; 2],
}

pub struct RasDirectory {
    /// An unreadable record counts as disabled, and still counts as one of several where the only
    /// one is looked for.
    pub(crate) governed: Vec<GovernedResource>,
    /// Some trusted issuers cannot be read, so that no other one can be taken for the only one.
    pub(crate) lacks_issuers: bool,
    clients: HashMap<String, Arc<RegisteredClient>>,
    /// Sorted, so that every node chooses the same one.
    trusted: BTreeMap<String, TrustedIssuer>,
    /// Prefixes of the URLs of accepted client metadata documents, and how far their fetch may
    /// reach.
    documents: Vec<(String, Reach)>,
    /// Prefixes of documents' URLs that are never accepted: hosts that an administrator disabled.
    barred: Vec<String>,
    /// Whether some of the accepted prefixes are hosts that an administrator listed.
    lists_hosts: bool,
    /// Others whose signals count here, unless they are switched off.
    transmitters: Vec<Transmitter>,
    /// Accounts that were read in this generation, for decisions that are recorded against their
    /// rows.
    accounts: Mutex<HashMap<SubjectLink, Arc<Linked>>>,
}

impl Directory for RasDirectory {
    async fn load(store: &Store, issuer: &Issuer) -> Result<Self, StoreError> {
        let Readings { records: trusted, unreadable } = store.readings::<TrustedIssuer>().await?;
        let lacks_issuers = !unreadable.is_empty();
        // Never ourselves (ID-JAG draft section 9.3), and never a disabled one.
        let live = |t: &TrustedIssuer| !t.disabled && !issuer.is_spelled(t.issuer.as_str());
        let trusted: BTreeMap<_, _> =
            trusted.into_iter().filter(live).map(|t| (t.issuer.to_string(), t)).collect();
        let mut documents = Vec::new();
        // Issuers come first, so that an issuer's terms apply even if its origin is listed, too.
        // For an issuer only the installations that were enrolled there are accepted, and no other
        // document below its URL.
        for issuer in trusted.values().filter(|t| t.client_documents).map(|t| &t.issuer) {
            let reach = Reach::of_trusted_url(issuer.as_str());
            documents.push((issuer.endpoint(&format!("{INSTALLATIONS}/")), reach));
        }
        let mut lists_hosts = false;
        let (off, hosts): (Vec<_>, Vec<_>) =
            store.all::<ClientHost>().await?.into_iter().partition(|host| host.disabled);
        let barred = off.into_iter().map(|host| format!("{}/", host.origin)).collect();
        for host in hosts {
            // A stranger chooses the path, so the host must not lead into our network; nor to this
            // machine, unless we run on it ourselves.
            let reach = match Reach::of_trusted_url(&host.origin) {
                Reach::Loopback if Reach::of_trusted_url(issuer.as_str()) == Reach::Loopback => {
                    Reach::Loopback
                }
                Reach::Loopback => {
                    tracing::warn!(
                        origin = host.origin,
                        "no client metadata documents are fetched from this origin: it is on this \
                         machine"
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
            governed: governed(store.readings().await?),
            lacks_issuers,
            // Clients that registered themselves are read when needed: they are many, and do not
            // change the generation.
            clients: registered(
                store
                    .all::<Client>()
                    .await?
                    .into_iter()
                    .filter(|c| c.registered.is_none())
                    .collect(),
            ),
            trusted,
            transmitters: passavant_signals::transmitters(store).await?,
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

    /// A client with a metadata document (MCP Enterprise-Managed Authorization, section 5). Nothing
    /// is fetched unless its host is listed.
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

fn governed(readings: Readings<GovernedResource>) -> Vec<GovernedResource> {
    let Readings { mut records, unreadable } = readings;
    let resources = unreadable.iter().filter_map(|(id, _)| Resource::parse(id).ok());
    records.extend(resources.map(GovernedResource::switched_off));
    records
}

impl RasDirectory {
    /// One whose signals count here, and the issuer that it speaks for.
    pub(crate) fn transmitter(&self, name: &str) -> Option<(&Transmitter, &TrustedIssuer)> {
        let transmitter = self.transmitters.iter().find(|held| held.name == name)?;
        Some((transmitter, self.trusted.get(&transmitter.speaks_for)?))
    }

    /// How far the fetch of a document may reach; `None` if it must not be fetched at all.
    fn reach_of(&self, url: &DocumentUrl) -> Option<Reach> {
        let found = self.documents.iter().find(|(prefix, _)| url.as_str().starts_with(prefix));
        found.map(|(_, reach)| *reach)
    }

    /// Like [`Self::reach_of`], if people may sign in with any client that has a document: from
    /// public addresses only.
    fn fetch(&self, authority: &Authority<Self>, url: &DocumentUrl) -> Option<Reach> {
        if self.barred.iter().any(|prefix| url.as_str().starts_with(prefix)) {
            return None;
        }
        let takes_any = authority.open_documents && self.takes_public_documents();
        // If this server runs on a loopback address, as in a demo, every user is on this machine,
        // and documents may be, too.
        let is_here = |url: &str| Url::parse(url).is_ok_and(|url| is_loopback(&url));
        let near = is_here(authority.issuer.as_str()) && is_here(url.as_str());
        let reach = if near { Reach::Loopback } else { Reach::Public };
        self.reach_of(url).or_else(|| takes_any.then_some(reach))
    }

    /// Whether a client has a document on a host that nobody listed: such a client may act only
    /// with a person's consent.
    pub(super) fn is_unlisted_document(&self, id: &str) -> bool {
        !self.clients.contains_key(id)
            && DocumentUrl::parse(id).is_ok_and(|url| self.reach_of(&url).is_none())
    }

    /// The issuers whose people may sign in here in a browser.
    pub(crate) fn interactive(&self) -> impl Iterator<Item = &TrustedIssuer> {
        self.trusted.values().filter(|trusted| trusted.open_sign_in().is_some())
    }

    /// Whether clients with metadata documents on hosts that an administrator listed are accepted.
    /// Installations do not count: announcing support because of them would make other programs
    /// send documents of their own.
    pub(crate) fn takes_documents_of_others(&self) -> bool {
        self.lists_hosts
    }

    /// Whether a token's client is still registered, or its document's host still listed. Nothing
    /// is fetched: a token must not become invalid because a document cannot be fetched at the
    /// moment.
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
