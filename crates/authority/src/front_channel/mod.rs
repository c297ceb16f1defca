//! The front channel of an authorization server: a browser arrives with an authorization request
//! and leaves with a code. IdP and RAS share these steps: the request is parsed; the person is
//! taken from this browser's session, or signs in; they consent, if the party asks for consent; a
//! code is stored. The party supplies its part of the parsing, how people sign in, and whether they
//! are asked ([`FrontChannel`]).
//!
//! Nothing is stored before the person has signed in: each page posts back to the URL it was served
//! from, and the request is parsed and checked again.

pub mod upstream;

use crate::{
    admission::{Admission, Sender, Taken, Visitor},
    answer::{Failure, broken, error_page},
    authority::{Authority, Directory, Look, RegisteredClient, Snapshot},
    browser::{back_to, busy_page, cookie, cookie_name, is_same_origin, set_cookie},
    origin::origin_of,
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderMap, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::authorize::{
        AuthorizationRequest, CODE_LIFETIME, PageError, RedirectError, Unauthorizable,
    },
    oauth::form::Form,
    others_text::shown,
    refusal::Refusal,
    secret::{Secret, equal_in_constant_time, mac},
    time::{SKEW, Timestamp},
};
use passavant_store::{AuditEvent, AuthorizationCode, EntryOutcome, Session, StoreError, UsedJti};
use std::{future::Future, sync::Arc};

/// How long a consent page stays valid, in seconds.
const LONGEST_ASKED: i64 = 600;
const TOO_OLD: &str = "This page has expired or was used already, or you are no longer signed in. Start again in the \
                       application.";
const LOGIN_REQUIRED: RedirectError = RedirectError {
    error: "login_required",
    description: "prompt=none was requested, but no user is signed in, or another one is.",
};

/// An authorization request that was parsed and checked.
pub struct ReadRequest<A> {
    pub request: AuthorizationRequest,
    pub client: Arc<RegisteredClient>,
    /// The hash of the pushed request that it refers to.
    pub pushed: Option<String>,
    /// The path and query it arrived with, which its pages post to.
    pub target: String,
    /// The part of the request that only this party reads.
    pub about: A,
}

/// A person who is signed in with this browser.
pub struct Person<W> {
    pub session: Session,
    /// The secret of their session cookie, which pages are bound to.
    pub cookie: String,
    pub who: W,
}

/// Fields of a consent page that tie the answer to it.
pub struct Ticket {
    /// Posted as `ticket`.
    pub id: String,
    /// Posted as `csrf`.
    pub proof: String,
}

/// The result of a sign-in step.
pub enum Proof<W> {
    /// Not finished: a page, or a redirect to the identity provider that signs people in.
    Under(Response<Body>),
    /// Somebody has signed in for this request. Contains the cookies that their browser gets.
    Given(Box<Person<W>>, Cookies),
}

/// Cookies to set: names, values, lifetimes in seconds.
pub type Cookies = Vec<(&'static str, Secret, i64)>;

/// What a party reads from a request.
pub struct Reading<A> {
    pub request: AuthorizationRequest,
    pub pushed: Option<String>,
    pub about: A,
}

/// Why a request could not be parsed.
pub enum Unread {
    Not(Unauthorizable),
    Broken(StoreError),
}

impl From<Unauthorizable> for Unread {
    fn from(why: Unauthorizable) -> Self {
        Self::Not(why)
    }
}

impl From<PageError> for Unread {
    fn from(error: PageError) -> Self {
        Self::Not(Unauthorizable::Page(error))
    }
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

/// What an authorization server adds to the shared steps.
pub trait FrontChannel: Clone + Send + Sync + 'static {
    type Directory: Directory;
    /// What it reads from a request beyond the shared parameters.
    type About: Send + Sync;
    /// What it knows about a person who has signed in.
    type Who: Send + Sync;

    fn authority(&self) -> &Authority<Self::Directory>;
    fn admission(&self) -> &Admission;

    /// The names of its cookies. Browsers do not separate cookies by port, so that several servers
    /// on one host need different names.
    fn cookie_name(&self, name: &str) -> String;

    /// Why nobody can sign in here at all, in words for the person.
    fn closed(&self, _directory: &Self::Directory) -> Option<&'static str> {
        None
    }

    /// Parses a request of an enabled client.
    fn read(
        &self,
        snapshot: &Snapshot<Self::Directory>,
        form: &Form,
        client: &RegisteredClient,
    ) -> impl Future<Output = Result<Reading<Self::About>, Unread>> + Send;

    /// The values that exist here. They go into the record of a request that asked for something
    /// unknown.
    fn known(&self, _directory: &Self::Directory) -> String {
        String::new()
    }

    /// The person of a session, if they are still allowed to sign in.
    fn who(
        &self,
        session: &Session,
    ) -> impl Future<Output = Result<Option<Self::Who>, StoreError>> + Send;

    /// Whether another sign-in could serve the request better than the one that this person has.
    fn could_do_more(&self, _: &ReadRequest<Self::About>, _: &Person<Self::Who>) -> bool {
        false
    }

    /// Signs a person in: first without a form, then with the form they sent.
    fn prove(
        &self,
        read: &ReadRequest<Self::About>,
        form: Option<&Form>,
        parts: &Parts,
    ) -> impl Future<Output = Result<Proof<Self::Who>, Response<Body>>> + Send;

    /// Whether a person who is signed in has to be asked. Then: the error for the client if asking
    /// is not allowed.
    fn asks(&self, read: &ReadRequest<Self::About>) -> Option<RedirectError>;

    /// The consent page. It is shown every time; no consent is remembered.
    fn ask(
        &self,
        read: &ReadRequest<Self::About>,
        person: &Person<Self::Who>,
        ticket: &Ticket,
    ) -> Response<Body>;

    /// Whether this person may use this client; the last check before a code is issued.
    fn admit(
        &self,
        read: &ReadRequest<Self::About>,
        person: &Person<Self::Who>,
    ) -> impl Future<Output = Result<(), Response<Body>>> + Send;
}

/// GET: with a live session the request proceeds at once; otherwise the sign-in starts.
pub async fn begin<F: FrontChannel>(State(front): State<F>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match begun(&front, &parts).await {
        Ok(response) | Err(response) => response,
    }
}

async fn begun<F: FrontChannel>(
    front: &F,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let read = read(front, parts).await?;
    match person(front, &read, parts).await? {
        Some(person) if read.request.silent || !front.could_do_more(&read, &person) => {
            agree(front, read, person, parts).await
        }
        None if read.request.silent => Err(not_now(front, &read, LOGIN_REQUIRED)),
        Some(_) | None => prove(front, read, None, parts).await,
    }
}

/// POST: the form of one of our pages, which carries its request in the URL; or an authorization
/// request that is itself posted (OpenID Connect Core 3.1.2.1).
pub async fn answer<F: FrontChannel>(State(front): State<F>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match answered(&front, &parts, body).await {
        Ok(response) | Err(response) => response,
    }
}

async fn answered<F: FrontChannel>(
    front: &F,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>, Response<Body>> {
    let issuer = &front.authority().issuer;
    let itself = parts.uri.query().is_none_or(str::is_empty);
    let read = if itself { None } else { Some(read(front, parts).await?) };
    if !itself && !is_same_origin(issuer, &parts.headers) {
        return Err(error_page(StatusCode::FORBIDDEN, "The form was sent from another site."));
    }
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let Some(read) = read else { return posted(issuer, &bytes) };
    let form = Form::parse(&bytes)
        .map_err(|_| error_page(StatusCode::BAD_REQUEST, "The form cannot be read."))?;
    let answer = form.optional("answer");
    if form.mentions("ticket") {
        let yes = matches!(answer, Some("allow" | "go_on"));
        return said(front, read, &form, yes, parts).await;
    }
    if answer == Some("cancel") {
        // This ends nothing but this request, whoever sends it.
        let description = "The user cancelled the sign-in.";
        return Err(not_now(front, &read, RedirectError { error: "access_denied", description }));
    }
    prove(front, read, Some(&form), parts).await
}

/// Parameters that are carried over from POST to GET: everything that the endpoint reads or
/// returns.
const PARAMETERS: [&str; 20] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "prompt",
    "max_age",
    "acr_values",
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

/// Longest query that is carried over from POST to GET, in bytes: browsers and proxies accept URLs
/// of this length.
const LONGEST_QUERY: usize = 8 * 1024;

/// A posted request is redirected to the same request by GET, because a browser sends its cookies
/// along with that.
fn posted(issuer: &Issuer, bytes: &[u8]) -> Result<Response<Body>, Response<Body>> {
    let query = (bytes.len() <= LONGEST_QUERY).then(|| Form::parse(bytes).ok()).flatten();
    let query = query.map(|form| form.only(&PARAMETERS)).filter(|query| !query.is_empty());
    let unreadable = || error_page(StatusCode::BAD_REQUEST, &PageError::Unreadable.to_string());
    let location = issuer.endpoint(&format!("/authorize?{}", query.ok_or_else(unreadable)?));
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}

/// Parses a plain or pushed request. A refused one is recorded, after a cell was taken for it.
async fn read<F: FrontChannel>(
    front: &F,
    parts: &Parts,
) -> Result<ReadRequest<F::About>, Response<Body>> {
    let authority = front.authority();
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    if let Some(why) = front.closed(&snapshot.directory) {
        return Err(error_page(StatusCode::BAD_REQUEST, why));
    }
    let page = |error: PageError| error_page(StatusCode::BAD_REQUEST, &error.to_string());
    let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .map_err(|_| page(PageError::Unreadable))?;
    let (request_id, address) = origin_of(parts);
    let visitor = Visitor { admission: front.admission(), address: &address };
    let id = form.optional("client_id").unwrap_or_default();
    let found = authority.visiting_client(&snapshot.directory, id, visitor, Look::Now).await;
    let client = match found {
        Ok((Some(client), taken)) => {
            taken.into_iter().for_each(Taken::give_back);
            client
        }
        Err(Failure::Broken(error)) => return Err(broken(&error)),
        Err(Failure::Busy(seconds)) => return Err(busy_page(seconds)),
        outcome => {
            let why = match &outcome {
                Err(Failure::Refused(Refusal::ClientDocument(why))) => why.to_string(),
                _ => "no such client, or one that is switched off".to_owned(),
            };
            let id = if id.is_empty() { "nothing" } else { id };
            let said = ("authorize.client", format!("client_id {id}: {why}"));
            let text = format!("{} It calls itself {}.", PageError::Client, shown(id, 200));
            on_record(authority, visitor, (&request_id, None), said).await?;
            return Err(with_reference(&text, &request_id));
        }
    };
    let who = (request_id.as_str(), Some(client.record.id.as_str()));
    match front.read(&snapshot, &form, &client).await {
        Ok(Reading { request, pushed, about }) => {
            let target = parts.uri.path_and_query().map_or("", |target| target.as_str()).to_owned();
            Ok(ReadRequest { request, client, pushed, target, about })
        }
        Err(Unread::Broken(error)) => Err(broken(&error)),
        Err(Unread::Not(Unauthorizable::Page(error))) => {
            let said = match error {
                PageError::Client => ("authorize.client", format!("client_id {id}")),
                PageError::RedirectUri => {
                    let uri = form.optional("redirect_uri").unwrap_or("nothing");
                    ("authorize.redirect_uri", format!("redirect_uri {uri}"))
                }
                PageError::PushedRequest | PageError::Unreadable => {
                    ("authorize.request", error.to_string())
                }
            };
            on_record(authority, visitor, who, said).await?;
            Err(with_reference(&error.to_string(), &request_id))
        }
        Err(Unread::Not(Unauthorizable::Redirect { redirect_uri, state, error })) => {
            let said = ("authorize.request", told(&form, &front.known(&snapshot.directory), error));
            on_record(authority, visitor, who, said).await?;
            // The redirect URI of a stranger was vouched for by nobody, and no person was asked yet
            // (RFC 9700 section 4.11.2).
            if client.is_stranger() {
                let text = format!(
                    "The application sent an invalid request: {} Contact its developer.",
                    error.description
                );
                return Err(with_reference(&text, &request_id));
            }
            let parameters = [("error", error.error), ("error_description", error.description)];
            Err(back_to(&authority.issuer, &redirect_uri, state.as_deref(), &parameters))
        }
    }
}

/// Records a refused request, with the reason. A cell is taken before the row is written, because
/// anybody can send such requests.
async fn on_record<D: Directory>(
    authority: &Authority<D>,
    visitor: Visitor<'_>,
    (request_id, client): (&str, Option<&str>),
    (reason, detail): (&'static str, String),
) -> Result<(), Response<Body>> {
    let sender = Sender::Unproven(visitor.address.to_owned());
    visitor.admission.refusal(&sender).map_err(|busy| busy_page(busy.0))?;
    let mut event = AuditEvent::granted(RequestEvent::Authorize, authority.now())
        .with(Detail::RequestId, request_id)
        .with(Detail::Address, visitor.address)
        .with(Detail::More, shown(&detail, 500));
    if let Some(client) = client {
        event = event.client(client);
    }
    let noted = authority.store.note(event.refused(reason), authority.now()).await;
    noted.map(|_| ()).map_err(|error| broken(&error))
}

/// An error page with the request id under which the request is recorded.
fn with_reference(text: &str, request_id: &str) -> Response<Body> {
    error_page(StatusCode::BAD_REQUEST, &format!("{text} (Reference for IT: {request_id})"))
}

/// The error, the parameters that arrived, and the values that exist here.
fn told(form: &Form, known: &str, error: RedirectError) -> String {
    let came = ["resource", "scope", "response_type", "code_challenge_method"]
        .into_iter()
        .filter_map(|name| Some(format!("{name} {}", shown(form.optional(name)?, 200))))
        .collect::<Vec<_>>()
        .join(", ");
    let RedirectError { error, description } = error;
    format!("{error}: {description} Sent: {came}. {known}").trim_end().to_owned()
}

/// The live session of a browser, and the secret of its cookie.
pub async fn session<F: FrontChannel>(
    front: &F,
    headers: &HeaderMap,
) -> Result<Option<(Session, String)>, StoreError> {
    let Some(secret) = kept(front, headers, "session") else { return Ok(None) };
    let authority = front.authority();
    let hash = Secret::new(secret.as_str()).hash();
    let session = authority.store.session(&hash, authority.now()).await?;
    Ok(session.map(|session| (session, secret)))
}

/// The person who is signed in with this browser, if their session satisfies the request.
async fn person<F: FrontChannel>(
    front: &F,
    read: &ReadRequest<F::About>,
    parts: &Parts,
) -> Result<Option<Person<F::Who>>, Response<Body>> {
    let now = front.authority().now();
    let person = anyone(front, read, parts).await?;
    let recent = |auth_time: Timestamp| read.request.is_served_by(auth_time, now);
    Ok(person.filter(|person| recent(person.session.authentication.auth_time)))
}

/// The person who is signed in with this browser, if the request may be for them.
async fn anyone<F: FrontChannel>(
    front: &F,
    read: &ReadRequest<F::About>,
    parts: &Parts,
) -> Result<Option<Person<F::Who>>, Response<Body>> {
    let held = session(front, &parts.headers).await.map_err(|e| broken(&e))?;
    let held = held.filter(|(session, _)| read.request.is_for(&session.user_id));
    let Some((session, cookie)) = held else { return Ok(None) };
    let who = front.who(&session).await.map_err(|e| broken(&e))?;
    Ok(who.map(|who| Person { session, cookie, who }))
}

/// Answers the client before any person was asked. The redirect URI of a stranger was vouched for
/// by nobody, so that nothing is sent there before a person has consented.
fn not_now<F: FrontChannel>(
    front: &F,
    read: &ReadRequest<F::About>,
    error: RedirectError,
) -> Response<Body> {
    if read.client.is_stranger() {
        let text = "The application that sent you here has to let you sign in. Start again in the application.";
        return error_page(StatusCode::BAD_REQUEST, text);
    }
    tell(front, &read.request, error)
}

fn tell<F: FrontChannel>(
    front: &F,
    request: &AuthorizationRequest,
    error: RedirectError,
) -> Response<Body> {
    let parameters = [("error", error.error), ("error_description", error.description)];
    let issuer = &front.authority().issuer;
    back_to(issuer, &request.redirect_uri, request.state.as_deref(), &parameters)
}

async fn prove<F: FrontChannel>(
    front: &F,
    read: ReadRequest<F::About>,
    form: Option<&Form>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    match front.prove(&read, form, parts).await? {
        Proof::Under(response) => Ok(response),
        // The person has just signed in in order to continue to this client.
        Proof::Given(person, cookies) => {
            let (Ok(mut response) | Err(mut response)) = leave(front, read, &person, parts).await;
            keep_all(front, &mut response, cookies);
            Ok(response)
        }
    }
}

/// Continues with the request that a person has just signed in for elsewhere. They are asked if the
/// party asks: no page of ours may have told them which application it is for.
pub async fn go_on<F: FrontChannel>(
    front: &F,
    (parts, target): (&Parts, &str),
    (person, cookies): (Person<F::Who>, Cookies),
) -> Response<Body> {
    let mut parts = parts.clone();
    let Ok(uri) = target.parse() else {
        return error_page(StatusCode::BAD_REQUEST, &PageError::Unreadable.to_string());
    };
    parts.uri = uri;
    let went = match read(front, &parts).await {
        Ok(read) => agree(front, read, person, &parts).await,
        Err(response) => Err(response),
    };
    let (Ok(mut response) | Err(mut response)) = went;
    keep_all(front, &mut response, cookies);
    response
}

async fn agree<F: FrontChannel>(
    front: &F,
    read: ReadRequest<F::About>,
    person: Person<F::Who>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let Some(unasked) = front.asks(&read) else {
        return leave(front, read, &person, parts).await;
    };
    if read.request.silent && !read.client.is_stranger() {
        return Err(tell(front, &read.request, unasked));
    }
    let authority = front.authority();
    let id = format!("{}.{}", authority.now().0, authority.context.entropy.id());
    let proof = proof_of(&person, &read, &id);
    Ok(front.ask(&read, &person, &Ticket { id, proof }))
}

/// The MAC that ties an answer to its page, request and browser.
fn proof_of<A, W>(person: &Person<W>, read: &ReadRequest<A>, ticket: &str) -> String {
    let session = &person.session.sid;
    let text = format!("consent {} {ticket} {session} {}", ticket.len(), read.target);
    mac(person.cookie.as_bytes(), text.as_bytes())
}

/// Handles the person's answer to the consent page.
async fn said<F: FrontChannel>(
    front: &F,
    read: ReadRequest<F::About>,
    form: &Form,
    yes: bool,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let old = || error_page(StatusCode::FORBIDDEN, TOO_OLD);
    let authority = front.authority();
    let now = authority.now();
    // Whether the sign-in was recent enough was decided when the page was made.
    let person = anyone(front, &read, parts).await?.ok_or_else(old)?;
    let ticket = form.optional("ticket").unwrap_or_default();
    let proof = form.optional("csrf").unwrap_or_default();
    let (made, id) = ticket.split_once('.').ok_or_else(old)?;
    let made = made.parse().map(Timestamp).map_err(|_| old())?;
    // The clock of another node may be slightly ahead.
    let fresh = now.since(made) <= LONGEST_ASKED && now.since(made) >= -SKEW;
    if !fresh || !equal_in_constant_time(proof, &proof_of(&person, &read, ticket)) {
        return Err(old());
    }
    // Each page can be answered once.
    let used = UsedJti {
        namespace: "consent".to_owned(),
        jti: id.chars().take(100).collect(),
        forget_after: made.plus(LONGEST_ASKED + 60),
    };
    let first = authority.store.remember_jti(used, now).await.map_err(|e| broken(&e))?;
    if first != EntryOutcome::Recorded {
        return Err(old());
    }
    if yes {
        return leave(front, read, &person, parts).await;
    }
    let event = event(&read, &person, now, parts).refused("consent.denied");
    authority.store.note(event, now).await.map_err(|e| broken(&e))?;
    let description = "The user denied the request.";
    Err(tell(front, &read.request, RedirectError { error: "access_denied", description }))
}

fn event<A, W>(
    read: &ReadRequest<A>,
    person: &Person<W>,
    now: Timestamp,
    parts: &Parts,
) -> AuditEvent {
    let mut event = AuditEvent::granted(RequestEvent::Authorize, now)
        .person(&person.session.user_id)
        .client(&read.request.client_id)
        .with(Detail::Session, person.session.sid.as_str())
        .with(Detail::RequestId, origin_of(parts).0);
    if let Some(resource) = &read.request.resource {
        event = event
            .with(Detail::Resource, resource.as_str())
            .with(Detail::Scope, read.request.scopes.to_string());
    }
    match &person.session.authentication.issuer {
        Some(issuer) => event.with(Detail::Issuer, issuer.as_str()),
        None => event,
    }
}

/// The error for the client if this person, or the way they signed in, is not acceptable. It is
/// recorded.
async fn unfit<F: FrontChannel>(
    front: &F,
    read: &ReadRequest<F::About>,
    person: &Person<F::Who>,
    parts: &Parts,
    (reason, error): (&'static str, RedirectError),
) -> Response<Body> {
    let authority = front.authority();
    let now = authority.now();
    let event = event(read, person, now, parts).refused(reason);
    match authority.store.note(event, now).await {
        Ok(_) => tell(front, &read.request, error),
        Err(error) => broken(&error),
    }
}

/// Stores a code and redirects the browser with it. 303, so that the browser does not post the form
/// again.
async fn leave<F: FrontChannel>(
    front: &F,
    read: ReadRequest<F::About>,
    person: &Person<F::Who>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = front.authority();
    let now = authority.now();
    if !read.request.is_for(&person.session.user_id) {
        let description = "Another person signed in than id_token_hint names.";
        let error = RedirectError { error: "login_required", description };
        return Err(unfit(front, &read, person, parts, ("authorize.subject", error)).await);
    }
    if !read.request.is_met_by(&person.session.authentication.acr) {
        let description = "The essential acr of this request cannot be reached here.";
        let error = RedirectError { error: "unmet_authentication_requirements", description };
        return Err(unfit(front, &read, person, parts, ("authorize.acr", error)).await);
    }
    if !read.client.acts_for(&person.session.user_id) {
        let description = "This installation was enrolled by another person.";
        let error = RedirectError { error: "access_denied", description };
        return Err(unfit(front, &read, person, parts, ("authorize.installation", error)).await);
    }
    front.admit(&read, person).await?;
    let event = event(&read, person, now, parts);
    let secret = authority.context.entropy.secret();
    let code = AuthorizationCode {
        sid: person.session.sid.clone(),
        family: authority.context.entropy.id(),
        expires_at: now.plus(CODE_LIFETIME),
        request: read.request,
    };
    let pushed = read.pushed.as_deref();
    let store = &authority.store;
    let kept = store.keep_authorization_code(&secret.hash(), &code, pushed, event, now).await;
    if !kept.map_err(|e| broken(&e))? {
        let text = PageError::PushedRequest.to_string();
        return Err(error_page(StatusCode::BAD_REQUEST, &text));
    }
    let request = &code.request;
    let (state, parameters) = (request.state.as_deref(), [("code", secret.expose())]);
    Ok(back_to(&authority.issuer, &request.redirect_uri, state, &parameters))
}

/// The value of one of this party's cookies.
pub fn kept<F: FrontChannel>(front: &F, headers: &HeaderMap, name: &str) -> Option<String> {
    cookie(headers, &cookie_name(&front.authority().issuer, &front.cookie_name(name)))
}

/// Sets one of this party's cookies.
pub fn keep<F: FrontChannel>(
    front: &F,
    response: &mut Response<Body>,
    name: &str,
    value: &str,
    lifetime: i64,
) {
    set_cookie(&front.authority().issuer, response, &front.cookie_name(name), value, lifetime);
}

/// Sets several cookies.
pub fn keep_all<F: FrontChannel>(front: &F, response: &mut Response<Body>, cookies: Cookies) {
    for (name, value, lifetime) in cookies {
        keep(front, response, name, value.expose(), lifetime);
    }
}
