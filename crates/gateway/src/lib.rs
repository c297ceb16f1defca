//! The guard in front of an MCP server in any language: checks the caller's token, decides for each
//! tool, records every decision, and forwards bytes unchanged.
//!
//! A request passes through `gateway.rs` in this order: place (exact host and path), Origin, token
//! (`passavant-resource`), rates (`callers.rs`), body (`passavant_proto::mcp`) against headers
//! (`era.rs`), rules (`authorize.rs`), session (`session.rs`), identity for the MCP server
//! (`identity.rs`), circuit breaker, record (`trail.rs`), the MCP server itself, and its answer
//! (`proxy.rs`, `relay.rs`).
//!
//! It reads no files, clock or entropy and uses no database: the binary passes in what is needed.

mod answers;
mod authorize;
mod breaker;
mod callers;
mod canonical;
mod era;
mod events;
mod gateway;
mod identity;
mod lists;
mod media;
mod proxy;
mod relay;
mod request;
mod session;
mod settings;
mod snapshots;
mod trail;
mod upstream_body;

pub use gateway::{Gateway, GatewayDeps, GatewayService, Keep, RouteError, is_framed_plainly};
pub use identity::CALLER;
pub use settings::{
    ArgumentAudit, AssertionSettings, Limits, Lists, PlainHeader, RouteSettings, Stands,
    ToolChanges, Unavailable, UpstreamToken, UpstreamTokenError, UpstreamTokens, Who,
};
pub use snapshots::{Approved, More, Seen, ToolView};
pub use trail::{Batch, Entries, NotRecorded, Trail};
