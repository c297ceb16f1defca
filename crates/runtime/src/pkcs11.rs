//! The key-encryption key in a PKCS#11 token: an AES key that the token does not give away. It seals and
//! opens there; what is sealed looks as it does with a key of a file.

use crate::config::Pkcs11Settings;
use anyhow::{Context, Result, anyhow, bail};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use passavant_host::{self as system, Shared};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Bits of the tag of AES-GCM.
const TAG: u64 = 128;

/// How long a call may take. A token that hangs is not asked again until it has answered.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many calls wait for a token.
const WAITING: usize = 64;

/// A token in which this program is logged in. One thread speaks to it: a session of PKCS#11 does one
/// thing, and a token that hangs holds nothing else.
pub(crate) struct Token {
    name: String,
    calls: SyncSender<Call>,
    /// Since when the call lasts that is under way.
    under_way: Arc<Mutex<Option<Instant>>>,
    /// Ends with the thread.
    over: Mutex<Receiver<()>>,
}

type Call = Box<dyn FnOnce(&mut Connected) + Send>;

/// The thread's own.
struct Connected {
    settings: Pkcs11Settings,
    shared: Shared,
    module: Pkcs11,
    session: Session,
    /// The hash of a PIN that the token refused: it is tried once, since a token locks a PIN after a few
    /// wrong ones.
    refused_pin: Option<String>,
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
        let mut refused_pin = None;
        let session = session(&module, settings, shared, &mut refused_pin)?;
        let settings = settings.clone();
        let (calls, waiting) = sync_channel::<Call>(WAITING);
        let name = settings.token.clone();
        let mut connected = Connected { settings, shared, module, session, refused_pin };
        let under_way = Arc::new(Mutex::new(None));
        let lasts = Arc::clone(&under_way);
        let set = move |since| *lasts.lock().unwrap_or_else(PoisonError::into_inner) = since;
        let (last, over) = sync_channel(1);
        std::thread::Builder::new().name("pkcs11".to_owned()).spawn(move || {
            while let Ok(call) = waiting.recv() {
                set(Some(Instant::now()));
                call(&mut connected);
                set(None);
            }
            drop(connected);
            drop(last);
        })?;
        Ok(Self { name, calls, under_way, over: Mutex::new(over) })
    }

    /// Whether the call that is under way takes longer than it may.
    fn hangs(&self) -> bool {
        let since = *self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > PATIENCE)
    }

    /// Has the thread do something, and waits for it so long.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connected) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let silent = || anyhow!("the token `{}` does not answer", self.name);
        if self.hangs() {
            return Err(silent());
        }
        let (answer, answered) = sync_channel(1);
        let call: Call = Box::new(move |connected| {
            // Whoever asked may have gone.
            let _ = answer.send(work(connected));
        });
        self.calls.try_send(call).map_err(|_| silent())?;
        answered.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(silent()))
    }

    /// Whether the token has one AES key of 256 bits of this label, which it does not give away, and seals
    /// and opens with it.
    pub(crate) fn check(&self, label: &str) -> Result<()> {
        let label = label.to_owned();
        self.call(move |connected| connected.check(&label))
    }

    /// Makes an AES key of 256 bits that the token does not give away; `false` if there is one already.
    pub(crate) fn generate(&self, label: &str) -> Result<bool> {
        let label = label.to_owned();
        self.call(move |connected| connected.generate(&label))
    }

    /// Seals a value with this nonce: ciphertext and tag.
    pub(crate) fn seal(
        &self,
        key: &str,
        (nonce, label): ([u8; 12], &str),
        value: &[u8],
    ) -> Result<Vec<u8>> {
        let (key, label, value) =
            (key.to_owned(), label.to_owned(), Zeroizing::new(value.to_vec()));
        self.call(move |connected| {
            let sealed = connected.seal(&key, nonce, &label, &value);
            sealed.with_context(|| format!("the token cannot seal with `{key}`"))
        })
    }

    /// Opens what was sealed; `None` if it was sealed with another key. An error is that of a token that
    /// does not answer.
    pub(crate) fn open_sealed(
        &self,
        key: &str,
        (nonce, label): ([u8; 12], &str),
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let (key, label, sealed) = (key.to_owned(), label.to_owned(), sealed.to_vec());
        self.call(move |connected| {
            let error = match connected.open_sealed(&key, nonce, &label, &sealed) {
                Ok(opened) => return Ok(Some(opened)),
                Err(error) => error,
            };
            // Tokens name this error differently. One that seals and opens something else just now is well,
            // and the value is not of this key.
            let probe = "probe";
            let nonce = [0x50; 12];
            let sealed = connected.seal(&key, nonce, probe, b"probe");
            match sealed.and_then(|sealed| connected.open_sealed(&key, nonce, probe, &sealed)) {
                Ok(opened) if opened == b"probe" => Ok(None),
                _ => Err(error),
            }
        })
    }
}

impl Drop for Token {
    /// Waits until the session is closed: a module that is still at work when the process ends is taken
    /// apart meanwhile, and breaks it.
    fn drop(&mut self) {
        let (nobody, _) = sync_channel(1);
        drop(std::mem::replace(&mut self.calls, nobody));
        let over = self.over.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is sent: the thread lets go of it. One that hangs is not waited for any longer.
        let _ = over.recv_timeout(PATIENCE);
    }
}

impl Connected {
    /// Does something with the key of this label; once more with a new session, if the token was taken out
    /// or began anew.
    fn with<T>(
        &mut self,
        label: &str,
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>,
    ) -> Result<T> {
        let attempt = |session: &Session| -> Result<T, Error> {
            let key = one(session, label)?.ok_or(Error::InvalidValue)?;
            work(session, key)
        };
        match attempt(&self.session) {
            Ok(done) => Ok(done),
            Err(Error::Pkcs11(
                RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::UserNotLoggedIn,
                _,
            )) => {
                let refused = &mut self.refused_pin;
                self.session = session(&self.module, &self.settings, self.shared, refused)?;
                Ok(attempt(&self.session)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn seal(&mut self, key: &str, nonce: [u8; 12], label: &str, value: &[u8]) -> Result<Vec<u8>> {
        self.with(key, |session, key| {
            let mut nonce = nonce;
            let gcm = GcmParams::new(&mut nonce, label.as_bytes(), TAG.into())?;
            session.encrypt(&Mechanism::AesGcm(gcm), key, value)
        })
    }

    fn open_sealed(
        &mut self,
        key: &str,
        nonce: [u8; 12],
        label: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>> {
        self.with(key, |session, key| {
            let mut nonce = nonce;
            let gcm = GcmParams::new(&mut nonce, label.as_bytes(), TAG.into())?;
            session.decrypt(&Mechanism::AesGcm(gcm), key, sealed)
        })
    }

    fn check(&mut self, label: &str) -> Result<()> {
        let token = self.settings.token.clone();
        let found =
            self.session.find_objects(&template(label)).context("the token does not answer")?;
        let [key] = found.as_slice() else {
            if found.is_empty() {
                bail!(
                    "keys.pkcs11: the token `{token}` has no AES key `{label}`\nhint: `passavant key-file generate` makes \
                     the one that the config names"
                );
            }
            bail!(
                "keys.pkcs11: the token `{token}` has {} AES keys `{label}`\nhint: give each a label of its own",
                found.len()
            );
        };
        // A token need not tell all of them.
        let wanted = [
            AttributeType::ValueLen,
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::Encrypt,
            AttributeType::Decrypt,
        ];
        let told =
            self.session.get_attributes(*key, &wanted).context("the token does not answer")?;
        for attribute in told {
            let why = match attribute {
                Attribute::ValueLen(bytes) if *bytes != 32 => "is not one of 256 bits",
                Attribute::Sensitive(false) | Attribute::Extractable(true) => {
                    "can be read out of the token"
                }
                Attribute::Encrypt(false) | Attribute::Decrypt(false) => {
                    "may not both encrypt and decrypt"
                }
                _ => continue,
            };
            bail!(
                "keys.pkcs11: the AES key `{label}` of the token `{token}` {why}\nhint: name another one as `key`; \
                 `passavant key-file generate` makes it"
            );
        }
        let nonce = [0x50; 12];
        let sealed = self.seal(label, nonce, "probe", b"probe");
        let opened = sealed.and_then(|sealed| self.open_sealed(label, nonce, "probe", &sealed));
        let opened = opened.with_context(|| {
            format!("keys.pkcs11: the token `{token}` does not seal and open with `{label}`")
        })?;
        if opened != b"probe" {
            bail!("keys.pkcs11: the token `{token}` opens something else than it sealed");
        }
        Ok(())
    }

    fn generate(&mut self, label: &str) -> Result<bool> {
        if !self.session.find_objects(&template(label))?.is_empty() {
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
        self.session
            .generate_key(&Mechanism::AesKeyGen, &attributes)
            .context("the token makes no AES key")?;
        Ok(true)
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
fn session(
    module: &Pkcs11,
    settings: &Pkcs11Settings,
    shared: Shared,
    refused_pin: &mut Option<String>,
) -> Result<Session> {
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
    let tried = pin.hash();
    let refused = || {
        anyhow!(
            "keys.pkcs11.pin_file: the token `{}` refuses this PIN, or has locked it\nhint: it was tried once; tokens lock \
             a PIN after a few wrong ones",
            settings.token
        )
    };
    if refused_pin.as_ref() == Some(&tried) {
        return Err(refused());
    }
    let pin = AuthPin::from(pin.expose().trim().to_owned());
    match session.login(UserType::User, Some(&pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLocked, _)) => {
            *refused_pin = Some(tried);
            Err(refused())
        }
        Err(error) => bail!("keys.pkcs11: the token `{}` lets nobody in: {error}", settings.token),
    }
}
