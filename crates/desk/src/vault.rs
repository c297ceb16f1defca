//! Stores the employee's sign-in: in the operating system's keychain, or in a file of mode 0600,
//! but only if that was asked for explicitly.

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use keyring::Entry;
use passavant_client::{
    Access, Callback, Credential, Session, Settings, Vault, VaultError, VaultFuture, VaultLock,
};
use passavant_host as system;
use passavant_proto::{
    formerly,
    identifier::Issuer,
    jose::jwk::{Algorithm, SigningKey},
    secret::{Secret, sha256},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Everything that is stored for one person: the client registrations at IdP and RASes, and the
/// sign-in.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Profile {
    pub idp: String,
    pub idp_client: Registration,
    #[serde(default)]
    pub ras_clients: BTreeMap<String, Registration>,
    /// Registrations at authorization servers without cross-app access.
    #[serde(default)]
    pub consent_clients: BTreeMap<String, Registration>,
    /// The private key that tokens are bound to where that is offered (RFC 9449): PKCS#8 for ES256,
    /// in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dpop_key: Option<String>,
    #[serde(default)]
    session: Option<Session>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Registration {
    pub client_id: String,
    #[serde(default)]
    pub secret: Option<String>,
    /// The private key of an installation: PKCS#8 for ES256, in base64url.
    #[serde(default)]
    pub key: Option<String>,
    /// The one callback of a client that a vendor registered: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<(String, u16)>,
}

impl Registration {
    /// A client that was registered manually.
    pub fn new(client_id: &str, secret: Option<&Secret>) -> Self {
        let secret = secret.map(|secret| secret.expose().to_owned());
        Self { client_id: client_id.to_owned(), secret, ..Self::default() }
    }

    /// An enrolled installation.
    pub fn installation(client_id: String, der: &[u8]) -> Self {
        Self { client_id, key: Some(URL_SAFE_NO_PAD.encode(der)), ..Self::default() }
    }

    fn to_client(&self) -> Result<passavant_client::Registration> {
        let credential = match (&self.key, &self.secret) {
            (Some(key), _) => Credential::Key(read_key(key)?),
            (None, Some(secret)) => Credential::Secret(Secret::new(secret.clone())),
            (None, None) => Credential::None,
        };
        Ok(passavant_client::Registration { client_id: self.client_id.clone(), credential })
    }
}

fn read_key(key: &str) -> Result<Arc<SigningKey>> {
    let der = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(key).unwrap_or_default());
    let key = SigningKey::from_pkcs8(Algorithm::ES256, &der).context(
        "the key of this installation cannot be read\nhint: run `passavant logout --forget`, then \
         `passavant login`",
    )?;
    Ok(Arc::new(key))
}

/// All registrations of a map, ready for use.
fn clients(
    held: &BTreeMap<String, Registration>,
) -> Result<std::collections::HashMap<String, passavant_client::Registration>> {
    held.iter().map(|(issuer, r)| Ok((issuer.clone(), r.to_client()?))).collect()
}

impl Profile {
    /// The settings of the client library.
    pub fn settings(&self) -> Result<Settings> {
        let idp = Issuer::parse(&self.idp)
            .with_context(|| format!("the issuer `{}` of the profile", self.idp))?;
        Ok(Settings {
            dpop_key: self.dpop_key.as_deref().map(read_key).transpose()?,
            ras_clients: clients(&self.ras_clients)?,
            consent_clients: clients(&self.consent_clients)?,
            consent_callbacks: self
                .consent_clients
                .iter()
                .filter_map(|(issuer, held)| {
                    let (host, port) = held.callback.clone()?;
                    Some((issuer.clone(), Callback { host, port }))
                })
                .collect(),
            ..Settings::new(idp, self.idp_client.to_client()?)
        })
    }

    /// Makes the key that tokens are bound to, unless there is one; or, if they are to be bearer
    /// tokens, removes it.
    pub fn bind(&mut self, wanted: bool) -> Result<()> {
        if !wanted {
            self.dpop_key = None;
        } else if self.dpop_key.is_none() {
            let der = system::keys::generate(Algorithm::ES256)?;
            self.dpop_key = Some(URL_SAFE_NO_PAD.encode(&*der));
        }
        Ok(())
    }

    /// This profile merged with `before`: the registrations of both, and the earlier sign-in if
    /// issuer and client are the same.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        let same =
            self.idp == before.idp && self.idp_client.client_id == before.idp_client.client_id;
        let mut ras_clients = before.ras_clients;
        ras_clients.extend(self.ras_clients);
        let mut consent_clients = before.consent_clients;
        consent_clients.extend(self.consent_clients);
        let session = before.session.filter(|_| same);
        Self { ras_clients, consent_clients, session, ..self }
    }
}

/// The chosen storage.
#[derive(Clone)]
pub struct Storage {
    folder: PathBuf,
    backend: Backend,
}

#[derive(Clone, PartialEq, Eq)]
enum Backend {
    Keychain,
    File,
}

const SERVICE: &str = "passavant";
const PROFILE: &str = "profile";
const FILE: &str = "insecure-profile.json";
/// Name prefix for what is stored for one MCP server. The URL's hash follows, so that a URL cannot
/// lead to another file.
const ACCESS: &str = "access-";
/// The list of those names, for storages that cannot list their entries.
const ACCESSES: &str = "accesses";
/// Longest wait for the lock of operations that contact authorization servers, and for the lock of
/// those that ask a person.
const LOCK: Duration = Duration::from_mins(2);
const PERSON: Duration = Duration::from_mins(11);
const LOCK_WAIT: Duration = Duration::from_millis(20);

impl Storage {
    /// Opens the keychain; or the file, if `insecure` asks for it or an earlier run created it.
    pub fn open(insecure: bool) -> Result<Self> {
        system::take_over_settings()?;
        let folder = system::settings_folder()?;
        let file = folder.join(FILE);
        let backend = if insecure || file.exists() { Backend::File } else { Backend::Keychain };
        Ok(Self { folder, backend })
    }

    /// Fails if nothing could be stored: before a person signs in, not after.
    pub fn ready(&self) -> Result<()> {
        match self.backend {
            Backend::File => Ok(()),
            // Look up an entry that does not exist: a keychain that responds can be used.
            Backend::Keychain => Ok(keychain("ready", |entry, _| match entry.get_password() {
                Ok(_) | Err(keyring::Error::NoEntry) => Ok(()),
                Err(error) => Err(error),
            })?),
        }
    }

    /// Says where the sign-in is stored, and warns if that is not a keychain.
    pub fn tell(&self) {
        if self.backend == Backend::Keychain {
            println!("The sign-in is kept in {}.", self.describe());
        } else {
            let file = self.file();
            eprintln!(
                "warning: the sign-in is kept in the file {}, not in a keychain",
                file.display()
            );
        }
    }

    /// The storage, in words for people.
    pub fn describe(&self) -> String {
        match self.backend {
            Backend::Keychain => "the keychain of this system".to_owned(),
            Backend::File => format!("the file {}", self.file().display()),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn path(&self, name: &str) -> PathBuf {
        match name {
            PROFILE => self.file(),
            name => self.folder.join(format!("insecure-{name}.json")),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path(name);
        let text = match self.backend {
            Backend::File if fs::symlink_metadata(&path).is_err() => None,
            Backend::File => Some(system::read_private(&path)?),
            Backend::Keychain => {
                let held = keychain(name, |entry, before| match entry.get_password() {
                    Ok(text) => Ok(Some(Secret::new(text))),
                    Err(keyring::Error::NoEntry) => taken_over(entry, before),
                    Err(error) => Err(error),
                });
                match held {
                    // Without a keychain nothing is stored; the error is reported when something
                    // has to be stored.
                    Err(NoKeychain::None(_)) => None,
                    held => held?,
                }
            }
        };
        let Some(text) = text else { return Ok(None) };
        let value = serde_json::from_str(text.expose()).map_err(|_| Unreadable(self.describe()))?;
        Ok(Some(value))
    }

    fn write<T: Serialize>(&self, name: &str, value: Option<&T>) -> Result<()> {
        match (value, &self.backend) {
            (Some(value), Backend::File) => {
                let text = Secret::new(serde_json::to_string(value)?);
                system::write_private(&self.path(name), text.expose().as_bytes(), false)
            }
            (Some(value), Backend::Keychain) => {
                let text = Secret::new(serde_json::to_string(value)?);
                Ok(keychain(name, move |entry, _| entry.set_password(text.expose()))?)
            }
            (None, Backend::File) => match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
            (None, Backend::Keychain) => {
                // Remove the earlier build's entry first; otherwise it would be taken over again.
                Ok(keychain(name, |entry, before| removed(before).and_then(|()| removed(entry)))?)
            }
        }
    }

    /// The stored profile, if there is one.
    pub fn load(&self) -> Result<Option<Profile>> {
        self.read(PROFILE)
    }

    /// What is stored for one server. It can be obtained again, so an unreadable entry is dropped.
    fn read_access(&self, name: &str) -> Result<Option<Access>> {
        match self.read(name) {
            Err(error) if error.is::<Unreadable>() => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a stored token cannot be read and is deleted; a new one is obtained when \
                     needed"
                );
                self.write::<Access>(name, None)?;
                Ok(None)
            }
            read => read,
        }
    }

    fn load_access(&self, url: &str) -> Result<Option<Access>> {
        let held = self.read_access(&access_name(url))?;
        Ok(held.filter(|access| access.url == url))
    }

    fn store_access(&self, url: &str, access: Option<&Access>) -> Result<()> {
        if self.backend == Backend::File {
            return self.write(&access_name(url), access);
        }
        // Keychains cannot be listed, so a list is stored separately. If a step in between fails,
        // it has a name too many, never one too few.
        let _lock = lock(&self.folder, "accesses.lock", LOCK)?;
        let mut urls = self.listed()?;
        if access.is_some() && urls.insert(url.to_owned()) {
            self.write(ACCESSES, Some(&urls))?;
        }
        self.write(&access_name(url), access)?;
        if access.is_none() && urls.remove(url) {
            self.write(ACCESSES, Some(&urls))?;
        }
        Ok(())
    }

    fn listed(&self) -> Result<BTreeSet<String>> {
        match self.read(ACCESSES) {
            Err(error) if error.is::<Unreadable>() => Ok(BTreeSet::new()),
            read => Ok(read?.unwrap_or_default()),
        }
    }

    /// The names of what is stored for servers.
    fn access_names(&self) -> Result<Vec<String>> {
        if self.backend == Backend::Keychain {
            return Ok(self.listed()?.iter().map(|url| access_name(url)).collect());
        }
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = files.filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let name = name.strip_prefix("insecure-")?.strip_suffix(".json")?;
            name.starts_with(ACCESS).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    fn accesses(&self) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for name in self.access_names()? {
            match self.read_access(&name) {
                Ok(access) => urls.extend(access.map(|access| access.url)),
                Err(error) if error.is::<NoKeychain>() => return Err(error),
                // An unreadable entry must not hide the others.
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "a stored token cannot be read and is skipped"
                    );
                }
            }
        }
        Ok(urls)
    }

    /// Removes everything that is stored here, readable or not.
    pub fn forget(&self) -> Result<()> {
        for name in self.access_names()? {
            self.write::<Access>(&name, None)?;
        }
        if self.backend == Backend::Keychain {
            self.write::<BTreeSet<String>>(ACCESSES, None)?;
        }
        self.store(None)
    }

    /// Replaces the stored profile, or removes it.
    pub fn store(&self, profile: Option<&Profile>) -> Result<()> {
        self.write(PROFILE, profile)
    }
}

fn access_name(url: &str) -> String {
    format!("{ACCESS}{}", sha256(url.as_bytes()))
}

/// Longest wait for the keychain, including a person who has to unlock it.
const KEYCHAIN: Duration = Duration::from_secs(12);

/// Removes an entry, which may not exist.
fn removed(entry: &Entry) -> keyring::Result<()> {
    match entry.delete_credential() {
        Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Moves what an earlier build stored under its own name into this entry.
fn taken_over(entry: &Entry, before: &Entry) -> keyring::Result<Option<Secret>> {
    let held = match before.get_password() {
        Ok(text) => Secret::new(text),
        Err(keyring::Error::NoEntry) => return Ok(None),
        Err(error) => return Err(error),
    };
    entry.set_password(held.expose())?;
    removed(before)?;
    Ok(Some(held))
}

/// Runs one call to the keychain, which is another process and may never respond. The call gets the
/// entry, and that of an earlier build.
fn keychain<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(&Entry, &Entry) -> keyring::Result<T> + Send + 'static,
) -> Result<T, NoKeychain> {
    let (answer, answered) = std::sync::mpsc::channel();
    let name = name.to_owned();
    // The thread is abandoned if the keychain does not respond: nothing waits for it at the end of
    // the process.
    std::thread::spawn(move || {
        let entries = Entry::new(SERVICE, &name)
            .and_then(|entry| Ok((entry, Entry::new(formerly::NAME, &name)?)));
        let done = entries.and_then(|(entry, before)| work(&entry, &before));
        let done = done.map_err(|error| match Entry::store_status() {
            Err(_) => NoKeychain::None(Unusable),
            Ok(()) => NoKeychain::Refuses(error.to_string()),
        });
        let _ = answer.send(done);
    });
    answered.recv_timeout(KEYCHAIN).unwrap_or(Err(NoKeychain::Silent))
}

/// The stored data do not have the format of this version.
#[derive(Debug, thiserror::Error)]
#[error("what {0} holds cannot be read\nhint: run `passavant logout --forget`, then sign in")]
struct Unreadable(String);

/// No keychain responds.
#[derive(Debug, thiserror::Error)]
#[error("there is none on this system, or the service that provides it is not running")]
struct Unusable;

/// The keychain is locked, or there is none.
#[derive(Debug, thiserror::Error)]
enum NoKeychain {
    #[error(
        "there is no keychain to keep the sign-in in: {0}\nhint: start the system's keychain; where there is none (a \
         container, a machine over SSH), `passavant login --insecure-storage` keeps it in a file of mode 0600"
    )]
    None(Unusable),
    #[error(
        "the keychain refuses: {0}\nhint: unlock it; where that cannot be done, `passavant login --insecure-storage` keeps \
         the sign-in in a file of mode 0600"
    )]
    Refuses(String),
    #[error(
        "the keychain has not answered for {} s: it may be waiting to be unlocked on a screen that is not there\nhint: \
         unlock it, then try again; where that cannot be done, `passavant login --insecure-storage` keeps the sign-in in a \
         file of mode 0600", KEYCHAIN.as_secs()
    )]
    Silent,
}

/// The client library's view of a storage.
pub struct ProfileVault(pub Arc<Storage>);

fn failed(error: &anyhow::Error) -> VaultError {
    VaultError(format!("{error:#}"))
}

impl Vault for ProfileVault {
    fn load(&self) -> VaultFuture<'_, Option<Session>> {
        let storage = Arc::clone(&self.0);
        blocking(move || Ok(storage.load()?.and_then(|profile| profile.session)))
    }

    fn store<'a>(&'a self, session: Option<&'a Session>) -> VaultFuture<'a, ()> {
        let (storage, session) = (Arc::clone(&self.0), session.cloned());
        blocking(move || {
            let Some(mut profile) = storage.load()? else { bail!("there is no profile") };
            profile.session = session;
            storage.store(Some(&profile))
        })
    }

    fn load_access<'a>(&'a self, url: &'a str) -> VaultFuture<'a, Option<Access>> {
        let (storage, url) = (Arc::clone(&self.0), url.to_owned());
        blocking(move || storage.load_access(&url))
    }

    fn store_access<'a>(&'a self, url: &'a str, access: Option<&'a Access>) -> VaultFuture<'a, ()> {
        let (storage, url, access) = (Arc::clone(&self.0), url.to_owned(), access.cloned());
        blocking(move || storage.store_access(&url, access.as_ref()))
    }

    fn accesses(&self) -> VaultFuture<'_, Vec<String>> {
        let storage = Arc::clone(&self.0);
        blocking(move || storage.accesses())
    }

    fn lock_person(&self) -> VaultFuture<'_, VaultLock> {
        let folder = self.0.folder.clone();
        blocking(move || Ok(Box::new(lock(&folder, "person.lock", PERSON)?) as VaultLock))
    }

    fn lock(&self) -> VaultFuture<'_, VaultLock> {
        let folder = self.0.folder.clone();
        blocking(move || Ok(Box::new(lock(&folder, "lock", LOCK)?) as VaultLock))
    }

    fn generation(&self) -> VaultFuture<'_, u64> {
        let path = self.0.folder.join(GENERATION);
        blocking(move || Ok(generation(&path)))
    }

    fn next_generation(&self) -> VaultFuture<'_, ()> {
        let folder = self.0.folder.clone();
        blocking(move || {
            system::private_folder(&folder)?;
            let path = folder.join(GENERATION);
            let next = generation(&path).wrapping_add(1).to_string();
            system::write_private(&path, next.as_bytes(), false)
        })
    }
}

/// Its text is a number. Nothing secret is in it, and it is read before every request: a keychain
/// may take its time.
const GENERATION: &str = "generation";

fn generation(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// The exclusive right to write into the configs of MCP clients.
pub fn lock_installs() -> Result<File> {
    system::take_over_settings()?;
    // All installs of the person are in one ledger, whatever sign-ins they have.
    lock(&system::Places::here()?.own_config(), "install.lock", LOCK)
}

/// A lock that one process holds at a time. The system releases it when the process ends, however
/// it ends.
fn lock(folder: &Path, name: &str, longest: Duration) -> Result<File> {
    system::private_folder(folder)?;
    let path = folder.join(name);
    let file = system::open_private(&path)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < longest => {
                std::thread::sleep(LOCK_WAIT);
                waited += LOCK_WAIT;
            }
            Err(TryLockError::WouldBlock) => bail!(
                "another passavant process has held the lock on {} for {} s\n\
                 hint: end it, then try again",
                path.display(),
                longest.as_secs()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
            }
        }
    }
}

/// Keychains may wait for a person to unlock them: never call them on a thread that serves others.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> VaultFuture<'static, T> {
    Box::pin(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(|e| failed(&e)),
            Err(error) => Err(VaultError(error.to_string())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(folder: &Path) -> Storage {
        Storage { folder: folder.to_owned(), backend: Backend::File }
    }

    fn access(url: &str) -> Access {
        let held = serde_json::json!({"url": url, "resource": url, "authorization_server": "https://as",
            "token": "t", "scopes": ["read"], "expires": 1});
        serde_json::from_value(held).unwrap()
    }

    #[test]
    fn kept_tokens_that_cannot_be_read_are_dropped_and_stop_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path());
        for url in ["https://a.example/mcp", "https://b.example/mcp"] {
            storage.store_access(url, Some(&access(url))).unwrap();
        }
        let broken = storage.path(&access_name("https://a.example/mcp"));
        system::write_private(&broken, b"{", false).unwrap();
        assert!(storage.load_access("https://a.example/mcp").unwrap().is_none());
        assert!(!broken.exists(), "it would fail the next time too");
        system::write_private(&broken, b"{}", false).unwrap();
        assert_eq!(storage.accesses().unwrap(), ["https://b.example/mcp"]);
    }

    #[test]
    fn the_key_that_tokens_are_bound_to_stays_until_it_is_not_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path());
        let mut profile = Profile { idp: "https://idp.example".to_owned(), ..Profile::default() };
        let kid = |profile: &Profile| {
            let key = profile.settings().unwrap().dpop_key;
            key.map(|key| key.kid().to_owned())
        };
        assert_eq!(kid(&profile), None, "a sign-in of an earlier build");
        profile.bind(true).unwrap();
        let first = kid(&profile);
        assert!(first.is_some());
        storage.store(Some(&profile)).unwrap();
        let mut kept = storage.load().unwrap().unwrap().over(Profile::default());
        kept.bind(true).unwrap();
        assert_eq!(kid(&kept), first, "tokens of other processes are bound to it");
        kept.bind(false).unwrap();
        assert_eq!(kid(&kept), None);
    }

    #[tokio::test]
    async fn every_process_sees_that_a_sign_in_was_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Arc::new(storage(folder.path())), Arc::new(storage(folder.path())));
        let (one, other) = (ProfileVault(one), ProfileVault(other));
        let before = other.generation().await.unwrap();
        one.next_generation().await.unwrap();
        assert_ne!(other.generation().await.unwrap(), before);
        let now = other.generation().await.unwrap();
        assert_eq!(one.generation().await.unwrap(), now, "until it is ended again");
    }

    #[test]
    fn forgetting_leaves_nothing_that_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path());
        storage.store(Some(&Profile::default())).unwrap();
        storage
            .store_access("https://a.example/mcp", Some(&access("https://a.example/mcp")))
            .unwrap();
        system::write_private(&storage.path("access-x"), b"not even JSON", false).unwrap();
        storage.forget().unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[cfg(unix)]
    #[test]
    fn folders_and_locks_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new").join("passavant");
        let held = lock(&folder, "lock", Duration::ZERO).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("lock"))), (0o700, 0o600));
        let waited = lock(&folder, "lock", Duration::from_millis(40)).unwrap_err().to_string();
        assert!(waited.contains("another passavant process"), "{waited}");
        drop(held);
        lock(&folder, "lock", Duration::ZERO).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_of_somebody_else_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = system::read_private(file.path()).unwrap_err().to_string();
        assert!(empty.contains("is empty"), "nothing is no secret: {empty}");
        fs::write(file.path(), "a secret").unwrap();
        assert!(system::read_private(file.path()).is_ok());
        // Only root can give a file to another user.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(file.path(), Some(65_534), None).unwrap();
            let refused = system::read_private(file.path()).unwrap_err().to_string();
            assert!(refused.contains("belongs to another user"), "{refused}");
        }
    }
}
