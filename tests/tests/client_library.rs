//! The client library against our own parties and against hostile ones.

use axum::{
    Json, Router,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use passavant_client::{Error, SignInOptions, SignedOut, SubjectTokenKind, Vault};
use passavant_tests::{
    forge::Key,
    world::{PASSWORD, World},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

pub(crate) async fn sign_in(world: &World, client: &passavant_client::Client, username: &str) {
    let pending = client.begin_sign_in(&SignInOptions::default()).await.unwrap();
    let url = pending.url().to_owned();
    let browser = async {
        let (location, _) = world.browse(&url, username, PASSWORD).await;
        world.http.get(location).send().await.unwrap().status()
    };
    let (session, status) = tokio::join!(pending.finish(), browser);
    assert_eq!((session.unwrap().name.as_str(), status.as_u16()), (username, 200));
}

#[tokio::test]
async fn three_lines_bring_a_token_and_it_is_kept_until_it_ends() {
    let world = World::new().await;
    let client = world.client();
    sign_in(&world, &client, "erin").await;
    let server = client.discover(&world.canvas).await.unwrap();
    let token = client.access_token(&server).await.unwrap();
    assert_eq!(token.scopes.to_string(), "read", "what the challenge asks for");
    let again = client.access_token(&server).await.unwrap();
    assert_eq!(token.secret(), again.secret());
    world.pass(290);
    let renewed = client.access_token(&server).await.unwrap();
    assert_ne!(token.secret(), renewed.secret());
    // Unused for days, but the sign-in renews itself.
    for _ in 0..20 {
        world.pass(7 * 3600);
        client.access_token(&server).await.unwrap();
    }
    world.pass(8 * 3600 + 1);
    assert!(
        matches!(client.access_token(&server).await, Err(Error::SignInNeeded { .. })),
        "the sign-in has ended, and the person signs in again"
    );
}

#[tokio::test]
async fn a_step_up_asks_for_the_union_and_a_policy_refusal_is_final() {
    let world = World::new().await;
    let client = world.client();
    sign_in(&world, &client, "erin").await;
    let server = client.discover(&world.canvas).await.unwrap();
    client.access_token(&server).await.unwrap();
    let challenge =
        passavant_proto::oauth::challenge::Challenge::new("Bearer").with("scope", "write");
    let token = client.step_up(&server, &challenge).await.unwrap();
    assert_eq!(token.scopes.to_string(), "read write");
    world.pass(300);
    let renewed = client.access_token(&server).await.unwrap();
    assert_eq!(renewed.scopes.to_string(), "read write", "what a step-up won stays won");
    let max = world.client();
    sign_in(&world, &max, "max").await;
    let refused = max.access_token(&server).await.unwrap_err();
    assert!(matches!(refused, Error::RefusedByPolicy { .. }), "{refused}");
    assert!(refused.to_string().contains(world.idp.as_str()), "says who refused: {refused}");
}

#[tokio::test]
async fn signing_out_revokes_and_forgets() {
    let world = World::new().await;
    let client = world.client();
    sign_in(&world, &client, "erin").await;
    let refresh_token = client.session().await.unwrap().unwrap().refresh_token.unwrap();
    assert_eq!(client.sign_out().await.unwrap(), SignedOut::There);
    assert!(client.session().await.unwrap().is_none());
    assert_eq!(client.sign_out().await.unwrap(), SignedOut::Nobody);
    let renew = world.ask(
        &world.idp,
        "/token",
        &[("grant_type", "refresh_token"), ("refresh_token", &refresh_token)],
    );
    assert_eq!(world.send(&renew).await.status, 400);
}

/// A change of the URL that the browser is redirected to.
type Change = fn(&str) -> String;

#[tokio::test]
async fn the_callback_takes_only_the_answer_to_its_own_sign_in() {
    let world = World::new().await;
    // A URL with another state, or none, is not the response: it has no effect, and the real one is
    // still accepted.
    let not_the_answer: [(&str, Change); 3] = [
        ("wrong state", |l| l.replace("state=", "state=x")),
        ("no state", |l| l.replace("state=", "other=")),
        ("twice", |l| format!("{l}&code=x")),
    ];
    for (case, change) in not_the_answer {
        let client = world.client();
        let pending = client.begin_sign_in(&SignInOptions::default()).await.unwrap();
        let url = pending.url().to_owned();
        let browser = async {
            let (location, _) = world.browse(&url, "erin", PASSWORD).await;
            let wrong = change(&location);
            assert_ne!(wrong, location, "{case}");
            assert_eq!(world.http.get(wrong).send().await.unwrap().status(), 400, "{case}");
            assert!(client.session().await.unwrap().is_none(), "{case}");
            world.http.get(location).send().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(pending.finish(), browser);
        assert!(outcome.is_ok(), "{case}");
    }
    // A response with the right state that is not from the right issuer ends the sign-in.
    let of_another: [(&str, Change); 3] = [
        ("another issuer", |l| l.replace("iss=http", "iss=https")),
        ("a slash more", |l| format!("{l}%2F")),
        ("no issuer", |l| l.replace("iss=", "other=")),
    ];
    for (case, change) in of_another {
        let client = world.client();
        let pending = client.begin_sign_in(&SignInOptions::default()).await.unwrap();
        let url = pending.url().to_owned();
        let browser = async {
            let (location, _) = world.browse(&url, "erin", PASSWORD).await;
            let wrong = change(&location);
            assert_ne!(wrong, location, "{case}");
            world.http.get(wrong).send().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(pending.finish(), browser);
        assert!(matches!(outcome, Err(Error::Callback(_))), "{case}");
        assert!(client.session().await.unwrap().is_none(), "{case}");
    }
    // Requests for other hosts and paths do not end the wait; the text of an error is not shown.
    let client = world.client();
    let pending = client.begin_sign_in(&SignInOptions::default()).await.unwrap();
    let url = pending.url().to_owned();
    let browser = async {
        let (location, _) = world.browse(&url, "erin", PASSWORD).await;
        let rebound =
            world.http.get(&location).header("host", "evil.example").send().await.unwrap();
        assert_eq!(rebound.status(), 400);
        let base = location.split("/callback").next().unwrap();
        assert_eq!(
            world.http.get(format!("{base}/favicon.ico")).send().await.unwrap().status(),
            404
        );
        world.http.get(location).send().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(pending.finish(), browser);
    assert!(outcome.is_ok());
}

/// A hostile or broken party with responses written by the test.
#[derive(Clone, Default)]
struct Stage {
    metadata: Arc<Mutex<Value>>,
    resource: Arc<Mutex<Value>>,
    token: Arc<Mutex<Value>>,
    jwks: Arc<Mutex<Value>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    async fn start() -> (Self, String) {
        let stage = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (m, r, t, a) = (
            stage.metadata.clone(),
            stage.resource.clone(),
            stage.token.clone(),
            stage.asked.clone(),
        );
        let keys = stage.jwks.clone();
        let router = Router::new()
            .route(
                "/.well-known/oauth-authorization-server",
                get(move || async move { Json(m.lock().unwrap().clone()) }),
            )
            .route(
                "/.well-known/oauth-protected-resource/mcp",
                get(move || async move { Json(r.lock().unwrap().clone()) }),
            )
            .route(
                "/token",
                post(move |body: String| async move {
                    a.lock().unwrap().push(body);
                    Json(t.lock().unwrap().clone())
                }),
            )
            .route("/jwks", get(move || async move { Json(keys.lock().unwrap().clone()) }))
            .route(
                "/redirect",
                post(|| async { (StatusCode::TEMPORARY_REDIRECT, [("location", "/token")]) }),
            )
            .fallback(|| async { StatusCode::NOT_FOUND.into_response() });
        tokio::spawn(async move { axum::serve(listener, router).await });
        *stage.metadata.lock().unwrap() = json!({
            "issuer": url, "token_endpoint": format!("{url}/token"),
            "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"],
        });
        *stage.resource.lock().unwrap() =
            json!({"resource": format!("{url}/mcp"), "authorization_servers": [url]});
        (stage, url)
    }
}

#[tokio::test]
async fn discovery_believes_only_what_fits() {
    let world = World::new().await;
    let client = world.client();
    sign_in(&world, &client, "erin").await;
    let (stage, url) = Stage::start().await;
    let mcp = format!("{url}/mcp");
    assert!(client.discover(&mcp).await.is_ok());
    for issuer in [format!("{url}/"), world.ras.to_string(), url.replace("127.0.0.1", "localhost")]
    {
        let good = stage.metadata.lock().unwrap()["issuer"].clone();
        stage.metadata.lock().unwrap()["issuer"] = json!(issuer);
        let error = client.discover(&mcp).await.unwrap_err().to_string();
        assert!(error.contains("another issuer") && error.contains(&issuer), "{error}");
        stage.metadata.lock().unwrap()["issuer"] = good;
    }
    for resource in
        [url.clone(), format!("{url}/mcp/"), world.canvas.clone(), format!("{url}/other")]
    {
        stage.resource.lock().unwrap()["resource"] = json!(resource);
        let error = client.discover(&mcp).await.unwrap_err().to_string();
        assert!(error.contains("found:") && error.contains("expected:"), "{error}");
    }
    // A server that names its own authorization server does not belong to the company.
    stage.resource.lock().unwrap()["resource"] = json!(mcp);
    let server = client.discover(&mcp).await.unwrap();
    assert!(matches!(client.access_token(&server).await, Err(Error::RefusedByPolicy { .. })));
    assert!(stage.asked.lock().unwrap().is_empty(), "nothing was sent to it");
    stage.metadata.lock().unwrap()["authorization_grant_profiles_supported"] = json!([]);
    let server = client.discover(&mcp).await.unwrap();
    assert!(
        matches!(client.access_token(&server).await, Err(Error::NotOffered(_))),
        "the profile is not advertised"
    );
}

#[tokio::test]
async fn answers_that_do_not_fit_are_thrown_away() {
    let world = World::new().await;
    let (stage, url) = Stage::start().await;
    let key = Key::new();
    let mut settings = world.client_settings();
    settings.idp_token_endpoint = Some(format!("{url}/token"));
    let (vault, outbound) =
        (passavant_client::MemoryVault::default(), passavant_outbound::Outbound::new(&[]).unwrap());
    let clock = passavant_proto::time::Clock::new(|| {
        passavant_proto::time::Timestamp(passavant_tests::world::START)
    });
    let entropy = passavant_proto::time::Entropy::new(|b| b.fill(7));
    let client = passavant_client::Client::new(settings, Box::new(vault), outbound, clock, entropy);
    let server = client.discover(&world.canvas).await.unwrap();
    let good_claims = world.id_jag_claims();
    let answer = |claims: &Value, typ: &str| {
        json!({"access_token": key.sign(&key.header(typ).to_string(), claims.to_string().as_bytes()),
               "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag", "token_type": "N_A",
               "expires_in": 120, "resource": world.canvas})
    };
    let typ = "oauth-id-jag+jwt";
    let good = answer(&good_claims, typ);
    let subject = (SubjectTokenKind::IdToken, "a.b.c");
    *stage.token.lock().unwrap() = good.clone();
    assert!(client.exchange(&server, None, subject).await.is_ok());
    let with = |name: &str, value: Value| {
        let mut claims = good_claims.clone();
        claims[name] = value;
        answer(&claims, typ)
    };
    let changed = |name: &str, value: Value| {
        let mut answer = good.clone();
        answer[name] = value;
        answer
    };
    for (case, answer) in [
        (
            "another issued_token_type",
            changed("issued_token_type", json!("urn:ietf:params:oauth:token-type:access_token")),
        ),
        ("no issued_token_type", changed("issued_token_type", Value::Null)),
        ("token_type Bearer", changed("token_type", json!("Bearer"))),
        ("not a JWT", changed("access_token", json!("opaque"))),
        ("typ", answer(&good_claims, "JWT")),
        ("another audience", with("aud", json!(world.other_ras))),
        ("two audiences", with("aud", json!([world.ras, world.other_ras]))),
        ("another resource", with("resource", json!(world.boards))),
        ("one resource too many", with("resource", json!([world.canvas, world.boards]))),
        ("a resource twice", with("resource", json!([world.canvas, world.canvas]))),
        ("an empty resource", with("resource", json!([]))),
        ("a resource that differs from the claim", changed("resource", json!(world.boards))),
    ] {
        *stage.token.lock().unwrap() = answer;
        let outcome = client.exchange(&server, None, subject).await;
        assert!(
            matches!(outcome, Err(Error::BadAnswer { .. })),
            "{case}: {:?}",
            outcome.err().map(|e| e.to_string())
        );
    }
    let mut absent = good_claims.clone();
    absent.as_object_mut().unwrap().remove("resource");
    let mut answer_absent = answer(&absent, typ);
    answer_absent.as_object_mut().unwrap().remove("resource");
    *stage.token.lock().unwrap() = answer_absent;
    assert!(client.exchange(&server, None, subject).await.is_err(), "no resource");
}

#[tokio::test]
async fn pkce_is_demanded_of_the_identity_provider() {
    let world = World::new().await;
    let (stage, url) = Stage::start().await;
    for methods in [json!(null), json!([]), json!(["plain"])] {
        let mut metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token"),
                                  "authorization_endpoint": format!("{url}/authorize")});
        if !methods.is_null() {
            metadata["code_challenge_methods_supported"] = methods;
        }
        *stage.metadata.lock().unwrap() = metadata;
        let mut settings = world.client_settings();
        settings.idp = passavant_proto::identifier::Issuer::parse(&url).unwrap();
        let outbound = passavant_outbound::Outbound::new(&[]).unwrap();
        let clock = passavant_proto::time::Clock::new(|| passavant_proto::time::Timestamp(0));
        let entropy = passavant_proto::time::Entropy::new(|b| b.fill(7));
        let vault = Box::new(passavant_client::MemoryVault::default());
        let client = passavant_client::Client::new(settings, vault, outbound, clock, entropy);
        let refused = client.begin_sign_in(&SignInOptions::default()).await;
        assert!(refused.is_err_and(|e| e.to_string().contains("PKCE")), "no S256 in its metadata");
    }
}

/// Makes an ID token with these claims.
type Forge = Box<dyn Fn(Value, &Key) -> String>;

/// A client for a company whose IdP is a `Stage`.
fn staged(world: &World, url: &str) -> passavant_client::Client {
    let mut settings = world.client_settings();
    settings.idp = passavant_proto::identifier::Issuer::parse(url).unwrap();
    world.client_with(settings)
}

#[tokio::test]
async fn an_id_token_that_does_not_verify_ends_the_sign_in() {
    let world = World::new().await;
    let (stage, url) = Stage::start().await;
    let key = Key::new();
    *stage.metadata.lock().unwrap() = json!({
        "issuer": url, "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": format!("{url}/authorize"), "jwks_uri": format!("{url}/jwks"),
        "code_challenge_methods_supported": ["S256"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
    });
    *stage.jwks.lock().unwrap() = json!({"keys": [key.jwk()]});
    let now = world.now().0;
    let access_token = "an-access-token";
    let good = json!({"iss": url, "sub": "erin", "aud": "agent", "iat": now, "exp": now + 600,
                      "at_hash": passavant_proto::oidc::id_token::at_hash(
                          access_token, passavant_proto::jose::jwk::Algorithm::ES256)});
    let signed = |claims: Value, key: &Key| {
        key.sign(&key.header("JWT").to_string(), claims.to_string().as_bytes())
    };
    let with = move |name: &'static str, value: Value| -> Forge {
        Box::new(move |mut claims: Value, key: &Key| {
            claims[name] = value.clone();
            signed(claims, key)
        })
    };
    let cases: Vec<(&str, bool, Forge)> = vec![
        ("the good one", true, Box::new(signed)),
        ("nonce", false, with("nonce", json!("another"))),
        ("no nonce", false, with("nonce", Value::Null)),
        ("aud", false, with("aud", json!("sibling"))),
        ("two audiences without azp", false, with("aud", json!(["agent", "sibling"]))),
        ("iss", false, with("iss", json!(format!("{url}/")))),
        ("exp", false, with("exp", json!(now - 31))),
        ("iat in the future", false, with("iat", json!(now + 31))),
        ("at_hash", false, with("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))),
        ("sub", false, with("sub", json!(7))),
        ("another key", false, Box::new(move |claims, _| signed(claims, &Key::new()))),
        (
            "alg none",
            false,
            Box::new(|claims: Value, _: &Key| {
                use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
                let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
                format!("{}.{}.", part(r#"{"alg":"none","typ":"JWT"}"#), part(&claims.to_string()))
            }),
        ),
    ];
    for (case, works, forge) in cases {
        let client = staged(&world, &url);
        let pending = client.begin_sign_in(&SignInOptions::default()).await.unwrap();
        let asked = url::Url::parse(pending.url()).unwrap();
        let parameter =
            |name: &str| asked.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        let mut claims = good.clone();
        claims["nonce"] = json!(parameter("nonce"));
        *stage.token.lock().unwrap() = json!({"access_token": access_token, "token_type": "Bearer",
            "expires_in": 300, "id_token": forge(claims, &key)});
        let back =
            format!("{}?code=c&state={}&iss={url}", parameter("redirect_uri"), parameter("state"));
        let browser = async { world.http.get(back).send().await.unwrap().status().as_u16() };
        let (outcome, status) = tokio::join!(pending.finish(), browser);
        assert_eq!(outcome.is_ok(), works, "{case}: {:?}", outcome.err().map(|e| e.to_string()));
        assert_eq!(status == 200, works, "{case}: the person was told otherwise");
        assert_eq!(client.session().await.unwrap().is_some(), works, "{case}");
    }
}

#[tokio::test]
async fn credentials_go_to_their_own_authorization_server_alone() {
    let world = World::new().await;
    let client = world.client();
    sign_in(&world, &client, "erin").await;
    let access = client.access(&world.canvas).await.unwrap();
    assert_eq!(access.authorization_server, world.ras.as_str());
    // A token endpoint on plain http, as a script, or behind a redirect.
    let (stage, url) = Stage::start().await;
    for (case, endpoint) in [
        ("plain http", "http://as.example/token".to_owned()),
        ("a script", "javascript:alert(1)".to_owned()),
        ("a file", "file:///tmp/x".to_owned()),
        ("a user in it", url.replace("http://", "http://u:p@") + "/token"),
        ("307", format!("{url}/redirect")),
    ] {
        let mut settings = world.client_settings();
        settings.idp_token_endpoint = Some(endpoint);
        let other = world.client_with(settings);
        let server = other.discover(&world.canvas).await.unwrap();
        let outcome = other.exchange(&server, None, (SubjectTokenKind::IdToken, "a.b.c")).await;
        assert!(outcome.is_err(), "{case}");
        assert!(stage.asked.lock().unwrap().is_empty(), "{case}: the form went on");
    }
    // The server moves to another authorization server: nothing from the old one is sent there.
    *stage.resource.lock().unwrap() =
        json!({"resource": format!("{url}/mcp"), "authorization_servers": [world.ras]});
    let mcp = format!("{url}/mcp");
    let registered =
        json!({"resource": mcp, "authorization_server": world.ras, "scopes": ["read"]});
    world.administer(reqwest::Method::POST, "/idp/resources", Some(registered)).await;
    let governed = json!({"resource": mcp, "scopes": ["read"], "default_scopes": ["read"]});
    world.administer(reqwest::Method::POST, "/ras/ras/resources", Some(governed)).await;
    let connection = json!({"id": "staged", "idp_client_id": "agent", "audience": world.ras,
        "ras_client_id": "agent-at-ras", "resources": [mcp], "scopes": ["read"], "everyone": true});
    let made = world.administer(reqwest::Method::POST, "/idp/connections", Some(connection)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let access = client.access(&mcp).await.unwrap();
    *stage.resource.lock().unwrap() = json!({"resource": mcp, "authorization_servers": [url]});
    let replaced = client.replace_access(&access).await;
    assert!(matches!(replaced, Err(Error::RefusedByPolicy { .. })), "no connection to the new one");
    assert!(stage.asked.lock().unwrap().is_empty(), "something was sent to the new one");
}

#[tokio::test]
async fn a_challenge_that_names_nothing_new_ends_it_at_once() {
    let world = World::new().await;
    let client = world.client();
    sign_in(&world, &client, "erin").await;
    let server = client.discover(&world.canvas).await.unwrap();
    client.access(&world.canvas).await.unwrap();
    // A challenge that names no new scope ends the step-up at once.
    let access = client.access(&world.canvas).await.unwrap();
    let challenge =
        passavant_proto::oauth::challenge::Challenge::new("Bearer").with("scope", "read");
    let narrow = client.widen_access(&access, &challenge).await;
    assert!(matches!(narrow, Err(Error::NothingToWiden { .. })));
    assert_eq!(server.authorization_server, world.ras);
}

#[tokio::test]
async fn no_consent_gets_around_the_policy() {
    let world = World::new().await;
    let max = world.client();
    sign_in(&world, &max, "max").await;
    let server = max.discover(&world.canvas).await.unwrap();
    let refused = max.access(&world.canvas).await;
    assert!(matches!(refused, Err(Error::RefusedByPolicy { .. })));
    assert!(
        max.begin_consent(&server, None, &SignInOptions::default()).await.is_err(),
        "no consent after a refusal"
    );
}

#[tokio::test]
async fn no_metadata_of_a_server_leads_from_the_companys_way_to_consent() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    let (stage, url) = Stage::start().await;
    let mcp = format!("{url}/mcp");
    *stage.resource.lock().unwrap() = json!({"resource": mcp, "authorization_servers": [url]});
    let metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": format!("{url}/authorize"),
        "code_challenge_methods_supported": ["S256"]});
    *stage.metadata.lock().unwrap() = metadata;
    // No company governs it: the person may consent.
    let free = desk.client.access(&mcp).await;
    assert!(matches!(free, Err(Error::ConsentNeeded { .. })), "{:?}", free.err());
    // The company governs it, by its catalog: it does not matter that the metadata name an
    // authorization server without cross-app access.
    let registered =
        json!({"resource": mcp, "authorization_server": world.ras, "scopes": ["read"]});
    world.administer(reqwest::Method::POST, "/idp/resources", Some(registered)).await;
    let connection = json!({"id": "staged", "idp_client_id": "passavant", "audience": world.ras,
        "resources": [mcp], "scopes": ["read"], "groups": ["nobody"]});
    world.administer(reqwest::Method::POST, "/idp/groups", Some(json!({"name": "nobody"}))).await;
    let made = world.administer(reqwest::Method::POST, "/idp/connections", Some(connection)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    // The earlier answer is cached for a minute.
    world.pass(61);
    let held = desk.client.access(&mcp).await;
    assert!(matches!(held, Err(Error::RefusedByPolicy { .. })), "{:?}", held.err());
    let told = desk.client.refusal(&mcp).await.unwrap();
    assert_eq!(
        told,
        format!("Access to {mcp} was refused by Acme's policy: group nobody required. Ask IT.")
    );
    // Disabling a connection removes the server from the catalog, and does not permit consent.
    let named = Some(json!({"id": "staged"}));
    let off =
        world.administer(reqwest::Method::POST, "/idp/connections/staged/disable", named).await;
    assert!(off.status < 300, "{} {}", off.status, off.text);
    world.pass(61);
    let held = desk.client.access(&mcp).await;
    assert!(matches!(held, Err(Error::RefusedByPolicy { .. })), "{:?}", held.err());
    let told = desk.client.refusal(&mcp).await.unwrap();
    assert_eq!(told, format!("Access to {mcp} was refused by Acme's policy. Ask IT."));
    // An earlier consent is not used either.
    let consent = passavant_client::Consent {
        authorization_endpoint: None,
        client_id: "x".to_owned(),
        client_secret: None,
        by_key: false,
        refresh_token: None,
    };
    let kept = passavant_client::Access {
        url: mcp.clone(),
        resource: mcp.clone(),
        authorization_server: url.clone(),
        token: "t".to_owned(),
        scopes: passavant_proto::oauth::scope::Scopes::default(),
        expires: world.now().0 + 86_400,
        dpop_jkt: None,
        consent: Some(consent),
    };
    desk.vault.store_access(&mcp, Some(&kept)).await.unwrap();
    let held = desk.client.access(&mcp).await;
    assert!(matches!(held, Err(Error::RefusedByPolicy { .. })), "{:?}", held.err());
    assert!(desk.vault.load_access(&mcp).await.unwrap().is_none());
    let server = desk.client.discover(&mcp).await.unwrap();
    let consent = desk.client.begin_consent(&server, None, &SignInOptions::default()).await;
    assert!(consent.is_err(), "no consent after a refusal");
    // Signing out does not let the person decide either.
    desk.client.sign_out().await.unwrap();
    world.pass(61);
    let held = desk.client.access(&mcp).await;
    assert!(matches!(held, Err(Error::SignInNeeded { .. })), "{:?}", held.err());
}

#[tokio::test]
async fn the_companys_identity_provider_is_not_consented_at() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    let (stage, url) = Stage::start().await;
    let mcp = format!("{url}/mcp");
    *stage.resource.lock().unwrap() =
        json!({"resource": mcp, "authorization_servers": [world.idp]});
    let server = desk.client.discover(&mcp).await.unwrap();
    let consent = desk.client.begin_consent(&server, None, &SignInOptions::default()).await;
    let text = consent.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("the company's identity provider"), "{text}");
    assert!(desk.client.access(&mcp).await.is_err());
}

/// If an authorization server sent people to another one's sign-in, it would get that one's code.
#[tokio::test]
async fn nobody_is_sent_to_the_sign_in_of_another_authorization_server() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    let (stage, url) = Stage::start().await;
    let mcp = format!("{url}/mcp");
    *stage.resource.lock().unwrap() = json!({"resource": mcp, "authorization_servers": [url]});
    let of = |endpoint: &str| {
        json!({"issuer": url, "token_endpoint": format!("{url}/token"),
            "authorization_endpoint": endpoint, "code_challenge_methods_supported": ["S256"],
            "registration_endpoint": format!("{url}/register")})
    };
    // A consent that she gave at another server.
    let elsewhere = "https://as.elsewhere.example";
    let consent = passavant_client::Consent {
        authorization_endpoint: Some(format!("{elsewhere}/authorize?tenant=1")),
        client_id: "x".to_owned(),
        client_secret: None,
        by_key: false,
        refresh_token: None,
    };
    let kept = passavant_client::Access {
        url: "https://mcp.elsewhere.example/".to_owned(),
        resource: "https://mcp.elsewhere.example/".to_owned(),
        authorization_server: elsewhere.to_owned(),
        token: "t".to_owned(),
        scopes: passavant_proto::oauth::scope::Scopes::default(),
        expires: world.now().0 + 86_400,
        dpop_jkt: None,
        consent: Some(consent),
    };
    desk.vault.store_access(&kept.url, Some(&kept)).await.unwrap();
    for endpoint in [
        world.idp.endpoint("/authorize"),
        world.idp.endpoint("/authorize?x=1"),
        world.idp.endpoint("/elsewhere"),
        format!("{elsewhere}/authorize"),
        format!("{elsewhere}/authorize?tenant=2"),
    ] {
        *stage.metadata.lock().unwrap() = of(&endpoint);
        let server = desk.client.discover(&mcp).await.unwrap();
        stage.asked.lock().unwrap().clear();
        let asked = desk.client.begin_consent(&server, None, &SignInOptions::default()).await;
        let text = asked.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("gives the sign-in page of"), "{endpoint}: {text}");
        let sent = stage.asked.lock().unwrap().clone();
        assert!(sent.is_empty(), "{endpoint}: {sent:?}");
        world.pass(601);
    }
}

#[tokio::test]
async fn a_browser_is_sent_to_https_pages_and_nowhere_else() {
    let world = World::new().await;
    let (stage, url) = Stage::start().await;
    for endpoint in [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://as.example/authorize",
        "data:text/html,x",
        "ms-settings:x",
        "\\\\host\\share",
        "-a",
        "",
    ] {
        *stage.metadata.lock().unwrap() = json!({
            "issuer": url, "token_endpoint": format!("{url}/token"),
            "authorization_endpoint": endpoint, "code_challenge_methods_supported": ["S256"],
        });
        let pending = staged(&world, &url).begin_sign_in(&SignInOptions::default()).await;
        assert!(pending.is_err(), "{endpoint}");
    }
    let endpoint = format!("{url}/authorize\n?a=1&b=\" --x");
    *stage.metadata.lock().unwrap() = json!({
        "issuer": url, "token_endpoint": format!("{url}/token"),
        "authorization_endpoint": endpoint, "code_challenge_methods_supported": ["S256"],
    });
    let pending = staged(&world, &url).begin_sign_in(&SignInOptions::default()).await.unwrap();
    let shown = pending.url();
    assert!(!shown.contains(['\n', '"', ' ']), "nothing for a shell to read: {shown}");
}

#[tokio::test]
async fn a_challenge_leads_to_no_odd_place() {
    let world = World::new().await;
    let client = world.client();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let named = Arc::new(Mutex::new(String::new()));
    let (told, mcp, ras) = (Arc::clone(&named), format!("{url}/mcp"), world.ras.to_string());
    let resource = mcp.clone();
    let router = Router::new()
        .route(
            "/mcp",
            axum::routing::any(move || async move {
                let challenge = format!(
                    "Basic realm=\"a, b\", Bearer resource_metadata=\"{}\"",
                    told.lock().unwrap()
                );
                (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)])
            }),
        )
        .route(
            "/.well-known/oauth-protected-resource/mcp",
            get(move || async move {
                Json(json!({"resource": resource, "authorization_servers": [ras]}))
            }),
        );
    tokio::spawn(async move { axum::serve(listener, router).await });
    for odd in ["javascript:alert(1)", "file:///etc/passwd", "http://mcp.example/x", "//", ""] {
        odd.clone_into(&mut named.lock().unwrap());
        // The location that it names is skipped; the well-known location answers.
        let server = client.discover(&mcp).await.unwrap();
        assert_eq!(server.authorization_server, world.ras, "{odd}");
    }
}

#[tokio::test]
async fn a_consent_is_one_persons_and_stays_with_them() {
    let world = World::new().await;
    let vault = Arc::<passavant_client::MemoryVault>::default();
    let client = world.client_in(world.client_settings(), Arc::clone(&vault));
    sign_in(&world, &client, "erin").await;
    let url = "https://mcp.example/mcp";
    let kept = passavant_client::Access {
        url: url.to_owned(),
        resource: url.to_owned(),
        authorization_server: "https://as.example".to_owned(),
        token: "t".to_owned(),
        scopes: passavant_proto::oauth::scope::Scopes::default(),
        expires: world.now().0 + 3600,
        dpop_jkt: None,
        consent: Some(passavant_client::Consent {
            authorization_endpoint: None,
            client_id: "x".to_owned(),
            client_secret: None,
            by_key: false,
            refresh_token: None,
        }),
    };
    vault.store_access(url, Some(&kept)).await.unwrap();
    sign_in(&world, &client, "erin").await;
    assert!(vault.load_access(url).await.unwrap().is_some(), "she consented");
    sign_in(&world, &client, "max").await;
    assert!(vault.load_access(url).await.unwrap().is_none(), "he did not");
}
