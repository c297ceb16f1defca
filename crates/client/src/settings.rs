//! The configuration of a client: its identities and their authorization servers.

use crate::code_flow::Callback;
use passavant_proto::{
    identifier::Issuer, jose::jwk::SigningKey, oauth::client::is_document_url, secret::Secret,
};
use std::{collections::HashMap, sync::Arc};

/// How a client proves its identity.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Not at all: a public client.
    None,
    /// With a secret.
    Secret(Secret),
    /// By signing assertions with its key (`private_key_jwt`).
    Key(Arc<SigningKey>),
}

/// A client at one authorization server.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its client id there. For an installation, the URL of its metadata document.
    pub client_id: String,
    /// Its credential.
    pub credential: Credential,
}

impl Registration {
    /// A client with a secret.
    pub fn with_secret(client_id: impl Into<String>, secret: Secret) -> Self {
        Self { client_id: client_id.into(), credential: Credential::Secret(secret) }
    }

    /// A public client.
    pub fn public(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), credential: Credential::None }
    }

    /// Whether its id is the URL of a metadata document, so that any authorization server that
    /// accepts such documents knows it.
    pub(crate) fn is_document(&self) -> bool {
        is_document_url(&self.client_id)
    }
}

/// What a client is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The company's IdP.
    pub idp: Issuer,
    /// Token endpoint of the IdP, if its discovery document cannot be used.
    pub idp_token_endpoint: Option<String>,
    /// This client at the IdP.
    pub idp_client: Registration,
    /// This client at each RAS it is registered with, by issuer.
    pub ras_clients: HashMap<String, Registration>,
    /// This client at authorization servers without cross-app access, by issuer, if it was
    /// registered manually.
    pub consent_clients: HashMap<String, Registration>,
    /// The callbacks of those registrations that have one fixed port.
    pub consent_callbacks: HashMap<String, Callback>,
    /// URL of a metadata document that describes this program as a public client, if it has one.
    pub client_document: Option<String>,
    /// Whether the IdP is asked before the person may consent. Only a program that belongs to no
    /// company works without.
    pub governed: bool,
    /// The key that tokens are bound to where the parties take DPoP proofs; without one they are
    /// bearer tokens.
    pub dpop_key: Option<Arc<SigningKey>>,
}

impl Settings {
    /// Settings with an IdP and a client there, nothing else.
    pub fn new(idp: Issuer, idp_client: Registration) -> Self {
        Self {
            idp,
            idp_token_endpoint: None,
            idp_client,
            ras_clients: HashMap::new(),
            consent_clients: HashMap::new(),
            consent_callbacks: HashMap::new(),
            client_document: None,
            governed: true,
            dpop_key: None,
        }
    }
}
