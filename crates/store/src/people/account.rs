//! Accounts at a resource authorization server, and the people of trusted issuers that they belong
//! to.

use crate::{
    database::{Store, StoreError, reading},
    directory::{Put, Seen, read, remove, write},
    ledger::{AuditEvent, Said, SaidOnce, end_id_jags, end_until, insert_audit},
    record::{Record, record},
    rows::{self, to_json},
    sign_in::{end_account, end_account_of_issuer, end_issuer},
};
use passavant_proto::{
    event::Detail,
    time::Timestamp,
    xaa::trust::{Account, SubjectLink},
};
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

record!(
    Account,
    "account",
    |a| a.id.clone(),
    match &a.email {
        // An account without an address has its id as its name; the id contains no `@`.
        Some(email) => email.to_lowercase(),
        None => a.id.clone(),
    }
);

/// Links a person of a trusted issuer to an account.
#[derive(Clone)]
pub(crate) struct AccountLink {
    pub(crate) link: SubjectLink,
    pub(crate) account: String,
}
record!(AccountLink, "account link", |l| l.link.key());

/// What an issuer says has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedAccess<'a> {
    /// Whose.
    pub link: &'a SubjectLink,
    /// Everything that came by way of the issuer.
    pub all: bool,
    /// ID-JAGs, by their `jti`s.
    pub id_jags: &'a [String],
    /// Until when, by the issuer's clock.
    pub until: Timestamp,
    /// Tokens stand that were issued for an assertion from after `until`: then all that ended is named.
    pub later_stands: bool,
    /// When no ID-JAG from before can be accepted any more.
    pub forget_after: Timestamp,
}

/// What became of what an issuer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEnded {
    /// So many tokens and sign-ins ended.
    Now(u64),
    /// It was said before, and has ended then.
    Before,
    /// The same JWT came with something else before.
    SaidOtherwise,
    /// Nobody is linked as that person.
    Unknown,
}

impl Store {
    /// Unlinks a person of a trusted issuer from their account; `false` if they are not linked.
    pub async fn unlink(&self, link: &SubjectLink, event: AuditEvent) -> Result<bool, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let held = read::<AccountLink>(&mut transaction, &link.key()).await;
        if !remove(&mut transaction, AccountLink::KIND, &link.key()).await? {
            return Ok(false);
        }
        // It is unknown which of several linked people began which of the account's sign-ins, so
        // all end. If the link cannot be read, everything that came by way of its issuer ends.
        match held {
            Ok(Some(held)) => end_account(&mut transaction, &held.account, event.at).await?,
            _ => end_issuer(&mut transaction, link.issuer.as_str(), event.at).await?,
        }
        self.commit_directory(transaction, checked, event).await?;
        self.unreadable.forget(AccountLink::KIND, &link.key());
        Ok(true)
    }

    /// Changes an account, and ends what it had: for switching it off. Switching it on again
    /// restores none of that.
    pub async fn cut_off_account(
        &self,
        id: &str,
        change: impl FnOnce(&mut Account) + Send,
        event: AuditEvent,
    ) -> Result<Option<Account>, StoreError> {
        let (mut transaction, checked) = self.begin_act(&event).await?;
        let Some(mut account) = read::<Account>(&mut transaction, id).await? else {
            return Ok(None);
        };
        change(&mut account);
        write(&mut transaction, &account, Put::Replace).await?;
        end_account(&mut transaction, id, event.at).await?;
        self.commit_directory(transaction, checked, event).await?;
        Ok(Some(account))
    }

    /// Ends what an issuer says has ended: of the person that it names, everything that came by way of
    /// it, or what was issued for certain ID-JAGs. What it issued until `ended_at`, by its own clock, or
    /// these ID-JAGs, open nothing any more, whether or not the person has an account here. Once for
    /// each JWT that says so.
    pub async fn end_subject(
        &self,
        ended: &EndedAccess<'_>,
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
        let issuer = ended.link.issuer.as_str();
        let linked = read::<AccountLink>(&mut transaction, &ended.link.key()).await?;
        let account = linked.map(|linked| linked.account);
        let forget = ended.forget_after;
        let of = (issuer, account.as_deref());
        let mut gone = end_id_jags(&mut transaction, of, ended.id_jags, forget, now).await?;
        if ended.all {
            let subject = ended.link.subject.as_str();
            end_until(&mut transaction, (issuer, subject), ended.until, forget).await?;
            if let Some(account) = &account {
                let of = (account.as_str(), issuer);
                let until = ended.later_stands.then_some(ended.until);
                gone += end_account_of_issuer(&mut transaction, of, until, now).await?;
            }
        }
        let event = match &account {
            Some(account) => event.with(Detail::Count, gone.to_string()).person(account),
            None => event.refused("access_ended.unknown"),
        };
        insert_audit(&mut transaction, &[event]).await?;
        transaction.commit().await?;
        Ok(if account.is_some() { AccessEnded::Now(gone) } else { AccessEnded::Unknown })
    }

    /// The person of an issuer whose account has an address, if exactly one is linked to it.
    pub async fn linked_by_email(
        &self,
        issuer: &str,
        email: &str,
    ) -> Result<Option<SubjectLink>, StoreError> {
        let document = self.dialect.bytes("held.document");
        let sql = format!(
            "SELECT link.id, {document} AS document FROM directory account \
             JOIN account_links link ON link.account = account.id AND link.issuer = $1 \
             JOIN directory held ON held.kind = '{}' AND held.id = link.id \
             WHERE account.kind = '{}' AND account.name = $2 LIMIT 2",
            AccountLink::KIND,
            Account::KIND
        );
        let query = || {
            let name = email.to_lowercase();
            sqlx::query(AssertSqlSafe(sql.clone())).bind(issuer).bind(name)
        };
        let rows = reading!(self, fetch_all, query())?;
        let [row] = rows.as_slice() else { return Ok(None) };
        let held =
            self.noted::<AccountLink>(row.try_get("id")?, rows::text_of(row, "document")?)?;
        Ok(Some(held.link))
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

    /// People of a trusted issuer who are linked to accounts, 1000 at most.
    pub async fn links_of_issuer(&self, issuer: &str) -> Result<Vec<SubjectLink>, StoreError> {
        let document = self.dialect.bytes("held.document");
        let sql = format!(
            "SELECT held.id, {document} AS document FROM account_links link \
             JOIN directory held ON held.kind = '{}' AND held.id = link.id \
             WHERE link.issuer = $1 ORDER BY held.id LIMIT 1000",
            AccountLink::KIND
        );
        let rows = reading!(self, fetch_all, sqlx::query(AssertSqlSafe(sql.clone())).bind(issuer))?;
        let mut links = Vec::with_capacity(rows.len());
        for row in &rows {
            let held =
                self.noted::<AccountLink>(row.try_get("id")?, rows::text_of(row, "document")?);
            links.extend(held.ok().map(|held| held.link));
        }
        Ok(links)
    }

    /// The account that a person of a trusted issuer is linked to, if any, and the row versions
    /// that a decision on it is recorded against. Fails if a link exists but cannot be read.
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

    /// Links a person to an account, and creates the account if `account` does not exist. Of
    /// several concurrent calls one wins, and all get its account. `None` if the link leads to a
    /// deleted account.
    pub async fn link_account(
        &self,
        link: &SubjectLink,
        account: &Account,
        event: AuditEvent,
    ) -> Result<Option<Account>, StoreError> {
        // This takes nothing away, so mints need not wait for it.
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
                // Its name belongs to another account: nothing is linked or written.
                return Ok(None);
            }
            insert_audit(&mut transaction, &[event]).await?;
            transaction.commit().await?;
        }
        Ok(self.linked_account(link).await?.map(|(account, _)| account))
    }
}

/// Deletes the links that name an issuer or an account, whether or not they can be read.
pub(crate) async fn remove_links(
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
