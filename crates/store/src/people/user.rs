//! People of the company, and their groups.

use crate::{
    connections::{leave_connections, leave_subjects},
    database::{Store, StoreError, reading},
    directory::{Put, read, remove, write},
    ledger::AuditEvent,
    record::{Record, record},
    rows::{self, document},
    sign_in::end_sign_ins,
};
use passavant_proto::{event::Detail, policy::Subject, time::Timestamp};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::collections::BTreeSet;

/// A person at the IdP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `sub` of tokens: opaque, never reused.
    pub id: String,
    /// What they type to sign in; NFC and lower case.
    pub username: String,
    /// Address.
    pub email: Option<String>,
    /// Whether the address is known to be theirs.
    pub email_verified: bool,
    /// What people call them.
    pub display_name: Option<String>,
    /// Given name, for applications that ask for it.
    pub given_name: Option<String>,
    /// Family name, for applications that ask for it.
    pub family_name: Option<String>,
    /// Names of the groups they are in.
    pub groups: BTreeSet<String>,
    /// Argon2id hash (PHC string); `None`: cannot sign in with a password.
    pub password_hash: Option<String>,
    /// Switched off by an administrator.
    pub disabled: bool,
}

/// A group at the IdP. Members carry its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

record!(User, "user", |user| user.id.clone(), user.username.clone());
record!(Group, "group", |group| group.name.clone());

impl Store {
    /// Changes a user, and ends every session and refresh token they had: for switching off, a new password. Switching
    /// on again revives none of them. A new password (`new_password`) revokes their installations too: whoever knew the
    /// old one may have enrolled some.
    pub async fn cut_off_user(
        &self,
        id: &str,
        change: impl FnOnce(&mut User) + Send,
        new_password: bool,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<Option<User>, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(mut user) = read::<User>(&mut transaction, id).await? else { return Ok(None) };
        change(&mut user);
        write(&mut transaction, &user, Put::Replace).await?;
        end_user(&mut transaction, id, new_password, now).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(Some(user))
    }

    /// Removes a user, whether or not their record can be read, with every session, refresh token and installation they
    /// had; `false` if they are not there.
    pub async fn delete_user(
        &self,
        id: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        if !remove(&mut transaction, User::KIND, id).await? {
            return Ok(false);
        }
        end_user(&mut transaction, id, true, now).await?;
        // Ids are never used again: nobody could inherit by what cannot be read.
        let subject = Subject::User(id.to_owned());
        let (named_them, _) = leave_connections(&mut transaction, None, |connection| {
            leave_subjects(connection, &subject)
        })
        .await?;
        let event = if named_them.is_empty() {
            event
        } else {
            event.with(Detail::Connections, named_them.join(" "))
        };
        self.commit_directory(transaction, checked, event).await?;
        self.unreadable.forget(User::KIND, id);
        Ok(true)
    }

    /// User names of the members of a group, 1000 at most.
    pub async fn members(&self, group: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT held.name FROM memberships member \
                   JOIN directory held ON held.kind = $1 AND held.id = member.user_id \
                   WHERE member.group_name = $2 ORDER BY held.name LIMIT 1000";
        let rows = reading!(self, fetch_all, sqlx::query(sql).bind(User::KIND).bind(group))?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Removes a group and every membership of it, also from connections; the event names these.
    pub async fn delete_group(&self, name: &str, event: AuditEvent) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let done = sqlx::query("DELETE FROM directory WHERE kind = $1 AND id = $2")
            .bind(Group::KIND)
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let members = "SELECT held.id, held.document FROM memberships member \
                       JOIN directory held ON held.kind = $1 AND held.id = member.user_id \
                       WHERE member.group_name IN ($2, '')";
        let rows =
            sqlx::query(members).bind(User::KIND).bind(name).fetch_all(&mut *transaction).await?;
        for row in &rows {
            match document::<User>(row, "document", User::KIND) {
                Ok(mut user) => {
                    if user.groups.remove(name) {
                        write(&mut transaction, &user, Put::Replace).await?;
                    }
                }
                // Whoever can read it again one day is no member of a later group of this name.
                Err(_) if !rows::may_name(row.try_get("document")?, name) => {}
                Err(_) => leave_group(&mut transaction, row, name).await?,
            }
        }
        // A later group of this name gets nothing by it. A connection for nobody else is for nobody now.
        let subject = Subject::Group(name.to_owned());
        let (named_it, _) = leave_connections(&mut transaction, Some(name), |connection| {
            leave_subjects(connection, &subject)
        })
        .await?;
        let event = event.with(Detail::Connections, named_it.join(" "));
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }
}

/// Ends what a person had.
async fn end_user(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    installations: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    end_sign_ins(transaction, id, now).await?;
    if installations {
        let end =
            "UPDATE installations SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL";
        sqlx::query(end).bind(id).bind(now.0).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Takes a group out of a person's record that cannot be read otherwise, and leaves all else in it as it was written.
/// Where it cannot be taken apart, nothing is deleted: a later group of the name would have them.
async fn leave_group(
    transaction: &mut Transaction<'static, Any>,
    row: &AnyRow,
    group: &str,
) -> Result<(), StoreError> {
    let (id, text): (&str, &str) = (row.try_get("id")?, row.try_get("document")?);
    let Some(without) = rows::without(text, "groups", group) else {
        let why = format!("`{id}` is in it, and cannot be read to be taken out of it");
        return Err(StoreError::Document(User::KIND, why));
    };
    sqlx::query("UPDATE directory SET document = $3 WHERE kind = $1 AND id = $2")
        .bind(User::KIND)
        .bind(id)
        .bind(without)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
