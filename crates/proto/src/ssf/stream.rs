//! What a receiver asks of its stream (SSF 1.0, section 8), and what it polls for (RFC 8936).

use super::{EventType, POLL_METHOD, PUSH_METHOD};
use crate::{jose::claims::Claims, secret::Secret};
use serde_json::{Map, Value};

/// Longest text of a stream, in bytes.
const LONGEST: usize = 1024;
/// Most events that are asked for.
const MOST_EVENTS: usize = 100;
/// Most acknowledgements in one poll.
const MOST_ACKS: usize = 1000;

/// Why a request about a stream is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Not a JSON object.
    #[error("the body is not one JSON object with distinct members")]
    NotJson,
    /// A member of the wrong type or form.
    #[error("`{0}` is missing, or not of its type and length")]
    Member(&'static str),
    /// A member that the transmitter supplies, with another value.
    #[error("`{0}` is supplied by this transmitter and cannot be changed")]
    ReadOnly(&'static str),
    /// An unknown way of delivery.
    #[error(
        "`method` of `delivery` is neither `urn:ietf:rfc:8935` (push) nor `urn:ietf:rfc:8936` (poll)"
    )]
    Method,
}

/// How events are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// They are posted (RFC 8935).
    Push {
        /// Where.
        endpoint_url: String,
        /// The `Authorization` header that goes with them.
        authorization_header: Option<Secret>,
    },
    /// They are fetched (RFC 8936).
    Poll,
}

/// What a receiver says of its stream. What it leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRequest {
    /// Which one, if it names it.
    pub stream_id: Option<String>,
    /// Which events it wants.
    pub events_requested: Option<Vec<EventType>>,
    /// How they are delivered.
    pub delivery: Option<Delivery>,
    /// What the receiver calls it.
    pub description: Option<String>,
}

fn text(object: &Map<String, Value>, name: &'static str) -> Result<Option<String>, StreamError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if text.len() <= LONGEST && !text.chars().any(char::is_control) =>
        {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(StreamError::Member(name)),
    }
}

/// The members of a body; one that is `null` was left out.
fn object(body: &[u8]) -> Result<Map<String, Value>, StreamError> {
    let mut object = Claims::parse(body).map_err(|_| StreamError::NotJson)?.into_object();
    object.retain(|_, value| !value.is_null());
    Ok(object)
}

impl StreamRequest {
    /// Reads a request. `held` is the configuration as it is, if there is one: members that the
    /// transmitter supplies may be repeated as they are (section 8.1.1.3).
    pub fn parse(body: &[u8], held: Option<&Value>) -> Result<Self, StreamError> {
        let object = object(body)?;
        if let Some(held) = held {
            for name in
                ["iss", "aud", "events_supported", "events_delivered", "min_verification_interval"]
            {
                if object.get(name).is_some_and(|said| Some(said) != held.get(name)) {
                    return Err(StreamError::ReadOnly(name));
                }
            }
        }
        let wanted = match object.get("events_requested") {
            None => None,
            Some(Value::Array(list)) if list.len() <= MOST_EVENTS => {
                let uris = list.iter().map(|uri| uri.as_str());
                let uris: Option<Vec<&str>> = uris.collect();
                let uris = uris.ok_or(StreamError::Member("events_requested"))?;
                // What is not known here is passed over (section 8.1.1).
                let wanted = |event: &EventType| uris.contains(&event.uri());
                Some(EventType::TOLD.into_iter().filter(wanted).collect())
            }
            Some(_) => return Err(StreamError::Member("events_requested")),
        };
        let delivery = match object.get("delivery") {
            None => None,
            Some(Value::Object(delivery)) => Some(read_delivery(delivery)?),
            Some(_) => return Err(StreamError::Member("delivery")),
        };
        Ok(Self {
            stream_id: text(&object, "stream_id")?,
            events_requested: wanted,
            delivery,
            description: text(&object, "description")?,
        })
    }
}

fn read_delivery(delivery: &Map<String, Value>) -> Result<Delivery, StreamError> {
    match text(delivery, "method")?.as_deref() {
        Some(POLL_METHOD) => Ok(Delivery::Poll),
        Some(PUSH_METHOD) => {
            let endpoint_url =
                text(delivery, "endpoint_url")?.ok_or(StreamError::Member("endpoint_url"))?;
            let header = text(delivery, "authorization_header")?;
            if header.as_deref().is_some_and(|header| !header.is_ascii()) {
                return Err(StreamError::Member("authorization_header"));
            }
            Ok(Delivery::Push { endpoint_url, authorization_header: header.map(Secret::new) })
        }
        _ => Err(StreamError::Method),
    }
}

/// Whether a stream's events are delivered (section 8.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// They are.
    Enabled,
    /// They are kept.
    Paused,
    /// They are dropped.
    Disabled,
}

impl StreamStatus {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// As it was written.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Enabled, Self::Paused, Self::Disabled].into_iter().find(|it| it.word() == word)
    }

    /// Reads a request for another status: the stream, the status and the reason.
    pub fn parse(body: &[u8]) -> Result<(String, Self, Option<String>), StreamError> {
        let object = object(body)?;
        let id = text(&object, "stream_id")?.ok_or(StreamError::Member("stream_id"))?;
        let status = text(&object, "status")?.and_then(|word| Self::of_word(&word));
        Ok((id, status.ok_or(StreamError::Member("status"))?, text(&object, "reason")?))
    }

    /// Reads a request for a verification event: the stream, and `state`.
    pub fn parse_verification(body: &[u8]) -> Result<(String, Option<String>), StreamError> {
        let object = object(body)?;
        let id = text(&object, "stream_id")?.ok_or(StreamError::Member("stream_id"))?;
        Ok((id, text(&object, "state")?))
    }
}

/// A poll (RFC 8936, section 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollRequest {
    /// How many events at most.
    pub most: usize,
    /// Whether an empty answer comes at once.
    pub return_immediately: bool,
    /// The `jti`s that were taken.
    pub acknowledged: Vec<String>,
    /// The `jti`s that were not, with the reason.
    pub refused: Vec<(String, String)>,
}

impl PollRequest {
    /// Most events of one answer.
    const MOST: usize = 100;

    /// Reads a poll.
    pub fn parse(body: &[u8]) -> Result<Self, StreamError> {
        let object = object(body)?;
        let most = match object.get("maxEvents") {
            None => Self::MOST,
            Some(number) => {
                let number = number.as_u64().ok_or(StreamError::Member("maxEvents"))?;
                usize::try_from(number).unwrap_or(usize::MAX).min(Self::MOST)
            }
        };
        let return_immediately = match object.get("returnImmediately") {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => return Err(StreamError::Member("returnImmediately")),
        };
        let acknowledged = match object.get("ack") {
            None => Vec::new(),
            Some(Value::Array(list)) if list.len() <= MOST_ACKS => {
                let jtis = list.iter().map(|jti| jti.as_str().map(str::to_owned));
                jtis.collect::<Option<_>>().ok_or(StreamError::Member("ack"))?
            }
            Some(_) => return Err(StreamError::Member("ack")),
        };
        let refused = match object.get("setErrs") {
            None => Vec::new(),
            Some(Value::Object(errors)) if errors.len() <= MOST_ACKS => {
                let word = |error: &Value| {
                    let of = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
                    format!("{} {}", of("err"), of("description"))
                };
                errors.iter().map(|(jti, error)| (jti.clone(), word(error))).collect()
            }
            Some(_) => return Err(StreamError::Member("setErrs")),
        };
        Ok(Self { most, return_immediately, acknowledged, refused })
    }
}
