//! The one loop that every grant goes through: is the client still one, what is decided on the records as they are,
//! put it on record against those very records, and once more where they changed meanwhile. A grant supplies what it
//! decides; nothing else records a token.

use crate::{
    answer::Failure,
    authority::{Authority, Directory, Look, Snapshot},
    client_authentication::AuthenticatedClient,
};
use passavant_proto::{refusal::Refusal, time::Timestamp};
use passavant_store::{Entry, EntryOutcome};
use std::{future::Future, sync::Arc};

/// What a grant decided on one state of the records.
pub enum Decision<T> {
    /// This is to be put on record; then the token may be made of `T`.
    Grant(Box<Entry>, T),
    /// A refusal that rests on the records: it stands only if they are still these, and people are looked at as they are.
    Refuse(Refusal),
    /// On the records as they are now, please.
    Again,
}

/// What is said where a condition does not hold any more at the moment of recording.
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
    /// What the token is made of.
    type Token: Send;

    /// Decides, on people as they are looked at: whichever rows of theirs it rests on, it names in the record.
    fn decide(
        &mut self,
        snapshot: &Arc<Snapshot<D>>,
        look: Look,
    ) -> impl Future<Output = Result<Decision<Self::Token>, Failure>> + Send;

    /// What is said of a condition that failed.
    fn lost(&self) -> Lost;
}

/// Decides and records. What comes out may be signed.
#[allow(clippy::disallowed_methods, reason = "the one loop that records grants")]
pub async fn mint<D: Directory, G: Grant<D>>(
    authority: &Authority<D>,
    mut snapshot: Arc<Snapshot<D>>,
    client: &AuthenticatedClient,
    grant: &mut G,
    now: Timestamp,
) -> Result<G::Token, Failure> {
    // What is remembered is good enough to decide on, since the record asks whether it is so still. It is not good enough
    // to refuse on.
    let mut look = Look::Remembered;
    loop {
        // Asked anew on each turn: the client may have been switched off since it authenticated.
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
