//! Administrators with names: what their tokens are verified against, and what they may do.

use crate::{
    database::StoreError,
    directory::{Generation, Put, remove, write},
    record::Record,
    rows::record,
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
    /// Reads everything, and takes away: switches people, clients and connections off, revokes
    /// installations.
    Helpdesk,
    /// Changes every record except administrators.
    Admin,
    /// May do everything.
    Owner,
}

impl AdminRole {
    /// Every role, from the least to the most powerful.
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

/// What a secret is verified against, without the secret being stored: someone who reads these
/// values can neither send a request nor learn the secret (RFC 5802 section 3, StoredKey and
/// ServerKey). A secret has 256 random bits, so a slow hash is not needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProof {
    /// SHA-256 of the key that proves a request.
    pub stored_key: String,
    /// The key that authenticates a response.
    pub server_key: String,
}

/// An administrator of one authorization server, by the name that its audit rows show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// The name, unique.
    pub name: String,
    /// What they may do.
    pub role: AdminRole,
    /// What their token is verified against.
    pub proof: StoredProof,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// When they were added.
    pub created_at: Timestamp,
    /// Who added them.
    pub added_by: String,
}

/// An administrator as they were when their request was authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestsOn {
    /// Their name.
    pub name: String,
    /// [`StoredProof::stored_key`] of the token that was presented.
    pub stored_key: String,
    /// The role that they had.
    pub role: AdminRole,
}

/// Further terms of an act, checked in its own transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The record must still be as it was when it was read.
    pub expects: Option<Expects>,
    /// The policy that the act was checked against must still be current.
    pub policy: Option<Generation>,
    /// The act is done only once, however often it is requested.
    pub once: Option<Once>,
    /// The act takes a power of owners away from this administrator, so another owner must exist.
    pub leaves_an_owner_beside: Option<String>,
}

/// A record as the requester read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expects {
    /// [`Record::KIND`].
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// The tag that it had ([`Store::tagged`](crate::Store::tagged)).
    pub tag: String,
}

/// A request that may be repeated because its sender did not receive the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The hash of the idempotency key and of its sender.
    pub key: String,
    /// The hash of the request.
    pub request: String,
    /// When it may be forgotten.
    pub forget_after: Timestamp,
}

/// An act that was done before with the same idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoneBefore {
    /// The hash of the earlier request.
    pub request: String,
    /// HTTP status and body of the response; `None` if it was not stored.
    pub answer: Option<(u16, String)>,
}

impl Record for Administrator {
    const KIND: &'static str = "administrator";

    fn id(&self) -> String {
        self.name.clone()
    }
}

/// Ends the token of every administrator. An owner has to renew them.
pub(crate) async fn end_administrators(
    transaction: &mut Transaction<'static, Any>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
        .bind(Administrator::KIND)
        .fetch_all(&mut **transaction)
        .await?;
    for row in &rows {
        let Ok(mut held) = record::<Administrator>(row) else {
            // If the record became readable again, the earlier token would be accepted.
            remove(transaction, Administrator::KIND, row.try_get("id")?).await?;
            continue;
        };
        held.expires_at = held.expires_at.min(now);
        // Ends the token even on nodes whose clocks are behind.
        held.proof = StoredProof { stored_key: String::new(), server_key: String::new() };
        write(transaction, &held, Put::Replace).await?;
    }
    Ok(())
}
