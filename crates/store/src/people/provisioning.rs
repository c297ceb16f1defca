//! People and groups that an upstream provisions (SCIM 2.0, RFC 7644), and the tokens it does so with.
//! An upstream sees and changes its own people alone: those it added, and those who are linked to it
//! and were added by nobody else.

use crate::{
    acts::Checked,
    database::{Store, StoreError, reading},
    directory::{Put, read, remove, write},
    ledger::{AuditEvent, insert_audit},
    people::{
        User,
        upstream::changed_of,
        user::{end_user, forget_user},
    },
    record::Record,
    rows,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oidc::upstream::UpstreamProvider,
    others_text::shown,
    time::Timestamp,
};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

/// How often the last use of a token is written, in seconds.
const USED_EVERY: i64 = 3600;

/// A token by which an upstream provisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisioningToken {
    /// Its id, which is no secret.
    pub id: String,
    /// The upstream's name.
    pub upstream: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used last, to the hour; 0 if it was not.
    pub used_at: Timestamp,
}

/// An upstream that has proved itself by a token. Every change is recorded only while the token
/// stands and the upstream is switched on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioner {
    /// The upstream's name.
    pub upstream: String,
    /// The token's id.
    pub token: String,
    /// The id of the HTTP request.
    pub request_id: String,
}

/// A person as their upstream provisions them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedPerson {
    /// Their record.
    pub user: User,
    /// What the upstream knows them by. It decides nothing but which person of the same upstream is
    /// linked at the first sign-in.
    pub external_id: Option<String>,
    /// What was said of them, as JSON; empty if nothing was.
    pub said: String,
    /// When they were provisioned first; 0 if they were not.
    pub created_at: Timestamp,
    /// When something was last changed by provisioning.
    pub changed_at: Timestamp,
}

/// What an upstream looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Everything.
    All,
    /// One by its SCIM id.
    Id(&'a str),
    /// One by user name, or by a group's display name in lower case.
    Name(&'a str),
    /// Some by `externalId`.
    External(&'a str),
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotProvisioned<E> {
    /// There is no such person or group of this upstream.
    Missing,
    /// Somebody has the user name; a group of this name is not this upstream's; or it is provisioned
    /// already.
    Taken,
    /// The group that the upstream's record maps this one to is not there, or it maps none to it any
    /// more.
    NoGroup(String),
    /// Another change of the same group began after this one, and is not overwritten.
    Overtaken,
    /// The token was revoked or has expired, or the upstream is switched off.
    NoToken,
    /// The caller's own rule.
    Rule(E),
}

pub(super) type Provisioning<T, E> = Result<Result<T, NotProvisioned<E>>, StoreError>;

/// Whether a person (`held.id`, with `said` their row of [`PROVISIONED`]) is one of an upstream's (`$1`):
/// it provisioned them, or they are linked to it and nobody provisioned them.
pub(super) const IS_THEIRS: &str = "(said.upstream = $1 OR (said.user_id IS NULL AND EXISTS \
                                    (SELECT 1 FROM upstream_links link \
                                    WHERE link.user_id = held.id AND link.upstream = $1)))";

/// Joins what was provisioned to people.
pub(super) const PROVISIONED: &str = "LEFT JOIN provisioned_people said ON said.user_id = held.id";

impl Store {
    /// Adds a token; `false` if there is no such upstream.
    pub async fn add_provisioning_token(
        &self,
        token: &ProvisioningToken,
        hash: &str,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        if read::<UpstreamProvider>(&mut transaction, &token.upstream).await?.is_none() {
            return Ok(false);
        }
        let add = "INSERT INTO provisioning_tokens (id, upstream, hash, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(add)
            .bind(token.id.as_str())
            .bind(token.upstream.as_str())
            .bind(hash)
            .bind(token.created_at.0)
            .bind(token.expires_at.0)
            .execute(&mut *transaction)
            .await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The tokens of an upstream, the newest first.
    pub async fn provisioning_tokens(
        &self,
        upstream: &str,
    ) -> Result<Vec<ProvisioningToken>, StoreError> {
        let sql = "SELECT id, created_at, expires_at, used_at FROM provisioning_tokens \
                   WHERE upstream = $1 ORDER BY created_at DESC, id LIMIT 1000";
        let rows = reading!(self, fetch_all, sqlx::query(sql).bind(upstream))?;
        let token = |row: &AnyRow| -> Result<ProvisioningToken, StoreError> {
            Ok(ProvisioningToken {
                id: row.try_get("id")?,
                upstream: upstream.to_owned(),
                created_at: Timestamp(row.try_get("created_at")?),
                expires_at: Timestamp(row.try_get("expires_at")?),
                used_at: Timestamp(row.try_get("used_at")?),
            })
        };
        rows.iter().map(token).collect()
    }

    /// Revokes a token of an upstream; `false` if there is none of this id.
    pub async fn revoke_provisioning_token(
        &self,
        upstream: &str,
        id: &str,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        let gone = sqlx::query("DELETE FROM provisioning_tokens WHERE upstream = $1 AND id = $2")
            .bind(upstream)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The id of the token of an upstream with this hash, if it stands.
    pub async fn provisioning_token(
        &self,
        upstream: &str,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT id, used_at FROM provisioning_tokens \
                   WHERE hash = $1 AND upstream = $2 AND expires_at > $3";
        let query = || sqlx::query(sql).bind(hash).bind(upstream).bind(now.0);
        let Some(row) = reading!(self, fetch_optional, query())? else { return Ok(None) };
        let (id, used_at): (String, i64) = (row.try_get("id")?, row.try_get("used_at")?);
        if used_at.saturating_add(USED_EVERY) <= now.0 || used_at > now.0 {
            let mut transaction = self.begin_plain().await?;
            sqlx::query("UPDATE provisioning_tokens SET used_at = $2 WHERE id = $1")
                .bind(id.as_str())
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(Some(id))
    }

    /// The upstream whose provisioning decides whether a person is switched on, if one does.
    pub async fn provisioned_by(&self, user_id: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT upstream FROM provisioned_people WHERE user_id = $1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(user_id))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// An upstream's people, by id: how many there are, and those from `offset` on, `limit` at most.
    pub async fn provisioned_people(
        &self,
        upstream: &str,
        lookup: Lookup<'_>,
        (offset, limit): (i64, i64),
    ) -> Result<(i64, Vec<ProvisionedPerson>), StoreError> {
        let (condition, value) = match lookup {
            Lookup::All => ("$2 = ''", ""),
            Lookup::Id(id) => ("held.id = $2", id),
            Lookup::Name(name) => ("held.name = $2", name),
            Lookup::External(id) => (
                "held.id IN (SELECT user_id FROM provisioned_people \
                  WHERE upstream = $1 AND external_id = $2)",
                id,
            ),
        };
        let from = format!(
            "FROM directory held {PROVISIONED} \
             WHERE held.kind = 'user' AND {condition} AND {IS_THEIRS}"
        );
        let total = if matches!(lookup, Lookup::All) {
            let count = format!("SELECT COUNT(*) {from}");
            let query = || sqlx::query(AssertSqlSafe(count.clone())).bind(upstream).bind(value);
            reading!(self, fetch_one, query())?.try_get::<i64, _>(0)?
        } else {
            0
        };
        let document = self.dialect.bytes("held.document");
        let sql = format!(
            "SELECT held.id, {document} AS document, COALESCE(said.external_id, '') AS external_id, \
             COALESCE(said.said, '') AS said, COALESCE(said.created_at, 0) AS created_at, \
             COALESCE(said.changed_at, 0) AS changed_at {from} ORDER BY held.id LIMIT $3 OFFSET $4"
        );
        let query = || {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(upstream)
                .bind(value)
                .bind(limit)
                .bind(offset)
        };
        let rows = reading!(self, fetch_all, query())?;
        let mut people = Vec::with_capacity(rows.len());
        for row in &rows {
            // One that cannot be read is named in the log, and left out.
            let text = rows::text_of(row, "document")?;
            if let Ok(user) = self.noted::<User>(row.try_get("id")?, text) {
                people.push(person_of(user, row)?);
            }
        }
        let found = i64::try_from(people.len()).unwrap_or(i64::MAX);
        Ok((total.max(found), people))
    }

    /// Adds a person. Their groups and password are nobody's to say here.
    pub async fn add_provisioned(
        &self,
        by: &Provisioner,
        person: &ProvisionedPerson,
        now: Timestamp,
    ) -> Provisioning<(), std::convert::Infallible> {
        let Some((mut transaction, checked, _)) = self.begin_provisioning(by, now).await? else {
            return Ok(Err(NotProvisioned::NoToken));
        };
        match write(&mut transaction, &person.user, Put::Create).await {
            Err(StoreError::NameTaken { .. }) => return Ok(Err(NotProvisioned::Taken)),
            written => written?,
        };
        put_provisioned(&mut transaction, by, person, now).await?;
        let event = told(by, RequestEvent::ProvisionAdd, now).person(&person.user.id);
        let event = match &person.external_id {
            Some(id) => event.with(Detail::Subject, id.as_str()),
            None => event,
        };
        self.commit_directory(transaction, checked, event).await?;
        Ok(Ok(()))
    }

    /// Changes a person by `change`, which sees them as they are. Whoever is switched off by it
    /// loses every session and refresh token in the same transaction; switching on revives none.
    /// If nothing changes, nothing is written.
    pub async fn change_provisioned<E: Send>(
        &self,
        by: &Provisioner,
        id: &str,
        change: impl FnOnce(&mut ProvisionedPerson) -> Result<(), E> + Send,
        now: Timestamp,
    ) -> Provisioning<ProvisionedPerson, E> {
        let Some((mut transaction, checked, _)) = self.begin_provisioning(by, now).await? else {
            return Ok(Err(NotProvisioned::NoToken));
        };
        let Some(before) = provisioned(&mut transaction, &by.upstream, id).await? else {
            return Ok(Err(NotProvisioned::Missing));
        };
        let mut after = before.clone();
        if let Err(error) = change(&mut after) {
            return Ok(Err(NotProvisioned::Rule(error)));
        }
        if after == before {
            return Ok(Ok(before));
        }
        after.changed_at = now;
        if after.created_at.0 == 0 {
            after.created_at = now;
        }
        let event = match (before.user.inactive_there, after.user.inactive_there) {
            (false, true) => RequestEvent::ProvisionDisable,
            (true, false) => RequestEvent::ProvisionEnable,
            _ => RequestEvent::ProvisionChange,
        };
        let mut more = changed_of(&before.user, &after.user);
        if before.external_id != after.external_id {
            // Who signs in for the first time is found by it.
            let said = |id: &Option<String>| shown(id.as_deref().unwrap_or("nothing"), 100);
            let (was, is) = (said(&before.external_id), said(&after.external_id));
            let separator = if more.is_empty() { "" } else { ", " };
            more.insert_str(0, &format!("externalId from `{was}` to `{is}`{separator}"));
        }
        let event = told(by, event, now).person(id).with(Detail::More, more);
        if after.user != before.user {
            match write(&mut transaction, &after.user, Put::Replace).await {
                Err(StoreError::NameTaken { .. }) => return Ok(Err(NotProvisioned::Taken)),
                written => written?,
            };
        }
        if after.user.inactive_there && !before.user.inactive_there {
            end_user(&mut transaction, id, false, now).await?;
        }
        put_provisioned(&mut transaction, by, &after, now).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(Ok(after))
    }

    /// Removes a person with everything they had, if `stands` says so of them as they are.
    pub async fn remove_provisioned<E: Send>(
        &self,
        by: &Provisioner,
        id: &str,
        stands: impl FnOnce(&ProvisionedPerson) -> Result<(), E> + Send,
        now: Timestamp,
    ) -> Provisioning<(), E> {
        let Some((mut transaction, checked, _)) = self.begin_provisioning(by, now).await? else {
            return Ok(Err(NotProvisioned::NoToken));
        };
        match provisioned(&mut transaction, &by.upstream, id).await {
            Ok(Some(person)) => {
                if let Err(error) = stands(&person) {
                    return Ok(Err(NotProvisioned::Rule(error)));
                }
            }
            Ok(None) => return Ok(Err(NotProvisioned::Missing)),
            // A record that cannot be read is removed like any other.
            Err(StoreError::Document(..)) => {}
            Err(error) => return Err(error),
        }
        remove(&mut transaction, User::KIND, id).await?;
        let named_them = forget_user(&mut transaction, id, now).await?;
        let event = told(by, RequestEvent::ProvisionRemove, now).person(id);
        let event = if named_them.is_empty() {
            event
        } else {
            event.with(Detail::Connections, named_them.join(" "))
        };
        self.commit_directory(transaction, checked, event).await?;
        Ok(Ok(()))
    }

    /// A transaction for a change by an upstream, and the upstream's record; `None` if its token no
    /// longer stands.
    pub(super) async fn begin_provisioning(
        &self,
        by: &Provisioner,
        now: Timestamp,
    ) -> Result<Option<(Transaction<'static, Any>, Checked, UpstreamProvider)>, StoreError> {
        let (mut transaction, checked) =
            self.begin_act(&told(by, RequestEvent::ProvisionChange, now)).await?;
        let token = sqlx::query(
            "SELECT id FROM provisioning_tokens WHERE id = $1 AND upstream = $2 AND expires_at > $3",
        )
        .bind(by.token.as_str())
        .bind(by.upstream.as_str())
        .bind(now.0)
        .fetch_optional(&mut *transaction)
        .await?;
        let upstream = read::<UpstreamProvider>(&mut transaction, &by.upstream).await?;
        let upstream = upstream.filter(|upstream| !upstream.disabled && token.is_some());
        Ok(upstream.map(|upstream| (transaction, checked, upstream)))
    }
}

pub(super) fn told(by: &Provisioner, event: RequestEvent, now: Timestamp) -> AuditEvent {
    AuditEvent::granted(event, now)
        .with(Detail::Upstream, by.upstream.as_str())
        .with(Detail::Token, by.token.as_str())
        .with(Detail::RequestId, by.request_id.as_str())
}

fn person_of(user: User, row: &AnyRow) -> Result<ProvisionedPerson, StoreError> {
    Ok(ProvisionedPerson {
        user,
        external_id: Some(row.try_get("external_id")?).filter(|id: &String| !id.is_empty()),
        said: row.try_get("said")?,
        created_at: Timestamp(row.try_get("created_at")?),
        changed_at: Timestamp(row.try_get("changed_at")?),
    })
}

/// A person, if they are this upstream's.
async fn provisioned(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    id: &str,
) -> Result<Option<ProvisionedPerson>, StoreError> {
    if !is_theirs(transaction, upstream, id).await? {
        return Ok(None);
    }
    let Some(user) = read::<User>(transaction, id).await? else { return Ok(None) };
    let sql = "SELECT external_id, said, created_at, changed_at FROM provisioned_people \
               WHERE user_id = $1";
    match sqlx::query(sql).bind(id).fetch_optional(&mut **transaction).await? {
        Some(row) => Ok(Some(person_of(user, &row)?)),
        None => Ok(Some(ProvisionedPerson {
            user,
            external_id: None,
            said: String::new(),
            created_at: Timestamp(0),
            changed_at: Timestamp(0),
        })),
    }
}

async fn is_theirs(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    id: &str,
) -> Result<bool, StoreError> {
    let sql = "SELECT upstream, 1 AS said FROM provisioned_people WHERE user_id = $1 \
               UNION ALL SELECT upstream, 0 AS said FROM upstream_links WHERE user_id = $1 \
               ORDER BY said DESC";
    let rows = sqlx::query(sql).bind(id).fetch_all(&mut **transaction).await?;
    let mut theirs = false;
    for row in &rows {
        let by: &str = row.try_get("upstream")?;
        // Whoever provisioned them comes first, and keeps everybody else away.
        if row.try_get::<i64, _>("said")? == 1 {
            return Ok(by == upstream);
        }
        theirs |= by == upstream;
    }
    Ok(theirs)
}

async fn put_provisioned(
    transaction: &mut Transaction<'static, Any>,
    by: &Provisioner,
    person: &ProvisionedPerson,
    now: Timestamp,
) -> Result<(), StoreError> {
    let put = "INSERT INTO provisioned_people \
               (user_id, upstream, external_id, said, created_at, changed_at) \
               VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (user_id) DO UPDATE \
               SET external_id = $3, said = $4, changed_at = $5";
    sqlx::query(put)
        .bind(person.user.id.as_str())
        .bind(by.upstream.as_str())
        .bind(person.external_id.as_deref().unwrap_or_default())
        .bind(person.said.as_str())
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The person whom an upstream provisioned by this id and who is linked to nobody there yet, if there
/// is exactly one.
pub(crate) async fn provisioned_as(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    external_id: &str,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT said.user_id, said.unlinked + (SELECT COUNT(*) FROM upstream_links link \
               WHERE link.user_id = said.user_id AND link.upstream = $1) AS linked \
               FROM provisioned_people said WHERE said.upstream = $1 AND said.external_id = $2 LIMIT 2";
    let rows =
        sqlx::query(sql).bind(upstream).bind(external_id).fetch_all(&mut **transaction).await?;
    match rows.as_slice() {
        [one] if one.try_get::<i64, _>("linked")? == 0 => Ok(Some(one.try_get("user_id")?)),
        _ => Ok(None),
    }
}

/// An administrator unlinked a person: no `externalId` links them again.
pub(crate) async fn keep_unlinked(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE provisioned_people SET unlinked = 1 WHERE user_id = $1")
        .bind(user_id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Forgets what an upstream that is deleted has provisioned. People and groups stay.
pub(crate) async fn end_provisioning(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
) -> Result<(), StoreError> {
    for table in ["provisioning_tokens", "provisioned_people", "provisioned_groups"] {
        let sql = format!("DELETE FROM {table} WHERE upstream = $1");
        sqlx::query(AssertSqlSafe(sql)).bind(upstream).execute(&mut **transaction).await?;
    }
    Ok(())
}
