//! What administrators say: users, groups, clients, resources, connections, trusted issuers. Policy (all but people, and
//! what strangers registered) is under one generation, and each row of a person has a version of its own; the database
//! changes either with the row, in its transaction. Every mint is recorded against the generation and the versions that
//! it was decided on, so no decision outlives the records it rests on, and a change of one person stales nobody else's.

use crate::{
    administrators::Checked,
    database::{Store, StoreError, document, reading, to_json},
    ledger::{AuditEvent, insert_audit},
    people::{LetIn, remove_links},
    rows::{self, Held},
};
use passavant_proto::{
    event::Detail,
    oauth::authorize::AuthorizationRequest,
    oauth::client::{Client, GovernedResource},
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer},
    time::Timestamp,
    xaa::trust::{Account, ClientHost, TrustedIssuer},
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

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
pub(crate) use record;

record!(Client, "client", |client| client.id.clone());
record!(ResourceAuthorizationServer, "authorization server", |s| s.issuer.to_string());
record!(RegisteredResource, "resource", |r| r.resource.normalized().to_owned());
record!(Connection, "connection", |connection| connection.id.clone());
record!(TrustedIssuer, "trusted issuer", |trusted| trusted.issuer.to_string());
record!(ClientHost, "client host", |host| host.origin.clone());
record!(GovernedResource, "resource", |r| r.resource.normalized().to_owned());

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
        insert_audit(&mut transaction, &[event]).await?;
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

/// Ends what a client had: codes, pushed requests, refresh tokens, tokens on record.
pub(crate) async fn end_client(
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

/// Deletes a record that cannot be read where the text `named` is anywhere in it: nobody is to inherit by a name, also
/// when it can be read again one day.
pub(crate) async fn remove_if_it_names(
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
