//! Dynamic client registration, if enabled; and clients of the interactive path that have metadata
//! documents.

use axum::{Json, Router, routing::get};
use passavant_proto::oauth::client::Client;
use passavant_tests::{
    forge::Key,
    outsider::{Browser, VERIFIER},
    world::{Ask, Expected, Reply, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

async fn world() -> World {
    let wishes = Wishes { registration: true, behind_proxy: true, ..Wishes::default() };
    let world = World::with(wishes).await;
    world.let_outsiders_in().await;
    world
}

async fn register(world: &World, body: &Value) -> Reply {
    register_from(world, "192.0.2.1", body).await
}

/// Registers from another address, because each may register ten times per minute.
async fn register_from(world: &World, address: &str, body: &Value) -> Reply {
    world.call(&world.ras.endpoint("/register"), &[("x-forwarded-for", address)], body).await
}

fn good() -> Value {
    json!({"client_name": "Agent", "redirect_uris": ["http://127.0.0.1/callback"],
           "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
           "response_types": ["code"], "scope": "read write"})
}

#[tokio::test]
async fn registration_is_off_unless_somebody_switches_it_on() {
    let off = World::new().await;
    off.let_outsiders_in().await;
    assert_eq!(register(&off, &good()).await.status, 404);
    let metadata = async |world: &World| -> Value {
        let url = world.ras.well_known_inserted("oauth-authorization-server");
        world.http.get(url).send().await.unwrap().json().await.unwrap()
    };
    assert!(metadata(&off).await.get("registration_endpoint").is_none());
    let on = world().await;
    assert_eq!(metadata(&on).await["registration_endpoint"], on.ras.endpoint("/register"));
}

#[tokio::test]
async fn a_client_registers_itself_and_gets_what_a_person_lets_it_have() {
    let world = world().await;
    let reply = register(&world, &good()).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.header("cache-control"), "no-store");
    let id = reply.str("client_id").to_owned();
    assert!(
        id.starts_with("dyn-") && reply.json.get("client_secret").is_none(),
        "an id of the server's making"
    );
    let url = world.outsider_url(&[("client_id", &id)]);
    let mut browser = Browser::default();
    let (_, page) = browser.go(&world, &url, "erin").await;
    assert!(page.text.contains("registered itself; nobody has checked"), "{}", page.text);
    let code = browser.code(&world, &url, "erin").await;
    let tokens = world.send(&world.redeem_code(&code).set("client_id", &id)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    // Nothing works without a person: no ID-JAG, no introspection.
    let id_jag = world.id_jag(&world.id_jag_claims());
    let grant = world.redeem(&id_jag).no_header("authorization").set("client_id", &id);
    let public = Expected(400, "unauthorized_client", "client.grant");
    world.refuses(&world.ras_store, "jwt-bearer", &grant, public).await;
    // A client with a secret.
    let mut body = good();
    body["token_endpoint_auth_method"] = "client_secret_post".into();
    let reply = register(&world, &body).await;
    let (id, secret) = (reply.str("client_id").to_owned(), reply.str("client_secret").to_owned());
    let url = world.outsider_url(&[("client_id", &id)]);
    let code = browser.code(&world, &url, "erin").await;
    let ask = world.redeem_code(&code).set("client_id", &id);
    let none = Expected(401, "invalid_client", "client.unauthenticated");
    world.refuses(&world.ras_store, "without its secret", &ask, none).await;
    let code = browser.code(&world, &url, "erin").await;
    let ask = world.redeem_code(&code).set("client_id", &id).set("client_secret", &secret);
    assert_eq!(world.send(&ask).await.status, 200);
    let mut claims = world.id_jag_claims();
    claims["client_id"] = id.clone().into();
    let grant = world.redeem(&world.id_jag(&claims)).basic(&id, &secret);
    let none = Expected(400, "unauthorized_client", "client.grant");
    world.refuses(&world.ras_store, "a grant that it did not register for", &grant, none).await;
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // one case after the other
async fn bad_metadata_is_refused_and_nothing_of_it_is_fetched_or_kept() {
    let world = world().await;
    let count = async || world.ras_store.all::<Client>().await.unwrap().len();
    let before = count().await;
    let many: Vec<String> = (0..1000).map(|n| format!("https://a.example/{n}")).collect();
    let rsa = json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]});
    let mut private = Key::new().jwk();
    private["d"] = "AAAA".into();
    let redirect = "invalid_redirect_uri";
    let metadata = "invalid_client_metadata";
    let mut cases = vec![];
    for uri in [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "https://*.example/cb",
        "https://a.example/cb#f",
        "https://user@a.example/cb",
        "http://a.example/cb",
        "/relative",
        "file:///etc/passwd",
        "vbscript:x",
    ] {
        cases.push((
            "a redirect URI that is not allowed",
            json!({"redirect_uris": [uri]}),
            redirect,
        ));
    }
    cases.push(("too many redirect URIs", json!({"redirect_uris": many}), redirect));
    cases.push(("no redirect URI", json!({"redirect_uris": []}), redirect));
    cases.push((
        "redirect URIs that are no list",
        json!({"redirect_uris": "https://a.example/cb"}),
        metadata,
    ));
    cases.push(("a web application on the loopback", json!({"application_type": "web"}), redirect));
    for uri in [
        "http://127.0.0.1/jwks",
        "https://10.0.0.1/jwks",
        "file:///etc",
        "data:,x",
        "https://a.example/j",
    ] {
        cases.push(("a jwks_uri", json!({"jwks_uri": uri}), metadata));
    }
    for name in ["sector_identifier_uri", "initiate_login_uri", "backchannel_logout_uri"] {
        cases.push((
            "a URL that would be fetched or called",
            json!({name: "https://a.example/"}),
            metadata,
        ));
    }
    cases.push(("request URIs", json!({"request_uris": ["https://a.example/"]}), metadata));
    for name in ["client_uri", "logo_uri", "tos_uri", "policy_uri"] {
        for uri in [
            "javascript:alert(1)",
            "http://a.example/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::1]/",
            "https://10.0.0.1/",
            "https://intranet/",
        ] {
            cases.push(("an internal or script URL", json!({name: uri}), metadata));
        }
    }
    let jwt = "private_key_jwt";
    cases.push((
        "private_key_jwt without keys",
        json!({"token_endpoint_auth_method": jwt}),
        metadata,
    ));
    cases.push((
        "a key that is too short",
        json!({"token_endpoint_auth_method": jwt, "jwks": rsa}),
        metadata,
    ));
    cases.push((
        "a private key",
        json!({"token_endpoint_auth_method": jwt, "jwks": {"keys": [private]}}),
        metadata,
    ));
    cases.push((
        "keys of a client that has no use for them",
        json!({"jwks": {"keys": [Key::new().jwk()]}}),
        metadata,
    ));
    cases.push(("method", json!({"token_endpoint_auth_method": "tls_client_auth"}), metadata));
    cases.push((
        "grant",
        json!({"grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"]}),
        metadata,
    ));
    cases.push(("grant", json!({"grant_types": ["client_credentials"]}), metadata));
    cases.push(("response", json!({"response_types": ["token"]}), metadata));
    cases.push(("type", json!({"client_name": 7}), metadata));
    for (n, (case, change, error)) in cases.into_iter().enumerate() {
        let mut body = good();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = register_from(&world, &format!("198.51.100.{n}"), &body).await;
        assert_eq!(
            (reply.status, reply.str("error")),
            (400, error),
            "{case} {change}: {}",
            reply.text
        );
        assert!(!reply.str("error_description").is_empty(), "{case}");
    }
    assert_eq!(count().await, before, "nothing was kept");
    // Unknown members are not stored, whatever they claim.
    let mut body = good();
    for (name, value) in [
        ("trusted", json!(true)),
        ("skip_consent", json!(true)),
        ("tenant", json!("x")),
        ("scope", json!("admin *")),
        ("resources", json!([world.canvas])),
        ("client_id", json!("https://evil.example/")),
        ("id", json!("agent-at-ras")),
        ("client_secret", json!("mine")),
    ] {
        body[name] = value;
    }
    let reply = register(&world, &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let id = reply.str("client_id").to_owned();
    assert!(id.starts_with("dyn-"), "an id of the server's making");
    let kept = world.ras_store.by_id::<Client>(&id).await.unwrap().unwrap();
    assert!(kept.resources.is_empty() && kept.registered.is_some());
    assert!(reply.json.get("client_secret").is_none());
    let not_json = Ask {
        url: world.ras.endpoint("/register"),
        form: vec![("redirect_uris".to_owned(), "https://a.example/cb".to_owned())],
        headers: Vec::new(),
        method: Method::POST,
    };
    assert_eq!(world.send(&not_json).await.status, 400);
}

#[tokio::test]
async fn floods_are_slowed_and_what_nobody_lets_in_is_forgotten() {
    let world = world().await;
    let mut statuses = Vec::new();
    for _ in 0..14 {
        statuses.push(register(&world, &good()).await.status);
    }
    assert!(statuses[..10].iter().all(|status| *status == 201), "{statuses:?}");
    assert!(statuses[11..].iter().all(|status| *status == 429), "{statuses:?}");
    let registered = async || {
        let all = world.ras_store.all::<Client>().await.unwrap();
        all.iter().filter(|client| client.registered.is_some()).count()
    };
    assert!(registered().await >= 10);
    let used = register_from(&world, "192.0.2.2", &good()).await.str("client_id").to_owned();
    let url = world.outsider_url(&[("client_id", &used)]);
    Browser::default().code(&world, &url, "erin").await;
    let gave_up = register_from(&world, "192.0.2.2", &good()).await.str("client_id").to_owned();
    let url = world.outsider_url(&[("client_id", &gave_up)]);
    Browser::default().code(&world, &url, "erin").await;
    world.pass(86_400 - 3600);
    let url = world.outsider_url(&[("client_id", &used)]);
    let code = Browser::default().code(&world, &url, "erin").await;
    let tokens = world.send(&world.redeem_code(&code).set("client_id", &used)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    world.pass(3660);
    assert_eq!(register_from(&world, "192.0.2.2", &good()).await.status, 201);
    assert_eq!(registered().await, 2, "the one that was let in and holds a token, and the new one");
}

/// A host of client metadata documents.
async fn documents() -> (String, Arc<Mutex<Value>>) {
    let document: Arc<Mutex<Value>> = Arc::default();
    let shown = Arc::clone(&document);
    let answer = move || {
        let document = shown.lock().unwrap().clone();
        async move { Json(document) }
    };
    let router = Router::new().route("/client", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (origin, document)
}

#[tokio::test]
async fn a_public_client_may_be_named_by_its_document_where_its_host_is_listed() {
    let world = world().await;
    let (origin, document) = documents().await;
    let id = format!("{origin}/client");
    *document.lock().unwrap() = json!({"client_id": id, "client_name": "Web agent",
        "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none"});
    let url = world.outsider_url(&[("client_id", &id)]);
    assert_eq!(Browser::default().get(&world, &url).await.status, 400, "its host is not listed");
    let host = json!({"origin": origin});
    let added = world.administer(Method::POST, "/ras/ras/client-hosts", Some(host)).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let mut browser = Browser::default();
    let (_, page) = browser.go(&world, &url, "erin").await;
    let shown = format!("Published by <strong>{}</strong>", origin.trim_start_matches("http://"));
    assert!(page.text.contains(&shown), "{}", page.text);
    let code = browser.code(&world, &url, "erin").await;
    let tokens = world.send(&world.redeem_code(&code).set("client_id", &id)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let renew = |token: &str| world.refresh_at_ras(token).set("client_id", &id);
    let renewed = world.send(&renew(tokens.str("refresh_token"))).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    // It is a public client: an ID-JAG is not accepted from it.
    let mut claims = world.id_jag_claims();
    claims["client_id"] = id.clone().into();
    let grant =
        world.redeem(&world.id_jag(&claims)).no_header("authorization").set("client_id", &id);
    let reply = world.send(&grant).await;
    assert_eq!((reply.status, reply.str("error")), (400, "unauthorized_client"), "{}", reply.text);
    // A redirect URI was removed, and the authentication method changed.
    document.lock().unwrap()["redirect_uris"] = json!(["http://127.0.0.1/elsewhere"]);
    world.pass(301);
    assert_eq!(Browser::default().get(&world, &url).await.status, 400, "the old redirect");
    let key = Key::new();
    *document.lock().unwrap() = json!({"client_id": id, "client_name": "Web agent",
        "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [key.jwk()]}});
    world.pass(301);
    let reply = world.send(&renew(renewed.str("refresh_token"))).await;
    assert_eq!((reply.status, reply.str("error")), (401, "invalid_client"));
    assert_eq!(VERIFIER.len(), 44);
}

#[tokio::test]
async fn programs_on_a_person_s_computer_may_have_a_scheme_of_their_own_however_they_become_clients()
 {
    let world = world().await;
    let own = ["exampleeditor://vendor.extension/callback", "com.example.app:/oauth"];
    let nobodys = [
        "javascript:alert(1)",
        "file:///x",
        "http://app.example/cb",
        "ms-word:/x",
        "x:/y",
        "googlechromes://evil.example/cb",
        "itms-services://evil.example/cb",
        "http+unix:/x",
        "git+ssh:/x",
        "abc://",
    ];
    // Registered by itself, by an administrator, at both servers, and with a document.
    let (origin, document) = documents().await;
    let id = format!("{origin}/client");
    let host = Some(json!({"origin": origin}));
    assert_eq!(world.administer(Method::POST, "/ras/ras/client-hosts", host).await.status, 200);
    let mut address = 0;
    for (uri, taken) in
        own.map(|uri| (uri, true)).into_iter().chain(nobodys.map(|uri| (uri, false)))
    {
        address += 1;
        let mut body = good();
        body["redirect_uris"] = json!([uri]);
        let reply = register_from(&world, &format!("192.0.2.{address}"), &body).await;
        assert_eq!(reply.status == 201, taken, "{uri}: {}", reply.text);
        for path in ["/idp/clients", "/ras/ras/clients"] {
            let new = json!({"name": "Editor", "public": true, "redirect_uris": [uri]});
            let reply = world.administer(Method::POST, path, Some(new)).await;
            assert_eq!(reply.status == 200, taken, "{path} {uri}: {}", reply.text);
            // A client with a secret is not a program on a person's computer.
            let new = json!({"name": "Server", "redirect_uris": [uri]});
            let reply = world.administer(Method::POST, path, Some(new)).await;
            assert_eq!(reply.status, 400, "{path} {uri}: {}", reply.text);
        }
        *document.lock().unwrap() = json!({"client_id": id, "client_name": "Editor",
            "redirect_uris": [uri], "token_endpoint_auth_method": "none"});
        world.pass(301);
        let url = world.outsider_url(&[("client_id", &id), ("redirect_uri", uri)]);
        let (_, page) = Browser::default().go(&world, &url, "erin").await;
        assert_eq!(page.text.contains("name=\"ticket\""), taken, "{uri}: {}", page.text);
    }
}

#[tokio::test]
async fn who_says_that_its_tokens_are_bound_gets_no_others() {
    let world = world().await;
    let mut body = good();
    body["dpop_bound_access_tokens"] = json!(true);
    let reply = register(&world, &body).await;
    assert_eq!((reply.status, &reply.json["dpop_bound_access_tokens"]), (201, &json!(true)));
    let registered = reply.str("client_id").to_owned();
    let (origin, document) = documents().await;
    let documented = format!("{origin}/client");
    let host = Some(json!({"origin": origin}));
    assert_eq!(world.administer(Method::POST, "/ras/ras/client-hosts", host).await.status, 200);
    *document.lock().unwrap() = json!({"client_id": documented, "client_name": "Web agent",
        "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none",
        "dpop_bound_access_tokens": true});
    let key = Key::new();
    for id in [&registered, &documented] {
        let url = world.outsider_url(&[("client_id", id)]);
        let mut browser = Browser::default();
        let code = browser.code(&world, &url, "erin").await;
        let ask = world.redeem_code(&code).set("client_id", id);
        let bare = Expected(400, "invalid_dpop_proof", "dpop.required");
        world.refuses(&world.ras_store, id, &ask, bare).await;
        let proof = world.dpop(&key, &world.dpop_claims(&world.ras.endpoint("/token")));
        let tokens = world.send(&ask.header("dpop", &proof)).await;
        assert_eq!((tokens.status, tokens.str("token_type")), (200, "DPoP"), "{}", tokens.text);
    }
    for odd in [json!("true"), json!(1), json!(null)] {
        let mut body = good();
        body["dpop_bound_access_tokens"] = odd.clone();
        assert_eq!(register(&world, &body).await.status, 400, "{odd}");
    }
}
