//! The steps of one request to one MCP server, in order: who calls, whether they may continue, what
//! they ask for, whether it is allowed, and what the MCP server learns about them.

use crate::{
    answers::{self, BROKEN, ErrorAnswer, REFUSED},
    authorize::{self, RecordedOperation},
    callers::{Busy, Callers, Inactive, RequestPermit, TokenState, Watch},
    era::{self, Agreed, Fault},
    gateway::{Gateway, Route},
    identity,
    lists::{self, ListFilter},
    media,
    proxy::{self, UpstreamRequest},
    relay::{CLIENT_GONE, Call},
    session,
    settings::ToolChanges,
    trail,
};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts,
};
use http_body::Body as _;
use http_body_util::BodyExt;
use passavant_proto::{
    mcp::call_record::{CallKind, CallRecord},
    mcp::message::{self, INVALID_REQUEST},
    time::Timestamp,
};
use passavant_resource::{Caller, Refused, token_of};
use serde_json::value::RawValue;
use std::{sync::Arc, time::Instant};

/// A request whose caller is known, before the decision.
struct AdmittedRequest {
    permit: RequestPermit,
    call: String,
    started: Instant,
    now: Timestamp,
}

impl AdmittedRequest {
    fn held(&self) -> &Arc<TokenState> {
        &self.permit.held
    }
}

impl Gateway {
    /// Handles a request to one MCP server.
    pub(crate) async fn guarded(
        &self,
        route: &Arc<Route>,
        parts: Parts,
        body: Body,
    ) -> Response<Body> {
        if parts.method == Method::OPTIONS {
            let origin = parts.headers.get(header::ORIGIN);
            return match origin {
                Some(origin) if route.guard.allows_origin(origin) => {
                    answers::preflight(&parts.headers)
                }
                _ => {
                    let text = "Pages of this origin may not call this MCP server.";
                    ErrorAnswer::new(StatusCode::FORBIDDEN, REFUSED, text).respond()
                }
            };
        }
        if ![Method::POST, Method::GET, Method::DELETE].contains(&parts.method) {
            let text = "Method not allowed: use POST, GET or DELETE.";
            let answer = ErrorAnswer::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, text);
            let mut response = answer.respond();
            let allowed = HeaderValue::from_static("POST, GET, DELETE");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        let now = self.deps().clock.now();
        let caller = route.guard.admit(parts.method.as_str(), &parts.uri, &parts.headers).await;
        let caller = match caller {
            Ok(caller) => caller,
            Err(refused) => return self.reject_token(route, &parts, refused, now).await,
        };
        let admitted = match self.admit(route, &caller, &parts, now).await {
            Ok(admitted) => admitted,
            Err(response) => return response,
        };
        if let Err(response) = check_query(route, &parts) {
            let operation =
                RecordedOperation { method: parts.method.to_string(), target: String::new() };
            let about = About { held: admitted.held(), call: &admitted.call, now, bytes: 0 };
            self.refused(route, &about, &operation, "request.query", "").await;
            return response;
        }
        if parts.method == Method::POST {
            self.post(route, &parts, body, admitted).await
        } else {
            self.without_body(route, &parts, admitted).await
        }
    }

    /// Checks the rates, and whether the token is still active.
    async fn admit(
        &self,
        route: &Arc<Route>,
        caller: &Caller,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<AdmittedRequest, Response<Body>> {
        let held = route.callers.of(&route.resource, caller, token_of(&parts.headers), now);
        let call = self.deps().entropy.id();
        let started = Instant::now();
        let nothing = RecordedOperation { method: String::new(), target: String::new() };
        let about = About { held: &held, call: &call, now, bytes: 0 };
        let permit = match route.callers.permit(&held) {
            Ok(permit) => permit,
            Err(busy) => return Err(self.busy(route, &about, busy).await),
        };
        if let Some(watch) = Watch::of(&route.settings) {
            match held.stands(watch, now).await {
                Ok(()) => {}
                Err(Inactive::Revoked) => {
                    if route.may_record_rejected_token(now) {
                        self.refused(route, &about, &nothing, "token.revoked", "").await;
                    }
                    return Err(route.guard.revoked());
                }
                Err(Inactive::Unknown) => {
                    if route.may_record_rejected_token(now) {
                        self.refused(route, &about, &nothing, "token.unknown", "").await;
                    }
                    let text = "The token cannot be checked just now; try again.";
                    let answer = ErrorAnswer::new(StatusCode::SERVICE_UNAVAILABLE, BROKEN, text);
                    return Err(ErrorAnswer { retry_after: Some(5), ..answer }.respond());
                }
            }
        }
        if let Err(busy) = Callers::take(&held) {
            return Err(self.busy(route, &about, busy).await);
        }
        Ok(AdmittedRequest { permit, call, started, now })
    }

    async fn busy(&self, route: &Route, about: &About<'_>, busy: Busy) -> Response<Body> {
        let (status, reason, text, wait) = match busy {
            Busy::Person(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate.person",
                "You have sent more requests than one person may; wait.",
                wait.as_secs() + 1,
            ),
            Busy::Client(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate.client",
                "Your client has sent more requests than one client may; wait.",
                wait.as_secs() + 1,
            ),
            Busy::Concurrent => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate.concurrent",
                "You have more requests and streams open than one person may; end some.",
                1,
            ),
            Busy::Bytes => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate.bytes",
                "You have more bytes in progress than one person may; wait for some answers.",
                1,
            ),
            Busy::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "rate.full",
                "This gateway has reached its limit of requests, streams or bytes in progress; try \
                 again.",
                1,
            ),
        };
        // Refusals without a caller share the budget of refused tokens, so that floods cannot fill
        // the disk.
        if route.may_record_rejected_token(about.now) {
            let operation = RecordedOperation { method: String::new(), target: String::new() };
            self.refused(route, about, &operation, reason, "").await;
        }
        ErrorAnswer { retry_after: Some(wait), ..ErrorAnswer::new(status, REFUSED, text) }.respond()
    }

    /// Answers a request whose token is not accepted: the sender is unknown.
    async fn reject_token(
        &self,
        route: &Route,
        parts: &Parts,
        refused: Refused,
        now: Timestamp,
    ) -> Response<Body> {
        let sent = matches!(refused.reason, "token.invalid" | "token.proof");
        if sent && route.may_record_rejected_token(now) {
            let decision = CallRecord {
                kind: CallKind::Decision,
                at: now,
                call: self.deps().entropy.id().into(),
                resource: (&*route.resource).into(),
                method: parts.method.as_str().into(),
                outcome: "refused".into(),
                reason: refused.reason.into(),
                request_bytes: Some(0),
                ..CallRecord::default()
            };
            if route.trail.decide(&decision).await.is_err() {
                tracing::error!("a refusal could not be put on record");
            }
        }
        refused.response
    }

    /// Records a refusal.
    async fn refused(
        &self,
        route: &Route,
        about: &About<'_>,
        operation: &RecordedOperation,
        reason: &str,
        rule: &str,
    ) {
        if !about.held.is_refusal_told() {
            return route.trail.leave_out();
        }
        let decision = about.decision(route, operation, reason, rule, None);
        if route.trail.decide(&decision).await.is_err() {
            tracing::error!("a refusal could not be put on record");
        }
    }

    async fn post(
        &self,
        route: &Arc<Route>,
        parts: &Parts,
        body: Body,
        mut admitted: AdmittedRequest,
    ) -> Response<Body> {
        let nothing = RecordedOperation { method: String::new(), target: String::new() };
        let bytes = match read_body(route, &parts.headers, body, &mut admitted.permit).await {
            Ok(bytes) => bytes,
            Err(why) => {
                let about = About {
                    held: admitted.held(),
                    call: &admitted.call,
                    now: admitted.now,
                    bytes: 0,
                };
                return match why {
                    NoBody::Busy(busy) => self.busy(route, &about, busy).await,
                    NoBody::Refused(response) => {
                        self.refused(route, &about, &nothing, "request.unreadable", "").await;
                        response
                    }
                };
            }
        };
        let fault = |error: &message::McpError| Fault {
            code: error.code(),
            text: error.to_string(),
            data: None,
        };
        let batches = era::has_batches(&parts.headers);
        let read =
            batches.and_then(|batches| message::read(&bytes, batches).map_err(|e| fault(&e)));
        let about = About {
            held: admitted.held(),
            call: &admitted.call,
            now: admitted.now,
            bytes: bytes.len(),
        };
        let body = match read {
            Ok(body) => body,
            Err(fault) => {
                self.refused(route, &about, &nothing, "request.unreadable", "").await;
                return fault.respond(None);
            }
        };
        let operation = RecordedOperation::of(&body);
        let id = match body.messages.as_slice() {
            [message] => message.id,
            _ => None,
        };
        let Agreed { stateless, parameters } =
            match era::check(&parts.headers, &body, &route.snapshots) {
                Ok(agreed) => agreed,
                Err(fault) => {
                    self.refused(route, &about, &operation, "request.header_mismatch", "").await;
                    return fault.respond(id);
                }
            };
        let rule = match authorize::authorize(route, admitted.held(), &body, admitted.now) {
            Ok(rule) => rule,
            Err(why) => {
                self.refused(route, &about, &operation, why.reason(), why.rule()).await;
                return authorize::answer(route, &why, id, stateless);
            }
        };
        // Each member of a batch counts as one request.
        let more = u32::try_from(body.messages.len() - 1).unwrap_or(u32::MAX);
        if let Err(busy) = admitted.held().take_more(more) {
            return self.busy(route, &about, busy).await;
        }
        let arguments = arguments_on_record(route, &body);
        // With `Block`, no answer may bring a list past the filter.
        let lists = route.settings.tool_changes == ToolChanges::Block
            || body.messages.iter().any(|message| message.method.ends_with("/list"));
        let endless = body.messages.iter().any(|message| message.method == "subscriptions/listen");
        let asked_for = lists::asked(&body);
        let go = Go { id, rule: &rule, arguments, parameters, lists, asked_for, endless };
        self.go(route, parts, bytes.clone(), admitted, operation, go).await
    }

    /// GET opens a stream, DELETE ends a session.
    async fn without_body(
        &self,
        route: &Arc<Route>,
        parts: &Parts,
        admitted: AdmittedRequest,
    ) -> Response<Body> {
        let operation =
            RecordedOperation { method: parts.method.to_string(), target: String::new() };
        let about =
            About { held: admitted.held(), call: &admitted.call, now: admitted.now, bytes: 0 };
        if let Err(fault) = era::check_version(&parts.headers) {
            self.refused(route, &about, &operation, "request.version", "").await;
            return fault.respond(None);
        }
        let needed = route.settings.rules.base();
        if !admitted.held().caller.scopes().contains_all(needed) {
            self.refused(route, &about, &operation, "operation.scope", "every request").await;
            let challenge = route.guard.insufficient_scope(needed);
            let text = format!("This operation needs the scopes: {needed}");
            let answer = ErrorAnswer::new(StatusCode::FORBIDDEN, REFUSED, &text);
            return ErrorAnswer { challenge: Some(&challenge), ..answer }.respond();
        }
        let stream = parts.method == Method::GET;
        let go = Go {
            id: None,
            rule: "every request",
            arguments: None,
            parameters: Vec::new(),
            lists: stream,
            asked_for: Arc::default(),
            endless: stream,
        };
        self.go(route, parts, Bytes::new(), admitted, operation, go).await
    }

    /// Forwards an allowed request: session, identity, circuit breaker, record, MCP server.
    async fn go(
        &self,
        route: &Arc<Route>,
        parts: &Parts,
        body: Bytes,
        admitted: AdmittedRequest,
        operation: RecordedOperation,
        go: Go<'_>,
    ) -> Response<Body> {
        let id = go.id;
        let held = Arc::clone(admitted.held());
        let about =
            About { held: &held, call: &admitted.call, now: admitted.now, bytes: body.len() };
        let session = match session_of(self, &parts.headers, &held) {
            Ok(session) => session,
            Err(why) => {
                self.refused(route, &about, &operation, why.reason(), "").await;
                return why.respond(id);
            }
        };
        let deps = self.deps();
        let from = identity::ForwardedParts {
            headers: &parts.headers,
            parameters: &go.parameters,
            json: parts.method == Method::POST,
        };
        let headers = identity::headers(deps, route, &held, from, session.as_deref(), admitted.now);
        let headers = match headers.await {
            Ok(headers) => headers,
            Err(why) => {
                self.refused(route, &about, &operation, why.reason, "").await;
                return ErrorAnswer::new(why.status, why.code, &why.text).to(id).respond();
            }
        };
        let pass = match route.breaker.enter(Instant::now()) {
            Ok(pass) => pass,
            Err(wait) => {
                self.refused(route, &about, &operation, "upstream.down", "").await;
                let text = "The MCP server behind this gateway does not answer; try again later.";
                let answer = ErrorAnswer::new(StatusCode::SERVICE_UNAVAILABLE, BROKEN, text).to(id);
                return ErrorAnswer { retry_after: Some(wait.as_secs() + 1), ..answer }.respond();
            }
        };
        let decision = about.decision(route, &operation, "", go.rule, go.arguments);
        let Ok(ticket) = route.trail.decide(&decision).await else {
            return proxy::not_recorded(id);
        };
        drop(decision);
        let call = Call {
            trail: route.trail.clone(),
            resource: Arc::clone(&route.resource),
            id: admitted.call,
            clock: deps.clock.clone(),
            started: admitted.started,
            status: 0,
            bytes: 0,
            ended: CLIENT_GONE,
            permit: admitted.permit,
        };
        let list_filter = go.lists.then(|| {
            ListFilter::new(
                Arc::clone(route),
                held.caller.scopes().clone(),
                go.asked_for,
                admitted.now,
            )
        });
        let upstream_request = UpstreamRequest {
            method: parts.method.clone(),
            headers,
            body,
            id,
            owner: held.owner.clone(),
            list_filter,
            endless: go.endless,
            pass,
        };
        proxy::forward(self, route, upstream_request, call, ticket).await
    }
}

/// The decision on an allowed request.
struct Go<'a> {
    id: Option<&'a RawValue>,
    rule: &'a str,
    arguments: Option<serde_json::Value>,
    /// Headers that repeat arguments.
    parameters: Vec<HeaderName>,
    /// The answer may contain lists.
    lists: bool,
    /// Ids of requests for `tools/list`.
    asked_for: Arc<[String]>,
    /// The answer is a stream without an end of its own.
    endless: bool,
}

/// What all records of a request have in common.
struct About<'a> {
    held: &'a TokenState,
    call: &'a str,
    now: Timestamp,
    bytes: usize,
}

impl<'a> About<'a> {
    /// A record of a decision. An empty `reason` means allowed.
    fn decision(
        &'a self,
        route: &'a Route,
        operation: &'a RecordedOperation,
        reason: &'a str,
        rule: &'a str,
        arguments: Option<serde_json::Value>,
    ) -> CallRecord<'a> {
        let caller = &self.held.caller;
        CallRecord {
            kind: CallKind::Decision,
            at: self.now,
            call: self.call.into(),
            resource: (&*route.resource).into(),
            person: caller.subject().into(),
            issuer: caller.issuer().into(),
            client: caller.client().into(),
            token: caller.token_id().into(),
            txn: caller.transaction().unwrap_or_default().into(),
            method: (&*operation.method).into(),
            target: (&*operation.target).into(),
            outcome: if reason.is_empty() { "granted" } else { "refused" }.into(),
            reason: reason.into(),
            rule: rule.into(),
            request_bytes: Some(self.bytes as u64),
            arguments,
            ..CallRecord::default()
        }
    }
}

/// Why the session cannot be used: it is not the caller's, or cannot be resumed.
enum NoSession {
    Foreign,
    Fault(Fault),
}

impl NoSession {
    fn reason(&self) -> &'static str {
        match self {
            Self::Foreign => "session.unknown",
            Self::Fault(_) => "request.header_mismatch",
        }
    }

    fn respond(&self, id: Option<&RawValue>) -> Response<Body> {
        match self {
            // The status that the transport defines: the client begins a new session.
            Self::Foreign => ErrorAnswer::new(StatusCode::NOT_FOUND, REFUSED, "Session not found")
                .to(id)
                .respond(),
            Self::Fault(fault) => fault.respond(id),
        }
    }
}

/// The MCP server's own session id, if the presented one is bound to this caller.
fn session_of(
    gateway: &Gateway,
    headers: &HeaderMap,
    held: &TokenState,
) -> Result<Option<String>, NoSession> {
    let sent = era::only(headers, era::SESSION).map_err(NoSession::Fault)?;
    let resumes = era::only(headers, era::LAST_EVENT).map_err(NoSession::Fault)?.is_some();
    match sent {
        Some(bound) => session::unbind(&gateway.session_key(), &held.owner, bound)
            .map(|id| Some(id.to_owned()))
            .ok_or(NoSession::Foreign),
        // Events belong to a caller: without a session nobody can tell to whom.
        None if resumes => Err(NoSession::Foreign),
        None => Ok(None),
    }
}

/// Refuses a query, unless it is part of the resource identifier.
fn check_query(route: &Route, parts: &Parts) -> Result<(), Response<Body>> {
    match parts.uri.query() {
        Some(query) if Some(query) != route.query.as_deref() => {
            let text = "The query is not the one of this MCP server's URL. Use its URL as it is; a \
                        token never belongs in a query.";
            Err(ErrorAnswer::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text).respond())
        }
        _ => Ok(()),
    }
}

/// Why the body could not be read.
enum NoBody {
    Refused(Response<Body>),
    Busy(Busy),
}

/// Reads a JSON body within its limits. Its bytes count against its person from the first to the
/// last.
async fn read_body(
    route: &Route,
    headers: &HeaderMap,
    body: Body,
    permit: &mut RequestPermit,
) -> Result<Bytes, NoBody> {
    let refuse = |status, text: &str| {
        Err(NoBody::Refused(ErrorAnswer::new(status, INVALID_REQUEST, text).respond()))
    };
    if let Err(odd) = media::check_json(headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, odd.text());
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported.");
    }
    if !headers.contains_key(header::ACCEPT) {
        let text = "Accept is missing: send application/json, text/event-stream.";
        return refuse(StatusCode::BAD_REQUEST, text);
    }
    let limits = &route.settings.limits;
    let too_large = || {
        let text = format!("The body is larger than {} bytes.", limits.body);
        refuse(StatusCode::PAYLOAD_TOO_LARGE, &text)
    };
    // Without `Content-Length`, the bytes that arrived are counted.
    let told = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    if told.is_some_and(|length| length > limits.body) {
        return too_large();
    }
    permit.hold(told.unwrap_or(0)).map_err(NoBody::Busy)?;
    let (mut bytes, mut body) = (BytesMut::with_capacity(told.unwrap_or(0)), body);
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return refuse(StatusCode::BAD_REQUEST, "The body ended before it was complete.");
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.body {
                return too_large();
            }
            bytes.extend_from_slice(&data);
            permit.hold(bytes.len().max(told.unwrap_or(0))).map_err(NoBody::Busy)?;
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(limits.body_time, read).await {
        Ok(read) => read,
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time."),
    }
}

/// The arguments of a tool call, if an administrator has them recorded.
fn arguments_on_record(route: &Route, body: &message::Body<'_>) -> Option<serde_json::Value> {
    let wanted = route.settings.arguments.as_ref()?;
    let of = |message: &message::Message<'_>| {
        let name = message.name.as_deref().filter(|_| message.method == "tools/call")?;
        let listed = wanted.tools.iter().any(|tool| tool == "*" || tool == name);
        let arguments = message.arguments.filter(|_| listed)?;
        trail::redacted(arguments.get(), &wanted.redact)
    };
    let all: Vec<_> = body.messages.iter().filter_map(of).collect();
    match all.len() {
        0 => None,
        1 => all.into_iter().next(),
        _ => Some(all.into()),
    }
}
