//! The exchange: load the facts, ask the core, record, sign. In this order, because nothing is
//! minted before it is on record.

use super::{Idp, directory::IdpDirectory};
use crate::{
    answer::Failure,
    client_authentication::AuthenticatedClient,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_client::{KeySource, Reach};
use carnet_proto::{
    TOKEN_TYPE_ID_JAG, access_token,
    authentication::Authentication,
    id_jag,
    id_token::verify_subject,
    jws::{self, JwtError},
    policy::{Person, ResourceAuthorizationServer},
    refusal::Refusal,
    time::Timestamp,
    token_exchange::{self, ExchangingClient, SubjectTokenType, TokenExchange, VerifiedSubject},
};
use carnet_store::{AuditEvent, Grant, HotOperation, HotOutcome, RefreshTokenState, TokenKind};

/// A subject token that verified, with what must still hold when the ID-JAG is recorded.
struct Subject {
    user_id: String,
    session: String,
    refresh_token: Option<String>,
    authentication: Authentication,
}

#[allow(clippy::too_many_lines)] // the whole walk: facts, core, record, sign
pub(super) async fn exchange(
    idp: &Idp,
    request: ClientRequest<IdpDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let state = &idp.0;
    let authority = &state.authority;
    if request.client.is_public() && !state.settings.allow_public_exchange {
        return Err(Refusal::PublicClient.into());
    }
    let exchange = TokenExchange::parse(&request.form)?;
    *event = event.clone().with("requested_audience", printable(&exchange.audience));
    let now = authority.now();
    let key_thumbprint = request.proof.map(|proof| proof.key_thumbprint);
    let asking = Asking { client: request.client.id(), key: key_thumbprint.as_deref() };
    let subject = match exchange.subject_token_type {
        SubjectTokenType::AccessToken => {
            chained(idp, &exchange, &request.client, event, now).await?
        }
        _ => verify(idp, &exchange, asking, event, now).await?,
    };
    *event = event.clone().person(&subject.user_id);
    if !request.client.acts_for(&subject.user_id) {
        return Err(Refusal::SubjectNotLive.into());
    }
    let mut snapshot = request.snapshot;
    loop {
        // Asked anew on each turn: the client may have been switched off since it authenticated.
        if !request.client.still_stands(authority, &snapshot.directory).await? {
            return Err(Refusal::ClientUnknown.into());
        }
        let user = snapshot.directory.person(&authority.store, &subject.user_id).await?;
        let decided = match &user {
            None => Err(Refusal::SubjectNotLive),
            Some(user) => {
                let verified = VerifiedSubject {
                    person: Person { id: &user.id, groups: &user.groups },
                    email: user.email.as_deref().filter(|_| user.email_verified),
                    authentication: &subject.authentication,
                };
                let client = ExchangingClient {
                    idp_client_id: request.client.idp_client_id(),
                    document: request.client.document(),
                };
                let policy = &snapshot.directory.policy;
                token_exchange::authorize(&exchange, verified, client, policy, now).map(|permit| {
                    let claims = token_exchange::id_jag(
                        &permit,
                        verified,
                        &authority.issuer,
                        state.settings.tenant.as_deref(),
                        key_thumbprint.clone(),
                        authority.context.entropy.id(),
                        now,
                    );
                    (permit, claims)
                })
            }
        };
        let decided_event = match &decided {
            Ok((permit, claims)) => event
                .clone()
                .with("rule", permit.rules.join(", "))
                .with("audience", permit.audience.as_str())
                .with(
                    "resource",
                    spaced(permit.resources.iter().map(carnet_proto::identifier::Resource::as_str)),
                )
                .with("scope", permit.scopes.to_string())
                .with("ras_client_id", permit.ras_client_id.as_str())
                .with("jti", claims.jti.as_str()),
            Err(refusal) => {
                let refused = event.clone().refused(refusal.reason());
                match refusal {
                    Refusal::Denied(denial) => refused.with("rule", denial.rule.as_str()),
                    _ => refused,
                }
            }
        };
        let mut operation = HotOperation::new(Some(decided_event));
        operation.generation = Some(snapshot.generation);
        operation.reasons = ["subject.not_live", "subject.refresh_token", "jti.replay"];
        if let Ok((permit, claims)) = &decided {
            operation.session = Some(subject.session.clone());
            operation.refresh_token.clone_from(&subject.refresh_token);
            operation.grant = Some(Grant {
                jti: claims.jti.clone(),
                kind: TokenKind::IdJag,
                user_id: subject.user_id.clone(),
                client_id: request.client.id().to_owned(),
                party: permit.audience.to_string(),
                lineage: subject.session.clone(),
                expires_at: claims.exp,
            });
        }
        match authority.store.record(operation, now).await? {
            HotOutcome::Stale => snapshot = authority.fresh().await?,
            HotOutcome::SessionEnded => {
                return Err(Failure::RefusedOnRecord(Refusal::SubjectNotLive));
            }
            HotOutcome::RefreshTokenNotLive => {
                return Err(Failure::RefusedOnRecord(Refusal::SubjectRefreshToken));
            }
            HotOutcome::Recorded | HotOutcome::Replay => {
                let (_, claims) = decided.map_err(Failure::RefusedOnRecord)?;
                return Ok(TokenAnswer {
                    access_token: claims.sign(authority.keys.signing()),
                    token_type: "N_A",
                    expires_in: id_jag::LIFETIME,
                    issued_token_type: Some(TOKEN_TYPE_ID_JAG),
                    scope: claims.scope,
                    resource: claims.resource,
                    id_token: None,
                    refresh_token: None,
                });
            }
        }
    }
}

/// Who presents a subject token.
#[derive(Clone, Copy)]
struct Asking<'a> {
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
) -> Result<Subject, Failure> {
    let authority = &idp.0.authority;
    let client = asking.client;
    match exchange.subject_token_type {
        SubjectTokenType::IdToken => {
            let token = exchange.subject_token.expose();
            let keys = authority.keys.verifying();
            let subject = verify_subject(token, keys, &authority.issuer, client, now)
                .map_err(Refusal::SubjectToken)?;
            Ok(Subject {
                user_id: subject.subject,
                session: subject.session,
                refresh_token: None,
                authentication: subject.authentication,
            })
        }
        SubjectTokenType::RefreshToken => {
            let hash = exchange.subject_token.hash();
            match authority.store.refresh_token(&hash, now).await? {
                RefreshTokenState::Live(token) if token.client_id == client => {
                    if token.dpop_jkt.is_some() && token.dpop_jkt.as_deref() != asking.key {
                        return Err(Refusal::DpopBinding.into());
                    }
                    Ok(Subject {
                        user_id: token.user_id,
                        session: token.sid,
                        refresh_token: Some(hash),
                        authentication: token.authentication,
                    })
                }
                RefreshTokenState::Replaced(token) if token.client_id == client => {
                    // As in the refresh grant: a token that was rotated out is in two hands.
                    let event = event
                        .clone()
                        .person(&token.user_id)
                        .refused(Refusal::RefreshTokenReuse.reason());
                    authority.store.revoke_family(&token.family, event, now).await?;
                    Err(Failure::RefusedOnRecord(Refusal::SubjectRefreshToken))
                }
                _ => Err(Refusal::SubjectRefreshToken.into()),
            }
        }
        SubjectTokenType::AccessToken => Err(Refusal::SubjectTokenType.into()),
    }
}

/// A gateway's subject: an access token for an MCP server that the client stands for, which came from an
/// ID-JAG of ours that still stands. It acts for that person, as their sign-in is now, and only where a
/// connection of its own lets it.
async fn chained(
    idp: &Idp,
    exchange: &TokenExchange,
    client: &AuthenticatedClient,
    event: &mut AuditEvent,
    now: Timestamp,
) -> Result<Subject, Failure> {
    let authority = &idp.0.authority;
    let stands_for = &client.record().resources;
    if stands_for.is_empty() {
        return Err(Refusal::SubjectTokenType.into());
    }
    let refused = |error| Failure::from(Refusal::SubjectToken(error));
    let token = exchange.subject_token.expose();
    let issuer = access_token::claimed_issuer(token).map_err(refused)?;
    // Whom we do not know we do not ask for keys.
    let server = authority.store.by_id::<ResourceAuthorizationServer>(&issuer).await?;
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
        verified = access_token::verify(token, &keys, &server.issuer, resource, now);
        if !matches!(verified, Err(JwtError::Audience)) {
            break;
        }
    }
    let verified = verified.map_err(refused)?;
    let txn = verified.transaction.as_deref().ok_or(refused(JwtError::Binding("txn")))?;
    *event = event.clone().with("txn", txn).with("subject_token", verified.jti.as_str());
    let grant = authority.store.live_grant(txn).await?;
    let grant = grant
        .filter(|grant| grant.kind == TokenKind::IdJag && grant.party == server.issuer.as_str());
    let grant = grant.ok_or(Refusal::SubjectNotLive)?;
    let authentication = authority.store.session_authentication(&grant.lineage).await?;
    Ok(Subject {
        authentication: authentication.ok_or(Refusal::SubjectNotLive)?,
        user_id: grant.user_id,
        session: grant.lineage,
        refresh_token: None,
    })
}

fn spaced<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(" ")
}

/// The sender's text for the record: without control characters, and short.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}
