//! The HTTP+SSE transport of 2024-11-05: one stream of events for everything that the server says, and a place to post
//! to that the stream names first.

use super::{LARGEST, Link};
use anyhow::{Context, Result, bail};
use carnet_client::Outbound;
use carnet_proto::{others_text::shown, secret::Secret};
use http::HeaderName;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

/// For the stream to begin and to name its endpoint.
const BEGINS: Duration = Duration::from_secs(10);
/// For one message to be taken.
const TAKEN: Duration = Duration::from_secs(30);

/// Where the stream is.
#[derive(Clone)]
pub(crate) struct Sse {
    pub(crate) url: String,
    pub(crate) outbound: Outbound,
    /// The MCP server's own credential.
    pub(crate) credential: Option<(HeaderName, Secret)>,
}

/// Events out of a stream, each within its bound.
struct Events {
    response: reqwest::Response,
    held: Vec<u8>,
    /// So much of it holds no end of an event.
    seen: usize,
}

struct Event {
    name: String,
    data: String,
}

impl Events {
    async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Some(event));
            }
            let Some(chunk) = self.response.chunk().await? else { return Ok(None) };
            if self.held.len() + chunk.len() > LARGEST {
                bail!("an event is larger than it may be");
            }
            // A carriage return before a line feed says nothing of its own here.
            self.held.extend(chunk.iter().filter(|b| **b != b'\r'));
        }
    }

    fn take(&mut self) -> Result<Option<Event>> {
        // What was looked at before is not looked at again, but for its last byte.
        let from = self.seen.saturating_sub(1);
        let found = self.held[from..].windows(2).position(|two| two == b"\n\n");
        let Some(end) = found.map(|end| from + end) else {
            self.seen = self.held.len();
            return Ok(None);
        };
        self.seen = 0;
        let rest = self.held.split_off(end + 2);
        let whole = std::mem::replace(&mut self.held, rest);
        let text = std::str::from_utf8(&whole).context("an event is not UTF-8")?;
        let field = |line: &str, name: &str| {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(rest.strip_prefix(' ').unwrap_or(rest).to_owned())
        };
        let name = text.lines().find_map(|line| field(line, "event"));
        let data: Vec<String> = text.lines().filter_map(|line| field(line, "data")).collect();
        let name = name.unwrap_or_else(|| "message".to_owned());
        Ok(Some(Event { name, data: data.join("\n") }))
    }
}

impl Sse {
    pub(super) async fn open(&self) -> Result<Link> {
        let http = self.outbound.streaming(&self.url)?;
        let with = {
            let credential = self.credential.clone();
            move |request: reqwest::RequestBuilder| match &credential {
                Some((name, value)) => request.header(name, value.expose()),
                None => request,
            }
        };
        let request = with(http.get(&self.url)).header("accept", "text/event-stream");
        let begun = timeout(BEGINS, async {
            let response =
                request.send().await.map_err(|e| anyhow::anyhow!(carnet_client::cause_of(&e)))?;
            if !response.status().is_success() {
                bail!("its stream answers HTTP {}", response.status().as_u16());
            }
            let mut events = Events { response, held: Vec::new(), seen: 0 };
            loop {
                match events.next().await? {
                    Some(event) if event.name == "endpoint" => return Ok((events, event.data)),
                    Some(_) => {}
                    None => bail!("its stream ended before it named where to post to"),
                }
            }
        });
        let (mut events, named) = begun.await.context("its stream does not begin")??;
        let own = Url::parse(&self.url)?;
        let endpoint = own.join(named.trim()).context("it names no place to post to")?;
        // Messages and credentials go to the server that was written, and nowhere else.
        if endpoint.origin() != own.origin() {
            bail!("it wants messages at another place: {}", shown(endpoint.as_str(), 200));
        }
        let (to, mut written) = mpsc::channel::<String>(64);
        let (lines, from) = mpsc::channel(64);
        let ended = CancellationToken::new();
        let stop = ended.clone();
        tokio::spawn(async move {
            let writing = async {
                while let Some(line) = written.recv().await {
                    let request = with(http.post(endpoint.clone()))
                        .header("content-type", "application/json")
                        .timeout(TAKEN)
                        .body(line);
                    match request.send().await {
                        Ok(response) if response.status().is_success() => {}
                        Ok(response) => {
                            let status = response.status().as_u16();
                            tracing::warn!(status, "the MCP server did not take a message");
                            return;
                        }
                        Err(error) => {
                            let why = carnet_client::cause_of(&error);
                            tracing::warn!(why, "a message did not reach the MCP server");
                            return;
                        }
                    }
                }
            };
            let reading = async {
                loop {
                    match events.next().await {
                        Ok(Some(event)) if event.name == "message" => {
                            let one_line = event.data.replace('\n', " ");
                            if lines.send(one_line).await.is_err() {
                                return;
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => return,
                        Err(error) => {
                            tracing::warn!(
                                error = format!("{error:#}"),
                                "the MCP server's stream broke off"
                            );
                            return;
                        }
                    }
                }
            };
            tokio::select! {
                () = writing => {}
                () = reading => {}
                () = stop.cancelled() => {}
            }
            stop.cancel();
        });
        Ok(Link { to, from, ended })
    }
}
