//! How an administrator's program and the administration API prove to each other that they hold the same secret, without
//! either sending it: whoever else listens on the port, or stands between, learns nothing to use later.
//!
//! 1. `GET /challenge` answers a challenge of this process, good for a minute and one request.
//! 2. The request carries `Authorization: Bearer proof.CHALLENGE.NONCE.MAC`, the MAC over challenge, the client's nonce,
//!    method, target and body.
//! 3. The answer carries a MAC over that bearer value, status and body in [`ANSWER`]: it answers this request alone.

use carnet_proto::{
    secret::{equal_in_constant_time, mac, sha256},
    time::{Clock, Entropy, Timestamp},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Header of an answer that proves who gave it.
pub const ANSWER: &str = "carnet-proof";
/// Path of challenges.
pub const CHALLENGE: &str = "/challenge";
/// How long a challenge is good for, in seconds.
const GOOD_FOR: i64 = 60;

/// The bearer value of a request: the secret is in it only as a key of its MAC.
pub fn of_request(
    secret_hash: &str,
    (challenge, nonce): (&str, &str),
    method: &str,
    target: &str,
    body: &[u8],
) -> String {
    let text = format!("request\n{challenge}\n{nonce}\n{method}\n{target}\n{}", sha256(body));
    format!("proof.{challenge}.{nonce}.{}", mac(secret_hash.as_bytes(), text.as_bytes()))
}

/// The proof of an answer to the request whose bearer value this is.
pub fn of_answer(secret_hash: &str, bearer: &str, status: u16, body: &[u8]) -> String {
    let text = format!("answer\n{bearer}\n{status}\n{}", sha256(body));
    mac(secret_hash.as_bytes(), text.as_bytes())
}

/// The challenges of this process.
pub(super) struct Challenges {
    key: [u8; 32],
    clock: Clock,
    entropy: Entropy,
    /// Those that served a request, until they would have ended: only who holds the secret adds to them.
    used: Mutex<HashMap<String, Timestamp>>,
}

impl Challenges {
    pub(super) fn new(clock: Clock, entropy: Entropy) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self { key, clock, entropy, used: Mutex::default() }
    }

    /// A challenge. Nothing is kept of it, so that whoever asks for many holds nothing here.
    pub(super) fn make(&self) -> String {
        let text = format!("{}.{}", self.clock.now().0, self.entropy.id());
        let seal = mac(&self.key, text.as_bytes());
        format!("{text}.{seal}")
    }

    /// Whether a bearer value proves the secret for this request, once.
    pub(super) fn check(
        &self,
        bearer: &str,
        secret_hash: &str,
        request: (&str, &str, &[u8]),
    ) -> Option<()> {
        let (named, _) = bearer.strip_prefix("proof.")?.rsplit_once('.')?;
        let (challenge, nonce) = named.rsplit_once('.')?;
        let (text, seal) = challenge.rsplit_once('.')?;
        let (made, _) = text.split_once('.')?;
        let now = self.clock.now();
        let ends = Timestamp(made.parse().ok()?).plus(GOOD_FOR);
        let (method, target, body) = request;
        let proof = of_request(secret_hash, (challenge, nonce), method, target, body);
        let is_proved = equal_in_constant_time(&mac(&self.key, text.as_bytes()), seal)
            && equal_in_constant_time(&proof, bearer);
        if !is_proved || ends < now {
            return None;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, ends| *ends >= now);
        used.insert(text.to_owned(), ends).is_none().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_serves_one_request_of_one_minute_at_one_process() {
        use std::sync::{
            Arc,
            atomic::{AtomicI64, Ordering},
        };
        let time = Arc::new(AtomicI64::new(1000));
        let read = Arc::clone(&time);
        let clock = Clock::new(move || Timestamp(read.load(Ordering::Relaxed)));
        let next = std::sync::atomic::AtomicU8::new(0);
        let entropy = Entropy::new(move |buffer| buffer.fill(next.fetch_add(1, Ordering::Relaxed)));
        let here = Challenges::new(clock.clone(), entropy.clone());
        let other = Challenges::new(clock, entropy);
        let request = ("POST", "/idp/users", b"{}".as_slice());
        let prove = |of: &str| of_request("hash", (of, "nonce"), "POST", "/idp/users", b"{}");
        let good = prove(&here.make());
        assert!(other.check(&good, "hash", request).is_none(), "of another process");
        assert!(here.check(&good, "another hash", request).is_none());
        for changed in [
            ("GET", "/idp/users", b"{}".as_slice()),
            ("POST", "/idp/groups", b"{}"),
            ("POST", "/idp/users", b"{ }"),
        ] {
            assert!(here.check(&good, "hash", changed).is_none(), "{changed:?}");
        }
        assert!(here.check(&good, "hash", request).is_some());
        assert!(here.check(&good, "hash", request).is_none(), "once");
        let late = prove(&here.make());
        time.fetch_add(61, Ordering::Relaxed);
        assert!(here.check(&late, "hash", request).is_none(), "too late");
        // An answer is to one request: not to another nonce, target, status or body.
        let answer = |bearer: &str, status| of_answer("hash", bearer, status, b"{}");
        let other = of_request("hash", ("c", "other"), "POST", "/idp/users", b"{}");
        assert_ne!(answer(&good, 200), answer(&other, 200));
        assert_ne!(answer(&good, 200), answer(&good, 201));
        for text in ["", "proof.", "proof.1.2", "proof.x.y.z.w", "proof.1.2.3", "secret"] {
            assert!(here.check(text, "hash", request).is_none(), "{text}");
        }
    }
}
