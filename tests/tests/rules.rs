//! Rules that apply to all places of a kind: the tests find these places in the sources themselves.

use passavant_authority::{Context, KeyRing, Keys, LIMITS, Passwords, limited};
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::event::{Act, Event};
use passavant_proto::{
    identifier::Issuer,
    time::{Clock, Entropy, Timestamp},
};
use passavant_ras::{Ras, RasSettings};
use passavant_store::{AuditEvent, AuditFilter, SealedKey, Store};
use passavant_tests::{
    forge::Key,
    outsider::DESKTOP,
    world::{PASSWORD, Wishes, World, cookies},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::{collections::BTreeSet, path::Path};

fn source(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(file)).unwrap()
}

/// The paths of a router, taken from its source.
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

/// Requests that prove nothing, for each route, different each time.
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

/// At every route, requests that prove nothing are counted before anything is written for them.
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
    // Routes where an attempt costs a row, or an outbound request, end in 429.
    let costly = |is_idp: bool, method: &Method, path: &str| {
        matches!(
            (is_idp, method.as_str(), path),
            (_, "POST", "/token" | "/revoke" | "/introspect" | "/par" | "/register")
                | (true, "POST", "/authorize")
        )
    };
    let mut address = 0;
    for (is_idp, file, unproven, store) in [
        (true, "crates/idp/src/lib.rs", idp, &world.idp_store),
        (false, "crates/ras/src/lib.rs", ras, &world.ras_store),
    ] {
        for path in routes_of(file) {
            for method in [Method::GET, Method::POST] {
                address += 1;
                let from = format!("192.0.2.{address}");
                let before = rows(store).await;
                let started = std::time::Instant::now();
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
                // A valid pushed request is not a failure: it has its own limit.
                let limit = if path == "/par" { 60 } else { 20 };
                // Cells that were refilled meanwhile, on a slow machine.
                let limit = limit + i64::try_from(started.elapsed().as_secs() / 3).unwrap();
                assert!(written <= limit, "{method} {path} wrote {written} rows ({last})");
                let ends = last == StatusCode::TOO_MANY_REQUESTS;
                assert!(ends || !costly(is_idp, &method, &path), "{method} {path}: {last}");
            }
        }
    }
    // None of this made others wait.
    assert!(!world.sign_in().await.id_token.is_empty());
}

/// The reach of a request depends on who named its URL. These are the places with URLs that an
/// operator wrote, or whose own origin is asked; URLs that another party names go through
/// [`passavant_outbound::Discovered`].
#[test]
fn a_reach_of_its_own_is_given_only_to_urls_that_an_operator_or_a_person_wrote() {
    let known = [
        (
            "crates/authority/src/client_authentication.rs",
            1,
            "a client's jwks_uri, by an administrator",
        ),
        ("crates/ras/src/jwt_bearer.rs", 1, "a trusted issuer"),
        ("crates/ras/src/directory.rs", 3, "trusted issuers and hosts on the list"),
        ("crates/signals/src/receiver.rs", 1, "a transmitter, by an administrator"),
        (
            "crates/signals/src/transmitter/push.rs",
            2,
            "our own issuer, and a listener's URL where an administrator registered its origin",
        ),
        ("crates/idp/src/logout_notices.rs", 1, "an administrator: the client's record"),
        ("crates/idp/src/token_exchange.rs", 1, "a registered authorization server"),
        ("crates/resource/src/admission.rs", 1, "the guard's own issuer"),
        ("crates/desk/src/employee/mod.rs", 1, "the person's identity provider"),
        ("crates/client/src/obtain.rs", 1, "endpoints in the person's settings"),
        ("crates/client/src/discovery.rs", 2, "the URL that is asked about"),
        ("crates/client/src/ended.rs", 1, "the identity provider"),
        ("crates/client/src/rmcp.rs", 1, "the URL that the transport was opened for"),
        ("crates/outbound/src/discovery.rs", 1, "an issuer that whoever asks for it trusts"),
        (
            "crates/runtime/src/gateway/adapter/mod.rs",
            1,
            "the MCP server that the guard's operator named",
        ),
        ("crates/client/src/consent.rs", 1, "the URL that is asked about"),
        ("crates/client/src/doctor.rs", 1, "the identity provider"),
        ("crates/outbound/src/relying_party.rs", 1, "metadata that an administrator gave"),
        ("crates/outbound/src/upstream.rs", 1, "the gateway's own upstream"),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    walk(&root.join("crates"), &mut |path, text| {
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        let uses = text.matches("Reach::of_trusted_url(").count();
        let own = ["outbound/src/http.rs", "outbound/src/reach.rs"];
        if uses > 0 && !own.iter().any(|own| path.ends_with(own)) {
            found.push((path, uses));
        }
    });
    found.sort();
    let mut expected: Vec<_> = known.iter().map(|(path, n, _)| ((*path).to_owned(), *n)).collect();
    expected.sort();
    assert_eq!(found, expected, "say who wrote the URL, or ask `Discovered::reach_of`");
}

#[test]
fn no_event_of_administration_is_made_without_the_administrator() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut makers = BTreeSet::new();
    walk(&root.join("crates/admin/src"), &mut |path, text| {
        if text.contains("AuditEvent::granted(") {
            makers.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    });
    // `By::act`, and refusals, which name the administrator if one is known.
    let known: BTreeSet<String> = ["context.rs", "mod.rs"].map(str::to_owned).into();
    assert_eq!(makers, known);
}

/// JSON for a terminal is printed in one place, which escapes all control characters.
#[test]
fn json_is_printed_by_the_one_function_that_escapes_what_others_wrote() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut printed = 0;
    let mut look = |path: &Path, text: &str| {
        let own = text.split("#[cfg(test)]").next().unwrap();
        printed += own.matches("json_text(").count();
        if path.ends_with("host/src/lib.rs") {
            return;
        }
        for (number, line) in own.lines().enumerate() {
            let pretty = line.contains("to_string_pretty") || line.contains(":#}");
            let raw = pretty && line.contains("print");
            assert!(!raw, "{}:{}: {line}", path.display(), number + 1);
        }
    };
    for room in ["passavant", "desk", "host", "runtime"] {
        walk(&root.join("crates").join(room).join("src"), &mut look);
    }
    assert!(printed >= 10, "{printed} places print JSON");
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

/// `PASSAVANT__…_FILE` is a value in a file, but for the keys whose value is the name of one.
#[test]
fn every_key_of_the_config_that_names_a_file_is_known_to_the_environment() {
    let host = source("crates/host/src/lib.rs");
    let list = host.split("pub const NAMES_OF_FILES").nth(1).unwrap().split("];").next().unwrap();
    let mut found = BTreeSet::new();
    for file in ["config.rs", "config/written.rs", "gateway/config.rs"] {
        for line in source(&format!("crates/runtime/src/{file}")).lines() {
            let Some((name, kind)) = line.trim().split_once(": ") else { continue };
            let name = name.rsplit(' ').next().unwrap();
            if name.ends_with("file") && kind.contains("PathBuf") {
                assert!(list.contains(&format!("\"{name}\"")), "{file}: {name}");
                found.insert(name.to_owned());
            }
        }
    }
    assert_eq!(found.len(), list.matches('"').count() / 2, "{found:?}");
}

#[test]
fn the_document_of_audit_events_is_what_the_program_writes() {
    let held = source("docs/audit-events.md");
    let made = passavant_proto::event::document();
    assert!(
        held == made,
        "cargo run -p passavant-tests --example audit_events > docs/audit-events.md"
    );
}

/// Events are for people and other programs: no decision depends on the name of one.
/// JSON knows one kind of number: `41.0` is the whole number 41, for each member of each body.
#[test]
fn a_whole_number_of_a_body_is_read_however_it_is_written() {
    let mut seen = 0;
    walk(Path::new("../crates/admin/src/types"), &mut |file, text| {
        for record in text.split("#[derive(").skip(1) {
            let (head, members) = record.split_once('{').unwrap_or_default();
            let name = head.rsplit("pub struct ").next().unwrap_or_default().trim();
            // What is sent to others only, and what stands in a query, where everything is text.
            let told = name.ends_with("View") || name.ends_with("Query") || name.ends_with("Page");
            if !head.contains("Deserialize") || !head.contains("ToSchema") || told {
                continue;
            }
            for member in members.split("\n    /// ").filter(|member| {
                member.contains(": Option<i64>,") || member.contains(": Option<Option<i64>>,")
            }) {
                seen += 1;
                assert!(
                    member.contains("whole\""),
                    "{}: {name}: {member}: `maybe_whole` or `said_whole` reads it",
                    file.display()
                );
            }
        }
    });
    assert!(seen >= 5, "{seen} members");
}

#[test]
fn nothing_is_decided_by_the_name_of_an_event() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = 0;
    for room in ["authority", "idp", "ras", "admin", "store", "runtime"] {
        walk(&root.join("crates").join(room).join("src"), &mut |path, text| {
            let own = text.split("#[cfg(test)]").next().unwrap();
            seen += own.matches(".event").count();
            for (number, line) in own.lines().enumerate() {
                let asks = [
                    "event.event ==",
                    "event.event !=",
                    "match event.event",
                    "matches!(event.event",
                ];
                let asks = asks.iter().any(|asks| line.contains(asks));
                assert!(!asks, "{}:{}: {line}", path.display(), number + 1);
            }
        });
    }
    assert!(seen > 10, "{seen}");
}

/// For both authorization servers, the front channel is the only place that issues codes to
/// browsers.
#[test]
fn codes_are_kept_by_the_front_channel_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut places = Vec::new();
    for room in ["authority", "idp", "ras", "admin", "runtime"] {
        walk(&root.join("crates").join(room).join("src"), &mut |path, text| {
            if text.contains(".keep_authorization_code(") {
                places.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        });
    }
    assert_eq!(places, ["crates/authority/src/front_channel/mod.rs"]);
}

/// The paths in the architecture document exist.
#[test]
fn every_file_that_the_architecture_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = source("docs/ARCHITECTURE.md");
    let mut seen = 0;
    for word in text.split(|c: char| c.is_whitespace() || "`(),;".contains(c)) {
        let path = word.split("::").next().unwrap();
        let Some((room, rest)) = path.strip_suffix(".rs").and_then(|stem| stem.split_once('/'))
        else {
            continue;
        };
        let (room, rest) = if room == "tests" {
            ("tests/tests".to_owned(), rest)
        } else {
            (format!("crates/{room}/src"), rest)
        };
        let file = root.join(&room).join(format!("{rest}.rs"));
        assert!(file.is_file(), "{path}");
        seen += 1;
    }
    assert!(seen > 40, "{seen} paths");
}

/// The project stands alone: it cites public documents only, and tests are named after what they
/// show. A letter with two digits (`B64` is a name in code), or the short name of a specification
/// with a letter and a number, is an id from some list that readers do not have.
#[test]
fn no_id_of_a_private_list_is_cited() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let lettered = |letter: char, number: usize| format!("{letter}{number}");
    for id in [lettered('A', 12), lettered('M', 31), format!("JAG-{}", lettered('X', 4))] {
        assert!(private_id(&format!("what it says ({id}).")).is_some(), "{id} is not noticed");
        let named = private_test_name(&format!("fn {}_a_case(", id.to_lowercase()));
        assert_ne!(named, id.contains('-'), "{id}");
    }
    for public in ["ES256, P-256 and S256", "B64.encode(x)", "RFC 9068 section 4, 403", "ID-JAG"] {
        assert_eq!(private_id(public), None);
    }
    let mut seen = 0;
    let mut look = |path: &Path, text: &str| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let of_code = path.extension().is_some_and(|ending| ending == "rs");
        assert!(!(of_code && name.starts_with("table_")), "{}: name its subject", path.display());
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            assert_eq!(private_id(line), None, "{at}: cite the public clause, or say it in words");
            assert!(!(of_code && private_test_name(line)), "{at}: say what the test shows");
        }
        seen += 1;
    };
    for folder in ["crates", "tests", "docs", "benches", "examples"] {
        every_text(&root.join(folder), &mut look);
    }
    for file in ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        look(&root.join(file), &source(file));
    }
    assert!(seen > 200, "{seen} files");
}

fn every_text(folder: &Path, see: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !path.ends_with("node_modules") && !path.ends_with("target") {
                every_text(&path, see);
            }
        } else if ["rs", "mjs", "py", "go", "sql", "toml", "md", "yaml"].contains(&ending) {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn private_id(line: &str) -> Option<&str> {
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    let lettered = |word: &str, least: usize, most: usize| {
        let number = word.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap_or_default();
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        digits && (least..=most).contains(&number.len())
    };
    words.find(|word| {
        let short = ["JAG-", "EMA-", "MCP-"].into_iter().find_map(|name| word.strip_prefix(name));
        let of_list = short.is_some_and(|rest| lettered(rest, 1, 3));
        of_list || (lettered(word, 2, 2) && *word != "B64")
    })
}

/// Whether a function's name begins with such an id.
fn private_test_name(line: &str) -> bool {
    line.split("fn ").skip(1).any(|name| {
        let prefix = name.split('_').next().unwrap_or_default();
        let number = prefix.strip_prefix(|c: char| c.is_ascii_lowercase());
        number.is_some_and(|n| (1..=2).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
            && name.contains('_')
    })
}

/// Each promise of SECURITY.md, by its first words, and the tests that check it.
const PROMISES: &[(&str, &[&str])] = &[
    (
        "Whoever listens to signals hears of the people",
        &[
            "whatever_happens_to_a_person_is_told_once_to_who_may_hear_it",
            "a_listener_manages_its_own_stream_and_no_other",
            "one_that_fetches_gets_all_until_it_says_that_it_has_it",
            "signals_of_an_upstream_end_what_came_by_way_of_it",
            "signals_of_a_trusted_issuer_end_what_was_issued_for_it",
        ],
    ),
    (
        "No grant, `jti`, code or refresh token is honoured twice",
        &[
            "of_fifty_uses_on_three_nodes_one_succeeds",
            "of_fifty_redemptions_of_a_code_at_once_at_most_one_succeeds",
            "of_fifty_refreshes_at_once_there_is_one_successor",
            "a_lost_answer_of_a_refresh_can_be_asked_for_again_and_nothing_else_can",
            "a_client_whose_tokens_are_all_bound_keeps_its_refresh_token",
            "of_fifty_redemptions_at_once_one_succeeds",
            "sqlite_loses_nothing_acknowledged_to_kill_9",
            "postgres_loses_nothing_acknowledged_to_kill_9",
            "a_code_serves_once_and_only_whom_it_was_issued_to",
        ],
    ),
    (
        "At an authorization server, refresh tokens and codes end",
        &["what_came_by_way_of_a_link_an_account_an_issuer_or_a_server_ends_with_it"],
    ),
    (
        "A person, client, connection or issuer that is switched off",
        &[
            "a_cut_off_bites_at_the_next_exchange",
            "what_was_switched_off_a_second_ago_is_refused_everywhere",
            "what_is_switched_off_in_between_is_off",
        ],
    ),
    ("No secret is stored", &["the_databases_hold_no_secret"]),
    (
        "No secret is in an MCP client's config",
        &[
            "an_installation_reaches_every_server_without_a_secret_or_a_registration",
            "a_person_sees_and_revokes_their_own_installations_alone",
            "a_new_password_ends_the_installations_of_before",
        ],
    ),
    (
        "What the company decides is never replaced",
        &[
            "no_consent_gets_around_the_policy",
            "no_metadata_of_a_server_leads_from_the_companys_way_to_consent",
        ],
    ),
    (
        "Every fetch of a URL that somebody else named",
        &[
            "no_fetch_follows_believes_or_waits_for_a_hostile_host",
            "a_name_leads_to_a_checked_address_or_nowhere",
            "a_wider_reach_adds_private_networks_and_then_this_machine_but_never_link_local",
            "what_metadata_name_is_as_near_as_who_served_them_and_no_nearer",
            "a_reach_of_its_own_is_given_only_to_urls_that_an_operator_or_a_person_wrote",
        ],
    ),
    (
        "A tool call through the gateway",
        &[
            "tools_need_their_scopes_and_what_no_rule_names_is_denied",
            "a_decision_that_cannot_be_recorded_is_no_permission",
            "the_server_learns_who_calls_from_the_gateway_alone",
        ],
    ),
    (
        "No secret is logged or put into a URL",
        &[
            "a_mistake_never_prints_what_is_written_beside_it",
            "a_file_with_secrets_is_its_owner_s_alone",
            "a_process_leaves_no_core_and_is_not_looked_into",
            "secrets_are_shown_once_and_never_read_back",
        ],
    ),
    (
        "`passavant admin` and the administration API prove the secret",
        &[
            "whoever_holds_the_port_is_not_given_the_secret_and_not_believed",
            "a_proof_serves_one_request_of_one_minute_at_one_process",
        ],
    ),
    (
        "Each administrative act is on record with who did it",
        &[
            "every_act_is_on_record_by_the_name_of_who_did_it",
            "no_event_of_administration_is_made_without_the_administrator",
            "who_is_turned_away_is_on_record_and_counted_and_bars_nobody_else",
            "a_role_may_do_what_its_name_says_and_no_more",
            "whoever_was_removed_since_they_were_let_in_does_nothing_any_more",
            "a_row_says_where_somebody_is_an_administrator_who_asks_elsewhere",
            "a_name_of_a_record_changes_nothing_about_who_may_act_on_it",
            "a_token_ends_when_it_is_renewed_when_its_time_has_come_and_with_its_administrator",
            "a_proof_serves_one_request_of_one_minute_at_one_process",
        ],
    ),
    (
        "Whoever proves nothing is counted",
        &[
            "two_hundred_unproven_requests_of_one_address_write_a_handful_of_rows_at_any_route",
            "silence_of_one_address_holds_nobody_else",
            "a_browser_of_the_person_s_own_is_not_kept_out_by_the_failures_of_others",
        ],
    ),
    (
        "A code that a device shows",
        &[
            "a_device_is_signed_in_by_the_person_who_types_its_code_and_says_yes",
            "a_no_is_final_and_a_code_ends",
            "a_page_that_was_not_ours_answers_for_nobody_and_codes_cannot_be_guessed",
        ],
    ),
    (
        "A database belongs to one authorization server",
        &["sqlite_keeps_the_contract", "a_database_elsewhere_is_spoken_to_by_verified_tls_alone"],
    ),
    (
        "Whoever their directory switches off by provisioning",
        &[
            "who_is_switched_off_loses_everything_in_the_same_moment_and_gets_nothing_of_it_back",
            "an_upstream_sees_and_changes_its_own_people_and_groups_alone",
            "an_external_id_identifies_nobody_unless_an_administrator_says_so_and_then_once",
            "an_address_of_another_person_links_nobody",
        ],
    ),
    (
        "By SAML nobody signs in but by what a certificate of the upstream signed",
        &[
            "what_was_not_signed_for_us_now_lets_nobody_in",
            "a_response_is_taken_once_in_the_browser_that_asked_for_it",
        ],
    ),
    (
        "When access ends at the IdP",
        &[
            "whichever_way_access_ends_the_tokens_of_authorization_servers_end",
            "an_id_jag_from_before_opens_nothing_afterwards",
            "only_who_knows_of_a_person_is_told_and_until_it_listens",
            "an_authorization_server_takes_revocations_of_trusted_issuers_about_their_own_people",
        ],
    ),
    (
        "Where a guard hears a RAS's feed of ended tokens",
        &[
            "whichever_way_a_token_ends_guards_are_told_of_it",
            "a_guard_that_hears_the_feed_refuses_at_once_and_asks_no_more_than_it_must",
            "open_streams_and_calls_under_way_end_with_what_the_feed_names",
            "postgres_keeps_the_contract",
        ],
    ),
    (
        "When the IdP says that a sign-in or an enrolment is over",
        &[
            "a_person_reads_who_ended_their_access_and_when_and_nothing_of_it_is_kept",
            "an_agent_reads_that_access_has_ended_and_another_bridge_uses_no_token_of_it",
            "an_installation_that_was_revoked_is_told_so_and_keeps_nothing",
            "access_denied_is_final_on_both_legs",
            "whoever_signs_out_takes_along_what_came_from_the_sign_in_and_no_other_clients",
        ],
    ),
    (
        "A token that our client gets with its DPoP key",
        &[
            "a_token_is_bound_from_end_to_end_and_of_no_use_to_whoever_steals_it",
            "an_id_jag_that_is_not_bound_to_the_key_is_refused",
            "a_bearer_token_in_answer_to_a_proof_is_a_downgrade",
        ],
    ),
    (
        "A passkey signs in at this server's name alone",
        &[
            "what_is_no_answer_to_this_challenge_signs_nobody_in",
            "a_code_follows_the_password_once_it_is_set_up",
            "codes_are_not_guessed_and_a_known_browser_is_not_kept_out",
            "how_somebody_signs_in_is_changed_by_a_fresh_sign_in_that_is_as_strong",
            "two_changes_at_once_leave_a_way_in_and_add_no_weak_one",
        ],
    ),
    ("Text of other parties does not act on a terminal", &["what_would_be_obeyed_is_seen_instead"]),
];

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut code = String::new();
    for folder in ["crates", "tests/tests"] {
        walk(&root.join(folder), &mut |_, text| code.push_str(text));
    }
    let text = source("SECURITY.md");
    let section = text.split("## What Passavant promises").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let bullets: Vec<&str> = section.split("\n- ").skip(1).collect();
    assert_eq!(bullets.len(), PROMISES.len());
    for bullet in bullets {
        let held = PROMISES.iter().find(|(begins, _)| bullet.starts_with(begins));
        let (_, tests) = held.unwrap_or_else(|| panic!("no test holds: {bullet}"));
        for test in *tests {
            assert!(code.contains(&format!("fn {test}(")), "{bullet}: no test {test}");
        }
    }
}

/// A browser in which the person signed in before has its own count of failures.
#[tokio::test]
async fn a_browser_of_the_person_s_own_is_not_kept_out_by_the_failures_of_others() {
    let wishes = Wishes { failures_per_minute: Some(5), behind_proxy: true, ..Wishes::default() };
    let world = World::with(wishes).await;
    let (url, _) = world.authorize_url(passavant_tests::world::AGENT, "");
    let page = world.http.get(&url).send().await.unwrap();
    let cookie = cookies(page.headers());
    let html = page.text().await.unwrap();
    let form = |cookie: &str, html: &str, password: &str, from: &str| {
        let form = world.sign_in_form(&url, html, cookie, "erin", password);
        form.header("x-forwarded-for", from)
    };
    let mine = "192.0.2.1";
    let signed_in = world.send(&form(&cookie, &html, PASSWORD, mine)).await;
    assert_eq!(signed_in.status, 303, "{}", signed_in.text);
    // The browser keeps its cookies, and starts again without its session.
    let known: Vec<String> = signed_in
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .filter(|pair| !pair.to_ascii_lowercase().contains("session") && !pair.ends_with('='))
        .map(str::to_owned)
        .collect();
    assert!(!known.is_empty(), "nothing marks the browser as known");
    // Somebody guesses her password from many addresses.
    let mut last = 0;
    for i in 0..30 {
        let from = format!("198.51.100.{i}");
        last = world.send(&form(&cookie, &html, "wrong password", &from)).await.status;
    }
    assert_eq!(last, 429, "guessing is slowed");
    let stranger = world.send(&form(&cookie, &html, PASSWORD, "203.0.113.9")).await;
    assert_eq!(stranger.status, 429, "a browser that nobody knows has to wait");
    let known = known.join("; ");
    let page = world.http.get(&url).header("cookie", &known).send().await.unwrap();
    let own = format!("{}; {known}", cookies(page.headers()));
    let html = page.text().await.unwrap();
    let again = world.send(&form(&own, &html, PASSWORD, mine)).await;
    assert_eq!(again.status, 303, "{}", again.text);
}

/// Which keys exist is read from the records, at the next request, whatever that is, and even if
/// there are no others.
#[tokio::test]
async fn a_key_is_published_and_believed_as_the_records_are_at_that_request() {
    let (folder, http) = (tempfile::tempdir().unwrap(), World::new().await.http);
    let made = std::sync::Arc::new([Key::new(), Key::new()]);
    let sealed = |n: usize| SealedKey {
        kid: made[n].kid().to_owned(),
        algorithm: "ES256".to_owned(),
        sealed: String::new(),
        created_at: Timestamp(i64::try_from(n).unwrap()),
        retired_at: None,
        signs_from: Timestamp(i64::try_from(n).unwrap()),
    };
    let clock = Clock::new(|| Timestamp(1_800_000_000));
    let entropy = Entropy::new(|buffer| buffer.fill(7));
    let context = Context::new(clock.clone(), entropy.clone(), &Outbound::new(&[]).unwrap());
    let event = |name| AuditEvent::granted(Event::Admin(Act::Change, name), clock.now());
    for role in ["idp", "ras"] {
        let url = format!("sqlite:{}", folder.path().join(role).display());
        let store = Store::open(&url).await.unwrap();
        store.first_signing_key(&sealed(0)).await.unwrap();
        let known = std::sync::Arc::clone(&made);
        let keys = Keys::on_record(move |held, _| {
            let mut held: Vec<_> = held.iter().collect();
            held.sort_by_key(|key| std::cmp::Reverse(key.signs_from));
            let of = |kid: &str| known.iter().find(|key| key.kid() == kid).unwrap();
            let others: Vec<_> = held[1..].iter().map(|key| of(&key.kid).jwk()).collect();
            Ok(KeyRing::new(of(&held[0].kid).signing_key(), &others).unwrap())
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Issuer::parse(&base).unwrap();
        let (place, context) = (issuer.clone(), context.clone());
        let router = if role == "idp" {
            let settings = IdpSettings::default();
            let passwords = Passwords::new(1);
            let idp = Idp::open(place, store.clone(), keys, context, settings, passwords);
            idp.await.unwrap().router()
        } else {
            Ras::open(place, store.clone(), keys, context, RasSettings::default())
                .await
                .unwrap()
                .router()
        };
        let router = limited(router, LIMITS, entropy.clone(), &[]);
        let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let published = async || {
            let jwks = http.get(issuer.endpoint("/jwks")).send().await.unwrap();
            let jwks: serde_json::Value = jwks.json().await.unwrap();
            let keys = jwks["keys"].as_array().unwrap();
            keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (first, second) = (made[0].kid().to_owned(), made[1].kid().to_owned());
        assert_eq!(published().await, [first.as_str()], "{role}");
        store.add_signing_key(&sealed(1), event("rotate")).await.unwrap();
        assert_eq!(published().await, [second.as_str(), first.as_str()], "{role}");
        assert!(store.remove_signing_key(&first, event("remove"), clock.now()).await.unwrap());
        if role == "idp" {
            // No request was made since; this is the first one that could accept the key.
            let header = made[0].header("JWT").to_string();
            let claims = json!({"iss": base, "sub": "erin", "aud": "agent", "sid": "s", "acr": "x",
                "amr": [], "auth_time": 1, "iat": 1, "exp": 1_800_000_300, "origin_jti": "f"});
            let hint = made[0].sign(&header, claims.to_string().as_bytes());
            let logout = format!("{}?id_token_hint={hint}", issuer.endpoint("/logout"));
            assert_eq!(
                http.get(logout).send().await.unwrap().status(),
                400,
                "a removed key's hint"
            );
            let hint =
                made[1].sign(&made[1].header("JWT").to_string(), claims.to_string().as_bytes());
            let logout = format!("{}?id_token_hint={hint}", issuer.endpoint("/logout"));
            assert_eq!(http.get(logout).send().await.unwrap().status(), 200, "the control");
        }
        assert_eq!(published().await, [second.as_str()], "{role}");
    }
}
