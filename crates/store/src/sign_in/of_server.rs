//! What came by way of an account, an issuer or an MCP server, and ends with it.

use crate::database::{StoreError, escaped};
use passavant_proto::{identifier::Resource, time::Timestamp};
use serde_json::Value;
use sqlx::{Any, Row, Transaction};

/// Ends what an account had: sign-ins, refresh tokens, tokens on record.
pub(crate) async fn end_account(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL",
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
        "UPDATE grants SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
    ] {
        sqlx::query(statement).bind(id).bind(now.0).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Ends what came by way of a trusted issuer: sign-ins there with what they brought, and tokens on record.
pub(crate) async fn end_issuer(
    transaction: &mut Transaction<'static, Any>,
    issuer: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let end = "UPDATE grants SET revoked_at = $2 WHERE party = $1 AND revoked_at IS NULL";
    sqlx::query(end).bind(issuer).bind(now.0).execute(&mut **transaction).await?;
    let sql = "SELECT sid, authentication FROM sessions \
               WHERE ended_at IS NULL AND authentication LIKE $1 ESCAPE '!'";
    let like = format!("%{}%", escaped(&Value::from(issuer).to_string()));
    let rows = sqlx::query(sql).bind(like).fetch_all(&mut **transaction).await?;
    for row in &rows {
        let read = serde_json::from_str::<Value>(row.try_get("authentication")?);
        // One that cannot be read ends too: it names the issuer.
        if read.is_ok_and(|read| read["issuer"] != issuer) {
            continue;
        }
        let sid: String = row.try_get("sid")?;
        for statement in [
            "UPDATE sessions SET ended_at = $2 WHERE sid = $1",
            "UPDATE refresh_tokens SET revoked_at = $2 WHERE sid = $1 AND revoked_at IS NULL",
            "UPDATE authorization_codes SET used_at = $2 WHERE sid = $1 AND used_at IS NULL",
        ] {
            sqlx::query(statement)
                .bind(sid.as_str())
                .bind(now.0)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Ends refresh tokens and codes for an MCP server: another one of the same name later is another one.
pub(crate) async fn end_resource(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    for (table, live, end) in [
        (
            "refresh_tokens",
            "SELECT hash, document FROM refresh_tokens WHERE revoked_at IS NULL AND expires_at > $1",
            "UPDATE refresh_tokens SET revoked_at = $2 WHERE hash = $1",
        ),
        (
            "authorization_codes",
            "SELECT hash, document FROM authorization_codes WHERE used_at IS NULL AND expires_at > $1",
            "UPDATE authorization_codes SET used_at = $2 WHERE hash = $1",
        ),
    ] {
        let rows = sqlx::query(live).bind(now.0).fetch_all(&mut **transaction).await?;
        for row in &rows {
            let read = serde_json::from_str::<Value>(row.try_get("document")?);
            let named = read.as_ref().ok().and_then(|read| read["resource"].as_str());
            let other = named.is_some_and(|named| {
                Resource::parse(named).is_ok_and(|resource| resource.normalized() != id)
            });
            // One that says no other MCP server, or cannot be read, ends too.
            if !other {
                tracing::debug!(table, "ended with its MCP server");
                let hash: String = row.try_get("hash")?;
                sqlx::query(end).bind(hash).bind(now.0).execute(&mut **transaction).await?;
            }
        }
    }
    Ok(())
}
