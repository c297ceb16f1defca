//! Cutting off: what it would end, the act, and what has become of it.

use super::{ActError, ManagedKind as _, Switched as _, context::ActContext, people};
use crate::{
    servers::{Administration, IdpAdmin, RasAdmin},
    types::{
        Accounts, AuthorizationServers, Clients, Connections, CutOffCounts, CutOffPreview,
        CutOffReport, CutOffRequest, CutOffServerPreview, CutOffServerReport, CutOffServerState,
        CutOffTarget, Kind as _, RasCutOffRequest, TrustedIssuers, Users,
    },
};
use passavant_proto::{
    event::{Act, Detail, Event},
    oauth::{
        access_token,
        client::{Client, ENROLLED_CLIENT},
        client_document::INSTALLATIONS,
        metadata::Revocations,
    },
    policy::{Connection, Person, Policy, Question, ResourceAuthorizationServer},
    time::Timestamp,
    xaa::{id_jag, trust::TrustedIssuer},
};
use passavant_store::{
    CutOff, CutOffRecord, Ends, Grant, Outcome, Record, ServerEnds, TokenKind, User,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, future::Future};
use utoipa::ToSchema;

/// What an act on an ID-JAG, or on what was issued for one, is called in the trail.
const GRANT: &str = "grant";
/// What can be cut off, here or there.
const TARGETS: [CutOffTarget; 7] = [
    CutOffTarget::Person,
    CutOffTarget::Client,
    CutOffTarget::Installation,
    CutOffTarget::Connection,
    CutOffTarget::Server,
    CutOffTarget::Issuer,
    CutOffTarget::Grant,
];

/// A server where something can be cut off.
pub(crate) trait CutsOff: Administration {
    type Request: Into<(CutOffTarget, String)>
        + Serialize
        + DeserializeOwned
        + ToSchema
        + Send
        + Sync
        + 'static;
    /// The tokens that it issues.
    const ISSUES: TokenKind;

    /// The id of the record that somebody names, or the `jti`.
    fn record_of(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        named: &str,
    ) -> impl Future<Output = Result<String, ActError>> + Send;

    /// What the ledger calls it; `None` if the record is gone.
    fn in_ledger(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        record: &str,
    ) -> impl Future<Output = Result<Option<CutOff>, ActError>> + Send;

    /// Ends it, by the act that there is for that.
    fn end(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        record: &str,
    ) -> impl Future<Output = Result<(), ActError>> + Send;

    /// What would end.
    fn would_end(
        &self,
        context: &ActContext,
        record: &str,
        of: &CutOff,
    ) -> impl Future<Output = Result<Ends, ActError>> + Send;

    /// Which ends of access these authorization servers can be told of.
    fn take_revocations(
        &self,
        issuers: Vec<String>,
    ) -> impl Future<Output = Vec<Option<Revocations>>> + Send;
}

/// How the trail calls the act.
fn event_of<A: CutsOff>(target: CutOffTarget) -> Event {
    let (act, kind) = match target {
        CutOffTarget::Person => (Act::Disable, A::PERSON),
        CutOffTarget::Client => (Act::Disable, Client::KIND),
        CutOffTarget::Installation => (Act::Revoke, "installation"),
        CutOffTarget::Connection => (Act::Disable, Connection::KIND),
        CutOffTarget::Server => (Act::Disable, ResourceAuthorizationServer::KIND),
        CutOffTarget::Issuer => (Act::Disable, TrustedIssuer::KIND),
        CutOffTarget::Grant => (Act::Revoke, GRANT),
    };
    Event::Admin(act, kind)
}

fn not_here(target: CutOffTarget) -> ActError {
    let what = if target == CutOffTarget::Issuer { "a trusted issuer" } else { "that" };
    ActError::invalid(
        format!("`target`: {what} is not administered at this server"),
        "`/openapi.json` says what can be cut off where",
    )
}

fn no_grant(jti: &str, hint: &str) -> ActError {
    ActError::Missing(format!("no token on record has the id (`jti`) `{jti}`"), hint.to_owned())
}

/// Switches a record off and ends what came by way of it.
async fn switch_off<R: Record>(
    context: &ActContext,
    (noun, id): (&str, &str),
    off: impl FnOnce(&mut R) + Send,
) -> Result<(), ActError> {
    let event = context.event::<R>(Act::Disable, id);
    let found = context.store.cut_off::<R>(id, off, event).await?;
    found.map(|_| ()).ok_or_else(|| ActError::missing(noun, id))
}

async fn end_grant(context: &ActContext, grant: &Grant, record: &str) -> Result<(), ActError> {
    let event = context
        .act(Act::Revoke, GRANT)
        .with(Detail::Record, record)
        .person(&grant.user_id)
        .client(&grant.client_id);
    Ok(context.store.cut_off_grant(grant, event).await?)
}

impl CutsOff for IdpAdmin {
    type Request = CutOffRequest;
    const ISSUES: TokenKind = TokenKind::IdJag;

    async fn record_of(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        named: &str,
    ) -> Result<String, ActError> {
        match target {
            CutOffTarget::Person => return Users::id_of(self, context, named).await,
            CutOffTarget::Client => {
                context.find::<Client>(Clients::NOUN, named).await?;
            }
            CutOffTarget::Installation => {
                let held = context.store.installation(named).await?;
                held.ok_or_else(|| ActError::missing("installation", named))?;
            }
            CutOffTarget::Connection => {
                context.find::<Connection>(Connections::NOUN, named).await?;
            }
            CutOffTarget::Server => {
                let noun = AuthorizationServers::NOUN;
                context.find::<ResourceAuthorizationServer>(noun, named).await?;
            }
            CutOffTarget::Grant => {
                id_jag_of(context, named).await?;
            }
            CutOffTarget::Issuer => return Err(not_here(target)),
        }
        Ok(named.to_owned())
    }

    async fn in_ledger(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        record: &str,
    ) -> Result<Option<CutOff>, ActError> {
        let id = record.to_owned();
        Ok(Some(match target {
            CutOffTarget::Person => CutOff::Person(id),
            CutOffTarget::Client => CutOff::Client(id),
            CutOffTarget::Installation => {
                let client = self.issuer().endpoint(&format!("{INSTALLATIONS}/{id}"));
                CutOff::Installation { id, client }
            }
            CutOffTarget::Connection => {
                let Some(connection) = context.store.by_id::<Connection>(&id).await? else {
                    return Ok(None);
                };
                let installations = connection.idp_client_id == ENROLLED_CLIENT;
                let client = if installations {
                    self.issuer().endpoint(&format!("{INSTALLATIONS}/"))
                } else {
                    connection.idp_client_id
                };
                CutOff::Connection {
                    audience: connection.audience.to_string(),
                    client,
                    installations,
                }
            }
            CutOffTarget::Server => CutOff::Server(id),
            CutOffTarget::Grant => CutOff::Grant(id),
            CutOffTarget::Issuer => return Err(not_here(target)),
        }))
    }

    async fn end(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        record: &str,
    ) -> Result<(), ActError> {
        match target {
            CutOffTarget::Person => Users::switch(self, context, record, true).await.map(|_| ()),
            CutOffTarget::Client => {
                let off = |client: &mut Client| client.disabled = true;
                switch_off(context, (Clients::NOUN, record), off).await
            }
            CutOffTarget::Installation => people::revoke_installation(self, context, record).await,
            CutOffTarget::Connection => {
                Connections::switch(self, context, record, true).await.map(|_| ())
            }
            CutOffTarget::Server => {
                let off = |server: &mut ResourceAuthorizationServer| server.disabled = true;
                switch_off(context, (AuthorizationServers::NOUN, record), off).await
            }
            CutOffTarget::Grant => {
                end_grant(context, &id_jag_of(context, record).await?, record).await
            }
            CutOffTarget::Issuer => Err(not_here(target)),
        }
    }

    async fn would_end(
        &self,
        context: &ActContext,
        record: &str,
        of: &CutOff,
    ) -> Result<Ends, ActError> {
        if let CutOff::Connection { installations, .. } = of {
            return without_connection(self, context, record, (of, *installations)).await;
        }
        Ok(context.store.would_end(of, Self::ISSUES, context.now()).await?)
    }

    async fn take_revocations(&self, issuers: Vec<String>) -> Vec<Option<Revocations>> {
        match &self.0.take_revocations {
            Some(ask) => ask(issuers).await,
            None => vec![None; issuers.len()],
        }
    }
}

async fn id_jag_of(context: &ActContext, jti: &str) -> Result<Grant, ActError> {
    let held = context.store.grant_on_record(jti).await?;
    held.filter(|grant| grant.kind == TokenKind::IdJag).ok_or_else(|| {
        no_grant(
            jti,
            "the identity provider knows ID-JAGs, until an hour after they have expired: an access token names \
             its ID-JAG as `txn`",
        )
    })
}

/// What ends if the policy is asked about each ID-JAG as if a connection were switched off.
async fn without_connection(
    idp: &IdpAdmin,
    context: &ActContext,
    id: &str,
    (of, installations): (&CutOff, bool),
) -> Result<Ends, ActError> {
    let (store, now) = (&context.store, context.now());
    let off = |connection: &mut Connection| connection.disabled |= connection.id == id;
    let policy = store.policy_as_if(idp.issuer(), off).await?;
    let mut people: BTreeMap<String, Option<User>> = BTreeMap::new();
    let mut servers: BTreeMap<String, ServerEnds> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let grants = store.id_jags_of(of, now, &after).await?;
        let Some(last) = grants.last() else { break };
        after.clone_from(&last.jti);
        for grant in &grants {
            if !people.contains_key(&grant.user_id) {
                let user = store.usable::<User>(&grant.user_id).await?;
                people.insert(grant.user_id.clone(), user);
            }
            let user = people.get(&grant.user_id).and_then(Option::as_ref);
            if !stands(context, &policy, (grant, user), installations).await? {
                let server = servers.entry(grant.party.clone()).or_insert_with(|| ServerEnds {
                    party: grant.party.clone(),
                    ..ServerEnds::default()
                });
                server.id_jags += 1;
                server.expires_at = server.expires_at.max(Some(grant.expires_at));
            }
        }
    }
    Ok(Ends { servers: servers.into_values().collect(), ..Ends::default() })
}

/// Whether a policy would still issue an ID-JAG.
async fn stands(
    context: &ActContext,
    policy: &Policy,
    (grant, user): (&Grant, Option<&User>),
    installations: bool,
) -> Result<bool, ActError> {
    let session = context.store.session_authentication(&grant.lineage).await?;
    let (Some(user), Some(authentication)) = (user, &session) else { return Ok(false) };
    let opens = grant.opens.as_ref();
    let question = Question {
        person: Person { id: &user.id, groups: &user.groups },
        idp_client_id: if installations { ENROLLED_CLIENT } else { &grant.client_id },
        document: installations.then_some(grant.client_id.as_str()),
        authentication,
        audience: &grant.party,
        resources: opens.map_or(&[], |opens| &opens.resources),
        scopes: opens.map(|opens| &opens.scopes).filter(|scopes| !scopes.is_empty()),
        now: grant.expires_at.plus(-id_jag::LIFETIME),
    };
    Ok(policy.still_permits(&question, opens.is_some()))
}

impl CutsOff for RasAdmin {
    type Request = RasCutOffRequest;
    const ISSUES: TokenKind = TokenKind::AccessToken;

    async fn record_of(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        named: &str,
    ) -> Result<String, ActError> {
        match target {
            CutOffTarget::Person => return Accounts::id_of(self, context, named).await,
            CutOffTarget::Client => {
                context.find::<Client>(Clients::NOUN, named).await?;
            }
            CutOffTarget::Issuer => {
                context.find::<TrustedIssuer>(TrustedIssuers::NOUN, named).await?;
            }
            CutOffTarget::Grant => return Ok(token_of(context, named).await?.lineage),
            _ => return Err(not_here(target)),
        }
        Ok(named.to_owned())
    }

    async fn in_ledger(
        &self,
        _: &ActContext,
        target: CutOffTarget,
        record: &str,
    ) -> Result<Option<CutOff>, ActError> {
        let id = record.to_owned();
        Ok(Some(match target {
            CutOffTarget::Person => CutOff::Person(id),
            CutOffTarget::Client => CutOff::Client(id),
            CutOffTarget::Issuer => CutOff::Issuer(id),
            CutOffTarget::Grant => CutOff::Grant(id),
            _ => return Err(not_here(target)),
        }))
    }

    async fn end(
        &self,
        context: &ActContext,
        target: CutOffTarget,
        record: &str,
    ) -> Result<(), ActError> {
        match target {
            CutOffTarget::Person => Accounts::switch(self, context, record, true).await.map(|_| ()),
            CutOffTarget::Client => {
                let off = |client: &mut Client| client.disabled = true;
                switch_off(context, (Clients::NOUN, record), off).await
            }
            CutOffTarget::Issuer => {
                let off = |issuer: &mut TrustedIssuer| issuer.disabled = true;
                switch_off(context, (TrustedIssuers::NOUN, record), off).await
            }
            CutOffTarget::Grant => {
                end_grant(context, &token_of(context, record).await?, record).await
            }
            _ => Err(not_here(target)),
        }
    }

    async fn would_end(
        &self,
        context: &ActContext,
        _: &str,
        of: &CutOff,
    ) -> Result<Ends, ActError> {
        Ok(context.store.would_end(of, Self::ISSUES, context.now()).await?)
    }

    async fn take_revocations(&self, issuers: Vec<String>) -> Vec<Option<Revocations>> {
        vec![None; issuers.len()]
    }
}

async fn token_of(context: &ActContext, jti: &str) -> Result<Grant, ActError> {
    let held = context.store.grant_or_of_id_jag(jti).await?;
    held.filter(|grant| grant.kind == TokenKind::AccessToken).ok_or_else(|| {
        no_grant(
            jti,
            "this authorization server knows the access tokens that it issued, and the ID-JAGs that it issued \
             them for",
        )
    })
}

/// When the last access token for an ID-JAG has expired.
fn over(expires_at: Option<Timestamp>) -> Option<Timestamp> {
    expires_at.map(|at| at.plus(access_token::LONGEST_LIFETIME))
}

fn counts(ends: &Ends) -> CutOffCounts {
    CutOffCounts {
        sign_ins: ends.sign_ins,
        refresh_tokens: ends.refresh_tokens,
        installations: ends.installations,
        id_jags: ends.servers.iter().map(|server| server.id_jags).sum(),
        access_tokens: ends.access_tokens,
    }
}

/// What a cut-off would end now. Changes nothing.
pub(crate) async fn preview<A: CutsOff>(
    of: &A,
    context: &ActContext,
    request: A::Request,
) -> Result<CutOffPreview, ActError> {
    let (target, named) = request.into();
    let record = of.record_of(context, target, &named).await?;
    let Some(cut_off) = of.in_ledger(context, target, &record).await? else {
        return Err(ActError::Stale);
    };
    let ends = of.would_end(context, &record, &cut_off).await?;
    let issuers = ends.servers.iter().map(|server| server.party.clone()).collect();
    let take = of.take_revocations(issuers).await;
    let counts = counts(&ends);
    let told = |takes: Revocations| match target {
        CutOffTarget::Person => takes != Revocations::None,
        _ => takes == Revocations::IdJags,
    };
    let servers = ends.servers.into_iter().zip(take).map(|(server, takes)| CutOffServerPreview {
        issuer: server.party,
        id_jags: server.id_jags,
        told: takes.map(told),
        tokens_expire_by: over(server.expires_at),
    });
    Ok(CutOffPreview {
        target,
        record,
        ends: counts,
        servers: servers.collect(),
        tokens_expire_by: ends.expires_at,
    })
}

/// Cuts off: ends what there is, and lets nothing new begin until it is switched on again.
pub(crate) async fn cut_off<A: CutsOff>(
    of: &A,
    context: &ActContext,
    request: A::Request,
) -> Result<CutOffReport, ActError> {
    let (target, named) = request.into();
    let record = of.record_of(context, target, &named).await?;
    of.end(context, target, &record).await?;
    let event = event_of::<A>(target).word();
    match context.store.act_of_request(&event, &context.by.request_id).await? {
        Some(id) => report(of, context, &id.to_string()).await,
        None => Err(ActError::conflict(
            "it is cut off, and the act's row in the audit trail was not found",
            "`passavant admin audit --event admin.` lists acts",
        )),
    }
}

/// What has become of a cut-off, by the id of its row in the trail.
pub(crate) async fn report<A: CutsOff>(
    of: &A,
    context: &ActContext,
    id: &str,
) -> Result<CutOffReport, ActError> {
    let missing = || {
        ActError::Missing(
            format!("no row of the audit trail with the id `{id}` is about a cut-off"),
            "`passavant admin audit --event admin.` lists acts with their ids (#)".to_owned(),
        )
    };
    let number: i64 = id.parse().map_err(|_| missing())?;
    let row = context.store.act(number).await?.ok_or_else(missing)?;
    let target = TARGETS.into_iter().find(|target| event_of::<A>(*target).word() == row.event);
    let record = row.details.get(Detail::Record.word()).cloned();
    let (Some(target), Some(record)) = (target, record) else { return Err(missing()) };
    if row.outcome != Outcome::Granted.word() {
        return Err(missing());
    }
    let now = context.now();
    let cut_off = of.in_ledger(context, target, &record).await?;
    let held = match &cut_off {
        Some(cut_off) => context.store.cut_off_record(cut_off, A::ISSUES, &row, now).await?,
        None => CutOffRecord::default(),
    };
    let CutOffRecord { deciding, ended } = held;
    let waits = ended.servers.iter().any(|server| server.waits);
    Ok(CutOffReport {
        id: row.id,
        at: row.at,
        by: row.details.get(Detail::By.word()).cloned().unwrap_or_default(),
        target,
        record,
        ended: counts(&ended),
        deciding,
        done: !deciding && !waits,
        complete: cut_off.is_some() && now.since(row.at) <= access_token::LONGEST_LIFETIME,
        tokens_expire_by: ended.expires_at,
        servers: servers(&ended.servers),
    })
}

/// Of each authorization server, how it stands with all people together.
fn servers(all: &[ServerEnds]) -> Vec<CutOffServerReport> {
    all.chunk_by(|one, other| one.party == other.party).map(server).collect()
}

fn server(people: &[ServerEnds]) -> CutOffServerReport {
    let waiting = people.iter().filter(|person| person.waits).count();
    let acknowledged = people.iter().map(|person| person.acknowledged_at).max().flatten();
    let given_up = people.iter().filter_map(|person| person.given_up_at).max();
    let (state, at) = if waiting > 0 {
        (CutOffServerState::Waiting, None)
    } else if given_up.is_some() {
        (CutOffServerState::GivenUp, given_up)
    } else if people.iter().any(|person| person.acknowledged_at.is_none()) {
        (CutOffServerState::NotTold, None)
    } else {
        (CutOffServerState::Acknowledged, acknowledged)
    };
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    CutOffServerReport {
        issuer: people.first().map(|person| person.party.clone()).unwrap_or_default(),
        state,
        at,
        people: number(people.len()),
        waiting: number(waiting),
        id_jags: people.iter().map(|person| person.id_jags).sum(),
        tokens_expire_by: over(people.iter().filter_map(|person| person.expires_at).max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str, waits: bool, acknowledged: Option<i64>, given_up: Option<i64>) -> ServerEnds {
        ServerEnds {
            party: "https://as.example".to_owned(),
            user_id: user.to_owned(),
            id_jags: 1,
            waits,
            acknowledged_at: acknowledged.map(Timestamp),
            given_up_at: given_up.map(Timestamp),
            ..ServerEnds::default()
        }
    }

    #[test]
    fn a_server_has_acknowledged_when_it_has_for_each_person() {
        let (told, later) = (of("a", false, Some(7), None), of("b", false, Some(9), None));
        let waits = of("c", true, None, None);
        let deaf = of("d", false, None, None);
        let lost = of("e", false, None, Some(99));
        let state = |people: &[&ServerEnds]| {
            let people: Vec<_> = people.iter().map(|person| (*person).clone()).collect();
            let report = server(&people);
            (report.state, report.at.map(|at| at.0), report.people, report.waiting)
        };
        assert_eq!(state(&[&told, &later]), (CutOffServerState::Acknowledged, Some(9), 2, 0));
        assert_eq!(state(&[&told, &waits]), (CutOffServerState::Waiting, None, 2, 1));
        assert_eq!(state(&[&lost, &waits]), (CutOffServerState::Waiting, None, 2, 1));
        assert_eq!(state(&[&told, &lost]), (CutOffServerState::GivenUp, Some(99), 2, 0));
        assert_eq!(state(&[&told, &deaf]), (CutOffServerState::NotTold, None, 2, 0));
    }
}
