//! The device authorization grant (RFC 8628), and attempts to misuse it.

use passavant_proto::{
    GRANT_DEVICE_CODE,
    oauth::client::{Client, ClientAuthentication, SecretHash},
};
use passavant_tests::world::{AGENT, Ask, CALLBACK, Expected, PASSWORD, Reply, Wishes, World};
use reqwest::Method;

const TELEVISION: &str = "television";

async fn world_with(wishes: Wishes) -> World {
    let world = World::with(wishes).await;
    let hash = SecretHash { hash: world.secret.hash(), expires: None };
    for id in [TELEVISION, "other"] {
        let client = Client {
            id: id.to_owned(),
            name: "Television <b>".to_owned(),
            authentication: ClientAuthentication::Secret(vec![hash.clone()]),
            redirect_uris: vec![CALLBACK.to_owned()],
            device_grant: true,
            ..Client::default()
        };
        world.put(&world.idp_store, &client).await;
    }
    world
}

/// Starts a device flow: the device code and the user code.
async fn begin(world: &World, client: &str) -> (String, String) {
    let form = [("scope", "openid offline_access resource:all")];
    let ask = world.ask(&world.idp, "/device_authorization", &form);
    let reply = world.send(&ask.basic(client, world.secret.expose())).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.str("verification_uri"), world.idp.endpoint("/activate"));
    assert!(!reply.text.contains("verification_uri_complete"), "{}", reply.text);
    (reply.str("device_code").to_owned(), reply.str("user_code").to_owned())
}

fn poll(world: &World, client: &str, code: &str) -> Ask {
    let form = [("grant_type", GRANT_DEVICE_CODE), ("device_code", code)];
    world.ask(&world.idp, "/token", &form).basic(client, world.secret.expose())
}

/// A person's browser on the page where codes are typed.
struct Person<'a> {
    world: &'a World,
    cookie: String,
    page: String,
}

impl<'a> Person<'a> {
    async fn signs_in(world: &'a World, username: &str) -> Person<'a> {
        let url = world.idp.endpoint("/activate");
        let (location, cookie) = world.browse(&url, username, PASSWORD).await;
        assert_eq!(location, url);
        let page = world.http.get(&url).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(page.status(), 200);
        Person { world, cookie, page: page.text().await.unwrap() }
    }

    fn form(&self, fields: &[(&str, &str)]) -> Ask {
        let csrf = self.page.split_once("name=\"csrf\" value=\"").unwrap().1;
        let csrf = csrf.split('"').next().unwrap();
        let mut ask = self.world.ask(&self.world.idp, "/activate", fields).add("csrf", csrf);
        ask.headers = vec![
            ("cookie".to_owned(), self.cookie.clone()),
            ("origin".to_owned(), self.world.idp.origin().to_owned()),
        ];
        ask.method = Method::POST;
        ask
    }

    async fn types(&self, code: &str) -> Reply {
        self.world.send(&self.form(&[("user_code", code), ("answer", "look")])).await
    }

    async fn says(&self, code: &str, answer: &str) -> Reply {
        self.world.send(&self.form(&[("user_code", code), ("answer", answer)])).await
    }
}

async fn refused(world: &World, ask: &Ask, error: &str) {
    let reply = world.send(ask).await;
    assert_eq!((reply.status, reply.str("error")), (400, error), "{}", reply.text);
}

#[tokio::test]
async fn a_device_is_signed_in_by_the_person_who_types_its_code_and_says_yes() {
    let world = world_with(Wishes::default()).await;
    let (device, code) = begin(&world, TELEVISION).await;
    refused(&world, &poll(&world, TELEVISION, &device), "authorization_pending").await;
    refused(&world, &poll(&world, TELEVISION, &device), "slow_down").await;
    let erin = Person::signs_in(&world, "erin").await;
    // In lower case and without a hyphen, as people type.
    let asked = erin.types(&code.to_lowercase().replace('-', " ")).await;
    assert_eq!(asked.status, 200);
    for told in ["erin", "Television &lt;b&gt;", "127.0.0.1", &code, "say no"] {
        assert!(asked.text.contains(told), "{told}: {}", asked.text);
    }
    world.pass(5);
    refused(&world, &poll(&world, TELEVISION, &device), "authorization_pending").await;
    assert_eq!(erin.says(&code, "allow").await.status, 200);
    let reply = world.send(&poll(&world, TELEVISION, &device)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.str("scope"), "offline_access openid");
    // It is a sign-in like any other: its ID token can be exchanged for what erin may reach, and
    // ends with her session.
    let form = [("grant_type", "refresh_token"), ("refresh_token", reply.str("refresh_token"))];
    let renew = world.ask(&world.idp, "/token", &form).basic(TELEVISION, world.secret.expose());
    assert_eq!(world.send(&renew).await.status, 200);
    // A second answer is rejected, and a second redemption counts as theft.
    assert_eq!(erin.says(&code, "allow").await.status, 400);
    refused(&world, &poll(&world, TELEVISION, &device), "invalid_grant").await;
    assert_eq!(world.last_event(&world.idp_store).await.details["reason"], "code.reuse");
}

#[tokio::test]
async fn a_no_is_final_and_a_code_ends() {
    let world = world_with(Wishes::default()).await;
    let erin = Person::signs_in(&world, "erin").await;
    let (device, code) = begin(&world, TELEVISION).await;
    assert_eq!(erin.says(&code, "deny").await.status, 200);
    assert_eq!(world.last_event(&world.idp_store).await.details["reason"], "device.denied");
    refused(&world, &poll(&world, TELEVISION, &device), "access_denied").await;
    assert_eq!(erin.says(&code, "allow").await.status, 400);
    let (device, code) = begin(&world, TELEVISION).await;
    world.pass(601);
    assert_eq!(erin.types(&code).await.status, 400);
    refused(&world, &poll(&world, TELEVISION, &device), "expired_token").await;
}

#[tokio::test]
async fn a_device_code_is_its_clients_and_its_grants_alone() {
    let world = world_with(Wishes::default()).await;
    let erin = Person::signs_in(&world, "erin").await;
    let (device, code) = begin(&world, TELEVISION).await;
    refused(&world, &poll(&world, "other", &device), "invalid_grant").await;
    assert_eq!(erin.says(&code, "allow").await.status, 200);
    refused(&world, &poll(&world, "other", &device), "invalid_grant").await;
    // The code grant requires parameters that a device never had.
    for redirect_uri in ["", CALLBACK] {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", device.as_str()),
            ("redirect_uri", redirect_uri),
        ];
        let ask = world.ask(&world.idp, "/token", &form).basic(TELEVISION, world.secret.expose());
        assert_eq!(world.send(&ask).await.status, 400, "{redirect_uri}");
    }
    // And a browser's code is not accepted as a device's.
    let (browser, _) = world.code("erin", TELEVISION, "").await;
    refused(&world, &poll(&world, TELEVISION, &browser), "invalid_grant").await;
    // None of this used up the device code.
    assert_eq!(world.send(&poll(&world, TELEVISION, &device)).await.status, 200);
    // A client that is not registered for this grant.
    let ask = world.ask(&world.idp, "/device_authorization", &[("scope", "openid")]);
    let expected = Expected(400, "unauthorized_client", "device.client");
    world
        .refuses(&world.idp_store, "client", &ask.basic(AGENT, world.secret.expose()), expected)
        .await;
}

#[tokio::test]
async fn a_page_that_was_not_ours_answers_for_nobody_and_codes_cannot_be_guessed() {
    let world = world_with(Wishes { failures_per_minute: Some(5), ..Wishes::default() }).await;
    let (device, code) = begin(&world, TELEVISION).await;
    let erin = Person::signs_in(&world, "erin").await;
    let fields = [("user_code", code.as_str()), ("answer", "allow")];
    let other_site =
        erin.form(&fields).no_header("origin").header("origin", "https://evil.example");
    assert_eq!(world.send(&other_site).await.status, 403);
    let without_proof = erin.form(&fields).set("csrf", "x");
    assert_eq!(world.send(&without_proof).await.status, 403);
    // Without a sign-in nobody learns whether a code exists.
    let nobody = erin.form(&fields).no_header("cookie");
    let reply = world.send(&nobody).await;
    assert!(reply.text.contains("name=\"password\""), "{}", reply.text);
    refused(&world, &poll(&world, TELEVISION, &device), "authorization_pending").await;
    let mut last = 0;
    for _ in 0..8 {
        last = erin.types("BCDF-GHJK").await.status;
    }
    assert_eq!(last, 429);
    // At the limit, a right attempt gets the same answer as a wrong one.
    assert_eq!(erin.types(&code).await.status, 429);
    assert_eq!(erin.says(&code, "allow").await.status, 429);
    world.pass(60);
    refused(&world, &poll(&world, TELEVISION, &device), "authorization_pending").await;
}

#[tokio::test]
async fn what_is_asked_of_a_client_since_is_asked_before_anything_is_granted() {
    for change in [
        serde_json::json!({"id": TELEVISION, "device_grant": false}),
        serde_json::json!({"id": TELEVISION, "dpop_bound_access_tokens": true}),
    ] {
        let world = world_with(Wishes::default()).await;
        let erin = Person::signs_in(&world, "erin").await;
        let (device, code) = begin(&world, TELEVISION).await;
        let (other, _) = begin(&world, TELEVISION).await;
        assert_eq!(erin.says(&code, "allow").await.status, 200);
        let reply =
            world.administer(Method::POST, "/idp/clients/change", Some(change.clone())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        for code in [&device, &device, &other] {
            let reply = world.send(&poll(&world, TELEVISION, code)).await;
            assert!(reply.status >= 400, "{change}: {}", reply.text);
        }
    }
}

#[tokio::test]
async fn a_computer_is_added_by_a_fresh_sign_in_alone() {
    let world = world_with(Wishes::default()).await;
    let form = [("client_id", "passavant"), ("scope", "enrol openid")];
    let ask = world.ask(&world.idp, "/device_authorization", &form).no_header("authorization");
    let reply = world.send(&ask).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let code = reply.str("user_code");
    let erin = Person::signs_in(&world, "erin").await;
    world.pass(601 - 10);
    assert!(erin.types(code).await.text.contains("Add a computer"));
    let ask = world.ask(&world.idp, "/device_authorization", &form).no_header("authorization");
    let later = world.send(&ask).await;
    world.pass(20);
    // Now the sign-in is older than ten minutes.
    assert!(erin.says(later.str("user_code"), "allow").await.text.contains("sign in again"));
    let erin = Person::signs_in(&world, "erin").await;
    assert!(erin.says(later.str("user_code"), "allow").await.text.contains("second code"));
    let form = [
        ("grant_type", GRANT_DEVICE_CODE),
        ("device_code", later.str("device_code")),
        ("client_id", "passavant"),
    ];
    let ask = world.ask(&world.idp, "/token", &form).no_header("authorization");
    let reply = world.send(&ask).await;
    assert_eq!((reply.status, reply.str("scope")), (200, "enrol"), "{}", reply.text);
}

#[tokio::test]
async fn whoever_comes_without_an_application_is_told_where_they_are() {
    let world = world_with(Wishes::default()).await;
    let page = world.http.get(world.idp.endpoint("/")).send().await.unwrap();
    assert_eq!(
        (page.status().as_u16(), &page.headers()["x-frame-options"]),
        (200, &"DENY".parse().unwrap())
    );
    let text = page.text().await.unwrap();
    assert!(
        text.contains("Acme") && text.contains("/activate") && text.contains("/logout"),
        "{text}"
    );
}

#[tokio::test]
async fn a_device_that_does_not_wait_is_counted_and_nothing_is_written_for_it() {
    let world = world_with(Wishes { failures_per_minute: Some(5), ..Wishes::default() }).await;
    // The public client that every computer may use.
    let form = [("client_id", "passavant"), ("scope", "enrol")];
    let ask = world.ask(&world.idp, "/device_authorization", &form).no_header("authorization");
    let begun = world.send(&ask).await;
    let form = [
        ("grant_type", GRANT_DEVICE_CODE),
        ("device_code", begun.str("device_code")),
        ("client_id", "passavant"),
    ];
    let poll = world.ask(&world.idp, "/token", &form).no_header("authorization");
    refused(&world, &poll, "authorization_pending").await;
    let before = world.last_event(&world.idp_store).await.id;
    let mut last = 0;
    for _ in 0..50 {
        last = world.send(&poll).await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(world.last_event(&world.idp_store).await.id, before);
}
