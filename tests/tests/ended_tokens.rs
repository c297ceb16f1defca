//! The feed of ended tokens: whichever way a token ends, the guards before MCP servers are told.

use passavant_outbound::{Events, Outbound, Reach};
use passavant_proto::{
    oauth::ended_tokens::{EndedTokens, Position},
    secret::Secret,
};
use passavant_resource::{Feed, Guard, Introspection, WithoutFeed};
use passavant_tests::{
    forge::{Key, Parts},
    gate::{Gate, call},
    world::{AGENT_AT_RAS, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const GUARD: &str = "canvas-server";

/// Registers the guard of canvas. Returns its secret.
async fn guard(world: &World) -> Secret {
    let new = json!({"id": GUARD, "name": "Canvas", "resources": [world.canvas]});
    let made = world.administer(Method::POST, "/ras/ras/clients", Some(new)).await;
    Secret::new(made.str("client_secret"))
}

fn follow(world: &World) -> tokio::task::JoinHandle<()> {
    let ras = world.ras_role.get().unwrap().clone();
    tokio::spawn(async move { ras.follow_ended_tokens().await })
}

fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn redeemed(world: &World) -> String {
    let reply = world.send(&world.redeem(&world.id_jag(&world.id_jag_claims()))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.str("access_token").to_owned()
}

fn claim(token: &str, name: &str) -> String {
    Parts::of(token).claims[name].as_str().unwrap().to_owned()
}

async fn stands(world: &World, token: &str) -> bool {
    world.ras_role.get().unwrap().stands(&Secret::new(token)).await.unwrap()
}

/// Ways in which the tokens of an account end, or may: the path of an act at the RAS.
fn ways(world: &World, account: &str) -> Vec<(&'static str, Method, String, Option<Value>)> {
    let (post, delete, patch) = (Method::POST, Method::DELETE, Method::PATCH);
    let issuer = segment(world.idp.as_str());
    let canvas = segment(&world.canvas);
    vec![
        ("account off", post.clone(), format!("/accounts/{account}/disable"), None),
        ("account gone", delete.clone(), format!("/accounts/{account}"), None),
        ("issuer off", post.clone(), format!("/trusted-issuers/{issuer}/disable"), None),
        ("issuer gone", delete.clone(), format!("/trusted-issuers/{issuer}"), None),
        ("client off", post.clone(), format!("/clients/{AGENT_AT_RAS}/disable"), None),
        ("client gone", delete.clone(), format!("/clients/{AGENT_AT_RAS}"), None),
        ("MCP server off", post, format!("/resources/{canvas}/disable"), None),
        ("MCP server gone", delete, format!("/resources/{canvas}"), None),
        (
            "scopes changed",
            patch,
            format!("/resources/{canvas}"),
            Some(json!({"scopes": ["read", "write", "more"]})),
        ),
    ]
}

/// What is told since a position: whether it concerns the token.
async fn is_told_of(world: &World, since: Position, token: &str) -> bool {
    let told = world.ras_store.ended_tokens(Some(since), None, world.now()).await.unwrap().ended;
    told.any || told.tokens.contains(&claim(token, "jti"))
}

async fn position(world: &World) -> Position {
    world.ras_store.ended_tokens(None, None, world.now()).await.unwrap().position
}

#[tokio::test]
async fn whichever_way_a_token_ends_guards_are_told_of_it() {
    let count = ways(&World::new().await, "").len();
    for at in 0..count {
        let world = World::new().await;
        let token = redeemed(&world).await;
        let account = claim(&token, "sub");
        let (name, method, path, body) = ways(&world, &account).swap_remove(at);
        let since = position(&world).await;
        redeemed(&world).await;
        assert!(!is_told_of(&world, since, &token).await, "{name}: nothing has ended");
        let done = world.administer(method, &format!("/ras/ras{path}"), body).await;
        assert!((200..300).contains(&done.status), "{name}: {}", done.text);
        assert!(is_told_of(&world, since, &token).await, "{name}");
        assert_eq!(stands(&world, &token).await, name == "scopes changed", "{name}");
    }
    // By the parties themselves.
    let world = World::new().await;
    let (one, two) = (redeemed(&world).await, redeemed(&world).await);
    let since = position(&world).await;
    let revoke = world.ask(&world.ras, "/revoke", &[("token", &one)]);
    assert_eq!(world.send(&revoke).await.status, 200);
    assert!(is_told_of(&world, since, &one).await && !stands(&world, &one).await);
    assert!(!is_told_of(&world, since, &two).await && stands(&world, &two).await);
    let since = position(&world).await;
    let body = json!({"sub_id": {"format": "opaque", "id": "erin-id"}});
    let url = world.ras.endpoint("/global_token_revocation");
    let now = world.now().0;
    let claims = json!({"iss": world.idp, "sub": "x", "iat": now, "exp": now + 60,
        "jti": world.id(), "aud": url});
    let jwt = signed(&world.idp_key, &claims);
    let reply = world.call(&url, &[("authorization", &format!("Bearer {jwt}"))], &body).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    assert!(is_told_of(&world, since, &two).await && !stands(&world, &two).await);
}

fn signed(key: &Key, claims: &Value) -> String {
    let header = key.header("global-token-revocation+jwt");
    key.sign(&header.to_string(), claims.to_string().as_bytes())
}

/// Subscribes to the feed with these parameters.
async fn listen(world: &World, after: Option<&str>, secret: &Secret) -> Result<Events, String> {
    let outbound = Outbound::new(&[]).unwrap();
    let form: Vec<(&str, &str)> = after.iter().map(|after| ("after", *after)).collect();
    let url = world.ras.endpoint("/ended_tokens");
    let basic = (GUARD, secret.expose());
    let events = outbound.post_for_events(&url, Reach::Loopback, &form, basic, 1 << 20).await;
    events.map_err(|error| error.to_string())
}

async fn next(events: &mut Events) -> (EndedTokens, String) {
    let event = tokio::time::timeout(Duration::from_secs(3), events.next()).await;
    let event = event.expect("no event came").unwrap().expect("the stream ended");
    assert_eq!(event.name.as_deref(), Some("ended_tokens"));
    (EndedTokens::parse(&event.data.unwrap()), event.id.unwrap())
}

#[tokio::test]
async fn the_feed_is_for_guards_and_goes_on_where_it_was() {
    let world = World::new().await;
    let secret = guard(&world).await;
    let busy = listen(&world, None, &secret).await.err().unwrap();
    assert!(busy.contains("503"), "nobody reads what has ended: {busy}");
    let following = follow(&world);
    tokio::task::yield_now().await;
    // Who is no guard hears nothing.
    let wrong = listen(&world, None, &Secret::new("wrong")).await.err().unwrap();
    assert!(wrong.contains("401"), "{wrong}");
    let ask = world.ask(&world.ras, "/ended_tokens", &[]);
    let reply = world.send(&ask).await;
    assert_eq!((reply.status, reply.str("error")), (403, "unauthorized_client"));
    let public = world.ask(&world.ras, "/ended_tokens", &[]).no_header("authorization");
    assert_eq!(world.send(&public).await.status, 401);
    // At first everything is to be asked about; then what ends is named.
    let mut events = listen(&world, None, &secret).await.unwrap();
    let (first, _) = next(&mut events).await;
    assert!(first.any);
    let (one, two, three) =
        (redeemed(&world).await, redeemed(&world).await, redeemed(&world).await);
    let revoke = async |token: &str| {
        let revoke = world.ask(&world.ras, "/revoke", &[("token", token)]);
        assert_eq!(world.send(&revoke).await.status, 200);
    };
    revoke(&one).await;
    let at = loop {
        let (told, at) = next(&mut events).await;
        if told.tokens == [claim(&one, "jti")] && !told.any {
            break at;
        }
        // Its first look at the database tells of anything.
        assert!(told.tokens.is_empty(), "{told:?}");
    };
    drop(events);
    revoke(&two).await;
    revoke(&three).await;
    let mut events = listen(&world, Some(&at), &secret).await.unwrap();
    let (missed, _) = next(&mut events).await;
    assert_eq!(missed.tokens, [claim(&two, "jti"), claim(&three, "jti")]);
    assert!(!missed.any);
    // What is no position, is one of another database, or is too old, may have missed anything.
    let now = world.now().0;
    let ahead = format!("999999.{now}");
    let old = format!("1.{}", now - 1000);
    for after in ["", "x", "-1.5", "1", ahead.as_str(), old.as_str()] {
        let mut events = listen(&world, Some(after), &secret).await.unwrap();
        assert!(next(&mut events).await.0.any, "{after:?}");
    }
    // There are beats while nothing ends, and the stream ends with who reads.
    let mut beats = 0;
    while beats < 2 {
        let (told, _) = next(&mut events).await;
        // What it caught up with may come once more.
        assert!(told == EndedTokens::default() || told == missed, "{told:?}");
        beats += usize::from(told == EndedTokens::default());
    }
    following.abort();
    let end = tokio::time::timeout(Duration::from_secs(2), async {
        while events.next().await.unwrap().is_some() {}
    });
    end.await.expect("the stream goes on");
}

#[tokio::test]
async fn a_client_has_so_many_streams_and_takes_no_room_of_another() {
    let world = World::new().await;
    let secret = guard(&world).await;
    let other = json!({"id": "other", "name": "Other", "resources": [world.boards]});
    let other = world.administer(Method::POST, "/ras/ras/clients", Some(other)).await;
    let following = follow(&world);
    tokio::task::yield_now().await;
    let mut open = Vec::new();
    let full = loop {
        match listen(&world, None, &secret).await {
            Ok(events) => open.push(events),
            Err(full) => break full,
        }
    };
    assert!(open.len() == 256 && full.contains("429"), "{}: {full}", open.len());
    let basic = ("other", other.str("client_secret"));
    let url = world.ras.endpoint("/ended_tokens");
    let outbound = Outbound::new(&[]).unwrap();
    let events = outbound.post_for_events(&url, Reach::Loopback, &[], basic, 1 << 20).await;
    assert!(next(&mut events.unwrap()).await.0.any);
    // Who hangs up makes room.
    open.truncate(200);
    let begun = Instant::now();
    while listen(&world, None, &secret).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "no room");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort();
}

#[tokio::test]
async fn a_guard_that_hears_the_feed_refuses_at_once_and_asks_no_more_than_it_must() {
    let world = World::new().await;
    let secret = guard(&world).await;
    let following = follow(&world);
    let outbound = Outbound::new(&[]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let guard = |without| {
        let ras = world.ras.as_str();
        let guard = Guard::new(&world.canvas, ras, outbound.clone(), world.clock()).unwrap();
        guard.host(&host).introspect_or(outbound.clone(), GUARD, secret.clone(), without)
    };
    let ticks = || async {
        let every = tokio::time::interval(Duration::from_millis(5));
        let ticks = futures::stream::unfold(every, |mut every| async move {
            every.tick().await;
            Some((Ok::<_, std::convert::Infallible>("tick"), every))
        });
        let kind = [("content-type", "Text/Event-Stream; charset=utf-8")];
        (kind, axum::body::Body::from_stream(ticks))
    };
    let router = axum::Router::new()
        .route("/streams", axum::routing::post(ticks).layer(guard(WithoutFeed::Ask)))
        .route("/asks", axum::routing::post(|| async { "in" }).layer(guard(WithoutFeed::Ask)))
        .route(
            "/refuses",
            axum::routing::post(|| async { "in" }).layer(guard(WithoutFeed::Refuse)),
        );
    tokio::spawn(async move { axum::serve(listener, router).await });
    let call = |path: &str, token: &str| {
        let (world, url, bearer) =
            (&world, format!("http://{host}{path}"), format!("Bearer {token}"));
        async move { world.call(&url, &[("authorization", &bearer)], &json!({})).await.status }
    };
    let (revoked, kept) = (redeemed(&world).await, redeemed(&world).await);
    let open = async |token: &str| {
        let request = world.http.post(format!("http://{host}/streams")).bearer_auth(token);
        let mut stream = request.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        assert!(stream.chunk().await.unwrap().is_some());
        stream
    };
    let read = |mut stream: reqwest::Response| async move {
        while matches!(stream.chunk().await, Ok(Some(_))) {}
    };
    let streams = [open(&revoked).await, open(&kept).await];
    let streams = streams.map(|stream| tokio::spawn(read(stream)));
    // Without the feed one guard asks, and the other one refuses until it is heard.
    assert_eq!(call("/asks", &kept).await, 200);
    let begun = Instant::now();
    while call("/refuses", &kept).await != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the feed is not heard");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for path in ["/asks", "/refuses"] {
        assert_eq!((call(path, &revoked).await, call(path, &kept).await), (200, 200), "{path}");
    }
    // In the same second of the clock: without the feed the answer of before would hold.
    let revoke = world.ask(&world.ras, "/revoke", &[("token", &revoked)]);
    assert_eq!(world.send(&revoke).await.status, 200);
    let begun = Instant::now();
    for path in ["/asks", "/refuses"] {
        while call(path, &revoked).await != 401 {
            assert!(begun.elapsed() < Duration::from_secs(5), "{path}: still let in");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(call(path, &kept).await, 200, "{path}: the revoked one alone");
    }
    let [ends, stays] = streams;
    tokio::time::timeout(Duration::from_secs(5), ends).await.expect("its stream goes on").unwrap();
    assert!(!stays.is_finished(), "the stream of the other one has ended");
    // Silence: the one asks each second of the clock, the other one lets nobody in.
    following.abort();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!((call("/asks", &kept).await, call("/refuses", &kept).await), (200, 503));
    let revoke = world.ask(&world.ras, "/revoke", &[("token", &kept)]);
    assert_eq!(world.send(&revoke).await.status, 200);
    world.pass(1);
    assert_eq!((call("/asks", &kept).await, call("/refuses", &kept).await), (401, 503));
}

#[tokio::test]
async fn open_streams_and_calls_under_way_end_with_what_the_feed_names() {
    let world = World::new().await;
    let secret = guard(&world).await;
    let following = follow(&world);
    let outbound = Outbound::new(&[]).unwrap();
    let credentials = (GUARD, secret);
    let introspection = Introspection::new(
        outbound,
        world.ras.clone(),
        credentials,
        WithoutFeed::Ask,
        world.clock(),
    );
    let feed: Feed = introspection.feed().clone();
    let heard = feed.clone();
    let gate = Gate::with(&world, move |settings| settings.feed = Some(heard)).await;
    while !feed.is_live() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let token = gate.token(&world, "erin", "read").await;
    let other = gate.token(&world, "max", "read").await;
    let mut ends = gate.stream(&world, &token, &call("stream")).await;
    let mut stays = gate.stream(&world, &other, &call("stream")).await;
    for stream in [&mut ends, &mut stays] {
        let chunk = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await;
        assert!(chunk.unwrap().unwrap().is_some());
    }
    let slow = tokio::spawn({
        let (http, url, token) = (world.http.clone(), gate.url.clone(), token.clone());
        async move {
            let request = http.post(url).bearer_auth(token).header("accept", "application/json");
            let request = request.header("content-type", "application/json");
            request.body(call("slow").to_string()).send().await.unwrap().status()
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The clock stands still: nothing but the feed ends them.
    let revoke = world.ask(&world.ras, "/revoke", &[("token", &token)]);
    assert_eq!(world.send(&revoke).await.status, 200);
    let end = tokio::time::timeout(Duration::from_secs(5), ends.chunk()).await;
    assert!(matches!(end.expect("the stream goes on"), Ok(None)));
    assert_eq!(slow.await.unwrap(), 401, "a call under way ends with its token");
    assert_eq!(gate.call(&world, &token, "echo").await.status, 401);
    assert_eq!(gate.call(&world, &other, "echo").await.status, 200);
    // What the feed does not name, but what may have ended, is asked about.
    let account = claim(&other, "sub");
    let canvas = format!("/ras/ras/resources/{}/disable", segment(&gate.url));
    assert_eq!(world.administer(Method::POST, &canvas, None).await.status, 200, "{account}");
    let end = tokio::time::timeout(Duration::from_secs(5), stays.chunk()).await;
    assert!(matches!(end.expect("the stream goes on"), Ok(None)));
    drop(introspection);
    following.abort();
}
