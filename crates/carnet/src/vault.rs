//! Where the employee's sign-in is kept: the operating system's keychain, or, only when asked for
//! by name, a file of mode 0600.

use crate::system;
use anyhow::{Context, Result, bail};
use carnet_client::{ClientSecret, Session, Settings, Vault, VaultError, VaultFuture, VaultLock};
use carnet_proto::{identifier::Issuer, secret::Secret};
use keyring::Entry;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Everything kept for one person: how the client is known to IdP and RASes, and the sign-in.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) idp: String,
    pub(crate) idp_client: Registration,
    #[serde(default)]
    pub(crate) ras_clients: BTreeMap<String, Registration>,
    #[serde(default)]
    session: Option<Session>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    pub(crate) client_id: String,
    pub(crate) secret: Option<String>,
}

impl Registration {
    fn to_client(&self) -> ClientSecret {
        ClientSecret {
            client_id: self.client_id.clone(),
            secret: self.secret.clone().map(Secret::new),
        }
    }
}

impl Profile {
    /// The settings of the client library.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let idp = Issuer::parse(&self.idp)
            .with_context(|| format!("the issuer `{}` of the profile", self.idp))?;
        let ras = self.ras_clients.iter().map(|(issuer, r)| (issuer.clone(), r.to_client()));
        Ok(Settings {
            idp,
            idp_token_endpoint: None,
            idp_client: self.idp_client.to_client(),
            ras_clients: ras.collect(),
        })
    }

    /// Forgets the sign-in where it is another issuer's or client's.
    pub(crate) fn keep_session_only_if_same(&mut self, before: &Self) {
        let same =
            self.idp == before.idp && self.idp_client.client_id == before.idp_client.client_id;
        self.session = before.session.clone().filter(|_| same);
    }
}

/// The chosen place.
#[derive(Clone)]
pub(crate) struct Storage {
    folder: PathBuf,
    place: Place,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Keychain,
    File,
}

const SERVICE: &str = "carnet";
const USER: &str = "profile";
const FILE: &str = "insecure-profile.json";

impl Storage {
    /// The keychain; or the file, where `insecure` asks for it or an earlier run made it.
    pub(crate) fn open(insecure: bool) -> Result<Self> {
        let folder = system::settings_folder()?;
        let file = folder.join(FILE);
        let place = if insecure || file.exists() { Place::File } else { Place::Keychain };
        if place == Place::File {
            eprintln!(
                "warning: the sign-in is kept in the file {}, not in a keychain",
                file.display()
            );
        }
        Ok(Self { folder, place })
    }

    /// Where it is, for people.
    pub(crate) fn describe(&self) -> String {
        match self.place {
            Place::Keychain => "the keychain of this system".to_owned(),
            Place::File => format!("the file {}", self.file().display()),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What is kept, if anything is.
    pub(crate) fn load(&self) -> Result<Option<Profile>> {
        let text = match self.place {
            Place::File if !self.file().exists() => None,
            Place::File => Some(system::read_private(&self.file())?),
            Place::Keychain => match entry()?.get_password() {
                Ok(text) => Some(Secret::new(text)),
                Err(keyring::Error::NoEntry) => None,
                Err(error) => return Err(no_keychain(&error)),
            },
        };
        let Some(text) = text else { return Ok(None) };
        let profile = serde_json::from_str(text.expose()).map_err(|_| {
            anyhow::anyhow!(
                "what {} holds cannot be read\nhint: run `carnet logout --forget`, then sign in",
                self.describe()
            )
        })?;
        Ok(Some(profile))
    }

    /// Keeps a profile in place of the one before, or forgets it.
    pub(crate) fn store(&self, profile: Option<&Profile>) -> Result<()> {
        match (profile, &self.place) {
            (Some(profile), Place::File) => {
                let text = Secret::new(serde_json::to_string(profile)?);
                system::write_private(&self.file(), text.expose().as_bytes(), false)
            }
            (Some(profile), Place::Keychain) => {
                let text = Secret::new(serde_json::to_string(profile)?);
                entry()?.set_password(text.expose()).map_err(|e| no_keychain(&e))
            }
            (None, Place::File) => match fs::remove_file(self.file()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
            (None, Place::Keychain) => match entry()?.delete_credential() {
                Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
                Err(error) => Err(no_keychain(&error)),
            },
        }
    }
}

fn entry() -> Result<Entry> {
    Entry::new(SERVICE, USER).map_err(|error| no_keychain(&error))
}

fn no_keychain(error: &keyring::Error) -> anyhow::Error {
    let cause = match Entry::store_status() {
        Err(cause) => cause.to_string(),
        Ok(()) => error.to_string(),
    };
    anyhow::anyhow!(
        "there is no keychain to keep the sign-in in: {cause}\nhint: unlock or start the system's \
         keychain; where there is none, `--insecure-storage` keeps it in a file of mode 0600"
    )
}

/// The client library's view of a storage.
pub(crate) struct ProfileVault(pub(crate) Arc<Storage>);

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

    fn lock(&self) -> VaultFuture<'_, VaultLock> {
        let folder = self.0.folder.clone();
        blocking(move || Ok(Box::new(lock(&folder)?) as VaultLock))
    }
}

/// Held by one process at a time; the system frees it when the process ends, however it ends.
fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    file.lock().with_context(|| format!("{} cannot be locked", path.display()))?;
    Ok(file)
}

/// Keychains may wait for a person to unlock them: never on a thread that serves others.
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
