//! What came by way of an account, an issuer or an MCP server, and ends with it.

use super::{code::end_codes, session::end_sign_ins};
use crate::{
    database::StoreError,
    rows::{may_name, parse_row},
};
use passavant_proto::{identifier::Resource, time::Timestamp};
use serde::Deserialize;
use serde_json::Value;
use sqlx::{Any, Row, Transaction};

/// Ends what an account had: sign-ins, refresh tokens, tokens on record.
pub(crate) async fn end_account(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    end_sign_ins(transaction, id, now).await?;
    let end = "UPDATE grants SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL";
    sqlx::query(end).bind(id).bind(now.0).execute(&mut **transaction).await?;
    Ok(())
}

/// Ends tokens on record of another party: what a trusted issuer brought, or ID-JAGs for an authorization
/// server.
pub(crate) async fn end_party(
    transaction: &mut Transaction<'static, Any>,
    party: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let end = "UPDATE grants SET revoked_at = $2 WHERE party = $1 AND revoked_at IS NULL";
    sqlx::query(end).bind(party).bind(now.0).execute(&mut **transaction).await?;
    Ok(())
}

/// Ends what came by way of a trusted issuer: sign-ins there with their tokens, and tokens on
/// record.
pub(crate) async fn end_issuer(
    transaction: &mut Transaction<'static, Any>,
    issuer: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    end_party(transaction, issuer, now).await?;
    // A quoted identifier occurs nowhere else in a stored sign-in, and `replace` is case-sensitive
    // on every database.
    let quoted = Value::from(issuer).to_string();
    for statement in [
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE revoked_at IS NULL AND sid IN \
         (SELECT sid FROM sessions WHERE replace(authentication, $1, '') <> authentication)",
        "UPDATE sessions SET ended_at = $2 \
         WHERE ended_at IS NULL AND replace(authentication, $1, '') <> authentication",
    ] {
        sqlx::query(statement)
            .bind(quoted.as_str())
            .bind(now.0)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// Ends what an account has by way of a trusted issuer, but for tokens that were issued
/// for assertions from after `until`, if there is such a time. Returns how many tokens and sign-ins that were.
pub(crate) async fn end_account_of_issuer(
    transaction: &mut Transaction<'static, Any>,
    (account, issuer): (&str, &str),
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let end = "UPDATE grants SET revoked_at = $3 WHERE user_id = $1 AND party = $2 \
               AND revoked_at IS NULL AND (asserted_at IS NULL OR asserted_at <= $4)";
    let end = sqlx::query(end).bind(account).bind(issuer).bind(now.0);
    let end = end.bind(until.map_or(i64::MAX, |until| until.0));
    let mut gone = end.execute(&mut **transaction).await?.rows_affected();
    let quoted = Value::from(issuer).to_string();
    for statement in [
        "UPDATE refresh_tokens SET revoked_at = $3 WHERE revoked_at IS NULL AND user_id = $1 \
         AND sid IN (SELECT sid FROM sessions \
         WHERE user_id = $1 AND replace(authentication, $2, '') <> authentication)",
        "UPDATE sessions SET ended_at = $3 WHERE ended_at IS NULL AND user_id = $1 \
         AND replace(authentication, $2, '') <> authentication",
    ] {
        let end = sqlx::query(statement).bind(account).bind(quoted.as_str()).bind(now.0);
        gone += end.execute(&mut **transaction).await?.rows_affected();
    }
    Ok(gone)
}

/// Ends what people had by way of an upstream.
pub(crate) async fn end_upstream(
    transaction: &mut Transaction<'static, Any>,
    name: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE revoked_at IS NULL AND sid IN \
         (SELECT sid FROM upstream_sessions WHERE upstream = $1)",
        "UPDATE sessions SET ended_at = $2 WHERE ended_at IS NULL AND sid IN \
         (SELECT sid FROM upstream_sessions WHERE upstream = $1)",
    ] {
        sqlx::query(statement).bind(name).bind(now.0).execute(&mut **transaction).await?;
    }
    sqlx::query("DELETE FROM upstream_sessions WHERE upstream = $1")
        .bind(name)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The MCP server that a refresh token is for.
#[derive(Deserialize)]
struct For {
    #[serde(default)]
    resource: Option<Resource>,
}

/// Ends refresh tokens and codes for an MCP server, because a later one of the same name is a
/// different server. Those that name no server, such as an identity provider's own, stay.
pub(crate) async fn end_resource(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    end_codes(transaction, now, |code| {
        code.resource.as_ref().is_some_and(|resource| resource.normalized() == id)
    })
    .await?;
    let live =
        "SELECT hash, document FROM refresh_tokens WHERE revoked_at IS NULL AND expires_at > $1";
    let rows = sqlx::query(live).bind(now.0).fetch_all(&mut **transaction).await?;
    for row in &rows {
        let of_it = match parse_row::<For>(row.try_get("document")?) {
            Ok(held) => held.resource.is_some_and(|resource| resource.normalized() == id),
            // A token that cannot be read ends if it may name the server.
            Err(_) => may_name(row.try_get("document")?, id),
        };
        if of_it {
            let hash: &str = row.try_get("hash")?;
            sqlx::query("UPDATE refresh_tokens SET revoked_at = $2 WHERE hash = $1")
                .bind(hash)
                .bind(now.0)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}
