//! What the code grant (RFC 6749 4.1.3, RFC 7636 4.5) and the refresh grant have in common at the IdP and at a
//! RAS: what is presented is held against its client, key and person; it is used up by what records the grant
//! ([`crate::mint`]), and by nothing else.

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
    /// Thumbprint of the key that the request was proved with.
    pub fn key_thumbprint(&self) -> Option<&str> {
        self.proof.as_ref().map(|proof| proof.key_thumbprint.as_str())
    }
}

/// A code that may be used by who presented it. It is used up by what records the grant.
pub struct PresentedCode {
    /// What it is on record by.
    pub hash: String,
    pub code: Box<AuthorizationCode>,
    pub session: Session,
}

/// Looks at a presented code: whether it is this client's, and everything else is as it was asked for. Nothing is
/// used up by a wrong guess. One that was used before, presented by its own client with all that belongs to it, is in
/// two hands: what it brought is revoked (RFC 6749 4.1.2, RFC 9700 4.5).
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

/// The same for the code that a device was given (RFC 8628 section 3.4): it came by no redirect, and there is no verifier.
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
    // On record as whose it is, also where somebody else presents it.
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
    // Each kind of code by its own grant type: what one grant checks, the other does not.
    if asked.is_of_device() != redirect_uri.is_none() {
        return Err(Refusal::Code.into());
    }
    if redirect_uri.is_some_and(|uri| uri != asked.redirect_uri) {
        return Err(Refusal::CodeRedirectUri.into());
    }
    // A code that went to an address which is not its client's any more.
    if redirect_uri.is_some() && !asked.is_still_taken(request.client.record()) {
        return Err(Refusal::Code.into());
    }
    // One that is missing answers as little as a wrong one (RFC 7636 4.6).
    let verifier = form.optional("code_verifier");
    let answered = match (&asked.code_challenge, verifier) {
        (Some(challenge), Some(verifier)) => challenge.is_answered_by(verifier),
        (None, None) => true,
        // A challenge was taken out of the request on its way here (RFC 9700 4.8.2).
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

/// A code was used twice by its own client, one after the other or both at once: what it brought is revoked.
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

/// How long the predecessor of a refresh token may be presented again by a client that never got the answer, in seconds.
const ANSWER_LOST: i64 = 10;

/// A refresh token that may be used by who presented it, and the scopes that are wanted of it.
pub struct PresentedToken {
    /// What it is on record by.
    pub hash: String,
    pub held: Box<RefreshToken>,
    pub scopes: Scopes,
    secret: Secret,
    /// What the client proved itself with, besides its id; `None` where anybody could have sent this.
    by: Option<String>,
    /// It was rotated out a moment ago, and this is its successor, which was not used.
    successor: Option<Secret>,
    /// See [`Renewal::Keeps`].
    stays: bool,
}

/// What a refresh brings, and what it rests on.
pub enum Renewal {
    /// A new token takes the place of the presented one.
    Rotates(Replaces, Box<(Secret, RefreshToken)>),
    /// The answer to the same request was lost: the token that it brought, by its hash and in full.
    Repeats(String, Secret),
    /// The presented token stays. Of a client that proves itself and whose tokens are all bound to keys nobody else can
    /// use it, and a client that never gets an answer has to be able to ask again (FAPI 2.0 5.3.2.1): nothing is
    /// rotated.
    Keeps(String, Box<(Secret, RefreshToken)>),
}

impl Renewal {
    /// The refresh token of the answer.
    pub fn token(&self) -> &Secret {
        match self {
            Self::Rotates(_, issued) => &issued.0,
            Self::Repeats(_, token) => token,
            Self::Keeps(_, kept) => &kept.0,
        }
    }

    /// Writes down what the record of the grant rests on, and what it issues.
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
    /// Reads the presented token. One that was rotated out ends its family (RFC 9700 4.14.2), unless it comes again at
    /// once from the client that holds what its rotation was proved with.
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
        // Looked at once: between two looks another request of the same client may rotate it.
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

    /// The secret or key of the client; of one that has none, the key of its DPoP proof. Whoever has a secret may take
    /// another key for each request (RFC 9449 5).
    fn proved_by<D>(request: &ClientRequest<D>) -> Option<String> {
        match request.client.proof() {
            // As earlier versions write it where no proof was sent: they may run beside this one.
            Some(client) => Some(format!("{client} none")),
            None => request.key_thumbprint().map(|key| format!("none {key}")),
        }
    }

    /// Its successor, which ends after `idle` seconds without use. It stands once the grant is on record, and not
    /// before: whatever is refused leaves the presented one live.
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
        // It follows from the presented token and the salt: where the answer is lost, whoever has that token gets the
        // same successor, and nothing that is stored tells it.
        let salt = authority.context.entropy.secret().expose().to_owned();
        let issued = Box::new((self.secret.derived(&salt), successor));
        let by = self.by.clone().unwrap_or_default();
        Renewal::Rotates(Replaces { hash: self.hash.clone(), salt, by }, issued)
    }

    /// It was used by somebody else between the look at it and the record: by another request of the same client, which
    /// gets the same answer, or it is in two hands.
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

/// The token and its successor, where the token was rotated out a moment ago by who presents it now, and the successor
/// has not been used: the answer was lost on its way.
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

/// The live token of a hash, if it is this client's. One of this client that was rotated out is in two hands: its
/// family is revoked, whichever way it is presented.
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
