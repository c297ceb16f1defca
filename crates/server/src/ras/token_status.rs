//! Revocation and introspection at a RAS.

use super::Ras;
use crate::{
    answer::broken,
    token_endpoint::{client_request, conclude},
    token_status::{active, inactive, revoked},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::Response,
};
use carnet_proto::{
    access_token::{AccessToken, verify_any_audience},
    identifier::Resource,
    refusal::Refusal,
    secret::Secret,
};
use carnet_store::{HotOperation, RefreshTokenState, StoreError};

/// RFC 7009.
pub(super) async fn revoke(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let authority = &ras.0.authority;
    let url = authority.issuer.endpoint("/revoke");
    let request = match client_request(authority, &ras.0.throttle, &url, "revoke", request).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => return conclude(authority, request.event, Refusal::from(error).into()).await,
    };
    let now = authority.now();
    let hash = token.hash();
    match authority.store.refresh_token(&hash, now).await {
        Ok(RefreshTokenState::Live(held) | RefreshTokenState::Replaced(held))
            if held.client_id == request.client.id() =>
        {
            let event = request.event.person(&held.user_id);
            let done = authority.store.revoke_family(&held.family, event, now).await;
            return done.map_or_else(|error| broken(&error), |()| revoked());
        }
        Ok(_) => {}
        Err(error) => return broken(&error),
    }
    let keys = authority.keys.verifying();
    let verified = verify_any_audience(token.expose(), keys, &authority.issuer, now).ok();
    let held = verified.map(|(held, _)| held).filter(|held| held.client == request.client.id());
    let done = match held {
        Some(held) => {
            let event = request.event.person(&held.subject).with("jti", held.jti.as_str());
            authority.store.revoke_grant(&held.jti, event, now).await.map(|_| ())
        }
        None => {
            let operation = HotOperation::new(Some(request.event.refused("revoke.not_yours")));
            authority.store.record(operation, now).await.map(|_| ())
        }
    };
    match done {
        Ok(()) => revoked(),
        Err(error) => broken(&error),
    }
}

/// RFC 7662, for the client that a token was issued to and for the MCP server that it is for; to others
/// every token is inactive (F14).
pub(super) async fn introspect(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let authority = &ras.0.authority;
    let url = authority.issuer.endpoint("/introspect");
    let request =
        match client_request(authority, &ras.0.throttle, &url, "introspect", request).await {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => return conclude(authority, request.event, Refusal::from(error).into()).await,
    };
    if request.client.is_public() {
        // Anyone could be it.
        return inactive();
    }
    let keys = authority.keys.verifying();
    let verified = verify_any_audience(token.expose(), keys, &authority.issuer, authority.now());
    let Ok((held, audience)) = verified else { return inactive() };
    let stands_for = &request.client.record().resources;
    let audience_is = |resource: &Resource| {
        audience.iter().any(|aud| Resource::parse(aud).is_ok_and(|aud| aud == *resource))
    };
    if held.client != request.client.id() && !stands_for.iter().any(audience_is) {
        return inactive();
    }
    let governed = &request.snapshot.directory.governed;
    if !governed.iter().any(|governed| !governed.disabled && audience_is(&governed.resource)) {
        return inactive();
    }
    match is_live(&ras, &held).await {
        Ok(true) => active(&held, &audience),
        Ok(false) => inactive(),
        Err(error) => broken(&error),
    }
}

/// Whether a token is ours, for an MCP server that is switched on, and live.
pub(super) async fn stands(ras: &Ras, token: &Secret) -> Result<bool, StoreError> {
    let authority = &ras.0.authority;
    let keys = authority.keys.verifying();
    let verified = verify_any_audience(token.expose(), keys, &authority.issuer, authority.now());
    let Ok((held, audience)) = verified else { return Ok(false) };
    let snapshot = authority.fresh().await?;
    let governed = &snapshot.directory.governed;
    let governs = governed.iter().any(|governed| {
        !governed.disabled
            && audience
                .iter()
                .any(|aud| Resource::parse(aud).is_ok_and(|aud| aud == governed.resource))
    });
    Ok(governs && is_live(ras, &held).await?)
}

/// On record and not revoked, and everything it rests on still switched on: issuer (D40), client,
/// account.
async fn is_live(ras: &Ras, token: &AccessToken) -> Result<bool, StoreError> {
    let authority = &ras.0.authority;
    let snapshot = authority.fresh().await?;
    let directory = &snapshot.directory;
    let Some(grant) = authority.store.live_grant(&token.jti).await? else { return Ok(false) };
    let account = authority.store.by_id::<carnet_proto::trust::Account>(&grant.user_id).await?;
    Ok(directory.trusted(&grant.party).is_some()
        && directory.may_be_client(&token.client)
        && account.is_some_and(|account| !account.disabled))
}
