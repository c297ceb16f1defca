//! Our client library as the client of the MCP conformance suite: the suite passes its context in
//! the environment and the MCP server's URL as last argument, and expects exit code 0 for success.
//! In scenarios about consent, the person is a plain HTTP client that follows redirects, as the
//! suite's authorization server expects.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the suite speaks through the environment; the program stops at the first surprise"
)]

use passavant_client::{Browser, Client, MemoryVault, Purpose, Registration, Session, Settings};
use passavant_outbound::Outbound;
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::{Algorithm, SigningKey},
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
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The contexts of scenarios; each uses some of the members.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    client_id: Option<String>,
    client_secret: Option<String>,
    issuer: Option<String>,
    idp_client_id: Option<String>,
    idp_id_token: Option<String>,
    idp_issuer: Option<String>,
    idp_token_endpoint: Option<String>,
}

/// A person who consents to everything.
struct Willing;

impl Browser for Willing {
    fn open(&self, url: &str, _: Purpose) -> bool {
        let url = url.to_owned();
        tokio::spawn(async move { reqwest::get(url).await });
        true
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().next_back().ok_or("the MCP server's URL is missing")?;
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").unwrap_or_else(|_| "{}".to_owned());
    let context: Context = serde_json::from_str(&context)?;
    let version = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_default();
    let client = match &context.idp_token_endpoint {
        Some(_) => with_cross_app_access(&context, &url).await?,
        None => with_consent(&context)?,
    };
    let mode = if version == "2026-07-28" {
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
    } else {
        ClientLifecycleMode::Initialize
    };
    let service = ().serve_with_lifecycle(client.transport_to(&url)?, mode).await?;
    let tools = service.list_all_tools().await?;
    let tool = tools.first().ok_or("the server has no tool")?.name.to_string();
    service.call_tool(CallToolRequestParams::new(tool)).await?;
    service.cancel().await?;
    Ok(())
}

fn client(settings: Settings, vault: MemoryVault) -> Result<Client, Box<dyn std::error::Error>> {
    let clock = Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    });
    let entropy = Entropy::new(|buffer| aws_lc_rs::rand::fill(buffer).unwrap());
    Ok(Client::new(settings, Box::new(vault), Outbound::new(&[])?, clock, entropy))
}

/// A fresh key, which tokens are bound to where the suite's servers take DPoP proofs.
fn key() -> Result<Arc<SigningKey>, Box<dyn std::error::Error>> {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let scheme = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(scheme, &random)?;
    Ok(Arc::new(SigningKey::from_pkcs8(Algorithm::ES256, der.as_ref())?))
}

/// A person who is already signed in at the company, with the suite's ID token.
async fn with_cross_app_access(
    context: &Context,
    url: &str,
) -> Result<Client, Box<dyn std::error::Error>> {
    let text = |value: &Option<String>| value.clone().ok_or("the context is incomplete");
    let idp = Issuer::parse(&text(&context.idp_issuer)?).map_err(|e| e.to_string())?;
    let settings = Settings {
        idp_token_endpoint: context.idp_token_endpoint.clone(),
        dpop_key: Some(key()?),
        ..Settings::new(idp.clone(), Registration::public(text(&context.idp_client_id)?))
    };
    let session = Session {
        issuer: idp.to_string(),
        idp_client_id: text(&context.idp_client_id)?,
        name: "conformance".to_owned(),
        id_token: text(&context.idp_id_token)?,
        id_token_expires: i64::MAX,
        refresh_token: None,
        renewed_at: 0,
        access_token: None,
        access_token_expires: 0,
        ended: None,
    };
    // The operator of this client configured the suite's authorization server manually, because it
    // does not announce the grant profile.
    let server = client(settings.clone(), MemoryVault::default())?.discover(url).await?;
    let secret = Secret::new(text(&context.client_secret)?);
    let at_ras = Registration::with_secret(text(&context.client_id)?, secret);
    let ras_clients = HashMap::from([(server.authorization_server.to_string(), at_ras)]);
    client(Settings { ras_clients, ..settings }, MemoryVault::with(session))
}

/// A client that belongs to no company: the person consents to whatever the server's own
/// authorization server asks for.
fn with_consent(context: &Context) -> Result<Client, Box<dyn std::error::Error>> {
    let idp = Issuer::parse("https://idp.invalid").map_err(|e| e.to_string())?;
    let mut settings = Settings::new(idp, Registration::public("nobody"));
    settings.governed = false;
    settings.dpop_key = Some(key()?);
    settings.client_document =
        Some("https://conformance-test.local/client-metadata.json".to_owned());
    if let (Some(issuer), Some(id), Some(secret)) =
        (&context.issuer, &context.client_id, &context.client_secret)
    {
        let known = Registration::with_secret(id, Secret::new(secret.clone()));
        settings.consent_clients.insert(issuer.clone(), known);
    }
    Ok(client(settings, MemoryVault::default())?.with_browser(Arc::new(Willing)))
}
