//! What every route of administration needs.

use passavant_proto::{
    jose::jwk::Algorithm,
    time::{Clock, Entropy, Timestamp},
};
use passavant_store::{SealedKey, Store};

/// Makes a signing key of an algorithm (`None`: the server's own) that begins to sign at a time, sealed.
pub type MakeKey =
    std::sync::Arc<dyn Fn(Option<Algorithm>, Timestamp) -> Result<SealedKey, String> + Send + Sync>;

/// What every route needs.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    /// Makes signing keys; only the binary can seal one.
    pub(super) make_key: Option<MakeKey>,
}

impl Ground {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
