//! `passavant install` and `uninstall`: writes the MCP servers that a person may reach into the
//! configs of the MCP clients on their machine. Native settings are used if a client has cross-app
//! access and IT has registered it; otherwise the bridge.

mod clients;
mod edit;
mod entry;
mod ledger;
mod uninstall;

pub use entry::name_of;
pub use uninstall::{Uninstall, take_out, uninstall};

use crate::employee::Common;
use anyhow::{Context, Result, bail};
use clap::Args;
use clients::{Bridge, CLIENTS, McpClient};
use entry::{ALL, bridged, free_name, is_bridge, profile_of, reaches};
use ledger::{Change, Ledger};
use passavant_client::{Catalog, CatalogServer};
use passavant_host as system;
use passavant_host::{Places, plain, plain_lines};
use passavant_proto::identifier::Resource;
use serde_json::{Map, Value};
use std::{fs, path::PathBuf};

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
pub struct Install {
    /// MCP clients to install into; none: list those on this machine
    #[arg(value_name = "CLIENT")]
    clients: Vec<String>,
    /// Into every MCP client found
    #[arg(long, conflicts_with = "clients")]
    all: bool,
    /// Only this MCP server, by name or URL; may be given several times; all you may reach unless given
    #[arg(long = "server", value_name = "NAME|URL")]
    servers: Vec<String>,
    /// The client's own settings instead of the bridge, where it speaks cross-app access itself and IT has registered it
    #[arg(long)]
    native: bool,
    /// One entry for all of your MCP servers, whose tools have names like `notes__search`; it follows the catalog
    #[arg(long, conflicts_with_all = ["servers", "native"])]
    one: bool,
    /// Replace an entry of somebody else's for the same MCP server
    #[arg(long)]
    force: bool,
    /// Into this file instead of the client's own, in the client's format: a project's config, for instance
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    file: Option<PathBuf>,
    /// Write nothing: print the entries, for a client that is not known here
    #[arg(long, value_name = "FORM", value_parser = ["json", "toml", "command"], conflicts_with_all = ["all", "file", "dry_run"])]
    print: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

pub async fn install(args: Install) -> Result<()> {
    let places = Places::here()?;
    let _lock = crate::vault::lock_installs()?;
    let ledger = Ledger::read()?;
    let chosen = if args.all { found(&places) } else { by_id(&args.clients)? };
    if args.file.is_some() && chosen.len() != 1 {
        bail!(
            "--file needs one client, whose format the file has\nhint: name one client, for instance `passavant install claude-code --file .mcp.json`"
        );
    }
    if chosen.is_empty() && args.print.is_none() {
        list(&places, &ledger);
        return Ok(());
    }
    let (client, _) = args.common.signed_in()?;
    let issuer = client.settings().idp.to_string();
    let catalog = catalog_of(&client, &args.servers).await?;
    let whole = CatalogServer {
        name: "Passavant".to_owned(),
        resource: ALL.to_owned(),
        granted: true,
        ..CatalogServer::default()
    };
    let servers =
        if args.one { vec![&whole] } else { chosen_servers(&catalog.servers, &args.servers)? };
    if servers.is_empty() {
        bail!(
            "there is no MCP server that you may reach\nhint: `passavant servers` says why; ask IT"
        );
    }
    if let Some(form) = &args.print {
        return print_entries(form, &servers, &args.common);
    }
    let mut ledger = ledger;
    let mut failed = 0;
    for client in chosen {
        let outcome =
            install_into(client, &places, &issuer, &catalog, &servers, &args, &mut ledger);
        if let Err(error) = outcome {
            failed += 1;
            eprintln!("error: {}: {}", client.title, plain_lines(&system::told(&error)));
        }
    }
    if failed > 0 {
        bail!(
            "{failed} MCP client{} could not be installed into",
            if failed == 1 { "" } else { "s" }
        );
    }
    Ok(())
}

/// Prints entries for an unknown client, in the most common format.
fn print_entries(form: &str, servers: &[&CatalogServer], common: &Common) -> Result<()> {
    let mut entries = Map::new();
    for server in servers {
        let name = free_name(&entries, server);
        let bridge = bridge_to(server, common)?;
        let mut entry = serde_json::json!({"command": bridge.command, "args": bridge.args});
        if !bridge.env.is_empty() {
            entry["env"] = Value::Object(bridge.env);
        }
        entries.insert(name, entry);
    }
    match form {
        "json" => println!("{}", system::json_text(&serde_json::json!({"mcpServers": entries}))?),
        "toml" => print!("{}", toml::to_string(&serde_json::json!({"mcp_servers": entries}))?),
        _ => {
            for entry in entries.values() {
                let text = |value: &Value| system::quoted(value.as_str().unwrap_or_default());
                let env = entry["env"].as_object().into_iter().flatten();
                let env = env.map(|(name, value)| format!("{name}={}", text(value)));
                let args = entry["args"].as_array().into_iter().flatten().map(text);
                let words: Vec<String> = env.chain([text(&entry["command"])]).chain(args).collect();
                println!("{}", words.join(" "));
            }
        }
    }
    Ok(())
}

/// The catalog. If the identity provider has none, the servers that were given by URL.
async fn catalog_of(client: &passavant_client::Client, named: &[String]) -> Result<Catalog> {
    if let Some(catalog) = client.catalog().await? {
        return Ok(catalog);
    }
    if named.is_empty() {
        bail!(
            "{} has no catalog: it is not a Passavant identity provider\n\
             hint: name the MCP servers with --server URL",
            client.settings().idp
        );
    }
    let servers = named.iter().map(|url| CatalogServer {
        resource: url.clone(),
        granted: true,
        ..CatalogServer::default()
    });
    Ok(Catalog { servers: servers.collect(), ..Catalog::default() })
}

fn chosen_servers<'a>(
    all: &'a [CatalogServer],
    named: &[String],
) -> Result<Vec<&'a CatalogServer>> {
    if named.is_empty() {
        return Ok(all.iter().filter(|server| server.granted).collect());
    }
    named
        .iter()
        .map(|name| {
            let is_named = |server: &&CatalogServer| {
                server.resource == *name || server.name.eq_ignore_ascii_case(name)
            };
            let server = all.iter().find(is_named).with_context(|| {
                format!("there is no MCP server `{name}`\nhint: `passavant servers` lists them")
            })?;
            if !server.granted {
                let why = server.explanation.as_deref().unwrap_or("not connected");
                bail!("{} is refused by the company's policy: {why}. Ask IT.", server.title());
            }
            Ok(server)
        })
        .collect()
}

fn found(places: &Places) -> Vec<&'static McpClient> {
    CLIENTS.iter().filter(|client| client.is_found(places)).collect()
}

fn by_id(ids: &[String]) -> Result<Vec<&'static McpClient>> {
    ids.iter()
        .map(|id| {
            CLIENTS.iter().find(|client| client.id == id).with_context(|| {
                let known: Vec<&str> = CLIENTS.iter().map(|client| client.id).collect();
                format!("`{id}` is not a known MCP client\nhint: one of {}", known.join(", "))
            })
        })
        .collect()
}

fn list(places: &Places, ledger: &Ledger) {
    let mut rows = vec![["CLIENT", "NAME", "HERE", "INSTALLED", "CONFIG"].map(str::to_owned)];
    for client in &CLIENTS {
        let here = client.is_found(places);
        let files = (client.files)(places);
        let held: usize = ledger
            .files
            .values()
            .filter(|written| written.client == client.id)
            .map(|written| written.entries.len())
            .sum();
        let installed = if held == 0 {
            String::new()
        } else {
            format!("{held} {}", if held == 1 { "entry" } else { "entries" })
        };
        let file = files.first().map(|file| file.display().to_string()).unwrap_or_default();
        let here = if here { "yes" } else { "no" };
        rows.push([client.id, client.title, here, &installed, &file].map(str::to_owned));
    }
    print!("{}", system::table(&rows));
    println!(
        "\nInstall into some: `passavant install CLIENT…`, or `--all` that are here; `--dry-run` shows the change."
    );
}

fn install_into(
    client: &McpClient,
    places: &Places,
    issuer: &str,
    catalog: &Catalog,
    servers: &[&CatalogServer],
    args: &Install,
    ledger: &mut Ledger,
) -> Result<()> {
    let files = files_of(client, places, args, ledger)?;
    let native_servers = native_of(client, issuer, catalog, !args.native);
    if args.native {
        check_native(client, issuer, catalog, servers, &native_servers)?;
    }
    if let (true, Some(commands)) =
        (args.native, client.native.as_ref().and_then(|native| native.commands))
    {
        if args.file.is_some() {
            bail!(
                "--file: this MCP client keeps the settings of its own cross-app access itself\n\
                 hint: leave --file out"
            );
        }
        print_commands(client, issuer, catalog, (servers, &native_servers), commands);
        return Ok(());
    }
    let mut changes = Vec::new();
    let mut native_used = false;
    for file in files {
        let mut change = Change::open(&file, client.format)?;
        for server in servers {
            // Programs expand placeholders in their configs: only a valid resource identifier is
            // written into one.
            let checked =
                if args.one { Ok(()) } else { Resource::parse(&server.resource).map(drop) };
            checked.map_err(|error| {
                let named = system::plain_url(&server.resource);
                anyhow::anyhow!(
                    "the company's catalog names the MCP server `{named}`, which {error}"
                )
            })?;
            let native = native_servers.iter().find(|(url, _)| *url == server.resource);
            let value = match (native, &client.native) {
                (Some((url, client_id)), Some(native)) => {
                    native_used = true;
                    (native.entry)(url, client_id)
                }
                _ => (client.entry)(&bridge_to(server, &args.common)?),
            };
            let held = edit::entries(change.format, &change.after, client.path)
                .with_context(|| format!("{} was not changed", change.file.display()))?;
            let others: Vec<&String> = held
                .iter()
                .filter(|(_, held)| {
                    !args.one && reaches(held, &server.resource) && !is_bridge(held)
                })
                .map(|(name, _)| name)
                .collect();
            if let (Some(other), false) = (others.first(), args.force) {
                println!(
                    "{}: `{}` reaches {} already; two entries would show every tool twice. `--force` replaces it.",
                    client.title,
                    plain(other),
                    system::plain_url(&server.resource)
                );
                continue;
            }
            let name = match others.first() {
                Some(other) => (*other).clone(),
                None => free_name(&held, server),
            };
            change.set(client.path, &name, &value, ledger)?;
        }
        if args.one {
            take_out_single(&mut change, client.path)?;
        }
        changes.push(change);
    }
    if let (true, Some(native)) = (native_used, &client.native)
        && let Some(registered) = catalog.native_clients.iter().find(|c| c.software == client.id)
    {
        let mut change = Change::open(&(native.settings)(places), native.format)?;
        for (path, name, value) in (native.idp)(issuer, &registered.client_id) {
            change.set(&path, name, &value, ledger)?;
        }
        changes.push(change);
    }
    let mut changed = false;
    for change in changes.iter().filter(|change| change.is_change()) {
        changed = true;
        if args.dry_run {
            print!("{}", plain_lines(&change.diff()));
        } else {
            change.write(client.id, ledger)?;
            println!("{}: wrote {}.", client.title, change.file.display());
        }
    }
    if !changed {
        println!("{}: nothing to change.", client.title);
    } else if !args.dry_run {
        println!("  {}.", client.restart);
        if let (true, Some(native)) = (native_used, &client.native) {
            println!("  Then {}.", native.then);
        }
    }
    Ok(())
}

/// The config files of a client to write.
fn files_of(
    client: &McpClient,
    places: &Places,
    args: &Install,
    ledger: &mut Ledger,
) -> Result<Vec<PathBuf>> {
    let files = match &args.file {
        Some(file) => vec![std::path::absolute(file)?],
        None => (client.files)(places),
    };
    if files.is_empty() || (args.file.is_none() && !client.is_found(places)) {
        bail!("it is not on this machine\nhint: start it once, so that it makes its config folder");
    }
    if !args.dry_run {
        for file in &files {
            ledger.take_over(file)?;
        }
    }
    Ok(files)
}

/// Removes entries of this sign-in's bridge for single servers: with an entry for all servers,
/// every tool would appear twice.
fn take_out_single(change: &mut Change, path: &[&str]) -> Result<()> {
    let profile = system::unusual_home()?;
    let own = profile.as_deref().and_then(std::path::Path::to_str);
    let single = |entry: &Value| {
        bridged(entry).is_some_and(|url| url != ALL) && profile_of(entry).as_deref() == own
    };
    let held = edit::entries(change.format, &change.after, path)?;
    for (name, _) in held.iter().filter(|(_, entry)| single(entry)) {
        change.remove(path, name)?;
    }
    Ok(())
}

/// Checks that the client can reach the chosen servers natively. The error says what prevents it.
fn check_native(
    client: &McpClient,
    issuer: &str,
    catalog: &Catalog,
    servers: &[&CatalogServer],
    native: &[(String, String)],
) -> Result<()> {
    const BRIDGE: &str = "without --native it gets the bridge, which works without this";
    let Some(known) = &client.native else {
        bail!("it does not speak cross-app access itself\nhint: {BRIDGE}");
    };
    let Some(registered) = catalog.native_clients.iter().find(|c| c.software == client.id) else {
        bail!(
            "IT has not registered it\nhint: `passavant admin client add … --software {}`; {BRIDGE}",
            client.id
        );
    };
    if known.needs_https && !issuer.starts_with("https://") {
        bail!(
            "it accepts only https for the identity provider, and {issuer} uses http\n\
             hint: {BRIDGE}"
        );
    }
    if servers.iter().any(|server| native.iter().any(|(url, _)| *url == server.resource)) {
        return Ok(());
    }
    let listed = |server: &&CatalogServer| {
        registered.servers.iter().any(|held| held.resource == server.resource && held.granted)
    };
    if known.needs_https && servers.iter().any(listed) {
        bail!(
            "it accepts only https for authorization servers, and those of these MCP servers use \
             http\n\
             hint: {BRIDGE}"
        );
    }
    bail!(
        "no connection lets it reach these MCP servers\nhint: IT adds one for `{}`; {BRIDGE}",
        plain(&registered.client_id)
    );
}

/// Prints the commands to run for a client that writes its settings itself.
fn print_commands(
    client: &McpClient,
    issuer: &str,
    catalog: &Catalog,
    (servers, native): (&[&CatalogServer], &[(String, String)]),
    commands: fn(&str, &str, &[(String, &str, &str)]) -> String,
) {
    let registered = catalog.native_clients.iter().find(|c| c.software == client.id);
    let id = registered.map_or("CLIENT_ID", |registered| registered.client_id.as_str());
    let empty = Map::new();
    let named: Vec<(String, &str, &str)> = servers
        .iter()
        .filter_map(|server| {
            let (url, own) = native.iter().find(|(url, _)| *url == server.resource)?;
            Some((free_name(&empty, server), url.as_str(), own.as_str()))
        })
        .collect();
    println!(
        "{}: it keeps its own settings. Run, with the secrets that IT gave you:\n",
        client.title
    );
    print!("{}", plain_lines(&commands(issuer, id, &named)));
    for server in servers.iter().filter(|server| named.iter().all(|n| n.1 != server.resource)) {
        println!(
            "# {} is left out: no connection allows this MCP client to use it.",
            plain(server.title())
        );
    }
    println!(
        "\nThe browser comes back to http://localhost:PORT/callback: IT registers it with `--redirect-uri \
         http://localhost/callback`."
    );
}

/// The servers that `client` reaches natively, with its client id at each RAS. IT has to have
/// registered the client.
fn native_of(
    client: &McpClient,
    issuer: &str,
    catalog: &Catalog,
    bridge: bool,
) -> Vec<(String, String)> {
    let Some(native) = client.native.as_ref().filter(|_| !bridge) else { return Vec::new() };
    let secure = |url: &str| !native.needs_https || url.starts_with("https://");
    if !secure(issuer) {
        return Vec::new();
    }
    let registered = catalog.native_clients.iter().filter(|c| c.software == client.id);
    registered
        .flat_map(|registered| &registered.servers)
        .filter(|server| server.granted && secure(&server.authorization_server))
        .filter_map(|server| Some((server.resource.clone(), server.ras_client_id.clone()?)))
        .collect()
}

fn bridge_to(server: &CatalogServer, common: &Common) -> Result<Bridge> {
    let command = system::own_program()?;
    let mut args = vec!["connect".to_owned(), server.resource.clone()];
    for root in system::extra_roots(&common.extra_roots) {
        let root = fs::canonicalize(&root).with_context(|| root.display().to_string())?;
        args.extend(["--extra-roots".to_owned(), root.display().to_string()]);
    }
    let mut env = Map::new();
    // The bridge may be started without this environment: clients pass on few variables.
    if let Some(home) = system::unusual_home()? {
        env.insert("PASSAVANT_HOME".to_owned(), home.display().to_string().into());
    }
    Ok(Bridge { command, args, env, title: server.title().to_owned() })
}
