//! The feed of ended tokens: with it, what the authorization server said about a token holds until it
//! says otherwise, and what is revoked there ends here within milliseconds.

use crate::introspection::Credentials;
use passavant_outbound::discover_authorization_server;
use passavant_proto::oauth::ended_tokens::{EVENT, EndedTokens, LARGEST, SILENCE};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// After so long without an event nothing rests on the feed.
const SILENT: Duration = Duration::from_secs(SILENCE);
/// How long an answer about a token is relied on while the feed tells of no end, in seconds.
pub const RELIED_ON: i64 = 60;
/// Tokens that ended are remembered for longer than any of them may live.
const REMEMBERED: Duration = Duration::from_mins(75);
/// Most ended tokens that are remembered.
const MOST: usize = 50_000;
/// How long it is waited after a connection failed, or ended at once.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// How long it is waited when the authorization server has no feed.
const NO_FEED: Duration = Duration::from_mins(1);

/// What to do about a token while the feed is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutFeed {
    /// The authorization server is asked about each token, once a second.
    #[default]
    Ask,
    /// No token is accepted: nothing rests on answers that may be a second old.
    Refuse,
}

/// What was known of the feed when an authorization server was asked about a token. Its answer holds as
/// long as this does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// What was heard. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Heard>);

struct Heard {
    without: WithoutFeed,
    state: Mutex<FeedState>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct FeedState {
    /// Counts how often it was heard that any token may have ended.
    era: u64,
    ended: HashMap<String, Instant>,
    heard_at: Option<Instant>,
}

impl FeedState {
    fn is_live(&self) -> bool {
        self.heard_at.is_some_and(|at| at.elapsed() < SILENT)
    }
}

impl Feed {
    /// A feed of which nothing was heard yet.
    pub fn new(without: WithoutFeed) -> Self {
        let (changes, _) = watch::channel(0);
        Self(Arc::new(Heard { without, state: Mutex::default(), changes }))
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event was heard; it may tell that nothing has ended.
    pub fn hear(&self, ended: &EndedTokens) {
        let now = Instant::now();
        let is_news = {
            let mut state = self.state();
            let was_live = state.is_live();
            state.heard_at = Some(now);
            if ended.any || ended.tokens.len() + state.ended.len() > MOST {
                // Every answer from before is asked for again, so nothing needs to be remembered.
                state.era += 1;
                state.ended.clear();
            }
            for token in &ended.tokens {
                state.ended.insert(token.clone(), now);
            }
            if state.ended.len() > MOST / 2 {
                state.ended.retain(|_, at| now.duration_since(*at) < REMEMBERED);
            }
            ended.any || !ended.tokens.is_empty() || !was_live
        };
        if is_news {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    /// Something may have been missed: each answer from before is asked for again.
    pub fn miss(&self) {
        self.state().era += 1;
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Whether something was heard recently enough to rest on.
    pub fn is_live(&self) -> bool {
        self.state().is_live()
    }

    /// What to do while it is not.
    pub fn without(&self) -> WithoutFeed {
        self.0.without
    }

    /// Taken before the authorization server is asked about a token; `None` while the feed is silent.
    pub fn mark(&self) -> Option<Mark> {
        let state = self.state();
        state.is_live().then_some(Mark(state.era))
    }

    /// Whether an answer about a token still holds that was asked for after `mark`.
    pub fn holds(&self, mark: Mark, token_id: &str) -> bool {
        let state = self.state();
        state.is_live() && state.era == mark.0 && !state.ended.contains_key(token_id)
    }

    /// Whether the feed has named the token: it has ended for good.
    pub fn has_ended(&self, token_id: &str) -> bool {
        self.state().ended.contains_key(token_id)
    }

    /// Completes when a token may have ended since `seen`, which is what this returned before.
    pub async fn changed(&self, seen: u64) -> u64 {
        let mut changes = self.0.changes.subscribe();
        // The sender lives as long as this does.
        changes.wait_for(|count| *count != seen).await.map_or(seen, |count| *count)
    }

    /// Listens to the authorization server, until this is dropped. Where it was when a connection ended,
    /// it goes on.
    pub async fn follow(&self, guard: &Credentials) {
        let mut after: Option<String> = None;
        let mut failed = 0;
        loop {
            let before = after.clone();
            match self.listen(guard, &mut after).await {
                Ended::NoFeed => {
                    sleep(NO_FEED).await;
                    continue;
                }
                Ended::Over if after != before => failed = 0,
                Ended::Over => {}
            }
            sleep(AGAIN[failed.min(AGAIN.len() - 1)]).await;
            failed += 1;
        }
    }

    async fn listen(&self, guard: &Credentials, after: &mut Option<String>) -> Ended {
        let metadata = match discover_authorization_server(&guard.outbound, &guard.issuer).await {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::debug!(%error, "the feed of ended tokens cannot be found just now");
                return Ended::Over;
            }
        };
        let Some(endpoint) = metadata.passavant_ended_tokens_endpoint.as_deref() else {
            return Ended::NoFeed;
        };
        let reach = metadata.reach_of(endpoint);
        let form: Vec<(&str, &str)> = after.iter().map(|after| ("after", after.as_str())).collect();
        let basic = (guard.client_id.as_str(), guard.secret.expose());
        let events = guard.outbound.post_for_events(endpoint, reach, &form, basic, LARGEST);
        let mut events = match timeout(SILENT, events).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the feed of ended tokens is not to be had just now");
                return Ended::Over;
            }
            Err(_) => return Ended::Over,
        };
        loop {
            let event = match timeout(SILENT, events.next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) | Err(_) => return Ended::Over,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the feed of ended tokens broke off");
                    return Ended::Over;
                }
            };
            if event.name.as_deref() == Some(EVENT)
                && let Some(data) = &event.data
            {
                self.hear(&EndedTokens::parse(data));
                *after = event.id;
            }
        }
    }
}

/// How listening ended.
enum Ended {
    /// The authorization server has none.
    NoFeed,
    /// The connection failed, or was over.
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(tokens: &[&str], any: bool) -> EndedTokens {
        EndedTokens { tokens: tokens.iter().map(|&token| token.to_owned()).collect(), any }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_until_the_feed_says_otherwise_or_is_silent() {
        let feed = Feed::new(WithoutFeed::Ask);
        assert_eq!(feed.mark(), None, "nothing was heard yet");
        feed.hear(&ended(&[], false));
        let mark = feed.mark().unwrap();
        assert!(feed.holds(mark, "a"));
        feed.hear(&ended(&["b"], false));
        assert!(feed.holds(mark, "a"));
        assert!(!feed.holds(mark, "b"));
        assert!(feed.has_ended("b") && !feed.has_ended("a"));
        // What was asked after that would not hold either: it has ended for good.
        assert!(!feed.holds(feed.mark().unwrap(), "b"));
        feed.hear(&ended(&[], true));
        assert!(!feed.holds(mark, "a"));
        let mark = feed.mark().unwrap();
        assert!(feed.holds(mark, "a"));
        sleep(SILENT).await;
        assert!(!feed.is_live());
        assert!(!feed.holds(mark, "a"));
        assert_eq!(feed.mark(), None);
        feed.miss();
        assert_eq!(feed.mark(), None, "nothing was heard");
        // Going on where it was, nothing was missed.
        feed.hear(&ended(&["c"], false));
        assert!(!feed.holds(mark, "a"), "from before something may have been missed");
        let mark = feed.mark().unwrap();
        sleep(SILENT).await;
        feed.hear(&ended(&["d"], false));
        assert!(feed.holds(mark, "a"));
        assert!(!feed.holds(mark, "c") && !feed.holds(mark, "d"));
    }

    #[tokio::test]
    async fn what_is_too_much_to_remember_is_any_token() {
        let feed = Feed::new(WithoutFeed::Ask);
        feed.hear(&ended(&[], false));
        let mark = feed.mark().unwrap();
        let names: Vec<String> = (0..MOST).map(|at| at.to_string()).collect();
        feed.hear(&EndedTokens { tokens: names, any: false });
        assert!(feed.holds(mark, "a"));
        feed.hear(&ended(&["b"], false));
        assert!(!feed.holds(mark, "a"), "asked about again");
        assert!(!feed.holds(feed.mark().unwrap(), "b"));
    }

    #[tokio::test]
    async fn who_waits_for_a_change_misses_none() {
        let feed = Feed::new(WithoutFeed::Ask);
        feed.hear(&ended(&["a"], false));
        let seen = feed.changed(0).await;
        feed.hear(&ended(&[], false));
        assert!(timeout(Duration::from_millis(20), feed.changed(seen)).await.is_err());
        feed.hear(&ended(&["b"], false));
        assert_ne!(feed.changed(seen).await, seen);
    }
}
