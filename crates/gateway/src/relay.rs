//! The body of an answer on its way to the caller: as it comes, until it ends, the caller goes or the token
//! does.

use crate::{callers::Seat, events, lists::Lens, source::Source, trail};
use carnet_proto::time::Clock;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How an answer ends that nobody took to its end.
pub(crate) const CLIENT_GONE: &str = "client_gone";

/// One request that was allowed, from the decision to the end of its answer. However it ends, dropping
/// it puts the outcome on record.
pub(crate) struct Call {
    pub(crate) trail: trail::Trail,
    pub(crate) resource: Arc<str>,
    pub(crate) id: String,
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) ended: &'static str,
    /// Held until the end.
    pub(crate) seat: Seat,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.trail.end(&trail::Outcome {
            kind: "outcome",
            at: self.clock.now(),
            call: &self.id,
            resource: &self.resource,
            status: self.status,
            ended: self.ended,
            ms: (self.started.elapsed().as_secs_f64() * 100_000.0).round() / 100.0,
            answer_bytes: self.bytes,
        });
    }
}

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    /// The token ended; an answer that is no stream of events breaks off.
    #[error("the access token has ended")]
    TokenEnded,
    /// The MCP server's answer broke off.
    #[error("the MCP server's answer broke off")]
    Broken,
    /// An event is larger than it may be.
    #[error("an event is larger than it may be")]
    TooLarge,
    /// An event lists something, and cannot be read.
    #[error("a list cannot be read")]
    Unreadable,
}

/// Looks at each event before it goes on.
pub(crate) struct EventFilter {
    pub(crate) lens: Lens,
    pub(crate) splitter: events::Splitter,
    pub(crate) largest: usize,
}

impl EventFilter {
    /// One event as it goes on.
    fn look(&self, event: Vec<u8>) -> Result<Bytes, Cut> {
        let data = events::data(&event).map_err(|_| Cut::Unreadable)?;
        let new = match data {
            // What is no JSON-RPC is nobody's list.
            Some(data) if data.trim_start().starts_with(['{', '[']) => {
                self.lens.look(&data).map_err(|_| Cut::Unreadable)?
            }
            _ => None,
        };
        Ok(match new {
            None => event.into(),
            Some(new) => events::with_data(&event, &new).into(),
        })
    }
}

type Ends = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// The body.
pub(crate) struct Relay {
    upstream: Source,
    call: Call,
    /// A stream of events ends quietly; anything else breaks off.
    events: bool,
    filter: Option<EventFilter>,
    ready: VecDeque<Bytes>,
    /// When the gateway stops, streams that have no end of their own are ended.
    stopping: Option<CancellationToken>,
    ends: Option<Ends>,
}

impl Relay {
    pub(crate) fn new(
        upstream: Incoming,
        mut call: Call,
        events: bool,
        filter: Option<EventFilter>,
        stopping: Option<CancellationToken>,
    ) -> Self {
        if upstream.is_end_stream() {
            call.ended = "complete";
        }
        let (upstream, ready) = (Source::new(upstream), VecDeque::new());
        if events {
            call.seat.held.stream(&upstream);
        }
        Self { upstream, call, events, filter, ready, stopping, ends: None }
    }

    /// Whether it has to end now.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        let (ended, stopping) = (&self.call.seat.held.ended, &self.stopping);
        let ends = self.ends.get_or_insert_with(|| {
            let ended = ended.clone();
            let stopping = stopping.clone();
            Box::pin(async move {
                match stopping {
                    Some(stopping) => tokio::select! {
                        () = ended.cancelled() => "token_ended",
                        () = stopping.cancelled() => "gateway_stopped",
                    },
                    None => {
                        ended.cancelled().await;
                        "token_ended"
                    }
                }
            })
        });
        ends.as_mut().poll(context)
    }

    fn frame(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.call.bytes += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// A stream of events just ends.
    fn quiet(&mut self, ended: &'static str) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.call.ended = ended;
        self.upstream.let_go();
        Poll::Ready(None)
    }

    fn cut(&mut self, why: Cut, ended: &'static str) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.call.ended = ended;
        self.upstream.let_go();
        self.ready.clear();
        Poll::Ready(Some(Err(why)))
    }

    /// Takes bytes in; whole events come out, looked at.
    fn take(&mut self, bytes: &Bytes) -> Result<(), Cut> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        filter.splitter.feed(bytes);
        while let Some(event) = filter.splitter.next() {
            self.ready.push_back(filter.look(event)?);
        }
        if filter.splitter.waiting() > filter.largest { Err(Cut::TooLarge) } else { Ok(()) }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        // Asked first once it is known to be a long one: a busy stream ends too.
        if this.ends.is_some()
            && let Poll::Ready(ended) = this.poll_end(context)
        {
            if this.events {
                return this.quiet(ended);
            }
            return this.cut(Cut::TokenEnded, ended);
        }
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return this.frame(bytes);
            }
            let Some(next) = this.upstream.poll(context) else {
                // By us, when it was over; else by whoever ended the token.
                let over = this.call.ended != CLIENT_GONE;
                return if over { Poll::Ready(None) } else { this.quiet("token_ended") };
            };
            match next {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers have no meaning here.
                    let Ok(bytes) = frame.into_data() else { continue };
                    if this.filter.is_none() {
                        // Whoever counts bytes does not ask for more after the last one.
                        if this.upstream.is_at_end() {
                            this.call.ended = "complete";
                        }
                        return this.frame(bytes);
                    }
                    if let Err(why) = this.take(&bytes) {
                        tracing::warn!(%why, "an answer was cut");
                        return this.cut(why, "unreadable");
                    }
                }
                Poll::Ready(Some(Err(_))) => return this.cut(Cut::Broken, "upstream_broke"),
                Poll::Ready(None) => {
                    this.call.ended = "complete";
                    this.upstream.let_go();
                    let rest = this.filter.as_mut().and_then(|filter| {
                        // Some readers take it for an event.
                        let rest = filter.splitter.rest();
                        (!rest.is_empty()).then(|| filter.look(rest))
                    });
                    return match rest {
                        Some(Ok(rest)) => this.frame(rest),
                        Some(Err(why)) => this.cut(why, "unreadable"),
                        None => Poll::Ready(None),
                    };
                }
                Poll::Pending => {
                    return match this.poll_end(context) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(ended) if this.events => this.quiet(ended),
                        Poll::Ready(ended) => this.cut(Cut::TokenEnded, ended),
                    };
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.filter {
            None => self.upstream.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.filter.is_none() && self.upstream.is_at_end()
    }
}
