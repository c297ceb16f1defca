//! Opening a database: where it may be, which server owns it, how connections are made.

use crate::{
    database::{Dialect, Health, Store, StoreError},
    ledger, migrations,
};
use sqlx::{
    Any, AnyConnection, AnyPool, Executor, Row, Transaction,
    any::AnyPoolOptions,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

impl Store {
    /// Opens `sqlite:PATH` (created if absent) or `postgres://…`, and brings the schema up to date.
    /// A PostgreSQL on another machine must be reached by TLS that verifies its name.
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

    /// Claims the database for this server the first time. Fails if it belongs to another
    /// authorization server.
    pub async fn claim(&self, role: &str, issuer: &str) -> Result<(), StoreError> {
        self.patiently(|| self.try_claim(role, issuer)).await
    }

    /// Retries the work of a start for as long as a start waits for others.
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

    /// Closes the pools after the queued writes are done.
    pub async fn close(self) {
        drop(self.hot);
        self.read.close().await;
        self.write.close().await;
    }
}

fn dialect_of(url: &str) -> Result<Dialect, StoreError> {
    if url.starts_with("sqlite:") {
        Ok(Dialect::Sqlite)
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        Ok(Dialect::Postgres)
    } else {
        // Shows only the scheme: the rest may contain a password.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_plain = scheme.len() <= 20 && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        Err(StoreError::Url(if is_plain { scheme.to_owned() } else { String::new() }))
    }
}

/// Parameters of a PostgreSQL URL that have an effect here.
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

/// Whether a URL leads to a database that is safe to connect to: a PostgreSQL on another machine
/// only by TLS that verifies its name, since a man in the middle would control the policy.
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
    // An unknown parameter would be logged with its value.
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
    // The error's own text is not shown: it may quote the URL, which contains a password.
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

/// Whether a server listens where a PostgreSQL URL leads. A pool would only report a timeout.
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

/// Opens the first connections. Another program may have locked a SQLite file for a while.
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

/// For a database from before there were claims, and without one: its records show which role it
/// has.
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
        // Together with the wait for SQLite's lock, a response comes within two seconds.
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
                    // A node that stops in the middle of a transaction, or loses its network, holds
                    // its locks for no longer than others wait. A read-only server is rejected
                    // below.
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
                        "the PostgreSQL server is read-only: it is a standby, or is configured so"
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
            // A connection that is dead, or to a server that was overtaken, is dropped and
            // replaced.
            Ok(!asked || can_write(connection).await.unwrap_or(false))
        })
    })
}

/// Whether a PostgreSQL server accepts writes.
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

/// A connection that was idle for longer is tested before use.
const IDLE: Duration = Duration::from_secs(1);
