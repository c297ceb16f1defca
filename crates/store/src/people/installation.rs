//! Installations of Passavant that people have enrolled: a person's public key, a device name, and
//! when the installation was last used.

use super::user::User;
use crate::{
    database::{Store, StoreError, reading},
    directory::{Seen, read},
    ledger::{AuditEvent, insert_audit},
    rows::{document, to_json},
};
use passavant_proto::{jose::jwk::Algorithm, time::Timestamp};
use serde_json::Value;
use sqlx::{Row, any::AnyRow};

/// Maximum number of live installations of one person.
pub const MOST_INSTALLATIONS: i64 = 50;
/// Its kind in messages.
pub(crate) const INSTALLATION: &str = "installation";
/// Two uses within this many seconds count as one.
const USE_APART: i64 = 60;

/// One enrolled installation. It is a client whose id is the URL of its metadata document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The last segment of its URL.
    pub id: String,
    /// Its person.
    pub user_id: String,
    /// The name of the person's computer.
    pub device: String,
    /// Its public key (JWK).
    pub public_jwk: Value,
    /// The algorithm that the key signs with.
    pub algorithm: Algorithm,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// When it last authenticated, to the minute.
    pub used_at: Timestamp,
}

impl Store {
    /// Records an installation of a person. Returns `false` if the person is switched off or
    /// deleted, if the `session` in which they requested it has ended (for example by a new
    /// password), or if they already have [`MOST_INSTALLATIONS`].
    pub async fn enrol(
        &self,
        installation: &Installation,
        session: &str,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        // The revoking lock, so that two concurrent enrolments cannot both be the last allowed one.
        let mut transaction = self.begin_revoking().await?;
        let person = read::<User>(&mut transaction, &installation.user_id).await?;
        let held: i64 = sqlx::query(
            "SELECT COUNT(*) FROM installations WHERE user_id = $1 AND revoked_at IS NULL",
        )
        .bind(installation.user_id.as_str())
        .fetch_one(&mut *transaction)
        .await?
        .try_get(0)?;
        let live = sqlx::query(
            "SELECT sid FROM sessions WHERE sid = $1 AND user_id = $2 AND ended_at IS NULL",
        )
        .bind(session)
        .bind(installation.user_id.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        if live.is_none() {
            return Ok(false);
        }
        if person.is_none_or(|user| user.is_off()) || held >= MOST_INSTALLATIONS {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO installations (id, user_id, document, used_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(installation.id.as_str())
        .bind(installation.user_id.as_str())
        .bind(to_json(installation, INSTALLATION)?)
        .bind(installation.used_at.0)
        .execute(&mut *transaction)
        .await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// A live installation, and the row version that a decision on it is recorded against. The
    /// caller checks in the directory whether its person may still use it.
    pub async fn installation(&self, id: &str) -> Result<Option<(Installation, Seen)>, StoreError> {
        let sql = "SELECT id, document, used_at, version FROM installations \
                   WHERE id = $1 AND revoked_at IS NULL";
        let Some(row) = reading!(self, fetch_optional, sqlx::query(sql).bind(id))? else {
            return Ok(None);
        };
        let version = row.try_get("version")?;
        let seen = Seen { kind: INSTALLATION, id: id.to_owned(), version };
        let held = self.row(INSTALLATION, id, installation_of(&row))?;
        Ok(held.map(|held| (held, seen)))
    }

    /// The installations that can be read. One that cannot is noted and treated as absent.
    fn readable_installations(&self, rows: &[AnyRow]) -> Result<Vec<Installation>, StoreError> {
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let id: &str = row.try_get("id")?;
            all.extend(self.row(INSTALLATION, id, installation_of(row))?);
        }
        Ok(all)
    }

    /// The live installations of a person, or of everyone, the most recently used first, 1000 at
    /// most.
    pub async fn installations(&self, user: Option<&str>) -> Result<Vec<Installation>, StoreError> {
        let rows = reading!(
            self,
            fetch_all,
            sqlx::query(
                "SELECT id, document, used_at FROM installations \
             WHERE revoked_at IS NULL AND (user_id = $1 OR $1 = '') \
             ORDER BY used_at DESC, id LIMIT 1000",
            )
            .bind(user.unwrap_or_default())
        )?;
        self.readable_installations(&rows)
    }

    /// Notes that an installation authenticated. The time is kept to the minute, so most calls
    /// write nothing.
    pub async fn installation_used(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE installations SET used_at = $2 WHERE id = $1 AND used_at < $2")
            .bind(id)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Revokes an installation, only of `user` if given, with every refresh token issued to
    /// `client`, which is its client id. `false` if there is none.
    pub async fn revoke_installation(
        &self,
        id: &str,
        user: Option<&str>,
        client: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let done = sqlx::query(
            "UPDATE installations SET revoked_at = $2 \
             WHERE id = $1 AND revoked_at IS NULL AND (user_id = $3 OR $3 = '')",
        )
        .bind(id)
        .bind(now.0)
        .bind(user.unwrap_or_default())
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(
            "UPDATE refresh_tokens SET revoked_at = $2 WHERE client_id = $1 AND revoked_at IS NULL",
        )
        .bind(client)
        .bind(now.0)
        .execute(&mut *transaction)
        .await?;
        self.commit_directory(transaction, checked, event).await?;
        self.unreadable.forget(INSTALLATION, id);
        Ok(true)
    }
}

impl Installation {
    /// Whether a use at `now` is worth recording.
    pub fn is_use_news(&self, now: Timestamp) -> bool {
        now.since(self.used_at) >= USE_APART
    }
}

fn installation_of(row: &AnyRow) -> Result<Installation, StoreError> {
    let held: Installation = document(row, "document", INSTALLATION)?;
    Ok(Installation { used_at: Timestamp(row.try_get("used_at")?), ..held })
}
