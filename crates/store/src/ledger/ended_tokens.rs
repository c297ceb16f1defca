//! Access tokens that have ended, for the guards before MCP servers. The database writes them, with the
//! change that ends them; any node reads them.

use crate::database::{Dialect, Store, StoreError, reading};
use passavant_proto::{
    oauth::ended_tokens::{EndedTokens, MOST, Position},
    time::Timestamp,
};
use sqlx::{Row, postgres::PgListener};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long what has ended can be read, in seconds. Whoever has read less recently asks about all tokens.
const KEPT: i64 = 900;

/// What has ended since somebody read last. What was read before may come again, but to a reader that says
/// what it has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSince {
    /// What has ended; any token may have, if something is not on record any more.
    pub ended: EndedTokens,
    /// How far this goes.
    pub position: Position,
    /// What was visible, for the next call of the same reader.
    pub seen: Option<String>,
}

/// The channel that the triggers notify.
const CHANNEL: &str = "passavant_ended_tokens";
/// How long it is waited before a connection is tried again, and how long it may take.
const AGAIN: Duration = Duration::from_secs(5);

/// Hears that tokens have ended, on whichever node: PostgreSQL notifies. What was missed meanwhile is found
/// by reading.
pub struct EndedListener {
    store: Store,
    connection: Option<PgListener>,
}

impl EndedListener {
    /// Completes when something has ended; never with SQLite, whose nodes are one process.
    pub async fn heard(&mut self) {
        if self.store.dialect == Dialect::Sqlite {
            return std::future::pending().await;
        }
        loop {
            if self.connection.is_none() {
                match timeout(AGAIN, self.store.listener()).await {
                    Ok(Ok(connection)) => {
                        self.connection = Some(connection);
                        // Something may have ended before.
                        return;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "PostgreSQL cannot be listened to"),
                    Err(_) => {}
                }
                sleep(AGAIN).await;
                continue;
            }
            if let Some(connection) = &mut self.connection {
                match connection.try_recv().await {
                    Ok(Some(_)) => return,
                    // The connection was lost.
                    Ok(None) | Err(_) => self.connection = None,
                }
            }
        }
    }
}

impl Store {
    /// Listens for ended tokens.
    pub fn ended_listener(&self) -> EndedListener {
        EndedListener { store: self.clone(), connection: None }
    }

    async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        let options = self.read.connect_options();
        let mut listener = PgListener::connect(options.database_url.as_str()).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    /// What has ended since `after`; `None`: it is only said how far there is something to read. What was
    /// visible in `seen`, what an earlier call of the same reader returned, is left out.
    pub async fn ended_tokens(
        &self,
        after: Option<Position>,
        seen: Option<&str>,
        now: Timestamp,
    ) -> Result<EndedSince, StoreError> {
        // The last row says what comes next, as of the same moment.
        let sql = match (self.dialect, seen) {
            (Dialect::Sqlite, _) => {
                "SELECT *, '' FROM (SELECT jti, position FROM ended_tokens WHERE position >= $1 \
                 ORDER BY position LIMIT $2) UNION ALL SELECT NULL, \
                 coalesce((SELECT seq + 1 FROM sqlite_sequence WHERE name = 'ended_tokens'), 1), ''"
            }
            (Dialect::Postgres, None) => {
                "SELECT *, '' FROM (SELECT jti, position FROM ended_tokens WHERE position >= $1 \
                 ORDER BY position LIMIT $2) found UNION ALL SELECT NULL, \
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_snapshot()::text"
            }
            // A transaction that stays open, of whichever program, holds the position.
            (Dialect::Postgres, Some(_)) => {
                "SELECT *, '' FROM (SELECT jti, position FROM ended_tokens WHERE position >= $1 \
                 AND NOT pg_visible_in_snapshot(position::text::xid8, $3::text::pg_snapshot) \
                 ORDER BY position LIMIT $2) found UNION ALL SELECT NULL, \
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_snapshot()::text"
            }
        };
        let from = after.map_or(i64::MAX, |after| after.next);
        let limit = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let query = || {
            let query = sqlx::query(sql).bind(from).bind(limit);
            match seen.filter(|_| self.dialect == Dialect::Postgres) {
                Some(seen) => query.bind(seen),
                None => query,
            }
        };
        let rows = reading!(self, fetch_all, query())?;
        let (mut tokens, mut next) = (Vec::with_capacity(rows.len()), 0);
        let mut seen = None;
        for row in &rows {
            let position = row.try_get(1)?;
            match row.try_get::<Option<String>, _>(0)? {
                None => {
                    next = position;
                    seen = Some(row.try_get(2)?).filter(|seen: &String| !seen.is_empty());
                }
                Some(jti) => tokens.push(jti),
            }
        }
        let lost = after.is_some_and(|after| {
            // A position beyond the end is one of another database, or of before a restore.
            let is_kept = (-KEPT..KEPT).contains(&now.since(after.read_at));
            !is_kept || after.next > next || tokens.len() > MOST
        });
        let any = lost || tokens.iter().any(String::is_empty);
        if any {
            tokens.clear();
        }
        let position = Position { next, read_at: now };
        Ok(EndedSince { ended: EndedTokens { tokens, any }, position, seen })
    }
}
