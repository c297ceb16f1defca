//! The record of decisions and of their outcomes.
//!
//! Guarantees: no request is sent to an MCP server before the decision that allows it was handed to
//! the writer and written. A decision is never dropped: if the writer cannot keep up, requests wait
//! for it, and are refused after [`PATIENCE`]. Outcomes (duration, sizes) are dropped when the
//! queue is more than half full; the next entry records how many.

use crate::canonical::canonical;
use passavant_proto::{
    mcp::call_record::{CallKind, CallRecord},
    others_text::shown,
    time::Timestamp,
};
use serde_json::Value;
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How long a decision waits for room in the queue, and then to be written.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Capacity of the queue, in entries.
const WAITING: usize = 8192;
/// Longest recorded arguments, in bytes; of longer ones only the length is recorded.
const LONGEST_ARGUMENTS: usize = 4096;
/// Longest recorded text of other parties, in characters.
const LONGEST: usize = 300;
/// How often a decision looks again for room in a full queue.
const AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<String>,
    /// How many lines were ever put into the queue.
    put: u64,
    /// The writer is sleeping.
    idle: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// How many lines were ever written.
    written: AtomicU64,
    news: Notify,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a line into the queue if more than `spare` places are free. Returns its number. The
    /// writer is woken only if somebody waits for the line.
    fn put(&self, line: String, spare: usize, wake: bool) -> Result<u64, String> {
        let mut waiting = self.waiting();
        if waiting.closed || waiting.lines.len() + spare >= WAITING {
            return Err(line);
        }
        waiting.lines.push(line);
        waiting.put += 1;
        let (number, asleep) = (waiting.put, waiting.idle && wake);
        drop(waiting);
        if asleep {
            self.wake.notify_one();
        }
        Ok(number)
    }
}

/// The receiving end of the queue, for a writer.
#[derive(Debug)]
pub struct Entries(Arc<Queue>);

/// Lines for the writer: JSON objects without line breaks, in order.
#[derive(Debug)]
pub struct Batch {
    /// The lines.
    pub lines: Vec<String>,
    through: u64,
}

impl Entries {
    /// Blocks a thread until there are lines, `longest` at most. An empty batch on timeout; `None`
    /// when all senders are gone.
    pub fn take(&self, longest: Duration) -> Option<Batch> {
        let mut waiting = self.0.waiting();
        if waiting.lines.is_empty() && !waiting.closed {
            waiting.idle = true;
            let woken = self.0.wake.wait_timeout(waiting, longest);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            waiting.idle = false;
        }
        if waiting.lines.is_empty() && waiting.closed {
            return None;
        }
        let lines = std::mem::take(&mut waiting.lines);
        Some(Batch { lines, through: waiting.put })
    }

    /// Marks the lines of a batch as written. It is not called for a batch that could not be
    /// written: the requests that wait for it are refused.
    pub fn written(&self, batch: &Batch) {
        self.0.written.store(batch.through, Ordering::Release);
        self.0.news.notify_waiters();
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.0.waiting().closed = true;
    }
}

#[derive(Debug)]
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.waiting().closed = true;
        self.0.wake.notify_one();
    }
}

/// Where decisions are recorded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trail {
    handle: Arc<Handle>,
    shed: Arc<AtomicU64>,
    /// Refusals that were not recorded individually.
    refusals: Arc<AtomicU64>,
}

/// A decision that is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The decision could not be recorded: the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it could not be put on record")]
pub struct NotRecorded;

impl Trail {
    /// Creates a trail, and the receiving end for a writer.
    pub fn new() -> (Self, Entries) {
        let queue = Arc::new(Queue::default());
        let trail = Self {
            handle: Arc::new(Handle(Arc::clone(&queue))),
            shed: Arc::default(),
            refusals: Arc::default(),
        };
        (trail, Entries(queue))
    }

    fn queue(&self) -> &Queue {
        &self.handle.0
    }

    /// Records a line of another kind, and waits until it is written.
    pub async fn note(&self, line: &str) -> Result<(), NotRecorded> {
        let number = self.queue().put(line.to_owned(), 0, true).map_err(|_| NotRecorded)?;
        self.written(Ticket(number)).await
    }

    /// Puts a decision into the queue.
    pub(crate) async fn decide(&self, decision: &CallRecord<'_>) -> Result<Ticket, NotRecorded> {
        let outcomes = self.shed.swap(0, Ordering::Relaxed);
        let refusals = self.refusals.swap(0, Ordering::Relaxed);
        if outcomes + refusals > 0 {
            let entry = CallRecord {
                kind: CallKind::Shed,
                at: decision.at,
                outcomes: Some(outcomes),
                refusals: (refusals > 0).then_some(refusals),
                ..CallRecord::default()
            };
            self.put(&entry).await?;
        }
        self.put(decision).await
    }

    /// Counts a refusal that is not recorded individually, because such refusals would fill the
    /// disk.
    pub(crate) fn leave_out(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    async fn put(&self, entry: &CallRecord<'_>) -> Result<Ticket, NotRecorded> {
        let mut line = serde_json::to_string(entry).map_err(|_| NotRecorded)?;
        let mut waited = Duration::ZERO;
        loop {
            match self.queue().put(line, 0, true) {
                Ok(number) => return Ok(Ticket(number)),
                Err(again) => line = again,
            }
            if waited >= PATIENCE || self.queue().waiting().closed {
                return Err(NotRecorded);
            }
            tokio::time::sleep(AGAIN).await;
            waited += AGAIN;
        }
    }

    /// Waits until a decision is written.
    pub(crate) async fn written(&self, ticket: Ticket) -> Result<(), NotRecorded> {
        let queue = self.queue();
        let done = || queue.written.load(Ordering::Acquire) >= ticket.0;
        if done() {
            return Ok(());
        }
        let wait = async {
            loop {
                let news = queue.news.notified();
                if done() {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| NotRecorded)
    }

    /// Puts an outcome into the queue, unless the queue is filling up.
    pub(crate) fn end(&self, outcome: &CallRecord<'_>) {
        let line = serde_json::to_string(outcome).unwrap_or_default();
        if self.queue().put(line, WAITING / 2, false).is_err() {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records something about a tool that an administrator has to look at. The name is text of the
    /// MCP server.
    pub(crate) fn tool(&self, at: Timestamp, resource: &str, target: &str, detail: &str) {
        let target = &shown(target, LONGEST);
        let entry = CallRecord {
            kind: CallKind::Tool,
            at,
            resource: resource.into(),
            target: target.into(),
            detail: detail.into(),
            ..CallRecord::default()
        };
        tracing::warn!(resource, tools = target, detail, "tools");
        let line = serde_json::to_string(&entry).unwrap_or_default();
        // No request waits for it, and there are few, since the number of changes is limited. An
        // entry that finds no room is counted.
        if self.queue().put(line, 0, false).is_err() {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Text of another party, cut for the record.
pub(crate) fn cut(text: &str) -> String {
    shown(text, LONGEST)
}

/// The arguments of a call for the record: the values of the named members are replaced, at any
/// depth.
pub(crate) fn redacted(arguments: &str, redact: &[String]) -> Option<Value> {
    fn walk(value: &mut Value, redact: &[String]) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if redact.iter().any(|held| held.eq_ignore_ascii_case(name)) {
                        *value = "[redacted]".into();
                    } else {
                        walk(value, redact);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, redact)),
            _ => {}
        }
    }
    if arguments.len() > LONGEST_ARGUMENTS {
        return Some(serde_json::json!({"(left out)": arguments.len()}));
    }
    // Readers differ in which of two equal members they take: recording either could be wrong.
    let Ok(arguments) = canonical(arguments) else {
        return Some(serde_json::json!({"(a member twice)": arguments.len()}));
    };
    let mut value = serde_json::from_str(&arguments).ok()?;
    walk(&mut value, redact);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: CallKind, call: &str) -> CallRecord<'_> {
        CallRecord { kind, at: Timestamp(1), call: call.into(), ..CallRecord::default() }
    }

    fn outcome(call: &str) -> CallRecord<'_> {
        record(CallKind::Outcome, call)
    }

    fn decision(call: &str) -> CallRecord<'_> {
        record(CallKind::Decision, call)
    }

    #[tokio::test]
    async fn outcomes_are_shed_before_any_decision_and_counted() {
        let (trail, entries) = Trail::new();
        for _ in 0..WAITING {
            trail.end(&outcome("o"));
        }
        assert_eq!(trail.shed.load(Ordering::Relaxed), WAITING as u64 / 2);
        for _ in 0..WAITING / 2 - 1 {
            trail.decide(&decision("d")).await.unwrap();
        }
        let mut shed = 0;
        let mut decisions = 0;
        for line in entries.take(PATIENCE).unwrap().lines {
            let entry: Value = serde_json::from_str(&line).unwrap();
            match entry["kind"].as_str().unwrap() {
                "shed" => shed += entry["outcomes"].as_u64().unwrap(),
                "decision" => decisions += 1,
                _ => {}
            }
        }
        assert_eq!((shed, decisions), (WAITING as u64 / 2, WAITING / 2 - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_decision_that_cannot_be_recorded_is_no_permission() {
        let (trail, entries) = Trail::new();
        for _ in 0..WAITING {
            trail.decide(&decision("d")).await.unwrap();
        }
        assert_eq!(trail.decide(&decision("d")).await.map(|_| ()), Err(NotRecorded), "full");
        drop(entries);
        assert_eq!(trail.decide(&decision("d")).await.map(|_| ()), Err(NotRecorded), "no writer");
        let (trail, entries) = Trail::new();
        let ticket = trail.decide(&decision("d")).await.unwrap();
        let batch = entries.take(PATIENCE).unwrap();
        assert_eq!(trail.written(ticket).await, Err(NotRecorded), "never written");
        entries.written(&batch);
        assert_eq!(trail.written(ticket).await, Ok(()));
        drop(trail);
        assert!(entries.take(PATIENCE).is_none(), "nobody is left");
    }

    #[test]
    fn named_members_are_redacted_at_any_depth() {
        let text = r#"{"a":1,"Password":"x","deep":[{"password":{"b":1}},2]}"#;
        let value = redacted(text, &["password".to_owned()]).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"Password":"[redacted]","a":1,"deep":[{"password":"[redacted]"},2]}"#
        );
    }
}
