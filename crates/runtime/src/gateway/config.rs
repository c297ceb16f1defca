//! `[[gateway]]` in the config.

use super::adapter::{Command, Sessions};
use crate::config::section::{Problems, Tls, WrittenTls, endpoint, must_exist, said};
use http::HeaderName;
use passavant_gateway::{
    ArgumentAudit, AssertionSettings, Limits, Lists, PlainHeader, RouteSettings, ToolChanges, Who,
};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    mcp::operation_policy::{Rule, Rules},
    oauth::access_token::TokenForm,
    oauth::scope::Scopes,
};
use passavant_resource::WithoutFeed;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// What has to be done with a decision before the MCP server is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It was written: it survives the end of the process.
    #[default]
    Written,
    /// It was flushed to disk: it survives a crash of the machine.
    Disk,
}

/// As written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenGateway {
    name: Option<String>,
    listen: String,
    folder: PathBuf,
    #[serde(default)]
    durability: Durability,
    keep_days: Option<NonZeroU32>,
    tls: Option<WrittenTls>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    report: Option<WrittenReport>,
    #[serde(default)]
    route: Vec<WrittenRoute>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReport {
    issuer: String,
    client_id: String,
    secret_file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoute {
    resource: String,
    upstream: Option<String>,
    upstream_host: Option<String>,
    #[serde(default)]
    transport: WrittenTransport,
    command: Option<Vec<String>>,
    folder: Option<PathBuf>,
    #[serde(default)]
    environment: Vec<String>,
    #[serde(default)]
    sessions: Sessions,
    authorization_server: String,
    algorithm: Option<Algorithm>,
    #[serde(default)]
    several_audiences: bool,
    #[serde(default)]
    client_in_azp: bool,
    name: Option<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default)]
    require: Scopes,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default)]
    lists: WrittenLists,
    #[serde(default)]
    tool_changes: WrittenChanges,
    #[serde(default)]
    assertion: WrittenAssertion,
    #[serde(default)]
    headers: BTreeMap<String, WrittenWho>,
    credential: Option<WrittenCredential>,
    upstream_client: Option<WrittenUpstreamClient>,
    #[serde(default)]
    forward_headers: Vec<String>,
    #[serde(default)]
    limits: WrittenLimits,
    sse_keepalive_seconds: Option<u64>,
    arguments: Option<WrittenArguments>,
    introspection: Option<WrittenIntrospection>,
}

/// The transport of an MCP server that has a URL.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum WrittenTransport {
    /// Streamable HTTP.
    #[default]
    Http,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenLists {
    All,
    #[default]
    Allowed,
    Granted,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenChanges {
    #[default]
    Flag,
    Block,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenWho {
    Subject,
    ClientId,
    Scope,
    Txn,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAssertion {
    enabled: Option<bool>,
    header: Option<String>,
    audience: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCredential {
    header: Option<String>,
    prefix: Option<String>,
    file: PathBuf,
}

/// The gateway as a client of the MCP server behind it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUpstreamClient {
    idp: String,
    client_id: String,
    secret_file: PathBuf,
    authorization_server: String,
    ras_client_id: Option<String>,
    ras_secret_file: Option<PathBuf>,
    resource: Option<String>,
    #[serde(default)]
    scopes: Scopes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    body_bytes: Option<usize>,
    list_bytes: Option<usize>,
    looked_at_bytes: Option<usize>,
    bytes_per_person: Option<usize>,
    bytes: Option<usize>,
    per_person_minute: Option<NonZeroU32>,
    per_client_minute: Option<NonZeroU32>,
    concurrent_per_person: Option<usize>,
    concurrent: Option<usize>,
    answer_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenArguments {
    tools: Vec<String>,
    #[serde(default)]
    redact: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIntrospection {
    client_id: String,
    secret_file: PathBuf,
    #[serde(default)]
    without_feed: WrittenWithoutFeed,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenWithoutFeed {
    #[default]
    Ask,
    Refuse,
}

/// How the RAS is asked about tokens.
#[derive(Clone, Debug)]
pub struct IntrospectionConfig {
    /// The client that is registered there for the MCP server.
    pub client_id: String,
    /// The file of its secret.
    pub secret_file: PathBuf,
    /// What happens while the RAS's feed of ended tokens is silent.
    pub without_feed: WithoutFeed,
}

/// One gateway, validated.
#[derive(Debug)]
pub struct GatewayConfig {
    pub name: String,
    pub listen: SocketAddr,
    pub tls: Tls,
    pub folder: PathBuf,
    pub durability: Durability,
    /// Full files of the journal that were reported are deleted after this many days; never if
    /// `None`.
    pub keep_days: Option<NonZeroU32>,
    /// The company's IdP, our client id there, and the file with the secret.
    pub report: Option<(Issuer, String, PathBuf)>,
    pub routes: Vec<RouteConfig>,
}

/// One MCP server. Its secrets are read when it is started.
pub struct RouteConfig {
    pub settings: RouteSettings,
    /// The adapter, if the MCP server does not support Streamable HTTP.
    pub adapter: Option<AdapterConfig>,
    pub credential: Option<(HeaderName, String, PathBuf)>,
    pub introspection: Option<IntrospectionConfig>,
    pub upstream_client: Option<UpstreamClient>,
}

/// An MCP server without Streamable HTTP.
#[derive(Clone, Debug)]
pub enum AdapterConfig {
    Command(Command, Sessions),
    Sse(String, Sessions),
}

/// How to obtain a token for the MCP server itself.
#[derive(Debug)]
pub struct UpstreamClient {
    pub idp: Issuer,
    pub client_id: String,
    pub secret_file: PathBuf,
    pub authorization_server: Issuer,
    pub ras_client_id: String,
    pub ras_secret_file: PathBuf,
    pub resource: Resource,
    pub scopes: Scopes,
}

impl std::fmt::Debug for RouteConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RouteConfig({})", self.settings.resource.as_str())
    }
}

impl WrittenGateway {
    pub fn resolve(
        self,
        path: &str,
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<GatewayConfig> {
        let tls = (self.tls, (self.tls_certificate.as_deref(), self.tls_key.as_deref()));
        let listen = endpoint(problems, path, &self.listen, tls, folder);
        let name = self.name.unwrap_or_else(|| "gateway".to_owned());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            let what = format!("{} cannot name a gateway", said(&name));
            problems.add(&format!("{path}.name"), &what, "use letters, digits, - and _");
        }
        if self.route.is_empty() {
            let hint = "write a [[gateway.route]] table for each MCP server";
            problems.add(path, "no routes are configured", hint);
        }
        let report = self.report.and_then(|written| {
            let file = folder.join(&written.secret_file);
            must_exist(problems, &format!("{path}.report.secret_file"), &file);
            let issuer = issuer(problems, &format!("{path}.report.issuer"), &written.issuer)?;
            Some((issuer, written.client_id, file))
        });
        let routes = self.route.into_iter().enumerate();
        let routes = routes
            .filter_map(|(i, route)| route.resolve(&format!("{path}.route[{i}]"), folder, problems))
            .collect();
        let (listen, tls) = listen?;
        let folder = folder.join(self.folder);
        let (durability, keep_days) = (self.durability, self.keep_days);
        Some(GatewayConfig { name, listen, tls, folder, durability, keep_days, report, routes })
    }
}

fn issuer(problems: &mut Problems, path: &str, text: &str) -> Option<Issuer> {
    match Issuer::parse(text) {
        Ok(issuer) => Some(issuer),
        Err(error) => {
            let hint = "copy the issuer from the authorization server's metadata, byte for byte";
            problems.add(path, &format!("{} {error}", said(text)), hint);
            None
        }
    }
}

fn resource(problems: &mut Problems, path: &str, text: &str) -> Option<Resource> {
    match Resource::parse(text) {
        Ok(resource) => Some(resource),
        Err(error) => {
            let hint = "give the URL that callers use, for instance https://mcp.acme.example/mcp";
            problems.add(path, &format!("{} {error}", said(text)), hint);
            None
        }
    }
}

fn header(problems: &mut Problems, path: &str, text: &str) -> Option<HeaderName> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => Some(name),
        Err(_) => {
            problems.add(
                path,
                &format!("{} is not a valid header name", said(text)),
                "for instance X-User",
            );
            None
        }
    }
}

impl WrittenRoute {
    #[allow(clippy::too_many_lines)] // one key after the other
    fn resolve(self, path: &str, folder: &Path, problems: &mut Problems) -> Option<RouteConfig> {
        let at = |key: &str| format!("{path}.{key}");
        let (written, adapter) = self.server(path, folder, problems)?;
        let upstream = Url::parse(&written).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host().is_some()
                && url.fragment().is_none()
        });
        let in_the_clear = upstream.as_ref().is_some_and(|url| {
            url.scheme() == "http" && !passavant_proto::identifier::is_loopback(url)
        });
        if in_the_clear {
            let what = format!(
                "`{written}` is plain http to another machine: others on the network could read \
                 and change the traffic"
            );
            let hint = "use https, or run the gateway on the MCP server's machine or in its pod";
            problems.add(&at("upstream"), &what, hint);
        }
        if upstream.is_none() {
            let what = format!("{} is not an http or https URL", said(&written));
            let hint = "give the URL of the MCP server itself, for instance \
                        http://127.0.0.1:3001/mcp; a program to start is a `command`";
            problems.add(&at("upstream"), &what, hint);
        }
        let upstream_host = self.upstream_host.as_ref().and_then(|host| {
            let value = http::HeaderValue::from_str(host).ok();
            if value.is_none() {
                problems.add(
                    &at("upstream_host"),
                    "it is not a host name",
                    "for instance localhost:8931",
                );
            }
            value
        });
        let server_url = written.clone();
        let resource_id = resource(problems, &at("resource"), &self.resource);
        let server = issuer(problems, &at("authorization_server"), &self.authorization_server);
        let rules = Rules::new(self.require, self.rule).map_err(|error| {
            let hint = "the most specific pattern decides; write each one once";
            problems.add(&at("rule"), &error.to_string(), hint);
        });
        let assertion_header = self.assertion.header.as_deref();
        let assertion_header =
            assertion_header.map(|text| header(problems, &at("assertion.header"), text));
        let credential = self.credential.map(|written| {
            let name = written.header.as_deref().unwrap_or("Authorization");
            let file = folder.join(&written.file);
            must_exist(problems, &at("credential.file"), &file);
            let bearer = name.eq_ignore_ascii_case("authorization");
            let default = if bearer { "Bearer " } else { "" };
            let prefix = written.prefix.unwrap_or_else(|| default.to_owned());
            (header(problems, &at("credential.header"), name), prefix, file)
        });
        let mut plain_headers = Vec::new();
        for (text, who) in &self.headers {
            let value = match who {
                WrittenWho::Subject => Who::Subject,
                WrittenWho::ClientId => Who::Client,
                WrittenWho::Scope => Who::Scope,
                WrittenWho::Txn => Who::Transaction,
            };
            if let Some(name) = header(problems, &at("headers"), text) {
                plain_headers.push(PlainHeader { name, value });
            }
        }
        let mut forward_headers = Vec::new();
        for text in &self.forward_headers {
            let Some(name) = header(problems, &at("forward_headers"), text) else { continue };
            let told = plain_headers.iter().any(|plain| plain.name == name);
            // Headers that the gateway writes itself: about the body, the connection and the
            // caller.
            let written = [
                "authorization",
                "host",
                "content-type",
                "content-length",
                "content-encoding",
                "transfer-encoding",
                "connection",
                "te",
                "trailer",
                "upgrade",
                "expect",
                "accept-encoding",
                "mcp-session-id",
                "cookie",
            ];
            if told || written.contains(&name.as_str()) || name.as_str().starts_with("mcp-param-") {
                let what = format!(
                    "the caller's header {} must not be forwarded to the MCP server",
                    said(text)
                );
                let hint = "the MCP server would take it for a header of the gateway; leave it out";
                problems.add(&at("forward_headers"), &what, hint);
            }
            forward_headers.push(name);
        }
        let introspection = self.introspection.map(|written| {
            let file = folder.join(&written.secret_file);
            must_exist(problems, &at("introspection.secret_file"), &file);
            IntrospectionConfig {
                client_id: written.client_id,
                secret_file: file,
                without_feed: match written.without_feed {
                    WrittenWithoutFeed::Ask => WithoutFeed::Ask,
                    WrittenWithoutFeed::Refuse => WithoutFeed::Refuse,
                },
            }
        });
        let upstream_client = self.upstream_client.map(|written| {
            let file = folder.join(&written.secret_file);
            must_exist(problems, &at("upstream_client.secret_file"), &file);
            let ras_file =
                written.ras_secret_file.map_or_else(|| file.clone(), |file| folder.join(file));
            must_exist(problems, &at("upstream_client.ras_secret_file"), &ras_file);
            let wanted = written.resource.as_deref().unwrap_or(&server_url);
            Some(UpstreamClient {
                idp: issuer(problems, &at("upstream_client.idp"), &written.idp)?,
                ras_client_id: written.ras_client_id.unwrap_or_else(|| written.client_id.clone()),
                client_id: written.client_id,
                secret_file: file,
                authorization_server: issuer(
                    problems,
                    &at("upstream_client.authorization_server"),
                    &written.authorization_server,
                )?,
                ras_secret_file: ras_file,
                resource: resource(problems, &at("upstream_client.resource"), wanted)?,
                scopes: written.scopes,
            })
        });
        let mut settings = RouteSettings::new(resource_id?, server?, upstream?.as_str());
        settings.upstream_host = upstream_host;
        settings.algorithm = self.algorithm.unwrap_or_default();
        settings.token_form = TokenForm {
            several_audiences: self.several_audiences,
            client_in_azp: self.client_in_azp,
        };
        settings.name = self.name;
        settings.hosts = self.hosts;
        settings.origins = self.origins;
        settings.rules = rules.ok()?;
        settings.scopes = self.scopes;
        settings.lists = match self.lists {
            WrittenLists::All => Lists::All,
            WrittenLists::Allowed => Lists::Allowed,
            WrittenLists::Granted => Lists::Granted,
        };
        settings.tool_changes = match self.tool_changes {
            WrittenChanges::Flag => ToolChanges::Flag,
            WrittenChanges::Block => ToolChanges::Block,
        };
        // The assertion is sent in `Authorization`, unless that header is needed for something
        // else.
        let taken = upstream_client.is_some()
            || matches!(&credential, Some((Some(name), ..)) if *name == http::header::AUTHORIZATION);
        let own = HeaderName::from_static("passavant-caller");
        let named = assertion_header.flatten();
        let name = named.unwrap_or(if taken { own } else { http::header::AUTHORIZATION });
        if taken && name == http::header::AUTHORIZATION {
            let what =
                "both the assertion and the MCP server's own credential would be in Authorization";
            let hint = "leave assertion.header out, or name another one";
            problems.add(&at("assertion.header"), what, hint);
        }
        let bearer = name == http::header::AUTHORIZATION;
        settings.assertion = self.assertion.enabled.unwrap_or(true).then(|| AssertionSettings {
            prefix: if bearer { "Bearer ".to_owned() } else { String::new() },
            header: name,
            audience: self.assertion.audience.unwrap_or_else(|| settings.upstream.clone()),
        });
        settings.plain_headers = plain_headers;
        settings.forward_headers = forward_headers;
        settings.limits = self.limits.resolve();
        if let Some(seconds) = self.sse_keepalive_seconds {
            settings.keepalive = (seconds > 0).then(|| Duration::from_secs(seconds));
        }
        settings.arguments = self
            .arguments
            .map(|written| ArgumentAudit { tools: written.tools, redact: written.redact });
        let credential = match credential {
            Some((name, prefix, file)) => Some((name?, prefix, file)),
            None => None,
        };
        let upstream_client = match upstream_client {
            Some(client) => Some(client?),
            None => None,
        };
        if matches!(adapter, Some(AdapterConfig::Command(..)))
            && (credential.is_some() || upstream_client.is_some())
        {
            let hint =
                "a program takes its credentials from its environment: `environment = [\"NAME\"]`";
            problems.add(path, "a `command` has no headers to be given a credential in", hint);
        }
        // Neither a program's lines nor the older transport's stream belong to one request, so
        // request headers cannot be passed.
        let told = [
            ("headers", !settings.plain_headers.is_empty()),
            ("forward_headers", !settings.forward_headers.is_empty()),
            ("upstream_client", upstream_client.is_some()),
        ];
        for (key, _) in told.iter().filter(|(_, set)| *set && adapter.is_some()) {
            let hint = "only an MCP server that speaks Streamable HTTP is told who the caller is; \
                        leave it out";
            problems.add(&at(key), "it has no effect for this MCP server", hint);
        }
        Some(RouteConfig { settings, adapter, credential, introspection, upstream_client })
    }

    /// The URL of the MCP server, or the program; `None` if neither is given.
    fn server(
        &self,
        path: &str,
        folder: &Path,
        problems: &mut Problems,
    ) -> Option<(String, Option<AdapterConfig>)> {
        let at = |key: &str| format!("{path}.{key}");
        match (&self.upstream, &self.command) {
            (Some(url), None) => {
                let sse = self.transport == WrittenTransport::Sse;
                for (key, set) in [
                    ("folder", self.folder.is_some()),
                    ("environment", !self.environment.is_empty()),
                    ("sessions", self.sessions != Sessions::default() && !sse),
                ] {
                    if set {
                        problems.add(
                            &at(key),
                            "it is only for a `command`",
                            "leave it out with `upstream`",
                        );
                    }
                }
                let sse = (self.transport == WrittenTransport::Sse)
                    .then(|| AdapterConfig::Sse(url.clone(), self.sessions));
                Some((url.clone(), sse))
            }
            (None, Some(words)) => {
                if self.transport == WrittenTransport::Sse {
                    problems.add(
                        &at("transport"),
                        "it is only for an `upstream`",
                        "leave it out with `command`",
                    );
                }
                let Some((program, args)) = words.split_first() else {
                    problems.add(
                        &at("command"),
                        "it is empty",
                        "for instance [\"npx\", \"-y\", \"some-server\"]",
                    );
                    return None;
                };
                let mut environment = BTreeMap::new();
                for entry in &self.environment {
                    let (name, value) = match entry.split_once('=') {
                        Some((name, value)) => (name, Some(value.to_owned())),
                        None => (entry.as_str(), None),
                    };
                    if name.is_empty() {
                        problems.add(
                            &at("environment"),
                            "a name is empty",
                            "write NAME to pass the variable on, or NAME=VALUE to set it",
                        );
                    }
                    environment.insert(name.to_owned(), value);
                }
                let folder = match &self.folder {
                    Some(own) => folder.join(own),
                    None if folder.as_os_str().is_empty() => PathBuf::from("."),
                    None => folder.to_owned(),
                };
                let command =
                    Command { program: program.clone(), args: args.to_vec(), folder, environment };
                // Its port is known when it is started.
                let placeholder = "http://127.0.0.1/mcp".to_owned();
                Some((placeholder, Some(AdapterConfig::Command(command, self.sessions))))
            }
            _ => {
                let hint = "`upstream` is its URL; `command` is a program that speaks MCP on its standard streams";
                problems.add(path, "an MCP server has either `upstream` or `command`", hint);
                None
            }
        }
    }
}

impl WrittenLimits {
    fn resolve(&self) -> Limits {
        let default = Limits::default();
        Limits {
            body: self.body_bytes.unwrap_or(default.body),
            list: self.list_bytes.unwrap_or(default.list),
            answer: self.looked_at_bytes.unwrap_or(default.answer),
            bytes_per_person: self.bytes_per_person.unwrap_or(default.bytes_per_person),
            bytes: self.bytes.unwrap_or(default.bytes),
            per_person: self.per_person_minute.unwrap_or(default.per_person),
            per_client: self.per_client_minute.unwrap_or(default.per_client),
            concurrent_per_person: self
                .concurrent_per_person
                .unwrap_or(default.concurrent_per_person),
            concurrent: self.concurrent.unwrap_or(default.concurrent),
            answer_time: self.answer_seconds.map_or(default.answer_time, Duration::from_secs),
            ..default
        }
    }
}
