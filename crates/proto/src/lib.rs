//! Every protocol and policy rule of Passavant, as types and plain functions.
//!
//! Nothing here performs IO, reads a clock or draws randomness: the time and new identifiers are
//! arguments. The names are the nouns of the standards; clauses are those of the ID-JAG draft
//! (draft-ietf-oauth-identity-assertion-authz-grant), the MCP extension Enterprise-Managed
//! Authorization, the Client ID Metadata Document draft, OpenID Connect and RFCs.

pub mod event;
pub mod formerly;
pub mod identifier;
pub mod jose;
pub mod mcp;
pub mod oauth;
pub mod oidc;
pub mod others_text;
pub mod policy;
pub mod refusal;
pub mod saml;
pub mod secret;
pub mod ssf;
pub mod time;
pub mod xaa;

/// Grant type of a device code (RFC 8628 section 3.4).
pub const GRANT_DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// `grant_type` of RFC 8693 token exchange.
pub const GRANT_TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// `grant_type` of RFC 7523 JWT-bearer.
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Token type of an ID-JAG (ID-JAG draft section 4.3).
pub const TOKEN_TYPE_ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
/// Token type of an ID token (RFC 8693 section 3).
pub const TOKEN_TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Token type of an access token (RFC 8693 section 3).
pub const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Token type of a SAML 2.0 assertion (RFC 8693 section 3).
pub const TOKEN_TYPE_SAML2: &str = "urn:ietf:params:oauth:token-type:saml2";
/// Token type of a refresh token (RFC 8693 section 3).
pub const TOKEN_TYPE_REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";
/// Grant profile that a RAS advertises (ID-JAG draft section 7.2).
pub const GRANT_PROFILE_ID_JAG: &str = "urn:ietf:params:oauth:grant-profile:id-jag";
