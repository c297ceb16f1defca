//! The commands of `passavant admin`, as they are typed.

mod upstream;

use super::cut_off::{CutOff, EXIT_CODES};
use super::signals::{Stream, Transmitter};
use clap::{Args, Subcommand};
use std::path::PathBuf;
pub(super) use upstream::{Upstream, UpstreamOptions};

#[derive(Subcommand)]
pub(super) enum Noun {
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
    /// The company's own identity providers, at which people sign in
    #[command(subcommand)]
    Upstream(Upstream),
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
    /// Other parties whose signals about people count here (OpenID Shared Signals Framework)
    #[command(subcommand)]
    Transmitter(Transmitter),
    /// Streams of clients that listen to signals about people
    #[command(subcommand)]
    Stream(Stream),
    /// Where people are signed in
    #[command(subcommand)]
    Session(SessionAct),
    /// Signing keys
    #[command(subcommand)]
    Key(Key),
    /// Administrators with names: each act is on record by theirs
    #[command(subcommand)]
    Administrator(Administrator),
    /// End all that somebody or something has, at once and everywhere, and say where and when it has ended
    #[command(subcommand, after_help = EXIT_CODES)]
    CutOff(CutOff),
    /// Tools behind the gateways that run beside this administration API
    #[command(subcommand)]
    Gateway(GatewayAct),
    /// What was granted and refused; the newest rows, the latest last
    Audit {
        /// Only this person, by user name or id
        #[arg(long, allow_hyphen_values = true)]
        person: Option<String>,
        /// Only this client
        #[arg(long, allow_hyphen_values = true)]
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
        #[arg(long, allow_hyphen_values = true)]
        user: String,
        /// Client id at the identity provider
        #[arg(long, allow_hyphen_values = true)]
        client: String,
        /// The MCP server's resource identifier
        #[arg(long, value_name = "URL")]
        resource: String,
        /// Scopes, separated by spaces; all there are unless given
        #[arg(long)]
        scopes: Option<String>,
        /// The class that their sign-in reached; that of a password unless given
        #[arg(long, value_name = "CLASS")]
        acr: Option<String>,
    },
}

/// One record.
#[derive(Args)]
pub(super) struct ById {
    /// Its id, or what people call it
    #[arg(allow_hyphen_values = true)]
    pub(super) id: String,
}

/// One record that goes.
#[derive(Args, Default)]
pub(super) struct Listing {
    /// Only those with this text in their id or name; people also by e-mail address and display name
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) search: Option<String>,
}

#[derive(Args)]
pub(super) struct Gone {
    /// Its id, or what people call it
    #[arg(allow_hyphen_values = true)]
    pub(super) id: String,
    /// Say what would go with it, and delete nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Subcommand)]
pub(super) enum User {
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
        /// What else is known of them, by the names of SCIM, for instance employeeNumber=0042; may be given several times
        #[arg(long = "attribute", value_name = "NAME=VALUE")]
        attributes: Vec<String>,
        /// They cannot sign in with a password
        #[arg(long)]
        no_password: bool,
    },
    /// List people
    List(Listing),
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
        /// What else is known of them, in place of all before; `-` for nothing
        #[arg(long = "attribute", value_name = "NAME=VALUE", allow_hyphen_values = true)]
        attributes: Vec<String>,
    },
    /// Cut a person off at once: sessions, refresh tokens, and every new token
    Disable(ById),
    /// Let a person sign in again; earlier sessions and tokens stay ended
    Enable(ById),
    /// Remove a person
    Delete(Gone),
    /// Set a password, read from standard input or asked for; signs the person out everywhere
    Password { name: String },
    /// Make a link by which somebody who cannot sign in any more gets in once; it is shown once
    RecoveryLink {
        /// User name or id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// After how many hours it ends
        #[arg(long, default_value_t = 24)]
        hours: i64,
        /// Also end their passkeys, one-time passwords, password and sign-ins, at once: a device was stolen
        #[arg(long)]
        forget_factors: bool,
    },
    /// Set the groups a person is in
    Groups { name: String, groups: Vec<String> },
}

#[derive(Subcommand)]
pub(super) enum Group {
    /// Add a group
    Add {
        name: String,
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List groups
    List(Listing),
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
pub(super) enum Client {
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
        /// Where it is told that a session has ended (OpenID Connect Back-Channel Logout)
        #[arg(long, value_name = "URL")]
        backchannel_logout_uri: Option<String>,
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
        /// Its entity ID at a SAML identity provider that is an upstream: it may exchange assertions for a refresh token
        #[arg(long, value_name = "ID")]
        saml_entity_id: Option<String>,
        /// It may listen to signals about people: about those who signed in to it (its_people), or everyone
        #[arg(long, value_name = "ABOUT", value_parser = ["its_people", "everyone"])]
        signals: Option<String>,
        /// Write the secret to this new file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        secret_out: Option<PathBuf>,
    },
    /// List clients
    List(Listing),
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
        /// Where it is told that a session has ended; `-` for nowhere
        #[arg(long, value_name = "URL", allow_hyphen_values = true)]
        backchannel_logout_uri: Option<String>,
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
        /// Its entity ID at a SAML identity provider; `-` for none
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        saml_entity_id: Option<String>,
        /// It may listen to signals about people: its_people or everyone; `-` for nobody
        #[arg(long, value_name = "ABOUT", allow_hyphen_values = true, value_parser = ["its_people", "everyone", "-"])]
        signals: Option<String>,
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
pub(super) struct Manner {
    /// The algorithm of its ID tokens: ES256, EdDSA or RS256
    #[arg(long, value_name = "ALGORITHM")]
    pub(super) id_token_algorithm: Option<String>,
    /// It must push its authorization requests (RFC 9126)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) require_par: Option<bool>,
    /// It may leave PKCE out; not for public clients
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) pkce_optional: Option<bool>,
    /// It may sign people in by a code that they type in a browser elsewhere (RFC 8628)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) device_grant: Option<bool>,
    /// It gets no token without a DPoP proof (RFC 9449)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) require_dpop: Option<bool>,
}

#[derive(Subcommand)]
pub(super) enum Server {
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
        /// Its own name for the company's tenant there, if it has several: `aud_tenant` of ID-JAGs for it
        #[arg(long, value_name = "TENANT", allow_hyphen_values = true)]
        aud_tenant: Option<String>,
        /// What of a person `aud_sub` of ID-JAGs for it says: email, username, or an attribute such as employeeNumber
        #[arg(long, value_name = "WHAT")]
        aud_sub: Option<String>,
        /// What `sub_id` of ID-JAGs for it says: saml-nameid, for one whose people sign in by SAML, too
        #[arg(long, value_name = "FORMAT", value_parser = ["saml-nameid"])]
        sub_id: Option<String>,
        /// The algorithm of ID-JAGs for it: ES256, EdDSA or RS256; the identity provider's own unless given
        #[arg(long, value_name = "ALGORITHM")]
        id_jag_algorithm: Option<String>,
        /// The algorithm of its access tokens, for gateways that present them here: ES256 unless given
        #[arg(long, value_name = "ALGORITHM")]
        algorithm: Option<String>,
    },
    /// List authorization servers
    List(Listing),
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
        /// `aud_tenant` of ID-JAGs for it; `-` for none
        #[arg(long, value_name = "TENANT", allow_hyphen_values = true)]
        aud_tenant: Option<String>,
        /// What of a person `aud_sub` says; `-` for nothing
        #[arg(long, value_name = "WHAT", allow_hyphen_values = true)]
        aud_sub: Option<String>,
        /// What `sub_id` says: saml-nameid; `-` for nothing
        #[arg(long, value_name = "FORMAT", allow_hyphen_values = true)]
        sub_id: Option<String>,
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
pub(super) enum Resource {
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
    List(Listing),
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
pub(super) enum Connection {
    /// Allow people to reach MCP servers through a client
    Add {
        /// What to call it
        id: String,
        /// The client, by its id at the identity provider; `passavant` for the installations that
        /// people enrol with `passavant login`
        #[arg(long, allow_hyphen_values = true)]
        client: String,
        /// Issuer of the authorization server
        #[arg(long, value_name = "ISSUER")]
        audience: String,
        /// The client's id at that authorization server; may be left out for `passavant`, whose
        /// installations are known by the URLs of their metadata documents
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
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
    List(Listing),
    /// Show one connection
    Show(ById),
    /// Change a connection; what is not named stays. Another client or authorization server is another connection
    Change {
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// The client's id at the authorization server
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
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
pub(super) enum Key {
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
    /// Have the next key sign in place of this one, at once; what this one signed is still believed. If the next one was
    /// not published yet, servers that keep our keys may refuse what it signs for ten seconds
    Retire {
        /// Its id, as `list` shows it
        #[arg(allow_hyphen_values = true)]
        kid: String,
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
pub(super) enum Administrator {
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
    List(Listing),
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
pub(super) struct Token {
    /// How many days it is good for: 90 unless given, 366 at most
    #[arg(long)]
    pub(super) days: Option<i64>,
    /// Write it to this new file (mode 0600) instead of printing it, for --secret-file
    #[arg(long, value_name = "FILE")]
    pub(super) token_out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Trust {
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
        #[arg(
            long,
            value_name = "ID",
            required_unless_present = "off",
            allow_hyphen_values = true
        )]
        client_id: Option<String>,
        /// People whose addresses are in this domain are sent there; needed where there are several issuers
        #[arg(long = "domain", value_name = "DOMAIN")]
        domains: Vec<String>,
        /// Disallow sign-in in the browser, and end the sessions that it created
        #[arg(long, conflicts_with_all = ["client_id", "domains"])]
        off: bool,
    },
    /// List trusted identity providers
    List(Listing),
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
pub(super) enum Installation {
    /// List them, those used last first, 1000 at most
    List {
        /// Only this person's
        #[arg(long, allow_hyphen_values = true)]
        user: Option<String>,
    },
    /// Cut one off at once
    Revoke(ById),
}

#[derive(Subcommand)]
pub(super) enum SessionAct {
    /// List sign-ins that stand, 1000 at most
    List {
        /// Only this person's: user name or id; with --ras an account
        #[arg(long, allow_hyphen_values = true)]
        user: Option<String>,
    },
    /// End one, and every token that it brought
    End(ById),
}

#[derive(Subcommand)]
pub(super) enum ClientHost {
    /// Accept clients whose metadata documents are at this origin: scheme, host, and port if any
    Add { origin: String },
    /// List the origins
    List(Listing),
    /// Reject client documents of this origin immediately
    Disable(ById),
    /// Accept client documents of this origin again
    Enable(ById),
    /// Remove it
    Delete(Gone),
}

#[derive(Subcommand)]
pub(super) enum GatewayAct {
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
pub(super) enum Account {
    /// Add an account that people can be linked to by address
    Add { email: String },
    /// List accounts
    List(Listing),
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
        #[arg(allow_hyphen_values = true)]
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

impl Noun {
    /// Whether it takes away what somebody had.
    pub(super) fn cuts_off(&self) -> bool {
        let gone = match self {
            Self::User(User::Delete(gone))
            | Self::Client(Client::Delete(gone))
            | Self::Connection(Connection::Delete(gone))
            | Self::Server(Server::Delete(gone))
            | Self::Resource(Resource::Delete(gone))
            | Self::Trust(Trust::Delete(gone))
            | Self::Upstream(Upstream::Delete(gone))
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
                    | Self::Upstream(Upstream::Disable(_) | Upstream::Unlink { .. })
                    | Self::Account(Account::Disable(_) | Account::Unlink { .. })
            )
    }
}
