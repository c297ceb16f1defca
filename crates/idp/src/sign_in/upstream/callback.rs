//! A browser comes back from an upstream: the person is found by what they are known by there, or
//! added, and goes on to the application that they came for.

use super::{
    super::session::{Started, changed, cookie_before, started},
    Credential, completed, registration, saml, session_label, told, username_for,
};
use crate::{
    directory::{IdpDirectory, Living},
    state::Idp,
};
use axum::{
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{Response, StatusCode, request::Parts},
};
use passavant_authority::{
    answer::{broken, error_page},
    authority::Snapshot,
    browser::{busy_page, see_other},
    front_channel::{self, FrontChannel, Person, upstream as there},
    origin::origin_of,
};
use passavant_outbound::SignInError;
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::form::Form,
    oidc::sign_in_state::SignInState,
    oidc::upstream::{
        OpenIdUpstream, Unidentified, UpstreamPerson, UpstreamProtocol, UpstreamProvider,
    },
    others_text::shown,
    saml::SamlProvider,
    secret::Secret,
    time::Timestamp,
    xaa::trust::SubjectLink,
};
use passavant_saml::LONGEST_RESPONSE;
use passavant_store::{
    AuditEvent, SealedAt, Session, StoreError, UpstreamOutcome, UpstreamSignIn, UsedJti,
};
use std::sync::Arc;

/// GET /callback/{upstream}: the browser returns.
pub(crate) async fn callback(
    State(idp): State<Idp>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let sent = form.optional("state").unwrap_or_default();
    let brought = Brought::Query(&form);
    let (Ok(mut response) | Err(mut response)) =
        came_back(&idp, &name, &parts, (sent, brought)).await;
    there::forget(&idp, sent, &parts.headers, &mut response);
    response
}

/// POST /callback/{upstream}: the browser brings a response of SAML. It comes from another site, so
/// without our cookies; a page of ours lets it post the same again, and then with them.
pub(crate) async fn posted(
    State(idp): State<Idp>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, LONGEST_FORM).await else {
        let text = "Your company's identity provider sent more than can be read here. Tell IT.";
        return error_page(StatusCode::PAYLOAD_TOO_LARGE, text);
    };
    // The page of ours leads to an address that a record names, whatever this one was spelled like.
    let snapshot = match idp.0.authority.fresh().await {
        Ok(snapshot) => snapshot,
        Err(error) => return broken(&error),
    };
    let upstream = snapshot.directory.upstream(&name).filter(|held| held.saml().is_some());
    let Some(upstream) = upstream else {
        let text = "There is no identity provider of this name that speaks SAML.";
        return error_page(StatusCode::NOT_FOUND, text);
    };
    let form = Form::parse(&bytes).unwrap_or_default();
    let (Some(response), Some(sent)) = (form.optional("SAMLResponse"), form.optional("RelayState"))
    else {
        let text =
            "This sign-in was not begun here. Start in the application that you want to use.";
        return bad(text);
    };
    if !form.mentions(AGAIN) {
        return saml::again(&idp, upstream, response, sent);
    }
    let brought = Brought::Response(response);
    let (Ok(mut answer) | Err(mut answer)) = came_back(&idp, &name, &parts, (sent, brought)).await;
    there::forget(&idp, sent, &parts.headers, &mut answer);
    saml::onward(&idp, answer)
}

/// Says that a form was posted by a page of ours.
pub(super) const AGAIN: &str = "again";

/// Longest form with a response of SAML: base64, percent-encoded where it has to be.
const LONGEST_FORM: usize = LONGEST_RESPONSE / 2 * 3 + 16 * 1024;

/// What a browser brings back.
#[derive(Clone, Copy)]
enum Brought<'a> {
    /// The parameters of OpenID Connect.
    Query(&'a Form),
    /// A response of SAML.
    Response(&'a str),
}

fn bad(text: &str) -> Response<Body> {
    error_page(StatusCode::BAD_REQUEST, text)
}

/// A browser that has come back, and what is recorded of it.
struct Coming<'a> {
    idp: &'a Idp,
    parts: &'a Parts,
    state: SignInState,
    event: AuditEvent,
    now: Timestamp,
}

impl Coming<'_> {
    /// Records that nobody signed in, and why. Returns the page, unless that fails.
    async fn refused(
        &self,
        reason: &'static str,
        more: &str,
        page: Response<Body>,
    ) -> Response<Body> {
        let event = self.event.clone().with(Detail::More, shown(more, 300)).refused(reason);
        match self.idp.0.authority.store.note(event, self.now).await {
            Ok(_) => page,
            Err(error) => broken(&error),
        }
    }

    async fn not_returned(&self, why: &there::NotReturned) -> Response<Body> {
        let (reason, more, page) = not_returned(why);
        self.refused(reason, more, page).await
    }

    /// The upstream that the browser was sent to, if this is its redirect URI.
    async fn upstream<'s>(
        &self,
        snapshot: &'s Snapshot<IdpDirectory>,
        name: &str,
    ) -> Result<&'s UpstreamProvider, Response<Body>> {
        // Each upstream has a redirect URI of its own: a response that comes to another one is not
        // the response of the upstream that this browser was sent to (RFC 9700 section 4.4.2).
        if self.state.upstream.as_deref() != Some(name) {
            let text = "Another identity provider answered than the one you were sent to. Start again in the \
                        application.";
            return Err(self.refused("sign_in.mixed_up", name, bad(text)).await);
        }
        let upstream = snapshot.directory.upstream(name);
        let upstream = upstream.filter(|held| held.issuer().as_str() == self.state.issuer);
        match upstream {
            Some(upstream) => Ok(upstream),
            None => {
                let text = "Sign-in by way of your company's identity provider is switched off here. Ask IT.";
                Err(self.refused("sign_in.upstream_off", name, bad(text)).await)
            }
        }
    }

    /// Who the upstream says has signed in.
    async fn person(
        &self,
        upstream: &UpstreamProvider,
        brought: Brought<'_>,
    ) -> Result<Arrived, Response<Body>> {
        match (&upstream.protocol, brought) {
            (UpstreamProtocol::Saml(provider), Brought::Response(response)) => {
                self.by_response(upstream, provider, response).await
            }
            (UpstreamProtocol::OpenId(open_id), Brought::Query(form)) => {
                self.by_code(OpenIdUpstream { record: upstream, open_id }, form).await
            }
            _ => {
                let why = there::NotReturned::Invalid;
                Err(self.not_returned(&why).await)
            }
        }
    }

    /// Who an assertion of SAML is about.
    async fn by_response(
        &self,
        upstream: &UpstreamProvider,
        provider: &SamlProvider,
        response: &str,
    ) -> Result<Arrived, Response<Body>> {
        let verified = saml::verify(self.idp, upstream, provider, &self.state, response).await;
        let assertion = match verified {
            Ok(Some(assertion)) => assertion,
            Ok(None) => return Err(busy_page(5)),
            Err(error) => {
                tracing::warn!(upstream = upstream.name, %error, "a response of SAML is refused");
                let (reason, page) = saml::not_verified(&error);
                return Err(self.refused(reason, &error.to_string(), page).await);
            }
        };
        let person = match passavant_saml::identify(upstream, provider, &assertion) {
            Ok(person) => person,
            Err(why) => {
                let page = error_page(StatusCode::FORBIDDEN, why.told());
                return Err(self.refused(why.reason(), &why.to_string(), page).await);
            }
        };
        if !there::is_recent(&self.state, assertion.authn_instant()) {
            return Err(self.not_returned(&there::NotReturned::Stale).await);
        }
        let once = saml::once(&assertion);
        let their_sid = assertion.session_index().map(str::to_owned);
        let ends = assertion.session_ends();
        Ok(Arrived { person, ends, their_sid, token: None, once: Some(once) })
    }

    /// Who the ID token for a code is about.
    async fn by_code(
        &self,
        upstream: OpenIdUpstream<'_>,
        form: &Form,
    ) -> Result<Arrived, Response<Body>> {
        let (idp, name) = (self.idp, upstream.name.as_str());
        let credential = match Credential::of(idp, upstream.record) {
            Ok(credential) => credential,
            Err(error) => {
                tracing::error!(
                    upstream = name,
                    error,
                    "the secret of an upstream cannot be opened"
                );
                return Err(error_page(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE));
            }
        };
        let registration = registration(idp, upstream);
        let proof = credential.proof();
        let returned = match there::finish(idp, form, &self.state, &registration, &proof).await {
            Ok(returned) => returned,
            Err(why) => return Err(self.not_returned(&why).await),
        };
        let returned = match completed(idp, upstream, returned).await {
            Ok(returned) => returned,
            Err(error) => {
                tracing::warn!(upstream = name, %error, "the UserInfo endpoint of an upstream cannot be used");
                let why = match error {
                    SignInError::BadAnswer(_) => there::NotReturned::Invalid,
                    _ => there::NotReturned::Unreachable,
                };
                return Err(self.not_returned(&why).await);
            }
        };
        // `finish` returns claims, always.
        let claims = returned.claims.ok_or_else(|| bad(NOT_WORKED))?;
        let person = match upstream.identify(&claims, &returned.issuer) {
            Ok(person) => person,
            Err(why) => {
                let page = error_page(StatusCode::FORBIDDEN, why.told());
                return Err(self.refused(why.reason(), &why.to_string(), page).await);
            }
        };
        // Of the wrong type it is an error, not absent.
        let Ok(ends) = claims.optional_time("session_expiry") else {
            let why = Unidentified::Claim("session_expiry");
            let page = error_page(StatusCode::FORBIDDEN, why.told());
            return Err(self.refused(why.reason(), &why.to_string(), page).await);
        };
        if ends.is_some_and(|ends| ends <= self.now) {
            let (reason, _, page) = not_returned(&there::NotReturned::Stale);
            return Err(self.refused(reason, "session_expiry has passed", page).await);
        }
        let their_sid = claims.required_id("sid", 255).ok().map(str::to_owned);
        let token = match returned.refresh_token {
            Some(token) => Some(token),
            None => {
                token_of_link(idp, upstream.record, &person.link).await.map_err(|e| broken(&e))?
            }
        };
        Ok(Arrived { person, ends, their_sid, token, once: None })
    }

    /// Begins the person's session. The cookies are for their browser.
    async fn begin(
        mut self,
        snapshot: &Snapshot<IdpDirectory>,
        upstream: &UpstreamProvider,
        Arrived { person, ends, their_sid, token, once }: Arrived,
    ) -> Result<Started, Response<Body>> {
        let (idp, now) = (self.idp, self.now);
        let authority = &idp.0.authority;
        self.event = self.event.with(Detail::Subject, person.link.subject.as_str());
        let cookie = authority.context.entropy.secret();
        let mut session = Session {
            sid: authority.context.entropy.id(),
            user_id: String::new(),
            authentication: person.authentication.clone(),
            expires_at: expiry(idp, ends, now),
        };
        let for_link = token.as_ref().filter(|_| upstream.preset.gives_once());
        let for_link = sealed(idp, &link_label(&person.link), for_link).map_err(|page| *page)?;
        let sealed = sealed(idp, &session_label(&session.sid), token.as_ref());
        let username = username_for(&snapshot.directory, upstream, &person);
        let sign_in = UpstreamSignIn {
            upstream: upstream.clone(),
            link: person.link.clone(),
            if_new: username.map(|username| (username, authority.context.entropy.id())),
            told: told(upstream, &person, upstream.memberships(&person), now),
            their_sid,
            sealed: sealed.map_err(|page| *page)?,
            sealed_for_link: for_link,
            once,
        };
        let mut granted = self.event.clone().with(Detail::Session, session.sid.as_str());
        if token.is_none() {
            let why = if upstream.saml().is_some() { NEVER_CHECKED } else { NOT_CHECKED };
            granted = granted.with(Detail::More, why);
        }
        let (hash, before) = (cookie.hash(), cookie_before(idp, &self.parts.headers));
        let came = (hash.as_str(), before.as_deref());
        let store = &authority.store;
        let begun = store.begin_upstream_session(came, &mut session, &sign_in, granted, now).await;
        let begun = begun.map_err(|e| broken(&e))?;
        if !matches!(begun, UpstreamOutcome::Begun(..)) {
            let (reason, more, text) = not_begun(&begun);
            if let UpstreamOutcome::Disabled(user_id) = &begun {
                self.event = self.event.person(user_id);
            }
            let page = error_page(StatusCode::FORBIDDEN, text);
            return Err(self.refused(reason, &more, page).await);
        }
        started(idp, session, cookie, None, &self.parts.headers).await.map_err(|e| broken(&e))
    }
}

/// Who signed in at an upstream, and what else it told.
struct Arrived {
    person: UpstreamPerson,
    /// When the session there ends.
    ends: Option<Timestamp>,
    their_sid: Option<String>,
    token: Option<Secret>,
    /// What is good once.
    once: Option<UsedJti>,
}

async fn came_back(
    idp: &Idp,
    name: &str,
    parts: &Parts,
    (sent, brought): (&str, Brought<'_>),
) -> Result<Response<Body>, Response<Body>> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let (request_id, address) = origin_of(parts);
    let state = there::begun_here(idp, sent, &parts.headers).await?;
    // The callback costs rows, and a request to the upstream; a browser that started a sign-in here
    // is entitled to that. It has cells of its own.
    let cell = format!("{address} comes back");
    let taken = idp.0.admission.unproven(&cell).map_err(|busy| busy_page(busy.0))?;
    there::once(idp, &state).await?;
    let mut event = AuditEvent::granted(RequestEvent::SignIn, now)
        .with(Detail::Issuer, state.issuer.as_str())
        .with(Detail::Address, address.as_str())
        .with(Detail::RequestId, request_id.as_str());
    if let Some(client) = client_of(&state.target) {
        event = event.client(&client);
    }
    let target = state.target.clone();
    let coming = Coming { idp, parts, state, event, now };
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let upstream = coming.upstream(&snapshot, name).await?;
    let arrived = coming.person(upstream, brought).await?;
    let started = coming.begin(&snapshot, upstream, arrived).await?;
    taken.give_back();
    let cookies = started.cookies(idp);
    let who = idp.who(&started.session).await.map_err(|e| broken(&e))?;
    let who: Arc<Living> = who.ok_or_else(changed)?;
    if !target.starts_with(authorize_path(idp).as_str()) {
        let mut response = see_other(&format!("{}{target}", idp.issuer().origin()));
        front_channel::keep_all(idp, &mut response, cookies);
        return Ok(response);
    }
    let cookie = started.cookie.expose().to_owned();
    let person = Person { session: started.session, cookie, who };
    Ok(front_channel::go_on(idp, (parts, &target), (person, cookies)).await)
}

/// In the trail, at a sign-in that is not checked again.
const NOT_CHECKED: &str =
    "the upstream gave no refresh token: it is not asked again whether they are still there";

/// The same where nothing can be asked.
const NEVER_CHECKED: &str =
    "SAML knows no asking later on: it is not known whether they are still there";

const UNREACHABLE: &str = "Your company's identity provider does not answer, so nobody can sign in by way of it just \
                           now. Try again in a few minutes; if it lasts, tell IT.";
pub(super) const NOT_WORKED: &str = "The sign-in at your company's identity provider did not work. Start again in the \
                          application; if it goes on, tell IT.";

/// Reason, detail and page for a sign-in that brought nobody.
fn not_returned(why: &there::NotReturned) -> (&'static str, &str, Response<Body>) {
    match why {
        there::NotReturned::Refused(error) => {
            let text = match error.as_str() {
                "access_denied" => {
                    "Your company's identity provider did not let you in, or you cancelled. Start again in the \
                     application, or ask IT."
                }
                "unmet_authentication_requirements" | "interaction_required" => {
                    "This needs a stronger sign-in than your company's identity provider could make. Ask IT."
                }
                _ => NOT_WORKED,
            };
            ("sign_in.upstream_refused", error, bad(text))
        }
        there::NotReturned::Unreachable => {
            let page = error_page(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE);
            ("sign_in.upstream_unreachable", "no answer", page)
        }
        there::NotReturned::Invalid => {
            ("sign_in.upstream_invalid", "the response does not verify", bad(NOT_WORKED))
        }
        there::NotReturned::Stale => {
            let text = "The application asks for a new sign-in, and your company's identity provider does not say \
                        that there was one. Sign out there and start again; if it goes on, tell IT.";
            ("sign_in.stale", "auth_time is missing or too old", bad(text))
        }
    }
}

/// Reason, detail and text for a person who is not let in.
fn not_begun(outcome: &UpstreamOutcome) -> (&'static str, String, &'static str) {
    match outcome {
        UpstreamOutcome::Unknown => (
            "sign_in.unknown_person",
            "nobody is linked, and the upstream adds nobody".to_owned(),
            "You have no account here yet. Ask IT to add you.",
        ),
        UpstreamOutcome::NoName => (
            "sign_in.no_name",
            "no user name was told for a new person, or an address in another upstream's domain"
                .to_owned(),
            "Your company's identity provider did not tell a user name for you. Tell IT.",
        ),
        UpstreamOutcome::NameTaken(name) => (
            "sign_in.name_taken",
            format!("`{name}` is somebody else's user name"),
            "There is an account of your name here already, and it is not known whether it is yours. Ask IT to link \
             it to your company's sign-in.",
        ),
        UpstreamOutcome::Replayed => (
            "sign_in.replayed",
            "the assertion was used before".to_owned(),
            "This sign-in was used already. Start again in the application.",
        ),
        UpstreamOutcome::Disabled(_) => (
            "sign_in.disabled",
            "the user is switched off".to_owned(),
            "Your account here is switched off. Ask IT.",
        ),
        UpstreamOutcome::Changed | UpstreamOutcome::Begun(..) => (
            "sign_in.changed",
            "the upstream was changed meanwhile".to_owned(),
            "The sign-in was changed a moment ago. Start again in the application.",
        ),
    }
}

fn authorize_path(idp: &Idp) -> String {
    format!("{}/authorize", idp.issuer().path())
}

/// The client of an authorization request.
fn client_of(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let form = Form::parse(query.as_bytes()).ok()?;
    form.optional("client_id").map(|id| shown(id, 200))
}

/// When the session ends: as configured, or sooner if the upstream says so.
fn expiry(idp: &Idp, said: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let own = now.plus(idp.0.settings.session_lifetime);
    said.map_or(own, |said| own.min(said))
}

pub(super) fn link_label(link: &SubjectLink) -> String {
    SealedAt::Link(link.clone()).label()
}

/// The refresh token that an earlier sign-in of the person brought.
async fn token_of_link(
    idp: &Idp,
    upstream: &UpstreamProvider,
    link: &SubjectLink,
) -> Result<Option<Secret>, StoreError> {
    if !upstream.preset.gives_once() {
        return Ok(None);
    }
    let authority = &idp.0.authority;
    let sealed = authority.store.link_token(link).await?;
    Ok(authority.context.sealing.open_text(&link_label(link), &sealed).ok())
}

/// A refresh token as it is stored.
fn sealed(
    idp: &Idp,
    label: &str,
    refresh_token: Option<&Secret>,
) -> Result<Option<String>, Box<Response<Body>>> {
    let Some(token) = refresh_token else { return Ok(None) };
    let sealing = &idp.0.authority.context.sealing;
    sealing.seal(label, token.expose().as_bytes()).map(Some).map_err(|error| {
        tracing::error!(error, "the refresh token of an upstream cannot be sealed");
        let text =
            "This server cannot keep your sign-in just now. Try again later; if it lasts, tell IT.";
        Box::new(error_page(StatusCode::SERVICE_UNAVAILABLE, text))
    })
}
