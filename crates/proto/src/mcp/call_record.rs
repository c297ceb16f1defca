//! The gateway's record of calls: one type, which its journal is written with and reports of it are
//! parsed with.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// The kind of a line in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// A request, and the decision about it.
    Decision,
    /// How an allowed request ended.
    Outcome,
    /// A tool is new, changed or gone.
    Tool,
    /// The number of entries that were not written.
    Shed,
    /// A kind of a later version, or one that is not meant for authorization servers.
    #[default]
    #[serde(other)]
    Other,
}

/// One line. Members that do not apply to its kind are left out; unknown members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallRecord<'a> {
    /// The kind.
    pub kind: CallKind,
    /// The time.
    pub at: Timestamp,
    /// Id of the call, which its decision and its outcome share.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub call: Cow<'a, str>,
    /// The MCP server.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub resource: Cow<'a, str>,
    /// `sub` of the caller's token.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub person: Cow<'a, str>,
    /// `iss` of the caller's token.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub issuer: Cow<'a, str>,
    /// The client.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client: Cow<'a, str>,
    /// `jti` of the caller's token.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub token: Cow<'a, str>,
    /// `jti` of the ID-JAG that the token was issued for.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub txn: Cow<'a, str>,
    /// HTTP or MCP method.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub method: Cow<'a, str>,
    /// Tool, prompt or resource.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub target: Cow<'a, str>,
    /// `granted` or `refused`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub outcome: Cow<'a, str>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: Cow<'a, str>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub rule: Cow<'a, str>,
    /// Size of the request, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// The arguments, if they are to be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// HTTP status of the answer; 0 if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How the answer ended.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub ended: Cow<'a, str>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    /// Size of the answer, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_bytes: Option<u64>,
    /// The remark about a tool.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: Cow<'a, str>,
    /// Number of outcomes that were not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<u64>,
    /// Number of refusals that were not recorded individually.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusals: Option<u64>,
}

impl CallRecord<'_> {
    /// Whether it is about the gateway itself, not an MCP server.
    pub fn is_of_the_gateway(&self) -> bool {
        self.kind == CallKind::Shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let written = CallRecord {
            kind: CallKind::Decision,
            at: Timestamp(5),
            call: "a".into(),
            resource: "r".into(),
            person: "p\u{2028}".into(),
            issuer: "i".into(),
            client: "c".into(),
            token: "t".into(),
            txn: "x".into(),
            method: "tools/call".into(),
            target: "draw".into(),
            outcome: "granted".into(),
            reason: "why".into(),
            rule: "rule".into(),
            request_bytes: Some(7),
            arguments: Some(serde_json::json!({"a": [1]})),
            status: Some(0),
            ended: "complete".into(),
            ms: Some(1.5),
            answer_bytes: Some(9),
            detail: "changed".into(),
            outcomes: Some(1),
            refusals: Some(2),
        };
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<CallRecord<'_>>(&text).unwrap(), written);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 23, "every member is said: {text}");
        let least = CallRecord { kind: CallKind::Shed, ..CallRecord::default() };
        assert_eq!(serde_json::to_string(&least).unwrap(), r#"{"kind":"shed","at":0}"#);
        let later: CallRecord<'_> =
            serde_json::from_str(r#"{"kind":"of a later version","colour":1}"#).unwrap();
        assert_eq!(later.kind, CallKind::Other);
    }
}
