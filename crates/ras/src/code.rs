//! The end of the interactive path: a code is exchanged for tokens, and refresh tokens are rotated.
//! Issuer, account, client and MCP server are checked again at every step.

use super::{access_token, directory::RasDirectory, state::Ras};
use passavant_authority::{
    answer::Failure,
    authority::{Look, Snapshot},
    client_authentication::AuthenticatedClient,
    grants::{self, PresentedToken, Renewal},
    mint::{self, Decision, Lost},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_proto::{
    event::Detail,
    identifier::Resource,
    oauth::access_token::{AccessTokenClaims, LIFETIME, LONGEST_LIFETIME},
    oauth::form::Form,
    oauth::scope::Scopes,
    oidc::authentication::Authentication,
    refusal::Refusal,
    secret::Secret,
    time::Timestamp,
    xaa::id_jag::{Confirmation, OneOrMany},
    xaa::token_exchange::parse_resources,
};
use passavant_store::{AuditEvent, Entry, RefreshToken};
use std::sync::Arc;

/// The subject of the tokens, and what is exchanged for them.
struct Issue<'a> {
    ras: &'a Ras,
    client: &'a AuthenticatedClient,
    account: &'a str,
    session: &'a str,
    family: &'a str,
    authentication: &'a Authentication,
    scopes: &'a Scopes,
    resource: &'a Resource,
    key_thumbprint: Option<&'a str>,
    used_up: UsedUp<'a>,
    event: &'a AuditEvent,
    jti: String,
    now: Timestamp,
}

/// What is used up in the transaction that records the token.
enum UsedUp<'a> {
    /// A code, by its hash, and the refresh token to issue.
    Code(&'a str, Box<(Secret, RefreshToken)>),
    RefreshToken(Renewal),
}

impl UsedUp<'_> {
    /// The refresh token of the response.
    fn refresh_token(&self) -> &Secret {
        match self {
            Self::Code(_, issued) => &issued.0,
            Self::RefreshToken(renewal) => renewal.token(),
        }
    }
}

/// The authorization code grant (RFC 6749 4.1.3, RFC 7636 4.5).
pub(super) async fn redeem(
    ras: &Ras,
    request: &ClientRequest<RasDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    let now = authority.now();
    let presented = grants::present_code(authority, request, event).await?;
    let (code, session) = (&presented.code, &presented.session);
    let key_thumbprint = request.key_thumbprint();
    let resource = code.request.resource.clone().ok_or(Refusal::Code)?;
    same_resource(&request.form, &resource)?;
    ras.0.admission.grant(request.client.id(), &session.user_id)?;
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
    let issue = Issue {
        ras,
        client: &request.client,
        account: &session.user_id,
        session: &session.sid,
        family: &code.family,
        authentication: &session.authentication,
        scopes: &code.request.scopes,
        resource: &resource,
        key_thumbprint,
        used_up: UsedUp::Code(
            &presented.hash,
            Box::new((authority.context.entropy.secret(), token)),
        ),
        event,
        jti: authority.context.entropy.id(),
        now,
    };
    match issue.mint(request.snapshot.clone()).await {
        // Two concurrent uses: at most one of them got tokens, and those are revoked.
        Err(Failure::RefusedOnRecord(Refusal::Code)) => {
            Err(grants::code_reuse(authority, &code.family, event).await)
        }
        issued => issued,
    }
}

/// A token request may repeat the resource of the authorization request, but name no other (RFC
/// 8707 section 2.2).
fn same_resource(form: &Form, resource: &Resource) -> Result<(), Refusal> {
    let named = parse_resources(form)?;
    if named.iter().all(|named| named == resource) { Ok(()) } else { Err(Refusal::ResourceOfGrant) }
}

/// The refresh grant: rotation, and a family that ends with the first reuse (RFC 9700 4.14.2).
pub(super) async fn renew(
    ras: &Ras,
    request: &ClientRequest<RasDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    let now = authority.now();
    let mut presented = PresentedToken::read(authority, request, event).await?;
    // A client whose document now names another authentication method counts as a different client.
    let method = request.client.record().authentication.method();
    if presented.held.client_method.as_deref() != Some(method) {
        return Err(Refusal::RefreshToken.into());
    }
    let resource = presented.held.resource.clone().ok_or(Refusal::RefreshToken)?;
    same_resource(&request.form, &resource)?;
    ras.0.admission.grant(request.client.id(), &presented.held.user_id)?;
    loop {
        let held = &presented.held;
        let issue = Issue {
            ras,
            client: &request.client,
            account: &held.user_id,
            session: &held.sid,
            family: &held.family,
            authentication: &held.authentication,
            scopes: &presented.scopes,
            resource: &resource,
            key_thumbprint: request.key_thumbprint(),
            used_up: UsedUp::RefreshToken(
                presented.renewal(authority, ras.0.settings.refresh_idle),
            ),
            event,
            jti: authority.context.entropy.id(),
            now,
        };
        match issue.mint(authority.fresh().await?).await {
            Err(failure) => presented.lost(authority, failure, event).await?,
            issued => return issued,
        }
    }
}

impl Issue<'_> {
    /// Records and signs.
    async fn mint(mut self, snapshot: Arc<Snapshot<RasDirectory>>) -> Result<TokenAnswer, Failure> {
        let (ras, client, now) = (self.ras, self.client, self.now);
        let (claims, resource) =
            mint::mint(&ras.0.authority, snapshot, client, &mut self, now).await?;
        let refresh_token = Some(self.used_up.refresh_token().expose().to_owned());
        Ok(access_token::answer(ras, claims, resource, refresh_token))
    }

    fn gone(&self) -> Refusal {
        match self.used_up {
            UsedUp::Code(..) => Refusal::Code,
            UsedUp::RefreshToken(_) => Refusal::RefreshToken,
        }
    }
}

impl mint::Grant<RasDirectory> for Issue<'_> {
    type Token = (AccessTokenClaims, String);

    async fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<RasDirectory>>,
        _: Look,
    ) -> Result<Decision<Self::Token>, Failure> {
        let authority = &self.ras.0.authority;
        let directory = &snapshot.directory;
        let account = self.ras.live_account(self.account).await?;
        let Some((_, seen)) = account.filter(|_| directory.open_for(self.authentication).is_some())
        else {
            return Ok(Decision::Refuse(self.gone()));
        };
        let Some(governed) = directory.live_resource(self.resource) else {
            return Ok(Decision::Refuse(Refusal::ResourceOfGrant));
        };
        if governed.require_dpop && self.key_thumbprint.is_none() {
            return Ok(Decision::Refuse(Refusal::BindingRequired));
        }
        let scopes = self.scopes.intersection(&governed.scopes);
        let lifetime =
            governed.access_token_lifetime.unwrap_or(LIFETIME).clamp(1, LONGEST_LIFETIME);
        let authentication = self.authentication;
        let claims = AccessTokenClaims {
            iss: authority.issuer.clone(),
            sub: self.account.to_owned(),
            aud: OneOrMany::One(governed.resource.as_str().to_owned()),
            client_id: self.client.id().to_owned(),
            jti: self.jti.clone(),
            exp: self.now.plus(lifetime),
            iat: self.now,
            scope: (!scopes.is_empty()).then(|| scopes.to_string()),
            txn: None,
            sid: None,
            auth_time: Some(authentication.auth_time).filter(|at| at.0 > 0),
            acr: (!authentication.acr.is_empty()).then(|| authentication.acr.clone()),
            cnf: self.key_thumbprint.map(|jkt| Confirmation { jkt: jkt.to_owned() }),
        };
        let party = authentication.issuer.as_ref().map(ToString::to_string).unwrap_or_default();
        let granted = self
            .event
            .clone()
            .person(self.account)
            .with(Detail::Issuer, party.as_str())
            .with(Detail::Resource, governed.resource.as_str())
            .with(Detail::Scope, scopes.to_string())
            .with(Detail::Session, self.session)
            .with(Detail::Jti, self.jti.as_str());
        let mut operation = Entry::new(Some(granted));
        operation.rests_on.push(seen);
        operation.session = Some(self.session.to_owned());
        operation.family = Some(self.family.to_owned());
        match &self.used_up {
            UsedUp::Code(hash, issued) => {
                operation.code = Some((*hash).to_owned());
                operation.issues = Some((issued.0.hash(), Box::new(issued.1.clone())));
            }
            UsedUp::RefreshToken(renewal) => renewal.rest(&mut operation),
        }
        operation.grant = Some(access_token::grant(&claims, party, self.family));
        let resource = governed.resource.as_str().to_owned();
        Ok(Decision::Grant(Box::new(operation), (claims, resource)))
    }

    fn lost(&self) -> Lost {
        Lost { session: self.gone(), token: self.gone(), jti: self.gone() }
    }
}
