//! Signing keys: listing, rotation and removal, the same at both servers. Only the binary can make
//! and seal a key.

use super::{ActError, context::ActContext};
use crate::types::{KeyMade, KeyState, KeyView, Listed, Rotation};
use passavant_proto::{
    event::{Act, Detail},
    jose::jwk::Algorithm,
    time::Timestamp,
};
use passavant_store::{Retirement, SealedKey};
use std::collections::HashMap;

/// How long tokens of an earlier key are accepted after the next key begins to sign, in seconds:
/// longer than the lifetime of any of them.
pub const STILL_VERIFIES: i64 = 13 * 3600;

/// How long a new key is published before it signs, in seconds. Parties that cache our keys fetch
/// them again within five minutes.
const PUBLISHED_AHEAD: i64 = 600;

fn keeps_no_keys() -> ActError {
    ActError::conflict(
        "this server does not manage its signing keys",
        "ask the operator of the server",
    )
}

impl ActContext {
    pub(crate) async fn keys(&self) -> Result<Listed<KeyView>, ActError> {
        let now = self.now();
        let mut keys = self.store.signing_keys().await?;
        keys.sort_by(|one, other| other.order().cmp(&one.order()));
        // For each algorithm: when the key began to sign that follows the one being looked at.
        let mut next: HashMap<&str, Timestamp> = HashMap::new();
        let items: Vec<KeyView> = keys
            .iter()
            .map(|key| {
                let of_it = keys.iter().filter(|other| other.algorithm == key.algorithm);
                let signing = SealedKey::that_signs(of_it, now);
                let state = if signing.is_some_and(|signing| signing.kid == key.kid) {
                    KeyState::Signs
                } else if signing.is_some_and(|signing| key.order() > signing.order()) {
                    KeyState::Published
                } else if next
                    .get(key.algorithm.as_str())
                    .is_some_and(|began| began.plus(STILL_VERIFIES) <= now)
                {
                    KeyState::Ended
                } else {
                    KeyState::Verifies
                };
                next.insert(&key.algorithm, key.signs_from);
                KeyView {
                    kid: key.kid.clone(),
                    algorithm: key.algorithm.clone(),
                    created_at: key.created_at,
                    signs_from: key.signs_from,
                    state,
                }
            })
            .collect();
        Ok(Listed { items, unreadable: Vec::new(), next: None })
    }

    pub(crate) async fn rotate_key(&self, rotate: Rotation) -> Result<KeyMade, ActError> {
        let Some(make) = &self.make_key else { return Err(keeps_no_keys()) };
        if rotate.algorithm == Some(Algorithm::PS256) {
            return Err(ActError::conflict(
                "`algorithm`: PS256 cannot be used for signing",
                "ES256, EdDSA or RS256",
            ));
        }
        let now = self.now();
        let signs_from = if rotate.now { now } else { now.plus(PUBLISHED_AHEAD) };
        let key = make(rotate.algorithm, signs_from)
            .map_err(|error| ActError::invalid(error, "see the server's log"))?;
        let event = self.act(Act::Rotate, "signing key").with(Detail::Record, &key.kid);
        let signs_from = self.store.add_signing_key(&key, event).await?;
        Ok(KeyMade { kid: key.kid, signs_from })
    }

    /// Rejects an algorithm that no key here signs with, and says how to add one.
    pub(crate) async fn check_signing_alg(
        &self,
        member: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<(), ActError> {
        let Some(algorithm) = algorithm else { return Ok(()) };
        let keys = self.store.signing_keys().await?;
        let live = keys.iter().filter(|key| key.retired_at.is_none());
        let mut names: Vec<&str> = live.map(|key| key.algorithm.as_str()).collect();
        if names.contains(&algorithm.name()) || names.is_empty() {
            return Ok(());
        }
        names.sort_unstable();
        names.dedup();
        Err(ActError::conflict(
            format!(
                "`{member}`: this server has no {algorithm} key; it signs with {}",
                names.join(" and ")
            ),
            format!(
                "make one with `passavant admin key rotate --algorithm {algorithm}` (ES256, EdDSA \
                 or RS256)"
            ),
        ))
    }

    /// The key `kid` signs no more: the next one of its algorithm does, at once. What it signed is
    /// still believed.
    pub(crate) async fn retire_key(&self, kid: &str) -> Result<KeyMade, ActError> {
        let Some(make) = &self.make_key else { return Err(keeps_no_keys()) };
        let keys = self.store.signing_keys().await?;
        let Some(key) = keys.iter().find(|key| key.kid == kid) else {
            return Err(ActError::missing("key", kid));
        };
        let now = self.now();
        let algorithm = Algorithm::named(&key.algorithm);
        let successor = make(algorithm, now)
            .map_err(|error| ActError::invalid(error, "see the server's log"))?;
        let event = self.act(Act::Retire, "signing key").with(Detail::Record, kid);
        match self.store.retire_signing_key(kid, &successor, event, now).await? {
            Retirement::Follows { kid, signs_from } => Ok(KeyMade { kid, signs_from }),
            Retirement::Missing => Err(ActError::missing("key", kid)),
            Retirement::DoesNotSign => Err(ActError::conflict(
                format!("the key `{kid}` is not the one that signs"),
                "`passavant admin key list` shows which does; `passavant admin key remove` takes away one that signed \
                 before, or that is to sign later",
            )),
            Retirement::OtherAlgorithm(algorithm) => Err(ActError::conflict(
                format!("the key `{kid}` is of {algorithm}, which cannot be made here"),
                "ES256, EdDSA and RS256 can be made",
            )),
        }
    }

    pub(crate) async fn remove_key(&self, kid: &str) -> Result<(), ActError> {
        let now = self.now();
        let event = self.act(Act::Remove, "signing key").with(Detail::Record, kid);
        if self.store.remove_signing_key(kid, event, now).await? {
            return Ok(());
        }
        if !self.store.signing_keys().await?.iter().any(|key| key.kid == kid) {
            return Err(ActError::missing("key", kid));
        }
        Err(ActError::conflict(
            format!("the key `{kid}` is the one that signs; without it nobody could sign in"),
            "`passavant admin key rotate --now` makes another one that signs at once; then remove this one",
        ))
    }
}
