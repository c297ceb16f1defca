//! The attributes that are kept of people and groups (RFC 7643): what `/Schemas` says, and what
//! everything else that reads or writes a resource goes by. Names are compared without regard to case.

use super::error::ScimError;
use passavant_proto::others_text::{is_email, is_shown};
use serde_json::{Map, Value, json};

pub(super) const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
pub(super) const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
pub(super) const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// The longest text, in bytes.
const LONGEST: usize = 1024;

/// The attribute of groups that names people.
pub(super) const MEMBERS: &str = "members";

/// The most values of an attribute that has several.
const MOST_VALUES: usize = 20;

/// What an attribute holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holds {
    Text,
    /// Compared letter by letter.
    ExactText,
    /// The address of a person.
    Reference,
    Boolean,
    /// Sub-attributes.
    Parts(&'static [Attribute]),
    /// Several values, each with sub-attributes.
    Several(&'static [Attribute]),
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // as RFC 7643, section 2.2, has them
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) holds: Holds,
    required: bool,
    unique: bool,
    /// Only this server writes it.
    pub(super) read_only: bool,
    /// It is said once.
    immutable: bool,
    about: &'static str,
}

const fn of(name: &'static str, holds: Holds, about: &'static str) -> Attribute {
    Attribute {
        name,
        holds,
        required: false,
        unique: false,
        read_only: false,
        immutable: false,
        about,
    }
}

const fn text(name: &'static str, about: &'static str) -> Attribute {
    of(name, Holds::Text, about)
}

/// Those of people.
const USER_ATTRIBUTES: &[Attribute] = &[
    Attribute {
        required: true,
        unique: true,
        ..text("userName", "what the person types to sign in; compared without regard to case")
    },
    of(
        "name",
        Holds::Parts(&[
            text("formatted", "the whole name"),
            text("familyName", "the family name"),
            text("givenName", "the given name"),
        ]),
        "the parts of the name",
    ),
    text("displayName", "what others call the person"),
    text("nickName", "a casual name"),
    text("title", "the title, for instance Vice President"),
    text("userType", "the relation to the company, for instance Contractor"),
    text("preferredLanguage", "the preferred language"),
    text("locale", "how dates and numbers are written"),
    text("timezone", "the time zone"),
    Attribute {
        // A request without it changes nothing; what cannot be is that nobody knows.
        required: true,
        ..of("active", Holds::Boolean, "whether the person may sign in and use what they have")
    },
    of(
        "emails",
        Holds::Several(&[
            text("value", "the address"),
            text("type", "what it is used for"),
            text("display", "how it is shown"),
            of("primary", Holds::Boolean, "whether it is the one that others are told"),
        ]),
        "addresses; the primary one, else the first of type work, else the first, is told to others",
    ),
];

const ENTERPRISE_ATTRIBUTES: &[Attribute] = &[
    text("employeeNumber", "the number of the person in the company"),
    text("costCenter", "the cost center"),
    text("organization", "the organization"),
    text("division", "the division"),
    text("department", "the department"),
];

/// Those of groups. Members are people of the same upstream.
const GROUP_ATTRIBUTES: &[Attribute] = &[
    Attribute { required: true, unique: true, ..text("displayName", "what the group is called") },
    of(
        "members",
        Holds::Several(&[
            Attribute { immutable: true, ..of("value", Holds::ExactText, "the id of a person") },
            Attribute { immutable: true, ..of("$ref", Holds::Reference, "the person's address") },
            Attribute { immutable: true, ..text("type", "User: nobody else is a member") },
        ]),
        "the people in the group",
    ),
];

/// Common to both.
pub(super) const EXTERNAL_ID: Attribute =
    of("externalId", Holds::ExactText, "what the provisioner knows the resource by");
const ID: Attribute = Attribute { read_only: true, ..of("id", Holds::ExactText, "its id here") };

/// What exists in the core schemas of RFC 7643 and is not kept: passed over, so that a provisioner
/// that sends everything it knows does not lose the rest of what it says.
const NOT_KEPT: &[&str] = &[
    "profileurl",
    "phonenumbers",
    "ims",
    "photos",
    "addresses",
    "x509certificates",
    "password",
    "manager",
];

/// What decides about rights, or is this server's own.
const NOT_THEIRS: &[&str] = &["id", "meta", "schemas", "groups", "roles", "entitlements"];

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
        }
    }

    pub(super) const fn endpoint(self) -> &'static str {
        match self {
            Self::User => "Users",
            Self::Group => "Groups",
        }
    }

    pub(super) const fn schema(self) -> &'static str {
        match self {
            Self::User => USER,
            Self::Group => GROUP,
        }
    }

    const fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::User => USER_ATTRIBUTES,
            Self::Group => GROUP_ATTRIBUTES,
        }
    }
}

/// Where a name leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// An attribute, and whether it is one of the enterprise extension.
    Kept(&'static Attribute, bool),
    /// The enterprise extension as a whole.
    Extension,
    /// Only this server writes it, and it can be read.
    Own(&'static Attribute),
    /// It exists, and is not the provisioner's.
    NotTheirs,
    /// It exists, and is not kept.
    NotKept,
    /// There is no such attribute.
    Unknown,
}

/// Finds an attribute by its name and, if it is said, its schema.
pub(super) fn find(kind: Kind, schema: Option<&str>, name: &str) -> Place {
    let is = |attribute: &&Attribute| attribute.name.eq_ignore_ascii_case(name);
    if schema.is_some_and(|schema| schema.eq_ignore_ascii_case(ENTERPRISE)) && kind == Kind::User {
        return match ENTERPRISE_ATTRIBUTES.iter().find(is) {
            Some(attribute) => Place::Kept(attribute, true),
            // `manager`, and whatever else somebody puts there.
            None => Place::NotKept,
        };
    }
    match schema {
        None => {}
        Some(schema) if schema.eq_ignore_ascii_case(kind.schema()) => {}
        // Somebody's own extension.
        Some(_) => return Place::NotKept,
    }
    if EXTERNAL_ID.name.eq_ignore_ascii_case(name) {
        return Place::Kept(&EXTERNAL_ID, false);
    }
    if ID.name.eq_ignore_ascii_case(name) {
        return Place::Own(&ID);
    }
    if let Some(attribute) = kind.attributes().iter().find(is) {
        return Place::Kept(attribute, false);
    }
    let lower = name.to_ascii_lowercase();
    if NOT_THEIRS.contains(&lower.as_str()) {
        Place::NotTheirs
    } else if NOT_KEPT.contains(&lower.as_str()) {
        Place::NotKept
    } else {
        Place::Unknown
    }
}

/// A sub-attribute by name.
pub(super) fn part(parts: &'static [Attribute], name: &str) -> Option<&'static Attribute> {
    parts.iter().find(|part| part.name.eq_ignore_ascii_case(name))
}

/// A value as it is kept; `None` if it says that there is none (RFC 7643, section 2.5: `null`, or an
/// empty list; an empty text is one too, as several clients have it).
pub(super) fn kept(attribute: &Attribute, value: &Value) -> Result<Option<Value>, ScimError> {
    let name = attribute.name;
    Ok(match (attribute.holds, value) {
        (_, Value::Null) => None,
        (Holds::Text | Holds::ExactText | Holds::Reference, Value::String(text)) => {
            if text.len() > LONGEST || !text.chars().all(is_shown) {
                return Err(ScimError::value(format!(
                    "`{name}` must be a text of at most {LONGEST} bytes without invisible characters"
                )));
            }
            (!text.is_empty()).then(|| text.as_str().into())
        }
        (Holds::Boolean, Value::Bool(said)) => Some((*said).into()),
        // Entra says "False".
        (Holds::Boolean, Value::String(said)) if said.eq_ignore_ascii_case("true") => {
            Some(true.into())
        }
        (Holds::Boolean, Value::String(said)) if said.eq_ignore_ascii_case("false") => {
            Some(false.into())
        }
        (Holds::Parts(parts), Value::Object(said)) => {
            let held = kept_parts(parts, said)?;
            (!held.is_empty()).then_some(Value::Object(held))
        }
        (Holds::Several(parts), said) => {
            let one = std::slice::from_ref(said);
            let said = said.as_array().map_or(one, Vec::as_slice);
            // Before each is compared with those before it.
            if said.len() > MOST_VALUES {
                return Err(too_many(name));
            }
            let mut held: Vec<Value> = Vec::new();
            for value in said {
                let value = match value {
                    Value::String(_) => json!({"value": value}),
                    value => value.clone(),
                };
                let Value::Object(value) = value else {
                    return Err(ScimError::value(format!("`{name}` must be a list of objects")));
                };
                let value = kept_parts(parts, &value)?;
                // Without a value it says nothing.
                if value.contains_key("value") && !held.iter().any(|held| same(held, &value)) {
                    held.push(Value::Object(value));
                }
            }
            several(attribute, held)?
        }
        (holds, _) => {
            let expected = match holds {
                Holds::Text | Holds::ExactText | Holds::Reference => "a text",
                Holds::Boolean => "true or false",
                Holds::Parts(_) | Holds::Several(_) => "an object",
            };
            return Err(ScimError::value(format!("`{name}` must be {expected}")));
        }
    })
}

fn too_many(name: &str) -> ScimError {
    ScimError::value(format!("`{name}` has more than {MOST_VALUES} values"))
}

/// Two values of an attribute say the same: one of them is superfluous.
fn same(held: &Value, value: &Map<String, Value>) -> bool {
    held.as_object() == Some(value)
}

/// A list of values, if it may be kept.
pub(super) fn several(
    attribute: &Attribute,
    mut held: Vec<Value>,
) -> Result<Option<Value>, ScimError> {
    let name = attribute.name;
    if name == "emails" {
        if held.len() > MOST_VALUES {
            return Err(too_many(name));
        }
        // A second `@` would make the domain of one address look like another's.
        let is = |value: &Value| {
            value["value"]
                .as_str()
                .is_some_and(|text| is_email(text) && text.matches('@').count() == 1)
        };
        if let Some(bad) = held.iter().find(|value| !is(value)) {
            return Err(ScimError::value(format!("`{name}`: {} is no address", bad["value"])));
        }
        // One is primary at most (RFC 7643, section 2.4): the one that was said last.
        let last = held.iter().rposition(|value| value["primary"] == true);
        for (at, value) in held.iter_mut().enumerate() {
            if Some(at) != last && value["primary"] == true {
                value["primary"] = false.into();
            }
        }
    }
    Ok((!held.is_empty()).then_some(Value::Array(held)))
}

fn kept_parts(
    parts: &'static [Attribute],
    said: &Map<String, Value>,
) -> Result<Map<String, Value>, ScimError> {
    let mut held = Map::new();
    for (name, value) in said {
        let Some(part) = part(parts, name) else { continue };
        if part.read_only {
            continue;
        }
        if let Some(value) = kept(part, value)?
            && held.insert(part.name.to_owned(), value).is_some()
        {
            return Err(ScimError::syntax(format!("`{name}` occurs twice")));
        }
    }
    Ok(held)
}

/// A resource that was sent whole (POST and PUT), as it is kept: only attributes that are known, by
/// their names here.
pub(super) fn read(kind: Kind, body: &Value) -> Result<Map<String, Value>, ScimError> {
    let Value::Object(body) = body else {
        return Err(ScimError::syntax("the body must be an object"));
    };
    let mut held = Map::new();
    for (name, value) in body {
        if name.eq_ignore_ascii_case("schemas") {
            let listed = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let is = |schema: &Value| {
                schema.as_str().is_some_and(|schema| schema.eq_ignore_ascii_case(kind.schema()))
            };
            if !listed.iter().any(is) {
                return Err(ScimError::syntax(format!("`schemas` must contain {}", kind.schema())));
            }
            continue;
        }
        if name.eq_ignore_ascii_case(ENTERPRISE) && kind == Kind::User {
            let extension = match value {
                Value::Null => continue,
                Value::Object(extension) => kept_parts(ENTERPRISE_ATTRIBUTES, extension)?,
                _ => return Err(ScimError::value(format!("`{ENTERPRISE}` must be an object"))),
            };
            if !extension.is_empty()
                && held.insert(ENTERPRISE.to_owned(), extension.into()).is_some()
            {
                return Err(ScimError::syntax(format!("`{name}` occurs twice")));
            }
            continue;
        }
        // What is not kept, and what only this server writes, is passed over (RFC 7644, section 3.3).
        let Place::Kept(attribute, _) = find(kind, None, name) else { continue };
        if kind == Kind::Group && attribute.name == MEMBERS {
            // They are read as ids, in one go: there may be thousands.
            if held.insert(MEMBERS.to_owned(), value.clone()).is_some() {
                return Err(ScimError::syntax(format!("`{name}` occurs twice")));
            }
            continue;
        }
        if let Some(value) = kept(attribute, value)?
            && held.insert(attribute.name.to_owned(), value).is_some()
        {
            return Err(ScimError::syntax(format!("`{name}` occurs twice")));
        }
    }
    let names = |attribute: &&Attribute| attribute.required && attribute.unique;
    for attribute in kind.attributes().iter().filter(names) {
        if !held.contains_key(attribute.name) {
            return Err(ScimError::value(format!("`{}` is missing", attribute.name)));
        }
    }
    Ok(held)
}

/// An attribute in a schema's own words (RFC 7643, section 7).
fn described(attribute: &Attribute) -> Value {
    let (kind, parts, several, exact) = match attribute.holds {
        Holds::Text => ("string", None, false, false),
        Holds::ExactText => ("string", None, false, true),
        Holds::Reference => ("reference", None, false, true),
        Holds::Boolean => ("boolean", None, false, false),
        Holds::Parts(parts) => ("complex", Some(parts), false, false),
        Holds::Several(parts) => ("complex", Some(parts), true, false),
    };
    let mut value = json!({
        "name": attribute.name, "type": kind, "multiValued": several,
        "description": attribute.about, "required": attribute.required, "caseExact": exact,
        "mutability": if attribute.read_only {
            "readOnly"
        } else if attribute.immutable {
            "immutable"
        } else {
            "readWrite"
        },
        "returned": "default", "uniqueness": if attribute.unique { "server" } else { "none" },
    });
    if matches!(attribute.holds, Holds::Reference) {
        value["referenceTypes"] = json!(["User"]);
    }
    if attribute.name == "type" && attribute.immutable {
        // Nobody but a person is a member.
        value["canonicalValues"] = json!(["User"]);
    }
    if let Some(parts) = parts {
        value["subAttributes"] = parts.iter().map(described).collect();
    }
    value
}

/// The schemas, as `/Schemas` shows them.
pub(super) fn schemas(base: &str) -> Vec<Value> {
    let schema = |id: &str, name: &str, about: &str, attributes: &[Attribute]| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": id, "name": name, "description": about,
            "attributes": attributes.iter().map(described).collect::<Vec<_>>(),
            "meta": {"resourceType": "Schema", "location": format!("{base}/Schemas/{id}")},
        })
    };
    vec![
        schema(USER, "User", "a person", USER_ATTRIBUTES),
        schema(ENTERPRISE, "EnterpriseUser", "a person in a company", ENTERPRISE_ATTRIBUTES),
        schema(GROUP, "Group", "a group of people", GROUP_ATTRIBUTES),
    ]
}

/// The names of attributes that are kept flat with a person: those of the extension, and the texts of
/// the core schema that have no column of their own.
pub(super) fn flat_attributes() -> impl Iterator<Item = (&'static str, bool)> {
    let core = ["nickName", "title", "userType", "preferredLanguage", "locale", "timezone"];
    core.into_iter()
        .map(|name| (name, false))
        .chain(ENTERPRISE_ATTRIBUTES.iter().map(|attribute| (attribute.name, true)))
}
