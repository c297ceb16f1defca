//! Named administrators: who may do what, and whose act is recorded.

use passavant_proto::event::{Act, Detail, Event, RequestEvent};
use passavant_store::{
    AdminRole, Administrator, AuditEvent, AuditFilter, AuditRow, Group, Put, RestsOn, Store,
    StoreError,
};
use passavant_tests::world::{Ask, World};
use reqwest::Method;
use serde_json::{Value, json};

async fn rows(store: &Store) -> Vec<AuditRow> {
    let all = AuditFilter { limit: 1000, ..AuditFilter::default() };
    store.audit(&all).await.unwrap()
}

/// Adds an administrator of `place` and returns their token.
async fn add(world: &World, place: &str, name: &str, role: &str) -> String {
    let body = json!({"name": name, "role": role});
    let path = format!("{place}/administrators");
    let made = world.administer(Method::POST, &path, Some(body)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    made.str("token").to_owned()
}

#[tokio::test]
async fn a_role_may_do_what_its_name_says_and_no_more() {
    let world = World::new().await;
    let post = |path: &'static str, body: Value| (Method::POST, path, Some(body));
    let read = (Method::GET, "/idp/users", None);
    let ask =
        post("/idp/explain", json!({"user": "erin", "client": "agent", "resource": world.canvas}));
    let cut_off = post("/idp/users/max/disable", json!({}));
    let change = post("/idp/users/max/enable", json!({}));
    let password =
        post("/idp/users/max/password", json!({"password": "a new and long passphrase"}));
    let appoint = post("/idp/administrators", json!({"name": "mallory", "role": "owner"}));
    let dismiss = post("/idp/administrators/delete", json!({"name": "mallory"}));
    let cases = [
        ("auditor", vec![&read, &ask], vec![&cut_off, &change, &password, &appoint, &dismiss]),
        ("helpdesk", vec![&read, &ask, &cut_off], vec![&change, &password, &appoint, &dismiss]),
        ("admin", vec![&read, &ask, &cut_off, &change, &password], vec![&appoint, &dismiss]),
        ("owner", vec![&read, &ask, &cut_off, &change, &password, &appoint, &dismiss], vec![]),
    ];
    for (role, may, may_not) in cases {
        let token = add(&world, "/idp", &format!("{role}@acme.example"), role).await;
        for (method, path, body) in may {
            let reply = world.administer_as(&token, method.clone(), path, body.clone()).await;
            assert!(reply.status < 300, "{role} {path}: {} {}", reply.status, reply.text);
        }
        for (method, path, body) in may_not {
            let before = rows(&world.idp_store).await.len();
            let reply = world.administer_as(&token, method.clone(), path, body.clone()).await;
            assert_eq!(reply.status, 403, "{role} {path}: {}", reply.text);
            assert!(reply.text.contains(&format!("`{role}`")), "{}", reply.text);
            let rows = rows(&world.idp_store).await;
            assert_eq!(rows.len(), before + 1, "{role} {path}: the refusal, and nothing else");
            assert_eq!(rows[0].details["reason"], "administrator.role");
            assert_eq!(rows[0].details["by"], format!("{role}@acme.example"));
        }
        // Only of the identity provider.
        for path in ["/ras/ras/clients", "/ras/ras/audit", "/nothing"] {
            let reply = world.administer_as(&token, Method::GET, path, None).await;
            assert_eq!(reply.status, 403, "{role} {path}: {}", reply.text);
        }
        assert_eq!(world.administer_as(&token, Method::GET, "/roles", None).await.status, 200);
    }
    let of_ras = add(&world, "/ras/ras", "ann@vendor.example", "owner").await;
    for path in ["/idp/users", "/ras/other/clients"] {
        let reply = world.administer_as(&of_ras, Method::GET, path, None).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text);
    }
    assert_eq!(
        world.administer_as(&of_ras, Method::GET, "/ras/ras/clients", None).await.status,
        200
    );
}

#[tokio::test]
async fn every_act_is_on_record_by_the_name_of_who_did_it() {
    let world = World::new().await;
    let token = add(&world, "/idp", "ann@acme.example", "owner").await;
    let act = |method: Method, path: &'static str, body: Value| {
        world.administer_as(&token, method, path, Some(body))
    };
    let user = act(Method::POST, "/idp/users", json!({"username": "new"})).await;
    assert_eq!(user.status, 200, "{}", user.text);
    for (method, path, body) in [
        (Method::POST, "/idp/users/new/groups", json!({"groups": ["engineering"]})),
        (Method::POST, "/idp/users/new/password", json!({"password": "a new and long passphrase"})),
        (Method::POST, "/idp/users/new/disable", json!({})),
        (Method::POST, "/idp/users/new/enable", json!({})),
        (Method::DELETE, "/idp/users/new", json!({})),
        (Method::POST, "/idp/groups", json!({"name": "sales"})),
        (Method::DELETE, "/idp/groups/sales", json!({})),
        (Method::POST, "/idp/clients", json!({"id": "c", "name": "C"})),
        (Method::POST, "/idp/clients/change", json!({"id": "c", "name": "D"})),
        (Method::POST, "/idp/clients/c/secret", json!({})),
        (Method::POST, "/idp/clients/c/disable", json!({})),
        (Method::DELETE, "/idp/clients/c", json!({})),
        (Method::POST, "/idp/authorization-servers", json!({"issuer": "https://as.example"})),
        (
            Method::POST,
            "/idp/resources",
            json!({"resource": "https://mcp.example", "authorization_server": "https://as.example",
                   "scopes": ["read"]}),
        ),
        (Method::POST, "/idp/resources/delete", json!({"id": "https://mcp.example"})),
        (Method::POST, "/idp/authorization-servers/delete", json!({"id": "https://as.example"})),
        (Method::POST, "/idp/administrators", json!({"name": "bob", "role": "auditor"})),
        (Method::POST, "/idp/administrators/renew", json!({"name": "bob", "days": 1})),
        (Method::POST, "/idp/administrators/delete", json!({"name": "bob"})),
    ] {
        let before = rows(&world.idp_store).await.len();
        let reply = act(method, path, body).await;
        assert!(reply.status < 300, "{path}: {} {}", reply.status, reply.text);
        let rows = rows(&world.idp_store).await;
        assert_eq!(rows.len(), before + 1, "{path}");
        let row = &rows[0];
        assert!(row.event.starts_with("admin."), "{row:?}");
        assert_eq!(row.details["by"], "ann@acme.example", "{row:?}");
        assert_eq!(row.details["address"], "127.0.0.1", "{row:?}");
        assert!(row.details.contains_key("request_id"), "{row:?}");
    }
    // Acts with the secret of the config are recorded differently from those of named
    // administrators.
    let _ = world.administer(Method::POST, "/idp/users/erin/disable", None).await;
    assert_eq!(world.last_event(&world.idp_store).await.details["by"], "the config's secret");
    for store in [&world.idp_store, &world.ras_store] {
        let all = rows(store).await;
        let of_the_test = |event: &str| event == "admin.create fixture";
        let admin = all.iter().filter(|row| row.event.starts_with("admin"));
        let admin = admin.filter(|row| !of_the_test(&row.event));
        assert!(admin.clone().all(|row| row.details.contains_key("by")), "{all:?}");
    }
}

#[tokio::test]
async fn a_token_ends_when_it_is_renewed_when_its_time_has_come_and_with_its_administrator() {
    let world = World::new().await;
    let status =
        async |token: &str| world.administer_as(token, Method::GET, "/idp/users", None).await;
    let first = add(&world, "/idp", "ann", "admin").await;
    assert_eq!(status(&first).await.status, 200);
    let again = json!({"name": "ann", "role": "owner"});
    let again = world.administer(Method::POST, "/idp/administrators", Some(again)).await;
    assert_eq!(again.status, 409, "a name is not taken over: {}", again.text);
    let renewal = Some(json!({"name": "ann", "days": 1}));
    let renewed = world.administer(Method::POST, "/idp/administrators/renew", renewal).await;
    let second = renewed.str("token").to_owned();
    assert_eq!(renewed.str("role"), "admin");
    assert_eq!(status(&first).await.status, 401);
    assert_eq!(status(&second).await.status, 200);
    // The stored verifier is useless on its own, and the API does not show it.
    let listed = world.administer(Method::GET, "/idp/administrators", None).await;
    for hidden in ["token", "proof", "key"] {
        assert!(!listed.text.contains(hidden), "{}", listed.text);
    }
    let wrong = [
        second.replace("ann.", "bob."),
        format!("{second}x"),
        second.trim_start_matches("administrator.").to_owned(),
        "administrator.ann.".to_owned(),
        "administrator..".to_owned(),
    ];
    for token in &wrong {
        assert_eq!(status(token).await.status, 401, "{token}");
    }
    world.pass(86_401);
    let ended = status(&second).await;
    assert_eq!(ended.status, 401);
    assert!(ended.text.contains("has ended"), "{}", ended.text);
    let row = world.last_event(&world.idp_store).await;
    assert_eq!(row.details["reason"], "administrator.expired");
    assert_eq!(row.details["by"], "ann");
    let renewal = Some(json!({"name": "ann"}));
    let renewed = world.administer(Method::POST, "/idp/administrators/renew", renewal).await;
    let third = renewed.str("token").to_owned();
    assert_eq!(status(&third).await.status, 200);
    // A restored backup may contain administrators who were removed since: their tokens are
    // expired.
    let event = AuditEvent::granted(RequestEvent::Restored, world.now());
    world.idp_store.after_restore(event.with(Detail::By, "a test"), world.now()).await.unwrap();
    assert_eq!(status(&third).await.status, 401);
    for (name, days, says) in [
        ("Ann", None, "`name`"),
        ("", None, "`name`"),
        ("a b", None, "`name`"),
        ("bob", Some(0), "`days`"),
        ("bob", Some(367), "`days`"),
    ] {
        let body = Some(json!({"name": name, "role": "auditor", "days": days}));
        let reply = world.administer(Method::POST, "/idp/administrators", body).await;
        assert_eq!(reply.status, 400, "{name} {days:?}: {}", reply.text);
        assert!(reply.text.contains(says), "{}", reply.text);
    }
    let body = Some(json!({"name": "bob", "role": "king"}));
    let reply = world.administer(Method::POST, "/idp/administrators", body).await;
    assert!(reply.text.contains("`role`") && reply.text.contains("auditor"), "{}", reply.text);
    let gone = Some(json!({"name": "ann"}));
    let gone = world.administer(Method::POST, "/idp/administrators/delete", gone).await;
    assert_eq!(gone.status, 204);
    assert_eq!(status(&third).await.status, 401);
}

#[tokio::test]
async fn who_is_turned_away_is_on_record_and_counted_and_bars_nobody_else() {
    let world = World::new().await;
    let token = add(&world, "/idp", "ann", "auditor").await;
    let mut answers = Vec::new();
    for _ in 0..40 {
        let reply = world.administer_as("wrong", Method::GET, "/idp/users", None).await;
        answers.push(reply.status);
    }
    // Each is rejected; the number of records is limited.
    assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
    let all = rows(&world.idp_store).await;
    let refused: Vec<_> = all
        .iter()
        .filter(|row| row.details.get("reason").is_some_and(|r| r == "administrator.unknown"))
        .collect();
    assert_eq!(refused.len(), 30);
    assert_eq!(refused[0].details["address"], "127.0.0.1");
    assert_eq!(refused[0].details["target"], "/idp/users");
    assert_eq!(world.administer_as(&token, Method::GET, "/idp/users", None).await.status, 200);
    assert_eq!(world.administer(Method::GET, "/idp/users", None).await.status, 200);
}

#[tokio::test]
async fn whoever_was_removed_since_they_were_let_in_does_nothing_any_more() {
    let world = World::new().await;
    let store = &world.idp_store;
    let _ = add(&world, "/idp", "mallory", "owner").await;
    let held: Administrator = store.by_id("mallory").await.unwrap().unwrap();
    let let_in = RestsOn {
        name: held.name.clone(),
        stored_key: held.proof.stored_key.clone(),
        role: AdminRole::Owner,
    };
    let made = async |name: &str, rests_on: &RestsOn| {
        let mut event = AuditEvent::granted(Event::Admin(Act::Create, "group"), world.now());
        event.rests_on = Some(rests_on.clone());
        let group = Group { name: name.to_owned(), description: String::new() };
        store.put(&group, Put::Create, event).await
    };
    assert!(made("before", &let_in).await.unwrap());
    let weaker = RestsOn { role: AdminRole::Admin, ..let_in.clone() };
    assert!(matches!(made("x", &weaker).await, Err(StoreError::NoAdministrator)), "another role");
    let renewal = Some(json!({"name": "mallory"}));
    world.administer(Method::POST, "/idp/administrators/renew", renewal).await;
    assert!(matches!(made("x", &let_in).await, Err(StoreError::NoAdministrator)), "renewed");
    let held: Administrator = store.by_id("mallory").await.unwrap().unwrap();
    let let_in = RestsOn { stored_key: held.proof.stored_key, ..let_in };
    assert!(made("between", &let_in).await.unwrap());
    world.pass(91 * 86_400);
    assert!(matches!(made("x", &let_in).await, Err(StoreError::NoAdministrator)), "ended");
    world.pass(-91 * 86_400);
    let gone = Some(json!({"name": "mallory"}));
    world.administer(Method::POST, "/idp/administrators/delete", gone).await;
    assert!(matches!(made("x", &let_in).await, Err(StoreError::NoAdministrator)), "removed");
    assert!(store.by_id::<Group>("x").await.unwrap().is_none(), "nothing half-done");
}

#[tokio::test]
async fn gateways_are_administered_where_what_is_done_to_them_goes_on_record() {
    let world = World::new().await;
    for (place, role, sees, approves) in [
        ("/idp", "auditor", 200, 403),
        ("/idp", "helpdesk", 200, 403),
        ("/idp", "admin", 200, 200),
        ("/ras/ras", "owner", 403, 403),
    ] {
        let token = add(&world, place, &format!("a-{role}"), role).await;
        let reply = world.administer_as(&token, Method::GET, "/gateway/tools", None).await;
        assert_eq!(reply.status, sees, "{place} {role}: {}", reply.text);
        if sees == 200 {
            assert_eq!(reply.text, format!("a-{role}"));
        }
        let body = Some(json!({}));
        let reply = world.administer_as(&token, Method::POST, "/gateway/approve", body).await;
        assert_eq!(reply.status, approves, "{place} {role}: {}", reply.text);
    }
    // Acts outside of the database are recorded first, if the caller is still an administrator.
    let held: Administrator = world.idp_store.by_id("a-admin").await.unwrap().unwrap();
    let mut event = AuditEvent::granted(Event::Admin(Act::Approve, "tool"), world.now())
        .with(Detail::By, "a-admin");
    event.rests_on = Some(RestsOn {
        name: held.name,
        stored_key: held.proof.stored_key,
        role: AdminRole::Admin,
    });
    world.idp_store.record_act(event.clone()).await.unwrap();
    assert_eq!(world.last_event(&world.idp_store).await.event, "admin.approve tool");
    let gone = Some(json!({"name": "a-admin"}));
    world.administer(Method::POST, "/idp/administrators/delete", gone).await;
    let refused = world.idp_store.record_act(event).await;
    assert!(matches!(refused, Err(StoreError::NoAdministrator)));
    assert_ne!(world.last_event(&world.idp_store).await.event, "admin.approve tool");
}

/// A raw request, without anything that a library would add or reject.
async fn raw(world: &World, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = world.admin.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = request.replace("{host}", host);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn odd_requests_get_nobody_in_and_leave_small_rows() {
    let world = World::new().await;
    let token = add(&world, "/idp", "ann", "owner").await;
    for credentials in
        ["", "authorization: Bearer \r\n", "authorization: Bearer\r\n", "authorization: \r\n"]
    {
        let request = format!(
            "GET /idp/users HTTP/1.1\r\nhost: {{host}}\r\nconnection: close\r\n{credentials}\r\n"
        );
        let answer = raw(&world, &request).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{credentials:?}: {answer}");
    }
    let method = "A".repeat(3_000);
    let request =
        format!("{method} /idp/users HTTP/1.1\r\nhost: {{host}}\r\nconnection: close\r\n\r\n");
    let answer = raw(&world, &request).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let row = world.last_event(&world.idp_store).await;
    assert!(row.details["method"].chars().count() <= 17, "{row:?}");
    // Requests from a page in a browser are rejected, whatever they contain.
    let ask = Ask {
        url: format!("{}/idp/users", world.admin),
        form: Vec::new(),
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {token}")),
            ("origin".to_owned(), "https://evil.example".to_owned()),
        ],
        method: Method::GET,
    };
    assert_eq!(world.send(&ask).await.status, 403);
    // Values that no database accepts are the caller's error.
    for (path, body) in [
        ("/idp/users/%00/disable", json!({})),
        ("/idp/administrators/delete", json!({"name": "m\u{0}"})),
    ] {
        let reply = world.administer_as(&token, Method::POST, path, Some(body)).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert!(reply.text.contains("NUL"), "{}", reply.text);
    }
    for name in [".", "..", "-x", "m\u{0}"] {
        let body = Some(json!({"name": name, "role": "auditor"}));
        let reply = world.administer(Method::POST, "/idp/administrators", body).await;
        assert_eq!(reply.status, 400, "{name:?}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_name_of_a_record_changes_nothing_about_who_may_act_on_it() {
    let world = World::new().await;
    let helpdesk = add(&world, "/idp", "bob", "helpdesk").await;
    for name in ["administrators", "disable", "explain", "links", "installations"] {
        let user = Some(json!({"username": name}));
        assert_eq!(world.administer(Method::POST, "/idp/users", user).await.status, 200);
        for (act, status) in [("disable", 200), ("enable", 403)] {
            let path = format!("/idp/users/{name}/{act}");
            let reply = world.administer_as(&helpdesk, Method::POST, &path, Some(json!({}))).await;
            assert_eq!(reply.status, status, "{path}: {}", reply.text);
        }
        let path = format!("/idp/users/{name}");
        let reply = world.administer_as(&helpdesk, Method::DELETE, &path, None).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_row_says_where_somebody_is_an_administrator_who_asks_elsewhere() {
    let world = World::new().await;
    let theirs = add(&world, "/ras/ras", "ann", "owner").await;
    let reply = world.administer_as(&theirs, Method::GET, "/idp/users", None).await;
    assert_eq!(reply.status, 403);
    let row = world.last_event(&world.idp_store).await;
    assert_eq!(row.details["by"], "ann of the authorization server `ras`");
    // Refusals of owners' operations are counted separately, so that others cannot crowd them out.
    let helpdesk = add(&world, "/idp", "bob", "helpdesk").await;
    for _ in 0..40 {
        world.administer_as(&helpdesk, Method::POST, "/idp/nothing", Some(json!({}))).await;
    }
    let owner = Some(json!({"name": "mallory", "role": "owner"}));
    let reply = world.administer_as(&helpdesk, Method::POST, "/idp/administrators", owner).await;
    assert_eq!(reply.status, 403, "{}", reply.text);
    let row = world.last_event(&world.idp_store).await;
    assert_eq!(row.details["target"], "/idp/administrators");
}
