//! Responses: JSON that is never cached, refusals, breakage, pages.

use crate::admission::Busy;
use axum::{
    Json,
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use passavant_proto::{
    oauth::form::FormError,
    refusal::{Refusal, StepUp, WireRefusal},
};
use passavant_store::StoreError;
use serde::Serialize;
use serde_json::json;

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// A rule refused it; the refusal still has to be recorded.
    Refused(Refusal),
    /// A rule refused it, and the refusal is recorded already.
    RefusedOnRecord(Refusal),
    /// A rate limit was exceeded; try again in this many seconds. It is not recorded, because a row
    /// would cost what the limit saves.
    Busy(u64),
    /// The client's record changed after it authenticated: the request is evaluated again with the
    /// new record.
    ClientChanged,
    /// Breakage on our side. It is logged once, where it becomes a response.
    Broken(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<FormError> for Failure {
    fn from(error: FormError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        Self::Busy(busy.0)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

/// JSON that no cache may store (RFC 6749 section 5.1).
pub fn no_store(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// An error as OAuth writes it (RFC 6749 section 5.2), outside the token endpoint.
pub fn error(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    no_store(status, &json!({"error": error, "error_description": description}))
}

/// A Bearer token is missing or refused (RFC 6750 section 3).
pub fn unauthorized(description: &str) -> Response<Body> {
    let mut response = error(StatusCode::UNAUTHORIZED, "invalid_token", description);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// A public document: metadata, keys.
pub fn public(body: &impl Serialize) -> Response<Body> {
    let cached = [(header::CACHE_CONTROL, "public, max-age=300")];
    (cached, Json(body)).into_response()
}

/// A public document that may be withdrawn: caches have to revalidate it each time.
pub fn revocable(body: &impl Serialize) -> Response<Body> {
    ([(header::CACHE_CONTROL, "public, no-cache")], Json(body)).into_response()
}

pub fn refused(refusal: &Refusal) -> Response<Body> {
    let WireRefusal { status, error, description, step_up } = refusal.wire();
    let mut body = json!({"error": error, "error_description": description});
    match step_up {
        Some(StepUp::MaxAge(seconds)) => body["max_age"] = seconds.into(),
        Some(StepUp::AcrValues(values)) => body["acr_values"] = values.into(),
        None => {}
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = no_store(status, &body);
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6749 section 5.2: name the scheme that the client may use.
        let basic = HeaderValue::from_static("Basic realm=\"token endpoint\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// 503 with `Retry-After`: fail closed, and do not say why.
pub fn broken(error: &StoreError) -> Response<Body> {
    tracing::error!(%error, "a request failed: the database could not be used");
    let body = json!({"error": "temporarily_unavailable",
                      "error_description": "The server cannot answer just now; try again."});
    let mut response = no_store(StatusCode::SERVICE_UNAVAILABLE, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

pub fn throttled(seconds: u64) -> Response<Body> {
    let body = json!({"error": "temporarily_unavailable",
                      "error_description": "Too many requests; wait as long as Retry-After says."});
    let mut response = no_store(StatusCode::TOO_MANY_REQUESTS, &body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f27;--soft:#5b6472;--line:#8a93a3;--page:#f4f5f7;
--card:#fff;--go:#1d4ed8;--gotext:#fff;--bad:#b42318;--note:#b45309}
@media (prefers-color-scheme:dark){:root{--ink:#eceff4;--soft:#aab3c2;--line:#6b7484;--page:#12151b;
--card:#1b2029;--go:#8fb0ff;--gotext:#0b1020;--bad:#ff9d92;--note:#f5b041}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.5 system-ui,sans-serif;
min-height:100vh;display:grid;place-items:center;padding:1rem}
main{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1.75rem;
width:100%;max-width:26rem}
h1{font-size:1.35rem;margin:0 0 .25rem}p{margin:.5rem 0;overflow-wrap:anywhere}
.soft{color:var(--soft)}label{display:block;margin:1rem 0 .25rem;font-weight:600}
input{width:100%;font:inherit;color:inherit;background:transparent;border:1px solid var(--line);
border-radius:.4rem;padding:.6rem .7rem}
button{width:100%;font:inherit;font-weight:600;margin-top:1.25rem;border:0;border-radius:.4rem;
padding:.7rem;background:var(--go);color:var(--gotext);cursor:pointer}
a.button{display:block;text-align:center;text-decoration:none;font-weight:600;margin-top:1rem;
border-radius:.4rem;padding:.7rem;background:var(--go);color:var(--gotext)}
.or{color:var(--soft);text-align:center;margin:1rem 0 0}a{color:var(--go)}
button.plain{margin-top:.75rem;background:transparent;color:inherit;border:1px solid var(--line)}
h2{font-size:1.05rem;margin:1.75rem 0 .25rem}[hidden]{display:none}
.row{display:flex;gap:.75rem;align-items:center;justify-content:space-between;margin:.5rem 0}
.row p{margin:0}.row form{flex:none}.row button{margin:0;padding:.45rem .8rem;width:auto}
svg{display:block;width:100%;max-width:15rem;height:auto;margin:1rem auto;border-radius:.4rem}
.codes{font:1rem/1.9 ui-monospace,monospace;columns:2;padding:0;list-style:none}
@media (max-width:24rem){.codes{columns:1}}
ul{margin:.5rem 0;padding-left:1.25rem}li{margin:.25rem 0;overflow-wrap:anywhere}
.code{white-space:nowrap}
:focus-visible{outline:3px solid var(--go);outline-offset:2px}
.bad,.note{border-left:4px solid var(--bad);padding-left:.75rem;font-weight:600}
.note{border-color:var(--note);font-weight:400}
";

/// A page for a person: one column, no script, readable in light and dark mode. `form_targets` are
/// origins, besides our own, that a form may lead to.
pub fn page(
    status: StatusCode,
    title: &str,
    content: &Markup,
    form_targets: &str,
) -> Response<Body> {
    shown(status, title, content, form_targets, None)
}

/// Such a page with one script of ours, by its URL.
pub fn page_with_script(
    status: StatusCode,
    title: &str,
    content: &Markup,
    form_targets: &str,
    script: &str,
) -> Response<Body> {
    shown(status, title, content, form_targets, Some(script))
}

fn shown(
    status: StatusCode,
    title: &str,
    content: &Markup,
    form_targets: &str,
    script: Option<&str>,
) -> Response<Body> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
                @if let Some(script) = script { script src=(script) defer {} }
            }
            body { main { (content) } }
        }
    };
    let mut response = (status, markup.into_string()).into_response();
    let style = passavant_proto::secret::sha256(STYLE.as_bytes());
    // CSP requires standard base64 with padding.
    let style = format!("{}=", style.replace('-', "+").replace('_', "/"));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'{form_targets}; \
         frame-ancestors 'none'; base-uri 'none'{}",
        script.map(|script| format!("; script-src {script}")).unwrap_or_default()
    );
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A page that says what went wrong and what to do.
pub fn error_page(status: StatusCode, text: &str) -> Response<Body> {
    let content = html! {
        h1 { "This did not work" }
        p.bad role="alert" { (text) }
        p.soft { "Nothing was changed. You can close this page." }
    };
    page(status, "This did not work", &content, "")
}
