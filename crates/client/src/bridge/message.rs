//! JSON-RPC messages, parsed only as far as routing needs. The text itself is forwarded: big
//! numbers, member order and unknown members survive.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Since this revision each request is self-contained: no handshake, no session.
const STATELESS_SINCE: &str = "2026-07-28";

/// One line from the MCP client.
pub(super) enum Line<'a> {
    Request(Envelope<'a>),
    Notification(Envelope<'a>),
    /// The client's response to a request of the server.
    Response,
    /// Several messages at once (revision 2025-03-26): the ids of the requests among them.
    Batch(Vec<String>),
}

/// The members of a message that routing needs.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

impl<'a> Line<'a> {
    /// Parses a line. The error says what is wrong with a line that is not a message.
    pub(super) fn parse(text: &'a str) -> Result<Self, (i64, &'static str)> {
        if text.starts_with('[') {
            let members: Vec<Envelope<'_>> = serde_json::from_str(text)
                .map_err(|e| wrong(&e, "this is not a JSON-RPC batch"))?;
            if members.is_empty() {
                return Err((INVALID, "this batch is empty"));
            }
            let requests = members.iter().filter(|m| m.method.is_some());
            let mut ids: Vec<String> = requests.filter_map(Envelope::id_text).collect();
            ids.sort_unstable();
            ids.dedup_by_key(|id| key(id));
            return Ok(Self::Batch(ids));
        }
        let envelope: Envelope<'_> =
            serde_json::from_str(text).map_err(|e| wrong(&e, "this is not a JSON-RPC message"))?;
        match (&envelope.method, envelope.id) {
            (Some(_), Some(_)) => Ok(Self::Request(envelope)),
            (Some(_), None) => Ok(Self::Notification(envelope)),
            (None, Some(_)) => Ok(Self::Response),
            (None, None) => Err((INVALID, "this message has neither a method nor an id")),
        }
    }
}

/// JSON-RPC "parse error" and "invalid request".
const UNREADABLE: i64 = -32700;
pub(super) const INVALID: i64 = -32600;

fn wrong(error: &serde_json::Error, what: &'static str) -> (i64, &'static str) {
    if error.is_data() { (INVALID, what) } else { (UNREADABLE, "this line is not JSON") }
}

impl<'a> Envelope<'a> {
    /// The id as it is written: `1` and `"1"` are different.
    pub(super) fn id_text(&self) -> Option<String> {
        self.id.map(RawValue::get).filter(|id| *id != "null").map(str::to_owned)
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }

    /// The revision that a stateless message names; `None` in the era of sessions.
    pub(super) fn stateless_version(&self) -> Option<String> {
        let meta: Meta<'_> = serde_json::from_str(self.params()?.meta?.get()).ok()?;
        let version = string(meta.version?)?;
        (version.as_str() >= STATELESS_SINCE).then_some(version)
    }

    pub(super) fn params(&self) -> Option<Params<'a>> {
        serde_json::from_str(self.params?.get()).ok()
    }

    /// The JSON text of `params`.
    pub(super) fn params_text(&self) -> Option<&'a str> {
        self.params.map(RawValue::get)
    }
}

/// The members of `params` that routing needs, each parsed only when it is needed: whatever else a
/// client puts there (half a surrogate pair, `1e400`) is for the server to judge.
#[derive(Deserialize, Default)]
pub(super) struct Params<'a> {
    #[serde(rename = "_meta", borrow, default)]
    pub(super) meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) uri: Option<&'a RawValue>,
    #[serde(rename = "taskId", borrow, default)]
    pub(super) task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(rename = "requestId", borrow, default)]
    pub(super) request_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion", borrow, default)]
    version: Option<&'a RawValue>,
}

/// An id by value, however it is written: `"a\/b"` is `"a/b"`, `1.0` is `1`, and `"1"` is a
/// different id.
pub(super) fn key(id: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(id) {
        Ok(serde_json::Value::String(text)) => format!("\"{text}"),
        Ok(serde_json::Value::Number(number)) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        },
        _ => id.to_owned(),
    }
}

/// A JSON string.
pub(super) fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A message as one line. In valid JSON raw line breaks occur only between tokens, so replacing
/// them with spaces changes nothing.
pub(super) fn one_line(text: &str) -> String {
    text.trim().replace(['\r', '\n'], " ")
}

/// A JSON-RPC error that the bridge itself reports, for the request with this id.
pub(super) fn error_line(id: &str, code: i64, message: &str, data: &serde_json::Value) -> String {
    let message = serde_json::Value::from(message);
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message},"data":{data}}}}}"#
    )
}

/// An error that the server sent, as the response to the request with this id: code, message and
/// data are unchanged, and the id is replaced by the one the client knows.
pub(super) fn answered_error(body: &str, id: &str) -> Option<String> {
    let envelope: Envelope<'_> = serde_json::from_str(body).ok()?;
    let error = envelope.error?.get();
    match envelope.id.map(RawValue::get) {
        Some(held) if key(held) == key(id) => Some(one_line(body)),
        _ => Some(one_line(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))),
    }
}

/// The code of an error response.
pub(super) fn error_code(body: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Code {
        code: i64,
    }
    let envelope: Envelope<'_> = serde_json::from_str(body).ok()?;
    serde_json::from_str::<Code>(envelope.error?.get()).ok().map(|error| error.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_ids_keep_their_type() {
        let id = |text: &str| match Line::parse(text) {
            Ok(Line::Request(envelope)) => envelope.id_text(),
            _ => None,
        };
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).as_deref(), Some("1"));
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":"1","method":"ping"}"#).as_deref(), Some("\"1\""));
        assert!(matches!(Line::parse(r#"{"method":"x"}"#), Ok(Line::Notification(_))));
        assert!(matches!(Line::parse(r#"{"id":1,"result":{}}"#), Ok(Line::Response)));
        let batch = r#"[{"id":7,"method":"a"},{"method":"b"},{"id":8,"result":{}}]"#;
        assert!(matches!(Line::parse(batch), Ok(Line::Batch(ids)) if ids == ["7"]));
        let twice = r#"[{"id":7,"method":"a"},{"id":7.0,"method":"b"}]"#;
        assert!(matches!(Line::parse(twice), Ok(Line::Batch(ids)) if ids.len() == 1));
        for (one, other, same) in [
            (r#""req/1""#, r#""req\/1""#, true),
            (r#""é<""#, r#""\u00e9\u003c""#, true),
            ("1", "1.0", true),
            ("1", r#""1""#, false),
            ("9007199254740993", "9007199254740992", false),
            (r#""\ud83e""#, r#""\ud83e""#, true),
        ] {
            assert_eq!(key(one) == key(other), same, "{one} {other}");
        }
        for (bad, code) in [
            ("", UNREADABLE),
            ("{", UNREADABLE),
            ("nonsense", UNREADABLE),
            ("[1]", INVALID),
            ("[]", INVALID),
            ("7", INVALID),
            ("{}", INVALID),
        ] {
            assert_eq!(Line::parse(bad).err().map(|(code, _)| code), Some(code), "{bad}");
        }
    }

    #[test]
    fn a_message_names_its_era_itself() {
        let version = |meta: &str| {
            let text = format!(r#"{{"id":1,"method":"tools/list","params":{{"_meta":{meta}}}}}"#);
            match Line::parse(&text) {
                Ok(Line::Request(envelope)) => envelope.stateless_version(),
                _ => None,
            }
        };
        let key = "io.modelcontextprotocol/protocolVersion";
        assert_eq!(version(&format!(r#"{{"{key}":"2026-07-28"}}"#)).as_deref(), Some("2026-07-28"));
        assert_eq!(version(&format!(r#"{{"{key}":"2025-11-25"}}"#)), None);
        assert_eq!(version(&format!(r#"{{"{key}":7}}"#)), None);
        assert_eq!(version("{}"), None);
        // Whatever else is in the message, however odd.
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for odd in [r#""\ud83e""#, "1e400", &deep] {
            let meta = format!(r#"{{"x":{odd},"{key}":"2026-07-28"}}"#);
            assert_eq!(version(&meta).as_deref(), Some("2026-07-28"), "{odd}");
            let text = format!(
                r#"{{"id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"a":{odd}}},"_meta":{meta}}}}}"#
            );
            let Ok(Line::Request(envelope)) = Line::parse(&text) else { panic!("{odd}") };
            assert!(envelope.stateless_version().is_some(), "{odd}");
            assert_eq!(string(envelope.params().unwrap().name.unwrap()).as_deref(), Some("t"));
        }
    }

    #[test]
    fn an_error_without_an_id_gets_the_one_of_its_request() {
        let body =
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no","data":1e400},"id":null}"#;
        let line = answered_error(body, "\"a\"").unwrap();
        assert_eq!(
            line,
            r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32000,"message":"no","data":1e400}}"#
        );
        let own = "{\"id\":3,\n\"error\":{\"code\":1,\"message\":\"m\"}}";
        assert_eq!(answered_error(own, "3").unwrap(), own.replace('\n', " "));
        assert_eq!(error_code(body), Some(-32000));
        assert_eq!(answered_error("Not Found", "3"), None);
        assert_eq!(answered_error(r#"{"id":3,"result":{}}"#, "3"), None);
    }
}
