//! SAML 2.0 as a service provider (Web Browser SSO Profile): our metadata and our requests, and the
//! assertions that come back.
//!
//! What is read from an assertion is read from the octets that its signature covers, and from nothing
//! else: the signed element is canonicalized, its digest is compared, and those very octets are parsed
//! anew. What stands beside them, moved, wrapped or added, is not there for what reads.
//!
//! Nothing here performs IO, reads a clock or draws randomness. Clauses are those of SAML 2.0 Core,
//! Bindings, Profiles and Metadata with their errata, and of XML Signature.

mod assertion;
mod instant;
mod metadata;
mod provider;
mod request;
mod response;
mod signature;
mod xml;

pub use assertion::{Assertion, Attribute};
pub use metadata::{IdentityProviderMetadata, MetadataError, service_provider_metadata};
pub use provider::{certificate_ends, identify, usual_subject_attribute};
pub use request::{AuthnRequest, Sent};
pub use response::{
    Expected, LONGEST_RESPONSE, ResponseError, claimed_issuer, verifies, verify, verify_assertion,
};
