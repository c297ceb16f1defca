//! Output of the administration API's responses, for people and programs.

use anyhow::Result;
use passavant_host as system;
use passavant_host::plain;
use serde_json::Value;

/// A record as `name: value` lines; a list as one block each.
pub(super) fn show(value: &Value, as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", system::json_text(value)?);
        return Ok(());
    }
    match value {
        Value::Null => println!("done"),
        Value::Array(records) if records.is_empty() => println!("none"),
        Value::Array(records) => {
            for (i, record) in records.iter().enumerate() {
                if i > 0 {
                    println!();
                }
                print!("{}", lines(record));
            }
        }
        record => print!("{}", lines(record)),
    }
    Ok(())
}

pub(super) fn lines(record: &Value) -> String {
    let Value::Object(members) = record else { return format!("{record}\n") };
    let mut text = String::new();
    for (name, value) in members {
        let shown = match value {
            Value::Null | Value::Bool(false) => continue,
            Value::String(s) if s.is_empty() => continue,
            Value::Array(items) if items.is_empty() => continue,
            Value::String(s) => s.clone(),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        };
        text.push_str(&format!("{:<22} {}\n", format!("{name}:"), plain(&shown)));
    }
    text
}

/// Audit rows as a table, oldest first, with the names of people where they are known.
pub(crate) fn audit_table(rows: &Value, ids: bool) -> String {
    let mut table = vec![
        ["#", "WHEN", "EVENT", "OUTCOME", "PERSON", "CLIENT", "WHY AND WHAT"].map(str::to_owned),
    ];
    let now = system::clock().now().0;
    for row in rows.as_array().into_iter().flatten().rev() {
        let field = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or(""));
        let details = row.get("details").and_then(Value::as_object);
        let detail = |name: &str| {
            let value = details.and_then(|d| d.get(name)).and_then(Value::as_str)?;
            Some(plain(&format!("{name}={value}")))
        };
        let what = [
            "by", "reason", "method", "target", "rule", "audience", "resource", "scope", "record",
            "role", "detail", "ended", "ms", "txn", "address",
        ];
        let what: Vec<String> = what.into_iter().filter_map(detail).collect();
        let id = row.get("id").map(ToString::to_string).unwrap_or_default();
        let [event, outcome] = [field("event"), field("outcome")];
        let when = row.get("at").and_then(Value::as_i64).map(|at| system::ago(now - at));
        let [person, client] = [field("person"), field("client")];
        let named = Some(field("person_name")).filter(|name| !ids && !name.is_empty());
        let person = named.unwrap_or(person);
        table.push([id, when.unwrap_or_default(), event, outcome, person, client, what.join("  ")]);
    }
    system::table(&table)
}
