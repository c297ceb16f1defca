//! Delivery to those who fetch (RFC 8936).

use super::{
    Transmits,
    admitted::{Admitted, Needs, authority::listening, malformed, not_any_more as refused},
    render,
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, Request, State},
    http::{Response, StatusCode},
};
use passavant_authority::{
    answer::{broken, no_store},
    room::Room,
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    others_text::shown,
    ssf::{POLL, PollRequest, StreamStatus, Told},
};
use passavant_store::{AuditEvent, Signal, SignalStream, StoreError};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a poll waits for an event: less than a listener of ours lets a request take.
const LONGEST: Duration = Duration::from_secs(20);
/// How many events are looked at in one go.
const PIECE: usize = 200;
/// How often it is looked for one.
const TURN: Duration = Duration::from_millis(250);

/// `POST /ssf/poll/{stream}`.
pub(super) async fn poll<S: Transmits>(
    State(of): State<S>,
    Path(id): Path<String>,
    Extension(waiting): Extension<Arc<Room>>,
    request: Request,
) -> Response<Body> {
    let (Ok(response) | Err(response)) = polled(&of, &id, &waiting, request).await;
    response
}

async fn polled<S: Transmits>(
    of: &S,
    id: &str,
    waiting: &Room,
    request: Request,
) -> Result<Response<Body>, Response<Body>> {
    let path = format!("{POLL}/{id}");
    let asked = Admitted::new(of, request, &path, Needs::Read).await?;
    let stream = asked.stream(of, Some(id)).await?;
    let wanted = PollRequest::parse(&asked.body).map_err(malformed)?;
    take_back(of, &stream, &wanted).await.map_err(|e| broken(&e))?;
    // A poll that would wait, and finds no room to do so, is answered at once.
    let waits = !wanted.return_immediately && wanted.most > 0;
    let place = if waits { waiting.take(&stream.id) } else { None };
    let until = Instant::now() + if place.is_some() { LONGEST } else { Duration::ZERO };
    loop {
        // The client as it is now: a poll waits, and is told nothing once it may not listen.
        let now = of.authority().fresh().await.map_err(|e| broken(&e))?;
        let client = listening(&now, asked.client_id()).ok_or_else(|| refused(&asked.parts))?;
        let told = client.record.signals.unwrap_or(Told::ItsPeople);
        let (sets, more) = found(of, &stream, told, wanted.most).await.map_err(|e| broken(&e))?;
        if !sets.is_empty() || Instant::now() >= until {
            let mut answer = json!({ "sets": sets });
            // Only where it says something: there are clients that do not read it otherwise.
            if more {
                answer["moreAvailable"] = true.into();
            }
            return Ok(no_store(StatusCode::OK, &answer));
        }
        sleep(TURN).await;
    }
}

/// Forgets what was taken, and what was not and never will be.
async fn take_back<S: Transmits>(
    of: &S,
    stream: &SignalStream,
    wanted: &PollRequest,
) -> Result<(), StoreError> {
    let authority = of.authority();
    let now = authority.now();
    let event = || {
        AuditEvent::granted(RequestEvent::SignalTold, now)
            .client(&stream.client_id)
            .with(Detail::Count, wanted.acknowledged.len().to_string())
    };
    if !wanted.acknowledged.is_empty() {
        authority.store.end_signals(&stream.id, &wanted.acknowledged, &[event()]).await?;
    }
    for (jti, error) in &wanted.refused {
        let event = event()
            .with(Detail::Count, "1")
            .with(Detail::Jti, shown(jti, 100))
            .with(Detail::More, shown(error, 300))
            .refused("signal.not_taken");
        authority.store.end_signals(&stream.id, std::slice::from_ref(jti), &[event]).await?;
    }
    Ok(())
}

/// The first events that wait, as tokens by their `jti`, and whether there are more.
async fn found<S: Transmits>(
    of: &S,
    stream: &SignalStream,
    told: Told,
    most: usize,
) -> Result<(Map<String, Value>, bool), StoreError> {
    let authority = of.authority();
    let began = Instant::now();
    loop {
        let held = authority.store.stream_of(&stream.client_id).await?;
        let delivered = held.filter(|held| held.id == stream.id);
        let delivered = delivered.filter(|held| held.status == StreamStatus::Enabled);
        let Some(stream) = delivered else { return Ok((Map::new(), false)) };
        let limit = PIECE.max(most + 1);
        let signals = authority.store.signals(&stream.id, limit).await?;
        let (wanted, gone): (Vec<&Signal>, Vec<&Signal>) =
            signals.iter().partition(|signal| render::wanted(told, &stream, signal).is_some());
        if !gone.is_empty() {
            // What is for nobody makes room for what follows.
            let gone: Vec<String> = gone.iter().map(|signal| signal.jti.clone()).collect();
            authority.store.end_signals(&stream.id, &gone, &[]).await?;
        }
        if wanted.len() > most || signals.len() < limit || began.elapsed() > LONGEST {
            let tokens = wanted.iter().take(most).filter_map(|signal| {
                let token = render::token(authority, told, &stream, signal)?;
                Some((signal.jti.clone(), token.into()))
            });
            return Ok((tokens.collect(), wanted.len() > most));
        }
    }
}
