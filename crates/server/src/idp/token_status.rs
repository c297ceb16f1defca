//! Revocation and introspection at the IdP.

use super::{Idp, bearer::is_live};
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
use carnet_proto::{access_token::verify_any_audience, refusal::Refusal, secret::Secret};
use carnet_store::{HotOperation, RefreshTokenState, StoreError};

/// RFC 7009. A refresh token takes its family with it; another client's token is left alone.
pub(super) async fn revoke(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/revoke");
    let request = match client_request(authority, &idp.0.throttle, &url, "revoke", request).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let (client, event) = (request.client.id(), request.event);
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => return conclude(authority, event, Refusal::from(error).into()).await,
    };
    let now = authority.now();
    let outcome: Result<(), StoreError> = async {
        if let RefreshTokenState::Live(held) | RefreshTokenState::Replaced(held) =
            authority.store.refresh_token(&token.hash(), now).await?
            && held.client_id == client
        {
            let event = event.person(&held.user_id);
            return authority.store.revoke_family(&held.family, event, now).await;
        }
        let keys = authority.keys.verifying();
        let verified = verify_any_audience(token.expose(), keys, &authority.issuer, now);
        if let Ok((held, _)) = verified
            && held.client == client
        {
            let event = event.person(&held.subject).with("jti", held.jti.as_str());
            authority.store.revoke_grant(&held.jti, event, now).await?;
            return Ok(());
        }
        let operation = HotOperation::new(Some(event.refused("revoke.not_yours")));
        authority.store.record(operation, now).await.map(|_| ())
    }
    .await;
    match outcome {
        Ok(()) => revoked(),
        Err(error) => broken(&error),
    }
}

/// RFC 7662, for the client that a token was issued to.
pub(super) async fn introspect(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/introspect");
    let request =
        match client_request(authority, &idp.0.throttle, &url, "introspect", request).await {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    if request.client.is_public() {
        let refusal = Refusal::ClientAuthenticationMissing;
        return conclude(authority, request.event, refusal.into()).await;
    }
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => return conclude(authority, request.event, Refusal::from(error).into()).await,
    };
    let now = authority.now();
    let keys = authority.keys.verifying();
    let Ok((held, audience)) = verify_any_audience(token.expose(), keys, &authority.issuer, now)
    else {
        return inactive();
    };
    if held.client != request.client.id() {
        return inactive();
    }
    match is_live(&idp, &held).await {
        Ok(true) => active(&held, &audience),
        Ok(false) => inactive(),
        Err(error) => broken(&error),
    }
}
