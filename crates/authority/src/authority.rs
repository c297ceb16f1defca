//! What an IdP and a RAS have in common: issuer, store, keys, clock, and a copy of the directory
//! that is trusted only for the generation it was read at.

use crate::{
    admission::{Taken, Visitor},
    answer::Failure,
    sealing::Sealing,
};
use passavant_outbound::{ClientDocuments, Outbound, Reach, RelyingParty, RemoteKeys};
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::{Algorithm, KeySet, SigningKey},
    oauth::client::is_document_url,
    oauth::client::{Client, ClientAuthentication, ClientKeys, ENROLLED_CLIENT},
    others_text::shown,
    time::{Clock, Entropy, Timestamp},
};
use passavant_store::{Generation, Installation, SealedKey, Seen, Store, StoreError};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicI64},
};

/// The dependencies that the binary passes to every role.
#[derive(Clone)]
pub struct Context {
    /// The wall clock.
    pub clock: Clock,
    /// Unpredictable bytes.
    pub entropy: Entropy,
    /// Keys of other parties.
    pub remote_keys: RemoteKeys,
    /// Metadata documents of clients.
    pub client_documents: ClientDocuments,
    /// Keys that those documents refer to.
    pub document_keys: RemoteKeys,
    /// Sign-in of people at other identity providers.
    pub relying_party: RelyingParty,
    /// Secrets of other parties.
    pub sealing: Sealing,
}

impl Context {
    /// A context with empty caches.
    pub fn new(clock: Clock, entropy: Entropy, outbound: &Outbound) -> Self {
        let remote_keys = RemoteKeys::new(outbound.clone(), clock.clone());
        Self {
            relying_party: RelyingParty::new(
                outbound.clone(),
                remote_keys.clone(),
                clock.clone(),
                entropy.clone(),
            ),
            remote_keys,
            client_documents: ClientDocuments::new(outbound.clone(), clock.clone()),
            document_keys: RemoteKeys::new(outbound.clone(), clock.clone()),
            clock,
            entropy,
            sealing: Sealing::none(),
        }
    }

    /// The same, with a key-encryption key.
    #[must_use]
    pub fn sealing(self, sealing: Sealing) -> Self {
        Self { sealing, ..self }
    }
}

/// The signing keys of this authorization server at one moment: one of each algorithm signs, all
/// verify. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    /// The first one signs by default. There is at least one.
    signing: Arc<[Arc<SigningKey>]>,
    verifying: Arc<KeySet>,
    jwks: Arc<Value>,
    /// The ring has to be rebuilt at this time, because a published key begins to sign or a retired
    /// one expires.
    until: Option<Timestamp>,
}

impl KeyRing {
    /// `signing` signs; `others` are public JWKs of keys that only verify: published ahead, or
    /// retired recently.
    pub fn new(signing: SigningKey, others: &[Value]) -> Option<Self> {
        Self::of_several(vec![signing], others)
    }

    /// The first of `signing` signs by default; the others sign for parties that chose their
    /// algorithm.
    pub fn of_several(signing: Vec<SigningKey>, others: &[Value]) -> Option<Self> {
        let algorithm = signing.first()?.algorithm();
        let mut keys: Vec<Value> = signing.iter().map(|key| key.public_jwk().clone()).collect();
        for jwk in others {
            if !keys.contains(jwk) {
                keys.push(jwk.clone());
            }
        }
        let jwks = json!({ "keys": keys });
        let verifying = KeySet::parse_own(jwks.to_string().as_bytes(), algorithm).ok()?;
        let signing = signing.into_iter().map(Arc::new).collect();
        Some(Self { signing, verifying: Arc::new(verifying), jwks: Arc::new(jwks), until: None })
    }

    /// Sets when the ring has to be rebuilt.
    #[must_use]
    pub fn until(mut self, until: Option<Timestamp>) -> Self {
        self.until = until;
        self
    }

    /// The id of the key that signs by default.
    pub fn kid(&self) -> &str {
        self.signing[0].kid()
    }

    /// The algorithms that can be chosen, the default first.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        self.signing.iter().map(|key| key.algorithm()).collect()
    }

    /// The public keys, as published in the JWKS.
    pub fn published(&self) -> &[Value] {
        self.jwks["keys"].as_array().map_or(&[], Vec::as_slice)
    }

    /// When the ring has to be rebuilt.
    pub fn changes_at(&self) -> Option<Timestamp> {
        self.until
    }

    pub fn signing(&self) -> Arc<SigningKey> {
        Arc::clone(&self.signing[0])
    }

    /// The key that signs with the algorithm chosen for a party. If there is none, the default key
    /// signs, and the party, which accepts one algorithm only, rejects the result.
    pub fn signing_as(&self, chosen: Option<Algorithm>) -> Arc<SigningKey> {
        let key = self.signing.iter().find(|key| Some(key.algorithm()) == chosen);
        Arc::clone(key.unwrap_or(&self.signing[0]))
    }

    pub fn verifying(&self) -> Arc<KeySet> {
        Arc::clone(&self.verifying)
    }

    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// Whether both rings contain the same keys.
    pub fn is_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.jwks, &other.jwks) || self.jwks == other.jwks
    }
}

/// Builds the ring from the stored keys, as of a time.
type Opens = dyn Fn(&[SealedKey], Timestamp) -> Result<KeyRing, String> + Send + Sync;

/// The source of the ring. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Opens>);

impl Keys {
    /// Builds the ring from the stored keys, which only the binary can unseal. They are read again
    /// with the directory, so that a key that is added or removed takes effect on every node at its
    /// next request.
    pub fn on_record(
        open: impl Fn(&[SealedKey], Timestamp) -> Result<KeyRing, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }
}

impl From<KeyRing> for Keys {
    /// Always uses this ring.
    fn from(ring: KeyRing) -> Self {
        Self(Arc::new(move |_, _| Ok(ring.clone())))
    }
}

/// A client with its inline keys parsed.
pub struct RegisteredClient {
    pub record: Client,
    pub inline_keys: Option<Arc<KeySet>>,
    /// Limits the fetch of its keys, if no administrator wrote the URL.
    pub keys_reach: Option<Reach>,
    /// Set if the client is an enrolled installation.
    pub installation: Option<EnrolledAs>,
    /// The version of its own row, if the client is not part of the policy: what is minted for it
    /// is recorded against this version.
    pub seen: Option<Seen>,
}

/// An installation as a client.
pub struct EnrolledAs {
    pub id: String,
    /// The only person it acts for.
    pub user_id: String,
    /// When its last use was stored, in seconds since the epoch.
    pub used_at: AtomicI64,
}

impl RegisteredClient {
    /// A client that is described by a metadata document at `reach`.
    pub fn of_document(record: Client, inline_keys: Option<Arc<KeySet>>, reach: Reach) -> Self {
        Self { record, inline_keys, keys_reach: Some(reach), installation: None, seen: None }
    }

    /// An installation, as the client whose id is `url`.
    pub fn of_installation(url: &str, held: &Installation, seen: Seen) -> Self {
        let jwks = json!({"keys": [held.public_jwk]});
        let redirect_uris = passavant_proto::oauth::redirect_uri::LOOPBACK_REDIRECTS;
        let record = Client {
            id: url.to_owned(),
            name: format!("Passavant on {}", held.device),
            authentication: ClientAuthentication::PrivateKeyJwt {
                keys: ClientKeys::Inline(jwks),
                algorithm: held.algorithm,
            },
            redirect_uris: redirect_uris.map(str::to_owned).to_vec(),
            device_grant: true,
            ..Client::default()
        };
        let installation = EnrolledAs {
            id: held.id.clone(),
            user_id: held.user_id.clone(),
            used_at: AtomicI64::new(held.used_at.0),
        };
        Self { installation: Some(installation), seen: Some(seen), ..Self::new(record) }
    }

    /// A client that registered itself, if it is enabled.
    pub fn of_stranger(record: Client, seen: Seen) -> Option<Self> {
        (!record.disabled).then(|| Self { seen: Some(seen), ..Self::new(record) })
    }

    /// Its client id in connections. All installations share the id of the software that enrolled
    /// them.
    pub fn idp_client_id(&self) -> &str {
        if self.installation.is_some() { ENROLLED_CLIENT } else { &self.record.id }
    }

    /// Whether it may act for this person: an installation acts only for its owner.
    pub fn acts_for(&self, user_id: &str) -> bool {
        self.installation.as_ref().is_none_or(|held| held.user_id == user_id)
    }

    /// Whether nobody here has vouched for it. An installation that a person enrolled here is no
    /// stranger, although it has a document.
    pub fn is_stranger(&self) -> bool {
        self.installation.is_none() && self.record.is_stranger()
    }

    /// Its client id, if that is the URL of its metadata document.
    pub fn document(&self) -> Option<&str> {
        self.installation.as_ref().map(|_| self.record.id.as_str())
    }

    fn new(record: Client) -> Self {
        let inline_keys = match &record.authentication {
            ClientAuthentication::PrivateKeyJwt { keys: ClientKeys::Inline(jwks), algorithm } => {
                // The keys were checked at registration; a set that cannot be parsed authenticates
                // nobody.
                KeySet::parse(jwks.to_string().as_bytes(), *algorithm).ok().map(Arc::new)
            }
            _ => None,
        };
        Self { record, inline_keys, keys_reach: None, installation: None, seen: None }
    }
}

/// The enabled clients of a directory, by id.
pub fn registered(clients: Vec<Client>) -> HashMap<String, Arc<RegisteredClient>> {
    let live = clients.into_iter().filter(|client| !client.disabled);
    live.map(|c| (c.id.clone(), Arc::new(RegisteredClient::new(c)))).collect()
}

/// The records that decisions of one role are based on.
pub trait Directory: Sized + Send + Sync + 'static {
    /// Reads all of them.
    fn load(
        store: &Store,
        issuer: &Issuer,
    ) -> impl Future<Output = Result<Self, StoreError>> + Send;
    /// An enabled registered client.
    fn client(&self, id: &str) -> Option<&Arc<RegisteredClient>>;
    /// Whether a client may be described by a document and hold no key: true where people consent
    /// to it themselves.
    fn takes_public_documents(&self) -> bool {
        false
    }
    /// A client that registered itself, read from the store now.
    fn stranger(
        &self,
        _authority: &Authority<Self>,
        _id: &str,
    ) -> impl Future<Output = Result<Option<Arc<RegisteredClient>>, Failure>> + Send {
        std::future::ready(Ok(None))
    }
    /// Whether a client whose id is a URL can only be looked up by fetching from its host now.
    fn costs_a_fetch(&self, _authority: &Authority<Self>, _url: &str) -> bool {
        false
    }
    /// A client whose id is a URL and that is not registered: an installation, or a client with a
    /// metadata document.
    fn document_client(
        &self,
        authority: &Authority<Self>,
        url: &str,
        look: Look,
    ) -> impl Future<Output = Result<Option<Arc<RegisteredClient>>, Failure>> + Send;
}

/// How people and their records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// From the cache: only for what is recorded against all the versions it rests on.
    Remembered,
    /// From the store, as they are now.
    Now,
}

/// The policy at one generation.
pub struct Snapshot<D> {
    pub generation: Generation,
    pub directory: D,
    pub keys: KeyRing,
}

/// A notice that waits so long is told of, in seconds: one attempt failed, or more.
const WAITS: i64 = 10;

/// Whether an authorization server could make decisions now.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Why it could not; `None` if it could.
    pub broken: Option<&'static str>,
    /// Stored records that cannot be read, and why. All other records are served.
    pub unreadable: Vec<String>,
    /// What others have not been told yet.
    pub waiting: Option<String>,
}

/// One authorization server.
pub struct Authority<D> {
    pub issuer: Issuer,
    pub store: Store,
    pub context: Context,
    /// Whether any https metadata document is accepted as a client.
    pub open_documents: bool,
    keys: Keys,
    snapshot: RwLock<Arc<Snapshot<D>>>,
}

impl<D: Directory> Authority<D> {
    pub async fn open(
        role: &'static str,
        issuer: Issuer,
        store: Store,
        keys: Keys,
        context: Context,
    ) -> Result<Self, StoreError> {
        store.claim(role, issuer.as_str()).await?;
        let snapshot = read(&store, &issuer, &keys, context.clock.now()).await?;
        let (open_documents, snapshot) = (false, RwLock::new(snapshot));
        Ok(Self { issuer, store, context, open_documents, keys, snapshot })
    }

    /// Checks whether a decision could be made and recorded now.
    pub async fn readiness(&self) -> Readiness {
        let broken = if !self.store.is_ready().await {
            Some("the database does not answer")
        } else if let Err(error) = self.fresh().await {
            tracing::error!(%error, "the directory cannot be read");
            Some("the directory cannot be read")
        } else {
            None
        };
        let unreadable = self.store.unreadable();
        let told = |(kind, id, why): (&str, String, String)| {
            format!("{}: {kind} `{}`: {why}", self.issuer, shown(&id, 200))
        };
        let waiting = self.waiting().await;
        Readiness { broken, unreadable: unreadable.into_iter().map(told).collect(), waiting }
    }

    /// Whom nobody could tell yet that access has ended.
    async fn waiting(&self) -> Option<String> {
        let (count, since) = self.store.waiting_revocations().await.ok()?;
        let signals = self.store.waiting_signals().await.ok()?;
        let told =
            [("notices of ended access", count, since), ("signals", signals.count, signals.since)]
                .into_iter()
                .filter_map(|(what, count, since)| {
                    let seconds = self.now().since(since?);
                    (seconds >= WAITS).then(|| {
                        format!("{what} that wait: {count}, the first one for {seconds} s")
                    })
                });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| format!("{}: {}", self.issuer, told.join("; ")))
    }

    /// Sets whether any https metadata document is accepted as a client.
    #[must_use]
    pub fn with_open_documents(self, open_documents: bool) -> Self {
        Self { open_documents, ..self }
    }

    /// The signing key, as of the directory that the request was decided on.
    pub fn signing(&self) -> Arc<SigningKey> {
        self.snapshot().keys.signing()
    }

    /// The signing key for a party that an algorithm was chosen for.
    pub fn signing_as(&self, chosen: Option<Algorithm>) -> Arc<SigningKey> {
        self.snapshot().keys.signing_as(chosen)
    }

    /// The verification keys as of now: signatures of keys that were removed meanwhile are
    /// rejected.
    pub async fn verifying(&self) -> Result<Arc<KeySet>, StoreError> {
        Ok(self.fresh().await?.keys.verifying())
    }

    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// An enabled client of `directory` by id. A registered one takes precedence over a document at
    /// a URL of the same text (Client ID Metadata Document draft section 6.8).
    pub async fn client(
        &self,
        directory: &D,
        id: &str,
        look: Look,
    ) -> Result<Option<Arc<RegisteredClient>>, Failure> {
        match directory.client(id) {
            Some(client) => Ok(Some(Arc::clone(client))),
            None if is_document_url(id) => directory.document_client(self, id, look).await,
            None => directory.stranger(self, id).await,
        }
    }

    /// Like [`Self::client`], for a sender that proved nothing: if the lookup costs a fetch, a cell
    /// is taken first and returned with the client.
    pub async fn visiting_client<'a>(
        &self,
        directory: &D,
        id: &str,
        visitor: Visitor<'a>,
        look: Look,
    ) -> Result<(Option<Arc<RegisteredClient>>, Option<Taken<'a>>), Failure> {
        let costs = directory.client(id).is_none() && directory.costs_a_fetch(self, id);
        let taken = if costs { Some(visitor.admission.unproven(visitor.address)?) } else { None };
        Ok((self.client(directory, id, look).await?, taken))
    }

    /// The directory as last read. Use it only for decisions that are recorded against its
    /// generation.
    pub fn snapshot(&self) -> Arc<Snapshot<D>> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The current directory: asks the store for the generation, and reads the directory again if
    /// that changed.
    pub async fn fresh(&self) -> Result<Arc<Snapshot<D>>, StoreError> {
        let held = self.snapshot();
        let now = self.now();
        let timely = held.keys.until.is_none_or(|until| now < until);
        if self.store.generation().await? == held.generation && timely {
            return Ok(held);
        }
        let read = read(&self.store, &self.issuer, &self.keys, now).await?;
        // Replace it whatever the numbers say: after a restore, the lower generation is the newer
        // one. If this snapshot is outdated after all, the next comparison reads it again.
        let mut slot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Arc::clone(&read);
        Ok(read)
    }
}

async fn read<D: Directory>(
    store: &Store,
    issuer: &Issuer,
    keys: &Keys,
    now: Timestamp,
) -> Result<Arc<Snapshot<D>>, StoreError> {
    // Read the generation first: if a change happens in between, the snapshot counts as stale.
    let generation = store.generation().await?;
    // Errors of single rows belong to the earlier generation: another node may have repaired or
    // removed the rows.
    store.forget_unreadable();
    let directory = D::load(store, issuer).await?;
    let keys = (keys.0)(&store.signing_keys().await?, now);
    let keys = keys.map_err(|error| StoreError::Document("signing key", error))?;
    Ok(Arc::new(Snapshot { generation, directory, keys }))
}
