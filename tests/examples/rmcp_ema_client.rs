//! The enterprise-managed client of the Rust MCP SDK, the strictest there is, against our parties.
//! It is configured by the environment like the TypeScript one, and prints one line of JSON.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]
#![allow(clippy::disallowed_methods, reason = "the driver speaks through the environment")]

use rmcp::{
    ServiceExt,
    model::CallToolRequestParams,
    transport::{
        StreamableHttpClientTransport,
        auth::{
            default_oauth_http_client,
            enterprise::{EmaAuthorizationServer, EmaClientAuthentication, EmaExchangeRequest},
        },
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::json;

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let http = default_oauth_http_client()?;
    let secret = |name: &str| serde_json::from_value(json!(var(name)));
    let idp = var("IDP_ISSUER");
    let ras = var("RAS_ISSUER");
    let mcp = var("MCP_URL");
    let at_idp = EmaAuthorizationServer::new(&idp, format!("{idp}/token"), var("IDP_CLIENT_ID"))
        .with_client_authentication(EmaClientAuthentication::ClientSecretBasic(secret(
            "IDP_CLIENT_SECRET",
        )?));
    let at_ras = EmaAuthorizationServer::new(&ras, format!("{ras}/token"), var("RAS_CLIENT_ID"))
        .with_client_authentication(EmaClientAuthentication::ClientSecretPost(secret(
            "RAS_CLIENT_SECRET",
        )?));
    let scopes: Vec<String> = var("SCOPE").split_whitespace().map(str::to_owned).collect();
    let refresh_token = std::env::var("REFRESH_TOKEN").ok();
    let refresh_token = refresh_token.map(|t| serde_json::from_value(json!(t))).transpose()?;
    let id_token = std::env::var("ID_TOKEN").unwrap_or_default();
    let request = match &refresh_token {
        Some(token) => EmaExchangeRequest::new(at_idp, at_ras, &mcp, token),
        None => EmaExchangeRequest::new_with_id_token(at_idp, at_ras, &mcp, &id_token),
    };
    let request = if scopes.is_empty() { request } else { request.with_scopes(scopes) };
    let token = request.exchange(&http, &http).await?;
    let bearer = token.access_token.secret().clone();
    let config = StreamableHttpClientTransportConfig::with_uri(mcp.as_str()).auth_header(bearer);
    let service = ().serve(StreamableHttpClientTransport::from_config(config)).await?;
    let tools: Vec<String> =
        service.list_all_tools().await?.into_iter().map(|tool| tool.name.to_string()).collect();
    let arguments = serde_json::from_str(&var("TOOL_ARGS"))?;
    let call = CallToolRequestParams::new(var("TOOL")).with_arguments(arguments);
    let result = service.call_tool(call).await?;
    service.cancel().await?;
    let ok = result.is_error != Some(true);
    println!("{}", json!({"ok": ok, "tools": tools, "access_token": token.access_token.secret()}));
    if ok { Ok(()) } else { Err("the tool failed".into()) }
}
