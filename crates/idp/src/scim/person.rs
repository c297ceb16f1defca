//! A person as SCIM shows them, and what their record becomes by what SCIM says.

use super::{
    attributes::{ENTERPRISE, Kind, USER, flat_attributes},
    error::ScimError,
};
use passavant_authority::passwords::normal_username;
use passavant_proto::{oidc::upstream::UpstreamProvider, secret::sha256, time::Timestamp};
use passavant_store::{ProvisionedGroup, ProvisionedPerson, User};
use serde_json::{Map, Value, json};

/// A time as SCIM writes it (RFC 7643, section 2.3.5).
fn date_time(at: Timestamp) -> Value {
    let text = time::OffsetDateTime::from_unix_timestamp(at.0).ok().map(|at| {
        let (date, time) = (at.date(), at.time());
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second()
        )
    });
    text.map_or(Value::Null, Value::from)
}

fn with_meta(
    kind: Kind,
    base: &str,
    id: &str,
    (created, changed, version): (Timestamp, Timestamp, String),
    held: Map<String, Value>,
) -> Value {
    let mut resource = Value::Object(held);
    resource["id"] = id.into();
    let mut meta = json!({
        "resourceType": kind.name(),
        "location": format!("{base}/{}/{id}", kind.endpoint()),
        "version": version,
    });
    // What was never provisioned has no times of provisioning.
    if created.0 > 0 {
        meta["created"] = date_time(created);
        meta["lastModified"] = date_time(changed);
    }
    resource["meta"] = meta;
    resource
}

/// The version of what a text says: another one for every content (RFC 7644, section 3.14).
fn version(content: &str) -> String {
    format!("W/\"{}\"", &sha256(content.as_bytes())[..22])
}

/// The version of a group: another one after every change by provisioning, whatever is shown of it.
pub(super) fn version_of(group: &ProvisionedGroup) -> String {
    version(&format!("{} {}", group.id, group.version))
}

/// What is kept of a person, by the names of SCIM: what was said, as far as their record still says
/// the same.
pub(super) fn held(person: &ProvisionedPerson) -> Map<String, Value> {
    let user = &person.user;
    let said: Map<String, Value> = serde_json::from_str(&person.said).unwrap_or_default();
    let mut held = Map::new();
    let spelled = said.get("userName").and_then(Value::as_str);
    let spelled = spelled.filter(|said| normal_username(said) == user.username);
    held.insert("userName".to_owned(), spelled.unwrap_or(&user.username).into());
    if let Some(external) = &person.external_id {
        held.insert("externalId".to_owned(), external.as_str().into());
    }
    let mut name = Map::new();
    if let Some(formatted) = said.get("name").and_then(|name| name.get("formatted")) {
        name.insert("formatted".to_owned(), formatted.clone());
    }
    for (part, value) in [("familyName", &user.family_name), ("givenName", &user.given_name)] {
        if let Some(value) = value {
            name.insert(part.to_owned(), value.as_str().into());
        }
    }
    if !name.is_empty() {
        held.insert("name".to_owned(), name.into());
    }
    if let Some(display) = &user.display_name {
        held.insert("displayName".to_owned(), display.as_str().into());
    }
    held.insert("active".to_owned(), (!user.inactive_there).into());
    let addresses = said.get("emails").and_then(Value::as_array);
    let current = addresses.filter(|all| told_address(all) == user.email.as_deref());
    match (current, &user.email) {
        (Some(all), Some(_)) => {
            held.insert("emails".to_owned(), all.clone().into());
        }
        (_, Some(email)) => {
            let emails = json!([{"value": email, "type": "work", "primary": true}]);
            held.insert("emails".to_owned(), emails);
        }
        _ => {}
    }
    let mut extension = Map::new();
    for (name, is_extension) in flat_attributes() {
        if let Some(value) = user.attributes.get(name) {
            let place = if is_extension { &mut extension } else { &mut held };
            place.insert(name.to_owned(), value.as_str().into());
        }
    }
    if !extension.is_empty() {
        held.insert(ENTERPRISE.to_owned(), extension.into());
    }
    held
}

/// A person as they are shown.
pub(super) fn shown(person: &ProvisionedPerson, base: &str) -> Value {
    let mut resource = held(person);
    let mut schemas = vec![USER];
    if resource.contains_key(ENTERPRISE) {
        schemas.push(ENTERPRISE);
    }
    resource.insert("schemas".to_owned(), schemas.into());
    let version = version(&Value::Object(resource.clone()).to_string());
    let times = (person.created_at, person.changed_at, version);
    with_meta(Kind::User, base, &person.user.id, times, resource)
}

/// A group as it is shown.
pub(super) fn shown_group(
    group: &ProvisionedGroup,
    members: Option<Vec<String>>,
    base: &str,
) -> Value {
    let mut resource = Map::new();
    resource.insert("schemas".to_owned(), json!([Kind::Group.schema()]));
    resource.insert("displayName".to_owned(), group.display_name.as_str().into());
    if let Some(external) = &group.external_id {
        resource.insert("externalId".to_owned(), external.as_str().into());
    }
    let members = members.filter(|members| !members.is_empty()).map(|members| {
        let member = |id: String| {
            let address = format!("{base}/Users/{id}");
            json!({"value": id, "type": "User", "$ref": address})
        };
        members.into_iter().map(member).collect::<Value>()
    });
    if let Some(members) = members {
        resource.insert("members".to_owned(), members);
    }
    let times = (group.created_at, group.changed_at, version_of(group));
    with_meta(Kind::Group, base, &group.id, times, resource)
}

/// The address that others are told: the primary one, else the first of type work, else the first.
fn told_address(all: &[Value]) -> Option<&str> {
    let primary = all.iter().find(|value| value["primary"] == true);
    let work = || {
        let is = |kind: &str| kind.eq_ignore_ascii_case("work");
        all.iter().find(|value| value["type"].as_str().is_some_and(is))
    };
    primary.or_else(work).or_else(|| all.first()).and_then(|value| value["value"].as_str())
}

/// Writes what SCIM says of a person into their record. What is absent goes, but for `active`: a
/// request that does not mention it switches nobody on.
pub(super) fn write(
    held: &Map<String, Value>,
    upstream: &UpstreamProvider,
    person: &mut ProvisionedPerson,
) -> Result<(), ScimError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let spelled = text(held.get("userName")).unwrap_or_default();
    let username = normal_username(&spelled);
    if username.is_empty()
        || spelled.chars().count() > 256
        || matches!(username.as_str(), "." | "..")
    {
        return Err(ScimError::value("`userName` must have 1 to 256 printable characters"));
    }
    let user = &mut person.user;
    user.username = username;
    let external = text(held.get("externalId"));
    if external.as_ref().is_some_and(|external| external.len() > 255) {
        return Err(ScimError::value("`externalId` is longer than 255 bytes"));
    }
    person.external_id = external;
    let name = |part: &str| text(held.get("name").and_then(|name| name.get(part)));
    user.given_name = name("givenName");
    user.family_name = name("familyName");
    user.display_name = text(held.get("displayName"));
    if let Some(active) = held.get("active").and_then(Value::as_bool) {
        user.inactive_there = !active;
    }
    let addresses = held.get("emails").and_then(Value::as_array);
    let email = addresses.and_then(|all| told_address(all)).map(str::to_owned);
    if email != user.email {
        // It is verified only in the domains whose people the upstream speaks for.
        user.email_verified = email.as_deref().is_some_and(|email| upstream.takes(email));
        user.email = email;
    }
    for (name, is_extension) in flat_attributes() {
        let of = if is_extension {
            held.get(ENTERPRISE).and_then(|e| e.get(name))
        } else {
            held.get(name)
        };
        match text(of) {
            Some(value) => user.attributes.insert(name.to_owned(), value),
            None => user.attributes.remove(name),
        };
    }
    // What has no place in the record: spelling, the whole name, further addresses.
    let mut said = Map::new();
    if spelled != user.username {
        said.insert("userName".to_owned(), spelled.into());
    }
    if let Some(formatted) = held.get("name").and_then(|name| name.get("formatted")) {
        said.insert("name".to_owned(), json!({"formatted": formatted}));
    }
    if let Some(addresses) = addresses {
        said.insert("emails".to_owned(), addresses.clone().into());
    }
    person.said = if said.is_empty() { String::new() } else { Value::Object(said).to_string() };
    Ok(())
}

/// A person who is not there yet.
pub(super) fn new(id: &str) -> ProvisionedPerson {
    ProvisionedPerson {
        user: User::new(id, ""),
        external_id: None,
        said: String::new(),
        created_at: Timestamp(0),
        changed_at: Timestamp(0),
    }
}
