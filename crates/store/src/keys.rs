//! Signing keys. The binary encrypts them before they are stored.

use crate::{
    database::{Store, StoreError, reading},
    ledger::AuditEvent,
};
use passavant_proto::time::Timestamp;
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

/// A private key as it is stored: encrypted under the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// Thumbprint of the public key.
    pub kid: String,
    /// `ES256`, `EdDSA` or `RS256`.
    pub algorithm: String,
    /// Sealed PKCS#8 in base64url.
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stopped signing, set only by an earlier version.
    pub retired_at: Option<Timestamp>,
    /// When it starts signing; until then it is only published. The newest key whose time has come
    /// signs; earlier keys verify until the last token that they signed has expired.
    pub signs_from: Timestamp,
}

impl SealedKey {
    /// The order in which keys of one algorithm sign. It is total: keys that earlier versions let
    /// begin in the same second are told apart as well, the same way wherever one is chosen.
    pub fn order(&self) -> (Timestamp, Timestamp, &str) {
        (self.signs_from, self.created_at, &self.kid)
    }

    /// The key that signs at `now`, of the keys of one algorithm: the newest that has begun, or the
    /// first where none has, because a server without a signing key serves nobody. Whoever shows,
    /// uses or removes keys asks here.
    pub fn that_signs<'k>(
        keys: impl IntoIterator<Item = &'k Self>,
        now: Timestamp,
    ) -> Option<&'k Self> {
        let mut live: Vec<&Self> =
            keys.into_iter().filter(|key| key.retired_at.is_none()).collect();
        live.sort_by(|one, other| one.order().cmp(&other.order()));
        let begun = live.iter().rev().find(|key| key.signs_from <= now);
        begun.or(live.first()).copied()
    }
}

/// Reads a row of [`ALL`].
fn key_of(row: &AnyRow) -> Result<SealedKey, StoreError> {
    Ok(SealedKey {
        kid: row.try_get("kid")?,
        algorithm: row.try_get("algorithm")?,
        sealed: row.try_get("sealed")?,
        created_at: Timestamp(row.try_get("created_at")?),
        retired_at: row.try_get::<Option<i64>, _>("retired_at")?.map(Timestamp),
        signs_from: Timestamp(row.try_get("signs_from")?),
    })
}

/// Every key.
const ALL: &str = "SELECT kid, algorithm, sealed, created_at, retired_at, \
                   COALESCE(signs_from, created_at) AS signs_from FROM signing_keys \
                   UNION ALL \
                   SELECT kid, algorithm, sealed, created_at, retired_at, \
                   COALESCE(signs_from, created_at) AS signs_from FROM signing_keys_beside \
                   ORDER BY created_at DESC, kid";

/// Tables of keys. Keys of algorithms other than the first one's have a table of their own, because
/// an earlier version takes every key of the first table for one of its own algorithm. Thus it can
/// run beside this version, and after it.
const TABLES: [&str; 2] = ["signing_keys", "signing_keys_beside"];

async fn table_of(
    transaction: &mut Transaction<'static, Any>,
    algorithm: &str,
) -> Result<&'static str, StoreError> {
    let first = sqlx::query("SELECT algorithm FROM signing_keys LIMIT 1");
    let first = first.fetch_optional(&mut **transaction).await?;
    let first: Option<String> = first.map(|row| row.try_get(0)).transpose()?;
    Ok(TABLES[usize::from(first.is_some_and(|first| first != algorithm))])
}

async fn insert_key(
    transaction: &mut Transaction<'static, Any>,
    table: &str,
    key: &SealedKey,
    signs_from: Timestamp,
) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO {table} (kid, algorithm, sealed, created_at, signs_from) \
         VALUES ($1, $2, $3, $4, $5)"
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(&key.kid)
        .bind(&key.algorithm)
        .bind(&key.sealed)
        .bind(key.created_at.0)
        .bind(signs_from.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// What became of a key that was to sign no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// There is no such key.
    Missing,
    /// It is not the one that signs.
    DoesNotSign,
    /// It is of this algorithm, and the successor is not.
    OtherAlgorithm(String),
    /// This one signs in its place.
    Follows {
        /// Its id.
        kid: String,
        /// When it begins to sign.
        signs_from: Timestamp,
    },
}

impl Store {
    /// Every key, newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        let rows = reading!(self, fetch_all, sqlx::query(ALL))?;
        rows.iter().map(key_of).collect()
    }

    /// Adds `key` unless a signing key of its algorithm already exists: if several nodes start at
    /// once on an empty database, one wins and all use its key. Returns the key that is stored.
    pub async fn first_signing_key(&self, key: &SealedKey) -> Result<SealedKey, StoreError> {
        self.patiently(|| self.try_first_signing_key(key)).await
    }

    async fn try_first_signing_key(&self, key: &SealedKey) -> Result<SealedKey, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        let table = table_of(&mut transaction, &key.algorithm).await?;
        let statement = format!(
            "INSERT INTO {table} (kid, algorithm, sealed, created_at) \
             SELECT $1, $2, $3, $4 WHERE NOT EXISTS \
             (SELECT 1 FROM {table} WHERE retired_at IS NULL AND algorithm = $2)"
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(&key.kid)
            .bind(&key.algorithm)
            .bind(&key.sealed)
            .bind(key.created_at.0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let keys = self.signing_keys().await?;
        let mut keys = keys.into_iter();
        let stands = keys.find(|k| k.retired_at.is_none() && k.algorithm == key.algorithm);
        stands.ok_or(StoreError::Closed)
    }

    /// Adds a key, in a new generation: every node sees it at its next request. No two keys of an
    /// algorithm begin to sign in the same second: the new one begins later than it says, if need
    /// be. Returns when it does.
    pub async fn add_signing_key(
        &self,
        key: &SealedKey,
        event: AuditEvent,
    ) -> Result<Timestamp, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let table = table_of(&mut transaction, &key.algorithm).await?;
        let begins = format!(
            "SELECT kid FROM {table} WHERE algorithm = $1 AND COALESCE(signs_from, created_at) = $2"
        );
        let mut signs_from = key.signs_from;
        loop {
            let begins = sqlx::query(AssertSqlSafe(begins.clone()));
            let begins = begins.bind(&key.algorithm).bind(signs_from.0);
            if begins.fetch_optional(&mut *transaction).await?.is_none() {
                break;
            }
            signs_from = signs_from.plus(1);
        }
        insert_key(&mut transaction, table, key, signs_from).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(signs_from)
    }

    /// Has the key that signs be followed at once: by the next one of its algorithm if one is published
    /// already, else by `successor`. In a new generation: every node sees it at its next request.
    pub async fn retire_signing_key(
        &self,
        kid: &str,
        successor: &SealedKey,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<Retirement, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let rows = sqlx::query(ALL).fetch_all(&mut *transaction).await?;
        let keys: Vec<SealedKey> = rows.iter().map(key_of).collect::<Result<_, _>>()?;
        let Some(wanted) = keys.iter().find(|key| key.kid == kid) else {
            return Ok(Retirement::Missing);
        };
        let of_it = || keys.iter().filter(|key| key.algorithm == wanted.algorithm);
        let signing = SealedKey::that_signs(of_it(), now);
        if signing.is_none_or(|signing| signing.kid != kid) {
            return Ok(Retirement::DoesNotSign);
        }
        if successor.algorithm != wanted.algorithm {
            return Ok(Retirement::OtherAlgorithm(wanted.algorithm.clone()));
        }
        // Later than the one that it follows, also where both were made within a second.
        let signs_from = Timestamp(now.0.max(wanted.signs_from.0 + 1));
        let next = of_it().filter(|key| key.retired_at.is_none() && key.order() > wanted.order());
        let next = next.min_by(|one, other| one.order().cmp(&other.order()));
        let follows = if let Some(next) = next {
            for table in TABLES {
                let statement = format!("UPDATE {table} SET signs_from = $2 WHERE kid = $1");
                let begins = sqlx::query(AssertSqlSafe(statement)).bind(next.kid.as_str());
                begins.bind(signs_from.0).execute(&mut *transaction).await?;
            }
            next.kid.clone()
        } else {
            let table = table_of(&mut transaction, &successor.algorithm).await?;
            insert_key(&mut transaction, table, successor, signs_from).await?;
            successor.kid.clone()
        };
        self.commit_directory(transaction, checked, event).await?;
        Ok(Retirement::Follows { kid: follows, signs_from })
    }

    /// Removes a key and the earlier ones of its algorithm, in a new generation: every node stops
    /// accepting them at its next request. Returns `false` if the key does not exist, or if it is
    /// the one that signs ([`SealedKey::that_signs`]): of each algorithm one key stays. A later key, which does not
    /// sign yet, is removed alone.
    pub async fn remove_signing_key(
        &self,
        kid: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let rows = sqlx::query(ALL).fetch_all(&mut *transaction).await?;
        let keys: Vec<SealedKey> = rows.iter().map(key_of).collect::<Result<_, _>>()?;
        let Some(wanted) = keys.iter().find(|key| key.kid == kid) else { return Ok(false) };
        let of_it: Vec<&SealedKey> =
            keys.iter().filter(|key| key.algorithm == wanted.algorithm).collect();
        let Some(signing) = SealedKey::that_signs(of_it.iter().copied(), now) else {
            return Ok(false);
        };
        if signing.kid == kid {
            return Ok(false);
        }
        let is_later = wanted.order() > signing.order();
        for key in of_it {
            if key.kid != kid && (is_later || key.order() > wanted.order()) {
                continue;
            }
            for table in TABLES {
                let statement = format!("DELETE FROM {table} WHERE kid = $1");
                let gone = sqlx::query(AssertSqlSafe(statement)).bind(key.kid.as_str());
                gone.execute(&mut *transaction).await?;
            }
        }
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions before RS256 take every key of their one table for one of their own algorithm, and
    /// stop at others.
    #[tokio::test]
    async fn an_earlier_version_sees_no_key_that_it_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("idp.db").display());
        let store = Store::open(&url).await.unwrap();
        for (kid, algorithm) in [("a", "ES256"), ("b", "RS256"), ("c", "EdDSA")] {
            let key = SealedKey {
                kid: kid.to_owned(),
                algorithm: algorithm.to_owned(),
                sealed: "sealed".to_owned(),
                created_at: Timestamp(1),
                retired_at: None,
                signs_from: Timestamp(1),
            };
            store.first_signing_key(&key).await.unwrap();
        }
        let rows = sqlx::query("SELECT algorithm FROM signing_keys");
        let rows = rows.fetch_all(&store.read).await.unwrap();
        let seen: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, ["ES256"]);
        assert_eq!(store.signing_keys().await.unwrap().len(), 3);
    }
}
