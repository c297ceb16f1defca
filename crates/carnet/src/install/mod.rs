//! `carnet install` and `uninstall`: the MCP servers a person may reach, written into the configs of the
//! MCP clients on their machine. Native settings where a client speaks cross-app access and IT has
//! registered it; the bridge everywhere else.

mod clients;
mod edit;

use crate::{
    employee::Common,
    system::{self, Places, plain, plain_lines},
};
use anyhow::{Context, Result, bail};
use carnet_client::{Catalog, CatalogServer};
use carnet_proto::{identifier::Resource, secret::sha256};
use clap::Args;
use clients::{Bridge, CLIENTS, McpClient};
use edit::Format;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
pub(crate) struct Install {
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

#[derive(Args)]
pub(crate) struct Uninstall {
    /// MCP clients to take Carnet's entries out of
    #[arg(value_name = "CLIENT", required_unless_present = "all")]
    clients: Vec<String>,
    /// Out of every MCP client that has some
    #[arg(long, conflicts_with = "clients")]
    all: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was written where, so that it can be taken back.
#[derive(Default, Serialize, Deserialize)]
struct Ledger {
    files: BTreeMap<PathBuf, Written>,
}

/// One config file as Carnet left it.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Written {
    client: String,
    entries: Vec<Entry>,
    /// The file as it was before; `None`: there was none.
    backup: Option<PathBuf>,
    /// SHA-256 of the file as it was left.
    left: String,
    /// Somebody else has written it since the first time: it is never put back as a whole.
    #[serde(default)]
    changed_since: bool,
}

/// One entry of ours.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    path: Vec<String>,
    name: String,
    /// What stood there before.
    before: Option<Value>,
    /// What Carnet wrote.
    wrote: Value,
    /// Whose it is: the folder of the sign-in that the bridge uses.
    #[serde(default)]
    profile: Option<PathBuf>,
}

/// What stands for every server in the arguments of the bridge.
const ALL: &str = "--all";

/// Largest config, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

const LEDGER: &str = "installed.json";

impl Ledger {
    /// One for the person, whatever sign-ins they have.
    fn path() -> Result<PathBuf> {
        Ok(Places::here()?.own_config().join(LEDGER))
    }

    fn read() -> Result<Self> {
        let path = Self::path()?;
        let mut ledger = Self::read_at(&path)?.unwrap_or_default();
        // An earlier version kept one beside each sign-in, and did not say in it whose an entry is.
        ledger.of_profile(&Places::here()?.own_config());
        let own = system::settings_folder()?;
        let earlier = own.join(LEDGER);
        if earlier != path
            && let Some(mut theirs) = Self::read_at(&earlier)?
        {
            theirs.of_profile(&own);
            ledger.take(theirs);
            ledger.write()?;
            fs::remove_file(&earlier)?;
        }
        Ok(ledger)
    }

    /// Entries that say nothing of it are of this sign-in.
    fn of_profile(&mut self, profile: &Path) {
        for entry in self.files.values_mut().flat_map(|written| &mut written.entries) {
            entry.profile.get_or_insert_with(|| profile.to_owned());
        }
    }

    /// Takes over what another one holds: a file that both have written is put back as a whole by neither.
    fn take(&mut self, other: Self) {
        for (file, written) in other.files {
            let Some(held) = self.files.get_mut(&file) else {
                self.files.insert(file, written);
                continue;
            };
            held.changed_since = true;
            for entry in written.entries {
                let same = |held: &Entry| held.path == entry.path && held.name == entry.name;
                if !held.entries.iter().any(same) {
                    held.entries.push(entry);
                }
            }
        }
    }

    fn read_at(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| {
                format!("{} cannot be read\nhint: move it away; backups stay", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// What was last written into an entry.
    fn wrote(&self, file: &Path, path: &[&str], name: &str) -> Option<&Value> {
        let entries = &self.files.get(file)?.entries;
        entries.iter().find(|entry| entry.path == path && entry.name == name).map(|e| &e.wrote)
    }

    fn write(&self) -> Result<()> {
        system::write_private(&Self::path()?, serde_json::to_string_pretty(self)?.as_bytes(), false)
    }
}

/// A file with changes that are not written yet.
struct Change {
    file: PathBuf,
    format: Format,
    before: Option<String>,
    after: String,
    entries: Vec<Entry>,
    /// There were entries of ours before: what was there is nothing to go back to.
    had_ours: bool,
}

/// The text of a config; `None` where there is none. A link in somebody else's project may lead to what has no end.
fn read_config(file: &Path) -> Result<Option<String>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(there) if !there.is_file() || there.len() > LARGEST => {
            bail!("{} is no config file: not a plain file, or larger than 16 MiB", file.display());
        }
        _ => {}
    }
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(Some(text))
}

impl Change {
    /// Reads `file`; a link is followed to what it names.
    fn open(file: &Path, format: Format) -> Result<Self> {
        if fs::symlink_metadata(file).is_ok() && !file.exists() {
            bail!("{} is a link to what is not there\nhint: mend or remove it", file.display());
        }
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let before = read_config(&file)?;
        let after = before.clone().unwrap_or_default();
        Ok(Self { file, format, before, after, entries: Vec::new(), had_ours: false })
    }

    fn set(&mut self, path: &[&str], name: &str, value: &Value, ledger: &Ledger) -> Result<()> {
        let not_changed = || format!("{} was not changed", self.file.display());
        let held = edit::entries(self.format, &self.after, path).with_context(not_changed)?;
        let wrote = ledger.wrote(&self.file, path, name);
        let ours = wrote.is_some() || held.get(name).is_some_and(is_bridge);
        self.had_ours |= ours;
        // What stands in the place of somebody else's entry is wholly ours.
        let merged = edit::merged(held.get(name).filter(|_| ours), wrote, value);
        self.after =
            edit::set(self.format, &self.after, path, name, &merged).with_context(not_changed)?;
        self.entries.push(Entry {
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            name: name.to_owned(),
            // An entry of ours is never put back, whichever version or name of this program wrote it.
            before: held.get(name).filter(|_| !ours).cloned(),
            wrote: value.clone(),
            profile: Some(system::settings_folder()?),
        });
        Ok(())
    }

    fn is_change(&self) -> bool {
        self.before.as_deref().unwrap_or_default() != self.after
    }

    fn diff(&self) -> String {
        let before = self.before.as_deref().unwrap_or_default();
        let name = self.file.display().to_string();
        let diff = similar::TextDiff::from_lines(before, &self.after);
        diff.unified_diff().context_radius(3).header(&name, &name).to_string()
    }

    /// Writes the file with a backup of what was there first.
    fn write(&self, client: &str, ledger: &mut Ledger) -> Result<()> {
        let written = ledger.files.entry(self.file.clone()).or_default();
        let first = written.left.is_empty();
        let before = self.before.as_deref().unwrap_or_default();
        if !first && sha256(before.as_bytes()) != written.left {
            written.changed_since = true;
        }
        if first {
            written.changed_since = self.had_ours;
            client.clone_into(&mut written.client);
            written.backup = match &self.before {
                None => None,
                Some(text) => {
                    let backup = backup_of(&self.file);
                    system::write_private(&backup, text.as_bytes(), true)?;
                    Some(backup)
                }
            };
        }
        for entry in &self.entries {
            let held = |held: &&mut Entry| held.path == entry.path && held.name == entry.name;
            match written.entries.iter_mut().find(held) {
                // What stood there before the first time is what is put back.
                Some(held) => {
                    held.wrote = entry.wrote.clone();
                    held.profile.clone_from(&entry.profile);
                }
                None => written.entries.push(entry.clone()),
            }
        }
        written.left = sha256(self.after.as_bytes());
        // On record before it happens: a record of a change that did not come is harmless.
        ledger.write()?;
        // The client may be running, and write its config itself.
        if read_config(&self.file).ok().flatten() != self.before {
            bail!("{} has changed just now\nhint: run it again", self.file.display());
        }
        system::replace_file(&self.file, self.after.as_bytes())
    }
}

/// A name beside the file that nothing has.
fn backup_of(file: &Path) -> PathBuf {
    let named = |ending: &str| {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".before-carnet");
        name.push(ending);
        file.with_file_name(name)
    };
    let endings = std::iter::once(String::new()).chain((2..1000).map(|n| format!("-{n}")));
    let mut free = endings.map(|e| named(&e)).filter(|path| fs::symlink_metadata(path).is_err());
    free.next().unwrap_or_else(|| named(""))
}

pub(crate) async fn install(args: Install) -> Result<()> {
    let places = Places::here()?;
    let _lock = crate::vault::lock_installs()?;
    let ledger = Ledger::read()?;
    let chosen = if args.all { found(&places) } else { by_id(&args.clients)? };
    if args.file.is_some() && chosen.len() != 1 {
        bail!(
            "--file needs one client, whose format the file has\nhint: name one client, for instance `carnet install claude-code --file .mcp.json`"
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
        name: "Carnet".to_owned(),
        resource: ALL.to_owned(),
        granted: true,
        ..CatalogServer::default()
    };
    let servers =
        if args.one { vec![&whole] } else { chosen_servers(&catalog.servers, &args.servers)? };
    if servers.is_empty() {
        bail!("there is no MCP server that you may reach\nhint: `carnet servers` says why; ask IT");
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

/// Entries for a client that is not known here, as most of them write it.
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

/// The catalog; where the identity provider has none, the servers that were named by URL.
async fn catalog_of(client: &carnet_client::Client, named: &[String]) -> Result<Catalog> {
    if let Some(catalog) = client.catalog().await? {
        return Ok(catalog);
    }
    if named.is_empty() {
        bail!(
            "{} has no catalog: it is not Carnet's\nhint: name the MCP servers with --server URL",
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
                format!("there is no MCP server `{name}`\nhint: `carnet servers` lists them")
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
                format!(
                    "`{id}` is no MCP client that is known here\nhint: one of {}",
                    known.join(", ")
                )
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
        "\nInstall into some: `carnet install CLIENT…`, or `--all` that are here; `--dry-run` shows the change."
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
    let files = match &args.file {
        Some(file) => vec![std::path::absolute(file)?],
        None => (client.files)(places),
    };
    if files.is_empty() || (args.file.is_none() && !client.is_found(places)) {
        bail!("it is not on this machine\nhint: start it once, so that it makes its config folder");
    }
    let native_servers = native_of(client, issuer, catalog, !args.native);
    if args.native {
        check_native(client, issuer, catalog, servers, &native_servers)?;
    }
    if let (true, Some(commands)) =
        (args.native, client.native.as_ref().and_then(|native| native.commands))
    {
        if args.file.is_some() {
            bail!(
                "--file: it keeps the settings of its own cross-app access itself\nhint: leave --file out"
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
            // Programs expand placeholders in their configs: what goes into one is a resource identifier and no more.
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

/// Whether the client can reach the chosen servers by itself; what stands in the way, otherwise.
fn check_native(
    client: &McpClient,
    issuer: &str,
    catalog: &Catalog,
    servers: &[&CatalogServer],
    native: &[(String, String)],
) -> Result<()> {
    const BRIDGE: &str = "without --native it gets the bridge, which needs nothing";
    let Some(known) = &client.native else {
        bail!("it does not speak cross-app access itself\nhint: {BRIDGE}");
    };
    let Some(registered) = catalog.native_clients.iter().find(|c| c.software == client.id) else {
        bail!(
            "IT has not registered it\nhint: `carnet admin client add … --software {}`; {BRIDGE}",
            client.id
        );
    };
    if known.needs_https && !issuer.starts_with("https://") {
        bail!("it takes no identity provider by plain http, and {issuer} is one\nhint: {BRIDGE}");
    }
    if servers.iter().any(|server| native.iter().any(|(url, _)| *url == server.resource)) {
        return Ok(());
    }
    let listed = |server: &&CatalogServer| {
        registered.servers.iter().any(|held| held.resource == server.resource && held.granted)
    };
    if known.needs_https && servers.iter().any(listed) {
        bail!("it takes no authorization server by plain http, and theirs are\nhint: {BRIDGE}");
    }
    bail!(
        "no connection lets it reach these MCP servers\nhint: IT adds one for `{}`; {BRIDGE}",
        plain(&registered.client_id)
    );
}

/// What the person runs where the client's settings are its own to write.
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
            "# {} is not among them: it is not connected for this program.",
            plain(server.title())
        );
    }
    println!(
        "\nThe browser comes back to http://localhost:PORT/callback: IT registers it with `--redirect-uri \
         http://localhost/callback`."
    );
}

/// The servers that `client` reaches by itself, with its client id at each RAS: where IT registered it
/// and it can talk to them.
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
    for root in &common.extra_roots {
        let root = fs::canonicalize(root).with_context(|| root.display().to_string())?;
        args.extend(["--extra-roots".to_owned(), root.display().to_string()]);
    }
    let mut env = Map::new();
    // Whoever starts the bridge may not have this environment: clients pass on little of theirs.
    if let Some(home) = system::unusual_home()? {
        env.insert("CARNET_HOME".to_owned(), home.display().to_string().into());
    }
    Ok(Bridge { command, args, env, title: server.title().to_owned() })
}

/// Whether an entry leads to this MCP server, by whatever way.
fn reaches(entry: &Value, url: &str) -> bool {
    match entry {
        Value::String(text) => text == url,
        Value::Array(items) => items.iter().any(|item| reaches(item, url)),
        Value::Object(members) => members.values().any(|member| reaches(member, url)),
        _ => false,
    }
}

/// Whether an entry is one of ours: this program, with `connect`.
fn is_bridge(entry: &Value) -> bool {
    bridged(entry).is_some()
}

/// The MCP server that an entry of ours leads to.
fn bridged(entry: &Value) -> Option<&str> {
    let mut words = Vec::new();
    for name in ["command", "cmd", "args"] {
        match &entry[name] {
            Value::String(word) => words.push(word.as_str()),
            Value::Array(items) => words.extend(items.iter().filter_map(Value::as_str)),
            _ => {}
        }
    }
    let program =
        words.first().map(|program| program.rsplit(['/', '\\']).next().unwrap_or(program));
    let ours = program.is_some_and(|program| program.starts_with("carnet"))
        && words.get(1) == Some(&"connect");
    words.get(2).filter(|_| ours).copied()
}

/// Whether an entry is the client's own cross-app access.
fn is_native(entry: &Value) -> bool {
    entry["oauth"]["xaa"] == true || entry["oauth"]["enterpriseManaged"] == true
}

/// The folder of the sign-in that an entry names.
fn profile_of(entry: &Value) -> Option<String> {
    let homes = ["env", "envs", "environment"].map(|name| &entry[name]["CARNET_HOME"]);
    homes.into_iter().find_map(Value::as_str).map(str::to_owned)
}

/// A name every client takes: letters, digits and hyphens, 30 at most. The one that this server has
/// already, or one that is free.
fn free_name(held: &Map<String, Value>, server: &CatalogServer) -> String {
    let profile = system::unusual_home().ok().flatten();
    let is_ours = |value: &Value| {
        let home = profile_of(value);
        let same = home.as_deref() == profile.as_deref().and_then(Path::to_str);
        let native = !is_bridge(value) && is_native(value);
        reaches(value, &server.resource) && (native || (is_bridge(value) && same))
    };
    if let Some((name, _)) = held.iter().find(|(_, value)| is_ours(value)) {
        return name.clone();
    }
    let base = name_of(server);
    if !held.contains_key(&base) {
        return base;
    }
    // One more than there are entries is free at the latest.
    let mut names = (2..=held.len() + 2).map(|n| format!("{base}-{n}"));
    names.find(|name| !held.contains_key(name)).unwrap_or(base)
}

/// A name for a server that every client takes.
pub(crate) fn name_of(server: &CatalogServer) -> String {
    let mut base: String = server
        .title()
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect::<String>()
        .split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    base.truncate(26);
    let base = base.trim_end_matches('-');
    let begins_well = base.starts_with(|c: char| c.is_ascii_lowercase());
    let reserved =
        ["", "workspace", "claude-in-chrome"].contains(&base) || base.starts_with("filesystem");
    let base = if begins_well && !reserved { base.to_owned() } else { format!("mcp-{base}") };
    base.trim_end_matches('-').to_owned()
}

pub(crate) fn uninstall(args: &Uninstall) -> Result<()> {
    let _lock = crate::vault::lock_installs()?;
    let mut ledger = Ledger::read()?;
    let ids: Vec<String> = by_id(&args.clients)?.iter().map(|c| c.id.to_owned()).collect();
    let own = system::settings_folder()?;
    // Those of a sign-in whose folder is gone, as a demo's, are nobody else's to take out.
    find_unrecorded(&mut ledger, &args.clients, &own)?;
    let is_ours = |entry: &Entry| {
        entry.profile.as_ref().is_none_or(|profile| *profile == own || !profile.is_dir())
    };
    let chosen = |written: &Written| args.all || ids.contains(&written.client);
    let mut others: Vec<PathBuf> = Vec::new();
    let mut files = Vec::new();
    for (file, written) in ledger.files.iter().filter(|(_, written)| chosen(written)) {
        if written.entries.iter().any(is_ours) {
            files.push(file.clone());
        }
        let theirs = written.entries.iter().filter(|entry| !is_ours(entry));
        others.extend(theirs.filter_map(|entry| entry.profile.clone()));
    }
    if files.is_empty() && others.is_empty() {
        println!("Carnet has written nothing there.");
        return Ok(());
    }
    let mut failed = 0;
    for file in files {
        let Some(written) = ledger.files.get(&file).cloned() else { continue };
        let (ours, theirs): (Vec<Entry>, Vec<Entry>) =
            written.entries.iter().cloned().partition(is_ours);
        // The file as it was has nothing of the other sign-in's either.
        let changed_since = written.changed_since || !theirs.is_empty();
        let part = Written { entries: ours, changed_since, ..written.clone() };
        match take_back(&file, &part, args.dry_run) {
            Ok(()) if args.dry_run => {}
            Ok(()) => {
                if theirs.is_empty() {
                    ledger.files.remove(&file);
                } else {
                    let left = read_config(&file)?.unwrap_or_default();
                    let left = sha256(left.as_bytes());
                    let rest = Written { entries: theirs, left, ..written };
                    ledger.files.insert(file, rest);
                }
                ledger.write()?;
            }
            Err(error) => {
                failed += 1;
                let error = plain_lines(&system::told(&error));
                eprintln!("error: {} was not changed: {error}", file.display());
            }
        }
    }
    others.sort();
    others.dedup();
    for other in others {
        println!(
            "Entries of another sign-in stay; `CARNET_HOME={} carnet uninstall --all` takes them out.",
            system::quoted(&other.display().to_string())
        );
    }
    if failed > 0 {
        bail!("{failed} file{} could not be changed back", if failed == 1 { "" } else { "s" });
    }
    Ok(())
}

/// Entries of this sign-in's bridge that are on no record: the record was lost, or somebody copied them.
fn find_unrecorded(ledger: &mut Ledger, named: &[String], own: &Path) -> Result<()> {
    let places = Places::here()?;
    let usual = system::unusual_home()?.is_none();
    for client in CLIENTS.iter().filter(|c| named.is_empty() || named.iter().any(|id| c.id == id)) {
        for file in (client.files)(&places) {
            let file = fs::canonicalize(&file).unwrap_or(file);
            if ledger.files.contains_key(&file) {
                continue;
            }
            let Ok(Some(text)) = read_config(&file) else { continue };
            // One that cannot be read has nothing that could be taken out.
            let Ok(held) = edit::entries(client.format, &text, client.path) else { continue };
            let ours = |entry: &Value| match profile_of(entry) {
                Some(home) => Path::new(&home) == own,
                None => usual,
            };
            let found = held.iter().filter(|(_, entry)| is_bridge(entry) && ours(entry));
            let entries: Vec<Entry> = found
                .map(|(name, entry)| Entry {
                    path: client.path.iter().map(|key| (*key).to_owned()).collect(),
                    name: name.clone(),
                    before: None,
                    wrote: entry.clone(),
                    profile: Some(own.to_owned()),
                })
                .collect();
            if !entries.is_empty() {
                let client = client.id.to_owned();
                let written =
                    Written { client, entries, changed_since: true, ..Written::default() };
                ledger.files.insert(file, written);
            }
        }
    }
    Ok(())
}

/// Takes out what was installed from a sign-in that ends: a demo's.
pub(crate) fn take_out(profile: &Path) -> Result<()> {
    let _lock = crate::vault::lock_installs()?;
    // As it is written in an entry, however the folder for temporary files is spelled.
    let profile = &fs::canonicalize(profile).unwrap_or_else(|_| profile.to_owned());
    let mut ledger = Ledger::read()?;
    let mine = |entry: &Entry| entry.profile.as_deref() == Some(profile.as_path());
    let files: Vec<PathBuf> = ledger
        .files
        .iter()
        .filter(|(_, written)| written.entries.iter().any(mine))
        .map(|(file, _)| file.clone())
        .collect();
    for file in files {
        let Some(written) = ledger.files.get(&file).cloned() else { continue };
        let (ours, theirs): (Vec<Entry>, Vec<Entry>) =
            written.entries.iter().cloned().partition(mine);
        let changed_since = written.changed_since || !theirs.is_empty();
        take_back(&file, &Written { entries: ours, changed_since, ..written.clone() }, false)?;
        if theirs.is_empty() {
            ledger.files.remove(&file);
        } else {
            let left = sha256(read_config(&file)?.unwrap_or_default().as_bytes());
            ledger.files.insert(file, Written { entries: theirs, left, ..written });
        }
        ledger.write()?;
    }
    Ok(())
}

/// The file as it was, if nobody changed it since; otherwise as it is, without our entries.
fn take_back(file: &Path, written: &Written, dry_run: bool) -> Result<()> {
    let Some(now) = read_config(file)? else {
        println!("{} is gone already.", file.display());
        return Ok(());
    };
    let untouched = !written.changed_since && sha256(now.as_bytes()) == written.left;
    let before = match &written.backup {
        Some(backup) if untouched => fs::read_to_string(backup).ok(),
        _ => None,
    };
    if untouched && written.backup.is_none() {
        if dry_run {
            println!("{} would be removed: Carnet made it.", file.display());
        } else {
            fs::remove_file(file)?;
            println!("{} is removed: Carnet had made it.", file.display());
        }
        return Ok(());
    }
    let whole = before.is_some();
    let after = match before {
        Some(before) => before,
        None => without_ours(file, &now, written)?,
    };
    if dry_run {
        let name = file.display().to_string();
        let diff = similar::TextDiff::from_lines(&now, &after);
        print!("{}", plain_lines(&diff.unified_diff().header(&name, &name).to_string()));
        return Ok(());
    }
    if after == now {
        // A copy of what is there still.
        if let Some(backup) = &written.backup
            && read_config(backup).ok().flatten().as_deref() == Some(now.as_str())
        {
            let _ = fs::remove_file(backup);
        }
        println!("{}: nothing of Carnet's is in it.", file.display());
        return Ok(());
    }
    system::replace_file(file, after.as_bytes())?;
    match &written.backup {
        Some(backup) if whole => {
            // It has served; the person may have removed it.
            let _ = fs::remove_file(backup);
            println!("{} is as it was without Carnet.", file.display());
        }
        backup => {
            println!(
                "{}: Carnet's entries are taken out; what else has changed since stays.",
                file.display()
            );
            if let Some(backup) = backup.as_ref().filter(|backup| backup.exists()) {
                println!("  As it was before Carnet: {}", backup.display());
            }
        }
    }
    Ok(())
}

/// A file without our entries, and with what stood in their places; an entry that somebody has changed
/// since is theirs.
fn without_ours(file: &Path, now: &str, written: &Written) -> Result<String> {
    let client = CLIENTS.iter().find(|client| client.id == written.client);
    let client = client.context("it was written by another version")?;
    let mut after = now.to_owned();
    for entry in &written.entries {
        let path: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        let format = match (&client.native, path == client.path) {
            (Some(native), false) => native.format,
            _ => client.format,
        };
        let held = edit::entries(format, &after, &path)?;
        match (held.get(&entry.name), &entry.before) {
            (None, _) => {}
            // Ours as long as it starts this program; what was tuned in it goes with it.
            (Some(held), _) if *held != entry.wrote && !is_bridge(held) => {
                let name = plain(&entry.name);
                println!("{}: `{name}` was changed since; it stays.", file.display());
            }
            (Some(_), Some(before)) => {
                after = edit::set(format, &after, &path, &entry.name, before)?;
            }
            (Some(_), None) => after = edit::remove(format, &after, &path, &entry.name)?,
        }
        // The same entry under a name that somebody gave it since.
        let Some(url) = bridged(&entry.wrote) else { continue };
        let same = |held: &Value| {
            bridged(held) == Some(url) && profile_of(held) == profile_of(&entry.wrote)
        };
        let held = edit::entries(format, &after, &path)?;
        for (name, _) in held.iter().filter(|(_, held)| same(held)) {
            after = edit::remove(format, &after, &path, name)?;
        }
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(name: &str) -> CatalogServer {
        CatalogServer {
            name: name.to_owned(),
            resource: "https://mcp.example/mcp".to_owned(),
            granted: true,
            ..CatalogServer::default()
        }
    }

    #[test]
    fn names_are_such_as_every_client_takes() {
        let empty = Map::new();
        for (title, name) in [
            ("Canvas", "canvas"),
            ("Acme's Big_Canvas (prod)", "acme-s-big-canvas-prod"),
            ("7zip", "mcp-7zip"),
            ("workspace", "mcp-workspace"),
            ("日本", "mcp"),
            ("", "mcp-example-mcp"),
            ("A very long name that no client would take as it is", "a-very-long-name-that-no-c"),
        ] {
            assert_eq!(free_name(&empty, &server(title)), name, "{title}");
        }
        let mut held = Map::new();
        held.insert("canvas".to_owned(), json!({"command": "other"}));
        assert_eq!(free_name(&held, &server("Canvas")), "canvas-2", "someone else's entry stays");
        held.insert(
            "mine".to_owned(),
            json!({"command": "carnet", "args": ["connect", "https://mcp.example/mcp"]}),
        );
        assert_eq!(free_name(&held, &server("Canvas")), "mine", "the entry that is ours already");
        held.insert(
            "mine".to_owned(),
            json!({"command": "carnet", "env": {"CARNET_HOME": "/other"},
            "args": ["connect", "https://mcp.example/mcp"]}),
        );
        assert_eq!(free_name(&held, &server("Canvas")), "canvas-2", "another sign-in's");
    }
}
