//! RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0). After the person has confirmed,
//! the session and everything derived from it end.

use super::{sign_in::upstream::registration, state::Idp};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{Response, StatusCode},
    response::IntoResponse,
};
use maud::html;
use passavant_authority::{
    answer::{broken, error_page, page},
    authority::Directory as _,
    browser::{cookie, cookie_name, csrf_of, is_same_origin, see_other, set_cookie},
    front_channel::session,
    origin::origin_of,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::form::Form,
    oidc::id_token::verify_hint,
    others_text::shown,
    secret::equal_in_constant_time,
};
use passavant_store::AuditEvent;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// The redirect URI after the logout. It has to be registered, exactly, for the client that the
/// hint or `client_id` names.
struct Destination {
    uri: Option<String>,
    state: Option<String>,
    hinted_session: Option<String>,
}

async fn destination(idp: &Idp, form: &Form) -> Result<Destination, Response<Body>> {
    let authority = &idp.0.authority;
    let bad = |text: &str| error_page(StatusCode::BAD_REQUEST, text);
    let hint = match form.optional("id_token_hint") {
        None => None,
        Some(hint) => {
            let keys = authority.verifying().await.map_err(|e| broken(&e))?;
            let hint = verify_hint(hint, &keys, &authority.issuer);
            Some(hint.map_err(|_| {
                bad("The sign-out link carries an ID token that this server did not issue.")
            })?)
        }
    };
    let client = match (&hint, form.optional("client_id")) {
        (Some(hint), Some(id)) if hint.client != id => {
            return Err(bad("The sign-out link names two different applications."));
        }
        (Some(hint), _) => Some(hint.client.clone()),
        (None, id) => id.map(str::to_owned),
    };
    let uri = form.optional("post_logout_redirect_uri");
    if uri.is_some() && client.is_none() {
        return Err(bad(
            "The sign-out link names an address to return to, but not the application: it needs `id_token_hint` or \
             `client_id`.",
        ));
    }
    if let Some(uri) = uri {
        let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
        let registered = client
            .and_then(|id| snapshot.directory.client(&id).cloned())
            .is_some_and(|c| c.record.post_logout_redirect_uris.iter().any(|held| held == uri));
        if !registered {
            return Err(bad(
                "The application asked to return to an address that is not registered for it.",
            ));
        }
    }
    Ok(Destination {
        uri: uri.map(str::to_owned),
        state: form.optional("state").map(str::to_owned),
        hinted_session: hint.map(|hint| hint.session),
    })
}

/// GET: asks the person, because any site can send a browser here.
pub(super) async fn ask(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let Ok(form) = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()) else {
        return error_page(StatusCode::BAD_REQUEST, "The sign-out link cannot be read.");
    };
    let destination = match destination(&idp, &form).await {
        Ok(destination) => destination,
        Err(response) => return response,
    };
    let session = match session(&idp, &parts.headers).await {
        Ok(session) => session,
        Err(error) => return broken(&error),
    };
    let Some((session, held)) = session else { return done(&idp, &destination, None) };
    if destination.hinted_session.as_ref().is_some_and(|hinted| *hinted != session.sid) {
        let text = "The sign-out link is for another sign-in than this browser's.";
        return error_page(StatusCode::BAD_REQUEST, text);
    }
    let action = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let content = html! {
        h1 { "Sign out of " (idp.0.settings.name) "?" }
        p.soft { "Applications and agents that signed in here lose their access." }
        form method="post" action=(action) {
            input type="hidden" name="csrf" value=(csrf_of(&held));
            button type="submit" { "Sign out" }
        }
    };
    let target = destination
        .uri
        .as_ref()
        .and_then(|uri| Url::parse(uri).ok())
        .map(|url| format!(" {}", url.origin().ascii_serialization()))
        .unwrap_or_default();
    page(StatusCode::OK, "Sign out", &content, &target)
}

/// POST: ends the session.
pub(super) async fn end(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let (parts, body) = request.into_parts();
    let bytes = match Bytes::from_request(Request::new(body), &()).await {
        Ok(bytes) => bytes,
        Err(rejection) => return rejection.into_response(),
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let (Ok(query), Ok(posted)) = (Form::parse(query), Form::parse(&bytes)) else {
        return error_page(StatusCode::BAD_REQUEST, "The sign-out form cannot be read.");
    };
    let destination = match destination(&idp, &query).await {
        Ok(destination) => destination,
        Err(response) => return response,
    };
    let held = cookie(&parts.headers, &cookie_name(idp.issuer(), "session")).unwrap_or_default();
    let token = posted.optional("csrf").unwrap_or_default();
    if !is_same_origin(idp.issuer(), &parts.headers)
        || !equal_in_constant_time(&csrf_of(&held), token)
    {
        return error_page(StatusCode::FORBIDDEN, "The sign-out form was not sent from our page.");
    }
    let now = authority.now();
    let mut there = None;
    match session(&idp, &parts.headers).await {
        Ok(Some((session, _))) => {
            // Read before the session ends: afterwards nothing tells it.
            let name = match authority.store.upstream_of(&session.sid).await {
                Ok(name) => name,
                Err(error) => return broken(&error),
            };
            let event = AuditEvent::granted(RequestEvent::SignOut, now)
                .person(&session.user_id)
                .with(Detail::Session, session.sid.as_str())
                .with(Detail::RequestId, origin_of(&parts).0);
            if let Err(error) = authority.store.end_session(&session.sid, event, now).await {
                return broken(&error);
            }
            // Nobody waits long for an upstream that does not answer: the session has ended.
            if let Some(name) = name.filter(|_| destination.uri.is_none()) {
                let asked = timeout(THERE, signs_out_at(&idp, &name));
                there = asked.await.ok().flatten();
            }
        }
        Ok(None) => {}
        Err(error) => return broken(&error),
    }
    let mut response = done(&idp, &destination, there.as_ref());
    set_cookie(idp.issuer(), &mut response, "session", "", 0);
    response
}

/// How long an upstream is waited for when somebody signs out.
const THERE: Duration = Duration::from_secs(2);

/// The name of an upstream on pages, and where a browser signs out of it.
async fn signs_out_at(idp: &Idp, name: &str) -> Option<(String, String)> {
    let authority = &idp.0.authority;
    let snapshot = authority.snapshot();
    let upstream = snapshot.directory.upstream(name)?.open_id()?;
    let relying_party = &authority.context.relying_party;
    let url = relying_party.end_session_url(&registration(idp, upstream)).await?;
    Some((upstream.display_name.clone(), url))
}

fn done(idp: &Idp, destination: &Destination, there: Option<&(String, String)>) -> Response<Body> {
    if let Some(uri) = &destination.uri {
        let mut location = uri.clone();
        if let Some(state) = &destination.state {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("state", state);
            location.push(if uri.contains('?') { '&' } else { '?' });
            location.push_str(&query.finish());
        }
        return see_other(&location);
    }
    let content = html! {
        h1 { "You are signed out" }
        p.soft { "of " (idp.0.settings.name) ". You can close this page." }
        @if let Some((name, url)) = there {
            p {
                "You signed in with " strong { (shown(name, 60)) } ", and are still signed in there: the next sign-in "
                "here may need no password."
            }
            a.button href=(url) { "Sign out there, too" }
        }
    };
    page(StatusCode::OK, "Signed out", &content, "")
}
