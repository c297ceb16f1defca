//! Opening, schema, and the one place where SQLite and PostgreSQL differ.

use crate::{
    administrators::end_administrators,
    ledger::{self, AuditEvent},
    migrations,
    rows::{self, Unreadable},
};
use passavant_proto::time::Timestamp;
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Executor, Row, Transaction,
    any::{AnyPoolOptions, AnyRow},
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{
    net::IpAddr,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
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
    /// Whoever asked for a change is no administrator any more, or another one. Nothing was done.
    #[error("the administrator was removed meanwhile, or has another token or role")]
    NoAdministrator,
    /// Another node changes the schema, or stopped while it did.
    #[error(
        "another node has been changing the schema for {0} s; try again, and look whether it still runs where it does not end"
    )]
    Migrating(u64),
    /// It took too long, and may still happen.
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
    /// The database is another authorization server's.
    #[error(
        "the database belongs to `{found}`, and this is `{wanted}`: each authorization server has a \
         database of its own"
    )]
    Foreign {
        /// Whose it is.
        found: String,
        /// Who asks.
        wanted: String,
    },
    /// The database is of the other kind of server.
    #[error("it is not the database of {role}: there are records of kind `{kind}` in it")]
    OtherRole {
        /// What was wanted.
        role: &'static str,
        /// What is in it.
        kind: String,
    },
    /// A PostgreSQL elsewhere, without a verified name.
    #[error(
        "the database on `{0}` would be spoken to in the clear, or to whoever answers: add \
         `sslmode=verify-full` to its URL (and `sslrootcert=FILE` for a certificate authority of your own)"
    )]
    Transport(String),
    /// A PostgreSQL URL that cannot be read.
    #[error("it is no PostgreSQL URL: postgres://USER@HOST/DATABASE?sslmode=verify-full")]
    UrlParts,
    /// A parameter of a PostgreSQL URL that nobody reads.
    #[error(
        "a parameter after `?` is not known; there are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, \
         dbname, user, password, application_name and options"
    )]
    UrlParameter,
    /// A letter in a PostgreSQL URL that ends the part it is in.
    #[error(
        "there is a `@` behind a `/`, `?` or `#`: a password with one of these letters in it has to be percent-encoded \
         (`#` is %23, `/` is %2F, `?` is %3F, `@` is %40)"
    )]
    UrlPassword,
    /// Several hosts in a PostgreSQL URL.
    #[error(
        "it names several hosts: one host is taken here, for instance of a proxy that knows which server is the primary"
    )]
    UrlHosts,
    /// A value of sslmode that there is not.
    #[error("sslmode is disable, allow, prefer, require, verify-ca or verify-full")]
    UrlTransport,
    /// Nothing can be connected to.
    #[error(
        "the database at {place} cannot be reached: {cause}\nhint: is it running, and are host and port right?"
    )]
    Unreachable {
        /// Host and port.
        place: String,
        /// What the system says.
        cause: String,
    },
    /// The URL is neither `sqlite:` nor `postgres:`.
    #[error("`{0}` is not a database URL; use sqlite:PATH or postgres://…")]
    Url(String),
}

/// Reads by `$query`, and once more where the connection turns out to be dead.
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

/// What is known of the connections of a store.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When a connection last broke, or could not write: in milliseconds since the store was opened, plus one.
    broke: AtomicU64,
}

/// For so long after a connection broke, the others are asked before they are used.
const SUSPECT: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is asked before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// Longest time of a probe.
const PROBE: Duration = Duration::from_secs(2);

/// What a decision reads and writes, tried and taken back; and one write that stays.
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

impl Health {
    fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn note(&self, error: &sqlx::Error) {
        if is_broken(error) {
            self.broke.store(Self::now(), Ordering::Relaxed);
        }
    }

    fn is_suspect(&self) -> bool {
        let broke = self.broke.load(Ordering::Relaxed);
        broke > 0 && Duration::from_millis(Self::now().saturating_sub(broke)) < SUSPECT
    }
}

/// Whether a connection is of no use any more, or its server cannot write: of such a server every connection has to
/// be asked before it is used.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // Shut down by an administrator, after a crash, starting up; a server that only reads, as one that was
        // overtaken in a failover does; a transaction that was idle for too long.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            matches!(
                code.as_ref(),
                "57P01" | "57P02" | "57P03" | "25006" | "25P03" | "08000" | "08003" | "08006"
            )
        }),
        _ => false,
    }
}

/// What the two databases spell differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// SQLite takes its one write lock at once, so that no transaction fails half-way through.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// A number that no other change draws: a counter that was set back by a restore would meet itself.
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

    /// Deletes at most `limit` rows of `table` that fit.
    fn delete_some(self, table: &str, condition: &str, limit: u32) -> String {
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
    /// Opens `sqlite:PATH` (created if absent) or `postgres://…`, and brings the schema up to date. A PostgreSQL
    /// elsewhere has to be reached by TLS with a verified name.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let dialect = dialect_of(url)?;
        check_transport(url)?;
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
        if dialect == Dialect::Postgres {
            check_reachable(url).await?;
        }
        let health = Arc::new(Health::default());
        let write = connect(writers, dialect, &health, &full).await?;
        migrations::run(&write, dialect).await?;
        let read = connect(readers, dialect, &health, &full).await?;
        let (hot, queue) = mpsc::channel(4096);
        let store = Self { read, write, dialect, hot, health, unreadable: Arc::default() };
        ledger::spawn_writers(&store, queue, hot_writers);
        Ok(store)
    }

    /// Says whose database this is, the first time; refused where it is another authorization server's.
    pub async fn claim(&self, role: &str, issuer: &str) -> Result<(), StoreError> {
        self.patiently(|| self.try_claim(role, issuer)).await
    }

    /// Does what a start does, for as long as a start waits for others.
    pub(crate) async fn patiently<T, F>(&self, work: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let began = Instant::now();
        loop {
            match work().await {
                Err(StoreError::Database(error))
                    if migrations::is_taken(&error)
                        && began.elapsed() < migrations::patience(self.dialect) =>
                {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                done => return done,
            }
        }
    }

    async fn try_claim(&self, role: &str, issuer: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        check_role(&mut transaction, role).await?;
        for (key, value) in [("role", role), ("issuer", issuer)] {
            let claim = "INSERT INTO identity (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            sqlx::query(claim).bind(key).bind(value).execute(&mut *transaction).await?;
            let row = sqlx::query("SELECT value FROM identity WHERE key = $1")
                .bind(key)
                .fetch_one(&mut *transaction)
                .await?;
            let found: String = row.try_get(0)?;
            if found != value {
                return Err(StoreError::Foreign { found, wanted: value.to_owned() });
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Begins a transaction. A connection that turns out to be dead before anything was sent by it is replaced.
    async fn begin_plain(&self) -> Result<Transaction<'static, Any>, StoreError> {
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

    /// Begins a write transaction that mints: it rests on records that must not change before it
    /// commits, and holds off [`Store::begin_revoking`] until then. Rolls back when dropped.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.begin_locked("SELECT pg_advisory_xact_lock_shared(7317002)::text").await
    }

    /// Begins a write transaction that takes something away or changes what others rest on: it waits
    /// for the mints under way, and none begins until it ends. When it has committed, no mint that
    /// did not see it can still commit. The lock queues fairly, so minting cannot starve it; in
    /// SQLite the write lock does all of it. A node that stops in the middle holds it for three seconds at most:
    /// then its session is ended by the database.
    pub(crate) async fn begin_revoking(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.begin_locked("SELECT pg_advisory_xact_lock(7317002)::text").await
    }

    /// Whether a read that failed is tried once more: its connection turned out to be dead, and nothing was changed.
    pub(crate) fn is_read_again(&self, error: &sqlx::Error, tries: u32) -> bool {
        self.health.note(error);
        tries == 1 && is_broken(error)
    }

    /// Whether a decision could be recorded now: one is, each time. Whoever is asked by strangers asks this once for many
    /// of them.
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

    /// Notes what an error says of the connections.
    pub(crate) fn note_failure(&self, error: &StoreError) {
        if let StoreError::Database(error) = error {
            self.health.note(error);
        }
    }

    /// Deletes what has outlived its use: codes, requests, tokens and `jti`s past their time, in small pieces between
    /// which others have their turn. A table that fails leaves the others theirs. Audit rows stay, but for refusals
    /// older than `keep_refused` seconds where that is set. Answers how many rows went.
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
        // What may be used once is kept an hour longer than any node would accept it, whatever its clock says within
        // that. Codes and refresh tokens stay a day longer, so that late reuse is still recognised.
        let refused = keep_refused.map_or(i64::MIN, before);
        let pieces = [
            ("used_jtis", format!("forget_after < {}", before(3600))),
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

    /// A connection that holds the turn to purge until it is dropped; none where another node has it, or where this
    /// node's clock cannot be trusted with what may be used once.
    async fn purging_turn(
        &self,
        now: Timestamp,
    ) -> Result<Option<Transaction<'static, Any>>, StoreError> {
        let mut turn = self.read.begin_with(self.dialect.begin()).await?;
        // It is idle while others work.
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
                "this node's clock and the database's differ: set it; nothing is purged by it"
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

    /// After a backup was restored: ends every session, refresh token, code and token on record, and the tokens of
    /// administrators, since some of them were ended or used up after the backup was made; and makes every node read the
    /// directory anew.
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
        end_administrators(&mut transaction, now).await?;
        // Whatever the numbers are that came back with it.
        let mark =
            format!("UPDATE meta SET value = {} WHERE key = 'policy_mark'", self.dialect.random());
        sqlx::query(AssertSqlSafe(mark)).execute(&mut *transaction).await?;
        self.commit_directory(transaction, checked, event).await
    }

    /// Closes the pools after the queued writes are done.
    pub async fn close(self) {
        drop(self.hot);
        self.read.close().await;
        self.write.close().await;
    }
}

/// How long deleting one piece should take: others wait for no more than that.
const PIECE: Duration = Duration::from_millis(20);
/// Seconds that the clocks of a node and of its database may differ by.
const CLOCKS_APART: i64 = 30;

fn dialect_of(url: &str) -> Result<Dialect, StoreError> {
    if url.starts_with("sqlite:") {
        Ok(Dialect::Sqlite)
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        Ok(Dialect::Postgres)
    } else {
        // Never more of it than a scheme: the rest may be a password.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_plain = scheme.len() <= 20 && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        Err(StoreError::Url(if is_plain { scheme.to_owned() } else { String::new() }))
    }
}

/// Parameters of a PostgreSQL URL that mean something here.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Whether what a URL leads to may be spoken to: a PostgreSQL that is not on this machine by TLS with a verified name
/// alone, since whoever stands between holds the policy.
pub fn check_transport(url: &str) -> Result<(), StoreError> {
    if dialect_of(url)? == Dialect::Sqlite {
        return Ok(());
    }
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split(['/', '#']).next().unwrap_or_default();
    let ends_early = place.matches('@').count() > 1 || place.rfind('@') > Some(authority.len());
    if ends_early || (!place.contains('@') && place.contains(':') && query.contains('@')) {
        return Err(StoreError::UrlPassword);
    }
    if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
        return Err(StoreError::UrlHosts);
    }
    // What is not known would be logged with its value.
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !PARAMETERS.contains(&name) {
            return Err(StoreError::UrlParameter);
        }
        let modes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
        if matches!(name, "sslmode" | "ssl-mode") && !modes.contains(&value) {
            return Err(StoreError::UrlTransport);
        }
    }
    // Never the error's own text: it may quote the URL, which has a password in it.
    let options: PgConnectOptions = url.parse().map_err(|_| StoreError::UrlParts)?;
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback());
    let is_verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    if is_here || is_verified { Ok(()) } else { Err(StoreError::Transport(host.to_owned())) }
}

/// Whether anything listens where a PostgreSQL URL leads. A pool says no more than that it waited in vain.
async fn check_reachable(url: &str) -> Result<(), StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|_| StoreError::UrlParts)?;
    let (host, port) = (options.get_host(), options.get_port());
    if options.get_socket().is_some() || host.starts_with('/') {
        return Ok(());
    }
    let place = format!("{host}:{port}");
    let host = host.trim_matches(['[', ']']);
    let connected =
        tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect((host, port)));
    match connected.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(StoreError::Unreachable { place, cause: error.to_string() }),
        Err(_) => Err(StoreError::Unreachable { place, cause: "no answer in 5 s".to_owned() }),
    }
}

fn sqlite_url(path: &str) -> String {
    let path = path.strip_prefix("//").unwrap_or(path);
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite://{escaped}?mode=rwc")
}

/// The first connections. A SQLite file may be locked by another program for a while.
async fn connect(
    connections: u32,
    dialect: Dialect,
    health: &Arc<Health>,
    url: &str,
) -> Result<AnyPool, StoreError> {
    let began = Instant::now();
    loop {
        match pool(connections, dialect, health).connect(url).await {
            Err(error)
                if dialect == Dialect::Sqlite
                    && (migrations::is_taken(&error)
                        || matches!(error, sqlx::Error::PoolTimedOut))
                    && began.elapsed() < migrations::patience(dialect) =>
            {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            connected => return Ok(connected?),
        }
    }
}

/// A database that nobody has claimed yet, of before there were claims: what is in it tells what it is.
async fn check_role(
    transaction: &mut Transaction<'static, Any>,
    role: &str,
) -> Result<(), StoreError> {
    let claimed = sqlx::query("SELECT value FROM identity LIMIT 1");
    if claimed.fetch_optional(&mut **transaction).await?.is_some() {
        return Ok(());
    }
    let others = if role == "idp" {
        "SELECT kind FROM directory WHERE kind IN ('trusted issuer', 'account', 'client host') LIMIT 1"
    } else {
        "SELECT kind FROM directory WHERE kind IN ('user', 'group', 'connection') LIMIT 1"
    };
    match sqlx::query(others).fetch_optional(&mut **transaction).await? {
        Some(row) => Err(StoreError::OtherRole {
            role: if role == "idp" {
                "an identity provider"
            } else {
                "a resource authorization server"
            },
            kind: row.try_get(0)?,
        }),
        None => Ok(()),
    }
}

fn pool(connections: u32, dialect: Dialect, health: &Arc<Health>) -> AnyPoolOptions {
    let health = Arc::clone(health);
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        // With the wait for SQLite's lock, an answer comes within two seconds.
        .acquire_timeout(match dialect {
            Dialect::Sqlite => Duration::from_secs(1),
            Dialect::Postgres => Duration::from_secs(5),
        })
        .test_before_acquire(false)
        .after_connect(move |connection: &mut AnyConnection, _| {
            Box::pin(async move {
                let settings = match dialect {
                    Dialect::Sqlite => {
                        "PRAGMA busy_timeout = 900; PRAGMA journal_mode = WAL; \
                         PRAGMA synchronous = FULL; PRAGMA cache_size = -4096; \
                         PRAGMA wal_autocheckpoint = 8000;"
                    }
                    // A node that stops in the middle of a transaction, or whose network does, holds its locks for
                    // no longer than the others wait. A server that only reads is none of ours.
                    Dialect::Postgres => {
                        "SET statement_timeout = 5000; SET lock_timeout = 5000; \
                         SET idle_in_transaction_session_timeout = 3000; \
                         SET synchronous_commit = on; SET tcp_keepalives_idle = 5; \
                         SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
                         SET tcp_user_timeout = 10000;"
                    }
                };
                connection.execute(settings).await?;
                if dialect == Dialect::Postgres && !can_write(connection).await? {
                    return Err(sqlx::Error::Protocol(
                        "the PostgreSQL server only reads: it is a standby, or was told so"
                            .to_owned(),
                    ));
                }
                Ok(())
            })
        });
    if dialect == Dialect::Sqlite {
        return pool;
    }
    pool.before_acquire(move |connection, met| {
        let asked = met.idle_for > IDLE || health.is_suspect();
        Box::pin(async move {
            // One that is dead, or of a server that was overtaken, is thrown away, and another one made.
            Ok(!asked || can_write(connection).await.unwrap_or(false))
        })
    })
}

/// Whether a PostgreSQL takes writes.
async fn can_write(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(
        "SELECT CASE WHEN pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' \
         THEN 0 ELSE 1 END::bigint",
    )
    .fetch_one(connection)
    .await?;
    row.try_get::<i64, _>(0).map(|writes| writes == 1)
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
    rows::parse(text).map_err(|why| StoreError::Document(kind, why))
}

/// Writes a JSON column.
pub(crate) fn to_json<T: serde::Serialize>(
    value: &T,
    kind: &'static str,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Document(kind, e.to_string()))
}
