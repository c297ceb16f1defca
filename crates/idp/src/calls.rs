//! The endpoint where the company's gateways report the tool calls they decided about, so that IT
//! sees one trail: sign-in, ID-JAG, token, tool call. A gateway is a registered client that stands
//! for its MCP servers, and may report only on those. The caller is recorded with the IdP's own
//! identifiers, which come from the ID-JAG that the call's token was issued for.

use super::state::Idp;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use passavant_authority::{
    answer::{broken, no_store},
    calls::{self, Line},
    token_endpoint::{Endpoint, client_request, conclude},
};
use passavant_proto::{
    event::Detail, identifier::Resource, oauth::form::FormError, policy::RegisteredResource,
    refusal::Refusal, time::Timestamp,
};
use passavant_store::{AuditEvent, Grant, StoreError, TokenKind, UsedJti};
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// How long the name of an accepted batch is remembered, in seconds, so that a repeated batch is
/// not recorded twice.
const REMEMBERED: i64 = 30 * 86_400;
/// Maximum number of lines in one report.
const MOST: usize = 1000;

/// POST of `batch` (its name, unique for the gateway) and `lines` (JSON lines).
pub(super) async fn report(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/gateway-records");
    let request =
        match client_request(authority, &idp.0.admission, &url, Endpoint::GatewayRecords, request)
            .await
        {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let admission = &idp.0.admission;
    let (batch, text) = match (request.form.required("batch"), request.form.required("lines")) {
        (Ok(batch), Ok(lines)) => (batch, lines),
        (Err(error), _) | (_, Err(error)) => {
            let (sender, refusal) = (&request.sender, Refusal::from(error));
            return conclude(authority, admission, sender, request.event, refusal.into()).await;
        }
    };
    let stands_for = &request.client.record().resources;
    let mine = |line: &Line| {
        Resource::parse(&line.resource).is_ok_and(|resource| stands_for.contains(&resource))
    };
    let all = calls::lines(text);
    // The line that counts dropped entries names no MCP server.
    let (mine, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|line| line.is_of_the_gateway() || mine(line));
    if stands_for.is_empty() || !others.is_empty() || mine.len() > MOST {
        let refusal = Refusal::from(FormError::Malformed("lines"));
        return conclude(authority, admission, &request.sender, request.event, refusal.into())
            .await;
    }
    match idp.record_calls(request.client.id(), batch, mine).await {
        Ok(rows) => no_store(StatusCode::OK, &json!({"rows": rows})),
        Err(error) => broken(&error),
    }
}

impl Idp {
    /// Accepts a report of a gateway in this process.
    pub async fn take_calls(
        &self,
        gateway: &str,
        batch: &str,
        lines: &str,
    ) -> Result<usize, StoreError> {
        let text = lines.to_owned();
        let lines = calls::apart(move || calls::lines(&text)).await?;
        self.record_calls(gateway, batch, lines).await
    }

    async fn record_calls(
        &self,
        gateway: &str,
        batch: &str,
        lines: Vec<Line>,
    ) -> Result<usize, StoreError> {
        let authority = &self.0.authority;
        let now = authority.now();
        let mut known = HashMap::new();
        let origins: HashSet<(&str, &str)> = lines
            .iter()
            .filter(|line| !line.txn.is_empty())
            .map(|line| (line.txn.as_ref(), line.resource.as_ref()))
            .collect();
        for (txn, resource) in origins {
            if let Some(grant) = self.origin(txn, resource).await? {
                known.insert((txn.to_owned(), resource.to_owned()), grant);
            }
        }
        let events = calls::apart(move || calls::events(&lines, now)).await?;
        let events = events.into_iter().map(|event| {
            let detail = |name| event.details.get(&name).cloned().unwrap_or_default();
            let grant = known.get(&(detail(Detail::Txn), detail(Detail::Resource)));
            let names = grant.map(|grant| (grant.user_id.clone(), grant.client_id.clone()));
            let (person, client) = names.unwrap_or_default();
            // The vendor's identifiers are recorded besides our own.
            let (account, ras_client_id) = (event.person.clone(), event.client.clone());
            let event = event.person(person).client(client).with(Detail::Gateway, gateway);
            event.with(Detail::Account, account).with(Detail::RasClientId, ras_client_id)
        });
        let events: Vec<AuditEvent> = events.collect();
        let batch = batch_of(gateway, batch, now);
        authority.store.record_batch(&batch, &events).await
    }
}

impl Idp {
    /// The ID-JAG that a call's token was issued for: it has to be one of ours, for the RAS that
    /// governs the MCP server. A gateway cannot report on a person with an ID-JAG for somebody
    /// else's server.
    async fn origin(&self, txn: &str, resource: &str) -> Result<Option<Grant>, StoreError> {
        let store = &self.0.authority.store;
        let Some(grant) = store.grant_on_record(txn).await? else { return Ok(None) };
        let Ok(resource) = Resource::parse(resource) else { return Ok(None) };
        let registered = store.usable::<RegisteredResource>(resource.normalized()).await?;
        let governs = registered.is_some_and(|r| r.authorization_server.as_str() == grant.party);
        Ok((grant.kind == TokenKind::IdJag && governs).then_some(grant))
    }
}

fn batch_of(gateway: &str, batch: &str, now: Timestamp) -> UsedJti {
    UsedJti {
        namespace: format!("gateway {gateway}"),
        jti: batch.chars().take(200).collect(),
        forget_after: now.plus(REMEMBERED),
    }
}
