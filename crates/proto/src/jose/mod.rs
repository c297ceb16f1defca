//! Signed tokens: JWS, JWK, claims of a JWT, and proof of possession.

pub mod claims;
pub mod dpop;
pub mod jwk;
pub mod jws;
