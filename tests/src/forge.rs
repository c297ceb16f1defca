//! Makes JWTs that no honest party would make.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use passavant_proto::jose::jwk::{Algorithm, SigningKey};
use serde_json::{Value, json};
use std::sync::LazyLock;

static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec()
});

/// An RSA key, always the same one, in PKCS#8.
pub fn rsa_der() -> Vec<u8> {
    RSA.clone()
}

/// Signing keys of EdDSA and RS256, always the same ones, because making an RSA key takes a while.
pub fn other_keys() -> [SigningKey; 2] {
    static ED: LazyLock<Vec<u8>> = LazyLock::new(|| {
        Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap().as_ref().to_vec()
    });
    [
        SigningKey::from_pkcs8(Algorithm::EdDSA, &ED).unwrap(),
        SigningKey::from_pkcs8(Algorithm::RS256, &RSA).unwrap(),
    ]
}

/// A P-256 key that can sign anything.
pub struct Key {
    der: Vec<u8>,
    pair: EcdsaKeyPair,
    signing: SigningKey,
}

impl Key {
    /// A fresh key.
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let der = document.as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
        let signing = SigningKey::from_pkcs8(Algorithm::ES256, &der).unwrap();
        Self { der, pair, signing }
    }

    /// The same key for our own signer.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_pkcs8(Algorithm::ES256, &self.der).unwrap()
    }

    /// PKCS#8.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        self.signing.kid()
    }

    /// Public JWK.
    pub fn jwk(&self) -> Value {
        self.signing.public_jwk().clone()
    }

    /// The public key's uncompressed point.
    pub fn point(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// A JWT with exactly this header and payload.
    pub fn sign(&self, header: &str, payload: &[u8]) -> String {
        let input = format!("{}.{}", B64.encode(header), B64.encode(payload));
        format!("{input}.{}", B64.encode(self.signature(&input)))
    }

    /// A signature over `input`.
    pub fn signature(&self, input: &str) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref().to_vec()
    }

    /// The usual header; without `typ` if that is empty.
    pub fn header(&self, typ: &str) -> Value {
        let mut header = json!({"alg": "ES256", "kid": self.kid()});
        if !typ.is_empty() {
            header["typ"] = typ.into();
        }
        header
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

/// A decoded JWT, to be changed in one place and signed again.
#[derive(Clone)]
pub struct Parts {
    /// JOSE header.
    pub header: Value,
    /// Claims.
    pub claims: Value,
}

impl Parts {
    /// Header and claims of a JWT.
    pub fn of(jwt: &str) -> Self {
        let mut parts = jwt.split('.').map(|part| B64.decode(part).unwrap());
        let header = serde_json::from_slice(&parts.next().unwrap()).unwrap();
        let claims = serde_json::from_slice(&parts.next().unwrap()).unwrap();
        Self { header, claims }
    }

    /// Signed by `key`.
    pub fn sign(&self, key: &Key) -> String {
        key.sign(&self.header.to_string(), self.claims.to_string().as_bytes())
    }
}
