//! Authorization codes. Looking one up changes nothing; the entry that records a grant uses it up.

use super::session::Session;
use crate::{
    database::{Store, StoreError, reading},
    ledger::{AuditEvent, insert_audit},
    rows::{document, to_json},
};
use passavant_proto::{oauth::authorize::AuthorizationRequest, time::Timestamp};
use sqlx::{Any, Row, Transaction};

/// What a code stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// The session it came from.
    pub sid: String,
    /// The family of the tokens that it is exchanged for.
    pub family: String,
    /// The authorization request that it responds to.
    pub request: AuthorizationRequest,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// The state of a presented code. Looking it up does not use it up: the entry that records the
/// grant does ([`crate::Entry::code`]).
#[derive(Clone, Debug)]
pub enum CodeState {
    /// It may be used.
    Live(Box<AuthorizationCode>, Session),
    /// It was used before. The caller judges whether that is an attack, by who presents it and with
    /// what.
    Used(Box<AuthorizationCode>, Session),
    /// Unknown, expired, or its session has ended.
    Invalid,
}

impl Store {
    /// Stores a code for one use.
    pub async fn keep_authorization_code(
        &self,
        hash: &str,
        code: &AuthorizationCode,
        pushed: Option<&str>,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(pushed) = pushed {
            let used = sqlx::query(
                "UPDATE pushed_requests SET used_at = $2 \
                 WHERE hash = $1 AND used_at IS NULL AND opened_at + 600 > $2",
            )
            .bind(pushed)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
            if used.rows_affected() == 0 {
                return Ok(false);
            }
        }
        insert_code(&mut transaction, hash, code).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Looks a code up.
    pub async fn authorization_code(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<CodeState, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT code.sid, code.family, code.document, code.expires_at, code.used_at, \
                 session.user_id, session.authentication, session.ended_at, \
                 session.expires_at AS session_expires_at \
                 FROM authorization_codes code JOIN sessions session ON session.sid = code.sid \
                 WHERE code.hash = $1",
            )
            .bind(hash)
        )?;
        let Some(row) = row else { return Ok(CodeState::Invalid) };
        let (sid, family): (String, String) = (row.try_get("sid")?, row.try_get("family")?);
        let request = document(&row, "document", "authorization code");
        let request = self.row("authorization code", &family, request)?;
        let authentication = document(&row, "authentication", "session");
        let authentication = self.row("session", &sid, authentication)?;
        let Some((request, authentication)) = request.zip(authentication) else {
            return Ok(CodeState::Invalid);
        };
        let session = Session {
            sid: sid.clone(),
            user_id: row.try_get("user_id")?,
            authentication,
            expires_at: Timestamp(row.try_get("session_expires_at")?),
        };
        let expires_at = Timestamp(row.try_get("expires_at")?);
        let code = AuthorizationCode { sid, family, request, expires_at };
        if row.try_get::<Option<i64>, _>("used_at")?.is_some() {
            return Ok(CodeState::Used(Box::new(code), session));
        }
        let live = code.expires_at > now && row.try_get::<Option<i64>, _>("ended_at")?.is_none();
        Ok(if live { CodeState::Live(Box::new(code), session) } else { CodeState::Invalid })
    }
}

/// Uses a code up; `false` if it is not live.
pub(crate) async fn use_code(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let used = sqlx::query(
        "UPDATE authorization_codes SET used_at = $2 \
         WHERE hash = $1 AND used_at IS NULL AND expires_at > $2",
    )
    .bind(hash)
    .bind(now.0)
    .execute(&mut **transaction)
    .await?;
    Ok(used.rows_affected() == 1)
}

/// Ends the live codes whose requests `ends` selects. A code that cannot be read is of no use to
/// anyone, and ends too.
pub(crate) async fn end_codes(
    transaction: &mut Transaction<'static, Any>,
    now: Timestamp,
    ends: impl Fn(&AuthorizationRequest) -> bool + Send,
) -> Result<(), StoreError> {
    let sql =
        "SELECT hash, document FROM authorization_codes WHERE used_at IS NULL AND expires_at > $1";
    let codes = sqlx::query(sql).bind(now.0).fetch_all(&mut **transaction).await?;
    for row in &codes {
        let request = document::<AuthorizationRequest>(row, "document", "authorization code");
        if request.map_or(true, |request| ends(&request)) {
            let hash: &str = row.try_get("hash")?;
            sqlx::query("UPDATE authorization_codes SET used_at = $2 WHERE hash = $1")
                .bind(hash)
                .bind(now.0)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

pub(crate) async fn insert_code(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    code: &AuthorizationCode,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO authorization_codes (hash, sid, family, document, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(hash)
    .bind(code.sid.as_str())
    .bind(code.family.as_str())
    .bind(to_json(&code.request, "authorization code")?)
    .bind(code.expires_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
