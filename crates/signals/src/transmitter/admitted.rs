//! Who asks about a stream: a client that may listen, by its access token.

use super::{Transmits, token::audience};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use passavant_authority::{
    answer::{self, broken, throttled},
    authority::{RegisteredClient, Snapshot},
    bearer,
    origin::origin_of,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::{access_token::verify_any_audience, challenge::Challenge},
    ssf::{SCOPE_MANAGE, SCOPE_READ, StreamError},
};
use passavant_store::{AuditEvent, SignalStream};
use serde_json::json;
use std::sync::Arc;

/// What a request needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// To read.
    Read,
    /// To change.
    Manage,
}

/// A request of a client that may listen.
pub(super) struct Admitted {
    pub(super) client: Arc<RegisteredClient>,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    request_id: String,
}

impl Admitted {
    /// Checks the token of a request to the endpoint at `path`; the error is a response.
    pub(super) async fn new<S: Transmits>(
        of: &S,
        request: Request,
        path: &str,
        needs: Needs,
    ) -> Result<Self, Response<Body>> {
        let (parts, body) = request.into_parts();
        // Before anything is looked at: a body may take its time, and its client be switched off meanwhile.
        let body = Bytes::from_request(Request::new(body), &()).await;
        let body = body.map_err(IntoResponse::into_response)?;
        let authority = of.authority();
        let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
        let presented = bearer::presented(&parts).ok_or_else(|| refused(&parts, None))?;
        let keys = snapshot.keys.verifying();
        let now = authority.now();
        let verified =
            verify_any_audience(presented.token.expose(), &keys, &authority.issuer, now).ok();
        let (token, _) = verified
            .filter(|(_, audiences)| *audiences == [audience(&authority.issuer)])
            .ok_or_else(|| refused(&parts, Some("invalid_token")))?;
        let bound = token.key_thumbprint.as_deref();
        let proved = bearer::is_proved(authority, &parts, path, &presented, bound).await;
        if !proved.map_err(|e| broken(&e))? {
            return Err(refused(&parts, Some("invalid_token")));
        }
        if authority.store.live_grant(&token.jti).await.map_err(|e| broken(&e))?.is_none() {
            return Err(refused(&parts, Some("invalid_token")));
        }
        // The client as it is now: one that was switched off listens no more.
        let client = authority::listening(&snapshot, &token.client);
        let client = client.ok_or_else(|| refused(&parts, Some("invalid_token")))?;
        let enough = token.scopes.contains(SCOPE_MANAGE)
            || (needs == Needs::Read && token.scopes.contains(SCOPE_READ));
        if !enough {
            let scope = if needs == Needs::Read { SCOPE_READ } else { SCOPE_MANAGE };
            let challenge =
                Challenge::new("Bearer").with("error", "insufficient_scope").with("scope", scope);
            return Err(challenged(StatusCode::FORBIDDEN, &challenge));
        }
        // Each change is a row.
        if needs == Needs::Manage {
            let taken = of.admission().grant(&token.client, "streams of signals");
            taken.map_err(|busy| throttled(busy.0))?;
        }
        let (request_id, _) = origin_of(&parts);
        Ok(Self { client, parts, body, request_id })
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client.record.id
    }

    /// A row of the trail about its stream.
    pub(super) fn event<S: Transmits>(&self, of: &S, what: &str) -> AuditEvent {
        AuditEvent::granted(RequestEvent::SignalStream, of.authority().now())
            .client(self.client_id())
            .with(Detail::RequestId, self.request_id.as_str())
            .with(Detail::More, what)
    }

    /// Its stream, if it has one of this id. Whether others have it is not said.
    pub(super) async fn stream<S: Transmits>(
        &self,
        of: &S,
        id: Option<&str>,
    ) -> Result<SignalStream, Response<Body>> {
        let held = of.authority().store.stream_of(self.client_id()).await;
        let held = held.map_err(|e| broken(&e))?;
        held.filter(|stream| Some(stream.id.as_str()) == id).ok_or_else(|| {
            let text = "This client has no stream of this `stream_id`.";
            answer::error(StatusCode::NOT_FOUND, "not_found", text)
        })
    }
}

pub(super) mod authority {
    use super::{Arc, RegisteredClient, Snapshot};
    use passavant_authority::authority::Directory;

    /// A client that may listen now.
    pub(in crate::transmitter) fn listening<D: Directory>(
        snapshot: &Snapshot<D>,
        id: &str,
    ) -> Option<Arc<RegisteredClient>> {
        let client = snapshot.directory.client(id)?;
        client.record.signals.is_some().then(|| Arc::clone(client))
    }
}

/// A client that may not listen any more.
pub(super) fn not_any_more(parts: &Parts) -> Response<Body> {
    refused(parts, Some("invalid_token"))
}

/// A request that is not what it should be.
pub(super) fn malformed(error: StreamError) -> Response<Body> {
    answer::error(StatusCode::BAD_REQUEST, "invalid_request", &format!("{error}."))
}

fn refused(parts: &Parts, error: Option<&str>) -> Response<Body> {
    let mut challenge = Challenge::new("Bearer");
    if let Some(error) = error.filter(|_| parts.headers.contains_key(header::AUTHORIZATION)) {
        challenge = challenge.with("error", error);
    }
    challenged(StatusCode::UNAUTHORIZED, &challenge)
}

fn challenged(status: StatusCode, challenge: &Challenge) -> Response<Body> {
    let body = challenge.get("error").map_or_else(|| json!({}), |error| json!({"error": error}));
    let mut response = answer::no_store(status, &body);
    if let Ok(value) = HeaderValue::from_str(&challenge.to_header()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
