//! Protects an MCP server: mount [`Guard`] as a layer and its metadata as a route.
//!
//! ```
//! # use passavant_resource::{Guard, Outbound, Clock, Timestamp};
//! # use axum::{Router, routing::post};
//! # fn f(clock: Clock) -> Result<Router, Box<dyn std::error::Error>> {
//! let keys = Outbound::new(&[])?;
//! let guard = Guard::new("https://mcp.acme.example/mcp", "https://as.acme.example", keys, clock)?
//!     .scopes(["notes.read", "notes.write"])
//!     .require(["notes.read"])
//!     .tool("note_write", ["notes.write"]);
//! let app = Router::new()
//!     .route("/mcp", post(|| async { "the MCP server" }))
//!     .layer(guard.clone())
//!     .merge(guard.metadata());
//! # Ok(app) }
//! ```
//!
//! Handlers find a [`Caller`] in the request's extensions. The token itself is removed.

mod admission;
mod caller;
mod feed;
mod introspection;
mod layer;

pub use caller::Caller;
pub use feed::{Feed, Mark, RELIED_ON, WithoutFeed};
pub use introspection::{Introspection, NoAnswer};
pub use layer::{Guard, GuardedService, Refused, token_of};
pub use passavant_outbound::{Outbound, RemoteKeys};
pub use passavant_proto::oauth::access_token::TokenForm;
pub use passavant_proto::{
    identifier::{IdentifierError, Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::challenge::Challenge,
    oauth::scope::Scopes,
    secret::Secret,
    time::{Clock, Timestamp},
};
