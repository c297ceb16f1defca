//! Signs people in at an IdP, for a server with pages of its own: makes the URL for the browser,
//! evaluates the response, and asks later on whether the person is still there. The server stores
//! state, nonce and verifier.

use crate::{
    discovery::{
        Discovered, any_authorization_endpoint, authorization_endpoint, discover_named, redirect_of,
    },
    error::{DiscoveryError, OAuthError, SignInError},
    http::{Bounds, Outbound},
    jwks::{KeySource, RemoteKeys},
    reach::{Reach, checked},
};
use passavant_proto::{
    identifier::Issuer,
    jose::claims::Claims,
    jose::jwk::{Algorithm, KeySet, SigningKey},
    jose::jws,
    oauth::client_assertion,
    oauth::global_token_revocation::{self, RevocationToken},
    oauth::pkce::CodeChallenge,
    oidc::id_token::{self, SignIn},
    oidc::logout_token::{self, LogoutToken},
    oidc::upstream::{issuer_of_tenant, template_of},
    others_text::shown,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use serde::Deserialize;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

/// A relying party of any IdP. Cheap to clone.
#[derive(Clone)]
pub struct RelyingParty {
    outbound: Outbound,
    keys: RemoteKeys,
    clock: Clock,
    entropy: Entropy,
    metadata: Arc<Mutex<Metadata>>,
}

/// By issuer, and by the issuer that the document has to name. Only issuers that an administrator
/// trusts are in it.
type Metadata = HashMap<(Issuer, String), Arc<AsyncMutex<Entry>>>;

/// The metadata of one issuer, when they were fetched, and when the last fetch failed.
#[derive(Default)]
struct Entry {
    found: Option<(Timestamp, Discovered)>,
    failed_at: Option<Timestamp>,
}

/// No request is made for this long after one that failed, in seconds.
const COOLDOWN: i64 = 10;

/// How long a party has that is told something: its status is the answer.
/// How long a listener has to answer a push.
const PUSHED: Duration = Duration::from_secs(10);

const TOLD: Bounds = Bounds { bytes: 0, time: Duration::from_secs(15) };

/// How long a discovery may take, all of its places together.
const PATIENCE: Duration = Duration::from_secs(8);

/// Metadata are fetched again after this time, in seconds.
const FRESH: i64 = 300;

/// How this server is registered at an IdP.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    /// The IdP.
    pub issuer: &'a Issuer,
    /// The tenants that may sign in, if `issuer` stands for all tenants of Entra.
    pub tenants: Option<&'a BTreeSet<String>>,
    /// Another way in which the IdP writes its issuer.
    pub other_spelling: Option<String>,
    /// The server's client id there.
    pub client_id: &'a str,
    /// Its redirect URI there.
    pub redirect_uri: String,
    /// The algorithm of its ID tokens.
    pub algorithm: Algorithm,
    /// Whether the IdP has to announce PKCE. It is used in any case.
    pub announced_pkce: bool,
}

impl Registration<'_> {
    /// Whether `iss` of an authorization response is this IdP's (RFC 9207). Where the issuer stands
    /// for several tenants, the response names one of them; the ID token says which.
    pub fn is_answered_by(&self, iss: &str) -> bool {
        match self.tenants {
            None => iss == self.issuer.as_str() || self.other_spelling.as_deref() == Some(iss),
            Some(tenants) => {
                let of = |tenant: &String| issuer_of_tenant(self.issuer, tenant);
                tenants.iter().filter_map(of).any(|issuer| issuer.as_str() == iss)
            }
        }
    }
}

/// How the server proves itself at an IdP.
#[derive(Debug)]
pub enum ClientProof<'a> {
    /// `private_key_jwt`.
    Assertion {
        /// The key.
        key: &'a SigningKey,
        /// The certificate that the IdP knows the key by, in DER.
        certificate: Option<&'a [u8]>,
        /// Whether the assertion is for the token endpoint instead of the issuer.
        to_token_endpoint: bool,
    },
    /// `client_secret_post`.
    SecretPost(&'a Secret),
    /// `client_secret_basic`.
    SecretBasic(&'a Secret),
}

/// One sign-in, as the server stores it.
#[derive(Clone, Copy, Debug)]
pub struct SignInFlow<'a> {
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
    /// Values of `prompt`: `login` requires a new sign-in, whatever session there is.
    pub prompt: &'a [&'static str],
    /// Maximum age of the sign-in, in seconds.
    pub max_age: Option<i64>,
    /// Authentication context classes, in order of preference.
    pub acr_values: &'a [String],
    /// More parameters.
    pub more: &'a [(&'static str, String)],
}

/// What an IdP answered to a code or a refresh token.
#[derive(Debug)]
pub struct Returned {
    /// The claims of the ID token, verified; `None` if a refresh brought none.
    pub claims: Option<Claims>,
    /// The issuer of the ID token.
    pub issuer: Issuer,
    /// The refresh token, if there is a new one.
    pub refresh_token: Option<Secret>,
    /// The access token for the IdP's `UserInfo` endpoint.
    pub access_token: Option<Secret>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    id_token: Option<String>,
    /// Required (RFC 6749 section 5.1).
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// What a refresh brought, not verified yet.
pub struct Refreshed(TokenAnswer);

impl Refreshed {
    /// The next refresh token, if there is one.
    pub fn refresh_token(&self) -> Option<Secret> {
        self.0.next()
    }
}

/// Longest refresh token of an IdP that is kept, in bytes.
const LONGEST_TOKEN: usize = 8 * 1024;

impl TokenAnswer {
    /// The refresh token, if there is one.
    fn next(&self) -> Option<Secret> {
        self.refresh_token.as_deref().filter(|token| !token.is_empty()).map(Secret::new)
    }
}

impl RelyingParty {
    /// A relying party that shares a key cache with others.
    pub fn new(outbound: Outbound, keys: RemoteKeys, clock: Clock, entropy: Entropy) -> Self {
        Self { outbound, keys, clock, entropy, metadata: Arc::default() }
    }

    /// An issuer's metadata, cached for a while, so that visitors cannot cause a request each time.
    /// There is one request at a time, and none for a while after a failed one.
    pub async fn metadata(
        &self,
        registration: &Registration<'_>,
    ) -> Result<Discovered, DiscoveryError> {
        let issuer = registration.issuer;
        // The issuer that stands for several tenants names itself by a template.
        let named = registration.tenants.and_then(|_| template_of(issuer));
        let named = named.unwrap_or_else(|| issuer.to_string());
        self.discover(issuer, &named).await
    }

    /// `named` is the issuer that the document has to name.
    async fn discover(&self, issuer: &Issuer, named: &str) -> Result<Discovered, DiscoveryError> {
        let now = self.clock.now();
        let entry = {
            let mut all = self.held();
            let key = (issuer.clone(), named.to_owned());
            Arc::clone(all.entry(key).or_default())
        };
        let mut entry = entry.lock_owned().await;
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
        // In a task of its own: whoever waits for it may go away, and the next one neither waits as long
        // again nor asks again.
        let (outbound, clock) = (self.outbound.clone(), self.clock.clone());
        let (issuer, named) = (issuer.clone(), named.to_owned());
        let fetch = async move {
            let found = timeout(PATIENCE, discover_named(&outbound, &issuer, &named)).await;
            let found = found.unwrap_or_else(|_| {
                let seconds = PATIENCE.as_secs();
                let error = format!("{issuer} did not answer within {seconds} seconds");
                Err(DiscoveryError::Unusable(error))
            });
            match &found {
                Ok(metadata) => {
                    *entry = Entry { found: Some((now, metadata.clone())), failed_at: None };
                }
                Err(_) => entry.failed_at = Some(clock.now()),
            }
            found
        };
        let ended = |_| Err(DiscoveryError::Unusable("the request was broken off".to_owned()));
        tokio::spawn(fetch).await.unwrap_or_else(ended)
    }

    fn held(&self) -> MutexGuard<'_, Metadata> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL to send the browser to.
    pub async fn authorization_url(
        &self,
        registration: &Registration<'_>,
        scope: impl FnOnce(&[String]) -> String + Send,
        flow: SignInFlow<'_>,
        wishes: SignInWishes<'_>,
    ) -> Result<String, SignInError> {
        let metadata = self.metadata(registration).await?;
        let endpoint = if registration.announced_pkce {
            authorization_endpoint(&metadata)?
        } else {
            any_authorization_endpoint(&metadata)?
        };
        let challenge = CodeChallenge::of(flow.verifier);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", registration.client_id)
            .append_pair("redirect_uri", &registration.redirect_uri)
            .append_pair("scope", &scope(&metadata.scopes_supported))
            .append_pair("state", flow.state)
            .append_pair("nonce", flow.nonce)
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256");
        query.extend_pairs(wishes.login_hint.map(|hint| ("login_hint", hint)));
        if !wishes.prompt.is_empty() {
            query.append_pair("prompt", &wishes.prompt.join(" "));
        }
        query.extend_pairs(wishes.max_age.map(|age| ("max_age", age.to_string())));
        if !wishes.acr_values.is_empty() {
            query.append_pair("acr_values", &wishes.acr_values.join(" "));
        }
        query.extend_pairs(wishes.more);
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{separator}{}", query.finish()))
    }

    /// Redeems the code of an authorization response and verifies the ID token. `iss` is the one of
    /// the response: it is required if the IdP announces it, and has to be this IdP's (RFC 9207).
    pub async fn finish(
        &self,
        registration: &Registration<'_>,
        proof: &ClientProof<'_>,
        flow: SignInFlow<'_>,
        code: &str,
        iss: Option<&str>,
    ) -> Result<Returned, SignInError> {
        let metadata = self.metadata(registration).await?;
        let told = metadata.authorization_response_iss_parameter_supported;
        if iss.is_some_and(|iss| !registration.is_answered_by(iss)) || (told && iss.is_none()) {
            let text = "`iss` is not the issuer that was asked (RFC 9207)";
            return Err(SignInError::Callback(text.to_owned()));
        }
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &registration.redirect_uri),
            ("code_verifier", flow.verifier),
        ];
        let answer = self.token(registration, proof, &metadata, &form).await?;
        if answer.id_token.is_none() {
            let text = "not a token answer with an ID token".to_owned();
            return Err(SignInError::BadAnswer(text));
        }
        self.returned(registration, answer, Some(flow.nonce)).await
    }

    /// Asks with a refresh token whether the person is still there (OpenID Connect Core 12). The
    /// presented token may be used up as soon as there is an answer: store the next one first.
    pub async fn refresh(
        &self,
        registration: &Registration<'_>,
        proof: &ClientProof<'_>,
        refresh_token: &Secret,
    ) -> Result<Refreshed, SignInError> {
        let metadata = self.metadata(registration).await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        self.token(registration, proof, &metadata, &form).await.map(Refreshed)
    }

    /// Verifies what a refresh brought.
    pub async fn refreshed(
        &self,
        registration: &Registration<'_>,
        Refreshed(answer): Refreshed,
    ) -> Result<Returned, SignInError> {
        self.returned(registration, answer, None).await
    }

    /// Whether the keys of the ID tokens can be had, for each issuer that may sign them.
    pub async fn look_at_keys(
        &self,
        registration: &Registration<'_>,
    ) -> Vec<(Issuer, Result<(), String>)> {
        let issuers: Vec<Issuer> = match registration.tenants {
            None => vec![registration.issuer.clone()],
            Some(tenants) => tenants
                .iter()
                .filter_map(|tenant| issuer_of_tenant(registration.issuer, tenant))
                .collect(),
        };
        let mut found = Vec::with_capacity(issuers.len());
        for issuer in issuers {
            let keys = self.keys_of(&issuer, registration.algorithm, None).await;
            found.push((issuer, keys.map(|_| ()).map_err(|error| error.to_string())));
        }
        found
    }

    /// The status and the redirect of an authorization endpoint, for a request without a browser.
    pub async fn visit(
        &self,
        registration: &Registration<'_>,
        url: &str,
    ) -> Result<(u16, Option<String>), String> {
        let metadata = self.metadata(registration).await.map_err(|error| error.to_string())?;
        let answer = self.outbound.get(url, metadata.reach_of(url)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        Ok((answer.status, redirect_of(url, &answer)))
    }

    /// The status of a page whose address an administrator gave, for a request without a browser.
    pub async fn visit_page(&self, url: &str) -> Result<u16, String> {
        let answer = self.outbound.get(url, Reach::of_trusted_url(url)).await;
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    }

    /// Posts a logout token to an application (OpenID Connect Back-Channel Logout 1.0, section 2.5). Returns
    /// the status.
    pub async fn post_logout_token(
        &self,
        url: &str,
        reach: Reach,
        token: &str,
    ) -> Result<u16, String> {
        let form = [("logout_token", token)];
        let answer = self.outbound.post_form_within(url, reach, &form, None, TOLD).await;
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    }

    /// The metadata of an authorization server that an administrator registered, cached like those of
    /// an issuer.
    pub async fn authorization_server(
        &self,
        issuer: &Issuer,
    ) -> Result<Discovered, DiscoveryError> {
        self.discover(issuer, issuer.as_str()).await
    }

    /// Sends a request by which access ends at another authorization server (Global Token Revocation),
    /// and returns the status, and what it calls the error.
    pub async fn post_revocation(
        &self,
        url: &str,
        reach: Reach,
        token: &str,
        body: &serde_json::Value,
    ) -> Result<(u16, Option<String>), String> {
        let limits = (&[][..], Bounds { bytes: 16 * 1024, ..TOLD });
        let answer =
            self.outbound.json_within(("POST", url), reach, Some(token), Some(body), limits).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let error = answer.json::<OAuthError>().ok().map(|answer| answer.error);
        Ok((answer.status, error))
    }

    /// Pushes a security event token (RFC 8935, section 2), and returns the status, and what was wrong.
    pub async fn post_security_event(
        &self,
        url: &str,
        reach: Reach,
        authorization: Option<&str>,
        token: &str,
    ) -> Result<(u16, Option<String>), String> {
        #[derive(serde::Deserialize)]
        struct Refused {
            err: String,
            #[serde(default)]
            description: String,
        }
        let bounds = Bounds { bytes: 16 * 1024, time: PUSHED };
        let said = ("application/secevent+jwt", token);
        let answer = self.outbound.post_text((url, reach), said, authorization, bounds).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let why = answer.json::<Refused>().ok();
        Ok((answer.status, why.map(|why| format!("{} {}", why.err, why.description))))
    }

    /// Verifies the JWT of a request of an upstream by which access ends here.
    pub async fn revocation(
        &self,
        registration: &Registration<'_>,
        token: &str,
        endpoint: &str,
    ) -> Result<RevocationToken, SignInError> {
        let issuer = registration.issuer;
        let refused = |error| SignInError::IdToken { issuer: issuer.to_string(), error };
        let (_, kid) = global_token_revocation::claimed(token).map_err(refused)?;
        let keys = self.keys_of(issuer, registration.algorithm, kid.as_deref()).await?;
        let spelling = registration.other_spelling.as_deref();
        let client = Some(registration.client_id);
        let now = self.clock.now();
        global_token_revocation::verify(token, &keys, (issuer, spelling), client, endpoint, now)
            .map_err(refused)
    }

    /// The keys of an issuer, by its own metadata.
    async fn keys_of(
        &self,
        issuer: &Issuer,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Arc<KeySet>, DiscoveryError> {
        let metadata = self.discover(issuer, issuer.as_str()).await?;
        let jwks_uri = metadata.jwks_uri.clone();
        let reach = jwks_uri.as_deref().map_or(Reach::Public, |uri| metadata.reach_of(uri));
        let source = KeySource { owner: issuer.to_string(), jwks_uri, algorithm, reach };
        let keys = self.keys.keys(&source, kid).await;
        keys.map_err(|error| DiscoveryError::Unusable(error.to_string()))
    }

    /// What the `UserInfo` endpoint says about the person of an ID token (OpenID Connect Core 5.3):
    /// `None` if there is no such endpoint. What it says about anybody else is an error.
    pub async fn user_info(
        &self,
        registration: &Registration<'_>,
        access_token: &Secret,
        subject: &str,
    ) -> Result<Option<Claims>, SignInError> {
        let metadata = self.metadata(registration).await?;
        let Some(endpoint) = metadata.userinfo_endpoint.clone() else { return Ok(None) };
        let reach = metadata.reach_of(&endpoint);
        let bearer = Some(access_token.expose());
        let answer = self.outbound.json("GET", &endpoint, reach, bearer, None).await?;
        if answer.status != 200 {
            let error = format!("{endpoint} answered HTTP {}", answer.status);
            return Err(DiscoveryError::Unusable(error).into());
        }
        let claims = Claims::parse(&answer.body)
            .map_err(|error| SignInError::BadAnswer(format!("UserInfo: {error}")))?;
        if claims.required_str("sub").ok() != Some(subject) {
            let text =
                "UserInfo is about another person than the ID token (OpenID Connect Core 5.3.2)";
            return Err(SignInError::BadAnswer(text.to_owned()));
        }
        Ok(Some(claims))
    }

    /// Verifies a logout token (OpenID Connect Back-Channel Logout 1.0).
    pub async fn logout(
        &self,
        registration: &Registration<'_>,
        token: &str,
    ) -> Result<LogoutToken, SignInError> {
        let issuer = registration.issuer;
        let refused = |error| SignInError::IdToken { issuer: issuer.to_string(), error };
        let (header, _) = jws::peek(token).map_err(refused)?;
        let kid = header.optional_str("kid").ok().flatten();
        let keys = self.keys_of(issuer, registration.algorithm, kid).await?;
        let (spelling, client) = (registration.other_spelling.as_deref(), registration.client_id);
        let now = self.clock.now();
        logout_token::verify(token, &keys, (issuer, spelling), client, now).map_err(refused)
    }

    /// Where a browser signs out of the IdP (OpenID Connect RP-Initiated Logout 1.0), if it says so.
    pub async fn end_session_url(&self, registration: &Registration<'_>) -> Option<String> {
        let metadata = self.metadata(registration).await.ok()?;
        let endpoint = metadata.end_session_endpoint.clone()?;
        // A browser is sent there: never to a scheme that starts a program, nor nearer than the
        // party that named it.
        let mut url = checked(&endpoint, metadata.reach_of(&endpoint)).ok()?;
        url.query_pairs_mut().append_pair("client_id", registration.client_id);
        Some(url.into())
    }

    /// Forgets what is remembered of an IdP's metadata: somebody looks whether it works now.
    pub fn forget(&self, registration: &Registration<'_>) {
        let own = registration.issuer;
        let tenants = registration.tenants.into_iter().flatten();
        let issuers: Vec<Issuer> = tenants
            .filter_map(|tenant| issuer_of_tenant(own, tenant))
            .chain([own.clone()])
            .collect();
        self.held().retain(|(issuer, _), _| !issuers.contains(issuer));
        for issuer in &issuers {
            self.keys.forget(issuer.as_str());
        }
    }

    /// A request to the token endpoint.
    async fn token(
        &self,
        registration: &Registration<'_>,
        proof: &ClientProof<'_>,
        metadata: &Discovered,
        form: &[(&str, &str)],
    ) -> Result<TokenAnswer, SignInError> {
        let client_id = registration.client_id;
        let endpoint = &metadata.token_endpoint;
        let reach = metadata.reach_of(endpoint);
        let mut form = form.to_vec();
        let answer = match proof {
            ClientProof::SecretBasic(secret) => {
                let basic = Some((client_id, secret.expose()));
                self.outbound.post_form(endpoint, reach, &form, basic).await?
            }
            ClientProof::SecretPost(secret) => {
                form.extend([("client_id", client_id), ("client_secret", secret.expose())]);
                self.outbound.post_form(endpoint, reach, &form, None).await?
            }
            ClientProof::Assertion { key, certificate, to_token_endpoint } => {
                let (jti, now) = (self.entropy.id(), self.clock.now());
                let audience: &str =
                    if *to_token_endpoint { endpoint } else { registration.issuer.as_str() };
                let who = (client_id, audience);
                let assertion =
                    client_assertion::sign_for_upstream(key, *certificate, who, &jti, now);
                let assertion = Secret::new(assertion);
                form.extend([
                    ("client_id", client_id),
                    ("client_assertion_type", client_assertion::ASSERTION_TYPE),
                    ("client_assertion", assertion.expose()),
                ]);
                self.outbound.post_form(endpoint, reach, &form, None).await?
            }
        };
        if answer.status != 200 {
            let error: OAuthError = answer.json().unwrap_or_else(|_| OAuthError {
                error: format!("HTTP {}", answer.status),
                ..OAuthError::default()
            });
            let party = registration.issuer.to_string();
            // What an overloaded or broken server says about a token is not about the token.
            if answer.status >= 500 || answer.status == 429 {
                let error = format!("{party} answered HTTP {}", answer.status);
                return Err(DiscoveryError::Unusable(error).into());
            }
            return Err(SignInError::Refused { party, error });
        }
        // A party in front may answer 200 to everything: an error is one, whatever the status.
        if let Ok(error) = answer.json::<OAuthError>() {
            let party = registration.issuer.to_string();
            return Err(SignInError::Refused { party, error });
        }
        let answer: TokenAnswer = answer
            .json()
            .map_err(|error| SignInError::BadAnswer(format!("not a token answer: {error}")))?;
        let length = answer.refresh_token.as_ref().map_or(0, String::len);
        if length > LONGEST_TOKEN {
            let what = format!("a refresh token of {length} bytes; {LONGEST_TOKEN} can be kept");
            return Err(SignInError::BadAnswer(what));
        }
        Ok(answer)
    }

    async fn returned(
        &self,
        registration: &Registration<'_>,
        answer: TokenAnswer,
        nonce: Option<&str>,
    ) -> Result<Returned, SignInError> {
        let refresh_token = answer.next();
        let access_token = Some(Secret::new(answer.access_token));
        let Some(id_token) = answer.id_token else {
            let issuer = registration.issuer.clone();
            return Ok(Returned { claims: None, issuer, refresh_token, access_token });
        };
        let own = registration.issuer;
        let refused = |error| SignInError::IdToken { issuer: own.to_string(), error };
        let (header, claims) = jws::peek(&id_token).map_err(refused)?;
        // Where several tenants may sign in, the token's tenant is verified by what that tenant's
        // own metadata say: its issuer and its keys.
        let issuer = match registration.tenants {
            None => own.clone(),
            Some(tenants) => {
                let tenant = claims.optional_str("tid").ok().flatten().unwrap_or_default();
                let listed = tenants.contains(tenant).then(|| issuer_of_tenant(own, tenant));
                listed.flatten().ok_or_else(|| SignInError::Tenant {
                    issuer: own.to_string(),
                    tenant: shown(tenant, 60),
                })?
            }
        };
        let kid = header.optional_str("kid").ok().flatten();
        let keys = self.keys_of(&issuer, registration.algorithm, kid).await?;
        let expected = SignIn {
            issuer: &issuer,
            other_spelling: registration.other_spelling.as_deref(),
            client: registration.client_id,
            nonce,
            access_token: access_token.as_ref().map(Secret::expose),
        };
        let now = self.clock.now();
        let claims = id_token::verify_claims(&id_token, &keys, expected, now).map_err(refused)?;
        Ok(Returned { claims: Some(claims), issuer, refresh_token, access_token })
    }
}
