//! Asking the authorization server whether a token still stands (RFC 7662), so that a revocation is
//! felt within a second instead of at the token's end.

use crate::admission::NotAdmitted;
use carnet_client::{Outbound, Reach, discover_authorization_server};
use carnet_proto::{
    identifier::Issuer,
    secret::{Secret, sha256},
    time::{Clock, Timestamp},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::OnceCell;

/// Most answers remembered.
const MOST: usize = 20_000;

/// The MCP server's own credentials at the authorization server, and what it was told this second.
pub struct Introspection {
    outbound: Outbound,
    client_id: String,
    secret: Secret,
    clock: Clock,
    endpoint: OnceCell<String>,
    /// When a token was last said to stand, by its full SHA-256.
    told: Mutex<HashMap<String, Timestamp>>,
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
        let now = self.clock.now();
        let key = sha256(token.as_bytes());
        if self.told().get(&key).is_some_and(|at| *at == now) {
            return Ok(());
        }
        match self.ask(issuer, token).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(NotAdmitted::InvalidToken("the token was revoked, or its grant was"));
            }
            Err(NoAnswer) => return Err(NotAdmitted::Unavailable),
        }
        let mut memory = self.told();
        if memory.len() >= MOST {
            memory.clear();
        }
        memory.insert(key, now);
        Ok(())
    }

    /// Whether a token stands, as the authorization server says now.
    pub async fn ask(&self, issuer: &Issuer, token: &str) -> Result<bool, NoAnswer> {
        let endpoint = self.endpoint.get_or_try_init(|| async {
            let metadata = discover_authorization_server(&self.outbound, issuer).await;
            let metadata = metadata.map_err(|_| NoAnswer)?;
            metadata.introspection_endpoint.ok_or(NoAnswer)
        });
        let endpoint = endpoint.await?;
        let form = [("token", token), ("token_type_hint", "access_token")];
        let basic = Some((self.client_id.as_str(), self.secret.expose()));
        let reach = Reach::of_trusted_url(issuer.as_str());
        let answer = self.outbound.post_form(endpoint, reach, &form, basic).await;
        let answer = answer.map_err(|_| NoAnswer)?;
        if answer.status != 200 {
            tracing::warn!(status = answer.status, "the authorization server does not introspect");
            return Err(NoAnswer);
        }
        let told: Told = answer.json().map_err(|_| NoAnswer)?;
        Ok(told.active)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<String, Timestamp>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
