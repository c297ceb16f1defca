//! What an IdP and a RAS have in common: issuer, store, keys, clock, and a copy of the directory
//! that is never trusted longer than the generation it was read at.

use crate::answer::Failure;
use carnet_client::{ClientDocuments, Outbound, Reach, RelyingParty, RemoteKeys};
use carnet_proto::{
    client::{Client, ClientAuthentication, ClientKeys, ENROLLED_CLIENT},
    client_document::is_document_url,
    identifier::Issuer,
    jwk::{KeySet, SigningKey},
    time::{Clock, Entropy, Timestamp},
};
use carnet_store::{Generation, Installation, Store, StoreError};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicI64},
};

/// What the binary hands to every role.
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
    /// Keys that those documents name.
    pub document_keys: RemoteKeys,
    /// Sign-in of people at trusted issuers.
    pub relying_party: RelyingParty,
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
        }
    }
}

/// Our keys: one signs, all verify until they are taken out.
pub struct KeyRing {
    signing: SigningKey,
    verifying: KeySet,
    jwks: Value,
}

impl KeyRing {
    /// `signing` signs; `retired` are public JWKs of keys that still verify.
    pub fn new(signing: SigningKey, retired: &[Value]) -> Option<Self> {
        let mut keys = vec![signing.public_jwk().clone()];
        keys.extend(retired.iter().filter(|jwk| *jwk != signing.public_jwk()).cloned());
        let jwks = json!({ "keys": keys });
        let verifying = KeySet::parse(jwks.to_string().as_bytes(), signing.algorithm()).ok()?;
        Some(Self { signing, verifying, jwks })
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.signing
    }

    pub(crate) fn verifying(&self) -> &KeySet {
        &self.verifying
    }

    pub(crate) fn jwks(&self) -> &Value {
        &self.jwks
    }
}

/// A client with its inline keys parsed.
pub(crate) struct RegisteredClient {
    pub(crate) record: Client,
    pub(crate) inline_keys: Option<Arc<KeySet>>,
    /// How far the fetch of its keys may go, where that is not the administrator's to say.
    pub(crate) keys_reach: Option<Reach>,
    /// What it is where it is an enrolled installation.
    pub(crate) installation: Option<EnrolledAs>,
}

/// An installation as a client.
pub(crate) struct EnrolledAs {
    pub(crate) id: String,
    /// The one person it acts for.
    pub(crate) user_id: String,
    /// When its use was last written down, in seconds since the epoch.
    pub(crate) used_at: AtomicI64,
}

impl RegisteredClient {
    /// A client that is named by a metadata document at `reach`.
    pub(crate) fn of_document(
        record: Client,
        inline_keys: Option<Arc<KeySet>>,
        reach: Reach,
    ) -> Self {
        Self { record, inline_keys, keys_reach: Some(reach), installation: None }
    }

    /// An installation as the client whose id is `url`.
    pub(crate) fn of_installation(url: &str, held: &Installation) -> Self {
        let jwks = json!({"keys": [held.public_jwk]});
        let redirect_uris = carnet_proto::client_document::LOOPBACK_REDIRECTS;
        let record = Client {
            id: url.to_owned(),
            name: format!("Carnet on {}", held.device),
            authentication: ClientAuthentication::PrivateKeyJwt {
                keys: ClientKeys::Inline(jwks),
                algorithm: held.algorithm,
            },
            redirect_uris: redirect_uris.map(str::to_owned).to_vec(),
            ..Client::default()
        };
        let installation = EnrolledAs {
            id: held.id.clone(),
            user_id: held.user_id.clone(),
            used_at: AtomicI64::new(held.used_at.0),
        };
        Self { installation: Some(installation), ..Self::new(record) }
    }

    /// What connections call it: an installation is one of the software that enrols itself.
    pub(crate) fn idp_client_id(&self) -> &str {
        if self.installation.is_some() { ENROLLED_CLIENT } else { &self.record.id }
    }

    /// Its id, where that is the URL of its metadata document.
    pub(crate) fn document(&self) -> Option<&str> {
        self.installation.as_ref().map(|_| self.record.id.as_str())
    }

    fn new(record: Client) -> Self {
        let inline_keys = match &record.authentication {
            ClientAuthentication::PrivateKeyJwt { keys: ClientKeys::Inline(jwks), algorithm } => {
                // Checked when the client was registered; a set that cannot be read authenticates
                // nobody.
                KeySet::parse(jwks.to_string().as_bytes(), *algorithm).ok().map(Arc::new)
            }
            _ => None,
        };
        Self { record, inline_keys, keys_reach: None, installation: None }
    }
}

/// The live clients of a directory by id.
pub(crate) fn registered(clients: Vec<Client>) -> HashMap<String, Arc<RegisteredClient>> {
    let live = clients.into_iter().filter(|client| !client.disabled);
    live.map(|c| (c.id.clone(), Arc::new(RegisteredClient::new(c)))).collect()
}

/// The records that decisions of one role rest on.
pub(crate) trait Directory: Sized + Send + Sync + 'static {
    /// Reads them all.
    fn load(
        store: &Store,
        issuer: &Issuer,
    ) -> impl Future<Output = Result<Self, StoreError>> + Send;
    /// A live registered client.
    fn client(&self, id: &str) -> Option<&Arc<RegisteredClient>>;
    /// Whether a client may be named by a document and hold no key: where people let it in themselves.
    fn takes_public_documents(&self) -> bool {
        false
    }
    /// A client that is named by a URL instead of being registered: an installation, or a client
    /// with a metadata document.
    fn document_client(
        &self,
        authority: &Authority<Self>,
        url: &str,
    ) -> impl Future<Output = Result<Option<Arc<RegisteredClient>>, Failure>> + Send;
}

/// The directory as it was at one generation.
pub(crate) struct Snapshot<D> {
    pub(crate) generation: Generation,
    pub(crate) directory: D,
}

/// One authorization server.
pub(crate) struct Authority<D> {
    pub(crate) issuer: Issuer,
    pub(crate) store: Store,
    pub(crate) keys: KeyRing,
    pub(crate) context: Context,
    snapshot: RwLock<Arc<Snapshot<D>>>,
}

impl<D: Directory> Authority<D> {
    pub(crate) async fn open(
        issuer: Issuer,
        store: Store,
        keys: KeyRing,
        context: Context,
    ) -> Result<Self, StoreError> {
        let snapshot = RwLock::new(read(&store, &issuer).await?);
        Ok(Self { issuer, store, keys, context, snapshot })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// A live client of `directory` by id. A registered one wins over a URL of the same text (CIMD 6.8).
    pub(crate) async fn client(
        &self,
        directory: &D,
        id: &str,
    ) -> Result<Option<Arc<RegisteredClient>>, Failure> {
        match directory.client(id) {
            Some(client) => Ok(Some(Arc::clone(client))),
            None if is_document_url(id) => directory.document_client(self, id).await,
            None => Ok(None),
        }
    }

    /// The directory as last read. Only for decisions that are recorded against its generation.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot<D>> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The directory as it is now: asks the store for the generation, reads it anew if it moved.
    pub(crate) async fn fresh(&self) -> Result<Arc<Snapshot<D>>, StoreError> {
        let held = self.snapshot();
        if self.store.generation().await? == held.generation {
            return Ok(held);
        }
        let read = read(&self.store, &self.issuer).await?;
        let mut slot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        // Another request may have read a later one meanwhile.
        if slot.generation < read.generation {
            *slot = Arc::clone(&read);
        }
        Ok(read)
    }
}

async fn read<D: Directory>(
    store: &Store,
    issuer: &Issuer,
) -> Result<Arc<Snapshot<D>>, StoreError> {
    // The generation is read first: if a change comes between, the snapshot counts as stale.
    let generation = store.generation().await?;
    let directory = D::load(store, issuer).await?;
    Ok(Arc::new(Snapshot { generation, directory }))
}
