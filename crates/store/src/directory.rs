//! The administrators' records: users, groups, clients, resources, connections, trusted issuers.
//! One generation covers the policy, which is everything except people and self-registered clients;
//! each row of a person has its own version. The database changes generation and version in the
//! transaction that changes the row. Every mint is recorded against the generation and the versions
//! that it was decided on, so no decision outlives the records it rests on, and a change of one
//! person makes no other person's decision stale.

use crate::{
    database::{Store, StoreError, escaped, reading},
    people::User,
    record::Record,
    rows::{self, Readings, to_json},
};
use passavant_proto::secret::sha256;
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

/// The policy as it was at one moment. No two are equal, even if a restore set the counter back.
/// Compared only for equality.
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

/// One row of a person, account, link, installation or self-registered client, as it was when it
/// was read. A decision that rests on it is recorded only while the row is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) version: i64,
}

/// Maximum number of records of one page.
pub(crate) const MOST_OF_A_PAGE: i64 = 1000;

/// Selects records of a kind.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Only records after this id.
    pub after: String,
    /// Only records whose id or name contains this, or whose e-mail address or display name does.
    pub search: String,
    /// Maximum number, 1 to 1000.
    pub limit: i64,
}

/// A page of records of a kind.
#[derive(Debug)]
pub struct Page<R> {
    /// The records that can be read.
    pub records: Vec<R>,
    /// The ids of those that cannot be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// The id after which the next page begins; `None` on the last page.
    pub next: Option<String>,
}

/// A tag that differs for every state of a record.
pub(crate) fn tag_of(document: &str) -> String {
    sha256(document.as_bytes())
}

impl Generation {
    pub(crate) fn of(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self { count: row.try_get(0)?, mark: row.try_get(1)? })
    }
}

/// Whether a record must be new or must exist.
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

    /// Every record of a kind by id, except those that cannot be read ([`Store::unreadable`]).
    pub async fn all<R: Record>(&self) -> Result<Vec<R>, StoreError> {
        Ok(self.readings::<R>().await?.records)
    }

    /// Every record of a kind by id, and which ones cannot be read: for callers that would allow
    /// more if the unreadable ones were missing.
    pub async fn readings<R: Record>(&self) -> Result<Readings<R>, StoreError> {
        let sql = self.documents("kind = $1 ORDER BY id");
        let rows =
            reading!(self, fetch_all, sqlx::query(AssertSqlSafe(sql.clone())).bind(R::KIND))?;
        self.readable(&rows)
    }

    /// Selects ids and documents. Documents come as bytes, so that invalid text in one row does not
    /// fail the whole query.
    fn documents(&self, condition: &str) -> String {
        let document = self.dialect.bytes("document");
        format!("SELECT id, {document} AS document FROM directory WHERE {condition}")
    }

    /// One record by id, and the row version that a decision on it is recorded against.
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

    /// One record by id, and its current tag, which differs after any change.
    pub async fn tagged<R: Record>(&self, id: &str) -> Result<Option<(R, String)>, StoreError> {
        let sql = self.documents("kind = $1 AND id = $2");
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(R::KIND).bind(id);
        let Some(row) = reading!(self, fetch_optional, query())? else { return Ok(None) };
        let text = rows::text_of(&row, "document")?;
        Ok(Some((self.noted(row.try_get("id")?, text)?, tag_of(text))))
    }

    /// One page of the records of a kind, by id.
    pub async fn page<R: Record>(&self, wanted: &Wanted) -> Result<Page<R>, StoreError> {
        let limit = wanted.limit.clamp(1, MOST_OF_A_PAGE);
        let fits = |column: &str| format!("LOWER({column}) LIKE $3 ESCAPE '!'");
        let mut found = format!("{} OR {}", fits("id"), fits("name"));
        if R::KIND == User::KIND {
            // People are known by more than the name that they sign in with.
            let (email, called) = (fits("person.email"), fits("person.display_name"));
            found.push_str(&format!(
                " OR id IN (SELECT person.id FROM people person WHERE {email} OR {called})"
            ));
        }
        let sql =
            self.documents(&format!("kind = $1 AND id > $2 AND ({found}) ORDER BY id LIMIT $4"));
        let like = format!("%{}%", escaped(&wanted.search.to_lowercase()));
        let query = || {
            sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(R::KIND)
                .bind(wanted.after.as_str())
                .bind(like.as_str())
                .bind(limit + 1)
        };
        let mut rows = reading!(self, fetch_all, query())?;
        let more = i64::try_from(rows.len()).is_ok_and(|found| found > limit);
        if more {
            rows.pop();
        }
        let next = match rows.last() {
            Some(last) if more => Some(last.try_get("id")?),
            _ => None,
        };
        let (mut records, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            let (id, text): (&str, &str) = (row.try_get("id")?, rows::text_of(row, "document")?);
            match self.noted::<R>(id, text) {
                Ok(record) => records.push(record),
                Err(error) => unreadable.push((id.to_owned(), error.to_string())),
            }
        }
        Ok(Page { records, unreadable, next })
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

    /// The id of the record with this id or this name, whether or not it can be read.
    pub async fn id_of<R: Record>(
        &self,
        id: &str,
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        // The id takes precedence, because another record may have it as a name.
        let sql = "SELECT id FROM directory WHERE kind = $1 AND (id = $2 OR name = $3) \
                   ORDER BY CASE WHEN id = $2 THEN 0 ELSE 1 END LIMIT 1";
        let row =
            reading!(self, fetch_optional, sqlx::query(sql).bind(R::KIND).bind(id).bind(name))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
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

/// Deletes a record that cannot be read if its text contains `named` anywhere, so that a later
/// record of that name inherits nothing, even if the deleted one became readable one day.
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

pub(crate) async fn remove_where<R: Record>(
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
        let Ok(record) = rows::record::<R>(row) else {
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
    let row = sqlx::query("SELECT id, document FROM directory WHERE kind = $1 AND id = $2")
        .bind(R::KIND)
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| rows::record(&row)).transpose()
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
            rows::replacing(record, row.try_get("document")?, R::KIND)?
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
