//! What the code grant (RFC 6749 4.1.3, RFC 7636 4.5) and the refresh grant have in common at the
//! IdP and at a RAS: a code or token is checked against its client, key and person. Only the record
//! of the grant uses it up ([`crate::mint`]).

use crate::{
    answer::Failure,
    authority::{Authority, Directory},
    token_endpoint::ClientRequest,
};
use passavant_proto::{
    event::Detail, oauth::scope::Scopes, refusal::Refusal, secret::Secret,
    xaa::token_exchange::parse_scope,
};
use passavant_store::{
    AuditEvent, AuthorizationCode, CodeState, Entry, RefreshToken, RefreshTokenState, Replaces,
    Session,
};

impl<D> ClientRequest<D> {
    /// Thumbprint of the key that signed the DPoP proof of the request.
    pub fn key_thumbprint(&self) -> Option<&str> {
        self.proof.as_ref().map(|proof| proof.key_thumbprint.as_str())
    }
}

/// A code that its presenter may use. The record of the grant uses it up.
pub struct PresentedCode {
    /// The hash that it is stored under.
    pub hash: String,
    pub code: Box<AuthorizationCode>,
    pub session: Session,
}

/// Checks a presented code: it has to belong to this client, and everything has to match the
/// authorization request. A wrong guess uses nothing up. If a code was used before and is presented
/// again by its own client with everything that belongs to it, two parties have it: what was issued
/// for it is revoked (RFC 6749 4.1.2, RFC 9700 4.5).
pub async fn present_code<D: Directory>(
    authority: &Authority<D>,
    request: &ClientRequest<D>,
    event: &mut AuditEvent,
) -> Result<PresentedCode, Failure> {
    let form = &request.form;
    let hash = Secret::new(form.required("code")?).hash();
    let asked_back = Some(form.required("redirect_uri")?);
    present(authority, request, hash, asked_back, event).await
}

/// Checks the code that belongs to a device code (RFC 8628 section 3.4): there was no redirect, so
/// there is no redirect URI and no verifier.
pub async fn present_device_code<D: Directory>(
    authority: &Authority<D>,
    request: &ClientRequest<D>,
    event: &mut AuditEvent,
) -> Result<PresentedCode, Failure> {
    let hash = Secret::new(request.form.required("device_code")?).hash();
    present(authority, request, hash, None, event).await
}

async fn present<D: Directory>(
    authority: &Authority<D>,
    request: &ClientRequest<D>,
    hash: String,
    redirect_uri: Option<&str>,
    event: &mut AuditEvent,
) -> Result<PresentedCode, Failure> {
    let form = &request.form;
    let now = authority.now();
    let (code, session, used) = match authority.store.authorization_code(&hash, now).await? {
        CodeState::Live(code, session) => (code, session, false),
        CodeState::Used(code, session) => (code, session, true),
        CodeState::Invalid => return Err(Refusal::Code.into()),
    };
    // The event names the code's owner, also if another client presents it.
    *event = event
        .clone()
        .person(&session.user_id)
        .with(Detail::Session, session.sid.as_str())
        .with(Detail::Family, code.family.as_str())
        .with(Detail::CodeOf, code.request.client_id.as_str());
    let asked = &code.request;
    if asked.client_id != request.client.id() {
        return Err(Refusal::Code.into());
    }
    // Each kind of code is accepted by its own grant type only, because the grant types check
    // different things.
    if asked.is_of_device() != redirect_uri.is_none() {
        return Err(Refusal::Code.into());
    }
    if redirect_uri.is_some_and(|uri| uri != asked.redirect_uri) {
        return Err(Refusal::CodeRedirectUri.into());
    }
    // The redirect URI is no longer registered for the client.
    if redirect_uri.is_some() && !asked.is_still_taken(request.client.record()) {
        return Err(Refusal::Code.into());
    }
    // A missing verifier gets the same answer as a wrong one (RFC 7636 4.6).
    let verifier = form.optional("code_verifier");
    let answered = match (&asked.code_challenge, verifier) {
        (Some(challenge), Some(verifier)) => challenge.is_answered_by(verifier),
        (None, None) => true,
        // The challenge was removed from the authorization request on its way here (RFC 9700
        // 4.8.2).
        (Some(_), None) | (None, Some(_)) => false,
    };
    if !answered && !asked.is_of_device() {
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

/// A code was used twice by its own client, one after the other or concurrently: what was issued
/// for it is revoked.
pub async fn code_reuse<D: Directory>(
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

/// How long a rotated refresh token may be presented again by a client that did not receive the
/// answer, in seconds.
const ANSWER_LOST: i64 = 10;

/// A refresh token that its presenter may use, and the scopes that are requested.
pub struct PresentedToken {
    /// The hash that it is stored under.
    pub hash: String,
    pub held: Box<RefreshToken>,
    pub scopes: Scopes,
    secret: Secret,
    /// What the client proved its identity with, besides its id; `None` if anybody could have sent
    /// this request.
    by: Option<String>,
    /// The successor, which was not used yet, of a token that was rotated a moment ago.
    successor: Option<Secret>,
    /// See [`Renewal::Keeps`].
    stays: bool,
}

/// The refresh token that a refresh returns, and what it is based on.
pub enum Renewal {
    /// A new token replaces the presented one.
    Rotates(Replaces, Box<(Secret, RefreshToken)>),
    /// The answer to the same request was lost: the successor it contained, by its hash and in
    /// full.
    Repeats(String, Secret),
    /// The presented token stays valid. It belongs to a client that proves its identity and whose
    /// tokens are all bound to keys, so that nobody else can use it; and a client that lost an
    /// answer has to be able to ask again (FAPI 2.0 5.3.2.1).
    Keeps(String, Box<(Secret, RefreshToken)>),
}

impl Renewal {
    /// The refresh token of the response.
    pub fn token(&self) -> &Secret {
        match self {
            Self::Rotates(_, issued) => &issued.0,
            Self::Repeats(_, token) => token,
            Self::Keeps(_, kept) => &kept.0,
        }
    }

    /// Adds to the entry what the grant rests on, and what it issues.
    pub fn rest(&self, operation: &mut Entry) {
        match self {
            Self::Rotates(replaces, issued) => {
                operation.replaces = Some(replaces.clone());
                operation.issues = Some((issued.0.hash(), Box::new(issued.1.clone())));
            }
            Self::Keeps(hash, kept) => {
                operation.keeps = Some((hash.clone(), Box::new(kept.1.clone())));
            }
            Self::Repeats(hash, _) => {
                operation.refresh_token = Some(hash.clone());
                operation.event =
                    operation.event.take().map(|event| event.with(Detail::Repeated, "true"));
            }
        }
    }
}

impl PresentedToken {
    /// Checks the presented token. One that was rotated before ends its family (RFC 9700 4.14.2),
    /// unless it is presented again at once by the client that holds the secret or key its rotation
    /// was proved with.
    pub async fn read<D: Directory>(
        authority: &Authority<D>,
        request: &ClientRequest<D>,
        event: &mut AuditEvent,
    ) -> Result<Self, Failure> {
        let secret = Secret::new(request.form.required("refresh_token")?);
        let wanted = parse_scope(&request.form)?;
        let hash = secret.hash();
        let client = request.client.id();
        let by = Self::proved_by(request);
        // Read once: between two reads, another request of the same client may rotate it.
        let state = authority.store.refresh_token(&hash, authority.now()).await?;
        let repeated = lost_answer(authority, &secret, &state, client, by.as_deref()).await?;
        let (held, successor) = match repeated {
            Some((held, successor)) => (held, Some(successor)),
            None => {
                let held = live_or_reuse(authority, state, client, event).await?;
                (held.ok_or(Refusal::RefreshToken)?, None)
            }
        };
        event.person.clone_from(&held.user_id);
        if held.dpop_jkt.is_some() && held.dpop_jkt.as_deref() != request.key_thumbprint() {
            return Err(Refusal::DpopBinding.into());
        }
        let scopes = wanted.unwrap_or_else(|| held.scopes.clone());
        if !held.scopes.contains_all(&scopes) {
            return Err(Refusal::ScopeWidened.into());
        }
        let record = request.client.record();
        let stays = record.dpop_bound_access_tokens && !request.client.is_public();
        Ok(Self { hash, held, scopes, secret, by, successor, stays })
    }

    /// The client's secret or key; for a client without either, the key of its DPoP proof. A client
    /// with a secret may use another DPoP key for each request (RFC 9449 5).
    fn proved_by<D>(request: &ClientRequest<D>) -> Option<String> {
        match request.client.proof() {
            // The form that earlier versions store if no DPoP proof was sent: they may run at the
            // same time.
            Some(client) => Some(format!("{client} none")),
            None => request.key_thumbprint().map(|key| format!("none {key}")),
        }
    }

    /// The successor, which expires after `idle` seconds without use. It becomes valid when the
    /// grant is recorded, so that a refusal leaves the presented token valid.
    pub fn renewal<D: Directory>(&self, authority: &Authority<D>, idle: i64) -> Renewal {
        if let Some(successor) = &self.successor {
            return Renewal::Repeats(successor.hash(), successor.clone());
        }
        let now = authority.now();
        let successor = RefreshToken {
            idle_expires_at: now.plus(idle).min(self.held.expires_at),
            ..(*self.held).clone()
        };
        if self.stays {
            let kept = Box::new((self.secret.clone(), successor));
            return Renewal::Keeps(self.hash.clone(), kept);
        }
        // The successor is derived from the presented token and the salt: after a lost answer, the
        // holder of that token gets the same successor, and the stored data does not reveal it.
        let salt = authority.context.entropy.secret().expose().to_owned();
        let issued = Box::new((self.secret.derived(&salt), successor));
        let by = self.by.clone().unwrap_or_default();
        Renewal::Rotates(Replaces { hash: self.hash.clone(), salt, by }, issued)
    }

    /// The token was used between the check and the record: either by a concurrent request of the
    /// same client, which gets the same answer, or two parties have it.
    pub async fn lost<D: Directory>(
        &mut self,
        authority: &Authority<D>,
        failure: Failure,
        event: &AuditEvent,
    ) -> Result<(), Failure> {
        if !matches!(failure, Failure::RefusedOnRecord(Refusal::RefreshToken))
            || self.successor.is_some()
        {
            return Err(failure);
        }
        let (client, by) = (&self.held.client_id, self.by.as_deref());
        let state = authority.store.refresh_token(&self.hash, authority.now()).await?;
        if let Some((_, successor)) =
            lost_answer(authority, &self.secret, &state, client, by).await?
        {
            self.successor = Some(successor);
            return Ok(());
        }
        live_or_reuse(authority, state, client, event).await?;
        Err(failure)
    }
}

/// The token and its successor, if the presenter rotated the token a moment ago and the successor
/// was not used: the answer was lost on its way.
async fn lost_answer<D: Directory>(
    authority: &Authority<D>,
    presented: &Secret,
    state: &RefreshTokenState,
    client: &str,
    by: Option<&str>,
) -> Result<Option<(Box<RefreshToken>, Secret)>, Failure> {
    let (Some(by), now) = (by, authority.now()) else { return Ok(None) };
    let RefreshTokenState::Replaced(token, Some(rotation)) = state else { return Ok(None) };
    let age = now.since(rotation.at);
    if token.client_id != client || rotation.by != by || !(0..=ANSWER_LOST).contains(&age) {
        return Ok(None);
    }
    let successor = presented.derived(&rotation.salt);
    match authority.store.refresh_token(&successor.hash(), now).await? {
        RefreshTokenState::Live(held) if held.client_id == client => Ok(Some((held, successor))),
        _ => Ok(None),
    }
}

/// The valid refresh token of a hash, if it belongs to this client. If this client's token was
/// rotated before, two parties have it: its family is revoked, at whichever endpoint it is
/// presented.
pub async fn live_token<D: Directory>(
    authority: &Authority<D>,
    hash: &str,
    client: &str,
    event: &AuditEvent,
) -> Result<Option<Box<RefreshToken>>, Failure> {
    let state = authority.store.refresh_token(hash, authority.now()).await?;
    live_or_reuse(authority, state, client, event).await
}

async fn live_or_reuse<D: Directory>(
    authority: &Authority<D>,
    state: RefreshTokenState,
    client: &str,
    event: &AuditEvent,
) -> Result<Option<Box<RefreshToken>>, Failure> {
    let now = authority.now();
    match state {
        RefreshTokenState::Live(token) if token.client_id == client => Ok(Some(token)),
        RefreshTokenState::Replaced(token, _) if token.client_id == client => {
            let reuse = Refusal::RefreshTokenReuse;
            let event = event.clone().person(&token.user_id).refused(reuse.reason());
            authority.store.revoke_family(&token.family, event, now).await?;
            Err(Failure::RefusedOnRecord(reuse))
        }
        _ => Ok(None),
    }
}
