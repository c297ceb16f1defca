//! Revocation and introspection at a RAS.

use super::{standing::StandingToken, state::Ras};
use axum::{
    body::Body,
    extract::{Request, State},
    http::Response,
};
use passavant_authority::{
    answer::{self, broken},
    token_endpoint::{Endpoint, client_request, conclude},
    token_status::{active, inactive, revoked},
};
use passavant_proto::{
    event::Detail, identifier::Resource, oauth::access_token::verify_any_audience,
    refusal::Refusal, secret::Secret,
};

/// RFC 7009.
pub(super) async fn revoke(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let authority = &ras.0.authority;
    let url = authority.issuer.endpoint("/revoke");
    let request = match client_request(
        authority,
        &ras.0.admission,
        &url,
        Endpoint::Revocation,
        request,
    )
    .await
    {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let admission = &ras.0.admission;
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => {
            let (sender, refusal) = (&request.sender, Refusal::from(error));
            return conclude(authority, admission, sender, request.event, refusal.into()).await;
        }
    };
    let now = authority.now();
    let hash = token.hash();
    let held = match authority.store.refresh_token(&hash, now).await {
        Ok(held) => held,
        Err(error) => return broken(&error),
    };
    if let Some((family, person, client)) = held.revocable()
        && client == request.client.id()
    {
        let event = request.event.person(person);
        let done = authority.store.revoke_family(family, event, now).await;
        return done.map_or_else(|error| broken(&error), |()| revoked());
    }
    let keys = request.snapshot.keys.verifying();
    let verified = verify_any_audience(token.expose(), &keys, &authority.issuer, now).ok();
    let held = verified.map(|(held, _)| held).filter(|held| held.client == request.client.id());
    let done = match held {
        Some(held) => {
            let event = request.event.person(&held.subject).with(Detail::Jti, held.jti.as_str());
            authority.store.revoke_grant(&held.jti, event, now).await.map(|_| ())
        }
        None => {
            // The answer is the same, but the row it costs is limited.
            if let Err(busy) = admission.refusal(&request.sender) {
                return answer::throttled(busy.0);
            }
            let event = request.sender.noted_in(request.event.refused("revoke.not_yours"));
            authority.store.note(event, now).await.map(|_| ())
        }
    };
    ras.0.feed.wake();
    match done {
        Ok(()) => revoked(),
        Err(error) => broken(&error),
    }
}

/// RFC 7662, for the client that a token was issued to and for the MCP server it is for. For others
/// every token is inactive (RFC 7662 section 4).
pub(super) async fn introspect(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let authority = &ras.0.authority;
    let url = authority.issuer.endpoint("/introspect");
    let request =
        match client_request(authority, &ras.0.admission, &url, Endpoint::Introspection, request)
            .await
        {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let admission = &ras.0.admission;
    if request.client.is_public() {
        // A public client proves nothing.
        let refusal = Refusal::ClientAuthenticationMissing;
        return conclude(authority, admission, &request.sender, request.event, refusal.into())
            .await;
    }
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => {
            let (sender, refusal) = (&request.sender, Refusal::from(error));
            return conclude(authority, admission, sender, request.event, refusal.into()).await;
        }
    };
    if let Err(busy) = admission.introspection(request.client.id()) {
        return answer::throttled(busy.0);
    }
    let StandingToken { token, audience } = match ras.standing(&token).await {
        Ok(Some(standing)) => standing,
        Ok(None) => return inactive(),
        Err(error) => return broken(&error),
    };
    let stands_for = &request.client.record().resources;
    let is_for = |resource: &Resource| {
        audience.iter().any(|aud| Resource::parse(aud).is_ok_and(|aud| aud == *resource))
    };
    if token.client != request.client.id() && !stands_for.iter().any(is_for) {
        return inactive();
    }
    active(&token, &audience)
}
