//! Redemption. Each line makes the argument of the next: unverified ID-JAG, trusted issuer, keys,
//! verified ID-JAG, account, decision, record, token.

use super::{Ras, access_token, directory::RasDirectory};
use crate::{
    answer::Failure,
    authority::Snapshot,
    token_endpoint::{ClientRequest, TokenAnswer},
};
use carnet_client::{KeySource, Reach};
use carnet_proto::{
    access_token::AccessTokenClaims,
    id_jag::{Confirmation, Expected, IdJag, OneOrMany, UnverifiedIdJag},
    jwt_bearer::{self, JwtBearer},
    refusal::Refusal,
    trust::{Account, SubjectLink, TrustedIssuer},
};
use carnet_store::{AuditEvent, HotOperation, HotOutcome, UsedJti};
use std::sync::Arc;

pub(super) async fn redeem(
    ras: &Ras,
    request: ClientRequest<RasDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    if request.client.is_public() {
        return Err(Refusal::PublicClient.into());
    }
    let asked = JwtBearer::parse(&request.form)?;
    let now = authority.now();
    let mut snapshot = request.snapshot;
    let proof_key = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    let (mut id_jag, mut verified_by) =
        verify(ras, &mut snapshot, &asked, request.client.id(), event).await?;
    *event = event.clone().with("txn", id_jag.jti()).with("subject", id_jag.subject());
    loop {
        // Asked anew on each turn: client and issuer may have been switched off meanwhile (A31).
        let directory = &snapshot.directory;
        if !request.client.still_stands(authority, directory).await? {
            return Err(Refusal::ClientUnknown.into());
        }
        let trusted =
            directory.trusted(id_jag.issuer().as_str()).ok_or(Refusal::IssuerUntrusted)?.clone();
        if trusted != verified_by {
            // Trusted on other terms since the signature was checked: check it by those.
            let client = request.client.id();
            (id_jag, verified_by) = verify(ras, &mut snapshot, &asked, client, event).await?;
            continue;
        }
        let decided = jwt_bearer::authorize(&asked, &id_jag, proof_key, &directory.governed);
        let decision = match decided {
            Ok(decision) => decision,
            Err(refusal) => {
                // On records that have changed since?
                let fresh = authority.fresh().await?;
                if fresh.generation == snapshot.generation {
                    return Err(refusal.into());
                }
                snapshot = fresh;
                continue;
            }
        };
        let who = Who { subject: id_jag.subject(), email: id_jag.email() };
        let Some(account) = resolve(ras, &snapshot, who, &trusted, event).await? else {
            snapshot = authority.fresh().await?;
            continue;
        };
        let claims = AccessTokenClaims {
            iss: authority.issuer.clone(),
            sub: account.id.clone(),
            aud: OneOrMany::One(decision.governed.resource.as_str().to_owned()),
            client_id: request.client.id().to_owned(),
            jti: authority.context.entropy.id(),
            exp: now.plus(decision.lifetime),
            iat: now,
            scope: (!decision.scopes.is_empty()).then(|| decision.scopes.to_string()),
            txn: Some(id_jag.jti().to_owned()),
            sid: None,
            auth_time: id_jag.auth_time(),
            acr: id_jag.acr().map(str::to_owned),
            cnf: decision.key_thumbprint.map(|jkt| Confirmation { jkt }),
        };
        let granted = event
            .clone()
            .person(&account.id)
            .with("resource", decision.governed.resource.as_str())
            .with("scope", decision.scopes.to_string())
            .with("jti", claims.jti.as_str());
        let mut operation = HotOperation::new(Some(granted));
        operation.generation = Some(snapshot.generation);
        operation.reasons[2] = Refusal::IdJagReplay.reason();
        operation.jti = (!trusted.allow_reuse).then(|| UsedJti {
            namespace: format!("id_jag {}", id_jag.issuer()),
            jti: id_jag.jti().to_owned(),
            forget_after: id_jag.forget_after(),
        });
        let party = id_jag.issuer().to_string();
        operation.grant = Some(access_token::grant(&claims, party, id_jag.jti()));
        match authority.store.record(operation, now).await? {
            HotOutcome::Stale => snapshot = authority.fresh().await?,
            HotOutcome::Recorded => {
                let resource = decision.spelled.as_ref().unwrap_or(&decision.governed.resource);
                return Ok(access_token::answer(ras, claims, resource.to_string(), None));
            }
            _ => return Err(Failure::RefusedOnRecord(Refusal::IdJagReplay)),
        }
    }
}

/// Unverified ID-JAG, trusted issuer, keys, verified ID-JAG; and the terms it was verified by.
async fn verify(
    ras: &Ras,
    snapshot: &mut Arc<Snapshot<RasDirectory>>,
    asked: &JwtBearer,
    client: &str,
    event: &mut AuditEvent,
) -> Result<(IdJag, TrustedIssuer), Failure> {
    let authority = &ras.0.authority;
    loop {
        let unverified =
            UnverifiedIdJag::parse(asked.assertion.expose()).map_err(Refusal::IdJag)?;
        let Some(trusted) = snapshot.directory.trusted(unverified.issuer()) else {
            // Trusted since a moment ago, on another node?
            let fresh = authority.fresh().await?;
            if fresh.generation == snapshot.generation {
                return Err(Refusal::IssuerUntrusted.into());
            }
            *snapshot = fresh;
            continue;
        };
        *event = event.clone().with("issuer", trusted.issuer.as_str());
        let source = KeySource {
            owner: trusted.issuer.to_string(),
            jwks_uri: trusted.jwks_uri.clone(),
            algorithm: trusted.algorithm,
            reach: Reach::of_trusted_url(trusted.issuer.as_str()),
        };
        let keys = authority.context.remote_keys.keys(&source, unverified.kid()).await;
        let keys = keys.map_err(|_| Refusal::IssuerKeysUnavailable)?;
        let expected = Expected {
            issuer: &trusted.issuer,
            tenant: trusted.tenant.as_deref(),
            audience: &authority.issuer,
            client,
        };
        match unverified.verify(&keys, expected, authority.now()) {
            Ok(id_jag) => return Ok((id_jag, trusted.clone())),
            Err(error) => {
                // On other terms since a moment ago?
                let fresh = authority.fresh().await?;
                if fresh.generation == snapshot.generation {
                    return Err(Refusal::IdJag(error).into());
                }
                *snapshot = fresh;
            }
        }
    }
}

/// A person as their issuer names them.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) subject: &'a str,
    /// An address that the issuer says is theirs.
    pub(super) email: Option<&'a str>,
}

/// The account of a person (JAG-R9), the same one by ID-JAG and by sign-in: linked, or linked now by a rule the administrator
/// switched on. An address alone links nothing. `None` where a link would rest on a directory that
/// has moved on.
pub(super) async fn resolve(
    ras: &Ras,
    snapshot: &Snapshot<RasDirectory>,
    who: Who<'_>,
    trusted: &TrustedIssuer,
    event: &AuditEvent,
) -> Result<Option<Arc<Account>>, Failure> {
    let authority = &ras.0.authority;
    let store = &authority.store;
    let link = SubjectLink {
        issuer: trusted.issuer.clone(),
        tenant: trusted.tenant.clone(),
        subject: who.subject.to_owned(),
    };
    let live = |account: Arc<Account>| {
        if account.disabled {
            Err(Failure::from(Refusal::AccountUnknown))
        } else {
            Ok(Some(account))
        }
    };
    if let Some(account) = snapshot.directory.account(store, &link).await? {
        return live(account);
    }
    if store.generation().await? != snapshot.generation {
        return Ok(None);
    }
    let by_email = match who.email.filter(|email| trusted.accounts.links_by(email)) {
        Some(email) => store.by_name::<Account>(&email.to_lowercase()).await?,
        None => None,
    };
    let (account, how) = match by_email {
        Some(account) if account.disabled => return Err(Refusal::AccountUnknown.into()),
        Some(account) => (account, "email"),
        None if trusted.accounts.just_in_time => {
            // A new account is known by its link alone; an address would claim it.
            let id = authority.context.entropy.id();
            (Account { id, email: None, disabled: false }, "first sight")
        }
        None => return Err(Refusal::AccountUnknown.into()),
    };
    let event = AuditEvent::granted("link_account", event.at)
        .person(&account.id)
        .with("issuer", link.issuer.as_str())
        .with("subject", link.subject.as_str())
        .with("rule", how);
    let linked = store.link_account(&link, &account, event).await?;
    live(Arc::new(linked.ok_or(Refusal::AccountUnknown)?))
}
