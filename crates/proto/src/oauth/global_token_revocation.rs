//! Global Token Revocation (draft-parecki-oauth-global-token-revocation, and the profile of it that
//! Okta's Universal Logout speaks): an identity provider says that what a person has at an authorization
//! server has ended.

use crate::{
    identifier::Issuer,
    jose::claims::{ClaimError, Claims, check_times},
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    time::{SKEW, Timestamp},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The path of the endpoint below an issuer.
pub const PATH: &str = "/global_token_revocation";
/// `typ` of the JWT that authenticates a request.
const TYPE: &str = "global-token-revocation+jwt";
/// Lifetime of our own, in seconds.
const LIFETIME: i64 = 120;
/// Longest lifetime accepted, in seconds: what Okta documents.
const LONGEST_LIFETIME: i64 = 300;
/// Longest `jti` of an ID-JAG in a request, in bytes: so many as may be named fit into one.
const LONGEST_JTI: usize = 100;

fn is_jti(text: &str) -> bool {
    (1..=LONGEST_JTI).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Most ID-JAGs that one request names.
pub const MOST_ID_JAGS: usize = 500;

/// Whose access has ended (RFC 9493).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubId {
    /// `iss_sub`: as an issuer names them.
    IssSub {
        /// The issuer.
        iss: String,
        /// Its `sub`.
        sub: String,
    },
    /// `email`: by an e-mail address.
    Email(String),
    /// `opaque`: by the `sub` that the caller uses with the receiver.
    Opaque(String),
}

impl SubId {
    /// The JSON object.
    pub fn to_value(&self) -> Value {
        match self {
            Self::IssSub { iss, sub } => json!({"format": "iss_sub", "iss": iss, "sub": sub}),
            Self::Email(email) => json!({"format": "email", "email": email}),
            Self::Opaque(id) => json!({"format": "opaque", "id": id}),
        }
    }

    /// From the JSON object.
    pub(crate) fn read(object: &Map<String, Value>) -> Result<Self, RequestError> {
        let member = |name: &'static str| {
            let text = object.get(name).and_then(Value::as_str).unwrap_or_default();
            let plain =
                !text.is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control);
            if plain { Ok(text.to_owned()) } else { Err(RequestError::Member(name)) }
        };
        match object.get("format").and_then(Value::as_str) {
            Some("iss_sub") => Ok(Self::IssSub { iss: member("iss")?, sub: member("sub")? }),
            Some("email") => Ok(Self::Email(member("email")?)),
            Some("opaque") => Ok(Self::Opaque(member("id")?)),
            _ => Err(RequestError::Format),
        }
    }
}

/// Why a request is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a JSON object.
    #[error("the body is not one JSON object with distinct members")]
    NotJson,
    /// No `sub_id`.
    #[error("`sub_id` is missing: an object that names a person (RFC 9493)")]
    Subject,
    /// An unknown format of subject.
    #[error("`format` of `sub_id` is not one of `iss_sub`, `email`, `opaque`")]
    Format,
    /// A member of the subject.
    #[error("`{0}` of `sub_id` is missing, empty, or not a text of 1024 bytes at most")]
    Member(&'static str),
    /// The time of the end.
    #[error(
        "`ended_at` is not a time in seconds beside a `sub_id` alone, or beside `ended_id_jags`"
    )]
    EndedAt,
    /// The list of ID-JAGs.
    #[error(
        "`id_jags`, or `ended_id_jags` in its place, is not a list of 1 to 500 texts of 100 bytes at most"
    )]
    IdJags,
}

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRequest {
    /// Whose access.
    pub subject: SubId,
    /// Everything that came by way of the caller.
    pub all: bool,
    /// ID-JAGs by their `jti`s. Members of our own, sent to servers that announce it: `id_jags`, where what was
    /// issued for these is all that has ended, and `ended_id_jags` beside everything: they open nothing
    /// any more, whatever the clocks of who issued them and of who tells it say.
    pub id_jags: Vec<String>,
    /// When everything ended, by the caller's clock: another member of our own. What was issued in this
    /// second and has ended is named in `ended_id_jags`, or in a request that follows. Without it
    /// everything ended when the request's JWT was issued.
    pub ended_at: Option<Timestamp>,
}

impl RevocationRequest {
    /// Reads the body of a request. Earlier drafts called the member `subject`.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut object = Claims::parse(body).map_err(|_| RequestError::NotJson)?.into_object();
        let subject = object.remove("sub_id").or_else(|| object.remove("subject"));
        let Some(Value::Object(subject)) = subject else { return Err(RequestError::Subject) };
        let mut list = |name: &str| match object.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) if (1..=MOST_ID_JAGS).contains(&list.len()) => {
                let read = |value: Value| match value {
                    Value::String(text) if is_jti(&text) => Ok(text),
                    _ => Err(RequestError::IdJags),
                };
                list.into_iter().map(read).collect::<Result<_, _>>()
            }
            Some(_) => Err(RequestError::IdJags),
        };
        let (only, also) = (list("id_jags")?, list("ended_id_jags")?);
        let all = only.is_empty();
        if !all && !also.is_empty() {
            return Err(RequestError::IdJags);
        }
        let ended_at = match object.remove("ended_at") {
            None => None,
            Some(value) => {
                let seconds = value.as_i64().filter(|seconds| all && *seconds > 0);
                Some(Timestamp(seconds.ok_or(RequestError::EndedAt)?))
            }
        };
        let id_jags = if all { also } else { only };
        Ok(Self { subject: SubId::read(&subject)?, all, id_jags, ended_at })
    }

    /// Until when, by the caller's clock, what it issued has ended; `issued_at` is when its JWT was issued.
    pub fn until(&self, issued_at: Timestamp) -> Timestamp {
        self.ended_at.map_or(issued_at, |ended_at| ended_at.plus(-1).min(issued_at))
    }

    /// The body of a request; by the member's `earlier` name for servers of an earlier draft.
    pub fn to_body(&self, earlier: bool) -> Value {
        let mut body = Map::new();
        let name = if earlier { "subject" } else { "sub_id" };
        body.insert(name.to_owned(), self.subject.to_value());
        if !self.id_jags.is_empty() {
            let name = if self.all { "ended_id_jags" } else { "id_jags" };
            body.insert(name.to_owned(), json!(self.id_jags));
        }
        if let Some(ended_at) = self.ended_at {
            body.insert("ended_at".to_owned(), json!(ended_at));
        }
        Value::Object(body)
    }
}

/// A JWT of ours that authenticates a request to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevocationTokenClaims {
    iss: Issuer,
    sub: String,
    aud: String,
    iat: Timestamp,
    exp: Timestamp,
    jti: String,
}

impl RevocationTokenClaims {
    /// For an endpoint.
    pub fn new(issuer: &Issuer, endpoint: &str, jti: &str, now: Timestamp) -> Self {
        Self {
            iss: issuer.clone(),
            sub: issuer.to_string(),
            aud: endpoint.to_owned(),
            iat: now,
            exp: now.plus(LIFETIME),
            jti: jti.to_owned(),
        }
    }

    /// The signed token.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }
}

/// A verified JWT of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationToken {
    /// `jti`; without one, nothing but its own text tells it from others.
    pub jti: Option<String>,
    /// When it was issued, by the caller's clock.
    pub issued_at: Timestamp,
    /// After this time it is not accepted any more.
    pub forget_after: Timestamp,
}

/// The issuer that a JWT claims to be from, and its `kid`, to find keys by.
pub fn claimed(token: &str) -> Result<(String, Option<String>), JwtError> {
    let token = Unverified::parse(token)?;
    if token.media_type().as_deref() != Some(TYPE) {
        return Err(JwtError::Type(TYPE));
    }
    let kid = token.kid().map(str::to_owned);
    Ok((token.claims.required_str("iss")?.to_owned(), kid))
}

/// Verifies the JWT of a caller, for an endpoint. `client` is what it calls us, if that is known.
pub fn verify(
    token: &str,
    keys: &KeySet,
    (issuer, other_spelling): (&Issuer, Option<&str>),
    client: Option<&str>,
    endpoint: &str,
    now: Timestamp,
) -> Result<RevocationToken, JwtError> {
    let token = Unverified::parse(token)?;
    if token.media_type().as_deref() != Some(TYPE) {
        return Err(JwtError::Type(TYPE));
    }
    let claims = token.verify_signature(keys)?;
    let iss = claims.required_str("iss")?;
    if iss != issuer.as_str() && Some(iss) != other_spelling {
        return Err(JwtError::Issuer);
    }
    if claims.required_single_audience()? != endpoint {
        return Err(JwtError::Audience);
    }
    let sub = claims.required_id("sub", 1024)?;
    if client.is_some_and(|client| client != sub) {
        return Err(JwtError::Client);
    }
    let issued_at = claims.required_time("iat")?;
    let expires = claims.required_time("exp")?;
    check_times(issued_at, claims.optional_time("nbf")?, expires, LONGEST_LIFETIME, now)?;
    let jti = match claims.value("jti") {
        None => None,
        Some(Value::String(_)) => Some(claims.required_id("jti", 255)?.to_owned()),
        Some(_) => return Err(ClaimError::WrongType("jti").into()),
    };
    Ok(RevocationToken { jti, issued_at, forget_after: expires.plus(SKEW) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<RevocationRequest, RequestError> {
        RevocationRequest::parse(body.as_bytes())
    }

    #[test]
    fn a_request_names_one_person_in_one_of_three_ways() {
        for (subject, text) in [
            (
                SubId::IssSub { iss: "https://idp.example".to_owned(), sub: "erin".to_owned() },
                r#"{"sub_id":{"format":"iss_sub","iss":"https://idp.example","sub":"erin"}}"#,
            ),
            (
                SubId::Email("erin@acme.example".to_owned()),
                r#"{"subject":{"format":"email","email":"erin@acme.example"},"other":[1]}"#,
            ),
            (SubId::Opaque("erin".to_owned()), r#"{"sub_id":{"format":"opaque","id":"erin"}}"#),
        ] {
            let (id_jags, ended_at) = (Vec::new(), None);
            let request = RevocationRequest { subject, all: true, id_jags, ended_at };
            assert_eq!(read(text).as_ref(), Ok(&request), "{text}");
            for earlier in [false, true] {
                assert_eq!(read(&request.to_body(earlier).to_string()).as_ref(), Ok(&request));
            }
        }
        for all in [false, true] {
            let some = RevocationRequest {
                subject: SubId::Opaque("erin".to_owned()),
                all,
                id_jags: vec!["a".to_owned(), "b".to_owned()],
                ended_at: all.then_some(Timestamp(1000)),
            };
            assert_eq!(read(&some.to_body(false).to_string()).as_ref(), Ok(&some));
            // What was issued in the very second is named singly; a clock ahead ends nothing of later.
            assert_eq!(some.until(Timestamp(1005)), Timestamp(if all { 999 } else { 1005 }));
            assert_eq!(some.until(Timestamp(990)), Timestamp(990));
        }
        for (text, error) in [
            ("", RequestError::NotJson),
            ("[]", RequestError::NotJson),
            (r#"{"sub_id":{"format":"opaque","id":"a","id":"b"}}"#, RequestError::NotJson),
            ("{}", RequestError::Subject),
            (r#"{"sub_id":"erin"}"#, RequestError::Subject),
            (r#"{"sub_id":{"id":"erin"}}"#, RequestError::Format),
            (r#"{"sub_id":{"format":"phone_number","phone_number":"+1"}}"#, RequestError::Format),
            (
                r#"{"sub_id":{"format":"iss_sub","iss":"https://idp.example"}}"#,
                RequestError::Member("sub"),
            ),
            (r#"{"sub_id":{"format":"email","email":"a\nb"}}"#, RequestError::Member("email")),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"id_jags":[]}"#, RequestError::IdJags),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"id_jags":[1]}"#, RequestError::IdJags),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"id_jags":"b"}"#, RequestError::IdJags),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"ended_id_jags":[]}"#, RequestError::IdJags),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"ended_at":"1000"}"#, RequestError::EndedAt),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"ended_at":-1}"#, RequestError::EndedAt),
            (r#"{"sub_id":{"format":"opaque","id":"a"},"ended_at":1.5}"#, RequestError::EndedAt),
            (
                r#"{"sub_id":{"format":"opaque","id":"a"},"id_jags":["a"],"ended_at":1}"#,
                RequestError::EndedAt,
            ),
            (
                r#"{"sub_id":{"format":"opaque","id":"a"},"id_jags":["a"],"ended_id_jags":["b"]}"#,
                RequestError::IdJags,
            ),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
        // At the limit and one beyond.
        let many = |n: usize| {
            let body = json!({"sub_id": {"format": "opaque", "id": "a"}, "id_jags": vec!["j"; n]});
            read(&body.to_string())
        };
        assert!(many(MOST_ID_JAGS).is_ok());
        assert_eq!(many(MOST_ID_JAGS + 1), Err(RequestError::IdJags));
    }
}
