//! The callers: rates and concurrency of each person and client, and whether a token is still
//! active while a stream is open.

use crate::{
    settings::{Limits, RouteSettings, Stands, Unavailable},
    upstream_body::{UpstreamBodies, UpstreamBody},
};
use futures::future::{BoxFuture, FutureExt, Shared};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use http::HeaderValue;
use passavant_proto::{
    secret::{Secret, sha256},
    time::{Clock, Timestamp},
};
use passavant_resource::{Caller, Feed, Mark, RELIED_ON, WithoutFeed};
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

/// Maximum number of tokens, persons or clients that are remembered without a request in flight.
const MOST: usize = 20_000;
/// How often a token that has open streams is checked, in seconds.
const WATCHED: i64 = 2;
/// How long a request waits for the check of its token.
const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum number of tokens that are checked at the same time.
const AT_ONCE: usize = 256;
/// Streams end when the state of their token could not be learnt for this long, in seconds.
const UNKNOWN: i64 = 15;

/// The usage of one person or one client.
#[derive(Debug)]
pub(crate) struct Share {
    limiter: DefaultDirectRateLimiter,
    open: AtomicUsize,
    /// Bytes that its requests hold in memory.
    bytes: AtomicUsize,
    /// Rate of its refusals that go on record.
    refusals: DefaultDirectRateLimiter,
}

/// Refusals of one person that go on record per minute, so that refused requests cannot fill the
/// disk.
const REFUSALS: NonZeroU32 = NonZeroU32::new(120).unwrap();

impl Share {
    fn new(per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::direct(Quota::per_minute(per_minute));
        let refusals = RateLimiter::direct(Quota::per_minute(REFUSALS));
        Self { limiter, open: AtomicUsize::new(0), bytes: AtomicUsize::new(0), refusals }
    }

    /// Counts one request against the rate, or returns how long to wait.
    fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| {
            not_until.wait_time_from(governor::clock::DefaultClock::default().now())
        })
    }
}

/// One token, and what was derived from it.
pub(crate) struct TokenState {
    pub(crate) caller: Caller,
    pub(crate) token: Secret,
    /// Names the MCP server, issuer, person and client. Sessions are bound to this text.
    pub(crate) owner: String,
    /// The signed assertion for the MCP server, and until when it is used.
    pub(crate) assertion: Mutex<Option<(HeaderValue, Timestamp)>>,
    /// The MCP server's own token for this caller.
    pub(crate) upstream_token: AsyncMutex<Option<(HeaderValue, Timestamp)>>,
    /// Cancelled when the token has expired or was revoked.
    pub(crate) ended: CancellationToken,
    streams: UpstreamBodies,
    person: Arc<Share>,
    client: Arc<Share>,
    open: AtomicUsize,
    /// When the authorization server last said that the token is active.
    stood_at: AtomicI64,
    /// The same, with what was known of the feed before that.
    relied_on: Mutex<Option<(Mark, Timestamp)>>,
    /// The check that is in progress, shared by all requests that wait for it.
    asking: Mutex<Option<Asking>>,
}

/// A check of a token, whose result all waiting requests share, and what was known of the feed when it
/// began.
#[derive(Clone)]
struct Asking {
    answer: Shared<BoxFuture<'static, Result<bool, Unavailable>>>,
    mark: Option<Mark>,
}

/// How it is known whether tokens are still active.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) stands: &'a Stands,
    pub(crate) feed: Option<&'a Feed>,
}

impl<'a> Watch<'a> {
    /// `None`: a token is accepted until it expires.
    pub(crate) fn of(settings: &'a RouteSettings) -> Option<Self> {
        let stands = settings.stands.as_ref()?;
        Some(Self { stands, feed: settings.feed.as_ref() })
    }

    /// Whether an answer that was asked for after `mark` still holds.
    fn holds(&self, mark: Option<Mark>, token: &TokenState) -> bool {
        let holds =
            |feed: &Feed| mark.is_some_and(|mark| feed.holds(mark, token.caller.token_id()));
        self.feed.is_some_and(holds)
    }

    /// Whether the feed has named the token: it has ended for good.
    fn has_ended(&self, token: &TokenState) -> bool {
        self.feed.is_some_and(|feed| feed.has_ended(token.caller.token_id()))
    }

    /// While the feed is heard, nothing else is relied on.
    fn is_heard(&self) -> bool {
        self.feed.is_some_and(Feed::is_live)
    }
}

/// Why a token is not accepted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inactive {
    /// It was revoked.
    Revoked,
    /// Its state could not be learnt.
    Unknown,
}

impl TokenState {
    /// Marks the token as ended, and cancels everything that was started with it.
    fn end(&self) {
        self.ended.cancel();
        self.streams.let_go();
    }

    /// Ends this stream with the token, even while its caller is not reading.
    pub(crate) fn stream(&self, body: &UpstreamBody) {
        self.streams.add(body);
        if self.ended.is_cancelled() {
            self.streams.let_go();
        }
    }

    /// Counts further requests against the rates, beyond the one that the permit stands for
    /// (members of a batch).
    pub(crate) fn take_more(&self, count: u32) -> Result<(), Busy> {
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        let wait = Duration::from_secs(1);
        let take = |share: &Share| matches!(share.limiter.check_n(count), Ok(Ok(())));
        if !take(&self.person) {
            return Err(Busy::Person(wait));
        }
        if take(&self.client) { Ok(()) } else { Err(Busy::Client(wait)) }
    }

    /// Whether one more refusal of this person goes on record.
    pub(crate) fn is_refusal_told(&self) -> bool {
        self.person.refusals.check().is_ok()
    }

    /// Whether what was said about the token is still to be relied on.
    fn is_relied_on(&self, watch: Watch<'_>, now: Timestamp) -> bool {
        if !watch.is_heard() {
            return self.stood_at.load(Ordering::Relaxed) >= now.0;
        }
        let relied_on = *self.relied_on.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Timestamp| (0..RELIED_ON).contains(&now.since(at));
        let relied_on =
            relied_on.is_some_and(|(mark, at)| is_recent(at) && watch.holds(Some(mark), self));
        if relied_on {
            self.stood_at.fetch_max(now.0, Ordering::Relaxed);
        }
        relied_on
    }

    /// Checks whether the token is still active: while a feed is heard, whenever it says that the token may
    /// have ended; otherwise at most once a second. Requests that arrive during a check share its
    /// result, so nobody waits for more than one check.
    pub(crate) async fn stands(&self, watch: Watch<'_>, now: Timestamp) -> Result<(), Inactive> {
        if watch.has_ended(self) {
            self.end();
        }
        if self.ended.is_cancelled() {
            return Err(Inactive::Revoked);
        }
        if watch.feed.is_some_and(|feed| !feed.is_live() && feed.without() == WithoutFeed::Refuse) {
            return Err(Inactive::Unknown);
        }
        self.still_stands(watch, now).await
    }

    /// The same for what is under way: it is asked about while the feed is silent.
    async fn still_stands(&self, watch: Watch<'_>, now: Timestamp) -> Result<(), Inactive> {
        if self.ended.is_cancelled() {
            return Err(Inactive::Revoked);
        }
        if self.is_relied_on(watch, now) {
            return Ok(());
        }
        let asking = {
            let mut slot = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            // One that began before the feed told of an end may not know of it.
            let is_shared = |asking: &&Asking| {
                asking.answer.peek().is_none()
                    && (!watch.is_heard() || watch.holds(asking.mark, self))
            };
            match slot.as_ref().filter(is_shared) {
                Some(asking) => asking.clone(),
                None => {
                    let mark = watch.feed.and_then(Feed::mark);
                    let asked = tokio::time::timeout(PATIENCE, (watch.stands)(self.token.clone()));
                    // A task of its own, so that the check continues when the request that started
                    // it is dropped.
                    let task = tokio::spawn(async move { asked.await.unwrap_or(Err(Unavailable)) });
                    let asked = async move { task.await.unwrap_or(Err(Unavailable)) };
                    let asking = Asking { answer: asked.boxed().shared(), mark };
                    *slot = Some(asking.clone());
                    asking
                }
            }
        };
        match asking.answer.await {
            Ok(true) => {
                self.stood_at.fetch_max(now.0, Ordering::Relaxed);
                if let Some(mark) = asking.mark {
                    let mut relied_on =
                        self.relied_on.lock().unwrap_or_else(PoisonError::into_inner);
                    *relied_on = Some((mark, now));
                }
                Ok(())
            }
            Ok(false) => {
                self.end();
                Err(Inactive::Revoked)
            }
            Err(_) => Err(Inactive::Unknown),
        }
    }
}

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The person is over their rate.
    Person(Duration),
    /// The client is over its rate, summed over all persons.
    Client(Duration),
    /// The person has too many requests and streams open.
    Concurrent,
    /// The requests of the person hold too many bytes.
    Bytes,
    /// All callers together have too many requests and streams open, or hold too many bytes.
    Full,
}

/// A permit for one request in flight, released when it is dropped.
pub(crate) struct RequestPermit {
    pub(crate) held: Arc<TokenState>,
    all: Arc<AtomicUsize>,
    all_bytes: Arc<AtomicUsize>,
    limits: Limits,
    /// Bytes that this request holds.
    bytes: usize,
}

impl RequestPermit {
    /// Sets the number of bytes that this request holds: of a body, or of an answer that is
    /// inspected.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Busy> {
        let person = &self.held.person.bytes;
        if bytes <= self.bytes {
            let less = self.bytes - bytes;
            person.fetch_sub(less, Ordering::Relaxed);
            self.all_bytes.fetch_sub(less, Ordering::Relaxed);
            self.bytes = bytes;
            return Ok(());
        }
        let more = bytes - self.bytes;
        if person.fetch_add(more, Ordering::Relaxed) + more > self.limits.bytes_per_person {
            person.fetch_sub(more, Ordering::Relaxed);
            return Err(Busy::Bytes);
        }
        if self.all_bytes.fetch_add(more, Ordering::Relaxed) + more > self.limits.bytes {
            person.fetch_sub(more, Ordering::Relaxed);
            self.all_bytes.fetch_sub(more, Ordering::Relaxed);
            return Err(Busy::Full);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Adds to the bytes that this request holds.
    pub(crate) fn hold_more(&mut self, bytes: usize) -> Result<(), Busy> {
        self.hold(self.bytes.saturating_add(bytes))
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        // Lowering the number always succeeds.
        let _ = self.hold(0);
        self.held.open.fetch_sub(1, Ordering::Relaxed);
        self.held.person.open.fetch_sub(1, Ordering::Relaxed);
        self.held.client.open.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Maps {
    tokens: HashMap<String, Arc<TokenState>>,
    persons: HashMap<String, Arc<Share>>,
    clients: HashMap<String, Arc<Share>>,
}

/// The callers of one MCP server.
pub(crate) struct Callers {
    limits: Limits,
    maps: Mutex<Maps>,
    open: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Callers {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, maps: Mutex::default(), open: Arc::default(), bytes: Arc::default() }
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a verified token; created if there is none.
    pub(crate) fn of(
        &self,
        resource: &str,
        caller: &Caller,
        token: &str,
        now: Timestamp,
    ) -> Arc<TokenState> {
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
        let held = Arc::new(TokenState {
            caller: caller.clone(),
            token: Secret::new(token),
            owner,
            assertion: Mutex::default(),
            upstream_token: AsyncMutex::default(),
            ended: CancellationToken::new(),
            streams: UpstreamBodies::default(),
            person: share(&mut maps.persons, person, self.limits.per_person),
            client: share(&mut maps.clients, caller.client().to_owned(), self.limits.per_client),
            open: AtomicUsize::new(0),
            stood_at: AtomicI64::new(0),
            relied_on: Mutex::default(),
            asking: Mutex::default(),
        });
        maps.tokens.insert(caller.token_hash().to_owned(), Arc::clone(&held));
        held
    }

    /// Takes a permit for one request. The rate is counted by [`Callers::take`] after the token was
    /// found active, so that a revoked token does not use up its person's rate.
    pub(crate) fn permit(&self, held: &Arc<TokenState>) -> Result<RequestPermit, Busy> {
        let all = self.open.fetch_add(1, Ordering::Relaxed);
        let person = held.person.open.fetch_add(1, Ordering::Relaxed);
        held.client.open.fetch_add(1, Ordering::Relaxed);
        held.open.fetch_add(1, Ordering::Relaxed);
        let permit = RequestPermit {
            held: Arc::clone(held),
            all: Arc::clone(&self.open),
            all_bytes: Arc::clone(&self.bytes),
            limits: self.limits,
            bytes: 0,
        };
        if person >= self.limits.concurrent_per_person {
            return Err(Busy::Concurrent);
        }
        if all >= self.limits.concurrent {
            return Err(Busy::Full);
        }
        Ok(permit)
    }

    /// Counts one request against the rates of its person and client.
    pub(crate) fn take(held: &TokenState) -> Result<(), Busy> {
        held.person.take().map_err(Busy::Person)?;
        held.client.take().map_err(Busy::Client)
    }

    /// The tokens that have a request or a stream open.
    fn open(&self) -> Vec<Arc<TokenState>> {
        let maps = self.maps();
        let held = maps.tokens.values();
        held.filter(|held| held.open.load(Ordering::Relaxed) > 0).cloned().collect()
    }

    /// Ends tokens that have expired, and tokens whose state could not be learnt for a while, with
    /// everything started with them. This asks nobody and waits for nothing.
    pub(crate) fn expire(&self, is_watched: bool, now: Timestamp) {
        {
            let mut maps = self.maps();
            if maps.tokens.len() > MOST / 2 {
                maps.make_room(now);
            }
        }
        for held in self.open() {
            if now >= held.caller.expires() {
                held.end();
                continue;
            }
            let stood_at = held.stood_at.load(Ordering::Relaxed);
            if is_watched
                && stood_at > 0
                && now.0 - stood_at >= UNKNOWN
                && !held.ended.is_cancelled()
            {
                tracing::warn!(
                    "streams are ended: it cannot be checked whether their token is still active"
                );
                // The token may still be good: the next request with it is checked anew.
                self.maps().tokens.remove(held.caller.token_hash());
                held.end();
            }
        }
    }

    /// Ends the tokens that the feed has named, and everything started with them. This asks nobody.
    pub(crate) fn end_what_the_feed_names(&self, watch: Watch<'_>) {
        for held in self.open() {
            if watch.has_ended(&held) {
                held.end();
            }
        }
    }

    /// Checks the tokens that have something open.
    pub(crate) async fn ask(&self, watch: Watch<'_>, clock: &Clock) {
        use futures::StreamExt;
        let asks = self.open().into_iter().filter(|held| !held.ended.is_cancelled());
        let asks = asks.map(|held| async move {
            let age = clock.now().0 - held.stood_at.load(Ordering::Relaxed);
            if watch.is_heard() || age >= WATCHED {
                // This ends a token that is not active. A token whose state is unknown is ended in
                // `expire`.
                let _ = held.still_stands(watch, clock.now()).await;
            }
        });
        futures::stream::iter(asks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}

impl Maps {
    /// Forgets tokens that have ended, then persons and clients without a request in flight.
    fn make_room(&mut self, now: Timestamp) {
        if self.tokens.len() >= MOST {
            // Still referenced by a request in flight.
            let here = |held: &Arc<TokenState>| Arc::strong_count(held) > 1;
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
