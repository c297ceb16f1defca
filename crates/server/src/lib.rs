//! The IdP, the resource authorization server and the administration API, as sibling modules of one
//! axum crate. Siblings do not import each other; what they share is above them.

mod admission;
mod answer;
mod authority;
mod browser;
mod calls;
mod client_authentication;
mod grants;
mod mint;
mod operations;
mod passwords;
mod token_endpoint;
mod token_status;

pub mod admin;
pub mod idp;
pub mod ras;

pub use admission::Rates;
pub use authority::{Context, KeyRing, Keys};
pub use operations::{LIMITS, Limits, health, limited};
pub use passwords::Passwords;
