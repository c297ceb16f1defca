//! The five steps and their surroundings, with honest parties.

use passavant_proto::jose::jwk::Algorithm;
use passavant_tests::{
    forge::{Key, Parts},
    world::{AGENT, Ask, CALLBACK, Expected, PASSWORD, Wishes, World, cookies},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn one_login_reaches_the_mcp_server_and_its_trail_leads_back() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let id_jag = world.send(&world.exchange(&tokens.id_token)).await;
    let claims = Parts::of(id_jag.str("access_token")).claims;
    let token = world.send(&world.redeem(id_jag.str("access_token"))).await;
    let bearer = format!("Bearer {}", token.str("access_token"));
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "draw"}});
    let reply = world.call(&world.canvas, &[("authorization", &bearer)], &call).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json["txn"], claims["jti"]);
    assert_eq!(reply.json["client"], "agent-at-ras");
    // Exactly this MCP server (RFC 9068 section 4).
    let sibling = world.call(&world.boards, &[("authorization", &bearer)], &call).await;
    assert_eq!(sibling.status, 401);
    assert!(sibling.header("www-authenticate").contains("invalid_token"));
}

#[tokio::test]
async fn the_resource_layer_challenges_as_mcp_asks() {
    let world = World::new().await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let none = world.call(&world.canvas, &[], &ping).await;
    assert_eq!(none.status, 401);
    let challenge = none.header("www-authenticate").to_owned();
    assert!(challenge.starts_with("Bearer resource_metadata=\""), "{challenge}");
    assert!(challenge.contains("scope=\"read\"") && !challenge.contains("error"), "{challenge}");
    assert!(!challenge.contains("offline_access"));
    let url = challenge.split('"').nth(1).unwrap().to_owned();
    assert!(url.ends_with("/.well-known/oauth-protected-resource/canvas"));
    let metadata = world.http.get(&url).send().await.unwrap();
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata.text().await.unwrap()).unwrap();
    assert_eq!(metadata["resource"], json!(world.canvas));
    assert_eq!(metadata["authorization_servers"], json!([world.ras]));
    assert_eq!(metadata["bearer_methods_supported"], json!(["header"]));
    // A token anywhere else is ignored.
    let token = world.access_token().await;
    let in_query = format!("{}?access_token={token}", world.canvas);
    assert_eq!(world.call(&in_query, &[], &ping).await.status, 401);
    let bearer = format!("Bearer {token}");
    let auth = ("authorization", bearer.as_str());
    assert_eq!(world.call(&world.canvas, &[auth], &ping).await.status, 200);
    assert_eq!(world.call(&world.canvas, &[auth, auth], &ping).await.status, 401, "two headers");
    // Host and Origin (MCP transports, Streamable HTTP).
    for host in ["evil.example", "localhost", "127.0.0.1"] {
        let reply = world.call(&world.canvas, &[auth, ("host", host)], &ping).await;
        assert_eq!(reply.status, 421, "{host}");
    }
    for origin in ["https://evil.example", "null"] {
        let reply = world.call(&world.canvas, &[auth, ("origin", origin)], &ping).await;
        assert_eq!(reply.status, 403, "{origin}");
    }
    world.pass(331);
    assert_eq!(world.call(&world.canvas, &[auth], &ping).await.status, 401, "an expired token");
}

#[tokio::test]
async fn too_little_scope_names_all_that_the_operation_needs() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let ask = world.exchange(&tokens.id_token).set("scope", "read");
    let id_jag = world.send(&ask).await;
    let token = world.send(&world.redeem(id_jag.str("access_token"))).await;
    let bearer = format!("Bearer {}", token.str("access_token"));
    let auth = [("authorization", bearer.as_str())];
    let call = |name: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}});
    assert_eq!(world.call(&world.canvas, &auth, &call("look")).await.status, 200);
    let reply = world.call(&world.canvas, &auth, &call("draw")).await;
    assert_eq!(reply.status, 403);
    let challenge = reply.header("www-authenticate");
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"read write\"") && challenge.contains("resource_metadata"));
    // A batch hides nothing, nor does a duplicate member.
    let batch = json!([call("look"), call("draw")]);
    assert_eq!(world.call(&world.canvas, &auth, &batch).await.status, 403);
    let ask = Ask {
        url: world.canvas.clone(),
        form: Vec::new(),
        headers: vec![
            ("authorization".into(), bearer.clone()),
            ("content-type".into(), "application/json".into()),
        ],
        method: Method::POST,
    };
    let twice =
        br#"{"jsonrpc":"2.0","method":"ping","method":"tools/call","params":{"name":"draw"}}"#;
    assert_eq!(world.send_body(&ask, twice.to_vec()).await.status, 400);
}

#[tokio::test]
async fn the_idps_documents_are_the_same_at_every_well_known_place() {
    let world = World::new().await;
    let get = |path: String| async {
        let answer = world.http.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_str::<serde_json::Value>(&answer.text().await.unwrap()).unwrap()
    };
    let oidc = get(world.idp.well_known_appended("openid-configuration")).await;
    assert_eq!(oidc, get(world.idp.well_known_inserted("oauth-authorization-server")).await);
    assert_eq!(oidc["issuer"], json!(world.idp));
    assert_eq!(oidc["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(oidc["authorization_response_iss_parameter_supported"], true);
    let kinds = &oidc["identity_chaining_requested_token_types_supported"];
    assert_eq!(kinds, &json!(["urn:ietf:params:oauth:token-type:id-jag"]));
    let grants = oidc["grant_types_supported"].as_array().unwrap();
    assert!(grants.contains(&json!("urn:ietf:params:oauth:grant-type:token-exchange")));
    let ras = get(world.ras.well_known_inserted("oauth-authorization-server")).await;
    assert_eq!(
        ras["authorization_grant_profiles_supported"],
        json!(["urn:ietf:params:oauth:grant-profile:id-jag"])
    );
    assert_eq!(
        ras["grant_types_supported"],
        json!(["urn:ietf:params:oauth:grant-type:jwt-bearer"])
    );
    assert!(!ras.to_string().contains(world.idp.as_str()), "trusted issuers are not told");
    assert!(ras.get("registration_endpoint").is_none(), "registration is off");
    for path in ["/register", "/device", "/nothing"] {
        assert_eq!(world.http.get(world.idp.endpoint(path)).send().await.unwrap().status(), 404);
    }
    let page = world.http.get(world.ras.endpoint("/authorize")).send().await.unwrap();
    assert_eq!(page.status(), 400);
}

#[tokio::test]
async fn userinfo_and_the_claims_of_the_id_token_follow_the_scopes() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let claims = Parts::of(&tokens.id_token).claims;
    assert_eq!(claims["nonce"], "the-nonce");
    assert_eq!(claims["email"], "erin@acme.example");
    assert_eq!(claims["amr"], json!(["pwd"]));
    assert_eq!(
        claims["at_hash"],
        passavant_proto::oidc::id_token::at_hash(&tokens.access_token, Algorithm::ES256)
    );
    let userinfo = world.idp.endpoint("/userinfo");
    let bearer = format!("Bearer {}", tokens.access_token);
    let reply = world.call(&userinfo, &[("authorization", &bearer)], &json!({})).await;
    assert_eq!(reply.json["sub"], "erin-id");
    assert_eq!(reply.json["preferred_username"], "erin");
    for (case, header) in [
        ("nothing", None),
        ("an ID token", Some(format!("Bearer {}", tokens.id_token))),
        ("the token as DPoP", Some(format!("DPoP {}", tokens.access_token))),
        ("a RAS's token", Some(format!("Bearer {}", world.access_token_unbound().await))),
    ] {
        let headers: Vec<_> = header.iter().map(|h| ("authorization", h.as_str())).collect();
        assert_eq!(world.call(&userinfo, &headers, &json!({})).await.status, 401, "{case}");
    }
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_reuse_kills_the_family() {
    let world = World::new().await;
    let first = world.sign_in().await;
    let renew = |token: &str| {
        world.ask(
            &world.idp,
            "/token",
            &[("grant_type", "refresh_token"), ("refresh_token", token)],
        )
    };
    let second = world.send(&renew(&first.refresh_token)).await;
    assert_eq!(second.status, 200, "{}", second.text);
    assert_ne!(second.str("refresh_token"), first.refresh_token);
    let (old, new) = (Parts::of(&first.id_token).claims, Parts::of(second.str("id_token")).claims);
    assert_eq!(
        (&old["sub"], &old["auth_time"], &old["sid"]),
        (&new["sub"], &new["auth_time"], &new["sid"])
    );
    let wider = renew(second.str("refresh_token")).set("scope", "openid admin");
    let widened = Expected(400, "invalid_scope", "scope.widened");
    world.refuses(&world.idp_store, "wider", &wider, widened).await;
    let foreign = renew(second.str("refresh_token")).basic("sibling", world.secret.expose());
    let invalid = Expected(400, "invalid_grant", "refresh.invalid");
    world.refuses(&world.idp_store, "another client's", &foreign, invalid).await;
    let third = world.send(&renew(second.str("refresh_token"))).await;
    let access = third.str("access_token").to_owned();
    let introspect = world.ask(&world.idp, "/introspect", &[("token", &access)]);
    assert_eq!(world.send(&introspect).await.json["active"], true);
    let reuse = Expected(400, "invalid_grant", "refresh.reuse");
    world
        .refuses(
            &world.idp_store,
            "a refresh token that was rotated out",
            &renew(&first.refresh_token),
            reuse,
        )
        .await;
    world
        .refuses(
            &world.idp_store,
            "the last one of the family",
            &renew(third.str("refresh_token")),
            invalid,
        )
        .await;
    assert_eq!(
        world.send(&introspect).await.json,
        json!({"active": false}),
        "access tokens of the family too"
    );
}

#[tokio::test]
async fn refresh_tokens_end_for_idleness_and_for_age() {
    let world = World::new().await;
    let renew = |token: &str| {
        world.ask(
            &world.idp,
            "/token",
            &[("grant_type", "refresh_token"), ("refresh_token", token)],
        )
    };
    let invalid = Expected(400, "invalid_grant", "refresh.invalid");
    let idle = world.sign_in().await;
    world.pass(8 * 3600 + 1);
    world
        .refuses(
            &world.idp_store,
            "a refresh token that was idle too long",
            &renew(&idle.refresh_token),
            invalid,
        )
        .await;
    let mut token = world.sign_in().await.refresh_token;
    for _ in 0..23 {
        world.pass(7 * 3600);
        let reply = world.send(&renew(&token)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        token = reply.str("refresh_token").to_owned();
    }
    world.pass(7 * 3600 + 1);
    world
        .refuses(&world.idp_store, "a refresh token that is too old", &renew(&token), invalid)
        .await;
}

#[tokio::test]
async fn of_fifty_refreshes_at_once_there_is_one_successor() {
    let world = std::sync::Arc::new(World::new().await);
    let token = world.sign_in().await.refresh_token;
    let ask = world.ask(
        &world.idp,
        "/token",
        &[("grant_type", "refresh_token"), ("refresh_token", &token)],
    );
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (world, ask) = (world.clone(), ask.clone());
            tokio::spawn(async move { world.send(&ask).await })
        })
        .collect();
    let mut successors = std::collections::BTreeSet::new();
    for task in tasks {
        let reply = task.await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        successors.insert(reply.str("refresh_token").to_owned());
    }
    assert_eq!(successors.len(), 1, "several successors of one token");
}

#[tokio::test]
async fn a_code_serves_once_and_only_whom_it_was_issued_to() {
    let world = World::new().await;
    let redeem = |code: &str, verifier: &str| {
        world.ask(
            &world.idp,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", verifier),
            ],
        )
    };
    let used = Expected(400, "invalid_grant", "code.invalid");
    let (code, verifier) = world.code("erin", AGENT, "").await;
    let first = world.send(&redeem(&code, &verifier)).await;
    assert_eq!(first.status, 200);
    let reuse = Expected(400, "invalid_grant", "code.reuse");
    world.refuses(&world.idp_store, "a code used twice", &redeem(&code, &verifier), reuse).await;
    let exchange = world.exchange(first.str("id_token"));
    let ended = Expected(400, "invalid_grant", "subject.not_live");
    world.refuses(&world.idp_store, "the ID token of the first use", &exchange, ended).await;
    let renew = world.ask(
        &world.idp,
        "/token",
        &[("grant_type", "refresh_token"), ("refresh_token", first.str("refresh_token"))],
    );
    let dead = Expected(400, "invalid_grant", "refresh.invalid");
    world.refuses(&world.idp_store, "tokens of the first use", &renew, dead).await;
    for (case, change, reason) in [
        ("another client", ("authorization", ""), "code.invalid"),
        ("another redirect_uri", ("redirect_uri", "https://app.example/cb"), "code.redirect_uri"),
        ("another verifier", ("code_verifier", &"v".repeat(43)), "code.verifier"),
    ] {
        let (code, verifier) = world.code("erin", AGENT, "").await;
        let ask = redeem(&code, &verifier);
        let wrong = if change.0 == "authorization" {
            ask.clone().basic("sibling", world.secret.expose())
        } else {
            ask.clone().set(change.0, change.1)
        };
        world.refuses(&world.idp_store, case, &wrong, Expected(400, "invalid_grant", reason)).await;
        let right = world.send(&ask).await;
        assert_eq!(right.status, 200, "{case}: a wrong guess uses nothing up: {}", right.text);
    }
    let (code, verifier) = world.code("erin", AGENT, "").await;
    let guess = Expected(400, "invalid_grant", "code.verifier");
    let without = redeem(&code, &verifier).without("code_verifier");
    world.refuses(&world.idp_store, "no verifier", &without, guess).await;
    let (code, verifier) = world.code("erin", AGENT, "").await;
    world.pass(61);
    world.refuses(&world.idp_store, "expired", &redeem(&code, &verifier), used).await;
    world.refuses(&world.idp_store, "unknown", &redeem("unknown", &verifier), used).await;
    // Disabled between sign-in and redemption.
    let (code, verifier) = world.code("erin", AGENT, "").await;
    world.administer(Method::POST, "/idp/users/erin/disable", None).await;
    world
        .refuses(
            &world.idp_store,
            "a code of a person who is switched off",
            &redeem(&code, &verifier),
            used,
        )
        .await;
}

/// A pushed request is bound to the key of its DPoP proof, and to no other (RFC 9449 section 10.1).
#[tokio::test]
async fn a_pushed_request_names_no_other_key_than_its_proof_s() {
    let world = World::new().await;
    let (url, _) = world.authorize_url(AGENT, "");
    let query = url::Url::parse(&url).unwrap();
    let mut ask = world.ask(&world.idp, "/par", &[]);
    for (name, value) in query.query_pairs().filter(|(name, _)| name != "client_id") {
        ask = ask.add(&name, &value);
    }
    let (own, other) = (Key::new(), Key::new());
    let at = world.idp.endpoint("/par");
    let proved = |ask: &Ask| ask.clone().header("dpop", &world.dpop(&own, &world.dpop_claims(&at)));
    let of = |key: &Key| key.kid().to_owned();
    let mixed = world.send(&proved(&ask.clone().add("dpop_jkt", &of(&other)))).await;
    assert_eq!(mixed.status, 400, "{}", mixed.text);
    let same = world.send(&proved(&ask.clone().add("dpop_jkt", &of(&own)))).await;
    assert_eq!(same.status, 201, "{}", same.text);
    assert_eq!(world.send(&proved(&ask)).await.status, 201);
}

/// A used code that a stranger presents ends nothing.
#[tokio::test]
async fn a_used_code_that_a_stranger_presents_ends_nothing() {
    let world = World::new().await;
    let (code, verifier) = world.code("erin", AGENT, "").await;
    let redeem = world.ask(
        &world.idp,
        "/token",
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", &verifier),
        ],
    );
    let tokens = world.send(&redeem).await;
    assert_eq!(tokens.status, 200);
    let public = redeem.clone().no_header("authorization").set("client_id", "public");
    let invalid = |reason| Expected(400, "invalid_grant", reason);
    world.refuses(&world.idp_store, "another client", &public, invalid("code.invalid")).await;
    let guess = redeem.clone().set("code_verifier", &"v".repeat(43));
    world.refuses(&world.idp_store, "a guess", &guess, invalid("code.verifier")).await;
    let newest = passavant_store::AuditFilter { limit: 1, ..Default::default() };
    let row = world.idp_store.audit(&newest).await.unwrap().remove(0);
    assert_eq!(row.person, "erin-id", "on record as whose it is");
    let exchange = world.exchange(tokens.str("id_token"));
    assert_eq!(world.send(&exchange).await.status, 200, "the sign-in goes on");
}

/// After sign-out or revocation, no token of the sign-in can be exchanged.
#[tokio::test]
async fn what_was_signed_out_or_revoked_buys_nothing_by_its_id_token_either() {
    let world = World::new().await;
    let ended = Expected(400, "invalid_grant", "subject.not_live");
    let tokens = world.sign_in().await;
    let revoke = world.ask(&world.idp, "/revoke", &[("token", &tokens.refresh_token)]);
    assert_eq!(world.send(&revoke).await.status, 200);
    let exchange = world.exchange(&tokens.id_token);
    world.refuses(&world.idp_store, "after revocation", &exchange, ended).await;
    // Another sign-in of hers is not affected.
    let other = world.sign_in().await;
    assert_eq!(world.send(&world.exchange(&other.id_token)).await.status, 200);
}

/// The `id_token_hint` of another person does not sign anybody in as them.
#[tokio::test]
async fn a_hint_of_another_person_is_answered_with_login_required() {
    let world = World::new().await;
    let tokens = world.sign_in_as("max", AGENT).await;
    let (url, _) = world.authorize_url(AGENT, "");
    let (_, cookie) = world.browse(&url, "erin", PASSWORD).await;
    let silent = async |hint: &str| {
        let (url, _) = world.authorize_url(AGENT, &format!("&prompt=none&id_token_hint={hint}"));
        let reply = world.http.get(&url).header("cookie", &cookie).send().await.unwrap();
        reply.headers()["location"].to_str().unwrap().to_owned()
    };
    assert!(silent(&tokens.id_token).await.contains("error=login_required"));
    let own = world.sign_in().await;
    assert!(silent(&own.id_token).await.contains("code="));
}

#[tokio::test]
async fn of_fifty_redemptions_of_a_code_at_once_at_most_one_succeeds() {
    let world = std::sync::Arc::new(World::new().await);
    let (code, verifier) = world.code("erin", AGENT, "").await;
    let ask = world.ask(
        &world.idp,
        "/token",
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", &verifier),
        ],
    );
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (world, ask) = (world.clone(), ask.clone());
            tokio::spawn(async move { world.send(&ask).await.status })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += usize::from(task.await.unwrap() == 200);
    }
    assert!(granted <= 1, "{granted} redemptions of one code");
}

#[tokio::test]
async fn a_live_session_needs_no_page_and_prompt_decides_otherwise() {
    let world = World::new().await;
    let (url, _) = world.authorize_url(AGENT, "");
    let (_, cookie) = world.browse(&url, "erin", PASSWORD).await;
    assert!(cookie.starts_with("passavant-session="));
    let open = |more: &str, cookie: Option<&str>| {
        let (url, _) = world.authorize_url(AGENT, more);
        let mut request = world.http.get(url);
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        async move {
            let answer = request.send().await.unwrap();
            let location = answer.headers().get("location").map(|v| v.to_str().unwrap().to_owned());
            (answer.status().as_u16(), location.unwrap_or_default())
        }
    };
    let with = Some(cookie.as_str());
    assert!(open("", with).await.1.contains("code="));
    assert!(open("&prompt=none", with).await.1.contains("code="));
    assert_eq!(open("&prompt=login", with).await.0, 200, "the page is shown");
    let (status, location) = open("&prompt=none", None).await;
    assert!(
        status == 303 && location.contains("error=login_required") && location.contains("iss=")
    );
    world.pass(100);
    assert_eq!(open("&max_age=50", with).await.0, 200);
    assert_eq!(open("&max_age=200", with).await.0, 303);
    assert!(open("&prompt=none&max_age=50", with).await.1.contains("login_required"));
    assert_eq!(
        open("", Some("passavant-session=x; passavant-session=y")).await.0,
        200,
        "cookies that another host set"
    );
    world.pass(12 * 3600);
    assert_eq!(open("", with).await.0, 200, "the session has expired");
}

#[tokio::test]
async fn the_sign_in_page_is_framed_by_nobody_and_posted_to_by_itself_alone() {
    let world = World::new().await;
    let (url, _) = world.authorize_url(AGENT, "");
    let page = world.http.get(&url).send().await.unwrap();
    let header = |name: &str| {
        page.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let policy = header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("cache-control"), "no-store");
    assert!(page.headers().get("access-control-allow-origin").is_none());
    let cookie = cookies(page.headers());
    let html = page.text().await.unwrap();
    assert!(!html.contains("<script"));
    let form = world.sign_in_form(&url, &html, &cookie, "erin", PASSWORD);
    let status = |ask: Ask| {
        let world = &world;
        async move { world.send(&ask).await.status }
    };
    assert_eq!(status(form.clone().set("csrf", "x")).await, 403, "another page's form");
    assert_eq!(status(form.clone().no_header("cookie")).await, 403);
    let foreign = form.clone().no_header("origin").header("origin", "https://evil.example");
    assert_eq!(status(foreign).await, 403);
    assert_eq!(status(form.clone().no_header("origin").header("origin", "null")).await, 403);
    assert_eq!(status(form.clone().header("sec-fetch-site", "cross-site")).await, 403);
    let wrong = world.send(&form.clone().set("password", "wrong")).await;
    let nobody = world.send(&form.clone().set("username", "nobody")).await;
    assert_eq!((wrong.status, nobody.status), (401, 401));
    assert!(wrong.text.contains("value=\"erin\"") && nobody.text.contains("value=\"nobody\""));
    assert_eq!(
        wrong.text,
        nobody.text.replace("\"nobody\"", "\"erin\""),
        "an unknown name and a wrong password read the same"
    );
    assert_eq!(
        status(form.clone().set("password", &"x".repeat(2000))).await,
        401,
        "a password that is too long"
    );
    assert_eq!(status(form.set("username", " ERIN ")).await, 303);
    let mut broken =
        world.authorize_url(AGENT, "").0.replace("client_id=agent", "client_id=nobody");
    assert_eq!(world.http.get(&broken).send().await.unwrap().status(), 400, "a page, no redirect");
    broken = world.authorize_url("disabled", "").0;
    assert_eq!(world.http.get(&broken).send().await.unwrap().status(), 400);
    let evil = world.authorize_url(AGENT, "").0.replace("callback", "evil");
    assert_eq!(world.http.get(evil).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_person_who_keeps_failing_has_to_wait_and_so_does_the_address() {
    let world = World::with(Wishes { failures_per_minute: Some(3), ..Wishes::default() }).await;
    let (url, _) = world.authorize_url(AGENT, "");
    let page = world.http.get(&url).send().await.unwrap();
    let cookie = cookies(page.headers());
    let html = page.text().await.unwrap();
    let form = world.sign_in_form(&url, &html, &cookie, "erin", "wrong password");
    for _ in 0..3 {
        assert_eq!(world.send(&form).await.status, 401);
    }
    let reply = world.send(&form.set("password", PASSWORD)).await;
    assert_eq!(reply.status, 429, "the right password too");
    assert!(!reply.header("retry-after").is_empty());
}

#[tokio::test]
async fn pushed_requests_are_used_once_and_the_front_channel_adds_nothing() {
    let world = World::new().await;
    let (url, verifier) = world.authorize_url(AGENT, "");
    let query = url::Url::parse(&url).unwrap();
    let mut ask = world.ask(&world.idp, "/par", &[]);
    for (name, value) in query.query_pairs().filter(|(name, _)| name != "client_id") {
        ask = ask.add(&name, &value);
    }
    let pushed = world.send(&ask).await;
    assert_eq!((pushed.status, &pushed.json["expires_in"]), (201, &json!(60)), "{}", pushed.text);
    let uri = pushed.str("request_uri");
    let at = |client: &str, uri: &str, more: &str| {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", client)
            .append_pair("request_uri", uri)
            .finish();
        format!("{}?{query}{more}", world.idp.endpoint("/authorize"))
    };
    let status =
        |url: String| async { world.http.get(url).send().await.unwrap().status().as_u16() };
    assert_eq!(status(at("sibling", uri, "")).await, 400, "a pushed request of another client");
    assert_eq!(status(at(AGENT, "urn:ietf:params:oauth:request_uri:guess", "")).await, 400);
    assert_eq!(
        status(at(AGENT, "https://evil.example/request.jwt", "")).await,
        400,
        "a request_uri of somebody else's"
    );
    // Other parameters of the front channel are ignored.
    let contradicting = at(AGENT, uri, "&redirect_uri=https://evil.example&scope=admin&state=evil");
    let (location, _) = world.browse(&contradicting, "erin", PASSWORD).await;
    assert!(location.starts_with(CALLBACK) && location.contains("state=the-state"), "{location}");
    assert_eq!(status(at(AGENT, uri, "")).await, 400, "a pushed request that was used");
    let code = url::Url::parse(&location).unwrap();
    let code = code.query_pairs().find(|(n, _)| n == "code").unwrap().1.into_owned();
    let tokens = world
        .send(&world.ask(
            &world.idp,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", &verifier),
            ],
        ))
        .await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let again = world.send(&ask).await;
    world.pass(61);
    assert_eq!(
        status(at(AGENT, again.str("request_uri"), "")).await,
        400,
        "a pushed request that has expired"
    );
    let bad = world.send(&ask.clone().set("redirect_uri", "https://evil.example")).await;
    assert_eq!((bad.status, bad.str("error")), (400, "invalid_request"));
    let nested = world.send(&ask.set("request_uri", uri)).await;
    assert_eq!(nested.status, 400);
}

#[tokio::test]
async fn logout_asks_and_then_ends_everything_of_the_session() {
    let world = World::new().await;
    let (url, verifier) = world.authorize_url(AGENT, "");
    let (location, cookie) = world.browse(&url, "erin", PASSWORD).await;
    let code = url::Url::parse(&location).unwrap();
    let code = code.query_pairs().find(|(n, _)| n == "code").unwrap().1.into_owned();
    let tokens = world
        .send(&world.ask(
            &world.idp,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", &verifier),
            ],
        ))
        .await;
    let exchange = world.exchange(tokens.str("id_token"));
    assert_eq!(world.send(&exchange).await.status, 200);
    let logout = |uri: &str| {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("id_token_hint", tokens.str("id_token"))
            .append_pair("post_logout_redirect_uri", uri)
            .append_pair("state", "bye")
            .finish();
        format!("{}?{query}", world.idp.endpoint("/logout"))
    };
    let evil = world
        .http
        .get(logout("https://evil.example/"))
        .header("cookie", &cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(evil.status(), 400, "an unregistered address to return to");
    let url = logout("https://app.example/bye");
    let page = world.http.get(&url).header("cookie", &cookie).send().await.unwrap();
    assert_eq!(page.status(), 200, "a GET only asks");
    let html = page.text().await.unwrap();
    assert_eq!(world.send(&exchange).await.status, 200);
    let csrf = html.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let confirm = Ask {
        url,
        form: vec![("csrf".into(), csrf.into())],
        headers: vec![
            ("cookie".into(), cookie.clone()),
            ("origin".into(), world.idp.origin().into()),
        ],
        method: Method::POST,
    };
    assert_eq!(world.send(&confirm.clone().set("csrf", "x")).await.status, 403);
    let done = world.send(&confirm).await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert_eq!(done.header("location"), "https://app.example/bye?state=bye");
    let ended = Expected(400, "invalid_grant", "subject.not_live");
    world.refuses(&world.idp_store, "an ID token of a session that ended", &exchange, ended).await;
    let renew = world.ask(
        &world.idp,
        "/token",
        &[("grant_type", "refresh_token"), ("refresh_token", tokens.str("refresh_token"))],
    );
    world
        .refuses(
            &world.idp_store,
            "a refresh token of a session that ended",
            &renew,
            Expected(400, "invalid_grant", "refresh.invalid"),
        )
        .await;
    let again = world
        .http
        .get(world.authorize_url(AGENT, "&prompt=none").0)
        .header("cookie", cookie)
        .send()
        .await
        .unwrap();
    assert!(
        again.headers()["location"].to_str().unwrap().contains("login_required"),
        "a session cookie copied before signing out"
    );
}

#[tokio::test]
async fn revoking_a_refresh_token_revokes_its_family_and_only_for_its_client() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let revoke = world.ask(&world.idp, "/revoke", &[("token", &tokens.refresh_token)]);
    let renew = world.ask(
        &world.idp,
        "/token",
        &[("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh_token)],
    );
    assert_eq!(
        world.send(&revoke.clone().basic("sibling", world.secret.expose())).await.status,
        200
    );
    let renewed = world.send(&renew).await;
    assert_eq!(renewed.status, 200, "no effect for another client");
    let revoke = revoke.set("token", renewed.str("refresh_token"));
    assert_eq!(world.send(&revoke).await.status, 200);
    let renew = renew.set("refresh_token", renewed.str("refresh_token"));
    world
        .refuses(
            &world.idp_store,
            "revoked",
            &renew,
            Expected(400, "invalid_grant", "refresh.invalid"),
        )
        .await;
    let access = world.ask(&world.idp, "/introspect", &[("token", renewed.str("access_token"))]);
    assert_eq!(world.send(&access).await.json, json!({"active": false}));
    let tokens = world.sign_in().await;
    let one = world.ask(&world.idp, "/revoke", &[("token", &tokens.access_token)]);
    assert_eq!(world.send(&one).await.status, 200);
    let access = world.ask(&world.idp, "/introspect", &[("token", &tokens.access_token)]);
    assert_eq!(world.send(&access).await.json, json!({"active": false}));
}

#[tokio::test]
async fn health_and_limits() {
    let world = World::new().await;
    for (path, text) in [("/healthz", "alive\n"), ("/readyz", "ready\n")] {
        let answer = world.http.get(world.idp.endpoint(path)).send().await.unwrap();
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(answer.text().await.unwrap(), text);
    }
    let long = format!("{}?x={}", world.idp.endpoint("/authorize"), "y".repeat(17_000));
    assert_eq!(world.http.get(long).send().await.unwrap().status(), 414, "a URL that is too long");
    let many = (0..70).fold(world.exchange("x"), |ask, i| ask.add(&format!("p{i}"), "1"));
    assert_eq!(world.send(&many).await.status, 400);
    let forged = world.exchange("x").header("x-request-id", "forged");
    assert_ne!(world.send(&forged).await.header("x-request-id"), "forged");
}

/// A change by another node takes effect at the next request here, even if there was no other
/// request since.
#[tokio::test]
async fn a_refusal_on_records_of_a_while_ago_is_looked_at_again() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let file = world.folder().join("idp.db");
    let mut other =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let mut set = async |member: &str, value: &str| {
        let sql = format!(
            "UPDATE directory SET document = json_set(document, '$.{member}', json('{value}')) \
             WHERE kind = 'client' AND id = 'agent'"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut other).await.unwrap();
    };
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh_token.as_str())];
    let ask = world.ask(&world.idp, "/token", &form);
    set("dpop_bound_access_tokens", "true").await;
    let reply = world.send(&ask).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_dpop_proof"), "{}", reply.text);
    set("dpop_bound_access_tokens", "false").await;
    let reply = world.send(&ask).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // A redirect URI that is removed, and added again.
    let (code, verifier) = world.code("erin", "agent", "").await;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", verifier.as_str()),
    ];
    let ask = world.ask(&world.idp, "/token", &form);
    set("redirect_uris", "[]").await;
    let reply = world.send(&ask).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    let callback = CALLBACK;
    set("redirect_uris", &format!("[\"{callback}\"]")).await;
    let reply = world.send(&ask).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}
