//! `passavant admin`: a thin client of the administration API.

mod acts;
mod api;
mod show;

pub(crate) use show::audit_table;

use acts::{
    accounts, administrators, client_hosts, clients, connections, gateway, groups, installations,
    keys, resources, servers, sessions, trusts, users, words,
};
use anyhow::{Context, Result};
use api::Api;
use clap::{Args, Subcommand};
use passavant_admin::{
    client::{AdminClient, Entry},
    types::AuditQuery,
};
use passavant_host as system;
use passavant_host::plain;
use passavant_runtime::config::Config;
use serde_json::json;
use show::show;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Admin {
    /// The config whose administration API to use
    #[arg(long, value_name = "FILE", default_value = "passavant.toml", global = true)]
    config: PathBuf,
    /// Address of the administration API, instead of a config
    #[arg(long, value_name = "URL", global = true, requires = "secret_file")]
    url: Option<String>,
    /// File with the administration secret or an administrator's token; the config's secret unless given
    #[arg(long, value_name = "FILE", global = true)]
    secret_file: Option<PathBuf>,
    /// Administer this resource authorization server instead of the identity provider
    #[arg(long, value_name = "NAME", global = true)]
    ras: Option<String>,
    /// Print the API's JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// People at the identity provider
    #[command(subcommand)]
    User(User),
    /// Groups at the identity provider
    #[command(subcommand)]
    Group(Group),
    /// OAuth clients: MCP clients and agents
    #[command(subcommand)]
    Client(Client),
    /// Authorization servers of MCP servers, as the identity provider knows them
    #[command(subcommand)]
    Server(Server),
    /// MCP servers
    #[command(subcommand)]
    Resource(Resource),
    /// Who may use which client to reach which MCP servers; nothing is allowed without one
    #[command(subcommand)]
    Connection(Connection),
    /// Identity providers that a resource authorization server trusts (with --ras)
    #[command(subcommand)]
    Trust(Trust),
    /// Accounts at a resource authorization server (with --ras)
    #[command(subcommand)]
    Account(Account),
    /// Installations of Passavant that people have enrolled
    #[command(subcommand)]
    Installation(Installation),
    /// Origins of client metadata documents that a resource authorization server accepts (with --ras)
    #[command(subcommand)]
    ClientHost(ClientHost),
    /// Where people are signed in
    #[command(subcommand)]
    Session(SessionAct),
    /// Signing keys
    #[command(subcommand)]
    Key(Key),
    /// Administrators with names: each act is on record by theirs
    #[command(subcommand)]
    Administrator(Administrator),
    /// Tools behind the gateways that run beside this administration API
    #[command(subcommand)]
    Gateway(GatewayAct),
    /// What was granted and refused; the newest rows, the latest last
    Audit {
        /// Only this person, by user name or id
        #[arg(long)]
        person: Option<String>,
        /// Only this client
        #[arg(long)]
        client: Option<String>,
        /// Only `granted` or `refused`
        #[arg(long, value_parser = ["granted", "refused"])]
        outcome: Option<String>,
        /// Only this event; `admin.` for all acts of administrators
        #[arg(long)]
        event: Option<String>,
        /// Only acts of this administrator
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// How many, up to 1000
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Show people by their ids
        #[arg(long)]
        ids: bool,
    },
    /// Would this person, through this client, get these scopes on that MCP server?
    Explain {
        /// User name or id
        #[arg(long)]
        user: String,
        /// Client id at the identity provider
        #[arg(long)]
        client: String,
        /// The MCP server's resource identifier
        #[arg(long, value_name = "URL")]
        resource: String,
        /// Scopes, separated by spaces; all there are unless given
        #[arg(long)]
        scopes: Option<String>,
    },
}

/// One record.
#[derive(Args)]
struct ById {
    /// Its id, or what people call it
    #[arg(allow_hyphen_values = true)]
    id: String,
}

/// One record that goes.
#[derive(Args)]
struct Gone {
    /// Its id, or what people call it
    #[arg(allow_hyphen_values = true)]
    id: String,
    /// Say what would go with it, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand)]
enum User {
    /// Add a person; the password is read from standard input, or asked for
    Add {
        /// What they type to sign in
        name: String,
        #[arg(long)]
        email: Option<String>,
        /// The address is known to be theirs
        #[arg(long, requires = "email")]
        email_verified: bool,
        #[arg(long)]
        display_name: Option<String>,
        #[arg(long)]
        given_name: Option<String>,
        #[arg(long)]
        family_name: Option<String>,
        /// A group they are in; may be given several times
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// They cannot sign in with a password
        #[arg(long)]
        no_password: bool,
    },
    /// List people
    List,
    /// Show one person
    Show(ById),
    /// Change what is known of a person; what is not named stays, and `-` takes away
    Change {
        /// User name or id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// What they type to sign in
        #[arg(long)]
        username: Option<String>,
        #[arg(long, allow_hyphen_values = true)]
        email: Option<String>,
        /// Whether the address is known to be theirs
        #[arg(long, value_name = "BOOL")]
        email_verified: Option<bool>,
        #[arg(long, allow_hyphen_values = true)]
        display_name: Option<String>,
        #[arg(long, allow_hyphen_values = true)]
        given_name: Option<String>,
        #[arg(long, allow_hyphen_values = true)]
        family_name: Option<String>,
    },
    /// Cut a person off at once: sessions, refresh tokens, and every new token
    Disable(ById),
    /// Let a person sign in again; earlier sessions and tokens stay ended
    Enable(ById),
    /// Remove a person
    Delete(Gone),
    /// Set a password, read from standard input or asked for; signs the person out everywhere
    Password { name: String },
    /// Set the groups a person is in
    Groups { name: String, groups: Vec<String> },
}

#[derive(Subcommand)]
enum Group {
    /// Add a group
    Add {
        name: String,
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List groups
    List,
    /// Show one group
    Show(ById),
    /// Say what a group is for
    Change {
        #[arg(allow_hyphen_values = true)]
        id: String,
        #[arg(long)]
        description: String,
    },
    /// Remove a group and every membership of it; a connection for it alone is for nobody then
    Delete(Gone),
}

#[derive(Subcommand)]
enum Client {
    /// Register a client; prints its secret, once
    Add {
        /// What people call it
        name: String,
        /// Client ID [default: generated]
        #[arg(long)]
        id: Option<String>,
        /// Where sign-ins may return to; the port of a loopback address does not matter
        #[arg(long = "redirect-uri", value_name = "URL")]
        redirect_uris: Vec<String>,
        /// Where sign-outs may return to
        #[arg(long = "post-logout-redirect-uri", value_name = "URL")]
        post_logout_redirect_uris: Vec<String>,
        /// Lifetime of its ID tokens in seconds, up to 43200
        #[arg(long)]
        id_token_lifetime: Option<i64>,
        #[command(flatten)]
        manner: Manner,
        /// It authenticates with private_key_jwt by the keys in this JWK Set
        #[arg(long, value_name = "FILE")]
        jwks_file: Option<PathBuf>,
        /// It authenticates with private_key_jwt by the keys at this URL
        #[arg(long, value_name = "URL")]
        jwks_uri: Option<String>,
        /// The algorithm of those keys: ES256 (unless given), EdDSA, PS256 or RS256
        #[arg(long)]
        algorithm: Option<String>,
        /// It has no secret: anyone can claim to be it
        #[arg(long)]
        public: bool,
        /// Which MCP client it is for, so that `passavant install` writes native settings: vscode or
        /// claude-code
        #[arg(long)]
        software: Option<String>,
        /// It stands for this MCP server and may introspect its tokens (with --ras)
        #[arg(long = "resource", value_name = "URL")]
        resources: Vec<String>,
        /// Write the secret to this new file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        secret_out: Option<PathBuf>,
    },
    /// List clients
    List,
    /// Show one client
    Show(ById),
    /// Change a client's name, addresses, keys or manners; what is not named stays
    Change {
        #[arg(allow_hyphen_values = true)]
        id: String,
        #[arg(long)]
        name: Option<String>,
        /// Where sign-ins may return to, instead of what was registered
        #[arg(long = "redirect-uri", value_name = "URL")]
        redirect_uris: Vec<String>,
        /// Where sign-outs may return to, instead of what was registered
        #[arg(long = "post-logout-redirect-uri", value_name = "URL")]
        post_logout_redirect_uris: Vec<String>,
        /// Lifetime of its ID tokens in seconds, up to 43200
        #[arg(long)]
        id_token_lifetime: Option<i64>,
        #[command(flatten)]
        manner: Manner,
        /// Other keys, for a client that has keys: this JWK Set
        #[arg(long, value_name = "FILE")]
        jwks_file: Option<PathBuf>,
        /// Other keys: those at this URL
        #[arg(long, value_name = "URL", conflicts_with = "jwks_file")]
        jwks_uri: Option<String>,
        /// The algorithm of its keys: ES256, EdDSA, PS256 or RS256
        #[arg(long)]
        algorithm: Option<String>,
    },
    /// Disable a client immediately
    Disable(ById),
    /// Enable a client again
    Enable(ById),
    /// Remove a client
    Delete(Gone),
    /// Give a client a new secret; prints it, once
    Secret {
        id: String,
        /// How long the old secrets go on working, in seconds
        #[arg(long, default_value_t = 0)]
        overlap: i64,
    },
}

/// How a client speaks.
#[derive(Args)]
struct Manner {
    /// The algorithm of its ID tokens: ES256, EdDSA or RS256
    #[arg(long, value_name = "ALGORITHM")]
    id_token_algorithm: Option<String>,
    /// It must push its authorization requests (RFC 9126)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    require_par: Option<bool>,
    /// It may leave PKCE out; not for public clients
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pkce_optional: Option<bool>,
    /// It may sign people in by a code that they type in a browser elsewhere (RFC 8628)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    device_grant: Option<bool>,
    /// It gets no token without a DPoP proof (RFC 9449)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    require_dpop: Option<bool>,
}

#[derive(Subcommand)]
enum Server {
    /// Register an authorization server by its issuer identifier
    Add {
        issuer: String,
        #[arg(long, default_value = "")]
        name: String,
        /// Another value of `audience` that means it
        #[arg(long = "alias")]
        aliases: Vec<String>,
        /// A claim about the person that it may learn: email, auth_time, acr, amr
        #[arg(long = "release", value_name = "CLAIM")]
        release: Vec<String>,
        /// The algorithm of ID-JAGs for it: ES256, EdDSA or RS256; the identity provider's own unless given
        #[arg(long, value_name = "ALGORITHM")]
        id_jag_algorithm: Option<String>,
        /// The algorithm of its access tokens, for gateways that present them here: ES256 unless given
        #[arg(long, value_name = "ALGORITHM")]
        algorithm: Option<String>,
    },
    /// List authorization servers
    List,
    /// Show one authorization server
    Show(ById),
    /// Change what is known of an authorization server; what is not named stays
    Change {
        issuer: String,
        #[arg(long)]
        name: Option<String>,
        /// Another value of `audience` that means it, instead of those before
        #[arg(long = "alias")]
        aliases: Vec<String>,
        /// A claim about the person that it may learn, instead of those before: email, auth_time, acr, amr
        #[arg(long = "release", value_name = "CLAIM")]
        release: Vec<String>,
        /// The algorithm of ID-JAGs for it; `-` for the identity provider's own
        #[arg(long, value_name = "ALGORITHM", allow_hyphen_values = true)]
        id_jag_algorithm: Option<String>,
        /// The algorithm of its access tokens
        #[arg(long, value_name = "ALGORITHM")]
        algorithm: Option<String>,
    },
    /// Let nobody reach what it governs, at once
    Disable(ById),
    /// Let people reach it again
    Enable(ById),
    /// Remove an authorization server
    Delete(Gone),
}

#[derive(Subcommand)]
enum Resource {
    /// Register an MCP server by its resource identifier
    Add {
        // Not `url`: that is the address the administration secret is sent to.
        #[arg(value_name = "URL")]
        resource: String,
        /// Issuer of its authorization server (at the identity provider)
        #[arg(long, value_name = "ISSUER")]
        server: Option<String>,
        #[arg(long, default_value = "")]
        name: String,
        /// The scopes it knows, separated by spaces
        #[arg(long, default_value = "")]
        scopes: String,
        /// Scopes granted where an ID-JAG names none (with --ras)
        #[arg(long, default_value = "")]
        default_scopes: String,
        /// What a scope lets somebody do, for the page that asks people: SCOPE=TEXT (with --ras)
        #[arg(long = "scope-text", value_name = "SCOPE=TEXT")]
        scope_texts: Vec<String>,
        /// The algorithm of its access tokens: ES256, EdDSA or RS256; the server's own unless given (with --ras)
        #[arg(long, value_name = "ALGORITHM")]
        algorithm: Option<String>,
        /// Take only DPoP-bound tokens (with --ras)
        #[arg(long)]
        require_dpop: bool,
        /// Lifetime of its access tokens in seconds, up to 3600 (with --ras)
        #[arg(long)]
        access_token_lifetime: Option<i64>,
    },
    /// List MCP servers
    List,
    /// Show one MCP server
    Show(ById),
    /// Change what is known of an MCP server; what is not named stays
    Change {
        #[arg(value_name = "URL")]
        resource: String,
        #[arg(long)]
        name: Option<String>,
        /// The scopes it knows, separated by spaces
        #[arg(long)]
        scopes: Option<String>,
        /// Scopes granted where an ID-JAG names none (with --ras)
        #[arg(long)]
        default_scopes: Option<String>,
        /// What a scope lets somebody do, instead of all before: SCOPE=TEXT (with --ras)
        #[arg(long = "scope-text", value_name = "SCOPE=TEXT")]
        scope_texts: Vec<String>,
        /// The algorithm of its access tokens; `-` for the server's own (with --ras)
        #[arg(long, value_name = "ALGORITHM", allow_hyphen_values = true)]
        algorithm: Option<String>,
        /// Whether it takes only DPoP-bound tokens (with --ras)
        #[arg(long, value_name = "BOOL")]
        require_dpop: Option<bool>,
        /// Lifetime of its access tokens in seconds, up to 3600 (with --ras)
        #[arg(long)]
        access_token_lifetime: Option<i64>,
    },
    /// Let nobody reach it, at once
    Disable(ById),
    /// Let people reach it again
    Enable(ById),
    /// Remove an MCP server
    Delete(Gone),
}

#[derive(Subcommand)]
enum Connection {
    /// Allow people to reach MCP servers through a client
    Add {
        /// What to call it
        id: String,
        /// The client, by its id at the identity provider; `passavant` for the installations that
        /// people enrol with `passavant login`
        #[arg(long)]
        client: String,
        /// Issuer of the authorization server
        #[arg(long, value_name = "ISSUER")]
        audience: String,
        /// The client's id at that authorization server; may be left out for `passavant`, whose
        /// installations are known by the URLs of their metadata documents
        #[arg(long, value_name = "ID")]
        ras_client_id: Option<String>,
        /// An MCP server; may be given several times
        #[arg(long = "resource", value_name = "URL", required = true)]
        resources: Vec<String>,
        /// The scopes it grants at most, separated by spaces
        #[arg(long, default_value = "")]
        scopes: String,
        /// For the members of a group
        #[arg(long = "group")]
        groups: Vec<String>,
        /// For one person
        #[arg(long = "user")]
        users: Vec<String>,
        /// For everyone who can sign in
        #[arg(long)]
        everyone: bool,
        /// The sign-in may be at most this old, in seconds
        #[arg(long, value_name = "SECONDS")]
        max_age: Option<i64>,
        /// The sign-in must have reached this class; may be given several times
        #[arg(long = "acr", value_name = "CLASS")]
        acr_values: Vec<String>,
    },
    /// List connections
    List,
    /// Show one connection
    Show(ById),
    /// Change a connection; what is not named stays. Another client or authorization server is another connection
    Change {
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// The client's id at the authorization server
        #[arg(long, value_name = "ID")]
        ras_client_id: Option<String>,
        /// An MCP server, instead of those before; may be given several times
        #[arg(long = "resource", value_name = "URL")]
        resources: Vec<String>,
        /// The scopes it grants at most, separated by spaces
        #[arg(long)]
        scopes: Option<String>,
        /// For the members of a group, instead of those before
        #[arg(long = "group")]
        groups: Vec<String>,
        /// For no group any more
        #[arg(long, conflicts_with = "groups")]
        no_groups: bool,
        /// For one person, instead of those before
        #[arg(long = "user")]
        users: Vec<String>,
        /// For nobody by name any more
        #[arg(long, conflicts_with = "users")]
        no_users: bool,
        /// For everyone who can sign in, or not
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        everyone: Option<bool>,
        /// The sign-in may be at most this old, in seconds
        #[arg(long, value_name = "SECONDS")]
        max_age: Option<i64>,
        /// The sign-in must have reached this class; may be given several times
        #[arg(long = "acr", value_name = "CLASS")]
        acr_values: Vec<String>,
        /// The sign-in may be as it is, but for what is named here
        #[arg(long)]
        no_conditions: bool,
    },
    /// Switch a connection off
    Disable(ById),
    /// Switch a connection on
    Enable(ById),
    /// Remove a connection
    Delete(Gone),
}

#[derive(Subcommand)]
enum Key {
    /// List the keys that sign, or verify what was signed
    List,
    /// Make a new one: it is published at once and signs ten minutes later
    Rotate {
        /// It signs at once, because the one before is in other hands (then remove that); servers that keep our keys
        /// may refuse what it signs for ten seconds
        #[arg(long)]
        now: bool,
        /// The key of this algorithm: ES256, EdDSA or RS256; the server's own unless given
        #[arg(long)]
        algorithm: Option<String>,
    },
    /// Remove a key and those before it: nothing they signed is believed here any more, and within five minutes by
    /// servers that keep our keys
    Remove {
        /// Its id, as `list` shows it
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
}

#[derive(Subcommand)]
enum Administrator {
    /// Add an administrator of the identity provider, or with --ras of that authorization server; prints a token, once
    Add {
        /// Their name in the audit trail, for instance an e-mail address
        name: String,
        /// owner: everything; admin: all but administrators; helpdesk: see and cut off; auditor: see
        #[arg(long, value_parser = ["owner", "admin", "helpdesk", "auditor"])]
        role: String,
        #[command(flatten)]
        token: Token,
    },
    /// List administrators
    List,
    /// Give an administrator another role; their token stays
    Change {
        name: String,
        #[arg(long, value_parser = ["owner", "admin", "helpdesk", "auditor"])]
        role: String,
    },
    /// Give an administrator another token; the one before ends at once
    Renew {
        name: String,
        #[command(flatten)]
        token: Token,
    },
    /// Remove an administrator; their token ends at once
    Delete(Gone),
}

/// An administrator's token.
#[derive(Args)]
struct Token {
    /// How many days it is good for: 90 unless given, 366 at most
    #[arg(long)]
    days: Option<i64>,
    /// Write it to this new file (mode 0600) instead of printing it, for --secret-file
    #[arg(long, value_name = "FILE")]
    token_out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Trust {
    /// Honour the ID-JAGs of an identity provider
    Add {
        issuer: String,
        /// The algorithm it signs with: ES256, EdDSA, PS256 or RS256
        #[arg(long, default_value = "ES256")]
        algorithm: String,
        /// URL of its keys, where its discovery document does not tell
        #[arg(long, value_name = "URL")]
        jwks_uri: Option<String>,
        /// Value that its `tenant` claim must have
        #[arg(long)]
        tenant: Option<String>,
        /// Value that its `aud_tenant` claim must have, where it names one of this server's tenants
        #[arg(long, value_name = "TENANT")]
        aud_tenant: Option<String>,
        /// Make an account for a person at first sight
        #[arg(long)]
        just_in_time: bool,
        /// Link existing accounts by addresses in this domain, which the issuer owns
        #[arg(long = "email-domain", value_name = "DOMAIN")]
        email_domains: Vec<String>,
        /// Accept the installations of Passavant that its people enrol there as clients
        #[arg(long)]
        installations: bool,
    },
    /// Let its people sign in in the browser where their client has no cross-app access, or forbid it
    SignIn {
        issuer: String,
        /// This authorization server's client id there; it authenticates by the keys at its /jwks
        #[arg(long, value_name = "ID", required_unless_present = "off")]
        client_id: Option<String>,
        /// People whose addresses are in this domain are sent there; needed where there are several issuers
        #[arg(long = "domain", value_name = "DOMAIN")]
        domains: Vec<String>,
        /// Disallow sign-in in the browser, and end the sessions that it created
        #[arg(long, conflicts_with_all = ["client_id", "domains"])]
        off: bool,
    },
    /// List trusted identity providers
    List,
    /// Show one trusted identity provider
    Show(ById),
    /// Change how one is trusted; what is not named stays
    Change {
        issuer: String,
        /// The algorithm it signs with: ES256, EdDSA, PS256 or RS256
        #[arg(long)]
        algorithm: Option<String>,
        /// URL of its keys; `-` where its discovery document tells
        #[arg(long, value_name = "URL", allow_hyphen_values = true)]
        jwks_uri: Option<String>,
        /// Value that its `aud_tenant` claim must have; `-` for none
        #[arg(long, value_name = "TENANT", allow_hyphen_values = true)]
        aud_tenant: Option<String>,
        /// Whether an account is made for a person at first sight
        #[arg(long, value_name = "BOOL")]
        just_in_time: Option<bool>,
        /// Link existing accounts by addresses in this domain, instead of those before
        #[arg(long = "email-domain", value_name = "DOMAIN")]
        email_domains: Vec<String>,
        /// Whether installations that its people enrol there are accepted as clients
        #[arg(long, value_name = "BOOL")]
        installations: Option<bool>,
    },
    /// Stop trusting this issuer immediately
    Disable(ById),
    /// Trust it again
    Enable(ById),
    /// Remove it
    Delete(Gone),
}

#[derive(Subcommand)]
enum Installation {
    /// List them, those used last first, 1000 at most
    List {
        /// Only this person's
        #[arg(long)]
        user: Option<String>,
    },
    /// Cut one off at once
    Revoke(ById),
}

#[derive(Subcommand)]
enum SessionAct {
    /// List sign-ins that stand, 1000 at most
    List {
        /// Only this person's: user name or id; with --ras an account
        #[arg(long)]
        user: Option<String>,
    },
    /// End one, and every token that it brought
    End(ById),
}

#[derive(Subcommand)]
enum ClientHost {
    /// Accept clients whose metadata documents are at this origin: scheme, host, and port if any
    Add { origin: String },
    /// List the origins
    List,
    /// Reject client documents of this origin immediately
    Disable(ById),
    /// Accept client documents of this origin again
    Enable(ById),
    /// Remove it
    Delete(Gone),
}

#[derive(Subcommand)]
enum GatewayAct {
    /// List known tools, and how those differ that changed since they were approved
    Tools,
    /// Approve one description of a tool, as `tools` shows it. To approve again the one that is approved says that
    /// the others were looked at and are not wanted
    Approve {
        /// The MCP server's resource identifier
        #[arg(value_name = "URL")]
        resource: String,
        /// The tool
        tool: String,
        /// Which description: the fingerprint that `tools` shows
        fingerprint: String,
    },
}

#[derive(Subcommand)]
enum Account {
    /// Add an account that people can be linked to by address
    Add { email: String },
    /// List accounts
    List,
    /// Show one account
    Show(ById),
    /// Change an account's address; `-` takes it away
    Change {
        #[arg(allow_hyphen_values = true)]
        id: String,
        #[arg(long, allow_hyphen_values = true)]
        email: String,
    },
    /// Whom an account belongs to: people of trusted issuers
    Links(ById),
    /// Take an account away from somebody it was linked to by mistake; what they hold ends
    Unlink {
        /// The trusted issuer
        issuer: String,
        /// Its `sub` for them
        subject: String,
        /// Its tenant, where it has several
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Remove an account and all its links
    Delete(Gone),
    /// Switch an account off
    Disable(ById),
    /// Switch an account on
    Enable(ById),
}

pub(crate) async fn run(args: Admin) -> Result<()> {
    let tells = args.subject.cuts_off() && !args.json;
    act(args).await?;
    if tells {
        println!(
            "Nothing new is granted from now on. Access tokens that are out end within minutes; at once \
             where the MCP server asks about them."
        );
    }
    Ok(())
}

impl Subject {
    /// Whether it takes away what somebody had.
    fn cuts_off(&self) -> bool {
        let gone = match self {
            Self::User(User::Delete(gone))
            | Self::Client(Client::Delete(gone))
            | Self::Connection(Connection::Delete(gone))
            | Self::Server(Server::Delete(gone))
            | Self::Resource(Resource::Delete(gone))
            | Self::Trust(Trust::Delete(gone))
            | Self::Account(Account::Delete(gone)) => Some(gone),
            _ => None,
        };
        gone.is_some_and(|gone| !gone.dry_run)
            || matches!(
                self,
                Self::User(User::Disable(_))
                    | Self::Client(Client::Disable(_))
                    | Self::Connection(Connection::Disable(_))
                    | Self::Server(Server::Disable(_))
                    | Self::Resource(Resource::Disable(_))
                    | Self::Installation(Installation::Revoke(_))
                    | Self::Session(SessionAct::End(_))
                    | Self::Trust(Trust::Disable(_))
                    | Self::Account(Account::Disable(_) | Account::Unlink { .. })
            )
    }
}

/// The options that name the same server again.
fn again(args: &Admin) -> String {
    let mut words = String::new();
    let default = PathBuf::from("passavant.toml");
    if let Some(url) = &args.url {
        words.push_str(&format!(" --url {}", system::quoted(&plain(url))));
    } else if args.config != default {
        words
            .push_str(&format!(" --config {}", system::quoted(&args.config.display().to_string())));
    }
    if let Some(name) = &args.ras {
        words.push_str(&format!(" --ras {}", system::quoted(&plain(name))));
    }
    words
}

#[cfg(unix)]
fn is_open(socket: &std::path::Path) -> bool {
    system::is_own_socket(socket)
}

#[cfg(not(unix))]
fn is_open(_: &std::path::Path) -> bool {
    false
}

/// The administration API that the options name: by default the local owner's, at the socket beside the config.
fn api_of(args: &Admin) -> Result<Api> {
    let outbound = system::outbound(&[])?;
    // As the server reads it.
    let mut shared = system::Shared::Group;
    let (base, secret_file) = match (&args.url, &args.secret_file) {
        (Some(url), Some(file)) => (url.trim_end_matches('/').to_owned(), file.clone()),
        _ => {
            let config = Config::read(&args.config)?;
            shared = config.secrets;
            let admin = config.admin.context("the config has no [admin] table")?;
            if args.secret_file.is_none()
                && let Some(socket) = admin.socket.path().filter(|path| is_open(path))
            {
                let at = AdminClient::new(
                    "http://127.0.0.1",
                    Entry::Socket,
                    system::entropy(),
                    outbound.at_socket(socket),
                );
                return Ok(Api::new(at, args.ras.as_deref(), again(args)));
            }
            let file = args.secret_file.clone().unwrap_or(admin.secret_file);
            (format!("http://{}", admin.listen), file)
        }
    };
    let secret = system::read_secret(&secret_file, shared)?;
    let at = AdminClient::new(&base, Entry::Secret(secret), system::entropy(), outbound);
    Ok(Api::new(at, args.ras.as_deref(), again(args)))
}

async fn act(args: Admin) -> Result<()> {
    let api = api_of(&args)?;
    let value = match args.subject {
        Subject::User(user) => users(&api, user).await?,
        Subject::Group(group) => groups(&api, group).await?,
        Subject::Client(client) => clients(&api, client).await?,
        Subject::Server(server) => servers(&api, server).await?,
        Subject::Resource(resource) => resources(&api, resource).await?,
        Subject::Connection(connection) => connections(&api, connection).await?,
        Subject::Trust(trust) => trusts(&api, trust).await?,
        Subject::Account(account) => accounts(&api, account).await?,
        Subject::Key(act) => keys(&api, act).await?,
        Subject::Administrator(act) => return administrators(&api, act, args.json).await,
        Subject::Installation(installation) => {
            return installations(&api, installation, args.json).await;
        }
        Subject::Session(act) => return sessions(&api, act, args.json).await,
        Subject::ClientHost(host) => client_hosts(&api, host).await?,
        Subject::Gateway(act) => return gateway(&api, act, args.json).await,
        Subject::Audit { person, client, outcome, event, by, limit, ids } => {
            let outcome = outcome.map(|word| serde_json::from_value(word.into())).transpose()?;
            let limit = Some(i64::from(limit));
            let wanted = AuditQuery { person, client, outcome, event, by, before: None, limit };
            let rows = api.server.audit(&wanted).await?.items;
            if !args.json {
                print!("{}", audit_table(&serde_json::to_value(rows)?, ids));
                return Ok(());
            }
            serde_json::to_value(rows)?
        }
        Subject::Explain { user, client, resource, scopes } => {
            let question = json!({"user": user, "client": client, "resource": resource,
                                  "scopes": scopes.map(|s| words(&s))});
            let answer = api.server.explain(&acts::typed(question)?).await?;
            if !args.json {
                println!("{}\nrule: {}", plain(&answer.text), plain(&answer.rule));
                return Ok(());
            }
            serde_json::to_value(answer)?
        }
    };
    show(&value, args.json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use passavant_proto::secret::Secret;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        admin: Admin,
    }

    /// Whoever holds the port answers each connection with the next text, and keeps what it was sent.
    async fn squat(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let squatter = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 16 * 1024];
                let read = stream.read(&mut bytes).await.unwrap();
                seen.extend_from_slice(&bytes[..read]);
                let length = answer.len();
                let text = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{answer}"
                );
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            seen
        });
        (base, squatter)
    }

    #[tokio::test]
    async fn whoever_holds_the_port_is_not_given_the_secret_and_not_believed() {
        let cases: [&[&str]; 4] = [
            &["[]"],
            &["{}"],
            &[r#"{"challenge":"1.x.y"}"#, "[]"],
            &[r#"{"challenge":"1.x.y"}"#, r#"[{"username":"erin"}]"#],
        ];
        for answers in cases {
            let (base, squatter) = squat(answers).await;
            let secret = Secret::new("the-administration-secret-of-43-characters");
            let hash = secret.hash();
            let outbound = system::outbound(&[]).unwrap();
            let at = AdminClient::new(&base, Entry::Secret(secret), system::entropy(), outbound);
            let api = Api::new(at, None, String::new());
            let error = users(&api, User::List).await.unwrap_err().to_string();
            assert!(error.contains("the secret was not sent"), "{error}");
            let seen = String::from_utf8(squatter.await.unwrap()).unwrap();
            assert!(!seen.contains("the-administration-secret"), "{seen}");
            assert!(!seen.contains(&hash), "{seen}");
        }
    }

    #[test]
    fn no_argument_of_a_command_changes_where_the_secret_is_sent() {
        let api = "http://127.0.0.1:7400";
        for command in [
            &["resource", "add", "https://evil.example/mcp", "--server", "https://as.example"][..],
            &["resource", "delete", "https://evil.example/mcp"],
            &["server", "add", "https://evil.example"],
            &["client", "add", "x", "--redirect-uri", "https://evil.example"],
            &["trust", "add", "https://evil.example"],
        ] {
            let base = ["admin", "--url", api, "--secret-file", "file"];
            let parsed = Cli::try_parse_from(base.iter().chain(command)).unwrap();
            assert_eq!(parsed.admin.url.as_deref(), Some(api), "{command:?}");
        }
    }
}
