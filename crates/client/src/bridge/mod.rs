//! The stdio bridge: an MCP server on standard input and output that passes every message on to a
//! remote one, adds this person's tokens, and renews them without a word. Messages pass as they are,
//! in both eras of the protocol: with sessions (up to 2025-11-25), and stateless (since 2026-07-28).
//!
//! The era is each message's own: clients probe in one and go on in the other.

mod body;
mod headers;
mod message;
mod post;
mod session;

use crate::{client::Client, error::Error, vault::Access};
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

/// How long a request waits for a person in the browser before it is answered; the sign-in goes on.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long the end of input lets requests under way finish.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a notification may hold up the lines after it.
const NOTIFICATION: Duration = Duration::from_secs(10);
/// How long a cancellation waits for what it cancels to arrive.
const OVERTAKING: Duration = Duration::from_millis(250);
/// How long a request that was called back may still be answered.
const AFTERMATH: Duration = Duration::from_secs(5);
/// How long the last errors may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// JSON-RPC "internal error": the only code for what goes wrong between client and server.
const FAILED: i64 = -32603;

/// A bridge to one MCP server. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    client: Client,
    url: String,
    http: reqwest::Client,
    state: Mutex<State>,
    /// Cancellations on their way.
    cancelling: AtomicUsize,
    /// Taken by the one task that begins a session anew.
    renewing: tokio::sync::Mutex<()>,
    out: mpsc::Sender<String>,
    /// Standard output is gone, or the person told us to stop.
    stop: Notify,
}

/// Longest wait for a renewal that is under way at the end.
const SETTLES: Duration = Duration::from_secs(3);

#[derive(Default)]
struct State {
    session: Session,
    tools: headers::Tools,
    /// Requests under way by id, as [`key`] spells it.
    under_way: HashMap<String, UnderWay>,
    /// Lines that wait for the answer to an `initialize`.
    held: VecDeque<String>,
    /// The last revision that a stateless message named.
    stateless: Option<String>,
    /// Attempts to get a token, by what they are for.
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
    /// Of the era of sessions.
    Session,
    /// `initialize`, on which everything after it waits.
    Initialize,
    /// One of several, which cannot be called back alone.
    Batch,
    Stateless,
    /// `subscriptions/listen`: it has no end of its own.
    Endless,
}

impl UnderWay {
    fn is_waited_for(&self) -> bool {
        self.kind != Kind::Endless && !self.progress.cancelled.load(Relaxed)
    }
}

/// How far a request has come, for a cancellation that follows it.
#[derive(Default)]
struct Progress {
    /// The server has it, or gets it just now.
    sent: AtomicBool,
    /// The server has begun to answer.
    taken: Notify,
    /// The client does not wait for it any more, but the server may still answer.
    cancelled: AtomicBool,
}

/// One attempt to get a token, shared by all the requests that wait for it.
type Flight = SharedFuture<BoxFuture<'static, Result<Access, Arc<Error>>>>;

/// Why a message did not get through, in words for the agent and its person.
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
    /// A bridge from `input` and `output` to the MCP server at `url`. It ends with the input, when the
    /// output is gone, or when `stop` resolves.
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
        // What renews the sign-in is seen to its end: the refresh token that was sent is used up.
        let _ = timeout(SETTLES, client.settle()).await;
        // Lines that are written already still reach the client.
        let _ = timeout(Duration::from_secs(1), writer).await;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn emit(&self, line: String) {
        // Without a reader the bridge is about to stop.
        let _ = self.0.out.send(line).await;
    }

    /// Lines of the client until there are no more; then what is under way may finish.
    async fn read(&self, input: impl AsyncRead + Unpin) {
        // Without a bound, so that the end of the input is seen whatever the lines before it wait for.
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

    /// Takes line after line. Those after an `initialize` wait for its answer, but the end of the
    /// input and a cancellation of what is under way do not.
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
                            // Nobody is left to wait for the answer, or for long.
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

    /// Whether a line cancels a request that is under way.
    fn cancels(&self, line: &str) -> bool {
        let Ok(Line::Notification(envelope)) = Line::parse(line) else { return false };
        envelope.method() == "notifications/cancelled"
            && self.state().under_way.contains_key(&cancelled(&envelope))
    }

    /// Stops what is under way, and says so to whoever waits for it.
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
        // Whoever does not read any more does not hold up the end.
        let _ = timeout(LAST_WORDS, told).await;
    }

    /// Routes one line. Requests run beside each other; what has to keep its order is waited for: of
    /// an `initialize`, until what is returned resolves.
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
                // Session id and revision are in the answer, and belong on all that follows.
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
                // In order, or a strict server refuses the requests after it.
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

    /// Passes a request (or batch) on in a task of its own; resolves when it is answered.
    fn spawn(&self, text: &str, ids: Vec<String>, kind: Kind) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        let (bridge, text, held) = (self.clone(), text.to_owned(), ids.clone());
        let progress = Arc::new(Progress::default());
        let noted = Arc::clone(&progress);
        // The task waits until it is on the list, so that it cannot end before it is there.
        let (go, listed) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _ = listed.await;
            bridge.pass_on(&text, &ids, &noted).await;
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

    /// Whether the client waits for an answer with this id.
    fn is_in_use(&self, id: &str) -> bool {
        self.state()
            .under_way
            .get(&key(id))
            .is_some_and(|held| !held.progress.cancelled.load(Relaxed))
    }

    /// Takes a request off the list, if what is there is still it.
    fn forget(&self, key: &str, progress: &Arc<Progress>) {
        let mut state = self.state();
        if state.under_way.get(key).is_some_and(|held| Arc::ptr_eq(&held.progress, progress)) {
            state.under_way.remove(key);
        }
    }

    /// A cancellation is of the era of what it cancels. Stateless: closing the stream says it all, and
    /// the server never hears of ids. With a session: the server is told, and may still answer.
    fn cancel(&self, text: &str, envelope: &message::Envelope<'_>) {
        let id = cancelled(envelope);
        let progress = {
            let mut state = self.state();
            let unheard = state.stateless.is_some() && !state.session.is_begun();
            match state.under_way.get_mut(&id) {
                // The server has not heard of it, or hears of the end by the connection.
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
                // Not before what it cancels, or the server takes it for nothing.
                let _ = timeout(OVERTAKING, progress.taken.notified()).await;
            }
            let _ = timeout(NOTIFICATION, bridge.notify(&text)).await;
            bridge.0.cancelling.fetch_sub(1, Relaxed);
            if let Some((progress, task)) = progress {
                // An answer that crosses it is passed on; after that nobody listens any more.
                tokio::time::sleep(AFTERMATH).await;
                task.abort();
                bridge.forget(&id, &progress);
            }
        });
    }

    /// A live token. Of all the requests that need one, one asks; a person who has to sign in first is
    /// waited for, but not for longer than an agent would wait.
    async fn access(&self) -> Result<Access, Trouble> {
        let (client, url) = (self.0.client.clone(), self.0.url.clone());
        self.asked(String::new(), async move { client.access(&url).await }).await
    }

    /// The outcome of an attempt to get a token, which everyone shares who asks for the same `what` while
    /// it lasts. It goes on when nobody waits for it any more: a sign-in in the browser must find its
    /// listener, and a refresh token that was sent its successor.
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
                    "Your browser was asked, and has not answered yet. Finish it there, then try again. If no page \
                     opened, or the page shows an error, run `passavant login` in a terminal; for a consent outside your \
                     company, `passavant tools {}`.",
                    self.0.url
                ),
            )),
        }
    }

    /// An error in words that tell a person what to do.
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
            Error::EnrolmentEnded { .. } => Trouble::new(
                "sign_in_needed",
                format!(
                    "{idp} does not know this computer any more, or your account is switched off. Run \
                     `passavant login`, then try again; if the sign-in page refuses you, ask IT."
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
                format!("The sign-in in the browser did not work out: {what}. Try again."),
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

    /// Answers requests with an error of the bridge's own.
    async fn fail(&self, ids: &[String], trouble: &Trouble) {
        let data = json!({"bridge": "passavant", "kind": trouble.kind, "url": self.0.url});
        for id in ids {
            let held = self.state().under_way.get(&key(id)).map(|held| Arc::clone(&held.progress));
            if held.is_some_and(|progress| progress.cancelled.load(Relaxed)) {
                // Nobody waits for it.
                continue;
            }
            self.emit(error_line(id, FAILED, &sentence(&trouble.text), &data)).await;
        }
    }
}

/// The id that a cancellation names, as [`key`] spells it.
fn cancelled(envelope: &message::Envelope<'_>) -> String {
    let id = envelope.params().and_then(|params| params.request_id);
    id.map(|id| key(id.get())).unwrap_or_default()
}

/// An error text on one line.
fn sentence(text: &str) -> String {
    one_line(&text.replace("\nhint: ", ". Hint: "))
}

/// Answers every request with `text`, where there is nothing to bridge to: an agent shows it, and its
/// person can act on it.
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
