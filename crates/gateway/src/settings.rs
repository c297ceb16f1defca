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
use passavant_resource::{Caller, Feed};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// Proxies commonly close a connection that was quiet for a minute.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// One MCP server.
#[derive(Clone)]
pub struct RouteSettings {
    /// Its resource identifier: the URL that callers use. Its host and path are matched exactly.
    pub resource: Resource,
    /// The authorization server whose tokens are accepted.
    pub authorization_server: Issuer,
    /// The algorithm of its signatures.
    pub algorithm: Algorithm,
    /// The form of its access tokens.
    pub token_form: TokenForm,
    /// URL of the MCP server itself.
    pub upstream: String,
    /// Its name for people.
    pub name: Option<String>,
    /// Further values of `Host` under which it is reached.
    pub hosts: Vec<String>,
    /// Origins whose pages may call it from a browser, besides its own.
    pub origins: Vec<String>,
    /// Who may do what.
    pub rules: Rules,
    /// Scopes that its metadata lists besides those of the rules.
    pub scopes: Scopes,
    /// What lists show.
    pub lists: Lists,
    /// What happens when a tool's description changes.
    pub tool_changes: ToolChanges,
    /// The signed assertion that tells the MCP server who calls; none if `None`.
    pub assertion: Option<AssertionSettings>,
    /// Plain headers that tell the MCP server who calls.
    pub plain_headers: Vec<PlainHeader>,
    /// The gateway's credential at the MCP server: a header and its whole value.
    pub credential: Option<(HeaderName, Secret)>,
    /// Proves to an adapter of this process that the gateway is asking.
    pub adapter: Option<(HeaderName, Secret)>,
    /// `Host` of requests to the MCP server, if it differs from that of its URL.
    pub upstream_host: Option<HeaderValue>,
    /// Request headers that are forwarded besides those of MCP and of tracing.
    pub forward_headers: Vec<HeaderName>,
    /// How much is accepted.
    pub limits: Limits,
    /// A comment is sent into an event stream that was quiet for this long; never if `None`.
    pub keepalive: Option<Duration>,
    /// Which arguments of tool calls are recorded; none if `None`.
    pub arguments: Option<ArgumentAudit>,
    /// Checks whether a token is still active. If `None`, a token is accepted until it expires.
    pub stands: Option<Stands>,
    /// The feed of ended tokens: while it is heard, what [`RouteSettings::stands`] said holds until it
    /// says otherwise.
    pub feed: Option<Feed>,
    /// Obtains a token for the MCP server itself, for the same person.
    pub upstream_tokens: Option<UpstreamTokens>,
}

/// What `tools/list` and similar lists show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// Everything.
    All,
    /// Items that some rule allows.
    #[default]
    Allowed,
    /// Items that some rule allows and the caller's scopes cover.
    Granted,
}

/// What happens when a tool's description or schema differs from what was approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolChanges {
    /// The change is recorded.
    #[default]
    Flag,
    /// Also, the tool is neither listed nor callable until it is approved.
    Block,
}

/// How the MCP server learns who calls.
#[derive(Clone, Debug)]
pub struct AssertionSettings {
    /// The header that carries it.
    pub header: HeaderName,
    /// Text in front of it, for instance `Bearer `.
    pub prefix: String,
    /// Its `aud`.
    pub audience: String,
}

/// One header that tells something about the caller.
#[derive(Clone, Debug)]
pub struct PlainHeader {
    /// The header.
    pub name: HeaderName,
    /// What it contains.
    pub value: Who,
}

/// What a plain header may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The person, as the authorization server identifies them.
    Subject,
    /// The client.
    Client,
    /// The scopes.
    Scope,
    /// `jti` of the ID-JAG.
    Transaction,
}

/// Limits on what is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body: usize,
    /// Largest list of tools, prompts or resources, in bytes.
    pub list: usize,
    /// Largest answer or event that is buffered for inspection, in bytes.
    pub answer: usize,
    /// Bytes of bodies and of inspected answers that one person's requests may hold at a time.
    pub bytes_per_person: usize,
    /// The same for all persons together.
    pub bytes: usize,
    /// Requests of one person per minute.
    pub per_person: NonZeroU32,
    /// Requests of one client per minute, summed over all persons.
    pub per_client: NonZeroU32,
    /// Concurrent requests and streams of one person.
    pub concurrent_per_person: usize,
    /// Concurrent requests and streams of all persons.
    pub concurrent: usize,
    /// Maximum time from the request to the head of the answer.
    pub answer_time: Duration,
    /// Maximum time for a request's body to arrive.
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

/// Which tools' arguments are recorded, and which values are left out.
#[derive(Clone, Debug, Default)]
pub struct ArgumentAudit {
    /// Names of tools; `*` alone means all.
    pub tools: Vec<String>,
    /// Names of members whose values are replaced, at any depth.
    pub redact: Vec<String>,
}

/// The state cannot be learnt at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorization server does not answer")]
pub struct Unavailable;

/// Checks whether an access token is still active.
pub type Stands =
    Arc<dyn Fn(Secret) -> BoxFuture<'static, Result<bool, Unavailable>> + Send + Sync>;

/// A token for the MCP server itself.
#[derive(Clone, Debug)]
pub struct UpstreamToken {
    /// The token.
    pub token: Secret,
    /// When it expires.
    pub expires: Timestamp,
}

/// Why there is no token for the MCP server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamTokenError {
    /// Refused by policy. Trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// No token can be obtained at the moment.
    #[error("{0}")]
    Unavailable(String),
}

/// Obtains a token for the MCP server itself, for the person of a caller, with the caller's own
/// token.
pub type UpstreamTokens = Arc<
    dyn Fn(Caller, Secret) -> BoxFuture<'static, Result<UpstreamToken, UpstreamTokenError>>
        + Send
        + Sync,
>;

impl RouteSettings {
    /// The defaults for an MCP server. There are no rules, so no tool is allowed.
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
            feed: None,
            upstream_tokens: None,
        }
    }
}

/// A header value that is never logged.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
