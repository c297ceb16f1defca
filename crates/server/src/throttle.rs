//! Slows down whoever keeps failing, before any work is done for them.

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most keys watched; beyond it, recent ones are kept.
const MOST: usize = 50_000;

/// Counts failures by key. One more than `per_minute` and the key has to wait.
pub(crate) struct Throttle {
    failures: DefaultKeyedRateLimiter<String>,
    blocked: Mutex<HashMap<String, Instant>>,
    clock: DefaultClock,
}

impl Throttle {
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        Self {
            failures: RateLimiter::keyed(Quota::per_minute(per_minute)),
            blocked: Mutex::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Seconds that `key` still has to wait, or nothing.
    pub(crate) fn wait(&self, key: &str) -> Option<u64> {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let left = blocked.get(key)?.checked_duration_since(Instant::now());
        match left {
            Some(left) if !left.is_zero() => Some(left.as_secs() + 1),
            _ => {
                blocked.remove(key);
                None
            }
        }
    }

    /// Counts a failure of `key`.
    pub(crate) fn failed(&self, key: &str) {
        if self.failures.len() > MOST {
            self.failures.retain_recent();
        }
        if let Err(not_until) = self.failures.check_key(&key.to_owned()) {
            let wait = not_until.wait_time_from(self.clock.now()).max(Duration::from_secs(1));
            let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
            if blocked.len() > MOST {
                let now = Instant::now();
                blocked.retain(|_, until| *until > now);
            }
            blocked.insert(key.to_owned(), Instant::now() + wait);
        }
    }
}

/// The key of an address: an IPv6 customer holds a whole /64.
pub(crate) fn address_key(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.to_string(),
            None => format!("{:x?}", &ip.segments()[..4]),
        },
    }
}
