//! The steps that every form endpoint shares: strict form parsing, client authentication, DPoP;
//! then the endpoint's own work; then a `no-store` response, with the outcome recorded. The cost of
//! a refusal is counted where it is recorded, for every route ([`conclude`]).

use crate::{
    admission::{Admission, Sender, Visitor},
    answer::{self, Failure},
    authority::{Authority, Directory, Look, Snapshot},
    client_authentication::{self, AuthenticatedClient},
    origin::origin_of,
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    jose::dpop::DpopProof,
    oauth::client::ENROLLED_CLIENT,
    oauth::form::Form,
    refusal::Refusal,
    xaa::id_jag::OneOrMany,
};
use passavant_store::AuditEvent;
use serde::Serialize;
use std::{future::Future, sync::Arc};

/// How often a request is evaluated if its client's record keeps changing.
const TRIES: u32 = 3;

/// A successful token response (RFC 6749 section 5.1, RFC 8693 section 2.2, ID-JAG draft sections
/// 4.3.4 and 4.4.2).
#[derive(Debug, Serialize)]
pub struct TokenAnswer {
    pub access_token: String,
    pub token_type: &'static str,
    pub expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
}

/// Parameters that must never be in a URL.
const CREDENTIALS: [&str; 9] = [
    "client_secret",
    "client_assertion",
    "assertion",
    "subject_token",
    "actor_token",
    "refresh_token",
    "code",
    "device_code",
    "token",
];

/// An endpoint that clients send forms to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// What it issues is recorded against the records it rests on.
    Token,
    DeviceAuthorization,
    PushedRequest,
    Introspection,
    EndedTokens,
    Revocation,
    GatewayRecords,
}

impl Endpoint {
    /// The name of its requests in the audit trail.
    const fn event(self) -> RequestEvent {
        match self {
            Self::Token => RequestEvent::Token,
            Self::DeviceAuthorization => RequestEvent::DeviceAuthorization,
            Self::PushedRequest => RequestEvent::PushedRequest,
            Self::Introspection => RequestEvent::Introspection,
            Self::EndedTokens => RequestEvent::EndedTokens,
            Self::Revocation => RequestEvent::Revocation,
            Self::GatewayRecords => RequestEvent::GatewayRecords,
        }
    }

    /// How people are read for it.
    const fn look(self) -> Look {
        if matches!(self, Self::Token) { Look::Remembered } else { Look::Now }
    }
}

/// A request to a form endpoint, parsed strictly, with the audit event that it will leave.
pub struct FormRequest {
    pub form: Form,
    pub headers: HeaderMap,
    pub event: AuditEvent,
    address: String,
    endpoint: Endpoint,
}

/// A form request whose client is authenticated.
pub struct ClientRequest<D> {
    pub address: String,
    /// Whose rate its cost is counted against: a client that proves nothing is counted by address.
    pub sender: Sender,
    pub form: Arc<Form>,
    pub client: AuthenticatedClient,
    pub proof: Option<DpopProof>,
    pub snapshot: Arc<Snapshot<D>>,
    pub event: AuditEvent,
}

impl<D> Clone for ClientRequest<D> {
    fn clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            sender: self.sender.clone(),
            form: Arc::clone(&self.form),
            client: self.client.clone(),
            proof: self.proof.clone(),
            snapshot: Arc::clone(&self.snapshot),
            event: self.event.clone(),
        }
    }
}

impl<D: Directory> ClientRequest<D> {
    /// The same request with the current records, if its client still authenticates. Called after
    /// the client's record changed, so that a request that is right by the new record is not
    /// refused.
    pub async fn again(&self, authority: &Authority<D>) -> Result<Self, Failure> {
        let snapshot = authority.fresh().await?;
        let client = self.client.again(authority, &snapshot.directory).await?;
        if client.record().dpop_bound_access_tokens && self.proof.is_none() {
            return Err(Refusal::DpopRequired.into());
        }
        Ok(Self { client, snapshot, ..self.clone() })
    }
}

/// An authorization server's grants.
pub trait Grants: Sync {
    /// The type of its directory.
    type Records: Directory;

    fn authority(&self) -> &Authority<Self::Records>;

    fn admission(&self) -> &Admission;

    /// Dispatches a grant type to its function.
    fn grant(
        &self,
        request: &ClientRequest<Self::Records>,
        event: &mut AuditEvent,
    ) -> impl Future<Output = Result<TokenAnswer, Failure>> + Send;
}

/// The token endpoint: authenticates the client, runs the grant, and responds. If the client's
/// record changed meanwhile, the grant is run again with the new one.
pub async fn token<G: Grants>(grants: &G, request: Request) -> Response<Body> {
    let (authority, admission) = (grants.authority(), grants.admission());
    let url = authority.issuer.endpoint("/token");
    let mut request =
        match client_request(authority, admission, &url, Endpoint::Token, request).await {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let mut event = request.event.clone();
    let (mut tries, mut refused) = (0, None);
    let outcome = loop {
        tries += 1;
        match grants.grant(&request, &mut event).await {
            Err(Failure::ClientChanged) if tries < TRIES => match request.again(authority).await {
                Ok(again) => request = again,
                Err(failure) => break Err(failure),
            },
            // The refusal rests on cached records that another node may have changed, and recording
            // did not check them. If the current records lead to a refusal too, the first one is
            // returned.
            Err(Failure::Refused(refusal)) => {
                let first = refused.take().unwrap_or(refusal);
                let now = match authority.fresh().await {
                    Ok(now) => now,
                    Err(error) => break Err(error.into()),
                };
                if tries >= TRIES || now.generation == request.snapshot.generation {
                    break Err(first.into());
                }
                match request.again(authority).await {
                    Ok(again) => (request, refused) = (again, Some(first)),
                    Err(_) => break Err(first.into()),
                }
            }
            outcome => break outcome,
        }
    };
    match outcome {
        Ok(tokens) => answer::no_store(StatusCode::OK, &tokens),
        Err(failure) => conclude(authority, admission, &request.sender, event, failure).await,
    }
}

/// Steps 1 to 3: parses the form, authenticates the client, checks the DPoP proof. A refusal comes
/// with its event.
pub async fn client_request<D: Directory>(
    authority: &Authority<D>,
    admission: &Admission,
    url: &str,
    endpoint: Endpoint,
    request: Request,
) -> Result<ClientRequest<D>, Response<Body>> {
    let (parts, body) = request.into_parts();
    let (id, address) = origin_of(&parts);
    let event = AuditEvent::granted(endpoint.event(), authority.now()).with(Detail::RequestId, id);
    let form = match read_form(&parts, body).await {
        Ok(form) => form,
        Err(NotForm::Response(response)) => return Err(response),
        Err(NotForm::Refused(refusal)) => {
            let sender = Sender::Unproven(address);
            return Err(conclude(authority, admission, &sender, event, refusal.into()).await);
        }
    };
    let request = FormRequest { form, headers: parts.headers, event, address, endpoint };
    with_client(authority, admission, url, request).await
}

async fn with_client<D: Directory>(
    authority: &Authority<D>,
    admission: &Admission,
    url: &str,
    request: FormRequest,
) -> Result<ClientRequest<D>, Response<Body>> {
    let FormRequest { form, headers, mut event, address, endpoint } = request;
    let unproven = Sender::Unproven(address.clone());
    // A grant is recorded against the generation it rests on. Other endpoints have no such check,
    // so they start with the current directory.
    let mut snapshot = if endpoint.look() == Look::Remembered {
        authority.snapshot()
    } else {
        match authority.fresh().await {
            Ok(snapshot) => snapshot,
            Err(error) => return Err(answer::broken(&error)),
        }
    };
    let presented = client_authentication::presented(&headers, &form);
    if let Ok(presented) = &presented {
        // Record only the id of a client that exists: anything else is text of the sender.
        let known = snapshot.directory.client(presented.client_id()).is_some();
        if known {
            event = event.client(presented.client_id());
        }
    }
    let authenticated = match presented {
        Ok(presented) => {
            let visitor = Visitor { admission, address: &address };
            let snapshot = &mut snapshot;
            let look = endpoint.look();
            client_authentication::authenticate(authority, snapshot, &presented, visitor, look)
                .await
        }
        Err(refusal) => Err(refusal.into()),
    };
    let client = match authenticated {
        Ok(client) => client,
        Err(failure) => {
            return Err(conclude(authority, admission, &unproven, event, failure).await);
        }
    };
    let event = event.client(client.id());
    let redeems = matches!(endpoint, Endpoint::Token | Endpoint::DeviceAuthorization);
    if client.id() == ENROLLED_CLIENT && !redeems {
        // Anyone can claim this client id; it may get and redeem a code, and nothing else.
        let refusal = Refusal::PublicClient.into();
        return Err(conclude(authority, admission, &unproven, event, refusal).await);
    }
    let sender = if client.is_public() { unproven } else { Sender::Proven(client.id().to_owned()) };
    let now = authority.now();
    if let Some(installation) = client.use_to_note(now)
        && let Err(error) = authority.store.installation_used(installation, now).await
    {
        return Err(answer::broken(&error));
    }
    match client_authentication::proof_of_possession(authority, &headers, url).await {
        Ok(proof) => {
            let missing = proof.is_none()
                && client.record().dpop_bound_access_tokens
                && endpoint == Endpoint::Token;
            let form = Arc::new(form);
            let request = ClientRequest { address, sender, form, client, proof, snapshot, event };
            if !missing {
                return Ok(request);
            }
            // Authenticated by a cached record: the client may not be valid any more.
            match request.again(authority).await {
                Ok(again) => Ok(again),
                Err(failure) => {
                    let ClientRequest { sender, event, .. } = request;
                    Err(conclude(authority, admission, &sender, event, failure).await)
                }
            }
        }
        Err(failure) => Err(conclude(authority, admission, &sender, event, failure).await),
    }
}

/// The last step: the response to a failure, with the refusal recorded. A cell is taken before the
/// row is written; without a cell nothing is written.
pub async fn conclude<D: Directory>(
    authority: &Authority<D>,
    admission: &Admission,
    sender: &Sender,
    event: AuditEvent,
    failure: Failure,
) -> Response<Body> {
    match failure {
        Failure::Refused(refusal) => {
            // A failure on our side does not count.
            let counts = refusal.wire().status < 500;
            if counts && let Err(busy) = admission.refusal(sender) {
                return answer::throttled(busy.0);
            }
            let event = sender.noted_in(event.refused(refusal.reason()));
            let event = match &refusal {
                Refusal::Denied(denial) => event.with(Detail::Rule, denial.rule.clone()),
                // The reason alone does not tell which check failed.
                Refusal::ClientAssertion(e)
                | Refusal::DpopProof(e)
                | Refusal::SubjectToken(e)
                | Refusal::IdJag(e) => event.with(Detail::More, e.to_string()),
                Refusal::ClientDocument(why) => event.with(Detail::More, why.to_string()),
                _ => event,
            };
            match authority.store.note(event, authority.now()).await {
                Ok(_) => answer::refused(&refusal),
                Err(error) => answer::broken(&error),
            }
        }
        Failure::RefusedOnRecord(refusal) => answer::refused(&refusal),
        // The record changes faster than the request can be evaluated.
        Failure::ClientChanged => answer::throttled(1),
        Failure::Busy(seconds) => answer::throttled(seconds),
        Failure::Broken(error) => answer::broken(&error),
    }
}

enum NotForm {
    Refused(Refusal),
    Response(Response<Body>),
}

async fn read_form(parts: &Parts, body: Body) -> Result<Form, NotForm> {
    let query = parts.uri.query().unwrap_or_default();
    let query = Form::parse(query.as_bytes()).map_err(|error| NotForm::Refused(error.into()))?;
    if CREDENTIALS.iter().any(|name| query.mentions(name)) {
        return Err(NotForm::Refused(Refusal::CredentialInQuery));
    }
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(NotForm::Response(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response()));
    }
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = media_type.and_then(|v| v.split(';').next()).map(str::trim);
    if !essence.is_some_and(|e| e.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err(NotForm::Refused(Refusal::MediaType));
    }
    // A body that is too large is cut off by the listener's limit.
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(|rejection| NotForm::Response(rejection.into_response()))?;
    Form::parse(&bytes).map_err(|error| NotForm::Refused(error.into()))
}
