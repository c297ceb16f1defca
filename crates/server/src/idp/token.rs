//! The token endpoint's route table.

use super::{
    Idp, authorization_code, device, directory::IdpDirectory, refresh_token, token_exchange,
};
use crate::{
    answer::{self, Failure},
    token_endpoint::{ClientRequest, TRIES, TokenAnswer, client_request, conclude},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use carnet_proto::{
    GRANT_DEVICE_CODE, GRANT_TOKEN_EXCHANGE, client::ENROLLED_CLIENT, refusal::Refusal,
};
use carnet_store::AuditEvent;

pub(super) async fn token(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/token");
    let client_request =
        match client_request(authority, &idp.0.admission, &url, "token", request).await {
            Ok(client_request) => client_request,
            Err(refused) => return refused,
        };
    let mut event = client_request.event.clone();
    let sender = client_request.sender.clone();
    let mut request = client_request;
    let mut tries = 0;
    let outcome = loop {
        tries += 1;
        match grant(&idp, request.clone(), &mut event).await {
            Err(Failure::ClientChanged) if tries < TRIES => match request.again(authority).await {
                Ok(again) => request = again,
                Err(failure) => break Err(failure),
            },
            outcome => break outcome,
        }
    };
    match outcome {
        Ok(tokens) => answer::no_store(StatusCode::OK, &tokens),
        Err(failure) => conclude(authority, &idp.0.admission, &sender, event, failure).await,
    }
}

/// One grant type, one function.
async fn grant(
    idp: &Idp,
    request: ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let enrols = request.client.id() == ENROLLED_CLIENT;
    match request.form.required("grant_type") {
        Ok(grant)
            if enrols
                && (!idp.0.settings.enrolment
                    || !["authorization_code", GRANT_DEVICE_CODE].contains(&grant)) =>
        {
            Err(Failure::Refused(Refusal::PublicClient))
        }
        Ok("authorization_code") => {
            event.event = "authorization_code".into();
            authorization_code::redeem(idp, request, event).await
        }
        Ok(GRANT_DEVICE_CODE) => {
            event.event = "device_code".into();
            device::redeem(idp, request, event).await
        }
        Ok("refresh_token") => {
            event.event = "refresh_token".into();
            refresh_token::renew(idp, request, event).await
        }
        Ok(GRANT_TOKEN_EXCHANGE) => {
            event.event = "token_exchange".into();
            token_exchange::exchange(idp, request, event).await
        }
        Ok(_) => Err(Failure::Refused(Refusal::GrantType)),
        Err(error) => Err(Failure::Refused(error.into())),
    }
}
