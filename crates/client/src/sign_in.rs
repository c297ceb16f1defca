//! Sign-in in the browser, and the ID token it brings.

use crate::{
    client::Client,
    code_flow::{Ask, CodeFlow, Loopback, Pasted, WaitingTab},
    device_flow::{self, DeviceFlow, Prompt},
    error::{Error, Leg},
    vault::Session,
};
use passavant_outbound::{Answer, KeySource, Reach, RemoteKeys, authorization_endpoint};
use passavant_proto::{
    jose::jwk::Algorithm,
    oidc::id_token::{self, SignIn, SignedIn},
    secret::Secret,
};
use serde::Deserialize;

/// How to sign in.
#[derive(Clone, Debug, Default)]
pub struct SignInOptions {
    /// Port of the loopback listener; 0 means any free port.
    pub port: u16,
    /// User name to prefill.
    pub login_hint: Option<String>,
    /// Require a new sign-in even if the browser has a session.
    pub fresh: bool,
    /// Authentication context classes, separated by spaces, one of which the sign-in has to reach
    /// (RFC 9470).
    pub acr_values: Option<String>,
}

/// A sign-in that waits for the browser.
pub struct PendingSignIn {
    client: Client,
    flow: CodeFlow,
}

#[derive(Deserialize)]
struct CodeAnswer {
    access_token: String,
    id_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default, deserialize_with = "crate::obtain::lifetime")]
    expires_in: Option<i64>,
}

impl Client {
    /// Starts a sign-in: opens the listener, and makes the URL that the browser has to open.
    pub async fn begin_sign_in(&self, options: &SignInOptions) -> Result<PendingSignIn, Error> {
        let loopback = Loopback::listen(options.port).await?;
        self.sign_in_on(loopback, options).await
    }

    /// Like [`Self::begin_sign_in`], in the browser tab of an enrolment: the person need not do
    /// anything more.
    pub async fn go_on_to_sign_in(
        &self,
        loopback: Loopback,
        tab: WaitingTab,
        options: &SignInOptions,
    ) -> Result<PendingSignIn, Error> {
        match self.sign_in_on(loopback, options).await {
            Ok(pending) => {
                tab.go_on(pending.url()).await;
                Ok(pending)
            }
            Err(error) => {
                tab.failed().await;
                Err(error)
            }
        }
    }

    async fn sign_in_on(
        &self,
        loopback: Loopback,
        options: &SignInOptions,
    ) -> Result<PendingSignIn, Error> {
        let metadata = self.idp_metadata().await?;
        let mut more = Vec::new();
        if let Some(hint) = &options.login_hint {
            more.push(("login_hint", hint.as_str()));
        }
        if let Some(classes) = &options.acr_values {
            more.push(("acr_values", classes.as_str()));
        }
        if options.fresh {
            more.push(("prompt", "login"));
        }
        let ask = Ask {
            endpoint: &authorization_endpoint(&metadata)?,
            issuer: self.settings().idp.as_str(),
            answers_with_issuer: metadata.authorization_response_iss_parameter_supported,
            client_id: &self.settings().idp_client.client_id,
            scope: "openid profile email offline_access",
            more: &more,
        };
        let flow = CodeFlow::begin(loopback, &self.0.entropy, &ask);
        Ok(PendingSignIn { client: self.clone(), flow })
    }

    /// Verifies an ID token with the IdP's published keys.
    pub(crate) async fn verify_id_token(
        &self,
        token: &str,
        nonce: Option<&str>,
        access_token: Option<&str>,
    ) -> Result<SignedIn, Error> {
        let idp = &self.settings().idp;
        let metadata = self.idp_metadata().await?;
        let refused = |error| Error::IdToken { issuer: idp.to_string(), error };
        let (header, _) = passavant_proto::jose::jws::peek(token).map_err(refused)?;
        let named = header.optional_str("alg").ok().flatten();
        // The IdP's metadata announce the algorithm; the token may only agree.
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|a| {
                named == Some(a.name())
                    && metadata.id_token_signing_alg_values_supported.iter().any(|m| m == a.name())
            })
            .ok_or(refused(passavant_proto::jose::jws::JwtError::Algorithm(Algorithm::ES256)))?;
        let keys = RemoteKeys::new(self.0.outbound.clone(), self.0.clock.clone());
        let source = KeySource {
            owner: idp.to_string(),
            reach: metadata.jwks_uri.as_deref().map_or(Reach::Public, |uri| metadata.reach_of(uri)),
            jwks_uri: metadata.jwks_uri.clone(),
            algorithm,
        };
        let kid = header.optional_str("kid").ok().flatten();
        let keys = keys.keys(&source, kid).await.map_err(|e| Error::Discovery(e.to_string()))?;
        let client = &self.settings().idp_client.client_id;
        let expected = SignIn { issuer: idp, other_spelling: None, client, nonce, access_token };
        let now = self.time_at(idp.as_str());
        id_token::verify_sign_in(token, &keys, expected, now).map_err(refused)
    }
}

impl PendingSignIn {
    /// The URL for the browser.
    pub fn url(&self) -> &str {
        &self.flow.url
    }

    /// Waits for the browser to return (five minutes at most), redeems the code, verifies the ID
    /// token and stores the sign-in.
    pub async fn finish(self) -> Result<Session, Error> {
        self.finish_with(None).await
    }

    /// Like [`Self::finish`], but the person may also paste the URL at which their browser ended.
    pub async fn finish_with(self, pasted: Option<&mut Pasted>) -> Result<Session, Error> {
        let (code, tab) = self.flow.answer(pasted).await?;
        tab.ends(self.redeem(code.expose()).await).await
    }

    async fn redeem(&self, code: &str) -> Result<Session, Error> {
        let redirect_uri = self.flow.redirect_uri();
        let form = self.flow.redemption(code, &redirect_uri);
        let answer = self.client.ask_idp(Leg::SignIn, &form, false).await?;
        self.client.keep_sign_in(&answer, Some(&self.flow.nonce)).await
    }
}

impl Client {
    /// Signs in with a browser on another device (RFC 8628); `tell` shows the person the page to
    /// open and the code to type. Waits until the person has answered or the code has expired.
    pub async fn sign_in_by_device(
        &self,
        tell: impl FnOnce(&Prompt) + Send,
    ) -> Result<Session, Error> {
        let metadata = self.idp_metadata().await?;
        let (idp, own) = (&self.settings().idp, &self.settings().idp_client);
        let form = [("scope", "openid profile email offline_access")];
        let endpoint = device_flow::endpoint(&metadata)?;
        let answer = self.send(endpoint, idp, &metadata, own, &form).await?;
        let flow = DeviceFlow::begin(&metadata, Leg::SignIn, &answer)?;
        tell(&flow.prompt);
        let endpoint = metadata.token_endpoint.as_str();
        let metadata = &metadata;
        let ask = async |form: [(&'static str, Secret); 2]| {
            let form = form.each_ref().map(|(name, value)| (*name, value.expose()));
            self.send(endpoint, idp, metadata, own, &form).await
        };
        let answer = flow.wait(Leg::SignIn, idp.as_str(), ask).await?;
        self.keep_sign_in(&answer, None).await
    }

    /// Verifies the tokens of a sign-in, and stores them.
    async fn keep_sign_in(&self, answer: &Answer, nonce: Option<&str>) -> Result<Session, Error> {
        let answer: CodeAnswer = answer.json().map_err(|e| Error::BadAnswer {
            leg: Leg::SignIn,
            what: format!("not a token answer with an ID token: {e}"),
        })?;
        let access_token = Some(answer.access_token.as_str());
        let signed_in = self.verify_id_token(&answer.id_token, nonce, access_token).await?;
        let now = self.0.clock.now().0;
        let session = Session {
            issuer: self.settings().idp.to_string(),
            idp_client_id: self.settings().idp_client.client_id.clone(),
            name: signed_in.name,
            id_token: answer.id_token,
            id_token_expires: self.in_our_time(signed_in.expires),
            refresh_token: answer.refresh_token,
            renewed_at: now,
            access_token_expires: now + answer.expires_in.unwrap_or(0).clamp(0, 3600),
            access_token: Some(answer.access_token),
            ended: None,
        };
        let vault = &self.0.vault;
        let _lock = vault.lock().await?;
        // Scopes of an earlier sign-in do not carry over to this one; consents do, if the person is
        // the same.
        let before = vault.load().await?.and_then(|before| match before.ended {
            Some(ended) => ended.subject,
            None => subject_of(&before.id_token),
        });
        if before.is_some() && before == subject_of(&session.id_token) {
            self.forget_granted().await?;
        } else {
            self.forget_everything().await?;
        }
        vault.store(Some(&session)).await?;
        Ok(session)
    }
}

/// Issuer and subject of an ID token that was verified when it was received.
pub(crate) fn subject_of(id_token: &str) -> Option<(String, String)> {
    let (_, claims) = passavant_proto::jose::jws::peek(id_token).ok()?;
    let text = |name| claims.optional_str(name).ok().flatten().map(str::to_owned);
    Some((text("iss")?, text("sub")?))
}
