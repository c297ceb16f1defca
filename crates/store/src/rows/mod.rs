//! Stored documents. They are read tolerantly, written back with the members that this version does
//! not know, and rejected one by one.
//!
//! A row may come from a later version that runs beside this one, or that was rolled back. Members
//! that this version does not know are ignored, and kept when the row is written. A later version
//! lists in [`CRITICAL`] what a reader must not ignore: a row that lists something unknown cannot
//! be used here. A row that cannot be read is reported in the log and to monitoring, is treated as
//! absent by everything that rests on it, and does not affect other rows.
//!
//! A record's stored form and its form in the program are two types. One file for each kind holds
//! the conversions, so renaming or retyping a member in the program does not change what is stored.

mod account;
mod administrator;
mod audit;
mod authentication;
mod authorization_request;
mod authorization_server;
mod client;
mod client_host;
mod connection;
mod governed_resource;
mod installation;
mod let_in;
mod refresh_token;
mod registered_resource;
#[cfg(test)]
mod shapes;
mod transmitter;
mod trusted_issuer;
mod upstream_provider;
mod user;

pub(crate) use audit::{details_of_row, details_row};

use crate::{
    database::{Store, StoreError},
    record::Record,
    unreadable::shortened,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, error::Category, value::RawValue};
use sqlx::{Row, any::AnyRow};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Member of a document that lists what a reader must understand to use the document at all (like
/// `crit` of a JWS, RFC 7515 section 4.1.11). This version understands no such extension.
const CRITICAL: &str = "crit";

/// A value that is stored as a JSON document.
pub trait Stored: Sized {
    /// The stored form. New members have a default; an existing member is never renamed or given
    /// another meaning.
    type Row: Serialize + DeserializeOwned;
    /// For the database.
    fn row(&self) -> Self::Row;
    /// From the database.
    fn of_row(row: Self::Row) -> Self;
}

/// Reads a document; ignores unknown members.
pub(crate) fn parse<T: Stored>(text: &str) -> Result<T, String> {
    parse_row(text).map(T::of_row)
}

/// Reads a document, or the part of it that a row type names.
pub(crate) fn parse_row<R: DeserializeOwned>(text: &str) -> Result<R, String> {
    // The member's name may also be written with escapes.
    if text.contains(CRITICAL) || text.contains('\\') {
        let critical: Critical = read(text)?;
        if let Some(first) = critical.crit.first() {
            let first = shortened(first);
            return Err(format!("it needs `{first}`, which this version does not know"));
        }
    }
    read(text)
}

/// Reads a document. An error says where the problem is, without quoting the text, which may
/// contain a secret.
fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, inner) = (shortened(&error.path().to_string()), error.inner());
        let (line, column) = (inner.line(), inner.column());
        let told = inner.to_string();
        let what = match inner.classify() {
            Category::Data if told.starts_with("missing field") => {
                return shortened(told.split(" at line").next().unwrap_or_default());
            }
            Category::Data if told.starts_with("duplicate field") => "is there twice",
            Category::Data => "is not what this version expects there",
            Category::Eof => "ends too early",
            Category::Syntax | Category::Io => "is no JSON",
        };
        let path = if path == "." { "it".to_owned() } else { format!("`{path}`") };
        format!("{path} {what} (line {line}, column {column})")
    })?;
    reader.end().map_err(|error| {
        format!("something follows it (line {}, column {})", error.line(), error.column())
    })?;
    Ok(read)
}

#[derive(serde::Deserialize)]
struct Critical {
    #[serde(default)]
    crit: Vec<String>,
}

/// An object whose values stay text: values that are not looked at stay as they were written,
/// whatever their depth, length or form.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The document of a record that replaces the stored document `before`. It keeps members that this
/// version does not know, byte for byte. Fails if they cannot be kept.
pub(crate) fn replacing<T: Stored>(
    record: &T,
    before: &str,
    kind: &'static str,
) -> Result<String, StoreError> {
    let broken = |why: String| StoreError::Document(kind, why);
    let odd = |error: serde_json::Error| broken(error.to_string());
    let new = to_text(record).map_err(broken)?;
    // A document that nobody can read is replaced as a whole.
    let Ok(known) = parse::<T>(before) else { return Ok(new) };
    let known = to_text(&known).map_err(broken)?;
    let fits = |text: &str| {
        parse::<T>(text).is_ok_and(|read| to_text(&read).is_ok_and(|read| same(&read, &new)))
    };
    let whole = merged(before, &known, &new).map_err(broken)?;
    if fits(&whole) {
        return Ok(whole);
    }
    // A member whose unknown parts do not fit the record as it is now loses them alone.
    let (stored, known, members): (Members<'_>, Members<'_>, Members<'_>) = (
        serde_json::from_str(before).map_err(odd)?,
        serde_json::from_str(&known).map_err(odd)?,
        serde_json::from_str(&new).map_err(odd)?,
    );
    let mut parts: BTreeMap<&str, String> =
        members.iter().map(|(name, value)| (name.as_str(), value.get().to_owned())).collect();
    for (name, value) in stored.iter().filter(|(name, _)| !known.contains_key(*name)) {
        parts.entry(name).or_insert_with(|| value.get().to_owned());
    }
    if !fits(&as_object(&parts)) {
        return Ok(new);
    }
    for (name, value) in &members {
        let Some((stored, known)) = stored.get(name).zip(known.get(name)) else { continue };
        let with = merged(stored.get(), known.get(), value.get()).map_err(broken)?;
        let without = parts.insert(name, with);
        if !fits(&as_object(&parts)) {
            parts.extend(without.map(|without| (name.as_str(), without)));
        }
    }
    Ok(as_object(&parts))
}

fn as_object(parts: &BTreeMap<&str, String>) -> String {
    let parts = parts.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name)));
    format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
}

fn to_text<T: Stored>(value: &T) -> Result<String, String> {
    serde_json::to_string(&value.row()).map_err(|error| error.to_string())
}

/// Whether two JSON texts have equal values.
fn same(one: &str, other: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || value(one).is_some_and(|held| Some(held) == value(other))
}

/// `new`, plus everything of `stored` that is missing in `known`, the form in which this version
/// reads `stored`: members of objects at any depth, also in unchanged items of lists.
fn merged(stored: &str, known: &str, new: &str) -> Result<String, String> {
    let odd = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        format!("what a later version wrote cannot be kept (line {line}, column {column})")
    };
    // What an act does not change stays as it was written, even if this version writes it
    // differently.
    if same(known, new) {
        return Ok(stored.to_owned());
    }
    let is = |text: &str, letter: char| text.trim_start().starts_with(letter);
    if is(stored, '{') && is(known, '{') && is(new, '{') {
        let (stored, known, new): (Members<'_>, Members<'_>, Members<'_>) = (
            serde_json::from_str(stored).map_err(odd)?,
            serde_json::from_str(known).map_err(odd)?,
            serde_json::from_str(new).map_err(odd)?,
        );
        let mut members: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &new {
            let both = stored.get(name).zip(known.get(name));
            let text = match both {
                Some((stored, known)) => merged(stored.get(), known.get(), value.get())?,
                None => value.get().to_owned(),
            };
            members.insert(name, text);
        }
        for (name, value) in stored.iter().filter(|(name, _)| !known.contains_key(*name)) {
            members.entry(name).or_insert_with(|| value.get().to_owned());
        }
        return Ok(as_object(&members));
    }
    if is(stored, '[') && is(known, '[') && is(new, '[') {
        let (stored, known, new): (Vec<&RawValue>, Vec<&RawValue>, Vec<&RawValue>) = (
            serde_json::from_str(stored).map_err(odd)?,
            serde_json::from_str(known).map_err(odd)?,
            serde_json::from_str(new).map_err(odd)?,
        );
        let mut pairs = pairs(stored, known);
        let items = new.iter().map(|item| {
            let found = pairs.values.get_mut(&canonical(item.get())).and_then(VecDeque::pop_front);
            if let Some((stored, _)) = found {
                return Ok(stored.get().to_owned());
            }
            match identity(item.get()).and_then(|hash| pairs.by_identity.get(&hash)) {
                Some((stored, known)) => merged(stored.get(), known.get(), item.get()),
                None => Ok(item.get().to_owned()),
            }
        });
        return Ok(format!("[{}]", items.collect::<Result<Vec<_>, String>>()?.join(",")));
    }
    Ok(new.to_owned())
}

/// Items of a list as they are stored, beside how this version reads them.
struct Pairs<'t> {
    /// By the value that this version reads.
    values: HashMap<String, VecDeque<Pair<'t>>>,
    /// By the member that tells one item from another, where they have one.
    by_identity: HashMap<String, Pair<'t>>,
}

type Pair<'t> = (&'t RawValue, &'t RawValue);

/// Pairs equal values wherever they are, because a set may be stored in any order. Of the rest the
/// places count, if there are as many.
fn pairs<'t>(stored: Vec<&'t RawValue>, known: Vec<&'t RawValue>) -> Pairs<'t> {
    let mut places: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (place, item) in stored.iter().enumerate() {
        places.entry(canonical(item.get())).or_default().push_back(place);
    }
    let mut free: Vec<Option<&RawValue>> = stored.into_iter().map(Some).collect();
    let (mut all, mut rest) = (Vec::new(), Vec::new());
    for item in known {
        let place = places.get_mut(&canonical(item.get())).and_then(VecDeque::pop_front);
        match place.and_then(|place| free[place].take()) {
            Some(stored) => all.push((stored, item)),
            None => rest.push(item),
        }
    }
    let free: Vec<&RawValue> = free.into_iter().flatten().collect();
    if free.len() == rest.len() {
        all.extend(free.into_iter().zip(rest));
    }
    let mut pairs = Pairs { values: HashMap::new(), by_identity: HashMap::new() };
    for pair in all {
        if let Some(identity) = identity(pair.1.get()) {
            pairs.by_identity.insert(identity, pair);
        }
        pairs.values.entry(canonical(pair.1.get())).or_default().push_back(pair);
    }
    pairs
}

/// One text for all spellings of a value.
fn canonical(text: &str) -> String {
    serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

/// What tells an item of a list from the others even after a change of it: the hash of a secret.
fn identity(item: &str) -> Option<String> {
    let members: Members<'_> = serde_json::from_str(item).ok()?;
    Some(members.get("hash")?.get().to_owned())
}

/// A document without one text in the list of texts that is its member `member`; the rest stays as
/// it was written. `None` if that is not possible.
pub(crate) fn without(text: &str, member: &str, gone: &str) -> Option<String> {
    let members: Members<'_> = serde_json::from_str(text).ok()?;
    let mut texts: Vec<String> = serde_json::from_str(members.get(member)?.get()).ok()?;
    texts.retain(|held| held != gone);
    let mut parts: BTreeMap<&str, String> =
        members.iter().map(|(name, value)| (name.as_str(), value.get().to_owned())).collect();
    parts.insert(member, Value::from(texts).to_string());
    Some(as_object(&parts))
}

/// Whether a document that cannot be read may name something. One that is not even JSON may.
pub(crate) fn may_name(text: &str, named: &str) -> bool {
    fn names(value: &Value, named: &str) -> bool {
        match value {
            Value::String(text) => text == named,
            Value::Array(items) => items.iter().any(|item| names(item, named)),
            Value::Object(members) => members.values().any(|value| names(value, named)),
            _ => false,
        }
    }
    serde_json::from_str::<Value>(text).map_or(true, |value| names(&value, named))
}

/// Every record of a kind: those that can be read, and those that cannot.
#[derive(Debug)]
pub struct Readings<R> {
    /// The records that this version can read.
    pub records: Vec<R>,
    /// The others: their ids, and their documents if they are JSON at all.
    pub unreadable: Vec<(String, Option<Value>)>,
}

/// The text of a document. Something other than this program may have damaged it.
pub(crate) fn text_of<'r>(row: &'r AnyRow, column: &str) -> Result<&'r str, StoreError> {
    // Invalid UTF-8 becomes an empty text, which is not a valid document either.
    Ok(std::str::from_utf8(row.try_get(column)?).unwrap_or_default())
}

/// A record by the id of its row. A document with another id is refused: an act on it would change
/// that other record.
fn parse_own<R: Record>(id: &str, text: &str) -> Result<R, String> {
    parse::<R>(text).and_then(|record| match record.id() {
        own if own == id => Ok(record),
        _ => Err("its document names another record".to_owned()),
    })
}

/// The record in a row of `id` and `document`.
pub(crate) fn record<R: Record>(row: &AnyRow) -> Result<R, StoreError> {
    let (id, text): (&str, &str) = (row.try_get("id")?, row.try_get("document")?);
    parse_own(id, text)
        .map_err(|why| StoreError::Document(R::KIND, format!("`{}`: {why}", shortened(id))))
}

impl Store {
    /// Reads the records of rows of `id` and `document`, the latter as bytes. Those that cannot be
    /// read are noted.
    pub(crate) fn readable<R: Record>(&self, rows: &[AnyRow]) -> Result<Readings<R>, StoreError> {
        let mut readings =
            Readings { records: Vec::with_capacity(rows.len()), unreadable: Vec::new() };
        for row in rows {
            let (id, text): (&str, &str) = (row.try_get("id")?, text_of(row, "document")?);
            match self.noted::<R>(id, text) {
                Ok(record) => readings.records.push(record),
                Err(_) => {
                    readings.unreadable.push((id.to_owned(), serde_json::from_str(text).ok()));
                }
            }
        }
        let ids: BTreeSet<&str> = readings.unreadable.iter().map(|(id, _)| id.as_str()).collect();
        self.unreadable.retain(R::KIND, |id| ids.contains(id));
        Ok(readings)
    }

    /// Reads one record; one that cannot be read is noted. The id in the document must be the
    /// row's: otherwise an act would change another record.
    pub(crate) fn noted<R: Record>(&self, id: &str, text: &str) -> Result<R, StoreError> {
        let read = parse_own::<R>(id, text);
        self.unreadable.note(R::KIND, id, read.as_ref().err().map(String::as_str));
        read.map_err(|why| StoreError::Document(R::KIND, format!("`{}`: {why}", shortened(id))))
    }

    /// A record, by id, that something rests on. One that cannot be read is noted and treated as
    /// absent.
    pub async fn usable<R: Record>(&self, id: &str) -> Result<Option<R>, StoreError> {
        match self.by_id(id).await {
            Err(StoreError::Document(..)) => Ok(None),
            found => found,
        }
    }

    /// A record, by name, that something rests on. One that cannot be read is noted and treated as
    /// absent.
    pub async fn usable_by_name<R: Record>(&self, name: &str) -> Result<Option<R>, StoreError> {
        match self.by_name(name).await {
            Err(StoreError::Document(..)) => Ok(None),
            found => found,
        }
    }

    /// The result of reading a row of another table. One that cannot be read is noted and treated
    /// as absent.
    pub(crate) fn row<T>(
        &self,
        kind: &'static str,
        id: &str,
        read: Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match read {
            Err(StoreError::Document(_, why)) => {
                self.note_unreadable(kind, id, &why);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Forgets which rows could not be read, until each is read again.
    pub fn forget_unreadable(&self) {
        self.unreadable.forget_all();
    }

    /// Notes that a row of another table cannot be read.
    pub fn note_unreadable(&self, kind: &'static str, id: &str, why: &str) {
        self.unreadable.note(kind, id, Some(&shortened(why)));
    }

    /// The stored records that could not be read at the last attempt: kind, id and why.
    pub fn unreadable(&self) -> Vec<(&'static str, String, String)> {
        self.unreadable.all()
    }
}

/// Reads a JSON column.
pub(crate) fn document<T: Stored>(
    row: &AnyRow,
    column: &str,
    kind: &'static str,
) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    parse(text).map_err(|why| StoreError::Document(kind, why))
}

/// Writes a JSON column.
pub(crate) fn to_json<T: Stored>(value: &T, kind: &'static str) -> Result<String, StoreError> {
    to_text(value).map_err(|why| StoreError::Document(kind, why))
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
        read.disabled_here = true;
        let written: Value =
            serde_json::from_str(&replacing(&read, &text, "record").unwrap()).unwrap();
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
        let written: Value =
            serde_json::from_str(&replacing(&read, &text, "record").unwrap()).unwrap();
        assert_eq!(written["conditions"]["network"], "10.0.0.0/8");
        assert!(written["conditions"].get("max_authentication_age").is_none_or(Value::is_null));
        assert_eq!(parse::<Connection>(&written.to_string()).unwrap(), read);
        // Unknown members of the earlier authentication method do not appear in the new one.
        let stored = json!({"id": "c", "name": "C", "redirect_uris": [],
            "authentication": {"private_key_jwt": {"keys": {"fetched": "https://a.example"},
                "algorithm": "ES256", "tls": true}}});
        let text = stored.to_string();
        let mut read: Client = parse(&text).unwrap();
        read.authentication = passavant_proto::oauth::client::ClientAuthentication::Public;
        let written = replacing(&read, &text, "record").unwrap();
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

    #[test]
    fn what_is_not_known_is_kept_as_it_was_written() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for odd in [
            deep.as_str(),
            "1e999",
            "\"\\ud800\"",
            "123456789012345678901234567890",
            "18446744073709551617",
            "-0",
            "1e2",
            "0.1000000000000000055511151231257827",
        ] {
            let text = format!(
                r#"{{"id":"u","username":"erin","groups":["a"],"odd":{odd},"only_from":"10.0.0.0/8"}}"#
            );
            let mut read: User = parse(&text).unwrap();
            read.disabled_here = true;
            let written = replacing(&read, &text, "record").unwrap();
            assert!(written.contains(&format!("\"odd\":{odd}")), "{written}");
            assert!(written.contains("\"only_from\":\"10.0.0.0/8\""), "{written}");
            assert!(parse::<User>(&written).unwrap().disabled_here);
        }
    }

    /// While a build with another name runs beside this one, a connection keeps its meaning.
    #[test]
    fn what_an_act_does_not_change_stays_in_the_spelling_it_had() {
        let before = passavant_proto::formerly::NAME;
        let text = format!(
            r#"{{"id":"c","idp_client_id":"{before}","audience":"https://as.example","resources":[],"conditions":{{"acr_values":["urn:{before}:acr:password"]}}}}"#
        );
        let mut read: Connection = parse(&text).unwrap();
        assert_eq!(read.idp_client_id, passavant_proto::oauth::client::ENROLLED_CLIENT);
        read.disabled = true;
        let written = replacing(&read, &text, "record").unwrap();
        assert_eq!(written.matches(before).count(), 2, "{written}");
        assert_eq!(parse::<Connection>(&written).unwrap(), read);
    }

    #[test]
    fn items_of_lists_keep_what_is_not_known_of_them() {
        let text = r#"{"id":"c","name":"C","redirect_uris":[],"authentication":{"secret":[{"hash":"one","expires":null,"only_from":"10/8"},{"hash":"two","expires":5,"note":1}]}}"#;
        let mut read: Client = parse(text).unwrap();
        let passavant_proto::oauth::client::ClientAuthentication::Secret(hashes) =
            &mut read.authentication
        else {
            panic!("a secret")
        };
        let mut new = hashes[0].clone();
        new.hash = "three".to_owned();
        hashes.remove(1);
        hashes.insert(0, new);
        let written = replacing(&read, text, "record").unwrap();
        assert!(
            written.contains(r#"{"hash":"one","expires":null,"only_from":"10/8"}"#),
            "{written}"
        );
        assert!(!written.contains("two") && !written.contains("note"), "{written}");
        assert_eq!(parse::<Client>(&written).unwrap(), read);
    }

    #[test]
    fn what_is_not_known_is_kept_however_a_set_is_stored() {
        let text = r#"{"id":"u","username":"erin","groups":["z","b","a","b"],"note":1e2,"disabled":false}"#;
        let mut read: User = parse(text).unwrap();
        read.groups.remove("b");
        let written = replacing(&read, text, "user").unwrap();
        assert!(written.contains(r#""note":1e2"#), "{written}");
        assert_eq!(parse::<User>(&written).unwrap(), read);
        read.display_name = Some("E".to_owned());
        let written = replacing(&read, text, "user").unwrap();
        assert!(written.contains(r#""note":1e2"#), "{written}");
        assert_eq!(parse::<User>(&written).unwrap(), read);
        let text = r#"{"id":"c","idp_client_id":"a","audience":"https://as.example","resources":[],"scopes":["w","r"],"conditions":{"acr_values":["b","a"],"network":"10/8"},"note":"n"}"#;
        let mut read: Connection = parse(text).unwrap();
        read.disabled = true;
        read.conditions.acr_values.reverse();
        let written = replacing(&read, text, "connection").unwrap();
        assert!(written.contains("10/8") && written.contains(r#""note":"n""#), "{written}");
        assert_eq!(parse::<Connection>(&written).unwrap(), read);
    }

    #[test]
    fn a_secret_that_is_given_an_end_keeps_what_is_not_known_of_it() {
        let text = r#"{"id":"c","name":"C","authentication":{"secret":[{"hash":"one","expires":null,"only_from":"10/8"}]},"note":1}"#;
        let mut read: Client = parse(text).unwrap();
        let passavant_proto::oauth::client::ClientAuthentication::Secret(hashes) =
            &mut read.authentication
        else {
            panic!("a secret")
        };
        let mut new = hashes[0].clone();
        new.hash = "two".to_owned();
        hashes[0].expires = Some(passavant_proto::time::Timestamp(5));
        hashes.insert(0, new);
        let written = replacing(&read, text, "client").unwrap();
        let held = r#"{"expires":5,"hash":"one","only_from":"10/8"}"#;
        assert!(written.contains(held) && written.matches("only_from").count() == 1, "{written}");
        assert_eq!(parse::<Client>(&written).unwrap(), read);
    }

    #[test]
    fn why_it_cannot_be_read_says_where_and_not_what_is_there() {
        for (text, path) in [
            (r#"{"id":"u","username":"erin","groups":"$argon2id$SECRET"}"#, "groups"),
            (r#"{"id":"u","username":{"SECRET":1}}"#, "username"),
            (r#"{"id":"u","username":"erin","disabled":"SECRET"}"#, "disabled"),
        ] {
            let why = parse::<User>(text).unwrap_err();
            assert!(why.contains(&format!("`{path}`")) && !why.contains("SECRET"), "{why}");
        }
        let client = r#"{"id":"c","name":"C","authentication":{"SECRET":[]}}"#;
        let why = parse::<Client>(client).unwrap_err();
        assert!(why.contains("authentication") && !why.contains("SECRET"), "{why}");
        assert!(parse::<User>(r#"{"id":"u"}"#).unwrap_err().contains("missing field `username`"));
        assert!(parse::<User>(r#"{"id":"u","username":"e"} SECRET"#).is_err());
        // Even if the name is written with escapes.
        let spelled = r#"{"id":"u","username":"e","\u0063rit":["later"]}"#;
        assert!(parse::<User>(spelled).unwrap_err().contains("`later`"));
    }
}
