//! Signing keys: listed, rotated and removed, the same at both servers. Only the binary can make and seal one.

use super::{
    AdminError,
    records::{Body, Desk},
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use carnet_proto::time::Timestamp;
use carnet_store::{AuditEvent, SealedKey};
use serde::Deserialize;
use serde_json::{Value, json};

/// Makes a signing key that begins to sign at a time, sealed.
pub type MakeKey = std::sync::Arc<dyn Fn(Timestamp) -> Result<SealedKey, String> + Send + Sync>;

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
}

/// Which key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kid {
    kid: String,
}

/// Routes of signing keys, the same at both servers.
pub(super) fn key_routes(desk: Desk) -> Router {
    async fn list(State(desk): State<Desk>) -> Result<Json<Value>, AdminError> {
        desk.keys().await
    }
    async fn rotate(
        State(desk): State<Desk>,
        Body(rotate): Body<Rotate>,
    ) -> Result<Json<Value>, AdminError> {
        desk.rotate_key(rotate).await
    }
    async fn remove(
        State(desk): State<Desk>,
        Body(kid): Body<Kid>,
    ) -> Result<StatusCode, AdminError> {
        desk.remove_key(kid).await
    }
    Router::new()
        .route("/keys", get(list))
        .route("/keys/rotate", post(rotate))
        .route("/keys/remove", post(remove))
        .with_state(desk)
}

impl Desk {
    async fn keys(&self) -> Result<Json<Value>, AdminError> {
        let now = self.now();
        let mut keys = self.store.signing_keys().await?;
        keys.sort_by_key(|key| std::cmp::Reverse((key.signs_from, key.created_at)));
        let mut signs = false;
        // Of the key that came after the one that is looked at.
        let mut next: Option<Timestamp> = None;
        let rows: Vec<Value> = keys
            .iter()
            .map(|key| {
                let state = if key.signs_from > now {
                    "published"
                } else if !signs && key.retired_at.is_none() {
                    signs = true;
                    "signs"
                } else if next.is_some_and(|began| began.plus(STILL_VERIFIES) <= now) {
                    "ended"
                } else {
                    "verifies"
                };
                next = Some(key.signs_from);
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
        let now = self.now();
        let signs_from = if rotate.now { now } else { now.plus(PUBLISHED_AHEAD) };
        let key =
            make(signs_from).map_err(|error| AdminError::invalid(error, "see the server's log"))?;
        let event = AuditEvent::granted("admin.rotate signing key", now).with("record", &key.kid);
        self.store.add_signing_key(&key, event).await?;
        Ok(Json(json!({"kid": key.kid, "signs_from": key.signs_from})))
    }

    async fn remove_key(&self, Kid { kid }: Kid) -> Result<StatusCode, AdminError> {
        let now = self.now();
        let event = AuditEvent::granted("admin.remove signing key", now).with("record", &kid);
        if self.store.remove_signing_key(&kid, event, now).await? {
            return Ok(StatusCode::NO_CONTENT);
        }
        Err(AdminError::invalid(
            format!("the key `{kid}` is not there, or is the only one that signs"),
            "`carnet admin key list` lists them; `carnet admin key rotate --now` makes one that signs at once",
        ))
    }
}
