//! What waits for a reader, within bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Messages that wait for a reader, and their bytes.
pub(super) const WAITING: usize = 256;
pub(super) const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// What waits for a reader, within bounds.
#[derive(Clone)]
pub(super) struct Queue {
    pub(super) to: mpsc::Sender<String>,
    pub(super) bytes: Arc<AtomicUsize>,
}

/// The other end of it.
pub(super) struct Queued {
    pub(super) from: mpsc::Receiver<String>,
    pub(super) bytes: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Queue, Queued) {
    let (to, from) = mpsc::channel(WAITING);
    let bytes = Arc::<AtomicUsize>::default();
    (Queue { to, bytes: Arc::clone(&bytes) }, Queued { from, bytes })
}

impl Queue {
    /// A reader that does not keep up loses what is too much, and the link goes on. Given back where nobody reads.
    pub(super) fn put(&self, line: String) -> Result<(), String> {
        let size = line.len();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > WAITING_BYTES {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return if self.to.is_closed() { Err(line) } else { Ok(()) };
        }
        self.to.try_send(line).or_else(|error| {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => Ok(()),
                mpsc::error::TrySendError::Closed(line) => Err(line),
            }
        })
    }
}

impl Queued {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        let next = self.from.poll_recv(context);
        if let Poll::Ready(Some(line)) = &next {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        }
        next
    }
}
