//! The audit trail.

use super::written::OutcomeName;
use passavant_proto::time::Timestamp;
use passavant_store::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

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
