//! What issuers have ended: people until a moment, and single ID-JAGs. Nothing is issued for either any more.

use super::{
    entry::{SubjectThen, UsedJti, insert_jtis},
    statements::{MOST_FOUND, bind, chunks, filled, padded, places, rows},
};
use crate::database::StoreError;
use passavant_proto::time::Timestamp;
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyArguments};
use std::collections::{BTreeSet, HashMap};

/// How an ID-JAG stands in the column of subjects, which have no line feed.
fn of_id_jag(jti: &str) -> String {
    format!("\n{jti}")
}

/// What has ended of some assertions.
pub(super) struct Ended(HashMap<(String, String), Timestamp>);

impl Ended {
    pub(super) async fn read<'a>(
        transaction: &mut Transaction<'static, Any>,
        wanted: impl Iterator<Item = &'a SubjectThen>,
    ) -> Result<Self, StoreError> {
        let keys = wanted.flat_map(|then| [then.subject.clone(), of_id_jag(&then.jti)]);
        let keys: Vec<String> = keys.collect::<BTreeSet<_>>().into_iter().collect();
        let mut ended = HashMap::new();
        for chunk in keys.chunks(MOST_FOUND) {
            let size = padded(chunk.len());
            let mut arguments = AnyArguments::default();
            for subject in filled(chunk, size) {
                bind(&mut arguments, subject.as_str())?;
            }
            let sql = format!(
                "SELECT issuer, subject, ended_at FROM ended_subjects WHERE subject IN {}",
                places(0, size)
            );
            let found = sqlx::query_with(AssertSqlSafe(sql), arguments);
            for row in found.fetch_all(&mut **transaction).await? {
                ended.insert((row.try_get(0)?, row.try_get(1)?), Timestamp(row.try_get(2)?));
            }
        }
        Ok(Self(ended))
    }

    /// Whether the assertion opens nothing any more.
    pub(super) fn holds(&self, then: &SubjectThen) -> bool {
        let at = |subject: String| self.0.get(&(then.issuer.clone(), subject));
        at(of_id_jag(&then.jti)).is_some()
            || at(then.subject.clone()).is_some_and(|ended_at| then.issued_at <= *ended_at)
    }
}

/// A JWT that says something with the body of its request: once, and with that body alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidOnce {
    /// The JWT.
    pub jwt: UsedJti,
    /// The hash of the body.
    pub body: String,
}

/// Whether it was said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    First,
    Again,
    /// The JWT came with another body.
    Otherwise,
}

impl SaidOnce {
    pub(crate) async fn say(
        &self,
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<Said, StoreError> {
        let with = UsedJti { jti: format!("{} {}", self.jwt.jti, self.body), ..self.jwt.clone() };
        let first = !insert_jtis(transaction, vec![&self.jwt]).await?.is_empty();
        let with_it = !insert_jtis(transaction, vec![&with]).await?.is_empty();
        Ok(match (first, with_it) {
            (true, _) => Said::First,
            (false, false) => Said::Again,
            (false, true) => Said::Otherwise,
        })
    }
}

/// Ends a person, until a moment.
pub(crate) async fn end_until(
    transaction: &mut Transaction<'static, Any>,
    (issuer, subject): (&str, &str),
    ended_at: Timestamp,
    forget_after: Timestamp,
) -> Result<(), StoreError> {
    let end = "INSERT INTO ended_subjects (issuer, subject, ended_at, forget_after) \
               VALUES ($1, $2, $3, $4) ON CONFLICT (issuer, subject) DO UPDATE \
               SET ended_at = EXCLUDED.ended_at, forget_after = EXCLUDED.forget_after \
               WHERE ended_subjects.ended_at < EXCLUDED.ended_at";
    let end = sqlx::query(end).bind(issuer).bind(subject).bind(ended_at.0).bind(forget_after.0);
    end.execute(&mut **transaction).await?;
    Ok(())
}

/// Ends ID-JAGs of an issuer. Returns how many tokens of `account` ended that were issued for them.
pub(crate) async fn end_id_jags(
    transaction: &mut Transaction<'static, Any>,
    (issuer, account): (&str, Option<&str>),
    jtis: &[String],
    forget_after: Timestamp,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let jtis: Vec<&String> = jtis.iter().collect::<BTreeSet<_>>().into_iter().collect();
    for chunk in chunks(&jtis) {
        let mut arguments = AnyArguments::default();
        for jti in chunk {
            bind(&mut arguments, issuer)?;
            bind(&mut arguments, of_id_jag(jti))?;
            bind(&mut arguments, now.0)?;
            bind(&mut arguments, forget_after.0)?;
        }
        let sql = format!(
            "INSERT INTO ended_subjects (issuer, subject, ended_at, forget_after) VALUES {} \
             ON CONFLICT DO NOTHING",
            rows(chunk.len(), 4)
        );
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **transaction).await?;
    }
    let Some(account) = account else { return Ok(0) };
    let mut gone = 0;
    for chunk in jtis.chunks(MOST_FOUND) {
        let size = padded(chunk.len());
        let mut arguments = AnyArguments::default();
        bind(&mut arguments, account)?;
        bind(&mut arguments, issuer)?;
        bind(&mut arguments, now.0)?;
        for jti in filled(chunk, size) {
            bind(&mut arguments, jti.as_str())?;
        }
        let sql = format!(
            "UPDATE grants SET revoked_at = $3 WHERE user_id = $1 AND party = $2 \
             AND revoked_at IS NULL AND lineage IN {}",
            places(3, size)
        );
        let end = sqlx::query_with(AssertSqlSafe(sql), arguments);
        gone += end.execute(&mut **transaction).await?.rows_affected();
    }
    Ok(gone)
}
