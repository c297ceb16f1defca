//! `carnet guard`: one command in front of an MCP server. It writes a config as `carnet init` would, with a
//! RAS and a gateway on one listener, and serves it.

use crate::{config::Config, serve, system};
use anyhow::{Context, Result, bail};
use carnet_proto::{
    client::GovernedResource,
    identifier::{Issuer, Resource, is_loopback},
    jwk::Algorithm,
    operation_policy::{Rule, Rules},
    scope::Scopes,
    trust::{AccountResolution, InteractiveSignIn, TrustedIssuer},
};
use carnet_store::{AuditEvent, Put, Record, Store};
use clap::Args;
use serde_json::json;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use url::Url;

/// The scope that every request needs.
const SCOPE: &str = "mcp";
/// What the RAS and the gateway are called.
const NAME: &str = "guard";

#[derive(Args)]
pub(crate) struct Guard {
    /// The MCP server itself, for instance http://127.0.0.1:3001/mcp
    #[arg(long, value_name = "URL")]
    upstream: String,
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
    /// A tool that may be called: its name, or the beginning of names with a `*`; `=SCOPE` says what
    /// it needs besides `mcp`. May be given several times. Every tool unless given
    #[arg(long = "allow", value_name = "TOOL[=SCOPE]")]
    allow: Vec<String>,
    /// Block a tool whose description changes, until `carnet admin gateway approve`
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
    /// Issuer of the authorization server; the resource's origin unless given
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Folder for keys, databases and the journal of calls
    #[arg(long, value_name = "FOLDER", default_value = "carnet-guard")]
    data: PathBuf,
    /// A certificate authority to trust beside the system's, in PEM
    #[arg(long = "extra-root", value_name = "FILE")]
    extra_roots: Vec<PathBuf>,
}

/// What was asked for, checked.
struct Plan {
    resource: Resource,
    issuer: Issuer,
    trusted: Vec<Issuer>,
    listen: SocketAddr,
    rules: Vec<Rule>,
    scopes: Scopes,
}

/// Writes the config, and serves it until the process is told to stop.
pub(crate) async fn guard(args: Guard) -> Result<()> {
    let plan = args.plan()?;
    let file = args.write(&plan)?;
    let config = Config::read(&file)?;
    let (_, place, _) = config.ras.first().context("the config has no RAS")?;
    let store =
        serve::open_store(&place.database).await.context("the database cannot be opened")?;
    plan.register(&store, &args).await?;
    let older = plan.trusted_besides(&store).await?;
    store.close().await;
    println!("{}", plan.told(&args, &file));
    for issuer in older {
        println!(
            "It also trusts {issuer}, from an earlier start or an administrator. To take that back:\n\n  \
             carnet admin --config {} --ras {NAME} trust disable {issuer}\n",
            file.display()
        );
    }
    serve::serve(config).await
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
            // At the origin itself the MCP server would be in the way.
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
                format!("--allow: `{scope}` is no scope\nhint: --allow 'note_write=notes.write'")
            })?;
            rules.push(Rule { tools: vec![tool.to_owned()], scopes, ..Rule::default() });
        }
        if rules.is_empty() {
            rules.push(Rule { tools: vec!["*".to_owned()], ..Rule::default() });
        }
        let checked =
            Rules::new(base, rules.clone()).map_err(|error| anyhow::anyhow!("--allow: {error}"))?;
        let scopes = checked.scopes();
        Ok(Plan { resource, issuer: own, trusted, listen, rules, scopes })
    }

    /// The config of this plan, anew at every start; keys and secrets stay.
    fn write(&self, plan: &Plan) -> Result<PathBuf> {
        let folder = &self.data;
        system::private_folder(folder)?;
        let entropy = system::entropy();
        for name in ["carnet.key", "carnet.admin-secret"] {
            let file = folder.join(name);
            if !file.exists() {
                system::write_private(&file, entropy.secret().expose().as_bytes(), true)?;
            }
        }
        let here = std::env::current_dir()?;
        let absolute = |file: &PathBuf| here.join(file).display().to_string();
        let admin =
            SocketAddr::from(([127, 0, 0, 1], plan.listen.port().wrapping_add(1).max(1024)));
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
        let with = |mut table: serde_json::Value| {
            if let (Some(table), Some(more)) = (table.as_object_mut(), listener.as_object()) {
                table.extend(more.clone());
            }
            table
        };
        let mut route = json!({
            "resource": plan.resource.as_str(),
            "upstream": self.upstream,
            "authorization_server": plan.issuer.as_str(),
            "require": [SCOPE],
            "tool_changes": if self.block_changed_tools { "block" } else { "flag" },
            "rule": rules,
        });
        if let Some(name) = &self.name {
            route["name"] = name.as_str().into();
        }
        let config = json!({
            "keys": {"file": "carnet.key"},
            "admin": {"listen": admin.to_string(), "secret_file": "carnet.admin-secret"},
            "outbound": {"extra_roots": self.extra_roots.iter().map(absolute).collect::<Vec<_>>()},
            "ras": [with(json!({
                "name": NAME,
                "issuer": plan.issuer.as_str(),
                "database": "sqlite:ras.db",
                "registration": self.registration,
            }))],
            "gateway": [with(json!({"name": NAME, "folder": "gateway", "route": [route]}))],
        });
        let text = format!(
            "# Written by `carnet guard` at every start. To change more than its flags do, copy this file and \
             run the copy with `carnet serve --config`.\n\n{}",
            toml::to_string(&config)?
        );
        let file = folder.join("carnet.toml");
        system::write_private(&file, text.as_bytes(), false)?;
        Ok(file)
    }
}

async fn put<R: Record>(store: &Store, record: &R) -> Result<()> {
    let now = system::clock().now();
    let there = store.by_id::<R>(&record.id()).await?.is_some();
    let (put, act) = if there { (Put::Replace, "replace") } else { (Put::Create, "create") };
    let event =
        AuditEvent::granted(format!("guard.{act} {}", R::KIND), now).with("record", record.id());
    store.put(record, put, event).await?;
    Ok(())
}

impl Plan {
    /// The MCP server and the trusted identity providers, as the flags have them. An issuer that was
    /// changed with `carnet admin` stays as it is.
    async fn register(&self, store: &Store, args: &Guard) -> Result<()> {
        let name = args.name.as_deref().unwrap_or_default();
        let governed = GovernedResource {
            resource: self.resource.clone(),
            name: name.to_owned(),
            scopes: self.scopes.clone(),
            default_scopes: [SCOPE.to_owned()].into_iter().collect(),
            descriptions: std::collections::BTreeMap::new(),
            access_token_lifetime: None,
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: false,
        };
        // What an administrator set since stays: a server that was switched off is not switched on by a restart.
        let governed = match store.by_id::<GovernedResource>(&governed.id()).await? {
            None => governed,
            Some(held) => GovernedResource {
                name: governed.name,
                scopes: governed.scopes,
                default_scopes: governed.default_scopes,
                ..held
            },
        };
        put(store, &governed).await?;
        for (i, issuer) in self.trusted.iter().enumerate() {
            let client_id = args.sign_in.clone().filter(|_| i == 0);
            let sign_in =
                client_id.map(|client_id| InteractiveSignIn { client_id, domains: Vec::new() });
            if let Some(held) = store.by_id::<TrustedIssuer>(issuer.as_str()).await? {
                // The flag says whether people may sign in, and as what; domains are an administrator's.
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
                algorithm: Algorithm::ES256,
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

    /// Whom it trusts beside those of the flags: what was told to it once is not forgotten by a restart.
    async fn trusted_besides(&self, store: &Store) -> Result<Vec<Issuer>> {
        let all = store.all::<TrustedIssuer>().await?.into_iter();
        let besides = all.filter(|held| !held.disabled && !self.trusted.contains(&held.issuer));
        Ok(besides.map(|held| held.issuer).collect())
    }

    /// What whoever started it has to know.
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
        let sign_in = args.sign_in.as_ref().map_or(String::new(), |id| {
            format!(
                "\nPeople whose client has no cross-app access sign in at {}; its IT registers that with:\n\n  \
                 carnet admin client add '{name} sign-in' --id {id} --redirect-uri {issuer}/callback --jwks-uri \
                 {issuer}/jwks\n",
                self.trusted[0]
            )
        });
        format!(
            "{resource} guards {upstream}.\n\
             Tools that may be called, and the scopes each needs: {tools}.\n\
             It trusts {trusted}. Its IT lets people in with:\n\n  \
             carnet admin server add {issuer} --name '{name}'\n  \
             carnet admin resource add {resource} --server {issuer} --name '{name}' --scopes '{scopes}'\n  \
             carnet admin connection add guarded --client carnet --audience {issuer} --resource {resource} \
             --scopes '{scopes}' --everyone\n{sign_in}\n\
             Every call is on record in {journal}, and in\n\n  \
             carnet admin --config {config} --ras {NAME} audit\n",
            upstream = args.upstream,
            journal = args.data.join("gateway").display(),
        )
    }
}
