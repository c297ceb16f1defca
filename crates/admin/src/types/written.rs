//! How values are written: schemas of strings, and deserializers that serde lacks.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

/// A member that may be taken away: left out it stays, `null` takes it away.
#[allow(clippy::option_option)] // the three things that can be said
pub(super) fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What the document calls texts that are read as something.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $pattern:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(ToSchema)]
            #[schema(pattern = $pattern)]
            #[allow(dead_code, reason = "only its schema is used")]
            pub(super) struct $name(String);
        )*
    };
}

texts! {
    /// A scope (RFC 6749 section 3.3), or several with a space between them.
    ScopeToken: "^([!#-\\[\\]-~]+( [!#-\\[\\]-~]+)*)?$";
    /// A URL of `https`, or of this machine.
    SecureUrl: "^(https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}|http://(localhost|127\\.0\\.0\\.1))(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{1,30}){0,4}$";
    /// Where a browser may return to.
    RedirectUri: "^(https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{1,30}){0,4}|http://127\\.0\\.0\\.1/[A-Za-z0-9._~-]{1,30})$";
    /// A domain of addresses.
    DomainName: "^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,3}[a-z]{2,12}$";
}

/// An algorithm of signatures.
#[derive(ToSchema)]
#[allow(dead_code, clippy::upper_case_acronyms, reason = "only its schema is used")]
pub(super) enum AlgorithmName {
    ES256,
    #[schema(rename = "EdDSA")]
    EdDsa,
    PS256,
    RS256,
}

/// How `sub_id` names a person.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum SubIdFormatName {
    #[schema(rename = "saml-nameid")]
    SamlNameId,
}

/// What an administrator may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum RoleName {
    Owner,
    Admin,
    Helpdesk,
    Auditor,
}

/// How a decision ended.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum OutcomeName {
    Granted,
    Refused,
}

/// A claim about a person.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum ReleasedName {
    Email,
    AuthTime,
    Acr,
    Amr,
}

/// A whole number: also one that is written with a point and nothing behind it, as JSON Schema has it.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    // Above this a float may differ from the number that was written.
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)] // looked at a line above
    let float = || value.as_f64().filter(exact).map(|number| number as i64);
    let found = value.as_i64().or_else(float);
    found.ok_or_else(|| serde::de::Error::custom(format!("expected a whole number, found {value}")))
}

pub(super) fn maybe_whole<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        Ok(None)
    } else {
        whole(value).map(Some).map_err(serde::de::Error::custom)
    }
}

/// What is to be another one, and cannot be taken away: `null` is none.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[allow(clippy::option_option)] // the three things that can be said
pub(super) fn said_whole<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<i64>>, D::Error> {
    maybe_whole(deserializer).map(Some)
}

/// An object: serde would take an array of its members, too.
pub(super) fn object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if !value.is_object() {
        return Err(serde::de::Error::custom(format!("expected an object, found {value}")));
    }
    T::deserialize(value).map_err(serde::de::Error::custom)
}

pub(super) fn maybe_object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    object(value).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn given_object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

#[allow(clippy::option_option)] // the three things that can be said
pub(super) fn said_object<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    maybe_object(deserializer).map(Some)
}
