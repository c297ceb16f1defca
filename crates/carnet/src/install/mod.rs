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
    /// The bridge also where the client speaks cross-app access itself
    #[arg(long)]
    bridge: bool,
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
}

const LEDGER: &str = "installed.json";

impl Ledger {
    fn path() -> Result<PathBuf> {
        Ok(system::settings_folder()?.join(LEDGER))
    }

    fn read() -> Result<Self> {
        let path = Self::path()?;
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!("{} cannot be read\nhint: move it away; backups stay", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
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
}

impl Change {
    /// Reads `file`; a link is followed to what it names.
    fn open(file: &Path, format: Format) -> Result<Self> {
        if fs::symlink_metadata(file).is_ok() && !file.exists() {
            bail!("{} is a link to what is not there\nhint: mend or remove it", file.display());
        }
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let before = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let after = before.clone().unwrap_or_default();
        Ok(Self { file, format, before, after, entries: Vec::new() })
    }

    fn set(&mut self, path: &[&str], name: &str, value: &Value) -> Result<()> {
        let not_changed = || format!("{} was not changed", self.file.display());
        let held = edit::entries(self.format, &self.after, path).with_context(not_changed)?;
        self.after =
            edit::set(self.format, &self.after, path, name, value).with_context(not_changed)?;
        self.entries.push(Entry {
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            name: name.to_owned(),
            before: held.get(name).cloned(),
            wrote: value.clone(),
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
                Some(held) => held.wrote = entry.wrote.clone(),
                None => written.entries.push(entry.clone()),
            }
        }
        written.left = sha256(self.after.as_bytes());
        // On record before it happens: a record of a change that did not come is harmless.
        ledger.write()?;
        // The client may be running, and write its config itself.
        if fs::read_to_string(&self.file).ok() != self.before {
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
    if chosen.is_empty() {
        list(&places, &ledger);
        return Ok(());
    }
    let (client, _) = args.common.signed_in()?;
    let issuer = client.settings().idp.to_string();
    let catalog = catalog_of(&client, &args.servers).await?;
    let servers = chosen_servers(&catalog.servers, &args.servers)?;
    if servers.is_empty() {
        bail!("there is no MCP server that you may reach\nhint: `carnet servers` says why; ask IT");
    }
    let mut ledger = ledger;
    let mut failed = 0;
    for client in chosen {
        let outcome =
            install_into(client, &places, &issuer, &catalog, &servers, &args, &mut ledger);
        if let Err(error) = outcome {
            failed += 1;
            eprintln!("error: {}: {}", client.title, plain_lines(&format!("{error:#}")));
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
    let files = (client.files)(places);
    if files.is_empty() || !client.is_found(places) {
        bail!("it is not on this machine\nhint: start it once, so that it makes its config folder");
    }
    let native_servers = native_of(client, issuer, catalog, args.bridge);
    let mut changes = Vec::new();
    let mut native_used = false;
    for file in files {
        let mut change = Change::open(&file, client.format)?;
        for server in servers {
            // Programs expand placeholders in their configs: what goes into one is a resource identifier and no more.
            Resource::parse(&server.resource).map_err(|error| {
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
            let name = free_name(&held, server);
            change.set(client.path, &name, &value)?;
        }
        changes.push(change);
    }
    if let (true, Some(native)) = (native_used, &client.native)
        && let Some(registered) = catalog.native_clients.iter().find(|c| c.software == client.id)
    {
        let mut change = Change::open(&(native.settings)(places), native.format)?;
        for (path, name, value) in (native.idp)(issuer, &registered.client_id) {
            change.set(&path, name, &value)?;
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
    if let Some(home) = system::own_home() {
        env.insert("CARNET_HOME".to_owned(), home.display().to_string().into());
    }
    Ok(Bridge { command, args, env, title: server.title().to_owned() })
}

/// A name every client takes: letters, digits and hyphens, 30 at most. The one that this server has
/// already, or one that is free.
fn free_name(held: &Map<String, Value>, server: &CatalogServer) -> String {
    let is_ours = |value: &Value| {
        let text = value.to_string();
        let url = Value::from(server.resource.as_str()).to_string();
        text.contains(&url)
            && ["\"connect\"", "\"xaa\"", "\"enterpriseManaged\""].iter().any(|m| text.contains(m))
    };
    if let Some((name, _)) = held.iter().find(|(_, value)| is_ours(value)) {
        return name.clone();
    }
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
    let base = base.trim_end_matches('-').to_owned();
    if !held.contains_key(&base) {
        return base;
    }
    // One more than there are entries is free at the latest.
    let mut names = (2..=held.len() + 2).map(|n| format!("{base}-{n}"));
    names.find(|name| !held.contains_key(name)).unwrap_or(base)
}

pub(crate) fn uninstall(args: &Uninstall) -> Result<()> {
    let _lock = crate::vault::lock_installs()?;
    let mut ledger = Ledger::read()?;
    let ids: Vec<String> = by_id(&args.clients)?.iter().map(|c| c.id.to_owned()).collect();
    let ours: Vec<PathBuf> = ledger
        .files
        .iter()
        .filter(|(_, written)| args.all || ids.contains(&written.client))
        .map(|(file, _)| file.clone())
        .collect();
    if ours.is_empty() {
        println!("Carnet has written nothing there.");
        return Ok(());
    }
    let mut failed = 0;
    for file in ours {
        let Some(written) = ledger.files.get(&file).cloned() else { continue };
        match take_back(&file, &written, args.dry_run) {
            Ok(()) if args.dry_run => {}
            Ok(()) => {
                ledger.files.remove(&file);
                ledger.write()?;
            }
            Err(error) => {
                failed += 1;
                let error = plain_lines(&format!("{error:#}"));
                eprintln!("error: {} was not changed: {error}", file.display());
            }
        }
    }
    if failed > 0 {
        bail!("{failed} file{} could not be changed back", if failed == 1 { "" } else { "s" });
    }
    Ok(())
}

/// The file as it was, if nobody changed it since; otherwise as it is, without our entries.
fn take_back(file: &Path, written: &Written, dry_run: bool) -> Result<()> {
    let now = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{} is gone already.", file.display());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
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
            (Some(held), _) if *held != entry.wrote => {
                let name = plain(&entry.name);
                println!("{}: `{name}` was changed since; it stays.", file.display());
            }
            (Some(_), Some(before)) => {
                after = edit::set(format, &after, &path, &entry.name, before)?;
            }
            (Some(_), None) => after = edit::remove(format, &after, &path, &entry.name)?,
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
    }
}
