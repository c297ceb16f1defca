//! The authorization code grant (RFC 6749 4.1.3, RFC 7636 4.5).

use super::{
    directory::IdpDirectory,
    sign_in::upstream::still_there,
    state::Idp,
    tokens::{self, Issue, UsedUp},
};
use passavant_authority::{
    answer::Failure,
    grants::{self, PresentedCode},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_proto::refusal::Refusal;
use passavant_store::{AuditEvent, RefreshToken};

pub(super) async fn redeem(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let presented = grants::present_code(&idp.0.authority, request, event).await?;
    bring(idp, request, presented, event).await
}

/// Whether a session came by way of SAML, by which nobody can ask whether the person is still there: what
/// they have ends with the session.
async fn is_never_checked(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    sid: &str,
) -> Result<bool, Failure> {
    let directory = &request.snapshot.directory;
    if !directory.has_upstreams() {
        return Ok(false);
    }
    let name = idp.0.authority.store.upstream_of(sid).await?;
    let upstream = name.and_then(|name| directory.upstream(&name));
    Ok(upstream.is_some_and(|upstream| upstream.saml().is_some()))
}

/// Issues the tokens for a presented code, whichever way the person signed in.
pub(super) async fn bring(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    presented: PresentedCode,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    let now = authority.now();
    let (code, session) = (&presented.code, &presented.session);
    let key_thumbprint = request.key_thumbprint();
    if !request.client.acts_for(&session.user_id) {
        return Err(Refusal::Code.into());
    }
    state.admission.grant(request.client.id(), &session.user_id)?;
    still_there(idp, &request.snapshot, &session.sid).await?;
    let scopes = &code.request.scopes;
    let mut ends = now.plus(state.settings.refresh_absolute);
    if is_never_checked(idp, request, &session.sid).await? {
        ends = ends.min(session.expires_at);
    }
    let refresh_token = scopes.contains("offline_access").then(|| {
        let token = RefreshToken {
            family: code.family.clone(),
            sid: session.sid.clone(),
            user_id: session.user_id.clone(),
            client_id: request.client.id().to_owned(),
            scopes: scopes.clone(),
            authentication: session.authentication.clone(),
            dpop_jkt: key_thumbprint.filter(|_| request.client.is_public()).map(str::to_owned),
            resource: None,
            client_method: None,
            idle_expires_at: now.plus(state.settings.refresh_idle).min(ends),
            expires_at: ends,
        };
        Box::new((authority.context.entropy.secret(), token))
    });
    let issue = Issue {
        client: &request.client,
        user_id: &session.user_id,
        session: &session.sid,
        family: &code.family,
        authentication: &session.authentication,
        scopes,
        nonce: code.request.nonce.as_deref(),
        key_thumbprint,
        used_up: UsedUp::Code(&presented.hash, refresh_token),
    };
    let issued = tokens::issue(idp, request.snapshot.clone(), issue, event, now).await;
    match issued {
        // Two concurrent uses: at most one of them got tokens, and those are revoked.
        Err(Failure::RefusedOnRecord(Refusal::Code)) => {
            Err(grants::code_reuse(authority, &code.family, event).await)
        }
        issued => issued,
    }
}
