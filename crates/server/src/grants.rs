//! What the code grant (RFC 6749 4.1.3, RFC 7636 4.5) and the refresh grant have in common at the IdP and at a
//! RAS: what is presented is used up or held against its client, key and person before anything is issued.

use crate::{
    answer::Failure,
    authority::{Authority, Directory},
    token_endpoint::ClientRequest,
};
use carnet_proto::{refusal::Refusal, scope::Scopes, secret::Secret, token_exchange::parse_scope};
use carnet_store::{
    AuditEvent, AuthorizationCode, CodeRedemption, RefreshToken, RefreshTokenState, Rotation,
    Session,
};

impl<D> ClientRequest<D> {
    /// Thumbprint of the key that the request was proved with.
    pub(crate) fn key_thumbprint(&self) -> Option<&str> {
        self.proof.as_ref().map(|proof| proof.key_thumbprint.as_str())
    }
}

/// Uses a code up, and answers it if it is this client's.
pub(crate) async fn redeem_code<D: Directory>(
    authority: &Authority<D>,
    request: &ClientRequest<D>,
    event: &mut AuditEvent,
) -> Result<(Box<AuthorizationCode>, Session), Failure> {
    let form = &request.form;
    let code = Secret::new(form.required("code")?);
    // Used up here, whatever the checks below say: a code that leaked is worth one guess.
    let redeemed = authority.store.redeem_authorization_code(&code.hash(), authority.now()).await?;
    let (code, session) = match redeemed {
        CodeRedemption::Redeemed(code, session) => (code, session),
        CodeRedemption::Reused => return Err(Refusal::CodeReuse.into()),
        CodeRedemption::Invalid => return Err(Refusal::Code.into()),
    };
    *event = event.clone().person(&session.user_id);
    let asked = &code.request;
    if asked.client_id != request.client.id() {
        return Err(Refusal::Code.into());
    }
    if form.required("redirect_uri")? != asked.redirect_uri {
        return Err(Refusal::CodeRedirectUri.into());
    }
    if !asked.code_challenge.is_answered_by(form.required("code_verifier")?) {
        return Err(Refusal::CodeVerifier.into());
    }
    if asked.dpop_jkt.is_some() && asked.dpop_jkt.as_deref() != request.key_thumbprint() {
        return Err(Refusal::DpopBinding.into());
    }
    Ok((code, session))
}

/// A refresh token that may be used by who presented it, and the scopes that are wanted of it.
pub(crate) struct Presented {
    hash: String,
    pub(crate) held: Box<RefreshToken>,
    pub(crate) scopes: Scopes,
}

impl Presented {
    /// Reads the presented token. One that was rotated out ends its family (RFC 9700 4.14.2).
    pub(crate) async fn read<D: Directory>(
        authority: &Authority<D>,
        request: &ClientRequest<D>,
        event: &mut AuditEvent,
    ) -> Result<Self, Failure> {
        let presented = Secret::new(request.form.required("refresh_token")?);
        let wanted = parse_scope(&request.form)?;
        let now = authority.now();
        let hash = presented.hash();
        let held = match authority.store.refresh_token(&hash, now).await? {
            RefreshTokenState::Live(token) if token.client_id == request.client.id() => token,
            RefreshTokenState::Replaced(token) if token.client_id == request.client.id() => {
                let reuse = Refusal::RefreshTokenReuse;
                let event = event.clone().person(&token.user_id).refused(reuse.reason());
                authority.store.revoke_family(&token.family, event, now).await?;
                return Err(Failure::RefusedOnRecord(reuse));
            }
            _ => return Err(Refusal::RefreshToken.into()),
        };
        *event = event.clone().person(&held.user_id);
        if held.dpop_jkt.is_some() && held.dpop_jkt.as_deref() != request.key_thumbprint() {
            return Err(Refusal::DpopBinding.into());
        }
        let scopes = wanted.unwrap_or_else(|| held.scopes.clone());
        if !held.scopes.contains_all(&scopes) {
            return Err(Refusal::ScopeWidened.into());
        }
        Ok(Self { hash, held, scopes })
    }

    /// Its successor, which ends after `idle` seconds without use. Whoever is asked about the person, the
    /// client and the issuer is asked before, so that what is switched off does not look like a theft as well.
    pub(crate) async fn rotate<D: Directory>(
        &self,
        authority: &Authority<D>,
        idle: i64,
    ) -> Result<Secret, Failure> {
        let now = authority.now();
        let secret = authority.context.entropy.secret();
        let successor = RefreshToken {
            idle_expires_at: now.plus(idle).min(self.held.expires_at),
            ..(*self.held).clone()
        };
        let (old, new) = (&self.hash, secret.hash());
        match authority.store.rotate_refresh_token(old, &new, &successor, now).await? {
            Rotation::Rotated => Ok(secret),
            Rotation::Reused => Err(Refusal::RefreshTokenReuse.into()),
            Rotation::Invalid => Err(Refusal::RefreshToken.into()),
        }
    }
}
