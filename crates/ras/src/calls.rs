//! Reports of tool calls by a gateway in the same process.

use super::state::Ras;
use passavant_authority::calls;
use passavant_proto::identifier::Resource;
use passavant_store::{StoreError, UsedJti};

impl Ras {
    /// Accepts a report of tool calls by a gateway in the same process; each batch once.
    pub async fn take_calls(
        &self,
        gateway: &str,
        batch: &str,
        lines: &str,
    ) -> Result<usize, StoreError> {
        let authority = &self.0.authority;
        let batch = UsedJti {
            namespace: format!("gateway {gateway}"),
            jti: batch.to_owned(),
            forget_after: authority.now().plus(30 * 86_400),
        };
        let snapshot = authority.fresh().await?;
        let governed = move |named: &str| {
            let held = &snapshot.directory.governed;
            Resource::parse(named).is_ok_and(|named| held.iter().any(|held| held.resource == named))
        };
        let events = calls::read(lines.to_owned(), authority.now(), governed).await?;
        authority.store.record_batch(&batch, &events).await
    }
}
