//! Signs people in at an IdP, for a server with pages of its own: makes the URL for the browser,
//! and evaluates the response. The server stores state, nonce and verifier; it authenticates with
//! `private_key_jwt` only.

use crate::{
    discovery::{Discovered, authorization_endpoint, discover_authorization_server},
    error::{DiscoveryError, OAuthError, SignInError},
    http::Outbound,
    jwks::{KeySource, RemoteKeys},
    reach::Reach,
};
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::{Algorithm, SigningKey},
    jose::jws,
    oauth::client_assertion,
    oauth::pkce::CodeChallenge,
    oidc::id_token::{self, SignIn, SignedIn},
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;

/// A relying party of any IdP. Cheap to clone.
#[derive(Clone)]
pub struct RelyingParty {
    outbound: Outbound,
    keys: RemoteKeys,
    clock: Clock,
    entropy: Entropy,
    metadata: Arc<Mutex<Metadata>>,
}

/// By issuer. Only issuers that an administrator trusts are in it.
type Metadata = HashMap<Issuer, Arc<AsyncMutex<Entry>>>;

/// The metadata of one issuer, when they were fetched, and when the last fetch failed.
#[derive(Default)]
struct Entry {
    found: Option<(Timestamp, Discovered)>,
    failed_at: Option<Timestamp>,
}

/// No request is made for this long after one that failed, in seconds.
const COOLDOWN: i64 = 10;

/// Metadata are fetched again after this time, in seconds.
const FRESH: i64 = 300;

/// One sign-in, as the server stores it.
#[derive(Clone, Copy, Debug)]
pub struct SignInFlow<'a> {
    /// The IdP.
    pub issuer: &'a Issuer,
    /// The server's client id there.
    pub client_id: &'a str,
    /// The redirect URI.
    pub redirect_uri: &'a str,
    /// `state`.
    pub state: &'a str,
    /// `nonce`.
    pub nonce: &'a str,
    /// The PKCE verifier.
    pub verifier: &'a str,
}

/// Requirements on the sign-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignInWishes<'a> {
    /// Address to prefill.
    pub login_hint: Option<&'a str>,
    /// Require a new sign-in, whatever session there is.
    pub fresh: bool,
    /// Maximum age of the sign-in, in seconds.
    pub max_age: Option<i64>,
}

#[derive(Deserialize)]
struct CodeAnswer {
    id_token: String,
    #[serde(default)]
    access_token: Option<String>,
}

impl RelyingParty {
    /// A relying party that shares a key cache with others.
    pub fn new(outbound: Outbound, keys: RemoteKeys, clock: Clock, entropy: Entropy) -> Self {
        Self { outbound, keys, clock, entropy, metadata: Arc::default() }
    }

    /// An issuer's metadata, cached for a while, so that visitors cannot cause a request each time.
    /// There is one request at a time, and none for a while after a failed one.
    async fn metadata(&self, issuer: &Issuer) -> Result<Discovered, DiscoveryError> {
        let now = self.clock.now();
        let entry = {
            let mut all = self.held();
            Arc::clone(all.entry(issuer.clone()).or_default())
        };
        let mut entry = entry.lock().await;
        if let Some((at, metadata)) = &entry.found
            && now.since(*at) < FRESH
        {
            return Ok(metadata.clone());
        }
        if entry.failed_at.is_some_and(|at| now.since(at) < COOLDOWN) {
            return Err(DiscoveryError::Unusable(format!(
                "{issuer} did not answer a moment ago, and is not asked again yet"
            )));
        }
        match discover_authorization_server(&self.outbound, issuer).await {
            Ok(metadata) => {
                *entry = Entry { found: Some((now, metadata.clone())), failed_at: None };
                Ok(metadata)
            }
            Err(error) => {
                entry.failed_at = Some(now);
                Err(error)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Metadata> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL to send the browser to.
    pub async fn authorization_url(
        &self,
        flow: SignInFlow<'_>,
        wishes: SignInWishes<'_>,
    ) -> Result<String, SignInError> {
        let metadata = self.metadata(flow.issuer).await?;
        let endpoint = authorization_endpoint(&metadata)?;
        let challenge = CodeChallenge::of(flow.verifier);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", flow.client_id)
            .append_pair("redirect_uri", flow.redirect_uri)
            .append_pair("scope", "openid email")
            .append_pair("state", flow.state)
            .append_pair("nonce", flow.nonce)
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256");
        query.extend_pairs(wishes.login_hint.map(|hint| ("login_hint", hint)));
        query.extend_pairs(wishes.fresh.then_some(("prompt", "login")));
        query.extend_pairs(wishes.max_age.map(|age| ("max_age", age.to_string())));
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{separator}{}", query.finish()))
    }

    /// Redeems the code of an authorization response and verifies the ID token. `iss` is the one of
    /// the response: it is required if the IdP announces it, and has to be this IdP's (RFC 9207).
    pub async fn finish(
        &self,
        flow: SignInFlow<'_>,
        code: &str,
        iss: Option<&str>,
        key: &SigningKey,
        algorithm: Algorithm,
    ) -> Result<SignedIn, SignInError> {
        let issuer = flow.issuer;
        let metadata = self.metadata(issuer).await?;
        let told = metadata.authorization_response_iss_parameter_supported;
        if iss.is_some_and(|iss| iss != issuer.as_str()) || (told && iss.is_none()) {
            let text = "`iss` is not the issuer that was asked (RFC 9207)";
            return Err(SignInError::Callback(text.to_owned()));
        }
        let (jti, now) = (self.entropy.id(), self.clock.now());
        let assertion = client_assertion::sign(key, flow.client_id, issuer.as_str(), &jti, now);
        let assertion = Secret::new(assertion);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", flow.redirect_uri),
            ("code_verifier", flow.verifier),
            ("client_id", flow.client_id),
            ("client_assertion_type", client_assertion::ASSERTION_TYPE),
            ("client_assertion", assertion.expose()),
        ];
        let endpoint = &metadata.token_endpoint;
        let reach = metadata.reach_of(endpoint);
        let answer = self.outbound.post_form(endpoint, reach, &form, None).await?;
        if answer.status != 200 {
            let error: OAuthError = answer.json().unwrap_or_else(|_| OAuthError {
                error: format!("HTTP {}", answer.status),
                ..OAuthError::default()
            });
            return Err(SignInError::Refused { party: issuer.to_string(), error });
        }
        let answer: CodeAnswer = answer.json().map_err(|error| {
            SignInError::BadAnswer(format!("not a token answer with an ID token: {error}"))
        })?;
        let refused = |error| SignInError::IdToken { issuer: issuer.to_string(), error };
        let (header, _) = jws::peek(&answer.id_token).map_err(refused)?;
        let jwks_uri = metadata.jwks_uri.clone();
        let reach = jwks_uri.as_deref().map_or(Reach::Public, |uri| metadata.reach_of(uri));
        let source = KeySource { owner: issuer.to_string(), jwks_uri, algorithm, reach };
        let kid = header.optional_str("kid").ok().flatten();
        let keys = self.keys.keys(&source, kid).await;
        let keys = keys.map_err(|error| DiscoveryError::Unusable(error.to_string()))?;
        let expected = SignIn {
            issuer,
            client: flow.client_id,
            nonce: Some(flow.nonce),
            access_token: answer.access_token.as_deref(),
        };
        id_token::verify_sign_in(&answer.id_token, &keys, expected, now).map_err(refused)
    }
}
