//! A gateway in front of a scripted MCP server.

use crate::{
    forge::Key,
    world::{AGENT, AGENT_AT_RAS, Reply, World},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode, header},
    response::IntoResponse,
};
use futures::StreamExt;
use passavant_gateway::{Approved, Gateway, GatewayDeps, RouteSettings, Trail};
use passavant_outbound::{Outbound, RemoteKeys};
use passavant_proto::{
    identifier::Resource,
    mcp::operation_policy::{Rule, Rules},
    oauth::scope::Scopes,
    policy::Subject,
    secret::Secret,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A request as the MCP server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// HTTP method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: String,
}

/// The scripted MCP server.
#[derive(Clone, Default)]
pub struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The tools that `tools/list` returns.
    pub tools: Arc<Mutex<Value>>,
    /// Whether lists are returned as events.
    pub events: Arc<AtomicBool>,
    /// If set, lists are returned as these bytes with this media type.
    pub raw: Arc<Mutex<Option<(&'static str, Vec<u8>)>>>,
    /// Number of streams that the gateway has dropped.
    pub let_go: Arc<AtomicUsize>,
    sessions: Arc<AtomicUsize>,
}

/// Counts a stream when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Upstream {
    /// The requests since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Waits until this many streams were dropped.
    pub async fn wait_let_go(&self, count: usize) {
        for _ in 0..200 {
            if self.let_go.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("a stream was not let go");
    }

    fn stream(&self, first: &str) -> Response<Body> {
        let counted = Counted(Arc::clone(&self.let_go));
        let first = first.to_owned();
        let stream = futures::stream::once(async move { Ok::<_, Infallible>(Bytes::from(first)) })
            .chain(futures::stream::pending())
            .map(move |item| {
                let _held = &counted;
                item
            });
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        (kind, Body::from_stream(stream)).into_response()
    }

    async fn answer(self, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.seen.lock().unwrap().push(Seen {
            method: parts.method.clone(),
            target: parts.uri.to_string(),
            headers: parts.headers,
            body: body.clone(),
        });
        if parts.method == Method::GET {
            let event = json!({"jsonrpc": "2.0", "method": "notifications/message"});
            return self.stream(&format!("id: 1\ndata: {event}\n\n"));
        }
        let asked: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = &asked["id"];
        if id.is_null() && asked["method"].is_string() {
            // As servers in Node.js do it: 202 without a content type, with a chunked body that has
            // no chunks.
            let nothing = futures::stream::empty::<Result<Bytes, Infallible>>();
            return (StatusCode::ACCEPTED, Body::from_stream(nothing)).into_response();
        }
        let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
        let json = |value: Value| {
            ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
        };
        match (asked["method"].as_str().unwrap_or_default(), asked.pointer("/params/name")) {
            ("initialize", _) => {
                let number = self.sessions.fetch_add(1, Ordering::SeqCst);
                let mut response = json(result(json!({"protocolVersion": "2025-11-25"})));
                let session = format!("session-{number}").parse().unwrap();
                response.headers_mut().insert("mcp-session-id", session);
                response
            }
            ("tools/list", _) if self.raw.lock().unwrap().is_some() => {
                let (kind, bytes) = self.raw.lock().unwrap().clone().unwrap();
                ([(header::CONTENT_TYPE, kind)], bytes).into_response()
            }
            ("tools/list", _) => {
                let tools = self.tools.lock().unwrap().clone();
                let list = result(json!({"tools": tools, "cacheScope": "public"}));
                if self.events.load(Ordering::SeqCst) {
                    let event = format!("event: message\nid: 7\ndata: {list}\n\n");
                    ([(header::CONTENT_TYPE, "text/event-stream")], event).into_response()
                } else {
                    json(list)
                }
            }
            (_, Some(name)) => self.tool(name.as_str().unwrap_or_default(), result).await,
            _ => json(result(json!({}))),
        }
    }

    async fn tool(&self, name: &str, result: impl Fn(Value) -> Value) -> Response<Body> {
        match name {
            "stream" => {
                self.stream("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n")
            }
            "flood_json" => {
                let counted = Counted(Arc::clone(&self.let_go));
                let piece = Bytes::from("1,".repeat(30_000));
                let stream = futures::stream::repeat_with(move || {
                    let _held = &counted;
                    Ok::<_, Infallible>(piece.clone())
                });
                let kind = [(header::CONTENT_TYPE, "application/json")];
                (kind, Body::from_stream(stream)).into_response()
            }
            "flood" => {
                let counted = Counted(Arc::clone(&self.let_go));
                let event = Bytes::from(format!("data: {{\"x\":\"{}\"}}\n\n", "x".repeat(60_000)));
                let stream = futures::stream::repeat_with(move || {
                    let _held = &counted;
                    Ok::<_, Infallible>(event.clone())
                });
                let kind = [(header::CONTENT_TYPE, "text/event-stream")];
                (kind, Body::from_stream(stream)).into_response()
            }
            "slow" => {
                let _counted = Counted(Arc::clone(&self.let_go));
                futures::future::pending().await
            }
            "redirect" => {
                let to = [(header::LOCATION, "http://127.0.0.2:1/elsewhere")];
                (StatusCode::TEMPORARY_REDIRECT, to).into_response()
            }
            "refuse" => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"its own\"")];
                (StatusCode::UNAUTHORIZED, challenge).into_response()
            }
            "chatty" => {
                let headers = [
                    ("set-cookie", "sid=1"),
                    ("x-own", "goes"),
                    ("connection", "x-hop"),
                    ("x-hop", "goes"),
                    ("www-authenticate", "Basic"),
                    ("access-control-allow-origin", "*"),
                    ("x-accel-redirect", "/internal/secret.txt"),
                    ("x-sendfile", "/etc/passwd"),
                    ("clear-site-data", "\"*\""),
                    ("strict-transport-security", "max-age=1"),
                    ("refresh", "0; url=/"),
                    ("server", "own"),
                    ("link", "</x>; rel=preload"),
                    ("location", "/x"),
                    ("content-disposition", "attachment"),
                    ("cache-control", "public, max-age=1000"),
                    ("etag", "\"1\""),
                    ("content-type", "application/json; charset=utf-8"),
                    ("content-language", "de"),
                    ("retry-after", "1"),
                    ("x-request-id", "stays"),
                ];
                let mut response = Response::new(Body::from("{}"));
                for (name, value) in headers {
                    response.headers_mut().append(name, value.parse().unwrap());
                }
                response
            }
            "page" => {
                let kind = [(header::CONTENT_TYPE, "text/html; charset=iso-8859-1")];
                (StatusCode::NOT_FOUND, kind, "<script>").into_response()
            }
            "utf16" => {
                let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-16le")];
                (kind, "{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
                    .into_response()
            }
            "two_types" | "coded" | "coded_twice" => {
                let headers: &[(&str, &str)] = match name {
                    "two_types" => &[("content-type", "application/json; charset=utf-16")],
                    "coded" => &[("content-encoding", "gzip")],
                    _ => &[("content-encoding", "identity"), ("content-encoding", "deflate")],
                };
                let mut response = Response::new(Body::from("{}"));
                let json = ("content-type", "application/json");
                for (name, value) in std::iter::once(&json).chain(headers) {
                    response.headers_mut().append(*name, value.parse().unwrap());
                }
                response
            }
            "plain" => ([(header::CONTENT_TYPE, "text/plain")], "{\"tools\":[]}").into_response(),
            "huge_header" => ([("x-huge", "x".repeat(200_000))], "{}").into_response(),
            _ => {
                let body = result(json!({"content": [{"type": "text", "text": "ok"}]}));
                ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
            }
        }
    }
}

/// A gateway, its MCP server, and its records.
pub struct Gate {
    /// The MCP server's resource identifier.
    pub url: String,
    /// The MCP server.
    pub upstream: Upstream,
    /// The gateway.
    pub gateway: Gateway,
    /// Stops it.
    pub stop: CancellationToken,
    records: Arc<Mutex<Vec<Value>>>,
    kept: Arc<Mutex<BTreeMap<String, Approved>>>,
    writing: Arc<AtomicBool>,
}

/// A rule for tools.
pub fn tools(names: &[&str], scopes: &str) -> Rule {
    Rule {
        tools: names.iter().map(|name| (*name).to_owned()).collect(),
        scopes: Scopes::parse(scopes).unwrap(),
        ..Rule::default()
    }
}

impl Gate {
    /// The usual gateway: every request needs `read`, the tool `draw` also `write`, and the
    /// script's other tools need nothing more.
    pub async fn new(world: &World) -> Self {
        Self::with(world, |_| {}).await
    }

    /// A gateway with other settings.
    pub async fn with(world: &World, change: impl FnOnce(&mut RouteSettings)) -> Self {
        Self::begin(world, change, BTreeMap::new(), None).await
    }

    /// A gateway with previously approved tools, or in front of another MCP server.
    pub async fn begin(
        world: &World,
        change: impl FnOnce(&mut RouteSettings),
        approved: BTreeMap<String, Approved>,
        elsewhere: Option<String>,
    ) -> Self {
        let upstream = Upstream::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream_url = format!("http://{}/inner", listener.local_addr().unwrap());
        let answer = |State(upstream): State<Upstream>, request: Request| upstream.answer(request);
        let router = Router::new().fallback(answer).with_state(upstream.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        world.govern(&url).await;
        let resource = Resource::parse(&url).unwrap();
        let upstream_url = elsewhere.unwrap_or(upstream_url);
        let mut settings = RouteSettings::new(resource, world.ras.clone(), &upstream_url);
        let scripted = [
            "echo",
            "stream",
            "flood",
            "flood_json",
            "slow",
            "redirect",
            "refuse",
            "chatty",
            "page",
            "utf16",
            "two_types",
            "coded",
            "coded_twice",
            "plain",
            "huge_header",
        ];
        let rules = vec![
            tools(&scripted, ""),
            tools(&["draw"], "write"),
            Rule { deny: true, ..tools(&["wipe"], "") },
            Rule {
                max_age: Some(300),
                acr_values: vec!["gold".to_owned()],
                ..tools(&["pay"], "write")
            },
        ];
        settings.rules = Rules::new(Scopes::parse("read").unwrap(), rules).unwrap();
        let ras = world.ras_role.get().unwrap().clone();
        settings.stands = Some(Arc::new(move |token| {
            let ras = ras.clone();
            Box::pin(
                async move { ras.stands(&token).await.map_err(|_| passavant_gateway::Unavailable) },
            )
        }));
        change(&mut settings);
        let (trail, entries) = Trail::new();
        let records: Arc<Mutex<Vec<Value>>> = Arc::default();
        let writing = Arc::new(AtomicBool::new(true));
        let (written, writes) = (Arc::clone(&records), Arc::clone(&writing));
        std::thread::spawn(move || {
            while let Some(batch) = entries.take(Duration::from_millis(5)) {
                if !writes.load(Ordering::SeqCst) {
                    continue;
                }
                let read = batch.lines.iter().map(|line| serde_json::from_str(line).unwrap());
                written.lock().unwrap().extend(read);
                entries.written(&batch);
            }
        });
        let kept: Arc<Mutex<BTreeMap<String, Approved>>> = Arc::default();
        let keeping = Arc::clone(&kept);
        let outbound = Outbound::new(&[]).unwrap();
        let deps = GatewayDeps {
            clock: world.clock(),
            entropy: world.entropy(),
            keys: RemoteKeys::new(outbound.clone(), world.clock()),
            outbound,
            key: Arc::new(Key::new().signing_key()),
            session_key: Secret::new("the same on every node"),
            trail,
            keep: Arc::new(move |_, tools| {
                *keeping.lock().unwrap() = tools;
                Box::pin(async {})
            }),
        };
        let gateway = Gateway::new(deps, vec![(settings, approved)]).unwrap();
        let stop = CancellationToken::new();
        let (watched, stopped) = (gateway.clone(), stop.clone());
        tokio::spawn(async move { watched.watch(stopped).await });
        let service = gateway.service(Router::new(), []);
        let service = tower::make::Shared::new(service);
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { url, upstream, gateway, stop, records, kept, writing }
    }

    /// From now on nothing can be recorded.
    pub fn stop_writing(&self) {
        self.writing.store(false, Ordering::SeqCst);
    }

    /// The records of one kind since the last call.
    pub async fn records(&self, kind: &str) -> Vec<Value> {
        // Outcomes are recorded after an answer was read to its end.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let mut all = self.records.lock().unwrap();
        let (found, rest) = all.drain(..).partition(|record| record["kind"] == kind);
        *all = rest;
        found
    }

    /// The saved tools, after the task that saves them has run.
    pub async fn kept(&self) -> BTreeMap<String, Approved> {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        self.kept.lock().unwrap().clone()
    }

    /// An access token for this MCP server with these scopes, recorded at the RAS.
    pub async fn token(&self, world: &World, person: &str, scopes: &str) -> String {
        self.token_with(world, person, scopes, &json!({})).await
    }

    /// A token that was issued for an ID-JAG with more claims.
    pub async fn token_with(
        &self,
        world: &World,
        person: &str,
        scopes: &str,
        more: &Value,
    ) -> String {
        let mut claims = world.id_jag_claims();
        claims["sub"] = format!("{person}-id").into();
        claims["resource"] = self.url.clone().into();
        claims["scope"] = scopes.into();
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = world.send(&world.redeem(&world.id_jag(&claims))).await;
        assert_eq!(token.status, 200, "{}", token.text);
        token.str("access_token").to_owned()
    }

    /// Posts a body with a token and additional headers.
    pub async fn post(
        &self,
        world: &World,
        token: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [
            &[
                ("authorization", bearer.as_str()),
                ("accept", "application/json, text/event-stream"),
            ],
            more,
        ]
        .concat();
        world.call(&self.url, &headers, body).await
    }

    /// Calls a tool in the era of sessions.
    pub async fn call(&self, world: &World, token: &str, tool: &str) -> Reply {
        self.post(world, token, &[], &call(tool)).await
    }

    /// The response of a tool that streams, as it arrives.
    pub async fn stream(&self, world: &World, token: &str, body: &Value) -> reqwest::Response {
        world
            .http
            .post(&self.url)
            .bearer_auth(token)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap()
    }
}

/// A `tools/call`.
pub fn call(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
}

impl World {
    /// Registers an MCP server at RAS and IdP, so that everybody may reach it through the main
    /// client.
    pub async fn govern(&self, url: &str) {
        let resource = self.register("Gated", url).await;
        let mut connection = self.connection(AGENT, AGENT_AT_RAS);
        connection.id = self.id();
        connection.resources = vec![resource];
        connection.subjects = vec![Subject::Everyone];
        self.put(&self.idp_store, &connection).await;
    }
}
