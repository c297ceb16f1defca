//! The employee's side: `passavant login`, `logout`, `status`; the other commands are in the modules
//! below.

pub mod catalog;
pub mod mcp;

use crate::vault::{Profile, ProfileVault, Registration, Storage};
use anyhow::{Context, Result, bail};
use clap::Args;
use passavant_client::{
    Browser, Client, Error, Pasted, Prompt, Purpose, Session, Settings, SignInOptions, SignedOut,
    Vault, begin_enrolment, enrol_by_device,
};
use passavant_host as system;
use passavant_host::keys;
use passavant_host::{plain, plain_url};
use passavant_outbound::{Reach, discover_authorization_server};
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::{Algorithm, SigningKey},
    secret::Secret,
};
use serde_json::json;
use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Options of every employee command.
#[derive(Args, Clone, Default)]
pub struct Common {
    /// Keep the sign-in in a file of mode 0600 where there is no keychain
    #[arg(long)]
    pub insecure_storage: bool,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE", env = "PASSAVANT_EXTRA_ROOTS")]
    pub extra_roots: Vec<PathBuf>,
}

#[derive(Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
pub struct Login {
    /// The company's identity provider; remembered
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Use this client, which IT registered at the identity provider, instead of enrolling this
    /// computer; remembered
    #[arg(long, value_name = "ID", requires = "issuer", allow_hyphen_values = true)]
    client_id: Option<String>,
    /// Enrol this computer, in place of the client that is remembered
    #[arg(long, conflicts_with = "client_id")]
    enrol: bool,
    /// File with that client's secret (mode 0600); remembered
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// This client at a resource authorization server: its issuer, the client id there, and a file
    /// with the secret (mode 0600); remembered; may be given several times
    #[arg(long, value_name = "ISSUER=ID:FILE")]
    ras_client: Vec<String>,
    /// User name to start with
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    user: Option<String>,
    /// What to call this computer where its installation is listed; its host name unless given
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Print the sign-in URL instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// Show a code to type in a browser on another device, instead of waiting for one on this computer (RFC 8628)
    #[arg(long, conflicts_with_all = ["no_browser", "port", "user"])]
    device_code: bool,
    /// Use bearer tokens, also where tokens bound to this computer's key (DPoP) are offered; until
    /// the next login
    #[arg(long)]
    no_dpop: bool,
    /// Port of the sign-in listener on 127.0.0.1; any free one unless set
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    common: Common,
}

/// Opens a URL for the person, and says so on standard error.
struct CliBrowser;

impl Browser for CliBrowser {
    fn open(&self, url: &str, purpose: Purpose) -> bool {
        match purpose {
            // The person only has to run `passavant login`, and is not surprised by a browser
            // window.
            Purpose::SignIn => return false,
            Purpose::StepUp => {
                eprintln!("The company's policy wants you to sign in again for this.");
            }
            Purpose::Consent => eprintln!(
                "This MCP server does not offer cross-app access: its own authorization server asks \
                 you, once. Your company's IT does not see what is granted there."
            ),
        }
        show(url)
    }
}

/// Opens a browser, and prints the URL in any case: a launcher may report success without opening
/// anything.
pub fn show(url: &str) -> bool {
    let opened = open::that_detached(url).is_ok();
    let how = if opened { "If no browser opens, open" } else { "No browser could be opened. Open" };
    eprintln!("{how} this URL:\n\n{}\n", plain_url(url));
    opened
}

const NOBODY: &str =
    "nobody has signed in\nhint: run `passavant login --issuer URL` first; IT knows the URL";

/// The client that this command uses; it knows the clocks of the servers it contacted.
static ASKED: OnceLock<Client> = OnceLock::new();

/// Warns about a clock that differs from this computer's, whatever the result of the command.
pub fn warn_of_clock() {
    if let Some(warning) = ASKED.get().and_then(Client::clock_warning) {
        eprintln!("warning: {}", system::plain_lines(&warning));
    }
}

impl Common {
    pub fn storage(&self) -> Result<Arc<Storage>> {
        Ok(Arc::new(Storage::open(self.insecure_storage)?))
    }

    pub fn client(&self, storage: &Arc<Storage>, profile: &Profile) -> Result<Client> {
        self.client_with(storage, profile.settings()?)
    }

    /// A client with settings of its own.
    pub fn client_with(&self, storage: &Arc<Storage>, settings: Settings) -> Result<Client> {
        let client = Client::new(
            settings,
            Box::new(ProfileVault(Arc::clone(storage))),
            system::desk_outbound(&self.extra_roots)?,
            system::clock(),
            system::entropy(),
        );
        // Any client of this command will do: they contact the same servers.
        let _ = ASKED.set(client.clone());
        Ok(client)
    }

    /// The client of the person who signed in last, and the storage it uses.
    pub fn signed_in(&self) -> Result<(Client, Arc<Storage>)> {
        let storage = self.storage()?;
        let profile = storage.load()?.context(NOBODY)?;
        Ok((self.client(&storage, &profile)?, storage))
    }

    /// A client with a valid token for `url`. In a terminal it asks once for what is missing: a
    /// consent in the browser, or the secret of a registration.
    pub async fn client_for(&self, url: &str) -> Result<Client> {
        let (client, storage) = self.signed_in()?;
        let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let client = if interactive { client.with_browser(Arc::new(CliBrowser)) } else { client };
        match client.access(url).await {
            Ok(_) => Ok(client),
            Err(Error::NoRegistration { issuer, client_id }) if interactive => {
                eprintln!("{issuer} knows this client as `{client_id}`. IT has its secret.");
                let secret = Secret::new(rpassword::prompt_password("Secret: ")?);
                keep_registration(&storage, &issuer, &client_id, &secret).await?;
                let profile = storage.load()?.context("nobody has signed in")?;
                let client = self.client(&storage, &profile)?;
                client.access(url).await?;
                Ok(client)
            }
            Err(error) => Err(explained(&client, url, error).await),
        }
    }
}

/// An error, with the explanation that the company's catalog has for it.
pub async fn explained(client: &Client, url: &str, error: Error) -> anyhow::Error {
    match &error {
        Error::RefusedByPolicy { .. } => match client.refusal(url).await {
            Some(text) => anyhow::anyhow!("{text}"),
            None => error.into(),
        },
        _ => error.into(),
    }
}

/// Stores the secret of a registration at a RAS.
pub async fn keep_registration(
    storage: &Arc<Storage>,
    issuer: &str,
    client_id: &str,
    secret: &Secret,
) -> Result<()> {
    let _lock = ProfileVault(Arc::clone(storage)).lock().await?;
    let mut profile = storage.load()?.context(NOBODY)?;
    let registration = Registration::new(client_id, Some(secret));
    profile.ras_clients.insert(issuer.to_owned(), registration);
    storage.store(Some(&profile))
}

#[derive(Args)]
pub struct KeepSecret {
    /// Issuer of the authorization server
    issuer: String,
    /// The client's id there
    #[arg(allow_hyphen_values = true)]
    client_id: String,
    /// Read the secret from this file (mode 0600) instead of standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The authorization server does not offer cross-app access: use the client for the consent there. Without a
    /// secret (an empty line) it is a public client
    #[arg(long)]
    consent: bool,
    /// Host of the callback as it was registered, /callback: 127.0.0.1 or localhost
    #[arg(long, value_name = "HOST", requires_all = ["consent", "callback_port"], value_parser = ["127.0.0.1", "localhost"])]
    callback_host: Option<String>,
    /// Port of that callback, where it may not be any
    #[arg(long, value_name = "PORT", requires = "consent")]
    callback_port: Option<u16>,
    #[command(flatten)]
    common: Common,
}

/// `passavant secret`: stores the secret of a client that IT or a vendor registered.
pub async fn keep_secret(args: KeepSecret) -> Result<()> {
    Issuer::parse(&args.issuer).with_context(|| format!("`{}`", args.issuer))?;
    let storage = args.common.storage()?;
    let secret = match &args.secret_file {
        Some(file) => system::read_private(file)?,
        None if std::io::stdin().is_terminal() => {
            Secret::new(rpassword::prompt_password("Secret: ")?)
        }
        None => Secret::new(std::io::read_to_string(std::io::stdin())?.trim()),
    };
    if secret.expose().is_empty() && !args.consent {
        bail!("the secret is empty\nhint: type it, or give it with --secret-file");
    }
    if args.consent {
        let _lock = ProfileVault(Arc::clone(&storage)).lock().await?;
        let mut profile = storage.load()?.context(NOBODY)?;
        let is_public = secret.expose().is_empty();
        let mut registration =
            Registration::new(&args.client_id, Some(&secret).filter(|_| !is_public));
        let host = args.callback_host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        registration.callback = args.callback_port.map(|port| (host, port));
        profile.consent_clients.insert(args.issuer.clone(), registration);
        storage.store(Some(&profile))?;
    } else {
        keep_registration(&storage, &args.issuer, &args.client_id, &secret).await?;
    }
    let what = if secret.expose().is_empty() { "The public client" } else { "The secret of" };
    println!("{what} {} at {} is kept.", plain(&args.client_id), args.issuer);
    Ok(())
}

pub async fn login(args: Login) -> Result<()> {
    let storage = args.common.storage()?;
    let mut profile = storage.load()?.unwrap_or_default();
    if let Some(issuer) = &args.issuer {
        let issuer = discovered(&args.common, issuer).await?;
        if profile.idp != issuer {
            // A client of one identity provider is unknown at another.
            profile.idp = issuer;
            profile.idp_client = Registration::default();
        }
    }
    storage.ready()?;
    let mut pasted = pasted();
    if let Some(id) = &args.client_id {
        if id == passavant_proto::oauth::client::ENROLLED_CLIENT {
            bail!(
                "--client-id: `{id}` cannot be used to sign in: it is the client id that enrols \
                 computers\n\
                 hint: `passavant login --issuer URL --enrol` enrols this one"
            );
        }
        let secret = args.client_secret_file.as_ref().map(|file| system::read_private(file));
        profile.idp_client = Registration::new(id, secret.transpose()?.as_ref());
    }
    for text in &args.ras_client {
        let (issuer, registration) = ras_client(text)?;
        profile.ras_clients.insert(issuer, registration);
    }
    if args.enrol {
        // The registered client, or the key that was enrolled before.
        profile.idp_client = Registration::default();
    }
    if profile.idp.is_empty() {
        bail!(
            "the identity provider is not known yet\nhint: the first time, run `passavant login \
             --issuer URL`; IT knows the URL"
        );
    }
    let options = SignInOptions {
        port: args.port,
        login_hint: args.user.clone(),
        ..SignInOptions::default()
    };
    let enrolled = if is_enrolled(&args.common, &profile).await? {
        None
    } else if args.device_code {
        enrol_by_code(&args, &mut profile).await?;
        None
    } else {
        Some(enrol(&args, &mut profile, &options, &mut pasted).await?)
    };
    // With the lock, no process renews tokens while the profile is rewritten. It is taken only now,
    // after the person has signed in, and tokens that were renewed meanwhile are kept.
    let lock = ProfileVault(Arc::clone(&storage)).lock().await?;
    let mut profile = profile.over(storage.load()?.unwrap_or_default());
    profile.bind(!args.no_dpop)?;
    storage.store(Some(&profile))?;
    drop(lock);
    let client = args.common.client(&storage, &profile)?;
    if args.device_code {
        let session =
            client.sign_in_by_device(|prompt| tell_code(prompt, "to sign in with it")).await;
        return signed_in(session, &storage);
    }
    let pending = match enrolled {
        Some(enrolled) => {
            let in_tab = enrolled.tab.is_here();
            let pending =
                client.go_on_to_sign_in(enrolled.loopback, enrolled.tab, &options).await?;
            if !in_tab {
                println!("One more step: the computer signs in with its own key now.");
                announce(&args, &profile.idp, pending.url());
            }
            pending
        }
        None => {
            let pending = client.begin_sign_in(&options).await?;
            announce(&args, &profile.idp, pending.url());
            pending
        }
    };
    signed_in(pending.finish_with(Some(&mut pasted)).await, &storage)
}

/// Reports the result of a sign-in.
fn signed_in(session: Result<Session, Error>, storage: &Storage) -> Result<()> {
    let session = match session {
        Err(Error::Callback(text)) if text.contains("access_denied") => bail!(
            "the sign-in was aborted: {text}\n\
             hint: it was cancelled in the browser; or another person signed in there than the one \
             for whom this computer is enrolled: then run `passavant logout --forget`, and sign in \
             again"
        ),
        session => session?,
    };
    println!("Signed in as {} at {}.", plain(&session.name), session.issuer);
    storage.tell();
    Ok(())
}

/// The issuer as its own metadata spell it: people omit a trailing slash, or add one.
async fn discovered(common: &Common, text: &str) -> Result<String> {
    let issuer = Issuer::parse(text)
        .map_err(|error| anyhow::anyhow!("--issuer: `{}` {error}", plain(text)))?;
    let outbound = system::desk_outbound(&common.extra_roots)?;
    match discover_authorization_server(&outbound, &issuer).await {
        Ok(_) => Ok(issuer.to_string()),
        Err(passavant_outbound::DiscoveryError::Differs(passavant_outbound::Differs {
            found,
            ..
        })) if found.trim_end_matches('/') == text.trim_end_matches('/') => {
            let issuer = Issuer::parse(&found).with_context(|| format!("`{found}`"))?;
            println!("The identity provider's own issuer is {issuer}; this one is used.");
            Ok(issuer.to_string())
        }
        Err(error) => Err(Error::from(error).into()),
    }
}

/// Lines of standard input, for a person who signs in in the browser of another computer.
fn pasted() -> Pasted {
    let (line, pasted) = tokio::sync::mpsc::channel(8);
    // The thread is abandoned at the end: nothing waits for it.
    std::thread::spawn(move || {
        for text in std::io::stdin().lines().map_while(Result::ok) {
            if line.blocking_send(Secret::new(text)).is_err() {
                return;
            }
        }
    });
    pasted
}

/// Whether the profile has a client that can sign in: a registered one, or an installation that is
/// still published.
async fn is_enrolled(common: &Common, profile: &Profile) -> Result<bool> {
    let client = &profile.idp_client;
    if client.client_id.is_empty() {
        return Ok(false);
    }
    if client.key.is_none() {
        return Ok(true);
    }
    let outbound = system::desk_outbound(&common.extra_roots)?;
    let reach = Reach::of_trusted_url(&profile.idp);
    let answer = outbound.get(&client.client_id, reach).await?;
    // It was revoked meanwhile: the person has to enrol this computer again.
    Ok(answer.status != 404)
}

/// Makes a key, and enrols it for the person who signs in.
async fn enrol(
    args: &Login,
    profile: &mut Profile,
    options: &SignInOptions,
    pasted: &mut Pasted,
) -> Result<passavant_client::Enrolled> {
    let issuer = Issuer::parse(&profile.idp)?;
    let outbound = system::desk_outbound(&args.common.extra_roots)?;
    let entropy = system::entropy();
    let pending = begin_enrolment(&outbound, &issuer, &entropy, options).await?;
    let pending = pending.with_context(|| no_enrolment(&issuer))?;
    let der = keys::generate(Algorithm::ES256)?;
    let key = SigningKey::from_pkcs8(Algorithm::ES256, &der)?;
    let device = args.device_name();
    announce(args, issuer.as_str(), pending.url());
    let enrolled = pending.finish(&key, &device, Some(pasted)).await?;
    profile.idp_client = Registration::installation(enrolled.client_id.clone(), &der);
    println!("This computer is enrolled as \"{}\".", plain(&device));
    Ok(enrolled)
}

/// Like [`enrol`], for a person whose browser is on another device.
async fn enrol_by_code(args: &Login, profile: &mut Profile) -> Result<()> {
    let issuer = Issuer::parse(&profile.idp)?;
    let outbound = system::desk_outbound(&args.common.extra_roots)?;
    let der = keys::generate(Algorithm::ES256)?;
    let key = SigningKey::from_pkcs8(Algorithm::ES256, &der)?;
    let device = args.device_name();
    let tell = |prompt: &Prompt| {
        tell_code(prompt, "to add this computer to your account (the first of two codes)");
    };
    let enrolled = enrol_by_device(&outbound, &issuer, &key, &device, tell).await?;
    let client_id = enrolled.with_context(|| no_enrolment(&issuer))?;
    profile.idp_client = Registration::installation(client_id, &der);
    println!("This computer is enrolled as \"{}\".", plain(&device));
    Ok(())
}

fn tell_code(prompt: &Prompt, what_for: &str) {
    println!(
        "Open this page on any device, and type the code there {what_for}:\n\n  {}\n\n  {}\n",
        plain_url(&prompt.verification_uri),
        plain(&prompt.user_code)
    );
}

fn no_enrolment(issuer: &Issuer) -> String {
    format!(
        "{issuer} does not enrol installations of Passavant\nhint: IT registers a client there; \
         then run `passavant login --issuer {issuer} --client-id ID --client-secret-file FILE`"
    )
}

impl Login {
    /// The name of this computer in the list of installations.
    fn device_name(&self) -> String {
        let host = || gethostname::gethostname().to_string_lossy().into_owned();
        self.device.clone().unwrap_or_else(host)
    }
}

fn announce(args: &Login, issuer: &str, url: &str) {
    let url = &plain_url(url);
    if args.no_browser {
        println!("Open this URL in a browser:\n\n{url}\n");
    } else if open::that_detached(url).is_err() {
        println!("No browser could be opened. Open this URL:\n\n{url}\n");
    } else {
        println!(
            "The browser opens for signing in at {issuer} … If it does not, open this URL:\n\n{url}\n"
        );
        return;
    }
    println!(
        "Is that browser on another computer? The sign-in ends at an address on 127.0.0.1 that it \
         cannot open: paste that address here, and press Enter."
    );
}

/// `ISSUER=ID:FILE`. The issuer contains no `=`; an id that is a URL contains colons, so the file
/// begins after the last one.
fn ras_client(text: &str) -> Result<(String, Registration)> {
    let form = || {
        format!(
            "--ras-client: `{text}` is not ISSUER=ID:FILE\nhint: for instance \
                 https://as.vendor.example=acme-agent:vendor.secret"
        )
    };
    let (issuer, rest) = text.split_once('=').with_context(form)?;
    let (client_id, file) = if rest.starts_with("https://") {
        rest.rsplit_once(':').with_context(form)?
    } else {
        rest.split_once(':').with_context(form)?
    };
    Issuer::parse(issuer).with_context(|| format!("--ras-client: `{issuer}`"))?;
    let secret = system::read_private(&PathBuf::from(file))?;
    Ok((issuer.to_owned(), Registration::new(client_id, Some(&secret))))
}

pub async fn logout(common: &Common, forget: bool) -> Result<()> {
    let storage = common.storage()?;
    let Some(profile) = storage.load().or_else(|e| if forget { Ok(None) } else { Err(e) })? else {
        if forget {
            storage.forget()?;
        }
        println!("Nobody was signed in.");
        return Ok(());
    };
    let client = common.client(&storage, &profile)?;
    let given_up = if forget && profile.idp_client.key.is_some() {
        Some(give_up(&client).await)
    } else {
        None
    };
    let done = client.sign_out().await;
    if forget {
        storage.forget()?;
    }
    match done {
        Ok(SignedOut::There) => println!(
            "Signed out at {}: the sign-in of this computer has ended there, with the access that came from it.",
            profile.idp
        ),
        Ok(SignedOut::Here) => println!(
            "The sign-in is forgotten here; {} offers no revocation, and its tokens expire there.",
            profile.idp
        ),
        Ok(SignedOut::Nobody) => println!("Nobody was signed in."),
        // Revoking the installation has revoked everything that was issued to it.
        Err(_) if matches!(given_up, Some(Ok(true))) => {
            println!("Signed out at {}.", profile.idp);
        }
        Err(error) => bail!(
            "the sign-in is forgotten here, but {} did not confirm that it is revoked: {error}",
            profile.idp
        ),
    }
    match given_up {
        Some(Ok(true)) => println!("This computer is not enrolled any more."),
        Some(_) => println!(
            "This computer's key is forgotten; its installation at {} is still listed. Revoke it \
             from another computer (`passavant installations`), or ask IT.",
            profile.idp
        ),
        None => {}
    }
    Ok(())
}

/// Revokes the installation of this computer.
async fn give_up(client: &Client) -> Result<bool, Error> {
    let held = client.installations().await?.unwrap_or_default();
    match held.iter().find(|installation| installation.this_one) {
        Some(own) => client.revoke_installation(&own.id).await,
        None => Ok(false),
    }
}

/// The company's answer about whether a sign-in is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Stands,
    Ended,
    /// The IdP could not be reached, or not in time.
    NoAnswer,
    /// Another vendor's IdP, which has no endpoint for this question.
    NotAsked,
}

/// How long to wait for the IdP.
const WORD: Duration = Duration::from_secs(5);

impl Word {
    async fn of(client: &Client) -> Self {
        match tokio::time::timeout(WORD, client.catalog()).await {
            Ok(Ok(Some(_))) => Self::Stands,
            Ok(Ok(None)) => Self::NotAsked,
            Ok(Err(
                Error::SignInNeeded { .. } | Error::EnrolmentEnded { .. } | Error::AccessEnded(_),
            )) => Self::Ended,
            Ok(Err(_)) | Err(_) => Self::NoAnswer,
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Stands => "confirms that it is active",
            Self::Ended => "has ended it: run `passavant login`",
            Self::NoAnswer => "did not answer just now",
            Self::NotAsked => "was not asked: it is not a Passavant identity provider",
        }
    }
}

pub async fn status(common: &Common, json: bool) -> Result<()> {
    let storage = common.storage()?;
    let profile = storage.load()?;
    let (session, consents, word, ended) = match &profile {
        Some(profile) => {
            let client = common.client(&storage, profile)?;
            let session = client.session().await?;
            let word = match session {
                Some(_) => Word::of(&client).await,
                None => Word::NotAsked,
            };
            // The IdP may just have said that it is over: then nothing is kept of it any more.
            (session, client.consents().await?, word, client.ended().await?)
        }
        None => (None, Vec::new(), Word::NotAsked, None),
    };
    let now = system::clock().now().0;
    if json {
        let consents: Vec<_> = consents
            .iter()
            .map(|held| json!({"url": held.url, "authorization_server": held.authorization_server}))
            .collect();
        let value = json!({
            "signed_in": session.is_some() && word != Word::Ended,
            "asked": matches!(word, Word::Stands | Word::Ended),
            "ended": ended.as_ref().map(|ended| json!({"by": ended.by, "at": ended.at})),
            "issuer": profile.as_ref().map(|p| &p.idp),
            "idp_client_id": profile.as_ref().map(|p| &p.idp_client.client_id),
            "enrolled": profile.as_ref().is_some_and(|p| p.idp_client.key.is_some()),
            "name": session.as_ref().map(|s| &s.name),
            "id_token_expires": session.as_ref().map(|s| s.id_token_expires),
            "refresh_token": session.as_ref().is_some_and(|s| s.refresh_token.is_some()),
            "resource_authorization_servers":
                profile.as_ref().map(|p| p.ras_clients.keys().collect::<Vec<_>>()),
            "outside_it_control": consents,
            "storage": storage.describe(),
        });
        println!("{}", system::json_text(&value)?);
        return Ok(());
    }
    if let Some(ended) = &ended {
        println!("{}", system::plain_lines(&ended.to_string()));
    }
    match (&profile, session) {
        (_, None) if ended.is_some() => {}
        (Some(profile), Some(session)) => {
            let how = if word == Word::Ended { "Was signed in" } else { "Signed in" };
            println!("{how} as {} at {}", plain(&session.name), profile.idp);
            let left = session.id_token_expires - now;
            let id_token = if left > 0 { format!("{left} s left") } else { "expired".to_owned() };
            let renewal = if session.refresh_token.is_some() { "yes" } else { "no" };
            let kind = if profile.idp_client.key.is_some() { "enrolled" } else { "registered" };
            println!("  client         {} ({kind})", profile.idp_client.client_id);
            println!("  the company    {}", word.told());
            println!("  ID token       {id_token}");
            println!("  renews itself  {renewal}");
            println!("  kept in        {}", storage.describe());
            for (issuer, registration) in &profile.ras_clients {
                println!("  registered at  {issuer} as {}", registration.client_id);
            }
        }
        (Some(profile), None) => println!("Nobody is signed in at {}.", profile.idp),
        (None, _) => println!("Nobody is signed in. Run `passavant login`."),
    }
    if !consents.is_empty() {
        println!("\nOutside IT's control (you consented yourself, at the vendor):");
        for held in &consents {
            println!("  {}  by {}", held.url, held.authorization_server);
        }
    }
    Ok(())
}
