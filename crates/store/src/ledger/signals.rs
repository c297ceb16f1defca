//! What other parties are told of people while they are signed in (OpenID Shared Signals Framework): who
//! listens, and what each has not been told yet. The database writes an event with the change that it
//! tells of; a node that holds a stream delivers its events in their order.

use super::audit::{AuditEvent, insert_audit};
use crate::{
    database::{Store, StoreError, reading},
    directory::read,
};
use passavant_proto::{
    event::Detail,
    oauth::client::Client,
    oidc::authentication::{Authentication, reaches},
    ssf::{EventType, StreamStatus},
    time::Timestamp,
};
use serde_json::{Value, json};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};

/// Most events that wait for one stream; of more, the oldest go.
const MOST_WAITING: i64 = 100_000;

/// A party that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalStream {
    /// Its id.
    pub id: String,
    /// The client that listens: one stream each.
    pub client_id: String,
    /// Which events it wants.
    pub events: Vec<EventType>,
    /// Where they are posted; `None`: they are fetched.
    pub endpoint_url: Option<String>,
    /// The `Authorization` header that goes with them, sealed.
    pub sealed: Option<String>,
    /// What the client calls it.
    pub description: String,
    /// Whether events are delivered.
    pub status: StreamStatus,
    /// Why not; empty if nobody said.
    pub reason: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// How often the first event that waits was tried.
    pub tries: i64,
    /// Since when the listener takes nothing; 0 if it does.
    pub failing_since: Timestamp,
    /// Why it took nothing.
    pub failure: String,
    /// How often it was changed: what is written rests on it.
    pub version: i64,
    /// How often it was held: what is written after a delivery rests on it.
    pub holds: i64,
}

/// An event that somebody is to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// `jti` of its token, however often it is delivered.
    pub jti: String,
    /// The event, by its word; one of a later version is not known here.
    pub event: String,
    /// Whom it is about; empty for one about the stream.
    pub user_id: String,
    /// What it says, as a JSON object.
    pub facts: String,
    /// Whether the person had signed in to the listener then.
    pub known: bool,
    /// When it happened.
    pub made_at: Timestamp,
}

/// How many events wait for a stream, and since when the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: i64,
    /// Since when.
    pub since: Option<Timestamp>,
}

const STREAM: &str = "id, client_id, events, endpoint_url, sealed, description, status, reason, \
                      created_at, tries, failing_since, failure, version, holds";

fn stream_of(row: &AnyRow) -> Result<SignalStream, StoreError> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let (events, status): (String, String) = (row.try_get("events")?, row.try_get("status")?);
    Ok(SignalStream {
        id: row.try_get("id")?,
        client_id: row.try_get("client_id")?,
        events: events.split(' ').filter_map(EventType::of_word).collect(),
        endpoint_url: some(row.try_get("endpoint_url")?),
        sealed: some(row.try_get("sealed")?),
        description: row.try_get("description")?,
        // What a later version may write is not delivered here.
        status: StreamStatus::of_word(&status).unwrap_or(StreamStatus::Paused),
        reason: row.try_get("reason")?,
        created_at: Timestamp(row.try_get("created_at")?),
        tries: row.try_get("tries")?,
        failing_since: Timestamp(row.try_get("failing_since")?),
        failure: row.try_get("failure")?,
        version: row.try_get("version")?,
        holds: row.try_get("holds")?,
    })
}

fn signal_of(row: &AnyRow) -> Result<Signal, StoreError> {
    Ok(Signal {
        jti: row.try_get("jti")?,
        event: row.try_get("event")?,
        user_id: row.try_get("user_id")?,
        facts: row.try_get("facts")?,
        known: row.try_get::<i64, _>("known")? > 0,
        made_at: Timestamp(row.try_get("made_at")?),
    })
}

fn words(events: &[EventType]) -> String {
    events.iter().map(|event| event.word()).collect::<Vec<_>>().join(" ")
}

/// Writes an event; one that is there stays.
async fn insert(
    transaction: &mut Transaction<'static, Any>,
    stream: &str,
    signal: &Signal,
) -> Result<(), StoreError> {
    let add = "INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    sqlx::query(add)
        .bind(signal.jti.as_str())
        .bind(stream)
        .bind(signal.event.as_str())
        .bind(signal.user_id.as_str())
        .bind(signal.facts.as_str())
        .bind(i64::from(signal.known))
        .bind(signal.made_at.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Tells who listens that all sessions of a person were revoked, in place of each of them.
pub(crate) async fn all_sessions_revoked(
    transaction: &mut Transaction<'static, Any>,
    user_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let each = "DELETE FROM signals WHERE event = 'session-revoked' AND user_id = $1 AND made_at = $2 \
                AND facts <> '{}'";
    sqlx::query(each).bind(user_id).bind(now.0).execute(&mut **transaction).await?;
    let event = EventType::SessionRevoked;
    insert_for_all(transaction, (event, user_id), &json!({}), now).await
}

/// Tells who listens that a person has signed in by a stronger class than before, in the same browser.
pub(crate) async fn assurance_rose(
    transaction: &mut Transaction<'static, Any>,
    (user_id, sid): (&str, &str),
    (before, now_is): (&Authentication, &Authentication),
) -> Result<(), StoreError> {
    if before.acr == now_is.acr || !reaches(&now_is.acr, &before.acr) {
        return Ok(());
    }
    let facts = json!({"session": sid, "namespace": "acr", "current_level": now_is.acr,
        "previous_level": before.acr, "change_direction": "increase"});
    let event = EventType::AssuranceLevelChange;
    insert_for_all(transaction, (event, user_id), &facts, now_is.auth_time).await
}

/// Writes an event about a person for whoever listens.
async fn insert_for_all(
    transaction: &mut Transaction<'static, Any>,
    (event, user_id): (EventType, &str),
    facts: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let streams = "SELECT id, CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($3 AS TEXT), \
                   (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = $1 \
                   AND k.client_id = signal_streams.client_id), CAST($4 AS BIGINT) \
                   FROM signal_streams WHERE status <> 'disabled'";
    let sql =
        format!("INSERT INTO signals (stream, event, user_id, facts, known, made_at) {streams}");
    sqlx::query(AssertSqlSafe(sql))
        .bind(user_id)
        .bind(event.word())
        .bind(facts.to_string())
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Ends the stream of a client that is gone.
pub(crate) async fn end_streams(
    transaction: &mut Transaction<'static, Any>,
    client_id: &str,
) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM signals WHERE stream IN (SELECT id FROM signal_streams WHERE client_id = $1)",
        "DELETE FROM signal_streams WHERE client_id = $1",
        "DELETE FROM known_to_client WHERE client_id = $1",
    ] {
        sqlx::query(sql).bind(client_id).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Whether a client may listen, as of this transaction.
async fn may_listen(
    transaction: &mut Transaction<'static, Any>,
    client_id: &str,
) -> Result<bool, StoreError> {
    let client = read::<Client>(transaction, client_id).await?;
    Ok(client.is_some_and(|client| !client.disabled && client.signals.is_some()))
}

impl Store {
    /// Makes a stream; `false` if its client has one, or may not listen any more.
    pub async fn create_stream(
        &self,
        stream: &SignalStream,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if !may_listen(&mut transaction, &stream.client_id).await? {
            return Ok(false);
        }
        let add = "INSERT INTO signal_streams (id, client_id, events, endpoint_url, sealed, \
                   description, status, reason, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                   ON CONFLICT (client_id) DO NOTHING";
        let added = sqlx::query(add)
            .bind(stream.id.as_str())
            .bind(stream.client_id.as_str())
            .bind(words(&stream.events))
            .bind(stream.endpoint_url.as_deref().unwrap_or_default())
            .bind(stream.sealed.as_deref().unwrap_or_default())
            .bind(stream.description.as_str())
            .bind(stream.status.word())
            .bind(stream.reason.as_str())
            .bind(stream.created_at.0)
            .execute(&mut *transaction)
            .await?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The stream of a client.
    pub async fn stream_of(&self, client_id: &str) -> Result<Option<SignalStream>, StoreError> {
        let sql = format!("SELECT {STREAM} FROM signal_streams WHERE client_id = $1");
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(client_id);
        reading!(self, fetch_optional, query())?.map(|row| stream_of(&row)).transpose()
    }

    /// All streams, and what waits for each.
    pub async fn streams(&self) -> Result<Vec<(SignalStream, Waiting)>, StoreError> {
        let sql = format!(
            "SELECT {STREAM}, (SELECT COUNT(*) FROM signals WHERE stream = signal_streams.id) AS waiting, \
             (SELECT MIN(made_at) FROM signals WHERE stream = signal_streams.id) AS since \
             FROM signal_streams ORDER BY client_id LIMIT 1000"
        );
        let rows = reading!(self, fetch_all, sqlx::query(AssertSqlSafe(sql.clone())))?;
        let read = |row: &AnyRow| {
            let since = row.try_get::<Option<i64>, _>("since")?.map(Timestamp);
            Ok((stream_of(row)?, Waiting { count: row.try_get("waiting")?, since }))
        };
        rows.iter().map(read).collect()
    }

    /// Changes what a listener said of its stream, and its status. `false` if it is not there as it was
    /// read, or its client may not listen any more.
    pub async fn change_stream(
        &self,
        stream: &SignalStream,
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if !may_listen(&mut transaction, &stream.client_id).await? {
            return Ok(false);
        }
        // What was put off is tried by the new word, and whoever delivers by the old one writes nothing.
        let change = "UPDATE signal_streams SET events = $2, endpoint_url = $3, sealed = $4, \
                      description = $5, status = $6, reason = $7, next_at = 0, tries = 0, \
                      failing_since = 0, failure = '', held_until = 0, holds = holds + 1, \
                      version = version + 1 WHERE id = $1 AND version = $8";
        let changed = sqlx::query(change)
            .bind(stream.id.as_str())
            .bind(words(&stream.events))
            .bind(stream.endpoint_url.as_deref().unwrap_or_default())
            .bind(stream.sealed.as_deref().unwrap_or_default())
            .bind(stream.description.as_str())
            .bind(stream.status.word())
            .bind(stream.reason.as_str())
            .bind(stream.version)
            .execute(&mut *transaction)
            .await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        if stream.status == StreamStatus::Disabled {
            sqlx::query("DELETE FROM signals WHERE stream = $1")
                .bind(stream.id.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Deletes a client's stream with all that waits; `false` if there is none of this id.
    pub async fn delete_stream(
        &self,
        (client_id, id): (&str, &str),
        event: AuditEvent,
    ) -> Result<bool, StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        let gone = sqlx::query("DELETE FROM signal_streams WHERE id = $1 AND client_id = $2")
            .bind(id)
            .bind(client_id)
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM signals WHERE stream = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Writes a verification event; `false` if one was asked for since `before`.
    pub async fn verify_stream(
        &self,
        id: &str,
        signal: &Signal,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_plain().await?;
        let ask = "UPDATE signal_streams SET asked_at = $2 WHERE id = $1 AND asked_at <= $3";
        let asked = sqlx::query(ask).bind(id).bind(signal.made_at.0).bind(before.0);
        if asked.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        insert(&mut transaction, id, signal).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The streams that events are to be posted to now.
    pub async fn due_streams(&self, now: Timestamp) -> Result<Vec<SignalStream>, StoreError> {
        let sql = format!(
            "SELECT {STREAM} FROM signal_streams WHERE status = 'enabled' AND endpoint_url <> '' \
             AND next_at <= $1 AND held_until <= $1 \
             AND EXISTS (SELECT 1 FROM signals WHERE stream = signal_streams.id)"
        );
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(now.0);
        let rows = reading!(self, fetch_all, query())?;
        rows.iter().map(stream_of).collect()
    }

    /// Holds a stream: no other node delivers its events before `until`. The stream as it is held; `None` if
    /// another one holds it, or if it is not to be delivered any more.
    pub async fn hold_stream(
        &self,
        id: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<SignalStream>, StoreError> {
        let mut transaction = self.begin_plain().await?;
        let hold = "UPDATE signal_streams SET held_until = $3, holds = holds + 1 \
                    WHERE id = $1 AND held_until <= $2 AND next_at <= $2 AND status = 'enabled'";
        let held = sqlx::query(hold).bind(id).bind(now.0).bind(until.0);
        if held.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let sql = format!("SELECT {STREAM} FROM signal_streams WHERE id = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_one(&mut *transaction).await?;
        let stream = stream_of(&row)?;
        transaction.commit().await?;
        Ok(Some(stream))
    }

    /// Lets a stream go, unless it was changed, or held by another one, meanwhile.
    pub async fn let_stream_go(&self, stream: &SignalStream) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let go = "UPDATE signal_streams SET held_until = 0 WHERE id = $1 AND holds = $2";
        let go = sqlx::query(go).bind(stream.id.as_str()).bind(stream.holds);
        go.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// The listener has taken something: nothing fails any more.
    pub async fn stream_works(&self, stream: &SignalStream) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let works = "UPDATE signal_streams SET next_at = 0, tries = 0, failing_since = 0, failure = '' \
                     WHERE id = $1 AND holds = $2";
        let works = sqlx::query(works).bind(stream.id.as_str()).bind(stream.holds);
        works.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Lets a stream go, as above, whose listener did not take its first event: it is tried again at
    /// `next_at`. `failed` says since when and why it takes nothing, and how often it was tried.
    pub async fn put_stream_off(
        &self,
        stream: &SignalStream,
        (failing_since, tries, failure): (Timestamp, i64, &str),
        next_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let off = "UPDATE signal_streams SET held_until = 0, next_at = $3, failure = $4, tries = $5, \
                   failing_since = $6 WHERE id = $1 AND holds = $2";
        sqlx::query(off)
            .bind(stream.id.as_str())
            .bind(stream.holds)
            .bind(next_at.0)
            .bind(failure)
            .bind(tries)
            .bind(failing_since.0)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Pauses a stream, as above, whose listener has taken nothing for long; what waits is kept.
    pub async fn pause_stream(
        &self,
        stream: &SignalStream,
        reason: &str,
        event: AuditEvent,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let pause = "UPDATE signal_streams SET status = 'paused', reason = $3, held_until = 0, \
                     version = version + 1 WHERE id = $1 AND holds = $2 AND status = 'enabled'";
        let pause = sqlx::query(pause).bind(stream.id.as_str()).bind(stream.holds).bind(reason);
        if pause.execute(&mut *transaction).await?.rows_affected() == 1 {
            insert_audit(&mut transaction, &[event]).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The first events that wait for a stream.
    pub async fn signals(&self, stream: &str, most: usize) -> Result<Vec<Signal>, StoreError> {
        let sql = "SELECT jti, event, user_id, facts, known, made_at FROM signals \
                   WHERE stream = $1 ORDER BY position LIMIT $2";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = reading!(self, fetch_all, sqlx::query(sql).bind(stream).bind(most))?;
        rows.iter().map(signal_of).collect()
    }

    /// Forgets events of a stream: they were taken, or are for nobody. Returns how many were there.
    pub async fn end_signals(
        &self,
        stream: &str,
        jtis: &[String],
        events: &[AuditEvent],
    ) -> Result<u64, StoreError> {
        let mut transaction = self.begin_plain().await?;
        let mut gone = 0;
        for jti in jtis {
            let end = sqlx::query("DELETE FROM signals WHERE stream = $1 AND jti = $2");
            gone += end.bind(stream).bind(jti).execute(&mut *transaction).await?.rows_affected();
        }
        if gone > 0 {
            insert_audit(&mut transaction, events).await?;
        }
        transaction.commit().await?;
        Ok(gone)
    }

    /// Drops what has waited since before `before`, and of what waits for one stream the oldest beyond
    /// a hundred thousand. Writes how many, for each listener.
    pub async fn drop_old_signals(
        &self,
        before: Timestamp,
        event: impl Fn(&SignalStream) -> AuditEvent + Send,
    ) -> Result<u64, StoreError> {
        let mut all = 0;
        for (stream, waiting) in self.streams().await? {
            if waiting.count <= MOST_WAITING && waiting.since.is_none_or(|since| since >= before) {
                continue;
            }
            let mut transaction = self.begin_plain().await?;
            let old = "DELETE FROM signals WHERE stream = $1 AND (made_at < $2 OR position <= \
                       (SELECT position FROM signals WHERE stream = $1 ORDER BY position DESC \
                        LIMIT 1 OFFSET $3))";
            let gone = sqlx::query(old)
                .bind(stream.id.as_str())
                .bind(before.0)
                .bind(MOST_WAITING)
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            let event = event(&stream).with(Detail::Count, gone.to_string());
            if gone > 0 {
                insert_audit(&mut transaction, &[event]).await?;
            }
            transaction.commit().await?;
            all += gone;
        }
        Ok(all)
    }

    /// What waits for streams that are delivered.
    pub async fn waiting_signals(&self) -> Result<Waiting, StoreError> {
        let sql = "SELECT COUNT(*), MIN(made_at) FROM signals WHERE stream IN \
                   (SELECT id FROM signal_streams WHERE status = 'enabled' AND endpoint_url <> '')";
        let row = reading!(self, fetch_one, sqlx::query(sql))?;
        Ok(Waiting {
            count: row.try_get(0)?,
            since: row.try_get::<Option<i64>, _>(1)?.map(Timestamp),
        })
    }
}
