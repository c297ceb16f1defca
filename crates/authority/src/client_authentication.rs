//! Client authentication at every endpoint that asks for it: token, PAR, revocation, introspection.

use crate::{
    admission::Taken,
    admission::Visitor,
    answer::Failure,
    authority::{Authority, Directory, Look, RegisteredClient, Snapshot},
};
use axum::http::{HeaderMap, header};
use passavant_outbound::{KeySource, Reach};
use passavant_proto::{
    jose::dpop::{self, DpopProof},
    oauth::client::is_document_url,
    oauth::client::{ClientAuthentication, ClientKeys},
    oauth::client_assertion,
    oauth::client_authentication::Presented,
    oauth::form::Form,
    refusal::Refusal,
    secret::Secret,
    time::Timestamp,
};
use passavant_store::{EntryOutcome, Seen, UsedJti};
use std::sync::{Arc, atomic::Ordering};

/// A client that has proved its identity, or a registered public one. Only this module creates it.
#[derive(Clone)]
pub struct AuthenticatedClient(Arc<RegisteredClient>, Option<String>);

impl AuthenticatedClient {
    pub fn id(&self) -> &str {
        &self.0.record.id
    }

    pub fn record(&self) -> &passavant_proto::oauth::client::Client {
        &self.0.record
    }

    /// Checks that the client is still enabled and that its record is the one it was authenticated
    /// with. Call it when a decision rests on a later directory than the authentication did.
    ///
    /// Returns the version of its row, if the client is not part of the policy; `None` if the check
    /// fails.
    pub async fn still_stands<D: Directory>(
        &self,
        authority: &Authority<D>,
        directory: &D,
        look: Look,
    ) -> Result<Option<Option<Seen>>, Failure> {
        let now = authority.client(directory, self.id(), look).await?;
        // If the record differs from the one that was evaluated, the request has to be evaluated
        // again.
        let stands = now.filter(|now| now.record == self.0.record);
        Ok(stands.map(|now| now.seen.clone()))
    }

    /// The same client with its record in a later `directory`, if its proof is valid there too.
    /// Nothing is used up again.
    pub async fn again<D: Directory>(
        &self,
        authority: &Authority<D>,
        directory: &D,
    ) -> Result<Self, Failure> {
        let now = authority.client(directory, self.id(), Look::Now).await?;
        let now = now.ok_or(Refusal::ClientUnknown)?;
        let proved = match (&self.0.record.authentication, &now.record.authentication) {
            // An older secret that stays valid for a while after a new one was added.
            (ClientAuthentication::Secret(_), ClientAuthentication::Secret(hashes)) => {
                let time = authority.now();
                let live = |expires: Option<Timestamp>| expires.is_none_or(|end| end > time);
                let mut held = hashes.iter().filter(|held| live(held.expires));
                held.any(|held| self.1.as_deref() == Some(&format!("secret {}", held.hash)))
            }
            (then, now) => then == now,
        };
        let again = proved.then(|| Self(now, self.1.clone()));
        Ok(again.ok_or(Refusal::ClientSecret)?)
    }

    /// What the client proved its identity with; `None` for a public client.
    pub fn proof(&self) -> Option<&str> {
        self.1.as_deref().filter(|_| !self.is_public())
    }

    /// Its client id in connections.
    pub fn idp_client_id(&self) -> &str {
        self.0.idp_client_id()
    }

    /// Its client id, if that is the URL of its metadata document.
    pub fn document(&self) -> Option<&str> {
        self.0.document()
    }

    /// Whether it may act for this person: an installation acts only for its owner.
    pub fn acts_for(&self, user_id: &str) -> bool {
        self.0.acts_for(user_id)
    }

    /// The id of the installation, if this use of it should be stored. `Some` once a minute at
    /// most.
    pub fn use_to_note(&self, now: Timestamp) -> Option<&str> {
        let held = self.0.installation.as_ref()?;
        let noted = held.used_at.fetch_max(now.0, Ordering::Relaxed);
        (now.0 / 60 > noted / 60).then_some(held.id.as_str())
    }

    pub fn is_public(&self) -> bool {
        self.0.record.authentication == ClientAuthentication::Public
    }
}

/// Authenticates the client of a request. If it fails with a cached directory, it is tried again
/// with the current one, so that a client that was registered a moment ago on another node is
/// known.
pub async fn authenticate<D: Directory>(
    authority: &Authority<D>,
    snapshot: &mut Arc<Snapshot<D>>,
    presented: &Presented,
    visitor: Visitor<'_>,
    look: Look,
) -> Result<AuthenticatedClient, Failure> {
    loop {
        match attempt(authority, snapshot, presented, visitor, look).await {
            Err(Failure::Refused(refusal)) => {
                let fresh = authority.fresh().await?;
                if fresh.generation == snapshot.generation {
                    return Err(refusal.into());
                }
                *snapshot = fresh;
            }
            outcome => return outcome,
        }
    }
}

async fn attempt<D: Directory>(
    authority: &Authority<D>,
    snapshot: &Snapshot<D>,
    presented: &Presented,
    visitor: Visitor<'_>,
    look: Look,
) -> Result<AuthenticatedClient, Failure> {
    let id = presented.client_id();
    if snapshot.directory.client(id).is_none() && is_document_url(id) {
        // Nothing is looked up or fetched for a sender that does not even claim to hold the
        // client's key.
        match presented {
            Presented::Assertion { assertion, .. } => {
                let (token, now) = (assertion.expose(), authority.now());
                if !client_assertion::is_plausible(token, id, &authority.issuer, now) {
                    return Err(Refusal::ClientAssertion(
                        passavant_proto::jose::jws::JwtError::Client,
                    )
                    .into());
                }
            }
            Presented::Nothing { .. } if snapshot.directory.takes_public_documents() => {}
            _ => return Err(Refusal::ClientAuthenticationMissing.into()),
        }
    }
    let directory = &snapshot.directory;
    let (client, taken) = authority.visiting_client(directory, id, visitor, look).await?;
    let client = client.ok_or(Refusal::ClientUnknown)?;
    if let Some(assertion) = presented.check(&client.record, authority.now())? {
        verify_assertion(authority, &client, assertion).await?;
        // The holder of a document's key is entitled to have the document fetched.
        taken.into_iter().for_each(Taken::give_back);
    }
    Ok(AuthenticatedClient(client, presented.proof()))
}

/// Verifies everything, then uses up the `jti`: a forged copy cannot use up the real one.
async fn verify_assertion<D: Directory>(
    authority: &Authority<D>,
    client: &RegisteredClient,
    assertion: &Secret,
) -> Result<(), Failure> {
    let record = &client.record;
    let keys = match (&record.authentication, &client.inline_keys) {
        (_, Some(keys)) => Arc::clone(keys),
        (
            ClientAuthentication::PrivateKeyJwt { keys: ClientKeys::Fetched(url), algorithm },
            None,
        ) => {
            let source = KeySource {
                owner: format!("client {} of {}", record.id, authority.issuer),
                jwks_uri: Some(url.clone()),
                algorithm: *algorithm,
                reach: client.keys_reach.unwrap_or_else(|| Reach::of_trusted_url(url)),
            };
            let (header, _) = passavant_proto::jose::jws::peek(assertion.expose())
                .map_err(Refusal::ClientAssertion)?;
            let kid = header.optional_str("kid").ok().flatten();
            // Keys of strangers are cached apart from those of issuers and of clients that an
            // administrator registered.
            let context = &authority.context;
            let known = client.keys_reach.is_none();
            let cache = if known { &context.remote_keys } else { &context.document_keys };
            let fetched = cache.keys(&source, kid).await;
            fetched.map_err(|_| Refusal::ClientKeysUnavailable)?
        }
        _ => return Err(Refusal::ClientMethod.into()),
    };
    let now = authority.now();
    let verified =
        client_assertion::verify(assertion.expose(), &keys, &record.id, &authority.issuer, now)
            .map_err(Refusal::ClientAssertion)?;
    let jti = UsedJti {
        namespace: format!("client_assertion {}", record.id),
        jti: verified.jti,
        forget_after: verified.forget_after,
    };
    match authority.store.remember_jti(jti, now).await? {
        EntryOutcome::Recorded => Ok(()),
        _ => Err(Refusal::ClientAssertionReplay.into()),
    }
}

/// Parses the client credentials of a request.
pub fn presented(headers: &HeaderMap, form: &Form) -> Result<Presented, Refusal> {
    let authorization: Vec<&[u8]> =
        headers.get_all(header::AUTHORIZATION).iter().map(http::HeaderValue::as_bytes).collect();
    Presented::read(&authorization, form)
}

/// The DPoP proof of a request to `url`, verified and its `jti` used up; `None` if none was sent. A
/// proof that was sent is never ignored (ID-JAG draft section 9.9.1.1).
pub async fn proof_of_possession<D: Directory>(
    authority: &Authority<D>,
    headers: &HeaderMap,
    url: &str,
) -> Result<Option<DpopProof>, Failure> {
    let mut proofs = headers.get_all("dpop").iter();
    let Some(proof) = proofs.next() else { return Ok(None) };
    if proofs.next().is_some() {
        return Err(Refusal::DpopRepeated.into());
    }
    let malformed = Refusal::DpopProof(passavant_proto::jose::jws::JwtError::Malformed);
    let proof = proof.to_str().map_err(|_| malformed)?;
    let request = dpop::Request { method: "POST", url, access_token: None };
    let now = authority.now();
    let proof = dpop::verify(proof, request, now).map_err(Refusal::DpopProof)?;
    let jti = UsedJti {
        namespace: format!("dpop {}", proof.key_thumbprint),
        jti: proof.jti.clone(),
        forget_after: proof.forget_after,
    };
    match authority.store.remember_jti(jti, now).await? {
        EntryOutcome::Recorded => Ok(Some(proof)),
        _ => Err(Refusal::DpopReplay.into()),
    }
}
