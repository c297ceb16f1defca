//! The access tokens of those who listen: client credentials (RFC 6749 section 4.4), for the stream
//! management API alone (CAEP Interoperability Profile 1.0).

use passavant_authority::{
    answer::Failure,
    authority::{Authority, Directory, Look, Snapshot},
    client_authentication::AuthenticatedClient,
    mint::{self, Decision, Lost},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::{access_token::AccessTokenClaims, scope::Scopes},
    refusal::Refusal,
    ssf::{SCOPE_MANAGE, SCOPE_READ},
    time::Timestamp,
    xaa::id_jag::{Confirmation, OneOrMany},
};
use passavant_store::{AuditEvent, Entry, Grant, TokenKind};
use std::sync::Arc;

/// Lifetime of a token, in seconds.
const LIFETIME: i64 = 600;

/// What tokens for the stream management API are for.
pub(super) fn audience(issuer: &Issuer) -> String {
    issuer.endpoint("/ssf")
}

/// A decision to let a client listen.
struct Listens<'a, D> {
    authority: &'a Authority<D>,
    client: &'a AuthenticatedClient,
    event: AuditEvent,
    jti: String,
    expires_at: Timestamp,
}

impl<D: Directory> mint::Grant<D> for Listens<'_, D> {
    type Token = ();

    async fn decide(&mut self, _: &Arc<Snapshot<D>>, _: Look) -> Result<Decision<()>, Failure> {
        let mut entry = Entry::new(Some(self.event.clone()));
        entry.grant = Some(Grant {
            jti: self.jti.clone(),
            kind: TokenKind::AccessToken,
            // Nobody's: it is the client's own.
            user_id: String::new(),
            client_id: self.client.id().to_owned(),
            party: self.authority.issuer.to_string(),
            lineage: self.jti.clone(),
            expires_at: self.expires_at,
            opens: None,
        });
        Ok(Decision::Grant(Box::new(entry), ()))
    }

    fn lost(&self) -> Lost {
        let gone = Refusal::GrantNotRegistered;
        Lost { session: gone.clone(), token: gone.clone(), jti: gone }
    }
}

/// Issues a token to a client that an administrator lets listen.
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
    let (jti, expires_at) = (claims.jti.clone(), claims.exp);
    let mut listens = Listens { authority, client, event, jti, expires_at };
    mint::mint(authority, Arc::clone(&request.snapshot), client, &mut listens, now).await?;
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
