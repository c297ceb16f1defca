//! The stored form of people of the company, and of their groups.

use super::Stored;
use crate::people::{Group, User};
use passavant_proto::{
    identifier::SubjectIssuer,
    saml::{NameId, SamlSubject},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
pub struct UserRow {
    id: String,
    username: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family_name: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    password_hash: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saml_subject: Option<SamlSubjectRow>,
    /// By whomever: versions that do not know the next two keep the person out all the same.
    #[serde(default)]
    disabled: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    inactive_there: bool,
    /// Said only if the directory has switched them off; otherwise `disabled` says it.
    #[serde(default, skip_serializing_if = "is_false")]
    disabled_here: bool,
}

#[derive(Serialize, Deserialize)]
struct SamlSubjectRow {
    issuer: SubjectIssuer,
    name_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_qualifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sp_name_qualifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sp_provided_id: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Stored for User {
    type Row = UserRow;

    fn row(&self) -> UserRow {
        let disabled = self.is_off();
        let Self {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            attributes,
            saml_subject,
            disabled_here,
            inactive_there,
        } = self.clone();
        let saml_subject = saml_subject.map(|SamlSubject { issuer, name_id }| {
            let NameId { value, format, name_qualifier, sp_name_qualifier, sp_provided_id } =
                name_id;
            SamlSubjectRow {
                issuer,
                name_id: value,
                format,
                name_qualifier,
                sp_name_qualifier,
                sp_provided_id,
            }
        });
        UserRow {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            attributes,
            saml_subject,
            disabled,
            inactive_there,
            disabled_here: disabled_here && inactive_there,
        }
    }

    fn of_row(row: UserRow) -> Self {
        let UserRow {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            attributes,
            saml_subject,
            disabled,
            inactive_there,
            disabled_here,
        } = row;
        let saml_subject = saml_subject.map(|held| {
            let SamlSubjectRow {
                issuer,
                name_id: value,
                format,
                name_qualifier,
                sp_name_qualifier,
                sp_provided_id,
            } = held;
            let name_id =
                NameId { value, format, name_qualifier, sp_name_qualifier, sp_provided_id };
            SamlSubject { issuer, name_id }
        });
        // A version that does not know them may have changed `disabled` alone.
        let inactive_there = disabled && inactive_there;
        Self {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            password_hash,
            attributes,
            saml_subject,
            disabled_here: if inactive_there { disabled_here } else { disabled },
            inactive_there,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct GroupRow {
    name: String,
    #[serde(default)]
    description: String,
}

impl Stored for Group {
    type Row = GroupRow;

    fn row(&self) -> GroupRow {
        let Self { name, description } = self.clone();
        GroupRow { name, description }
    }

    fn of_row(row: GroupRow) -> Self {
        let GroupRow { name, description } = row;
        Self { name, description }
    }
}
