//! Revocation and introspection at the IdP.

use super::{bearer::standing_of, state::Idp};
use axum::{
    body::Body,
    extract::{Request, State},
    http::Response,
};
use passavant_authority::{
    admission::Busy,
    answer::{self, broken},
    token_endpoint::{Endpoint, client_request, conclude},
    token_status::{active, inactive, revoked},
};
use passavant_proto::{
    event::Detail, oauth::access_token::verify_any_audience, oidc::id_token::verify_subject,
    refusal::Refusal, secret::Secret,
};
use passavant_store::StoreError;

/// RFC 7009. Revoking a refresh token ends what its client has by that sign-in (section 2.1): the
/// family, with the ID token, and the ID-JAGs; authorization servers that redeemed them are told. An
/// ID token does the same, for a client without a refresh token. The session stays for the other
/// clients that signed in in the same browser; another client's token is not touched.
pub(super) async fn revoke(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/revoke");
    let request = match client_request(
        authority,
        &idp.0.admission,
        &url,
        Endpoint::Revocation,
        request,
    )
    .await
    {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let (client, event, sender) = (request.client.id(), request.event, &request.sender);
    let admission = &idp.0.admission;
    let token = match request.form.required("token") {
        Ok(token) => Secret::new(token),
        Err(error) => {
            let refusal = Refusal::from(error);
            return conclude(authority, admission, sender, event, refusal.into()).await;
        }
    };
    let now = authority.now();
    let outcome: Result<Option<Busy>, StoreError> = async {
        let held = authority.store.refresh_token(&token.hash(), now).await?;
        if let Some((family, person, of)) = held.revocable()
            && of == client
        {
            let event = event.person(person);
            return authority.store.revoke_family(family, event, now).await.map(|()| None);
        }
        let keys = authority.fresh().await?.keys.verifying();
        let verified = verify_any_audience(token.expose(), &keys, &authority.issuer, now);
        if let Ok((held, _)) = verified
            && held.client == client
        {
            let event = event.person(&held.subject).with(Detail::Jti, held.jti.as_str());
            authority.store.revoke_grant(&held.jti, event, now).await?;
            return Ok(None);
        }
        // Its `origin_jti` names the family; ID tokens of earlier versions have none.
        let subject = verify_subject(token.expose(), &keys, &authority.issuer, client, now).ok();
        if let Some((held, family)) =
            subject.and_then(|held| held.family.clone().map(|f| (held, f)))
        {
            let event = event.person(&held.subject);
            let of = (held.subject.as_str(), held.session.as_str(), client);
            authority.store.end_sign_in_of_client(&family, of, event, now).await?;
            return Ok(None);
        }
        // It was not a valid token: the answer is the same, but the row it costs is limited.
        if let Err(busy) = admission.refusal(sender) {
            return Ok(Some(busy));
        }
        let event = sender.noted_in(event.refused("revoke.not_yours"));
        authority.store.note(event, now).await.map(|_| None)
    }
    .await;
    match outcome {
        Ok(Some(busy)) => answer::throttled(busy.0),
        Ok(None) => revoked(),
        Err(error) => broken(&error),
    }
}

/// RFC 7662, for the client that a token was issued to.
pub(super) async fn introspect(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/introspect");
    let request =
        match client_request(authority, &idp.0.admission, &url, Endpoint::Introspection, request)
            .await
        {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let admission = &idp.0.admission;
    if request.client.is_public() {
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
    let now = authority.now();
    // As of this request: `client_request` has read the directory again.
    let keys = request.snapshot.keys.verifying();
    let Ok((held, audience)) = verify_any_audience(token.expose(), &keys, &authority.issuer, now)
    else {
        return inactive();
    };
    if held.client != request.client.id() {
        return inactive();
    }
    match standing_of(&idp, &held).await {
        Ok(Some(_)) => active(&held, &audience),
        Ok(None) => inactive(),
        Err(error) => broken(&error),
    }
}
