//! Asking the authorization server whether a token still stands (RFC 7662), so that a revocation is
//! felt within a second instead of at the token's end.

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

/// Most answers remembered.
const MOST: usize = 20_000;
/// A token that was said to have ended is not asked about again for so long, in seconds.
const ENDED: i64 = 10;

/// The MCP server's own credentials at the authorization server, and what it was told this second.
pub struct Introspection {
    outbound: Outbound,
    client_id: String,
    secret: Secret,
    clock: Clock,
    endpoint: OnceCell<(String, Reach)>,
    /// What was said of a token, by its full SHA-256.
    told: Mutex<HashMap<String, Said>>,
}

/// What is said of one token from a second on: whoever comes while it is being asked waits for the one answer.
#[derive(Clone)]
struct Said {
    since: Timestamp,
    active: Arc<OnceCell<bool>>,
}

impl Said {
    /// A token stands for the second in which it was said to; one that has ended does not come back.
    fn holds(&self, now: Timestamp) -> bool {
        let age = now.since(self.since);
        (0..1).contains(&age) || (self.active.get() == Some(&false) && (0..ENDED).contains(&age))
    }
}

/// The authorization server did not answer, or not as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorization server does not say whether the token stands")]
pub struct NoAnswer;

#[derive(Deserialize)]
struct Told {
    active: bool,
}

impl Introspection {
    /// Asks as the client `client_id` that is registered at the authorization server for the MCP server.
    pub fn new(outbound: Outbound, client_id: &str, secret: Secret, clock: Clock) -> Self {
        let (endpoint, told) = (OnceCell::new(), Mutex::default());
        Self { outbound, client_id: client_id.to_owned(), secret, clock, endpoint, told }
    }

    /// Passes a token that stands; a party that does not answer is no permission.
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

    /// Whether a token stands, as the authorization server says now.
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
            tracing::warn!(status = answer.status, "the authorization server does not introspect");
            return Err(NoAnswer);
        }
        let told: Told = answer.json().map_err(|_| NoAnswer)?;
        Ok(told.active)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<String, Said>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
