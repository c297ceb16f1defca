//! Asking the person, as the last way: one browser tab for all the processes that wait for the same
//! thing.

use crate::{error::Error, obtain::Client, sign_in::SignInOptions, vault::VaultLock};
use std::sync::{Arc, PoisonError};

/// Who has waited for a turn as long as this, in seconds, has watched a tab of another process being
/// left alone; another tab is not what the person wants.
const LEFT_ALONE: i64 = 120;

/// A person is asked for consent to one MCP server once in so many seconds.
const ASKED_AGAIN: i64 = 600;

/// What the person is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To sign in at the company: the sign-in before has ended.
    SignIn,
    /// To sign in again, because the policy wants it fresher or stronger.
    StepUp,
    /// To consent at the authorization server of an MCP server without cross-app access.
    Consent,
}

/// Opens URLs for a person.
pub trait Browser: Send + Sync {
    /// Shows `url`; `false` if this program does not ask people for that.
    fn open(&self, url: &str, purpose: Purpose) -> bool;
}

impl Client {
    /// The same client with a browser to ask the person in; the first one given stays.
    #[must_use]
    pub fn with_browser(self, browser: Arc<dyn Browser>) -> Self {
        let _ = self.0.browser.set(browser);
        self
    }

    /// Asks the person for what `error` says is missing; the error itself where they cannot help, or
    /// where there is nobody to ask.
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
                // An MCP server that goes on refusing does not get a tab each time.
                if left_alone || !self.may_ask_for(url) {
                    return Err(error);
                }
                let server = self.discover(url).await?;
                let options = SignInOptions::default();
                let pending = self.begin_consent(&server, scopes.clone(), &options).await?;
                if !browser.open(pending.url(), Purpose::Consent) {
                    return Err(error);
                }
                pending.finish().await.map(|_| ())
            }
            _ => Err(error),
        }
    }

    /// Whether the person may be asked for consent to an MCP server: once in a while by one process, whatever the
    /// server says.
    fn may_ask_for(&self, url: &str) -> bool {
        let now = self.0.clock.now();
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.since(*at) < ASKED_AGAIN);
        match asked.get(url) {
            Some(_) => false,
            None => {
                asked.insert(url.to_owned(), now);
                true
            }
        }
    }

    /// The turn to ask the person, and whether it came only after a tab was left alone.
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
        // Another process may have asked while this one waited for its turn.
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
