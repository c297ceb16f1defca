//! The server that a command administers.

use passavant_admin::client::{AdminClient, ServerClient};

/// The administration API, and one server that it administers.
pub(super) struct Api {
    pub(super) all: AdminClient,
    pub(super) server: ServerClient,
    pub(super) is_ras: bool,
    /// The options that select the same server again.
    pub(super) again: String,
}

impl Api {
    pub(super) fn new(all: AdminClient, ras: Option<&str>, again: String) -> Self {
        let server = ras.map_or_else(|| all.idp(), |name| all.ras(name));
        Self { all, server, is_ras: ras.is_some(), again }
    }
}
