//! The token endpoint's route table.

use super::{
    authorization_code, device, directory::IdpDirectory, refresh_token, state::Idp, token_exchange,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::Response,
};
use passavant_authority::{
    admission::Admission,
    answer::Failure,
    authority::Authority,
    token_endpoint::{self, ClientRequest, Grants, TokenAnswer},
};
use passavant_proto::{
    GRANT_DEVICE_CODE, GRANT_TOKEN_EXCHANGE, event::RequestEvent, oauth::client::ENROLLED_CLIENT,
    refusal::Refusal,
};
use passavant_store::AuditEvent;

pub(super) async fn token(State(idp): State<Idp>, request: Request) -> Response<Body> {
    token_endpoint::token(&idp, request).await
}

impl Grants for Idp {
    type Records = IdpDirectory;

    fn authority(&self) -> &Authority<IdpDirectory> {
        &self.0.authority
    }

    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    async fn grant(
        &self,
        request: &ClientRequest<IdpDirectory>,
        event: &mut AuditEvent,
    ) -> Result<TokenAnswer, Failure> {
        let enrols = request.client.id() == ENROLLED_CLIENT;
        match request.form.required("grant_type") {
            Ok(grant)
                if enrols
                    && (!self.0.settings.enrolment
                        || !["authorization_code", GRANT_DEVICE_CODE].contains(&grant)) =>
            {
                Err(Failure::Refused(Refusal::PublicClient))
            }
            Ok("authorization_code") => {
                event.event = RequestEvent::AuthorizationCode.into();
                authorization_code::redeem(self, request, event).await
            }
            Ok(GRANT_DEVICE_CODE) => {
                event.event = RequestEvent::DeviceCode.into();
                device::redeem(self, request, event).await
            }
            Ok("refresh_token") => {
                event.event = RequestEvent::RefreshToken.into();
                refresh_token::renew(self, request, event).await
            }
            Ok(GRANT_TOKEN_EXCHANGE) => {
                event.event = RequestEvent::TokenExchange.into();
                token_exchange::exchange(self, request, event).await
            }
            Ok("client_credentials") => {
                self.0.admission.grant(request.client.id(), "tokens for streams of signals")?;
                passavant_signals::issue_token(&self.0.authority, request, event).await
            }
            Ok(_) => Err(Failure::Refused(Refusal::GrantType)),
            Err(error) => Err(Failure::Refused(error.into())),
        }
    }
}
