//! The gateway in this binary: connects `passavant-gateway` with files, secrets and the other roles
//! of this process.

pub mod adapter;
pub mod config;
pub mod guard;
mod hop;
mod journal;
mod positions;
mod report;

use crate::{
    keys::{self, KeyEncryptionKey},
    telemetry::Telemetry,
};
use anyhow::{Context, Result};
use axum::{
    Extension, Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use config::{AdapterConfig, GatewayConfig, RouteConfig};
use passavant_admin::By;
use passavant_authority::Context as ServerContext;
use passavant_gateway::{Approved, Gateway, GatewayDeps, Keep, More, Stands, Trail, Unavailable};
use passavant_host as system;
use passavant_host::Shared;
use passavant_idp::Idp;
use passavant_outbound::Outbound;
use passavant_proto::{
    event::{Act, Detail},
    identifier::Issuer,
    secret::Secret,
    time::Clock,
};
use passavant_ras::Ras;
use passavant_resource::{Feed, Introspection, WithoutFeed};
use passavant_store::Store;
use report::ReportSink;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// The roles of this process that a gateway may call directly.
pub struct Parties<'a> {
    pub idp: Option<&'a Idp>,
    pub ras: &'a [(Issuer, Ras)],
}

/// The dependencies of all gateways of this process.
pub struct Deps<'a> {
    pub context: &'a ServerContext,
    pub outbound: &'a Outbound,
    pub telemetry: &'a Telemetry,
    /// Who may read the files that secrets are in.
    pub secrets: Shared,
}

/// A running gateway, and what to wait for when it stops.
pub struct Started {
    pub gateway: Gateway,
    /// Completes when the journal is on disk.
    pub journal: oneshot::Receiver<()>,
}

/// Starts one gateway: its journal, its reports, and the watch over open streams.
pub async fn start(
    config: &GatewayConfig,
    kek: &KeyEncryptionKey,
    deps: &Deps<'_>,
    parties: &Parties<'_>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Started> {
    system::private_folder(&config.folder)?;
    let (trail, entries) = Trail::new();
    let Deps { context, outbound, telemetry, secrets } = *deps;
    let records = telemetry.records();
    let journal =
        journal::start(&config.folder, config.durability, config.keep_days, entries, records)?;
    let (key, session_key) = keys::gateway_key(&config.folder.join("gateway.key"), kek)?;
    let approved = ApprovedToolsFile::open(config.folder.join("tools.json"))?;
    let before = approved.all();
    let keep: Keep = {
        let approved = Arc::new(approved);
        Arc::new(move |resource, tools| {
            let approved = Arc::clone(&approved);
            Box::pin(async move {
                // Outside of the threads that answer requests, and one at a time.
                let _ = tokio::task::spawn_blocking(move || approved.keep(resource, tools)).await;
            })
        })
    };
    let gateway_deps = GatewayDeps {
        clock: context.clock.clone(),
        entropy: context.entropy.clone(),
        outbound: outbound.clone(),
        keys: context.remote_keys.clone(),
        key: Arc::new(key),
        session_key,
        trail: trail.clone(),
        keep,
    };
    let mut routes = Vec::new();
    // Each party gets reports about its own MCP servers.
    let mut sinks: BTreeMap<String, (ReportSink, Vec<String>)> = BTreeMap::new();
    for route in &config.routes {
        let mut settings = route.settings.clone();
        let issuer = &settings.authorization_server;
        let here = parties.ras.iter().find(|(held, _)| held == issuer).map(|(_, ras)| ras);
        (settings.stands, settings.feed) = stands(route, here, deps, (tasks, stop))?;
        if let Some((header, prefix, file)) = &route.credential {
            let secret = system::read_secret(file, secrets)?;
            // Accept it with or without the scheme, because many copy the whole value of the
            // header.
            let bare = secret.expose();
            let has_prefix =
                bare.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
            let bare = if has_prefix { &bare[prefix.len()..] } else { bare };
            let whole = Secret::new(format!("{prefix}{bare}"));
            settings.credential = Some((header.clone(), whole));
        }
        if let Some(adapter) = &route.adapter {
            let name = settings.name.clone();
            let name = name.unwrap_or_else(|| settings.resource.as_str().to_owned());
            let (server, sessions) = match adapter {
                AdapterConfig::Command(command, sessions) => {
                    (adapter::Server::Command(command.clone()), *sessions)
                }
                AdapterConfig::Sse(url, sessions) => {
                    // The adapter sends it to the MCP server; nothing else needs it.
                    let credential = settings.credential.take();
                    let host = settings.upstream_host.take();
                    let (url, outbound) = (url.clone(), outbound.clone());
                    let sse = adapter::Sse { url, outbound, credential, host };
                    (adapter::Server::Sse(sse), *sessions)
                }
            };
            let entropy = &context.entropy;
            let started = adapter::start(&name, server, sessions, entropy, tasks, stop).await?;
            settings.upstream = started.upstream;
            settings.adapter = Some((adapter::OWN, started.secret));
        }
        if let Some(client) = &route.upstream_client {
            settings.upstream_tokens =
                Some(hop::upstream_tokens(client, outbound, context, secrets)?);
        }
        if let Some(ras) = here {
            let resource = settings.resource.as_str().to_owned();
            let sink = sinks.entry(issuer.to_string());
            sink.or_insert_with(|| (ReportSink::Ras(ras.clone()), Vec::new())).1.push(resource);
        }
        let name = settings.resource.as_str().to_owned();
        routes.push((settings, before.get(&name).cloned().unwrap_or_default()));
    }
    if let Some((issuer, client_id, file)) = &config.report {
        let sink = match parties.idp {
            Some(idp) if idp.issuer() == issuer => ReportSink::Idp(idp.clone()),
            _ => ReportSink::Remote {
                issuer: issuer.clone(),
                client_id: client_id.clone(),
                secret: system::read_secret(file, secrets)?,
                outbound: outbound.clone(),
            },
        };
        let all = routes.iter().map(|(route, _)| route.resource.as_str().to_owned()).collect();
        sinks.insert(issuer.to_string(), (sink, all));
    }
    let gateway = Gateway::new(gateway_deps, routes).context("gateway")?;
    for (sink, resources) in sinks.into_values() {
        let gateway = config.name.clone();
        let reporter = report::Reporter { gateway, sink, resources, trail: trail.clone() };
        tasks.spawn(report::run(config.folder.clone(), reporter, stop.clone()));
    }
    let (watched, stop) = (gateway.clone(), stop.clone());
    tasks.spawn(async move { watched.watch(stop).await });
    Ok(Started { gateway, journal })
}

/// How to check whether a token is still active, and what tells that it has ended: the RAS itself if it
/// runs in this process, otherwise introspection and the RAS's feed.
fn stands(
    route: &RouteConfig,
    here: Option<&Ras>,
    deps: &Deps<'_>,
    (tasks, stop): (&mut JoinSet<()>, &CancellationToken),
) -> Result<(Option<Stands>, Option<Feed>)> {
    let Deps { context, outbound, secrets, .. } = *deps;
    if let Some(ras) = here {
        let feed = Feed::new(WithoutFeed::Ask);
        let (heard, told, stop) = (feed.clone(), ras.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = hear(&told, &heard) => {}
            }
        });
        let ras = ras.clone();
        let ask = move |token: Secret| -> futures::future::BoxFuture<'static, _> {
            let ras = ras.clone();
            Box::pin(async move { ras.stands(&token).await.map_err(|_| Unavailable) })
        };
        return Ok((Some(Arc::new(ask)), Some(feed)));
    }
    let Some(introspection) = &route.introspection else { return Ok((None, None)) };
    let secret = system::read_secret(&introspection.secret_file, secrets)?;
    let (issuer, clock) = (route.settings.authorization_server.clone(), context.clock.clone());
    let credentials = (introspection.client_id.as_str(), secret);
    let without = introspection.without_feed;
    let asked = Introspection::new(outbound.clone(), issuer, credentials, without, clock);
    let feed = asked.feed().clone();
    let asked = Arc::new(asked);
    let ask = move |token: Secret| -> futures::future::BoxFuture<'static, _> {
        let asked = Arc::clone(&asked);
        Box::pin(async move { asked.ask(token.expose()).await.map_err(|_| Unavailable) })
    };
    Ok((Some(Arc::new(ask)), Some(feed)))
}

/// How long it is waited before listening again.
const A_MOMENT: Duration = Duration::from_millis(100);

/// Hears what ends at a RAS of this process, until this is dropped.
async fn hear(ras: &Ras, feed: &Feed) {
    loop {
        let mut told = ras.ended_tokens();
        // What ended before, or while it was too far behind, is not known.
        feed.miss();
        while let Ok(told) = told.recv().await {
            feed.hear(&told.ended);
        }
        tokio::time::sleep(A_MOMENT).await;
    }
}

/// Reads every secret that a gateway's config names, as starting it does.
pub fn check_secrets(config: &GatewayConfig, secrets: Shared) -> Result<()> {
    let mut files: Vec<&Path> = config.report.iter().map(|(.., file)| file.as_path()).collect();
    for route in &config.routes {
        files.extend(route.credential.iter().map(|(.., file)| file.as_path()));
        files.extend(route.introspection.iter().map(|written| written.secret_file.as_path()));
        if let Some(client) = &route.upstream_client {
            files.extend([client.secret_file.as_path(), client.ras_secret_file.as_path()]);
        }
    }
    files.into_iter().try_for_each(|file| system::read_secret(file, secrets).map(drop))
}

type ByResource<T> = BTreeMap<String, BTreeMap<String, T>>;

/// The approved tools, in a file. Fields that an earlier version does not know are in a second
/// file, so that it can read the first one.
struct ApprovedToolsFile {
    file: PathBuf,
    more: PathBuf,
    all: Mutex<ByResource<Approved>>,
}

impl ApprovedToolsFile {
    fn open(file: PathBuf) -> Result<Self> {
        let more = file.with_extension("more.json");
        let mut all: ByResource<Approved> = read(&file)?;
        let mut beside: ByResource<More> = read(&more)?;
        for (resource, tools) in &mut all {
            for (name, tool) in tools {
                let more = beside.get_mut(resource).and_then(|tools| tools.remove(name));
                tool.more = more.unwrap_or_default();
            }
        }
        Ok(Self { file, more, all: Mutex::new(all) })
    }

    fn all(&self) -> ByResource<Approved> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Called when a tool is seen for the first time, changes or is approved.
    fn keep(&self, resource: String, tools: BTreeMap<String, Approved>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(resource, tools);
        let beside: ByResource<&More> = all
            .iter()
            .map(|(resource, tools)| {
                let tools = tools.iter().map(|(name, tool)| (name.clone(), &tool.more));
                (resource.clone(), tools.collect())
            })
            .collect();
        let written = write(&self.more, &beside).and_then(|()| write(&self.file, &*all));
        if let Err(error) = written {
            tracing::error!(error = format!("{error:#}"), "approved tools were not kept");
        }
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(file: &Path) -> Result<T> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} is not a valid file of approved tools\n\
                 hint: move it away; then each tool is approved as it is when it is next seen",
                file.display()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}

fn write(file: &Path, value: &impl serde::Serialize) -> Result<()> {
    system::write_private(file, &serde_json::to_vec_pretty(value)?, false)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    resource: String,
    tool: String,
    fingerprint: String,
}

/// The dependencies of the administration of gateways.
struct Beside {
    gateways: Vec<Gateway>,
    /// `None` if a gateway runs alone.
    trail: Option<Store>,
    clock: Clock,
}

/// Administration of the gateways of this process. Approvals are recorded in the audit trail of
/// `trail`.
pub fn admin(gateways: Vec<Gateway>, trail: Option<Store>, clock: Clock) -> Router {
    let tools = |State(beside): State<Arc<Beside>>| async move {
        let all: BTreeMap<_, _> = beside.gateways.iter().flat_map(Gateway::tools).collect();
        Json(json!(all))
    };
    let approve = |State(beside): State<Arc<Beside>>,
                   Extension(by): Extension<By>,
                   Json(wanted): Json<Approve>| async move {
        let Approve { resource, tool, fingerprint } = &wanted;
        let able = |gateway: &&Gateway| gateway.can_approve(resource, tool, fingerprint);
        if let Some(gateway) = beside.gateways.iter().find(|gateway| able(gateway).is_some()) {
            if able(&gateway) == Some(true) {
                // Recorded before it is done.
                let event = by
                    .act(Act::Approve, "tool", beside.clock.now())
                    .with(Detail::Resource, resource.as_str())
                    .with(Detail::Record, tool.as_str())
                    .with(Detail::More, fingerprint.as_str());
                tracing::info!(by = by.name(), resource, tool, fingerprint, "a tool is approved");
                if let Some(trail) = &beside.trail
                    && let Err(error) = trail.record_act(event).await
                {
                    tracing::error!(%error, tool, "an approval could not be put on record");
                    let problem = json!({"error": format!("nothing was approved: {error}"),
                                         "hint": "ask an owner, or see the server's log"});
                    return (StatusCode::SERVICE_UNAVAILABLE, Json(problem)).into_response();
                }
                if gateway.approve(resource, tool, fingerprint).await == Some(true) {
                    return Json(json!({"approved": fingerprint})).into_response();
                }
            }
            let problem = json!({
                "error": format!("no description of `{tool}` that was seen has the fingerprint `{fingerprint}`"),
                "hint": "it may have changed since; `passavant admin gateway tools` shows what there is now",
            });
            return (StatusCode::CONFLICT, Json(problem)).into_response();
        }
        let problem = json!({
            "error": format!("no gateway here guards `{resource}`"),
            "hint": "`passavant admin gateway tools` lists MCP servers and their tools",
        });
        (StatusCode::NOT_FOUND, Json(problem)).into_response()
    };
    Router::new()
        .route("/tools", get(tools))
        .route("/approve", post(approve))
        .with_state(Arc::new(Beside { gateways, trail, clock }))
}
