//! Asks the authorization server whether a token is still active (RFC 7662), so that a revocation
//! takes effect within a second instead of when the token expires; at once, and without asking again,
//! where the authorization server has a feed of ended tokens.

use crate::{
    admission::NotAdmitted,
    caller::Caller,
    feed::{Feed, Mark, RELIED_ON, WithoutFeed},
};
use passavant_outbound::{Outbound, Reach, discover_authorization_server};
use passavant_proto::{
    identifier::Issuer,
    secret::{Secret, sha256},
    time::{Clock, Timestamp},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    sync::OnceCell,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Maximum number of cached answers.
const MOST: usize = 20_000;
/// How often it is looked whether the token of an open stream has ended; the feed tells at once.
const LOOK: Duration = Duration::from_secs(1);
/// Streams end when the state of their token could not be learnt for this long.
const UNKNOWN: Duration = Duration::from_secs(15);
/// How long a token that was reported as inactive is not asked about again, in seconds.
const ENDED: i64 = 10;

/// The MCP server's credentials at the authorization server.
pub struct Credentials {
    pub(crate) outbound: Outbound,
    pub(crate) issuer: Issuer,
    pub(crate) client_id: String,
    pub(crate) secret: Secret,
}

/// Asks, and keeps answers.
pub struct Introspection {
    guard: Arc<Credentials>,
    clock: Clock,
    endpoint: OnceCell<(String, Reach)>,
    feed: Feed,
    /// Listens to the feed, from the first question on.
    following: OnceLock<Following>,
    /// Answers, by the SHA-256 of the whole token.
    told: Mutex<HashMap<String, Said>>,
}

struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answer about one token. Requests that arrive while it is being fetched wait for it.
#[derive(Clone)]
struct Said {
    since: Timestamp,
    /// What was known of the feed before.
    mark: Option<Mark>,
    active: Arc<OnceCell<bool>>,
}

impl Said {
    /// An active answer is valid until the feed says otherwise; without one for the second in which it
    /// was given. An inactive token does not become active again.
    fn holds(&self, now: Timestamp, token_id: &str, feed: &Feed) -> bool {
        let age = now.since(self.since);
        match self.active.get() {
            Some(false) => return (0..ENDED).contains(&age),
            // Who asks now does not wait for somebody who asked long ago.
            None if !(0..1).contains(&age) => return false,
            _ => {}
        }
        if feed.is_live() {
            let told = self.mark.is_some_and(|mark| feed.holds(mark, token_id));
            return told && (0..RELIED_ON).contains(&age);
        }
        (0..1).contains(&age)
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
    pub fn new(
        outbound: Outbound,
        issuer: Issuer,
        (client_id, secret): (&str, Secret),
        without: WithoutFeed,
        clock: Clock,
    ) -> Self {
        let client_id = client_id.to_owned();
        Self {
            guard: Arc::new(Credentials { outbound, issuer, client_id, secret }),
            clock,
            endpoint: OnceCell::new(),
            feed: Feed::new(without),
            following: OnceLock::new(),
            told: Mutex::default(),
        }
    }

    /// The feed of the authorization server, to which this listens from now on.
    pub fn feed(&self) -> &Feed {
        self.following.get_or_init(|| {
            let (feed, guard) = (self.feed.clone(), Arc::clone(&self.guard));
            Following(tokio::spawn(async move { feed.follow(&guard).await }))
        });
        &self.feed
    }

    /// Accepts an active token. Without an answer the token is not accepted.
    pub(crate) async fn check(&self, token_id: &str, token: &str) -> Result<(), NotAdmitted> {
        let feed = self.feed();
        if !feed.is_live() && feed.without() == WithoutFeed::Refuse {
            return Err(NotAdmitted::Unavailable);
        }
        self.look(token_id, token).await
    }

    /// The same for what is under way: it is asked about while the feed is silent.
    async fn look(&self, token_id: &str, token: &str) -> Result<(), NotAdmitted> {
        let feed = self.feed();
        let revoked = "the token was revoked, or its grant was";
        if feed.has_ended(token_id) {
            return Err(NotAdmitted::InvalidToken(revoked.into()));
        }
        let said = self.said(sha256(token.as_bytes()), token_id, self.clock.now());
        match said.active.get_or_try_init(|| self.ask(token)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotAdmitted::InvalidToken(revoked.into())),
            Err(NoAnswer) => Err(NotAdmitted::Unavailable),
        }
    }

    /// Completes when a token has ended or expired, or when it could not be learnt for a while whether it has.
    pub(crate) async fn ended(&self, caller: &Caller, token: &Secret) {
        let (mut seen, mut unknown_since) = (0, None);
        loop {
            tokio::select! {
                changes = self.feed().changed(seen) => seen = changes,
                () = sleep(LOOK) => {}
            }
            if self.clock.now() >= caller.expires() {
                return;
            }
            match self.look(caller.token_id(), token.expose()).await {
                Ok(()) => unknown_since = None,
                Err(NotAdmitted::Unavailable) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNKNOWN {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn said(&self, key: String, token_id: &str, now: Timestamp) -> Said {
        let mark = self.feed.mark();
        let mut memory = self.told();
        if let Some(said) = memory.get(&key).filter(|said| said.holds(now, token_id, &self.feed)) {
            return said.clone();
        }
        if memory.len() >= MOST {
            memory.retain(|_, said| (0..RELIED_ON).contains(&now.since(said.since)));
            if memory.len() >= MOST {
                memory.clear();
            }
        }
        let said = Said { since: now, mark, active: Arc::default() };
        memory.insert(key, said.clone());
        said
    }

    /// Whether a token is active, as the authorization server says now.
    pub async fn ask(&self, token: &str) -> Result<bool, NoAnswer> {
        let guard = &self.guard;
        let endpoint = self.endpoint.get_or_try_init(|| async {
            let metadata = discover_authorization_server(&guard.outbound, &guard.issuer).await;
            let metadata = metadata.map_err(|_| NoAnswer)?;
            let endpoint = metadata.introspection_endpoint.clone().ok_or(NoAnswer)?;
            let reach = metadata.reach_of(&endpoint);
            Ok((endpoint, reach))
        });
        let (endpoint, reach) = endpoint.await?;
        let form = [("token", token), ("token_type_hint", "access_token")];
        let basic = Some((guard.client_id.as_str(), guard.secret.expose()));
        let answer = guard.outbound.post_form(endpoint, *reach, &form, basic).await;
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
