//! Shared signals (OpenID Shared Signals Framework 1.0): what an identity provider tells others of
//! people while they are signed in, as security event tokens (RFC 8417), by the events of the Continuous
//! Access Evaluation Profile 1.0 (CAEP) and of the RISC Profile 1.0.

mod event_type;
mod set;
mod stream;

pub use event_type::EventType;
pub use set::{SecurityEvent, SetClaims, SetRefusal, Subject, claimed, verify};
pub use stream::{Delivery, PollRequest, StreamError, StreamRequest, StreamStatus};

use crate::{identifier::Issuer, jose::jwk::Algorithm};
use serde_json::{Value, json};

/// What the well-known document is called (SSF 1.0, section 7.2).
pub const WELL_KNOWN: &str = "/.well-known/ssf-configuration";
/// Where streams are made, read, changed and deleted, below an issuer.
pub const STREAMS: &str = "/ssf/streams";
/// Where a stream's status is read and set.
pub const STATUS: &str = "/ssf/status";
/// Where a verification event is asked for.
pub const VERIFICATION: &str = "/ssf/verification";
/// Where a receiver polls (RFC 8936); the stream's id follows.
pub const POLL: &str = "/ssf/poll";
/// Where a transmitter pushes to us (RFC 8935); its name follows.
pub const EVENTS: &str = "/ssf/events";
/// Delivery by push (RFC 8935).
pub const PUSH_METHOD: &str = "urn:ietf:rfc:8935";
/// Delivery by poll (RFC 8936).
pub const POLL_METHOD: &str = "urn:ietf:rfc:8936";
/// The scope for reading streams and their status (CAEP Interoperability Profile 1.0).
pub const SCOPE_READ: &str = "ssf.read";
/// The scope for everything.
pub const SCOPE_MANAGE: &str = "ssf.manage";
/// How often a receiver may ask for a verification event, in seconds.
pub const VERIFICATION_INTERVAL: i64 = 10;

/// The path at which a transmitter pushes.
pub fn events_path(transmitter: &str) -> String {
    format!("{EVENTS}/{transmitter}")
}

/// The transmitter's configuration (SSF 1.0, section 7.1).
pub fn configuration(issuer: &Issuer) -> Value {
    json!({
        "spec_version": "1_0",
        "issuer": issuer,
        "jwks_uri": issuer.endpoint("/jwks"),
        "delivery_methods_supported": [PUSH_METHOD, POLL_METHOD],
        "configuration_endpoint": issuer.endpoint(STREAMS),
        "status_endpoint": issuer.endpoint(STATUS),
        "verification_endpoint": issuer.endpoint(VERIFICATION),
        "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
        // Whoever the administrator lets the receiver be told of; there is nobody to add.
        "default_subjects": "ALL",
    })
}

/// Whom a client is told of as a receiver of signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Those who signed in to it.
    ItsPeople,
    /// Everyone.
    Everyone,
}

/// Another party whose signals count here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmitter {
    /// Its name here, the last part of the address that it pushes to.
    pub name: String,
    /// `iss` of its security event tokens.
    pub issuer: Issuer,
    /// `aud` of those that are for us, exactly.
    pub audience: String,
    /// Whose people it speaks of: the upstream, by its name, or the trusted issuer.
    pub speaks_for: String,
    /// The URL of its keys; `None` if its metadata name it.
    pub jwks_uri: Option<String>,
    /// The algorithm that it signs with.
    pub algorithm: Algorithm,
    /// The hash of the token that it pushes with.
    pub token_hash: String,
    /// Switched off by an administrator.
    pub disabled: bool,
}
