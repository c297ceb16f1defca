//! Every protocol and policy rule of Passavant, as types and plain functions.
//!
//! Nothing here performs IO, reads a clock or draws randomness: `now` is an argument, identifiers
//! are handed in. The names are the nouns of the standards; clause numbers refer to the ID-JAG
//! draft (JAG), the MCP enterprise-managed authorization extension (EMA) and RFCs.

pub mod access_token;
pub mod authentication;
pub mod authorize;
pub mod caller_assertion;
pub mod challenge;
pub mod claims;
pub mod client;
pub mod client_assertion;
pub mod client_authentication;
pub mod client_document;
pub mod dpop;
pub mod form;
pub mod formerly;
pub mod id_jag;
pub mod id_token;
pub mod identifier;
pub mod jwk;
pub mod jws;
pub mod jwt_bearer;
pub mod known_browser;
pub mod mcp;
pub mod mcp_headers;
pub mod metadata;
pub mod operation_policy;
pub mod others_text;
pub mod pkce;
pub mod policy;
pub mod redirect_uri;
pub mod refusal;
pub mod scope;
pub mod secret;
pub mod sign_in_state;
pub mod time;
pub mod token_exchange;
pub mod trust;
pub mod user_code;

/// Grant type of a device code (RFC 8628 section 3.4).
pub const GRANT_DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// `grant_type` of RFC 8693 token exchange.
pub const GRANT_TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// `grant_type` of RFC 7523 JWT-bearer.
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Token type of an ID-JAG (JAG 4.3).
pub const TOKEN_TYPE_ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
/// Token type of an ID token (RFC 8693 section 3).
pub const TOKEN_TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Token type of an access token (RFC 8693 section 3).
pub const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Token type of a refresh token (RFC 8693 section 3).
pub const TOKEN_TYPE_REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";
/// Grant profile that a RAS advertises (JAG 7.2).
pub const GRANT_PROFILE_ID_JAG: &str = "urn:ietf:params:oauth:grant-profile:id-jag";
