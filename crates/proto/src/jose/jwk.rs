//! JSON Web Keys (RFC 7517, 7518, 8037): parsed once into keys ready to verify or sign.

use crate::{jose::claims::Claims, secret::sha256};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
        RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::HashMap, fmt};

/// The supported signature algorithms. There is no `none`, no HMAC and no negotiation: each issuer
/// and each client has exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSASSA-PSS with SHA-256, modulus of 2048 bits or more.
    PS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, modulus of 2048 bits or more.
    RS256,
}

impl Algorithm {
    /// Every algorithm, for metadata.
    pub const ALL: [Self; 4] = [Self::ES256, Self::EdDSA, Self::PS256, Self::RS256];

    /// The algorithms that our own tokens are signed with. PS256 signs only client assertions, by
    /// certificate.
    pub const SIGNING: [Self; 3] = [Self::ES256, Self::EdDSA, Self::RS256];

    /// The algorithm with this `alg` value.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The `alg` value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::PS256 => "PS256",
            Self::RS256 => "RS256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A public key bound to the one algorithm it is used with.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// Parses a JWK for use with `algorithm`. `None` if it is of another type, for another use, has
    /// a private part, or is not a valid key (point off the curve, RSA below 2048 bits).
    pub fn from_jwk(jwk: &Claims, algorithm: Algorithm) -> Option<Self> {
        let text = |name| jwk.optional_str(name).ok().flatten();
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let for_this = text("use").is_none_or(|u| u == "sig")
            && text("alg").is_none_or(|a| a == algorithm.name())
            && (jwk.value("use").is_none_or(Value::is_string))
            && (jwk.value("alg").is_none_or(Value::is_string));
        // The owner decides what a key may be used for (RFC 7517, 4.3): if there are `key_ops`,
        // verifying has to be among them.
        let for_verifying = match jwk.value("key_ops") {
            None => true,
            Some(Value::Array(operations)) => {
                operations.iter().all(Value::is_string)
                    && operations.iter().any(|operation| operation == "verify")
            }
            Some(_) => false,
        };
        if !for_verifying {
            return None;
        }
        if !for_this || jwk.value("d").is_some() || jwk.value("k").is_some() {
            return None;
        }
        let key = match (algorithm, text("kty")?) {
            (Algorithm::ES256, "EC") if text("crv") == Some("P-256") => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                let point = [&[4_u8][..], &x, &y].concat();
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?
            }
            (Algorithm::EdDSA, "OKP") if text("crv") == Some("Ed25519") => {
                let x = bytes("x")?;
                if x.len() != 32 {
                    return None;
                }
                ParsedPublicKey::new(&ED25519, x).ok()?
            }
            (Algorithm::PS256 | Algorithm::RS256, "RSA") => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let significant = n.iter().skip_while(|b| **b == 0).count();
                if !(256..=1024).contains(&significant) {
                    return None;
                }
                let scheme = if algorithm == Algorithm::PS256 {
                    &RSA_PSS_2048_8192_SHA256
                } else {
                    &RSA_PKCS1_2048_8192_SHA256
                };
                let parts = RsaPublicKeyComponents { n, e };
                parts.to_parsed_public_key(scheme).ok()?
            }
            _ => return None,
        };
        Some(Self { algorithm, key })
    }

    /// The algorithm it is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` was made by this key over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey")
    }
}

/// The usable keys of one issuer or client.
#[derive(Clone, Debug)]
pub struct KeySet {
    algorithm: Algorithm,
    /// This is our own set: each key is used with the algorithm that it names.
    own: bool,
    by_kid: HashMap<String, PublicKey>,
    without_kid: Vec<PublicKey>,
}

/// Why a JWK Set is rejected as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not `{"keys": [...]}`, or more than 100 keys.
    #[error("is not a JWK Set (`{{\"keys\": […]}}`) of at most 100 keys")]
    NotKeySet,
    /// Contains a private or symmetric key.
    #[error("holds a private key; publish the public part alone, and replace that key")]
    Private,
    /// No key fits the registered algorithm.
    #[error("has no usable {0} key")]
    NoneUsable(Algorithm),
}

impl KeySet {
    /// Parses a JWK Set and keeps the keys that can be used with `algorithm`. Others are ignored,
    /// and two different keys with one `kid` are both unusable (RFC 7517 section 4.5).
    pub fn parse(json: &[u8], algorithm: Algorithm) -> Result<Self, KeySetError> {
        Self::read(json, algorithm, false)
    }

    /// Parses our own JWK Set: each key is used with the algorithm that it names. `algorithm` is
    /// the one that error messages name.
    pub fn parse_own(json: &[u8], algorithm: Algorithm) -> Result<Self, KeySetError> {
        Self::read(json, algorithm, true)
    }

    fn read(json: &[u8], algorithm: Algorithm, own: bool) -> Result<Self, KeySetError> {
        let set = Claims::parse(json).map_err(|_| KeySetError::NotKeySet)?;
        let keys = match set.value("keys") {
            Some(Value::Array(keys)) if keys.len() <= 100 => keys,
            _ => return Err(KeySetError::NotKeySet),
        };
        let mut by_kid: HashMap<String, Option<(PublicKey, &Value)>> = HashMap::new();
        let mut without_kid = Vec::new();
        for jwk in keys {
            let Value::Object(members) = jwk else { continue };
            if members.contains_key("d") {
                return Err(KeySetError::Private);
            }
            let Ok(claims) = Claims::parse(jwk.to_string().as_bytes()) else { continue };
            let named = claims.value("alg").and_then(Value::as_str).and_then(Algorithm::named);
            let used_with = if own { named } else { Some(algorithm) };
            let key = used_with.and_then(|used_with| PublicKey::from_jwk(&claims, used_with));
            let Some(key) = key else { continue };
            match claims.value("kid") {
                None => without_kid.push(key),
                Some(Value::String(kid)) => {
                    by_kid
                        .entry(kid.clone())
                        .and_modify(|held| {
                            if held.as_ref().is_some_and(|(_, other)| *other != jwk) {
                                *held = None;
                            }
                        })
                        .or_insert(Some((key, jwk)));
                }
                Some(_) => {}
            }
        }
        let by_kid: HashMap<_, _> =
            by_kid.into_iter().filter_map(|(kid, key)| Some((kid, key?.0))).collect();
        if by_kid.is_empty() && without_kid.is_empty() {
            return Err(KeySetError::NoneUsable(algorithm));
        }
        Ok(Self { algorithm, own, by_kid, without_kid })
    }

    /// The algorithm of the keys; of our own set, the one that error messages name.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether keys of the set are used with the algorithm of this name.
    pub fn takes(&self, name: Option<&str>) -> bool {
        let uses = |key: &PublicKey| Some(key.algorithm.name()) == name;
        name == Some(self.algorithm.name())
            || (self.own && self.by_kid.values().chain(&self.without_kid).any(uses))
    }

    /// The key that a header refers to: by `kid`, or the only key if the header has none.
    pub fn find(&self, kid: Option<&str>) -> Option<&PublicKey> {
        match kid {
            Some(kid) => self.by_kid.get(kid),
            None if self.by_kid.len() + self.without_kid.len() == 1 => {
                self.without_kid.first().or_else(|| self.by_kid.values().next())
            }
            None => None,
        }
    }
}

/// A private key that signs our tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: String,
    public_jwk: Value,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair, SystemRandom),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>, SystemRandom),
}

/// The PKCS#8 document is not a private key of the algorithm, or the algorithm cannot sign here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a PKCS#8 private key for ES256, EdDSA, PS256 or RS256")]
pub struct SigningKeyError;

impl SigningKey {
    /// Loads a PKCS#8 DER key for ES256, EdDSA, PS256 or RS256 (2048 bits or more); its `kid` is the RFC
    /// 7638 thumbprint.
    pub fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Result<Self, SigningKeyError> {
        let (pair, mut public_jwk, canonical) = match algorithm {
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                    .map_err(|_| SigningKeyError)?;
                let point = pair.public_key().as_ref().to_vec();
                let (x, y) =
                    (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
                let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
                let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
                (Pair::Ec(pair, SystemRandom::new()), jwk, canonical)
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| SigningKeyError)?;
                let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                (Pair::Ed(pair), json!({"kty": "OKP", "crv": "Ed25519", "x": x}), canonical)
            }
            Algorithm::RS256 | Algorithm::PS256 => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| SigningKeyError)?;
                if pair.public_modulus_len() < 256 {
                    return Err(SigningKeyError);
                }
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero();
                let e = public.exponent().big_endian_without_leading_zero();
                let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
                let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
                let jwk = json!({"kty": "RSA", "n": n, "e": e});
                (Pair::Rsa(Box::new(pair), SystemRandom::new()), jwk, canonical)
            }
        };
        let kid = sha256(canonical.as_bytes());
        public_jwk["kid"] = kid.clone().into();
        public_jwk["use"] = "sig".into();
        public_jwk["alg"] = algorithm.name().into();
        Ok(Self { algorithm, kid, public_jwk, pair })
    }

    /// The algorithm it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// RFC 7638 thumbprint of the public key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key as a JWK with `kid`, `use` and `alg`.
    pub fn public_jwk(&self) -> &Value {
        &self.public_jwk
    }

    /// Signature by `rsa-sha256` over a SAML request; `None` if the key is no RSA key, or is one for PSS.
    pub fn sign_saml(&self, message: &[u8]) -> Option<Vec<u8>> {
        (self.algorithm == Algorithm::RS256).then(|| self.sign(message))
    }

    /// Signature over `message` in the JWS form.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair, random) => {
                // aws-lc fails here only if it cannot allocate memory or has no entropy. An empty
                // signature does not verify anywhere, so this fails closed.
                pair.sign(random, message).map(|s| s.as_ref().to_vec()).unwrap_or_default()
            }
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair, random) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let pss = self.algorithm == Algorithm::PS256;
                let padding: &dyn RsaEncoding =
                    if pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let signed = pair.sign(padding, random, message, &mut signature);
                signed.map(|()| signature).unwrap_or_default()
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// RFC 7638 SHA-256 thumbprint of a public JWK; `None` if its required members are not strings.
pub fn thumbprint(jwk: &Claims) -> Option<String> {
    let text = |name| jwk.optional_str(name).ok().flatten();
    // Every value is base64url or a registered name; a quote in it would break the canonical form.
    let safe = |value: &str| value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let members: &[&'static str] = match text("kty")? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let mut canonical = String::from("{");
    for (i, name) in members.iter().enumerate() {
        let value = text(name).filter(|v| safe(v))?;
        canonical.push_str(if i == 0 { "" } else { "," });
        canonical.push_str(&format!("\"{name}\":\"{value}\""));
    }
    canonical.push('}');
    Some(sha256(canonical.as_bytes()))
}
