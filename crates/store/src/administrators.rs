//! Administrators with names: what their tokens are checked by, and what they may do.

use crate::{
    database::{Store, StoreError, document},
    directory::{Put, Record, read, remove, write},
    ledger::{AuditEvent, insert_audit},
};
use passavant_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Any, Row, Transaction};

/// What an administrator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRole {
    /// Reads everything, changes nothing.
    Auditor,
    /// Reads, and takes away: switches people, clients and connections off, revokes installations.
    Helpdesk,
    /// Changes every record but administrators.
    Admin,
    /// Everything.
    Owner,
}

impl AdminRole {
    /// Every role, least first.
    pub const ALL: [Self; 4] = [Self::Auditor, Self::Helpdesk, Self::Admin, Self::Owner];

    /// The stored word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Helpdesk => "helpdesk",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// What a secret is checked by without being held: whoever reads these can neither send a request nor learn the
/// secret (RFC 5802 section 3, StoredKey and ServerKey). A secret has 256 random bits, so that nothing has to be slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredProof {
    /// SHA-256 of the key that proves a request.
    pub stored_key: String,
    /// The key that proves an answer.
    pub server_key: String,
}

/// An administrator of one authorization server, by the name in its audit rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Administrator {
    /// The name; never two at once.
    pub name: String,
    /// What they may do.
    pub role: AdminRole,
    /// What their token is checked by.
    pub proof: StoredProof,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// When they were added.
    pub created_at: Timestamp,
    /// Who added them.
    #[serde(default)]
    pub added_by: String,
}

/// An administrator as they were when they were let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestsOn {
    /// Their name.
    pub name: String,
    /// [`StoredProof::stored_key`] of the token that was presented.
    pub stored_key: String,
    /// What they could do.
    pub role: AdminRole,
}

impl Record for Administrator {
    const KIND: &'static str = "administrator";

    fn id(&self) -> String {
        self.name.clone()
    }
}

/// Ends the token of every administrator: an owner renews them.
pub(crate) async fn end_administrators(
    transaction: &mut Transaction<'static, Any>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
        .bind(Administrator::KIND)
        .fetch_all(&mut **transaction)
        .await?;
    for row in &rows {
        let Ok(mut held) = document::<Administrator>(row, "document", Administrator::KIND) else {
            // Whoever could read it again would let them in by the token of before.
            remove(transaction, Administrator::KIND, row.try_get("id")?).await?;
            continue;
        };
        held.expires_at = held.expires_at.min(now);
        // Whatever the clocks of other nodes say.
        held.proof = StoredProof { stored_key: String::new(), server_key: String::new() };
        write(transaction, &held, Put::Replace).await?;
    }
    Ok(())
}

/// The administrator behind a change was looked at in its own transaction.
pub(crate) struct Checked(());

impl Store {
    /// Begins a transaction that changes the directory ([`Store::begin_revoking`]). Where it is an administrator's act,
    /// they are still one at this moment, by the same token and with the same role: whoever was removed since they were
    /// let in does nothing any more.
    pub(crate) async fn begin_act(
        &self,
        event: &AuditEvent,
    ) -> Result<(Transaction<'static, Any>, Checked), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if let Some(by) = &event.rests_on {
            let held = read::<Administrator>(&mut transaction, &by.name).await?;
            let stands = held.is_some_and(|held| {
                held.proof.stored_key == by.stored_key
                    && held.role == by.role
                    && event.at < held.expires_at
            });
            if !stands {
                return Err(StoreError::NoAdministrator);
            }
        }
        Ok((transaction, Checked(())))
    }

    /// Puts an act on record that changes something outside of the database: before it is done, and only while whoever
    /// does it is still an administrator.
    pub async fn record_act(&self, event: AuditEvent) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }
}
