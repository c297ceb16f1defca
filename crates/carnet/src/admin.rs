//! `carnet admin`: a thin client of the administration API.

use crate::{
    config::Config,
    system::{self, plain},
};
use anyhow::{Context, Result, bail};
use carnet_client::{Outbound, Reach};
use carnet_proto::secret::Secret;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Admin {
    /// The config whose administration API to use
    #[arg(long, value_name = "FILE", default_value = "carnet.toml", global = true)]
    config: PathBuf,
    /// Address of the administration API, instead of a config
    #[arg(long, value_name = "URL", global = true, requires = "secret_file")]
    url: Option<String>,
    /// File with the administration secret, with --url
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
    /// Installations of Carnet that people have enrolled
    #[command(subcommand)]
    Installation(Installation),
    /// Origins of client metadata documents that a resource authorization server accepts (with --ras)
    #[command(subcommand)]
    ClientHost(ClientHost),
    /// What was granted and refused; the newest rows, the latest last
    Audit {
        /// Only this person, by user id
        #[arg(long)]
        person: Option<String>,
        /// Only this client
        #[arg(long)]
        client: Option<String>,
        /// Only `granted` or `refused`
        #[arg(long)]
        outcome: Option<String>,
        /// How many, up to 1000
        #[arg(long, default_value_t = 20)]
        limit: u16,
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
    Show { name: String },
    /// Cut a person off at once: sessions, refresh tokens, and every new token
    Disable { name: String },
    /// Let a person sign in again; nothing of before comes back
    Enable { name: String },
    /// Remove a person
    Delete { name: String },
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
    /// Remove a group and every membership of it
    Delete { name: String },
}

#[derive(Subcommand)]
enum Client {
    /// Register a client; prints its secret, once
    Add {
        /// What people call it
        name: String,
        /// Its id; made up unless given
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
        /// It authenticates with private_key_jwt by the keys in this JWK Set
        #[arg(long, value_name = "FILE")]
        jwks_file: Option<PathBuf>,
        /// It authenticates with private_key_jwt by the keys at this URL
        #[arg(long, value_name = "URL")]
        jwks_uri: Option<String>,
        /// It has no secret: anyone can claim to be it
        #[arg(long)]
        public: bool,
        /// Which MCP client it is for, so that `carnet install` writes native settings: vscode or
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
    /// Refuse a client everything, at once
    Disable { id: String },
    /// Let a client work again
    Enable { id: String },
    /// Remove a client
    Delete { id: String },
    /// Give a client a new secret; prints it, once
    Secret {
        id: String,
        /// How long the old secrets go on working, in seconds
        #[arg(long, default_value_t = 0)]
        overlap: i64,
    },
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
    },
    /// List authorization servers
    List,
    /// Remove an authorization server
    Delete { issuer: String },
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
        /// Take only DPoP-bound tokens (with --ras)
        #[arg(long)]
        require_dpop: bool,
        /// Lifetime of its access tokens in seconds, up to 3600 (with --ras)
        #[arg(long)]
        access_token_lifetime: Option<i64>,
    },
    /// List MCP servers
    List,
    /// Remove an MCP server
    Delete {
        #[arg(value_name = "URL")]
        resource: String,
    },
}

#[derive(Subcommand)]
enum Connection {
    /// Allow people to reach MCP servers through a client
    Add {
        /// What to call it
        id: String,
        /// The client, by its id at the identity provider; `carnet` for the installations that
        /// people enrol with `carnet login`
        #[arg(long)]
        client: String,
        /// Issuer of the authorization server
        #[arg(long, value_name = "ISSUER")]
        audience: String,
        /// The client's id at that authorization server; may be left out for `carnet`, whose
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
    /// Switch a connection off
    Disable { id: String },
    /// Switch a connection on
    Enable { id: String },
    /// Remove a connection
    Delete { id: String },
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
        /// Make an account for a person at first sight
        #[arg(long)]
        just_in_time: bool,
        /// Link existing accounts by addresses in this domain, which the issuer owns
        #[arg(long = "email-domain", value_name = "DOMAIN")]
        email_domains: Vec<String>,
        /// Accept the installations of Carnet that its people enrol there as clients
        #[arg(long)]
        installations: bool,
    },
    /// List trusted identity providers
    List,
    /// Honour nothing of it any more, at once
    Disable { issuer: String },
    /// Honour it again
    Enable { issuer: String },
    /// Remove it
    Delete { issuer: String },
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
    Revoke { id: String },
}

#[derive(Subcommand)]
enum ClientHost {
    /// Accept clients whose metadata documents are at this origin: scheme, host, and port if any
    Add { origin: String },
    /// List the origins
    List,
    /// Accept no document of it any more, at once
    Disable { origin: String },
    /// Accept them again
    Enable { origin: String },
    /// Remove it
    Delete { origin: String },
}

#[derive(Subcommand)]
enum Account {
    /// Add an account that people can be linked to by address
    Add { email: String },
    /// List accounts
    List,
    /// Switch an account off
    Disable { id: String },
    /// Switch an account on
    Enable { id: String },
}

/// The administration API of one role.
struct Api {
    base: String,
    role: String,
    secret: Secret,
    outbound: Outbound,
}

impl Api {
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let url = format!("{}{}{path}", self.base, self.role);
        let bearer = Some(self.secret.expose());
        let answer = self
            .outbound
            .json(method, &url, Reach::Loopback, bearer, body.as_ref())
            .await
            .with_context(|| {
                format!(
                    "the administration API at {} is not there\nhint: is `carnet serve` running?",
                    self.base
                )
            })?;
        let value: Value = answer.json().unwrap_or(Value::Null);
        match answer.status {
            200..=299 => Ok(value),
            404 if value.is_null() => {
                bail!(
                    "this is not offered for {}\nhint: some things need --ras NAME, others must \
                       not have it",
                    if self.role == "/idp" {
                        "the identity provider"
                    } else {
                        "a \
                       resource authorization server, or there is none of this name"
                    }
                )
            }
            status => {
                let text = |name: &str| value.get(name).and_then(Value::as_str).map(plain);
                let error = text("error").unwrap_or_else(|| format!("HTTP {status}"));
                match text("hint") {
                    Some(hint) => bail!("{error}\nhint: {hint}"),
                    None => bail!("{error}"),
                }
            }
        }
    }
}

pub(crate) async fn run(args: Admin) -> Result<()> {
    let (base, secret_file) = match (&args.url, &args.secret_file) {
        (Some(url), Some(file)) => (url.trim_end_matches('/').to_owned(), file.clone()),
        _ => {
            let config = Config::read(&args.config)?;
            let admin = config.admin.context("the config has no [admin] table")?;
            (format!("http://{}", admin.listen), admin.secret_file)
        }
    };
    let role = args.ras.as_ref().map_or("/idp".to_owned(), |name| format!("/ras/{name}"));
    let api = Api {
        base,
        role,
        secret: system::read_private(&secret_file)?,
        outbound: system::outbound(&[])?,
    };
    let is_ras = args.ras.is_some();
    let value = match args.subject {
        Subject::User(user) => users(&api, user).await?,
        Subject::Group(group) => groups(&api, group).await?,
        Subject::Client(client) => return clients(&api, client, is_ras, args.json).await,
        Subject::Server(server) => servers(&api, server).await?,
        Subject::Resource(resource) => resources(&api, resource, is_ras).await?,
        Subject::Connection(connection) => connections(&api, connection).await?,
        Subject::Trust(trust) => trusts(&api, trust).await?,
        Subject::Account(account) => accounts(&api, account).await?,
        Subject::Installation(installation) => {
            return installations(&api, installation, args.json).await;
        }
        Subject::ClientHost(host) => client_hosts(&api, host).await?,
        Subject::Audit { person, client, outcome, limit } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string());
            for (name, value) in [("person", person), ("client", client), ("outcome", outcome)] {
                if let Some(value) = value {
                    query.append_pair(name, &value);
                }
            }
            let rows = api.ask("GET", &format!("/audit?{}", query.finish()), None).await?;
            if !args.json {
                print!("{}", audit_table(&rows));
                return Ok(());
            }
            rows
        }
        Subject::Explain { user, client, resource, scopes } => {
            let scopes = scopes.map(|s| words(&s));
            let body =
                json!({"user": user, "client": client, "resource": resource, "scopes": scopes});
            let answer = api.ask("POST", "/explain", Some(body)).await?;
            if !args.json {
                let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or("");
                println!("{}\nrule: {}", plain(text("text")), plain(text("rule")));
                return Ok(());
            }
            answer
        }
    };
    show(&value, args.json);
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A password, or a secret, from the terminal or the first line of standard input.
fn read_password() -> Result<Secret> {
    use std::io::{BufRead, IsTerminal};
    if std::io::stdin().is_terminal() {
        return Ok(Secret::new(rpassword::prompt_password("Password: ")?));
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

async fn users(api: &Api, user: User) -> Result<Value> {
    let one = |name: &str, act: &str| format!("/users/{}{act}", segment(name));
    match user {
        User::Add { name, email, email_verified, display_name, groups, no_password } => {
            let password = if no_password { None } else { Some(read_password()?) };
            let body = json!({
                "username": name, "email": email, "email_verified": email_verified,
                "display_name": display_name, "groups": groups,
                "password": password.as_ref().map(Secret::expose),
            });
            api.ask("POST", "/users", Some(body)).await
        }
        User::List => api.ask("GET", "/users", None).await,
        User::Show { name } => api.ask("GET", &one(&name, ""), None).await,
        User::Disable { name } => api.ask("POST", &one(&name, "/disable"), None).await,
        User::Enable { name } => api.ask("POST", &one(&name, "/enable"), None).await,
        User::Delete { name } => api.ask("DELETE", &one(&name, ""), None).await,
        User::Password { name } => {
            let password = read_password()?;
            let body = json!({"password": password.expose()});
            api.ask("POST", &one(&name, "/password"), Some(body)).await
        }
        User::Groups { name, groups } => {
            api.ask("POST", &one(&name, "/groups"), Some(json!({"groups": groups}))).await
        }
    }
}

async fn groups(api: &Api, group: Group) -> Result<Value> {
    match group {
        Group::Add { name, description } => {
            let body = json!({"name": name, "description": description});
            api.ask("POST", "/groups", Some(body)).await
        }
        Group::List => api.ask("GET", "/groups", None).await,
        Group::Delete { name } => {
            api.ask("DELETE", &format!("/groups/{}", segment(&name)), None).await
        }
    }
}

async fn clients(api: &Api, client: Client, is_ras: bool, as_json: bool) -> Result<()> {
    let named = |id: &str, act: &str| {
        if is_ras {
            (format!("/clients/{act}"), Some(json!({"id": id})))
        } else {
            (format!("/clients/{}/{act}", segment(id)), None)
        }
    };
    let value = match client {
        Client::Add {
            name,
            id,
            redirect_uris,
            post_logout_redirect_uris,
            id_token_lifetime,
            jwks_file,
            jwks_uri,
            public,
            software,
            resources,
            secret_out,
        } => {
            let jwks: Option<Value> = match jwks_file {
                None => None,
                Some(file) => {
                    let text = std::fs::read_to_string(&file)
                        .with_context(|| format!("{} cannot be read", file.display()))?;
                    Some(
                        serde_json::from_str(&text)
                            .with_context(|| format!("{} is not JSON", file.display()))?,
                    )
                }
            };
            let body = json!({
                "id": id, "name": name, "redirect_uris": redirect_uris,
                "post_logout_redirect_uris": post_logout_redirect_uris,
                "id_token_lifetime": id_token_lifetime, "jwks": jwks, "jwks_uri": jwks_uri,
                "public": public, "resources": resources, "software": software,
            });
            if secret_out.as_ref().is_some_and(|file| file.exists()) {
                bail!("--secret-out: the file exists already\nhint: name a new one");
            }
            let mut value = api.ask("POST", "/clients", Some(body)).await?;
            if let (Some(file), Some(secret)) = (secret_out, value.get("client_secret")) {
                let secret = Secret::new(secret.as_str().unwrap_or_default());
                system::write_private(&file, secret.expose().as_bytes(), true)?;
                value["client_secret"] = format!("(in {})", file.display()).into();
            }
            value
        }
        Client::List => api.ask("GET", "/clients", None).await?,
        Client::Disable { id } => {
            let (path, body) = named(&id, "disable");
            api.ask("POST", &path, body).await?
        }
        Client::Enable { id } => {
            let (path, body) = named(&id, "enable");
            api.ask("POST", &path, body).await?
        }
        Client::Delete { id } if is_ras => {
            api.ask("POST", "/clients/delete", Some(json!({"id": id}))).await?
        }
        Client::Delete { id } => {
            api.ask("DELETE", &format!("/clients/{}", segment(&id)), None).await?
        }
        Client::Secret { id, overlap } => {
            let path = format!("/clients/{}/secret", segment(&id));
            api.ask("POST", &path, Some(json!({"overlap": overlap}))).await?
        }
    };
    show(&value, as_json);
    Ok(())
}

async fn servers(api: &Api, server: Server) -> Result<Value> {
    match server {
        Server::Add { issuer, name, aliases, release } => {
            let body =
                json!({"issuer": issuer, "name": name, "aliases": aliases, "release": release});
            api.ask("POST", "/authorization-servers", Some(body)).await
        }
        Server::List => api.ask("GET", "/authorization-servers", None).await,
        Server::Delete { issuer } => {
            api.ask("POST", "/authorization-servers/delete", Some(json!({"id": issuer}))).await
        }
    }
}

async fn resources(api: &Api, resource: Resource, is_ras: bool) -> Result<Value> {
    match resource {
        Resource::Add {
            resource,
            server,
            name,
            scopes,
            default_scopes,
            require_dpop,
            access_token_lifetime,
        } => {
            let body = match (is_ras, server) {
                (false, Some(server)) => json!({
                    "resource": resource, "authorization_server": server, "name": name,
                    "scopes": words(&scopes),
                }),
                (false, None) => bail!(
                    "--server is missing\nhint: name the issuer of the authorization server that \
                     governs {resource}, or add --ras NAME to register it there"
                ),
                (true, Some(_)) => bail!("--server does not go with --ras\nhint: leave it out"),
                (true, None) => json!({
                    "resource": resource, "name": name, "scopes": words(&scopes),
                    "default_scopes": words(&default_scopes), "require_dpop": require_dpop,
                    "access_token_lifetime": access_token_lifetime,
                }),
            };
            api.ask("POST", "/resources", Some(body)).await
        }
        Resource::List => api.ask("GET", "/resources", None).await,
        Resource::Delete { resource } => {
            api.ask("POST", "/resources/delete", Some(json!({"id": resource}))).await
        }
    }
}

async fn connections(api: &Api, connection: Connection) -> Result<Value> {
    let one = |id: &str, act: &str| format!("/connections/{}{act}", segment(id));
    match connection {
        Connection::Add {
            id,
            client,
            audience,
            ras_client_id,
            resources,
            scopes,
            groups,
            users,
            everyone,
            max_age,
            acr_values,
        } => {
            let body = json!({
                "id": id, "idp_client_id": client, "audience": audience,
                "ras_client_id": ras_client_id, "resources": resources,
                "scopes": words(&scopes), "groups": groups, "users": users, "everyone": everyone,
                "conditions": {"max_authentication_age": max_age, "acr_values": acr_values},
            });
            api.ask("POST", "/connections", Some(body)).await
        }
        Connection::List => api.ask("GET", "/connections", None).await,
        Connection::Disable { id } => api.ask("POST", &one(&id, "/disable"), None).await,
        Connection::Enable { id } => api.ask("POST", &one(&id, "/enable"), None).await,
        Connection::Delete { id } => api.ask("DELETE", &one(&id, ""), None).await,
    }
}

async fn trusts(api: &Api, trust: Trust) -> Result<Value> {
    let act = |act: &str| format!("/trusted-issuers/{act}");
    match trust {
        Trust::Add {
            issuer,
            algorithm,
            jwks_uri,
            tenant,
            just_in_time,
            email_domains,
            installations,
        } => {
            let body = json!({
                "issuer": issuer, "algorithm": algorithm, "jwks_uri": jwks_uri, "tenant": tenant,
                "accounts": {"just_in_time": just_in_time, "email_domains": email_domains},
                "client_documents": installations,
            });
            api.ask("POST", "/trusted-issuers", Some(body)).await
        }
        Trust::List => api.ask("GET", "/trusted-issuers", None).await,
        Trust::Disable { issuer } => {
            api.ask("POST", &act("disable"), Some(json!({"id": issuer}))).await
        }
        Trust::Enable { issuer } => {
            api.ask("POST", &act("enable"), Some(json!({"id": issuer}))).await
        }
        Trust::Delete { issuer } => {
            api.ask("POST", &act("delete"), Some(json!({"id": issuer}))).await
        }
    }
}

async fn installations(api: &Api, act: Installation, as_json: bool) -> Result<()> {
    let rows = match act {
        Installation::Revoke { id } => {
            api.ask("DELETE", &format!("/installations/{}", segment(&id)), None).await?;
            println!("done");
            return Ok(());
        }
        Installation::List { user: None } => api.ask("GET", "/installations", None).await?,
        Installation::List { user: Some(user) } => {
            api.ask("GET", &format!("/installations?user={}", segment(&user)), None).await?
        }
    };
    if as_json {
        println!("{rows:#}");
        return Ok(());
    }
    let now = system::clock().now().0;
    let mut table = vec![["ID", "PERSON", "DEVICE", "ENROLLED", "LAST USED"].map(str::to_owned)];
    for row in rows.as_array().into_iter().flatten() {
        let text = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or(""));
        let when = |name: &str| {
            system::ago(now - row.get(name).and_then(Value::as_i64).unwrap_or_default())
        };
        let times = [when("enrolled_at"), when("used_at")];
        let [enrolled, used] = times;
        table.push([text("id"), text("user"), text("device"), enrolled, used]);
    }
    print!("{}", system::table(&table));
    Ok(())
}

async fn client_hosts(api: &Api, host: ClientHost) -> Result<Value> {
    let act = |act: &str| format!("/client-hosts/{act}");
    match host {
        ClientHost::Add { origin } => {
            api.ask("POST", "/client-hosts", Some(json!({"origin": origin}))).await
        }
        ClientHost::List => api.ask("GET", "/client-hosts", None).await,
        ClientHost::Disable { origin } => {
            api.ask("POST", &act("disable"), Some(json!({"id": origin}))).await
        }
        ClientHost::Enable { origin } => {
            api.ask("POST", &act("enable"), Some(json!({"id": origin}))).await
        }
        ClientHost::Delete { origin } => {
            api.ask("POST", &act("delete"), Some(json!({"id": origin}))).await
        }
    }
}

async fn accounts(api: &Api, account: Account) -> Result<Value> {
    match account {
        Account::Add { email } => api.ask("POST", "/accounts", Some(json!({"email": email}))).await,
        Account::List => api.ask("GET", "/accounts", None).await,
        Account::Disable { id } => {
            api.ask("POST", "/accounts/disable", Some(json!({"id": id}))).await
        }
        Account::Enable { id } => {
            api.ask("POST", "/accounts/enable", Some(json!({"id": id}))).await
        }
    }
}

/// A record as `name: value` lines; a list as one block each.
fn show(value: &Value, as_json: bool) {
    if as_json {
        println!("{value:#}");
        return;
    }
    match value {
        Value::Null => println!("done"),
        Value::Array(records) if records.is_empty() => println!("none"),
        Value::Array(records) => {
            for (i, record) in records.iter().enumerate() {
                if i > 0 {
                    println!();
                }
                print!("{}", lines(record));
            }
        }
        record => print!("{}", lines(record)),
    }
}

fn lines(record: &Value) -> String {
    let Value::Object(members) = record else { return format!("{record}\n") };
    let mut text = String::new();
    for (name, value) in members {
        let shown = match value {
            Value::Null | Value::Bool(false) => continue,
            Value::String(s) if s.is_empty() => continue,
            Value::Array(items) if items.is_empty() => continue,
            Value::String(s) => s.clone(),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        };
        text.push_str(&format!("{:<22} {}\n", format!("{name}:"), plain(&shown)));
    }
    text
}

/// Audit rows as a table, oldest first.
pub(crate) fn audit_table(rows: &Value) -> String {
    let mut table =
        vec![["#", "EVENT", "OUTCOME", "PERSON", "CLIENT", "WHY AND WHAT"].map(str::to_owned)];
    for row in rows.as_array().into_iter().flatten().rev() {
        let field = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or(""));
        let details = row.get("details").and_then(Value::as_object);
        let detail = |name: &str| {
            let value = details.and_then(|d| d.get(name)).and_then(Value::as_str)?;
            Some(plain(&format!("{name}={value}")))
        };
        let what = ["reason", "rule", "audience", "resource", "scope", "record"];
        let what: Vec<String> = what.into_iter().filter_map(detail).collect();
        let id = row.get("id").map(ToString::to_string).unwrap_or_default();
        let [event, outcome] = [field("event"), field("outcome")];
        table.push([id, event, outcome, field("person"), field("client"), what.join("  ")]);
    }
    system::table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        admin: Admin,
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
