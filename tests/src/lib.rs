//! All parties in one process: an IdP, two RASes, a guarded MCP server, and the means to attack
//! them. Every request goes over HTTP; the clock is the test's own.
#![allow(
    unused_crate_dependencies,
    reason = "this package has several programs, each with its own"
)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::unused_self,
    clippy::disallowed_methods,
    reason = "test support: a broken fixture should stop the test at once"
)]

pub mod authenticator;
pub mod desk;
pub mod forge;
pub mod gate;
pub mod outsider;
pub mod requirements;
pub mod saml;
pub mod upstream;
pub mod world;
