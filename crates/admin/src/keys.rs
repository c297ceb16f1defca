//! Signing keys: listed, rotated and removed, the same at both servers. Only the binary can make and seal one.

use super::{
    AdminError,
    acting::{Acting, Desk},
    ground::Ground,
    records::Body,
};
use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use passavant_proto::{
    event::{Act, Detail},
    jose::jwk::Algorithm,
    time::Timestamp,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Tokens that an earlier key signed are believed for so long after the next key begins, in seconds: longer than any of
/// them lives.
pub const STILL_VERIFIES: i64 = 13 * 3600;

/// A new key is published for so long before it signs, in seconds: those who keep our keys read them again within five
/// minutes.
const PUBLISHED_AHEAD: i64 = 600;

/// Rotation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// It signs at once: for a key that is in other hands.
    #[serde(default)]
    now: bool,
    /// The algorithm whose key is rotated; the server's own unless named.
    algorithm: Option<Algorithm>,
}

/// Which key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kid {
    kid: String,
}

/// Routes of signing keys, the same at both servers.
pub(super) fn key_routes(ground: Ground) -> Router {
    async fn list(acting: Acting<Ground>) -> Result<Json<Value>, AdminError> {
        acting.desk.keys().await
    }
    async fn rotate(
        acting: Acting<Ground>,
        Body(rotate): Body<Rotate>,
    ) -> Result<Json<Value>, AdminError> {
        acting.desk.rotate_key(rotate).await
    }
    async fn remove(
        acting: Acting<Ground>,
        Body(kid): Body<Kid>,
    ) -> Result<StatusCode, AdminError> {
        acting.desk.remove_key(kid).await
    }
    Router::new()
        .route("/keys", get(list))
        .route("/keys/rotate", post(rotate))
        .route("/keys/remove", post(remove))
        .with_state(ground)
}

impl Desk {
    async fn keys(&self) -> Result<Json<Value>, AdminError> {
        let now = self.now();
        let mut keys = self.store.signing_keys().await?;
        keys.sort_by_key(|key| std::cmp::Reverse((key.signs_from, key.created_at)));
        let mut signs: Vec<&str> = Vec::new();
        // Of each algorithm: when the key began that came after the one that is looked at.
        let mut next: HashMap<&str, Timestamp> = HashMap::new();
        let rows: Vec<Value> = keys
            .iter()
            .map(|key| {
                let state = if key.signs_from > now {
                    "published"
                } else if !signs.contains(&key.algorithm.as_str()) && key.retired_at.is_none() {
                    signs.push(&key.algorithm);
                    "signs"
                } else if next
                    .get(key.algorithm.as_str())
                    .is_some_and(|began| began.plus(STILL_VERIFIES) <= now)
                {
                    "ended"
                } else {
                    "verifies"
                };
                next.insert(&key.algorithm, key.signs_from);
                json!({"kid": key.kid, "algorithm": key.algorithm, "created_at": key.created_at,
                       "signs_from": key.signs_from, "state": state})
            })
            .collect();
        Ok(Json(rows.into()))
    }

    async fn rotate_key(&self, rotate: Rotate) -> Result<Json<Value>, AdminError> {
        let Some(make) = &self.make_key else {
            return Err(AdminError::invalid("keys are not kept here", "ask who runs the server"));
        };
        if rotate.algorithm == Some(Algorithm::PS256) {
            return Err(AdminError::invalid(
                "`algorithm`: nothing is signed with PS256 here",
                "ES256, EdDSA or RS256",
            ));
        }
        let now = self.now();
        let signs_from = if rotate.now { now } else { now.plus(PUBLISHED_AHEAD) };
        let key = make(rotate.algorithm, signs_from)
            .map_err(|error| AdminError::invalid(error, "see the server's log"))?;
        let event = self.act(Act::Rotate, "signing key").with(Detail::Record, &key.kid);
        self.store.add_signing_key(&key, event).await?;
        Ok(Json(json!({"kid": key.kid, "signs_from": key.signs_from})))
    }

    /// Refuses an algorithm that nothing signs with here, and says how to get it.
    pub(super) async fn check_signing_alg(
        &self,
        member: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<(), AdminError> {
        let Some(algorithm) = algorithm else { return Ok(()) };
        let keys = self.store.signing_keys().await?;
        let live = keys.iter().filter(|key| key.retired_at.is_none());
        let mut names: Vec<&str> = live.map(|key| key.algorithm.as_str()).collect();
        if names.contains(&algorithm.name()) || names.is_empty() {
            return Ok(());
        }
        names.sort_unstable();
        names.dedup();
        Err(AdminError::invalid(
            format!(
                "`{member}`: there is no {algorithm} key here; it signs with {}",
                names.join(" and ")
            ),
            format!(
                "`passavant admin key rotate --algorithm {algorithm}` makes one, where it is ES256, EdDSA or RS256"
            ),
        ))
    }

    async fn remove_key(&self, Kid { kid }: Kid) -> Result<StatusCode, AdminError> {
        let now = self.now();
        let event = self.act(Act::Remove, "signing key").with(Detail::Record, &kid);
        if self.store.remove_signing_key(&kid, event, now).await? {
            return Ok(StatusCode::NO_CONTENT);
        }
        Err(AdminError::invalid(
            format!("the key `{kid}` is not there, or is the only one that signs"),
            "`passavant admin key list` lists them; `passavant admin key rotate --now` makes one that signs at once",
        ))
    }
}
