//! Keeps a sign-in alive: its tokens are renewed, by one process at a time, and revoked at its end.

use crate::{
    client::Client,
    error::{Error, Leg},
    obtain::{MARGIN, lifetime, parse},
    vault::{Session, VaultLock},
};
use passavant_proto::{jose::jws, secret::Secret};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};

/// The sign-in's tokens are renewed when they are older than this, in seconds, so that the refresh
/// token does not expire from disuse.
const RENEW_AFTER: i64 = 3600;

#[derive(Deserialize)]
struct RefreshAnswer {
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default, deserialize_with = "lifetime")]
    expires_in: Option<i64>,
}

impl Client {
    /// An access token for the IdP's own endpoints.
    pub(crate) async fn idp_access_token(&self) -> Result<Secret, Error> {
        match self.idp_access_token_of_sign_in(None).await {
            Err(error) => Err(self.unless_unenrolled(error).await),
            token => token,
        }
    }

    /// Another one, after the IdP refused `refused`: if there is none, the sign-in is over.
    pub(crate) async fn idp_access_token_instead_of(
        &self,
        refused: &Secret,
    ) -> Result<Secret, Error> {
        match self.idp_access_token_of_sign_in(Some(refused)).await {
            Err(error) => Err(self.unless_unenrolled(error).await),
            token => token,
        }
    }

    async fn idp_access_token_of_sign_in(&self, refused: Option<&Secret>) -> Result<Secret, Error> {
        let lock = self.0.vault.lock().await?;
        let Some(session) = self.session().await? else {
            return Err(self.nobody_signed_in().await);
        };
        let left = session.access_token_expires - self.0.clock.now().0;
        let token = session.access_token.clone().map(Secret::new);
        if let Some(token) = token.filter(|token| left > MARGIN && Some(token) != refused) {
            return Ok(token);
        }
        if session.refresh_token.is_none() {
            return Err(self.sign_in_needed());
        }
        let (renewed, lock) = self.refresh(&session, lock).await?;
        drop(lock);
        let renewed = match renewed {
            Err(Error::Refused { error, .. }) if error.error == "invalid_grant" => {
                return Err(self.sign_in_over(&session).await);
            }
            outcome => outcome?,
        };
        renewed.access_token.map(Secret::new).ok_or_else(|| self.sign_in_needed())
    }

    /// The sign-in, with its tokens renewed if they are due. The caller holds the lock: one process
    /// renews at a time, the others find its result.
    pub(crate) async fn renewed_session(
        &self,
        lock: VaultLock,
    ) -> Result<(Session, VaultLock), Error> {
        let Some(session) = self.session().await? else {
            return Err(self.nobody_signed_in().await);
        };
        let due = self.0.clock.now().0 - session.renewed_at >= RENEW_AFTER;
        if session.refresh_token.is_none() || !due {
            return Ok((session, lock));
        }
        let (renewed, lock) = self.refresh(&session, lock).await?;
        match renewed {
            Ok(renewed) => Ok((renewed, lock)),
            // The stored tokens may still work; if not, the exchange gives a better error.
            Err(Error::Refused { .. } | Error::Outbound(_)) => match self.session().await? {
                Some(session) => Ok((session, lock)),
                None => Err(self.nobody_signed_in().await),
            },
            Err(error) => Err(error),
        }
    }

    /// Renews the sign-in's tokens. The lock is passed along.
    async fn refresh(
        &self,
        session: &Session,
        lock: VaultLock,
    ) -> Result<(Result<Session, Error>, VaultLock), Error> {
        let (client, session) = (self.clone(), session.clone());
        let work = async move { (client.refreshed(&session).await, lock) };
        self.to_its_end(Leg::SignIn, work).await
    }

    /// Runs a renewal to its end once it was started, even if the caller is cancelled meanwhile:
    /// the refresh token that was sent is used up.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        leg: Leg,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let begun = Arc::clone(&self.0.renewing);
        let task = tokio::spawn(async move {
            let outcome = work.await;
            drop(begun);
            outcome
        });
        let ended = |error| Error::BadAnswer { leg, what: format!("the renewal ended: {error}") };
        task.await.map_err(ended)
    }

    /// Waits until no renewal is in progress: a process that ends during a renewal loses the
    /// sign-in.
    pub async fn settle(&self) {
        while Arc::strong_count(&self.0.renewing) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn refreshed(&self, session: &Session) -> Result<Session, Error> {
        let refresh_token = session.refresh_token.clone().unwrap_or_default();
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];
        let answer = self.ask_idp(Leg::SignIn, &form, false).await?;
        let answer: RefreshAnswer = parse(Leg::SignIn, &answer)?;
        let now = self.0.clock.now();
        let mut renewed = Session {
            refresh_token: answer.refresh_token.or(session.refresh_token.clone()),
            access_token_expires: now.0 + answer.expires_in.unwrap_or(0).clamp(0, 3600),
            access_token: answer.access_token,
            renewed_at: now.0,
            ..session.clone()
        };
        // Store this before anything else can fail: the old refresh token is used up.
        self.0.vault.store(Some(&renewed)).await?;
        if let Some(id_token) = answer.id_token {
            let subject = subject_of(&session.id_token);
            let signed_in = self.verify_id_token(&id_token, None, None).await?;
            if subject.as_deref() != Some(signed_in.subject.as_str()) {
                return Err(Error::BadAnswer {
                    leg: Leg::SignIn,
                    what: "the renewed ID token is of another person".to_owned(),
                });
            }
            renewed.id_token = id_token;
            renewed.id_token_expires = self.in_our_time(signed_in.expires);
            self.0.vault.store(Some(&renewed)).await?;
        }
        Ok(renewed)
    }

    /// Ends the sign-in at the IdP and forgets it.
    pub async fn sign_out(&self) -> Result<SignedOut, Error> {
        let _lock = self.0.vault.lock().await?;
        let session = self.session().await?;
        // Revoke first: a token that was forgotten cannot be revoked any more.
        let revoked = match &session {
            Some(session) => self.revoke_sign_in(session).await,
            None => Ok(SignedOut::Nobody),
        };
        self.revoke_consents().await;
        self.0.vault.store(None).await?;
        self.forget_everything().await?;
        revoked
    }

    async fn revoke_sign_in(&self, session: &Session) -> Result<SignedOut, Error> {
        let metadata = self.idp_metadata().await?;
        let Some(endpoint) = metadata.revocation_endpoint.clone() else {
            return Ok(SignedOut::Here);
        };
        // Without a refresh token, the ID token stands for the sign-in at an IdP of Passavant.
        let is_own = metadata.passavant_catalog_endpoint.is_some();
        let (token, hint) = match &session.refresh_token {
            Some(token) => (token, "refresh_token"),
            None if is_own => (&session.id_token, "id_token"),
            None => return Ok(SignedOut::Here),
        };
        let settings = &self.0.settings;
        let form = [("token", token.as_str()), ("token_type_hint", hint)];
        let client = &settings.idp_client;
        let metadata = metadata.at(endpoint);
        self.ask(Leg::SignIn, &settings.idp, &metadata, client, &form, false).await?;
        Ok(SignedOut::There)
    }
}

/// What a sign-out did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedOut {
    /// Nobody was signed in.
    Nobody,
    /// The sign-in is forgotten here; the IdP offers no way to end it there.
    Here,
    /// The IdP has ended it, too.
    There,
}

/// `sub` of an ID token that was verified before it was stored.
fn subject_of(id_token: &str) -> Option<String> {
    let (_, claims) = jws::peek(id_token).ok()?;
    claims.required_str("sub").ok().map(str::to_owned)
}
