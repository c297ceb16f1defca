//! Stored records outlive code: records that a later version wrote are read and preserved, and
//! unreadable ones are refused individually.

use passavant_proto::event::RequestEvent;
use passavant_proto::{
    oauth::client::GovernedResource,
    policy::Connection,
    xaa::trust::{Account, TrustedIssuer},
};
use passavant_store::{AuditEvent, Group, Record, User};
use passavant_tests::world::{AGENT, Ask, World};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Row, SqliteConnection};

/// A database file, changed behind the store's back: as another version writes it, or a careless
/// person.
struct Hand(SqliteConnection);

impl Hand {
    async fn on(world: &World, name: &str) -> Self {
        let file = world.folder().join(name);
        Self(SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap())
    }

    async fn read(&mut self, kind: &str, id: &str) -> Value {
        let row = sqlx::query("SELECT document FROM directory WHERE kind = $1 AND id = $2");
        let row = row.bind(kind).bind(id).fetch_one(&mut self.0).await.unwrap();
        serde_json::from_str(row.get(0)).unwrap()
    }

    /// Writes a document as it is, with a new generation.
    async fn write(&mut self, kind: &str, id: &str, document: &str) {
        let changed = sqlx::query("UPDATE directory SET document = $3 WHERE kind = $1 AND id = $2");
        let changed = changed.bind(kind).bind(id).bind(document);
        assert_eq!(changed.execute(&mut self.0).await.unwrap().rows_affected(), 1, "{kind} {id}");
        sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            .execute(&mut self.0)
            .await
            .unwrap();
    }

    async fn change(&mut self, kind: &str, id: &str, change: impl FnOnce(&mut Value)) {
        let mut document = self.read(kind, id).await;
        change(&mut document);
        self.write(kind, id, &document.to_string()).await;
    }
}

/// The id of a person.
async fn id_of(world: &World, name: &str) -> String {
    world.idp_store.by_name::<User>(name).await.unwrap().unwrap().id
}

async fn readyz(world: &World, at: &passavant_proto::identifier::Issuer) -> (u16, String) {
    // The result of a readiness probe is cached for a second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let ask = Ask {
        url: at.endpoint("/readyz"),
        form: Vec::new(),
        headers: Vec::new(),
        method: Method::GET,
    };
    let reply = world.send(&ask).await;
    (reply.status, reply.text)
}

#[tokio::test]
async fn a_member_that_only_a_later_version_knows_is_passed_over_and_stays() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let connections = world.idp_store.all::<Connection>().await.unwrap();
    let connection = connections.iter().find(|c| c.idp_client_id == AGENT).unwrap().id.clone();
    idp.change(Connection::KIND, &connection, |c| c["note"] = json!({"by": "a later version"}))
        .await;
    let erin = id_of(&world, "erin").await;
    idp.change(User::KIND, &erin, |user| user["phone"] = json!("+33")).await;
    idp.change("client", AGENT, |client| client["logo_uri"] = json!("https://logo.example")).await;
    let tokens = world.sign_in().await;
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // This version writes the record back with the members it does not know.
    for (path, body) in [
        (format!("/idp/connections/{connection}/disable"), json!({})),
        (format!("/idp/connections/{connection}/enable"), json!({})),
        ("/idp/users/erin/groups".to_owned(), json!({"groups": ["engineering"]})),
        ("/idp/clients/change".to_owned(), json!({"id": AGENT, "name": "Renamed"})),
    ] {
        let reply = world.administer(Method::POST, &path, Some(body)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    }
    assert_eq!(idp.read(Connection::KIND, &connection).await["note"]["by"], "a later version");
    assert_eq!(idp.read(User::KIND, &erin).await["phone"], "+33");
    let client = idp.read("client", AGENT).await;
    assert_eq!(
        (&client["logo_uri"], &client["name"]),
        (&json!("https://logo.example"), &json!("Renamed"))
    );
    let (status, text) = readyz(&world, &world.idp).await;
    assert_eq!((status, text.as_str()), (200, "ready\n"));
    // Requests stay strict.
    let body = json!({"username": "x", "phone": "+33"});
    let reply = world.administer(Method::POST, "/idp/users", Some(body)).await;
    assert!(reply.status == 400 && reply.text.contains("phone"), "{}", reply.text);
    let body = json!({"resource": "https://r.example", "scopes": [], "colour": 1});
    let reply = world.administer(Method::POST, "/ras/ras/resources", Some(body)).await;
    assert!(reply.status == 400 && reply.text.contains("colour"), "{}", reply.text);
}

#[tokio::test]
async fn one_spoiled_record_is_refused_by_itself_and_named() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let tokens = world.sign_in().await;
    let max = world.sign_in_as("max", AGENT).await;
    let others = async |why: &str| {
        let reply = world.send(&world.exchange(&tokens.id_token)).await;
        assert_eq!(reply.status, 200, "{why}: {}", reply.text);
    };
    let max_id = id_of(&world, "max").await;
    // A person, another client, another person's connection: truncated, malformed, or of a later
    // version.
    for (kind, id, document) in [
        (User::KIND, max_id.as_str(), "{\"id\": \"max\""),
        ("client", "sibling", "[]"),
        (Group::KIND, "sales", "{\"name\": 7}"),
    ] {
        if kind == Group::KIND {
            let made = Some(json!({"name": "sales"}));
            assert_eq!(world.administer(Method::POST, "/idp/groups", made).await.status, 200);
        }
        idp.write(kind, id, document).await;
        others(&format!("{kind} {id}")).await;
    }
    let connections = world.idp_store.all::<Connection>().await.unwrap();
    let other = connections.iter().find(|c| c.idp_client_id != AGENT).unwrap().id.clone();
    idp.change(Connection::KIND, &other, |c| {
        c["crit"] = json!(["only_from"]);
        c["only_from"] = json!("10.0.0.0/8");
    })
    .await;
    others("a connection that needs a later version").await;
    // They are refused, which is not breakage: for the person it is as if they did not exist.
    let ask = world
        .exchange(&max.id_token)
        .set("audience", world.other_ras.as_str())
        .set("resource", &world.notes);
    let reply = world.send(&ask).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    let listed = world.administer(Method::GET, "/idp/clients", None).await;
    assert!(listed.text.contains("cannot_be_read"), "{}", listed.text);
    let (status, text) = readyz(&world, &world.idp).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains(&format!("connection `{other}`: it needs `only_from`")), "{text}");
    assert!(
        text.contains("client `sibling`") && text.contains(&format!("user `{max_id}`")),
        "{text}"
    );
    // It can be deleted, and added again.
    let gone = world.administer(Method::DELETE, "/idp/clients/sibling", None).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    let gone = world.administer(Method::DELETE, &format!("/idp/connections/{other}"), None).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    let (_, text) = readyz(&world, &world.idp).await;
    assert!(!text.contains("sibling") && !text.contains(&other), "{text}");
    others("after it").await;
}

#[tokio::test]
async fn a_document_that_names_another_record_is_no_way_to_change_that_one() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    for name in ["ga", "gb"] {
        let made = Some(json!({"name": name, "description": name}));
        assert_eq!(world.administer(Method::POST, "/idp/groups", made).await.status, 200);
    }
    idp.change(Group::KIND, "ga", |group| group["name"] = json!("gb")).await;
    let erin = id_of(&world, "erin").await;
    let max = id_of(&world, "max").await;
    idp.change(User::KIND, &max, |user| user["id"] = json!(erin)).await;
    for (method, path, body) in [
        (Method::PATCH, "/idp/groups/ga".to_owned(), Some(json!({"description": "x"}))),
        (Method::POST, format!("/idp/users/{max}/disable"), None),
        (Method::PATCH, format!("/idp/users/{max}"), Some(json!({"display_name": "x"}))),
    ] {
        let reply = world.administer(method, &path, body).await;
        assert!(reply.status >= 400, "{path}: {}", reply.text);
    }
    assert_eq!(idp.read(Group::KIND, "gb").await["description"], "gb");
    let erin = world.idp_store.by_name::<User>("erin").await.unwrap().unwrap();
    assert!(!erin.is_off() && erin.display_name.as_deref() != Some("x"));
    // Groups of theirs can be deleted.
    assert_eq!(world.administer(Method::DELETE, "/idp/groups/gb", None).await.status, 204);
}

#[tokio::test]
async fn what_is_not_known_of_a_refresh_token_goes_on_with_its_successor() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let token = world.sign_in().await.refresh_token;
    let sql = "UPDATE refresh_tokens SET document = REPLACE(document, '{\"family\"', '{\"later\":[1e2],\"family\"')";
    assert_eq!(sqlx::query(sql).execute(&mut idp.0).await.unwrap().rows_affected(), 1);
    let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    let reply = world.send(&world.ask(&world.idp, "/token", &form)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let rows = sqlx::query("SELECT document FROM refresh_tokens").fetch_all(&mut idp.0);
    let rows = rows.await.unwrap();
    let kept = rows.iter().filter(|row| {
        let document: &str = row.get(0);
        document.contains(r#""later":[1e2]"#)
    });
    assert_eq!(kept.count(), 2, "the one that was replaced, and its successor");
}

#[tokio::test]
async fn one_spoiled_record_of_a_vendor_leaves_the_others_their_tokens() {
    let world = World::new().await;
    let mut ras = Hand::on(&world, "ras.db").await;
    let redeem = async |resource: &str| {
        let mut claims = world.id_jag_claims();
        claims["resource"] = json!(resource);
        world.send(&world.redeem(&world.id_jag(&claims))).await
    };
    assert_eq!(redeem(&world.boards).await.status, 200);
    ras.write(GovernedResource::KIND, &world.boards, "{}").await;
    assert_eq!(redeem(&world.canvas).await.status, 200);
    let reply = redeem(&world.boards).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    let (status, text) = readyz(&world, &world.ras).await;
    assert_eq!(status, 200);
    // The public response names no record.
    assert!(
        text.contains("1 stored record is left out") && !text.contains(&world.boards),
        "{text}"
    );
    // A trust record that cannot be read trusts nobody.
    let trust = ras.read(TrustedIssuer::KIND, world.idp.as_str()).await;
    ras.write(TrustedIssuer::KIND, world.idp.as_str(), "{}").await;
    let reply = redeem(&world.canvas).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    ras.write(TrustedIssuer::KIND, world.idp.as_str(), &trust.to_string()).await;
    // A person's unreadable account is refused, and no other one is created for them.
    let accounts = world.ras_store.all::<Account>().await.unwrap();
    for account in &accounts {
        ras.write(Account::KIND, &account.id, "{").await;
    }
    let before = accounts.len();
    let reply = redeem(&world.canvas).await;
    assert_eq!((reply.status, reply.str("error")), (400, "access_denied"), "{}", reply.text);
    let left = world.ras_store.all::<Account>().await.unwrap();
    assert!(left.is_empty() && before > 0, "{left:?}");
}

#[tokio::test]
async fn nobody_inherits_by_a_name_from_a_record_that_cannot_be_read() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let connections = world.idp_store.all::<Connection>().await.unwrap();
    let connection = connections.iter().find(|c| c.idp_client_id == AGENT).unwrap().clone();
    // As a later version would write it.
    idp.change(Connection::KIND, &connection.id, |c| c["crit"] = json!(["later"])).await;
    let erin = id_of(&world, "erin").await;
    idp.change(User::KIND, &erin, |user| user["crit"] = json!(["later"])).await;
    for path in [format!("/idp/clients/{AGENT}"), "/idp/groups/engineering".to_owned()] {
        assert_eq!(world.administer(Method::DELETE, &path, None).await.status, 204, "{path}");
    }
    let event = AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    let still = world.idp_store.delete::<Connection>(&connection.id, event).await.unwrap();
    assert!(!still, "it went with its client");
    let erin = idp.read(User::KIND, &erin).await;
    assert!(!erin["groups"].to_string().contains("engineering"), "{erin}");
    assert_eq!(erin["crit"], json!(["later"]));
}

#[tokio::test]
async fn what_cannot_be_read_can_be_taken_away_and_hides_nothing_else() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let mut ras = Hand::on(&world, "ras.db").await;
    let max = world.sign_in_as("max", AGENT).await;
    let id = id_of(&world, "max").await;
    idp.change(User::KIND, &id, |user| user["crit"] = json!(["later"])).await;
    let ask = |method: Method, path: &str, body: Option<Value>| {
        let (world, path) = (&world, path.to_owned());
        async move { world.administer(method, &path, body).await }
    };
    // Operations that need the record report an error, and change nothing.
    for (method, path, body) in [
        (Method::GET, "/idp/users/max", None),
        (Method::POST, "/idp/users/max/disable", None),
        (Method::POST, "/idp/users/max/groups", Some(json!({"groups": []}))),
    ] {
        let reply = ask(method, path, body).await;
        assert_eq!(reply.status, 409, "{path}: {}", reply.text);
        assert!(reply.text.contains("`later`") && reply.text.contains("delete"), "{}", reply.text);
    }
    for path in ["/idp/users", "/idp/installations", "/idp/audit"] {
        let reply = ask(Method::GET, path, None).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    }
    assert_eq!(ask(Method::DELETE, "/idp/users/max", None).await.status, 204);
    assert!(world.idp_store.unreadable().is_empty(), "{:?}", world.idp_store.unreadable());
    // A new person of the same name inherits nothing.
    let again = Some(json!({"username": "max", "groups": ["engineering"]}));
    assert_eq!(ask(Method::POST, "/idp/users", again).await.status, 200);
    let reply = world.send(&world.exchange(&max.id_token)).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    // An administrator whose record cannot be read has no rights, and that is recorded.
    let ann = Some(json!({"name": "ann", "role": "owner"}));
    let token = ask(Method::POST, "/ras/ras/administrators", ann).await.str("token").to_owned();
    ras.write("administrator", "ann", "{}").await;
    let reply = world.administer_as(&token, Method::GET, "/ras/ras/clients", None).await;
    assert_eq!(reply.status, 401, "{}", reply.text);
    let row = world.last_event(&world.ras_store).await;
    assert_eq!(row.details["reason"], "administrator.unknown");
    let gone = Some(json!({"name": "ann"}));
    assert_eq!(ask(Method::POST, "/ras/ras/administrators/delete", gone).await.status, 204);
    assert!(world.ras_store.unreadable().is_empty());
}

#[tokio::test]
async fn what_was_closed_does_not_open_because_it_cannot_be_read() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let mut ras = Hand::on(&world, "ras.db").await;
    let tokens = world.sign_in().await;
    let decides = async |resource: &str, server: &str| {
        let url = world.idp.endpoint("/catalog");
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("resource", resource)
            .append_pair("authorization_server", server)
            .finish();
        let reply = world
            .http
            .get(format!("{url}?{query}"))
            .header("authorization", format!("Bearer {}", tokens.access_token));
        let reply: Value = reply.send().await.unwrap().json().await.unwrap();
        reply["company_decides"].clone()
    };
    let elsewhere = "https://elsewhere.example";
    assert_eq!(decides("https://elsewhere.example/mcp", elsewhere).await, false);
    assert_eq!(decides("https://new.example/mcp", world.ras.as_str()).await, true);
    // The company governs a server whose record cannot be read: nobody is sent to the vendor's
    // consent page.
    let server = idp.read("authorization server", world.ras.as_str()).await;
    idp.change("authorization server", world.ras.as_str(), |s| {
        s["release"] = json!(["groups"]);
        s["aliases"] = json!(["https://alias.example"]);
    })
    .await;
    idp.change("resource", &world.canvas, |resource| resource["crit"] = json!(["later"])).await;
    assert_eq!(decides("https://new.example/mcp", world.ras.as_str()).await, true);
    assert_eq!(decides("https://new.example/mcp", "https://alias.example/").await, true);
    assert_eq!(decides(&world.canvas, "https://unknown.example").await, true);
    assert_eq!(decides("https://elsewhere.example/mcp", elsewhere).await, false);
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert_eq!((reply.status, reply.str("error")), (400, "access_denied"), "{}", reply.text);
    // Its aliases are unknown now, so every server counts as governed.
    idp.write("authorization server", world.ras.as_str(), "{\"iss").await;
    assert_eq!(decides("https://elsewhere.example/mcp", elsewhere).await, true);
    idp.write("authorization server", world.ras.as_str(), &server.to_string()).await;
    // An unreadable group grants nothing.
    let group = idp.read(Group::KIND, "engineering").await;
    let explained = async || {
        let ask = json!({"user": "erin", "client": AGENT, "resource": world.boards});
        let reply = world.administer(Method::POST, "/idp/explain", Some(ask)).await;
        reply.json["granted"].clone()
    };
    assert_eq!(explained().await, true);
    idp.change(Group::KIND, "engineering", |group| group["crit"] = json!(["at_night"])).await;
    assert_eq!(explained().await, false);
    idp.write(Group::KIND, "engineering", &group.to_string()).await;
    assert_eq!(explained().await, true);
    // The only readable one does not count as the only one.
    let mut claims = world.id_jag_claims();
    claims.as_object_mut().unwrap().remove("resource");
    for governed in world.ras_store.all::<GovernedResource>().await.unwrap() {
        if governed.resource.as_str() != world.canvas {
            ras.write(GovernedResource::KIND, governed.resource.normalized(), "{}").await;
        }
    }
    let reply = world.send(&world.redeem(&world.id_jag(&claims))).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
}

#[tokio::test]
async fn rows_of_sign_ins_that_cannot_be_read_stand_for_nothing_and_can_be_revoked() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let tokens = world.sign_in().await;
    let other = world.sign_in_as("max", AGENT).await;
    let spoil = |of: &'static str| format!("UPDATE {of} SET document = '{{\"x' WHERE user_id = $1");
    let erin = id_of(&world, "erin").await;
    let spoiled = sqlx::query(sqlx::AssertSqlSafe(spoil("refresh_tokens"))).bind(&erin);
    assert_eq!(spoiled.execute(&mut idp.0).await.unwrap().rows_affected(), 1);
    let refresh = |token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        world.ask(&world.idp, "/token", &form)
    };
    let reply = world.send(&refresh(&tokens.refresh_token)).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    let unreadable = world.idp_store.unreadable();
    assert!(unreadable.iter().any(|(kind, ..)| *kind == "refresh token"), "{unreadable:?}");
    let reply = world.send(&refresh(&other.refresh_token)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // Revoked by the columns of the row, without its document.
    let revoke = world.ask(&world.idp, "/revoke", &[("token", &tokens.refresh_token)]);
    let reply = world.send(&revoke).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let sql = "SELECT COUNT(*) FROM refresh_tokens WHERE user_id = $1 AND revoked_at IS NULL";
    let left: i64 = sqlx::query(sql).bind(&erin).fetch_one(&mut idp.0).await.unwrap().get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_row_that_is_no_text_is_the_only_one_that_is_not_read() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let tokens = world.sign_in().await;
    let max = id_of(&world, "max").await;
    let made = world.administer(Method::POST, "/idp/groups", Some(json!({"name": "sales"}))).await;
    assert_eq!(made.status, 200, "{}", made.text);
    for (kind, id, bytes) in [
        ("client", "sibling", "x'7b22ff'"),
        (User::KIND, max.as_str(), "CAST(x'7b2280227d' AS TEXT)"),
        (Group::KIND, "sales", "x''"),
    ] {
        let sql = format!("UPDATE directory SET document = {bytes} WHERE kind = $1 AND id = $2");
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(kind).bind(id);
        assert_eq!(done.execute(&mut idp.0).await.unwrap().rows_affected(), 1);
        sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            .execute(&mut idp.0)
            .await
            .unwrap();
        let reply = world.send(&world.exchange(&tokens.id_token)).await;
        assert_eq!(reply.status, 200, "{kind}: {}", reply.text);
    }
    for path in ["/idp/users", "/idp/clients", "/idp/groups"] {
        let reply = world.administer(Method::GET, path, None).await;
        assert!(reply.status == 200 && reply.text.contains("cannot_be_read"), "{}", reply.text);
    }
    let url = format!("sqlite:{}", world.folder().join("idp.db").display());
    let again = passavant_store::Store::open(&url).await.unwrap();
    assert!(again.policy(&world.idp).await.is_ok());
}

#[tokio::test]
async fn a_domain_of_an_issuer_that_cannot_be_read_is_nobody_elses() {
    let world = World::new().await;
    let mut ras = Hand::on(&world, "ras.db").await;
    ras.change(TrustedIssuer::KIND, world.idp.as_str(), |t| t["crit"] = json!(["later"])).await;
    let other = json!({"issuer": "https://other.example"});
    let made = world.administer(Method::POST, "/ras/ras/trusted-issuers", Some(other)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let sign_in = json!({"id": "https://other.example", "sign_in": {
        "client_id": "c", "domains": ["acme.example"]}});
    let path = "/ras/ras/trusted-issuers/sign-in";
    let refused = world.administer(Method::POST, path, Some(sign_in)).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains(world.idp.as_str()), "{}", refused.text);
}

#[tokio::test]
async fn ready_is_said_while_a_decision_can_be_recorded_and_no_longer() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    assert_eq!(readyz(&world, &world.idp).await.0, 200);
    for (break_it, mend) in [
        ("ALTER TABLE audit RENAME TO away", "ALTER TABLE away RENAME TO audit"),
        ("ALTER TABLE sessions RENAME TO away", "ALTER TABLE away RENAME TO sessions"),
        (
            "CREATE TRIGGER no BEFORE INSERT ON grants BEGIN SELECT RAISE(ABORT, 'no'); END",
            "DROP TRIGGER no",
        ),
        (
            "UPDATE meta SET value = 99 WHERE key = 'schema'",
            "UPDATE meta SET value = 1 WHERE key = 'schema'",
        ),
    ] {
        sqlx::raw_sql(break_it).execute(&mut idp.0).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(readyz(&world, &world.idp).await.0, 503, "{break_it}");
        sqlx::raw_sql(mend).execute(&mut idp.0).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(readyz(&world, &world.idp).await.0, 200, "{mend}");
    }
    let sql = "SELECT COUNT(*) FROM audit WHERE event = 'probe'";
    let left: i64 = sqlx::query(sql).fetch_one(&mut idp.0).await.unwrap().get(0);
    assert_eq!(left, 0, "a probe leaves nothing");
}

#[tokio::test]
async fn a_start_waits_for_a_file_that_another_program_has_locked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("idp.db");
    let url = format!("sqlite:{}", file.display());
    passavant_store::Store::open(&url).await.unwrap().close().await;
    let mut other =
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::raw_sql("DELETE FROM meta WHERE key = 'additions'; BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::raw_sql("INSERT INTO meta VALUES ('additions', 99)").execute(&mut other).await.unwrap();
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    };
    let (store, ()) = tokio::join!(passavant_store::Store::open(&url), release);
    store.unwrap().claim("idp", "https://idp.example").await.unwrap();
}

#[tokio::test]
async fn after_a_restore_no_token_of_an_administrator_is_good_read_or_unread() {
    let world = World::new().await;
    let mut idp = Hand::on(&world, "idp.db").await;
    let ann = Some(json!({"name": "ann", "role": "owner"}));
    let made = world.administer(Method::POST, "/idp/administrators", ann).await;
    let token = made.str("token").to_owned();
    let document = idp.read("administrator", "ann").await;
    idp.change("administrator", "ann", |ann| ann["crit"] = json!(["later"])).await;
    let event = AuditEvent::granted(RequestEvent::Restored, world.now());
    world.idp_store.after_restore(event, world.now()).await.unwrap();
    let sql = "UPDATE directory SET document = $1 WHERE kind = 'administrator' AND id = 'ann'";
    sqlx::query(sql).bind(document.to_string()).execute(&mut idp.0).await.unwrap();
    let reply = world.administer_as(&token, Method::GET, "/idp/users", None).await;
    assert_eq!(reply.status, 401, "{}", reply.text);
}

#[tokio::test]
async fn a_database_of_one_role_is_not_claimed_for_the_other() {
    let folder = tempfile::tempdir().unwrap();
    for (role, other, record) in [("idp", "ras", "user"), ("ras", "idp", "account")] {
        let file = folder.path().join(format!("{role}.db"));
        let url = format!("sqlite:{}", file.display());
        let store = passavant_store::Store::open(&url).await.unwrap();
        let mut hand =
            SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        sqlx::query("INSERT INTO directory (kind, id, name, document) VALUES ($1, 'x', 'x', '{}')")
            .bind(record)
            .execute(&mut hand)
            .await
            .unwrap();
        let refused = store.claim(other, "https://a.example").await.unwrap_err().to_string();
        assert!(refused.contains(record), "{refused}");
        store.claim(role, "https://a.example").await.unwrap();
    }
}
