//! The callback for browsers that return from the trusted issuer: finds the account of the person
//! who signed in there, and starts a session that lasts until they have answered the consent page.

use super::{
    directory::Linked,
    front_channel::registration_of,
    jwt_bearer::{Who, resolve},
    state::Ras,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, request::Parts},
};
use passavant_authority::{
    answer::{Failure, broken, error_page},
    authority::Look,
    browser::{busy_page, see_other},
    front_channel::{keep, upstream},
    origin::origin_of,
};
use passavant_outbound::ClientProof;
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::form::Form,
    oidc::id_token::SignedIn,
    time::Timestamp,
    xaa::trust::TrustedIssuer,
};
use passavant_store::{AuditEvent, Session};
use std::sync::Arc;

/// How long a browser may take from the sign-in to the answer on the consent page, in seconds.
/// Short, because the issuer's own session is the one that counts.
const SESSION: i64 = 600;

/// GET /callback.
pub(super) async fn callback(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let (Ok(mut response) | Err(mut response)) = came_back(&ras, &parts, &form).await;
    let sent = form.optional("state").unwrap_or_default();
    upstream::forget(&ras, sent, &parts.headers, &mut response);
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
    let (request_id, address) = origin_of(parts);
    let sent = form.optional("state").unwrap_or_default();
    let state = upstream::begun_here(ras, sent, &parts.headers).await?;
    // The callback costs rows, and a request to the company's identity provider; a browser that
    // started a sign-in here is entitled to that. It has cells of its own, so that failures of
    // others at the same address do not count against it.
    let cell = format!("{address} comes back");
    let taken = ras.0.admission.unproven(&cell).map_err(|busy| busy_page(busy.0))?;
    upstream::once(ras, &state).await?;
    let event = AuditEvent::granted(RequestEvent::SignIn, now)
        .with(Detail::Issuer, state.issuer.as_str())
        .with(Detail::RequestId, request_id);
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let off = || bad("Sign-in for your company is switched off here. Ask IT.");
    let trusted = snapshot.directory.trusted(&state.issuer).ok_or_else(off)?;
    let registration = registration_of(ras, trusted).ok_or_else(off)?;
    let key = authority.signing();
    let proof = ClientProof::Assertion { key: &key, certificate: None, to_token_endpoint: false };
    let returned = upstream::finish(ras, form, &state, &registration, &proof).await.ok();
    let signed_in = returned
        .and_then(|returned| SignedIn::of(returned.claims.as_ref()?, registration.issuer).ok());
    let Some(signed_in) = signed_in else {
        record(ras, event.refused("sign_in.issuer"), now).await?;
        let text = "The sign-in at your company did not work. Start again in the application; if it \
                    goes on, tell IT.";
        return Err(bad(text));
    };
    let linked = account(ras, &signed_in, trusted, &event).await?;
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

/// The account of a person who signed in at their issuer: the same one as with an ID-JAG.
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
