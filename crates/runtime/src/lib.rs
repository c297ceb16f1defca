//! Runs the roles that a config names: the identity provider, authorization servers, gateways,
//! administration.

pub mod certificates;
pub mod config;
pub mod gateway;
pub mod init;
pub mod key_file;
pub mod keys;
pub mod listener;
mod log_lines;
#[cfg(feature = "pkcs11")]
mod pkcs11;
pub mod serve;
pub mod telemetry;
mod upstreams;
