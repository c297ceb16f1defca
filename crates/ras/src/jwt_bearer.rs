//! Redemption. Each step produces the input of the next: unverified ID-JAG, trusted issuer, keys,
//! verified ID-JAG, account, decision, record, token.

use super::{
    access_token,
    directory::{Linked, RasDirectory},
    standing::AccessPath,
    state::Ras,
};
use passavant_authority::{
    answer::Failure,
    authority::{Look, Snapshot},
    client_authentication::AuthenticatedClient,
    mint::{self, Decision, Lost},
    token_endpoint::{ClientRequest, TokenAnswer},
};
use passavant_outbound::{KeySource, Reach};
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::access_token::AccessTokenClaims,
    oauth::client_document::INSTALLATIONS,
    others_text::shown,
    refusal::Refusal,
    time::Timestamp,
    xaa::id_jag::{Confirmation, Expected, IdJag, OneOrMany, UnverifiedIdJag},
    xaa::jwt_bearer::{self, JwtBearer},
    xaa::trust::{Account, SubjectLink, TrustedIssuer},
};
use passavant_store::{AuditEvent, Entry, StoreError, SubjectThen, UsedJti};
use std::sync::Arc;

pub(super) async fn redeem(
    ras: &Ras,
    request: &ClientRequest<RasDirectory>,
    event: &mut AuditEvent,
) -> Result<TokenAnswer, Failure> {
    let authority = &ras.0.authority;
    if request.client.is_public() {
        return Err(Refusal::PublicClient.into());
    }
    let asked = JwtBearer::parse(&request.form)?;
    let now = authority.now();
    let mut snapshot = request.snapshot.clone();
    let proof_key = request.proof.as_ref().map(|proof| proof.key_thumbprint.as_str());
    let client = &request.client;
    let verified = verify(ras, &mut snapshot, &asked, client, event).await;
    let (id_jag, verified_by) =
        verified.map_err(|failure| guarded(client, &asked, failure, event))?;
    event.note(Detail::Txn, id_jag.jti());
    event.note(Detail::Subject, id_jag.subject());
    event.note(Detail::Actor, id_jag.actor().map(|actor| shown(actor, 256)).unwrap_or_default());
    ras.0.admission.grant(client.id(), &format!("{} {}", id_jag.issuer(), id_jag.subject()))?;
    let mut redemption = Redeeming {
        ras,
        asked: &asked,
        client,
        proof_key,
        id_jag,
        verified_by,
        event: event.clone(),
        now,
    };
    let (claims, resource) = mint::mint(authority, snapshot, client, &mut redemption, now).await?;
    *event = redemption.event;
    Ok(access_token::answer(ras, claims, resource, None))
}

/// Hides from a stranger which issuers this server trusts: an assertion of an unknown issuer gets
/// the same error as one that does not verify. The record says which it was; the error does too if
/// the issuer is the one where the client itself was enrolled.
fn guarded(
    client: &AuthenticatedClient,
    asked: &JwtBearer,
    failure: Failure,
    event: &mut AuditEvent,
) -> Failure {
    let Failure::Refused(refusal) = failure else { return failure };
    let telling = matches!(
        refusal,
        Refusal::IdJag(_) | Refusal::IssuerUntrusted | Refusal::IssuerKeysUnavailable
    );
    let enrolled_there = UnverifiedIdJag::parse(asked.assertion.expose())
        .ok()
        .and_then(|token| Issuer::parse(token.issuer()).ok())
        .is_some_and(|issuer| {
            client.id().starts_with(&issuer.endpoint(&format!("{INSTALLATIONS}/")))
        });
    if !telling || !client.record().is_stranger() || enrolled_there {
        return refusal.into();
    }
    event.note(Detail::More, refusal.reason());
    Refusal::IdJagOfStranger.into()
}

/// The decision about a verified ID-JAG, on the current records.
struct Redeeming<'a> {
    ras: &'a Ras,
    asked: &'a JwtBearer,
    client: &'a AuthenticatedClient,
    proof_key: Option<&'a str>,
    id_jag: IdJag,
    /// The trust record that its signature was verified under.
    verified_by: TrustedIssuer,
    event: AuditEvent,
    now: Timestamp,
}

impl mint::Grant<RasDirectory> for Redeeming<'_> {
    type Token = (AccessTokenClaims, String);

    async fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<RasDirectory>>,
        look: Look,
    ) -> Result<Decision<Self::Token>, Failure> {
        let authority = &self.ras.0.authority;
        let directory = &snapshot.directory;
        // Checked with the current records: the client's host may have been removed from the list
        // since it authenticated.
        if directory.is_unlisted_document(self.client.id()) {
            return Ok(Decision::Refuse(Refusal::GrantNotRegistered));
        }
        let Some(trusted) = directory.open_issuer(self.id_jag.issuer().as_str(), AccessPath::IdJag)
        else {
            return Ok(Decision::Refuse(Refusal::IssuerUntrusted));
        };
        if *trusted != self.verified_by {
            // The trust record changed after verification: verify again under the new one.
            let (ras, mut snapshot) = (self.ras, Arc::clone(snapshot));
            let (id_jag, verified_by) =
                verify(ras, &mut snapshot, self.asked, self.client, &mut self.event).await?;
            (self.id_jag, self.verified_by) = (id_jag, verified_by);
            return Ok(Decision::Again);
        }
        let id_jag = &self.id_jag;
        let decided =
            jwt_bearer::authorize(self.asked, id_jag, self.proof_key, &directory.governed);
        let decision = match decided {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Decision::Refuse(refusal)),
        };
        let who = Who { subject: id_jag.subject(), email: id_jag.email() };
        let resolved = resolve(self.ras, snapshot, who, trusted, &self.event, look).await?;
        let Some(linked) = resolved else { return Ok(Decision::Again) };
        let account = &linked.account;
        let claims = AccessTokenClaims {
            iss: authority.issuer.clone(),
            sub: account.id.clone(),
            aud: OneOrMany::One(decision.governed.resource.as_str().to_owned()),
            client_id: self.client.id().to_owned(),
            jti: authority.context.entropy.id(),
            exp: self.now.plus(decision.lifetime),
            iat: self.now,
            scope: (!decision.scopes.is_empty()).then(|| decision.scopes.to_string()),
            txn: Some(id_jag.jti().to_owned()),
            sid: None,
            auth_time: id_jag.auth_time(),
            acr: id_jag.acr().map(str::to_owned),
            cnf: decision.key_thumbprint.map(|jkt| Confirmation { jkt }),
        };
        let granted = self
            .event
            .clone()
            .person(&account.id)
            .with(Detail::Resource, decision.governed.resource.as_str())
            .with(Detail::Scope, decision.scopes.to_string())
            .with(Detail::Jti, claims.jti.as_str());
        let mut operation = Entry::new(Some(granted));
        operation.rests_on.extend(linked.seen.iter().cloned());
        operation.jti = (!trusted.allow_reuse).then(|| UsedJti {
            namespace: format!("id_jag {}", id_jag.issuer()),
            jti: id_jag.jti().to_owned(),
            forget_after: id_jag.forget_after(),
        });
        let party = id_jag.issuer().to_string();
        operation.subject = Some(SubjectThen {
            issuer: party.clone(),
            subject: id_jag.subject().to_owned(),
            jti: id_jag.jti().to_owned(),
            issued_at: id_jag.issued_at(),
        });
        operation.grant = Some(access_token::grant(&claims, party, id_jag.jti()));
        let resource = decision.spelled.as_ref().unwrap_or(&decision.governed.resource);
        let resource = resource.to_string();
        Ok(Decision::Grant(Box::new(operation), (claims, resource)))
    }

    fn lost(&self) -> Lost {
        Lost {
            session: Refusal::AccessEnded,
            token: Refusal::IdJagReplay,
            jti: Refusal::IdJagReplay,
        }
    }
}

/// Where the keys of a trusted issuer are.
pub(super) fn key_source(trusted: &TrustedIssuer) -> KeySource {
    KeySource {
        owner: trusted.issuer.to_string(),
        jwks_uri: trusted.jwks_uri.clone(),
        algorithm: trusted.algorithm,
        reach: Reach::of_trusted_url(trusted.issuer.as_str()),
    }
}

/// Verifies an ID-JAG: finds the trusted issuer and its keys. Also returns the trust record it was
/// verified under.
async fn verify(
    ras: &Ras,
    snapshot: &mut Arc<Snapshot<RasDirectory>>,
    asked: &JwtBearer,
    client: &AuthenticatedClient,
    event: &mut AuditEvent,
) -> Result<(IdJag, TrustedIssuer), Failure> {
    let authority = &ras.0.authority;
    loop {
        let unverified =
            UnverifiedIdJag::parse(asked.assertion.expose()).map_err(Refusal::IdJag)?;
        let Some(trusted) = snapshot.directory.trusted(unverified.issuer()) else {
            // Another node may just have added the issuer.
            let fresh = authority.fresh().await?;
            if fresh.generation == snapshot.generation {
                return Err(Refusal::IssuerUntrusted.into());
            }
            *snapshot = fresh;
            continue;
        };
        event.note(Detail::Issuer, trusted.issuer.as_str());
        let source = key_source(trusted);
        let keys = authority.context.remote_keys.keys(&source, unverified.kid()).await;
        let keys = keys.map_err(|_| Refusal::IssuerKeysUnavailable)?;
        let expected = Expected {
            issuer: &trusted.issuer,
            tenant: trusted.tenant.as_deref(),
            audience_tenant: trusted.audience_tenant.as_deref(),
            audience: &authority.issuer,
            client: client.id(),
        };
        match unverified.verify(&keys, expected, authority.now()) {
            Ok(id_jag) => return Ok((id_jag, trusted.clone())),
            Err(error) => {
                // Another node may just have changed the trust record.
                let fresh = authority.fresh().await?;
                if fresh.generation == snapshot.generation {
                    return Err(Refusal::IdJag(error).into());
                }
                *snapshot = fresh;
            }
        }
    }
}

/// A person, as their issuer identifies them.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) subject: &'a str,
    /// An email address that the issuer asserts to be theirs.
    pub(super) email: Option<&'a str>,
}

/// The account of a person (ID-JAG draft section 9.6), the same one for ID-JAGs and sign-ins: one
/// that is linked already, or is linked now by a rule that an administrator enabled. An email
/// address alone links nothing. `None` if a new link would rest on an outdated directory.
pub(super) async fn resolve(
    ras: &Ras,
    snapshot: &Snapshot<RasDirectory>,
    who: Who<'_>,
    trusted: &TrustedIssuer,
    event: &AuditEvent,
    look: Look,
) -> Result<Option<Arc<Linked>>, Failure> {
    let authority = &ras.0.authority;
    let store = &authority.store;
    let link = SubjectLink {
        issuer: trusted.issuer.clone().into(),
        tenant: trusted.tenant.clone(),
        subject: who.subject.to_owned(),
    };
    match snapshot.directory.account(store, &link, look).await {
        // The cached account is disabled: read it again before refusing.
        Ok(Some(linked)) if linked.account.disabled && look == Look::Remembered => return Ok(None),
        Ok(Some(linked)) if linked.account.disabled => return Err(Refusal::AccountUnknown.into()),
        Ok(Some(linked)) => return Ok(Some(linked)),
        Ok(None) => {}
        // There is a link, but it cannot be read: refuse, and create no other account.
        Err(StoreError::Document(..)) => return Err(Refusal::AccountUnknown.into()),
        Err(error) => return Err(error.into()),
    }
    if store.generation().await? != snapshot.generation {
        return Ok(None);
    }
    let by_email = match who.email.filter(|email| trusted.accounts.links_by(email)) {
        Some(email) => match store.by_name::<Account>(&email.to_lowercase()).await {
            Err(StoreError::Document(..)) => return Err(Refusal::AccountUnknown.into()),
            found => found?,
        },
        None => None,
    };
    let (account, how) = match by_email {
        Some(account) if account.disabled => return Err(Refusal::AccountUnknown.into()),
        Some(account) => (account, "email"),
        None if trusted.accounts.just_in_time => {
            // A new account has only its link; with an email address it would claim that address.
            let id = authority.context.entropy.id();
            (Account { id, email: None, disabled: false }, "first sight")
        }
        None => return Err(Refusal::AccountUnknown.into()),
    };
    // An issuer can make up any number of people, so new links are limited per minute.
    ras.0.admission.link(link.issuer.as_str())?;
    let event = AuditEvent::granted(RequestEvent::LinkAccount, event.at)
        .person(&account.id)
        .with(Detail::Issuer, link.issuer.as_str())
        .with(Detail::Subject, link.subject.as_str())
        .with(Detail::Rule, how);
    // A concurrent request may have linked the person: resolve again with the current records.
    store.link_account(&link, &account, event).await?.ok_or(Refusal::AccountUnknown)?;
    Ok(None)
}
