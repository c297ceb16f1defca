//! The device authorization grant (RFC 8628): a device without a browser shows a code, and the
//! person types it in a browser that they trust. Codes are looked up only for people who have
//! signed in. The page shows which program asks, from where, and as whom it would act, and the
//! person allows or denies it. There are no links that contain the code: a victim of phishing has
//! to type the attacker's code, below a sentence that explains what that does.

use super::{
    authorization_code,
    directory::IdpDirectory,
    pushed_request::not_taken,
    sign_in::{own, page::Problem},
    state::Idp,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, request::Parts},
};
use maud::{Markup, html};
use passavant_authority::{
    admission::Sender,
    answer::{self, Failure, broken, error_page, page as shown_page},
    authority::Look,
    browser::{cookie, cookie_name, csrf_of, own_form},
    front_channel::session,
    grants,
    origin::origin_of,
    token_endpoint::{ClientRequest, Endpoint, TokenAnswer, client_request, conclude},
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::authorize::{CODE_LIFETIME, RedirectError, SCOPE_ENROL, read_device},
    oauth::client::ENROLLED_CLIENT,
    oauth::form::Form,
    oauth::pkce::CodeChallenge,
    oauth::user_code,
    others_text::shown,
    refusal::Refusal,
    secret::{Secret, equal_in_constant_time},
    time::{SKEW, Timestamp},
};
use passavant_store::{
    AuditEvent, AuthorizationCode, DeviceCode, DeviceState, Session, StoreError,
};
use serde_json::json;

/// How long the person may take, in seconds.
const LIFETIME: i64 = 600;
/// How long a device waits between two polls, in seconds.
const INTERVAL: i64 = 5;
/// Maximum age of a sign-in that may enrol another computer, in seconds.
const RECENT: i64 = 600;

/// The device authorization endpoint (RFC 8628 section 3.1).
pub(super) async fn authorize(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (authority, admission) = (&idp.0.authority, &idp.0.admission);
    let url = authority.issuer.endpoint("/device_authorization");
    let at = Endpoint::DeviceAuthorization;
    let request = match client_request(authority, admission, &url, at, request).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let now = authority.now();
    let client = request.client.record();
    let settings = &idp.0.settings;
    let enrols = client.id == ENROLLED_CLIENT;
    if !settings.device_authorization || !client.device_grant || enrols && !settings.enrolment {
        let refusal = Refusal::DeviceGrant.into();
        return conclude(authority, admission, &request.sender, request.event, refusal).await;
    }
    // Every request costs a row, and a public client proves nothing.
    let who = if request.client.is_public() { &request.address } else { &client.id };
    if let Err(busy) = admission.push(who) {
        return answer::throttled(busy.0);
    }
    let mut asked = match read_device(&request.form, client) {
        Ok(asked) => asked,
        Err(RedirectError { error, description }) => {
            return not_taken(&idp, request, error, description).await;
        }
    };
    asked.dpop_jkt = request.proof.map(|proof| proof.key_thumbprint);
    // Nobody answers this challenge. An earlier version, which may redeem the resulting code,
    // cannot read a code without one.
    asked.code_challenge = Some(CodeChallenge::of(authority.context.entropy.secret().expose()));
    let device = DeviceCode {
        request: asked,
        asked_from: request.address,
        asked_at: now,
        expires_at: now.plus(LIFETIME),
    };
    // A collision among waiting codes is so rare that a third one means another error.
    for _ in 0..3 {
        let code = authority.context.entropy.secret();
        let user_code = user_code::generate(&authority.context.entropy);
        let (hash, typed) = (code.hash(), user_code.hash());
        let kept = authority.store.keep_device_code(&hash, &typed, &device, request.event.clone());
        match kept.await {
            Ok(true) => {
                let body = json!({
                    "device_code": code.expose(),
                    "user_code": user_code::shown(&user_code),
                    "verification_uri": authority.issuer.endpoint("/activate"),
                    "expires_in": LIFETIME,
                    "interval": INTERVAL,
                });
                return answer::no_store(StatusCode::OK, &body);
            }
            Ok(false) => {}
            Err(error) => return broken(&error),
        }
    }
    answer::throttled(5)
}

/// The device code at the token endpoint (RFC 8628 section 3.4).
pub(super) async fn redeem(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &idp.0.authority;
    if !idp.0.settings.device_authorization || !request.client.record().device_grant {
        return Err(Refusal::DeviceGrant.into());
    }
    let hash = Secret::new(request.form.required("device_code")?).hash();
    let (client, now) = (request.client.id(), authority.now());
    // Times are whole seconds: a device that waited for five seconds may seem to have waited for
    // four.
    let state = authority.store.poll_device(&hash, client, INTERVAL - 1, now).await?;
    match state {
        // Every device polls like this while its person types: do not record it.
        DeviceState::Pending => Err(Failure::RefusedOnRecord(Refusal::AuthorizationPending)),
        DeviceState::TooSoon => {
            idp.0.admission.refusal(&request.sender)?;
            Err(Failure::RefusedOnRecord(Refusal::SlowDown))
        }
        DeviceState::Denied => Err(Refusal::DeviceCodeDenied.into()),
        DeviceState::Expired => Err(Refusal::DeviceCodeExpired.into()),
        DeviceState::Invalid => Err(Refusal::Code.into()),
        DeviceState::Answered => {
            let presented = grants::present_device_code(authority, request, event).await?;
            authorization_code::bring(idp, request, presented, event).await
        }
    }
}

/// GET: the form for the code. A person who is not signed in signs in first.
pub(super) async fn page(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    if !idp.0.settings.device_authorization {
        return switched_off();
    }
    // The form names the upstreams that there are now.
    if let Err(error) = idp.0.authority.fresh().await {
        return broken(&error);
    }
    if let Some(sent) = own::chosen_elsewhere(&idp, &parts).await {
        return sent;
    }
    match session(&idp, &parts.headers).await {
        Ok(Some(_)) => code_form(&idp, &parts, None),
        Ok(None) => sign_in_form(&idp, &parts, None),
        Err(error) => broken(&error),
    }
}

/// When the person of a session proved themselves: where their upstream does not say it, when they
/// came back from there.
fn proved_at(idp: &Idp, session: &Session) -> Timestamp {
    let said = session.authentication.auth_time;
    if said == Timestamp(0) {
        session.expires_at.plus(-idp.0.settings.session_lifetime)
    } else {
        said
    }
}

/// POST: handles each of these forms.
pub(super) async fn answer(State(idp): State<Idp>, request: Request) -> Response<Body> {
    if !idp.0.settings.device_authorization {
        return switched_off();
    }
    let (parts, form) = match own_form(idp.issuer(), request).await {
        Ok(sent) => sent,
        Err(answered) => return answered,
    };
    if let Err(error) = idp.0.authority.fresh().await {
        return broken(&error);
    }
    if let Some(answered) = own::visit(&idp, &form, &parts, &head()).await {
        return answered;
    }
    let done = typed(&idp, &form, form.optional("answer"), &parts).await;
    done.unwrap_or_else(|error| broken(&error))
}

fn switched_off() -> Response<Body> {
    let text = "Signing in by a code is switched off here. Ask IT.";
    error_page(StatusCode::NOT_FOUND, text)
}

const TOO_OLD: &str = "The page is too old, or cookies are switched off. Open the page again.";

/// Handles a code that a signed-in person typed, and later their answer.
async fn typed(
    idp: &Idp,
    form: &Form,
    said: Option<&str>,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let Some((session, _)) = session(idp, &parts.headers).await? else {
        return Ok(sign_in_form(idp, parts, None));
    };
    if !equal_in_constant_time(&proof_of(idp, parts), form.optional("csrf").unwrap_or_default()) {
        return Ok(error_page(StatusCode::FORBIDDEN, TOO_OLD));
    }
    let snapshot = authority.fresh().await?;
    let person = snapshot.directory.person(&authority.store, &session.user_id, Look::Now);
    let Some(person) = person.await? else {
        return Ok(error_page(StatusCode::FORBIDDEN, "This account is switched off. Ask IT."));
    };
    // Take a cell for each attempt, right or wrong, before the code is looked up: codes can be
    // guessed (RFC 8628 section 5.1).
    let guesses = Sender::Unproven(format!("codes typed by {}", session.user_id));
    if idp.0.admission.refusal(&guesses).is_err() {
        let text = "Too many codes. Wait a minute, then try again.";
        let problem =
            Problem { status: StatusCode::TOO_MANY_REQUESTS, text, username: "", second: None };
        return Ok(code_form(idp, parts, Some(&problem)));
    }
    let code = form.optional("user_code").and_then(user_code::typed);
    let waiting = match &code {
        Some(code) => authority.store.waiting_device(&code.hash(), now).await?,
        None => None,
    };
    let found = match &waiting {
        Some(device) => {
            let id = &device.request.client_id;
            authority.client(&snapshot.directory, id, Look::Now).await.ok()
        }
        None => None,
    };
    let found = found.flatten().filter(|client| client.record.device_grant);
    let (Some(code), Some(device), Some(client)) = (code, waiting, found) else {
        return wrong_code(idp, &session, parts).await;
    };
    if !client.acts_for(&session.user_id) {
        let text = "That computer was enrolled by another person, and acts for them alone.";
        return Ok(error_page(StatusCode::FORBIDDEN, text));
    }
    if device.request.fresh && !(-SKEW..=RECENT).contains(&now.since(proved_at(idp, &session))) {
        let text = "To add a computer, sign in again; then type the code once more.";
        let problem =
            Problem { status: StatusCode::OK, text, username: &person.user.username, second: None };
        return Ok(sign_in_form(idp, parts, Some(&problem)));
    }
    let asks = Asks { code: &code, device: &device, client_name: &client.record.name };
    match said {
        Some("allow") => answered(idp, &asks, &session, true, parts).await,
        Some("deny") => answered(idp, &asks, &session, false, parts).await,
        _ => Ok(question(idp, &asks, &person.user.username, parts)),
    }
}

async fn wrong_code(
    idp: &Idp,
    session: &Session,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let authority = &idp.0.authority;
    let (request_id, address) = origin_of(parts);
    let event = AuditEvent::granted(RequestEvent::Authorize, authority.now())
        .person(&session.user_id)
        .with(Detail::Session, session.sid.as_str())
        .with(Detail::RequestId, request_id)
        .with(Detail::Address, address)
        .refused("device.user_code");
    authority.store.note(event, authority.now()).await?;
    let text = "Wrong or expired code. Check the letters. Codes expire after ten minutes.";
    let problem = Problem { status: StatusCode::BAD_REQUEST, text, username: "", second: None };
    Ok(code_form(idp, parts, Some(&problem)))
}

/// A waiting device, and the code it shows.
struct Asks<'a> {
    code: &'a Secret,
    device: &'a DeviceCode,
    client_name: &'a str,
}

async fn answered(
    idp: &Idp,
    asks: &Asks<'_>,
    session: &Session,
    yes: bool,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let Asks { code, device, .. } = asks;
    let event = AuditEvent::granted(RequestEvent::Authorize, now)
        .person(&session.user_id)
        .client(&device.request.client_id)
        .with(Detail::Session, session.sid.as_str())
        .with(Detail::DeviceAt, device.asked_from.as_str())
        .with(Detail::RequestId, origin_of(parts).0);
    let (kept, event) = if yes {
        let kept = AuthorizationCode {
            sid: session.sid.clone(),
            family: authority.context.entropy.id(),
            expires_at: device.expires_at.max(now.plus(CODE_LIFETIME)),
            request: device.request.clone(),
        };
        (Some(kept), event)
    } else {
        (None, event.refused("device.denied"))
    };
    if !authority.store.answer_device(&code.hash(), kept.as_ref(), event, now).await? {
        return wrong_code(idp, session, parts).await;
    }
    let enrols = device.request.scopes.contains(SCOPE_ENROL);
    let content = html! {
        @if !yes {
            h1 { "The device was refused" }
            p.soft {
                "The device got no access. If somebody gave you that code, tell IT: they tried to \
                 sign in as you."
            }
        } @else if enrols {
            h1 { "The computer is added" }
            p { "It shows a second code now, to sign in with. Type that one too." }
            (code_fields(&proof_of(idp, parts), None))
        } @else {
            h1 { "The device is signed in" }
            p.soft { "You can close this page and return to your device." }
        }
    };
    Ok(shown_page(StatusCode::OK, "Sign in on a device", &content, ""))
}

/// The proof in the forms of a signed-in person that we made them.
fn proof_of(idp: &Idp, parts: &Parts) -> String {
    csrf_of(&cookie(&parts.headers, &cookie_name(idp.issuer(), "session")).unwrap_or_default())
}

fn head() -> Markup {
    html! { p.soft { "You need this to sign in on a device that shows you a code." } }
}

fn sign_in_form(idp: &Idp, parts: &Parts, problem: Option<&Problem<'_>>) -> Response<Body> {
    own::form_of(idp, parts, &head(), problem)
}

fn code_fields(csrf: &str, problem: Option<&Problem<'_>>) -> Markup {
    html! {
        @if let Some(Problem { text, .. }) = problem {
            p.bad role="alert" id="problem" { (text) }
        }
        form method="post" {
            input type="hidden" name="csrf" value=(csrf);
            label for="user_code" { "The code that the device shows" }
            input id="user_code" name="user_code" type="text" required autofocus
                autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="32"
                placeholder="BCDF-GHJK" aria-describedby=[problem.map(|_| "problem")];
            button type="submit" name="answer" value="look" { "Continue" }
        }
    }
}

fn code_form(idp: &Idp, parts: &Parts, problem: Option<&Problem<'_>>) -> Response<Body> {
    let content = html! {
        h1 { "Sign in on a device" }
        p.note {
            "Type a code only if a device in front of you shows it, because you started a sign-in there. A code that "
            "somebody sent you lets them in as you."
        }
        (code_fields(&proof_of(idp, parts), problem))
    };
    let status = problem.map_or(StatusCode::OK, |problem| problem.status);
    shown_page(status, "Sign in on a device", &content, "")
}

/// The page with the question. The focus is on "no", so that "yes" is a deliberate choice.
fn question(idp: &Idp, asks: &Asks<'_>, username: &str, parts: &Parts) -> Response<Body> {
    let Asks { code, device, client_name } = asks;
    let enrols = device.request.scopes.contains(SCOPE_ENROL);
    let ago = idp.0.authority.now().since(device.asked_at).max(0) / 60;
    let content = html! {
        @if enrols {
            h1 { "Add a computer to your account?" }
        } @else {
            h1 { "Let " (shown(client_name, 100)) " sign in?" }
        }
        p {
            "It will act as " strong { (username) } ". A device at the network address "
            strong { (device.asked_from) } " asked "
            @if ago == 0 { "just now" } @else if ago == 1 { "a minute ago" } @else { (ago) " minutes ago" }
            ", and shows " strong.code { (user_code::shown(code)) } "."
        }
        p.note {
            "Say yes only if you started this yourself and that device is in front of you. If somebody sent you the code, "
            "say no, and tell IT."
        }
        form method="post" {
            input type="hidden" name="csrf" value=(proof_of(idp, parts));
            input type="hidden" name="user_code" value=(code.expose());
            button type="submit" name="answer" value="allow" { "Yes, it is my device" }
            button.plain type="submit" name="answer" value="deny" autofocus { "No" }
        }
    };
    shown_page(StatusCode::OK, "Sign in on a device", &content, "")
}
