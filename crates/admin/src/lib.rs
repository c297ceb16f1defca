//! Administration of both servers. `acts` are what administrators do, as functions of typed requests and views; `api` is
//! the same over HTTP, on a listener of its own, with its OpenAPI document; `client` speaks to it. Every change is one
//! transaction with its audit event, which says who did it; nothing secret is ever read back.

mod acts;
mod api;
pub mod client;
pub mod proof;
mod servers;
pub mod types;

pub use acts::{desk::By, keys::STILL_VERIFIES};
pub use api::{AdminApi, document_text};
pub use servers::{IdpAdmin, MakeKey, RasAdmin};
