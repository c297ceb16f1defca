//! The refresh grant: rotation, and a family that ends with the first reuse (RFC 9700 4.14.2).

use super::{
    directory::IdpDirectory,
    sign_in::upstream::still_there,
    state::Idp,
    tokens::{self, Issue, UsedUp},
};
use passavant_authority::{
    answer::Failure,
    grants::PresentedToken,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_proto::refusal::Refusal;
use passavant_store::AuditEvent;

pub(super) async fn renew(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    let now = authority.now();
    if request.form.mentions("resource") {
        // As at the authorization endpoint: tokens of this grant are never for an MCP server.
        return Err(Refusal::ResourceAtSignIn.into());
    }
    let mut presented = PresentedToken::read(authority, request, event).await?;
    if !request.client.acts_for(&presented.held.user_id) {
        return Err(Refusal::RefreshToken.into());
    }
    state.admission.grant(request.client.id(), &presented.held.user_id)?;
    still_there(idp, &request.snapshot, &presented.held.sid).await?;
    loop {
        let held = &presented.held;
        let issue = Issue {
            client: &request.client,
            user_id: &held.user_id,
            session: &held.sid,
            family: &held.family,
            authentication: &held.authentication,
            scopes: &presented.scopes,
            nonce: None,
            key_thumbprint: request.key_thumbprint(),
            used_up: UsedUp::RefreshToken(
                presented.renewal(authority, state.settings.refresh_idle),
            ),
        };
        match tokens::issue(idp, authority.fresh().await?, issue, event, now).await {
            Err(failure) => presented.lost(authority, failure, event).await?,
            issued => return issued,
        }
    }
}
