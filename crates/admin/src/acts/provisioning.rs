//! The tokens with which an upstream provisions people and groups (SCIM 2.0).

use super::{ActError, context::ActContext};
use crate::{
    servers::IdpAdmin,
    types::{Kind, Listed, NewProvisioningToken, ProvisioningTokenView, Upstreams},
};
use passavant_proto::{
    event::{Act, Detail},
    oidc::upstream::{UpstreamProvider, provisioning_path},
    secret::Secret,
};
use passavant_store::{AuditEvent, ProvisioningToken};

/// What an administrator's acts on these tokens are called in the trail.
const KIND: &str = "provisioning token";

/// Days that a token stands, by default and at most.
const DAYS: i64 = 366;

/// Where an upstream provisions.
pub(super) fn provisioning_url(idp: &IdpAdmin, upstream: &str) -> String {
    idp.issuer().endpoint(&provisioning_path(upstream))
}

fn view(idp: &IdpAdmin, held: ProvisioningToken, token: Option<&Secret>) -> ProvisioningTokenView {
    ProvisioningTokenView {
        provisioning_url: provisioning_url(idp, &held.upstream),
        id: held.id,
        token: token.map(|token| token.expose().to_owned()),
        created_at: held.created_at,
        expires_at: held.expires_at,
        used_at: Some(held.used_at).filter(|used| used.0 > 0),
    }
}

fn event(context: &ActContext, act: Act, upstream: &str, id: &str) -> AuditEvent {
    context.act(act, KIND).with(Detail::Record, id).with(Detail::Upstream, upstream)
}

/// Makes a token, which is shown once.
pub(crate) async fn add(
    idp: &IdpAdmin,
    context: &ActContext,
    upstream: &str,
    new: NewProvisioningToken,
) -> Result<ProvisioningTokenView, ActError> {
    let days = new.days.unwrap_or(DAYS);
    if !(1..=DAYS).contains(&days) {
        return Err(ActError::invalid(
            format!("`days`: {days} is not from 1 to {DAYS}"),
            "leave it out for a year",
        ));
    }
    let secret = context.entropy.secret();
    let now = context.now();
    let token = ProvisioningToken {
        id: context.entropy.id(),
        upstream: upstream.to_owned(),
        created_at: now,
        expires_at: now.plus(days * 86_400),
        used_at: passavant_proto::time::Timestamp(0),
    };
    let event = event(context, Act::Create, upstream, &token.id)
        .with(Detail::Ends, token.expires_at.0.to_string());
    if context.store.add_provisioning_token(&token, &secret.hash(), event).await? {
        return Ok(view(idp, token, Some(&secret)));
    }
    Err(ActError::missing(Upstreams::NOUN, upstream))
}

pub(crate) async fn list(
    idp: &IdpAdmin,
    context: &ActContext,
    upstream: &str,
) -> Result<Listed<ProvisioningTokenView>, ActError> {
    context.find::<UpstreamProvider>(Upstreams::NOUN, upstream).await?;
    let held = context.store.provisioning_tokens(upstream).await?.into_iter();
    let items = held.map(|token| view(idp, token, None)).collect();
    Ok(Listed { items, unreadable: Vec::new(), next: None })
}

/// Revokes a token, also one whose upstream cannot be read.
pub(crate) async fn revoke(context: &ActContext, upstream: &str, id: &str) -> Result<(), ActError> {
    let event = event(context, Act::Revoke, upstream, id);
    if context.store.revoke_provisioning_token(upstream, id, event).await? {
        return Ok(());
    }
    Err(ActError::Missing(
        format!("the upstream `{upstream}` has no provisioning token `{id}`"),
        "`passavant admin upstream tokens` lists them".to_owned(),
    ))
}
