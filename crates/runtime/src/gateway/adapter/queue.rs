//! A bounded queue of messages for one reader.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Maximum number of messages in the queue, and of their bytes.
pub(super) const WAITING: usize = 256;
pub(super) const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// The sending end of a bounded queue.
#[derive(Clone)]
pub(super) struct Queue {
    pub(super) to: mpsc::Sender<String>,
    pub(super) bytes: Arc<AtomicUsize>,
}

/// The receiving end.
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
    /// Adds a message. If the reader is too slow, the message is lost, and the link continues. If
    /// there is no reader any more, the message is returned.
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
