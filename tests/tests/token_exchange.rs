//! Token exchange at the IdP.

use passavant_store::{Put, User};
use passavant_tests::{
    forge::{Key, Parts},
    world::{AGENT, Expected, World},
};
use serde_json::json;

const SUBJECT: Expected<'_> = Expected(400, "invalid_grant", "subject.token");

#[tokio::test]
async fn a_malformed_request_says_which_parameter() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    let malformed = Expected(400, "invalid_request", "request.malformed");
    for name in
        ["grant_type", "requested_token_type", "audience", "subject_token", "subject_token_type"]
    {
        for case in
            [ask.clone().without(name), ask.clone().set(name, ""), ask.clone().set(name, "  ")]
        {
            world.refuses(&world.idp_store, name, &case, malformed).await;
            let reply = world.send(&case).await;
            assert!(reply.str("error_description").contains(name), "{}", reply.text);
        }
    }
    let double = ask.clone().add("audience", world.other_ras.as_str());
    world.refuses(&world.idp_store, "two audiences", &double, malformed).await;
    let expected = Expected(400, "unsupported_grant_type", "request.grant_type");
    for grant in ["password", "urn:ietf:params:oauth:grant-type:jwt-bearer", "implicit"] {
        world
            .refuses(&world.idp_store, grant, &ask.clone().set("grant_type", grant), expected)
            .await;
    }
    let expected = Expected(400, "invalid_request", "exchange.requested_token_type");
    let other =
        ask.clone().set("requested_token_type", "urn:ietf:params:oauth:token-type:access_token");
    world.refuses(&world.idp_store, "another token", &other, expected).await;
    let expected = Expected(400, "invalid_request", "exchange.subject_token_type");
    for kind in ["saml1", "saml2", "jwt", "access_token"] {
        let kind = format!("urn:ietf:params:oauth:token-type:{kind}");
        let saml = ask.clone().set("subject_token_type", &kind);
        world.refuses(&world.idp_store, &kind, &saml, expected).await;
    }
    let xml = ask
        .clone()
        .set("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")
        .set("subject_token", "<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><x>&a;</x>");
    world.refuses(&world.idp_store, "XML while SAML is off", &xml, expected).await;
    let expected = Expected(400, "invalid_request", "exchange.actor_token");
    for (name, value) in [("actor_token", "x"), ("actor_token_type", "x"), ("actor_token", "")] {
        world
            .refuses(
                &world.idp_store,
                "half an actor token",
                &ask.clone().add(name, value),
                expected,
            )
            .await;
    }
    let both = ask
        .clone()
        .add("actor_token", &tokens.id_token)
        .add("actor_token_type", "urn:ietf:params:oauth:token-type:id_token");
    world.refuses(&world.idp_store, "an actor token", &both, expected).await;
    let unsigned = ask.clone().add("actor_token", "eyJhbGciOiJub25lIn0.e30.");
    world.refuses(&world.idp_store, "an unsigned actor token", &unsigned, expected).await;
    let expected = Expected(400, "invalid_authorization_details", "request.authorization_details");
    world
        .refuses(&world.idp_store, "RAR", &ask.clone().add("authorization_details", "[]"), expected)
        .await;
    assert_eq!(world.send(&ask).await.status, 200);
}

#[tokio::test]
async fn only_a_live_id_token_of_ours_for_this_client() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let of_sibling = world.sign_in_as("erin", "sibling").await;
    let refuse = |case: &'static str, token: String, expected| {
        let ask = world.exchange(&token);
        let world = &world;
        async move { world.refuses(&world.idp_store, case, &ask, expected).await }
    };
    refuse("a sibling client's", of_sibling.id_token, SUBJECT).await;
    refuse("an access token", tokens.access_token.clone(), SUBJECT).await;
    refuse("an ID-JAG", world.id_jag(&world.id_jag_claims()), SUBJECT).await;
    refuse("a refresh token as ID token", tokens.refresh_token.clone(), SUBJECT).await;
    let stranger = Key::new();
    refuse("signed by a stranger", Parts::of(&tokens.id_token).sign(&stranger), SUBJECT).await;
    let mut foreign = Parts::of(&tokens.id_token);
    foreign.claims["iss"] = json!("https://idp.other.example");
    refuse("another issuer", foreign.sign(&world.idp_key), SUBJECT).await;
    let mut both = Parts::of(&tokens.id_token);
    both.claims["aud"] = json!([AGENT, "sibling"]);
    refuse("two audiences", both.sign(&world.idp_key), SUBJECT).await;
    let mut azp = Parts::of(&tokens.id_token);
    azp.claims["azp"] = json!("sibling");
    refuse("another azp", azp.sign(&world.idp_key), SUBJECT).await;
    let ended = Expected(400, "invalid_grant", "subject.not_live");
    let mut session = Parts::of(&tokens.id_token);
    session.claims["sid"] = json!("no-such-session");
    refuse("no such session", session.sign(&world.idp_key), ended).await;
    let mut nobody = Parts::of(&tokens.id_token);
    nobody.claims["sub"] = json!("nobody");
    refuse("no such person", nobody.sign(&world.idp_key), ended).await;
    assert_eq!(world.send(&world.exchange(&tokens.id_token)).await.status, 200);
    world.pass(631);
    refuse("expired", tokens.id_token, SUBJECT).await;
}

#[tokio::test]
async fn a_cut_off_bites_at_the_next_exchange() {
    let world = World::new().await;
    let post = reqwest::Method::POST;
    for (path, undo, expected) in [
        (
            "/idp/users/erin/disable",
            "/idp/users/erin/enable",
            Expected(400, "invalid_grant", "subject.not_live"),
        ),
        (
            "/idp/clients/agent/disable",
            "/idp/clients/agent/enable",
            Expected(401, "invalid_client", "client.unknown"),
        ),
        (
            "/idp/connections/agent-canvas/disable",
            "/idp/connections/agent-canvas/enable",
            Expected(400, "access_denied", "policy.not_connected"),
        ),
    ] {
        let tokens = world.sign_in().await;
        let by_id_token = world.exchange(&tokens.id_token);
        assert_eq!(world.send(&by_id_token).await.status, 200);
        assert_eq!(world.administer(post.clone(), path, None).await.status, 200);
        world.refuses(&world.idp_store, path, &by_id_token, expected).await;
        assert_eq!(world.administer(post.clone(), undo, None).await.status, 200);
    }
    // A person who was removed from the group.
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    assert_eq!(world.send(&ask).await.status, 200);
    let groups = json!({"groups": ["marketing"]});
    assert_eq!(world.administer(post, "/idp/users/erin/groups", Some(groups)).await.status, 200);
    let expected = Expected(400, "access_denied", "policy.not_assigned");
    world.refuses(&world.idp_store, "a person taken out of the group", &ask, expected).await;
    assert_eq!(world.last_event(&world.idp_store).await.details["rule"], "connection agent-canvas");
}

#[tokio::test]
async fn a_refresh_token_serves_as_subject_without_being_used_up() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let by_refresh = |token: &str| {
        world
            .exchange(token)
            .set("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token")
    };
    for _ in 0..3 {
        let reply = world.send(&by_refresh(&tokens.refresh_token)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.json.get("refresh_token").is_none());
    }
    let expected = Expected(400, "invalid_grant", "subject.refresh_token");
    let sibling = world.sign_in_as("erin", "sibling").await;
    world
        .refuses(
            &world.idp_store,
            "another client's refresh token",
            &by_refresh(&sibling.refresh_token),
            expected,
        )
        .await;
    world.refuses(&world.idp_store, "unknown", &by_refresh("unknown"), expected).await;
    let renew = |token: &str| {
        world.ask(
            &world.idp,
            "/token",
            &[("grant_type", "refresh_token"), ("refresh_token", token)],
        )
    };
    let renewed = world.send(&renew(&tokens.refresh_token)).await;
    assert_eq!(renewed.status, 200);
    let successor = renewed.str("refresh_token");
    assert_eq!(world.send(&by_refresh(successor)).await.status, 200);
    // The rotated token was presented again: two parties have it, and the family ends.
    let reuse = Expected(400, "invalid_grant", "refresh.reuse");
    world
        .refuses(
            &world.idp_store,
            "a refresh token that was rotated out",
            &by_refresh(&tokens.refresh_token),
            reuse,
        )
        .await;
    world
        .refuses(&world.idp_store, "the successor as subject", &by_refresh(successor), expected)
        .await;
    let dead = Expected(400, "invalid_grant", "refresh.invalid");
    world
        .refuses(&world.idp_store, "the successor at the refresh grant", &renew(successor), dead)
        .await;
}

#[tokio::test]
async fn audience_and_resource_must_fit_and_tell_nothing() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    let unknown = Expected(400, "access_denied", "policy.audience_unknown");
    let mut bodies = std::collections::BTreeSet::new();
    for (case, audience) in [
        ("an unknown audience", "https://as.unknown.example"),
        ("the resource as audience", world.canvas.as_str()),
        ("the IdP itself as audience", world.idp.as_str()),
        ("not a URL", "canvas"),
        ("two slashes", &format!("{}//", world.ras)),
    ] {
        let ask = ask.clone().set("audience", audience);
        world.refuses(&world.idp_store, case, &ask, unknown).await;
        bodies.insert(world.send(&ask).await.text);
    }
    let max = world.sign_in_as("max", AGENT).await;
    let not_assigned = Expected(400, "access_denied", "policy.not_assigned");
    world
        .refuses(
            &world.idp_store,
            "an audience that is not assigned",
            &world.exchange(&max.id_token),
            not_assigned,
        )
        .await;
    bodies.insert(world.send(&world.exchange(&max.id_token)).await.text);
    assert_eq!(bodies.len(), 1, "what is not there and what is not yours read differently");
    for audience in [format!("{}/", world.ras), format!("{}/alias", world.ras)] {
        let reply = world.send(&ask.clone().set("audience", &audience)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let claims = Parts::of(reply.str("access_token")).claims;
        assert_eq!(claims["aud"], json!(world.ras), "aud is the issuer as registered");
    }
    let foreign = Expected(400, "access_denied", "policy.resource_not_governed");
    for resource in [world.notes.as_str(), "https://mcp.unknown.example/mcp"] {
        let ask = ask.clone().set("resource", resource);
        world.refuses(&world.idp_store, "a resource of another server", &ask, foreign).await;
        let with_good = world.exchange(&tokens.id_token).add("resource", resource);
        world
            .refuses(&world.idp_store, "a foreign resource beside a good one", &with_good, foreign)
            .await;
    }
    let long = format!("https://a.example/{}", "x".repeat(4096));
    let malformed = Expected(400, "invalid_target", "resource.malformed");
    for resource in [
        &format!("{}#frag", world.canvas),
        "/canvas",
        "canvas",
        "https://user@mcp.example/",
        "javascript:alert(1)",
        "http://mcp.example/mcp",
        &long,
    ] {
        world
            .refuses(
                &world.idp_store,
                "a malformed resource",
                &ask.clone().set("resource", resource),
                malformed,
            )
            .await;
    }
    let required = Expected(400, "invalid_target", "policy.resource_required");
    world
        .refuses(&world.idp_store, "no resource", &ask.clone().without("resource"), required)
        .await;
    // If the connection has exactly one resource, that one is used.
    let single = ask.without("resource").set("audience", world.other_ras.as_str());
    let reply = world.send(&single).await;
    assert_eq!(reply.json["resource"], json!(world.notes), "{}", reply.text);
}

#[tokio::test]
async fn resources_are_compared_normalized_and_echoed_as_spelled() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let origin = world.canvas.trim_end_matches("/canvas");
    for (spelling, good) in [
        (format!("{}/x/../canvas", origin.replace("http", "HTTP")), true),
        (format!("{origin}/%63anvas"), true),
        (format!("{origin}/./canvas"), true),
        (format!("{origin}/Canvas"), false),
        (format!("{origin}/canvas/"), false),
        (format!("{origin}/canvas%2F"), false),
        (format!("{origin}/canvas?x=1"), false),
    ] {
        let reply = world.send(&world.exchange(&tokens.id_token).set("resource", &spelling)).await;
        assert_eq!(reply.status == 200, good, "{spelling}: {}", reply.text);
        if good {
            assert_eq!(reply.str("resource"), spelling);
            let claims = Parts::of(reply.str("access_token")).claims;
            assert_eq!(claims["resource"], json!(spelling));
            let token = world.send(&world.redeem(reply.str("access_token"))).await;
            assert_eq!(token.status, 200, "{}", token.text);
            assert_eq!(token.str("resource"), spelling);
            let claims = Parts::of(token.str("access_token")).claims;
            assert_eq!(claims["aud"], json!(world.canvas), "aud of the token is as registered");
        }
    }
}

#[tokio::test]
async fn scopes_are_what_policy_leaves_of_them() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    let granted = |reply: &passavant_tests::world::Reply| {
        let claims = Parts::of(reply.str("access_token")).claims;
        assert_eq!(claims["scope"], reply.json["scope"]);
        reply.str("scope").to_owned()
    };
    for (wanted, got) in [("read", "read"), ("read admin", "read"), ("write read", "read write")] {
        let reply = world.send(&ask.clone().set("scope", wanted)).await;
        assert_eq!(granted(&reply), got, "{wanted}");
    }
    let reply = world.send(&ask.clone().without("scope")).await;
    assert_eq!(granted(&reply), "read write", "nothing asked for: all there is");
    let none = Expected(400, "access_denied", "policy.scope_not_allowed");
    world
        .refuses(
            &world.idp_store,
            "scopes outside the policy",
            &ask.clone().set("scope", "admin delete"),
            none,
        )
        .await;
    let malformed = Expected(400, "invalid_scope", "scope.malformed");
    world.refuses(&world.idp_store, "quotes", &ask.set("scope", "a\"b"), malformed).await;
}

#[tokio::test]
async fn the_client_id_claim_comes_from_the_mapping_alone() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    let mismatch = Expected(401, "invalid_client", "client.id_mismatch");
    let downstream = ask.clone().add("client_id", "agent-at-ras");
    world.refuses(&world.idp_store, "the client id of the other side", &downstream, mismatch).await;
    for name in ["ras_client_id", "client", "azp"] {
        let reply = world.send(&ask.clone().add(name, "someone-else")).await;
        let claims = Parts::of(reply.str("access_token")).claims;
        assert_eq!(claims["client_id"], "agent-at-ras");
    }
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_or_too_weak_asks_for_a_step_up() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token);
    let event = || {
        passavant_store::AuditEvent::granted(
            passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
            world.now(),
        )
    };
    let mut connection = world.connection(AGENT, "agent-at-ras");
    connection.conditions.max_authentication_age = Some(60);
    world.idp_store.put(&connection, Put::Replace, event()).await.unwrap();
    world.pass(60);
    assert_eq!(world.send(&ask).await.status, 200, "exactly as old as it may be");
    world.pass(1);
    let expected =
        Expected(400, "insufficient_user_authentication", "policy.authentication_too_old");
    world.refuses(&world.idp_store, "a sign-in that is too old", &ask, expected).await;
    assert_eq!(world.send(&ask).await.json["max_age"], 60);
    connection.conditions.max_authentication_age = None;
    connection.conditions.acr_values = vec!["urn:strong".to_owned()];
    world.idp_store.put(&connection, Put::Replace, event()).await.unwrap();
    let expected =
        Expected(400, "insufficient_user_authentication", "policy.authentication_too_weak");
    world.refuses(&world.idp_store, "a sign-in that is too weak", &ask, expected).await;
    assert_eq!(world.send(&ask).await.json["acr_values"], "urn:strong");
}

#[tokio::test]
async fn a_proof_binds_the_id_jag_and_is_never_ignored() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let (key, other) = (Key::new(), Key::new());
    let url = world.idp.endpoint("/token");
    let proof = |claims: &serde_json::Value| world.dpop(&key, claims);
    let ask = world.exchange(&tokens.id_token);
    let good = world.send(&ask.clone().header("dpop", &proof(&world.dpop_claims(&url)))).await;
    let claims = Parts::of(good.str("access_token")).claims;
    assert_eq!(claims["cnf"]["jkt"], key.kid());
    let refused = Expected(400, "invalid_dpop_proof", "dpop.proof");
    for (case, claims) in [
        ("another URL", world.dpop_claims(&world.ras.endpoint("/token"))),
        ("another method", {
            let mut claims = world.dpop_claims(&url);
            claims["htm"] = "GET".into();
            claims
        }),
    ] {
        world
            .refuses(&world.idp_store, case, &ask.clone().header("dpop", &proof(&claims)), refused)
            .await;
    }
    let mut forged = Parts::of(&proof(&world.dpop_claims(&url)));
    forged.header["jwk"] = other.jwk();
    world
        .refuses(
            &world.idp_store,
            "forged",
            &ask.clone().header("dpop", &forged.sign(&key)),
            refused,
        )
        .await;
    let mut private = Parts::of(&proof(&world.dpop_claims(&url)));
    private.header["jwk"]["d"] = "AAAA".into();
    world
        .refuses(
            &world.idp_store,
            "private",
            &ask.clone().header("dpop", &private.sign(&key)),
            refused,
        )
        .await;
    world.refuses(&world.idp_store, "garbage", &ask.clone().header("dpop", "x"), refused).await;
    let one = proof(&world.dpop_claims(&url));
    let twice = ask.clone().header("dpop", &one).header("dpop", &one);
    let repeated = Expected(400, "invalid_dpop_proof", "dpop.repeated");
    world.refuses(&world.idp_store, "two headers", &twice, repeated).await;
    assert_eq!(world.send(&ask.clone().header("dpop", &one)).await.status, 200);
    let replay = Expected(400, "invalid_dpop_proof", "dpop.replay");
    world.refuses(&world.idp_store, "replay", &ask.header("dpop", &one), replay).await;
}

#[tokio::test]
async fn the_id_jag_answer_has_the_drafts_shape_and_nothing_about_the_person() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    let mut members: Vec<_> = reply.json.as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(
        members,
        ["access_token", "expires_in", "issued_token_type", "resource", "scope", "token_type"]
    );
    assert_eq!(reply.str("token_type"), "N_A");
    assert_eq!(reply.str("issued_token_type"), "urn:ietf:params:oauth:token-type:id-jag");
    assert!(reply.json["expires_in"].as_i64().unwrap() <= 300);
    assert_eq!(reply.header("cache-control"), "no-store");
    let parts = Parts::of(reply.str("access_token"));
    assert_eq!(parts.header["typ"], "oauth-id-jag+jwt");
    assert_eq!(parts.header["kid"], world.idp_key.kid());
    let mut claims: Vec<_> = parts.claims.as_object().unwrap().keys().cloned().collect();
    claims.sort();
    assert_eq!(
        claims,
        ["aud", "client_id", "exp", "iat", "iss", "jti", "resource", "scope", "sub"]
    );
    assert_eq!(parts.claims["sub"], "erin-id", "as in an ID token");
    assert_eq!(parts.claims["resource"], reply.json["resource"]);
    let row = world.last_event(&world.idp_store).await;
    assert_eq!((row.event.as_str(), row.outcome.as_str()), ("token_exchange", "granted"));
    assert_eq!(row.details["jti"], parts.claims["jti"].as_str().unwrap());
    // An administrator released the email address to this audience.
    let mut server: passavant_proto::policy::ResourceAuthorizationServer =
        world.idp_store.by_id(world.ras.as_str()).await.unwrap().unwrap();
    server.release = serde_json::from_value(json!(["email", "auth_time", "acr", "amr"])).unwrap();
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.idp_store.put(&server, Put::Replace, event).await.unwrap();
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    let claims = Parts::of(reply.str("access_token")).claims;
    assert_eq!(claims["email"], "erin@acme.example");
    assert_eq!(claims["amr"], json!(["pwd"]));
    // An email address that is not verified is not released.
    let mut user: User = world.idp_store.by_id("erin-id").await.unwrap().unwrap();
    user.email_verified = false;
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.idp_store.put(&user, Put::Replace, event).await.unwrap();
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert!(Parts::of(reply.str("access_token")).claims.get("email").is_none());
}

#[tokio::test]
async fn a_scope_of_one_resource_never_leaks_to_another() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let event = || {
        passavant_store::AuditEvent::granted(
            passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
            world.now(),
        )
    };
    let resource = |url: &str| vec![passavant_proto::identifier::Resource::parse(url).unwrap()];
    let mut canvas = world.connection(AGENT, "agent-at-ras");
    canvas.resources = resource(&world.canvas);
    canvas.scopes = ["read"].into_iter().collect();
    world.idp_store.put(&canvas, Put::Replace, event()).await.unwrap();
    let mut boards = world.connection(AGENT, "agent-at-ras");
    boards.id = "boards".to_owned();
    boards.resources = resource(&world.boards);
    world.idp_store.put(&boards, Put::Create, event()).await.unwrap();
    // Two resources at once: only scopes that are granted for each of them.
    let both = world.exchange(&tokens.id_token).add("resource", &world.boards);
    let reply = world.send(&both).await;
    assert_eq!(reply.str("scope"), "read", "{}", reply.text);
    let alone = world.exchange(&tokens.id_token).set("resource", &world.boards);
    assert_eq!(world.send(&alone).await.str("scope"), "read write");
    // If a connection grants no scopes on a resource that has some, there are no default scopes.
    canvas.scopes = passavant_proto::oauth::scope::Scopes::default();
    world.idp_store.put(&canvas, Put::Replace, event()).await.unwrap();
    let none = world.exchange(&tokens.id_token).without("scope");
    let expected = Expected(400, "access_denied", "policy.scope_not_allowed");
    world.refuses(&world.idp_store, "no scope", &none, expected).await;
}

#[tokio::test]
async fn an_alias_never_captures_another_partys_issuer() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let mut other: passavant_proto::policy::ResourceAuthorizationServer =
        world.idp_store.by_id(world.other_ras.as_str()).await.unwrap().unwrap();
    other.aliases = vec![world.ras.to_string(), world.idp.to_string()];
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.idp_store.put(&other, Put::Replace, event).await.unwrap();
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    assert_eq!(Parts::of(reply.str("access_token")).claims["aud"], json!(world.ras));
    let own = world.exchange(&tokens.id_token).set("audience", world.idp.as_str());
    let unknown = Expected(400, "access_denied", "policy.audience_unknown");
    world.refuses(&world.idp_store, "the IdP itself by an alias", &own, unknown).await;
}
