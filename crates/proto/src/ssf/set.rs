//! Security event tokens (RFC 8417, in the form of SSF 1.0, section 4.1).

use super::event_type::EventType;
use crate::{
    identifier::Issuer,
    jose::claims::ClaimError,
    jose::jwk::{KeySet, SigningKey},
    jose::jws::{self, JwtError, Unverified},
    oauth::global_token_revocation::SubId,
    time::{SKEW, Timestamp},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Header `typ` of a security event token.
const TYPE: &str = "secevent+jwt";
/// How old one may be when it comes, in seconds: others try for days.
const OLDEST: i64 = 14 * 86_400;
/// Most events of one token.
const MOST_EVENTS: usize = 10;
/// The smallest time that can only be in milliseconds: some write them.
const MILLISECONDS: i64 = 100_000_000_000;

/// Whom, or what, an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A person.
    Person(SubId),
    /// One session of a person, by its `sid` (RFC 9493 complex subject, SSF 1.0 section 3).
    Session {
        /// Whose, if that is said.
        person: Option<SubId>,
        /// The session, by its id.
        session: String,
    },
    /// A stream, by its id.
    Stream(String),
}

impl Subject {
    fn to_value(&self) -> Value {
        match self {
            Self::Person(person) => person.to_value(),
            Self::Session { person, session } => {
                let mut value =
                    json!({"format": "complex", "session": {"format": "opaque", "id": session}});
                if let Some(person) = person {
                    value["user"] = person.to_value();
                }
                value
            }
            Self::Stream(id) => json!({"format": "opaque", "id": id}),
        }
    }

    /// `None` for a subject that is no person and no session that we could know.
    fn read(object: &Map<String, Value>) -> Option<Self> {
        let is_complex = object.get("format").and_then(Value::as_str) == Some("complex")
            || (object.get("format").is_none() && object.contains_key("user"));
        if !is_complex {
            return SubId::read(object).ok().map(Self::Person);
        }
        let member = |name: &str| object.get(name).and_then(Value::as_object);
        let person = match member("user") {
            // Who is named in a way that is not known is not everyone.
            Some(user) => Some(SubId::read(user).ok()?),
            None => None,
        };
        match member("session").map(SubId::read) {
            // All of a person's, as Keycloak says it.
            Some(Ok(SubId::Opaque(all))) if all == "ALL" && person.is_some() => {
                person.map(Self::Person)
            }
            Some(Ok(SubId::Opaque(session))) => Some(Self::Session { person, session }),
            Some(_) => None,
            None => person.map(Self::Person),
        }
    }
}

/// A security event token to be signed.
#[derive(Clone, Debug, Serialize)]
pub struct SetClaims {
    iss: Issuer,
    jti: String,
    iat: Timestamp,
    aud: String,
    sub_id: Value,
    events: Value,
}

impl SetClaims {
    /// One event for one receiver. `content` are the members of the event.
    pub fn new(
        issuer: &Issuer,
        (audience, jti): (&str, &str),
        subject: &Subject,
        (event, content): (EventType, Map<String, Value>),
        now: Timestamp,
    ) -> Self {
        Self {
            iss: issuer.clone(),
            jti: jti.to_owned(),
            iat: now,
            aud: audience.to_owned(),
            sub_id: subject.to_value(),
            events: json!({event.uri(): content}),
        }
    }

    /// The signed token.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(key, TYPE, self)
    }
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetRefusal {
    /// Not a security event token, or not one of the right form.
    #[error("{0}")]
    Request(JwtError),
    /// Signed with another key.
    #[error("{0}")]
    Key(JwtError),
    /// Of another issuer.
    #[error("`iss` is not the issuer that is registered for this address")]
    Issuer,
    /// For another receiver.
    #[error("`aud` is not the audience that is registered for this address, or names others too")]
    Audience,
    /// Too old, or from the future.
    #[error(
        "`iat` is more than two weeks ago, or in the future; check the clocks of both machines"
    )]
    Time,
    /// No events, or too many.
    #[error(
        "`events` is not an object of 1 to 10 events, each an object; of several, `sub_id` beside them says whom they are about"
    )]
    Events,
}

impl SetRefusal {
    /// `err` of the answer (RFC 8935, section 2.4).
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request(_) | Self::Time | Self::Events => "invalid_request",
            Self::Key(_) => "invalid_key",
            Self::Issuer => "invalid_issuer",
            Self::Audience => "invalid_audience",
        }
    }
}

impl From<ClaimError> for SetRefusal {
    fn from(error: ClaimError) -> Self {
        Self::Request(error.into())
    }
}

/// A verified security event token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityEvent {
    /// `jti`.
    pub jti: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// Whom it is about; `None` if that is said in a way that names nobody here.
    pub subject: Option<Subject>,
    /// The events that are known here, and whether access ends with each.
    pub events: Vec<(EventType, bool)>,
    /// When access ended, by the latest of its events that end it: not after it was issued.
    pub happened_at: Timestamp,
}

impl SecurityEvent {
    /// Whether access ends with it.
    pub fn ends_access(&self) -> bool {
        self.events.iter().any(|(_, ends)| *ends)
    }
}

/// `iss` and `kid` of a token that is not verified yet, for finding keys.
pub fn claimed(token: &str) -> Result<(String, Option<String>), SetRefusal> {
    let token = Unverified::parse(token).map_err(SetRefusal::Request)?;
    token.require_type(TYPE).map_err(SetRefusal::Request)?;
    let kid = token.kid().map(str::to_owned);
    Ok((token.claims.required_str("iss")?.to_owned(), kid))
}

/// Verifies a token of one transmitter for one audience.
pub fn verify(
    token: &str,
    keys: &KeySet,
    (issuer, audience): (&Issuer, &str),
    now: Timestamp,
) -> Result<SecurityEvent, SetRefusal> {
    let token = Unverified::parse(token).map_err(SetRefusal::Request)?;
    token.require_type(TYPE).map_err(SetRefusal::Request)?;
    let claims = token.verify_signature(keys).map_err(SetRefusal::Key)?;
    if claims.required_str("iss")? != issuer.as_str() {
        return Err(SetRefusal::Issuer);
    }
    match claims.required_single_audience() {
        Ok(aud) if aud == audience => {}
        _ => return Err(SetRefusal::Audience),
    }
    let issued_at = claims.required_time("iat")?;
    if issued_at.since(now) > SKEW || now.since(issued_at) > OLDEST {
        return Err(SetRefusal::Time);
    }
    let jti = claims.required_id("jti", 255)?.to_owned();
    let events = claims.value("events").and_then(Value::as_object);
    let events = events.filter(|events| (1..=MOST_EVENTS).contains(&events.len()));
    let events = events.ok_or(SetRefusal::Events)?;
    let mut known = Vec::new();
    let mut ended_at = None;
    let mut subject = claims.value("sub_id").and_then(Value::as_object);
    // The earlier drafts of the profiles name the person in the event; several events could name several.
    if subject.is_none() && events.len() > 1 {
        return Err(SetRefusal::Events);
    }
    for (uri, content) in events {
        let content = content.as_object().ok_or(SetRefusal::Events)?;
        if let Some(event) = EventType::of_uri(uri) {
            let ends = event.ends_access(content);
            known.push((event, ends));
            if ends {
                let at = content.get("event_timestamp").and_then(Value::as_i64);
                let at = at.map(|at| if at >= MILLISECONDS { at / 1000 } else { at });
                let at = at.map_or(issued_at, |at| issued_at.min(Timestamp(at.max(0))));
                ended_at = ended_at.max(Some(at));
            }
        }
        subject = subject.or_else(|| content.get("subject").and_then(Value::as_object));
    }
    // `sub` is not of this form (SSF 1.0, section 4.1.1): a JWT of another kind, which says nothing here.
    if claims.value("sub").is_some() || claims.value("exp").is_some() {
        known.clear();
    }
    Ok(SecurityEvent {
        jti,
        issued_at,
        subject: subject.and_then(Subject::read),
        events: known,
        happened_at: ended_at.unwrap_or(issued_at),
    })
}
