//! A request of a browser that was read and checked, and who has signed in.

use passavant_proto::{
    identifier::Issuer,
    oauth::{
        authorize::AuthorizationRequest,
        client::{Client, GovernedResource},
    },
    xaa::trust::Account,
};
use passavant_store::Session;

/// A request that was read and checked.
pub(super) struct Asked {
    pub(super) request: AuthorizationRequest,
    pub(super) client: Client,
    pub(super) governed: GovernedResource,
    /// Path and query it came with.
    pub(super) target: String,
}

/// Somebody who has signed in.
pub(super) struct Person {
    pub(super) session: Session,
    pub(super) issuer: Issuer,
    pub(super) account: Account,
    /// The secret of their cookie: what forms are bound to.
    pub(super) cookie: String,
}
