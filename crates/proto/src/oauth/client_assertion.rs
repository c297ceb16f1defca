//! `private_key_jwt` client assertions (RFC 7523 section 2.2, rfc7523bis).

use crate::{
    identifier::Issuer,
    jose::claims::check_times,
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    secret::sha256,
    time::{SKEW, Timestamp},
};
use serde_json::{Value, json};

/// `client_assertion_type` of a JWT.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Header `typ` of assertions that we make (rfc7523bis).
pub const TYPE: &str = "client-authentication+jwt";
/// Lifetime of assertions that we make, in seconds.
pub const LIFETIME: i64 = 60;
/// Longest lifetime accepted, in seconds.
pub const LONGEST_LIFETIME: i64 = 300;

/// The client that an unverified assertion claims to come from, for finding its keys.
pub fn claimed_client(assertion: &str) -> Result<String, JwtError> {
    let token = Unverified::parse(assertion)?;
    Ok(token.claims.required_id("sub", 2048)?.to_owned())
}

/// Whether an unverified assertion could be valid: it claims to be from this client, for this
/// audience only, and not expired. Checked before anything is fetched for it; it proves nothing.
pub fn is_plausible(assertion: &str, client: &str, audience: &Issuer, now: Timestamp) -> bool {
    let Ok(token) = Unverified::parse(assertion) else { return false };
    let claims = &token.claims;
    let text = |name| claims.optional_str(name).ok().flatten();
    let expires = claims.required_time("exp");
    text("iss") == Some(client)
        && text("sub") == Some(client)
        && claims.required_single_audience() == Ok(audience.as_str())
        && expires.is_ok_and(|at| now.since(at) < SKEW && at.since(now) <= LONGEST_LIFETIME + SKEW)
}

/// The `jti` of a verified assertion, and the time after which it may be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAssertion {
    /// `jti`, unique for this client only.
    pub jti: String,
    /// `exp` plus the skew that verification allows.
    pub forget_after: Timestamp,
}

/// Verifies a client assertion: `iss` and `sub` are the client, `aud` is our issuer only, `typ` is
/// absent, `JWT` or `client-authentication+jwt`. The store checks that the `jti` was not used
/// before.
pub fn verify(
    assertion: &str,
    keys: &KeySet,
    client: &str,
    audience: &Issuer,
    now: Timestamp,
) -> Result<ClientAssertion, JwtError> {
    let token = Unverified::parse(assertion)?;
    if token.media_type().is_some_and(|typ| typ != "jwt" && typ != TYPE) {
        return Err(JwtError::Type(TYPE));
    }
    let claims = token.verify_signature(keys)?;
    if claims.required_str("iss")? != client || claims.required_str("sub")? != client {
        return Err(JwtError::Client);
    }
    if claims.required_single_audience()? != audience.as_str() {
        return Err(JwtError::Audience);
    }
    let expires = claims.required_time("exp")?;
    // `iat` is optional in RFC 7523; without it, the remaining lifetime has to be short.
    let issued = claims.optional_time("iat")?.unwrap_or(now);
    check_times(issued, claims.optional_time("nbf")?, expires, LONGEST_LIFETIME, now)?;
    let jti = claims.required_id("jti", 255)?.to_owned();
    // A DPoP proof, ID token or ID-JAG must never pass for an assertion, whatever its `typ`.
    for foreign in ["htu", "htm", "nonce", "events", "auth_time", "client_id"] {
        if claims.value(foreign).is_some_and(|v| *v != Value::String(client.to_owned())) {
            return Err(JwtError::Binding(foreign));
        }
    }
    Ok(ClientAssertion { jti, forget_after: expires.plus(SKEW) })
}

/// Signs an assertion for `client` at the authorization server `audience`.
pub fn sign(key: &SigningKey, client: &str, audience: &str, jti: &str, now: Timestamp) -> String {
    jws::sign(
        key,
        TYPE,
        &json!({"iss": client, "sub": client, "aud": audience, "jti": jti,
                "iat": now, "exp": now.plus(LIFETIME)}),
    )
}

/// Signs an assertion for another company's product, which may know no `typ` but `JWT`.
/// `certificate` is the X.509 certificate of the key in DER, if the authorization server knows the
/// key by it (`x5t#S256`, RFC 7515 section 4.1.8).
pub fn sign_for_upstream(
    key: &SigningKey,
    certificate: Option<&[u8]>,
    (client, audience): (&str, &str),
    jti: &str,
    now: Timestamp,
) -> String {
    let claims = json!({"iss": client, "sub": client, "aud": audience, "jti": jti,
                        "iat": now, "nbf": now, "exp": now.plus(LIFETIME)});
    let Some(certificate) = certificate else { return jws::sign(key, "JWT", &claims) };
    let thumbprint = sha256(certificate);
    let header =
        format!(r#"{{"alg":"{}","typ":"JWT","x5t#S256":"{thumbprint}"}}"#, key.algorithm());
    jws::sign_with_header(key, header.as_bytes(), &claims)
}
