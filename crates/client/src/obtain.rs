//! From a sign-in to an access token: exchange, redemption, renewal, step-up.

use crate::{
    client::{AccessToken, Client, key},
    discovery::{self, McpServer, bearer_challenge},
    error::{Error, Leg},
    settings::{Credential, Registration},
};
use passavant_outbound::{Answer, Discovered, NOTABLE_SKEW, OAuthError, Reach};
use passavant_proto::{
    GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_REFRESH_TOKEN,
    identifier::{Issuer, Resource},
    jose::claims::Claims,
    jose::jwk::SigningKey,
    jose::jws,
    oauth::challenge::Challenge,
    oauth::client_assertion,
    oauth::scope::Scopes,
    others_text::shown,
    secret::Secret,
    time::Timestamp,
    xaa::id_jag::OneOrMany,
};
use serde::Deserialize;
use std::{collections::HashSet, sync::PoisonError};

/// The token with which an ID-JAG is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // as RFC 8693 names them
pub enum SubjectTokenKind {
    /// The refresh token.
    RefreshToken,
    /// The ID token.
    IdToken,
    /// Not a token of the sign-in: an access token that a caller presented to the MCP server this
    /// client stands for.
    AccessToken,
}

/// An ID-JAG as received, with its form checked. The RAS verifies it.
#[derive(Clone, Debug)]
pub struct IdJagView {
    /// The ID-JAG, to be presented once.
    pub assertion: Secret,
    /// Its claims.
    pub claims: Claims,
    /// Its scopes.
    pub scopes: Option<Scopes>,
}

/// The IdP's metadata are fetched again after this time, in seconds.
const METADATA_FRESH: i64 = 300;
/// An access token whose remaining lifetime is shorter than this is not used any more, in seconds.
pub(crate) const MARGIN: i64 = 20;

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    issued_token_type: Option<String>,
    #[serde(default, deserialize_with = "lifetime")]
    expires_in: Option<i64>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    resource: Option<OneOrMany>,
}

/// `expires_in` in whole seconds. Several large servers write it as a string, or with decimals. It
/// is only advice, so anything that is not a number is treated as missing.
pub(crate) fn lifetime<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    let seconds = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    #[allow(clippy::cast_possible_truncation)] // within the range
    Ok(seconds
        .filter(|seconds| (0.0..1e12).contains(seconds))
        .map(|seconds| seconds.floor() as i64))
}

impl Client {
    /// Finds the MCP server at `url` and the RAS that governs it.
    pub async fn discover(&self, url: &str) -> Result<McpServer, Error> {
        let found =
            discovery::mcp_server(&self.0.outbound, url, |issuer| self.is_known(issuer)).await?;
        let mut servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(url.to_owned(), found.clone());
        Ok(found)
    }

    /// A token for `server` with the scopes it asks for: cached, or obtained silently.
    pub async fn access_token(&self, server: &McpServer) -> Result<AccessToken, Error> {
        self.follow_vault().await?;
        let now = self.0.clock.now();
        let held = self.tokens().get(&key(server)).cloned();
        match held {
            Some(token) if token.expires.since(now) > MARGIN => Ok(token),
            held => {
                // Scopes that were granted in a step-up are kept.
                let had = held.map(|token| token.scopes).filter(|s| !s.is_empty());
                let wanted = match (&server.scopes, had) {
                    (Some(wanted), Some(had)) => Some(wanted.union(&had)),
                    (wanted, _) => wanted.clone(),
                };
                self.obtain(server, wanted.as_ref()).await
            }
        }
    }

    /// Obtains a token for the union of the current scopes and those that a 403
    /// `insufficient_scope` names (MCP authorization, Step-Up Authorization Flow).
    pub async fn step_up(
        &self,
        server: &McpServer,
        challenge: &Challenge,
    ) -> Result<AccessToken, Error> {
        let named = challenge.get("scope").and_then(Scopes::parse).unwrap_or_default();
        let had = self.tokens().get(&key(server)).map(|token| token.scopes.clone());
        let wanted = named.union(&had.or_else(|| server.scopes.clone()).unwrap_or_default());
        self.obtain(server, Some(&wanted)).await
    }

    /// The challenge of a 401 or 403 response of an MCP server.
    pub fn challenge(answer: &Answer) -> Option<Challenge> {
        bearer_challenge(answer)
    }

    pub(crate) async fn obtain(
        &self,
        server: &McpServer,
        scopes: Option<&Scopes>,
    ) -> Result<AccessToken, Error> {
        let id_jag = self.id_jag(server, scopes).await?;
        let fresh = || self.id_jag(server, scopes);
        let token = self.redeem_or_again(server, scopes, &id_jag, fresh).await?;
        self.tokens().insert(key(server), token.clone());
        Ok(token)
    }

    /// Presents an ID-JAG at the RAS. Some authorization servers reject the `resource` parameter at
    /// a redemption, and may have used up the ID-JAG doing so. Then a fresh one is presented
    /// without it, which means the same, and the parameter is left out from then on.
    pub async fn redeem_or_again<F: Future<Output = Result<IdJagView, Error>>>(
        &self,
        server: &McpServer,
        scopes: Option<&Scopes>,
        id_jag: &IdJagView,
        fresh: impl Fn() -> F,
    ) -> Result<AccessToken, Error> {
        const ABOUT: [&str; 4] =
            ["invalid_grant", "invalid_target", "invalid_request", "server_error"];
        let ras = server.authorization_server.as_str();
        let with_resource = self.sends_resource(ras);
        let refused = match self.redeem_once(server, id_jag, scopes, with_resource).await {
            Err(Error::Refused { leg, party, error })
                if with_resource && ABOUT.contains(&error.error.as_str()) =>
            {
                Error::Refused { leg, party, error }
            }
            outcome => return outcome,
        };
        // If the parameter was not the cause, the person is shown the first error; unless the second
        // one says that another attempt is of no use.
        let again = match fresh().await {
            Ok(id_jag) => self.redeem_once(server, &id_jag, scopes, false).await,
            Err(error) => Err(error),
        };
        match again {
            Ok(token) => {
                self.without_resource().insert(ras.to_owned());
                Ok(token)
            }
            Err(error @ (Error::RefusedByPolicy { .. } | Error::AccessEnded(_))) => Err(error),
            Err(_) => Err(refused),
        }
    }

    /// Whether redemptions at an authorization server contain `resource`.
    pub(crate) fn sends_resource(&self, ras: &str) -> bool {
        !self.without_resource().contains(ras)
    }

    fn without_resource(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.without_resource.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Obtains an ID-JAG for `server`: with the refresh token, or else with the ID token. Only if
    /// neither works does the person have to sign in again (ID-JAG draft section 4.3.4).
    pub async fn id_jag(
        &self,
        server: &McpServer,
        scopes: Option<&Scopes>,
    ) -> Result<IdJagView, Error> {
        match self.id_jag_of_sign_in(server, scopes).await {
            Err(error) => Err(self.unless_unenrolled(error).await),
            id_jag => id_jag,
        }
    }

    async fn id_jag_of_sign_in(
        &self,
        server: &McpServer,
        scopes: Option<&Scopes>,
    ) -> Result<IdJagView, Error> {
        let ras = &server.authorization_server;
        if !self.may_use_cross_app_access(server) {
            return Err(Error::NotOffered(ras.to_string()));
        }
        // The lock is held during the exchange: the IdP would consider a token stolen that another
        // process rotates meanwhile.
        let lock = self.0.vault.lock().await?;
        let (session, lock) = self.renewed_session(lock).await?;
        let mut is_over = false;
        if let Some(refresh_token) = &session.refresh_token {
            let subject = (SubjectTokenKind::RefreshToken, refresh_token.as_str());
            match self.exchange(server, scopes, subject).await {
                Err(Error::Refused { error, .. })
                    if matches!(error.error.as_str(), "invalid_grant" | "invalid_request") =>
                {
                    is_over = error.error == "invalid_grant";
                }
                outcome => return outcome,
            }
        }
        drop(lock);
        if session.id_token_expires - self.0.clock.now().0 <= MARGIN {
            let over = if is_over { Some(self.sign_in_over(&session).await) } else { None };
            return Err(over.unwrap_or_else(|| self.sign_in_needed()));
        }
        let subject = (SubjectTokenKind::IdToken, session.id_token.as_str());
        match self.exchange(server, scopes, subject).await {
            Err(Error::Refused { error, .. }) if error.error == "invalid_grant" => {
                Err(self.sign_in_over(&session).await)
            }
            outcome => outcome,
        }
    }

    /// Whether cross-app access may be used: the RAS offers it, it was configured manually, or the
    /// RAS is in the company's catalog.
    pub fn may_use_cross_app_access(&self, server: &McpServer) -> bool {
        let ras = server.authorization_server.as_str();
        server.offers_cross_app_access()
            || self.0.settings.ras_clients.contains_key(ras)
            || self.company().contains(ras)
            || self.verdict(&server.resource, ras)
    }

    /// Whether an authorization server is known from another source than an MCP server.
    pub(crate) fn is_known(&self, issuer: &str) -> bool {
        let settings = &self.0.settings;
        settings.idp.as_str() == issuer
            || settings.ras_clients.contains_key(issuer)
            || settings.consent_clients.contains_key(issuer)
            || self.company().contains(issuer)
    }

    pub(crate) fn company(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.company.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Converts a time of the IdP's clock to ours.
    pub(crate) fn in_our_time(&self, time: Timestamp) -> i64 {
        let ahead = self.time_at(self.0.settings.idp.as_str()).since(self.0.clock.now());
        time.0 - ahead
    }

    pub(crate) fn sign_in_needed(&self) -> Error {
        Error::SignInNeeded { issuer: self.0.settings.idp.to_string() }
    }

    /// Requests an ID-JAG from the IdP with one of the sign-in's tokens, and checks the response
    /// (ID-JAG draft section 4.3.4).
    pub async fn exchange(
        &self,
        server: &McpServer,
        scopes: Option<&Scopes>,
        subject: (SubjectTokenKind, &str),
    ) -> Result<IdJagView, Error> {
        let scope = scopes.map(ToString::to_string).unwrap_or_default();
        let subject_token_type = match subject.0 {
            SubjectTokenKind::RefreshToken => TOKEN_TYPE_REFRESH_TOKEN,
            SubjectTokenKind::IdToken => TOKEN_TYPE_ID_TOKEN,
            SubjectTokenKind::AccessToken => TOKEN_TYPE_ACCESS_TOKEN,
        };
        let mut form = vec![
            ("grant_type", GRANT_TOKEN_EXCHANGE),
            ("requested_token_type", TOKEN_TYPE_ID_JAG),
            ("audience", server.authorization_server.as_str()),
            ("resource", server.resource.as_str()),
            ("subject_token_type", subject_token_type),
            ("subject_token", subject.1),
        ];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        // An IdP that is asked for a bound ID-JAG has to bind it: otherwise the binding would be
        // lost here, without anybody noticing (JAG 9.9.1.1).
        let key = self.dpop_key().filter(|_| self.binds(server));
        let key = match key {
            Some(key) if self.proves_to(&self.idp_metadata().await?) => Some(key),
            _ => None,
        };
        let answer = self.ask_idp(Leg::Exchange, &form, key.is_some()).await?;
        let answer: TokenAnswer = parse(Leg::Exchange, &answer)?;
        check_id_jag(server, answer, key.map(SigningKey::kid))
    }

    /// Presents an ID-JAG at the RAS, once, and checks the response.
    pub async fn redeem(
        &self,
        server: &McpServer,
        id_jag: &IdJagView,
        scopes: Option<&Scopes>,
    ) -> Result<AccessToken, Error> {
        let with_resource = self.sends_resource(server.authorization_server.as_str());
        self.redeem_once(server, id_jag, scopes, with_resource).await
    }

    async fn redeem_once(
        &self,
        server: &McpServer,
        id_jag: &IdJagView,
        scopes: Option<&Scopes>,
        with_resource: bool,
    ) -> Result<AccessToken, Error> {
        let ras = &server.authorization_server;
        let registration = self.registration_for(ras, id_jag)?;
        // Scopes that the ID-JAG does not contain cannot be regained by asking.
        let wanted = match (scopes, &id_jag.scopes) {
            (Some(wanted), Some(carried)) => Some(wanted.intersection(carried)),
            _ => None,
        };
        let scope = wanted.map(|s| s.to_string()).unwrap_or_default();
        let mut form =
            vec![("grant_type", GRANT_JWT_BEARER), ("assertion", id_jag.assertion.expose())];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        if with_resource {
            form.push(("resource", server.resource.as_str()));
        }
        let proves = self.binds(server);
        let metadata = &server.metadata;
        let answer = self.ask(Leg::Redeem, ras, metadata, registration, &form, proves).await?;
        let answer: TokenAnswer = parse(Leg::Redeem, &answer)?;
        let bad = |what: String| Error::BadAnswer { leg: Leg::Redeem, what };
        let dpop_jkt = self.binding(&answer.token_type, proves).map_err(bad)?;
        if let Some(returned) = &answer.resource
            && !is_only(returned, &server.resource)
        {
            return Err(bad("resource of the answer is not the one asked for".to_owned()));
        }
        let scopes = match (&answer.scope, &id_jag.scopes) {
            (Some(text), _) => {
                Scopes::parse(text).ok_or_else(|| bad("scope is malformed".to_owned()))?
            }
            (None, carried) => carried.clone().unwrap_or_default(),
        };
        let lifetime = answer.expires_in.unwrap_or(60).clamp(0, 86_400);
        let expires = self.0.clock.now().plus(lifetime);
        let token = AccessToken::new(Secret::new(answer.access_token), scopes, expires);
        Ok(token.bound_to(dpop_jkt))
    }

    /// The key that a token is bound to, by the `token_type` of the answer. A bearer token for a
    /// request with a proof would be a downgrade.
    pub(crate) fn binding(&self, token_type: &str, proved: bool) -> Result<Option<String>, String> {
        let expected = if proved { "DPoP" } else { "Bearer" };
        if !token_type.eq_ignore_ascii_case(expected) {
            return Err(format!("token_type is `{}`, not {expected}", shown(token_type, 50)));
        }
        Ok(self.dpop_key().filter(|_| proved).map(|key| key.kid().to_owned()))
    }

    /// The registration of this client that an ID-JAG is for, as its `client_id` claim says.
    fn registration_for(&self, ras: &Issuer, id_jag: &IdJagView) -> Result<&Registration, Error> {
        let settings = &self.0.settings;
        let claimed = id_jag.claims.optional_str("client_id").ok().flatten().unwrap_or_default();
        let own = Some(&settings.idp_client).filter(|own| own.is_document());
        if let Some(own) = own.filter(|own| own.client_id == claimed) {
            return Ok(own);
        }
        match settings.ras_clients.get(ras.as_str()) {
            Some(known) if claimed.is_empty() || known.client_id == claimed => Ok(known),
            Some(known) => Err(Error::ClientMismatch {
                issuer: ras.to_string(),
                claimed: claimed.to_owned(),
                registered: known.client_id.clone(),
            }),
            None => Err(Error::NoRegistration {
                issuer: ras.to_string(),
                client_id: claimed.to_owned(),
            }),
        }
    }

    /// Sends a form to the IdP's token endpoint.
    pub(crate) async fn ask_idp(
        &self,
        leg: Leg,
        form: &[(&str, &str)],
        proves: bool,
    ) -> Result<Answer, Error> {
        let settings = &self.0.settings;
        let metadata = self.idp_metadata().await?;
        self.ask(leg, &settings.idp, &metadata, &settings.idp_client, form, proves).await
    }

    /// The IdP's metadata. If a token endpoint is configured, only that.
    pub(crate) async fn idp_metadata(&self) -> Result<Discovered, Error> {
        let settings = &self.0.settings;
        if let Some(endpoint) = &settings.idp_token_endpoint {
            let metadata = serde_json::from_value(serde_json::json!({
                "issuer": settings.idp, "token_endpoint": endpoint,
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            }));
            let metadata = metadata.map_err(|e| Error::Discovery(e.to_string()))?;
            return Ok(Discovered::configured(metadata, Reach::of_trusted_url(endpoint)));
        }
        let now = self.0.clock.now();
        let held = self.0.idp_metadata.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, metadata)) = held.filter(|(at, _)| now.since(*at) < METADATA_FRESH) {
            return Ok(metadata);
        }
        let found =
            passavant_outbound::discover_authorization_server(&self.0.outbound, &settings.idp)
                .await?;
        *self.0.idp_metadata.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((now, found.clone()));
        Ok(found)
    }

    /// The time at the server of a URL, as far as its responses tell; our own time if that is about
    /// the same.
    pub(crate) fn time_at(&self, url: &str) -> Timestamp {
        // A clock that is days off is a mistake somewhere: it is reported, not followed.
        let skew = self.0.outbound.skew_of(url);
        let skew = skew.filter(|skew| (NOTABLE_SKEW + 1..=86_400).contains(&skew.abs()));
        self.0.clock.now().plus(skew.unwrap_or(0))
    }

    /// A warning about the clocks that differ notably from this computer's.
    pub fn clock_warning(&self) -> Option<String> {
        let (origin, ahead) = self.0.outbound.notable_skew()?;
        let (seconds, how) = (ahead.abs(), if ahead < 0 { "ahead of" } else { "behind" });
        Some(format!(
            "the clock of this computer is {seconds} s {how} that of {origin}\nhint: set it right; until then tokens may \
             be refused as expired, or as not valid yet"
        ))
    }

    /// Sends a form to the token endpoint of `party`, authenticated as `registration`, and with a
    /// DPoP proof if it `proves`.
    pub(crate) async fn ask(
        &self,
        leg: Leg,
        party: &Issuer,
        metadata: &Discovered,
        registration: &Registration,
        form: &[(&str, &str)],
        proves: bool,
    ) -> Result<Answer, Error> {
        let endpoint = &metadata.token_endpoint;
        let mut answer =
            self.send_proving(endpoint, party, metadata, registration, form, proves).await?;
        if proves && matches!(answer.status, 400 | 401) {
            let is_new = self.take_nonce(endpoint, &answer.headers);
            if is_new && OAuthError::of(&answer).error == "use_dpop_nonce" {
                // Once; the client assertion is a new one as well (RFC 9449 section 8).
                answer = self
                    .send_proving(endpoint, party, metadata, registration, form, proves)
                    .await?;
            }
        }
        if proves {
            self.take_nonce(endpoint, &answer.headers);
        }
        if answer.status == 200 {
            return Ok(answer);
        }
        let party = party.to_string();
        if answer.status == 429 {
            let told = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
            let seconds = told.and_then(|text| text.trim().parse().ok()).unwrap_or(60);
            return Err(Error::TooMany { party, seconds });
        }
        let error = OAuthError::of(&answer);
        Err(match (leg, error.error.as_str()) {
            (Leg::Exchange, "insufficient_user_authentication") => Error::StepUpNeeded(error),
            // Final at both endpoints: the assertion is valid, and another one will not help. (An
            // issuer that expresses its policy with `invalid_target` or `invalid_scope` means the
            // same at the exchange.)
            (Leg::Exchange | Leg::Redeem, "access_denied")
            | (Leg::Exchange, "invalid_target" | "invalid_scope") => {
                Error::RefusedByPolicy { party, error }
            }
            (Leg::SignIn | Leg::Exchange, "invalid_client")
                if matches!(registration.credential, Credential::Key(_)) =>
            {
                Error::EnrolmentEnded { issuer: party }
            }
            _ => Error::Refused { leg, party, error },
        })
    }

    /// Sends a form to an endpoint of `party` where clients authenticate as at its token endpoint.
    /// Returns the response, whatever it is.
    pub(crate) async fn send(
        &self,
        endpoint: &str,
        party: &Issuer,
        metadata: &Discovered,
        registration: &Registration,
        form: &[(&str, &str)],
    ) -> Result<Answer, Error> {
        self.send_proving(endpoint, party, metadata, registration, form, false).await
    }

    async fn send_proving(
        &self,
        endpoint: &str,
        party: &Issuer,
        metadata: &Discovered,
        registration: &Registration,
        form: &[(&str, &str)],
        proves: bool,
    ) -> Result<Answer, Error> {
        let prove = || if proves { self.proof("POST", endpoint, None) } else { None };
        let reach = metadata.reach_of(endpoint);
        let offers = |method: &str| match &metadata.token_endpoint_auth_methods_supported {
            None => method == "client_secret_basic",
            Some(methods) => methods.iter().any(|m| m == method),
        };
        let id = registration.client_id.as_str();
        let assertion;
        let mut more = vec![("client_id", id)];
        let mut basic = None;
        match &registration.credential {
            Credential::Secret(secret) if offers("client_secret_basic") => {
                more.clear();
                basic = Some((id, secret.expose()));
            }
            Credential::Secret(secret) => more.push(("client_secret", secret.expose())),
            Credential::Key(key) => {
                // In the recipient's time: the clock of this computer may be off, and theirs
                // decides.
                let (jti, now) = (self.0.entropy.id(), self.time_at(endpoint));
                // The audience is the issuer alone (rfc7523bis).
                assertion = Secret::new(client_assertion::sign(key, id, party.as_str(), &jti, now));
                more.push(("client_assertion_type", client_assertion::ASSERTION_TYPE));
                more.push(("client_assertion", assertion.expose()));
            }
            Credential::None => {}
        }
        let complete = [form, &more].concat();
        let (outbound, to) = (&self.0.outbound, (endpoint, reach));
        let mut answer =
            outbound.post_form_proving(to, &complete, basic, prove().as_deref()).await?;
        if let (401, Some((_, secret)), true) = (answer.status, basic, offers("client_secret_post"))
        {
            // Servers that announce both methods may accept only one of them for a client, without
            // saying which (RFC 7591 section 2). Nothing was used up, since the client was not
            // authenticated yet.
            let complete = [form, &[("client_id", id), ("client_secret", secret)]].concat();
            answer = outbound.post_form_proving(to, &complete, None, prove().as_deref()).await?;
        }
        Ok(answer)
    }
}

/// Checks the response to the exchange against the request (ID-JAG draft section 4.3.4). `key` is the
/// thumbprint of the key that a proof was sent of.
fn check_id_jag(
    server: &McpServer,
    answer: TokenAnswer,
    key: Option<&str>,
) -> Result<IdJagView, Error> {
    let bad = |what: String| Error::BadAnswer { leg: Leg::Exchange, what };
    if answer.issued_token_type.as_deref() != Some(TOKEN_TYPE_ID_JAG) {
        return Err(bad(format!("issued_token_type is not {TOKEN_TYPE_ID_JAG}")));
    }
    if !answer.token_type.eq_ignore_ascii_case("n_a") {
        return Err(bad("token_type is not N_A".to_owned()));
    }
    let (header, claims) =
        jws::peek(&answer.access_token).map_err(|e| bad(format!("the ID-JAG: {e}")))?;
    let typ = header.optional_str("typ").ok().flatten().unwrap_or_default();
    if !typ.eq_ignore_ascii_case(passavant_proto::xaa::id_jag::TYPE) {
        return Err(bad(format!("the ID-JAG's typ is `{typ}`")));
    }
    if claims.required_single_audience().ok() != Some(server.authorization_server.as_str()) {
        return Err(bad(format!("the ID-JAG's aud is not {} alone", server.authorization_server)));
    }
    let bound = claims.value("cnf").and_then(|cnf| cnf.get("jkt")).and_then(|jkt| jkt.as_str());
    if key.is_some() && bound != key {
        let what = "the ID-JAG is not bound to the key whose DPoP proof was sent (cnf.jkt)";
        return Err(bad(what.to_owned()));
    }
    let claimed = claims.optional_strings("resource").map_err(|e| bad(e.to_string()))?;
    let claimed = claimed.unwrap_or_default();
    let asked = [&server.resource];
    if claimed.is_empty() || !is_subset(&claimed, &asked) {
        return Err(bad(format!(
            "the ID-JAG's resource is not {}; found: {}",
            server.resource,
            claimed.join(" ")
        )));
    }
    if let Some(returned) = &answer.resource
        && texts(returned) != claimed
    {
        return Err(bad("resource of the answer and of the ID-JAG differ".to_owned()));
    }
    let scopes = match claims.optional_str("scope").map_err(|e| bad(e.to_string()))? {
        None => None,
        Some(text) => {
            Some(Scopes::parse(text).ok_or_else(|| bad("scope is malformed".to_owned()))?)
        }
    };
    Ok(IdJagView { assertion: Secret::new(answer.access_token), claims, scopes })
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(leg: Leg, answer: &Answer) -> Result<T, Error> {
    answer.json().map_err(|e| Error::BadAnswer { leg, what: format!("not a token answer: {e}") })
}

fn texts(value: &OneOrMany) -> Vec<&str> {
    match value {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many.iter().map(String::as_str).collect(),
    }
}

/// Whether `resource` in a response is this resource and no other.
pub(crate) fn is_only(returned: &OneOrMany, asked: &Resource) -> bool {
    !texts(returned).is_empty() && is_subset(&texts(returned), &[asked])
}

/// Whether every string names one of `asked`, none twice.
fn is_subset(texts: &[&str], asked: &[&Resource]) -> bool {
    let parsed: Option<Vec<Resource>> =
        texts.iter().map(|text| Resource::parse(text).ok()).collect();
    parsed.is_some_and(|list| {
        list.iter().enumerate().all(|(i, r)| asked.contains(&r) && !list[..i].contains(r))
    })
}
