//! Responses to a browser: redirects to verified URLs, cookies, and the check whether a form was
//! sent by our own page.

use crate::answer::error_page;
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use passavant_proto::{
    identifier::{Issuer, is_loopback},
    oauth::authorize::PageError,
    oauth::form::Form,
    oauth::redirect_uri::private_use_scheme,
    secret::sha256,
};
use url::Url;

/// A redirect to a verified redirect URI, always with `iss` (RFC 9207).
pub fn back_to(
    issuer: &Issuer,
    redirect_uri: &str,
    state: Option<&str>,
    parameters: &[(&str, &str)],
) -> Response<Body> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters).extend_pairs(state.map(|state| ("state", state)));
    query.append_pair("iss", issuer.as_str());
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    see_other(&format!("{redirect_uri}{separator}{}", query.finish()))
}

/// The source expression for `form-action` that lets a form end at the redirect URI: Chromium
/// applies `form-action` to the redirect after a form, too.
pub fn form_target(redirect_uri: &str) -> String {
    match private_use_scheme(redirect_uri) {
        Some(scheme) => format!(" {scheme}:"),
        None => Url::parse(redirect_uri)
            .map(|url| format!(" {}", url.origin().ascii_serialization()))
            .unwrap_or_default(),
    }
}

/// The destination of the answer, as shown to the person: host and port, or the scheme of a program
/// on their computer.
pub fn destination(redirect_uri: &str) -> String {
    if let Some(scheme) = private_use_scheme(redirect_uri) {
        return format!("{scheme}: on this computer");
    }
    let url = Url::parse(redirect_uri).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    match url.as_ref().and_then(Url::port) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether the answer goes to a program on the person's own computer.
pub fn is_local(redirect_uri: &str) -> bool {
    private_use_scheme(redirect_uri).is_some()
        || Url::parse(redirect_uri).is_ok_and(|url| is_loopback(&url))
}

/// 303 to an absolute URL that was verified before.
pub fn see_other(location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return error_page(StatusCode::BAD_REQUEST, &PageError::RedirectUri.to_string());
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// A `__Host-` cookie over https; over plain http (this machine only) browsers do not accept the
/// prefix.
pub fn cookie_name(issuer: &Issuer, name: &str) -> String {
    let secure = issuer.as_str().starts_with("https://");
    if secure { format!("__Host-passavant-{name}") } else { format!("passavant-{name}") }
}

/// The value of a cookie. `None` if it was sent twice, as after cookie tossing from a sub-domain.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(held, _)| *held == name)
        .map(|(_, value)| value.to_owned());
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Cookies whose names begin with `prefix`: the rest of the name, and the value.
pub fn cookies_of(headers: &HeaderMap, prefix: &str) -> impl Iterator<Item = (String, String)> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.filter_map(move |(name, value)| {
        Some((name.strip_prefix(prefix)?.to_owned(), value.to_owned()))
    })
}

/// 429, as a page for a person.
pub fn busy_page(seconds: u64) -> Response<Body> {
    let text =
        "There are too many requests from your network just now. Wait a minute, then try again.";
    let mut page = error_page(StatusCode::TOO_MANY_REQUESTS, text);
    page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    page
}

pub fn set_cookie(
    issuer: &Issuer,
    response: &mut Response<Body>,
    name: &str,
    value: &str,
    lifetime: i64,
) {
    let secure = if issuer.as_str().starts_with("https://") { "; Secure" } else { "" };
    let name = cookie_name(issuer, name);
    let cookie =
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={lifetime}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// The form token that belongs to a cookie.
pub fn csrf_of(cookie: &str) -> String {
    sha256(format!("passavant form {cookie}").as_bytes())
}

/// The head and the fields of a form that a page of ours sent. What another site sent, or what cannot be
/// read, is answered.
pub async fn own_form(issuer: &Issuer, request: Request) -> Result<(Parts, Form), Response<Body>> {
    let (parts, body) = request.into_parts();
    if !is_same_origin(issuer, &parts.headers) {
        let text = "The form was sent from another site.";
        return Err(error_page(StatusCode::FORBIDDEN, text));
    }
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let form = Form::parse(&bytes)
        .map_err(|_| error_page(StatusCode::BAD_REQUEST, "The form cannot be read."))?;
    Ok((parts, form))
}

/// Whether a POST was sent by our own page, judged by headers that the browser sets.
pub fn is_same_origin(issuer: &Issuer, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text("origin").is_none_or(|origin| origin == issuer.origin());
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    origin && site
}
