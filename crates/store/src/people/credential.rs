//! How people prove themselves besides a password: passkeys, one-time passwords by time, recovery
//! codes, and an administrator's one-time link.

use crate::{
    database::{Store, StoreError, reading},
    directory::{Put, read, write},
    ledger::{AuditEvent, UsedJti, insert_audit, insert_jtis},
    people::{User, user::end_user},
    rows::document,
    sign_in::{Session, end_sign_ins, insert_session, leave_cookie},
};
use passavant_proto::{
    oidc::authentication::{ACR_MULTI_FACTOR, ACR_RECOVERY, Authentication, reaches},
    time::{SKEW, Timestamp},
};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

/// Maximum age of a sign-in that may change how a person signs in, in seconds.
const RECENT: i64 = 300;

/// The same for a sign-in by an administrator's link, which leads to nothing else.
const RECOVERING: i64 = 1800;

/// The most passkeys of one person.
pub const MOST_PASSKEYS: usize = 20;

/// Failures of one-time passwords in a row, after which none is taken any more until the person is
/// recovered (NIST SP 800-63B, section 5.2.2).
pub const MOST_TOTP_FAILURES: i64 = 100;

/// A passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Its credential id, base64url.
    pub credential_id: String,
    /// The person.
    pub user_id: String,
    /// The public key and its state, as the library for it writes them.
    pub document: String,
    /// What the person calls it.
    pub name: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was used last; 0 if it was not.
    pub used_at: Timestamp,
    /// How often it was used: two uses at once are told apart by it.
    pub uses: i64,
}

/// A person's one-time passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totp {
    /// The seed, sealed.
    pub sealed: String,
    /// The step of the last code that was taken.
    pub last_step: i64,
    /// Wrong codes in a row.
    pub failures: i64,
    /// No code is looked at before.
    pub not_before: Timestamp,
    /// When the person showed that they have it; 0 if they have not yet.
    pub confirmed_at: Timestamp,
}

/// Whether a one-time password may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotpCount {
    /// It may; so many were wrong in a row if this one is.
    Counted(i64),
    /// The last was a moment ago.
    Wait,
    /// [`MOST_TOTP_FAILURES`] were wrong in a row.
    Ended,
}

/// What a person proved, besides or instead of their password, at a sign-in.
#[derive(Clone, Debug)]
pub enum Proved<'a> {
    /// Nothing but the password.
    Password,
    /// A code of this step.
    Totp(i64),
    /// A recovery code, by its hash.
    RecoveryCode(&'a str),
    /// A passkey, as it was read, and its document after this use. The challenge serves once.
    Passkey(&'a Passkey, &'a str, UsedJti),
    /// An administrator's link, by its hash.
    Link(&'a str),
}

/// What came of adding a passkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasskeyAdded {
    /// It is added.
    Added,
    /// Somebody has it already.
    Taken,
    /// There are [`MOST_PASSKEYS`].
    TooMany,
    /// The sign-in may not, or no longer, or the challenge was used.
    Gone,
}

/// What came of removing a passkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasskeyRemoved {
    /// It is gone.
    Removed,
    /// They have none of this id.
    Missing,
    /// It is their only way to sign in.
    Last,
    /// The sign-in may not, or no longer.
    Gone,
}

const PASSKEY: &str = "credential_id, user_id, document, name, created_at, used_at, uses";

fn passkey_of(row: &AnyRow) -> Result<Passkey, StoreError> {
    Ok(Passkey {
        credential_id: row.try_get("credential_id")?,
        user_id: row.try_get("user_id")?,
        document: row.try_get("document")?,
        name: row.try_get("name")?,
        created_at: Timestamp(row.try_get("created_at")?),
        used_at: Timestamp(row.try_get("used_at")?),
        uses: row.try_get("uses")?,
    })
}

impl Store {
    /// The passkeys of a person, the oldest first.
    pub async fn passkeys(&self, user_id: &str) -> Result<Vec<Passkey>, StoreError> {
        let sql = format!("SELECT {PASSKEY} FROM passkeys WHERE user_id = $1 ORDER BY created_at");
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(user_id);
        let rows = reading!(self, fetch_all, query())?;
        rows.iter().map(passkey_of).collect()
    }

    /// A passkey by its credential id.
    pub async fn passkey(&self, credential_id: &str) -> Result<Option<Passkey>, StoreError> {
        let sql = format!("SELECT {PASSKEY} FROM passkeys WHERE credential_id = $1");
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(credential_id);
        reading!(self, fetch_optional, query())?.as_ref().map(passkey_of).transpose()
    }

    /// What authenticators know a person by (Web Authentication, user handle): `new`, if they have none
    /// yet. It says nothing about them.
    pub async fn passkey_handle(
        &self,
        user_id: &str,
        new: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        if let Some(new) = new {
            let mut transaction = self.begin_plain().await?;
            let keep = "INSERT INTO passkey_handles (user_id, handle) VALUES ($1, $2) \
                        ON CONFLICT DO NOTHING";
            sqlx::query(keep).bind(user_id).bind(new).execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        let sql = "SELECT handle FROM passkey_handles WHERE user_id = $1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(user_id))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Adds a passkey for the person of a session that stands. The challenge serves once.
    pub async fn add_passkey(
        &self,
        passkey: &Passkey,
        sid: &str,
        once: UsedJti,
        event: AuditEvent,
    ) -> Result<PasskeyAdded, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if !may_change(&mut transaction, &passkey.user_id, sid, event.at).await?
            || insert_jtis(&mut transaction, vec![&once]).await?.is_empty()
        {
            return Ok(PasskeyAdded::Gone);
        }
        let held = sqlx::query("SELECT credential_id FROM passkeys WHERE user_id = $1")
            .bind(passkey.user_id.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        if held.len() >= MOST_PASSKEYS {
            return Ok(PasskeyAdded::TooMany);
        }
        let add = "INSERT INTO passkeys (credential_id, user_id, document, name, created_at) \
                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let added = sqlx::query(add)
            .bind(passkey.credential_id.as_str())
            .bind(passkey.user_id.as_str())
            .bind(passkey.document.as_str())
            .bind(passkey.name.as_str())
            .bind(passkey.created_at.0)
            .execute(&mut *transaction)
            .await?;
        if added.rows_affected() == 0 {
            return Ok(PasskeyAdded::Taken);
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(PasskeyAdded::Added)
    }

    /// Removes a person's passkey, by a sign-in of theirs that may.
    pub async fn remove_passkey(
        &self,
        (user_id, sid): (&str, &str),
        credential_id: &str,
        event: AuditEvent,
    ) -> Result<PasskeyRemoved, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if !may_change(&mut transaction, user_id, sid, event.at).await? {
            return Ok(PasskeyRemoved::Gone);
        }
        let others = "SELECT COUNT(*) FROM passkeys WHERE user_id = $1 AND credential_id <> $2";
        let others = sqlx::query(others)
            .bind(user_id)
            .bind(credential_id)
            .fetch_one(&mut *transaction)
            .await?;
        let user = read::<User>(&mut transaction, user_id).await?;
        let has_password = user.is_some_and(|user| user.password_hash.is_some());
        let gone = sqlx::query("DELETE FROM passkeys WHERE user_id = $1 AND credential_id = $2")
            .bind(user_id)
            .bind(credential_id)
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(PasskeyRemoved::Missing);
        }
        if !has_password && others.try_get::<i64, _>(0)? == 0 {
            return Ok(PasskeyRemoved::Last);
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(PasskeyRemoved::Removed)
    }

    /// Whether a sign-in may change how its person signs in just now.
    pub async fn may_change_credentials(
        &self,
        user_id: &str,
        sid: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_plain().await?;
        may_change(&mut transaction, user_id, sid, now).await
    }

    /// A person's one-time passwords, confirmed or not.
    pub async fn totp(&self, user_id: &str) -> Result<Option<Totp>, StoreError> {
        let sql = "SELECT sealed, last_step, failures, not_before, confirmed_at FROM totp \
                   WHERE user_id = $1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(user_id))?;
        let totp = |row: AnyRow| -> Result<Totp, StoreError> {
            Ok(Totp {
                sealed: row.try_get("sealed")?,
                last_step: row.try_get("last_step")?,
                failures: row.try_get("failures")?,
                not_before: Timestamp(row.try_get("not_before")?),
                confirmed_at: Timestamp(row.try_get("confirmed_at")?),
            })
        };
        row.map(totp).transpose()
    }

    /// Keeps a seed that its person has confirmed by the code of `step`, and the hashes of recovery
    /// codes in place of those of before; `false` if the session has ended or there is a seed already.
    pub async fn add_totp(
        &self,
        user_id: &str,
        sid: &str,
        (sealed, step): (&str, i64),
        recovery: &[String],
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if !may_change(&mut transaction, user_id, sid, now).await? {
            return Ok(false);
        }
        let add = "INSERT INTO totp (user_id, sealed, last_step, confirmed_at) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let added = sqlx::query(add)
            .bind(user_id)
            .bind(sealed)
            .bind(step)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        put_recovery_codes(&mut transaction, user_id, recovery).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Takes a person's one-time passwords and recovery codes away, by a sign-in of theirs that may;
    /// `false` if it may not, or there are none.
    pub async fn remove_totp(
        &self,
        user_id: &str,
        sid: &str,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if !may_change(&mut transaction, user_id, sid, event.at).await? {
            return Ok(false);
        }
        let gone = sqlx::query("DELETE FROM totp WHERE user_id = $1")
            .bind(user_id)
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        put_recovery_codes(&mut transaction, user_id, &[]).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Counts an attempt with a one-time password before it is looked at. A right one sets the count back.
    /// A browser that the person signed in from before (`known`) does not wait for others' failures.
    pub async fn count_totp(
        &self,
        user_id: &str,
        known: bool,
        now: Timestamp,
    ) -> Result<TotpCount, StoreError> {
        if let Some(held) = self.totp(user_id).await? {
            if held.failures >= MOST_TOTP_FAILURES {
                return Ok(TotpCount::Ended);
            }
            if !known && held.not_before > now {
                return Ok(TotpCount::Wait);
            }
        }
        let mut transaction = self.begin_plain().await?;
        // The pause grows with each failure in a row: nothing for five, then seconds, then a minute.
        let count = "UPDATE totp SET failures = failures + 1, not_before = $2 + \
                     CASE WHEN failures < 5 THEN 0 WHEN failures < 10 THEN 5 ELSE 60 END \
                     WHERE user_id = $1 AND (not_before <= $2 OR $4 = 1) AND failures < $3";
        let counted = sqlx::query(count)
            .bind(user_id)
            .bind(now.0)
            .bind(MOST_TOTP_FAILURES)
            .bind(i64::from(known))
            .execute(&mut *transaction)
            .await?;
        if counted.rows_affected() == 0 {
            return Ok(TotpCount::Wait);
        }
        let row = sqlx::query("SELECT failures FROM totp WHERE user_id = $1")
            .bind(user_id)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(TotpCount::Counted(row.try_get(0)?))
    }

    /// Ends a person's sign-ins, by their own wish.
    pub async fn sign_out_everywhere(
        &self,
        user_id: &str,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        let now = event.at;
        let (mut transaction, _) = self.begin_act(&event).await?;
        end_sign_ins(&mut transaction, user_id, now).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Gives a person the password that they chose, by a sign-in of theirs that may, and ends all their
    /// sign-ins and installations: whoever knew the one before is out, with whatever they enrolled by
    /// it. `false` if it may not.
    pub async fn change_password(
        &self,
        user_id: &str,
        sid: &str,
        password_hash: String,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let now = event.at;
        let (mut transaction, _) = self.begin_act(&event).await?;
        if !may_change(&mut transaction, user_id, sid, now).await? {
            return Ok(false);
        }
        let Some(mut user) = read::<User>(&mut transaction, user_id).await? else {
            return Ok(false);
        };
        user.password_hash = Some(password_hash);
        write(&mut transaction, &user, Put::Replace).await?;
        end_user(&mut transaction, user_id, true, now).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// How many recovery codes a person has left.
    pub async fn recovery_codes(&self, user_id: &str) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1";
        Ok(reading!(self, fetch_one, sqlx::query(sql).bind(user_id))?.try_get(0)?)
    }

    /// Makes a one-time link for a person; an earlier one ends. With `forget_factors`, their passkeys,
    /// one-time passwords, password, sign-ins and installations end at once: a device was stolen. `false` if there is no
    /// such person, or what they need to sign in is decided at an upstream.
    pub async fn put_recovery_link(
        &self,
        user_id: &str,
        (hash, expires_at): (&str, Timestamp),
        forget_factors: bool,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        let Some(mut user) = read::<User>(&mut transaction, user_id).await? else {
            return Ok(false);
        };
        if is_linked(&mut transaction, user_id).await? {
            return Ok(false);
        }
        if forget_factors {
            end_credentials(&mut transaction, user_id).await?;
            end_user(&mut transaction, user_id, true, event.at).await?;
            // Otherwise the password alone would do until the link is used, for whoever knows it.
            user.password_hash = None;
            write(&mut transaction, &user, Put::Replace).await?;
        }
        let put = "INSERT INTO recovery_links (user_id, hash, expires_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (user_id) DO UPDATE SET hash = $2, expires_at = $3";
        sqlx::query(put)
            .bind(user_id)
            .bind(hash)
            .bind(expires_at.0)
            .execute(&mut *transaction)
            .await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The person of a one-time link that stands.
    pub async fn recovery_link(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT user_id FROM recovery_links WHERE hash = $1 AND expires_at > $2";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(hash).bind(now.0))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Records a sign-in of `user`, as they were when they proved themselves, and uses up what they
    /// proved. Returns `false` if they were switched off or changed since, if what they proved was used
    /// up, or if the password alone does not do. The cookie that the browser had `before` opens nothing
    /// any more; tokens that came from its session stay valid.
    pub async fn begin_session(
        &self,
        cookie_hash: &str,
        session: &Session,
        (user, proved): (&User, Proved<'_>),
        before: Option<&str>,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let now = event.at;
        let ends_others = matches!(proved, Proved::Link(_));
        let mut transaction =
            if ends_others { self.begin_revoking().await? } else { self.begin().await? };
        let current = read::<User>(&mut transaction, &user.id).await?;
        let same = |now: &User| !now.is_off() && now.password_hash == user.password_hash;
        if !current.as_ref().is_some_and(same) {
            return Ok(false);
        }
        if !use_up(&mut transaction, &user.id, proved, now).await? {
            return Ok(false);
        }
        if ends_others {
            // Whoever needed a link may have lost what others found.
            end_sign_ins(&mut transaction, &user.id, now).await?;
        }
        if let Some(before) = before {
            leave_cookie(&mut transaction, before, session).await?;
        }
        insert_session(&mut transaction, cookie_hash, session).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Uses up what somebody proved; `false` if it proves nothing any more.
async fn use_up(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
    proved: Proved<'_>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = match proved {
        Proved::Password => {
            let second = sqlx::query("SELECT user_id FROM totp WHERE user_id = $1")
                .bind(user_id)
                .fetch_optional(&mut **transaction)
                .await?;
            return Ok(second.is_none());
        }
        Proved::Totp(step) => {
            let take = "UPDATE totp SET last_step = $2, failures = 0, not_before = 0 \
                        WHERE user_id = $1 AND last_step < $2";
            sqlx::query(take).bind(user_id).bind(step).execute(&mut **transaction).await?
        }
        // Both come with the password, or in its place: they are good without waiting.
        Proved::RecoveryCode(hash) => {
            let take = "DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2";
            let taken =
                sqlx::query(take).bind(user_id).bind(hash).execute(&mut **transaction).await?;
            let forgive = "UPDATE totp SET failures = 0, not_before = 0 WHERE user_id = $1";
            sqlx::query(forgive).bind(user_id).execute(&mut **transaction).await?;
            taken
        }
        Proved::Passkey(passkey, document, once) => {
            if insert_jtis(transaction, vec![&once]).await?.is_empty() {
                return Ok(false);
            }
            let take = "UPDATE passkeys SET document = $3, used_at = $4, uses = uses + 1 \
                        WHERE credential_id = $1 AND user_id = $2 AND uses = $5";
            sqlx::query(take)
                .bind(passkey.credential_id.as_str())
                .bind(user_id)
                .bind(document)
                .bind(now.0)
                .bind(passkey.uses)
                .execute(&mut **transaction)
                .await?
        }
        Proved::Link(hash) => {
            let take = "DELETE FROM recovery_links \
                        WHERE user_id = $1 AND hash = $2 AND expires_at > $3";
            let taken = sqlx::query(take).bind(user_id).bind(hash).bind(now.0);
            let taken = taken.execute(&mut **transaction).await?;
            let forgive = "UPDATE totp SET failures = 0, not_before = 0 WHERE user_id = $1";
            sqlx::query(forgive).bind(user_id).execute(&mut **transaction).await?;
            taken
        }
    };
    Ok(done.rows_affected() == 1)
}

async fn put_recovery_codes(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
    hashes: &[String],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
        .bind(user_id)
        .execute(&mut **transaction)
        .await?;
    for hash in hashes {
        sqlx::query("INSERT INTO recovery_codes (hash, user_id) VALUES ($1, $2)")
            .bind(hash.as_str())
            .bind(user_id)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// Whether what a person needs to sign in is decided at an upstream.
async fn is_linked(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
) -> Result<bool, StoreError> {
    let linked = sqlx::query("SELECT user_id FROM upstream_links WHERE user_id = $1 LIMIT 1");
    Ok(linked.bind(user_id).fetch_optional(&mut **transaction).await?.is_some())
}

/// Whether a sign-in may change how its person signs in: it stands and is a moment old, the person is
/// switched on and is no upstream's, and it is as strong as what they have, so that nobody with a password
/// alone takes a second factor away or adds one.
async fn may_change(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
    sid: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let live = "SELECT authentication FROM sessions \
                WHERE sid = $1 AND user_id = $2 AND ended_at IS NULL";
    let live = sqlx::query(live).bind(sid).bind(user_id).fetch_optional(&mut **transaction).await?;
    let Some(row) = live else { return Ok(false) };
    let how: Authentication = document(&row, "authentication", "session")?;
    let recovers = how.acr == ACR_RECOVERY;
    let most = if recovers { RECOVERING } else { RECENT };
    let user = read::<User>(transaction, user_id).await?;
    if user.is_none_or(|user| user.is_off())
        || !(-SKEW..=most).contains(&now.since(how.auth_time))
        || is_linked(transaction, user_id).await?
    {
        return Ok(false);
    }
    let factors = "SELECT user_id FROM totp WHERE user_id = $1 \
                   UNION SELECT user_id FROM passkeys WHERE user_id = $1";
    let has_more =
        sqlx::query(factors).bind(user_id).fetch_optional(&mut **transaction).await?.is_some();
    Ok(!has_more || recovers || reaches(&how.acr, ACR_MULTI_FACTOR))
}

/// Forgets how a person who is deleted proved themselves.
pub(crate) async fn end_credentials(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
) -> Result<(), StoreError> {
    for table in ["passkeys", "passkey_handles", "totp", "recovery_codes", "recovery_links"] {
        let sql = format!("DELETE FROM {table} WHERE user_id = $1");
        sqlx::query(AssertSqlSafe(sql)).bind(user_id).execute(&mut **transaction).await?;
    }
    Ok(())
}
