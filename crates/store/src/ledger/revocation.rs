//! What authorization servers are to be told when access ends that this identity provider vouched for,
//! and what has to be decided about again. The database writes both, with the change that they tell of.

use super::{
    audit::{AuditEvent, insert_audit},
    entry::{GRANT, Grant, grant_of},
    signals::all_sessions_revoked,
};
use crate::database::{Store, StoreError, reading};
use passavant_proto::{event::Detail, time::Timestamp};
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

/// How many notices of one person go in one request.
const TOGETHER: i64 = 200;
/// How many grants are looked at again at once.
const PIECE: i64 = 500;

/// What a party is to be told of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationNotices {
    /// Whose access has ended.
    pub user_id: String,
    /// Everything that the party issued to that person until this time.
    pub all_until: Option<Timestamp>,
    /// The `jti`s of ID-JAGs.
    pub id_jags: Vec<String>,
    /// Nothing else about this person may be due that did not fit.
    pub is_whole: bool,
    /// The ids of the notices.
    pub ids: Vec<String>,
    /// When the first of them was written.
    pub since: Timestamp,
    /// How often it was tried, with this time.
    pub tries: i64,
}

/// Whose access is to be decided anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconsidered {
    /// The person; `None`: everyone.
    pub user_id: Option<String>,
    mark: i64,
}

/// Writes that everything a person has at other parties has ended.
pub(crate) async fn notify_all(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let parties = sqlx::query("SELECT party FROM told_of WHERE user_id = $1").bind(user_id);
    for row in parties.fetch_all(&mut **transaction).await? {
        let party: &str = row.try_get(0)?;
        // One that waits already says it, unless it is under way.
        let id = format!("all {} {user_id} {party}", now.0);
        let notice = "INSERT INTO revocation_notices (id, party, user_id, id_jag, made_at, next_at) \
                      VALUES ($1, $2, $3, '', $4, $4) ON CONFLICT DO NOTHING";
        sqlx::query(notice)
            .bind(id.as_str())
            .bind(party)
            .bind(user_id)
            .bind(now.0)
            .execute(&mut **transaction)
            .await?;
    }
    all_sessions_revoked(transaction, user_id, now).await
}

impl Store {
    /// The parties that notices are due for.
    pub async fn due_revocations(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        let due = "SELECT DISTINCT party FROM revocation_notices WHERE next_at <= $1";
        let rows = reading!(self, fetch_all, sqlx::query(due).bind(now.0))?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Claims the notices that are due for one party, about one person each: of `most` people at most.
    /// No other node delivers them before `until`. Those that were not tried yet come first.
    pub async fn claim_revocations(
        &self,
        party: &str,
        now: Timestamp,
        until: Timestamp,
        most: usize,
    ) -> Result<Vec<RevocationNotices>, StoreError> {
        let due = "SELECT id, user_id, id_jag, made_at, next_at, tries FROM revocation_notices \
                   WHERE party = $1 AND next_at <= $2 ORDER BY tries, next_at, id LIMIT $3";
        let query = || sqlx::query(due).bind(party).bind(now.0).bind(TOGETHER);
        let rows = reading!(self, fetch_all, query())?;
        let is_whole = i64::try_from(rows.len()).is_ok_and(|found| found < TOGETHER);
        let mut claimed: Vec<RevocationNotices> = Vec::new();
        if rows.is_empty() {
            return Ok(claimed);
        }
        let mut transaction = self.begin_plain().await?;
        for row in &rows {
            let user_id: String = row.try_get("user_id")?;
            let at = claimed.iter().position(|of| of.user_id == user_id);
            if at.is_none() && claimed.len() == most {
                continue;
            }
            let (id, next_at): (String, i64) = (row.try_get("id")?, row.try_get("next_at")?);
            let claim = "UPDATE revocation_notices SET next_at = $3, tries = tries + 1 \
                         WHERE id = $1 AND next_at = $2";
            let done = sqlx::query(claim).bind(id.as_str()).bind(next_at).bind(until.0);
            if done.execute(&mut *transaction).await?.rows_affected() == 0 {
                continue;
            }
            let made_at = Timestamp(row.try_get("made_at")?);
            let (since, tries) = (made_at, row.try_get::<i64, _>("tries")? + 1);
            let at = at.unwrap_or_else(|| {
                let (all_until, id_jags, ids) = (None, Vec::new(), Vec::new());
                claimed.push(RevocationNotices {
                    user_id,
                    all_until,
                    id_jags,
                    is_whole,
                    ids,
                    since,
                    tries,
                });
                claimed.len() - 1
            });
            let of = &mut claimed[at];
            of.ids.push(id);
            of.since = of.since.min(since);
            of.tries = of.tries.max(tries);
            let id_jag: String = row.try_get("id_jag")?;
            if id_jag.is_empty() {
                of.all_until = of.all_until.max(Some(made_at));
            } else {
                of.id_jags.push(id_jag);
            }
        }
        transaction.commit().await?;
        Ok(claimed)
    }

    /// Forgets notices: they were delivered, or nobody is to be told any more. The event, if there is
    /// one, is written with it.
    pub async fn end_revocations(
        &self,
        ids: &[String],
        event: Option<AuditEvent>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let mut gone = 0;
        for id in ids {
            let delete = sqlx::query("DELETE FROM revocation_notices WHERE id = $1").bind(id);
            gone += delete.execute(&mut *transaction).await?.rows_affected();
        }
        if let Some(event) = event.filter(|_| gone > 0) {
            insert_audit(&mut transaction, &[event]).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets the notices for a party that have waited since `before` or longer. The event is written with
    /// it, and says how many they were.
    pub async fn give_up_revocations(
        &self,
        party: &str,
        before: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let gone = "DELETE FROM revocation_notices WHERE party = $1 AND made_at <= $2";
        let gone = sqlx::query(gone).bind(party).bind(before.0).execute(&mut *transaction).await?;
        if gone.rows_affected() > 0 {
            let event = event.with(Detail::Count, gone.rows_affected().to_string());
            insert_audit(&mut transaction, &[event]).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Puts notices off: the party did not take them.
    pub async fn put_off_revocations(
        &self,
        ids: &[String],
        to: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        for id in ids {
            sqlx::query("UPDATE revocation_notices SET next_at = $2 WHERE id = $1")
                .bind(id)
                .bind(to.0)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Makes notices due that were put off beyond `after`.
    pub async fn bring_revocations_forward(
        &self,
        party: &str,
        now: Timestamp,
        after: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        sqlx::query("UPDATE revocation_notices SET next_at = $2 WHERE party = $1 AND next_at > $3")
            .bind(party)
            .bind(now.0)
            .bind(after.0)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// How many notices wait, and since when the first of them.
    pub async fn waiting_revocations(&self) -> Result<(i64, Option<Timestamp>), StoreError> {
        let sql = "SELECT COUNT(*), MIN(made_at) FROM revocation_notices";
        let row = reading!(self, fetch_one, sqlx::query(sql))?;
        Ok((row.try_get(0)?, row.try_get::<Option<i64>, _>(1)?.map(Timestamp)))
    }

    /// Whose access is to be decided anew, some hundred at most.
    pub async fn to_reconsider(&self) -> Result<Vec<Reconsidered>, StoreError> {
        let sql = "SELECT user_id, mark FROM reconsidered ORDER BY user_id LIMIT 500";
        let rows = reading!(self, fetch_all, sqlx::query(sql))?;
        let read = |row: &sqlx::any::AnyRow| {
            let user_id: String = row.try_get(0)?;
            let user_id = Some(user_id).filter(|id| !id.is_empty());
            Ok(Reconsidered { user_id, mark: row.try_get(1)? })
        };
        rows.iter().map(read).collect()
    }

    /// It was decided anew, unless something changed since it was read.
    pub async fn reconsidered(&self, done: &Reconsidered) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        sqlx::query("DELETE FROM reconsidered WHERE user_id = $1 AND mark = $2")
            .bind(done.user_id.as_deref().unwrap_or_default())
            .bind(done.mark)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// ID-JAGs on record that are not revoked, after `after` in the order of their `jti`s: of one
    /// person, or of all. Tokens of those that expired before `expired` are over. Some hundred at most.
    pub async fn live_id_jags(
        &self,
        of: Option<&str>,
        expired: Timestamp,
        after: &str,
    ) -> Result<Vec<Grant>, StoreError> {
        let whose = if of.is_some() { "user_id = $4 AND " } else { "" };
        let sql = format!(
            "SELECT {GRANT} FROM grants WHERE {whose}kind = 'id_jag' AND revoked_at IS NULL \
             AND expires_at > $1 AND jti > $2 ORDER BY jti LIMIT $3"
        );
        let query = || {
            let query =
                sqlx::query(AssertSqlSafe(sql.clone())).bind(expired.0).bind(after).bind(PIECE);
            match of {
                Some(of) => query.bind(of),
                None => query,
            }
        };
        let rows = reading!(self, fetch_all, query())?;
        rows.iter().map(grant_of).collect()
    }

    /// Revokes ID-JAGs that nothing allows any more; whoever was to be told of them is.
    pub async fn revoke_id_jags(&self, jtis: &[String], now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        for jti in jtis {
            sqlx::query("UPDATE grants SET revoked_at = $2 WHERE jti = $1 AND revoked_at IS NULL")
                .bind(jti)
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}
