//! SAML 2.0: how an identity provider and its people are called. Reading what it sends is the work of
//! a crate of its own, since it takes a reader of XML.

use crate::identifier::SubjectIssuer;
use serde_json::{Map, Value, json};

/// Name identifiers that are another one at each sign-in (Core 8.3.8): nobody is known by one.
pub const FORMAT_TRANSIENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient";
/// Name identifiers that no other person ever gets (Core 8.3.7).
pub const FORMAT_PERSISTENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
/// Name identifiers of which nothing is said (Core 8.3.1): the form of those that name none.
pub const FORMAT_UNSPECIFIED: &str = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified";

/// Formats of name identifiers that have a short name in commands.
pub const FORMATS: [(&str, &str); 3] = [
    ("persistent", FORMAT_PERSISTENT),
    ("unspecified", FORMAT_UNSPECIFIED),
    ("email", "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"),
];

/// An identity provider that speaks SAML 2.0, as its metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamlProvider {
    /// Its entity ID.
    pub entity_id: SubjectIssuer,
    /// Where it takes requests by redirect.
    pub redirect: Option<String>,
    /// Where it takes requests by POST.
    pub post: Option<String>,
    /// The certificates that it signs with: DER in base64.
    pub certificates: Vec<String>,
    /// Requests to it are signed.
    pub sign_requests: bool,
    /// The format of the name identifiers that people are known by.
    pub name_id_format: String,
    /// The attribute that people are known by, instead of their name identifier.
    pub subject_attribute: Option<String>,
}

/// A name identifier (Core 2.2.3), value by value as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameId {
    /// The identifier.
    pub value: String,
    /// `Format`.
    pub format: Option<String>,
    /// `NameQualifier`.
    pub name_qualifier: Option<String>,
    /// `SPNameQualifier`.
    pub sp_name_qualifier: Option<String>,
    /// `SPProvidedID`.
    pub sp_provided_id: Option<String>,
}

impl NameId {
    /// Its format, with the meaning of an absent one.
    pub fn format(&self) -> &str {
        self.format.as_deref().unwrap_or(FORMAT_UNSPECIFIED)
    }
}

/// What a person is called by an identity provider that speaks SAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamlSubject {
    /// Its entity ID.
    pub issuer: SubjectIssuer,
    /// The name identifier.
    pub name_id: NameId,
}

impl SamlSubject {
    /// The subject identifier of an ID-JAG (`sub_id`, ID-JAG draft section 3.1): each member is there
    /// exactly when the name identifier has it.
    pub fn sub_id(&self) -> Value {
        let NameId { value, format, name_qualifier, sp_name_qualifier, sp_provided_id } =
            &self.name_id;
        let mut members = Map::new();
        members.insert("format".to_owned(), json!("saml-nameid"));
        members.insert("issuer".to_owned(), json!(self.issuer.as_str()));
        members.insert("nameid".to_owned(), json!(value));
        for (name, held) in [
            ("nameid_format", format),
            ("name_qualifier", name_qualifier),
            ("sp_name_qualifier", sp_name_qualifier),
            ("sp_provided_id", sp_provided_id),
        ] {
            members.extend(held.iter().map(|held| (name.to_owned(), json!(held))));
        }
        Value::Object(members)
    }
}
