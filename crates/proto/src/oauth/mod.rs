//! OAuth 2.1: clients and their authentication, requests, codes, metadata, access tokens and
//! challenges.

pub mod access_token;
pub mod authorize;
pub mod challenge;
pub mod client;
pub mod client_assertion;
pub mod client_authentication;
pub mod client_document;
pub mod ended_tokens;
pub mod form;
pub mod global_token_revocation;
pub mod metadata;
pub mod pkce;
pub mod redirect_uri;
pub mod scope;
pub mod user_code;
