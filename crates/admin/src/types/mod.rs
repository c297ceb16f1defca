//! The requests and views of the administration API: requests are parsed strictly, views list their
//! members explicitly. The server, the typed client and the OpenAPI document are made from these
//! types.

mod administrators;
mod audit;
mod clients;
mod cut_off;
mod keys;
mod people;
mod policy;
mod signals;
mod trust;
mod upstreams;
mod written;

pub use administrators::*;
pub use audit::*;
pub use clients::*;
pub use cut_off::*;
pub use keys::*;
pub use people::*;
pub use policy::*;
pub use signals::*;
pub use trust::*;
pub use upstreams::*;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

/// A kind of record that is administered: how it is named, and what is said of it.
pub trait Kind: Send + Sync + 'static {
    /// Its collection's segment in paths.
    const PATH: &'static str;
    /// What messages and `passavant admin` call it.
    const NOUN: &'static str;
    /// What makes one.
    type New: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
    /// What may be another about one; what is left out stays.
    type Change: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
    /// What is shown of one.
    type View: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $path:literal, $noun:literal, $new:ty, $change:ty, $view:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $kind;

            impl Kind for $kind {
                const PATH: &'static str = $path;
                const NOUN: &'static str = $noun;
                type New = $new;
                type Change = $change;
                type View = $view;
            }
        )*
    };
}

kinds! {
    /// People at the IdP.
    Users: "users", "user", NewUser, UserChange, UserView;
    /// Groups at the IdP.
    Groups: "groups", "group", NewGroup, GroupChange, GroupView;
    /// OAuth clients, at either server.
    Clients: "clients", "client", NewClient, ClientChange, ClientView;
    /// Resource authorization servers, as the IdP knows them.
    AuthorizationServers: "authorization-servers", "server", NewServer, ServerChange, ServerView;
    /// MCP servers, as the IdP knows them.
    Resources: "resources", "resource", NewResource, ResourceChange, ResourceView;
    /// Who may use which client to reach which MCP servers.
    Connections: "connections", "connection", NewConnection, ConnectionChange, ConnectionView;
    /// Identity providers at which the company's people sign in.
    Upstreams: "upstreams", "upstream", NewUpstream, UpstreamChange, UpstreamView;
    /// Identity providers that a RAS trusts.
    TrustedIssuers: "trusted-issuers", "trust", NewTrust, TrustChange, TrustView;
    /// Origins of client metadata documents that a RAS accepts.
    ClientHosts: "client-hosts", "client-host", NewClientHost, Nothing, ClientHostView;
    /// Others whose signals count here.
    Transmitters: "transmitters", "transmitter", NewTransmitter, TransmitterChange, TransmitterView;
    /// MCP servers that a RAS governs.
    GovernedResources: "resources", "resource", NewGoverned, GovernedChange, GovernedView;
    /// Accounts at a RAS.
    Accounts: "accounts", "account", NewAccount, AccountChange, AccountView;
    /// Administrators with names, at either server.
    Administrators:
        "administrators", "administrator", NewAdministrator, AdministratorChange, AdministratorView;
}

/// Nothing of these can be changed but whether they are on.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Some records of a kind, by id.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Listed<V> {
    /// What can be read.
    pub items: Vec<V>,
    /// Records that this version cannot read; they count as not there, and can be deleted.
    #[serde(default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// Ask for the next ones with `after` set to this; absent where these are the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnreadableRecord {
    /// Its id.
    pub id: String,
    /// Why.
    pub cannot_be_read: String,
}

/// Which records.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Those after this id: `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Those whose id or name contains this; of people, also the e-mail address or the display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// How many at most: 100 unless given, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
}

/// What goes with a record that is deleted.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Dependents {
    /// Records that name it: they are deleted with it, or lose it.
    pub records: Vec<Dependent>,
}

/// A record that names another one.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Dependent {
    /// Its kind, as messages call it.
    pub kind: String,
    /// Its id, or the name that people know it by.
    pub name: String,
    /// What becomes of it.
    pub then: Fate,
}

/// What becomes of a record when one that it names is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is deleted too.
    Deleted,
    /// It stays, without the other one.
    Changed,
    /// It ends: a session, an installation.
    Ended,
}

/// What runs here.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RolesView {
    /// Issuer of the IdP, where there is one.
    pub idp: Option<String>,
    /// The RASes.
    pub ras: Vec<RasRole>,
    /// Whether gateways are administered here.
    pub gateway: bool,
}

/// A RAS that runs here.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RasRole {
    /// What the config calls it.
    pub name: String,
    /// Its issuer identifier.
    pub issuer: String,
}

/// What a caller reads when a call fails (RFC 9457).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was found, and what was expected.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
