//! The name that this project had before it was Passavant. What earlier builds wrote or sent under
//! that name is renamed where it is found; only this module knows the name.

use crate::{oauth::client::ENROLLED_CLIENT, oidc::authentication::ACR_PASSWORD};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The former name, as programs, folders and services had it.
pub const NAME: &str = "carnet";

/// The current name.
pub const NOW: &str = "passavant";

/// The former name of a file, environment variable or member that is called `now` today.
pub fn name(now: &str) -> String {
    now.replace(NOW, NAME).replace(&NOW.to_uppercase(), &NAME.to_uppercase())
}

/// A value that may come from an earlier build, in its current form.
pub fn current(value: &str) -> &str {
    match value {
        NAME => ENROLLED_CLIENT,
        "urn:carnet:acr:password" => ACR_PASSWORD,
        value => value,
    }
}

/// Deserializes a value that may come from an earlier build.
pub fn text<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    String::deserialize(reader).map(|value| match current(&value) {
        now if now == value => value,
        now => now.to_owned(),
    })
}

/// Deserializes a list of such values.
pub fn texts<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    let values = Vec::<String>::deserialize(reader)?;
    Ok(values.iter().map(|value| current(value).to_owned()).collect())
}

/// Adds our own members under the names that programs of earlier builds look for.
pub(crate) fn say_too(document: &mut Value) {
    let Some(members) = document.as_object_mut() else { return };
    let own = members.iter().filter(|(member, _)| member.starts_with(NOW));
    let before: Vec<_> = own.map(|(member, value)| (name(member), value.clone())).collect();
    members.extend(before);
}

/// Renames our own members in a document of an earlier build's server, unless they are there under
/// the current names.
pub fn hear(document: &mut Value) {
    let Some(members) = document.as_object_mut() else { return };
    let ours = |member: &String| member.starts_with(NAME);
    let before: Vec<String> = members.keys().filter(|member| ours(member)).cloned().collect();
    for member in before {
        let value = members.remove(&member).unwrap_or_default();
        members.entry(member.replacen(NAME, NOW, 1)).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_earlier_build_wrote_is_what_it_is_called_now() {
        assert_eq!(name("passavant.admin-secret"), "carnet.admin-secret");
        assert_eq!(name("PASSAVANT__IDP__LISTEN"), "CARNET__IDP__LISTEN");
        assert_eq!(name("mcp.json"), "mcp.json");
        for now in [ENROLLED_CLIENT, ACR_PASSWORD] {
            assert_eq!(current(&name(now)), now);
            assert_eq!(current(now), now);
        }
        // Only whole values are renamed.
        assert_eq!(current("carnet-x"), "carnet-x");
    }

    #[test]
    fn metadata_is_said_by_both_names_and_heard_by_either() {
        let now = json!({"issuer": "x", "passavant_catalog_endpoint": "https://a.example/catalog"});
        let mut said = now.clone();
        say_too(&mut said);
        assert_eq!(said["carnet_catalog_endpoint"], now["passavant_catalog_endpoint"]);
        let mut heard = said.clone();
        hear(&mut heard);
        assert_eq!(heard, now);
        let mut earlier =
            json!({"issuer": "x", "carnet_catalog_endpoint": "https://a.example/catalog"});
        hear(&mut earlier);
        assert_eq!(earlier, now);
        // The member with the current name takes precedence.
        let mut both = json!({"carnet_a": 1, "passavant_a": 2});
        hear(&mut both);
        assert_eq!(both, json!({"passavant_a": 2}));
    }
}
