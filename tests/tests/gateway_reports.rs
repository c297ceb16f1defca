//! What a gateway reports to the company, and which tokens the company issues to it for a caller.

use passavant_proto::{
    identifier::Resource,
    oauth::client::{Client, ClientAuthentication, SecretHash},
    policy::Subject,
};
use passavant_store::{AuditEvent, AuditFilter, AuditRow, Put};
use passavant_tests::{
    forge::Parts,
    world::{AGENT, Ask, Expected, World},
};
use serde_json::{Value, json};
use sqlx::Connection as _;

/// Registers the gateway in front of `canvas` as a client of the IdP.
async fn gateway(world: &World) {
    let hash = SecretHash { hash: world.secret.hash(), expires: None };
    let client = Client {
        id: "front".to_owned(),
        name: "The gateway before canvas".to_owned(),
        authentication: ClientAuthentication::Secret(vec![hash]),
        resources: vec![Resource::parse(&world.canvas).unwrap()],
        ..Client::default()
    };
    let event = AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    assert!(world.idp_store.put(&client, Put::Create, event).await.unwrap());
}

fn line(world: &World, txn: &str, more: &Value) -> String {
    let mut line = json!({"kind": "decision", "at": world.now().0, "call": world.id(),
        "resource": world.canvas, "person": "account-1", "client": "agent-at-ras", "txn": txn,
        "method": "tools/call", "target": "draw", "outcome": "granted", "rule": "draw"});
    for (name, value) in more.as_object().unwrap() {
        line[name] = value.clone();
    }
    line.to_string()
}

fn report(world: &World, batch: &str, lines: &str) -> Ask {
    world
        .ask(&world.idp, "/gateway-records", &[("batch", batch), ("lines", lines)])
        .basic("front", world.secret.expose())
}

async fn rows(world: &World, event: &str) -> Vec<AuditRow> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    rows.into_iter().filter(|row| row.event == event).collect()
}

#[tokio::test]
async fn one_trail_from_the_login_to_the_tool_call() {
    let world = World::new().await;
    gateway(&world).await;
    let token = Parts::of(&world.access_token().await).claims;
    let txn = token["txn"].as_str().unwrap();
    let lines = [
        line(&world, txn, &json!({})),
        line(&world, "made-up", &json!({"outcome": "refused", "reason": "operation.no_rule"})),
    ]
    .join("\n");
    let reply = world.send(&report(&world, "1 0", &lines)).await;
    assert_eq!((reply.status, reply.json["rows"].as_i64()), (200, Some(2)), "{}", reply.text);
    let calls = rows(&world, "mcp_call").await;
    assert_eq!(calls.len(), 2);
    let [refused, granted] = [&calls[0], &calls[1]];
    // With the company's own identifiers, from the ID-JAG that it issued, besides the vendor's.
    assert_eq!((granted.person.as_str(), granted.client.as_str()), ("erin-id", AGENT));
    assert_eq!(granted.details["account"], "account-1");
    assert_eq!(granted.details["ras_client_id"], "agent-at-ras");
    assert_eq!(granted.details["gateway"], "front");
    let exchange = rows(&world, "token_exchange").await;
    assert_eq!(exchange[0].details["jti"], granted.details["txn"], "the grant leads to the call");
    assert_eq!(refused.person, "", "an ID-JAG that is not ours names nobody");
    assert_eq!(
        (refused.outcome.as_str(), refused.details["reason"].as_str()),
        ("refused", "operation.no_rule")
    );
    // A repeated report is not recorded again.
    let reply = world.send(&report(&world, "1 0", &lines)).await;
    assert_eq!((reply.status, reply.json["rows"].as_i64()), (200, Some(0)));
    assert_eq!(rows(&world, "mcp_call").await.len(), 2);
}

#[tokio::test]
async fn a_gateway_speaks_of_its_own_servers_alone() {
    let world = World::new().await;
    gateway(&world).await;
    let token = Parts::of(&world.access_token().await).claims;
    let txn = token["txn"].as_str().unwrap();
    let store = &world.idp_store;
    let foreign = line(&world, txn, &json!({"resource": world.boards}));
    let mixed = format!("{}\n{foreign}", line(&world, txn, &json!({})));
    for (case, lines) in [("another server", &foreign), ("among others", &mixed)] {
        let expected = Expected(400, "invalid_request", "request.malformed");
        world.refuses(store, case, &report(&world, "1 0", lines), expected).await;
    }
    // A client that stands for no MCP server, and no client at all.
    let ask = report(&world, "1 0", &line(&world, txn, &json!({})));
    let other = ask.clone().basic(AGENT, world.secret.expose());
    world
        .refuses(store, "no gateway", &other, Expected(400, "invalid_request", "request.malformed"))
        .await;
    let nobody = ask.clone().no_header("authorization");
    world
        .refuses(
            store,
            "nobody",
            &nobody,
            Expected(401, "invalid_client", "client.unauthenticated"),
        )
        .await;
    let bad = ask.clone().basic("front", "wrong");
    world
        .refuses(store, "wrong secret", &bad, Expected(401, "invalid_client", "client.secret"))
        .await;
    assert!(rows(&world, "mcp_call").await.is_empty());
    assert_eq!(world.send(&ask).await.status, 200, "the baseline still passes");
}

fn hop(world: &World, token: &str) -> Ask {
    world
        .ask(
            &world.idp,
            "/token",
            &[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:id-jag"),
                ("audience", world.other_ras.as_str()),
                ("resource", &world.notes),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                ("subject_token", token),
            ],
        )
        .basic("front", world.secret.expose())
}

#[tokio::test]
async fn a_gateway_goes_on_in_its_callers_name_where_a_connection_lets_it() {
    let world = World::new().await;
    gateway(&world).await;
    let token = world.access_token().await;
    let store = &world.idp_store;
    let refused = Expected(400, "access_denied", "policy.not_connected");
    world.refuses(store, "no connection of its own", &hop(&world, &token), refused).await;
    let mut connection = world.connection("front", "agent-at-ras");
    connection.audience = world.other_ras.clone();
    connection.resources = vec![Resource::parse(&world.notes).unwrap()];
    connection.subjects = vec![Subject::Everyone];
    let event = AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    assert!(store.put(&connection, Put::Create, event).await.unwrap());
    let reply = world.send(&hop(&world, &token)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let claims = Parts::of(reply.str("access_token")).claims;
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("erin-id"), &json!(world.other_ras)));
    assert_eq!(claims["resource"], world.notes);
    let row = world.last_event(store).await;
    assert_eq!((row.person.as_str(), row.client.as_str()), ("erin-id", "front"));
    assert_eq!(row.details["txn"], Parts::of(&token).claims["txn"].as_str().unwrap());
    // The subject token has to be valid, and for a server that the gateway stands for.
    let subject = |reason| Expected(400, "invalid_grant", reason);
    let boards = world.access_token_unbound().await;
    let cases = [
        ("a token for another server", boards, "subject.token"),
        ("an ID token", world.sign_in().await.id_token, "subject.token"),
        ("an ID-JAG", world.id_jag(&world.id_jag_claims()), "subject.token"),
        ("nonsense", "x".to_owned(), "subject.token"),
    ];
    for (case, token, reason) in cases {
        world.refuses(store, case, &hop(&world, &token), subject(reason)).await;
    }
    let mut forged = Parts::of(&token).claims;
    forged["txn"] = "made-up".into();
    let header = world.ras_key.header("at+jwt").to_string();
    let forged = world.ras_key.sign(&header, forged.to_string().as_bytes());
    let not_live = subject("subject.not_live");
    world.refuses(store, "no ID-JAG of ours", &hop(&world, &forged), not_live).await;
    let other = hop(&world, &token).basic(AGENT, world.secret.expose());
    let kind = Expected(400, "invalid_request", "exchange.subject_token_type");
    world.refuses(store, "a client that stands for nothing", &other, kind).await;
    // Everything that the first hop rests on has to be live for the second one, too.
    for (record, id) in [("connections", "agent-canvas"), ("clients", AGENT)] {
        for (act, stands) in [("disable", false), ("enable", true)] {
            let path = format!("/idp/{record}/{id}/{act}");
            let done = world.administer(reqwest::Method::POST, &path, None).await;
            assert!(done.status < 300, "{path}: {} {}", done.status, done.text);
            let reply = world.send(&hop(&world, &token)).await;
            assert_eq!(reply.status == 200, stands, "{path} {id}: {}", reply.text);
        }
    }
    // If another node removed a server from the gateway a moment ago, that takes effect here, even
    // if there was no other request since.
    let file = world.folder().join("idp.db");
    let mut other =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let mut stand_for = async |resources: &Value| {
        let sql = "UPDATE directory SET document = json_set(document, '$.resources', json($1)) \
                   WHERE kind = 'client' AND id = 'front'";
        let set = sqlx::query(sql).bind(resources.to_string()).execute(&mut other).await.unwrap();
        assert_eq!(set.rows_affected(), 1);
    };
    let ask = hop(&world, &token);
    stand_for(&json!([])).await;
    let reply = world.send(&ask).await;
    assert_ne!(reply.status, 200, "{}", reply.text);
    stand_for(&json!([world.canvas])).await;
    let reply = world.send(&ask).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // Disabling the person ends this, too.
    let off = world.administer(reqwest::Method::POST, "/idp/users/erin/disable", None).await;
    assert_eq!(off.status, 200, "{}", off.text);
    let gone = world.send(&hop(&world, &token)).await;
    assert_eq!((gone.status, gone.str("error")), (400, "invalid_grant"));
}

#[tokio::test]
async fn a_report_dates_nothing_before_or_after_its_time_and_names_no_server_of_others() {
    let world = World::new().await;
    gateway(&world).await;
    let token = Parts::of(&world.access_token().await).claims;
    let txn = token["txn"].as_str().unwrap();
    let now = world.now();
    let dates = [0, 1, i64::MAX, i64::MIN, now.0 + 3600, now.0 - 91 * 86_400, now.0 - 3600];
    let mut lines: Vec<String> =
        dates.iter().map(|at| line(&world, txn, &json!({"at": at}))).collect();
    lines.push(
        json!({"kind": "shed", "at": now.0, "outcomes": 3, "resource": world.boards}).to_string(),
    );
    let reply = world.send(&report(&world, "1 0", &lines.join("\n"))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let mut told: Vec<i64> = rows(&world, "mcp_call").await.iter().map(|row| row.at.0).collect();
    told.sort_unstable();
    // The last time is plausible; the others are replaced by the time of the report.
    let mut expected = vec![now.0; 6];
    expected.insert(0, now.0 - 3600);
    assert_eq!(told, expected);
    for row in rows(&world, "mcp_call").await {
        assert_eq!(row.details["told_at"], now.0.to_string());
    }
    let shed = rows(&world, "mcp_outcomes_shed").await;
    assert_eq!(shed[0].details.get("resource").map_or("", String::as_str), "");
}
