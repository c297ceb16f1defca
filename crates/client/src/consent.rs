//! The ordinary MCP authorization flow, for servers without cross-app access: the person consents
//! once, in the browser, at the server's own authorization server. It is outside of the company's
//! control, and shown as such. A refusal by policy never leads here.

use crate::{
    client::{AccessToken, Client},
    code_flow::{Ask, CodeFlow, Loopback},
    discovery::McpServer,
    error::{Error, Leg},
    obtain::is_only,
    settings::{Credential, Registration},
    sign_in::SignInOptions,
    vault::{Access, Consent},
};
use passavant_outbound::{OAuthError, Reach, authorization_endpoint};
use passavant_proto::{
    identifier::Issuer,
    oauth::client_document::CONSENT_PATH,
    oauth::scope::Scopes,
    secret::{Secret, sha256},
    xaa::id_jag::OneOrMany,
};
use serde::Deserialize;
use serde_json::json;

/// A request for consent that waits for the browser.
pub struct PendingConsent {
    client: Client,
    server: McpServer,
    registration: Registration,
    scopes: Option<Scopes>,
    flow: CodeFlow,
}

#[derive(Deserialize)]
struct Registered {
    client_id: String,
    #[serde(default)]
    client_secret: Option<String>,
}

#[derive(Deserialize)]
struct ConsentAnswer {
    access_token: String,
    token_type: String,
    #[serde(default, deserialize_with = "crate::obtain::lifetime")]
    expires_in: Option<i64>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    resource: Option<OneOrMany>,
}

impl Client {
    /// Starts asking the person to consent to `server` with `scopes`, or with those that the server
    /// asks for. It fails if cross-app access is available: there the company decides.
    pub async fn begin_consent(
        &self,
        server: &McpServer,
        scopes: Option<Scopes>,
        options: &SignInOptions,
    ) -> Result<PendingConsent, Error> {
        let issuer = server.authorization_server.as_str();
        if self.may_use_cross_app_access(server)
            || self.company_decides(&server.resource, issuer).await?
        {
            return Err(Error::Discovery(format!(
                "access to {} is decided by the company's policy; your own consent cannot replace \
                 it\n\
                 hint: ask IT",
                server.url
            )));
        }
        if server.authorization_server == self.settings().idp {
            // A token of the company's identity provider must not be sent to an MCP server.
            return Err(Error::Discovery(format!(
                "{} names the company's identity provider as its authorization server; it has to have \
                 one of its own",
                server.url
            )));
        }
        let metadata = &server.metadata;
        let endpoint = authorization_endpoint(metadata)?;
        self.check_endpoint(server, &endpoint).await?;
        let mut loopback = match self.settings().consent_callbacks.get(issuer) {
            Some(callback) => Loopback::listen_at(callback).await?,
            None => Loopback::listen(options.port).await?,
        };
        let registration = self.registration_at(server, &mut loopback).await?;
        let scopes = scopes.or_else(|| server.scopes.clone());
        // Scopes of the person's own sign-in are not scopes of an MCP server (MCP, scope
        // selection).
        let scopes = scopes.map(|scopes| {
            let for_sign_in = |scope: &&str| !matches!(*scope, "openid" | "offline_access");
            scopes.iter().filter(for_sign_in).collect::<Scopes>()
        });
        let mut scope = scopes.as_ref().map(ToString::to_string).unwrap_or_default();
        if metadata.scopes_supported.iter().any(|s| s == "offline_access") {
            // The server's own scopes never contain it; it is needed for a refresh token.
            scope.push_str(if scope.is_empty() { "offline_access" } else { " offline_access" });
        }
        let issuer = server.authorization_server.as_str();
        let ask = Ask {
            endpoint: &endpoint,
            issuer,
            answers_with_issuer: metadata.authorization_response_iss_parameter_supported,
            client_id: &registration.client_id,
            scope: &scope,
            more: &[("resource", server.resource.as_str())],
        };
        let flow = CodeFlow::begin(loopback, &self.0.entropy, &ask);
        Ok(PendingConsent {
            client: self.clone(),
            server: server.clone(),
            registration,
            scopes,
            flow,
        })
    }

    /// Rejects an authorization endpoint that belongs to another authorization server (RFC 9700
    /// 4.4): that server's code would be sent to this one's token endpoint.
    async fn check_endpoint(&self, server: &McpServer, endpoint: &str) -> Result<(), Error> {
        let issuer = &server.authorization_server;
        let place = |url: &str| url.split(['?', '#']).next().unwrap_or_default().to_owned();
        let foreign = |whose: &str| {
            Error::Discovery(format!(
                "{issuer} gives the sign-in page of {whose} as its authorization_endpoint, but its \
                 own token_endpoint; nothing was sent\n\
                 hint: tell the operator of {}: the authorization_endpoint of its authorization \
                 server is not its own",
                server.url
            ))
        };
        let idp = &self.settings().idp;
        let own_origin = passavant_outbound::origin_of(issuer.as_str());
        let idp_origin = passavant_outbound::origin_of(idp.as_str());
        let known = self.idp_metadata().await.ok();
        let known = known.as_ref().and_then(|known| known.authorization_endpoint.as_deref());
        let at_idp =
            passavant_outbound::origin_of(endpoint) == idp_origin && own_origin != idp_origin;
        if at_idp || known.is_some_and(|known| place(known) == place(endpoint)) {
            return Err(foreign("the company's identity provider"));
        }
        for access in self.consents().await? {
            let other = access
                .consent
                .as_ref()
                .and_then(|consent| consent.authorization_endpoint.as_deref());
            if access.authorization_server != issuer.as_str()
                && other.is_some_and(|other| place(other) == place(endpoint))
            {
                return Err(foreign(&access.authorization_server));
            }
        }
        Ok(())
    }

    /// The client to use there, in the order that MCP defines: one that was registered manually,
    /// the metadata document of this installation or program, or one that is registered now (RFC
    /// 7591).
    async fn registration_at(
        &self,
        server: &McpServer,
        loopback: &mut Loopback,
    ) -> Result<Registration, Error> {
        let settings = self.settings();
        let issuer = server.authorization_server.as_str();
        if let Some(known) = settings.consent_clients.get(issuer) {
            // Registered manually, with the path that every sign-in uses.
            return Ok(known.clone());
        }
        // Never the path of the person's own sign-in, because the path of a response tells which
        // issuer it is from.
        loopback.set_path(CONSENT_PATH);
        if server.metadata.client_id_metadata_document_supported {
            let own = Some(&settings.idp_client).filter(|own| own.is_document());
            // Others cannot fetch a document from this machine.
            if let Some(own) = own.filter(|own| own.client_id.starts_with("https://")) {
                return Ok(own.clone());
            }
            if let Some(document) = &settings.client_document {
                return Ok(Registration::public(document.clone()));
            }
        }
        let Some(endpoint) = &server.metadata.registration_endpoint else {
            return Err(Error::NoClient(issuer.to_owned()));
        };
        // Registered now, so it can have a path for this issuer alone.
        loopback.set_path(&format!("{CONSENT_PATH}/{}", &sha256(issuer.as_bytes())[..16]));
        let redirect_uri = loopback.redirect_uri();
        let offered = server.metadata.token_endpoint_auth_methods_supported.as_deref();
        let methods = ["none", "client_secret_basic", "client_secret_post"];
        let method = methods
            .into_iter()
            .find(|method| offered.is_none_or(|list| list.iter().any(|held| held == method)))
            .unwrap_or("none");
        let body = json!({
            "client_name": "Passavant",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
            "application_type": "native",
        });
        let answer = self
            .outbound()
            .json("POST", endpoint, server.metadata.reach_of(endpoint), None, Some(&body))
            .await?;
        if !matches!(answer.status, 200 | 201) {
            let error = OAuthError::of(&answer);
            return Err(Error::Refused { leg: Leg::Consent, party: issuer.to_owned(), error });
        }
        let registered: Registered = answer
            .json()
            .map_err(|e| Error::BadAnswer { leg: Leg::Consent, what: e.to_string() })?;
        Ok(match registered.client_secret {
            Some(secret) => Registration::with_secret(registered.client_id, Secret::new(secret)),
            None => Registration::public(registered.client_id),
        })
    }

    /// Renews a stored consent with its refresh token. If that fails, the person has to be asked.
    pub(crate) async fn renew_consent(
        &self,
        server: &McpServer,
        kept: Option<Access>,
    ) -> Result<Access, Error> {
        let issuer = server.authorization_server.as_str();
        let needed = || Error::ConsentNeeded {
            url: server.url.clone(),
            issuer: issuer.to_owned(),
            scopes: None,
        };
        if kept.is_none() {
            return Err(needed());
        }
        // One process renews; the others find its result, and never use the old refresh token.
        let lock = self.0.vault.lock().await?;
        let before = kept.map(|access| access.token);
        let now = self.0.clock.now().0;
        let held = self.0.vault.load_access(&server.url).await?;
        // A refresh token is sent only to the authorization server that issued it.
        let held = held.filter(|access| access.authorization_server == issuer);
        let Some(access) = held else { return Err(needed()) };
        if before.as_ref() != Some(&access.token) && access.expires > now {
            return Ok(access);
        }
        let Some(consent) = access.consent.clone() else { return Err(needed()) };
        let Some(refresh_token) = consent.refresh_token.clone() else { return Err(needed()) };
        let (client, server) = (self.clone(), server.clone());
        let renewed = self.to_its_end(Leg::Consent, async move {
            let outcome = client.renewed_consent(&server, access, consent, refresh_token).await;
            drop(lock);
            outcome
        });
        match renewed.await? {
            Err(Error::Refused { error, .. }) if error.error == "invalid_grant" => Err(needed()),
            outcome => outcome,
        }
    }

    async fn renewed_consent(
        &self,
        server: &McpServer,
        access: Access,
        consent: Consent,
        refresh_token: String,
    ) -> Result<Access, Error> {
        let registration = self.consenting_client(&consent);
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.as_str()),
            ("resource", server.resource.as_str()),
        ];
        let answer = self.ask_consent(server, &registration, &form).await?;
        let refresh_token = answer.refresh_token.clone().or(Some(refresh_token));
        let token = self.token_of(server, answer, Some(&access.scopes))?;
        self.keep(server, &token, Some(Consent { refresh_token, ..consent })).await
    }

    /// The client that a consent was given to.
    fn consenting_client(&self, consent: &Consent) -> Registration {
        let credential = match (&consent.client_secret, consent.by_key) {
            (Some(secret), _) => Credential::Secret(Secret::new(secret.clone())),
            (None, true) => self.settings().idp_client.credential.clone(),
            (None, false) => Credential::None,
        };
        Registration { client_id: consent.client_id.clone(), credential }
    }

    /// Revokes all consents, as far as their authorization servers can be reached and support
    /// revocation.
    pub(crate) async fn revoke_consents(&self) {
        let Ok(consents) = self.consents().await else { return };
        for access in consents {
            let Some(consent) = &access.consent else { continue };
            let Some(token) = &consent.refresh_token else { continue };
            let Ok(issuer) = Issuer::parse(&access.authorization_server) else { continue };
            let reach = Reach::of_trusted_url(&access.url);
            let found =
                passavant_outbound::authorization_server(self.outbound(), &issuer, reach).await;
            let Ok(metadata) = found else { continue };
            let Some(endpoint) = metadata.revocation_endpoint.clone() else { continue };
            let metadata = metadata.at(endpoint);
            let registration = self.consenting_client(consent);
            let form = [("token", token.as_str()), ("token_type_hint", "refresh_token")];
            let asked =
                self.ask(Leg::Consent, &issuer, &metadata, &registration, &form, false).await;
            if let Err(error) = asked {
                tracing::warn!(%issuer, %error, "a consent was not revoked at its authorization server");
            }
        }
    }

    async fn ask_consent(
        &self,
        server: &McpServer,
        registration: &Registration,
        form: &[(&str, &str)],
    ) -> Result<ConsentAnswer, Error> {
        let (party, metadata) = (&server.authorization_server, &server.metadata);
        let proves = self.binds(server);
        let answer = self.ask(Leg::Consent, party, metadata, registration, form, proves).await?;
        let bad = |what: String| Error::BadAnswer { leg: Leg::Consent, what };
        let answer: ConsentAnswer = answer.json().map_err(|e| bad(e.to_string()))?;
        if let Some(returned) = &answer.resource
            && !is_only(returned, &server.resource)
        {
            return Err(bad("resource of the answer is not the one asked for".to_owned()));
        }
        Ok(answer)
    }

    fn token_of(
        &self,
        server: &McpServer,
        answer: ConsentAnswer,
        asked: Option<&Scopes>,
    ) -> Result<AccessToken, Error> {
        let bad = |what: String| Error::BadAnswer { leg: Leg::Consent, what };
        let dpop_jkt = self.binding(&answer.token_type, self.binds(server)).map_err(bad)?;
        let scopes = match &answer.scope {
            Some(text) => {
                Scopes::parse(text).ok_or_else(|| bad("scope is malformed".to_owned()))?
            }
            // If `scope` is missing, it equals what was requested (RFC 6749 5.1).
            None => asked.cloned().unwrap_or_default(),
        };
        let lifetime = answer.expires_in.unwrap_or(3600).clamp(0, 86_400);
        let expires = self.0.clock.now().plus(lifetime);
        let token = AccessToken::new(Secret::new(answer.access_token), scopes, expires);
        Ok(token.bound_to(dpop_jkt))
    }
}

impl PendingConsent {
    /// The URL for the browser.
    pub fn url(&self) -> &str {
        &self.flow.url
    }

    /// Waits for the person (five minutes at most), redeems the code and stores the result.
    pub async fn finish(self) -> Result<Access, Error> {
        let (code, tab) = self.flow.answer(None).await?;
        tab.ends(self.redeem(code.expose()).await).await
    }

    async fn redeem(&self, code: &str) -> Result<Access, Error> {
        let redirect_uri = self.flow.redirect_uri();
        let form = self.flow.redemption(code, &redirect_uri);
        let form = [&form[..], &[("resource", self.server.resource.as_str())]].concat();
        let answer = self.client.ask_consent(&self.server, &self.registration, &form).await?;
        let client_secret = match &self.registration.credential {
            Credential::Secret(secret) => Some(secret.expose().to_owned()),
            Credential::None | Credential::Key(_) => None,
        };
        let consent = Consent {
            client_id: self.registration.client_id.clone(),
            client_secret,
            authorization_endpoint: self.server.metadata.authorization_endpoint.clone(),
            by_key: matches!(self.registration.credential, Credential::Key(_)),
            refresh_token: answer.refresh_token.clone(),
        };
        let token = self.client.token_of(&self.server, answer, self.scopes.as_ref())?;
        self.client.keep(&self.server, &token, Some(consent)).await
    }
}
