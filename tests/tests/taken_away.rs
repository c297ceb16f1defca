//! Deleting a record ends everything that was obtained through it, and a new record of the same
//! name does not bring it back; and the checks of an act still hold when it is carried out.

use passavant_admin::{
    client::{AdminClient, ClientError, Entry, ServerClient},
    types::{
        Accounts, AuthorizationServers, Connections, GovernedResources, Groups, Kind, NewGroup,
        Resources, TrustedIssuers, Users,
    },
};
use passavant_outbound::Outbound;
use passavant_proto::{
    policy::{Connection, Subject},
    secret::Secret,
};
use passavant_store::Store;
use passavant_tests::{
    forge::Parts,
    outsider::Browser,
    world::{AGENT, Ask, CALLBACK, PASSWORD, Reply, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

fn client(world: &World) -> AdminClient {
    let outbound = Outbound::new(&[]).unwrap();
    let entry = Entry::Secret(world.admin_secret.clone());
    AdminClient::new(&world.admin, entry, world.entropy(), outbound)
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn status<T>(answer: Result<T, ClientError>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(ClientError::Refused(problem)) => problem.status,
        Err(error) => panic!("{error}"),
    }
}

/// What a person has who signed in at the RAS.
struct Held {
    browser: Browser,
    /// The consent page, not answered yet.
    page: (String, Reply),
    code: String,
    refresh: String,
    access: Secret,
    account: String,
}

async fn hold(world: &World) -> Held {
    let url = world.outsider_url(&[]);
    let mut browser = Browser::default();
    let first = browser.code(world, &url, "erin").await;
    let tokens = world.send(&world.redeem_code(&first)).await;
    let code = browser.code(world, &url, "erin").await;
    let page = browser.go(world, &url, "erin").await;
    let access = tokens.str("access_token");
    let account = Parts::of(access).claims["sub"].as_str().unwrap().to_owned();
    let refresh = tokens.str("refresh_token").to_owned();
    Held { browser, page, code, refresh, access: Secret::new(access), account }
}

impl Held {
    /// Checks that none of it is valid any more.
    async fn check_dead(mut self, world: &World, case: &str, access_too: bool) {
        let renewed = world.send(&world.refresh_at_ras(&self.refresh)).await;
        assert_eq!(renewed.status, 400, "{case}: refresh token: {}", renewed.text);
        let redeemed = world.send(&world.redeem_code(&self.code)).await;
        assert_eq!(redeemed.status, 400, "{case}: code: {}", redeemed.text);
        if access_too {
            let stands = world.ras_role.get().unwrap().stands(&self.access).await.unwrap();
            assert!(!stands, "{case}: access token");
            let yes = self.browser.answer(world, &self.page.0, &self.page.1, "allow");
            let answered = self.browser.ask(world, yes).await;
            let sent = answered.headers.get("location").and_then(|to| to.to_str().ok());
            assert!(!sent.unwrap_or_default().contains("code="), "{case}: the page: {sent:?}");
        }
    }
}

#[tokio::test]
async fn what_came_by_way_of_a_link_an_account_an_issuer_or_a_server_ends_with_it() {
    let world = World::new().await;
    world.let_outsiders_in().await;
    let ras = client(&world).ras("ras");
    // The link.
    let held = hold(&world).await;
    let links = ras.links(&held.account).await.unwrap().items;
    ras.unlink(&links[0]).await.unwrap();
    held.check_dead(&world, "unlinked", true).await;
    // The account: after it is enabled again, earlier tokens stay invalid.
    let held = hold(&world).await;
    let account = held.account.clone();
    ras.switch::<Accounts>(&account, false).await.unwrap();
    ras.switch::<Accounts>(&account, true).await.unwrap();
    held.check_dead(&world, "account off and on", true).await;
    let held = hold(&world).await;
    ras.delete::<Accounts>(&held.account).await.unwrap();
    held.check_dead(&world, "account deleted", true).await;
    // The MCP server: a new one with the same URL is a different one.
    let held = hold(&world).await;
    ras.delete::<GovernedResources>(&world.canvas).await.unwrap();
    let again = json!({"resource": world.canvas, "name": "Another", "scopes": ["read", "write"]});
    ras.add::<GovernedResources>(&typed(again)).await.unwrap();
    held.check_dead(&world, "MCP server deleted and added", false).await;
    // The issuer.
    let held = hold(&world).await;
    ras.delete::<TrustedIssuers>(world.idp.as_str()).await.unwrap();
    let again = json!({"issuer": world.idp, "accounts": {"just_in_time": true},
        "sign_in": {"client_id": "ras-rp"}});
    ras.add::<TrustedIssuers>(&typed(again)).await.unwrap();
    held.check_dead(&world, "issuer deleted and added", true).await;
    // A person who signs in now gets a new account.
    hold(&world).await;
}

#[tokio::test]
async fn a_connection_loses_the_server_that_is_deleted_and_goes_with_its_last_one() {
    let world = World::new().await;
    let idp = client(&world).idp();
    let gone = idp.dependents::<Resources>(&world.notes).await.unwrap().records;
    let then = serde_json::to_value(&gone).unwrap();
    assert!(
        then.as_array().unwrap().iter().all(|one| one["then"] == "deleted") && !gone.is_empty()
    );
    let id_token = world.sign_in().await.id_token;
    idp.delete::<Resources>(&world.notes).await.unwrap();
    for connection in &gone {
        assert_eq!(status(idp.show::<Connections>(&connection.name).await), 404);
    }
    let kept = idp.dependents::<Resources>(&world.canvas).await.unwrap().records;
    idp.delete::<Resources>(&world.canvas).await.unwrap();
    for connection in &kept {
        let left = idp.show::<Connections>(&connection.name).await.unwrap().resources;
        assert!(left.iter().all(|resource| resource.as_str() != world.canvas), "{left:?}");
    }
    let again = json!({"resource": world.canvas, "authorization_server": world.ras,
        "scopes": ["read", "write"]});
    idp.add::<Resources>(&typed(again)).await.unwrap();
    assert_eq!(world.send(&world.exchange(&id_token)).await.status, 400, "nobody opened this one");
}

/// Only what names the record is deleted: a person's sign-in is for every MCP server and stays, and
/// so does a connection without servers.
#[tokio::test]
async fn what_does_not_name_a_deleted_server_or_person_stays() {
    let world = World::new().await;
    let idp = client(&world).idp();
    let tokens = world.sign_in().await;
    let people = ["erin-id", "max-id"].map(|id| Subject::User(id.to_owned()));
    let empty = Connection {
        id: "empty".to_owned(),
        resources: Vec::new(),
        subjects: people.to_vec(),
        ..world.connection(AGENT, "x")
    };
    world.put(&world.idp_store, &empty).await;
    let (code, verifier) = world.code("erin", AGENT, "").await;
    idp.delete::<Resources>(&world.notes).await.unwrap();
    let at_idp = |form: &[(&str, &str)]| world.ask(&world.idp, "/token", form);
    let renew =
        at_idp(&[("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh_token)]);
    let renewed = world.send(&renew).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let redeem = at_idp(&[
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", &verifier),
    ]);
    let redeemed = world.send(&redeem).await;
    assert_eq!(redeemed.status, 200, "{}", redeemed.text);
    assert!(idp.show::<Connections>("empty").await.unwrap().resources.is_empty());
    // Deleting a person removes them from connections that name them, as announced.
    let said = idp.dependents::<Users>("max").await.unwrap().records;
    assert!(said.iter().any(|one| one.kind == "connection" && one.name == "empty"));
    idp.delete::<Users>("max").await.unwrap();
    let left = idp.show::<Connections>("empty").await.unwrap();
    assert_eq!(serde_json::to_value(&left).unwrap()["users"], json!(["erin"]));
}

/// Sends all `bodies` at once. Returns how many were accepted.
async fn granted<K: Kind>(server: &Arc<ServerClient>, bodies: Vec<Value>) -> usize
where
    K::New: Send + Sync + 'static,
    K::View: Send + 'static,
{
    let asked: Vec<_> = bodies
        .into_iter()
        .map(|body| {
            let server = server.clone();
            tokio::spawn(async move {
                let answer = status(server.add::<K>(&typed(body)).await);
                assert!([200, 409].contains(&answer), "{answer}");
                usize::from(answer == 200)
            })
        })
        .collect();
    let mut granted = 0;
    for one in asked {
        granted += one.await.unwrap();
    }
    granted
}

#[tokio::test]
async fn what_an_act_was_checked_against_still_holds_when_it_is_done() {
    let world = World::new().await;
    let idp = Arc::new(client(&world).idp());
    let ras = Arc::new(client(&world).ras("ras"));
    // Of concurrent requests for one alias or one domain, one succeeds.
    let servers = (0..8).map(
        |n| json!({"issuer": format!("https://as{n}.example"), "aliases": ["https://one.example"]}),
    );
    assert_eq!(granted::<AuthorizationServers>(&idp, servers.collect()).await, 1, "an alias");
    let issuers = (0..8).map(|n| {
        json!({"issuer": format!("https://idp{n}.example"), "accounts": {"just_in_time": true},
            "sign_in": {"client_id": "x", "domains": ["acme.example"]}})
    });
    assert_eq!(granted::<TrustedIssuers>(&ras, issuers.collect()).await, 1, "a domain");
    // One server's issuer cannot be another's alias, in either order.
    let alias = typed(json!({"issuer": "https://one.example"}));
    let named = idp.add::<AuthorizationServers>(&alias).await;
    assert_eq!(status(named), 409, "an alias as an issuer");
    // Members of one record that have to be consistent.
    let canvas = world.canvas.as_str();
    for _ in 0..8 {
        let both = json!({"scopes": ["a", "b"], "default_scopes": ["a"]});
        ras.change::<GovernedResources>(canvas, &typed(both), None).await.unwrap();
        let change = |body: Value| {
            let (ras, canvas) = (ras.clone(), canvas.to_owned());
            tokio::spawn(async move {
                let answer = ras.change::<GovernedResources>(&canvas, &typed(body), None).await;
                [200, 400, 409].contains(&status(answer))
            })
        };
        let two = [change(json!({"scopes": ["a"]})), change(json!({"default_scopes": ["b"]}))];
        for one in two {
            assert!(one.await.unwrap());
        }
        let held = ras.show::<GovernedResources>(canvas).await.unwrap();
        let held = serde_json::to_value(held).unwrap();
        let scopes = held["scopes"].as_array().unwrap();
        let defaults = held["default_scopes"].as_array().unwrap();
        assert!(defaults.iter().all(|scope| scopes.contains(scope)), "{held}");
    }
    // The group of a person whose password takes a while to hash.
    for n in 0..4 {
        let group = NewGroup { name: "raced".to_owned(), description: String::new() };
        idp.add::<Groups>(&group).await.unwrap();
        let adding = {
            let idp = idp.clone();
            let body = json!({"username": format!("race{n}"), "groups": ["raced"],
                "password": "a long passphrase here 1"});
            tokio::spawn(async move { status(idp.add::<Users>(&typed(body)).await) })
        };
        tokio::time::sleep(std::time::Duration::from_millis(n * 5)).await;
        idp.delete::<Groups>("raced").await.unwrap();
        let added = adding.await.unwrap();
        assert!([200, 400, 409].contains(&added), "{added}");
        idp.add::<Groups>(&group).await.unwrap();
        let heirs = idp.dependents::<Groups>("raced").await.unwrap().records;
        assert!(heirs.is_empty(), "a later group inherits {heirs:?}");
        idp.delete::<Groups>("raced").await.unwrap();
    }
}

#[tokio::test]
async fn who_began_a_sign_in_comes_back_whatever_others_of_their_address_do() {
    let wishes = Wishes { failures_per_minute: Some(20), behind_proxy: true, ..Wishes::default() };
    let world = World::with(wishes).await;
    world.let_outsiders_in().await;
    let url = world.outsider_url(&[]);
    let office = ("x-forwarded-for", "192.0.2.77");
    let get = |url: &str| {
        let ask =
            Ask { url: url.to_owned(), form: Vec::new(), headers: Vec::new(), method: Method::GET };
        ask.header(office.0, office.1)
    };
    let mut browser = Browser::default();
    let to = browser.ask(&world, get(&url)).await.header("location").to_owned();
    let (back, _) = world.browse(&to, "erin", PASSWORD).await;
    // A page in one browser of the office sends invalid requests as fast as it can.
    let nonsense = world.outsider_url(&[("redirect_uri", "https://evil.example/")]);
    let callback = format!("{}?code=x&state=y", world.ras.endpoint("/callback"));
    let mut barred = 0;
    for _ in 0..60 {
        barred += usize::from(world.send(&get(&nonsense)).await.status == 429);
        assert_eq!(world.send(&get(&callback)).await.status, 400, "it costs nothing");
    }
    assert!(barred > 20, "that page is barred");
    let done = browser.ask(&world, get(&back)).await;
    assert_eq!((done.status, done.header("location")), (303, url.as_str()), "{}", done.text);
    // Sign-ins that are started only to return with made-up codes are limited, too.
    let mut last = 0;
    for _ in 0..40 {
        let mut liar = Browser::default();
        let to = liar.ask(&world, get(&url)).await;
        if to.status != 303 {
            last = to.status;
            break;
        }
        let to = url::Url::parse(to.header("location")).unwrap();
        let state = to.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", "made-up")
            .append_pair("state", &state)
            .append_pair("iss", world.idp.as_str())
            .finish();
        let back = format!("{}?{query}", world.ras.endpoint("/callback"));
        last = liar.ask(&world, get(&back)).await.status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn whom_a_request_does_not_fit_is_on_record() {
    let world = World::new().await;
    world.let_outsiders_in().await;
    let essential = r#"{"id_token":{"acr":{"essential":true,"value":"urn:example:gold"}}}"#;
    let query =
        form_urlencoded::Serializer::new(String::new()).append_pair("claims", essential).finish();
    let (at_idp, _) = world.authorize_url(AGENT, "");
    let cases: [(&Store, String); 2] =
        [(&world.idp_store, at_idp), (&world.ras_store, world.outsider_url(&[]))];
    for (store, url) in cases {
        let mut browser = Browser::default();
        let (at, page) = browser.go(&world, &format!("{url}&{query}"), "erin").await;
        if page.status == 200 {
            let yes = browser.answer(&world, &at, &page, "allow");
            browser.ask(&world, yes).await;
        }
        assert_eq!(world.last_event(store).await.details["reason"], "authorize.acr", "{url}");
    }
}
