//! The gateway: its routes, and how a request is matched to one of them by exact host and path.

use crate::{
    answers::{self, ErrorAnswer, REFUSED},
    breaker::Breaker,
    callers::{Callers, Watch},
    era::Fault,
    settings::{RouteSettings, ToolChanges},
    snapshots::{Approved, Snapshots, ToolView},
    trail::Trail,
};
use axum::{Router, body::Body};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use passavant_outbound::{Outbound, OutboundError, RemoteKeys, Upstream};
use passavant_proto::{
    identifier::IdentifierError,
    jose::jwk::SigningKey,
    mcp::message::INVALID_REQUEST,
    mcp::operation_policy::ToolState,
    oauth::metadata::ProtectedResourceMetadata,
    others_text::shown,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use passavant_resource::{Feed, Guard};
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
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

/// Refused tokens that are recorded per second, so that unauthenticated traffic cannot fill the
/// disk.
const REJECTED_TOKENS: u32 = 20;

/// The dependencies that the binary passes to a gateway.
#[derive(Clone)]
pub struct GatewayDeps {
    /// The wall clock.
    pub clock: Clock,
    /// Unpredictable bytes.
    pub entropy: Entropy,
    /// HTTP client for the MCP servers and the keys of authorization servers.
    pub outbound: Outbound,
    /// Keys of authorization servers.
    pub keys: RemoteKeys,
    /// Signs the assertions that tell MCP servers who calls.
    pub key: Arc<SigningKey>,
    /// Marks session ids. It is the same on every node and after a restart.
    pub session_key: Secret,
    /// Where decisions are recorded.
    pub trail: Trail,
    /// Saves the approved tools of each resource, so that they survive restarts.
    pub keep: Keep,
}

/// Saves the approved tools of one MCP server. The future completes when they are saved.
pub type Keep =
    Arc<dyn Fn(String, BTreeMap<String, Approved>) -> BoxFuture<'static, ()> + Send + Sync>;

/// One MCP server.
pub(crate) struct Route {
    pub(crate) resource: Arc<str>,
    pub(crate) settings: RouteSettings,
    pub(crate) guard: Guard,
    pub(crate) upstream: Upstream,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) snapshots: Snapshots,
    pub(crate) trail: Trail,
    pub(crate) callers: Callers,
    pub(crate) query: Option<String>,
    document: ProtectedResourceMetadata,
    rejected_tokens: (AtomicI64, AtomicU32),
}

impl Route {
    pub(crate) fn tool_state(&self, name: &str) -> ToolState {
        self.snapshots.state(name, self.settings.tool_changes == ToolChanges::Block)
    }

    /// Whether one more refused token may be recorded this second.
    pub(crate) fn may_record_rejected_token(&self, now: Timestamp) -> bool {
        let (second, count) = &self.rejected_tokens;
        if second.swap(now.0, Ordering::Relaxed) != now.0 {
            count.store(0, Ordering::Relaxed);
        }
        let is_told = count.fetch_add(1, Ordering::Relaxed) < REJECTED_TOKENS;
        if !is_told {
            self.trail.leave_out();
        }
        is_told
    }
}

/// Why a route cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Its resource or its authorization server is not a valid identifier.
    #[error("{0}")]
    Identifier(#[from] IdentifierError),
    /// The URL of its MCP server can never be reached.
    #[error("{0}")]
    Upstream(#[from] OutboundError),
    /// Two routes have the same host and path.
    #[error("two routes have the host and path of {0}")]
    Taken(String),
}

#[derive(Clone)]
enum RouteTarget {
    Route(Arc<Route>),
    Metadata(Arc<Route>),
    Keys,
}

struct Inner {
    deps: GatewayDeps,
    /// Routes by host, then by path; both match exactly.
    targets: HashMap<String, HashMap<String, RouteTarget>>,
    routes: Vec<Arc<Route>>,
    jwks: serde_json::Value,
    stopping: CancellationToken,
    /// The second in which an unknown host name was last logged.
    told_of_host: AtomicI64,
}

/// All MCP servers behind one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

/// The path of the keys that verify the assertions.
const KEYS_PATH: &str = "/.well-known/jwks.json";

impl Gateway {
    /// Creates a gateway for these MCP servers. `approved` are the tools that were approved before.
    pub fn new(
        deps: GatewayDeps,
        routes: Vec<(RouteSettings, BTreeMap<String, Approved>)>,
    ) -> Result<Self, RouteError> {
        let mut targets: HashMap<String, HashMap<String, RouteTarget>> = HashMap::new();
        let mut all = Vec::new();
        for (settings, approved) in routes {
            let route = Arc::new(route(&deps, settings, approved)?);
            let resource = route.guard.resource();
            let path = if resource.path().is_empty() { "/" } else { resource.path() };
            let well_known = format!("/.well-known/oauth-protected-resource{}", resource.path());
            for host in route.guard.hosts() {
                let paths = targets.entry(host.to_owned()).or_default();
                if paths.insert(path.to_owned(), RouteTarget::Route(Arc::clone(&route))).is_some() {
                    return Err(RouteError::Taken(route.resource.to_string()));
                }
                paths.insert(well_known.clone(), RouteTarget::Metadata(Arc::clone(&route)));
                paths.insert(KEYS_PATH.to_owned(), RouteTarget::Keys);
            }
            all.push(route);
        }
        let jwks = json!({"keys": [deps.key.public_jwk()]});
        let stopping = CancellationToken::new();
        let told_of_host = AtomicI64::new(0);
        Ok(Self(Arc::new(Inner { deps, targets, routes: all, jwks, stopping, told_of_host })))
    }

    /// Checks tokens that have open streams, until `stop`. Then it ends the streams that have no
    /// end of their own.
    pub async fn watch(&self, stop: CancellationToken) {
        // Each MCP server has its own loop: a slow authorization server delays no other server's
        // streams.
        let every = || {
            let mut every = tokio::time::interval(Duration::from_secs(1));
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            every
        };
        let asks = self.0.routes.iter().map(|route| {
            let clock = self.0.deps.clock.clone();
            async move {
                let Some(watch) = Watch::of(&route.settings) else { return };
                let asks = async {
                    let (mut every, mut seen) = (every(), 0);
                    loop {
                        tokio::select! {
                            () = changed(watch.feed, &mut seen) => {}
                            _ = every.tick() => {}
                        }
                        route.callers.ask(watch, &clock).await;
                    }
                };
                // What the feed names waits for no answer about other tokens.
                let ends = async {
                    let mut seen = 0;
                    loop {
                        changed(watch.feed, &mut seen).await;
                        route.callers.end_what_the_feed_names(watch);
                    }
                };
                tokio::join!(asks, ends);
            }
        });
        let expiry = async {
            let mut every = every();
            loop {
                every.tick().await;
                for route in &self.0.routes {
                    let is_watched = route.settings.stands.is_some();
                    route.callers.expire(is_watched, self.0.deps.clock.now());
                }
            }
        };
        // Saves one at a time and once a second at most, whatever MCP servers do.
        let keeping = async {
            let mut every = every();
            loop {
                every.tick().await;
                self.keep().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = futures::future::join3(futures::future::join_all(asks), expiry, keeping) => {}
        }
        self.0.stopping.cancel();
        self.keep().await;
    }

    /// Saves what was learnt about tools since the last time.
    async fn keep(&self) {
        for route in &self.0.routes {
            if let Some(tools) = route.snapshots.to_keep() {
                (self.0.deps.keep)(route.resource.to_string(), tools).await;
            }
        }
    }

    /// The gateway in front of other routes of the same listener, which are reached under `hosts`.
    pub fn service(
        &self,
        other: Router,
        hosts: impl IntoIterator<Item = String>,
    ) -> GatewayService {
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        GatewayService { gateway: self.clone(), other, hosts: Arc::new(hosts) }
    }

    /// Host names under which MCP servers are reached.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.targets.keys().map(String::as_str)
    }

    /// The known tools, by resource.
    pub fn tools(&self) -> BTreeMap<String, Vec<ToolView>> {
        let view = |route: &Arc<Route>| (route.resource.to_string(), route.snapshots.view());
        self.0.routes.iter().map(view).collect()
    }

    /// Whether one description of a tool, named by its hash, could be approved. `None` if there is
    /// no such MCP server.
    pub fn can_approve(&self, resource: &str, tool: &str, fingerprint: &str) -> Option<bool> {
        let route = self.0.routes.iter().find(|route| route.resource.as_ref() == resource)?;
        Some(route.snapshots.has(tool, fingerprint))
    }

    /// Approves one description of a tool, named by its hash. `None` if there is no such MCP
    /// server, `Some(false)` if no known description of the tool has this hash. The approval is
    /// saved when the future completes.
    pub async fn approve(&self, resource: &str, tool: &str, fingerprint: &str) -> Option<bool> {
        let route = self.0.routes.iter().find(|route| route.resource.as_ref() == resource)?;
        let done = route.snapshots.approve(tool, fingerprint);
        if done {
            let now = self.0.deps.clock.now();
            route.trail.tool(now, &route.resource, tool, "approved by IT");
            self.keep().await;
        }
        Some(done)
    }

    /// An unknown host name is often caused by a proxy: log it for the operator, once a second.
    fn tell_of_host(&self, host: &str, preflight: bool) {
        let now = self.0.deps.clock.now().0;
        if preflight || self.0.told_of_host.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let known = self.hosts().collect::<Vec<_>>().join(", ");
        tracing::warn!(
            host = shown(host, 100),
            known,
            "a request named a host that this gateway does not serve; let the proxy pass on Host, \
             or list it in `hosts`"
        );
    }

    pub(crate) fn session_key(&self) -> Vec<u8> {
        self.0.deps.session_key.expose().as_bytes().to_vec()
    }

    pub(crate) fn deps(&self) -> &GatewayDeps {
        &self.0.deps
    }

    pub(crate) fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// The route or document at the host and path of a request. The path is compared as it was
    /// sent: non-canonical paths never match.
    fn target(&self, parts: &Parts) -> Result<Option<&RouteTarget>, ErrorAnswer<'static>> {
        let host = host_of(parts)?;
        let paths = self.0.targets.get(host.as_str()).or_else(|| {
            let bare = host.strip_suffix(":443").or(host.strip_suffix(":80"))?;
            self.0.targets.get(bare)
        });
        Ok(paths.and_then(|paths| paths.get(parts.uri.path())))
    }
}

/// Completes when a token may have ended since the last time; never without a feed.
async fn changed(feed: Option<&Feed>, seen: &mut u64) {
    match feed {
        Some(feed) => *seen = feed.changed(*seen).await,
        None => std::future::pending().await,
    }
}

fn route(
    deps: &GatewayDeps,
    settings: RouteSettings,
    approved: BTreeMap<String, Approved>,
) -> Result<Route, RouteError> {
    let resource: Arc<str> = settings.resource.as_str().into();
    let issuer = settings.authorization_server.as_str();
    let (keys, clock) = (deps.keys.clone(), deps.clock.clone());
    let mut guard = Guard::with_keys(&resource, issuer, keys, clock)?
        .algorithm(settings.algorithm)
        .token_form(settings.token_form)
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
    let upstream = deps.outbound.upstream(&settings.upstream)?;
    let query = parsed.and_then(|url| url.query().map(str::to_owned));
    Ok(Route {
        document: guard.document(),
        guard,
        upstream,
        breaker: Arc::default(),
        snapshots: Snapshots::new(approved),
        trail: deps.trail.clone(),
        callers: Callers::new(settings.limits),
        query,
        resource,
        settings,
        rejected_tokens: (AtomicI64::new(0), AtomicU32::new(0)),
    })
}

/// The one host that a request names, in lower case.
fn host_of(parts: &Parts) -> Result<String, ErrorAnswer<'static>> {
    let bad = |text| ErrorAnswer::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text);
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok());
    let (Some(host), None) = (host, hosts.next()) else {
        return Err(bad("Exactly one Host header is required."));
    };
    let host = host.to_ascii_lowercase();
    // A request target in absolute form has to name the same host.
    if parts.uri.authority().is_some_and(|named| named.as_str().to_ascii_lowercase() != host) {
        return Err(bad("The request target and Host name different hosts."));
    }
    Ok(host)
}

/// Whether the length of a request's body is declared so that no intermediary can read it
/// differently: no transfer coding but `chunked`, once. For conflicting lengths hyper rejects the
/// request, or uses `chunked` and closes the connection afterwards.
pub fn is_framed_plainly(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next();
    let chunks = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    first.is_none_or(chunks) && codings.next().is_none()
}

/// Rejects requests that some intermediary could frame differently.
fn check_framing(parts: &Parts) -> Result<(), ErrorAnswer<'static>> {
    let bad = |text| ErrorAnswer::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, text);
    let headers = &parts.headers;
    if !is_framed_plainly(headers) {
        return Err(bad("Transfer-Encoding must be `chunked`, and sent once."));
    }
    if headers.contains_key(header::UPGRADE) {
        return Err(bad("This gateway does not upgrade connections."));
    }
    Ok(())
}

impl Fault {
    pub(crate) fn respond(&self, id: Option<&RawValue>) -> Response<Body> {
        let answer = ErrorAnswer::new(StatusCode::BAD_REQUEST, self.code, &self.text).to(id);
        ErrorAnswer { data: self.data.clone(), ..answer }.respond()
    }
}

/// A gateway as a service, in front of other routes of the same listener.
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
        let close = |answer: ErrorAnswer<'_>| {
            let mut response = answer.respond();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        };
        if let Err(answer) = check_framing(&parts) {
            return close(answer);
        }
        let target = match self.gateway.target(&parts) {
            Ok(target) => target.cloned(),
            Err(answer) => return close(answer),
        };
        match target {
            Some(RouteTarget::Route(route)) => {
                let origin = parts.headers.get(header::ORIGIN).cloned();
                let mut response = self.gateway.guarded(&route, parts, body).await;
                if let Some(origin) = origin.filter(|origin| route.guard.allows_origin(origin)) {
                    answers::readable_from(&origin, response.headers_mut());
                }
                response
            }
            Some(RouteTarget::Metadata(_) | RouteTarget::Keys)
                if parts.method == Method::OPTIONS =>
            {
                let mut answer = answers::preflight(&parts.headers);
                let anyone = HeaderValue::from_static("*");
                answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
                answer
            }
            Some(RouteTarget::Metadata(route)) => answers::public(&route.document),
            Some(RouteTarget::Keys) => answers::public(&self.gateway.0.jwks),
            None => {
                let host = host_of(&parts).unwrap_or_default();
                if probe || self.hosts.contains(&host) {
                    let other = self.other.oneshot(Request::from_parts(parts, body)).await;
                    return match other {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                }
                let preflight = parts.method == Method::OPTIONS;
                if self.gateway.0.targets.contains_key(&host) {
                    let text = "There is no MCP server at this path.";
                    return ErrorAnswer::new(StatusCode::NOT_FOUND, REFUSED, text).respond();
                }
                self.gateway.tell_of_host(&host, preflight);
                let text = format!(
                    "This gateway does not serve the host `{}`. Its operator has to let the proxy \
                     in front pass on Host, or list the name in `hosts` of the route.",
                    shown(&host, 100)
                );
                ErrorAnswer::new(StatusCode::MISDIRECTED_REQUEST, REFUSED, &text).respond()
            }
        }
    }
}
