//! The demo's company: an IdP, two vendors with a RAS and an MCP server each, people, and what they
//! are allowed. The same crates as `passavant serve`, on temporary databases.

use super::{Demo, vendors};
use anyhow::{Context as _, Result};
use passavant_admin::{AdminApi, IdpAdmin, RasAdmin, proof};
use passavant_authority::{Context, LIMITS, Limits, Passwords, Readers, health, limited};
use passavant_client::{Registration, Settings};
use passavant_host as system;
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::{
    event::{Act, Detail, Event},
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::client::{Client, ClientAuthentication, ENROLLED_CLIENT, GovernedResource, SecretHash},
    oauth::scope::Scopes,
    policy::{Conditions, Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
    secret::Secret,
    time::{Clock, Entropy},
    xaa::trust::{AccountResolution, TrustedIssuer},
};
use passavant_ras::{Ras, RasSettings};
use passavant_resource::Guard;
use passavant_runtime::certificates::tls;
use passavant_runtime::keys::{self, KeyEncryptionKey};
use passavant_runtime::listener::{Way, accept};
use passavant_runtime::{
    listener::bind,
    serve::{CONNECTIONS, open_store, spawn_pruning},
};
use passavant_store::{AuditEvent, Group, Put, Record, Store, User};
use rustls_pki_types::PrivateKeyDer;
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

/// A sample account.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) username: &'static str,
    pub(crate) group: &'static str,
    pub(crate) password: Secret,
}

/// Listeners, certificates, keys: what every part is built with.
struct Ground {
    folder: PathBuf,
    next_port: Option<u16>,
    tls: Option<TlsAcceptor>,
    kek: Arc<KeyEncryptionKey>,
    context: Context,
    stop: CancellationToken,
    listeners: JoinSet<()>,
}

impl Ground {
    async fn bind(&mut self) -> Result<(TcpListener, String)> {
        let port = self.next_port.unwrap_or(0);
        self.next_port = self.next_port.map(|port| port + 1);
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // Browsers and clients treat `localhost` and its certificate alike on every system.
        let url = format!("{scheme}://localhost:{}", listener.local_addr()?.port());
        Ok((listener, url))
    }

    fn run(&mut self, listener: TcpListener, router: axum::Router, limits: Limits) {
        let router = limited(router, limits, self.context.entropy.clone(), &[]);
        let (tls, stop) = (self.tls.clone(), self.stop.clone());
        self.listeners.spawn(accept(
            listener,
            Way { tls, only_from: None },
            router,
            CONNECTIONS,
            stop,
        ));
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
    let mut ground = Ground {
        folder: folder.to_owned(),
        next_port: args.port,
        tls,
        kek: Arc::new(KeyEncryptionKey::new(&entropy.secret())?),
        context: Context::new(clock.clone(), entropy.clone(), &outbound),
        stop: stop.clone(),
        listeners: JoinSet::new(),
    };
    let passwords = Passwords::new(2);
    let (idp_listener, idp_url) = ground.bind().await?;
    let idp_issuer = Issuer::parse(&idp_url)?;
    let idp_store = ground.store("idp.db").await?;
    let mut ras_admins = BTreeMap::new();
    let mut vendors = Vec::new();
    for plan in &VENDORS {
        let (vendor, admin) = vendor(&mut ground, plan, &idp_issuer).await?;
        ras_admins.insert(plan.name.to_owned(), admin);
        vendors.push(vendor);
    }
    let idp_secret = entropy.secret();
    let idp_client = Registration::with_secret(AGENT, idp_secret.clone());
    let desk = Desk { store: idp_store.clone(), clock: clock.clone() };
    desk.add(&client(AGENT, "Desk Agent", &idp_secret, true)).await?;
    let mut people = Vec::new();
    for (username, display_name, group) in
        [("erin", "Erin Engineer", "engineering"), ("max", "Max Marketer", "marketing")]
    {
        desk.add(&Group { name: group.to_owned(), description: String::new() }).await?;
        let password = Secret::new(format!("{username}-{}", entropy.id()));
        let user = User {
            id: entropy.id(),
            username: username.to_owned(),
            email: Some(format!("{username}@acme.example")),
            email_verified: true,
            display_name: Some(display_name.to_owned()),
            given_name: None,
            family_name: None,
            groups: [group.to_owned()].into(),
            password_hash: Some(passwords.hash(&password).await?),
            disabled: false,
        };
        desk.add(&user).await?;
        people.push(Person { id: user.id, username, group, password });
    }
    for vendor in &vendors {
        connect(&desk, vendor).await?;
    }
    let ring = keys::of_server(&idp_store, &ground.kek, Algorithm::ES256, &clock).await?;
    let settings = IdpSettings { name: "Acme".to_owned(), ..IdpSettings::default() };
    let idp = Idp::open(
        idp_issuer.clone(),
        idp_store.clone(),
        ring,
        ground.context.clone(),
        settings,
        passwords.clone(),
    )
    .await?;
    let router = idp.router().merge(health(vec![idp.probe()], Readers::Anyone));
    ground.run(idp_listener, router, LIMITS);
    let admin_secret = entropy.secret();
    let admin_listener =
        bind(SocketAddr::from((Ipv4Addr::LOCALHOST, ground.next_port.unwrap_or(0)))).await?;
    let admin_address = admin_listener.local_addr()?;
    let api = AdminApi {
        clock: clock.clone(),
        entropy: entropy.clone(),
        secret: proof::stored(&admin_secret),
        hosts: vec![admin_address.to_string()],
        idp: Some(IdpAdmin::new(
            idp_issuer.clone(),
            idp_store.clone(),
            clock.clone(),
            entropy.clone(),
            passwords,
        )),
        ras: ras_admins,
        gateway: None,
    };
    let router = limited(api.routers().0, LIMITS, entropy.clone(), &[]);
    ground.listeners.spawn(accept(
        admin_listener,
        Way::default(),
        router,
        CONNECTIONS,
        stop.clone(),
    ));
    let stores = vendors.iter().map(|v| v.store.clone()).chain([idp_store.clone()]);
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
        admin_url: format!("http://{admin_address}"),
        admin_secret,
        folder: folder.to_owned(),
        ca_file,
        outbound,
        clock,
        entropy,
        listeners: ground.listeners,
        stop,
    })
}

impl Company {
    /// The settings that the demo's client is configured with.
    pub(crate) fn client_settings(&self) -> Settings {
        let ras = self.vendors.iter().map(|v| (v.issuer.to_string(), v.client.clone()));
        Settings {
            ras_clients: ras.collect::<HashMap<_, _>>(),
            ..Settings::new(self.idp_issuer.clone(), self.idp_client.clone())
        }
    }

    /// Writes the secrets that playing needs into files of mode 0600.
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
        for store in self.vendors.into_iter().map(|v| v.store).chain([self.idp_store]) {
            store.close().await;
        }
    }
}

struct Desk {
    store: Store,
    clock: Clock,
}

impl Desk {
    async fn add<R: Record>(&self, record: &R) -> Result<()> {
        let event = AuditEvent::granted(Event::Admin(Act::Create, R::KIND), self.clock.now())
            .with(Detail::By, "passavant demo");
        self.store.put(record, Put::Create, event.with(Detail::Record, record.name())).await?;
        Ok(())
    }
}

fn client(id: &str, name: &str, secret: &Secret, signs_in: bool) -> Client {
    let hash = SecretHash { hash: secret.hash(), expires: None };
    let redirect_uris = ["http://127.0.0.1/callback", "http://localhost/callback"];
    let redirect_uris = redirect_uris.iter().filter(|_| signs_in).map(|u| (*u).to_owned());
    Client {
        id: id.to_owned(),
        name: name.to_owned(),
        authentication: ClientAuthentication::Secret(vec![hash]),
        redirect_uris: redirect_uris.collect(),
        ..Client::default()
    }
}

/// A vendor: its RAS trusts the company's IdP and governs its MCP server, which stands behind a
/// guard.
async fn vendor(
    ground: &mut Ground,
    plan: &VendorPlan,
    idp: &Issuer,
) -> Result<(Vendor, RasAdmin)> {
    let clock = ground.context.clock.clone();
    let entropy = ground.context.entropy.clone();
    let (ras_listener, ras_url) = ground.bind().await?;
    let (mcp_listener, mcp_url) = ground.bind().await?;
    let (issuer, url) = (Issuer::parse(&ras_url)?, format!("{mcp_url}/mcp"));
    let store = ground.store(&format!("{}.db", plan.name)).await?;
    let desk = Desk { store: store.clone(), clock: clock.clone() };
    let at_vendor = format!("acme-{}", plan.name);
    let secret = entropy.secret();
    desk.add(&client(&at_vendor, "Acme's desk agent", &secret, false)).await?;
    desk.add(&TrustedIssuer {
        issuer: idp.clone(),
        jwks_uri: None,
        algorithm: Algorithm::ES256,
        tenant: None,
        audience_tenant: None,
        accounts: AccountResolution { just_in_time: true, email_domains: Vec::new() },
        allow_reuse: false,
        client_documents: true,
        sign_in: None,
        disabled: false,
    })
    .await?;
    let [read, write] = plan.scopes;
    desk.add(&GovernedResource {
        resource: Resource::parse(&url)?,
        name: plan.title.to_owned(),
        scopes: plan.scopes.into_iter().collect(),
        default_scopes: [read].into_iter().collect(),
        descriptions: BTreeMap::new(),
        access_token_lifetime: None,
        access_token_signing_alg: None,
        require_dpop: false,
        disabled: false,
    })
    .await?;
    let ring = keys::of_server(&store, &ground.kek, Algorithm::ES256, &clock).await?;
    let settings = RasSettings::default();
    let context = ground.context.clone();
    let ras = Ras::open(issuer.clone(), store.clone(), ring, context, settings).await?;
    ground.run(
        ras_listener,
        ras.router().merge(health(vec![ras.probe()], Readers::Anyone)),
        LIMITS,
    );
    let keys = ground.context.remote_keys.clone();
    let guard = Guard::with_keys(&url, issuer.as_str(), keys, clock.clone())?
        .name(plan.title)
        .scopes(plan.scopes)
        .require([read]);
    let file = ground.folder.join(format!("{}.json", plan.name));
    let stop = ground.stop.clone();
    let router = if plan.name == "canvas" {
        vendors::canvas(file, &guard.tool("canvas_draw", [write]), stop)?
    } else {
        vendors::notes(file, &guard.tool("note_write", [write]), stop)?
    };
    ground.run(mcp_listener, router, MCP_LIMITS);
    let admin = RasAdmin::new(issuer.clone(), store.clone(), clock, entropy);
    let client = Registration::with_secret(at_vendor, secret.clone());
    let (name, title) = (plan.name, plan.title);
    let vendor = Vendor { name, title, issuer, url, store, client, secret };
    Ok((vendor, admin))
}

/// What the company allows: canvas for engineering alone, notes for everyone.
async fn connect(desk: &Desk, vendor: &Vendor) -> Result<()> {
    let resource = Resource::parse(&vendor.url)?;
    let scopes: Scopes =
        [format!("{}.read", vendor.name), format!("{}.write", vendor.name)].into_iter().collect();
    desk.add(&ResourceAuthorizationServer {
        issuer: vendor.issuer.clone(),
        name: vendor.title.to_owned(),
        aliases: Vec::new(),
        id_jag_signing_alg: None,
        release: std::collections::BTreeSet::new(),
        algorithm: Algorithm::default(),
        disabled: false,
    })
    .await?;
    desk.add(&RegisteredResource {
        resource: resource.clone(),
        authorization_server: vendor.issuer.clone(),
        name: vendor.title.to_owned(),
        scopes: scopes.clone(),
        disabled: false,
    })
    .await?;
    let (id, subjects) = if vendor.name == "canvas" {
        ("engineering-canvas", vec![Subject::Group("engineering".to_owned())])
    } else {
        ("everyone-notes", vec![Subject::Everyone])
    };
    let registered = Connection {
        id: id.to_owned(),
        idp_client_id: AGENT.to_owned(),
        audience: vendor.issuer.clone(),
        ras_client_id: Some(vendor.client.client_id.clone()),
        resources: vec![resource],
        scopes,
        subjects,
        conditions: Conditions::default(),
        disabled: false,
    };
    // The same for the installations that people enrol, which need no registration at the vendor.
    let enrolled = Connection {
        id: format!("{id}-passavant"),
        idp_client_id: ENROLLED_CLIENT.to_owned(),
        ras_client_id: None,
        ..registered.clone()
    };
    desk.add(&registered).await?;
    desk.add(&enrolled).await
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
