//! The library for agents: from a person's sign-in to an access token for one MCP server.
//!
//! ```no_run
//! # async fn f(client: passavant_client::Client) -> Result<(), passavant_client::Error> {
//! let server = client.discover("https://mcp.acme.example/mcp").await?;
//! let token = client.access_token(&server).await?;
//! println!("Authorization: Bearer {}", token.secret().expose());
//! # Ok(()) }
//! ```

mod access;
#[cfg(feature = "bridge")]
pub mod bridge;
mod catalog;
mod client;
mod code_flow;
mod consent;
mod device_flow;
mod discovery;
pub mod doctor;
mod dpop;
mod ended;
mod enrol;
mod error;
mod obtain;
mod person;
mod renewal;
#[cfg(feature = "rmcp")]
pub mod rmcp;
mod settings;
mod sign_in;
mod vault;

pub use catalog::{Catalog, CatalogServer, Installation, NativeClient};
pub use client::{AccessToken, Browser, Client, Purpose};
pub use code_flow::{Callback, Loopback, Pasted, WaitingTab};
pub use consent::PendingConsent;
pub use device_flow::Prompt;
pub use discovery::McpServer;
pub use ended::{AccessEnded, EndedAccess};
pub use enrol::{Enrolled, PendingEnrolment, begin_enrolment, enrol_by_device};
pub use error::{Error, Leg};
pub use obtain::{IdJagView, SubjectTokenKind};
pub use passavant_outbound::{
    BoxedAddresses, Discovered, Names, OAuthError, Outbound, OutboundError, Proxies, Reach,
};
pub use renewal::SignedOut;
pub use settings::{Credential, Registration, Settings};
pub use sign_in::{PendingSignIn, SignInOptions};
pub use vault::{
    Access, Consent, EndedSignIn, MemoryVault, Session, Vault, VaultError, VaultFuture, VaultLock,
};
