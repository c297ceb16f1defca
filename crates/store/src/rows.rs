//! Stored documents: read tolerantly, written back with what this version does not know, and refused one by one.
//!
//! A row may come from a later version that runs beside this one, or from one that was rolled back. What this version
//! does not know of it is passed over, and kept when the row is written. What must not be passed over, the later version
//! names in [`CRITICAL`]: a row that needs something unknown is of no use here. Whatever cannot be read is named in the
//! log and to whoever watches, counts as not there wherever something rests on it, and leaves the other rows alone.

use crate::{
    database::{Store, StoreError},
    directory::Record,
};
use serde_json::{Map, Value};
use sqlx::{Row, any::AnyRow};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Member of a document that lists what a reader has to know to use it at all (as `crit` does of a JWS, RFC 7515
/// section 4.1.11). This version knows nothing that would be listed.
const CRITICAL: &str = "\"crit\"";

/// Longest explanation that is kept, in characters.
const LONGEST: usize = 300;

/// Reads a document into a domain type; what is unknown in it is passed over.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.contains(CRITICAL) {
        let critical: Critical =
            serde_json::from_str(text).map_err(|e| shortened(&e.to_string()))?;
        if let Some(first) = critical.crit.first() {
            let first = shortened(first);
            return Err(format!("it needs `{first}`, which this version does not know"));
        }
    }
    serde_json::from_str(text).map_err(|e| shortened(&e.to_string()))
}

#[derive(serde::Deserialize)]
struct Critical {
    #[serde(default)]
    crit: Vec<String>,
}

fn shortened(text: &str) -> String {
    passavant_proto::others_text::shown(text, LONGEST)
}

/// The document of a record that replaces one of which `before` is stored, with what this version did not know of that.
pub(crate) fn replacing<R: Record>(record: &R, before: &str) -> Result<String, StoreError> {
    let broken = |error: serde_json::Error| StoreError::Document(R::KIND, error.to_string());
    let new = serde_json::to_value(record).map_err(broken)?;
    let kept = serde_json::from_str::<Value>(before).ok().and_then(|stored| {
        let known = serde_json::to_value(parse::<R>(before).ok()?).ok()?;
        unknown(&stored, &known)
    });
    let Some(kept) = kept else { return Ok(new.to_string()) };
    let mut merged = new.clone();
    merge(&mut merged, &kept);
    // What does not fit the record any more as it is now is not worth the record.
    let fits = parse::<R>(&merged.to_string())
        .is_ok_and(|read| serde_json::to_value(read).is_ok_and(|read| read == new));
    Ok(if fits { merged.to_string() } else { new.to_string() })
}

/// Members of `stored`, at any depth of objects, that are not in `known`.
fn unknown(stored: &Value, known: &Value) -> Option<Value> {
    let (Value::Object(stored), Value::Object(known)) = (stored, known) else { return None };
    let kept: Map<String, Value> = stored
        .iter()
        .filter_map(|(name, value)| {
            let kept = match known.get(name) {
                None => Some(value.clone()),
                Some(known) => unknown(value, known),
            };
            Some((name.clone(), kept?))
        })
        .collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

fn merge(into: &mut Value, kept: &Value) {
    let (Value::Object(into), Value::Object(kept)) = (into, kept) else { return };
    for (name, value) in kept {
        match into.get_mut(name) {
            None => {
                into.insert(name.clone(), value.clone());
            }
            Some(there) => merge(there, value),
        }
    }
}

/// The rows that cannot be read, by kind and id, and why; as of the last look at each.
#[derive(Debug, Default)]
pub(crate) struct Unreadable(Mutex<BTreeMap<(&'static str, String), String>>);

impl Unreadable {
    /// Notes what a look at one row found; said in the log when it is news.
    fn note(&self, kind: &'static str, id: &str, why: Option<&str>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, id.to_owned());
        match why {
            None => {
                all.remove(&key);
            }
            Some(why) => {
                let id = shortened(id);
                if all.insert(key, why.to_owned()).as_deref() != Some(why) {
                    tracing::error!(
                        kind,
                        id,
                        why,
                        "a stored record cannot be read, and counts as not there"
                    );
                }
            }
        }
    }

    /// The same of a row of another table.
    pub(crate) fn noted<T>(
        &self,
        kind: &'static str,
        id: &str,
        read: Result<T, StoreError>,
    ) -> Option<T> {
        match read {
            Ok(value) => {
                self.note(kind, id, None);
                Some(value)
            }
            Err(error) => {
                self.note(kind, id, Some(&shortened(&error.to_string())));
                None
            }
        }
    }

    /// A row is gone.
    pub(crate) fn forget(&self, kind: &'static str, id: &str) {
        self.note(kind, id, None);
    }

    /// Forgets rows of a kind that are gone.
    fn retain(&self, kind: &'static str, is_there: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, id), _| *of != kind || is_there(id));
    }
}

impl Store {
    /// The records among rows of `id` and `document`: those that cannot be read are noted, and left out.
    pub(crate) fn readable<R: Record>(&self, rows: &[AnyRow]) -> Result<Vec<R>, StoreError> {
        let mut records = Vec::with_capacity(rows.len());
        let mut ids = std::collections::BTreeSet::new();
        for row in rows {
            let (id, text): (&str, &str) = (row.try_get("id")?, row.try_get("document")?);
            match self.noted::<R>(id, text) {
                Ok(record) => records.push(record),
                Err(_) => {
                    ids.insert(id);
                }
            }
        }
        self.unreadable.retain(R::KIND, |id| ids.contains(id));
        Ok(records)
    }

    /// One record; one that cannot be read is noted.
    pub(crate) fn noted<R: Record>(&self, id: &str, text: &str) -> Result<R, StoreError> {
        let read = parse::<R>(text);
        self.unreadable.note(R::KIND, id, read.as_ref().err().map(String::as_str));
        read.map_err(|why| StoreError::Document(R::KIND, format!("`{}`: {why}", shortened(id))))
    }

    /// A record by its id that something rests on: one that cannot be read is noted, and counts as not there.
    pub async fn usable<R: Record>(&self, id: &str) -> Result<Option<R>, StoreError> {
        match self.by_id(id).await {
            Err(StoreError::Document(..)) => Ok(None),
            found => found,
        }
    }

    /// The same by name.
    pub async fn usable_by_name<R: Record>(&self, name: &str) -> Result<Option<R>, StoreError> {
        match self.by_name(name).await {
            Err(StoreError::Document(..)) => Ok(None),
            found => found,
        }
    }

    /// The stored records that could not be read when they were last looked at: kind, id and why.
    pub fn unreadable(&self) -> Vec<(&'static str, String, String)> {
        let all = self.unreadable.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((kind, id), why)| (*kind, id.clone(), why.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Group, User};
    use passavant_proto::{oauth::client::Client, policy::Connection};
    use serde_json::json;

    fn user() -> Value {
        json!({"id": "u", "username": "erin", "email": null, "groups": ["a"], "disabled": false})
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_kept() {
        let mut stored = user();
        stored["nickname"] = json!("E");
        stored["phone"] = json!({"home": [1, 2], "work": null});
        let text = stored.to_string();
        let mut read: User = parse(&text).unwrap();
        assert_eq!(read.username, "erin");
        read.groups.clear();
        read.disabled = true;
        let written: Value = serde_json::from_str(&replacing(&read, &text).unwrap()).unwrap();
        assert_eq!(written["nickname"], "E");
        assert_eq!(written["phone"], json!({"home": [1, 2], "work": null}));
        assert_eq!((&written["groups"], &written["disabled"]), (&json!([]), &json!(true)));
        assert_eq!(parse::<User>(&written.to_string()).unwrap(), read);
    }

    #[test]
    fn what_is_not_known_is_kept_in_parts_too_and_what_is_known_can_be_taken_away() {
        let stored = json!({"id": "c", "idp_client_id": "agent", "audience": "https://as.example",
            "ras_client_id": "x", "resources": ["https://mcp.example"], "scopes": ["read"],
            "subjects": ["everyone"],
            "conditions": {"max_authentication_age": 60, "network": "10.0.0.0/8"}});
        let text = stored.to_string();
        let mut read: Connection = parse(&text).unwrap();
        read.conditions.max_authentication_age = None;
        read.ras_client_id = None;
        let written: Value = serde_json::from_str(&replacing(&read, &text).unwrap()).unwrap();
        assert_eq!(written["conditions"]["network"], "10.0.0.0/8");
        assert!(written["conditions"].get("max_authentication_age").is_none_or(Value::is_null));
        assert_eq!(parse::<Connection>(&written.to_string()).unwrap(), read);
        // Another way to authenticate does not mix with what was unknown of the one before.
        let stored = json!({"id": "c", "name": "C", "redirect_uris": [],
            "authentication": {"private_key_jwt": {"keys": {"fetched": "https://a.example"},
                "algorithm": "ES256", "tls": true}}});
        let text = stored.to_string();
        let mut read: Client = parse(&text).unwrap();
        read.authentication = passavant_proto::oauth::client::ClientAuthentication::Public;
        let written = replacing(&read, &text).unwrap();
        assert_eq!(parse::<Client>(&written).unwrap(), read, "{written}");
    }

    #[test]
    fn what_must_be_known_is_not_passed_over() {
        let mut stored = user();
        stored["crit"] = json!(["only_from"]);
        stored["only_from"] = json!("10.0.0.0/8");
        let error = parse::<User>(&stored.to_string()).unwrap_err();
        assert!(error.contains("`only_from`"), "{error}");
        stored["crit"] = json!([]);
        assert!(parse::<User>(&stored.to_string()).is_ok());
        for broken in ["", "[]", "{", r#"{"name": 1}"#, r#"{"name": "x", "crit": "y"}"#] {
            assert!(parse::<Group>(broken).is_err(), "{broken}");
        }
    }
}
