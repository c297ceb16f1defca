//! Asks the person, as a last resort: one browser tab for all processes that wait for the same
//! thing.

use crate::{
    client::Client,
    client::{Browser, ConsentAttempt, Purpose},
    discovery::McpServer,
    error::Error,
    sign_in::SignInOptions,
    vault::VaultLock,
};
use passavant_proto::oauth::scope::Scopes;
use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
};

/// If waiting for the turn took this long, in seconds, another process opened a tab that the person
/// left alone; they do not want another tab.
const LEFT_ALONE: i64 = 120;

/// The person is asked for consent to one MCP server at most once in this many seconds.
const ASKED_AGAIN: i64 = 600;

impl ConsentAttempt {
    /// Whether the person may be asked once more: they agreed to the first request, and this one is
    /// different.
    fn lets_ask(&self, issuer: &str, wanted: &Scopes) -> bool {
        let is_new = self.issuer != issuer || !self.scopes.contains_all(wanted);
        self.is_first && self.is_answered && is_new
    }
}

impl Client {
    /// Adds a browser in which the person can be asked; the first one that was added stays.
    #[must_use]
    pub fn with_browser(self, browser: Arc<dyn Browser>) -> Self {
        let _ = self.0.browser.set(browser);
        self
    }

    /// Asks the person for what `error` says is missing. Returns the error itself if the person
    /// cannot help, or if there is no browser.
    pub(crate) async fn ask_person(&self, error: Error) -> Result<(), Error> {
        let Some(browser) = self.0.browser.get() else { return Err(error) };
        match &error {
            Error::SignInNeeded { .. } => {
                self.sign_in_again(
                    browser.as_ref(),
                    Purpose::SignIn,
                    SignInOptions::default(),
                    error,
                )
                .await
            }
            Error::StepUpNeeded(wanted) => {
                let options = SignInOptions {
                    fresh: true,
                    acr_values: wanted.acr_values.clone(),
                    ..SignInOptions::default()
                };
                self.sign_in_again(browser.as_ref(), Purpose::StepUp, options, error).await
            }
            Error::ConsentNeeded { url, scopes, .. } => {
                let before = self.0.vault.load_access(url).await?.map(|access| access.token);
                let (_turn, left_alone) = self.turn().await?;
                let now = self.0.vault.load_access(url).await?.map(|access| access.token);
                if now != before {
                    return Ok(());
                }
                let server = self.discover(url).await?;
                // An MCP server that keeps refusing does not get a tab each time.
                if left_alone || !self.may_ask_for(&server, scopes.as_ref()) {
                    return Err(error);
                }
                let options = SignInOptions::default();
                let pending = self.begin_consent(&server, scopes.clone(), &options).await?;
                if !browser.open(pending.url(), Purpose::Consent) {
                    return Err(error);
                }
                pending.finish().await?;
                if let Some(attempt) = self.attempts().get_mut(url) {
                    attempt.is_answered = true;
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Whether the person may be asked for consent to an MCP server: once in a while per process,
    /// whatever the server says, and once more for something else if they agreed.
    fn may_ask_for(&self, server: &McpServer, scopes: Option<&Scopes>) -> bool {
        let now = self.0.clock.now();
        let mut attempts = self.attempts();
        attempts.retain(|_, attempt| now.since(attempt.at) < ASKED_AGAIN);
        let issuer = server.authorization_server.as_str();
        let wanted = scopes.cloned().unwrap_or_default();
        let before = attempts.get(&server.url);
        let may = before.is_none_or(|attempt| attempt.lets_ask(issuer, &wanted));
        if may {
            let at = before.map_or(now, |attempt| attempt.at);
            let is_first = before.is_none();
            let issuer = issuer.to_owned();
            let attempt =
                ConsentAttempt { at, issuer, scopes: wanted, is_first, is_answered: false };
            attempts.insert(server.url.clone(), attempt);
        }
        may
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<String, ConsentAttempt>> {
        self.0.consent_attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to ask the person. Also returns whether a tab of another process was left
    /// alone meanwhile.
    async fn turn(&self) -> Result<(VaultLock, bool), Error> {
        let since = self.0.clock.now();
        let turn = self.0.vault.lock_person().await?;
        Ok((turn, self.0.clock.now().since(since) >= LEFT_ALONE))
    }

    async fn sign_in_again(
        &self,
        browser: &dyn Browser,
        purpose: Purpose,
        options: SignInOptions,
        error: Error,
    ) -> Result<(), Error> {
        let before = self.session().await?.map(|session| session.id_token);
        let (_turn, left_alone) = self.turn().await?;
        // Another process may have asked while this one waited.
        let now = self.session().await?.map(|session| session.id_token);
        if now.is_some() && now != before {
            return Ok(());
        }
        if left_alone {
            return Err(error);
        }
        let pending = self.begin_sign_in(&options).await?;
        if !browser.open(pending.url(), purpose) {
            return Err(error);
        }
        pending.finish().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_goes_on_refusing_gets_no_more_tabs() {
        let of = |text: &str| text.split(' ').collect::<Scopes>();
        let first = |is_answered| ConsentAttempt {
            at: passavant_proto::time::Timestamp(0),
            issuer: "https://as.example".to_owned(),
            scopes: of("read"),
            is_first: true,
            is_answered,
        };
        assert!(!first(true).lets_ask("https://as.example", &of("read")), "the same again");
        assert!(!first(false).lets_ask("https://as.example", &of("write")), "left alone");
        assert!(first(true).lets_ask("https://as.example", &of("read write")), "a step up");
        assert!(first(true).lets_ask("https://new.example", &of("read")), "another server");
        let second = ConsentAttempt { is_first: false, ..first(true) };
        assert!(!second.lets_ask("https://third.example", &of("admin")), "and that was all");
    }
}
