//! Connections, when what they name is deleted.

use crate::{
    database::StoreError,
    directory::{Put, remove, remove_if_it_names, write},
    record::Record,
    rows::document,
};
use passavant_proto::policy::{Connection, Subject};
use sqlx::{Any, Transaction};

/// What is left of a connection without what is deleted.
pub(crate) enum Leaves {
    /// All: it did not name it.
    NotThere,
    /// What it is for besides.
    Others,
    /// Nothing that it would be for.
    Nothing,
}

/// Takes something that is deleted out of all connections, by `leave`; which were changed, and how many went. One that cannot be
/// read goes where `named` may be in it: a later record of the name gets nothing by it.
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
        let Ok(mut connection) = document::<Connection>(row, "document", Connection::KIND) else {
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

/// Takes somebody out of whom a connection is for. One that is for nobody else stays, for nobody: an administrator sees it.
pub(crate) fn leave_subjects(connection: &mut Connection, gone: &Subject) -> Leaves {
    let before = connection.subjects.len();
    connection.subjects.retain(|subject| subject != gone);
    if connection.subjects.len() < before { Leaves::Others } else { Leaves::NotThere }
}
