//! What a record of the directory is: a JSON document with an id and a name.

use crate::rows::Stored;
use passavant_proto::{
    oauth::client::{Client, GovernedResource},
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer},
    ssf::Transmitter,
    xaa::trust::{ClientHost, TrustedIssuer},
};

/// A record of the directory: a JSON document with an id, and a name unique in its kind.
pub trait Record: Stored + Send + Sync {
    /// The kind's name in the database and in messages.
    const KIND: &'static str;
    /// Unique and unchanging.
    fn id(&self) -> String;
    /// Unique; may change.
    fn name(&self) -> String {
        self.id()
    }
}

macro_rules! record {
    ($type:ty, $kind:literal, |$this:ident| $id:expr $(, $name:expr)?) => {
        impl Record for $type {
            const KIND: &'static str = $kind;
            fn id(&self) -> String {
                let $this = self;
                $id
            }
            $(fn name(&self) -> String {
                let $this = self;
                $name
            })?
        }
    };
}

pub(crate) use record;

record!(Client, "client", |client| client.id.clone());

record!(ResourceAuthorizationServer, "authorization server", |s| s.issuer.to_string());

record!(RegisteredResource, "resource", |r| r.resource.normalized().to_owned());

record!(Connection, "connection", |connection| connection.id.clone());

record!(TrustedIssuer, "trusted issuer", |trusted| trusted.issuer.to_string());

record!(Transmitter, "transmitter", |transmitter| transmitter.name.clone());

record!(ClientHost, "client host", |host| host.origin.clone());

record!(GovernedResource, "resource", |r| r.resource.normalized().to_owned());
