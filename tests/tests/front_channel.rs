//! The front channel, which both authorization endpoints share.

use passavant_proto::oauth::client::{Client, ClientAuthentication};
use passavant_tests::{
    outsider::Browser,
    world::{AGENT, Ask, Reply, World},
};
use reqwest::Method;

const CALLBACK: &str = "https://app.example/callback";

fn parameter(reply: &Reply, name: &str) -> String {
    let location = url::Url::parse(reply.header("location")).unwrap();
    let found = location.query_pairs().find(|(held, _)| held == name);
    found.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A world whose IdP has a public client, and that client's request.
async fn with_a_public_client() -> (World, String) {
    let world = World::new().await;
    let client = Client {
        id: "notebook".to_owned(),
        name: "Notebook".to_owned(),
        authentication: ClientAuthentication::Public,
        redirect_uris: vec![CALLBACK.to_owned()],
        ..Client::default()
    };
    world.put(&world.idp_store, &client).await;
    let challenge = passavant_proto::oauth::pkce::CodeChallenge::of("v");
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", "notebook")
        .append_pair("redirect_uri", CALLBACK)
        .append_pair("scope", "openid")
        .append_pair("state", "s")
        .append_pair("code_challenge", challenge.as_str())
        .append_pair("code_challenge_method", "S256")
        .finish();
    let url = format!("{}?{query}", world.idp.endpoint("/authorize"));
    (world, url)
}

fn from(origin: &str, ask: Ask) -> Ask {
    ask.no_header("origin").header("origin", origin)
}

#[tokio::test]
async fn a_program_that_proves_nothing_is_answered_for_by_the_person_each_time() {
    let (world, url) = with_a_public_client().await;
    let mut browser = Browser::default();
    // A person who has just typed their password for this request is not asked again.
    let (at, _) = browser.go(&world, &url, "erin").await;
    assert!(at.starts_with(CALLBACK) && at.contains("code="), "{at}");
    let page = browser.get(&world, &url).await;
    assert_eq!(page.status, 200);
    assert!(
        page.text.contains("Continue to Notebook?") && page.text.contains("erin"),
        "{}",
        page.text
    );
    let silent = browser.get(&world, &format!("{url}&prompt=none")).await;
    assert_eq!(parameter(&silent, "error"), "interaction_required");
    let answer = |page: &Reply, said: &str| {
        from(world.idp.origin(), browser.answer(&world, &url, page, said))
    };
    let yes = answer(&page, "go_on");
    let mut later = browser.clone();
    for (case, changed) in [
        ("no proof", yes.clone().without("csrf")),
        ("no page", yes.clone().without("ticket")),
        ("a wrong proof", yes.clone().set("csrf", "x")),
        ("another page", yes.clone().set("ticket", "1.x")),
        ("another site", from("https://evil.example", yes.clone())),
        ("another request", Ask { url: format!("{url}&nonce=n"), ..yes.clone() }),
    ] {
        assert_eq!(later.ask(&world, changed).await.status, 403, "{case}");
    }
    let mut other = Browser::default();
    other.go(&world, &url, "max").await;
    assert_eq!(other.ask(&world, yes.clone()).await.status, 403, "another person");
    let reply = later.ask(&world, yes.clone()).await;
    assert_eq!((reply.status, parameter(&reply, "code").is_empty()), (303, false));
    assert_eq!(later.ask(&world, yes).await.status, 403, "one page, one answer");
    // "No" is reported to the client, and recorded.
    let page = browser.get(&world, &url).await;
    let no = from(world.idp.origin(), browser.answer(&world, &url, &page, "cancel"));
    let reply = browser.ask(&world, no).await;
    assert_eq!(parameter(&reply, "error"), "access_denied");
    let event = world.last_event(&world.idp_store).await;
    assert_eq!(
        (event.details["reason"].as_str(), event.client.as_str()),
        ("consent.denied", "notebook")
    );
    // A page that is too old, and one of a person who is not allowed any more.
    let page = browser.get(&world, &url).await;
    let late = from(world.idp.origin(), browser.answer(&world, &url, &page, "go_on"));
    world.pass(601);
    assert_eq!(browser.ask(&world, late).await.status, 403, "too late");
    let page = browser.get(&world, &url).await;
    let yes = from(world.idp.origin(), browser.answer(&world, &url, &page, "go_on"));
    assert_eq!(world.administer(Method::POST, "/idp/users/erin/disable", None).await.status, 200);
    assert_eq!(browser.ask(&world, yes).await.status, 403, "switched off");
}

#[tokio::test]
async fn both_endpoints_take_a_posted_request_and_refuse_alike() {
    let world = World::new().await;
    world.let_outsiders_in().await;
    let essential = r#"{"id_token":{"acr":{"essential":true,"value":"urn:example:gold"}}}"#;
    let (at_idp, _) = world.authorize_url(AGENT, "");
    for (url, issuer) in [(at_idp, &world.idp), (world.outsider_url(&[]), &world.ras)] {
        let (endpoint, query) = url.split_once('?').unwrap();
        let form: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let posted = Ask {
            url: endpoint.to_owned(),
            form,
            headers: vec![("origin".to_owned(), "https://app.example".to_owned())],
            method: Method::POST,
        };
        let reply = world.send(&posted).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        let sorted = |text: &str| {
            let url = url::Url::parse(text).unwrap();
            let mut pairs: Vec<_> = url.query_pairs().into_owned().collect();
            pairs.sort();
            pairs
        };
        assert_eq!(sorted(reply.header("location")), sorted(&url));
        // A required authentication class that was not reached is not ignored (OpenID Connect Core
        // 5.5.1.1).
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("claims", essential)
            .finish();
        let gold = format!("{url}&{query}");
        let mut browser = Browser::default();
        let (at, page) = browser.go(&world, &gold, "erin").await;
        let back = if page.status == 200 {
            let yes = browser.answer(&world, &at, &page, "allow");
            browser.ask(&world, yes).await.header("location").to_owned()
        } else {
            at
        };
        assert!(back.contains("error=unmet_authentication_requirements"), "{issuer}: {back}");
        // An invalid request is recorded, under the reference that the page names.
        let nobody = format!("{endpoint}?response_type=code");
        let page = world.http.get(&nobody).send().await.unwrap();
        assert_eq!(page.status(), 400);
        let store = if *issuer == world.idp { &world.idp_store } else { &world.ras_store };
        let event = world.last_event(store).await;
        assert_eq!(event.details["reason"], "authorize.client");
        assert!(page.text().await.unwrap().contains(&event.details["request_id"]));
    }
}
