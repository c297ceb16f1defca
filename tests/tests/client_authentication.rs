//! Client authentication, at all four endpoints that ask for it.

use passavant_tests::world::{AGENT, Ask, Expected, Wishes, World};
use reqwest::Method;
use serde_json::json;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request of the main client to each endpoint.
fn endpoints(world: &World) -> Vec<Ask> {
    let form: &[(&str, &str)] = &[("token", "some-token"), ("grant_type", "refresh_token")];
    ["/token", "/par", "/introspect", "/revoke"]
        .iter()
        .map(|path| world.ask(&world.idp, path, form))
        .chain(["/token", "/introspect", "/revoke"].iter().map(|p| world.ask(&world.ras, p, form)))
        .collect()
}

async fn refused_everywhere(
    world: &World,
    case: &str,
    expected: Expected<'_>,
    change: impl Fn(Ask) -> Ask,
) {
    for ask in endpoints(world) {
        let store = if ask.url.starts_with(world.idp.as_str()) {
            &world.idp_store
        } else {
            &world.ras_store
        };
        let case = format!("{case} at {}", ask.url);
        world.refuses(store, &case, &change(ask), expected).await;
    }
}

#[tokio::test]
async fn no_way_around_the_registered_method() {
    let world = World::new().await;
    let secret = world.secret.expose().to_owned();
    let client =
        |ask: &Ask| if ask.url.starts_with(world.idp.as_str()) { AGENT } else { "agent-at-ras" };
    let unauthenticated = Expected(401, "invalid_client", "client.unauthenticated");
    refused_everywhere(&world, "no authentication", unauthenticated, |a| {
        a.no_header("authorization")
    })
    .await;
    refused_everywhere(&world, "client_id alone", unauthenticated, |a| {
        let id = client(&a);
        a.no_header("authorization").set("client_id", id)
    })
    .await;
    let several = Expected(400, "invalid_request", "client.several_methods");
    refused_everywhere(&world, "Basic and body", several, |a| a.add("client_secret", &secret))
        .await;
    refused_everywhere(&world, "Basic and assertion", several, |a| {
        a.add("client_assertion", "a.b.c").add("client_assertion_type", ASSERTION_TYPE)
    })
    .await;
    let method = Expected(401, "invalid_client", "client.method");
    refused_everywhere(&world, "a secret for a key client", method, |a| {
        let id = format!("{}-jwt", client(&a));
        a.basic(&id, &secret)
    })
    .await;
    for ask in endpoints(&world) {
        let (id, issuer, store) = if ask.url.starts_with(world.idp.as_str()) {
            (AGENT, &world.idp, &world.idp_store)
        } else {
            ("agent-at-ras", &world.ras, &world.ras_store)
        };
        let mut claims = world.assertion_claims();
        claims["iss"] = id.into();
        claims["sub"] = id.into();
        claims["aud"] = json!(issuer);
        let header = world.client_key.header("JWT").to_string();
        let assertion = world.client_key.sign(&header, claims.to_string().as_bytes());
        let ask = ask
            .no_header("authorization")
            .add("client_assertion", &assertion)
            .add("client_assertion_type", ASSERTION_TYPE);
        world.refuses(store, "a key for a secret client", &ask, method).await;
    }
    let unknown = Expected(401, "invalid_client", "client.unknown");
    for id in ["disabled", "nobody"] {
        refused_everywhere(&world, id, unknown, |a| a.basic(id, &secret)).await;
    }
    let wrong = Expected(401, "invalid_client", "client.secret");
    refused_everywhere(&world, "an expired secret", wrong, |a| a.basic("expired", &secret)).await;
    refused_everywhere(&world, "a wrong secret", wrong, |a| {
        let id = client(&a);
        a.basic(id, "wrong")
    })
    .await;
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_refused() {
    let world = World::new().await;
    let malformed = Expected(401, "invalid_client", "client.malformed");
    for value in ["Basic ###", "Basic YWdlbnQ=", "Basic ", "Bearer x", "Basic YQBiOmM="] {
        refused_everywhere(&world, value, malformed, |a| {
            a.no_header("authorization").header("authorization", value)
        })
        .await;
    }
    refused_everywhere(&world, "two Authorization headers", malformed, |a| {
        let value = a.headers[0].1.clone();
        a.header("authorization", &value)
    })
    .await;
    let mismatch = Expected(401, "invalid_client", "client.id_mismatch");
    refused_everywhere(&world, "another client_id in the body", mismatch, |a| {
        a.add("client_id", "sibling")
    })
    .await;
    let missing = Expected(400, "invalid_request", "request.malformed");
    refused_everywhere(&world, "no assertion type", missing, |a| {
        a.no_header("authorization").add("client_assertion", "a.b.c")
    })
    .await;
    let unknown = Expected(401, "invalid_client", "client.assertion_type");
    refused_everywhere(&world, "an unknown assertion type", unknown, |a| {
        a.no_header("authorization")
            .add("client_assertion", "a.b.c")
            .add("client_assertion_type", "x")
    })
    .await;
}

#[tokio::test]
async fn both_spellings_of_basic_are_read() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    // oauth4webapi and openid-client escape even `-` and `_`; TypeScript's SDK sends them raw.
    let escape = |text: &str| {
        text.bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() {
                    (b as char).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect::<String>()
    };
    let raw = world.exchange(&tokens.id_token);
    let escaped = raw.clone().basic(&escape(AGENT), &escape(world.secret.expose()));
    let post = raw
        .clone()
        .no_header("authorization")
        .add("client_id", AGENT)
        .add("client_secret", world.secret.expose());
    for ask in [raw, escaped, post] {
        assert_eq!(world.send(&ask).await.status, 200);
    }
}

#[tokio::test]
async fn client_assertions_are_for_us_alone_and_used_once() {
    let world = World::new().await;
    let tokens = world.sign_in_as("erin", "agent-jwt").await;
    let sign = |claims: &serde_json::Value, typ: &str| {
        world
            .client_key
            .sign(&world.client_key.header(typ).to_string(), claims.to_string().as_bytes())
    };
    let ask = |assertion: &str| world.exchange_with_assertion(&tokens.id_token, assertion);
    let refused = Expected(401, "invalid_client", "client.assertion");
    for (case, aud) in [
        ("the token endpoint", json!(world.idp.endpoint("/token"))),
        ("the PAR endpoint", json!(world.idp.endpoint("/par"))),
        ("another issuer", json!(world.ras)),
        ("a slash more", json!(format!("{}/", world.idp))),
        ("two audiences", json!([world.idp, "https://other.example"])),
        ("no audience", json!([])),
    ] {
        let mut claims = world.assertion_claims();
        claims["aud"] = aud;
        world.refuses(&world.idp_store, case, &ask(&sign(&claims, "JWT")), refused).await;
    }
    let mut claims = world.assertion_claims();
    claims.as_object_mut().unwrap().remove("jti");
    world.refuses(&world.idp_store, "no jti", &ask(&sign(&claims, "JWT")), refused).await;
    for typ in ["at+jwt", "oauth-id-jag+jwt", "dpop+jwt"] {
        let assertion = sign(&world.assertion_claims(), typ);
        world.refuses(&world.idp_store, typ, &ask(&assertion), refused).await;
    }
    for typ in ["", "JWT", "client-authentication+jwt"] {
        let reply = world.send(&ask(&sign(&world.assertion_claims(), typ))).await;
        assert_eq!(reply.status, 200, "{typ}: {}", reply.text);
    }
    // A forged copy that is sent first does not use up the real one, which works once.
    let claims = world.assertion_claims();
    let good = sign(&claims, "JWT");
    let forged = passavant_tests::forge::Key::new()
        .sign(&world.client_key.header("JWT").to_string(), claims.to_string().as_bytes());
    world.refuses(&world.idp_store, "a forged copy", &ask(&forged), refused).await;
    assert_eq!(world.send(&ask(&good)).await.status, 200);
    let replay = Expected(401, "invalid_client", "client.assertion_replay");
    world.refuses(&world.idp_store, "a replay", &ask(&good), replay).await;
    // An assertion with the same jti that was signed again counts as the same.
    world
        .refuses(&world.idp_store, "the same jti signed anew", &ask(&sign(&claims, "JWT")), replay)
        .await;
}

#[tokio::test]
async fn a_jti_is_single_use_in_its_own_namespace_alone() {
    let world = World::new().await;
    let tokens = world.sign_in_as("erin", "agent-jwt").await;
    let mut assertion = world.assertion_claims();
    assertion["jti"] = "shared".into();
    let signed = world
        .client_key
        .sign(&world.client_key.header("JWT").to_string(), assertion.to_string().as_bytes());
    assert_eq!(
        world.send(&world.exchange_with_assertion(&tokens.id_token, &signed)).await.status,
        200
    );
    let mut id_jag = world.id_jag_claims();
    id_jag["jti"] = "shared".into();
    assert_eq!(world.send(&world.redeem(&world.id_jag(&id_jag))).await.status, 200);
}

#[tokio::test]
async fn credentials_stay_out_of_urls_and_forms_are_read_strictly() {
    let world = World::new().await;
    for name in [
        "client_secret",
        "client_assertion",
        "assertion",
        "subject_token",
        "token",
        "code",
        "refresh_token",
    ] {
        let in_query = Expected(400, "invalid_request", "request.credential_in_query");
        refused_everywhere(&world, name, in_query, |mut a| {
            a.url = format!("{}?{name}=x", a.url);
            a
        })
        .await;
    }
    let media = Expected(400, "invalid_request", "request.media_type");
    for kind in ["application/json", "multipart/form-data; boundary=x", "text/plain"] {
        refused_everywhere(&world, kind, media, |a| a.header("content-type", kind)).await;
    }
    for ask in endpoints(&world) {
        let get = Ask { method: Method::GET, form: Vec::new(), ..ask.clone() };
        assert_eq!(world.send(&get).await.status, 405, "{}", ask.url);
        let large = ask.clone().add("x", &"y".repeat(70_000));
        assert_eq!(world.send(&large).await.status, 413, "{}", ask.url);
        let gzip = ask.header("content-encoding", "gzip");
        assert_eq!(world.send(&gzip).await.status, 415, "a compressed body");
    }
    let repeated = Expected(400, "invalid_request", "request.malformed");
    for name in ["grant_type", "client_id", "assertion", "scope"] {
        refused_everywhere(&world, name, repeated, |a| a.set(name, "x").add(name, "x")).await;
    }
}

#[tokio::test]
async fn an_address_that_keeps_failing_has_to_wait() {
    let world = World::with(Wishes { failures_per_minute: Some(5), ..Wishes::default() }).await;
    let wrong =
        world.ask(&world.ras, "/token", &[("grant_type", "x")]).basic("agent-at-ras", "wrong");
    for _ in 0..5 {
        assert_eq!(world.send(&wrong).await.status, 401);
    }
    let reply = world.send(&wrong).await;
    assert_eq!(reply.status, 429, "{}", reply.text);
    assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
    // The IdP counts separately; and failures of an authenticated client at a grant do not count.
    let tokens = world.sign_in().await;
    for _ in 0..20 {
        let reply = world.send(&world.exchange(&tokens.id_token).set("audience", "x")).await;
        assert_eq!(reply.status, 400);
    }
    assert_eq!(world.send(&world.exchange(&tokens.id_token)).await.status, 200);
}

#[tokio::test]
async fn a_certificate_header_authenticates_nobody() {
    let world = World::new().await;
    for name in ["x-client-cert", "x-ssl-client-cert", "x-forwarded-client-cert", "client-cert"] {
        refused_everywhere(
            &world,
            name,
            Expected(401, "invalid_client", "client.unauthenticated"),
            |a| {
                let id = if a.url.starts_with(world.idp.as_str()) { AGENT } else { "agent-at-ras" };
                a.no_header("authorization").header(name, "MIIB").set("client_id", id)
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_public_client_gets_no_id_jag_unless_an_administrator_said_so() {
    let world = World::new().await;
    let tokens = world.sign_in_as("erin", "public").await;
    let ask =
        world.exchange(&tokens.id_token).no_header("authorization").add("client_id", "public");
    world
        .refuses(
            &world.idp_store,
            "a public client at the IdP",
            &ask,
            Expected(400, "unauthorized_client", "client.public"),
        )
        .await;
    let lax = World::with(Wishes { allow_public_exchange: true, ..Wishes::default() }).await;
    let tokens = lax.sign_in_as("erin", "public").await;
    let ask = lax.exchange(&tokens.id_token).no_header("authorization").add("client_id", "public");
    assert_eq!(lax.send(&ask).await.status, 200);
    let redeem = lax.redeem("a.b.c").no_header("authorization").add("client_id", "public");
    lax.refuses(
        &lax.ras_store,
        "a public client at the RAS",
        &redeem,
        Expected(401, "invalid_client", "client.unknown"),
    )
    .await;
    let new = json!({"name": "p", "public": true});
    let refused = lax.administer(Method::POST, "/ras/ras/clients", Some(new)).await;
    assert_eq!(refused.status, 400, "a RAS takes no public clients");
}
