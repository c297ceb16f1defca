//! A company of 50,000 people: the cost of a start, of a change of one person, and of such changes
//! for everybody else.

use crate::{
    crowd::{GROUPS, PEOPLE},
    load,
    parties::{Crowd, Parties, start_with},
};
use std::time::{Duration, Instant};

/// Changes of people per second, while others exchange.
const CHANGES: u64 = 20;

/// Prints the table for one database.
pub(crate) async fn measure(database: Option<&str>, connections: usize, time: Duration) {
    let parties = start_with(connections, Crowd::Many(database.map(str::to_owned))).await;
    let name = if database.is_some() { "PostgreSQL" } else { "SQLite, durable" };
    println!("\n{PEOPLE} people, {GROUPS} groups, {name}:\n");
    println!("  start (open, claim nothing new, load) {:>9.1} ms", parties.start_ms);
    let plan = parties.exchange_by_id_token();
    // A first run, so that everything has been read once.
    parties.measure(&plan, time / 4).await;
    for round in 1..=2 {
        let alone = parties.measure(&plan, time).await;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let changing = tokio::spawn(change(parties.changes(), stopped));
        let beside = parties.measure(&plan, time).await;
        let _ = stop.send(());
        let mut took = changing.await.unwrap();
        took.sort_unstable();
        println!(
            "  round {round}: exchanges {:>7.0}/s alone, {:>7.0}/s beside {CHANGES} changes of other people a second \
             ({} done)",
            alone.rate,
            beside.rate,
            took.len()
        );
    }
    let one = load::measure(&parties.changes(), 1, time).await;
    println!(
        "  a change of one person, nothing else going on: p50 {:>6.2} ms, p99 {:>6.2} ms",
        one.p50.as_secs_f64() * 1000.0,
        one.p99.as_secs_f64() * 1000.0
    );
    let gone = parties.group_deletions(20);
    let began = Instant::now();
    for shot in &gone.shots {
        Parties::ask(gone.address, shot).await;
    }
    println!(
        "  a group of {} members deleted: {:>6.1} ms",
        PEOPLE / GROUPS,
        began.elapsed().as_secs_f64() * 1000.0 / gone.shots.len() as f64
    );
    parties.stop().await;
}

/// Changes people at a fixed rate until it is told to stop. Returns how long each change took.
async fn change(plan: load::Plan, mut stop: tokio::sync::oneshot::Receiver<()>) -> Vec<Duration> {
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / CHANGES));
    let mut took = Vec::new();
    loop {
        tokio::select! {
            _ = &mut stop => return took,
            _ = tick.tick() => {
                let began = Instant::now();
                Parties::ask(plan.address, &plan.shots[0]).await;
                took.push(began.elapsed());
            }
        }
    }
}
