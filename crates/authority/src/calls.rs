//! Reports of gateways about tool calls, converted to rows of the audit trail: one row for each
//! call, with its decision and, if it is known by then, its outcome.

use passavant_proto::{
    event::{Detail, RequestEvent},
    mcp::call_record::{CallKind, CallRecord},
    others_text::shown,
    time::{SKEW, Timestamp},
};
use passavant_store::{AuditEvent, StoreError};
use std::collections::HashMap;

/// Longest text of a report that is stored, in characters.
const LONGEST: usize = 512;

/// One line of a gateway's journal.
pub type Line = CallRecord<'static>;

/// Parses journal lines; lines that are not a JSON object are skipped.
pub fn lines(text: &str) -> Vec<Line> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Converts the lines that are about an MCP server for which `may` is true, or about the gateway
/// itself, to audit events. The work is done outside of the threads that answer requests.
pub async fn read(
    text: String,
    now: Timestamp,
    may: impl Fn(&str) -> bool + Send + 'static,
) -> Result<Vec<AuditEvent>, StoreError> {
    apart(move || {
        let mut lines = lines(&text);
        // A report names few MCP servers, each of them many times.
        let mut asked: HashMap<String, bool> = HashMap::new();
        lines.retain(|line| {
            if line.is_of_the_gateway() {
                return true;
            }
            if let Some(may) = asked.get(line.resource.as_ref()) {
                return *may;
            }
            let answer = may(&line.resource);
            asked.insert(line.resource.clone().into_owned(), answer);
            answer
        });
        events(&lines, now)
    })
    .await
}

/// Runs work on a report outside of the threads that answer requests.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    // The process is shutting down: the gateway reports again after the next start.
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)
}

/// Lines older than this get the time of the report instead of their own. A journal may have waited
/// for weeks.
const OLDEST: i64 = 90 * 86_400;

/// The time of a line, if it is plausible; the time of the report is stored in the row, too.
fn at(line: &Line, now: Timestamp) -> Timestamp {
    let told = line.at;
    if told > now.plus(SKEW) || told < now.plus(-OLDEST) { now } else { told }
}

/// A short text without line breaks.
fn text(text: &str) -> String {
    shown(text, LONGEST)
}

/// The audit events of some lines, in order; `now` is the time of the report.
pub fn events(lines: &[Line], now: Timestamp) -> Vec<AuditEvent> {
    let of = |kind: CallKind| {
        let lines = lines.iter().filter(move |line| line.kind == kind);
        lines.map(|line| (line.call.as_ref(), line)).collect::<HashMap<_, _>>()
    };
    let (ends, decisions) = (of(CallKind::Outcome), of(CallKind::Decision));
    let mut events = Vec::new();
    for line in lines {
        let at = at(line, now);
        let event = match line.kind {
            CallKind::Decision => {
                let mut event = AuditEvent::granted(RequestEvent::McpCall, at)
                    .person(text(&line.person))
                    .client(text(&line.client))
                    .with(Detail::Method, text(&line.method))
                    .with(Detail::Target, text(&line.target))
                    .with(Detail::Rule, text(&line.rule))
                    .with(Detail::Issuer, text(&line.issuer))
                    .with(Detail::Token, text(&line.token))
                    .with(Detail::Txn, text(&line.txn))
                    .with(Detail::RequestBytes, line.request_bytes.unwrap_or_default().to_string());
                if let Some(arguments) = &line.arguments {
                    event = event.with(Detail::Arguments, text(&arguments.to_string()));
                }
                if line.outcome != "granted" {
                    event = event.refused(text(&line.reason));
                }
                match ends.get(line.call.as_ref()) {
                    Some(outcome) => with_outcome(event, outcome),
                    None => event,
                }
            }
            // The outcome is in the row of its decision, if that is in this report too.
            CallKind::Outcome if decisions.contains_key(line.call.as_ref()) => continue,
            CallKind::Outcome => {
                with_outcome(AuditEvent::granted(RequestEvent::McpCallEnd, at), line)
            }
            CallKind::Tool => AuditEvent::granted(RequestEvent::McpTool, at)
                .with(Detail::Target, text(&line.target))
                .with(Detail::More, text(&line.detail)),
            CallKind::Shed => AuditEvent::granted(RequestEvent::McpOutcomesShed, at)
                .with(Detail::Count, line.outcomes.unwrap_or_default().to_string())
                .with(Detail::Refusals, line.refusals.unwrap_or_default().to_string()),
            CallKind::Other => continue,
        };
        // A line about the gateway itself is about no MCP server, whatever it names.
        let resource = if line.is_of_the_gateway() { "" } else { line.resource.as_ref() };
        let event =
            event.with(Detail::Resource, text(resource)).with(Detail::Call, text(&line.call));
        events.push(event.with(Detail::ToldAt, now.0.to_string()));
    }
    events
}

fn with_outcome(event: AuditEvent, outcome: &Line) -> AuditEvent {
    event
        .with(Detail::Status, outcome.status.unwrap_or_default().to_string())
        .with(Detail::Ended, text(&outcome.ended))
        .with(Detail::Ms, outcome.ms.unwrap_or_default().to_string())
        .with(Detail::AnswerBytes, outcome.answer_bytes.unwrap_or_default().to_string())
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
        let names: Vec<_> = events.iter().map(|event| event.event.word().into_owned()).collect();
        assert_eq!(
            names,
            ["mcp_call", "mcp_call", "mcp_call_end", "mcp_tool", "mcp_outcomes_shed"]
        );
        let detail =
            |i: usize, name: Detail| events[i].details.get(&name).map_or("", String::as_str);
        assert_eq!(
            (detail(0, Detail::Ms), detail(0, Detail::Txn), detail(0, Detail::Target)),
            ("1.5", "j", "draw")
        );
        assert_eq!(events[1].outcome, Outcome::Refused);
        assert_eq!(detail(1, Detail::Reason), "operation.no_rule");
        assert_eq!(detail(2, Detail::Ended), "client_gone");
    }
}
