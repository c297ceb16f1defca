//! The upstream body of an answer. Ending the token can drop it even while the client is not
//! reading: a body that is not read is not polled, and would never notice.

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

type Slot = Mutex<Option<Incoming>>;

/// An answer as it comes from the MCP server, until it is dropped.
pub(crate) struct UpstreamBody(Arc<Slot>);

impl UpstreamBody {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the next frame; `None` if the answer was dropped.
    pub(crate) fn poll(
        &self,
        context: &mut Context<'_>,
    ) -> Option<Poll<Option<Result<Frame<Bytes>, hyper::Error>>>> {
        let mut slot = self.slot();
        slot.as_mut().map(|body| Pin::new(body).poll_frame(context))
    }

    pub(crate) fn let_go(&self) {
        *self.slot() = None;
    }

    /// Whether the answer came completely. False for one that was dropped before its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.slot().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.slot().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// Initial capacity, in streams.
const ROOM: usize = 64;

/// The streams of one token.
#[derive(Default)]
pub(crate) struct UpstreamBodies(Mutex<Vec<Weak<Slot>>>);

impl UpstreamBodies {
    fn all(&self) -> MutexGuard<'_, Vec<Weak<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream. Streams that are over are removed when there is no room left, so that the
    /// cost of each is constant on average.
    pub(crate) fn add(&self, body: &UpstreamBody) {
        let mut all = self.all();
        if all.len() == all.capacity() {
            all.retain(|slot| slot.strong_count() > 0);
            let as_many = all.len().max(ROOM);
            all.reserve(as_many);
        }
        all.push(Arc::downgrade(&body.0));
    }

    pub(crate) fn let_go(&self) {
        let all = std::mem::take(&mut *self.all());
        for slot in all.iter().filter_map(Weak::upgrade) {
            UpstreamBody(slot).let_go();
        }
    }
}
