//! Groups that an upstream provisions. Members move some at a time, so that nobody waits for all of
//! them: what is to move is decided once, by the first transaction of a change, and worked off.

use crate::{
    connections::{leave_connections, leave_subjects},
    database::{Store, StoreError, reading},
    directory::{Put, read, write},
    ledger::insert_audit,
    people::{
        Group, User, leave_upstream_groups,
        provisioning::{
            IS_THEIRS, Lookup, NotProvisioned, PROVISIONED, Provisioner, Provisioning, told,
        },
        upstream::changed_of,
        user::remove_group,
    },
    record::Record,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oidc::upstream::UpstreamProvider,
    others_text::shown,
    policy::Subject,
    time::Timestamp,
};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};
use std::collections::BTreeSet;

/// How many people one transaction moves: mints wait for it.
const MOST_MOVES: usize = 250;

/// How many ids one statement asks for.
const AT_ONCE: usize = 200;

/// A group that an upstream provisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedGroup {
    /// Its SCIM id.
    pub id: String,
    /// What it is called there.
    pub display_name: String,
    /// The same, as names are compared.
    pub normal_name: String,
    /// What the upstream knows it by.
    pub external_id: Option<String>,
    /// The group here.
    pub group: String,
    /// Counts the changes by provisioning.
    pub version: i64,
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
    pub fn named(&self) -> usize {
        self.into.len() + self.out.len()
    }
}

impl Store {
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
        let sql = theirs_in_group();
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
            // Two names that differ in case alone would be taken for each other.
            let alike = "SELECT id FROM directory WHERE kind = $1 AND LOWER(id) = $2";
            let alike = sqlx::query(alike)
                .bind(Group::KIND)
                .bind(group.normal_name.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
            if alike.is_some() {
                return Ok(Err(NotProvisioned::Taken));
            }
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
            .bind(group.normal_name.as_str())
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
    /// which members move, and refuses what is wrong; it is asked once, with the group as it is. Who
    /// is no person of the upstream is passed over and named in the trail. If another change of the
    /// group begins meanwhile, the rest of this one is left to it.
    pub async fn change_provisioned_group<E: Send>(
        &self,
        by: &Provisioner,
        id: &str,
        change: impl FnOnce(&mut ProvisionedGroup) -> Result<MemberChange, E> + Send,
        now: Timestamp,
    ) -> Provisioning<ProvisionedGroup, E> {
        let Some((mut transaction, checked, upstream)) = self.begin_provisioning(by, now).await?
        else {
            return Ok(Err(NotProvisioned::NoToken));
        };
        let Some((before, made)) = provisioned_group(&mut transaction, &by.upstream, id).await?
        else {
            return Ok(Err(NotProvisioned::Missing));
        };
        if !still_mapped(&upstream, &before, made) {
            return Ok(Err(NotProvisioned::NoGroup(before.group)));
        }
        let mut after = before.clone();
        let mut members = match change(&mut after) {
            Ok(members) => members,
            Err(error) => return Ok(Err(NotProvisioned::Rule(error))),
        };
        let strangers = without_strangers(&mut transaction, by, &mut members.into).await?;
        let moves = moves_of(&mut transaction, by, &before.group, &members).await?;
        if after == before && moves.is_empty() && strangers.is_empty() {
            return Ok(Ok(before));
        }
        let others = "SELECT id FROM provisioned_groups \
                      WHERE upstream = $1 AND lower_name = $2 AND id <> $3";
        let taken = sqlx::query(others)
            .bind(by.upstream.as_str())
            .bind(after.normal_name.as_str())
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
        if taken.is_some() {
            return Ok(Err(NotProvisioned::Taken));
        }
        (after.version, after.changed_at) = (before.version + 1, now);
        let keep = "UPDATE provisioned_groups SET display_name = $2, lower_name = $3, \
                    external_id = $4, changed_at = $5, version = $6 WHERE id = $1";
        sqlx::query(keep)
            .bind(id)
            .bind(after.display_name.as_str())
            .bind(after.normal_name.as_str())
            .bind(after.external_id.as_deref().unwrap_or_default())
            .bind(now.0)
            .bind(after.version)
            .execute(&mut *transaction)
            .await?;
        let more = if strangers.is_empty() {
            "changed".to_owned()
        } else {
            let some: Vec<String> = strangers.iter().take(5).map(|id| shown(id, 60)).collect();
            let (count, some) = (strangers.len(), some.join(" "));
            format!("changed; {count} unknown members passed over: {some}")
        };
        let event = told(by, RequestEvent::ProvisionGroup, now)
            .with(Detail::Record, before.group.as_str())
            .with(Detail::More, more)
            .with(Detail::Count, moves.len().to_string());
        let (first, rest) = moves.split_at(moves.len().min(MOST_MOVES));
        move_some(&mut transaction, by, &before.group, first, now).await?;
        self.commit_directory(transaction, checked, event).await?;
        self.move_rest(by, &after, rest, now).await.map(|moved| moved.map(|()| after))
    }

    /// Works off what is left of a change, while the group is as that change left it.
    async fn move_rest<E: Send>(
        &self,
        by: &Provisioner,
        group: &ProvisionedGroup,
        moves: &[(String, bool)],
        now: Timestamp,
    ) -> Provisioning<(), E> {
        for some in moves.chunks(MOST_MOVES) {
            let Some((mut transaction, checked, upstream)) =
                self.begin_provisioning(by, now).await?
            else {
                return Ok(Err(NotProvisioned::NoToken));
            };
            let held = provisioned_group(&mut transaction, &by.upstream, &group.id).await?;
            let Some((held, made)) = held else { return Ok(Err(NotProvisioned::Missing)) };
            if held.version != group.version {
                return Ok(Err(NotProvisioned::Overtaken));
            }
            if !still_mapped(&upstream, &held, made) {
                return Ok(Err(NotProvisioned::NoGroup(held.group)));
            }
            move_some(&mut transaction, by, &held.group, some, now).await?;
            let event = told(by, RequestEvent::ProvisionGroup, now)
                .with(Detail::Record, held.group.as_str())
                .with(Detail::More, "went on")
                .with(Detail::Count, some.len().to_string());
            self.commit_directory(transaction, checked, event).await?;
        }
        Ok(Ok(()))
    }

    /// Removes a group: altogether if provisioning made it, otherwise the upstream's people leave it.
    /// What it opens is closed first.
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
        let Some((mut group, made)) = provisioned_group(&mut transaction, &by.upstream, id).await?
        else {
            return Ok(Err(NotProvisioned::Missing));
        };
        if let Err(error) = stands(&group) {
            return Ok(Err(NotProvisioned::Rule(error)));
        }
        let event = told(by, RequestEvent::ProvisionGroup, now)
            .with(Detail::Record, group.group.as_str())
            .with(Detail::More, "removed");
        let (event, members) = if made {
            let subject = Subject::Group(group.group.clone());
            let leave = leave_connections(&mut transaction, Some(&group.group), |connection| {
                leave_subjects(connection, &subject)
            });
            let (named_it, _) = leave.await?;
            leave_upstream_groups(&mut transaction, &group.group).await?;
            let all = "SELECT user_id FROM memberships WHERE group_name = $1 ORDER BY user_id";
            let all = sqlx::query(all).bind(group.group.as_str()).fetch_all(&mut *transaction);
            (event.with(Detail::Connections, named_it.join(" ")), all.await?)
        } else {
            let theirs = sqlx::query(AssertSqlSafe(theirs_in_group()))
                .bind(by.upstream.as_str())
                .bind(group.group.as_str())
                .fetch_all(&mut *transaction);
            (event, theirs.await?)
        };
        let mut moves = Vec::with_capacity(members.len());
        for row in &members {
            moves.push((row.try_get::<String, _>(0)?, false));
        }
        group.version += 1;
        sqlx::query("UPDATE provisioned_groups SET version = $2 WHERE id = $1")
            .bind(id)
            .bind(group.version)
            .execute(&mut *transaction)
            .await?;
        self.commit_directory(transaction, checked, event).await?;
        for some in moves.chunks(MOST_MOVES) {
            let (mut transaction, checked) =
                self.begin_act(&told(by, RequestEvent::ProvisionChange, now)).await?;
            move_some(&mut transaction, by, &group.group, some, now).await?;
            let event = told(by, RequestEvent::ProvisionGroup, now)
                .with(Detail::Record, group.group.as_str())
                .with(Detail::More, "went on")
                .with(Detail::Count, some.len().to_string());
            self.commit_directory(transaction, checked, event).await?;
        }
        let (mut transaction, checked) =
            self.begin_act(&told(by, RequestEvent::ProvisionChange, now)).await?;
        if made {
            remove_group(&mut transaction, &group.group).await?;
        }
        sqlx::query("DELETE FROM provisioned_groups WHERE id = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        let event = told(by, RequestEvent::ProvisionGroup, now)
            .with(Detail::Record, group.group.as_str())
            .with(Detail::More, "gone");
        self.commit_directory(transaction, checked, event).await?;
        Ok(Ok(()))
    }
}

const GROUP: &str =
    "id, group_name, display_name, lower_name, external_id, version, created_at, changed_at, made";

fn group_of(row: &AnyRow) -> Result<ProvisionedGroup, StoreError> {
    Ok(ProvisionedGroup {
        id: row.try_get("id")?,
        display_name: row.try_get("display_name")?,
        normal_name: row.try_get("lower_name")?,
        external_id: Some(row.try_get("external_id")?).filter(|id: &String| !id.is_empty()),
        group: row.try_get("group_name")?,
        version: row.try_get("version")?,
        created_at: Timestamp(row.try_get("created_at")?),
        changed_at: Timestamp(row.try_get("changed_at")?),
    })
}

/// A group of an upstream, and whether provisioning made it.
async fn provisioned_group(
    transaction: &mut Transaction<'static, Any>,
    upstream: &str,
    id: &str,
) -> Result<Option<(ProvisionedGroup, bool)>, StoreError> {
    let sql = format!("SELECT {GROUP} FROM provisioned_groups WHERE upstream = $1 AND id = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(upstream).bind(id);
    let Some(row) = row.fetch_optional(&mut **transaction).await? else { return Ok(None) };
    Ok(Some((group_of(&row)?, row.try_get::<i64, _>("made")? == 1)))
}

/// Whether a group that was here before is still one that the upstream may fill: an administrator may
/// have taken that back.
fn still_mapped(upstream: &UpstreamProvider, group: &ProvisionedGroup, made: bool) -> bool {
    made || upstream.groups.values().any(|here| *here == group.group)
}

/// The members of a group (`$2`) who are an upstream's people (`$1`).
fn theirs_in_group() -> String {
    format!(
        "SELECT held.id FROM memberships member \
         JOIN directory held ON held.kind = 'user' AND held.id = member.user_id {PROVISIONED} \
         WHERE member.group_name = $2 AND {IS_THEIRS} ORDER BY held.id"
    )
}

/// `$2, $3, …`
fn places(many: usize) -> String {
    let all: Vec<String> = (0..many).map(|at| format!("${}", at + 2)).collect();
    all.join(", ")
}

/// Those of `ids` that a query with `$1` and their places finds.
async fn found_among(
    transaction: &mut Transaction<'static, Any>,
    sql: impl Fn(&str) -> String + Send,
    first: &str,
    ids: &BTreeSet<String>,
) -> Result<BTreeSet<String>, StoreError> {
    let all: Vec<&String> = ids.iter().collect();
    let mut found = BTreeSet::new();
    for some in all.chunks(AT_ONCE) {
        let mut query = sqlx::query(AssertSqlSafe(sql(&places(some.len())))).bind(first);
        for id in some {
            query = query.bind(id.as_str());
        }
        for row in &query.fetch_all(&mut **transaction).await? {
            found.insert(row.try_get::<String, _>(0)?);
        }
    }
    Ok(found)
}

/// Leaves out who is no person of this upstream, and returns them: one that is not known must not
/// lose the others.
async fn without_strangers(
    transaction: &mut Transaction<'static, Any>,
    by: &Provisioner,
    ids: &mut BTreeSet<String>,
) -> Result<Vec<String>, StoreError> {
    let sql = |places: &str| {
        format!(
            "SELECT held.id FROM directory held {PROVISIONED} \
             WHERE held.kind = 'user' AND held.id IN ({places}) AND {IS_THEIRS}"
        )
    };
    let known = found_among(transaction, sql, &by.upstream, ids).await?;
    let strangers = ids.difference(&known).cloned().collect();
    *ids = known;
    Ok(strangers)
}

/// Who moves: those who leave first, since what is taken away waits for nothing.
async fn moves_of(
    transaction: &mut Transaction<'static, Any>,
    by: &Provisioner,
    group: &str,
    members: &MemberChange,
) -> Result<Vec<(String, bool)>, StoreError> {
    let held = if members.exactly {
        let rows = sqlx::query(AssertSqlSafe(theirs_in_group()))
            .bind(by.upstream.as_str())
            .bind(group)
            .fetch_all(&mut **transaction)
            .await?;
        rows.iter()
            .map(|row| Ok(row.try_get(0)?))
            .collect::<Result<BTreeSet<String>, StoreError>>()?
    } else {
        let mut named = members.into.clone();
        let mut out = members.out.clone();
        without_strangers(transaction, by, &mut out).await?;
        named.extend(out);
        let sql = |places: &str| {
            format!(
                "SELECT user_id FROM memberships WHERE group_name = $1 AND user_id IN ({places})"
            )
        };
        found_among(transaction, sql, group, &named).await?
    };
    let leaves = |id: &&String| {
        members.out.contains(*id) || (members.exactly && !members.into.contains(*id))
    };
    let out = held.iter().filter(leaves).map(|id| (id.clone(), false));
    let into = members.into.difference(&held).map(|id| (id.clone(), true));
    Ok(out.chain(into).collect())
}

/// Moves some people into a group and out of it. Who is not there any more, or cannot be read, is
/// passed over.
async fn move_some(
    transaction: &mut Transaction<'static, Any>,
    by: &Provisioner,
    group: &str,
    moves: &[(String, bool)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut events = Vec::with_capacity(moves.len());
    for (id, member) in moves {
        let before = match read::<User>(transaction, id).await {
            Ok(Some(user)) => user,
            Ok(None) | Err(StoreError::Document(..)) => continue,
            Err(error) => return Err(error),
        };
        let mut after = before.clone();
        let moved = if *member {
            after.groups.insert(group.to_owned())
        } else {
            after.groups.remove(group)
        };
        if !moved {
            continue;
        }
        write(transaction, &after, Put::Replace).await?;
        let event = told(by, RequestEvent::ProvisionChange, now)
            .person(id)
            .with(Detail::More, changed_of(&before, &after));
        events.push(event);
    }
    insert_audit(transaction, &events).await
}
