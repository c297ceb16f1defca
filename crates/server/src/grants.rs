//! What the code grant (RFC 6749 4.1.3, RFC 7636 4.5) and the refresh grant have in common at the IdP and at a
//! RAS: what is presented is held against its client, key and person; it is used up by what records the grant
//! ([`crate::mint`]), and by nothing else.

use crate::{
    answer::Failure,
    authority::{Authority, Directory},
    token_endpoint::ClientRequest,
};
use carnet_proto::{refusal::Refusal, scope::Scopes, secret::Secret, token_exchange::parse_scope};
use carnet_store::{
    AuditEvent, AuthorizationCode, CodeState, RefreshToken, RefreshTokenState, Session,
};

impl<D> ClientRequest<D> {
    /// Thumbprint of the key that the request was proved with.
    pub(crate) fn key_thumbprint(&self) -> Option<&str> {
        self.proof.as_ref().map(|proof| proof.key_thumbprint.as_str())
    }
}

/// A code that may be used by who presented it. It is used up by what records the grant.
pub(crate) struct PresentedCode {
    /// What it is on record by.
    pub(crate) hash: String,
    pub(crate) code: Box<AuthorizationCode>,
    pub(crate) session: Session,
}

/// Looks at a presented code: whether it is this client's, and everything else is as it was asked for. Nothing is
/// used up by a wrong guess. One that was used before, presented by its own client with all that belongs to it, is in
/// two hands: what it brought is revoked (RFC 6749 4.1.2, RFC 9700 4.5).
pub(crate) async fn present_code<D: Directory>(
    authority: &Authority<D>,
    request: &ClientRequest<D>,
    event: &mut AuditEvent,
) -> Result<PresentedCode, Failure> {
    let form = &request.form;
    let hash = Secret::new(form.required("code")?).hash();
    let now = authority.now();
    let (code, session, used) = match authority.store.authorization_code(&hash, now).await? {
        CodeState::Live(code, session) => (code, session, false),
        CodeState::Used(code, session) => (code, session, true),
        CodeState::Invalid => return Err(Refusal::Code.into()),
    };
    // On record as whose it is, also where somebody else presents it.
    *event = event
        .clone()
        .person(&session.user_id)
        .with("session", session.sid.as_str())
        .with("family", code.family.as_str())
        .with("code_of", code.request.client_id.as_str());
    let asked = &code.request;
    if asked.client_id != request.client.id() {
        return Err(Refusal::Code.into());
    }
    if form.required("redirect_uri")? != asked.redirect_uri {
        return Err(Refusal::CodeRedirectUri.into());
    }
    // One that is missing answers as little as a wrong one (RFC 7636 4.6).
    let verifier = form.optional("code_verifier");
    if !verifier.is_some_and(|verifier| asked.code_challenge.is_answered_by(verifier)) {
        return Err(Refusal::CodeVerifier.into());
    }
    if asked.dpop_jkt.is_some() && asked.dpop_jkt.as_deref() != request.key_thumbprint() {
        return Err(Refusal::DpopBinding.into());
    }
    if used {
        return Err(code_reuse(authority, &code.family, event).await);
    }
    Ok(PresentedCode { hash, code, session })
}

/// A code was used twice by its own client, one after the other or both at once: what it brought is revoked.
pub(crate) async fn code_reuse<D: Directory>(
    authority: &Authority<D>,
    family: &str,
    event: &AuditEvent,
) -> Failure {
    let reuse = Refusal::CodeReuse;
    let event = event.clone().refused(reuse.reason());
    match authority.store.revoke_family(family, event, authority.now()).await {
        Ok(()) => Failure::RefusedOnRecord(reuse),
        Err(error) => error.into(),
    }
}

/// A refresh token that may be used by who presented it, and the scopes that are wanted of it.
pub(crate) struct PresentedToken {
    /// What it is on record by.
    pub(crate) hash: String,
    pub(crate) held: Box<RefreshToken>,
    pub(crate) scopes: Scopes,
}

impl PresentedToken {
    /// Reads the presented token. One that was rotated out ends its family (RFC 9700 4.14.2).
    pub(crate) async fn read<D: Directory>(
        authority: &Authority<D>,
        request: &ClientRequest<D>,
        event: &mut AuditEvent,
    ) -> Result<Self, Failure> {
        let presented = Secret::new(request.form.required("refresh_token")?);
        let wanted = parse_scope(&request.form)?;
        let hash = presented.hash();
        let held = live_token(authority, &hash, request.client.id(), event).await?;
        let held = held.ok_or(Refusal::RefreshToken)?;
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

    /// Its successor, which ends after `idle` seconds without use. It stands once the grant is on record, and not
    /// before: whatever is refused leaves the presented one live.
    pub(crate) fn successor<D: Directory>(
        &self,
        authority: &Authority<D>,
        idle: i64,
    ) -> (Secret, RefreshToken) {
        let now = authority.now();
        let successor = RefreshToken {
            idle_expires_at: now.plus(idle).min(self.held.expires_at),
            ..(*self.held).clone()
        };
        (authority.context.entropy.secret(), successor)
    }

    /// It was used by somebody else between the look at it and the record. If it was rotated out, it is in two hands.
    pub(crate) async fn lost<D: Directory>(
        &self,
        authority: &Authority<D>,
        failure: Failure,
        event: &mut AuditEvent,
    ) -> Failure {
        if !matches!(failure, Failure::RefusedOnRecord(Refusal::RefreshToken)) {
            return failure;
        }
        match live_token(authority, &self.hash, &self.held.client_id, event).await {
            Err(reuse) => reuse,
            Ok(_) => failure,
        }
    }
}

/// The live token of a hash, if it is this client's. One of this client that was rotated out is in two hands: its
/// family is revoked, whichever way it is presented.
pub(crate) async fn live_token<D: Directory>(
    authority: &Authority<D>,
    hash: &str,
    client: &str,
    event: &AuditEvent,
) -> Result<Option<Box<RefreshToken>>, Failure> {
    let now = authority.now();
    match authority.store.refresh_token(hash, now).await? {
        RefreshTokenState::Live(token) if token.client_id == client => Ok(Some(token)),
        RefreshTokenState::Replaced(token) if token.client_id == client => {
            let reuse = Refusal::RefreshTokenReuse;
            let event = event.clone().person(&token.user_id).refused(reuse.reason());
            authority.store.revoke_family(&token.family, event, now).await?;
            Err(Failure::RefusedOnRecord(reuse))
        }
        _ => Ok(None),
    }
}
