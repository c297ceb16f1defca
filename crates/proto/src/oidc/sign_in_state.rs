//! What an authorization server has to remember while a browser is at another identity provider. It is in a signed cookie,
//! so that nothing is stored here before the person has signed in, and any node can continue.

use crate::{
    jose::claims::check_times,
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    time::Timestamp,
};
use serde::Serialize;

/// Header `typ`.
const TYPE: &str = "passavant-sign-in+jwt";
/// Lifetime in seconds.
pub const LIFETIME: i64 = 600;

/// One sign-in in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignInState {
    /// `state` that the response has to contain.
    pub state: String,
    /// `nonce` that the ID token has to contain.
    pub nonce: String,
    /// The PKCE verifier.
    pub verifier: String,
    /// The issuer that the browser was sent to.
    pub issuer: String,
    /// Which of the identity providers in front of which this one stands, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The authorization request to continue with afterwards: path and query.
    pub target: String,
    /// A new sign-in is required.
    pub fresh: bool,
    /// It is enough if the issuer does not tell when the person signed in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untold_is_fresh: bool,
    /// Maximum age of the sign-in, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// This authorization server.
    pub iss: String,
    /// When it began.
    pub iat: Timestamp,
    /// When the cookie expires.
    pub exp: Timestamp,
}

impl SignInState {
    /// The value of the cookie.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }

    /// Verifies the cookie.
    pub fn read(token: &str, keys: &KeySet, own: &str, now: Timestamp) -> Result<Self, JwtError> {
        let token = Unverified::parse(token)?;
        token.require_type(TYPE)?;
        let claims = token.verify_signature(keys)?;
        if claims.required_str("iss")? != own {
            return Err(JwtError::Issuer);
        }
        let (iat, exp) = (claims.required_time("iat")?, claims.required_time("exp")?);
        check_times(iat, None, exp, LIFETIME, now)?;
        let text = |name| claims.required_str(name).map(str::to_owned);
        Ok(Self {
            state: text("state")?,
            nonce: text("nonce")?,
            verifier: text("verifier")?,
            issuer: text("issuer")?,
            upstream: claims.optional_str("upstream")?.map(str::to_owned),
            target: text("target")?,
            fresh: claims.value("fresh") == Some(&serde_json::Value::Bool(true)),
            untold_is_fresh: claims.value("untold_is_fresh")
                == Some(&serde_json::Value::Bool(true)),
            max_age: claims.value("max_age").and_then(serde_json::Value::as_i64),
            iss: own.to_owned(),
            iat,
            exp,
        })
    }
}
