//! Our client library as the MCP conformance suite's client: the suite's context in the environment,
//! the MCP server's URL as last argument, exit 0 for success.
#![allow(clippy::disallowed_methods, reason = "the suite speaks through the environment")]

use carnet_client::{Client, MemoryVault, Outbound, Registration, Session, Settings};
use carnet_proto::{
    identifier::Issuer,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use rmcp::{
    model::{CallToolRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(Deserialize)]
struct Context {
    client_id: String,
    client_secret: String,
    idp_client_id: String,
    idp_id_token: String,
    idp_issuer: String,
    idp_token_endpoint: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().next_back().ok_or("the MCP server's URL is missing")?;
    let context: Context = serde_json::from_str(&std::env::var("MCP_CONFORMANCE_CONTEXT")?)?;
    let version = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_default();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let outbound = Outbound::new(&[])?;
    // The operator of this client has configured the suite's authorization server by hand: it does
    // not advertise the grant profile.
    let server = {
        let settings = settings(&context, HashMap::new())?;
        let client = client(settings, &context, outbound.clone(), now);
        client.discover(&url).await?
    };
    let secret = Secret::new(context.client_secret.clone());
    let at_ras = Registration::with_secret(context.client_id.clone(), secret);
    let ras = HashMap::from([(server.authorization_server.to_string(), at_ras)]);
    let client = client(settings(&context, ras)?, &context, outbound, now);
    let mode = if version == "2026-07-28" {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let service = ().serve_with_lifecycle(client.transport(server)?, mode).await?;
    let tools = service.list_all_tools().await?;
    let tool = tools.first().ok_or("the server has no tool")?.name.to_string();
    service.call_tool(CallToolRequestParams::new(tool)).await?;
    service.cancel().await?;
    Ok(())
}

fn settings(
    context: &Context,
    ras_clients: HashMap<String, Registration>,
) -> Result<Settings, Box<dyn std::error::Error>> {
    let idp = Issuer::parse(&context.idp_issuer).map_err(|e| e.to_string())?;
    Ok(Settings {
        idp_token_endpoint: Some(context.idp_token_endpoint.clone()),
        ras_clients,
        ..Settings::new(idp, Registration::public(context.idp_client_id.clone()))
    })
}

fn client(settings: Settings, context: &Context, outbound: Outbound, now: i64) -> Client {
    let vault = MemoryVault::with(Session {
        issuer: context.idp_issuer.clone(),
        idp_client_id: context.idp_client_id.clone(),
        name: "conformance".to_owned(),
        id_token: context.idp_id_token.clone(),
        id_token_expires: now + 3600,
        refresh_token: None,
        renewed_at: now,
        access_token: None,
        access_token_expires: 0,
    });
    let clock = Clock::new(move || Timestamp(now));
    let entropy = Entropy::new(|buffer| {
        // Nothing unpredictable is needed: this client signs nothing in.
        buffer.fill(7);
    });
    Client::new(settings, Box::new(vault), outbound, clock, entropy)
}
