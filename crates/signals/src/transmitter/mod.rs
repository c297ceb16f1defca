//! The transmitter: streams of those who listen, and their events.

mod admitted;
mod management;
mod poll;
mod push;
mod render;
mod token;

use axum::{
    Extension, Router,
    extract::State,
    routing::{get, post},
};
use passavant_authority::{answer, room::Room, token_endpoint::Grants};
use passavant_proto::ssf::{POLL, STATUS, STREAMS, VERIFICATION, WELL_KNOWN, configuration};
use std::sync::Arc;

pub use push::{tell, tell_once};
pub use token::issue as issue_token;

/// How many polls may wait for an event at once.
const WAITING: usize = 256;
/// And of them of one listener.
const OF_ONE: usize = 4;

/// An identity provider that tells.
pub trait Transmits: Grants + Clone + Send + Sync + 'static {}

/// The transmitter's configuration, which anybody may read.
pub fn configuration_route<S: Transmits>(base: &str) -> Router<S> {
    let document = get(|State(of): State<S>| async move {
        answer::public(&configuration(&of.authority().issuer))
    });
    Router::new().route(&format!("{WELL_KNOWN}{base}"), document)
}

/// What a listener manages its stream by, and polls.
pub fn routes<S: Transmits>(base: &str) -> Router<S> {
    let streams = get(management::read::<S>)
        .post(management::create::<S>)
        .patch(management::update::<S>)
        .put(management::replace::<S>)
        .delete(management::delete::<S>);
    let poll = post(poll::poll::<S>).layer(Extension(Arc::new(Room::new(WAITING, OF_ONE))));
    Router::new()
        .route(&format!("{base}{STREAMS}"), streams)
        .route(
            &format!("{base}{STATUS}"),
            get(management::status::<S>).post(management::set_status::<S>),
        )
        .route(&format!("{base}{VERIFICATION}"), post(management::verify::<S>))
        .route(&format!("{base}{POLL}/{{stream}}"), poll)
}
