//! The session that a sign-in starts, and the cookies for its browser.

use crate::state::Idp;
use axum::{
    body::Body,
    http::{HeaderMap, Response, StatusCode, request::Parts},
};
use passavant_authority::{
    answer::error_page,
    browser::{cookie, cookie_name},
    front_channel::Cookies,
    origin::origin_of,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oidc::authentication::Authentication,
    oidc::known_browser::{self, KnownBrowser},
    secret::Secret,
};
use passavant_store::{AuditEvent, Proved, Session, StoreError, User};

/// A new session, and the cookies for its browser.
pub(crate) struct Started {
    pub(crate) session: Session,
    pub(crate) cookie: Secret,
    browser: String,
}

impl Started {
    pub(crate) fn cookies(&self, idp: &Idp) -> Cookies {
        let lifetime = idp.0.settings.session_lifetime;
        let browser = Secret::new(self.browser.as_str());
        vec![
            ("session", self.cookie.clone(), lifetime),
            ("signin", Secret::new(""), 0),
            ("browser", browser, known_browser::LIFETIME),
        ]
    }
}

/// The cookie that marks this browser as one where the person signed in before.
pub(super) async fn known_browser(
    idp: &Idp,
    headers: &HeaderMap,
) -> Result<Option<KnownBrowser>, StoreError> {
    let authority = &idp.0.authority;
    let Some(held) = cookie(headers, &cookie_name(idp.issuer(), "browser")) else {
        return Ok(None);
    };
    let keys = authority.verifying().await?;
    Ok(KnownBrowser::read(&held, &keys, &authority.issuer, authority.now()).ok())
}

/// How a person proved who they are: the class and the methods (RFC 8176), and what it uses up.
pub(crate) struct Way<'a> {
    pub(crate) acr: &'static str,
    pub(crate) amr: &'a [&'a str],
    pub(crate) proved: Proved<'a>,
}

/// Starts the session of a person who has proved who they are; `None` if they were disabled or changed
/// meanwhile, or if what they proved was used up.
pub(crate) async fn start_session(
    idp: &Idp,
    user: &User,
    way: Way<'_>,
    client: Option<&str>,
    parts: &Parts,
) -> Result<Option<Started>, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let (request_id, _) = origin_of(parts);
    // A new cookie at each sign-in, so that one that was planted before is useless afterwards.
    let secret = authority.context.entropy.secret();
    let session = Session {
        sid: authority.context.entropy.id(),
        user_id: user.id.clone(),
        authentication: Authentication {
            auth_time: now,
            acr: way.acr.to_owned(),
            amr: way.amr.iter().map(|method| (*method).to_owned()).collect(),
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
    let before = cookie_before(idp, &parts.headers);
    let (hash, before) = (secret.hash(), before.as_deref());
    let whose = (user, way.proved);
    if !authority.store.begin_session(&hash, &session, whose, before, event).await? {
        return Ok(None);
    }
    Ok(Some(started(idp, session, secret, user.password_hash.as_deref(), &parts.headers).await?))
}

/// A session that is on record, with the cookies for its browser.
pub(super) async fn started(
    idp: &Idp,
    session: Session,
    cookie: Secret,
    password_hash: Option<&str>,
    headers: &HeaderMap,
) -> Result<Started, StoreError> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let browser = known_browser(idp, headers).await?;
    let browser = browser.and_then(|browser| browser.of(&session.user_id, password_hash));
    let browser = KnownBrowser {
        iss: idp.issuer().to_string(),
        sub: session.user_id.clone(),
        jti: browser.unwrap_or_else(|| authority.context.entropy.id()),
        pwd: password_hash.map(KnownBrowser::mark),
        iat: now,
        exp: now.plus(known_browser::LIFETIME),
    };
    let browser = browser.sign(&authority.signing());
    Ok(Started { session, cookie, browser })
}

/// The hash of the cookie that the browser had before. It becomes invalid at a sign-in, whoever has
/// a copy of it; tokens of its sign-in stay valid.
pub(super) fn cookie_before(idp: &Idp, headers: &HeaderMap) -> Option<String> {
    let before = cookie(headers, &cookie_name(idp.issuer(), "session"));
    before.map(|cookie| Secret::new(cookie).hash())
}

/// The person was disabled or removed, or got another password, a moment ago.
pub(crate) fn changed() -> Response<Body> {
    let text = "This account was changed a moment ago. Start again in the application.";
    error_page(StatusCode::FORBIDDEN, text)
}
