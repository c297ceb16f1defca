//! Sign-in at an upstream that speaks SAML 2.0: our metadata, the request that a browser takes there,
//! and the response that it brings back.

use super::{
    super::page::ANYWHERE,
    Asked,
    callback::{AGAIN, NOT_WORKED},
    return_address, secret_label,
};
use crate::{check_upstream::Leg, state::Idp};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use maud::html;
use passavant_authority::{
    answer::{broken, error_page, page, page_with_script},
    browser::{is_local, see_other},
    front_channel::upstream as there,
};
use passavant_proto::{
    jose::jwk::{Algorithm, SigningKey},
    oidc::sign_in_state::SignInState,
    oidc::upstream::{Preset, UpstreamAuthentication, UpstreamProvider},
    others_text::shown,
    saml::SamlProvider,
    secret::sha256,
    time::{SKEW, Timestamp},
};
use passavant_saml::{
    Assertion, AuthnRequest, Expected, ResponseError, Sent, certificate_ends,
    service_provider_metadata,
};
use passavant_store::UsedJti;
use std::time::Duration;
use tokio::time::timeout;

/// Our entity ID at an upstream, which is where our metadata is.
pub(crate) fn entity_id(idp: &Idp, name: &str) -> String {
    idp.issuer().endpoint(&format!("/saml/{name}"))
}

/// GET /saml/{upstream}: our metadata.
pub(crate) async fn metadata(State(idp): State<Idp>, Path(name): Path<String>) -> Response<Body> {
    let snapshot = match idp.0.authority.fresh().await {
        Ok(snapshot) => snapshot,
        Err(error) => return broken(&error),
    };
    let upstream = snapshot.directory.upstream(&name);
    let Some((upstream, provider)) = upstream.and_then(|held| Some((held, held.saml()?))) else {
        let text = "There is no identity provider of this name that speaks SAML.";
        return error_page(StatusCode::NOT_FOUND, text);
    };
    let document = service_provider_metadata(
        &entity_id(&idp, &name),
        &return_address(&idp, &name),
        &provider.name_id_format,
        (&certificates(upstream), provider.sign_requests),
    );
    let headers = [
        (header::CONTENT_TYPE, "application/samlmetadata+xml"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, document).into_response()
}

/// The certificates that our requests are signed with, now and later.
fn certificates(upstream: &UpstreamProvider) -> Vec<&str> {
    match &upstream.authentication {
        UpstreamAuthentication::Certificate { certificate, next, .. } => {
            let next = next.as_ref().map(|(certificate, _)| certificate.as_str());
            std::iter::once(certificate.as_str()).chain(next).collect()
        }
        _ => Vec::new(),
    }
}

/// The key that signs our requests.
fn key(idp: &Idp, upstream: &UpstreamProvider) -> Result<SigningKey, String> {
    let UpstreamAuthentication::Certificate { sealed_key, .. } = &upstream.authentication else {
        return Err("there is no certificate to sign with".to_owned());
    };
    let sealing = &idp.0.authority.context.sealing;
    let der = sealing.open(&secret_label(&upstream.name), sealed_key)?;
    SigningKey::from_pkcs8(Algorithm::RS256, &der).map_err(|error| error.to_string())
}

/// The ID of the request of a sign-in. XML wants a letter or `_` first.
fn request_id(state: &SignInState) -> String {
    format!("_{}", state.nonce)
}

/// Sends the browser there.
pub(super) fn send(
    idp: &Idp,
    sending: there::Sending<'_>,
    upstream: &UpstreamProvider,
    asked: &Asked<'_>,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let state = there::new_state(idp, sending, (upstream.issuer().as_str(), Some(&upstream.name)));
    let sent = request(idp, upstream, &state, asked, sending.max_age.is_some());
    let sent = sent.map_err(|error| {
        tracing::error!(upstream = upstream.name, error, "a request of SAML cannot be made");
        let text = "Your company's sign-in cannot be asked just now. Try again later, or tell IT.";
        error_page(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let response = match &sent {
        Sent::Redirect(url) => see_other(url),
        Sent::Post { url, request } => posting(idp, upstream, url, (request, &state.state)),
    };
    there::leave(idp, &state, response, parts)
}

fn request(
    idp: &Idp,
    upstream: &UpstreamProvider,
    state: &SignInState,
    asked: &Asked<'_>,
    recent: bool,
) -> Result<Sent, String> {
    let provider = upstream.saml().ok_or_else(|| "it does not speak SAML".to_owned())?;
    let key = if provider.sign_requests { Some(key(idp, upstream)?) } else { None };
    // Entra answers a class that it does not reach exactly with an error, whatever else it reached.
    let classes = if upstream.preset == Preset::Entra { &[] } else { asked.classes };
    let (id, issuer) = (request_id(state), entity_id(idp, &upstream.name));
    let address = return_address(idp, &upstream.name);
    let request = AuthnRequest {
        id: &id,
        issuer: &issuer,
        assertion_consumer_service: &address,
        now: idp.0.authority.now(),
        force_authn: asked.prompt_login || recent,
        classes,
    };
    let sent = request.sent(provider, &state.state, key.as_ref());
    sent.ok_or_else(|| "it takes neither binding, or the key does not sign".to_owned())
}

/// A page that posts our request.
fn posting(
    idp: &Idp,
    upstream: &UpstreamProvider,
    url: &str,
    (request, relay_state): (&str, &str),
) -> Response<Body> {
    let content = html! {
        h1 { "Going to " (shown(&upstream.display_name, 60)) }
        form method="post" action=(url) data-forward {
            input type="hidden" name="SAMLRequest" value=(request);
            input type="hidden" name="RelayState" value=(relay_state);
            button type="submit" { "Continue" }
        }
    };
    let script = idp.issuer().endpoint("/forward.js");
    page_with_script(StatusCode::OK, "Going on", &content, ANYWHERE, &script)
}

/// A page of ours that posts a response again, now with our cookies: those are not sent from another
/// site. Nothing of it is read before.
pub(super) fn again(
    idp: &Idp,
    upstream: &UpstreamProvider,
    response: &str,
    relay_state: &str,
) -> Response<Body> {
    let content = html! {
        h1 { "Coming back" }
        form method="post" action=(return_address(idp, &upstream.name)) data-forward {
            input type="hidden" name="SAMLResponse" value=(response);
            input type="hidden" name="RelayState" value=(relay_state);
            input type="hidden" name=(AGAIN) value="1";
            button type="submit" { "Continue" }
        }
    };
    let script = idp.issuer().endpoint("/forward.js");
    page_with_script(StatusCode::OK, "Coming back", &content, "", &script)
}

/// A page that leads on, in place of a redirect: browsers hold a redirect after a form against what the
/// form's page may lead to, and that page knew nothing of it.
pub(super) fn onward(idp: &Idp, mut answer: Response<Body>) -> Response<Body> {
    let Some(to) = answer.headers_mut().remove(header::LOCATION) else { return answer };
    let Ok(url) = to.to_str() else { return answer };
    let content = html! {
        h1 { "You are signed in" }
        @if is_local(url) && !url.starts_with(idp.issuer().origin()) {
            p.soft { "Your program on this computer goes on. You can close this page when it has." }
        }
        a.button href=(url) { "Continue" }
    };
    let mut response = page(StatusCode::OK, "Signed in", &content, "");
    for cookie in answer.headers().get_all(header::SET_COOKIE) {
        response.headers_mut().append(header::SET_COOKIE, cookie.clone());
    }
    if let Ok(refresh) = HeaderValue::from_str(&format!("0; url={url}")) {
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    // What the address has in it is nobody else's.
    let none = HeaderValue::from_static("no-referrer");
    response.headers_mut().insert(header::REFERRER_POLICY, none);
    response
}

/// How long a response waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does what takes a processor for a while, a few at a time, beside what answers everybody else. `None`
/// if too many others are waiting.
pub(crate) async fn in_turn<T: Send + 'static>(
    idp: &Idp,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = timeout(PATIENCE, idp.0.xml.acquire()).await.ok()?.ok()?;
    let done = tokio::task::spawn_blocking(work).await.ok();
    drop(turn);
    done
}

/// Verifies the response to the request of a sign-in; `None` if too many others are being verified.
pub(super) async fn verify(
    idp: &Idp,
    upstream: &UpstreamProvider,
    provider: &SamlProvider,
    state: &SignInState,
    response: &str,
) -> Result<Option<Assertion>, ResponseError> {
    let certificates = certificates_of(provider);
    let (audience, id) = (entity_id(idp, &upstream.name), request_id(state));
    let recipient = return_address(idp, &upstream.name);
    let (issuer, now) = (provider.entity_id.clone(), idp.0.authority.now());
    let response = response.to_owned();
    let work = move || {
        let expected = Expected {
            issuer: &issuer,
            certificates: &certificates,
            audience: &audience,
            recipient: Some(&recipient),
            request: Some(&id),
            now,
        };
        passavant_saml::verify(&response, &expected)
    };
    in_turn(idp, work).await.transpose()
}

/// The certificates of a provider, in DER.
pub(crate) fn certificates_of(provider: &SamlProvider) -> Vec<Vec<u8>> {
    provider.certificates.iter().filter_map(|held| STANDARD.decode(held).ok()).collect()
}

/// What marks an assertion as used: until it is not good any more.
pub(crate) fn once(assertion: &Assertion) -> UsedJti {
    UsedJti {
        namespace: "saml_assertion".to_owned(),
        jti: sha256(format!("{}\n{}", assertion.issuer(), assertion.id()).as_bytes()),
        forget_after: assertion.ends().plus(2 * SKEW),
    }
}

/// Reason and page for a response that is not accepted.
pub(super) fn not_verified(error: &ResponseError) -> (&'static str, Response<Body>) {
    let bad = |text| error_page(StatusCode::BAD_REQUEST, text);
    match error {
        ResponseError::Status(codes) => {
            let text = if codes.contains("NoAuthnContext") {
                "This needs a stronger sign-in than your company's identity provider could make. Ask IT."
            } else {
                "Your company's identity provider did not let you in, or you cancelled. Start again in the \
                 application, or ask IT."
            };
            ("sign_in.upstream_refused", bad(text))
        }
        ResponseError::Encrypted => (
            "sign_in.encrypted",
            bad(
                "Your company's identity provider sends encrypted what is read here in the clear. Tell IT.",
            ),
        ),
        _ => ("sign_in.upstream_invalid", bad(NOT_WORKED)),
    }
}

/// How long before a certificate ends it is worth a word, in seconds.
const SOON: i64 = 30 * 24 * 3600;

/// Every leg of an upstream that can be looked at without a person.
pub(crate) async fn check(idp: &Idp, upstream: &UpstreamProvider) -> Vec<Leg> {
    let Some(provider) = upstream.saml() else { return Vec::new() };
    let mut legs = vec![Leg::good(
        "our metadata",
        format!(
            "it is at {}; the identity provider has to know it",
            entity_id(idp, &upstream.name)
        ),
    )];
    let now: Timestamp = idp.0.authority.now();
    let ends: Vec<Timestamp> =
        certificates_of(provider).iter().filter_map(|der| certificate_ends(der)).collect();
    let last = ends.iter().max().copied().unwrap_or_default();
    let count = ends.len();
    let days = last.since(now) / (24 * 3600);
    legs.push(if last.since(now) > SOON {
        Leg::good("certificates", format!("{count}, the last of which ends in {days} days"))
    } else {
        Leg::bad(
            "certificates",
            format!("the last one of {count} ends in {days} days"),
            "an administrator there has to make the next one, and one here to give the new metadata: `passavant \
             admin upstream change --metadata`",
        )
    });
    let state = there::new_state(
        idp,
        there::Sending { target: "/", fresh: false, untold_is_fresh: false, max_age: None },
        (upstream.issuer().as_str(), Some(&upstream.name)),
    );
    let asked = Asked { hint: None, classes: &[], prompt_login: false };
    match request(idp, upstream, &state, &asked, false) {
        Err(error) => legs.push(Leg::bad(
            "request",
            error,
            "an administrator here has to make a certificate: `passavant admin upstream change --proof certificate`",
        )),
        Ok(Sent::Redirect(url)) => {
            legs.push(visited(idp, upstream, provider, &url).await);
        }
        Ok(Sent::Post { url, .. }) => legs.push(Leg::good(
            "request",
            format!("it is posted to {url}, which only a browser can look at: sign in once"),
        )),
    }
    let signs = if provider.sign_requests { "signed" } else { "not signed" };
    legs.push(Leg::good("requests", format!("they are {signs}")));
    if upstream.groups.is_empty() {
        legs.push(Leg::good("groups", "none are mapped: memberships are kept here alone"));
    }
    legs
}

/// What the identity provider answers to a request of ours.
async fn visited(
    idp: &Idp,
    upstream: &UpstreamProvider,
    provider: &SamlProvider,
    url: &str,
) -> Leg {
    const NAME: &str = "request";
    let relying_party = &idp.0.authority.context.relying_party;
    let place = shown(provider.redirect.as_deref().unwrap_or_default(), 200);
    match relying_party.visit_page(url).await {
        Err(error) => Leg::bad(
            NAME,
            error,
            "whoever runs the network has to let this server reach it, or look with a browser: people's browsers \
             need it, not this server",
        ),
        Ok(status) if (200..400).contains(&status) => Leg::good(
            NAME,
            format!(
                "{place} refuses nothing so far (HTTP {status}); whether its page is the sign-in or an error, a \
                     browser shows"
            ),
        ),
        Ok(status) => Leg::bad(
            NAME,
            format!("{place} answers HTTP {status}"),
            format!(
                "the administrator there has to enter our metadata, {}, and, if requests have to be signed, our \
                 certificate",
                entity_id(idp, &upstream.name)
            ),
        ),
    }
}
