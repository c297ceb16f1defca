//! The schema, step by step. Each step only adds (expand), so that nodes of an earlier version keep
//! running beside it, and after it. What an earlier version needs is removed (contract) only by a
//! release later than the one that stopped needing it. That release raises [`SCHEMA_VERSION`],
//! which is the only thing that keeps an earlier version out.
//!
//! The first node to start runs the missing steps, each in the same transaction as its mark. The
//! others wait for it, up to a limit.

use crate::database::{Dialect, StoreError};
use sqlx::{Any, AnyPool, AssertSqlSafe, Row, Transaction};
use std::time::{Duration, Instant};

/// The version that a program has to know to use the database at all.
const SCHEMA_VERSION: i64 = 1;

/// The tables of every version.
const FIRST: &str = include_str!("migrations/0000_first.sql");

/// The later steps, numbered from 1. A released step is never changed.
const STEPS: [Step; 15] = [
    Step::Both(include_str!("migrations/0001_whose_and_when.sql")),
    Step::Both(include_str!("migrations/0002_keys_ahead.sql")),
    Step::Both(include_str!("migrations/0003_refresh_again.sql")),
    Step::Both(include_str!("migrations/0004_device_codes.sql")),
    Step::Both(include_str!("migrations/0005_keys_beside.sql")),
    Step::Each {
        sqlite: include_str!("migrations/0006_versions.sqlite.sql"),
        postgres: include_str!("migrations/0006_versions.postgres.sql"),
    },
    Step::Both(include_str!("migrations/0007_acts_once.sql")),
    Step::Each {
        sqlite: include_str!("migrations/0008_people.sqlite.sql"),
        postgres: include_str!("migrations/0008_people.postgres.sql"),
    },
    Step::Both(include_str!("migrations/0009_upstream.sql")),
    Step::Both(include_str!("migrations/0010_provisioning.sql")),
    Step::Both(include_str!("migrations/0011_credentials.sql")),
    Step::Each {
        sqlite: include_str!("migrations/0012_logout_notices.sqlite.sql"),
        postgres: include_str!("migrations/0012_logout_notices.postgres.sql"),
    },
    Step::Each {
        sqlite: include_str!("migrations/0013_revocation_notices.sqlite.sql"),
        postgres: include_str!("migrations/0013_revocation_notices.postgres.sql"),
    },
    Step::Each {
        sqlite: include_str!("migrations/0014_ended_tokens.sqlite.sql"),
        postgres: include_str!("migrations/0014_ended_tokens.postgres.sql"),
    },
    Step::Each {
        sqlite: include_str!("migrations/0015_signals.sqlite.sql"),
        postgres: include_str!("migrations/0015_signals.postgres.sql"),
    },
];

/// One step, in the dialects of the databases.
#[derive(Clone, Copy)]
enum Step {
    Both(&'static str),
    /// Triggers have no common syntax.
    Each {
        sqlite: &'static str,
        postgres: &'static str,
    },
}

impl Step {
    const fn of(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Both(sql), _)
            | (Self::Each { sqlite: sql, .. }, Dialect::Sqlite)
            | (Self::Each { postgres: sql, .. }, Dialect::Postgres) => sql,
        }
    }
}

/// How long a start waits for a SQLite file that another program has locked.
const FILE: Duration = Duration::from_secs(30);

/// How long a step waits for readers and writers of a table; those who come after it wait as long.
const HOLD: Duration = Duration::from_millis(1500);

/// How long a node waits for another one to finish its steps. An index over millions of rows takes
/// its time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whether this version may still use the database. A later version may have removed something.
pub(crate) async fn check(transaction: &mut Transaction<'static, Any>) -> Result<(), StoreError> {
    match number(transaction, "schema").await? {
        Some(found) if found > SCHEMA_VERSION => {
            Err(StoreError::TooNew { found, known: SCHEMA_VERSION })
        }
        _ => Ok(()),
    }
}

/// Brings the schema up to date. Waits its turn, up to a limit, and delays others by no more than
/// [`HOLD`].
pub(crate) async fn run(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    let began = Instant::now();
    loop {
        match steps(pool, dialect).await {
            Err(StoreError::Database(error))
                if is_taken(&error) && began.elapsed() < patience(dialect) =>
            {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            done => return done,
        }
    }
}

/// Whether the error means that another one holds the lock for now.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // SQLite: busy, or a snapshot was overtaken; PostgreSQL: a lock timeout, or a deadlock.
    code.is_some_and(|code| matches!(code.as_ref(), "5" | "261" | "517" | "55P03" | "40P01"))
}

/// How long a start waits: for a node that changes the schema, or for a program that has locked the
/// file.
pub(crate) fn patience(dialect: Dialect) -> Duration {
    if dialect == Dialect::Sqlite { FILE } else { PATIENCE }
}

/// Runs the steps that are missing. If none is missing, nothing is locked.
async fn steps(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    if let Ok((found, done)) = state(pool).await {
        if found > SCHEMA_VERSION {
            return Err(StoreError::TooNew { found, known: SCHEMA_VERSION });
        }
        if usize::try_from(done).is_ok_and(|done| done >= STEPS.len()) {
            return Ok(());
        }
    }
    let mut transaction = turn(pool, dialect).await?;
    let schema = FIRST.replace("{serial}", dialect.serial_key());
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut *transaction).await?;
    let found = number(&mut transaction, "schema").await?.unwrap_or(SCHEMA_VERSION);
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew { found, known: SCHEMA_VERSION });
    }
    // A greater number than here means that a later version, which runs beside this one, has added
    // steps.
    let done = number(&mut transaction, "additions").await?.unwrap_or(0);
    for (step, sql) in (1_i64..).zip(STEPS).filter(|(step, _)| *step > done) {
        let sql = sql.of(dialect).replace("{random}", dialect.random());
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
        sqlx::query(
            "INSERT INTO meta (key, value) VALUES ('additions', $1) \
             ON CONFLICT (key) DO UPDATE SET value = $1",
        )
        .bind(step)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(transaction.commit().await?)
}

/// A transaction in which this node alone changes the schema. While another node does so, retries
/// until it ends. If the other node stopped between two statements, the database ends its session
/// within seconds.
async fn turn(pool: &AnyPool, dialect: Dialect) -> Result<Transaction<'static, Any>, StoreError> {
    if dialect == Dialect::Sqlite {
        return Ok(pool.begin_with(dialect.begin()).await?);
    }
    let began = Instant::now();
    loop {
        let mut transaction = pool.begin_with(dialect.begin()).await?;
        let sql = "SELECT CASE WHEN pg_try_advisory_xact_lock(7317001) THEN 1 ELSE 0 END::bigint";
        let row = sqlx::query(sql).fetch_one(&mut *transaction).await?;
        if row.try_get::<i64, _>(0)? == 1 {
            // A statement may take long. A wait for a lock delays everyone else, so it gives up
            // early.
            let settings = format!(
                "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}",
                HOLD.as_millis()
            );
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *transaction).await?;
            return Ok(transaction);
        }
        transaction.rollback().await?;
        if began.elapsed() > PATIENCE {
            return Err(StoreError::Migrating(PATIENCE.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Version and number of steps of a database that has a schema.
async fn state(pool: &AnyPool) -> Result<(i64, i64), StoreError> {
    let mut transaction = pool.begin().await?;
    let found = number(&mut transaction, "schema").await?.unwrap_or(SCHEMA_VERSION);
    Ok((found, number(&mut transaction, "additions").await?.unwrap_or(0)))
}

async fn number(
    transaction: &mut Transaction<'static, Any>,
    key: &str,
) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE key = $1").bind(key);
    let row = row.fetch_optional(&mut **transaction).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
