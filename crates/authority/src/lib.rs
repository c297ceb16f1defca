//! What every authorization server needs: who asks, who is let in, what is minted and put on record, and what leaves.
//! The company's IdP and a vendor's RAS stand on it beside each other.

pub mod admission;
pub mod answer;
pub mod authority;
pub mod browser;
pub mod calls;
pub mod client_authentication;
pub mod front_channel;
pub mod grants;
pub mod mint;
pub mod operations;
pub mod origin;
pub mod passwords;
pub mod token_endpoint;
pub mod token_status;

pub use admission::Rates;
pub use authority::{Context, KeyRing, Keys, Readiness};
pub use operations::{LIMITS, Limits, Probe, Readers, health, limited};
pub use passwords::Passwords;
