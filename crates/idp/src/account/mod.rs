//! A person's own account: how they sign in, which computers and sign-ins are theirs, which servers
//! they reach, what was done in their name.

mod page;

use crate::{
    directory::Living,
    sign_in::{
        own,
        passkey::{self, Refused},
        session::changed,
    },
    state::Idp,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, request::Parts},
};
use maud::{Markup, html};
use passavant_authority::{
    answer::{broken, error_page},
    authority::Look,
    browser::{csrf_of, own_form, see_other},
    front_channel::session,
    origin::origin_of,
    passwords::PasswordError,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::{client_document::INSTALLATIONS, form::Form},
    oidc::totp,
    others_text::is_shown,
    secret::{Secret, equal_in_constant_time},
};
use passavant_store::{AuditEvent, Passkey, PasskeyAdded, PasskeyRemoved, Session, StoreError};
use std::sync::Arc;

/// A sign-in that was too old or too weak when it came to it.
const TOO_OFTEN: &str =
    "Passwords are being checked by too many just now. Nothing is changed; try again in a minute.";
const OVER: &str = "Your sign-in is too old for this, or has ended. Sign in again.";

/// How many recovery codes a person gets.
const RECOVERY_CODES: usize = 10;

/// A person who is signed in with this browser.
struct Me {
    session: Session,
    cookie: String,
    person: Arc<Living>,
    /// The upstream that they sign in at, by its name on pages: how they sign in is decided there.
    elsewhere: Option<String>,
}

/// What became of a form: a text for the person, and whether it is good news.
struct Told {
    status: StatusCode,
    text: &'static str,
    good: bool,
}

impl Told {
    const fn good(text: &'static str) -> Self {
        Self { status: StatusCode::OK, text, good: true }
    }

    const fn bad(status: StatusCode, text: &'static str) -> Self {
        Self { status, text, good: false }
    }
}

fn head() -> Markup {
    html! { p.soft { "to see your account" } }
}

fn head_again() -> Markup {
    html! {
        p.note {
            "To change how you sign in, sign in again now. If you have a passkey or an authenticator application, use it."
        }
    }
}

fn head_new_password() -> Markup {
    html! { p.note role="status" { "The password is set, and you are signed out everywhere. Sign in with it." } }
}

async fn me(idp: &Idp, parts: &Parts) -> Result<Option<Me>, StoreError> {
    let Some((session, cookie)) = session(idp, &parts.headers).await? else { return Ok(None) };
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await?;
    let person = snapshot.directory.person(&authority.store, &session.user_id, Look::Now).await?;
    let Some(person) = person else { return Ok(None) };
    let linked = authority.store.person_links(Some(&session.user_id), None).await?;
    let elsewhere = linked.into_iter().next().map(|link| {
        let held = snapshot.directory.all_upstreams().find(|held| held.name == link.upstream);
        held.map_or(link.upstream, |held| held.display_name.clone())
    });
    Ok(Some(Me { session, cookie, person, elsewhere }))
}

/// GET /account.
pub(super) async fn page(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let me = match me(&idp, &parts).await {
        Ok(me) => me,
        Err(error) => return broken(&error),
    };
    if let Some(me) = me {
        return page::show(&idp, &me, None).await.unwrap_or_else(|error| broken(&error));
    }
    if let Err(error) = idp.0.authority.fresh().await {
        return broken(&error);
    }
    if let Some(sent) = own::chosen_elsewhere(&idp, &parts).await {
        return sent;
    }
    own::form_of(&idp, &parts, &head(), None)
}

/// POST /account: each of its forms.
pub(super) async fn answer(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, form) = match own_form(idp.issuer(), request).await {
        Ok(sent) => sent,
        Err(answered) => return answered,
    };
    if let Err(error) = idp.0.authority.fresh().await {
        return broken(&error);
    }
    // The form of a new passkey is one of those below.
    if !form.mentions("act")
        && let Some(answered) = own::visit(&idp, &form, &parts, &head()).await
    {
        return answered;
    }
    done(&idp, &form, &parts).await.unwrap_or_else(|error| broken(&error))
}

async fn done(idp: &Idp, form: &Form, parts: &Parts) -> Result<Response<Body>, StoreError> {
    let Some(me) = me(idp, parts).await? else {
        return Ok(own::form_of(idp, parts, &head(), None));
    };
    let proof = form.optional("csrf").unwrap_or_default();
    if !equal_in_constant_time(&csrf_of(&me.cookie), proof) {
        let text = "The page is too old, or cookies are switched off. Open the page again.";
        return Ok(error_page(StatusCode::FORBIDDEN, text));
    }
    let act = form.optional("act").unwrap_or_default();
    match act {
        "sign_out_everywhere" => return sign_out_everywhere(idp, &me, parts).await,
        "remove_computer" => {
            let told = remove_computer(idp, &me, form, parts).await?;
            return page::show(idp, &me, Some(told)).await;
        }
        _ => {}
    }
    if me.elsewhere.is_some() {
        let told = Told::bad(
            StatusCode::CONFLICT,
            "How you sign in is decided at your company's provider.",
        );
        return page::show(idp, &me, Some(told)).await;
    }
    if act == "again" {
        return Ok(own::form_of(idp, parts, &head_again(), None));
    }
    if !may_change(idp, &me).await? {
        let mut response = own::form_of(idp, parts, &head_again(), None);
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Ok(response);
    }
    let told = match act {
        "add_passkey" => add_passkey(idp, &me, form, parts).await?,
        "remove_passkey" => remove_passkey(idp, &me, form, parts).await?,
        "begin_totp" => return page::new_totp(idp, &me, None).await,
        "confirm_totp" => return confirm_totp(idp, &me, form, parts).await,
        "remove_totp" => remove_totp(idp, &me, parts).await?,
        "set_password" => match set_password(idp, &me, form, parts).await? {
            Ok(answered) => return Ok(answered),
            Err(told) => told,
        },
        _ => Told::bad(StatusCode::BAD_REQUEST, "The form says nothing that can be done here."),
    };
    page::show(idp, &me, Some(told)).await
}

/// Whether this sign-in may change how the person signs in just now. The store asks again when it
/// changes something.
async fn may_change(idp: &Idp, me: &Me) -> Result<bool, StoreError> {
    let authority = &idp.0.authority;
    let (user_id, sid) = (&me.person.user.id, &me.session.sid);
    authority.store.may_change_credentials(user_id, sid, authority.now()).await
}

fn event(idp: &Idp, me: &Me, event: RequestEvent, parts: &Parts) -> AuditEvent {
    let (request_id, address) = origin_of(parts);
    AuditEvent::granted(event, idp.0.authority.now())
        .person(&me.person.user.id)
        .with(Detail::Session, me.session.sid.as_str())
        .with(Detail::RequestId, request_id)
        .with(Detail::Address, address)
}

async fn add_passkey(idp: &Idp, me: &Me, form: &Form, parts: &Parts) -> Result<Told, StoreError> {
    let (state, answer) = (form.optional("state"), form.optional("passkey"));
    let (state, answer) = (state.unwrap_or_default(), answer.unwrap_or_default());
    if answer.is_empty() {
        let text = "A passkey needs a browser that runs this page's script.";
        return Ok(Told::bad(StatusCode::BAD_REQUEST, text));
    }
    let name = form.optional("name").unwrap_or_default().trim();
    let name: String = name.chars().filter(|c| is_shown(*c)).take(60).collect();
    let name = if name.is_empty() { "Passkey".to_owned() } else { name };
    let user = &me.person.user;
    let (credential_id, document, once) = match passkey::verify_new(
        idp, &me.cookie, user, state, answer,
    ) {
        Ok(made) => made,
        Err(Refused::Broken(error)) => return Err(error),
        Err(Refused::Stale) => {
            let text = "This page waited too long. Try once more.";
            return Ok(Told::bad(StatusCode::BAD_REQUEST, text));
        }
        Err(refused) => {
            tracing::info!(why = refused.more(), "a passkey was not added");
            let text = "That passkey cannot be used here: it has to be kept by the device, and to ask for your finger, face or PIN.";
            return Ok(Told::bad(StatusCode::BAD_REQUEST, text));
        }
    };
    let event = event(idp, me, RequestEvent::CredentialAdded, parts)
        .with(Detail::More, format!("passkey {name}"));
    let passkey = Passkey {
        credential_id,
        user_id: user.id.clone(),
        document,
        name,
        created_at: idp.0.authority.now(),
        used_at: passavant_proto::time::Timestamp(0),
        uses: 0,
    };
    let store = &idp.0.authority.store;
    Ok(match store.add_passkey(&passkey, &me.session.sid, once, event).await? {
        PasskeyAdded::Added => Told::good(
            "The passkey is added. Add a second one on another device, in case you lose this.",
        ),
        PasskeyAdded::Taken => Told::bad(StatusCode::CONFLICT, "That passkey is in use already."),
        PasskeyAdded::TooMany => Told::bad(
            StatusCode::CONFLICT,
            "You have as many passkeys as there may be. Remove one first.",
        ),
        PasskeyAdded::Gone => Told::bad(
            StatusCode::CONFLICT,
            "This page was used already, or your sign-in has ended. Try once more.",
        ),
    })
}

async fn remove_passkey(
    idp: &Idp,
    me: &Me,
    form: &Form,
    parts: &Parts,
) -> Result<Told, StoreError> {
    let id = form.optional("id").unwrap_or_default();
    let event =
        event(idp, me, RequestEvent::CredentialRemoved, parts).with(Detail::More, "passkey");
    let whose = (me.person.user.id.as_str(), me.session.sid.as_str());
    let removed = idp.0.authority.store.remove_passkey(whose, id, event).await?;
    Ok(match removed {
        PasskeyRemoved::Removed => {
            Told::good("The passkey is removed. Delete it on the device, too.")
        }
        PasskeyRemoved::Missing => Told::bad(StatusCode::NOT_FOUND, "You have no such passkey."),
        PasskeyRemoved::Last => Told::bad(
            StatusCode::CONFLICT,
            "That is your only way to sign in. Add another passkey first.",
        ),
        PasskeyRemoved::Gone => Told::bad(StatusCode::CONFLICT, OVER),
    })
}

async fn confirm_totp(
    idp: &Idp,
    me: &Me,
    form: &Form,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let user = &me.person.user;
    let authority = &idp.0.authority;
    let sealed = form.optional("seed").unwrap_or_default();
    let Some(seed) = own::opened_seed(idp, &user.id, &me.cookie, sealed) else {
        let told = Told::bad(StatusCode::BAD_REQUEST, "That took too long. Begin again.");
        return page::show(idp, me, Some(told)).await;
    };
    if user.password_hash.is_none() {
        let told = Told::bad(
            StatusCode::CONFLICT,
            "One-time passwords go with a password, and you have none. Use passkeys.",
        );
        return page::show(idp, me, Some(told)).await;
    }
    let code = form.optional("code").unwrap_or_default();
    let Some(step) = totp::step_of(&seed, code, authority.now().0, 0) else {
        return page::new_totp(idp, me, Some(&seed)).await;
    };
    let kept = authority.context.sealing.seal(&own::seed_label(&user.id), &seed);
    let Ok(kept) = kept.inspect_err(|why| tracing::error!(why, "a seed cannot be sealed")) else {
        return Ok(changed());
    };
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| own::recovery_code(idp)).collect();
    let hashes: Vec<String> = codes.iter().map(|code| own::recovery_hash(code)).collect();
    let event = event(idp, me, RequestEvent::CredentialAdded, parts)
        .with(Detail::More, "one-time passwords");
    let (store, sid, now) = (&authority.store, &me.session.sid, authority.now());
    if store.add_totp(&user.id, sid, (&kept, step), &hashes, event, now).await? {
        return Ok(page::recovery_codes(idp, &codes));
    }
    let told =
        Told::bad(StatusCode::CONFLICT, "You have one-time passwords already. Remove them first.");
    page::show(idp, me, Some(told)).await
}

async fn remove_totp(idp: &Idp, me: &Me, parts: &Parts) -> Result<Told, StoreError> {
    let event = event(idp, me, RequestEvent::CredentialRemoved, parts)
        .with(Detail::More, "one-time passwords");
    if idp.0.authority.store.remove_totp(&me.person.user.id, &me.session.sid, event).await? {
        return Ok(Told::good("One-time passwords and recovery codes are removed."));
    }
    Ok(Told::bad(StatusCode::NOT_FOUND, "You have no one-time passwords."))
}

/// Sets the password that they chose, and asks them to sign in with it.
async fn set_password(
    idp: &Idp,
    me: &Me,
    form: &Form,
    parts: &Parts,
) -> Result<Result<Response<Body>, Told>, StoreError> {
    let password = Secret::new(form.optional("new_password").unwrap_or_default());
    let repeated = form.optional("repeated").unwrap_or_default();
    if !equal_in_constant_time(password.expose(), repeated) {
        let text = "The two passwords are not the same. Nothing is changed.";
        return Ok(Err(Told::bad(StatusCode::BAD_REQUEST, text)));
    }
    // Each one takes the time of a sign-in, which others wait for.
    let cell = format!("{} sets a password", me.person.user.id);
    if idp.0.admission.unproven(&cell).is_err() {
        return Ok(Err(Told::bad(StatusCode::TOO_MANY_REQUESTS, TOO_OFTEN)));
    }
    let password_hash = match idp.0.passwords.hash(&password).await {
        Ok(hash) => hash,
        Err(PasswordError::Length) => {
            let text = "A password has at least 12 characters, and at most 1024 bytes. Nothing is changed.";
            return Ok(Err(Told::bad(StatusCode::BAD_REQUEST, text)));
        }
        Err(PasswordError::Hash) => return Ok(Ok(changed())),
        Err(PasswordError::Busy) => {
            return Ok(Err(Told::bad(StatusCode::SERVICE_UNAVAILABLE, TOO_OFTEN)));
        }
    };
    let event = event(idp, me, RequestEvent::CredentialAdded, parts).with(Detail::More, "password");
    let (user_id, sid) = (&me.person.user.id, &me.session.sid);
    if !idp.0.authority.store.change_password(user_id, sid, password_hash, event).await? {
        return Ok(Err(Told::bad(StatusCode::CONFLICT, OVER)));
    }
    Ok(Ok(own::form_of(idp, parts, &head_new_password(), None)))
}

async fn remove_computer(
    idp: &Idp,
    me: &Me,
    form: &Form,
    parts: &Parts,
) -> Result<Told, StoreError> {
    let id = form.optional("id").unwrap_or_default();
    let authority = &idp.0.authority;
    let (request_id, _) = origin_of(parts);
    let client = authority.issuer.endpoint(&format!("{INSTALLATIONS}/{id}"));
    let now = authority.now();
    let event = AuditEvent::granted(RequestEvent::RevokeInstallation, now)
        .person(&me.person.user.id)
        .with(Detail::Installation, id)
        .with(Detail::RequestId, request_id);
    let whose = Some(me.person.user.id.as_str());
    if authority.store.revoke_installation(id, whose, &client, event, now).await? {
        return Ok(Told::good("The computer is removed. It has no access any more."));
    }
    Ok(Told::bad(StatusCode::NOT_FOUND, "You have no such computer."))
}

async fn sign_out_everywhere(
    idp: &Idp,
    me: &Me,
    parts: &Parts,
) -> Result<Response<Body>, StoreError> {
    let event = event(idp, me, RequestEvent::SignOut, parts).with(Detail::More, "everywhere");
    idp.0.authority.store.sign_out_everywhere(&me.person.user.id, event).await?;
    Ok(see_other(&idp.issuer().endpoint("/account")))
}
