//! Administration: the life cycle of records through the typed client, who may do what, and
//! requests that arrive twice or late.

use passavant_admin::{
    client::{AdminClient, ClientError, Entry, ServerClient},
    types::{
        AccountChange, Accounts, AdministratorChange, Administrators, AuditQuery,
        AuthorizationServers, ClientChange, ClientHosts, Clients, ConnectionChange, Connections,
        GovernedChange, GovernedResources, GroupChange, Groups, Kind, ListQuery, NewAdministrator,
        NewClient, NewGroup, NewUser, Problem, ResourceChange, Resources, ServerChange,
        TrustChange, TrustedIssuers, UserChange, Users, WhoseQuery,
    },
};
use passavant_outbound::Outbound;
use passavant_proto::secret::{Secret, sha256};
use passavant_store::AdminRole;
use passavant_tests::world::{AGENT, Ask, Reply, World};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn client(world: &World) -> AdminClient {
    client_of(world, world.admin_secret.clone())
}

fn client_of(world: &World, secret: Secret) -> AdminClient {
    let outbound = Outbound::new(&[]).unwrap();
    AdminClient::new(&world.admin, Entry::Secret(secret), world.entropy(), outbound)
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    match answer {
        Err(ClientError::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

/// Adds, lists, shows and deletes a record; changes it with its current ETag, and not with an old
/// one; and compares what is deleted with what was announced.
async fn lives<K: Kind>(
    server: &ServerClient,
    id: &str,
    new: K::New,
    changes: [K::Change; 2],
    changed: (&str, Value),
) where
    K::View: std::fmt::Debug,
{
    server.add::<K>(&new).await.unwrap();
    assert_eq!(refusal(server.add::<K>(&new).await).status, 409, "{} twice", K::NOUN);
    let (shown, tag) = server.show_tagged::<K>(id).await.unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    assert!(!tag.is_empty());
    let (all, unreadable) = server.all::<K>(None).await.unwrap();
    let all: Vec<Value> = all.iter().map(|one| serde_json::to_value(one).unwrap()).collect();
    assert!(all.contains(&shown) && unreadable.is_empty(), "{}: {all:?}", K::NOUN);
    let [first, second] = changes;
    let after = server.change::<K>(id, &first, Some(&tag)).await.unwrap();
    let after = serde_json::to_value(after).unwrap();
    assert_eq!(after[changed.0], changed.1, "{}", K::NOUN);
    for (name, value) in shown.as_object().unwrap() {
        if *name != changed.0 && name != "email_verified" {
            assert_eq!(after[name], *value, "{}: {name} was not named", K::NOUN);
        }
    }
    let late = server.change::<K>(id, &second, Some(&tag)).await;
    assert_eq!(refusal(late).status, 412, "{}: an old tag", K::NOUN);
    let still = serde_json::to_value(server.show::<K>(id).await.unwrap()).unwrap();
    assert_eq!(still, after, "{}: nothing was done", K::NOUN);
    if shown.get("disabled").is_some() {
        let off = serde_json::to_value(server.switch::<K>(id, false).await.unwrap()).unwrap();
        assert_eq!(off["disabled"], true);
        let on = serde_json::to_value(server.switch::<K>(id, true).await.unwrap()).unwrap();
        assert_eq!(on["disabled"], false);
    }
    server.dependents::<K>(id).await.unwrap();
    server.delete::<K>(id).await.unwrap();
    assert_eq!(refusal(server.show::<K>(id).await).status, 404, "{}", K::NOUN);
    assert_eq!(refusal(server.delete::<K>(id).await).status, 404, "{}", K::NOUN);
    assert_eq!(refusal(server.change::<K>(id, &second, None).await).status, 404, "{}", K::NOUN);
}

#[tokio::test]
async fn every_kind_of_record_is_added_shown_changed_switched_and_deleted() {
    let world = World::new().await;
    let (idp, ras) = (client(&world).idp(), client(&world).ras("ras"));
    let renamed = |name: &str| json!({"name": name});
    lives::<Groups>(
        &idp,
        "sales",
        NewGroup { name: "sales".to_owned(), description: String::new() },
        [
            GroupChange { description: Some("sell".to_owned()) },
            GroupChange { description: Some("late".to_owned()) },
        ],
        ("description", json!("sell")),
    )
    .await;
    lives::<Users>(
        &idp,
        "nora",
        NewUser { username: "Nora".to_owned(), ..NewUser::default() },
        [
            UserChange {
                email: Some(Some("nora@acme.example".to_owned())),
                ..UserChange::default()
            },
            UserChange { email: Some(None), ..UserChange::default() },
        ],
        ("email", json!("nora@acme.example")),
    )
    .await;
    for server in [&idp, &ras] {
        let redirects = vec!["https://app.example/cb".to_owned()];
        lives::<Clients>(
            server,
            "tool",
            NewClient {
                id: Some("tool".to_owned()),
                name: "Tool".to_owned(),
                ..NewClient::default()
            },
            [
                ClientChange { redirect_uris: Some(redirects.clone()), ..ClientChange::default() },
                ClientChange { name: Some("late".to_owned()), ..ClientChange::default() },
            ],
            ("redirect_uris", json!(redirects)),
        )
        .await;
        lives::<Administrators>(
            server,
            "ann",
            NewAdministrator { name: "ann".to_owned(), role: AdminRole::Auditor, days: None },
            [
                AdministratorChange { role: Some(AdminRole::Helpdesk) },
                AdministratorChange { role: Some(AdminRole::Owner) },
            ],
            ("role", json!("helpdesk")),
        )
        .await;
    }
    let issuer = "https://as.new.example";
    lives::<AuthorizationServers>(
        &idp,
        issuer,
        typed(json!({"issuer": issuer})),
        [typed::<ServerChange>(renamed("New")), typed(renamed("late"))],
        ("name", json!("New")),
    )
    .await;
    let resource = "https://mcp.new.example/a";
    lives::<Resources>(
        &idp,
        resource,
        typed(json!({"resource": resource, "authorization_server": world.ras, "scopes": ["a"]})),
        [typed::<ResourceChange>(json!({"scopes": ["a", "b"]})), typed(renamed("late"))],
        ("scopes", json!(["a", "b"])),
    )
    .await;
    lives::<Connections>(
        &idp,
        "new",
        typed(
            json!({"id": "new", "idp_client_id": AGENT, "audience": world.ras, "ras_client_id": "x",
                     "resources": [world.canvas], "users": ["erin"]}),
        ),
        [typed::<ConnectionChange>(json!({"users": ["max"]})), typed(json!({"everyone": true}))],
        ("users", json!(["max"])),
    )
    .await;
}

#[tokio::test]
async fn every_kind_of_record_of_an_authorization_server_lives_the_same() {
    let world = World::new().await;
    let ras = client(&world).ras("ras");
    let resource = "https://mcp.new.example/a";
    let renamed = |name: &str| json!({"name": name});
    let issuer = "https://idp.other.example";
    lives::<TrustedIssuers>(
        &ras,
        issuer,
        typed(json!({"issuer": issuer})),
        [
            typed::<TrustChange>(json!({"client_documents": true})),
            typed(json!({"allow_reuse": true})),
        ],
        ("client_documents", json!(true)),
    )
    .await;
    lives::<GovernedResources>(
        &ras,
        resource,
        typed(json!({"resource": resource, "scopes": ["a"]})),
        [typed::<GovernedChange>(renamed("New")), typed(json!({"require_dpop": true}))],
        ("name", json!("New")),
    )
    .await;
    let host = "https://apps.example";
    ras.add::<ClientHosts>(&typed(json!({"origin": host}))).await.unwrap();
    assert!(ras.switch::<ClientHosts>(host, false).await.unwrap().disabled);
    ras.delete::<ClientHosts>(host).await.unwrap();
    // Accounts can be named by their address as well as by their id.
    let made = ras.add::<Accounts>(&typed(json!({"email": "a@acme.example"}))).await.unwrap();
    let other = AccountChange { email: Some(Some("b@acme.example".to_owned())) };
    let changed = ras.change::<Accounts>("a@acme.example", &other, None).await.unwrap();
    assert_eq!(
        (changed.id.as_str(), changed.email.as_deref()),
        (made.id.as_str(), Some("b@acme.example"))
    );
    ras.delete::<Accounts>(&made.id).await.unwrap();
}

#[tokio::test]
async fn what_goes_with_a_record_is_said_before_it_goes() {
    let world = World::new().await;
    let idp = client(&world).idp();
    world.sign_in().await;
    let told = async |kind: &str| -> Vec<(String, String)> {
        let records = match kind {
            "user" => idp.dependents::<Users>("erin").await,
            "group" => idp.dependents::<Groups>("engineering").await,
            "client" => idp.dependents::<Clients>(AGENT).await,
            _ => idp.dependents::<AuthorizationServers>(world.ras.as_str()).await,
        };
        let records = records.unwrap().records.into_iter();
        records.map(|one| (one.kind, one.name)).collect()
    };
    assert!(told("user").await.iter().any(|(kind, _)| kind == "session"));
    assert!(told("group").await.contains(&("user".to_owned(), "erin".to_owned())));
    let connections: Vec<_> =
        told("client").await.into_iter().filter(|(kind, _)| kind == "connection").collect();
    assert!(!connections.is_empty());
    assert!(
        told("server").await.iter().any(|(kind, name)| kind == "resource" && *name == world.canvas)
    );
    idp.delete::<Clients>(AGENT).await.unwrap();
    for (_, name) in connections {
        assert_eq!(
            refusal(idp.show::<Connections>(&name).await).status,
            404,
            "{name} went with it"
        );
    }
}

/// Everything that is sent has an effect or is rejected: `null` removes optional values, and is
/// rejected elsewhere.
#[tokio::test]
async fn null_is_refused_where_nothing_can_be_taken_away() {
    let world = World::new().await;
    let idp = client(&world).idp();
    for (path, member) in [
        ("/idp/users/erin", "groups"),
        ("/idp/users/erin", "username"),
        ("/idp/users/erin", "email_verified"),
        ("/idp/groups/engineering", "description"),
        ("/idp/clients/agent", "name"),
        ("/idp/clients/agent", "redirect_uris"),
        ("/idp/clients/agent", "jwks"),
        ("/idp/connections/agent-canvas", "scopes"),
        ("/idp/connections/agent-canvas", "subjects"),
    ] {
        let url = format!("{}{path}", world.admin);
        let secret = format!("Bearer {}", world.admin_secret.expose());
        let send = |body: Value| {
            world.http.patch(&url).header("authorization", &secret).json(&body).send()
        };
        let reply = send(json!({member: null})).await.unwrap();
        assert_eq!(reply.status(), 400, "{path} {member}");
        let told: Value = reply.json().await.unwrap();
        assert!(told["detail"].as_str().unwrap().contains(member), "{path}: {told}");
    }
    let erin = idp.show::<Users>("erin").await.unwrap();
    assert!(erin.groups.contains("engineering"), "nothing was taken away");
    // For every kind: `null` is accepted exactly where the OpenAPI document allows it.
    let document: Value = serde_json::from_str(&passavant_admin::document_text()).unwrap();
    let nullable = |schema: &str, member: &str| {
        let held = &document["components"]["schemas"][schema]["properties"][member];
        held.to_string().contains("\"null\"")
    };
    assert!(nullable("UserChange", "email") && !nullable("UserChange", "groups"));
}

#[tokio::test]
async fn lists_come_in_pages_and_are_searched() {
    let world = World::new().await;
    let idp = client(&world).idp();
    for n in 0..7 {
        let new = NewGroup { name: format!("team-{n}"), description: String::new() };
        idp.add::<Groups>(&new).await.unwrap();
    }
    let mut wanted = ListQuery { search: Some("TEAM".to_owned()), limit: Some(3), after: None };
    let mut seen = Vec::new();
    loop {
        let page = idp.list::<Groups>(&wanted).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|group| group.name));
        let Some(next) = page.next else { break };
        wanted.after = Some(next);
    }
    assert_eq!(seen, (0..7).map(|n| format!("team-{n}")).collect::<Vec<_>>());
    // People are found by whatever they are known by, as it is now.
    let add = |username: &str, email: &str, called: &str| NewUser {
        username: username.to_owned(),
        email: Some(email.to_owned()),
        display_name: Some(called.to_owned()),
        ..NewUser::default()
    };
    idp.add::<Users>(&add("u-1", "ada@acme.example", "Ada L.")).await.unwrap();
    idp.add::<Users>(&add("u-2", "bob@acme.example", "Bob_B")).await.unwrap();
    let found = async |search: &str| {
        let wanted = ListQuery { search: Some(search.to_owned()), ..ListQuery::default() };
        let items = idp.list::<Users>(&wanted).await.unwrap().items;
        items.into_iter().map(|user| user.username).collect::<Vec<_>>()
    };
    assert_eq!(found("ADA@acme").await, ["u-1"]);
    assert_eq!(found("b_b").await, ["u-2"]);
    let renamed =
        UserChange { email: Some(Some("ada@l.example".to_owned())), ..UserChange::default() };
    idp.change::<Users>("u-1", &renamed, None).await.unwrap();
    assert!(found("ada@acme").await.is_empty());
    assert_eq!(found("ada@l").await, ["u-1"]);
    idp.delete::<Users>("u-1").await.unwrap();
    assert!(found("ada").await.is_empty());
    // Wildcards of the database are ordinary characters in a search.
    for search in ["%", "_", "!", "team%"] {
        let wanted = ListQuery { search: Some(search.to_owned()), ..ListQuery::default() };
        assert!(idp.list::<Groups>(&wanted).await.unwrap().items.is_empty(), "{search}");
    }
    for limit in [0, -1, 1001] {
        let wanted = ListQuery { limit: Some(limit), ..ListQuery::default() };
        assert_eq!(refusal(idp.list::<Groups>(&wanted).await).status, 400);
    }
}

#[tokio::test]
async fn a_sign_in_is_listed_by_name_and_ended_with_what_it_brought() {
    let world = World::new().await;
    let idp = client(&world).idp();
    let tokens = world.sign_in().await;
    let whose = WhoseQuery { user: Some("erin".to_owned()) };
    let sessions = idp.sessions(&whose).await.unwrap().items;
    assert_eq!((sessions.len(), sessions[0].user.as_str()), (1, "erin"));
    let none = WhoseQuery { user: Some("max".to_owned()) };
    assert!(idp.sessions(&none).await.unwrap().items.is_empty());
    assert_eq!(world.send(&world.exchange(&tokens.id_token)).await.status, 200);
    idp.end_session(&sessions[0].id).await.unwrap();
    assert_eq!(world.send(&world.exchange(&tokens.id_token)).await.status, 400);
    assert!(idp.sessions(&whose).await.unwrap().items.is_empty());
    assert_eq!(refusal(idp.end_session(&sessions[0].id).await).status, 404);
    let wanted = AuditQuery { event: Some("admin.".to_owned()), ..AuditQuery::default() };
    let rows = idp.audit(&wanted).await.unwrap().items;
    assert_eq!(rows[0].event, "admin.revoke session");
    assert!(rows.iter().all(|row| row.event.starts_with("admin.")));
}

/// A request with an idempotency key, as a program sends it that does not know whether an earlier
/// one arrived.
pub(crate) async fn with_key(
    world: &World,
    method: Method,
    path: &str,
    body: &str,
    key: &str,
) -> Reply {
    let ask = Ask {
        url: format!("{}{path}", world.admin),
        form: Vec::new(),
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {}", world.admin_secret.expose())),
            ("content-type".to_owned(), "application/json".to_owned()),
            ("idempotency-key".to_owned(), key.to_owned()),
        ],
        method,
    };
    world.send_body(&ask, body.as_bytes().to_vec()).await
}

#[tokio::test]
async fn a_request_with_a_key_is_done_once_and_answered_again() {
    let world = World::new().await;
    let new = r#"{"name": "Once", "id": "once"}"#;
    let first = with_key(&world, Method::POST, "/idp/clients", new, "k-1").await;
    assert_eq!((first.status, first.str("client_secret").len()), (200, 43), "{}", first.text);
    // What was asked is on record by a hash that tells nobody which secret a body contained.
    let plain = sha256(format!("POST /idp/clients\n{}", sha256(new.as_bytes())).as_bytes());
    for beside in ["", "-wal"] {
        let file = world.folder().join(format!("idp.db{beside}"));
        let bytes = std::fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(plain.len()).any(|window| window == plain.as_bytes()));
    }
    let again = with_key(&world, Method::POST, "/idp/clients", new, "k-1").await;
    assert_eq!((again.status, again.str("id")), (200, "once"), "{}", again.text);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert!(again.json.get("client_secret").is_none(), "shown once");
    let other = with_key(&world, Method::POST, "/idp/clients", r#"{"name": "X"}"#, "k-1").await;
    assert_eq!(other.status, 422, "{}", other.text);
    let elsewhere = with_key(&world, Method::DELETE, "/idp/clients/once", "", "k-1").await;
    assert_eq!(elsewhere.status, 422, "{}", elsewhere.text);
    // A rejected request was not carried out, so it may be repeated.
    let wrong = r#"{"name": "Two", "id": "has space"}"#;
    assert_eq!(with_key(&world, Method::POST, "/idp/clients", wrong, "k-2").await.status, 400);
    assert_eq!(with_key(&world, Method::POST, "/idp/clients", wrong, "k-2").await.status, 400);
    let gone = with_key(&world, Method::DELETE, "/idp/clients/once", "", "k-3").await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    let gone = with_key(&world, Method::DELETE, "/idp/clients/once", "", "k-3").await;
    assert_eq!(gone.status, 204, "deleted once, and said again: {}", gone.text);
    for key in ["", "a b", "é", &"x".repeat(256)] {
        let reply = with_key(&world, Method::POST, "/idp/groups", r#"{"name": "g"}"#, key).await;
        assert_eq!(reply.status, 400, "{key}: {}", reply.text);
    }
    // Twelve at once: one is carried out, and the others get its result or are too early.
    let new = r#"{"username": "many"}"#;
    let all = (0..12).map(|_| with_key(&world, Method::POST, "/idp/users", new, "k-4"));
    let all = futures::future::join_all(all).await;
    assert!(all.iter().all(|reply| matches!(reply.status, 200 | 409)), "{all:?}");
    let events = world.administer(Method::GET, "/idp/audit?event=admin.create%20user", None).await;
    assert_eq!(events.json["items"].as_array().unwrap().len(), 1, "{}", events.text);
    world.pass(86_401);
    world.idp_store.forget_expired(world.now(), None).await.unwrap();
    let later = with_key(&world, Method::POST, "/idp/clients", new, "k-1").await;
    assert_ne!(later.status, 422, "a key is forgotten after a day");
}

#[tokio::test]
async fn a_record_gets_no_name_that_no_path_can_carry() {
    let world = World::new().await;
    let connection = |id: &str| {
        json!({"id": id, "idp_client_id": AGENT, "audience": world.ras, "ras_client_id": "x",
            "resources": [world.canvas], "everyone": true})
    };
    for name in [".", "..", "a\nb", "a\u{7}b", "\u{9b}2J", "a\u{202e}b", "\u{200b}a", "a\u{e0041}"]
    {
        for (path, body) in [
            ("/idp/users", json!({"username": name})),
            ("/idp/groups", json!({"name": name})),
            ("/idp/clients", json!({"id": name, "name": "x"})),
            ("/ras/ras/clients", json!({"id": name, "name": "x"})),
            ("/idp/connections", connection(name)),
            ("/idp/administrators", json!({"name": name, "role": "auditor"})),
        ] {
            let reply = world.administer(Method::POST, path, Some(body)).await;
            assert_eq!(reply.status, 400, "{path} {name:?}: {}", reply.text);
        }
    }
    // Dots are welcome.
    for (path, body) in [
        ("/idp/users", json!({"username": "..."})),
        ("/idp/groups", json!({"name": ".a"})),
        ("/idp/clients", json!({"id": "a..", "name": "x"})),
        ("/idp/connections", connection("...")),
    ] {
        let reply = world.administer(Method::POST, path, Some(body)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    }
    let renamed = json!({"username": ".."});
    let reply = world.administer(Method::PATCH, "/idp/users/...", Some(renamed)).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
}

#[tokio::test]
async fn whoever_names_an_authorization_server_that_is_not_there_learns_which_are() {
    let world = World::new().await;
    let admin = client(&world);
    for path in ["/ras/rass/clients", "/ras/%60x/resources/a/b"] {
        let refused = admin.raw("GET", path, None).await.unwrap_err().to_string();
        assert!(refused.starts_with("no authorization server is called `"), "{refused}");
        assert!(refused.contains("the authorization server `ras`"), "{refused}");
        assert!(refused.contains("the identity provider"), "{refused}");
    }
    let refused = admin.raw("GET", "/ras/ras/nothing", None).await.unwrap_err().to_string();
    assert!(refused.starts_with("there is nothing at this path"), "{refused}");
}

/// Every operation of the OpenAPI document, for every role: the document says which roles are
/// allowed.
#[tokio::test]
async fn every_role_may_do_what_the_document_says_and_no_more() {
    let world = World::new().await;
    let document: Value = serde_json::from_str(&passavant_admin::document_text()).unwrap();
    let roles = [AdminRole::Auditor, AdminRole::Helpdesk, AdminRole::Admin, AdminRole::Owner];
    let mut matrix: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (prefix, server) in
        [("/idp", client(&world).idp()), ("/ras/{ras}", client(&world).ras("ras"))]
    {
        for role in roles {
            let name = format!("the-{}", role.word());
            let new = NewAdministrator { name, role, days: None };
            let token = server.add::<Administrators>(&new).await.unwrap().token.unwrap();
            for (path, item) in document["paths"].as_object().unwrap() {
                if !path.starts_with(prefix) {
                    continue;
                }
                for (method, operation) in item.as_object().unwrap() {
                    let least = operation["description"].as_str().unwrap();
                    let may = roles.iter().position(|held| *held == role).unwrap()
                        >= roles
                            .iter()
                            .position(|held| least.contains(&format!("`{}`", held.word())))
                            .unwrap();
                    // With a record that does not exist, so that nothing is changed by this.
                    let at = path.replace("{ras}", "ras").replace("{id}", "nobody-of-this-name");
                    let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                    let ask = Ask {
                        url: format!("{}{at}", world.admin),
                        form: Vec::new(),
                        headers: vec![("authorization".to_owned(), format!("Bearer {token}"))],
                        method: verb,
                    };
                    let reply = world.send_body(&ask, Vec::new()).await;
                    assert_eq!(reply.status == 403, !may, "{role:?} {method} {at}: {}", reply.text);
                    matrix.entry(format!("{method} {path}")).or_default().push(may);
                }
            }
        }
    }
    assert!(matrix.len() > 100, "{}", matrix.len());
    assert!(matrix.values().all(|may| may[3]), "an owner may everything");
    assert!(matrix.values().any(|may| !may[2]) && matrix.values().any(|may| may[0]));
}

#[tokio::test]
async fn whatever_is_not_known_to_be_less_is_a_change() {
    let world = World::new().await;
    for (prefix, server) in
        [("/idp", client(&world).idp()), ("/ras/ras", client(&world).ras("ras"))]
    {
        for (role, may_change) in
            [(AdminRole::Auditor, false), (AdminRole::Helpdesk, false), (AdminRole::Admin, true)]
        {
            let new = NewAdministrator { name: role.word().to_owned(), role, days: None };
            let token = server.add::<Administrators>(&new).await.unwrap().token.unwrap();
            for path in ["/nothing", "/clients/x/nothing", "/users/x/nothing/more"] {
                for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                    let ask = Ask {
                        url: format!("{}{prefix}{path}", world.admin),
                        form: Vec::new(),
                        headers: vec![("authorization".to_owned(), format!("Bearer {token}"))],
                        method: method.clone(),
                    };
                    let status = world.send_body(&ask, Vec::new()).await.status;
                    let expected = if may_change { 404 } else { 403 };
                    assert_eq!(status, expected, "{role:?} {method} {prefix}{path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_last_owner_with_a_name_stays_one() {
    let world = World::new().await;
    let idp = client(&world).idp();
    let owner =
        |name: &str| NewAdministrator { name: name.to_owned(), role: AdminRole::Owner, days: None };
    let token = idp.add::<Administrators>(&owner("ann")).await.unwrap().token.unwrap();
    let ann = client_of(&world, Secret::new(token)).idp();
    let less = AdministratorChange { role: Some(AdminRole::Admin) };
    for refused in [
        ann.delete::<Administrators>("ann").await.map(|()| String::new()),
        ann.change::<Administrators>("ann", &less, None).await.map(|one| one.name),
    ] {
        let problem = refusal(refused);
        assert!(problem.status == 409 && problem.detail.contains("last owner"), "{problem:?}");
    }
    ann.add::<Administrators>(&owner("bob")).await.unwrap();
    ann.change::<Administrators>("ann", &less, None).await.unwrap();
    // From then on she is no owner.
    assert_eq!(refusal(ann.add::<Administrators>(&owner("eve")).await).status, 403);
    // Two owners cannot lose the role at the same time.
    let token = idp.add::<Administrators>(&owner("cleo")).await.unwrap().token.unwrap();
    let cleo = client_of(&world, Secret::new(token)).idp();
    let token = idp.renew("bob", None).await.unwrap().token.unwrap();
    let bob = client_of(&world, Secret::new(token)).idp();
    let both = tokio::join!(
        cleo.change::<Administrators>("cleo", &less, None),
        bob.delete::<Administrators>("bob"),
    );
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    // Whoever has the secret of the config may remove the last owner.
    let _ = idp.delete::<Administrators>("bob").await;
    idp.delete::<Administrators>("cleo").await.unwrap();
}

/// Views are an allow-list: even for a record that has everything, no response contains a stored
/// secret.
#[tokio::test]
async fn the_document_of_the_api_is_the_one_that_is_checked_in_and_served() {
    let world = World::new().await;
    let text = passavant_admin::document_text();
    let kept = include_str!("../../docs/openapi.json");
    assert_eq!(text, kept, "cargo run -p passavant-tests --example openapi > docs/openapi.json");
    let served = world.administer(Method::GET, "/openapi.json", None).await;
    assert_eq!(served.text, text);
    let roles = client(&world).roles().await.unwrap();
    assert_eq!(roles.idp.as_deref(), Some(world.idp.as_str()));
    // Errors for unknown paths have the common format.
    for path in ["/nothing", "/idp/nothing", "/ras/nobody/clients", "/idp/users/x/y/z"] {
        let reply = world.administer(Method::GET, path, None).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{path}");
        assert!(!reply.str("detail").is_empty());
    }
    let reply = world.administer(Method::DELETE, "/idp/users", None).await;
    assert_eq!((reply.status, reply.header("content-type")), (405, "application/problem+json"));
}
