//! What a stateless request repeats in its headers: method, name, and the arguments that a tool's
//! schema marks with `x-mcp-header` (MCP 2026-07-28, Streamable HTTP).

use super::message::{Envelope, string};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use std::collections::HashMap;

/// One argument that goes into a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    /// The annotation's value: what follows `Mcp-Param-`.
    header: String,
    /// Where it is in the arguments.
    path: Vec<String>,
}

/// What is known of the tools, by name.
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
            if let Some(text) = found(arguments, &marked.path) {
                put(&mut headers, &format!("mcp-param-{}", marked.header), &encoded(&text));
            }
        }
    }
    headers
}

/// The argument at `path`, as it is spelled in a header.
fn found(arguments: &RawValue, path: &[String]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else {
        return spelled(&serde_json::from_str(arguments.get()).ok()?);
    };
    let members: HashMap<String, &RawValue> = serde_json::from_str(arguments.get()).ok()?;
    found(members.get(first)?, rest)
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// A value's text in a header; `None` for what cannot be in one.
fn spelled(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(match number.as_f64() {
            // 42.0 is the integer 42.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Printable ASCII as it is, everything else as `=?base64?…?=`.
fn encoded(text: &str) -> String {
    let plain = !text.is_empty()
        && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if plain { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
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

/// Learns the tools of a `tools/list` result. A tool with an annotation that cannot be obeyed has to be
/// left out by whoever speaks HTTP: then the result without it, otherwise `None`.
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

/// The marked arguments of a schema, or why one cannot be obeyed.
fn marked(schema: &Value) -> Result<Vec<Marked>, &'static str> {
    let mut found = Vec::new();
    // Only a chain of `properties` leads to an argument; anywhere else a mark has no place.
    collect(schema, &mut Vec::new(), true, &mut found)?;
    let mut names: Vec<String> = found.iter().map(|m| m.header.to_ascii_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two arguments are marked with the same header");
    }
    Ok(found)
}

fn collect(
    schema: &Value,
    path: &mut Vec<String>,
    reachable: bool,
    found: &mut Vec<Marked>,
) -> Result<(), &'static str> {
    let Value::Object(members) = schema else { return Ok(()) };
    if let Some(mark) = members.get("x-mcp-header") {
        let token = |text: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            !text.is_empty() && text.bytes().all(legal)
        };
        let typed = matches!(
            members.get("type").and_then(Value::as_str),
            Some("string" | "integer" | "boolean")
        );
        match mark.as_str() {
            Some(header) if reachable && !path.is_empty() && typed && token(header) => {
                found.push(Marked { header: header.to_owned(), path: path.clone() });
            }
            _ => return Err("an x-mcp-header is on what cannot be in a header"),
        }
    }
    for (key, value) in members {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    path.push(name.clone());
                    let outcome = collect(property, path, reachable, found);
                    path.pop();
                    outcome?;
                }
            }
            // Values, not schemas.
            ("default" | "const" | "enum" | "examples", _) => {}
            (_, Value::Object(_)) => {
                for_each_schema(key, value, path, found)?;
            }
            (_, Value::Array(items)) => {
                for item in items {
                    collect(item, path, false, found)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A keyword whose value is a schema, or an object of schemas: a mark in it is out of reach.
fn for_each_schema(
    key: &str,
    value: &Value,
    path: &mut Vec<String>,
    found: &mut Vec<Marked>,
) -> Result<(), &'static str> {
    let named = ["patternProperties", "dependentSchemas", "$defs", "definitions"];
    match value {
        Value::Object(members) if named.contains(&key) => {
            members.values().try_for_each(|schema| collect(schema, path, false, found))
        }
        schema => collect(schema, path, false, found),
    }
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
    fn values_are_encoded_exactly_when_they_have_to_be() {
        for (text, header) in [
            ("plain text", "plain text"),
            ("héllo", "=?base64?aMOpbGxv?="),
            (" x ", "=?base64?IHgg?="),
            ("", "=?base64??="),
            ("a\tb", "=?base64?YQli?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            assert_eq!(encoded(text), header, "{text}");
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
        let value =
            json!({"properties": {"a": {"type": "string", "default": {"x-mcp-header": "x"}}}});
        assert_eq!(marked(&value), Ok(Vec::new()), "a default is a value, not a schema");
    }
}
