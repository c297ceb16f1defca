//! Cut-offs: a preview of what will end, the act, and a report of what ended where and when.

use crate::access_ended::{Vendor, id_jag, redeemed, sid, tell};
use passavant_admin::{
    client::{AdminClient, ClientError, Entry, ServerClient},
    types::{
        Accounts, AuthorizationServers, Clients, Connections, CutOffReport, CutOffServerState,
        CutOffTarget, TrustedIssuers, Users,
    },
};
use passavant_outbound::Outbound;
use passavant_proto::{policy::Connection, secret::Secret};
use passavant_store::{AuditFilter, AuditRow, Store};
use passavant_tests::{
    forge::Parts,
    outsider::Browser,
    world::{AGENT, AGENT_AT_RAS, Ask, World},
};
use reqwest::Method;
use serde_json::json;

fn ras_admin(world: &World) -> ServerClient {
    let outbound = Outbound::new(&[]).unwrap();
    let entry = Entry::Secret(world.admin_secret.clone());
    AdminClient::new(&world.admin, entry, world.entropy(), outbound).ras("ras")
}

async fn newest(store: &Store) -> AuditRow {
    let filter = AuditFilter { limit: 1, ..AuditFilter::default() };
    store.audit(&filter).await.unwrap().remove(0)
}

/// Whether a token of whichever client is live at the RAS.
async fn is_active(world: &World, token: &str) -> bool {
    world.ras_role.get().unwrap().stands(&Secret::new(token)).await.unwrap()
}

fn claim(token: &str, name: &str) -> String {
    Parts::of(token).claims[name].as_str().unwrap().to_owned()
}

fn status<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> u16 {
    match answer.unwrap_err() {
        ClientError::Refused(problem) => problem.status,
        error => panic!("{error}"),
    }
}

/// The state at an authorization server.
fn state(report: &CutOffReport, issuer: &str) -> CutOffServerState {
    let found = report.servers.iter().find(|server| server.issuer == issuer);
    found.unwrap_or_else(|| panic!("{issuer}: {report:?}")).state
}

/// What erin has at the RAS by way of `agent`, of two sign-ins; and an ID-JAG that is not redeemed.
struct Held {
    tokens: [String; 2],
    under_way: String,
    id_token: String,
}

async fn hold(world: &World) -> Held {
    let (one, two) = (world.sign_in().await, world.sign_in().await);
    let tokens = [redeemed(world, &one).await, redeemed(world, &two).await];
    Held { tokens, under_way: id_jag(world, &one).await, id_token: one.id_token }
}

/// A way to cut off at the IdP, and what of the two access tokens is left.
struct Way {
    target: CutOffTarget,
    name: String,
    left: [bool; 2],
    /// Whether the policy has to be asked before ID-JAGs end.
    later: bool,
}

fn ways(world: &World, held: &Held) -> Vec<Way> {
    let way =
        |target, name: &str| Way { target, name: name.to_owned(), left: [false; 2], later: false };
    vec![
        way(CutOffTarget::Person, "erin"),
        way(CutOffTarget::Client, AGENT),
        Way { later: true, ..way(CutOffTarget::Connection, "agent-canvas") },
        way(CutOffTarget::Server, world.ras.as_str()),
        Way { left: [false, true], ..way(CutOffTarget::Grant, &claim(&held.tokens[0], "txn")) },
    ]
}

everywhere!(
    what_the_preview_counts_is_what_ends_and_the_report_says_when_servers_have_acknowledged,
    an_installation_is_cut_off_and_other_installations_stay,
    a_server_that_cannot_be_told_is_reported_as_one,
    a_connection_ends_what_no_other_connection_allows,
);

mod cases {
    use super::*;

    pub(super) async fn what_the_preview_counts_is_what_ends_and_the_report_says_when_servers_have_acknowledged()
     {
        for at in 0..5 {
            #[cfg(feature = "postgres")]
            if passavant_tests::world::IDP_DATABASE.try_with(|_| ()).is_ok() {
                let url = crate::store_contract::postgres::fresh(&format!("on_cut_off_{at}")).await;
                passavant_tests::world::IDP_DATABASE.scope(url, Box::pin(one_way(at))).await;
                continue;
            }
            Box::pin(one_way(at)).await;
        }
    }

    async fn one_way(at: usize) {
        let world = World::new().await;
        let held = hold(&world).await;
        let way = ways(&world, &held).remove(at);
        let (target, name) = (way.target, way.name.as_str());
        let idp = world.idp_admin();
        let before = newest(&world.idp_store).await.id;
        let preview = idp.preview_cut_off(target, name).await.unwrap();
        let id_jags = if target == CutOffTarget::Grant { 1 } else { 3 };
        assert_eq!(preview.ends.id_jags, id_jags, "{target:?}");
        let signed_in = i64::from(target == CutOffTarget::Person) * 2;
        assert_eq!(preview.ends.sign_ins, signed_in, "{target:?}");
        let refreshable = matches!(target, CutOffTarget::Person | CutOffTarget::Client);
        assert_eq!(preview.ends.refresh_tokens, i64::from(refreshable) * 2, "{target:?}");
        let [server] = preview.servers.as_slice() else { panic!("{preview:?}") };
        assert_eq!((server.issuer.as_str(), server.told), (world.ras.as_str(), Some(true)));
        // Nothing has changed.
        assert_eq!(newest(&world.idp_store).await.id, before);
        assert_eq!(tell(&world).await, 0);
        for token in &held.tokens {
            assert!(is_active(&world, token).await, "{target:?}");
        }
        let again = idp.preview_cut_off(target, name).await.unwrap();
        assert_eq!(again.ends, preview.ends, "{target:?}");
        // The act.
        world.pass(5);
        let report = idp.cut_off(target, name).await.unwrap();
        assert_eq!((report.at, report.by.as_str()), (world.now(), "the config's secret"));
        assert_eq!(report.id, newest(&world.idp_store).await.id, "{target:?}");
        assert!(!report.done, "{report:?}");
        if way.later {
            assert!(report.deciding, "{report:?}");
            assert_eq!(report.ended.id_jags, 0);
        } else {
            assert_eq!(report.ended, preview.ends, "{target:?}");
            assert_eq!(state(&report, world.ras.as_str()), CutOffServerState::Waiting);
        }
        let exchanged = world.send(&world.exchange(&held.id_token)).await;
        let stands = target == CutOffTarget::Grant;
        assert_eq!(exchanged.status == 200, stands, "{target:?}: {}", exchanged.text);
        // The delivery.
        world.pass(2);
        assert_eq!(tell(&world).await, 1, "{target:?}");
        let left =
            [is_active(&world, &held.tokens[0]).await, is_active(&world, &held.tokens[1]).await];
        assert_eq!(left, way.left, "{target:?}");
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert!(report.done && !report.deciding && report.complete, "{report:?}");
        assert_eq!(report.ended, preview.ends, "{target:?}");
        let [server] = report.servers.as_slice() else { panic!("{report:?}") };
        assert_eq!(server.state, CutOffServerState::Acknowledged, "{target:?}");
        assert_eq!(server.at, Some(world.now()), "{target:?}");
        assert_eq!((server.people, server.waiting, server.id_jags), (1, 0, id_jags), "{target:?}");
        let redeemed = world.send(&world.redeem(&held.under_way)).await;
        let stands = target == CutOffTarget::Grant;
        assert_eq!(redeemed.status == 200, stands, "{target:?}: {}", redeemed.text);
        // Once more: nothing is left to end, and no server to tell.
        if target != CutOffTarget::Grant {
            let nothing = idp.preview_cut_off(target, name).await.unwrap();
            let counts = (nothing.ends.id_jags, nothing.ends.sign_ins, nothing.ends.refresh_tokens);
            assert_eq!(counts, (0, 0, 0), "{target:?}");
        }
        world.pass(1);
        let second = idp.cut_off(target, name).await.unwrap();
        assert!(second.id > report.id, "{target:?}");
        tell(&world).await;
        // The first report says what it said.
        let first = idp.cut_off_report(report.id).await.unwrap();
        assert_eq!((first.ended, first.done), (report.ended, true), "{target:?}");
        world.idp_store.close().await;
    }

    pub(super) async fn an_installation_is_cut_off_and_other_installations_stay() {
        let world = World::new().await;
        let (one, two) = (world.desk("erin").await, world.desk("erin").await);
        let first = one.client.access(&world.canvas).await.unwrap().token;
        let second = two.client.access(&world.canvas).await.unwrap().token;
        let id = one.client_id.rsplit('/').next().unwrap();
        let idp = world.idp_admin();
        let preview = idp.preview_cut_off(CutOffTarget::Installation, id).await.unwrap();
        assert_eq!((preview.ends.installations, preview.ends.id_jags), (1, 1), "{preview:?}");
        assert!(is_active(&world, &first).await);
        let report = idp.cut_off(CutOffTarget::Installation, id).await.unwrap();
        assert!(report.deciding && !report.done, "{report:?}");
        tell(&world).await;
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert_eq!((&report.ended, report.done), (&preview.ends, true), "{report:?}");
        assert_eq!(state(&report, world.ras.as_str()), CutOffServerState::Acknowledged);
        assert!(!is_active(&world, &first).await);
        assert!(is_active(&world, &second).await);
        // Of the person, both count: what they had ends with them.
        let preview = idp.preview_cut_off(CutOffTarget::Person, "erin").await.unwrap();
        assert_eq!((preview.ends.installations, preview.ends.id_jags), (1, 1), "{preview:?}");
        assert_eq!(status(idp.cut_off(CutOffTarget::Installation, id).await), 404);
    }

    pub(super) async fn a_server_that_cannot_be_told_is_reported_as_one() {
        let world = World::new().await;
        let vendor = Vendor::start(&world).await;
        let idp = world.idp_admin();
        *vendor.offers.lock().unwrap() = (false, false);
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        redeemed(&world, &tokens).await;
        let preview = idp.preview_cut_off(CutOffTarget::Person, "erin").await.unwrap();
        let told = |issuer: &str| {
            let server = preview.servers.iter().find(|server| server.issuer == issuer).unwrap();
            (server.told, server.id_jags)
        };
        assert_eq!(told(&vendor.url), (Some(false), 1));
        assert_eq!(told(world.ras.as_str()), (Some(true), 1));
        let report = idp.cut_off(CutOffTarget::Person, "erin").await.unwrap();
        assert_eq!(state(&report, &vendor.url), CutOffServerState::Waiting);
        tell(&world).await;
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert!(report.done, "{report:?}");
        assert_eq!(state(&report, &vendor.url), CutOffServerState::NotTold);
        assert_eq!(state(&report, world.ras.as_str()), CutOffServerState::Acknowledged);
        let server = report.servers.iter().find(|server| server.issuer == vendor.url).unwrap();
        // Its ID-JAG for two minutes, a token for an hour.
        assert_eq!(server.tokens_expire_by, Some(world.now().plus(120 + 3600)));
        // One that ends people and no single ID-JAGs: told of the one, and not of the other.
        idp.switch::<Users>("erin", true).await.unwrap();
        world.pass(301);
        *vendor.offers.lock().unwrap() = (true, false);
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        let of_client = idp.preview_cut_off(CutOffTarget::Client, AGENT).await.unwrap();
        let of_person = idp.preview_cut_off(CutOffTarget::Person, "erin").await.unwrap();
        let told = |preview: &passavant_admin::types::CutOffPreview| {
            preview.servers.iter().find(|server| server.issuer == vendor.url).unwrap().told
        };
        assert_eq!((told(&of_client), told(&of_person)), (Some(false), Some(true)));
        let report = idp.cut_off(CutOffTarget::Client, AGENT).await.unwrap();
        tell(&world).await;
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert_eq!(state(&report, &vendor.url), CutOffServerState::NotTold);
        // One that fails is waited for, and given up after a day.
        idp.switch::<Clients>(AGENT, true).await.unwrap();
        world.pass(1);
        let tokens = world.sign_in().await;
        vendor.known_to(&world, &tokens).await;
        vendor.answers(&[503]);
        let report = idp.cut_off(CutOffTarget::Person, "erin").await.unwrap();
        tell(&world).await;
        let waits = idp.cut_off_report(report.id).await.unwrap();
        assert!(!waits.done, "{waits:?}");
        assert_eq!(state(&waits, &vendor.url), CutOffServerState::Waiting);
        world.pass(2);
        tell(&world).await;
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert_eq!(state(&report, &vendor.url), CutOffServerState::Acknowledged);
        idp.switch::<Users>("erin", true).await.unwrap();
        world.pass(1);
        vendor.known_to(&world, &world.sign_in().await).await;
        vendor.answers(&[403; 99]);
        let report = idp.cut_off(CutOffTarget::Person, "erin").await.unwrap();
        for _ in 0..24 {
            tell(&world).await;
            assert!(!idp.cut_off_report(report.id).await.unwrap().done);
            world.pass(3601);
        }
        for _ in 0..2 {
            tell(&world).await;
            world.pass(3601);
        }
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert_eq!(state(&report, &vendor.url), CutOffServerState::GivenUp, "{report:?}");
        assert!(report.done && !report.complete, "{report:?}");
    }

    pub(super) async fn a_connection_ends_what_no_other_connection_allows() {
        let world = World::new().await;
        let held = hold(&world).await;
        let again = Connection { id: "again".to_owned(), ..world.connection(AGENT, AGENT_AT_RAS) };
        world.put(&world.idp_store, &again).await;
        let idp = world.idp_admin();
        let preview = idp.preview_cut_off(CutOffTarget::Connection, "agent-canvas").await.unwrap();
        assert_eq!(preview.ends.id_jags, 0, "{preview:?}");
        let report = idp.cut_off(CutOffTarget::Connection, "agent-canvas").await.unwrap();
        assert_eq!(tell(&world).await, 0);
        let report = idp.cut_off_report(report.id).await.unwrap();
        assert_eq!((report.ended.id_jags, report.done), (0, true), "{report:?}");
        assert!(is_active(&world, &held.tokens[0]).await);
        let preview = idp.preview_cut_off(CutOffTarget::Connection, "again").await.unwrap();
        assert_eq!(preview.ends.id_jags, 3, "{preview:?}");
        idp.cut_off(CutOffTarget::Connection, "again").await.unwrap();
        assert_eq!(tell(&world).await, 1);
        assert!(!is_active(&world, &held.tokens[0]).await);
    }
}

/// What a sign-in in the browser brought at the RAS, and what an ID-JAG brought.
async fn hold_at_ras(world: &World) -> (String, String) {
    let url = world.outsider_url(&[]);
    let code = Browser::default().code(world, &url, "erin").await;
    let tokens = world.send(&world.redeem_code(&code)).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    (tokens.str("access_token").to_owned(), tokens.str("refresh_token").to_owned())
}

#[tokio::test]
async fn at_an_authorization_server_a_cut_off_ends_everything_at_once() {
    for target in [CutOffTarget::Person, CutOffTarget::Issuer] {
        let world = World::new().await;
        world.let_outsiders_in().await;
        let by_id_jag = redeemed(&world, &world.sign_in().await).await;
        let (in_browser, refresh) = hold_at_ras(&world).await;
        let name = match target {
            CutOffTarget::Person => claim(&by_id_jag, "sub"),
            _ => world.idp.to_string(),
        };
        let ras = ras_admin(&world);
        let preview = ras.preview_cut_off(target, &name).await.unwrap();
        assert_eq!(preview.ends.sign_ins, 1, "{target:?}");
        assert_eq!(preview.ends.refresh_tokens, 1, "{target:?}");
        assert_eq!(preview.ends.access_tokens, 2, "{target:?}");
        assert!(preview.tokens_expire_by > Some(world.now()), "{target:?}");
        for token in [&by_id_jag, &in_browser] {
            assert!(is_active(&world, token).await, "{target:?}: a preview ends nothing");
        }
        let report = ras.cut_off(target, &name).await.unwrap();
        assert_eq!(report.ended, preview.ends, "{target:?}");
        assert!(report.done && report.servers.is_empty(), "{report:?}");
        let renewed = world.send(&world.refresh_at_ras(&refresh)).await;
        assert_eq!(renewed.status, 400, "{target:?}: {}", renewed.text);
        assert!(!is_active(&world, &by_id_jag).await, "{target:?}");
        assert!(!is_active(&world, &in_browser).await, "{target:?}");
        let forged = world.id_jag(&world.id_jag_claims());
        let reply = world.send(&world.redeem(&forged)).await;
        assert_eq!(reply.status, 400, "{target:?}: {}", reply.text);
        // Switched on again, it opens; nothing of before does.
        match target {
            CutOffTarget::Issuer => {
                ras.switch::<TrustedIssuers>(&name, true).await.unwrap();
            }
            _ => {
                ras.switch::<Accounts>(&name, true).await.unwrap();
            }
        }
        assert!(!is_active(&world, &by_id_jag).await, "{target:?}");
        redeemed(&world, &world.sign_in().await).await;
    }
}

#[tokio::test]
async fn a_client_at_an_authorization_server_loses_its_tokens_and_does_not_get_them_back() {
    let world = World::new().await;
    world.let_outsiders_in().await;
    let token = redeemed(&world, &world.sign_in().await).await;
    let ras = ras_admin(&world);
    let preview = ras.preview_cut_off(CutOffTarget::Client, AGENT_AT_RAS).await.unwrap();
    assert_eq!(preview.ends.access_tokens, 1);
    let (other, refresh) = hold_at_ras(&world).await;
    let of_other = claim(&other, "client_id");
    let both = ras.preview_cut_off(CutOffTarget::Client, &of_other).await.unwrap();
    assert_eq!((both.ends.access_tokens, both.ends.refresh_tokens), (1, 1));
    assert!(is_active(&world, &other).await);
    let report = ras.cut_off(CutOffTarget::Client, &of_other).await.unwrap();
    assert_eq!(report.ended, both.ends);
    assert!(!is_active(&world, &other).await);
    ras.switch::<Clients>(&of_other, true).await.unwrap();
    assert_eq!(world.send(&world.refresh_at_ras(&refresh)).await.status, 400);
    assert!(is_active(&world, &token).await, "another client's");
    let report = ras.cut_off(CutOffTarget::Client, AGENT_AT_RAS).await.unwrap();
    assert_eq!(report.ended, preview.ends);
    ras.switch::<Clients>(AGENT_AT_RAS, true).await.unwrap();
    assert!(!is_active(&world, &token).await);
    redeemed(&world, &world.sign_in().await).await;
}

#[tokio::test]
async fn one_grant_is_ended_at_an_authorization_server_by_any_token_of_it() {
    let world = World::new().await;
    world.let_outsiders_in().await;
    let trusted: String = form_urlencoded::byte_serialize(world.idp.as_str().as_bytes()).collect();
    let path = format!("/ras/ras/trusted-issuers/{trusted}");
    let reuse = Some(json!({"allow_reuse": true}));
    assert_eq!(world.administer(Method::PATCH, &path, reuse).await.status, 200);
    let ras = ras_admin(&world);
    for by_id_jag in [true, false] {
        let (one, two) = (world.sign_in().await, world.sign_in().await);
        let (first, other) = (id_jag(&world, &one).await, id_jag(&world, &two).await);
        let redeem = async |id_jag: &str| {
            let token = world.send(&world.redeem(id_jag)).await;
            assert_eq!(token.status, 200, "{}", token.text);
            token.str("access_token").to_owned()
        };
        let tokens = [redeem(&first).await, redeem(&first).await, redeem(&other).await];
        let jti = claim(if by_id_jag { &first } else { &tokens[1] }, "jti");
        let preview = ras.preview_cut_off(CutOffTarget::Grant, &jti).await.unwrap();
        assert_eq!(
            (preview.ends.access_tokens, preview.record.as_str()),
            (2, claim(&first, "jti").as_str())
        );
        let report = ras.cut_off(CutOffTarget::Grant, &jti).await.unwrap();
        assert_eq!((report.ended, report.done), (preview.ends, true));
        let mut live = Vec::new();
        for token in &tokens {
            live.push(is_active(&world, token).await);
        }
        assert_eq!(live, [false, false, true], "{by_id_jag}");
        // The ID-JAG opens nothing any more, although it might be used again; the other one does.
        assert_eq!(world.send(&world.redeem(&first)).await.str("error"), "invalid_grant");
        redeem(&other).await;
    }
    // A sign-in in the browser has no ID-JAG: all that it brought is one grant.
    let (token, refresh) = hold_at_ras(&world).await;
    let jti = claim(&token, "jti");
    let preview = ras.preview_cut_off(CutOffTarget::Grant, &jti).await.unwrap();
    assert_eq!((preview.ends.access_tokens, preview.ends.refresh_tokens), (1, 1));
    let report = ras.cut_off(CutOffTarget::Grant, &jti).await.unwrap();
    assert_eq!(report.ended, preview.ends);
    assert!(!is_active(&world, &token).await);
    assert_eq!(world.send(&world.refresh_at_ras(&refresh)).await.status, 400);
}

#[tokio::test]
async fn what_is_not_there_is_not_cut_off_and_not_reported() {
    let world = World::new().await;
    let (idp, ras) = (world.idp_admin(), ras_admin(&world));
    let token = redeemed(&world, &world.sign_in().await).await;
    let before = newest(&world.idp_store).await.id;
    for target in [
        CutOffTarget::Person,
        CutOffTarget::Client,
        CutOffTarget::Installation,
        CutOffTarget::Connection,
        CutOffTarget::Server,
        CutOffTarget::Grant,
    ] {
        for name in ["nobody", "", "family:x"] {
            assert_eq!(status(idp.preview_cut_off(target, name).await), 404, "{target:?} {name}");
            assert_eq!(status(idp.cut_off(target, name).await), 404, "{target:?} {name}");
        }
    }
    for target in
        [CutOffTarget::Person, CutOffTarget::Client, CutOffTarget::Issuer, CutOffTarget::Grant]
    {
        assert_eq!(status(ras.preview_cut_off(target, "nobody").await), 404, "{target:?}");
        assert_eq!(status(ras.cut_off(target, "nobody").await), 404, "{target:?}");
    }
    // An access token is known where it was issued; of a sign-in, a session is ended.
    assert_eq!(status(idp.cut_off(CutOffTarget::Grant, &claim(&token, "jti")).await), 404);
    let session = sid(&world.sign_in().await);
    assert_eq!(status(idp.cut_off(CutOffTarget::Grant, &session).await), 404);
    // What belongs to the other kind of server is no target here.
    for (path, target) in [
        ("/idp/cut-offs", "issuer"),
        ("/ras/ras/cut-offs", "server"),
        ("/ras/ras/cut-offs", "installation"),
    ] {
        let body = json!({"target": target, "name": "x"});
        let reply = world.administer(Method::POST, path, Some(body)).await;
        assert_eq!(reply.status, 400, "{path} {target}: {}", reply.text);
    }
    let filter =
        AuditFilter { event: Some("admin.".to_owned()), limit: 50, ..AuditFilter::default() };
    let acts = world.idp_store.audit(&filter).await.unwrap();
    assert!(acts.iter().all(|row| row.id < before), "nothing was done");
    // Rows that are about something else, and none at all.
    for id in [0, -1, before, i64::MAX] {
        assert_eq!(status(idp.cut_off_report(id).await), 404, "{id}");
    }
    let word = world.administer(Method::GET, "/idp/cut-offs/seven", None).await;
    assert_eq!(word.status, 404, "{}", word.text);
}

#[tokio::test]
async fn who_may_cut_off_may_and_who_may_see_sees() {
    let world = World::new().await;
    let token = async |role: &str| {
        let body = json!({"name": format!("{role}@acme.example"), "role": role});
        let made = world.administer(Method::POST, "/idp/administrators", Some(body)).await;
        made.str("token").to_owned()
    };
    let (auditor, helpdesk) = (token("auditor").await, token("helpdesk").await);
    let erin = || Some(json!({"target": "person", "name": "erin"}));
    let (act, preview) = ("/idp/cut-offs", "/idp/cut-offs/preview");
    let seen = world.administer_as(&auditor, Method::POST, preview, erin()).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    let refused = world.administer_as(&auditor, Method::POST, act, erin()).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let done = world.administer_as(&helpdesk, Method::POST, act, erin()).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.str("by"), "helpdesk@acme.example");
    let report = format!("/idp/cut-offs/{}", done.json["id"]);
    let seen = world.administer_as(&auditor, Method::GET, &report, None).await;
    assert_eq!(seen.json["record"], "erin-id", "{}", seen.text);
}

#[tokio::test]
async fn the_same_request_cuts_off_once() {
    let world = World::new().await;
    let ask = Ask {
        url: format!("{}/idp/cut-offs", world.admin),
        form: Vec::new(),
        headers: Vec::new(),
        method: Method::POST,
    };
    let ask = ask
        .header("authorization", &format!("Bearer {}", world.admin_secret.expose()))
        .header("content-type", "application/json")
        .header("idempotency-key", "once");
    let body = || json!({"target": "client", "name": AGENT}).to_string().into_bytes();
    let first = world.send_body(&ask, body()).await;
    assert_eq!(first.status, 200, "{}", first.text);
    world.idp_admin().switch::<Clients>(AGENT, true).await.unwrap();
    let second = world.send_body(&ask, body()).await;
    assert_eq!(second.json, first.json);
    assert_eq!(second.header("idempotent-replayed"), "true");
    let client = world.idp_admin().show::<Clients>(AGENT).await.unwrap();
    assert!(!client.disabled, "it was switched off a second time");
}

/// `passavant admin user disable` and its like are reported on in the same way.
#[tokio::test]
async fn an_act_that_only_switches_off_has_a_report_too() {
    let world = World::new().await;
    let idp = world.idp_admin();
    let held = hold(&world).await;
    world.pass(1);
    idp.switch::<AuthorizationServers>(world.ras.as_str(), false).await.unwrap();
    let act = newest(&world.idp_store).await.id;
    let report = idp.cut_off_report(act).await.unwrap();
    assert!(report.deciding && !report.done && report.servers.is_empty(), "{report:?}");
    tell(&world).await;
    let report = idp.cut_off_report(act).await.unwrap();
    assert_eq!((report.ended.id_jags, report.done), (3, true), "{report:?}");
    assert_eq!(state(&report, world.ras.as_str()), CutOffServerState::Acknowledged);
    assert!(!is_active(&world, &held.tokens[0]).await);
    // A connection that is gone says no more where it led.
    idp.switch::<Connections>("agent-notes", false).await.unwrap();
    let act = newest(&world.idp_store).await.id;
    idp.delete::<Connections>("agent-notes").await.unwrap();
    let report = idp.cut_off_report(act).await.unwrap();
    assert!(!report.complete && report.servers.is_empty(), "{report:?}");
}

/// Several people lose what they had at one server: it has acknowledged when it has for each.
#[tokio::test]
async fn a_server_is_done_with_when_it_was_told_of_each_person() {
    let world = World::new().await;
    let vendor = Vendor::start(&world).await;
    *vendor.offers.lock().unwrap() = (true, true);
    for person in ["erin", "max"] {
        vendor.known_to(&world, &world.sign_in_as(person, AGENT).await).await;
    }
    let idp = world.idp_admin();
    let report = idp.cut_off(CutOffTarget::Server, &vendor.url).await.unwrap();
    let server = &report.servers[0];
    assert_eq!((server.people, server.waiting, server.id_jags), (2, 2, 2), "{report:?}");
    vendor.answers(&[503, 204]);
    tell(&world).await;
    let report = idp.cut_off_report(report.id).await.unwrap();
    let server = &report.servers[0];
    assert_eq!((server.state, server.waiting), (CutOffServerState::Waiting, 1), "{report:?}");
    world.pass(2);
    tell(&world).await;
    let report = idp.cut_off_report(report.id).await.unwrap();
    let server = &report.servers[0];
    assert_eq!((server.state, server.at), (CutOffServerState::Acknowledged, Some(world.now())));
    assert!(report.done, "{report:?}");
}
