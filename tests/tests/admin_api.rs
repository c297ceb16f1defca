//! The administration API.

use passavant_tests::world::{AGENT, Ask, World};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn nothing_is_told_without_the_secret_or_under_another_host() {
    let world = World::new().await;
    let ask = |secret: Option<&str>, host: Option<&str>, path: &str| {
        let mut ask = Ask {
            url: format!("{}{path}", world.admin),
            form: Vec::new(),
            headers: Vec::new(),
            method: Method::GET,
        };
        if let Some(secret) = secret {
            ask = ask.header("authorization", &format!("Bearer {secret}"));
        }
        if let Some(host) = host {
            ask = ask.header("host", host);
        }
        ask
    };
    let secret = world.admin_secret.expose();
    for path in ["/idp/users", "/idp/audit", "/ras/ras/clients", "/roles", "/nothing"] {
        for presented in [None, Some("wrong"), Some("")] {
            assert_eq!(world.send(&ask(presented, None, path)).await.status, 401, "{path}");
        }
        assert_eq!(world.send(&ask(Some(secret), Some("evil.example"), path)).await.status, 421);
    }
    let token = world.access_token().await;
    assert_eq!(
        world.send(&ask(Some(&token), None, "/idp/users")).await.status,
        401,
        "an access token is no administrator's"
    );
    assert_eq!(world.send(&ask(Some(secret), None, "/idp/users")).await.status, 200);
    assert_eq!(
        world.send(&ask(Some(secret), None, "/idp/users/erin/disable")).await.status,
        405,
        "nothing changes by GET"
    );
}

#[tokio::test]
async fn secrets_are_shown_once_and_never_read_back() {
    let world = World::new().await;
    let post = |path: &'static str, body: Value| world.administer(Method::POST, path, Some(body));
    let made = post("/idp/clients", json!({"id": "new", "name": "New"})).await;
    assert_eq!(made.str("client_secret").len(), 43, "{}", made.text);
    let user = json!({"username": "New.Person", "password": "a long enough passphrase"});
    let user = post("/idp/users", user).await;
    assert_eq!(user.str("username"), "new.person");
    for path in ["/idp/clients", "/idp/users", "/idp/users/new.person", "/ras/ras/clients"] {
        let text = world.administer(Method::GET, path, None).await.text;
        for secret in
            ["password_hash", "argon2", "\"hash\"", made.str("client_secret"), &world.secret.hash()]
        {
            assert!(!text.contains(secret), "{path} shows {secret}");
        }
    }
    let audit = world.administer(Method::GET, "/idp/audit?limit=10", None).await;
    assert!(
        audit.text.contains("admin.create client") && audit.text.contains("admin.create user"),
        "every write is on record"
    );
    // Rotation: the old secret works for the overlap, then not.
    let rotated = post("/idp/clients/agent/secret", json!({"overlap": 60})).await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    assert_eq!(world.send(&ask).await.status, 200);
    assert_eq!(
        world.send(&ask.clone().basic(AGENT, rotated.str("client_secret"))).await.status,
        200
    );
    world.pass(61);
    assert_eq!(world.send(&ask).await.status, 401);
    assert_eq!(world.send(&ask.basic(AGENT, rotated.str("client_secret"))).await.status, 200);
}

#[tokio::test]
async fn mistakes_are_named_with_what_to_do_and_nothing_is_written() {
    let world = World::new().await;
    let before = world.last_event(&world.idp_store).await.id;
    let ras = world.ras.as_str();
    let connection = |name: &str, value: Value| {
        let mut body = json!({"id": "c", "idp_client_id": AGENT, "audience": ras, "ras_client_id": "x",
                              "resources": [world.canvas], "groups": ["engineering"]});
        body[name] = value;
        body
    };
    for (path, body, says) in [
        ("/idp/users", json!({"username": "a", "is_admin": true}), "is_admin"),
        (
            "/idp/users",
            json!({"username": "a", "groups": ["nowhere"]}),
            "there is no group `nowhere`",
        ),
        ("/idp/users", json!({"username": "a", "password": "short"}), "12 characters"),
        ("/idp/users", json!({"username": " "}), "username"),
        ("/idp/groups", json!({"name": ""}), "name"),
        ("/idp/clients", json!({"name": "x", "id": "has space"}), "cannot be a client id"),
        (
            "/idp/clients",
            json!({"name": "x", "redirect_uris": ["javascript:alert(1)"]}),
            "redirect_uris",
        ),
        (
            "/idp/clients",
            json!({"name": "x", "redirect_uris": ["http://app.example/"]}),
            "redirect_uris",
        ),
        ("/idp/clients", json!({"name": "x", "jwks": {"keys": []}}), "jwks"),
        (
            "/idp/clients",
            json!({"name": "x", "jwks": {"keys": []}, "public": true}),
            "exclude each other",
        ),
        ("/idp/authorization-servers", json!({"issuer": world.idp}), "own"),
        ("/idp/authorization-servers", json!({"issuer": "http://as.example"}), "https"),
        (
            "/idp/resources",
            json!({"resource": "https://m.example/mcp", "authorization_server": "https://as.example"}),
            "not registered",
        ),
        (
            "/idp/resources",
            json!({"resource": "https://m.example/mcp#x", "authorization_server": ras}),
            "fragment",
        ),
        (
            "/idp/connections",
            connection("idp_client_id", json!("agent-at-ras")),
            "no client `agent-at-ras`",
        ),
        ("/idp/connections", connection("audience", json!(world.canvas)), "swapped"),
        (
            "/idp/connections",
            connection("resources", json!([world.notes])),
            "not registered as governed",
        ),
        ("/idp/connections", connection("resources", json!([])), "empty"),
        ("/idp/connections", connection("groups", json!(["nowhere"])), "nowhere"),
        ("/idp/connections", connection("users", json!(["nobody"])), "nobody"),
        ("/idp/connections", connection("id", json!("a b")), "cannot name"),
        ("/ras/ras/trusted-issuers", json!({"issuer": ras}), "own"),
        (
            "/ras/ras/trusted-issuers",
            json!({"issuer": "https://many.example", "tenant": "acme", "sign_in": {"client_id": "rp"}}),
            "tenant",
        ),
        (
            "/ras/ras/resources",
            json!({"resource": "https://m.example", "default_scopes": ["x"]}),
            "default_scopes",
        ),
    ] {
        let reply = world.administer(Method::POST, path, Some(body.clone())).await;
        assert!((400..500).contains(&reply.status), "{path} {body}: {}", reply.text);
        assert!(reply.text.contains(says), "{path} {body}: {}", reply.text);
    }
    let taken =
        world.administer(Method::POST, "/idp/groups", Some(json!({"name": "engineering"}))).await;
    assert_eq!(taken.status, 409, "{}", taken.text);
    let missing = world.administer(Method::POST, "/idp/users/nobody/disable", None).await;
    assert_eq!(missing.status, 404, "{}", missing.text);
    assert_eq!(world.last_event(&world.idp_store).await.id, before, "nothing was written");
}

/// Values that would be interpreted differently later are rejected: invalid scopes, keys without a
/// URL, invalid addresses, invalid or already used domains, and more than one body.
#[tokio::test]
async fn what_would_be_read_otherwise_later_is_not_taken() {
    let world = World::new().await;
    let sign_in =
        json!({"id": world.idp, "sign_in": {"client_id": "rp", "domains": ["acme.example"]}});
    let path = "/ras/ras/trusted-issuers/sign-in";
    assert_eq!(world.administer(Method::POST, path, Some(sign_in)).await.status, 200);
    let connection = json!({"id": "c", "idp_client_id": AGENT, "audience": world.ras, "ras_client_id": "x",
        "resources": [world.canvas], "groups": ["engineering"], "scopes": ["a\"b"]});
    for (path, body, says) in [
        ("/idp/connections", connection, "scope"),
        ("/idp/users", json!({"username": "a", "email": "no address"}), "email"),
        ("/ras/ras/accounts", json!({"email": "a@b@c d"}), "email"),
        (
            "/ras/ras/trusted-issuers",
            json!({"issuer": "https://other.example", "jwks_uri": "file:///etc/passwd"}),
            "jwks_uri",
        ),
        (
            "/ras/ras/trusted-issuers",
            json!({"issuer": "https://other.example",
                   "sign_in": {"client_id": "rp", "domains": ["not a domain"]}}),
            "domains",
        ),
        (
            "/ras/ras/trusted-issuers",
            json!({"issuer": "https://other.example",
                   "sign_in": {"client_id": "rp", "domains": ["ACME.example"]}}),
            "a domain belongs to one issuer",
        ),
    ] {
        let reply = world.administer(Method::POST, path, Some(body.clone())).await;
        assert!((400..500).contains(&reply.status), "{path} {body}: {}", reply.text);
        assert!(reply.text.contains(says), "{path} {body}: {}", reply.text);
    }
    // A text with a space is two scopes, everywhere.
    let two =
        json!({"resource": "https://two.example", "scopes": ["a b"], "default_scopes": ["b"]});
    let reply = world.administer(Method::POST, "/ras/ras/resources", Some(two)).await;
    assert_eq!(reply.json["scopes"], json!(["a", "b"]), "{}", reply.text);
    // Nothing may follow the body.
    for rest in ["{}", "x", "\u{0}"] {
        let ask = Ask {
            url: format!("{}/idp/groups", world.admin),
            form: Vec::new(),
            headers: vec![
                ("authorization".to_owned(), format!("Bearer {}", world.admin_secret.expose())),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            method: Method::POST,
        };
        let body = format!("{}{rest}", json!({"name": "after"})).into_bytes();
        let reply = world.send_body(&ask, body).await;
        assert_eq!(reply.status, 400, "{rest}: {}", reply.text);
        assert!(reply.text.contains("after the body"), "{rest}: {}", reply.text);
    }
}

#[tokio::test]
async fn explain_and_the_exchange_never_disagree() {
    let world = World::new().await;
    for (user, resource, granted, reason) in [
        ("erin", &world.canvas, true, ""),
        ("erin", &world.notes, true, ""),
        ("max", &world.notes, true, ""),
        ("max", &world.canvas, false, "policy.not_assigned"),
    ] {
        let body = json!({"user": user, "client": AGENT, "resource": resource});
        let explained = world.administer(Method::POST, "/idp/explain", Some(body)).await;
        assert_eq!(explained.json["granted"], granted, "{}", explained.text);
        let tokens = world.sign_in_as(user, AGENT).await;
        let audience = if *resource == world.notes { &world.other_ras } else { &world.ras };
        let ask = world
            .exchange(&tokens.id_token)
            .set("resource", resource)
            .set("audience", audience.as_str());
        let reply = world.send(&ask).await;
        assert_eq!(reply.status == 200, granted, "{}", reply.text);
        if !granted {
            assert_eq!(explained.str("reason"), reason);
            let row = world.last_event(&world.idp_store).await;
            assert_eq!(row.details["rule"], explained.str("rule"));
        }
    }
}

#[tokio::test]
async fn a_secret_that_was_rotated_out_buys_not_one_more_token() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let exchange = world.exchange(&tokens.id_token);
    let redeem = world.redeem(&world.id_jag(&world.id_jag_claims()));
    for path in ["/idp/clients/agent/secret", "/ras/ras/clients/agent-at-ras/secret"] {
        let rotated = world.administer(Method::POST, path, Some(json!({"overlap": 0}))).await;
        assert_eq!(rotated.status, 200, "{}", rotated.text);
    }
    for ask in [exchange, redeem] {
        assert_eq!(world.send(&ask).await.status, 401, "the old secret was honoured once more");
    }
}

#[tokio::test]
async fn a_proxy_tells_the_address_only_if_it_is_trusted() {
    for behind_proxy in [false, true] {
        let wishes = passavant_tests::world::Wishes {
            failures_per_minute: Some(2),
            behind_proxy,
            ..Default::default()
        };
        let world = World::with(wishes).await;
        let wrong = |from: &str| {
            let ask = world.ask(&world.ras, "/token", &[]).basic("agent-at-ras", "wrong");
            ask.header("x-forwarded-for", from)
        };
        for _ in 0..2 {
            assert_eq!(world.send(&wrong("198.51.100.9, 192.0.2.1")).await.status, 401);
        }
        assert_eq!(world.send(&wrong("198.51.100.10, 192.0.2.1")).await.status, 429);
        let elsewhere = world.send(&wrong("192.0.2.1, 192.0.2.2")).await.status;
        assert_eq!(elsewhere, if behind_proxy { 401 } else { 429 }, "behind proxy: {behind_proxy}");
    }
}

#[tokio::test]
async fn a_client_is_changed_in_what_is_said_and_in_nothing_else() {
    let world = World::new().await;
    let read = async || {
        let all = world.administer(Method::GET, "/idp/clients", None).await;
        let all = all.json["items"].as_array().cloned().unwrap_or_else(|| panic!("{}", all.text));
        all.into_iter().find(|client| client["id"] == AGENT).unwrap()
    };
    let before = read().await;
    let change =
        json!({"id": AGENT, "name": "Renamed", "pkce_optional": true, "device_grant": true});
    let reply = world.administer(Method::POST, "/idp/clients/change", Some(change)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let after = read().await;
    assert_eq!((&after["name"], &after["pkce_optional"]), (&json!("Renamed"), &json!(true)));
    assert_eq!(after["redirect_uris"], before["redirect_uris"], "what was left out stays");
    for (bad, word) in [
        (json!({"id": AGENT, "redirect_uris": ["http://not-here.example/cb"]}), "redirect"),
        (json!({"id": "public", "pkce_optional": true}), "pkce_optional"),
        (json!({"id": "nobody", "name": "x"}), "nobody"),
        (json!({"id": AGENT, "secret": "x"}), "secret"),
    ] {
        let reply = world.administer(Method::POST, "/idp/clients/change", Some(bad.clone())).await;
        assert!((400..500).contains(&reply.status), "{bad}: {}", reply.text);
        assert!(reply.text.contains(word), "{bad}: {}", reply.text);
    }
    assert_eq!(read().await, after, "nothing half-written");
}
