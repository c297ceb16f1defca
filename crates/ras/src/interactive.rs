//! For people and clients without cross-app access: sign-in at the trusted issuer, then a page that says who wants
//! what, then a code. Nothing is kept before somebody has signed in; the page posts back to the very URL it came
//! from, and the request is read and checked again.

use super::{
    asked::{Asked, Person},
    consent_page,
    directory::{Linked, RasDirectory},
    jwt_bearer::{Who, resolve},
    state::Ras,
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderMap, Response, StatusCode, request::Parts},
    response::IntoResponse,
};
use passavant_authority::{
    admission::Taken,
    admission::Visitor,
    answer::{Failure, broken, error_page},
    authority::Look,
    browser::{
        self, back_to, busy_page, cookie, cookie_name, cookies_of, is_same_origin, see_other,
        set_cookie,
    },
    origin::origin_of,
};
use passavant_outbound::{SignInFlow, SignInWishes};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::authorize::{
        self, AuthorizationRequest, CODE_LIFETIME, Offer, PageError, RedirectError, Unauthorizable,
    },
    oauth::client::Client,
    oauth::form::Form,
    oidc::id_token::SignedIn,
    oidc::sign_in_state::{self, SignInState},
    others_text::shown,
    refusal::Refusal,
    secret::{Secret, equal_in_constant_time, mac, sha256},
    time::{SKEW, Timestamp},
    xaa::trust::TrustedIssuer,
};
use passavant_store::{AuditEvent, AuthorizationCode, EntryOutcome, Session, StoreError, UsedJti};
use std::sync::Arc;

/// How long a browser that has signed in may go on to the page that asks, in seconds. Short: the issuer's own
/// session is the one that counts.
const SESSION: i64 = 600;
/// Programs that registered themselves, and that one person may have let in.
const LET_IN: usize = 50;
/// Longest cookie that browsers keep, in bytes, less its name and attributes.
const LONGEST_COOKIE: usize = 3800;

/// Names of this authorization server's cookies: on one host with others (another port is the same host to a
/// browser) they must not be taken for each other's.
fn named(ras: &Ras, name: &str) -> String {
    let own = sha256(ras.issuer().as_str().as_bytes());
    format!("{}-{name}", &own[..8])
}

/// The value of a cookie of ours.
fn kept(ras: &Ras, headers: &HeaderMap, name: &str) -> Option<String> {
    cookie(headers, &cookie_name(ras.issuer(), &named(ras, name)))
}

/// Sets a cookie of ours.
fn keep(ras: &Ras, response: &mut Response<Body>, name: &str, value: &str, lifetime: i64) {
    set_cookie(ras.issuer(), response, &named(ras, name), value, lifetime);
}

fn flow_name(state: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    format!("flow-{}", state.chars().filter(plain).take(8).collect::<String>())
}

/// GET /authorize.
pub(super) async fn begin(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match begun(&ras, &parts).await {
        Ok(response) | Err(response) => response,
    }
}

async fn begun(ras: &Ras, parts: &Parts) -> Result<Response<Body>, Response<Body>> {
    let asked = read(ras, parts).await?;
    let now = ras.0.authority.now();
    let person = person(ras, &parts.headers, now).await.map_err(|e| broken(&e))?;
    match person {
        Some(person)
            if asked.request.is_served_by(person.session.authentication.auth_time, now) =>
        {
            if asked.request.silent && !asked.client.is_stranger() {
                let description = "prompt=none was asked for, and a person has to agree.";
                return Err(error(ras, &asked.request, "consent_required", description));
            }
            // Of a stranger nobody has checked where it returns to: nothing goes there before somebody has agreed.
            Ok(ask(ras, &asked, &person, now))
        }
        _ if asked.request.silent && asked.client.is_stranger() => {
            let text = "The program that sent you here has to ask you. Start again in it.";
            Err(error_page(StatusCode::BAD_REQUEST, text))
        }
        _ if asked.request.silent => {
            let description = "prompt=none was asked for, and nobody is signed in.";
            Err(error(ras, &asked.request, "login_required", description))
        }
        _ => route(ras, &asked, asked.request.login_hint.as_deref(), parts).await,
    }
}

/// POST /authorize: which company, or the answer of the person.
pub(super) async fn answer(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match answered(&ras, &parts, body).await {
        Ok(response) | Err(response) => response,
    }
}

async fn answered(ras: &Ras, parts: &Parts, body: Body) -> Result<Response<Body>, Response<Body>> {
    let forbidden = |text: &str| error_page(StatusCode::FORBIDDEN, text);
    let asked = read(ras, parts).await?;
    if !is_same_origin(ras.issuer(), &parts.headers) {
        return Err(forbidden("The form was sent from another site."));
    }
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let form = Form::parse(&bytes)
        .map_err(|_| error_page(StatusCode::BAD_REQUEST, "The form cannot be read."))?;
    if let Some(email) = form.optional("email") {
        return route(ras, &asked, Some(email.trim()), parts).await;
    }
    let authority = &ras.0.authority;
    let now = authority.now();
    let old = "The page is too old, or was used already. Start again in the application.";
    let person = person(ras, &parts.headers, now).await.map_err(|e| broken(&e))?;
    let person = person.ok_or_else(|| forbidden(old))?;
    let ticket = form.optional("ticket").unwrap_or_default();
    let proof = form.optional("csrf").unwrap_or_default();
    let (made, id) = ticket.split_once('.').ok_or_else(|| forbidden(old))?;
    let made = made.parse().map(Timestamp).map_err(|_| forbidden(old))?;
    let fresh = now.since(made) <= SESSION && now.since(made) >= 0;
    if !fresh || !equal_in_constant_time(proof, &proof_of(&person, &asked, ticket)) {
        return Err(forbidden(old));
    }
    // One page, one answer (E19).
    let used = UsedJti {
        namespace: "consent".to_owned(),
        jti: id.chars().take(100).collect(),
        forget_after: made.plus(SESSION + 60),
    };
    let first = authority.store.remember_jti(used, now).await.map_err(|e| broken(&e))?;
    if first != EntryOutcome::Recorded {
        return Err(forbidden(old));
    }
    if form.optional("answer") == Some("allow") {
        return issue_code(ras, asked, &person, parts).await;
    }
    let (request_id, _) = origin_of(parts);
    let event = event(&asked, &person, now, request_id).refused("consent.denied");
    authority.store.note(event, now).await.map_err(|e| broken(&e))?;
    Err(error(ras, &asked.request, "access_denied", "The person said no."))
}

/// Reads and checks a request; without an issuer that people may sign in at there is none.
async fn read(ras: &Ras, parts: &Parts) -> Result<Asked, Response<Body>> {
    let uri = &parts.uri;
    let page = |error: PageError| error_page(StatusCode::BAD_REQUEST, &error.to_string());
    let authority = &ras.0.authority;
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let directory = &snapshot.directory;
    if directory.interactive().next().is_none() {
        let text = "There is no sign-in here: access to these MCP servers comes from your company's \
                    identity provider, through a client with cross-app access, or through the bridge that \
                    `passavant install` sets up in yours. Ask IT if you do not have it.";
        return Err(error_page(StatusCode::BAD_REQUEST, text));
    }
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes())
        .map_err(|_| page(PageError::Unreadable))?;
    let id = form.optional("client_id").ok_or_else(|| page(PageError::Client))?;
    // A cell is taken where a document has to be fetched: anyone can make up its URL.
    let (_, address) = origin_of(parts);
    let visitor = Visitor { admission: &ras.0.admission, address: &address };
    let (request_id, _) = origin_of(parts);
    let refuse = async |client: Option<&Client>,
                        (reason, detail): (&'static str, String),
                        page: Option<&str>| {
        browser::refused(authority, visitor, (&request_id, client), (reason, &detail), page).await
    };
    let client = match authority.visiting_client(directory, id, visitor, Look::Now).await {
        Ok((Some(client), taken)) => {
            taken.into_iter().for_each(Taken::give_back);
            client.record.clone()
        }
        Err(Failure::Broken(error)) => return Err(broken(&error)),
        Err(Failure::Busy(seconds)) => return Err(busy_page(seconds)),
        outcome => {
            let why = match &outcome {
                Err(Failure::Refused(Refusal::ClientDocument(why))) => why.to_string(),
                _ => "no such client, or one that is switched off".to_owned(),
            };
            let said = ("authorize.client", format!("client_id {id}: {why}"));
            let text = format!("{} It calls itself {}.", PageError::Client, shown(id, 200));
            return Err(refuse(None, said, Some(&text))
                .await
                .unwrap_or_else(|| page(PageError::Client)));
        }
    };
    match authorize::read(&form, &client, Offer::Resources(&directory.governed)) {
        Ok(request) => {
            let governed = directory.governed.iter().find(|governed| {
                request.resource.as_ref().is_some_and(|resource| *resource == governed.resource)
            });
            let governed = governed.ok_or_else(|| page(PageError::Unreadable))?.clone();
            let target = uri.path_and_query().map_or("", |target| target.as_str()).to_owned();
            Ok(Asked { request, client, governed, target })
        }
        Err(Unauthorizable::Page(error)) => {
            let uri = form.optional("redirect_uri").unwrap_or("nothing");
            let said = ("authorize.redirect_uri", format!("redirect_uri {uri}"));
            let refused = refuse(Some(&client), said, Some(&error.to_string())).await;
            Err(refused.unwrap_or_else(|| page(error)))
        }
        // Nobody has checked where it returns to, and nobody was asked yet (RFC 9700 section 4.11.2).
        Err(Unauthorizable::Redirect { error, .. }) if client.is_stranger() => {
            let text = format!(
                "The program that sent you here asks for what cannot be: {} Tell those who made it.",
                error.description
            );
            let said = ("authorize.request", told(&form, directory, error));
            let refused = refuse(Some(&client), said, Some(&text)).await;
            Err(refused.unwrap_or_else(|| error_page(StatusCode::BAD_REQUEST, &text)))
        }
        Err(Unauthorizable::Redirect { redirect_uri, state, error }) => {
            let said = ("authorize.request", told(&form, directory, error));
            if let Some(busy) = refuse(Some(&client), said, None).await {
                return Err(busy);
            }
            let parameters = [("error", error.error), ("error_description", error.description)];
            Err(back_to(ras.issuer(), &redirect_uri, state.as_deref(), &parameters))
        }
    }
}

/// What is wrong with a request, what came, and what there is.
fn told(form: &Form, directory: &RasDirectory, error: RedirectError) -> String {
    let known: Vec<&str> = directory
        .governed
        .iter()
        .filter(|governed| !governed.disabled)
        .map(|governed| governed.resource.as_str())
        .take(20)
        .collect();
    let came = ["resource", "scope", "response_type", "code_challenge_method"]
        .into_iter()
        .filter_map(|name| Some(format!("{name} {}", shown(form.optional(name)?, 200))))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "{}: {} Sent: {came}. Known resources: {}",
        error.error,
        error.description,
        known.join(" ")
    )
}

fn error(
    ras: &Ras,
    request: &AuthorizationRequest,
    error: &'static str,
    description: &'static str,
) -> Response<Body> {
    let RedirectError { error, description } = RedirectError { error, description };
    let parameters = [("error", error), ("error_description", description)];
    back_to(ras.issuer(), &request.redirect_uri, request.state.as_deref(), &parameters)
}

/// Who has signed in in this browser, if their account and their issuer still let them.
async fn person(
    ras: &Ras,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Option<Person>, StoreError> {
    let authority = &ras.0.authority;
    let Some(secret) = kept(ras, headers, "session") else { return Ok(None) };
    let session = authority.store.session(&Secret::new(secret.as_str()).hash(), now).await?;
    let Some(session) = session else { return Ok(None) };
    let Some(issuer) = session.authentication.issuer.clone() else { return Ok(None) };
    let snapshot = authority.fresh().await?;
    if snapshot.directory.open_for(&session.authentication).is_none() {
        return Ok(None);
    }
    let Some((account, _)) = ras.live_account(&session.user_id).await? else { return Ok(None) };
    Ok(Some(Person { session, issuer, account, cookie: secret }))
}

/// Sends the browser to the issuer that this person belongs to, or asks for an address first.
async fn route(
    ras: &Ras,
    asked: &Asked,
    email: Option<&str>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let snapshot = ras.0.authority.fresh().await.map_err(|e| broken(&e))?;
    let mut open = snapshot.directory.interactive();
    let by_domain = email.and_then(|email| {
        let takes = |trusted: &&TrustedIssuer| {
            trusted.open_sign_in().is_some_and(|sign_in| sign_in.takes(email))
        };
        let mut taking = snapshot.directory.interactive().filter(takes);
        // A domain of two is nobody's.
        taking.next().filter(|_| taking.next().is_none())
    });
    let only = match (open.next(), open.next()) {
        (Some(_), None) if snapshot.directory.lacks_issuers => None,
        (Some(only), None) if only.open_sign_in().is_some_and(|s| s.domains.is_empty()) => {
            Some(only)
        }
        _ => None,
    };
    match by_domain.or(only) {
        Some(trusted) => send(ras, asked, trusted, email, parts).await,
        None => Ok(consent_page::which_company(asked, email)),
    }
}

async fn send(
    ras: &Ras,
    asked: &Asked,
    trusted: &TrustedIssuer,
    email: Option<&str>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &ras.0.authority;
    let entropy = &authority.context.entropy;
    let now = authority.now();
    let state = SignInState {
        state: entropy.secret().expose().to_owned(),
        nonce: entropy.id(),
        verifier: entropy.secret().expose().to_owned(),
        issuer: trusted.issuer.to_string(),
        // What the sign-in was to be like is seen to when the browser comes back.
        target: without_wishes(&asked.target),
        fresh: asked.request.fresh,
        max_age: asked.request.max_age,
        iss: ras.issuer().to_string(),
        iat: now,
        exp: now.plus(sign_in_state::LIFETIME),
    };
    let redirect_uri = ras.issuer().endpoint("/callback");
    let client_id = trusted.open_sign_in().map_or("", |sign_in| sign_in.client_id.as_str());
    let flow = flow(&state, &trusted.issuer, client_id, &redirect_uri);
    let hint = email.filter(|email| email.contains('@'));
    let wishes = SignInWishes {
        login_hint: hint,
        fresh: asked.request.fresh,
        max_age: asked.request.max_age,
    };
    let url = authority.context.relying_party.authorization_url(flow, wishes).await;
    let url = url.map_err(|error| {
        tracing::warn!(%error, issuer = %trusted.issuer, "people cannot be sent to an issuer");
        let text = "Your company's sign-in does not answer. Try again later, or tell IT.";
        error_page(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let signed = state.sign(&authority.signing());
    if signed.len() > LONGEST_COOKIE {
        let text = "The application's request is too long. Tell those who made it.";
        return Err(error_page(StatusCode::URI_TOO_LONG, text));
    }
    let mut response = see_other(&url);
    for name in flows_to_drop(ras, &parts.headers, now) {
        keep(ras, &mut response, &name, "", 0);
    }
    let name = flow_name(&state.state);
    keep(ras, &mut response, &name, &signed, sign_in_state::LIFETIME);
    Ok(response)
}

/// Sign-ins under way in one browser: a page that begins more of them must not fill its cookies until nothing fits
/// into a request.
const FLOWS: usize = 4;

/// The cookies of earlier sign-ins that have to make room for one more, oldest first.
fn flows_to_drop(ras: &Ras, headers: &HeaderMap, now: Timestamp) -> Vec<String> {
    let prefix = cookie_name(ras.issuer(), &named(ras, "flow-"));
    // It only tells how old they are.
    let keys = ras.0.authority.snapshot().keys.verifying();
    let mut flows: Vec<(Timestamp, String)> = cookies_of(headers, &prefix)
        .map(|(name, value)| {
            let began = SignInState::read(&value, &keys, ras.issuer().as_str(), now);
            (began.map_or(Timestamp(0), |state| state.iat), format!("flow-{name}"))
        })
        .collect();
    flows.sort();
    let most = flows.len().saturating_sub(FLOWS - 1);
    flows.into_iter().take(most).map(|(_, name)| name).collect()
}

/// The request without what the sign-in itself answers.
fn without_wishes(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let kept = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name != "prompt" && name != "max_age");
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
    format!("{path}?{query}")
}

fn flow<'a>(
    state: &'a SignInState,
    issuer: &'a Issuer,
    client_id: &'a str,
    redirect_uri: &'a str,
) -> SignInFlow<'a> {
    SignInFlow {
        issuer,
        client_id,
        redirect_uri,
        state: &state.state,
        nonce: &state.nonce,
        verifier: &state.verifier,
    }
}

/// GET /callback: the browser comes back from the issuer.
pub(super) async fn callback(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let state = form.optional("state").unwrap_or_default().to_owned();
    let mut response = match came_back(&ras, &parts, &form).await {
        Ok(response) | Err(response) => response,
    };
    // Whatever came of it, it is not taken twice.
    if kept(&ras, &parts.headers, &flow_name(&state)).is_some() {
        keep(&ras, &mut response, &flow_name(&state), "", 0);
    }
    response
}

async fn came_back(
    ras: &Ras,
    parts: &Parts,
    form: &Form,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &ras.0.authority;
    let now = authority.now();
    let bad = |text: &str| error_page(StatusCode::BAD_REQUEST, text);
    let old = "This sign-in was not begun in this browser, or too long ago. Start again in the \
               application.";
    // It costs rows, and a request to the company's identity provider; whoever comes back from there owes nothing.
    let (request_id, address) = origin_of(parts);
    let taken = ras.0.admission.unproven(&address).map_err(|busy| busy_page(busy.0))?;
    let sent = form.optional("state").unwrap_or_default();
    let held = kept(ras, &parts.headers, &flow_name(sent)).ok_or_else(|| bad(old))?;
    let keys = authority.verifying().await.map_err(|e| broken(&e))?;
    let state = SignInState::read(&held, &keys, ras.issuer().as_str(), now);
    let state = state.map_err(|_| bad(old))?;
    if !equal_in_constant_time(&state.state, sent) {
        return Err(bad(old));
    }
    // One answer for one sign-in, however often its cookie is presented.
    let first = UsedJti {
        namespace: "sign_in_flow".to_owned(),
        jti: state.state.clone(),
        forget_after: state.exp,
    };
    let first = authority.store.remember_jti(first, now).await.map_err(|e| broken(&e))?;
    if first != EntryOutcome::Recorded {
        return Err(bad(old));
    }
    let event = AuditEvent::granted(RequestEvent::SignIn, now)
        .with(Detail::Issuer, state.issuer.as_str())
        .with(Detail::RequestId, request_id);
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let off = "Sign-in for your company is switched off here. Ask IT.";
    let trusted = snapshot.directory.trusted(&state.issuer).cloned();
    let open = |trusted: &TrustedIssuer| trusted.open_sign_in().is_some();
    let trusted = trusted.filter(open).ok_or_else(|| bad(off))?;
    let signed_in = finish(ras, form, &state, &trusted).await.filter(|signed_in| {
        let at = signed_in.authentication.auth_time;
        let oldest = if state.fresh { Some(0) } else { state.max_age };
        oldest.is_none_or(|age| at >= state.iat.plus(-age - SKEW))
    });
    let Some(signed_in) = signed_in else {
        record(ras, event.refused("sign_in.issuer"), now).await?;
        let text = "The sign-in at your company did not work. Start again in the application; if it \
                    goes on, tell IT.";
        return Err(bad(text));
    };
    let linked = account(ras, &signed_in, &trusted, &event).await?;
    let account = &linked.account;
    let secret = authority.context.entropy.secret();
    let session = Session {
        sid: authority.context.entropy.id(),
        user_id: account.id.clone(),
        authentication: signed_in.authentication,
        expires_at: now.plus(SESSION),
    };
    let event = event.person(&account.id).with(Detail::Session, session.sid.as_str());
    let begun = authority.store.begin_account_session(&secret.hash(), &session, event).await;
    if !begun.map_err(|e| broken(&e))? {
        return Err(error_page(StatusCode::FORBIDDEN, "This account is switched off."));
    }
    taken.give_back();
    let mut response = see_other(&format!("{}{}", ras.issuer().origin(), state.target));
    keep(ras, &mut response, "session", secret.expose(), SESSION);
    Ok(response)
}

/// What the issuer says of who came back; nothing where it says no, or what it says does not hold.
async fn finish(
    ras: &Ras,
    form: &Form,
    state: &SignInState,
    trusted: &TrustedIssuer,
) -> Option<SignedIn> {
    let context = &ras.0.authority.context;
    // What the issuer says in words is not shown: anyone could have written the link.
    let code = form.optional("code")?;
    let redirect_uri = ras.issuer().endpoint("/callback");
    let client_id = trusted.open_sign_in()?.client_id.as_str();
    let flow = flow(state, &trusted.issuer, client_id, &redirect_uri);
    let key = ras.0.authority.signing();
    let iss = form.optional("iss");
    match context.relying_party.finish(flow, code, iss, &key, trusted.algorithm).await {
        Ok(signed_in) => Some(signed_in),
        Err(error) => {
            tracing::warn!(%error, issuer = %trusted.issuer, "a sign-in at an issuer failed");
            None
        }
    }
}

/// The account of somebody who has signed in at their issuer: the same as by an ID-JAG.
async fn account(
    ras: &Ras,
    signed_in: &SignedIn,
    trusted: &TrustedIssuer,
    event: &AuditEvent,
) -> Result<Arc<Linked>, Response<Body>> {
    let authority = &ras.0.authority;
    let who = Who { subject: &signed_in.subject, email: signed_in.email.as_deref() };
    loop {
        let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
        match resolve(ras, &snapshot, who, trusted, event, Look::Now).await {
            Ok(Some(linked)) => return Ok(linked),
            Ok(None) => {}
            Err(Failure::Broken(error)) => return Err(broken(&error)),
            Err(Failure::Busy(seconds)) => return Err(busy_page(seconds)),
            Err(_) => {
                let event = event.clone().with(Detail::Subject, signed_in.subject.as_str());
                record(ras, event.refused("sign_in.account"), authority.now()).await?;
                let text = "You have no account here, or it is switched off. Ask those who run this \
                            MCP server.";
                return Err(error_page(StatusCode::FORBIDDEN, text));
            }
        }
    }
}

async fn record(ras: &Ras, event: AuditEvent, now: Timestamp) -> Result<(), Response<Body>> {
    let done = ras.0.authority.store.note(event, now).await;
    done.map(|_| ()).map_err(|e| broken(&e))
}

/// What ties an answer to the page, the request and the browser it is an answer to (E19, E20, E33).
fn proof_of(person: &Person, asked: &Asked, ticket: &str) -> String {
    let session = &person.session.sid;
    let text = format!("consent {} {ticket} {session} {}", ticket.len(), asked.target);
    mac(person.cookie.as_bytes(), text.as_bytes())
}

/// The page that asks. It is shown every time: nothing is remembered of what a person once said.
fn ask(ras: &Ras, asked: &Asked, person: &Person, now: Timestamp) -> Response<Body> {
    let ticket = format!("{}.{}", now.0, ras.0.authority.context.entropy.id());
    let proof = proof_of(person, asked, &ticket);
    consent_page::consent(asked, person, &ticket, &proof)
}

fn event(asked: &Asked, person: &Person, now: Timestamp, request_id: String) -> AuditEvent {
    AuditEvent::granted(RequestEvent::Authorize, now)
        .person(&person.session.user_id)
        .client(&asked.client.id)
        .with(Detail::Issuer, person.issuer.as_str())
        .with(Detail::Resource, asked.governed.resource.as_str())
        .with(Detail::Scope, asked.request.scopes.to_string())
        .with(Detail::Session, person.session.sid.as_str())
        .with(Detail::RequestId, request_id)
}

async fn issue_code(
    ras: &Ras,
    asked: Asked,
    person: &Person,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &ras.0.authority;
    let now = authority.now();
    let (request_id, _) = origin_of(parts);
    let event = event(&asked, person, now, request_id);
    if asked.client.registered.is_some_and(|registered| !registered.used) {
        // Kept from now on, and counted for whoever let it in: one that nobody lets in is forgotten.
        let event = AuditEvent::granted(RequestEvent::RegistrationUsed, now)
            .client(&asked.client.id)
            .person(&person.session.user_id);
        let account = &person.session.user_id;
        let done = authority.store.let_in(&asked.client.id, account, LET_IN, event).await;
        if !done.map_err(|e| broken(&e))? {
            let text = format!(
                "You have let in {LET_IN} programs that registered themselves, which is as many as one person may. \
                 Those that you do not use any more are forgotten a day after their access ended; ask those who run \
                 this MCP server to remove one sooner."
            );
            return Err(error_page(StatusCode::FORBIDDEN, &text));
        }
    }
    let secret = authority.context.entropy.secret();
    let code = AuthorizationCode {
        sid: person.session.sid.clone(),
        family: authority.context.entropy.id(),
        expires_at: now.plus(CODE_LIFETIME),
        request: asked.request,
    };
    let kept =
        authority.store.keep_authorization_code(&secret.hash(), &code, None, event, now).await;
    kept.map_err(|e| broken(&e))?;
    let request = &code.request;
    let parameters = [("code", secret.expose())];
    Ok(back_to(ras.issuer(), &request.redirect_uri, request.state.as_deref(), &parameters))
}
