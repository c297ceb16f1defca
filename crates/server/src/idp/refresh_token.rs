//! The refresh grant: rotation, and a family that dies with the first reuse (RFC 9700 4.14.2).

use super::{
    Idp,
    directory::IdpDirectory,
    tokens::{self, Issue},
};
use crate::{
    answer::Failure,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_proto::{refusal::Refusal, secret::Secret, token_exchange::parse_scope};
use carnet_store::{AuditEvent, RefreshToken, RefreshTokenState, Rotation};

pub(super) async fn renew(
    idp: &Idp,
    request: ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    let presented = Secret::new(request.form.required("refresh_token")?);
    let wanted = parse_scope(&request.form)?;
    let now = authority.now();
    let hash = presented.hash();
    let held = match authority.store.refresh_token(&hash, now).await? {
        RefreshTokenState::Live(token) if token.client_id == request.client.id() => token,
        RefreshTokenState::Replaced(token) if token.client_id == request.client.id() => {
            let event =
                event.clone().person(&token.user_id).refused(Refusal::RefreshTokenReuse.reason());
            authority.store.revoke_family(&token.family, event, now).await?;
            return Err(Failure::RefusedOnRecord(Refusal::RefreshTokenReuse));
        }
        _ => return Err(Refusal::RefreshToken.into()),
    };
    *event = event.clone().person(&held.user_id);
    let key_thumbprint = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    if held.dpop_jkt.is_some() && held.dpop_jkt.as_deref() != key_thumbprint {
        return Err(Refusal::DpopBinding.into());
    }
    let scopes = wanted.unwrap_or_else(|| held.scopes.clone());
    if !held.scopes.contains_all(&scopes) {
        return Err(Refusal::ScopeWidened.into());
    }
    // Asked before the rotation, so that a person who is switched off does not lose the family to
    // a reuse alarm as well.
    let snapshot = authority.fresh().await?;
    if snapshot.directory.person(&authority.store, &held.user_id).await?.is_none() {
        return Err(Refusal::RefreshToken.into());
    }
    let secret = authority.context.entropy.secret();
    let successor = RefreshToken {
        idle_expires_at: now.plus(state.settings.refresh_idle).min(held.expires_at),
        ..(*held).clone()
    };
    let rotation =
        authority.store.rotate_refresh_token(&hash, &secret.hash(), &successor, now).await?;
    match rotation {
        Rotation::Rotated => {}
        Rotation::Reused => return Err(Refusal::RefreshTokenReuse.into()),
        Rotation::Invalid => return Err(Refusal::RefreshToken.into()),
    }
    let issue = Issue {
        client: &request.client,
        user_id: &held.user_id,
        session: &held.sid,
        family: &held.family,
        authentication: &held.authentication,
        scopes: &scopes,
        nonce: None,
        key_thumbprint,
        refresh_token: Some(secret.expose().to_owned()),
    };
    tokens::issue(idp, snapshot, issue, event, now).await
}
