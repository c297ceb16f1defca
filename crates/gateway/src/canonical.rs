//! JSON that others wrote, in canonical form: members sorted, none of them twice. It is rewritten
//! while it is parsed, so that nothing but the text itself is held in memory.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value, value::RawValue};
use std::{collections::HashSet, fmt};

/// The canonical form of a JSON text. An error if it is not JSON, or has a member twice.
pub(crate) fn canonical(text: &str) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(text.len());
    let mut json = serde_json::Deserializer::from_str(text);
    Canonical(&mut out).deserialize(&mut json)?;
    json.end()?;
    Ok(out)
}

/// A string as a JSON literal.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An object of members that are serialized already.
pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let members: Vec<_> =
        members.into_iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", members.join(","))
}

struct Canonical<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push_str(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.push_str(&value.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("no number"))?;
        self.0.push_str(&number.to_string());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.push_str(&quoted(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push_str("null");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push('[');
        let start = self.0.len();
        loop {
            if self.0.len() > start {
                self.0.push(',');
            }
            if items.next_element_seed(Canonical(self.0))?.is_none() {
                break;
            }
        }
        if self.0.len() > start {
            self.0.pop();
        }
        self.0.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut members: Vec<(String, String)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let mut value = String::new();
            map.next_value_seed(Canonical(&mut value))?;
            members.push((name, value));
        }
        members.sort_unstable();
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom("a member occurs twice"));
        }
        let members = members.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.0.push_str(&object(members));
        Ok(())
    }
}

/// Maximum number of members of an object that is read by name.
const MOST: usize = 10_000;

/// The members of one object in order, as written, none of them twice.
pub(crate) struct Members<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl Members<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(held, _)| held == name).map(|(_, value)| *value)
    }

    /// A member that is a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| serde_json::from_str(value.get()).ok())
    }
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, _>()? {
                    // Of two equal members, readers differ in which one they take.
                    if !names.insert(name.clone()) || members.len() == MOST {
                        return Err(A::Error::custom(
                            "a member occurs twice, or there are too many",
                        ));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_library_writes_of_sorted_members() {
        for text in [
            r#"{"b":[1,-2,3.0,1e3,1E-7,{"z":null,"a":true}],"a":"\u00e9\n\"","":{}}"#,
            "[]",
            "{}",
            "[[],[{}],\"x\"]",
            "18446744073709551615",
            "0.1",
            "-0",
            "\"\\ud83d\\ude00\"",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(canonical(text).unwrap(), value.to_string(), "{text}");
        }
        for bad in [r#"{"a":1,"a":2}"#, r#"{"a":{"b":1,"\u0062":2}}"#, "{} {}", "{", "[1,]", ""] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn members_are_read_in_linear_time_and_never_twice() {
        let members = |count: usize| {
            let all: Vec<_> = (0..count).map(|n| format!("\"m{n}\":1")).collect();
            format!("{{{}}}", all.join(","))
        };
        let read = |text: &str| serde_json::from_str::<Members<'_>>(text).map(|m| m.0.len());
        assert_eq!(read(&members(MOST)).unwrap(), MOST);
        assert!(read(&members(MOST + 1)).is_err());
        assert!(read(r#"{"a":1,"\u0061":2}"#).is_err());
    }
}
