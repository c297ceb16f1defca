//! Stops asking an MCP server that does not answer, and tries again after a while.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Failures in a row before it opens.
const FAILURES: u32 = 5;
/// First pause; doubled with each failed try.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Closed while `None`.
    open_until: Option<Instant>,
    pause: Duration,
    /// One request went first.
    probing: bool,
}

/// One for each MCP server.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request through, or says how long to wait. After a pause one request goes first; the
    /// others wait for how it ends.
    pub(crate) fn enter(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        match state.open_until {
            None => Ok(()),
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                state.open_until = Some(now + state.pause);
                state.probing = true;
                Ok(())
            }
        }
    }

    /// The server answered, whatever it said.
    pub(crate) fn answered(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            *state = State::default();
        }
    }

    /// It did not.
    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures += 1;
        // Those that were under way when it opened say nothing new; the one that went first does.
        let probed = state.probing;
        state.probing = false;
        if probed || (state.open_until.is_none() && state.failures >= FAILURES) {
            state.pause =
                if state.pause.is_zero() { PAUSE } else { (state.pause * 2).min(LONGEST) };
            state.open_until = Some(now + state.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_with_one_request() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..FAILURES {
            assert!(breaker.enter(start).is_ok());
            breaker.failed(start);
        }
        breaker.failed(start);
        assert_eq!(breaker.enter(start), Err(PAUSE), "one that was under way adds nothing");
        let later = start + PAUSE;
        assert!(breaker.enter(later).is_ok(), "one goes first");
        assert!(breaker.enter(later).is_err(), "the others wait");
        breaker.failed(later);
        assert_eq!(breaker.enter(later), Err(PAUSE * 2));
        let later = later + PAUSE * 2;
        assert!(breaker.enter(later).is_ok());
        breaker.answered();
        assert!(breaker.enter(later).is_ok() && breaker.enter(later).is_ok());
        breaker.failed(later);
        assert!(breaker.enter(later).is_ok(), "one failure is no outage");
    }
}
