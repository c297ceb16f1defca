//! People who sign in at an identity provider that speaks SAML 2.0, and what is sent to get in as
//! somebody else.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use passavant_admin::{
    client::ClientError,
    types::{
        AuthorizationServers, ClientChange, Clients, ListQuery, PersonLinkQuery, UpstreamChange,
        Upstreams, Users,
    },
};
use passavant_store::AuditFilter;
use passavant_tests::{
    forge::Parts,
    outsider::Browser,
    saml::{Asked, ENTITY, FakeSaml, SSO, Says, with_signature},
    world::{AGENT, Ask, Reply, World},
};
use serde_json::{Value, json};

/// The entity ID of a client.
const SP: &str = "https://agent.example/saml";
const DS: &str = "http://www.w3.org/2000/09/xmldsig#";

async fn company(more: Value) -> (World, FakeSaml) {
    let world = World::new().await;
    let fake = FakeSaml::new(ENTITY);
    let mut said = json!({"domains": ["acme.example"], "groups": {"Eng": "engineering"},
        "acr_values": {"urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport": "strong"}});
    for (member, value) in more.as_object().unwrap() {
        said[member] = value.clone();
    }
    world.add_saml("corp", &fake.by_redirect(), said).await;
    (world, fake)
}

fn id_token(tokens: &Value) -> Value {
    Parts::of(tokens["id_token"].as_str().unwrap()).claims
}

async fn user_of(world: &World, tokens: &Value) -> passavant_admin::types::UserView {
    let id = id_token(tokens)["sub"].as_str().unwrap().to_owned();
    world.idp_admin().show::<Users>(&id).await.unwrap()
}

/// The newest refused row: its reason, and what else it says.
async fn refused(world: &World) -> (String, String) {
    let filter = AuditFilter { limit: 20, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    let row = rows.into_iter().find(|row| row.details.contains_key("reason")).unwrap();
    let detail = row.details.get("detail").cloned().unwrap_or_default();
    (row.details["reason"].clone(), detail)
}

async fn exchange(world: &World, tokens: &Value) -> Reply {
    world.send(&world.exchange(tokens["id_token"].as_str().unwrap())).await
}

/// The exchange of a refresh token.
fn exchange_of(world: &World, token: &str) -> Ask {
    let kind = "urn:ietf:params:oauth:token-type:refresh_token";
    world.exchange(token).set("subject_token_type", kind)
}

#[tokio::test]
async fn people_sign_in_by_a_signed_assertion_or_a_signed_response() {
    let (world, fake) = company(json!({})).await;
    let asked = |asked: &Asked| fake.with_signed_assertion(&fake.says(&world, "corp", asked));
    let tokens = world.through_saml(&mut Browser::default(), "corp", "", asked).await.unwrap();
    let claims = id_token(&tokens);
    assert_eq!((&claims["acr"], &claims["auth_time"]), (&json!("strong"), &json!(world.now().0)));
    let user = user_of(&world, &tokens).await;
    assert_eq!(user.username, "erin.upstream");
    assert_eq!(user.email.as_deref(), Some("erin@acme.example"));
    assert_eq!(user.display_name.as_deref(), Some("Erin There"));
    let groups: Vec<&str> = user.groups.iter().map(String::as_str).collect();
    assert_eq!(groups, ["engineering"], "only what is mapped");
    let reply = exchange(&world, &tokens).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // As Keycloak signs by default: the response, and nothing in it. The same person.
    let whole = |asked: &Asked| fake.signed_response(&fake.says(&world, "corp", asked));
    let again = world.through_saml(&mut Browser::default(), "corp", "", whole).await.unwrap();
    assert_eq!(user_of(&world, &again).await.id, user.id);
    // Both are signed.
    let both = |asked: &Asked| {
        let says = fake.says(&world, "corp", asked);
        let response = fake.response(&says, &fake.signed(&says));
        with_signature(&response, &fake.signature(&response, &format!("_r{}", says.id)))
    };
    world.through_saml(&mut Browser::default(), "corp", "", both).await.unwrap();
    // Attributes that occur twice, as Keycloak writes each role; a group that is not there any more.
    let split = |asked: &Asked| {
        let mut says = fake.says(&world, "corp", asked);
        says.attributes.retain(|(name, _)| name != "groups");
        says.attributes.push(("groups".to_owned(), vec!["x".to_owned()]));
        says.attributes.push(("groups".to_owned(), vec!["y &amp; z".to_owned()]));
        fake.with_signed_assertion(&says)
    };
    let less = world.through_saml(&mut Browser::default(), "corp", "", split).await.unwrap();
    assert!(user_of(&world, &less).await.groups.is_empty());
    assert_eq!(exchange(&world, &less).await.str("error"), "access_denied");
}

/// What somebody makes of what a good response says.
type Attack<'a> = Box<dyn Fn(&Says) -> String + 'a>;

/// Every way to change a good response that has been thought of. Each begins a sign-in of its own, which
/// would succeed without the change.
#[tokio::test]
#[allow(clippy::too_many_lines)] // one table
async fn what_was_not_signed_for_us_now_lets_nobody_in() {
    let (world, fake) = company(json!({})).await;
    let other = FakeSaml::other(ENTITY);
    let evil = |says: &Says| {
        let mut evil = says.clone();
        evil.id = "_evil".to_owned();
        evil.name_id = "admin-there".to_owned();
        fake.assertion(&evil)
    };
    let same_id = |says: &Says| {
        let mut evil = says.clone();
        evil.name_id = "admin-there".to_owned();
        fake.assertion(&evil)
    };
    let inner = |signed: &str| signed.split_once("<ds:Signature").unwrap().1.to_owned();
    let signature = |signed: &str| {
        format!(
            "<ds:Signature{}</ds:Signature>",
            inner(signed).split_once("</ds:Signature>").unwrap().0
        )
    };
    let changed = |change: fn(&mut Says, &World)| -> Attack<'_> {
        let (world, fake) = (&world, &fake);
        Box::new(move |says| {
            let mut says = says.clone();
            change(&mut says, world);
            fake.with_signed_assertion(&says)
        })
    };
    let replaced = |from: &'static str, to: &'static str| -> Attack<'_> {
        let fake = &fake;
        Box::new(move |says| {
            let response = fake.with_signed_assertion(says);
            assert!(response.contains(from), "{from}");
            response.replacen(from, to, 1)
        })
    };
    // What is changed of `SignedInfo` before the identity provider's own key signs it: algorithms and
    // transforms are held even where the key is right.
    let info = |from: &'static str, to: &'static str| -> Attack<'_> {
        let fake = &fake;
        Box::new(move |says| {
            let assertion = fake.assertion(says);
            let signature = fake.signature_with(&assertion, &says.id, |info| {
                assert!(info.contains(from), "{from}");
                info.replacen(from, to, 1)
            });
            fake.response(says, &with_signature(&assertion, &signature))
        })
    };
    let attacks: Vec<(&str, Attack<'_>, &str)> = vec![
        // Signature wrapping, in the eight forms that have names.
        (
            "wrapped response inside the signature",
            Box::new(|says| {
                let signed = fake.signed_response(says);
                let original = fake.response(says, &fake.assertion(says));
                let evil = fake.response(says, &evil(says)).replace("_r_", "_x_");
                let held = signature(&signed).replace(
                    "</ds:Signature>",
                    &format!("<ds:Object>{original}</ds:Object></ds:Signature>"),
                );
                with_signature(&evil, &held)
            }),
            "several responses",
        ),
        (
            "wrapped response beside the signature",
            Box::new(|says| {
                let signed = fake.signed_response(says);
                let original = fake.response(says, &fake.assertion(says));
                let evil = fake.response(says, &evil(says)).replace("_r_", "_x_");
                with_signature(&evil, &format!("{}{original}", signature(&signed)))
            }),
            "several responses",
        ),
        (
            "evil assertion before the signed one",
            Box::new(|says| fake.response(says, &format!("{}{}", evil(says), fake.signed(says)))),
            "several responses",
        ),
        (
            "signed assertion inside the evil one",
            Box::new(|says| {
                let evil = evil(says).replace(
                    "</saml:Assertion>",
                    &format!("{}</saml:Assertion>", fake.signed(says)),
                );
                fake.response(says, &evil)
            }),
            "several responses",
        ),
        (
            "the evil one has the signature, the signed one comes last",
            Box::new(|says| {
                let signed = fake.signed(says);
                let evil = with_signature(&evil(says), &signature(&signed));
                fake.response(says, &format!("{evil}{}", fake.assertion(says)))
            }),
            "several responses",
        ),
        (
            "the signed one inside the signature of the evil one",
            Box::new(|says| {
                let held = signature(&fake.signed(says)).replace(
                    "</ds:Signature>",
                    &format!("{}</ds:Signature>", fake.assertion(says)),
                );
                fake.response(says, &with_signature(&evil(says), &held))
            }),
            "several responses",
        ),
        (
            "the evil one in extensions, with the same ID",
            Box::new(|says| {
                let response = fake.with_signed_assertion(says);
                let extensions =
                    format!("<samlp:Extensions>{}</samlp:Extensions><samlp:Status>", same_id(says));
                response.replacen("<samlp:Status>", &extensions, 1)
            }),
            "several responses",
        ),
        (
            "the signed one in an object of the evil one's signature",
            Box::new(|says| {
                let held = signature(&fake.signed(says)).replace(
                    "</ds:Signature>",
                    &format!("<ds:Object>{}</ds:Object></ds:Signature>", fake.assertion(says)),
                );
                fake.response(says, &with_signature(&same_id(says), &held))
            }),
            "several responses",
        ),
        // The same with names that only one of two readers knows.
        (
            "the signed one in another namespace",
            Box::new(|says| {
                let held =
                    fake.signed(says).replace("saml:", "old:").replace("xmlns:saml", "xmlns:old");
                let extensions =
                    format!("<samlp:Extensions>{held}</samlp:Extensions><samlp:Status>");
                fake.response(says, &evil(says)).replacen("<samlp:Status>", &extensions, 1)
            }),
            "several responses",
        ),
        (
            "the signed one hidden in an attribute value",
            Box::new(|says| {
                let mut outer = says.clone();
                outer.id = "_evil".to_owned();
                outer.name_id = "admin-there".to_owned();
                outer.attributes.push(("x".to_owned(), vec![fake.signed(says)]));
                fake.response(&outer, &fake.assertion(&outer))
            }),
            "several responses",
        ),
        (
            "an ID that two elements have",
            Box::new(|says| {
                let response = fake.with_signed_assertion(says);
                response.replacen(
                    "<samlp:Status>",
                    &format!("<samlp:Status id=\"{}\">", says.id),
                    1,
                )
            }),
            "without an ID of its own",
        ),
        (
            "two signatures",
            Box::new(|says| {
                let signed = fake.signed(says);
                let held = signature(&signed);
                fake.response(says, &with_signature(&signed, &held))
            }),
            "several signatures",
        ),
        (
            "a signature in an odd place",
            Box::new(|says| {
                let signed = fake.signed(says);
                let moved = format!("<saml:Subject>{}", signature(&signed));
                fake.response(says, &fake.assertion(says).replacen("<saml:Subject>", &moved, 1))
            }),
            "odd place",
        ),
        (
            "something else in the response",
            replaced("<samlp:Status>", "<x></x><samlp:Status>"),
            "no part",
        ),
        // What was signed is changed.
        ("another name", replaced(">erin-there<", ">admin-there<"), "digest"),
        ("a comment in the name", replaced(">erin-there<", ">erin<!-- x -->-there<"), "comment"),
        ("CDATA in the name", replaced(">erin-there<", "><![CDATA[erin-there]]><"), "CDATA"),
        (
            "a processing instruction in the name",
            replaced(">erin-there<", ">erin<?x y?>-there<"),
            "processing",
        ),
        ("another group", replaced(">admins<", ">Eng<"), "digest"),
        ("another digest", replaced("<ds:DigestValue>", "<ds:DigestValue>AAAA"), "none of"),
        (
            "two digests",
            replaced("<ds:DigestValue>", "<ds:DigestValue>AA==</ds:DigestValue><ds:DigestValue>"),
            "not formed",
        ),
        (
            "a comment in the digest",
            replaced("<ds:DigestValue>", "<ds:DigestValue><!-- x -->"),
            "comment",
        ),
        ("no signature", Box::new(|says| fake.response(says, &fake.assertion(says))), "is signed"),
        (
            "an empty signature",
            Box::new(|says| {
                fake.response(
                    says,
                    &with_signature(
                        &fake.assertion(says),
                        &format!("<ds:Signature xmlns:ds=\"{DS}\"></ds:Signature>"),
                    ),
                )
            }),
            "not formed",
        ),
        (
            "somebody else's key, with its certificate",
            Box::new(|says| other.with_signed_assertion(says)),
            "none of",
        ),
        (
            "a good response around an assertion of somebody else",
            Box::new(|says| {
                let response = fake.response(says, &other.signed(says));
                with_signature(&response, &fake.signature(&response, &format!("_r{}", says.id)))
            }),
            "none of",
        ),
        (
            "somebody else's response around a good assertion",
            Box::new(|says| {
                let response = fake.response(says, &fake.signed(says));
                with_signature(&response, &other.signature(&response, &format!("_r{}", says.id)))
            }),
            "none of",
        ),
        // Algorithms and transforms.
        (
            "SHA-1",
            info("2001/04/xmldsig-more#rsa-sha256", "2000/09/xmldsig#rsa-sha1"),
            "not accepted",
        ),
        ("HMAC", info("xmldsig-more#rsa-sha256", "xmldsig-more#hmac-sha256"), "not accepted"),
        (
            "no algorithm",
            info("Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256\"", "x=\"\""),
            "names no algorithm",
        ),
        (
            "a digest by SHA-1",
            info("2001/04/xmlenc#sha256", "2000/09/xmldsig#sha1"),
            "not accepted",
        ),
        (
            "canonicalization with comments",
            info("xml-exc-c14n#\"></ds:Canon", "xml-exc-c14n#WithComments\"></ds:Canon"),
            "not accepted",
        ),
        (
            "inclusive canonicalization",
            info("2001/10/xml-exc-c14n#\"></ds:Transform>", "2006/12/xml-c14n11\"></ds:Transform>"),
            "not accepted",
        ),
        (
            "XSLT",
            info(
                "<ds:Transforms>",
                "<ds:Transforms><ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"></ds:Transform>",
            ),
            "not formed",
        ),
        (
            "XPath in place of the enveloped signature",
            info(
                "http://www.w3.org/2000/09/xmldsig#enveloped-signature",
                "http://www.w3.org/TR/1999/REC-xpath-19991116",
            ),
            "odd transforms",
        ),
        ("a reference to the whole document", info("URI=\"#", "x=\"#"), "does not cover"),
        ("a reference to nothing", info("URI=\"#_a", "URI=\"#_b"), "does not cover"),
        ("a reference to a file", info("URI=\"#", "URI=\"file:///etc/passwd#"), "does not cover"),
        (
            "two references",
            Box::new(|says| {
                let assertion = fake.assertion(says);
                let signature = fake.signature_with(&assertion, &says.id, |info| {
                    let (_, reference) = info.split_once("<ds:Reference").unwrap();
                    let reference =
                        format!("<ds:Reference{}", reference.replace("</ds:SignedInfo>", ""));
                    info.replace("</ds:SignedInfo>", &format!("{reference}</ds:SignedInfo>"))
                });
                fake.response(says, &with_signature(&assertion, &signature))
            }),
            "not formed",
        ),
        // Documents that cost, or that read something else.
        (
            "an external entity",
            Box::new(|says| {
                let response = fake.with_signed_assertion(says).replace(">erin-there<", ">&x;<");
                format!("<!DOCTYPE r [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>{response}")
            }),
            "XML",
        ),
        (
            "entities of entities",
            Box::new(|says| {
                let entities: Vec<String> = (0..30)
                    .map(|n| format!("<!ENTITY e{n} \"&e{0};&e{0};&e{0};&e{0};\">", n + 1))
                    .collect();
                let entities = entities.concat();
                format!("<!DOCTYPE r [{entities}]>{}", fake.with_signed_assertion(says))
            }),
            "XML",
        ),
        ("a deep document", Box::new(|_| "<a>".repeat(5000)), "XML"),
        ("a wide document", Box::new(|_| format!("<a>{}</a>", "<b/>".repeat(12_000))), "tags"),
        ("a long document", Box::new(|_| format!("<a>{}</a>", "x".repeat(140_000))), "longer than"),
        ("no XML", Box::new(|_| "nothing".to_owned()), "XML"),
        (
            "a request",
            Box::new(|_| {
                "<samlp:AuthnRequest xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\"/>"
                    .to_owned()
            }),
            "is not a response",
        ),
        // What is canonicalized before it is known whose it is, made long.
        (
            "a long namespace for many elements in the method of a signature",
            Box::new(|says| {
                let response = fake.with_signed_assertion(says);
                let many = format!("rsa-sha256\">{}</ds:SignatureMethod>", "<p:a/>".repeat(9_000));
                let response = response.replacen("rsa-sha256\"></ds:SignatureMethod>", &many, 1);
                response.replacen(
                    "<samlp:Response ",
                    &format!("<samlp:Response xmlns:p=\"u:{}\" ", "x".repeat(60_000)),
                    1,
                )
            }),
            "namespace",
        ),
        (
            "a namespace with a reference in it",
            Box::new(|says| {
                let response = fake.with_signed_assertion(says);
                response.replacen("<samlp:Response ", "<samlp:Response xmlns:p=\"u:&amp;x\" ", 1)
            }),
            "namespace",
        ),
        (
            "elements in the method of a signature",
            replaced(
                "rsa-sha256\"></ds:SignatureMethod>",
                "rsa-sha256\"><ds:a/></ds:SignatureMethod>",
            ),
            "parameters",
        ),
        (
            "elements in the method of a digest",
            replaced("#sha256\"></ds:DigestMethod>", "#sha256\"><ds:a/></ds:DigestMethod>"),
            "parameters",
        ),
        ("elements in a digest", replaced("<ds:DigestValue>", "<ds:DigestValue><ds:a/>"), "base64"),
        (
            "a declaration that forges a line of the log",
            Box::new(|says| {
                format!(
                    "<?xml version=\"1.0\n2026 INFO forged\"?>{}",
                    fake.with_signed_assertion(says)
                )
            }),
            "another version",
        ),
        // Something encrypted, whole or in part.
        (
            "an encrypted assertion",
            Box::new(|says| {
                fake.response(says, "<saml:EncryptedAssertion xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\"></saml:EncryptedAssertion>")
            }),
            "encrypted",
        ),
        (
            "an encrypted name",
            Box::new(|says| {
                let mut says = says.clone();
                says.name_id =
                    "x</saml:NameID><saml:EncryptedID></saml:EncryptedID><saml:NameID>y".to_owned();
                fake.with_signed_assertion(&says)
            }),
            "encrypted",
        ),
        // Signed, but not for us, not now, or not in answer to this.
        (
            "another audience",
            changed(|says, _| says.audience = "https://other.example/sp".to_owned()),
            "not for this service provider",
        ),
        (
            "an audience that only begins alike",
            changed(|says, _| says.audience.push('/')),
            "not for this service provider",
        ),
        (
            "a second restriction that leaves us out",
            changed(|says, _| {
                says.conditions = "<saml:AudienceRestriction><saml:Audience>x</saml:Audience></saml:AudienceRestriction>".to_owned();
            }),
            "not for this service provider",
        ),
        (
            "another recipient",
            Box::new(|says| {
                let mut other = says.clone();
                other.recipient = "https://other.example/acs".to_owned();
                fake.response(says, &fake.signed(&other))
            }),
            "for the address",
        ),
        (
            "another destination",
            Box::new(|says| {
                let mut other = says.clone();
                other.recipient = "https://other.example/acs".to_owned();
                fake.response(&other, &fake.signed(says))
            }),
            "for the address",
        ),
        (
            "another upstream's recipient",
            changed(|says, world| {
                says.recipient = world.idp.endpoint("/callback/other");
            }),
            "for the address",
        ),
        (
            "another issuer",
            changed(|says, _| says.issuer = "https://other.example".to_owned()),
            "was made by",
        ),
        ("no request", changed(|says, _| says.in_response_to = String::new()), "does not answer"),
        (
            "another request",
            changed(|says, _| says.in_response_to = "_other".to_owned()),
            "does not answer",
        ),
        (
            "a good response around an assertion for another request",
            Box::new(|says| {
                let mut other = says.clone();
                other.in_response_to = "_other".to_owned();
                fake.response(says, &fake.signed(&other))
            }),
            "does not answer",
        ),
        (
            "too late",
            changed(|says, world| {
                (says.at, says.ends) = (world.now().plus(-400), world.now().plus(-31));
            }),
            "not good any more",
        ),
        (
            "too early",
            changed(|says, world| {
                (says.at, says.ends) = (world.now().plus(40), world.now().plus(300));
            }),
            "not good yet",
        ),
        (
            "good for a day",
            changed(|says, world| says.ends = world.now().plus(86_400)),
            "two hours",
        ),
        (
            "signed in tomorrow",
            changed(|says, world| says.authn_instant = world.now().plus(86_400)),
            "not good yet",
        ),
        (
            "a session that has ended",
            changed(|says, world| says.session_ends = Some(world.now().plus(-1))),
            "has ended",
        ),
        (
            "a condition that is not known",
            changed(|says, _| {
                says.conditions = "<x:Mystery xmlns:x=\"urn:x\"></x:Mystery>".to_owned();
            }),
            "Mystery",
        ),
        (
            "a condition that cannot be kept",
            changed(|says, _| {
                says.conditions =
                    "<saml:ProxyRestriction Count=\"0\"></saml:ProxyRestriction>".to_owned();
            }),
            "ProxyRestriction",
        ),
        (
            "an empty name",
            changed(|says, _| says.name_id = String::new()),
            "name identifier that is empty",
        ),
        ("a padded name", changed(|says, _| says.name_id = " erin-there".to_owned()), "padded"),
        (
            "a name with an invisible letter",
            changed(|says, _| says.name_id = "erin\u{200b}-there".to_owned()),
            "printable",
        ),
        (
            "two names",
            changed(|says, _| {
                says.name_id = "erin-there</saml:NameID><saml:NameID>admin-there".to_owned();
            }),
            "several name",
        ),
        (
            "a failure that is signed",
            changed(|says, _| {
                says.status = "urn:oasis:names:tc:SAML:2.0:status:Responder".to_owned();
            }),
            "Responder",
        ),
        (
            "a time that is not in UTC",
            replaced(
                "Z\" Version=\"2.0\"><saml:Issuer xmlns",
                "+00:00\" Version=\"2.0\"><saml:Issuer xmlns",
            ),
            "UTC",
        ),
        (
            "another version",
            replaced("Version=\"2.0\"><saml:Issuer xmlns", "Version=\"1.1\"><saml:Issuer xmlns"),
            "SAML 2.0",
        ),
    ];
    for (what, attack, why) in &attacks {
        let mut says = None;
        let respond = |asked: &Asked| {
            let good = fake.says(&world, "corp", asked);
            says = Some(good.clone());
            attack(&good)
        };
        let came = world.through_saml(&mut Browser::default(), "corp", "", respond).await;
        let Err(reply) = came else { panic!("{what}: it was let in") };
        assert_eq!(reply.status, 400, "{what}: {}", reply.text);
        assert!(
            reply
                .headers
                .get("set-cookie")
                .is_none_or(|cookie| { !cookie.to_str().unwrap().contains("session=") }),
            "{what}"
        );
        let (reason, detail) = refused(&world).await;
        assert!(detail.contains(why), "{what}: {reason}: {detail}");
        assert!(!detail.contains("admin-there"), "{what}: what was sent is not told: {detail}");
    }
    // Nobody was added by any of it, and a good one still lets in.
    let people = world.idp_admin().list::<Users>(&ListQuery::default()).await.unwrap();
    assert!(people.items.iter().all(|user| !user.username.contains("upstream")));
    let good = |asked: &Asked| fake.with_signed_assertion(&fake.says(&world, "corp", asked));
    world.through_saml(&mut Browser::default(), "corp", "", good).await.unwrap();
}

#[tokio::test]
async fn a_response_is_taken_once_in_the_browser_that_asked_for_it() {
    let (world, fake) = company(json!({})).await;
    let mut browser = Browser::default();
    let (asked, _) = world.ask_saml(&mut browser, "corp", "").await;
    let response = fake.with_signed_assertion(&fake.says(&world, "corp", &asked));
    // In another browser: the sign-in was not begun there.
    let mut stranger = Browser::default();
    let reply = world.bring_saml(&mut stranger, "corp", &response, &asked.relay_state).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    // Without `RelayState`, as a portal's tile sends it.
    let mut unasked = world.post_saml("corp", &response, "");
    unasked.form.truncate(1);
    let reply = world.send(&unasked).await;
    assert!(reply.status == 400 && reply.text.contains("not begun here"), "{}", reply.text);
    // A page of ours posts to the addresses of upstreams alone, however this one is spelled.
    for name in ["nobody", "..%2Flogout", "%2e%2e%2flogout%3Fx", "corp%2F..%2F..%2Flogout"] {
        let post = world.post_saml(name, &response, "x");
        let reply = world.send(&post).await;
        assert_eq!(reply.status, 404, "{name}: {}", reply.text);
        assert!(!reply.text.contains("<form"), "{name}: {}", reply.text);
    }
    // At another upstream's address.
    world.add_saml("other", &FakeSaml::new("urn:other").by_redirect(), json!({})).await;
    let mut mixed = browser.clone();
    let reply = world.bring_saml(&mut mixed, "other", &response, &asked.relay_state).await;
    assert_eq!(refused(&world).await.0, "sign_in.mixed_up", "{}", reply.text);
    // That used the sign-in up; a new one, brought back twice.
    let (asked, _) = world.ask_saml(&mut browser, "corp", "").await;
    let response = fake.with_signed_assertion(&fake.says(&world, "corp", &asked));
    let mut copy = browser.clone();
    let reply = world.bring_saml(&mut browser, "corp", &response, &asked.relay_state).await;
    assert!(reply.headers.contains_key("refresh"), "{}", reply.text);
    let reply = world.bring_saml(&mut copy, "corp", &response, &asked.relay_state).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    // An identity provider that gives one assertion for two requests: the store knows its ID.
    let (first, _) = world.ask_saml(&mut copy, "corp", "").await;
    let mut says = fake.says(&world, "corp", &first);
    says.id = "_the-same".to_owned();
    let response = fake.with_signed_assertion(&says);
    let reply = world.bring_saml(&mut copy, "corp", &response, &first.relay_state).await;
    assert!(reply.headers.contains_key("refresh"), "{}", reply.text);
    let (second, _) = world.ask_saml(&mut Browser::default().clone(), "corp", "").await;
    let mut browser = Browser::default();
    let (third, _) = world.ask_saml(&mut browser, "corp", "").await;
    assert_ne!(second.id, third.id);
    let mut says = fake.says(&world, "corp", &third);
    says.id = "_the-same".to_owned();
    let response = fake.with_signed_assertion(&says);
    let reply = world.bring_saml(&mut browser, "corp", &response, &third.relay_state).await;
    assert_eq!(refused(&world).await.0, "sign_in.replayed", "{}", reply.text);
    // A response of OpenID Connect at an upstream of SAML is none.
    let (asked, _) = world.ask_saml(&mut browser, "corp", "").await;
    let url = world.idp.endpoint(&format!("/callback/corp?code=x&state={}", asked.relay_state));
    let reply = browser.get(&world, &url).await;
    assert_eq!(refused(&world).await.0, "sign_in.upstream_invalid", "{}", reply.text);
}

#[tokio::test]
async fn a_request_says_what_is_wished_and_is_signed_where_that_is_wanted() {
    let (world, fake) = company(json!({})).await;
    let (asked, _) = world.ask_saml(&mut Browser::default(), "corp", "&prompt=login").await;
    assert!(asked.url.starts_with(SSO), "{}", asked.url);
    assert!(asked.relay_state.len() <= 80, "{}", asked.relay_state);
    assert!(!asked.query.contains_key("Signature"), "it did not ask for that");
    let acs = world.idp.endpoint("/callback/corp");
    for part in [
        format!("AssertionConsumerServiceURL=\"{acs}\""),
        format!("Destination=\"{SSO}\""),
        "ForceAuthn=\"true\"".to_owned(),
        "ProtocolBinding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST\"".to_owned(),
        format!(">{}</saml:Issuer>", world.idp.endpoint("/saml/corp")),
        "Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:persistent\"".to_owned(),
    ] {
        assert!(asked.xml.contains(&part), "{part}: {}", asked.xml);
    }
    // A class that is asked for goes there by its name there.
    let (asked, _) = world.ask_saml(&mut Browser::default(), "corp", "&acr_values=strong").await;
    let class =
        "PasswordProtectedTransport</saml:AuthnContextClassRef></samlp:RequestedAuthnContext>";
    assert!(asked.xml.contains(class) && !asked.xml.contains("ForceAuthn"), "{}", asked.xml);
    // A new sign-in that was asked for has to be one.
    let old = |asked: &Asked| {
        let mut says = fake.says(&world, "corp", asked);
        says.authn_instant = world.now().plus(-600);
        fake.with_signed_assertion(&says)
    };
    let more = "&prompt=login";
    let reply = world.through_saml(&mut Browser::default(), "corp", more, old).await.unwrap_err();
    assert_eq!(refused(&world).await.0, "sign_in.stale", "{}", reply.text);
    // Signed, over the very query.
    let change: UpstreamChange =
        serde_json::from_value(json!({"saml": {"sign_requests": true}})).unwrap();
    world.idp_admin().change::<Upstreams>("corp", &change, None).await.unwrap();
    let (asked, _) = world.ask_saml(&mut Browser::default(), "corp", "").await;
    let query = asked.url.split_once('?').unwrap().1;
    let (signed, signature) = query.split_once("&Signature=").unwrap();
    assert!(signed.contains("&SigAlg=http"), "{signed}");
    let key = passavant_proto::jose::jwk::SigningKey::from_pkcs8(
        passavant_proto::jose::jwk::Algorithm::RS256,
        &passavant_tests::forge::rsa_der(),
    );
    let expected = key.unwrap().sign_saml(signed.as_bytes()).unwrap();
    let held: String = form_urlencoded::parse(format!("s={signature}").as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect();
    assert_eq!(STANDARD.encode(expected), held);
    // Our metadata says all that it has to know.
    let metadata = Browser::default().get(&world, &world.idp.endpoint("/saml/corp")).await;
    assert_eq!(metadata.header("content-type"), "application/samlmetadata+xml");
    for part in [
        format!("entityID=\"{}\"", world.idp.endpoint("/saml/corp")),
        format!("Location=\"{acs}\""),
        "WantAssertionsSigned=\"true\"".to_owned(),
        "AuthnRequestsSigned=\"true\"".to_owned(),
        "<ds:X509Certificate>".to_owned(),
    ] {
        assert!(metadata.text.contains(&part), "{part}: {}", metadata.text);
    }
    let none = Browser::default().get(&world, &world.idp.endpoint("/saml/nobody")).await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn where_only_posts_are_taken_a_page_of_ours_posts_a_signed_request() {
    let world = World::new().await;
    let fake = FakeSaml::new("urn:acme:sso");
    let service = format!(
        r#"<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="{SSO}"/>"#
    );
    world.add_saml("corp", &fake.metadata(true, &service), json!({})).await;
    let (asked, _) = world.ask_saml(&mut Browser::default(), "corp", "").await;
    // The identity provider's side of it, with the reader that reads responses: what was signed is what
    // was sent.
    let key = passavant_tests::saml::certificate(&passavant_tests::forge::rsa_der());
    assert!(passavant_saml::verifies(&asked.xml, std::slice::from_ref(&key)), "{}", asked.xml);
    let other = asked.xml.replace("Version=\"2.0\"", "Version=\"2.1\"");
    assert!(!passavant_saml::verifies(&other, &[key]), "{other}");
    let good = |asked: &Asked| fake.with_signed_assertion(&fake.says(&world, "corp", asked));
    world.through_saml(&mut Browser::default(), "corp", "", good).await.unwrap();
}

#[tokio::test]
async fn people_are_known_by_what_an_administrator_chose_and_by_nothing_else() {
    let (world, fake) = company(json!({})).await;
    let named = |format: &str, name: &str| {
        let (format, name) = (format.to_owned(), name.to_owned());
        let (world, fake) = (&world, &fake);
        move |asked: &Asked| {
            let mut says = fake.says(world, "corp", asked);
            says.name_id = name;
            says.name_id_attributes =
                if format.is_empty() { String::new() } else { format!(" Format=\"{format}\"") };
            fake.with_signed_assertion(&says)
        }
    };
    let email = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress";
    let persistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
    let elsewhere = format!("{persistent}\" NameQualifier=\"urn:another-realm");
    let for_another = format!("{persistent}\" SPNameQualifier=\"urn:another-sp");
    for format in
        [email, "urn:oasis:names:tc:SAML:2.0:nameid-format:transient", "", &elsewhere, &for_another]
    {
        let respond = named(format, "erin@acme.example");
        let came = world.through_saml(&mut Browser::default(), "corp", "", respond).await;
        let reply = came.unwrap_err();
        assert_eq!(reply.status, 403, "{format}: {}", reply.text);
        assert_eq!(refused(&world).await.0, "sign_in.claim", "{format}");
    }
    // By an attribute: a transient name identifier does then, and the attribute must be one text.
    let by_attribute = json!({"saml": {"subject_attribute": "uid"}});
    let second = FakeSaml::new("urn:acme:second");
    world.add_saml("second", &second.by_redirect(), by_attribute).await;
    let with = |values: &[&str]| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let (world, second) = (&world, &second);
        move |asked: &Asked| {
            let mut says = second.says(world, "second", asked);
            says.name_id_attributes =
                r#" Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient""#.to_owned();
            says.attributes[2].1 = vec!["second.erin".to_owned()];
            says.attributes.push(("uid".to_owned(), values));
            second.with_signed_assertion(&says)
        }
    };
    let first = world.through_saml(&mut Browser::default(), "second", "", with(&["e1"])).await;
    let first = user_of(&world, &first.unwrap()).await;
    let links = world.idp_admin().person_links("second").await.unwrap().items;
    assert_eq!((links[0].subject.as_str(), links[0].issuer.as_str()), ("e1", "urn:acme:second"));
    assert_eq!(links[0].user, first.id);
    for values in [&["e1", "e2"][..], &[""], &[" e1"], &[]] {
        let came = world.through_saml(&mut Browser::default(), "second", "", with(values)).await;
        assert_eq!(came.unwrap_err().status, 403, "{values:?}");
    }
    // At Entra by tenant and object, whatever the name identifier says.
    let tenant = "11111111-2222-3333-4444-555555555555";
    let entra = FakeSaml::new(&format!("https://sts.windows.net/{tenant}/"));
    world.add_saml("entra", &entra.by_redirect(), json!({"preset": "entra"})).await;
    let object = |oid: &str, tid: &str| {
        let (oid, tid) = (oid.to_owned(), tid.to_owned());
        let (world, entra) = (&world, &entra);
        move |asked: &Asked| {
            let mut says = entra.says(world, "entra", asked);
            let at = "http://schemas.microsoft.com/identity/claims";
            says.attributes[2].1 = vec!["entra.erin".to_owned()];
            says.attributes.push((format!("{at}/objectidentifier"), vec![oid]));
            says.attributes.push((format!("{at}/tenantid"), vec![tid]));
            entra.with_signed_assertion(&says)
        }
    };
    let came = world.through_saml(&mut Browser::default(), "entra", "", object("o1", tenant)).await;
    came.unwrap();
    let links = world.idp_admin().person_links("entra").await.unwrap().items;
    assert_eq!((links[0].subject.as_str(), links[0].tenant.as_deref()), ("o1", Some(tenant)));
    let other = "99999999-2222-3333-4444-555555555555";
    let came = world.through_saml(&mut Browser::default(), "entra", "", object("o1", other)).await;
    assert_eq!(came.unwrap_err().status, 403);
    assert_eq!(refused(&world).await.0, "sign_in.tenant");
    // Groups that are too many for an assertion.
    world
        .add_saml(
            "many",
            &FakeSaml::new("https://sts.windows.net/x/").by_redirect(),
            json!({"preset": "entra", "groups": {"G": "engineering"}}),
        )
        .await;
    let many = FakeSaml::new("https://sts.windows.net/x/");
    let respond = |asked: &Asked| {
        let mut says = many.says(&world, "many", asked);
        let at = "http://schemas.microsoft.com/identity/claims";
        says.attributes.push((format!("{at}/objectidentifier"), vec!["o2".to_owned()]));
        says.attributes.push((format!("{at}/tenantid"), vec!["x".to_owned()]));
        says.attributes.push((
            "http://schemas.microsoft.com/claims/groups.link".to_owned(),
            vec!["https://graph.example".to_owned()],
        ));
        many.with_signed_assertion(&says)
    };
    let came = world.through_saml(&mut Browser::default(), "many", "", respond).await;
    assert_eq!(came.unwrap_err().status, 403);
    assert_eq!(refused(&world).await.0, "sign_in.group_overage");
}

#[tokio::test]
async fn a_session_ends_when_the_identity_provider_says_so() {
    let (world, fake) = company(json!({})).await;
    let ends = world.now().plus(600);
    let respond = |asked: &Asked| {
        let mut says = fake.says(&world, "corp", asked);
        says.session_ends = Some(ends);
        fake.with_signed_assertion(&says)
    };
    let tokens = world.through_saml(&mut Browser::default(), "corp", "", respond).await.unwrap();
    assert_eq!(id_token(&tokens)["session_expiry"], json!(ends.0));
    assert_eq!(exchange(&world, &tokens).await.status, 200);
    let by_refresh_token = async |tokens: &Value| {
        let token = tokens["refresh_token"].as_str().unwrap();
        let ask = exchange_of(&world, token);
        world.send(&ask).await.status
    };
    assert_eq!(by_refresh_token(&tokens).await, 200);
    world.pass(640);
    assert_ne!(exchange(&world, &tokens).await.status, 200, "the session is over");
    assert_eq!(
        by_refresh_token(&tokens).await,
        400,
        "nobody could ask whether they are still there"
    );
    // Without its word, with the session here: nothing of it outlives that.
    let good = |asked: &Asked| fake.with_signed_assertion(&fake.says(&world, "corp", asked));
    let tokens = world.through_saml(&mut Browser::default(), "corp", "", good).await.unwrap();
    let ends = id_token(&tokens)["session_expiry"].as_i64().unwrap();
    assert_eq!(by_refresh_token(&tokens).await, 200);
    world.pass(ends - world.now().0 + 40);
    assert_eq!(by_refresh_token(&tokens).await, 400);
}

#[tokio::test]
async fn an_id_jag_names_people_by_their_name_identifier_where_that_is_wanted() {
    let (world, fake) = company(json!({})).await;
    let change = json!({"sub_id": "saml-nameid"});
    let change = serde_json::from_value(change).unwrap();
    let ras = world.ras.as_str();
    world.idp_admin().change::<AuthorizationServers>(ras, &change, None).await.unwrap();
    let named = |attributes: &str, name: &str| {
        let (attributes, name) = (attributes.to_owned(), name.to_owned());
        let (world, fake) = (&world, &fake);
        move |asked: &Asked| {
            let mut says = fake.says(world, "corp", asked);
            says.name_id = name;
            says.name_id_attributes.push_str(&attributes);
            fake.with_signed_assertion(&says)
        }
    };
    let sub_id = async |tokens: &Value| {
        let reply = exchange(&world, tokens).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        Parts::of(reply.str("access_token")).claims["sub_id"].clone()
    };
    let respond = named("", "erin-there");
    let tokens = world.through_saml(&mut Browser::default(), "corp", "", respond).await.unwrap();
    let persistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
    assert_eq!(
        sub_id(&tokens).await,
        json!({"format": "saml-nameid", "issuer": ENTITY, "nameid": "erin-there",
            "nameid_format": persistent})
    );
    // Each member exactly when the name identifier has it.
    let sp = world.idp.endpoint("/saml/corp");
    let more =
        format!(r#" NameQualifier="{ENTITY}" SPNameQualifier="{sp}" SPProvidedID="p &amp; q""#);
    let respond = named(&more, "erin-there");
    let tokens = world.through_saml(&mut Browser::default(), "corp", "", respond).await.unwrap();
    assert_eq!(
        sub_id(&tokens).await,
        json!({"format": "saml-nameid", "issuer": ENTITY, "nameid": "erin-there",
            "nameid_format": persistent, "name_qualifier": ENTITY,
            "sp_name_qualifier": sp, "sp_provided_id": "p & q"})
    );
    // People who do not sign in by SAML have none, and who is unlinked has none any more.
    let own = world.sign_in().await;
    let reply = world.send(&world.exchange(&own.id_token)).await;
    assert_eq!(Parts::of(reply.str("access_token")).claims.get("sub_id"), None);
    let id = id_token(&tokens)["sub"].as_str().unwrap().to_owned();
    let user = async || world.idp_store.by_id::<passavant_store::User>(&id).await.unwrap().unwrap();
    assert!(user().await.saml_subject.is_some());
    let query = PersonLinkQuery { subject: "erin-there".to_owned(), tenant: None };
    world.idp_admin().unlink_person("corp", &query).await.unwrap();
    assert_eq!(user().await.saml_subject, None);
}

/// An exchange of an assertion for a refresh token.
fn for_refresh_token(world: &World, assertion: &str, more: &[(&str, &str)]) -> Ask {
    let assertion = URL_SAFE.encode(assertion);
    let mut form = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
        ("subject_token", assertion.as_str()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"),
        ("scope", "openid offline_access email"),
    ];
    for (name, value) in more {
        form.retain(|(held, _)| held != name);
        if !value.is_empty() {
            form.push((name, value));
        }
    }
    world.ask(&world.idp, "/token", &form)
}

#[tokio::test]
async fn an_assertion_for_a_client_becomes_a_refresh_token_once() {
    let (world, fake) = company(json!({})).await;
    // What the identity provider gave the client for itself, in answer to a request of its own.
    let given = |change: &dyn Fn(&mut Says)| {
        let asked = Asked {
            id: format!("_{}", world.entropy().id()),
            relay_state: String::new(),
            xml: String::new(),
            query: std::collections::BTreeMap::new(),
            url: String::new(),
        };
        let mut says = fake.says(&world, "corp", &asked);
        says.audience = SP.to_owned();
        says.recipient = "https://agent.example/acs".to_owned();
        change(&mut says);
        says
    };
    let good = || fake.signed(&given(&|_| {}));
    // A client that has no entity ID there: nothing is read.
    let reply = world.send(&for_refresh_token(&world, "<!DOCTYPE x>", &[])).await;
    assert_eq!((reply.status, reply.str("error")), (400, "invalid_request"), "{}", reply.text);
    let change: ClientChange = serde_json::from_value(json!({"saml_entity_id": SP,
        "backchannel_logout_uri": "http://127.0.0.1:9/logout"}))
    .unwrap();
    world.idp_admin().change::<Clients>(AGENT, &change, None).await.unwrap();
    let reply = world.send(&for_refresh_token(&world, &good(), &[])).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.str("issued_token_type"), "urn:ietf:params:oauth:token-type:refresh_token");
    assert_eq!(reply.str("token_type"), "N_A");
    assert_eq!(reply.str("scope"), "email offline_access openid");
    assert!(reply.json.get("refresh_token").is_none() && reply.json.get("id_token").is_none());
    let token = reply.str("access_token").to_owned();
    // It brings ID-JAGs, and is a refresh token like any other.
    let jag = world.send(&exchange_of(&world, &token)).await;
    assert_eq!(jag.status, 200, "{}", jag.text);
    let redeemed = world.send(&world.redeem(jag.str("access_token"))).await;
    assert_eq!(redeemed.status, 200, "{}", redeemed.text);
    let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    // Once, and for nobody else, and only as it was given.
    let once = good();
    assert_eq!(world.send(&for_refresh_token(&world, &once, &[])).await.status, 200);
    let other = FakeSaml::other(ENTITY);
    let says = given(&|_| {});
    for (what, assertion) in [
        ("again", once),
        (
            "another audience",
            fake.signed(&given(&|says| says.audience = "https://x.example".to_owned())),
        ),
        ("ours", fake.signed(&given(&|says| says.audience = world.idp.endpoint("/saml/corp")))),
        ("another issuer", fake.signed(&given(&|says| says.issuer = "urn:other".to_owned()))),
        ("another key", other.signed(&given(&|_| {}))),
        ("not signed", fake.assertion(&says)),
        ("late", fake.signed(&given(&|says| says.ends = world.now().plus(-40)))),
        ("changed", fake.signed(&says).replace("erin-there", "other-there")),
        (
            "a transient name",
            fake.signed(&given(&|says| {
                says.name_id_attributes =
                    " Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:transient\"".to_owned();
            })),
        ),
        ("a bomb", "<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>".to_owned()),
        ("a response", fake.with_signed_assertion(&says)),
        ("nothing", String::new()),
    ] {
        let reply = world.send(&for_refresh_token(&world, &assertion, &[])).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.text);
        let error = if what == "nothing" { "invalid_request" } else { "invalid_grant" };
        assert_eq!(reply.str("error"), error, "{what}: {}", reply.text);
        assert!(reply.json.get("access_token").is_none(), "{what}");
    }
    for (more, error) in [
        (("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"), "invalid_request"),
        (("actor_token", "x"), "invalid_request"),
        (("scope", "openid admin"), "invalid_scope"),
        (("resource", "https://mcp.example"), "invalid_target"),
        (("audience", "https://mcp.example"), "invalid_target"),
        (("subject_token", "***"), "invalid_grant"),
    ] {
        let reply = world.send(&for_refresh_token(&world, &good(), &[more])).await;
        assert_eq!((reply.status, reply.str("error")), (400, error), "{more:?}: {}", reply.text);
    }
    // Who is switched off gets none; the entity ID belongs to one client, which proves who it is.
    let link = world.idp_admin().person_links("corp").await.unwrap().items.remove(0);
    world.idp_admin().switch::<Users>(&link.user, false).await.unwrap();
    // Both sessions that an assertion began have ended, and the client is to be told of each.
    assert_eq!(world.idp_role.get().unwrap().tell_once().await.unwrap(), 2);
    let reply = world.send(&for_refresh_token(&world, &good(), &[])).await;
    assert_eq!(reply.str("error"), "invalid_grant");
    for (id, public) in [("second", false), ("third", true)] {
        let new = json!({"id": id, "name": id, "public": public,
            "redirect_uris": ["http://127.0.0.1/callback"], "saml_entity_id": SP});
        let new = serde_json::from_value(new).unwrap();
        conflict(world.idp_admin().add::<Clients>(&new).await, "saml_entity_id");
    }
}

fn conflict<T: std::fmt::Debug>(answer: Result<T, ClientError>, says: &str) {
    let Err(ClientError::Refused(problem)) = answer else { panic!("{answer:?}") };
    assert!(problem.status == 409 || problem.status == 400, "{problem:?}");
    assert!(problem.detail.contains(says), "{problem:?}");
}

#[tokio::test]
async fn metadata_that_cannot_be_used_is_refused_and_says_why() {
    let (world, fake) = company(json!({})).await;
    let good = fake.by_redirect();
    let add = async |metadata: &str, more: Value| {
        let mut new = json!({"name": "new", "saml": {"metadata": metadata}});
        for (member, value) in more.as_object().unwrap() {
            new[member] = value.clone();
        }
        world.idp_admin().add::<Upstreams>(&serde_json::from_value(new).unwrap()).await
    };
    for (metadata, says) in [
        (String::new(), "XML"),
        ("<html></html>".to_owned(), "`html`"),
        (good.replace(ENTITY, ""), "names itself"),
        (good.replace("IDPSSODescriptor", "SPSSODescriptor"), "IDPSSODescriptor"),
        (
            good.replace(
                "urn:oasis:names:tc:SAML:2.0:protocol",
                "urn:oasis:names:tc:SAML:1.1:protocol",
            ),
            "SAML 2.0",
        ),
        (good.replace("use=\"signing\"", "use=\"encryption\""), "no certificate"),
        (good.replace("<ds:X509Certificate>", "<ds:X509Certificate>AAAA"), "certificate"),
        (good.replace("https://sso", "http://sso"), "https://"),
        (good.replace("https://sso", "javascript:sso"), "https://"),
        (good.replace("HTTP-Redirect", "HTTP-Artifact"), "SingleSignOnService"),
        (good.replace("entityID", "validUntil=\"2020-01-01T00:00:00Z\" entityID"), "expired"),
        (format!("<!DOCTYPE x>{}", good.trim_start_matches("<?xml version=\"1.0\"?>")), "XML"),
    ] {
        conflict(add(&metadata, json!({})).await, says);
    }
    // Files that people keep have remarks; a certificate that cannot be used is left out beside another.
    let remark = good.replace("<md:IDPSSODescriptor", "<!-- first --><md:IDPSSODescriptor");
    conflict(add(&remark, json!({})).await, "has this issuer already");
    let own = good.replace(ENTITY, world.idp.as_str());
    conflict(add(&own, json!({})).await, "this identity provider's own");
    // The same one twice, and what belongs to the other protocol.
    conflict(add(&good, json!({})).await, "has this issuer already");
    let other = good.replace(ENTITY, "urn:another");
    conflict(add(&other, json!({"client_id": "x"})).await, "OpenID Connect alone");
    conflict(
        add(&other, json!({"proof": {"method": "client_secret_post", "client_secret": "x"}})).await,
        "certificate",
    );
    let transient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient";
    conflict(
        add(&other, json!({"saml": {"metadata": other, "name_id_format": transient}})).await,
        "name_id_format",
    );
    // Other certificates are taken, another entity is not: people are known by it.
    let change = |metadata: &str| -> UpstreamChange {
        serde_json::from_value(json!({"saml": {"metadata": metadata}})).unwrap()
    };
    conflict(
        world.idp_admin().change::<Upstreams>("corp", &change(&other), None).await,
        "is that of",
    );
    let rolled = FakeSaml::other(ENTITY);
    world
        .idp_admin()
        .change::<Upstreams>("corp", &change(&rolled.by_redirect()), None)
        .await
        .unwrap();
    let before = |asked: &Asked| fake.with_signed_assertion(&fake.says(&world, "corp", asked));
    world.through_saml(&mut Browser::default(), "corp", "", before).await.unwrap_err();
    let after = |asked: &Asked| rolled.with_signed_assertion(&rolled.says(&world, "corp", asked));
    world.through_saml(&mut Browser::default(), "corp", "", after).await.unwrap();
}
