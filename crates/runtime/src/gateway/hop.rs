//! The gateway as a client of the MCP server behind it: for the person of a caller it requests an
//! ID-JAG from the company's IdP, with the caller's token, and redeems it at the MCP server's own
//! RAS.

use super::config::UpstreamClient;
use anyhow::Result;
use passavant_authority::Context;
use passavant_client::{
    Client, Error, McpServer, MemoryVault, Registration, Settings, SubjectTokenKind,
};
use passavant_gateway::{UpstreamToken, UpstreamTokenError, UpstreamTokens};
use passavant_host as system;
use passavant_host::Shared;
use passavant_outbound::Outbound;
use passavant_proto::{oauth::scope::Scopes, secret::Secret};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::OnceCell;

struct Hop {
    client: Client,
    resource: String,
    authorization_server: String,
    scopes: Option<Scopes>,
    server: OnceCell<McpServer>,
}

/// Obtains tokens for one MCP server.
pub(super) fn upstream_tokens(
    config: &UpstreamClient,
    outbound: &Outbound,
    context: &Context,
    secrets: Shared,
) -> Result<UpstreamTokens> {
    let at_idp = Registration::with_secret(
        &config.client_id,
        system::read_secret(&config.secret_file, secrets)?,
    );
    let at_ras = Registration::with_secret(
        &config.ras_client_id,
        system::read_secret(&config.ras_secret_file, secrets)?,
    );
    let settings = Settings {
        ras_clients: HashMap::from([(config.authorization_server.to_string(), at_ras)]),
        ..Settings::new(config.idp.clone(), at_idp)
    };
    // Nobody signs in here, so the vault stays empty.
    let vault = Box::new(Arc::new(MemoryVault::default()));
    let (clock, entropy) = (context.clock.clone(), context.entropy.clone());
    let hop = Arc::new(Hop {
        client: Client::new(settings, vault, outbound.clone(), clock, entropy),
        resource: config.resource.as_str().to_owned(),
        authorization_server: config.authorization_server.to_string(),
        scopes: (!config.scopes.is_empty()).then(|| config.scopes.clone()),
        server: OnceCell::new(),
    });
    Ok(Arc::new(move |_, token| {
        let hop = Arc::clone(&hop);
        Box::pin(async move { hop.obtain(token).await })
    }))
}

impl Hop {
    async fn obtain(&self, token: Secret) -> Result<UpstreamToken, UpstreamTokenError> {
        let server = self.server.get_or_try_init(|| self.find()).await?;
        let (client, scopes) = (&self.client, self.scopes.as_ref());
        let subject = (SubjectTokenKind::AccessToken, token.expose());
        let fresh = || client.exchange(server, scopes, subject);
        let id_jag = fresh().await.map_err(|e| failed(&e))?;
        let got = client.redeem_or_again(server, scopes, &id_jag, fresh).await;
        let got = got.map_err(|e| failed(&e))?;
        Ok(UpstreamToken { token: got.secret().clone(), expires: got.expires })
    }

    async fn find(&self) -> Result<McpServer, UpstreamTokenError> {
        let server = self.client.discover(&self.resource).await.map_err(|e| failed(&e))?;
        let found = server.authorization_server.as_str();
        if found != self.authorization_server {
            let wanted = &self.authorization_server;
            let text = format!(
                "The MCP server behind this gateway names the authorization server {found}; the gateway's \
                 config says {wanted}."
            );
            tracing::error!(text, "no token can be had for an MCP server");
            return Err(UpstreamTokenError::Unavailable(text));
        }
        Ok(server)
    }
}

/// What the caller is told: who refused, without that party's own text.
fn failed(error: &Error) -> UpstreamTokenError {
    tracing::warn!(%error, "no token for the MCP server behind the gateway");
    match error {
        Error::RefusedByPolicy { .. } | Error::StepUpNeeded(_) => UpstreamTokenError::Refused(
            "The company's policy does not let you reach the MCP server behind this gateway."
                .to_owned(),
        ),
        _ => UpstreamTokenError::Unavailable(
            "No token can be had just now for the MCP server behind this gateway.".to_owned(),
        ),
    }
}
