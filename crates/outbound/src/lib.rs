//! All outbound requests: the restricted HTTP client and the reach of its requests, discovery of
//! authorization servers, keys and metadata documents of other parties, sign-in at other identity
//! providers, and the gateway's connections to MCP servers.

mod client_documents;
mod discovery;
mod error;
mod events;
mod http;
mod jwks;
mod reach;
mod relying_party;
mod trouble;
mod upstream;

pub use client_documents::{ClientDocuments, DocumentClient, DocumentError};
pub use discovery::{
    Discovered, LONGEST, Missed, authorization_endpoint, authorization_server, differs_from,
    discover_authorization_server, document, origin_of, redirect_of, telling,
};
pub use error::{Differs, DiscoveryError, OAuthError, SignInError, first_words};
pub use events::{Event, Events, Parser, Unread};
pub use http::{Answer, Bounds, BoxedAddresses, NOTABLE_SKEW, Names, Outbound, Proxies};
pub use jwks::{KeySource, KeysError, RemoteKeys};
pub use reach::{Reach, checked};
pub use relying_party::{
    ClientProof, Refreshed, Registration, RelyingParty, Returned, SignInFlow, SignInWishes,
};
pub use trouble::{OutboundError, text as cause_of};
pub use upstream::{Upstream, UpstreamError};
