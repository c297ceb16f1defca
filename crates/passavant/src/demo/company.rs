//! The demo's company: an IdP, two vendors with a RAS and an MCP server each, people, and their
//! access. It uses the same crates as `passavant serve`, on temporary databases.

use super::{Demo, vendors};
use anyhow::{Context as _, Result};
use passavant_admin::{
    AdminApi, IdpAdmin, RasAdmin,
    client::{AdminClient, Entry, ServerClient},
    proof,
    types::{
        AuthorizationServers, Clients, Connections, GovernedResources, Groups, Kind, Resources,
        TrustedIssuers, Upstreams, Users,
    },
};
use passavant_authority::{Context, LIMITS, Limits, Passwords, Readers, health, limited};
use passavant_client::{Registration, Settings};
use passavant_host as system;
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    oauth::client::ENROLLED_CLIENT,
    secret::Secret,
    time::{Clock, Entropy},
};
use passavant_ras::{Ras, RasSettings};
use passavant_resource::Guard;
use passavant_runtime::certificates::tls;
use passavant_runtime::keys::{self, KeyEncryptionKey};
use passavant_runtime::listener::{Ingress, accept};
use passavant_runtime::{
    listener::bind,
    serve::{
        CONNECTIONS, open_store, spawn_feed, spawn_pruning, spawn_telling, take_revocations,
        upstream_tools,
    },
};
use passavant_store::Store;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A vendor: an MCP server and the RAS that governs it.
pub(crate) struct Vendor {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) issuer: Issuer,
    pub(crate) url: String,
    pub(crate) store: Store,
    client: Registration,
    secret: Secret,
}

/// Everything that runs.
pub(crate) struct Company {
    pub(crate) idp_issuer: Issuer,
    pub(crate) idp_store: Store,
    pub(crate) idp_client: Registration,
    idp_secret: Secret,
    pub(crate) vendors: Vec<Vendor>,
    pub(crate) engineer: Person,
    pub(crate) marketer: Person,
    /// The identity provider that the company has had all along, if Passavant stands in front of it.
    pub(crate) upstream: Option<Upstream>,
    admin: ServerClient,
    pub(crate) admin_url: String,
    pub(crate) admin_secret: Secret,
    pub(crate) folder: PathBuf,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) outbound: Outbound,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    listeners: JoinSet<()>,
    stop: CancellationToken,
}

/// The identity provider in front of which Passavant stands: another product, played by Passavant.
pub(crate) struct Upstream {
    pub(crate) issuer: Issuer,
    admin: ServerClient,
    store: Store,
}

/// A sample account.
pub(crate) struct Person {
    pub(crate) username: &'static str,
    pub(crate) group: &'static str,
    pub(crate) password: Secret,
}

/// The dependencies of every part: listeners, certificates, keys.
struct Deps {
    folder: PathBuf,
    next_port: Option<u16>,
    tls: Option<TlsAcceptor>,
    kek: Arc<KeyEncryptionKey>,
    context: Context,
    stop: CancellationToken,
    listeners: JoinSet<()>,
}

impl Deps {
    async fn bind(&mut self) -> Result<(TcpListener, String)> {
        let port = self.next_port.unwrap_or(0);
        self.next_port = self.next_port.map(|port| port + 1);
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // Browsers and clients treat `localhost` and its certificate in the same way on every
        // system.
        let url = format!("{scheme}://localhost:{}", listener.local_addr()?.port());
        Ok((listener, url))
    }

    fn run(&mut self, listener: TcpListener, router: axum::Router, limits: Limits) {
        let router = limited(router, limits, self.context.entropy.clone(), &[]);
        let (tls, stop) = (self.tls.clone(), self.stop.clone());
        self.listeners.spawn(accept(
            listener,
            Ingress { tls, only_from: None },
            router,
            CONNECTIONS,
            stop,
        ));
    }

    /// Serves an administration API.
    fn administer(&mut self, listener: TcpListener, api: AdminApi) {
        let router = limited(api.routers().0, LIMITS, self.context.entropy.clone(), &[]);
        let stop = self.stop.clone();
        self.listeners.spawn(accept(listener, Ingress::default(), router, CONNECTIONS, stop));
    }

    async fn store(&self, name: &str) -> Result<Store> {
        open_store(&format!("sqlite:{}", self.folder.join(name).display())).await
    }
}

/// Limits of an MCP server: large bodies, long streams.
const MCP_LIMITS: Limits =
    Limits { body: 4 * 1024 * 1024, time: Duration::from_hours(1), query: 16 * 1024 };

struct VendorPlan {
    name: &'static str,
    title: &'static str,
    scopes: [&'static str; 2],
}

const VENDORS: [VendorPlan; 2] = [
    VendorPlan { name: "canvas", title: "Canvas", scopes: ["canvas.read", "canvas.write"] },
    VendorPlan { name: "notes", title: "Notes", scopes: ["notes.read", "notes.write"] },
];

/// The client's id at the IdP.
const AGENT: &str = "desk-agent";

/// Starts everything.
#[allow(clippy::too_many_lines)] // one after the other, each part needing the one before
pub(crate) async fn start(args: &Demo, folder: &Path) -> Result<Company> {
    let (clock, entropy) = (system::clock(), system::entropy());
    let (tls, ca_file) = certificates(args, folder)?;
    let roots: Vec<PathBuf> = ca_file.iter().cloned().collect();
    let outbound = system::outbound(&roots)?;
    let stop = CancellationToken::new();
    let kek = Arc::new(KeyEncryptionKey::new(&entropy.secret())?);
    let context = Context::new(clock.clone(), entropy.clone(), &outbound);
    let passing = Arc::default();
    let mut deps = Deps {
        folder: folder.to_owned(),
        next_port: args.port,
        tls,
        context: context.sealing(keys::sealing(&kek, &passing)),
        kek,
        stop: stop.clone(),
        listeners: JoinSet::new(),
    };
    let passwords = Passwords::new(2);
    let (idp_listener, idp_url) = deps.bind().await?;
    let idp_issuer = Issuer::parse(&idp_url)?;
    let idp_store = deps.store("idp.db").await?;
    let mut ras_admins = BTreeMap::new();
    let mut vendors = Vec::new();
    for plan in &VENDORS {
        let (place, admin) = vendor(&mut deps, plan).await?;
        ras_admins.insert(plan.name.to_owned(), admin);
        vendors.push((plan, place));
    }
    let ring =
        keys::of_server(&idp_store, &deps.kek, Algorithm::ES256, &clock, Some(&passing)).await?;
    // So that the walk need not wait: people are checked at the upstream at every exchange.
    let upstream_check = if args.upstream { -1 } else { IdpSettings::default().upstream_check };
    let settings =
        IdpSettings { name: "Acme".to_owned(), upstream_check, ..IdpSettings::default() };
    let idp = Idp::open(
        idp_issuer.clone(),
        idp_store.clone(),
        ring,
        deps.context.clone(),
        settings,
        passwords.clone(),
    )
    .await?;
    let router = idp.router().merge(health(vec![idp.probe()], Readers::Anyone));
    deps.run(idp_listener, router, LIMITS);
    spawn_telling(&idp, &deps.stop);
    let admin_secret = entropy.secret();
    let admin_listener =
        bind(SocketAddr::from((Ipv4Addr::LOCALHOST, deps.next_port.unwrap_or(0)))).await?;
    let admin_address = admin_listener.local_addr()?;
    let api = AdminApi {
        clock: clock.clone(),
        entropy: entropy.clone(),
        secret: proof::stored(&admin_secret),
        hosts: vec![admin_address.to_string()],
        idp: Some(
            IdpAdmin::new(
                idp_issuer.clone(),
                idp_store.clone(),
                clock.clone(),
                entropy.clone(),
                passwords.clone(),
            )
            .upstreams(upstream_tools(&idp, deps.context.sealing.clone()))
            .take_revocations(take_revocations(&idp)),
        ),
        ras: ras_admins,
        gateway: None,
    };
    deps.administer(admin_listener, api);
    deps.next_port = deps.next_port.map(|port| port + 1);
    let admin_url = format!("http://{admin_address}");
    let entry = Entry::Secret(admin_secret.clone());
    let admin = AdminClient::new(&admin_url, entry, entropy.clone(), outbound.clone());
    let mut ready = Vec::new();
    for (plan, place) in vendors {
        ready.push(at_vendor(&admin.ras(plan.name), plan, place, &idp_issuer).await?);
    }
    let vendors = ready;
    let upstream = if args.upstream {
        Some(upstream(&mut deps, &idp_issuer, passwords, &outbound).await?)
    } else {
        None
    };
    let (idp_secret, people) =
        at_company(&admin.idp(), upstream.as_ref(), &vendors, &entropy).await?;
    let idp_client = Registration::with_secret(AGENT, idp_secret.clone());
    let stores = vendors.iter().map(|v| v.store.clone()).chain([idp_store.clone()]);
    let stores = stores.chain(upstream.iter().map(|upstream| upstream.store.clone()));
    spawn_pruning(stores.map(|store| (store, None)).collect(), &clock, &stop);
    let mut people = people.into_iter();
    Ok(Company {
        idp_issuer,
        idp_store,
        idp_client,
        idp_secret,
        vendors,
        engineer: people.next().context("no engineer")?,
        marketer: people.next().context("no marketer")?,
        upstream,
        admin: admin.idp(),
        admin_url,
        admin_secret,
        folder: folder.to_owned(),
        ca_file,
        outbound,
        clock,
        entropy,
        listeners: deps.listeners,
        stop,
    })
}

impl Company {
    /// Administration of the identity provider where the company's people are.
    pub(crate) fn home(&self) -> &ServerClient {
        self.upstream.as_ref().map_or(&self.admin, |upstream| &upstream.admin)
    }

    /// The id of a person at Passavant's identity provider.
    pub(crate) async fn id_of(&self, person: &Person) -> Result<String> {
        Ok(self.admin.show::<Users>(person.username).await?.id)
    }

    /// The settings that the demo's client is configured with.
    pub(crate) fn client_settings(&self) -> Settings {
        let ras = self.vendors.iter().map(|v| (v.issuer.to_string(), v.client.clone()));
        Settings {
            ras_clients: ras.collect::<HashMap<_, _>>(),
            ..Settings::new(self.idp_issuer.clone(), self.idp_client.clone())
        }
    }

    /// Writes the secrets that are needed for trying things out into files of mode 0600.
    pub(crate) fn write_secrets(&self) -> Result<()> {
        let write = |name: String, secret: &Secret| {
            system::write_private(&self.folder.join(name), secret.expose().as_bytes(), false)
        };
        write("admin.secret".to_owned(), &self.admin_secret)?;
        for (name, secret) in
            self.vendors.iter().map(|v| (v.name, &v.secret)).chain([("idp", &self.idp_secret)])
        {
            write(format!("{name}.secret"), secret)?;
        }
        Ok(())
    }

    /// Stops everything.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.listeners.join_next().await.is_some() {}
        let upstream = self.upstream.map(|upstream| upstream.store);
        let stores = self.vendors.into_iter().map(|v| v.store).chain([self.idp_store]);
        for store in stores.chain(upstream) {
            store.close().await;
        }
    }
}

/// Adds a record, as an administrator's program does.
async fn add<K: Kind>(server: &ServerClient, new: serde_json::Value) -> Result<K::View> {
    Ok(server.add::<K>(&serde_json::from_value(new)?).await?)
}

/// Registers a client and returns its secret.
async fn register(server: &ServerClient, new: serde_json::Value) -> Result<Secret> {
    let made = add::<Clients>(server, new).await?;
    Ok(Secret::new(made.client_secret.context("a client without a secret")?))
}

/// The URLs of a vendor: its authorization server, and its MCP server behind a guard.
struct VendorPlace {
    issuer: Issuer,
    url: String,
    store: Store,
}

async fn vendor(deps: &mut Deps, plan: &VendorPlan) -> Result<(VendorPlace, RasAdmin)> {
    let clock = deps.context.clock.clone();
    let entropy = deps.context.entropy.clone();
    let (ras_listener, ras_url) = deps.bind().await?;
    let (mcp_listener, mcp_url) = deps.bind().await?;
    let (issuer, url) = (Issuer::parse(&ras_url)?, format!("{mcp_url}/mcp"));
    let store = deps.store(&format!("{}.db", plan.name)).await?;
    let ring = keys::of_server(&store, &deps.kek, Algorithm::ES256, &clock, None).await?;
    let settings = RasSettings::default();
    let context = deps.context.clone();
    let ras = Ras::open(issuer.clone(), store.clone(), ring, context, settings).await?;
    spawn_feed(&ras, &deps.stop);
    deps.run(ras_listener, ras.router().merge(health(vec![ras.probe()], Readers::Anyone)), LIMITS);
    let keys = deps.context.remote_keys.clone();
    let [read, write] = plan.scopes;
    let guard = Guard::with_keys(&url, issuer.as_str(), keys, clock.clone())?
        .name(plan.title)
        .scopes(plan.scopes)
        .require([read]);
    let file = deps.folder.join(format!("{}.json", plan.name));
    let stop = deps.stop.clone();
    let router = if plan.name == "canvas" {
        vendors::canvas(file, &guard.tool("canvas_draw", [write]), stop)?
    } else {
        vendors::notes(file, &guard.tool("note_write", [write]), stop)?
    };
    deps.run(mcp_listener, router, MCP_LIMITS);
    let admin = RasAdmin::new(issuer.clone(), store.clone(), clock, entropy);
    Ok((VendorPlace { issuer, url, store }, admin))
}

/// Starts the identity provider that the company has had all along. It is at another name of this
/// machine, so that a browser keeps its cookies apart.
async fn upstream(
    deps: &mut Deps,
    idp: &Issuer,
    passwords: Passwords,
    outbound: &Outbound,
) -> Result<Upstream> {
    let (clock, entropy) = (deps.context.clock.clone(), deps.context.entropy.clone());
    let (listener, url) = deps.bind().await?;
    let issuer = Issuer::parse(&url.replace("localhost", "127.0.0.1"))?;
    let store = deps.store("acme.db").await?;
    let ring = keys::of_server(&store, &deps.kek, Algorithm::ES256, &clock, None).await?;
    let settings = IdpSettings { name: "Acme's own sign-in".to_owned(), ..IdpSettings::default() };
    let context = deps.context.clone();
    let role = Idp::open(issuer.clone(), store.clone(), ring, context, settings, passwords.clone())
        .await?;
    deps.run(listener, role.router().merge(health(vec![role.probe()], Readers::Anyone)), LIMITS);
    let secret = entropy.secret();
    let listener =
        bind(SocketAddr::from((Ipv4Addr::LOCALHOST, deps.next_port.unwrap_or(0)))).await?;
    let address = listener.local_addr()?;
    let admin =
        IdpAdmin::new(issuer.clone(), store.clone(), clock.clone(), entropy.clone(), passwords);
    let api = AdminApi {
        clock,
        entropy: entropy.clone(),
        secret: proof::stored(&secret),
        hosts: vec![address.to_string()],
        idp: Some(admin),
        ras: BTreeMap::new(),
        gateway: None,
    };
    deps.administer(listener, api);
    let entry = Entry::Secret(secret);
    let admin =
        AdminClient::new(&format!("http://{address}"), entry, entropy, outbound.clone()).idp();
    let client = json!({
        "id": UPSTREAM_CLIENT, "name": "Passavant", "jwks_uri": idp.endpoint("/jwks"),
        "redirect_uris": [idp.endpoint("/callback/acme")],
    });
    add::<Clients>(&admin, client).await?;
    Ok(Upstream { issuer, admin, store })
}

/// Passavant's id as a client of the upstream.
const UPSTREAM_CLIENT: &str = "passavant-broker";

/// The setup by a vendor's administrator: a client for the company, trust in its identity provider,
/// the MCP server.
async fn at_vendor(
    server: &ServerClient,
    plan: &VendorPlan,
    VendorPlace { issuer, url, store }: VendorPlace,
    idp: &Issuer,
) -> Result<Vendor> {
    let at_vendor = format!("acme-{}", plan.name);
    let secret = register(server, json!({"id": at_vendor, "name": "Acme's desk agent"})).await?;
    add::<TrustedIssuers>(
        server,
        json!({"issuer": idp, "accounts": {"just_in_time": true}, "client_documents": true}),
    )
    .await?;
    add::<GovernedResources>(
        server,
        json!({"resource": url, "name": plan.title, "scopes": plan.scopes,
               "default_scopes": [plan.scopes[0]]}),
    )
    .await?;
    let client = Registration::with_secret(at_vendor, secret.clone());
    let (name, title) = (plan.name, plan.title);
    Ok(Vendor { name, title, issuer, url, store, client, secret })
}

/// The setup by the company's administrator: its client, its people and their access. Canvas is for
/// engineering only, notes for everyone.
async fn at_company(
    server: &ServerClient,
    upstream: Option<&Upstream>,
    vendors: &[Vendor],
    entropy: &Entropy,
) -> Result<(Secret, Vec<Person>)> {
    let redirects = ["http://127.0.0.1/callback", "http://localhost/callback"];
    let client = json!({"id": AGENT, "name": "Desk Agent", "redirect_uris": redirects});
    let secret = register(server, client).await?;
    let mut people = Vec::new();
    for (username, display_name, group) in
        [("erin", "Erin Engineer", "engineering"), ("max", "Max Marketer", "marketing")]
    {
        add::<Groups>(server, json!({"name": group})).await?;
        // People are where they were; here they come with their first sign-in.
        let home = upstream.map_or(server, |upstream| &upstream.admin);
        if upstream.is_some() {
            add::<Groups>(home, json!({"name": group})).await?;
        }
        let password = Secret::new(format!("{username}-{}", entropy.id()));
        let user = json!({
            "username": username, "email": format!("{username}@acme.example"), "email_verified": true,
            "display_name": display_name, "groups": [group], "password": password.expose(),
        });
        add::<Users>(home, user).await?;
        people.push(Person { username, group, password });
    }
    if let Some(upstream) = upstream {
        let there = json!({
            "name": "acme", "display_name": "Acme's own sign-in", "issuer": upstream.issuer,
            "client_id": UPSTREAM_CLIENT, "id_token_signing_alg": "ES256", "domains": ["acme.example"],
            "scopes": ["groups"], "just_in_time": true, "asks_consent": false,
            "groups": {"engineering": "engineering", "marketing": "marketing"},
        });
        add::<Upstreams>(server, there).await?;
    }
    for vendor in vendors {
        let (audience, name) = (&vendor.issuer, vendor.title);
        add::<AuthorizationServers>(server, json!({"issuer": audience, "name": name})).await?;
        let scopes = [format!("{}.read", vendor.name), format!("{}.write", vendor.name)];
        let resource = json!({"resource": vendor.url, "authorization_server": audience,
                              "name": name, "scopes": scopes});
        add::<Resources>(server, resource).await?;
        let canvas = vendor.name == "canvas";
        let id = if canvas { "engineering-canvas" } else { "everyone-notes" };
        let groups: &[&str] = if canvas { &["engineering"] } else { &[] };
        let connection = json!({
            "id": id, "idp_client_id": AGENT, "audience": audience,
            "ras_client_id": vendor.client.client_id, "resources": [vendor.url], "scopes": scopes,
            "groups": groups, "everyone": !canvas,
        });
        add::<Connections>(server, connection.clone()).await?;
        // The same for installations that people enrol, which need no registration at the vendor.
        let mut enrolled = connection;
        enrolled["id"] = format!("{id}-passavant").into();
        enrolled["idp_client_id"] = ENROLLED_CLIENT.into();
        enrolled["ras_client_id"] = serde_json::Value::Null;
        add::<Connections>(server, enrolled).await?;
    }
    Ok((secret, people))
}

/// With `--tls`: a private certificate authority for this demo, and a certificate for localhost.
fn certificates(args: &Demo, folder: &Path) -> Result<(Option<TlsAcceptor>, Option<PathBuf>)> {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose,
    };
    if !args.tls {
        return Ok((None, None));
    }
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, "Passavant demo CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &authority)?;
    let private = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|error| anyhow::anyhow!("the demo's key cannot be used: {error}"))?;
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem())?;
    Ok((Some(tls(vec![certificate.der().clone()], private)?), Some(file)))
}
