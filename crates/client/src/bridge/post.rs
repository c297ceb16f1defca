//! Sends one message to the server and relays the response: JSON, a stream of events, or an error.
//! Each request is answered exactly once, whatever happens.

use super::{
    Bridge, Progress, Trouble,
    body::media_type,
    headers,
    message::{Envelope, Line, answered_error, error_code, key, one_line},
    session::{LONGEST_WAIT, SHORTEST_WAIT},
};
use crate::dpop::wants_nonce;
use crate::error::Error;
use crate::vault::Access;
use http::HeaderMap;
use passavant_outbound::{Events, OutboundError, Unread};
use passavant_proto::oauth::challenge::Challenge;
use serde_json::{Map, Value, value::RawValue};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};

/// Attempts to send a message whose token is rejected or lacks scopes.
const TRIES: usize = 3;
/// Attempts to resume a stream that broke off.
const RESUMES: usize = 5;
/// Pages of a tool list that are fetched to learn how a tool has to be called.
const PAGES: usize = 64;
/// "Header mismatch": the server rejected the request before executing it.
const HEADER_MISMATCH: i64 = -32020;
/// Largest response, largest event of a stream, and the most that is read of an error, in bytes.
const LARGEST: usize = 32 * 1024 * 1024;
const LARGEST_ERROR: usize = 64 * 1024;
/// Longest event id that is sent back to the server, in bytes.
const LONGEST_ID: usize = 4096;
/// Pauses between attempts to deliver a client's first probe, in milliseconds.
const PROBE_WAITS: [u64; 4] = [200, 600, 1500, 3000];

impl Bridge {
    /// Sends a request (or batch) and relays its response.
    pub(super) async fn pass_on(&self, text: &str, ids: &[String], progress: &Progress) {
        // Read before the headers are made, so that a session that is renewed in between is not
        // taken for the old one.
        let generation = self.state().session.generation();
        let headers = self.headers_for(text);
        let line = Line::parse(text);
        let (stateless, method) = match &line {
            Ok(Line::Request(envelope)) => {
                (envelope.stateless_version().is_some(), envelope.method().to_owned())
            }
            _ => (false, String::new()),
        };
        let had_session = headers.contains_key("mcp-session-id");
        let outcome = match self.post_patiently(text, headers, &method, progress).await {
            Ok(response)
                if matches!(response.status().as_u16(), 400 | 404) && had_session && !stateless =>
            {
                self.after_lost(text, response, generation, ids, progress).await
            }
            outcome => outcome.map(Some),
        };
        let response = match outcome {
            Ok(Some(response)) => response,
            Ok(None) => return,
            Err(trouble) => return self.fail(ids, &trouble).await,
        };
        if stateless && method == "tools/call" && response.status().as_u16() == 400 {
            return self.after_400(text, response, ids, progress).await;
        }
        if method == "initialize" && !stateless && response.status().is_success() {
            self.state().session.take_id(response.headers());
        }
        self.relay(response, ids, stateless, &method).await;
    }

    /// If the server does not know the session any more, starts a new session and sends the message
    /// once more. MCP uses 404 for this; many servers answer 400 with an error about the session.
    async fn after_lost(
        &self,
        text: &str,
        response: reqwest::Response,
        generation: u64,
        ids: &[String],
        progress: &Progress,
    ) -> Result<Option<reqwest::Response>, Trouble> {
        let status = response.status().as_u16();
        let body = text_within(response, LARGEST_ERROR).await.unwrap_or_default();
        let is_lost = match status {
            404 => error_code(&body) != Some(-32601),
            _ => speaks_of_session(&body),
        };
        if is_lost && self.renew_session(generation).await {
            return self.post(text, self.headers_for(text), Some(progress)).await.map(Some);
        }
        self.relay_error(status, &body, ids).await;
        Ok(None)
    }

    /// If the headers of a call do not fit the tool's schema, fetches the schema and sends the call
    /// once more. The first call was not executed.
    async fn after_400(
        &self,
        text: &str,
        response: reqwest::Response,
        ids: &[String],
        progress: &Progress,
    ) {
        let body = text_within(response, LARGEST_ERROR).await.unwrap_or_default();
        if error_code(&body) == Some(HEADER_MISMATCH) && self.learn_tools(text).await {
            match self.post(text, self.headers_for(text), Some(progress)).await {
                Ok(response) => self.relay(response, ids, true, "tools/call").await,
                Err(trouble) => self.fail(ids, &trouble).await,
            }
            return;
        }
        self.relay_error(400, &body, ids).await;
    }

    /// Fetches all tools, with an id of the bridge's own and the `_meta` of the call that failed.
    async fn learn_tools(&self, call: &str) -> bool {
        let Ok(Line::Request(envelope)) = Line::parse(call) else { return false };
        let meta = envelope.params().and_then(|params| params.meta);
        let meta =
            meta.and_then(|meta| serde_json::from_str::<Map<String, Value>>(meta.get()).ok());
        let Some(mut meta) = meta else { return false };
        meta.remove("progressToken");
        let mut cursor: Option<String> = None;
        for page in 0..PAGES {
            let mut params = serde_json::json!({"_meta": meta});
            if let Some(cursor) = &cursor {
                params["cursor"] = cursor.as_str().into();
            }
            let text = serde_json::json!({
                "jsonrpc": "2.0", "id": format!("passavant-bridge-tools-{page}"),
                "method": "tools/list", "params": params,
            })
            .to_string();
            let own = Progress::default();
            let Ok(response) = self.post(&text, self.headers_for(&text), Some(&own)).await else {
                return false;
            };
            let Some(answer) = self.first_answer(response).await else { return false };
            let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(&answer) else { return false };
            let Some(result) = envelope.result else { return false };
            headers::learn(result.get(), &mut self.state().tools);
            cursor = serde_json::from_str::<Page>(result.get()).ok().and_then(|p| p.next_cursor);
            if cursor.is_none() {
                return true;
            }
        }
        true
    }

    /// The headers of a message, by its era.
    pub(super) fn headers_for(&self, text: &str) -> HeaderMap {
        let state = self.state();
        match Line::parse(text) {
            Ok(Line::Request(envelope)) => match envelope.stateless_version() {
                Some(version) => headers::of(&envelope, &version, &state.tools),
                None if envelope.method() == "initialize" => HeaderMap::new(),
                None => state.session.headers(),
            },
            Ok(Line::Notification(envelope)) => {
                // A message without a revision belongs to the era that the client uses otherwise.
                let era = state.stateless.clone().filter(|_| !state.session.is_begun());
                match envelope.stateless_version().or(era) {
                    Some(version) => headers::of(&envelope, &version, &state.tools),
                    None => state.session.headers(),
                }
            }
            _ => state.session.headers(),
        }
    }

    /// Sends a notification or a response. The server returns only a status.
    pub(super) async fn notify(&self, text: &str) {
        match Box::pin(self.post(text, self.headers_for(text), None)).await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => {
                tracing::warn!(status = response.status().as_u16(), "a notification was refused");
            }
            Err(trouble) => tracing::warn!(why = trouble.text, "a notification was not sent"),
        }
    }

    /// Sends a client's first probe with patience: a client that does not know the era yet would
    /// take a failure as a sign of the older one.
    async fn post_patiently(
        &self,
        text: &str,
        headers: HeaderMap,
        method: &str,
        progress: &Progress,
    ) -> Result<reqwest::Response, Trouble> {
        let mut outcome = self.post(text, headers.clone(), Some(progress)).await;
        for wait in PROBE_WAITS.iter().filter(|_| method == "server/discover") {
            let again = match &outcome {
                Ok(response) => response.status().is_server_error(),
                Err(trouble) => trouble.kind == "unreachable",
            };
            if !again {
                break;
            }
            tokio::time::sleep(Duration::from_millis(*wait)).await;
            outcome = self.post(text, headers.clone(), Some(progress)).await;
        }
        outcome
    }

    /// Sends a message with a token: a fresh one after a 401, a wider one after a 403 that names
    /// more scopes. The person may be asked only for a request (`progress` is given, and updated);
    /// messages that nobody waits for (`None`) never cause a question.
    pub(super) async fn post(
        &self,
        text: &str,
        headers: HeaderMap,
        progress: Option<&Progress>,
    ) -> Result<reqwest::Response, Trouble> {
        let mut access = match progress {
            Some(_) => self.access().await?,
            None => self.silent_access().await?,
        };
        let mut last = String::new();
        let mut nonces = 0;
        let mut tries = 0;
        while tries < TRIES {
            if progress.is_some_and(|progress| progress.cancelled.load(Relaxed)) {
                // It was cancelled after the server rejected it: do not send it again.
                return Err(Trouble::new("cancelled", "The request was cancelled."));
            }
            let request = self
                .0
                .http
                .post(&self.0.url)
                .headers(headers.clone())
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .headers(self.presented("POST", &access))
                .body(text.to_owned());
            let note = |sent| progress.inspect(|progress| progress.sent.store(sent, Relaxed));
            note(true);
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Err(self.unreachable(&error)),
            };
            let status = response.status().as_u16();
            let challenge = challenge_of(&response);
            if matches!(status, 401 | 403) {
                // The server did not accept it: there is nothing to cancel there.
                note(false);
            } else if let Some(progress) = progress {
                progress.taken.notify_one();
            }
            let has_nonce = self.0.client.take_nonce(&self.0.url, response.headers());
            if status == 401 && nonces == 0 && has_nonce && wants_nonce(response.headers()) {
                // The token is good; the proof has to contain the server's nonce (RFC 9449 section 9).
                nonces += 1;
                continue;
            }
            tries += 1;
            let client = self.0.client.clone();
            access = match (status, challenge) {
                (401, challenge) => {
                    last = challenge
                        .and_then(|c| {
                            c.get("error_description").or(c.get("error")).map(str::to_owned)
                        })
                        .unwrap_or_else(|| "HTTP 401".to_owned());
                    let what = format!("instead of {} {}", access.token, progress.is_some());
                    let asks = progress.is_some();
                    let attempt = async move {
                        if asks {
                            client.replace_access(&access).await
                        } else {
                            client.replace_silently(&access).await
                        }
                    };
                    self.asked(what, attempt).await?
                }
                (403, Some(challenge))
                    if progress.is_some()
                        && challenge.get("error") == Some("insufficient_scope") =>
                {
                    "insufficient_scope".clone_into(&mut last);
                    let scope = challenge.get("scope").unwrap_or_default();
                    let what = format!("wider than {} {scope}", access.token);
                    let attempt = async move { client.widen_access(&access, &challenge).await };
                    self.asked(what, attempt).await?
                }
                _ => return Ok(response),
            };
        }
        let url = self.0.url.clone();
        Err(self.trouble(&Error::TokenRefused { url, error: last }).await)
    }

    /// A valid token, for a message that nobody waits for.
    pub(super) async fn silent_access(&self) -> Result<Access, Trouble> {
        let (client, url) = (self.0.client.clone(), self.0.url.clone());
        self.asked("silent".to_owned(), async move { client.silent_access(&url).await }).await
    }

    /// The headers that present a token with one request; made anew for each.
    pub(super) fn presented(&self, method: &str, access: &Access) -> HeaderMap {
        self.0.client.authorization(method, &self.0.url, access)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Trouble {
        let host = self.0.url.split('/').nth(2).unwrap_or("the server").to_owned();
        let cause = passavant_outbound::cause_of(error);
        let error = OutboundError::Unreachable { host, cause };
        Trouble::new("unreachable", error.to_string())
    }

    /// Relays a response, whatever form it has.
    async fn relay(
        &self,
        response: reqwest::Response,
        ids: &[String],
        stateless: bool,
        method: &str,
    ) {
        let status = response.status();
        if !status.is_success() {
            let location = response.headers().get("location").and_then(|v| v.to_str().ok());
            if let Some(location) = location.filter(|_| status.is_redirection()) {
                let text = format!(
                    "{} redirects to {location}; tokens are not sent after a redirect. Connect to \
                     the address it names.",
                    self.0.url
                );
                return self.fail(ids, &Trouble::new("redirect", text)).await;
            }
            let body = text_within(response, LARGEST_ERROR).await.unwrap_or_default();
            return self.relay_error(status.as_u16(), &body, ids).await;
        }
        let mut pending = ids.to_vec();
        match media_type(&response).as_str() {
            "application/json" => match text_within(response, LARGEST).await {
                Ok(body) => self.relay_body(&body, &mut pending, stateless, method).await,
                Err(Unread::Broken(error)) => {
                    return self.fail(&pending, &self.unreachable(&error)).await;
                }
                Err(Unread::TooLarge) => {
                    return self.fail(&pending, &too_large()).await;
                }
            },
            "text/event-stream" => {
                return self.relay_stream(response, pending, stateless, method).await;
            }
            _ if status.as_u16() == 202 => {}
            other => {
                let text = format!(
                    "The MCP server answered with the media type `{other}`; JSON or an event \
                     stream was expected."
                );
                return self.fail(&pending, &Trouble::new("no_answer", text)).await;
            }
        }
        if !pending.is_empty() {
            let text = "The MCP server accepted the request but sent no response.";
            self.fail(&pending, &Trouble::new("no_answer", text)).await;
        }
    }

    /// Relays an error status: the server's own JSON-RPC error if there is one.
    async fn relay_error(&self, status: u16, body: &str, ids: &[String]) {
        for id in ids {
            if let Some(line) = answered_error(body, id) {
                self.emit(line).await;
                continue;
            }
            let text = match status {
                404 | 405 => format!(
                    "{} is not an MCP server, or does not know this method (HTTP {status}).",
                    self.0.url
                ),
                _ => {
                    let said: String = body.chars().filter(|c| !c.is_control()).take(200).collect();
                    format!("The MCP server answered HTTP {status}: {said}")
                }
            };
            self.fail(std::slice::from_ref(id), &Trouble::new("http_error", text)).await;
        }
    }

    async fn relay_body(
        &self,
        body: &str,
        pending: &mut Vec<String>,
        stateless: bool,
        method: &str,
    ) {
        let members: Vec<&RawValue> = if body.trim_start().starts_with('[') {
            serde_json::from_str(body).unwrap_or_default()
        } else {
            serde_json::from_str(body).map(|one| vec![one]).unwrap_or_default()
        };
        for member in members {
            self.relay_message(member.get(), pending, stateless, method).await;
        }
    }

    /// Forwards one message of the server. The response to a request in flight is removed from
    /// `pending`.
    async fn relay_message(
        &self,
        text: &str,
        pending: &mut Vec<String>,
        stateless: bool,
        method: &str,
    ) {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else {
            tracing::warn!("the MCP server sent a message that is not JSON-RPC; it was dropped");
            return;
        };
        let mut line = one_line(text);
        if envelope.method.is_none()
            && let Some(id) = envelope.id_text()
        {
            let before = pending.len();
            pending.retain(|held| key(held) != key(&id));
            if pending.len() == before {
                // Answered already, or never asked: a client could take it for the response to
                // another request.
                tracing::warn!(
                    "the MCP server answered a request that is not pending; the answer was dropped"
                );
                return;
            }
            if method == "initialize" && !stateless {
                self.state().session.take_version(text);
            }
            if stateless
                && method == "tools/list"
                && let Some(result) = envelope.result
            {
                let kept = headers::learn(result.get(), &mut self.state().tools);
                if let Some(kept) = kept {
                    line = one_line(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{kept}}}"#));
                }
            }
        } else if envelope.method.is_none()
            && envelope.error.is_some()
            && let [only] = pending.as_slice()
        {
            // An error about a request that the server could not parse has no id by which the
            // client could find it.
            let only = only.clone();
            line = answered_error(text, &only).unwrap_or(line);
            pending.clear();
        } else if envelope.method.is_none() {
            tracing::warn!(
                "the MCP server answered a request that is not pending; the answer was dropped"
            );
            return;
        }
        self.emit(line).await;
    }

    /// Relays a stream until its requests are answered. If the stream of a session breaks off
    /// before, it is resumed.
    async fn relay_stream(
        &self,
        response: reqwest::Response,
        mut pending: Vec<String>,
        stateless: bool,
        method: &str,
    ) {
        let mut last_event = None;
        let mut wait = self
            .relay_events_of(response, &mut pending, &mut last_event, (stateless, method))
            .await
            .unwrap_or(Duration::from_secs(1));
        let (mut failures, mut idle) = (0, Duration::ZERO);
        while !pending.is_empty() && !stateless && last_event.is_some() && failures < RESUMES {
            // Each attempt gives a restarting server more time; the pause is also longer if the
            // stream was idle for long.
            let patience = Duration::from_millis(if failures == 0 { 0 } else { 200 << failures });
            let pause = (wait + patience).max(idle / 10).clamp(SHORTEST_WAIT, LONGEST_WAIT);
            tokio::time::sleep(pause).await;
            idle += pause;
            let before = last_event.clone();
            match self.open_stream(last_event.as_deref()).await {
                Some(response) if response.status().is_success() => {
                    // A server that closes the stream and expects polling is not broken.
                    failures = 0;
                    let told = self
                        .relay_events_of(
                            response,
                            &mut pending,
                            &mut last_event,
                            (stateless, method),
                        )
                        .await;
                    wait = told.unwrap_or(wait);
                    if last_event != before {
                        idle = Duration::ZERO;
                    }
                }
                Some(response) if response.status().is_client_error() => break,
                _ => failures += 1,
            }
        }
        if !pending.is_empty() {
            let text = "The connection to the MCP server broke off before it answered. What was asked \
                        may have been done.";
            self.fail(&pending, &Trouble::new("connection_lost", text)).await;
        }
    }

    /// Relays the events of a stream that belongs to no request.
    pub(super) async fn relay_events(
        &self,
        response: reqwest::Response,
        pending: &mut Vec<String>,
        last_event: &mut Option<String>,
    ) -> Option<Duration> {
        self.relay_events_of(response, pending, last_event, (false, "")).await
    }

    /// Relays events until the stream ends. Returns how long the server asks to wait before the
    /// next stream.
    async fn relay_events_of(
        &self,
        response: reqwest::Response,
        pending: &mut Vec<String>,
        last_event: &mut Option<String>,
        (stateless, method): (bool, &str),
    ) -> Option<Duration> {
        let mut wait = None;
        let waits = !pending.is_empty();
        let mut events = Events::of(response, LARGEST);
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => event,
                Ok(None) | Err(Unread::Broken(_)) => break,
                Err(Unread::TooLarge) => {
                    self.fail(pending, &too_large()).await;
                    pending.clear();
                    // Otherwise the same would be sent again at once, over and over.
                    wait = Some(LONGEST_WAIT);
                    break;
                }
            };
            if let Some(retry) = event.retry {
                wait = Some(Duration::from_millis(retry));
            }
            if let Some(id) = event.id.filter(|id| (1..=LONGEST_ID).contains(&id.len())) {
                *last_event = Some(id);
            }
            let ours = event.name.as_deref().is_none_or(|name| name == "message");
            if let Some(data) = event.data.filter(|data| ours && !data.is_empty()) {
                self.relay_body(&data, pending, stateless, method).await;
            }
            if waits && pending.is_empty() {
                break;
            }
        }
        wait
    }

    /// The first answer in a response that the bridge reads itself.
    pub(super) async fn first_answer(&self, response: reqwest::Response) -> Option<String> {
        let is_answer = |text: &str| {
            serde_json::from_str::<Envelope<'_>>(text)
                .is_ok_and(|e| e.method.is_none() && (e.result.is_some() || e.error.is_some()))
        };
        if media_type(&response) == "application/json" {
            return text_within(response, LARGEST).await.ok().filter(|text| is_answer(text));
        }
        let mut events = Events::of(response, LARGEST);
        while let Ok(Some(event)) = events.next().await {
            if let Some(data) = event.data.filter(|data| is_answer(data)) {
                return Some(data);
            }
        }
        None
    }
}

/// A body as text, if it has at most `most` bytes.
async fn text_within(mut response: reqwest::Response, most: usize) -> Result<String, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > most {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(body).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into()))
}

fn too_large() -> Trouble {
    let text = format!(
        "The MCP server's answer is larger than {} MiB, the most that is passed on.",
        LARGEST / 1024 / 1024
    );
    Trouble::new("too_large", text)
}

/// The cursor of a list's next page.
#[derive(serde::Deserialize)]
struct Page {
    #[serde(rename = "nextCursor", default)]
    next_cursor: Option<String>,
}

/// Whether a JSON-RPC error is the transport's, about the session. An error with the id of our
/// request is the server's own, whatever it says.
fn speaks_of_session(body: &str) -> bool {
    let Ok(error) = serde_json::from_str::<Value>(body) else { return false };
    let of_transport = error.get("id").is_none_or(Value::is_null);
    let message = error["error"]["message"].as_str().unwrap_or_default().to_ascii_lowercase();
    of_transport && (message.contains("session") || message.contains("not initialized"))
}

fn challenge_of(response: &reqwest::Response) -> Option<Challenge> {
    let headers = response.headers().get_all("www-authenticate");
    let headers: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
    let is_ours = |challenge: &Challenge| {
        ["bearer", "dpop"].iter().any(|scheme| challenge.scheme.eq_ignore_ascii_case(scheme))
    };
    Challenge::parse_all(headers).into_iter().find(is_ours)
}
