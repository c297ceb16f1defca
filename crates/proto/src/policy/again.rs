//! Whether what was issued would be issued again.

use super::decide::{Policy, Question};
use crate::oauth::scope::Scopes;

impl Policy {
    /// Whether the policy would still issue an ID-JAG for the MCP servers and scopes that the question
    /// names. `known`: they are what it opens; otherwise an earlier version did not write that, and it
    /// stands for as long as anything is open.
    pub fn still_permits(&self, question: &Question<'_>, known: bool) -> bool {
        match (self.decide(question), known) {
            (Ok(permit), true) => {
                let scopes = question.scopes.into_iter().flat_map(Scopes::iter);
                question.resources.iter().all(|resource| permit.resources.contains(resource))
                    && scopes.into_iter().all(|scope| permit.scopes.contains(scope))
            }
            (Ok(_), false) => true,
            (Err(_), true) => false,
            (Err(denial), false) => !denial.reason.is_about_the_whole(),
        }
    }
}
