//! The audit trail: one row for each decision, written in the transaction of what it records.

use super::statements::{bind, chunks, rows};
use crate::{
    administrators::{RestsOn, Terms},
    database::{Store, StoreError, escaped, reading},
    rows::{details_of_row, details_row},
};
use passavant_proto::{
    event::{Detail, Event},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyArguments};
use std::{borrow::Borrow, collections::BTreeMap};

/// How a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was granted or done.
    Granted,
    /// A rule refused it.
    Refused,
}

impl Outcome {
    /// The stored word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
        }
    }
}

/// One decision. Never contains a token, a code, a password or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// What was requested, or done.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
    /// User id or account id; empty when not known.
    pub person: String,
    /// Client id at this authorization server; empty when not known.
    pub client: String,
    /// Everything else, by name.
    pub details: BTreeMap<Detail, String>,
    /// The administrator whose act this is. It is done only if they are still as they were when
    /// their request was authenticated.
    #[serde(skip)]
    pub rests_on: Option<RestsOn>,
    /// Further terms that such an act depends on.
    #[serde(skip)]
    pub terms: Option<Box<Terms>>,
}

impl AuditEvent {
    /// A granted event.
    pub fn granted(event: impl Into<Event>, at: Timestamp) -> Self {
        Self {
            at,
            event: event.into(),
            outcome: Outcome::Granted,
            person: String::new(),
            client: String::new(),
            details: BTreeMap::new(),
            rests_on: None,
            terms: None,
        }
    }

    /// The person it concerns.
    #[must_use]
    pub fn person(mut self, id: impl Into<String>) -> Self {
        self.person = id.into();
        self
    }

    /// Adds a detail to an event in progress; an empty value is left out.
    pub fn note(&mut self, name: Detail, value: impl Into<String>) {
        let value = value.into();
        debug_assert!(
            self.event.details().contains(&name),
            "`{}` says no `{}`: see `RequestEvent::details`",
            self.event.word(),
            name.word()
        );
        if !value.is_empty() {
            self.details.insert(name, value);
        }
    }

    /// The client it concerns.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>) -> Self {
        self.client = id.into();
        self
    }

    /// Adds a detail; an empty value is left out.
    #[must_use]
    pub fn with(mut self, name: Detail, value: impl Into<String>) -> Self {
        self.note(name, value);
        self
    }

    /// The same request, refused for `reason`.
    #[must_use]
    pub fn refused(mut self, reason: impl Into<String>) -> Self {
        self.outcome = Outcome::Refused;
        // The grant that this would have named was never issued.
        self.details.remove(&Detail::Jti);
        self.with(Detail::Reason, reason)
    }
}

pub(crate) async fn insert_audit<E: Borrow<AuditEvent> + Sync>(
    transaction: &mut Transaction<'static, Any>,
    events: &[E],
) -> Result<(), StoreError> {
    for chunk in chunks(events) {
        let mut arguments = AnyArguments::default();
        for event in chunk {
            let event = event.borrow();
            bind(&mut arguments, event.at.0)?;
            bind(&mut arguments, event.event.word().into_owned())?;
            bind(&mut arguments, event.outcome.word())?;
            bind(&mut arguments, event.person.as_str())?;
            bind(&mut arguments, event.client.as_str())?;
            bind(&mut arguments, details_row(&event.details)?)?;
        }
        let sql = format!(
            "INSERT INTO audit (at, event, outcome, person, client, document) VALUES {}",
            rows(chunk.len(), 6)
        );
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// A row of the trail as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Position in the trail.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What was requested.
    pub event: String,
    /// `granted` or `refused`.
    pub outcome: String,
    /// User id or account id.
    pub person: String,
    /// Client id.
    pub client: String,
    /// Everything else by name.
    pub details: BTreeMap<String, String>,
}

/// Selects rows to read, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only this person's.
    pub person: Option<String>,
    /// Only this client's.
    pub client: Option<String>,
    /// Only `granted` or `refused`.
    pub outcome: Option<Outcome>,
    /// Only these events, by name; a name that ends in a dot selects all events that begin with it.
    pub event: Option<String>,
    /// Only acts of this administrator.
    pub by: Option<String>,
    /// Only rows before this id.
    pub before: Option<i64>,
    /// Maximum number, 1 to 1000.
    pub limit: i64,
}

impl Store {
    /// Reads the trail, newest first.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let mut sql = String::from(
            "SELECT id, at, event, outcome, person, client, document FROM audit WHERE id < $1",
        );
        let texts = [
            ("person", filter.person.clone()),
            ("client", filter.client.clone()),
            ("outcome", filter.outcome.map(|o| o.word().to_owned())),
        ];
        let mut place = 2;
        for (column, value) in &texts {
            if value.is_some() {
                sql.push_str(&format!(" AND {column} = ${place}"));
                place += 1;
            }
        }
        if filter.event.is_some() {
            sql.push_str(&format!(
                " AND (event = ${place} OR event LIKE ${} ESCAPE '!')",
                place + 1
            ));
            place += 2;
        }
        if filter.by.is_some() {
            // Administrators' names contain no character that JSON escapes.
            sql.push_str(&format!(" AND document LIKE ${place} ESCAPE '!'"));
            place += 1;
        }
        sql.push_str(&format!(" ORDER BY id DESC LIMIT ${place}"));
        let query = || {
            let mut query =
                sqlx::query(AssertSqlSafe(sql.clone())).bind(filter.before.unwrap_or(i64::MAX));
            for value in texts.iter().filter_map(|(_, value)| value.clone()) {
                query = query.bind(value);
            }
            if let Some(event) = &filter.event {
                let begins =
                    if event.ends_with('.') { escaped(event) + "%" } else { escaped(event) };
                query = query.bind(event.clone()).bind(begins);
            }
            if let Some(by) = &filter.by {
                query = query.bind(format!("%{}%", escaped(&format!("\"by\":\"{by}\""))));
            }
            query.bind(filter.limit.clamp(1, 1000))
        };
        let rows = reading!(self, fetch_all, query())?;
        rows.iter()
            .map(|row| {
                Ok(AuditRow {
                    id: row.try_get("id")?,
                    at: Timestamp(row.try_get("at")?),
                    event: row.try_get("event")?,
                    outcome: row.try_get("outcome")?,
                    person: row.try_get("person")?,
                    client: row.try_get("client")?,
                    details: details_of_row(row.try_get("document")?),
                })
            })
            .collect()
    }
}
