//! Who is here: rates and concurrency by person and by client, and whether a token still stands while a
//! stream is open.

use crate::settings::{Limits, Stands};
use carnet_proto::{
    secret::{Secret, sha256},
    time::Timestamp,
};
use carnet_resource::Caller;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use http::HeaderValue;
use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

/// Most tokens, persons or clients that are remembered without being here.
const MOST: usize = 20_000;
/// A token that has open streams is asked about this often, in seconds.
const WATCHED: i64 = 2;
/// Streams end when nobody could say for this long whether their token stands, in seconds.
const UNKNOWN: i64 = 15;

/// What one person or one client is using.
#[derive(Debug)]
pub(crate) struct Share {
    limiter: DefaultDirectRateLimiter,
    open: AtomicUsize,
}

impl Share {
    fn new(per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::direct(Quota::per_minute(per_minute));
        Self { limiter, open: AtomicUsize::new(0) }
    }

    /// Takes one request, or says how long to wait.
    fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| {
            not_until.wait_time_from(governor::clock::DefaultClock::default().now())
        })
    }
}

/// One token, and what was made for it.
pub(crate) struct Held {
    pub(crate) caller: Caller,
    pub(crate) token: Secret,
    /// Names issuer, person and client: what sessions are bound to.
    pub(crate) owner: String,
    /// The signed assertion for the MCP server, and until when it is used.
    pub(crate) assertion: Mutex<Option<(HeaderValue, Timestamp)>>,
    /// The MCP server's own token for this caller.
    pub(crate) upstream_token: AsyncMutex<Option<(HeaderValue, Timestamp)>>,
    /// Cancelled when the token has ended.
    pub(crate) ended: CancellationToken,
    person: Arc<Share>,
    client: Arc<Share>,
    open: AtomicUsize,
    /// When the authorization server last said that the token stands.
    stood_at: AtomicI64,
    asking: AsyncMutex<()>,
}

/// Why a token does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallen {
    /// It was revoked.
    Revoked,
    /// Nobody could say.
    Unknown,
}

impl Held {
    /// Asks whether the token stands, once a second at most; all who come meanwhile wait for one answer.
    pub(crate) async fn stands(&self, stands: &Stands, now: Timestamp) -> Result<(), Fallen> {
        if self.ended.is_cancelled() {
            return Err(Fallen::Revoked);
        }
        if self.stood_at.load(Ordering::Relaxed) >= now.0 {
            return Ok(());
        }
        let _one = self.asking.lock().await;
        if self.stood_at.load(Ordering::Relaxed) >= now.0 {
            return Ok(());
        }
        match stands(self.token.clone()).await {
            Ok(true) => {
                self.stood_at.store(now.0, Ordering::Relaxed);
                Ok(())
            }
            Ok(false) => {
                self.ended.cancel();
                Err(Fallen::Revoked)
            }
            Err(_) => Err(Fallen::Unknown),
        }
    }
}

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The person sends more than they may.
    Person(Duration),
    /// The client does, over all persons.
    Client(Duration),
    /// The person has too many requests and streams open.
    Concurrent,
    /// Everybody together has.
    Full,
}

/// A place among the requests under way; given back when it is dropped.
pub(crate) struct Seat {
    pub(crate) held: Arc<Held>,
    all: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.held.open.fetch_sub(1, Ordering::Relaxed);
        self.held.person.open.fetch_sub(1, Ordering::Relaxed);
        self.held.client.open.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Maps {
    tokens: HashMap<String, Arc<Held>>,
    persons: HashMap<String, Arc<Share>>,
    clients: HashMap<String, Arc<Share>>,
}

/// The callers of one MCP server.
pub(crate) struct Callers {
    limits: Limits,
    maps: Mutex<Maps>,
    open: Arc<AtomicUsize>,
}

impl Callers {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, maps: Mutex::default(), open: Arc::default() }
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of a verified token.
    pub(crate) fn of(&self, caller: &Caller, token: &str, now: Timestamp) -> Arc<Held> {
        let mut maps = self.maps();
        if let Some(held) = maps.tokens.get(caller.token_hash()) {
            return Arc::clone(held);
        }
        maps.make_room(now);
        let person = format!("{}\n{}", caller.issuer(), caller.subject());
        let owner = sha256(format!("{person}\n{}", caller.client()).as_bytes());
        let share = |map: &mut HashMap<String, Arc<Share>>, key: String, rate| {
            Arc::clone(map.entry(key).or_insert_with(|| Arc::new(Share::new(rate))))
        };
        let held = Arc::new(Held {
            caller: caller.clone(),
            token: Secret::new(token),
            owner,
            assertion: Mutex::default(),
            upstream_token: AsyncMutex::default(),
            ended: CancellationToken::new(),
            person: share(&mut maps.persons, person, self.limits.per_person),
            client: share(&mut maps.clients, caller.client().to_owned(), self.limits.per_client),
            open: AtomicUsize::new(0),
            stood_at: AtomicI64::new(0),
            asking: AsyncMutex::default(),
        });
        maps.tokens.insert(caller.token_hash().to_owned(), Arc::clone(&held));
        held
    }

    /// Takes a place for one request.
    pub(crate) fn seat(&self, held: &Arc<Held>) -> Result<Seat, Busy> {
        held.person.take().map_err(Busy::Person)?;
        held.client.take().map_err(Busy::Client)?;
        let all = self.open.fetch_add(1, Ordering::Relaxed);
        let person = held.person.open.fetch_add(1, Ordering::Relaxed);
        held.client.open.fetch_add(1, Ordering::Relaxed);
        held.open.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { held: Arc::clone(held), all: Arc::clone(&self.open) };
        if person >= self.limits.concurrent_per_person {
            return Err(Busy::Concurrent);
        }
        if all >= self.limits.concurrent {
            return Err(Busy::Full);
        }
        Ok(seat)
    }

    /// Ends the streams of tokens that have ended; asks about the others.
    pub(crate) async fn watch(&self, stands: Option<&Stands>, now: Timestamp) {
        use futures::StreamExt;
        let open: Vec<Arc<Held>> = {
            let mut maps = self.maps();
            if maps.tokens.len() > MOST / 2 {
                maps.make_room(now);
            }
            let held = maps.tokens.values();
            held.filter(|held| held.open.load(Ordering::Relaxed) > 0).cloned().collect()
        };
        let asks = open.into_iter().map(|held| async move {
            if now >= held.caller.expires() {
                held.ended.cancel();
            } else if let Some(stands) = stands {
                let since = now.0 - held.stood_at.load(Ordering::Relaxed);
                let unknown =
                    since >= WATCHED && held.stands(stands, now).await == Err(Fallen::Unknown);
                if unknown && since >= UNKNOWN {
                    tracing::warn!("streams end: nobody can say whether their token stands");
                    held.ended.cancel();
                }
            }
        });
        futures::stream::iter(asks).buffer_unordered(32).collect::<Vec<()>>().await;
    }
}

impl Maps {
    /// Forgets tokens that have ended, then persons and clients that are not here.
    fn make_room(&mut self, now: Timestamp) {
        if self.tokens.len() >= MOST {
            let here = |held: &Arc<Held>| held.open.load(Ordering::Relaxed) > 0;
            self.tokens.retain(|_, held| here(held) || now < held.caller.expires());
            if self.tokens.len() >= MOST {
                self.tokens.retain(|_, held| here(held));
            }
        }
        for shares in [&mut self.persons, &mut self.clients] {
            if shares.len() >= MOST {
                shares.retain(|_, share| Arc::strong_count(share) > 1);
            }
        }
    }
}
