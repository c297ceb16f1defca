//! The stream management API (SSF 1.0, section 8.1). A client has one stream.

use super::{
    Transmits,
    admitted::{Admitted, Needs, malformed},
    push::reach_of,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use passavant_authority::answer::{self, broken, no_store};
use passavant_outbound::checked;
use passavant_proto::{
    identifier::Issuer,
    others_text::shown,
    ssf::{
        Delivery, EventType, POLL, POLL_METHOD, PUSH_METHOD, STATUS, STREAMS, StreamRequest,
        StreamStatus, VERIFICATION, VERIFICATION_INTERVAL,
    },
};
use passavant_store::{SealedAt, Signal, SignalStream};
use serde_json::{Value, json};
use url::form_urlencoded;

/// How often a change is made again that another one came before.
const TRIES: usize = 5;

type Answer = Result<Response<Body>, Response<Body>>;

/// The configuration of a stream. The header that events are posted with is not shown again.
fn shown_stream(issuer: &Issuer, stream: &SignalStream) -> Value {
    let uris = |events: &[EventType]| events.iter().map(|event| event.uri()).collect::<Vec<_>>();
    let delivery = match &stream.endpoint_url {
        Some(url) => json!({"method": PUSH_METHOD, "endpoint_url": url}),
        None => json!({
            "method": POLL_METHOD,
            "endpoint_url": issuer.endpoint(&format!("{POLL}/{}", stream.id)),
        }),
    };
    let mut shown = json!({
        "stream_id": stream.id,
        "iss": issuer,
        "aud": stream.client_id,
        "events_supported": uris(&EventType::TOLD),
        "events_requested": uris(&stream.events),
        "events_delivered": uris(&stream.events),
        "delivery": delivery,
        "min_verification_interval": VERIFICATION_INTERVAL,
    });
    if !stream.description.is_empty() {
        shown["description"] = stream.description.as_str().into();
    }
    shown
}

/// `stream_id` of a query.
fn named(query: Option<&str>) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(name, _)| name == "stream_id").map(|(_, id)| id.into_owned())
}

/// Writes where events go into a stream.
fn deliver<S: Transmits>(
    of: &S,
    asked: &Admitted,
    stream: &mut SignalStream,
    delivery: Delivery,
) -> Result<(), Response<Body>> {
    let Delivery::Push { endpoint_url, authorization_header } = delivery else {
        (stream.endpoint_url, stream.sealed) = (None, None);
        return Ok(());
    };
    let authority = of.authority();
    let reach = reach_of(&endpoint_url, &authority.issuer, &asked.client.record);
    if let Err(error) = checked(&endpoint_url, reach) {
        let text = format!(
            "`endpoint_url` of `delivery` cannot be posted to: {error}. An https URL of the internet, or \
             of a host that the administrator registered for this client, can."
        );
        return Err(answer::error(StatusCode::BAD_REQUEST, "invalid_request", &text));
    }
    let same = stream.endpoint_url.as_deref() == Some(endpoint_url.as_str());
    match authorization_header {
        Some(header) => {
            let label = SealedAt::Stream(stream.id.clone()).label();
            let sealed = authority.context.sealing.seal(&label, header.expose().as_bytes());
            stream.sealed = Some(sealed.map_err(|error| {
                tracing::error!(error, "the header of a stream cannot be sealed");
                let text = "The header cannot be kept here; ask the administrator.";
                answer::error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text)
            })?);
        }
        // It is not shown, so that whoever writes back what they read leaves it out.
        None if same => {}
        None => stream.sealed = None,
    }
    stream.endpoint_url = Some(endpoint_url);
    Ok(())
}

fn either(answer: Answer) -> Response<Body> {
    let (Ok(response) | Err(response)) = answer;
    response
}

/// `POST /ssf/streams`.
pub(super) async fn create<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    either(created(&of, request).await)
}

async fn created<S: Transmits>(of: &S, request: Request) -> Answer {
    let asked = Admitted::new(of, request, STREAMS, Needs::Manage).await?;
    let authority = of.authority();
    let said = StreamRequest::parse(&asked.body, None).map_err(malformed)?;
    let mut stream = SignalStream {
        id: authority.context.entropy.id(),
        client_id: asked.client_id().to_owned(),
        events: said.events_requested.unwrap_or_else(|| EventType::TOLD.to_vec()),
        endpoint_url: None,
        sealed: None,
        description: said.description.unwrap_or_default(),
        status: StreamStatus::Enabled,
        reason: String::new(),
        created_at: authority.now(),
        tries: 0,
        failing_since: passavant_proto::time::Timestamp(0),
        failure: String::new(),
        version: 0,
        holds: 0,
    };
    deliver(of, &asked, &mut stream, said.delivery.unwrap_or(Delivery::Poll))?;
    let event = asked.event(of, "created");
    if !authority.store.create_stream(&stream, event).await.map_err(|e| broken(&e))? {
        let text = "This client has a stream: read it, and change it or delete it.";
        return Err(answer::error(StatusCode::CONFLICT, "stream_exists", text));
    }
    Ok(no_store(StatusCode::CREATED, &shown_stream(&authority.issuer, &stream)))
}

/// `GET /ssf/streams`.
pub(super) async fn read<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    either(was_read(&of, request).await)
}

async fn was_read<S: Transmits>(of: &S, request: Request) -> Answer {
    let asked = Admitted::new(of, request, STREAMS, Needs::Read).await?;
    let authority = of.authority();
    if let Some(id) = named(asked.parts.uri.query()) {
        let stream = asked.stream(of, Some(&id)).await?;
        return Ok(no_store(StatusCode::OK, &shown_stream(&authority.issuer, &stream)));
    }
    let held = authority.store.stream_of(asked.client_id()).await.map_err(|e| broken(&e))?;
    let all: Vec<Value> =
        held.iter().map(|stream| shown_stream(&authority.issuer, stream)).collect();
    Ok(no_store(StatusCode::OK, &all))
}

/// `PATCH /ssf/streams`: what is left out stays.
pub(super) async fn update<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    either(changed(&of, request, false).await)
}

/// `PUT /ssf/streams`: what is left out goes.
pub(super) async fn replace<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    either(changed(&of, request, true).await)
}

async fn changed<S: Transmits>(of: &S, request: Request, whole: bool) -> Answer {
    let asked = Admitted::new(of, request, STREAMS, Needs::Manage).await?;
    let authority = of.authority();
    let id = StreamRequest::parse(&asked.body, None).map_err(malformed)?.stream_id;
    for _ in 0..TRIES {
        let mut stream = asked.stream(of, id.as_deref()).await?;
        let held = shown_stream(&authority.issuer, &stream);
        let said = StreamRequest::parse(&asked.body, Some(&held)).map_err(malformed)?;
        if let Some(events) = said.events_requested {
            stream.events = events;
        } else if whole {
            stream.events = EventType::TOLD.to_vec();
        }
        if let Some(description) = said.description {
            stream.description = description;
        } else if whole {
            stream.description.clear();
        }
        match said.delivery {
            Some(delivery) => deliver(of, &asked, &mut stream, delivery)?,
            None if whole => deliver(of, &asked, &mut stream, Delivery::Poll)?,
            None => {}
        }
        let done = authority.store.change_stream(&stream, asked.event(of, "changed")).await;
        if done.map_err(|e| broken(&e))? {
            return Ok(no_store(StatusCode::OK, &shown_stream(&authority.issuer, &stream)));
        }
    }
    Err(changing())
}

/// Others change the same stream all the time, or its client may not listen any more.
fn changing() -> Response<Body> {
    let text = "The stream was changed meanwhile: read it, and try again.";
    answer::error(StatusCode::CONFLICT, "conflict", text)
}

/// `DELETE /ssf/streams`.
pub(super) async fn delete<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    either(deleted(&of, request).await)
}

async fn deleted<S: Transmits>(of: &S, request: Request) -> Answer {
    let asked = Admitted::new(of, request, STREAMS, Needs::Manage).await?;
    let id = named(asked.parts.uri.query());
    let stream = asked.stream(of, id.as_deref()).await?;
    let (client, event) = (asked.client_id(), asked.event(of, "deleted"));
    let done = of.authority().store.delete_stream((client, &stream.id), event).await;
    done.map_err(|e| broken(&e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn shown_status(stream: &SignalStream) -> Response<Body> {
    let mut shown = json!({"stream_id": stream.id, "status": stream.status.word()});
    if !stream.reason.is_empty() {
        shown["reason"] = stream.reason.as_str().into();
    }
    no_store(StatusCode::OK, &shown)
}

/// `GET /ssf/status`.
pub(super) async fn status<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    let answer = async {
        let asked = Admitted::new(&of, request, STATUS, Needs::Read).await?;
        let id = named(asked.parts.uri.query());
        Ok(shown_status(&asked.stream(&of, id.as_deref()).await?))
    };
    either(answer.await)
}

/// `POST /ssf/status`.
pub(super) async fn set_status<S: Transmits>(
    State(of): State<S>,
    request: Request,
) -> Response<Body> {
    either(status_set(&of, request).await)
}

async fn status_set<S: Transmits>(of: &S, request: Request) -> Answer {
    let asked = Admitted::new(of, request, STATUS, Needs::Manage).await?;
    let (id, status, reason) = StreamStatus::parse(&asked.body).map_err(malformed)?;
    for _ in 0..TRIES {
        let mut stream = asked.stream(of, Some(&id)).await?;
        (stream.status, stream.reason) = (status, reason.clone().unwrap_or_default());
        let event = asked.event(of, status.word());
        let done = of.authority().store.change_stream(&stream, event).await;
        if done.map_err(|e| broken(&e))? {
            return Ok(shown_status(&stream));
        }
    }
    Err(changing())
}

/// `POST /ssf/verification`.
pub(super) async fn verify<S: Transmits>(State(of): State<S>, request: Request) -> Response<Body> {
    either(verified(&of, request).await)
}

async fn verified<S: Transmits>(of: &S, request: Request) -> Answer {
    let asked = Admitted::new(of, request, VERIFICATION, Needs::Manage).await?;
    let authority = of.authority();
    let (id, state) = StreamStatus::parse_verification(&asked.body).map_err(malformed)?;
    let stream = asked.stream(of, Some(&id)).await?;
    let now = authority.now();
    let signal = Signal {
        jti: authority.context.entropy.id(),
        event: EventType::Verification.word().to_owned(),
        user_id: String::new(),
        facts: state.map_or_else(|| json!({}), |state| json!({"state": state})).to_string(),
        known: true,
        made_at: now,
    };
    let before = now.plus(-VERIFICATION_INTERVAL);
    let written = authority.store.verify_stream(&stream.id, &signal, before).await;
    if written.map_err(|e| broken(&e))? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let text = format!(
        "A verification event for `{}` was asked for within {VERIFICATION_INTERVAL} seconds.",
        shown(&id, 100)
    );
    let mut response = answer::error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", &text);
    let wait = HeaderValue::from(VERIFICATION_INTERVAL);
    response.headers_mut().insert(header::RETRY_AFTER, wait);
    Err(response)
}
