//! Sign-in by what this server itself knows of a person: a password, with a one-time password where
//! they have it; a passkey; an administrator's link. The forms of every page that people sign in at
//! are answered here.

use super::{
    page::{self, Problem, Ways, chosen},
    passkey::{self, Refused},
    password::{NotSignedIn, check_password},
    session::{Started, Way, changed, known_browser, start_session},
    upstream::{Asked, send_to},
};
use crate::state::Idp;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::Markup;
use passavant_authority::{
    admission::{Sender, UNDER_WAY},
    answer::{broken, error_page},
    browser::{cookie, cookie_name, csrf_of, see_other},
    front_channel::{keep_all, upstream::Sending},
    origin::origin_of,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::form::Form,
    oidc::{
        authentication::{ACR_MULTI_FACTOR, ACR_PASSKEY, ACR_PASSWORD},
        totp,
    },
    others_text::shown,
    secret::{Secret, equal_in_constant_time, sha256},
};
use passavant_store::{
    AuditEvent, MOST_TOTP_FAILURES, Proved, SealedAt, StoreError, TotpCount, User,
};
use serde::{Deserialize, Serialize};

/// How long a person has for the second factor, in seconds.
const SECOND_LIFETIME: i64 = 300;

const TOO_OLD: &str =
    "The sign-in form is too old, or cookies are switched off. Start again in the application.";
const WRONG_CODE: &str = "That code is wrong, or was used before.";
const WAIT: &str = "Too many wrong codes. Wait a minute, then try again, or use a recovery code.";
const ENDED: &str = "No codes are taken any more, after a hundred wrong ones. Use a recovery code or a passkey, or ask IT for a link.";
const NO_PASSKEY: &str = "That passkey did not work here. Try again, or sign in another way.";

/// The form is shown again: something is wrong, or a second factor is asked for.
pub(crate) struct Again {
    status: StatusCode,
    text: &'static str,
    username: String,
    second: Option<String>,
    wait: Option<u64>,
}

impl Again {
    pub(crate) fn problem(&self) -> Problem<'_> {
        let second = self.second.as_deref();
        Problem { status: self.status, text: self.text, username: &self.username, second }
    }

    /// Says in the answer how long to wait.
    pub(crate) fn in_answer(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some(seconds) = self.wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// What came of a form.
pub(crate) enum Step {
    Again(Again),
    Done(Box<Started>),
}

/// Whether a form is one of those that are answered here.
pub(crate) fn is_ours(form: &Form) -> bool {
    ["password", "passkey", "second"].iter().any(|field| form.mentions(field))
}

/// What has to come back with a second factor: who has proved the first, and as of which password.
#[derive(Serialize, Deserialize)]
struct First {
    user_id: String,
    password: String,
    expires_at: i64,
}

fn mark(user: &User) -> String {
    sha256(user.password_hash.as_deref().unwrap_or_default().as_bytes())
}

fn second_label(cookie: &str) -> String {
    format!("second factor {}", sha256(cookie.as_bytes()))
}

/// Answers a sign-in form.
pub(crate) async fn step(
    idp: &Idp,
    form: &Form,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Step, Response<Body>> {
    let held = cookie(&parts.headers, &cookie_name(idp.issuer(), "signin"));
    let proof = form.optional("csrf").unwrap_or_default();
    let Some(held) = held.filter(|held| equal_in_constant_time(&csrf_of(held), proof)) else {
        return Err(error_page(StatusCode::FORBIDDEN, TOO_OLD));
    };
    let done = if form.mentions("passkey") {
        by_passkey(idp, form, &held, client, parts).await
    } else if form.mentions("second") {
        by_second(idp, form, &held, client, parts).await
    } else {
        by_password(idp, form, &held, client, parts).await
    };
    match done {
        Ok(step) => Ok(step),
        Err(Failed::Broken(error)) => Err(broken(&error)),
        Err(Failed::Changed) => Err(changed()),
    }
}

enum Failed {
    Broken(StoreError),
    Changed,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

async fn begun(
    idp: &Idp,
    user: User,
    way: Way<'_>,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Step, Failed> {
    let started = start_session(idp, &user, way, client, parts).await?.ok_or(Failed::Changed)?;
    Ok(Step::Done(Box::new(started)))
}

async fn by_password(
    idp: &Idp,
    form: &Form,
    cookie: &str,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Step, Failed> {
    let username = form.optional("username").unwrap_or_default();
    let password = Secret::new(form.optional("password").unwrap_or_default());
    let user = match check_password(idp, username, &password, parts).await {
        Ok(user) => user,
        Err(NotSignedIn::Broken(error)) => return Err(error.into()),
        Err(why) => {
            let (status, text, wait) = why.told();
            let username = username.to_owned();
            return Ok(Step::Again(Again { status, text, username, second: None, wait }));
        }
    };
    let authority = &idp.0.authority;
    if authority.store.totp(&user.id).await?.is_none() {
        let way = Way { acr: ACR_PASSWORD, amr: &["pwd"], proved: Proved::Password };
        return begun(idp, user, way, client, parts).await;
    }
    let first = First {
        password: mark(&user),
        expires_at: authority.now().plus(SECOND_LIFETIME).0,
        user_id: user.id,
    };
    let text = serde_json::to_vec(&first).unwrap_or_default();
    let second = authority.context.sealing.seal_passing(&second_label(cookie), &text);
    let second = second.map_err(|why| {
        tracing::error!(why, "a second factor cannot be asked for");
        Failed::Changed
    })?;
    let username = username.to_owned();
    let (status, text) = (StatusCode::OK, "");
    Ok(Step::Again(Again { status, text, username, second: Some(second), wait: None }))
}

/// Who has proved the first factor in this browser a moment ago.
async fn first_of(idp: &Idp, cookie: &str, sealed: &str) -> Result<Option<User>, StoreError> {
    let authority = &idp.0.authority;
    let opened = authority.context.sealing.open_passing(&second_label(cookie), sealed).ok();
    let first = opened.and_then(|text| serde_json::from_slice::<First>(&text).ok());
    let Some(first) = first.filter(|first| first.expires_at > authority.now().0) else {
        return Ok(None);
    };
    let user = authority.store.usable::<User>(&first.user_id).await?;
    Ok(user.filter(|user| !user.is_off() && mark(user) == first.password))
}

async fn by_second(
    idp: &Idp,
    form: &Form,
    cookie: &str,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Step, Failed> {
    let sealed = form.optional("second").unwrap_or_default();
    let again = |status, text, second: bool, wait| {
        let second = second.then(|| sealed.to_owned());
        Step::Again(Again { status, text, username: String::new(), second, wait })
    };
    let Some(user) = first_of(idp, cookie, sealed).await? else {
        let text = "That took too long. Sign in again.";
        return Ok(again(StatusCode::UNAUTHORIZED, text, false, None));
    };
    let authority = &idp.0.authority;
    let store = &authority.store;
    let (request_id, address) = origin_of(parts);
    let known = known_browser(idp, &parts.headers).await?;
    let known = known.and_then(|held| held.of(&user.id, user.password_hash.as_deref()));
    let typed = form.optional("code").unwrap_or_default().trim();
    let amr = ["pwd", "otp", "mfa"];
    let digits: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
    let is_totp = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit());
    let recovery = recovery_hash(typed);
    if !is_totp {
        // It has 100 bits. Others' failures, who have the password and guess, keep nobody's out.
        let proved = Proved::RecoveryCode(&recovery);
        let way = Way { acr: ACR_MULTI_FACTOR, amr: &amr, proved };
        if let Some(started) = start_session(idp, &user, way, client, parts).await? {
            return Ok(Step::Done(Box::new(started)));
        }
        let sender = Sender::Unproven(address.clone());
        if let Err(busy) = idp.0.admission.refusal(&sender) {
            return Ok(again(StatusCode::TOO_MANY_REQUESTS, WAIT, true, Some(busy.0)));
        }
        note_wrong_second(idp, &user, "sign_in.second_factor", (request_id, address)).await?;
        return Ok(again(StatusCode::UNAUTHORIZED, WRONG_CODE, true, None));
    }
    // Before anything is looked at: also by address, so that one sender does not try many people.
    let person = sha256(format!("second {}", user.id).as_bytes());
    let attempt = match idp.0.admission.sign_in(&address, &person, known.as_deref()) {
        Ok(attempt) => attempt,
        Err(busy) => {
            let wait = if busy == UNDER_WAY { 2 } else { busy.0 };
            return Ok(again(StatusCode::TOO_MANY_REQUESTS, WAIT, true, Some(wait)));
        }
    };
    // Counted in the row, for all nodes, before the code is looked at. The cells of one that has to wait
    // stay taken.
    let last = match store.count_totp(&user.id, known.is_some(), authority.now()).await? {
        TotpCount::Wait => {
            drop(attempt);
            return Ok(again(StatusCode::TOO_MANY_REQUESTS, WAIT, true, Some(60)));
        }
        TotpCount::Ended => {
            drop(attempt);
            return Ok(again(StatusCode::UNAUTHORIZED, ENDED, true, None));
        }
        TotpCount::Counted(failures) => failures >= MOST_TOTP_FAILURES,
    };
    let proved = step_of(idp, &user, &digits).await?.map(Proved::Totp);
    if let Some(proved) = proved {
        let way = Way { acr: ACR_MULTI_FACTOR, amr: &amr, proved };
        if let Some(started) = start_session(idp, &user, way, client, parts).await? {
            attempt.right();
            return Ok(Step::Done(Box::new(started)));
        }
    }
    attempt.wrong();
    let reason = if last { "sign_in.second_factor_ended" } else { "sign_in.second_factor" };
    note_wrong_second(idp, &user, reason, (request_id, address)).await?;
    Ok(again(StatusCode::UNAUTHORIZED, WRONG_CODE, true, None))
}

async fn note_wrong_second(
    idp: &Idp,
    user: &User,
    reason: &'static str,
    (request_id, address): (String, String),
) -> Result<(), StoreError> {
    let authority = &idp.0.authority;
    let event = AuditEvent::granted(RequestEvent::SignIn, authority.now())
        .person(&user.id)
        .with(Detail::RequestId, request_id)
        .with(Detail::Address, address)
        .refused(reason);
    authority.store.note(event, authority.now()).await.map(drop)
}

/// The step of a code that is right now, and was not used.
pub(crate) async fn step_of(idp: &Idp, user: &User, code: &str) -> Result<Option<i64>, StoreError> {
    let authority = &idp.0.authority;
    let Some(held) = authority.store.totp(&user.id).await? else { return Ok(None) };
    let Some(seed) = seed_of(idp, &user.id, &held.sealed) else { return Ok(None) };
    Ok(totp::step_of(&seed, code, authority.now().0, held.last_step))
}

/// What a person's seed is sealed for.
pub(crate) fn seed_label(user_id: &str) -> String {
    SealedAt::Seed(user_id.to_owned()).label()
}

fn seed_of(idp: &Idp, user_id: &str, sealed: &str) -> Option<totp::Seed> {
    let opened = idp.0.authority.context.sealing.open(&seed_label(user_id), sealed);
    let opened = opened.inspect_err(|why| {
        tracing::error!(why, user_id, "the seed of one-time passwords cannot be opened");
    });
    opened.ok()?.try_into().ok()
}

/// The hash of a recovery code, as it is written down or typed.
pub(crate) fn recovery_hash(code: &str) -> String {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
    sha256(format!("recovery {}", code.to_ascii_uppercase()).as_bytes())
}

/// A recovery code: 100 bits, in groups of five letters and digits.
pub(crate) fn recovery_code(idp: &Idp) -> String {
    let mut bytes = [0; 13];
    idp.0.authority.context.entropy.fill(&mut bytes);
    let letters = totp::base32(&bytes);
    let groups: Vec<&str> = (0..20).step_by(5).map(|at| &letters[at..at + 5]).collect();
    groups.join("-")
}

async fn by_passkey(
    idp: &Idp,
    form: &Form,
    cookie: &str,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Step, Failed> {
    let again = |status, text, wait| {
        Step::Again(Again { status, text, username: String::new(), second: None, wait })
    };
    let answer = form.optional("passkey").unwrap_or_default();
    if answer.is_empty() {
        let text = "A passkey needs a browser that runs this page's script.";
        return Ok(again(StatusCode::BAD_REQUEST, text, None));
    }
    let authority = &idp.0.authority;
    let (request_id, address) = origin_of(parts);
    let state = form.optional("state").unwrap_or_default();
    // There is nothing to guess in a signature, and whoever has the passkey is kept out by nobody: what
    // fails is counted by its sender, before the row.
    let refused = match passkey::verify(idp, cookie, state, answer).await {
        Ok(proof) => {
            let proved = Proved::Passkey(&proof.passkey, &proof.document, proof.once);
            let way = Way { acr: ACR_PASSKEY, amr: &["swk", "user", "mfa"], proved };
            match start_session(idp, &proof.user, way, client, parts).await? {
                Some(started) => return Ok(Step::Done(Box::new(started))),
                None => Refused::Stale,
            }
        }
        Err(Refused::Broken(error)) => return Err(error.into()),
        Err(refused) => refused,
    };
    if let Err(busy) = idp.0.admission.refusal(&Sender::Unproven(address.clone())) {
        let text = "Too many failed sign-ins. Wait a minute, then try again.";
        return Ok(again(StatusCode::TOO_MANY_REQUESTS, text, Some(busy.0)));
    }
    let event = AuditEvent::granted(RequestEvent::SignIn, authority.now())
        .with(Detail::RequestId, request_id)
        .with(Detail::Address, address)
        .with(Detail::More, shown(&refused.more(), 200))
        .refused(refused.reason());
    authority.store.note(event, authority.now()).await?;
    let text = if matches!(refused, Refused::Stale) {
        "This page waited too long. Try once more."
    } else {
        NO_PASSKEY
    };
    Ok(again(StatusCode::UNAUTHORIZED, text, None))
}

// ---------- pages that people open themselves ----------

/// The sign-in form of a page that somebody opened themselves.
pub(crate) fn form_of(
    idp: &Idp,
    parts: &Parts,
    head: &Markup,
    problem: Option<&Problem<'_>>,
) -> Response<Body> {
    let snapshot = idp.0.authority.snapshot();
    let named = problem.is_some_and(|problem| !problem.username.is_empty());
    let ways = Ways::of(&snapshot.directory, parts, named);
    page::form(idp, &ways, parts, (head, ""), None, problem, &maud::html! {})
}

/// Sends the browser to an upstream, if the person chose one; it comes back to the same page.
pub(crate) async fn chosen_elsewhere(idp: &Idp, parts: &Parts) -> Option<Response<Body>> {
    let name = chosen(parts)?;
    let snapshot = idp.0.authority.snapshot();
    snapshot.directory.upstream(&name)?;
    Some(elsewhere(idp, &name, None, parts).await)
}

async fn elsewhere(idp: &Idp, name: &str, hint: Option<&str>, parts: &Parts) -> Response<Body> {
    let snapshot = idp.0.authority.snapshot();
    let Some(upstream) = snapshot.directory.upstream(name) else { return changed() };
    let target = parts.uri.path();
    let sending = Sending { target, fresh: false, untold_is_fresh: true, max_age: None };
    let asked = Asked { hint, classes: &[], prompt_login: true };
    let (Ok(response) | Err(response)) = send_to(idp, sending, upstream, asked, parts).await;
    response
}

/// Answers the sign-in forms of a page that somebody opened themselves; `None` if the form is none of
/// these. Whoever has signed in comes back to the page.
pub(crate) async fn visit(
    idp: &Idp,
    form: &Form,
    parts: &Parts,
    head: &Markup,
) -> Option<Response<Body>> {
    let username = form.optional("username").map(str::trim).unwrap_or_default();
    if let Some(upstream) = idp.0.authority.snapshot().directory.upstream_for(username) {
        // An address of an upstream leads there, whatever else was typed.
        return Some(elsewhere(idp, &upstream.name, Some(username), parts).await);
    }
    if form.mentions("username") && !is_ours(form) {
        let next = Problem { status: StatusCode::OK, text: "", username, second: None };
        return Some(form_of(idp, parts, head, Some(&next)));
    }
    if !is_ours(form) {
        return None;
    }
    Some(match step(idp, form, None, parts).await {
        Err(response) => response,
        Ok(Step::Again(again)) => {
            again.in_answer(form_of(idp, parts, head, Some(&again.problem())))
        }
        Ok(Step::Done(started)) => {
            let path = parts.uri.path();
            let path = path.strip_prefix(idp.issuer().path()).unwrap_or(path);
            let mut response = see_other(&idp.issuer().endpoint(path));
            keep_all(idp, &mut response, started.cookies(idp));
            response
        }
    })
}

/// A seed for one-time passwords.
pub(crate) fn new_seed(idp: &Idp) -> totp::Seed {
    let mut seed = [0; 20];
    idp.0.authority.context.entropy.fill(&mut seed);
    seed
}

/// A seed in a form that its person has to confirm: sealed for them and this browser.
pub(crate) fn sealed_seed(
    idp: &Idp,
    user_id: &str,
    cookie: &str,
    seed: &totp::Seed,
) -> Option<String> {
    let label = format!("new totp {user_id} {}", sha256(cookie.as_bytes()));
    let expires_at = idp.0.authority.now().plus(900).0;
    let text = format!("{expires_at} {}", URL_SAFE_NO_PAD.encode(seed));
    idp.0.authority.context.sealing.seal_passing(&label, text.as_bytes()).ok()
}

/// The seed that was sealed so.
pub(crate) fn opened_seed(
    idp: &Idp,
    user_id: &str,
    cookie: &str,
    sealed: &str,
) -> Option<totp::Seed> {
    let label = format!("new totp {user_id} {}", sha256(cookie.as_bytes()));
    let text = idp.0.authority.context.sealing.open_passing(&label, sealed).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (expires_at, seed) = text.split_once(' ')?;
    let stands = expires_at.parse::<i64>().ok()? > idp.0.authority.now().0;
    let seed = URL_SAFE_NO_PAD.decode(seed).ok()?;
    stands.then_some(seed)?.try_into().ok()
}
