//! The stdio bridge in front of scripted servers: each request is answered exactly once, whatever
//! happens.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode},
};
use passavant_client::{Browser, Purpose, bridge::Bridge};
use passavant_tests::world::World;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream},
    sync::oneshot,
    time::timeout,
};

/// One request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn id(&self) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body.get("id").cloned().unwrap_or_default()
    }
}

type Answer = Box<dyn FnOnce(&Seen) -> Response<Body> + Send>;

/// A server that answers with the test's responses, in order; after that with 405.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<(Method, Answer)>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    fn on(&self, method: Method, answer: impl FnOnce(&Seen) -> Response<Body> + Send + 'static) {
        self.answers.lock().unwrap().push_back((method, Box::new(answer)));
    }

    fn post(&self, answer: impl FnOnce(&Seen) -> Response<Body> + Send + 'static) {
        self.on(Method::POST, answer);
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn router(&self, name: &str) -> Router {
        Router::new().route(&format!("/{name}"), axum::routing::any(serve)).with_state(self.clone())
    }
}

async fn serve(State(script): State<Script>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let seen = Seen { method: parts.method, headers: parts.headers, body };
    script.seen.lock().unwrap().push(seen.clone());
    let answer = {
        let mut answers = script.answers.lock().unwrap();
        let at = answers.iter().position(|(method, _)| *method == seen.method);
        at.and_then(|at| answers.remove(at))
    };
    match answer {
        Some((_, answer)) => answer(&seen),
        None => status(405, ""),
    }
}

fn status(code: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn answer(body: &str) -> Response<Body> {
    let mut response = status(200, body);
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn result(seen: &Seen, result: &str) -> Response<Body> {
    answer(&format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, seen.id()))
}

fn events(text: &str) -> Response<Body> {
    let mut response = status(200, text);
    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    response
}

/// A running bridge, with its two ends.
struct Wire {
    input: DuplexStream,
    lines: tokio::io::Lines<BufReader<DuplexStream>>,
    done: tokio::task::JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Wire {
    async fn to(world: &World, url: &str) -> Self {
        let desk = world.desk("erin").await;
        Self::of(desk.client, url)
    }

    fn of(client: passavant_client::Client, url: &str) -> Self {
        let (input, read) = tokio::io::duplex(1 << 20);
        let (write, output) = tokio::io::duplex(1 << 20);
        let (stop, stopped) = oneshot::channel();
        let url = url.to_owned();
        let done = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            Bridge::run(client, &url, read, write, stop).await.unwrap();
        });
        Self { input, lines: BufReader::new(output).lines(), done, stop: Some(stop) }
    }

    async fn send(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn text(&mut self) -> String {
        let line = timeout(Duration::from_secs(20), self.lines.next_line()).await;
        line.expect("no answer").unwrap().expect("the bridge ended")
    }

    async fn line(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("only JSON on standard output")
    }

    /// Whether nothing more arrives for a while.
    async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.lines.next_line()).await.is_err()
    }

    async fn begin(&mut self, script: &Script, session: Option<&'static str>) {
        script.post(move |seen| {
            let mut response =
                result(seen, r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
            if let Some(session) = session {
                response.headers_mut().insert("mcp-session-id", session.parse().unwrap());
            }
            response
        });
        script.post(|_| status(202, ""));
        self.send(INITIALIZE).await;
        assert_eq!(self.line().await["id"], "i");
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"x":12345678901234567890123},"clientInfo":{"name":"t","version":"1"}}}"#;

fn modern(id: &str, method: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}{more}}}}}"#
    )
}

#[tokio::test]
async fn messages_pass_byte_for_byte_with_the_headers_of_their_era() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("bytes", script.router("bytes")).await;
    let mut wire = Wire::to(&world, &url).await;
    wire.begin(&script, Some("s-1")).await;
    let odd = r#"{"jsonrpc":"2.0","params":{"b":1e300,"a":9007199254740993,"a2":"\u00e9"},"id":7,"method":"tools/list"}"#;
    script.post(|_| {
        answer(
            "{\"id\":7,\n \"result\":{\"z\":1,\"big\":9007199254740993},\r\n\"jsonrpc\":\"2.0\"}",
        )
    });
    wire.send(odd).await;
    assert_eq!(
        wire.text().await,
        "{\"id\":7,  \"result\":{\"z\":1,\"big\":9007199254740993},  \"jsonrpc\":\"2.0\"}"
    );
    let called = modern("\"m\"", "tools/call", r#","name":"héllo","arguments":{}"#);
    script.post(|seen| result(seen, "{}"));
    wire.send(&called).await;
    assert_eq!(wire.line().await["id"], "m");
    let seen: Vec<Seen> =
        script.seen().into_iter().filter(|seen| seen.method == Method::POST).collect();
    assert_eq!(seen[0].body, INITIALIZE);
    assert_eq!(seen[0].header("mcp-protocol-version"), "", "nothing is settled yet");
    assert_eq!(seen[2].body, odd);
    assert_eq!(seen[2].header("mcp-session-id"), "s-1");
    assert_eq!(seen[2].header("mcp-protocol-version"), "2025-11-25");
    assert_eq!(seen[3].body, called);
    assert_eq!(seen[3].header("mcp-session-id"), "", "stateless messages have no session");
    assert_eq!(seen[3].header("mcp-protocol-version"), "2026-07-28");
    assert_eq!(seen[3].header("mcp-method"), "tools/call");
    assert_eq!(seen[3].header("mcp-name"), "=?base64?aMOpbGxv?=");
    for seen in &seen {
        assert_eq!(seen.header("authorization"), "", "the guard takes it out; it was there");
        assert!(seen.header("accept").contains("text/event-stream"));
    }
    // The end of input ends the session.
    drop(wire.input);
    timeout(Duration::from_secs(2), wire.done).await.expect("it lingers").unwrap();
    let last = script.seen().pop().unwrap();
    assert_eq!((last.method.clone(), last.header("mcp-session-id")), (Method::DELETE, "s-1"));
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_begun_anew_once() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("forgets", script.router("forgets")).await;
    let mut wire = Wire::to(&world, &url).await;
    wire.begin(&script, Some("s-1")).await;
    for _ in 0..2 {
        script.post(|_| status(404, "Session not found"));
    }
    script.post(|seen| {
        assert!(seen.body.contains("12345678901234567890123"), "the client's own words");
        assert_eq!(seen.header("mcp-session-id"), "");
        let mut response = result(seen, r#"{"protocolVersion":"2025-11-25"}"#);
        response.headers_mut().insert("mcp-session-id", "s-2".parse().unwrap());
        response
    });
    script.post(|_| status(202, ""));
    for _ in 0..2 {
        script.post(|seen| {
            assert_eq!(seen.header("mcp-session-id"), "s-2");
            result(seen, "{}")
        });
    }
    wire.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    wire.send(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#).await;
    let mut ids = [wire.line().await["id"].clone(), wire.line().await["id"].clone()];
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [json!(1), json!(2)]);
    assert!(wire.is_quiet().await, "the answer to the bridge's own request leaked");
    // A 404 about the method does not mean that the session is lost.
    script.post(|seen| {
        let body = format!(r#"{{"id":{},"error":{{"code":-32601,"message":"no"}}}}"#, seen.id());
        status(404, &body)
    });
    wire.send(r#"{"jsonrpc":"2.0","id":3,"method":"nothing"}"#).await;
    assert_eq!(wire.line().await["error"]["code"], -32601);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_taken_up_where_it_ended_or_said_to_be_lost() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("breaks", script.router("breaks")).await;
    let mut wire = Wire::to(&world, &url).await;
    // This server does not offer the stream for messages of its own.
    script.on(Method::GET, |_| status(405, ""));
    wire.begin(&script, Some("s")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    script.post(|_| {
        events(
            "id: e1\nretry: 10\ndata:\n\nid: e2\ndata: {\"method\":\"notifications/progress\"}\n\n",
        )
    });
    script.on(Method::GET, |seen| {
        assert_eq!(seen.header("last-event-id"), "e2");
        assert_eq!(seen.header("mcp-session-id"), "s");
        events("id: e3\ndata: {\"id\":1,\"result\":{\"ok\":true}}\n\n")
    });
    wire.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#).await;
    assert_eq!(wire.line().await["method"], "notifications/progress");
    assert_eq!(wire.line().await["result"]["ok"], true);
    // Without an event id a stream cannot be resumed; a stateless request is lost in any case.
    script.post(|_| events(": hello\n\n"));
    wire.send(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#).await;
    let lost = wire.line().await;
    assert_eq!(
        (&lost["id"], &lost["error"]["data"]["kind"]),
        (&json!(2), &json!("connection_lost"))
    );
    script.post(|_| events("id: e\nretry: 1\ndata: {\"method\":\"notifications/x\"}\n\n"));
    let gets = script.seen().iter().filter(|seen| seen.method == Method::GET).count();
    wire.send(&modern("3", "tools/call", r#","name":"x""#)).await;
    assert_eq!(wire.line().await["method"], "notifications/x");
    assert_eq!(wire.line().await["error"]["data"]["kind"], "connection_lost");
    let after = script.seen().iter().filter(|seen| seen.method == Method::GET).count();
    assert_eq!(gets, after, "a stateless stream is never resumed");
}

#[tokio::test]
async fn every_kind_of_error_is_one_answer_with_the_requests_own_id() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("errs", script.router("errs")).await;
    let mut wire = Wire::to(&world, &url).await;
    let cases: Vec<(&str, Answer, Value)> = vec![
        (
            "no id in it",
            Box::new(|_| {
                status(
                    400,
                    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}"#,
                )
            }),
            json!(-32000),
        ),
        (
            "the server's own",
            Box::new(|seen| {
                let id = seen.id();
                status(
                    400,
                    &format!(
                        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32022,"message":"m","data":{{"supported":[]}}}}}}"#
                    ),
                )
            }),
            json!(-32022),
        ),
        ("text", Box::new(|_| status(400, "Bad Request: no")), json!(-32603)),
        ("404", Box::new(|_| status(404, "<html>")), json!(-32603)),
        ("500", Box::new(|_| status(500, "")), json!(-32603)),
        ("202 to a request", Box::new(|_| status(202, "")), json!(-32603)),
        ("not an answer", Box::new(|_| status(200, "hello")), json!(-32603)),
        ("an empty JSON answer", Box::new(|_| answer("")), json!(-32603)),
        (
            "a redirect",
            Box::new(|_| {
                let mut response = status(307, "");
                response.headers_mut().insert("location", "https://evil.example/".parse().unwrap());
                response
            }),
            json!(-32603),
        ),
    ];
    for (n, (case, play, code)) in cases.into_iter().enumerate() {
        script.post(play);
        wire.send(&modern(&format!("\"n{n}\""), "resources/list", "")).await;
        let line = wire.line().await;
        assert_eq!(line["id"], format!("n{n}"), "{case}: {line}");
        assert_eq!(line["error"]["code"], code, "{case}: {line}");
        assert!(wire.is_quiet().await, "{case}: a second answer");
    }
    for (bad, code) in [("{", -32700), ("7", -32600), ("{}", -32600), ("[7]", -32600)] {
        wire.send(bad).await;
        assert_eq!(wire.line().await["error"]["code"], code, "{bad}");
    }
}

#[tokio::test]
async fn a_cancelled_stateless_call_closes_its_stream_and_says_nothing_more() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("slow", script.router("slow")).await;
    let mut wire = Wire::to(&world, &url).await;
    let gone = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&gone);
    script.post(move |_| {
        let guard = Dropped(held);
        let endless = futures::stream::unfold(guard, |guard| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>(": ping\n\n"), guard))
        });
        let mut response = Response::new(Body::from_stream(endless));
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    });
    wire.send(&modern("5", "tools/call", r#","name":"x""#)).await;
    while script.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // `"5"` is a different id from `5`: nothing happens.
    wire.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"5"}}"#)
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!gone.load(Ordering::SeqCst));
    wire.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#)
        .await;
    let closed = async {
        while !gone.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), closed).await.expect("the server was not told");
    assert!(wire.is_quiet().await);
    assert_eq!(script.seen().len(), 1, "a cancellation is not posted in this era");
}

#[tokio::test]
async fn a_call_whose_headers_are_refused_is_sent_again_after_a_look_at_the_schema() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("schema", script.router("schema")).await;
    let mut wire = Wire::to(&world, &url).await;
    let mismatch = |seen: &Seen| {
        assert_eq!(seen.header("mcp-param-region"), "");
        status(400, &format!(r#"{{"id":{},"error":{{"code":-32020,"message":"m"}}}}"#, seen.id()))
    };
    let list = r#"{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}"#;
    script.post(mismatch);
    script.post(move |seen| {
        assert!(seen.body.contains("tools/list") && !seen.body.contains("progressToken"));
        result(seen, list)
    });
    script.post(|seen| {
        assert_eq!(seen.header("mcp-param-region"), "eu");
        result(seen, r#"{"content":[]}"#)
    });
    let more = r#","name":"t","arguments":{"region":"eu"}"#;
    wire.send(&modern("1", "tools/call", more)).await;
    assert_eq!(wire.line().await["id"], 1);
    // The second refusal is the answer.
    let again = |seen: &Seen| {
        status(400, &format!(r#"{{"id":{},"error":{{"code":-32020,"message":"m"}}}}"#, seen.id()))
    };
    script.post(again);
    script.post(move |seen| result(seen, list));
    script.post(again);
    wire.send(&modern("2", "tools/call", more)).await;
    let line = wire.line().await;
    assert_eq!((&line["id"], &line["error"]["code"]), (&json!(2), &json!(-32020)));
    assert!(wire.is_quiet().await, "the bridge's own list leaked");
}

#[tokio::test]
async fn tokens_are_renewed_and_widened_without_a_word() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("tokens", script.router("tokens")).await;
    let mut wire = Wire::to(&world, &url).await;
    for n in 0..2 {
        script.post(|seen| result(seen, "{}"));
        wire.send(&modern(&n.to_string(), "tools/list", "")).await;
        assert_eq!(wire.line().await["id"], n);
        world.pass(301);
    }
    // The guard requires `write` for this tool: it answers 403 with the scopes, and the client
    // steps up.
    script.post(|seen| result(seen, "{}"));
    wire.send(&modern("9", "tools/call", r#","name":"write_it","arguments":{}"#)).await;
    assert_eq!(wire.line().await["id"], 9);
    let row = world.last_event(&world.ras_store).await;
    assert_eq!(row.details["scope"], "read write");
}

#[tokio::test]
async fn a_refusal_by_policy_tells_the_agent_what_its_person_can_do() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("refused", script.router("refused")).await;
    let desk = world.desk("max").await;
    let mut wire = Wire::of(desk.client, &url);
    wire.send(INITIALIZE).await;
    let line = wire.line().await;
    assert_eq!(
        line["error"]["message"],
        "Access to refused was refused by Acme's policy: group engineering required. Ask IT."
    );
    assert_eq!(line["error"]["data"]["kind"], "refused_by_policy");
    assert!(script.seen().is_empty(), "the server never heard of it");
    // After the sign-in has ended: without a browser, the error says what to do.
    let mut wire = Wire::to(&world, &url).await;
    let body = Some(json!({"password": "another long passphrase"}));
    world.administer(Method::POST, "/idp/users/erin/password", body).await;
    wire.send(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).await;
    let text = wire.line().await["error"]["message"].to_string();
    assert!(text.contains("passavant login"), "{text}");
}

/// A person who signs in whenever a browser opens, and counts how often that was.
struct Person {
    world: Arc<World>,
    opened: Arc<Mutex<Vec<Purpose>>>,
}

impl Browser for Person {
    fn open(&self, url: &str, purpose: Purpose) -> bool {
        self.opened.lock().unwrap().push(purpose);
        let (world, url) = (Arc::clone(&self.world), url.to_owned());
        tokio::spawn(async move {
            let (location, _) = world.browse(&url, "erin", passavant_tests::world::PASSWORD).await;
            world.http.get(location).send().await.unwrap();
        });
        true
    }
}

#[tokio::test]
async fn a_sign_in_that_has_ended_opens_one_tab_for_all_that_wait() {
    let world = Arc::new(World::new().await);
    let script = Script::default();
    let url = world.serve("ended", script.router("ended")).await;
    let desk = world.desk("erin").await;
    let opened = Arc::new(Mutex::default());
    let person = Person { world: Arc::clone(&world), opened: Arc::clone(&opened) };
    let client = desk.client.with_browser(Arc::new(person));
    world.pass(8 * 86_400);
    let mut wires = [Wire::of(client.clone(), &url), Wire::of(client, &url)];
    for wire in &mut wires {
        for id in 1..=3 {
            script.post(|seen| result(seen, "{}"));
            wire.send(&modern(&id.to_string(), "tools/list", "")).await;
        }
    }
    for wire in &mut wires {
        for _ in 1..=3 {
            let line = wire.line().await;
            assert!(line.get("result").is_some(), "{line}");
        }
    }
    assert_eq!(*opened.lock().unwrap(), [Purpose::SignIn], "one tab for all");
}

#[tokio::test]
async fn the_bridge_ends_when_it_is_told_and_when_nobody_reads() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("ends", script.router("ends")).await;
    let hang = || {
        let mut response = Response::new(Body::from_stream(futures::stream::pending::<
            Result<&str, std::io::Error>,
        >()));
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    };
    let mut told = Wire::to(&world, &url).await;
    script.post(move |_| hang());
    told.send(&modern("1", "tools/call", r#","name":"x""#)).await;
    while script.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = told.stop.take().unwrap().send(());
    timeout(Duration::from_secs(2), told.done).await.expect("it lingers").unwrap();
    let mut unread = Wire::to(&world, &url).await;
    drop(unread.lines);
    script.post(|seen| result(seen, "{}"));
    unread
        .input
        .write_all(format!("{}\n", modern("1", "tools/list", "")).as_bytes())
        .await
        .unwrap();
    timeout(Duration::from_secs(5), unread.done).await.expect("it lingers").unwrap();
    // A subscription has no end of its own: it ends with the input.
    let mut listening = Wire::to(&world, &url).await;
    script.post(move |_| hang());
    listening.send(&modern("1", "subscriptions/listen", "")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(listening.input);
    timeout(Duration::from_secs(2), listening.done).await.expect("it lingers").unwrap();
}

/// A stream without any event.
fn silence() -> Response<Body> {
    let stream = futures::stream::pending::<Result<&str, std::io::Error>>();
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    response
}

#[tokio::test]
async fn an_initialize_without_answer_holds_up_neither_the_end_nor_its_own_error() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("mute", script.router("mute")).await;
    let mut wire = Wire::to(&world, &url).await;
    script.post(|_| silence());
    wire.send(INITIALIZE).await;
    wire.send(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#).await;
    while script.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(wire.input);
    let line = timeout(Duration::from_secs(15), wire.lines.next_line()).await.expect("it lingers");
    let line: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
    assert_eq!((&line["id"], &line["error"]["data"]["kind"]), (&json!("i"), &json!("closed")));
    timeout(Duration::from_secs(3), wire.done).await.expect("it lingers").unwrap();
    assert_eq!(script.seen().len(), 1, "nothing is sent before the session is there");
}

#[tokio::test]
async fn lines_after_an_initialize_wait_for_its_answer_in_their_order() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("eager", script.router("eager")).await;
    let mut wire = Wire::to(&world, &url).await;
    script.post(|seen| {
        let id = seen.id();
        let late = async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let result = r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#;
            Ok::<_, std::io::Error>(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
        };
        let mut response = Response::new(Body::from_stream(futures::stream::once(late)));
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response.headers_mut().insert("mcp-session-id", "late".parse().unwrap());
        response
    });
    script.post(|_| status(202, ""));
    for _ in 0..3 {
        script.post(|seen| result(seen, "{}"));
    }
    wire.send(INITIALIZE).await;
    wire.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    for id in 1..=3 {
        wire.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)).await;
    }
    assert_eq!(wire.line().await["id"], "i");
    let mut ids: Vec<i64> = Vec::new();
    for _ in 1..=3 {
        ids.push(wire.line().await["id"].as_i64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    let posts: Vec<Seen> =
        script.seen().into_iter().filter(|seen| seen.method == Method::POST).collect();
    assert!(posts[1].body.contains("notifications/initialized"));
    assert!(posts[1..].iter().all(|seen| seen.header("mcp-session-id") == "late"));
}

#[tokio::test]
async fn an_endless_answer_is_an_error_and_many_small_events_are_not() {
    const MEBIBYTE: usize = 1024 * 1024;
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("huge", script.router("huge")).await;
    let mut wire = Wire::to(&world, &url).await;
    let endless = |start: &'static str, kind: &'static str, code: u16| {
        let chunks = std::iter::once(start.as_bytes().to_vec())
            .chain(std::iter::repeat_with(|| vec![b'a'; MEBIBYTE]));
        let chunks = futures::stream::iter(chunks.map(Ok::<_, std::io::Error>));
        let mut response = Response::new(Body::from_stream(chunks));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response.headers_mut().insert("content-type", kind.parse().unwrap());
        response
    };
    for (id, start, kind, code, told) in [
        ("1", "{\"jsonrpc\":\"2.0\",\"x\":\"", "application/json", 200, "too_large"),
        ("2", "data: ", "text/event-stream", 200, "too_large"),
        ("3", "<html>", "text/html", 502, "http_error"),
    ] {
        script.post(move |_| endless(start, kind, code));
        wire.send(&modern(id, "tools/call", r#","name":"x""#)).await;
        let line = wire.line().await;
        assert_eq!(line["error"]["data"]["kind"], told, "{line}");
    }
    // Many small events do not count as a large one.
    script.post(|seen| {
        let id = seen.id();
        let large = "a".repeat(MEBIBYTE);
        let event = format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"x/{large}\"}}\n\n");
        let last = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n");
        let chunks = std::iter::repeat_n(event, 40).chain(std::iter::once(last));
        let chunks = futures::stream::iter(chunks.map(Ok::<_, std::io::Error>));
        let mut response = Response::new(Body::from_stream(chunks));
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    });
    wire.send(&modern("4", "tools/call", r#","name":"x""#)).await;
    for _ in 0..40 {
        assert!(wire.line().await["method"].as_str().unwrap().len() > MEBIBYTE);
    }
    assert_eq!(wire.line().await["id"], 4);
}

/// An id is answered only if it was requested, and only once; a server that closes its stream at
/// once is not asked for it for ever.
#[tokio::test]
async fn an_answer_is_passed_on_once_and_an_empty_stream_is_left_alone() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("twice", script.router("twice")).await;
    let mut wire = Wire::to(&world, &url).await;
    script.on(Method::GET, |_| status(405, ""));
    wire.begin(&script, Some("s")).await;
    for stateless in [false, true] {
        script.post(|seen| {
            let id = seen.id();
            let answer = |id: &str, n: u8| {
                format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"n\":{n}}}}}\n\n")
            };
            let others = "data: {\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"m\"}}\n\n";
            let note = "data: {\"method\":\"notifications/x\"}\n\n";
            let text =
                [answer("77", 0), answer("\"11\"", 0), note.into(), answer(&id.to_string(), 1)];
            let again = [answer(&id.to_string(), 2), others.into(), note.into()];
            events(&(text.concat() + &again.concat()))
        });
        let line = if stateless {
            modern("11", "tools/call", r#","name":"x""#)
        } else {
            r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"x"}}"#.to_owned()
        };
        wire.send(&line).await;
        assert_eq!(wire.line().await["method"], "notifications/x", "{stateless}");
        assert_eq!(wire.line().await["result"]["n"], 1, "{stateless}");
        // The extra response is dropped: the next line answers the next request.
        script.post(|seen| result(seen, r#"{"n":3}"#));
        wire.send(&line.replace("11", "12")).await;
        assert_eq!(wire.line().await["result"]["n"], 3, "{stateless}");
    }
    let script = Script::default();
    let url = world.serve("empty", script.router("empty")).await;
    let mut wire = Wire::to(&world, &url).await;
    script.on(Method::GET, |_| events("retry: 0\n\n"));
    wire.begin(&script, Some("s")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let gets = script.seen().iter().filter(|seen| seen.method == Method::GET).count();
    assert!((2..=9).contains(&gets), "{gets} streams in three seconds");
}

#[tokio::test]
async fn nobody_is_asked_for_what_only_listens() {
    let world = Arc::new(World::new().await);
    let script = Script::default();
    let url = world.serve("listens", script.router("listens")).await;
    let desk = world.desk("erin").await;
    let opened = Arc::new(Mutex::default());
    let person = Person { world: Arc::clone(&world), opened: Arc::clone(&opened) };
    let mut wire = Wire::of(desk.client.with_browser(Arc::new(person)), &url);
    script.on(Method::GET, |_| events("retry: 200\ndata:\n\n"));
    wire.begin(&script, Some("s")).await;
    while script.seen().iter().all(|seen| seen.method != Method::GET) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The stream has ended, and so has the sign-in: the next attempt finds no token.
    world.pass(8 * 86_400);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(opened.lock().unwrap().is_empty(), "a tab opened although nobody asked for anything");
    script.post(|seen| result(seen, "{}"));
    wire.send(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#).await;
    assert_eq!(wire.line().await["id"], 5);
    assert_eq!(*opened.lock().unwrap(), [Purpose::SignIn], "for a request they are asked");
}

#[tokio::test]
async fn an_id_is_the_same_however_the_server_spells_it() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("spelled", script.router("spelled")).await;
    let mut wire = Wire::to(&world, &url).await;
    for (sent, told) in
        [(r#""req/1""#, r#""req\/1""#), (r#""é<""#, r#""\u00e9\u003c""#), ("7", "7.0")]
    {
        for stream in [false, true] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{told},"result":{{}}}}"#);
            script.post(
                move |_| {
                    if stream { events(&format!("data: {body}\n\n")) } else { answer(&body) }
                },
            );
            wire.send(&modern(sent, "tools/list", "")).await;
            let line = wire.line().await;
            assert!(line.get("result").is_some(), "{line}");
            assert!(wire.is_quiet().await, "{sent}: answered twice");
        }
    }
}

#[tokio::test]
async fn one_answer_for_one_id_and_none_for_an_empty_batch() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("twice", script.router("twice")).await;
    let mut wire = Wire::to(&world, &url).await;
    script.post(|_| silence());
    wire.send(&modern("1", "tools/call", r#","name":"x""#)).await;
    wire.send(&modern("1", "tools/call", r#","name":"y""#)).await;
    assert_eq!(wire.line().await["error"]["code"], -32600, "the second one");
    wire.send("[]").await;
    assert_eq!(wire.line().await["error"]["code"], -32600);
    assert!(script.seen().len() <= 1);
}

#[tokio::test]
async fn what_is_called_back_while_it_is_refused_is_not_sent_again() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("late", script.router("late")).await;
    let mut wire = Wire::to(&world, &url).await;
    wire.begin(&script, Some("s")).await;
    script.post(|_| {
        // The status arrives late; meanwhile the client cancels.
        std::thread::sleep(Duration::from_millis(600));
        status(401, "")
    });
    script.post(|_| status(202, ""));
    wire.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    wire.send(cancel).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let calls = script.seen().iter().filter(|seen| seen.body.contains("tools/call")).count();
    assert_eq!(calls, 1, "it was cancelled");
    assert!(wire.is_quiet().await);
}

#[tokio::test]
async fn a_queue_behind_an_initialize_is_answered_at_the_end_and_a_new_one_may_begin() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("queue", script.router("queue")).await;
    let mut wire = Wire::to(&world, &url).await;
    script.post(|_| silence());
    wire.send(INITIALIZE).await;
    while script.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"i"}}"#;
    wire.send(cancel).await;
    script.post(|_| silence());
    wire.send(INITIALIZE).await;
    while script.seen().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for id in 0..600 {
        wire.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)).await;
    }
    drop(wire.input);
    let mut answered = 0;
    while let Ok(Ok(Some(line))) = timeout(Duration::from_secs(15), wire.lines.next_line()).await {
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["error"]["data"]["kind"], "closed");
        answered += 1;
    }
    assert_eq!(answered, 601);
    timeout(Duration::from_secs(3), wire.done).await.expect("it lingers").unwrap();
}

/// A person who takes their time, and records the URLs that were opened.
struct Slow(Arc<Mutex<Vec<String>>>);

impl Browser for Slow {
    fn open(&self, url: &str, _: Purpose) -> bool {
        self.0.lock().unwrap().push(url.to_owned());
        true
    }
}

#[tokio::test]
async fn what_waits_for_a_sign_in_can_be_called_back_and_is_never_sent() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("waits", script.router("waits")).await;
    let desk = world.desk("erin").await;
    let opened = Arc::new(Mutex::default());
    let client = desk.client.with_browser(Arc::new(Slow(Arc::clone(&opened))));
    let mut wire = Wire::of(client, &url);
    world.pass(8 * 86_400);
    wire.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#).await;
    while opened.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    wire.send(cancel).await;
    assert!(wire.is_quiet().await, "nobody waits for it any more");
    let page = opened.lock().unwrap()[0].clone();
    let (location, _) = world.browse(&page, "erin", passavant_tests::world::PASSWORD).await;
    world.http.get(location).send().await.unwrap();
    script.post(|seen| result(seen, "{}"));
    wire.send(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).await;
    assert_eq!(wire.line().await["id"], 2);
    let sent: Vec<Value> = script.seen().iter().map(Seen::id).collect();
    assert_eq!(sent, [json!(2)], "neither the call nor its cancellation");
}

#[tokio::test]
async fn scopes_that_nobody_grants_are_asked_for_once() {
    let world = World::new().await;
    let script = Script::default();
    let url = world.serve("strict", script.router("strict")).await;
    let mut wire = Wire::to(&world, &url).await;
    for _ in 0..3 {
        script.post(|_| {
            let mut response = status(403, "");
            let challenge = r#"Bearer error="insufficient_scope", scope="read admin""#;
            response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            response
        });
    }
    wire.send(&modern("1", "tools/call", r#","name":"x""#)).await;
    let line = wire.line().await;
    assert_eq!(line["error"]["data"]["kind"], "scopes_not_granted", "{line}");
    assert!(line["error"]["message"].as_str().unwrap().contains("`admin`"), "{line}");
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn a_policy_that_wants_a_fresher_sign_in_has_the_person_sign_in_once() {
    let world = Arc::new(World::new().await);
    let script = Script::default();
    let url = world.serve("fresh", script.router("fresh")).await;
    let mut connection: passavant_proto::policy::Connection =
        world.idp_store.by_id("fresh-for-installations").await.unwrap().unwrap();
    connection.conditions.max_authentication_age = Some(60);
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.idp_store.put(&connection, passavant_store::Put::Replace, event).await.unwrap();
    let desk = world.desk("erin").await;
    let opened = Arc::new(Mutex::default());
    let person = Person { world: Arc::clone(&world), opened: Arc::clone(&opened) };
    let mut wire = Wire::of(desk.client.with_browser(Arc::new(person)), &url);
    world.pass(120);
    for id in ["1", "2"] {
        script.post(|seen| result(seen, "{}"));
        wire.send(&modern(id, "tools/list", "")).await;
        let line = wire.line().await;
        assert!(line.get("result").is_some(), "{line}");
    }
    assert_eq!(*opened.lock().unwrap(), [Purpose::StepUp]);
}

/// A renewal that was started is completed, even if the request that caused it is cancelled: the
/// refresh token it has sent is used up.
#[tokio::test]
async fn a_renewal_that_is_called_back_in_the_middle_loses_nothing() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    let newest = async || {
        let filter = passavant_store::AuditFilter { limit: 1, ..Default::default() };
        world.idp_store.audit(&filter).await.unwrap().remove(0).id
    };
    let server = desk.client.discover(&world.canvas).await.unwrap();
    for round in 0..8 {
        world.pass(3601);
        let (client, asked, before) = (desk.client.clone(), server.clone(), newest().await);
        let call = tokio::spawn(async move { client.id_jag(&asked, None).await.map(|_| ()) });
        // The identity provider has rotated the token, and its response is on the way.
        while newest().await == before {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _ = call.await;
        desk.client.settle().await;
        desk.client.id_jag(&server, None).await.unwrap_or_else(|error| panic!("{round}: {error}"));
    }
    let filter = passavant_store::AuditFilter { limit: 1000, ..Default::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    let reused = rows
        .iter()
        .any(|row| row.details.get("reason").is_some_and(|reason| reason == "refresh.reuse"));
    assert!(!reused, "a refresh token was sent twice");
}
