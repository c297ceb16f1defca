//! What every authorization server needs: client authentication, admission, minting and recording,
//! responses. The company's IdP and a vendor's RAS are both built on it.

pub mod admission;
pub mod answer;
pub mod authority;
pub mod bearer;
pub mod browser;
pub mod calls;
pub mod client_authentication;
pub mod deliveries;
pub mod front_channel;
pub mod grants;
pub mod mint;
pub mod operations;
pub mod origin;
pub mod passwords;
pub mod room;
pub mod sealing;
pub mod token_endpoint;
pub mod token_status;

pub use admission::Rates;
pub use authority::{Context, KeyRing, Keys, Readiness};
pub use operations::{LIMITS, Limits, Probe, Readers, health, limited};
pub use passwords::Passwords;
pub use sealing::Sealing;
