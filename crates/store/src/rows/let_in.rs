//! The stored form of who first authorized a self-registered client.

use super::Stored;
use crate::people::LetIn;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct LetInRow {
    client: String,
    person: String,
}

impl Stored for LetIn {
    type Row = LetInRow;

    fn row(&self) -> LetInRow {
        let Self { client, person } = self.clone();
        LetInRow { client, person }
    }

    fn of_row(row: LetInRow) -> Self {
        let LetInRow { client, person } = row;
        Self { client, person }
    }
}
