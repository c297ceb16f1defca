//! Headers of a stateless request that repeat its body (MCP 2026-07-28, Streamable HTTP): how a
//! value is encoded there, and which arguments of a tool its schema marks with `x-mcp-header`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::collections::HashMap;

/// One argument that is repeated in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// The value of the annotation: what follows `Mcp-Param-`.
    pub header: String,
    /// Its path in the arguments.
    pub path: Vec<String>,
}

impl Marked {
    /// The argument, encoded for a header; `None` if it is absent or cannot be in a header.
    pub fn value(&self, arguments: &RawValue) -> Option<String> {
        found(arguments, &self.path)
    }
}

/// The argument at `path`, encoded for a header.
fn found(arguments: &RawValue, path: &[String]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else {
        return spelled(&serde_json::from_str(arguments.get()).ok()?);
    };
    let members: HashMap<String, &RawValue> = serde_json::from_str(arguments.get()).ok()?;
    found(members.get(first)?, rest)
}

/// A value encoded for a header; `None` if it cannot be in one.
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

/// Printable ASCII unchanged, everything else as `=?base64?…?=`.
pub fn encoded(text: &str) -> String {
    let plain = !text.is_empty()
        && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if plain { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

/// The text of a header value; `None` if its base64 is invalid.
pub fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => Some(value.to_owned()),
        Some(base64) => String::from_utf8(STANDARD.decode(base64).ok()?).ok(),
    }
}

/// The marked arguments of a schema, or why a mark cannot be obeyed.
pub fn marked(schema: &Value) -> Result<Vec<Marked>, &'static str> {
    let mut found = Vec::new();
    // Only a chain of `properties` leads to an argument; a mark anywhere else is an error.
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
            // The value of such a keyword is data, not a schema.
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

/// A keyword whose value is a schema, or an object of schemas: a mark in it cannot be obeyed.
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
    use serde_json::json;

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
            assert_eq!(decoded(header).as_deref(), Some(text), "{header}");
        }
    }

    #[test]
    fn a_default_is_a_value_and_not_a_schema() {
        let value =
            json!({"properties": {"a": {"type": "string", "default": {"x-mcp-header": "x"}}}});
        assert_eq!(marked(&value), Ok(Vec::new()));
        assert_eq!(decoded("=?base64?!?="), None);
    }
}
