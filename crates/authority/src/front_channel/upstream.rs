//! Sign-in at another identity provider. The browser is redirected there, and everything that is
//! needed when it returns is in a signed cookie: nothing is stored here before the person has
//! signed in, and any node can continue.

use super::{FrontChannel, keep, kept};
use crate::{
    answer::{broken, error_page},
    browser::{cookie_name, cookies_of, see_other},
};
use axum::{
    body::Body,
    http::{HeaderMap, Response, StatusCode, request::Parts},
};
use passavant_outbound::{
    ClientProof, Registration, Returned, SignInError, SignInFlow, SignInWishes,
};
use passavant_proto::{
    oauth::form::Form,
    oidc::authentication::Authentication,
    oidc::sign_in_state::{self, SignInState},
    others_text::shown,
    secret::equal_in_constant_time,
    time::{SKEW, Timestamp},
};
use passavant_store::{EntryOutcome, UsedJti};

/// Longest cookie value that browsers keep, in bytes, without name and attributes.
const LONGEST_COOKIE: usize = 3800;
/// Concurrent sign-ins in one browser. A page that starts more of them must not fill the browser's
/// cookies until requests become too large.
const FLOWS: usize = 4;

fn flow(state: &SignInState) -> SignInFlow<'_> {
    SignInFlow { state: &state.state, nonce: &state.nonce, verifier: &state.verifier }
}

/// Why a sign-in at another identity provider brought nobody.
#[derive(Debug)]
pub enum NotReturned {
    /// The identity provider, or the person at it, said no: its error code.
    Refused(String),
    /// It does not answer.
    Unreachable,
    /// What came is not a valid response to this sign-in.
    Invalid,
    /// The person did not sign in again although that was required.
    Stale,
}

fn flow_name(state: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    format!("flow-{}", state.chars().filter(plain).take(8).collect::<String>())
}

/// What a browser that is sent there returns to.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// Path and query of the request to continue with.
    pub target: &'a str,
    /// The person has to have signed in anew when they return.
    pub fresh: bool,
    /// It is enough if the identity provider does not tell when they signed in.
    pub untold_is_fresh: bool,
    /// Maximum age of the sign-in when they return, in seconds.
    pub max_age: Option<i64>,
}

/// Redirects the browser there. `name` is the upstream's, if this is the IdP.
pub async fn send<F: FrontChannel>(
    front: &F,
    sending: Sending<'_>,
    (registration, name): (&Registration<'_>, Option<&str>),
    scope: impl FnOnce(&[String]) -> String + Send,
    wishes: SignInWishes<'_>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = front.authority();
    let state = new_state(front, sending, (registration.issuer.as_str(), name));
    let hint = wishes.login_hint.filter(|hint| hint.contains('@'));
    let wishes = SignInWishes { login_hint: hint, ..wishes };
    let relying_party = &authority.context.relying_party;
    let url = relying_party.authorization_url(registration, scope, flow(&state), wishes).await;
    let url = url.map_err(|error| {
        tracing::warn!(%error, issuer = %registration.issuer, "people cannot be sent to the sign-in page of their identity provider");
        let text = "Your company's sign-in does not answer. Try again later, or tell IT.";
        error_page(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    leave(front, &state, see_other(&url), parts)
}

/// A sign-in that begins at another identity provider: its issuer, and its name if it is an upstream.
pub fn new_state<F: FrontChannel>(
    front: &F,
    sending: Sending<'_>,
    (issuer, name): (&str, Option<&str>),
) -> SignInState {
    let authority = front.authority();
    let entropy = &authority.context.entropy;
    let now = authority.now();
    SignInState {
        state: entropy.secret().expose().to_owned(),
        nonce: entropy.id(),
        verifier: entropy.secret().expose().to_owned(),
        issuer: issuer.to_owned(),
        upstream: name.map(str::to_owned),
        // Whether the sign-in is fresh or strong enough is checked when the browser returns.
        target: without_wishes(sending.target),
        fresh: sending.fresh,
        untold_is_fresh: sending.untold_is_fresh,
        max_age: sending.max_age,
        iss: authority.issuer.to_string(),
        iat: now,
        exp: now.plus(sign_in_state::LIFETIME),
    }
}

/// Gives the browser that leaves what it has to bring back.
pub fn leave<F: FrontChannel>(
    front: &F,
    state: &SignInState,
    mut response: Response<Body>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = front.authority();
    let signed = state.sign(&authority.signing());
    if signed.len() > LONGEST_COOKIE {
        let text = "The application's request is too long. Contact its developer.";
        return Err(error_page(StatusCode::URI_TOO_LONG, text));
    }
    for name in flows_to_drop(front, &parts.headers, state.iat) {
        keep(front, &mut response, &name, "", 0);
    }
    let name = flow_name(&state.state);
    keep(front, &mut response, &name, &signed, sign_in_state::LIFETIME);
    Ok(response)
}

/// The cookies of earlier sign-ins that have to be dropped for one more, oldest first.
fn flows_to_drop<F: FrontChannel>(front: &F, headers: &HeaderMap, now: Timestamp) -> Vec<String> {
    let authority = front.authority();
    let prefix = cookie_name(&authority.issuer, &front.cookie_name("flow-"));
    // The state is only read for its age.
    let keys = authority.snapshot().keys.verifying();
    let mut flows: Vec<(Timestamp, String)> = cookies_of(headers, &prefix)
        .map(|(name, value)| {
            let began = SignInState::read(&value, &keys, authority.issuer.as_str(), now);
            (began.map_or(Timestamp(0), |state| state.iat), format!("flow-{name}"))
        })
        .collect();
    flows.sort();
    let most = flows.len().saturating_sub(FLOWS - 1);
    flows.into_iter().take(most).map(|(_, name)| name).collect()
}

/// Parameters that the sign-in itself satisfies. The last one is our own: which button was pressed.
const SATISFIED: [&str; 3] = ["prompt", "max_age", "upstream"];

/// The request without the parameters that the sign-in itself satisfies.
fn without_wishes(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let kept = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| !SATISFIED.contains(&name.as_ref()));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
    format!("{path}?{query}")
}

fn old() -> Response<Body> {
    let text = "This sign-in was not begun in this browser, or too long ago. Start again in the \
                application.";
    error_page(StatusCode::BAD_REQUEST, text)
}

/// The sign-in that a browser returns from, by the `state` that it brings: it was started in this
/// browser, recently. Costs no row.
pub async fn begun_here<F: FrontChannel>(
    front: &F,
    sent: &str,
    headers: &HeaderMap,
) -> Result<SignInState, Response<Body>> {
    let authority = front.authority();
    let held = kept(front, headers, &flow_name(sent)).ok_or_else(old)?;
    let keys = authority.verifying().await.map_err(|e| broken(&e))?;
    let state = SignInState::read(&held, &keys, authority.issuer.as_str(), authority.now());
    let state = state.map_err(|_| old())?;
    if equal_in_constant_time(&state.state, sent) { Ok(state) } else { Err(old()) }
}

/// Each sign-in is accepted once, however often its cookie is presented.
pub async fn once<F: FrontChannel>(front: &F, state: &SignInState) -> Result<(), Response<Body>> {
    let authority = front.authority();
    let first = UsedJti {
        namespace: "sign_in_flow".to_owned(),
        jti: state.state.clone(),
        forget_after: state.exp,
    };
    let first = authority.store.remember_jti(first, authority.now()).await;
    if first.map_err(|e| broken(&e))? == EntryOutcome::Recorded { Ok(()) } else { Err(old()) }
}

/// The identity provider's statement about who returned.
pub async fn finish<F: FrontChannel>(
    front: &F,
    form: &Form,
    state: &SignInState,
    registration: &Registration<'_>,
    proof: &ClientProof<'_>,
) -> Result<Returned, NotReturned> {
    let authority = front.authority();
    // The issuer's `error_description` is not shown: anyone could have written the link.
    // An error of another identity provider is not this one's (RFC 9207 section 2.4).
    if form.optional("iss").is_some_and(|iss| !registration.is_answered_by(iss)) {
        return Err(NotReturned::Invalid);
    }
    let Some(code) = form.optional("code") else {
        let error = form.optional("error").unwrap_or("no code");
        return Err(NotReturned::Refused(shown(error, 100)));
    };
    let iss = form.optional("iss");
    let relying_party = &authority.context.relying_party;
    let returned = relying_party.finish(registration, proof, flow(state), code, iss).await;
    let returned = returned.map_err(|error| {
        tracing::warn!(%error, issuer = %registration.issuer, "a sign-in at another identity provider failed");
        match error {
            SignInError::Discovery(_) | SignInError::Outbound(_) => NotReturned::Unreachable,
            SignInError::Refused { error, .. } => NotReturned::Refused(error.error),
            _ => NotReturned::Invalid,
        }
    })?;
    let claims = returned.claims.as_ref().ok_or(NotReturned::Invalid)?;
    let at = Authentication::said(claims, &returned.issuer).auth_time;
    if is_recent(state, at) { Ok(returned) } else { Err(NotReturned::Stale) }
}

/// Whether a person who signed in there at this time has done so as recently as was asked for.
pub fn is_recent(state: &SignInState, at: Timestamp) -> bool {
    let oldest = if state.fresh { Some(0) } else { state.max_age };
    let untold = at == Timestamp(0) && state.untold_is_fresh && state.max_age.is_none();
    untold || oldest.is_none_or(|age| at >= state.iat.plus(-age - SKEW))
}

/// Deletes the cookie of a sign-in, which is not accepted again, whatever its result.
pub fn forget<F: FrontChannel>(
    front: &F,
    sent: &str,
    headers: &HeaderMap,
    response: &mut Response<Body>,
) {
    let name = flow_name(sent);
    if kept(front, headers, &name).is_some() {
        keep(front, response, &name, "", 0);
    }
}
