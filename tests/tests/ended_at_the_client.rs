//! What a person and their agents are told when access ends, and what is left of it on their
//! computer.

use crate::client_library::sign_in;
use axum::{
    Json, Router,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use passavant_client::{
    AccessEnded, Browser, Client, EndedAccess, Error, MemoryVault, Purpose, SignedOut, Vault,
    bridge::Bridge,
};
use passavant_proto::{
    identifier::{Issuer, Resource},
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
};
use passavant_store::{AuditFilter, AuditRow, Store};
use passavant_tests::{
    forge::Parts,
    world::{AGENT, CALLBACK, PASSWORD, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};

fn ended<T>(outcome: Result<T, Error>) -> AccessEnded {
    match outcome {
        Err(Error::AccessEnded(ended)) => *ended,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("there is access"),
    }
}

async fn rows(store: &Store, event: &str) -> Vec<AuditRow> {
    let event = Some(event.to_owned());
    store.audit(&AuditFilter { event, limit: 100, ..AuditFilter::default() }).await.unwrap()
}

async fn is_active(world: &World, token: &str) -> bool {
    let reply = world.send(&world.ask(&world.ras, "/introspect", &[("token", token)])).await;
    reply.json["active"].as_bool().unwrap()
}

fn sid(id_token: &str) -> String {
    Parts::of(id_token).claims["sid"].as_str().unwrap().to_owned()
}

async fn end_session(world: &World, sid: &str) {
    let done = world.administer(Method::DELETE, &format!("/idp/sessions/{sid}"), None).await;
    assert!((200..300).contains(&done.status), "{}", done.text);
}

/// A person who would sign in wherever they are asked to, and who is not to be asked.
#[derive(Default)]
struct Asked(Mutex<Vec<Purpose>>);

impl Browser for Asked {
    fn open(&self, _: &str, purpose: Purpose) -> bool {
        self.0.lock().unwrap().push(purpose);
        false
    }
}

/// A bridge, with its two ends.
struct Wire {
    input: DuplexStream,
    lines: Lines<BufReader<DuplexStream>>,
}

impl Wire {
    fn of(client: Client, url: &str) -> Self {
        let (input, read) = tokio::io::duplex(1 << 20);
        let (write, output) = tokio::io::duplex(1 << 20);
        let url = url.to_owned();
        tokio::spawn(async move {
            Bridge::run(client, &url, read, write, std::future::pending()).await.unwrap();
        });
        Self { input, lines: BufReader::new(output).lines() }
    }

    async fn ask(&mut self, id: u32) -> Value {
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
        );
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line()).await;
        let line: Value = serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap();
        assert_eq!(line["id"], id);
        line
    }
}

/// An MCP server that answers with these statuses, and afterwards with results.
#[derive(Clone, Default)]
struct Server {
    statuses: Arc<Mutex<VecDeque<u16>>>,
    asked: Arc<Mutex<usize>>,
}

impl Server {
    fn router(&self, name: &str) -> Router {
        let server = self.clone();
        let answer = move |body: String| {
            let server = server.clone();
            async move {
                *server.asked.lock().unwrap() += 1;
                match server.statuses.lock().unwrap().pop_front() {
                    Some(401) => {
                        let challenge = r#"Bearer error="invalid_token""#;
                        (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)])
                            .into_response()
                    }
                    Some(other) => StatusCode::from_u16(other).unwrap().into_response(),
                    None => {
                        let asked: Value = serde_json::from_str(&body).unwrap();
                        let result = json!({"tools": []});
                        let id = &asked["id"];
                        Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
                    }
                }
            }
        };
        Router::new().route(&format!("/{name}"), post(answer))
    }

    fn refuses_next(&self) {
        self.statuses.lock().unwrap().push_back(401);
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

#[tokio::test]
async fn a_person_reads_who_ended_their_access_and_when_and_nothing_of_it_is_kept() {
    let world = World::new().await;
    let vault = Arc::<MemoryVault>::default();
    let client = world.client_in(world.client_settings(), Arc::clone(&vault));
    sign_in(&world, &client, "erin").await;
    // Another program of hers, which keeps its token in memory.
    let other = world.client_in(world.client_settings(), Arc::clone(&vault));
    let canvas = client.access(&world.canvas).await.unwrap();
    other.access(&world.boards).await.unwrap();
    let server = other.discover(&world.boards).await.unwrap();
    other.access_token(&server).await.unwrap();
    let session = vault.load().await.unwrap().unwrap();
    world.pass(240);
    end_session(&world, &sid(&session.id_token)).await;
    // The MCP server refuses the token, and the IdP says why there is no other.
    let told = ended(client.replace_access(&canvas).await);
    assert_eq!((&told.what, told.by.as_str()), (&EndedAccess::SignIn, "Acme"));
    assert_eq!(told.at, world.now());
    assert_eq!(told.sentence(), "Access was ended by Acme at 08:04 UTC.");
    assert!(told.to_string().contains("\nhint: run `passavant login`"), "{told}");
    // Nothing is kept: neither what the sign-in consists of nor any token that came from it.
    let left = vault.load().await.unwrap().unwrap();
    assert!(left.id_token.is_empty() && left.refresh_token.is_none());
    assert!(left.access_token.is_none());
    assert!(vault.accesses().await.unwrap().is_empty());
    let asked = rows(&world.idp_store, "token_exchange").await.len();
    for url in [&world.canvas, &world.boards] {
        for program in [&client, &other] {
            world.pass(60);
            let again = ended(program.access(url).await);
            assert_eq!((&again.what, again.at), (&told.what, told.at), "the same as before");
        }
    }
    assert_eq!(ended(other.access_token(&server).await).at, told.at, "not even from memory");
    let told_later = client.ended().await.unwrap().unwrap();
    assert_eq!(told_later.at, told.at, "what `passavant status` says");
    assert!(matches!(client.catalog().await, Err(Error::AccessEnded(_))));
    let after = rows(&world.idp_store, "token_exchange").await.len();
    assert_eq!(asked, after, "the IdP is not asked again and again");
    // A new sign-in is one like any other.
    world.pass(86_400);
    let later = client.ended().await.unwrap().unwrap();
    assert_eq!(later.sentence(), "Access was ended by Acme at 2027-01-15 08:04 UTC.");
    sign_in(&world, &client, "erin").await;
    assert!(client.ended().await.unwrap().is_none());
    other.access(&world.boards).await.unwrap();
}

#[tokio::test]
async fn the_catalog_tells_as_well_that_a_sign_in_is_over() {
    let world = World::new().await;
    let vault = Arc::<MemoryVault>::default();
    let client = world.client_in(world.client_settings(), Arc::clone(&vault));
    sign_in(&world, &client, "erin").await;
    client.access(&world.canvas).await.unwrap();
    end_session(&world, &sid(&vault.load().await.unwrap().unwrap().id_token)).await;
    assert_eq!(ended(client.catalog().await).what, EndedAccess::SignIn);
    assert!(vault.accesses().await.unwrap().is_empty());
    ended(client.access(&world.canvas).await);
}

#[tokio::test]
async fn a_sign_in_that_nobody_used_for_long_has_expired_and_nobody_is_named() {
    let world = World::new().await;
    let vault = Arc::<MemoryVault>::default();
    let client = world.client_in(world.client_settings(), Arc::clone(&vault));
    sign_in(&world, &client, "erin").await;
    client.access(&world.canvas).await.unwrap();
    world.pass(8 * 3600 + 1);
    let expired = client.access(&world.canvas).await;
    assert!(matches!(expired, Err(Error::SignInNeeded { .. })), "{:?}", expired.err());
    assert!(client.ended().await.unwrap().is_none());
    assert!(vault.accesses().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_agent_reads_that_access_has_ended_and_another_bridge_uses_no_token_of_it() {
    let world = World::new().await;
    let (notes, files) = (Server::default(), Server::default());
    let urls = [
        world.serve("notes-here", notes.router("notes-here")).await,
        world.serve("files-here", files.router("files-here")).await,
    ];
    let desk = world.desk("erin").await;
    let person = Arc::<Asked>::default();
    let settings = desk.client.settings().clone();
    let wires = urls.iter().map(|url| {
        // Each bridge is a process of its own.
        let client = world.client_in(settings.clone(), Arc::clone(&desk.vault));
        Wire::of(client.with_browser(Arc::<Asked>::clone(&person)), url)
    });
    let mut wires: Vec<Wire> = wires.collect();
    for wire in &mut wires {
        assert!(wire.ask(1).await.get("result").is_some());
    }
    let (before, revoked) = (files.asked(), notes.asked());
    end_session(&world, &sid(&desk.vault.load().await.unwrap().unwrap().id_token)).await;
    notes.refuses_next();
    for (wire, id) in wires.iter_mut().zip([2, 3]) {
        let line = wire.ask(id).await;
        let text = line["error"]["message"].as_str().unwrap();
        assert!(text.starts_with("Access was ended by Acme at 08:00 UTC. "), "{text}");
        assert!(text.contains("passavant login"), "{text}");
        assert_eq!(line["error"]["data"]["kind"], "access_ended");
    }
    assert_eq!(files.asked(), before, "its token was good for the MCP server still");
    assert_eq!(notes.asked(), revoked + 1);
    assert!(person.0.lock().unwrap().is_empty(), "no page opens by itself");
}

#[tokio::test]
async fn a_token_that_policy_ended_is_said_to_be_ended_and_no_other_way_is_tried() {
    let world = World::new().await;
    let server = Server::default();
    let url = world.serve("ends", server.router("ends")).await;
    let desk = world.desk("erin").await;
    let person = Arc::<Asked>::default();
    let client = desk.client.clone().with_browser(Arc::<Asked>::clone(&person));
    let mut wire = Wire::of(client, &url);
    assert!(wire.ask(1).await.get("result").is_some());
    let body = Some(json!({"groups": ["marketing"]}));
    let path = "/idp/connections/ends-for-installations";
    let done = world.administer(Method::PATCH, path, body).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let before = rows(&world.idp_store, "token_exchange").await.len();
    let honoured = rows(&world.ras_store, "jwt_bearer").await.len();
    server.refuses_next();
    world.pass(60);
    let line = wire.ask(2).await;
    assert_eq!(
        line["error"]["message"],
        format!(
            "Access to {url} was ended by Acme at 08:01 UTC: Access to ends was refused by Acme's \
             policy: group marketing required. Ask IT."
        )
    );
    assert_eq!(line["error"]["data"]["kind"], "access_ended");
    assert_eq!(rows(&world.idp_store, "token_exchange").await.len(), before + 1, "asked once");
    assert_eq!(rows(&world.ras_store, "jwt_bearer").await.len(), honoured);
    assert!(person.0.lock().unwrap().is_empty(), "neither a consent nor a sign-in");
    assert!(desk.vault.load_access(&url).await.unwrap().is_none());
    assert!(desk.client.session().await.unwrap().is_some(), "the sign-in itself stands");
}

#[tokio::test]
async fn an_installation_that_was_revoked_is_told_so_and_keeps_nothing() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    desk.client.access(&world.canvas).await.unwrap();
    world.administer(Method::POST, "/idp/users/erin/disable", None).await;
    let told = ended(desk.client.access(&world.boards).await);
    assert_eq!((&told.what, told.by.as_str()), (&EndedAccess::Enrolment, "Acme"));
    assert!(desk.vault.accesses().await.unwrap().is_empty());
    assert_eq!(ended(desk.client.access(&world.canvas).await).at, told.at);
}

/// An authorization server of another maker, whose answers at the token endpoint are the test's.
struct Vendor {
    mcp: String,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    presented: Arc<Mutex<Vec<String>>>,
}

impl Vendor {
    async fn start(world: &World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mcp = format!("{url}/mcp");
        let answers = Arc::<Mutex<VecDeque<(u16, Value)>>>::default();
        let presented = Arc::<Mutex<Vec<String>>>::default();
        let metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token"),
            "authorization_endpoint": format!("{url}/authorize"),
            "code_challenge_methods_supported": ["S256"],
            "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"]});
        let resource = json!({"resource": mcp, "authorization_servers": [url]});
        let (taken, given) = (Arc::clone(&presented), Arc::clone(&answers));
        let router = Router::new()
            .route(
                "/.well-known/oauth-authorization-server",
                get(move || async move { Json(metadata) }),
            )
            .route(
                "/.well-known/oauth-protected-resource/mcp",
                get(move || async move { Json(resource) }),
            )
            .route(
                "/token",
                post(move |body: String| async move {
                    taken.lock().unwrap().push(body);
                    let (status, body) = given.lock().unwrap().pop_front().unwrap();
                    (StatusCode::from_u16(status).unwrap(), Json(body))
                }),
            );
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
        let registered = RegisteredResource {
            resource: Resource::parse(&mcp).unwrap(),
            authorization_server: issuer.clone(),
            name: String::new(),
            scopes: ["read", "write"].into_iter().collect(),
            disabled: false,
        };
        world.put(&world.idp_store, &registered).await;
        let connection = Connection {
            id: "agent-vendor".to_owned(),
            audience: issuer,
            resources: vec![Resource::parse(&mcp).unwrap()],
            subjects: vec![Subject::Everyone],
            ..world.connection(AGENT, "agent")
        };
        world.put(&world.idp_store, &connection).await;
        Self { mcp, answers, presented }
    }

    async fn client(&self, world: &World) -> (Client, Arc<Asked>) {
        let mut settings = world.client_settings();
        let at = passavant_client::Registration::with_secret("agent", world.secret.clone());
        let issuer = self.mcp.trim_end_matches("/mcp").to_owned();
        settings.ras_clients.insert(issuer, at);
        let person = Arc::<Asked>::default();
        let client = world.client_with(settings);
        sign_in(world, &client, "erin").await;
        (client.with_browser(Arc::<Asked>::clone(&person)), person)
    }

    fn answers(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, error)| (*status, json!({"error": error})));
        self.answers.lock().unwrap().extend(answers);
    }

    fn presented(&self) -> usize {
        std::mem::take(&mut *self.presented.lock().unwrap()).len()
    }
}

#[tokio::test]
async fn access_denied_is_final_on_both_legs() {
    let world = World::new().await;
    let vendor = Vendor::start(&world).await;
    let (client, person) = vendor.client(&world).await;
    let issued = async || rows(&world.idp_store, "token_exchange").await.len();
    // At the redemption: the ID-JAG was good, and another one will not help.
    let before = issued().await;
    vendor.answers(&[(400, "access_denied")]);
    let refused = client.access(&vendor.mcp).await;
    assert!(matches!(refused, Err(Error::RefusedByPolicy { .. })), "{:?}", refused.err());
    assert_eq!((vendor.presented(), issued().await), (1, before + 1));
    // A server may dislike the parameter `resource`; its second word is final as well.
    let before = issued().await;
    vendor.answers(&[(400, "invalid_grant"), (400, "access_denied")]);
    let refused = client.access(&vendor.mcp).await;
    assert!(matches!(refused, Err(Error::RefusedByPolicy { .. })), "{:?}", refused.err());
    assert_eq!((vendor.presented(), issued().await), (2, before + 2));
    // At the exchange: nothing reaches the vendor.
    let before = issued().await;
    world
        .idp_admin()
        .switch::<passavant_admin::types::Connections>("agent-vendor", false)
        .await
        .unwrap();
    let refused = client.access(&vendor.mcp).await;
    assert!(matches!(refused, Err(Error::RefusedByPolicy { .. })), "{:?}", refused.err());
    assert_eq!((vendor.presented(), issued().await), (0, before + 1));
    assert!(person.0.lock().unwrap().is_empty(), "neither a consent nor a sign-in");
    assert!(client.session().await.unwrap().is_some(), "the sign-in has not ended");
}

#[tokio::test]
async fn whoever_signs_out_takes_along_what_came_from_the_sign_in_and_no_other_clients() {
    let world = World::new().await;
    let vault = Arc::<MemoryVault>::default();
    let client = world.client_in(world.client_settings(), Arc::clone(&vault));
    // One session in the browser, for two clients.
    let pending = client.begin_sign_in(&passavant_client::SignInOptions::default()).await.unwrap();
    let url = pending.url().to_owned();
    let browser = async {
        let (location, cookies) = world.browse(&url, "erin", PASSWORD).await;
        world.http.get(location).send().await.unwrap();
        cookies
    };
    let (session, cookies) = tokio::join!(pending.finish(), browser);
    let session = session.unwrap();
    let (url, verifier) = world.authorize_url("agent-jwt", "");
    let back = world.http.get(&url).header("cookie", &cookies).send().await.unwrap();
    assert_eq!(back.status(), 303, "the browser is signed in");
    let back = url::Url::parse(back.headers()["location"].to_str().unwrap()).unwrap();
    let code = back.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let assertion = |claims: &Value| {
        world
            .client_key
            .sign(&world.client_key.header("JWT").to_string(), claims.to_string().as_bytes())
    };
    let redeem = world
        .ask(
            &world.idp,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", &verifier),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", &assertion(&world.assertion_claims())),
            ],
        )
        .no_header("authorization");
    let others = world.send(&redeem).await;
    assert_eq!(others.status, 200, "{}", others.text);
    assert_eq!(sid(others.str("id_token")), sid(&session.id_token), "one session");
    let token = client.access(&world.canvas).await.unwrap().token;
    assert!(is_active(&world, &token).await);
    // An ID-JAG that is under way.
    let id_jag = world.send(&world.exchange(&session.id_token)).await;
    assert_eq!(id_jag.status, 200, "{}", id_jag.text);

    assert_eq!(client.sign_out().await.unwrap(), SignedOut::There);

    let refused = world.send(&world.exchange(&session.id_token)).await;
    assert_eq!((refused.status, refused.str("error")), (400, "invalid_grant"), "the ID token");
    let refresh_token = session.refresh_token.unwrap();
    let by_refresh_token = world
        .exchange(&refresh_token)
        .set("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token");
    let refused = world.send(&by_refresh_token).await;
    assert_eq!((refused.status, refused.str("error")), (400, "invalid_grant"));
    world.idp_role.get().unwrap().tell_servers_once().await.unwrap();
    assert!(!is_active(&world, &token).await, "what the RAS issued for its ID-JAG");
    let late = world.send(&world.redeem(id_jag.str("access_token"))).await;
    assert_eq!((late.status, late.str("error")), (400, "invalid_grant"), "issued before");
    // The other client goes on, and so does the browser's session.
    let going_on = world
        .exchange_with_assertion(others.str("id_token"), &assertion(&world.assertion_claims()));
    let going_on = world.send(&going_on).await;
    assert_eq!(going_on.status, 200, "{}", going_on.text);
    assert!(vault.load().await.unwrap().is_none());
    assert!(vault.accesses().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_id_token_is_revoked_where_there_is_no_refresh_token() {
    let world = World::new().await;
    let vault = Arc::<MemoryVault>::default();
    let client = world.client_in(world.client_settings(), Arc::clone(&vault));
    sign_in(&world, &client, "erin").await;
    let token = client.access(&world.canvas).await.unwrap().token;
    let mut session = vault.load().await.unwrap().unwrap();
    session.refresh_token = None;
    vault.store(Some(&session)).await.unwrap();
    // Not by another client.
    let foreign = world.ask(&world.idp, "/revoke", &[("token", &session.id_token)]);
    let foreign = foreign.basic("sibling", world.secret.expose());
    assert_eq!(world.send(&foreign).await.status, 200);
    assert_eq!(world.send(&world.exchange(&session.id_token)).await.status, 200);
    assert_eq!(client.sign_out().await.unwrap(), SignedOut::There);
    let refused = world.send(&world.exchange(&session.id_token)).await;
    assert_eq!((refused.status, refused.str("error")), (400, "invalid_grant"));
    world.idp_role.get().unwrap().tell_servers_once().await.unwrap();
    assert!(!is_active(&world, &token).await);
}
