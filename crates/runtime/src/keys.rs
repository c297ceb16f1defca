//! Signing keys at rest: sealed with AES-256-GCM under the key-encryption key, which is in a file
//! next to the config and never in a database.

use crate::config::Config;
#[cfg(feature = "pkcs11")]
use crate::pkcs11::Token;
use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use passavant_admin::STILL_VERIFIES;
use passavant_authority::{KeyRing, Keys, Sealing};
use passavant_host as system;
use passavant_proto::{
    jose::jwk::{Algorithm, SigningKey},
    secret::{Secret, mac},
    time::{Clock, Timestamp},
};
use passavant_store::{SealedAt, SealedKey, Store};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use zeroize::Zeroizing;

/// The key that seals signing keys, and others before or after it: each line of the key file is one.
/// The first seals, all of them open, so that one follows another while nodes run.
pub struct KeyEncryptionKey(Vec<Kek>);

/// One of them.
enum Kek {
    /// In this process.
    Here(RandomizedNonceKey),
    /// In a token, by its label.
    #[cfg(feature = "pkcs11")]
    There(Arc<Token>, String),
}

impl Kek {
    /// Nonce, ciphertext and tag.
    fn seal(&self, label: &str, value: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Here(key) => seal_here(key, label, value),
            #[cfg(feature = "pkcs11")]
            Self::There(token, key) => {
                let mut nonce = [0; NONCE_LEN];
                system::entropy().fill(&mut nonce);
                let sealed = token.seal(key, (nonce, label), value)?;
                Ok([nonce.as_slice(), &sealed].concat())
            }
        }
    }

    fn open(&self, label: &str, sealed: &str) -> Opening {
        match self {
            Self::Here(key) => open_here(key, label, sealed),
            #[cfg(feature = "pkcs11")]
            Self::There(token, key) => {
                let Ok(bytes) = URL_SAFE_NO_PAD.decode(sealed) else { return Opening::AnotherKey };
                let Some((nonce, content)) = bytes.split_first_chunk::<NONCE_LEN>() else {
                    return Opening::AnotherKey;
                };
                match token.open_sealed(key, (*nonce, label), content) {
                    Ok(Some(opened)) => Opening::Done(Zeroizing::new(opened)),
                    Ok(None) => Opening::AnotherKey,
                    Err(error) => Opening::NoAnswer(format!("{error:#}")),
                }
            }
        }
    }
}

/// Nonce, ciphertext and tag, by a key in this process.
fn seal_here(key: &RandomizedNonceKey, label: &str, value: &[u8]) -> Result<Vec<u8>> {
    let mut sealed = value.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(label.as_bytes()), &mut sealed)
        .map_err(|_| anyhow!("the value cannot be sealed"))?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

fn open_here(key: &RandomizedNonceKey, label: &str, sealed: &str) -> Opening {
    let bytes = URL_SAFE_NO_PAD.decode(sealed).map(Zeroizing::new);
    let Some(mut bytes) = bytes.ok().filter(|bytes| bytes.len() >= NONCE_LEN) else {
        return Opening::AnotherKey;
    };
    let (nonce, content) = bytes.split_at_mut(NONCE_LEN);
    let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else { return Opening::AnotherKey };
    match key.open_in_place(nonce, Aad::from(label.as_bytes()), content) {
        Ok(opened) => Opening::Done(Zeroizing::new(opened.to_vec())),
        Err(_) => Opening::AnotherKey,
    }
}

/// What became of a sealed value.
enum Opening {
    Done(Zeroizing<Vec<u8>>),
    /// It was sealed with another key.
    AnotherKey,
    /// The key's token does not answer: nothing is known about the value.
    NoAnswer(String),
}

/// Why a sealed value stays closed.
#[derive(Debug)]
enum Closed {
    AnotherKey,
    NoAnswer(String),
}

/// Follows a key that was added and does not seal yet.
pub(crate) const NEXT: &str = " next";

impl KeyEncryptionKey {
    /// Reads the keys of 256 bits that `passavant init` and `passavant key-file` wrote.
    pub fn new(secret: &Secret) -> Result<Self> {
        let mut keys = Vec::new();
        let lines = secret.expose().lines().enumerate();
        for (at, line) in lines.map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() {
                continue;
            }
            let key = line.strip_suffix(NEXT).map_or(line, str::trim_end);
            let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(key).unwrap_or_default());
            if bytes.len() != 32 {
                bail!(
                    "line {at} of the key file does not hold 256 bits in base64url\nhint: `passavant init` makes a \
                     key file, and `passavant key-file add` another key in it"
                );
            }
            let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes);
            keys.push(Kek::Here(key.map_err(|_| anyhow!("the key file cannot be used"))?));
        }
        if keys.is_empty() {
            bail!("the key file holds no key\nhint: `passavant init` makes one");
        }
        Ok(Self(keys))
    }

    /// The keys of a config: those in a token, then those in the file.
    pub fn of(config: &Config) -> Result<Self> {
        let mut keys = Vec::new();
        #[cfg(feature = "pkcs11")]
        if let Some(settings) = &config.pkcs11 {
            let token = Arc::new(Token::open(settings, config.secrets)?);
            for label in std::iter::once(&settings.key).chain(&settings.earlier) {
                token.check(label)?;
                keys.push(Kek::There(Arc::clone(&token), label.clone()));
            }
        }
        if let Some(file) = &config.key_file {
            keys.extend(Self::new(&system::read_secret(file, config.secrets)?)?.0);
        }
        Ok(Self(keys))
    }

    /// The first of them alone.
    pub(crate) fn first(self) -> Self {
        Self(self.0.into_iter().take(1).collect())
    }

    /// Whether one key follows another just now.
    pub fn is_turning(&self) -> bool {
        self.0.len() > 1
    }

    fn seal(&self, kid: &str, der: &[u8]) -> Result<String> {
        let first = self.0.first().context("there is no key")?;
        Ok(URL_SAFE_NO_PAD.encode(first.seal(kid, der)?))
    }

    fn open(&self, kid: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        self.open_sealed(kid, sealed).map_err(|closed| match closed {
            Closed::AnotherKey => NotOpened::for_good(anyhow!(
                "the signing key {kid} cannot be opened with this key file\n\
                 hint: the database belongs to another key file: restore that file; nothing was \
                 changed"
            )),
            Closed::NoAnswer(why) => NotOpened {
                error: anyhow!(
                    "the signing key {kid} cannot be opened just now: {why}\n\
                     hint: look after the token of `[keys.pkcs11]`; it is asked again"
                ),
                again: true,
            },
        })
    }

    fn open_sealed(&self, label: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Closed> {
        let mut silent = None;
        for key in &self.0 {
            match key.open(label, sealed) {
                Opening::Done(value) => return Ok(value),
                Opening::AnotherKey => {}
                Opening::NoAnswer(why) => silent = Some(why),
            }
        }
        Err(silent.map_or(Closed::AnotherKey, Closed::NoAnswer))
    }

    /// Whether a value is sealed under the first key.
    fn is_first(&self, label: &str, sealed: &str) -> bool {
        let first = self.0.first();
        first.is_some_and(|key| matches!(key.open(label, sealed), Opening::Done(_)))
    }

    /// A value sealed under the first key, if it is sealed under another one.
    fn anew(&self, label: &str, sealed: &str) -> Result<Option<String>> {
        if self.is_first(label, sealed) {
            return Ok(None);
        }
        let value = self.open_sealed(label, sealed);
        let value = value.map_err(|closed| match closed {
            Closed::AnotherKey => anyhow!("it is sealed under none of the keys in the key file"),
            Closed::NoAnswer(why) => anyhow!("{why}"),
        })?;
        self.seal(label, &value).map(Some)
    }
}

/// Seals everything in a database anew that is sealed under another key than the first. Values that none
/// of the keys opens stay as they are, and are logged. Returns how many were sealed anew, and how many
/// could not be.
pub async fn reseal(store: &Store, kek: &KeyEncryptionKey) -> Result<(usize, usize)> {
    let all = store.sealed_values().await?;
    let (mut done, mut left) = (0, all.unreadable.len());
    for what in all.unreadable {
        tracing::error!(what, "it cannot be read, and may hold what stays sealed as it is");
    }
    for (at, sealed) in all.values {
        match kek.anew(&at.label(), &sealed) {
            Ok(None) => {}
            Ok(Some(anew)) => done += usize::from(store.reseal(&at, &sealed, &anew).await?),
            Err(error) => {
                tracing::error!(what = ?at, %error, "a value stays sealed as it is");
                left += 1;
            }
        }
    }
    Ok((done, left))
}

/// Checks that nothing in a database needs another key than this one: it has a signing key that this one
/// opens, so that it is the right database, and nothing that this one does not open.
pub async fn needs_no_other(store: &Store, kek: &KeyEncryptionKey) -> Result<()> {
    let all = store.sealed_values().await?;
    if let Some(what) = all.unreadable.first() {
        bail!("{what}: it cannot be read by this version, and may be sealed under an earlier key");
    }
    let others =
        all.values.iter().filter(|(at, sealed)| !kek.is_first(&at.label(), sealed)).count();
    if others > 0 {
        bail!(
            "{others} values are not sealed under the first key\nhint: `passavant serve` seals them anew at its start; its \
             log says when, and which it cannot open"
        );
    }
    if !all.values.iter().any(|(at, _)| matches!(at, SealedAt::SigningKey(_))) {
        bail!("it has no signing key\nhint: is it the database that `passavant serve` uses?");
    }
    Ok(())
}

/// Whether a gateway's key file is sealed under the first key.
pub fn gateway_is_first(file: &Path, kek: &KeyEncryptionKey) -> Result<bool> {
    Ok(kek.is_first(GATEWAY, system::read_private(file)?.expose()))
}

/// What the key of a gateway is sealed for.
const GATEWAY: &str = "gateway";

/// Keys for what passes through browsers and comes back: from the signing keys, which every node has opened.
/// The first seals, all of them open, since a form may come back after the next one began to sign.
#[derive(Default)]
pub struct PassingKeys(RwLock<Vec<Arc<RandomizedNonceKey>>>);

impl PassingKeys {
    /// From the signing keys of one algorithm, the one that signs first.
    fn set(&self, ders: &[Arc<Zeroizing<Vec<u8>>>]) {
        let keys = ders.iter().filter_map(|der| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, der);
            let key = hmac::sign(&key, b"passavant: what passes through browsers");
            RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok().map(Arc::new)
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.collect();
    }

    fn held(&self) -> Vec<Arc<RandomizedNonceKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seal(&self, label: &str, value: &[u8]) -> Result<String, String> {
        let first = self.held().into_iter().next().ok_or("there is no signing key")?;
        let sealed = seal_here(&first, label, value).map_err(|error| format!("{error:#}"))?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    fn open(&self, label: &str, sealed: &str) -> Result<Vec<u8>, String> {
        for key in self.held() {
            if let Opening::Done(value) = open_here(&key, label, sealed) {
                return Ok(value.to_vec());
            }
        }
        Err(format!("{label}: it was sealed with another key"))
    }
}

/// How many of other parties' secrets are kept open. Each upstream has one or two.
const KEPT_OPEN: usize = 256;

/// What was opened, by what it is for and how it was sealed.
type KeptOpen = Mutex<HashMap<(String, String), Arc<Zeroizing<Vec<u8>>>>>;

/// Sealing of other parties' secrets under this key, and of what passes through browsers.
pub fn sealing(kek: &Arc<KeyEncryptionKey>, passing: &Arc<PassingKeys>) -> Sealing {
    let (seal, open) = (Arc::clone(kek), Arc::clone(kek));
    let kept = KeptOpen::default();
    let sealing = Sealing::new(
        move |label, value| seal.seal(label, value).map_err(|error| format!("{error:#}")),
        move |label, sealed| {
            // What each sign-in by way of an upstream needs is opened once: a token is slow, and may be away.
            let is_upstreams = SealedAt::is_of_upstream(label);
            let key = (label.to_owned(), sealed.to_owned());
            let held = || kept.lock().unwrap_or_else(PoisonError::into_inner);
            if is_upstreams && let Some(value) = held().get(&key) {
                return Ok(value.to_vec());
            }
            let opened = open.open_sealed(label, sealed).map_err(|closed| match closed {
                Closed::AnotherKey => format!("{label}: it was sealed with another key file"),
                Closed::NoAnswer(why) => format!("{label}: {why}"),
            })?;
            if is_upstreams {
                let mut held = held();
                if held.len() >= KEPT_OPEN {
                    held.clear();
                }
                held.insert(key, Arc::new(opened.clone()));
            }
            Ok(opened.to_vec())
        },
    );
    let (seal, open) = (Arc::clone(passing), Arc::clone(passing));
    sealing.passing(
        move |label, value| seal.seal(label, value),
        move |label, sealed| open.open(label, sealed),
    )
}

/// A self-signed certificate that an upstream knows this server by, for three years, and its RSA
/// key.
pub fn certificate(name: &str, now: Timestamp) -> Result<(Vec<u8>, Vec<u8>), String> {
    let made = || -> Result<(Vec<u8>, Vec<u8>)> {
        let der = passavant_host::keys::generate(Algorithm::RS256)?;
        let key = rcgen::KeyPair::try_from(der.as_slice())?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("Passavant {name}"));
        let day = |from: i64| time::OffsetDateTime::from_unix_timestamp(from);
        // Clocks differ.
        params.not_before = day(now.plus(-86_400).0)?;
        params.not_after = day(now.plus(3 * 365 * 86_400).0)?;
        let certificate = params.self_signed(&key)?;
        Ok((certificate.der().to_vec(), der.to_vec()))
    };
    made().map_err(|error| format!("a certificate cannot be made: {error:#}"))
}

/// A gateway's key, from its file or created at its first start: it signs the assertions that tell
/// MCP servers who calls. The second secret marks session ids.
pub fn gateway_key(file: &Path, kek: &KeyEncryptionKey) -> Result<(SigningKey, Secret)> {
    if !file.exists() {
        let sealed = kek.seal(GATEWAY, &passavant_host::keys::generate(Algorithm::ES256)?)?;
        system::write_private(file, sealed.as_bytes(), true)?;
    }
    let held = system::read_private(file)?;
    let der = kek.open(GATEWAY, held.expose()).map_err(|why| why.error)?;
    if let Some(anew) = kek.anew(GATEWAY, held.expose())? {
        system::write_private(file, anew.as_bytes(), false)?;
    }
    let session_key = Secret::new(mac(&der, b"session ids"));
    Ok((SigningKey::from_pkcs8(Algorithm::ES256, &der)?, session_key))
}

/// Whether this key file belongs to a database. Checked before anything is written into it.
pub async fn belong_together(
    store: &Store,
    kek: &KeyEncryptionKey,
    algorithm: Algorithm,
    clock: &Clock,
) -> Result<()> {
    let held = store.signing_keys().await?;
    let opened = &mut Opened::default();
    if held.is_empty() {
        Ok(())
    } else {
        ring(kek, opened, &held, algorithm, clock.now()).map(drop)
    }
}

/// Signing keys that were opened, by how they were sealed: what signs does not depend on a token again.
type Opened = HashMap<String, Arc<Zeroizing<Vec<u8>>>>;

/// When keys are looked at again that could not be opened since their token did not answer, in seconds.
const ASK_AGAIN: i64 = 2;

/// The keys of an authorization server: from its database, or created at its first start.
pub async fn of_server(
    store: &Store,
    kek: &Arc<KeyEncryptionKey>,
    algorithm: Algorithm,
    clock: &Clock,
    passing: Option<&Arc<PassingKeys>>,
) -> Result<Keys> {
    let mut held = store.signing_keys().await?;
    let signs = |held: &[SealedKey], with: &str| {
        held.iter().any(|key| key.retired_at.is_none() && key.algorithm == with)
    };
    // RS256 as well: OpenID Connect Discovery requires it, and some parties accept nothing else.
    let wanted = if held.iter().any(|key| key.retired_at.is_none() && key.algorithm != RSA) {
        vec![Algorithm::RS256]
    } else {
        vec![algorithm, Algorithm::RS256]
    };
    for wanted in wanted {
        if !signs(&held, wanted.name()) {
            let sealed = new_key(kek, wanted, clock.now(), clock.now())?;
            store.first_signing_key(&sealed).await?;
            held = store.signing_keys().await?;
        }
    }
    // A key file of another database is reported at the start, not at the first request.
    let mut opened = Opened::default();
    let first = ring(kek, &mut opened, &held, algorithm, clock.now())?;
    if let Some(passing) = passing {
        passing.set(&first.ders);
    }
    let (kek, store, passing) = (Arc::clone(kek), store.clone(), passing.cloned());
    let opened = Mutex::new(opened);
    Ok(Keys::on_record(move |held, now| {
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        let made = ring(&kek, &mut opened, held, algorithm, now);
        let made = made.map_err(|error| format!("{error:#}"))?;
        for (kid, why) in made.left_out {
            store.note_unreadable("signing key", &kid, &why);
        }
        if let Some(passing) = &passing {
            passing.set(&made.ders);
        }
        Ok(made.ring)
    }))
}

/// Makes new keys for rotation.
pub fn maker(
    kek: &Arc<KeyEncryptionKey>,
    algorithm: Algorithm,
    clock: &Clock,
) -> passavant_admin::MakeKey {
    let (kek, clock) = (Arc::clone(kek), clock.clone());
    Arc::new(move |chosen, signs_from| {
        let algorithm = chosen.unwrap_or(algorithm);
        new_key(&kek, algorithm, clock.now(), signs_from).map_err(|error| format!("{error:#}"))
    })
}

fn new_key(
    kek: &KeyEncryptionKey,
    algorithm: Algorithm,
    created_at: Timestamp,
    signs_from: Timestamp,
) -> Result<SealedKey> {
    let der = passavant_host::keys::generate(algorithm)?;
    let key = SigningKey::from_pkcs8(algorithm, &der)?;
    Ok(SealedKey {
        kid: key.kid().to_owned(),
        algorithm: algorithm.name().to_owned(),
        sealed: kek.seal(key.kid(), &der)?,
        created_at,
        retired_at: None,
        signs_from,
    })
}

/// The algorithm whose keys exist besides those of the server's own algorithm.
const RSA: &str = Algorithm::RS256.name();

/// The key ring as of `now`. Of each algorithm the newest key that may sign does; future and
/// recently retired keys are published and verify. The server's own algorithm comes first. Without
/// a signing key of that algorithm there is no ring; any other key that cannot be unsealed is
/// logged and left out.
fn ring(
    kek: &KeyEncryptionKey,
    opened: &mut Opened,
    held: &[SealedKey],
    algorithm: Algorithm,
    now: Timestamp,
) -> Result<Made> {
    let (mut signing, mut others, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut left_out, mut ders) = (Vec::new(), Vec::new());
    opened.retain(|sealed, _| held.iter().any(|key| key.sealed == *sealed));
    let mut leave_out = |key: &SealedKey, why: NotOpened, changes: &mut Vec<Timestamp>| {
        if why.again {
            changes.push(now.plus(ASK_AGAIN));
        }
        left_out.push((key.kid.clone(), format!("{:#}", why.error)));
    };
    let rest = Algorithm::SIGNING.into_iter().filter(|other| *other != algorithm);
    for of in std::iter::once(algorithm).chain(rest) {
        let mut live: Vec<&SealedKey> =
            held.iter().filter(|key| key.algorithm == of.name()).collect();
        live.sort_by(|one, other| one.order().cmp(&other.order()));
        let signing_key = SealedKey::that_signs(live.iter().copied(), now);
        let Some(begun) =
            signing_key.and_then(|own| live.iter().position(|key| key.kid == own.kid))
        else {
            continue;
        };
        for (i, key) in live.iter().enumerate() {
            if i == begun {
                continue;
            }
            if i < begun {
                let ends = live[i + 1].signs_from.plus(STILL_VERIFIES);
                if ends <= now {
                    continue;
                }
                changes.push(ends);
            } else {
                changes.push(key.signs_from);
            }
            match open(kek, opened, key) {
                Ok((key, der)) => {
                    others.push(key.public_jwk().clone());
                    if of == algorithm {
                        ders.push(der);
                    }
                }
                Err(why) => leave_out(key, why, &mut changes),
            }
        }
        match open(kek, opened, live[begun]) {
            Ok((key, der)) => {
                signing.push(key);
                if of == algorithm {
                    ders.insert(0, der);
                }
            }
            Err(why) if of == algorithm => return Err(why.error),
            Err(why) => leave_out(live[begun], why, &mut changes),
        }
    }
    let first = signing.first().context("there is no signing key")?;
    if first.algorithm() != algorithm {
        bail!(
            "the config says algorithm = \"{algorithm}\", but the database holds a {} key\n\
             hint: an issuer keeps its algorithm: set it back in the config",
            first.algorithm()
        );
    }
    let next = changes.into_iter().filter(|at| *at > now).min();
    let ring = KeyRing::of_several(signing, &others);
    let ring = ring.context("the signing keys cannot be published")?.until(next);
    Ok(Made { ring, left_out, ders })
}

/// A ring, the keys that could not be opened, and those of the server's own algorithm, the one that signs
/// first.
struct Made {
    ring: KeyRing,
    left_out: Vec<(String, String)>,
    ders: Vec<Arc<Zeroizing<Vec<u8>>>>,
}

/// Why a signing key is not in the ring.
struct NotOpened {
    error: anyhow::Error,
    /// Whether it can be tried again: its token did not answer.
    again: bool,
}

impl NotOpened {
    fn for_good(error: anyhow::Error) -> Self {
        Self { error, again: false }
    }
}

fn open(
    kek: &KeyEncryptionKey,
    opened: &mut Opened,
    held: &SealedKey,
) -> Result<(SigningKey, Arc<Zeroizing<Vec<u8>>>), NotOpened> {
    let algorithm = Algorithm::named(&held.algorithm);
    let algorithm = algorithm.context("a signing key has an unknown algorithm");
    let algorithm = algorithm.map_err(NotOpened::for_good)?;
    let der = match opened.get(&held.sealed) {
        Some(der) => Arc::clone(der),
        None => {
            let der = Arc::new(kek.open(&held.kid, &held.sealed)?);
            opened.insert(held.sealed.clone(), Arc::clone(&der));
            der
        }
    };
    let key = SigningKey::from_pkcs8(algorithm, &der);
    let key = key.map_err(|error| NotOpened::for_good(error.into()))?;
    Ok((key, der))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kek() -> KeyEncryptionKey {
        KeyEncryptionKey::new(&Secret::new(URL_SAFE_NO_PAD.encode([7; 32]))).unwrap()
    }

    fn kids(ring: &[SealedKey]) -> Vec<&str> {
        ring.iter().map(|key| key.kid.as_str()).collect()
    }

    #[tokio::test]
    async fn a_key_file_turns_to_another_key_and_everything_is_sealed_anew() {
        let folder = std::env::temp_dir().join(format!("passavant-kek-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let url = format!("sqlite:{}", folder.join("idp.db").display());
        std::fs::write(folder.join("idp.db"), b"").unwrap();
        let store = Store::open(&url).await.unwrap();
        let line = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
        let of = |lines: &[String]| {
            Arc::new(KeyEncryptionKey::new(&Secret::new(lines.join("\n"))).unwrap())
        };
        let clock = Clock::new(|| Timestamp(1_000_000));
        let old = of(&[line(1)]);
        of_server(&store, &old, Algorithm::ES256, &clock, None).await.unwrap();
        assert!(needs_no_other(&store, &old).await.is_ok());
        // A database that is empty, for instance another one than is meant, proves nothing.
        let other = folder.join("other.db");
        std::fs::write(&other, b"").unwrap();
        let empty = Store::open(&format!("sqlite:{}", other.display())).await.unwrap();
        let why = needs_no_other(&empty, &old).await.unwrap_err().to_string();
        assert!(why.starts_with("it has no signing key"), "{why}");
        // Both open, the new one seals, and after one pass the new one alone does.
        let both = of(&[line(2), line(1)]);
        assert!(belong_together(&store, &both, Algorithm::ES256, &clock).await.is_ok());
        let why = needs_no_other(&store, &both).await.unwrap_err().to_string();
        assert!(why.starts_with("2 values are not sealed"), "ES256 and RS256: {why}");
        assert_eq!(reseal(&store, &both).await.unwrap(), (2, 0));
        assert_eq!(reseal(&store, &both).await.unwrap(), (0, 0));
        let new = of(&[line(2)]);
        assert!(needs_no_other(&store, &new).await.is_ok());
        assert!(belong_together(&store, &new, Algorithm::ES256, &clock).await.is_ok());
        // The old one, and any other, opens nothing, and changes nothing.
        for other in [of(&[line(1)]), of(&[line(3), line(1)])] {
            assert!(belong_together(&store, &other, Algorithm::ES256, &clock).await.is_err());
            assert_eq!(reseal(&store, &other).await.unwrap(), (0, 2), "and says so");
        }
        assert!(belong_together(&store, &new, Algorithm::ES256, &clock).await.is_ok());
        // A gateway's key keeps what it is.
        let file = folder.join("gateway.key");
        let before = gateway_key(&file, &old).unwrap();
        assert!(!gateway_is_first(&file, &new).unwrap());
        let after = gateway_key(&file, &both).unwrap();
        assert_eq!(before.0.kid(), after.0.kid());
        assert!(gateway_is_first(&file, &new).unwrap());
        for wrong in ["", "short", &format!("{}\nshort", line(1))] {
            assert!(KeyEncryptionKey::new(&Secret::new(wrong)).is_err(), "{wrong}");
        }
        // A key that is added opens and does not seal; a line is named by its place in the file.
        let added = KeyEncryptionKey::new(&Secret::new(format!("{}\n{}{NEXT}", line(2), line(3))));
        assert!(needs_no_other(&store, &added.unwrap()).await.is_ok());
        let text = Secret::new(format!("\n{}\n\nshort", line(1)));
        let why = KeyEncryptionKey::new(&text).err().unwrap().to_string();
        assert!(why.starts_with("line 4 "), "{why}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_verifies_after_the_next_one_does() {
        let kek = kek();
        let at = |from: i64| new_key(&kek, Algorithm::ES256, Timestamp(from), Timestamp(from));
        let held = vec![at(1_000).unwrap(), at(2_000).unwrap()];
        let kids = kids(&held);
        let seen = |now: i64| {
            let ring = ring(&kek, &mut Opened::default(), &held, Algorithm::ES256, Timestamp(now))
                .unwrap()
                .ring;
            (ring.kid().to_owned(), ring.published().len(), ring.changes_at())
        };
        assert_eq!(seen(1_999), (kids[0].to_owned(), 2, Some(Timestamp(2_000))));
        let ends = Timestamp(2_000 + STILL_VERIFIES);
        assert_eq!(seen(2_000), (kids[1].to_owned(), 2, Some(ends)));
        assert_eq!(seen(ends.0), (kids[1].to_owned(), 1, None));
    }

    #[test]
    fn each_algorithm_rotates_by_itself_and_the_servers_own_comes_first() {
        let kek = kek();
        let at = |algorithm, from: i64| {
            new_key(&kek, algorithm, Timestamp(from), Timestamp(from)).unwrap()
        };
        let held = vec![
            at(Algorithm::RS256, 3_000),
            at(Algorithm::ES256, 1_000),
            at(Algorithm::RS256, 1_500),
        ];
        let ring = |held: &[SealedKey], algorithm, now: i64| {
            ring(&kek, &mut Opened::default(), held, algorithm, Timestamp(now))
                .map(|made| made.ring)
        };
        let es = ring(&held, Algorithm::ES256, 2_000).unwrap();
        assert_eq!(es.kid(), held[1].kid, "a later key of another algorithm changes nothing");
        assert_eq!(es.algorithms(), [Algorithm::ES256, Algorithm::RS256]);
        assert_eq!((es.published().len(), es.changes_at()), (3, Some(Timestamp(3_000))));
        let rs = ring(&held, Algorithm::RS256, 2_000).unwrap();
        assert_eq!(rs.kid(), held[2].kid);
        assert!(ring(&held, Algorithm::EdDSA, 2_000).is_err(), "an issuer keeps its algorithm");
    }

    #[test]
    fn a_key_beside_that_cannot_be_opened_is_named_and_stops_nothing() {
        let kek = kek();
        let at = |algorithm, from: i64| {
            new_key(&kek, algorithm, Timestamp(from), Timestamp(from)).unwrap()
        };
        let spoiled = |key: SealedKey| SealedKey { sealed: "AAAA".to_owned(), ..key };
        let mut held = vec![
            at(Algorithm::ES256, 2_000),
            spoiled(at(Algorithm::ES256, 1_900)),
            spoiled(at(Algorithm::RS256, 1_500)),
        ];
        let opened = &mut Opened::default();
        let made = ring(&kek, opened, &held, Algorithm::ES256, Timestamp(2_001)).unwrap();
        let (found, left_out) = (made.ring, made.left_out);
        assert_eq!(found.algorithms(), [Algorithm::ES256]);
        let named: Vec<&str> = left_out.iter().map(|(kid, _)| kid.as_str()).collect();
        assert_eq!(named, [held[1].kid.as_str(), held[2].kid.as_str()]);
        held[0].sealed = "AAAA".to_owned();
        let opened = &mut Opened::default();
        assert!(
            ring(&kek, opened, &held, Algorithm::ES256, Timestamp(2_001)).is_err(),
            "its own signs"
        );
    }

    #[tokio::test]
    async fn a_database_is_not_taken_with_another_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("idp.db").display());
        let store = Store::open(&url).await.unwrap();
        let (kek, clock) = (kek(), system::clock());
        let first = new_key(&kek, Algorithm::ES256, Timestamp(1), Timestamp(1)).unwrap();
        store.first_signing_key(&first).await.unwrap();
        let other = KeyEncryptionKey::new(&Secret::new(URL_SAFE_NO_PAD.encode([8; 32]))).unwrap();
        let together = |kek| belong_together(&store, kek, Algorithm::ES256, &clock);
        assert!(together(&other).await.is_err());
        assert_eq!(store.signing_keys().await.unwrap(), [first]);
        together(&kek).await.unwrap();
        of_server(&store, &Arc::new(kek), Algorithm::ES256, &clock, None).await.unwrap();
        assert_eq!(store.signing_keys().await.unwrap().len(), 2, "RS256 beside it");
    }

    #[test]
    fn a_key_of_another_key_file_is_refused_by_name() {
        let sealed = new_key(&kek(), Algorithm::ES256, Timestamp(1), Timestamp(1)).unwrap();
        let other = KeyEncryptionKey::new(&Secret::new(URL_SAFE_NO_PAD.encode([8; 32]))).unwrap();
        let opened = &mut Opened::default();
        let error =
            ring(&other, opened, std::slice::from_ref(&sealed), Algorithm::ES256, Timestamp(2));
        let error = error.err().expect("another key file opens nothing").to_string();
        assert!(error.contains(&sealed.kid), "{error}");
    }
}
