//! What every listener has: limits, request ids, logs, health checks.

use crate::{authority::Readiness, origin::RequestId, token_endpoint::Grants};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use ipnet::IpNet;
use opentelemetry::{KeyValue, global, metrics::Histogram};
use passavant_proto::{identifier::Issuer, time::Entropy};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};
use tower::{Layer, ServiceExt};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any, CorsLayer},
    limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer,
};
use tracing::Instrument;

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body: usize,
    /// Longest time from request to response.
    pub time: Duration,
    /// Longest query string, in bytes.
    pub query: usize,
}

/// The limits of the authorization servers.
pub const LIMITS: Limits =
    Limits { body: 64 * 1024, time: Duration::from_secs(30), query: 16 * 1024 };

/// Adds limits, request ids, logs and metrics to `router`. Behind `proxies`, the address of a
/// request is the last one in `X-Forwarded-For` that is not a proxy's; from any other peer this
/// header is ignored.
pub fn limited(router: Router, limits: Limits, entropy: Entropy, proxies: &[IpNet]) -> Router {
    let duration = global::meter("passavant")
        .f64_histogram("http.server.request.duration")
        .with_unit("s")
        .build();
    let proxies = proxies.into();
    let watch = Watch { entropy, limits, duration: Arc::new(duration), proxies };
    router
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(limits.body, within))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits.time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(watch, watched))
}

/// Counts how long somebody was not told that access has ended, in seconds.
pub fn told_after(seconds: i64) {
    static LAG: OnceLock<Histogram<f64>> = OnceLock::new();
    let lag = LAG.get_or_init(|| {
        let meter = global::meter("passavant");
        let lag = meter.f64_histogram("passavant.revocation.lag").with_unit("s");
        lag.with_description("From the end of access to the party's answer").build()
    });
    #[allow(clippy::cast_precision_loss)] // a day has few seconds
    lag.record(seconds.max(0) as f64, &[]);
}

/// Routes that limit bodies themselves: lists of people are long, and are read when it is known who
/// asks; so are responses of SAML, with whatever groups somebody is in.
const LIMIT_THEMSELVES: [&str; 2] = ["/scim/{upstream}/", "/callback/{upstream}"];

/// Holds the body of a request to a limit.
async fn within(State(most): State<usize>, request: Request, next: Next) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>();
    let limits_itself =
        |route: &MatchedPath| LIMIT_THEMSELVES.iter().any(|own| route.as_str().contains(own));
    if route.is_some_and(limits_itself) {
        return next.run(request).await;
    }
    let next = tower::service_fn(move |request: http::Request<_>| {
        let next = next.clone();
        async move { Ok::<_, Infallible>(next.run(request.map(Body::new)).await) }
    });
    let Ok(response) = RequestBodyLimitLayer::new(most).layer(next).oneshot(request).await;
    response.map(Body::new)
}

/// Whether the log already says that a proxy does not send the client's address.
static UNTOLD: AtomicBool = AtomicBool::new(false);

#[derive(Clone)]
struct Watch {
    entropy: Entropy,
    limits: Limits,
    duration: Arc<Histogram<f64>>,
    proxies: Arc<[IpNet]>,
}

impl Watch {
    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    fn address_behind_proxies(&self, request: &Request) -> Option<SocketAddr> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>()?.0;
        // A dual-stack listener reports an IPv4 address as an IPv6 address.
        if !self.is_proxy(peer.ip()) {
            return None;
        }
        let told = request.headers().get_all("x-forwarded-for").iter().rev();
        // Split as bytes: a value that cannot be parsed ends the search, and does not hide those
        // after it.
        let told = told.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        let mut told = told
            .map(|text| std::str::from_utf8(text).ok().and_then(|text| told_address(text.trim())));
        let first = told.find(|ip| !ip.is_some_and(|ip| self.is_proxy(ip))).flatten();
        if first.is_none() && !UNTOLD.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                proxy = %peer.ip(),
                "a trusted proxy sends no usable X-Forwarded-For: all callers behind it share one \
                 rate limit"
            );
        }
        Some(SocketAddr::new(first?, 0))
    }
}

/// An address in a forwarding header: some proxies add the port.
fn told_address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let address = bare.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

/// Lets pages of any origin read the responses of `router`, which are public or require a proof in
/// the request itself. These routes use no cookies, so a page gains nothing from its visitor's
/// browser (WHATWG Fetch, CORS protocol).
pub fn readable_by_pages<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    let cors = Arc::new(
        CorsLayer::new()
            .allow_origin(Any)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::ACCEPT,
                HeaderName::from_static("dpop"),
                HeaderName::from_static("mcp-protocol-version"),
            ])
            .expose_headers([header::WWW_AUTHENTICATE, header::RETRY_AFTER])
            .max_age(Duration::from_hours(1)),
    );
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let cors = Arc::clone(&cors);
        async move {
            // A response to a program's POST goes to that program alone and is not cached: it does
            // not need these headers.
            let by_a_program =
                request.method() == Method::POST && !request.headers().contains_key(header::ORIGIN);
            if by_a_program {
                return next.run(request).await;
            }
            let Ok(response) = cors.layer(next).oneshot(request).await;
            response
        }
    }))
}

/// Browsers use only https for an `https` issuer from now on (RFC 6797).
pub fn strict_transport(router: Router, issuer: &Issuer) -> Router {
    if !issuer.as_str().starts_with("https://") {
        return router;
    }
    router.layer(middleware::map_response(async |mut response: Response<Body>| {
        let a_year = HeaderValue::from_static("max-age=31536000");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, a_year);
        response
    }))
}

/// Logs one line for each request, without its query, body or headers.
async fn watched(State(watch): State<Watch>, mut request: Request, next: Next) -> Response<Body> {
    if request.uri().query().is_some_and(|query| query.len() > watch.limits.query) {
        return StatusCode::URI_TOO_LONG.into_response();
    }
    let id = watch.entropy.id();
    let started = Instant::now();
    // The method is text of the caller; only known ones become a metric label.
    let known = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    let method = known.into_iter().find(|m| request.method().as_str() == *m).unwrap_or("_OTHER");
    let route = request.extensions().get::<MatchedPath>().map(|p| p.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    if let Some(address) = watch.address_behind_proxies(&request) {
        request.extensions_mut().insert(ConnectInfo(address));
    }
    let span = tracing::info_span!("request", request_id = id, method, route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    span.in_scope(|| {
        tracing::info!(status, ms = elapsed.as_secs_f64() * 1000.0, "answered");
    });
    watch.duration.record(
        elapsed.as_secs_f64(),
        &[
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ],
    );
    let as_said = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, as_said);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// A panic ends one request, not the process, and reveals nothing to the outside.
#[allow(clippy::needless_pass_by_value)] // the signature that the layer asks for
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    tracing::error!("a request panicked");
    let body = r#"{"error":"server_error","error_description":"The server failed."}"#;
    let json = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::INTERNAL_SERVER_ERROR, json, body).into_response()
}

/// Asks an authorization server whether it could make decisions now. Cheap to clone.
#[derive(Clone)]
pub struct Probe(Arc<dyn Fn() -> BoxFuture + Send + Sync>);

type BoxFuture = Pin<Box<dyn Future<Output = Readiness> + Send>>;

/// How long the result of a probe is cached, because anyone can send probes.
const PROBED: Duration = Duration::from_secs(1);
/// A probe is answered within this time, even if the store hangs.
const PATIENCE: Duration = Duration::from_millis(2500);

impl Probe {
    /// A probe of an authorization server.
    pub fn of<G: Grants + Clone + Send + 'static>(server: &G) -> Self {
        let server = server.clone();
        Self::new(move || {
            let server = server.clone();
            async move { server.authority().readiness().await }
        })
    }

    /// A probe that calls `ask`, once a second at most.
    fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Readiness> + Send + 'static,
    {
        let last: Arc<Mutex<Option<(Instant, Readiness)>>> = Arc::default();
        let ask = Arc::new(ask);
        Self(Arc::new(move || {
            let (last, ask) = (Arc::clone(&last), Arc::clone(&ask));
            Box::pin(async move {
                let mut last = last.lock().await;
                if let Some((at, found)) = &*last
                    && at.elapsed() < PROBED
                {
                    return found.clone();
                }
                let found = timeout(PATIENCE, ask()).await.unwrap_or_else(|_| Readiness {
                    broken: Some("the database does not answer"),
                    ..Readiness::default()
                });
                *last = Some((Instant::now(), found.clone()));
                found
            })
        }))
    }
}

/// Who can read the responses of `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Anyone: the response names no records.
    Anyone,
    /// The operators of the server.
    Operators,
}

/// `/healthz`: the process answers. `/readyz`: each authorization server can read its directory and
/// record a decision.
pub fn health(probes: Vec<Probe>, readers: Readers) -> Router {
    let ready = move || {
        let probes = probes.clone();
        async move {
            let (mut unreadable, mut waiting) = (Vec::new(), Vec::new());
            for Probe(ask) in &probes {
                let found = ask().await;
                if let Some(why) = found.broken {
                    return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
                }
                unreadable.extend(found.unreadable);
                waiting.extend(found.waiting);
            }
            let mut text = "ready\n".to_owned();
            if !unreadable.is_empty() {
                let count = unreadable.len();
                let (are, it) =
                    if count == 1 { ("record is", "it") } else { ("records are", "them") };
                text.push_str(&format!(
                    "{count} stored {are} left out, because this version cannot read {it}:"
                ));
                match readers {
                    Readers::Anyone => text.push_str(" see the log\n"),
                    Readers::Operators => text.push_str(&format!("\n{}\n", unreadable.join("\n"))),
                }
            }
            if readers == Readers::Operators {
                for line in waiting {
                    text.push_str(&format!("{line}\n"));
                }
            }
            (StatusCode::OK, text)
        }
    };
    Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready))
}
