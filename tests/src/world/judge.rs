//! Checks what happened: the response, its record, and that nothing else changed.

use super::{Ask, Reply, World};
use passavant_store::AuditFilter;
use passavant_store::AuditRow;
use passavant_store::Store;

/// Status, OAuth error, audit reason.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a>(pub u16, pub &'a str, pub &'a str);

impl World {
    /// The newest audit row of a store.
    pub async fn last_event(&self, store: &Store) -> AuditRow {
        let filter = AuditFilter { limit: 1, ..AuditFilter::default() };
        store.audit(&filter).await.unwrap().remove(0)
    }

    /// Sends a request that must be refused. Checks status, error and audit reason, and that
    /// nothing else happened.
    pub async fn refuses(&self, store: &Store, case: &str, ask: &Ask, expected: Expected<'_>) {
        let before = self.last_event(store).await;
        let reply = self.send(ask).await;
        self.check_refusal(store, case, before.id, &reply, expected).await;
    }

    /// The checks of [`World::refuses`] on a response.
    pub async fn check_refusal(
        &self,
        store: &Store,
        case: &str,
        before: i64,
        reply: &Reply,
        Expected(status, error, reason): Expected<'_>,
    ) {
        assert_eq!(reply.status, status, "{case}: {}", reply.text);
        assert_eq!(reply.str("error"), error, "{case}: {}", reply.text);
        assert!(!reply.str("error_description").is_empty(), "{case}: no description");
        for name in ["access_token", "id_token", "refresh_token"] {
            assert!(reply.json.get(name).is_none(), "{case}: a token was issued");
        }
        assert_eq!(reply.header("cache-control"), "no-store", "{case}");
        assert!(reply.header("content-type").starts_with("application/json"), "{case}");
        assert!(!reply.text.contains("panicked") && !reply.text.contains(".rs"), "{case}");
        let after = self.last_event(store).await;
        assert_eq!(after.id, before + 1, "{case}: not exactly one audit row: {after:?}");
        assert_eq!(after.outcome, "refused", "{case}: {after:?}");
        let found = after.details.get("reason").map_or("", String::as_str);
        assert_eq!(found, reason, "{case}: {after:?}");
    }
}
