//! Self-registered clients, and the people who first authorized them.

use crate::{
    database::{Store, StoreError, reading},
    directory::{Put, read, remove, write},
    ledger::{AuditEvent, insert_audit},
    record::{Record, record},
    sign_in::end_client,
};
use passavant_proto::{oauth::client::Client, time::Timestamp};
use sqlx::Row;

/// The person who first authorized a self-registered client.
#[derive(Clone)]
pub(crate) struct LetIn {
    pub(crate) client: String,
    pub(crate) person: String,
}
record!(LetIn, "let in", |l| l.client.clone());

impl Store {
    /// Adds a self-registered client. This begins no new generation: no decision rests on the
    /// absence of such a client, and each one is read when it is used.
    pub async fn put_stranger(&self, client: &Client, event: AuditEvent) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        write(&mut transaction, client, Put::Create).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Notes that a person has authorized a self-registered client. Returns `false` if they have
    /// already been the first for `most` others, or if the client was deleted.
    pub async fn let_in(
        &self,
        client: &str,
        person: &str,
        most: usize,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        let Some(mut found) = read::<Client>(&mut transaction, client).await? else {
            return Ok(false);
        };
        let Some(registered) = &mut found.registered else { return Ok(false) };
        let mine = LetIn { client: client.to_owned(), person: person.to_owned() };
        let known = sqlx::query("SELECT person FROM let_ins WHERE client = $1").bind(client);
        if known.fetch_optional(&mut *transaction).await?.is_some() {
            // Only the first person counts.
            return Ok(true);
        }
        let held = sqlx::query("SELECT COUNT(*) FROM let_ins WHERE person = $1").bind(person);
        let held: i64 = held.fetch_one(&mut *transaction).await?.try_get(0)?;
        if usize::try_from(held).is_ok_and(|held| held >= most) {
            return Ok(false);
        }
        registered.used = true;
        write(&mut transaction, &found, Put::Replace).await?;
        write(&mut transaction, &mine, Put::Create).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Deletes a self-registered client with everything it had.
    pub async fn forget_stranger(&self, id: &str, event: AuditEvent) -> Result<(), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        for kind in [Client::KIND, LetIn::KIND] {
            remove(&mut transaction, kind, id).await?;
        }
        end_client(&mut transaction, id, event.at).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Whether a client has a live refresh token.
    pub async fn has_live_tokens(&self, client: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM refresh_tokens WHERE client_id = $1 AND revoked_at IS NULL \
                   AND replaced_at IS NULL AND idle_expires_at > $2 AND expires_at > $2 LIMIT 1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(client).bind(now.0))?;
        Ok(row.is_some())
    }
}
