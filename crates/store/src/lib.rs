//! The records of one authorization server (IdP or RAS) in one database, SQLite or PostgreSQL.
//!
//! Methods are named for what they do, and one method is one transaction; none checks in one
//! transaction and acts in another. Every statement is written once and runs on both databases.
//! Callers pass secrets only as hashes.

mod acts;
mod administrators;
mod connections;
mod database;
mod directory;
mod keys;
mod ledger;
mod migrations;
mod opening;
mod people;
mod policy;
mod record;
mod rows;
mod sealed;
mod sign_in;
mod unreadable;
mod upkeep;

pub use administrators::{
    AdminRole, Administrator, DoneBefore, Expects, Once, RestsOn, StoredProof, Terms,
};
pub use database::{Store, StoreError};
pub use directory::{Generation, Page, Put, Seen, Wanted};
pub use keys::{Retirement, SealedKey};
pub use ledger::{
    AuditEvent, AuditFilter, AuditRow, CutOff, CutOffRecord, EndedListener, EndedSince, Ends,
    Entry, EntryOutcome, Grant, Opens, Outcome, Reconsidered, RevocationNotices, SaidOnce,
    ServerEnds, Signal, SignalStream, SubjectThen, TokenKind, UsedJti, Waiting,
};
pub use opening::{check_transport, sqlite_path};
pub use people::{
    AccessEnded, Checked, DueSession, EndedAccess, Group, Installation, LoggedOut, Lookup,
    MOST_INSTALLATIONS, MOST_PASSKEYS, MOST_TOTP_FAILURES, MemberChange, NotProvisioned, Passkey,
    PasskeyAdded, PasskeyRemoved, PersonLink, Proved, ProvisionedGroup, ProvisionedPerson,
    Provisioner, ProvisioningToken, Told, Totp, TotpCount, UpstreamOutcome, UpstreamSignIn, User,
};
pub use record::Record;
pub use rows::Readings;
pub use sealed::SealedAt;
pub use sign_in::{
    AuthorizationCode, CodeState, DeviceCode, DeviceState, LogoutNotice, PushedRequest,
    RefreshToken, RefreshTokenState, Replaces, Rotation, Session,
};
