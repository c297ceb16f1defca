//! The schema, step by step. Each step only adds (expand): nodes of an earlier version go on beside it, and after it. What
//! an earlier version needs is taken away (contract) by a later release than the one that stopped needing it, and raises
//! [`SCHEMA_VERSION`], which is the only thing that keeps an earlier version out.
//!
//! Whichever node comes first runs the steps that are missing, each in the same transaction as its mark. Others wait for
//! it, and not without end.

use crate::database::{Dialect, StoreError};
use sqlx::{Any, AnyPool, AssertSqlSafe, Row, Transaction};
use std::time::{Duration, Instant};

/// What a program has to know to use the database at all.
const SCHEMA_VERSION: i64 = 1;

/// What every version has.
const FIRST: &str = include_str!("migrations/0000_first.sql");

/// The steps since, numbered from 1. A step that was released is never changed.
const STEPS: [Step; 7] = [
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
];

/// One step, as the databases take it.
#[derive(Clone, Copy)]
enum Step {
    Both(&'static str),
    /// Triggers have no common spelling.
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

/// The same for a SQLite file that another program has locked.
const FILE: Duration = Duration::from_secs(30);

/// How long a step waits for those who read and write a table: whoever comes after it waits as long.
const HOLD: Duration = Duration::from_millis(1500);

/// How long a node waits for another one to end its steps: an index over millions of rows takes its time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whether this version may use the database still: a later one may have taken something away.
pub(crate) async fn check(transaction: &mut Transaction<'static, Any>) -> Result<(), StoreError> {
    match number(transaction, "schema").await? {
        Some(found) if found > SCHEMA_VERSION => {
            Err(StoreError::TooNew { found, known: SCHEMA_VERSION })
        }
        _ => Ok(()),
    }
}

/// Brings the schema up to date, and waits its turn: not without end, and holding up nobody for longer than [`HOLD`].
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

/// Whether somebody else has what is asked for, for now.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // SQLite: busy, also where a snapshot was overtaken; PostgreSQL: a lock was not had in time, a deadlock.
    code.is_some_and(|code| matches!(code.as_ref(), "5" | "261" | "517" | "55P03" | "40P01"))
}

/// How long a start waits for others: for a node that changes the schema, for a program that holds a file.
pub(crate) fn patience(dialect: Dialect) -> Duration {
    if dialect == Dialect::Sqlite { FILE } else { PATIENCE }
}

/// The steps that are missing. Where none is, nothing is locked.
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
    // More than there are here: a later version has been here, which goes on beside this one.
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

/// A transaction that alone changes the schema. Where another node is at it, it is asked again until it ends; a node that
/// stopped between two statements is ended by the database within seconds.
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
            // One statement may take long; what waits for a lock keeps all the others waiting, and gives up.
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

/// Version and steps of a database that has a schema.
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
