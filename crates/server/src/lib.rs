//! The IdP, the resource authorization server and the administration API, as sibling modules of one
//! axum crate. Siblings do not import each other; what they share is above them.

mod answer;
mod authority;
mod browser;
mod calls;
mod client_authentication;
mod grants;
mod operations;
mod passwords;
mod throttle;
mod token_endpoint;
mod token_status;

pub mod admin;
pub mod idp;
pub mod ras;

pub use authority::{Context, KeyRing};
pub use operations::{LIMITS, Limits, health, limited};
pub use passwords::Passwords;
