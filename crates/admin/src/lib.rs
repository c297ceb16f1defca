//! Administration of both servers. `acts` are the operations, as functions of typed requests and
//! views; `api` offers them over HTTP on a listener of its own, with an OpenAPI document; `client`
//! calls it. Every change is one transaction with its audit event, which names the administrator.
//! Secrets can never be read back.

mod acts;
mod api;
pub mod client;
pub mod proof;
mod servers;
pub mod types;

pub use acts::{configured::Held, context::By, keys::STILL_VERIFIES};
pub use api::{AdminApi, document_text};
pub use servers::{
    CheckUpstream, IdpAdmin, MakeCertificate, MakeKey, RasAdmin, TakeRevocations, UpstreamTools,
};
