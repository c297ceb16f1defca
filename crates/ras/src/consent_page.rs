//! The pages of the interactive path: which company the person belongs to, and which client wants
//! what.

use super::standing::AccountHolder;
use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use maud::html;
use passavant_authority::{
    answer::page,
    browser::{destination, form_target, is_local},
    front_channel::{ReadRequest, Ticket},
};
use passavant_proto::{
    oauth::client::{GovernedResource, is_document_url},
    others_text::shown,
};
use url::Url;

fn host_of(url: &str) -> String {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    url.as_ref()
        .and_then(Url::port)
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A stranger's text, on one line and short, with control characters and invisible ones made
/// visible.
fn plain(text: &str) -> String {
    shown(text, 80)
}

/// The meaning of a scope, if the operator did not describe it: `notes.write` means to change
/// notes.
fn in_words(scope: &str) -> String {
    let (what, act) = scope.rsplit_once(['.', ':', '/']).unwrap_or(("", scope));
    let what = what.replace(['.', ':', '/', '_', '-'], " ");
    let verb = match act.to_ascii_lowercase().as_str() {
        "read" | "list" | "get" | "view" => "Read",
        "write" | "edit" | "update" | "modify" => "Read and change",
        "create" | "add" => "Add",
        "delete" | "remove" => "Delete",
        "admin" | "manage" | "all" | "full" => "Do everything with",
        _ => return format!("Use {}", scope.replace(['.', ':', '/', '_', '-'], " ")),
    };
    if what.is_empty() { format!("{verb} what is there") } else { format!("{verb} {what}") }
}

/// Asks for an email address, to find the company by.
pub(super) fn which_company(
    read: &ReadRequest<GovernedResource>,
    email: Option<&str>,
) -> Response<Body> {
    let name = plain(&read.client.record.name);
    let unknown = email.filter(|email| email.contains('@'));
    let content = html! {
        h1 { "Sign in with your company" }
        p.soft { "to continue to " strong { (name) } " (" (destination(&read.request.redirect_uri)) ")" }
        @if unknown.is_some() {
            p.bad role="alert" id="problem" {
                "No organization here uses this email domain. Check the address, or ask IT."
            }
        }
        form method="post" action=(read.target) {
            label for="email" { "Your address at work" }
            input id="email" name="email" type="email" autocomplete="email" required autofocus
                maxlength="254" value=(unknown.unwrap_or_default())
                aria-describedby=[unknown.map(|_| "problem")];
            button type="submit" { "Continue" }
        }
    };
    let status = if unknown.is_some() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    // The form leads to the issuer's sign-in page, whose origin is not known yet.
    page(
        status,
        "Sign in with your company",
        &content,
        " https: http://127.0.0.1:* http://localhost:*",
    )
}

/// Says which client wants what, and asks the person.
pub(super) fn consent(
    read: &ReadRequest<GovernedResource>,
    holder: &AccountHolder,
    ticket: &Ticket,
) -> Response<Body> {
    let client = &read.client.record;
    let local = is_local(&read.request.redirect_uri);
    let back_host = destination(&read.request.redirect_uri);
    let document = is_document_url(&client.id).then(|| host_of(&client.id));
    let server = if read.about.name.is_empty() {
        read.about.resource.as_str().to_owned()
    } else {
        read.about.name.clone()
    };
    let target = form_target(&read.request.redirect_uri);
    let scopes: Vec<(String, &str)> = read
        .request
        .scopes
        .iter()
        .map(|scope| {
            let told = read.about.descriptions.get(scope);
            (told.cloned().unwrap_or_else(|| in_words(scope)), scope)
        })
        .collect();
    let content = html! {
        h1 { "Let " (plain(&client.name)) " use " (server) "?" }
        @if let Some(host) = &document {
            p { "Published by " strong { (host) } "." }
        } @else if client.registered.is_some() {
            p.note {
                "This program registered itself; nobody has checked who made it. Continue only if you have just \
                 connected it yourself."
            }
        }
        p { "It will be able to, on your behalf:" }
        ul {
            @for (words, scope) in &scopes {
                li { (words) " " span.soft { "(" (scope) ")" } }
            }
            @if scopes.is_empty() { li { "Use it, without any particular permission" } }
        }
        p { "You will be returned to " strong { (back_host) } "." }
        @if local {
            p.note {
                "That is a program on the computer in front of you. If you did not just start one that asks for \
                 this, say no."
            }
        }
        p.soft {
            "You are signed in "
            @if let Some(email) = &holder.account.email { "as " strong { (plain(email)) } " " }
            "through " (host_of(holder.issuer.as_str())) ", as account " (holder.account.id) " here."
        }
        form method="post" action=(read.target) {
            input type="hidden" name="ticket" value=(ticket.id);
            input type="hidden" name="csrf" value=(ticket.proof);
            button type="submit" name="answer" value="allow" { "Allow" }
            button.plain type="submit" name="answer" value="deny" autofocus { "No" }
        }
    };
    let title = format!("Let {} use {server}?", plain(&client.name));
    page(StatusCode::OK, &title, &content, &target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_told_in_words_and_names_are_harmless() {
        for (scope, words) in [
            ("notes.read", "Read notes"),
            ("canvas:write", "Read and change canvas"),
            ("read", "Read what is there"),
            ("user_files.delete", "Delete user files"),
            ("mcp", "Use mcp"),
        ] {
            assert_eq!(in_words(scope), words);
        }
        assert_eq!(plain("A\u{202e}B\nD"), "A\\u{202e}B\\nD");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), 81);
    }
}
