//! Devices that show a code, which a person types elsewhere (RFC 8628). Approval stores an
//! authorization code under the hash of the device code, and that is redeemed like every other
//! code.

use super::code::{AuthorizationCode, insert_code};
use crate::{
    database::{Store, StoreError, reading},
    ledger::{AuditEvent, insert_audit},
    rows::{document, to_json},
};
use passavant_proto::{oauth::authorize::AuthorizationRequest, time::Timestamp};
use sqlx::Row;

/// A device that waits for a person's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// Its request.
    pub request: AuthorizationRequest,
    /// The network address that the request came from.
    pub asked_from: String,
    /// When it requested the code.
    pub asked_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// The state that a polling device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Nobody has answered yet.
    Pending,
    /// Nobody has answered yet, and the device polled too soon.
    TooSoon,
    /// The person denied the request.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// The person approved: the code may be redeemed once.
    Answered,
    /// Unknown, another client's, or ended together with its client.
    Invalid,
}

impl Store {
    /// Stores the request of a device.
    pub async fn keep_device_code(
        &self,
        hash: &str,
        user_code_hash: &str,
        device: &DeviceCode,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "INSERT INTO device_codes \
             (hash, user_code_hash, client_id, document, asked_from, asked_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(hash)
        .bind(user_code_hash)
        .bind(device.request.client_id.as_str())
        .bind(to_json(&device.request, "device code")?)
        .bind(device.asked_from.as_str())
        .bind(device.asked_at.0)
        .bind(device.expires_at.0)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The waiting device with this user code.
    pub async fn waiting_device(
        &self,
        user_code_hash: &str,
        now: Timestamp,
    ) -> Result<Option<DeviceCode>, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT document, asked_from, asked_at, expires_at FROM device_codes \
                 WHERE user_code_hash = $1 AND answered_at IS NULL AND used_at IS NULL \
                 AND expires_at > $2",
            )
            .bind(user_code_hash)
            .bind(now.0)
        )?;
        let Some(row) = row else { return Ok(None) };
        let request = document(&row, "document", "device code");
        let Some(request) = self.row("device code", user_code_hash, request)? else {
            return Ok(None);
        };
        Ok(Some(DeviceCode {
            request,
            asked_from: row.try_get("asked_from")?,
            asked_at: Timestamp(row.try_get("asked_at")?),
            expires_at: Timestamp(row.try_get("expires_at")?),
        }))
    }

    /// Answers a waiting device: with the code that it may redeem, or with a denial. `false` if it
    /// does not wait any more.
    pub async fn answer_device(
        &self,
        user_code_hash: &str,
        code: Option<&AuthorizationCode>,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        // A denial uses it up at once.
        let used = code.is_none().then_some(now.0);
        let row = sqlx::query(
            "UPDATE device_codes SET answered_at = $2, used_at = $3 \
             WHERE user_code_hash = $1 AND answered_at IS NULL AND used_at IS NULL AND expires_at > $2 \
             RETURNING hash",
        )
        .bind(user_code_hash)
        .bind(now.0)
        .bind(used)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(false) };
        if let Some(code) = code {
            let hash: String = row.try_get("hash")?;
            insert_code(&mut transaction, &hash, code).await?;
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The state of a device, which may poll every `interval` seconds. Nothing is written if it
    /// polls too soon, or after the answer.
    pub async fn poll_device(
        &self,
        hash: &str,
        client_id: &str,
        interval: i64,
        now: Timestamp,
    ) -> Result<DeviceState, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT client_id, expires_at, polled_at, answered_at, used_at FROM device_codes \
                 WHERE hash = $1",
            )
            .bind(hash)
        )?;
        let Some(row) = row else { return Ok(DeviceState::Invalid) };
        let time = |name: &str| row.try_get::<Option<i64>, _>(name);
        if row.try_get::<String, _>("client_id")? != client_id {
            return Ok(DeviceState::Invalid);
        }
        match (time("answered_at")?, time("used_at")?) {
            (Some(_), None) => return Ok(DeviceState::Answered),
            (Some(_), Some(_)) => return Ok(DeviceState::Denied),
            (None, Some(_)) => return Ok(DeviceState::Invalid),
            (None, None) => {}
        }
        if row.try_get::<i64, _>("expires_at")? <= now.0 {
            return Ok(DeviceState::Expired);
        }
        if time("polled_at")?.is_some_and(|polled| polled + interval > now.0) {
            return Ok(DeviceState::TooSoon);
        }
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "UPDATE device_codes SET polled_at = $2 \
             WHERE hash = $1 AND (polled_at IS NULL OR polled_at + $3 <= $2)",
        )
        .bind(hash)
        .bind(now.0)
        .bind(interval)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(if done.rows_affected() == 1 { DeviceState::Pending } else { DeviceState::TooSoon })
    }
}
