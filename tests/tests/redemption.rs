//! Redemption of an ID-JAG at the RAS.

use passavant_proto::{
    oauth::client::GovernedResource,
    xaa::trust::{Account, TrustedIssuer},
};
use passavant_store::{Put, Store};
use passavant_tests::{
    forge::{Key, Parts},
    world::{Expected, World},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const BAD: Expected<'_> = Expected(400, "invalid_grant", "id_jag.invalid");

/// An ID-JAG with one claim changed.
fn with(world: &World, name: &str, value: Value) -> String {
    let mut claims = world.id_jag_claims();
    claims[name] = value;
    world.id_jag(&claims)
}

fn without(world: &World, name: &str) -> String {
    let mut claims = world.id_jag_claims();
    claims.as_object_mut().unwrap().remove(name);
    world.id_jag(&claims)
}

async fn refuse(world: &World, case: &str, assertion: &str, expected: Expected<'_>) {
    world.refuses(&world.ras_store, case, &world.redeem(assertion), expected).await;
}

async fn change_trust(world: &World, change: impl FnOnce(&mut TrustedIssuer)) {
    let mut trusted: TrustedIssuer =
        world.ras_store.by_id(world.idp.as_str()).await.unwrap().unwrap();
    change(&mut trusted);
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.ras_store.put(&trusted, Put::Replace, event).await.unwrap();
}

async fn change_resource(world: &World, url: &str, change: impl FnOnce(&mut GovernedResource)) {
    let mut governed: GovernedResource = world.ras_store.by_id(url).await.unwrap().unwrap();
    change(&mut governed);
    let event = passavant_store::AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        world.now(),
    );
    world.ras_store.put(&governed, Put::Replace, event).await.unwrap();
}

#[tokio::test]
async fn a_redemption_that_breaks_a_rule_of_the_request_is_refused() {
    let world = World::new().await;
    let good = world.id_jag(&world.id_jag_claims());
    let malformed = Expected(400, "invalid_request", "request.malformed");
    let ask = world.redeem(&good);
    for case in [
        ask.clone().without("assertion"),
        ask.clone().set("assertion", " "),
        ask.clone().add("assertion", &good),
    ] {
        world
            .refuses(&world.ras_store, "no assertion, an empty one, or two", &case, malformed)
            .await;
    }
    let unauthenticated = Expected(401, "invalid_client", "client.unauthenticated");
    world
        .refuses(
            &world.ras_store,
            "no client authentication",
            &ask.clone().no_header("authorization"),
            unauthenticated,
        )
        .await;
    let grant = Expected(400, "unsupported_grant_type", "request.grant_type");
    for other in
        ["urn:ietf:params:oauth:grant-type:jwt-dpop", "authorization_code", "refresh_token"]
    {
        world
            .refuses(
                &world.ras_store,
                "another grant type",
                &ask.clone().set("grant_type", other),
                grant,
            )
            .await;
    }
    let mut in_url = ask.clone().without("assertion");
    in_url.url = format!("{}?assertion={good}", in_url.url);
    let expected = Expected(400, "invalid_request", "request.credential_in_query");
    world.refuses(&world.ras_store, "an assertion in the URL", &in_url, expected).await;
    let details = Expected(400, "invalid_authorization_details", "request.authorization_details");
    world
        .refuses(&world.ras_store, "RAR", &ask.clone().add("authorization_details", "[]"), details)
        .await;
    assert_eq!(world.send(&ask).await.status, 200, "and none of it used the ID-JAG up");
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused() {
    let world = World::new().await;
    for (case, aud) in [
        ("two, ours among them", json!([world.ras, "https://other.example"])),
        ("none", json!([])),
        ("the token endpoint", json!(world.ras.endpoint("/token"))),
        ("the resource", json!(world.canvas)),
        ("a slash more", json!(format!("{}/", world.ras))),
        ("another RAS", json!(world.other_ras)),
    ] {
        refuse(&world, case, &with(&world, "aud", aud), BAD).await;
    }
    let alone = with(&world, "aud", json!([world.ras]));
    assert_eq!(world.send(&world.redeem(&alone)).await.status, 200, "an array of one");
    for id in ["sibling", "agent", ""] {
        refuse(&world, "another client's", &with(&world, "client_id", json!(id)), BAD).await;
    }
    for jti in [json!(""), json!(7), json!("j".repeat(300)), json!("a\nb"), json!(["x"])] {
        refuse(&world, "a malformed jti", &with(&world, "jti", jti), BAD).await;
    }
    refuse(&world, "no jti", &without(&world, "jti"), BAD).await;
    let fragment = format!("{}#x", world.canvas);
    for resource in [
        json!([]),
        json!([world.canvas, world.canvas]),
        json!(7),
        json!([7]),
        json!(fragment),
        json!(""),
    ] {
        refuse(&world, "a malformed resource", &with(&world, "resource", resource), BAD).await;
    }
    for scope in [json!(["read"]), json!(7), json!("a\"b"), json!(null)] {
        refuse(&world, "a malformed scope", &with(&world, "scope", scope), BAD).await;
    }
    let reply = world.send(&world.redeem(&with(&world, "scope", json!("read unknown")))).await;
    assert_eq!(reply.str("scope"), "read", "an unknown scope is dropped");
    for (name, value) in [
        ("authorization_details", json!([])),
        ("sub_id", json!("x")),
        ("cnf", json!({})),
        ("cnf", json!({"jkt": 7})),
        ("tenant", json!("acme")),
        ("email_verified", json!("true")),
        ("sub", json!("")),
    ] {
        refuse(&world, name, &with(&world, name, value), BAD).await;
    }
    let own = with(&world, "iss", json!(world.ras));
    let untrusted = Expected(400, "invalid_grant", "id_jag.issuer");
    refuse(&world, "our own issuer", &own, untrusted).await;
    refuse(&world, "encrypted", "eyJhbGciOiJkaXIifQ..aaaa.bbbb.cccc", BAD).await;
    let subject = world.exchange(&world.id_jag(&world.id_jag_claims()));
    let expected = Expected(400, "invalid_grant", "subject.token");
    world.refuses(&world.idp_store, "as subject", &subject, expected).await;
}

#[tokio::test]
async fn an_untrusted_issuer_causes_no_fetch() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let untrusted = Expected(400, "invalid_grant", "id_jag.issuer");
    refuse(&world, "an unknown issuer", &with(&world, "iss", json!(issuer)), untrusted).await;
    let trust = json!({"issuer": issuer, "accounts": {"just_in_time": true}});
    let post = reqwest::Method::POST;
    world.administer(post.clone(), "/ras/ras/trusted-issuers", Some(trust)).await;
    let id = Some(json!({"id": issuer}));
    world.administer(post, "/ras/ras/trusted-issuers/disable", id).await;
    refuse(
        &world,
        "an issuer that is switched off",
        &with(&world, "iss", json!(issuer)),
        untrusted,
    )
    .await;
    let connected = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept());
    assert!(connected.await.is_err(), "somebody asked an issuer that is not trusted");
}

#[tokio::test]
async fn an_id_jag_buys_one_token() {
    let world = World::new().await;
    let replay = Expected(400, "invalid_grant", "id_jag.replay");
    let claims = world.id_jag_claims();
    let good = world.id_jag(&claims);
    let header = world.idp_key.header("oauth-id-jag+jwt").to_string();
    let forged = Key::new().sign(&header, claims.to_string().as_bytes());
    refuse(&world, "a forged copy", &forged, BAD).await;
    assert_eq!(world.send(&world.redeem(&good)).await.status, 200);
    refuse(&world, "a replay", &good, replay).await;
    refuse(&world, "signed anew", &world.id_jag(&claims), replay).await;
    // It is remembered for as long as it could be presented.
    world.pass(100);
    assert!(world.ras_store.forget_expired(world.now(), None).await.is_ok());
    refuse(&world, "a replay later", &good, replay).await;
    // Another issuer may use the same jti.
    let key = Key::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let jwks = json!({"keys": [key.jwk()]});
    let router = axum::Router::new().fallback(move || {
        let jwks = jwks.clone();
        async move { axum::Json(jwks) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let trust = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/k"), "accounts": {"just_in_time": true}});
    world.administer(reqwest::Method::POST, "/ras/ras/trusted-issuers", Some(trust)).await;
    let mut other = world.id_jag_claims();
    other["jti"] = claims["jti"].clone();
    other["iss"] = json!(issuer);
    let header = key.header("oauth-id-jag+jwt").to_string();
    let reply = world.send(&world.redeem(&key.sign(&header, other.to_string().as_bytes()))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // And the same sub of another issuer has another account.
    let mine = Parts::of(
        world.send(&world.redeem(&world.id_jag(&world.id_jag_claims()))).await.str("access_token"),
    );
    let theirs = Parts::of(reply.str("access_token"));
    assert_ne!(mine.claims["sub"], theirs.claims["sub"]);
}

#[tokio::test]
async fn of_fifty_redemptions_at_once_one_succeeds() {
    let world = std::sync::Arc::new(World::new().await);
    let ask = world.redeem(&world.id_jag(&world.id_jag_claims()));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (world, ask) = (world.clone(), ask.clone());
            tokio::spawn(async move { world.send(&ask).await.status })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        match task.await.unwrap() {
            200 => granted += 1,
            status => assert_eq!(status, 400),
        }
    }
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn the_trust_of_an_issuer_may_allow_reuse_of_its_id_jags() {
    let world = World::new().await;
    change_trust(&world, |trusted| trusted.allow_reuse = true).await;
    let good = world.id_jag(&world.id_jag_claims());
    for _ in 0..2 {
        assert_eq!(world.send(&world.redeem(&good)).await.status, 200);
    }
}

#[tokio::test]
async fn a_multi_tenant_issuer_is_trusted_for_one_tenant() {
    let world = World::new().await;
    change_trust(&world, |trusted| trusted.tenant = Some("acme".to_owned())).await;
    refuse(&world, "no tenant", &world.id_jag(&world.id_jag_claims()), BAD).await;
    refuse(&world, "another tenant", &with(&world, "tenant", json!("evil")), BAD).await;
    refuse(&world, "an array of tenants", &with(&world, "tenant", json!(["acme"])), BAD).await;
    let good = with(&world, "tenant", json!("acme"));
    assert_eq!(world.send(&world.redeem(&good)).await.status, 200);
}

#[tokio::test]
async fn an_id_jag_for_another_tenant_of_ours_is_refused() {
    let world = World::new().await;
    // The trust record names no tenant of ours: an ID-JAG with such a claim is not for us.
    refuse(&world, "none expected", &with(&world, "aud_tenant", json!("ours")), BAD).await;
    change_trust(&world, |trusted| trusted.audience_tenant = Some("ours".to_owned())).await;
    refuse(&world, "absent", &world.id_jag(&world.id_jag_claims()), BAD).await;
    for value in [json!("theirs"), json!("OURS"), json!(["ours"]), json!(7), json!("")] {
        refuse(&world, "aud_tenant", &with(&world, "aud_tenant", value), BAD).await;
    }
    let good = with(&world, "aud_tenant", json!("ours"));
    assert_eq!(world.send(&world.redeem(&good)).await.status, 200);
}

#[tokio::test]
async fn who_acts_for_a_person_is_on_record() {
    let world = World::new().await;
    let acted = with(&world, "act", json!({"sub": "agent\u{1b}-7"}));
    assert_eq!(world.send(&world.redeem(&acted)).await.status, 200);
    let filter =
        passavant_store::AuditFilter { limit: 1, ..passavant_store::AuditFilter::default() };
    let row = world.ras_store.audit(&filter).await.unwrap().remove(0);
    let actor = row.details["actor"].as_str();
    assert!(actor.contains("agent") && !actor.contains('\u{1b}'), "{actor}");
}

#[tokio::test]
async fn resources_and_scopes_are_never_more_than_the_id_jag_carries() {
    let world = World::new().await;
    let absent = Expected(400, "invalid_grant", "resource.absent");
    refuse(&world, "no resource", &without(&world, "resource"), absent).await;
    let foreign = Expected(400, "invalid_grant", "resource.not_governed");
    refuse(&world, "not ours", &with(&world, "resource", json!(world.notes)), foreign).await;
    let mixed = with(&world, "resource", json!([world.canvas, world.notes]));
    refuse(&world, "one not ours", &mixed, foreign).await;
    let good = world.id_jag(&world.id_jag_claims());
    let outside = Expected(400, "invalid_target", "resource.not_in_id_jag");
    let ask = world.redeem(&good).add("resource", &world.boards);
    world
        .refuses(&world.ras_store, "a resource that the ID-JAG does not name", &ask, outside)
        .await;
    let several = with(&world, "resource", json!([world.canvas, world.boards]));
    let ambiguous = Expected(400, "invalid_target", "resource.ambiguous");
    refuse(&world, "several", &several, ambiguous).await;
    let reply = world.send(&world.redeem(&several).add("resource", &world.boards)).await;
    assert_eq!(Parts::of(reply.str("access_token")).claims["aud"], json!(world.boards));
    for (carried, asked, got) in [
        ("read", "read write", "read"),
        ("read write", "read", "read"),
        ("read write", "", "read write"),
    ] {
        let ask = world.redeem(&with(&world, "scope", json!(carried))).set("scope", asked);
        let reply = world.send(&ask).await;
        assert_eq!(reply.str("scope"), got, "{}", reply.text);
        assert_eq!(Parts::of(reply.str("access_token")).claims["scope"], got);
    }
    let empty = Expected(400, "invalid_scope", "scope.empty");
    let ask = world.redeem(&with(&world, "scope", json!("read"))).set("scope", "write");
    world.refuses(&world.ras_store, "no scope in common", &ask, empty).await;
    refuse(&world, "unknown scopes alone", &with(&world, "scope", json!("admin")), empty).await;
    // Without a scope claim the administrator's default scopes apply, and no others.
    let reply = world.send(&world.redeem(&without(&world, "scope"))).await;
    assert_eq!(reply.status, 200);
    assert!(reply.json.get("scope").is_none());
    change_resource(&world, &world.canvas, |r| r.default_scopes = ["read"].into_iter().collect())
        .await;
    let reply = world.send(&world.redeem(&without(&world, "scope"))).await;
    assert_eq!(reply.str("scope"), "read");
    // If exactly one resource is enabled and configured, that one is used.
    change_resource(&world, &world.boards, |r| r.disabled = true).await;
    refuse(
        &world,
        "a resource switched off",
        &with(&world, "resource", json!(world.boards)),
        foreign,
    )
    .await;
}

#[tokio::test]
async fn accounts_are_linked_by_issuer_and_subject() {
    let world = World::new().await;
    change_trust(&world, |trusted| trusted.accounts.just_in_time = false).await;
    let unknown = Expected(400, "access_denied", "account.unknown");
    let with_email = |email: &str| with(&world, "email", json!(email));
    refuse(&world, "no account", &world.id_jag(&world.id_jag_claims()), unknown).await;
    let new = Some(json!({"email": "erin@acme.example"}));
    let account = world.administer(reqwest::Method::POST, "/ras/ras/accounts", new).await;
    refuse(&world, "email alone", &with_email("erin@acme.example"), unknown).await;
    change_trust(&world, |t| t.accounts.email_domains = vec!["other.example".to_owned()]).await;
    refuse(&world, "a domain it does not own", &with_email("erin@acme.example"), unknown).await;
    change_trust(&world, |t| t.accounts.email_domains = vec!["acme.example".to_owned()]).await;
    let mut unverified = world.id_jag_claims();
    unverified["email"] = json!("erin@acme.example");
    unverified["email_verified"] = json!(false);
    refuse(&world, "unverified is no address", &world.id_jag(&unverified), unknown).await;
    refuse(&world, "nobody", &with_email("nobody@acme.example"), unknown).await;
    let linked = world.send(&world.redeem(&with_email("Erin@ACME.example"))).await;
    assert_eq!(linked.status, 200, "{}", linked.text);
    let claims = Parts::of(linked.str("access_token")).claims;
    assert_eq!(claims["sub"], account.json["id"]);
    // The link persists, whatever the email address says.
    let reply = world.send(&world.redeem(&with_email("someone@else.example"))).await;
    assert_eq!(Parts::of(reply.str("access_token")).claims["sub"], account.json["id"]);
    // Subjects are opaque, and each has its own account.
    change_trust(&world, |t| t.accounts.just_in_time = true).await;
    let mut subjects = BTreeSet::from([account.json["id"].as_str().unwrap().to_owned()]);
    let named_as_account = account.json["id"].as_str().unwrap().to_owned();
    for sub in ["admin", "Admin", "erin-id2", "\u{0435}rin-id", &named_as_account, "1"] {
        let reply = world.send(&world.redeem(&with(&world, "sub", json!(sub)))).await;
        assert_eq!(reply.status, 200, "{sub}: {}", reply.text);
        let id = Parts::of(reply.str("access_token")).claims["sub"].as_str().unwrap().to_owned();
        assert!(subjects.insert(id), "{sub} is somebody else's account");
    }
    let id = account.json["id"].as_str().unwrap();
    let off = Some(json!({"id": id}));
    world.administer(reqwest::Method::POST, "/ras/ras/accounts/disable", off).await;
    refuse(&world, "an account switched off", &world.id_jag(&world.id_jag_claims()), unknown).await;
    let accounts: Vec<Account> = world.ras_store.all().await.unwrap();
    assert_eq!(accounts.len(), subjects.len());
}

#[tokio::test]
async fn a_bound_id_jag_needs_its_key() {
    let world = World::new().await;
    let (key, other) = (Key::new(), Key::new());
    let url = world.ras.endpoint("/token");
    let bound = || with(&world, "cnf", json!({"jkt": key.kid()}));
    let proof = |key: &Key| world.dpop(key, &world.dpop_claims(&url));
    refuse(&world, "no proof", &bound(), Expected(400, "invalid_grant", "dpop.missing")).await;
    let ask = world.redeem(&bound()).header("dpop", &proof(&other));
    world
        .refuses(
            &world.ras_store,
            "another key's proof",
            &ask,
            Expected(400, "invalid_grant", "dpop.key"),
        )
        .await;
    let invalid = Expected(400, "invalid_dpop_proof", "dpop.proof");
    let wrong = world.dpop(&key, &world.dpop_claims(&world.idp.endpoint("/token")));
    let ask = world.redeem(&bound()).header("dpop", &wrong);
    world.refuses(&world.ras_store, "an invalid proof", &ask, invalid).await;
    let good = world.send(&world.redeem(&bound()).header("dpop", &proof(&key))).await;
    assert_eq!((good.status, good.str("token_type")), (200, "DPoP"), "{}", good.text);
    let claims = Parts::of(good.str("access_token")).claims;
    assert_eq!(claims["cnf"]["jkt"], key.kid());
    change_resource(&world, &world.canvas, |resource| resource.require_dpop = true).await;
    let unbound = world.id_jag(&world.id_jag_claims());
    refuse(
        &world,
        "unbound where the resource wants it bound",
        &unbound,
        Expected(400, "invalid_grant", "dpop.required"),
    )
    .await;
    // At the MCP server (RFC 9449 section 7): with the proof, without it, with another key's, and
    // with one that was used before.
    let token = good.str("access_token").to_owned();
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let mcp_proof = |key: &Key| {
        let mut claims = world.dpop_claims(&world.canvas);
        claims["ath"] = passavant_proto::secret::sha256(token.as_bytes()).into();
        world.dpop(key, &claims)
    };
    let (dpop, bearer) = (format!("DPoP {token}"), format!("Bearer {token}"));
    let right = mcp_proof(&key);
    let call = |scheme: String, proof: String| {
        let (world, ping) = (&world, &ping);
        async move {
            world
                .call(&world.canvas, &[("authorization", &scheme), ("dpop", &proof)], ping)
                .await
                .status
        }
    };
    assert_eq!(call(dpop.clone(), right.clone()).await, 200);
    assert_eq!(call(dpop.clone(), right).await, 401, "the proof again");
    assert_eq!(call(bearer, mcp_proof(&key)).await, 401, "bound token as Bearer");
    assert_eq!(call(dpop.clone(), mcp_proof(&other)).await, 401, "another key");
    let no_ath = world.dpop(&key, &world.dpop_claims(&world.canvas));
    assert_eq!(call(dpop, no_ath).await, 401, "a proof for no token");
    let plain = world.access_token_unbound().await;
    let as_dpop = format!("DPoP {plain}");
    assert_eq!(call(as_dpop, mcp_proof(&key)).await, 401, "Bearer token as DPoP");
}

#[tokio::test]
async fn an_id_jag_is_no_access_token() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.id_jag(&world.id_jag_claims()));
    let reply = world.call(&world.canvas, &[("authorization", &bearer)], &json!({})).await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").contains("error=\"invalid_token\""));
}

#[tokio::test]
async fn the_access_token_answer_has_the_drafts_shape() {
    let world = World::new().await;
    let id_jag = world.id_jag_claims();
    let reply = world.send(&world.redeem(&world.id_jag(&id_jag))).await;
    let mut members: Vec<_> = reply.json.as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["access_token", "expires_in", "resource", "scope", "token_type"]);
    assert_eq!((reply.str("token_type"), &reply.json["expires_in"]), ("Bearer", &json!(300)));
    assert_eq!(reply.header("cache-control"), "no-store");
    let parts = Parts::of(reply.str("access_token"));
    assert_eq!(parts.header["typ"], "at+jwt");
    assert_eq!(parts.claims["aud"], json!(world.canvas));
    assert_eq!(parts.claims["txn"], id_jag["jti"]);
    assert_eq!(parts.claims["client_id"], "agent-at-ras");
    change_resource(&world, &world.canvas, |r| r.access_token_lifetime = Some(1_000_000)).await;
    let reply = world.send(&world.redeem(&world.id_jag(&world.id_jag_claims()))).await;
    assert_eq!(reply.json["expires_in"], 3600, "lifetimes are capped");
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_use_nothing_up() {
    let world = World::new().await;
    let key = Key::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (answers, jwks) = (up.clone(), json!({"keys": [key.jwk()]}));
    let router =
        axum::Router::new().fallback(move || {
            let good = answers.load(std::sync::atomic::Ordering::Relaxed);
            let jwks = jwks.clone();
            async move {
                if good { Ok(axum::Json(jwks)) } else { Err(axum::http::StatusCode::BAD_GATEWAY) }
            }
        });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let trust = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/k"), "accounts": {"just_in_time": true}});
    world.administer(reqwest::Method::POST, "/ras/ras/trusted-issuers", Some(trust)).await;
    let id_jag = |kid: &str| {
        let mut parts =
            Parts { header: key.header("oauth-id-jag+jwt"), claims: world.id_jag_claims() };
        parts.claims["iss"] = json!(issuer);
        parts.header["kid"] = kid.into();
        parts.sign(&key)
    };
    let good = id_jag(key.kid());
    let unavailable = Expected(503, "temporarily_unavailable", "id_jag.keys_unavailable");
    refuse(&world, "its keys cannot be fetched", &good, unavailable).await;
    let reply = world.send(&world.redeem(&good)).await;
    assert!(reply.header("retry-after").parse::<u64>().is_ok());
    up.store(true, std::sync::atomic::Ordering::Relaxed);
    world.pass(11);
    assert_eq!(world.send(&world.redeem(&good)).await.status, 200, "the jti was not used up");
    up.store(false, std::sync::atomic::Ordering::Relaxed);
    world.pass(400);
    let reply = world.send(&world.redeem(&id_jag(key.kid()))).await;
    assert_eq!(reply.status, 200, "cached keys go on working: {}", reply.text);
    world.pass(11);
    refuse(&world, "an unknown kid while they cannot", &id_jag("new"), unavailable).await;
    world.pass(86_400);
    refuse(&world, "keys that are too old", &id_jag(key.kid()), unavailable).await;
}

#[tokio::test]
async fn when_trust_ends_its_tokens_die() {
    let world = World::new().await;
    let reply = world.send(&world.redeem(&world.id_jag(&world.id_jag_claims()))).await;
    let token = reply.str("access_token").to_owned();
    let introspect = world.ask(&world.ras, "/introspect", &[("token", &token)]);
    assert_eq!(world.send(&introspect).await.json["active"], true);
    change_trust(&world, |trusted| trusted.disabled = true).await;
    let untrusted = Expected(400, "invalid_grant", "id_jag.issuer");
    refuse(
        &world,
        "an issuer that is switched off",
        &world.id_jag(&world.id_jag_claims()),
        untrusted,
    )
    .await;
    assert_eq!(world.send(&introspect).await.json, json!({"active": false}));
}

#[tokio::test]
async fn introspection_and_revocation_are_for_the_tokens_own_parties() {
    let world = World::new().await;
    let redeem = || async {
        let reply = world.send(&world.redeem(&world.id_jag(&world.id_jag_claims()))).await;
        reply.str("access_token").to_owned()
    };
    let token = redeem().await;
    let at = |path: &str, token: &str| world.ask(&world.ras, path, &[("token", token)]);
    let active = world.send(&at("/introspect", &token)).await;
    assert_eq!(active.json["active"], true);
    assert_eq!(active.json["aud"], json!(world.canvas));
    let stranger = at("/introspect", &token).basic("sibling", world.secret.expose());
    assert_eq!(
        world.send(&stranger).await.json,
        json!({"active": false}),
        "a stranger learns nothing"
    );
    // The MCP server itself may introspect.
    let new = json!({"id": "canvas-server", "name": "Canvas", "resources": [world.canvas]});
    let made = world.administer(reqwest::Method::POST, "/ras/ras/clients", Some(new)).await;
    let server = at("/introspect", &token).basic("canvas-server", made.str("client_secret"));
    assert_eq!(world.send(&server).await.json["active"], true);
    let foreign = at("/revoke", &token).basic("sibling", world.secret.expose());
    assert_eq!(world.send(&foreign).await.status, 200, "another client's token: no error");
    assert_eq!(world.send(&at("/introspect", &token)).await.json["active"], true, "no effect");
    assert_eq!(world.send(&at("/revoke", &token)).await.status, 200);
    assert_eq!(world.send(&at("/introspect", &token)).await.json, json!({"active": false}));
    for garbage in ["", "x", "a.b.c", &token[..token.len() - 1], &token.to_uppercase()] {
        if garbage.is_empty() {
            continue;
        }
        assert_eq!(
            world.send(&at("/introspect", garbage)).await.json,
            json!({"active": false}),
            "no token of ours"
        );
        assert_eq!(
            world.send(&at("/revoke", garbage)).await.status,
            200,
            "unknown tokens are no error"
        );
    }
    let other = redeem().await;
    let account = Parts::of(&other).claims["sub"].clone();
    let off = Some(json!({"id": account}));
    world.administer(reqwest::Method::POST, "/ras/ras/accounts/disable", off).await;
    assert_eq!(
        world.send(&at("/introspect", &other)).await.json,
        json!({"active": false}),
        "its account was switched off"
    );
}

#[tokio::test]
async fn the_databases_hold_no_secret() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let reply = world.send(&world.exchange(&tokens.id_token)).await;
    let id_jag = reply.str("access_token").to_owned();
    let token = world.send(&world.redeem(&id_jag)).await.str("access_token").to_owned();
    let stores: [&Store; 2] = [&world.idp_store, &world.ras_store];
    for store in stores {
        store.is_ready().await;
    }
    let secrets = [
        tokens.id_token.as_str(),
        &tokens.refresh_token,
        &tokens.access_token,
        &id_jag,
        &token,
        world.secret.expose(),
        passavant_tests::world::PASSWORD,
    ];
    let mut read = 0;
    for file in std::fs::read_dir(world.folder()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        read += bytes.len();
        for secret in secrets {
            let signature = secret.rsplit('.').next().unwrap().as_bytes();
            let found = bytes.windows(signature.len()).any(|window| window == signature);
            assert!(!found, "a secret is in a database file");
        }
    }
    assert!(read > 100_000, "the databases were not where they were looked for");
}

#[tokio::test]
async fn a_guard_that_asks_feels_a_revocation_within_a_second() {
    let world = World::new().await;
    let new = json!({"id": "canvas-server", "name": "Canvas", "resources": [world.canvas]});
    let made = world.administer(reqwest::Method::POST, "/ras/ras/clients", Some(new)).await;
    let outbound = passavant_outbound::Outbound::new(&[]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let secret = passavant_proto::secret::Secret::new(made.str("client_secret"));
    let guard = passavant_resource::Guard::new(
        &world.canvas,
        world.ras.as_str(),
        outbound.clone(),
        world.clock(),
    )
    .unwrap()
    .host(&host)
    .introspect(outbound, "canvas-server", secret);
    let router =
        axum::Router::new().route("/", axum::routing::post(|| async { "in" })).layer(guard);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("http://{host}/");
    let call = |token: &str| {
        let (world, url, bearer) = (&world, url.clone(), format!("Bearer {token}"));
        async move { world.call(&url, &[("authorization", &bearer)], &json!({})).await.status }
    };
    let redeem = || async {
        let reply = world.send(&world.redeem(&world.id_jag(&world.id_jag_claims()))).await;
        reply.str("access_token").to_owned()
    };
    let (revoked, kept) = (redeem().await, redeem().await);
    assert_eq!((call(&revoked).await, call(&kept).await), (200, 200));
    let revoke = world.ask(&world.ras, "/revoke", &[("token", &revoked)]);
    assert_eq!(world.send(&revoke).await.status, 200);
    world.pass(1);
    assert_eq!((call(&revoked).await, call(&kept).await), (401, 200), "the revoked one alone");
    change_trust(&world, |trusted| trusted.disabled = true).await;
    world.pass(1);
    assert_eq!(call(&kept).await, 401, "trust has ended");
    // The guard's own registration is gone: nobody is admitted without an answer.
    change_trust(&world, |trusted| trusted.disabled = false).await;
    // A token that was reported as inactive is not asked about again for a while.
    assert_eq!(call(&kept).await, 401, "what has ended stays ended for a while");
    world.pass(10);
    assert_eq!(call(&kept).await, 200);
    let off = Some(json!({"id": "canvas-server"}));
    world.administer(reqwest::Method::POST, "/ras/ras/clients/disable", off).await;
    world.pass(1);
    assert_eq!(call(&kept).await, 503, "fail closed");
}

#[tokio::test]
async fn an_issuer_makes_up_so_many_people_a_minute_and_those_it_has_go_on() {
    let world = World::new().await;
    let known = world.id_jag(&world.id_jag_claims());
    assert_eq!(world.send(&world.redeem(&known)).await.status, 200);
    let made_up = async |n: usize| {
        let id_jag = with(&world, "sub", json!(format!("made-up-{n}")));
        world.send(&world.redeem(&id_jag)).await
    };
    let mut made = 0;
    let busy = loop {
        let reply = made_up(made).await;
        if reply.status != 200 {
            break reply;
        }
        made += 1;
        assert!(made < 700, "nobody counts them");
    };
    assert_eq!(busy.status, 429, "{}", busy.text);
    assert!(!busy.header("retry-after").is_empty());
    let accounts = world.ras_store.all::<Account>().await.unwrap().len();
    assert_eq!(accounts, made + 1, "nothing was written for the one that was refused");
    let known = world.id_jag(&world.id_jag_claims());
    assert_eq!(world.send(&world.redeem(&known)).await.status, 200, "whom it has goes on");
}
