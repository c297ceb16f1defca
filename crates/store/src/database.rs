//! The store itself: its connections and transactions, and the one place where SQLite and
//! PostgreSQL differ.

use crate::{ledger, unreadable::Unreadable};
use sqlx::{Any, AnyPool, Transaction};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The store could not do it. Whether a write took effect is unknown: the caller responds with 503
/// and promises nothing.
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
    /// The requester of a change is not an administrator any more, or their token or role is
    /// different. Nothing was done.
    #[error("the administrator was removed meanwhile, or has another token or role")]
    NoAdministrator,
    /// The policy changed since the act was checked against it. Nothing was done; check again and
    /// retry.
    #[error("other records were changed meanwhile")]
    Stale,
    /// Nobody who may appoint administrators would be left.
    #[error("`{0}` is the last owner")]
    LastOwner(String),
    /// The record is not as it was when the requester read it. Nothing was done.
    #[error("the record was changed since it was read")]
    Changed,
    /// An act with this idempotency key was done, or is in progress. Nothing was done again.
    #[error("an act with this idempotency key was done, or is being done")]
    DoneBefore,
    /// Another node is changing the schema, or stopped while doing so.
    #[error(
        "another node has been changing the schema for {0} s; try again; if this lasts, check \
         whether that node is still running"
    )]
    Migrating(u64),
    /// It took too long, and may still take effect.
    #[error("the database did not answer in time")]
    Busy,
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
    /// The database belongs to another authorization server.
    #[error(
        "the database belongs to `{found}`, and this is `{wanted}`: each authorization server has a \
         database of its own"
    )]
    Foreign {
        /// Its owner.
        found: String,
        /// This server.
        wanted: String,
    },
    /// The database belongs to the other kind of server.
    #[error("it is not the database of {role}: there are records of kind `{kind}` in it")]
    OtherRole {
        /// The role that was expected.
        role: &'static str,
        /// The kind of record that was found.
        kind: String,
    },
    /// A PostgreSQL on another machine without TLS that verifies its name.
    #[error(
        "the connection to the database on `{0}` would not be encrypted, or its server not \
         authenticated: add `sslmode=verify-full` to its URL (and `sslrootcert=FILE` for a \
         certificate authority of your own)"
    )]
    Transport(String),
    /// A PostgreSQL URL that cannot be read.
    #[error("it is no PostgreSQL URL: postgres://USER@HOST/DATABASE?sslmode=verify-full")]
    UrlParts,
    /// A parameter of a PostgreSQL URL that has no effect here.
    #[error(
        "a parameter after `?` is not known; there are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, \
         dbname, user, password, application_name and options"
    )]
    UrlParameter,
    /// A character in a PostgreSQL URL that ends the part it is in.
    #[error(
        "there is a `@` behind a `/`, `?` or `#`: a password that contains one of these characters \
         has to be percent-encoded (`#` is %23, `/` is %2F, `?` is %3F, `@` is %40)"
    )]
    UrlPassword,
    /// Several hosts in a PostgreSQL URL.
    #[error(
        "it names several hosts: give one, for instance that of a proxy that knows which server is \
         the primary"
    )]
    UrlHosts,
    /// An unknown value of sslmode.
    #[error("sslmode is disable, allow, prefer, require, verify-ca or verify-full")]
    UrlTransport,
    /// The database cannot be reached.
    #[error(
        "the database at {place} cannot be reached: {cause}\nhint: is it running, and are host and port right?"
    )]
    Unreachable {
        /// Host and port.
        place: String,
        /// The system's error.
        cause: String,
    },
    /// The URL is neither `sqlite:` nor `postgres:`.
    #[error("`{0}` is not a database URL; use sqlite:PATH or postgres://…")]
    Url(String),
}

/// Reads by `$query`. Retries once if the connection turns out to be dead.
macro_rules! reading {
    ($store:expr, $fetch:ident, $query:expr) => {{
        let mut tries = 0;
        loop {
            tries += 1;
            match $query.$fetch(&$store.read).await {
                Err(error) if $store.is_read_again(&error, tries) => {}
                done => break done,
            }
        }
    }};
}
pub(crate) use reading;

/// One database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) read: AnyPool,
    pub(crate) write: AnyPool,
    pub(crate) dialect: Dialect,
    pub(crate) hot: mpsc::Sender<ledger::Queued>,
    pub(crate) health: Arc<Health>,
    pub(crate) unreadable: Arc<Unreadable>,
}

/// What is known about the connections of a store.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When a connection last broke or could not write: milliseconds since the store was opened,
    /// plus one.
    broke: AtomicU64,
}

/// For this long after a connection broke, the other connections are tested before use.
const SUSPECT: Duration = Duration::from_secs(10);

impl Health {
    fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(crate) fn note(&self, error: &sqlx::Error) {
        if is_broken(error) {
            self.broke.store(Self::now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        let broke = self.broke.load(Ordering::Relaxed);
        broke > 0 && Duration::from_millis(Self::now().saturating_sub(broke)) < SUSPECT
    }
}

/// Whether a connection is unusable, or its server cannot write. After that, every connection to
/// the server has to be tested before use.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // Shut down by an administrator, after a crash, starting up; a read-only server, such as
        // the former primary after a failover; a transaction that was idle for too long.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            matches!(
                code.as_ref(),
                "57P01" | "57P02" | "57P03" | "25006" | "25P03" | "08000" | "08003" | "08006"
            )
        }),
        _ => false,
    }
}

/// The differences between the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// SQLite takes its only write lock at the beginning, so that no transaction fails half-way
    /// through.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// A number that no other change draws. A counter alone would repeat its values after a
    /// restore.
    pub(crate) fn random(self) -> &'static str {
        match self {
            Self::Sqlite => "random()",
            Self::Postgres => "(random() * 9007199254740991)::bigint",
        }
    }

    /// A text column as bytes.
    pub(crate) fn bytes(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("CAST({column} AS BLOB)"),
            Self::Postgres => format!("convert_to({column}, 'UTF8')"),
        }
    }

    /// Deletes at most `limit` rows of `table` that match.
    pub(crate) fn delete_some(self, table: &str, condition: &str, limit: u32) -> String {
        match self {
            Self::Sqlite => format!(
                "DELETE FROM {table} WHERE rowid IN \
                 (SELECT rowid FROM {table} WHERE {condition} LIMIT {limit})"
            ),
            Self::Postgres => format!(
                "DELETE FROM {table} WHERE ctid = ANY(ARRAY\
                 (SELECT ctid FROM {table} WHERE {condition} LIMIT {limit}))"
            ),
        }
    }

    pub(crate) fn serial_key(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Self::Postgres => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        }
    }
}

impl Store {
    /// Begins a transaction. Replaces a connection that turns out to be dead before it sent
    /// anything.
    pub(crate) async fn begin_plain(&self) -> Result<Transaction<'static, Any>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.write.begin_with(self.dialect.begin()).await {
                Ok(transaction) => return Ok(transaction),
                Err(error) => {
                    self.health.note(&error);
                    if tries > 1 || !is_broken(&error) {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    async fn begin_locked(
        &self,
        lock: &'static str,
    ) -> Result<Transaction<'static, Any>, StoreError> {
        let mut transaction = self.begin_plain().await?;
        if self.dialect == Dialect::Postgres {
            let locked = sqlx::query(lock).fetch_one(&mut *transaction).await;
            locked.inspect_err(|error| self.health.note(error))?;
        }
        Ok(transaction)
    }

    /// Begins a write transaction that mints. It rests on records that must not change before it
    /// commits, and holds off [`Store::begin_revoking`] until then. Rolls back when dropped.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.begin_locked("SELECT pg_advisory_xact_lock_shared(7317002)::text").await
    }

    /// Begins a write transaction that takes something away or changes what others rest on. It
    /// waits for the mints in progress, and none begins until it ends. After its commit, no mint
    /// that did not see it can commit. The lock queues fairly, so minting cannot starve it; in
    /// SQLite the write lock does all of this. A node that stops in the middle holds the lock for
    /// at most three seconds: then the database ends its session.
    pub(crate) async fn begin_revoking(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.begin_locked("SELECT pg_advisory_xact_lock(7317002)::text").await
    }

    /// Whether to retry a read that failed: its connection turned out to be dead, and nothing was
    /// changed.
    pub(crate) fn is_read_again(&self, error: &sqlx::Error, tries: u32) -> bool {
        self.health.note(error);
        tries == 1 && is_broken(error)
    }

    /// Notes what an error says about the connections.
    pub(crate) fn note_failure(&self, error: &StoreError) {
        if let StoreError::Database(error) = error {
            self.health.note(error);
        }
    }
}

/// A text escaped for `LIKE … ESCAPE '!'`.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}
