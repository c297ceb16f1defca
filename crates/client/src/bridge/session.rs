//! The era of sessions: the session that `initialize` started, the stream for messages that the
//! server sends on its own, and the end. If the server lost the session, a new one is started with
//! the client's own messages.

use super::{
    Bridge, Progress,
    body::media_type,
    message::{Envelope, one_line},
};
use crate::dpop::wants_nonce;
use http::{HeaderMap, HeaderValue};
use std::time::Duration;
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};

/// Shortest and longest pause between two attempts to open a stream, whatever the server asks for.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(50);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The state of a session with the server.
#[derive(Default)]
pub(super) struct Session {
    /// The client's `initialize`, as it was sent.
    initialize: Option<String>,
    /// The client's `notifications/initialized`, as it was sent.
    initialized: Option<String>,
    /// `Mcp-Session-Id`, if the server gave one.
    id: Option<HeaderValue>,
    /// The revision that the server answered with.
    version: Option<HeaderValue>,
    /// Number of sessions of this bridge so far.
    generation: u64,
    stream: Option<AbortHandle>,
}

impl Session {
    /// The session that `initialize` starts after this one.
    pub(super) fn next(&self, initialize: &str) -> Self {
        if let Some(stream) = &self.stream {
            stream.abort();
        }
        let generation = self.generation + 1;
        Self { initialize: Some(initialize.to_owned()), generation, ..Self::default() }
    }

    pub(super) fn confirmed_by(&mut self, line: &str) {
        self.initialized = Some(line.to_owned());
    }

    pub(super) fn is_begun(&self) -> bool {
        self.initialize.is_some()
    }

    /// The headers of all requests that belong to the session.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(id) = &self.id {
            headers.insert("mcp-session-id", id.clone());
        }
        if let Some(version) = &self.version {
            headers.insert("mcp-protocol-version", version.clone());
        }
        headers
    }

    pub(super) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn take_id(&mut self, headers: &HeaderMap) {
        self.id = headers.get("mcp-session-id").cloned();
    }

    /// Takes the revision from a response to `initialize`.
    pub(super) fn take_version(&mut self, answer: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(answer) else { return };
        let result =
            envelope.result.and_then(|r| serde_json::from_str::<Initialized>(r.get()).ok());
        if let Some(version) = result.and_then(|r| HeaderValue::from_str(&r.protocol_version).ok())
        {
            self.version = Some(version);
        }
    }
}

/// The one member that is read of a response to `initialize`.
#[derive(serde::Deserialize)]
struct Initialized {
    #[serde(rename = "protocolVersion")]
    protocol_version: String,
}

impl Bridge {
    /// Opens the stream for messages that the server sends on its own, and keeps it open while the
    /// session lives.
    pub(super) fn listen(&self) {
        let bridge = self.clone();
        let generation = self.state().session.generation;
        let task = tokio::spawn(async move { bridge.keep_listening(generation).await });
        let before = self.state().session.stream.replace(task.abort_handle());
        if let Some(before) = before {
            before.abort();
        }
    }

    async fn keep_listening(&self, generation: u64) {
        let mut last_event: Option<String> = None;
        let mut wait = Duration::from_secs(1);
        let mut opened_once = false;
        // A server that keeps closing streams without an event gets longer pauses than it asks for.
        let mut patience = SHORTEST_WAIT;
        while self.state().session.generation == generation {
            match self.open_stream(last_event.as_deref()).await {
                // This response is not an event stream.
                Some(response)
                    if response.status().is_success()
                        && media_type(&response) != "text/event-stream" =>
                {
                    return;
                }
                Some(response) if response.status().is_success() => {
                    opened_once = true;
                    wait = Duration::from_secs(1);
                    let (mut none, before) = (Vec::new(), last_event.clone());
                    let opened = Instant::now();
                    let ended = self.relay_events(response, &mut none, &mut last_event).await;
                    let was_of_use = last_event != before || opened.elapsed() >= wait;
                    patience =
                        if was_of_use { SHORTEST_WAIT } else { (patience * 2).min(LONGEST_WAIT) };
                    if let Some(retry) = ended {
                        wait = retry;
                    }
                    wait = wait.clamp(patience, LONGEST_WAIT);
                }
                // The stream is not offered. 409: another stream still counts as open.
                Some(response)
                    if response.status().is_client_error()
                        && response.status().as_u16() != 409
                        && !opened_once =>
                {
                    return;
                }
                _ => wait = (wait * 3 / 2).min(LONGEST_WAIT),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// GET of an event stream, starting now, or after the last event of a stream that broke off.
    pub(super) async fn open_stream(&self, last_event: Option<&str>) -> Option<reqwest::Response> {
        // The person is not asked for a background stream.
        let mut access = self.silent_access().await.ok()?;
        for attempt in 0..2 {
            let mut headers = self.state().session.headers();
            headers.insert("accept", HeaderValue::from_static("text/event-stream"));
            if let Some(value) =
                last_event.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok())
            {
                headers.insert("last-event-id", value);
            }
            let presented = self.presented("GET", &access);
            let request = self.0.http.get(&self.0.url).headers(headers).headers(presented);
            let response = request.send().await.ok()?;
            let has_nonce = self.0.client.take_nonce(&self.0.url, response.headers());
            if response.status().as_u16() != 401 || attempt > 0 {
                return Some(response);
            }
            if has_nonce && wants_nonce(response.headers()) {
                continue;
            }
            let client = self.0.client.clone();
            let what = format!("instead of {} false", access.token);
            let attempt = async move { client.replace_silently(&access).await };
            access = self.asked(what, attempt).await.ok()?;
        }
        None
    }

    /// Starts a new session after the server lost the one of `generation`: with the client's own
    /// `initialize` under an id of the bridge's own; the bridge reads the response. Of several
    /// concurrent requests one does it.
    pub(super) async fn renew_session(&self, generation: u64) -> bool {
        let _turn = self.0.renewing.lock().await;
        let (initialize, initialized) = {
            let state = self.state();
            if state.session.generation != generation {
                return true;
            }
            // Id and revision stay until there are new ones: the server keeps rejecting them, and
            // the next request tries again.
            (state.session.initialize.clone(), state.session.initialized.clone())
        };
        let Some(initialize) = initialize.and_then(|line| with_own_id(&line)) else { return false };
        let own = Progress::default();
        let renewed = self.post(&initialize, HeaderMap::new(), Some(&own)).await;
        let Ok(response) = renewed else { return false };
        if !response.status().is_success() {
            return false;
        }
        let headers = response.headers().clone();
        let Some(answer) = self.first_answer(response).await else { return false };
        {
            let mut state = self.state();
            state.session.version = None;
            state.session.take_id(&headers);
            state.session.take_version(&answer);
            state.session.generation += 1;
        }
        if let Some(initialized) = initialized {
            self.notify(&initialized).await;
            self.listen();
        }
        tracing::info!("the MCP server no longer knew the session; a new one was started");
        true
    }

    /// Ends the session at the server, if that succeeds within a second.
    pub(super) async fn end_session(&self) {
        let (headers, stream) = {
            let mut state = self.state();
            (state.session.headers(), state.session.stream.take())
        };
        if let Some(stream) = stream {
            stream.abort();
        }
        if !self.state().session.has_id() {
            return;
        }
        let ending = async {
            let access = self.silent_access().await.ok()?;
            let request = self.0.http.delete(&self.0.url).headers(headers);
            request.headers(self.presented("DELETE", &access)).send().await.ok()
        };
        let _ = timeout(Duration::from_secs(1), ending).await;
    }
}

/// `initialize` with an id that no client uses: the bridge reads the response.
fn with_own_id(line: &str) -> Option<String> {
    let envelope: Envelope<'_> = serde_json::from_str(line).ok()?;
    let params = envelope.params_text()?;
    Some(one_line(&format!(
        r#"{{"jsonrpc":"2.0","id":"passavant-bridge-renews","method":"initialize","params":{params}}}"#
    )))
}
