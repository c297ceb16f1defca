//! The sign-in page: one form, no script.

use crate::state::Idp;
use axum::{
    body::Body,
    http::{Response, StatusCode, request::Parts},
};
use maud::html;
use passavant_authority::{
    answer::page,
    browser::{cookie, cookie_name, csrf_of, destination, form_target, is_local, set_cookie},
    front_channel::{ReadRequest, Ticket},
};
use passavant_proto::{oauth::client::ENROLLED_CLIENT, others_text::shown};

/// Why the form is shown again.
pub(crate) struct Problem<'a> {
    pub(crate) status: StatusCode,
    pub(crate) text: &'a str,
    /// The user name that the person typed.
    pub(crate) username: &'a str,
}

/// Shows the form.
pub(crate) fn show(
    idp: &Idp,
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
        @if enrols {
            p.note {
                "You are adding a computer to your account. Continue only if you have just run "
                code { "passavant login" } " on it yourself. If you did not, close this page and tell IT."
            }
        }
    };
    let hint = read.request.login_hint.as_deref();
    form(idp, parts, (&head, &target), hint, problem, &cancel())
}

/// The form, with a text above it and elements next to its button.
pub(crate) fn form(
    idp: &Idp,
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
    let content = html! {
        h1 { "Sign in to " (name) }
        (head)
        @if let Some(Problem { text, .. }) = problem {
            p.bad role="alert" id="problem" { (text) }
        }
        form method="post" action=(action) {
            input type="hidden" name="csrf" value=(csrf_of(&secret));
            label for="username" { "User name" }
            input id="username" name="username" type="text" autocomplete="username" required
                autocapitalize="none" spellcheck="false" autofocus[username.is_empty()]
                maxlength="256" value=(username)
                aria-describedby=[problem.map(|_| "problem")];
            label for="password" { "Password" }
            input id="password" name="password" type="password" required
                autofocus[!username.is_empty()]
                autocomplete="current-password" maxlength="1024"
                aria-describedby=[problem.map(|_| "problem")];
            // Enter activates the first button. Both buttons have a name, for programs that select
            // one by name.
            button type="submit" name="answer" value="sign_in" { "Sign in" }
            (beside)
        }
    };
    let status = problem.map_or(StatusCode::OK, |problem| problem.status);
    let mut response = page(status, &format!("Sign in to {name}"), &content, target);
    set_cookie(idp.issuer(), &mut response, "signin", &secret, 3600);
    response
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
    let name = &idp.0.settings.name;
    let content = html! {
        h1 { "Continue to " (shown(&read.client.record.name, 100)) "?" }
        p { "You are signed in to " (name) " as " strong { (username) } "." }
        p.soft { "You will be returned to " strong { (destination(&read.request.redirect_uri)) } "." }
        @if local {
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
