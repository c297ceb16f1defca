//! Adapters: MCP servers without Streamable HTTP behind the gateway, as if they had it. The server
//! is a program on standard streams, or uses the HTTP+SSE transport of 2024-11-05. An adapter
//! listens on a local port and requires a secret that only this process knows, so that the gateway
//! cannot be bypassed.

mod message;
mod queue;
mod session;
mod sse;
mod stdio;

use crate::listener::{Ingress, accept, bind};
use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
    routing::post,
};
use futures::StreamExt;
use message::Message;
use passavant_gateway::CALLER;
use passavant_outbound::{Answer, Outbound, Reach};
use passavant_proto::{
    mcp::message::{INVALID_REQUEST, PARSE_ERROR},
    secret::{Secret, equal_in_constant_time},
    time::Entropy,
};
use serde_json::{json, value::RawValue};
use session::{Gone, Session};
use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

pub use sse::Sse;
pub use stdio::Command;

/// The header that proves that a request comes from the gateway of this process.
pub const OWN: HeaderName = HeaderName::from_static("passavant-adapter");
/// Concurrent sessions of one MCP server: each may be a process.
const SESSIONS: usize = 64;
/// Concurrent sessions of one caller. A further one ends the caller's least recently used session.
const SHARE: usize = 8;
/// A session that was unused for this long is ended when there is no other room.
const MAKES_WAY: Duration = Duration::from_mins(2);
/// Maximum number of callers whose failures are remembered.
const REMEMBERED: usize = 1024;
/// A session that was unused for this long is ended.
const UNUSED: Duration = Duration::from_mins(30);
/// Largest message in either direction, in bytes.
const LARGEST: usize = 32 * 1024 * 1024;
/// Concurrent connections of the gateway.
const CONNECTIONS: usize = 4096;
/// Longest pause after a server that ended at once.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// A server that ran for less than this has failed.
const LIVED: Duration = Duration::from_secs(5);
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The transport of a server without Streamable HTTP.
#[derive(Clone)]
pub enum Server {
    /// A program.
    Command(Command),
    /// The HTTP+SSE transport.
    Sse(Sse),
}

/// Whether sessions share a process, or a stream of the older transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sessions {
    /// Each session has its own.
    #[default]
    Own,
    /// All sessions share one.
    Shared,
}

/// A link to a server: lines to it, lines from it, and a signal for its end.
pub struct Link {
    pub to: mpsc::Sender<String>,
    pub from: mpsc::Receiver<String>,
    /// Dropping or cancelling it ends the server. It is cancelled when the server has ended.
    pub ended: CancellationToken,
}

struct Adapter {
    name: String,
    server: Server,
    sessions: Sessions,
    secret: Secret,
    entropy: Entropy,
    held: Mutex<HashMap<String, LiveSession>>,
    /// By owner: the link of all callers, if sessions are shared; otherwise each caller's link for
    /// requests without a session id.
    shared: tokio::sync::Mutex<HashMap<String, Arc<Session>>>,
    /// By caller, so that nobody waits because of another caller's sessions.
    failures: Mutex<HashMap<String, Failures>>,
}

/// A session that has begun, and its caller.
struct LiveSession {
    caller: String,
    session: Arc<Session>,
}

/// Removes a session again if its start fails: its caller went away, or the server refused.
struct Beginning {
    adapter: Arc<Adapter>,
    id: String,
    kept: bool,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if !self.kept
            && let Some(held) = self.adapter.held().remove(&self.id)
        {
            held.session.end();
        }
    }
}

/// How often the server ended at once, and when it may be started again.
#[derive(Default)]
struct Failures {
    count: u32,
    next: Option<Instant>,
}

/// A running adapter.
pub struct Started {
    /// The URL at which the gateway reaches the MCP server.
    pub upstream: String,
    /// The value that the gateway has to send in [`OWN`].
    pub secret: Secret,
}

/// Starts an adapter for one MCP server.
pub async fn start(
    name: &str,
    server: Server,
    sessions: Sessions,
    entropy: &Entropy,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Started> {
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let upstream = format!("http://{}/mcp", listener.local_addr()?);
    let secret = entropy.secret();
    let adapter = Arc::new(Adapter {
        name: name.to_owned(),
        server,
        sessions,
        secret: secret.clone(),
        entropy: entropy.clone(),
        held: Mutex::default(),
        shared: tokio::sync::Mutex::default(),
        failures: Mutex::default(),
    });
    let router = Router::new()
        .route("/mcp", post(send).get(listen).delete(end))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(Arc::clone(&adapter));
    tasks.spawn(accept(listener, Ingress::default(), router, CONNECTIONS, stop.clone()));
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(Duration::from_mins(1)) => {
                    adapter.end_unused();
                    adapter.end_unused_shared().await;
                }
            }
        }
        adapter.end_all().await;
    });
    Ok(Started { upstream, secret })
}

impl Adapter {
    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, LiveSession>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_unused(&self) {
        self.held().retain(|_, LiveSession { session, caller }| {
            if session.is_ended() {
                self.ended(session, caller);
            }
            let unused = session.is_ended() || session.unused_for() > UNUSED;
            if unused {
                session.end();
            }
            !unused
        });
    }

    async fn end_all(&self) {
        let held: Vec<_> = self.held().drain().map(|(_, held)| held.session).collect();
        let shared: Vec<_> = self.shared.lock().await.drain().map(|(_, shared)| shared).collect();
        for session in held.iter().chain(&shared) {
            session.end();
        }
        // All programs together get a moment to end by themselves; then they are killed.
        let gone =
            futures::future::join_all(held.iter().chain(&shared).map(|session| session.gone()));
        let _ = timeout(stdio::GRACE * 2 + Duration::from_secs(1), gone).await;
    }

    /// Ends shared links that were unused for long and have no session left.
    async fn end_unused_shared(&self) {
        self.shared.lock().await.retain(|_, session| {
            let unused =
                session.is_ended() || (session.is_alone() && session.unused_for() > UNUSED);
            if unused {
                session.end();
            }
            !unused
        });
    }

    /// The key for counting failures, and for the link of requests without a session.
    fn owner<'a>(&self, caller: &'a str) -> &'a str {
        match self.sessions {
            Sessions::Own => caller,
            Sessions::Shared => "",
        }
    }

    /// Opens a link to the server. It is refused for a while after the server ended at once.
    async fn open(&self, caller: &str) -> Result<Arc<Session>, Refused> {
        {
            let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            let held = failures.get(self.owner(caller)).and_then(|failures| failures.next);
            if let Some(left) = held.and_then(|next| next.checked_duration_since(Instant::now())) {
                return Err(Refused::Waits(left.as_secs() + 1));
            }
        }
        let opened = match &self.server {
            Server::Command(command) => command.start(&self.name),
            Server::Sse(sse) => sse.open().await,
        };
        let link = match opened {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(
                    server = self.name,
                    error = format!("{error:#}"),
                    "the MCP server was not started"
                );
                self.failed(caller);
                return Err(Refused::NotStarted(format!("{error:#}")));
            }
        };
        Ok(Session::over(link, self.sessions == Sessions::Shared))
    }

    fn failed(&self, caller: &str) {
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if all.len() >= REMEMBERED {
            all.retain(|_, failures| failures.next.is_some_and(|next| next > now));
        }
        let failures = all.entry(self.owner(caller).to_owned()).or_default();
        failures.count += 1;
        let wait = Duration::from_secs(1 << failures.count.min(6)).min(LONGEST_WAIT);
        failures.next = Some(Instant::now() + wait);
    }

    /// Records the end of a server.
    fn ended(&self, session: &Session, caller: &str) {
        if !session.is_first_told_of() {
            return;
        }
        if session.age() < LIVED {
            if !session.was_told_to_end() {
                self.failed(caller);
            }
        } else {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.remove(self.owner(caller));
        }
    }

    /// The link for requests without a session: the one of all callers, or this caller's own. It is
    /// started if needed.
    async fn shared(&self, caller: &str) -> Result<Arc<Session>, Refused> {
        let mut shared = self.shared.lock().await;
        let owner = self.owner(caller);
        if let Some(session) = shared.get(owner) {
            if !session.is_ended() {
                return Ok(Arc::clone(session));
            }
            self.ended(session, caller);
            shared.remove(owner);
        }
        if shared.len() >= SESSIONS {
            // If each caller has their own, the least recently used one is ended, as among
            // sessions.
            let unused =
                shared.iter().map(|(owner, session)| (session.unused_for(), owner.clone()));
            let oldest = unused.filter(|(unused, _)| *unused > MAKES_WAY).max();
            let gone = oldest.and_then(|(_, owner)| shared.remove(&owner)).ok_or(Refused::Full)?;
            gone.end();
        }
        let session = self.open(caller).await?;
        shared.insert(owner.to_owned(), Arc::clone(&session));
        Ok(session)
    }

    /// The session that a request belongs to.
    async fn session_of(&self, headers: &HeaderMap, caller: &str) -> Result<Arc<Session>, Refused> {
        let Some(id) = headers.get(SESSION_ID) else { return self.shared(caller).await };
        let id = id.to_str().unwrap_or_default();
        let found =
            self.held().get(id).map(|held| (held.caller == caller, Arc::clone(&held.session)));
        let (_, session) = found.filter(|(own, _)| *own).ok_or(Refused::NoSession)?;
        if session.is_ended() {
            self.held().remove(id);
            self.ended(&session, caller);
            return Err(Refused::NoSession);
        }
        Ok(session)
    }

    /// Makes room for one more session of a caller, whose own least recently used session is ended
    /// first.
    fn make_room(&self, caller: &str) -> Result<(), Refused> {
        self.end_unused();
        let mut held = self.held();
        let oldest = |held: &HashMap<String, LiveSession>, of: &dyn Fn(&LiveSession) -> bool| {
            let fitting = held.iter().filter(|(_, held)| of(held));
            fitting.max_by_key(|(_, held)| held.session.unused_for()).map(|(id, _)| id.clone())
        };
        let own = held.values().filter(|held| held.caller == caller).count();
        let goes = if own >= SHARE {
            oldest(&held, &|held| held.caller == caller)
        } else if held.len() >= SESSIONS {
            oldest(&held, &|held| held.session.unused_for() > MAKES_WAY)
        } else {
            return Ok(());
        };
        let gone = goes.and_then(|id| held.remove(&id)).ok_or(Refused::Full)?;
        gone.session.end();
        Ok(())
    }

    /// Starts a session for `initialize`.
    async fn begin(self: &Arc<Self>, caller: &str) -> Result<(Beginning, Arc<Session>), Refused> {
        self.make_room(caller)?;
        let session = match self.sessions {
            Sessions::Own => self.open(caller).await?,
            Sessions::Shared => Session::beside(&self.shared(caller).await?),
        };
        // Others may have started meanwhile.
        self.make_room(caller)?;
        let id = self.entropy.id();
        let held = LiveSession { caller: caller.to_owned(), session: Arc::clone(&session) };
        self.held().insert(id.clone(), held);
        Ok((Beginning { adapter: Arc::clone(self), id, kept: false }, session))
    }
}

/// Why a message is not delivered to the server.
#[derive(Debug)]
enum Refused {
    NoSession,
    Full,
    Busy,
    Waits(u64),
    NotStarted(String),
    Ended,
    Message(i64, &'static str),
}

impl Refused {
    fn respond(self, id: Option<&RawValue>) -> Response<Body> {
        let (status, code, text) = match self {
            Self::NoSession => {
                (StatusCode::NOT_FOUND, -32001, "There is no such session.".to_owned())
            }
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                -32000,
                "Too many sessions are open; try again later.".to_owned(),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                -32000,
                "The MCP server has too many requests in progress; try again later.".to_owned(),
            ),
            Self::Waits(seconds) => {
                let text = format!(
                    "The MCP server ended at once when it was last started; it can be started \
                     again in {seconds} s."
                );
                (StatusCode::SERVICE_UNAVAILABLE, -32000, text)
            }
            Self::NotStarted(why) => {
                let why = passavant_proto::others_text::shown(&why, 300);
                (StatusCode::BAD_GATEWAY, -32000, format!("The MCP server was not started: {why}"))
            }
            Self::Ended => (
                StatusCode::BAD_GATEWAY,
                -32000,
                "The MCP server ended before it answered.".to_owned(),
            ),
            Self::Message(code, text) => (StatusCode::BAD_REQUEST, code, text.to_owned()),
        };
        let body = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}});
        let json = [(header::CONTENT_TYPE, "application/json")];
        (status, json, body.to_string()).into_response()
    }
}

/// The caller, as the gateway names it: a text for one person using one client.
fn caller_of(headers: &HeaderMap) -> String {
    let caller = headers.get(&CALLER).and_then(|value| value.to_str().ok());
    caller.unwrap_or_default().to_owned()
}

fn is_ours(adapter: &Adapter, headers: &HeaderMap) -> bool {
    let mut sent = headers.get_all(&OWN).iter().filter_map(|value| value.to_str().ok());
    sent.next().is_some_and(|sent| equal_in_constant_time(sent, adapter.secret.expose()))
}

async fn send(
    State(adapter): State<Arc<Adapter>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if !is_ours(&adapter, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Ok(text) = std::str::from_utf8(&body) else {
        return Refused::Message(PARSE_ERROR, "The message is not UTF-8.").respond(None);
    };
    let message = match Message::read(text) {
        Ok(message) => message,
        Err(why) => return Refused::Message(INVALID_REQUEST, why).respond(None),
    };
    let caller = caller_of(&headers);
    let begins = message.method() == Some("initialize") && !headers.contains_key(SESSION_ID);
    let (begun, session) = if begins {
        match adapter.begin(&caller).await {
            Ok((begun, session)) => (Some(begun), session),
            Err(refused) => return refused.respond(message.id()),
        }
    } else {
        match adapter.session_of(&headers, &caller).await {
            Ok(session) => (None, session),
            Err(refused) => return refused.respond(message.id()),
        }
    };
    session.used();
    if !message.is_request() {
        return match session.pass_on(&message).await {
            Ok(()) => StatusCode::ACCEPTED.into_response(),
            Err(_) => Refused::NoSession.respond(None),
        };
    }
    let mut response = match session.ask(&message).await {
        Ok(answers) => answered(answers, message.id()).await,
        Err(Gone::Busy) => Refused::Busy.respond(message.id()),
        Err(Gone::Ended) => {
            adapter.ended(&session, &caller);
            Refused::Ended.respond(message.id())
        }
    };
    if let Some(mut begun) = begun {
        if response.status().is_success()
            && let Ok(id) = HeaderValue::from_str(&begun.id)
        {
            response.headers_mut().insert(SESSION_ID, id);
            begun.kept = true;
        } else if session.is_ended() {
            // It ended before it had answered `initialize`.
            adapter.ended(&session, &caller);
        }
    }
    response
}

/// Responds with JSON if the answer comes first, otherwise with a stream.
async fn answered(mut answers: session::Answers, id: Option<&RawValue>) -> Response<Body> {
    let Some(first) = answers.next().await else { return Refused::Ended.respond(id) };
    if first.is_last {
        let json = [(header::CONTENT_TYPE, "application/json")];
        return (json, first.text).into_response();
    }
    // If the program ends before the answer, the caller gets an error; otherwise it would wait for
    // ever.
    let ended = serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {"code": ENDED,
        "message": "The MCP server's program ended before it had answered."}})
    .to_string();
    let first = futures::stream::iter([first]);
    let all = first.chain(answers).map(Some).chain(futures::stream::iter([None]));
    let all = all.scan(false, move |is_answered, answer| {
        let told = match answer {
            Some(answer) => {
                *is_answered |= answer.is_last;
                Some(answer.text)
            }
            None => (!*is_answered).then(|| ended.clone()),
        };
        std::future::ready(told)
    });
    events(all)
}

/// JSON-RPC code for a request whose program has ended.
const ENDED: i32 = -32000;

fn events(messages: impl futures::Stream<Item = String> + Send + 'static) -> Response<Body> {
    let events =
        messages.map(|text| Ok::<_, Infallible>(format!("event: message\ndata: {text}\n\n")));
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (kind, Body::from_stream(events)).into_response()
}

async fn listen(State(adapter): State<Arc<Adapter>>, headers: HeaderMap) -> Response<Body> {
    if !is_ours(&adapter, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if !headers.contains_key(SESSION_ID) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    match adapter.session_of(&headers, &caller_of(&headers)).await {
        Ok(session) => {
            session.used();
            events(session.listen())
        }
        Err(refused) => refused.respond(None),
    }
}

async fn end(State(adapter): State<Arc<Adapter>>, headers: HeaderMap) -> Response<Body> {
    if !is_ours(&adapter, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let id = headers.get(SESSION_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let caller = caller_of(&headers);
    let held = {
        let mut held = adapter.held();
        if held.get(id).is_some_and(|held| held.caller == caller) { held.remove(id) } else { None }
    };
    match held {
        Some(LiveSession { session, .. }) => {
            session.end();
            StatusCode::NO_CONTENT.into_response()
        }
        None => Refused::NoSession.respond(None),
    }
}

/// The transport of an MCP server, as its first answers show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It answers a POST as MCP requires, with its name; `None` if it requires authentication
    /// first.
    Http(Option<String>),
    /// It answers GET with a stream of the older transport.
    Sse,
    /// Anything else, described in words.
    Else(String),
}

/// Finds out which transport an MCP server uses.
pub async fn probe(outbound: &Outbound, url: &str, credential: &[(&str, &str)]) -> Found {
    let reach = Reach::of_trusted_url(url);
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "passavant guard", "version": env!("CARGO_PKG_VERSION")}}});
    let asked = outbound.json_with("POST", url, reach, None, Some(&begin), credential);
    let answer = match timeout(PROBE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            // In the middle of a sentence that says itself what to do.
            let what = error.to_string();
            return Found::Else(what.split("\nhint: ").next().unwrap_or_default().to_owned());
        }
        Err(_) => return Found::Else("it does not answer in time".to_owned()),
    };
    if (200..300).contains(&answer.status)
        && let Some(name) = server_name(&answer)
    {
        // End the session that was only started for this question.
        let session = answer.headers.get(&SESSION_ID).and_then(|id| id.to_str().ok());
        if let Some(session) = session {
            let with: Vec<_> =
                credential.iter().copied().chain([("mcp-session-id", session)]).collect();
            let _ =
                timeout(PROBE, outbound.json_with("DELETE", url, reach, None, None, &with)).await;
        }
        return Found::Http(Some(name));
    }
    if answer.status == 401 {
        return Found::Http(None);
    }
    if matches!(answer.status, 400 | 404 | 405 | 415) {
        let asked = outbound.json_with("GET", url, reach, None, None, credential);
        let stream = timeout(PROBE, asked).await.ok().and_then(Result::ok);
        if stream.is_some_and(|stream| stream.status == 200 && announces_endpoint(&stream)) {
            return Found::Sse;
        }
    }
    let words =
        passavant_proto::others_text::shown(String::from_utf8_lossy(&answer.body).trim(), 200);
    Found::Else(format!("it answers HTTP {} to `initialize`: {words}", answer.status))
}

/// Longest wait for an answer to a question at the start.
const PROBE: Duration = Duration::from_secs(5);

fn announces_endpoint(stream: &Answer) -> bool {
    let kind = stream.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
        && String::from_utf8_lossy(&stream.body)
            .lines()
            .any(|line| line.trim() == "event: endpoint")
}

/// The server's name in a response to `initialize`.
fn server_name(answer: &Answer) -> Option<String> {
    let message: serde_json::Value = answer.json().ok()?;
    let info = &message.get("result")?["serverInfo"];
    let name = info["name"].as_str().unwrap_or("a server without a name");
    Some(passavant_proto::others_text::shown(name, 100))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// An adapter for a shell script; it does not listen.
    fn adapter(script: &str) -> Arc<Adapter> {
        let command = Command {
            program: "sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            folder: std::env::temp_dir(),
            environment: BTreeMap::new(),
        };
        let entropy = passavant_host::entropy();
        Arc::new(Adapter {
            name: "script".to_owned(),
            server: Server::Command(command),
            sessions: Sessions::Own,
            secret: entropy.secret(),
            entropy,
            held: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            failures: Mutex::default(),
        })
    }

    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;

    /// Posts a message. Returns the status, and the session that it started or belongs to.
    async fn post(
        adapter: &Arc<Adapter>,
        caller: &str,
        session: Option<&str>,
        body: &str,
    ) -> (u16, Option<String>) {
        let mut headers = HeaderMap::new();
        headers.insert(OWN, adapter.secret.expose().parse().unwrap());
        headers.insert(CALLER, caller.parse().unwrap());
        if let Some(session) = session {
            headers.insert(SESSION_ID, session.parse().unwrap());
        }
        let response =
            send(State(Arc::clone(adapter)), headers, Bytes::from(body.to_owned())).await;
        let begun = response.headers().get(SESSION_ID).map(|id| id.to_str().unwrap().to_owned());
        (response.status().as_u16(), begun)
    }

    /// A script that answers every request.
    const ANSWERS: &str = r#"while read -r l; do id=$(printf '%s' "$l" | sed 's/.*"id":\([0-9]*\).*/\1/'); printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id"; done"#;

    #[tokio::test]
    async fn a_caller_has_a_share_of_the_sessions_and_nobody_s_but_their_own() {
        let adapter = adapter(ANSWERS);
        let mut sessions = Vec::new();
        for _ in 0..=SHARE {
            let (status, begun) = post(&adapter, "max", None, INITIALIZE).await;
            assert_eq!(status, 200);
            sessions.push(begun.unwrap());
        }
        assert_eq!(adapter.held().len(), SHARE, "the one that was not used for longest made way");
        let ping = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
        assert_eq!(post(&adapter, "max", Some(&sessions[0]), ping).await.0, 404);
        assert_eq!(post(&adapter, "max", sessions.last().map(String::as_str), ping).await.0, 200);
        assert_eq!(post(&adapter, "erin", sessions.last().map(String::as_str), ping).await.0, 404);
        assert_eq!(post(&adapter, "erin", None, INITIALIZE).await.0, 200);
        // Without a session id, each caller has their own process.
        for caller in ["max", "erin"] {
            assert_eq!(post(&adapter, caller, None, ping).await.0, 200);
        }
        assert_eq!(adapter.shared.lock().await.len(), 2);
        adapter.end_all().await;
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_tried_again_after_a_wait_by_its_caller_alone() {
        let adapter = adapter("exit 1");
        let (status, begun) = post(&adapter, "max", None, INITIALIZE).await;
        assert_eq!((status, begun), (502, None));
        assert_eq!(post(&adapter, "max", None, INITIALIZE).await.0, 503, "not at once");
        assert_eq!(post(&adapter, "erin", None, INITIALIZE).await.0, 502, "hers is tried");
        assert!(adapter.held().is_empty());
    }

    #[tokio::test]
    async fn what_a_server_has_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let file = file.display();
        // A program that ends with its input, and one that ignores everything.
        for script in [
            format!("sleep 300 & echo $! > {file}; {ANSWERS}"),
            format!(
                "trap '' TERM; sleep 300 & echo $! > {file}; {ANSWERS}; while :; do sleep 1; done"
            ),
        ] {
            what_was_started_ends(&script, folder.path()).await;
        }
    }

    async fn what_was_started_ends(script: &str, folder: &std::path::Path) {
        let file = folder.join("child");
        let adapter = adapter(script);
        let (status, _) = post(&adapter, "max", None, INITIALIZE).await;
        assert_eq!(status, 200);
        let child: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        assert!(!std::path::Path::new("/proc/self/stat").exists() || lives(), "the baseline");
        adapter.end_all().await;
        for _ in 0..50 {
            if !lives() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it outlived its server");
    }
}
