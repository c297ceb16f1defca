//! Applications are told that a session has ended (OpenID Connect Back-Channel Logout 1.0).

use axum::{Router, extract::State, http::StatusCode, routing::post};
use passavant_admin::types::{ClientChange, Clients, NewClient, Users};
use passavant_proto::secret::Secret;
use passavant_store::AuditFilter;
use passavant_tests::{
    forge::Parts,
    outsider::Browser,
    world::{AGENT, CALLBACK, World},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// An application that is told: what it got, and what it answers.
#[derive(Clone)]
struct App {
    url: String,
    told: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<u16>>,
}

impl App {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Self {
            url: format!("http://{}/logout", listener.local_addr().unwrap()),
            told: Arc::default(),
            answers: Arc::new(Mutex::new(200)),
        };
        let router = Router::new().route("/logout", post(take)).with_state(app.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        app
    }

    fn answers(&self, status: u16) {
        *self.answers.lock().unwrap() = status;
    }

    /// The logout tokens since the last look.
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

async fn take(State(app): State<App>, body: String) -> StatusCode {
    let form: Vec<(String, String)> =
        form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!((form.len(), form[0].0.as_str()), (1, "logout_token"));
    app.told.lock().unwrap().push(form[0].1.clone());
    StatusCode::from_u16(*app.answers.lock().unwrap()).unwrap()
}

async fn company() -> (World, App) {
    let (world, app) = (World::new().await, App::start().await);
    let change: ClientChange =
        serde_json::from_value(json!({"backchannel_logout_uri": app.url})).unwrap();
    world.idp_admin().change::<Clients>(AGENT, &change, None).await.unwrap();
    (world, app)
}

async fn tell(world: &World) -> usize {
    world.idp_role.get().unwrap().tell_once().await.unwrap()
}

fn claims(token: &str) -> Value {
    Parts::of(token).claims
}

/// Rows about what was told: outcome and reason, newest first.
async fn rows(world: &World) -> Vec<(String, String)> {
    let filter = AuditFilter {
        event: Some("logout_notice".to_owned()),
        limit: 20,
        ..AuditFilter::default()
    };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    let reason = |row: &passavant_store::AuditRow| row.details.get("reason").cloned();
    rows.iter().map(|row| (row.outcome.clone(), reason(row).unwrap_or_default())).collect()
}

everywhere!(
    whichever_way_a_session_ends_the_application_is_told_once,
    an_application_that_does_not_answer_is_told_later_and_given_up_after_a_day,
    an_application_that_hangs_keeps_no_other_one_waiting,
    an_application_that_is_switched_off_is_told_when_it_is_on_again,
);

mod cases {
    use super::*;

    pub(super) async fn whichever_way_a_session_ends_the_application_is_told_once() {
        let (world, app) = company().await;
        let metadata = Browser::default()
            .get(&world, &world.idp.well_known_appended("openid-configuration"))
            .await;
        assert_eq!(metadata.json["backchannel_logout_supported"], true);
        assert_eq!(metadata.json["backchannel_logout_session_supported"], true);
        let sid = |tokens: &passavant_tests::world::Tokens| {
            claims(&tokens.id_token)["sid"].as_str().unwrap().to_owned()
        };
        // Nothing has ended.
        let tokens = world.sign_in().await;
        assert_eq!((tell(&world).await, app.told().len()), (0, 0));
        // A new password ends it; the token names session, person and application.
        let password = Secret::new("another long sentence");
        world.idp_admin().set_password("erin", &password).await.unwrap();
        assert_eq!(tell(&world).await, 1);
        let told = app.told();
        let token = &told[0];
        let parts = Parts::of(token);
        assert_eq!(parts.header["typ"], "logout+jwt");
        assert_eq!(parts.header["kid"], world.idp_key.kid());
        let said = claims(token);
        assert_eq!(said["iss"], world.idp.as_str());
        assert_eq!(said["aud"], AGENT);
        assert_eq!((&said["sub"], &said["sid"]), (&json!("erin-id"), &json!(sid(&tokens))));
        let event = "http://schemas.openid.net/event/backchannel-logout";
        assert_eq!(said["events"], json!({event: {}}));
        assert!(said.get("nonce").is_none() && said["jti"].as_str().unwrap().len() == 32);
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 120);
        assert_eq!(said["iat"], world.now().0);
        // By the rules that this server has for others.
        let keys = Browser::default().get(&world, &world.idp.endpoint("/jwks")).await.text;
        let keys = passavant_proto::jose::jwk::KeySet::parse(
            keys.as_bytes(),
            passavant_proto::jose::jwk::Algorithm::ES256,
        );
        let read = passavant_proto::oidc::logout_token::verify(
            token,
            &keys.unwrap(),
            (&world.idp, None),
            AGENT,
            world.now(),
        );
        assert_eq!(read.unwrap().session, Some(sid(&tokens)));
        // It is no ID token, and opens nothing.
        let reply = world.send(&world.exchange(token)).await;
        assert_eq!(reply.str("error"), "invalid_grant");
        assert_eq!((tell(&world).await, app.told().len()), (0, 0), "once");
        assert_eq!(rows(&world).await, [("granted".to_owned(), String::new())]);
        // Two sessions of a person who is switched off: one token for each.
        let restored = Secret::new(passavant_tests::world::PASSWORD);
        world.idp_admin().set_password("erin", &restored).await.unwrap();
        let (one, two) = (world.sign_in().await, world.sign_in().await);
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        tell(&world).await;
        let mut ended: Vec<_> = app
            .told()
            .iter()
            .map(|token| claims(token)["sid"].as_str().unwrap().to_owned())
            .collect();
        ended.sort();
        let mut expected = [sid(&one), sid(&two)];
        expected.sort();
        assert_eq!(ended, expected);
        // An application that took no part is told nothing, nor one that has no address any more.
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        let new: NewClient = serde_json::from_value(json!({"id": "other", "name": "Other",
            "redirect_uris": [CALLBACK], "backchannel_logout_uri": app.url}))
        .unwrap();
        world.idp_admin().add::<Clients>(&new).await.unwrap();
        world.sign_in().await;
        let none: ClientChange =
            serde_json::from_value(json!({"backchannel_logout_uri": null})).unwrap();
        world.idp_admin().change::<Clients>(AGENT, &none, None).await.unwrap();
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        assert_eq!((tell(&world).await, app.told().len()), (1, 0), "the notice is forgotten");
        assert_eq!(rows(&world).await[0].1, "logout_notice.no_address", "and on record");
        assert_eq!(tell(&world).await, 0);
        // One that gives its address during a session is told of it from its next refresh on.
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        let tokens = world.sign_in().await;
        let here: ClientChange =
            serde_json::from_value(json!({"backchannel_logout_uri": app.url})).unwrap();
        world.idp_admin().change::<Clients>(AGENT, &here, None).await.unwrap();
        let form = [("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh_token)];
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        assert_eq!(renewed.status, 200, "{}", renewed.text);
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        assert_eq!((tell(&world).await, app.told().len()), (1, 1));
    }

    pub(super) async fn an_application_that_does_not_answer_is_told_later_and_given_up_after_a_day()
    {
        let (world, app) = company().await;
        world.sign_in().await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        app.answers(503);
        assert_eq!(tell(&world).await, 1);
        let first = app.told();
        // Not at once again; then with the same id, so that it can tell that it was told.
        assert_eq!((tell(&world).await, app.told().len()), (0, 0));
        world.pass(3);
        app.answers(204);
        assert_eq!(tell(&world).await, 1);
        let second = app.told();
        assert_eq!(claims(&first[0])["jti"], claims(&second[0])["jti"]);
        assert_eq!(rows(&world).await, [("granted".to_owned(), String::new())]);
        // One that never answers is given up after a day, on record.
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        world.sign_in().await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        app.answers(404);
        let mut tries = 0;
        for _ in 0..40 {
            tries += tell(&world).await;
            world.pass(3601);
        }
        assert!((20..=30).contains(&tries), "{tries}");
        let given_up = ("refused".to_owned(), "logout_notice.given_up".to_owned());
        assert_eq!(rows(&world).await[0], given_up);
        assert_eq!(tell(&world).await, 0);
    }

    pub(super) async fn an_application_that_hangs_keeps_no_other_one_waiting() {
        let (world, app) = company().await;
        // It takes every connection and answers none.
        let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let set = async |client: &str, url: &str| {
            let uri = json!({"backchannel_logout_uri": url});
            let change: ClientChange = serde_json::from_value(uri).unwrap();
            world.idp_admin().change::<Clients>(client, &change, None).await.unwrap();
        };
        set(AGENT, &format!("http://{}/", hanging.local_addr().unwrap())).await;
        set("public", &app.url).await;
        for _ in 0..70 {
            world.sign_in().await;
        }
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        world.pass(1);
        world.idp_admin().switch::<Users>("erin", true).await.unwrap();
        world.sign_in_as("erin", "public").await;
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        let idp = world.idp_role.get().unwrap().clone();
        let telling = tokio::spawn(async move { idp.tell_applications().await });
        // The other one would hold its connections for 15 seconds.
        let told = async {
            while app.told().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(std::time::Duration::from_secs(12), told).await;
        telling.abort();
        assert!(told.is_ok(), "told only after the one that hangs");
    }

    pub(super) async fn an_application_that_is_switched_off_is_told_when_it_is_on_again() {
        let (world, app) = company().await;
        world.sign_in().await;
        world.idp_admin().switch::<Clients>(AGENT, false).await.unwrap();
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        for _ in 0..3 {
            tell(&world).await;
            world.pass(61);
        }
        assert!(app.told().is_empty());
        world.idp_admin().switch::<Clients>(AGENT, true).await.unwrap();
        assert_eq!((tell(&world).await, app.told().len()), (1, 1));
        assert_eq!(rows(&world).await, [("granted".to_owned(), String::new())]);
        // One that stays off for a day, or is deleted, is told no more, on record.
        for gone in [false, true] {
            world.idp_admin().switch::<Users>("erin", true).await.unwrap();
            world.sign_in().await;
            world.idp_admin().switch::<Users>("erin", false).await.unwrap();
            if gone {
                world.idp_admin().delete::<Clients>(AGENT).await.unwrap();
            } else {
                world.idp_admin().switch::<Clients>(AGENT, false).await.unwrap();
                world.pass(24 * 3600);
            }
            assert_eq!((tell(&world).await, app.told().len()), (1, 0));
            assert_eq!(rows(&world).await[0].1, "logout_notice.no_address");
            assert_eq!(tell(&world).await, 0);
            if !gone {
                world.idp_admin().switch::<Clients>(AGENT, true).await.unwrap();
            }
        }
    }
}
