//! The writes that every mint waits for: `jti`, grant and audit row, committed in groups.
//!
//! A writer task takes queued entries (up to [`GROUP`] of them), writes them as one transaction of
//! multi-row statements, and answers each caller after the commit. Durability costs the latency of
//! one fsync, shared by the group.

use super::{
    audit::{AuditEvent, insert_audit},
    ended::Ended,
    statements::{MOST_FOUND, bind, chunks, filled, padded, places, rows},
};
use crate::{
    database::{Dialect, Store, StoreError, is_broken, reading},
    directory::{GENERATION, Generation, Seen},
    people::INSTALLATION,
    sign_in::{RefreshToken, Replaces, keep_refresh, replace_refresh, use_code, write_refresh},
};
use passavant_proto::{identifier::Resource, oauth::scope::Scopes, time::Timestamp};
use sqlx::{
    Any, AssertSqlSafe, Row, Transaction,
    any::{AnyArguments, AnyRow},
};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Maximum number of entries in one transaction.
const GROUP: usize = 128;
/// Attempts for a group whose transaction lost to another one (deadlock, serialization).
const TRIES: usize = 3;

/// A single-use identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedJti {
    /// Keeps equal `jti`s of different kinds and issuers apart: `id_jag <iss>`, `client_assertion
    /// <client>`, `dpop <thumbprint>`.
    pub namespace: String,
    /// The `jti`.
    pub jti: String,
    /// When it may be forgotten: `exp` plus skew.
    pub forget_after: Timestamp,
}

/// Kind of token that a grant records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An ID-JAG.
    IdJag,
    /// An access token.
    AccessToken,
}

impl TokenKind {
    const fn word(self) -> &'static str {
        match self {
            Self::IdJag => "id_jag",
            Self::AccessToken => "access_token",
        }
    }
}

/// A token on record, so that it can be looked up and revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its `jti`.
    pub jti: String,
    /// What it is.
    pub kind: TokenKind,
    /// User id or account id.
    pub user_id: String,
    /// Client id at this authorization server.
    pub client_id: String,
    /// The other party: the audience of an ID-JAG, the trusted issuer behind an access token.
    pub party: String,
    /// What it descends from: session, refresh family, or `jti` of the ID-JAG.
    pub lineage: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What an ID-JAG opens, so that it can be decided about again.
    pub opens: Option<Opens>,
}

/// What an ID-JAG opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opens {
    /// The MCP servers.
    pub resources: Vec<Resource>,
    /// The scopes.
    pub scopes: Scopes,
}

/// A person as an issuer names them, in an assertion of a certain time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectThen {
    /// The trusted issuer.
    pub issuer: String,
    /// Its `sub`.
    pub subject: String,
    /// The `jti` of the assertion.
    pub jti: String,
    /// When the assertion was issued.
    pub issued_at: Timestamp,
}

/// One decision to record. Its conditions are checked in the transaction that records it; if one
/// fails, only the refusal is written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The policy that the decision rests on; `None` if it rests on none.
    pub generation: Option<Generation>,
    /// Rows of people that the decision rests on, as they were read.
    pub rests_on: Vec<Seen>,
    /// A session that must not have ended.
    pub session: Option<String>,
    /// A family of tokens that must not have been revoked.
    pub family: Option<String>,
    /// A refresh token (hash) that must be live and not replaced.
    pub refresh_token: Option<String>,
    /// An authorization code (hash) that this entry uses up; it must be live.
    pub code: Option<String>,
    /// A refresh token that the newly issued one replaces; it must be live.
    pub replaces: Option<Replaces>,
    /// A refresh token that is used and stays valid: its hash, and the token as it is afterwards;
    /// it must be live.
    pub keeps: Option<(String, Box<RefreshToken>)>,
    /// A refresh token to issue, by its hash.
    pub issues: Option<(String, Box<RefreshToken>)>,
    /// An identifier that must be new.
    pub jti: Option<UsedJti>,
    /// Whose issuer must not have ended their access since.
    pub subject: Option<SubjectThen>,
    /// The session and the client that is to be told when it ends.
    pub tells: Option<(String, String)>,
    /// A person, and an authorization server that knows of them from now on: whoever gets an ID-JAG about
    /// them does anyway.
    pub known_by: Option<(String, String)>,
    /// A person, and a client that listens and knows of them from now on.
    pub signed_in_to: Option<(String, String)>,
    /// The token minted.
    pub grant: Option<Grant>,
    /// The audit event of success, or of a refusal decided before; `None` for a step that has no
    /// event of its own.
    pub event: Option<AuditEvent>,
    /// Reasons to record if a condition fails: for session or family, for refresh token or code,
    /// for `jti`.
    pub reasons: [&'static str; 3],
}

impl Entry {
    /// An entry without conditions.
    pub fn new(event: Option<AuditEvent>) -> Self {
        Self {
            generation: None,
            rests_on: Vec::new(),
            session: None,
            family: None,
            refresh_token: None,
            code: None,
            replaces: None,
            keeps: None,
            issues: None,
            jti: None,
            subject: None,
            tells: None,
            known_by: None,
            signed_in_to: None,
            grant: None,
            event,
            reasons: ["session.ended", "refresh.invalid", "jti.replay"],
        }
    }
}

/// The result of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryOutcome {
    /// Durable; the token may leave.
    Recorded,
    /// The policy or a person changed since the decision: read and decide again. Nothing was
    /// written.
    Stale,
    /// The session has ended, the family was revoked, or the issuer has ended the person's access. The
    /// refusal was recorded.
    SessionEnded,
    /// The refresh token or the code is not live, or was used meanwhile. The refusal was recorded.
    RefreshTokenNotLive,
    /// The `jti` was used before. The refusal was recorded.
    Replay,
}

pub(crate) struct Queued {
    operation: Entry,
    now: Timestamp,
    answer: oneshot::Sender<Result<EntryOutcome, StoreError>>,
}

/// Maximum time to record a decision, from the queue to the commit. An entry whose caller has
/// stopped waiting is not begun.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same for SQLite, where one process owns the database: its lock is held by another program,
/// or not at all.
const SQLITE_PATIENCE: Duration = Duration::from_millis(1950);

impl Store {
    /// Records an event of a refusal, or of a step that grants nothing.
    pub async fn note(
        &self,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<EntryOutcome, StoreError> {
        self.enter(Entry::new(Some(event)), now).await
    }

    /// Records a decision and returns after the commit. Its only caller is the loop that reads
    /// again what a decision rests on (`authority::mint`); a lint rejects every other caller.
    pub async fn record(&self, entry: Entry, now: Timestamp) -> Result<EntryOutcome, StoreError> {
        self.enter(entry, now).await
    }

    async fn enter(&self, operation: Entry, now: Timestamp) -> Result<EntryOutcome, StoreError> {
        let (answer, outcome) = oneshot::channel();
        let queued = Queued { operation, now, answer };
        let patience = match self.dialect {
            Dialect::Sqlite => SQLITE_PATIENCE,
            Dialect::Postgres => PATIENCE,
        };
        let recorded = async {
            self.hot.send(queued).await.map_err(|_| StoreError::Closed)?;
            outcome.await.map_err(|_| StoreError::Closed)?
        };
        tokio::time::timeout(patience, recorded).await.map_err(|_| StoreError::Busy)?
    }

    /// Uses an identifier up: `Recorded` for its first use, `Replay` after that.
    pub async fn remember_jti(
        &self,
        jti: UsedJti,
        now: Timestamp,
    ) -> Result<EntryOutcome, StoreError> {
        let operation = Entry { jti: Some(jti), ..Entry::new(None) };
        self.enter(operation, now).await
    }

    /// Writes the rows of a report once. Returns how many; 0 if the report was recorded before.
    pub async fn record_batch(
        &self,
        batch: &UsedJti,
        events: &[AuditEvent],
    ) -> Result<usize, StoreError> {
        let mut transaction = self.begin().await?;
        if insert_jtis(&mut transaction, vec![batch]).await?.is_empty() {
            return Ok(0);
        }
        insert_audit(&mut transaction, events).await?;
        transaction.commit().await?;
        Ok(events.len())
    }

    /// A token on record, even if it is not valid any more.
    pub async fn grant_on_record(&self, jti: &str) -> Result<Option<Grant>, StoreError> {
        self.grant("", jti).await
    }

    /// Whether a family of tokens was revoked.
    pub async fn is_family_revoked(&self, family: &str) -> Result<bool, StoreError> {
        let mark = format!("family:{family}");
        let sql = "SELECT jti FROM grants WHERE jti = $1";
        Ok(reading!(self, fetch_optional, sqlx::query(sql).bind(mark.as_str()))?.is_some())
    }

    /// A token on record that is not revoked and whose family is not revoked.
    pub async fn live_grant(&self, jti: &str) -> Result<Option<Grant>, StoreError> {
        let live = "AND revoked_at IS NULL AND NOT EXISTS \
                    (SELECT 1 FROM grants mark WHERE mark.jti = 'family:' || grants.lineage)";
        self.grant(live, jti).await
    }

    async fn grant(&self, and: &'static str, jti: &str) -> Result<Option<Grant>, StoreError> {
        let sql = format!("SELECT {GRANT} FROM grants WHERE jti = $1 {and}");
        let row =
            reading!(self, fetch_optional, sqlx::query(AssertSqlSafe(sql.clone())).bind(jti))?;
        row.map(|row| grant_of(&row)).transpose()
    }
}

/// The columns that [`grant_of`] reads.
pub(super) const GRANT: &str =
    "jti, kind, user_id, client_id, party, lineage, expires_at, resources, scopes";

pub(super) fn grant_of(row: &AnyRow) -> Result<Grant, StoreError> {
    let kind: &str = row.try_get("kind")?;
    let (resources, scopes): (Option<&str>, Option<&str>) =
        (row.try_get("resources")?, row.try_get("scopes")?);
    // What cannot be read is like what an earlier version wrote: it is not known what it opens.
    let opens = resources.zip(scopes).and_then(|(resources, scopes)| {
        let resources = resources.split_whitespace().map(Resource::parse);
        Some(Opens {
            resources: resources.collect::<Result<_, _>>().ok()?,
            scopes: Scopes::parse(scopes)?,
        })
    });
    Ok(Grant {
        jti: row.try_get("jti")?,
        kind: if kind == "id_jag" { TokenKind::IdJag } else { TokenKind::AccessToken },
        user_id: row.try_get("user_id")?,
        client_id: row.try_get("client_id")?,
        party: row.try_get("party")?,
        lineage: row.try_get("lineage")?,
        expires_at: Timestamp(row.try_get("expires_at")?),
        opens,
    })
}

fn spaced(resources: &[Resource]) -> String {
    resources.iter().map(Resource::as_str).collect::<Vec<_>>().join(" ")
}

pub(crate) fn spawn_writers(store: &Store, queue: mpsc::Receiver<Queued>, writers: usize) {
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..writers {
        // The writer must not hold a sender of its own queue, or the queue would never close.
        let (closed, _) = mpsc::channel(1);
        let store = Store { hot: closed, ..store.clone() };
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            let mut group = Vec::with_capacity(GROUP);
            loop {
                // The lock covers only taking from the queue, so that one writer takes at a time.
                let taken = queue.lock().await.recv_many(&mut group, GROUP).await;
                if taken == 0 {
                    return;
                }
                commit_group(&store, std::mem::take(&mut group)).await;
            }
        });
    }
}

async fn commit_group(store: &Store, mut group: Vec<Queued>) {
    group.retain(|queued| !queued.answer.is_closed());
    if group.is_empty() {
        return;
    }
    match attempt(store, &group).await {
        // One entry may be at fault, so write each by itself.
        Err(StoreError::Database(error)) if group.len() > 1 && is_of_one(&error) => {
            for queued in group {
                let one = [queued];
                let outcome = attempt(store, &one).await;
                let [queued] = one;
                let outcome = outcome.map(|outcomes| outcomes.first().copied());
                let outcome = outcome.and_then(|outcome| outcome.ok_or(StoreError::Closed));
                if let Err(error) = &outcome {
                    tracing::error!(%error, "a decision was not recorded");
                }
                let _ = queued.answer.send(outcome);
            }
        }
        outcomes => answer(group, outcomes),
    }
}

/// Whether an error may concern one entry of a group: its values, not the database.
fn is_of_one(error: &sqlx::Error) -> bool {
    !is_broken(error)
        && match error {
            // SQLite: busy, locked, full, read-only, damaged, cannot be opened; PostgreSQL: out of
            // resources, shutting down.
            sqlx::Error::Database(error) => error.code().is_none_or(|code| {
                let code = code.as_ref();
                !(matches!(
                    code,
                    "5" | "6" | "8" | "10" | "11" | "13" | "14" | "26" | "261" | "517"
                ) || ["53", "57", "58", "XX"].iter().any(|class| code.starts_with(class)))
            }),
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) => true,
            _ => false,
        }
}

async fn attempt(store: &Store, group: &[Queued]) -> Result<Vec<EntryOutcome>, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match run(store, group).await {
            Err(StoreError::Database(error)) if tries < TRIES && is_transient(&error) => {}
            outcome => return outcome.inspect_err(|error| store.note_failure(error)),
        }
    }
}

fn answer(group: Vec<Queued>, outcomes: Result<Vec<EntryOutcome>, StoreError>) {
    match outcomes {
        Ok(outcomes) => {
            for (queued, outcome) in group.into_iter().zip(outcomes) {
                // A caller that has gone does not need the answer.
                let _ = queued.answer.send(Ok(outcome));
            }
        }
        Err(error) => {
            tracing::error!(%error, operations = group.len(), "a group of decisions was not recorded");
            for queued in group {
                let _ = queued.answer.send(Err(StoreError::Database(sqlx::Error::WorkerCrashed)));
            }
        }
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    // SQLite: the snapshot was overtaken (the wait for the lock is already over); PostgreSQL:
    // serialization failure, deadlock.
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| matches!(code.as_ref(), "517" | "40001" | "40P01"))
}

async fn run(store: &Store, group: &[Queued]) -> Result<Vec<EntryOutcome>, StoreError> {
    let mut transaction = store.begin().await?;
    let outcomes = decide(&mut transaction, group).await?;
    let recorded = |outcome: &EntryOutcome| *outcome == EntryOutcome::Recorded;
    let mut grants = Vec::new();
    let mut told = BTreeSet::new();
    let mut known = BTreeSet::new();
    let mut listeners = BTreeSet::new();
    let mut events = Vec::new();
    for (queued, outcome) in group.iter().zip(&outcomes) {
        let operation = &queued.operation;
        if recorded(outcome) {
            let asserted_at = operation.subject.as_ref().map(|then| then.issued_at);
            grants.extend(operation.grant.as_ref().map(|grant| (grant, asserted_at)));
            let both = |(a, b): &'_ (String, String)| (a.clone(), b.clone());
            told.extend(operation.tells.as_ref().map(both));
            listeners.extend(operation.signed_in_to.as_ref().map(both));
            known.extend(operation.known_by.as_ref().map(both));
            let id_jag = operation.grant.as_ref().filter(|grant| grant.kind == TokenKind::IdJag);
            known.extend(id_jag.map(|grant| (grant.user_id.clone(), grant.party.clone())));
        }
        let reason = match outcome {
            EntryOutcome::Recorded => None,
            EntryOutcome::Stale => continue,
            EntryOutcome::SessionEnded => Some(operation.reasons[0]),
            EntryOutcome::RefreshTokenNotLive => Some(operation.reasons[1]),
            EntryOutcome::Replay => Some(operation.reasons[2]),
        };
        if let Some(event) = &operation.event {
            events.push(match reason {
                None => Cow::Borrowed(event),
                Some(reason) => Cow::Owned(event.clone().refused(reason)),
            });
        }
    }
    insert_grants(&mut transaction, &grants).await?;
    for (table, pairs) in [
        ("told_of (user_id, party)", known),
        ("session_clients (sid, client_id)", told),
        ("known_to_client (user_id, client_id)", listeners),
    ] {
        insert_pairs(&mut transaction, table, &pairs.into_iter().collect::<Vec<_>>()).await?;
    }
    insert_audit(&mut transaction, &events).await?;
    transaction.commit().await?;
    Ok(outcomes)
}

/// Checks the conditions of a group, and uses up the `jti`s of the entries whose conditions hold.
async fn decide(
    transaction: &mut Transaction<'static, Any>,
    group: &[Queued],
) -> Result<Vec<EntryOutcome>, StoreError> {
    let mut outcomes = vec![EntryOutcome::Recorded; group.len()];
    if group.iter().any(|queued| queued.operation.generation.is_some()) {
        let row = sqlx::query(GENERATION).fetch_one(&mut **transaction).await?;
        let current = Generation::of(&row)?;
        for (queued, outcome) in group.iter().zip(&mut outcomes) {
            if queued.operation.generation.is_some_and(|decided_on| decided_on != current) {
                *outcome = EntryOutcome::Stale;
            }
        }
    }
    let changed = changed(transaction, group).await?;
    for (queued, outcome) in group.iter().zip(&mut outcomes) {
        if queued.operation.rests_on.iter().any(|seen| changed.contains(seen)) {
            *outcome = EntryOutcome::Stale;
        }
    }
    let now = group.iter().map(|queued| queued.now).max().unwrap_or(Timestamp(0));
    let sessions = group.iter().filter_map(|queued| queued.operation.session.as_deref());
    let sql = "SELECT sid FROM sessions WHERE ended_at IS NULL AND sid IN ";
    let live_sessions = find(transaction, sql, "", sessions).await?;
    let tokens = group.iter().filter_map(|queued| queued.operation.refresh_token.as_deref());
    let sql = "SELECT hash FROM refresh_tokens WHERE replaced_at IS NULL AND revoked_at IS NULL \
               AND hash IN ";
    let unexpired = format!(" AND idle_expires_at > {0} AND expires_at > {0}", now.0);
    let live_tokens = find(transaction, sql, &unexpired, tokens).await?;
    let marks: Vec<String> = group
        .iter()
        .filter_map(|queued| queued.operation.family.as_ref())
        .map(|family| format!("family:{family}"))
        .collect();
    let sql = "SELECT jti FROM grants WHERE jti IN ";
    let revoked = find(transaction, sql, "", marks.iter().map(String::as_str)).await?;
    let then = group.iter().filter_map(|queued| queued.operation.subject.as_ref());
    let ended = Ended::read(transaction, then).await?;
    for (queued, outcome) in group.iter().zip(&mut outcomes) {
        let operation = &queued.operation;
        let is_revoked =
            |family: &String| !revoked.is_empty() && revoked.contains(&format!("family:{family}"));
        let missing = |wanted: &Option<String>, live: &HashSet<String>| {
            wanted.as_ref().is_some_and(|wanted| !live.contains(wanted))
        };
        if *outcome != EntryOutcome::Recorded {
        } else if missing(&operation.session, &live_sessions)
            || operation.family.as_ref().is_some_and(is_revoked)
            || operation.subject.as_ref().is_some_and(|then| ended.holds(then))
        {
            *outcome = EntryOutcome::SessionEnded;
        } else if missing(&operation.refresh_token, &live_tokens) {
            *outcome = EntryOutcome::RefreshTokenNotLive;
        }
    }
    // One entry after the other: if several present the same code or token, only one wins.
    for (queued, outcome) in group.iter().zip(&mut outcomes) {
        let operation = &queued.operation;
        if *outcome == EntryOutcome::Recorded && !take(transaction, operation, queued.now).await? {
            *outcome = EntryOutcome::RefreshTokenNotLive;
        }
    }
    // If the insert succeeded for a `jti`, the first entry of the group with it wins; the others
    // are replays.
    let mut wanted: Vec<&UsedJti> = Vec::new();
    for (queued, outcome) in group.iter().zip(&outcomes) {
        if *outcome == EntryOutcome::Recorded {
            wanted.extend(&queued.operation.jti);
        }
    }
    let mut won = insert_jtis(transaction, wanted).await?;
    for (queued, outcome) in group.iter().zip(&mut outcomes) {
        if let (EntryOutcome::Recorded, Some(jti)) = (*outcome, &queued.operation.jti)
            && !won.remove(&(jti.namespace.clone(), jti.jti.clone()))
        {
            *outcome = EntryOutcome::Replay;
        }
    }
    Ok(outcomes)
}

/// The rows that differ from those that decisions of a group rest on.
async fn changed<'g>(
    transaction: &mut Transaction<'static, Any>,
    group: &'g [Queued],
) -> Result<HashSet<&'g Seen>, StoreError> {
    let mut all: Vec<&Seen> = group.iter().flat_map(|queued| &queued.operation.rests_on).collect();
    all.sort_unstable();
    all.dedup();
    let mut changed: HashSet<&Seen> = all.iter().copied().collect();
    let kinds: Vec<&[&Seen]> = all.chunk_by(|one, other| one.kind == other.kind).collect();
    let rounds = kinds.iter().map(|kind| kind.len().div_ceil(MOST_FOUND)).max().unwrap_or(0);
    for round in 0..rounds {
        let parts: Vec<&[&Seen]> =
            kinds.iter().filter_map(|kind| kind.chunks(MOST_FOUND).nth(round)).collect();
        // The same number of placeholders for each kind, for few statement shapes.
        let size = parts.iter().map(|part| padded(part.len())).max().unwrap_or(0);
        let mut arguments = AnyArguments::default();
        let mut selects = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            for seen in filled(part, size) {
                bind(&mut arguments, seen.id.as_str())?;
            }
            let wanted = places(index * size, size);
            // Names of kinds are constants of this crate.
            selects.push(match part[0].kind {
                INSTALLATION => format!(
                    "SELECT '{INSTALLATION}', id, version FROM installations WHERE id IN {wanted}"
                ),
                kind => format!(
                    "SELECT kind, id, version FROM directory WHERE kind = '{kind}' AND id IN {wanted}"
                ),
            });
        }
        let sql = selects.join(" UNION ALL ");
        let rows =
            sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut **transaction).await?;
        let mut current = HashSet::with_capacity(rows.len());
        for row in &rows {
            current.insert((
                row.try_get::<&str, _>(0)?,
                row.try_get::<&str, _>(1)?,
                row.try_get(2)?,
            ));
        }
        for seen in parts.into_iter().flatten() {
            if current.contains(&(seen.kind, seen.id.as_str(), seen.version)) {
                changed.remove(seen);
            }
        }
    }
    Ok(changed)
}

/// Uses up the code or the refresh token that an entry rests on, and issues what it brings. Returns
/// `false` if either was used or revoked meanwhile.
async fn take(
    transaction: &mut Transaction<'static, Any>,
    operation: &Entry,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if let Some(code) = &operation.code
        && !use_code(transaction, code, now).await?
    {
        return Ok(false);
    }
    let mut before = None;
    if let Some(replaced) = &operation.replaces {
        before = replace_refresh(transaction, replaced, now).await?;
        if before.is_none() {
            return Ok(false);
        }
    }
    if let Some((hash, token)) = &operation.keeps
        && !keep_refresh(transaction, hash, token, now).await?
    {
        return Ok(false);
    }
    if let Some((hash, token)) = &operation.issues {
        write_refresh(transaction, hash, token, before.as_deref()).await?;
    }
    Ok(true)
}

/// The keys among `keys` that `sql (…) and` selects.
async fn find<'a>(
    transaction: &mut Transaction<'static, Any>,
    sql: &str,
    and: &str,
    keys: impl Iterator<Item = &'a str>,
) -> Result<HashSet<String>, StoreError> {
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found = HashSet::with_capacity(keys.len());
    for chunk in keys.chunks(MOST_FOUND) {
        let size = padded(chunk.len());
        let mut arguments = AnyArguments::default();
        for key in filled(chunk, size) {
            bind(&mut arguments, *key)?;
        }
        let sql = format!("{sql}{}{and}", places(0, size));
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
            .persistent(and.is_empty())
            .fetch_all(&mut **transaction)
            .await?;
        for row in rows {
            found.insert(row.try_get(0)?);
        }
    }
    Ok(found)
}

pub(crate) async fn insert_jtis(
    transaction: &mut Transaction<'static, Any>,
    mut jtis: Vec<&UsedJti>,
) -> Result<HashSet<(String, String)>, StoreError> {
    // Sorted, so that two writers cannot deadlock.
    jtis.sort_unstable_by(|a, b| (&a.namespace, &a.jti).cmp(&(&b.namespace, &b.jti)));
    jtis.dedup_by(|a, b| a.namespace == b.namespace && a.jti == b.jti);
    let mut won = HashSet::with_capacity(jtis.len());
    for chunk in chunks(&jtis) {
        let mut arguments = AnyArguments::default();
        for jti in chunk {
            bind(&mut arguments, jti.namespace.as_str())?;
            bind(&mut arguments, jti.jti.as_str())?;
            bind(&mut arguments, jti.forget_after.0)?;
        }
        let sql = format!(
            "INSERT INTO used_jtis (namespace, jti, forget_after) VALUES {} \
             ON CONFLICT DO NOTHING RETURNING namespace, jti",
            rows(chunk.len(), 3)
        );
        let rows =
            sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut **transaction).await?;
        for row in rows {
            won.insert((row.try_get(0)?, row.try_get(1)?));
        }
    }
    Ok(won)
}

/// Writes pairs of texts that are not there yet.
async fn insert_pairs(
    transaction: &mut Transaction<'static, Any>,
    table: &'static str,
    pairs: &[(String, String)],
) -> Result<(), StoreError> {
    for chunk in chunks(pairs) {
        let mut arguments = AnyArguments::default();
        for (one, other) in chunk {
            bind(&mut arguments, one.as_str())?;
            bind(&mut arguments, other.as_str())?;
        }
        let sql =
            format!("INSERT INTO {table} VALUES {} ON CONFLICT DO NOTHING", rows(chunk.len(), 2));
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn insert_grants(
    transaction: &mut Transaction<'static, Any>,
    grants: &[(&Grant, Option<Timestamp>)],
) -> Result<(), StoreError> {
    for chunk in chunks(grants) {
        let mut arguments = AnyArguments::default();
        for (grant, asserted_at) in chunk {
            bind(&mut arguments, grant.jti.as_str())?;
            bind(&mut arguments, grant.kind.word())?;
            bind(&mut arguments, grant.user_id.as_str())?;
            bind(&mut arguments, grant.client_id.as_str())?;
            bind(&mut arguments, grant.party.as_str())?;
            bind(&mut arguments, grant.lineage.as_str())?;
            bind(&mut arguments, grant.expires_at.0)?;
            let opens = grant.opens.as_ref();
            bind(&mut arguments, opens.map(|opens| spaced(&opens.resources)))?;
            bind(&mut arguments, opens.map(|opens| opens.scopes.to_string()))?;
            bind(&mut arguments, asserted_at.map(|at| at.0))?;
        }
        let sql = format!(
            "INSERT INTO grants (jti, kind, user_id, client_id, party, lineage, expires_at, \
             resources, scopes, asserted_at) VALUES {}",
            rows(chunk.len(), 10)
        );
        sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **transaction).await?;
    }
    Ok(())
}
