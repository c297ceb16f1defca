//! `explain` agrees with the exchange: for randomly generated companies, clients of every kind, and
//! everything disabled in turn. The seeds are fixed: a failure names its seed, and is reproducible.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use passavant_proto::{
    event::{Act, Event},
    oauth::{client::Client, client_assertion},
    oidc::authentication::ACR_PASSWORD,
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
};
use passavant_store::{AuditEvent, Record, User};
use passavant_tests::{
    desk::Desk,
    world::{AGENT, Ask, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A small generator (xorshift): the same seed, the same company.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

struct Company {
    world: World,
    /// Claims of a live sign-in, by user name.
    signed_in: BTreeMap<&'static str, Value>,
    desks: Vec<(&'static str, Desk)>,
}

impl Company {
    async fn new(public_exchange: bool) -> Self {
        let world = World::with(Wishes {
            allow_public_exchange: public_exchange,
            grants_per_minute: Some(1_000_000),
            failures_per_minute: Some(1_000_000),
            ..Wishes::default()
        })
        .await;
        let mut signed_in = BTreeMap::new();
        let mut desks = Vec::new();
        for user in ["erin", "max"] {
            let token = world.sign_in_as(user, AGENT).await.id_token;
            let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            signed_in.insert(user, serde_json::from_slice(&payload).unwrap());
            desks.push((user, world.desk(user).await));
        }
        // A revoked installation.
        let gone = world.desk("erin").await;
        let id = gone.client_id.rsplit('/').next().unwrap();
        let path = format!("/idp/installations/{id}");
        assert_eq!(world.administer(Method::DELETE, &path, None).await.status, 204);
        desks.push(("erin", gone));
        Self { world, signed_in, desks }
    }

    async fn change<R: Record>(&self, id: &str, change: impl FnOnce(&mut R) + Send) {
        let event = AuditEvent::granted(Event::Admin(Act::Change, "a test"), self.world.now());
        self.world.idp_store.update::<R>(id, change, event).await.unwrap().unwrap();
    }

    /// Generates a company.
    async fn throw(&self, dice: &mut Dice) {
        let store = &self.world.idp_store;
        for user in store.all::<User>().await.unwrap() {
            let groups = ["engineering", "marketing"].into_iter().filter(|_| dice.one_in(2));
            let groups = groups.map(str::to_owned).collect();
            let disabled = dice.one_in(6);
            let set = |user: &mut User| (user.groups, user.disabled_here) = (groups, disabled);
            self.change::<User>(&user.id, set).await;
        }
        for client in store.all::<Client>().await.unwrap() {
            let disabled = dice.one_in(8);
            self.change::<Client>(&client.id, |client| client.disabled = disabled).await;
        }
        for server in store.all::<ResourceAuthorizationServer>().await.unwrap() {
            let disabled = dice.one_in(8);
            let id = server.issuer.to_string();
            let set = |server: &mut ResourceAuthorizationServer| server.disabled = disabled;
            self.change(&id, set).await;
        }
        for resource in store.all::<RegisteredResource>().await.unwrap() {
            let (disabled, few) = (dice.one_in(8), dice.one_in(4));
            self.change::<RegisteredResource>(resource.resource.normalized(), |resource| {
                resource.disabled = disabled;
                let all: &[&str] = if few { &["read"] } else { &["read", "write"] };
                resource.scopes = all.iter().copied().collect();
            })
            .await;
        }
        for connection in store.all::<Connection>().await.unwrap() {
            let (disabled, whom, sign_in, scopes) =
                (dice.one_in(8), dice.below(5), dice.below(6), dice.below(4));
            self.change::<Connection>(&connection.id, |connection| {
                connection.disabled = disabled;
                connection.subjects = match whom {
                    0 => vec![Subject::Everyone],
                    1 => vec![Subject::Group("engineering".to_owned())],
                    2 => vec![Subject::Group("nobody".to_owned())],
                    3 => vec![Subject::User("max-id".to_owned())],
                    _ => vec![
                        Subject::Group("marketing".to_owned()),
                        Subject::User("erin-id".to_owned()),
                    ],
                };
                connection.conditions.max_authentication_age = (sign_in == 0).then_some(100);
                connection.conditions.acr_values = match sign_in {
                    1 => vec!["urn:stronger".to_owned()],
                    2 => vec![ACR_PASSWORD.to_owned(), "urn:stronger".to_owned()],
                    _ => Vec::new(),
                };
                let granted: &[&str] = match scopes {
                    0 => &["read"],
                    1 => &["other"],
                    _ => &["read", "write"],
                };
                connection.scopes = granted.iter().copied().collect();
            })
            .await;
        }
    }

    /// The exchange by this client, with a live sign-in of this user.
    fn exchange(&self, user: &str, client: &str, resource: &str, scopes: Option<&str>) -> Ask {
        let world = &self.world;
        let mut claims = self.signed_in[user].clone();
        claims["aud"] = client.into();
        let header = world.idp_key.header("JWT").to_string();
        let token = world.idp_key.sign(&header, claims.to_string().as_bytes());
        let audience = if resource == world.notes { &world.other_ras } else { &world.ras };
        let mut ask = world
            .exchange(&token)
            .set("resource", resource)
            .set("audience", audience.as_str())
            .without("scope");
        if let Some(scopes) = scopes {
            ask = ask.set("scope", scopes);
        }
        let by_key = |ask: Ask, assertion: &str| {
            ask.no_header("authorization")
                .add("client_assertion_type", client_assertion::ASSERTION_TYPE)
                .add("client_assertion", assertion)
        };
        if client == "agent-jwt" {
            let header = world.client_key.header("JWT").to_string();
            let claims = world.assertion_claims().to_string();
            by_key(ask, &world.client_key.sign(&header, claims.as_bytes()))
        } else if client == "public" {
            ask.no_header("authorization").add("client_id", client)
        } else if client.starts_with("http") {
            let desk = self.desks.iter().find(|(_, desk)| desk.client_id == client);
            let key = &desk.unwrap_or(&self.desks[0]).1.key;
            let audience = world.idp.as_str();
            let signed = client_assertion::sign(key, client, audience, &world.id(), world.now());
            by_key(ask, &signed).add("client_id", client)
        } else {
            ask.basic(client, world.secret.expose())
        }
    }

    /// Asks every question in both ways. Returns how often the answer was yes, and how often no.
    async fn agree(&self, seed: u64) -> (usize, usize) {
        let world = &self.world;
        let nobodys = format!("{}/installations/nobodys", world.idp);
        let mut clients: Vec<&str> = vec![AGENT, "agent-jwt", "public", "sibling", &nobodys];
        clients.extend(self.desks.iter().map(|(_, desk)| desk.client_id.as_str()));
        let (mut granted, mut refused) = (0, 0);
        for user in ["erin", "max"] {
            let signed_in = self.signed_in[user]["auth_time"].as_i64().unwrap();
            let ago = world.now().0 - signed_in;
            for client in &clients {
                for resource in [&world.canvas, &world.boards, &world.notes] {
                    for scopes in [None, Some("read"), Some("write"), Some("other read")] {
                        let mut body = json!({"user": user, "client": client,
                                              "resource": resource, "signed_in_ago": ago});
                        if let Some(scopes) = scopes {
                            let scopes: Vec<_> = scopes.split(' ').collect();
                            body["scopes"] = json!(scopes);
                        }
                        let said = world.administer(Method::POST, "/idp/explain", Some(body)).await;
                        let ask = self.exchange(user, client, resource, scopes);
                        let done = world.send(&ask).await;
                        let what = format!(
                            "seed {seed}: {user} by {client} to {resource} for {scopes:?}: \
                             explained {}, exchanged {} {}",
                            said.text, done.status, done.text
                        );
                        assert_eq!(said.status, 200, "{what}");
                        assert_eq!(said.json["granted"] == true, done.status == 200, "{what}");
                        if done.status == 200 {
                            granted += 1;
                            let scopes: Vec<&str> = done.str("scope").split_whitespace().collect();
                            assert_eq!(said.json["scopes"], json!(scopes), "{what}");
                        } else {
                            refused += 1;
                            let row = world.last_event(&world.idp_store).await;
                            // Disabled clients and people are rejected before the policy is asked.
                            if row.details["reason"].starts_with("policy.") {
                                assert_eq!(said.str("reason"), row.details["reason"], "{what}");
                                assert_eq!(said.str("rule"), row.details["rule"], "{what}");
                            }
                        }
                    }
                }
            }
        }
        (granted, refused)
    }
}

async fn explains(public_exchange: bool, seeds: std::ops::Range<u64>) {
    let company = Company::new(public_exchange).await;
    let (mut granted, mut refused) = company.agree(u64::MAX).await;
    for seed in seeds {
        let mut dice = Dice::new(seed);
        company.throw(&mut dice).await;
        if seed % 4 == 3 {
            // Now the sign-in is too old for some connections, but the token is still valid.
            company.world.pass(40);
        }
        let (more, fewer) = company.agree(seed).await;
        (granted, refused) = (granted + more, refused + fewer);
    }
    assert!(granted > 100 && refused > 100, "{granted} granted, {refused} refused");
}

#[tokio::test]
async fn explain_says_what_the_exchange_does_in_any_company() {
    explains(false, 0..12).await;
}

#[tokio::test]
async fn explain_says_what_the_exchange_does_where_public_clients_may_ask() {
    explains(true, 100..112).await;
}
