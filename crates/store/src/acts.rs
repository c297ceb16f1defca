//! Administrators' acts on the directory. Each is one transaction, which checks the administrator
//! once more.

use crate::{
    administrators::{AdminRole, Administrator, DoneBefore, Expects, Once, Terms},
    connections::{Leaves, leave_connections},
    database::{Store, StoreError, reading},
    directory::{GENERATION, Generation, Put, read, remove, remove_where, tag_of, write},
    ledger::{AuditEvent, end_streams, insert_audit},
    people::{LetIn, end_provisioning, remove_links, remove_person_links},
    record::Record,
    rows::record,
    sign_in::{end_account, end_client, end_issuer, end_resource, end_upstream},
};
use passavant_proto::{
    event::Detail,
    oauth::client::{Client, GovernedResource},
    oidc::upstream::UpstreamProvider,
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer},
    ssf::Transmitter,
    time::Timestamp,
    xaa::trust::{Account, TrustedIssuer},
};
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

/// Proof that the administrator behind a change was checked in the transaction of the change.
pub(crate) struct Checked(());

impl Store {
    /// Begins a transaction that changes the directory ([`Store::begin_revoking`]). If the change
    /// is an administrator's act, it is refused unless they are still an administrator at this
    /// moment, by the same token and with the same role. An administrator who was removed after
    /// their request was authenticated can change nothing any more.
    pub(crate) async fn begin_act(
        &self,
        event: &AuditEvent,
    ) -> Result<(Transaction<'static, Any>, Checked), StoreError> {
        let mut transaction = self.begin_revoking().await?;
        if let Some(by) = &event.rests_on {
            let held = read::<Administrator>(&mut transaction, &by.name).await?;
            let stands = held.is_some_and(|held| {
                held.proof.stored_key == by.stored_key
                    && held.role == by.role
                    && event.at < held.expires_at
            });
            if !stands {
                return Err(StoreError::NoAdministrator);
            }
        }
        if let Some(terms) = &event.terms {
            hold_to(&mut transaction, terms, event.at).await?;
        }
        Ok((transaction, Checked(())))
    }

    /// The earlier act with this idempotency key, if there is one.
    pub async fn done_before(&self, key: &str) -> Result<Option<DoneBefore>, StoreError> {
        let sql = "SELECT request, status, answer FROM acts_once WHERE key = $1";
        let Some(row) = reading!(self, fetch_optional, sqlx::query(sql).bind(key))? else {
            return Ok(None);
        };
        let status: Option<i64> = row.try_get("status")?;
        let answer: Option<String> = row.try_get("answer")?;
        let status = status.and_then(|status| u16::try_from(status).ok());
        Ok(Some(DoneBefore { request: row.try_get("request")?, answer: status.zip(answer) }))
    }

    /// Stores the response to an act, in case the act is requested again.
    pub async fn keep_answer(
        &self,
        key: &str,
        status: u16,
        answer: &str,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_plain().await?;
        sqlx::query("UPDATE acts_once SET status = $2, answer = $3 WHERE key = $1")
            .bind(key)
            .bind(i64::from(status))
            .bind(answer)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Records an act that changes something outside the database: before the change is made, and
    /// only if its administrator is still one.
    pub async fn record_act(&self, event: AuditEvent) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_act(&event).await?;
        insert_audit(&mut transaction, &[event]).await?;
        Ok(transaction.commit().await?)
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
    /// Everything that names the record goes with it in the same transaction, so that a later
    /// record of the same name inherits nothing: the connections of a client or a server,
    /// connections that open only a deleted MCP server, the resources of a server, the links of a
    /// trusted issuer or an account, and every code, refresh token and grant. The event says how
    /// many records were deleted with it.
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

    /// Reads a record, changes it and writes it, in one transaction. Returns the record after the
    /// change, or `None` if it does not exist.
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

    /// Commits a change of the directory. Nodes of earlier versions know only one generation for
    /// the whole directory, so it changes here with every commit. What this version compares is
    /// changed by the database itself.
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

/// Checks the terms of an act, in its transaction.
async fn hold_to(
    transaction: &mut Transaction<'static, Any>,
    terms: &Terms,
    now: Timestamp,
) -> Result<(), StoreError> {
    if let Some(name) = &terms.leaves_an_owner_beside {
        let rows = sqlx::query("SELECT id, document FROM directory WHERE kind = $1")
            .bind(Administrator::KIND)
            .fetch_all(&mut **transaction)
            .await?;
        // An owner whose record cannot be read does not count as an owner.
        let all = rows.iter().filter_map(|row| record::<Administrator>(row).ok());
        let owners: Vec<Administrator> =
            all.filter(|held| held.role == AdminRole::Owner && held.expires_at > now).collect();
        if owners.iter().any(|held| held.name == *name)
            && !owners.iter().any(|held| held.name != *name)
        {
            return Err(StoreError::LastOwner(name.clone()));
        }
    }
    if let Some(policy) = terms.policy {
        let row = sqlx::query(GENERATION).fetch_one(&mut **transaction).await?;
        if Generation::of(&row)? != policy {
            return Err(StoreError::Stale);
        }
    }
    if let Some(Expects { kind, id, tag }) = &terms.expects {
        let sql = "SELECT document FROM directory WHERE kind = $1 AND id = $2";
        let row = sqlx::query(sql).bind(*kind).bind(id).fetch_optional(&mut **transaction).await?;
        // If the record does not exist, the act itself reports that.
        if let Some(row) = row
            && tag_of(row.try_get("document")?) != *tag
        {
            return Err(StoreError::Changed);
        }
    }
    if let Some(Once { key, request, forget_after }) = &terms.once {
        let done = sqlx::query(
            "INSERT INTO acts_once (key, request, forget_after) VALUES ($1, $2, $3) \
             ON CONFLICT DO NOTHING",
        )
        .bind(key)
        .bind(request)
        .bind(forget_after.0)
        .execute(&mut **transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::DoneBefore);
        }
    }
    Ok(())
}

/// Deletes what names a deleted record, and ends what it had. Returns how many records were
/// deleted.
async fn delete_what_names(
    transaction: &mut Transaction<'static, Any>,
    kind: &str,
    id: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut gone = 0;
    if kind == Client::KIND {
        end_client(transaction, id, now).await?;
        end_streams(transaction, id).await?;
        remove(transaction, LetIn::KIND, id).await?;
        gone += remove_where::<Connection>(transaction, id, |c| c.idp_client_id == id).await?;
    } else if kind == ResourceAuthorizationServer::KIND {
        gone += remove_where::<Connection>(transaction, id, |c| c.audience.as_str() == id).await?;
        let of_it = |r: &RegisteredResource| r.authorization_server.as_str() == id;
        gone += remove_where::<RegisteredResource>(transaction, id, of_it).await?;
    } else if kind == TrustedIssuer::KIND {
        gone += remove_links(transaction, "issuer", id).await?;
        gone += remove_where::<Transmitter>(transaction, id, |t| t.speaks_for == id).await?;
        end_issuer(transaction, id, now).await?;
    } else if kind == UpstreamProvider::KIND {
        end_upstream(transaction, id, now).await?;
        gone += remove_person_links(transaction, "upstream", id).await?;
        gone += remove_where::<Transmitter>(transaction, id, |t| t.speaks_for == id).await?;
        end_provisioning(transaction, id).await?;
    } else if kind == Account::KIND {
        gone += remove_links(transaction, "account", id).await?;
        end_account(transaction, id, now).await?;
    } else if kind == GovernedResource::KIND || kind == RegisteredResource::KIND {
        // At an authorization server a resource has tokens, at an IdP it has connections.
        end_resource(transaction, id, now).await?;
        let (_, went) = leave_connections(transaction, Some(id), |connection| {
            let before = connection.resources.len();
            connection.resources.retain(|resource| resource.normalized() != id);
            match connection.resources.len() {
                left if left == before => Leaves::NotThere,
                0 => Leaves::Nothing,
                _ => Leaves::Others,
            }
        })
        .await?;
        gone += went;
    }
    Ok(gone)
}
