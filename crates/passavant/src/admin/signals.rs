//! `passavant admin transmitter` and `passavant admin stream`.

use super::{
    acts::{Saying, add, change, delete, list, one, switch},
    api::Api,
    args::{ById, Gone, Listing},
    secret_out::SecretOut,
};
use anyhow::Result;
use clap::Subcommand;
use passavant_admin::types::Transmitters;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum Transmitter {
    /// Have the signals of another party count here; prints where it pushes and the header that it pushes with, once
    Add {
        /// Its name here: small letters, digits, hyphens
        name: String,
        /// Its issuer: `iss` of its security event tokens
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// `aud` of the tokens that are for this server, as the transmitter says when the stream is made
        #[arg(long)]
        audience: String,
        /// Whose people it speaks of: an upstream by its name, or with --ras a trusted issuer
        #[arg(long, value_name = "NAME")]
        speaks_for: String,
        /// URL of its keys, where the metadata of its issuer do not tell
        #[arg(long, value_name = "URL")]
        jwks_uri: Option<String>,
        /// The algorithm it signs with; RS256 unless given
        #[arg(long)]
        algorithm: Option<String>,
        /// Write the header to this new file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        header_out: Option<PathBuf>,
    },
    /// List the transmitters
    List(Listing),
    /// Show one transmitter
    Show(ById),
    /// Change what is expected of a transmitter; what is not named stays
    Change {
        id: String,
        /// Another `aud`
        #[arg(long)]
        audience: Option<String>,
        /// Another URL of its keys; `-` where the metadata of its issuer tell
        #[arg(long, value_name = "URL", allow_hyphen_values = true)]
        jwks_uri: Option<String>,
        /// Another algorithm
        #[arg(long)]
        algorithm: Option<String>,
    },
    /// Give a transmitter another header to push with; the one before opens nothing any more
    Renew {
        id: String,
        /// Write the header to this new file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        header_out: Option<PathBuf>,
    },
    /// Take no signals of a transmitter any more
    Disable(ById),
    /// Take its signals again
    Enable(ById),
    /// Remove it
    Delete(Gone),
}

#[derive(Subcommand)]
pub(super) enum Stream {
    /// List the streams of clients that listen to signals, and what waits for them
    List,
    /// Delete the stream of a client, with all that waits for it
    Delete {
        /// The client's id
        #[arg(value_name = "CLIENT")]
        id: String,
    },
}

/// The member that is shown once.
const HEADER: &str = "authorization_header";

pub(super) async fn transmitters(api: &Api, act: Transmitter) -> Result<Value> {
    match act {
        Transmitter::Add {
            name,
            issuer,
            audience,
            speaks_for,
            jwks_uri,
            algorithm,
            header_out,
        } => {
            let said = Saying::new()
                .with("name", Some(name))
                .with("issuer", Some(issuer))
                .with("audience", Some(audience))
                .with("speaks_for", Some(speaks_for))
                .with("jwks_uri", jwks_uri)
                .with("algorithm", algorithm);
            let mut out = SecretOut::new("--header-out", header_out)?;
            out.keep(add::<Transmitters>(api, said.whole()).await?, HEADER)
        }
        Transmitter::List(listing) => list::<Transmitters>(api, &listing).await,
        Transmitter::Show(id) => one::<Transmitters>(api, id).await,
        Transmitter::Change { id, audience, jwks_uri, algorithm } => {
            let said = Saying::new()
                .with("audience", audience)
                .or_none("jwks_uri", jwks_uri)
                .with("algorithm", algorithm);
            change::<Transmitters>(api, &id, said).await
        }
        Transmitter::Renew { id, header_out } => {
            let mut out = SecretOut::new("--header-out", header_out)?;
            out.keep(serde_json::to_value(api.server.renew_transmitter(&id).await?)?, HEADER)
        }
        Transmitter::Disable(id) => switch::<Transmitters>(api, id, false).await,
        Transmitter::Enable(id) => switch::<Transmitters>(api, id, true).await,
        Transmitter::Delete(gone) => delete::<Transmitters>(api, gone).await,
    }
}

pub(super) async fn streams(api: &Api, act: Stream) -> Result<Value> {
    match act {
        Stream::List => Ok(serde_json::to_value(api.server.streams().await?.items)?),
        Stream::Delete { id } => {
            api.server.delete_stream(&id).await?;
            Ok(Value::Null)
        }
    }
}
