//! Installations: enrolled by a person, accepted as clients everywhere, and revoked by the person
//! and by IT.

use futures::StreamExt;
use passavant_client::{Error, SignInOptions, begin_enrolment};
use passavant_outbound::Outbound;
use passavant_proto::secret::Secret;
use passavant_proto::{oauth::client_assertion, oauth::client_document::INSTALLATIONS};
use passavant_tests::{
    desk::{Desk, installation_key},
    world::{Ask, PASSWORD, Reply, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};

fn bearer(url: &str, method: Method, token: &str) -> Ask {
    Ask { url: url.to_owned(), form: Vec::new(), headers: Vec::new(), method }
        .header("authorization", &format!("Bearer {token}"))
        .header("content-type", "application/json")
}

/// A request of an installation to an authorization server, with a fresh assertion.
fn ask_as(
    world: &World,
    desk: &Desk,
    server: &passavant_proto::identifier::Issuer,
    form: &[(&str, &str)],
) -> Ask {
    let assertion = client_assertion::sign(
        &desk.key,
        &desk.client_id,
        server.as_str(),
        &world.id(),
        world.now(),
    );
    world
        .ask(server, "/token", form)
        .no_header("authorization")
        .add("client_id", &desk.client_id)
        .add("client_assertion_type", client_assertion::ASSERTION_TYPE)
        .add("client_assertion", &assertion)
}

/// The claims of an ID-JAG for an installation, as only the IdP can sign them.
fn id_jag_for(world: &World, desk: &Desk) -> String {
    let mut claims = world.id_jag_claims();
    claims["client_id"] = desk.client_id.clone().into();
    world.id_jag(&claims)
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

async fn redeem(world: &World, desk: &Desk) -> Reply {
    let id_jag = id_jag_for(world, desk);
    let form = [("grant_type", JWT_BEARER), ("assertion", id_jag.as_str())];
    world.send(&ask_as(world, desk, &world.ras, &form)).await
}

/// A token that allows enrolment, obtained by the code flow of the built-in client.
async fn enrolment_token(world: &World, username: &str) -> String {
    let outbound = Outbound::new(&[]).unwrap();
    let options = SignInOptions::default();
    let pending = begin_enrolment(&outbound, &world.idp, &world.entropy(), &options).await;
    let url = pending.unwrap().unwrap().url().to_owned();
    // The verifier in the URL is not known here, so the code is requested with another one.
    let verifier = "a-verifier-of-forty-three-characters-at-least-0";
    let challenge = passavant_proto::oauth::pkce::CodeChallenge::of(verifier);
    let mut url = url::Url::parse(&url).unwrap();
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| match name.as_ref() {
            "code_challenge" => (name.into_owned(), challenge.as_str().to_owned()),
            _ => (name.into_owned(), value.into_owned()),
        })
        .collect();
    url.query_pairs_mut().clear().extend_pairs(&pairs);
    let (location, _) = world.browse(url.as_str(), username, PASSWORD).await;
    let location = url::Url::parse(&location).unwrap();
    let code = location.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let redirect_uri = format!("{}/callback", location.origin().ascii_serialization());
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", redirect_uri.as_str()),
        ("code_verifier", verifier),
        ("client_id", "passavant"),
    ];
    let reply =
        world.send(&world.ask(&world.idp, "/token", &form).no_header("authorization")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.str("scope"), "enrol");
    for name in ["id_token", "refresh_token"] {
        assert!(reply.json.get(name).is_none(), "enrolling brings no {name}");
    }
    reply.str("access_token").to_owned()
}

#[tokio::test]
async fn an_installation_reaches_every_server_without_a_secret_or_a_registration() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    assert!(desk.client_id.starts_with(&world.idp.endpoint(INSTALLATIONS)));
    for url in [&world.canvas, &world.boards] {
        let access = desk.client.access(url).await.unwrap();
        let headers = [("authorization", format!("Bearer {}", access.token))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (*a, b.as_str())).collect();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        let reply = world.call(url, &headers, &call).await;
        assert_eq!(reply.str("client"), desk.client_id, "{}", reply.text);
    }
    let row = world.last_event(&world.ras_store).await;
    assert_eq!((row.event.as_str(), row.client.as_str()), ("jwt_bearer", desk.client_id.as_str()));
    // The document that the RAS reads: public, and without anything about erin or her laptop
    // (ID-JAG draft section 8).
    let document = world.http.get(&desk.client_id).send().await.unwrap();
    let text = document.text().await.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["client_id"], desk.client_id);
    assert_eq!(document["token_endpoint_auth_method"], "private_key_jwt");
    for grant in ["urn:ietf:params:oauth:grant-type:token-exchange", JWT_BEARER] {
        assert!(document["grant_types"].as_array().unwrap().contains(&json!(grant)));
    }
    for personal in ["erin", "laptop", "\"d\"", "acme.example", "device"] {
        assert!(!text.contains(personal), "the document tells {personal}: {text}");
    }
    let metadata = world.http.get(format!("{}/.well-known/oauth-authorization-server", world.ras));
    let metadata: Value = metadata.send().await.unwrap().json().await.unwrap();
    // Only those who enrolled them use installations' documents: support is not announced, so other
    // programs do not send documents of their own.
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
    let host = json!({"origin": "https://agents.example"});
    let added = world.administer(Method::POST, "/ras/ras/client-hosts", Some(host)).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let metadata = world.http.get(format!("{}/.well-known/oauth-authorization-server", world.ras));
    let metadata: Value = metadata.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        metadata["client_id_metadata_document_supported"], true,
        "advertised where documents are accepted"
    );
}

#[tokio::test]
async fn an_enrolment_serves_once_and_takes_one_public_key() {
    let world = World::new().await;
    let url = world.idp.endpoint(INSTALLATIONS);
    let key = installation_key().public_jwk().clone();
    let enrol = async |token: &str, body: Value| {
        let ask = bearer(&url, Method::POST, token);
        world.send_body(&ask, body.to_string().into_bytes()).await
    };
    let good = json!({"client_name": "laptop", "jwks": {"keys": [key]}});
    let mut private = key.clone();
    private["d"] = json!("x");
    let oct = json!({"kty": "oct", "k": "eA"});
    let token = enrolment_token(&world, "erin").await;
    for (case, body) in [
        ("no key", json!({"client_name": "x", "jwks": {"keys": []}})),
        ("two keys", json!({"client_name": "x", "jwks": {"keys": [key, key]}})),
        ("a private key", json!({"client_name": "x", "jwks": {"keys": [private]}})),
        ("a symmetric key", json!({"client_name": "x", "jwks": {"keys": [oct]}})),
        ("an unknown member", json!({"client_name": "x", "jwks": {"keys": [key]}, "user": "max"})),
        ("not an object", json!([])),
    ] {
        let reply = enrol(&token, body).await;
        assert_eq!((reply.status, reply.str("error")), (400, "invalid_client_metadata"), "{case}");
    }
    // Only an enrolment token allows enrolment, and it allows nothing else.
    let tokens = world.sign_in().await;
    assert_eq!(enrol(&tokens.access_token, good.clone()).await.status, 403);
    assert_eq!(enrol("nonsense", good.clone()).await.status, 401);
    for path in ["/userinfo", "/catalog", INSTALLATIONS] {
        let reply =
            world.send_body(&bearer(&world.idp.endpoint(path), Method::GET, &token), vec![]).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text);
    }
    let first = enrol(&token, good.clone()).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(enrol(&token, good.clone()).await.status, 401, "the token is used up");
    // Only known members of the key are published, whatever else was sent.
    let token = enrolment_token(&world, "erin").await;
    let mut decorated = key.clone();
    decorated["x5u"] = json!("https://evil.example/");
    decorated["note"] = json!("<script>");
    let body = json!({"client_name": "a\u{7}b", "jwks": {"keys": [decorated]}});
    let made = enrol(&token, body).await;
    let text = world.http.get(made.str("client_id")).send().await.unwrap().text().await.unwrap();
    assert!(!text.contains("evil") && !text.contains("script"), "{text}");
    // If a person is disabled between sign-in and enrolment, nothing is enrolled.
    let token = enrolment_token(&world, "erin").await;
    world.administer(Method::POST, "/idp/users/erin/disable", None).await;
    assert_eq!(enrol(&token, good).await.status, 401);
}

#[tokio::test]
async fn adding_a_computer_asks_the_person_and_only_the_person_may_use_it() {
    let world = World::new().await;
    // An existing session in the browser does not suffice for enrolment.
    let (_, cookies) = world.browse(&world.authorize_url("agent", "").0, "erin", PASSWORD).await;
    let enrol = world.authorize_url("passavant", "").0.replace("profile+email", "enrol");
    let page = world.http.get(&enrol).header("cookie", &cookies).send().await.unwrap();
    assert_eq!(page.status(), 200, "the sign-in page is shown");
    let page = page.text().await.unwrap();
    assert!(page.contains("Passavant, on the computer you are using"), "{page}");
    assert!(page.contains("only if you have just run"), "a link of somebody else's warns: {page}");
    // Max cannot sign in through erin's installation, neither with her browser nor with his own.
    let desk = world.desk("erin").await;
    let url = world.authorize_url("agent", "").0;
    let id = form_urlencoded::byte_serialize(desk.client_id.as_bytes()).collect::<String>();
    let url = url.replace("client_id=agent", &format!("client_id={id}"));
    let (location, _) = world.browse(&url, "max", PASSWORD).await;
    assert!(location.contains("error=access_denied") && !location.contains("code="), "{location}");
    let (location, _) = world.browse(&url, "erin", PASSWORD).await;
    assert!(location.contains("code="), "{location}");
}

#[tokio::test]
async fn a_revoked_installation_is_cut_off_at_once_on_every_path() {
    for by_it in [false, true] {
        let world = World::new().await;
        let (desk, other) = (world.desk("erin").await, world.desk("erin").await);
        let session = desk.client.session().await.unwrap().unwrap();
        let (refresh_token, id_token) =
            (session.refresh_token.clone().unwrap(), session.id_token.clone());
        let access_token = session.access_token.clone().unwrap();
        assert_eq!(redeem(&world, &desk).await.status, 200);
        // A token for an ID-JAG that the IdP has on record.
        let obtained = async |desk: &Desk| {
            let id_token = desk.client.session().await.unwrap().unwrap().id_token.clone();
            let form = world.exchange(&id_token).form;
            let form: Vec<(&str, &str)> =
                form.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let id_jag = world.send(&ask_as(&world, desk, &world.idp, &form)).await;
            assert_eq!(id_jag.status, 200, "{}", id_jag.text);
            let form = [("grant_type", JWT_BEARER), ("assertion", id_jag.str("access_token"))];
            world.send(&ask_as(&world, desk, &world.ras, &form)).await
        };
        let [held, others] = [obtained(&desk).await, obtained(&other).await];
        let active = async |of: &Reply| {
            let token = Secret::new(of.str("access_token"));
            world.ras_role.get().unwrap().stands(&token).await.unwrap()
        };
        assert!(active(&held).await && active(&others).await);
        let id = desk.client_id.rsplit('/').next().unwrap().to_owned();
        if by_it {
            let path = format!("/idp/installations/{id}");
            assert_eq!(world.administer(Method::DELETE, &path, None).await.status, 204);
            assert_eq!(world.administer(Method::DELETE, &path, None).await.status, 404);
        } else {
            // From her other computer, which lists it with its name and last use.
            let held = other.client.installations().await.unwrap().unwrap();
            assert_eq!(held.len(), 2);
            assert!(held.iter().all(|held| held.device == "erin's laptop" && held.used_at > 0));
            assert!(held.iter().any(|held| held.this_one && held.id != id));
            assert!(other.client.revoke_installation(&id).await.unwrap());
            assert!(!other.client.revoke_installation(&id).await.unwrap());
        }
        // The RAS is told, and ends what it issued to that computer.
        world.idp_role.get().unwrap().tell_servers_once().await.unwrap();
        assert_eq!([active(&held).await, active(&others).await], [false, true]);
        assert_eq!(world.http.get(&desk.client_id).send().await.unwrap().status(), 404);
        let refresh = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];
        let exchange: Vec<(String, String)> = world.exchange(&id_token).form;
        let exchange: Vec<(&str, &str)> =
            exchange.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        for form in [&refresh[..], &exchange] {
            let reply = world.send(&ask_as(&world, &desk, &world.idp, form)).await;
            assert_eq!(
                (reply.status, reply.str("error")),
                (401, "invalid_client"),
                "{}",
                reply.text
            );
        }
        for path in ["/userinfo", "/catalog", INSTALLATIONS] {
            let ask = bearer(&world.idp.endpoint(path), Method::GET, &access_token);
            assert_eq!(world.send_body(&ask, vec![]).await.status, 401, "{path}");
        }
        // The RAS caches its document for five minutes, and rejects it after that.
        world.pass(301);
        let reply = redeem(&world, &desk).await;
        assert_eq!((reply.status, reply.str("error")), (401, "invalid_client"), "{}", reply.text);
        let row = world.last_event(&world.ras_store).await;
        assert_eq!(row.details["reason"], "client.document");
        assert!(other.client.catalog().await.unwrap().is_some(), "the other one works on");
    }
}

#[tokio::test]
async fn an_installation_goes_with_its_person_and_revives_with_nothing() {
    let world = World::new().await;
    let desk = world.desk("erin").await;
    world.administer(Method::POST, "/idp/users/erin/disable", None).await;
    assert_eq!(world.http.get(&desk.client_id).send().await.unwrap().status(), 404);
    let refused = desk.client.access(&world.canvas).await;
    assert!(refused.is_err());
    world.administer(Method::POST, "/idp/users/erin/enable", None).await;
    assert_eq!(world.http.get(&desk.client_id).send().await.unwrap().status(), 200);
    let refused = desk.client.access(&world.canvas).await;
    assert!(matches!(refused, Err(Error::AccessEnded(_))), "what it had does not come back");
    world.administer(Method::DELETE, "/idp/users/erin", None).await;
    assert_eq!(world.http.get(&desk.client_id).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_person_sees_and_revokes_their_own_installations_alone() {
    let world = World::new().await;
    let (erin, max) = (world.desk("erin").await, world.desk("max").await);
    let id = erin.client_id.rsplit('/').next().unwrap();
    assert_eq!(max.client.installations().await.unwrap().unwrap().len(), 1);
    assert!(!max.client.revoke_installation(id).await.unwrap());
    assert_eq!(world.http.get(&erin.client_id).send().await.unwrap().status(), 200);
    // Another client's token is not an installation's.
    let tokens = world.sign_in().await;
    for (method, path) in
        [(Method::GET, INSTALLATIONS.to_owned()), (Method::DELETE, format!("{INSTALLATIONS}/{id}"))]
    {
        let ask = bearer(&world.idp.endpoint(&path), method, &tokens.access_token);
        assert_eq!(world.send_body(&ask, vec![]).await.status, 403, "{path}");
    }
    let list = world.administer(Method::GET, "/idp/installations", None).await;
    let users: Vec<&str> = list.json["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["user"].as_str())
        .collect();
    assert!(users.contains(&"erin") && users.contains(&"max"), "{}", list.text);
}

#[tokio::test]
async fn the_catalog_says_what_the_exchange_would_answer_and_why_not() {
    let world = World::new().await;
    let mut secret = world.connection("passavant", "");
    secret.id = "for-one-person".to_owned();
    secret.ras_client_id = None;
    secret.resources = vec![passavant_proto::identifier::Resource::parse(&world.boards).unwrap()];
    for username in ["erin", "max"] {
        let desk = world.desk(username).await;
        let catalog = desk.client.catalog().await.unwrap().unwrap();
        assert_eq!(catalog.company, "Acme");
        assert_eq!(catalog.servers.len(), 3, "{catalog:?}");
        for server in &catalog.servers {
            let got = desk.client.access(&server.resource).await;
            // The other RAS's MCP server does not exist in this world; but the exchange for it
            // does.
            if server.resource != world.notes {
                assert_eq!(got.is_ok(), server.granted, "{username} {}", server.resource);
            }
            if !server.granted {
                assert_eq!(server.explanation.as_deref(), Some("group engineering required"));
                let text = desk.client.refusal(&server.resource).await.unwrap();
                assert!(text.ends_with(
                    "was refused by Acme's policy: group engineering required. Ask IT."
                ));
            }
        }
    }
    // A client that is not an installation has a catalog, too: its own.
    let tokens = world.sign_in().await;
    let ask = bearer(&world.idp.endpoint("/catalog"), Method::GET, &tokens.access_token);
    let reply = world.send_body(&ask, vec![]).await;
    assert_eq!(reply.json["servers"].as_array().unwrap().len(), 3, "{}", reply.text);
    assert_eq!(reply.json["servers"][0]["ras_client_id"], "agent-at-ras");
    for (method, status) in [(Method::POST, 405), (Method::DELETE, 405)] {
        let ask = bearer(&world.idp.endpoint("/catalog"), method, &tokens.access_token);
        assert_eq!(world.send_body(&ask, vec![]).await.status, status);
    }
    let ask = bearer(&world.idp.endpoint("/catalog"), Method::GET, "nonsense");
    assert_eq!(world.send_body(&ask, vec![]).await.status, 401);
}

#[tokio::test]
async fn passavant_is_nobodys_client_id_and_connections_may_name_it() {
    let world = World::new().await;
    let body = json!({"id": "passavant", "name": "mine"});
    let refused = world.administer(Method::POST, "/idp/clients", Some(body)).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    let connection = |client: &str| {
        json!({"id": format!("{client}-new"), "idp_client_id": client, "audience": world.ras,
               "resources": [world.canvas], "everyone": true})
    };
    let made =
        world.administer(Method::POST, "/idp/connections", Some(connection("passavant"))).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let refused =
        world.administer(Method::POST, "/idp/connections", Some(connection("agent"))).await;
    assert!(refused.status == 400 && refused.text.contains("ras_client_id"), "{}", refused.text);
    let body = json!({"user": "erin", "client": "passavant", "resource": world.canvas});
    let explained = world.administer(Method::POST, "/idp/explain", Some(body)).await;
    assert_eq!(explained.json["granted"], true, "{}", explained.text);
    // An installation can also be named by its own id, and IT sees the same as the person.
    let desk = world.desk("max").await;
    let body = json!({"user": "max", "client": desk.client_id, "resource": world.boards});
    let explained = world.administer(Method::POST, "/idp/explain", Some(body)).await;
    assert_eq!(
        explained.json["text"], "refused: group engineering required (policy.resource_not_allowed)",
        "{}",
        explained.text
    );
    let scopes = json!(["read", "rule"]);
    let body = json!({"user": "erin", "client": "passavant", "resource": world.canvas,
                      "scopes": scopes});
    let explained = world.administer(Method::POST, "/idp/explain", Some(body)).await;
    let text = explained.json["text"].as_str().unwrap_or_default();
    assert!(text.ends_with("; not granted: rule"), "{}", explained.text);
}

#[tokio::test]
async fn a_new_password_ends_the_installations_of_before() {
    let world = World::new().await;
    let (desk, others) = (world.desk("erin").await, world.desk("max").await);
    let body = Some(json!({"password": "another long passphrase"}));
    world.administer(Method::POST, "/idp/users/erin/password", body).await;
    assert_eq!(world.http.get(&desk.client_id).send().await.unwrap().status(), 404);
    let refused = desk.client.access(&world.canvas).await;
    assert!(matches!(refused, Err(Error::AccessEnded(_))), "{:?}", refused.err());
    assert_eq!(world.http.get(&others.client_id).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_enrolling_client_redeems_codes_and_nothing_else_and_not_without_end() {
    let wishes = Wishes { failures_per_minute: Some(20), ..Wishes::default() };
    let world = World::with(wishes).await;
    let tokens = world.sign_in().await;
    let refresh_token = tokens.refresh_token.as_str();
    let code = [("grant_type", "authorization_code"), ("code", "made-up"), ("code_verifier", "x")];
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    let revoke = [("token", refresh_token)];
    let send = async |path: &str, form: &[(&str, &str)]| {
        let ask = world.ask(&world.idp, path, form).no_header("authorization");
        world.send(&ask.add("client_id", "passavant")).await
    };
    for (path, form) in [("/token", &refresh[..]), ("/revoke", &revoke), ("/introspect", &revoke)] {
        let reply = send(path, form).await;
        assert!(matches!(reply.status, 400..=404), "{path}: {}", reply.text);
    }
    let exchange = world.exchange(&tokens.id_token).form;
    let exchange: Vec<(&str, &str)> =
        exchange.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let reply = send("/token", &exchange).await;
    assert_eq!(reply.str("error"), "unauthorized_client", "{}", reply.text);
    // The person's sign-in was not affected.
    let reply = world.send(&world.ask(&world.idp, "/token", &refresh)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // Codes cannot be tried without limit: the address has to wait.
    let mut statuses = Vec::new();
    for _ in 0..200 {
        statuses.push(send("/token", &code).await.status);
        if statuses.last() == Some(&429) {
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&429), "{} tries", statuses.len());
}

#[tokio::test]
async fn a_new_password_overtakes_an_enrolment_whose_body_takes_its_time() {
    let world = World::new().await;
    let token = enrolment_token(&world, "erin").await;
    let key = installation_key();
    let body = json!({"client_name": "x", "jwks": {"keys": [key.public_jwk()]}}).to_string();
    let (first, rest) = body.split_at(10);
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let pieces = [first.to_owned(), rest.to_owned()];
    let mut gone = Some(gone);
    let slow = futures::stream::iter(pieces).enumerate().then(move |(n, piece)| {
        let gone = if n == 1 { gone.take() } else { None };
        async move {
            if let Some(gone) = gone {
                let _ = gone.await;
            }
            Ok::<_, std::io::Error>(piece)
        }
    });
    let sent = world
        .http
        .post(world.idp.endpoint(INSTALLATIONS))
        .bearer_auth(&token)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(slow))
        .send();
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let password = Some(json!({"password": "another long passphrase"}));
        world.administer(Method::POST, "/idp/users/erin/password", password).await;
        let _ = go.send(());
    };
    let (reply, ()) = tokio::join!(sent, change);
    assert_eq!(reply.unwrap().status(), 401, "enrolled for who knew the old password");
    let listed = world.administer(Method::GET, "/idp/installations", None).await;
    assert_eq!(listed.json["items"], json!([]), "{}", listed.text);
}
