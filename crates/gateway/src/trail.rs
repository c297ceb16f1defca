//! The record of what was decided, and how it ended.
//!
//! Guaranteed: no answer of an MCP server leaves before the decision that allowed it was handed to the
//! writer and written. A decision is never shed: where the writer cannot keep up, requests wait for it,
//! and are refused after [`PATIENCE`]. What is shed first are outcomes (duration, sizes), when the queue is
//! more than half full; how many is on record with the next entry.

use carnet_proto::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// How long a decision waits for a place in the queue, and then to be written.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Entries that may wait.
const WAITING: usize = 8192;

/// One line for the writer.
#[derive(Debug)]
pub struct Entry {
    /// A JSON object, without a line break.
    pub line: String,
    /// Told when the line is written.
    pub written: Option<oneshot::Sender<()>>,
}

/// Where decisions go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trail {
    queue: mpsc::Sender<Entry>,
    shed: Arc<AtomicU64>,
}

/// The decision could not be put on record: the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotRecorded;

/// What a request was about and what was decided.
#[derive(Debug, Serialize)]
pub(crate) struct Decision<'a> {
    pub(crate) kind: &'static str,
    pub(crate) at: Timestamp,
    pub(crate) call: &'a str,
    pub(crate) resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) person: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) issuer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) client: &'a str,
    /// `jti` of the caller's token.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) token: &'a str,
    /// `jti` of the ID-JAG that the token came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<&'a str>,
    pub(crate) method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) target: &'a str,
    pub(crate) outcome: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) rule: &'a str,
    pub(crate) request_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arguments: Option<Value>,
}

/// How a request that was allowed ended.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome<'a> {
    pub(crate) kind: &'static str,
    pub(crate) at: Timestamp,
    pub(crate) call: &'a str,
    pub(crate) resource: &'a str,
    /// HTTP status of the answer; 0 if there was none.
    pub(crate) status: u16,
    pub(crate) ended: &'static str,
    pub(crate) ms: f64,
    pub(crate) answer_bytes: u64,
}

#[derive(Serialize)]
struct Shed {
    kind: &'static str,
    at: Timestamp,
    outcomes: u64,
}

#[derive(Serialize)]
struct Changed<'a> {
    kind: &'static str,
    at: Timestamp,
    resource: &'a str,
    target: &'a str,
    detail: &'a str,
}

impl Trail {
    /// A trail, and the end that a writer takes entries from. Entries come in order.
    pub fn new() -> (Self, mpsc::Receiver<Entry>) {
        let (queue, entries) = mpsc::channel(WAITING);
        (Self { queue, shed: Arc::default() }, entries)
    }

    /// Puts a decision into the queue; what comes back is told when it is written.
    pub(crate) async fn decide(
        &self,
        decision: &Decision<'_>,
    ) -> Result<oneshot::Receiver<()>, NotRecorded> {
        let shed = self.shed.swap(0, Ordering::Relaxed);
        if shed > 0 {
            let entry = Shed { kind: "shed", at: decision.at, outcomes: shed };
            self.put(&entry, None).await?;
        }
        let (written, told) = oneshot::channel();
        self.put(decision, Some(written)).await?;
        Ok(told)
    }

    async fn put(
        &self,
        entry: &impl Serialize,
        written: Option<oneshot::Sender<()>>,
    ) -> Result<(), NotRecorded> {
        let line = serde_json::to_string(entry).map_err(|_| NotRecorded)?;
        let entry = Entry { line, written };
        match self.queue.try_send(entry) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotRecorded),
            Err(mpsc::error::TrySendError::Full(entry)) => {
                self.queue.send_timeout(entry, PATIENCE).await.map_err(|_| NotRecorded)
            }
        }
    }

    /// Puts an outcome into the queue, unless it is filling up.
    pub(crate) fn end(&self, outcome: &Outcome<'_>) {
        let room = self.queue.capacity() > WAITING / 2;
        let line = room.then(|| serde_json::to_string(outcome).ok()).flatten();
        let put = line.map(|line| self.queue.try_send(Entry { line, written: None }));
        if !matches!(put, Some(Ok(()))) {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something about a tool that somebody has to look at.
    pub(crate) fn tool(&self, at: Timestamp, resource: &str, target: &str, detail: &str) {
        let entry = Changed { kind: "tool", at, resource, target, detail };
        tracing::warn!(resource, tools = target, detail, "tools");
        if let Ok(line) = serde_json::to_string(&entry) {
            // Told again at the next list if there is no room now.
            let _ = self.queue.try_send(Entry { line, written: None });
        }
    }
}

/// Waits until a decision is written.
pub(crate) async fn written(told: oneshot::Receiver<()>) -> Result<(), NotRecorded> {
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(NotRecorded),
    }
}

/// The arguments of a call as they go on record: the values of named members are replaced at any depth.
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
    let mut value = serde_json::from_str(arguments).ok()?;
    walk(&mut value, redact);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(call: &str) -> Outcome<'_> {
        Outcome {
            kind: "outcome",
            at: Timestamp(1),
            call,
            resource: "r",
            status: 200,
            ended: "complete",
            ms: 1.0,
            answer_bytes: 1,
        }
    }

    fn decision(call: &str) -> Decision<'_> {
        Decision {
            kind: "decision",
            at: Timestamp(1),
            call,
            resource: "r",
            person: "p",
            issuer: "i",
            client: "c",
            token: "t",
            txn: None,
            method: "tools/call",
            target: "x",
            outcome: "granted",
            reason: "",
            rule: "x",
            request_bytes: 1,
            arguments: None,
        }
    }

    #[tokio::test]
    async fn outcomes_are_shed_before_any_decision_and_counted() {
        let (trail, mut entries) = Trail::new();
        for _ in 0..WAITING {
            trail.end(&outcome("o"));
        }
        assert_eq!(trail.shed.load(Ordering::Relaxed), WAITING as u64 / 2);
        for _ in 0..WAITING / 2 - 1 {
            trail.decide(&decision("d")).await.unwrap();
        }
        let mut shed = 0;
        let mut decisions = 0;
        while let Ok(entry) = entries.try_recv() {
            let entry: Value = serde_json::from_str(&entry.line).unwrap();
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
        let told = trail.decide(&decision("d")).await.unwrap();
        assert_eq!(written(told).await, Err(NotRecorded), "never written");
        drop(entries);
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
