//! Rules that hold at every place of their kind: the walks here find the places themselves.

use carnet_proto::identifier::Issuer;
use carnet_store::{AuditFilter, Store};
use carnet_tests::{
    outsider::DESKTOP,
    world::{Wishes, World, cookies},
};
use reqwest::{Method, StatusCode};
use std::{collections::BTreeSet, path::Path};

fn source(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(file)).unwrap()
}

/// The paths of a router, as its source writes them.
fn routes_of(file: &str) -> BTreeSet<String> {
    let text = source(file).replace("{INSTALLATIONS}", "/installations").replace("{{id}}", "x");
    let paths = text.split("&format!(\"{base}").skip(1);
    let paths: BTreeSet<String> =
        paths.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert!(paths.len() >= 7, "{file}: {paths:?}");
    paths
}

async fn rows(store: &Store) -> i64 {
    let newest = AuditFilter { limit: 1, ..AuditFilter::default() };
    store.audit(&newest).await.unwrap().first().map_or(0, |row| row.id)
}

/// What proves nothing, by route: a request each time another.
struct Unproven<'a> {
    world: &'a World,
    server: &'a Issuer,
    client: &'a str,
    cookie: String,
    csrf: String,
}

impl Unproven<'_> {
    fn request(&self, method: &Method, path: &str, i: usize) -> reqwest::RequestBuilder {
        let (client, url) = (self.client, self.server.endpoint(path));
        let form: Vec<(&str, String)> = match (method.as_str(), path) {
            ("POST", "/token") => vec![
                ("grant_type", ["authorization_code", "refresh_token"][i % 2].to_owned()),
                ("client_id", client.to_owned()),
                ("code", format!("code-{i}")),
                ("refresh_token", format!("token-{i}")),
                ("redirect_uri", "https://a.example/cb".to_owned()),
                ("code_verifier", "v".repeat(43)),
            ],
            ("POST", "/revoke" | "/introspect") => {
                vec![("client_id", client.to_owned()), ("token", format!("token-{i}"))]
            }
            ("POST", "/par") => vec![
                ("client_id", client.to_owned()),
                ("response_type", "code".to_owned()),
                ("redirect_uri", "http://127.0.0.1/callback".to_owned()),
                ("code_challenge_method", "S256".to_owned()),
                ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned()),
                ("state", format!("s{i}")),
            ],
            ("POST", "/authorize") => vec![
                ("csrf", self.csrf.clone()),
                ("username", format!("nobody-{i}")),
                ("password", "wrong password".to_owned()),
            ],
            _ => vec![("state", format!("s{i}")), ("token", format!("t{i}"))],
        };
        let body: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form.iter().map(|(name, value)| (*name, value.as_str())))
            .finish();
        let request = self.world.http.request(
            method.clone(),
            match (method.as_str(), path) {
                ("POST", "/authorize") if !self.csrf.is_empty() => {
                    self.world.authorize_url(client, "").0
                }
                ("GET", _) => format!("{url}?{body}"),
                _ => url,
            },
        );
        let request = request.header("cookie", &self.cookie).header("origin", self.server.origin());
        match (method.as_str(), path) {
            ("GET", _) => request,
            ("POST", "/register") => request
                .header("content-type", "application/json")
                .body(format!(r#"{{"redirect_uris":["https://a.example/{i}"]}}"#)),
            ("POST", "/installations") => request
                .header("content-type", "application/json")
                .header("authorization", format!("Bearer {i}"))
                .body("{}"),
            _ => request.header("content-type", "application/x-www-form-urlencoded").body(body),
        }
    }
}

/// M2: whoever proves nothing is counted before anything is written for them, at every route there is.
#[tokio::test]
async fn two_hundred_unproven_requests_of_one_address_write_a_handful_of_rows_at_any_route() {
    let wishes = Wishes {
        failures_per_minute: Some(20),
        behind_proxy: true,
        registration: true,
        ..Wishes::default()
    };
    let world = World::with(wishes).await;
    world.let_outsiders_in().await;
    let (url, _) = world.authorize_url("public", "");
    let page = world.http.get(&url).send().await.unwrap();
    let cookie = cookies(page.headers());
    let html = page.text().await.unwrap();
    let csrf = html.split_once("name=\"csrf\" value=\"").unwrap().1.split('"').next().unwrap();
    let idp = Unproven {
        world: &world,
        server: &world.idp,
        client: "public",
        cookie,
        csrf: csrf.to_owned(),
    };
    let ras = Unproven {
        world: &world,
        server: &world.ras,
        client: DESKTOP,
        cookie: String::new(),
        csrf: String::new(),
    };
    // Where an attempt costs a row, or a request to somebody, it ends in 429.
    let costly = |is_idp: bool, method: &Method, path: &str| match (is_idp, method.as_str(), path) {
        (_, "POST", "/token" | "/revoke" | "/introspect" | "/par" | "/register") => true,
        (true, "POST", "/authorize") | (false, "GET", "/callback") => true,
        _ => false,
    };
    let mut address = 0;
    for (is_idp, file, unproven, store) in [
        (true, "crates/server/src/idp/mod.rs", idp, &world.idp_store),
        (false, "crates/server/src/ras/mod.rs", ras, &world.ras_store),
    ] {
        for path in routes_of(file) {
            for method in [Method::GET, Method::POST] {
                address += 1;
                let from = format!("192.0.2.{address}");
                let before = rows(store).await;
                let mut last = StatusCode::OK;
                for i in 0..200 {
                    let request = unproven.request(&method, &path, i);
                    let reply = request.header("x-forwarded-for", &from).send().await.unwrap();
                    last = reply.status();
                    assert!(!last.is_server_error(), "{method} {path}: {last}");
                    let sniffed = reply.headers().get("x-content-type-options");
                    assert_eq!(sniffed.unwrap(), "nosniff", "{method} {path}");
                }
                let written = rows(store).await - before;
                // A pushed request that is in order is no failure: it has a limit of its own.
                let limit = if path == "/par" { 60 } else { 20 };
                assert!(written <= limit, "{method} {path} wrote {written} rows ({last})");
                let ends = last == StatusCode::TOO_MANY_REQUESTS;
                assert!(ends || !costly(is_idp, &method, &path), "{method} {path}: {last}");
            }
        }
    }
    // Nobody else had to wait for any of that.
    assert!(!world.sign_in().await.id_token.is_empty());
}

/// M1: how far a request may go is judged from who named its URL. Here are the URLs that an operator wrote, or whose
/// own origin is asked; everything that a party names goes by [`carnet_client::Discovered`].
#[test]
fn a_reach_of_its_own_is_given_only_to_urls_that_an_operator_or_a_person_wrote() {
    let known = [
        (
            "crates/server/src/client_authentication.rs",
            1,
            "a client's jwks_uri, by an administrator",
        ),
        ("crates/server/src/ras/jwt_bearer.rs", 1, "a trusted issuer"),
        ("crates/server/src/ras/directory.rs", 3, "trusted issuers and hosts on the list"),
        ("crates/server/src/idp/token_exchange.rs", 1, "a registered authorization server"),
        ("crates/resource/src/admission.rs", 1, "the guard's own issuer"),
        ("crates/carnet/src/employee/mod.rs", 1, "the person's identity provider"),
        ("crates/client/src/obtain.rs", 1, "endpoints in the person's settings"),
        ("crates/client/src/discovery.rs", 3, "the URL that is asked about"),
        ("crates/client/src/consent.rs", 1, "the URL that is asked about"),
        (
            "crates/client/src/doctor.rs",
            2,
            "the URL that is asked about, and the identity provider",
        ),
        ("crates/client/src/upstream.rs", 1, "the gateway's own upstream"),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    walk(&root.join("crates"), &mut |path, text| {
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        let uses = text.matches("Reach::of_trusted_url(").count();
        if uses > 0 && !path.ends_with("outbound.rs") {
            found.push((path, uses));
        }
    });
    found.sort();
    let mut expected: Vec<_> = known.iter().map(|(path, n, _)| ((*path).to_owned(), *n)).collect();
    expected.sort();
    assert_eq!(found, expected, "say who wrote the URL, or ask `Discovered::reach_of`");
}

fn walk(folder: &Path, see: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, see);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
