//! Administrators with names: what their tokens are checked by, and what they may do.

use crate::{
    database::StoreError,
    directory::{Generation, Put, remove, write},
    record::Record,
    rows::document,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProof {
    /// SHA-256 of the key that proves a request.
    pub stored_key: String,
    /// The key that proves an answer.
    pub server_key: String,
}

/// An administrator of one authorization server, by the name in its audit rows.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What else an act is done on: looked at in its own transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The record is still as it was when it was read.
    pub expects: Option<Expects>,
    /// What it was checked against is still the policy.
    pub policy: Option<Generation>,
    /// It is done once, however often it is asked for.
    pub once: Option<Once>,
    /// It takes what only owners may from this administrator: another one has to be there who may.
    pub leaves_an_owner_beside: Option<String>,
}

/// A record as somebody has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expects {
    /// [`Record::KIND`].
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// What it was ([`Store::tagged`](crate::Store::tagged)).
    pub tag: String,
}

/// A request that may come again (its sender did not get the answer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The hash of the idempotency key, and of who sent it.
    pub key: String,
    /// The hash of what is asked for.
    pub request: String,
    /// Until when it is known.
    pub forget_after: Timestamp,
}

/// An act that was done before, by its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoneBefore {
    /// The hash of what was asked for then.
    pub request: String,
    /// HTTP status and body of the answer; none where nobody wrote it down in time.
    pub answer: Option<(u16, String)>,
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
