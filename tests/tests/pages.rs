//! Every page that a person sees, compared with the stored one: a change of its text has to be
//! reviewed.

use passavant_proto::oauth::client::{Client, ClientAuthentication};
use passavant_tests::{
    outsider::Browser,
    world::{AGENT, Ask, Reply, World},
};
use reqwest::Method;
use std::fmt::Write as _;

/// Replaces values that differ in each run by fixed words.
fn settled(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for (is, word) in [
        (world.idp.as_str(), "https://idp.example"),
        (world.ras.as_str(), "https://ras.example"),
        (world.other_ras.as_str(), "https://other-ras.example"),
        (&world.canvas, "https://mcp.example/canvas"),
    ] {
        text = text.replace(is, word);
        let bare = is.trim_start_matches("http://");
        text = text.replace(bare, word.trim_start_matches("https://"));
        let encoded: String = form_urlencoded::byte_serialize(is.as_bytes()).collect();
        text = text.replace(&encoded, word);
    }
    // Secrets, ids and times.
    let made = |word: &str| {
        let parts: Vec<&str> = word.split('.').collect();
        let random = |part: &&str| {
            matches!(part.len(), 22 | 36 | 43 | 64)
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                && part.bytes().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        };
        parts.iter().any(random)
    };
    let mut settled = String::new();
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_ascii_alphanumeric() || "-_.".contains(letter) {
            word.push(letter);
            continue;
        }
        settled.push_str(if made(&word) { "(made)" } else { &word });
        word.clear();
        settled.push(letter);
    }
    settled.trim_end().to_owned()
}

/// A page without its style sheet, one element on each line.
fn page(world: &World, name: &str, reply: &Reply) -> String {
    assert!(reply.text.starts_with("<!DOCTYPE html>"), "{name}: {} {}", reply.status, reply.text);
    let (head, rest) = reply.text.split_once("<style>").unwrap();
    let (_, body) = rest.split_once("</style>").unwrap();
    let text = settled(world, &format!("{head}{body}")).replace("><", ">\n<");
    format!("<!-- {name}: {} -->\n{text}\n\n", reply.status)
}

/// Every page; `odd` is in the name of each client.
async fn pages(odd: &str) -> String {
    let world = World::new().await;
    world.let_outsiders_in().await;
    let notebook = Client {
        id: "notebook".to_owned(),
        name: format!("Notebook{odd}"),
        authentication: ClientAuthentication::Public,
        redirect_uris: vec!["http://127.0.0.1/callback".to_owned()],
        ..Client::default()
    };
    world.put(&world.idp_store, &notebook).await;
    for path in ["/idp/clients/agent", "/ras/ras/clients/agent-at-ras"] {
        if !odd.is_empty() {
            let named = serde_json::json!({"name": format!("Agent{odd}")});
            assert_eq!(world.administer(Method::PATCH, path, Some(named)).await.status, 200);
        }
    }
    let mut text = String::new();
    let mut put =
        |name: &str, reply: &Reply| write!(text, "{}", page(&world, name, reply)).unwrap();
    let (url, _) = world.authorize_url(AGENT, "");
    let mut browser = Browser::default();
    put("nobody sent the browser", &browser.get(&world, &world.idp.endpoint("/")).await);
    let sign_in = browser.get(&world, &url).await;
    put("sign in", &sign_in);
    let cookies = browser.cookies();
    let mut wrong = world.sign_in_form(&url, &sign_in.text, &cookies, "erin", "a wrong password");
    wrong.headers.retain(|(name, _)| name != "cookie");
    put("a wrong password", &browser.ask(&world, wrong.clone()).await);
    put(
        "a form of another site",
        &browser
            .ask(&world, wrong.no_header("origin").header("origin", "https://evil.example"))
            .await,
    );
    for (name, from, to) in [
        ("an unknown application", "client_id=agent", "client_id=nobody"),
        ("an address that is not registered", "%2Fcallback", "%2Felsewhere"),
    ] {
        put(name, &browser.get(&world, &url.replacen(from, to, 1)).await);
    }
    put(
        "a link twice over",
        &browser.get(&world, &format!("{url}&scope=openid&scope=email")).await,
    );
    let (public, _) = world.authorize_url("notebook", "");
    browser.go(&world, &public, "erin").await;
    put("go on to a program", &browser.get(&world, &public).await);
    put("type a code", &browser.get(&world, &world.idp.endpoint("/activate")).await);
    put("sign out", &browser.get(&world, &world.idp.endpoint("/logout")).await);
    put("signed out", &Browser::default().get(&world, &world.idp.endpoint("/logout")).await);
    put(
        "sign in, to type a code",
        &Browser::default().get(&world, &world.idp.endpoint("/activate")).await,
    );
    let url = world.outsider_url(&[]);
    let mut browser = Browser::default();
    let (at, ask) = browser.go(&world, &url, "max").await;
    put("let a program in", &ask);
    let late = browser.answer(&world, &at, &ask, "allow").set("ticket", "1.x");
    put("a page that is too old", &browser.ask(&world, late).await);
    put(
        "an unknown program",
        &browser.get(&world, &world.outsider_url(&[("client_id", "nobody")])).await,
    );
    let callback = format!("{}?state=x&code=y", world.ras.endpoint("/callback"));
    put("a sign-in that was not begun", &Browser::default().get(&world, &callback).await);
    let domains = serde_json::json!({"id": world.idp, "sign_in": {"client_id": "ras-rp", "domains": ["acme.example"]}});
    let said =
        world.administer(Method::POST, "/ras/ras/trusted-issuers/sign-in", Some(domains)).await;
    assert_eq!(said.status, 200, "{}", said.text);
    put("which company", &Browser::default().get(&world, &url).await);
    let email = Ask {
        url: url.clone(),
        form: vec![("email".to_owned(), "somebody@elsewhere.example".to_owned())],
        headers: vec![("origin".to_owned(), world.ras.origin().to_owned())],
        method: Method::POST,
    };
    put("no company has this address", &Browser::default().ask(&world, email).await);
    world
        .administer(
            Method::POST,
            "/ras/ras/trusted-issuers/disable",
            Some(serde_json::json!({"id": world.idp})),
        )
        .await;
    put("no sign-in here", &Browser::default().get(&world, &url).await);
    text
}

/// `UPDATE_EXPECT=1 cargo test -p passavant-tests every_page` stores the current pages: read them
/// first.
#[tokio::test]
async fn every_page_is_the_one_that_is_kept() {
    expect_test::expect_file!["pages.html"].assert_eq(&pages("").await);
}

/// The name of a client is others' text on every page, in its title too.
#[tokio::test]
async fn no_page_shows_an_invisible_character_in_the_name_of_a_client() {
    let text = pages("\u{202e}").await;
    assert!(text.contains("Agent\\u{202e}") && text.contains("Notebook\\u{202e}"));
    let raw: Vec<&str> = text.lines().filter(|line| line.contains('\u{202e}')).collect();
    assert!(raw.is_empty(), "{raw:?}");
}
