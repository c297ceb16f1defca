//! `passavant connect --all`: one MCP server on standard input and output for all MCP servers that
//! the person may reach. It offers their tools under `server__tool` names; the list follows changes
//! of the company's catalog and of the servers. It offers only tools: for prompts, resources and
//! requests from a server, the server needs an entry of its own.

use crate::{
    employee::mcp::{own_words, readable, tools_of},
    install::name_of,
};
use anyhow::Result;
use passavant_client::{CatalogServer, Client};
use passavant_host::plain_lines;
use passavant_host::shutdown_signal;
use passavant_proto::secret::sha256;
use rmcp::{
    ClientHandler, ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::{
        NotificationContext, Peer, RequestContext, RunningService, ServerInitializeError,
        ServiceError,
    },
    transport::stdio,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often the catalog is read.
const CATALOG: Duration = Duration::from_mins(1);
/// How long the first list of tools waits for servers that have not answered yet.
const PATIENCE: Duration = Duration::from_secs(15);
/// Shortest and longest pause between two attempts to reach a server.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(2));
/// Longest name of a tool: hosts accept 64 characters and prepend `mcp__passavant__`.
const LONGEST: usize = 50;
/// Shortest time between two lists of one server's tools, however often it announces changes.
const LISTS: Duration = Duration::from_secs(2);
/// How long a server may take to start a session or list its tools. The person may have to be asked
/// in the browser.
const ANSWERS: Duration = Duration::from_mins(5);
/// How long sessions may take to end, and renewals in progress to finish.
const ENDS: Duration = Duration::from_secs(3);

/// The server that the agent sees. Cheap to clone.
#[derive(Clone)]
struct All {
    client: Client,
    servers: Arc<Mutex<BTreeMap<String, Server>>>,
    /// The list of tools has changed.
    changed: Arc<Notify>,
    /// Counts events after which a list may be complete.
    settled: watch::Sender<u64>,
    /// The catalog has been read.
    known: watch::Sender<bool>,
    /// Number of tasks that keep a session.
    kept: watch::Sender<usize>,
}

/// One such task, counted until this is dropped.
struct Keeping(watch::Sender<usize>);

impl Keeping {
    fn begun(kept: &watch::Sender<usize>) -> Self {
        kept.send_modify(|kept| *kept += 1);
        Self(kept.clone())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.send_modify(|kept| *kept -= 1);
    }
}

/// One of the servers behind it, by its URL.
struct Server {
    /// The prefix of its tools.
    prefix: String,
    title: String,
    state: State,
    /// Ends the session with this server.
    stop: CancellationToken,
}

enum State {
    /// Contacted, without a response so far.
    Asked(Instant),
    /// It responds.
    Up { peer: Peer<RoleClient>, tools: Vec<Offered> },
    /// It does not respond, for this reason.
    Down(String),
}

/// A tool as the agent sees it, with the name that its server uses.
struct Offered {
    tool: Tool,
    own_name: String,
}

/// Is notified when a server's tools change.
#[derive(Clone)]
struct Watch(Arc<Notify>);

impl ClientHandler for Watch {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.notify_one();
    }
}

pub async fn connect_all(client: Client) -> Result<()> {
    let all = All {
        client,
        servers: Arc::default(),
        changed: Arc::default(),
        settled: watch::channel(0).0,
        known: watch::channel(false).0,
        kept: watch::channel(0).0,
    };
    let catalog = tokio::spawn(all.clone().follow_catalog());
    let running = all.clone().serve(stdio()).await;
    let running = match running {
        Ok(running) => running,
        // The agent disconnected before it had initialized.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => {
            anyhow::bail!("the MCP client ended the session: {}", plain_lines(&error.to_string()))
        }
    };
    let agent = running.peer().clone();
    let changed = Arc::clone(&all.changed);
    let teller = tokio::spawn(async move {
        loop {
            changed.notified().await;
            // Several servers change at once: send one notification for all of them.
            sleep(Duration::from_millis(200)).await;
            let _ = agent.notify_tool_list_changed().await;
        }
    });
    let ended = running.cancellation_token();
    let stop = async {
        // If signals cannot be received, the end of input still ends the bridge.
        match shutdown_signal() {
            Ok(told) => told.await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = running.waiting() => {}
        () = stop => ended.cancel(),
    }
    catalog.abort();
    teller.abort();
    let _ = timeout(ENDS, all.end()).await;
    let _ = timeout(ENDS, all.client.settle()).await;
    Ok(())
}

impl All {
    fn servers(&self) -> MutexGuard<'_, BTreeMap<String, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the catalog repeatedly, because servers are added and removed.
    async fn follow_catalog(self) {
        loop {
            match self.client.catalog().await {
                Ok(Some(catalog)) => {
                    let granted = catalog.servers.into_iter().filter(|server| server.granted);
                    self.take(granted.collect());
                    self.known.send_replace(true);
                }
                Ok(None) => {
                    eprintln!(
                        "passavant: {} has no catalog, because it is not a Passavant identity \
                         provider; install each MCP server by its URL",
                        self.client.settings().idp
                    );
                    self.known.send_replace(true);
                    return;
                }
                // Servers that are connected stay: the company decides about every call anew
                // anyway.
                Err(error) => {
                    eprintln!(
                        "passavant: the catalog cannot be read: {}",
                        plain_lines(&error.to_string())
                    );
                    self.known.send_replace(true);
                }
            }
            sleep(CATALOG).await;
        }
    }

    /// Starts sessions with new servers, and ends those with removed ones.
    fn take(&self, granted: Vec<CatalogServer>) {
        let all = granted.clone();
        let mut held = self.servers();
        let before = held.len();
        held.retain(|url, server| {
            let stays = granted.iter().any(|granted| granted.resource == *url);
            if !stays {
                server.stop.cancel();
            }
            stays
        });
        let mut changes = held.len() != before;
        for server in granted {
            if held.contains_key(&server.resource) {
                continue;
            }
            changes = true;
            let prefix = prefix_of(&server, &all);
            let (title, url) = (server.title().to_owned(), server.resource.clone());
            let stop = CancellationToken::new();
            tokio::spawn(self.clone().keep(url.clone(), stop.clone()));
            held.insert(url, Server { prefix, title, state: State::Asked(Instant::now()), stop });
        }
        drop(held);
        if changes {
            self.changed.notify_one();
        }
    }

    /// Keeps a session with one server for as long as it is in the catalog.
    async fn keep(self, url: String, stop: CancellationToken) {
        let _keeping = Keeping::begun(&self.kept);
        let mut wait = AGAIN.0;
        while !stop.is_cancelled() {
            let watch = Watch(Arc::default());
            let opened = tokio::select! {
                opened = timeout(ANSWERS, self.open(&url, watch.clone())) => opened,
                () = stop.cancelled() => return,
            };
            match opened.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
                Ok(service) => {
                    wait = AGAIN.0;
                    self.stay(&url, service, &watch, &stop).await;
                }
                Err(why) => self.settle(&url, State::Down(why)),
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    async fn open(
        &self,
        url: &str,
        watch: Watch,
    ) -> Result<RunningService<RoleClient, Watch>, String> {
        self.client.access(url).await.map_err(|error| error.to_string())?;
        let transport = self.client.transport_to(url).map_err(|error| error.to_string())?;
        watch.serve(transport).await.map_err(|error| own_words(&error).to_string())
    }

    async fn stay(
        &self,
        url: &str,
        service: RunningService<RoleClient, Watch>,
        watch: &Watch,
        stop: &CancellationToken,
    ) {
        let (peer, ended) = (service.peer().clone(), service.cancellation_token());
        let waiting = service.waiting();
        tokio::pin!(waiting);
        loop {
            let listed = tokio::select! {
                listed = timeout(ANSWERS, tools_of(&peer)) => listed,
                () = stop.cancelled() => {
                    ended.cancel();
                    let _ = waiting.await;
                    return;
                }
            };
            match listed.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not list its tools"))) {
                Ok(tools) => self.up(url, &peer, tools),
                Err(why) => {
                    self.settle(url, State::Down(why.to_string()));
                    ended.cancel();
                    let _ = waiting.await;
                    return;
                }
            }
            tokio::select! {
                _ = &mut waiting => {
                    self.settle(url, State::Down("the connection to it ended".to_owned()));
                    return;
                }
                // Its list has changed: wait before reading it, because it may change again.
                () = async { watch.0.notified().await; sleep(LISTS).await } => {}
                () = stop.cancelled() => {
                    ended.cancel();
                    let _ = waiting.await;
                    return;
                }
            }
        }
    }

    fn up(&self, url: &str, peer: &Peer<RoleClient>, tools: Vec<Tool>) {
        let servers = self.servers();
        let Some(server) = servers.get(url) else { return };
        let tools = offered(&server.prefix, &server.title, tools);
        drop(servers);
        self.settle(url, State::Up { peer: peer.clone(), tools });
    }

    fn settle(&self, url: &str, state: State) {
        let mut tells = false;
        if let Some(server) = self.servers().get_mut(url) {
            // A server that was down and still is has no tools to announce.
            tells = [&server.state, &state].iter().any(|state| matches!(state, State::Up { .. }));
            if let State::Down(why) = &state {
                eprintln!("passavant: {}: {}", plain_lines(&server.title), plain_lines(why));
            }
            server.state = state;
        }
        self.settled.send_modify(|count| *count += 1);
        if tells {
            self.changed.notify_one();
        }
    }

    /// Waits until every server has responded or failed.
    async fn whole(&self) {
        let mut settled = self.settled.subscribe();
        let mut known = self.known.subscribe();
        let whole = async {
            let _ = known.wait_for(|known| *known).await;
            // A server that has been silent for long is not waited for again.
            let waits = |server: &Server| matches!(server.state, State::Asked(since) if since.elapsed() < PATIENCE);
            while self.servers().values().any(waits) {
                if settled.changed().await.is_err() {
                    return;
                }
            }
        };
        // Tools that arrive later are announced as a change.
        let _ = timeout(PATIENCE, whole).await;
    }

    /// Ends the sessions and waits for their end, because a server may keep a process for each.
    async fn end(&self) {
        for server in std::mem::take(&mut *self.servers()).into_values() {
            server.stop.cancel();
        }
        let _ = self.kept.subscribe().wait_for(|kept| *kept == 0).await;
    }

    /// The server of a tool, and the tool's name there.
    fn find(&self, name: &str) -> Result<(Peer<RoleClient>, String), ErrorData> {
        let servers = self.servers();
        for server in servers.values() {
            match &server.state {
                State::Up { peer, tools } => {
                    if let Some(found) = tools.iter().find(|offered| offered.tool.name == name) {
                        return Ok((peer.clone(), found.own_name.clone()));
                    }
                }
                State::Down(why) if name.starts_with(&format!("{}__", server.prefix)) => {
                    let text = format!("{} cannot be reached: {why}", server.title);
                    return Err(ErrorData::internal_error(plain_lines(&text), None));
                }
                _ => {}
            }
        }
        let text = format!("there is no tool `{name}`; `tools/list` returns those that exist");
        Err(ErrorData::invalid_params(text, None))
    }
}

impl ServerHandler for All {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        let mut info = ServerConfig::new(tools);
        info.server_info = Implementation::new("passavant", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(
            "The MCP servers that your company lets this person use. The name of each tool begins \
             with the name of its server."
                .to_owned(),
        );
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.whole().await;
        let servers = self.servers();
        let tools = servers.values().flat_map(|server| match &server.state {
            State::Up { tools, .. } => tools.as_slice(),
            _ => &[],
        });
        Ok(ListToolsResult::with_all_items(tools.map(|offered| offered.tool.clone()).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        // A server that does not respond delays only its own tools.
        let found = match self.find(&request.name) {
            Err(_) => {
                self.whole().await;
                self.find(&request.name)
            }
            found => found,
        };
        let (peer, own_name) = found?;
        let mut own = CallToolRequestParams::new(own_name);
        own.arguments = request.arguments;
        // Dropped if the agent cancels the call.
        tokio::select! {
            result = peer.call_tool(own) => match result {
                Ok(result) => Ok(result.into()),
                // The server's own error, unchanged.
                Err(ServiceError::McpError(error)) => Err(error),
                Err(error) => Err(ErrorData::internal_error(readable(&error).to_string(), None)),
            },
            () = context.ct.cancelled() => Err(ErrorData::internal_error("it was cancelled", None)),
        }
    }
}

/// The prefix of a server's tools: short. If several servers would have the same prefix, each gets
/// a part of its URL appended, so that no server's prefix depends on the order in which they
/// appear.
fn prefix_of(server: &CatalogServer, all: &[CatalogServer]) -> String {
    let short = |server: &CatalogServer| {
        let mut base = name_of(server);
        base.truncate(20);
        base.trim_end_matches('-').to_owned()
    };
    let base = short(server);
    let is_other =
        |other: &&CatalogServer| other.resource != server.resource && short(other) == base;
    if all.iter().any(|other| is_other(&other)) {
        return format!("{base}-{}", hex(&server.resource));
    }
    base
}

/// The tools of a server under names that hosts accept and that are unique.
fn offered(prefix: &str, title: &str, tools: Vec<Tool>) -> Vec<Offered> {
    let mut names = HashSet::new();
    let named = |tool: Tool| {
        let own_name = tool.name.to_string();
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        let mut name = format!("{prefix}__{}", own_name.chars().map(plain).collect::<String>());
        let is_same =
            name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("__")) == Some(&own_name);
        if name.len() > LONGEST || !is_same {
            // Derived from the whole name: the same each time, and different for every other tool.
            name.truncate(LONGEST - 9);
            name = format!("{name}-{}", &hex(&own_name));
        }
        if !names.insert(name.clone()) {
            return None;
        }
        let mut tool = tool;
        tool.name = name.into();
        tool.description = Some(match tool.description {
            Some(text) => format!("{title}: {text}").into(),
            None => title.to_owned().into(),
        });
        Some(Offered { tool, own_name })
    };
    tools.into_iter().filter_map(named).collect()
}

/// Eight letters and digits, derived from a text.
fn hex(text: &str) -> String {
    sha256(text.as_bytes()).chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Tool {
        Tool::new(name.to_owned(), "does it", Arc::new(serde_json::Map::new()))
    }

    #[test]
    fn names_of_tools_are_such_as_hosts_take_and_each_another() {
        let long = "a".repeat(80);
        let names = ["read", "read.all", "read_all", "läs", &long, &format!("{long}b"), "read"];
        let found = offered("notes", "Notes", names.iter().map(|name| tool(name)).collect());
        let mut seen = std::collections::BTreeSet::new();
        for (offered, name) in found.iter().zip(names) {
            let shown = offered.tool.name.as_ref();
            assert_eq!(offered.own_name, name);
            assert!(shown.starts_with("notes__") && shown.len() <= LONGEST, "{shown}");
            assert!(
                shown.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
                "{shown}"
            );
            assert!(seen.insert(shown.to_owned()), "{shown}");
        }
        assert_eq!(found[0].tool.name, "notes__read");
        assert_eq!(found[0].tool.description.as_deref(), Some("Notes: does it"));
        assert_eq!(found.len(), 6, "a server that names two tools alike has one of them");
    }

    #[test]
    fn two_servers_of_one_name_have_tools_of_their_own() {
        let server = |name: &str, resource: &str| CatalogServer {
            name: name.to_owned(),
            resource: resource.to_owned(),
            ..CatalogServer::default()
        };
        let (one, two) =
            (server("Notes", "https://a.example/mcp"), server("Notes", "https://b.example/mcp"));
        assert_eq!(prefix_of(&one, std::slice::from_ref(&one)), "notes");
        let both = [one.clone(), two.clone()];
        let turned = [two.clone(), one.clone()];
        assert_ne!(prefix_of(&one, &both), prefix_of(&two, &both));
        for server in &both {
            assert_eq!(prefix_of(server, &both), prefix_of(server, &turned), "in any order");
        }
    }
}
