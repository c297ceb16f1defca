//! The pages of a person's account.

use super::{Me, Told};
use crate::{
    sign_in::{own, page::script_of, passkey},
    state::Idp,
};
use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use maud::{Markup, PreEscaped, html};
use passavant_authority::{
    answer::{page, page_with_script},
    browser::csrf_of,
};
use passavant_proto::{
    event::RequestEvent,
    oauth::client::ENROLLED_CLIENT,
    oidc::{authentication::CLASSES, totp},
    others_text::shown,
    policy::Person,
    time::Timestamp,
};
use passavant_store::{AuditFilter, AuditRow, Outcome, Passkey, StoreError};
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;

/// How many rows of the trail are shown.
const ROWS: i64 = 20;

/// A time in words that need no zone.
fn when(at: Timestamp) -> String {
    time::OffsetDateTime::from_unix_timestamp(at.0).map_or_else(
        |_| String::new(),
        |at| {
            let (date, time) = (at.date(), at.time());
            let (month, day) = (u8::from(date.month()), date.day());
            format!(
                "{}-{month:02}-{day:02} {:02}:{:02} UTC",
                date.year(),
                time.hour(),
                time.minute()
            )
        },
    )
}

/// A row with a form that takes one thing away.
fn row(me: &Me, what: &Markup, act: &str, id: &str, verb: &str) -> Markup {
    html! {
        div.row {
            p { (what) }
            form method="post" {
                input type="hidden" name="csrf" value=(csrf_of(&me.cookie));
                input type="hidden" name="act" value=(act);
                input type="hidden" name="id" value=(id);
                button.plain type="submit" { (verb) }
            }
        }
    }
}

/// How they sign in: passkeys and one-time passwords.
async fn ways(idp: &Idp, me: &Me) -> Result<Markup, StoreError> {
    let user = &me.person.user;
    let store = &idp.0.authority.store;
    if let Some(name) = &me.elsewhere {
        return Ok(html! {
            h2 { "How you sign in" }
            p.soft { "You sign in with " (shown(name, 60)) ". What you need for that is decided there." }
        });
    }
    let passkeys = store.passkeys(&user.id).await?;
    let codes = store.recovery_codes(&user.id).await?;
    let has_totp = store.totp(&user.id).await?.is_some();
    // A device makes no passkey for a sign-in that may not add it.
    let may = super::may_change(idp, me).await?;
    let asked = if may { passkey::ask_to_add(idp, &me.cookie, user).await? } else { None };
    let named = idp.0.passkeys.is_some();
    let csrf = csrf_of(&me.cookie);
    let described = |held: &Passkey| {
        let used = if held.used_at.0 > 0 { when(held.used_at) } else { "never".to_owned() };
        html! { strong { (shown(&held.name, 60)) } br; span.soft { "used: " (used) } }
    };
    Ok(html! {
        h2 { "Passkeys" }
        @if passkeys.is_empty() {
            p.soft { "None yet. A passkey signs you in with your finger, face or PIN, and nobody can ask you for it elsewhere." }
        }
        @for held in &passkeys {
            (row(me, &described(held), "remove_passkey", &held.credential_id, "Remove"))
        }
        @if let Some(asked) = &asked {
            form method="post" data-passkey="create" data-options=(asked.options) {
                input type="hidden" name="csrf" value=(csrf);
                input type="hidden" name="act" value="add_passkey";
                input type="hidden" name="state" value=(asked.state);
                input type="hidden" name="passkey";
                label for="name" { "A name for a new one" }
                input id="name" name="name" type="text" maxlength="60" autocomplete="off" value="This device";
                button type="submit" { "Add a passkey" }
                p.soft role="status" hidden {}
            }
        } @else if !named {
            p.soft { "Passkeys need a server with a name: this one is known by a number." }
        }
        @if user.password_hash.is_some() {
            h2 { "Authenticator application" }
            @if has_totp {
                p.soft { "Your password is followed by a code. " (codes) " recovery codes are left." }
                (row(me, &html! { "One-time passwords" }, "remove_totp", "", "Remove"))
            } @else {
                p.soft { "A second step after your password: a code that an application on your phone shows." }
                form method="post" {
                    input type="hidden" name="csrf" value=(csrf);
                    input type="hidden" name="act" value="begin_totp";
                    button.plain type="submit" { "Set it up" }
                }
            }
        }
        h2 { "Password" }
        @if user.password_hash.is_none() {
            p.soft { "None: you sign in without one." }
        }
        @if may {
            form method="post" {
                input type="hidden" name="csrf" value=(csrf);
                input type="hidden" name="act" value="set_password";
                input type="text" autocomplete="username" value=(user.username) hidden;
                label for="new_password" { "A new password, of at least 12 characters" }
                input id="new_password" name="new_password" type="password" required minlength="12"
                    autocomplete="new-password";
                label for="repeated" { "The same once more" }
                input id="repeated" name="repeated" type="password" required minlength="12"
                    autocomplete="new-password";
                button.plain type="submit" { "Set the password" }
                p.soft { "You are signed out everywhere then, and sign in with it." }
            }
        } @else {
            p.soft { "To change how you sign in, sign in again." }
            form method="post" {
                input type="hidden" name="csrf" value=(csrf);
                input type="hidden" name="act" value="again";
                button.plain type="submit" { "Sign in again" }
            }
        }
    })
}

/// The servers that they reach from an enrolled computer.
async fn servers(idp: &Idp, me: &Me) -> Result<Markup, StoreError> {
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await?;
    let user = &me.person.user;
    let person = Person { id: &user.id, groups: &user.groups };
    let how = &me.session.authentication;
    let now = authority.now();
    let policy = &snapshot.directory.policy;
    let entries = policy.catalog(person, ENROLLED_CLIENT, None, how, now);
    let reached: Vec<_> = entries.into_iter().filter(|entry| entry.decision.is_ok()).collect();
    Ok(html! {
        h2 { "Servers you reach" }
        @if reached.is_empty() {
            p.soft { "None with this sign-in." }
        } @else {
            ul {
                @for entry in &reached {
                    li { (shown(&entry.resource.name, 80)) " " span.soft { (entry.resource.resource.as_str()) } }
                }
            }
        }
    })
}

fn told_row(row: &AuditRow) -> Markup {
    let refused = row.outcome == Outcome::Refused.word();
    let detail = |name: &str| row.details.get(name).map(|text| shown(text, 80));
    let known = RequestEvent::ALL.iter().find(|event| event.word() == row.event);
    let what = known.map_or_else(
        || format!("an administrator: {}", shown(&row.event, 80)),
        |event| event.text().to_owned(),
    );
    html! {
        li {
            (when(row.at)) ": " (what) @if refused { " (refused)" }
            @if !row.client.is_empty() { " by " (shown(&row.client, 80)) }
            @if let Some(resource) = detail("resource") { " for " (resource) }
            @if let Some(target) = detail("target") { " " (target) }
        }
    }
}

/// The account.
pub(super) async fn show(
    idp: &Idp,
    me: &Me,
    told: Option<Told>,
) -> Result<Response<Body>, StoreError> {
    let store = &idp.0.authority.store;
    let user = &me.person.user;
    let (ways, servers) = (ways(idp, me).await?, servers(idp, me).await?);
    let computers = store.installations(Some(&user.id)).await?;
    let sessions = store.sessions(Some(&user.id), idp.0.authority.now()).await?;
    let filter =
        AuditFilter { person: Some(user.id.clone()), limit: ROWS, ..AuditFilter::default() };
    let trail = store.audit(&filter).await?;
    let acr = &me.session.authentication.acr;
    let class = CLASSES.iter().find(|(class, _)| class == acr).map(|(_, short)| *short);
    let content = html! {
        h1 { (shown(user.display_name.as_deref().unwrap_or(&user.username), 80)) }
        p.soft {
            "Signed in to " (idp.0.settings.name) " as " strong { (shown(&user.username, 80)) }
            @if let Some(class) = class { ", class " (class) }
            ", " (when(me.session.authentication.auth_time)) "."
        }
        @if let Some(told) = &told {
            @if told.good {
                p.note role="status" { (told.text) }
            } @else {
                p.bad role="alert" { (told.text) }
            }
        }
        (ways)
        h2 { "Computers" }
        @if computers.is_empty() { p.soft { "None. " code { "passavant login" } " on a computer adds it." } }
        @for held in &computers {
            (row(me, &html! { strong { (shown(&held.device, 60)) } br; span.soft { "used: " (when(held.used_at)) } },
                "remove_computer", &held.id, "Remove"))
        }
        h2 { "Sign-ins" }
        p.soft { (sessions.len()) @if sessions.len() == 1 { " stands, this one." } @else { " stand, with this one." } }
        form method="post" {
            input type="hidden" name="csrf" value=(csrf_of(&me.cookie));
            input type="hidden" name="act" value="sign_out_everywhere";
            button.plain type="submit" { "Sign out everywhere" }
        }
        (servers)
        h2 { "Lately in your name" }
        ul { @for row in &trail { (told_row(row)) } }
    };
    let status = told.map_or(StatusCode::OK, |told| told.status);
    Ok(page_with_script(status, "Your account", &content, "", &script_of(idp)))
}

/// A QR code as a path, and its size with the quiet zone.
fn qr(text: &str) -> Option<(String, i32)> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            write!(path, "M{} {}h1v1h-1z", x + 4, y + 4).ok()?;
        }
    }
    Some((path, code.size() + 8))
}

/// The page with a seed, and the form that confirms it. `again`: the code was wrong.
pub(super) async fn new_totp(
    idp: &Idp,
    me: &Me,
    again: Option<&totp::Seed>,
) -> Result<Response<Body>, StoreError> {
    let user = &me.person.user;
    let seed = again.copied().unwrap_or_else(|| own::new_seed(idp));
    let Some(sealed) = own::sealed_seed(idp, &user.id, &me.cookie, &seed) else {
        let told = Told::bad(StatusCode::CONFLICT, "This server cannot keep a seed. Tell IT.");
        return show(idp, me, Some(told)).await;
    };
    let uri = totp::uri(&seed, &idp.0.settings.name, &user.username);
    let letters = totp::base32(&seed);
    let groups: Vec<&str> = (0..letters.len()).step_by(4).map(|at| &letters[at..at + 4]).collect();
    let content = html! {
        h1 { "Authenticator application" }
        p { "Read this code with the application, or type the letters." }
        @if let Some((path, size)) = qr(&uri) {
            svg viewBox=(format!("0 0 {size} {size}")) role="img" aria-label="The code to read with the application" {
                rect width=(size) height=(size) fill="#fff" {}
                path d=(path) fill="#000" shape-rendering="crispEdges" {}
            }
        }
        p.soft { "Letters: " (groups.join(" ")) }
        @if again.is_some() {
            p.bad role="alert" id="problem" { "That code is wrong. Is the clock of your phone right?" }
        }
        form method="post" {
            input type="hidden" name="csrf" value=(csrf_of(&me.cookie));
            input type="hidden" name="act" value="confirm_totp";
            input type="hidden" name="seed" value=(sealed);
            label for="code" { "The code that it shows now" }
            input id="code" name="code" type="text" required autofocus inputmode="numeric"
                autocomplete="one-time-code" maxlength="7" aria-describedby=[again.map(|_| "problem")];
            button type="submit" { "Continue" }
        }
        p { a href=(idp.issuer().endpoint("/account")) { "Back to your account" } }
    };
    let status = if again.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(page(status, "Authenticator application", &content, ""))
}

/// The recovery codes, once.
pub(super) fn recovery_codes(idp: &Idp, codes: &[String]) -> Response<Body> {
    let content = html! {
        h1 { "Recovery codes" }
        p { "One-time passwords are set up. If you lose your phone, each of these signs you in once, after your password." }
        p.note { "They are shown only now. Print them, or keep them where your password is not." }
        ul.codes { @for code in codes { li { (PreEscaped(code)) } } }
        p { a href=(idp.issuer().endpoint("/account")) { "I have kept them" } }
    };
    page(StatusCode::OK, "Recovery codes", &content, "")
}
