//! Approval of tools that changed behind a gateway.

use super::{api::Api, args::GatewayAct};
use anyhow::Result;
use passavant_host as system;
use passavant_host::plain;
use serde_json::{Value, json};

/// Gateways are not part of a role, so `--ras` does not matter.
pub(super) async fn gateway(api: &Api, act: GatewayAct, as_json: bool) -> Result<()> {
    match act {
        GatewayAct::Tools => {
            let all = api.all.raw("GET", "/gateway/tools", None).await?;
            if as_json {
                println!("{}", system::json_text(&all)?);
                return Ok(());
            }
            let mut table = vec![["MCP SERVER", "TOOL", "STATE", "READ-ONLY"].map(str::to_owned)];
            let mut differences = String::new();
            for (resource, tools) in all.as_object().into_iter().flatten() {
                for tool in tools.as_array().into_iter().flatten() {
                    let text = |name: &str| plain(tool[name].as_str().unwrap_or_default());
                    let read_only = if tool["read_only"] == true { "says so" } else { "" };
                    table.push([
                        plain(resource),
                        text("name"),
                        text("state"),
                        read_only.to_owned(),
                    ]);
                    for seen in tool["waiting"].as_array().into_iter().flatten() {
                        differences.push_str(&difference(resource, tool, seen));
                    }
                }
            }
            print!("{}{differences}", system::table(&table));
        }
        GatewayAct::Approve { resource, tool, fingerprint } => {
            let body = json!({"resource": resource, "tool": tool, "fingerprint": fingerprint});
            let done = api.all.raw("POST", "/gateway/approve", Some(body)).await?;
            if as_json {
                println!("{}", system::json_text(&done)?);
            } else {
                println!("This description of `{}` is approved.", plain(&tool));
            }
        }
    }
    Ok(())
}

/// The difference between the current and the approved description of a tool, and how to approve
/// it.
fn difference(resource: &str, tool: &Value, seen: &Value) -> String {
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    let pretty = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let read = serde_json::from_str::<Value>(text);
        let lines = read.map_or_else(|_| text.to_owned(), |value| format!("{value:#}"));
        // Each line is escaped; the line breaks are ours.
        lines.lines().map(|line| plain(line) + "\n").collect::<String>()
    };
    let (before, now) = (pretty(&tool["text"]), pretty(&seen["text"]));
    let name = text(&tool["name"]);
    let changes = similar::TextDiff::from_lines(&before, &now);
    let changes = changes.unified_diff().header("approved", "seen").to_string();
    let approve = format!(
        "passavant admin gateway approve {} {} {}",
        system::quoted(&plain(resource)),
        system::quoted(&name),
        text(&seen["fingerprint"])
    );
    let known = if before.is_empty() {
        "An earlier version did not keep what was approved; this is the whole current \
         description.\n"
    } else {
        ""
    };
    format!(
        "\n\
         The current description of {name} is not approved:\n\
         {known}{changes}approve it: {approve}\n"
    )
}
