//! From the administrator's act to the last byte that reaches a person: an identity provider, two
//! authorization servers and ten gateways, people with open streams and calls under way.

use crate::{
    cast::{self, Cast},
    load::read_answer,
    parties::{SECRET, entropy},
    post,
};
use passavant_admin::{
    client::{AdminClient, Entry},
    types::Users,
};
use passavant_outbound::Outbound;
use passavant_proto::secret::Secret;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How many gateways each authorization server has.
pub(crate) const GATEWAYS: usize = 5;
/// People who are not cut off, with a stream each, all the time.
const OTHERS: usize = 60;
/// What is not over after this time is not cut off.
const PATIENCE: Duration = Duration::from_secs(20);

/// Prints the table for one database.
pub(crate) async fn measure(count: usize, database: Option<&str>) {
    let cast = cast::start(count + OTHERS, database).await;
    let name = if database.is_some() { "PostgreSQL" } else { "SQLite, durable" };
    let others = others(&cast, count).await;
    let mut took = Vec::with_capacity(count);
    for person in 0..count {
        took.push(cut_off(&cast, person).await);
    }
    took.sort_unstable();
    let at = |share: f64| {
        let at = ((count as f64 * share) as usize).min(count - 1);
        took[at].as_secs_f64() * 1000.0
    };
    println!(
        "\n{count} people cut off one after the other, each with two open streams and calls under way; two \
         authorization servers, {} gateways, {OTHERS} others with a stream each, {name}:\n",
        2 * GATEWAYS
    );
    println!(
        "  from the act to the last byte: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert_eq!(others.load(Ordering::SeqCst), OTHERS, "a stream of somebody else ended");
    println!("  streams of the others that ended: 0");
    cast.stop().await;
}

/// Streams of people whom nothing happens to. Returns how many are open.
async fn others(cast: &Cast, from: usize) -> Arc<AtomicUsize> {
    let open = Arc::new(AtomicUsize::new(OTHERS));
    for person in from..from + OTHERS {
        let at = person % (2 * GATEWAYS);
        let token = token(cast, person, at).await;
        let mut stream = stream(cast.gateways[at], &token).await;
        let open = Arc::clone(&open);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
    open
}

/// Cuts one person off. Returns when the last byte of a stream, or the last answer to a call, came.
async fn cut_off(cast: &Cast, person: usize) -> Duration {
    let (one, two) = (person % GATEWAYS, GATEWAYS + person % GATEWAYS);
    let (token_one, token_two) = (token(cast, person, one).await, token(cast, person, two).await);
    let streams = [stream(cast.gateways[one], &token_one), stream(cast.gateways[two], &token_two)];
    let [first, second] = streams;
    let streams = [first.await, second.await].map(|stream| tokio::spawn(last_byte(stream)));
    let other = token(cast, person, (person + 1) % GATEWAYS).await;
    let calls = tokio::spawn(last_call(cast.gateways[(person + 1) % GATEWAYS], other));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let entry = Entry::Secret(Secret::new(SECRET));
    let at = format!("http://{}", cast.admin);
    let admin = AdminClient::new(&at, entry, entropy(), Outbound::new(&[]).unwrap());
    let began = Instant::now();
    admin.idp().switch::<Users>(&format!("person-{person}"), false).await.unwrap();
    let mut last = calls.await.unwrap();
    for stream in streams {
        last = last.max(stream.await.unwrap());
    }
    last.saturating_duration_since(began)
}

async fn last_byte(mut stream: TcpStream) -> Instant {
    let (mut last, mut buffer) = (Instant::now(), [0; 4096]);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => last = Instant::now(),
            _ => return last,
        }
    }
    panic!("a stream goes on");
}

/// Calls without a pause until it is refused.
async fn last_call(gateway: SocketAddr, token: String) -> Instant {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let request = call(gateway, &token, "echo");
    let (mut last, mut buffer) = (Instant::now(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if stream.write_all(request.as_bytes()).await.is_err() {
            return last;
        }
        buffer.clear();
        while !buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            // A call under way ends with its connection.
            if !stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                return last;
            }
        }
        if buffer.starts_with(b"HTTP/1.1 401") {
            return last;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
        last = Instant::now();
        // The rest of the answer.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut rest = [0; 4096];
        let _ = stream.try_read(&mut rest);
    }
    panic!("calls go on");
}

fn call(gateway: SocketAddr, token: &str, tool: &str) -> String {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                      "params": {"name": tool, "arguments": {}}});
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
        // The end of a stream is the end of its connection.
        ("connection", if tool == "stream" { "close" } else { "keep-alive" }),
    ];
    let shot = post("/mcp", "application/json", &headers, &call.to_string());
    shot.0.replace("{host}", &gateway.to_string())
}

/// Opens a stream, and reads until its first event.
async fn stream(gateway: SocketAddr, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(call(gateway, token, "stream").as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    while !buffer.windows(5).any(|window| window == b"data:") {
        let read = stream.read_buf(&mut buffer).await.unwrap();
        assert!(read > 0, "no stream: {}", String::from_utf8_lossy(&buffer));
    }
    stream
}

/// An access token of a person for the MCP server behind a gateway: exchange and redemption.
async fn token(cast: &Cast, person: usize, gateway: usize) -> String {
    let ras = cast.ras[gateway / GATEWAYS];
    let resource = format!("http://{}/mcp", cast.gateways[gateway]);
    let id_jag = ask(cast.idp, &cast.exchange(person, ras, &resource)).await;
    let token = ask(ras, &cast::redemption(id_jag["access_token"].as_str().unwrap())).await;
    token["access_token"].as_str().unwrap().to_owned()
}

async fn ask(address: SocketAddr, shot: &crate::Shot) -> Value {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = shot.0.replace("{host}", &address.to_string());
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream, &mut Vec::new()).await;
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}
