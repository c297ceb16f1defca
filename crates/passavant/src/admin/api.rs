//! The server that a command is about.

use passavant_admin::client::{AdminClient, ServerClient};

/// The administration API, and one server behind it.
pub(super) struct Api {
    pub(super) all: AdminClient,
    pub(super) server: ServerClient,
    pub(super) is_ras: bool,
    /// How the same place is named on a command line again.
    pub(super) again: String,
}

impl Api {
    pub(super) fn new(all: AdminClient, ras: Option<&str>, again: String) -> Self {
        let server = ras.map_or_else(|| all.idp(), |name| all.ras(name));
        Self { all, server, is_ras: ras.is_some(), again }
    }
}
