//! What an administrator sets for one MCP server behind the gateway.

use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    mcp::operation_policy::Rules,
    oauth::access_token::TokenForm,
    oauth::scope::Scopes,
    secret::Secret,
    time::Timestamp,
};
use passavant_resource::Caller;
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// Proxies commonly close what has been quiet for a minute.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// One MCP server.
#[derive(Clone)]
pub struct RouteSettings {
    /// Its resource identifier: the URL that callers use. Host and path of it are matched exactly.
    pub resource: Resource,
    /// The authorization server whose tokens are taken.
    pub authorization_server: Issuer,
    /// The algorithm that it signs with.
    pub algorithm: Algorithm,
    /// How it writes them.
    pub token_form: TokenForm,
    /// URL of the MCP server itself.
    pub upstream: String,
    /// What people call it.
    pub name: Option<String>,
    /// Further values of `Host` under which it is reached.
    pub hosts: Vec<String>,
    /// Origins whose pages may call it from a browser, beside its own.
    pub origins: Vec<String>,
    /// Who may do what.
    pub rules: Rules,
    /// Scopes for its metadata beside those of the rules.
    pub scopes: Scopes,
    /// What lists show.
    pub lists: Lists,
    /// What happens when a tool's description changes.
    pub tool_changes: ToolChanges,
    /// The signed assertion that tells the MCP server who calls; none if `None`.
    pub assertion: Option<AssertionSettings>,
    /// Plain headers that tell it.
    pub plain_headers: Vec<PlainHeader>,
    /// A credential of the MCP server's own: header and whole value.
    pub credential: Option<(HeaderName, Secret)>,
    /// What shows an adapter of this process that the gateway asks.
    pub adapter: Option<(HeaderName, Secret)>,
    /// `Host` of requests to the MCP server, where it is not that of its URL.
    pub upstream_host: Option<HeaderValue>,
    /// Request headers that are passed on beside those of MCP and of tracing.
    pub forward_headers: Vec<HeaderName>,
    /// How much is accepted.
    pub limits: Limits,
    /// A comment goes into a stream of events that has been quiet for so long; never if `None`.
    pub keepalive: Option<Duration>,
    /// Whether arguments of tools are put on record.
    pub arguments: Option<ArgumentAudit>,
    /// Asks whether a token still stands; a token is good to its end where there is none.
    pub stands: Option<Stands>,
    /// Gets a token for the MCP server itself, for the same person.
    pub upstream_tokens: Option<UpstreamTokens>,
}

/// What `tools/list` and its like show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// Everything.
    All,
    /// What some rule allows.
    #[default]
    Allowed,
    /// What some rule allows and the caller's scopes cover.
    Granted,
}

/// What happens when a tool's description or schema is not the approved one any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolChanges {
    /// It is put on record.
    #[default]
    Flag,
    /// And the tool is neither shown nor called until it is approved.
    Block,
}

/// How the MCP server learns who calls.
#[derive(Clone, Debug)]
pub struct AssertionSettings {
    /// The header it comes in.
    pub header: HeaderName,
    /// What stands before it, for instance `Bearer `.
    pub prefix: String,
    /// Its `aud`.
    pub audience: String,
}

/// One header with something of the caller.
#[derive(Clone, Debug)]
pub struct PlainHeader {
    /// The header.
    pub name: HeaderName,
    /// What is in it.
    pub value: Who,
}

/// What a plain header may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The person, as the authorization server names them.
    Subject,
    /// The client.
    Client,
    /// The scopes.
    Scope,
    /// `jti` of the ID-JAG.
    Transaction,
}

/// How much is accepted from whom.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body: usize,
    /// Largest list of tools, prompts or resources, in bytes.
    pub list: usize,
    /// Largest answer or event that is read whole to be looked at, in bytes.
    pub answer: usize,
    /// Bytes of bodies, and of answers that are looked at, of one person at a time.
    pub bytes_per_person: usize,
    /// The same of everybody.
    pub bytes: usize,
    /// Requests a minute of one person.
    pub per_person: NonZeroU32,
    /// Requests a minute of one client, over all persons.
    pub per_client: NonZeroU32,
    /// Requests and streams of one person at a time.
    pub concurrent_per_person: usize,
    /// Requests and streams at a time.
    pub concurrent: usize,
    /// From request to the head of the answer.
    pub answer_time: Duration,
    /// For a request's body to arrive.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let number = |n: u32| NonZeroU32::MIN.saturating_add(n - 1);
        Self {
            body: 4 * 1024 * 1024,
            list: 1024 * 1024,
            answer: 16 * 1024 * 1024,
            bytes_per_person: 32 * 1024 * 1024,
            bytes: 128 * 1024 * 1024,
            per_person: number(1200),
            per_client: number(60_000),
            concurrent_per_person: 100,
            concurrent: 10_000,
            answer_time: Duration::from_mins(5),
            body_time: Duration::from_secs(30),
        }
    }
}

/// Which tools' arguments are put on record, and what of them is left out.
#[derive(Clone, Debug, Default)]
pub struct ArgumentAudit {
    /// Tools by name; `*` alone is every one.
    pub tools: Vec<String>,
    /// Names of members, at any depth, whose values are replaced.
    pub redact: Vec<String>,
}

/// It cannot be told just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorization server does not answer")]
pub struct Unavailable;

/// Asks whether an access token still stands.
pub type Stands =
    Arc<dyn Fn(Secret) -> BoxFuture<'static, Result<bool, Unavailable>> + Send + Sync>;

/// A token for the MCP server itself.
#[derive(Clone, Debug)]
pub struct UpstreamToken {
    /// The token.
    pub token: Secret,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why there is no token for the MCP server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamTokenError {
    /// Refused by policy: final.
    #[error("{0}")]
    Refused(String),
    /// It cannot be had just now.
    #[error("{0}")]
    Unavailable(String),
}

/// Gets a token for the MCP server itself, for the person of a caller, by the caller's own token.
pub type UpstreamTokens = Arc<
    dyn Fn(Caller, Secret) -> BoxFuture<'static, Result<UpstreamToken, UpstreamTokenError>>
        + Send
        + Sync,
>;

impl RouteSettings {
    /// The defaults for an MCP server: no rule, so no tool.
    pub fn new(resource: Resource, authorization_server: Issuer, upstream: &str) -> Self {
        let assertion = AssertionSettings {
            header: http::header::AUTHORIZATION,
            prefix: "Bearer ".to_owned(),
            audience: upstream.to_owned(),
        };
        Self {
            resource,
            authorization_server,
            algorithm: Algorithm::default(),
            token_form: TokenForm::default(),
            upstream: upstream.to_owned(),
            name: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            rules: Rules::default(),
            scopes: Scopes::default(),
            lists: Lists::default(),
            tool_changes: ToolChanges::default(),
            assertion: Some(assertion),
            plain_headers: Vec::new(),
            credential: None,
            adapter: None,
            upstream_host: None,
            forward_headers: Vec::new(),
            limits: Limits::default(),
            keepalive: Some(KEEPALIVE),
            arguments: None,
            stands: None,
            upstream_tokens: None,
        }
    }
}

/// A header value that is never shown.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
