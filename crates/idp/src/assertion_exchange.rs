//! A SAML assertion becomes a refresh token (ID-JAG draft section 4.5): a client that signs people in by
//! SAML at an identity provider that is an upstream here gets ID-JAGs without signing anybody in again.

use super::{
    directory::{IdpDirectory, Living},
    logout_notices::tells,
    sign_in::upstream::{certificates_of, in_turn, once, told, username_for},
    state::Idp,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use passavant_authority::{
    answer::Failure,
    authority::{Look, Snapshot},
    client_authentication::AuthenticatedClient,
    mint::{self, Decision, Lost},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_proto::{
    TOKEN_TYPE_REFRESH_TOKEN, TOKEN_TYPE_SAML2,
    event::{Detail, RequestEvent},
    identifier::SubjectIssuer,
    oauth::authorize::SCOPES,
    oauth::form::Form,
    oauth::scope::Scopes,
    oidc::upstream::{UpstreamPerson, UpstreamProvider},
    others_text::shown,
    refusal::Refusal,
    saml::SamlProvider,
    time::Timestamp,
    xaa::token_exchange::parse_scope,
};
use passavant_saml::{Assertion, Expected, claimed_issuer, identify, verify_assertion};
use passavant_store::{AuditEvent, Entry, RefreshToken, Session, UpstreamOutcome, UpstreamSignIn};
use std::sync::Arc;

/// A request for a refresh token.
struct Asked {
    /// The assertion: an XML document.
    assertion: String,
    scopes: Scopes,
}

impl Asked {
    /// Reads the parameters. Nothing of the assertion is looked at.
    fn read(form: &Form, issuer: &str) -> Result<Self, Refusal> {
        let token = form.required("subject_token")?;
        if form.required("subject_token_type")? != TOKEN_TYPE_SAML2 {
            return Err(Refusal::RequestedTokenType);
        }
        if form.mentions("actor_token") || form.mentions("actor_token_type") {
            return Err(Refusal::ActorToken);
        }
        if form.mentions("authorization_details") {
            return Err(Refusal::AuthorizationDetails);
        }
        // A refresh token is for this server; what it is good for is asked with it.
        if form.mentions("resource") || form.optional("audience").is_some_and(|one| one != issuer) {
            return Err(Refusal::ResourceAtSignIn);
        }
        let ours: Scopes = SCOPES.into_iter().collect();
        let asked = parse_scope(form)?.unwrap_or_else(|| ["openid"].into_iter().collect());
        if !ours.contains_all(&asked) {
            return Err(Refusal::ScopeWidened);
        }
        // Base64url by RFC 8693; programs that have it from a form write plain base64.
        let token: String = token
            .split_ascii_whitespace()
            .flat_map(str::chars)
            .map(|c| match c {
                '+' => '-',
                '/' => '_',
                c => c,
            })
            .collect();
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('='));
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let scopes = asked.union(&["offline_access"].into_iter().collect());
        Ok(Self { assertion: text.ok_or(Refusal::SubjectAssertion)?, scopes })
    }
}

pub(super) async fn exchange(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    // Without a client that signs people in by SAML nothing is read.
    let client = request.client.record();
    let audience = client.saml_entity_id.as_deref().filter(|_| !request.client.is_public());
    let audience = audience.ok_or(Refusal::SubjectTokenType)?;
    let asked = Asked::read(&request.form, authority.issuer.as_str())?;
    let now = authority.now();
    let snapshot = authority.fresh().await?;
    let mut refused = |why: String| {
        event.note(Detail::More, shown(&why, 300));
        Failure::from(Refusal::SubjectAssertion)
    };
    let text = asked.assertion;
    let (issuer, text) = {
        let found = in_turn(idp, move || (claimed_issuer(&text), text)).await;
        let (issuer, text) = found.ok_or(Failure::Busy(5))?;
        (issuer.map_err(|error| refused(error.to_string()))?, text)
    };
    let from = |upstream: &&UpstreamProvider| {
        upstream.saml().is_some_and(|provider| provider.entity_id.as_str() == issuer)
    };
    let found = snapshot.directory.upstreams().find(from);
    let found = found.and_then(|upstream| Some((upstream, upstream.saml()?)));
    let (upstream, provider) = found
        .ok_or_else(|| refused(format!("no upstream of SAML is `{}`", shown(&issuer, 200))))?;
    let (for_whom, by) = (audience.to_owned(), provider.clone());
    let verified = in_turn(idp, move || verify(&by, &for_whom, &text, now)).await;
    let verified = verified.ok_or(Failure::Busy(5))?;
    let assertion = verified.map_err(|error| refused(error.to_string()))?;
    let person =
        identify(upstream, provider, &assertion).map_err(|error| refused(error.to_string()))?;
    event.note(Detail::Issuer, provider.entity_id.as_str());
    event.note(Detail::Subject, person.link.subject.as_str());
    let session = begin(idp, &snapshot, upstream, (&assertion, person), event, now).await?;
    event.person.clone_from(&session.user_id);
    if !request.client.acts_for(&session.user_id) {
        return Err(Refusal::SubjectNotLive.into());
    }
    state.admission.grant(request.client.id(), &session.user_id)?;
    issue(idp, request, (&session, asked.scopes), event, now).await
}

/// Verifies an assertion that the identity provider made for the client, which passes it on.
fn verify(
    provider: &SamlProvider,
    audience: &str,
    assertion: &str,
    now: Timestamp,
) -> Result<Assertion, passavant_saml::ResponseError> {
    let certificates = certificates_of(provider);
    let issuer: &SubjectIssuer = &provider.entity_id;
    let expected = Expected {
        issuer,
        certificates: &certificates,
        audience,
        recipient: None,
        request: None,
        now,
    };
    verify_assertion(assertion, &expected)
}

/// Begins a session that no browser has, and uses the assertion up.
async fn begin(
    idp: &Idp,
    snapshot: &Snapshot<IdpDirectory>,
    upstream: &UpstreamProvider,
    (assertion, person): (&Assertion, UpstreamPerson),
    event: &AuditEvent,
    now: Timestamp,
) -> Result<Session, Failure> {
    let authority = &idp.0.authority;
    let entropy = &authority.context.entropy;
    let own = now.plus(idp.0.settings.session_lifetime);
    let mut session = Session {
        sid: entropy.id(),
        user_id: String::new(),
        authentication: person.authentication.clone(),
        expires_at: assertion.session_ends().map_or(own, |ends| own.min(ends)),
    };
    let username = username_for(&snapshot.directory, upstream, &person);
    let sign_in = UpstreamSignIn {
        upstream: upstream.clone(),
        link: person.link.clone(),
        if_new: username.map(|username| (username, entropy.id())),
        // What the client is told may be less than what we are: what it leaves out stays.
        told: told(upstream, &person, person.groups.clone(), now),
        their_sid: assertion.session_index().map(str::to_owned),
        sealed: None,
        sealed_for_link: None,
        once: Some(once(assertion)),
    };
    let cookie = entropy.secret().hash();
    let store = &authority.store;
    let mut event = event.clone().with(Detail::Session, session.sid.as_str());
    event.event = RequestEvent::SignIn.into();
    let begun =
        store.begin_upstream_session((cookie.as_str(), None), &mut session, &sign_in, event, now);
    match begun.await? {
        UpstreamOutcome::Begun(..) => Ok(session),
        UpstreamOutcome::Replayed => Err(Refusal::SubjectAssertion.into()),
        UpstreamOutcome::Unknown
        | UpstreamOutcome::NoName
        | UpstreamOutcome::NameTaken(_)
        | UpstreamOutcome::Disabled(_)
        | UpstreamOutcome::Changed => Err(Refusal::SubjectNotLive.into()),
    }
}

/// The refresh token, which goes with the session.
struct Issued {
    idp: Idp,
    hash: String,
    token: RefreshToken,
    client: AuthenticatedClient,
    event: AuditEvent,
}

impl mint::Grant<IdpDirectory> for Issued {
    type Token = Arc<Living>;

    async fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<IdpDirectory>>,
        look: Look,
    ) -> Result<Decision<Arc<Living>>, Failure> {
        let authority = &self.idp.0.authority;
        let person = snapshot.directory.person(&authority.store, &self.token.user_id, look).await?;
        let Some(person) = person else { return Ok(Decision::Refuse(Refusal::SubjectNotLive)) };
        let mut operation = Entry::new(Some(self.event.clone()));
        operation.rests_on.push(person.seen.clone());
        operation.session = Some(self.token.sid.clone());
        operation.family = Some(self.token.family.clone());
        tells(&mut operation, &self.client, (&self.token.sid, &self.token.user_id));
        operation.issues = Some((self.hash.clone(), Box::new(self.token.clone())));
        Ok(Decision::Grant(Box::new(operation), person))
    }

    fn lost(&self) -> Lost {
        let gone = Refusal::SubjectNotLive;
        Lost { session: gone.clone(), token: gone.clone(), jti: gone }
    }
}

async fn issue(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    (session, scopes): (&Session, Scopes),
    event: &AuditEvent,
    now: Timestamp,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    let entropy = &authority.context.entropy;
    let secret = entropy.secret();
    // Whether somebody is still there cannot be asked by SAML: what they have ends with the sign-in.
    let expires_at = now.plus(state.settings.refresh_absolute).min(session.expires_at);
    let idle_expires_at = now.plus(state.settings.refresh_idle).min(expires_at);
    let scope = scopes.to_string();
    let token = RefreshToken {
        family: entropy.id(),
        sid: session.sid.clone(),
        user_id: session.user_id.clone(),
        client_id: request.client.id().to_owned(),
        scopes,
        authentication: session.authentication.clone(),
        dpop_jkt: None,
        resource: None,
        client_method: None,
        idle_expires_at,
        expires_at,
    };
    let event = event
        .clone()
        .with(Detail::Scope, scope.as_str())
        .with(Detail::Family, token.family.as_str())
        .with(Detail::Session, session.sid.as_str());
    let client = request.client.clone();
    let mut issued = Issued { idp: idp.clone(), hash: secret.hash(), token, client, event };
    mint::mint(authority, authority.fresh().await?, &request.client, &mut issued, now).await?;
    Ok(TokenAnswer {
        access_token: secret.expose().to_owned(),
        token_type: "N_A",
        expires_in: idle_expires_at.since(now),
        issued_token_type: Some(TOKEN_TYPE_REFRESH_TOKEN),
        scope: Some(scope),
        resource: None,
        id_token: None,
        refresh_token: None,
    })
}
