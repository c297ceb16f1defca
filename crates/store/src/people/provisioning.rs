//! People and groups that an upstream provisions (SCIM 2.0, RFC 7644), and the tokens it does so with.
//! An upstream sees and changes its own people alone: those it added, and those who are linked to it
//! and were added by nobody else.

use crate::{
    acts::Checked,
    database::{Store, StoreError, reading},
    directory::{Put, read, remove, write},
    ledger::{AuditEvent, insert_audit},
    people::{
        Group, User,
        upstream::changed_of,
        user::{end_user, forget_user, remove_group},
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
use std::collections::BTreeSet;

/// How often the last use of a token is written, in seconds.
const USED_EVERY: i64 = 3600;

/// How many people one transaction moves: mints wait for it.
const MOST_MOVES: usize = 250;

/// How many ids one statement asks for.
const AT_ONCE: usize = 200;

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

/// A group that an upstream provisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedGroup {
    /// Its SCIM id.
    pub id: String,
    /// What it is called there.
    pub display_name: String,
    /// What the upstream knows it by.
    pub external_id: Option<String>,
    /// The group here.
    pub group: String,
    /// When it was provisioned first.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub changed_at: Timestamp,
}

/// What becomes of a group's members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Whoever is not to come in leaves.
    exactly: bool,
    into: BTreeSet<String>,
    out: BTreeSet<String>,
}

impl MemberChange {
    /// These are members too.
    pub fn add(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.out.remove(&id);
            self.into.insert(id);
        }
    }

    /// These are members no longer. Whoever is not one is passed over.
    pub fn remove(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.into.remove(&id);
            self.out.insert(id);
        }
    }

    /// Exactly these are members.
    pub fn replace(&mut self, ids: impl IntoIterator<Item = String>) {
        *self = Self { exactly: true, into: ids.into_iter().collect(), out: BTreeSet::new() };
    }

    /// How many are named.
    pub fn len(&self) -> usize {
        self.into.len() + self.out.len()
    }

    /// Whether nothing becomes of anybody.
    pub fn is_empty(&self) -> bool {
        !self.exactly && self.len() == 0
    }
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
    /// The group that the upstream's record maps this one to is not there.
    NoGroup(String),
    /// The token was revoked or has expired, or the upstream is switched off.
    NoToken,
    /// The caller's own rule.
    Rule(E),
}

type Provisioning<T, E> = Result<Result<T, NotProvisioned<E>>, StoreError>;

/// The ids of an upstream's people, with its name as `$1`.
const THEIRS: &str = "SELECT user_id FROM provisioned_people WHERE upstream = $1 \
                      UNION SELECT link.user_id FROM upstream_links link WHERE link.upstream = $1 \
                      AND NOT EXISTS (SELECT 1 FROM provisioned_people other \
                      WHERE other.user_id = link.user_id)";

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
            "FROM directory held LEFT JOIN provisioned_people said ON said.user_id = held.id \
             WHERE held.kind = 'user' AND {condition} AND held.id IN ({THEIRS})"
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
        let event = told(by, event, now)
            .person(id)
            .with(Detail::More, changed_of(&before.user, &after.user));
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
        let Some(person) = provisioned(&mut transaction, &by.upstream, id).await? else {
            return Ok(Err(NotProvisioned::Missing));
        };
        if let Err(error) = stands(&person) {
            return Ok(Err(NotProvisioned::Rule(error)));
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

    /// An upstream's groups, by id: how many there are, and those from `offset` on.
    pub async fn provisioned_groups(
        &self,
        upstream: &str,
        lookup: Lookup<'_>,
        (offset, limit): (i64, i64),
    ) -> Result<(i64, Vec<ProvisionedGroup>), StoreError> {
        let (condition, value) = match lookup {
            Lookup::All => ("$2 = ''", ""),
            Lookup::Id(id) => ("id = $2", id),
            Lookup::Name(name) => ("lower_name = $2", name),
            Lookup::External(id) => ("external_id = $2", id),
        };
        let from = format!("FROM provisioned_groups WHERE upstream = $1 AND {condition}");
        let count = format!("SELECT COUNT(*) {from}");
        let query = || sqlx::query(AssertSqlSafe(count.clone())).bind(upstream).bind(value);
        let total = reading!(self, fetch_one, query())?.try_get::<i64, _>(0)?;
        let sql = format!("SELECT {GROUP} {from} ORDER BY id LIMIT $3 OFFSET $4");
        let query = || {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(upstream)
                .bind(value)
                .bind(limit)
                .bind(offset)
        };
        let rows = reading!(self, fetch_all, query())?;
        let groups: Result<Vec<_>, StoreError> = rows.iter().map(group_of).collect();
        Ok((total, groups?))
    }

    /// The ids of those members of a group who are an upstream's people.
    pub async fn provisioned_members(
        &self,
        upstream: &str,
        group: &str,
    ) -> Result<Vec<String>, StoreError> {
        let sql = format!(
            "SELECT user_id FROM memberships \
             WHERE group_name = $2 AND user_id IN ({THEIRS}) ORDER BY user_id"
        );
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(upstream).bind(group);
        let rows = reading!(self, fetch_all, query())?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Adds a group, which nobody is in yet. If the upstream's record maps its name to a group here,
    /// it stands for that group, and moves the upstream's own people alone; otherwise a group of its
    /// name is made.
    pub async fn add_provisioned_group(
        &self,
        by: &Provisioner,
        group: &mut ProvisionedGroup,
        now: Timestamp,
    ) -> Provisioning<(), std::convert::Infallible> {
        let Some((mut transaction, checked, upstream)) = self.begin_provisioning(by, now).await?
        else {
            return Ok(Err(NotProvisioned::NoToken));
        };
        let mapped = upstream.groups.get(&group.display_name);
        let name = mapped.unwrap_or(&group.display_name).clone();
        group.group = name;
        if mapped.is_some() {
            if read::<Group>(&mut transaction, &group.group).await?.is_none() {
                return Ok(Err(NotProvisioned::NoGroup(group.group.clone())));
            }
        } else {
            let description = format!("provisioned by {}", upstream.display_name);
            let new = Group { name: group.group.clone(), description };
            match write(&mut transaction, &new, Put::Create).await {
                Err(StoreError::NameTaken { .. }) => return Ok(Err(NotProvisioned::Taken)),
                written => written?,
            };
        }
        let add = "INSERT INTO provisioned_groups (id, upstream, group_name, display_name, lower_name, \
                   external_id, made, created_at, changed_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT DO NOTHING";
        let added = sqlx::query(add)
            .bind(group.id.as_str())
            .bind(by.upstream.as_str())
            .bind(group.group.as_str())
            .bind(group.display_name.as_str())
            .bind(group.display_name.to_lowercase())
            .bind(group.external_id.as_deref().unwrap_or_default())
            .bind(i64::from(mapped.is_none()))
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        if added.rows_affected() == 0 {
            return Ok(Err(NotProvisioned::Taken));
        }
        let event = told(by, RequestEvent::ProvisionGroup, now)
            .with(Detail::Record, group.group.as_str())
            .with(Detail::More, "added");
        self.commit_directory(transaction, checked, event).await?;
        Ok(Ok(()))
    }

    /// Changes what a group is called there, and its members. Its name here stays. `change` says
    /// which members move. Many move in several transactions, so that nobody waits for all of them;
    /// what is wrong with the request shows before the first, and the same request again finishes
    /// what a crash left.
    pub async fn change_provisioned_group<E: Send>(
        &self,
        by: &Provisioner,
        id: &str,
        change: impl Fn(&mut ProvisionedGroup) -> Result<MemberChange, E> + Send,
        now: Timestamp,
    ) -> Provisioning<ProvisionedGroup, E> {
        let mut moves = None;
        loop {
            let Some((mut transaction, checked, _)) = self.begin_provisioning(by, now).await?
            else {
                return Ok(Err(NotProvisioned::NoToken));
            };
            let Some(before) = provisioned_group(&mut transaction, &by.upstream, id).await? else {
                return Ok(Err(NotProvisioned::Missing));
            };
            let mut after = before.clone();
            let mut more = "changed".to_owned();
            // What the group is called is decided by the first transaction.
            let moving = match moves.take() {
                Some(moving) => moving,
                None => match change(&mut after) {
                    Ok(mut moving) => {
                        let into = &mut moving.into;
                        let strangers =
                            without_strangers(&mut transaction, &by.upstream, into).await?;
                        if !strangers.is_empty() {
                            let some: Vec<String> =
                                strangers.iter().take(5).map(|id| shown(id, 60)).collect();
                            let (count, some) = (strangers.len(), some.join(" "));
                            more = format!("changed; {count} unknown members passed over: {some}");
                        }
                        moving
                    }
                    Err(error) => return Ok(Err(NotProvisioned::Rule(error))),
                },
            };
            let moved = if moving.is_empty() {
                0
            } else {
                move_members(&mut transaction, by, &before.group, &moving, now).await?
            };
            if after == before && moved == 0 && more == "changed" {
                return Ok(Ok(before));
            }
            after.changed_at = now;
            let lower = after.display_name.to_lowercase();
            let others = "SELECT id FROM provisioned_groups \
                          WHERE upstream = $1 AND lower_name = $2 AND id <> $3";
            let taken = sqlx::query(others)
                .bind(by.upstream.as_str())
                .bind(lower.as_str())
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
            if taken.is_some() {
                return Ok(Err(NotProvisioned::Taken));
            }
            let keep = "UPDATE provisioned_groups SET display_name = $2, lower_name = $3, \
                        external_id = $4, changed_at = $5 WHERE id = $1";
            sqlx::query(keep)
                .bind(id)
                .bind(after.display_name.as_str())
                .bind(lower)
                .bind(after.external_id.as_deref().unwrap_or_default())
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
            let event = told(by, RequestEvent::ProvisionGroup, now)
                .with(Detail::Record, before.group.as_str())
                .with(Detail::More, more)
                .with(Detail::Count, moved.to_string());
            self.commit_directory(transaction, checked, event).await?;
            if moved < MOST_MOVES {
                return Ok(Ok(after));
            }
            moves = Some(moving);
        }
    }

    /// Removes a group: altogether if provisioning made it, otherwise the upstream's people leave it.
    pub async fn remove_provisioned_group<E: Send>(
        &self,
        by: &Provisioner,
        id: &str,
        stands: impl FnOnce(&ProvisionedGroup) -> Result<(), E> + Send,
        now: Timestamp,
    ) -> Provisioning<(), E> {
        let Some((mut transaction, checked, _)) = self.begin_provisioning(by, now).await? else {
            return Ok(Err(NotProvisioned::NoToken));
        };
        let Some(group) = provisioned_group(&mut transaction, &by.upstream, id).await? else {
            return Ok(Err(NotProvisioned::Missing));
        };
        if let Err(error) = stands(&group) {
            return Ok(Err(NotProvisioned::Rule(error)));
        }
        let made = sqlx::query("SELECT made FROM provisioned_groups WHERE id = $1")
            .bind(id)
            .fetch_one(&mut *transaction)
            .await?;
        let event = told(by, RequestEvent::ProvisionGroup, now)
            .with(Detail::Record, group.group.as_str())
            .with(Detail::More, "removed");
        let event = if made.try_get::<i64, _>(0)? == 1 {
            let named_it = remove_group(&mut transaction, &group.group).await?;
            event.with(Detail::Connections, named_it.unwrap_or_default().join(" "))
        } else {
            let mut nobody = MemberChange::default();
            nobody.replace([]);
            while move_members(&mut transaction, by, &group.group, &nobody, now).await? > 0 {}
            event
        };
        sqlx::query("DELETE FROM provisioned_groups WHERE id = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(Ok(()))
    }

    /// A transaction for a change by an upstream, and the upstream's record; `None` if its token no
    /// longer stands.
    async fn begin_provisioning(
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

fn told(by: &Provisioner, event: RequestEvent, now: Timestamp) -> AuditEvent {
    AuditEvent::granted(event, now)
        .with(Detail::Upstream, by.upstream.as_str())
        .with(Detail::Token, by.token.as_str())
        .with(Detail::RequestId, by.request_id.as_str())
}

const GROUP: &str = "id, group_name, display_name, external_id, created_at, changed_at";

fn group_of(row: &AnyRow) -> Result<ProvisionedGroup, StoreError> {
    Ok(ProvisionedGroup {
        id: row.try_get("id")?,
        display_name: row.try_get("display_name")?,
        external_id: Some(row.try_get("external_id")?).filter(|id: &String| !id.is_empty()),
        group: row.try_get("group_name")?,
        created_at: Timestamp(row.try_get("created_at")?),
        changed_at: Timestamp(row.try_get("changed_at")?),
    })
}

async fn provisioned_group(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    id: &str,
) -> Result<Option<ProvisionedGroup>, StoreError> {
    let sql = format!("SELECT {GROUP} FROM provisioned_groups WHERE upstream = $1 AND id = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(upstream).bind(id);
    row.fetch_optional(&mut **transaction).await?.as_ref().map(group_of).transpose()
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

/// Leaves out who is no person of this upstream, and returns them: one that is not known must not
/// lose the others.
async fn without_strangers(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    ids: &mut BTreeSet<String>,
) -> Result<Vec<String>, StoreError> {
    let all: Vec<String> = ids.iter().cloned().collect();
    let mut known = BTreeSet::new();
    for some in all.chunks(AT_ONCE) {
        let places: Vec<String> = (0..some.len()).map(|at| format!("${}", at + 2)).collect();
        let sql = format!(
            "SELECT id FROM directory WHERE kind = 'user' AND id IN ({}) AND id IN ({THEIRS})",
            places.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(upstream);
        for id in some {
            query = query.bind(id.as_str());
        }
        for row in &query.fetch_all(&mut **transaction).await? {
            known.insert(row.try_get::<String, _>(0)?);
        }
    }
    let strangers = all.into_iter().filter(|id| !known.contains(id)).collect();
    *ids = known;
    Ok(strangers)
}

/// Moves people into a group and out of it, as many as one transaction may. Returns how many moved.
async fn move_members(
    transaction: &mut Transaction<'static, Any>,
    by: &Provisioner,
    group: &str,
    change: &MemberChange,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let sql =
        format!("SELECT user_id FROM memberships WHERE group_name = $2 AND user_id IN ({THEIRS})");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(by.upstream.as_str())
        .bind(group)
        .fetch_all(&mut **transaction)
        .await?;
    let mut held = BTreeSet::new();
    for row in &rows {
        held.insert(row.try_get::<String, _>(0)?);
    }
    let into = change.into.difference(&held).map(|id| (id, true));
    let leaves =
        |id: &&String| change.out.contains(*id) || (change.exactly && !change.into.contains(*id));
    let out = held.iter().filter(leaves).map(|id| (id, false));
    let mut events = Vec::new();
    // Whoever leaves comes first: what is taken away waits for nothing.
    for (id, member) in out.chain(into).take(MOST_MOVES) {
        let Some(before) = read::<User>(transaction, id).await? else { continue };
        let mut after = before.clone();
        if member {
            after.groups.insert(group.to_owned());
        } else {
            after.groups.remove(group);
        }
        write(transaction, &after, Put::Replace).await?;
        let event = told(by, RequestEvent::ProvisionChange, now)
            .person(id)
            .with(Detail::More, changed_of(&before, &after));
        events.push(event);
    }
    insert_audit(transaction, &events).await?;
    Ok(events.len())
}

/// The person whom an upstream provisioned by this id and who is linked to nobody there yet, if there
/// is exactly one.
pub(crate) async fn provisioned_as(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    external_id: &str,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT said.user_id, (SELECT COUNT(*) FROM upstream_links link \
               WHERE link.user_id = said.user_id AND link.upstream = $1) AS linked \
               FROM provisioned_people said WHERE said.upstream = $1 AND said.external_id = $2 LIMIT 2";
    let rows =
        sqlx::query(sql).bind(upstream).bind(external_id).fetch_all(&mut **transaction).await?;
    match rows.as_slice() {
        [one] if one.try_get::<i64, _>("linked")? == 0 => Ok(Some(one.try_get("user_id")?)),
        _ => Ok(None),
    }
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
