//! The audit trail.

use super::{ActError, check_limit, context::ActContext};
use crate::{
    servers::Administration,
    types::{AuditQuery, AuditView, Listed},
};
use passavant_store::AuditFilter;
use std::collections::HashMap;

/// Length of the ids that we generate.
const LENGTH_OF_IDS: usize = 22;

/// The trail, newest first.
pub(crate) async fn audit<A: Administration>(
    of: &A,
    context: &ActContext,
    query: AuditQuery,
) -> Result<Listed<AuditView>, ActError> {
    let limit = query.limit.unwrap_or(50);
    check_limit(limit)?;
    // A person who was removed can only be found by id.
    let person = match query.person {
        Some(named) => match of.person(&named).await {
            Some(id) => Some(id),
            None if named.len() == LENGTH_OF_IDS => Some(named),
            None => return Err(ActError::missing(A::PERSON, &named)),
        },
        None => None,
    };
    let filter = AuditFilter {
        person,
        client: query.client,
        outcome: query.outcome,
        event: query.event,
        by: query.by,
        before: query.before,
        limit,
    };
    let rows = context.store.audit(&filter).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == limit);
    let next = rows.last().filter(|_| full).map(|row| row.id.to_string());
    let mut names: HashMap<String, Option<String>> = HashMap::new();
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        if !row.person.is_empty() && !names.contains_key(&row.person) {
            names.insert(row.person.clone(), of.name_of(&row.person).await);
        }
        items.push(AuditView {
            id: row.id,
            at: row.at,
            event: row.event,
            outcome: row.outcome,
            person_name: names.get(&row.person).cloned().flatten(),
            person: row.person,
            client: row.client,
            details: row.details,
        });
    }
    Ok(Listed { items, unreadable: Vec::new(), next })
}
