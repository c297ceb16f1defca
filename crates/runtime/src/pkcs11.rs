//! The key-encryption key in a PKCS#11 token: an AES key that the token does not give away. It seals and
//! opens there; what is sealed looks as it does with a key of a file.

use crate::config::Pkcs11Settings;
use anyhow::{Context, Result, bail};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use passavant_host::{self as system, Shared};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bits of the tag of AES-GCM.
const TAG: u64 = 128;

/// A token in which a person of this program is logged in.
pub(crate) struct Token {
    settings: Pkcs11Settings,
    shared: Shared,
    module: Pkcs11,
    /// One at a time: a session of PKCS#11 does one thing.
    session: Mutex<Session>,
}

fn template(label: &str) -> [Attribute; 3] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}

impl Token {
    /// Loads the module, and logs in.
    pub(crate) fn open(settings: &Pkcs11Settings, shared: Shared) -> Result<Self> {
        let name = settings.module.display();
        let module = Pkcs11::new(&settings.module)
            .with_context(|| format!("keys.pkcs11.module: {name} cannot be loaded"))?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Somebody else in this process did that before.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => bail!("keys.pkcs11.module: {name} does not work: {error}"),
        }
        let session = session(&module, settings, shared)?;
        let session = Mutex::new(session);
        Ok(Self { settings: settings.clone(), shared, module, session })
    }

    fn held(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the key of this label; once more with a new session, if the token was taken out
    /// or began anew.
    fn with<T>(
        &self,
        label: &str,
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>,
    ) -> Result<T> {
        let mut held = self.held();
        let attempt = |session: &Session| -> Result<T, Error> {
            let key = one(session, label)?.ok_or(Error::InvalidValue)?;
            work(session, key)
        };
        match attempt(&held) {
            Ok(done) => Ok(done),
            Err(Error::Pkcs11(
                RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::UserNotLoggedIn,
                _,
            )) => {
                *held = session(&self.module, &self.settings, self.shared)?;
                Ok(attempt(&held)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the token has one AES key of this label.
    pub(crate) fn check(&self, label: &str) -> Result<()> {
        let found =
            self.held().find_objects(&template(label)).context("the token does not answer")?;
        match found.len() {
            1 => Ok(()),
            0 => bail!(
                "keys.pkcs11: the token `{}` has no AES key `{label}`\nhint: `passavant key-file generate` makes the one \
                 that the config names",
                self.settings.token
            ),
            several => bail!(
                "keys.pkcs11: the token `{}` has {several} AES keys `{label}`\nhint: give each a label of its own",
                self.settings.token
            ),
        }
    }

    /// Makes an AES key of 256 bits that the token does not give away; `false` if there is one already.
    pub(crate) fn generate(&self, label: &str) -> Result<bool> {
        let held = self.held();
        if !held.find_objects(&template(label))?.is_empty() {
            return Ok(false);
        }
        let attributes = [
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::ValueLen(32.into()),
        ];
        held.generate_key(&Mechanism::AesKeyGen, &attributes)
            .context("the token makes no AES key")?;
        Ok(true)
    }

    /// Seals a value with this nonce: ciphertext and tag.
    pub(crate) fn seal(
        &self,
        key: &str,
        (nonce, label): ([u8; 12], &str),
        value: &[u8],
    ) -> Result<Vec<u8>> {
        self.with(key, |session, key| {
            let mut nonce = nonce;
            let gcm = GcmParams::new(&mut nonce, label.as_bytes(), TAG.into())?;
            session.encrypt(&Mechanism::AesGcm(gcm), key, value)
        })
        .with_context(|| format!("the token cannot seal with `{key}`"))
    }

    /// Opens what was sealed. An error may also be that of a token that does not answer.
    pub(crate) fn open_sealed(
        &self,
        key: &str,
        (nonce, label): ([u8; 12], &str),
        sealed: &[u8],
    ) -> Result<Vec<u8>> {
        self.with(key, |session, key| {
            let mut nonce = nonce;
            let gcm = GcmParams::new(&mut nonce, label.as_bytes(), TAG.into())?;
            session.decrypt(&Mechanism::AesGcm(gcm), key, sealed)
        })
    }
}

fn one(session: &Session, label: &str) -> Result<Option<ObjectHandle>, Error> {
    let found = session.find_objects(&template(label))?;
    Ok(match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    })
}

/// A session in which this program is logged in.
fn session(module: &Pkcs11, settings: &Pkcs11Settings, shared: Shared) -> Result<Session> {
    let mut slots = Vec::new();
    for slot in module.get_slots_with_token().context("keys.pkcs11: no slots")? {
        let info = module.get_token_info(slot)?;
        if info.label().trim_end() == settings.token {
            slots.push(slot);
        }
    }
    let [slot] = slots.as_slice() else {
        bail!(
            "keys.pkcs11.token: {} tokens are labelled `{}`, and it has to be one\nhint: the tools of the token's maker list \
             the labels; SoftHSM: `softhsm2-util --show-slots`",
            slots.len(),
            settings.token
        );
    };
    let session = module.open_rw_session(*slot).context("keys.pkcs11: no session")?;
    let pin = system::read_secret(&settings.pin_file, shared)?;
    let pin = AuthPin::from(pin.expose().trim().to_owned());
    match session.login(UserType::User, Some(&pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLocked, _)) => bail!(
            "keys.pkcs11.pin_file: the token `{}` refuses this PIN, or has locked it\nhint: it was tried once; tokens lock \
             a PIN after a few wrong ones",
            settings.token
        ),
        Err(error) => bail!("keys.pkcs11: the token `{}` lets nobody in: {error}", settings.token),
    }
}
