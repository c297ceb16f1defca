//! An administrator's one-time link: who has lost every way to sign in gets in once, and makes a new
//! one. The code is behind the `#` of the link, so that no server's log has it.

use crate::{
    sign_in::{
        page::script_of,
        session::{Way, changed, start_session},
    },
    state::Idp,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, request::Parts},
};
use maud::html;
use passavant_authority::{
    admission::Sender,
    answer::{broken, page_with_script},
    browser::{busy_page, own_form, see_other},
    front_channel::keep_all,
    origin::origin_of,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::form::Form,
    oidc::authentication::ACR_RECOVERY,
    secret::Secret,
};
use passavant_store::{AuditEvent, Proved, StoreError, User};

/// GET: the form for the code, which the script fills in from the link.
pub(super) async fn page(State(idp): State<Idp>) -> Response<Body> {
    form(&idp, StatusCode::OK, None)
}

fn form(idp: &Idp, status: StatusCode, problem: Option<&str>) -> Response<Body> {
    let name = &idp.0.settings.name;
    let content = html! {
        h1 { "Get back into your account" }
        p.soft {
            "IT of " (name) " gave you a link for this, which works once. It signs you out everywhere else. Then add "
            "a passkey, or an authenticator application."
        }
        @if let Some(problem) = problem {
            p.bad role="alert" id="problem" { (problem) }
        }
        form method="post" {
            label for="code" { "Code" }
            input id="code" name="code" type="text" required autofocus autocomplete="off" data-from-link
                autocapitalize="none" spellcheck="false" maxlength="100"
                aria-describedby=[problem.map(|_| "problem")];
            button type="submit" name="answer" value="recover" { "Continue" }
        }
    };
    page_with_script(status, "Get back into your account", &content, "", &script_of(idp))
}

/// POST: the code.
pub(super) async fn answer(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, form) = match own_form(idp.issuer(), request).await {
        Ok(sent) => sent,
        Err(answered) => return answered,
    };
    let (Ok(response) | Err(response)) = recovered(&idp, &form, &parts).await;
    response
}

async fn recovered(
    idp: &Idp,
    form: &Form,
    parts: &Parts,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &idp.0.authority;
    let store = &authority.store;
    let unavailable = |error: StoreError| broken(&error);
    let (request_id, address) = origin_of(parts);
    let hash = Secret::new(form.optional("code").unwrap_or_default().trim()).hash();
    let now = authority.now();
    let whose = store.recovery_link(&hash, now).await.map_err(unavailable)?;
    let user = match whose {
        Some(id) => store.usable::<User>(&id).await.map_err(unavailable)?,
        None => None,
    };
    let Some(user) = user.filter(|user| !user.is_off()) else {
        let sender = Sender::Unproven(address.clone());
        idp.0.admission.refusal(&sender).map_err(|busy| busy_page(busy.0))?;
        let event = AuditEvent::granted(RequestEvent::SignIn, now)
            .with(Detail::RequestId, request_id)
            .with(Detail::Address, address)
            .refused("sign_in.recovery");
        store.note(event, now).await.map_err(unavailable)?;
        let text = "The code is wrong, was used, or is over. Ask IT for another link.";
        return Ok(self::form(idp, StatusCode::UNAUTHORIZED, Some(text)));
    };
    let way = Way { acr: ACR_RECOVERY, amr: &[], proved: Proved::Link(&hash) };
    let started = start_session(idp, &user, way, None, parts).await.map_err(unavailable)?;
    let started = started.ok_or_else(changed)?;
    let mut response = see_other(&idp.issuer().endpoint("/account"));
    keep_all(idp, &mut response, started.cookies(idp));
    Ok(response)
}
