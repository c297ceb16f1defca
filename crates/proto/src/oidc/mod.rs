//! OpenID Connect: ID tokens, and how and when a person signed in.

pub mod authentication;
pub mod id_token;
pub mod known_browser;
pub mod logout_token;
pub mod sign_in_state;
pub mod totp;
pub mod upstream;
