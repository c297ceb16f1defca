//! Enrolment: this installation's own key becomes a client of the IdP, for the person who signs in.
//! No secret is copied, and no other authorization server has to be configured.

use crate::{
    code_flow::{Ask, CodeFlow, Loopback, Pasted, WaitingTab},
    device_flow::{self, DeviceFlow, Prompt},
    error::{Error, Leg},
    sign_in::SignInOptions,
};
use passavant_outbound::{
    Answer, Discovered, OAuthError, Outbound, authorization_endpoint, discover_authorization_server,
};
use passavant_proto::{
    identifier::Issuer, jose::jwk::SigningKey, oauth::authorize::SCOPE_ENROL,
    oauth::client_document::DocumentUrl, secret::Secret, time::Entropy,
};
use serde::Deserialize;
use serde_json::json;

/// An enrolment that waits for the browser.
pub struct PendingEnrolment {
    endpoints: EnrolmentEndpoints,
    flow: CodeFlow,
}

/// An enrolled installation: its client id at the IdP, and the browser tab that is ready for the
/// sign-in.
pub struct Enrolled {
    /// The URL of its metadata document, which is its client id.
    pub client_id: String,
    /// The listener.
    pub loopback: Loopback,
    /// The tab.
    pub tab: WaitingTab,
}

#[derive(Deserialize)]
struct EnrolmentToken {
    access_token: String,
}

#[derive(Deserialize)]
struct Document {
    client_id: String,
}

/// Starts an enrolment at `issuer`. `None` if that offers no enrolment (another vendor's IdP, or
/// disabled), so that a registered client is needed.
pub async fn begin_enrolment(
    outbound: &Outbound,
    issuer: &Issuer,
    entropy: &Entropy,
    options: &SignInOptions,
) -> Result<Option<PendingEnrolment>, Error> {
    let Some(endpoints) = EnrolmentEndpoints::of(outbound, issuer).await? else { return Ok(None) };
    let loopback = Loopback::listen(options.port).await?;
    let mut more = Vec::new();
    if let Some(hint) = &options.login_hint {
        more.push(("login_hint", hint.as_str()));
    }
    let ask = Ask {
        endpoint: &authorization_endpoint(&endpoints.metadata)?,
        issuer: issuer.as_str(),
        answers_with_issuer: endpoints.metadata.authorization_response_iss_parameter_supported,
        client_id: &endpoints.client_id,
        scope: SCOPE_ENROL,
        more: &more,
    };
    let flow = CodeFlow::begin(loopback, entropy, &ask);
    Ok(Some(PendingEnrolment { endpoints, flow }))
}

/// Enrols with a browser on another device (RFC 8628); `tell` shows the person the page to open and
/// the code to type. Returns the client id of the new installation, or `None` if `issuer` offers no
/// enrolment.
pub async fn enrol_by_device(
    outbound: &Outbound,
    issuer: &Issuer,
    key: &SigningKey,
    device: &str,
    tell: impl FnOnce(&Prompt) + Send,
) -> Result<Option<String>, Error> {
    let Some(endpoints) = EnrolmentEndpoints::of(outbound, issuer).await? else { return Ok(None) };
    let endpoint = device_flow::endpoint(&endpoints.metadata)?;
    let answer = endpoints.send(endpoint, &[("scope", SCOPE_ENROL)]).await?;
    let flow = DeviceFlow::begin(&endpoints.metadata, Leg::Enrol, &answer)?;
    tell(&flow.prompt);
    let ask = async |form: [(&'static str, Secret); 2]| {
        let form = form.each_ref().map(|(name, value)| (*name, value.expose()));
        endpoints.send(&endpoints.metadata.token_endpoint, &form).await
    };
    let answer = flow.wait(Leg::Enrol, issuer.as_str(), ask).await?;
    endpoints.register(&answer, key, device).await.map(Some)
}

impl PendingEnrolment {
    /// The URL for the browser.
    pub fn url(&self) -> &str {
        &self.flow.url
    }

    /// Waits for the person, and enrols `key` as an installation on `device`.
    pub async fn finish(
        self,
        key: &SigningKey,
        device: &str,
        pasted: Option<&mut Pasted>,
    ) -> Result<Enrolled, Error> {
        let (code, tab) = self.flow.answer(pasted).await?;
        match self.enrol(code.expose(), key, device).await {
            Ok(client_id) => Ok(Enrolled { client_id, loopback: self.flow.into_loopback(), tab }),
            Err(error) => {
                tab.failed().await;
                Err(error)
            }
        }
    }

    async fn enrol(&self, code: &str, key: &SigningKey, device: &str) -> Result<String, Error> {
        let redirect_uri = self.flow.redirect_uri();
        let form = self.flow.redemption(code, &redirect_uri);
        let endpoints = &self.endpoints;
        let answer = endpoints.send(&endpoints.metadata.token_endpoint, &form).await?;
        endpoints.register(&answer, key, device).await
    }
}

/// The endpoints for enrolment, and the client to use there.
struct EnrolmentEndpoints {
    outbound: Outbound,
    issuer: Issuer,
    metadata: Discovered,
    installations: String,
    client_id: String,
}

impl EnrolmentEndpoints {
    /// `None` if enrolment is not offered.
    async fn of(outbound: &Outbound, issuer: &Issuer) -> Result<Option<Self>, Error> {
        let metadata = discover_authorization_server(outbound, issuer).await?;
        let (Some(installations), Some(client_id)) = (
            metadata.passavant_installations_endpoint.clone(),
            metadata.passavant_enrolment_client_id.clone(),
        ) else {
            return Ok(None);
        };
        let (outbound, issuer) = (outbound.clone(), issuer.clone());
        Ok(Some(Self { outbound, issuer, metadata, installations, client_id }))
    }

    /// Sends a form as the enrolling client.
    async fn send(&self, endpoint: &str, form: &[(&str, &str)]) -> Result<Answer, Error> {
        let form = [form, &[("client_id", self.client_id.as_str())]].concat();
        let reach = self.metadata.reach_of(endpoint);
        Ok(self.outbound.post_form(endpoint, reach, &form, None).await?)
    }

    /// Enrols `key` with the response of the token endpoint.
    async fn register(
        &self,
        answer: &Answer,
        key: &SigningKey,
        device: &str,
    ) -> Result<String, Error> {
        let refused = |answer: &Answer| {
            let error = OAuthError::of(answer);
            Error::Refused { leg: Leg::Enrol, party: self.issuer.to_string(), error }
        };
        if answer.status != 200 {
            return Err(refused(answer));
        }
        let bad = |what: String| Error::BadAnswer { leg: Leg::Enrol, what };
        let token: EnrolmentToken = answer.json().map_err(|e| bad(e.to_string()))?;
        let body = json!({"client_name": device, "jwks": {"keys": [key.public_jwk()]}});
        let bearer = Some(token.access_token.as_str());
        let installations = &self.installations;
        let reach = self.metadata.reach_of(installations);
        let answer = self.outbound.json("POST", installations, reach, bearer, Some(&body)).await?;
        if answer.status != 201 {
            return Err(refused(&answer));
        }
        let document: Document = answer.json().map_err(|e| bad(e.to_string()))?;
        // The id is the URL where this IdP publishes the key. With another origin we would become a
        // client of somebody else.
        match DocumentUrl::parse(&document.client_id) {
            Ok(url) if url.origin() == self.issuer.origin() => Ok(document.client_id),
            _ => Err(bad(format!(
                "the client id `{}` is not a URL at {}",
                document.client_id,
                self.issuer.origin()
            ))),
        }
    }
}
