//! `passavant guard`: one command in front of an MCP server. It writes a config as `passavant init` would, with a
//! RAS and a gateway on one listener, and serves it.

use super::adapter::{self, Found};
use crate::{config::Config, serve};
use anyhow::{Context, Result, bail};
use clap::Args;
use passavant_host as system;
use passavant_proto::{
    event::{Act, Detail, Event},
    formerly,
    identifier::{Issuer, Resource, is_loopback},
    jose::jwk::Algorithm,
    mcp::operation_policy::{Rule, Rules},
    oauth::client::GovernedResource,
    oauth::scope::Scopes,
    xaa::trust::{AccountResolution, InteractiveSignIn, TrustedIssuer},
};
use passavant_store::{AuditEvent, Put, Record, Store};
use serde_json::json;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// The scope that every request needs.
const SCOPE: &str = "mcp";
/// What the RAS and the gateway are called.
const NAME: &str = "guard";

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
pub struct Guard {
    /// The MCP server itself, for instance http://127.0.0.1:3001/mcp
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "command",
        conflicts_with = "command"
    )]
    upstream: Option<String>,
    /// `Host` of requests to it, where it takes no other; the host of its URL unless given
    #[arg(long, value_name = "HOST", requires = "upstream")]
    upstream_host: Option<String>,
    /// File with its own credential; `Bearer` and the header Authorization unless --credential-header says another
    #[arg(long, value_name = "FILE", requires = "upstream")]
    credential: Option<PathBuf>,
    /// The header that the credential goes in
    #[arg(long, value_name = "NAME", requires = "credential")]
    credential_header: Option<String>,
    /// With a command: a variable of the environment that it may see, or NAME=VALUE; it sees PATH, HOME and the like
    /// in any case
    #[arg(long = "env", value_name = "NAME[=VALUE]", requires = "command")]
    environment: Vec<String>,
    /// With a command: one process for all sessions, instead of one for each
    #[arg(long)]
    shared: bool,
    /// The MCP server's URL as its users know it: its resource identifier
    #[arg(long, value_name = "URL")]
    resource: String,
    /// Honour the people and ID-JAGs of this identity provider; may be given several times
    #[arg(long = "trust", value_name = "ISSUER", required = true)]
    trust: Vec<String>,
    /// Let people of the (first) trusted identity provider sign in in the browser where their client has no
    /// cross-app access; ID is this server's client id there
    #[arg(long, value_name = "ID")]
    sign_in: Option<String>,
    /// With --sign-in: let clients register themselves (RFC 7591), as many MCP clients do
    #[arg(long, requires = "sign_in")]
    registration: bool,
    /// With --sign-in: let people let in any client that is named by an https metadata document
    #[arg(long, requires = "sign_in")]
    client_documents: bool,
    /// The algorithm that the trusted identity providers sign ID-JAGs with; as their keys tell unless given
    #[arg(long, value_name = "ALGORITHM")]
    trust_algorithm: Option<String>,
    /// The algorithm of the access tokens: ES256, EdDSA or RS256
    #[arg(long, value_name = "ALGORITHM", default_value = "ES256")]
    algorithm: String,
    /// What a scope lets somebody do, for the page that asks people
    #[arg(long = "scope-text", value_name = "SCOPE=TEXT")]
    scope_texts: Vec<String>,
    /// A tool that may be called: its name, or the beginning of names with a `*`; `=SCOPE` says what
    /// it needs besides `mcp`. May be given several times. Every tool unless given
    #[arg(long = "allow", value_name = "TOOL[=SCOPE]")]
    allow: Vec<String>,
    /// Block a tool whose description changes, until `passavant admin gateway approve`
    #[arg(long)]
    block_changed_tools: bool,
    /// What people call the MCP server
    #[arg(long)]
    name: Option<String>,
    /// Where to listen; the resource's own address if that is on this machine, else 127.0.0.1:7403
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Certificate chain in PEM, for listening on other addresses than this machine's own
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// A proxy in front ends TLS and connects from this address or network: nobody else is let in, but from this machine. May be given several
    /// times
    #[arg(long = "trusted-proxy", value_name = "ADDRESS|CIDR", conflicts_with = "tls_key")]
    trusted_proxies: Vec<String>,
    /// Answer probes (/healthz, /readyz) here too
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// Issuer of the authorization server; the resource's origin unless given
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Folder for keys, databases and the journal of calls
    #[arg(long, value_name = "FOLDER", default_value = "passavant-guard")]
    data: PathBuf,
    /// A certificate authority to trust beside the system's, in PEM
    #[arg(long = "extra-root", value_name = "FILE")]
    extra_roots: Vec<PathBuf>,
    /// A program that speaks MCP on its standard streams, instead of --upstream: `passavant guard … -- npx -y some-server`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The validated settings of a guard.
struct Plan {
    resource: Resource,
    issuer: Issuer,
    trusted: Vec<Issuer>,
    listen: SocketAddr,
    rules: Vec<Rule>,
    scopes: Scopes,
    /// The signature algorithms of the ID-JAGs of each trusted issuer.
    algorithms: Vec<Algorithm>,
    descriptions: std::collections::BTreeMap<String, String>,
    /// The MCP server uses HTTP+SSE of 2024-11-05.
    sse: bool,
    /// Observations about the parties, for the person who started this.
    seen: Vec<String>,
}

/// Writes the config, and serves it until the process is told to stop.
pub async fn guard(args: Guard) -> Result<()> {
    // First, so that nothing is left half-written.
    let mut told_to_stop = system::shutdown_signal()?;
    let mut plan = args.plan()?;
    // Before anything is written: the folder may belong to another guard that is running.
    let _folder = args.take_folder(&plan)?;
    let config = tokio::select! {
        config = prepare(&args, &mut plan) => config?,
        () = &mut told_to_stop => return Ok(()),
    };
    serve::serve_until(config, told_to_stop).await
}

/// Writes what a guard serves by, and says what it is.
async fn prepare(args: &Guard, plan: &mut Plan) -> Result<Config> {
    plan.look(args).await?;
    let file = args.write(plan)?;
    let config = Config::read(&file)?;
    let (_, place, _) = config.ras.first().context("the config has no RAS")?;
    let store =
        serve::open_store(&place.database).await.context("the database cannot be opened")?;
    plan.register(&store, args).await?;
    let older = plan.trusted_besides(&store).await?;
    store.close().await;
    println!("{}", plan.told(args, &file));
    for issuer in older {
        println!(
            "It also trusts {issuer}, from an earlier start or an administrator. To take that back:\n\n  \
             passavant admin --config {} --ras {NAME} trust disable {issuer}\n",
            file.display()
        );
    }
    Ok(config)
}

fn issuer(flag: &str, text: &str) -> Result<Issuer> {
    Issuer::parse(text.trim_end_matches('/'))
        .map_err(|error| anyhow::anyhow!("{flag}: `{text}` {error}"))
}

impl Guard {
    fn plan(&self) -> Result<Plan> {
        let resource = Resource::parse(&self.resource)
            .map_err(|error| anyhow::anyhow!("--resource: `{}` {error}", self.resource))?;
        let url = Url::parse(resource.normalized())?;
        let origin = url.origin().ascii_serialization();
        let issuer_text = match &self.issuer {
            Some(text) => text.clone(),
            // At the origin itself, the paths of the MCP server would collide.
            None if resource.path().is_empty() => format!("{origin}/as"),
            None => origin,
        };
        let own = issuer("--issuer", &issuer_text)?;
        let mut trusted = Vec::new();
        for text in &self.trust {
            let trust = issuer("--trust", text)?;
            if trust.as_str() == own.as_str() {
                bail!(
                    "--trust: {trust} would be this authorization server itself\nhint: name the \
                     company's identity provider, or give --issuer another URL"
                );
            }
            trusted.push(trust);
        }
        let listen = match (self.listen, url.host()) {
            (Some(listen), _) => listen,
            (None, Some(host)) if is_loopback(&url) => {
                let ip = match host {
                    url::Host::Ipv4(ip) => IpAddr::V4(ip),
                    url::Host::Ipv6(ip) => IpAddr::V6(ip),
                    url::Host::Domain(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                };
                SocketAddr::new(ip, url.port_or_known_default().unwrap_or(80))
            }
            _ => SocketAddr::from(([127, 0, 0, 1], 7403)),
        };
        let base: Scopes = [SCOPE.to_owned()].into_iter().collect();
        let mut rules = Vec::new();
        for text in &self.allow {
            let (tool, scope) = text.split_once('=').unwrap_or((text, ""));
            let scopes = Scopes::parse(scope).with_context(|| {
                format!("--allow: `{scope}` is not a valid scope\nhint: --allow 'note_write=notes.write'")
            })?;
            rules.push(Rule { tools: vec![tool.to_owned()], scopes, ..Rule::default() });
        }
        if rules.is_empty() {
            rules.push(Rule { tools: vec!["*".to_owned()], ..Rule::default() });
        }
        let checked =
            Rules::new(base, rules.clone()).map_err(|error| anyhow::anyhow!("--allow: {error}"))?;
        let scopes = checked.scopes();
        let algorithm = |flag: &str, text: &str| {
            let named = Algorithm::named(text);
            named.with_context(|| {
                format!("{flag}: `{text}` is not one of ES256, EdDSA, PS256 and RS256")
            })
        };
        let trust = match &self.trust_algorithm {
            Some(text) => algorithm("--trust-algorithm", text)?,
            None => Algorithm::ES256,
        };
        if algorithm("--algorithm", &self.algorithm)? == Algorithm::PS256 {
            bail!("--algorithm: PS256 cannot be used for signing\nhint: use ES256, EdDSA or RS256");
        }
        let mut descriptions =
            std::collections::BTreeMap::from([(SCOPE.to_owned(), "Use its tools".to_owned())]);
        for text in &self.scope_texts {
            let (scope, words) = text.split_once('=').with_context(|| {
                format!("--scope-text: `{text}` is not SCOPE=TEXT\nhint: --scope-text 'notes.read=Read your notes'")
            })?;
            descriptions.insert(scope.to_owned(), words.to_owned());
        }
        let algorithms = vec![trust; trusted.len()];
        let (sse, seen) = (false, Vec::new());
        Ok(Plan {
            resource,
            issuer: own,
            trusted,
            listen,
            rules,
            scopes,
            algorithms,
            descriptions,
            sse,
            seen,
        })
    }

    /// The MCP server, in words.
    fn server(&self) -> String {
        match &self.upstream {
            Some(url) => url.clone(),
            None => format!("`{}`", self.command.join(" ")),
        }
    }

    /// Locks the folder for as long as this process runs. Fails if it belongs to another guard, or
    /// if the port is in use.
    fn take_folder(&self, plan: &Plan) -> Result<std::fs::File> {
        const OTHER: &str = "`--data FOLDER` gives each guard a folder of its own";
        let folder = self.data.display();
        let name = self.data.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let before = self.data.with_file_name(formerly::name(name));
        let is_empty = std::fs::read_dir(&self.data).map_or(true, |mut held| held.next().is_none());
        if before != self.data && before.is_dir() && is_empty {
            if system::is_anybodys_folder(&before) {
                bail!(
                    "{} belongs to another user, or other users may write into it\nhint: {OTHER}",
                    before.display()
                );
            }
            // Make sure that nobody uses the former folder; the lock moves with the folder.
            let lock = system::open_private(&before.join("lock"))?;
            if lock.try_lock().is_err() {
                bail!("a guard of an earlier version runs in {}\nhint: end it", before.display());
            }
            system::take_over(&before, &self.data)?;
        }
        system::private_folder(&self.data)?;
        if system::is_anybodys_folder(&self.data) {
            bail!(
                "{folder} belongs to another user, or other users may write into it\n\
                 hint: {OTHER}"
            );
        }
        let lock = system::open_private(&self.data.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another `passavant guard` runs in {folder}\nhint: {OTHER}");
        }
        for name in ["passavant.toml", "passavant.key", "passavant.admin-secret"] {
            system::take_over(&self.data.join(formerly::name(name)), &self.data.join(name))?;
        }
        let before = std::fs::read_to_string(self.data.join("passavant.toml")).ok();
        let before = before.and_then(|text| text.parse::<toml::Table>().ok());
        let before =
            before.as_ref().and_then(|table| table.get("ras")?.get(0)?.get("issuer")?.as_str());
        if let Some(before) = before.filter(|before| *before != plan.issuer.as_str()) {
            let before = system::plain(before);
            bail!("{folder} is the folder of the guard of {before}\nhint: {OTHER}");
        }
        match std::net::TcpListener::bind(plan.listen) {
            Ok(_) => Ok(lock),
            Err(error) => bail!(
                "cannot listen on {}: {error}\n\
                 hint: check which program uses the port, or name another address with --listen",
                plan.listen
            ),
        }
    }

    /// Writes the config of this plan, anew at every start; keys and secrets stay.
    fn write(&self, plan: &Plan) -> Result<PathBuf> {
        let folder = &self.data;
        system::private_folder(folder)?;
        let entropy = system::entropy();
        for name in ["passavant.key", "passavant.admin-secret"] {
            let file = folder.join(name);
            if !file.exists() {
                system::write_private(&file, entropy.secret().expose().as_bytes(), true)?;
            }
        }
        let here = std::env::current_dir()?;
        let absolute = |file: &PathBuf| here.join(file).display().to_string();
        let admin = admin_address(&folder.join("passavant.toml"))?;
        let rules: Vec<_> = plan
            .rules
            .iter()
            .map(|rule| json!({"tools": rule.tools, "scopes": rule.scopes}))
            .collect();
        let mut listener = json!({"listen": plan.listen.to_string()});
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            listener["tls_certificate"] = absolute(certificate).into();
            listener["tls_key"] = absolute(key).into();
        }
        if !self.trusted_proxies.is_empty() {
            listener["tls"] = "proxy".into();
        }
        let with = |mut table: serde_json::Value| {
            if let (Some(table), Some(more)) = (table.as_object_mut(), listener.as_object()) {
                table.extend(more.clone());
            }
            table
        };
        let mut route = json!({
            "resource": plan.resource.as_str(),
            "algorithm": self.algorithm,
            "authorization_server": plan.issuer.as_str(),
            "require": [SCOPE],
            "tool_changes": if self.block_changed_tools { "block" } else { "flag" },
            "rule": rules,
        });
        if let Some(name) = &self.name {
            route["name"] = name.as_str().into();
        }
        match &self.upstream {
            Some(url) => route["upstream"] = url.as_str().into(),
            None => {
                // The directory where the guard was started, not the config's: relative paths among
                // the arguments refer to it.
                route["command"] = self.command.clone().into();
                route["folder"] = here.display().to_string().into();
                route["environment"] = self.environment.clone().into();
            }
        }
        if self.shared {
            route["sessions"] = "shared".into();
        }
        if plan.sse {
            route["transport"] = "sse".into();
        }
        if let Some(host) = &self.upstream_host {
            route["upstream_host"] = host.as_str().into();
        }
        if let Some(file) = &self.credential {
            route["credential"] = json!({"file": absolute(file)});
            if let Some(name) = &self.credential_header {
                route["credential"]["header"] = name.as_str().into();
            }
        }
        let mut config = json!({
            "trusted_proxies": self.trusted_proxies,
            "keys": {"file": "passavant.key"},
            "admin": {"listen": admin.to_string(), "secret_file": "passavant.admin-secret"},
            "outbound": {"extra_roots": self.extra_roots.iter().map(absolute).collect::<Vec<_>>()},
            "ras": [with(json!({
                "name": NAME,
                "issuer": plan.issuer.as_str(),
                "database": "sqlite:ras.db",
                "algorithm": self.algorithm,
                "registration": self.registration,
                "client_documents": self.client_documents,
            }))],
            "gateway": [with(json!({"name": NAME, "folder": "gateway", "route": [route]}))],
        });
        if let Some(address) = self.health {
            config["health"] = json!({"listen": address.to_string()});
        }
        let text = format!(
            "# Written by `passavant guard` at every start. To change more than its flags do, copy this file and \
             run the copy with `passavant serve --config`.\n\n{}",
            toml::to_string(&config)?
        );
        let file = folder.join("passavant.toml");
        system::write_private(&file, text.as_bytes(), false)?;
        Ok(file)
    }
}

/// A port for administration: the previous one if it is free, or any other. Two guards must not
/// take each other's port.
fn admin_address(file: &Path) -> Result<SocketAddr> {
    let before =
        std::fs::read_to_string(file).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let before = before.as_ref().and_then(|table| table.get("admin")?.get("listen")?.as_str());
    let before = before.and_then(|text| text.parse::<SocketAddr>().ok());
    let free = |address: SocketAddr| std::net::TcpListener::bind(address);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = before.map_or_else(|| free(any), |before| free(before).or_else(|_| free(any)));
    Ok(listener.context("no port is free on this machine")?.local_addr()?)
}

/// The address by which other machines reach this one, if there is one. Nothing is sent to find it.
fn outside_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

async fn put<R: Record>(store: &Store, record: &R) -> Result<()> {
    let now = system::clock().now();
    let there = store.by_id::<R>(&record.id()).await?.is_some();
    let (put, act) = if there { (Put::Replace, Act::Replace) } else { (Put::Create, Act::Create) };
    let event = AuditEvent::granted(Event::Guard(act, R::KIND), now)
        .with(Detail::By, "passavant guard")
        .with(Detail::Record, record.id());
    store.put(record, put, event).await?;
    Ok(())
}

impl Plan {
    /// Checks the parties before anything is announced about them.
    async fn look(&mut self, args: &Guard) -> Result<()> {
        let outbound = system::outbound(&args.extra_roots)?;
        for (i, issuer) in self.trusted.iter_mut().enumerate() {
            let found =
                match passavant_outbound::discover_authorization_server(&outbound, issuer).await {
                    Ok(found) => found,
                    Err(passavant_outbound::DiscoveryError::Differs(
                        passavant_outbound::Differs { found, .. },
                    )) if found.trim_end_matches('/') == issuer.as_str().trim_end_matches('/') => {
                        *issuer = Issuer::parse(&found)?;
                        passavant_outbound::discover_authorization_server(&outbound, issuer).await?
                    }
                    Err(error) => {
                        let error = error.to_string();
                        let error = error.lines().next().unwrap_or_default().to_owned();
                        self.seen.push(format!(
                            "The identity provider {issuer} cannot be reached just now: {error}"
                        ));
                        continue;
                    }
                };
            if args.trust_algorithm.is_none()
                && let Some(algorithm) = algorithm_of(&outbound, &found).await
            {
                self.algorithms[i] = algorithm;
            }
        }
        let Some(url) = &args.upstream else {
            let program = args.command.first().map_or("", String::as_str);
            if !system::is_program(program) {
                bail!(
                    "`{}` is not a program on this machine: it is not on PATH, or is not \
                     executable\n\
                     hint: install it, or give its full path",
                    system::plain(program)
                );
            }
            return Ok(());
        };
        let credential = match &args.credential {
            Some(file) => {
                let name = args.credential_header.as_deref().unwrap_or("authorization");
                let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                    anyhow::anyhow!("--credential-header: `{name}` is not a valid header name")
                })?;
                let secret = system::read_private(file)?;
                let bearer = name == http::header::AUTHORIZATION
                    && !secret.expose().to_ascii_lowercase().starts_with("bearer ");
                let whole = if bearer {
                    format!("Bearer {}", secret.expose())
                } else {
                    secret.expose().to_owned()
                };
                Some((name, passavant_proto::secret::Secret::new(whole)))
            }
            None => None,
        };
        let header = credential.as_ref().map(|(name, value)| (name.as_str(), value.expose()));
        let host = args.upstream_host.as_deref().map(|host| ("host", host));
        let headers: Vec<(&str, &str)> = header.into_iter().chain(host).collect();
        match adapter::probe(&outbound, url, &headers).await {
            Found::Http(Some(name)) => {
                self.seen.push(format!("The MCP server answers; it calls itself {name}."));
            }
            Found::Http(None) => self.seen.push(
                "The MCP server answers, and requires authentication; it gets this guard's \
                 assertion, or --credential."
                    .to_owned(),
            ),
            Found::Sse => {
                self.sse = true;
                self.seen.push(
                    "The MCP server speaks the older HTTP+SSE transport; callers are served Streamable HTTP all the same.".to_owned(),
                );
            }
            Found::Else(words) => self.seen.push(format!(
                "--upstream does not answer as an MCP server just now: {words}. Callers get errors \
                 until it does; check that --upstream is right."
            )),
        }
        self.look_around(url).await;
        Ok(())
    }

    /// Checks whether the MCP server can be reached without this guard.
    async fn look_around(&mut self, url: &str) {
        let Ok(url) = Url::parse(url) else { return };
        let port = url.port_or_known_default();
        let (true, Some(port), Some(outside)) = (is_loopback(&url), port, outside_address()) else {
            return;
        };
        let there = tokio::net::TcpStream::connect((outside, port));
        if matches!(tokio::time::timeout(Duration::from_millis(500), there).await, Ok(Ok(_))) {
            self.seen.push(format!(
                "WARNING: the MCP server also answers on {}: anyone who reaches that address \
                 bypasses this guard. Let it listen only on 127.0.0.1.",
                SocketAddr::new(outside, port)
            ));
        }
    }

    /// Registers the MCP server and the trusted identity providers, as the flags describe them. An
    /// issuer that was changed with `passavant admin` is left alone.
    async fn register(&self, store: &Store, args: &Guard) -> Result<()> {
        let name = args.name.as_deref().unwrap_or_default();
        let governed = GovernedResource {
            resource: self.resource.clone(),
            name: name.to_owned(),
            scopes: self.scopes.clone(),
            default_scopes: [SCOPE.to_owned()].into_iter().collect(),
            descriptions: self.descriptions.clone(),
            // The gateway checks each token once a second, so a revoked token ends at once, however
            // long its lifetime.
            access_token_lifetime: Some(900),
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: false,
        };
        // Settings of an administrator stay: a restart does not enable a server that was disabled.
        let governed = match store.by_id::<GovernedResource>(&governed.id()).await? {
            None => governed,
            Some(held) => GovernedResource {
                name: governed.name,
                scopes: governed.scopes,
                default_scopes: governed.default_scopes,
                descriptions: governed.descriptions,
                ..held
            },
        };
        put(store, &governed).await?;
        for (i, issuer) in self.trusted.iter().enumerate() {
            let client_id = args.sign_in.clone().filter(|_| i == 0);
            let sign_in =
                client_id.map(|client_id| InteractiveSignIn { client_id, domains: Vec::new() });
            if let Some(held) = store.by_id::<TrustedIssuer>(issuer.as_str()).await? {
                // The flag decides whether people may sign in, and with which client id; the
                // domains are an administrator's.
                let id = |sign_in: &Option<InteractiveSignIn>| {
                    sign_in.as_ref().map(|sign_in| sign_in.client_id.clone())
                };
                if i == 0 && id(&held.sign_in) != id(&sign_in) {
                    put(store, &TrustedIssuer { sign_in, ..held }).await?;
                }
                continue;
            }
            let trusted = TrustedIssuer {
                issuer: issuer.clone(),
                algorithm: self.algorithms[i],
                jwks_uri: None,
                tenant: None,
                audience_tenant: None,
                allow_reuse: false,
                accounts: AccountResolution { just_in_time: true, ..AccountResolution::default() },
                client_documents: true,
                sign_in,
                disabled: false,
            };
            put(store, &trusted).await?;
        }
        Ok(())
    }

    /// The issuers it trusts besides those of the flags: issuers that were registered once stay
    /// over restarts.
    async fn trusted_besides(&self, store: &Store) -> Result<Vec<Issuer>> {
        let all = store.all::<TrustedIssuer>().await?.into_iter();
        let besides = all.filter(|held| !held.disabled && !self.trusted.contains(&held.issuer));
        Ok(besides.map(|held| held.issuer).collect())
    }

    /// The information for the person who started it.
    fn told(&self, args: &Guard, file: &Path) -> String {
        let (resource, issuer, scopes) = (self.resource.as_str(), &self.issuer, &self.scopes);
        let name = args.name.as_deref().unwrap_or("Guarded");
        let trusted = self.trusted.iter().map(Issuer::as_str).collect::<Vec<_>>().join(", ");
        let tools = self.rules.iter().flat_map(|rule| {
            rule.tools
                .iter()
                .map(|tool| format!("{tool} ({SCOPE} {})", rule.scopes).replace(" )", ")"))
        });
        let tools = tools.collect::<Vec<_>>().join(", ");
        let config = file.display();
        let id: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let id = id.trim_matches('-');
        let id = if id.is_empty() { "guarded" } else { id };
        let seen = self.seen.iter().fold(String::new(), |said, text| {
            said + &system::plain(text)
                + "
"
        });
        let sign_in = args.sign_in.as_ref().map_or(String::new(), |id| {
            format!(
                "\nPeople whose client has no cross-app access sign in at {}; its IT registers that with:\n\n  \
                 passavant admin client add '{name} sign-in' --id {id} --redirect-uri {issuer}/callback --jwks-uri \
                 {issuer}/jwks\n",
                self.trusted[0]
            )
        });
        format!(
            "{resource} guards {upstream}.\n{seen}\
             Tools that may be called, and the scopes each needs: {tools}.\n\
             It trusts {trusted}. Its IT lets people in with:\n\n  \
             passavant admin server add {issuer} --name '{name}'\n  \
             passavant admin resource add {resource} --server {issuer} --name '{name}' --scopes '{scopes}'\n  \
             passavant admin connection add {id} --client passavant --audience {issuer} --resource {resource} \
             --scopes '{scopes}' --everyone\n{sign_in}\n\
             Every call is on record in {journal}, and in\n\n  \
             passavant admin --config {config} --ras {NAME} audit\n",
            upstream = system::plain(&args.server()),
            journal = args.data.join("gateway").display(),
        )
    }
}

/// The algorithm of an identity provider's keys: the one that we would prefer.
async fn algorithm_of(
    outbound: &passavant_outbound::Outbound,
    found: &passavant_outbound::Discovered,
) -> Option<Algorithm> {
    let url = found.jwks_uri.clone()?;
    let answer = outbound.get(&url, found.reach_of(&url)).await.ok()?;
    let wanted = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS256];
    wanted.into_iter().find(|algorithm| {
        passavant_proto::jose::jwk::KeySet::parse(&answer.body, *algorithm).is_ok()
    })
}
