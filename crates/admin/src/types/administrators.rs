//! Administrators.

use super::written::{RoleName, given, maybe_whole};
use passavant_proto::time::Timestamp;
use passavant_store::AdminRole;
use serde::{Deserialize, Serialize};
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
