//! The one loop that every grant goes through: check that the client is still valid, decide on the
//! current records, record the grant against exactly those records, and start again if they changed
//! meanwhile. A grant supplies the decision; no other code records a token.

use crate::{
    answer::Failure,
    authority::{Authority, Directory, Look, Snapshot},
    client_authentication::AuthenticatedClient,
};
use passavant_proto::{refusal::Refusal, time::Timestamp};
use passavant_store::{Entry, EntryOutcome};
use std::{future::Future, sync::Arc};

/// The decision of a grant on one state of the records.
pub enum Decision<T> {
    /// Record this entry; then the token may be made from `T`.
    Grant(Box<Entry>, T),
    /// A refusal that depends on the records: it is final only if they have not changed, and if
    /// people were read from the store.
    Refuse(Refusal),
    /// Decide again on the current records.
    Again,
}

/// The refusals for conditions that no longer hold when the grant is recorded.
pub struct Lost {
    /// The session has ended, or the family was revoked.
    pub session: Refusal,
    /// The code or refresh token is not live.
    pub token: Refusal,
    /// The `jti` was used before.
    pub jti: Refusal,
}

/// A grant: a pure decision on records.
pub trait Grant<D>: Send {
    /// What the token is made from.
    type Token: Send;

    /// Decides, reading people according to `look`. The entry names every row that the decision
    /// rests on.
    fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<D>>,
        look: Look,
    ) -> impl Future<Output = Result<Decision<Self::Token>, Failure>> + Send;

    /// The refusals for conditions that failed.
    fn lost(&self) -> Lost;
}

/// Decides and records. The result may be signed.
#[allow(clippy::disallowed_methods, reason = "the one loop that records grants")]
pub async fn mint<D: Directory, G: Grant<D>>(
    authority: &Authority<D>,
    mut snapshot: Arc<Snapshot<D>>,
    client: &AuthenticatedClient,
    grant: &mut G,
    now: Timestamp,
) -> Result<G::Token, Failure> {
    // Cached records are good enough to grant on, because recording checks that they are current.
    // They are not good enough to refuse on.
    let mut look = Look::Remembered;
    loop {
        // Checked on each turn: the client may have been disabled after it authenticated.
        let Some(seen) = client.still_stands(authority, &snapshot.directory, look).await? else {
            return Err(Failure::ClientChanged);
        };
        match grant.decide(&snapshot, look).await? {
            Decision::Grant(mut operation, token) => {
                let lost = grant.lost();
                operation.rests_on.extend(seen);
                operation.generation = Some(snapshot.generation);
                operation.reasons = [lost.session.reason(), lost.token.reason(), lost.jti.reason()];
                match authority.store.record(*operation, now).await? {
                    EntryOutcome::Recorded => return Ok(token),
                    EntryOutcome::Stale => snapshot = authority.fresh().await?,
                    EntryOutcome::SessionEnded => {
                        return Err(Failure::RefusedOnRecord(lost.session));
                    }
                    EntryOutcome::RefreshTokenNotLive => {
                        return Err(Failure::RefusedOnRecord(lost.token));
                    }
                    EntryOutcome::Replay => return Err(Failure::RefusedOnRecord(lost.jti)),
                }
            }
            Decision::Refuse(refusal) => {
                let fresh = authority.fresh().await?;
                if look == Look::Now && fresh.generation == snapshot.generation {
                    return Err(refusal.into());
                }
                snapshot = fresh;
            }
            Decision::Again => snapshot = authority.fresh().await?,
        }
        look = Look::Now;
    }
}
