//! `carnet login`, `logout`, `status`, `tools`, `call`, `token`: the employee's side.

use crate::{
    system::{self, plain},
    vault::{Profile, ProfileVault, Registration, Storage},
};
use anyhow::{Context, Result, bail};
use carnet_client::{Client, McpServer, SignInOptions, Vault};
use carnet_proto::{identifier::Issuer, jws};
use clap::Args;
use rmcp::{
    RoleClient, ServiceExt,
    model::CallToolRequestParams,
    service::{ClientInitializeError, RunningService, ServiceError},
};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

/// Options of every employee command.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// Keep the sign-in in a file of mode 0600 where there is no keychain
    #[arg(long)]
    insecure_storage: bool,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE", env = "CARNET_EXTRA_ROOTS")]
    extra_roots: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Login {
    /// The company's identity provider; remembered
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// This client's id at the identity provider; remembered
    #[arg(long, value_name = "ID", requires = "issuer")]
    client_id: Option<String>,
    /// File with this client's secret at the identity provider (mode 0600); remembered
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// This client at a resource authorization server: its issuer, the client id there, and a file
    /// with the secret (mode 0600); remembered; may be given several times
    #[arg(long, value_name = "ISSUER=ID:FILE")]
    ras_client: Vec<String>,
    /// User name to start with
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Print the sign-in URL instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// Port of the sign-in listener on 127.0.0.1; any free one unless set
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    common: Common,
}

impl Common {
    fn storage(&self) -> Result<Arc<Storage>> {
        Ok(Arc::new(Storage::open(self.insecure_storage)?))
    }

    fn client(&self, storage: &Arc<Storage>, profile: &Profile) -> Result<Client> {
        Ok(Client::new(
            profile.settings()?,
            Box::new(ProfileVault(Arc::clone(storage))),
            system::outbound(&self.extra_roots)?,
            system::clock(),
            system::entropy(),
        ))
    }

    fn signed_in_client(&self) -> Result<Client> {
        let storage = self.storage()?;
        let profile = storage.load()?.context("nobody has signed in\nhint: run `carnet login`")?;
        self.client(&storage, &profile)
    }
}

pub(crate) async fn login(args: Login) -> Result<()> {
    let storage = args.common.storage()?;
    // Nobody renews tokens while the profile is rewritten.
    let lock = ProfileVault(Arc::clone(&storage)).lock().await?;
    let before = storage.load()?.unwrap_or_default();
    let mut profile = before.clone();
    if let Some(issuer) = &args.issuer {
        Issuer::parse(issuer).with_context(|| format!("--issuer: `{issuer}`"))?;
        profile.idp.clone_from(issuer);
    }
    if let Some(id) = &args.client_id {
        let secret = args.client_secret_file.as_ref().map(|file| system::read_private(file));
        let secret = secret.transpose()?.map(|secret| secret.expose().to_owned());
        profile.idp_client = Registration { client_id: id.clone(), secret };
    }
    for text in &args.ras_client {
        let (issuer, registration) = ras_client(text)?;
        profile.ras_clients.insert(issuer, registration);
    }
    if profile.idp.is_empty() || profile.idp_client.client_id.is_empty() {
        bail!(
            "the identity provider is not known yet\nhint: the first time, run `carnet login \
             --issuer URL --client-id ID --client-secret-file FILE`; IT knows the three"
        );
    }
    profile.keep_session_only_if_same(&before);
    storage.store(Some(&profile))?;
    drop(lock);
    let client = args.common.client(&storage, &profile)?;
    let options = SignInOptions { port: args.port, login_hint: args.user, fresh: false };
    let pending = client.begin_sign_in(&options).await?;
    if args.no_browser {
        println!("Open this URL in a browser on this machine:\n\n{}\n", pending.url());
    } else if open::that_detached(pending.url()).is_err() {
        println!("No browser could be opened. Open this URL:\n\n{}\n", pending.url());
    } else {
        println!("The browser opens for signing in at {} …", profile.idp);
    }
    let session = pending.finish().await?;
    println!("Signed in as {} at {}.", plain(&session.name), session.issuer);
    println!("The sign-in is kept in {}.", storage.describe());
    Ok(())
}

/// `ISSUER=ID:FILE`. The issuer is a URL and may have `=` nowhere but in a query, which it has not.
fn ras_client(text: &str) -> Result<(String, Registration)> {
    let form = || {
        format!(
            "--ras-client: `{text}` is not ISSUER=ID:FILE\nhint: for instance \
                 https://as.vendor.example=acme-agent:vendor.secret"
        )
    };
    let (issuer, rest) = text.split_once('=').with_context(form)?;
    let (client_id, file) = rest.split_once(':').with_context(form)?;
    Issuer::parse(issuer).with_context(|| format!("--ras-client: `{issuer}`"))?;
    let secret = system::read_private(&PathBuf::from(file))?;
    let secret = Some(secret.expose().to_owned());
    Ok((issuer.to_owned(), Registration { client_id: client_id.to_owned(), secret }))
}

pub(crate) async fn logout(common: &Common, forget: bool) -> Result<()> {
    let storage = common.storage()?;
    let Some(profile) = storage.load().or_else(|e| if forget { Ok(None) } else { Err(e) })? else {
        if forget {
            storage.store(None)?;
        }
        println!("Nobody was signed in.");
        return Ok(());
    };
    let client = common.client(&storage, &profile)?;
    let done = client.sign_out().await;
    if forget {
        storage.store(None)?;
    }
    match done {
        Ok(true) => println!("Signed out at {}; its refresh token is revoked.", profile.idp),
        Ok(false) => println!("Nobody was signed in."),
        Err(error) => bail!(
            "the sign-in is forgotten here, but {} did not confirm that it is revoked: {error}",
            profile.idp
        ),
    }
    Ok(())
}

pub(crate) async fn status(common: &Common, json: bool) -> Result<()> {
    let storage = common.storage()?;
    let profile = storage.load()?;
    let session = match &profile {
        Some(profile) => common.client(&storage, profile)?.session().await?,
        None => None,
    };
    let now = system::clock().now().0;
    if json {
        let value = json!({
            "signed_in": session.is_some(),
            "issuer": profile.as_ref().map(|p| &p.idp),
            "idp_client_id": profile.as_ref().map(|p| &p.idp_client.client_id),
            "name": session.as_ref().map(|s| &s.name),
            "id_token_expires": session.as_ref().map(|s| s.id_token_expires),
            "refresh_token": session.as_ref().is_some_and(|s| s.refresh_token.is_some()),
            "resource_authorization_servers":
                profile.as_ref().map(|p| p.ras_clients.keys().collect::<Vec<_>>()),
            "storage": storage.describe(),
        });
        println!("{value:#}");
        return Ok(());
    }
    match (&profile, session) {
        (Some(profile), Some(session)) => {
            println!("Signed in as {} at {}", plain(&session.name), profile.idp);
            let left = session.id_token_expires - now;
            let id_token = if left > 0 { format!("{left} s left") } else { "expired".to_owned() };
            let renewal = if session.refresh_token.is_some() { "yes" } else { "no" };
            println!("  client         {}", profile.idp_client.client_id);
            println!("  ID token       {id_token}");
            println!("  renews itself  {renewal}");
            println!("  kept in        {}", storage.describe());
            for (issuer, registration) in &profile.ras_clients {
                println!("  registered at  {issuer} as {}", registration.client_id);
            }
        }
        (Some(profile), None) => println!("Nobody is signed in at {}.", profile.idp),
        (None, _) => println!("Nobody is signed in. Run `carnet login`."),
    }
    Ok(())
}

/// A connection to an MCP server with this person's tokens.
async fn connect(client: &Client, url: &str) -> Result<RunningService<RoleClient, ()>> {
    let server = client.discover(url).await?;
    // Asked for before the SDK does, whose errors would bury ours.
    client.access_token(&server).await?;
    let transport = client.transport(server)?;
    ().serve(transport).await.map_err(|error| readable_start(&error))
}

/// The SDK wraps what went wrong in several layers; the innermost is ours or the server's.
fn readable_start(error: &ClientInitializeError) -> anyhow::Error {
    anyhow::anyhow!("{}", innermost(error))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    // The SDK puts its own words around the error of a transport.
    match text.split_once("Io error: ") {
        Some((_, ours)) => ours.split(", when send").next().unwrap_or(ours).to_owned(),
        None => text,
    }
}

pub(crate) async fn tools(common: &Common, url: &str, as_json: bool) -> Result<()> {
    let client = common.signed_in_client()?;
    let service = connect(&client, url).await?;
    let tools = service.list_all_tools().await.map_err(|e| readable(&e))?;
    if as_json {
        println!("{:#}", json!(tools));
    } else {
        for tool in &tools {
            let text = tool.description.as_deref().unwrap_or_default();
            println!("{:<20} {}", plain(&tool.name), plain(text));
        }
    }
    service.cancel().await?;
    Ok(())
}

pub(crate) async fn call(common: &Common, url: &str, tool: &str, arguments: &str) -> Result<()> {
    let arguments: Value = serde_json::from_str(arguments)
        .context("the arguments are not JSON\nhint: for instance '{\"title\": \"plan\"}'")?;
    let Value::Object(arguments) = arguments else {
        bail!("the arguments are not a JSON object\nhint: for instance '{{\"title\": \"plan\"}}'");
    };
    let client = common.signed_in_client()?;
    let service = connect(&client, url).await?;
    let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    let result = service.call_tool(request).await.map_err(|e| readable(&e))?;
    match &result.structured_content {
        Some(content) => println!("{content:#}"),
        None => {
            for content in &result.content {
                match content.as_text() {
                    Some(text) => println!("{}", plain(&text.text)),
                    None => println!("{:#}", json!(content)),
                }
            }
        }
    }
    service.cancel().await?;
    if result.is_error == Some(true) {
        bail!("the tool says that it failed");
    }
    Ok(())
}

fn readable(error: &ServiceError) -> anyhow::Error {
    match error {
        ServiceError::McpError(data) => {
            anyhow::anyhow!("the MCP server says: {}", plain(&data.message))
        }
        other => anyhow::anyhow!("{}", innermost(other)),
    }
}

/// Prints an access token, for use in a pipe.
pub(crate) async fn token(common: &Common, url: &str, scope: Option<&str>) -> Result<()> {
    let client = common.signed_in_client()?;
    let mut server: McpServer = client.discover(url).await?;
    if let Some(scope) = scope {
        let scopes = carnet_proto::scope::Scopes::parse(scope);
        server.scopes = Some(scopes.context("--scope has characters that no scope may have")?);
    }
    let token = client.access_token(&server).await?;
    println!("{}", token.secret().expose());
    Ok(())
}

/// Shows header and claims of a JWT, read from an argument or standard input. Nothing is verified,
/// and the signature is not shown, so that what is printed cannot be used.
pub(crate) fn inspect(jwt: Option<String>) -> Result<()> {
    let jwt = match jwt {
        Some(jwt) if jwt != "-" => jwt,
        _ => std::io::read_to_string(std::io::stdin())?,
    };
    let (header, claims) =
        jws::peek(jwt.trim()).map_err(|error| anyhow::anyhow!("this is not a JWT: {error}"))?;
    let kind = match header.value("typ").and_then(Value::as_str) {
        Some("oauth-id-jag+jwt") => "an ID-JAG: a grant for one resource authorization server",
        Some("at+jwt" | "application/at+jwt") => "an access token (RFC 9068)",
        Some("dpop+jwt") => "a DPoP proof (RFC 9449)",
        Some("client-authentication+jwt") => "a client assertion (RFC 7523)",
        Some("logout+jwt") => "a logout token",
        _ if claims.value("nonce").is_some() || claims.value("auth_time").is_some() => {
            "an ID token (OpenID Connect)"
        }
        _ => "a JWT of unknown kind",
    };
    println!("This is {kind}. Its signature was not verified.\n");
    println!("header  {:#}", Value::Object(header.into_object()));
    let times = ["iat", "nbf", "exp", "auth_time"];
    let now = system::clock().now().0;
    println!("claims  {:#}", Value::Object(claims.clone().into_object()));
    for name in times {
        if let Some(at) = claims.value(name).and_then(Value::as_i64) {
            let (distance, when) =
                if at >= now { (at - now, "from now") } else { (now - at, "ago") };
            println!("{name:<10} {distance} s {when}");
        }
    }
    Ok(())
}
