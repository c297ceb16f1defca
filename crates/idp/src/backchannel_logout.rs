//! Back-channel logout (OpenID Connect Back-Channel Logout 1.0): an upstream says that a person's
//! session there has ended, and what came by way of it ends here.

use crate::{sign_in::upstream::registration, state::Idp};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Path, Request, State},
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use passavant_authority::{
    admission::Sender,
    answer::{self, broken, throttled},
    origin::origin_of,
};
use passavant_outbound::SignInError;
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::form::Form,
    others_text::shown,
    xaa::trust::SubjectLink,
};
use passavant_store::{AuditEvent, LoggedOut, SaidOnce, UsedJti};

/// POST /backchannel_logout/{upstream}.
pub(super) async fn logout(
    State(idp): State<Idp>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let (Ok(response) | Err(response)) = logged_out(&idp, &name, request).await;
    response
}

fn refused(status: StatusCode, description: &str) -> Response<Body> {
    let error = if status == StatusCode::BAD_REQUEST {
        "invalid_request"
    } else {
        "temporarily_unavailable"
    };
    answer::error(status, error, description)
}

async fn logged_out(
    idp: &Idp,
    name: &str,
    request: Request,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &idp.0.authority;
    let (parts, body) = request.into_parts();
    let (request_id, address) = origin_of(&parts);
    let now = authority.now();
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let form = Form::parse(&bytes).unwrap_or_default();
    let bad = |text: &str| refused(StatusCode::BAD_REQUEST, text);
    let token = form.optional("logout_token").ok_or_else(|| {
        bad("logout_token is missing (OpenID Connect Back-Channel Logout 1.0, section 2.5).")
    })?;
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let upstream = snapshot
        .directory
        .upstream(name)
        .ok_or_else(|| bad("There is no such upstream, or it is switched off."))?;
    let upstream = upstream
        .open_id()
        .ok_or_else(|| bad("This upstream speaks SAML, which knows no logout tokens."))?;
    let registration = registration(idp, upstream);
    let mut event = AuditEvent::granted(RequestEvent::SignOut, now)
        .with(Detail::Issuer, upstream.open_id.issuer.as_str())
        .with(Detail::RequestId, request_id.as_str())
        .with(Detail::Address, address.as_str());
    let verified = authority.context.relying_party.logout(&registration, token).await;
    let token = match verified {
        Ok(token) => token,
        Err(SignInError::IdToken { error, .. }) => {
            // Anybody can send one: the row is counted. Right ones are not: hundreds may come at
            // once. Keys are fetched once in a while, however many tokens ask for them.
            let sender = Sender::Unproven(address);
            idp.0.admission.refusal(&sender).map_err(|busy| throttled(busy.0))?;
            let event = event
                .with(Detail::More, shown(&error.to_string(), 300))
                .refused("sign_out.logout_token");
            authority.store.note(event, now).await.map_err(|e| broken(&e))?;
            return Err(bad(&format!("The logout token is refused: {error}.")));
        }
        Err(error) => {
            tracing::warn!(upstream = name, %error, "a logout token cannot be verified just now");
            return Err(refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "The keys of the logout token's issuer cannot be fetched just now; try again.",
            ));
        }
    };
    if let Some(subject) = &token.subject {
        event = event.with(Detail::Subject, subject.as_str());
    }
    let link = token.subject.map(|subject| SubjectLink {
        issuer: upstream.issuer(),
        tenant: None,
        subject,
    });
    let jwt = UsedJti {
        namespace: format!("backchannel_logout {name}"),
        jti: token.jti,
        forget_after: token.forget_after,
    };
    // It says all of it itself.
    let said = SaidOnce { jwt, body: String::new() };
    let of = LoggedOut {
        upstream: name,
        session: token.session.as_deref(),
        link: link.as_ref(),
        until: None,
    };
    authority.store.log_out(of, &said, event, now).await.map_err(|e| broken(&e))?;
    let mut response = StatusCode::OK.into_response();
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}
