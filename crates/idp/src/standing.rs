//! Standing: whether person, client, session and family behind something that was issued are all
//! live at this moment. Introspection, lists, explanations and second hops use these functions; for
//! mints, the same conditions are checked in the transaction ([`passavant_authority::mint`]).

use super::{directory::Living, state::Idp};
use passavant_authority::{
    answer::Failure,
    authority::{Look, RegisteredClient, Snapshot},
};
use passavant_proto::{
    identifier::Resource,
    oauth::access_token,
    oidc::authentication::Authentication,
    policy::{Person, Question},
    time::Timestamp,
};
use passavant_store::{Grant, StoreError, TokenKind};
use std::sync::Arc;

/// The records that have to be live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain<'a> {
    pub(super) user_id: &'a str,
    /// The client's id, or the URL of its document.
    pub(super) client: &'a str,
    pub(super) session: &'a str,
    /// The family of tokens of one sign-in, if it is known.
    pub(super) family: Option<&'a str>,
}

/// The live records.
pub(super) struct Standing {
    pub(super) person: Arc<Living>,
    pub(super) client: Arc<RegisteredClient>,
    pub(super) authentication: Authentication,
}

impl Idp {
    /// The standing of a chain; `None` if any part of it is disabled, ended, revoked or gone.
    pub(super) async fn standing(
        &self,
        snapshot: &Snapshot<super::directory::IdpDirectory>,
        chain: Chain<'_>,
    ) -> Result<Option<Standing>, StoreError> {
        let authority = &self.0.authority;
        let store = &authority.store;
        let directory = &snapshot.directory;
        let Some(person) = directory.person(store, chain.user_id, Look::Now).await? else {
            return Ok(None);
        };
        let client = match authority.client(directory, chain.client, Look::Now).await {
            Ok(client) => client,
            Err(Failure::Broken(error)) => return Err(error),
            Err(_) => None,
        };
        let Some(client) = client.filter(|client| client.acts_for(chain.user_id)) else {
            return Ok(None);
        };
        let Some(authentication) = store.session_authentication(chain.session).await? else {
            return Ok(None);
        };
        if let Some(family) = chain.family
            && store.is_family_revoked(family).await?
        {
            return Ok(None);
        }
        Ok(Some(Standing { person, client, authentication }))
    }

    /// The standing of an ID-JAG of ours, for which a RAS issued a token for `resource`: everything
    /// behind it is live, and the policy would still allow that client of that person there. `None`
    /// otherwise.
    pub(super) async fn standing_of_id_jag(
        &self,
        snapshot: &Snapshot<super::directory::IdpDirectory>,
        jti: &str,
        party: &str,
        resource: &Resource,
        now: Timestamp,
    ) -> Result<Option<(Grant, Standing)>, StoreError> {
        let Some(grant) = self.0.authority.store.live_grant(jti).await? else { return Ok(None) };
        // All tokens that were issued for it have expired.
        let over = now >= grant.expires_at.plus(access_token::LONGEST_LIFETIME);
        if grant.kind != TokenKind::IdJag || grant.party != party || over {
            return Ok(None);
        }
        let chain = Chain {
            user_id: &grant.user_id,
            client: &grant.client_id,
            session: &grant.lineage,
            family: None,
        };
        let Some(standing) = self.standing(snapshot, chain).await? else { return Ok(None) };
        let resources = [resource.clone()];
        let question = Question {
            person: Person { id: &standing.person.user.id, groups: &standing.person.user.groups },
            idp_client_id: standing.client.idp_client_id(),
            document: standing.client.document(),
            authentication: &standing.authentication,
            audience: party,
            resources: &resources,
            scopes: None,
            now,
        };
        // The maximum age of the sign-in was checked when the ID-JAG was issued.
        let permitted = match snapshot.directory.policy.decide(&question) {
            Ok(_) => true,
            Err(denial) => denial.reason.is_about_the_sign_in(),
        };
        Ok(permitted.then_some((grant, standing)))
    }
}
