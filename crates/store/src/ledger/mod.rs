//! Decisions on record: tokens and what they use up, and the audit trail.

mod audit;
mod cut_off;
mod ended;
mod ended_tokens;
mod entry;
mod revocation;
mod signals;
mod statements;

pub(crate) use audit::insert_audit;
pub use audit::{AuditEvent, AuditFilter, AuditRow, Outcome};
pub use cut_off::{CutOff, CutOffRecord, Ends, ServerEnds};
pub use ended::SaidOnce;
pub(crate) use ended::{Said, end_id_jags, end_until};
pub use ended_tokens::{EndedListener, EndedSince};
pub use entry::{Entry, EntryOutcome, Grant, Opens, SubjectThen, TokenKind, UsedJti};
pub(crate) use entry::{Queued, insert_jtis, spawn_writers};
pub(crate) use revocation::notify_all;
pub use revocation::{Reconsidered, RevocationNotices};
pub use signals::{Signal, SignalStream, Waiting};
pub(crate) use signals::{assurance_rose, end_streams};
