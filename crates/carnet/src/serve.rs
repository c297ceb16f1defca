//! `carnet serve`: the roles of a config file, each on its listener.

use crate::{
    config::{Config, Listener},
    gateway::{self, Parties},
    keys::{self, KeyEncryptionKey},
    system, telemetry,
};
use anyhow::{Context as _, Result};
use axum::{Router, body::Body, extract::ConnectInfo, http::Response};
use carnet_gateway::Gateway;
use carnet_proto::identifier::Issuer;
use carnet_server::{
    Context, LIMITS, Passwords,
    admin::{AdminApi, IdpAdmin, RasAdmin},
    health,
    idp::Idp,
    limited,
    ras::Ras,
};
use carnet_store::Store;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    collections::BTreeMap, convert::Infallible, fs::File, net::SocketAddr, path::Path, sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

/// Requests under way may take this long after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(25);
/// For reports of calls, and for the journal to reach the disk, after that.
const TELL: Duration = Duration::from_secs(3);
/// Connections of one listener at a time.
pub(crate) const CONNECTIONS: usize = 4096;
/// Connections of a gateway at a time: most of them are streams that wait.
const STREAMS: usize = 16_384;

/// Runs the roles of `config` until the process is told to stop.
pub(crate) async fn serve(config: Config) -> Result<()> {
    let outbound = system::outbound(&config.extra_roots)?;
    let telemetry = telemetry::start(&config, &outbound)?;
    let stop = CancellationToken::new();
    let running = start(&config, outbound, &telemetry, stop.clone()).await?;
    tracing::info!("ready");
    shutdown_signal().await?;
    tracing::info!("stopping");
    stop.cancel();
    running.finish().await;
    telemetry.stop().await;
    Ok(())
}

/// The listeners at work.
struct Running {
    listeners: JoinSet<()>,
    stores: Vec<Store>,
    /// What gateways do beside answering.
    tasks: JoinSet<()>,
    journals: Vec<oneshot::Receiver<()>>,
}

impl Running {
    async fn finish(mut self) {
        while self.listeners.join_next().await.is_some() {}
        // Nobody is left who decides anything; what was decided is told, as far as somebody listens.
        let told = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(TELL, told).await.is_err() {
            tracing::warn!("some calls are not reported yet; they are after the next start");
            self.tasks.shutdown().await;
        }
        for journal in self.journals {
            // It ends with the last decision.
            let _ = timeout(TELL, journal).await;
        }
        for store in self.stores {
            store.close().await;
        }
    }
}

async fn start(
    config: &Config,
    outbound: carnet_client::Outbound,
    telemetry: &telemetry::Telemetry,
    stop: CancellationToken,
) -> Result<Running> {
    let kek = KeyEncryptionKey::new(&system::read_private(&config.key_file)?)?;
    let (clock, entropy) = (system::clock(), system::entropy());
    let context = Context::new(clock.clone(), entropy.clone(), &outbound);
    let passwords = Passwords::new(std::thread::available_parallelism().map_or(1, usize::from));
    let ground = (&entropy, config.trusted_proxies.as_slice());
    let mut listeners = JoinSet::new();
    let mut stores = Vec::new();
    let mut idp_admin = None;
    let mut idp_role = None;
    let mut ras_roles = Vec::new();
    let mut shared = BTreeMap::new();
    let mut ras_admins = BTreeMap::new();
    if let Some((place, settings)) = &config.idp {
        let store = open_store(&place.database).await.context("idp.database")?;
        let ring = keys::key_ring(&store, &kek, place.algorithm, &clock).await.context("idp")?;
        let (issuer, settings) = (place.issuer.clone(), settings.clone());
        let idp =
            Idp::open(issuer, store.clone(), ring, context.clone(), settings, passwords.clone())
                .await?;
        let router = idp.router();
        idp_role = Some(idp);
        idp_admin = Some(IdpAdmin::new(
            place.issuer.clone(),
            store.clone(),
            clock.clone(),
            entropy.clone(),
            passwords.clone(),
        ));
        listen(&mut listeners, place, router, &store, ground, &stop).await.context("idp")?;
        stores.push(store);
    }
    for (name, place, settings) in &config.ras {
        let store = open_store(&place.database).await.context("ras.database")?;
        let ring = keys::key_ring(&store, &kek, place.algorithm, &clock).await.context("ras")?;
        let issuer = place.issuer.clone();
        let ras = Ras::open(issuer, store.clone(), ring, context.clone(), settings.clone()).await?;
        let router = ras.router();
        let admin =
            RasAdmin::new(place.issuer.clone(), store.clone(), clock.clone(), entropy.clone());
        ras_admins.insert(name.clone(), admin);
        ras_roles.push((place.issuer.clone(), ras));
        if config.gateways.iter().any(|gateway| gateway.listen == place.listen) {
            let router = router.merge(health(vec![store.clone()]));
            let router = limited(router, LIMITS, entropy.clone(), &config.trusted_proxies);
            shared.insert(place.listen, (router, host_of(&place.issuer)));
        } else {
            listen(&mut listeners, place, router, &store, ground, &stop)
                .await
                .with_context(|| format!("ras `{name}`"))?;
        }
        stores.push(store);
    }
    let parties = Parties { idp: idp_role.as_ref(), ras: &ras_roles };
    let (mut tasks, mut journals, mut gateways) = (JoinSet::new(), Vec::new(), Vec::new());
    let means = gateway::Means { context: &context, outbound: &outbound, telemetry };
    for place in &config.gateways {
        let started = gateway::start(place, &kek, &means, &parties, &mut tasks, &stop)
            .with_context(|| format!("gateway `{}`", place.name))?;
        let other = shared
            .remove(&place.listen)
            .unwrap_or_else(|| (limited(health(Vec::new()), LIMITS, entropy.clone(), &[]), None));
        listen_gateway(&mut listeners, place, &started.gateway, other, &stop).await?;
        journals.push(started.journal);
        gateways.push(started.gateway);
    }
    if let Some(admin) = &config.admin {
        let listener = bind(admin.listen).await.context("admin.listen")?;
        let address = listener.local_addr()?;
        let api = AdminApi {
            secret_hash: system::read_private(&admin.secret_file)?.hash(),
            hosts: vec![address.to_string(), format!("localhost:{}", address.port())],
            idp: idp_admin,
            ras: ras_admins,
            gateway: (!gateways.is_empty()).then(|| gateway::admin(gateways)),
        };
        let router = limited(api.router(), LIMITS, entropy.clone(), &[]);
        tracing::info!(%address, "the administration API listens");
        let stop = stop.clone();
        listeners.spawn(accept(listener, None, router, CONNECTIONS, stop));
    }
    spawn_pruning(&stores, &clock, &stop);
    Ok(Running { listeners, stores, tasks, journals })
}

/// Opens a database; a SQLite file is its owner's alone.
pub(crate) async fn open_store(url: &str) -> Result<Store> {
    if let Some(path) = carnet_store::sqlite_path(url)
        && !path.exists()
    {
        system::write_private(path, b"", true)?;
    }
    Ok(Store::open(url).await?)
}

/// Deletes what has outlived its use, once a minute.
pub(crate) fn spawn_pruning(
    stores: &[Store],
    clock: &carnet_proto::time::Clock,
    stop: &CancellationToken,
) {
    for store in stores {
        let (store, clock, stop) = (store.clone(), clock.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_mins(1)) => {}
                }
                if let Err(error) = store.forget_expired(clock.now()).await {
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
    store: &Store,
    ground: (&carnet_proto::time::Entropy, &[std::net::IpAddr]),
    stop: &CancellationToken,
) -> Result<()> {
    let (entropy, proxies) = ground;
    let listener = bind(place.listen).await?;
    let tls = match &place.tls {
        Some((certificate, key)) => Some(acceptor(certificate, key)?),
        None => None,
    };
    let router =
        limited(router.merge(health(vec![store.clone()])), LIMITS, entropy.clone(), proxies);
    tracing::info!(issuer = %place.issuer, address = %listener.local_addr()?, "listening");
    listeners.spawn(accept(listener, tls, router, CONNECTIONS, stop.clone()));
    Ok(())
}

/// Host and port of an issuer as a `Host` header carries them.
fn host_of(issuer: &Issuer) -> Option<String> {
    let (_, authority) = issuer.origin().split_once("://")?;
    Some(authority.to_owned())
}

async fn listen_gateway(
    listeners: &mut JoinSet<()>,
    place: &gateway::config::GatewayConfig,
    gateway: &Gateway,
    (other, host): (Router, Option<String>),
    stop: &CancellationToken,
) -> Result<()> {
    let listener = bind(place.listen).await.with_context(|| format!("gateway `{}`", place.name))?;
    let tls = match &place.tls {
        Some((certificate, key)) => Some(acceptor(certificate, key)?),
        None => None,
    };
    let hosts = gateway.hosts().collect::<Vec<_>>().join(", ");
    tracing::info!(gateway = place.name, hosts, address = %listener.local_addr()?, "listening");
    let service = gateway.service(other, host);
    listeners.spawn(accept(listener, tls, service, STREAMS, stop.clone()));
    Ok(())
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{address} cannot be listened on\nhint: is another process using the port?")
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_reader_iter(File::open(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{} is not a PEM certificate", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_reader(File::open(key)?)
        .with_context(|| format!("{} is not a PEM private key", key.display()))?;
    tls(certificates, key)
}

/// TLS 1.2 and 1.3 with aws-lc.
pub(crate) fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves a listener with limits on headers and time, until `stop`; then lets requests under way
/// finish.
pub(crate) async fn accept<S>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: S,
    connections: usize,
    stop: CancellationToken,
) where
    S: Service<hyper::Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_headers(64)
        .max_buf_size(32 * 1024);
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(connections));
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(&listener, &slots) => accepted,
        };
        // Small answers must not wait for more; where the socket refuses, they just come later.
        let _ = stream.set_nodelay(true);
        let (builder, tls, service) = (Arc::clone(&builder), tls.clone(), service.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service.map_request(move |request: hyper::Request<_>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                request
            });
            let service = TowerToHyperService::new(service);
            let served = match tls {
                None => {
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection.into_owned()).await
                }
                Some(tls) => {
                    let handshake = timeout(Duration::from_secs(10), tls.accept(stream)).await;
                    let Ok(Ok(stream)) = handshake else { return };
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection.into_owned()).await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a connection ended");
            }
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when the time for stopping was over");
    }
}

async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (tokio::net::TcpStream, SocketAddr, Option<tokio::sync::OwnedSemaphorePermit>) {
    let permit = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) => {
                // Out of file descriptors, most likely: they come back as connections end.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn shutdown_signal() -> Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            ended = tokio::signal::ctrl_c() => ended?,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
