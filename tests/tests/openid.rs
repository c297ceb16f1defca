//! What third-party applications, and the OpenID Foundation's conformance suite, require of the
//! IdP.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use passavant_proto::{
    jose::jwk::{Algorithm, KeySet},
    oauth::client::{Client, ClientAuthentication, GovernedResource, SecretHash},
    policy::ResourceAuthorizationServer,
};
use passavant_store::User;
use passavant_tests::{
    forge::{Key, Parts},
    world::{AGENT, Ask, CALLBACK, Expected, Reply, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};

async fn every_algorithm() -> World {
    World::with(Wishes { every_algorithm: true, ..Wishes::default() }).await
}

/// A confidential client with the usual secret.
async fn client(world: &World, id: &str, change: impl FnOnce(&mut Client)) {
    let hash = SecretHash { hash: world.secret.hash(), expires: None };
    let mut client = Client {
        id: id.to_owned(),
        name: id.to_owned(),
        authentication: ClientAuthentication::Secret(vec![hash]),
        redirect_uris: vec![CALLBACK.to_owned()],
        ..Client::default()
    };
    change(&mut client);
    world.put(&world.idp_store, &client).await;
}

async fn jwks(world: &World, issuer: &passavant_proto::identifier::Issuer) -> Value {
    let answer = world.http.get(issuer.endpoint("/jwks")).send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// The header of a JWT, after verifying it with a published key of its algorithm, using a
/// third-party library.
fn verified(jwt: &str, jwks: &Value) -> Value {
    let parts = Parts::of(jwt);
    let keys = jwks["keys"].as_array().unwrap();
    let jwk = keys.iter().find(|jwk| jwk["kid"] == parts.header["kid"]).expect("a published key");
    assert_eq!(jwk["alg"], parts.header["alg"]);
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk.clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let (input, signature) = jwt.rsplit_once('.').unwrap();
    let algorithm = parts.header["alg"].as_str().unwrap().parse().unwrap();
    assert!(jsonwebtoken::crypto::verify(signature, input.as_bytes(), &key, algorithm).unwrap());
    parts.header
}

#[tokio::test]
async fn each_party_gets_the_algorithm_that_was_chosen_for_it_and_all_of_them_come_back() {
    let world = every_algorithm().await;
    let document = world.http.get(world.idp.well_known_appended("openid-configuration"));
    let document: Value =
        serde_json::from_str(&document.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(
        document["id_token_signing_alg_values_supported"],
        json!(["ES256", "EdDSA", "RS256"])
    );
    for (algorithm, hash) in [
        (Algorithm::RS256, &digest::SHA256),
        (Algorithm::EdDSA, &digest::SHA512),
        (Algorithm::ES256, &digest::SHA256),
    ] {
        let id = format!("app-{algorithm}");
        client(&world, &id, |client| client.id_token_signed_response_alg = Some(algorithm)).await;
        let mut connection = world.connection(&id, "agent-at-ras");
        connection.id = id.clone();
        world.put(&world.idp_store, &connection).await;
        let tokens = world.sign_in_as("erin", &id).await;
        let published = jwks(&world, &world.idp).await;
        assert_eq!(verified(&tokens.id_token, &published)["alg"], algorithm.name());
        // OpenID Connect Core 3.1.3.6, by the hash function of the ID token's own algorithm.
        let whole = digest::digest(hash, tokens.access_token.as_bytes());
        let half = B64.encode(&whole.as_ref()[..whole.as_ref().len() / 2]);
        assert_eq!(Parts::of(&tokens.id_token).claims["at_hash"], half, "{algorithm}");
        // The ID token can be exchanged for an ID-JAG, whatever its algorithm.
        let ask = world.exchange(&tokens.id_token).basic(&id, world.secret.expose());
        let reply = world.send(&ask).await;
        assert_eq!(reply.status, 200, "{algorithm}: {}", reply.text);
    }
}

#[tokio::test]
async fn id_jags_and_access_tokens_are_signed_as_their_readers_take_them() {
    let world = every_algorithm().await;
    let event = || {
        passavant_store::AuditEvent::granted(
            passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
            world.now(),
        )
    };
    let set = |server: &mut ResourceAuthorizationServer| {
        server.id_jag_signing_alg = Some(Algorithm::RS256);
    };
    world
        .idp_store
        .update::<ResourceAuthorizationServer>(world.ras.as_str(), set, event())
        .await
        .unwrap();
    let set = |resource: &mut GovernedResource| {
        resource.access_token_signing_alg = Some(Algorithm::RS256);
    };
    let canvas = passavant_proto::identifier::Resource::parse(&world.canvas).unwrap();
    world.ras_store.update::<GovernedResource>(canvas.normalized(), set, event()).await.unwrap();
    let tokens = world.sign_in().await;
    let id_jag = world.send(&world.exchange(&tokens.id_token)).await;
    let published = jwks(&world, &world.idp).await;
    assert_eq!(verified(id_jag.str("access_token"), &published)["alg"], "RS256");
    // The RAS here trusts the IdP for ES256: one algorithm for one issuer, and no negotiation.
    let refused = world.send(&world.redeem(id_jag.str("access_token"))).await;
    assert_eq!((refused.status, refused.str("error")), (400, "invalid_grant"));
    let mut claims = world.id_jag_claims();
    claims["resource"] = world.canvas.clone().into();
    let token = world.send(&world.redeem(&world.id_jag(&claims))).await;
    assert_eq!(token.status, 200, "{}", token.text);
    let published = jwks(&world, &world.ras).await;
    assert_eq!(verified(token.str("access_token"), &published)["alg"], "RS256");
    let introspect = world.ask(&world.ras, "/introspect", &[("token", token.str("access_token"))]);
    let introspect = introspect.basic("agent-at-ras", world.secret.expose());
    assert_eq!(world.send(&introspect).await.json["active"], true, "ours, whatever signed it");
}

#[test]
fn a_key_of_one_algorithm_verifies_nothing_of_another() {
    let [ed, rsa] = passavant_tests::forge::other_keys();
    let es = Key::new();
    let jwks = json!({"keys": [es.jwk(), ed.public_jwk(), rsa.public_jwk()]}).to_string();
    let own = KeySet::parse_own(jwks.as_bytes(), Algorithm::ES256).unwrap();
    assert!(own.takes(Some("RS256")) && own.takes(Some("EdDSA")) && !own.takes(Some("PS256")));
    let one = KeySet::parse(jwks.as_bytes(), Algorithm::ES256).unwrap();
    assert!(!one.takes(Some("RS256")) && !one.takes(Some("EdDSA")) && !one.takes(None));
    for (kid, named) in [(es.kid(), "RS256"), (ed.kid(), "ES256"), (rsa.kid(), "ES256")] {
        assert_ne!(own.find(Some(kid)).unwrap().algorithm().name(), named);
    }
}

async fn authorize(world: &World, id: &str, more: &[(&str, &str)]) -> (String, Reply) {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", id)
        .append_pair("redirect_uri", CALLBACK)
        .append_pair("scope", "openid profile email groups")
        .append_pair("state", "the-state")
        .extend_pairs(more);
    let url = format!("{}?{}", world.idp.endpoint("/authorize"), query.finish());
    let ask = Ask { url: url.clone(), form: vec![], headers: vec![], method: Method::GET };
    let reply = world.send(&ask).await;
    (url, reply)
}

fn parameter(location: &str, name: &str) -> Option<String> {
    let location = url::Url::parse(location).unwrap();
    location.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
}

#[tokio::test]
async fn a_confidential_client_with_the_switch_signs_in_without_pkce() {
    let world = World::new().await;
    client(&world, "app", |client| client.pkce_optional = true).await;
    let (url, page) = authorize(&world, "app", &[]).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let redeem = |code: &str| {
        let form =
            [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK)];
        world.ask(&world.idp, "/token", &form).basic("app", world.secret.expose())
    };
    let code = async |url: &str| {
        let (location, _) = world.browse(url, "erin", passavant_tests::world::PASSWORD).await;
        parameter(&location, "code").unwrap()
    };
    let first = code(&url).await;
    // RFC 9700 4.8.2: a verifier for a request without a challenge means that the challenge was
    // removed.
    let wrong = Expected(400, "invalid_grant", "code.verifier");
    let with_verifier = redeem(&first).add("code_verifier", &"v".repeat(43));
    world.refuses(&world.idp_store, "a verifier without a challenge", &with_verifier, wrong).await;
    let reply = world.send(&redeem(&first)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let (_, reply) = authorize(&world, AGENT, &[]).await;
    assert_eq!(parameter(reply.header("location"), "error").as_deref(), Some("invalid_request"));
    let (_, reply) = authorize(&world, "app", &[("prompt", "none")]).await;
    assert_eq!(parameter(reply.header("location"), "error").as_deref(), Some("login_required"));
    let (url, _) = authorize(
        &world,
        "app",
        &[
            ("code_challenge", passavant_proto::oauth::pkce::CodeChallenge::of("v").as_str()),
            ("code_challenge_method", "S256"),
        ],
    )
    .await;
    let wrong = Expected(400, "invalid_grant", "code.verifier");
    let bare = redeem(&code(&url).await);
    world.refuses(&world.idp_store, "a challenge without a verifier", &bare, wrong).await;
}

#[tokio::test]
async fn a_request_may_be_posted_and_a_person_may_say_no() {
    let world = World::new().await;
    let (url, _) = world.authorize_url(AGENT, "");
    let (endpoint, query) = url.split_once('?').unwrap();
    let form: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .chain([("password".to_owned(), "is not passed on".to_owned())])
        .collect();
    let posted = Ask {
        url: endpoint.to_owned(),
        form,
        headers: vec![("origin".to_owned(), "https://app.example".to_owned())],
        method: Method::POST,
    };
    let reply = world.send(&posted).await;
    assert_eq!(reply.status, 303, "{}", reply.text);
    let location = reply.header("location").to_owned();
    let pairs = |text: &str| {
        let mut pairs: Vec<_> = url::Url::parse(text).unwrap().query_pairs().into_owned().collect();
        pairs.sort();
        pairs
    };
    assert_eq!(pairs(&location), pairs(&url), "the same request, and nothing beside it");
    let long = Ask { form: vec![("state".to_owned(), "s".repeat(9000))], ..posted.clone() };
    assert_eq!(world.send(&long).await.status, 400);
    // OpenID Connect Core 3.1.2.6: a person who does not want to sign in can cancel, and the
    // application gets an error.
    let page = world.http.get(&location).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Cancel"));
    let mut cancel = Ask {
        url: location,
        form: vec![("answer".to_owned(), "cancel".to_owned())],
        headers: vec![("origin".to_owned(), world.idp.origin().to_owned())],
        method: Method::POST,
    };
    let reply = world.send(&cancel).await;
    assert_eq!(reply.status, 303);
    let location = reply.header("location");
    assert!(location.starts_with(CALLBACK));
    assert_eq!(parameter(location, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(location, "state").as_deref(), Some("the-state"));
    assert_eq!(parameter(location, "iss").as_deref(), Some(world.idp.as_str()));
    cancel.headers[0].1 = "https://evil.example".to_owned();
    assert_eq!(world.send(&cancel).await.status, 403, "another site cannot say no for them");
}

#[tokio::test]
async fn names_and_groups_come_by_scope_alone() {
    let world = World::new().await;
    let set = |user: &mut User| {
        user.given_name = Some("Erin".to_owned());
        user.family_name = Some("Example".to_owned());
    };
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.idp_store.update::<User>("erin-id", set, event).await.unwrap();
    client(&world, "app", |client| client.pkce_optional = true).await;
    for (scope, expected) in [
        ("openid profile", json!(["Erin", "Example", null])),
        ("openid groups", json!([null, null, ["engineering"]])),
        ("openid", json!([null, null, null])),
    ] {
        let (url, _) = authorize(&world, "app", &[]).await;
        let url = url.replace("openid+profile+email+groups", &scope.replace(' ', "+"));
        let (location, _) = world.browse(&url, "erin", passavant_tests::world::PASSWORD).await;
        let code = parameter(&location, "code").unwrap();
        let form =
            [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)];
        let ask = world.ask(&world.idp, "/token", &form).basic("app", world.secret.expose());
        let tokens = world.send(&ask).await;
        let bearer = format!("Bearer {}", tokens.str("access_token"));
        let url = world.idp.endpoint("/userinfo");
        let userinfo = world.call(&url, &[("authorization", &bearer)], &json!({})).await.json;
        for claims in [Parts::of(tokens.str("id_token")).claims, userinfo] {
            let found = json!([claims["given_name"], claims["family_name"], claims["groups"]]);
            assert_eq!(found, expected, "{scope}");
        }
    }
    // RFC 6750 3.1: if there is no token, neither header nor body names an error.
    let reply = world.call(&world.idp.endpoint("/userinfo"), &[], &json!({})).await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, "Bearer"));
    assert!(reply.json.get("error").is_none(), "{}", reply.text);
}

#[tokio::test]
async fn a_client_that_binds_its_tokens_gets_none_without_a_proof() {
    let world = World::new().await;
    client(&world, "bound", |client| client.dpop_bound_access_tokens = true).await;
    let (code, verifier) = world.code("erin", "bound", "").await;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", &verifier),
    ];
    let ask = world.ask(&world.idp, "/token", &form).basic("bound", world.secret.expose());
    let required = Expected(400, "invalid_dpop_proof", "dpop.required");
    world.refuses(&world.idp_store, "no proof", &ask, required).await;
    let proof = world.dpop(&Key::new(), &world.dpop_claims(&world.idp.endpoint("/token")));
    let reply = world.send(&ask.header("dpop", &proof)).await;
    assert_eq!((reply.status, reply.str("token_type")), (200, "DPoP"), "{}", reply.text);
}

#[tokio::test]
async fn a_lost_answer_of_a_refresh_can_be_asked_for_again_and_nothing_else_can() {
    let world = World::new().await;
    let renew = |token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        world.ask(&world.idp, "/token", &form)
    };
    let reuse = Expected(400, "invalid_grant", "refresh.reuse");
    let first = world.sign_in().await.refresh_token;
    let lost = world.send(&renew(&first)).await;
    world.pass(10);
    let again = world.send(&renew(&first)).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.str("refresh_token"), lost.str("refresh_token"), "one successor");
    assert_ne!(again.str("access_token"), lost.str("access_token"));
    let event = world.last_event(&world.idp_store).await;
    assert_eq!(
        (event.event.as_str(), &event.details["repeated"]),
        ("refresh_token", &"true".to_owned())
    );
    world.pass(1);
    world.refuses(&world.idp_store, "after eleven seconds", &renew(&first), reuse).await;
    // Once the successor was used, its predecessor is rejected.
    let first = world.sign_in().await.refresh_token;
    let second = world.send(&renew(&first)).await.str("refresh_token").to_owned();
    assert_eq!(world.send(&renew(&second)).await.status, 200);
    world.refuses(&world.idp_store, "the successor was used", &renew(&first), reuse).await;
    // Another secret of the same client does not count as the same holder.
    let first = world.sign_in().await.refresh_token;
    assert_eq!(world.send(&renew(&first)).await.status, 200);
    let path = format!("/idp/clients/{AGENT}/secret");
    let fresh = world.administer(Method::POST, &path, Some(json!({"overlap": 60}))).await;
    let other = renew(&first).basic(AGENT, fresh.str("client_secret"));
    world.refuses(&world.idp_store, "another secret", &other, reuse).await;
    // With a client secret, another DPoP key still counts as the same holder.
    let first = world.sign_in().await.refresh_token;
    let url = world.idp.endpoint("/token");
    let mut brought = Vec::new();
    for _ in 0..2 {
        let proof = world.dpop(&Key::new(), &world.dpop_claims(&url));
        let reply = world.send(&renew(&first).header("dpop", &proof)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        brought.push(reply.str("refresh_token").to_owned());
    }
    assert_eq!(brought[0], brought[1]);
    // A public client without a key proves nothing.
    let first = world.sign_in_as("erin", "public").await.refresh_token;
    let public = renew(&first).no_header("authorization").add("client_id", "public");
    assert_eq!(world.send(&public).await.status, 200);
    world.refuses(&world.idp_store, "a public client", &public, reuse).await;
}

/// FAPI 2.0 5.3.2.1: refresh tokens are not rotated for a client that authenticates and whose
/// tokens are bound. RFC 9449 5: it may use another key each time.
#[tokio::test]
async fn a_client_whose_tokens_are_all_bound_keeps_its_refresh_token() {
    let world = World::new().await;
    client(&world, "bound", |client| client.dpop_bound_access_tokens = true).await;
    let url = world.idp.endpoint("/token");
    let proved = |form: &[(&str, &str)]| {
        let proof = world.dpop(&Key::new(), &world.dpop_claims(&url));
        let ask = world.ask(&world.idp, "/token", form).basic("bound", world.secret.expose());
        ask.header("dpop", &proof)
    };
    let renew = |token: &str| proved(&[("grant_type", "refresh_token"), ("refresh_token", token)]);
    let sign_in = async || {
        let (code, verifier) = world.code("erin", "bound", "").await;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", &verifier),
        ];
        world.send(&proved(&form)).await.str("refresh_token").to_owned()
    };
    let token = sign_in().await;
    let mut bound_to = Vec::new();
    for later in [0, 30, 7 * 3600, 7 * 3600] {
        world.pass(later);
        let reply = world.send(&renew(&token)).await;
        assert_eq!(reply.status, 200, "{later}: {}", reply.text);
        assert_eq!(reply.str("refresh_token"), token);
        let claims = Parts::of(reply.str("access_token")).claims;
        bound_to.push(claims["cnf"]["jkt"].clone());
    }
    bound_to.dedup();
    assert_eq!(bound_to.len(), 4, "each by the key of its own proof");
    // It expires when it is not used for too long, and after its maximum lifetime, however it is
    // used.
    world.pass(8 * 3600 + 1);
    let dead = Expected(400, "invalid_grant", "refresh.invalid");
    world.refuses(&world.idp_store, "idle", &renew(&token), dead).await;
    let token = sign_in().await;
    for _ in 0..23 {
        world.pass(7 * 3600);
        assert_eq!(world.send(&renew(&token)).await.status, 200);
    }
    world.pass(7 * 3600);
    world.refuses(&world.idp_store, "after seven days", &renew(&token), dead).await;
    // It is useless to another client, and a revoked one is rejected.
    let token = sign_in().await;
    let other = renew(&token).basic(AGENT, world.secret.expose());
    world.refuses(&world.idp_store, "another client", &other, dead).await;
    let bare = renew(&token).no_header("dpop");
    let required = Expected(400, "invalid_dpop_proof", "dpop.required");
    world.refuses(&world.idp_store, "no proof", &bare, required).await;
    let revoke = world.ask(&world.idp, "/revoke", &[("token", &token)]);
    assert_eq!(world.send(&revoke.basic("bound", world.secret.expose())).await.status, 200);
    world.refuses(&world.idp_store, "revoked", &renew(&token), dead).await;
}

#[tokio::test]
async fn pages_of_other_origins_read_what_is_public_and_nothing_else() {
    let world = World::new().await;
    let ask = async |method: Method, url: String| {
        let request = world.http.request(method, url).header("origin", "https://app.example");
        let request = request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,dpop");
        request.send().await.unwrap()
    };
    let metadata = world.ras.well_known_inserted("oauth-authorization-server");
    for (method, url) in [
        (Method::GET, world.idp.well_known_appended("openid-configuration")),
        (Method::GET, world.idp.endpoint("/jwks")),
        (Method::GET, metadata),
        (Method::OPTIONS, world.ras.endpoint("/token")),
    ] {
        let reply = ask(method, url.clone()).await;
        assert!(reply.status().is_success(), "{url}: {}", reply.status());
        assert_eq!(reply.headers()["access-control-allow-origin"], "*", "{url}");
        assert!(!reply.headers().contains_key("access-control-allow-credentials"), "{url}");
    }
    for (method, url) in [
        (Method::GET, world.idp.endpoint("/authorize")),
        (Method::OPTIONS, world.idp.endpoint("/authorize")),
        (Method::GET, world.idp.endpoint("/activate")),
        (Method::OPTIONS, world.idp.endpoint("/activate")),
        (Method::OPTIONS, world.idp.endpoint("/logout")),
        (Method::OPTIONS, format!("{}/idp/clients", world.admin)),
    ] {
        let reply = ask(method, url.clone()).await;
        assert!(!reply.headers().contains_key("access-control-allow-origin"), "{url}");
    }
}

#[tokio::test]
async fn a_refused_request_is_on_record_by_the_reference_that_its_page_shows() {
    let world = World::new().await;
    let (good, _) = world.authorize_url(AGENT, "");
    let redirect = good.replace("8765", "8766").replace("callback", "elsewhere");
    for (url, reason) in [
        (
            good.replace(&format!("client_id={AGENT}"), "client_id=nobody%1b%5b31m"),
            "authorize.client",
        ),
        (redirect, "authorize.redirect_uri"),
    ] {
        let page = world.http.get(&url).send().await.unwrap();
        assert_eq!(page.status(), 400, "{url}");
        let text = page.text().await.unwrap();
        let event = world.last_event(&world.idp_store).await;
        assert_eq!(event.details["reason"], reason);
        assert!(text.contains(&event.details["request_id"]), "{text}");
        assert!(!event.details["detail"].contains('\u{1b}'), "{:?}", event.details);
    }
    // Errors that are returned to the application are recorded, too.
    let url = good.replace("response_type=code", "response_type=token");
    let reply = world.http.get(&url).send().await.unwrap();
    assert_eq!(reply.status(), 303);
    let event = world.last_event(&world.idp_store).await;
    assert_eq!(event.details["reason"], "authorize.request");
    assert!(event.details["detail"].contains("unsupported_response_type"), "{:?}", event.details);
}

/// A pushed request waits for its person; meanwhile its client may have changed.
#[tokio::test]
async fn a_pushed_request_is_held_to_its_client_as_it_is_when_it_is_used() {
    for (change, challenge) in [
        (json!({"id": "pushing", "redirect_uris": ["https://app.example/other"]}), true),
        (json!({"id": "pushing", "pkce_optional": false}), false),
    ] {
        let world = World::new().await;
        client(&world, "pushing", |client| client.pkce_optional = true).await;
        let of = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let mut form = vec![
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("scope", "openid"),
            ("state", "s"),
        ];
        if challenge {
            form.extend([("code_challenge", of), ("code_challenge_method", "S256")]);
        }
        let push = world.ask(&world.idp, "/par", &form).basic("pushing", world.secret.expose());
        let opened = async || {
            let pushed = world.send(&push).await;
            assert_eq!(pushed.status, 201, "{}", pushed.text);
            let uri: String =
                form_urlencoded::byte_serialize(pushed.str("request_uri").as_bytes()).collect();
            let url =
                world.idp.endpoint(&format!("/authorize?client_id=pushing&request_uri={uri}"));
            (world.http.get(&url).send().await.unwrap().status().as_u16(), url)
        };
        let (status, url) = opened().await;
        assert_eq!(status, 200);
        let reply =
            world.administer(Method::POST, "/idp/clients/change", Some(change.clone())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let status = world.http.get(&url).send().await.unwrap().status();
        assert_eq!(status, 400, "{change}");
    }
}

/// The redirect URI that a code was sent to may have been removed from its client since.
#[tokio::test]
async fn a_code_is_redeemed_only_while_its_client_has_the_address_it_went_to() {
    for (change, still) in [
        (json!({"id": "app", "redirect_uris": [CALLBACK, "https://app.example/more"]}), true),
        (json!({"id": "app", "redirect_uris": ["https://app.example/other"]}), false),
    ] {
        let world = World::new().await;
        client(&world, "app", |_| {}).await;
        let (code, verifier) = world.code("erin", "app", "").await;
        let reply =
            world.administer(Method::POST, "/idp/clients/change", Some(change.clone())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", verifier.as_str()),
        ];
        let redeem = world.ask(&world.idp, "/token", &form).basic("app", world.secret.expose());
        for _ in 0..2 {
            let reply = world.send(&redeem).await;
            assert_eq!(reply.status == 200, still, "{change}: {}", reply.text);
            if still {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_before_an_address_hides_nobody_behind_a_proxy() {
    let world = World::with(Wishes { behind_proxy: true, ..Wishes::default() }).await;
    let told: [(&[u8], &str); 5] = [
        (b"203.0.113.3", "203.0.113.3"),
        (b"6.6.6.6\xff, 203.0.113.3", "203.0.113.3"),
        (b"6.6.6.6, 203.0.113.3", "203.0.113.3"),
        (b"2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        (b"203.0.113.3, \xff", "127.0.0.1"),
    ];
    for (text, address) in told {
        let value = reqwest::header::HeaderValue::from_bytes(text).unwrap();
        let body = "grant_type=refresh_token&refresh_token=x&client_id=nobody&client_secret=x";
        let request = world.http.post(world.idp.endpoint("/token"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let reply = request.header("x-forwarded-for", value).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 401);
        let event = world.last_event(&world.idp_store).await;
        assert_eq!(event.details["address"], address, "{}", String::from_utf8_lossy(text));
    }
}

/// A change of a client applies to its next request, which is not refused if it satisfies the new
/// record.
#[tokio::test]
async fn the_first_request_after_a_change_of_its_client_is_looked_at_by_the_new_record() {
    let world = World::new().await;
    let url = world.idp.endpoint("/token");
    let change = |more: Value| {
        let mut body = json!({"id": "changing"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        ("/idp/clients/change", body)
    };
    client(&world, "changing", |client| {
        client.redirect_uris.push("https://app.example/unused".to_owned());
        client.device_grant = true;
        client.pkce_optional = true;
    })
    .await;
    let mut token = world.sign_in_as("erin", "changing").await.refresh_token;
    let changes = [
        change(json!({"redirect_uris": [CALLBACK]})),
        change(json!({"device_grant": false})),
        change(json!({"pkce_optional": false})),
        change(json!({"name": "Changed"})),
        ("/idp/clients/changing/secret", json!({"overlap": 3600})),
        change(json!({"dpop_bound_access_tokens": true})),
    ];
    for (path, body) in changes {
        let reply = world.administer(Method::POST, path, Some(body.clone())).await;
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text);
        let proof = world.dpop(&Key::new(), &world.dpop_claims(&url));
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        let ask = world.ask(&world.idp, "/token", &form).basic("changing", world.secret.expose());
        let renewed = world.send(&ask.header("dpop", &proof)).await;
        assert_eq!(renewed.status, 200, "{path} {body}: {}", renewed.text);
        token = renewed.str("refresh_token").to_owned();
        let row = world.last_event(&world.idp_store).await;
        assert_eq!((row.event.as_str(), row.outcome.as_str()), ("refresh_token", "granted"));
    }
    // If it does not satisfy the new record, the refusal gives the usual reason.
    let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    let ask = world.ask(&world.idp, "/token", &form).basic("changing", world.secret.expose());
    let required = Expected(400, "invalid_dpop_proof", "dpop.required");
    world.refuses(&world.idp_store, "no proof", &ask, required).await;
    let proof = world.dpop(&Key::new(), &world.dpop_claims(&url));
    let path = "/idp/clients/changing/secret";
    let replaced = world.administer(Method::POST, path, Some(json!({"overlap": 0}))).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    let gone = Expected(401, "invalid_client", "client.secret");
    world
        .refuses(&world.idp_store, "another secret", &ask.clone().header("dpop", &proof), gone)
        .await;
    let off = world.administer(Method::POST, "/idp/clients/changing/disable", None).await;
    assert_eq!(off.status, 200);
    let proof = world.dpop(&Key::new(), &world.dpop_claims(&url));
    let ask = ask.basic("changing", replaced.str("client_secret")).header("dpop", &proof);
    let unknown = Expected(401, "invalid_client", "client.unknown");
    world.refuses(&world.idp_store, "switched off", &ask, unknown).await;
}
