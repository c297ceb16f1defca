//! Sessions at the IdP, and at an authorization server where people sign in by way of a trusted
//! issuer.

use crate::{
    database::{Store, StoreError, reading},
    directory::read,
    ledger::{AuditEvent, assurance_rose, insert_audit, notify_all},
    rows::{document, to_json},
};
use passavant_proto::{oidc::authentication::Authentication, time::Timestamp, xaa::trust::Account};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

/// The session of a signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its public id, the `sid` of ID tokens.
    pub sid: String,
    /// Its person.
    pub user_id: String,
    /// How and when the person signed in.
    pub authentication: Authentication,
    /// When the browser has to sign in again.
    pub expires_at: Timestamp,
}

impl Store {
    /// Records that a person of a trusted issuer has signed in; `false` if their account was
    /// switched off or deleted since.
    pub async fn begin_account_session(
        &self,
        cookie_hash: &str,
        session: &Session,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let account = read::<Account>(&mut transaction, &session.user_id).await?;
        if account.is_none_or(|account| account.disabled) {
            return Ok(false);
        }
        insert_session(&mut transaction, cookie_hash, session).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The live session of a cookie.
    pub async fn session(
        &self,
        cookie_hash: &str,
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT sid, user_id, authentication, expires_at FROM sessions \
             WHERE cookie_hash = $1 AND ended_at IS NULL AND expires_at > $2",
            )
            .bind(cookie_hash)
            .bind(now.0)
        )?;
        let Some(row) = row else { return Ok(None) };
        self.row("session", row.try_get("sid")?, session_of(&row))
    }

    /// How the person of a session signed in, unless the session was ended.
    pub async fn session_authentication(
        &self,
        sid: &str,
    ) -> Result<Option<Authentication>, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query("SELECT authentication FROM sessions WHERE sid = $1 AND ended_at IS NULL")
                .bind(sid)
        )?;
        let Some(row) = row else { return Ok(None) };
        self.row("session", sid, document(&row, "authentication", "session"))
    }

    /// When a session ends by itself.
    pub async fn session_ends(&self, sid: &str) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT expires_at FROM sessions WHERE sid = $1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(sid))?;
        Ok(row.map(|row| row.try_get(0).map(Timestamp)).transpose()?)
    }

    /// Whether a session has not been ended. Tokens that outlive the browser's cookie still rest on
    /// an expired session.
    pub async fn session_not_ended(&self, sid: &str) -> Result<bool, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query("SELECT sid FROM sessions WHERE sid = $1 AND ended_at IS NULL").bind(sid)
        )?;
        Ok(row.is_some())
    }

    /// Sessions that have not ended, the newest first, 1000 at most: of one person, or of all.
    pub async fn sessions(
        &self,
        of: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let live = "ended_at IS NULL AND (expires_at > $1 OR EXISTS \
                    (SELECT 1 FROM refresh_tokens held WHERE held.sid = sessions.sid \
                     AND held.revoked_at IS NULL AND held.replaced_at IS NULL \
                     AND held.expires_at > $1 AND held.idle_expires_at > $1))";
        let whose = if of.is_some() { "user_id = $2 AND " } else { "" };
        let sql = format!(
            "SELECT sid, user_id, authentication, expires_at FROM sessions \
             WHERE {whose}{live} ORDER BY expires_at DESC, sid LIMIT 1000"
        );
        let query = || {
            let query = sqlx::query(AssertSqlSafe(sql.clone())).bind(now.0);
            match of {
                Some(of) => query.bind(of),
                None => query,
            }
        };
        let rows = reading!(self, fetch_all, query())?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in &rows {
            sessions.extend(self.row("session", row.try_get("sid")?, session_of(row))?);
        }
        Ok(sessions)
    }

    /// Ends a session and everything that descends from it; `false` if it does not exist or had
    /// ended.
    pub async fn end_session(
        &self,
        sid: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        let ended = end(&mut transaction, sid, now).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(ended)
    }
}

/// Lets a browser's cookie open nothing any more, since `next` begins there; tokens that came from its session
/// stay valid. Whoever listens is told if the same person is there by a stronger class.
pub(crate) async fn leave_cookie(
    transaction: &mut Transaction<'static, Any>,
    cookie_hash: &str,
    next: &Session,
) -> Result<(), StoreError> {
    let held = "SELECT authentication FROM sessions WHERE cookie_hash = $1 AND user_id = $2 \
                AND ended_at IS NULL";
    let held = sqlx::query(held).bind(cookie_hash).bind(next.user_id.as_str());
    if let Some(row) = held.fetch_optional(&mut **transaction).await?
        && let Ok(before) = document::<Authentication>(&row, "authentication", "session")
    {
        let whose = (next.user_id.as_str(), next.sid.as_str());
        assurance_rose(transaction, whose, (&before, &next.authentication)).await?;
    }
    sqlx::query("UPDATE sessions SET cookie_hash = 'left ' || sid WHERE cookie_hash = $1")
        .bind(cookie_hash)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn session_of(row: &AnyRow) -> Result<Session, StoreError> {
    Ok(Session {
        sid: row.try_get("sid")?,
        user_id: row.try_get("user_id")?,
        authentication: document(row, "authentication", "session")?,
        expires_at: Timestamp(row.try_get("expires_at")?),
    })
}

pub(crate) async fn insert_session(
    transaction: &mut Transaction<'static, Any>,
    cookie_hash: &str,
    session: &Session,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (cookie_hash, sid, user_id, authentication, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(cookie_hash)
    .bind(session.sid.as_str())
    .bind(session.user_id.as_str())
    .bind(to_json(&session.authentication, "session")?)
    .bind(session.expires_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Ends a session and its refresh tokens. Returns whether it was still open.
pub(crate) async fn end(
    transaction: &mut Transaction<'static, Any>,
    sid: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE sessions SET ended_at = $2 WHERE sid = $1 AND ended_at IS NULL")
        .bind(sid)
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    sqlx::query("UPDATE refresh_tokens SET revoked_at = $2 WHERE sid = $1 AND revoked_at IS NULL")
        .bind(sid)
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends all sessions and refresh tokens of a person or an account.
pub(crate) async fn end_sign_ins(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL",
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
    ] {
        sqlx::query(statement).bind(user_id).bind(now.0).execute(&mut **transaction).await?;
    }
    // Whoever knows of the person ends what they issued.
    notify_all(transaction, user_id, now).await?;
    // A way in that was made before is none afterwards.
    sqlx::query("DELETE FROM recovery_links WHERE user_id = $1")
        .bind(user_id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
