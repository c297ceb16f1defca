//! The tokens of a sign-in: ID token, access token for the IdP's own endpoints, refresh token.

use super::{
    directory::IdpDirectory, directory::Living, logout_notices::tells,
    revocation_notices::server_of, state::Idp,
};
use passavant_authority::{
    answer::Failure,
    authority::{Look, Snapshot},
    client_authentication::AuthenticatedClient,
    grants::Renewal,
    mint::{self, Decision, Lost},
    token_endpoint::TokenAnswer,
};
use passavant_proto::{
    event::Detail,
    oauth::access_token::{self, AccessTokenClaims},
    oauth::scope::Scopes,
    oidc::authentication::Authentication,
    oidc::id_token::{self, IdTokenClaims, at_hash},
    refusal::Refusal,
    secret::Secret,
    time::Timestamp,
    xaa::id_jag::{Confirmation, OneOrMany},
};
use passavant_store::{AuditEvent, Entry, Grant, RefreshToken, TokenKind, User};
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
    pub(super) used_up: UsedUp<'a>,
}

/// What is exchanged for the tokens, and used up in the transaction that records them.
pub(super) enum UsedUp<'a> {
    /// A code, by its hash, and the refresh token to issue.
    Code(&'a str, Option<Box<(Secret, RefreshToken)>>),
    RefreshToken(Renewal),
}

impl UsedUp<'_> {
    /// The refresh token of the response.
    fn refresh_token(&self) -> Option<&Secret> {
        match self {
            Self::Code(_, issued) => issued.as_ref().map(|issued| &issued.0),
            Self::RefreshToken(renewal) => Some(renewal.token()),
        }
    }
}

/// The decision: client, person, session and family are checked in the transaction that records it.
struct SignedIn<'a> {
    idp: &'a Idp,
    issue: &'a Issue<'a>,
    event: &'a AuditEvent,
    jti: &'a str,
    expires: Timestamp,
}

impl mint::Grant<IdpDirectory> for SignedIn<'_> {
    type Token = Arc<Living>;

    async fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<IdpDirectory>>,
        look: Look,
    ) -> Result<Decision<Arc<Living>>, Failure> {
        let authority = &self.idp.0.authority;
        let issue = self.issue;
        let person = snapshot.directory.person(&authority.store, issue.user_id, look).await?;
        let Some(person) = person else { return Ok(Decision::Refuse(self.lost().token)) };
        let user = &person.user;
        let event = self
            .event
            .clone()
            .person(&user.id)
            .with(Detail::Scope, issue.scopes.to_string())
            .with(Detail::Session, issue.session)
            .with(Detail::Jti, self.jti);
        let mut operation = Entry::new(Some(event));
        operation.rests_on.push(person.seen.clone());
        operation.session = Some(issue.session.to_owned());
        operation.family = Some(issue.family.to_owned());
        tells(&mut operation, issue.client, (issue.session, &user.id));
        let server = server_of(issue.client, &snapshot.directory);
        operation.known_by = server.map(|server| (user.id.clone(), server));
        match &issue.used_up {
            UsedUp::Code(hash, issued) => {
                operation.code = Some((*hash).to_owned());
                let issued = issued.as_deref();
                operation.issues =
                    issued.map(|(secret, token)| (secret.hash(), Box::new(token.clone())));
            }
            UsedUp::RefreshToken(renewal) => renewal.rest(&mut operation),
        }
        operation.grant = Some(Grant {
            jti: self.jti.to_owned(),
            kind: TokenKind::AccessToken,
            user_id: user.id.clone(),
            client_id: issue.client.id().to_owned(),
            party: authority.issuer.to_string(),
            lineage: issue.family.to_owned(),
            expires_at: self.expires,
            opens: None,
        });
        Ok(Decision::Grant(Box::new(operation), person))
    }

    fn lost(&self) -> Lost {
        let token = match self.issue.used_up {
            UsedUp::Code(..) => Refusal::Code,
            UsedUp::RefreshToken(_) => Refusal::RefreshToken,
        };
        Lost { session: Refusal::SubjectNotLive, token, jti: Refusal::SubjectNotLive }
    }
}

/// Records and signs.
pub(super) async fn issue(
    idp: &Idp,
    snapshot: Arc<Snapshot<IdpDirectory>>,
    issue: Issue<'_>,
    event: &AuditEvent,
    now: Timestamp,
) -> Result<TokenAnswer, Failure> {
    let authority = &idp.0.authority;
    let jti = authority.context.entropy.id();
    let expires = now.plus(access_token::LIFETIME);
    let mut grant = SignedIn { idp, issue: &issue, event, jti: &jti, expires };
    let person = mint::mint(authority, snapshot, issue.client, &mut grant, now).await?;
    let user = &person.user;
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
    .sign(&authority.signing());
    let ends = authority.store.session_ends(issue.session).await?;
    let id_token = issue.scopes.contains("openid").then(|| {
        let key = authority.signing_as(issue.client.record().id_token_signed_response_alg);
        let hash = at_hash(&access_token, key.algorithm());
        id_token_claims(idp, &issue, user, (hash, ends), now).sign(&key)
    });
    Ok(TokenAnswer {
        token_type: if issue.key_thumbprint.is_some() { "DPoP" } else { "Bearer" },
        access_token,
        expires_in: access_token::LIFETIME,
        issued_token_type: None,
        scope: Some(issue.scopes.to_string()),
        resource: None,
        id_token,
        refresh_token: issue.used_up.refresh_token().map(|secret| secret.expose().to_owned()),
    })
}

fn id_token_claims(
    idp: &Idp,
    issue: &Issue<'_>,
    user: &User,
    (at_hash, session_expiry): (String, Option<Timestamp>),
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
        session_expiry,
        origin_jti: issue.family.to_owned(),
        nonce: issue.nonce.map(str::to_owned),
        at_hash: Some(at_hash),
        email_verified: email.is_some().then_some(user.email_verified),
        email,
        name: user.display_name.clone().filter(|_| profile),
        preferred_username: profile.then(|| user.username.clone()),
        given_name: user.given_name.clone().filter(|_| profile),
        family_name: user.family_name.clone().filter(|_| profile),
        groups: issue.scopes.contains("groups").then(|| user.groups.iter().cloned().collect()),
    }
}
