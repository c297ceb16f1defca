//! Administrators, signing keys, and the audit trail.

use super::written::{AlgorithmName, OutcomeName, RoleName, given, maybe_whole};
use passavant_proto::{jose::jwk::Algorithm, time::Timestamp};
use passavant_store::{AdminRole, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An administrator to add.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdministrator {
    /// Their name in the audit trail.
    #[schema(pattern = "^[a-z0-9][a-z0-9._@+-]{0,63}$")]
    pub name: String,
    /// What they may do.
    #[schema(value_type = RoleName)]
    pub role: AdminRole,
    /// Days that their token is good for: 90 unless given, 366 at most.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 1, maximum = 366)]
    pub days: Option<i64>,
}

/// What is to be another about an administrator.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdministratorChange {
    /// What they may do.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<RoleName>)]
    pub role: Option<AdminRole>,
}

/// Another token for an administrator.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Days that it is good for: 90 unless given, 366 at most.
    #[serde(default, deserialize_with = "maybe_whole")]
    #[schema(minimum = 1, maximum = 366)]
    pub days: Option<i64>,
}

/// An administrator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AdministratorView {
    /// Their name.
    pub name: String,
    /// What they may do.
    #[schema(value_type = RoleName)]
    pub role: AdminRole,
    /// When their token ends, in seconds since 1970.
    #[schema(value_type = i64)]
    pub expires_at: Timestamp,
    /// When they were added.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// By whom.
    pub added_by: String,
    /// Their token: only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What a signing key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is published, and signs later.
    Published,
    /// It signs.
    Signs,
    /// It verifies what it signed.
    Verifies,
    /// Nothing that it signed is alive any more.
    Ended,
}

/// A signing key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made, in seconds since 1970.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it begins to sign.
    #[schema(value_type = i64)]
    pub signs_from: Timestamp,
    /// What it does now.
    pub state: KeyState,
}

/// A new signing key.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// It signs at once: for a key that is in other hands.
    #[serde(default)]
    pub now: bool,
    /// The algorithm whose key is rotated; the server's own unless given.
    #[serde(default)]
    #[schema(value_type = Option<AlgorithmName>)]
    pub algorithm: Option<Algorithm>,
}

/// A signing key that was made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// Its id.
    pub kid: String,
    /// When it begins to sign, in seconds since 1970.
    #[schema(value_type = i64)]
    pub signs_from: Timestamp,
}

/// Which rows of the audit trail.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only this person's: user name or id at the IdP, account at a RAS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Only this client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Only `granted` or `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OutcomeName>)]
    pub outcome: Option<Outcome>,
    /// Only this event; with a dot at its end, all that begin so (`admin.`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Only acts of this administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only rows before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// How many at most: 50 unless given, 1000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
}

/// A row of the audit trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its place in the trail.
    pub id: i64,
    /// When, in seconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// What was asked for, or done.
    pub event: String,
    /// `granted` or `refused`.
    pub outcome: String,
    /// The id of the person.
    pub person: String,
    /// What they are called now, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person_name: Option<String>,
    /// The id of the client.
    pub client: String,
    /// Everything else by name.
    pub details: BTreeMap<String, String>,
}
