//! A signed cookie that marks a browser in which a person has signed in before, so that other
//! people's wrong passwords cannot lock the person out there. It does not sign anybody in.

use crate::{
    identifier::Issuer,
    jose::claims::check_times,
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    secret::sha256,
    time::Timestamp,
};
use serde::Serialize;

/// Header `typ`.
const TYPE: &str = "passavant-browser+jwt";
/// Lifetime in seconds.
pub const LIFETIME: i64 = 180 * 86_400;

/// The claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownBrowser {
    /// This identity provider.
    pub iss: String,
    /// The person.
    pub sub: String,
    /// An id of the browser.
    pub jti: String,
    /// A mark of the password that they had: another one makes this browser one of many again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pwd: Option<String>,
    /// When they signed in.
    pub iat: Timestamp,
    /// When the cookie expires.
    pub exp: Timestamp,
}

impl KnownBrowser {
    /// The value of the cookie.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }

    /// Verifies the cookie.
    pub fn read(
        token: &str,
        keys: &KeySet,
        own: &Issuer,
        now: Timestamp,
    ) -> Result<Self, JwtError> {
        let token = Unverified::parse(token)?;
        token.require_type(TYPE)?;
        let claims = token.verify_signature(keys)?;
        if claims.required_str("iss")? != own.as_str() {
            return Err(JwtError::Issuer);
        }
        let (iat, exp) = (claims.required_time("iat")?, claims.required_time("exp")?);
        check_times(iat, None, exp, LIFETIME, now)?;
        Ok(Self {
            iss: own.to_string(),
            sub: claims.required_id("sub", 255)?.to_owned(),
            jti: claims.required_id("jti", 255)?.to_owned(),
            pwd: claims.optional_str("pwd")?.map(str::to_owned),
            iat,
            exp,
        })
    }

    /// The mark of a stored password.
    pub fn mark(password_hash: &str) -> String {
        sha256(password_hash.as_bytes())
    }

    /// The id of the browser, if it is one of this person's, as their password is now.
    pub fn of(self, user_id: &str, password_hash: Option<&str>) -> Option<String> {
        let same = self.sub == user_id && self.pwd == password_hash.map(Self::mark);
        same.then_some(self.jti)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_known_for_the_password_that_it_was_marked_by() {
        let marked = |hash: Option<&str>| KnownBrowser {
            iss: "https://idp.example".to_owned(),
            sub: "erin".to_owned(),
            jti: "b".to_owned(),
            pwd: hash.map(KnownBrowser::mark),
            iat: Timestamp(0),
            exp: Timestamp(1),
        };
        for (then, now, known) in [
            (Some("$one"), Some("$one"), true),
            (None, None, true),
            (Some("$one"), Some("$two"), false),
            (Some("$one"), None, false),
            (None, Some("$two"), false),
        ] {
            assert_eq!(marked(then).of("erin", now).is_some(), known, "{then:?} {now:?}");
            assert_eq!(marked(then).of("max", now), None);
        }
    }
}
