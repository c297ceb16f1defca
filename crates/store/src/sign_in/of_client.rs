//! What a client got, and what ends with the client.

use super::code::end_codes;
use crate::database::StoreError;
use passavant_proto::time::Timestamp;
use sqlx::{Any, Transaction};

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
    end_codes(transaction, now, |code| code.client_id == id).await
}
