//! Upkeep of a database: whether it can record decisions, deleting what has expired, and what a
//! restore ends.

use crate::{
    administrators::end_administrators,
    database::{Dialect, Store, StoreError},
    ledger::AuditEvent,
    migrations,
};
use passavant_proto::time::Timestamp;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};
use std::time::{Duration, Instant};

/// Maximum duration of a probe.
const PROBE: Duration = Duration::from_secs(2);

/// The reads and writes of a decision, rolled back to a savepoint; and one write that stays.
const PROBES: [&str; 10] = [
    "SAVEPOINT probe",
    "INSERT INTO used_jtis (namespace, jti, forget_after) VALUES ('probe', CAST({random} AS TEXT), 0)",
    "INSERT INTO grants (jti, kind, user_id, client_id, party, lineage, expires_at) \
     VALUES ('probe:' || CAST({random} AS TEXT), 'probe', '', '', '', '', 0)",
    "INSERT INTO audit (at, event, outcome, person, client, document) \
     VALUES (0, 'probe', 'granted', '', '', '{}')",
    "UPDATE directory SET name = name WHERE kind = '' AND id = ''",
    "UPDATE sessions SET ended_at = ended_at WHERE cookie_hash = ''",
    "UPDATE refresh_tokens SET revoked_at = revoked_at WHERE hash = ''",
    "UPDATE authorization_codes SET used_at = used_at WHERE hash = ''",
    "ROLLBACK TO SAVEPOINT probe",
    "INSERT INTO meta (key, value) VALUES ('probes', 1) \
     ON CONFLICT (key) DO UPDATE SET value = meta.value + 1",
];

/// How long the deletion of one piece should take. Others wait no longer than that.
const PIECE: Duration = Duration::from_millis(20);

/// By how many seconds the clocks of a node and of its database may differ.
const CLOCKS_APART: i64 = 30;

impl Store {
    /// Whether a decision could be recorded now; each call records one. Callers that answer
    /// unauthenticated requests must share one call among many of them.
    pub async fn is_ready(&self) -> bool {
        matches!(tokio::time::timeout(PROBE, self.probe()).await, Ok(Ok(())))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for statement in PROBES {
            let statement = statement.replace("{random}", self.dialect.random());
            let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await;
            done.inspect_err(|error| self.health.note(error))?;
        }
        migrations::check(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes what has expired: codes, requests, tokens and `jti`s past their time, in small
    /// pieces with pauses for other transactions. A table that fails does not stop the others.
    /// Audit rows stay, except for refusals older than `keep_refused` seconds if that is set.
    /// Returns how many rows were deleted.
    pub async fn forget_expired(
        &self,
        now: Timestamp,
        keep_refused: Option<i64>,
    ) -> Result<u64, StoreError> {
        let _turn = if self.dialect == Dialect::Postgres {
            // One node at a time: two would only wait for each other.
            let Some(turn) = self.purging_turn(now).await? else { return Ok(0) };
            Some(turn)
        } else {
            None
        };
        let before = |age: i64| now.plus(-age).0;
        // Single-use values are kept for an hour longer than any node accepts them, to allow for
        // clocks that differ by less than that. Codes and refresh tokens stay for a day longer, so
        // that late reuse is still recognised.
        let refused = keep_refused.map_or(i64::MIN, before);
        let pieces = [
            ("used_jtis", format!("forget_after < {}", before(3600))),
            ("acts_once", format!("forget_after < {}", now.0)),
            ("pushed_requests", format!("expires_at < {}", before(3600))),
            ("device_codes", format!("expires_at < {}", before(3600))),
            ("authorization_codes", format!("expires_at < {}", before(86_400))),
            ("refresh_tokens", format!("expires_at < {}", before(86_400))),
            ("grants", format!("expires_at < {}", before(3600))),
            (
                "sessions",
                format!(
                    "expires_at < {} AND NOT EXISTS (SELECT 1 FROM refresh_tokens held \
                     WHERE held.sid = sessions.sid AND held.expires_at > {})",
                    before(8 * 86_400),
                    now.0
                ),
            ),
            (
                "upstream_sessions",
                "NOT EXISTS (SELECT 1 FROM sessions held WHERE held.sid = upstream_sessions.sid \
                 AND held.ended_at IS NULL)"
                    .to_owned(),
            ),
            (
                "session_clients",
                "NOT EXISTS (SELECT 1 FROM sessions held WHERE held.sid = session_clients.sid \
                 AND held.ended_at IS NULL)"
                    .to_owned(),
            ),
            // Given up, and on record, long before.
            ("logout_notices", format!("ended_at < {}", before(30 * 86_400))),
            ("revocation_notices", format!("made_at < {}", before(30 * 86_400))),
            // Twice as long as it can be read.
            ("ended_tokens", format!("made_at < {}", before(1800))),
            // Of a stream that is gone, and of people who are.
            ("signals", format!("made_at < {}", before(30 * 86_400))),
            (
                "known_to_client",
                "NOT EXISTS (SELECT 1 FROM directory held WHERE held.kind = 'user' \
                 AND held.id = known_to_client.user_id)"
                    .to_owned(),
            ),
            ("ended_subjects", format!("forget_after < {}", before(3600))),
            ("installations", format!("revoked_at < {}", before(30 * 86_400))),
            ("audit", format!("outcome = 'refused' AND at < {refused}")),
        ];
        let (mut gone, mut failed) = (0, None);
        for (table, condition) in pieces {
            if table == "audit" && keep_refused.is_none() {
                continue;
            }
            match self.forget(table, &condition).await {
                Ok(rows) => gone += rows,
                Err(error) => {
                    tracing::warn!(%error, table, "expired rows were not deleted");
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(gone), Err)
    }

    /// A connection that holds the turn to purge until it is dropped. `None` if another node has
    /// the turn, or if this node's clock cannot be trusted to purge single-use values.
    async fn purging_turn(
        &self,
        now: Timestamp,
    ) -> Result<Option<Transaction<'static, Any>>, StoreError> {
        let mut turn = self.read.begin_with(self.dialect.begin()).await?;
        // This transaction is idle while others delete.
        sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            .execute(&mut *turn)
            .await?;
        let row = sqlx::query(
            "SELECT CASE WHEN pg_try_advisory_xact_lock(7317003) THEN 1 ELSE 0 END::bigint, \
             EXTRACT(EPOCH FROM clock_timestamp())::bigint",
        )
        .fetch_one(&mut *turn)
        .await?;
        let (mine, theirs): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let apart = now.0 - theirs;
        if apart.abs() > CLOCKS_APART {
            tracing::error!(
                seconds = apart,
                "this node's clock differs from the database's: set it; until then this node \
                 deletes no expired rows"
            );
            return Ok(None);
        }
        Ok((mine == 1).then_some(turn))
    }

    async fn forget(&self, table: &str, condition: &str) -> Result<u64, StoreError> {
        let (mut gone, mut size) = (0, 100);
        loop {
            let began = Instant::now();
            let mut transaction = self.begin_plain().await?;
            let statement = self.dialect.delete_some(table, condition, size);
            let done =
                sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut *transaction);
            let rows = done.await?.rows_affected();
            transaction.commit().await?;
            gone += rows;
            if rows < u64::from(size) {
                return Ok(gone);
            }
            let took = began.elapsed();
            size = if took < PIECE / 2 {
                size * 2
            } else if took > PIECE {
                size / 2
            } else {
                size
            };
            size = size.clamp(50, 4000);
            tokio::time::sleep(took.clamp(PIECE / 4, PIECE * 4)).await;
        }
    }

    /// After a backup was restored: ends every session, refresh token, code and token on record,
    /// and the tokens of administrators, because some of them were ended or used after the backup
    /// was made. Makes every node read the directory anew.
    pub async fn after_restore(&self, event: AuditEvent, now: Timestamp) -> Result<(), StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        for statement in [
            "UPDATE sessions SET ended_at = $1 WHERE ended_at IS NULL",
            "UPDATE refresh_tokens SET revoked_at = $1 WHERE revoked_at IS NULL",
            "UPDATE authorization_codes SET used_at = $1 WHERE used_at IS NULL",
            "UPDATE pushed_requests SET used_at = $1 WHERE used_at IS NULL",
            "UPDATE device_codes SET used_at = $1 WHERE used_at IS NULL",
            "UPDATE grants SET revoked_at = $1 WHERE revoked_at IS NULL",
        ] {
            sqlx::query(statement).bind(now.0).execute(&mut *transaction).await?;
        }
        // Refresh tokens of upstreams as they were then may have been used since. Those that are kept
        // with links are of upstreams that give none a second time.
        sqlx::query("DELETE FROM upstream_sessions").execute(&mut *transaction).await?;
        end_administrators(&mut transaction, now).await?;
        // Guards may have heard further than the backup goes.
        if self.dialect == Dialect::Sqlite {
            let ahead =
                "UPDATE sqlite_sequence SET seq = seq + 1000000000 WHERE name = 'ended_tokens'";
            sqlx::query(ahead).execute(&mut *transaction).await?;
        }
        sqlx::query("DELETE FROM ended_tokens").execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO ended_tokens (jti, made_at) VALUES ('', $1)")
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        // So that the mark differs from every earlier one, whatever the restore brought back.
        let mark =
            format!("UPDATE meta SET value = {} WHERE key = 'policy_mark'", self.dialect.random());
        sqlx::query(AssertSqlSafe(mark)).execute(&mut *transaction).await?;
        self.commit_directory(transaction, checked, event).await
    }
}
