//! `carnet tools`, `call`, `token`: using an MCP server.

use super::Common;
use crate::system::{self, plain, plain_lines};
use anyhow::{Context, Result, bail};
use rmcp::{
    RoleClient, ServiceExt,
    model::CallToolRequestParams,
    service::{ClientInitializeError, RunningService, ServiceError},
};
use serde_json::{Value, json};

/// A connection to an MCP server with this person's tokens.
async fn connect(common: &Common, url: &str) -> Result<RunningService<RoleClient, ()>> {
    let client = common.client_for(url).await?;
    let transport = client.transport_to(url)?;
    ().serve(transport).await.map_err(|error| readable_start(&error))
}

/// The SDK wraps what went wrong in several layers; the innermost is ours or the server's.
fn readable_start(error: &ClientInitializeError) -> anyhow::Error {
    anyhow::anyhow!("{}", innermost(error))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    // The SDK puts its own words around the error of a transport.
    match text.split_once("Io error: ") {
        Some((_, ours)) => ours.split(", when send").next().unwrap_or(ours).to_owned(),
        None => text,
    }
}

pub(crate) async fn tools(common: &Common, url: &str, as_json: bool) -> Result<()> {
    let service = connect(common, url).await?;
    let tools = service.list_all_tools().await.map_err(|e| readable(&e))?;
    if as_json {
        println!("{}", system::shown(&format!("{:#}", json!(tools))));
    } else {
        for tool in &tools {
            let text = tool.description.as_deref().unwrap_or_default();
            println!("{:<20} {}", plain(&tool.name), plain(text));
        }
    }
    service.cancel().await?;
    Ok(())
}

pub(crate) async fn call(common: &Common, url: &str, tool: &str, arguments: &str) -> Result<()> {
    let arguments: Value = serde_json::from_str(arguments)
        .context("the arguments are not JSON\nhint: for instance '{\"title\": \"plan\"}'")?;
    let Value::Object(arguments) = arguments else {
        bail!("the arguments are not a JSON object\nhint: for instance '{{\"title\": \"plan\"}}'");
    };
    let service = connect(common, url).await?;
    let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    let result = service.call_tool(request).await.map_err(|e| readable(&e))?;
    match &result.structured_content {
        Some(content) => println!("{}", system::shown(&format!("{content:#}"))),
        None => {
            for content in &result.content {
                match content.as_text() {
                    Some(text) => println!("{}", plain_lines(&text.text)),
                    None => println!("{}", system::shown(&format!("{:#}", json!(content)))),
                }
            }
        }
    }
    service.cancel().await?;
    if result.is_error == Some(true) {
        bail!("the tool says that it failed");
    }
    Ok(())
}

fn readable(error: &ServiceError) -> anyhow::Error {
    match error {
        ServiceError::McpError(data) => {
            anyhow::anyhow!("the MCP server says: {}", plain(&data.message))
        }
        other => anyhow::anyhow!("{}", innermost(other)),
    }
}

/// Prints an access token, for use in a pipe.
pub(crate) async fn token(common: &Common, url: &str, scope: Option<&str>) -> Result<()> {
    let client = common.client_for(url).await?;
    let Some(scope) = scope else {
        println!("{}", client.access(url).await?.token);
        return Ok(());
    };
    let scopes = carnet_proto::scope::Scopes::parse(scope);
    let mut server = client.discover(url).await?;
    server.scopes = Some(scopes.context("--scope has characters that no scope may have")?);
    // What is held already may have other scopes.
    client.forget(&server);
    println!("{}", client.access_token(&server).await?.secret().expose());
    Ok(())
}
