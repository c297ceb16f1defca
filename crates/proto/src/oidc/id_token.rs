//! ID tokens (OpenID Connect Core 2): issued by the IdP, presented to it as subject tokens, and
//! verified by the client library at sign-in.

use crate::{
    formerly::current,
    identifier::Issuer,
    jose::claims::{ClaimError, Claims, check_times},
    jose::jwk::{Algorithm, KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    oidc::authentication::Authentication,
    time::{SKEW, Timestamp},
};
use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

/// Header `typ` of our ID tokens.
pub const TYPE: &str = "JWT";
/// Default lifetime in seconds.
pub const LIFETIME: i64 = 600;
/// Longest lifetime an administrator may set for a client, in seconds.
pub const LONGEST_LIFETIME: i64 = 12 * 3600;

/// The claims of an ID token, in the shape that is signed.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // each field is the claim of its name in OpenID Connect Core 2
pub struct IdTokenClaims {
    pub iss: Issuer,
    pub sub: String,
    pub aud: String,
    pub exp: Timestamp,
    pub iat: Timestamp,
    #[serde(skip_serializing_if = "is_unknown")]
    pub auth_time: Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub acr: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    pub sid: String,
    /// When the sign-in has to be made anew: fixed when it was made, whatever is refreshed (IPSIE SL1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_expiry: Option<Timestamp>,
    /// The family of tokens of one sign-in of one client, which is revoked together with it.
    pub origin_jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
}

/// Whether nobody said when the person signed in: the identity provider in front does not tell.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unknown(auth_time: &Timestamp) -> bool {
    *auth_time == Timestamp(0)
}

impl IdTokenClaims {
    /// The signed ID token.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }
}

/// `at_hash` of an access token: the left half of its hash by the hash function of the ID token's
/// own `alg` (OpenID Connect Core 3.1.3.6). Ed25519 hashes with SHA-512 (RFC 8032).
pub fn at_hash(access_token: &str, algorithm: Algorithm) -> String {
    let function = match algorithm {
        Algorithm::EdDSA => &digest::SHA512,
        Algorithm::ES256 | Algorithm::PS256 | Algorithm::RS256 => &digest::SHA256,
    };
    let hash = digest::digest(function, access_token.as_bytes());
    let hash = hash.as_ref();
    URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2])
}

/// A verified ID token of ours, presented as a subject token by the client it was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectIdToken {
    /// The person.
    pub subject: String,
    /// The sign-in session it came from.
    pub session: String,
    /// The family of tokens it belongs to; `None` if an earlier version signed it.
    pub family: Option<String>,
    /// How and when the person signed in.
    pub authentication: Authentication,
}

/// Verifies a subject token (ID-JAG draft section 4.3.3): it has to be ours, for the authenticated
/// client only, and not expired.
pub fn verify_subject(
    token: &str,
    keys: &KeySet,
    issuer: &Issuer,
    client: &str,
    now: Timestamp,
) -> Result<SubjectIdToken, JwtError> {
    let (token, session) = verify_own(token, keys, issuer, now)?;
    let claims = &token.claims;
    if claims.required_single_audience()? != client {
        return Err(JwtError::Audience);
    }
    if claims.optional_str("azp")?.is_some_and(|azp| azp != client) {
        return Err(JwtError::Client);
    }
    Ok(SubjectIdToken {
        subject: claims.required_id("sub", 255)?.to_owned(),
        session,
        family: claims.optional_str("origin_jti")?.map(str::to_owned),
        authentication: Authentication {
            auth_time: claims.optional_time("auth_time")?.unwrap_or(Timestamp(0)),
            acr: current(claims.optional_str("acr")?.unwrap_or_default()).to_owned(),
            amr: methods(claims)?,
            issuer: None,
        },
    })
}

/// `amr`. None is told by an empty list as well as by none.
fn methods(claims: &Claims) -> Result<Vec<String>, ClaimError> {
    if claims.value("amr").and_then(serde_json::Value::as_array).is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let amr = claims.optional_strings("amr")?.unwrap_or_default();
    Ok(amr.into_iter().map(str::to_owned).collect())
}

/// The contents of an `id_token_hint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The person.
    pub subject: String,
    /// The sign-in session.
    pub session: String,
    /// The client it was issued to.
    pub client: String,
}

/// Verifies an `id_token_hint`, at sign-in or at logout: an ID token of ours, expired or not
/// (OpenID Connect Core 3.1.2.1, RP-Initiated Logout 1.0 section 2).
pub fn verify_hint(token: &str, keys: &KeySet, issuer: &Issuer) -> Result<Hint, JwtError> {
    let token = Unverified::parse(token)?;
    token.require_type("jwt")?;
    let claims = token.verify_signature(keys)?;
    if claims.required_str("iss")? != issuer.as_str() {
        return Err(JwtError::Issuer);
    }
    Ok(Hint {
        subject: claims.required_id("sub", 255)?.to_owned(),
        session: claims.required_id("sid", 255)?.to_owned(),
        client: claims.required_single_audience()?.to_owned(),
    })
}

fn verify_own<'a>(
    token: &'a str,
    keys: &KeySet,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<(Unverified<'a>, String), JwtError> {
    let token = Unverified::parse(token)?;
    token.require_type("jwt")?;
    let claims = token.verify_signature(keys)?;
    if claims.required_str("iss")? != issuer.as_str() {
        return Err(JwtError::Issuer);
    }
    let (issued, expires) = (claims.required_time("iat")?, claims.required_time("exp")?);
    check_times(issued, claims.optional_time("nbf")?, expires, LONGEST_LIFETIME, now)?;
    let session = claims.required_id("sid", 255)?.to_owned();
    Ok((token, session))
}

/// What a client knows about the sign-in it started.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    /// The IdP.
    pub issuer: &'a Issuer,
    /// Another way in which this IdP writes its issuer, if it has one.
    pub other_spelling: Option<&'a str>,
    /// The client's id at the IdP.
    pub client: &'a str,
    /// The `nonce` it sent; `None` on refresh, where a nonce must not be required.
    pub nonce: Option<&'a str>,
    /// The access token that was issued with it.
    pub access_token: Option<&'a str>,
}

/// The claims of an ID token that a client relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// `sub`.
    pub subject: String,
    /// `exp`.
    pub expires: Timestamp,
    /// `preferred_username`, `email` or `sub`: a name for display.
    pub name: String,
    /// `email`, if the IdP says that it is verified.
    pub email: Option<String>,
    /// How and when the person signed in, as far as the IdP says.
    pub authentication: Authentication,
}

/// Verifies an ID token as the relying party that requested it (OpenID Connect Core 3.1.3.7).
pub fn verify_sign_in(
    token: &str,
    keys: &KeySet,
    expected: SignIn<'_>,
    now: Timestamp,
) -> Result<SignedIn, JwtError> {
    SignedIn::of(&verify_claims(token, keys, expected, now)?, expected.issuer)
}

/// Like [`verify_sign_in`], for a party that reads more of the claims. The token may be any IdP's,
/// so `typ` may be absent or `JWT`.
pub fn verify_claims(
    token: &str,
    keys: &KeySet,
    expected: SignIn<'_>,
    now: Timestamp,
) -> Result<Claims, JwtError> {
    let token = Unverified::parse(token)?;
    if token.media_type().is_some_and(|typ| typ != "jwt") {
        return Err(JwtError::Type("JWT"));
    }
    let claims = token.verify_signature(keys)?;
    let issuer = claims.required_str("iss")?;
    if issuer != expected.issuer.as_str() && Some(issuer) != expected.other_spelling {
        return Err(JwtError::Issuer);
    }
    let audiences = claims.optional_strings("aud")?.ok_or(ClaimError::Missing("aud"))?;
    if audiences != [expected.client] {
        return Err(JwtError::Audience);
    }
    if claims.optional_str("azp")?.is_some_and(|azp| azp != expected.client) {
        return Err(JwtError::Client);
    }
    let (issued, expires) = (claims.required_time("iat")?, claims.required_time("exp")?);
    check_times(issued, claims.optional_time("nbf")?, expires, 7 * 86_400, now)?;
    if let Some(nonce) = expected.nonce
        && claims.required_str("nonce")? != nonce
    {
        return Err(JwtError::Binding("nonce"));
    }
    if let (Some(hash), Some(access_token)) =
        (claims.optional_str("at_hash")?, expected.access_token)
        && token.verified_algorithm().is_none_or(|alg| {
            // Earlier versions of our IdP used SHA-256 with EdDSA, too.
            let before = (alg == Algorithm::EdDSA).then_some(Algorithm::ES256);
            hash != at_hash(access_token, alg)
                && before.is_none_or(|alg| hash != at_hash(access_token, alg))
        })
    {
        return Err(JwtError::Binding("at_hash"));
    }
    Ok(claims.clone())
}

impl SignedIn {
    /// What a client relies on, of verified claims.
    pub fn of(claims: &Claims, issuer: &Issuer) -> Result<Self, JwtError> {
        let subject = claims.required_id("sub", 255)?.to_owned();
        let email = claims.optional_str("email")?;
        let name = claims.optional_str("preferred_username")?.or(email);
        let name = name.unwrap_or(&subject).to_owned();
        let verified = claims.value("email_verified") == Some(&serde_json::Value::Bool(true));
        let (issued, told) = (claims.required_time("iat")?, claims.optional_time("auth_time")?);
        // A time that is yet to come was not told: every sign-in would seem recent.
        let auth_time = told.filter(|at| at.since(issued) <= SKEW);
        let authentication = Authentication {
            // A missing auth_time counts as the epoch, so that checks for a fresh sign-in fail.
            auth_time: auth_time.unwrap_or(Timestamp(0)),
            acr: current(claims.optional_str("acr")?.unwrap_or_default()).to_owned(),
            amr: methods(claims)?,
            issuer: Some(issuer.into()),
        };
        let email = email.filter(|_| verified).map(str::to_owned);
        let expires = claims.required_time("exp")?;
        Ok(Self { subject, expires, name, email, authentication })
    }
}
