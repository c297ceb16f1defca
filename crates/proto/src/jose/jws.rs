//! Compact JWS (RFC 7515): one strict parser and one serializer for all kinds of JWT.

use crate::{
    jose::claims::{ClaimError, Claims, TimeError},
    jose::jwk::{Algorithm, KeySet, PublicKey, SigningKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;

/// Longest JWT that is parsed, in bytes.
pub const LONGEST: usize = 16 * 1024;

/// Why a JWT is rejected, for all kinds of JWT. One variant for each rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three base64url parts, or longer than 16 KB (RFC 7515 section 7.1).
    #[error("it is not a compact JWS of three base64url parts, 16384 bytes at most")]
    Malformed,
    /// The JOSE header is not an object with distinct members of the right types.
    #[error("its JOSE header is not readable")]
    Header,
    /// `alg` is not the one registered for this issuer or client (RFC 8725 section 3.1).
    #[error("its `alg` is not the algorithm registered for its issuer, {0}")]
    Algorithm(Algorithm),
    /// `typ` is not that of this kind of JWT (RFC 8725 section 3.11).
    #[error("its `typ` is not {0}")]
    Type(&'static str),
    /// A `crit` header: no critical extension is supported (RFC 7515 section 4.1.11).
    #[error("its `crit` header names extensions that are not supported")]
    Critical,
    /// No key of the issuer fits the header.
    #[error("no key of its issuer has its `kid`")]
    UnknownKey,
    /// The signature does not verify with the key.
    #[error("its signature does not verify")]
    Signature,
    /// A claim is missing or of the wrong type.
    #[error("{0}")]
    Claim(#[from] ClaimError),
    /// Not valid at this time.
    #[error("{0}")]
    Time(#[from] TimeError),
    /// `iss` is not the expected issuer, compared byte for byte.
    #[error("its `iss` is not the expected issuer, compared byte for byte")]
    Issuer,
    /// `aud` is not exactly the expected audience.
    #[error("its `aud` is not the expected audience, alone and byte for byte")]
    Audience,
    /// The `client_id` (or `sub` of an assertion, `azp` of an ID token) names another client.
    #[error("it was issued to another client")]
    Client,
    /// A binding (DPoP key, method, URL, token hash, nonce, tenant) does not match.
    #[error("its `{0}` does not match")]
    Binding(&'static str),
}

/// A parsed JWS whose signature has not been verified. Only the verifiers of this crate can read
/// its claims.
#[derive(Debug)]
pub struct Unverified<'a> {
    signing_input: &'a str,
    signature: Vec<u8>,
    header: Claims,
    pub(crate) claims: Claims,
}

impl<'a> Unverified<'a> {
    /// Splits and decodes `token`. Only the form is checked: three parts, strict base64url, JSON
    /// objects with distinct members, `alg` and `typ` strings, no `crit`.
    pub fn parse(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > LONGEST {
            return Err(JwtError::Malformed);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwtError::Malformed)?;
        // The decoder rejects padding, other alphabets, white space and non-zero trailing bits. A
        // dot that is left in the payload (a JWE, a fourth part) is not in the alphabet either.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed);
        let signature = decode(signature)?;
        let header = Claims::parse(&decode(header)?).map_err(|_| JwtError::Header)?;
        let claims = Claims::parse(&decode(payload)?)?;
        if header.value("crit").is_some() || header.value("b64").is_some() {
            return Err(JwtError::Critical);
        }
        for name in ["alg", "typ", "kid"] {
            header.optional_str(name).map_err(|_| JwtError::Header)?;
        }
        if header.value("kid").and_then(Value::as_str).is_some_and(|kid| kid.len() > 256) {
            return Err(JwtError::Header);
        }
        Ok(Self { signing_input, signature, header, claims })
    }

    /// The `kid` of the header, for finding a key.
    pub fn kid(&self) -> Option<&str> {
        self.header.value("kid").and_then(Value::as_str)
    }

    /// The `typ` of the header in lower case without an `application/` prefix (RFC 7515 4.1.9).
    pub fn media_type(&self) -> Option<String> {
        let typ = self.header.value("typ").and_then(Value::as_str)?.to_ascii_lowercase();
        Some(typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned))
    }

    /// Rejects any `typ` but `expected`.
    pub(crate) fn require_type(&self, expected: &'static str) -> Result<(), JwtError> {
        if self.media_type().as_deref() == Some(expected) {
            Ok(())
        } else {
            Err(JwtError::Type(expected))
        }
    }

    pub(crate) fn header(&self) -> &Claims {
        &self.header
    }

    /// Checks algorithm, key and signature, in this order. Keys are never taken from the header
    /// members `jwk`, `jku`, `x5c` and `x5u`.
    pub(crate) fn verify_signature(&self, keys: &KeySet) -> Result<&Claims, JwtError> {
        if !keys.takes(self.algorithm()) {
            return Err(JwtError::Algorithm(keys.algorithm()));
        }
        let key = keys.find(self.kid()).ok_or(JwtError::UnknownKey)?;
        self.require_algorithm(key.algorithm())?;
        self.verify_with(key)
    }

    pub(crate) fn require_algorithm(&self, expected: Algorithm) -> Result<(), JwtError> {
        if self.algorithm() == Some(expected.name()) {
            Ok(())
        } else {
            Err(JwtError::Algorithm(expected))
        }
    }

    /// The `alg` of the header.
    fn algorithm(&self) -> Option<&str> {
        self.header.value("alg").and_then(Value::as_str)
    }

    /// The algorithm of the header, if it is supported. Call it only on a JWS that was verified.
    pub(crate) fn verified_algorithm(&self) -> Option<Algorithm> {
        self.algorithm().and_then(Algorithm::named)
    }

    pub(crate) fn verify_with(&self, key: &PublicKey) -> Result<&Claims, JwtError> {
        if key.verifies(self.signing_input.as_bytes(), &self.signature) {
            Ok(&self.claims)
        } else {
            Err(JwtError::Signature)
        }
    }
}

/// Header and claims of a JWT **without any check**, for display to a person (`passavant inspect`).
pub fn peek(token: &str) -> Result<(Claims, Claims), JwtError> {
    let token = Unverified::parse(token)?;
    Ok((token.header, token.claims))
}

/// Signs `claims` as a compact JWS with header `alg`, `kid`, `typ`.
pub fn sign(key: &SigningKey, typ: &str, claims: &impl Serialize) -> String {
    let header = format!(r#"{{"alg":"{}","kid":"{}","typ":"{typ}"}}"#, key.algorithm(), key.kid());
    sign_with_header(key, header.as_bytes(), claims)
}

/// Signs `claims` with a header that the caller supplies.
pub(crate) fn sign_with_header(key: &SigningKey, header: &[u8], claims: &impl Serialize) -> String {
    // Our claim structs contain strings, numbers and arrays of them, which always serialize. If one
    // did not, every verifier would reject the empty payload.
    let payload = serde_json::to_vec(claims).unwrap_or_default();
    let mut token = String::with_capacity(900);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}
