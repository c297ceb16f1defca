//! The stored form of an audit event's details (all but time, person and client): texts by name.
//! Names that this version does not know are shown unchanged.

use super::parse_row;
use crate::database::StoreError;
use passavant_proto::event::Detail;
use std::collections::BTreeMap;

/// For the database.
pub(crate) fn details_row(details: &BTreeMap<Detail, String>) -> Result<String, StoreError> {
    serde_json::to_string(details).map_err(|e| StoreError::Document("audit", e.to_string()))
}

/// From the database. A row that cannot be read does not hide the others.
pub(crate) fn details_of_row(text: &str) -> BTreeMap<String, String> {
    parse_row(text).unwrap_or_else(|why| BTreeMap::from([("unreadable".to_owned(), why)]))
}
