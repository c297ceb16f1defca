//! The access tokens of those who listen: client credentials (RFC 6749 section 4.4), for the stream
//! management API alone (CAEP Interoperability Profile 1.0).

use passavant_authority::{
    answer::Failure,
    authority::{Authority, Directory},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::{access_token::AccessTokenClaims, scope::Scopes},
    refusal::Refusal,
    ssf::{SCOPE_MANAGE, SCOPE_READ},
    xaa::id_jag::{Confirmation, OneOrMany},
};
use passavant_store::AuditEvent;

/// Lifetime of a token, in seconds.
const LIFETIME: i64 = 600;

/// What tokens for the stream management API are for.
pub(super) fn audience(issuer: &Issuer) -> String {
    issuer.endpoint("/ssf")
}

/// Issues a token to a client that an administrator lets listen. It is not on record: whether the client
/// may still listen is asked with each request.
pub async fn issue<D: Directory>(
    authority: &Authority<D>,
    request: &ClientRequest<D>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    event.event = RequestEvent::ClientCredentials.into();
    let client = &request.client;
    if client.is_public() || client.record().signals.is_none() {
        return Err(Refusal::GrantNotRegistered.into());
    }
    let offered = Scopes::parse(&format!("{SCOPE_MANAGE} {SCOPE_READ}")).unwrap_or_default();
    let scopes = match request.form.optional("scope") {
        None => offered,
        Some(asked) => {
            let asked = Scopes::parse(asked).ok_or(Refusal::ScopeMalformed)?;
            let granted = asked.intersection(&offered);
            if granted.is_empty() {
                return Err(Refusal::SignalScope.into());
            }
            granted
        }
    };
    let now = authority.now();
    let claims = AccessTokenClaims {
        iss: authority.issuer.clone(),
        sub: client.id().to_owned(),
        aud: OneOrMany::One(audience(&authority.issuer)),
        client_id: client.id().to_owned(),
        jti: authority.context.entropy.id(),
        exp: now.plus(LIFETIME),
        iat: now,
        scope: Some(scopes.to_string()),
        txn: None,
        sid: None,
        auth_time: None,
        acr: None,
        cnf: request.proof.as_ref().map(|proof| Confirmation { jkt: proof.key_thumbprint.clone() }),
    };
    let event = event
        .clone()
        .client(client.id())
        .with(Detail::Scope, scopes.to_string())
        .with(Detail::Jti, claims.jti.as_str());
    authority.store.note(event, now).await?;
    Ok(TokenAnswer {
        access_token: claims.sign(&authority.signing()),
        token_type: if request.proof.is_some() { "DPoP" } else { "Bearer" },
        expires_in: LIFETIME,
        issued_token_type: None,
        scope: Some(scopes.to_string()),
        resource: None,
        id_token: None,
        refresh_token: None,
    })
}
