//! The stdio bridge: an MCP server on standard input and output that forwards every message to a
//! remote one, adds this person's tokens, and renews them silently. Messages are forwarded
//! unchanged, in both eras of the protocol: with sessions (up to 2025-11-25), and stateless (since
//! 2026-07-28).
//!
//! The era is read from each message, because clients probe in one era and continue in the other.

mod body;
mod headers;
mod message;
mod post;
mod session;

use crate::{client::Client, ended::EndedAccess, error::Error, vault::Access};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared as SharedFuture},
};
use message::{INVALID, Line, error_line, key, one_line};
use passavant_outbound::OutboundError;
use serde_json::json;
use session::Session;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Notify, mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

/// How long a request waits for the person in the browser before it is answered with an error. The
/// sign-in continues.
const PATIENCE: Duration = Duration::from_secs(45);
/// After the end of input: how long requests in flight may take to finish.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a notification may delay the lines after it.
const NOTIFICATION: Duration = Duration::from_secs(10);
/// How long a cancellation waits for the request it cancels to reach the server.
const OVERTAKING: Duration = Duration::from_millis(250);
/// How long a cancelled request may still be answered.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Time to write the last errors.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// JSON-RPC "internal error": the only fitting code for failures between client and server.
const FAILED: i64 = -32603;

/// A bridge to one MCP server. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    client: Client,
    url: String,
    http: reqwest::Client,
    state: Mutex<State>,
    /// Number of cancellations in flight.
    cancelling: AtomicUsize,
    /// Held by the one task that starts a new session.
    renewing: tokio::sync::Mutex<()>,
    out: mpsc::Sender<String>,
    /// Standard output is closed, or the person told the bridge to stop.
    stop: Notify,
}

/// At the end: longest wait for a renewal in progress.
const SETTLES: Duration = Duration::from_secs(3);

#[derive(Default)]
struct State {
    session: Session,
    tools: headers::Tools,
    /// Requests in flight by id, as normalized by [`key`].
    under_way: HashMap<String, UnderWay>,
    /// Lines that wait for the response to an `initialize`.
    held: VecDeque<String>,
    /// The last revision that a stateless message named.
    stateless: Option<String>,
    /// Attempts to obtain a token, by their purpose.
    flights: HashMap<String, Flight>,
}

struct UnderWay {
    /// The id as the client wrote it.
    id: String,
    kind: Kind,
    progress: Arc<Progress>,
    task: AbortHandle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A request in the era of sessions.
    Session,
    /// `initialize`: all lines after it wait for its response.
    Initialize,
    /// One request of a batch; it cannot be cancelled individually.
    Batch,
    Stateless,
    /// `subscriptions/listen`: its response has no end of its own.
    Endless,
}

impl UnderWay {
    fn is_waited_for(&self) -> bool {
        self.kind != Kind::Endless && !self.progress.cancelled.load(Relaxed)
    }
}

/// The progress of a request, for a cancellation that follows it.
#[derive(Default)]
struct Progress {
    /// The request was sent, or is being sent.
    sent: AtomicBool,
    /// The server has begun to respond.
    taken: Notify,
    /// The client does not wait for it any more, but the server may still answer.
    cancelled: AtomicBool,
}

/// One attempt to obtain a token, shared by all requests that wait for it.
type Flight = SharedFuture<BoxFuture<'static, Result<Access, Arc<Error>>>>;

/// Why a message was not delivered, in words for the agent and its person.
struct Trouble {
    text: String,
    kind: &'static str,
}

impl Trouble {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), kind }
    }
}

impl Bridge {
    /// Runs a bridge between `input`/`output` and the MCP server at `url`, until the input ends,
    /// the output is closed, or `stop` resolves.
    pub async fn run(
        client: Client,
        url: &str,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin + Send + 'static,
        stop: impl Future<Output = ()>,
    ) -> Result<(), OutboundError> {
        let http = client.outbound().streaming(url)?;
        let (out, lines) = mpsc::channel(256);
        let bridge = Self(Arc::new(Inner {
            client,
            url: url.to_owned(),
            http,
            state: Mutex::default(),
            cancelling: AtomicUsize::new(0),
            renewing: tokio::sync::Mutex::default(),
            out,
            stop: Notify::new(),
        }));
        let writer = tokio::spawn(write(output, lines, bridge.clone()));
        tokio::select! {
            () = bridge.read(input) => {}
            () = stop => bridge.abandon().await,
            () = bridge.0.stop.notified() => bridge.abandon().await,
        }
        bridge.end_session().await;
        let client = bridge.0.client.clone();
        drop(bridge);
        // Let a renewal of the sign-in finish: the refresh token it has sent is used up.
        let _ = timeout(SETTLES, client.settle()).await;
        // Lines that are already queued still reach the client.
        let _ = timeout(Duration::from_secs(1), writer).await;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn emit(&self, line: String) {
        // If the reader is gone, the bridge is about to stop.
        let _ = self.0.out.send(line).await;
    }

    /// Reads the client's lines until the end; after that, requests in flight may finish.
    async fn read(&self, input: impl AsyncRead + Unpin) {
        // The channel is unbounded, so that the end of input is noticed whatever the lines before
        // it wait for.
        let (lines, taken) = mpsc::unbounded_channel();
        tokio::join!(self.read_lines(input, lines), self.take_lines(taken));
        for held in self.state().under_way.values().filter(|held| held.kind == Kind::Endless) {
            held.task.abort();
        }
        let finished = async {
            while self.state().under_way.values().any(UnderWay::is_waited_for)
                || self.0.cancelling.load(Relaxed) > 0
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(DRAIN, finished).await;
        self.abandon().await;
    }

    async fn read_lines(
        &self,
        input: impl AsyncRead + Unpin,
        lines: mpsc::UnboundedSender<String>,
    ) {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let Ok(text) = std::str::from_utf8(&line) else {
                self.emit(error_line("null", -32700, "this line is not UTF-8", &json!({}))).await;
                continue;
            };
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() && lines.send(text.to_owned()).is_err() {
                return;
            }
        }
    }

    /// Takes line after line. Lines after an `initialize` wait for its response; the end of input
    /// and the cancellation of a request in flight do not.
    async fn take_lines(&self, mut lines: mpsc::UnboundedReceiver<String>) {
        let mut answered: Option<oneshot::Receiver<()>> = None;
        loop {
            if let Some(wait) = &mut answered {
                tokio::select! {
                    _ = &mut *wait => answered = None,
                    line = lines.recv() => match line {
                        Some(line) if self.cancels(&line) => drop(self.take(&line).await),
                        Some(line) => self.state().held.push_back(line),
                        None => {
                            // Nobody will read the response, or not for long.
                            if timeout(DRAIN, wait).await.is_err() {
                                self.abandon().await;
                                return;
                            }
                            answered = None;
                        }
                    },
                }
                continue;
            }
            let held = self.state().held.pop_front();
            let line = match held {
                Some(line) => Some(line),
                None => lines.recv().await,
            };
            let Some(line) = line else { return };
            answered = self.take(&line).await;
        }
    }

    /// Whether a line cancels a request in flight.
    fn cancels(&self, line: &str) -> bool {
        let Ok(Line::Notification(envelope)) = Line::parse(line) else { return false };
        envelope.method() == "notifications/cancelled"
            && self.state().under_way.contains_key(&cancelled(&envelope))
    }

    /// Stops the requests in flight, and answers them with an error.
    async fn abandon(&self) {
        let (mut sent, mut unsent) = (Vec::new(), Vec::new());
        {
            let mut state = self.state();
            for (_, held) in state.under_way.drain() {
                held.task.abort();
                if held.is_waited_for() {
                    let was_sent = held.progress.sent.load(Relaxed);
                    if was_sent { &mut sent } else { &mut unsent }.push(held.id);
                }
            }
            for line in state.held.drain(..) {
                match Line::parse(&line) {
                    Ok(Line::Request(envelope)) => unsent.extend(envelope.id_text()),
                    Ok(Line::Batch(ids)) => unsent.extend(ids),
                    _ => {}
                }
            }
        }
        let text = "The connection was closed before the MCP server answered. What was asked may \
                    have been done.";
        let never = "The connection was closed before this was sent to the MCP server.";
        let told = async {
            self.fail(&sent, &Trouble::new("closed", text)).await;
            self.fail(&unsent, &Trouble::new("closed", never)).await;
        };
        // A client that does not read any more must not delay the end.
        let _ = timeout(LAST_WORDS, told).await;
    }

    /// Routes one line. Requests run concurrently; messages whose order matters are awaited here.
    /// For an `initialize`, the caller has to wait until the returned receiver resolves.
    async fn take(&self, text: &str) -> Option<oneshot::Receiver<()>> {
        let line = match Line::parse(text) {
            Ok(line) => line,
            Err(what) => {
                let (code, text) = what;
                self.emit(error_line("null", code, text, &json!({}))).await;
                return None;
            }
        };
        match line {
            Line::Request(envelope) => {
                let version = envelope.stateless_version();
                let ids: Vec<String> = envelope.id_text().into_iter().collect();
                if let Some(id) = ids.iter().find(|id| self.is_in_use(id)) {
                    let text = "a request with this id is under way";
                    self.emit(error_line(id, INVALID, text, &json!({}))).await;
                    return None;
                }
                let begins_session = version.is_none() && envelope.method() == "initialize";
                if begins_session {
                    let mut state = self.state();
                    state.session = state.session.next(text);
                }
                if let Some(version) = &version {
                    self.state().stateless = Some(version.clone());
                }
                let kind = match &version {
                    Some(_) if envelope.method() == "subscriptions/listen" => Kind::Endless,
                    Some(_) => Kind::Stateless,
                    None if begins_session => Kind::Initialize,
                    None => Kind::Session,
                };
                let done = self.spawn(text, ids, kind);
                // The response contains session id and revision, which all later requests need.
                return begins_session.then_some(done);
            }
            Line::Notification(envelope) if envelope.method() == "notifications/cancelled" => {
                self.cancel(text, &envelope);
            }
            Line::Notification(envelope) => {
                let initialized = envelope.method() == "notifications/initialized"
                    && envelope.stateless_version().is_none();
                if initialized {
                    self.state().session.confirmed_by(text);
                }
                // In order, because a strict server refuses the requests that overtake it.
                let _ = timeout(NOTIFICATION, self.notify(text)).await;
                if initialized {
                    self.listen();
                }
            }
            Line::Response => {
                let (bridge, text) = (self.clone(), text.to_owned());
                tokio::spawn(async move { bridge.notify(&text).await });
            }
            Line::Batch(ids) if ids.is_empty() => {
                let _ = timeout(NOTIFICATION, self.notify(text)).await;
            }
            Line::Batch(ids) => drop(self.spawn(text, ids, Kind::Batch)),
        }
        None
    }

    /// Forwards a request (or batch) in a task of its own. The receiver resolves when it is
    /// answered.
    fn spawn(&self, text: &str, ids: Vec<String>, kind: Kind) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        let (bridge, text, held) = (self.clone(), text.to_owned(), ids.clone());
        let progress = Arc::new(Progress::default());
        let noted = Arc::clone(&progress);
        // The task waits until it is listed, so that it cannot end before that.
        let (go, listed) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _ = listed.await;
            Box::pin(bridge.pass_on(&text, &ids, &noted)).await;
            for id in &ids {
                bridge.forget(&key(id), &noted);
            }
            let _ = done.send(());
        });
        let mut state = self.state();
        for id in held {
            let (task, progress) = (task.abort_handle(), Arc::clone(&progress));
            state.under_way.insert(key(&id), UnderWay { id, kind, progress, task });
        }
        drop(state);
        let _ = go.send(());
        finished
    }

    /// Whether the client waits for a response with this id.
    fn is_in_use(&self, id: &str) -> bool {
        self.state()
            .under_way
            .get(&key(id))
            .is_some_and(|held| !held.progress.cancelled.load(Relaxed))
    }

    /// Removes a request from the list, unless another request has taken its id.
    fn forget(&self, key: &str, progress: &Arc<Progress>) {
        let mut state = self.state();
        if state.under_way.get(key).is_some_and(|held| Arc::ptr_eq(&held.progress, progress)) {
            state.under_way.remove(key);
        }
    }

    /// A cancellation follows the era of the request it cancels. Stateless: the stream is closed,
    /// which is all the server has to know. With a session: the cancellation is sent to the server,
    /// which may still answer.
    fn cancel(&self, text: &str, envelope: &message::Envelope<'_>) {
        let id = cancelled(envelope);
        let progress = {
            let mut state = self.state();
            let unheard = state.stateless.is_some() && !state.session.is_begun();
            match state.under_way.get_mut(&id) {
                // The request was not sent yet, or the server notices the end by the closed
                // connection.
                Some(held)
                    if matches!(held.kind, Kind::Stateless | Kind::Endless | Kind::Initialize)
                        || held.kind == Kind::Session && !held.progress.sent.load(Relaxed) =>
                {
                    held.task.abort();
                    state.under_way.remove(&id);
                    return;
                }
                Some(held) if held.kind == Kind::Batch => None,
                Some(held) => {
                    held.progress.cancelled.store(true, Relaxed);
                    Some((Arc::clone(&held.progress), held.task.clone()))
                }
                None if unheard => return,
                None => None,
            }
        };
        let (bridge, text) = (self.clone(), text.to_owned());
        self.0.cancelling.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            if let Some((progress, _)) = &progress {
                // Do not overtake the request it cancels, or the server ignores it.
                let _ = timeout(OVERTAKING, progress.taken.notified()).await;
            }
            let _ = timeout(NOTIFICATION, bridge.notify(&text)).await;
            bridge.0.cancelling.fetch_sub(1, Relaxed);
            if let Some((progress, task)) = progress {
                // A response that crosses the cancellation is still forwarded; after this time it
                // is dropped.
                tokio::time::sleep(AFTERMATH).await;
                task.abort();
                bridge.forget(&id, &progress);
            }
        });
    }

    /// A valid token. Of all requests that need one, one asks for it. If the person has to sign in
    /// first, the request waits, but no longer than an agent would.
    async fn access(&self) -> Result<Access, Trouble> {
        let (client, url) = (self.0.client.clone(), self.0.url.clone());
        self.asked(String::new(), async move { client.access(&url).await }).await
    }

    /// The result of an attempt to obtain a token, shared by all who ask for the same `what` while
    /// it is running. The attempt continues when nobody waits for it any more: a sign-in in the
    /// browser must find its listener, and the response to a refresh must be stored.
    async fn asked(
        &self,
        what: String,
        attempt: impl Future<Output = Result<Access, Error>> + Send + 'static,
    ) -> Result<Access, Trouble> {
        let flight = {
            let mut state = self.state();
            state.flights.retain(|_, flight| flight.peek().is_none());
            state
                .flights
                .entry(what)
                .or_insert_with(|| {
                    let flight = attempt.map(|outcome| outcome.map_err(Arc::new)).boxed().shared();
                    tokio::spawn(flight.clone());
                    flight
                })
                .clone()
        };
        match timeout(PATIENCE, flight).await {
            Ok(Ok(access)) => Ok(access),
            Ok(Err(error)) => Err(self.trouble(&error).await),
            Err(_) => Err(Trouble::new(
                "sign_in_waits",
                format!(
                    "A sign-in is waiting in your browser. Finish it there, then try again. If no \
                     page opened, or the page shows an error, run `passavant login` in a terminal; \
                     for a consent outside your company, `passavant tools {}`.",
                    self.0.url
                ),
            )),
        }
    }

    /// An error in words that tell the person what to do.
    async fn trouble(&self, error: &Error) -> Trouble {
        let idp = &self.0.client.settings().idp;
        match error {
            Error::RefusedByPolicy { .. } => {
                let told = self.0.client.refusal(&self.0.url).await;
                let told = told.unwrap_or_else(|| {
                    format!("Access to {} was refused by the company's policy. Ask IT.", self.0.url)
                });
                Trouble::new("refused_by_policy", told)
            }
            Error::SignInNeeded { .. } => Trouble::new(
                "sign_in_needed",
                format!("Your sign-in at {idp} has ended. Run `passavant login`, then try again."),
            ),
            Error::AccessEnded(ended) => {
                let text = match ended.what {
                    EndedAccess::Server { .. } => ended.sentence(),
                    _ => format!(
                        "{} The user has to run `passavant login` in a terminal; then try again. If the \
                         sign-in page refuses them, they have to ask IT.",
                        ended.sentence()
                    ),
                };
                Trouble::new("access_ended", text)
            }
            Error::EnrolmentEnded { .. } => Trouble::new(
                "sign_in_needed",
                format!(
                    "{idp} does not accept the key of this computer. Run `passavant login --enrol`, then \
                     try again; if the sign-in page refuses you, ask IT."
                ),
            ),
            Error::StepUpNeeded(_) => Trouble::new(
                "step_up_needed",
                format!(
                    "The company's policy wants a fresher sign-in at {idp} for this. Run `passavant \
                     login`, then try again."
                ),
            ),
            Error::ScopesNotGranted { .. } => Trouble::new("scopes_not_granted", error.to_string()),
            Error::Callback(what) => Trouble::new(
                "sign_in_failed",
                format!("The sign-in in the browser failed: {what}. Try again."),
            ),
            Error::Outbound(OutboundError::Unreachable { host, cause })
                if idp.as_str().split('/').nth(2) == Some(host.as_str()) =>
            {
                let text = format!(
                    "Your company's identity provider {idp} did not answer ({cause}). Try again, or tell \
                     IT."
                );
                Trouble::new("unreachable", text)
            }
            Error::Outbound(_) => Trouble::new("unreachable", error.to_string()),
            _ => Trouble::new("no_token", error.to_string()),
        }
    }

    /// Answers requests with an error that the bridge itself reports.
    async fn fail(&self, ids: &[String], trouble: &Trouble) {
        let data = json!({"bridge": "passavant", "kind": trouble.kind, "url": self.0.url});
        for id in ids {
            let held = self.state().under_way.get(&key(id)).map(|held| Arc::clone(&held.progress));
            if held.is_some_and(|progress| progress.cancelled.load(Relaxed)) {
                // It does not wait for a response any more.
                continue;
            }
            self.emit(error_line(id, FAILED, &sentence(&trouble.text), &data)).await;
        }
    }
}

/// The id that a cancellation names, as normalized by [`key`].
fn cancelled(envelope: &message::Envelope<'_>) -> String {
    let id = envelope.params().and_then(|params| params.request_id);
    id.map(|id| key(id.get())).unwrap_or_default()
}

/// An error message as one line.
fn sentence(text: &str) -> String {
    one_line(&text.replace("\nhint: ", ". Hint: "))
}

/// Answers every request with `text`, for a bridge that has no server: the agent shows the text,
/// and its person can act on it.
pub async fn refuse(
    text: &str,
    input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(input).lines();
    let data = json!({"bridge": "passavant", "kind": "not_set_up"});
    while let Some(line) = lines.next_line().await? {
        let ids = match Line::parse(line.trim()) {
            Ok(Line::Request(envelope)) => envelope.id_text().into_iter().collect(),
            Ok(Line::Batch(ids)) => ids,
            _ => Vec::new(),
        };
        for id in ids {
            let line = error_line(&id, FAILED, &sentence(text), &data);
            output.write_all(format!("{line}\n").as_bytes()).await?;
            output.flush().await?;
        }
    }
    Ok(())
}

async fn write(
    mut output: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<String>,
    bridge: Bridge,
) {
    let inner = Arc::downgrade(&bridge.0);
    drop(bridge);
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        let written = async {
            output.write_all(line.as_bytes()).await?;
            output.flush().await
        };
        if written.await.is_err() {
            if let Some(inner) = inner.upgrade() {
                inner.stop.notify_one();
            }
            return;
        }
    }
}
