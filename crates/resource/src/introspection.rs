//! Asks the authorization server whether a token is still active (RFC 7662), so that a revocation
//! takes effect within a second instead of when the token expires.

use crate::admission::NotAdmitted;
use passavant_outbound::{Outbound, Reach, discover_authorization_server};
use passavant_proto::{
    identifier::Issuer,
    secret::{Secret, sha256},
    time::{Clock, Timestamp},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OnceCell;

/// Maximum number of cached answers.
const MOST: usize = 20_000;
/// How long a token that was reported as inactive is not asked about again, in seconds.
const ENDED: i64 = 10;

/// The MCP server's credentials at the authorization server, and the cached answers.
pub struct Introspection {
    outbound: Outbound,
    client_id: String,
    secret: Secret,
    clock: Clock,
    endpoint: OnceCell<(String, Reach)>,
    /// Answers, by the SHA-256 of the whole token.
    told: Mutex<HashMap<String, Said>>,
}

/// The answer about one token. Requests that arrive while it is being fetched wait for it.
#[derive(Clone)]
struct Said {
    since: Timestamp,
    active: Arc<OnceCell<bool>>,
}

impl Said {
    /// An active answer is valid for the second in which it was given; an inactive token does not
    /// become active again.
    fn holds(&self, now: Timestamp) -> bool {
        let age = now.since(self.since);
        (0..1).contains(&age) || (self.active.get() == Some(&false) && (0..ENDED).contains(&age))
    }
}

/// The authorization server did not answer, or not as it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorization server does not say whether the token is active")]
pub struct NoAnswer;

#[derive(Deserialize)]
struct IntrospectionResponse {
    active: bool,
}

impl Introspection {
    /// Introspects as the client `client_id`, which is registered at the authorization server for
    /// the MCP server.
    pub fn new(outbound: Outbound, client_id: &str, secret: Secret, clock: Clock) -> Self {
        let (endpoint, told) = (OnceCell::new(), Mutex::default());
        Self { outbound, client_id: client_id.to_owned(), secret, clock, endpoint, told }
    }

    /// Accepts an active token. Without an answer the token is not accepted.
    pub(crate) async fn check(&self, issuer: &Issuer, token: &str) -> Result<(), NotAdmitted> {
        let said = self.said(sha256(token.as_bytes()), self.clock.now());
        match said.active.get_or_try_init(|| self.ask(issuer, token)).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(NotAdmitted::InvalidToken("the token was revoked, or its grant was".into()))
            }
            Err(NoAnswer) => Err(NotAdmitted::Unavailable),
        }
    }

    fn said(&self, key: String, now: Timestamp) -> Said {
        let mut memory = self.told();
        if let Some(said) = memory.get(&key).filter(|said| said.holds(now)) {
            return said.clone();
        }
        if memory.len() >= MOST {
            memory.retain(|_, said| said.holds(now));
            if memory.len() >= MOST {
                memory.clear();
            }
        }
        let said = Said { since: now, active: Arc::default() };
        memory.insert(key, said.clone());
        said
    }

    /// Whether a token is active, as the authorization server says now.
    pub async fn ask(&self, issuer: &Issuer, token: &str) -> Result<bool, NoAnswer> {
        let endpoint = self.endpoint.get_or_try_init(|| async {
            let metadata = discover_authorization_server(&self.outbound, issuer).await;
            let metadata = metadata.map_err(|_| NoAnswer)?;
            let endpoint = metadata.introspection_endpoint.clone().ok_or(NoAnswer)?;
            let reach = metadata.reach_of(&endpoint);
            Ok((endpoint, reach))
        });
        let (endpoint, reach) = endpoint.await?;
        let form = [("token", token), ("token_type_hint", "access_token")];
        let basic = Some((self.client_id.as_str(), self.secret.expose()));
        let answer = self.outbound.post_form(endpoint, *reach, &form, basic).await;
        let answer = answer.map_err(|_| NoAnswer)?;
        if answer.status != 200 {
            tracing::warn!(
                status = answer.status,
                "the authorization server refused the introspection request"
            );
            return Err(NoAnswer);
        }
        let response: IntrospectionResponse = answer.json().map_err(|_| NoAnswer)?;
        Ok(response.active)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<String, Said>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
