//! Who is here: rates and concurrency by person and by client, and whether a token still stands while a
//! stream is open.

use crate::{
    settings::{Limits, Stands, Unavailable},
    source::{Source, Sources},
};
use carnet_proto::{
    secret::{Secret, sha256},
    time::{Clock, Timestamp},
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
/// How long is waited for whether a token stands.
const PATIENCE: Duration = Duration::from_secs(3);
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
    /// Names MCP server, issuer, person and client: what sessions are bound to.
    pub(crate) owner: String,
    /// The signed assertion for the MCP server, and until when it is used.
    pub(crate) assertion: Mutex<Option<(HeaderValue, Timestamp)>>,
    /// The MCP server's own token for this caller.
    pub(crate) upstream_token: AsyncMutex<Option<(HeaderValue, Timestamp)>>,
    /// Cancelled when the token has ended.
    pub(crate) ended: CancellationToken,
    streams: Sources,
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
    /// The token has ended, and what was begun with it ends.
    fn end(&self) {
        self.ended.cancel();
        self.streams.let_go();
    }

    /// A stream that ends with the token, whether its caller reads it or not.
    pub(crate) fn stream(&self, source: &Source) {
        self.streams.add(source);
        if self.ended.is_cancelled() {
            self.streams.let_go();
        }
    }

    /// Takes more requests than the one that the seat stands for.
    pub(crate) fn take_more(&self, count: u32) -> Result<(), Busy> {
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        let wait = Duration::from_secs(1);
        let take = |share: &Share| matches!(share.limiter.check_n(count), Ok(Ok(())));
        if !take(&self.person) {
            return Err(Busy::Person(wait));
        }
        if take(&self.client) { Ok(()) } else { Err(Busy::Client(wait)) }
    }

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
        let asked = tokio::time::timeout(PATIENCE, stands(self.token.clone())).await;
        match asked.unwrap_or(Err(Unavailable)) {
            Ok(true) => {
                self.stood_at.store(now.0, Ordering::Relaxed);
                Ok(())
            }
            Ok(false) => {
                self.end();
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
    pub(crate) fn of(
        &self,
        resource: &str,
        caller: &Caller,
        token: &str,
        now: Timestamp,
    ) -> Arc<Held> {
        let mut maps = self.maps();
        if let Some(held) = maps.tokens.get(caller.token_hash()) {
            return Arc::clone(held);
        }
        maps.make_room(now);
        let person = format!("{}\n{}", caller.issuer(), caller.subject());
        let owner = sha256(format!("{resource}\n{person}\n{}", caller.client()).as_bytes());
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
            streams: Sources::default(),
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
    pub(crate) async fn watch(&self, stands: Option<&Stands>, clock: &Clock) {
        use futures::StreamExt;
        let now = clock.now();
        let open: Vec<Arc<Held>> = {
            let mut maps = self.maps();
            if maps.tokens.len() > MOST / 2 {
                maps.make_room(now);
            }
            let held = maps.tokens.values();
            held.filter(|held| held.open.load(Ordering::Relaxed) > 0).cloned().collect()
        };
        // First those whose time is over: that needs nobody's word.
        for held in &open {
            if now >= held.caller.expires() {
                held.end();
            }
        }
        let Some(stands) = stands else { return };
        let asks = open.into_iter().filter(|held| !held.ended.is_cancelled());
        let asks = asks.map(|held| async move {
            let since = clock.now().0 - held.stood_at.load(Ordering::Relaxed);
            if since < WATCHED {
                return;
            }
            let unknown = held.stands(stands, clock.now()).await == Err(Fallen::Unknown);
            if unknown && since >= UNKNOWN {
                tracing::warn!("streams end: nobody can say whether their token stands");
                // The token may be good: whoever comes with it again is asked about anew.
                self.maps().tokens.remove(held.caller.token_hash());
                held.end();
            }
        });
        futures::stream::iter(asks).buffer_unordered(64).collect::<Vec<()>>().await;
    }
}

impl Maps {
    /// Forgets tokens that have ended, then persons and clients that are not here.
    fn make_room(&mut self, now: Timestamp) {
        if self.tokens.len() >= MOST {
            // Somebody has it, be it for a moment.
            let here = |held: &Arc<Held>| Arc::strong_count(held) > 1;
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
