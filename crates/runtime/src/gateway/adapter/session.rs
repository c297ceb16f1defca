//! Connects clients' messages with one server's lines: every request is sent with an id of our own,
//! and every response goes back to its sender.

use super::{
    Link,
    message::{Members, Message, Written, raw},
    queue::{Queue, Queued, WAITING, WAITING_BYTES, queue},
};
use futures::Stream;
use serde_json::value::RawValue;
use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Requests in flight on one link.
const UNDER_WAY: usize = 1024;
/// Maximum number of a server's requests that wait for an answer, and the longest id of one, in
/// bytes.
const UNANSWERED: usize = 256;
const LONGEST_ID: usize = 256;

/// One message that comes back for a request.
pub(super) struct Answer {
    pub(super) text: String,
    /// Whether it is the response; notifications and requests of the server may precede it.
    pub(super) is_last: bool,
}

/// A request in flight.
struct Pending {
    id: Box<RawValue>,
    token: Option<Box<RawValue>>,
    to: Queue,
    /// A separate channel for the response, so that it arrives however much was sent before.
    last: oneshot::Sender<String>,
    by: Weak<Session>,
}

/// One link to a server, which several sessions may share.
struct SharedLink {
    to: mpsc::Sender<String>,
    ended: CancellationToken,
    next: AtomicU64,
    pending: Mutex<HashMap<u64, Pending>>,
    sessions: Mutex<Vec<Weak<Session>>>,
    /// Several callers use it.
    shared: bool,
    /// Requests of the server by id, oldest first, with the session whose answer counts.
    asked: Mutex<VecDeque<(String, Weak<Session>)>>,
    /// Its end was reported once.
    told_of: AtomicBool,
    begun: Instant,
    told_to_end: AtomicBool,
    /// The result of the first `initialize`, if several sessions share the link.
    initialized: AsyncMutex<Option<Box<RawValue>>>,
}

/// One client's session with a server.
pub(super) struct Session {
    link: Arc<SharedLink>,
    /// It started the link, and ends it.
    owns_link: bool,
    used: Mutex<Instant>,
    stream: Mutex<Option<Queue>>,
    /// Messages that arrived while nobody listened.
    backlog: Mutex<VecDeque<String>>,
}

/// Why a message is not delivered to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The link has ended.
    Ended,
    /// Too many requests are in flight.
    Busy,
}

impl Session {
    /// The first session of a link.
    pub(super) fn over(link: Link, shared: bool) -> Arc<Self> {
        let Link { to, from, ended } = link;
        let link = Arc::new(SharedLink {
            to,
            ended,
            next: AtomicU64::new(1),
            pending: Mutex::default(),
            sessions: Mutex::default(),
            shared,
            asked: Mutex::default(),
            told_of: AtomicBool::new(false),
            begun: Instant::now(),
            told_to_end: AtomicBool::new(false),
            initialized: AsyncMutex::default(),
        });
        let session = Self::on(&link, true);
        tokio::spawn(read(link, from));
        session
    }

    /// Another session on the link of `first`.
    pub(super) fn beside(first: &Arc<Self>) -> Arc<Self> {
        Self::on(&first.link, false)
    }

    fn on(link: &Arc<SharedLink>, owns_link: bool) -> Arc<Self> {
        let session = Arc::new(Self {
            link: Arc::clone(link),
            owns_link,
            used: Mutex::new(Instant::now()),
            stream: Mutex::default(),
            backlog: Mutex::default(),
        });
        let mut sessions = link.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|held| held.strong_count() > 0);
        sessions.push(Arc::downgrade(&session));
        session
    }

    pub(super) fn used(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn unused_for(&self) -> Duration {
        let listens = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if listens.as_ref().is_some_and(|stream| !stream.to.is_closed()) {
            return Duration::ZERO;
        }
        drop(listens);
        // A call may take long: the session is in use as long as somebody waits for an answer.
        let is_mine = |held: &Pending| {
            !held.last.is_closed() && std::ptr::eq(held.by.as_ptr(), std::ptr::from_ref(self))
        };
        if self.link.pending().values().any(is_mine) {
            self.used();
            return Duration::ZERO;
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Whether no other session uses its link.
    pub(super) fn is_alone(&self) -> bool {
        self.link.live().len() <= 1
    }

    pub(super) fn is_ended(&self) -> bool {
        self.link.ended.is_cancelled()
    }

    pub(super) fn age(&self) -> Duration {
        self.link.begun.elapsed()
    }

    /// Whether this is the first report of its end, so that each end is counted once.
    pub(super) fn is_first_told_of(&self) -> bool {
        !self.link.told_of.swap(true, Ordering::Relaxed)
    }

    pub(super) fn was_told_to_end(&self) -> bool {
        self.link.told_to_end.load(Ordering::Relaxed)
    }

    /// Ends the server, if this session does not share it.
    pub(super) fn end(&self) {
        if self.owns_link {
            self.link.told_to_end.store(true, Ordering::Relaxed);
            self.link.ended.cancel();
        }
    }

    /// Waits until nothing reads the server's lines any more.
    pub(super) async fn gone(&self) {
        self.link.to.closed().await;
    }

    /// Sends a notification, or the client's response to a request of the server.
    pub(super) async fn pass_on(&self, message: &Message<'_>) -> Result<(), Gone> {
        if let (None, Some(id)) = (message.method(), message.id)
            && !self.link.was_asked(id, self)
        {
            // The server asked another session, or none.
            return Ok(());
        }
        let mut params = message.params.map(ToOwned::to_owned);
        if message.method() == Some("notifications/cancelled") {
            // The request has another id at the server.
            let mut members = message.params();
            let asked = members.get("requestId").map(|id| id.get().to_owned());
            let ours = asked.and_then(|asked| self.link.id_of(&asked, self));
            let Some(ours) = ours else { return Ok(()) };
            members.insert("requestId".to_owned(), raw(&ours));
            params = Some(raw(&members));
        }
        if message.method() == Some("notifications/initialized") && !self.owns_link {
            // It was sent already.
            return Ok(());
        }
        let line = Written {
            jsonrpc: "2.0",
            id: message.id,
            method: message.method(),
            params: params.as_deref(),
            result: message.result,
            error: message.error,
        };
        self.link.send(line.line()).await
    }

    /// Sends a request with an id of our own.
    pub(super) async fn ask(self: &Arc<Self>, message: &Message<'_>) -> Result<Answers, Gone> {
        let id = message.id.map(ToOwned::to_owned).ok_or(Gone::Ended)?;
        if !self.owns_link && message.method() == Some("initialize") {
            return self.initialize(message, id).await;
        }
        self.send(message, id).await
    }

    async fn send(
        self: &Arc<Self>,
        message: &Message<'_>,
        id: Box<RawValue>,
    ) -> Result<Answers, Gone> {
        let number = self.link.next.fetch_add(1, Ordering::Relaxed);
        let ours = raw(&number);
        let mut members = message.params();
        let mut meta: Members = members
            .get("_meta")
            .and_then(|meta| serde_json::from_str(meta.get()).ok())
            .unwrap_or_default();
        let token = meta.remove("progressToken");
        let mut params = message.params.map(ToOwned::to_owned);
        if token.is_some() {
            // Clients choose progress tokens independently: two may choose the same.
            meta.insert("progressToken".to_owned(), ours.clone());
            members.insert("_meta".to_owned(), raw(&meta));
            params = Some(raw(&members));
        }
        let ((to, queued), (last, answer)) = (queue(), oneshot::channel());
        {
            let mut pending = self.link.pending();
            pending.retain(|_, held| !held.last.is_closed());
            if self.is_ended() {
                return Err(Gone::Ended);
            }
            if pending.len() >= UNDER_WAY {
                return Err(Gone::Busy);
            }
            pending.insert(number, Pending { id, token, to, last, by: Arc::downgrade(self) });
        }
        let line = Written {
            jsonrpc: "2.0",
            id: Some(&ours),
            method: message.method(),
            params: params.as_deref(),
            result: None,
            error: None,
        };
        if self.link.send(line.line()).await.is_err() {
            self.link.pending().remove(&number);
            return Err(Gone::Ended);
        }
        Ok(Answers { queued: Some(queued), answer: Some(answer) })
    }

    /// `initialize` on a shared link: sent once, and answered to all sessions alike.
    async fn initialize(
        self: &Arc<Self>,
        message: &Message<'_>,
        id: Box<RawValue>,
    ) -> Result<Answers, Gone> {
        let mut held = self.link.initialized.lock().await;
        if held.is_none() {
            let mut answers = self.send(message, id.clone()).await?;
            let last = loop {
                let answer =
                    std::future::poll_fn(|context| Pin::new(&mut answers).poll_next(context));
                let answer = answer.await.ok_or(Gone::Ended)?;
                if answer.is_last {
                    break answer;
                }
            };
            let answer: Message<'_> = serde_json::from_str(&last.text).map_err(|_| Gone::Ended)?;
            let Some(result) = answer.result else { return Ok(Answers::one(last.text)) };
            *held = Some(result.to_owned());
            let said = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            self.link.send(said.to_owned()).await?;
        }
        let line = Written {
            jsonrpc: "2.0",
            id: Some(&id),
            method: None,
            params: None,
            result: held.as_deref(),
            error: None,
        };
        Ok(Answers::one(line.line()))
    }

    /// Messages that the server sends on its own: stored ones first, then new ones.
    pub(super) fn listen(&self) -> impl Stream<Item = String> + Send + 'static {
        let (to, queued) = queue();
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        for line in backlog.drain(..) {
            let _ = to.put(line);
        }
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        futures::stream::unfold(queued, |mut queued| async move {
            Some((std::future::poll_fn(|context| queued.poll(context)).await?, queued))
        })
    }

    /// Delivers a message that the server sends on its own; if nobody listens, it is stored for a
    /// while.
    fn tell(&self, line: String) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let line = match stream {
            Some(stream) => match stream.put(line) {
                Ok(()) => return,
                Err(line) => line,
            },
            None => line,
        };
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if line.len() > WAITING_BYTES {
            return;
        }
        let mut bytes = backlog.iter().map(String::len).sum::<usize>() + line.len();
        while backlog.len() >= WAITING || bytes > WAITING_BYTES {
            let Some(gone) = backlog.pop_front() else { break };
            bytes -= gone.len();
        }
        backlog.push_back(line);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

impl SharedLink {
    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, line: String) -> Result<(), Gone> {
        tokio::select! {
            sent = self.to.send(line) => sent.map_err(|_| Gone::Ended),
            () = self.ended.cancelled() => Err(Gone::Ended),
        }
    }

    /// The id at the server of a session's request in flight.
    fn id_of(&self, asked: &str, by: &Session) -> Option<u64> {
        let pending = self.pending();
        let of_it = |held: &Pending| {
            held.id.get() == asked && std::ptr::eq(held.by.as_ptr(), std::ptr::from_ref(by))
        };
        pending.iter().find(|(_, held)| of_it(held)).map(|(number, _)| *number)
    }

    /// Handles one line of the server: finds its recipient.
    fn take(&self, line: &str) {
        let Ok(message) = Message::read(line) else {
            let line = passavant_proto::others_text::shown(line, 200);
            tracing::warn!(line, "the MCP server wrote a line that is not a JSON-RPC message");
            return;
        };
        if message.method.is_none() {
            let number = message.id.and_then(|id| id.get().parse::<u64>().ok());
            let pending = number.and_then(|number| self.pending().remove(&number));
            let Some(pending) = pending else { return };
            let text = Written {
                jsonrpc: "2.0",
                id: Some(&pending.id),
                method: None,
                params: None,
                result: message.result,
                error: message.error,
            };
            let _ = pending.last.send(text.line());
            return;
        }
        let mut params = message.params.map(ToOwned::to_owned);
        let mut asker = None;
        if message.method() == Some("notifications/progress") {
            let mut members = message.params();
            let number = members.get("progressToken").and_then(|token| token.get().parse().ok());
            let pending = self.pending();
            let held = number.and_then(|number: u64| pending.get(&number));
            let Some((token, to)) =
                held.and_then(|held| Some((held.token.clone()?, held.to.clone())))
            else {
                return;
            };
            members.insert("progressToken".to_owned(), token);
            params = Some(raw(&members));
            asker = Some(to);
        }
        let live = self.live();
        if message.is_request() {
            // On a shared link the session that a request of the server belongs to is unknown: no
            // session is asked.
            let only = if self.shared { None } else { live.first() };
            let noted = message.id.zip(only).is_some_and(|(id, only)| self.asks(id, only));
            if !noted {
                self.refuse(message.id);
                return;
            }
            // Send it on the stream of a request in flight, if there is one.
            let pending = self.pending();
            asker =
                pending.iter().max_by_key(|(number, _)| **number).map(|(_, held)| held.to.clone());
        } else if self.shared
            && asker.is_none()
            && !message.method().is_some_and(|method| method.ends_with("/list_changed"))
        {
            // On a shared link, a message that the server sends on its own may be about any of the
            // callers.
            return;
        }
        let text = Written {
            jsonrpc: "2.0",
            id: message.id,
            method: message.method(),
            params: params.as_deref(),
            result: None,
            error: None,
        };
        let text = text.line();
        if let Some(asker) = asker
            && asker.put(text.clone()).is_ok()
        {
            return;
        }
        for session in live {
            session.tell(text.clone());
        }
    }

    fn live(&self) -> Vec<Arc<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().filter_map(Weak::upgrade).collect()
    }

    /// Records which session the server asks; `false` if the id is too long. The oldest unanswered
    /// requests are forgotten to make room.
    fn asks(&self, id: &RawValue, session: &Arc<Session>) -> bool {
        if id.get().len() > LONGEST_ID {
            return false;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= UNANSWERED {
            asked.pop_front();
        }
        asked.push_back((id.get().to_owned(), Arc::downgrade(session)));
        true
    }

    /// Whether the server asked this session, which may answer once.
    fn was_asked(&self, id: &RawValue, by: &Session) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |(held, session): &(String, Weak<Session>)| {
            held == id.get() && std::ptr::eq(session.as_ptr(), std::ptr::from_ref(by))
        };
        let at = asked.iter().position(own);
        at.and_then(|at| asked.remove(at)).is_some()
    }

    /// Tells the server that its request is not passed to anybody.
    fn refuse(&self, id: Option<&RawValue>) {
        let error = if self.shared {
            r#"{"code":-32601,"message":"Several people share this server, so this request cannot be sent to a user."}"#
        } else {
            r#"{"code":-32600,"message":"This request cannot be sent to a user: there is no session, or the id is too long."}"#
        };
        let error = RawValue::from_string(error.to_owned()).ok();
        let line = Written {
            jsonrpc: "2.0",
            id,
            method: None,
            params: None,
            result: None,
            error: error.as_deref(),
        };
        let _ = self.to.try_send(line.line());
    }
}

/// Reads the server's lines until it ends; then all waiting requests end.
async fn read(link: Arc<SharedLink>, mut from: mpsc::Receiver<String>) {
    loop {
        let line = tokio::select! {
            line = from.recv() => line,
            () = link.ended.cancelled() => None,
        };
        match line {
            Some(line) => link.take(&line),
            None => break,
        }
    }
    link.ended.cancel();
    link.pending().clear();
}

/// The messages that come back for a request, up to its response.
pub(super) struct Answers {
    queued: Option<Queued>,
    answer: Option<oneshot::Receiver<String>>,
}

impl Answers {
    fn one(text: String) -> Self {
        let (to, answer) = oneshot::channel();
        let _ = to.send(text);
        Self { queued: None, answer: Some(answer) }
    }
}

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some(mut answer) = self.answer.take() else { return Poll::Ready(None) };
        if let Some(queued) = &mut self.queued {
            match queued.poll(context) {
                Poll::Ready(Some(text)) => {
                    self.answer = Some(answer);
                    return Poll::Ready(Some(Answer { text, is_last: false }));
                }
                // Nothing more precedes the response, which may be there.
                Poll::Ready(None) => self.queued = None,
                Poll::Pending => {}
            }
        }
        match Pin::new(&mut answer).poll(context) {
            Poll::Ready(Ok(text)) => Poll::Ready(Some(Answer { text, is_last: true })),
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Pending => {
                self.answer = Some(answer);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    fn link() -> (Link, mpsc::Receiver<String>, mpsc::Sender<String>) {
        let (to, written) = mpsc::channel(16);
        let (lines, from) = mpsc::channel(16);
        (Link { to, from, ended: CancellationToken::new() }, written, lines)
    }

    #[tokio::test]
    async fn answers_and_progress_go_to_who_asked_whatever_ids_they_chose() {
        let (link, mut written, lines) = link();
        let first = Session::over(link, true);
        let second = Session::beside(&first);
        let text = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","n":12345678901234567890123,"_meta":{"progressToken":"t"}},"else":1}"#;
        let mut of_first = first.ask(&Message::read(text).unwrap()).await.unwrap();
        let mut of_second = second.ask(&Message::read(text).unwrap()).await.unwrap();
        let lines_of = [written.recv().await.unwrap(), written.recv().await.unwrap()];
        assert_eq!(
            lines_of[0],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":1},"n":12345678901234567890123,"name":"x"}}"#
        );
        assert!(lines_of[1].contains("\"id\":2") && lines_of[1].contains("\"progressToken\":2"));
        for line in [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2,"progress":1}}"#,
            r#"{"jsonrpc":"2.0","id":2,"result":{"of":"second"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"of":"first"}}"#,
            "not a message",
            r#"{"jsonrpc":"2.0","id":77,"result":{}}"#,
        ] {
            lines.send(line.to_owned()).await.unwrap();
        }
        let progress = of_second.next().await.unwrap();
        assert!(progress.text.contains(r#""progressToken":"t""#) && !progress.is_last);
        let answer = of_second.next().await.unwrap();
        assert_eq!(answer.text, r#"{"jsonrpc":"2.0","id":"a","result":{"of":"second"}}"#);
        assert!(of_second.next().await.is_none());
        assert!(of_first.next().await.unwrap().text.contains("first"));
        // A cancellation finds the request of its own session only.
        let _waiting = second.ask(&Message::read(text).unwrap()).await.unwrap();
        written.recv().await.unwrap();
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#;
        first.pass_on(&Message::read(cancel).unwrap()).await.unwrap();
        second.pass_on(&Message::read(cancel).unwrap()).await.unwrap();
        assert!(written.recv().await.unwrap().contains("\"requestId\":3"));
        assert!(written.try_recv().is_err(), "the first has nothing under way");
    }

    #[tokio::test]
    async fn what_the_server_says_unasked_waits_for_a_listener_and_its_end_ends_answers() {
        let (link, mut written, lines) = link();
        let session = Session::over(link, false);
        let said = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        lines.send(said.to_owned()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut stream = Box::pin(session.listen());
        assert_eq!(stream.next().await.unwrap(), said);
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let mut answers = session.ask(&Message::read(call).unwrap()).await.unwrap();
        written.recv().await.unwrap();
        let asks = r#"{"jsonrpc":"2.0","id":9,"method":"elicitation/create","params":{}}"#;
        lines.send(asks.to_owned()).await.unwrap();
        assert_eq!(answers.next().await.unwrap().text, asks, "on the way to an answer");
        let answered = r#"{"jsonrpc":"2.0","id":9,"result":{}}"#;
        session.pass_on(&Message::read(answered).unwrap()).await.unwrap();
        assert_eq!(written.recv().await.unwrap(), answered);
        drop(lines);
        assert!(answers.next().await.is_none(), "the server is gone");
        assert!(session.is_ended());
        assert!(session.ask(&Message::read(call).unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn nobody_is_asked_for_another_and_nobody_answers_for_another() {
        // On a shared link no session is asked, and messages that may concern another caller are
        // not delivered.
        let (shared, mut written, lines) = link();
        let first = Session::over(shared, true);
        let second = Session::beside(&first);
        let mut heard = Box::pin(second.listen());
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#;
        let mut of_first = first.ask(&Message::read(call).unwrap()).await.unwrap();
        let mut of_second = second.ask(&Message::read(call).unwrap()).await.unwrap();
        let _ = (written.recv().await, written.recv().await);
        for line in [
            r#"{"jsonrpc":"2.0","id":77,"method":"elicitation/create","params":{"message":"secret"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":2,"result":{}}"#,
        ] {
            lines.send(line.to_owned()).await.unwrap();
        }
        let refused = written.recv().await.unwrap();
        assert!(refused.contains("\"id\":77") && refused.contains("error"), "{refused}");
        for answers in [&mut of_first, &mut of_second] {
            assert!(answers.next().await.unwrap().is_last);
        }
        assert!(heard.next().await.unwrap().contains("list_changed"));
        let answer = r#"{"jsonrpc":"2.0","id":77,"result":{"action":"accept"}}"#;
        second.pass_on(&Message::read(answer).unwrap()).await.unwrap();
        assert!(written.try_recv().is_err(), "nobody was asked");
        // On a link of a single caller, an answer counts once, and only to a request.
        let (own, mut written, lines) = link();
        let session = Session::over(own, false);
        session.pass_on(&Message::read(answer).unwrap()).await.unwrap();
        assert!(written.try_recv().is_err(), "it was not asked");
        let asks = r#"{"jsonrpc":"2.0","id":77,"method":"elicitation/create","params":{}}"#;
        lines.send(asks.to_owned()).await.unwrap();
        assert_eq!(Box::pin(session.listen()).next().await.unwrap(), asks);
        for _ in 0..2 {
            session.pass_on(&Message::read(answer).unwrap()).await.unwrap();
        }
        assert_eq!(written.recv().await.unwrap(), answer);
        assert!(written.try_recv().is_err(), "an answer counts once");
    }

    #[tokio::test]
    async fn an_answer_comes_however_much_was_said_before_it_and_what_waits_is_bounded() {
        let (own, mut written, lines) = link();
        let session = Session::over(own, false);
        let call = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"progressToken":"t"}}}"#;
        let mut answers = session.ask(&Message::read(call).unwrap()).await.unwrap();
        written.recv().await.unwrap();
        let text = "x".repeat(64 * 1024);
        for _ in 0..1000 {
            let progress = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"message":"{text}"}}}}"#
            );
            lines.send(progress).await.unwrap();
        }
        lines.send(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (mut bytes, mut last) = (0, false);
        while let Some(answer) = answers.next().await {
            bytes += answer.text.len();
            last = answer.is_last;
        }
        assert!(last, "the answer is lost");
        assert!(bytes < 2 * WAITING_BYTES, "{bytes}");
    }

    #[test]
    fn what_is_no_message_is_not_passed_on() {
        for text in
            ["[]", "{}", "x", r#"{"id":1}"#, r#"{"method":"a","result":{}}"#, r#"{"result":{}}"#]
        {
            assert!(Message::read(text).is_err(), "{text}");
        }
        let broken = Message::read("{\"id\":1,\n\"method\":\"a\",\"params\":{\"b\":\n1}}").unwrap();
        let line = Written {
            jsonrpc: "2.0",
            id: broken.id,
            method: broken.method(),
            params: broken.params,
            result: None,
            error: None,
        };
        assert!(!line.line().contains('\n'), "a message is one line");
    }

    /// A call may take longer than the time after which unused sessions make room.
    #[tokio::test]
    async fn a_session_is_in_use_as_long_as_somebody_waits_for_its_answer() {
        let (link, mut written, lines) = link();
        let session = Session::over(link, false);
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#;
        let call = Message::read(call).unwrap();
        let mut answers = session.ask(&call).await.unwrap();
        let asked: serde_json::Value =
            serde_json::from_str(&written.recv().await.unwrap()).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(session.unused_for(), Duration::ZERO, "it is waited for");
        let answer = serde_json::json!({"jsonrpc": "2.0", "id": asked["id"], "result": {}});
        lines.send(answer.to_string()).await.unwrap();
        assert!(answers.next().await.unwrap().is_last);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(session.unused_for() >= Duration::from_millis(20), "and then it is not");
        assert!(session.unused_for() < Duration::from_millis(45), "time counts from its answer");
        // A caller that has disconnected does not wait any more.
        let call = session.ask(&call).await.unwrap();
        drop(call);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(session.unused_for() > Duration::ZERO);
    }
}
