//! Logout tokens (OpenID Connect Back-Channel Logout 1.0): an upstream says that somebody's session
//! there has ended.

use crate::{
    identifier::Issuer,
    jose::claims::{ClaimError, check_times},
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    time::{SKEW, Timestamp},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The member of `events` that makes it a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Lifetime of our own, in seconds: short, as the section on its claims recommends.
const LIFETIME: i64 = 120;
/// Longest lifetime accepted, in seconds. Without `exp`, a token may be this old.
const LONGEST_LIFETIME: i64 = 3600;

/// A verified logout token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// `sub`: all sessions of this person, if no session is named.
    pub subject: Option<String>,
    /// `sid`: one session.
    pub session: Option<String>,
    /// `jti`, unique for its issuer.
    pub jti: String,
    /// After this time the `jti` may be forgotten.
    pub forget_after: Timestamp,
}

/// A logout token of ours (section 2.4): it names the session and the person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogoutTokenClaims {
    iss: Issuer,
    sub: String,
    aud: String,
    iat: Timestamp,
    exp: Timestamp,
    jti: String,
    sid: String,
    events: Value,
}

impl LogoutTokenClaims {
    /// For a client, of a session of a person.
    pub fn new(
        issuer: &Issuer,
        (person, session): (&str, &str),
        (client, jti): (&str, &str),
        now: Timestamp,
    ) -> Self {
        Self {
            iss: issuer.clone(),
            sub: person.to_owned(),
            aud: client.to_owned(),
            iat: now,
            exp: now.plus(LIFETIME),
            jti: jti.to_owned(),
            sid: session.to_owned(),
            events: json!({EVENT: {}}),
        }
    }

    /// The signed token.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, "logout+jwt", self)
    }
}

/// Verifies a logout token for `client` (section 2.6).
pub fn verify(
    token: &str,
    keys: &KeySet,
    (issuer, other_spelling): (&Issuer, Option<&str>),
    client: &str,
    now: Timestamp,
) -> Result<LogoutToken, JwtError> {
    let token = Unverified::parse(token)?;
    if token.media_type().is_some_and(|typ| typ != "jwt" && typ != "logout+jwt") {
        return Err(JwtError::Type("logout+jwt"));
    }
    let claims = token.verify_signature(keys)?;
    let iss = claims.required_str("iss")?;
    if iss != issuer.as_str() && Some(iss) != other_spelling {
        return Err(JwtError::Issuer);
    }
    if claims.required_single_audience()? != client {
        return Err(JwtError::Audience);
    }
    let issued = claims.required_time("iat")?;
    let expires = claims.optional_time("exp")?.unwrap_or(issued.plus(LONGEST_LIFETIME));
    check_times(issued, claims.optional_time("nbf")?, expires, LONGEST_LIFETIME, now)?;
    // An ID token must never pass for a logout token.
    if claims.value("nonce").is_some() {
        return Err(JwtError::Binding("nonce"));
    }
    let event = claims.value("events").and_then(|events| events.get(EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err(ClaimError::Missing("events").into());
    }
    let optional = |name| match claims.value(name) {
        None => Ok(None),
        Some(_) => claims.required_id(name, 255).map(|text| Some(text.to_owned())),
    };
    let (subject, session) = (optional("sub")?, optional("sid")?);
    if subject.is_none() && session.is_none() {
        return Err(ClaimError::Missing("sub").into());
    }
    let jti = claims.required_id("jti", 255)?.to_owned();
    Ok(LogoutToken { subject, session, jti, forget_after: expires.plus(SKEW) })
}
