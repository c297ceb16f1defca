//! Sign-ins at the IdP: sessions, codes, pushed requests, refresh tokens. Everything is looked up by
//! the hash of the secret it stands for.

use crate::{
    audit::AuditEvent,
    database::{Store, StoreError, document, reading, to_json},
    directory::{User, read},
    hot_path,
};
use passavant_proto::{
    identifier::Resource, oauth::authorize::AuthorizationRequest, oauth::scope::Scopes,
    oidc::authentication::Authentication, time::Timestamp, xaa::trust::Account,
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, Row, Transaction, any::AnyRow};

/// A browser that is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its public id, the `sid` of ID tokens.
    pub sid: String,
    /// Who.
    pub user_id: String,
    /// How and when.
    pub authentication: Authentication,
    /// When the browser has to sign in again.
    pub expires_at: Timestamp,
}

/// What a code stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// The session it came from.
    pub sid: String,
    /// What tokens bought with it descend from.
    pub family: String,
    /// The request it answers.
    pub request: AuthorizationRequest,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A code that is presented. To look at it uses nothing up: that is done by what records the grant
/// ([`crate::HotOperation::code`]).
#[derive(Clone, Debug)]
pub enum CodeState {
    /// It may be used.
    Live(Box<AuthorizationCode>, Session),
    /// It was used before. Whether that is an alarm, the caller judges by who presents it with what.
    Used(Box<AuthorizationCode>, Session),
    /// Unknown, expired, or its session has ended.
    Invalid,
}

/// A pushed authorization request (RFC 9126).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// The client that pushed it.
    pub client_id: String,
    /// The checked request.
    pub request: AuthorizationRequest,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A refresh token as issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshToken {
    /// What it descends from; reuse revokes it whole.
    pub family: String,
    /// The session it came from.
    pub sid: String,
    /// Who.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// How its client authenticated when it was issued; `None` at an IdP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// It was rotated out: presenting it means that it was stolen, or its successor was; or that the answer with the
    /// successor was lost.
    Replaced(Box<RefreshToken>, Option<Rotation>),
    /// What it stands for cannot be read: it buys nothing, and can be revoked.
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
    /// What may be revoked by whoever presents it: family, person and client.
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

/// The refresh token that is rotated out, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// Its hash.
    pub hash: String,
    /// See [`Rotation::salt`].
    pub salt: String,
    /// See [`Rotation::by`].
    pub by: String,
}

/// How a refresh token was rotated out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// When.
    pub at: Timestamp,
    /// What the successor was made from, together with the token itself.
    pub salt: String,
    /// What the client proved itself with.
    pub by: String,
}

impl Store {
    /// Records a sign-in of `user`, as they were when the password was checked; `false` if they
    /// were switched off, removed or given another password since. The cookie that the browser had `before` opens
    /// nothing any more; what its session brought goes on.
    pub async fn begin_session(
        &self,
        cookie_hash: &str,
        session: &Session,
        user: &User,
        before: Option<&str>,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let current = read::<User>(&mut transaction, &user.id).await?;
        let same = |now: &User| !now.disabled && now.password_hash == user.password_hash;
        if !current.as_ref().is_some_and(same) {
            return Ok(false);
        }
        if let Some(before) = before {
            sqlx::query("UPDATE sessions SET cookie_hash = 'left ' || sid WHERE cookie_hash = $1")
                .bind(before)
                .execute(&mut *transaction)
                .await?;
        }
        insert_session(&mut transaction, cookie_hash, session).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Records that a person of a trusted issuer has signed in; `false` if their account was switched off or
    /// removed since.
    pub async fn begin_account_session(
        &self,
        cookie_hash: &str,
        session: &Session,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let account = read::<Account>(&mut transaction, &session.user_id).await?;
        if account.is_none_or(|account| account.disabled) {
            return Ok(false);
        }
        insert_session(&mut transaction, cookie_hash, session).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The live session of a cookie.
    pub async fn session(
        &self,
        cookie_hash: &str,
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT sid, user_id, authentication, expires_at FROM sessions \
             WHERE cookie_hash = $1 AND ended_at IS NULL AND expires_at > $2",
            )
            .bind(cookie_hash)
            .bind(now.0)
        )?;
        let Some(row) = row else { return Ok(None) };
        self.row("session", row.try_get("sid")?, session_of(&row))
    }

    /// How the person of a session that has not been ended signed in.
    pub async fn session_authentication(
        &self,
        sid: &str,
    ) -> Result<Option<Authentication>, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query("SELECT authentication FROM sessions WHERE sid = $1 AND ended_at IS NULL")
                .bind(sid)
        )?;
        let Some(row) = row else { return Ok(None) };
        self.row("session", sid, document(&row, "authentication", "session"))
    }

    /// Whether a session has not been ended. An expired one still stands behind tokens that live
    /// longer than the browser's cookie.
    pub async fn session_not_ended(&self, sid: &str) -> Result<bool, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query("SELECT sid FROM sessions WHERE sid = $1 AND ended_at IS NULL").bind(sid)
        )?;
        Ok(row.is_some())
    }

    /// Ends a session and everything that descends from it; `false` if it was not there or had
    /// ended.
    pub async fn end_session(
        &self,
        sid: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        let ended = end(&mut transaction, sid, now).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(ended)
    }

    /// Keeps a code for one use.
    pub async fn keep_authorization_code(
        &self,
        hash: &str,
        code: &AuthorizationCode,
        pushed: Option<&str>,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(pushed) = pushed {
            let used = sqlx::query(
                "UPDATE pushed_requests SET used_at = $2 \
                 WHERE hash = $1 AND used_at IS NULL AND opened_at + 600 > $2",
            )
            .bind(pushed)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
            if used.rows_affected() == 0 {
                return Ok(false);
            }
        }
        insert_code(&mut transaction, hash, code).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Looks a code up.
    pub async fn authorization_code(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<CodeState, StoreError> {
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(
                "SELECT code.sid, code.family, code.document, code.expires_at, code.used_at, \
                 session.user_id, session.authentication, session.ended_at, \
                 session.expires_at AS session_expires_at \
                 FROM authorization_codes code JOIN sessions session ON session.sid = code.sid \
                 WHERE code.hash = $1",
            )
            .bind(hash)
        )?;
        let Some(row) = row else { return Ok(CodeState::Invalid) };
        let (sid, family): (String, String) = (row.try_get("sid")?, row.try_get("family")?);
        let request = document(&row, "document", "authorization code");
        let request = self.row("authorization code", &family, request)?;
        let authentication = document(&row, "authentication", "session");
        let authentication = self.row("session", &sid, authentication)?;
        let Some((request, authentication)) = request.zip(authentication) else {
            return Ok(CodeState::Invalid);
        };
        let session = Session {
            sid: sid.clone(),
            user_id: row.try_get("user_id")?,
            authentication,
            expires_at: Timestamp(row.try_get("session_expires_at")?),
        };
        let expires_at = Timestamp(row.try_get("expires_at")?);
        let code = AuthorizationCode { sid, family, request, expires_at };
        if row.try_get::<Option<i64>, _>("used_at")?.is_some() {
            return Ok(CodeState::Used(Box::new(code), session));
        }
        let live = code.expires_at > now && row.try_get::<Option<i64>, _>("ended_at")?.is_none();
        Ok(if live { CodeState::Live(Box::new(code), session) } else { CodeState::Invalid })
    }

    /// Keeps a pushed request for one use.
    pub async fn keep_pushed_request(
        &self,
        hash: &str,
        request: &PushedRequest,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO pushed_requests (hash, client_id, document, expires_at) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(hash)
        .bind(request.client_id.as_str())
        .bind(to_json(&request.request, "pushed request")?)
        .bind(request.expires_at.0)
        .execute(&mut *transaction)
        .await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Opens a pushed request that has not been used: in its lifetime the first time, and for ten
    /// minutes after that, while the person signs in. Using it up is
    /// [`Store::keep_authorization_code`]'s, in the transaction that keeps the code.
    pub async fn open_pushed_request(
        &self,
        hash: &str,
        client_id: &str,
        now: Timestamp,
    ) -> Result<Option<PushedRequest>, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "UPDATE pushed_requests SET opened_at = COALESCE(opened_at, $2) \
             WHERE hash = $1 AND client_id = $3 AND used_at IS NULL AND \
             ((opened_at IS NULL AND expires_at > $2) OR opened_at + 600 > $2) \
             RETURNING client_id, document, expires_at",
        )
        .bind(hash)
        .bind(now.0)
        .bind(client_id)
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let Some(row) = row else { return Ok(None) };
        let request = document(&row, "document", "pushed request");
        let Some(request) = self.row("pushed request", hash, request)? else { return Ok(None) };
        let (client_id, expires_at) = (row.try_get("client_id")?, row.try_get("expires_at")?);
        Ok(Some(PushedRequest { client_id, request, expires_at: Timestamp(expires_at) }))
    }

    /// Records the first refresh token of a family; `false` if its session has ended meanwhile or
    /// the family was revoked (a code presented twice).
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
        let done = bind_refresh(done, hash, token)?.execute(&mut *transaction).await?;
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
        let token = document(&row, "document", "refresh token");
        let Some(token) = self.row::<RefreshToken>("refresh token", &family, token)? else {
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

    /// Revokes a family: its refresh tokens and the access tokens that came from them.
    pub async fn revoke_family(
        &self,
        family: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        revoke_family(&mut transaction, family, now).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
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
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Uses a code up; `false` if it is not live.
pub(crate) async fn use_code(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let used = sqlx::query(
        "UPDATE authorization_codes SET used_at = $2 \
         WHERE hash = $1 AND used_at IS NULL AND expires_at > $2",
    )
    .bind(hash)
    .bind(now.0)
    .execute(&mut **transaction)
    .await?;
    Ok(used.rows_affected() == 1)
}

/// A refresh token `$1` that may be used at `$2`.
macro_rules! live_refresh {
    () => {
        "WHERE hash = $1 AND replaced_at IS NULL \
         AND revoked_at IS NULL AND idle_expires_at > $2 AND expires_at > $2 \
         AND EXISTS (SELECT 1 FROM sessions WHERE sid = refresh_tokens.sid AND ended_at IS NULL)"
    };
}

/// Rotates a refresh token out; `false` if it is not live.
pub(crate) async fn replace_refresh(
    transaction: &mut Transaction<'static, Any>,
    Replaces { hash, salt, by }: &Replaces,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let replaced = sqlx::query(concat!(
        "UPDATE refresh_tokens SET replaced_at = $2, successor_salt = $3, replaced_by = $4 ",
        live_refresh!()
    ))
    .bind(hash)
    .bind(now.0)
    .bind(salt)
    .bind(by)
    .execute(&mut **transaction)
    .await?;
    Ok(replaced.rows_affected() == 1)
}

/// Puts the end of a refresh token off that is used and stays; `false` where it is not live.
pub(crate) async fn keep_refresh(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    token: &RefreshToken,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let kept = sqlx::query(concat!(
        "UPDATE refresh_tokens SET document = $3, idle_expires_at = $4 ",
        live_refresh!()
    ))
    .bind(hash)
    .bind(now.0)
    .bind(to_json(token, "refresh token")?)
    .bind(token.idle_expires_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Writes a refresh token.
pub(crate) async fn write_refresh(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    token: &RefreshToken,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO refresh_tokens (hash, family, sid, user_id, client_id, document, \
         idle_expires_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    bind_refresh(insert, hash, token)?.execute(&mut **transaction).await?;
    Ok(())
}

fn session_of(row: &AnyRow) -> Result<Session, StoreError> {
    Ok(Session {
        sid: row.try_get("sid")?,
        user_id: row.try_get("user_id")?,
        authentication: document(row, "authentication", "session")?,
        expires_at: Timestamp(row.try_get("expires_at")?),
    })
}

async fn insert_session(
    transaction: &mut Transaction<'static, Any>,
    cookie_hash: &str,
    session: &Session,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (cookie_hash, sid, user_id, authentication, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(cookie_hash)
    .bind(session.sid.as_str())
    .bind(session.user_id.as_str())
    .bind(to_json(&session.authentication, "session")?)
    .bind(session.expires_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

type AnyQuery<'q> = sqlx::query::Query<'q, Any, sqlx::any::AnyArguments>;

fn bind_refresh<'q>(
    query: AnyQuery<'q>,
    hash: &str,
    token: &RefreshToken,
) -> Result<AnyQuery<'q>, StoreError> {
    Ok(query
        .bind(hash.to_owned())
        .bind(token.family.clone())
        .bind(token.sid.clone())
        .bind(token.user_id.clone())
        .bind(token.client_id.clone())
        .bind(to_json(token, "refresh token")?)
        .bind(token.idle_expires_at.0)
        .bind(token.expires_at.0))
}

/// Ends a session and its refresh tokens; whether it had not ended before.
async fn end(
    transaction: &mut Transaction<'static, Any>,
    sid: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE sessions SET ended_at = $2 WHERE sid = $1 AND ended_at IS NULL")
        .bind(sid)
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    sqlx::query("UPDATE refresh_tokens SET revoked_at = $2 WHERE sid = $1 AND revoked_at IS NULL")
        .bind(sid)
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(crate) async fn insert_code(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
    code: &AuthorizationCode,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO authorization_codes (hash, sid, family, document, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(hash)
    .bind(code.sid.as_str())
    .bind(code.family.as_str())
    .bind(to_json(&code.request, "authorization code")?)
    .bind(code.expires_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn revoke_family(
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
    // Access tokens are looked up together with this mark, also those issued at this very moment.
    sqlx::query(
        "INSERT INTO grants (jti, kind, user_id, client_id, party, lineage, expires_at, \
         revoked_at) VALUES ('family:' || $1, 'family', '', '', '', $1, $2, $2) \
         ON CONFLICT DO NOTHING",
    )
    .bind(family)
    .bind(now.plus(8 * 86_400).0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
