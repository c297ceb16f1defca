//! Circuit breaker: stops sending requests to an MCP server that does not answer, and tries again
//! after a pause.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Consecutive failures before the breaker opens.
const FAILURES: u32 = 5;
/// First pause; doubled after each failed probe.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// `None` while the breaker is closed.
    open_until: Option<Instant>,
    pause: Duration,
    /// The number of the probe: the one request that is let through after a pause.
    probe: Option<u64>,
    probes: u64,
}

/// One breaker for each MCP server.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

/// Permission to send a request to the MCP server. A probe that learns nothing (its caller hung up,
/// or its time was over) releases its turn when this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    probe: Option<u64>,
}

impl Pass {
    /// The server answered, with whatever status.
    pub(crate) fn answered(self) {
        let mut state = self.breaker.state();
        if state.failures > 0 {
            *state = State { probes: state.probes, ..State::default() };
        }
    }

    /// The server did not answer.
    pub(crate) fn failed(self, now: Instant) {
        let mut state = self.breaker.state();
        state.failures += 1;
        // Requests that were in flight when the breaker opened tell nothing new; the probe does.
        let probed = self.probe.is_some() && self.probe == state.probe;
        if probed || (state.open_until.is_none() && state.failures >= FAILURES) {
            state.probe = None;
            state.pause =
                if state.pause.is_zero() { PAUSE } else { (state.pause * 2).min(LONGEST) };
            state.open_until = Some(now + state.pause);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if self.probe.is_some() && self.probe == state.probe {
            // This request is still the probe: let the next request be one.
            state.probe = None;
        }
    }
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request through, or returns how long to wait. After a pause one request is the probe;
    /// the others wait for its result, but no longer than the pause.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant) -> Result<Pass, Duration> {
        let mut state = self.state();
        let probe = match state.open_until {
            None => None,
            Some(until) if now < until => return Err(until - now),
            Some(until) if state.probe.is_some() && now < until + state.pause => {
                return Err(until + state.pause - now);
            }
            Some(_) => {
                if state.probe.is_some() {
                    // The probe is slow: after one more pause, let another request be a probe.
                    state.open_until = Some(now);
                }
                state.probes += 1;
                state.probe = Some(state.probes);
                state.probe
            }
        };
        drop(state);
        Ok(Pass { breaker: Arc::clone(self), probe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_with_one_request() {
        let breaker = Arc::new(Breaker::default());
        let start = Instant::now();
        let under_way = breaker.enter(start).unwrap();
        for _ in 0..FAILURES {
            breaker.enter(start).unwrap().failed(start);
        }
        under_way.failed(start);
        assert_eq!(breaker.enter(start).unwrap_err(), PAUSE, "one under way adds nothing");
        let later = start + PAUSE;
        let first = breaker.enter(later).unwrap();
        assert!(breaker.enter(later).is_err(), "the others wait");
        first.failed(later);
        assert_eq!(breaker.enter(later).unwrap_err(), PAUSE * 2);
        let later = later + PAUSE * 2;
        breaker.enter(later).unwrap().answered();
        assert!(breaker.enter(later).is_ok() && breaker.enter(later).is_ok());
        breaker.enter(later).unwrap().failed(later);
        assert!(breaker.enter(later).is_ok(), "one failure is no outage");
    }

    #[test]
    fn a_probe_that_hangs_up_lets_the_next_request_probe() {
        let breaker = Arc::new(Breaker::default());
        let start = Instant::now();
        for _ in 0..FAILURES {
            breaker.enter(start).unwrap().failed(start);
        }
        let later = start + PAUSE;
        for _ in 0..100 {
            // Each probe hangs up.
            drop(breaker.enter(later).unwrap());
        }
        let slow = breaker.enter(later).unwrap();
        assert!(breaker.enter(later).is_err());
        breaker.enter(later + PAUSE).unwrap().answered();
        assert!(breaker.enter(later + PAUSE).is_ok());
        // A late failure, of a request from before the breaker closed.
        slow.failed(later + PAUSE);
        assert!(breaker.enter(later + PAUSE).is_ok());
    }
}
