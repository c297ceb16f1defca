//! One run prints one table: what one server core achieves, compared with the limits of its parts.
//!
//! The servers run in a process of their own, pinned to the first core; the load comes from this
//! process on the second. SQLite is durable (WAL, `synchronous=FULL`) on the disk of the temporary
//! folder.
//!
//! ```text
//! cargo build --profile dist                       # the gateway is measured as it is used
//! cargo run --profile dist -p passavant-benches            # about two minutes
//! cargo run --profile dist -p passavant-benches -- --seconds 2
//! cargo run --profile dist -p passavant-benches -- --gateway
//! cargo run --profile dist -p passavant-benches -- --people             # 50,000 of them, in SQLite
//! cargo run --profile dist -p passavant-benches -- --people postgres://…  # in an empty database there
//! cargo run --profile dist -p passavant-benches -- --provisioning       # they come by SCIM; so, too, with a database
//! cargo run --profile dist -p passavant-benches cut-offs 1000           # until nothing reaches a person
//! cargo run --profile dist -p passavant-benches cut-offs 1000 postgres://…  # two nodes of each server
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program for measuring: it stops at the first surprise, and figures are rounded"
)]

mod cast;
mod crowd;
mod cut_off;
mod gateway;
mod load;
mod parties;
mod people;
mod provisioning;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey,
    },
};
use load::{Measured, Shot};
use std::time::{Duration, Instant};

/// The same as in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Concurrent connections of the load.
const CONNECTIONS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // Parties that are many processes elsewhere have both cores; the load, and a server that is measured, one.
    let many = arguments.get(1).is_some_and(|first| first == "cast");
    let mut runtime = if many {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    runtime.enable_all().build().unwrap().block_on(run(arguments));
}

async fn run(arguments: Vec<String>) {
    if arguments.get(1).is_some_and(|first| first == "serve") {
        let crowd = parties::Crowd::of(&arguments[3..]);
        return parties::serve(&arguments[2], &crowd).await;
    }
    match arguments.get(1).map(String::as_str) {
        Some("upstream") => return gateway::serve_upstream().await,
        Some("cast") => {
            let people = arguments[3].parse().unwrap();
            return cast::run(&arguments[2], people, arguments.get(4).map(String::as_str)).await;
        }
        Some("cut-offs") => {
            let count = arguments.get(2).and_then(|count| count.parse().ok()).unwrap_or(1000);
            return cut_off::measure(count, arguments.get(3).map(String::as_str)).await;
        }
        Some("proxy") => return gateway::serve_proxy(&arguments[2]).await,
        _ => {}
    }
    let only_gateway = arguments.iter().any(|argument| argument == "--gateway");
    let seconds = arguments
        .iter()
        .position(|a| a == "--seconds")
        .and_then(|i| arguments.get(i + 1)?.parse().ok())
        .unwrap_or(5);
    let time = Duration::from_secs(seconds);
    pin(1);
    let asked = |what: &str| {
        let at = arguments.iter().position(|argument| argument == what)?;
        let database = arguments.get(at + 1).filter(|url| url.starts_with("postgres"));
        Some(database.map(String::as_str))
    };
    if let Some(database) = asked("--people") {
        return people::measure(database, CONNECTIONS, time).await;
    }
    if let Some(database) = asked("--provisioning") {
        return provisioning::measure(database, time).await;
    }
    if only_gateway {
        let parties = parties::start(CONNECTIONS, time).await;
        gateway::measure(&parties, CONNECTIONS, time).await;
        return parties.stop().await;
    }
    let signatures = Signatures::measure(time / 4);
    println!("raw, one core, ES256 with aws-lc:");
    println!("  sign                 {:>10.0} /s", signatures.sign);
    println!("  verify               {:>10.0} /s", signatures.verify);
    let parties = parties::start(CONNECTIONS, time).await;
    println!(
        "\nserver pinned to one core, {CONNECTIONS} connections, {seconds} s each, SQLite durable:\n"
    );
    println!(
        "{:<36} {:>9} {:>9} {:>9} {:>11} {:>7}",
        "", "req/s", "p50 ms", "p99 ms", "bound req/s", "share"
    );
    let floor = parties.measure(&parties.empty(), time).await;
    row("empty form POST (the floor)", &floor, None);
    let bound = |signs: f64, verifies: f64| {
        1.0 / (signs / signatures.sign + verifies / signatures.verify + 1.0 / floor.rate)
    };
    let by_id_token = parties.measure(&parties.exchange_by_id_token(), time).await;
    row("token exchange, ID token", &by_id_token, Some(bound(1.0, 1.0)));
    let by_refresh = parties.measure(&parties.exchange_by_refresh_token(), time).await;
    row("token exchange, refresh token", &by_refresh, Some(bound(1.0, 0.0)));
    let assertions = parties.assertions((bound(1.0, 1.0) * time.as_secs_f64()) as usize + 1000);
    let redeemed = parties.measure(&assertions, time).await;
    row("redemption, distinct ID-JAGs", &redeemed, Some(bound(1.0, 1.0)));
    let call = parties.call().await;
    let called = parties.measure(&call, time).await;
    row("tool call, resource layer, one token", &called, Some(bound(0.0, 0.0)));
    println!("\nserver process: {:.1} MiB resident at the end", parties.resident());
    println!(
        "bound = 1 / (signs / sign rate + verifies / verify rate + 1 / floor). The layer remembers a \
         verified token\nfor up to a minute, so the bound of a tool call is the floor alone."
    );
    gateway::measure(&parties, CONNECTIONS, time).await;
    parties.stop().await;
}

fn row(name: &str, measured: &Measured, bound: Option<f64>) {
    let share = bound
        .map_or(String::new(), |b| format!("{:>10.0} {:>7.0} %", b, 100.0 * measured.rate / b));
    println!(
        "{name:<36} {:>9.0} {:>9.2} {:>9.2} {share}",
        measured.rate,
        measured.p50.as_secs_f64() * 1000.0,
        measured.p99.as_secs_f64() * 1000.0
    );
}

struct Signatures {
    sign: f64,
    verify: f64,
}

impl Signatures {
    fn measure(time: Duration) -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).unwrap();
        let message = [7_u8; 500];
        let signature = pair.sign(&random, &message).unwrap();
        let sign = rate(time, || {
            std::hint::black_box(pair.sign(&random, &message).unwrap());
        });
        let verify = rate(time, || key.verify_sig(&message, signature.as_ref()).unwrap());
        Self { sign, verify }
    }
}

fn rate(time: Duration, mut work: impl FnMut()) -> f64 {
    let started = Instant::now();
    let mut done = 0_u32;
    while started.elapsed() < time {
        for _ in 0..100 {
            work();
        }
        done += 100;
    }
    f64::from(done) / started.elapsed().as_secs_f64()
}

/// Pins this process to a core, by the system's `taskset`.
fn pin(core: usize) {
    let id = std::process::id().to_string();
    let core = core.to_string();
    let pinned = std::process::Command::new("taskset")
        .args(["-pc", &core, &id])
        .stdout(std::process::Stdio::null())
        .status();
    assert!(pinned.is_ok_and(|status| status.success()), "taskset (util-linux) is needed");
}

/// A POST request as it is sent.
pub(crate) fn post(path: &str, content_type: &str, headers: &[(&str, &str)], body: &str) -> Shot {
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: {{host}}\r\ncontent-type: {content_type}\r\ncontent-length: \
         {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    Shot(format!("{head}\r\n{body}"))
}
