//! What the interactive path ends in: a code for tokens, and refresh tokens that rotate. Issuer, account, client
//! and MCP server are asked about again at every step.

use super::{Ras, directory::RasDirectory};
use crate::{
    answer::Failure,
    authority::Snapshot,
    client_authentication::AuthenticatedClient,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_proto::{
    access_token::{self, AccessTokenClaims},
    authentication::Authentication,
    authorize::AuthorizationRequest,
    form::Form,
    id_jag::{Confirmation, OneOrMany},
    identifier::Resource,
    refusal::Refusal,
    scope::Scopes,
    secret::Secret,
    time::Timestamp,
    token_exchange::{parse_resources, parse_scope},
    trust::Account,
};
use carnet_store::{
    AuditEvent, CodeRedemption, Grant, HotOperation, HotOutcome, RefreshToken, RefreshTokenState,
    Rotation, TokenKind,
};
use std::sync::Arc;

/// What tokens are about.
struct Issue<'a> {
    client: &'a AuthenticatedClient,
    account: &'a str,
    session: &'a str,
    family: &'a str,
    authentication: &'a Authentication,
    scopes: &'a Scopes,
    resource: &'a Resource,
    key_thumbprint: Option<&'a str>,
    refresh_token: Option<String>,
    /// What is said where it does not stand any more.
    gone: Refusal,
}

/// The authorization code grant (RFC 6749 4.1.3, RFC 7636 4.5).
pub(super) async fn redeem(
    ras: &Ras,
    request: ClientRequest<RasDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    let code = Secret::new(request.form.required("code")?);
    let now = authority.now();
    // Used up here, whatever the checks below say: a code that leaked is worth one guess.
    let redeemed = authority.store.redeem_authorization_code(&code.hash(), now).await?;
    let (code, session) = match redeemed {
        CodeRedemption::Redeemed(code, session) => (code, session),
        CodeRedemption::Reused => return Err(Refusal::CodeReuse.into()),
        CodeRedemption::Invalid => return Err(Refusal::Code.into()),
    };
    *event = event.clone().person(&session.user_id);
    let key_thumbprint = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    let resource = check(&request.form, &code.request, request.client.id(), key_thumbprint)?;
    let secret = authority.context.entropy.secret();
    let settings = &ras.0.settings;
    let token = RefreshToken {
        family: code.family.clone(),
        sid: session.sid.clone(),
        user_id: session.user_id.clone(),
        client_id: request.client.id().to_owned(),
        scopes: code.request.scopes.clone(),
        authentication: session.authentication.clone(),
        dpop_jkt: key_thumbprint.filter(|_| request.client.is_public()).map(str::to_owned),
        resource: Some(resource.clone()),
        client_method: Some(request.client.record().authentication.method().to_owned()),
        idle_expires_at: now.plus(settings.refresh_idle),
        expires_at: now.plus(settings.refresh_absolute),
    };
    if !authority.store.issue_refresh_token(&secret.hash(), &token).await? {
        return Err(Refusal::Code.into());
    }
    let issue = Issue {
        client: &request.client,
        account: &session.user_id,
        session: &session.sid,
        family: &code.family,
        authentication: &session.authentication,
        scopes: &code.request.scopes,
        resource: &resource,
        key_thumbprint,
        refresh_token: Some(secret.expose().to_owned()),
        gone: Refusal::Code,
    };
    mint(ras, request.snapshot.clone(), issue, event, now).await
}

fn check(
    form: &Form,
    asked: &AuthorizationRequest,
    client: &str,
    key_thumbprint: Option<&str>,
) -> Result<Resource, Refusal> {
    if asked.client_id != client {
        return Err(Refusal::Code);
    }
    if form.required("redirect_uri")? != asked.redirect_uri {
        return Err(Refusal::CodeRedirectUri);
    }
    if !asked.code_challenge.is_answered_by(form.required("code_verifier")?) {
        return Err(Refusal::CodeVerifier);
    }
    if asked.dpop_jkt.is_some() && asked.dpop_jkt.as_deref() != key_thumbprint {
        return Err(Refusal::DpopBinding);
    }
    let resource = asked.resource.clone().ok_or(Refusal::Code)?;
    same_resource(form, &resource)?;
    Ok(resource)
}

/// A token request may name the resource again, and no other (RFC 8707 section 2.2).
fn same_resource(form: &Form, resource: &Resource) -> Result<(), Refusal> {
    let named = parse_resources(form)?;
    if named.iter().all(|named| named == resource) { Ok(()) } else { Err(Refusal::ResourceOfGrant) }
}

/// The refresh grant: rotation, and a family that dies with the first reuse (RFC 9700 4.14.2).
pub(super) async fn renew(
    ras: &Ras,
    request: ClientRequest<RasDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    let presented = Secret::new(request.form.required("refresh_token")?);
    let wanted = parse_scope(&request.form)?;
    let now = authority.now();
    let hash = presented.hash();
    let held = match authority.store.refresh_token(&hash, now).await? {
        RefreshTokenState::Live(token) if token.client_id == request.client.id() => token,
        RefreshTokenState::Replaced(token) if token.client_id == request.client.id() => {
            let reuse = Refusal::RefreshTokenReuse;
            let event = event.clone().person(&token.user_id).refused(reuse.reason());
            authority.store.revoke_family(&token.family, event, now).await?;
            return Err(Failure::RefusedOnRecord(reuse));
        }
        _ => return Err(Refusal::RefreshToken.into()),
    };
    *event = event.clone().person(&held.user_id);
    // A client whose document says another method now is another client (I20).
    let method = request.client.record().authentication.method();
    if held.client_method.as_deref() != Some(method) {
        return Err(Refusal::RefreshToken.into());
    }
    let key_thumbprint = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    if held.dpop_jkt.is_some() && held.dpop_jkt.as_deref() != key_thumbprint {
        return Err(Refusal::DpopBinding.into());
    }
    let scopes = wanted.unwrap_or_else(|| held.scopes.clone());
    if !held.scopes.contains_all(&scopes) {
        return Err(Refusal::ScopeWidened.into());
    }
    let resource = held.resource.clone().ok_or(Refusal::RefreshToken)?;
    same_resource(&request.form, &resource)?;
    // Asked before the rotation, so that what is switched off does not look like a theft as well.
    let snapshot = authority.fresh().await?;
    let account = authority.store.by_id::<Account>(&held.user_id).await?;
    let open = is_open(&snapshot.directory, &held.authentication);
    if !open || account.is_none_or(|account| account.disabled) {
        return Err(Refusal::RefreshToken.into());
    }
    let secret = authority.context.entropy.secret();
    let successor = RefreshToken {
        idle_expires_at: now.plus(ras.0.settings.refresh_idle).min(held.expires_at),
        ..(*held).clone()
    };
    let rotated =
        authority.store.rotate_refresh_token(&hash, &secret.hash(), &successor, now).await?;
    match rotated {
        Rotation::Rotated => {}
        Rotation::Reused => return Err(Refusal::RefreshTokenReuse.into()),
        Rotation::Invalid => return Err(Refusal::RefreshToken.into()),
    }
    let issue = Issue {
        client: &request.client,
        account: &held.user_id,
        session: &held.sid,
        family: &held.family,
        authentication: &held.authentication,
        scopes: &scopes,
        resource: &resource,
        key_thumbprint,
        refresh_token: Some(secret.expose().to_owned()),
        gone: Refusal::RefreshToken,
    };
    mint(ras, snapshot, issue, event, now).await
}

/// Whether the issuer of a sign-in still lets its people come this way.
fn is_open(directory: &RasDirectory, authentication: &Authentication) -> bool {
    let issuer = authentication.issuer.as_ref();
    let trusted = issuer.and_then(|issuer| directory.trusted(issuer.as_str()));
    trusted.is_some_and(|trusted| trusted.sign_in.is_some())
}

/// Records and signs.
async fn mint(
    ras: &Ras,
    mut snapshot: Arc<Snapshot<RasDirectory>>,
    issue: Issue<'_>,
    event: &AuditEvent,
    now: Timestamp,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    let jti = authority.context.entropy.id();
    loop {
        let directory = &snapshot.directory;
        if !issue.client.still_stands(authority, directory).await? {
            return Err(Refusal::ClientUnknown.into());
        }
        let account = authority.store.by_id::<Account>(issue.account).await?;
        let live = account.is_some_and(|account| !account.disabled);
        if !live || !is_open(directory, issue.authentication) {
            return Err(issue.gone.into());
        }
        let mut governed = directory.governed.iter();
        let governed = governed.find(|g| g.resource == *issue.resource && !g.disabled);
        let governed = governed.ok_or(Refusal::ResourceOfGrant)?;
        if governed.require_dpop && issue.key_thumbprint.is_none() {
            return Err(Refusal::BindingRequired.into());
        }
        let scopes = issue.scopes.intersection(&governed.scopes);
        let lifetime = governed
            .access_token_lifetime
            .unwrap_or(access_token::LIFETIME)
            .clamp(1, access_token::LONGEST_LIFETIME);
        let authentication = issue.authentication;
        let claims = AccessTokenClaims {
            iss: authority.issuer.clone(),
            sub: issue.account.to_owned(),
            aud: OneOrMany::One(governed.resource.as_str().to_owned()),
            client_id: issue.client.id().to_owned(),
            jti: jti.clone(),
            exp: now.plus(lifetime),
            iat: now,
            scope: (!scopes.is_empty()).then(|| scopes.to_string()),
            txn: None,
            sid: None,
            auth_time: Some(authentication.auth_time).filter(|at| at.0 > 0),
            acr: (!authentication.acr.is_empty()).then(|| authentication.acr.clone()),
            cnf: issue.key_thumbprint.map(|jkt| Confirmation { jkt: jkt.to_owned() }),
        };
        let party = authentication.issuer.as_ref().map(ToString::to_string).unwrap_or_default();
        let granted = event
            .clone()
            .person(issue.account)
            .with("issuer", party.as_str())
            .with("resource", governed.resource.as_str())
            .with("scope", scopes.to_string())
            .with("session", issue.session)
            .with("jti", jti.as_str());
        let mut operation = HotOperation::new(Some(granted));
        operation.generation = Some(snapshot.generation);
        operation.session = Some(issue.session.to_owned());
        operation.reasons[0] = issue.gone.reason();
        operation.grant = Some(Grant {
            jti: jti.clone(),
            kind: TokenKind::AccessToken,
            user_id: issue.account.to_owned(),
            client_id: issue.client.id().to_owned(),
            party,
            lineage: issue.family.to_owned(),
            expires_at: claims.exp,
        });
        match authority.store.record(operation, now).await? {
            HotOutcome::Stale => snapshot = authority.fresh().await?,
            HotOutcome::Recorded => {
                return Ok(TokenAnswer {
                    access_token: claims.sign(authority.keys.signing()),
                    token_type: if claims.cnf.is_some() { "DPoP" } else { "Bearer" },
                    expires_in: lifetime,
                    issued_token_type: None,
                    scope: claims.scope,
                    resource: Some(claims.aud),
                    id_token: None,
                    refresh_token: issue.refresh_token,
                });
            }
            _ => return Err(Failure::RefusedOnRecord(issue.gone)),
        }
    }
}
