//! The refresh grant: rotation, and a family that dies with the first reuse (RFC 9700 4.14.2).

use super::{
    Idp,
    directory::IdpDirectory,
    tokens::{self, Issue},
};
use crate::{
    answer::Failure,
    grants::Presented,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_proto::refusal::Refusal;
use carnet_store::AuditEvent;

pub(super) async fn renew(
    idp: &Idp,
    request: ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    let now = authority.now();
    let presented = Presented::read(authority, &request, event).await?;
    let held = &presented.held;
    // Asked before the rotation, so that a person who is switched off does not lose the family to
    // a reuse alarm as well.
    let snapshot = authority.fresh().await?;
    if snapshot.directory.person(&authority.store, &held.user_id).await?.is_none() {
        return Err(Refusal::RefreshToken.into());
    }
    let secret = presented.rotate(authority, state.settings.refresh_idle).await?;
    let issue = Issue {
        client: &request.client,
        user_id: &held.user_id,
        session: &held.sid,
        family: &held.family,
        authentication: &held.authentication,
        scopes: &presented.scopes,
        nonce: None,
        key_thumbprint: request.key_thumbprint(),
        refresh_token: Some(secret.expose().to_owned()),
    };
    tokens::issue(idp, snapshot, issue, event, now).await
}
