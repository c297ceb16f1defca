//! The one place that builds an HTTP client. Every outbound request has a reach, a size limit and a
//! time limit; redirects are never followed. Proxies are never taken from the environment: a
//! person's own program passes them in ([`Outbound::through`]), a server uses none.

use crate::{
    events::{Event, Events, Parser},
    reach::{Class, Reach, checked, class_of},
    trouble::{OutboundError, host_of, text},
};
use hyper_util::client::proxy::matcher::Matcher;
use passavant_proto::{
    identifier::is_loopback,
    others_text::shown,
    time::{Clock, Timestamp},
};
use reqwest::{
    Certificate, Client, Method, RequestBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, UNIX_EPOCH},
};
use url::Url;

/// A complete response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body, within its limit.
    pub body: Vec<u8>,
    /// How close to us the responding party is: URLs that it names may be as close, and no closer.
    pub near: Reach,
}

impl Answer {
    /// The body as JSON, if it is.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// Largest response that is read, in bytes (a discovery document, a JWK Set, a token response).
const LARGEST: usize = 256 * 1024;

/// Limits on the size and duration of a response.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest body, in bytes; 0: the status is the answer, and no body is waited for.
    pub bytes: usize,
    /// From request to the end of the body.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: LARGEST, time: Duration::from_secs(10) }
    }
}

/// Resolves host names; the guard rejects addresses that are out of reach.
pub trait Names: Send + Sync {
    /// Every address of `host`.
    fn resolve(&self, host: String) -> BoxedAddresses;
}

/// The result of a resolver.
pub type BoxedAddresses =
    std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// The operating system's resolver.
struct SystemNames;

impl Names for SystemNames {
    fn resolve(&self, host: String) -> BoxedAddresses {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The HTTP client that enforces reach and limits. Cheap to clone.
#[derive(Clone)]
pub struct Outbound(pub(crate) Arc<Inner>);

/// Proxies for networks without direct internet access, as in the usual variables.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For https URLs (`HTTPS_PROXY`, or else `ALL_PROXY`).
    pub https: Option<String>,
    /// For http URLs (`HTTP_PROXY`, or else `ALL_PROXY`).
    pub http: Option<String>,
    /// Hosts that are reached without a proxy (`NO_PROXY`). This machine always is.
    pub none_for: Option<String>,
}

/// Proxies, and the hosts they are not used for.
struct WayOut {
    https: Option<Url>,
    http: Option<Url>,
    matcher: Matcher,
}

impl WayOut {
    /// The proxy for a URL.
    fn of(&self, url: &Url) -> Option<&Url> {
        let uri = url.as_str().parse::<http::Uri>().ok().filter(|_| !is_loopback(url))?;
        self.matcher.intercept(&uri)?;
        if url.scheme() == "https" { self.https.as_ref() } else { self.http.as_ref() }
    }

    /// Whether a host name belongs to one of the proxies.
    fn is_proxy(&self, name: &str) -> bool {
        [&self.https, &self.http].into_iter().flatten().any(|url| url.host_str() == Some(name))
    }
}

/// Maximum number of servers whose time is remembered.
const CLOCKS: usize = 256;
/// A clock difference above this is reported, in seconds.
pub const NOTABLE_SKEW: i64 = 30;

pub(crate) struct Inner {
    roots: Vec<Certificate>,
    /// The extra roots in PEM, for code that builds a connector of its own.
    pub(crate) pems: Vec<Vec<u8>>,
    pub(crate) names: Arc<dyn Names>,
    proxies: Option<Arc<WayOut>>,
    /// If set, every request is sent to this socket, whatever its URL names.
    socket: Option<PathBuf>,
    clock: OnceLock<Clock>,
    /// How many seconds the clock of a server is ahead of ours, by its origin.
    clocks: Mutex<HashMap<String, i64>>,
    /// One client for each reach, built at first use: reading the platform's certificate
    /// authorities takes too long for a short command.
    clients: [OnceLock<Client>; 3],
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

impl Outbound {
    /// A client that trusts the platform's certificate authorities and those in `extra_roots` (PEM
    /// bundles).
    pub fn new(extra_roots: &[Vec<u8>]) -> Result<Self, OutboundError> {
        Self::with_names(extra_roots, Arc::new(SystemNames))
    }

    /// Like [`Self::new`], with another resolver.
    pub fn with_names(
        extra_roots: &[Vec<u8>],
        names: Arc<dyn Names>,
    ) -> Result<Self, OutboundError> {
        let mut roots = Vec::new();
        for pem in extra_roots {
            let bundle = Certificate::from_pem_bundle(pem);
            roots.extend(bundle.map_err(|e| OutboundError::Setup(text(&e)))?);
        }
        let pems = extra_roots.to_vec();
        Ok(Self(Arc::new(Inner {
            roots,
            pems,
            names,
            proxies: None,
            socket: None,
            clock: OnceLock::new(),
            clocks: Mutex::default(),
            clients: Default::default(),
        })))
    }

    /// Sends requests through proxies: only for a person's own program, which contacts the servers
    /// that the person chose. The proxy decides which addresses it reaches: they are not known
    /// here. Nothing on this machine is requested through it.
    pub fn through(self, proxies: &Proxies) -> Result<Self, OutboundError> {
        let parse = |which: &str, proxy: &Option<String>| {
            let Some(proxy) = proxy else { return Ok(None) };
            let text =
                if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") };
            let url = Url::parse(&text).ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.map(Some).ok_or_else(|| {
                let what = "is not the URL of an HTTP proxy, like http://proxy.example:3128";
                OutboundError::Setup(format!("{which} {what}"))
            })
        };
        let https = parse("HTTPS_PROXY", &proxies.https)?;
        let http = parse("HTTP_PROXY", &proxies.http)?;
        let text = |url: &Option<Url>| url.as_ref().map(ToString::to_string).unwrap_or_default();
        let matcher = Matcher::builder()
            .https(text(&https))
            .http(text(&http))
            .no(proxies.none_for.clone().unwrap_or_default())
            .build();
        let is_set = https.is_some() || http.is_some();
        let way = WayOut { https, http, matcher };
        let (roots, pems, names) =
            (self.0.roots.clone(), self.0.pems.clone(), Arc::clone(&self.0.names));
        Ok(Self(Arc::new(Inner {
            roots,
            pems,
            names,
            proxies: is_set.then(|| Arc::new(way)),
            socket: None,
            clock: OnceLock::new(),
            clocks: Mutex::default(),
            clients: Default::default(),
        })))
    }

    /// Sends requests to a server of this machine that listens at a Unix socket.
    #[must_use]
    pub fn at_socket(&self, socket: &Path) -> Self {
        Self(Arc::new(Inner {
            roots: self.0.roots.clone(),
            pems: self.0.pems.clone(),
            names: Arc::clone(&self.0.names),
            proxies: None,
            socket: Some(socket.to_owned()),
            clock: OnceLock::new(),
            clocks: Mutex::default(),
            clients: Default::default(),
        }))
    }

    /// From now on, compares the time of servers with this clock.
    pub fn compare_with(&self, clock: &Clock) {
        // The first clock stays: there is only one.
        let _ = self.0.clock.set(clock.clone());
    }

    /// How many seconds the clock of the server at `url` is ahead of ours (negative if behind), as
    /// of its last response.
    pub fn skew_of(&self, url: &str) -> Option<i64> {
        let origin = Url::parse(url).ok()?.origin().ascii_serialization();
        self.clocks().get(&origin).copied()
    }

    /// The server whose clock differs most from ours, if that is worth reporting: its origin, and
    /// how many seconds it is ahead.
    pub fn notable_skew(&self) -> Option<(String, i64)> {
        let clocks = self.clocks();
        let furthest = clocks.iter().max_by_key(|(_, skew)| skew.abs())?;
        (furthest.1.abs() > NOTABLE_SKEW).then(|| (furthest.0.clone(), *furthest.1))
    }

    fn clocks(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.0.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the `Date` of a response with our clock.
    pub(crate) fn note_time(&self, url: &Url, headers: &http::HeaderMap) {
        // A cached response has the time at which it was made.
        let date = headers.get("date").filter(|_| !headers.contains_key("age"));
        let date = date.and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let date = date.and_then(|since| i64::try_from(since.as_secs()).ok()).map(Timestamp);
        let (Some(date), Some(clock)) = (date, self.0.clock.get()) else { return };
        let mut clocks = self.clocks();
        let origin = url.origin().ascii_serialization();
        if clocks.len() < CLOCKS || clocks.contains_key(&origin) {
            clocks.insert(origin, date.since(clock.now()));
        }
    }

    /// The cause of an error, with the proxy that the request went through.
    fn by_way_of(&self, url: &Url, cause: String) -> String {
        let Some(proxy) = self.0.proxies.as_ref().and_then(|way| way.of(url).map(host_of)) else {
            return cause;
        };
        let (cause, hint) = cause.split_once("\nhint: ").unwrap_or((&cause, ""));
        let hint = if hint.is_empty() {
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names this proxy; list in NO_PROXY what is reached without it"
        } else {
            hint
        };
        format!("through the proxy {proxy}: {cause}\nhint: {hint}")
    }

    /// Whether a request to `url` goes through a proxy.
    fn is_proxied(&self, url: &Url) -> bool {
        self.0.proxies.as_ref().is_some_and(|way| way.of(url).is_some())
    }

    /// The underlying client for MCP traffic to a server that the user named: the same checks, but
    /// no limit on size or total time, because streams are long.
    pub fn streaming(&self, url: &str) -> Result<Client, OutboundError> {
        let reach = Reach::of_trusted_url(url);
        checked(url, reach)?;
        self.client(reach)
    }

    /// GET, for JSON or anything else.
    pub async fn get(&self, url: &str, reach: Reach) -> Result<Answer, OutboundError> {
        self.get_within(url, reach, Bounds::default()).await
    }

    /// GET with limits of its own.
    pub async fn get_within(
        &self,
        url: &str,
        reach: Reach,
        bounds: Bounds,
    ) -> Result<Answer, OutboundError> {
        let url = checked(url, reach)?;
        let request = self.client(reach)?.get(url.clone()).header("accept", "application/json");
        self.send(request, &url, reach, bounds).await
    }

    /// POST of a form. `basic` are form-encoded credentials for Basic authentication.
    pub async fn post_form(
        &self,
        url: &str,
        reach: Reach,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<Answer, OutboundError> {
        self.post_form_within(url, reach, form, basic, Bounds::default()).await
    }

    /// POST of a form with a DPoP proof, if there is one (RFC 9449 section 5).
    pub async fn post_form_proving(
        &self,
        (url, reach): (&str, Reach),
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
        proof: Option<&str>,
    ) -> Result<Answer, OutboundError> {
        self.ask_form((url, reach), form, basic, (proof, Bounds::default())).await
    }

    /// POST of a form, with limits of its own.
    pub async fn post_form_within(
        &self,
        url: &str,
        reach: Reach,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
        bounds: Bounds,
    ) -> Result<Answer, OutboundError> {
        self.ask_form((url, reach), form, basic, (None, bounds)).await
    }

    async fn ask_form(
        &self,
        (url, reach): (&str, Reach),
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
        (proof, bounds): (Option<&str>, Bounds),
    ) -> Result<Answer, OutboundError> {
        let url = checked(url, reach)?;
        let mut request = self.form(&url, reach, form, basic)?.header("accept", "application/json");
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        self.send(request, &url, reach, bounds).await
    }

    fn form(
        &self,
        url: &Url,
        reach: Reach,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<RequestBuilder, OutboundError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .client(reach)?
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let Some((id, secret)) = basic else { return Ok(request) };
        let encode =
            |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
        Ok(request.basic_auth(encode(id), Some(encode(secret))))
    }

    /// POST of a form that is answered by events for as long as the server likes, of at most `largest`
    /// bytes each. The caller limits how long it waits.
    pub async fn post_for_events(
        &self,
        url: &str,
        reach: Reach,
        form: &[(&str, &str)],
        basic: (&str, &str),
        largest: usize,
    ) -> Result<Events, OutboundError> {
        let url = checked(url, reach)?;
        let request = self.form(&url, reach, form, Some(basic))?;
        let response = request.header("accept", "text/event-stream").send().await;
        let unreachable = |cause: String| OutboundError::Unreachable { host: host_of(&url), cause };
        let response = response.map_err(|e| unreachable(self.by_way_of(&url, text(&e))))?;
        if !self.is_proxied(&url)
            && response.remote_addr().is_some_and(|peer| !reach.allows(peer.ip()))
        {
            return Err(OutboundError::Reach(host_of(&url)));
        }
        let status = response.status();
        let kind = response.headers().get("content-type").map(http::HeaderValue::as_bytes);
        if status != 200 || !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
            return Err(unreachable(format!("HTTP {} and no events", status.as_u16())));
        }
        if let Some(encoding) = foreign_encoding(response.headers()) {
            return Err(OutboundError::Encoding(host_of(&url), encoding));
        }
        Ok(Events::of(response, largest))
    }

    /// Any JSON request. `bearer` goes into the `Authorization` header.
    pub async fn json(
        &self,
        method: &str,
        url: &str,
        reach: Reach,
        bearer: Option<&str>,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, OutboundError> {
        self.json_with(method, url, reach, bearer, body, &[]).await
    }

    /// Like [`Self::json`], with more headers and limits of its own.
    pub async fn json_within(
        &self,
        (method, url): (&str, &str),
        reach: Reach,
        bearer: Option<&str>,
        body: Option<&serde_json::Value>,
        (headers, bounds): (&[(&str, &str)], Bounds),
    ) -> Result<Answer, OutboundError> {
        self.ask_json((method, url), reach, bearer, body, (headers, bounds)).await
    }

    /// Like [`Self::json`], with more headers.
    pub async fn json_with(
        &self,
        method: &str,
        url: &str,
        reach: Reach,
        bearer: Option<&str>,
        body: Option<&serde_json::Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, OutboundError> {
        self.ask_json((method, url), reach, bearer, body, (headers, Bounds::default())).await
    }

    async fn ask_json(
        &self,
        (method, url): (&str, &str),
        reach: Reach,
        bearer: Option<&str>,
        body: Option<&serde_json::Value>,
        (headers, bounds): (&[(&str, &str)], Bounds),
    ) -> Result<Answer, OutboundError> {
        let url = checked(url, reach)?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| OutboundError::Setup(format!("no HTTP method {method}")))?;
        let mut request = self
            .client(reach)?
            .request(method, url.clone())
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        self.send(request, &url, reach, bounds).await
    }

    /// POST of a text of a media type, with an `Authorization` header if there is one.
    pub async fn post_text(
        &self,
        (url, reach): (&str, Reach),
        (media_type, text): (&str, &str),
        authorization: Option<&str>,
        bounds: Bounds,
    ) -> Result<Answer, OutboundError> {
        let url = checked(url, reach)?;
        let mut request = self
            .client(reach)?
            .post(url.clone())
            .header("accept", "application/json")
            .header("content-type", media_type)
            .body(text.to_owned());
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        self.send(request, &url, reach, bounds).await
    }

    fn client(&self, reach: Reach) -> Result<Client, OutboundError> {
        let slot = &self.0.clients[reach as usize];
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let built = build(reach, &self.0).map_err(|e| OutboundError::Setup(text(&e)))?;
        // Another thread may have built one meanwhile: use that one.
        Ok(slot.get_or_init(|| built).clone())
    }

    async fn send(
        &self,
        request: RequestBuilder,
        url: &Url,
        reach: Reach,
        bounds: Bounds,
    ) -> Result<Answer, OutboundError> {
        let unreachable = |e: &reqwest::Error| OutboundError::Unreachable {
            host: host_of(url),
            cause: self.by_way_of(url, text(e)),
        };
        let request = request.timeout(bounds.time);
        let mut response = request.send().await.map_err(|e| unreachable(&e))?;
        // Check the address that responded, in case the name was resolved again between check and
        // connect.
        let proxied = self.is_proxied(url);
        if !proxied && response.remote_addr().is_some_and(|peer| !reach.allows(peer.ip())) {
            return Err(OutboundError::Reach(host_of(url)));
        }
        self.note_time(url, response.headers());
        if bounds.bytes == 0 {
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            return Ok(Answer { status, headers, body: Vec::new(), near: Reach::Public });
        }
        if let Some(encoding) = foreign_encoding(response.headers()) {
            return Err(OutboundError::Encoding(host_of(url), encoding));
        }
        let too_large = || OutboundError::TooLarge(host_of(url), bounds.bytes);
        if response.content_length().is_some_and(|length| length > bounds.bytes as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let streams = response
            .headers()
            .get("content-type")
            .is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        let mut message = FirstMessage::default();
        while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(&e))? {
            if body.len() + chunk.len() > bounds.bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
            if streams && message.is_in(&chunk) {
                break;
            }
        }
        if let Some(found) = message.found {
            body = found.into_bytes();
        }
        let near = match response.remote_addr().map(|peer| class_of(peer.ip())) {
            _ if proxied => Reach::Public,
            Some(Class::Loopback) => Reach::Loopback,
            Some(Class::Private) => Reach::Private,
            _ => Reach::Public,
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body, near })
    }
}

/// Finds the response in a stream of events that continues after it. Events without data (for
/// resuming) and messages that the server sends on its own may precede it.
#[derive(Default)]
struct FirstMessage {
    parser: Parser,
    ready: VecDeque<Event>,
    /// The response, if it is JSON.
    found: Option<String>,
}

impl FirstMessage {
    fn is_in(&mut self, chunk: &[u8]) -> bool {
        self.parser.feed(chunk, &mut self.ready);
        while let Some(event) = self.ready.pop_front() {
            let Some(data) = event.data.filter(|data| !data.trim().is_empty()) else { continue };
            match serde_json::from_str::<serde_json::Value>(&data) {
                Ok(message) if message.get("method").is_some() => {}
                Ok(_) => {
                    self.found = Some(data);
                    return true;
                }
                // The older transport begins with the endpoint for POST.
                Err(_) => return true,
            }
        }
        false
    }
}

/// A content coding that remains after gzip, which is accepted although it was not requested.
pub(crate) fn foreign_encoding(headers: &http::HeaderMap) -> Option<String> {
    let encoding = headers.get("content-encoding")?;
    let encoding = String::from_utf8_lossy(encoding.as_bytes()).trim().to_owned();
    (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"))
        .then(|| shown(&encoding, 40))
}

#[allow(clippy::disallowed_methods)] // the one place that may build a client
fn build(reach: Reach, outbound: &Inner) -> Result<Client, reqwest::Error> {
    let mut plain = http::HeaderMap::new();
    // Compressed responses are not requested, but are read, because some intermediaries compress
    // anyway.
    plain.insert("accept-encoding", http::HeaderValue::from_static("identity"));
    let builder = Client::builder();
    let builder = match &outbound.proxies {
        None => builder.no_proxy(),
        Some(way) => {
            let way = Arc::clone(way);
            builder.proxy(reqwest::Proxy::custom(move |url| way.of(url).cloned()))
        }
    };
    let proxies = outbound.proxies.clone();
    #[cfg(unix)]
    let builder = match &outbound.socket {
        Some(socket) => builder.unix_socket(socket.clone()),
        None => builder,
    };
    builder
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .default_headers(plain)
        .gzip(true)
        .referer(false)
        .user_agent(concat!("passavant/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(3))
        .pool_max_idle_per_host(8)
        .tls_version_min(reqwest::tls::Version::TLS_1_2)
        .dns_resolver(Guard { reach, names: Arc::clone(&outbound.names), proxies })
        .tls_certs_merge(outbound.roots.iter().cloned())
        .build()
}

/// Resolves a name, and rejects it if any of its addresses is out of reach, so that the connection
/// goes to a checked address or nowhere.
struct Guard {
    reach: Reach,
    names: Arc<dyn Names>,
    /// A proxy may be anywhere in the person's network.
    proxies: Option<Arc<WayOut>>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.names.resolve(name.as_str().to_owned());
        let is_proxy = self.proxies.as_ref().is_some_and(|way| way.is_proxy(name.as_str()));
        let reach = if is_proxy { Reach::Loopback } else { self.reach };
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                found.await?.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            if addresses.is_empty() || !addresses.iter().all(|a| reach.allows(a.ip())) {
                return Err("the address may not be reached from here".into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_out_of_reach_is_refused_before_any_connection() {
        let outbound = Outbound::new(&[]).unwrap();
        for url in [
            "http://example.com/",
            "file:///etc/passwd",
            "data:text/plain,x",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::ffff:127.0.0.1]/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://u:p@1.1.1.1/",
        ] {
            let refused = outbound.get(url, Reach::Public).await;
            assert!(
                matches!(refused, Err(OutboundError::Url(_) | OutboundError::Reach(_))),
                "{url}"
            );
        }
    }
}
