//! The tokens of a sign-in: ID token, access token for our own userinfo endpoint, refresh token.

use super::Idp;
use crate::{
    answer::Failure, authority::Snapshot, client_authentication::AuthenticatedClient,
    token_endpoint::TokenAnswer,
};
use carnet_proto::{
    access_token::{self, AccessTokenClaims},
    authentication::Authentication,
    id_jag::{Confirmation, OneOrMany},
    id_token::{self, IdTokenClaims, at_hash},
    refusal::Refusal,
    scope::Scopes,
    time::Timestamp,
};
use carnet_store::{AuditEvent, Grant, HotOperation, HotOutcome, TokenKind, User};
use std::sync::Arc;

/// What the tokens are about.
pub(super) struct Issue<'a> {
    pub(super) client: &'a AuthenticatedClient,
    pub(super) user_id: &'a str,
    pub(super) session: &'a str,
    pub(super) family: &'a str,
    pub(super) authentication: &'a Authentication,
    pub(super) scopes: &'a Scopes,
    pub(super) nonce: Option<&'a str>,
    pub(super) key_thumbprint: Option<&'a str>,
    pub(super) refresh_token: Option<String>,
}

/// Records and signs. Client, person and session are asked about again in the transaction that
/// records the grant.
pub(super) async fn issue(
    idp: &Idp,
    mut snapshot: Arc<Snapshot<super::IdpDirectory>>,
    issue: Issue<'_>,
    event: &AuditEvent,
    now: Timestamp,
) -> Result<TokenAnswer, Failure> {
    let authority = &idp.0.authority;
    let jti = authority.context.entropy.id();
    let expires = now.plus(access_token::LIFETIME);
    let user = loop {
        if !issue.client.still_stands(authority, &snapshot.directory).await? {
            return Err(Refusal::ClientUnknown.into());
        }
        let person = snapshot.directory.person(&authority.store, issue.user_id).await?;
        let user = person.ok_or(Refusal::SubjectNotLive)?;
        let event = event
            .clone()
            .person(&user.id)
            .with("scope", issue.scopes.to_string())
            .with("session", issue.session)
            .with("jti", jti.as_str());
        let mut operation = HotOperation::new(Some(event));
        operation.generation = Some(snapshot.generation);
        operation.session = Some(issue.session.to_owned());
        operation.reasons[0] = Refusal::SubjectNotLive.reason();
        operation.grant = Some(Grant {
            jti: jti.clone(),
            kind: TokenKind::AccessToken,
            user_id: user.id.clone(),
            client_id: issue.client.id().to_owned(),
            party: authority.issuer.to_string(),
            lineage: issue.family.to_owned(),
            expires_at: expires,
        });
        match authority.store.record(operation, now).await? {
            HotOutcome::Stale => snapshot = authority.fresh().await?,
            HotOutcome::Recorded => break user,
            _ => return Err(Failure::RefusedOnRecord(Refusal::SubjectNotLive)),
        }
    };
    let access_token = AccessTokenClaims {
        iss: authority.issuer.clone(),
        sub: user.id.clone(),
        aud: OneOrMany::One(authority.issuer.to_string()),
        client_id: issue.client.id().to_owned(),
        jti,
        exp: expires,
        iat: now,
        scope: (!issue.scopes.is_empty()).then(|| issue.scopes.to_string()),
        txn: None,
        sid: Some(issue.session.to_owned()),
        auth_time: None,
        acr: None,
        cnf: issue.key_thumbprint.map(|jkt| Confirmation { jkt: jkt.to_owned() }),
    }
    .sign(authority.keys.signing());
    let id_token = issue.scopes.contains("openid").then(|| {
        let claims = id_token_claims(idp, &issue, &user, Some(at_hash(&access_token)), now);
        claims.sign(authority.keys.signing())
    });
    Ok(TokenAnswer {
        token_type: if issue.key_thumbprint.is_some() { "DPoP" } else { "Bearer" },
        access_token,
        expires_in: access_token::LIFETIME,
        issued_token_type: None,
        scope: Some(issue.scopes.to_string()),
        resource: None,
        id_token,
        refresh_token: issue.refresh_token,
    })
}

fn id_token_claims(
    idp: &Idp,
    issue: &Issue<'_>,
    user: &User,
    at_hash: Option<String>,
    now: Timestamp,
) -> IdTokenClaims {
    let email = issue.scopes.contains("email").then(|| user.email.clone()).flatten();
    let profile = issue.scopes.contains("profile");
    let lifetime = issue.client.record().id_token_lifetime.unwrap_or(id_token::LIFETIME);
    IdTokenClaims {
        iss: idp.issuer().clone(),
        sub: user.id.clone(),
        aud: issue.client.id().to_owned(),
        exp: now.plus(lifetime.clamp(60, id_token::LONGEST_LIFETIME)),
        iat: now,
        auth_time: issue.authentication.auth_time,
        acr: issue.authentication.acr.clone(),
        amr: issue.authentication.amr.clone(),
        sid: issue.session.to_owned(),
        nonce: issue.nonce.map(str::to_owned),
        at_hash,
        email_verified: email.is_some().then_some(user.email_verified),
        email,
        name: user.display_name.clone().filter(|_| profile),
        preferred_username: profile.then(|| user.username.clone()),
    }
}
