//! Standing: whether account, issuer, client and MCP server behind something that was issued here
//! are all live at this moment. Minting, introspection and gateways in this process use these
//! functions.

use super::{directory::RasDirectory, state::Ras};
use passavant_proto::{
    identifier::{Resource, SubjectIssuer},
    oauth::access_token::{AccessToken, verify_any_audience},
    oauth::client::GovernedResource,
    oidc::authentication::Authentication,
    secret::Secret,
    xaa::trust::{Account, TrustedIssuer},
};
use passavant_store::{Seen, StoreError};

/// How a person got access. That path has to stay open for as long as its tokens are to be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessPath {
    /// An ID-JAG of the issuer.
    IdJag,
    /// A sign-in at the issuer, in a browser.
    SignIn,
}

/// A person who has signed in: at which issuer, and with which account here.
pub struct AccountHolder {
    pub(super) issuer: SubjectIssuer,
    pub(super) account: Account,
}

impl RasDirectory {
    /// The issuer, if it is trusted and allows this path.
    pub(super) fn open_issuer(&self, issuer: &str, path: AccessPath) -> Option<&TrustedIssuer> {
        let trusted = self.trusted(issuer)?;
        (path == AccessPath::IdJag || trusted.open_sign_in().is_some()).then_some(trusted)
    }

    /// The same, for the path by which a person signed in here.
    pub(super) fn open_for(&self, authentication: &Authentication) -> Option<&TrustedIssuer> {
        self.open_issuer(authentication.issuer.as_ref()?.as_str(), AccessPath::SignIn)
    }

    /// An MCP server that is governed here and enabled.
    pub(super) fn live_resource(&self, resource: &Resource) -> Option<&GovernedResource> {
        self.governed.iter().find(|governed| governed.resource == *resource && !governed.disabled)
    }
}

/// An active token of this RAS, and the resource it is for.
pub(super) struct StandingToken {
    pub(super) token: AccessToken,
    pub(super) audience: Vec<String>,
}

impl Ras {
    /// The account, if it exists and is enabled.
    pub(super) async fn live_account(
        &self,
        id: &str,
    ) -> Result<Option<(Account, Seen)>, StoreError> {
        let account = match self.0.authority.store.seen::<Account>(id).await {
            Err(StoreError::Document(..)) => None,
            account => account?,
        };
        Ok(account.filter(|(account, _)| !account.disabled))
    }

    /// A token, if it is ours, recorded and not revoked, and everything it rests on is live.
    pub(super) async fn standing(
        &self,
        token: &Secret,
    ) -> Result<Option<StandingToken>, StoreError> {
        let authority = &self.0.authority;
        let snapshot = authority.fresh().await?;
        let keys = snapshot.keys.verifying();
        let verified =
            verify_any_audience(token.expose(), &keys, &authority.issuer, authority.now());
        let Ok((token, audience)) = verified else { return Ok(None) };
        let directory = &snapshot.directory;
        let governs = audience.iter().any(|audience| {
            Resource::parse(audience).is_ok_and(|named| directory.live_resource(&named).is_some())
        });
        if !governs {
            return Ok(None);
        }
        let Some(grant) = authority.store.live_grant(&token.jti).await? else { return Ok(None) };
        // A token of a browser sign-in was not issued for an ID-JAG.
        let path = if token.transaction.is_some() { AccessPath::IdJag } else { AccessPath::SignIn };
        // A client that needs a person's consent gets nothing by an ID-JAG.
        let stands = directory.open_issuer(&grant.party, path).is_some()
            && !(path == AccessPath::IdJag && directory.is_unlisted_document(&token.client))
            && directory.may_be_client(authority, &token.client).await?
            && self.live_account(&grant.user_id).await?.is_some();
        Ok(stands.then_some(StandingToken { token, audience }))
    }

    /// Whether an access token of this RAS is still active, for a gateway in the same process.
    /// False for a text that is not a token.
    pub async fn stands(&self, token: &Secret) -> Result<bool, StoreError> {
        Ok(self.standing(token).await?.is_some())
    }
}
