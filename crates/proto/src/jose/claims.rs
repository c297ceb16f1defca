//! JSON objects, parsed strictly: no duplicate members, and a claim of the wrong type is an error,
//! not absent.

use crate::time::{SKEW, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use std::fmt;

/// Why a claims set is rejected. The claim's name is one of ours, never text of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not a JSON object, not UTF-8, or a member named twice (RFC 7519 section 4).
    #[error("the content is not one JSON object with distinct members")]
    NotObject,
    /// A required claim is absent.
    #[error("the `{0}` claim is missing")]
    Missing(&'static str),
    /// A claim has another JSON type, or a value outside its range.
    #[error("the `{0}` claim has the wrong type or form")]
    WrongType(&'static str),
}

/// A JWT claims set (or JOSE header) with distinct members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Parses UTF-8 JSON. Duplicate members at any depth, a byte order mark, and anything but an
    /// object are rejected.
    pub fn parse(json: &[u8]) -> Result<Self, ClaimError> {
        match serde_json::from_slice::<Strict>(json) {
            Ok(Strict(Value::Object(map))) => Ok(Self(map)),
            _ => Err(ClaimError::NotObject),
        }
    }

    /// The raw value, if the claim is there.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The same with those of these claims of `others` that are not there.
    #[must_use]
    pub fn completed(mut self, mut others: Self, names: &[&str]) -> Self {
        for name in names {
            if let Some(value) = others.0.remove(*name) {
                self.0.entry((*name).to_owned()).or_insert(value);
            }
        }
        self
    }

    /// The whole object.
    pub fn into_object(self) -> Map<String, Value> {
        self.0
    }

    /// A string claim. `None` if it is absent; anything else is an error.
    pub fn optional_str(&self, name: &'static str) -> Result<Option<&str>, ClaimError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ClaimError::WrongType(name)),
        }
    }

    /// A boolean claim. `None` if it is absent; anything else is an error.
    pub fn optional_bool(&self, name: &'static str) -> Result<Option<bool>, ClaimError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(ClaimError::WrongType(name)),
        }
    }

    /// A required, non-empty string claim.
    pub fn required_str(&self, name: &'static str) -> Result<&str, ClaimError> {
        match self.optional_str(name)? {
            None => Err(ClaimError::Missing(name)),
            Some("") => Err(ClaimError::WrongType(name)),
            Some(text) => Ok(text),
        }
    }

    /// A required string of 1 to `most` bytes without control characters: `jti`, `sub`.
    pub fn required_id(&self, name: &'static str, most: usize) -> Result<&str, ClaimError> {
        let text = self.required_str(name)?;
        let plain = text.len() <= most && !text.chars().any(char::is_control);
        if plain { Ok(text) } else { Err(ClaimError::WrongType(name)) }
    }

    /// A `NumericDate`, not negative (RFC 7519 section 2). A fraction of a second is rounded so
    /// that less is accepted: times that end something, or that have to be recent, are rounded
    /// down; times that begin something are rounded up.
    pub fn optional_time(&self, name: &'static str) -> Result<Option<Timestamp>, ClaimError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_i64() {
                Some(seconds @ 0..=253_402_300_799) => Ok(Some(Timestamp(seconds))),
                Some(_) => Err(ClaimError::WrongType(name)),
                None => {
                    let begins = matches!(name, "iat" | "nbf");
                    let seconds = number
                        .as_f64()
                        .filter(|seconds| (0.0..253_402_300_799.0).contains(seconds));
                    let seconds = seconds
                        .map(|seconds| if begins { seconds.ceil() } else { seconds.floor() });
                    #[allow(clippy::cast_possible_truncation)] // whole, and within the range
                    let seconds = seconds.map(|seconds| Timestamp(seconds as i64));
                    seconds.map(Some).ok_or(ClaimError::WrongType(name))
                }
            },
            Some(_) => Err(ClaimError::WrongType(name)),
        }
    }

    /// A required `NumericDate`.
    pub fn required_time(&self, name: &'static str) -> Result<Timestamp, ClaimError> {
        self.optional_time(name)?.ok_or(ClaimError::Missing(name))
    }

    /// A claim that may be a string or a non-empty array of distinct strings.
    pub fn optional_strings(&self, name: &'static str) -> Result<Option<Vec<&str>>, ClaimError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(vec![text])),
            Some(Value::Array(items)) if !items.is_empty() && items.len() <= 100 => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    match item {
                        Value::String(text) if !texts.contains(&text.as_str()) => {
                            texts.push(text.as_str());
                        }
                        _ => return Err(ClaimError::WrongType(name)),
                    }
                }
                Ok(Some(texts))
            }
            Some(_) => Err(ClaimError::WrongType(name)),
        }
    }

    /// The single audience: a string, or an array of exactly one.
    pub fn required_single_audience(&self) -> Result<&str, ClaimError> {
        match self.optional_strings("aud")? {
            None => Err(ClaimError::Missing("aud")),
            Some(list) if list.len() == 1 => Ok(list[0]),
            Some(_) => Err(ClaimError::WrongType("aud")),
        }
    }
}

/// Why a token is not valid at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// `exp` is past, or not after `iat`.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` lies in the future by more than the allowed skew.
    #[error("it is not valid yet; check the clocks of both machines")]
    NotYetValid,
    /// `exp - iat` is more than the maximum lifetime of this kind of token.
    #[error("it claims to live longer than this kind of token may")]
    TooLong,
}

/// Checks `iat <= now`, `nbf <= now < exp` with 30 s of skew and `exp - iat <= longest` seconds.
pub fn check_times(
    issued: Timestamp,
    not_before: Option<Timestamp>,
    expires: Timestamp,
    longest: i64,
    now: Timestamp,
) -> Result<(), TimeError> {
    if now.since(expires) >= SKEW || expires <= issued {
        return Err(TimeError::Expired);
    }
    let begins = not_before.map_or(issued, |nbf| nbf.max(issued));
    if begins.since(now) > SKEW {
        return Err(TimeError::NotYetValid);
    }
    if expires.since(issued) > longest {
        return Err(TimeError::TooLong);
    }
    Ok(())
}

/// Parses any JSON, refusing a member that occurs twice at any depth.
pub fn parse_json(json: &[u8]) -> Result<Value, ClaimError> {
    serde_json::from_slice::<Strict>(json).map(|s| s.0).map_err(|_| ClaimError::NotObject)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StrictSeed.deserialize(deserializer).map(Strict)
    }
}

/// Builds a `Value` like serde_json does, but refuses a member that occurs twice.
struct StrictSeed;

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with distinct members")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(StrictSeed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(StrictSeed)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_occurs_twice_is_refused_at_any_depth() {
        assert!(Claims::parse(br#"{"a":1,"a":1}"#).is_err());
        assert!(Claims::parse(br#"{"a":{"b":1,"b":2}}"#).is_err());
        assert!(Claims::parse(br#"{"a":[{"b":1,"b":2}]}"#).is_err());
        assert!(Claims::parse(b"\xef\xbb\xbf{}").is_err());
        assert!(Claims::parse(br#"{"a":"\ud800"}"#).is_err());
        assert!(Claims::parse(b"{\"a\":\"\xff\"}").is_err());
        for not_object in ["[]", "null", "\"x\"", "1", ""] {
            assert!(Claims::parse(not_object.as_bytes()).is_err());
        }
        assert!(Claims::parse(br#"{"a":{"b":1},"c":[1,null,true,1.5]}"#).is_ok());
    }

    #[test]
    fn a_time_of_another_type_is_refused_and_never_absent() {
        for bad in ["\"1\"", "1e400", "-1", "-0.5", "null", "[]", "99999999999999", "1e300"] {
            let json = format!("{{\"exp\":{bad}}}");
            let refused =
                Claims::parse(json.as_bytes()).and_then(|c| c.optional_time("exp").map(|_| ()));
            assert!(refused.is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fraction_of_a_second_lets_in_less() {
        let claims =
            Claims::parse(br#"{"exp":10.9,"auth_time":10.9,"iat":10.1,"nbf":10.1,"e":1e1}"#);
        let claims = claims.unwrap();
        for (name, seconds) in [("exp", 10), ("auth_time", 10), ("iat", 11), ("nbf", 11), ("e", 10)]
        {
            assert_eq!(claims.required_time(name), Ok(Timestamp(seconds)), "{name}");
        }
    }

    #[test]
    fn times_hold_to_the_second_of_the_skew() {
        let t = Timestamp;
        let now = t(10_000);
        let check = |iat, nbf: Option<i64>, exp| check_times(t(iat), nbf.map(t), t(exp), 300, now);
        assert_eq!(check(9_900, None, 10_000 - SKEW + 1), Ok(()));
        assert_eq!(check(9_900, None, 10_000 - SKEW), Err(TimeError::Expired));
        assert_eq!(check(10_030, None, 10_100), Ok(()));
        assert_eq!(check(10_031, None, 10_100), Err(TimeError::NotYetValid));
        assert_eq!(check(9_990, Some(10_031), 10_100), Err(TimeError::NotYetValid));
        assert_eq!(check(9_990, None, 10_290), Ok(()));
        assert_eq!(check(9_990, None, 10_291), Err(TimeError::TooLong));
        assert_eq!(check(10_010, None, 10_010), Err(TimeError::Expired));
    }
}
