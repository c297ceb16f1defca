//! People at the identity provider: users, groups, what they enrolled, their sign-ins.

use super::written::{given, maybe_whole, said};
use passavant_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A person to add.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What they type to sign in; compared without regard to case.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^(?!\\s*\\.{1,2}\\s*$)[^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]*[^\\s\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb][^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]*$"
    )]
    pub username: String,
    /// Their address; RASes may find their account by it.
    #[serde(default)]
    #[schema(
        max_length = 254,
        pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s@\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub email: Option<String>,
    /// It is known to be theirs.
    #[serde(default)]
    pub email_verified: bool,
    /// What others call them.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Their given name.
    #[serde(default)]
    pub given_name: Option<String>,
    /// Their family name.
    #[serde(default)]
    pub family_name: Option<String>,
    /// Groups they are in, by name.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// What else is known of them, by the names of SCIM: `employeeNumber`, `department`, …
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// 12 characters or more; without one they cannot sign in with a password.
    #[serde(default)]
    #[schema(format = "password", min_length = 12, max_length = 1024)]
    pub password: Option<String>,
}

/// What is to be another about a person.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option)] // `null` takes away
pub struct UserChange {
    /// What they type to sign in.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 256,
        pattern = "^(?!\\s*\\.{1,2}\\s*$)[^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]*[^\\s\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb][^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]*$"
    )]
    pub username: Option<String>,
    /// Their address; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 254, pattern = "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s@\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub email: Option<Option<String>>,
    /// Whether it is known to be theirs.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub email_verified: Option<bool>,
    /// What others call them; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub display_name: Option<Option<String>>,
    /// Their given name; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub given_name: Option<Option<String>>,
    /// Their family name; `null` takes it away.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub family_name: Option<Option<String>>,
    /// All groups they are in, by name.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub groups: Option<BTreeSet<String>>,
    /// All that is known of them besides, by the names of SCIM.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub attributes: Option<BTreeMap<String, String>>,
}

/// A person.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
pub struct UserView {
    /// `sub` of their ID tokens. It never changes.
    pub id: String,
    /// What they type to sign in.
    pub username: String,
    /// Their address.
    pub email: Option<String>,
    /// It is known to be theirs.
    pub email_verified: bool,
    /// What others call them.
    pub display_name: Option<String>,
    /// Their given name.
    pub given_name: Option<String>,
    /// Their family name.
    pub family_name: Option<String>,
    /// Groups they are in.
    pub groups: BTreeSet<String>,
    /// What else the directory that provisions them says, by the names of SCIM.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Whether they can sign in with a password.
    pub has_password: bool,
    /// Switched off by an administrator.
    pub disabled: bool,
    /// Switched off by the directory that provisions them.
    #[serde(default)]
    pub inactive_there: bool,
}

/// A new password.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// 12 characters or more.
    #[schema(format = "password", min_length = 12, max_length = 1024)]
    pub password: String,
}

/// A one-time link to make.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRecoveryLink {
    /// After how many hours it ends, 168 at most; 24 if it is absent.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 168)]
    pub hours: Option<i64>,
    /// Ends their passkeys, one-time passwords, password and sign-ins at once: the link is what is left.
    #[serde(default)]
    pub forget_factors: bool,
}

/// A link by which a person gets in once, to make another way to sign in.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoveryLinkView {
    /// The link, shown once: it is stored as a hash. Give it to the person by a way that is known to be
    /// theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When it ends, in seconds since 1970.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
}

/// A group to add.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Its name, which never changes: policy and tokens say it.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^(?!\\.{1,2}$)[^\\s\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]([^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]*[^\\s\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb])?$"
    )]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// What is to be another about a group.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// What it is for.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
}

/// A group.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// An installation of Passavant that somebody enrolled.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InstallationView {
    /// Its id.
    pub id: String,
    /// Whose it is, by user name (by id where nobody has it any more).
    pub user: String,
    /// The computer, as they call it.
    pub device: String,
    /// When it was enrolled, in seconds since 1970.
    #[schema(value_type = i64)]
    pub enrolled_at: Timestamp,
    /// When it was used last, to the hour.
    #[schema(value_type = i64)]
    pub used_at: Timestamp,
}

/// A sign-in that stands.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its id: `sid` of ID tokens.
    pub id: String,
    /// Who has signed in: by user name at the IdP, by account at a RAS.
    pub user: String,
    /// When, in seconds since 1970; absent if the identity provider in front does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub signed_in_at: Option<Timestamp>,
    /// The class that it reached.
    pub acr: String,
    /// By which means.
    pub amr: Vec<String>,
    /// When the browser has to sign in again; what it brought may last longer.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
}

/// Whose.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoseQuery {
    /// Only this person's: user name or id at the IdP, account at a RAS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}
