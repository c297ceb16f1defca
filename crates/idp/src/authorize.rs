//! The authorization endpoint: a browser comes with a request, leaves with a code. Nothing is kept
//! before somebody has signed in; the sign-in form posts back to the very URL it came from, and the
//! request is read and checked again.

use super::{
    asked::{Asked, hinted},
    pushed_request,
    sign_in_page::{self, Problem},
    state::Idp,
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use passavant_authority::{
    admission::UNDER_WAY,
    admission::Visitor,
    answer::{Failure, broken, error_page},
    authority::Look,
    browser::{self, back_to, cookie, cookie_name, csrf_of, is_same_origin, set_cookie},
    origin::origin_of,
    passwords,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::authorize::{
        AuthorizationRequest, CODE_LIFETIME, PageError, RedirectError, Unauthorizable,
    },
    oauth::client::{Client, ClientAuthentication, ENROLLED_CLIENT},
    oauth::form::Form,
    oidc::authentication::{ACR_PASSWORD, Authentication},
    oidc::known_browser::{self, KnownBrowser},
    secret::{Secret, equal_in_constant_time, sha256},
    time::Timestamp,
};
use passavant_store::{AuditEvent, AuthorizationCode, Session, StoreError, User};
use std::time::Duration;

/// GET: a live session gets its code at once; otherwise the sign-in page.
pub(super) async fn begin(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let asked = match read(&idp, &parts).await {
        Ok(asked) => asked,
        Err(response) => return response,
    };
    let now = idp.0.authority.now();
    let session = match session_of(&idp, &parts.headers, now).await {
        Ok(session) => session,
        Err(error) => return broken(&error),
    };
    let serves = |session: &Session| {
        asked.request.is_served_by(session.authentication.auth_time, now)
            && asked.request.is_for(&session.user_id)
    };
    if let Some(session) = session.filter(serves) {
        if asked.needs_a_person() {
            if asked.request.silent {
                let description =
                    "prompt=none was asked for, and a person has to agree to this application.";
                let error = RedirectError { error: "interaction_required", description };
                return redirect_error(&idp, &asked.request, error);
            }
            return match go_on_page(&idp, &asked, &session, &parts).await {
                Ok(page) => page,
                Err(error) => broken(&error),
            };
        }
        return match issue_code(&idp, asked, &session, &parts).await {
            Ok(response) => response,
            Err(error) => broken(&error),
        };
    }
    if asked.request.silent {
        let description = "prompt=none was asked for, and nobody is signed in, or somebody else.";
        let error = RedirectError { error: "login_required", description };
        return redirect_error(&idp, &asked.request, error);
    }
    sign_in_page::show(&idp, &asked, &parts, None)
}

/// The page that says who is signed in and which program wants to know.
async fn go_on_page(
    idp: &Idp,
    asked: &Asked,
    session: &Session,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await?;
    let person = snapshot.directory.person(&authority.store, &session.user_id, Look::Now);
    let Some(person) = person.await? else {
        return Ok(error_page(StatusCode::FORBIDDEN, SWITCHED_OFF));
    };
    let held = cookie(&parts.headers, &cookie_name(idp.issuer(), "session")).unwrap_or_default();
    Ok(sign_in_page::go_on(idp, asked, parts, &person.user.username, &csrf_of(&held)))
}

pub(super) const SWITCHED_OFF: &str = "This account is switched off. Ask IT.";

/// POST of that page: the person goes on as who they are.
async fn went_on(idp: &Idp, asked: Asked, form: &Form, parts: &Parts) -> Response<Body> {
    let now = idp.0.authority.now();
    let held = cookie(&parts.headers, &cookie_name(idp.issuer(), "session")).unwrap_or_default();
    let proof = form.optional("csrf").unwrap_or_default();
    let session = match session_of(idp, &parts.headers, now).await {
        Ok(session) => session,
        Err(error) => return broken(&error),
    };
    let serves = |session: &Session| {
        asked.request.is_served_by(session.authentication.auth_time, now)
            && asked.request.is_for(&session.user_id)
            && equal_in_constant_time(&csrf_of(&held), proof)
    };
    let Some(session) = session.filter(serves) else {
        let text = "The page is too old, or you are not signed in any more. Start again in the application.";
        return error_page(StatusCode::FORBIDDEN, text);
    };
    match issue_code(idp, asked, &session, parts).await {
        Ok(response) => response,
        Err(error) => broken(&error),
    }
}

/// POST: the sign-in form, which names its request in the URL; or a request that is itself posted (OpenID Connect Core
/// 3.1.2.1), which goes on as the same one by GET: a browser sends its cookies along with that.
pub(super) async fn sign_in(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.uri.query().is_none_or(str::is_empty) {
        return posted(&idp, body).await;
    }
    let asked = match read(&idp, &parts).await {
        Ok(asked) => asked,
        Err(response) => return response,
    };
    if !is_same_origin(idp.issuer(), &parts.headers) {
        let text = "The sign-in form was sent from another site.";
        return error_page(StatusCode::FORBIDDEN, text);
    }
    let bytes = match Bytes::from_request(Request::new(body), &()).await {
        Ok(bytes) => bytes,
        Err(rejection) => return rejection.into_response(),
    };
    let Ok(form) = Form::parse(&bytes) else {
        return error_page(StatusCode::BAD_REQUEST, "The sign-in form cannot be read.");
    };
    match form.optional("answer") {
        Some("go_on") => return went_on(&idp, asked, &form, &parts).await,
        // Whoever sends it ends nothing but this request.
        Some("cancel") => {
            let description = "The person did not want to sign in.";
            let error = RedirectError { error: "access_denied", description };
            return redirect_error(&idp, &asked.request, error);
        }
        _ => {}
    }
    let token = form.optional("csrf").unwrap_or_default();
    let expected =
        cookie(&parts.headers, &cookie_name(idp.issuer(), "signin")).map(|c| csrf_of(&c));
    if !expected.is_some_and(|expected| equal_in_constant_time(&expected, token)) {
        let text = "The sign-in form is too old, or cookies are switched off. Start again in the \
                    application.";
        return error_page(StatusCode::FORBIDDEN, text);
    }
    let username = form.optional("username").unwrap_or_default();
    let password = Secret::new(form.optional("password").unwrap_or_default());
    match check_password(&idp, username, &password, &parts).await {
        Ok(user) => match signed_in(&idp, asked, &user, &parts).await {
            Ok(response) => response,
            Err(error) => broken(&error),
        },
        Err(NotSignedIn::Broken(error)) => broken(&error),
        Err(why) => {
            let (status, text, wait) = why.told();
            let problem = Problem { status, text, username };
            let mut page = sign_in_page::show(&idp, &asked, &parts, Some(&problem));
            if let Some(seconds) = wait {
                page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            page
        }
    }
}

/// What goes on from POST to GET: everything that the endpoint reads, or answers.
const PARAMETERS: [&str; 19] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "prompt",
    "max_age",
    "login_hint",
    "id_token_hint",
    "claims",
    "response_mode",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
    "request",
    "request_uri",
    "resource",
    "authorization_details",
];

/// Longest request that goes on from POST to GET, in bytes: browsers and proxies take URLs of this length.
const LONGEST_QUERY: usize = 8 * 1024;

async fn posted(idp: &Idp, body: Body) -> Response<Body> {
    let bytes = match Bytes::from_request(Request::new(body), &()).await {
        Ok(bytes) => bytes,
        Err(rejection) => return rejection.into_response(),
    };
    let query = (bytes.len() <= LONGEST_QUERY).then(|| Form::parse(&bytes).ok()).flatten();
    let Some(query) = query.map(|form| form.only(&PARAMETERS)).filter(|query| !query.is_empty())
    else {
        let text = PageError::Unreadable.to_string();
        return error_page(StatusCode::BAD_REQUEST, &text);
    };
    let location = idp.issuer().endpoint(&format!("/authorize?{query}"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Reads a plain or pushed request. Whatever the front channel says beside a `request_uri` is not
/// looked at (G04).
async fn read(idp: &Idp, parts: &Parts) -> Result<Asked, Response<Body>> {
    let uri = &parts.uri;
    let page = |error: PageError| error_page(StatusCode::BAD_REQUEST, &error.to_string());
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes())
        .map_err(|_| page(PageError::Unreadable))?;
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let found = match form.optional("client_id") {
        Some(id) => authority.client(&snapshot.directory, id, Look::Now).await,
        None => Ok(None),
    };
    let found = match found {
        Ok(found) => found,
        Err(Failure::Broken(error)) => return Err(broken(&error)),
        Err(_) => None,
    };
    let (request_id, address) = origin_of(parts);
    let visitor = Visitor { admission: &idp.0.admission, address: &address };
    let refuse = async |client: Option<&Client>,
                        (reason, detail): (&'static str, String),
                        page: Option<&str>| {
        browser::refused(authority, visitor, (&request_id, client), (reason, &detail), page).await
    };
    let Some(found) = found else {
        let id = form.optional("client_id").unwrap_or("nothing");
        let said = ("authorize.client", format!("client_id {id}"));
        let text = PageError::Client.to_string();
        return Err(refuse(None, said, Some(&text))
            .await
            .unwrap_or_else(|| page(PageError::Client)));
    };
    let client = &found.record;
    if client.id == ENROLLED_CLIENT && !idp.0.settings.enrolment {
        return Err(page(PageError::Client));
    }
    let only_for = found.installation.as_ref().map(|held| held.user_id.clone());
    let is_public = client.authentication == ClientAuthentication::Public;
    if let Some(request_uri) = form.optional("request_uri") {
        let hash =
            pushed_request::hash_of(request_uri).ok_or_else(|| page(PageError::PushedRequest))?;
        let pushed = authority.store.open_pushed_request(&hash, &client.id, authority.now()).await;
        return match pushed.map_err(|e| broken(&e))? {
            Some(pushed) if pushed.request.is_still_taken(client) => Ok(Asked {
                request: pushed.request,
                client_name: client.name.clone(),
                pushed: Some(hash),
                only_for,
                is_public,
            }),
            _ => Err(page(PageError::PushedRequest)),
        };
    }
    let keys = snapshot.keys.verifying();
    let read = hinted((&keys, idp.issuer()), &form, client).and_then(|request| {
        if client.require_pushed_authorization_requests {
            let description = "This client has to push its authorization requests (RFC 9126).";
            let error = RedirectError { error: "invalid_request", description };
            let (redirect_uri, state) = (request.redirect_uri, request.state);
            return Err(Unauthorizable::Redirect { redirect_uri, state, error });
        }
        Ok(request)
    });
    match read {
        Ok(request) => {
            let client_name = client.name.clone();
            Ok(Asked { request, client_name, pushed: None, only_for, is_public })
        }
        Err(Unauthorizable::Page(error)) => {
            let uri = form.optional("redirect_uri").unwrap_or("nothing");
            let said = ("authorize.redirect_uri", format!("redirect_uri {uri}"));
            let refused = refuse(Some(client), said, Some(&error.to_string())).await;
            Err(refused.unwrap_or_else(|| page(error)))
        }
        Err(Unauthorizable::Redirect { redirect_uri, state, error }) => {
            let said = ("authorize.request", format!("{}: {}", error.error, error.description));
            if let Some(busy) = refuse(Some(client), said, None).await {
                return Err(busy);
            }
            let parameters = [("error", error.error), ("error_description", error.description)];
            Err(back_to(idp.issuer(), &redirect_uri, state.as_deref(), &parameters))
        }
    }
}

pub(super) enum NotSignedIn {
    Wrong,
    Wait(u64),
    /// As many checks for this person as may be at once are under way.
    UnderWay,
    Broken(StoreError),
}

impl NotSignedIn {
    /// How it is told, and how many seconds there are to wait.
    pub(super) fn told(&self) -> (StatusCode, &'static str, Option<u64>) {
        match self {
            Self::Wrong => {
                let text = "User name or password is wrong, or your account is switched off.";
                (StatusCode::UNAUTHORIZED, text, None)
            }
            Self::Wait(seconds) => {
                let text = "Too many failed sign-ins. Wait a minute, then try again.";
                (StatusCode::TOO_MANY_REQUESTS, text, Some(*seconds))
            }
            Self::UnderWay => {
                let text = "Others are signing in with this name just now. Try again in a moment.";
                (StatusCode::TOO_MANY_REQUESTS, text, Some(2))
            }
            Self::Broken(_) => {
                let text = "The server cannot answer just now; try again.";
                (StatusCode::SERVICE_UNAVAILABLE, text, Some(5))
            }
        }
    }
}

/// The browser that a person signed in in before, by its own cookie.
async fn known_browser(
    idp: &Idp,
    headers: &HeaderMap,
) -> Result<Option<(String, String)>, StoreError> {
    let authority = &idp.0.authority;
    let Some(held) = cookie(headers, &cookie_name(idp.issuer(), "browser")) else {
        return Ok(None);
    };
    let keys = authority.verifying().await?;
    Ok(KnownBrowser::read(&held, &keys, &authority.issuer, authority.now()).ok())
}

/// How often, and how long each time, a sign-in waits for others of the same person that are under way.
const TURNS: u32 = 20;
const TURN: Duration = Duration::from_millis(150);

/// Takes as long for an unknown user as for a wrong password, and answers the same (L01). Counted before the password
/// is looked at.
pub(super) async fn check_password(
    idp: &Idp,
    username: &str,
    password: &Secret,
    parts: &Parts,
) -> Result<User, NotSignedIn> {
    let state = &idp.0;
    let authority = &state.authority;
    let (request_id, address) = origin_of(parts);
    let username = passwords::normal_username(username);
    let found =
        authority.store.usable_by_name::<User>(&username).await.map_err(NotSignedIn::Broken)?;
    let browser = known_browser(idp, &parts.headers).await.map_err(NotSignedIn::Broken)?;
    let known = found.as_ref().and_then(|user| browser.filter(|(person, _)| *person == user.id));
    let known = known.map(|(_, browser)| browser);
    let person = sha256(username.as_bytes());
    let mut turns = TURNS;
    let attempt = loop {
        match state.admission.sign_in(&address, &person, known.as_deref()) {
            Ok(attempt) => break attempt,
            Err(UNDER_WAY) if turns > 0 => {
                turns -= 1;
                tokio::time::sleep(TURN).await;
            }
            Err(UNDER_WAY) => return Err(NotSignedIn::UnderWay),
            Err(busy) => return Err(NotSignedIn::Wait(busy.0)),
        }
    };
    let live = found.filter(|user| !user.disabled);
    let hash = live.as_ref().and_then(|user| user.password_hash.as_deref());
    let short_enough = password.expose().len() <= passwords::LONGEST;
    let hash = hash.filter(|_| short_enough);
    let Ok(right) = state.passwords.verify(password, hash).await else {
        attempt.undone();
        return Err(NotSignedIn::Wait(5));
    };
    match live {
        Some(user) if right => {
            attempt.right();
            Ok(user)
        }
        known => {
            attempt.wrong();
            let event = AuditEvent::granted(RequestEvent::SignIn, authority.now())
                .person(known.map(|user| user.id).unwrap_or_default())
                .with(Detail::RequestId, request_id)
                .with(Detail::Address, address)
                .refused("sign_in.password");
            let recorded = authority.store.note(event, authority.now()).await;
            recorded.map_err(NotSignedIn::Broken)?;
            Err(NotSignedIn::Wrong)
        }
    }
}

async fn signed_in(
    idp: &Idp,
    asked: Asked,
    user: &User,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let Some(started) = start_session(idp, user, Some(&asked.request.client_id), parts).await?
    else {
        return Ok(changed());
    };
    let response = issue_code(idp, asked, &started.session, parts).await?;
    Ok(started.keep(idp, response))
}

/// The person was switched off, removed or given another password a moment ago.
pub(super) fn changed() -> Response<Body> {
    let text = "This account was changed a moment ago. Start again in the application.";
    error_page(StatusCode::FORBIDDEN, text)
}

/// A session that has just begun, and the cookies that its browser gets.
pub(super) struct Started {
    pub(super) session: Session,
    cookie: Secret,
    browser: String,
}

impl Started {
    pub(super) fn keep(self, idp: &Idp, mut response: Response<Body>) -> Response<Body> {
        let lifetime = idp.0.settings.session_lifetime;
        set_cookie(idp.issuer(), &mut response, "session", self.cookie.expose(), lifetime);
        set_cookie(idp.issuer(), &mut response, "signin", "", 0);
        set_cookie(idp.issuer(), &mut response, "browser", &self.browser, known_browser::LIFETIME);
        response
    }
}

/// Begins the session of a person whose password was right; `None` if they were switched off or changed since.
pub(super) async fn start_session(
    idp: &Idp,
    user: &User,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Option<Started>, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let (request_id, _) = origin_of(parts);
    // A new cookie at each sign-in: one planted before it is worth nothing after.
    let secret = authority.context.entropy.secret();
    let session = Session {
        sid: authority.context.entropy.id(),
        user_id: user.id.clone(),
        authentication: Authentication {
            auth_time: now,
            acr: ACR_PASSWORD.to_owned(),
            amr: vec!["pwd".to_owned()],
            issuer: None,
        },
        expires_at: now.plus(idp.0.settings.session_lifetime),
    };
    let event = AuditEvent::granted(RequestEvent::SignIn, now)
        .person(&user.id)
        .with(Detail::Session, session.sid.as_str())
        .with(Detail::RequestId, request_id);
    let event = match client {
        Some(client) => event.client(client),
        None => event,
    };
    // The cookie of before is dead, whoever has a copy of it; what its sign-in brought goes on.
    let before = cookie(&parts.headers, &cookie_name(idp.issuer(), "session"));
    let before = before.map(|cookie| Secret::new(cookie).hash());
    let (hash, before) = (secret.hash(), before.as_deref());
    if !authority.store.begin_session(&hash, &session, user, before, event).await? {
        return Ok(None);
    }
    let browser = known_browser(idp, &parts.headers).await?;
    let browser = browser.filter(|(person, _)| *person == user.id);
    let browser = KnownBrowser {
        iss: idp.issuer().to_string(),
        sub: user.id.clone(),
        jti: browser.map_or_else(|| authority.context.entropy.id(), |(_, browser)| browser),
        iat: now,
        exp: now.plus(known_browser::LIFETIME),
    };
    let browser = browser.sign(&authority.signing());
    Ok(Some(Started { session, cookie: secret, browser }))
}

/// Keeps a code and sends the browser back with it. 303, so that a posted form is not posted on.
async fn issue_code(
    idp: &Idp,
    asked: Asked,
    session: &Session,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let secret = authority.context.entropy.secret();
    let (request_id, _) = origin_of(parts);
    let snapshot = authority.fresh().await?;
    let person = snapshot.directory.person(&authority.store, &session.user_id, Look::Now);
    if person.await?.is_none() {
        return Ok(error_page(StatusCode::FORBIDDEN, SWITCHED_OFF));
    }
    if !asked.request.is_for(&session.user_id) {
        let description = "Another person signed in than id_token_hint names.";
        let error = RedirectError { error: "login_required", description };
        return Ok(redirect_error(idp, &asked.request, error));
    }
    if !asked.request.is_met_by(&session.authentication.acr) {
        let description = "The essential acr of this request cannot be reached here.";
        let error = RedirectError { error: "unmet_authentication_requirements", description };
        return Ok(redirect_error(idp, &asked.request, error));
    }
    if asked.only_for.as_ref().is_some_and(|owner| *owner != session.user_id) {
        let description = "This installation was enrolled by another person.";
        let error = RedirectError { error: "access_denied", description };
        return Ok(redirect_error(idp, &asked.request, error));
    }
    let event = AuditEvent::granted(RequestEvent::Authorize, now)
        .person(&session.user_id)
        .client(&asked.request.client_id)
        .with(Detail::Session, session.sid.as_str())
        .with(Detail::RequestId, request_id);
    let code = AuthorizationCode {
        sid: session.sid.clone(),
        family: authority.context.entropy.id(),
        expires_at: now.plus(CODE_LIFETIME),
        request: asked.request,
    };
    let kept = authority
        .store
        .keep_authorization_code(&secret.hash(), &code, asked.pushed.as_deref(), event, now)
        .await?;
    if !kept {
        let text = PageError::PushedRequest.to_string();
        return Ok(error_page(StatusCode::BAD_REQUEST, &text));
    }
    let request = &code.request;
    let parameters = [("code", secret.expose())];
    Ok(back_to(idp.issuer(), &request.redirect_uri, request.state.as_deref(), &parameters))
}

fn redirect_error(
    idp: &Idp,
    request: &AuthorizationRequest,
    error: RedirectError,
) -> Response<Body> {
    let parameters = [("error", error.error), ("error_description", error.description)];
    back_to(idp.issuer(), &request.redirect_uri, request.state.as_deref(), &parameters)
}

/// The live session of a browser.
pub(super) async fn session_of(
    idp: &Idp,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Option<Session>, StoreError> {
    match cookie(headers, &cookie_name(idp.issuer(), "session")) {
        Some(value) => idp.0.authority.store.session(&Secret::new(value).hash(), now).await,
        None => Ok(None),
    }
}
