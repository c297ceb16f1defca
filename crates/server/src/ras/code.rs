//! What the interactive path ends in: a code for tokens, and refresh tokens that rotate. Issuer, account, client
//! and MCP server are asked about again at every step.

use super::{Ras, access_token, directory::RasDirectory};
use crate::{
    answer::Failure,
    authority::Snapshot,
    client_authentication::AuthenticatedClient,
    grants::{self, Presented},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_proto::{
    access_token::{AccessTokenClaims, LIFETIME, LONGEST_LIFETIME},
    authentication::Authentication,
    form::Form,
    id_jag::{Confirmation, OneOrMany},
    identifier::Resource,
    refusal::Refusal,
    scope::Scopes,
    time::Timestamp,
    token_exchange::parse_resources,
    trust::Account,
};
use carnet_store::{AuditEvent, HotOperation, HotOutcome, RefreshToken};
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
    let now = authority.now();
    let (code, session) = grants::redeem_code(authority, &request, event).await?;
    let key_thumbprint = request.key_thumbprint();
    let resource = code.request.resource.clone().ok_or(Refusal::Code)?;
    same_resource(&request.form, &resource)?;
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
    let now = authority.now();
    let presented = Presented::read(authority, &request, event).await?;
    let held = &presented.held;
    // A client whose document says another method now is another client (I20).
    let method = request.client.record().authentication.method();
    if held.client_method.as_deref() != Some(method) {
        return Err(Refusal::RefreshToken.into());
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
    let secret = presented.rotate(authority, ras.0.settings.refresh_idle).await?;
    let issue = Issue {
        client: &request.client,
        account: &held.user_id,
        session: &held.sid,
        family: &held.family,
        authentication: &held.authentication,
        scopes: &presented.scopes,
        resource: &resource,
        key_thumbprint: request.key_thumbprint(),
        refresh_token: Some(secret.expose().to_owned()),
        gone: Refusal::RefreshToken,
    };
    mint(ras, snapshot, issue, event, now).await
}

/// Whether the issuer of a sign-in still lets its people come this way.
fn is_open(directory: &RasDirectory, authentication: &Authentication) -> bool {
    let issuer = authentication.issuer.as_ref();
    let trusted = issuer.and_then(|issuer| directory.trusted(issuer.as_str()));
    trusted.is_some_and(|trusted| trusted.open_sign_in().is_some())
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
        let lifetime =
            governed.access_token_lifetime.unwrap_or(LIFETIME).clamp(1, LONGEST_LIFETIME);
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
        operation.grant = Some(access_token::grant(&claims, party, issue.family));
        match authority.store.record(operation, now).await? {
            HotOutcome::Stale => snapshot = authority.fresh().await?,
            HotOutcome::Recorded => {
                let resource = governed.resource.as_str().to_owned();
                return Ok(access_token::answer(ras, claims, resource, issue.refresh_token));
            }
            _ => return Err(Failure::RefusedOnRecord(issue.gone)),
        }
    }
}
