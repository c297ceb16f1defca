//! The sign-in page: forms that work without a script, but for passkeys, which browsers give to scripts
//! alone.

use super::passkey::ask_to_sign_in;
use crate::{directory::IdpDirectory, state::Idp};
use axum::{
    body::Body,
    http::{Response, StatusCode, request::Parts},
};
use maud::html;
use passavant_authority::{
    answer::{page, page_with_script},
    browser::{cookie, cookie_name, csrf_of, destination, form_target, is_local, set_cookie},
    front_channel::{ReadRequest, Ticket},
};
use passavant_proto::{oauth::client::ENROLLED_CLIENT, others_text::shown};

/// Why the form is shown again.
pub(crate) struct Problem<'a> {
    pub(crate) status: StatusCode,
    /// Empty if nothing is wrong: the person goes on to the next field.
    pub(crate) text: &'a str,
    /// The user name that the person typed.
    pub(crate) username: &'a str,
    /// What has to come back with a second factor, if that is what is asked for.
    pub(crate) second: Option<&'a str>,
}

/// Source expressions for `form-action` where a form may end at an identity provider: it may lead on to
/// others of its own.
pub(crate) const ANYWHERE: &str = " https: http://127.0.0.1:* http://localhost:*";

/// The script of the pages that ask for a passkey.
pub(crate) const SCRIPT: &str = "/passkey.js";

/// The ways to sign in that a page offers, besides a password of this server.
#[derive(Default)]
pub(crate) struct Ways {
    /// Upstreams: the name on the page, and the link that leads there.
    buttons: Vec<(String, String)>,
    /// The page asks for the user name first, because it may be an address of an upstream: no
    /// company's password is typed here. The link leads to the page with a password.
    name_first: Option<String>,
}

impl Ways {
    /// The ways at the page of `parts`. `named`: the person has typed a user name.
    pub(crate) fn of(directory: &IdpDirectory, parts: &Parts, named: bool) -> Self {
        let at = |name: &str| {
            let query = parts.uri.query().unwrap_or_default();
            let kept = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key != CHOICE);
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(kept).append_pair(CHOICE, name);
            format!("{}?{}", parts.uri.path(), query.finish())
        };
        let upstreams = directory.upstreams();
        let buttons = upstreams.map(|held| (held.display_name.clone(), at(&held.name))).collect();
        let routed = directory.upstreams().any(|upstream| !upstream.domains.is_empty());
        let name_first = routed && !named && chosen(parts).is_none();
        Self { buttons, name_first: name_first.then(|| at("")) }
    }
}

/// The parameter that says which way a person chose: an upstream's name, or nothing for a password
/// of this server.
pub(crate) const CHOICE: &str = "upstream";

/// The way that the person of this request chose.
pub(crate) fn chosen(parts: &Parts) -> Option<String> {
    let mut query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    query.find(|(key, _)| key == CHOICE).map(|(_, name)| name.into_owned())
}

/// Shows the form.
pub(crate) fn show(
    idp: &Idp,
    ways: &Ways,
    read: &ReadRequest<()>,
    parts: &Parts,
    problem: Option<&Problem<'_>>,
) -> Response<Body> {
    let enrols = read.request.client_id == ENROLLED_CLIENT;
    let target = form_target(&read.request.redirect_uri);
    let head = html! {
        p.soft {
            "to continue to " strong { (shown(&read.client.record.name, 100)) }
            " (" (destination(&read.request.redirect_uri)) ")"
        }
        @if enrols { (enrolment_note()) }
    };
    let hint = read.request.login_hint.as_deref();
    form(idp, ways, parts, (&head, &target), hint, problem, &cancel())
}

/// What a person is told before a computer is added to their account.
fn enrolment_note() -> maud::Markup {
    html! {
        p.note {
            "You are adding a computer to your account. Continue only if you have just run "
            code { "passavant login" } " on it yourself. If you did not, close this page and tell IT."
        }
    }
}

/// The form, with a text above it and elements next to its button.
#[allow(clippy::too_many_arguments, reason = "the parts of one page")]
pub(crate) fn form(
    idp: &Idp,
    ways: &Ways,
    parts: &Parts,
    (head, target): (&maud::Markup, &str),
    hint: Option<&str>,
    problem: Option<&Problem<'_>>,
    beside: &maud::Markup,
) -> Response<Body> {
    // Reuse the browser's cookie if it has one, so that two tabs do not invalidate each other's
    // form.
    let held =
        cookie(&parts.headers, &cookie_name(idp.issuer(), "signin")).filter(|c| c.len() == 43);
    let secret =
        held.unwrap_or_else(|| idp.0.authority.context.entropy.secret().expose().to_owned());
    let action = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let name = &idp.0.settings.name;
    let username = problem.map(|problem| problem.username).or(hint).unwrap_or_default();
    let text = problem.map(|problem| problem.text).filter(|text| !text.is_empty());
    let second = problem.and_then(|problem| problem.second);
    if let Some(second) = second {
        let content = second_factor(name, action, &csrf_of(&secret), (second, text));
        let status = problem.map_or(StatusCode::OK, |problem| problem.status);
        let mut response = page(status, &format!("Sign in to {name}"), &content, target);
        set_cookie(idp.issuer(), &mut response, "signin", &secret, 3600);
        return response;
    }
    let passkey = ask_to_sign_in(idp, &secret);
    let content = html! {
        h1 { "Sign in to " (name) }
        (head)
        @if let Some(text) = text {
            p.bad role="alert" id="problem" { (text) }
        }
        @for (name, link) in &ways.buttons {
            a.button href=(link) { "Sign in with " (shown(name, 60)) }
        }
        @if !ways.buttons.is_empty() {
            p.or { "or" }
        }
        form method="post" action=(action) {
            input type="hidden" name="csrf" value=(csrf_of(&secret));
            label for="username" {
                @if ways.name_first.is_some() { "E-mail address or user name" } @else { "User name" }
            }
            input id="username" name="username" type="text" autocomplete="username" required
                autocapitalize="none" spellcheck="false" autofocus[username.is_empty()]
                maxlength="256" value=(username)
                aria-describedby=[text.map(|_| "problem")];
            @if ways.name_first.is_none() {
                label for="password" { "Password" }
                input id="password" name="password" type="password" required
                    autofocus[!username.is_empty()]
                    autocomplete="current-password" maxlength="1024"
                    aria-describedby=[text.map(|_| "problem")];
            }
            // Enter activates the first button. Both buttons have a name, for programs that select
            // one by name.
            button type="submit" name="answer" value="sign_in" {
                @if ways.name_first.is_some() { "Continue" } @else { "Sign in" }
            }
            (beside)
        }
        @if let Some(link) = &ways.name_first {
            p.soft { a href=(link) { "Sign in with a password of " (name) } }
        }
        @if let Some(asked) = &passkey {
            p.or { "or" }
            form method="post" action=(action) data-passkey="get" data-options=(asked.options) {
                input type="hidden" name="csrf" value=(csrf_of(&secret));
                input type="hidden" name="state" value=(asked.state);
                input type="hidden" name="passkey";
                button.plain type="submit" { "Sign in with a passkey" }
                p.soft role="status" hidden {}
            }
        }
    };
    let status = problem.map_or(StatusCode::OK, |problem| problem.status);
    // The form may lead to the sign-in page of an upstream, whose origin is not known yet.
    let anywhere = format!("{target}{ANYWHERE}");
    let target = if ways.buttons.is_empty() { target } else { &anywhere };
    let title = format!("Sign in to {name}");
    let mut response = match passkey {
        Some(_) => page_with_script(status, &title, &content, target, &script_of(idp)),
        None => page(status, &title, &content, target),
    };
    set_cookie(idp.issuer(), &mut response, "signin", &secret, 3600);
    response
}

/// Where the script is, as the content security policy names it.
pub(crate) fn script_of(idp: &Idp) -> String {
    idp.issuer().endpoint(SCRIPT)
}

/// The form for the second factor of somebody whose password was right.
fn second_factor(
    name: &str,
    action: &str,
    csrf: &str,
    (second, text): (&str, Option<&str>),
) -> maud::Markup {
    html! {
        h1 { "Sign in to " (name) }
        p.soft { "Your password is right. Now the code that your authenticator application shows." }
        @if let Some(text) = text {
            p.bad role="alert" id="problem" { (text) }
        }
        form method="post" action=(action) {
            input type="hidden" name="csrf" value=(csrf);
            input type="hidden" name="second" value=(second);
            label for="code" { "Code" }
            input id="code" name="code" type="text" required autofocus autocomplete="one-time-code"
                autocapitalize="characters" spellcheck="false" maxlength="32"
                aria-describedby=[text.map(|_| "problem")];
            button type="submit" name="answer" value="sign_in" { "Sign in" }
        }
        p.soft { "Without your device, type one of your recovery codes." }
    }
}

/// The button that cancels the sign-in; the application gets an error.
fn cancel() -> maud::Markup {
    html! {
        button.plain type="submit" name="answer" value="cancel" formnovalidate { "Cancel" }
    }
}

/// Asks a signed-in person whether they want to continue to a public client.
pub(crate) fn go_on(
    idp: &Idp,
    read: &ReadRequest<()>,
    username: &str,
    ticket: &Ticket,
) -> Response<Body> {
    let target = form_target(&read.request.redirect_uri);
    let local = is_local(&read.request.redirect_uri);
    let enrols = read.request.client_id == ENROLLED_CLIENT;
    let name = &idp.0.settings.name;
    let content = html! {
        h1 { "Continue to " (shown(&read.client.record.name, 100)) "?" }
        p { "You are signed in to " (name) " as " strong { (username) } "." }
        p.soft { "You will be returned to " strong { (destination(&read.request.redirect_uri)) } "." }
        @if enrols {
            (enrolment_note())
        } @else if local {
            p.note {
                "That is a program on the computer in front of you. If you did not just start one that asks for \
                 this, close this page."
            }
        }
        form method="post" action=(read.target) {
            input type="hidden" name="ticket" value=(ticket.id);
            input type="hidden" name="csrf" value=(ticket.proof);
            button type="submit" name="answer" value="go_on" { "Continue" }
            (cancel())
        }
    };
    page(
        StatusCode::OK,
        &format!("Continue to {}?", shown(&read.client.record.name, 100)),
        &content,
        &target,
    )
}
