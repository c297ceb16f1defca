//! `passavant serve`: the roles of a config file, each on its listener.

use crate::{
    certificates::{Certificates, certified},
    config::{AdminSocket, Config, Listener, section::Tls},
    gateway::{self, Parties},
    keys::{self, KeyEncryptionKey},
    listener::{DRAIN, Ingress, accept, bind},
    telemetry, upstreams,
};
use anyhow::{Context as _, Result, bail};
use axum::Router;
use ipnet::IpNet;
use passavant_admin::{
    AdminApi, CheckUpstream, IdpAdmin, RasAdmin, TakeRevocations, UpstreamTools, proof,
    types::UpstreamLeg,
};
use passavant_authority::{
    Context, LIMITS, Limits, Passwords, Probe, Readers, Sealing, health, limited,
};
use passavant_gateway::Gateway;
use passavant_host as system;
use passavant_host::{Shared, private_file};
use passavant_idp::Idp;
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::client::{Client, ENROLLED_CLIENT},
};
use passavant_ras::Ras;
use passavant_store::{AuditEvent, Store, StoredProof};
use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Time at the end for reporting calls, for writing the journal to disk, and for ending guarded
/// programs.
const TELL: Duration = Duration::from_secs(6);
/// Time at the end for upstreams that are being asked.
const ASKING: Duration = Duration::from_secs(15);
/// Concurrent connections of one listener.
pub const CONNECTIONS: usize = 4096;
/// Concurrent connections of the listener for probes.
const PROBES: usize = 64;
/// Concurrent connections of a gateway: most of them are streams that wait.
const STREAMS: usize = 16_384;

/// Runs the roles of `config` until the process is told to stop.
pub async fn serve(config: Config) -> Result<()> {
    // First, so that whoever is told to stop while it starts ends in order.
    serve_until(config, system::shutdown_signal()?).await
}

/// The same for a caller that has listened for signals already.
pub(crate) async fn serve_until(
    config: Config,
    mut told_to_stop: impl Future<Output = ()> + Unpin,
) -> Result<()> {
    system::raise_descriptors();
    // Before anything else, and for the life of the process: without a handler, SIGHUP would end
    // it.
    #[cfg(unix)]
    let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    take_back(&config)?;
    let outbound = system::outbound(&config.extra_roots)?;
    let telemetry = telemetry::start(&config, &outbound)?;
    let stop = CancellationToken::new();
    let running = tokio::select! {
        running = start(&config, outbound, &telemetry, stop.clone()) => running?,
        () = &mut told_to_stop => {
            tracing::info!("stopping before it was ready");
            telemetry.stop().await;
            return Ok(());
        }
    };
    tracing::info!("ready");
    told_to_stop.await;
    tracing::info!("stopping");
    // Whoever says it twice does not want to wait for anybody.
    let told_again = system::shutdown_signal()?;
    tokio::spawn(async move {
        told_again.await;
        system::end_at_once();
    });
    stop.cancel();
    running.finish().await;
    telemetry.stop().await;
    Ok(())
}

/// Whether every database of the config that is there already belongs to its keys: before anything is
/// written into any of them.
async fn belong_together(
    config: &Config,
    kek: &KeyEncryptionKey,
    clock: &passavant_proto::time::Clock,
) -> Result<()> {
    let idp = config.idp.iter().map(|(place, _)| ("idp", place));
    for (role, place) in idp.chain(config.ras.iter().map(|(_, place, _)| ("ras", place))) {
        let at = || format!("{role}.database");
        let store = open_store(&place.database).await.with_context(at)?;
        let together = keys::belong_together(&store, kek, place.algorithm, clock).await;
        store.close().await;
        together.context(role)?;
    }
    Ok(())
}

/// Opens the database and keys of an authorization server. Nothing is written before both are known
/// to belong together.
async fn own(
    place: &Listener,
    role: &'static str,
    (kek, passing): (&Arc<KeyEncryptionKey>, Option<&Arc<keys::PassingKeys>>),
    clock: &passavant_proto::time::Clock,
) -> Result<(Store, passavant_authority::Keys)> {
    let at = || format!("{role}.database");
    let store = open_store(&place.database).await.with_context(at)?;
    keys::belong_together(&store, kek, place.algorithm, clock).await.context(role)?;
    store.claim(role, place.issuer.as_str()).await.with_context(at)?;
    // An earlier version allowed a client of this name. Connections would then apply to both.
    if role == "idp" && store.usable::<Client>(ENROLLED_CLIENT).await.with_context(at)?.is_some() {
        bail!(
            "idp.database: a client has the id `{ENROLLED_CLIENT}`, which is reserved for the \
             installations that people enrol themselves\n\
             hint: start the previous version, register the client under another id, and delete \
             this one"
        );
    }
    let keys = keys::of_server(&store, kek, place.algorithm, clock, passing).await.context(role)?;
    if kek.is_turning() {
        // Beside what is served: there may be a value for each person.
        let (store, kek, issuer) = (store.clone(), Arc::clone(kek), place.issuer.clone());
        tokio::spawn(async move {
            match keys::reseal(&store, &kek).await {
                Ok((count, 0)) => {
                    tracing::info!(%issuer, count, "everything is sealed under the first key");
                }
                Ok((count, left)) => {
                    tracing::error!(%issuer, count, left, "not everything was sealed anew");
                }
                Err(error) => tracing::error!(%issuer, %error, "not everything was sealed anew"),
            }
        });
    }
    Ok((store, keys))
}

/// What administration needs for the identity providers in front.
pub fn upstream_tools(idp: &Idp, sealing: Sealing) -> UpstreamTools {
    let idp = idp.clone();
    let check: CheckUpstream = Arc::new(move |upstream| {
        let idp = idp.clone();
        Box::pin(async move {
            let legs = idp.check_upstream(&upstream).await.into_iter();
            let told = |leg: passavant_idp::Leg| UpstreamLeg {
                leg: leg.name.to_owned(),
                works: leg.works,
                found: leg.found,
                hint: leg.hint,
            };
            legs.map(told).collect()
        })
    });
    UpstreamTools { sealing, certificate: Some(Arc::new(keys::certificate)), check: Some(check) }
}

/// Asks authorization servers what they can be told, for administrators who are about to cut off.
pub fn take_revocations(idp: &Idp) -> TakeRevocations {
    let idp = idp.clone();
    Arc::new(move |issuers| {
        let idp = idp.clone();
        Box::pin(async move { idp.take_revocations(issuers).await })
    })
}

/// The running listeners.
struct Running {
    listeners: JoinSet<()>,
    stores: Vec<Store>,
    /// Background tasks of the gateways.
    tasks: JoinSet<()>,
    journals: Vec<oneshot::Receiver<()>>,
    /// Its questions at upstreams are waited for.
    idp: Option<Idp>,
}

impl Running {
    async fn finish(mut self) {
        while self.listeners.join_next().await.is_some() {}
        if let Some(idp) = &self.idp
            && timeout(ASKING, idp.finish()).await.is_err()
        {
            tracing::warn!(
                "an upstream did not answer in time; some people may have to sign in again"
            );
        }
        // No further decisions are made; those that were made are reported, as far as the recipient
        // responds.
        let told = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(TELL, told).await.is_err() {
            tracing::warn!("some calls are not reported yet; they will be after the next start");
            self.tasks.shutdown().await;
        }
        for journal in self.journals {
            // The journal ends after the last decision.
            let _ = timeout(TELL, journal).await;
        }
        for store in self.stores {
            store.close().await;
        }
    }
}

async fn start(
    config: &Config,
    outbound: passavant_outbound::Outbound,
    telemetry: &telemetry::Telemetry,
    stop: CancellationToken,
) -> Result<Running> {
    let kek = read_kek(config)?;
    let (clock, entropy) = (system::clock(), system::entropy());
    let passing = Arc::default();
    let sealing = keys::sealing(&kek, &passing);
    let context = Context::new(clock.clone(), entropy.clone(), &outbound).sealing(sealing.clone());
    let passwords = Passwords::new(std::thread::available_parallelism().map_or(1, usize::from));
    let certificates = Certificates::default();
    let deps = ListenerDeps {
        entropy: &entropy,
        proxies: &config.trusted_proxies,
        certificates: &certificates,
    };
    belong_together(config, &kek, &clock).await?;
    let mut listeners = JoinSet::new();
    let (mut stores, mut kept, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut idp_admin, mut idp_role) = (None, None);
    let mut ras_roles = Vec::new();
    let mut shared = BTreeMap::new();
    let mut ras_admins = BTreeMap::new();
    if let Some((place, settings)) = &config.idp {
        let (store, keys) = own(place, "idp", (&kek, Some(&passing)), &clock).await?;
        let public_exchange = settings.allow_public_exchange;
        let (issuer, settings) = (place.issuer.clone(), settings.clone());
        let idp =
            Idp::open(issuer, store.clone(), keys, context.clone(), settings, passwords.clone())
                .await?;
        let (router, probe) = (idp.router(), idp.probe());
        probes.push(probe.clone());
        let (tools, servers) = (upstream_tools(&idp, sealing), take_revocations(&idp));
        spawn_telling(&idp, &stop);
        idp_role = Some(idp);
        let admin = IdpAdmin::new(
            place.issuer.clone(),
            store.clone(),
            clock.clone(),
            entropy.clone(),
            passwords.clone(),
        );
        let admin = admin.keys(keys::maker(&kek, place.algorithm, &clock));
        let admin = admin.public_exchange(public_exchange).upstreams(tools);
        let admin = admin.take_revocations(servers);
        upstreams::hold(&admin, &place.issuer, &config.upstreams, config.secrets).await?;
        idp_admin = Some(admin);
        listen(&mut listeners, place, router, probe, &deps, &stop).await.context("idp")?;
        kept.push((store.clone(), place.keep_refused));
        stores.push(store);
    }
    for (name, place, settings) in &config.ras {
        let (store, keys) = own(place, "ras", (&kek, None), &clock).await?;
        let issuer = place.issuer.clone();
        let ras = Ras::open(issuer, store.clone(), keys, context.clone(), settings.clone()).await?;
        let (router, probe) = (ras.router(), ras.probe());
        probes.push(probe.clone());
        spawn_feed(&ras, &stop);
        let admin =
            RasAdmin::new(place.issuer.clone(), store.clone(), clock.clone(), entropy.clone())
                .keys(keys::maker(&kek, place.algorithm, &clock));
        ras_admins.insert(name.clone(), admin);
        ras_roles.push((place.issuer.clone(), ras));
        if config.gateways.iter().any(|gateway| gateway.listen == place.listen) {
            let router = router.merge(health(vec![probe], Readers::Anyone));
            let router = limited(router, LIMITS, entropy.clone(), &config.trusted_proxies);
            shared.insert(place.listen, (router, host_of(&place.issuer)));
        } else {
            listen(&mut listeners, place, router, probe, &deps, &stop)
                .await
                .with_context(|| format!("ras `{name}`"))?;
        }
        kept.push((store.clone(), place.keep_refused));
        stores.push(store);
    }
    let parties = Parties { idp: idp_role.as_ref(), ras: &ras_roles };
    let (mut tasks, mut journals, mut gateways) = (JoinSet::new(), Vec::new(), Vec::new());
    let gateway_deps = gateway::Deps {
        context: &context,
        outbound: &outbound,
        telemetry,
        secrets: config.secrets,
    };
    for place in &config.gateways {
        let started = gateway::start(place, &kek, &gateway_deps, &parties, &mut tasks, &stop)
            .await
            .with_context(|| format!("gateway `{}`", place.name))?;
        let other = shared.remove(&place.listen).unwrap_or_else(|| {
            (limited(health(Vec::new(), Readers::Anyone), LIMITS, entropy.clone(), &[]), None)
        });
        listen_gateway(&mut listeners, place, &started.gateway, other, &deps, &stop).await?;
        journals.push(started.journal);
        gateways.push(started.gateway);
    }
    let gateways = (!gateways.is_empty())
        .then(|| gateway::admin(gateways, stores.first().cloned(), clock.clone()));
    let parts = (idp_admin, ras_admins, gateways);
    listen_for_admin(&mut listeners, config, parts, (&clock, &entropy), &stop).await?;
    listen_for_probes(&mut listeners, config.health, probes, &entropy, &stop).await?;
    certificates.watch(&stop);
    spawn_pruning(kept, &clock, &stop);
    Ok(Running { listeners, stores, tasks, journals, idp: idp_role })
}

/// Tells applications of sessions that have ended, and authorization servers of access that has, until the
/// end.
pub fn spawn_telling(idp: &Idp, stop: &CancellationToken) {
    let (idp, stop) = (idp.clone(), stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = idp.tell_applications() => {}
            () = idp.tell_authorization_servers() => {}
            () = idp.tell_listeners() => {}
        }
    });
}

/// Tells guards of ended tokens, until the end.
pub fn spawn_feed(ras: &Ras, stop: &CancellationToken) {
    let (ras, stop) = (ras.clone(), stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = ras.follow_ended_tokens() => {}
        }
    });
}

type AdminParts = (Option<IdpAdmin>, BTreeMap<String, RasAdmin>, Option<Router>);

/// The limits of administration: the metadata of an identity provider is long.
const ADMINISTRATION: Limits = Limits { body: 512 * 1024, ..LIMITS };

async fn listen_for_admin(
    listeners: &mut JoinSet<()>,
    config: &Config,
    (idp, ras, gateway): AdminParts,
    (clock, entropy): (&passavant_proto::time::Clock, &passavant_proto::time::Entropy),
    stop: &CancellationToken,
) -> Result<()> {
    let Some(admin) = &config.admin else { return Ok(()) };
    let listener = bind(admin.listen).await.context("admin.listen")?;
    let address = listener.local_addr()?;
    let api = AdminApi {
        clock: clock.clone(),
        entropy: entropy.clone(),
        secret: admin_secret(&admin.secret_file, config.secrets)?,
        hosts: vec![address.to_string(), format!("localhost:{}", address.port())],
        idp,
        ras,
        gateway,
    };
    let (router, local) = api.routers();
    let router = limited(router, ADMINISTRATION, entropy.clone(), &[]);
    tracing::info!(%address, "the administration API listens");
    listeners.spawn(accept(listener, Ingress::default(), router, CONNECTIONS, stop.clone()));
    let local = limited(local, ADMINISTRATION, entropy.clone(), &[]);
    listen_at_socket(listeners, &admin.socket, local, stop)
}

/// Serves administration to the local owner without a secret: the operating system tells who
/// connects.
#[cfg(unix)]
fn listen_at_socket(
    listeners: &mut JoinSet<()>,
    socket: &AdminSocket,
    router: Router,
    stop: &CancellationToken,
) -> Result<()> {
    let Some(path) = socket.path() else { return Ok(()) };
    let listener = match system::private_socket(path) {
        Ok(listener) => listener,
        Err(error) if matches!(socket, AdminSocket::Beside(_)) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "administration needs the secret file: there is no socket"
            );
            return Ok(());
        }
        Err(error) => return Err(error).context("admin.socket"),
    };
    tracing::info!(socket = %path.display(), "the administration socket listens: this user and root administer without a secret");
    let (path, stop) = (path.to_owned(), stop.clone());
    listeners.spawn(async move {
        let stopped = stop.clone().cancelled_owned();
        let serving = axum::serve(OwnSocket(listener), router).with_graceful_shutdown(stopped);
        // Whoever never finishes a request holds nobody up.
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!(%error, "the administration socket ended");
            },
            () = late => {
                tracing::warn!("a request at the administration socket was not finished in time");
            }
        }
        let _ = fs::remove_file(path);
    });
    Ok(())
}

#[cfg(not(unix))]
fn listen_at_socket(
    _: &mut JoinSet<()>,
    _: &AdminSocket,
    _: Router,
    _: &CancellationToken,
) -> Result<()> {
    Ok(())
}

/// Accepts connections of this user only.
#[cfg(unix)]
struct OwnSocket(tokio::net::UnixListener);

#[cfg(unix)]
impl axum::serve::Listener for OwnSocket {
    type Io = tokio::net::UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        (system::next_of_own(&self.0).await, ())
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(())
    }
}

/// Probes cannot verify a certificate, and come from wherever the orchestrator runs.
async fn listen_for_probes(
    listeners: &mut JoinSet<()>,
    address: Option<SocketAddr>,
    probes: Vec<Probe>,
    entropy: &passavant_proto::time::Entropy,
    stop: &CancellationToken,
) -> Result<()> {
    let Some(address) = address else { return Ok(()) };
    let listener = bind(address).await.context("health.listen")?;
    let router = limited(health(probes, Readers::Operators), LIMITS, entropy.clone(), &[]);
    tracing::info!(address = %listener.local_addr()?, "probes are answered");
    listeners.spawn(accept(listener, Ingress::default(), router, PROBES, stop.clone()));
    Ok(())
}

/// Ends everything in the databases of `config` that may have been ended after the backup was made.
pub async fn restored(config: &Config) -> Result<()> {
    if let Some(admin) = &config.admin
        && tokio::net::TcpStream::connect(admin.listen).await.is_ok()
    {
        anyhow::bail!(
            "a server is running on {}\nhint: stop it, restore the backup, then run this",
            admin.listen
        );
    }
    take_back(config)?;
    let idp = config.idp.iter().map(|(place, _)| ("idp", place));
    let all = idp.chain(config.ras.iter().map(|(_, place, _)| ("ras", place)));
    for (role, place) in all {
        let store = open_store(&place.database).await.with_context(|| place.issuer.to_string())?;
        store.claim(role, place.issuer.as_str()).await?;
        let now = system::clock().now();
        let event =
            AuditEvent::granted(RequestEvent::Restored, now).with(Detail::By, "passavant restored");
        store.after_restore(event, now).await?;
        store.close().await;
        println!(
            "{}: every session, code and token on record has ended, those of administrators too.",
            place.issuer
        );
    }
    println!(
        "People sign in again. Access tokens already issued expire within minutes. An ID-JAG that \
         was used after the backup was made could be used once more while it lives: start \
         `passavant serve` five minutes from now."
    );
    Ok(())
}

/// Opens a database that is there.
pub async fn open_existing(url: &str) -> Result<Store> {
    if let Some(path) = passavant_store::sqlite_path(url)
        && !path.exists()
    {
        bail!(
            "{}: there is no such database\nhint: is this the config, and are these the variables, that `passavant serve` \
             runs with?",
            path.display()
        );
    }
    open_store(url).await
}

/// Opens a database. A SQLite file must be private to its owner.
pub async fn open_store(url: &str) -> Result<Store> {
    if let Some(path) = passavant_store::sqlite_path(url)
        && fs::symlink_metadata(path).is_err()
    {
        system::write_private(path, b"", true)?;
    }
    check_database_file(url)?;
    Ok(Store::open(url).await?)
}

/// A user who can write the database controls the policy; one who can read it has the password
/// hashes.
fn check_database_file(url: &str) -> Result<()> {
    files_of(url).iter().try_for_each(|file| private_file(file, Shared::Nobody).map(drop))
}

/// The existing files of a database.
fn files_of(url: &str) -> Vec<PathBuf> {
    let Some(path) = passavant_store::sqlite_path(url) else { return Vec::new() };
    let named = ["", "-wal", "-shm", "-journal"].map(|beside| {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        PathBuf::from(name)
    });
    named.into_iter().filter(|file| fs::symlink_metadata(file).is_ok()).collect()
}

/// Private files that this program creates itself.
fn own_files(config: &Config) -> Vec<PathBuf> {
    let places = config.idp.iter().map(|(place, _)| place);
    let places = places.chain(config.ras.iter().map(|(_, place, _)| place));
    let databases = places.flat_map(|place| files_of(&place.database));
    databases
        .chain(config.gateways.iter().map(|gateway| gateway.folder.join("gateway.key")))
        .collect()
}

/// If the administrator says that files are mounted, the platform may have given our own files to a
/// group, too: make them private again.
fn take_back(config: &Config) -> Result<()> {
    if config.secrets == Shared::Mounted {
        own_files(config).iter().try_for_each(|file| system::take_back(file))?;
    }
    Ok(())
}

/// The errors about files of a config with which `serve` would fail: they are read in the same way.
pub async fn check_files(config: &Config) -> Result<()> {
    let places = config.idp.iter().map(|(place, _)| place);
    let places = places.chain(config.ras.iter().map(|(_, place, _)| place));
    let mut wrong = Vec::new();
    let mut look = |looked: Result<()>| wrong.extend(looked.err());
    for file in own_files(config).iter().filter(|file| fs::symlink_metadata(file).is_ok()) {
        // Starting makes it private again.
        let given = config.secrets == Shared::Mounted && system::is_given_to_group(file);
        if !given {
            look(private_file(file, Shared::Nobody).map(drop));
        }
    }
    for place in places {
        look(check_tls(&place.tls).with_context(|| place.issuer.to_string()));
    }
    for gateway in &config.gateways {
        look(check_tls(&gateway.tls).with_context(|| format!("gateway `{}`", gateway.name)));
        look(gateway::check_secrets(gateway, config.secrets));
    }
    look(read_kek(config).map(drop));
    if let Some(admin) = &config.admin {
        look(admin_secret(&admin.secret_file, config.secrets).map(drop));
    }
    look(system::outbound(&config.extra_roots).map(drop));
    if let Some((place, _)) = &config.idp {
        match upstreams::refused(&place.issuer, &config.upstreams, config.secrets).await {
            Ok(refused) => refused.into_iter().for_each(|(_, error)| look(Err(error))),
            Err(error) => look(Err(error)),
        }
    }
    // Each error once, even if several checks read the same file.
    let mut told: Vec<String> = wrong.iter().map(system::told).collect();
    told.dedup();
    match told.as_slice() {
        [] => Ok(()),
        [one] => Err(anyhow::anyhow!("{one}")),
        all => Err(anyhow::anyhow!("{} things cannot be used:\n{}", all.len(), all.join("\n"))),
    }
}

/// Minimum length of an administration secret in characters: a program that takes over its port
/// sees proofs, and could guess.
const LEAST: usize = 32;

/// What the administration secret is verified with.
fn admin_secret(file: &std::path::Path, shared: Shared) -> Result<StoredProof> {
    let secret = system::read_secret(file, shared)?;
    if secret.expose().len() < LEAST {
        anyhow::bail!(
            "{}: the administration secret must have at least {LEAST} characters\n\
             hint: `passavant init` makes one",
            file.display()
        );
    }
    if proof::name_in(&secret).is_some() {
        anyhow::bail!(
            "{}: this is an administrator's token, not the administration secret\nhint: it is for `passavant admin \
             --secret-file`; `passavant init` makes a secret",
            file.display()
        );
    }
    Ok(proof::stored(&secret))
}

fn read_kek(config: &Config) -> Result<Arc<KeyEncryptionKey>> {
    Ok(Arc::new(KeyEncryptionKey::of(config)?))
}

fn check_tls(tls: &Tls) -> Result<()> {
    match tls {
        Tls::Own(certificate, key) => certified(certificate, key).map(drop),
        Tls::None | Tls::Proxy => Ok(()),
    }
}

/// Once a minute, deletes expired records, and refusals in the audit log that are older than
/// configured.
pub fn spawn_pruning(
    stores: Vec<(Store, Option<i64>)>,
    clock: &passavant_proto::time::Clock,
    stop: &CancellationToken,
) {
    for (store, keep_refused) in stores {
        let (clock, stop) = (clock.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_mins(1)) => {}
                }
                if let Err(error) = store.forget_expired(clock.now(), keep_refused).await {
                    tracing::warn!(%error, "expired rows were not deleted");
                }
            }
        });
    }
}

async fn listen(
    listeners: &mut JoinSet<()>,
    place: &Listener,
    router: Router,
    probe: Probe,
    deps: &ListenerDeps<'_>,
    stop: &CancellationToken,
) -> Result<()> {
    let listener = bind(place.listen).await?;
    let ingress = deps.ingress(&place.tls)?;
    let router = router.merge(health(vec![probe], Readers::Anyone));
    let router = limited(router, LIMITS, deps.entropy.clone(), deps.proxies);
    tracing::info!(issuer = %place.issuer, address = %listener.local_addr()?, "listening");
    listeners.spawn(accept(listener, ingress, router, CONNECTIONS, stop.clone()));
    Ok(())
}

/// The dependencies of every listener.
struct ListenerDeps<'a> {
    entropy: &'a passavant_proto::time::Entropy,
    proxies: &'a [IpNet],
    certificates: &'a Certificates,
}

impl ListenerDeps<'_> {
    /// How connections of a listener arrive.
    fn ingress(&self, tls: &Tls) -> Result<Ingress> {
        Ok(match tls {
            Tls::None => Ingress::default(),
            Tls::Own(certificate, key) => Ingress {
                tls: Some(self.certificates.acceptor(certificate, key)?),
                only_from: None,
            },
            Tls::Proxy => Ingress { tls: None, only_from: Some(self.proxies.into()) },
        })
    }
}

/// Host and port of an issuer, as in a `Host` header.
fn host_of(issuer: &Issuer) -> Option<String> {
    let (_, authority) = issuer.origin().split_once("://")?;
    Some(authority.to_owned())
}

async fn listen_gateway(
    listeners: &mut JoinSet<()>,
    place: &gateway::config::GatewayConfig,
    gateway: &Gateway,
    (other, host): (Router, Option<String>),
    deps: &ListenerDeps<'_>,
    stop: &CancellationToken,
) -> Result<()> {
    let listener = bind(place.listen).await.with_context(|| format!("gateway `{}`", place.name))?;
    let ingress = deps.ingress(&place.tls)?;
    let hosts = gateway.hosts().collect::<Vec<_>>().join(", ");
    tracing::info!(gateway = place.name, hosts, address = %listener.local_addr()?, "listening");
    let service = gateway.service(other, host);
    listeners.spawn(accept(listener, ingress, service, STREAMS, stop.clone()));
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_database_that_others_may_read_or_write_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("idp.db");
        let url = format!("sqlite:{}", path.display());
        open_store(&url).await.unwrap().close().await;
        for beside in ["", "-wal", "-shm", "-journal"] {
            let file = folder.path().join(format!("idp.db{beside}"));
            if !file.exists() {
                fs::write(&file, b"").unwrap();
            }
            for mode in [0o644, 0o660, 0o602] {
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
                let error = open_store(&url).await.expect_err("it is refused").to_string();
                assert!(error.contains("chmod 600") && error.contains("idp.db"), "{error}");
            }
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn nothing_and_little_is_no_administration_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (text, says) in [
            ("", "is empty"),
            (" \n\t\n", "is empty"),
            ("short", "32 characters"),
            ("administrator.ann.0123456789012345678901234567890123456789", "token"),
        ] {
            system::write_private(&file, text.as_bytes(), false).unwrap();
            let error = admin_secret(&file, Shared::Nobody).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        system::write_private(&file, b"01234567890123456789012345678901\n", false).unwrap();
        assert!(admin_secret(&file, Shared::Nobody).is_ok());
    }
}
