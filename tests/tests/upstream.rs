//! People who sign in at the company's own identity provider, in front of which ours stands.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use passavant_admin::{
    client::ClientError,
    types::{
        AuthorizationServers, Connections, Groups, NewGroup, NewPersonLink, PersonLinkQuery,
        Upstreams, Users,
    },
};
use passavant_proto::{jose::jwk::Algorithm, secret::sha256};
use passavant_store::AuditFilter;
use passavant_tests::{
    forge::{Key, Parts},
    outsider::Browser,
    upstream::FakeUpstream,
    world::{AGENT, Ask, CALLBACK, PASSWORD, Reply, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_TENANT: &str = "99999999-8888-7777-6666-555555555555";

fn conflict<T: std::fmt::Debug>(answer: Result<T, ClientError>, says: &str) {
    let Err(ClientError::Refused(problem)) = answer else { panic!("{answer:?}") };
    assert!(problem.status == 409 || problem.status == 400, "{problem:?}");
    assert!(problem.detail.contains(says), "{problem:?}");
}

fn id_token(tokens: &Value) -> Value {
    Parts::of(tokens["id_token"].as_str().unwrap()).claims
}

async fn user_of(world: &World, tokens: &Value) -> passavant_admin::types::UserView {
    let id = id_token(tokens)["sub"].as_str().unwrap().to_owned();
    world.idp_admin().show::<Users>(&id).await.unwrap()
}

/// Reasons of refused rows, newest first.
async fn reasons(world: &World) -> Vec<String> {
    let filter = AuditFilter { limit: 20, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    rows.into_iter().filter_map(|row| row.details.get("reason").cloned()).collect()
}

async fn exchange(world: &World, tokens: &Value) -> Reply {
    world.send(&world.exchange(tokens["id_token"].as_str().unwrap())).await
}

async fn renew(world: &World, tokens: &Value) -> Reply {
    let token = tokens["refresh_token"].as_str().unwrap();
    let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
    world.send(&world.ask(&world.idp, "/token", &form)).await
}

/// A world with an upstream whose group `Eng` means `engineering`.
async fn company(more: Value) -> (World, FakeUpstream) {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    let mut said = json!({"domains": ["acme.example"], "groups": {"Eng": "engineering"},
        "acr_values": {"there:strong": "strong"}});
    for (member, value) in more.as_object().unwrap() {
        said[member] = value.clone();
    }
    world.add_upstream("corp", &fake, said).await;
    (world, fake)
}

#[tokio::test]
async fn people_sign_in_at_the_companys_own_provider_and_reach_what_policy_allows() {
    let (world, fake) = company(json!({})).await;
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let claims = id_token(&tokens);
    assert_eq!(claims["acr"], "strong");
    assert_eq!(claims["amr"], json!(["hwk", "user"]));
    assert_eq!(claims["auth_time"], world.now().0);
    let user = user_of(&world, &tokens).await;
    assert_eq!(user.username, "erin.upstream");
    assert_eq!(user.email.as_deref(), Some("erin@acme.example"));
    // Only what is mapped: a group of theirs that is called `admins` means nothing.
    let groups: Vec<&str> = user.groups.iter().map(String::as_str).collect();
    assert_eq!(groups, ["engineering"]);
    let reply = exchange(&world, &tokens).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // We proved ourselves by a key of ours, and asked by PKCE and nonce.
    {
        let said = fake.said();
        let (asked, authorized) = (&said.asked[0], &said.authorized[0]);
        let assertion = Parts::of(&asked["client_assertion"]);
        assert_eq!(assertion.claims["aud"], fake.issuer.as_str());
        assert_eq!(assertion.claims["iss"], "passavant-there");
        assert_eq!(assertion.header["kid"], world.idp_key.kid());
        assert_eq!(authorized["redirect_uri"], world.idp.endpoint("/callback/corp"));
        assert_eq!(authorized["code_challenge"], {
            let hash = URL_SAFE_NO_PAD.decode(sha256(asked["code_verifier"].as_bytes())).unwrap();
            URL_SAFE_NO_PAD.encode(hash)
        });
        assert_eq!(authorized["code_challenge_method"], "S256");
        assert!(authorized["scope"].contains("offline_access"), "it is offered");
    }
    // The same person comes again: nobody is added, and what changed there changes here.
    fake.claim("name", json!("Erin Changed"));
    fake.claim("preferred_username", json!("renamed"));
    let again = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let same = user_of(&world, &again).await;
    assert_eq!((same.id, same.username.as_str()), (user.id, "erin.upstream"));
    assert_eq!(same.display_name.as_deref(), Some("Erin Changed"));
    // Who leaves the group there leaves it here, and reaches nothing more.
    fake.claim("groups", json!(["other"]));
    let less = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(user_of(&world, &less).await.groups.is_empty());
    assert_eq!(exchange(&world, &less).await.str("error"), "access_denied");
    // What an upstream changes of somebody is on record.
    let filter = AuditFilter { limit: 20, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    let rows = rows.iter().filter(|row| row.event == "person.changed");
    let what: Vec<&str> = rows.map(|row| row.details["detail"].as_str()).collect();
    assert_eq!(what, ["out of engineering", "display_name"]);
    fake.claim("groups", Value::Null);
    world.idp_admin();
    let none = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(user_of(&world, &none).await.groups.is_empty(), "no claim: no groups");
}

#[tokio::test]
async fn nobody_is_linked_by_an_address_or_a_name() {
    let (world, fake) = company(json!({})).await;
    let first = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    // Another upstream tells the same address and the same name.
    let other = FakeUpstream::start(&world, "").await;
    world.add_upstream("partner", &other, json!({"domains": ["partner.example"]})).await;
    let reply = world.through(&mut Browser::default(), "partner", "").await.unwrap_err();
    assert_eq!(reply.status, 403, "{}", reply.text);
    assert_eq!(reasons(&world).await[0], "sign_in.name_taken");
    // Under another name they are somebody else, whatever their address.
    other.claim("preferred_username", json!("someone"));
    let second = world.through(&mut Browser::default(), "partner", "").await.unwrap();
    assert_ne!(id_token(&first)["sub"], id_token(&second)["sub"]);
    let user = user_of(&world, &second).await;
    assert!(!user.email_verified, "the address is not in the domains of that upstream");
    assert!(user_of(&world, &first).await.email_verified);
    // The name of a user who signs in with a password is taken, too.
    other.claim("sub", json!("third"));
    other.claim("preferred_username", json!("ERIN"));
    world.through(&mut Browser::default(), "partner", "").await.unwrap_err();
    assert_eq!(reasons(&world).await[0], "sign_in.name_taken");
    // An address that is not verified counts for nothing.
    fake.claim("email_verified", json!("true"));
    let again = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(!user_of(&world, &again).await.email_verified);
}

#[tokio::test]
async fn an_administrator_links_people_where_nobody_is_added() {
    let (world, fake) = company(json!({"just_in_time": false})).await;
    let idp = world.idp_admin();
    let mut browser = Browser::default();
    let page = world.through(&mut browser, "corp", "").await.unwrap_err();
    assert_eq!(page.status, 403);
    assert_eq!(reasons(&world).await[0], "sign_in.unknown_person");
    let link = |user: &str| NewPersonLink {
        user: user.to_owned(),
        subject: "erin-there".to_owned(),
        tenant: None,
    };
    idp.link_person("corp", &link("erin")).await.unwrap();
    conflict(idp.link_person("corp", &link("max")).await, "linked to a user already");
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(id_token(&tokens)["sub"], "erin-id");
    let links = idp.person_links("corp").await.unwrap().items;
    assert_eq!((links.len(), links[0].username.as_str()), (1, "erin"));
    // Unlinked: what came that way ends, and nobody comes in.
    let gone = PersonLinkQuery { subject: "erin-there".to_owned(), tenant: None };
    idp.unlink_person("corp", &gone).await.unwrap();
    assert_eq!(exchange(&world, &tokens).await.str("error"), "invalid_grant");
    assert_eq!(renew(&world, &tokens).await.str("error"), "invalid_grant");
    world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    // A user who is deleted leaves no link to whoever comes after them.
    idp.link_person("corp", &link("max")).await.unwrap();
    idp.delete::<Users>("max-id").await.unwrap();
    assert!(idp.person_links("corp").await.unwrap().items.is_empty());
    // Nor does one who is switched off come in by way of it.
    idp.link_person("corp", &link("erin")).await.unwrap();
    idp.switch::<Users>("erin", false).await.unwrap();
    world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    assert_eq!(reasons(&world).await[0], "sign_in.disabled");
    let _ = fake;
}

#[tokio::test]
async fn a_response_is_taken_from_the_upstream_that_the_browser_was_sent_to_alone() {
    let (world, fake) = company(json!({})).await;
    let other = FakeUpstream::start(&world, "").await;
    world.add_upstream("other", &other, json!({})).await;
    // The callback of one with the answer of the other.
    let mut browser = Browser::default();
    let (url, _) = world.authorize_url(AGENT, "&upstream=corp");
    let sent = browser.get(&world, &url).await;
    let back = browser.get(&world, sent.header("location")).await;
    let swapped = back.header("location").replace("/callback/corp", "/callback/other");
    let reply = browser.get(&world, &swapped).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reasons(&world).await[0], "sign_in.mixed_up");
    assert_eq!(other.said().asked.len(), 0, "no code was given to the other one");
    // Used up: the right callback is too late.
    assert_eq!(browser.get(&world, back.header("location")).await.status, 400);
    // Another browser has no part in it; nor is a response taken twice.
    let mut browser = Browser::default();
    let sent = browser.get(&world, &url).await;
    let back = browser.get(&world, sent.header("location")).await;
    let callback = back.header("location").to_owned();
    assert_eq!(Browser::default().get(&world, &callback).await.status, 400);
    assert_eq!(browser.get(&world, &callback).await.status, 303);
    assert_eq!(browser.get(&world, &callback).await.status, 400);
    // `iss` of the other one (RFC 9207), or none although one is promised.
    fake.said().iss = Some(other.issuer.clone());
    for error in [None, Some("access_denied".to_owned())] {
        fake.said().error = error;
        world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        assert_eq!(reasons(&world).await[0], "sign_in.upstream_invalid");
    }
    fake.said().error = None;
    fake.said().iss = Some(fake.issuer.clone());
    world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let promising = FakeUpstream::start(&world, "").await;
    promising.said().metadata = json!({"authorization_response_iss_parameter_supported": true});
    promising.claim("preferred_username", json!("promised"));
    world.add_upstream("promising", &promising, json!({})).await;
    world.through(&mut Browser::default(), "promising", "").await.unwrap_err();
    promising.said().iss = Some(promising.issuer.clone());
    world.through(&mut Browser::default(), "promising", "").await.unwrap();
}

#[tokio::test]
async fn an_id_token_that_does_not_verify_lets_nobody_in() {
    let (world, fake) = company(json!({})).await;
    let now = world.now().0;
    let wrong: &[(&str, Value)] = &[
        ("iss", json!("https://evil.example")),
        ("aud", json!("somebody")),
        ("aud", json!(["passavant-there", "somebody"])),
        ("azp", json!("somebody")),
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("exp", json!(now - 60)),
        ("exp", json!(now + 30 * 86_400)),
        ("iat", json!(now + 600)),
        ("nbf", json!(now + 600)),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("x".repeat(300))),
        ("sub", json!("line\nbreak")),
        ("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")),
        ("groups", json!({"a": 1})),
        ("groups", json!([1])),
    ];
    let plain = fake.said().claims.clone();
    for (name, value) in wrong {
        // What the fixture sets by itself is taken away by replacing it.
        if value.is_null() && *name == "nonce" {
            fake.claim("nonce", json!(""));
        } else {
            fake.claim(name, value.clone());
        }
        let reply = world.through(&mut Browser::default(), "corp", "").await;
        let reply = reply.expect_err(&format!("{name}: {value}"));
        assert!((400..500).contains(&reply.status), "{name}: {value}: {}", reply.text);
        fake.said().claims = plain.clone();
    }
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "RS256"}),
        json!({"typ": "at+jwt"}),
        json!({"crit": ["x"]}),
    ] {
        fake.said().header = header.clone();
        let reply = world.through(&mut Browser::default(), "corp", "").await;
        reply.expect_err(&header.to_string());
    }
    fake.said().header = json!({});
    fake.said().forged = Some(Key::new());
    world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    fake.said().forged = None;
    // Keys that nobody knows do not make us fetch theirs again and again.
    let before = fake.said().key_fetches;
    for n in 0..30 {
        fake.said().header = json!({"kid": format!("unknown-{n}")});
        world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    }
    assert!(fake.said().key_fetches - before <= 1, "{}", fake.said().key_fetches - before);
    fake.said().header = json!({});
    world.through(&mut Browser::default(), "corp", "").await.unwrap();
}

#[tokio::test]
async fn people_of_entra_are_known_by_tenant_and_object() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, &format!("/{TENANT}/v2.0")).await;
    let idp = world.idp_admin();
    let entra = json!({"preset": "entra", "proof": {"method": "certificate"},
        "groups": {"Eng": "engineering"}, "acr_values": {"c1": "phr"}});
    world.add_upstream("entra", &fake, entra).await;
    for (name, value) in [
        ("tid", json!(TENANT)),
        ("oid", json!("object-1")),
        ("sub", json!("pairwise-1")),
        ("acr", Value::Null),
        ("acrs", json!(["p1", "c1"])),
        ("email_verified", Value::Null),
    ] {
        fake.claim(name, value);
    }
    let tokens = world.through(&mut Browser::default(), "entra", "").await.unwrap();
    assert_eq!(id_token(&tokens)["acr"], "phr");
    // By certificate, with PS256, for the token endpoint.
    let assertion = fake.said().asked[0]["client_assertion"].clone();
    let assertion = Parts::of(&assertion);
    assert_eq!(assertion.header["alg"], "PS256");
    assert_eq!(assertion.header["x5t#S256"], sha256(b"certificate of entra"));
    assert!(assertion.claims["aud"].as_str().unwrap().ends_with("/token"));
    // Another client id there: `sub` is another one, the person is the same.
    fake.claim("sub", json!("pairwise-2"));
    let again = world.through(&mut Browser::default(), "entra", "").await.unwrap();
    assert_eq!(id_token(&again)["sub"], id_token(&tokens)["sub"]);
    // An address is whatever their administrator wrote, unless the domain is proved.
    assert!(!user_of(&world, &again).await.email_verified);
    // A token of another tenant than its issuer's.
    fake.claim("tid", json!(OTHER_TENANT));
    let page = world.through(&mut Browser::default(), "entra", "").await.unwrap_err();
    assert_eq!(page.status, 403);
    assert_eq!(reasons(&world).await[0], "sign_in.tenant");
    fake.claim("tid", json!(TENANT));
    fake.claim("oid", Value::Null);
    world.through(&mut Browser::default(), "entra", "").await.unwrap_err();
    assert_eq!(reasons(&world).await[0], "sign_in.claim");
    fake.claim("oid", json!("object-1"));
    // Too many groups to be told: an error that says so, never no groups.
    fake.claim("groups", Value::Null);
    fake.claim("_claim_names", json!({"groups": "src1"}));
    let page = world.through(&mut Browser::default(), "entra", "").await.unwrap_err();
    assert!(page.text.contains("more groups"), "{}", page.text);
    assert_eq!(reasons(&world).await[0], "sign_in.group_overage");
    fake.claim("_claim_names", Value::Null);
    fake.claim("hasgroups", json!(true));
    world.through(&mut Browser::default(), "entra", "").await.unwrap_err();
    fake.claim("hasgroups", Value::Null);
    // Left out for another reason: unknown, not none.
    let kept = world.through(&mut Browser::default(), "entra", "").await.unwrap();
    assert_eq!(user_of(&world, &kept).await.groups.len(), 1);
    // A stronger sign-in is asked for by authentication context, and a new one without `max_age`.
    world.through(&mut Browser::default(), "entra", "&acr_values=phr&max_age=0").await.unwrap();
    let asked = fake.said().authorized.last().unwrap().clone();
    let claims: Value = serde_json::from_str(&asked["claims"]).unwrap();
    assert_eq!(claims["id_token"]["acrs"], json!({"essential": true, "value": "c1"}));
    assert_eq!(asked["prompt"], "login");
    assert!(!asked.contains_key("max_age") && !asked.contains_key("acr_values"));
    // The certificate to upload is shown, its key never.
    let shown = idp.show::<Upstreams>("entra").await.unwrap();
    assert!(shown.certificate.as_deref().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
    let text = serde_json::to_string(&shown).unwrap();
    assert!(!text.contains("sealed") && !text.contains("PRIVATE"), "{text}");
}

#[tokio::test]
async fn an_issuer_of_every_tenant_lets_in_those_that_are_listed() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "/organizations/v2.0").await;
    let idp = world.idp_admin();
    let base = fake.issuer.trim_end_matches("/organizations/v2.0").to_owned();
    let new = |tenants: Value, preset: &str| {
        serde_json::from_value(json!({"name": "entra", "preset": preset, "issuer": fake.issuer,
            "client_id": fake.client_id, "id_token_signing_alg": "ES256", "just_in_time": true,
            "tenants": tenants}))
        .unwrap()
    };
    conflict(idp.add::<Upstreams>(&new(json!([]), "entra")).await, "every tenant");
    conflict(idp.add::<Upstreams>(&new(json!(["acme"]), "entra")).await, "not a tenant id");
    conflict(idp.add::<Upstreams>(&new(json!([TENANT]), "generic")).await, "Entra alone");
    idp.add::<Upstreams>(&new(json!([TENANT]), "entra")).await.unwrap();
    let say = |tenant: &str, issuer: &str| {
        fake.claim("tid", json!(tenant));
        fake.claim("iss", json!(issuer));
        fake.claim("oid", json!("object-1"));
    };
    say(TENANT, &format!("{base}/{TENANT}/v2.0"));
    let tokens = world.through(&mut Browser::default(), "entra", "").await.unwrap();
    for (tenant, issuer) in [
        // Not listed.
        (OTHER_TENANT, format!("{base}/{OTHER_TENANT}/v2.0")),
        // The token says one, its issuer another; or the template itself.
        (TENANT, format!("{base}/{OTHER_TENANT}/v2.0")),
        (OTHER_TENANT, format!("{base}/{TENANT}/v2.0")),
        (TENANT, fake.issuer.clone()),
        (TENANT, format!("{base}/{{tenantid}}/v2.0")),
        ("", format!("{base}/{TENANT}/v2.0")),
    ] {
        say(tenant, &issuer);
        let reply = world.through(&mut Browser::default(), "entra", "").await;
        reply.expect_err(&format!("{tenant} {issuer}"));
    }
    // Linked by an administrator, in one of its tenants alone.
    let link = |tenant: Option<&str>| NewPersonLink {
        user: "erin".to_owned(),
        subject: "object-9".to_owned(),
        tenant: tenant.map(str::to_owned),
    };
    conflict(idp.link_person("entra", &link(None)).await, "`tenant`");
    conflict(idp.link_person("entra", &link(Some(OTHER_TENANT))).await, "`tenant`");
    idp.link_person("entra", &link(Some(TENANT))).await.unwrap();
    say(TENANT, &format!("{base}/{TENANT}/v2.0"));
    fake.claim("oid", json!("object-9"));
    let linked = world.through(&mut Browser::default(), "entra", "").await.unwrap();
    assert_eq!(id_token(&linked)["sub"], "erin-id");
    assert_ne!(id_token(&tokens)["sub"], "erin-id");
    // A tenant more ends nothing; one that is let in no more takes along what came from it, and its
    // links can be taken away.
    let change = async |tenants: Value| {
        let change = serde_json::from_value(json!({ "tenants": tenants })).unwrap();
        idp.change::<Upstreams>("entra", &change, None).await.unwrap();
    };
    change(json!([OTHER_TENANT, TENANT])).await;
    assert_eq!(renew(&world, &linked).await.status, 200);
    change(json!([OTHER_TENANT])).await;
    assert_eq!(exchange(&world, &linked).await.str("error"), "invalid_grant");
    assert_eq!(renew(&world, &tokens).await.str("error"), "invalid_grant");
    let gone = PersonLinkQuery { subject: "object-9".to_owned(), tenant: Some(TENANT.to_owned()) };
    idp.unlink_person("entra", &gone).await.unwrap();
}

#[tokio::test]
async fn accounts_of_google_are_those_of_the_company_alone() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    let idp = world.idp_admin();
    let new = |more: Value| {
        let mut new = json!({"name": "google", "preset": "google", "issuer": fake.issuer,
            "client_id": fake.client_id, "id_token_signing_alg": "ES256", "just_in_time": true,
            "hosted_domains": ["acme.example"], "domains": ["acme.example"]});
        for (name, value) in more.as_object().unwrap() {
            new[name] = value.clone();
        }
        serde_json::from_value(new).unwrap()
    };
    let everybody = new(json!({"hosted_domains": []}));
    conflict(idp.add::<Upstreams>(&everybody).await, "everybody with a Google account");
    let groups = new(json!({"groups": {"a": "engineering"}}));
    conflict(idp.add::<Upstreams>(&groups).await, "no groups");
    idp.add::<Upstreams>(&new(json!({}))).await.unwrap();
    // The parameter is a hint; the claim decides.
    for hd in [Value::Null, json!("gmail.com"), json!(7), json!("acme.example.evil")] {
        fake.claim("hd", hd.clone());
        let page = world.through(&mut Browser::default(), "google", "").await.unwrap_err();
        assert_eq!(page.status, 403, "{hd}");
        assert_eq!(reasons(&world).await[0], "sign_in.hosted_domain", "{hd}");
    }
    fake.claim("hd", json!("acme.example"));
    // It writes its issuer without the scheme, too.
    fake.claim("iss", json!(fake.issuer.trim_start_matches("http://")));
    let tokens = world.through(&mut Browser::default(), "google", "").await.unwrap();
    assert_eq!(user_of(&world, &tokens).await.username, "erin@acme.example");
    fake.claim("iss", Value::Null);
    let asked = fake.said().authorized.last().unwrap().clone();
    assert_eq!((asked["access_type"].as_str(), asked["hd"].as_str()), ("offline", "acme.example"));
    assert!(!asked["scope"].contains("offline_access"), "it is a parameter there");
    fake.said().claims["iss"] = json!(fake.issuer);
    let again = world.through(&mut Browser::default(), "google", "").await.unwrap();
    assert_eq!(id_token(&again)["sub"], id_token(&tokens)["sub"], "one person by either spelling");
}

#[tokio::test]
async fn a_class_is_what_the_upstream_said_and_a_new_sign_in_is_checked() {
    let (world, fake) = company(json!({"acr_values": {"gold": "phr"}})).await;
    let mut browser = Browser::default();
    let plain = world.through(&mut browser, "corp", "").await.unwrap();
    assert!(id_token(&plain).get("acr").is_none(), "a class that is not mapped means nothing");
    // A stronger one is asked for, by its name there, although the browser is signed in.
    fake.claim("acr", json!("gold"));
    let (url, _) = world.authorize_url(AGENT, "&acr_values=phr");
    let page = browser.get(&world, &url).await;
    assert_eq!(page.status, 200, "the ways to sign in");
    let strong = world.through(&mut browser, "corp", "&acr_values=phr").await.unwrap();
    assert_eq!(id_token(&strong)["acr"], "phr");
    assert_eq!(fake.said().authorized.last().unwrap()["acr_values"], "gold");
    // That session serves the next request at once.
    let before = fake.said().authorized.len();
    let (at, _) = world.follow(&mut browser, &url).await;
    assert!(at.starts_with(CALLBACK) && at.contains("code="), "{at}");
    assert_eq!(fake.said().authorized.len(), before);
    // A class that was asked for as essential, and is not what came back: whoever stripped the
    // parameter in the browser gains nothing.
    fake.claim("acr", json!("bronze"));
    let claims = json!({"id_token": {"acr": {"essential": true, "value": "phr"}}}).to_string();
    let essential = format!(
        "&claims={}",
        form_urlencoded::byte_serialize(claims.as_bytes()).collect::<String>()
    );
    let page = world.through(&mut Browser::default(), "corp", &essential).await.unwrap_err();
    assert!(page.text.contains("unmet_authentication_requirements"), "{}", page.text);
    // Nobody upstream claims a class of ours.
    fake.claim("acr", json!("urn:passavant:acr:password"));
    let own = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(id_token(&own).get("acr").is_none(), "{}", id_token(&own));
    // A new sign-in: asked for, and checked when the browser returns.
    fake.claim("auth_time", json!(world.now().0 - 3600));
    let page = world.through(&mut Browser::default(), "corp", "&max_age=60").await.unwrap_err();
    assert_eq!(fake.said().authorized.last().unwrap()["max_age"], "60");
    assert_eq!((page.status, reasons(&world).await[0].as_str()), (400, "sign_in.stale"));
    world.through(&mut Browser::default(), "corp", "&prompt=login").await.unwrap_err();
    assert!(fake.said().authorized.last().unwrap()["prompt"].starts_with("login"));
    // A time that has not been yet says nothing; nor does one that is no time.
    for time in [json!(world.now().0 + 86_400), json!(i64::MAX), json!(-5), json!(0)] {
        fake.claim("auth_time", time.clone());
        let page = world.through(&mut Browser::default(), "corp", "&max_age=60").await;
        page.expect_err(&time.to_string());
        if let Ok(untold) = world.through(&mut Browser::default(), "corp", "").await {
            assert!(id_token(&untold).get("auth_time").is_none(), "{time}: {}", id_token(&untold));
        }
    }
    fake.claim("auth_time", Value::Null);
    world.through(&mut Browser::default(), "corp", "&max_age=60").await.unwrap_err();
    // Without that wish it is let in, and the ID token says nothing that nobody said.
    let untold = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(id_token(&untold).get("auth_time").is_none(), "{}", id_token(&untold));
    assert_eq!(exchange(&world, &untold).await.status, 200);
    fake.claim("auth_time", json!(world.now().0));
    world.through(&mut Browser::default(), "corp", "&prompt=login").await.unwrap();
    // A class that is merely wished for, and that no upstream is said to reach, costs no page.
    let mut signed_in = Browser::default();
    world.through(&mut signed_in, "corp", "").await.unwrap();
    let (url, _) = world.authorize_url(AGENT, "&acr_values=unheard-of");
    let (at, _) = world.follow(&mut signed_in, &url).await;
    assert!(at.contains("code="), "{at}");
    // An end of the session that the upstream tells is the end here.
    for wrong in [json!(world.now().0 - 1), json!("soon"), json!([1]), json!(true)] {
        fake.claim("session_expiry", wrong.clone());
        let page = world.through(&mut Browser::default(), "corp", "").await;
        page.expect_err(&wrong.to_string());
    }
    fake.claim("session_expiry", json!(world.now().0 + 100));
    let mut browser = Browser::default();
    world.through(&mut browser, "corp", "").await.unwrap();
    let (url, _) = world.authorize_url(AGENT, "&prompt=none");
    let (at, _) = world.follow(&mut browser, &url).await;
    assert!(at.contains("code="), "{at}");
    world.pass(101);
    let (at, _) = world.follow(&mut browser, &url).await;
    assert!(at.contains("login_required"), "{at}");
}

#[tokio::test]
async fn whoever_is_gone_upstream_gets_nothing_more() {
    let (world, fake) = company(json!({})).await;
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    assert_eq!(fake.refreshed(), 0, "they were there a moment ago");
    world.pass(301);
    // Many at once: one asks, and the upstream's next refresh token is not lost.
    fake.said().slow = Duration::from_millis(300);
    let ask = world.exchange(tokens["id_token"].as_str().unwrap());
    let many = futures::future::join_all((0..50).map(|_| world.send(&ask))).await;
    assert!(many.iter().all(|reply| reply.status == 200), "{:?}", many[0].text);
    assert_eq!(fake.refreshed(), 1);
    fake.said().slow = Duration::ZERO;
    // The next refresh token is the one that is used.
    world.pass(301);
    let tokens = renew(&world, &tokens).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let tokens = tokens.json;
    assert_eq!(fake.refreshed(), 2);
    // A group that they left there ends here at the next check; what is not told stays.
    fake.claim("groups", json!([]));
    world.pass(301);
    let reply = exchange(&world, &tokens).await;
    assert_eq!(reply.str("error"), "access_denied", "{}", reply.text);
    fake.claim("groups", json!(["Eng"]));
    world.pass(301);
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    fake.claim("groups", Value::Null);
    world.pass(301);
    let tokens = renew(&world, &tokens).await.json;
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    // Switched off there: the session and everything of it has ended, and the trail says why.
    fake.said().refresh = Some((400, json!({"error": "invalid_grant"})));
    world.pass(301);
    let reply = exchange(&world, &tokens).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_grant"), "{}", reply.text);
    let filter = AuditFilter { limit: 3, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    let row = rows.iter().find(|row| row.event == "upstream_check").expect("it is on record");
    assert_eq!(row.details["reason"], "upstream_check.ended");
    assert_eq!(row.details["issuer"], fake.issuer);
    fake.said().refresh = None;
    assert_eq!(renew(&world, &tokens).await.str("error"), "invalid_grant", "nothing comes back");
    assert_eq!(exchange(&world, &tokens).await.str("error"), "invalid_grant");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_ends_nothing_until_its_time_is_over() {
    let (world, fake) = company(json!({})).await;
    let mut tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    // Its trouble, or a refusal of us, is not about the person.
    for (status, body) in [
        (503, json!({"error": "invalid_grant"})),
        (500, json!({})),
        (429, json!({"error": "slow_down"})),
        (401, json!({"error": "invalid_client"})),
        (200, json!("nonsense")),
        (200, json!({})),
        (200, json!({"token_type": "Bearer"})),
        (200, json!({"error": "temporarily_unavailable"})),
        (200, json!({"access_token": 7})),
        (200, json!({"id_token": "not.a.token"})),
        (200, json!({"access_token": "theirs", "id_token": "not.a.token"})),
        (200, json!({"access_token": "theirs", "refresh_token": "x".repeat(9000)})),
    ] {
        fake.said().refresh = Some((status, body.clone()));
        world.pass(301);
        let before = fake.refreshed();
        let reply = renew(&world, &tokens).await;
        assert_eq!(reply.status, 200, "{status} {body}: {}", reply.text);
        tokens = reply.json;
        assert_eq!(exchange(&world, &tokens).await.status, 200, "{status} {body}");
        assert_eq!(fake.refreshed(), before + 1, "it was asked once");
        fake.said().refresh = None;
        world.pass(31);
        tokens = renew(&world, &tokens).await.json;
        assert_eq!(fake.refreshed(), before + 2, "and again after a while");
    }
}

#[tokio::test]
async fn after_an_hour_of_silence_nobody_is_vouched_for() {
    let (world, fake) = company(json!({})).await;
    let mut tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    fake.said().refresh = Some((503, json!({})));
    for _ in 0..12 {
        world.pass(301);
        let next = renew(&world, &tokens).await;
        assert_eq!(next.status, 200, "{}", next.text);
        tokens = next.json;
    }
    // Within half a minute it is not asked again.
    let before = fake.refreshed();
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    assert_eq!(fake.refreshed(), before);
    world.pass(301);
    let reply = exchange(&world, &tokens).await;
    assert_eq!((reply.status, reply.str("error")), (503, "temporarily_unavailable"));
    assert_eq!(reasons(&world).await[0], "upstream_check.unreachable");
    let reply = renew(&world, &tokens).await;
    assert_eq!(reply.status, 503, "the refresh token is not used up: {}", reply.text);
    // Meanwhile nobody signs in that way, and the page says so; a password of this server works.
    fake.said().token = Some((503, json!({})));
    let page = world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    assert_eq!(page.status, 503);
    assert!(page.text.contains("does not answer"), "{}", page.text);
    assert_eq!(reasons(&world).await[0], "sign_in.upstream_unreachable");
    let (url, _) = world.authorize_url(AGENT, "&upstream=");
    let (location, _) = world.browse(&url, "erin", PASSWORD).await;
    assert!(location.contains("code="), "{location}");
    // It answers again: what was there goes on.
    fake.said().token = None;
    fake.said().refresh = None;
    world.pass(31);
    assert_eq!(renew(&world, &tokens).await.status, 200);
}

#[tokio::test]
async fn what_a_refresh_says_of_another_person_ends_the_session() {
    let (world, fake) = company(json!({})).await;
    for (name, value, reason) in [
        ("sub", json!("max-there"), "upstream_check.other_person"),
        ("groups", json!([7]), "upstream_check.unidentified"),
    ] {
        let held = fake.said().claims[name].clone();
        let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        fake.claim(name, value);
        world.pass(301);
        assert_eq!(exchange(&world, &tokens).await.str("error"), "invalid_grant");
        assert!(reasons(&world).await.contains(&reason.to_owned()), "{reason}");
        fake.claim(name, held);
        assert_eq!(exchange(&world, &tokens).await.str("error"), "invalid_grant");
    }
}

#[tokio::test]
async fn a_stored_refresh_token_is_of_use_to_nobody_who_reads_the_database() {
    let (world, fake) = company(json!({"proof": {"method": "client_secret_basic",
        "client_secret": "s3cret +%/:"}}))
    .await;
    world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let asked = fake.said().asked[0].clone();
    let basic = asked["authorization"].strip_prefix("Basic ").unwrap().to_owned();
    let basic = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    assert_eq!(basic, "passavant-there:s3cret+%2B%25%2F%3A");
    assert!(!asked.contains_key("client_secret"));
    let live = fake.said().live.clone();
    for beside in ["", "-wal"] {
        let file = world.folder().join(format!("idp.db{beside}"));
        let bytes = std::fs::read(file).unwrap_or_default();
        for secret in [live.as_bytes(), b"s3cret +%/:"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}", String::from_utf8_lossy(secret));
        }
    }
    // Nor is it shown, or kept for another upstream.
    let shown = world.idp_admin().show::<Upstreams>("corp").await.unwrap();
    assert!(!serde_json::to_string(&shown).unwrap().contains("s3cret"));
}

#[tokio::test]
async fn an_upstream_that_is_switched_off_or_deleted_takes_along_what_came_by_way_of_it() {
    let (world, fake) = company(json!({})).await;
    let idp = world.idp_admin();
    let own = world.sign_in().await;
    let by_password = json!({"id_token": own.id_token, "refresh_token": own.refresh_token});
    let mut browser = Browser::default();
    let tokens = world.through(&mut browser, "corp", "").await.unwrap();
    // On the way back while it is switched off.
    let mut late = Browser::default();
    let (url, _) = world.authorize_url(AGENT, "&upstream=corp");
    let sent = late.get(&world, &url).await;
    let back = late.get(&world, sent.header("location")).await;
    idp.switch::<Upstreams>("corp", false).await.unwrap();
    assert_eq!(late.get(&world, back.header("location")).await.status, 400);
    assert_eq!(reasons(&world).await[0], "sign_in.upstream_off");
    assert_eq!(exchange(&world, &tokens).await.str("error"), "invalid_grant");
    assert_eq!(exchange(&world, &by_password).await.status, 200, "others stay");
    let (url, _) = world.authorize_url(AGENT, "&prompt=none");
    let (at, _) = world.follow(&mut browser, &url).await;
    assert!(at.contains("login_required"), "{at}");
    // On again: nothing comes back, and people sign in.
    idp.switch::<Upstreams>("corp", true).await.unwrap();
    assert_eq!(exchange(&world, &tokens).await.str("error"), "invalid_grant");
    assert_eq!(renew(&world, &tokens).await.str("error"), "invalid_grant");
    let again = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let gone = idp.dependents::<Upstreams>("corp").await.unwrap().records;
    assert_eq!(gone.len(), 1, "{gone:?}");
    idp.delete::<Upstreams>("corp").await.unwrap();
    assert_eq!(exchange(&world, &again).await.str("error"), "invalid_grant");
    // A later one of the same name and issuer knows nobody.
    world.add_upstream("corp", &fake, json!({"just_in_time": false})).await;
    world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    assert_eq!(reasons(&world).await[0], "sign_in.unknown_person");
}

#[tokio::test]
async fn a_group_that_is_deleted_is_gained_by_nobody_later() {
    let (world, _fake) = company(json!({})).await;
    let idp = world.idp_admin();
    idp.delete::<Groups>("engineering").await.unwrap();
    assert!(idp.show::<Upstreams>("corp").await.unwrap().groups.is_empty());
    let new = NewGroup { name: "engineering".to_owned(), description: String::new() };
    idp.add::<Groups>(&new).await.unwrap();
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(user_of(&world, &tokens).await.groups.is_empty());
    let change = serde_json::from_value(json!({"groups": {"Eng": "nowhere"}})).unwrap();
    conflict(idp.change::<Upstreams>("corp", &change, None).await, "no group `nowhere`");
}

#[tokio::test]
async fn the_page_leads_each_person_to_their_provider_and_tells_nobody_who_is_known() {
    let (world, fake) = company(json!({"display_name": "Acme <SSO>"})).await;
    let (url, _) = world.authorize_url(AGENT, "");
    let mut browser = Browser::default();
    let page = browser.get(&world, &url).await;
    assert!(page.text.contains("Sign in with Acme &lt;SSO&gt;"), "{}", page.text);
    assert!(!page.text.contains("name=\"password\""), "no password before the name");
    let post = |name: &str| Ask {
        url: url.clone(),
        form: vec![
            ("csrf".to_owned(), String::new()),
            ("username".to_owned(), name.to_owned()),
            ("answer".to_owned(), "sign_in".to_owned()),
        ],
        headers: vec![("origin".to_owned(), world.idp.origin().to_owned())],
        method: Method::POST,
    };
    // An address of the upstream leads there, whoever it is.
    for address in ["erin@acme.example", "nobody@ACME.example"] {
        let reply = browser.ask(&world, post(address)).await;
        assert_eq!(reply.status, 303, "{address}: {}", reply.text);
        assert!(reply.header("location").starts_with(&fake.said().metadata_url()), "{address}");
    }
    assert_eq!(fake.said().authorized.len(), 0);
    // Every other name gets the same page.
    let mut pages = Vec::new();
    for name in ["erin", "nobody", "erin@elsewhere.example"] {
        let reply = browser.ask(&world, post(name)).await;
        assert_eq!(reply.status, 200);
        assert!(reply.text.contains("name=\"password\""), "{}", reply.text);
        pages.push(reply.text.replace(&format!("value=\"{name}\""), ""));
    }
    assert!(pages.windows(2).all(|two| two[0] == two[1]));
    // The application's hint leads there at once.
    let (url, _) = world.authorize_url(AGENT, "&login_hint=erin%40acme.example");
    let sent = browser.get(&world, &url).await;
    assert_eq!(sent.status, 303);
    assert!(sent.header("location").contains("login_hint=erin%40acme.example"));
    // A domain belongs to one upstream.
    let other = FakeUpstream::start(&world, "").await;
    let new = json!({"name": "other", "issuer": other.issuer, "client_id": "x",
        "domains": ["ACME.example"]});
    let new = serde_json::from_value(new).unwrap();
    conflict(world.idp_admin().add::<Upstreams>(&new).await, "already");
}

#[tokio::test]
async fn what_the_upstream_refuses_is_a_page_and_on_record() {
    let (world, fake) = company(json!({})).await;
    for (error, says) in [
        ("access_denied", "did not let you in"),
        ("unmet_authentication_requirements", "stronger sign-in"),
        ("server_error", "did not work"),
        ("<script>", "did not work"),
    ] {
        fake.said().error = Some(error.to_owned());
        let page = world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        assert_eq!(page.status, 400);
        assert!(page.text.contains(says) && !page.text.contains("<script>"), "{}", page.text);
        assert_eq!(reasons(&world).await[0], "sign_in.upstream_refused");
    }
    fake.said().error = None;
    // A person without a usable name.
    fake.claim("preferred_username", json!("\u{202e}"));
    fake.claim("email", Value::Null);
    world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
    assert_eq!(reasons(&world).await[0], "sign_in.no_name");
}

#[tokio::test]
async fn every_leg_of_an_upstream_is_looked_at_and_who_has_to_change_what_is_told() {
    let (world, fake) = company(json!({})).await;
    let idp = world.idp_admin();
    let legs = idp.check_upstream("corp").await.unwrap().items;
    let bad: Vec<_> = legs.iter().filter(|leg| !leg.works).collect();
    assert!(bad.is_empty() && legs.len() >= 5, "{legs:?}");
    let bad_of = async |what: &str| {
        let legs = idp.check_upstream("corp").await.unwrap().items;
        let bad: Vec<_> = legs.into_iter().filter(|leg| !leg.works).collect();
        assert_eq!(bad.len(), 1, "{what}: {bad:?}");
        let leg = bad.into_iter().next().unwrap();
        assert_eq!(leg.leg, what, "{leg:?}");
        leg.hint.expect("a hint")
    };
    fake.said().token = Some((401, json!({"error": "invalid_client"})));
    assert!(bad_of("client authentication").await.contains("the administrator there"));
    fake.said().token = None;
    let change = json!({"id_token_signing_alg": "RS256"});
    let change = serde_json::from_value(change).unwrap();
    idp.change::<Upstreams>("corp", &change, None).await.unwrap();
    let legs = idp.check_upstream("corp").await.unwrap().items;
    let bad: Vec<&str> = legs.iter().filter(|leg| !leg.works).map(|leg| leg.leg.as_str()).collect();
    assert_eq!(bad, ["algorithm of ID tokens", "keys"]);
    // Another issuer than it says.
    let liar = FakeUpstream::start(&world, "").await;
    liar.said().metadata = json!({"issuer": "https://elsewhere.example"});
    world.add_upstream("liar", &liar, json!({})).await;
    let legs = idp.check_upstream("liar").await.unwrap().items;
    assert_eq!((legs.len(), legs[0].works), (1, false));
    assert!(legs[0].found.contains("https://elsewhere.example"), "{legs:?}");
}

#[tokio::test]
async fn a_device_and_a_computer_are_added_by_people_of_an_upstream() {
    let (world, fake) = company(json!({})).await;
    // The page for codes leads there, and the browser comes back to it.
    let mut browser = Browser::default();
    let page = world.idp.endpoint("/activate");
    let shown = browser.get(&world, &page).await;
    assert!(shown.text.contains("Sign in with corp"), "{}", shown.text);
    assert!(!shown.text.contains("name=\"password\""), "the name comes first");
    let post = |more: &[(&str, &str)]| Ask {
        url: page.clone(),
        form: [&[("csrf", ""), ("answer", "sign_in")], more]
            .concat()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        headers: vec![("origin".to_owned(), world.idp.origin().to_owned())],
        method: Method::POST,
    };
    // An address of the upstream leads there, and a password that was typed with it is not looked
    // at.
    for more in [
        &[("username", "nobody@ACME.example")][..],
        &[("username", "erin@acme.example"), ("password", PASSWORD)],
    ] {
        let reply = browser.ask(&world, post(more)).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        assert!(reply.header("location").starts_with(&fake.said().metadata_url()));
    }
    let named = browser.ask(&world, post(&[("username", "erin")])).await;
    assert!(named.text.contains("name=\"password\""), "{}", named.text);
    let (at, shown) = world.follow(&mut browser, &format!("{page}?upstream=corp")).await;
    assert_eq!(at, page);
    assert!(shown.text.contains("user_code"), "{}", shown.text);
    assert!(fake.said().authorized.last().unwrap()["prompt"].starts_with("login"));
    // Adding a computer asks, even where the upstream does not say when somebody signed in.
    fake.claim("auth_time", Value::Null);
    let verifier = world.entropy().secret();
    let challenge = passavant_proto::oauth::pkce::CodeChallenge::of(verifier.expose());
    let url = format!(
        "{}?response_type=code&client_id=passavant&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fcallback&scope=enrol\
         &state=s&code_challenge={}&code_challenge_method=S256&upstream=corp",
        world.idp.endpoint("/authorize"),
        challenge.as_str()
    );
    let (at, shown) = world.follow(&mut Browser::default(), &url).await;
    assert_eq!(shown.status, 200, "{at} {}", shown.text);
    assert!(shown.text.contains("name=\"ticket\""), "it asks: {}", shown.text);
    assert!(shown.text.contains("You are adding a computer"), "{}", shown.text);
    // A sign-in that is known to be old is not enough for that.
    fake.claim("auth_time", json!(world.now().0 - 7200));
    let (_, shown) = world.follow(&mut Browser::default(), &url).await;
    assert!(shown.status >= 400 && !shown.text.contains("name=\"ticket\""), "{}", shown.text);
    assert_eq!(reasons(&world).await[0], "sign_in.stale");
    // So does every program that proves nothing, however fresh the sign-in: no page of ours told the
    // person which program it is for.
    fake.claim("auth_time", json!(world.now().0));
    for more in ["", "&prompt=login", "&max_age=0"] {
        let (url, _) = world.authorize_url("public", &format!("&upstream=corp{more}"));
        let mut browser = Browser::default();
        let (at, shown) = world.follow(&mut browser, &url).await;
        assert!(shown.text.contains("name=\"ticket\""), "{more}: {at} {}", shown.text);
        let yes = browser.answer(&world, &form_of(&shown, &at), &shown, "go_on");
        let yes = yes.no_header("origin").header("origin", world.idp.origin());
        let reply = browser.ask(&world, yes).await;
        assert!(reply.header("location").contains("code="), "{more}: {}", reply.text);
    }
}

/// Where the form of a page leads.
fn form_of(page: &Reply, at: &str) -> String {
    let (_, rest) = page.text.split_once("action=\"").unwrap();
    let action = rest.split('"').next().unwrap().replace("&amp;", "&");
    url::Url::parse(at).unwrap().join(&action).unwrap().to_string()
}

#[tokio::test]
async fn what_the_id_token_leaves_out_is_read_at_user_info_if_it_is_about_the_same_person() {
    let (world, fake) = company(json!({})).await;
    let said = json!({"sub": "erin-there", "preferred_username": "erin.info", "groups": ["Eng"],
        "email": "erin@acme.example", "email_verified": true, "acr": "forged", "iss": "x"});
    fake.said().user_info = Some((200, said.clone()));
    // An ID token that says all of it is enough.
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(user_of(&world, &tokens).await.username, "erin.upstream");
    for name in ["preferred_username", "email", "email_verified", "groups", "name"] {
        fake.claim(name, Value::Null);
    }
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(user_of(&world, &tokens).await.groups.len(), 1);
    assert_eq!(id_token(&tokens)["acr"], "strong", "signed claims come first");
    // What is not signed says nothing about how somebody signed in, and half of an address does not
    // make another one whole.
    for name in ["acr", "amr", "auth_time"] {
        fake.claim(name, Value::Null);
    }
    fake.claim("email_verified", json!(true));
    let mut forged = said.clone();
    forged["acr"] = json!("there:strong");
    forged["amr"] = json!(["hwk"]);
    forged["auth_time"] = json!(world.now().0);
    forged["session_expiry"] = json!(world.now().0 - 1);
    forged["email"] = json!("boss@acme.example");
    forged["email_verified"] = Value::Null;
    fake.said().user_info = Some((200, forged));
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let claims = id_token(&tokens);
    for name in ["acr", "amr", "auth_time"] {
        assert!(claims.get(name).is_none(), "{name}: {claims}");
    }
    let user = user_of(&world, &tokens).await;
    let boss = user.email.as_deref() == Some("boss@acme.example");
    assert!(!boss || !user.email_verified, "{user:?}");
    fake.claim("email_verified", Value::Null);
    fake.claim("sub", json!("new-there"));
    for (status, body) in [
        (200, said.clone()),
        (200, json!({"preferred_username": "x"})),
        (200, json!({"sub": 7})),
        (200, json!("nonsense")),
        (401, json!({})),
        (503, json!({})),
    ] {
        fake.said().user_info = Some((status, body.clone()));
        let page = world.through(&mut Browser::default(), "corp", "").await;
        let page = page.expect_err(&format!("{status} {body}"));
        assert!(page.status >= 400, "{body}");
        assert!(reasons(&world).await[0].starts_with("sign_in.upstream_"), "{body}");
    }
    let mut own = said;
    own["sub"] = json!("new-there");
    own["preferred_username"] = json!("new.one");
    fake.said().user_info = Some((200, own.clone()));
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(user_of(&world, &tokens).await.username, "new.one");
    // At a check, too: who left the group there leaves it here.
    own["groups"] = json!([]);
    fake.said().user_info = Some((200, own));
    world.pass(301);
    assert_eq!(exchange(&world, &tokens).await.str("error"), "access_denied");
    // Its trouble is not about the person, and loses no refresh token; what the ID token says counts.
    fake.claim("groups", json!(["Eng"]));
    let mut tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(user_of(&world, &tokens).await.groups.len(), 1);
    fake.claim("groups", json!([]));
    for (status, body) in [(503, json!({})), (200, json!({"sub": "somebody else"}))] {
        fake.said().user_info = Some((status, body));
        world.pass(301);
        let reply = renew(&world, &tokens).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        tokens = reply.json;
        assert_eq!(user_of(&world, &tokens).await.groups.len(), 0);
    }
}

#[tokio::test]
async fn a_sign_in_that_cannot_be_checked_again_is_told_and_consent_is_asked_for_where_it_has_to_be()
 {
    let (world, fake) = company(json!({})).await;
    fake.said().refreshes = false;
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(fake.said().authorized[0]["prompt"], "consent");
    let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    let row = rows.iter().find(|row| row.event == "sign_in").unwrap();
    assert!(row.details["detail"].contains("no refresh token"), "{row:?}");
    world.pass(301);
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    assert_eq!(fake.refreshed(), 0);
    let change = serde_json::from_value(json!({"asks_consent": false})).unwrap();
    world.idp_admin().change::<Upstreams>("corp", &change, None).await.unwrap();
    world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert!(!fake.said().authorized.last().unwrap().contains_key("prompt"));
}

#[tokio::test]
async fn the_one_refresh_token_of_google_serves_every_session_until_it_is_refused() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    let google = json!({"preset": "google", "hosted_domains": ["acme.example"]});
    world.add_upstream("google", &fake, google).await;
    fake.claim("hd", json!("acme.example"));
    world.through(&mut Browser::default(), "google", "").await.unwrap();
    fake.said().refreshes = false;
    let later = world.through(&mut Browser::default(), "google", "").await.unwrap();
    world.pass(301);
    assert_eq!(renew(&world, &later).await.status, 200);
    assert_eq!(fake.refreshed(), 1, "the session of a sign-in that brought none is checked");
    fake.said().refresh = Some((400, json!({"error": "invalid_grant"})));
    let last = world.through(&mut Browser::default(), "google", "").await.unwrap();
    world.pass(301);
    assert_eq!(renew(&world, &last).await.str("error"), "invalid_grant");
    // It is not tried again at the next sign-in.
    let again = world.through(&mut Browser::default(), "google", "").await.unwrap();
    let asked = fake.refreshed();
    world.pass(301);
    assert_eq!(renew(&world, &again).await.status, 200);
    assert_eq!(fake.refreshed(), asked);
}

#[tokio::test]
async fn the_refresh_token_that_is_given_once_is_not_thrown_away_with_another_one() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    let google = json!({"preset": "google", "hosted_domains": ["acme.example"]});
    world.add_upstream("google", &fake, google).await;
    fake.claim("hd", json!("acme.example"));
    let first = world.through(&mut Browser::default(), "google", "").await.unwrap();
    // They took the consent back there, and gave it again: the first token is of no use.
    world.through(&mut Browser::default(), "google", "").await.unwrap();
    world.pass(301);
    assert_eq!(renew(&world, &first).await.str("error"), "invalid_grant");
    fake.said().refreshes = false;
    let checked = async || {
        let later = world.through(&mut Browser::default(), "google", "").await.unwrap();
        let before = fake.refreshed();
        world.pass(301);
        assert_eq!(renew(&world, &later).await.status, 200);
        assert_eq!(fake.refreshed(), before + 1, "it is checked");
    };
    checked().await;
}

#[tokio::test]
async fn an_upstream_that_was_off_for_a_while_is_asked_again() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    let google = json!({"preset": "google", "hosted_domains": ["acme.example"]});
    world.add_upstream("google", &fake, google).await;
    fake.claim("hd", json!("acme.example"));
    world.through(&mut Browser::default(), "google", "").await.unwrap();
    fake.said().refreshes = false;
    let idp = world.idp_admin();
    idp.switch::<Upstreams>("google", false).await.unwrap();
    idp.switch::<Upstreams>("google", true).await.unwrap();
    let later = world.through(&mut Browser::default(), "google", "").await.unwrap();
    world.pass(301);
    assert_eq!(renew(&world, &later).await.status, 200);
    assert_eq!(fake.refreshed(), 1, "its one refresh token is still there");
}

#[tokio::test]
async fn a_visitor_who_goes_away_leaves_the_others_an_upstream() {
    let (world, fake) = company(json!({})).await;
    let (url, _) = world.authorize_url(AGENT, "&upstream=corp");
    fake.said().slow_metadata = Duration::from_millis(300);
    let mut visitor = Browser::default();
    let gone = tokio::time::timeout(Duration::from_millis(100), visitor.get(&world, &url)).await;
    assert!(gone.is_err(), "they went away");
    let reply = Browser::default().get(&world, &url).await;
    assert_eq!(reply.status, 303, "{}", reply.text);
    // Nor takes the keys along that they made us ask for.
    fake.said().slow_keys = Duration::from_millis(300);
    let [first, second] = [(); 2].map(|()| logout_token(&world, &fake, &json!({})));
    let leaves = log_out(&world, "corp", &first);
    assert!(tokio::time::timeout(Duration::from_millis(100), leaves).await.is_err(), "it left");
    let reply = log_out(&world, "corp", &second).await;
    assert_eq!((reply.status, fake.said().key_fetches), (200, 1), "{}", reply.text);
}

#[tokio::test]
async fn a_time_that_a_wrong_clock_wrote_tolerates_nothing() {
    let (world, fake) = company(json!({})).await;
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    fake.said().refresh = Some((503, json!({})));
    world.pass(-36_000);
    let reply = renew(&world, &tokens).await;
    assert_eq!(reply.str("error"), "temporarily_unavailable", "{}", reply.text);
}

#[tokio::test]
async fn a_certificate_is_followed_by_another_without_a_gap() {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, &format!("/{TENANT}/v2.0")).await;
    let idp = world.idp_admin();
    world.add_upstream("entra", &fake, json!({"preset": "entra"})).await;
    let change = async |proof: Value| {
        let change = serde_json::from_value(json!({ "proof": proof })).unwrap();
        idp.change::<Upstreams>("entra", &change, None).await
    };
    conflict(change(json!({"method": "private_key_jwt"})).await, "Entra reads no keys");
    conflict(change(json!({"method": "next_certificate"})).await, "no certificate that follows");
    let first = idp.show::<Upstreams>("entra").await.unwrap();
    assert!(first.certificate.is_some() && first.next_certificate.is_none());
    let both = change(json!({"method": "certificate"})).await.unwrap();
    assert_eq!(both.certificate, first.certificate, "the one that is uploaded is still used");
    let after = change(json!({"method": "next_certificate"})).await.unwrap();
    assert_eq!(after.certificate, both.next_certificate);
    assert!(after.next_certificate.is_none());
}

#[tokio::test]
async fn a_connection_asks_for_a_class_that_an_upstream_reaches() {
    let (world, fake) = company(json!({"acr_values": {"gold": "phr"}})).await;
    let idp = world.idp_admin();
    let change =
        |acr: &str| serde_json::from_value(json!({"conditions": {"acr_values": [acr]}})).unwrap();
    let connection = world.connection(AGENT, "x").id;
    let unknown = idp.change::<Connections>(&connection, &change("urn:acme:nothing"), None).await;
    conflict(unknown, "no sign-in here reaches the class `urn:acme:nothing`");
    idp.change::<Connections>(&connection, &change("phr"), None).await.unwrap();
    let mut browser = Browser::default();
    let tokens = world.through(&mut browser, "corp", "").await.unwrap();
    let reply = exchange(&world, &tokens).await;
    assert_eq!(reply.str("error"), "insufficient_user_authentication", "{}", reply.text);
    // So says the explanation, of either sign-in.
    let explain = async |acr: Option<&str>| {
        let question = json!({"user": "erin.upstream", "client": AGENT, "resource": world.canvas,
            "acr": acr});
        idp.explain(&serde_json::from_value(question).unwrap()).await.unwrap().granted
    };
    assert!(!explain(None).await && !explain(Some("there:strong")).await);
    assert!(explain(Some("phr")).await);
    // The client signs in once more with what the answer says, and goes on.
    fake.claim("acr", json!("gold"));
    let more = format!("&acr_values={}", reply.str("acr_values"));
    let tokens = world.through(&mut browser, "corp", &more).await.unwrap();
    assert_eq!(exchange(&world, &tokens).await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_tells_nothing_of_how_somebody_signed_in_can_be_used() {
    let (world, fake) = company(json!({})).await;
    for (acr, amr) in [(Value::Null, Value::Null), (json!(""), json!([])), (json!(7), json!("pwd"))]
    {
        fake.claim("acr", acr.clone());
        fake.claim("amr", amr.clone());
        fake.claim("auth_time", Value::Null);
        let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let claims = id_token(&tokens);
        assert!(claims.get("acr").is_none() && claims.get("auth_time").is_none(), "{claims}");
        assert!(claims.get("amr").is_none_or(|amr| amr == &json!(["pwd"])), "{claims}");
        assert_eq!(exchange(&world, &tokens).await.status, 200, "{acr} {amr}");
        assert_eq!(renew(&world, &tokens).await.status, 200);
    }
}

/// A logout token, with what a test wants to be another.
fn logout_token(world: &World, fake: &FakeUpstream, more: &Value) -> String {
    let now = world.now().0;
    let mut claims = json!({"iss": fake.issuer, "aud": fake.client_id, "iat": now, "exp": now + 120,
        "jti": world.id(), "sub": "erin-there",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}}});
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    fake.sign("logout+jwt", &claims)
}

async fn log_out(world: &World, upstream: &str, token: &str) -> Reply {
    let ask = Ask {
        url: world.idp.endpoint(&format!("/backchannel_logout/{upstream}")),
        form: vec![("logout_token".to_owned(), token.to_owned())],
        headers: Vec::new(),
        method: Method::POST,
    };
    world.send(&ask).await
}

#[tokio::test]
async fn a_session_that_ends_upstream_ends_here_at_once() {
    let (world, fake) = company(json!({})).await;
    fake.claim("sid", json!("there-1"));
    let one = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    fake.claim("sid", json!("there-2"));
    let mut browser = Browser::default();
    let two = world.through(&mut browser, "corp", "").await.unwrap();
    // One session, by its name there.
    let token = logout_token(&world, &fake, &json!({"sid": "there-1"}));
    assert_eq!(log_out(&world, "corp", &token).await.status, 200);
    assert_eq!(exchange(&world, &one).await.str("error"), "invalid_grant");
    assert_eq!(renew(&world, &one).await.str("error"), "invalid_grant");
    assert_eq!(exchange(&world, &two).await.status, 200);
    let row = world.idp_store.audit(&AuditFilter { limit: 9, ..AuditFilter::default() }).await;
    let rows = row.unwrap();
    let row = rows.iter().find(|row| row.event == "sign_out").unwrap();
    assert_eq!((row.details["count"].as_str(), row.outcome.as_str()), ("1", "granted"));
    // What is wrong with a token, or about somebody else, ends nothing.
    let now = world.now().0;
    let events = json!({"http://schemas.openid.net/event/other": {}});
    for (name, value) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!("somebody")),
        ("aud", json!([fake.client_id, "somebody"])),
        ("exp", json!(now - 60)),
        ("iat", json!(now - 7200)),
        ("iat", json!(now + 600)),
        ("nonce", json!("n")),
        ("events", events),
        ("events", json!({"http://schemas.openid.net/event/backchannel-logout": 1})),
        ("events", Value::Null),
        ("jti", Value::Null),
        ("sub", Value::Null),
        ("sub", json!(7)),
        ("sub", json!("")),
    ] {
        let token = logout_token(&world, &fake, &json!({ name: value }));
        let reply = log_out(&world, "corp", &token).await;
        assert_eq!(reply.status, 400, "{name}: {value}: {}", reply.text);
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    assert_eq!(reasons(&world).await[0], "sign_out.logout_token");
    // Hundreds of right ones may come at once; wrong ones of a stranger keep none out.
    let many = World::with(Wishes { failures_per_minute: Some(5), ..Wishes::default() }).await;
    let busy = FakeUpstream::start(&many, "").await;
    many.add_upstream("corp", &busy, json!({})).await;
    for n in 0..10 {
        let status = log_out(&many, "corp", "not.a.token").await.status;
        assert_eq!(status, if n < 5 { 400 } else { 429 }, "{n}");
    }
    let tokens: Vec<String> = (0..60).map(|_| logout_token(&many, &busy, &json!({}))).collect();
    let sent = tokens.iter().map(|token| log_out(&many, "corp", token));
    let replies = futures::future::join_all(sent).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    for other in [
        json!({"sub": "max-there"}),
        json!({"sub": "max-there", "sid": "there-2"}),
        json!({"sid": "there-9"}),
        json!({"sub": null, "sid": "there-9"}),
    ] {
        let reply = log_out(&world, "corp", &logout_token(&world, &fake, &other)).await;
        assert_eq!(reply.status, 200, "{other}: it is valid, and nothing is told");
    }
    // An ID token is no logout token, and another key is not theirs.
    let id_token = fake.sign(
        "JWT",
        &json!({"iss": fake.issuer, "aud": fake.client_id, "iat": now,
        "exp": now + 60, "sub": "erin-there", "nonce": "n"}),
    );
    assert_eq!(log_out(&world, "corp", &id_token).await.status, 400);
    let other = FakeUpstream::start(&world, "").await;
    let mut parts = Parts::of(&logout_token(&world, &fake, &json!({})));
    let forged = logout_token(&world, &other, &json!({"iss": fake.issuer}));
    assert_eq!(log_out(&world, "corp", &forged).await.status, 400);
    parts.header["alg"] = json!("none");
    assert_eq!(log_out(&world, "corp", &parts.sign(&Key::new())).await.status, 400);
    assert_eq!(log_out(&world, "nobody", &forged).await.status, 400);
    assert_eq!(exchange(&world, &two).await.status, 200);
    // Everything of the person; told again, it does not end what they began since.
    let all = logout_token(&world, &fake, &json!({}));
    assert_eq!(log_out(&world, "corp", &all).await.status, 200);
    assert_eq!(exchange(&world, &two).await.str("error"), "invalid_grant");
    let (url, _) = world.authorize_url(AGENT, "&prompt=none");
    let (at, _) = world.follow(&mut browser, &url).await;
    assert!(at.contains("login_required"), "{at}");
    let three = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(log_out(&world, "corp", &all).await.status, 200);
    assert_eq!(exchange(&world, &three).await.status, 200, "a token serves once");
    // Who signed in with a password here is not theirs to sign out.
    let own = world.sign_in().await;
    log_out(&world, "corp", &logout_token(&world, &fake, &json!({}))).await;
    assert_eq!(world.send(&world.exchange(&own.id_token)).await.status, 200);
}

#[tokio::test]
async fn who_signs_out_here_is_told_where_they_are_still_signed_in() {
    let (world, fake) = company(json!({"display_name": "Acme SSO"})).await;
    fake.said().metadata = json!({"end_session_endpoint": format!("{}/end?a=b", fake.issuer)});
    let mut browser = Browser::default();
    world.through(&mut browser, "corp", "").await.unwrap();
    let url = world.idp.endpoint("/logout");
    let page = browser.get(&world, &url).await;
    let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").unwrap();
    let ask = Ask {
        url: url.clone(),
        form: vec![("csrf".to_owned(), rest.split('"').next().unwrap().to_owned())],
        headers: vec![("origin".to_owned(), world.idp.origin().to_owned())],
        method: Method::POST,
    };
    let page = browser.ask(&world, ask).await;
    let link = format!("{}/end?a=b&amp;client_id=passavant-there", fake.issuer);
    assert!(page.text.contains(&link) && page.text.contains("Acme SSO"), "{}", page.text);
    // An upstream that hangs keeps nobody signed in: the session ends first, and the page waits a
    // moment at most.
    let mut browser = Browser::default();
    let tokens = world.through(&mut browser, "corp", "").await.unwrap();
    world.pass(301);
    fake.said().hangs = true;
    let page = browser.get(&world, &url).await;
    let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").unwrap();
    let csrf = rest.split('"').next().unwrap().to_owned();
    let ask = Ask {
        url: url.clone(),
        form: vec![("csrf".to_owned(), csrf)],
        headers: vec![("origin".to_owned(), world.idp.origin().to_owned())],
        method: Method::POST,
    };
    let page = browser.ask(&world, ask).await;
    assert!(page.text.contains("You are signed out"), "{}", page.text);
    fake.said().hangs = false;
    assert_eq!(renew(&world, &tokens).await.str("error"), "invalid_grant");
}

#[tokio::test]
async fn what_would_let_in_the_wrong_people_is_not_set_up() {
    let world = World::new().await;
    let idp = world.idp_admin();
    let fake = FakeUpstream::start(&world, "").await;
    let base = json!({"name": "corp", "issuer": fake.issuer, "client_id": "c"});
    for (member, value, says) in [
        ("name", json!("Corp"), "not a name"),
        ("name", json!("-corp"), "not a name"),
        ("name", json!("a/b"), "not a name"),
        ("issuer", json!(world.idp.as_str()), "own"),
        ("domains", json!(["not a domain"]), "not a domain"),
        ("proof", json!({"method": "client_secret_basic"}), "client_secret"),
        ("proof", json!({"client_secret": "s"}), "client_secret"),
        ("proof", json!({"algorithm": "PS256"}), "PS256"),
        ("hosted_domains", json!(["a.example"]), "Google alone"),
        ("groups", json!({"a": "nowhere"}), "no group"),
        ("client_id", json!(""), "client_id"),
    ] {
        let mut new = base.clone();
        new[member] = value.clone();
        let answer = idp.add::<Upstreams>(&serde_json::from_value(new).unwrap()).await;
        conflict(answer, says);
    }
    assert_eq!(Algorithm::named("PS256"), Some(Algorithm::PS256));
}

/// ID-JAG draft section 6: a RAS with several tenants is told which one it is for.
#[tokio::test]
async fn an_id_jag_names_the_tenant_of_the_authorization_server_where_one_is_set() {
    let world = World::new().await;
    let tokens = world.sign_in().await;
    let idp = world.idp_admin();
    let change = |tenant: Value| serde_json::from_value(json!({"aud_tenant": tenant})).unwrap();
    let id = world.ras.as_str();
    let id_jag = async || {
        let reply = world.send(&world.exchange(&tokens.id_token)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.str("access_token").to_owned()
    };
    assert!(Parts::of(&id_jag().await).claims.get("aud_tenant").is_none());
    conflict(
        idp.change::<AuthorizationServers>(id, &change(json!("\u{202e}")), None).await,
        "aud_tenant",
    );
    idp.change::<AuthorizationServers>(id, &change(json!("acme-there")), None).await.unwrap();
    let named = id_jag().await;
    assert_eq!(Parts::of(&named).claims["aud_tenant"], "acme-there");
    // Its own name for the person, if it has one: what the directory says of them.
    let known_by = |what: Value| serde_json::from_value(json!({"aud_sub": what})).unwrap();
    for (what, said) in [
        (json!("email"), json!("erin@acme.example")),
        (json!("username"), json!("erin")),
        (json!("employeeNumber"), Value::Null),
    ] {
        idp.change::<AuthorizationServers>(id, &known_by(what), None).await.unwrap();
        assert_eq!(Parts::of(&id_jag().await).claims["aud_sub"], said);
    }
    let number = json!({"attributes": {"employeeNumber": "0042"}});
    let number = serde_json::from_value(number).unwrap();
    idp.change::<Users>("erin", &number, None).await.unwrap();
    assert_eq!(Parts::of(&id_jag().await).claims["aud_sub"], "0042");
    conflict(
        idp.change::<AuthorizationServers>(id, &known_by(json!("a b")), None).await,
        "aud_sub",
    );
    idp.change::<AuthorizationServers>(id, &known_by(Value::Null), None).await.unwrap();
    assert!(Parts::of(&id_jag().await).claims.get("aud_sub").is_none());
    // The RAS takes it if that is the tenant that its administrator expects, and not otherwise.
    assert_eq!(world.send(&world.redeem(&named)).await.str("error"), "invalid_grant");
    let path = format!(
        "/ras/ras/trusted-issuers/{}",
        form_urlencoded::byte_serialize(world.idp.as_str().as_bytes()).collect::<String>()
    );
    let body = json!({"audience_tenant": "acme-there"});
    let reply = world.administer(Method::PATCH, &path, Some(body)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(world.send(&world.redeem(&id_jag().await)).await.status, 200);
}

#[tokio::test]
async fn a_class_of_one_upstream_is_no_class_of_another() {
    let (world, corp) = company(json!({"acr_values": {"gold": "phr"}})).await;
    corp.claim("acr", json!("gold"));
    let partner = FakeUpstream::start(&world, "").await;
    let joins = json!({"groups": {"Eng": "engineering"}});
    world.add_upstream("partner", &partner, joins).await;
    partner.claim("preferred_username", json!("pat"));
    let change = serde_json::from_value(json!({"conditions": {"acr_values": ["phr"]}})).unwrap();
    let connection = world.connection(AGENT, "x").id;
    world.idp_admin().change::<Connections>(&connection, &change, None).await.unwrap();
    for claimed in ["phr", "gold", "urn:passavant:acr:password"] {
        partner.claim("acr", json!(claimed));
        let tokens = world.through(&mut Browser::default(), "partner", "").await.unwrap();
        assert!(id_token(&tokens).get("acr").is_none(), "{claimed}: {}", id_token(&tokens));
        let reply = exchange(&world, &tokens).await;
        assert_eq!(reply.str("error"), "insufficient_user_authentication", "{claimed}");
    }
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    assert_eq!(exchange(&world, &tokens).await.status, 200);
}

#[tokio::test]
async fn a_user_name_is_not_an_address_of_another_upstreams_people() {
    let (world, _corp) = company(json!({})).await;
    let partner = FakeUpstream::start(&world, "").await;
    world.add_upstream("partner", &partner, json!({"domains": ["partner.example"]})).await;
    for name in ["boss@acme.example", "boss@ACME.Example"] {
        partner.claim("preferred_username", json!(name));
        world.through(&mut Browser::default(), "partner", "").await.expect_err(name);
    }
    // Nor while that one is switched off.
    world.idp_admin().switch::<Upstreams>("corp", false).await.unwrap();
    world.through(&mut Browser::default(), "partner", "").await.unwrap_err();
    for name in ["pat@partner.example", "pat@elsewhere.example", "pat"] {
        partner.claim("sub", json!(format!("sub of {name}")));
        partner.claim("preferred_username", json!(name));
        world.through(&mut Browser::default(), "partner", "").await.expect(name);
    }
}

#[tokio::test]
async fn what_is_changed_while_an_upstream_is_asked_decides() {
    let (world, fake) = company(json!({})).await;
    let idp = world.idp_admin();
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    let id = user_of(&world, &tokens).await.id;
    let groups = async || idp.show::<Users>(&id).await.unwrap().groups;
    fake.claim("groups", json!(["admins"]));
    world.pass(301);
    fake.said().slow = Duration::from_millis(500);
    let asking = world.exchange(tokens["id_token"].as_str().unwrap());
    let change = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let change = json!({"groups": {"Eng": "engineering", "admins": "engineering"}});
        let change = serde_json::from_value(change).unwrap();
        idp.change::<Upstreams>("corp", &change, None).await.unwrap();
    };
    let (reply, ()) = tokio::join!(world.send(&asking), change);
    // By the old mapping they would have left the group.
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(groups().await.len(), 1, "what was judged by the old mapping changes nothing");
    fake.said().slow = Duration::ZERO;
    let before = fake.refreshed();
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    assert_eq!((fake.refreshed(), groups().await.len()), (before + 1, 1), "asked again");
    // Switched off meanwhile: it has ended, whatever the upstream says then.
    world.pass(301);
    fake.said().slow = Duration::from_millis(500);
    let off = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        idp.switch::<Upstreams>("corp", false).await.unwrap();
    };
    let (reply, ()) = tokio::join!(world.send(&asking), off);
    assert_eq!(reply.str("error"), "invalid_grant", "{}", reply.text);
}

#[tokio::test]
async fn a_client_that_goes_away_loses_no_refresh_token() {
    let (world, fake) = company(json!({})).await;
    let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
    world.pass(301);
    fake.said().slow = Duration::from_millis(300);
    let asking = world.exchange(tokens["id_token"].as_str().unwrap());
    let gone = tokio::time::timeout(Duration::from_millis(100), world.send(&asking)).await;
    assert!(gone.is_err(), "it went away");
    tokio::time::sleep(Duration::from_millis(600)).await;
    fake.said().slow = Duration::ZERO;
    let before = fake.refreshed();
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    assert_eq!(fake.refreshed(), before, "what was answered meanwhile is known");
    world.pass(301);
    assert_eq!(renew(&world, &tokens).await.status, 200, "the token that is good now was kept");
}

#[tokio::test]
async fn an_upstream_that_answers_nothing_holds_up_its_own_people_alone() {
    let (world, fake) = company(json!({})).await;
    fake.said().hangs = true;
    let (url, _) = world.authorize_url(AGENT, "&upstream=corp");
    let started = std::time::Instant::now();
    let ten = (0..10).map(|_| async { Browser::default().get(&world, &url).await });
    for page in futures::future::join_all(ten).await {
        assert!(page.status >= 400, "{}", page.text);
    }
    // The next one hears it at once.
    assert!(Browser::default().get(&world, &url).await.status >= 400);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(!world.sign_in().await.id_token.is_empty(), "others sign in");
}
