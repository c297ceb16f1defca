//! Signing keys, sealed by the binary before they come here.

use crate::database::{Store, StoreError};
use carnet_proto::time::Timestamp;
use sqlx::Row;

/// A private key as it is stored: encrypted under the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// Thumbprint of the public key.
    pub kid: String,
    /// `ES256` or `EdDSA`.
    pub algorithm: String,
    /// Sealed PKCS#8 in base64url.
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stopped signing; it verifies until its tokens are gone.
    pub retired_at: Option<Timestamp>,
}

impl Store {
    /// Every key, newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SealedKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT kid, algorithm, sealed, created_at, retired_at FROM signing_keys \
             ORDER BY created_at DESC, kid",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(SealedKey {
                    kid: row.try_get("kid")?,
                    algorithm: row.try_get("algorithm")?,
                    sealed: row.try_get("sealed")?,
                    created_at: Timestamp(row.try_get("created_at")?),
                    retired_at: row.try_get::<Option<i64>, _>("retired_at")?.map(Timestamp),
                })
            })
            .collect()
    }

    /// Adds `key` unless there already is one that signs: of several nodes that start at once on an
    /// empty database, one wins and all go on with its key. Answers the key that stands.
    pub async fn first_signing_key(&self, key: &SealedKey) -> Result<SealedKey, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        sqlx::query(
            "INSERT INTO signing_keys (kid, algorithm, sealed, created_at) \
             SELECT $1, $2, $3, $4 WHERE NOT EXISTS \
             (SELECT 1 FROM signing_keys WHERE retired_at IS NULL)",
        )
        .bind(&key.kid)
        .bind(&key.algorithm)
        .bind(&key.sealed)
        .bind(key.created_at.0)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let keys = self.signing_keys().await?;
        keys.into_iter().find(|k| k.retired_at.is_none()).ok_or(StoreError::Closed)
    }
}
