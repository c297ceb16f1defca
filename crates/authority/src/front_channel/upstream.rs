//! Sign-in at another identity provider. The browser is redirected there, and everything that is
//! needed when it returns is in a signed cookie: nothing is stored here before the person has
//! signed in, and any node can continue.

use super::{FrontChannel, ReadRequest, keep, kept};
use crate::{
    answer::{broken, error_page},
    browser::{cookie_name, cookies_of, see_other},
};
use axum::{
    body::Body,
    http::{HeaderMap, Response, StatusCode, request::Parts},
};
use passavant_outbound::{SignInFlow, SignInWishes};
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    oauth::form::Form,
    oidc::id_token::SignedIn,
    oidc::sign_in_state::{self, SignInState},
    secret::equal_in_constant_time,
    time::{SKEW, Timestamp},
};
use passavant_store::{EntryOutcome, UsedJti};

/// The path below the issuer that browsers return to.
const CALLBACK: &str = "/callback";
/// Longest cookie value that browsers keep, in bytes, without name and attributes.
const LONGEST_COOKIE: usize = 3800;
/// Concurrent sign-ins in one browser. A page that starts more of them must not fill the browser's
/// cookies until requests become too large.
const FLOWS: usize = 4;

/// Another identity provider, and our registration there.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    pub issuer: &'a Issuer,
    /// Our client id there.
    pub client_id: &'a str,
    /// Its signature algorithm.
    pub algorithm: Algorithm,
}

fn flow<'a>(
    upstream: &Upstream<'a>,
    state: &'a SignInState,
    redirect_uri: &'a str,
) -> SignInFlow<'a> {
    SignInFlow {
        issuer: upstream.issuer,
        client_id: upstream.client_id,
        redirect_uri,
        state: &state.state,
        nonce: &state.nonce,
        verifier: &state.verifier,
    }
}

fn flow_name(state: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    format!("flow-{}", state.chars().filter(plain).take(8).collect::<String>())
}

/// Redirects the browser there.
pub async fn send<F: FrontChannel>(
    front: &F,
    read: &ReadRequest<F::About>,
    upstream: &Upstream<'_>,
    email: Option<&str>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = front.authority();
    let entropy = &authority.context.entropy;
    let now = authority.now();
    let state = SignInState {
        state: entropy.secret().expose().to_owned(),
        nonce: entropy.id(),
        verifier: entropy.secret().expose().to_owned(),
        issuer: upstream.issuer.to_string(),
        // Whether the sign-in is fresh or strong enough is checked when the browser returns.
        target: without_wishes(&read.target),
        fresh: read.request.fresh,
        max_age: read.request.max_age,
        iss: authority.issuer.to_string(),
        iat: now,
        exp: now.plus(sign_in_state::LIFETIME),
    };
    let redirect_uri = authority.issuer.endpoint(CALLBACK);
    let wishes = SignInWishes {
        login_hint: email.filter(|email| email.contains('@')),
        fresh: read.request.fresh,
        max_age: read.request.max_age,
    };
    let flow = flow(upstream, &state, &redirect_uri);
    let url = authority.context.relying_party.authorization_url(flow, wishes).await;
    let url = url.map_err(|error| {
        tracing::warn!(%error, issuer = %upstream.issuer, "people cannot be sent to the sign-in page of a trusted issuer");
        let text = "Your company's sign-in does not answer. Try again later, or tell IT.";
        error_page(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let signed = state.sign(&authority.signing());
    if signed.len() > LONGEST_COOKIE {
        let text = "The application's request is too long. Contact its developer.";
        return Err(error_page(StatusCode::URI_TOO_LONG, text));
    }
    let mut response = see_other(&url);
    for name in flows_to_drop(front, &parts.headers, now) {
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

/// The request without the parameters that the sign-in itself satisfies.
fn without_wishes(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let kept = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name != "prompt" && name != "max_age");
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
    format!("{path}?{query}")
}

fn old() -> Response<Body> {
    let text = "This sign-in was not begun in this browser, or too long ago. Start again in the \
                application.";
    error_page(StatusCode::BAD_REQUEST, text)
}

/// The sign-in that a browser returns from: it was started in this browser, recently. Costs no row.
pub async fn begun_here<F: FrontChannel>(
    front: &F,
    form: &Form,
    headers: &HeaderMap,
) -> Result<SignInState, Response<Body>> {
    let authority = front.authority();
    let sent = form.optional("state").unwrap_or_default();
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

/// The identity provider's statement about who returned; `None` if it refuses, or if its statement
/// does not verify.
pub async fn finish<F: FrontChannel>(
    front: &F,
    form: &Form,
    state: &SignInState,
    upstream: &Upstream<'_>,
) -> Option<SignedIn> {
    let authority = front.authority();
    // The issuer's `error_description` is not shown: anyone could have written the link.
    let code = form.optional("code")?;
    let redirect_uri = authority.issuer.endpoint(CALLBACK);
    let flow = flow(upstream, state, &redirect_uri);
    let (key, iss) = (authority.signing(), form.optional("iss"));
    let relying_party = &authority.context.relying_party;
    let signed_in = match relying_party.finish(flow, code, iss, &key, upstream.algorithm).await {
        Ok(signed_in) => signed_in,
        Err(error) => {
            tracing::warn!(%error, issuer = %upstream.issuer, "a sign-in at a trusted issuer failed");
            return None;
        }
    };
    let at = signed_in.authentication.auth_time;
    let oldest = if state.fresh { Some(0) } else { state.max_age };
    oldest.is_none_or(|age| at >= state.iat.plus(-age - SKEW)).then_some(signed_in)
}

/// Deletes the cookie of a sign-in, which is not accepted again, whatever its result.
pub fn forget<F: FrontChannel>(
    front: &F,
    form: &Form,
    headers: &HeaderMap,
    response: &mut Response<Body>,
) {
    let name = flow_name(form.optional("state").unwrap_or_default());
    if kept(front, headers, &name).is_some() {
        keep(front, response, &name, "", 0);
    }
}
