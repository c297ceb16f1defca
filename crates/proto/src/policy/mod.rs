//! Connections: who may use which client to reach which MCP servers. Default is deny.

mod again;
mod catalog;
mod decide;
mod records;

pub use catalog::CatalogEntry;
pub use decide::{Denial, DenialReason, Permit, Person, Policy, Question, Written};
pub use records::{
    Conditions, Connection, RegisteredResource, ReleasedClaim, ResourceAuthorizationServer,
    SubIdFormat, Subject,
};
