//! Headers of a stateless request that repeat its body: method, name, and the arguments that the
//! tool's schema marks with `x-mcp-header` (MCP 2026-07-28, Streamable HTTP).

use super::message::{Envelope, string};
use http::{HeaderMap, HeaderName, HeaderValue};
use passavant_proto::mcp::headers::{Marked, encoded, marked};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use std::collections::HashMap;

/// The marked arguments of the known tools, by name.
pub(super) type Tools = HashMap<String, Vec<Marked>>;

/// The headers of a request or notification of revision `version`.
pub(super) fn of(message: &Envelope<'_>, version: &str, tools: &Tools) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(&mut headers, "mcp-protocol-version", version);
    put(&mut headers, "mcp-method", message.method());
    let Some(params) = message.params() else { return headers };
    let name = match message.method() {
        "tools/call" | "prompts/get" => params.name,
        "resources/read" => params.uri,
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id,
        _ => None,
    };
    let Some(name) = name.and_then(string) else { return headers };
    put(&mut headers, "mcp-name", &encoded(&name));
    if message.method() == "tools/call"
        && let (Some(marked), Some(arguments)) = (tools.get(&name), params.arguments)
    {
        for marked in marked {
            if let Some(text) = marked.value(arguments) {
                put(&mut headers, &format!("mcp-param-{}", marked.header), &encoded(&text));
            }
        }
    }
    headers
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

#[derive(Deserialize)]
struct ToolList<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    #[serde(rename = "inputSchema", default)]
    input_schema: Value,
}

/// Learns the tools of a `tools/list` result. A client that speaks HTTP has to drop a tool whose
/// annotations it cannot obey. Returns the result without such tools, or `None` if there are none.
pub(super) fn learn(result: &str, tools: &mut Tools) -> Option<String> {
    let list: ToolList<'_> = serde_json::from_str(result).ok()?;
    let mut kept = Vec::new();
    for raw in &list.tools {
        let Ok(tool) = serde_json::from_str::<Tool>(raw.get()) else {
            kept.push(raw.get());
            continue;
        };
        match marked(&tool.input_schema) {
            Ok(marked) => {
                tools.insert(tool.name, marked);
                kept.push(raw.get());
            }
            Err(why) => {
                tracing::warn!(tool = tool.name, why, "a tool is left out of the list");
            }
        }
    }
    if kept.len() == list.tools.len() {
        return None;
    }
    let mut members: Map<String, Value> = serde_json::from_str(result).ok()?;
    members.remove("tools");
    let rest = Value::Object(members).to_string();
    let separator = if rest == "{}" { "" } else { "," };
    Some(format!("{{\"tools\":[{}]{separator}{}", kept.join(","), &rest[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::message::Line;
    use serde_json::json;

    fn headers_of(text: &str, tools: &Tools) -> HeaderMap {
        match Line::parse(text) {
            Ok(Line::Request(envelope) | Line::Notification(envelope)) => {
                of(&envelope, "2026-07-28", tools)
            }
            _ => HeaderMap::new(),
        }
    }

    #[test]
    fn marked_arguments_go_into_headers_wherever_they_are() {
        let mut tools = Tools::new();
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {
                "count": {"type": "integer", "x-mcp-header": "Count"},
                "flag": {"type": "boolean", "x-mcp-header": "Flag"}}}}});
        let list = json!({"tools": [{"name": "t", "inputSchema": schema}]}).to_string();
        assert_eq!(learn(&list, &mut tools), None, "nothing to leave out");
        let call = r#"{"id":1,"method":"tools/call","params":{"name":"t","arguments":
            {"region":"eu","deep":{"count":42.0,"flag":false},"other":1}}}"#;
        let headers = headers_of(call, &tools);
        let value = |name: &str| headers.get(name).map(|v| v.to_str().unwrap());
        assert_eq!(value("mcp-name"), Some("t"));
        assert_eq!(value("mcp-method"), Some("tools/call"));
        assert_eq!(value("mcp-param-region"), Some("eu"));
        assert_eq!(value("mcp-param-count"), Some("42"));
        assert_eq!(value("mcp-param-flag"), Some("false"));
        let absent =
            r#"{"id":1,"method":"tools/call","params":{"name":"t","arguments":{"region":null}}}"#;
        assert_eq!(headers_of(absent, &tools).len(), 3, "no header for what is not there");
    }

    #[test]
    fn a_tool_that_cannot_be_called_is_left_out_and_the_rest_is_untouched() {
        for bad in [
            json!({"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": ""}}}),
            json!({"properties": {"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}}),
            json!({"properties": {"a": {"type": "string", "x-mcp-header": "A"},
                                  "b": {"type": "string", "x-mcp-header": "a"}}}),
            json!({"oneOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]}),
            json!({"x-mcp-header": "A", "type": "string"}),
        ] {
            let bad = json!({"name": "bad", "inputSchema": bad});
            let good = r#"{"name":"good","big":12345678901234567890123,"inputSchema":{}}"#;
            let list = format!(r#"{{"tools":[{bad},{good}],"nextCursor":"c"}}"#);
            let mut tools = Tools::new();
            let kept = learn(&list, &mut tools).unwrap();
            assert_eq!(kept, format!(r#"{{"tools":[{good}],"nextCursor":"c"}}"#));
            assert!(tools.contains_key("good") && !tools.contains_key("bad"));
        }
    }
}
