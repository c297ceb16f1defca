//! Cross-app access: the exchange for an ID-JAG at the identity provider, and its redemption.

pub mod id_jag;
pub mod jwt_bearer;
pub mod token_exchange;
pub mod trust;
