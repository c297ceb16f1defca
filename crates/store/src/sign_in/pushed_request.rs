//! Pushed authorization requests (RFC 9126).

use crate::{
    database::{Store, StoreError},
    ledger::{AuditEvent, insert_audit},
    rows::{document, to_json},
};
use passavant_proto::{oauth::authorize::AuthorizationRequest, time::Timestamp};
use sqlx::Row;

/// A pushed authorization request (RFC 9126).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// The client that pushed it.
    pub client_id: String,
    /// The checked request.
    pub request: AuthorizationRequest,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Store {
    /// Stores a pushed request for one use.
    pub async fn keep_pushed_request(
        &self,
        hash: &str,
        request: &PushedRequest,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO pushed_requests (hash, client_id, document, expires_at) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(hash)
        .bind(request.client_id.as_str())
        .bind(to_json(&request.request, "pushed request")?)
        .bind(request.expires_at.0)
        .execute(&mut *transaction)
        .await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Opens a pushed request that has not been used: the first time within its lifetime, and for
    /// ten minutes after that, while the person signs in. [`Store::keep_authorization_code`] uses
    /// it up, in the transaction that stores the code.
    pub async fn open_pushed_request(
        &self,
        hash: &str,
        client_id: &str,
        now: Timestamp,
    ) -> Result<Option<PushedRequest>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "UPDATE pushed_requests SET opened_at = COALESCE(opened_at, $2) \
             WHERE hash = $1 AND client_id = $3 AND used_at IS NULL AND \
             ((opened_at IS NULL AND expires_at > $2) OR opened_at + 600 > $2) \
             RETURNING client_id, document, expires_at",
        )
        .bind(hash)
        .bind(now.0)
        .bind(client_id)
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let Some(row) = row else { return Ok(None) };
        let request = document(&row, "document", "pushed request");
        let Some(request) = self.row("pushed request", hash, request)? else { return Ok(None) };
        let (client_id, expires_at) = (row.try_get("client_id")?, row.try_get("expires_at")?);
        Ok(Some(PushedRequest { client_id, request, expires_at: Timestamp(expires_at) }))
    }
}
