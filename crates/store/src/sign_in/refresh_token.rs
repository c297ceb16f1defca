//! Refresh tokens, in families: reuse of a replaced one revokes its whole family, with the access
//! tokens that came from it.

use crate::{
    database::{Store, StoreError, reading},
    ledger::{AuditEvent, insert_audit},
    rows::{document, replacing, to_json},
};
use passavant_proto::{
    identifier::Resource, oauth::scope::Scopes, oidc::authentication::Authentication,
    time::Timestamp,
};
use sqlx::{Any, Row, Transaction};

/// What it is called in messages.
const KIND: &str = "refresh token";

/// A refresh token as issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// Its family; reuse of a replaced token revokes all of it.
    pub family: String,
    /// The session it came from.
    pub sid: String,
    /// Its person.
    pub user_id: String,
    /// The client it was issued to.
    pub client_id: String,
    /// Scopes granted at sign-in.
    pub scopes: Scopes,
    /// How and when the person signed in.
    pub authentication: Authentication,
    /// DPoP key it is bound to (public clients).
    pub dpop_jkt: Option<String>,
    /// The MCP server that its access tokens are for; `None` at an IdP.
    pub resource: Option<Resource>,
    /// How its client authenticated when it was issued; `None` at an IdP.
    pub client_method: Option<String>,
    /// When it ends if it is not used.
    pub idle_expires_at: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
}

/// Outcome of looking a refresh token up.
#[derive(Clone, Debug)]
pub enum RefreshTokenState {
    /// It may be used.
    Live(Box<RefreshToken>),
    /// It was replaced. Presenting it means that it or its successor was stolen, or that the
    /// response with the successor was lost.
    Replaced(Box<RefreshToken>, Option<Rotation>),
    /// Its document cannot be read: it cannot be exchanged, but it can be revoked.
    Unreadable {
        /// See [`RefreshToken::family`].
        family: String,
        /// See [`RefreshToken::user_id`].
        user_id: String,
        /// See [`RefreshToken::client_id`].
        client_id: String,
    },
    /// Unknown, expired or revoked.
    Invalid,
}

impl RefreshTokenState {
    /// What its presenter may revoke: family, person and client.
    pub fn revocable(&self) -> Option<(&str, &str, &str)> {
        match self {
            Self::Live(held) | Self::Replaced(held, _) => {
                Some((&held.family, &held.user_id, &held.client_id))
            }
            Self::Unreadable { family, user_id, client_id } => Some((family, user_id, client_id)),
            Self::Invalid => None,
        }
    }
}

/// The refresh token to replace, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// Its hash.
    pub hash: String,
    /// See [`Rotation::salt`].
    pub salt: String,
    /// See [`Rotation::by`].
    pub by: String,
}

/// How a refresh token was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// When.
    pub at: Timestamp,
    /// The salt that the successor was derived from, together with the token itself.
    pub salt: String,
    /// What the client authenticated with.
    pub by: String,
}

impl Store {
    /// Records the first refresh token of a family. Returns `false` if its session has ended
    /// meanwhile, or if the family was revoked (a code was presented twice).
    pub async fn issue_refresh_token(
        &self,
        hash: &str,
        token: &RefreshToken,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(
            "INSERT INTO refresh_tokens (hash, family, sid, user_id, client_id, document, \
             idle_expires_at, expires_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 \
             WHERE EXISTS (SELECT 1 FROM sessions WHERE sid = $3 AND ended_at IS NULL) \
             AND NOT EXISTS (SELECT 1 FROM grants WHERE jti = 'family:' || $2)",
        );
        let document = to_json(token, KIND)?;
        let done = bind_refresh(done, hash, token, document).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Looks a refresh token up without using it.
    pub async fn refresh_token(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<RefreshTokenState, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT document, family, user_id, client_id, replaced_at, revoked_at, idle_expires_at, expires_at, \
             successor_salt, replaced_by FROM refresh_tokens WHERE hash = $1",
            )
            .bind(hash)
        )?;
        let Some(row) = row else { return Ok(RefreshTokenState::Invalid) };
        let family: String = row.try_get("family")?;
        let token = document(&row, "document", KIND);
        let Some(token) = self.row::<RefreshToken>(KIND, &family, token)? else {
            let (user_id, client_id) = (row.try_get("user_id")?, row.try_get("client_id")?);
            return Ok(RefreshTokenState::Unreadable { family, user_id, client_id });
        };
        if row.try_get::<Option<i64>, _>("revoked_at")?.is_some() {
            return Ok(RefreshTokenState::Invalid);
        }
        if let Some(at) = row.try_get::<Option<i64>, _>("replaced_at")? {
            let salt: Option<String> = row.try_get("successor_salt")?;
            let by: Option<String> = row.try_get("replaced_by")?;
            let rotation = salt.zip(by).map(|(salt, by)| Rotation { at: Timestamp(at), salt, by });
            return Ok(RefreshTokenState::Replaced(Box::new(token), rotation));
        }
        let live = token.idle_expires_at > now && token.expires_at > now;
        Ok(if live { RefreshTokenState::Live(Box::new(token)) } else { RefreshTokenState::Invalid })
    }

    /// Revokes a family: its refresh tokens, the access tokens that came from them, and the ID-JAGs
    /// that its client got by the same sign-in.
    pub async fn revoke_family(
        &self,
        family: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        revoke_family(&mut transaction, family, now).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Like [`Self::revoke_family`], for a family that may have no refresh token: person, session and
    /// client are named.
    pub async fn end_sign_in_of_client(
        &self,
        family: &str,
        of: (&str, &str, &str),
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        revoke_family(&mut transaction, family, now).await?;
        end_id_jags_of_client(&mut transaction, of, now).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Revokes one access token by its `jti`; `false` if it is unknown or was revoked.
    pub async fn revoke_grant(
        &self,
        jti: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        let done =
            sqlx::query("UPDATE grants SET revoked_at = $2 WHERE jti = $1 AND revoked_at IS NULL")
                .bind(jti)
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Condition: a refresh token `$1` that may be used at `$2`.
macro_rules! live_refresh {
    () => {
        "WHERE hash = $1 AND replaced_at IS NULL \
         AND revoked_at IS NULL AND idle_expires_at > $2 AND expires_at > $2 \
         AND EXISTS (SELECT 1 FROM sessions WHERE sid = refresh_tokens.sid AND ended_at IS NULL)"
    };
}

/// Marks a refresh token as replaced. Returns its document, whose unknown members the successor
/// keeps; `None` if it is not live.
pub(crate) async fn replace_refresh(
    transaction: &mut Transaction<'static, Any>,
    Replaces { hash, salt, by }: &Replaces,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let replaced = sqlx::query(concat!(
        "UPDATE refresh_tokens SET replaced_at = $2, successor_salt = $3, replaced_by = $4 ",
        live_refresh!(),
        " RETURNING document"
    ))
    .bind(hash)
    .bind(now.0)
    .bind(salt)
    .bind(by)
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(replaced.map(|row| row.try_get("document")).transpose()?)
}

/// Extends a refresh token that is used and stays valid; `false` if it is not live.
pub(crate) async fn keep_refresh(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    token: &RefreshToken,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql = "SELECT document FROM refresh_tokens WHERE hash = $1";
    let row = sqlx::query(sql).bind(hash).fetch_optional(&mut **transaction).await?;
    let Some(row) = row else { return Ok(false) };
    let document = replacing(token, row.try_get("document")?, KIND)?;
    let kept = sqlx::query(concat!(
        "UPDATE refresh_tokens SET document = $3, idle_expires_at = $4 ",
        live_refresh!()
    ))
    .bind(hash)
    .bind(now.0)
    .bind(document)
    .bind(token.idle_expires_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Writes a refresh token: the first of its family, or the successor of the one with the document
/// `before`.
pub(crate) async fn write_refresh(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    token: &RefreshToken,
    before: Option<&str>,
) -> Result<(), StoreError> {
    let document = match before {
        Some(before) => replacing(token, before, KIND)?,
        None => to_json(token, KIND)?,
    };
    let insert = sqlx::query(
        "INSERT INTO refresh_tokens (hash, family, sid, user_id, client_id, document, \
         idle_expires_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    bind_refresh(insert, hash, token, document).execute(&mut **transaction).await?;
    Ok(())
}

type AnyQuery<'q> = sqlx::query::Query<'q, Any, sqlx::any::AnyArguments>;

fn bind_refresh<'q>(
    query: AnyQuery<'q>,
    hash: &str,
    token: &RefreshToken,
    document: String,
) -> AnyQuery<'q> {
    query
        .bind(hash.to_owned())
        .bind(token.family.clone())
        .bind(token.sid.clone())
        .bind(token.user_id.clone())
        .bind(token.client_id.clone())
        .bind(document)
        .bind(token.idle_expires_at.0)
        .bind(token.expires_at.0)
}

/// How long the mark of a revoked family is kept, in seconds.
pub(crate) const MARKED: i64 = 8 * 86_400;

/// Revokes a family, in a transaction of something else.
pub(crate) async fn revoke_family(
    transaction: &mut Transaction<'static, Any>,
    family: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE family = $1 AND revoked_at IS NULL",
    )
    .bind(family)
    .bind(now.0)
    .execute(&mut **transaction)
    .await?;
    // Access tokens are looked up together with this mark, so it also covers those issued at this
    // very moment.
    sqlx::query(
        "INSERT INTO grants (jti, kind, user_id, client_id, party, lineage, expires_at, \
         revoked_at) VALUES ('family:' || $1, 'family', '', '', '', $1, $2, $2) \
         ON CONFLICT DO NOTHING",
    )
    .bind(family)
    .bind(now.plus(MARKED).0)
    .execute(&mut **transaction)
    .await?;
    // Its client only: others that signed in in the same browser keep theirs. Those who redeemed the
    // ID-JAGs are told.
    let of_family = sqlx::query(
        "SELECT DISTINCT user_id, sid, client_id FROM refresh_tokens WHERE family = $1",
    );
    for row in of_family.bind(family).fetch_all(&mut **transaction).await? {
        let of: (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        end_id_jags_of_client(transaction, of, now).await?;
    }
    Ok(())
}

/// Ends the ID-JAGs that a client got by one session of a person.
async fn end_id_jags_of_client(
    transaction: &mut Transaction<'static, Any>,
    (user_id, sid, client_id): (&str, &str, &str),
    now: Timestamp,
) -> Result<(), StoreError> {
    let end = "UPDATE grants SET revoked_at = $4 WHERE user_id = $1 AND lineage = $2 \
               AND client_id = $3 AND kind = 'id_jag' AND revoked_at IS NULL";
    let end = sqlx::query(end).bind(user_id).bind(sid).bind(client_id).bind(now.0);
    end.execute(&mut **transaction).await?;
    Ok(())
}
