//! JWT access tokens (RFC 9068).

use crate::{
    formerly::current,
    identifier::{Issuer, Resource},
    jose::claims::{ClaimError, check_times},
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    oauth::scope::Scopes,
    time::Timestamp,
    xaa::id_jag::{Confirmation, OneOrMany},
};
use serde::Serialize;
use serde_json::Value;

/// Header `typ` of an access token.
pub const TYPE: &str = "at+jwt";
/// Default lifetime in seconds.
pub const LIFETIME: i64 = 300;
/// Longest lifetime an administrator may set, in seconds.
pub const LONGEST_LIFETIME: i64 = 3600;

/// The claims of an access token, in the shape that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // each field is the claim of its name in RFC 9068 section 2.2
pub struct AccessTokenClaims {
    pub iss: Issuer,
    pub sub: String,
    pub aud: OneOrMany,
    pub client_id: String,
    pub jti: String,
    pub exp: Timestamp,
    pub iat: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `jti` of the ID-JAG it was issued for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    /// The sign-in session, in tokens of the IdP for its own userinfo endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// When the person signed in, for tools that ask for a fresh sign-in (RFC 9068 section 2.2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<Timestamp>,
    /// The authentication context class of the sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

impl AccessTokenClaims {
    /// The signed access token.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }
}

/// A verified access token. Whether it was revoked was not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// `iss`: the RAS.
    pub issuer: Issuer,
    /// `sub`: the person, as the RAS identifies them.
    pub subject: String,
    /// `client_id`: the client, by its id at the RAS.
    pub client: String,
    /// `jti`.
    pub jti: String,
    /// `exp`.
    pub expires: Timestamp,
    /// `scope`; empty when absent.
    pub scopes: Scopes,
    /// `txn`: `jti` of the ID-JAG it was issued for.
    pub transaction: Option<String>,
    /// `sid`, in tokens for the IdP's userinfo endpoint.
    pub session: Option<String>,
    /// `auth_time`: when the person signed in, if present.
    pub auth_time: Option<Timestamp>,
    /// `acr`: the authentication context class of the sign-in, if present.
    pub acr: Option<String>,
    /// `cnf.jkt`: the DPoP key whose proof has to accompany it.
    pub key_thumbprint: Option<String>,
}

/// The issuer that an unverified access token claims, for finding the keys.
pub fn claimed_issuer(token: &str) -> Result<String, JwtError> {
    let token = Unverified::parse(token)?;
    token.require_type(TYPE)?;
    Ok(token.claims.required_str("iss")?.to_owned())
}

/// The form of an issuer's access tokens. By default as ours: one audience, and `client_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenForm {
    /// A token may also be for other resources (RFC 9068 section 4).
    pub several_audiences: bool,
    /// The client is in `azp`, as written by issuers that are older than RFC 9068.
    pub client_in_azp: bool,
}

/// Verifies a token for `resource` (RFC 9068 section 4): its only audience has to be this resource,
/// equal after normalization; or one of its audiences, if the issuer's tokens may have several.
pub fn verify(
    token: &str,
    keys: &KeySet,
    issuer: &Issuer,
    (resource, form): (&Resource, TokenForm),
    now: Timestamp,
) -> Result<AccessToken, JwtError> {
    let (token, audiences) = verified(token, keys, issuer, form, now)?;
    let is_it = |aud: &String| Resource::parse(aud).is_ok_and(|aud| aud == *resource);
    let enough = form.several_audiences || audiences.len() == 1;
    if enough && audiences.iter().any(is_it) { Ok(token) } else { Err(JwtError::Audience) }
}

/// Verifies a token of our own and returns its audiences: for introspection and revocation.
pub fn verify_any_audience(
    token: &str,
    keys: &KeySet,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<(AccessToken, Vec<String>), JwtError> {
    verified(token, keys, issuer, TokenForm::default(), now)
}

fn verified(
    token: &str,
    keys: &KeySet,
    issuer: &Issuer,
    form: TokenForm,
    now: Timestamp,
) -> Result<(AccessToken, Vec<String>), JwtError> {
    let token = Unverified::parse(token)?;
    token.require_type(TYPE)?;
    let claims = token.verify_signature(keys)?;
    if claims.required_str("iss")? != issuer.as_str() {
        return Err(JwtError::Issuer);
    }
    let (issued, expires) = (claims.required_time("iat")?, claims.required_time("exp")?);
    check_times(issued, claims.optional_time("nbf")?, expires, LONGEST_LIFETIME, now)?;
    let scopes = Scopes::parse(claims.optional_str("scope")?.unwrap_or_default());
    let key_thumbprint = match claims.value("cnf") {
        None => None,
        Some(cnf) => Some(
            cnf.get("jkt").and_then(Value::as_str).ok_or(ClaimError::WrongType("cnf"))?.to_owned(),
        ),
    };
    let audiences = claims.optional_strings("aud")?.ok_or(ClaimError::Missing("aud"))?;
    let token = AccessToken {
        issuer: issuer.clone(),
        subject: claims.required_id("sub", 255)?.to_owned(),
        client: claims
            .required_id(if form.client_in_azp { "azp" } else { "client_id" }, 2048)?
            .to_owned(),
        jti: claims.required_id("jti", 255)?.to_owned(),
        expires,
        scopes: scopes.ok_or(ClaimError::WrongType("scope"))?,
        transaction: claims.optional_str("txn")?.map(str::to_owned),
        session: claims.optional_str("sid")?.map(str::to_owned),
        auth_time: claims.optional_time("auth_time")?,
        acr: claims.optional_str("acr")?.map(current).map(str::to_owned),
        key_thumbprint,
    };
    Ok((token, audiences.into_iter().map(str::to_owned).collect()))
}
