//! What gateways report of tool calls, as rows of the audit trail: one row for a call, with its decision
//! and, where it is known by then, how it ended.

use passavant_proto::{
    others_text::shown,
    time::{SKEW, Timestamp},
};
use passavant_store::{AuditEvent, StoreError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// Longest text of a report that is kept, in characters.
const LONGEST: usize = 512;

/// One line of a gateway's journal. What it does not know it does not read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Line {
    kind: String,
    at: i64,
    call: String,
    pub resource: String,
    person: String,
    issuer: String,
    client: String,
    token: String,
    pub txn: String,
    method: String,
    target: String,
    outcome: String,
    reason: String,
    rule: String,
    request_bytes: u64,
    arguments: Option<Value>,
    status: u16,
    ended: String,
    ms: f64,
    answer_bytes: u64,
    detail: String,
    outcomes: u64,
    refusals: u64,
}

impl Line {
    /// About no MCP server, but about the gateway itself.
    pub fn is_of_the_gateway(&self) -> bool {
        self.kind == "shed"
    }
}

/// Reads journal lines; one that is no JSON object is no line.
pub fn lines(text: &str) -> Vec<Line> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The rows of those lines that are about MCP servers of which `may` says that they are told of here, or about the gateway
/// itself; read apart from the threads that answer requests.
pub async fn read(
    text: String,
    now: Timestamp,
    may: impl Fn(&str) -> bool + Send + 'static,
) -> Result<Vec<AuditEvent>, StoreError> {
    apart(move || {
        let mut lines = lines(&text);
        // A report names few MCP servers many times.
        let mut asked: HashMap<String, bool> = HashMap::new();
        lines.retain(|line| {
            if line.is_of_the_gateway() {
                return true;
            }
            if let Some(may) = asked.get(&line.resource) {
                return *may;
            }
            let answer = may(&line.resource);
            asked.insert(line.resource.clone(), answer);
            answer
        });
        events(&lines, now)
    })
    .await
}

/// Work on a report, apart from the threads that answer requests.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    // The process is ending: whoever reports tries again after the next start.
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)
}

/// Lines older than this are dated as what they are: told now. A journal may have waited for weeks.
const OLDEST: i64 = 90 * 86_400;

/// When a line says that it was, as far as that can be; our own time stands beside it.
fn at(line: &Line, now: Timestamp) -> Timestamp {
    let told = Timestamp(line.at);
    if told > now.plus(SKEW) || told < now.plus(-OLDEST) { now } else { told }
}

/// A short text on one line.
fn text(text: &str) -> String {
    shown(text, LONGEST)
}

/// The rows of some lines, in order; `now` is when they were told.
pub fn events(lines: &[Line], now: Timestamp) -> Vec<AuditEvent> {
    let of = |kind: &'static str| {
        let lines = lines.iter().filter(move |line| line.kind == kind);
        lines.map(|line| (line.call.as_str(), line)).collect::<HashMap<_, _>>()
    };
    let (ends, decisions) = (of("outcome"), of("decision"));
    let mut events = Vec::new();
    for line in lines {
        let at = at(line, now);
        let event = match line.kind.as_str() {
            "decision" => {
                let mut event = AuditEvent::granted("mcp_call", at)
                    .person(text(&line.person))
                    .client(text(&line.client))
                    .with("method", text(&line.method))
                    .with("target", text(&line.target))
                    .with("rule", text(&line.rule))
                    .with("issuer", text(&line.issuer))
                    .with("token", text(&line.token))
                    .with("txn", text(&line.txn))
                    .with("request_bytes", line.request_bytes.to_string());
                if let Some(arguments) = &line.arguments {
                    event = event.with("arguments", text(&arguments.to_string()));
                }
                if line.outcome != "granted" {
                    event = event.refused(text(&line.reason));
                }
                match ends.get(line.call.as_str()) {
                    Some(outcome) => with_outcome(event, outcome),
                    None => event,
                }
            }
            // Told with its decision, where that is here too.
            "outcome" if decisions.contains_key(line.call.as_str()) => continue,
            "outcome" => with_outcome(AuditEvent::granted("mcp_call_end", at), line),
            "tool" => AuditEvent::granted("mcp_tool", at)
                .with("target", text(&line.target))
                .with("detail", text(&line.detail)),
            "shed" => AuditEvent::granted("mcp_outcomes_shed", at)
                .with("count", line.outcomes.to_string())
                .with("refusals", line.refusals.to_string()),
            _ => continue,
        };
        // What is about the gateway itself is about no MCP server, whatever it says.
        let resource = if line.is_of_the_gateway() { "" } else { line.resource.as_str() };
        let event = event.with("resource", text(resource)).with("call", text(&line.call));
        events.push(event.with("told_at", now.0.to_string()));
    }
    events
}

fn with_outcome(event: AuditEvent, outcome: &Line) -> AuditEvent {
    event
        .with("status", outcome.status.to_string())
        .with("ended", text(&outcome.ended))
        .with("ms", outcome.ms.to_string())
        .with("answer_bytes", outcome.answer_bytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use passavant_store::Outcome;

    #[test]
    fn a_call_is_one_row_where_its_end_is_known() {
        let journal = concat!(
            r#"{"kind":"decision","at":5,"call":"a","resource":"r","person":"p","client":"c","txn":"j","method":"tools/call","target":"draw","outcome":"granted","rule":"draw","request_bytes":7}"#,
            "\n",
            r#"{"kind":"decision","at":5,"call":"b","resource":"r","person":"p","method":"tools/call","target":"x","outcome":"refused","reason":"operation.no_rule"}"#,
            "\nnot json\n",
            r#"{"kind":"outcome","at":6,"call":"a","resource":"r","status":200,"ended":"complete","ms":1.5,"answer_bytes":9}"#,
            "\n",
            r#"{"kind":"outcome","at":7,"call":"z","resource":"r","status":0,"ended":"client_gone","ms":2}"#,
            "\n",
            r#"{"kind":"tool","at":8,"resource":"r","target":"draw","detail":"changed"}"#,
            "\n",
            r#"{"kind":"shed","at":9,"outcomes":3}"#,
        );
        let events = events(&lines(journal), Timestamp(10));
        let names: Vec<_> = events.iter().map(|event| event.event.as_ref()).collect();
        assert_eq!(
            names,
            ["mcp_call", "mcp_call", "mcp_call_end", "mcp_tool", "mcp_outcomes_shed"]
        );
        let detail = |i: usize, name: &str| events[i].details.get(name).map_or("", String::as_str);
        assert_eq!((detail(0, "ms"), detail(0, "txn"), detail(0, "target")), ("1.5", "j", "draw"));
        assert_eq!(events[1].outcome, Outcome::Refused);
        assert_eq!(detail(1, "reason"), "operation.no_rule");
        assert_eq!(detail(2, "ended"), "client_gone");
    }
}
