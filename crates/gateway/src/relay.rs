//! The body of an answer on its way to the caller: forwarded as it comes, until it ends, the caller
//! disconnects or the token ends.

use crate::{
    callers::RequestPermit, events, lists::ListFilter, trail, upstream_body::UpstreamBody,
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use passavant_proto::mcp::call_record::{CallKind, CallRecord};
use passavant_proto::time::Clock;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// The recorded outcome of an answer that was not read to its end.
pub(crate) const CLIENT_GONE: &str = "client_gone";

/// One allowed request, from the decision to the end of its answer. Dropping it records the
/// outcome, however it ended.
pub(crate) struct Call {
    pub(crate) trail: trail::Trail,
    pub(crate) resource: Arc<str>,
    pub(crate) id: String,
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) ended: &'static str,
    /// Kept until the end.
    pub(crate) permit: RequestPermit,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.trail.end(&CallRecord {
            kind: CallKind::Outcome,
            at: self.clock.now(),
            call: (&*self.id).into(),
            resource: (&*self.resource).into(),
            status: Some(self.status),
            ended: self.ended.into(),
            ms: Some((self.started.elapsed().as_secs_f64() * 100_000.0).round() / 100.0),
            answer_bytes: Some(self.bytes),
            ..CallRecord::default()
        });
    }
}

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    /// The token ended. An answer that is not an event stream is broken off.
    #[error("the access token has ended")]
    TokenEnded,
    /// The MCP server's answer broke off.
    #[error("the MCP server's answer broke off")]
    Broken,
    /// An event is larger than allowed.
    #[error("an event is larger than it may be")]
    TooLarge,
    /// An event seems to list something, and cannot be parsed.
    #[error("a list cannot be read")]
    Unreadable,
}

/// Inspects each event before it is forwarded.
pub(crate) struct EventFilter {
    pub(crate) list_filter: ListFilter,
    pub(crate) splitter: events::Splitter,
    pub(crate) largest: usize,
    /// An event that was rewritten. It follows what was passed before it.
    written: Option<Bytes>,
}

/// The approximate maximum of bytes that are forwarded in one piece.
const PIECE: usize = 64 * 1024;

impl EventFilter {
    pub(crate) fn new(list_filter: ListFilter, largest: usize) -> Self {
        Self { list_filter, splitter: events::Splitter::default(), largest, written: None }
    }

    /// Inspects one event. Returns its replacement, or `None` if it is forwarded as it came.
    fn look(list_filter: &ListFilter, event: &[u8]) -> Result<Option<Bytes>, Cut> {
        // Readers repair invalid UTF-8 in different ways.
        let text = std::str::from_utf8(event).map_err(|_| Cut::Unreadable)?;
        let data = events::data(text);
        let is_message =
            data.as_ref().is_some_and(|data| data.trim_start().starts_with(['{', '[']));
        let new = match &data {
            // An event that is not JSON-RPC contains no list.
            Some(data) if is_message => list_filter.look(data).map_err(|_| Cut::Unreadable)?,
            _ => None,
        };
        match (new, data) {
            (Some(new), _) => Ok(Some(events::with_data(text, &new).into())),
            (None, _) if !events::is_odd(text) => Ok(None),
            (None, Some(data)) if is_message => Ok(Some(events::with_data(text, &data).into())),
            // Readers would divide this event differently, and its purpose is unknown.
            (None, Some(_)) => Err(Cut::Unreadable),
            (None, None) => Ok(Some(Bytes::new())),
        }
    }

    /// The next piece that may be forwarded.
    fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        if let Some(written) = self.written.take() {
            return Ok(Some(written));
        }
        while self.splitter.passed() < PIECE {
            let Some(event) = self.splitter.peek() else { break };
            let (len, looked) = (event.len(), Self::look(&self.list_filter, event)?);
            let Some(new) = looked else {
                self.splitter.pass(len);
                continue;
            };
            let before = self.splitter.take();
            self.splitter.leave_out(len);
            if before.is_empty() && new.is_empty() {
                continue;
            }
            if before.is_empty() {
                return Ok(Some(new));
            }
            self.written = Some(new).filter(|new| !new.is_empty());
            return Ok(Some(before));
        }
        if self.splitter.passed() > 0 {
            return Ok(Some(self.splitter.take()));
        }
        if self.splitter.waiting() > self.largest { Err(Cut::TooLarge) } else { Ok(None) }
    }

    /// The rest at the end of the stream: some readers take it for an event.
    fn rest(&mut self) -> Result<Option<Bytes>, Cut> {
        let rest = self.splitter.rest();
        if rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self::look(&self.list_filter, &rest)?.unwrap_or(rest))
            .filter(|rest| !rest.is_empty()))
    }
}

type Ends = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// The body of a forwarded answer.
pub(crate) struct Relay {
    upstream: UpstreamBody,
    call: Call,
    /// An event stream ends without an error; any other answer is broken off.
    events: bool,
    filter: Option<EventFilter>,
    /// Streams that have no end of their own are ended when the gateway stops.
    stopping: Option<CancellationToken>,
    ends: Option<Ends>,
    quiet: Quiet,
}

/// Keep-alive: a comment is sent into an event stream that has been quiet for a while, so that
/// intermediaries do not close it.
struct Quiet {
    /// `None` if this is not an event stream, or keep-alive is off.
    every: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The last bytes that were forwarded: a comment may only stand between two events.
    tail: [u8; 4],
}

/// A comment, followed by an empty line.
const COMMENT: &[u8] = b":\n\n";

impl Quiet {
    fn new(every: Option<Duration>) -> Self {
        // The position before the first byte is between two events too.
        Self { every, timer: None, tail: *b"\n\n\n\n" }
    }

    fn passed(&mut self, bytes: &[u8]) {
        if self.every.is_none() {
            return;
        }
        self.timer = None;
        let kept: Vec<u8> =
            self.tail.iter().chain(&bytes[bytes.len().saturating_sub(4)..]).copied().collect();
        self.tail.copy_from_slice(&kept[kept.len() - 4..]);
    }

    fn between_events(&self) -> bool {
        let tail = &self.tail[..];
        tail.ends_with(b"\n\n") || tail.ends_with(b"\r\n\r\n") || tail.ends_with(b"\r\r")
    }

    /// Whether a comment is due.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Some(every) = self.every else { return false };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        if timer.as_mut().poll(context).is_pending() {
            return false;
        }
        self.timer = None;
        if self.between_events() {
            return true;
        }
        // In the middle of an event no comment may be sent: look again later.
        self.poll(context)
    }
}

impl Relay {
    pub(crate) fn new(
        upstream: Incoming,
        mut call: Call,
        events: bool,
        filter: Option<EventFilter>,
        stopping: Option<CancellationToken>,
        keepalive: Option<Duration>,
    ) -> Self {
        if upstream.is_end_stream() {
            call.ended = "complete";
        }
        let upstream = UpstreamBody::new(upstream);
        // Whether events or not: a caller that does not read must not keep a connection to the MCP
        // server open with an ended token.
        call.permit.held.stream(&upstream);
        let quiet = Quiet::new(keepalive.filter(|_| events));
        Self { upstream, call, events, filter, stopping, ends: None, quiet }
    }

    /// Whether the body has to end now.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        let (ended, stopping) = (&self.call.permit.held.ended, &self.stopping);
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
        self.quiet.passed(&bytes);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Ends an event stream without an error.
    fn quiet(&mut self, ended: &'static str) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.call.ended = ended;
        self.upstream.let_go();
        Poll::Ready(None)
    }

    fn cut(&mut self, why: Cut, ended: &'static str) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.call.ended = ended;
        self.upstream.let_go();
        Poll::Ready(Some(Err(why)))
    }

    /// The next inspected piece that may be forwarded.
    fn piece(&mut self) -> Result<Option<Bytes>, Cut> {
        let Some(filter) = &mut self.filter else { return Ok(None) };
        let next = filter.next();
        let held = filter.splitter.waiting();
        self.call.permit.hold(held).map_err(|_| Cut::TooLarge)?;
        next
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
        // Poll cancellation before data once the stream has been pending, so that a busy stream
        // ends too.
        if this.ends.is_some()
            && let Poll::Ready(ended) = this.poll_end(context)
        {
            if this.events {
                return this.quiet(ended);
            }
            return this.cut(Cut::TokenEnded, ended);
        }
        loop {
            match this.piece() {
                Ok(Some(bytes)) => return this.frame(bytes),
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(%why, "an answer was cut");
                    return this.cut(why, "unreadable");
                }
            }
            let Some(next) = this.upstream.poll(context) else {
                // The upstream body is gone: either this relay finished, or the token ended.
                return match this.call.ended {
                    CLIENT_GONE if this.events => this.quiet("token_ended"),
                    CLIENT_GONE => this.cut(Cut::TokenEnded, "token_ended"),
                    _ => Poll::Ready(None),
                };
            };
            match next {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers have no meaning here.
                    let Ok(bytes) = frame.into_data() else { continue };
                    let Some(filter) = &mut this.filter else {
                        // With a known length the client may not poll again after the last byte, so
                        // completion is noted here.
                        if this.upstream.is_complete() {
                            this.call.ended = "complete";
                        }
                        return this.frame(bytes);
                    };
                    filter.splitter.feed(&bytes);
                }
                Poll::Ready(Some(Err(_))) => return this.cut(Cut::Broken, "upstream_broke"),
                Poll::Ready(None) => {
                    this.call.ended = "complete";
                    this.upstream.let_go();
                    let rest = this.filter.as_mut().map_or(Ok(None), EventFilter::rest);
                    return match rest {
                        Ok(Some(rest)) => this.frame(rest),
                        Ok(None) => Poll::Ready(None),
                        Err(why) => this.cut(why, "unreadable"),
                    };
                }
                Poll::Pending => {
                    return match this.poll_end(context) {
                        Poll::Pending if this.quiet.poll(context) => {
                            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))))
                        }
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
        self.call.ended != CLIENT_GONE || (self.filter.is_none() && self.upstream.is_complete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_has_its_place_between_events_alone() {
        for (passed, between) in [
            (&[][..], true),
            (&["data: 1\n\n"][..], true),
            (&["data: 1\n"][..], false),
            (&["data: 1\n", "\n"][..], true),
            (&["data: 1\r\n\r\n"][..], true),
            (&["data: 1\r\n\r", "\n"][..], true),
            (&["data: 1\r", "\r"][..], true),
            (&["data: 1\r\n"][..], false),
            (&["data: 1\n\n", "d"][..], false),
            (&["data: 1\n\ndata: 2"][..], false),
        ] {
            let mut quiet = Quiet::new(Some(Duration::from_secs(1)));
            for bytes in passed {
                quiet.passed(bytes.as_bytes());
            }
            assert_eq!(quiet.between_events(), between, "{passed:?}");
        }
    }
}
