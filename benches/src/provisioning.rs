//! A directory of 50,000 people comes in by SCIM, one request for each person, while others exchange.

use crate::{
    crowd::PEOPLE,
    load::{self, Plan, Shot},
    parties::{Crowd, start_with},
    post,
};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// How many requests a directory has under way at once.
const AT_ONCE: usize = 4;
/// How many connections exchange meanwhile: as many as one core can serve beside that.
const EXCHANGING: usize = 8;
/// Of the people, how many come while nothing else goes on.
const ALONE: usize = 10_000;

/// Prints the table for one database.
pub(crate) async fn measure(database: Option<&str>, time: Duration) {
    let parties = start_with(EXCHANGING, Crowd::Provisioned(database.map(str::to_owned))).await;
    let name = if database.is_some() { "PostgreSQL" } else { "SQLite, durable" };
    println!("\n{PEOPLE} people by single requests, {AT_ONCE} at once, {name}:\n");
    let (token, exchange) = (parties.provisioning().await, parties.exchange_by_id_token());
    parties.measure(&exchange, time / 4).await;
    let alone = parties.measure(&exchange, time).await;
    row("exchanges, nobody here yet, nothing else going on", &alone);
    let people = |from: usize, to: usize| (from..to).map(|i| person(&token, i)).collect();
    let took = send(parties.idp(), people(0, ALONE)).await;
    println!("  the first {ALONE}, nothing else going on: {:>6.0}/s", ALONE as f64 / took);
    let coming = tokio::spawn(send(parties.idp(), people(ALONE, PEOPLE)));
    let began = Instant::now();
    while !coming.is_finished() {
        let beside = parties.measure(&exchange, time).await;
        if !coming.is_finished() {
            let at = began.elapsed().as_secs();
            row(&format!("exchanges beside the others, {at} s after they began"), &beside);
        }
    }
    let took = coming.await.unwrap();
    let rest = (PEOPLE - ALONE) as f64;
    println!("  the other {rest}, beside the exchanges: {:>6.0}/s, {took:.0} s", rest / took);
    row(
        "exchanges, everybody here, nothing else going on",
        &parties.measure(&exchange, time).await,
    );
    println!("  resident: {:.0} MiB", parties.resident());
    parties.stop().await;
}

fn row(what: &str, measured: &load::Measured) {
    println!(
        "  {what}: {:>6.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        measured.rate,
        measured.p50.as_secs_f64() * 1000.0,
        measured.p99.as_secs_f64() * 1000.0
    );
}

/// What a directory sends for a person.
fn person(token: &str, i: usize) -> Shot {
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "externalId": format!("external-{i}"),
        "userName": format!("person{i}@acme.example"),
        "active": true,
        "displayName": format!("Person {i}"),
        "emails": [{"primary": true, "type": "work", "value": format!("person{i}@acme.example")}],
        "name": {"givenName": "Person", "familyName": format!("Number {i}")},
    });
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    post("/scim/corp/v2/Users", "application/scim+json", &headers, &body.to_string())
}

/// Sends each request once; returns how many seconds all of them took.
async fn send(address: SocketAddr, shots: Vec<Shot>) -> f64 {
    let plan = Arc::new(Plan { address, shots });
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut tasks = Vec::new();
    for _ in 0..AT_ONCE {
        let (plan, next) = (Arc::clone(&plan), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(plan.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (host, mut buffer) = (plan.address.to_string(), Vec::with_capacity(4096));
            while let Some(shot) = plan.shots.get(next.fetch_add(1, Ordering::Relaxed)) {
                let request = shot.0.replace("{host}", &host);
                stream.write_all(request.as_bytes()).await.unwrap();
                load::read_answer(&mut stream, &mut buffer).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    began.elapsed().as_secs_f64()
}
