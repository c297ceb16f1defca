//! Client metadata documents, and every fetch of a URL that another party named.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode, Uri},
};
use passavant_outbound::{
    BoxedAddresses, ClientDocuments, KeySource, Names, Outbound, Reach, RemoteKeys,
    discover_authorization_server,
};
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    oauth::client_assertion,
    oauth::client_document::{self, DocumentUrl},
    time::{Clock, Timestamp},
};
use passavant_tests::{
    desk::installation_key,
    world::{Expected, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A host that answers every path as the test says, and counts requests.
#[derive(Clone, Default)]
struct Host {
    answer: Arc<Mutex<Option<Play>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
enum Play {
    Status(u16),
    Redirect(u16),
    Text(String, Vec<(&'static str, &'static str)>),
    Bytes(Vec<u8>, Vec<(&'static str, &'static str)>),
    Endless,
    Drip,
}

impl Host {
    async fn start() -> (Self, String) {
        let host = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(play).with_state(host.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (host, url)
    }

    fn plays(&self, play: Play) {
        *self.answer.lock().unwrap() = Some(play);
        self.asked.lock().unwrap().clear();
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn play(State(host): State<Host>, uri: Uri) -> Response<Body> {
    host.asked.lock().unwrap().push(uri.to_string());
    let play = host.answer.lock().unwrap().clone();
    let with = |headers: Vec<(&'static str, &'static str)>, body: Body| {
        let mut response = Response::new(body);
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    };
    match play {
        None => with(Vec::new(), Body::empty()),
        Some(Play::Status(status)) => {
            let mut response = with(Vec::new(), Body::from("{}"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
        Some(Play::Redirect(status)) => {
            let mut response = with(vec![("location", "/trap")], Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
        Some(Play::Text(text, headers)) => with(headers, Body::from(text)),
        Some(Play::Bytes(bytes, headers)) => with(headers, Body::from(bytes)),
        Some(Play::Endless) => {
            let chunks = std::iter::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 8192]));
            let chunks = futures::stream::iter(chunks);
            with(Vec::new(), Body::from_stream(chunks))
        }
        Some(Play::Drip) => {
            let drops = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Some((Ok::<_, std::io::Error>(vec![b' ']), ()))
            });
            with(Vec::new(), Body::from_stream(drops))
        }
    }
}

fn clock() -> Clock {
    Clock::new(|| Timestamp(1_800_000_000))
}

/// A clock that a test moves.
fn moving_clock() -> (Arc<AtomicI64>, Clock) {
    let now = Arc::new(AtomicI64::new(1_800_000_000));
    let read = Arc::clone(&now);
    (now, Clock::new(move || Timestamp(read.load(Ordering::Relaxed))))
}

/// Every kind of fetch of a URL that another party named, with a name for error messages. Returns
/// for each whether the response was accepted.
async fn fetches(url: &str) -> Vec<(&'static str, bool)> {
    let outbound = Outbound::new(&[]).unwrap();
    let issuer = Issuer::parse(url).unwrap();
    let world = World::new().await;
    let source = |owner: String, jwks_uri: Option<String>| KeySource {
        owner,
        jwks_uri,
        algorithm: Algorithm::ES256,
        reach: Reach::Loopback,
    };
    let keys = || RemoteKeys::new(outbound.clone(), clock());
    let document = DocumentUrl::parse(&format!("{url}/client.json")).unwrap();
    let documents = ClientDocuments::new(outbound.clone(), clock());
    let client = world.client();
    let mcp = format!("{url}/mcp");
    let issuers_keys = source(url.to_owned(), None);
    let clients_keys = source("client x".to_owned(), Some(format!("{url}/jwks")));
    let (k1, k2) = (keys(), keys());
    let (metadata, resource, k1, k2, read) = tokio::join!(
        discover_authorization_server(&outbound, &issuer),
        client.discover(&mcp),
        k1.keys(&issuers_keys, None),
        k2.keys(&clients_keys, None),
        documents.client(&document, Reach::Loopback, false),
    );
    vec![
        ("authorization-server metadata", metadata.is_ok()),
        ("protected-resource metadata", resource.is_ok()),
        ("keys of an issuer", k1.is_ok()),
        ("keys of a client", k2.is_ok()),
        ("client metadata document", read.is_ok()),
    ]
}

#[tokio::test]
async fn no_fetch_follows_believes_or_waits_for_a_hostile_host() {
    let bomb = {
        // Gzip of many spaces, which nothing here should decompress.
        let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend([0xed, 0xc1, 1, 1]);
        bytes
    };
    let cases = [
        ("301", Play::Redirect(301)),
        ("302", Play::Redirect(302)),
        ("307", Play::Redirect(307)),
        ("308", Play::Redirect(308)),
        ("204", Play::Status(204)),
        ("206", Play::Status(206)),
        ("404", Play::Status(404)),
        ("500", Play::Status(500)),
        ("gzip", Play::Bytes(bomb, vec![("content-encoding", "gzip")])),
        ("endless", Play::Endless),
        ("one byte at a time", Play::Drip),
        ("not JSON", Play::Text("<html>".to_owned(), vec![])),
    ];
    // In parallel, because the slow ones wait for their time limits.
    let runs = cases.map(|(case, play)| async move {
        let (host, url) = Host::start().await;
        host.plays(play);
        let started = Instant::now();
        for (fetch, believed) in fetches(&url).await {
            assert!(!believed, "{case}: {fetch}");
        }
        let asked = host.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|path| path != "/trap"), "{case}: a redirect was followed");
        assert!(!asked.is_empty(), "{case}: nothing was fetched, so nothing was tested");
        started.elapsed()
    });
    let longest = futures::future::join_all(runs).await.into_iter().max().unwrap();
    // The longest wait is for three metadata locations, at ten seconds each.
    assert!(longest < Duration::from_mins(1), "{longest:?}");
}

/// A resolver that answers as the test says.
struct Fixed(Vec<IpAddr>, AtomicUsize);

impl Names for Fixed {
    fn resolve(&self, _: String) -> BoxedAddresses {
        self.1.fetch_add(1, Ordering::Relaxed);
        let addresses = self.0.clone();
        Box::pin(async move { Ok(addresses) })
    }
}

#[tokio::test]
async fn a_name_leads_to_a_checked_address_or_nowhere() {
    for (case, addresses) in [
        ("loopback", &["127.0.0.1"][..]),
        ("loopback v6", &["::1"]),
        ("10/8", &["10.0.0.1"]),
        ("172.16/12", &["172.20.0.1"]),
        ("192.168/16", &["192.168.1.1"]),
        ("link local", &["169.254.169.254"]),
        ("100.64/10", &["100.64.0.1"]),
        ("0/8", &["0.0.0.0"]),
        ("192.0.0/24", &["192.0.0.8"]),
        ("198.18/15", &["198.18.0.1"]),
        ("multicast", &["224.0.0.1"]),
        ("240/4", &["240.0.0.1"]),
        ("fc00::/7", &["fd00::1"]),
        ("fe80::/10", &["fe80::1"]),
        ("ff00::/8", &["ff02::1"]),
        ("mapped", &["::ffff:127.0.0.1"]),
        ("compatible", &["::127.0.0.1"]),
        ("translated", &["::ffff:0:7f00:1"]),
        ("NAT64", &["64:ff9b::a9fe:a9fe"]),
        ("local NAT64", &["64:ff9b:1::1"]),
        ("6to4", &["2002:7f00:1::"]),
        ("Teredo", &["2001::1"]),
        ("public and private", &["1.1.1.1", "10.0.0.1"]),
        ("private and public", &["10.0.0.1", "1.1.1.1"]),
        ("no address", &[]),
    ] {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let names = Arc::new(Fixed(addresses, AtomicUsize::new(0)));
        let outbound = Outbound::with_names(&[], Arc::clone(&names) as Arc<dyn Names>).unwrap();
        let asked = outbound.get("https://host.example/", Reach::Public).await;
        assert!(asked.is_err(), "{case}");
        // Resolved once, by the connection itself: a second resolution, with a different result,
        // does not happen.
        assert_eq!(names.1.load(Ordering::Relaxed), 1, "{case}");
        let document = DocumentUrl::parse("https://host.example/client.json").unwrap();
        let documents = ClientDocuments::new(outbound, clock());
        assert!(documents.client(&document, Reach::Public, false).await.is_err(), "{case}");
    }
}

/// A client that the RAS knows by its document only.
struct Stranger {
    host: Host,
    url: String,
    key: passavant_proto::jose::jwk::SigningKey,
}

impl Stranger {
    async fn new() -> Self {
        let (host, origin) = Host::start().await;
        let key = installation_key();
        let url = format!("{origin}/client.json");
        let stranger = Self { host, url, key };
        stranger.publishes(&stranger.document());
        stranger
    }

    fn origin(&self) -> &str {
        self.url.strip_suffix("/client.json").unwrap()
    }

    fn document(&self) -> Value {
        client_document::of_installation(&self.url, self.key.public_jwk(), Algorithm::ES256)
    }

    fn publishes(&self, document: &Value) {
        self.host.plays(Play::Text(document.to_string(), vec![("cache-control", "max-age=60")]));
    }

    /// A redemption by this client, with an ID-JAG that names it.
    fn redeem(&self, world: &World, client_id: &str) -> passavant_tests::world::Ask {
        let mut claims = world.id_jag_claims();
        claims["client_id"] = json!(client_id);
        let (ras, jti) = (world.ras.as_str(), world.id());
        let assertion = client_assertion::sign(&self.key, client_id, ras, &jti, world.now());
        world
            .redeem(&world.id_jag(&claims))
            .no_header("authorization")
            .add("client_assertion_type", client_assertion::ASSERTION_TYPE)
            .add("client_assertion", &assertion)
    }
}

async fn allow(world: &World, origin: &str) {
    let body = Some(json!({"origin": origin}));
    let made = world.administer(Method::POST, "/ras/ras/client-hosts", body).await;
    assert_eq!(made.status, 200, "{}", made.text);
}

const REFUSED: Expected<'_> = Expected(401, "invalid_client", "client.document");

#[tokio::test]
async fn nothing_is_fetched_unless_the_administrator_listed_the_host() {
    let world = World::new().await;
    let stranger = Stranger::new().await;
    let ask = || stranger.redeem(&world, &stranger.url);
    world.refuses(&world.ras_store, "not listed", &ask(), REFUSED).await;
    assert_eq!(stranger.host.asked(), 0, "it was fetched");
    allow(&world, stranger.origin()).await;
    assert_eq!(world.send(&ask()).await.status, 200);
    // Disabled from the next request on, whatever is cached.
    let named = Some(json!({"id": stranger.origin()}));
    world.administer(Method::POST, "/ras/ras/client-hosts/disable", named.clone()).await;
    world.refuses(&world.ras_store, "switched off", &ask(), REFUSED).await;
    world.administer(Method::POST, "/ras/ras/client-hosts/enable", named).await;
    assert_eq!(world.send(&ask()).await.status, 200);
    for bad in ["http://app.example", "https://app.example/", "app.example", "https://*.example"] {
        let body = Some(json!({"origin": bad}));
        let made = world.administer(Method::POST, "/ras/ras/client-hosts", body).await;
        assert_eq!(made.status, 400, "{bad}");
    }
    // An issuer's installations are accepted only if an administrator enabled that.
    let desk = world.desk("erin").await;
    assert!(desk.client.access(&world.canvas).await.is_ok());
    let issuer = world.idp.to_string();
    let mut trusted: passavant_proto::xaa::trust::TrustedIssuer =
        world.ras_store.by_id(&issuer).await.unwrap().unwrap();
    trusted.client_documents = false;
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.ras_store.put(&trusted, passavant_store::Put::Replace, event).await.unwrap();
    let refused = desk.client.access(&world.boards).await.err().map(|e| e.to_string());
    assert!(refused.unwrap().contains("invalid_client"));
}

#[tokio::test]
async fn a_document_that_breaks_a_rule_is_no_client() {
    let world = World::new().await;
    let stranger = Stranger::new().await;
    allow(&world, stranger.origin()).await;
    assert_eq!(world.send(&stranger.redeem(&world, &stranger.url)).await.status, 200);
    let changed = |name: &str, value: Value| {
        let mut document = stranger.document();
        document[name] = value;
        document
    };
    let mut private = stranger.document();
    private["jwks"]["keys"][0]["d"] = json!("x");
    for (case, document) in [
        ("a slash more", changed("client_id", json!(format!("{}/", stranger.url)))),
        ("another", changed("client_id", json!("https://app.example/c"))),
        ("a secret", changed("client_secret", json!("s"))),
        (
            "a secret-based method",
            changed("token_endpoint_auth_method", json!("client_secret_post")),
        ),
        ("a private key", private),
        ("private_key_jwt to none", changed("token_endpoint_auth_method", json!("none"))),
    ] {
        // The minute for which the last document is cached has to pass.
        world.pass(61);
        stranger.publishes(&document);
        let reply = world.send(&stranger.redeem(&world, &stranger.url)).await;
        assert_eq!((reply.status, reply.str("error")), (401, "invalid_client"), "{case}");
        assert!(stranger.host.asked() > 0, "{case}: it was not fetched");
        // An error is reported, and not cached.
        stranger.publishes(&stranger.document());
        assert_eq!(world.send(&stranger.redeem(&world, &stranger.url)).await.status, 200, "{case}");
    }
    world.pass(61);
    let other_key = installation_key();
    stranger.publishes(&changed("jwks", json!({"keys": [other_key.public_jwk()]})));
    let reply = world.send(&stranger.redeem(&world, &stranger.url)).await;
    assert_eq!(reply.status, 401, "a key that is not in the document any more");
    world.pass(61);
    let origin = stranger.origin();
    stranger.publishes(&stranger.document());
    for (case, url) in [
        ("dot segments", format!("{origin}/a/../client.json")),
        ("encoded dots", format!("{origin}/%2e%2e/client.json")),
        ("a fragment", format!("{origin}/client.json#x")),
        ("a user", origin.replace("http://", "http://u@") + "/client.json"),
        ("no path", origin.to_owned()),
        ("a backslash", format!("{origin}/\\client.json")),
        ("upper case", format!("{}/client.json", origin.replace("http", "HTTP"))),
    ] {
        let before = stranger.host.asked();
        let reply = world.send(&stranger.redeem(&world, &url)).await;
        assert_eq!((reply.status, reply.str("error")), (401, "invalid_client"), "{case}");
        assert_eq!(stranger.host.asked(), before, "{case}: it was fetched");
    }
}

#[tokio::test]
async fn a_document_is_fetched_once_for_all_who_wait_and_hosts_have_a_budget() {
    let world = World::new().await;
    let stranger = Stranger::new().await;
    allow(&world, stranger.origin()).await;
    let asks: Vec<_> = (0..100).map(|_| stranger.redeem(&world, &stranger.url)).collect();
    let replies = futures::future::join_all(asks.iter().map(|ask| world.send(ask))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(stranger.host.asked(), 1, "one fetch for all");
    // A thousand made-up ids at an allowed host use up their budget, and the valid one still works.
    let outbound = Outbound::new(&[]).unwrap();
    let documents = ClientDocuments::new(outbound, clock());
    stranger.host.plays(Play::Status(404));
    let (mut busy, mut fetched) = (0, 0);
    for n in 0..1000 {
        let url = DocumentUrl::parse(&format!("{}/{n}.json", stranger.origin())).unwrap();
        match documents.client(&url, Reach::Loopback, false).await {
            Err(passavant_outbound::DocumentError::Busy) => busy += 1,
            Err(_) => fetched += 1,
            Ok(_) => panic!("a 404 is no client"),
        }
    }
    assert!(busy >= 400 && fetched <= 600, "{busy} refused, {fetched} fetched");
    assert_eq!(stranger.host.asked(), fetched);
}

#[tokio::test]
async fn a_registered_client_wins_over_a_document_of_the_same_name() {
    use passavant_proto::oauth::client::{Client, ClientAuthentication, SecretHash};
    let world = World::new().await;
    let stranger = Stranger::new().await;
    allow(&world, stranger.origin()).await;
    let hash = SecretHash { hash: world.secret.hash(), expires: None };
    let registered = Client {
        id: stranger.url.clone(),
        name: "by hand".to_owned(),
        authentication: ClientAuthentication::Secret(vec![hash]),
        ..Client::default()
    };
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.ras_store.put(&registered, passavant_store::Put::Create, event).await.unwrap();
    let ask = stranger.redeem(&world, &stranger.url);
    let expected = Expected(401, "invalid_client", "client.method");
    world.refuses(&world.ras_store, "the document's key", &ask, expected).await;
    assert_eq!(stranger.host.asked(), 0);
}

#[tokio::test]
async fn a_host_that_is_silent_is_believed_a_while_and_one_that_says_no_is_not() {
    let stranger = Stranger::new().await;
    let (now, clock) = moving_clock();
    let documents = ClientDocuments::new(Outbound::new(&[]).unwrap(), clock);
    let url = DocumentUrl::parse(&stranger.url).unwrap();
    let known = async || documents.client(&url, Reach::Loopback, false).await.is_ok();
    assert!(known().await);
    stranger.host.plays(Play::Status(503));
    now.fetch_add(61, Ordering::Relaxed);
    assert!(known().await, "its host is down for a moment");
    now.fetch_add(900, Ordering::Relaxed);
    assert!(!known().await, "not for longer than a quarter of an hour");
    stranger.publishes(&stranger.document());
    assert!(known().await);
    stranger.host.plays(Play::Status(404));
    now.fetch_add(61, Ordering::Relaxed);
    assert!(!known().await, "gone is gone");
}

#[tokio::test]
async fn made_up_documents_use_up_nothing_that_the_good_ones_need() {
    let stranger = Stranger::new().await;
    let (now, clock) = moving_clock();
    let documents = ClientDocuments::new(Outbound::new(&[]).unwrap(), clock);
    let url = DocumentUrl::parse(&stranger.url).unwrap();
    documents.client(&url, Reach::Loopback, false).await.unwrap();
    now.fetch_add(61, Ordering::Relaxed);
    stranger.host.plays(Play::Status(404));
    let mut busy = 0;
    for n in 0..700 {
        let url = DocumentUrl::parse(&format!("{}/{n}.json", stranger.origin())).unwrap();
        let outcome = documents.client(&url, Reach::Loopback, false).await;
        busy += usize::from(matches!(outcome, Err(passavant_outbound::DocumentError::Busy)));
    }
    assert!(busy >= 100, "the budget of made-up ones has ended: {busy}");
    stranger.publishes(&stranger.document());
    documents.client(&url, Reach::Loopback, false).await.unwrap();
    assert_eq!(stranger.host.asked(), 1, "it was fetched afresh");
    // They do not use up the concurrent fetches either: a host that is slow for made-up ids still
    // answers for the valid one.
    now.fetch_add(61, Ordering::Relaxed);
    stranger.host.plays(Play::Drip);
    let slow: Vec<_> = (0..40)
        .map(|n| {
            let url = format!("{}/slow-{n}.json", stranger.origin());
            let (documents, url) = (documents.clone(), DocumentUrl::parse(&url).unwrap());
            tokio::spawn(async move { documents.client(&url, Reach::Loopback, false).await.err() })
        })
        .collect();
    while stranger.host.asked() < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stranger.publishes(&stranger.document());
    documents.client(&url, Reach::Loopback, false).await.unwrap();
    let refused = futures::future::join_all(slow).await;
    let busy = |error: &Result<Option<passavant_outbound::DocumentError>, _>| {
        matches!(error, Ok(Some(passavant_outbound::DocumentError::Busy)))
    };
    assert_eq!(refused.iter().filter(|error| busy(error)).count(), 36, "four turns at one host");
}

#[tokio::test]
async fn an_assertion_that_could_not_be_the_clients_leads_to_no_fetch() {
    let world = World::new().await;
    let stranger = Stranger::new().await;
    allow(&world, stranger.origin()).await;
    let (ras, jti) = (world.ras.as_str(), world.id());
    let sign =
        |id: &str, aud: &str| client_assertion::sign(&stranger.key, id, aud, &jti, world.now());
    for (case, assertion) in [
        ("no JWT", "nonsense".to_owned()),
        ("another client's", sign("https://app.example/c", ras)),
        ("for another server", sign(&stranger.url, "https://as.example")),
    ] {
        let ask = stranger.redeem(&world, &stranger.url).set("client_assertion", &assertion);
        let reply = world.send(&ask).await;
        assert_eq!((reply.status, reply.str("error")), (401, "invalid_client"), "{case}");
        assert_eq!(stranger.host.asked(), 0, "{case}: it was fetched");
    }
    assert_eq!(world.send(&stranger.redeem(&world, &stranger.url)).await.status, 200);
}

#[tokio::test]
async fn who_is_known_by_a_document_alone_is_not_told_whom_this_server_trusts() {
    let world = World::new().await;
    let stranger = Stranger::new().await;
    allow(&world, stranger.origin()).await;
    let forger = passavant_tests::forge::Key::new();
    let own_kid = world.idp_key.kid();
    let mut answers = Vec::new();
    for (issuer, kid) in [
        (world.idp.as_str(), own_kid),
        (world.idp.as_str(), "made-up"),
        ("https://customer.example", "made-up"),
        ("http://127.0.0.1:1", "made-up"),
    ] {
        let mut claims = world.id_jag_claims();
        claims["client_id"] = json!(stranger.url);
        claims["iss"] = json!(issuer);
        let mut header = forger.header("oauth-id-jag+jwt");
        header["kid"] = json!(kid);
        let id_jag = forger.sign(&header.to_string(), claims.to_string().as_bytes());
        let reply =
            world.send(&stranger.redeem(&world, &stranger.url).set("assertion", &id_jag)).await;
        assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
        answers.push(reply.text);
        // The record says which error it was.
        let detail = world.last_event(&world.ras_store).await.details["detail"].clone();
        let untrusted = issuer != world.idp.as_str();
        assert_eq!(detail == "id_jag.issuer", untrusted, "{detail}");
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "{answers:#?}");
    // For a client that an administrator registered, the response says it, too.
    let mut claims = world.id_jag_claims();
    claims["iss"] = json!("https://customer.example");
    let id_jag =
        forger.sign(&forger.header("oauth-id-jag+jwt").to_string(), claims.to_string().as_bytes());
    assert_ne!(world.send(&world.redeem(&id_jag)).await.text, answers[0]);
    assert_eq!(
        world.send(&stranger.redeem(&world, &stranger.url)).await.status,
        200,
        "the baseline"
    );
}

#[tokio::test]
async fn a_host_that_is_switched_off_is_asked_for_nobody() {
    let world = World::with(Wishes { client_documents: true, ..Wishes::default() }).await;
    world.let_outsiders_in().await;
    let stranger = Stranger::new().await;
    let url = world.outsider_url(&[("client_id", &stranger.url)]);
    let comes = async || world.http.get(&url).send().await.unwrap().status();
    // Where people sign in, any client's document is fetched.
    comes().await;
    assert_eq!(stranger.host.asked(), 1);
    allow(&world, stranger.origin()).await;
    let named = Some(json!({"id": stranger.origin()}));
    world.administer(Method::POST, "/ras/ras/client-hosts/disable", named).await;
    world.pass(120);
    assert_eq!(comes().await, 400);
    assert_eq!(stranger.host.asked(), 1, "it was switched off");
}
