//! Access tokens that have ended, for the guards before MCP servers. The database writes them, with the
//! change that ends them; any node reads them.

use crate::database::{Dialect, Store, StoreError, reading};
use passavant_proto::{
    oauth::ended_tokens::{MOST, Position},
    time::Timestamp,
};
use sqlx::{Row, postgres::PgListener};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long what has ended can be read, in seconds. Whoever has read less recently asks about all tokens.
const KEPT: i64 = 900;

/// What has ended since somebody read last. What was read before may come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSince {
    /// Where it is on record, and the `jti` of an access token; an empty one means any token.
    pub tokens: Vec<(i64, String)>,
    /// Something is not on record any more: any token may have ended.
    pub lost: bool,
    /// How far this goes.
    pub position: Position,
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

    /// What has ended since `after`; `None`: it is only said how far there is something to read.
    pub async fn ended_tokens(
        &self,
        after: Option<Position>,
        now: Timestamp,
    ) -> Result<EndedSince, StoreError> {
        // The last row says what comes next, as of the same moment.
        let sql = match self.dialect {
            Dialect::Sqlite => {
                "SELECT * FROM (SELECT jti, position FROM ended_tokens WHERE position >= $1 \
                 ORDER BY position LIMIT $2) UNION ALL SELECT NULL, \
                 coalesce((SELECT seq + 1 FROM sqlite_sequence WHERE name = 'ended_tokens'), 1)"
            }
            Dialect::Postgres => {
                "SELECT * FROM (SELECT jti, position FROM ended_tokens WHERE position >= $1 \
                 ORDER BY position LIMIT $2) found UNION ALL SELECT NULL, \
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            }
        };
        let from = after.map_or(i64::MAX, |after| after.next);
        let limit = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let rows = reading!(self, fetch_all, sqlx::query(sql).bind(from).bind(limit))?;
        let (mut tokens, mut next) = (Vec::with_capacity(rows.len()), 0);
        for row in &rows {
            let position = row.try_get(1)?;
            match row.try_get::<Option<String>, _>(0)? {
                None => next = position,
                Some(jti) => tokens.push((position, jti)),
            }
        }
        let lost = after.is_some_and(|after| {
            // A position beyond the end is one of another database, or of before a restore.
            let is_kept = (-KEPT..KEPT).contains(&now.since(after.read_at));
            !is_kept || after.next > next || tokens.len() > MOST
        });
        if lost {
            tokens.clear();
        }
        Ok(EndedSince { tokens, lost, position: Position { next, read_at: now } })
    }
}
