//! The world of a test.

use crate::forge::{Key, other_keys};
use axum::{Json, Router, extract::Extension, routing::post};
use passavant_admin::{AdminApi, IdpAdmin, RasAdmin, client::segment, proof};
use passavant_authority::{Context, KeyRing, LIMITS, Passwords, Rates, Readers, health, limited};
use passavant_client::{MemoryVault, Registration, Settings};
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::client::{
        Client, ClientAuthentication, ClientKeys, ENROLLED_CLIENT, GovernedResource, SecretHash,
    },
    oauth::scope::Scopes,
    policy::{Conditions, Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
    xaa::trust::{AccountResolution, TrustedIssuer},
};
use passavant_ras::{Ras, RasSettings};
use passavant_resource::{Caller, Guard};
use passavant_store::{AuditEvent, AuditFilter, AuditRow, Group, Put, Record, Store, User};
use reqwest::{Method, header};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// When every test begins.
pub const START: i64 = 1_800_000_000;
/// The passwords of the people.
pub const PASSWORD: &str = "correct horse battery staple";
/// The main client's id at the IdP.
pub const AGENT: &str = "agent";
/// The main client's id at both RASes.
pub const AGENT_AT_RAS: &str = "agent-at-ras";
/// Where the main client's sign-ins return to.
pub const CALLBACK: &str = "http://127.0.0.1/callback";

/// All parties.
pub struct World {
    /// The IdP's issuer.
    pub idp: Issuer,
    /// The RAS that governs `canvas` and `boards`.
    pub ras: Issuer,
    /// Another RAS, which governs `notes`.
    pub other_ras: Issuer,
    /// MCP servers.
    pub canvas: String,
    /// A sibling of `canvas` at the same RAS.
    pub boards: String,
    /// The MCP server of the other RAS.
    pub notes: String,
    /// The IdP's records.
    pub idp_store: Store,
    /// The RAS's records.
    pub ras_store: Store,
    /// The IdP's signing key, for forging what only it could have signed.
    pub idp_key: Key,
    /// The RAS, for what runs in one process with it.
    pub ras_role: OnceLock<Ras>,
    /// The RAS's signing key.
    pub ras_key: Key,
    /// Key of the `private_key_jwt` clients.
    pub client_key: Key,
    /// The main client's secret, the same at all three.
    pub secret: Secret,
    /// Base URL of the administration API.
    pub admin: String,
    /// Its secret.
    pub admin_secret: Secret,
    /// Without redirects, proxies or cookies.
    pub http: reqwest::Client,
    clock: Arc<AtomicI64>,
    entropy: Entropy,
    folder: TempDir,
}

/// Things a test may want otherwise.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a wish of its own
pub struct Wishes {
    /// Failed authentications per minute before an address has to wait.
    pub failures_per_minute: Option<u32>,
    /// ID-JAGs and tokens per minute for one person through one client.
    pub grants_per_minute: Option<u32>,
    /// Public clients may ask for ID-JAGs.
    pub allow_public_exchange: bool,
    /// The tests' own address is a proxy's.
    pub behind_proxy: bool,
    /// Clients may register themselves at the RASes.
    pub registration: bool,
    /// IdP and RASes sign with EdDSA and RS256 too, where it is asked for.
    pub every_algorithm: bool,
    /// Database of the IdP instead of SQLite.
    pub idp_database: Option<String>,
}

/// An answer, read.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: header::HeaderMap,
    /// Body as JSON, or null.
    pub json: Value,
    /// Body as text.
    pub text: String,
}

impl Reply {
    /// A string member of the body.
    pub fn str(&self, name: &str) -> &str {
        self.json.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Tokens of a sign-in.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// ID token.
    pub id_token: String,
    /// Access token for userinfo.
    pub access_token: String,
    /// Refresh token.
    pub refresh_token: String,
}

/// A form request that tests change one thing of.
#[derive(Clone)]
pub struct Ask {
    /// Where.
    pub url: String,
    /// Parameters in order.
    pub form: Vec<(String, String)>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// HTTP method.
    pub method: Method,
}

impl Ask {
    /// Replaces a parameter, or adds it.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.form.retain(|(held, _)| held != name);
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a parameter, also where it is there.
    #[must_use]
    pub fn add(mut self, name: &str, value: &str) -> Self {
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a parameter out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.form.retain(|(held, _)| held != name);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a header out.
    #[must_use]
    pub fn no_header(mut self, name: &str) -> Self {
        self.headers.retain(|(held, _)| !held.eq_ignore_ascii_case(name));
        self
    }

    /// Authenticates by Basic.
    #[must_use]
    pub fn basic(self, id: &str, secret: &str) -> Self {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let value = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        self.no_header("authorization").header("authorization", &value)
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn run(listener: TcpListener, router: Router) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
}

/// Entropy that is unique, which is all that tests need.
fn counting() -> Entropy {
    let next = AtomicU64::new(1);
    Entropy::new(move |buffer| {
        let mut n = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for chunk in buffer.chunks_mut(8) {
            n = n.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ 0x94d0_49bb;
            chunk.copy_from_slice(&n.to_le_bytes()[..chunk.len()]);
        }
    })
}

impl World {
    /// The usual world.
    pub async fn new() -> Self {
        Self::with(Wishes::default()).await
    }

    /// A world with wishes.
    #[allow(clippy::too_many_lines)] // a world is built one party after the other
    pub async fn with(wishes: Wishes) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(START));
        let clock = {
            let now = Arc::clone(&now);
            Clock::new(move || Timestamp(now.load(Ordering::Relaxed)))
        };
        let entropy = counting();
        let outbound = Outbound::new(&[]).unwrap();
        let context = Context::new(clock.clone(), entropy.clone(), &outbound);
        let database = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let idp_database = wishes.idp_database.unwrap_or_else(|| database("idp.db"));
        let idp_store = Store::open(&idp_database).await.unwrap();
        let ras_store = Store::open(&database("ras.db")).await.unwrap();
        let other_store = Store::open(&database("other.db")).await.unwrap();
        let (idp_key, ras_key, other_key) = (Key::new(), Key::new(), Key::new());
        let client_key = Key::new();
        let (idp_listener, idp_url) = listener().await;
        let (ras_listener, ras_url) = listener().await;
        let (other_listener, other_url) = listener().await;
        let (mcp_listener, mcp_url) = listener().await;
        let (admin_listener, admin) = listener().await;
        let issuer = |url: &str| Issuer::parse(url).unwrap();
        let (idp, ras, other_ras) = (issuer(&idp_url), issuer(&ras_url), issuer(&other_url));
        let secret = entropy.secret();
        let rate = |wish: Option<u32>| NonZeroU32::new(wish.unwrap_or(1_000_000)).unwrap();
        let rates = Rates {
            failures: rate(wishes.failures_per_minute),
            grants: rate(wishes.grants_per_minute),
            introspections: rate(None),
        };
        let loopback = ["127.0.0.1/32".parse::<ipnet::IpNet>().unwrap()];
        let proxies = if wishes.behind_proxy { &loopback[..] } else { &[] };
        let passwords = Passwords::new(2);
        let world = Self {
            canvas: format!("{mcp_url}/canvas"),
            boards: format!("{mcp_url}/boards"),
            notes: format!("{other_url}/notes"),
            idp: idp.clone(),
            ras: ras.clone(),
            other_ras: other_ras.clone(),
            idp_store: idp_store.clone(),
            ras_store: ras_store.clone(),
            idp_key,
            ras_role: OnceLock::new(),
            ras_key,
            client_key,
            secret,
            admin,
            admin_secret: entropy.secret(),
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .unwrap(),
            clock: now,
            entropy: entropy.clone(),
            folder,
        };
        world.fill_idp(&passwords).await;
        world.fill_ras(&ras_store, &[&world.canvas, &world.boards]).await;
        world.fill_ras(&other_store, &[&world.notes]).await;
        let ring = |key: &Key| {
            let mut signing = vec![key.signing_key()];
            if wishes.every_algorithm {
                signing.extend(other_keys());
            }
            KeyRing::of_several(signing, &[]).unwrap()
        };
        let settings = IdpSettings {
            name: "Acme".to_owned(),
            allow_public_exchange: wishes.allow_public_exchange,
            rates,
            ..IdpSettings::default()
        };
        let idp_role = Idp::open(
            idp.clone(),
            idp_store.clone(),
            ring(&world.idp_key),
            context.clone(),
            settings,
            passwords.clone(),
        );
        let idp_role = idp_role.await.unwrap();
        let probes = health(vec![idp_role.probe()], Readers::Operators);
        let router = idp_role.router().merge(probes);
        run(idp_listener, limited(router, LIMITS, entropy.clone(), proxies));
        let mut ras_admins = BTreeMap::new();
        for (name, place, store, key, listener) in [
            ("ras", &ras, &ras_store, &world.ras_key, ras_listener),
            ("other", &other_ras, &other_store, &other_key, other_listener),
        ] {
            let settings =
                RasSettings { rates, registration: wishes.registration, ..RasSettings::default() };
            let role =
                Ras::open(place.clone(), store.clone(), ring(key), context.clone(), settings);
            let role = role.await.unwrap();
            let router = role.router().merge(health(vec![role.probe()], Readers::Anyone));
            if name == "ras" {
                assert!(world.ras_role.set(role).is_ok());
            }
            run(listener, limited(router, LIMITS, entropy.clone(), proxies));
            let admin = RasAdmin::new(place.clone(), store.clone(), clock.clone(), entropy.clone());
            ras_admins.insert(name.to_owned(), admin);
        }
        let mut mcp = Router::new();
        for url in [&world.canvas, &world.boards] {
            let name = url.rsplit('/').next().unwrap().to_owned();
            let keys = context.remote_keys.clone();
            let guard = Guard::with_keys(url, ras.as_str(), keys, clock.clone())
                .unwrap()
                .scopes(["read", "write"])
                .require(["read"])
                .tool("draw", ["write"]);
            let echo = post(|Extension(caller): Extension<Caller>| async move {
                Json(json!({"subject": caller.subject(), "client": caller.client(),
                            "scopes": caller.scopes(), "txn": caller.transaction()}))
            });
            mcp = mcp.merge(
                Router::new()
                    .route(&format!("/{name}"), echo)
                    .layer(guard.clone())
                    .merge(guard.metadata()),
            );
        }
        run(mcp_listener, mcp);
        let api = AdminApi {
            clock: clock.clone(),
            entropy: entropy.clone(),
            secret: proof::stored(&world.admin_secret),
            hosts: vec![world.admin.trim_start_matches("http://").to_owned()],
            idp: Some(
                IdpAdmin::new(idp, idp_store, clock, entropy.clone(), passwords)
                    .public_exchange(wishes.allow_public_exchange),
            ),
            ras: ras_admins,
            gateway: Some(gateway_stand_in()),
        };
        run(admin_listener, limited(api.routers().0, LIMITS, entropy, &[]));
        world
    }

    /// A record, as if an administrator had added it.
    pub async fn put<R: Record>(&self, store: &Store, record: &R) {
        let event = AuditEvent::granted(
            passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
            self.now(),
        );
        assert!(store.put(record, Put::Create, event).await.unwrap());
    }

    /// Clients with each way to authenticate, all with the same secret or key.
    async fn fill_clients(&self, store: &Store, agent: &str, public: bool) {
        let hash = SecretHash { hash: self.secret.hash(), expires: None };
        let expired = SecretHash { expires: Some(Timestamp(START - 1)), ..hash.clone() };
        let jwks = json!({"keys": [self.client_key.jwk()]});
        let key = ClientAuthentication::PrivateKeyJwt {
            keys: ClientKeys::Inline(jwks),
            algorithm: Algorithm::ES256,
        };
        let mut clients = vec![
            (agent.to_owned(), ClientAuthentication::Secret(vec![hash.clone()]), false),
            ("sibling".to_owned(), ClientAuthentication::Secret(vec![hash.clone()]), false),
            ("disabled".to_owned(), ClientAuthentication::Secret(vec![hash]), true),
            ("expired".to_owned(), ClientAuthentication::Secret(vec![expired]), false),
            (format!("{agent}-jwt"), key, false),
        ];
        if public {
            clients.push(("public".to_owned(), ClientAuthentication::Public, false));
        }
        for (id, authentication, disabled) in clients {
            let client = Client {
                name: id.clone(),
                id,
                authentication,
                redirect_uris: vec![CALLBACK.to_owned(), "https://app.example/cb".to_owned()],
                post_logout_redirect_uris: vec!["https://app.example/bye".to_owned()],
                disabled,
                ..Client::default()
            };
            self.put(store, &client).await;
        }
    }

    async fn fill_idp(&self, passwords: &Passwords) {
        let store = &self.idp_store;
        self.fill_clients(store, AGENT, true).await;
        let password_hash = Some(passwords.hash(&Secret::new(PASSWORD)).await.unwrap());
        for (username, group) in [("erin", "engineering"), ("max", "marketing")] {
            self.put(store, &Group { name: group.to_owned(), description: String::new() }).await;
            let user = User {
                id: format!("{username}-id"),
                username: username.to_owned(),
                email: Some(format!("{username}@acme.example")),
                email_verified: true,
                display_name: Some(username.to_uppercase()),
                given_name: None,
                family_name: None,
                groups: [group.to_owned()].into(),
                password_hash: password_hash.clone(),
                disabled: false,
            };
            self.put(store, &user).await;
        }
        for (server, resources) in
            [(&self.ras, vec![&self.canvas, &self.boards]), (&self.other_ras, vec![&self.notes])]
        {
            let record = ResourceAuthorizationServer {
                issuer: server.clone(),
                name: String::new(),
                aliases: vec![format!("{server}/alias")],
                id_jag_signing_alg: None,
                release: BTreeSet::new(),
                algorithm: Algorithm::default(),
                disabled: false,
            };
            self.put(store, &record).await;
            for resource in resources {
                let record = RegisteredResource {
                    resource: Resource::parse(resource).unwrap(),
                    authorization_server: server.clone(),
                    name: String::new(),
                    scopes: ["read", "write"].into_iter().collect(),
                    disabled: false,
                };
                self.put(store, &record).await;
            }
        }
        for client in [AGENT, "agent-jwt", "public", ENROLLED_CLIENT] {
            let at_ras = if client == AGENT { AGENT_AT_RAS } else { "agent-at-ras-jwt" };
            let mut base = self.connection(client, at_ras);
            if client == ENROLLED_CLIENT {
                base.ras_client_id = None;
            }
            self.put(store, &base).await;
            let notes = Connection {
                id: format!("{client}-notes"),
                audience: self.other_ras.clone(),
                resources: vec![Resource::parse(&self.notes).unwrap()],
                subjects: vec![Subject::Everyone],
                ..base
            };
            self.put(store, &notes).await;
        }
    }

    /// Engineering may use canvas and boards through `client`.
    pub fn connection(&self, client: &str, at_ras: &str) -> Connection {
        let resources = [&self.canvas, &self.boards];
        Connection {
            id: format!("{client}-canvas"),
            idp_client_id: client.to_owned(),
            audience: self.ras.clone(),
            ras_client_id: Some(at_ras.to_owned()),
            resources: resources.iter().map(|r| Resource::parse(r).unwrap()).collect(),
            scopes: ["read", "write"].into_iter().collect(),
            subjects: vec![Subject::Group("engineering".to_owned())],
            conditions: Conditions::default(),
            disabled: false,
        }
    }

    async fn fill_ras(&self, store: &Store, resources: &[&String]) {
        self.fill_clients(store, AGENT_AT_RAS, false).await;
        let trusted = TrustedIssuer {
            issuer: self.idp.clone(),
            jwks_uri: None,
            algorithm: Algorithm::ES256,
            tenant: None,
            audience_tenant: None,
            accounts: AccountResolution { just_in_time: true, email_domains: Vec::new() },
            allow_reuse: false,
            client_documents: true,
            sign_in: None,
            disabled: false,
        };
        self.put(store, &trusted).await;
        for resource in resources {
            let governed = GovernedResource {
                resource: Resource::parse(resource).unwrap(),
                name: String::new(),
                scopes: ["read", "write"].into_iter().collect(),
                default_scopes: Scopes::default(),
                descriptions: BTreeMap::new(),
                access_token_lifetime: None,
                access_token_signing_alg: None,
                require_dpop: false,
                disabled: false,
            };
            self.put(store, &governed).await;
        }
    }

    /// The time in this world.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::Relaxed))
    }

    /// This world's clock.
    pub fn clock(&self) -> Clock {
        let clock = Arc::clone(&self.clock);
        Clock::new(move || Timestamp(clock.load(Ordering::Relaxed)))
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A fresh unique id.
    pub fn id(&self) -> String {
        self.entropy.id()
    }

    /// Where files of this world are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Sends a form request.
    pub async fn send(&self, ask: &Ask) -> Reply {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(ask.form.iter().map(|(a, b)| (a.as_str(), b.as_str())))
            .finish();
        self.send_body(ask, form.into_bytes()).await
    }

    /// Sends a request with any body.
    pub async fn send_body(&self, ask: &Ask, body: Vec<u8>) -> Reply {
        let mut request = self.http.request(ask.method.clone(), &ask.url).body(body);
        if !ask.headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let text = answer.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Reply { status, headers, json, text }
    }

    /// A request of the main client, by Basic.
    pub fn ask(&self, server: &Issuer, path: &str, form: &[(&str, &str)]) -> Ask {
        let id = if *server == self.idp { AGENT } else { AGENT_AT_RAS };
        let form = form.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let url = server.endpoint(path);
        Ask { url, form, headers: Vec::new(), method: Method::POST }.basic(id, self.secret.expose())
    }

    /// The usual token exchange: erin's ID token for canvas.
    pub fn exchange(&self, id_token: &str) -> Ask {
        self.ask(
            &self.idp,
            "/token",
            &[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:id-jag"),
                ("audience", self.ras.as_str()),
                ("resource", &self.canvas),
                ("scope", "read write"),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
                ("subject_token", id_token),
            ],
        )
    }

    /// The usual redemption.
    pub fn redeem(&self, id_jag: &str) -> Ask {
        self.ask(
            &self.ras,
            "/token",
            &[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", id_jag)],
        )
    }

    /// The usual tool call.
    pub async fn call(&self, url: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let ask = Ask {
            url: url.to_owned(),
            form: Vec::new(),
            headers: headers
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .chain([("content-type".to_owned(), "application/json".to_owned())])
                .collect(),
            method: Method::POST,
        };
        self.send_body(&ask, body.to_string().into_bytes()).await
    }

    /// Claims of an ID-JAG as the IdP would sign it for erin and canvas.
    pub fn id_jag_claims(&self) -> Value {
        let now = self.now().0;
        json!({"iss": self.idp, "sub": "erin-id", "aud": self.ras, "client_id": AGENT_AT_RAS,
               "jti": self.id(), "iat": now, "exp": now + 120, "resource": self.canvas,
               "scope": "read write"})
    }

    /// An ID-JAG with these claims, signed by the IdP's own key.
    pub fn id_jag(&self, claims: &Value) -> String {
        let header = self.idp_key.header("oauth-id-jag+jwt").to_string();
        self.idp_key.sign(&header, claims.to_string().as_bytes())
    }

    /// Claims of an assertion of the `private_key_jwt` client at the IdP.
    pub fn assertion_claims(&self) -> Value {
        let now = self.now().0;
        json!({"iss": "agent-jwt", "sub": "agent-jwt", "aud": self.idp, "jti": self.id(),
               "iat": now, "exp": now + 60})
    }

    /// An exchange by the `private_key_jwt` client with this assertion; the subject token is one of
    /// `agent-jwt`.
    pub fn exchange_with_assertion(&self, id_token: &str, assertion: &str) -> Ask {
        self.exchange(id_token)
            .no_header("authorization")
            .add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .add("client_assertion", assertion)
    }

    /// Claims of a DPoP proof for a POST to `url`.
    pub fn dpop_claims(&self, url: &str) -> Value {
        json!({"htm": "POST", "htu": url, "jti": self.id(), "iat": self.now().0})
    }

    /// A DPoP proof by `key`.
    pub fn dpop(&self, key: &Key, claims: &Value) -> String {
        let mut jwk = key.jwk();
        for name in ["kid", "use", "alg"] {
            jwk.as_object_mut().unwrap().remove(name);
        }
        let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk}).to_string();
        key.sign(&header, claims.to_string().as_bytes())
    }

    /// Signs erin in for the main client.
    pub async fn sign_in(&self) -> Tokens {
        self.sign_in_as("erin", AGENT).await
    }

    /// Signs a person in for a client, over HTTP, like a browser.
    pub async fn sign_in_as(&self, username: &str, client: &str) -> Tokens {
        let (code, verifier) = self.code(username, client, "").await;
        let mut ask = self.ask(
            &self.idp,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", &verifier),
            ],
        );
        if client == "agent-jwt" {
            let header = self.client_key.header("JWT").to_string();
            let claims = self.assertion_claims().to_string();
            let assertion = self.client_key.sign(&header, claims.as_bytes());
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            ask = ask
                .no_header("authorization")
                .add("client_assertion_type", kind)
                .add("client_assertion", &assertion);
        } else if client == "public" {
            ask = ask.no_header("authorization").add("client_id", client);
        } else {
            ask = ask.basic(client, self.secret.expose());
        }
        let reply = self.send(&ask).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        Tokens {
            id_token: reply.str("id_token").to_owned(),
            access_token: reply.str("access_token").to_owned(),
            refresh_token: reply.str("refresh_token").to_owned(),
        }
    }

    /// The authorization URL of a client, with more parameters; and its verifier.
    pub fn authorize_url(&self, client: &str, more: &str) -> (String, String) {
        let verifier = self.entropy.secret().expose().to_owned();
        let challenge = passavant_proto::oauth::pkce::CodeChallenge::of(&verifier);
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", client)
            .append_pair("redirect_uri", CALLBACK)
            .append_pair("scope", "openid profile email offline_access")
            .append_pair("state", "the-state")
            .append_pair("nonce", "the-nonce")
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256")
            .finish();
        (format!("{}?{query}{more}", self.idp.endpoint("/authorize")), verifier)
    }

    /// An authorization code and its verifier.
    pub async fn code(&self, username: &str, client: &str, more: &str) -> (String, String) {
        let (url, verifier) = self.authorize_url(client, more);
        let (location, _) = self.browse(&url, username, PASSWORD).await;
        let location = url::Url::parse(&location).unwrap();
        let parameter = |name: &str| {
            location.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
        };
        assert_eq!(parameter("state").as_deref(), Some("the-state"));
        assert_eq!(parameter("iss").as_deref(), Some(self.idp.as_str()));
        (parameter("code").unwrap(), verifier)
    }

    /// Opens a sign-in URL and fills in the form: where it leads, and the session cookie.
    pub async fn browse(&self, url: &str, username: &str, password: &str) -> (String, String) {
        let page = self.http.get(url).send().await.unwrap();
        assert_eq!(page.status(), 200);
        let cookie = cookies(page.headers());
        let html = page.text().await.unwrap();
        let ask = self.sign_in_form(url, &html, &cookie, username, password);
        let reply = self.send(&ask).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        (reply.header("location").to_owned(), cookies(&reply.headers))
    }

    /// The sign-in form, filled in.
    pub fn sign_in_form(
        &self,
        url: &str,
        html: &str,
        cookie: &str,
        username: &str,
        password: &str,
    ) -> Ask {
        let (_, rest) = html.split_once("name=\"csrf\" value=\"").unwrap();
        let csrf = rest.split('"').next().unwrap();
        Ask {
            url: url.to_owned(),
            form: vec![
                ("csrf".to_owned(), csrf.to_owned()),
                ("username".to_owned(), username.to_owned()),
                ("password".to_owned(), password.to_owned()),
            ],
            headers: vec![
                ("cookie".to_owned(), cookie.to_owned()),
                ("origin".to_owned(), self.idp.origin().to_owned()),
            ],
            method: Method::POST,
        }
    }

    /// The whole way to an access token for canvas.
    pub async fn access_token(&self) -> String {
        let tokens = self.sign_in().await;
        let id_jag = self.send(&self.exchange(&tokens.id_token)).await;
        let token = self.send(&self.redeem(id_jag.str("access_token"))).await;
        assert_eq!(token.status, 200, "{}", token.text);
        token.str("access_token").to_owned()
    }

    /// An access token for canvas that is bound to no key, straight from an ID-JAG.
    pub async fn access_token_unbound(&self) -> String {
        let mut claims = self.id_jag_claims();
        claims["resource"] = self.boards.clone().into();
        let token = self.send(&self.redeem(&self.id_jag(&claims))).await;
        assert_eq!(token.status, 200, "{}", token.text);
        token.str("access_token").to_owned()
    }

    /// Calls the administration API with the secret of the config.
    pub async fn administer(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.administer_as(self.admin_secret.expose(), method, path, body).await
    }

    /// The same by whoever holds `token`.
    pub async fn administer_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let (method, path, body) = in_path(method, path, body);
        let path = path.as_str();
        let bearer = format!("Bearer {token}");
        let ask = Ask {
            url: format!("{}{path}", self.admin),
            form: Vec::new(),
            headers: vec![
                ("authorization".to_owned(), bearer),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            method,
        };
        self.send_body(&ask, body.map(|b| b.to_string().into_bytes()).unwrap_or_default()).await
    }

    /// The newest audit row of a store.
    pub async fn last_event(&self, store: &Store) -> AuditRow {
        let filter = AuditFilter { limit: 1, ..AuditFilter::default() };
        store.audit(&filter).await.unwrap().remove(0)
    }

    /// Sends a request that must be refused: status, error, audit reason; and that nothing else
    /// happened.
    pub async fn refuses(&self, store: &Store, case: &str, ask: &Ask, expected: Expected<'_>) {
        let before = self.last_event(store).await;
        let reply = self.send(ask).await;
        self.check_refusal(store, case, before.id, &reply, expected).await;
    }

    /// What [`World::refuses`] checks of an answer.
    pub async fn check_refusal(
        &self,
        store: &Store,
        case: &str,
        before: i64,
        reply: &Reply,
        Expected(status, error, reason): Expected<'_>,
    ) {
        assert_eq!(reply.status, status, "{case}: {}", reply.text);
        assert_eq!(reply.str("error"), error, "{case}: {}", reply.text);
        assert!(!reply.str("error_description").is_empty(), "{case}: no description");
        for name in ["access_token", "id_token", "refresh_token"] {
            assert!(reply.json.get(name).is_none(), "{case}: a token was issued");
        }
        assert_eq!(reply.header("cache-control"), "no-store", "{case}");
        assert!(reply.header("content-type").starts_with("application/json"), "{case}");
        assert!(!reply.text.contains("panicked") && !reply.text.contains(".rs"), "{case}");
        let after = self.last_event(store).await;
        assert_eq!(after.id, before + 1, "{case}: not exactly one audit row: {after:?}");
        assert_eq!(after.outcome, "refused", "{case}: {after:?}");
        let found = after.details.get("reason").map_or("", String::as_str);
        assert_eq!(found, reason, "{case}: {after:?}");
    }

    /// Settings of the client library for the main client.
    pub fn client_settings(&self) -> Settings {
        let at = |id: &str| Registration::with_secret(id, self.secret.clone());
        let ras = [&self.ras, &self.other_ras];
        Settings {
            ras_clients: ras
                .iter()
                .map(|issuer| (issuer.to_string(), at(AGENT_AT_RAS)))
                .collect::<HashMap<_, _>>(),
            ..Settings::new(self.idp.clone(), at(AGENT))
        }
    }

    /// Unique values.
    pub fn entropy(&self) -> Entropy {
        self.entropy.clone()
    }

    /// Registers an MCP server at RAS and IdP.
    pub async fn register(&self, name: &str, url: &str) -> Resource {
        let scopes = || ["read", "write"].into_iter().collect::<Scopes>();
        let resource = Resource::parse(url).unwrap();
        let governed = GovernedResource {
            resource: resource.clone(),
            name: name.to_owned(),
            scopes: scopes(),
            default_scopes: ["read"].into_iter().collect(),
            descriptions: BTreeMap::new(),
            access_token_lifetime: None,
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: false,
        };
        self.put(&self.ras_store, &governed).await;
        let registered = RegisteredResource {
            resource: resource.clone(),
            authorization_server: self.ras.clone(),
            name: name.to_owned(),
            scopes: scopes(),
            disabled: false,
        };
        self.put(&self.idp_store, &registered).await;
        resource
    }

    /// An MCP server of the RAS behind a guard, which engineering may reach through installations of
    /// Passavant; its URL.
    pub async fn serve(&self, name: &str, router: Router) -> String {
        let (listener, origin) = listener().await;
        let url = format!("{origin}/{name}");
        let resource = self.register(name, &url).await;
        let mut connection = self.connection(ENROLLED_CLIENT, "");
        connection.id = format!("{name}-for-installations");
        connection.ras_client_id = None;
        connection.resources = vec![resource];
        self.put(&self.idp_store, &connection).await;
        let keys = passavant_outbound::RemoteKeys::new(Outbound::new(&[]).unwrap(), self.clock());
        let guard = Guard::with_keys(&url, self.ras.as_str(), keys, self.clock())
            .unwrap()
            .scopes(["read", "write"])
            .require(["read"])
            .tool("write_it", ["write"]);
        run(listener, router.layer(guard.clone()).merge(guard.metadata()));
        url
    }

    /// A client of the client library.
    pub fn client(&self) -> passavant_client::Client {
        self.client_with(self.client_settings())
    }

    /// A client of the client library with other settings.
    pub fn client_with(&self, settings: Settings) -> passavant_client::Client {
        self.client_in(settings, Arc::default())
    }

    /// The same with a vault that the test looks into.
    pub fn client_in(
        &self,
        settings: Settings,
        vault: Arc<MemoryVault>,
    ) -> passavant_client::Client {
        let clock = Arc::clone(&self.clock);
        passavant_client::Client::new(
            settings,
            Box::new(vault),
            Outbound::new(&[]).unwrap(),
            Clock::new(move || Timestamp(clock.load(Ordering::Relaxed))),
            self.entropy.clone(),
        )
    }
}

/// Status, OAuth error, audit reason.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a>(pub u16, pub &'a str, pub &'a str);

/// Routes of gateways that say who asked.
fn gateway_stand_in() -> Router {
    let who = async |Extension(by): Extension<passavant_admin::By>| by.name().to_owned();
    Router::new().route("/tools", axum::routing::get(who)).route("/approve", post(who))
}

/// Ids that are URLs stand in paths percent-encoded. Tests write them as they are: with the act at the end of the path,
/// and the record as `id` or `name` in the body.
fn in_path(method: Method, path: &str, body: Option<Value>) -> (Method, String, Option<Value>) {
    let Some((collection, act)) = path.rsplit_once('/') else {
        return (method, path.to_owned(), body);
    };
    // `/idp/clients`, `/ras/NAME/clients`: no record is named yet.
    let of_all =
        collection.split('/').count() == if collection.starts_with("/idp") { 3 } else { 4 };
    let named = body.as_ref().and_then(|body| {
        ["id", "name", "kid"]
            .into_iter()
            .find_map(|name| Some((name, body.get(name)?.as_str()?.to_owned())))
    });
    let patched = |mut body: Value, member: Option<&str>| {
        if let (Some(members), Some(member)) = (body.as_object_mut(), member) {
            members.remove(member);
        }
        Some(body)
    };
    match (act, named, body) {
        ("groups", None, Some(body)) if collection.contains("/users/") => {
            (Method::PATCH, collection.to_owned(), Some(body))
        }
        ("change" | "sign-in", Some((member, id)), Some(body)) => {
            let path = format!("{collection}/{}", segment(&id));
            (Method::PATCH, path, patched(body, Some(member)))
        }
        ("delete" | "remove", Some((_, id)), _) => {
            (Method::DELETE, format!("{collection}/{}", segment(&id)), None)
        }
        ("links", Some((_, id)), _) => {
            (Method::GET, format!("{collection}/{}/links", segment(&id)), None)
        }
        ("disable" | "enable" | "renew" | "secret", Some((member, id)), Some(body)) if of_all => {
            let body = patched(body, Some(member));
            (Method::POST, format!("{collection}/{}/{act}", segment(&id)), body)
        }
        (_, _, body) => (method, path.to_owned(), body),
    }
}

/// The cookies that an answer sets, as a `Cookie` header.
pub fn cookies(headers: &header::HeaderMap) -> String {
    headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .filter(|pair| !pair.ends_with('='))
        .collect::<Vec<_>>()
        .join("; ")
}
