//! DPoP (RFC 9449): tokens that are of use only with a key which does not leave this computer. Proofs
//! are sent to parties that announce it, and to no other.

use crate::{client::Client, discovery::McpServer, vault::Access};
use http::{HeaderMap, HeaderValue};
use passavant_outbound::{Discovered, origin_of};
use passavant_proto::{
    jose::{
        dpop::{self, Request},
        jwk::SigningKey,
    },
    oauth::challenge::Challenge,
};
use std::sync::PoisonError;

/// Longest nonce that is sent back, in characters.
const LONGEST_NONCE: usize = 512;
/// Most servers whose nonces are remembered.
const MOST: usize = 1000;

impl Client {
    /// The key, if this client has one.
    pub(crate) fn dpop_key(&self) -> Option<&SigningKey> {
        self.0.settings.dpop_key.as_deref()
    }

    /// Whether tokens for an MCP server are bound to the key: if its authorization server and the
    /// server itself announce that they take proofs. Either alone does not suffice: many
    /// authorization servers announce it whose resources know bearer tokens only.
    pub(crate) fn binds(&self, server: &McpServer) -> bool {
        server.takes_dpop && self.proves_to(&server.metadata)
    }

    /// Whether an authorization server takes proofs by the key.
    pub(crate) fn proves_to(&self, metadata: &Discovered) -> bool {
        self.dpop_key().is_some_and(|key| {
            let announced = &metadata.dpop_signing_alg_values_supported;
            announced.iter().any(|algorithm| algorithm == key.algorithm().name())
        })
    }

    /// Whether this client can use a token: a bound one only with its key.
    pub(crate) fn can_use(&self, access: &Access) -> bool {
        let key = self.dpop_key().map(SigningKey::kid);
        access.dpop_jkt.is_none() || access.dpop_jkt.as_deref() == key
    }

    /// A proof for one request, with the nonce that its server gave last.
    pub(crate) fn proof(
        &self,
        method: &str,
        url: &str,
        access_token: Option<&str>,
    ) -> Option<String> {
        let key = self.dpop_key()?;
        let nonce = self.nonces().get(&origin_of(url)).cloned();
        // In the recipient's time, as client assertions are.
        let (jti, now) = (self.0.entropy.id(), self.time_at(url));
        let request = Request { method, url, access_token };
        Some(dpop::sign(key, request, nonce.as_deref(), &jti, now))
    }

    /// The headers that present a token with one request to its MCP server: `Authorization`, and
    /// for a bound token a fresh `DPoP` proof. They are good for this request only.
    pub fn authorization(&self, method: &str, url: &str, access: &Access) -> HeaderMap {
        self.presenting(method, url, &access.token, access.dpop_jkt.is_some())
    }

    pub(crate) fn presenting(
        &self,
        method: &str,
        url: &str,
        token: &str,
        is_bound: bool,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let proof = if is_bound { self.proof(method, url, Some(token)) } else { None };
        let scheme = if proof.is_some() { "DPoP" } else { "Bearer" };
        if let Ok(mut value) = HeaderValue::from_str(&format!("{scheme} {token}")) {
            value.set_sensitive(true);
            headers.insert(http::header::AUTHORIZATION, value);
        }
        if let Some(value) = proof.and_then(|proof| HeaderValue::from_str(&proof).ok()) {
            headers.insert("dpop", value);
        }
        headers
    }

    /// Remembers the nonce of a response (RFC 9449 sections 8 and 9). Returns whether it is another
    /// one than before.
    pub fn take_nonce(&self, url: &str, headers: &HeaderMap) -> bool {
        if self.dpop_key().is_none() {
            return false;
        }
        let mut given = headers.get_all("dpop-nonce").iter();
        let (Some(nonce), None) = (given.next(), given.next()) else { return false };
        let Ok(nonce) = nonce.to_str() else { return false };
        if nonce.is_empty() || nonce.len() > LONGEST_NONCE {
            return false;
        }
        let mut nonces = self.nonces();
        if nonces.len() >= MOST {
            nonces.clear();
        }
        nonces.insert(origin_of(url), nonce.to_owned()).as_deref() != Some(nonce)
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, String>> {
        self.0.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether challenges ask for a nonce in the proof.
pub(crate) fn wants_nonce(headers: &HeaderMap) -> bool {
    let headers = headers.get_all(http::header::WWW_AUTHENTICATE).iter();
    Challenge::parse_all(headers.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>())
        .iter()
        .any(|challenge| {
            challenge.scheme.eq_ignore_ascii_case("dpop")
                && challenge.get("error") == Some("use_dpop_nonce")
        })
}
