//! What an earlier build with another name stored and sent still works, and only the files that
//! migrate it contain the name.

use passavant_proto::{
    formerly,
    oauth::client::ENROLLED_CLIENT,
    oidc::authentication::ACR_PASSWORD,
    policy::{Conditions, Connection, Subject},
};
use passavant_store::Put;
use passavant_tests::world::World;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};
use std::path::Path;

#[tokio::test]
async fn connections_of_an_earlier_build_speak_for_enrolled_computers_as_before() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    let earlier = Connection {
        id: "earlier".to_owned(),
        idp_client_id: ENROLLED_CLIENT.to_owned(),
        audience: world.ras.clone(),
        ras_client_id: None,
        resources: vec![passavant_proto::identifier::Resource::parse(&world.canvas).unwrap()],
        scopes: serde_json::from_value(json!(["read"])).unwrap(),
        subjects: vec![Subject::Everyone],
        conditions: Conditions {
            acr_values: vec![ACR_PASSWORD.to_owned()],
            ..Conditions::default()
        },
        disabled: false,
    };
    for connection in world.idp_store.all::<Connection>().await.unwrap() {
        if connection.idp_client_id == ENROLLED_CLIENT {
            let path = format!("/idp/connections/{}", connection.id);
            assert_eq!(world.administer(Method::DELETE, &path, None).await.status, 204);
        }
    }
    let ask = json!({"user": "erin", "client": desk.client_id, "resource": world.canvas});
    let explained = world.administer(Method::POST, "/idp/explain", Some(ask.clone())).await;
    assert_eq!(explained.json["granted"], false, "{}", explained.text);
    let act = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "connection"),
        world.now(),
    );
    world.idp_store.put(&earlier, Put::Create, act).await.unwrap();
    // As an earlier build stored it.
    let file = world.folder().join("idp.db");
    let mut hand =
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let sql = "SELECT document FROM directory WHERE kind = 'connection' AND id = 'earlier'";
    let now: String = sqlx::query_scalar(sql).fetch_one(&mut hand).await.unwrap();
    let document = formerly::name(&now);
    assert_eq!(document.matches(formerly::NAME).count(), 2, "{document}");
    sqlx::query("UPDATE directory SET document = $1 WHERE kind = 'connection' AND id = 'earlier'")
        .bind(document)
        .execute(&mut hand)
        .await
        .unwrap();
    sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        .execute(&mut hand)
        .await
        .unwrap();
    let explained = world.administer(Method::POST, "/idp/explain", Some(ask)).await;
    assert_eq!(explained.json["granted"], true, "{}", explained.text);
}

#[tokio::test]
async fn the_name_of_before_is_no_client_id_and_means_the_software_in_scripts() {
    let world = World::new().await;
    let body = json!({"id": formerly::NAME, "name": "mine"});
    let refused = world.administer(Method::POST, "/idp/clients", Some(body)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    let body = json!({"id": "scripted", "idp_client_id": formerly::NAME, "audience": world.ras,
                      "resources": [world.canvas], "everyone": true});
    let made = world.administer(Method::POST, "/idp/connections", Some(body)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let made = world.idp_store.by_id::<Connection>("scripted").await.unwrap().unwrap();
    assert_eq!(made.idp_client_id, ENROLLED_CLIENT);
    // Computers with an earlier build find the members they look for.
    let url = world.idp.endpoint("/.well-known/openid-configuration");
    let metadata: serde_json::Value =
        world.http.get(url).send().await.unwrap().json().await.unwrap();
    let members = metadata.as_object().unwrap();
    let ours: Vec<_> = members.keys().filter(|name| name.starts_with(formerly::NOW)).collect();
    assert_eq!(ours.len(), 4, "{ours:?}");
    for member in ours {
        assert_eq!(metadata[formerly::name(member)], metadata[member], "{member}");
    }
}

#[test]
fn no_file_says_the_name_of_before_but_those_that_take_it_over() {
    const HERE: &[&str] = &["CHANGELOG.md", "crates/proto/src/formerly.rs", "tests/fixtures/first"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let made = ["target", ".tools", ".git", "node_modules", "__pycache__"];
            if HERE.contains(&name.as_str()) || made.iter().any(|made| path.ends_with(made)) {
                continue;
            }
            let says = |text: &str| text.to_lowercase().contains(formerly::NAME);
            assert!(!says(&name), "{name}");
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                seen += 1;
                assert!(!says(&text), "{name}");
            }
        }
    }
    assert!(seen > 200, "{seen} files");
}
