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

mod discovery;
mod error;
mod jwks;
mod obtain;
mod outbound;
#[cfg(feature = "rmcp")]
pub mod rmcp;
mod sign_in;
mod vault;

pub use discovery::{McpServer, discover_authorization_server};
pub use error::{Error, Leg, OAuthError};
pub use jwks::{KeySource, KeysError, RemoteKeys};
pub use obtain::{AccessToken, Client, ClientSecret, IdJagView, Settings, Subject};
pub use outbound::{Answer, Outbound, OutboundError, Reach};
pub use sign_in::{PendingSignIn, SignInOptions};
pub use vault::{MemoryVault, Session, Vault, VaultError, VaultFuture, VaultLock};
