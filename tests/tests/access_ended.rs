//! When access ends at the IdP, authorization servers are told, and end what they issued (Global Token
//! Revocation).

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use passavant_admin::types::{Clients, Connections, Users};
use passavant_proto::{
    identifier::{Issuer, Resource},
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
};
use passavant_store::AuditFilter;
use passavant_tests::{
    forge::{Key, Parts},
    upstream::FakeUpstream,
    world::{AGENT, Ask, Reply, Tokens, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const TYP: &str = "global-token-revocation+jwt";

pub(crate) async fn tell(world: &World) -> usize {
    world.idp_role.get().unwrap().tell_servers_once().await.unwrap()
}

/// An access token for canvas, from these tokens of the IdP.
pub(crate) async fn redeemed(world: &World, tokens: &Tokens) -> String {
    let id_jag = id_jag(world, tokens).await;
    let token = world.send(&world.redeem(&id_jag)).await;
    assert_eq!(token.status, 200, "{}", token.text);
    token.str("access_token").to_owned()
}

pub(crate) async fn id_jag(world: &World, tokens: &Tokens) -> String {
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.str("access_token").to_owned()
}

fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn is_active(world: &World, token: &str) -> bool {
    let reply = world.send(&world.ask(&world.ras, "/introspect", &[("token", token)])).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json["active"].as_bool().unwrap()
}

pub(crate) fn sid(tokens: &Tokens) -> String {
    Parts::of(&tokens.id_token).claims["sid"].as_str().unwrap().to_owned()
}

async fn rows(world: &World, event: &str) -> Vec<passavant_store::AuditRow> {
    let event = Some(event.to_owned());
    let filter = AuditFilter { event, limit: 50, ..AuditFilter::default() };
    let mut rows = world.idp_store.audit(&filter).await.unwrap();
    rows.extend(world.ras_store.audit(&filter).await.unwrap());
    rows
}

/// A way in which erin's access to canvas ends, and what is left of it.
struct Way {
    name: &'static str,
    method: Method,
    path: String,
    body: Option<Value>,
    /// Whether a second sign-in of erin's loses its token as well.
    also_others: bool,
}

fn ways(world: &World) -> Vec<Way> {
    let segment =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let (canvas, ras) = (segment(&world.canvas), segment(world.ras.as_str()));
    let way = |name, method: &Method, path: &str, body: Option<Value>| Way {
        name,
        method: method.clone(),
        path: format!("/idp{path}"),
        body,
        also_others: true,
    };
    let (post, patch, delete) = (&Method::POST, &Method::PATCH, &Method::DELETE);
    let password = json!({"password": "another long sentence"});
    let connection = "/connections/agent-canvas";
    vec![
        way("switched off", post, "/users/erin/disable", None),
        way("deleted", delete, "/users/erin", None),
        way("another password", post, "/users/erin/password", Some(password)),
        Way { also_others: false, ..way("one sign-in ended", delete, "/sessions/SID", None) },
        way("left the group", patch, "/users/erin", Some(json!({"groups": []}))),
        way("group gone", delete, "/groups/engineering", None),
        way("connection off", post, &format!("{connection}/disable"), None),
        way("connection gone", delete, connection, None),
        way("fewer scopes", patch, connection, Some(json!({"scopes": ["read"]}))),
        way("another server", patch, connection, Some(json!({"resources": [world.boards]}))),
        way("for others", patch, connection, Some(json!({"groups": ["marketing"]}))),
        way("MCP server off", post, &format!("/resources/{canvas}/disable"), None),
        way("MCP server gone", delete, &format!("/resources/{canvas}"), None),
        way("client off", post, &format!("/clients/{AGENT}/disable"), None),
        way("client gone", delete, &format!("/clients/{AGENT}"), None),
        way("server off", post, &format!("/authorization-servers/{ras}/disable"), None),
        way("server gone", delete, &format!("/authorization-servers/{ras}"), None),
    ]
}

/// An authorization server of another maker.
#[derive(Clone)]
pub(crate) struct Vendor {
    pub(crate) url: String,
    /// Whether it has such an endpoint, and takes single ID-JAGs.
    pub(crate) offers: Arc<Mutex<(bool, bool)>>,
    told: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Vendor {
    /// One that max reaches by `agent`, too.
    pub(crate) async fn start(world: &World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vendor = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            offers: Arc::new(Mutex::new((true, false))),
            told: Arc::default(),
            answers: Arc::default(),
        };
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(describe))
            .route("/end", post(take))
            .with_state(vendor.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let issuer = Issuer::parse(&vendor.url).unwrap();
        let resource = Resource::parse(&format!("{}/mcp", vendor.url)).unwrap();
        let server: ResourceAuthorizationServer = ResourceAuthorizationServer {
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

    pub(crate) async fn known_to(&self, world: &World, tokens: &Tokens) {
        let ask = world
            .exchange(&tokens.id_token)
            .set("audience", &self.url)
            .set("resource", &format!("{}/mcp", self.url));
        let reply = world.send(&ask).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }

    fn told(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    pub(crate) fn answers(&self, statuses: &[u16]) {
        *self.answers.lock().unwrap() = statuses.iter().rev().copied().collect();
    }
}

async fn describe(State(vendor): State<Vendor>) -> Json<Value> {
    let url = &vendor.url;
    let mut metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token")});
    let (has, takes_id_jags) = *vendor.offers.lock().unwrap();
    if has {
        metadata["global_token_revocation_endpoint"] = json!(format!("{url}/end"));
    }
    metadata["passavant_id_jag_revocation"] = json!(takes_id_jags);
    Json(metadata)
}

async fn take(State(vendor): State<Vendor>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let bearer = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    vendor.told.lock().unwrap().push((bearer.to_owned(), body));
    let status = vendor.answers.lock().unwrap().pop().unwrap_or(204);
    StatusCode::from_u16(status).unwrap()
}

everywhere!(
    whichever_way_access_ends_the_tokens_of_authorization_servers_end,
    what_is_still_allowed_stays,
    an_id_jag_from_before_opens_nothing_afterwards,
    a_server_that_is_told_late_ends_what_there_was_when_access_ended,
    only_who_knows_of_a_person_is_told_and_until_it_listens,
);

mod cases {
    use super::*;

    pub(super) async fn whichever_way_access_ends_the_tokens_of_authorization_servers_end() {
        let count = ways(&World::new().await).len();
        for at in 0..count {
            // A database of its own for each.
            #[cfg(feature = "postgres")]
            if passavant_tests::world::IDP_DATABASE.try_with(|_| ()).is_ok() {
                let url = crate::store_contract::postgres::fresh(&format!("on_way_{at}")).await;
                passavant_tests::world::IDP_DATABASE.scope(url, Box::pin(one_way(at))).await;
                continue;
            }
            Box::pin(one_way(at)).await;
        }
    }

    async fn one_way(at: usize) {
        let world = World::new().await;
        let way = ways(&world).into_iter().nth(at).unwrap();
        let (one, two) = (world.sign_in().await, world.sign_in().await);
        let tokens = [redeemed(&world, &one).await, redeemed(&world, &two).await];
        assert_eq!(tell(&world).await, 0, "{}: nothing has ended", way.name);
        for token in &tokens {
            assert!(is_active(&world, token).await, "{}", way.name);
        }
        let path = way.path.replace("SID", &sid(&one));
        let done = world.administer(way.method, &path, way.body).await;
        assert!((200..300).contains(&done.status), "{}: {}", way.name, done.text);
        assert_eq!(tell(&world).await, 1, "{}", way.name);
        let left = [is_active(&world, &tokens[0]).await, is_active(&world, &tokens[1]).await];
        assert_eq!(left, [false, !way.also_others], "{}", way.name);
        assert_eq!(tell(&world).await, 0, "{}: once", way.name);
        // On record at both.
        let told = rows(&world, "revocation_notice").await;
        assert_eq!(told[0].outcome, "granted", "{}", way.name);
        assert_eq!(told[0].details["audience"], world.ras.as_str());
        let ended = rows(&world, "access_ended").await;
        assert_eq!(ended[0].details["issuer"], world.idp.as_str(), "{}", way.name);
        let tokens = if way.also_others { "2" } else { "1" };
        assert_eq!(ended[0].details["count"], tokens, "{}", way.name);
        // A database has room for so many connections.
        world.idp_store.close().await;
    }

    pub(super) async fn what_is_still_allowed_stays() {
        let world = World::new().await;
        let tokens = world.sign_in().await;
        let token = redeemed(&world, &tokens).await;
        let unchanged = [
            ("/idp/users/erin", json!({"display_name": "Erin"})),
            ("/idp/users/erin", json!({"groups": ["engineering", "marketing"]})),
            ("/idp/users/max", json!({"groups": []})),
            ("/idp/connections/agent-canvas", json!({"groups": ["engineering", "marketing"]})),
            ("/idp/connections/agent-notes", json!({"scopes": ["read"]})),
            // What was true when the ID-JAG was issued.
            (
                "/idp/connections/agent-canvas",
                json!({"conditions": {"max_authentication_age": 600}}),
            ),
        ];
        world.pass(61);
        for (path, body) in unchanged {
            let done = world.administer(Method::PATCH, path, Some(body.clone())).await;
            assert_eq!(done.status, 200, "{path} {body}: {}", done.text);
            assert_eq!(tell(&world).await, 0, "{path} {body}");
            assert!(is_active(&world, &token).await, "{path} {body}");
        }
        world.idp_admin().switch::<Users>("max", false).await.unwrap();
        world.idp_admin().switch::<Connections>("public-canvas", false).await.unwrap();
        world.idp_admin().switch::<Clients>("sibling", false).await.unwrap();
        assert_eq!(tell(&world).await, 0);
        assert!(is_active(&world, &token).await);
        // Two ways lead there: one of them goes, and nothing ends.
        let again =
            Connection { id: "again".to_owned(), ..world.connection(AGENT, "agent-at-ras") };
        world.put(&world.idp_store, &again).await;
        world.idp_admin().delete::<Connections>("agent-canvas").await.unwrap();
        assert_eq!(tell(&world).await, 0);
        assert!(is_active(&world, &token).await);
        world.idp_admin().delete::<Connections>("again").await.unwrap();
        assert_eq!(tell(&world).await, 1);
        assert!(!is_active(&world, &token).await);
    }

    pub(super) async fn an_id_jag_from_before_opens_nothing_afterwards() {
        let world = World::new().await;
        // All that the person has: also for somebody of whom the server had heard nothing yet.
        for linked in [false, true] {
            let tokens = world.sign_in().await;
            if linked {
                redeemed(&world, &tokens).await;
            }
            let under_way = id_jag(&world, &tokens).await;
            world.idp_admin().switch::<Users>("erin", false).await.unwrap();
            assert_eq!(tell(&world).await, 1);
            let reply = world.send(&world.redeem(&under_way)).await;
            assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"));
            let refused = &rows(&world, "jwt_bearer").await[0];
            let reason = refused.details["reason"].as_str();
            assert_eq!(reason, "id_jag.access_ended");
            // Switched on again, a new sign-in opens what it did: within the same second, too.
            world.idp_admin().switch::<Users>("erin", true).await.unwrap();
            redeemed(&world, &world.sign_in().await).await;
            world.pass(1);
        }
        // One that names no ID-JAG still ends those that it cannot know.
        let forged = world.id_jag(&world.id_jag_claims());
        let body = json!({"sub_id": {"format": "opaque", "id": "erin-id"}});
        assert_eq!(revoke(&world, &world.idp_key, &json!({}), &body).await.status, 204);
        let reply = world.send(&world.redeem(&forged)).await;
        assert_eq!(reply.str("error"), "invalid_grant");
        let reason = &rows(&world, "jwt_bearer").await[0].details["reason"];
        assert_eq!(reason, "id_jag.access_ended");
        // One sign-in: its ID-JAG is used up, another one's is not.
        world.pass(1);
        let (one, two) = (world.sign_in().await, world.sign_in().await);
        let (first, second) = (id_jag(&world, &one).await, id_jag(&world, &two).await);
        world.idp_admin().end_session(&sid(&one)).await.unwrap();
        assert_eq!(tell(&world).await, 1);
        assert_eq!(world.send(&world.redeem(&first)).await.str("error"), "invalid_grant");
        let reason = &rows(&world, "jwt_bearer").await[0].details["reason"];
        assert_eq!(reason, "id_jag.access_ended");
        assert_eq!(world.send(&world.redeem(&second)).await.status, 200);
        // Also where one may be used again, and whatever the clock of the node that issued it said.
        let trusted = format!("/ras/ras/trusted-issuers/{}", segment(world.idp.as_str()));
        let again = Some(json!({"allow_reuse": true}));
        assert_eq!(world.administer(Method::PATCH, &trusted, again).await.status, 200);
        let claims = json!({"iat": world.now().0 + 20, "exp": world.now().0 + 140});
        for body in [
            json!({"sub_id": {"format": "opaque", "id": "erin-id"}, "id_jags": ["a", "b"]}),
            json!({"sub_id": {"format": "opaque", "id": "erin-id"}, "ended_id_jags": ["a", "b"]}),
        ] {
            let ahead = |jti: &str| {
                let mut all = world.id_jag_claims();
                all["jti"] = json!(jti);
                all["iat"].clone_from(&claims["iat"]);
                all["exp"].clone_from(&claims["exp"]);
                world.id_jag(&all)
            };
            let [a, other] = [ahead("a"), ahead("c")];
            let before = world.send(&world.redeem(&other)).await;
            assert_eq!(before.status, 200, "{}", before.text);
            let reply = revoke(&world, &world.idp_key, &json!({}), &body).await;
            assert_eq!(reply.status, 204, "{}", reply.text);
            for _ in 0..2 {
                let reply = world.send(&world.redeem(&a)).await;
                assert_eq!(reply.str("error"), "invalid_grant", "{body}: {}", reply.text);
            }
            // Another one of theirs is as it was: it is used again where it may be.
            assert_eq!(world.send(&world.redeem(&other)).await.status, 200, "{body}");
        }
    }

    pub(super) async fn a_server_that_is_told_late_ends_what_there_was_when_access_ended() {
        let world = World::new().await;
        let before = redeemed(&world, &world.sign_in().await).await;
        let under_way = id_jag(&world, &world.sign_in().await).await;
        // Off and on: in the same second, and a while before the server is told.
        for wait in [0, 90] {
            world.idp_admin().switch::<Users>("erin", false).await.unwrap();
            world.idp_admin().switch::<Users>("erin", true).await.unwrap();
            world.pass(wait);
            let (used, unused) = (world.sign_in().await, world.sign_in().await);
            let after = redeemed(&world, &used).await;
            let unused = id_jag(&world, &unused).await;
            assert!(tell(&world).await > 0);
            assert!(!is_active(&world, &before).await);
            assert_eq!(world.send(&world.redeem(&under_way)).await.str("error"), "invalid_grant");
            assert!(is_active(&world, &after).await, "issued after the end, {wait} s later");
            let reply = world.send(&world.redeem(&unused)).await;
            assert_eq!(reply.status, 200, "{wait}: {}", reply.text);
            // Its own end is another one.
            world.idp_admin().switch::<Users>("erin", false).await.unwrap();
            world.idp_admin().switch::<Users>("erin", true).await.unwrap();
            tell(&world).await;
            assert!(!is_active(&world, &after).await);
        }
    }

    #[allow(clippy::too_many_lines)] // one server, from being told nothing to being told everything
    pub(super) async fn only_who_knows_of_a_person_is_told_and_until_it_listens() {
        let world = World::new().await;
        let vendor = Vendor::start(&world).await;
        let tokens = world.sign_in().await;
        // The vendor knows of max, who signed in there in a browser, and hears nothing of erin.
        let there = format!("{}/callback", vendor.url);
        let uris = json!({"redirect_uris": [passavant_tests::world::CALLBACK, there]});
        let change = serde_json::from_value(uris).unwrap();
        world.idp_admin().change::<Clients>("public", &change, None).await.unwrap();
        world.sign_in_as("max", "public").await;
        redeemed(&world, &tokens).await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        tell(&world).await;
        assert!(vendor.told().is_empty());
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        world.idp_admin().switch::<Users>("max", false).await.unwrap();
        assert_eq!(tell(&world).await, 1);
        let subject = json!({"format": "iss_sub", "iss": world.idp, "sub": "max-id"});
        let told = vendor.told();
        assert_eq!((told.len(), &told[0].1), (1, &json!({"sub_id": subject})));
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        // One sign-in of several: it would end all of them, so it is not told.
        world.idp_admin().end_session(&sid(&tokens)).await.unwrap();
        tell(&world).await;
        assert!(vendor.told().is_empty());
        // A server that fails is told later, with another JWT; one of an earlier draft in its words.
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        vendor.answers(&[503, 400, 200]);
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        tell(&world).await;
        let first = vendor.told();
        assert_eq!(first.len(), 1);
        tell(&world).await;
        assert!(vendor.told().is_empty(), "not at once again");
        // Operators see that somebody was not told.
        world.pass(10);
        let ready = world.http.get(world.idp.endpoint("/readyz")).send().await.unwrap();
        let waits = "notices of ended access that wait: 2, the first one for 10 s";
        let text = ready.text().await.unwrap();
        assert!(text.starts_with("ready\n") && text.contains(waits), "{text}");
        tell(&world).await;
        let then = vendor.told();
        assert_eq!(then.len(), 2);
        let subject = json!({"format": "iss_sub", "iss": world.idp, "sub": "erin-id"});
        assert_eq!(first[0].1, json!({"sub_id": subject}));
        assert_eq!(then[0].1, json!({"sub_id": subject}));
        assert_eq!(then[1].1, json!({"subject": subject}));
        let parts: Vec<Parts> =
            [&first[0], &then[0], &then[1]].iter().map(|(token, _)| Parts::of(token)).collect();
        for parts in &parts {
            assert_eq!(parts.header["typ"], TYP);
            assert_eq!(parts.header["kid"], world.idp_key.kid());
            assert_eq!(parts.claims["iss"], world.idp.as_str());
            assert_eq!(parts.claims["sub"], world.idp.as_str());
            assert_eq!(parts.claims["aud"], format!("{}/end", vendor.url));
            let lives =
                parts.claims["exp"].as_i64().unwrap() - parts.claims["iat"].as_i64().unwrap();
            assert_eq!(lives, 120);
        }
        let mut jtis: Vec<_> = parts.iter().map(|parts| parts.claims["jti"].to_string()).collect();
        jtis.sort();
        jtis.dedup();
        assert_eq!(jtis.len(), 3);
        world.pass(7200);
        tell(&world).await;
        assert!(vendor.told().is_empty(), "once it has answered");
        // One that never listens is given up after a day, on record.
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        vendor.known_to(&world, &world.sign_in().await).await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        vendor.answers(&[403; 99]);
        let mut tries = 0;
        for _ in 0..40 {
            tell(&world).await;
            tries += vendor.told().len();
            world.pass(3601);
        }
        assert!((20..=30).contains(&tries), "{tries}");
        let refused = |row: &&passavant_store::AuditRow| row.outcome == "refused";
        let given_up = rows(&world, "revocation_notice").await;
        let given_up: Vec<_> = given_up.iter().filter(refused).collect();
        assert_eq!(given_up.len(), 1);
        assert_eq!(given_up[0].details["reason"], "revocation_notice.given_up");
        assert_eq!(given_up[0].details["audience"], vendor.url);
        // One without such an endpoint is not asked, and not tried again.
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        *vendor.offers.lock().unwrap() = (false, false);
        world.pass(301);
        vendor.known_to(&world, &world.sign_in().await).await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        assert!(tell(&world).await > 0);
        assert_eq!((tell(&world).await, vendor.told().len()), (0, 0));
        // One of our own takes single ID-JAGs.
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        *vendor.offers.lock().unwrap() = (true, true);
        vendor.answers(&[]);
        world.pass(301);
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        vendor.known_to(&world, &tokens).await;
        world.idp_admin().end_session(&sid(&tokens)).await.unwrap();
        tell(&world).await;
        let told = vendor.told();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1["id_jags"].as_array().unwrap().len(), 2);
        // With a person they are named as well, beside everything. A proxy that knows no such path is not one
        // of our own that knows no such person; once it is there again, nothing that was put off waits.
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        vendor.answers(&[404, 404, 404, 404]);
        for _ in 0..4 {
            world.idp_admin().switch::<Users>("erin", false).await.unwrap();
            tell(&world).await;
            let told = vendor.told();
            assert!(!told.is_empty());
            assert_eq!(told[0].1.get("id_jags"), None);
            assert_eq!(told[0].1["ended_id_jags"].as_array().unwrap().len(), 1);
            world.pass(61);
        }
        tell(&world).await;
        assert_eq!(vendor.told().len(), 1);
        assert_eq!(tell(&world).await, 0);
    }
}

/// A request to the RAS by whoever has `key`, with what a test wants to be another.
async fn revoke(world: &World, key: &Key, more: &Value, body: &Value) -> Reply {
    let jwt = jwt(world, key, more);
    send(world, &[("authorization", &format!("Bearer {jwt}"))], body.to_string()).await
}

fn jwt(world: &World, key: &Key, more: &Value) -> String {
    let now = world.now().0;
    let mut claims = json!({"iss": world.idp, "sub": "our-client-there", "iat": now, "exp": now + 300,
        "jti": world.id(), "aud": world.ras.endpoint("/global_token_revocation")});
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    let typ = claims.as_object_mut().unwrap().remove("typ");
    let typ = typ.as_ref().map_or(TYP, |typ| typ.as_str().unwrap());
    key.sign(&key.header(typ).to_string(), claims.to_string().as_bytes())
}

async fn send(world: &World, headers: &[(&str, &str)], body: String) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let ask = Ask {
        url: world.ras.endpoint("/global_token_revocation"),
        form: Vec::new(),
        headers: headers.collect(),
        method: Method::POST,
    };
    let ask = ask.header("content-type", "application/json");
    world.send_body(&ask, body.into_bytes()).await
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // one endpoint, whatever comes
async fn an_authorization_server_takes_revocations_of_trusted_issuers_about_their_own_people() {
    let world = World::new().await;
    let metadata = world.ras.well_known_inserted("oauth-authorization-server");
    let metadata: Value = world.http.get(metadata).send().await.unwrap().json().await.unwrap();
    let endpoint = world.ras.endpoint("/global_token_revocation");
    assert_eq!(metadata["global_token_revocation_endpoint"], endpoint);
    let erin = json!({"sub_id": {"format": "iss_sub", "iss": world.idp, "sub": "erin-id"}});
    let token = redeemed(&world, &world.sign_in().await).await;
    // Whoever is not the issuer, or says something else.
    let now = world.now().0;
    for (name, value) in [
        ("typ", json!("JWT")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("oauth-id-jag+jwt")),
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{}/", world.idp))),
        ("iss", Value::Null),
        ("aud", json!(world.ras)),
        ("aud", json!([endpoint, "https://other.example"])),
        ("aud", json!(format!("{endpoint}/"))),
        ("aud", Value::Null),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("exp", json!(now - 31)),
        ("exp", json!(now + 301 + 30)),
        ("exp", Value::Null),
        ("iat", json!(now + 31)),
        ("iat", Value::Null),
        ("jti", json!(7)),
        ("jti", json!("")),
    ] {
        let reply = revoke(&world, &world.idp_key, &json!({name: value}), &erin).await;
        assert_eq!(reply.status, 401, "{name}: {value}: {}", reply.text);
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    let other = Key::new();
    assert_eq!(revoke(&world, &other, &json!({}), &erin).await.status, 401);
    let row = &rows(&world, "access_ended").await[0];
    assert_eq!(row.details["reason"], "access_ended.token");
    let unsigned = Parts {
        header: json!({"alg": "none", "typ": TYP}),
        ..Parts::of(&jwt(&world, &other, &json!({})))
    };
    for headers in [
        &[][..],
        &[("authorization", "Basic YTpi")],
        &[("authorization", "Bearer")],
        &[("authorization", &format!("Bearer {}", unsigned.sign(&other)))],
        &[("authorization", &format!("Bearer {token}"))],
    ] {
        let reply = send(&world, headers, erin.to_string()).await;
        assert_eq!(reply.status, 401, "{headers:?}: {}", reply.text);
    }
    // Who proves it, and says nonsense, or speaks of others' people.
    let elsewhere = json!({"format": "iss_sub", "iss": "https://other.example", "sub": "erin-id"});
    for (body, status) in [
        (json!({}), 400),
        (json!({"sub_id": "erin-id"}), 400),
        (json!({"sub_id": {"format": "did", "url": "did:example:1"}}), 400),
        (json!({"sub_id": {"format": "opaque", "id": "erin-id"}, "id_jags": []}), 400),
        (json!({"sub_id": elsewhere}), 403),
        (json!({"sub_id": {"format": "opaque", "id": "nobody"}}), 404),
        (json!({"sub_id": {"format": "email", "email": "erin@acme.example"}}), 404),
    ] {
        let reply = revoke(&world, &world.idp_key, &json!({}), &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        assert!(!reply.str("error_description").is_empty(), "{}", reply.text);
    }
    assert!(is_active(&world, &token).await, "nothing of that has ended anything");
    // By each name, and once for each JWT, whether or not it has an id.
    let filter =
        AuditFilter { event: Some("link_account".to_owned()), limit: 1, ..AuditFilter::default() };
    let account = world.ras_store.audit(&filter).await.unwrap()[0].person.clone();
    let address = json!({"email": "erin@acme.example"});
    let path = format!("/ras/ras/accounts/{account}");
    let done = world.administer(Method::PATCH, &path, Some(address)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let mut token = token;
    for body in [
        erin.clone(),
        json!({"subject": erin["sub_id"]}),
        json!({"sub_id": {"format": "opaque", "id": "erin-id"}}),
        json!({"sub_id": {"format": "email", "email": "ERIN@acme.example"}}),
    ] {
        for without in [json!({}), json!({"jti": null})] {
            let jwt = jwt(&world, &world.idp_key, &without);
            let bearer = format!("Bearer {jwt}");
            let headers = [("authorization", bearer.as_str())];
            let reply = send(&world, &headers, body.to_string()).await;
            assert_eq!((reply.status, reply.text.as_str()), (204, ""), "{body}");
            assert!(!is_active(&world, &token).await, "{body}");
            world.pass(1);
            token = redeemed(&world, &world.sign_in().await).await;
            let reply = send(&world, &headers, body.to_string()).await;
            assert_eq!(reply.status, 204, "{body}");
            assert!(is_active(&world, &token).await, "{body}: again, it ends nothing");
        }
    }
    // The same JWT with another request says nothing, and that is on record.
    let bearer = format!("Bearer {}", jwt(&world, &world.idp_key, &json!({})));
    let headers = [("authorization", bearer.as_str())];
    let nobody = json!({"sub_id": {"format": "opaque", "id": "nobody"}});
    assert_eq!(send(&world, &headers, nobody.to_string()).await.status, 404);
    assert_eq!(send(&world, &headers, erin.to_string()).await.status, 401);
    assert!(is_active(&world, &token).await);
    let reasons: Vec<_> = rows(&world, "access_ended")
        .await
        .into_iter()
        .map(|row| row.details["reason"].clone())
        .take(2)
        .collect();
    assert_eq!(reasons, ["access_ended.token_used", "access_ended.unknown"]);
    // An issuer that is trusted no more says nothing.
    let segment: String = form_urlencoded::byte_serialize(world.idp.as_str().as_bytes()).collect();
    let path = format!("/ras/ras/trusted-issuers/{segment}/disable");
    assert_eq!(world.administer(Method::POST, &path, None).await.status, 200);
    assert_eq!(revoke(&world, &world.idp_key, &json!({}), &erin).await.status, 401);
}

#[tokio::test]
async fn wrong_revocations_are_counted_and_keep_no_right_one_out() {
    let wishes = Wishes { failures_per_minute: Some(5), ..Wishes::default() };
    let world = World::with(wishes).await;
    let erin = json!({"sub_id": {"format": "opaque", "id": "erin-id"}});
    let token = redeemed(&world, &world.sign_in().await).await;
    for n in 0..8 {
        let status = revoke(&world, &Key::new(), &json!({}), &erin).await.status;
        assert_eq!(status, if n < 5 { 401 } else { 429 }, "{n}");
    }
    assert!(is_active(&world, &token).await);
    let nothing = json!({});
    let all = (0..60).map(|_| revoke(&world, &world.idp_key, &nothing, &erin));
    let all = futures::future::join_all(all.collect::<Vec<_>>()).await;
    assert!(all.iter().all(|reply| reply.status == 204));
    assert!(!is_active(&world, &token).await);
}

/// A request of an upstream to the IdP.
async fn from_upstream(world: &World, fake: &FakeUpstream, more: &Value, body: &Value) -> Reply {
    let now = world.now().0;
    let url = world.idp.endpoint("/global_token_revocation/corp");
    let mut claims = json!({"iss": fake.issuer, "sub": fake.client_id, "aud": url, "iat": now,
        "exp": now + 300, "jti": world.id()});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let typ = claims.as_object_mut().unwrap().remove("typ");
    let typ = typ.as_ref().map_or(TYP, |typ| typ.as_str().unwrap());
    let bearer = format!("Bearer {}", fake.sign(typ, &claims));
    let headers = [("authorization", bearer), ("content-type", "application/json".to_owned())];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let ask = Ask { url, form: Vec::new(), headers, method: Method::POST };
    world.send_body(&ask, body.to_string().into_bytes()).await
}

#[tokio::test]
async fn what_an_upstream_revokes_ends_here_and_at_authorization_servers() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    world.add_upstream("corp", &fake, json!({})).await;
    let through = async || {
        let mut browser = passavant_tests::outsider::Browser::default();
        let tokens = world.through(&mut browser, "corp", "").await.unwrap();
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        Tokens {
            id_token: text("id_token"),
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
        }
    };
    let tokens = through().await;
    let user = Parts::of(&tokens.id_token).claims["sub"].as_str().unwrap().to_owned();
    let groups = json!({"groups": ["engineering"]});
    world.administer(Method::PATCH, &format!("/idp/users/{user}"), Some(groups)).await;
    let token = redeemed(&world, &tokens).await;
    let erin = json!({"sub_id": {"format": "iss_sub", "iss": fake.issuer, "sub": "erin-there"}});
    for (more, body, status) in [
        (json!({"typ": "JWT"}), &erin, 401),
        (json!({"sub": "another-application"}), &erin, 401),
        (json!({"aud": world.idp}), &erin, 401),
        (json!({"iss": "https://evil.example"}), &erin, 401),
        (
            json!({}),
            &json!({"sub_id": {"format": "iss_sub", "iss": world.idp, "sub": "erin-there"}}),
            403,
        ),
        (json!({}), &json!({"sub_id": {"format": "opaque", "id": "nobody-there"}}), 404),
        (json!({}), &json!({"sub_id": {"format": "email", "email": "max@acme.example"}}), 404),
        (json!({}), &json!([]), 400),
    ] {
        let reply = from_upstream(&world, &fake, &more, body).await;
        assert_eq!(reply.status, status, "{more} {body}: {}", reply.text);
    }
    assert_eq!(tell(&world).await, 0);
    let reply = from_upstream(&world, &fake, &json!({}), &erin).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert_eq!(reply.str("error"), "invalid_grant");
    assert_eq!(tell(&world).await, 1);
    assert!(!is_active(&world, &token).await);
    let row = &rows(&world, "access_ended").await[0];
    assert_eq!((row.outcome.as_str(), row.details["count"].as_str()), ("granted", "1"));
    // By the address that the person has here.
    let tokens = through().await;
    let address = json!({"email": "erin@acme.example"});
    world.administer(Method::PATCH, "/idp/users/erin", Some(json!({"email": null}))).await;
    world.administer(Method::PATCH, &format!("/idp/users/{user}"), Some(address)).await;
    let body = json!({"subject": {"format": "email", "email": "erin@acme.example"}});
    let reply = from_upstream(&world, &fake, &json!({}), &body).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert_eq!(reply.str("error"), "invalid_grant");
}
