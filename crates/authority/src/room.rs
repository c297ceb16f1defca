//! Room for requests that stay: so many at once, and so many of one party.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for so many, and for so many of one.
pub struct Room {
    all: Arc<Semaphore>,
    of_one: usize,
    each: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A place that is taken until this is dropped.
pub struct Place {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Room {
    /// Room for `all`, of which one party has `of_one` at most.
    pub fn new(all: usize, of_one: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_one, each: Mutex::default() }
    }

    /// A place for one more of a party, if there is one.
    pub fn take(&self, party: &str) -> Option<Place> {
        let own = {
            let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
            each.retain(|_, own| own.available_permits() < self.of_one);
            let new = || Arc::new(Semaphore::new(self.of_one));
            let own = each.entry(party.to_owned()).or_insert_with(new);
            Arc::clone(own).try_acquire_owned().ok()?
        };
        let shared = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _own: own, _shared: shared })
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn one_party_leaves_the_others_their_room() {
        let room = Room::new(3, 2);
        let held = [room.take("a"), room.take("a")];
        assert!(held.iter().all(Option::is_some));
        assert!(room.take("a").is_none());
        let other = room.take("b");
        assert!(other.is_some());
        assert!(room.take("c").is_none(), "it is full");
        drop(held);
        assert!(room.take("c").is_some() && room.take("a").is_some());
    }
}
