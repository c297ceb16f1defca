//! People who sign in at an identity provider in front of which this one stands: whom they are
//! linked to, their sign-ins, and whether they are still there.

use crate::{
    database::{Store, StoreError, reading},
    directory::{Put, read, write},
    ledger::{AuditEvent, Said, SaidOnce, UsedJti, insert_audit, insert_jtis},
    people::{
        AccessEnded, Group, User, end_credentials,
        provisioning::{keep_unlinked, provisioned_as},
    },
    record::{Record, record},
    rows::document,
    sign_in::{Session, end_session, end_sign_ins, end_upstream, insert_session, leave_cookie},
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::SubjectIssuer,
    oidc::authentication::Authentication,
    oidc::upstream::UpstreamProvider,
    saml::SamlSubject,
    time::{SKEW, Timestamp},
    xaa::trust::SubjectLink,
};
use sqlx::{Any, AssertSqlSafe, Row, Transaction, any::AnyRow};
use std::collections::BTreeSet;

record!(UpstreamProvider, "upstream", |upstream| upstream.name.clone());

/// A person of an upstream who is linked to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonLink {
    /// What they are known by there.
    pub link: SubjectLink,
    /// The upstream's name.
    pub upstream: String,
    /// The user.
    pub user_id: String,
    /// When they were linked.
    pub linked_at: Timestamp,
}

/// What an upstream says about a person, to be written at their record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// When it was asked. What was told later is not overwritten.
    pub asked_at: Timestamp,
    /// E-mail address.
    pub email: Option<String>,
    /// Whether the address counts as verified.
    pub email_verified: bool,
    /// Display name.
    pub display_name: Option<String>,
    /// Given name.
    pub given_name: Option<String>,
    /// Family name.
    pub family_name: Option<String>,
    /// The groups that the upstream decides on, and those of them that the person is in; `None` if
    /// memberships stay as they are.
    pub groups: Option<(BTreeSet<String>, BTreeSet<String>)>,
    /// The name identifier there, if it speaks SAML.
    pub saml_subject: Option<SamlSubject>,
}

/// A verified sign-in at an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamSignIn {
    /// The upstream's record, as the sign-in was judged by it.
    pub upstream: UpstreamProvider,
    /// What the person is known by there.
    pub link: SubjectLink,
    /// The user name and the id that they get if they are new; `None` if no usable name was told.
    pub if_new: Option<(String, String)>,
    /// What else was told.
    pub told: Told,
    /// `sid` of the ID token: the session there.
    pub their_sid: Option<String>,
    /// The upstream's refresh token, sealed.
    pub sealed: Option<String>,
    /// The same, sealed to be kept with the link: for an upstream that gives it at the first consent
    /// alone.
    pub sealed_for_link: Option<String>,
    /// What it was proved by, where that is good once: recorded with the session.
    pub once: Option<UsedJti>,
}

/// The result of recording such a sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// The session has begun. The person was added at this sign-in, or not.
    Begun(Box<User>, bool),
    /// Nobody is linked, and the upstream adds nobody.
    Unknown,
    /// Nobody is linked, and no user name was told for a new person.
    NoName,
    /// Nobody is linked, and the user name belongs to somebody else.
    NameTaken(String),
    /// The user is switched off.
    Disabled(String),
    /// What it was proved by was used before.
    Replayed,
    /// The upstream's record changed since the sign-in was judged.
    Changed,
}

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is on record.
    Kept,
    /// The person, or the session, is gone here.
    Gone,
    /// Somebody else has the claim, or the upstream was changed meanwhile: nothing was written.
    Overtaken,
}

/// What an upstream says has ended there.
#[derive(Clone, Copy, Debug)]
pub struct LoggedOut<'a> {
    /// The upstream's name.
    pub upstream: &'a str,
    /// One session there.
    pub session: Option<&'a str>,
    /// The person; all of their sessions, if none is named.
    pub link: Option<&'a SubjectLink>,
    /// Sign-ins until then, by the upstream's clock; `None`: all until now.
    pub until: Option<Timestamp>,
}

/// A session that has to be checked at its upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueSession {
    /// The upstream's name.
    pub upstream: String,
    /// The person.
    pub user_id: String,
    /// The upstream's refresh token, sealed.
    pub sealed: String,
    /// When they were last known to be there.
    pub checked_at: Timestamp,
    /// Another request, maybe at another node, is asking until then; in one's own copy: this one.
    pub trying_until: Timestamp,
    /// The upstream did not answer; it is asked again then.
    pub retry_at: Timestamp,
}

impl Store {
    /// Records a sign-in at an upstream: finds or adds the person, writes what was told of them, and
    /// begins the session, all of it or nothing.
    pub async fn begin_upstream_session(
        &self,
        hashes: (&str, Option<&str>),
        session: &mut Session,
        sign_in: &UpstreamSignIn,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<UpstreamOutcome, StoreError> {
        // Most sign-ins change nothing about the person: they hold nobody off.
        match self.try_upstream_session(false, hashes, session, sign_in, &event, now).await? {
            Some(outcome) => Ok(outcome),
            None => {
                let again = self.try_upstream_session(true, hashes, session, sign_in, &event, now);
                Ok(again.await?.unwrap_or(UpstreamOutcome::Changed))
            }
        }
    }

    /// `None` if the person has to be added or changed, and this transaction may not do that.
    async fn try_upstream_session(
        &self,
        changing: bool,
        (cookie_hash, before): (&str, Option<&str>),
        session: &mut Session,
        sign_in: &UpstreamSignIn,
        event: &AuditEvent,
        now: Timestamp,
    ) -> Result<Option<UpstreamOutcome>, StoreError> {
        let mut transaction =
            if changing { self.begin_revoking().await? } else { self.begin().await? };
        let held = read::<UpstreamProvider>(&mut transaction, &sign_in.upstream.name).await?;
        if held.is_none_or(|held| held.disabled || held != sign_in.upstream) {
            return Ok(Some(UpstreamOutcome::Changed));
        }
        if let Some(once) = &sign_in.once
            && insert_jtis(&mut transaction, vec![once]).await?.is_empty()
        {
            return Ok(Some(UpstreamOutcome::Replayed));
        }
        let mut linked = linked_user(&mut transaction, &sign_in.link).await?;
        if linked.is_none() && sign_in.upstream.links_external_id() {
            let (name, subject) = (&sign_in.upstream.name, &sign_in.link.subject);
            if let Some(user_id) = provisioned_as(&mut transaction, name, subject).await? {
                if !changing {
                    return Ok(None);
                }
                put_link(&mut transaction, (name, &sign_in.link), &user_id, now).await?;
                let event = AuditEvent::granted(RequestEvent::ProvisionLink, now)
                    .person(&user_id)
                    .with(Detail::Issuer, sign_in.link.issuer.as_str())
                    .with(Detail::Subject, subject.as_str());
                insert_audit(&mut transaction, &[event]).await?;
                linked = Some(user_id);
            }
        }
        let known = match &linked {
            Some(user_id) => read::<User>(&mut transaction, user_id).await?,
            None => None,
        };
        let (mut user, added) = match (known, &sign_in.if_new) {
            (Some(user), _) => (user, false),
            (None, _) if !sign_in.upstream.just_in_time => {
                return Ok(Some(UpstreamOutcome::Unknown));
            }
            (None, None) => return Ok(Some(UpstreamOutcome::NoName)),
            (None, Some((username, id))) => (User::new(id, username), true),
        };
        if user.is_off() {
            return Ok(Some(UpstreamOutcome::Disabled(user.id)));
        }
        let before_change = user.clone();
        let whose = (&sign_in.link, user.id.as_str());
        let asked_at = sign_in.told.asked_at;
        if added || told_last(&mut transaction, whose, asked_at).await? {
            let groups = existing_groups(&mut transaction, &sign_in.told).await?;
            apply(&mut user, &sign_in.told, groups);
        }
        if !changing && (added || user != before_change) {
            return Ok(None);
        }
        if added {
            match write(&mut transaction, &user, Put::Create).await {
                Err(StoreError::NameTaken { .. }) => {
                    return Ok(Some(UpstreamOutcome::NameTaken(user.username)));
                }
                written => written?,
            };
            // A link to somebody who was deleted is worth nothing.
            put_link(&mut transaction, (&sign_in.upstream.name, &sign_in.link), &user.id, now)
                .await?;
            told_last(&mut transaction, (&sign_in.link, &user.id), asked_at).await?;
            let made = AuditEvent::granted(RequestEvent::PersonAdded, now)
                .person(&user.id)
                .with(Detail::Issuer, sign_in.link.issuer.as_str())
                .with(Detail::Subject, sign_in.link.subject.as_str());
            insert_audit(&mut transaction, &[made]).await?;
        } else if user != before_change {
            write(&mut transaction, &user, Put::Replace).await?;
            let row = changed(&before_change, &user, &sign_in.link, now);
            insert_audit(&mut transaction, &[row]).await?;
        }
        if let Some(sealed) = &sign_in.sealed_for_link {
            keep_link_token(&mut transaction, &sign_in.link, sealed).await?;
        }
        session.user_id.clone_from(&user.id);
        if let Some(before) = before {
            leave_cookie(&mut transaction, before, session).await?;
        }
        insert_session(&mut transaction, cookie_hash, session).await?;
        let keep = "INSERT INTO upstream_sessions \
                    (sid, upstream, user_id, sealed, checked_at, trying_until, retry_at, their_sid) \
                    VALUES ($1, $2, $3, $4, $5, 0, 0, $6)";
        sqlx::query(keep)
            .bind(session.sid.as_str())
            .bind(sign_in.upstream.name.as_str())
            .bind(user.id.as_str())
            .bind(sign_in.sealed.as_deref().unwrap_or_default())
            .bind(now.0)
            .bind(sign_in.their_sid.as_deref().unwrap_or_default())
            .execute(&mut *transaction)
            .await?;
        insert_audit(&mut transaction, &[event.clone().person(&user.id)]).await?;
        transaction.commit().await?;
        Ok(Some(UpstreamOutcome::Begun(Box::new(user), added)))
    }

    /// The session, if it has to be checked at its upstream: it was last checked before `before`, or,
    /// by a clock that was wrong, after `latest`.
    pub async fn due_session(
        &self,
        sid: &str,
        (before, latest): (Timestamp, Timestamp),
    ) -> Result<Option<DueSession>, StoreError> {
        let sql = "SELECT upstream, user_id, sealed, checked_at, trying_until, retry_at \
                   FROM upstream_sessions WHERE sid = $1 AND sealed <> '' \
                   AND (checked_at <= $2 OR checked_at > $3)";
        let query = || sqlx::query(sql).bind(sid).bind(before.0).bind(latest.0);
        let row = reading!(self, fetch_optional, query())?;
        let due = |row: AnyRow| -> Result<DueSession, StoreError> {
            Ok(DueSession {
                upstream: row.try_get("upstream")?,
                user_id: row.try_get("user_id")?,
                sealed: row.try_get("sealed")?,
                checked_at: Timestamp(row.try_get("checked_at")?),
                trying_until: Timestamp(row.try_get("trying_until")?),
                retry_at: Timestamp(row.try_get("retry_at")?),
            })
        };
        row.map(due).transpose()
    }

    /// Claims the right to ask the upstream about a session until `until`. One request of all nodes
    /// gets it: the session, as claimed.
    pub async fn claim_check(
        &self,
        sid: &str,
        due: &DueSession,
        until: Timestamp,
    ) -> Result<Option<DueSession>, StoreError> {
        let mut transaction = self.begin_plain().await?;
        let claim = "UPDATE upstream_sessions SET trying_until = $4 \
                     WHERE sid = $1 AND checked_at = $2 AND trying_until = $3 AND sealed = $5";
        let claimed = sqlx::query(claim)
            .bind(sid)
            .bind(due.checked_at.0)
            .bind(due.trying_until.0)
            .bind(until.0)
            .bind(due.sealed.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let mine = DueSession { trying_until: until, ..due.clone() };
        Ok((claimed.rows_affected() == 1).then_some(mine))
    }

    /// Stores the upstream's next refresh token, before anything else is known of its answer: the one
    /// before may be used up. Returns whether the claim still stood.
    pub async fn keep_token(
        &self,
        sid: &str,
        mine: &DueSession,
        sealed: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_plain().await?;
        let keep = "UPDATE upstream_sessions SET sealed = $4 \
                    WHERE sid = $1 AND checked_at = $2 AND trying_until = $3";
        let kept = sqlx::query(keep)
            .bind(sid)
            .bind(mine.checked_at.0)
            .bind(mine.trying_until.0)
            .bind(sealed)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(kept.rows_affected() == 1)
    }

    /// Records that the upstream did not answer: it is asked again at `retry_at`.
    pub async fn check_failed(
        &self,
        sid: &str,
        mine: &DueSession,
        retry_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        let failed = "UPDATE upstream_sessions SET trying_until = 0, retry_at = $4 \
                      WHERE sid = $1 AND checked_at = $2 AND trying_until = $3";
        sqlx::query(failed)
            .bind(sid)
            .bind(mine.checked_at.0)
            .bind(mine.trying_until.0)
            .bind(retry_at.0)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Records that the person of a session is still there, and what the upstream told of them. What
    /// was judged by an upstream's record that has changed since counts for nothing, nor does what
    /// was told before something else.
    pub async fn keep_checked(
        &self,
        (sid, mine): (&str, &DueSession),
        judged_by: &UpstreamProvider,
        told: Option<(&SubjectLink, &Told)>,
        now: Timestamp,
    ) -> Result<Checked, StoreError> {
        for changing in [false, true] {
            // Most checks change nothing about the person: they hold nobody off.
            let mut transaction =
                if changing { self.begin_revoking().await? } else { self.begin().await? };
            let held = read::<UpstreamProvider>(&mut transaction, &judged_by.name).await?;
            let stands = held.is_some_and(|held| held == *judged_by);
            // As if it had not been asked: the next request asks by the record as it is.
            let checked_at = if stands { now } else { mine.checked_at };
            let keep = "UPDATE upstream_sessions \
                        SET checked_at = $4, trying_until = 0, retry_at = 0 \
                        WHERE sid = $1 AND checked_at = $2 AND trying_until = $3";
            let kept = sqlx::query(keep)
                .bind(sid)
                .bind(mine.checked_at.0)
                .bind(mine.trying_until.0)
                .bind(checked_at.0)
                .execute(&mut *transaction)
                .await?;
            if kept.rows_affected() == 0 {
                return Ok(Checked::Overtaken);
            }
            if !stands {
                transaction.commit().await?;
                return Ok(Checked::Overtaken);
            }
            let Some(mut user) = read::<User>(&mut transaction, &mine.user_id).await? else {
                return Ok(Checked::Gone);
            };
            let before = user.clone();
            if let Some((link, told)) = told
                && told_last(&mut transaction, (link, &user.id), told.asked_at).await?
            {
                let groups = existing_groups(&mut transaction, told).await?;
                apply(&mut user, told, groups);
                if user != before {
                    if !changing {
                        continue;
                    }
                    write(&mut transaction, &user, Put::Replace).await?;
                    let row = changed(&before, &user, link, now);
                    insert_audit(&mut transaction, &[row]).await?;
                }
            }
            transaction.commit().await?;
            return Ok(Checked::Kept);
        }
        Ok(Checked::Overtaken)
    }

    /// The refresh token that was kept with a link, sealed; empty if there is none.
    pub async fn link_token(&self, link: &SubjectLink) -> Result<String, StoreError> {
        let sql = "SELECT sealed FROM upstream_links \
                   WHERE issuer = $1 AND tenant = $2 AND subject = $3";
        let query = || {
            sqlx::query(sql)
                .bind(link.issuer.as_str())
                .bind(tenant_of(link))
                .bind(link.subject.as_str())
        };
        let row = reading!(self, fetch_optional, query())?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
    }

    /// Ends a session that the upstream no longer answers for, and what it brought, unless somebody
    /// else has claimed it meanwhile: `false`. What is kept with a link as `spent` is the token that
    /// was refused, and goes too.
    pub async fn end_upstream_session(
        &self,
        (sid, mine): (&str, &DueSession),
        spent: Option<&str>,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        let gone = "DELETE FROM upstream_sessions \
                    WHERE sid = $1 AND checked_at = $2 AND trying_until = $3";
        let gone = sqlx::query(gone)
            .bind(sid)
            .bind(mine.checked_at.0)
            .bind(mine.trying_until.0)
            .execute(&mut *transaction)
            .await?;
        if gone.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(spent) = spent {
            let forget = "UPDATE upstream_links SET sealed = '' \
                          WHERE upstream = $1 AND user_id = $2 AND sealed = $3";
            sqlx::query(forget)
                .bind(mine.upstream.as_str())
                .bind(mine.user_id.as_str())
                .bind(spent)
                .execute(&mut *transaction)
                .await?;
        }
        end_session(&mut transaction, sid, now).await?;
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Ends what an upstream says has ended there, once for each token that says so.
    pub async fn log_out(
        &self,
        of: LoggedOut<'_>,
        said: &SaidOnce,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<AccessEnded, StoreError> {
        let mut transaction = self.begin_revoking().await?;
        match said.say(&mut transaction).await? {
            Said::First => {}
            Said::Again => return Ok(AccessEnded::Before),
            Said::Otherwise => return Ok(AccessEnded::SaidOtherwise),
        }
        let user_id = match of.link {
            Some(link) => linked_user(&mut transaction, link).await?,
            None => None,
        };
        // A session that is named is one of the person who is named, if both are.
        let mut sids = Vec::new();
        if of.session.is_some() || user_id.is_some() {
            let sql = "SELECT of.sid, held.authentication FROM upstream_sessions of \
                       LEFT JOIN sessions held ON held.sid = of.sid WHERE of.upstream = $1 \
                       AND ($2 = '' OR of.their_sid = $2) AND ($3 = '' OR of.user_id = $3)";
            let rows = sqlx::query(sql)
                .bind(of.upstream)
                .bind(of.session.unwrap_or_default())
                .bind(user_id.as_deref().unwrap_or_default())
                .fetch_all(&mut *transaction)
                .await?;
            // Nobody is linked as the person who is named: no session is theirs.
            if of.link.is_none() || user_id.is_some() {
                for row in &rows {
                    // One that cannot be read ends.
                    let later = of.until.is_some_and(|until| {
                        let how = document::<Authentication>(row, "authentication", "session");
                        how.is_ok_and(|how| how.auth_time.since(until) > SKEW)
                    });
                    if !later {
                        sids.push(row.try_get::<String, _>("sid")?);
                    }
                }
            }
        }
        for sid in &sids {
            end_session(&mut transaction, sid, now).await?;
            sqlx::query("DELETE FROM upstream_sessions WHERE sid = $1")
                .bind(sid.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        let mut event = event.with(Detail::Count, sids.len().to_string());
        if let Some(user_id) = &user_id {
            event = event.person(user_id);
        }
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        let known = of.link.is_none() || user_id.is_some();
        let count = u64::try_from(sids.len()).unwrap_or(u64::MAX);
        Ok(if known { AccessEnded::Now(count) } else { AccessEnded::Unknown })
    }

    /// The person of an upstream who has an e-mail address here, if exactly one is linked.
    pub async fn person_by_email(
        &self,
        upstream: &str,
        email: &str,
    ) -> Result<Option<SubjectLink>, StoreError> {
        let sql = "SELECT link.issuer, link.tenant, link.subject FROM people \
                   JOIN upstream_links link ON link.user_id = people.id AND link.upstream = $1 \
                   WHERE people.email = $2 LIMIT 2";
        let rows = reading!(self, fetch_all, sqlx::query(sql).bind(upstream).bind(email))?;
        let [row] = rows.as_slice() else { return Ok(None) };
        let Ok(issuer) = SubjectIssuer::parse(row.try_get("issuer")?) else { return Ok(None) };
        let tenant: String = row.try_get("tenant")?;
        let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
        Ok(Some(SubjectLink { issuer, tenant, subject: row.try_get("subject")? }))
    }

    /// The upstream by way of which a session began, if it did.
    pub async fn upstream_of(&self, sid: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT upstream FROM upstream_sessions WHERE sid = $1";
        let row = reading!(self, fetch_optional, sqlx::query(sql).bind(sid))?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Changes an upstream, and ends what people had by way of it: for switching it off, or for letting
    /// in fewer of them.
    pub async fn close_upstream(
        &self,
        name: &str,
        change: impl FnOnce(&mut UpstreamProvider) + Send,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<Option<UpstreamProvider>, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(mut upstream) = read::<UpstreamProvider>(&mut transaction, name).await? else {
            return Ok(None);
        };
        change(&mut upstream);
        write(&mut transaction, &upstream, Put::Replace).await?;
        end_upstream(&mut transaction, name, now).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(Some(upstream))
    }

    /// Links a person of an upstream to a user; `false` if they are linked already, or if there is
    /// no such user.
    pub async fn link_person(
        &self,
        (upstream, link): (&str, &SubjectLink),
        user_id: &str,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        if read::<User>(&mut transaction, user_id).await?.is_none() {
            return Ok(false);
        }
        if let Some(linked) = linked_user(&mut transaction, link).await?
            && read::<User>(&mut transaction, &linked).await?.is_some()
        {
            return Ok(false);
        }
        put_link(&mut transaction, (upstream, link), user_id, now).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }

    /// Unlinks a person of an upstream, and ends the user's sign-ins, whichever way they came: the
    /// link may have been somebody else's. Returns `false` if they are not linked.
    pub async fn unlink_person(
        &self,
        link: &SubjectLink,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(user_id) = linked_user(&mut transaction, link).await? else { return Ok(false) };
        delete_link(&mut transaction, link).await?;
        keep_unlinked(&mut transaction, &user_id).await?;
        // The name identifier came with the link.
        if let Some(mut user) = read::<User>(&mut transaction, &user_id).await?
            && user.saml_subject.as_ref().is_some_and(|held| held.issuer == link.issuer)
        {
            user.saml_subject = None;
            write(&mut transaction, &user, Put::Replace).await?;
        }
        end_sign_ins(&mut transaction, &user_id, now).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(true)
    }

    /// The links of a user, or of an upstream, 1000 at most.
    pub async fn person_links(
        &self,
        user_id: Option<&str>,
        upstream: Option<&str>,
    ) -> Result<Vec<PersonLink>, StoreError> {
        let column = if user_id.is_some() { "user_id" } else { "upstream" };
        let sql = format!(
            "SELECT issuer, tenant, subject, upstream, user_id, linked_at FROM upstream_links \
             WHERE {column} = $1 ORDER BY issuer, tenant, subject LIMIT 1000"
        );
        let key = user_id.or(upstream).unwrap_or_default();
        let rows = reading!(self, fetch_all, sqlx::query(AssertSqlSafe(sql.clone())).bind(key))?;
        let mut links = Vec::with_capacity(rows.len());
        for row in &rows {
            let issuer: &str = row.try_get("issuer")?;
            let Ok(issuer) = SubjectIssuer::parse(issuer) else { continue };
            let tenant: String = row.try_get("tenant")?;
            links.push(PersonLink {
                link: SubjectLink {
                    issuer,
                    tenant: Some(tenant).filter(|tenant| !tenant.is_empty()),
                    subject: row.try_get("subject")?,
                },
                upstream: row.try_get("upstream")?,
                user_id: row.try_get("user_id")?,
                linked_at: Timestamp(row.try_get("linked_at")?),
            });
        }
        Ok(links)
    }
}

/// Writes what was told. What was not told stays.
fn apply(user: &mut User, told: &Told, groups: Option<(BTreeSet<String>, BTreeSet<String>)>) {
    if told.email.is_some() {
        user.email.clone_from(&told.email);
        user.email_verified = told.email_verified;
    }
    for (place, said) in [
        (&mut user.display_name, &told.display_name),
        (&mut user.given_name, &told.given_name),
        (&mut user.family_name, &told.family_name),
    ] {
        if said.is_some() {
            place.clone_from(said);
        }
    }
    if told.saml_subject.is_some() {
        user.saml_subject.clone_from(&told.saml_subject);
    }
    if let Some((decides_on, is_in)) = groups {
        user.groups.retain(|group| !decides_on.contains(group));
        user.groups.extend(is_in);
    }
}

/// Marks that something was told of a user by a link, that was asked at this time. Returns whether
/// nothing was told of them later, and the link is theirs. A mark that is far ahead was set by a
/// clock that was wrong.
async fn told_last(
    transaction: &mut Transaction<'static, Any>,
    (link, user_id): (&SubjectLink, &str),
    asked_at: Timestamp,
) -> Result<bool, StoreError> {
    let mark = "UPDATE upstream_links SET told_at = $4 \
                WHERE issuer = $1 AND tenant = $2 AND subject = $3 AND user_id = $5 \
                AND (told_at <= $4 OR told_at > $6)";
    let marked = sqlx::query(mark)
        .bind(link.issuer.as_str())
        .bind(tenant_of(link))
        .bind(link.subject.as_str())
        .bind(asked_at.0)
        .bind(user_id)
        .bind(asked_at.plus(2 * SKEW).0)
        .execute(&mut **transaction)
        .await?;
    Ok(marked.rows_affected() == 1)
}

/// The row about what an upstream changed of a person.
fn changed(before: &User, after: &User, link: &SubjectLink, now: Timestamp) -> AuditEvent {
    AuditEvent::granted(RequestEvent::PersonChanged, now)
        .person(&after.id)
        .with(Detail::Issuer, link.issuer.as_str())
        .with(Detail::Subject, link.subject.as_str())
        .with(Detail::More, changed_of(before, after))
}

/// What differs, without what it is: groups by name, the others by what they are called.
pub(crate) fn changed_of(before: &User, after: &User) -> String {
    let mut what: Vec<String> = Vec::new();
    // A name with a comma in it is no list of names.
    let named = |group: &String| {
        if group.contains([',', '`']) { format!("`{group}`") } else { group.clone() }
    };
    let into =
        after.groups.difference(&before.groups).map(|group| format!("into {}", named(group)));
    what.extend(into);
    let out =
        before.groups.difference(&after.groups).map(|group| format!("out of {}", named(group)));
    what.extend(out);
    for (name, differs) in [
        ("email", before.email != after.email || before.email_verified != after.email_verified),
        ("username", before.username != after.username),
        ("display_name", before.display_name != after.display_name),
        ("given_name", before.given_name != after.given_name),
        ("family_name", before.family_name != after.family_name),
        ("attributes", before.attributes != after.attributes),
        ("name_id", before.saml_subject != after.saml_subject),
    ] {
        what.extend(differs.then(|| name.to_owned()));
    }
    what.join(", ").chars().take(1000).collect()
}

/// What was told about groups, without groups that do not exist here: a later group of such a name
/// gains nobody.
async fn existing_groups(
    transaction: &mut Transaction<'static, Any>,
    told: &Told,
) -> Result<Option<(BTreeSet<String>, BTreeSet<String>)>, StoreError> {
    let Some((decides_on, is_in)) = &told.groups else { return Ok(None) };
    let mut existing = BTreeSet::new();
    for group in is_in.intersection(decides_on) {
        let there = sqlx::query("SELECT id FROM directory WHERE kind = $1 AND id = $2")
            .bind(Group::KIND)
            .bind(group.as_str())
            .fetch_optional(&mut **transaction)
            .await?;
        existing.extend(there.map(|_| group.clone()));
    }
    Ok(Some((decides_on.clone(), existing)))
}

/// The stored form of a tenant: none is the empty text.
fn tenant_of(link: &SubjectLink) -> &str {
    link.tenant.as_deref().unwrap_or_default()
}

async fn linked_user(
    transaction: &mut Transaction<'static, Any>,
    link: &SubjectLink,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT user_id FROM upstream_links \
               WHERE issuer = $1 AND tenant = $2 AND subject = $3";
    let row = sqlx::query(sql)
        .bind(link.issuer.as_str())
        .bind(tenant_of(link))
        .bind(link.subject.as_str())
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

async fn keep_link_token(
    transaction: &mut Transaction<'static, Any>,
    link: &SubjectLink,
    sealed: &str,
) -> Result<(), StoreError> {
    let keep = "UPDATE upstream_links SET sealed = $4 \
                WHERE issuer = $1 AND tenant = $2 AND subject = $3";
    sqlx::query(keep)
        .bind(link.issuer.as_str())
        .bind(tenant_of(link))
        .bind(link.subject.as_str())
        .bind(sealed)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn delete_link(
    transaction: &mut Transaction<'static, Any>,
    link: &SubjectLink,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM upstream_links WHERE issuer = $1 AND tenant = $2 AND subject = $3")
        .bind(link.issuer.as_str())
        .bind(tenant_of(link))
        .bind(link.subject.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn put_link(
    transaction: &mut Transaction<'static, Any>,
    (upstream, link): (&str, &SubjectLink),
    user_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    delete_link(transaction, link).await?;
    // From now on what they need to sign in is decided there: what is left here would be in no one's hand.
    end_credentials(transaction, user_id).await?;
    sqlx::query(
        "INSERT INTO upstream_links (issuer, tenant, subject, upstream, user_id, linked_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(link.issuer.as_str())
    .bind(tenant_of(link))
    .bind(link.subject.as_str())
    .bind(upstream)
    .bind(user_id)
    .bind(now.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Deletes the links of a user or of an upstream. Returns how many there were.
pub(crate) async fn remove_person_links(
    transaction: &mut Transaction<'static, Any>,
    column: &'static str,
    named: &str,
) -> Result<usize, StoreError> {
    let sql = format!("DELETE FROM upstream_links WHERE {column} = $1");
    let done = sqlx::query(AssertSqlSafe(sql)).bind(named).execute(&mut **transaction).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

/// Takes a group out of what the groups of upstreams mean: a later group of its name gains nobody.
pub(crate) async fn leave_upstream_groups(
    transaction: &mut Transaction<'static, Any>,
    group: &str,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
        .bind(UpstreamProvider::KIND)
        .fetch_all(&mut **transaction)
        .await?;
    for row in &rows {
        // One that cannot be read signs nobody in; when it can be again, groups that are not there
        // are left out.
        let Ok(mut upstream) = crate::rows::record::<UpstreamProvider>(row) else { continue };
        let before = upstream.groups.len();
        upstream.groups.retain(|_, means| means != group);
        if upstream.groups.len() != before {
            write(transaction, &upstream, Put::Replace).await?;
        }
    }
    Ok(())
}
