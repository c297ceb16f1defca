//! What applications are to be told of sessions that have ended (OpenID Connect Back-Channel Logout 1.0).
//! The database writes a notice with the end of a session; whoever claims it delivers it.

use crate::{
    database::{Store, StoreError, reading},
    ledger::{AuditEvent, insert_audit},
};
use passavant_proto::{event::Detail, time::Timestamp};
use sqlx::{Row, any::AnyRow};

/// An application that is to be told that a session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutNotice {
    /// Its id, which the logout token has as `jti`.
    pub id: String,
    /// The session.
    pub sid: String,
    /// Whose it was.
    pub user_id: String,
    /// The application.
    pub client_id: String,
    /// When the session ended.
    pub ended_at: Timestamp,
    /// How often it was tried, with this time.
    pub tries: i64,
}

fn notice_of(row: &AnyRow) -> Result<(LogoutNotice, i64), StoreError> {
    let notice = LogoutNotice {
        id: row.try_get("id")?,
        sid: row.try_get("sid")?,
        user_id: row.try_get("user_id")?,
        client_id: row.try_get("client_id")?,
        ended_at: Timestamp(row.try_get("ended_at")?),
        tries: row.try_get("tries")?,
    };
    Ok((notice, row.try_get("next_at")?))
}

impl Store {
    /// The applications that notices are due for.
    pub async fn due_logout_notices(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        let due = "SELECT DISTINCT client_id FROM logout_notices WHERE next_at <= $1";
        let rows = reading!(self, fetch_all, sqlx::query(due).bind(now.0))?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Claims notices that are due for one application, `most` of them: no other node delivers them
    /// before `until`. Those that were not tried yet come first.
    pub async fn claim_logout_notices(
        &self,
        client_id: &str,
        now: Timestamp,
        until: Timestamp,
        most: usize,
    ) -> Result<Vec<LogoutNotice>, StoreError> {
        let due = "SELECT id, sid, user_id, client_id, ended_at, next_at, tries FROM logout_notices \
                   WHERE client_id = $3 AND next_at <= $1 ORDER BY tries, next_at, id LIMIT $2";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows =
            reading!(self, fetch_all, sqlx::query(due).bind(now.0).bind(most).bind(client_id))?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin_plain().await?;
        let mut mine = Vec::new();
        for row in &rows {
            let (notice, next_at) = notice_of(row)?;
            let claim = "UPDATE logout_notices SET next_at = $3, tries = tries + 1 \
                         WHERE id = $1 AND next_at = $2";
            let claimed = sqlx::query(claim)
                .bind(notice.id.as_str())
                .bind(next_at)
                .bind(until.0)
                .execute(&mut *transaction)
                .await?;
            if claimed.rows_affected() == 1 {
                mine.push(LogoutNotice { tries: notice.tries + 1, ..notice });
            }
        }
        transaction.commit().await?;
        Ok(mine)
    }

    /// Forgets a notice: it was delivered, or nobody is to be told any more. The event, if there is one,
    /// is written with it.
    pub async fn end_logout_notice(
        &self,
        id: &str,
        event: Option<AuditEvent>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let gone = sqlx::query("DELETE FROM logout_notices WHERE id = $1").bind(id);
        let gone = gone.execute(&mut *transaction).await?.rows_affected();
        if let Some(event) = event.filter(|_| gone == 1) {
            insert_audit(&mut transaction, &[event]).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets the notices for an application that have waited since `before` or longer. The event is
    /// written with it, and says how many they were.
    pub async fn give_up_logout_notices(
        &self,
        client_id: &str,
        before: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let gone = "DELETE FROM logout_notices WHERE client_id = $1 AND ended_at <= $2";
        let gone =
            sqlx::query(gone).bind(client_id).bind(before.0).execute(&mut *transaction).await?;
        if gone.rows_affected() > 0 {
            let event = event.with(Detail::Count, gone.rows_affected().to_string());
            insert_audit(&mut transaction, &[event]).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Puts a notice off: the application did not take it.
    pub async fn put_off_logout_notice(&self, id: &str, to: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        sqlx::query("UPDATE logout_notices SET next_at = $2 WHERE id = $1")
            .bind(id)
            .bind(to.0)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}
