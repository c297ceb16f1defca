//! Shared signals: what is told to those who listen, and what is heard of others (OpenID Shared Signals
//! Framework, CAEP, RISC; RFC 8417, 8935, 8936).

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use passavant_admin::types::{
    ClientChange, Clients, NewClient, NewTransmitter, TransmitterView, Transmitters, Users,
};
use passavant_proto::{
    jose::jwk::{Algorithm, KeySet},
    secret::Secret,
    ssf,
};
use passavant_store::{AuditFilter, AuditRow, Store};
use passavant_tests::{
    forge::Parts,
    outsider::Browser,
    upstream::FakeUpstream,
    world::{AGENT, Ask, CALLBACK, Reply, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type";

/// A party that listens: what was posted to it, and what it answers.
#[derive(Clone)]
struct Listener {
    url: String,
    heard: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<Mutex<(u16, String)>>,
    /// How long it takes over an event, in milliseconds.
    slow: Arc<AtomicU64>,
}

impl Listener {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            url: format!("http://{}/events", listener.local_addr().unwrap()),
            heard: Arc::default(),
            answers: Arc::new(Mutex::new((202, String::new()))),
            slow: Arc::default(),
        };
        let router = Router::new().route("/events", post(take)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        this
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answers.lock().unwrap() = (status, body.to_owned());
    }

    /// The claims of the tokens since the last look.
    fn heard(&self) -> Vec<Value> {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.iter().map(|(_, token)| Parts::of(token).claims).collect()
    }
}

async fn take(
    State(listener): State<Listener>,
    headers: HeaderMap,
    body: String,
) -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(listener.slow.load(Ordering::Relaxed))).await;
    listener.heard.lock().unwrap().push((headers, body));
    let (status, body) = listener.answers.lock().unwrap().clone();
    (StatusCode::from_u16(status).unwrap(), body)
}

/// A client that may listen, and the API by which it does.
struct Receiver<'a> {
    world: &'a World,
    id: String,
    secret: String,
    token: String,
}

impl<'a> Receiver<'a> {
    async fn new(world: &'a World, id: &str, about: &str) -> Self {
        let new: NewClient = serde_json::from_value(json!({"id": id, "name": id,
            "redirect_uris": [CALLBACK], "signals": about}))
        .unwrap();
        let made = world.idp_admin().add::<Clients>(&new).await.unwrap();
        let secret = made.client_secret.unwrap();
        let mut this = Self { world, id: id.to_owned(), secret, token: String::new() };
        let token = this.token(None).await;
        token.str("access_token").clone_into(&mut this.token);
        this
    }

    async fn token(&self, scope: Option<&str>) -> Reply {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.map(|scope| ("scope", scope)));
        let ask = self.world.ask(&self.world.idp, "/token", &form);
        self.world.send(&ask.basic(&self.id, &self.secret)).await
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Reply {
        call(self.world, method, path, Some(&format!("Bearer {}", self.token)), body).await
    }

    /// Makes a stream.
    async fn stream(&self, delivery: Value) -> Value {
        let made = self.call(Method::POST, "/ssf/streams", json!({"delivery": delivery})).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json
    }

    async fn poll(&self, stream: &Value, body: Value) -> Reply {
        let path = format!("/ssf/poll/{}", stream["stream_id"].as_str().unwrap());
        self.call(Method::POST, &path, body).await
    }
}

fn bare(method: Method, url: &str) -> Ask {
    Ask { url: url.to_owned(), form: Vec::new(), headers: Vec::new(), method }
}

async fn call(
    world: &World,
    method: Method,
    path: &str,
    authorization: Option<&str>,
    body: Value,
) -> Reply {
    let mut ask =
        bare(method, &world.idp.endpoint(path)).header("content-type", "application/json");
    if let Some(authorization) = authorization {
        ask = ask.header("authorization", authorization);
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    world.send_body(&ask, body).await
}

fn push_to(url: &str) -> Value {
    json!({"method": "urn:ietf:rfc:8935", "endpoint_url": url})
}

fn poll() -> Value {
    json!({"method": "urn:ietf:rfc:8936"})
}

async fn tell(world: &World) -> usize {
    world.idp_role.get().unwrap().tell_listeners_once().await.unwrap()
}

/// The last parts of the names of events.
fn words(heard: &[Value]) -> Vec<String> {
    let word = |claims: &Value| {
        let events = claims["events"].as_object().unwrap();
        assert_eq!(events.len(), 1, "one event each");
        events.keys().next().unwrap().rsplit('/').next().unwrap().to_owned()
    };
    heard.iter().map(word).collect()
}

fn event(claims: &Value) -> &Value {
    claims["events"].as_object().unwrap().values().next().unwrap()
}

async fn rows(store: &Store, event: &str) -> Vec<AuditRow> {
    let filter = AuditFilter { event: Some(event.to_owned()), limit: 50, ..AuditFilter::default() };
    store.audit(&filter).await.unwrap()
}

fn reason(row: &AuditRow) -> &str {
    row.details.get("reason").map_or("", String::as_str)
}

everywhere!(
    whatever_happens_to_a_person_is_told_once_to_who_may_hear_it,
    a_listener_manages_its_own_stream_and_no_other,
    one_that_fetches_gets_all_until_it_says_that_it_has_it,
    one_that_takes_nothing_is_asked_later_and_paused_after_a_day,
    what_is_changed_counts_from_the_next_event_on,
    a_token_for_streams_ends_with_its_client_and_by_revocation,
    signals_of_an_upstream_end_what_came_by_way_of_it,
    signals_of_a_trusted_issuer_end_what_was_issued_for_it,
);

mod cases {
    use super::*;

    #[allow(clippy::too_many_lines, reason = "a table, and what stands around it")]
    pub(super) async fn whatever_happens_to_a_person_is_told_once_to_who_may_hear_it() {
        let world = World::new().await;
        let (own, all) = (Listener::start().await, Listener::start().await);
        let listening: ClientChange =
            serde_json::from_value(json!({"signals": "its_people"})).unwrap();
        world.idp_admin().change::<Clients>(AGENT, &listening, None).await.unwrap();
        let receiver = Receiver::new(&world, "soc", "everyone").await;
        let stream = receiver
            .stream(json!({"method": "urn:ietf:rfc:8935", "endpoint_url": all.url,
                "authorization_header": "Bearer of the listener's"}))
            .await;
        assert_eq!(stream["aud"], "soc");
        assert_eq!(stream["iss"], world.idp.as_str());
        assert!(!stream.to_string().contains("of the listener's"), "it is not shown again");
        // The agent is told of those who sign in to it, once they do.
        let ask = world.ask(&world.idp, "/token", &[("grant_type", "client_credentials")]);
        let token = world.send(&ask).await.str("access_token").to_owned();
        let delivery = json!({"delivery": push_to(&own.url)});
        let authorization = format!("Bearer {token}");
        let made = call(&world, Method::POST, "/ssf/streams", Some(&authorization), delivery).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!((tell(&world).await, all.heard().len()), (0, 0), "nothing has happened");
        world.idp_admin().switch::<Users>("max", false).await.unwrap();
        tell(&world).await;
        assert_eq!(words(&all.heard()), ["account-disabled", "session-revoked"]);
        assert_eq!(own.heard().len(), 0, "max never signed in to it");
        let tokens = world.sign_in().await;
        let sid = Parts::of(&tokens.id_token).claims["sid"].clone();
        // One sign-in of several has ended: it is named.
        let path = format!("/idp/sessions/{}", sid.as_str().unwrap());
        assert!(world.administer(Method::DELETE, &path, None).await.status < 300);
        tell(&world).await;
        let heard = all.heard();
        let erin = json!({"format": "iss_sub", "iss": world.idp.as_str(), "sub": "erin-id"});
        let session = json!({"format": "opaque", "id": sid});
        let complex = json!({"format": "complex", "user": erin, "session": session});
        assert_eq!(
            (words(&heard), &heard[0]["sub_id"]),
            (vec!["session-revoked".to_owned()], &complex)
        );
        assert_eq!(words(&own.heard()), ["session-revoked"]);
        world.sign_in().await;
        // Other groups; another password, which ends the session; switched off and on; deleted.
        let groups = json!({"groups": ["marketing"]});
        let changed = world.administer(Method::PATCH, "/idp/users/erin", Some(groups)).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        let password = Secret::new("another long sentence");
        world.idp_admin().set_password("erin", &password).await.unwrap();
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        let gone = world.administer(Method::DELETE, "/idp/users/erin", None).await;
        assert!(gone.status < 300, "{}", gone.text);
        tell(&world).await;
        let posted = all.heard.lock().unwrap().clone();
        let heard = all.heard();
        let expected = [
            "token-claims-change",
            "credential-change",
            "session-revoked",
            "account-disabled",
            "session-revoked",
            "account-enabled",
            "account-purged",
            "session-revoked",
        ];
        assert_eq!(words(&heard), expected);
        assert_eq!(words(&own.heard()), expected);
        assert_eq!((tell(&world).await, all.heard().len()), (0, 0), "once");
        // As the profile has it.
        let (headers, token) = &posted[2];
        assert_eq!(headers["content-type"], "application/secevent+jwt");
        assert_eq!(headers["accept"], "application/json");
        assert_eq!(headers["authorization"], "Bearer of the listener's");
        let parts = Parts::of(token);
        assert_eq!(parts.header["typ"], "secevent+jwt");
        let claims = &parts.claims;
        assert_eq!(claims["iss"], world.idp.as_str());
        assert_eq!(
            (&claims["aud"], claims["jti"].as_str().unwrap().len() >= 32),
            (&json!("soc"), true)
        );
        assert!(claims.get("sub").is_none() && claims.get("exp").is_none(), "{claims}");
        assert_eq!(claims["sub_id"], erin, "all sign-ins: in the form that the profile knows");
        assert_eq!(event(claims)["event_timestamp"], world.now().0);
        assert!(event(claims)["reason_admin"]["en"].is_string());
        assert_eq!(heard[0]["sub_id"], erin);
        assert_eq!(event(&heard[0])["claims"], json!({"groups": ["marketing"]}));
        assert_eq!(event(&heard[1])["credential_type"], "password");
        assert_eq!(event(&heard[1])["change_type"], "update");
        // By the rules that this server has for others.
        let keys = Browser::default().get(&world, &world.idp.endpoint("/jwks")).await.text;
        let keys = KeySet::parse(keys.as_bytes(), Algorithm::ES256).unwrap();
        let read = ssf::verify(token, &keys, (&world.idp, "soc"), world.now()).unwrap();
        assert!(read.ends_access());
        let other = ssf::verify(token, &keys, (&world.idp, "agent"), world.now());
        assert_eq!(other, Err(ssf::SetRefusal::Audience));
        // It is no ID token, and opens nothing.
        assert_eq!(world.send(&world.exchange(token)).await.str("error"), "invalid_grant");
        let told = rows(&world.idp_store, "signal.told").await;
        assert!(told.iter().all(|row| row.outcome == "granted"));
        // A listener that may not hear any more is told nothing, and its token opens nothing.
        let none: ClientChange = serde_json::from_value(json!({"signals": null})).unwrap();
        world.idp_admin().change::<Clients>("soc", &none, None).await.unwrap();
        world.idp_admin().switch::<Users>("max", true).await.unwrap();
        tell(&world).await;
        assert_eq!(all.heard().len(), 0);
        let reply = receiver.call(Method::GET, "/ssf/streams", Value::Null).await;
        assert_eq!(reply.status, 401);
        assert_eq!(receiver.token(None).await.str("error"), "unauthorized_client");
        // With the client goes its stream.
        assert_eq!(world.idp_admin().streams().await.unwrap().items.len(), 2);
        let gone = world.administer(Method::DELETE, "/idp/clients/soc", None).await;
        assert!(gone.status < 300);
        assert_eq!(world.idp_admin().streams().await.unwrap().items.len(), 1);
    }

    #[allow(clippy::too_many_lines, reason = "a table, and what stands around it")]
    pub(super) async fn a_listener_manages_its_own_stream_and_no_other() {
        let world = World::new().await;
        let document = Browser::default()
            .get(&world, &format!("{}{}", world.idp.as_str(), ssf::WELL_KNOWN))
            .await;
        assert_eq!(document.json["spec_version"], "1_0");
        assert_eq!(document.json["issuer"], world.idp.as_str());
        assert_eq!(document.json["configuration_endpoint"], world.idp.endpoint("/ssf/streams"));
        let (one, other) = (
            Receiver::new(&world, "one", "everyone").await,
            Receiver::new(&world, "other", "everyone").await,
        );
        assert_eq!(one.call(Method::GET, "/ssf/streams", Value::Null).await.json, json!([]));
        let listener = Listener::start().await;
        let held = one.stream(push_to(&listener.url)).await;
        let id = held["stream_id"].as_str().unwrap();
        let again = one.call(Method::POST, "/ssf/streams", json!({"delivery": poll()})).await;
        assert_eq!(again.status, 409, "one each");
        // Nobody else sees or changes it; who proves nothing, or with another scope, nothing.
        let at = |path: &str| format!("{path}?stream_id={id}");
        let body = json!({"stream_id": id, "status": "disabled"});
        for (method, path, body) in [
            (Method::GET, at("/ssf/streams"), Value::Null),
            (Method::DELETE, at("/ssf/streams"), Value::Null),
            (Method::PATCH, "/ssf/streams".to_owned(), json!({"stream_id": id})),
            (Method::PUT, "/ssf/streams".to_owned(), json!({"stream_id": id})),
            (Method::GET, at("/ssf/status"), Value::Null),
            (Method::POST, "/ssf/status".to_owned(), body),
            (Method::POST, "/ssf/verification".to_owned(), json!({"stream_id": id})),
            (Method::POST, format!("/ssf/poll/{id}"), json!({"returnImmediately": true})),
        ] {
            let theirs = other.call(method.clone(), &path, body.clone()).await;
            assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.text);
            let nobody = call(&world, method.clone(), &path, None, body.clone()).await;
            assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, "Bearer"));
            for wrong in ["Bearer x", "Basic b25lOng=", &format!("DPoP {}", one.token)] {
                let reply = call(&world, method.clone(), &path, Some(wrong), body.clone()).await;
                assert_eq!(reply.status, 401, "{wrong}");
            }
            let read = one.token(Some("ssf.read openid")).await;
            assert_eq!(read.str("scope"), "ssf.read");
            let read = format!("Bearer {}", read.str("access_token"));
            let reads = method == Method::GET || path.starts_with("/ssf/poll");
            if !reads {
                let reply = call(&world, method.clone(), &path, Some(&read), body.clone()).await;
                assert_eq!(reply.status, 403, "{method} {path}");
                assert!(reply.header("www-authenticate").contains("ssf.manage"));
            }
        }
        // A token of a person's sign-in, and an ID token, open nothing here; nor these tokens elsewhere.
        let tokens = world.sign_in().await;
        for token in [&tokens.id_token, &tokens.access_token] {
            let bearer = format!("Bearer {token}");
            let reply = call(&world, Method::GET, "/ssf/streams", Some(&bearer), Value::Null).await;
            assert_eq!(reply.status, 401);
        }
        let bearer = format!("Bearer {}", one.token);
        let reply = call(&world, Method::GET, "/userinfo", Some(&bearer), Value::Null).await;
        assert_eq!(reply.status, 401);
        assert_eq!(one.token(Some("openid")).await.str("error"), "invalid_scope");
        // What is left out stays, or goes; what the transmitter says stays as it is.
        let patch = json!({"stream_id": id, "description": "Night shift",
            "events_requested": [format!("{CAEP}/session-revoked"), "urn:unknown"]});
        let changed = one.call(Method::PATCH, "/ssf/streams", patch).await.json;
        assert_eq!(changed["events_delivered"], json!([format!("{CAEP}/session-revoked")]));
        assert_eq!(changed["delivery"], held["delivery"]);
        let back = one.call(Method::PUT, "/ssf/streams", changed.clone()).await;
        assert_eq!((back.status, &back.json), (200, &changed), "as it was read");
        for (member, value) in [("aud", json!("else")), ("iss", json!("https://else.example"))] {
            let said = json!({"stream_id": id, member: value});
            let reply = one.call(Method::PATCH, "/ssf/streams", said).await;
            assert_eq!(reply.status, 400, "{member}");
            assert!(reply.text.contains(member), "{}", reply.text);
        }
        for (said, what) in [
            (json!([]), "JSON object"),
            (json!({"stream_id": id, "delivery": {"method": "urn:x"}}), "method"),
            (json!({"stream_id": id, "delivery": {"method": "urn:ietf:rfc:8935"}}), "endpoint_url"),
            (json!({"stream_id": id, "events_requested": "all"}), "events_requested"),
            (json!({"stream_id": id, "description": 1}), "description"),
        ] {
            let reply = one.call(Method::PATCH, "/ssf/streams", said).await;
            assert_eq!(reply.status, 400, "{what}");
            assert!(reply.text.contains(what), "{}", reply.text);
        }
        // Addresses of private networks, and plain ones, are posted to by nobody.
        for url in [
            "https://10.0.0.1/events",
            "https://169.254.169.254/",
            "http://soc.example/events",
            "https://user:pass@soc.example/",
            "https://[fd00::1]/",
            "ftp://soc.example/",
        ] {
            let said = json!({"stream_id": id, "delivery": push_to(url)});
            let reply = one.call(Method::PATCH, "/ssf/streams", said).await;
            assert_eq!(reply.status, 400, "{url}");
            assert!(reply.text.contains("endpoint_url"), "{}", reply.text);
        }
        // Its status; while it is paused nothing goes out, and nothing is lost.
        let status = |status: &str| json!({"stream_id": id, "status": status, "reason": "move"});
        assert_eq!(one.call(Method::POST, "/ssf/status", status("asleep")).await.status, 400);
        let paused = one.call(Method::POST, "/ssf/status", status("paused")).await.json;
        assert_eq!(paused, json!({"stream_id": id, "status": "paused", "reason": "move"}));
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        tell(&world).await;
        assert_eq!(listener.heard().len(), 0);
        one.call(Method::POST, "/ssf/status", status("enabled")).await;
        tell(&world).await;
        assert_eq!(words(&listener.heard()), ["session-revoked"], "it asked for these alone");
        // A verification event comes as all others do; not as often as one likes.
        let verify = json!({"stream_id": id, "state": "s-1"});
        assert_eq!(one.call(Method::POST, "/ssf/verification", verify.clone()).await.status, 204);
        assert_eq!(one.call(Method::POST, "/ssf/verification", verify.clone()).await.status, 429);
        tell(&world).await;
        let heard = listener.heard();
        assert_eq!(heard[0]["events"], json!({format!("{SSF}/verification"): {"state": "s-1"}}));
        assert_eq!(heard[0]["sub_id"], json!({"format": "opaque", "id": id}));
        world.pass(11);
        assert_eq!(one.call(Method::POST, "/ssf/verification", verify).await.status, 204);
        // Deleted: nothing waits for it any more.
        let gone = one.call(Method::DELETE, &at("/ssf/streams"), Value::Null).await;
        assert_eq!(gone.status, 204);
        assert_eq!(one.call(Method::GET, "/ssf/streams", Value::Null).await.json, json!([]));
        assert_eq!(tell(&world).await, 0);
        // Who may not listen gets no token; a public client cannot be let.
        let ask = world.ask(&world.idp, "/token", &[("grant_type", "client_credentials")]);
        assert_eq!(world.send(&ask).await.str("error"), "unauthorized_client");
        let public: NewClient = serde_json::from_value(
            json!({"name": "P", "public": true, "redirect_uris": [CALLBACK], "signals": "everyone"}),
        )
        .unwrap();
        assert!(world.idp_admin().add::<Clients>(&public).await.is_err());
    }

    pub(super) async fn one_that_fetches_gets_all_until_it_says_that_it_has_it() {
        let world = World::new().await;
        let receiver = Receiver::new(&world, "soc", "everyone").await;
        let stream = receiver.stream(poll()).await;
        assert!(stream["delivery"]["endpoint_url"].as_str().unwrap().contains("/ssf/poll/"));
        world.sign_in().await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        let now = json!({"returnImmediately": true, "maxEvents": 1});
        let first = receiver.poll(&stream, now.clone()).await;
        assert_eq!(first.status, 200, "{}", first.text);
        let sets = first.json["sets"].as_object().unwrap().clone();
        assert_eq!((sets.len(), &first.json["moreAvailable"]), (1, &json!(true)));
        let (jti, token) = sets.iter().next().unwrap();
        assert_eq!(Parts::of(token.as_str().unwrap()).claims["jti"], jti.as_str());
        // The same again, letter by letter in what it says, until it is acknowledged; what others have is none of its business.
        let again = receiver.poll(&stream, now.clone()).await.json;
        let again = again["sets"].as_object().unwrap();
        assert_eq!(again.keys().next(), Some(jti));
        let said = |token: &Value| Parts::of(token.as_str().unwrap()).claims;
        assert_eq!(said(&again[jti]), said(token));
        let next =
            json!({"returnImmediately": true, "maxEvents": 1_000_000, "ack": [jti, "strange"]});
        let rest = receiver.poll(&stream, next).await.json;
        let sets = rest["sets"].as_object().unwrap();
        assert!(!sets.contains_key(jti) && !sets.is_empty() && rest.get("moreAvailable").is_none());
        // One that it could not read is gone, on record.
        let (bad, _) = sets.iter().next().unwrap();
        let errors = json!({bad.clone(): {"err": "invalid_key", "description": "no such key"}});
        let acks: Vec<&String> = sets.keys().filter(|key| *key != bad).collect();
        let last = json!({"returnImmediately": true, "ack": acks, "setErrs": errors});
        assert_eq!(receiver.poll(&stream, last).await.json["sets"], json!({}));
        let told = rows(&world.idp_store, "signal.told").await;
        let refused = told.iter().find(|row| row.outcome == "refused").unwrap();
        assert_eq!(reason(refused), "signal.not_taken");
        assert!(refused.details["detail"].contains("invalid_key"));
        for wrong in
            [json!({"maxEvents": -1}), json!({"ack": "x"}), json!({"returnImmediately": 1})]
        {
            assert_eq!(receiver.poll(&stream, wrong.clone()).await.status, 400, "{wrong}");
        }
        // Members that are `null` are left out; there is more only where it is for this listener.
        let only = json!({"stream_id": stream["stream_id"], "events_requested": [format!("{RISC}/account-enabled")]});
        assert_eq!(receiver.call(Method::PATCH, "/ssf/streams", only).await.status, 200);
        world.idp_admin().switch::<Users>("max", false).await.unwrap();
        world.idp_admin().switch::<Users>("max", true).await.unwrap();
        world.idp_admin().switch::<Users>("max", false).await.unwrap();
        let nulls =
            json!({"returnImmediately": true, "maxEvents": 1, "ack": null, "setErrs": null});
        let one = receiver.poll(&stream, nulls).await;
        assert_eq!(one.status, 200, "{}", one.text);
        assert!(one.json.get("moreAvailable").is_none(), "{}", one.text);
        let jti = one.json["sets"].as_object().unwrap().keys().next().unwrap();
        receiver.poll(&stream, json!({"returnImmediately": true, "ack": [jti]})).await;
        // One that waits hears within a moment.
        let (reply, ()) = tokio::join!(receiver.poll(&stream, json!({})), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        });
        let sets = reply.json["sets"].as_object().unwrap().clone();
        let heard: Vec<Value> =
            sets.values().map(|token| Parts::of(token.as_str().unwrap()).claims).collect();
        assert_eq!(words(&heard), ["account-enabled"]);
        assert_eq!(tell(&world).await, 0, "nothing is posted anywhere");
        // One that may not listen any more while it waits hears nothing.
        let jtis: Vec<&String> = sets.keys().collect();
        let (reply, ()) = tokio::join!(receiver.poll(&stream, json!({"ack": jtis})), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.idp_admin().switch::<Clients>("soc", false).await.unwrap();
            world.idp_admin().switch::<Users>("erin", false).await.unwrap();
            world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        });
        assert_eq!(reply.status, 401, "{}", reply.text);
    }

    pub(super) async fn one_that_takes_nothing_is_asked_later_and_paused_after_a_day() {
        let world = World::new().await;
        let receiver = Receiver::new(&world, "soc", "everyone").await;
        let listener = Listener::start().await;
        receiver.stream(push_to(&listener.url)).await;
        listener.answers(400, r#"{"err":"invalid_key","description":"unknown kid"}"#);
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        assert_eq!(tell(&world).await, 1);
        let first = listener.heard();
        assert_eq!(first.len(), 1, "the next one waits for it");
        assert_eq!((tell(&world).await, listener.heard().len()), (0, 0), "not at once again");
        let shown = &world.idp_admin().streams().await.unwrap().items[0];
        assert_eq!(shown.waiting, 3);
        assert!(shown.failure.as_deref().unwrap().contains("invalid_key"));
        world.pass(3);
        listener.answers(202, "");
        assert_eq!(tell(&world).await, 1);
        let second = listener.heard();
        assert_eq!(
            words(&second),
            ["account-disabled", "session-revoked", "account-enabled"],
            "in their order"
        );
        assert_eq!(first[0]["jti"], second[0]["jti"], "it can tell that it was told");
        // What it refuses time and again is dropped, on record, and keeps nothing else from it.
        listener.answers(400, r#"{"err":"invalid_request","description":"no such subject"}"#);
        world.idp_admin().switch::<Users>("max", false).await.unwrap();
        for _ in 0..8 {
            tell(&world).await;
            world.pass(61);
        }
        let refused = listener.heard();
        assert_eq!(refused.len(), 8, "two events, four times each");
        let dropped = rows(&world.idp_store, "signal.told").await;
        let dropped: Vec<_> = dropped.iter().filter(|row| row.outcome == "refused").collect();
        assert_eq!((dropped.len(), reason(dropped[0])), (2, "signal.not_taken"));
        // One that takes nothing for a day is paused, on record; what waits stays.
        listener.answers(503, "");
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        for _ in 0..30 {
            tell(&world).await;
            world.pass(3600);
        }
        listener.heard();
        assert_eq!((tell(&world).await, listener.heard().len()), (0, 0));
        let shown = &world.idp_admin().streams().await.unwrap().items[0];
        assert_eq!((shown.status.as_str(), shown.waiting), ("paused", 2));
        assert!(shown.reason.as_deref().unwrap().contains("503"));
        let paused = &rows(&world.idp_store, "signal_stream").await[0];
        assert_eq!(reason(paused), "signal.paused");
        // The listener has it go on.
        listener.answers(202, "");
        let token = receiver.token(None).await.str("access_token").to_owned();
        let receiver = Receiver { token, ..receiver };
        let body = json!({"stream_id": shown.id, "status": "enabled"});
        assert_eq!(receiver.call(Method::POST, "/ssf/status", body).await.status, 200);
        tell(&world).await;
        assert_eq!(words(&listener.heard()), ["account-disabled", "session-revoked"]);
    }

    pub(super) async fn what_is_changed_counts_from_the_next_event_on() {
        let world = World::new().await;
        let receiver = Receiver::new(&world, "soc", "everyone").await;
        let (listener, other) = (Listener::start().await, Listener::start().await);
        let stream = receiver.stream(push_to(&listener.url)).await;
        let id = &stream["stream_id"];
        // Each with an id of its own, however many come in one second.
        for _ in 0..3 {
            world.idp_admin().switch::<Users>("max", false).await.unwrap();
        }
        tell(&world).await;
        let mut ids: Vec<_> = listener.heard().iter().map(|set| set["jti"].to_string()).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), count >= 3), (count, true));
        let more = async || {
            for on in [true, false, true, false, true] {
                world.idp_admin().switch::<Users>("max", on).await.unwrap();
            }
        };
        let later = async |act: Value, path: &str, method: Method| {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let reply = receiver.call(method, path, act).await;
            assert!(reply.status < 300, "{}", reply.text);
        };
        listener.slow.store(200, Ordering::Relaxed);
        for (act, path, method) in [
            (json!({"stream_id": id, "status": "paused"}), "/ssf/status", Method::POST),
            (
                json!({"stream_id": id, "delivery": push_to(&other.url)}),
                "/ssf/streams",
                Method::PATCH,
            ),
        ] {
            more().await;
            let enabled = json!({"stream_id": id, "status": "enabled"});
            let _ = tokio::join!(tell(&world), later(act, path, method));
            let heard = listener.heard().len();
            assert!((1..=4).contains(&heard), "{path}: {heard}");
            receiver.call(Method::POST, "/ssf/status", enabled).await;
            tell(&world).await;
            let (rest, there) = (listener.heard().len(), other.heard().len());
            assert!(if path == "/ssf/status" {
                there == 0 && rest > 0
            } else {
                rest == 0 && there > 0
            });
        }
        // A change of two sides at once loses neither.
        let status = receiver.call(
            Method::POST,
            "/ssf/status",
            json!({"stream_id": id, "status": "paused"}),
        );
        let name = receiver.call(
            Method::PATCH,
            "/ssf/streams",
            json!({"stream_id": id, "description": "d"}),
        );
        let (status, name) = tokio::join!(status, name);
        assert_eq!((status.status, name.status), (200, 200));
        let path = format!("/ssf/status?stream_id={}", id.as_str().unwrap());
        assert_eq!(receiver.call(Method::GET, &path, Value::Null).await.str("status"), "paused");
    }

    pub(super) async fn a_token_for_streams_ends_with_its_client_and_by_revocation() {
        let world = World::new().await;
        let receiver = Receiver::new(&world, "soc", "everyone").await;
        let status = async |receiver: &Receiver<'_>| {
            receiver.call(Method::GET, "/ssf/streams", Value::Null).await.status
        };
        assert_eq!(status(&receiver).await, 200);
        let revoke = world.ask(&world.idp, "/revoke", &[("token", &receiver.token)]);
        let revoked = world.send(&revoke.basic("soc", &receiver.secret)).await;
        assert_eq!(revoked.status, 200);
        assert_eq!(status(&receiver).await, 401);
        let token = receiver.token(None).await.str("access_token").to_owned();
        let receiver = Receiver { token, ..receiver };
        assert_eq!(status(&receiver).await, 200);
        // One of the same name inherits nothing.
        assert!(world.administer(Method::DELETE, "/idp/clients/soc", None).await.status < 300);
        let successor = Receiver::new(&world, "soc", "everyone").await;
        assert_eq!((status(&receiver).await, status(&successor).await), (401, 200));
    }

    /// What another party signs, and pushes.
    struct Other<'a> {
        world: &'a World,
        fake: &'a FakeUpstream,
        made: TransmitterView,
    }

    impl Other<'_> {
        fn claims(&self, events: &Value) -> Value {
            json!({"iss": self.fake.issuer, "aud": "https://us.example", "iat": self.world.now().0,
                "jti": self.world.id(), "events": events,
                "sub_id": {"format": "iss_sub", "iss": self.fake.issuer, "sub": "erin-there"}})
        }

        fn revoked(&self) -> Value {
            let at = self.world.now().0;
            self.claims(&json!({format!("{CAEP}/session-revoked"): {"event_timestamp": at}}))
        }

        async fn push(&self, token: &str) -> Reply {
            self.push_as(self.made.authorization_header.as_deref(), token).await
        }

        async fn push_as(&self, header: Option<&str>, token: &str) -> Reply {
            let mut ask = bare(Method::POST, &self.made.endpoint_url)
                .header("content-type", "application/secevent+jwt");
            if let Some(header) = header {
                ask = ask.header("authorization", header);
            }
            self.world.send_body(&ask, token.as_bytes().to_vec()).await
        }

        async fn say(&self, claims: &Value) -> Reply {
            self.push(&self.fake.sign("secevent+jwt", claims)).await
        }
    }

    fn new_transmitter(fake: &FakeUpstream, speaks_for: &str) -> NewTransmitter {
        serde_json::from_value(json!({"name": "corp-signals", "issuer": fake.issuer,
            "audience": "https://us.example", "speaks_for": speaks_for, "algorithm": "ES256"}))
        .unwrap()
    }

    #[allow(clippy::too_many_lines, reason = "a table, and what stands around it")]
    pub(super) async fn signals_of_an_upstream_end_what_came_by_way_of_it() {
        let world = World::new().await;
        let fake = FakeUpstream::start(&world, "").await;
        world.add_upstream("corp", &fake, json!({"domains": ["acme.example"]})).await;
        let nobody = world.idp_admin().add::<Transmitters>(&new_transmitter(&fake, "else")).await;
        assert!(nobody.is_err(), "there is no such upstream");
        let made =
            world.idp_admin().add::<Transmitters>(&new_transmitter(&fake, "corp")).await.unwrap();
        let other = Other { world: &world, fake: &fake, made };
        let is_open = async |browser: &mut Browser| {
            let page = browser.get(&world, &world.idp.endpoint("/account")).await;
            page.status == 200 && page.text.contains("Erin")
        };
        let sign_in = async || {
            fake.claim("auth_time", json!(world.now().0));
            let mut browser = Browser::default();
            let (url, _) = world.authorize_url(AGENT, "&login_hint=erin%40acme.example");
            let (_, reply) = world.follow(&mut browser, &url).await;
            assert!(reply.status < 400, "{}", reply.text);
            assert!(is_open(&mut browser).await, "signed in");
            browser
        };
        let mut browser = sign_in().await;
        // Wrong in one respect each: refused by the word for it, and nothing ends.
        let with = |name: &str, value: Value| {
            let mut claims = other.revoked();
            claims[name] = value;
            claims
        };
        let right = fake.sign("secevent+jwt", &other.revoked());
        for header in [None, Some("Bearer wrong"), Some("Basic eDp5")] {
            let reply = other.push_as(header, &right).await;
            assert_eq!((reply.status, reply.str("err")), (401, "authentication_failed"));
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
        let mut tampered = right.clone();
        tampered.replace_range(
            right.len() - 4..right.len() - 3,
            if right.as_bytes()[right.len() - 4] == b'A' { "B" } else { "A" },
        );
        for (token, err) in [
            (fake.sign("JWT", &other.revoked()), "invalid_request"),
            (fake.sign("logout+jwt", &other.revoked()), "invalid_request"),
            ("nothing".to_owned(), "invalid_request"),
            (String::new(), "invalid_request"),
            (tampered, "invalid_key"),
            (
                fake.sign("secevent+jwt", &with("iss", json!("https://else.example"))),
                "invalid_issuer",
            ),
            (
                fake.sign("secevent+jwt", &with("aud", json!("https://else.example"))),
                "invalid_audience",
            ),
            (
                fake.sign("secevent+jwt", &with("aud", json!(["https://us.example", "x"]))),
                "invalid_audience",
            ),
            (fake.sign("secevent+jwt", &with("aud", Value::Null)), "invalid_audience"),
            (
                fake.sign("secevent+jwt", &with("iat", json!(world.now().0 + 120))),
                "invalid_request",
            ),
            (
                fake.sign("secevent+jwt", &with("iat", json!(world.now().0 - 15 * 86_400))),
                "invalid_request",
            ),
            (fake.sign("secevent+jwt", &with("events", json!({}))), "invalid_request"),
            (fake.sign("secevent+jwt", &with("events", json!([]))), "invalid_request"),
            (fake.sign("secevent+jwt", &with("jti", Value::Null)), "invalid_request"),
        ] {
            let reply = other.push(&token).await;
            assert_eq!((reply.status, reply.str("err")), (400, err), "{}", reply.text);
            assert!(!reply.str("description").is_empty());
        }
        assert!(is_open(&mut browser).await);
        // Right, and about nobody here, or nothing that ends access: taken, and nothing ends.
        for claims in [
            with("sub_id", json!({"format": "iss_sub", "iss": fake.issuer, "sub": "max-there"})),
            with(
                "sub_id",
                json!({"format": "iss_sub", "iss": "https://else.example", "sub": "erin-there"}),
            ),
            with("sub_id", json!({"format": "email", "email": "nobody@acme.example"})),
            with("sub_id", json!({"format": "phone_number", "phone_number": "+1"})),
            with("sub_id", json!({"format": "complex", "tenant": {"format": "opaque", "id": "t"}})),
            with("sub_id", json!("erin-there")),
            with("sub", json!("erin-there")),
            with("exp", json!(world.now().0 + 60)),
            with("events", json!({"urn:unknown": {}})),
            with("events", json!({format!("{RISC}/account-enabled"): {}})),
            with("events", json!({format!("{SSF}/verification"): {"state": "s"}})),
        ] {
            let reply = other.say(&claims).await;
            assert_eq!(reply.status, 202, "{claims}: {}", reply.text);
            assert!(is_open(&mut browser).await, "{claims}");
        }
        // Of before the sign-in: what is newer stays, in whatever order they come.
        let old = with(
            "events",
            json!({format!("{CAEP}/session-revoked"): {"event_timestamp": world.now().0 - 600}}),
        );
        assert_eq!(other.say(&old).await.status, 202);
        assert!(is_open(&mut browser).await, "it began later");
        // Every way to say it.
        for (name, value) in [
            (
                "events",
                json!({format!("{CAEP}/session-revoked"): {"event_timestamp": world.now().0 * 1000}}),
            ),
            ("events", json!({format!("{RISC}/account-disabled"): {"reason": "hijacking"}})),
            ("events", json!({format!("{RISC}/account-purged"): {}})),
            (
                "events",
                json!({format!("{RISC}/credential-compromise"): {"credential_type": "password"}}),
            ),
            (
                "events",
                json!({format!("{CAEP}/assurance-level-change"): {"change_direction": "decrease"}}),
            ),
            ("events", json!({format!("{CAEP}/credential-change"): {"change_type": "revoke"}})),
            ("sub_id", json!({"format": "email", "email": "erin@acme.example"})),
            ("sub_id", json!({"format": "opaque", "id": "erin-there"})),
            (
                "sub_id",
                json!({"format": "complex", "user":
                {"format": "iss_sub", "iss": fake.issuer, "sub": "erin-there"}}),
            ),
            // As Keycloak says it.
            (
                "sub_id",
                json!({"format": "complex", "session": {"format": "opaque", "id": "ALL"},
                    "user": {"format": "iss_sub", "iss": fake.issuer, "sub": "erin-there"}}),
            ),
        ] {
            let mut browser = sign_in().await;
            let reply = other.say(&with(name, value.clone())).await;
            assert_eq!(reply.status, 202, "{value}: {}", reply.text);
            assert!(!is_open(&mut browser).await, "{value}");
        }
        // The earlier drafts name the person in the event.
        let mut browser = sign_in().await;
        let mut claims = other.claims(&json!({format!("{CAEP}/session-revoked"): {"subject":
            {"format": "iss_sub", "iss": fake.issuer, "sub": "erin-there"}}}));
        claims.as_object_mut().unwrap().remove("sub_id");
        assert_eq!(other.say(&claims).await.status, 202);
        assert!(!is_open(&mut browser).await);
        // Twice, and signed anew: once in effect.
        let token = fake.sign("secevent+jwt", &other.revoked());
        assert_eq!(other.push(&token).await.status, 202);
        world.pass(60);
        let mut browser = sign_in().await;
        assert_eq!(other.push(&token).await.status, 202);
        let mut anew = Parts::of(&token).claims;
        anew["iat"] = json!(world.now().0);
        assert_eq!(other.say(&anew).await.status, 202);
        assert!(is_open(&mut browser).await);
        let heard = rows(&world.idp_store, "signal.heard").await;
        assert!(heard.iter().any(|row| row.outcome == "granted" && !row.person.is_empty()));
        assert!(heard.iter().any(|row| reason(row) == "signal.unknown"));
        // The time counts of what ends access, not of what stands beside it.
        let beside = with(
            "events",
            json!({
            format!("{CAEP}/token-claims-change"): {"event_timestamp": world.now().0 - 86_400},
            "urn:unknown": {"event_timestamp": 1},
            format!("{CAEP}/session-revoked"): {"event_timestamp": world.now().0}}),
        );
        let mut other_browser = sign_in().await;
        assert_eq!(other.say(&beside).await.status, 202);
        assert!(!is_open(&mut other_browser).await);
        let mut browser = sign_in().await;
        // Another header, and switched off: the one before opens nothing.
        let renewed = world.idp_admin().renew_transmitter("corp-signals").await.unwrap();
        let revoked = fake.sign("secevent+jwt", &other.revoked());
        assert_eq!(other.push(&revoked).await.status, 401);
        world.idp_admin().switch::<Transmitters>("corp-signals", false).await.unwrap();
        let header = renewed.authorization_header;
        assert_eq!(other.push_as(header.as_deref(), &revoked).await.status, 401);
        assert!(is_open(&mut browser).await);
        world.idp_admin().switch::<Transmitters>("corp-signals", true).await.unwrap();
        assert_eq!(other.push_as(header.as_deref(), &revoked).await.status, 202);
        assert!(!is_open(&mut browser).await);
        // It goes with the upstream: another one of the same name has none.
        assert!(world.administer(Method::DELETE, "/idp/upstreams/corp", None).await.status < 300);
        assert!(world.idp_admin().show::<Transmitters>("corp-signals").await.is_err());
        assert_eq!(other.push_as(header.as_deref(), &revoked).await.status, 401);
    }

    pub(super) async fn signals_of_a_trusted_issuer_end_what_was_issued_for_it() {
        let world = World::new().await;
        let tokens = world.sign_in().await;
        let token = crate::access_ended::redeemed(&world, &tokens).await;
        let active = async || {
            let ask = world.ask(&world.ras, "/introspect", &[("token", &token)]);
            world.send(&ask).await.json["active"].as_bool().unwrap()
        };
        assert!(active().await);
        // The IdP's own stream, to the authorization server.
        let new = json!({"name": "acme", "issuer": world.idp.as_str(), "audience": "soc",
            "speaks_for": world.idp.as_str(), "algorithm": "ES256"});
        let made = world.administer(Method::POST, "/ras/ras/transmitters", Some(new)).await;
        assert!(made.status < 300, "{}", made.text);
        let receiver = Receiver::new(&world, "soc", "everyone").await;
        let delivery = json!({"method": "urn:ietf:rfc:8935", "endpoint_url": made.json["endpoint_url"],
            "authorization_header": made.json["authorization_header"]});
        let stream = receiver.stream(delivery).await;
        // The database's clock, which says when a record was changed, is not the clock of this world.
        let only = json!({"stream_id": stream["stream_id"], "events_requested": [format!("{CAEP}/session-revoked")]});
        receiver.call(Method::PATCH, "/ssf/streams", only).await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        assert!(active().await, "nobody has told it");
        assert_eq!(tell(&world).await, 1);
        let shown = &world.idp_admin().streams().await.unwrap().items[0];
        assert_eq!((shown.waiting, &shown.failure), (0, &None));
        assert!(!active().await);
        let heard = rows(&world.ras_store, "signal.heard").await;
        assert!(
            heard
                .iter()
                .any(|row| row.details.get("signal").is_some_and(|s| s == "session-revoked"))
        );
    }
}
