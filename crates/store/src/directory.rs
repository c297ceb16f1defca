//! What administrators say: users, groups, clients, resources, connections, trusted issuers. Policy (all but people, and
//! what strangers registered) is under one generation, and each row of a person has a version of its own; the database
//! changes either with the row, in its transaction. Every mint is recorded against the generation and the versions that
//! it was decided on, so no decision outlives the records it rests on, and a change of one person stales nobody else's.

use crate::{
    administrators::Checked,
    audit::AuditEvent,
    database::{Store, StoreError, document, reading, to_json},
    hot_path,
    rows::{self, Held},
};
use passavant_proto::{
    event::Detail,
    oauth::authorize::AuthorizationRequest,
    oauth::client::{Client, GovernedResource},
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
    time::Timestamp,
    xaa::trust::{Account, ClientHost, SubjectLink, TrustedIssuer},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};
use std::collections::BTreeSet;

/// The policy as it was at one moment: no two are alike, also where a restore set the counter back. Compared for
/// equality alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Counts the changes.
    pub count: i64,
    /// Drawn at each change.
    mark: i64,
}

/// Reads both parts of the generation at once.
pub(crate) const GENERATION: &str = "SELECT held.value, mark.value FROM meta held, meta mark \
                                     WHERE held.key = 'policy' AND mark.key = 'policy_mark'";

/// One row of a person, account, link, installation or self-registered client, as it was when it was read: a decision
/// that rests on it is recorded only while it is still that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) version: i64,
}

impl Generation {
    pub(crate) fn of(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self { count: row.try_get(0)?, mark: row.try_get(1)? })
    }
}

/// A record of the directory: a JSON document with an id, and a name unique in its kind.
pub trait Record: Serialize + DeserializeOwned + Send + Sync {
    /// What it is called in the database and in messages.
    const KIND: &'static str;
    /// Unique and unchanging.
    fn id(&self) -> String;
    /// Unique; may change.
    fn name(&self) -> String {
        self.id()
    }
}

/// A person at the IdP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `sub` of tokens: opaque, never reused.
    pub id: String,
    /// What they type to sign in; NFC and lower case.
    pub username: String,
    /// Address.
    #[serde(default)]
    pub email: Option<String>,
    /// Whether the address is known to be theirs.
    #[serde(default)]
    pub email_verified: bool,
    /// What people call them.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Given name, for applications that ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    /// Family name, for applications that ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_name: Option<String>,
    /// Names of the groups they are in.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Argon2id hash (PHC string); `None`: cannot sign in with a password.
    #[serde(default)]
    pub password_hash: Option<String>,
    /// Switched off by an administrator.
    #[serde(default)]
    pub disabled: bool,
}

/// A group at the IdP. Members carry its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

macro_rules! record {
    ($type:ty, $kind:literal, |$this:ident| $id:expr $(, $name:expr)?) => {
        impl Record for $type {
            const KIND: &'static str = $kind;
            fn id(&self) -> String {
                let $this = self;
                $id
            }
            $(fn name(&self) -> String {
                let $this = self;
                $name
            })?
        }
    };
}

record!(User, "user", |user| user.id.clone(), user.username.clone());
record!(Group, "group", |group| group.name.clone());
record!(Client, "client", |client| client.id.clone());
record!(ResourceAuthorizationServer, "authorization server", |s| s.issuer.to_string());
record!(RegisteredResource, "resource", |r| r.resource.normalized().to_owned());
record!(Connection, "connection", |connection| connection.id.clone());
record!(TrustedIssuer, "trusted issuer", |trusted| trusted.issuer.to_string());
record!(ClientHost, "client host", |host| host.origin.clone());
record!(GovernedResource, "resource", |r| r.resource.normalized().to_owned());
record!(
    Account,
    "account",
    |a| a.id.clone(),
    match &a.email {
        // An account without an address is named by its id, which has no `@`.
        Some(email) => email.to_lowercase(),
        None => a.id.clone(),
    }
);

/// The account that a person of a trusted issuer is.
#[derive(Serialize, Deserialize)]
struct AccountLink {
    link: SubjectLink,
    account: String,
}
record!(AccountLink, "account link", |l| l.link.key());

/// The person who let a client in that registered itself.
#[derive(Serialize, Deserialize)]
struct LetIn {
    client: String,
    person: String,
}
record!(LetIn, "let in", |l| l.client.clone());

/// Whether a record must be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It must not exist yet.
    Create,
    /// It must exist.
    Replace,
}

impl Store {
    /// The current generation.
    pub async fn generation(&self) -> Result<Generation, StoreError> {
        let row = reading!(self, fetch_one, sqlx::query(GENERATION))?;
        Ok(Generation::of(&row)?)
    }

    /// Every record of a kind, by id, but for those that cannot be read ([`Store::unreadable`]).
    pub async fn all<R: Record>(&self) -> Result<Vec<R>, StoreError> {
        Ok(self.held::<R>().await?.records)
    }

    /// Every record of a kind, by id, and which cannot be read: for whatever would allow more if those were not there.
    pub async fn held<R: Record>(&self) -> Result<Held<R>, StoreError> {
        let sql = self.documents("kind = $1 ORDER BY id");
        let rows =
            reading!(self, fetch_all, sqlx::query(AssertSqlSafe(sql.clone())).bind(R::KIND))?;
        self.readable(&rows)
    }

    /// Selects ids and documents, these as bytes: what is no text in one row is no error of them all.
    fn documents(&self, condition: &str) -> String {
        let document = self.dialect.bytes("document");
        format!("SELECT id, {document} AS document FROM directory WHERE {condition}")
    }

    /// One record by id, and what a decision on it is recorded against.
    pub async fn seen<R: Record>(&self, id: &str) -> Result<Option<(R, Seen)>, StoreError> {
        let document = self.dialect.bytes("document");
        let sql = format!(
            "SELECT id, {document} AS document, version FROM directory WHERE kind = $1 AND id = $2"
        );
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(R::KIND).bind(id);
        let Some(row) = reading!(self, fetch_optional, query())? else { return Ok(None) };
        let version = row.try_get("version")?;
        let record = self.noted(id, rows::text_of(&row, "document")?)?;
        Ok(Some((record, Seen { kind: R::KIND, id: id.to_owned(), version })))
    }

    /// One record by id.
    pub async fn by_id<R: Record>(&self, id: &str) -> Result<Option<R>, StoreError> {
        self.find("kind = $1 AND id = $2", id).await
    }

    /// One record by name.
    pub async fn by_name<R: Record>(&self, name: &str) -> Result<Option<R>, StoreError> {
        self.find("kind = $1 AND name = $2", name).await
    }

    async fn find<R: Record>(&self, condition: &str, key: &str) -> Result<Option<R>, StoreError> {
        let sql = self.documents(condition);
        let row = reading!(
            self,
            fetch_optional,
            sqlx::query(AssertSqlSafe(sql.clone())).bind(R::KIND).bind(key)
        )?;
        row.map(|row| self.noted(row.try_get("id")?, rows::text_of(&row, "document")?)).transpose()
    }

    /// Writes a record with its audit event; `false` if it was to be replaced and is not there.
    pub async fn put<R: Record>(
        &self,
        record: &R,
        put: Put,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        if !write(&mut transaction, record, put).await? {
            return Ok(false);
        }
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }

    /// Adds a client that registered itself. It begins no new generation: no decision rests on there being none, and
    /// such clients are read as they come.
    pub async fn put_stranger(&self, client: &Client, event: AuditEvent) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        write(&mut transaction, client, Put::Create).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Notes that a person has let a client in that registered itself; `false` if they have let in `most` others
    /// already, or if it is gone.
    pub async fn let_in(
        &self,
        client: &str,
        person: &str,
        most: usize,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        let Some(mut found) = read::<Client>(&mut transaction, client).await? else {
            return Ok(false);
        };
        let Some(registered) = &mut found.registered else { return Ok(false) };
        let mine = LetIn { client: client.to_owned(), person: person.to_owned() };
        let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
            .bind(LetIn::KIND)
            .fetch_all(&mut *transaction)
            .await?;
        let mut held = 0;
        for row in &rows {
            let Ok(let_in) = document::<LetIn>(row, "document", LetIn::KIND) else { continue };
            if let_in.client == client {
                // Whoever was first counts.
                return Ok(true);
            }
            held += usize::from(let_in.person == person);
        }
        if held >= most {
            return Ok(false);
        }
        registered.used = true;
        write(&mut transaction, &found, Put::Replace).await?;
        write(&mut transaction, &mine, Put::Create).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Forgets a client that registered itself, with all it had.
    pub async fn forget_stranger(&self, id: &str, event: AuditEvent) -> Result<(), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        for kind in [Client::KIND, LetIn::KIND] {
            remove(&mut transaction, kind, id).await?;
        }
        end_client(&mut transaction, id, event.at).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// Whether a client has a refresh token that lives.
    pub async fn has_live_tokens(&self, client: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM refresh_tokens WHERE client_id = $1 AND revoked_at IS NULL \
                   AND replaced_at IS NULL AND idle_expires_at > $2 AND expires_at > $2 LIMIT 1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(client).bind(now.0))?;
        Ok(row.is_some())
    }

    /// Deletes a record; `false` if it is not there.
    ///
    /// With it goes what names it, in the same transaction, so that nobody inherits by taking its name: the
    /// connections of a client or a server, the resources of a server, the links of a trusted issuer or an account,
    /// and every code, refresh token and grant. The event says how many records went with it.
    pub async fn delete<R: Record>(&self, id: &str, event: AuditEvent) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        if !remove(&mut transaction, R::KIND, id).await? {
            return Ok(false);
        }
        let with_it = delete_what_names(&mut transaction, R::KIND, id, event.at).await?;
        let event =
            if with_it > 0 { event.with(Detail::WithIt, with_it.to_string()) } else { event };
        self.commit_directory(transaction, checked, event).await?;
        self.unreadable.forget(R::KIND, id);
        Ok(true)
    }

    /// Takes an account away from a person of a trusted issuer; `false` if they are not linked.
    pub async fn unlink(&self, link: &SubjectLink, event: AuditEvent) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        if !remove(&mut transaction, AccountLink::KIND, &link.key()).await? {
            return Ok(false);
        }
        self.commit_directory(transaction, checked, event).await?;
        self.unreadable.forget(AccountLink::KIND, &link.key());
        Ok(true)
    }

    /// The people that an account is linked to.
    pub async fn links(&self, account: &str) -> Result<Vec<SubjectLink>, StoreError> {
        let document = self.dialect.bytes("held.document");
        let sql = format!(
            "SELECT held.id, {document} AS document FROM account_links link \
             JOIN directory held ON held.kind = '{}' AND held.id = link.id \
             WHERE link.account = $1 ORDER BY held.id",
            AccountLink::KIND
        );
        let rows =
            reading!(self, fetch_all, sqlx::query(AssertSqlSafe(sql.clone())).bind(account))?;
        let mut links = Vec::with_capacity(rows.len());
        for row in &rows {
            let held =
                self.noted::<AccountLink>(row.try_get("id")?, rows::text_of(row, "document")?);
            links.extend(held.ok().filter(|held| held.account == account).map(|held| held.link));
        }
        Ok(links)
    }

    /// Reads a record, changes it and writes it, in one transaction; the record as it is then, or
    /// `None` if it is not there.
    pub async fn update<R: Record>(
        &self,
        id: &str,
        change: impl FnOnce(&mut R) + Send,
        event: AuditEvent,
    ) -> Result<Option<R>, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(mut record) = read::<R>(&mut transaction, id).await? else { return Ok(None) };
        change(&mut record);
        write(&mut transaction, &record, Put::Replace).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(Some(record))
    }

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
        self.commit_directory(transaction, checked, event).await?;
        self.unreadable.forget(User::KIND, id);
        Ok(true)
    }

    /// The id of the record that has this id or this name, whether or not it can be read.
    pub async fn id_of<R: Record>(
        &self,
        id: &str,
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        // The id first: another record may be called so.
        let sql = "SELECT id FROM directory WHERE kind = $1 AND (id = $2 OR name = $3) \
                   ORDER BY CASE WHEN id = $2 THEN 0 ELSE 1 END LIMIT 1";
        let row =
            reading!(self, fetch_optional, sqlx::query(sql).bind(R::KIND).bind(id).bind(name))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
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
                       WHERE member.group_name = $2";
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
                Err(_) => leave_group(&mut transaction, row, name).await?,
            }
        }
        // A later group of this name gets nothing by it. A connection for nobody else is for nobody now.
        let mut named_it = Vec::new();
        let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
            .bind(Connection::KIND)
            .fetch_all(&mut *transaction)
            .await?;
        let named = Subject::Group(name.to_owned());
        for row in &rows {
            let Ok(mut connection) = document::<Connection>(row, "document", Connection::KIND)
            else {
                remove_if_it_names(&mut transaction, Connection::KIND, row, name).await?;
                continue;
            };
            let before = connection.subjects.len();
            connection.subjects.retain(|subject| *subject != named);
            if connection.subjects.len() < before {
                write(&mut transaction, &connection, Put::Replace).await?;
                named_it.push(connection.id);
            }
        }
        let event = event.with(Detail::Connections, named_it.join(" "));
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }

    /// The account of a person of a trusted issuer, if they are linked, and what a decision on it is recorded against.
    /// An error where somebody is linked, and to whom cannot be read.
    pub async fn linked_account(
        &self,
        link: &SubjectLink,
    ) -> Result<Option<(Account, [Seen; 2])>, StoreError> {
        let Some((found, link)) = self.seen::<AccountLink>(&link.key()).await? else {
            return Ok(None);
        };
        let account = self.seen::<Account>(&found.account).await?;
        Ok(account.map(|(account, seen)| (account, [link, seen])))
    }

    /// Links a person to an account, creating it if `account` is not there yet; of several at once
    /// one wins, and all get its account. `None` if the link leads to an account that is gone.
    pub async fn link_account(
        &self,
        link: &SubjectLink,
        account: &Account,
        event: AuditEvent,
    ) -> Result<Option<Account>, StoreError> {
        // It takes nothing away: others' mints do not wait for it.
        let mut transaction = self.begin().await?;
        let wanted = AccountLink { link: link.clone(), account: account.id.clone() };
        let insert = "INSERT INTO directory (kind, id, name, document) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT DO NOTHING";
        let linked = sqlx::query(insert)
            .bind(AccountLink::KIND)
            .bind(wanted.id())
            .bind(wanted.name())
            .bind(to_json(&wanted, AccountLink::KIND)?)
            .execute(&mut *transaction)
            .await?;
        if linked.rows_affected() == 1 {
            let made = sqlx::query(insert)
                .bind(Account::KIND)
                .bind(account.id())
                .bind(account.name())
                .bind(to_json(account, Account::KIND)?)
                .execute(&mut *transaction)
                .await?;
            let there = sqlx::query("SELECT id FROM directory WHERE kind = $1 AND id = $2")
                .bind(Account::KIND)
                .bind(account.id())
                .fetch_optional(&mut *transaction)
                .await?;
            if made.rows_affected() == 0 && there.is_none() {
                // Its name is another account's: nothing is linked, nothing is written.
                return Ok(None);
            }
            hot_path::insert_audit(&mut transaction, &[event]).await?;
            transaction.commit().await?;
        }
        Ok(self.linked_account(link).await?.map(|(account, _)| account))
    }

    /// Commits a change of the directory. Nodes of earlier versions have one generation for everything in it, and nothing
    /// else: for them it changes with each. What changes for this version, the database does by itself.
    pub(crate) async fn commit_directory(
        &self,
        mut transaction: Transaction<'static, Any>,
        _: Checked,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            .execute(&mut *transaction)
            .await?;
        let random = self.dialect.random();
        let mark = format!("UPDATE meta SET value = {random} WHERE key = 'generation_mark'");
        sqlx::query(AssertSqlSafe(mark)).execute(&mut *transaction).await?;
        hot_path::insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }
}

pub(crate) async fn remove(
    transaction: &mut Transaction<'static, Any>,
    kind: &str,
    id: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM directory WHERE kind = $1 AND id = $2")
        .bind(kind)
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends what a person had.
async fn end_user(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    installations: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let all = [
        "UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL",
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
        "UPDATE installations SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
    ];
    for statement in &all[..if installations { 3 } else { 2 }] {
        sqlx::query(*statement).bind(id).bind(now.0).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Ends what a client had: codes, pushed requests, refresh tokens, tokens on record.
async fn end_client(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE refresh_tokens SET revoked_at = $2 WHERE client_id = $1 AND revoked_at IS NULL",
        "UPDATE pushed_requests SET used_at = $2 WHERE client_id = $1 AND used_at IS NULL",
        "UPDATE device_codes SET used_at = $2 WHERE client_id = $1 AND used_at IS NULL",
        "UPDATE grants SET revoked_at = $2 WHERE client_id = $1 AND revoked_at IS NULL",
    ] {
        sqlx::query(statement).bind(id).bind(now.0).execute(&mut **transaction).await?;
    }
    // A code says in its document whose it is.
    let sql =
        "SELECT hash, document FROM authorization_codes WHERE used_at IS NULL AND expires_at > $1";
    let codes = sqlx::query(sql).bind(now.0).fetch_all(&mut **transaction).await?;
    for row in &codes {
        // A code that cannot be read is nobody's: it ends too.
        let request = document::<AuthorizationRequest>(row, "document", "authorization code");
        if request.map_or(true, |request| request.client_id == id) {
            let hash: String = row.try_get("hash")?;
            sqlx::query("UPDATE authorization_codes SET used_at = $2 WHERE hash = $1")
                .bind(hash)
                .bind(now.0)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Deletes what names a record that is deleted, and ends what it had; how many records that were.
async fn delete_what_names(
    transaction: &mut Transaction<'static, Any>,
    kind: &str,
    id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut gone = 0;
    if kind == Client::KIND {
        end_client(transaction, id, now).await?;
        remove(transaction, LetIn::KIND, id).await?;
        gone += remove_where::<Connection>(transaction, id, |c| c.idp_client_id == id).await?;
    } else if kind == ResourceAuthorizationServer::KIND {
        gone += remove_where::<Connection>(transaction, id, |c| c.audience.as_str() == id).await?;
        let of_it = |r: &RegisteredResource| r.authorization_server.as_str() == id;
        gone += remove_where::<RegisteredResource>(transaction, id, of_it).await?;
    } else if kind == TrustedIssuer::KIND {
        gone += remove_links(transaction, "issuer", id).await?;
        let end = "UPDATE grants SET revoked_at = $2 WHERE party = $1 AND revoked_at IS NULL";
        sqlx::query(end).bind(id).bind(now.0).execute(&mut **transaction).await?;
    } else if kind == Account::KIND {
        gone += remove_links(transaction, "account", id).await?;
        for statement in [
            "UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL",
            "UPDATE refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
            "UPDATE grants SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL",
        ] {
            sqlx::query(statement).bind(id).bind(now.0).execute(&mut **transaction).await?;
        }
    }
    Ok(gone)
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

/// Deletes the links that name an issuer or an account, whether or not they can be read.
async fn remove_links(
    transaction: &mut Transaction<'static, Any>,
    column: &'static str,
    named: &str,
) -> Result<usize, StoreError> {
    let sql = format!(
        "DELETE FROM directory WHERE kind = $1 AND id IN \
         (SELECT id FROM account_links WHERE {column} = $2)"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(AccountLink::KIND).bind(named);
    let gone = done.execute(&mut **transaction).await?.rows_affected();
    Ok(usize::try_from(gone).unwrap_or(usize::MAX))
}

/// Deletes a record that cannot be read where the text `named` is anywhere in it: nobody is to inherit by a name, also
/// when it can be read again one day.
async fn remove_if_it_names(
    transaction: &mut Transaction<'static, Any>,
    kind: &str,
    row: &AnyRow,
    named: &str,
) -> Result<bool, StoreError> {
    let (id, text): (&str, &str) = (row.try_get("id")?, row.try_get("document")?);
    if !rows::may_name(text, named) {
        return Ok(false);
    }
    remove(transaction, kind, id).await
}

async fn remove_where<R: Record>(
    transaction: &mut Transaction<'static, Any>,
    named: &str,
    names: impl Fn(&R) -> bool + Send,
) -> Result<usize, StoreError> {
    let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
        .bind(R::KIND)
        .fetch_all(&mut **transaction)
        .await?;
    let mut gone = 0;
    for row in &rows {
        let Ok(record) = document::<R>(row, "document", R::KIND) else {
            gone += usize::from(remove_if_it_names(transaction, R::KIND, row, named).await?);
            continue;
        };
        if names(&record) {
            gone += usize::from(remove(transaction, R::KIND, &record.id()).await?);
        }
    }
    Ok(gone)
}

pub(crate) async fn read<R: Record>(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
) -> Result<Option<R>, StoreError> {
    let row = sqlx::query("SELECT document FROM directory WHERE kind = $1 AND id = $2")
        .bind(R::KIND)
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| document(&row, "document", R::KIND)).transpose()
}

pub(crate) async fn write<R: Record>(
    transaction: &mut Transaction<'static, Any>,
    record: &R,
    put: Put,
) -> Result<bool, StoreError> {
    let document = match put {
        Put::Create => to_json(record, R::KIND)?,
        Put::Replace => {
            let sql = "SELECT document FROM directory WHERE kind = $1 AND id = $2";
            let row = sqlx::query(sql).bind(R::KIND).bind(record.id());
            let Some(row) = row.fetch_optional(&mut **transaction).await? else { return Ok(false) };
            rows::replacing(record, row.try_get("document")?)?
        }
    };
    let statement = match put {
        Put::Create => "INSERT INTO directory (kind, id, name, document) VALUES ($1, $2, $3, $4)",
        Put::Replace => "UPDATE directory SET name = $3, document = $4 WHERE kind = $1 AND id = $2",
    };
    let done = sqlx::query(statement)
        .bind(R::KIND)
        .bind(record.id())
        .bind(record.name())
        .bind(document)
        .execute(&mut **transaction)
        .await;
    match done {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(error)
            if error
                .as_database_error()
                .is_some_and(sqlx::error::DatabaseError::is_unique_violation) =>
        {
            Err(StoreError::NameTaken { kind: R::KIND, name: record.name() })
        }
        Err(error) => Err(error.into()),
    }
}
