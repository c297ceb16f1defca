//! A tool call of 1 KiB: straight to an MCP server, through a bare hyper reverse proxy, through
//! nginx as a plain proxy, and through the gateway, which verifies the token, decides for the tool
//! and records the call. The proxies run one at a time, alone on the first core; MCP server and
//! load share the second.

use crate::{
    load::{self, Measured, Plan, Shot, read_answer},
    parties::{Parties, SECRET, agent, clock, put},
    pin, post,
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::client::GovernedResource,
    oauth::scope::Scopes,
    xaa::trust::{AccountResolution, TrustedIssuer},
};
use passavant_store::Store;
use serde_json::json;
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

type Body = BoxBody<Bytes, hyper::Error>;

/// Number of open streams, if the system allows one process that many files.
const STREAMS: usize = 10_000;
/// Number of samples for measurements on one connection.
const TRIES: usize = 300;

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}

/// The MCP server: the same response for every call, and for `stream` one event and then silence.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if body.windows(8).any(|window| window == b"\"stream\"") {
        let event = Bytes::from_static(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"ping\"}\n\n");
        let first = futures::stream::once(async move { Ok(Frame::data(event)) });
        let stream = futures::StreamExt::chain(first, futures::stream::pending());
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
        let kind = header::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ok"}]}}"#;
    let mut response = Response::new(whole(text));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    listener
}

/// Main function of the MCP server's process.
pub(crate) async fn serve_upstream() {
    pin(1);
    let listener = listen().await;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            // When the connection ends, the load has ended.
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

/// Main function of the bare proxy's process: the same server and client libraries as the
/// gateway's, and nothing else.
pub(crate) async fn serve_proxy(upstream: &str) {
    pin(0);
    let listener = listen().await;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1024).build(connector);
    let to: hyper::Uri = format!("http://{upstream}/mcp").parse().unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, to) = (client.clone(), to.clone());
        let pass = service_fn(move |mut request: Request<Incoming>| {
            *request.uri_mut() = to.clone();
            request.headers_mut().remove(header::HOST);
            client.request(request)
        });
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), pass).await;
        });
    }
}

/// Starts a process of this program that prints the address it listens at.
async fn start(arguments: &[&str]) -> (Child, SocketAddr) {
    let mut child = many_files(&std::env::current_exe().unwrap(), arguments, None)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("it did not start");
    (child, line.parse().unwrap())
}

/// A command for a program that may open many files, pinned to a core if one is given.
fn many_files(program: &Path, arguments: &[&str], core: Option<usize>) -> Command {
    let mut command = Command::new("sh");
    let pinned = core.map_or(String::new(), |core| format!("taskset -c {core} "));
    let script = format!("ulimit -n 65536 2>/dev/null; exec {pinned}\"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(program).args(arguments).kill_on_drop(true);
    command
}

async fn wait_for(address: SocketAddr) {
    for _ in 0..100 {
        if TcpStream::connect(address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing listens on {address}");
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn nginx(folder: &Path, upstream: SocketAddr) -> Option<(Child, SocketAddr)> {
    let address = free();
    let config = format!(
        "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;\n\
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; keepalive_requests 1000000000;\n\
         upstream mcp {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://mcp; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; }} }} }}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let program =
        ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|p| Path::new(p).exists())?;
    let arguments = ["-p", folder.to_str().unwrap(), "-c", file.to_str().unwrap()];
    let child = many_files(Path::new(program), &arguments, Some(0)).spawn().unwrap();
    wait_for(address).await;
    Some((child, address))
}

/// Starts the gateway as `passavant serve` runs it: together with an authorization server, both on
/// the first core.
async fn gateway(
    folder: &Path,
    upstream: SocketAddr,
    parties: &Parties,
) -> (Child, SocketAddr, String) {
    let passavant = std::env::current_exe().unwrap().with_file_name("passavant");
    assert!(
        passavant.exists(),
        "the gateway is measured as it is used: run `cargo build --release` first"
    );
    let address = free();
    let resource = format!("http://{address}/mcp");
    for (name, text) in [("passavant.key", SECRET), ("passavant.admin-secret", SECRET)] {
        let text =
            if name == "passavant.key" { &passavant_proto::secret::sha256(b"a key") } else { text };
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
    }
    let config = format!(
        "[keys]\nfile = \"passavant.key\"\n[log]\nfilter = \"error\"\n\
         [[ras]]\nname = \"ras\"\nissuer = \"http://{address}\"\nlisten = \"{address}\"\n\
         database = \"sqlite:ras.db\"\n\
         [[gateway]]\nlisten = \"{address}\"\nfolder = \"gateway\"\n\
         [[gateway.route]]\nresource = \"{resource}\"\nupstream = \"http://{upstream}/mcp\"\n\
         authorization_server = \"http://{address}\"\nrequire = [\"read\"]\n\
         limits = {{ per_person_minute = 4000000000, per_client_minute = 4000000000, \
         concurrent_per_person = 20000, concurrent = 20000 }}\n\
         [[gateway.route.rule]]\ntools = [\"draw\", \"stream\"]\nscopes = [\"write\"]\n"
    );
    let file = folder.join("passavant.toml");
    std::fs::write(&file, config).unwrap();
    let database = folder.join("ras.db");
    std::fs::write(&database, b"").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&database, mode).unwrap();
    let store = Store::open(&format!("sqlite:{}", database.display())).await.unwrap();
    let scopes: Scopes = ["read", "write"].into_iter().collect();
    let governed = GovernedResource {
        resource: Resource::parse(&resource).unwrap(),
        name: String::new(),
        scopes,
        default_scopes: Scopes::default(),
        descriptions: std::collections::BTreeMap::new(),
        access_token_lifetime: Some(3600),
        access_token_signing_alg: None,
        require_dpop: false,
        disabled: false,
    };
    put(&store, &governed).await;
    put(&store, &agent("agent-at-ras")).await;
    let trusted = TrustedIssuer {
        issuer: parties.issuer(0),
        jwks_uri: None,
        algorithm: Algorithm::ES256,
        tenant: None,
        audience_tenant: None,
        accounts: AccountResolution { just_in_time: true, email_domains: Vec::new() },
        allow_reuse: false,
        client_documents: false,
        sign_in: None,
        disabled: false,
    };
    put(&store, &trusted).await;
    store.close().await;
    let arguments = ["serve", "--config", file.to_str().unwrap()];
    let child = many_files(&passavant, &arguments, Some(0)).spawn().unwrap();
    wait_for(address).await;
    let issuer = Issuer::parse(&format!("http://{address}")).unwrap();
    let shot = parties.redemption_at(&issuer, &resource, clock().now());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(shot.0.replace("{host}", &address.to_string()).as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream, &mut Vec::new()).await;
    let body: serde_json::Value =
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    (child, address, body["access_token"].as_str().unwrap().to_owned())
}

fn shot(tool: &str, token: &str) -> Shot {
    let bearer = format!("Bearer {token}");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                      "params": {"name": tool, "arguments": {"text": "x".repeat(930)}}});
    let headers =
        [("authorization", bearer.as_str()), ("accept", "application/json, text/event-stream")];
    post("/mcp", "application/json", &headers, &call.to_string())
}

/// The median time from a request to the first byte of the first event in its response.
async fn first_event(address: SocketAddr, token: &str) -> Duration {
    let request = shot("stream", token).0.replace("{host}", &address.to_string());
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_event(&mut stream).await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn read_event(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while !bytes.windows(6).any(|window| window == b"data: ") {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the stream ended");
        assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes));
    }
}

/// Resident memory of a process, in MiB.
fn resident(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// How many streams are possible: each takes two files of the gateway.
fn streams_that_fit(child: &Child) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = own.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mine: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    STREAMS.min((files - 500) / 2).min(mine - 500)
}

/// Measures and prints.
pub(crate) async fn measure(parties: &Parties, connections: usize, time: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, upstream_at) = start(&["upstream"]).await;
    println!(
        "\ntools/call of 1 KiB, each proxy alone on the first core, MCP server and load on the second:\n"
    );
    println!(
        "{:<36} {:>9} {:>9} {:>9} {:>14} {:>12}",
        "", "req/s", "p50 ms", "p99 ms", "p50 ms alone", "of hyper"
    );
    let mut bare = 0.0;
    let show = |name: &str, many: &Measured, one: &Measured, bare: f64| {
        let share = if bare > 0.0 {
            format!("{:>10.0} %", 100.0 * many.rate / bare)
        } else {
            String::new()
        };
        println!(
            "{name:<36} {:>9.0} {:>9.2} {:>9.2} {:>14.3} {share:>12}",
            many.rate,
            many.p50.as_secs_f64() * 1000.0,
            many.p99.as_secs_f64() * 1000.0,
            one.p50.as_secs_f64() * 1000.0,
        );
    };
    let run = async |address: SocketAddr, token: &str| {
        let plan = Plan { address, shots: vec![shot("draw", token)] };
        let many = load::measure(&plan, connections, time).await;
        (many, load::measure(&plan, 1, time / 2).await)
    };
    let (many, one) = run(upstream_at, "none").await;
    show("straight", &many, &one, 0.0);
    let straight_event = first_event(upstream_at, "none").await;
    {
        let (_child, address) = start(&["proxy", &upstream_at.to_string()]).await;
        let (many, one) = run(address, "none").await;
        bare = many.rate.max(bare);
        show("bare hyper reverse proxy", &many, &one, 0.0);
    }
    match nginx(folder.path(), upstream_at).await {
        Some((mut child, address)) => {
            let (many, one) = run(address, "none").await;
            show("nginx, plain proxy", &many, &one, bare);
            // Its worker process ends with it only after SIGQUIT.
            let id = child.id().unwrap().to_string();
            let asked = Command::new("kill").args(["-QUIT", &id]).status().await;
            assert!(asked.unwrap().success());
            child.wait().await.unwrap();
        }
        None => {
            println!(
                "nginx, plain proxy                   is not installed: apt-get install nginx"
            );
        }
    }
    let gateway_folder: PathBuf = folder.path().join("gateway");
    std::fs::create_dir(&gateway_folder).unwrap();
    let (child, address, token) = gateway(&gateway_folder, upstream_at, parties).await;
    let before = resident(&child);
    let (many, one) = run(address, &token).await;
    show("gateway", &many, &one, bare);
    let event = first_event(address, &token).await;
    println!(
        "\nfirst event of a stream, median of {TRIES}: straight {:.3} ms, gateway {:.3} ms",
        straight_event.as_secs_f64() * 1000.0,
        event.as_secs_f64() * 1000.0
    );
    streams(&child, address, &token, before).await;
    let journal: u64 = std::fs::read_dir(gateway_folder.join("gateway"))
        .unwrap()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    println!("journal: {:.0} MiB written", journal as f64 / 1024.0 / 1024.0);
    drop((child, upstream));
}

/// Opens streams and keeps them open.
async fn streams(child: &Child, address: SocketAddr, token: &str, before: f64) {
    let most = streams_that_fit(child);
    let request = shot("stream", token).0.replace("{host}", &address.to_string());
    let mut open = Vec::new();
    let mut line = format!(
        "gateway, resident: {before:.0} MiB at first, {:.0} after the load",
        resident(child)
    );
    for goal in [most / 10, most / 2, most] {
        while open.len() < goal {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            read_event(&mut stream).await;
            open.push(stream);
        }
        line.push_str(&format!(", {:.0} with {goal} open streams", resident(child)));
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    line.push_str(&format!(", {:.0} ten seconds later", resident(child)));
    drop(open);
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("{line}, {:.0} when they were closed", resident(child));
}
