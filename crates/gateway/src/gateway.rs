//! One request from its place to the MCP server, in order; each step makes what the next one needs.

use crate::{
    answers::{self, BROKEN, Own, REFUSED},
    authorize::{self, Subject},
    breaker::Breaker,
    callers::{Busy, Callers, Fallen, Held, Seat},
    era::{self, Fault},
    identity,
    lists::Lens,
    proxy::{self, Onward},
    relay::Call,
    session,
    settings::{RouteSettings, ToolChanges},
    snapshots::{Approved, Snapshots, ToolView},
    trail::{self, Decision, Trail},
};
use axum::{Router, body::Body};
use carnet_client::{Outbound, OutboundError, RemoteKeys, Upstream};
use carnet_proto::{
    identifier::IdentifierError,
    jwk::SigningKey,
    mcp::{self, INVALID_REQUEST},
    metadata::ProtectedResourceMetadata,
    operation_policy::ToolState,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use carnet_resource::{Caller, Guard, Refused, token_of};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use serde_json::{json, value::RawValue};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

/// Refused tokens that are put on record, a second: strangers do not fill the disk.
const STRANGERS: u32 = 20;

/// What the binary hands to a gateway.
#[derive(Clone)]
pub struct Ground {
    /// The wall clock.
    pub clock: Clock,
    /// Unpredictable bytes.
    pub entropy: Entropy,
    /// For the MCP servers and the keys of authorization servers.
    pub outbound: Outbound,
    /// Keys of authorization servers.
    pub keys: RemoteKeys,
    /// Signs what MCP servers are told of callers.
    pub key: Arc<SigningKey>,
    /// Marks session ids; the same on every node and after a restart.
    pub session_key: Secret,
    /// Where decisions go.
    pub trail: Trail,
    /// Keeps the tools that were approved, by resource, over restarts.
    pub keep: Arc<dyn Fn(&str, BTreeMap<String, Approved>) + Send + Sync>,
}

/// One MCP server.
pub(crate) struct Route {
    pub(crate) resource: Arc<str>,
    pub(crate) settings: RouteSettings,
    pub(crate) guard: Guard,
    pub(crate) upstream: Upstream,
    pub(crate) breaker: Breaker,
    pub(crate) snapshots: Snapshots,
    pub(crate) trail: Trail,
    callers: Callers,
    query: Option<String>,
    document: ProtectedResourceMetadata,
    strangers: (AtomicI64, AtomicU32),
    keep: Arc<dyn Fn(&str, BTreeMap<String, Approved>) + Send + Sync>,
}

impl Route {
    pub(crate) fn tool_state(&self, name: &str) -> ToolState {
        self.snapshots.state(name, self.settings.tool_changes == ToolChanges::Block)
    }

    pub(crate) fn keep_snapshots(&self) {
        (self.keep)(&self.resource, self.snapshots.kept());
    }

    /// Whether one more refused token goes on record this second.
    fn stranger(&self, now: Timestamp) -> bool {
        let (second, count) = &self.strangers;
        if second.swap(now.0, Ordering::Relaxed) != now.0 {
            count.store(0, Ordering::Relaxed);
        }
        count.fetch_add(1, Ordering::Relaxed) < STRANGERS
    }
}

/// Why a route cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Its resource or authorization server is no identifier.
    #[error("{0}")]
    Identifier(#[from] IdentifierError),
    /// Its MCP server cannot be reached in principle.
    #[error("{0}")]
    Upstream(#[from] OutboundError),
    /// Two routes have one host and path.
    #[error("two routes have the host and path of {0}")]
    Taken(String),
}

#[derive(Clone)]
enum Place {
    Route(Arc<Route>),
    Metadata(Arc<Route>),
    Keys,
}

struct Inner {
    ground: Ground,
    /// By host, then by path: both exact.
    places: HashMap<String, HashMap<String, Place>>,
    routes: Vec<Arc<Route>>,
    jwks: serde_json::Value,
    stopping: CancellationToken,
}

/// Every MCP server behind one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

/// Where the keys are that assertions are signed with.
const KEYS_PATH: &str = "/.well-known/jwks.json";

impl Gateway {
    /// A gateway for these MCP servers, with the tools that were approved before.
    pub fn new(
        ground: Ground,
        routes: Vec<(RouteSettings, BTreeMap<String, Approved>)>,
    ) -> Result<Self, RouteError> {
        let mut places: HashMap<String, HashMap<String, Place>> = HashMap::new();
        let mut all = Vec::new();
        for (settings, approved) in routes {
            let route = Arc::new(route(&ground, settings, approved)?);
            let resource = route.guard.resource();
            let path = if resource.path().is_empty() { "/" } else { resource.path() };
            let well_known = format!("/.well-known/oauth-protected-resource{}", resource.path());
            for host in route.guard.hosts() {
                let paths = places.entry(host.to_owned()).or_default();
                if paths.insert(path.to_owned(), Place::Route(Arc::clone(&route))).is_some() {
                    return Err(RouteError::Taken(route.resource.to_string()));
                }
                paths.insert(well_known.clone(), Place::Metadata(Arc::clone(&route)));
                paths.insert(KEYS_PATH.to_owned(), Place::Keys);
            }
            all.push(route);
        }
        let jwks = json!({"keys": [ground.key.public_jwk()]});
        let stopping = CancellationToken::new();
        Ok(Self(Arc::new(Inner { ground, places, routes: all, jwks, stopping })))
    }

    /// Watches tokens that have open streams, until `stop`; then ends the streams that have no end of their
    /// own.
    pub async fn watch(&self, stop: CancellationToken) {
        // Each MCP server by itself: an authorization server that is slow holds up nobody else's streams.
        let watches = self.0.routes.iter().map(|route| {
            let clock = self.0.ground.clock.clone();
            async move {
                let mut every = tokio::time::interval(Duration::from_secs(1));
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    route.callers.watch(route.settings.stands.as_ref(), &clock).await;
                }
            }
        });
        let watching = futures::future::join_all(watches);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = watching => {}
        }
        self.0.stopping.cancel();
    }

    /// The gateway before other routes of the same listener, which are reached under `hosts`.
    pub fn service(
        &self,
        other: Router,
        hosts: impl IntoIterator<Item = String>,
    ) -> GatewayService {
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        GatewayService { gateway: self.clone(), other, hosts: Arc::new(hosts) }
    }

    /// Hosts under which MCP servers are reached.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.places.keys().map(String::as_str)
    }

    /// The tools that were seen, by resource.
    pub fn tools(&self) -> BTreeMap<String, Vec<ToolView>> {
        let view = |route: &Arc<Route>| (route.resource.to_string(), route.snapshots.view());
        self.0.routes.iter().map(view).collect()
    }

    /// Approves what was seen last of one tool, or of all of them; `None` if there is no such MCP server.
    pub fn approve(&self, resource: &str, tool: Option<&str>) -> Option<usize> {
        let route = self.0.routes.iter().find(|route| route.resource.as_ref() == resource)?;
        let done = route.snapshots.approve(tool);
        if done > 0 {
            let now = self.0.ground.clock.now();
            route.trail.tool(now, &route.resource, tool.unwrap_or("*"), "approved by IT");
            route.keep_snapshots();
        }
        Some(done)
    }

    pub(crate) fn session_key(&self) -> Vec<u8> {
        self.0.ground.session_key.expose().as_bytes().to_vec()
    }

    pub(crate) fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// What is at the host and path of a request. The path is compared as it was sent: a path that some
    /// server could read differently is none that is known here.
    fn place(&self, parts: &Parts) -> Result<Option<&Place>, Own<'static>> {
        let host = host_of(parts)?;
        let paths = self.0.places.get(host.as_str()).or_else(|| {
            let bare = host.strip_suffix(":443").or(host.strip_suffix(":80"))?;
            self.0.places.get(bare)
        });
        Ok(paths.and_then(|paths| paths.get(parts.uri.path())))
    }
}

fn route(
    ground: &Ground,
    settings: RouteSettings,
    approved: BTreeMap<String, Approved>,
) -> Result<Route, RouteError> {
    let resource: Arc<str> = settings.resource.as_str().into();
    let issuer = settings.authorization_server.as_str();
    let (keys, clock) = (ground.keys.clone(), ground.clock.clone());
    let mut guard = Guard::with_keys(&resource, issuer, keys, clock)?
        .algorithm(settings.algorithm)
        .scopes(settings.scopes.union(&settings.rules.scopes()).iter())
        .require(settings.rules.base().iter());
    if let Some(name) = &settings.name {
        guard = guard.name(name);
    }
    for host in &settings.hosts {
        guard = guard.host(host);
    }
    let parsed = url::Url::parse(settings.resource.normalized()).ok();
    let own_origin = parsed.as_ref().map(|url| url.origin().ascii_serialization());
    for origin in settings.origins.iter().chain(&own_origin) {
        guard = guard.origin(origin);
    }
    if settings.assertion.is_some()
        && let Some(origin) = &own_origin
    {
        guard = guard.jwks_uri(&format!("{origin}{KEYS_PATH}"));
    }
    let upstream = ground.outbound.upstream(&settings.upstream)?;
    let query = parsed.and_then(|url| url.query().map(str::to_owned));
    Ok(Route {
        document: guard.document(),
        guard,
        upstream,
        breaker: Breaker::default(),
        snapshots: Snapshots::new(approved),
        trail: ground.trail.clone(),
        callers: Callers::new(settings.limits),
        query,
        resource,
        settings,
        strangers: (AtomicI64::new(0), AtomicU32::new(0)),
        keep: Arc::clone(&ground.keep),
    })
}

/// The one host that a request names, in lower case.
fn host_of(parts: &Parts) -> Result<String, Own<'static>> {
    let bad = |text| Own::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text);
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok());
    let (Some(host), None) = (host, hosts.next()) else {
        return Err(bad("The request has not exactly one Host."));
    };
    let host = host.to_ascii_lowercase();
    // A request target in absolute form has to mean the same.
    if parts.uri.authority().is_some_and(|named| named.as_str().to_ascii_lowercase() != host) {
        return Err(bad("The request target and Host name different hosts."));
    }
    Ok(host)
}

/// What makes a request ambiguous to somebody on its way.
fn check_framing(parts: &Parts) -> Result<(), Own<'static>> {
    let bad = |text| Own::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text);
    let headers = &parts.headers;
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    if lengths > 1 || (lengths == 1 && chunked) {
        return Err(bad("The length of the body is given twice."));
    }
    if headers.contains_key(header::UPGRADE) {
        return Err(bad("This gateway does not upgrade connections."));
    }
    Ok(())
}

impl Fault {
    fn respond(&self, id: Option<&RawValue>) -> Response<Body> {
        let own = Own::new(StatusCode::BAD_REQUEST, self.code, &self.text).to(id);
        Own { data: self.data.clone(), ..own }.respond()
    }
}

/// A gateway as a service, before other routes of the same listener.
#[derive(Clone)]
pub struct GatewayService {
    gateway: Gateway,
    other: Router,
    hosts: Arc<HashSet<String>>,
}

impl Service<Request<Body>> for GatewayService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}

impl GatewayService {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let probe = path == "/healthz" || path == "/readyz";
        let (parts, body) = request.into_parts();
        let close = |own: Own<'_>| {
            let mut response = own.respond();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        };
        if let Err(own) = check_framing(&parts) {
            return close(own);
        }
        let place = match self.gateway.place(&parts) {
            Ok(place) => place.cloned(),
            Err(own) => return close(own),
        };
        match place {
            Some(Place::Route(route)) => {
                let origin = parts.headers.get(header::ORIGIN).cloned();
                let mut response = self.gateway.guarded(&route, parts, body).await;
                if let Some(origin) = origin.filter(|origin| route.guard.allows_origin(origin)) {
                    answers::readable_from(&origin, response.headers_mut());
                }
                response
            }
            Some(Place::Metadata(route)) => answers::public(&route.document),
            Some(Place::Keys) => answers::public(&self.gateway.0.jwks),
            None => {
                let host = host_of(&parts).unwrap_or_default();
                if probe || self.hosts.contains(&host) {
                    let other = self.other.oneshot(Request::from_parts(parts, body)).await;
                    return match other {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                }
                let known = self.gateway.0.places.contains_key(&host);
                let (status, text) = if known {
                    (StatusCode::NOT_FOUND, "There is no MCP server at this path.")
                } else {
                    (
                        StatusCode::MISDIRECTED_REQUEST,
                        "This host name is not one of this gateway's.",
                    )
                };
                Own::new(status, REFUSED, text).respond()
            }
        }
    }
}

/// A request whose caller is known, up to the decision.
struct Asked {
    seat: Seat,
    call: String,
    started: Instant,
    now: Timestamp,
}

impl Asked {
    fn held(&self) -> &Arc<Held> {
        &self.seat.held
    }
}

impl Gateway {
    /// Everything for one MCP server.
    async fn guarded(&self, route: &Arc<Route>, parts: Parts, body: Body) -> Response<Body> {
        if parts.method == Method::OPTIONS {
            let origin = parts.headers.get(header::ORIGIN);
            return match origin {
                Some(origin) if route.guard.allows_origin(origin) => {
                    answers::preflight(&parts.headers)
                }
                _ => {
                    let text = "Pages of this origin may not call this MCP server.";
                    Own::new(StatusCode::FORBIDDEN, REFUSED, text).respond()
                }
            };
        }
        if ![Method::POST, Method::GET, Method::DELETE].contains(&parts.method) {
            let text = "MCP has POST, GET and DELETE.";
            let own = Own::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, text);
            let mut response = own.respond();
            let allowed = HeaderValue::from_static("POST, GET, DELETE");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        let now = self.0.ground.clock.now();
        let admitted = route.guard.admit(parts.method.as_str(), &parts.uri, &parts.headers).await;
        let caller = match admitted {
            Ok(caller) => caller,
            Err(refused) => return self.stranger(route, &parts, refused, now).await,
        };
        let asked = match self.seated(route, &caller, &parts, now).await {
            Ok(asked) => asked,
            Err(response) => return response,
        };
        if let Err(response) = check_query(route, &parts) {
            return response;
        }
        if parts.method == Method::POST {
            self.post(route, &parts, body, asked).await
        } else {
            self.without_body(route, &parts, asked).await
        }
    }

    /// Rates, and whether the token still stands.
    async fn seated(
        &self,
        route: &Arc<Route>,
        caller: &Caller,
        parts: &Parts,
        now: Timestamp,
    ) -> Result<Asked, Response<Body>> {
        let held = route.callers.of(&route.resource, caller, token_of(&parts.headers), now);
        let call = self.0.ground.entropy.id();
        let started = Instant::now();
        let seat = match route.callers.seat(&held) {
            Ok(seat) => seat,
            Err(busy) => return Err(self.busy(route, &held, busy, &call, now).await),
        };
        if let Some(stands) = &route.settings.stands {
            match held.stands(stands, now).await {
                Ok(()) => {}
                Err(Fallen::Revoked) => {
                    let subject = Subject { method: String::new(), target: String::new() };
                    let about = About { held: &held, call: &call, now, bytes: 0 };
                    self.refused(route, &about, &subject, "token.revoked", "").await;
                    return Err(route.guard.revoked());
                }
                Err(Fallen::Unknown) => {
                    let text = "The token cannot be checked just now; try again.";
                    let own = Own::new(StatusCode::SERVICE_UNAVAILABLE, BROKEN, text);
                    return Err(Own { retry_after: Some(5), ..own }.respond());
                }
            }
        }
        Ok(Asked { seat, call, started, now })
    }

    async fn busy(
        &self,
        route: &Route,
        held: &Held,
        busy: Busy,
        call: &str,
        now: Timestamp,
    ) -> Response<Body> {
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
            Busy::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "rate.full",
                "This gateway has as many requests and streams open as it may; try again.",
                1,
            ),
        };
        // One a second: who floods does not fill the disk.
        if route.stranger(now) {
            let subject = Subject { method: String::new(), target: String::new() };
            self.refused(route, &About { held, call, now, bytes: 0 }, &subject, reason, "").await;
        }
        Own { retry_after: Some(wait), ..Own::new(status, REFUSED, text) }.respond()
    }

    /// A token that is not taken; who sent it is not known.
    async fn stranger(
        &self,
        route: &Route,
        parts: &Parts,
        refused: Refused,
        now: Timestamp,
    ) -> Response<Body> {
        let sent = matches!(refused.reason, "token.invalid" | "token.proof");
        if sent && route.stranger(now) {
            let decision = Decision {
                kind: "decision",
                at: now,
                call: &self.0.ground.entropy.id(),
                resource: &route.resource,
                person: "",
                issuer: "",
                client: "",
                token: "",
                txn: None,
                method: parts.method.as_str(),
                target: "",
                outcome: "refused",
                reason: refused.reason,
                rule: "",
                request_bytes: 0,
                arguments: None,
            };
            if route.trail.decide(&decision).await.is_err() {
                tracing::error!("a refusal could not be put on record");
            }
        }
        refused.response
    }

    /// Puts a refusal on record.
    async fn refused(
        &self,
        route: &Route,
        about: &About<'_>,
        subject: &Subject,
        reason: &str,
        rule: &str,
    ) {
        let decision = about.decision(route, subject, reason, rule, None);
        if route.trail.decide(&decision).await.is_err() {
            tracing::error!("a refusal could not be put on record");
        }
    }

    async fn post(
        &self,
        route: &Arc<Route>,
        parts: &Parts,
        body: Body,
        asked: Asked,
    ) -> Response<Body> {
        let bytes = match read_body(route, &parts.headers, body).await {
            Ok(bytes) => bytes,
            Err(response) => return response,
        };
        let fault = |error: &mcp::McpError| Fault {
            code: error.code(),
            text: error.to_string(),
            data: None,
        };
        let batches = era::has_batches(&parts.headers);
        let read = batches.and_then(|batches| mcp::read(&bytes, batches).map_err(|e| fault(&e)));
        let about =
            About { held: asked.held(), call: &asked.call, now: asked.now, bytes: bytes.len() };
        let nothing = Subject { method: String::new(), target: String::new() };
        let body = match read {
            Ok(body) => body,
            Err(fault) => {
                self.refused(route, &about, &nothing, "request.unreadable", "").await;
                return fault.respond(None);
            }
        };
        let subject = Subject::of(&body);
        let id = match body.messages.as_slice() {
            [message] => message.id,
            _ => None,
        };
        let stateless = match era::check(&parts.headers, &body, &route.snapshots) {
            Ok(stateless) => stateless,
            Err(fault) => {
                self.refused(route, &about, &subject, "request.header_mismatch", "").await;
                return fault.respond(id);
            }
        };
        let rule = match authorize::authorize(route, asked.held(), &body, asked.now) {
            Ok(rule) => rule,
            Err(why) => {
                self.refused(route, &about, &subject, why.reason(), why.rule()).await;
                return authorize::answer(route, &why, id, stateless);
            }
        };
        // Each member of a batch is one request.
        let more = u32::try_from(body.messages.len() - 1).unwrap_or(u32::MAX);
        if let Err(busy) = asked.held().take_more(more) {
            return self.busy(route, asked.held(), busy, &asked.call, asked.now).await;
        }
        let arguments = arguments_on_record(route, &body);
        // Where a changed tool is to be blocked, no answer brings a list unseen.
        let lists = route.settings.tool_changes == ToolChanges::Block
            || body.messages.iter().any(|message| message.method.ends_with("/list"));
        let endless = body.messages.iter().any(|message| message.method == "subscriptions/listen");
        let go = Go { id, rule: &rule, arguments, lists, endless };
        self.go(route, parts, bytes.clone(), asked, subject, go).await
    }

    /// GET of a stream, DELETE of a session.
    async fn without_body(
        &self,
        route: &Arc<Route>,
        parts: &Parts,
        asked: Asked,
    ) -> Response<Body> {
        let subject = Subject { method: parts.method.to_string(), target: String::new() };
        let about = About { held: asked.held(), call: &asked.call, now: asked.now, bytes: 0 };
        if let Err(fault) = era::check_version(&parts.headers) {
            self.refused(route, &about, &subject, "request.version", "").await;
            return fault.respond(None);
        }
        let needed = route.settings.rules.base();
        if !asked.held().caller.scopes().contains_all(needed) {
            self.refused(route, &about, &subject, "operation.scope", "every request").await;
            let challenge = route.guard.insufficient_scope(needed);
            let text = format!("This operation needs the scopes: {needed}");
            let own = Own::new(StatusCode::FORBIDDEN, REFUSED, &text);
            return Own { challenge: Some(&challenge), ..own }.respond();
        }
        let stream = parts.method == Method::GET;
        let go =
            Go { id: None, rule: "every request", arguments: None, lists: stream, endless: stream };
        self.go(route, parts, Bytes::new(), asked, subject, go).await
    }

    /// What is allowed: session, breaker, record, identity, and on.
    async fn go(
        &self,
        route: &Arc<Route>,
        parts: &Parts,
        body: Bytes,
        asked: Asked,
        subject: Subject,
        go: Go<'_>,
    ) -> Response<Body> {
        let id = go.id;
        let held = Arc::clone(asked.held());
        let about = About { held: &held, call: &asked.call, now: asked.now, bytes: body.len() };
        let session = match session_of(self, &parts.headers, &held) {
            Ok(session) => session,
            Err(why) => {
                self.refused(route, &about, &subject, why.reason(), "").await;
                return why.respond(id);
            }
        };
        if let Err(wait) = route.breaker.enter(Instant::now()) {
            self.refused(route, &about, &subject, "upstream.down", "").await;
            let text = "The MCP server behind this gateway does not answer; try again later.";
            let own = Own::new(StatusCode::SERVICE_UNAVAILABLE, BROKEN, text).to(id);
            return Own { retry_after: Some(wait.as_secs() + 1), ..own }.respond();
        }
        let ground = &self.0.ground;
        let headers =
            identity::headers(ground, route, &held, &parts.headers, session.as_deref(), asked.now);
        let headers = match headers.await {
            Ok(headers) => headers,
            Err(why) => {
                self.refused(route, &about, &subject, why.reason, "").await;
                return Own::new(why.status, why.code, &why.text).to(id).respond();
            }
        };
        let decision = about.decision(route, &subject, "", go.rule, go.arguments);
        let Ok(ticket) = route.trail.decide(&decision).await else {
            return proxy::not_recorded(id);
        };
        drop(decision);
        let call = Call {
            trail: route.trail.clone(),
            resource: Arc::clone(&route.resource),
            id: asked.call,
            clock: ground.clock.clone(),
            started: asked.started,
            status: 0,
            bytes: 0,
            ended: "client_gone",
            seat: asked.seat,
        };
        let lens =
            go.lists.then(|| Lens::new(Arc::clone(route), held.caller.scopes().clone(), asked.now));
        let onward = Onward {
            method: parts.method.clone(),
            headers,
            body,
            id,
            owner: held.owner.clone(),
            lens,
            endless: go.endless,
        };
        proxy::forward(self, route, onward, call, ticket).await
    }
}

/// What was decided of an allowed request.
struct Go<'a> {
    id: Option<&'a RawValue>,
    rule: &'a str,
    arguments: Option<serde_json::Value>,
    /// The answer may hold lists.
    lists: bool,
    /// The answer has no end of its own.
    endless: bool,
}

/// What every record of a request has.
struct About<'a> {
    held: &'a Held,
    call: &'a str,
    now: Timestamp,
    bytes: usize,
}

impl<'a> About<'a> {
    /// A record; allowed where `reason` is empty.
    fn decision(
        &'a self,
        route: &'a Route,
        subject: &'a Subject,
        reason: &'a str,
        rule: &'a str,
        arguments: Option<serde_json::Value>,
    ) -> Decision<'a> {
        let caller = &self.held.caller;
        Decision {
            kind: "decision",
            at: self.now,
            call: self.call,
            resource: &route.resource,
            person: caller.subject(),
            issuer: caller.issuer(),
            client: caller.client(),
            token: caller.token_id(),
            txn: caller.transaction(),
            method: &subject.method,
            target: &subject.target,
            outcome: if reason.is_empty() { "granted" } else { "refused" },
            reason,
            rule,
            request_bytes: self.bytes,
            arguments,
        }
    }
}

/// Why a session is not the caller's, or cannot be resumed.
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
            // As the transport has it: the client begins a new session.
            Self::Foreign => {
                Own::new(StatusCode::NOT_FOUND, REFUSED, "Session not found").to(id).respond()
            }
            Self::Fault(fault) => fault.respond(id),
        }
    }
}

/// The MCP server's own session id, if the one that was sent is this caller's.
fn session_of(
    gateway: &Gateway,
    headers: &HeaderMap,
    held: &Held,
) -> Result<Option<String>, NoSession> {
    let sent = era::only(headers, era::SESSION).map_err(NoSession::Fault)?;
    let resumes = era::only(headers, era::LAST_EVENT).map_err(NoSession::Fault)?.is_some();
    match sent {
        Some(bound) => session::unbind(&gateway.session_key(), &held.owner, bound)
            .map(|id| Some(id.to_owned()))
            .ok_or(NoSession::Foreign),
        // Events are somebody's: without a session nobody can say whose.
        None if resumes => Err(NoSession::Foreign),
        None => Ok(None),
    }
}

/// The query belongs to the resource, or there is none.
fn check_query(route: &Route, parts: &Parts) -> Result<(), Response<Body>> {
    match parts.uri.query() {
        Some(query) if Some(query) != route.query.as_deref() => {
            let text =
                "This MCP server's URL has another query, or none. A token never belongs there.";
            Err(Own::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text).respond())
        }
        _ => Ok(()),
    }
}

/// Reads a JSON body within its limits.
async fn read_body(
    route: &Route,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Response<Body>> {
    let refuse = |status, text: &str| Err(Own::new(status, INVALID_REQUEST, text).respond());
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        let text = "The body has to be application/json.";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body has to be sent as it is.");
    }
    if !headers.contains_key(header::ACCEPT) {
        let text = "Accept is missing: it lists application/json and text/event-stream.";
        return refuse(StatusCode::BAD_REQUEST, text);
    }
    let limits = &route.settings.limits;
    let read = Limited::new(body, limits.body).collect();
    match tokio::time::timeout(limits.body_time, read).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let text = format!("The body is larger than {} bytes.", limits.body);
            refuse(StatusCode::PAYLOAD_TOO_LARGE, &text)
        }
        Ok(Err(_)) => refuse(StatusCode::BAD_REQUEST, "The body broke off."),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time."),
    }
}

/// Arguments of a tool call, where an administrator asked for them.
fn arguments_on_record(route: &Route, body: &mcp::Body<'_>) -> Option<serde_json::Value> {
    let wanted = route.settings.arguments.as_ref()?;
    let of = |message: &mcp::Message<'_>| {
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
