//! Attacks on every kind of JWT that we verify. Each case changes one thing of a baseline that has
//! just passed, and afterwards a baseline passes again.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use passavant_proto::{
    jose::claims::Claims,
    jose::jwk::{Algorithm, KeySet, KeySetError, PublicKey},
    oidc::id_token::{SignIn, verify_sign_in},
    secret::sha256,
};
use passavant_tests::{
    forge::{Key, Parts},
    world::{AGENT, Reply, World},
};
use serde_json::{Value, json};

/// The verifying party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verifier {
    /// The IdP: an ID token as subject token.
    Subject,
    /// The RAS: an ID-JAG.
    IdJag,
    /// The IdP: a client assertion.
    Assertion,
    /// The IdP: a DPoP proof.
    Dpop,
    /// The MCP server: an access token.
    AccessToken,
    /// The client: the ID token of a sign-in.
    SignIn,
}

const ALL: [Verifier; 6] = [
    Verifier::Subject,
    Verifier::IdJag,
    Verifier::Assertion,
    Verifier::Dpop,
    Verifier::AccessToken,
    Verifier::SignIn,
];

/// A world with everything that the baselines need.
struct Bench {
    world: World,
    id_token: String,
    id_token_of_jwt_client: String,
    access_token: String,
    client_key: Key,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let id_token = world.sign_in().await.id_token;
        let id_token_of_jwt_client = world.sign_in_as("erin", "agent-jwt").await.id_token;
        let access_token = world.access_token().await;
        let client_key = Key::new();
        Self { world, id_token, id_token_of_jwt_client, access_token, client_key }
    }

    /// The key that signs the baseline of a verifier.
    fn key(&self, verifier: Verifier) -> &Key {
        match verifier {
            Verifier::Subject | Verifier::IdJag | Verifier::SignIn => &self.world.idp_key,
            Verifier::Assertion => &self.world.client_key,
            Verifier::Dpop => &self.client_key,
            Verifier::AccessToken => &self.world.ras_key,
        }
    }

    /// A new valid JWT for a verifier.
    fn baseline(&self, verifier: Verifier) -> Parts {
        let world = &self.world;
        let now = world.now().0;
        match verifier {
            Verifier::Subject | Verifier::SignIn => {
                let mut parts = Parts::of(&self.id_token);
                parts.claims["iat"] = now.into();
                parts.claims["exp"] = (now + 600).into();
                if verifier == Verifier::SignIn {
                    parts.claims.as_object_mut().unwrap().remove("at_hash");
                }
                parts
            }
            Verifier::IdJag => Parts {
                header: world.idp_key.header("oauth-id-jag+jwt"),
                claims: world.id_jag_claims(),
            },
            Verifier::Assertion => {
                Parts { header: world.client_key.header("JWT"), claims: world.assertion_claims() }
            }
            Verifier::Dpop => {
                let claims = world.dpop_claims(&world.idp.endpoint("/token"));
                let proof = world.dpop(&self.client_key, &claims);
                Parts::of(&proof)
            }
            Verifier::AccessToken => {
                let mut parts = Parts::of(&self.access_token);
                parts.claims["iat"] = now.into();
                parts.claims["exp"] = (now + 300).into();
                parts.claims["jti"] = world.id().into();
                parts
            }
        }
    }

    /// Presents a JWT to a verifier; `Ok` if it was accepted.
    async fn present(&self, verifier: Verifier, jwt: &str) -> Result<(), String> {
        let world = &self.world;
        let reply: Reply = match verifier {
            Verifier::Subject => world.send(&world.exchange(jwt)).await,
            Verifier::IdJag => world.send(&world.redeem(jwt)).await,
            Verifier::Assertion => {
                let ask = world.exchange_with_assertion(&self.id_token_of_jwt_client, jwt);
                world.send(&ask).await
            }
            Verifier::Dpop => {
                let Ok(_) = reqwest::header::HeaderValue::from_str(jwt) else {
                    return Err("not a header".to_owned());
                };
                world.send(&world.exchange(&self.id_token).header("dpop", jwt)).await
            }
            Verifier::AccessToken => {
                let Ok(_) = reqwest::header::HeaderValue::from_str(jwt) else {
                    return Err("not a header".to_owned());
                };
                let bearer = format!("Bearer {jwt}");
                let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
                world.call(&world.canvas, &[("authorization", &bearer)], &ping).await
            }
            Verifier::SignIn => {
                let jwks = json!({"keys": [world.idp_key.jwk()]}).to_string();
                let keys = KeySet::parse(jwks.as_bytes(), Algorithm::ES256).unwrap();
                let expected = SignIn {
                    other_spelling: None,
                    issuer: &world.idp,
                    client: AGENT,
                    nonce: Some("the-nonce"),
                    access_token: None,
                };
                let verified = verify_sign_in(jwt, &keys, expected, world.now());
                return verified.map(|_| ()).map_err(|e| e.to_string());
            }
        };
        if reply.status == 200 {
            return Ok(());
        }
        let (status, error) = match verifier {
            Verifier::Subject | Verifier::IdJag => (400, "invalid_grant"),
            Verifier::Assertion => (401, "invalid_client"),
            Verifier::Dpop => (400, "invalid_dpop_proof"),
            Verifier::AccessToken => (401, ""),
            Verifier::SignIn => unreachable!(),
        };
        assert_eq!(reply.status, status, "{verifier:?}: {}", reply.text);
        assert_eq!(reply.str("error"), error, "{verifier:?}: {}", reply.text);
        if verifier == Verifier::AccessToken {
            let challenge = reply.header("www-authenticate");
            assert!(challenge.contains("invalid_token"), "{challenge}");
        }
        Err(reply.text)
    }

    async fn accepts(&self, verifier: Verifier, case: &str) {
        let jwt = self.baseline(verifier).sign(self.key(verifier));
        let outcome = self.present(verifier, &jwt).await;
        assert!(outcome.is_ok(), "{verifier:?} refuses its baseline after {case}: {outcome:?}");
    }

    async fn refuses(&self, verifier: Verifier, case: &str, jwt: &str) {
        let outcome = self.present(verifier, jwt).await;
        assert!(outcome.is_err(), "{verifier:?} accepts {case}");
    }

    /// Changes header or claims, signs the result with the right key, and expects a refusal.
    async fn refuses_changed(
        &self,
        verifier: Verifier,
        case: &str,
        change: impl FnOnce(&mut Parts),
    ) {
        let mut parts = self.baseline(verifier);
        change(&mut parts);
        self.refuses(verifier, case, &parts.sign(self.key(verifier))).await;
    }
}

fn unsigned(parts: &Parts) -> String {
    format!("{}.{}.", B64.encode(parts.header.to_string()), B64.encode(parts.claims.to_string()))
}

#[tokio::test]
async fn no_algorithm_but_the_registered_one() {
    let bench = Bench::new().await;
    for verifier in ALL {
        for alg in
            ["none", "None", "nOnE", "", "HS256", "RS256", "ES384", "dir", "PBES2-HS256+A128KW"]
        {
            let mut parts = bench.baseline(verifier);
            parts.header["alg"] = alg.into();
            bench.refuses(verifier, alg, &parts.sign(bench.key(verifier))).await;
            bench.refuses(verifier, alg, &unsigned(&parts)).await;
        }
        let parts = bench.baseline(verifier);
        bench.refuses(verifier, "an empty signature", &unsigned(&parts)).await;
        bench.accepts(verifier, "other algorithms").await;
    }
}

#[tokio::test]
async fn no_key_but_the_issuers_own() {
    let bench = Bench::new().await;
    let attacker = Key::new();
    // A server that returns the attacker's key for any request, and counts requests.
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let (count, jwks) = (asked.clone(), json!({"keys": [attacker.jwk()]}));
    let router = axum::Router::new().fallback(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let jwks = jwks.clone();
        async move { axum::Json(jwks) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    for verifier in ALL {
        for (name, value) in [
            ("jwk", attacker.jwk()),
            ("jku", json!(url)),
            ("x5u", json!(url)),
            ("x5c", json!(["MIIB"])),
        ] {
            if verifier == Verifier::Dpop && name == "jwk" {
                continue; // there the key in the header is expected; it proves only itself
            }
            let mut parts = bench.baseline(verifier);
            parts.header[name] = value;
            bench.refuses(verifier, name, &parts.sign(&attacker)).await;
        }
        // The right kid with another key's signature, and a kid that is not published any more.
        let parts = bench.baseline(verifier);
        bench.refuses(verifier, "another key's signature", &parts.sign(&attacker)).await;
        if verifier != Verifier::Dpop {
            bench
                .refuses_changed(verifier, "an unknown kid", |p| {
                    p.header["kid"] = attacker.kid().into();
                })
                .await;
        }
        bench.world.pass(15);
        bench.accepts(verifier, "other keys").await;
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0, "a header's URL was fetched");
}

#[tokio::test]
async fn a_hostile_kid_is_just_unknown() {
    let bench = Bench::new().await;
    let long = "k".repeat(10_240);
    let kids = [
        json!("../../etc/passwd"),
        json!("' OR 1=1 --"),
        json!("a\u{0}b"),
        json!("a\r\nb"),
        json!("\u{1b}[31m"),
        json!(long),
        json!(7),
        json!(["a"]),
        json!(null),
    ];
    for verifier in ALL {
        if verifier == Verifier::Dpop {
            continue; // proofs contain their key; an additional kid means nothing
        }
        for kid in &kids {
            bench
                .refuses_changed(verifier, &kid.to_string(), |p| p.header["kid"] = kid.clone())
                .await;
        }
        bench.world.pass(15);
        bench.accepts(verifier, "hostile kids").await;
    }
}

#[tokio::test]
async fn a_signature_of_wrong_form_or_range_is_refused() {
    let bench = Bench::new().await;
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let n: Vec<u8> =
        (0..32).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    for verifier in ALL {
        let good = bench.baseline(verifier).sign(bench.key(verifier));
        let (input, signature) = good.rsplit_once('.').unwrap();
        let signature = B64.decode(signature).unwrap();
        let (r, s) = signature.split_at(32);
        let mut der = vec![0x30, 0x44, 0x02, 0x20];
        der.extend(r);
        der.extend([0x02, 0x20]);
        der.extend(s);
        let zero = [0_u8; 32];
        for (case, bytes) in [
            ("r = s = 0", [zero, zero].concat()),
            ("r = 0", [&zero[..], s].concat()),
            ("s = 0", [r, &zero[..]].concat()),
            ("r = n", [&n[..], s].concat()),
            ("s = n", [r, &n[..]].concat()),
            ("DER", der),
            ("one byte short", signature[..63].to_vec()),
            ("one byte more", [&signature[..], &[0]].concat()),
            ("a flipped bit", {
                let mut flipped = signature.clone();
                flipped[5] ^= 1;
                flipped
            }),
        ] {
            let jwt = format!("{input}.{}", B64.encode(bytes));
            bench.refuses(verifier, case, &jwt).await;
        }
        bench.accepts(verifier, "malformed signatures").await;
    }
}

#[tokio::test]
async fn critical_extensions_and_double_members_are_refused() {
    let bench = Bench::new().await;
    for verifier in ALL {
        for (case, change) in [
            ("crit", json!({"crit": ["exp2"]})),
            ("empty crit", json!({"crit": []})),
            ("b64", json!({"b64": false, "crit": ["b64"]})),
            ("b64 alone", json!({"b64": false})),
        ] {
            bench
                .refuses_changed(verifier, case, |p| {
                    for (name, value) in change.as_object().unwrap() {
                        p.header[name] = value.clone();
                    }
                })
                .await;
        }
        let parts = bench.baseline(verifier);
        let key = bench.key(verifier);
        let (header, claims) = (parts.header.to_string(), parts.claims.to_string());
        let twice = |json: &str, extra: &str| format!("{{{extra},{}", &json[1..]);
        for extra in ["\"aud\":\"x\"", "\"iss\":\"x\"", "\"zz\":1,\"zz\":1"] {
            let doubled = twice(&claims, extra);
            let valid = serde_json::from_str::<Value>(&doubled).is_ok();
            let already = extra.starts_with("\"zz") || parts.claims.get(&extra[1..4]).is_some();
            assert!(valid);
            if already {
                let jwt = key.sign(&header, doubled.as_bytes());
                bench.refuses(verifier, extra, &jwt).await;
            }
        }
        let jwt = key.sign(&twice(&header, "\"alg\":\"ES256\""), claims.as_bytes());
        bench.refuses(verifier, "alg twice", &jwt).await;
        bench.accepts(verifier, "critical extensions and double members").await;
    }
}

/// The claims that a verifier requires, with their types.
fn required(verifier: Verifier) -> &'static [&'static str] {
    match verifier {
        Verifier::Subject => &["iss", "sub", "aud", "exp", "iat", "sid"],
        Verifier::IdJag | Verifier::AccessToken => {
            &["iss", "sub", "aud", "client_id", "jti", "exp", "iat"]
        }
        Verifier::Assertion => &["iss", "sub", "aud", "jti", "exp"],
        Verifier::Dpop => &["htm", "htu", "jti", "iat"],
        Verifier::SignIn => &["iss", "sub", "aud", "exp", "iat", "nonce"],
    }
}

#[tokio::test]
async fn a_claim_that_is_missing_or_of_the_wrong_type_is_refused() {
    let bench = Bench::new().await;
    // Of a person of an upstream it may be unknown how and when they signed in; what is said is
    // said rightly.
    for (name, value) in [
        ("auth_time", json!("1800000100")),
        ("auth_time", json!(-1)),
        ("auth_time", json!(null)),
        ("acr", json!(1)),
        ("acr", json!(null)),
        ("acr", json!([])),
        ("amr", json!(1)),
        ("amr", json!([1])),
    ] {
        let case = format!("{name}: {value}");
        bench.refuses_changed(Verifier::Subject, &case, |p| p.claims[name] = value).await;
    }
    for verifier in ALL {
        for name in required(verifier) {
            let case = format!("no {name}");
            bench
                .refuses_changed(verifier, &case, |p| {
                    p.claims.as_object_mut().unwrap().remove(*name);
                })
                .await;
            let numeric = ["exp", "iat", "auth_time"].contains(name);
            let wrong = if numeric {
                vec![
                    json!("1800000100"),
                    json!(-1.5),
                    json!(-1),
                    json!(null),
                    json!([1]),
                    json!({}),
                ]
            } else {
                vec![
                    json!(1),
                    json!(null),
                    json!({}),
                    json!([1]),
                    json!([]),
                    json!(""),
                    json!(true),
                ]
            };
            for value in wrong {
                let case = format!("{name}: {value}");
                bench.refuses_changed(verifier, &case, |p| p.claims[name] = value).await;
            }
        }
        // Optional claims are type-checked, too.
        for (name, value) in [("nbf", json!("1")), ("nbf", json!(-1.5)), ("nbf", json!(null))] {
            if verifier != Verifier::Dpop {
                let case = format!("{name}: {value}");
                bench.refuses_changed(verifier, &case, |p| p.claims[name] = value).await;
            }
        }
        let parts = bench.baseline(verifier);
        let name = if verifier == Verifier::Dpop { "iat" } else { "exp" };
        let value = parts.claims[name].to_string();
        let huge = parts.claims.to_string().replace(&value, "1e400");
        let jwt = bench.key(verifier).sign(&parts.header.to_string(), huge.as_bytes());
        bench.refuses(verifier, "1e400", &jwt).await;
        bench.accepts(verifier, "malformed claims").await;
    }
}

#[tokio::test]
async fn time_holds_to_the_second_and_lifetimes_are_capped() {
    let bench = Bench::new().await;
    let now = bench.world.now().0;
    for verifier in ALL {
        if verifier == Verifier::Dpop {
            for (iat, good) in
                [(now - 90, true), (now - 91, false), (now + 30, true), (now + 31, false)]
            {
                let mut parts = bench.baseline(verifier);
                parts.claims["iat"] = iat.into();
                let outcome = bench.present(verifier, &parts.sign(bench.key(verifier))).await;
                assert_eq!(outcome.is_ok(), good, "iat {}: {outcome:?}", iat - now);
            }
            continue;
        }
        let longest = match verifier {
            Verifier::Subject => 12 * 3600,
            Verifier::SignIn => 7 * 86_400,
            Verifier::AccessToken => 3600,
            _ => 300,
        };
        for (case, iat, nbf, exp, good) in [
            ("expired within the skew", now - 100, None, now - 29, true),
            ("expired beyond the skew", now - 100, None, now - 30, false),
            ("not yet, within the skew", now + 30, None, now + 60, true),
            ("not yet, beyond the skew", now + 31, None, now + 60, false),
            ("nbf within the skew", now, Some(now + 30), now + 60, true),
            ("nbf beyond the skew", now, Some(now + 31), now + 60, false),
            ("as long as it may", now, None, now + longest, true),
            ("a second too long", now, None, now + longest + 1, false),
            ("exp in 2099", now, None, 4_080_000_000, false),
            ("exp before iat", now + 5, None, now + 4, false),
        ] {
            let mut parts = bench.baseline(verifier);
            parts.claims["iat"] = iat.into();
            parts.claims["exp"] = exp.into();
            if let Some(nbf) = nbf {
                parts.claims["nbf"] = nbf.into();
            }
            let outcome = bench.present(verifier, &parts.sign(bench.key(verifier))).await;
            assert_eq!(outcome.is_ok(), good, "{verifier:?}, {case}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn no_kind_passes_for_another() {
    let bench = Bench::new().await;
    for kind in ALL {
        for verifier in ALL {
            let same = [Verifier::Subject, Verifier::SignIn];
            if kind == verifier || (same.contains(&kind) && same.contains(&verifier)) {
                continue;
            }
            // Unchanged, but also signed with the key that this verifier trusts.
            let parts = bench.baseline(kind);
            bench.refuses(verifier, &format!("{kind:?}"), &parts.sign(bench.key(kind))).await;
            let key = bench.key(verifier);
            let mut parts = bench.baseline(kind);
            parts.header = key.header(parts.header["typ"].as_str().unwrap_or_default());
            let case = format!("{kind:?} by the right key");
            bench.refuses(verifier, &case, &parts.sign(key)).await;
        }
    }
    // Types that nobody issues here, signed with each verifier's own key.
    for verifier in ALL {
        for typ in ["logout+jwt", "secevent+jwt", "dpop+jwt", "at+jwt", "oauth-id-jag+jwt", "JOSE"]
        {
            let baseline = bench.baseline(verifier);
            if baseline.header["typ"] == typ {
                continue;
            }
            bench.refuses_changed(verifier, typ, |p| p.header["typ"] = typ.into()).await;
        }
        bench.accepts(verifier, "other types").await;
    }
}

#[tokio::test]
async fn the_type_of_an_id_jag_is_exact_but_for_case_and_prefix() {
    let bench = Bench::new().await;
    for (typ, good) in [
        (json!("application/oauth-id-jag+jwt"), true),
        (json!("OAuth-ID-JAG+JWT"), true),
        (json!("oauth-id-jag+jwt "), false),
        (json!("JWT"), false),
        (json!("jag"), false),
        (json!(1), false),
    ] {
        let mut parts = bench.baseline(Verifier::IdJag);
        parts.header["typ"] = typ.clone();
        let outcome = bench.present(Verifier::IdJag, &parts.sign(bench.key(Verifier::IdJag))).await;
        assert_eq!(outcome.is_ok(), good, "{typ}: {outcome:?}");
    }
    bench
        .refuses_changed(Verifier::IdJag, "no typ", |p| {
            p.header.as_object_mut().unwrap().remove("typ");
        })
        .await;
}

#[tokio::test]
async fn an_issuer_that_only_resembles_is_refused() {
    let bench = Bench::new().await;
    for verifier in [Verifier::Subject, Verifier::IdJag, Verifier::AccessToken, Verifier::SignIn] {
        let issuer = bench.baseline(verifier).claims["iss"].as_str().unwrap().to_owned();
        for other in [
            format!("{issuer}/"),
            format!("{issuer}.evil.example"),
            issuer[..issuer.len() - 1].to_owned(),
            issuer.to_uppercase(),
            issuer.replace("http://", "https://"),
            issuer.replace("http://", "http://user@"),
            issuer.replace("127.0.0.1", "127.0.0.\u{0661}"),
            bench.world.other_ras.to_string(),
        ] {
            bench.refuses_changed(verifier, &other, |p| p.claims["iss"] = json!(other)).await;
        }
        bench.accepts(verifier, "other issuers").await;
    }
}

#[tokio::test]
async fn only_strict_compact_jws_is_read() {
    let bench = Bench::new().await;
    for verifier in ALL {
        let key = bench.key(verifier);
        let good = bench.baseline(verifier).sign(key);
        let parts: Vec<&str> = good.split('.').collect();
        let (h, p, s) = (parts[0], parts[1], parts[2]);
        for (case, jwt) in [
            ("two parts", format!("{h}.{p}")),
            ("four parts", format!("{good}.{s}")),
            ("five parts", format!("{h}.{p}.{s}.{s}.{s}")),
            ("padding", format!("{h}.{p}.{s}=")),
            ("padding in the payload", format!("{h}.{p}=.{s}")),
            ("the other alphabet", format!("{h}.{p}.{}+/", &s[..s.len() - 2])),
            ("a space", format!("{h}.{p} .{s}")),
            ("trailing garbage", format!("{good}!")),
            ("not a JWT", "x".repeat(40)),
            ("17 KB", format!("{h}.{}.{s}", "A".repeat(17_000))),
        ] {
            bench.refuses(verifier, case, &jwt).await;
        }
        // The last character of 64 bytes contains four bits that must be zero.
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = alphabet.find(s.chars().last().unwrap()).unwrap();
        let malleated = alphabet.as_bytes()[last ^ 1] as char;
        let jwt = format!("{h}.{p}.{}{malleated}", &s[..s.len() - 1]);
        bench.refuses(verifier, "non-zero trailing bits", &jwt).await;
        let header = bench.baseline(verifier).header.to_string();
        let claims = bench.baseline(verifier).claims.to_string();
        let nested = key.sign(&header, good.as_bytes());
        bench.refuses(verifier, "a nested JWT", &nested).await;
        for (case, payload) in [
            ("an array", b"[]".to_vec()),
            ("a string", b"\"x\"".to_vec()),
            ("null", b"null".to_vec()),
            ("a byte order mark", [b"\xef\xbb\xbf", claims.as_bytes()].concat()),
            (
                "invalid UTF-8",
                [&claims.as_bytes()[..1], b"\"x\":\"\xff\",", &claims.as_bytes()[1..]].concat(),
            ),
            ("a lone surrogate", claims.replacen('{', "{\"x\":\"\\ud800\",", 1).into_bytes()),
            ("trailing text", [claims.as_bytes(), b"x"].concat()),
        ] {
            bench.refuses(verifier, case, &key.sign(&header, &payload)).await;
        }
        bench.accepts(verifier, "other serializations").await;
    }
}

#[test]
fn key_sets_are_read_with_suspicion() {
    let (one, two) = (Key::new(), Key::new());
    let set =
        |keys: Value| KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), Algorithm::ES256);
    let both = set(json!([one.jwk(), two.jwk()])).unwrap();
    assert!(both.find(None).is_none(), "several candidates and no kid");
    assert!(both.find(Some(one.kid())).is_some());
    assert!(set(json!([one.jwk()])).unwrap().find(None).is_some());
    let mut clash = two.jwk();
    clash["kid"] = one.kid().into();
    let clashing = set(json!([one.jwk(), clash, two.jwk()])).unwrap();
    assert!(clashing.find(Some(one.kid())).is_none(), "two keys under one kid");
    assert!(clashing.find(Some(two.kid())).is_some());
    let mut off_curve = one.jwk();
    off_curve["y"] = two.jwk()["y"].clone();
    assert!(set(json!([off_curve])).is_err(), "a point off the curve");
    let mut wrong_curve = one.jwk();
    wrong_curve["alg"] = "ES384".into();
    assert!(set(json!([wrong_curve])).is_err(), "a P-256 key for ES384");
    let oct = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"});
    assert!(set(json!([oct])).is_err(), "symmetric keys are ignored");
    assert!(set(json!([oct, one.jwk()])).unwrap().find(Some("s")).is_none());
    let mut private = one.jwk();
    private["d"] = "AAAA".into();
    assert_eq!(set(json!([private])).unwrap_err(), KeySetError::Private);
    let mut encryption = one.jwk();
    encryption["use"] = "enc".into();
    assert!(set(json!([encryption])).is_err());
    // `key_ops` is respected: `verify` has to be among them.
    for (operations, fine) in [
        (json!(["verify"]), true),
        (json!(["sign", "verify"]), true),
        (json!(["sign"]), false),
        (json!([]), false),
        (json!("verify"), false),
        (json!(["verify", 7]), false),
        (json!(["Verify"]), false),
    ] {
        let mut key = one.jwk();
        key["key_ops"] = operations.clone();
        assert_eq!(set(json!([key])).is_ok(), fine, "{operations}");
    }
    let small = json!({"kty": "RSA", "kid": "r", "e": "AQAB", "n": B64.encode([0xff_u8; 128])});
    let rsa = json!({"keys": [small]}).to_string();
    assert!(KeySet::parse(rsa.as_bytes(), Algorithm::RS256).is_err(), "RSA-1024");
    let many = vec![one.jwk(); 101];
    assert_eq!(set(json!(many)).unwrap_err(), KeySetError::NotKeySet);
    let point = one.point();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..64])});
    let claims = Claims::parse(jwk.to_string().as_bytes()).unwrap();
    assert!(PublicKey::from_jwk(&claims, Algorithm::ES256).is_none(), "a short coordinate");
}

#[tokio::test]
async fn a_flood_of_unknown_kids_causes_one_fetch_and_loses_no_good_key() {
    let world = World::new().await;
    let key = Key::new();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let (count, jwks) = (asked.clone(), json!({"keys": [key.jwk()]}));
    let router = axum::Router::new().route(
        "/keys",
        axum::routing::get(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let jwks = jwks.clone();
            async move { axum::Json(jwks) }
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    let trust = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
                       "accounts": {"just_in_time": true}});
    let post = reqwest::Method::POST;
    let added = world.administer(post, "/ras/ras/trusted-issuers", Some(trust)).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let id_jag = |kid: &str| {
        let mut parts =
            Parts { header: key.header("oauth-id-jag+jwt"), claims: world.id_jag_claims() };
        parts.claims["iss"] = json!(issuer);
        parts.header["kid"] = kid.into();
        parts.sign(&key)
    };
    let good = world.send(&world.redeem(&id_jag(key.kid()))).await;
    assert_eq!(good.status, 200, "{}", good.text);
    for i in 0..200 {
        let reply = world.send(&world.redeem(&id_jag(&format!("unknown-{i}")))).await;
        assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1, "the cooldown was not kept");
    world.pass(11);
    for i in 0..50 {
        world.send(&world.redeem(&id_jag(&format!("unknown-again-{i}")))).await;
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
    let good = world.send(&world.redeem(&id_jag(key.kid()))).await;
    assert_eq!(good.status, 200, "good keys were lost: {}", good.text);
}

#[tokio::test]
async fn what_was_switched_off_a_second_ago_is_refused_everywhere() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let post = |path: &str, body: Value| {
        let path = path.to_owned();
        async move {
            let reply = world.administer(reqwest::Method::POST, &path, Some(body)).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        }
    };
    let id_jag = bench.baseline(Verifier::IdJag).sign(&world.idp_key);
    post("/ras/ras/trusted-issuers/disable", json!({"id": world.idp})).await;
    bench.refuses(Verifier::IdJag, "a disabled issuer", &id_jag).await;
    post("/ras/ras/trusted-issuers/enable", json!({"id": world.idp})).await;
    bench.accepts(Verifier::IdJag, "enabling").await;
    let assertion = bench.baseline(Verifier::Assertion).sign(&world.client_key);
    post("/idp/clients/agent-jwt/disable", json!({})).await;
    bench.refuses(Verifier::Assertion, "a disabled client", &assertion).await;
    post("/idp/users/erin/disable", json!({})).await;
    let id_token = bench.baseline(Verifier::Subject).sign(&world.idp_key);
    bench.refuses(Verifier::Subject, "a disabled person", &id_token).await;
    post("/idp/users/erin/enable", json!({})).await;
    bench.refuses(Verifier::Subject, "a session from before the cut-off", &id_token).await;
}

#[test]
fn an_independent_library_agrees_about_our_signatures() {
    let key = Key::new();
    let jwt = passavant_proto::oauth::client_assertion::sign(
        &key.signing_key(),
        "client",
        "https://as.example",
        "jti",
        passavant_proto::time::Timestamp(1_900_000_000),
    );
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.jwk()).unwrap();
    let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["https://as.example"]);
    validation.validate_exp = false;
    let decoded = jsonwebtoken::decode::<Value>(&jwt, &decoding, &validation).unwrap();
    assert_eq!(decoded.claims["sub"], "client");
    let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256);
    assert!(format!("{thumbprint:?}").contains(key.kid()));
    assert_eq!(sha256(b"").len(), 43);
}
