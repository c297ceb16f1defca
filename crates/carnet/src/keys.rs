//! Signing keys at rest: sealed with AES-256-GCM under the key-encryption key, which is in a file
//! beside the config and never in a database.

use crate::system;
use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use carnet_proto::{
    jwk::{Algorithm, SigningKey},
    secret::{Secret, mac},
    time::Clock,
};
use carnet_server::KeyRing;
use carnet_store::{SealedKey, Store};
use std::path::Path;
use zeroize::Zeroizing;

/// The key that seals signing keys.
pub(crate) struct KeyEncryptionKey(RandomizedNonceKey);

impl KeyEncryptionKey {
    /// Reads the 256-bit key that `carnet init` wrote.
    pub(crate) fn new(secret: &Secret) -> Result<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret.expose()).unwrap_or_default());
        if bytes.len() != 32 {
            bail!(
                "the key file does not hold 256 bits in base64url\nhint: `carnet init` makes one"
            );
        }
        RandomizedNonceKey::new(&AES_256_GCM, &bytes)
            .map(Self)
            .map_err(|_| anyhow!("the key file cannot be used"))
    }

    fn seal(&self, kid: &str, der: &[u8]) -> Result<String> {
        let mut sealed = der.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(kid.as_bytes()), &mut sealed)
            .map_err(|_| anyhow!("the signing key cannot be sealed"))?;
        Ok(URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &sealed].concat()))
    }

    fn open(&self, kid: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        let wrong = || {
            anyhow!(
                "the signing key {kid} cannot be opened with this key file\nhint: the database \
                 belongs to another key file; restore that file, nothing was changed"
            )
        };
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| wrong())?;
        if bytes.len() < NONCE_LEN {
            return Err(wrong());
        }
        let (nonce, content) = bytes.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let opened = self.0.open_in_place(nonce, Aad::from(kid.as_bytes()), content);
        Ok(Zeroizing::new(opened.map_err(|_| wrong())?.to_vec()))
    }
}

/// A gateway's key, from its file or made at its first start: it signs what MCP servers are told of callers.
/// The second secret marks session ids.
pub(crate) fn gateway_key(file: &Path, kek: &KeyEncryptionKey) -> Result<(SigningKey, Secret)> {
    const LABEL: &str = "gateway";
    if !file.exists() {
        let sealed = kek.seal(LABEL, &generate(Algorithm::ES256)?)?;
        system::write_private(file, sealed.as_bytes(), true)?;
    }
    let der = kek.open(LABEL, system::read_private(file)?.expose())?;
    let session_key = Secret::new(mac(&der, b"session ids"));
    Ok((SigningKey::from_pkcs8(Algorithm::ES256, &der)?, session_key))
}

/// A fresh PKCS#8 key.
pub(crate) fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>> {
    let random = SystemRandom::new();
    let document = match algorithm {
        Algorithm::EdDSA => Ed25519KeyPair::generate_pkcs8v1(&random),
        _ => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
    };
    let document = document.map_err(|_| anyhow!("a signing key cannot be made"))?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

/// The keys of an authorization server: from its database, or made at its first start.
pub(crate) async fn key_ring(
    store: &Store,
    kek: &KeyEncryptionKey,
    algorithm: Algorithm,
    clock: &Clock,
) -> Result<KeyRing> {
    if store.signing_keys().await?.iter().all(|key| key.retired_at.is_some()) {
        let der = generate(algorithm)?;
        let key = SigningKey::from_pkcs8(algorithm, &der)?;
        let sealed = SealedKey {
            kid: key.kid().to_owned(),
            algorithm: algorithm.name().to_owned(),
            sealed: kek.seal(key.kid(), &der)?,
            created_at: clock.now(),
            retired_at: None,
        };
        store.first_signing_key(&sealed).await?;
    }
    let mut signing = None;
    let mut retired = Vec::new();
    for held in store.signing_keys().await? {
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|a| a.name() == held.algorithm)
            .context("a signing key has an unknown algorithm")?;
        let key = SigningKey::from_pkcs8(algorithm, &kek.open(&held.kid, &held.sealed)?)?;
        if held.retired_at.is_none() && signing.is_none() {
            signing = Some(key);
        } else {
            retired.push(key.public_jwk().clone());
        }
    }
    let signing = signing.context("there is no signing key")?;
    if signing.algorithm() != algorithm {
        bail!(
            "the config says algorithm = \"{algorithm}\", but the database holds a {} key\nhint: an \
             issuer keeps one algorithm; set it back",
            signing.algorithm()
        );
    }
    KeyRing::new(signing, &retired).context("the signing keys cannot be published")
}
