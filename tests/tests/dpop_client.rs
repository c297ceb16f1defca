//! DPoP in our client (RFC 9449): tokens that are bound to a key of its own, against our own parties
//! and against others.

use crate::client_library::sign_in;
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use passavant_client::{
    Access, Client, Error, MemoryVault, Registration, Session, SubjectTokenKind, Vault,
    bridge::Bridge,
};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::dpop,
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
};
use passavant_tests::{
    forge::{Key, Parts},
    world::{AGENT, Reply, World},
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// The main client with this key.
async fn with_key(world: &World, key: &Key) -> (Client, Arc<MemoryVault>) {
    let mut settings = world.client_settings();
    settings.dpop_key = Some(Arc::new(key.signing_key()));
    let vault = Arc::<MemoryVault>::default();
    let client = world.client_in(settings, Arc::clone(&vault));
    sign_in(world, &client, "erin").await;
    (client, vault)
}

async fn call(world: &World, url: &str, headers: &HeaderMap) -> Reply {
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    world.call(url, &headers, &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await
}

#[tokio::test]
async fn a_token_is_bound_from_end_to_end_and_of_no_use_to_whoever_steals_it() {
    let world = World::new().await;
    let (key, thiefs) = (Key::new(), Key::new());
    let (client, vault) = with_key(&world, &key).await;
    let server = client.discover(&world.canvas).await.unwrap();
    assert!(server.takes_dpop, "our resource layer announces it");
    let id_jag = client.id_jag(&server, None).await.unwrap();
    assert_eq!(id_jag.claims.value("cnf").unwrap()["jkt"], key.kid());
    let access = client.access(&world.canvas).await.unwrap();
    assert_eq!(access.dpop_jkt.as_deref(), Some(key.kid()));
    assert_eq!(Parts::of(&access.token).claims["cnf"]["jkt"], key.kid());
    // Each request has a proof of its own.
    let once = client.authorization("POST", &world.canvas, &access);
    for headers in [&once, &client.authorization("POST", &world.canvas, &access)] {
        assert_eq!(call(&world, &world.canvas, headers).await.status, 200);
    }
    assert_eq!(call(&world, &world.canvas, &once).await.status, 401, "the same proof again");
    // A thief has the token, and a key of their own.
    let mut stolen = HeaderMap::new();
    stolen.insert("authorization", format!("Bearer {}", access.token).parse().unwrap());
    assert_eq!(call(&world, &world.canvas, &stolen).await.status, 401);
    let (theirs, _) = with_key(&world, &thiefs).await;
    let proof = theirs.authorization("POST", &world.canvas, &access);
    assert_eq!(call(&world, &world.canvas, &proof).await.status, 401);
    // Another program of the same person without the key gets a token that it can use.
    let without = world.client_in(world.client_settings(), Arc::clone(&vault));
    let own = without.access(&world.canvas).await.unwrap();
    assert!(own.dpop_jkt.is_none() && own.token != access.token);
    let headers = without.authorization("POST", &world.canvas, &own);
    assert_eq!(call(&world, &world.canvas, &headers).await.status, 200);
    // An MCP server that requires bound tokens takes this client's.
    let resource = form_urlencoded::byte_serialize(world.canvas.as_bytes()).collect::<String>();
    let required = Some(json!({"require_dpop": true}));
    let path = format!("/ras/ras/resources/{resource}");
    let done = world.administer(reqwest::Method::PATCH, &path, required).await;
    assert_eq!(done.status, 200, "{}", done.text);
    world.pass(300);
    assert!(client.access(&world.canvas).await.unwrap().dpop_jkt.is_some());
    assert!(without.access_token(&server).await.is_err());
}

#[tokio::test]
async fn the_bridge_signs_each_request_anew() {
    let world = World::new().await;
    let url = world.serve("bound", Router::new().route("/bound", post(answer))).await;
    let desk = world.desk("erin").await;
    let mut settings = desk.client.settings().clone();
    settings.dpop_key = Some(Arc::new(Key::new().signing_key()));
    let client = world.client_in(settings, Arc::clone(&desk.vault));
    for (id, line) in bridged(client, &url, 3).await.into_iter().enumerate() {
        assert_eq!(line["result"]["id"], id, "{line}");
    }
    let kept = desk.vault.load_access(&url).await.unwrap().unwrap();
    assert!(kept.dpop_jkt.is_some());
}

async fn answer(body: Bytes) -> Json<Value> {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    Json(json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"id": asked["id"]}}))
}

/// The answers to that many requests through a bridge.
async fn bridged(client: Client, url: &str, count: usize) -> Vec<Value> {
    let (mut input, read) = tokio::io::duplex(1 << 20);
    let (write, output) = tokio::io::duplex(1 << 20);
    let url = url.to_owned();
    tokio::spawn(async move {
        Bridge::run(client, &url, read, write, std::future::pending()).await.unwrap();
    });
    let mut lines = BufReader::new(output).lines();
    let mut answers = Vec::new();
    for id in 0..count {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": "ping",
            "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}});
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
        answers.push(serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap());
    }
    answers
}

/// What another maker's authorization server and MCP server announce and want.
#[derive(Clone, Default)]
struct Wants {
    server_announces: bool,
    resource_announces: bool,
    /// Both want this nonce in proofs.
    nonce: Option<&'static str>,
    /// The nonce that successful answers give: it is wanted from then on.
    next_nonce: Option<&'static str>,
    token_type: Option<&'static str>,
    /// Another nonce is wanted than was given, each time.
    is_restless: bool,
}

#[derive(Clone)]
struct Vendor {
    url: String,
    wants: Arc<Mutex<Wants>>,
    /// Requests at the token endpoint and at the MCP server, and whether they had a proof.
    seen: Arc<Mutex<Vec<(&'static str, bool)>>>,
    jtis: Arc<Mutex<HashSet<String>>>,
    now: passavant_proto::time::Clock,
}

impl Vendor {
    async fn start(world: &World, wants: Wants) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let vendor = Self {
            url: url.clone(),
            wants: Arc::new(Mutex::new(wants)),
            seen: Arc::default(),
            jtis: Arc::default(),
            now: world.clock(),
        };
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(describe_server))
            .route("/.well-known/oauth-protected-resource/mcp", get(describe_resource))
            .route("/token", post(token))
            .route("/mcp", post(serve))
            .with_state(vendor.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let issuer = Issuer::parse(&url).unwrap();
        let server = ResourceAuthorizationServer {
            issuer: issuer.clone(),
            name: String::new(),
            aliases: Vec::new(),
            aud_tenant: None,
            aud_sub: None,
            sub_id: None,
            id_jag_signing_alg: None,
            release: std::collections::BTreeSet::new(),
            algorithm: passavant_proto::jose::jwk::Algorithm::default(),
            disabled: false,
        };
        world.put(&world.idp_store, &server).await;
        let resource = Resource::parse(&format!("{url}/mcp")).unwrap();
        let registered = RegisteredResource {
            resource: resource.clone(),
            authorization_server: issuer.clone(),
            name: String::new(),
            scopes: ["read", "write"].into_iter().collect(),
            disabled: false,
        };
        world.put(&world.idp_store, &registered).await;
        let connection = Connection {
            id: "agent-vendor".to_owned(),
            audience: issuer,
            resources: vec![resource],
            subjects: vec![Subject::Everyone],
            ..world.connection(AGENT, "agent")
        };
        world.put(&world.idp_store, &connection).await;
        vendor
    }

    fn mcp(&self) -> String {
        format!("{}/mcp", self.url)
    }

    async fn client(&self, world: &World, key: &Key) -> Client {
        let mut settings = world.client_settings();
        settings.dpop_key = Some(Arc::new(key.signing_key()));
        let at = Registration::with_secret("agent", world.secret.clone());
        settings.ras_clients.insert(self.url.clone(), at);
        let client = world.client_with(settings);
        sign_in(world, &client, "erin").await;
        client
    }

    fn seen(&self) -> Vec<(&'static str, bool)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Checks a proof as RFC 9449 section 4.3 asks; the answer if its nonce is not the wanted one.
    fn check(
        &self,
        at: &'static str,
        headers: &HeaderMap,
        token: Option<&str>,
    ) -> Option<Response> {
        let proof = headers.get("dpop").map(|proof| proof.to_str().unwrap());
        self.seen.lock().unwrap().push((at, proof.is_some()));
        let proof = proof?;
        let place = format!("{}/{at}", self.url);
        let request = dpop::Request { method: "POST", url: &place, access_token: token };
        let verified = dpop::verify(proof, request, self.now.now()).unwrap();
        assert!(self.jtis.lock().unwrap().insert(verified.jti), "a proof was sent twice");
        let claims = Parts::of(proof).claims;
        assert_eq!(claims["htu"], place, "without query and fragment");
        let mut wants = self.wants.lock().unwrap();
        if wants.is_restless {
            let next = if wants.nonce == Some("one") { "another" } else { "one" };
            wants.nonce = Some(next);
        }
        let wanted = wants.nonce?;
        (claims["nonce"] != wanted).then(|| {
            let challenge = r#"DPoP error="use_dpop_nonce", error_description="nonce""#;
            let status = if token.is_some() { 401 } else { 400 };
            let headers = [("dpop-nonce", wanted), ("www-authenticate", challenge)];
            let body = Json(json!({"error": "use_dpop_nonce"}));
            (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
        })
    }

    fn answer(&self, body: Value) -> Response {
        let mut wants = self.wants.lock().unwrap();
        let mut response = Json(body).into_response();
        if let Some(next) = wants.next_nonce.take() {
            wants.nonce = Some(next);
            response.headers_mut().insert("dpop-nonce", next.parse().unwrap());
        }
        response
    }
}

async fn describe_server(State(vendor): State<Vendor>) -> Json<Value> {
    let url = &vendor.url;
    let mut metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token"),
        "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"]});
    if vendor.wants.lock().unwrap().server_announces {
        metadata["dpop_signing_alg_values_supported"] = json!(["RS256", "ES256"]);
    }
    Json(metadata)
}

async fn describe_resource(State(vendor): State<Vendor>) -> Json<Value> {
    let url = &vendor.url;
    let mut metadata = json!({"resource": vendor.mcp(), "authorization_servers": [url]});
    if vendor.wants.lock().unwrap().resource_announces {
        metadata["dpop_signing_alg_values_supported"] = json!(["ES256"]);
    }
    Json(metadata)
}

async fn token(State(vendor): State<Vendor>, headers: HeaderMap, body: String) -> Response {
    if let Some(refused) = vendor.check("token", &headers, None) {
        return refused;
    }
    let proved = headers.contains_key("dpop");
    // An ID-JAG is bound if, and only if, a proof comes with it.
    let assertion = form_urlencoded::parse(body.as_bytes())
        .find(|(name, _)| name == "assertion")
        .map(|(_, value)| value.into_owned());
    assert_eq!(Parts::of(&assertion.unwrap()).claims.get("cnf").is_some(), proved);
    let kind = if proved { "DPoP" } else { "Bearer" };
    let kind = vendor.wants.lock().unwrap().token_type.unwrap_or(kind);
    vendor.answer(json!({"access_token": "opaque", "token_type": kind, "expires_in": 300}))
}

async fn serve(State(vendor): State<Vendor>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(presented) = headers.get("authorization") else {
        let challenge = [("www-authenticate", "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    let (scheme, token) = presented.to_str().unwrap().split_once(' ').unwrap();
    assert_eq!(scheme == "DPoP", headers.contains_key("dpop"), "{scheme}");
    if let Some(refused) = vendor.check("mcp", &headers, Some(token)) {
        return refused;
    }
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let Some(id) = asked.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let result = match asked["method"].as_str().unwrap() {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "vendor", "version": "1"}}),
        _ => json!({"tools": []}),
    };
    vendor.answer(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

#[tokio::test]
async fn servers_that_do_not_announce_it_get_no_proof() {
    let world = World::new().await;
    for (server_announces, resource_announces) in [(false, false), (true, false), (false, true)] {
        let wants = Wants { server_announces, resource_announces, ..Wants::default() };
        let world =
            if server_announces || resource_announces { &World::new().await } else { &world };
        let vendor = Vendor::start(world, wants).await;
        let client = vendor.client(world, &Key::new()).await;
        let answers = bridged(client, &vendor.mcp(), 1).await;
        assert!(answers[0].get("result").is_some(), "{}", answers[0]);
        assert_eq!(vendor.seen(), [("token", false), ("mcp", false)]);
    }
}

#[tokio::test]
async fn nonces_are_sent_back_and_a_new_one_is_taken_from_any_answer() {
    let world = World::new().await;
    let wants = Wants {
        server_announces: true,
        resource_announces: true,
        nonce: Some("first"),
        ..Wants::default()
    };
    let vendor = Vendor::start(&world, wants).await;
    let client = vendor.client(&world, &Key::new()).await;
    // The AS and the resource are one origin here: the nonce that one gave is good at the other.
    let answers = bridged(client.clone(), &vendor.mcp(), 1).await;
    assert!(answers[0].get("result").is_some(), "{}", answers[0]);
    assert_eq!(vendor.seen(), [("token", true), ("token", true), ("mcp", true)], "one retry");
    // The nonce has changed: once more, and no new token.
    vendor.wants.lock().unwrap().nonce = Some("second");
    let answers = bridged(client.clone(), &vendor.mcp(), 1).await;
    assert!(answers[0].get("result").is_some(), "{}", answers[0]);
    assert_eq!(vendor.seen(), [("mcp", true), ("mcp", true)]);
    // A successful answer gives the next one: no retry.
    vendor.wants.lock().unwrap().next_nonce = Some("third");
    let answers = bridged(client.clone(), &vendor.mcp(), 2).await;
    assert!(answers.iter().all(|line| line.get("result").is_some()), "{answers:?}");
    assert_eq!(vendor.seen(), [("mcp", true), ("mcp", true)]);
    // The transport of the SDK.
    vendor.wants.lock().unwrap().nonce = Some("fourth");
    let transport = client.transport_to(&vendor.mcp()).unwrap();
    let service =
        ().serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await.unwrap();
    service.list_all_tools().await.unwrap();
    service.cancel().await.unwrap();
    assert!(vendor.seen().iter().all(|(at, proved)| *at == "mcp" && *proved));
}

#[tokio::test]
async fn a_server_that_never_has_enough_of_nonces_is_asked_once_more_only() {
    let world = World::new().await;
    let wants = Wants { server_announces: true, resource_announces: true, ..Wants::default() };
    let vendor = Vendor::start(&world, wants).await;
    let client = vendor.client(&world, &Key::new()).await;
    let server = client.discover(&vendor.mcp()).await.unwrap();
    let id_jag = client.id_jag(&server, None).await.unwrap();
    vendor.wants.lock().unwrap().is_restless = true;
    let refused = client.redeem(&server, &id_jag, None).await;
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("use_dpop_nonce"), "{text}");
    assert_eq!(vendor.seen(), [("token", true), ("token", true)]);
}

#[tokio::test]
async fn a_bearer_token_in_answer_to_a_proof_is_a_downgrade() {
    let world = World::new().await;
    let wants = Wants {
        server_announces: true,
        resource_announces: true,
        token_type: Some("Bearer"),
        ..Wants::default()
    };
    let vendor = Vendor::start(&world, wants).await;
    let client = vendor.client(&world, &Key::new()).await;
    let refused = client.access(&vendor.mcp()).await;
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("token_type is `Bearer`, not DPoP"), "{text}");
    // Nor is a bound token taken that nobody asked for.
    vendor.wants.lock().unwrap().token_type = Some("DPoP");
    vendor.wants.lock().unwrap().server_announces = false;
    client.discover(&vendor.mcp()).await.unwrap();
    let text = client.access(&vendor.mcp()).await.err().unwrap().to_string();
    assert!(text.contains("token_type is `DPoP`, not Bearer"), "{text}");
}

/// An IdP that announces DPoP, whose ID-JAGs have what the test says.
#[tokio::test]
async fn an_id_jag_that_is_not_bound_to_the_key_is_refused() {
    let world = World::new().await;
    let (key, others, signs) = (Key::new(), Key::new(), Key::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token"),
        "dpop_signing_alg_values_supported": ["ES256"]});
    let answer = Arc::new(Mutex::new(Value::Null));
    let proofs = Arc::new(Mutex::new(Vec::new()));
    let (given, taken) = (Arc::clone(&answer), Arc::clone(&proofs));
    let router = Router::new()
        .route(
            "/.well-known/oauth-authorization-server",
            get(move || async move { Json(metadata) }),
        )
        .route(
            "/token",
            post(move |headers: HeaderMap| async move {
                taken.lock().unwrap().push(headers.contains_key("dpop"));
                Json(given.lock().unwrap().clone())
            }),
        );
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut settings = world.client_settings();
    settings.idp = Issuer::parse(&url).unwrap();
    settings.dpop_key = Some(Arc::new(key.signing_key()));
    let session = Session {
        issuer: url.clone(),
        idp_client_id: AGENT.to_owned(),
        name: "erin".to_owned(),
        id_token: "a.b.c".to_owned(),
        id_token_expires: i64::MAX,
        refresh_token: None,
        renewed_at: 0,
        access_token: None,
        access_token_expires: 0,
        ended: None,
    };
    let vault = Arc::new(MemoryVault::with(session));
    let client = world.client_in(settings, vault);
    let server = client.discover(&world.canvas).await.unwrap();
    for (cnf, works) in [
        (json!({"jkt": key.kid()}), true),
        (Value::Null, false),
        (json!({"jkt": others.kid()}), false),
        (json!({"kid": key.kid()}), false),
    ] {
        let mut claims = world.id_jag_claims();
        if !cnf.is_null() {
            claims["cnf"] = cnf.clone();
        }
        let header = signs.header("oauth-id-jag+jwt").to_string();
        let id_jag = signs.sign(&header, claims.to_string().as_bytes());
        *answer.lock().unwrap() = json!({"access_token": id_jag, "token_type": "N_A",
            "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag", "expires_in": 120});
        let subject = (SubjectTokenKind::IdToken, "a.b.c");
        let exchanged = client.exchange(&server, None, subject).await;
        assert_eq!(exchanged.is_ok(), works, "{cnf}");
        if let Err(error) = exchanged {
            assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
            assert!(error.to_string().contains("cnf.jkt"), "{error}");
        }
    }
    assert!(proofs.lock().unwrap().iter().all(|proved| *proved));
}

#[tokio::test]
async fn a_token_that_is_bound_to_another_key_is_not_taken_from_the_vault() {
    let world = World::new().await;
    let key = Key::new();
    let (client, vault) = with_key(&world, &key).await;
    let access = client.access(&world.canvas).await.unwrap();
    let foreign = Access { dpop_jkt: Some(Key::new().kid().to_owned()), ..access.clone() };
    vault.store_access(&world.canvas, Some(&foreign)).await.unwrap();
    let mut settings = world.client_settings();
    settings.dpop_key = Some(Arc::new(key.signing_key()));
    let again = world.client_in(settings, Arc::clone(&vault));
    let fresh = again.access(&world.canvas).await.unwrap();
    assert_ne!(fresh.token, access.token);
    assert_eq!(fresh.dpop_jkt.as_deref(), Some(key.kid()));
}
