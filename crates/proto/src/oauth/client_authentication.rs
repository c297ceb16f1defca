//! Which client sends a request, and how it proves its identity (RFC 6749 section 2.3, RFC 7521,
//! RFC 7523).

use crate::{
    oauth::client::{Client, ClientAuthentication},
    oauth::client_assertion::{self, ASSERTION_TYPE},
    oauth::form::Form,
    refusal::Refusal,
    secret::{Secret, equal_in_constant_time},
    time::Timestamp,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;

/// The client credentials in a request, not checked yet.
#[derive(Debug)]
pub enum Presented {
    /// Only `client_id`.
    Nothing {
        /// The claimed client.
        client_id: String,
    },
    /// A secret, by Basic or in the body.
    Secret {
        /// The claimed client.
        client_id: String,
        /// The secret.
        secret: Secret,
    },
    /// A JWT signed by the client's key.
    Assertion {
        /// The client that its `sub` claims.
        client_id: String,
        /// The JWT.
        assertion: Secret,
    },
}

impl Presented {
    /// Parses the one method that a request uses. `authorization` are all its `Authorization`
    /// headers.
    pub fn read(authorization: &[&[u8]], form: &Form) -> Result<Self, Refusal> {
        let body_id = form.optional("client_id");
        let basic = match authorization {
            [] => None,
            [one] => Some(read_basic(one).ok_or(Refusal::ClientCredentialsMalformed)?),
            _ => return Err(Refusal::ClientCredentialsMalformed),
        };
        let post = form.optional("client_secret");
        let assertion = form.optional("client_assertion");
        let methods = [basic.is_some(), post.is_some(), assertion.is_some()];
        if methods.iter().filter(|used| **used).count() > 1 {
            return Err(Refusal::SeveralAuthenticationMethods);
        }
        let presented = if let Some((client_id, secret)) = basic {
            Self::Secret { client_id, secret }
        } else if let Some(secret) = post {
            let client_id = body_id.ok_or(Refusal::ClientAuthenticationMissing)?.to_owned();
            Self::Secret { client_id, secret: Secret::new(secret) }
        } else if let Some(assertion) = assertion {
            if form.required("client_assertion_type")? != ASSERTION_TYPE {
                return Err(Refusal::ClientAssertionType);
            }
            let client_id =
                client_assertion::claimed_client(assertion).map_err(Refusal::ClientAssertion)?;
            Self::Assertion { client_id, assertion: Secret::new(assertion) }
        } else {
            let client_id = body_id.ok_or(Refusal::ClientAuthenticationMissing)?.to_owned();
            Self::Nothing { client_id }
        };
        if body_id.is_some_and(|id| id != presented.client_id()) {
            return Err(Refusal::ClientIdMismatch);
        }
        Ok(presented)
    }

    /// The credential in a form that may be stored: the hash of the secret, or the id of the key;
    /// `None` if there is no credential.
    pub fn proof(&self) -> Option<String> {
        match self {
            Self::Nothing { .. } => None,
            Self::Secret { secret, .. } => Some(format!("secret {}", secret.hash())),
            Self::Assertion { assertion, .. } => {
                let (header, _) = crate::jose::jws::peek(assertion.expose()).ok()?;
                let kid = header.optional_str("kid").ok().flatten().unwrap_or_default();
                Some(format!("key {kid}"))
            }
        }
    }

    /// The client it claims to be.
    pub fn client_id(&self) -> &str {
        match self {
            Self::Nothing { client_id }
            | Self::Secret { client_id, .. }
            | Self::Assertion { client_id, .. } => client_id,
        }
    }

    /// Checks everything but a signature: that the method is the registered one, and the secret.
    /// Returns an assertion that still has to be verified with the client's keys.
    pub fn check(&self, client: &Client, now: Timestamp) -> Result<Option<&Secret>, Refusal> {
        match (self, &client.authentication) {
            (Self::Nothing { .. }, ClientAuthentication::Public) => Ok(None),
            (Self::Nothing { .. }, _) => Err(Refusal::ClientAuthenticationMissing),
            (Self::Secret { secret, .. }, ClientAuthentication::Secret(hashes)) => {
                let presented = secret.hash();
                let live = hashes.iter().filter(|h| h.expires.is_none_or(|e| now < e));
                // Compare all hashes, so that timing does not reveal which one matched.
                let matches = live.filter(|h| equal_in_constant_time(&h.hash, &presented)).count();
                if matches > 0 { Ok(None) } else { Err(Refusal::ClientSecret) }
            }
            (Self::Assertion { assertion, .. }, ClientAuthentication::PrivateKeyJwt { .. }) => {
                Ok(Some(assertion))
            }
            (Self::Secret { .. } | Self::Assertion { .. }, _) => Err(Refusal::ClientMethod),
        }
    }
}

/// Basic credentials, form-decoded as RFC 6749 section 2.3.1 requires. Our ids and secrets contain
/// neither `%` nor `+`, so clients that do not encode them work too.
fn read_basic(header: &[u8]) -> Option<(String, Secret)> {
    let header = std::str::from_utf8(header).ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let (id, secret) = (decode(id)?, decode(secret)?);
    let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    (plain(&id) && plain(&secret)).then(|| (id, Secret::new(secret)))
}
