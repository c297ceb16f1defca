//! Answers that the gateway makes itself: JSON-RPC errors, which clients of either protocol era can
//! read.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use passavant_proto::oauth::challenge::Challenge;
use serde_json::{Value, json, value::RawValue};

/// JSON-RPC code of a request that is refused to this caller. The resource layer uses it too.
pub(crate) const REFUSED: i64 = -32001;
/// JSON-RPC: the method does not exist.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC code of a failure on the server's side.
pub(crate) const BROKEN: i64 = -32603;

/// One answer that the gateway makes itself.
pub(crate) struct ErrorAnswer<'a> {
    pub(crate) status: StatusCode,
    /// The id of the request, as it was written. `None` leaves the member out.
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) code: i64,
    pub(crate) text: &'a str,
    pub(crate) data: Option<Value>,
    pub(crate) challenge: Option<&'a Challenge>,
    /// Seconds to wait before the next attempt.
    pub(crate) retry_after: Option<u64>,
}

impl<'a> ErrorAnswer<'a> {
    pub(crate) fn new(status: StatusCode, code: i64, text: &'a str) -> Self {
        Self { status, id: None, code, text, data: None, challenge: None, retry_after: None }
    }

    pub(crate) fn to(mut self, id: Option<&'a RawValue>) -> Self {
        self.id = id;
        self
    }

    pub(crate) fn respond(self) -> Response<Body> {
        let mut error = json!({"code": self.code, "message": self.text});
        if let Some(data) = self.data {
            error["data"] = data;
        }
        let id = self.id.map_or(String::new(), |id| format!("\"id\":{},", id.get()));
        let body = format!("{{\"jsonrpc\":\"2.0\",{id}\"error\":{error}}}");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let challenge = self.challenge.map(Challenge::to_header);
        if let Some(value) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// Public JSON that may be cached for a while: metadata and keys.
pub(crate) fn public(body: &impl serde::Serialize) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let kept = HeaderValue::from_static("public, max-age=300");
    headers.insert(header::CACHE_CONTROL, kept);
    // Public data: pages of any origin may read it, because browser-based MCP clients need it.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Request headers that a page of an allowed origin may send.
const FROM_PAGES: &str = "authorization, content-type, accept, dpop, last-event-id, mcp-session-id, \
                          mcp-protocol-version, mcp-method, mcp-name, traceparent, tracestate";

/// Lets a page of an allowed origin read the answer (CORS).
pub(crate) fn readable_from(origin: &HeaderValue, headers: &mut HeaderMap) {
    let exposed = "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after";
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed)),
        (header::VARY, HeaderValue::from_static("origin")),
    ];
    for (name, value) in fixed {
        headers.insert(name, value);
    }
}

/// Answers a CORS preflight request. `Mcp-Param-…` headers are allowed as requested, because their
/// names depend on the tool.
pub(crate) fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|v| v.to_str().ok());
    let parameters = wanted.unwrap_or_default().split(',').map(str::trim);
    let parameters = parameters.filter(|name| name.to_ascii_lowercase().starts_with("mcp-param-"));
    let allowed =
        std::iter::once(FROM_PAGES).chain(parameters).take(60).collect::<Vec<_>>().join(", ");
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("POST, GET, DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}
