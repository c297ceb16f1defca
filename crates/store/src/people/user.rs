//! People of the company, and their groups.

use crate::{
    connections::{leave_connections, leave_subjects},
    database::{Store, StoreError, reading},
    directory::{Put, read, remove, write},
    ledger::AuditEvent,
    people::{end_credentials, leave_upstream_groups, remove_person_links},
    record::{Record, record},
    rows,
    sign_in::end_sign_ins,
};
use passavant_proto::{event::Detail, policy::Subject, saml::SamlSubject, time::Timestamp};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use std::collections::{BTreeMap, BTreeSet};

/// A person at the IdP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `sub` of tokens: opaque, never reused.
    pub id: String,
    /// User name, in NFC and lower case.
    pub username: String,
    /// E-mail address.
    pub email: Option<String>,
    /// Whether the address is verified.
    pub email_verified: bool,
    /// Display name.
    pub display_name: Option<String>,
    /// Given name, for applications that ask for it.
    pub given_name: Option<String>,
    /// Family name, for applications that ask for it.
    pub family_name: Option<String>,
    /// Names of the groups they are in.
    pub groups: BTreeSet<String>,
    /// Argon2id hash (PHC string); `None` if they cannot sign in with a password.
    pub password_hash: Option<String>,
    /// What else the directory that provisions them says: SCIM attributes by name, for instance
    /// `department` (RFC 7643, sections 4.1 and 4.3).
    pub attributes: BTreeMap<String, String>,
    /// Their name identifier at the identity provider that they sign in at, if that speaks SAML.
    pub saml_subject: Option<SamlSubject>,
    /// Switched off by an administrator.
    pub disabled_here: bool,
    /// Switched off by the directory that provisions them.
    pub inactive_there: bool,
}

impl User {
    /// A person of whom only the user name is known.
    pub fn new(id: &str, username: &str) -> Self {
        Self {
            id: id.to_owned(),
            username: username.to_owned(),
            email: None,
            email_verified: false,
            display_name: None,
            given_name: None,
            family_name: None,
            groups: BTreeSet::new(),
            password_hash: None,
            attributes: BTreeMap::new(),
            saml_subject: None,
            disabled_here: false,
            inactive_there: false,
        }
    }

    /// Whether they are switched off, by whomever.
    pub const fn is_off(&self) -> bool {
        self.disabled_here || self.inactive_there
    }
}

/// A group at the IdP. Its members' records carry its name.
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
    /// Changes a user, and ends their sessions and refresh tokens: for switching off, or for a new
    /// password. Switching on again restores none of them. A new password (`new_password`) also
    /// revokes their installations, because someone who knew the old one may have enrolled some.
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

    /// Removes a user, whether or not their record can be read, with all their sessions, refresh
    /// tokens and installations; `false` if they do not exist.
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
        let named_them = forget_user(&mut transaction, id, now).await?;
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

    /// Removes a group and all memberships of it, also from connections. The event names these
    /// connections.
    pub async fn delete_group(&self, name: &str, event: AuditEvent) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(named_it) = remove_group(&mut transaction, name).await? else { return Ok(false) };
        let event = event.with(Detail::Connections, named_it.join(" "));
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }
}

/// Removes what a person who is deleted had. Returns the connections that named them.
pub(crate) async fn forget_user(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    end_user(transaction, id, true, now).await?;
    remove_person_links(transaction, "user_id", id).await?;
    end_credentials(transaction, id).await?;
    // With the refresh tokens that their sessions were checked with.
    sqlx::query("DELETE FROM upstream_sessions WHERE user_id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    // Each party that knew of them has a notice now.
    sqlx::query("DELETE FROM told_of WHERE user_id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    sqlx::query("DELETE FROM provisioned_people WHERE user_id = $1")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    // User ids are never reused, so an unreadable connection can stay: nobody could gain by it.
    let subject = Subject::User(id.to_owned());
    let (named_them, _) =
        leave_connections(transaction, None, |connection| leave_subjects(connection, &subject))
            .await?;
    Ok(named_them)
}

/// Removes a group and what names it: memberships, connections, mappings. Returns the connections
/// that named it; `None` if there is no such group.
pub(crate) async fn remove_group(
    transaction: &mut Transaction<'static, Any>,
    name: &str,
) -> Result<Option<Vec<String>>, StoreError> {
    let done = sqlx::query("DELETE FROM directory WHERE kind = $1 AND id = $2")
        .bind(Group::KIND)
        .bind(name)
        .execute(&mut **transaction)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    let members = "SELECT held.id, held.document FROM memberships member \
                   JOIN directory held ON held.kind = $1 AND held.id = member.user_id \
                   WHERE member.group_name IN ($2, '')";
    let rows =
        sqlx::query(members).bind(User::KIND).bind(name).fetch_all(&mut **transaction).await?;
    for row in &rows {
        match rows::record::<User>(row) {
            Ok(mut user) => {
                if user.groups.remove(name) {
                    write(transaction, &user, Put::Replace).await?;
                }
            }
            // If the record becomes readable one day, it makes nobody a member of a later group
            // of this name.
            Err(_) if !rows::may_name(row.try_get("document")?, name) => {}
            Err(_) => leave_group(transaction, row, name).await?,
        }
    }
    leave_upstream_groups(transaction, name).await?;
    // A later group of this name gains nothing. A connection that was only for this group is
    // now for nobody.
    let subject = Subject::Group(name.to_owned());
    let (named_it, _) = leave_connections(transaction, Some(name), |connection| {
        leave_subjects(connection, &subject)
    })
    .await?;
    sqlx::query("DELETE FROM provisioned_groups WHERE group_name = $1")
        .bind(name)
        .execute(&mut **transaction)
        .await?;
    Ok(Some(named_it))
}

/// Ends a person's sign-ins, and their installations if `installations` is set.
pub(crate) async fn end_user(
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

/// Removes a group from a person's record that cannot be read, and leaves the rest of it as it was
/// written. Fails if that is not possible, and then the group is not deleted: otherwise the person
/// would be a member of a later group of this name.
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
