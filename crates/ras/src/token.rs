//! The token endpoint: one function for each grant type.

use super::{code, directory::RasDirectory, jwt_bearer, state::Ras};
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
use passavant_proto::{GRANT_JWT_BEARER, event::RequestEvent, refusal::Refusal};
use passavant_store::AuditEvent;

/// The token endpoint's route table.
pub(super) async fn token(State(ras): State<Ras>, request: Request) -> Response<Body> {
    token_endpoint::token(&ras, request).await
}

impl Grants for Ras {
    type Records = RasDirectory;

    fn authority(&self) -> &Authority<RasDirectory> {
        &self.0.authority
    }

    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    async fn grant(
        &self,
        request: &ClientRequest<RasDirectory>,
        event: &mut AuditEvent,
    ) -> Result<TokenAnswer, Failure> {
        let people = request.snapshot.directory.interactive().next().is_some();
        match request.form.required("grant_type") {
            Ok(grant) if !request.client.record().may_use(grant) => {
                Err(Failure::Refused(Refusal::GrantNotRegistered))
            }
            Ok(GRANT_JWT_BEARER) => {
                event.event = RequestEvent::JwtBearer.into();
                jwt_bearer::redeem(self, request, event).await
            }
            Ok("authorization_code") if people => {
                event.event = RequestEvent::AuthorizationCode.into();
                code::redeem(self, request, event).await
            }
            Ok("refresh_token") if people => {
                event.event = RequestEvent::RefreshToken.into();
                code::renew(self, request, event).await
            }
            Ok(_) => Err(Failure::Refused(Refusal::GrantType)),
            Err(error) => Err(Failure::Refused(error.into())),
        }
    }
}
