//! Sign-in at the company's own identity provider, in front of which this one stands: the browser is
//! sent there, the person is found by what they are known by there, and later on the upstream is
//! asked whether they are still there.

use super::session::{cookie_before, started};
use crate::{
    directory::{IdpDirectory, Living},
    state::Idp,
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{Response, StatusCode, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use passavant_authority::{
    answer::{Failure, broken, error_page},
    authority::Snapshot,
    browser::{busy_page, see_other},
    front_channel::{self, FrontChannel, Person, ReadRequest, upstream as there},
    origin::origin_of,
    passwords,
};
use passavant_outbound::{ClientProof, Registration, Returned, SignInError, SignInWishes};
use passavant_proto::{
    event::{Detail, RequestEvent},
    jose::jwk::{Algorithm, SigningKey},
    oauth::client::ENROLLED_CLIENT,
    oauth::form::Form,
    oidc::authentication::Authentication,
    oidc::upstream::{
        Preset, UpstreamAuthentication, UpstreamPerson, UpstreamProvider, is_for_all_tenants,
    },
    others_text::shown,
    refusal::Refusal,
    secret::Secret,
    time::Timestamp,
    xaa::trust::SubjectLink,
};
use passavant_store::{
    AuditEvent, DueSession, Session, StoreError, Told, UpstreamOutcome, UpstreamSignIn,
};
use std::{sync::Arc, time::Duration};

/// How long one request may take to ask an upstream about a session, in seconds. Afterwards another
/// one may.
const TRYING: i64 = 20;
/// An upstream that did not answer is not asked about the same session for this long, in seconds.
const RETRY: i64 = 30;
/// How often a request looks whether another one has heard from the upstream.
const TURN: Duration = Duration::from_millis(100);
/// How many times it looks.
const TURNS: u32 = 100;

/// Our registration at an upstream.
pub(crate) fn registration<'a>(idp: &Idp, upstream: &'a UpstreamProvider) -> Registration<'a> {
    let several = !upstream.tenants.is_empty() && is_for_all_tenants(&upstream.issuer);
    let bare = || {
        let (_, bare) = upstream.issuer.as_str().split_once("://")?;
        Some(bare.to_owned())
    };
    Registration {
        issuer: &upstream.issuer,
        tenants: several.then_some(&upstream.tenants),
        // Google writes its issuer with and without the scheme.
        other_spelling: if upstream.preset == Preset::Google { bare() } else { None },
        client_id: &upstream.client_id,
        redirect_uri: idp.issuer().endpoint(&format!("/callback/{}", upstream.name)),
        algorithm: upstream.algorithm,
        announced_pkce: false,
    }
}

/// What we prove ourselves with at an upstream.
pub(crate) enum Credential {
    Key(Arc<SigningKey>, bool),
    Certificate(Box<SigningKey>, Vec<u8>, bool),
    SecretPost(Secret),
    SecretBasic(Secret),
}

impl Credential {
    /// Unseals it.
    pub(crate) fn of(idp: &Idp, upstream: &UpstreamProvider) -> Result<Self, String> {
        let authority = &idp.0.authority;
        let sealing = &authority.context.sealing;
        let to_token_endpoint = upstream.preset.asserts_to_token_endpoint();
        let label = secret_label(&upstream.name);
        Ok(match &upstream.authentication {
            UpstreamAuthentication::PrivateKeyJwt(algorithm) => {
                Self::Key(authority.signing_as(*algorithm), to_token_endpoint)
            }
            UpstreamAuthentication::Certificate { certificate, sealed_key, .. } => {
                let der = sealing.open(&label, sealed_key)?;
                let key = SigningKey::from_pkcs8(Algorithm::PS256, &der);
                let key = key.map_err(|error| error.to_string())?;
                let certificate = STANDARD.decode(certificate).map_err(|e| e.to_string())?;
                Self::Certificate(Box::new(key), certificate, to_token_endpoint)
            }
            UpstreamAuthentication::SecretPost(sealed) => {
                Self::SecretPost(sealing.open_text(&label, sealed)?)
            }
            UpstreamAuthentication::SecretBasic(sealed) => {
                Self::SecretBasic(sealing.open_text(&label, sealed)?)
            }
        })
    }

    pub(crate) fn proof(&self) -> ClientProof<'_> {
        match self {
            Self::Key(key, to_token_endpoint) => ClientProof::Assertion {
                key,
                certificate: None,
                to_token_endpoint: *to_token_endpoint,
            },
            Self::Certificate(key, certificate, to_token_endpoint) => ClientProof::Assertion {
                key,
                certificate: Some(certificate),
                to_token_endpoint: *to_token_endpoint,
            },
            Self::SecretPost(secret) => ClientProof::SecretPost(secret),
            Self::SecretBasic(secret) => ClientProof::SecretBasic(secret),
        }
    }
}

/// What an upstream's secret or key is sealed for.
fn secret_label(name: &str) -> String {
    format!("upstream {name}")
}

fn session_label(sid: &str) -> String {
    format!("upstream session {sid}")
}

/// Redirects the browser to the upstream, for an authorization request.
pub(crate) async fn send(
    idp: &Idp,
    read: &ReadRequest<()>,
    upstream: &UpstreamProvider,
    hint: Option<&str>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let request = &read.request;
    let classes = upstream.acr_values_there(request.classes());
    // Adding a computer asks for a new sign-in, and the person is asked afterwards in any case: an
    // upstream that does not tell when somebody signed in can be used for it, too.
    let enrols = request.client_id == ENROLLED_CLIENT;
    let fresh = request.fresh && !enrols;
    let sending = there::Sending { target: &read.target, fresh, max_age: request.max_age };
    let asked = Asked { hint, classes: &classes, prompt_login: request.fresh };
    send_to(idp, sending, upstream, asked, parts).await
}

/// What the upstream is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) hint: Option<&'a str>,
    /// Classes, as the upstream calls them.
    pub(crate) classes: &'a [String],
    pub(crate) prompt_login: bool,
}

/// Redirects the browser to the upstream.
pub(crate) async fn send_to(
    idp: &Idp,
    sending: there::Sending<'_>,
    upstream: &UpstreamProvider,
    Asked { hint, classes, mut prompt_login }: Asked<'_>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let mut more = Vec::new();
    let mut acr_values = classes;
    let mut max_age = sending.max_age;
    let mut prompt = Vec::new();
    match upstream.preset {
        Preset::Entra => {
            // It knows authentication contexts, by the `claims` parameter, and no `max_age`.
            if let Some(class) = classes.first() {
                let wanted = serde_json::json!({
                    "id_token": {"acrs": {"essential": true, "value": class}}
                });
                more.push(("claims", wanted.to_string()));
            }
            acr_values = &[];
            prompt_login |= max_age.take().is_some();
        }
        Preset::Google => {
            more.push(("access_type", "offline".to_owned()));
            if let Some(domain) = upstream.hosted_domains.first() {
                let several = upstream.hosted_domains.len() > 1;
                more.push(("hd", if several { "*".to_owned() } else { domain.clone() }));
            }
            // It knows no `login`: the person at least chooses the account.
            prompt.extend(std::mem::take(&mut prompt_login).then_some("select_account"));
        }
        _ => {}
    }
    prompt.extend(prompt_login.then_some("login"));
    prompt.extend(upstream.asks_consent.then_some("consent"));
    let wishes =
        SignInWishes { login_hint: hint, prompt: &prompt, max_age, acr_values, more: &more };
    let registration = registration(idp, upstream);
    let place = (&registration, Some(upstream.name.as_str()));
    let scope = |offered: &[String]| upstream.scope(offered);
    there::send(idp, sending, place, scope, wishes, parts).await
}

/// GET /callback/{upstream}: the browser returns.
pub(crate) async fn callback(
    State(idp): State<Idp>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let (Ok(mut response) | Err(mut response)) = came_back(&idp, &name, &parts, &form).await;
    there::forget(&idp, &form, &parts.headers, &mut response);
    response
}

fn bad(text: &str) -> Response<Body> {
    error_page(StatusCode::BAD_REQUEST, text)
}

async fn came_back(
    idp: &Idp,
    name: &str,
    parts: &Parts,
    form: &Form,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let (request_id, address) = origin_of(parts);
    let state = there::begun_here(idp, form, &parts.headers).await?;
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
    let refuse = async |reason: &'static str, more: &str, response: Response<Body>| {
        let event = event.clone().with(Detail::More, shown(more, 300)).refused(reason);
        match authority.store.note(event, now).await {
            Ok(_) => response,
            Err(error) => broken(&error),
        }
    };
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    // Each upstream has a redirect URI of its own: a response that comes to another one is not the
    // response of the upstream that this browser was sent to (RFC 9700 section 4.4.2).
    if state.upstream.as_deref() != Some(name) {
        let text = "Another identity provider answered than the one you were sent to. Start again in the application.";
        return Err(refuse("sign_in.mixed_up", name, bad(text)).await);
    }
    let upstream = snapshot.directory.upstream(name);
    let Some(upstream) = upstream.filter(|held| held.issuer.as_str() == state.issuer) else {
        let text =
            "Sign-in by way of your company's identity provider is switched off here. Ask IT.";
        return Err(refuse("sign_in.upstream_off", name, bad(text)).await);
    };
    let credential = match Credential::of(idp, upstream) {
        Ok(credential) => credential,
        Err(error) => {
            tracing::error!(upstream = name, error, "the secret of an upstream cannot be opened");
            return Err(error_page(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE));
        }
    };
    let registration = registration(idp, upstream);
    let returned = there::finish(idp, form, &state, &registration, &credential.proof()).await;
    let returned = match returned {
        Ok(returned) => returned,
        Err(why) => {
            let (reason, more, response) = not_returned(&why);
            return Err(refuse(reason, more, response).await);
        }
    };
    let returned = match completed(idp, upstream, returned).await {
        Ok(returned) => returned,
        Err(error) => {
            tracing::warn!(upstream = name, %error, "the UserInfo endpoint of an upstream cannot be used");
            let why = match error {
                SignInError::BadAnswer(_) => there::NotReturned::Invalid,
                _ => there::NotReturned::Unreachable,
            };
            let (reason, more, response) = not_returned(&why);
            return Err(refuse(reason, more, response).await);
        }
    };
    // `finish` returns claims, always.
    let claims = returned.claims.as_ref().ok_or_else(|| bad(NOT_WORKED))?;
    let person = match upstream.identify(claims, &returned.issuer) {
        Ok(person) => person,
        Err(why) => {
            let page = error_page(StatusCode::FORBIDDEN, why.told());
            return Err(refuse(why.reason(), &why.to_string(), page).await);
        }
    };
    let ends = claims.optional_time("session_expiry").ok().flatten();
    if ends.is_some_and(|ends| ends <= now) {
        let (reason, _, response) = not_returned(&there::NotReturned::Stale);
        return Err(refuse(reason, "session_expiry has passed", response).await);
    }
    event = event.with(Detail::Subject, person.link.subject.as_str());
    let cookie = authority.context.entropy.secret();
    let mut session = Session {
        sid: authority.context.entropy.id(),
        user_id: String::new(),
        authentication: person.authentication.clone(),
        expires_at: expiry(idp, ends, now),
    };
    let token = match returned.refresh_token {
        Some(token) => Some(token),
        None => token_of_link(idp, upstream, &person.link).await.map_err(|e| broken(&e))?,
    };
    let for_link = token.as_ref().filter(|_| gives_once(upstream));
    let for_link = sealed(idp, &link_label(&person.link), for_link).map_err(|page| *page)?;
    let sealed = sealed(idp, &session_label(&session.sid), token.as_ref());
    let username = person.username.as_deref().map(passwords::normal_username);
    let username = username.filter(|name| !name.is_empty() && name != "." && name != "..");
    let sign_in = UpstreamSignIn {
        upstream: upstream.clone(),
        link: person.link.clone(),
        if_new: username.map(|username| (username, authority.context.entropy.id())),
        told: told(upstream, &person, upstream.memberships(&person)),
        their_sid: claims.required_id("sid", 255).ok().map(str::to_owned),
        sealed: sealed.map_err(|page| *page)?,
        sealed_for_link: for_link,
    };
    let before = cookie_before(idp, &parts.headers);
    let cookies = (cookie.hash(), before);
    let mut granted = event.clone().with(Detail::Session, session.sid.as_str());
    if token.is_none() {
        granted = granted.with(Detail::More, NOT_CHECKED);
    }
    let begun = authority
        .store
        .begin_upstream_session(
            (&cookies.0, cookies.1.as_deref()),
            &mut session,
            &sign_in,
            granted,
            now,
        )
        .await
        .map_err(|e| broken(&e))?;
    if !matches!(begun, UpstreamOutcome::Begun(..)) {
        let (reason, more, text) = not_begun(&begun);
        let page = error_page(StatusCode::FORBIDDEN, text);
        if let UpstreamOutcome::Disabled(user_id) = &begun {
            event = event.person(user_id);
        }
        let event = event.with(Detail::More, shown(&more, 300)).refused(reason);
        authority.store.note(event, now).await.map_err(|e| broken(&e))?;
        return Err(page);
    }
    taken.give_back();
    let started = started(idp, session, cookie, &parts.headers).await.map_err(|e| broken(&e))?;
    let cookies = started.cookies(idp);
    let who = idp.who(&started.session).await.map_err(|e| broken(&e))?;
    let who: Arc<Living> = who.ok_or_else(super::session::changed)?;
    if !state.target.starts_with(authorize_path(idp).as_str()) {
        let mut response = see_other(&format!("{}{}", idp.issuer().origin(), state.target));
        front_channel::keep_all(idp, &mut response, cookies);
        return Ok(response);
    }
    let cookie = started.cookie.expose().to_owned();
    let person = Person { session: started.session, cookie, who };
    Ok(front_channel::go_on(idp, (parts, &state.target), (person, cookies)).await)
}

/// In the trail, at a sign-in that is not checked again.
const NOT_CHECKED: &str =
    "the upstream gave no refresh token: it is not asked again whether they are still there";

const UNREACHABLE: &str = "Your company's identity provider does not answer, so nobody can sign in by way of it just \
                           now. Try again in a few minutes; if it lasts, tell IT.";
const NOT_WORKED: &str = "The sign-in at your company's identity provider did not work. Start again in the \
                          application; if it goes on, tell IT.";

/// The claims of an ID token, with those that only the `UserInfo` endpoint tells.
async fn completed(
    idp: &Idp,
    upstream: &UpstreamProvider,
    mut returned: Returned,
) -> Result<Returned, SignInError> {
    let Some(claims) = returned.claims.take() else { return Ok(returned) };
    let subject = claims.required_id("sub", 255).map(str::to_owned);
    let wanted = upstream.preset.has_user_info() && upstream.lacks(&claims);
    let others = match (&returned.access_token, subject) {
        (Some(token), Ok(subject)) if wanted => {
            let relying_party = &idp.0.authority.context.relying_party;
            relying_party.user_info(&registration(idp, upstream), token, &subject).await?
        }
        _ => None,
    };
    returned.claims = Some(match others {
        Some(others) => claims.completed(others),
        None => claims,
    });
    Ok(returned)
}

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
            "no user name was told for a new person".to_owned(),
            "Your company's identity provider did not tell a user name for you. Tell IT.",
        ),
        UpstreamOutcome::NameTaken(name) => (
            "sign_in.name_taken",
            format!("`{name}` is somebody else's user name"),
            "There is an account of your name here already, and it is not known whether it is yours. Ask IT to link \
             it to your company's sign-in.",
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

/// What is written at the person's record. An address counts as verified only in the upstream's own
/// domains: accounts elsewhere are found by it.
fn told(
    upstream: &UpstreamProvider,
    person: &UpstreamPerson,
    groups: Option<std::collections::BTreeSet<String>>,
) -> Told {
    let own = person.email.as_deref().is_some_and(|email| upstream.takes(email));
    Told {
        email: person.email.clone(),
        email_verified: person.email_verified && own,
        display_name: person.display_name.clone(),
        given_name: person.given_name.clone(),
        family_name: person.family_name.clone(),
        groups: groups.map(|groups| (upstream.decides_on(), groups)),
    }
}

/// Whether an upstream gives a refresh token at the first consent alone: it serves all sessions of
/// the person.
fn gives_once(upstream: &UpstreamProvider) -> bool {
    upstream.preset == Preset::Google
}

fn link_label(link: &SubjectLink) -> String {
    format!("upstream link {}", link.key())
}

/// The refresh token that an earlier sign-in of the person brought.
async fn token_of_link(
    idp: &Idp,
    upstream: &UpstreamProvider,
    link: &SubjectLink,
) -> Result<Option<Secret>, StoreError> {
    if !gives_once(upstream) {
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

/// Checks that the person of a session is still there, at the upstream where they signed in, if that
/// was last known too long ago. A session whose person is gone there ends.
pub(crate) async fn still_there(
    idp: &Idp,
    snapshot: &Snapshot<IdpDirectory>,
    sid: &str,
) -> Result<(), Failure> {
    if snapshot.directory.upstreams().next().is_none() {
        return Ok(());
    }
    let state = &idp.0;
    let authority = &state.authority;
    for _ in 0..TURNS {
        let now = authority.now();
        let before = now.plus(-state.settings.upstream_check);
        let Some(due) = authority.store.due_session(sid, before).await? else { return Ok(()) };
        if due.retry_at > now {
            return tolerated(idp, &due, now);
        }
        let until = now.plus(TRYING);
        if due.trying_until <= now && authority.store.claim_check(sid, &due, (now, until)).await? {
            // A client that goes away must not lose the upstream's next refresh token.
            let (idp, sid) = (idp.clone(), sid.to_owned());
            let asked = tokio::spawn(async move { ask(&idp, &sid, &due).await });
            return asked.await.unwrap_or(Err(Refusal::UpstreamUnreachable.into()));
        }
        // Another request, maybe at another node, is asking.
        tokio::time::sleep(TURN).await;
    }
    Err(Refusal::UpstreamUnreachable.into())
}

/// Whether a session may go on although its upstream does not answer.
fn tolerated(idp: &Idp, due: &DueSession, now: Timestamp) -> Result<(), Failure> {
    let settings = &idp.0.settings;
    let longest = settings.upstream_check + settings.upstream_grace;
    if now.since(due.checked_at) <= longest {
        return Ok(());
    }
    Err(Refusal::UpstreamUnreachable.into())
}

/// The errors that say that the person has to sign in again, or may not: anything else is not about
/// the person.
const ENDED: [&str; 5] = [
    "invalid_grant",
    "interaction_required",
    "login_required",
    "consent_required",
    "access_denied",
];

async fn ask(idp: &Idp, sid: &str, due: &DueSession) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await?;
    let Some(upstream) = snapshot.directory.upstream(&due.upstream) else {
        return end(
            idp,
            sid,
            due,
            ("upstream_check.off", None, "the upstream is switched off or gone"),
        )
        .await;
    };
    let issuer = Some(upstream.issuer.as_str());
    let answer = refreshed(idp, sid, due, upstream).await;
    let now = authority.now();
    let returned = match answer {
        Ok(returned) => returned,
        Err(Unasked::Refused(error)) if ENDED.contains(&error.as_str()) => {
            return end(idp, sid, due, ("upstream_check.ended", issuer, &error)).await;
        }
        Err(why) => {
            match why {
                Unasked::Refused(error) => tracing::warn!(
                    upstream = upstream.name,
                    error,
                    "the upstream refuses us, not a person: check our registration there"
                ),
                Unasked::Unreachable(error) => {
                    tracing::warn!(upstream = upstream.name, error, "the upstream does not answer");
                }
            }
            authority.store.check_failed(sid, now.plus(RETRY)).await?;
            return tolerated(idp, due, now);
        }
    };
    let person = returned.claims.as_ref().map(|claims| upstream.identify(claims, &returned.issuer));
    let told = match person {
        None => None,
        Some(Ok(person)) => {
            let links = authority.store.person_links(Some(&due.user_id), None).await?;
            if !links.iter().any(|held| held.link == person.link) {
                let what = "it answered about another person";
                return end(idp, sid, due, ("upstream_check.other_person", issuer, what)).await;
            }
            // A refreshed ID token may say less than the first one: what it leaves out stays.
            Some(told(upstream, &person, person.groups.clone()))
        }
        Some(Err(why)) => {
            return end(idp, sid, due, ("upstream_check.unidentified", issuer, &why.to_string()))
                .await;
        }
    };
    let sealing = &authority.context.sealing;
    let sealed = match &returned.refresh_token {
        None => None,
        Some(token) => {
            let sealed = sealing.seal(&session_label(sid), token.expose().as_bytes());
            Some(sealed.map_err(|error| {
                tracing::error!(error, "the refresh token of an upstream cannot be sealed");
                Failure::from(Refusal::UpstreamUnreachable)
            })?)
        }
    };
    let who = (due.user_id.as_str(), told.as_ref());
    if authority.store.keep_checked(sid, who, sealed.as_deref(), now).await? {
        return Ok(());
    }
    Err(Refusal::SubjectNotLive.into())
}

/// Why nothing is known about the person.
enum Unasked {
    /// The upstream's error code.
    Refused(String),
    Unreachable(String),
}

async fn refreshed(
    idp: &Idp,
    sid: &str,
    due: &DueSession,
    upstream: &UpstreamProvider,
) -> Result<Returned, Unasked> {
    let context = &idp.0.authority.context;
    let opened = context.sealing.open_text(&session_label(sid), &due.sealed);
    let token = opened.map_err(Unasked::Unreachable)?;
    let credential = Credential::of(idp, upstream).map_err(Unasked::Unreachable)?;
    let registration = registration(idp, upstream);
    let relying_party = &context.relying_party;
    let returned = relying_party.refresh(&registration, &credential.proof(), &token).await;
    let returned = returned.map_err(|error| match error {
        SignInError::Refused { error, .. } => Unasked::Refused(error.error),
        error => Unasked::Unreachable(error.to_string()),
    })?;
    let (refresh_token, issuer) = (returned.refresh_token.clone(), returned.issuer.clone());
    // The refresh token may be used up: the next one is not lost for want of UserInfo, and nothing
    // is known then but that the person is still there.
    let completed = completed(idp, upstream, returned).await;
    Ok(completed.unwrap_or(Returned { claims: None, issuer, refresh_token, access_token: None }))
}

async fn end(
    idp: &Idp,
    sid: &str,
    due: &DueSession,
    (reason, issuer, more): (&'static str, Option<&str>, &str),
) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let mut event = AuditEvent::granted(RequestEvent::UpstreamCheck, now)
        .person(&due.user_id)
        .with(Detail::Session, sid)
        .with(Detail::More, shown(more, 300));
    if let Some(issuer) = issuer {
        event = event.with(Detail::Issuer, issuer);
    }
    let what = (sid, due.upstream.as_str());
    authority.store.end_upstream_session(what, event.refused(reason), now).await?;
    Err(Refusal::SubjectNotLive.into())
}

/// Whether a sign-in at an upstream could reach what a request wishes and this one does not. A class
/// that is merely wished for, and that no upstream is said to reach, is not worth a page each time.
pub(crate) fn could_do_more(
    directory: &IdpDirectory,
    read: &ReadRequest<()>,
    held: &Authentication,
) -> bool {
    let request = &read.request;
    if !request.is_met_by(&held.acr) {
        return directory.upstreams().next().is_some();
    }
    let mut meant = directory.upstreams().flat_map(|upstream| upstream.acr_values.values());
    request.wishes_more_than(&held.acr) && meant.any(|class| request.acr_values.contains(class))
}
