//! The records of one authorization server (IdP or RAS) in one database, SQLite or PostgreSQL.
//!
//! Methods are named for what they do and one method is one transaction; none checks first and acts
//! later. Every statement is written once and runs on both databases. Secrets come in as hashes.

mod administrators;
mod audit;
mod database;
mod device_codes;
mod directory;
mod hot_path;
mod installations;
mod keys;
mod migrations;
mod policy;
mod rows;
mod sessions;

pub use administrators::{AdminRole, Administrator, RestsOn, StoredProof};
pub use audit::{AuditEvent, AuditFilter, AuditRow, Outcome};
pub use database::{Store, StoreError, check_transport, sqlite_path};
pub use device_codes::{DeviceCode, DeviceState};
pub use directory::{Generation, Group, Put, Record, Seen, User};
pub use hot_path::{Grant, HotOperation, HotOutcome, TokenKind, UsedJti};
pub use installations::{Installation, MOST_INSTALLATIONS};
pub use keys::SealedKey;
pub use rows::Held;
pub use sessions::{
    AuthorizationCode, CodeState, PushedRequest, RefreshToken, RefreshTokenState, Replaces,
    Rotation, Session,
};
