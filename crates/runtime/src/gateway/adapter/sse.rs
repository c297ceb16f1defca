//! The HTTP+SSE transport of 2024-11-05: one stream of events for everything that the server sends,
//! and an endpoint for POST that the stream names first.

use super::{LARGEST, Link};
use anyhow::{Context, Result, bail};
use http::{HeaderName, HeaderValue};
use passavant_outbound::{Event, Events, Outbound};
use passavant_proto::{others_text::shown, secret::Secret};
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

/// Time for the stream to begin and to name its endpoint.
const BEGINS: Duration = Duration::from_secs(10);
/// Time for one message to be accepted.
const TAKEN: Duration = Duration::from_secs(30);

/// The URL of the stream, and how to request it.
#[derive(Clone)]
pub struct Sse {
    pub url: String,
    pub outbound: Outbound,
    /// The MCP server's own credential.
    pub credential: Option<(HeaderName, Secret)>,
    /// `Host`, if the MCP server accepts only a certain one.
    pub host: Option<HeaderValue>,
}

/// An event's name and data; without a name it is a message.
fn read(event: Event) -> (String, String) {
    (event.name.unwrap_or_else(|| "message".to_owned()), event.data.unwrap_or_default())
}

impl Sse {
    pub(super) async fn open(&self) -> Result<Link> {
        let http = self.outbound.streaming(&self.url)?;
        let with = {
            let (credential, host) = (self.credential.clone(), self.host.clone());
            move |request: reqwest::RequestBuilder| {
                let request = match &credential {
                    Some((name, value)) => request.header(name, value.expose()),
                    None => request,
                };
                match &host {
                    Some(host) => request.header("host", host),
                    None => request,
                }
            }
        };
        let request = with(http.get(&self.url)).header("accept", "text/event-stream");
        let begun = timeout(BEGINS, async {
            let response = request
                .send()
                .await
                .map_err(|e| anyhow::anyhow!(passavant_outbound::cause_of(&e)))?;
            if !response.status().is_success() {
                bail!("its event stream answers HTTP {}", response.status().as_u16());
            }
            let mut events = Events::of(response, LARGEST);
            loop {
                match events.next().await?.map(read) {
                    Some((name, data)) if name == "endpoint" => return Ok((events, data)),
                    Some(_) => {}
                    None => bail!("its event stream ended before an `endpoint` event"),
                }
            }
        });
        let (mut events, named) =
            begun.await.context("its event stream does not begin in time")??;
        let own = Url::parse(&self.url)?;
        let endpoint = own.join(named.trim()).context("its `endpoint` event has no valid URL")?;
        // Messages and credentials are sent only to the origin that the administrator configured.
        if endpoint.origin() != own.origin() {
            bail!("its `endpoint` event names another origin: {}", shown(endpoint.as_str(), 200));
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
                            let why = passavant_outbound::cause_of(&error);
                            tracing::warn!(why, "a message did not reach the MCP server");
                            return;
                        }
                    }
                }
            };
            let reading = async {
                loop {
                    match events.next().await.map(|event| event.map(read)) {
                        Ok(Some((name, data))) if name == "message" && !data.is_empty() => {
                            let one_line = data.replace('\n', " ");
                            if lines.send(one_line).await.is_err() {
                                return;
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => return,
                        Err(error) => {
                            tracing::warn!(
                                error = error.to_string(),
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
