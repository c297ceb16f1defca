//! The authorization code grant (RFC 6749 4.1.3, RFC 7636 4.5).

use super::{
    Idp,
    directory::IdpDirectory,
    tokens::{self, Issue},
};
use crate::{
    answer::Failure,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_proto::{authorize::AuthorizationRequest, form::Form, refusal::Refusal, secret::Secret};
use carnet_store::{AuditEvent, CodeRedemption, RefreshToken};

pub(super) async fn redeem(
    idp: &Idp,
    request: ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    let code = Secret::new(request.form.required("code")?);
    let now = authority.now();
    // Used up here, whatever the checks below say: a code that leaked is worth one guess.
    let redeemed = authority.store.redeem_authorization_code(&code.hash(), now).await?;
    let (code, session) = match redeemed {
        CodeRedemption::Redeemed(code, session) => (code, session),
        CodeRedemption::Reused => return Err(Refusal::CodeReuse.into()),
        CodeRedemption::Invalid => return Err(Refusal::Code.into()),
    };
    *event = event.clone().person(&session.user_id);
    let key_thumbprint = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    check(&request.form, &code.request, request.client.id(), key_thumbprint)?;
    if !request.client.acts_for(&session.user_id) {
        return Err(Refusal::Code.into());
    }
    let scopes = &code.request.scopes;
    let refresh_token = if scopes.contains("offline_access") {
        let secret = authority.context.entropy.secret();
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
            idle_expires_at: now.plus(state.settings.refresh_idle),
            expires_at: now.plus(state.settings.refresh_absolute),
        };
        if !authority.store.issue_refresh_token(&secret.hash(), &token).await? {
            return Err(Refusal::Code.into());
        }
        Some(secret.expose().to_owned())
    } else {
        None
    };
    let issue = Issue {
        client: &request.client,
        user_id: &session.user_id,
        session: &session.sid,
        family: &code.family,
        authentication: &session.authentication,
        scopes,
        nonce: code.request.nonce.as_deref(),
        key_thumbprint,
        refresh_token,
    };
    tokens::issue(idp, request.snapshot.clone(), issue, event, now).await
}

fn check(
    form: &Form,
    asked: &AuthorizationRequest,
    client: &str,
    key_thumbprint: Option<&str>,
) -> Result<(), Refusal> {
    if asked.client_id != client {
        return Err(Refusal::Code);
    }
    if form.required("redirect_uri")? != asked.redirect_uri {
        return Err(Refusal::CodeRedirectUri);
    }
    if !asked.code_challenge.is_answered_by(form.required("code_verifier")?) {
        return Err(Refusal::CodeVerifier);
    }
    match &asked.dpop_jkt {
        Some(bound) if key_thumbprint != Some(bound) => Err(Refusal::DpopBinding),
        _ => Ok(()),
    }
}
