//! Fetches Client ID Metadata Documents for a RAS: with limits on size and time, without redirects,
//! one fetch at a time for each document, and a limit for each host. Errors are reported and not
//! cached (Client ID Metadata Document draft, sections 4, 6.5 and 6.6).

use crate::{
    http::{Bounds, Outbound},
    reach::Reach,
    trouble::OutboundError,
};
use passavant_proto::{
    jose::jwk::KeySet,
    oauth::client::{Client, ClientAuthentication, ClientKeys},
    oauth::client_document::{self, ClientDocumentError, DocumentUrl, LARGEST},
    time::{Clock, Timestamp},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

/// Shortest and longest time a document is cached, in seconds, whatever its `Cache-Control` says: a
/// key that was removed from it is accepted no longer than this.
const SHORTEST: i64 = 60;
const LONGEST: i64 = 300;
/// If its host does not answer, a document is used for this much longer, in seconds.
const GRACE: i64 = 900;
/// Fetches from one host per minute: counted separately for documents that were valid once, and for
/// all others. Anyone can make up the others, which must not use up the budget of the valid ones.
const PER_HOST: u32 = 600;
/// Concurrent fetches, of each of the two kinds.
const AT_ONCE: usize = 16;
/// Concurrent fetches from one host, of documents that were never valid.
const AT_ONCE_PER_HOST: usize = 4;
/// Maximum number of cached documents.
const MOST: usize = 10_000;

/// A client with its inline keys parsed.
#[derive(Debug)]
pub struct DocumentClient {
    /// The client.
    pub client: Client,
    /// Its keys, if the document contains them.
    pub keys: Option<Arc<KeySet>>,
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The host did not answer, or not with 200.
    #[error("the metadata document could not be fetched")]
    NotFetched,
    /// Too many fetches.
    #[error("too many metadata documents are being fetched")]
    Busy,
    /// The document breaks a rule.
    #[error(transparent)]
    Invalid(#[from] ClientDocumentError),
}

#[derive(Default)]
struct Entry {
    held: Mutex<Option<CachedDocument>>,
    flight: AsyncMutex<()>,
    /// The number of fetches so far, and how the last one failed: for those who waited for it.
    outcome: Mutex<(u64, Option<DocumentError>)>,
}

#[derive(Clone)]
struct CachedDocument {
    document: Arc<DocumentClient>,
    until: Timestamp,
}

impl Entry {
    fn held(&self) -> MutexGuard<'_, Option<CachedDocument>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, now: Timestamp) -> Option<Arc<DocumentClient>> {
        let held = self.held();
        held.as_ref().filter(|held| now < held.until).map(|held| Arc::clone(&held.document))
    }

    /// A cached document that may still be used because no newer one can be fetched.
    fn graced(&self, now: Timestamp) -> Option<Arc<DocumentClient>> {
        let held = self.held();
        let graced = held.as_ref().filter(|held| now.since(held.until) < GRACE);
        graced.map(|held| Arc::clone(&held.document))
    }

    fn outcome(&self) -> MutexGuard<'_, (u64, Option<DocumentError>)> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cache of documents. Cheap to clone.
#[derive(Clone)]
pub struct ClientDocuments(Arc<Inner>);

struct Inner {
    outbound: Outbound,
    clock: Clock,
    entries: Mutex<HashMap<(DocumentUrl, Reach), Arc<Entry>>>,
    /// Number of fetches from each host in the minute that began at the given time; documents that
    /// were valid once are counted separately.
    fetched: Mutex<HashMap<(String, bool), (i64, u32)>>,
    /// Fetches in progress of documents that were never valid, by host.
    under_way: Mutex<HashMap<String, usize>>,
    slots: Semaphore,
    known_slots: Semaphore,
}

/// A permit for a fetch from a host, released when it is dropped.
struct Turn<'a>(&'a Inner, String);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.1);
            }
        }
    }
}

impl ClientDocuments {
    /// An empty cache.
    pub fn new(outbound: Outbound, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            outbound,
            clock,
            entries: Mutex::default(),
            fetched: Mutex::default(),
            under_way: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            known_slots: Semaphore::new(AT_ONCE),
        }))
    }

    /// The client that the document at `url` describes. The caller has to have decided that its
    /// host is allowed, and how far the fetch may reach. `public`: whether a client without a key
    /// is acceptable.
    pub async fn client(
        &self,
        url: &DocumentUrl,
        reach: Reach,
        public: bool,
    ) -> Result<Arc<DocumentClient>, DocumentError> {
        let found = self.any(url, reach, public).await?;
        // It was cached for a caller that accepts public clients.
        if !public && found.client.authentication == ClientAuthentication::Public {
            return Err(ClientDocumentError::Method.into());
        }
        Ok(found)
    }

    /// Whether a document is cached and current, so that no request is needed.
    pub fn is_held(&self, url: &DocumentUrl, reach: Reach) -> bool {
        let entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&(url.clone(), reach)).cloned();
        drop(entries);
        entry.is_some_and(|entry| entry.fresh(self.0.clock.now()).is_some())
    }

    async fn any(
        &self,
        url: &DocumentUrl,
        reach: Reach,
        public: bool,
    ) -> Result<Arc<DocumentClient>, DocumentError> {
        let entry = self.entry(url, reach);
        if let Some(document) = entry.fresh(self.0.clock.now()) {
            return Ok(document);
        }
        let before = entry.outcome().0;
        let _flight = entry.flight.lock().await;
        let now = self.0.clock.now();
        if let Some(document) = entry.fresh(now) {
            return Ok(document);
        }
        if let (fetches, Some(error)) = &*entry.outcome()
            && *fetches != before
        {
            // The fetch that this caller waited for has just failed.
            return Err(error.clone());
        }
        let known = entry.held().is_some();
        let outcome = match self.fetch(url, reach, known, public, now).await {
            Ok(held) => {
                let document = Arc::clone(&held.document);
                *entry.held() = Some(held);
                Ok(document)
            }
            // A host that does not answer says nothing about the client; an answer does.
            Err(Failed::Silent) => entry.graced(now).ok_or(DocumentError::NotFetched),
            Err(Failed::Busy) => entry.graced(now).ok_or(DocumentError::Busy),
            Err(Failed::Answered(error)) => {
                *entry.held() = None;
                Err(error)
            }
        };
        let mut last = entry.outcome();
        *last = (last.0 + 1, outcome.as_ref().err().cloned());
        drop(last);
        outcome
    }

    fn entry(&self, url: &DocumentUrl, reach: Reach) -> Arc<Entry> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (url.clone(), reach);
        if entries.len() >= MOST && !entries.contains_key(&key) {
            // Ids that led nowhere are dropped first: anyone can make them up.
            entries.retain(|_, entry| entry.held().is_some());
            if entries.len() >= MOST {
                entries.clear();
            }
        }
        Arc::clone(entries.entry(key).or_default())
    }

    fn may_fetch(&self, origin: &str, known: bool, now: Timestamp) -> bool {
        let minute = now.0.div_euclid(60);
        let mut fetched = self.0.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.retain(|_, (at, _)| *at == minute);
        let count = &mut fetched.entry((origin.to_owned(), known)).or_insert((minute, 0)).1;
        *count += 1;
        *count <= PER_HOST
    }

    /// A permit for a fetch from a host, unless it has too many already.
    fn turn(&self, origin: &str) -> Option<Turn<'_>> {
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(origin.to_owned()).or_default();
        if *count >= AT_ONCE_PER_HOST {
            return None;
        }
        *count += 1;
        Some(Turn(&self.0, origin.to_owned()))
    }

    async fn fetch(
        &self,
        url: &DocumentUrl,
        reach: Reach,
        known: bool,
        public: bool,
        now: Timestamp,
    ) -> Result<CachedDocument, Failed> {
        if !self.may_fetch(url.origin(), known, now) {
            return Err(Failed::Busy);
        }
        let slots = if known { &self.0.known_slots } else { &self.0.slots };
        let turn = if known { None } else { Some(self.turn(url.origin()).ok_or(Failed::Busy)?) };
        let _slot = slots.try_acquire().map_err(|_| Failed::Busy)?;
        let _turn = turn;
        let bounds = Bounds { bytes: LARGEST, time: Duration::from_secs(3) };
        let answer = match self.0.outbound.get_within(url.as_str(), reach, bounds).await {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) if answer.status >= 500 => return Err(Failed::Silent),
            Ok(_) => return Err(Failed::Answered(DocumentError::NotFetched)),
            Err(OutboundError::TooLarge(..)) => {
                return Err(Failed::Answered(ClientDocumentError::NotObject.into()));
            }
            Err(error) => {
                tracing::warn!(url = url.as_str(), %error, "a client's metadata was not fetched");
                return Err(Failed::Silent);
            }
        };
        let client = client_document::read(url, &answer.body)
            .map_err(|error| Failed::Answered(error.into()))?;
        if !public && client.authentication == ClientAuthentication::Public {
            return Err(Failed::Answered(ClientDocumentError::Method.into()));
        }
        let keys = match &client.authentication {
            ClientAuthentication::PrivateKeyJwt { keys: ClientKeys::Inline(jwks), algorithm } => {
                KeySet::parse(jwks.to_string().as_bytes(), *algorithm).ok().map(Arc::new)
            }
            _ => None,
        };
        let told = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let until = now.plus(lifetime(told("cache-control"), told("age")));
        Ok(CachedDocument { document: Arc::new(DocumentClient { client, keys }), until })
    }
}

enum Failed {
    /// There was no answer, or the host itself failed.
    Silent,
    /// No request was made.
    Busy,
    /// The host answered that there is no such client.
    Answered(DocumentError),
}

/// How long a document may be cached, in seconds (Client ID Metadata Document draft section 4.3);
/// `age` is how long a cache on the way has had it.
fn lifetime(cache_control: Option<&str>, age: Option<&str>) -> i64 {
    let directives = cache_control.unwrap_or_default().split(',').map(str::trim);
    let mut seconds = LONGEST;
    for directive in directives {
        let directive = directive.to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return SHORTEST;
        }
        if let Some(age) = directive.strip_prefix("max-age=") {
            seconds = age.trim_matches('"').parse().unwrap_or(LONGEST);
        }
    }
    let age = age.and_then(|age| age.trim().parse::<i64>().ok()).unwrap_or(0).max(0);
    seconds.min(LONGEST).saturating_sub(age).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_believed_for_a_minute_at_least_and_five_at_most() {
        for (header, seconds) in [
            (None, LONGEST),
            (Some("max-age=315360000"), LONGEST),
            (Some("public, max-age=0"), SHORTEST),
            (Some("no-store"), SHORTEST),
            (Some("max-age=120, No-Store"), SHORTEST),
            (Some("max-age=120"), 120),
            (Some("max-age=x"), LONGEST),
            (Some("max-age=-5"), SHORTEST),
        ] {
            assert_eq!(lifetime(header, None), seconds, "{header:?}");
        }
        for (age, seconds) in [("0", 120), ("50", 70), ("1000", SHORTEST), ("-7", 120), ("x", 120)]
        {
            assert_eq!(lifetime(Some("max-age=120"), Some(age)), seconds, "{age}");
        }
    }
}
