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
pub(crate) struct Introspection {
    outbound: Outbound,
    client_id: String,
    secret: Secret,
    clock: Clock,
    endpoint: OnceCell<String>,
    /// When a token was last said to stand, by its full SHA-256.
    told: Mutex<HashMap<String, Timestamp>>,
}

#[derive(Deserialize)]
struct Told {
    active: bool,
}

impl Introspection {
    pub(crate) fn new(outbound: Outbound, client_id: &str, secret: Secret, clock: Clock) -> Self {
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
        let unavailable = |_| NotAdmitted::Unavailable;
        let endpoint = self.endpoint.get_or_try_init(|| async {
            let metadata = discover_authorization_server(&self.outbound, issuer).await;
            let metadata = metadata.map_err(|_| NotAdmitted::Unavailable)?;
            metadata.introspection_endpoint.ok_or(NotAdmitted::Unavailable)
        });
        let endpoint = endpoint.await?;
        let form = [("token", token), ("token_type_hint", "access_token")];
        let basic = Some((self.client_id.as_str(), self.secret.expose()));
        let reach = Reach::of_trusted_url(issuer.as_str());
        let answer = self.outbound.post_form(endpoint, reach, &form, basic).await;
        let answer = answer.map_err(|_| NotAdmitted::Unavailable)?;
        if answer.status != 200 {
            tracing::warn!(status = answer.status, "the authorization server does not introspect");
            return Err(NotAdmitted::Unavailable);
        }
        let told: Told = answer.json().map_err(unavailable)?;
        if !told.active {
            return Err(NotAdmitted::InvalidToken("the token was revoked, or its grant was"));
        }
        let mut memory = self.told();
        if memory.len() >= MOST {
            memory.clear();
        }
        memory.insert(key, now);
        Ok(())
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<String, Timestamp>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
