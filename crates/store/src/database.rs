//! Opening, schema, and the one place where SQLite and PostgreSQL differ.

use crate::hot_path;
use carnet_proto::time::Timestamp;
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Executor, Row, Transaction,
    any::{AnyPoolOptions, AnyRow},
};
use std::{path::Path, time::Duration};
use tokio::sync::mpsc;

/// The store could not do it. What happened to a write is unknown: the caller answers 503 and
/// promises nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed or cannot be reached.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A stored document cannot be read by this version.
    #[error("a stored {0} record cannot be read: {1}")]
    Document(&'static str, String),
    /// Another record of this kind has the same name.
    #[error("there is already one {kind} named `{name}`")]
    NameTaken {
        /// Kind of record.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The writer task is gone: the process is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The database was written by a newer version.
    #[error("the database has schema version {found}; this program knows version {known}")]
    TooNew {
        /// Version found.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The URL is neither `sqlite:` nor `postgres:`.
    #[error("`{0}` is not a database URL; use sqlite:PATH or postgres://…")]
    Url(String),
}

/// One database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) read: AnyPool,
    pub(crate) write: AnyPool,
    pub(crate) dialect: Dialect,
    pub(crate) hot: mpsc::Sender<hot_path::Queued>,
}

/// What the two databases spell differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// SQLite takes its one write lock at once, so that no transaction fails half-way through.
    fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    fn serial_key(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Self::Postgres => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        }
    }
}

const SCHEMA_VERSION: i64 = 1;

/// Integers, booleans and times are BIGINT, all else TEXT: the types both databases share.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO meta (key, value) VALUES ('generation', 1) ON CONFLICT DO NOTHING;
INSERT INTO meta (key, value) VALUES ('schema', 1) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS directory (
  kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL,
  PRIMARY KEY (kind, id), UNIQUE (kind, name));
CREATE TABLE IF NOT EXISTS signing_keys (
  kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, sealed TEXT NOT NULL,
  created_at BIGINT NOT NULL, retired_at BIGINT);
CREATE TABLE IF NOT EXISTS sessions (
  cookie_hash TEXT PRIMARY KEY, sid TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  authentication TEXT NOT NULL, expires_at BIGINT NOT NULL, ended_at BIGINT);
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_id);
CREATE TABLE IF NOT EXISTS authorization_codes (
  hash TEXT PRIMARY KEY, sid TEXT NOT NULL, family TEXT NOT NULL, document TEXT NOT NULL,
  expires_at BIGINT NOT NULL, used_at BIGINT);
CREATE TABLE IF NOT EXISTS pushed_requests (
  hash TEXT PRIMARY KEY, client_id TEXT NOT NULL, document TEXT NOT NULL,
  expires_at BIGINT NOT NULL, opened_at BIGINT, used_at BIGINT);
CREATE TABLE IF NOT EXISTS refresh_tokens (
  hash TEXT PRIMARY KEY, family TEXT NOT NULL, sid TEXT NOT NULL, user_id TEXT NOT NULL,
  client_id TEXT NOT NULL, document TEXT NOT NULL, idle_expires_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL, replaced_at BIGINT, revoked_at BIGINT);
CREATE INDEX IF NOT EXISTS refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX IF NOT EXISTS refresh_tokens_sid ON refresh_tokens (sid);
CREATE INDEX IF NOT EXISTS refresh_tokens_user ON refresh_tokens (user_id);
CREATE TABLE IF NOT EXISTS used_jtis (
  namespace TEXT NOT NULL, jti TEXT NOT NULL, forget_after BIGINT NOT NULL,
  PRIMARY KEY (namespace, jti));
CREATE TABLE IF NOT EXISTS grants (
  jti TEXT PRIMARY KEY, kind TEXT NOT NULL, user_id TEXT NOT NULL, client_id TEXT NOT NULL,
  party TEXT NOT NULL, lineage TEXT NOT NULL, expires_at BIGINT NOT NULL, revoked_at BIGINT);
CREATE TABLE IF NOT EXISTS installations (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL, document TEXT NOT NULL, used_at BIGINT NOT NULL,
  revoked_at BIGINT);
CREATE INDEX IF NOT EXISTS installations_user ON installations (user_id);
CREATE INDEX IF NOT EXISTS refresh_tokens_client ON refresh_tokens (client_id);
CREATE TABLE IF NOT EXISTS audit (
  id {serial}, at BIGINT NOT NULL, event TEXT NOT NULL,
  outcome TEXT NOT NULL, person TEXT NOT NULL, client TEXT NOT NULL, document TEXT NOT NULL);
";

impl Store {
    /// Opens `sqlite:PATH` (created if absent) or `postgres://…`, and brings the schema up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let dialect = if url.starts_with("sqlite:") {
            Dialect::Sqlite
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Dialect::Postgres
        } else {
            return Err(StoreError::Url(url.split(':').next().unwrap_or_default().to_owned()));
        };
        sqlx::any::install_default_drivers();
        let full = match dialect {
            Dialect::Sqlite => sqlite_url(url.strip_prefix("sqlite:").unwrap_or(url)),
            Dialect::Postgres => url.to_owned(),
        };
        let (writers, readers, hot_writers) = match dialect {
            // SQLite has one writer; a second connection would only wait for its lock.
            Dialect::Sqlite => (1, 4, 1),
            Dialect::Postgres => (8, 8, 4),
        };
        let write = pool(writers).connect(&full).await?;
        migrate(&write, dialect).await?;
        let read = pool(readers).connect(&full).await?;
        let (hot, queue) = mpsc::channel(4096);
        let store = Self { read, write, dialect, hot };
        hot_path::spawn_writers(&store, queue, hot_writers);
        Ok(store)
    }

    /// Begins a write transaction that mints: it rests on records that must not change before it
    /// commits, and holds off [`Store::begin_revoking`] until then. Rolls back when dropped.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        let mut transaction = self.write.begin_with(self.dialect.begin()).await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock_shared(7317002)::text")
                .fetch_one(&mut *transaction)
                .await?;
        }
        Ok(transaction)
    }

    /// Begins a write transaction that takes something away or changes what others rest on: it waits
    /// for the mints under way, and none begins until it ends. When it has committed, no mint that
    /// did not see it can still commit. The lock queues fairly, so minting cannot starve it; in
    /// SQLite the write lock does all of it.
    pub(crate) async fn begin_revoking(&self) -> Result<Transaction<'static, Any>, StoreError> {
        let mut transaction = self.write.begin_with(self.dialect.begin()).await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock(7317002)::text")
                .fetch_one(&mut *transaction)
                .await?;
        }
        Ok(transaction)
    }

    /// Whether the database answers.
    pub async fn is_ready(&self) -> bool {
        sqlx::query("SELECT value FROM meta WHERE key = 'schema'")
            .fetch_one(&self.read)
            .await
            .is_ok()
    }

    /// Deletes what has outlived its use: codes, requests, tokens and `jti`s past their time.
    /// Audit rows stay. Answers how many rows went.
    pub async fn forget_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut gone = 0;
        // Codes and refresh tokens stay a day longer, so that late reuse is still recognised.
        for (statement, before) in [
            ("DELETE FROM used_jtis WHERE forget_after < $1", now),
            ("DELETE FROM pushed_requests WHERE expires_at < $1", now.plus(-3600)),
            ("DELETE FROM authorization_codes WHERE expires_at < $1", now.plus(-86_400)),
            ("DELETE FROM refresh_tokens WHERE expires_at < $1", now.plus(-86_400)),
            ("DELETE FROM grants WHERE expires_at < $1", now.plus(-3600)),
            ("DELETE FROM sessions WHERE expires_at < $1", now.plus(-8 * 86_400)),
        ] {
            let mut transaction = self.begin().await?;
            let done = sqlx::query(statement).bind(before.0).execute(&mut *transaction).await?;
            transaction.commit().await?;
            gone += done.rows_affected();
        }
        Ok(gone)
    }

    /// Closes the pools after the queued writes are done.
    pub async fn close(self) {
        drop(self.hot);
        self.read.close().await;
        self.write.close().await;
    }
}

fn sqlite_url(path: &str) -> String {
    let path = path.strip_prefix("//").unwrap_or(path);
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite://{escaped}?mode=rwc")
}

fn pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .after_connect(|connection: &mut AnyConnection, _| {
            Box::pin(async move {
                if connection.backend_name() == "SQLite" {
                    let settings = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
                                    PRAGMA synchronous = FULL; PRAGMA cache_size = -4096; \
                                    PRAGMA wal_autocheckpoint = 8000;";
                    connection.execute(settings).await?;
                } else {
                    let settings = "SET statement_timeout = 5000";
                    connection.execute(settings).await?;
                }
                Ok(())
            })
        })
}

async fn migrate(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    let mut transaction = pool.begin_with(dialect.begin()).await?;
    if dialect == Dialect::Postgres {
        // Two nodes that start at once take turns.
        sqlx::query("SELECT pg_advisory_xact_lock(7317001)::text")
            .fetch_one(&mut *transaction)
            .await?;
    }
    let schema = SCHEMA.replace("{serial}", dialect.serial_key());
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut *transaction).await?;
    let row = sqlx::query("SELECT value FROM meta WHERE key = 'schema'")
        .fetch_one(&mut *transaction)
        .await?;
    let found: i64 = row.try_get(0)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew { found, known: SCHEMA_VERSION });
    }
    transaction.commit().await?;
    Ok(())
}

/// The path of a SQLite URL, for setting file permissions before the first write.
pub fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:")?;
    Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
}

/// Reads a JSON column.
pub(crate) fn document<T: serde::de::DeserializeOwned>(
    row: &AnyRow,
    column: &str,
    kind: &'static str,
) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|e| StoreError::Document(kind, e.to_string()))
}

/// Writes a JSON column.
pub(crate) fn to_json<T: serde::Serialize>(
    value: &T,
    kind: &'static str,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Document(kind, e.to_string()))
}
