//! What a client got, which ends with it.

use crate::{database::StoreError, rows::document};
use passavant_proto::{oauth::authorize::AuthorizationRequest, time::Timestamp};
use sqlx::{Any, Row, Transaction};

/// Ends what a client had: codes, pushed requests, refresh tokens, tokens on record.
pub(crate) async fn end_client(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE client_id = $1 AND revoked_at IS NULL",
        "UPDATE pushed_requests SET used_at = $2 WHERE client_id = $1 AND used_at IS NULL",
        "UPDATE device_codes SET used_at = $2 WHERE client_id = $1 AND used_at IS NULL",
        "UPDATE grants SET revoked_at = $2 WHERE client_id = $1 AND revoked_at IS NULL",
    ] {
        sqlx::query(statement).bind(id).bind(now.0).execute(&mut **transaction).await?;
    }
    // A code says in its document whose it is.
    let sql =
        "SELECT hash, document FROM authorization_codes WHERE used_at IS NULL AND expires_at > $1";
    let codes = sqlx::query(sql).bind(now.0).fetch_all(&mut **transaction).await?;
    for row in &codes {
        // A code that cannot be read is nobody's: it ends too.
        let request = document::<AuthorizationRequest>(row, "document", "authorization code");
        if request.map_or(true, |request| request.client_id == id) {
            let hash: String = row.try_get("hash")?;
            sqlx::query("UPDATE authorization_codes SET used_at = $2 WHERE hash = $1")
                .bind(hash)
                .bind(now.0)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}
