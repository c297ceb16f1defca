//! Tokens by the URL of the MCP server, stored in the vault between runs: a program that starts
//! with a valid token sends no request for one.

use crate::{
    client::{AccessToken, Client},
    discovery::McpServer,
    error::Error,
    obtain::MARGIN,
    vault::Access,
};
use passavant_proto::{identifier::Resource, oauth::challenge::Challenge, oauth::scope::Scopes};
use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

impl Client {
    /// A valid token for the MCP server at `url`: from memory, from the vault, or obtained
    /// silently. With a browser ([`Client::with_browser`]) the person is asked as a last resort.
    pub async fn access(&self, url: &str) -> Result<Access, Error> {
        match self.silent_access(url).await {
            Err(error) => {
                self.ask_person(error).await?;
                self.silent_access(url).await
            }
            access => access,
        }
    }

    /// Like [`Self::access`], without asking the person.
    pub(crate) async fn silent_access(&self, url: &str) -> Result<Access, Error> {
        self.follow_vault().await?;
        let now = self.0.clock.now().0;
        let live = |access: &Access| access.expires - now > MARGIN && self.can_use(access);
        let held = self.accesses().get(url).cloned();
        if let Some(access) = held.filter(live)
            && self.is_still_allowed(&access).await?
        {
            return Ok(access);
        }
        let mut kept = self.0.vault.load_access(url).await?;
        if let Some(access) = &kept
            && !self.is_still_allowed(access).await?
        {
            // The company governs the server now: a token from the person's own consent is not used
            // any more.
            self.0.vault.store_access(url, None).await?;
            kept = None;
        }
        if let Some(access) = kept.clone().filter(live) {
            self.accesses().insert(url.to_owned(), access.clone());
            return Ok(access);
        }
        self.accesses().remove(url);
        let scopes = kept.as_ref().map(|access| access.scopes.clone());
        self.obtain_access(url, scopes, kept).await
    }

    /// Whether a token may still be used: a token from the company until it expires, a token from a
    /// consent only while the company does not govern the server.
    async fn is_still_allowed(&self, access: &Access) -> Result<bool, Error> {
        if access.consent.is_none() {
            return Ok(true);
        }
        let Ok(resource) = Resource::parse(&access.resource) else { return Ok(false) };
        Ok(!self.company_decides(&resource, &access.authorization_server).await?)
    }

    /// Obtains a new token after a 401 rejected this one. Everything known about the server is
    /// looked up again, because its authorization server may have changed.
    pub async fn replace_access(&self, refused: &Access) -> Result<Access, Error> {
        match self.replace_silently(refused).await {
            Err(error) => {
                self.ask_person(error).await?;
                self.silent_access(&refused.url).await
            }
            access => access,
        }
    }

    /// Like [`Self::replace_access`], without asking the person.
    pub(crate) async fn replace_silently(&self, refused: &Access) -> Result<Access, Error> {
        let url = refused.url.as_str();
        // Another process, or another request of this one, may already have replaced it.
        let kept = self.0.vault.load_access(url).await?;
        if let Some(newer) = kept.clone().filter(|kept| {
            kept.token != refused.token
                && kept.expires - self.0.clock.now().0 > MARGIN
                && self.can_use(kept)
        }) {
            self.accesses().insert(url.to_owned(), newer.clone());
            return Ok(newer);
        }
        self.accesses().remove(url);
        let server = self.servers().remove(url);
        if let Some(server) = server {
            self.forget(&server);
        }
        let scopes = Some(refused.scopes.clone());
        let replaced = self.obtain_access(url, scopes, Some(refused.clone())).await;
        match replaced {
            Err(error @ Error::RefusedByPolicy { .. }) if refused.consent.is_none() => {
                // It was refused before its time, and there will be no other.
                self.0.vault.store_access(url, None).await?;
                // Another authorization server was not asked before.
                let same = self.servers().get(url).is_some_and(|server| {
                    server.authorization_server.as_str() == refused.authorization_server
                });
                let revoked = same && refused.expires > self.0.clock.now().0;
                Err(if revoked { self.server_ended(url, error).await } else { error })
            }
            replaced => replaced,
        }
    }

    /// Obtains a token for the union of the current scopes and those that a 403
    /// `insufficient_scope` names (MCP authorization, Step-Up Authorization Flow).
    pub async fn widen_access(
        &self,
        narrow: &Access,
        challenge: &Challenge,
    ) -> Result<Access, Error> {
        let named = challenge.get("scope").and_then(Scopes::parse).unwrap_or_default();
        let wanted = named.union(&narrow.scopes);
        if narrow.scopes.contains_all(&named) {
            // Asking for the same scopes would bring the same token.
            return Err(Error::NothingToWiden { url: narrow.url.clone() });
        }
        let kept = self.accesses().get(&narrow.url).cloned();
        if let Some(wider) =
            kept.filter(|kept| kept.token != narrow.token && kept.scopes.contains_all(&wanted))
        {
            return Ok(wider);
        }
        if narrow.consent.is_some() {
            // To widen a consent, the person has to be asked again.
            let issuer = narrow.authorization_server.clone();
            let url = narrow.url.clone();
            self.ask_person(Error::ConsentNeeded { url, issuer, scopes: Some(wanted) }).await?;
            return self.silent_access(&narrow.url).await;
        }
        let access = match self.obtain_access(&narrow.url, Some(wanted.clone()), None).await {
            Err(error) => {
                self.ask_person(error).await?;
                self.obtain_access(&narrow.url, Some(wanted), None).await
            }
            access => access,
        }?;
        if named.iter().all(|scope| narrow.scopes.contains(scope) || !access.scopes.contains(scope))
        {
            // None of the missing scopes was granted: the server would reject this token too.
            let missing = named.iter().filter(|scope| !access.scopes.contains(scope)).collect();
            return Err(Error::ScopesNotGranted { url: narrow.url.clone(), missing });
        }
        Ok(access)
    }

    async fn obtain_access(
        &self,
        url: &str,
        scopes: Option<Scopes>,
        kept: Option<Access>,
    ) -> Result<Access, Error> {
        let known = self.servers().get(url).cloned();
        let server = match known {
            Some(server) => server,
            None => self.discover(url).await?,
        };
        if !self.may_use_cross_app_access(&server)
            && !self.company_decides(&server.resource, server.authorization_server.as_str()).await?
        {
            return self.renew_consent(&server, kept).await;
        }
        let wanted = match (&server.scopes, scopes.filter(|scopes| !scopes.is_empty())) {
            (Some(asked), Some(had)) => Some(asked.union(&had)),
            (asked, had) => had.or_else(|| asked.clone()),
        };
        let token = self.obtain(&server, wanted.as_ref()).await?;
        self.keep(&server, &token, None).await
    }

    /// Stores a token for later runs.
    pub(crate) async fn keep(
        &self,
        server: &McpServer,
        token: &AccessToken,
        consent: Option<crate::vault::Consent>,
    ) -> Result<Access, Error> {
        let access = Access {
            url: server.url.clone(),
            resource: server.resource.as_str().to_owned(),
            authorization_server: server.authorization_server.to_string(),
            token: token.secret().expose().to_owned(),
            scopes: token.scopes.clone(),
            expires: token.expires.0,
            dpop_jkt: token.dpop_jkt.clone(),
            consent,
        };
        self.accesses().insert(server.url.clone(), access.clone());
        self.0.vault.store_access(&server.url, Some(&access)).await?;
        Ok(access)
    }

    /// The consents that the person gave outside of the company's control: URL and authorization
    /// server.
    pub async fn consents(&self) -> Result<Vec<Access>, Error> {
        let mut consents = Vec::new();
        for url in self.0.vault.accesses().await? {
            consents.extend(self.0.vault.load_access(&url).await?.filter(|a| a.consent.is_some()));
        }
        Ok(consents)
    }

    /// Forgets the tokens that were obtained with the company's sign-in. Consents are independent
    /// of it.
    pub(crate) async fn forget_granted(&self) -> Result<(), Error> {
        self.forget_in_memory();
        for url in self.0.vault.accesses().await? {
            let granted = self.0.vault.load_access(&url).await?.filter(|a| a.consent.is_none());
            if granted.is_some() {
                self.0.vault.store_access(&url, None).await?;
            }
        }
        self.forget_elsewhere().await
    }

    /// Forgets every token.
    pub(crate) async fn forget_everything(&self) -> Result<(), Error> {
        self.forget_in_memory();
        for url in self.0.vault.accesses().await? {
            self.0.vault.store_access(&url, None).await?;
        }
        self.forget_elsewhere().await
    }

    pub(crate) fn forget_in_memory(&self) {
        self.tokens().clear();
        self.accesses().clear();
    }

    /// Makes other processes forget what they hold in memory.
    async fn forget_elsewhere(&self) -> Result<(), Error> {
        self.0.vault.next_generation().await?;
        let now = self.0.vault.generation().await?;
        self.0.generation.store(now, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn accesses(&self) -> MutexGuard<'_, HashMap<String, Access>> {
        self.0.accesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<String, McpServer>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
