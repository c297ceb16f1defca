//! The feed of ended tokens: guards before MCP servers are told within milliseconds, on every node.

use super::state::Ras;
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header},
};
use passavant_authority::{
    answer::{self, broken},
    room::{Place, Room},
    token_endpoint::{ClientRequest, Endpoint, client_request, conclude},
};
use passavant_proto::{
    oauth::ended_tokens::{self, EndedTokens, Position},
    refusal::Refusal,
};
use passavant_store::{Store, StoreError};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep, timeout},
};

/// How often it is looked for what has ended, while somebody listens.
const TURN: Duration = Duration::from_millis(40);
/// The shortest time between two readings.
const TOGETHER: Duration = Duration::from_millis(5);
/// How long it is waited after the database failed.
const LATER: Duration = Duration::from_millis(500);
/// How long one stream lasts: then its client proves again who it is.
const LONGEST: Duration = Duration::from_mins(5);
/// Most streams at once: a quarter of what a listener holds. And of them of one client: a gateway has one
/// for each of its routes.
const STREAMS: usize = 1024;
const OF_ONE: usize = 256;
/// How many events a slow listener may be behind.
const BEHIND: usize = 64;

/// One event of the feed.
#[derive(Clone, Debug)]
pub struct Told {
    /// What has ended.
    pub ended: EndedTokens,
    position: Position,
}

/// Who listens.
pub(crate) struct Feed {
    listeners: Mutex<broadcast::Sender<Arc<Told>>>,
    wake: Notify,
    streams: Room,
    /// Somebody reads what has ended.
    is_followed: AtomicBool,
}

impl Default for Feed {
    fn default() -> Self {
        let listeners = Mutex::new(broadcast::channel(BEHIND).0);
        let (wake, streams) = (Notify::new(), Room::new(STREAMS, OF_ONE));
        Self { listeners, wake, streams, is_followed: AtomicBool::new(false) }
    }
}

impl Feed {
    fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        let listener = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).subscribe();
        self.wake.notify_one();
        listener
    }

    fn has_listeners(&self) -> bool {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).receiver_count() > 0
    }

    fn tell(&self, told: Told) {
        // Nobody may be listening any more.
        let _ = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).send(Arc::new(told));
    }

    /// Something may have ended: it is looked for at once.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Ends all streams when nobody reads any more what has ended.
struct Following<'a>(&'a Feed);

impl<'a> Following<'a> {
    fn begin(feed: &'a Feed) -> Self {
        feed.is_followed.store(true, Ordering::SeqCst);
        Self(feed)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.is_followed.store(false, Ordering::SeqCst);
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        *listeners = broadcast::channel(BEHIND).0;
    }
}

impl Ras {
    /// Reads what has ended and tells all who listen, until this is dropped.
    pub async fn follow_ended_tokens(&self) {
        let woken = async {
            let mut listener = self.0.authority.store.ended_listener();
            loop {
                listener.heard().await;
                self.0.feed.wake();
            }
        };
        tokio::select! {
            () = self.read_ended_tokens() => {}
            () = woken => {}
        }
    }

    async fn read_ended_tokens(&self) {
        let feed = &self.0.feed;
        let following = Following::begin(feed);
        let authority = &self.0.authority;
        let (mut after, mut seen): (_, Option<String>) = (None, None);
        let mut told_at: Option<Instant> = None;
        loop {
            if !feed.has_listeners() {
                feed.wake.notified().await;
                continue;
            }
            match authority.store.ended_tokens(after, seen.as_deref(), authority.now()).await {
                Ok(since) => {
                    // What ended before the first look is not known.
                    let ended = if after.is_none() { EndedTokens::anything() } else { since.ended };
                    let position = since.position;
                    (after, seen) = (Some(position), since.seen);
                    let is_due = told_at
                        .is_none_or(|at| at.elapsed() >= Duration::from_secs(ended_tokens::BEAT));
                    if is_due || ended != EndedTokens::default() {
                        following.0.tell(Told { ended, position });
                        told_at = Some(Instant::now());
                    }
                }
                // Without beats, guards ask about each token. The database may be another one afterwards.
                Err(error) => {
                    (after, seen) = (None, None);
                    tracing::warn!(%error, "guards cannot be told of ended tokens just now");
                    sleep(LATER).await;
                }
            }
            let _ = timeout(TURN, feed.wake.notified()).await;
            // Of many that end at once, a reading tells together.
            sleep(TOGETHER).await;
        }
    }

    /// What ends from now on, for a gateway in the same process. It ends with
    /// [`Ras::follow_ended_tokens`]; who is too far behind has to ask about all tokens.
    pub fn ended_tokens(&self) -> broadcast::Receiver<Arc<Told>> {
        self.0.feed.listen()
    }
}

/// POST /ended_tokens: events for a guard.
pub(super) async fn ended_tokens(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let authority = &ras.0.authority;
    let admission = &ras.0.admission;
    let url = authority.issuer.endpoint(ended_tokens::PATH);
    let request =
        match client_request(authority, admission, &url, Endpoint::EndedTokens, request).await {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let after = match asked(&request) {
        Ok(after) => after,
        Err(refusal) => {
            let ClientRequest { sender, event, .. } = request;
            return conclude(authority, admission, &sender, event, refusal.into()).await;
        }
    };
    if let Err(busy) = admission.introspection(request.client.id()) {
        return answer::throttled(busy.0);
    }
    if !ras.0.feed.is_followed.load(Ordering::SeqCst) {
        return answer::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            "Nobody reads here just now what has ended; ask about each token.",
        );
    }
    let Some(room) = ras.0.feed.streams.take(request.client.id()) else {
        return answer::throttled(5);
    };
    // First it listens, then it reads what was before: between the two nothing is missed.
    let listener = ras.0.feed.listen();
    let first = match caught_up(&authority.store, after, &ras).await {
        Ok(first) => first,
        Err(error) => return broken(&error),
    };
    let stream = Stream {
        first: Some(Arc::new(first)),
        listener,
        until: Instant::now() + LONGEST,
        _room: room,
    };
    let mut response = Response::new(Body::from_stream(futures::stream::unfold(stream, next)));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx collects what it passes on otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// How far the guard has heard, if it may hear.
fn asked<D>(request: &ClientRequest<D>) -> Result<Option<Position>, Refusal> {
    if request.client.is_public() {
        return Err(Refusal::ClientAuthenticationMissing);
    }
    if request.client.record().resources.is_empty() {
        return Err(Refusal::NotAGuard);
    }
    // A text that is no position of ours says nothing about what was heard.
    let after = request.form.optional("after");
    Ok(after.map(|text| {
        let none = Position { next: i64::MAX, read_at: passavant_proto::time::Timestamp(0) };
        Position::parse(text).unwrap_or(none)
    }))
}

async fn caught_up(store: &Store, after: Option<Position>, ras: &Ras) -> Result<Told, StoreError> {
    let since = store.ended_tokens(after, None, ras.0.authority.now()).await?;
    let ended = if after.is_none() { EndedTokens::anything() } else { since.ended };
    Ok(Told { ended, position: since.position })
}

struct Stream {
    first: Option<Arc<Told>>,
    listener: broadcast::Receiver<Arc<Told>>,
    until: Instant,
    _room: Place,
}

/// The next event. The stream ends when there is nothing to be heard any more, or when its time is over:
/// the guard comes again, and says how far it has heard.
async fn next(mut stream: Stream) -> Option<(Result<Bytes, Infallible>, Stream)> {
    let told = match stream.first.take() {
        Some(first) => first,
        None if Instant::now() >= stream.until => return None,
        None => {
            let silence = Duration::from_secs(ended_tokens::SILENCE);
            // Silent, closed, or too far behind.
            timeout(silence, stream.listener.recv()).await.ok()?.ok()?
        }
    };
    let Told { ended, position } = &*told;
    let event =
        format!("event: {}\nid: {position}\ndata: {}\n\n", ended_tokens::EVENT, ended.to_value());
    Some((Ok(Bytes::from(event)), stream))
}
