//! The stored form of an origin of client metadata documents.

use super::Stored;
use passavant_proto::xaa::trust::ClientHost;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct ClientHostRow {
    origin: String,
    #[serde(default)]
    disabled: bool,
}

impl Stored for ClientHost {
    type Row = ClientHostRow;

    fn row(&self) -> ClientHostRow {
        let Self { origin, disabled } = self.clone();
        ClientHostRow { origin, disabled }
    }

    fn of_row(row: ClientHostRow) -> Self {
        let ClientHostRow { origin, disabled } = row;
        Self { origin, disabled }
    }
}
