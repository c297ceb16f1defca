//! DPoP proofs (RFC 9449).

use crate::{
    jose::claims::Claims,
    jose::jwk::{Algorithm, PublicKey, SigningKey, thumbprint},
    jose::jws::{self, JwtError, Unverified},
    secret::sha256,
    time::{SKEW, Timestamp},
};
use serde_json::{Value, json};

/// Header `typ` of a proof.
pub const TYPE: &str = "dpop+jwt";
/// Maximum age of a proof in seconds, in addition to the allowed clock skew.
pub const LONGEST_LIFETIME: i64 = 60;

/// A verified proof of possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpopProof {
    /// RFC 7638 thumbprint of the key.
    pub key_thumbprint: String,
    /// `jti`, unique for this key only.
    pub jti: String,
    /// Time after which the `jti` may be forgotten.
    pub forget_after: Timestamp,
}

/// The request a proof must be for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Our configured URL of the endpoint, never one taken from request headers.
    pub url: &'a str,
    /// The access token that was sent with it, if there is one.
    pub access_token: Option<&'a str>,
}

/// Verifies a proof by RFC 9449 section 4.3. The store checks that its `jti` was not used before.
pub fn verify(proof: &str, request: Request<'_>, now: Timestamp) -> Result<DpopProof, JwtError> {
    if proof.len() > 4096 {
        return Err(JwtError::Malformed);
    }
    let token = Unverified::parse(proof)?;
    token.require_type(TYPE)?;
    let jwk = match token.header().value("jwk") {
        Some(jwk @ Value::Object(_)) => {
            Claims::parse(jwk.to_string().as_bytes()).map_err(|_| JwtError::Header)?
        }
        _ => return Err(JwtError::Header),
    };
    let algorithm = Algorithm::ALL
        .into_iter()
        .find(|a| token.require_algorithm(*a).is_ok())
        .ok_or(JwtError::Algorithm(Algorithm::ES256))?;
    let key = PublicKey::from_jwk(&jwk, algorithm).ok_or(JwtError::UnknownKey)?;
    let claims = token.verify_with(&key)?;
    if claims.required_str("htm")? != request.method {
        return Err(JwtError::Binding("htm"));
    }
    // RFC 9449 section 4.3 item 9: compared without query and fragment.
    let htu = claims.required_str("htu")?.split(['?', '#']).next().unwrap_or_default();
    if !same_url(htu, request.url) {
        return Err(JwtError::Binding("htu"));
    }
    let issued = claims.required_time("iat")?;
    let age = now.since(issued);
    if age > LONGEST_LIFETIME + SKEW {
        return Err(crate::jose::claims::TimeError::Expired.into());
    }
    if age < -SKEW {
        return Err(crate::jose::claims::TimeError::NotYetValid.into());
    }
    let ath = claims.optional_str("ath")?;
    match request.access_token {
        Some(access_token) if ath != Some(&sha256(access_token.as_bytes())) => {
            return Err(JwtError::Binding("ath"));
        }
        _ => {}
    }
    Ok(DpopProof {
        key_thumbprint: thumbprint(&jwk).ok_or(JwtError::Header)?,
        jti: claims.required_id("jti", 255)?.to_owned(),
        forget_after: issued.plus(LONGEST_LIFETIME + 2 * SKEW),
    })
}

fn same_url(a: &str, b: &str) -> bool {
    match (url::Url::parse(a), url::Url::parse(b.split(['?', '#']).next().unwrap_or_default())) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Signs a proof for one request; `nonce` is the one that its server gave last (section 8).
pub fn sign(
    key: &SigningKey,
    request: Request<'_>,
    nonce: Option<&str>,
    jti: &str,
    now: Timestamp,
) -> String {
    let mut jwk = key.public_jwk().clone();
    if let Some(members) = jwk.as_object_mut() {
        members.retain(|name, _| matches!(name.as_str(), "kty" | "crv" | "x" | "y"));
    }
    let header = json!({"alg": key.algorithm().name(), "typ": TYPE, "jwk": jwk});
    // Section 4.2: without query and fragment.
    let htu = request.url.split(['?', '#']).next().unwrap_or_default();
    let mut claims = json!({"htm": request.method, "htu": htu, "jti": jti, "iat": now});
    if let Some(nonce) = nonce {
        claims["nonce"] = nonce.into();
    }
    if let Some(access_token) = request.access_token {
        claims["ath"] = sha256(access_token.as_bytes()).into();
    }
    jws::sign_with_header(key, header.to_string().as_bytes(), &claims)
}
