//! What is stored, letter by letter, because other versions read it and wrote it. A change of an
//! existing line here breaks every existing database.

use super::{Stored, parse, to_text};
use crate::{
    AdminRole, Administrator, Group, Installation, RefreshToken, StoredProof, User,
    people::{AccountLink, LetIn},
    record::Record,
};
use passavant_proto::{
    formerly,
    identifier::{Issuer, Resource, SubjectIssuer},
    jose::jwk::Algorithm,
    oauth::{
        authorize::AuthorizationRequest,
        client::{
            Client, ClientAuthentication, ClientKeys, GovernedResource, SecretHash, SelfRegistered,
        },
        pkce::CodeChallenge,
        scope::Scopes,
    },
    oidc::authentication::{ACR_PASSWORD, Authentication},
    oidc::upstream::{
        OpenIdProvider, Preset, UpstreamAuthentication, UpstreamProtocol, UpstreamProvider,
    },
    policy::{
        Conditions, Connection, RegisteredResource, ReleasedClaim, ResourceAuthorizationServer,
        SubIdFormat, Subject,
    },
    saml::{NameId, SamlProvider, SamlSubject},
    ssf::{Told, Transmitter},
    time::Timestamp,
    xaa::trust::{
        Account, AccountResolution, ClientHost, InteractiveSignIn, SubjectLink, TrustedIssuer,
    },
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

/// Checks that `value` is written as `document` and read back as it was, and that `least` is the
/// least that can be read.
fn is_stored<T: Stored + Debug + PartialEq>(value: &T, document: &Value, least: &Value) {
    let text = to_text(value).unwrap();
    assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), document);
    assert_eq!(&parse::<T>(&text).unwrap(), value);
    parse::<T>(&least.to_string()).unwrap();
    let members = least.as_object().unwrap();
    for member in members.keys() {
        let mut less = least.clone();
        less.as_object_mut().unwrap().remove(member);
        let why = parse::<T>(&less.to_string()).unwrap_err();
        assert!(why.contains(member), "{member}: {why}");
    }
}

fn issuer(text: &str) -> Issuer {
    Issuer::parse(text).unwrap()
}

fn resource() -> Resource {
    Resource::parse("https://mcp.example/a").unwrap()
}

fn scopes(scope: &str) -> Scopes {
    serde_json::from_value(json!([scope])).unwrap()
}

fn authentication() -> Authentication {
    Authentication {
        auth_time: Timestamp(7),
        acr: ACR_PASSWORD.to_owned(),
        amr: vec!["pwd".to_owned()],
        issuer: Some(issuer("https://idp.example").into()),
    }
}

#[test]
fn upstreams() {
    let mut upstream = UpstreamProvider {
        name: "corp".to_owned(),
        display_name: "Acme SSO".to_owned(),
        preset: Preset::Entra,
        protocol: UpstreamProtocol::OpenId(OpenIdProvider {
            issuer: issuer("https://idp.example"),
            tenants: BTreeSet::from(["t".to_owned()]),
            hosted_domains: BTreeSet::from(["h.example".to_owned()]),
            client_id: "c".to_owned(),
            algorithm: Algorithm::RS256,
            scopes: BTreeSet::from(["groups".to_owned()]),
            asks_consent: true,
        }),
        authentication: UpstreamAuthentication::Certificate {
            certificate: "AA==".to_owned(),
            sealed_key: "sealed".to_owned(),
            next: Some(("BB==".to_owned(), "sealed 2".to_owned())),
        },
        domains: BTreeSet::from(["acme.example".to_owned()]),
        username_claim: Some("upn".to_owned()),
        groups_claim: Some("roles".to_owned()),
        groups: BTreeMap::from([("There".to_owned(), "here".to_owned())]),
        acr_values: BTreeMap::from([("c1".to_owned(), "phr".to_owned())]),
        just_in_time: true,
        external_id_is_subject: Some(true),
        disabled: true,
    };
    let mut document = json!({"name": "corp", "display_name": "Acme SSO", "preset": "entra",
        "issuer": "https://idp.example", "tenants": ["t"], "hosted_domains": ["h.example"],
        "client_id": "c", "authentication": {"certificate": {"certificate": "AA==",
            "sealed_key": "sealed", "next": {"certificate": "BB==", "sealed_key": "sealed 2"}}},
        "algorithm": "RS256", "domains": ["acme.example"], "scopes": ["groups"],
        "username_claim": "upn", "groups_claim": "roles", "asks_consent": true,
        "groups": {"There": "here"}, "acr_values": {"c1": "phr"}, "just_in_time": true,
        "external_id_is_subject": true, "disabled": true});
    let least = json!({"name": "corp", "display_name": "x", "issuer": "https://idp.example",
        "client_id": "c", "authentication": {"secret_post": "sealed"}, "algorithm": "ES256"});
    is_stored(&upstream, &document, &least);
    for (authentication, stored) in [
        (
            UpstreamAuthentication::PrivateKeyJwt(Some(Algorithm::ES256)),
            json!({"private_key_jwt": {"algorithm": "ES256"}}),
        ),
        (UpstreamAuthentication::SecretPost("s".to_owned()), json!({"secret_post": "s"})),
        (UpstreamAuthentication::SecretBasic("s".to_owned()), json!({"secret_basic": "s"})),
    ] {
        upstream.authentication = authentication;
        document["authentication"] = stored;
        is_stored(&upstream, &document, &least);
    }
    for (preset, stored) in [
        (Preset::Generic, "generic"),
        (Preset::Google, "google"),
        (Preset::Okta, "okta"),
        (Preset::Keycloak, "keycloak"),
    ] {
        upstream.preset = preset;
        document["preset"] = stored.into();
        is_stored(&upstream, &document, &least);
    }
}

#[test]
fn upstreams_of_saml() {
    let upstream = UpstreamProvider {
        name: "corp".to_owned(),
        display_name: "Acme SSO".to_owned(),
        preset: Preset::Keycloak,
        protocol: UpstreamProtocol::Saml(SamlProvider {
            entity_id: SubjectIssuer::entity_id("urn:acme:idp").unwrap(),
            redirect: Some("https://sso.example/r".to_owned()),
            post: Some("https://sso.example/p".to_owned()),
            certificates: vec!["AA==".to_owned()],
            sign_requests: true,
            name_id_format: "f".to_owned(),
            subject_attribute: Some("uid".to_owned()),
        }),
        authentication: UpstreamAuthentication::Certificate {
            certificate: "BB==".to_owned(),
            sealed_key: "sealed".to_owned(),
            next: None,
        },
        domains: BTreeSet::new(),
        username_claim: None,
        groups_claim: None,
        groups: BTreeMap::new(),
        acr_values: BTreeMap::new(),
        just_in_time: false,
        external_id_is_subject: None,
        disabled: false,
    };
    let document = json!({"name": "corp", "display_name": "Acme SSO", "preset": "keycloak",
        "saml": {"entity_id": "urn:acme:idp", "redirect": "https://sso.example/r",
            "post": "https://sso.example/p", "certificates": ["AA=="], "sign_requests": true,
            "name_id_format": "f", "subject_attribute": "uid"},
        "authentication": {"certificate": {"certificate": "BB==", "sealed_key": "sealed"}},
        "domains": [], "username_claim": null, "groups_claim": null, "groups": {},
        "acr_values": {}, "just_in_time": false, "disabled": false});
    let text = to_text(&upstream).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    assert_eq!(parse::<UpstreamProvider>(&text).unwrap(), upstream);
    // What a version without SAML needs of a record is not there: it uses it for nothing.
    let without = text.replace("\"saml\"", "\"unknown\"");
    assert!(parse::<UpstreamProvider>(&without).unwrap_err().contains("issuer"));
}

#[test]
fn servers_and_resources() {
    is_stored(
        &ResourceAuthorizationServer {
            issuer: issuer("https://as.example"),
            name: "Canvas".to_owned(),
            aliases: vec!["canvas".to_owned()],
            release: BTreeSet::from([
                ReleasedClaim::Email,
                ReleasedClaim::AuthTime,
                ReleasedClaim::Acr,
                ReleasedClaim::Amr,
            ]),
            aud_tenant: Some("acme-there".to_owned()),
            aud_sub: Some("employeeNumber".to_owned()),
            sub_id: Some(SubIdFormat::SamlNameId),
            id_jag_signing_alg: Some(Algorithm::RS256),
            algorithm: Algorithm::EdDSA,
            disabled: true,
        },
        &json!({"issuer": "https://as.example", "name": "Canvas", "aliases": ["canvas"],
            "release": ["email", "auth_time", "acr", "amr"], "aud_tenant": "acme-there", "aud_sub": "employeeNumber",
            "sub_id": "saml-nameid", "id_jag_signing_alg": "RS256",
            "algorithm": "EdDSA", "disabled": true}),
        &json!({"issuer": "https://as.example"}),
    );
    is_stored(
        &RegisteredResource {
            resource: resource(),
            authorization_server: issuer("https://as.example"),
            name: "Canvas".to_owned(),
            scopes: scopes("read"),
            disabled: true,
        },
        &json!({"resource": "https://mcp.example/a", "authorization_server": "https://as.example",
            "name": "Canvas", "scopes": ["read"], "disabled": true}),
        &json!({"resource": "https://mcp.example/a", "authorization_server": "https://as.example"}),
    );
    is_stored(
        &GovernedResource {
            resource: resource(),
            name: "Canvas".to_owned(),
            scopes: scopes("read"),
            default_scopes: scopes("read"),
            descriptions: BTreeMap::from([("read".to_owned(), "look".to_owned())]),
            access_token_lifetime: Some(60),
            access_token_signing_alg: Some(Algorithm::PS256),
            require_dpop: true,
            disabled: true,
        },
        &json!({"resource": "https://mcp.example/a", "name": "Canvas", "scopes": ["read"],
            "default_scopes": ["read"], "descriptions": {"read": "look"},
            "access_token_lifetime": 60, "access_token_signing_alg": "PS256",
            "require_dpop": true, "disabled": true}),
        &json!({"resource": "https://mcp.example/a"}),
    );
}

#[test]
fn connections() {
    is_stored(
        &Connection {
            id: "c".to_owned(),
            idp_client_id: "agent".to_owned(),
            audience: issuer("https://as.example"),
            ras_client_id: Some("agent-there".to_owned()),
            resources: vec![resource()],
            scopes: scopes("read"),
            subjects: vec![
                Subject::Everyone,
                Subject::Group("staff".to_owned()),
                Subject::User("u1".to_owned()),
            ],
            conditions: Conditions {
                max_authentication_age: Some(60),
                acr_values: vec!["mfa".to_owned()],
            },
            disabled: true,
        },
        &json!({"id": "c", "idp_client_id": "agent", "audience": "https://as.example",
            "ras_client_id": "agent-there", "resources": ["https://mcp.example/a"],
            "scopes": ["read"], "subjects": ["everyone", {"group": "staff"}, {"user": "u1"}],
            "conditions": {"max_authentication_age": 60, "acr_values": ["mfa"]},
            "disabled": true}),
        &json!({"id": "c", "idp_client_id": "agent", "audience": "https://as.example",
            "resources": []}),
    );
}

#[test]
fn clients() {
    let of = |authentication| Client {
        id: "c".to_owned(),
        name: "C".to_owned(),
        authentication,
        redirect_uris: vec!["http://127.0.0.1/cb".to_owned()],
        post_logout_redirect_uris: vec!["https://app.example/out".to_owned()],
        backchannel_logout_uri: Some("https://app.example/bcl".to_owned()),
        id_token_lifetime: Some(60),
        id_token_signed_response_alg: Some(Algorithm::RS256),
        pkce_optional: true,
        device_grant: true,
        dpop_bound_access_tokens: true,
        require_pushed_authorization_requests: true,
        resources: vec![resource()],
        saml_entity_id: Some("urn:app".to_owned()),
        signals: Some(Told::ItsPeople),
        software: Some("vscode".to_owned()),
        registered: Some(SelfRegistered { at: Timestamp(1), used: true }),
        disabled: true,
    };
    let jwt = |keys| ClientAuthentication::PrivateKeyJwt { keys, algorithm: Algorithm::ES256 };
    let hashes = [("one", None), ("two", Some(Timestamp(5)))]
        .map(|(hash, expires)| SecretHash { hash: hash.to_owned(), expires });
    for (authentication, document) in [
        (ClientAuthentication::Public, json!("public")),
        (
            ClientAuthentication::Secret(hashes.to_vec()),
            json!({"secret": [{"hash": "one", "expires": null}, {"hash": "two", "expires": 5}]}),
        ),
        (
            jwt(ClientKeys::Inline(json!({"keys": []}))),
            json!({"private_key_jwt": {"keys": {"inline": {"keys": []}}, "algorithm": "ES256"}}),
        ),
        (
            jwt(ClientKeys::Fetched("https://a.example".to_owned())),
            json!({"private_key_jwt": {"keys": {"fetched": "https://a.example"},
                "algorithm": "ES256"}}),
        ),
    ] {
        is_stored(
            &of(authentication),
            &json!({"id": "c", "name": "C", "authentication": document,
                "redirect_uris": ["http://127.0.0.1/cb"],
                "post_logout_redirect_uris": ["https://app.example/out"],
                "backchannel_logout_uri": "https://app.example/bcl", "id_token_lifetime": 60, "id_token_signed_response_alg": "RS256",
                "pkce_optional": true, "device_grant": true, "dpop_bound_access_tokens": true,
                "require_pushed_authorization_requests": true,
                "resources": ["https://mcp.example/a"], "saml_entity_id": "urn:app", "signals": "its_people", "software": "vscode",
                "registered": {"at": 1, "used": true}, "disabled": true}),
            &json!({"id": "c", "name": "C", "authentication": document}),
        );
    }
    is_stored(
        &Transmitter {
            name: "corp".to_owned(),
            issuer: issuer("https://idp.example"),
            audience: "https://login.example".to_owned(),
            speaks_for: "corp".to_owned(),
            jwks_uri: Some("https://idp.example/keys".to_owned()),
            algorithm: Algorithm::RS256,
            token_hash: "hash".to_owned(),
            disabled: true,
        },
        &json!({"name": "corp", "issuer": "https://idp.example", "audience": "https://login.example",
            "speaks_for": "corp", "jwks_uri": "https://idp.example/keys", "algorithm": "RS256",
            "token_hash": "hash", "disabled": true}),
        &json!({"name": "corp", "issuer": "https://idp.example", "audience": "https://login.example",
            "speaks_for": "corp", "token_hash": "hash"}),
    );
    is_stored(
        &ClientHost { origin: "https://app.example".to_owned(), disabled: true },
        &json!({"origin": "https://app.example", "disabled": true}),
        &json!({"origin": "https://app.example"}),
    );
    let let_in = LetIn { client: "c".to_owned(), person: "u1".to_owned() };
    let text = to_text(&let_in).unwrap();
    assert_eq!(text, r#"{"client":"c","person":"u1"}"#);
    assert_eq!(parse::<LetIn>(&text).unwrap().id(), "c");
}

#[test]
fn trusted_issuers_and_accounts() {
    is_stored(
        &TrustedIssuer {
            issuer: issuer("https://idp.example"),
            jwks_uri: Some("https://idp.example/keys".to_owned()),
            algorithm: Algorithm::ES256,
            tenant: Some("t".to_owned()),
            audience_tenant: Some("ours".to_owned()),
            accounts: AccountResolution {
                just_in_time: true,
                email_domains: vec!["acme.example".to_owned()],
            },
            allow_reuse: true,
            client_documents: true,
            sign_in: Some(InteractiveSignIn {
                client_id: "ras".to_owned(),
                domains: vec!["acme.example".to_owned()],
            }),
            disabled: true,
        },
        &json!({"issuer": "https://idp.example", "jwks_uri": "https://idp.example/keys",
            "algorithm": "ES256", "tenant": "t", "audience_tenant": "ours",
            "accounts": {"just_in_time": true, "email_domains": ["acme.example"]},
            "allow_reuse": true, "client_documents": true,
            "sign_in": {"client_id": "ras", "domains": ["acme.example"]}, "disabled": true}),
        &json!({"issuer": "https://idp.example"}),
    );
    is_stored(
        &Account {
            id: "a".to_owned(),
            email: Some("erin@acme.example".to_owned()),
            disabled: true,
        },
        &json!({"id": "a", "email": "erin@acme.example", "disabled": true}),
        &json!({"id": "a"}),
    );
    let link = AccountLink {
        link: SubjectLink {
            issuer: issuer("https://idp.example").into(),
            tenant: Some("t".to_owned()),
            subject: "u1".to_owned(),
        },
        account: "a".to_owned(),
    };
    let text = to_text(&link).unwrap();
    let document = json!({"link": {"issuer": "https://idp.example", "tenant": "t",
        "subject": "u1"}, "account": "a"});
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    assert_eq!(parse::<AccountLink>(&text).unwrap().link, link.link);
}

#[test]
fn people_and_administrators() {
    is_stored(
        &User {
            id: "u1".to_owned(),
            username: "erin".to_owned(),
            email: Some("erin@acme.example".to_owned()),
            email_verified: true,
            display_name: Some("Erin E".to_owned()),
            given_name: Some("Erin".to_owned()),
            family_name: Some("E".to_owned()),
            groups: BTreeSet::from(["staff".to_owned()]),
            password_hash: Some("$argon2id$".to_owned()),
            attributes: BTreeMap::from([("department".to_owned(), "R&D".to_owned())]),
            saml_subject: Some(SamlSubject {
                issuer: SubjectIssuer::entity_id("urn:acme:idp").unwrap(),
                name_id: NameId {
                    value: "e1".to_owned(),
                    format: Some("f".to_owned()),
                    name_qualifier: Some("q".to_owned()),
                    sp_name_qualifier: Some("s".to_owned()),
                    sp_provided_id: Some("p".to_owned()),
                },
            }),
            disabled_here: true,
            inactive_there: true,
        },
        &json!({"id": "u1", "username": "erin", "email": "erin@acme.example",
            "email_verified": true, "display_name": "Erin E", "given_name": "Erin",
            "family_name": "E", "groups": ["staff"], "password_hash": "$argon2id$",
            "attributes": {"department": "R&D"}, "saml_subject": {"issuer": "urn:acme:idp",
                "name_id": "e1", "format": "f", "name_qualifier": "q", "sp_name_qualifier": "s",
                "sp_provided_id": "p"}, "disabled": true, "inactive_there": true,
            "disabled_here": true}),
        &json!({"id": "u1", "username": "erin"}),
    );
    // Each kind of switching off keeps the person out at versions that know `disabled` alone.
    let of = |disabled_here, inactive_there| User {
        disabled_here,
        inactive_there,
        ..User::new("u1", "erin")
    };
    for user in [of(false, true), of(true, false), of(true, true), of(false, false)] {
        let text = to_text(&user).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["disabled"], user.is_off());
        assert_eq!(parse::<User>(&text).unwrap(), user);
    }
    let switched_on_by_an_earlier_version = json!({"id": "u1", "username": "erin",
        "disabled": false, "inactive_there": true, "disabled_here": true});
    let read = parse::<User>(&switched_on_by_an_earlier_version.to_string()).unwrap();
    assert!(!read.is_off());
    is_stored(
        &Group { name: "staff".to_owned(), description: "all".to_owned() },
        &json!({"name": "staff", "description": "all"}),
        &json!({"name": "staff"}),
    );
    let installation = json!({"id": "i", "user_id": "u1", "device": "laptop",
        "public_jwk": {"kty": "EC"}, "algorithm": "ES256", "enrolled_at": 1, "used_at": 2});
    is_stored(
        &Installation {
            id: "i".to_owned(),
            user_id: "u1".to_owned(),
            device: "laptop".to_owned(),
            public_jwk: json!({"kty": "EC"}),
            algorithm: Algorithm::ES256,
            enrolled_at: Timestamp(1),
            used_at: Timestamp(2),
        },
        &installation,
        &installation,
    );
    for (role, word) in AdminRole::ALL.into_iter().zip(["auditor", "helpdesk", "admin", "owner"]) {
        let proof = json!({"stored_key": "s", "server_key": "k"});
        is_stored(
            &Administrator {
                name: "ann".to_owned(),
                role,
                proof: StoredProof { stored_key: "s".to_owned(), server_key: "k".to_owned() },
                expires_at: Timestamp(9),
                created_at: Timestamp(1),
                added_by: "bob".to_owned(),
            },
            &json!({"name": "ann", "role": word, "proof": proof, "expires_at": 9,
                "created_at": 1, "added_by": "bob"}),
            &json!({"name": "ann", "role": word, "proof": proof, "expires_at": 9, "created_at": 1}),
        );
    }
}

#[test]
fn sign_ins() {
    let by_password = json!({"auth_time": 7, "acr": ACR_PASSWORD, "amr": ["pwd"],
        "issuer": "https://idp.example"});
    let least = json!({"auth_time": 7, "acr": ACR_PASSWORD, "amr": ["pwd"]});
    is_stored(&authentication(), &by_password, &least);
    // A sign-in that an earlier build recorded has the same class as now.
    let before = parse::<Authentication>(&formerly::name(&least.to_string())).unwrap();
    assert_eq!(before.acr, ACR_PASSWORD);
    let challenge: CodeChallenge = serde_json::from_value(json!("c".repeat(43))).unwrap();
    is_stored(
        &AuthorizationRequest {
            client_id: "c".to_owned(),
            redirect_uri: "http://127.0.0.1:1/cb".to_owned(),
            scopes: scopes("openid"),
            code_challenge: Some(challenge),
            state: Some("s".to_owned()),
            nonce: Some("n".to_owned()),
            silent: true,
            fresh: true,
            max_age: Some(60),
            login_hint: Some("erin".to_owned()),
            dpop_jkt: Some("j".to_owned()),
            resource: Some(resource()),
            subject: Some("u1".to_owned()),
            essential_acr: Some(vec!["mfa".to_owned()]),
            acr_values: vec!["phr".to_owned()],
        },
        &json!({"client_id": "c", "redirect_uri": "http://127.0.0.1:1/cb", "scopes": ["openid"],
            "code_challenge": "c".repeat(43), "state": "s", "nonce": "n", "silent": true,
            "fresh": true, "max_age": 60, "login_hint": "erin", "dpop_jkt": "j",
            "resource": "https://mcp.example/a", "subject": "u1", "essential_acr": ["mfa"], "acr_values": ["phr"]}),
        &json!({"client_id": "c", "redirect_uri": "http://127.0.0.1:1/cb", "scopes": ["openid"],
            "silent": true, "fresh": true}),
    );
    is_stored(
        &RefreshToken {
            family: "f".to_owned(),
            sid: "s".to_owned(),
            user_id: "u1".to_owned(),
            client_id: "c".to_owned(),
            scopes: scopes("openid"),
            authentication: authentication(),
            dpop_jkt: Some("j".to_owned()),
            resource: Some(resource()),
            client_method: Some("none".to_owned()),
            idle_expires_at: Timestamp(8),
            expires_at: Timestamp(9),
        },
        &json!({"family": "f", "sid": "s", "user_id": "u1", "client_id": "c",
            "scopes": ["openid"], "authentication": by_password, "dpop_jkt": "j",
            "resource": "https://mcp.example/a", "client_method": "none",
            "idle_expires_at": 8, "expires_at": 9}),
        &json!({"family": "f", "sid": "s", "user_id": "u1", "client_id": "c",
            "scopes": ["openid"], "authentication": least, "idle_expires_at": 8,
            "expires_at": 9}),
    );
}
