//! The interactive path of a RAS, from a browser to tokens. The IdP's own authorization endpoint is
//! in `flows.rs`.

use passavant_proto::xaa::trust::{Account, TrustedIssuer};
use passavant_store::AuditEvent;
use passavant_tests::{
    forge::Parts,
    outsider::{Browser, DESKTOP, VERIFIER},
    world::{AGENT_AT_RAS, CALLBACK, Expected, Reply, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

fn parameter(location: &str, name: &str) -> String {
    let url = Url::parse(location).unwrap();
    url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned()).unwrap_or_default()
}

async fn world() -> World {
    let world = World::new().await;
    world.let_outsiders_in().await;
    world
}

#[tokio::test]
async fn a_person_without_cross_app_access_gets_tokens_by_saying_yes() {
    let world = world().await;
    let metadata = world.http.get(world.ras.well_known_inserted("oauth-authorization-server"));
    let metadata: Value = metadata.send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["response_types_supported"], json!(["code"]));
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    for grant in ["authorization_code", "refresh_token"] {
        assert!(metadata["grant_types_supported"].as_array().unwrap().contains(&json!(grant)));
    }
    let mut browser = Browser::default();
    let (at, page) = browser.go(&world, &world.outsider_url(&[]), "erin").await;
    assert_eq!(page.status, 200, "{}", page.text);
    // The page shows who wants what and where the answer goes, and escapes the client's text.
    for text in ["Desktop &lt;b&gt;agent&lt;/b&gt;", "Read what is there", "127.0.0.1", "(write)"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    assert!(
        page.text.contains("program on the computer in front of you"),
        "the redirect stays on this computer"
    );
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"), "no frames");
    assert_eq!(page.header("x-frame-options"), "DENY", "no frames");
    let reply = browser.answer(&world, &at, &page, "allow");
    let reply = browser.ask(&world, reply).await;
    let code = parameter(reply.header("location"), "code");
    let tokens = world.send(&world.redeem_code(&code)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    assert_eq!((tokens.str("token_type"), tokens.str("scope")), ("Bearer", "read write"));
    let claims = Parts::of(tokens.str("access_token")).claims;
    assert_eq!((&claims["aud"], &claims["client_id"]), (&json!(world.canvas), &json!(DESKTOP)));
    assert!(claims.get("txn").is_none() && claims["auth_time"].is_i64());
    // With an ID-JAG, the same person has the same account.
    let by_id_jag = Parts::of(&world.access_token().await).claims;
    assert_eq!(claims["sub"], by_id_jag["sub"]);
    let headers = format!("Bearer {}", tokens.str("access_token"));
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "draw"}});
    let called = world.call(&world.canvas, &[("authorization", &headers)], &call).await;
    assert_eq!(called.status, 200, "{}", called.text);
    // Refresh tokens are rotated; fewer scopes are allowed, more are not.
    let renewed = world.send(&world.refresh_at_ras(tokens.str("refresh_token"))).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    assert_ne!(renewed.str("refresh_token"), tokens.str("refresh_token"));
    let narrower = world.refresh_at_ras(renewed.str("refresh_token")).set("scope", "read");
    let narrower = world.send(&narrower).await;
    assert_eq!(narrower.str("scope"), "read");
    let wider = world.refresh_at_ras(narrower.str("refresh_token")).set("scope", "read admin");
    let expected = Expected(400, "invalid_scope", "scope.widened");
    world.refuses(&world.ras_store, "wider", &wider, expected).await;
    // Presenting the first one again revokes the whole family.
    let reuse = Expected(400, "invalid_grant", "refresh.reuse");
    let again = world.refresh_at_ras(tokens.str("refresh_token"));
    world.refuses(&world.ras_store, "a refresh token that was rotated out", &again, reuse).await;
    let last = world.refresh_at_ras(narrower.str("refresh_token"));
    let dead = Expected(400, "invalid_grant", "refresh.invalid");
    world.refuses(&world.ras_store, "the last one of the family", &last, dead).await;
    assert!(
        !world
            .ras_role
            .get()
            .unwrap()
            .stands(&passavant_proto::secret::Secret::new(narrower.str("access_token")))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn the_page_is_shown_every_time_and_its_answer_counts_once() {
    let world = world().await;
    let mut browser = Browser::default();
    let url = world.outsider_url(&[]);
    let (at, page) = browser.go(&world, &url, "erin").await;
    let good = browser.answer(&world, &at, &page, "allow");
    let status = async |browser: &mut Browser, ask| browser.ask(&world, ask).await.status;
    // The answer has to come from our page, in the session it was shown to, unchanged.
    assert_eq!(status(&mut browser, good.clone().without("csrf")).await, 403, "no token");
    assert_eq!(status(&mut browser, good.clone().set("csrf", "x")).await, 403, "a wrong one");
    assert_eq!(status(&mut browser, good.clone().set("ticket", "1.x")).await, 403);
    let cross = good.clone().no_header("origin").header("origin", "https://evil.example");
    assert_eq!(status(&mut browser, cross).await, 403, "another site");
    let cross = good.clone().header("sec-fetch-site", "cross-site");
    assert_eq!(status(&mut browser, cross).await, 403, "another site");
    let mut other = Browser::default();
    let (_, other_page) = other.go(&world, &url, "max").await;
    assert_eq!(status(&mut other, good.clone()).await, 403, "another session");
    let theirs = other.answer(&world, &at, &other_page, "allow");
    assert_eq!(status(&mut browser, theirs).await, 403, "another session's token");
    for (name, value) in [
        ("scope", "read"),
        ("redirect_uri", "https://app.example/cb"),
        ("resource", world.boards.as_str()),
        ("client_id", AGENT_AT_RAS),
    ] {
        let mut changed = good.clone();
        changed.url = world.outsider_url(&[(name, value)]);
        assert_eq!(status(&mut browser, changed).await, 403, "{name}");
    }
    let first = browser.ask(&world, good.clone()).await;
    assert_eq!(first.status, 303);
    assert_eq!(status(&mut browser, good.clone()).await, 403, "replayed");
    // The person is asked again after an earlier consent.
    let (_, again) = browser.go(&world, &url, "erin").await;
    assert!(again.status == 200 && again.text.contains("name=\"ticket\""), "never skipped");
    let no = browser.answer(&world, &at, &again, "deny");
    let no = browser.ask(&world, no).await;
    assert_eq!(parameter(no.header("location"), "error"), "access_denied");
    assert_eq!(
        parameter(no.header("location"), "iss"),
        world.ras.as_str(),
        "a refusal names its issuer"
    );
    assert_eq!(world.last_event(&world.ras_store).await.details["reason"], "consent.denied");
    let (_, page) = browser.go(&world, &url, "erin").await;
    let late = browser.answer(&world, &at, &page, "allow");
    world.pass(601);
    assert_eq!(status(&mut browser, late).await, 403, "too late");
}

#[tokio::test]
async fn who_asks_for_a_new_sign_in_gets_one_and_does_not_go_in_circles() {
    let world = world().await;
    let mut browser = Browser::default();
    browser.code(&world, &world.outsider_url(&[]), "erin").await;
    world.pass(300);
    for (name, value, asks) in
        [("prompt", "login", true), ("max_age", "60", true), ("max_age", "3600", false)]
    {
        let url = world.outsider_url(&[(name, value)]);
        let sent = browser.clone().get(&world, &url).await;
        assert_eq!(sent.status == 303, asks, "{name}={value}: {}", sent.text);
        if asks {
            let to = sent.header("location").to_owned();
            assert_eq!(parameter(&to, name), value, "the issuer is told");
        }
        browser.code(&world, &url, "erin").await;
        world.pass(300);
    }
}

#[tokio::test]
async fn what_registered_itself_gets_no_redirect_before_a_person_was_asked() {
    let world = world().await;
    let unasked = passavant_proto::oauth::client::Client {
        id: "dyn-unasked".to_owned(),
        name: "Somebody".to_owned(),
        authentication: passavant_proto::oauth::client::ClientAuthentication::Public,
        redirect_uris: vec!["https://evil.example/cb".to_owned()],
        registered: Some(passavant_proto::oauth::client::SelfRegistered {
            at: world.now(),
            used: false,
        }),
        ..Default::default()
    };
    world.put(&world.ras_store, &unasked).await;
    let of = |name, value| {
        let client = [("client_id", "dyn-unasked"), ("redirect_uri", "https://evil.example/cb")];
        world.outsider_url(&[client[0], client[1], (name, value)])
    };
    for (name, value) in
        [("scope", "no-such-scope"), ("response_type", "token"), ("prompt", "none")]
    {
        let page = Browser::default().get(&world, &of(name, value)).await;
        assert_eq!(page.status, 400, "{name}={value}: {}", page.text);
        assert!(page.headers.get("location").is_none(), "{name}={value}: an open redirect");
    }
    let asked = Browser::default().get(&world, &of("state", "s")).await;
    assert_eq!(asked.status, 303, "to the issuer: {}", asked.text);
}

#[tokio::test]
async fn each_rule_of_the_authorization_endpoint_holds_here_too() {
    let world = world().await;
    let get = async |changes: &[(&str, &str)]| -> Reply {
        Browser::default().get(&world, &world.outsider_url(changes)).await
    };
    assert_eq!(get(&[]).await.status, 303, "the baseline");
    // A page, never a redirect (RFC 6749 section 4.1.2.1).
    for (case, name, value) in [
        ("an unknown client", "client_id", "nobody"),
        ("a client that is switched off", "client_id", "disabled"),
        ("no client", "client_id", ""),
        ("another path", "redirect_uri", "http://127.0.0.1/other"),
        ("another host", "redirect_uri", "http://127.0.0.1.evil/callback"),
        ("localhost.evil", "redirect_uri", "http://localhost.evil/callback"),
        ("https instead of http", "redirect_uri", "https://127.0.0.1/callback"),
        ("a script", "redirect_uri", "javascript:alert(1)"),
        ("a script in other letters", "redirect_uri", "JaVaScRiPt:alert(1)"),
        ("data", "redirect_uri", "data:text/html,x"),
        ("a document of a host that is not listed", "client_id", "https://evil.example/c"),
    ] {
        let reply = get(&[(name, value)]).await;
        assert_eq!((reply.status, reply.header("location")), (400, ""), "{case}");
    }
    assert_eq!(
        get(&[("redirect_uri", "http://127.0.0.1:4711/callback")]).await.status,
        303,
        "another port of the loopback"
    );
    let (long, boards) = ("x".repeat(10_000), format!("{}x", world.boards));
    for (case, changes, error) in [
        (
            "a token from the front channel",
            vec![("response_type", "token")],
            "unsupported_response_type",
        ),
        (
            "an ID token from the front channel",
            vec![("response_type", "code id_token")],
            "unsupported_response_type",
        ),
        ("no challenge", vec![("code_challenge", "")], "invalid_request"),
        ("a plain challenge", vec![("code_challenge_method", "plain")], "invalid_request"),
        ("no challenge method", vec![("code_challenge_method", "")], "invalid_request"),
        ("a malformed challenge", vec![("code_challenge", "short")], "invalid_request"),
        ("a state that is too long", vec![("state", long.as_str())], "invalid_request"),
        ("prompt=none without a session", vec![("prompt", "none")], "login_required"),
        ("an unknown resource", vec![("resource", boards.as_str())], "invalid_target"),
        ("no resource where there are several", vec![("resource", "")], "invalid_target"),
        (
            "a request_uri of somebody else's",
            vec![("request_uri", "https://evil.example/r")],
            "request_uri_not_supported",
        ),
        ("an unsigned request object", vec![("request", "e30.e30.")], "request_not_supported"),
        ("scope", vec![("scope", "admin")], "invalid_scope"),
        ("details", vec![("authorization_details", "[]")], "invalid_authorization_details"),
    ] {
        let reply = get(&changes).await;
        let location = reply.header("location");
        assert!(location.starts_with(CALLBACK), "{case}: {location}");
        assert_eq!(parameter(location, "error"), error, "{case}");
        assert_eq!(
            parameter(location, "iss"),
            world.ras.as_str(),
            "the answer names its issuer: {case}"
        );
    }
    let twice = format!("{}&scope=read", world.outsider_url(&[]));
    assert_eq!(Browser::default().get(&world, &twice).await.status, 400, "a parameter twice");
    let reply = Browser::default().get(&world, &world.outsider_url(&[])).await;
    assert_eq!(reply.header("access-control-allow-origin"), "", "no CORS");
    // prompt=none with a session: consent is required.
    let mut browser = Browser::default();
    browser.go(&world, &world.outsider_url(&[]), "erin").await;
    let silent = browser.get(&world, &world.outsider_url(&[("prompt", "none")])).await;
    assert_eq!(
        parameter(silent.header("location"), "error"),
        "consent_required",
        "prompt=none without consent"
    );
}

#[tokio::test]
async fn codes_buy_tokens_once_for_whom_and_what_they_were_given() {
    let world = world().await;
    let store = &world.ras_store;
    let url = world.outsider_url(&[]);
    let mut browser = Browser::default();
    let invalid = |reason| Expected(400, "invalid_grant", reason);
    let code = browser.code(&world, &url, "erin").await;
    let tokens = world.send(&world.redeem_code(&code)).await;
    assert_eq!(tokens.status, 200);
    world
        .refuses(store, "a code used twice", &world.redeem_code(&code), invalid("code.reuse"))
        .await;
    let dead = world.refresh_at_ras(tokens.str("refresh_token"));
    world.refuses(store, "tokens of the first use", &dead, invalid("refresh.invalid")).await;
    let secret = passavant_proto::secret::Secret::new(tokens.str("access_token"));
    assert!(
        !world.ras_role.get().unwrap().stands(&secret).await.unwrap(),
        "tokens of the first use"
    );
    // The reuse has also ended the browser's session.
    let mut browser = Browser::default();
    for (case, name, value, reason) in [
        ("no verifier", "code_verifier", "", "code.verifier"),
        (
            "another verifier",
            "code_verifier",
            "another-verifier-of-forty-three-characters-",
            "code.verifier",
        ),
        ("another redirect", "redirect_uri", "https://app.example/cb", "code.redirect_uri"),
        ("another resource", "resource", world.boards.as_str(), "grant.resource"),
    ] {
        let code = browser.code(&world, &url, "erin").await;
        let good = world.redeem_code(&code);
        let bad = if value.is_empty() {
            good.clone().without(name)
        } else {
            good.clone().set(name, value)
        };
        let error = match reason {
            "grant.resource" => "invalid_target",
            _ => "invalid_grant",
        };
        world.refuses(store, case, &bad, Expected(400, error, reason)).await;
        // A wrong guess uses nothing up.
        let right = world.send(&good).await;
        assert_eq!(right.status, 200, "{case}: {}", right.text);
        browser = Browser::default();
    }
    // Another client's code.
    let code = browser.code(&world, &url, "erin").await;
    let stolen =
        world.redeem_code(&code).without("client_id").basic(AGENT_AT_RAS, world.secret.expose());
    world.refuses(store, "another client", &stolen, invalid("code.invalid")).await;
    // A code of another server is not a code here.
    let mut browser = Browser::default();
    let (idp_code, verifier) = world.code("erin", passavant_tests::world::AGENT, "").await;
    let elsewhere = world.redeem_code(&idp_code).set("code_verifier", &verifier);
    world.refuses(store, "a code of the IdP", &elsewhere, invalid("code.invalid")).await;
    let code = browser.code(&world, &url, "erin").await;
    let refresh = world.send(&world.redeem_code(&code)).await.str("refresh_token").to_owned();
    world
        .refuses(
            store,
            "a refresh token as code",
            &world.redeem_code(&refresh),
            invalid("code.invalid"),
        )
        .await;
    // Twenty concurrent redemptions.
    let code = browser.code(&world, &url, "erin").await;
    let ask = world.redeem_code(&code);
    let all = futures::future::join_all((0..20).map(|_| world.send(&ask))).await;
    let won: Vec<_> = all.iter().filter(|reply| reply.status == 200).collect();
    // A code that is presented twice counts as stolen: the second request may revoke the first
    // one's tokens before they are returned.
    assert!(won.len() <= 1, "at most one succeeds");
    for tokens in won {
        let secret = passavant_proto::secret::Secret::new(tokens.str("access_token"));
        assert!(
            !world.ras_role.get().unwrap().stands(&secret).await.unwrap(),
            "tokens of a code that was used more than once"
        );
    }
    // A public client may use no other grant.
    let id_jag = world.id_jag(&world.id_jag_claims());
    let grant = world.redeem(&id_jag).no_header("authorization").set("client_id", DESKTOP);
    let public = Expected(400, "unauthorized_client", "client.public");
    world.refuses(store, "a public client with an ID-JAG", &grant, public).await;
}

#[tokio::test]
async fn what_is_switched_off_in_between_is_off() {
    let world = world().await;
    let store = &world.ras_store;
    let url = world.outsider_url(&[]);
    let event = || {
        AuditEvent::granted(
            passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
            world.now(),
        )
    };
    let mut browser = Browser::default();
    let tokens = async |browser: &mut Browser| {
        let code = browser.code(&world, &url, "erin").await;
        let tokens = world.send(&world.redeem_code(&code)).await;
        assert_eq!(tokens.status, 200, "{}", tokens.text);
        tokens
    };
    let held = tokens(&mut browser).await;
    let account = Parts::of(held.str("access_token")).claims["sub"].as_str().unwrap().to_owned();
    // The account is disabled.
    let code = browser.code(&world, &url, "erin").await;
    let off = |disabled| move |account: &mut Account| account.disabled = disabled;
    store.update::<Account>(&account, off(true), event()).await.unwrap();
    let gone = Expected(400, "invalid_grant", "code.invalid");
    world
        .refuses(
            store,
            "a code of an account that is switched off",
            &world.redeem_code(&code),
            gone,
        )
        .await;
    let renew = world.refresh_at_ras(held.str("refresh_token"));
    let dead = Expected(400, "invalid_grant", "refresh.invalid");
    world.refuses(store, "a refresh token of an account that is switched off", &renew, dead).await;
    let (_, page) = Browser::default().go(&world, &url, "erin").await;
    assert_eq!(page.status, 403, "no sign-in either");
    store.update::<Account>(&account, off(false), event()).await.unwrap();
    // The refusal did not revoke the family.
    assert_eq!(world.send(&renew).await.status, 200);
    // The client is disabled.
    let mut browser = Browser::default();
    let code = browser.code(&world, &url, "erin").await;
    let set = |disabled| {
        move |client: &mut passavant_proto::oauth::client::Client| client.disabled = disabled
    };
    store
        .update::<passavant_proto::oauth::client::Client>(DESKTOP, set(true), event())
        .await
        .unwrap();
    let unknown = Expected(401, "invalid_client", "client.unknown");
    world
        .refuses(
            store,
            "a code of a client that is switched off",
            &world.redeem_code(&code),
            unknown,
        )
        .await;
    store
        .update::<passavant_proto::oauth::client::Client>(DESKTOP, set(false), event())
        .await
        .unwrap();
    // From now on only cross-app access is allowed.
    let held = tokens(&mut browser).await;
    let access = passavant_proto::secret::Secret::new(held.str("access_token"));
    let code = browser.code(&world, &url, "erin").await;
    world.set_sign_in(&Value::Null).await;
    world.refuses(store, "switched off: code", &world.redeem_code(&code), gone).await;
    let renew = world.refresh_at_ras(held.str("refresh_token"));
    // The grant disappears from the server within a second; the request is refused before and after
    // that.
    let refused = world.send(&renew).await;
    assert_eq!(refused.status, 400, "switched off: refresh: {}", refused.text);
    assert!(
        !world.ras_role.get().unwrap().stands(&access).await.unwrap(),
        "what came this way ends with it"
    );
    assert!(["invalid_grant", "unsupported_grant_type"].contains(&refused.str("error")));
    assert!(refused.json.get("access_token").is_none());
    let page = browser.get(&world, &url).await;
    assert!(page.status == 400 && page.text.contains("There is no sign-in here"), "{}", page.text);
    // Every step is also refused if the issuer turns out to have many tenants.
    world.set_sign_in(&json!({"client_id": "ras-rp"})).await;
    let code = browser.code(&world, &url, "erin").await;
    let of = |tenant: Option<&str>| {
        let tenant = tenant.map(str::to_owned);
        move |trusted: &mut TrustedIssuer| trusted.tenant = tenant
    };
    store.update::<TrustedIssuer>(world.idp.as_str(), of(Some("acme")), event()).await.unwrap();
    assert_eq!(world.send(&world.redeem_code(&code)).await.status, 400, "many tenants: code");
    assert_eq!(world.send(&renew).await.status, 400, "many tenants: refresh");
    let page = browser.get(&world, &url).await;
    assert!(page.status == 400 && page.text.contains("There is no sign-in here"), "{}", page.text);
    store.update::<TrustedIssuer>(world.idp.as_str(), of(None), event()).await.unwrap();
    // Trust is withdrawn: issued tokens become invalid, too.
    let trusted = |disabled| move |trusted: &mut TrustedIssuer| trusted.disabled = disabled;
    assert!(world.ras_role.get().unwrap().stands(&access).await.unwrap());
    store.update::<TrustedIssuer>(world.idp.as_str(), trusted(true), event()).await.unwrap();
    assert!(!world.ras_role.get().unwrap().stands(&access).await.unwrap());
}

#[tokio::test]
async fn the_way_back_from_the_issuer_is_this_browsers_and_is_taken_once() {
    let world = world().await;
    let url = world.outsider_url(&[]);
    let mut browser = Browser::default();
    // Go to the IdP, sign in, and stop before the callback.
    let sent = browser.get(&world, &url).await;
    assert_eq!(sent.status, 303);
    let to = sent.header("location").to_owned();
    assert!(to.starts_with(world.idp.as_str()), "{to}");
    for (name, value) in
        [("response_type", "code"), ("code_challenge_method", "S256"), ("client_id", "ras-rp")]
    {
        assert_eq!(parameter(&to, name), value);
    }
    assert!(parameter(&to, "nonce").len() >= 22 && parameter(&to, "state").len() == 43);
    let (callback, _) = world.browse(&to, "erin", passavant_tests::world::PASSWORD).await;
    assert!(callback.starts_with(&world.ras.endpoint("/callback")));
    // Another browser, a changed state or issuer, a missing cookie.
    let with = |name: &str, value: &str| {
        let mut url = Url::parse(&callback).unwrap();
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(n, _)| n != name)
            .map(|(a, b)| (a.into(), b.into()))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs).append_pair(name, value);
        url.to_string()
    };
    assert_eq!(Browser::default().get(&world, &callback).await.status, 400, "another browser");
    let mut again = browser.clone();
    assert_eq!(again.get(&world, &with("state", "x")).await.status, 400);
    let mut again = browser.clone();
    let state = parameter(&callback, "state");
    let near = format!("{}{}", &state[..42], if state.ends_with('a') { 'b' } else { 'a' });
    assert_eq!(again.get(&world, &with("state", &near)).await.status, 400);
    // None of this used up the code.
    let done = browser.get(&world, &callback).await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert_eq!(done.header("location"), url, "on to the page that asks");
    assert_eq!(browser.get(&world, &callback).await.status, 400, "taken once");
    let mut mixing = Browser::default();
    let to = mixing.get(&world, &url).await.header("location").to_owned();
    let (callback, _) = world.browse(&to, "erin", passavant_tests::world::PASSWORD).await;
    let evil = callback.replace(
        &format!(
            "iss={}",
            form_urlencoded::byte_serialize(world.idp.as_str().as_bytes()).collect::<String>()
        ),
        "iss=https%3A%2F%2Fevil.example",
    );
    assert_ne!(evil, callback);
    let mixed = mixing.get(&world, &evil).await;
    assert_eq!(mixed.status, 400, "RFC 9207");
    assert!(!mixed.text.contains("evil.example"), "what a stranger wrote is not shown");
    let refused = Browser::default()
        .get(
            &world,
            &format!(
                "{}?error=access_denied&error_description=<b>&state=x",
                world.ras.endpoint("/callback")
            ),
        )
        .await;
    assert!(refused.status == 400 && !refused.text.contains("<b>"));
    // A sign-in that takes too long.
    let mut slow = Browser::default();
    let sent = slow.get(&world, &url).await;
    let (callback, _) =
        world.browse(sent.header("location"), "erin", passavant_tests::world::PASSWORD).await;
    world.pass(700);
    assert_eq!(slow.get(&world, &callback).await.status, 400);
    // The target is only in the signed cookie.
    assert_eq!(VERIFIER.len(), 44);
}

#[tokio::test]
async fn people_find_their_company_by_their_address() {
    let world = world().await;
    world.set_sign_in(&json!({"client_id": "ras-rp", "domains": ["acme.example"]})).await;
    let url = world.outsider_url(&[]);
    let mut browser = Browser::default();
    let page = browser.get(&world, &url).await;
    assert!(page.status == 200 && page.text.contains("type=\"email\""), "{}", page.text);
    let post = |email: &str| passavant_tests::world::Ask {
        url: url.clone(),
        form: vec![("email".to_owned(), email.to_owned())],
        headers: vec![("origin".to_owned(), world.ras.origin().to_owned())],
        method: Method::POST,
    };
    let unknown = browser.ask(&world, post("erin@other.example")).await;
    assert_eq!((unknown.status, unknown.header("location")), (404, ""), "nobody is sent");
    for not in ["erin@acme.example.evil", "erin@sub.acme.example", "acme.example"] {
        assert_ne!(browser.ask(&world, post(not)).await.status, 303, "{not}");
    }
    let known = browser.ask(&world, post("erin@ACME.example")).await;
    assert_eq!(known.status, 303);
    assert!(known.header("location").starts_with(world.idp.as_str()));
    assert_eq!(parameter(known.header("location"), "login_hint"), "erin@ACME.example");
    // A hint that the client sends works, too.
    let hinted = world.outsider_url(&[("login_hint", "erin@acme.example")]);
    assert_eq!(Browser::default().get(&world, &hinted).await.status, 303);
}

#[tokio::test]
async fn tokens_of_this_path_are_revoked_and_told_of_like_others() {
    let world = world().await;
    let mut browser = Browser::default();
    let code = browser.code(&world, &world.outsider_url(&[]), "erin").await;
    let tokens = world.send(&world.redeem_code(&code)).await;
    let public = |path: &str, token: &str| {
        let form = [("token", token), ("client_id", DESKTOP)];
        world.ask(&world.ras, path, &form).no_header("authorization")
    };
    // A client that is not authenticated learns nothing.
    let told = world.send(&public("/introspect", tokens.str("access_token"))).await;
    assert_eq!((told.status, told.str("error")), (401, "invalid_client"));
    // Another client revokes nothing (RFC 7009 section 2.1).
    let other = world.ask(&world.ras, "/revoke", &[("token", tokens.str("refresh_token"))]);
    assert_eq!(world.send(&other).await.status, 200);
    let renewed = world.send(&world.refresh_at_ras(tokens.str("refresh_token"))).await;
    assert_eq!(renewed.status, 200);
    let before = world.ras_store.ended_tokens(None, None, world.now()).await.unwrap().position;
    let revoked = world.send(&public("/revoke", renewed.str("refresh_token"))).await;
    assert_eq!(revoked.status, 200);
    // The guards are told of the tokens of the whole family.
    let told = world.ras_store.ended_tokens(Some(before), None, world.now()).await.unwrap();
    let mut told = told.ended.tokens;
    let jti = |token: &str| Parts::of(token).claims["jti"].as_str().unwrap().to_owned();
    let mut all = [&tokens, &renewed].map(|tokens| jti(tokens.str("access_token"))).to_vec();
    told.sort();
    all.sort();
    assert_eq!(told, all);
    let dead = Expected(400, "invalid_grant", "refresh.invalid");
    let renew = world.refresh_at_ras(renewed.str("refresh_token"));
    world.refuses(&world.ras_store, "revoked", &renew, dead).await;
    let access = passavant_proto::secret::Secret::new(renewed.str("access_token"));
    assert!(!world.ras_role.get().unwrap().stands(&access).await.unwrap(), "the family is dead");
    // Idle too long.
    let code = browser.code(&world, &world.outsider_url(&[]), "erin").await;
    let tokens = world.send(&world.redeem_code(&code)).await;
    world.pass(8 * 3600 + 1);
    let renew = world.refresh_at_ras(tokens.str("refresh_token"));
    world.refuses(&world.ras_store, "a refresh token that was idle too long", &renew, dead).await;
}

#[tokio::test]
async fn sign_ins_that_others_begin_do_not_fill_a_browser_with_cookies() {
    let world = world().await;
    let long = "s".repeat(900);
    let url = world.outsider_url(&[("state", &long)]);
    let mut browser = Browser::default();
    let mut last = String::new();
    for _ in 0..20 {
        world.pass(1);
        let sent = browser.get(&world, &url).await;
        assert_eq!(sent.status, 303, "{}", sent.text);
        last = sent.header("location").to_owned();
        let flows = browser.cookies().matches("flow-").count();
        assert!(flows <= 4, "{flows} sign-ins are under way");
        assert!(browser.cookies().len() < 16 * 1024, "{} bytes", browser.cookies().len());
    }
    // The sign-in that was started last can be completed.
    let (_, page) = browser.go(&world, &last, "erin").await;
    assert!(page.status == 200 && page.text.contains("name=\"ticket\""), "{}", page.text);
}
