//! Sends a request to the MCP server, and brings the answer back.

use crate::{
    answers::{BROKEN, ErrorAnswer},
    breaker::Pass,
    gateway::{Gateway, Route},
    lists::ListFilter,
    media::{self, Kind},
    relay::{Call, EventFilter, Relay},
    session, trail,
};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use passavant_outbound::UpstreamError;
use passavant_proto::others_text::shown;
use serde_json::value::RawValue;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

/// Answer headers that are forwarded. All others are dropped, because headers that control a proxy
/// in front (`X-Accel-Redirect`, `X-Sendfile`), a browser (`Clear-Site-Data`, `Refresh`, cookies,
/// CORS) or a client (challenges) cannot be enumerated. Type, length, caching and session headers
/// are written by this gateway.
const PASSED: [HeaderName; 6] = [
    header::ALLOW,
    header::CONTENT_LANGUAGE,
    header::RETRY_AFTER,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("traceresponse"),
    HeaderName::from_static("x-request-id"),
];

/// A request for the MCP server, and what is needed to handle its answer.
pub(crate) struct UpstreamRequest<'a> {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) owner: String,
    /// Filters lists in the answer. `None` if the answer cannot contain any.
    pub(crate) list_filter: Option<ListFilter>,
    /// The answer is a stream that ends only when somebody ends it.
    pub(crate) endless: bool,
    /// Permission of the circuit breaker.
    pub(crate) pass: Pass,
}

/// Forwards a request that was allowed, and returns the answer. Nothing is sent before the decision
/// is written.
pub(crate) async fn forward(
    gateway: &Gateway,
    route: &Arc<Route>,
    upstream_request: UpstreamRequest<'_>,
    mut call: Call,
    ticket: trail::Ticket,
) -> Response<Body> {
    let UpstreamRequest { method, headers, body, id, owner, list_filter, endless, pass } =
        upstream_request;
    let held = Arc::clone(&call.permit.held);
    // What is not on record is not done.
    if route.trail.written(ticket).await.is_err() {
        call.ended = "not_recorded";
        return not_recorded(id);
    }
    let sent = route.upstream.send(method, headers, body);
    let answered = tokio::select! {
        biased;
        answered = tokio::time::timeout(route.settings.limits.answer_time, sent) => answered,
        () = held.ended.cancelled() => {
            call.ended = "token_ended";
            return route.guard.revoked();
        }
    };
    let fail = |call: &mut Call, status, ended, text: &str| {
        call.ended = ended;
        let answer = ErrorAnswer::new(status, BROKEN, text).to(id);
        ErrorAnswer {
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
            ..answer
        }
        .respond()
    };
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(UpstreamError::Connect(cause))) => {
            tracing::warn!(resource = %route.resource, cause, "no connection to the MCP server");
            pass.failed(Instant::now());
            let text = "The MCP server behind this gateway cannot be reached; try again later.";
            return fail(&mut call, StatusCode::SERVICE_UNAVAILABLE, "no_answer", text);
        }
        Ok(Err(UpstreamError::Broken(cause))) => {
            tracing::warn!(resource = %route.resource, cause, "the MCP server did not answer");
            pass.failed(Instant::now());
            let text = "The connection to the MCP server behind this gateway broke. Whether the \
                        request was carried out is not known.";
            return fail(&mut call, StatusCode::BAD_GATEWAY, "upstream_broke", text);
        }
        // A slow call may be one caller's doing and does not count as a failure; an unreachable
        // server does.
        Err(_) => {
            let text = "The MCP server behind this gateway did not answer in time.";
            return fail(&mut call, StatusCode::GATEWAY_TIMEOUT, "timed_out", text);
        }
    };
    pass.answered();
    // The body was sent: it is not held any more.
    let _ = call.permit.hold(0);
    call.status = response.status().as_u16();
    back(gateway, route, response, call, (id, &owner), list_filter, endless).await
}

/// 503: a decision that cannot be recorded is not carried out, and an answer not given.
pub(crate) fn not_recorded(id: Option<&RawValue>) -> Response<Body> {
    tracing::error!("a decision could not be put on record");
    let text = "This gateway cannot record its decisions just now, so it refuses every request. \
                Try again later.";
    let answer = ErrorAnswer::new(StatusCode::SERVICE_UNAVAILABLE, BROKEN, text).to(id);
    ErrorAnswer { retry_after: Some(5), ..answer }.respond()
}

async fn back(
    gateway: &Gateway,
    route: &Arc<Route>,
    response: Response<Incoming>,
    mut call: Call,
    (id, owner): (Option<&RawValue>, &str),
    list_filter: Option<ListFilter>,
    endless: bool,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let refuse = |call: &mut Call, text: &str| {
        call.ended = "refused_answer";
        tracing::warn!(resource = %route.resource, status = call.status, text, "an answer was refused");
        ErrorAnswer::new(StatusCode::BAD_GATEWAY, BROKEN, text).to(id).respond()
    };
    match parts.status {
        StatusCode::UNAUTHORIZED => {
            // The MCP server's own token may have been revoked: the next request gets a new one.
            *call.permit.held.upstream_token.lock().await = None;
            let text = "The MCP server answered 401: it does not accept the credentials that this \
                        gateway sends. The operator of the gateway has to compare its settings \
                        with the MCP server's.";
            return refuse(&mut call, text);
        }
        status if status.is_redirection() || status.is_informational() => {
            let text = "The MCP server answered with a redirect, which is not followed. The \
                        operator of the gateway has to set `upstream` to the final address.";
            return refuse(&mut call, text);
        }
        _ => {}
    }
    let Ok(kind) = media::of_answer(&parts.headers) else {
        return refuse(
            &mut call,
            "The Content-Type of the MCP server's answer is malformed or repeated.",
        );
    };
    if !media::is_plain(&parts.headers) {
        let encoding = parts.headers.get(header::CONTENT_ENCODING);
        let encoding = String::from_utf8_lossy(encoding.map_or(&[], HeaderValue::as_bytes));
        let text = format!(
            "The MCP server encodes its answer ({}), though it was not asked to. Its operator has \
             to make it respect Accept-Encoding.",
            shown(&encoding, 40)
        );
        return refuse(&mut call, &text);
    }
    let session = parts.headers.remove(crate::era::SESSION);
    parts.headers = written(&parts.headers, kind);
    if let Some(value) = session {
        let bound = value
            .to_str()
            .ok()
            .and_then(|session| session::bind(&gateway.session_key(), owner, session));
        let bound = bound.and_then(|bound| HeaderValue::from_str(&bound).ok());
        let Some(bound) = bound else {
            return refuse(&mut call, "The MCP server's session id is not visible ASCII.");
        };
        parts.headers.insert(HeaderName::from_static(crate::era::SESSION), bound);
    }
    let (events, json) = (kind == Some(Kind::Events), kind == Some(Kind::Json));
    let list_filter = list_filter.filter(|_| parts.status.is_success());
    let filter = match list_filter {
        Some(list_filter) if json => return list(route, parts, body, call, id, &list_filter).await,
        Some(list_filter) if events => {
            Some(EventFilter::new(list_filter, route.settings.limits.answer))
        }
        // A body that is neither JSON nor events cannot be inspected. 202 is exempt: it answers a
        // notification, and nobody reads a list in it.
        Some(_) if parts.status == StatusCode::OK && !http_body::Body::is_end_stream(&body) => {
            return refuse(
                &mut call,
                "The MCP server answered with neither JSON nor an event stream.",
            );
        }
        _ => None,
    };
    let stopping = endless.then(|| gateway.stopping());
    let keepalive = route.settings.keepalive;
    let relay = Relay::new(body, call, events, filter, stopping, keepalive);
    Response::from_parts(parts, Body::new(relay))
}

/// The headers of the forwarded answer.
fn written(from: &HeaderMap, kind: Option<Kind>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    for (name, value) in from.iter().filter(|(name, _)| PASSED.contains(name)) {
        headers.append(name.clone(), value.clone());
    }
    // What one caller is answered must not be cached for another.
    let mut kept = HeaderValue::from_static("no-store");
    if let Some(kind) = kind {
        let media_type = match kind {
            Kind::Json => media::JSON,
            Kind::Events => media::EVENTS,
            Kind::Other => media::TEXT,
        };
        headers.insert(header::CONTENT_TYPE, media_type);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if kind == Kind::Events {
            // Proxies in front would otherwise buffer events, or compress them.
            kept = HeaderValue::from_static("no-cache, no-store, no-transform");
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
    }
    headers.insert(header::CACHE_CONTROL, kept);
    headers
}

/// A list as one JSON document.
async fn list(
    route: &Route,
    parts: http::response::Parts,
    body: Incoming,
    mut call: Call,
    id: Option<&RawValue>,
    list_filter: &ListFilter,
) -> Response<Body> {
    let refuse = |call: &mut Call, text: &str| {
        call.ended = "unreadable";
        ErrorAnswer::new(StatusCode::BAD_GATEWAY, BROKEN, text).to(id).respond()
    };
    let held = Arc::clone(&call.permit.held);
    let largest = route.settings.limits.answer;
    let read = async {
        let (mut bytes, mut body) = (BytesMut::new(), body);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| ())?.into_data() else { continue };
            if bytes.len() + data.len() > largest || call.permit.hold_more(data.len()).is_err() {
                return Err(());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    let read = tokio::select! {
        read = tokio::time::timeout(route.settings.limits.answer_time, read) => read,
        () = held.ended.cancelled() => {
            call.ended = "token_ended";
            return route.guard.revoked();
        }
    };
    let Ok(Ok(bytes)) = read else {
        return refuse(&mut call, "The MCP server's answer is too large, too slow, or broke off.");
    };
    let looked = std::str::from_utf8(&bytes).map(|text| list_filter.document(text));
    let bytes = match looked {
        Ok(Ok(None)) => bytes,
        Ok(Ok(Some(new))) => new.into(),
        _ => return refuse(&mut call, "The MCP server's list cannot be read."),
    };
    call.bytes = bytes.len() as u64;
    call.ended = "complete";
    let whole = Whole { bytes: Some(bytes), _call: call };
    Response::from_parts(parts, Body::new(whole))
}

/// An answer that was read whole. The bytes it holds are released after it was sent.
struct Whole {
    bytes: Option<Bytes>,
    _call: Call,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
