//! Filters (RFC 7644, section 3.4.2.2): parsed by `scim_v2`, which bounds depth and terms, and
//! evaluated on a resource as it is shown.

use super::{
    attributes::{self, Attribute, Holds, Kind, Place, part},
    error::ScimError,
};
use passavant_authority::passwords::normal_username;
use passavant_proto::others_text::shown;
use scim_v2::filter::{AttrExp, AttrPath, CompValue, CompareOp, Filter, ValFilter};
use serde_json::Value;

/// The longest filter or path, in bytes.
pub(super) const LONGEST: usize = 2048;

/// A filter whose attributes are all known.
pub(super) struct Wanted {
    filter: Filter,
    kind: Kind,
}

/// What a filter asks for by an index, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Id(String),
    /// User name, or a group's display name.
    Name(String),
    External(String),
}

/// Why a text is no filter or path.
pub(super) fn unreadable(text: &str, error: impl std::fmt::Display) -> String {
    format!("`{}`: {}", shown(text, 200), shown(&error.to_string(), 300))
}

impl Wanted {
    pub(super) fn parse(kind: Kind, text: &str) -> Result<Self, ScimError> {
        if text.len() > LONGEST {
            return Err(ScimError::filter(format!("the filter is longer than {LONGEST} bytes")));
        }
        let filter: Filter =
            as_written(text).parse().map_err(|error| ScimError::filter(unreadable(text, error)))?;
        check(kind, &filter)?;
        Ok(Self { filter, kind })
    }

    /// Whether it fits a resource.
    pub(super) fn fits(&self, resource: &Value) -> bool {
        fits(self.kind, &self.filter, resource)
    }

    /// What it asks for by an index: everything that fits is among what that finds.
    pub(super) fn key(&self) -> Option<Key> {
        key(self.kind, &self.filter)
    }

    /// Whether it asks about members of groups.
    pub(super) fn asks_for_members(&self) -> bool {
        self.kind == Kind::Group && mentions(&self.filter, "members")
    }
}

/// A filter in the grammar of the standard, where a provisioner wrote it in another: values without
/// quotes, `True`, `not(`, and `emails[type eq "work"].value eq "…"`, all of which Entra documents.
fn as_written(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    // Where what stands in brackets begins, and whether a comparison of one of its parts follows.
    let (mut inside, mut open) = (None, false);
    let mut words = Words(text);
    let mut before = "";
    while let Some(word) = words.next() {
        let is_value = ["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"]
            .iter()
            .any(|op| before.eq_ignore_ascii_case(op));
        match word {
            "[" => {
                out.push('[');
                inside = Some(out.len());
            }
            "]" if words.0.starts_with('.') && inside.is_some() => {
                // What follows is asked of the same value.
                words.0 = &words.0[1..];
                out.insert(inside.take().unwrap_or_default(), '(');
                out.push_str(") and ");
                open = true;
            }
            word if is_value && !word.starts_with(['"', ' ', '(', ')', '[', ']']) => {
                let lower = word.to_ascii_lowercase();
                let is_known = matches!(lower.as_str(), "true" | "false" | "null");
                if is_known || word.parse::<f64>().is_ok() {
                    out.push_str(&lower);
                } else {
                    out.push_str(&Value::from(word).to_string());
                }
            }
            "(" if before.eq_ignore_ascii_case("not") => out.push_str(" ("),
            word => out.push_str(word),
        }
        if open && is_value && !word.trim().is_empty() {
            out.push(']');
            open = false;
        }
        if !word.trim().is_empty() {
            before = word;
        }
    }
    out
}

/// The words of a filter: texts in quotes, brackets, spaces, and what stands between them.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        let end = match first {
            '(' | ')' | '[' | ']' => 1,
            '"' => {
                let mut escaped = false;
                let rest = self.0.char_indices().skip(1);
                let mut closing = rest.filter(|(_, c)| {
                    let closes = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                });
                closing.next().map_or(self.0.len(), |(at, _)| at + 1)
            }
            ' ' => self.0.find(|c| c != ' ').unwrap_or(self.0.len()),
            _ => self.0.find([' ', '(', ')', '[', ']', '"']).unwrap_or(self.0.len()),
        };
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

fn mentions(filter: &Filter, name: &str) -> bool {
    match filter {
        Filter::Attr(AttrExp::Present(path) | AttrExp::Comparison(path, ..)) => {
            path.name.eq_ignore_ascii_case(name)
        }
        Filter::ValuePath(value) => value.attr.name.eq_ignore_ascii_case(name),
        Filter::Not(inner) => mentions(inner, name),
        Filter::And(all) | Filter::Or(all) => all.iter().any(|inner| mentions(inner, name)),
    }
}

fn key(kind: Kind, filter: &Filter) -> Option<Key> {
    match filter {
        Filter::Attr(AttrExp::Comparison(path, CompareOp::Eq, CompValue::Str(value)))
            if path.sub_attr.is_none() =>
        {
            let is = |name: &str| path.name.eq_ignore_ascii_case(name);
            if is("id") {
                Some(Key::Id(value.clone()))
            } else if is("externalId") {
                Some(Key::External(value.clone()))
            } else if (kind == Kind::User && is("userName"))
                || (kind == Kind::Group && is("displayName"))
            {
                Some(Key::Name(value.clone()))
            } else {
                None
            }
        }
        Filter::And(all) => all.iter().find_map(|inner| key(kind, inner)),
        _ => None,
    }
}

/// Refuses attributes that do not exist: a filter by them would find nothing, or everything.
fn check(kind: Kind, filter: &Filter) -> Result<(), ScimError> {
    match filter {
        Filter::Attr(AttrExp::Present(path) | AttrExp::Comparison(path, ..)) => {
            known(kind, path).map(|_| ())
        }
        Filter::ValuePath(value) => match known(kind, &value.attr)? {
            Place::Kept(Attribute { holds: Holds::Several(parts), .. }, _) => {
                check_parts(parts, &value.filter)
            }
            Place::Kept(attribute, _) => {
                Err(ScimError::filter(format!("`{}` has one value", attribute.name)))
            }
            _ => Ok(()),
        },
        Filter::Not(inner) => check(kind, inner),
        Filter::And(all) | Filter::Or(all) => all.iter().try_for_each(|inner| check(kind, inner)),
    }
}

fn known(kind: Kind, path: &AttrPath) -> Result<Place, ScimError> {
    let place = attributes::find(kind, path.uri.as_deref(), &path.name);
    let parts = match place {
        Place::Unknown => return Err(unknown(path)),
        Place::Kept(Attribute { holds: Holds::Several(parts) | Holds::Parts(parts), .. }, _) => {
            parts
        }
        Place::Kept(..) if path.sub_attr.is_some() => return Err(unknown(path)),
        place => return Ok(place),
    };
    match &path.sub_attr {
        Some(sub) if part(parts, sub).is_none() => Err(unknown(path)),
        _ => Ok(place),
    }
}

fn unknown(path: &AttrPath) -> ScimError {
    let name = shown(&path.to_string(), 200);
    ScimError::filter(format!("there is no attribute `{name}`: /Schemas lists them"))
}

fn check_parts(parts: &'static [Attribute], filter: &ValFilter) -> Result<(), ScimError> {
    match filter {
        ValFilter::Attr(AttrExp::Present(path) | AttrExp::Comparison(path, ..)) => {
            part(parts, &path.name).map(|_| ()).ok_or_else(|| unknown(path))
        }
        ValFilter::Not(inner) => check_parts(parts, inner),
        ValFilter::And(all) | ValFilter::Or(all) => {
            all.iter().try_for_each(|inner| check_parts(parts, inner))
        }
    }
}

/// The values that a path leads to, and whether they are compared letter by letter.
fn values<'a>(kind: Kind, path: &AttrPath, resource: &'a Value) -> (Vec<&'a Value>, bool) {
    let place = attributes::find(kind, path.uri.as_deref(), &path.name);
    let (held, attribute) = match place {
        Place::Kept(attribute, extension) => {
            let of = if extension { &resource[attributes::ENTERPRISE] } else { resource };
            (&of[attribute.name], Some(attribute))
        }
        Place::Own(attribute) => (&resource[attribute.name], Some(attribute)),
        Place::NotTheirs if path.name.eq_ignore_ascii_case("meta") => (&resource["meta"], None),
        Place::NotTheirs if path.name.eq_ignore_ascii_case("schemas") => {
            (&resource["schemas"], None)
        }
        _ => (&Value::Null, None),
    };
    let mut exact = attribute.is_some_and(|held| matches!(held.holds, Holds::ExactText));
    let all: Vec<&Value> = match held {
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        value => vec![value],
    };
    let sub = match (attribute.map(|attribute| attribute.holds), &path.sub_attr) {
        // The value of a complex value is meant (RFC 7644, section 3.4.2.2, `emails co "…"`).
        (Some(Holds::Several(_)), None) => Some("value".to_owned()),
        (_, sub) => sub.clone(),
    };
    let Some(sub) = sub else { return (all, exact) };
    if let Some(Holds::Several(parts) | Holds::Parts(parts)) = attribute.map(|held| held.holds) {
        exact = part(parts, &sub).is_some_and(|held| matches!(held.holds, Holds::ExactText));
    }
    (all.into_iter().filter_map(|value| member(value, &sub)).collect(), exact)
}

/// A member by its name in any case.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let held = value.as_object()?;
    held.iter().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn fits(kind: Kind, filter: &Filter, resource: &Value) -> bool {
    match filter {
        Filter::Attr(AttrExp::Present(path)) => !values(kind, path, resource).0.is_empty(),
        Filter::Attr(AttrExp::Comparison(path, op, wanted)) => {
            let (held, exact) = values(kind, path, resource);
            if held.is_empty() {
                return is_absent(op, wanted);
            }
            held.into_iter().any(|held| compares(held, op, wanted, exact))
        }
        Filter::ValuePath(value) => {
            let place = attributes::find(kind, value.attr.uri.as_deref(), &value.attr.name);
            let Place::Kept(attribute, false) = place else { return false };
            let held = resource[attribute.name].as_array();
            held.into_iter().flatten().any(|held| fits_value(&value.filter, held))
        }
        Filter::Not(inner) => !fits(kind, inner, resource),
        Filter::And(all) => all.iter().all(|inner| fits(kind, inner, resource)),
        Filter::Or(all) => all.iter().any(|inner| fits(kind, inner, resource)),
    }
}

/// Whether one value of an attribute that has several fits what stands in brackets.
pub(super) fn fits_value(filter: &ValFilter, held: &Value) -> bool {
    match filter {
        ValFilter::Attr(AttrExp::Present(path)) => member(held, &path.name).is_some(),
        ValFilter::Attr(AttrExp::Comparison(path, op, wanted)) => {
            // Ids of members are compared letter by letter, whatever the case of others' texts.
            let exact = path.name.eq_ignore_ascii_case("value")
                && !held["value"].is_null()
                && held["value"].as_str().is_some_and(|value| !value.contains('@'));
            match member(held, &path.name) {
                None => is_absent(op, wanted),
                Some(held) => compares(held, op, wanted, exact),
            }
        }
        ValFilter::Not(inner) => !fits_value(inner, held),
        ValFilter::And(all) => all.iter().all(|inner| fits_value(inner, held)),
        ValFilter::Or(all) => all.iter().any(|inner| fits_value(inner, held)),
    }
}

/// Nothing is there: it equals nothing, and differs from everything else.
fn is_absent(op: &CompareOp, wanted: &CompValue) -> bool {
    match op {
        CompareOp::Eq => *wanted == CompValue::Null,
        CompareOp::Ne => *wanted != CompValue::Null,
        _ => false,
    }
}

fn compares(held: &Value, op: &CompareOp, wanted: &CompValue, exact: bool) -> bool {
    // As names are kept: the same letters in another form are the same.
    let folded = |text: &str| if exact { text.to_owned() } else { normal_username(text) };
    match (held, wanted) {
        // Some clients write a text of digits without quotes.
        (Value::String(_), CompValue::Number(number)) => {
            compares(held, op, &CompValue::Str(number.to_string()), exact)
        }
        (Value::String(held), CompValue::Str(wanted)) => {
            let (held, wanted) = (folded(held), folded(wanted));
            match op {
                CompareOp::Eq => held == wanted,
                CompareOp::Ne => held != wanted,
                CompareOp::Co => held.contains(&wanted),
                CompareOp::Sw => held.starts_with(&wanted),
                CompareOp::Ew => held.ends_with(&wanted),
                CompareOp::Gt => held > wanted,
                CompareOp::Lt => held < wanted,
                CompareOp::Ge => held >= wanted,
                CompareOp::Le => held <= wanted,
            }
        }
        (Value::Bool(held), wanted) => {
            let wanted = match wanted {
                CompValue::True => true,
                CompValue::False => false,
                // Some clients quote it.
                CompValue::Str(text) if text.eq_ignore_ascii_case("true") => true,
                CompValue::Str(text) if text.eq_ignore_ascii_case("false") => false,
                _ => return *op == CompareOp::Ne,
            };
            match op {
                CompareOp::Eq => *held == wanted,
                CompareOp::Ne => *held != wanted,
                _ => false,
            }
        }
        _ => *op == CompareOp::Ne,
    }
}

/// The texts that a filter in brackets asks `name` to equal, if it asks for nothing else:
/// `value eq "a"`, or several of these with `or`.
pub(super) fn equals_one_of(filter: &ValFilter, name: &str) -> Option<Vec<String>> {
    match filter {
        ValFilter::Attr(AttrExp::Comparison(path, CompareOp::Eq, CompValue::Str(value)))
            if path.name.eq_ignore_ascii_case(name) && path.sub_attr.is_none() =>
        {
            Some(vec![value.clone()])
        }
        ValFilter::Or(all) => {
            let mut values = Vec::new();
            for inner in all {
                values.extend(equals_one_of(inner, name)?);
            }
            Some(values)
        }
        _ => None,
    }
}

/// What a filter in brackets says of a value that does not exist yet: `type eq "work"`, or several
/// of these with `and`.
pub(super) fn said_of_new(filter: &ValFilter) -> Option<Vec<(String, Value)>> {
    match filter {
        ValFilter::Attr(AttrExp::Comparison(path, CompareOp::Eq, wanted))
            if path.sub_attr.is_none() =>
        {
            let value = match wanted {
                CompValue::Str(text) => text.as_str().into(),
                CompValue::True => true.into(),
                CompValue::False => false.into(),
                CompValue::Null | CompValue::Number(_) => return None,
            };
            Some(vec![(path.name.clone(), value)])
        }
        ValFilter::And(all) => {
            let mut said = Vec::new();
            for inner in all {
                said.extend(said_of_new(inner)?);
            }
            Some(said)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn erin() -> Value {
        json!({"schemas": [attributes::USER], "id": "U1", "userName": "Erin@Acme.example",
            "externalId": "0uA", "active": true, "name": {"familyName": "Eng"},
            "emails": [{"value": "erin@acme.example", "type": "work", "primary": true},
                {"value": "e@home.example", "type": "home"}],
            attributes::ENTERPRISE: {"department": "R&D"},
            "meta": {"lastModified": "2026-01-02T03:04:05Z"}})
    }

    #[test]
    fn filters_of_all_operators_select() {
        for (filter, fits) in [
            (r#"userName eq "erin@acme.EXAMPLE""#, true),
            (r#"USERNAME eq "erin@acme.example""#, true),
            (r#"urn:ietf:params:scim:schemas:core:2.0:User:userName sw "ERIN""#, true),
            (r#"externalId eq "0ua""#, false),
            (r#"externalId eq "0uA""#, true),
            (r#"id eq "u1""#, false),
            (r#"id eq "U1" and manager eq "x""#, false),
            ("active eq true", true),
            (r#"active eq "True""#, true),
            ("active ne true", false),
            (r#"name.familyName co "NG""#, true),
            ("title pr", false),
            ("not (title pr)", true),
            ("title eq null", true),
            (r#"title ne "x""#, true),
            (r#"emails eq "e@home.example""#, true),
            (r#"emails.type eq "home""#, true),
            (r#"emails[type eq "work" and value co "acme"]"#, true),
            (r#"emails[type eq "home" and value co "acme"]"#, false),
            (r#"emails[type eq "home" and value co "acme"] or active eq true"#, true),
            (
                r#"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department eq "r&d""#,
                true,
            ),
            (r#"meta.lastModified gt "2025-01-01T00:00:00Z""#, true),
            (r#"meta.lastModified lt "2025-01-01T00:00:00Z""#, false),
            (r#"userName ew "example" and (title pr or active eq true)"#, true),
            ("phoneNumbers pr", false),
            ("externalId eq 0uA", true),
            ("title eq 12", false),
            ("userName eq \" Erin@Acme.example \"", true),
            ("id eq U1 and active eq True", true),
            ("not(title pr)", true),
            (r#"emails[type eq "work"].value eq "erin@acme.example""#, true),
            (r#"emails[type eq "home" or type eq "x"].value eq "erin@acme.example""#, false),
            (r#"(emails[type eq "home"].value sw "e@") and active eq true"#, true),
            (r#"displayName eq "a \"b\" ] ( c""#, false),
        ] {
            let wanted = Wanted::parse(Kind::User, filter).unwrap();
            assert_eq!(wanted.fits(&erin()), fits, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = format!("{}title pr{}", "not (".repeat(300), ")".repeat(300));
        let long = format!("title eq \"{}\"", "a".repeat(3000));
        for filter in [
            "",
            "userName",
            "userName eq",
            "userName xx \"a\"",
            "'; DROP TABLE users; --",
            "password2 eq \"a\"",
            "userName eq \"a",
            deep.as_str(),
            long.as_str(),
            "(((((",
            "emails[type eq \"work\"",
            "a.b.c eq \"d\"",
        ] {
            let refused = Wanted::parse(Kind::User, filter);
            let error = refused.map(|_| ()).unwrap_err();
            assert_eq!(error.scim_type, Some("invalidFilter"), "{filter}");
            assert!(error.detail.len() < 700);
        }
    }

    #[test]
    fn an_index_serves_what_the_whole_filter_needs() {
        for (filter, key) in [
            (r#"userName eq "a""#, Some(Key::Name("a".to_owned()))),
            (r#"active eq true and userName eq "a""#, Some(Key::Name("a".to_owned()))),
            (r#"id eq "a" and manager eq "b""#, Some(Key::Id("a".to_owned()))),
            (r#"externalId eq "a""#, Some(Key::External("a".to_owned()))),
            (r#"userName eq "a" or active eq true"#, None),
            (r#"not (userName eq "a")"#, None),
            (r#"displayName eq "a""#, None),
        ] {
            assert_eq!(Wanted::parse(Kind::User, filter).unwrap().key(), key, "{filter}");
        }
    }
}
