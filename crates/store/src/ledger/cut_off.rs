//! Cut-offs: what one would end, what it has ended, and which authorization servers have heard of it.

use super::{
    audit::{AuditEvent, AuditFilter, AuditRow, insert_audit},
    ended::end_id_jags,
    entry::{GRANT, Grant, TokenKind, grant_of},
};
use crate::{
    database::{Store, StoreError, escaped, reading},
    directory::{Put, read, write},
    record::Record,
    rows::details_of_row,
    sign_in::{MARKED, end_client, end_issuer, end_party, revoke_family},
};
use passavant_proto::{
    event::RequestEvent,
    oauth::{access_token, client::Client},
    policy::ResourceAuthorizationServer,
    time::{SKEW, Timestamp},
    xaa::{id_jag, trust::TrustedIssuer},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row, any::AnyRow};
use std::collections::BTreeMap;

/// A notice is delivered or given up before it is so old, in seconds.
const SETTLED: i64 = 26 * 3600;
/// None is given up before it is so old, in seconds.
const NOT_GIVEN_UP: i64 = 23 * 3600;
/// How many ID-JAGs are read at once.
const PIECE: i64 = 500;

/// What is cut off, as the columns of the ledger name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// A person at an identity provider, or an account: by id.
    Person(String),
    /// A client, by id.
    Client(String),
    /// An installation.
    Installation {
        /// Its id.
        id: String,
        /// The URL of its metadata document, which is its client id.
        client: String,
    },
    /// At an identity provider: an authorization server, by its issuer.
    Server(String),
    /// At an identity provider: a way of a client to an authorization server.
    Connection {
        /// The authorization server's issuer.
        audience: String,
        /// The client's id; of all installations, what their ids begin with.
        client: String,
        /// Whether it is of all installations.
        installations: bool,
    },
    /// At an authorization server: a trusted issuer.
    Issuer(String),
    /// An ID-JAG and what was issued for it, or the tokens of one sign-in in the browser.
    Grant(String),
}

/// How much ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Sign-ins.
    pub sign_ins: i64,
    /// Refresh tokens.
    pub refresh_tokens: i64,
    /// Installations that get nothing any more.
    pub installations: i64,
    /// Access tokens that this server issued.
    pub access_tokens: i64,
    /// When the last one of those expires.
    pub expires_at: Option<Timestamp>,
    /// The authorization servers where something ends that an ID-JAG brought.
    pub servers: Vec<ServerEnds>,
}

/// An authorization server where something ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEnds {
    /// Its issuer.
    pub party: String,
    /// The person whose access ends there; empty for all that it is about.
    pub user_id: String,
    /// ID-JAGs whose tokens may live there.
    pub id_jags: i64,
    /// When the last one of those expires.
    pub expires_at: Option<Timestamp>,
    /// It was not told yet.
    pub waits: bool,
    /// When it acknowledged.
    pub acknowledged_at: Option<Timestamp>,
    /// When it was given up.
    pub given_up_at: Option<Timestamp>,
}

impl ServerEnds {
    fn new(party: String, user_id: String) -> Self {
        Self { party, user_id, ..Self::default() }
    }
}

/// What has become of a cut-off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOffRecord {
    /// It is still being decided which ID-JAGs it ends.
    pub deciding: bool,
    /// What has ended.
    pub ended: Ends,
}

impl CutOff {
    /// The values of `$1` and `$2` in its conditions.
    fn values(&self) -> Vec<String> {
        match self {
            Self::Person(of) | Self::Client(of) | Self::Server(of) | Self::Grant(of) => {
                vec![of.clone()]
            }
            Self::Installation { id, client } => vec![id.clone(), client.clone()],
            Self::Connection { audience, client, .. } => vec![audience.clone(), client.clone()],
            // As it stands in a stored sign-in; see `end_issuer`.
            Self::Issuer(of) => vec![of.clone(), Value::from(of.as_str()).to_string()],
        }
    }

    const fn of_sessions(&self) -> Option<&'static str> {
        match self {
            Self::Person(_) => Some("user_id = $1"),
            Self::Issuer(_) => Some("replace(authentication, $2, '') <> authentication"),
            _ => None,
        }
    }

    const fn of_refresh_tokens(&self) -> Option<&'static str> {
        match self {
            Self::Person(_) => Some("user_id = $1"),
            Self::Client(_) => Some("client_id = $1"),
            Self::Installation { .. } => Some("client_id = $2"),
            Self::Issuer(_) => Some(
                "sid IN (SELECT sid FROM sessions \
                 WHERE replace(authentication, $2, '') <> authentication)",
            ),
            Self::Grant(_) => Some("family = $1"),
            Self::Server(_) | Self::Connection { .. } => None,
        }
    }

    const fn of_installations(&self) -> Option<&'static str> {
        match self {
            Self::Person(_) => Some("user_id = $1"),
            Self::Installation { .. } => Some("id = $1"),
            _ => None,
        }
    }

    /// Each uses every value.
    const fn of_grants(&self, issues: TokenKind) -> &'static str {
        match (self, issues) {
            (Self::Person(_), _) => "user_id = $1",
            (Self::Client(_), _) => "client_id = $1",
            (Self::Installation { .. }, _) => "client_id = $2 AND $1 <> ''",
            (Self::Server(_), _) => "party = $1",
            (Self::Issuer(_), _) => "party = $1 AND $2 <> ''",
            (Self::Connection { installations: true, .. }, _) => {
                "party = $1 AND substr(client_id, 1, length($2)) = $2"
            }
            (Self::Connection { installations: false, .. }, _) => "party = $1 AND client_id = $2",
            (Self::Grant(_), TokenKind::IdJag) => "jti = $1",
            (Self::Grant(_), TokenKind::AccessToken) => "(jti = $1 OR lineage = $1)",
        }
    }

    /// Whether ID-JAGs end a moment after the act, when the policy has been asked about them again.
    const fn is_decided_later(&self) -> bool {
        matches!(self, Self::Installation { .. } | Self::Connection { .. })
    }

    /// The ID-JAGs that an act at `at` ended.
    fn ended_id_jags(&self, at: Timestamp) -> String {
        // Who decides later may be another node, whose clock may be behind.
        let apart = if self.is_decided_later() { SKEW } else { 0 };
        format!(
            "{} AND kind = 'id_jag' AND revoked_at >= {} AND expires_at <= {} AND expires_at > {}",
            self.of_grants(TokenKind::IdJag),
            at.plus(-apart).0,
            at.plus(id_jag::LIFETIME + apart).0,
            at.plus(-access_token::LONGEST_LIFETIME).0,
        )
    }

    /// Selects how much there is, or how much an act at `at` has ended: one statement, so that the numbers
    /// are of one moment. Rows of a word, a party, a number and a time.
    fn numbers(&self, issues: TokenKind, at: Timestamp, is_over: bool) -> String {
        let at = at.0;
        let ended = |column: &str| {
            if is_over { format!("{column} = {at}") } else { format!("{column} IS NULL") }
        };
        let number = |word: &str| {
            format!(
                "SELECT '{word}' AS word, '' AS party, COUNT(*) AS number, CAST(0 AS BIGINT) AS time"
            )
        };
        let mut selects = Vec::new();
        if let Some(of) = self.of_sessions() {
            selects.push(format!(
                "{} FROM sessions WHERE {of} AND {} AND (expires_at > {at} OR EXISTS \
                 (SELECT 1 FROM refresh_tokens held WHERE held.sid = sessions.sid AND {} \
                 AND held.replaced_at IS NULL AND held.expires_at > {at} \
                 AND held.idle_expires_at > {at}))",
                number("sign-ins"),
                ended("ended_at"),
                ended("held.revoked_at"),
            ));
        }
        if let Some(of) = self.of_refresh_tokens() {
            selects.push(format!(
                "{} FROM refresh_tokens WHERE {of} AND {} AND replaced_at IS NULL \
                 AND expires_at > {at} AND idle_expires_at > {at}",
                number("refresh tokens"),
                ended("revoked_at"),
            ));
        }
        if let Some(of) = self.of_installations() {
            // A person's stay enrolled while they are switched off.
            let (stays, gone) = match (self, is_over) {
                (Self::Person(_), _) | (_, false) => ("revoked_at IS NULL", String::new()),
                (_, true) => ("revoked_at IS NOT NULL", format!(" AND revoked_at = {at}")),
            };
            let number = number("installations");
            selects.push(format!("{number} FROM installations WHERE {of} AND {stays}{gone}"));
        }
        let of = self.of_grants(issues);
        if issues == TokenKind::AccessToken {
            // Tokens of a family that was revoked before have ended, whatever their own rows say.
            let marked = if is_over {
                format!(" AND mark.expires_at < {}", at + MARKED)
            } else {
                String::new()
            };
            selects.push(format!(
                "SELECT 'access tokens' AS word, '' AS party, COUNT(*) AS number, \
                 COALESCE(MAX(expires_at), 0) AS time FROM grants \
                 WHERE {of} AND kind = 'access_token' AND {} AND expires_at > {at} \
                 AND NOT EXISTS (SELECT 1 FROM grants mark \
                 WHERE mark.jti = 'family:' || grants.lineage{marked})",
                ended("revoked_at"),
            ));
        } else if !is_over {
            let over = at - access_token::LONGEST_LIFETIME;
            selects.push(format!(
                "SELECT 'server' AS word, party, COUNT(*) AS number, MAX(expires_at) AS time \
                 FROM grants WHERE {of} AND kind = 'id_jag' AND revoked_at IS NULL \
                 AND expires_at > {over} GROUP BY party"
            ));
            if matches!(self, Self::Person(_)) {
                selects.push(KNOWS.to_owned());
            }
        }
        selects.join(" UNION ALL ")
    }
}

/// Who knows of a person, and is told whether or not an ID-JAG is on record.
const KNOWS: &str = "SELECT 'server' AS word, party, CAST(0 AS BIGINT) AS number, \
                     CAST(0 AS BIGINT) AS time FROM told_of WHERE user_id = $1";

fn time_of(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    let time: i64 = row.try_get(column)?;
    Ok((time > 0).then_some(Timestamp(time)))
}

impl Store {
    async fn rows_of(&self, sql: &str, values: &[String]) -> Result<Vec<AnyRow>, StoreError> {
        let query = || {
            // The times in it make each one another statement.
            let query = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false);
            values.iter().fold(query, |query, value| query.bind(value.clone()))
        };
        Ok(reading!(self, fetch_all, query())?)
    }

    async fn numbers(
        &self,
        of: &CutOff,
        issues: TokenKind,
        at: Timestamp,
        is_over: bool,
    ) -> Result<Ends, StoreError> {
        let sql = of.numbers(issues, at, is_over);
        let mut ends = Ends::default();
        if sql.is_empty() {
            return Ok(ends);
        }
        let mut servers: BTreeMap<String, ServerEnds> = BTreeMap::new();
        for row in self.rows_of(&sql, &of.values()).await? {
            let (word, number): (String, i64) = (row.try_get("word")?, row.try_get("number")?);
            let time = time_of(&row, "time")?;
            match word.as_str() {
                "sign-ins" => ends.sign_ins = number,
                "refresh tokens" => ends.refresh_tokens = number,
                "installations" => ends.installations = number,
                "access tokens" => (ends.access_tokens, ends.expires_at) = (number, time),
                _ => {
                    let party: String = row.try_get("party")?;
                    let server = servers
                        .entry(party.clone())
                        .or_insert_with(|| ServerEnds::new(party, String::new()));
                    server.id_jags += number;
                    server.expires_at = server.expires_at.max(time);
                }
            }
        }
        ends.servers = servers.into_values().collect();
        Ok(ends)
    }

    /// What a cut-off would end now. `issues`: what the server issues, ID-JAGs or access tokens. What a
    /// connection would end, the policy has to be asked.
    pub async fn would_end(
        &self,
        of: &CutOff,
        issues: TokenKind,
        now: Timestamp,
    ) -> Result<Ends, StoreError> {
        self.numbers(of, issues, now, false).await
    }

    /// ID-JAGs whose tokens may live, some hundred after `after` in the order of their `jti`s.
    pub async fn id_jags_of(
        &self,
        of: &CutOff,
        now: Timestamp,
        after: &str,
    ) -> Result<Vec<Grant>, StoreError> {
        let mut values = of.values();
        values.push(after.to_owned());
        let sql = format!(
            "SELECT {GRANT} FROM grants WHERE {} AND kind = 'id_jag' AND revoked_at IS NULL \
             AND expires_at > {} AND jti > ${} ORDER BY jti LIMIT {PIECE}",
            of.of_grants(TokenKind::IdJag),
            now.plus(-access_token::LONGEST_LIFETIME).0,
            values.len(),
        );
        self.rows_of(&sql, &values).await?.iter().map(grant_of).collect()
    }

    /// What an act has ended until now, and who was told of it.
    pub async fn cut_off_record(
        &self,
        of: &CutOff,
        issues: TokenKind,
        act: &AuditRow,
        now: Timestamp,
    ) -> Result<CutOffRecord, StoreError> {
        if issues == TokenKind::AccessToken {
            let ended = self.numbers(of, issues, act.at, true).await?;
            return Ok(CutOffRecord { deciding: false, ended });
        }
        // In this order: whatever is decided meanwhile waits, and what was delivered meanwhile waited.
        let deciding = self.is_decided_again(of).await?;
        let mut ended = self.numbers(of, issues, act.at, true).await?;
        let mut servers: BTreeMap<(String, String), ServerEnds> = BTreeMap::new();
        let key = |row: &AnyRow| -> Result<(String, String), StoreError> {
            Ok((row.try_get("party")?, row.try_get("user_id")?))
        };
        let sql = format!(
            "SELECT party, user_id, COUNT(*) AS number, MAX(expires_at) AS time FROM grants \
             WHERE {} GROUP BY party, user_id",
            of.ended_id_jags(act.at)
        );
        let mut found = self.rows_of(&sql, &of.values()).await?;
        if let CutOff::Person(_) = of {
            let sql = format!(
                "SELECT known.party, known.number, known.time, $1 AS user_id FROM ({KNOWS}) known"
            );
            found.extend(self.rows_of(&sql, &of.values()).await?);
        }
        for row in &found {
            let key = key(row)?;
            let server =
                servers.entry(key.clone()).or_insert_with(|| ServerEnds::new(key.0, key.1));
            server.id_jags += row.try_get::<i64, _>("number")?;
            server.expires_at = server.expires_at.max(time_of(row, "time")?);
        }
        for row in &self.rows_of(&waiting(of, act.at), &of.values()).await? {
            let key = key(row)?;
            servers.entry(key.clone()).or_insert_with(|| ServerEnds::new(key.0, key.1)).waits =
                true;
        }
        self.add_deliveries(of, act, &mut servers).await?;
        if now.since(act.at) >= NOT_GIVEN_UP {
            self.add_given_up(act, &mut servers).await?;
        }
        ended.servers = servers.into_values().collect();
        Ok(CutOffRecord { deciding, ended })
    }

    /// Whether ID-JAGs that it may be about are to be decided about again.
    async fn is_decided_again(&self, of: &CutOff) -> Result<bool, StoreError> {
        let (of_whom, values) = match of {
            CutOff::Person(id) => ("user_id = $1", vec![id.clone()]),
            CutOff::Installation { id, .. } => {
                ("user_id IN (SELECT user_id FROM installations WHERE id = $1)", vec![id.clone()])
            }
            _ => ("user_id = ''", Vec::new()),
        };
        let sql =
            format!("SELECT user_id FROM reconsidered WHERE user_id = '' OR {of_whom} LIMIT 1");
        Ok(!self.rows_of(&sql, &values).await?.is_empty())
    }

    async fn add_deliveries(
        &self,
        of: &CutOff,
        act: &AuditRow,
        servers: &mut BTreeMap<(String, String), ServerEnds>,
    ) -> Result<(), StoreError> {
        let (whose, values) = match of {
            CutOff::Person(id) => (" AND person = $1", vec![id.clone()]),
            _ => ("", Vec::new()),
        };
        let sql = format!(
            "SELECT at, person, document FROM audit WHERE id > {} AND at >= {} AND at <= {} \
             AND event = '{}' AND outcome = 'granted'{whose} ORDER BY id",
            act.id,
            act.at.0,
            act.at.plus(SETTLED).0,
            RequestEvent::RevocationNotice.word(),
        );
        for row in &self.rows_of(&sql, &values).await? {
            let details = details_of_row(row.try_get("document")?);
            let detail = |name: &str| details.get(name).map(String::as_str).unwrap_or_default();
            // Of single ID-JAGs was told what ended before.
            if matches!(of, CutOff::Person(_)) && detail("count") != "all" {
                continue;
            }
            let key = (detail("audience").to_owned(), row.try_get("person")?);
            if let Some(server) = servers.get_mut(&key).filter(|server| !server.waits) {
                server.acknowledged_at.get_or_insert(Timestamp(row.try_get("at")?));
            }
        }
        Ok(())
    }

    /// Who is given up, is so with all that waits for it: the row names one person only.
    async fn add_given_up(
        &self,
        act: &AuditRow,
        servers: &mut BTreeMap<(String, String), ServerEnds>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT at, document FROM audit WHERE outcome = 'refused' AND at >= {} AND at <= {} \
             AND event = '{}' ORDER BY id",
            act.at.plus(NOT_GIVEN_UP).0,
            act.at.plus(SETTLED).0,
            RequestEvent::RevocationNotice.word(),
        );
        for row in &self.rows_of(&sql, &[]).await? {
            let details = details_of_row(row.try_get("document")?);
            let at = Timestamp(row.try_get("at")?);
            let of_it = servers.values_mut().filter(|server| {
                details.get("audience") == Some(&server.party)
                    && !server.waits
                    && server.acknowledged_at.is_none()
            });
            for server in of_it {
                server.given_up_at.get_or_insert(at);
            }
        }
        Ok(())
    }

    /// Switches a record off, and ends what came by way of it, as if it were deleted. Switching it on again
    /// restores none of that. `None` if it does not exist.
    pub async fn cut_off<R: Record>(
        &self,
        id: &str,
        change: impl FnOnce(&mut R) + Send,
        event: AuditEvent,
    ) -> Result<Option<R>, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(mut record) = read::<R>(&mut transaction, id).await? else { return Ok(None) };
        change(&mut record);
        write(&mut transaction, &record, Put::Replace).await?;
        if R::KIND == Client::KIND {
            end_client(&mut transaction, id, event.at).await?;
        } else if R::KIND == ResourceAuthorizationServer::KIND {
            end_party(&mut transaction, id, event.at).await?;
        } else if R::KIND == TrustedIssuer::KIND {
            end_issuer(&mut transaction, id, event.at).await?;
        }
        self.commit_directory(transaction, checked, event).await?;
        Ok(Some(record))
    }

    /// Ends an ID-JAG, or what was issued for one, or the tokens of one sign-in in the browser: whatever a
    /// token on record belongs to.
    pub async fn cut_off_grant(&self, grant: &Grant, event: AuditEvent) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        let now = event.at;
        match grant.kind {
            TokenKind::IdJag => {
                let end = "UPDATE grants SET revoked_at = $2 WHERE jti = $1 AND revoked_at IS NULL";
                let end = sqlx::query(end).bind(grant.jti.as_str()).bind(now.0);
                end.execute(&mut *transaction).await?;
            }
            TokenKind::AccessToken => {
                let of = (grant.party.as_str(), Some(grant.user_id.as_str()));
                let forget_after = now.plus(id_jag::LONGEST_LIFETIME);
                let lineage = [grant.lineage.clone()];
                end_id_jags(&mut transaction, of, &lineage, forget_after, now).await?;
                revoke_family(&mut transaction, &grant.lineage, now).await?;
            }
        }
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
    }

    /// A token on record by its `jti`, or one that was issued for the ID-JAG with this `jti`.
    pub async fn grant_or_of_id_jag(&self, jti: &str) -> Result<Option<Grant>, StoreError> {
        // The mark of a revoked family stands among them, and is nobody's.
        if let Some(grant) = self.grant_on_record(jti).await? {
            return Ok(Some(grant).filter(|grant| !grant.user_id.is_empty()));
        }
        let sql = format!(
            "SELECT {GRANT} FROM grants WHERE lineage = $1 AND kind = 'access_token' \
             ORDER BY expires_at DESC LIMIT 1"
        );
        self.rows_of(&sql, &[jti.to_owned()]).await?.first().map(grant_of).transpose()
    }

    /// The row of an act.
    pub async fn act(&self, id: i64) -> Result<Option<AuditRow>, StoreError> {
        let before = Some(id.saturating_add(1));
        let newest = AuditFilter { before, limit: 1, ..AuditFilter::default() };
        Ok(self.audit(&newest).await?.into_iter().find(|row| row.id == id))
    }

    /// The id of the row that a request wrote of an act; it was written a moment ago.
    pub async fn act_of_request(
        &self,
        event: &str,
        request_id: &str,
    ) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT id FROM audit WHERE event = $1 AND document LIKE $2 ESCAPE '!' \
                   ORDER BY id DESC LIMIT 1";
        let named = format!("%{}%", escaped(&format!("\"request_id\":\"{request_id}\"")));
        let rows = self.rows_of(sql, &[event.to_owned(), named]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }
}

/// Selects the notices of an act that wait.
fn waiting(of: &CutOff, at: Timestamp) -> String {
    let those = match of {
        CutOff::Person(_) => format!("user_id = $1 AND made_at = {}", at.0),
        // One whose ID-JAG is not on record any more may be of this act.
        _ => format!(
            "id_jag IN (SELECT jti FROM grants WHERE {}) OR (made_at >= {} AND made_at <= {} \
             AND id_jag <> '' AND NOT EXISTS \
             (SELECT 1 FROM grants held WHERE held.jti = revocation_notices.id_jag))",
            of.ended_id_jags(at),
            at.0,
            at.plus(60).0,
        ),
    };
    format!("SELECT DISTINCT party, user_id FROM revocation_notices WHERE {those}")
}
