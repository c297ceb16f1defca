//! Everything outbound: the guarded HTTP client, discovery, keys, sign-in, and the path from a
//! sign-in to an access token for one MCP server.
//!
//! ```no_run
//! # async fn f(client: carnet_client::Client) -> Result<(), carnet_client::Error> {
//! let server = client.discover("https://mcp.acme.example/mcp").await?;
//! let token = client.access_token(&server).await?;
//! println!("Authorization: Bearer {}", token.secret().expose());
//! # Ok(()) }
//! ```

mod access;
#[cfg(feature = "bridge")]
pub mod bridge;
mod catalog;
mod client_documents;
mod code_flow;
mod consent;
mod device_flow;
mod discovery;
pub mod doctor;
mod enrol;
mod error;
mod events;
mod jwks;
mod obtain;
mod outbound;
mod person;
mod relying_party;
#[cfg(feature = "rmcp")]
pub mod rmcp;
mod settings;
mod sign_in;
mod upstream;
mod vault;

pub use catalog::{Catalog, CatalogServer, Installation, NativeClient};
pub use client_documents::{ClientDocuments, DocumentClient, DocumentError};
pub use code_flow::{Callback, Loopback, Pasted, Tab};
pub use consent::PendingConsent;
pub use device_flow::Prompt;
pub use discovery::{Discovered, McpServer, discover_authorization_server};
pub use enrol::{Enrolled, PendingEnrolment, begin_enrolment, enrol_by_device};
pub use error::{Error, Leg, OAuthError};
pub use events::{Event, Events, Unread};
pub use jwks::{KeySource, KeysError, RemoteKeys};
pub use obtain::{AccessToken, Client, IdJagView, Subject};
pub use outbound::text as cause_of;
pub use outbound::{
    Answer, Bounds, BoxedAddresses, Names, Outbound, OutboundError, Proxies, Reach,
};
pub use person::{Browser, Purpose};
pub use relying_party::{RelyingParty, SignInFlow, SignInWishes};
pub use settings::{Credential, Registration, Settings};
pub use sign_in::{PendingSignIn, SignInOptions};
pub use upstream::{Upstream, UpstreamError};
pub use vault::{Access, Consent, MemoryVault, Session, Vault, VaultError, VaultFuture, VaultLock};
