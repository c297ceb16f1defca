//! Updates connections when a record that they name is deleted.

use crate::{
    database::StoreError,
    directory::{Put, remove, remove_if_it_names, write},
    record::Record,
    rows::record,
};
use passavant_proto::policy::{Connection, Subject};
use sqlx::{Any, Transaction};

/// What remains of a connection without the deleted record.
pub(crate) enum Leaves {
    /// Everything: the connection did not name it.
    NotThere,
    /// The connection remains, for its other members.
    Others,
    /// Nothing: the connection would be empty.
    Nothing,
}

/// Removes a deleted record from all connections, by `leave`. Returns which connections were
/// changed, and how many were deleted. A connection that cannot be read is deleted if it may
/// contain `named`, so that a later record of that name gains nothing from it.
pub(crate) async fn leave_connections(
    transaction: &mut Transaction<'static, Any>,
    named: Option<&str>,
    leave: impl Fn(&mut Connection) -> Leaves + Send,
) -> Result<(Vec<String>, usize), StoreError> {
    let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
        .bind(Connection::KIND)
        .fetch_all(&mut **transaction)
        .await?;
    let (mut changed, mut gone) = (Vec::new(), 0);
    for row in &rows {
        let Ok(mut connection) = record::<Connection>(row) else {
            if let Some(named) = named {
                let went = remove_if_it_names(transaction, Connection::KIND, row, named).await?;
                gone += usize::from(went);
            }
            continue;
        };
        match leave(&mut connection) {
            Leaves::NotThere => {}
            Leaves::Others => {
                write(transaction, &connection, Put::Replace).await?;
                changed.push(connection.id);
            }
            Leaves::Nothing => {
                gone += usize::from(remove(transaction, Connection::KIND, &connection.id).await?);
            }
        }
    }
    Ok((changed, gone))
}

/// Removes a subject from a connection. A connection without other subjects stays, for nobody, so
/// that an administrator sees it.
pub(crate) fn leave_subjects(connection: &mut Connection, gone: &Subject) -> Leaves {
    let before = connection.subjects.len();
    connection.subjects.retain(|subject| subject != gone);
    if connection.subjects.len() < before { Leaves::Others } else { Leaves::NotThere }
}
