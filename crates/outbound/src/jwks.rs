//! Keys of issuers and clients: fetched once, cached, and never lost because of a failed fetch.

use crate::{http::Outbound, reach::Reach};
use passavant_proto::{
    jose::jwk::{Algorithm, KeySet},
    others_text::shown,
    time::{Clock, Timestamp},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;

/// Keys older than this are fetched again when they are next used, in seconds.
const FRESH: i64 = 300;
/// Keys older than this are not used if they cannot be fetched again, in seconds. It limits what an
/// attacker gains who has stolen a key and prevents us from fetching.
const STALE: i64 = 3600;
/// After a fetch, successful or not, the next one waits this long, in seconds.
const COOLDOWN: i64 = 10;
/// Maximum number of cached key sets; each belongs to a registered issuer or client.
const MOST: usize = 10_000;

/// Where a key set is, and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySource {
    /// The owner of the keys: the issuer, or `client <id>`. Keys of one owner are never used for
    /// another.
    pub owner: String,
    /// URL of the JWK Set; `None` means that the owner's discovery document names it.
    pub jwks_uri: Option<String>,
    /// The registered algorithm.
    pub algorithm: Algorithm,
    /// Which addresses the fetch may reach.
    pub reach: Reach,
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// They cannot be fetched at the moment.
    #[error("the keys of {0} cannot be fetched just now")]
    Unavailable(String),
}

#[derive(Default)]
struct CachedKeys {
    keys: Option<Arc<KeySet>>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
}

impl CachedKeys {
    fn knows(&self, kid: Option<&str>) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.find(kid).is_some())
    }

    /// The keys, if they contain `kid` and need not be fetched again.
    fn fresh(&self, kid: Option<&str>, now: Timestamp) -> Option<Arc<KeySet>> {
        let fresh = self.fetched_at.is_some_and(|at| now.since(at) < FRESH);
        self.keys.as_ref().filter(|_| fresh && self.knows(kid)).map(Arc::clone)
    }

    /// The keys, unless they are too old to be used.
    fn usable(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        let believed = self.fetched_at.is_some_and(|at| now.since(at) < STALE);
        self.keys.as_ref().filter(|_| believed).map(Arc::clone)
    }

    /// Claims the right to fetch, once per cooldown.
    fn claim(&mut self, now: Timestamp) -> bool {
        let free = self.tried_at.is_none_or(|at| now.since(at) >= COOLDOWN);
        if free {
            self.tried_at = Some(now);
        }
        free
    }
}

#[derive(Default)]
struct Entry {
    held: Mutex<CachedKeys>,
    /// Held by the one caller that fetches; the others wait for it instead of fetching, too.
    flight: Arc<AsyncMutex<()>>,
}

impl Entry {
    fn held(&self) -> MutexGuard<'_, CachedKeys> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cache of key sets. There is one fetch at a time for each owner; the cooldown is claimed before
/// the fetch; a failed fetch never evicts good keys. Cheap to clone.
#[derive(Clone)]
pub struct RemoteKeys(Arc<Inner>);

struct Inner {
    outbound: Outbound,
    clock: Clock,
    /// Keyed by the whole source, so that two roles that registered one issuer differently do not
    /// overwrite each other's keys.
    entries: Mutex<HashMap<KeySource, Arc<Entry>>>,
}

impl RemoteKeys {
    /// An empty cache.
    pub fn new(outbound: Outbound, clock: Clock) -> Self {
        Self(Arc::new(Inner { outbound, clock, entries: Mutex::default() }))
    }

    /// Keys that contain `kid`, or the newest ones available. Keys older than five minutes are
    /// fetched again before they are used; if that fails, they are used for up to an hour. If `kid`
    /// is unknown after a successful fetch, the verifier reports it.
    pub async fn keys(
        &self,
        source: &KeySource,
        kid: Option<&str>,
    ) -> Result<Arc<KeySet>, KeysError> {
        let entry = self.entry(source);
        let now = self.0.clock.now();
        if let Some(keys) = entry.held().fresh(kid, now) {
            return Ok(keys);
        }
        let flight = Arc::clone(&entry.flight).lock_owned().await;
        let claimed = {
            let mut held = entry.held();
            held.fresh(kid, now).is_none() && held.claim(now)
        };
        if claimed {
            // In a task of its own: the right to fetch is used up, whether or not its caller stays.
            let (keys, source, entry) = (self.clone(), source.clone(), Arc::clone(&entry));
            let fetch = async move {
                let _flight = flight;
                match keys.fetch(&source).await {
                    Ok(keys) => {
                        let mut held = entry.held();
                        held.keys = Some(Arc::new(keys));
                        held.fetched_at = Some(now);
                    }
                    Err(cause) => {
                        tracing::warn!(owner = source.owner, cause, "keys were not fetched");
                    }
                }
            };
            // A fetch that broke off has fetched nothing.
            let _ended = tokio::spawn(fetch).await;
        }
        let held = entry.held();
        // Only a successful fetch can show that an unknown kid does not exist.
        let told = held.knows(kid) || held.fetched_at == held.tried_at;
        let usable = held.usable(now).filter(|_| told);
        usable.ok_or_else(|| KeysError::Unavailable(source.owner.clone()))
    }

    /// Forgets the keys of an owner: somebody looks whether they can be had now.
    pub fn forget(&self, owner: &str) {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|source, _| source.owner != owner);
    }

    fn entry(&self, source: &KeySource) -> Arc<Entry> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST && !entries.contains_key(source) {
            entries.clear();
        }
        Arc::clone(entries.entry(source.clone()).or_default())
    }

    async fn fetch(&self, source: &KeySource) -> Result<KeySet, String> {
        let (url, reach) = match &source.jwks_uri {
            Some(url) => (url.clone(), source.reach),
            None => {
                let issuer = passavant_proto::identifier::Issuer::parse(&source.owner)
                    .map_err(|e| format!("the issuer {e}"))?;
                let found =
                    crate::discovery::authorization_server(&self.0.outbound, &issuer, source.reach);
                let found = found.await.map_err(|e| e.to_string())?;
                let url =
                    found.jwks_uri.clone().ok_or("the metadata of its issuer has no jwks_uri")?;
                let reach = found.reach_of(&url);
                (url, reach)
            }
        };
        let answer = self.0.outbound.get(&url, reach).await.map_err(|e| e.to_string())?;
        let url = shown(&url, 300);
        if answer.status != 200 {
            return Err(format!("{url} answered {}", answer.status));
        }
        KeySet::parse(&answer.body, source.algorithm).map_err(|e| format!("{url} {e}"))
    }
}
