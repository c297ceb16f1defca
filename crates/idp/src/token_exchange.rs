//! The exchange: load the facts, decide (in `passavant-proto`), record, sign. The order matters,
//! because nothing is minted before it is recorded.

use super::{
    assertion_exchange, directory::IdpDirectory, sign_in::upstream::still_there, state::Idp,
};
use passavant_authority::{
    answer::Failure,
    authority::{KeyRing, Look, Snapshot},
    client_authentication::AuthenticatedClient,
    grants::live_token,
    mint::{self, Decision, Lost},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_outbound::{KeySource, Reach};
use passavant_proto::{
    TOKEN_TYPE_ID_JAG, TOKEN_TYPE_REFRESH_TOKEN,
    event::{Detail, RequestEvent},
    jose::jws::{self, JwtError},
    oauth::access_token,
    oidc::authentication::Authentication,
    oidc::id_token::verify_subject,
    others_text::shown,
    policy::{Person, ResourceAuthorizationServer},
    refusal::Refusal,
    time::Timestamp,
    xaa::id_jag::{self, IdJagClaims},
    xaa::token_exchange::{
        self, ExchangingClient, SubjectTokenType, TokenExchange, VerifiedSubject,
    },
};
use passavant_store::{AuditEvent, Entry, Grant, Opens, TokenKind};
use std::sync::Arc;

/// A verified subject token, with the conditions that must still hold when the ID-JAG is recorded.
struct VerifiedSubjectToken {
    user_id: String,
    session: String,
    family: Option<String>,
    refresh_token: Option<String>,
    authentication: Authentication,
}

/// The decision: who requests what, based on which sign-in.
struct Exchange<'a> {
    idp: &'a Idp,
    exchange: &'a TokenExchange,
    client: &'a AuthenticatedClient,
    subject: &'a VerifiedSubjectToken,
    key_thumbprint: Option<&'a str>,
    /// The keys that the subject token was verified with.
    keys: KeyRing,
    event: &'a AuditEvent,
    now: Timestamp,
}

impl mint::Grant<IdpDirectory> for Exchange<'_> {
    type Token = IdJagClaims;

    async fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<IdpDirectory>>,
        look: Look,
    ) -> Result<Decision<IdJagClaims>, Failure> {
        let state = &self.idp.0;
        let authority = &state.authority;
        let subject = self.subject;
        if self.exchange.subject_token_type == SubjectTokenType::IdToken
            && !snapshot.keys.is_like(&self.keys)
        {
            // A key was added or removed since the signature was verified: verify it again with the
            // current keys.
            let keys = snapshot.keys.verifying();
            let token = self.exchange.subject_token.expose();
            if let Err(error) =
                verify_subject(token, &keys, &authority.issuer, self.client.id(), self.now)
            {
                return Ok(Decision::Refuse(Refusal::SubjectToken(error)));
            }
            self.keys = snapshot.keys.clone();
        }
        let person = snapshot.directory.person(&authority.store, &subject.user_id, look).await?;
        let Some(person) = person else { return Ok(Decision::Refuse(Refusal::SubjectNotLive)) };
        let user = &person.user;
        let verified = VerifiedSubject {
            person: Person { id: &user.id, groups: &user.groups },
            email: user.email.as_deref().filter(|_| user.email_verified),
            authentication: &subject.authentication,
            username: &person.user.username,
            attributes: &person.user.attributes,
            saml_subject: person.user.saml_subject.as_ref(),
        };
        let client = ExchangingClient {
            idp_client_id: self.client.idp_client_id(),
            document: self.client.document(),
        };
        let policy = &snapshot.directory.policy;
        let permit =
            match token_exchange::authorize(self.exchange, verified, client, policy, self.now) {
                Ok(permit) => permit,
                Err(refusal) => return Ok(Decision::Refuse(refusal)),
            };
        let claims = token_exchange::id_jag(
            &permit,
            verified,
            &authority.issuer,
            state.settings.tenant.as_deref(),
            self.key_thumbprint.map(str::to_owned),
            authority.context.entropy.id(),
            self.now,
        );
        let event = self
            .event
            .clone()
            .with(Detail::Rule, permit.rules.join(", "))
            .with(Detail::Audience, permit.audience.as_str())
            .with(
                Detail::Resource,
                spaced(permit.resources.iter().map(passavant_proto::identifier::Resource::as_str)),
            )
            .with(Detail::Scope, permit.scopes.to_string())
            .with(Detail::RasClientId, permit.ras_client_id.as_str())
            .with(Detail::Jti, claims.jti.as_str());
        let mut operation = Entry::new(Some(event));
        operation.rests_on.push(person.seen.clone());
        operation.session = Some(subject.session.clone());
        operation.family.clone_from(&subject.family);
        operation.refresh_token.clone_from(&subject.refresh_token);
        operation.grant = Some(Grant {
            jti: claims.jti.clone(),
            kind: TokenKind::IdJag,
            user_id: subject.user_id.clone(),
            client_id: self.client.id().to_owned(),
            party: permit.audience.to_string(),
            lineage: subject.session.clone(),
            expires_at: claims.exp,
            opens: Some(Opens {
                resources: permit.resources.clone(),
                scopes: permit.scopes.clone(),
            }),
        });
        Ok(Decision::Grant(Box::new(operation), claims))
    }

    fn lost(&self) -> Lost {
        Lost {
            session: Refusal::SubjectNotLive,
            token: Refusal::SubjectRefreshToken,
            jti: Refusal::SubjectNotLive,
        }
    }
}

pub(super) async fn exchange(
    idp: &Idp,
    request: &ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    if request.form.optional("requested_token_type") == Some(TOKEN_TYPE_REFRESH_TOKEN) {
        event.event = RequestEvent::AssertionExchange.into();
        return assertion_exchange::exchange(idp, request, event).await;
    }
    let state = &idp.0;
    let authority = &state.authority;
    if request.client.is_public() && !state.settings.allow_public_exchange {
        return Err(Refusal::PublicClient.into());
    }
    let exchange = TokenExchange::parse(&request.form)?;
    event.note(Detail::RequestedAudience, shown(&exchange.audience, 256));
    let now = authority.now();
    let key_thumbprint = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    let keys = request.snapshot.keys.clone();
    let asking = Asking { client: request.client.id(), key: key_thumbprint, keys: &keys };
    let subject = match exchange.subject_token_type {
        SubjectTokenType::AccessToken => {
            chained(idp, &exchange, &request.client, event, now).await?
        }
        _ => verify(idp, &exchange, asking, event, now).await?,
    };
    event.person.clone_from(&subject.user_id);
    if !request.client.acts_for(&subject.user_id) {
        return Err(Refusal::SubjectNotLive.into());
    }
    state.admission.grant(request.client.id(), &subject.user_id)?;
    still_there(idp, &request.snapshot, &subject.session).await?;
    let mut grant = Exchange {
        idp,
        exchange: &exchange,
        client: &request.client,
        subject: &subject,
        key_thumbprint,
        keys: keys.clone(),
        event,
        now,
    };
    let claims =
        mint::mint(authority, request.snapshot.clone(), &request.client, &mut grant, now).await?;
    let snapshot = authority.snapshot();
    let chosen = snapshot.directory.policy.id_jag_signing_alg(&claims.aud);
    let key = snapshot.keys.signing_as(chosen);
    Ok(TokenAnswer {
        access_token: claims.sign(&key),
        token_type: "N_A",
        expires_in: id_jag::LIFETIME,
        issued_token_type: Some(TOKEN_TYPE_ID_JAG),
        scope: claims.scope,
        resource: claims.resource,
        id_token: None,
        refresh_token: None,
    })
}

/// The presenter of a subject token.
#[derive(Clone, Copy)]
struct Asking<'a> {
    keys: &'a KeyRing,
    client: &'a str,
    /// Thumbprint of its DPoP proof.
    key: Option<&'a str>,
}

async fn verify(
    idp: &Idp,
    exchange: &TokenExchange,
    asking: Asking<'_>,
    event: &mut AuditEvent,
    now: Timestamp,
) -> Result<VerifiedSubjectToken, Failure> {
    let authority = &idp.0.authority;
    let client = asking.client;
    match exchange.subject_token_type {
        SubjectTokenType::IdToken => {
            let token = exchange.subject_token.expose();
            let keys = asking.keys.verifying();
            let subject = verify_subject(token, &keys, &authority.issuer, client, now)
                .map_err(Refusal::SubjectToken)?;
            Ok(VerifiedSubjectToken {
                user_id: subject.subject,
                session: subject.session,
                family: subject.family,
                refresh_token: None,
                authentication: subject.authentication,
            })
        }
        SubjectTokenType::RefreshToken => {
            let hash = exchange.subject_token.hash();
            let token = match live_token(authority, &hash, client, event).await {
                Ok(token) => token.ok_or(Refusal::SubjectRefreshToken)?,
                // The reuse is recorded; the client gets the error for the parameter it used.
                Err(Failure::RefusedOnRecord(_)) => {
                    return Err(Failure::RefusedOnRecord(Refusal::SubjectRefreshToken));
                }
                Err(failure) => return Err(failure),
            };
            if token.dpop_jkt.is_some() && token.dpop_jkt.as_deref() != asking.key {
                return Err(Refusal::DpopBinding.into());
            }
            Ok(VerifiedSubjectToken {
                user_id: token.user_id,
                session: token.sid,
                family: Some(token.family),
                refresh_token: Some(hash),
                authentication: token.authentication,
            })
        }
        SubjectTokenType::AccessToken => Err(Refusal::SubjectTokenType.into()),
    }
}

/// A gateway's subject token: an access token for an MCP server that the client stands for, issued
/// for an ID-JAG of ours that still has standing. The gateway acts for that person, as their
/// sign-in is now, and only if one of its own connections allows it.
async fn chained(
    idp: &Idp,
    exchange: &TokenExchange,
    client: &AuthenticatedClient,
    event: &mut AuditEvent,
    now: Timestamp,
) -> Result<VerifiedSubjectToken, Failure> {
    let authority = &idp.0.authority;
    let stands_for = &client.record().resources;
    if stands_for.is_empty() {
        return Err(Refusal::SubjectTokenType.into());
    }
    let refused = |error| Failure::from(Refusal::SubjectToken(error));
    let token = exchange.subject_token.expose();
    let issuer = access_token::claimed_issuer(token).map_err(refused)?;
    // Keys are fetched only from registered authorization servers.
    let server = authority.store.usable::<ResourceAuthorizationServer>(&issuer).await?;
    let server = server.filter(|server| !server.disabled).ok_or(refused(JwtError::Issuer))?;
    let source = KeySource {
        owner: server.issuer.to_string(),
        jwks_uri: None,
        algorithm: server.algorithm,
        reach: Reach::of_trusted_url(server.issuer.as_str()),
    };
    let (header, _) = jws::peek(token).map_err(refused)?;
    let kid = header.optional_str("kid").ok().flatten();
    let keys = authority.context.remote_keys.keys(&source, kid).await;
    let keys = keys.map_err(|_| Refusal::IssuerKeysUnavailable)?;
    let mut verified = Err(JwtError::Audience);
    for resource in stands_for {
        verified = access_token::verify(
            token,
            &keys,
            &server.issuer,
            (resource, access_token::TokenForm::default()),
            now,
        )
        .map(|token| (token, resource));
        if !matches!(verified, Err(JwtError::Audience)) {
            break;
        }
    }
    let (verified, resource) = verified.map_err(refused)?;
    let txn = verified.transaction.as_deref().ok_or(refused(JwtError::Binding("txn")))?;
    event.note(Detail::Txn, txn);
    event.note(Detail::SubjectToken, verified.jti.as_str());
    let snapshot = authority.fresh().await?;
    let party = server.issuer.as_str();
    let stands = idp.standing_of_id_jag(&snapshot, txn, party, resource, now).await?;
    let (grant, standing) = stands.ok_or(Refusal::SubjectNotLive)?;
    Ok(VerifiedSubjectToken {
        authentication: standing.authentication,
        user_id: grant.user_id,
        session: grant.lineage,
        family: None,
        refresh_token: None,
    })
}

fn spaced<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(" ")
}
