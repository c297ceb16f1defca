//! The parties of a test, all in one process.

mod ask;
mod browser;
mod fixtures;
mod judge;

pub use ask::{Ask, Reply};
pub use browser::{Tokens, cookies};
pub use judge::Expected;

use crate::forge::{Key, other_keys};
use axum::{Json, Router, extract::Extension, routing::post};
use passavant_admin::{AdminApi, IdpAdmin, RasAdmin, TakeRevocations, proof};
use passavant_authority::{Context, KeyRing, LIMITS, Passwords, Rates, Readers, health, limited};
use passavant_client::{MemoryVault, Registration, Settings};
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::{
    identifier::Issuer,
    oauth::client::ENROLLED_CLIENT,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use passavant_ras::{Ras, RasSettings};
use passavant_resource::{Caller, Guard};
use passavant_store::Store;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The time at which every test begins.
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
    /// The IdP, for what it does by itself.
    pub idp_role: OnceLock<Idp>,
    /// The RAS, for gateways in the same process.
    pub ras_role: OnceLock<Ras>,
    /// The RAS's signing key.
    pub ras_key: Key,
    /// Key of the `private_key_jwt` clients.
    pub client_key: Key,
    /// The main client's secret, the same at all three servers.
    pub secret: Secret,
    /// Base URL of the administration API.
    pub admin: String,
    /// The secret of the administration API.
    pub admin_secret: Secret,
    /// Without redirects, proxies or cookies.
    pub http: reqwest::Client,
    clock: Arc<AtomicI64>,
    entropy: Entropy,
    folder: TempDir,
}

/// Deviations from the usual world.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a wish of its own
pub struct Wishes {
    /// Failed authentications per minute before an address has to wait.
    pub failures_per_minute: Option<u32>,
    /// ID-JAGs and tokens per minute for one person through one client.
    pub grants_per_minute: Option<u32>,
    /// Public clients may request ID-JAGs.
    pub allow_public_exchange: bool,
    /// The tests' own address counts as a trusted proxy.
    pub behind_proxy: bool,
    /// Clients may register themselves at the RASes.
    pub registration: bool,
    /// A person who signs in at a RAS may consent to any client that has a metadata document.
    pub client_documents: bool,
    /// IdP and RASes also have keys for EdDSA and RS256.
    pub every_algorithm: bool,
    /// Database URL of the IdP, instead of SQLite.
    pub idp_database: Option<String>,
    /// The IdP is known by a name, as passkeys need it.
    pub named: bool,
}

tokio::task_local! {
    /// The database URL of the IdP of every world that a test makes, instead of SQLite.
    pub static IDP_DATABASE: String;
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

/// Entropy that is only unique, which suffices for tests.
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

    /// A world with deviations.
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
        let context = Context::new(clock.clone(), entropy.clone(), &outbound)
            .sealing(crate::upstream::sealing());
        let database = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let elsewhere = IDP_DATABASE.try_with(String::clone).ok();
        let idp_database = wishes.idp_database.or(elsewhere).unwrap_or_else(|| database("idp.db"));
        let idp_store = Store::open(&idp_database).await.unwrap();
        let ras_store = Store::open(&database("ras.db")).await.unwrap();
        let other_store = Store::open(&database("other.db")).await.unwrap();
        let (idp_key, ras_key, other_key) = (Key::new(), Key::new(), Key::new());
        let client_key = Key::new();
        let (idp_listener, mut idp_url) = listener().await;
        if wishes.named {
            idp_url = idp_url.replace("127.0.0.1", "localhost");
        }
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
            idp_role: OnceLock::new(),
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
        assert!(world.idp_role.set(idp_role.clone()).is_ok());
        let probes = health(vec![idp_role.probe()], Readers::Operators);
        let router = idp_role.router().merge(probes);
        run(idp_listener, limited(router, LIMITS, entropy.clone(), proxies));
        let mut ras_admins = BTreeMap::new();
        for (name, place, store, key, listener) in [
            ("ras", &ras, &ras_store, &world.ras_key, ras_listener),
            ("other", &other_ras, &other_store, &other_key, other_listener),
        ] {
            let settings = RasSettings {
                rates,
                registration: wishes.registration,
                client_documents: wishes.client_documents,
                ..RasSettings::default()
            };
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
                    .public_exchange(wishes.allow_public_exchange)
                    .upstreams(crate::upstream::tools(&idp_role))
                    .take_revocations(take_revocations(&idp_role)),
            ),
            ras: ras_admins,
            gateway: Some(gateway_stand_in()),
        };
        run(admin_listener, limited(api.routers().0, LIMITS, entropy, &[]));
        world
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

    /// The folder with this world's files.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
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

    /// Adds an MCP server of the RAS behind a guard, which engineering may reach through
    /// installations of Passavant. Returns its URL.
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

    /// Like [`Self::client_with`], with a vault that the test can inspect.
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

/// Asks authorization servers what they can be told, as `passavant serve` does.
fn take_revocations(idp: &Idp) -> TakeRevocations {
    let idp = idp.clone();
    Arc::new(move |issuers| {
        let idp = idp.clone();
        Box::pin(async move { idp.take_revocations(issuers).await })
    })
}

/// Routes that stand in for a gateway's administration, and return who called.
fn gateway_stand_in() -> Router {
    let who = async |Extension(by): Extension<passavant_admin::By>| by.name().to_owned();
    Router::new().route("/tools", axum::routing::get(who)).route("/approve", post(who))
}
