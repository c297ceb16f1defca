//! PATCH (RFC 7644, section 3.5.2), with the dialects that provisioners really send: operations in any
//! letter case, no path and names with dots or schemas as members, values that are a list, booleans as
//! text, `remove` with a list of values, a value that is made where a filter finds none.

use super::{
    attributes::{self, Attribute, Holds, Kind, Place, find, kept, part, several},
    error::ScimError,
    filter::{LONGEST, equals_one_of, fits_value, said_of_new, unreadable},
};
use passavant_proto::others_text::shown;
use passavant_store::MemberChange;
use scim_v2::filter::{PatchPath, ValFilter};
use serde_json::{Map, Value};

/// The most operations of one request.
const MOST: usize = 1000;

/// The most members that one request names.
pub(super) const MOST_MEMBERS: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Replace,
    Remove,
}

/// A path, with its names as they are kept.
struct Path {
    place: Place,
    name: String,
    filter: Option<ValFilter>,
    sub: Option<String>,
}

fn path(kind: Kind, text: &str) -> Result<Path, ScimError> {
    if text.len() > LONGEST {
        return Err(ScimError::path(format!("the path is longer than {LONGEST} bytes")));
    }
    if kind == Kind::User && text.eq_ignore_ascii_case(attributes::ENTERPRISE) {
        let name = attributes::ENTERPRISE.to_owned();
        return Ok(Path { place: Place::Extension, name, filter: None, sub: None });
    }
    // A schema of somebody's own, as a whole.
    let is_schema = text.to_ascii_lowercase().starts_with("urn:") && !text.contains('[');
    let parsed: PatchPath = match text.parse() {
        Ok(parsed) => parsed,
        Err(_) if is_schema => {
            let name = text.to_owned();
            return Ok(Path { place: Place::NotKept, name, filter: None, sub: None });
        }
        Err(error) => return Err(ScimError::path(unreadable(text, error))),
    };
    let (attr, filter, sub) = match parsed {
        PatchPath::Attr(attr) => (attr, None, None),
        PatchPath::Value(value) => (value.attr, Some(value.filter), value.sub_attr),
    };
    let place = find(kind, attr.uri.as_deref(), &attr.name);
    let sub = sub.or(attr.sub_attr);
    Ok(Path { place, name: attr.name, filter, sub })
}

/// The operations of a request.
fn operations(body: &Value) -> Result<&Vec<Value>, ScimError> {
    let body = body.as_object().ok_or_else(|| ScimError::syntax("the body must be an object"))?;
    let operations = body.iter().find(|(name, _)| name.eq_ignore_ascii_case("Operations"));
    let operations = operations.and_then(|(_, all)| all.as_array());
    let operations = operations
        .filter(|all| !all.is_empty())
        .ok_or_else(|| ScimError::syntax("`Operations` must be a list of one operation or more"))?;
    if operations.len() > MOST {
        return Err(ScimError::too_many(format!("more than {MOST} operations in one request")));
    }
    Ok(operations)
}

/// What a request does to a resource.
pub(super) struct Patch {
    kind: Kind,
    operations: Vec<(Op, Option<String>, Value)>,
}

impl Patch {
    /// Reads a request.
    pub(super) fn read(kind: Kind, body: &Value) -> Result<Self, ScimError> {
        let mut read = Vec::new();
        for operation in operations(body)? {
            let member = |name: &str| {
                let members = operation.as_object()?;
                members.iter().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, v)| v)
            };
            let op = member("op").and_then(Value::as_str).unwrap_or_default();
            let op = match op.to_ascii_lowercase().as_str() {
                "add" => Op::Add,
                "replace" => Op::Replace,
                "remove" => Op::Remove,
                _ => {
                    return Err(ScimError::syntax(format!(
                        "`op`: `{}` is not add, replace or remove",
                        shown(op, 50)
                    )));
                }
            };
            let path = match member("path") {
                None | Some(Value::Null) => None,
                Some(Value::String(path)) if path.trim().is_empty() => None,
                Some(Value::String(path)) => Some(path.clone()),
                Some(_) => return Err(ScimError::path("`path` must be a text")),
            };
            if op == Op::Remove && path.is_none() {
                let detail = "`remove` needs a `path`";
                return Err(ScimError { scim_type: Some("noTarget"), ..ScimError::path(detail) });
            }
            read.push((op, path, member("value").cloned().unwrap_or(Value::Null)));
        }
        Ok(Self { kind, operations: read })
    }

    /// Applies it to a resource as it is kept. Returns what becomes of a group's members.
    pub(super) fn apply(
        &self,
        id: &str,
        held: &mut Map<String, Value>,
    ) -> Result<MemberChange, ScimError> {
        let mut members = MemberChange::default();
        for (op, at, value) in &self.operations {
            match at {
                Some(text) => {
                    let path = path(self.kind, text)?;
                    self.one(*op, &path, value, held, &mut members, true)?;
                }
                None => self.without_path(*op, id, value, held, &mut members)?,
            }
        }
        if members.named() > MOST_MEMBERS {
            return Err(ScimError::too_many(format!(
                "more than {MOST_MEMBERS} members in one request"
            )));
        }
        Ok(members)
    }

    /// Each member of the value is a path.
    fn without_path(
        &self,
        op: Op,
        id: &str,
        value: &Value,
        held: &mut Map<String, Value>,
        members: &mut MemberChange,
    ) -> Result<(), ScimError> {
        let Value::Object(said) = value else {
            return Err(ScimError::syntax("without a `path`, `value` must be an object"));
        };
        let mut names: Vec<String> = said.keys().map(|name| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|two| two.first() == two.last()) {
            return Err(ScimError::syntax(format!(
                "`{}` occurs twice",
                shown(&twice.concat(), 200)
            )));
        }
        for (name, value) in said {
            // Okta repeats them in the value.
            let repeats = name.eq_ignore_ascii_case("id") && value == id;
            if repeats || name.eq_ignore_ascii_case("schemas") {
                continue;
            }
            let path = path(self.kind, name)?;
            self.one(op, &path, value, held, members, false)?;
        }
        Ok(())
    }

    fn one(
        &self,
        op: Op,
        path: &Path,
        value: &Value,
        held: &mut Map<String, Value>,
        members: &mut MemberChange,
        named: bool,
    ) -> Result<(), ScimError> {
        let says_nothing = match value {
            Value::Null => op != Op::Remove,
            Value::Array(values) => values.is_empty(),
            _ => false,
        };
        match path.place {
            Place::Kept(attribute, false)
                if self.kind == Kind::Group && attribute.name == attributes::MEMBERS =>
            {
                change_members(op, path, value, members)
            }
            Place::Kept(attribute, false) => change(op, path, attribute, value, held),
            Place::Kept(attribute, true) => {
                extension(held, |extension| change(op, path, attribute, value, extension))
            }
            Place::Extension => whole_extension(self.kind, op, value, held),
            // A provisioner that says that there are none changes nothing.
            Place::NotTheirs if says_nothing && !named => Ok(()),
            Place::NotTheirs | Place::Own(_) => Err(ScimError::mutability(&shown(&path.name, 100))),
            Place::NotKept => Ok(()),
            // What nobody names by a path is passed over, as in a whole resource.
            Place::Unknown if !named => Ok(()),
            Place::Unknown => Err(ScimError::path(format!(
                "there is no attribute `{}`: /Schemas lists them",
                shown(&path.name, 200)
            ))),
        }
    }
}

/// Changes the enterprise extension; an empty one is none.
fn extension(
    held: &mut Map<String, Value>,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), ScimError>,
) -> Result<(), ScimError> {
    let mut inner = match held.remove(attributes::ENTERPRISE) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    };
    let done = change(&mut inner);
    if !inner.is_empty() {
        held.insert(attributes::ENTERPRISE.to_owned(), Value::Object(inner));
    }
    done
}

fn whole_extension(
    kind: Kind,
    op: Op,
    value: &Value,
    held: &mut Map<String, Value>,
) -> Result<(), ScimError> {
    if op == Op::Remove || value.is_null() {
        held.remove(attributes::ENTERPRISE);
        return Ok(());
    }
    let Value::Object(said) = value else {
        return Err(ScimError::value(format!("`{}` must be an object", attributes::ENTERPRISE)));
    };
    extension(held, |inner| {
        for (name, value) in said {
            let place = find(kind, Some(attributes::ENTERPRISE), name);
            let Place::Kept(attribute, _) = place else { continue };
            match kept(attribute, value)? {
                Some(value) => inner.insert(attribute.name.to_owned(), value),
                None => inner.remove(attribute.name),
            };
        }
        Ok(())
    })
}

fn no_such_part(name: &str) -> ScimError {
    ScimError::path(format!("there is no sub-attribute `{}`", shown(name, 200)))
}

/// Changes one attribute.
fn change(
    op: Op,
    path: &Path,
    attribute: &'static Attribute,
    value: &Value,
    held: &mut Map<String, Value>,
) -> Result<(), ScimError> {
    match attribute.holds {
        Holds::Several(parts) => change_several(op, path, (attribute, parts), value, held),
        Holds::Parts(parts) => {
            if path.filter.is_some() {
                return Err(ScimError::path(format!("`{}` has one value", attribute.name)));
            }
            let mut inner = match held.remove(attribute.name) {
                Some(Value::Object(inner)) => inner,
                _ => Map::new(),
            };
            if let Some(sub) = &path.sub {
                let part = part(parts, sub).ok_or_else(|| no_such_part(sub))?;
                put(op, part, value, &mut inner)?;
            } else if op == Op::Remove || value.is_null() {
                inner.clear();
            } else if let Some(Value::Object(said)) = kept(attribute, value)? {
                // What is not said stays (RFC 7644, section 3.5.2.3).
                inner.extend(said);
            }
            if !inner.is_empty() {
                held.insert(attribute.name.to_owned(), Value::Object(inner));
            }
            Ok(())
        }
        _ if path.filter.is_some() || path.sub.is_some() => {
            Err(ScimError::path(format!("`{}` has no parts", attribute.name)))
        }
        _ => put(op, attribute, value, held),
    }
}

fn put(
    op: Op,
    attribute: &Attribute,
    value: &Value,
    held: &mut Map<String, Value>,
) -> Result<(), ScimError> {
    let value = if op == Op::Remove { None } else { kept(attribute, single(value))? };
    match value {
        Some(value) => held.insert(attribute.name.to_owned(), value),
        None => held.remove(attribute.name),
    };
    Ok(())
}

/// The one value of a list of one, as some clients send it.
fn single(value: &Value) -> &Value {
    match value {
        Value::Array(values) if values.len() == 1 => values[0].get("value").unwrap_or(&values[0]),
        value => value,
    }
}

fn change_several(
    op: Op,
    path: &Path,
    (attribute, parts): (&'static Attribute, &'static [Attribute]),
    value: &Value,
    held: &mut Map<String, Value>,
) -> Result<(), ScimError> {
    let mut all = match held.remove(attribute.name) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    };
    let said = |value: &Value| -> Result<Vec<Value>, ScimError> {
        Ok(match kept(attribute, value)? {
            Some(Value::Array(values)) => values,
            _ => Vec::new(),
        })
    };
    let sub = match &path.sub {
        Some(sub) => Some(part(parts, sub).ok_or_else(|| no_such_part(sub))?),
        None => None,
    };
    match (op, &path.filter, sub) {
        (Op::Remove, None, None) => match value {
            // The dialect that names what is to go in the value.
            Value::Array(_) | Value::Object(_) => {
                let gone = said(value)?;
                all.retain(|held| !gone.iter().any(|gone| gone["value"] == held["value"]));
            }
            _ => all.clear(),
        },
        (Op::Remove, Some(filter), None) => all.retain(|held| !fits_value(filter, held)),
        (Op::Remove, filter, Some(part)) => {
            for held in all.iter_mut().filter(|held| matches(filter.as_ref(), held)) {
                if let Value::Object(held) = held {
                    held.remove(part.name);
                }
            }
            all.retain(|held| !held["value"].is_null());
        }
        (Op::Add, None, None) => {
            for value in said(value)? {
                if !all.contains(&value) {
                    all.retain(|held| {
                        held["value"] != value["value"] || held["type"] != value["type"]
                    });
                    all.push(value);
                }
            }
        }
        (Op::Replace, None, None) => all = said(value)?,
        (_, filter, sub) => {
            let set = |held: &mut Map<String, Value>| match sub {
                Some(part) => put(Op::Replace, part, value, held),
                None => match single_object(value) {
                    Some(said) => {
                        for (name, value) in said {
                            let Some(part) = part(parts, name) else { continue };
                            put(Op::Replace, part, value, held)?;
                        }
                        Ok(())
                    }
                    None => {
                        Err(ScimError::value(format!("`{}` must be an object", attribute.name)))
                    }
                },
            };
            let mut found = false;
            for held in all.iter_mut().filter(|held| matches(filter.as_ref(), held)) {
                if let Value::Object(held) = held {
                    found = true;
                    set(held)?;
                }
            }
            if !found {
                let mut new = Map::new();
                for (name, value) in
                    filter.as_ref().map_or(Some(Vec::new()), said_of_new).unwrap_or_default()
                {
                    if let Some(part) = part(parts, &name)
                        && let Some(value) = kept(part, &value)?
                    {
                        new.insert(part.name.to_owned(), value);
                    }
                }
                set(&mut new)?;
                if new.contains_key("value") {
                    all.push(Value::Object(new));
                }
            }
            all.retain(|held| !held["value"].is_null());
        }
    }
    one_primary(value, &mut all);
    if let Some(values) = several(attribute, all)? {
        held.insert(attribute.name.to_owned(), values);
    }
    Ok(())
}

/// The primary one is the one that was said last.
fn one_primary(value: &Value, all: &mut [Value]) {
    let newest = match value {
        Value::Array(values) => values.last(),
        value => Some(value),
    };
    if let Some(address) = newest.and_then(|value| value["value"].as_str())
        && newest.is_some_and(|value| value["primary"] == true)
    {
        for held in all.iter_mut().filter(|held| held["value"] != address) {
            if held["primary"] == true {
                held["primary"] = false.into();
            }
        }
    }
}

fn matches(filter: Option<&ValFilter>, held: &Value) -> bool {
    filter.is_none_or(|filter| fits_value(filter, held))
}

fn single_object(value: &Value) -> Option<&Map<String, Value>> {
    match value {
        Value::Array(values) if values.len() == 1 => values[0].as_object(),
        value => value.as_object(),
    }
}

/// The ids that a value names: texts, or objects with `value`.
pub(super) fn ids(value: &Value) -> Result<Vec<String>, ScimError> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    let id = |value: &Value| {
        let id = value.as_str().or_else(|| value["value"].as_str());
        id.filter(|id| (1..=255).contains(&id.len())).map(str::to_owned).ok_or_else(|| {
            ScimError::value(
                "`members` must be a list of objects with a `value`, the id of a person",
            )
        })
    };
    values.iter().filter(|value| !value.is_null()).map(id).collect()
}

fn change_members(
    op: Op,
    path: &Path,
    value: &Value,
    members: &mut MemberChange,
) -> Result<(), ScimError> {
    if path.sub.is_some() {
        return Err(ScimError::mutability("members"));
    }
    match (op, &path.filter) {
        (Op::Add, None) => members.add(ids(value)?),
        (Op::Replace, None) => members.replace(ids(value)?),
        (Op::Remove, None) => match value {
            // Entra names what is to go in the value; without one, everybody goes.
            Value::Null => members.replace([]),
            value => members.remove(ids(value)?),
        },
        (Op::Remove, Some(filter)) => match equals_one_of(filter, "value") {
            Some(ids) => members.remove(ids),
            None => {
                return Err(ScimError::filter(
                    "members are named by `value eq \"ID\"`, several with `or`",
                ));
            }
        },
        (Op::Add | Op::Replace, Some(_)) => return Err(ScimError::mutability("members")),
    }
    Ok(())
}
