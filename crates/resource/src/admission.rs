//! From a request's headers to its caller, or the reason why it is not admitted.

use crate::caller::Caller;
use http::HeaderMap;
use passavant_outbound::{KeySource, Reach, RemoteKeys};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::dpop::{self, Request},
    jose::jwk::Algorithm,
    jose::jws,
    oauth::access_token::{self, TokenForm},
    secret::sha256,
    time::{Clock, Timestamp},
};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// How long a verified token is accepted without verifying it again, in seconds.
const BELIEVED: i64 = 60;
/// Maximum number of cached tokens, and of keys whose DPoP proofs are remembered.
const MOST: usize = 20_000;
/// Maximum number of remembered DPoP proofs of one key.
const MOST_OF_ONE: usize = 4000;

/// Why a request is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// It carries no token.
    NoToken,
    /// Its token is rejected; the text is for `error_description`.
    InvalidToken(Cow<'static, str>),
    /// Its DPoP proof is rejected.
    InvalidProof,
    /// The keys are not available at the moment.
    Unavailable,
}

/// Checks the tokens for one resource.
pub(crate) struct Admission {
    pub(crate) resource: Resource,
    pub(crate) issuer: Issuer,
    keys: RemoteKeys,
    pub(crate) clock: Clock,
    /// Verified tokens, by the SHA-256 of the whole token.
    verified: Mutex<HashMap<String, (Caller, Timestamp)>>,
    /// Proofs that were used, by key and then by `jti`, and when they may be forgotten.
    proofs: Mutex<HashMap<String, HashMap<String, Timestamp>>>,
}

impl Admission {
    pub(crate) fn new(resource: Resource, issuer: Issuer, keys: RemoteKeys, clock: Clock) -> Self {
        Self { resource, issuer, keys, clock, verified: Mutex::default(), proofs: Mutex::default() }
    }

    /// Admits a request by its `Authorization` header (MCP authorization, Access Token Usage),
    /// checked on every request.
    pub(crate) async fn admit(
        &self,
        (algorithm, form): (Algorithm, TokenForm),
        method: &str,
        headers: &HeaderMap,
    ) -> Result<Caller, NotAdmitted> {
        let mut authorization = headers.get_all(http::header::AUTHORIZATION).iter();
        let header = authorization.next().ok_or(NotAdmitted::NoToken)?;
        if authorization.next().is_some() {
            return Err(NotAdmitted::InvalidToken("several Authorization headers".into()));
        }
        let header =
            header.to_str().map_err(|_| NotAdmitted::InvalidToken("unreadable header".into()))?;
        let (scheme, token) = header.split_once(' ').ok_or(NotAdmitted::NoToken)?;
        let with_proof = scheme.eq_ignore_ascii_case("dpop");
        if !with_proof && !scheme.eq_ignore_ascii_case("bearer") {
            return Err(NotAdmitted::NoToken);
        }
        let token = token.trim();
        let caller = self.verify((algorithm, form), token).await?;
        match (caller.key_thumbprint(), with_proof) {
            (None, false) => {}
            (Some(_), false) => {
                return Err(NotAdmitted::InvalidToken(
                    "the token is DPoP-bound, send a proof".into(),
                ));
            }
            (None, true) => {
                return Err(NotAdmitted::InvalidToken("the token is not DPoP-bound".into()));
            }
            (Some(bound), true) => self.check_proof(method, headers, token, bound)?,
        }
        Ok(caller)
    }

    async fn verify(
        &self,
        (algorithm, form): (Algorithm, TokenForm),
        token: &str,
    ) -> Result<Caller, NotAdmitted> {
        let now = self.clock.now();
        let key = sha256(token.as_bytes());
        let held = self.verified().get(&key).cloned();
        if let Some((caller, until)) = held
            && now < until
            && now < caller.expires()
        {
            return Ok(caller);
        }
        // The issuer is compared before keys are fetched, so that a foreign token causes no
        // request.
        let claimed = access_token::claimed_issuer(token)
            .map_err(|_| NotAdmitted::InvalidToken("not an access token (typ at+jwt)".into()))?;
        if claimed != self.issuer.as_str() {
            return Err(NotAdmitted::InvalidToken("issued by another authorization server".into()));
        }
        let (header, _) = jws::peek(token)
            .map_err(|_| NotAdmitted::InvalidToken("not an access token".into()))?;
        let kid = header.optional_str("kid").ok().flatten();
        let source = KeySource {
            owner: self.issuer.to_string(),
            jwks_uri: None,
            algorithm,
            reach: Reach::of_trusted_url(self.issuer.as_str()),
        };
        let keys = self.keys.keys(&source, kid).await.map_err(|_| NotAdmitted::Unavailable)?;
        let verified =
            access_token::verify(token, &keys, &self.issuer, (&self.resource, form), now);
        let caller = verified.map(|token| Caller::new(token, key.clone())).map_err(|error| {
            NotAdmitted::InvalidToken(match error {
                jws::JwtError::Audience => {
                    "the token's aud is not this MCP server's resource identifier".into()
                }
                jws::JwtError::Time(_) => "the token has expired".into(),
                // The text reveals only what is in the token or in the public keys.
                error => format!("the token does not verify: {error}").into(),
            })
        })?;
        let mut verified = self.verified();
        if verified.len() >= MOST {
            verified.retain(|_, (_, until)| now < *until);
            if verified.len() >= MOST {
                verified.clear();
            }
        }
        verified.insert(key, (caller.clone(), now.plus(BELIEVED)));
        Ok(caller)
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Caller, Timestamp)>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// RFC 9449 section 7: exactly one proof, for this request and token, signed with the bound
    /// key, and not used before.
    fn check_proof(
        &self,
        method: &str,
        headers: &HeaderMap,
        token: &str,
        bound: &str,
    ) -> Result<(), NotAdmitted> {
        let mut proofs = headers.get_all("dpop").iter();
        let (Some(proof), None) = (proofs.next(), proofs.next()) else {
            return Err(NotAdmitted::InvalidProof);
        };
        let proof = proof.to_str().map_err(|_| NotAdmitted::InvalidProof)?;
        let url = self.resource.normalized();
        let request = Request { method, url, access_token: Some(token) };
        let now = self.clock.now();
        let proof = dpop::verify(proof, request, now).map_err(|_| NotAdmitted::InvalidProof)?;
        if proof.key_thumbprint != bound {
            return Err(NotAdmitted::InvalidToken("the token is bound to another key".into()));
        }
        let mut seen = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            seen.retain(|_, own| own.values().any(|until| now < *until));
            if seen.len() >= MOST {
                // If a proof were forgotten while it is valid, it could be replayed.
                return Err(NotAdmitted::Unavailable);
            }
        }
        let own = seen.entry(proof.key_thumbprint).or_default();
        if own.len() >= MOST_OF_ONE {
            own.retain(|_, until| now < *until);
            if own.len() >= MOST_OF_ONE {
                // Only a sender with unreasonably many proofs has to wait.
                return Err(NotAdmitted::Unavailable);
            }
        }
        match own.insert(proof.jti, proof.forget_after) {
            Some(until) if now < until => Err(NotAdmitted::InvalidProof),
            _ => Ok(()),
        }
    }
}
