//! How an administrator's program and the administration API prove to each other that they hold the same secret, without
//! either sending it: whoever else listens on the port, or stands between, learns nothing to use later. The API itself
//! holds only what checks a proof ([`StoredProof`], the keys of RFC 5802 section 3).
//!
//! 1. `GET /challenge` answers a challenge of this process, good for a minute and one request.
//! 2. The request carries `Authorization: Bearer proof.CHALLENGE.NONCE.WHO.PROOF`, the proof over challenge, the client's
//!    nonce, who it is, method, target and body. `WHO` is the name of an administrator in base64url, or empty: the secret of
//!    the config.
//! 3. The answer carries a MAC over that bearer value, status and body in [`ANSWER`]: it answers this request alone.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use passavant_proto::{
    secret::{Secret, equal_in_constant_time, mac, masked, sha256},
    time::{Clock, Entropy, Timestamp},
};
use passavant_store::StoredProof;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Header of an answer that proves who gave it.
pub const ANSWER: &str = "passavant-proof";
/// Path of challenges.
pub const CHALLENGE: &str = "/challenge";
/// How long a challenge is good for, in seconds.
const GOOD_FOR: i64 = 60;
/// What the token of an administrator with a name begins with: `administrator.NAME.SECRET`.
const TOKEN: &str = "administrator.";

/// The token of an administrator: who it is of is in it.
pub fn token_of(name: &str, secret: &Secret) -> Secret {
    Secret::new(format!("{TOKEN}{name}.{}", secret.expose()))
}

/// The administrator whose token this is; none where it is the secret of a config.
pub fn name_in(token: &Secret) -> Option<&str> {
    let (name, _) = token.expose().strip_prefix(TOKEN)?.rsplit_once('.')?;
    Some(name)
}

/// What a secret proves with.
struct Keys {
    client_key: String,
    server_key: String,
}

impl Keys {
    fn of(secret: &Secret) -> Self {
        let key = |of: &str| mac(secret.expose().as_bytes(), of.as_bytes());
        Self { client_key: key("administrator"), server_key: key("administration API") }
    }
}

/// What checks a secret.
pub fn stored(secret: &Secret) -> StoredProof {
    let Keys { client_key, server_key } = Keys::of(secret);
    StoredProof { stored_key: sha256(client_key.as_bytes()), server_key }
}

/// Whether this is the secret itself.
pub(super) fn is_secret(held: &StoredProof, secret: &Secret) -> bool {
    equal_in_constant_time(&stored(secret).stored_key, &held.stored_key)
}

/// A request, as a proof is about it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The body, empty where there is none.
    pub body: &'a [u8],
}

impl Asked<'_> {
    fn text(self, named: &str) -> String {
        let Self { method, target, body } = self;
        format!("request\n{named}\n{method}\n{target}\n{}", sha256(body))
    }
}

/// The bearer value of a request. The secret is in it only as what a proof is made with.
pub fn of_request(secret: &Secret, (challenge, nonce): (&str, &str), asked: Asked<'_>) -> String {
    let keys = Keys::of(secret);
    let who = name_in(secret).map(|name| URL_SAFE_NO_PAD.encode(name)).unwrap_or_default();
    let named = format!("{challenge}.{nonce}.{who}");
    let signature =
        mac(sha256(keys.client_key.as_bytes()).as_bytes(), asked.text(&named).as_bytes());
    // Both are of 32 bytes.
    let proof = masked(&keys.client_key, &signature).unwrap_or_default();
    format!("proof.{named}.{proof}")
}

/// The proof of an answer to the request whose bearer value this is.
pub fn of_answer(server_key: &str, bearer: &str, status: u16, body: &[u8]) -> String {
    let text = format!("answer\n{bearer}\n{status}\n{}", sha256(body));
    mac(server_key.as_bytes(), text.as_bytes())
}

/// Whether an answer was given by the API that holds what checks this secret.
pub fn is_answer(secret: &Secret, bearer: &str, (status, body): (u16, &[u8]), shown: &str) -> bool {
    let expected = of_answer(&Keys::of(secret).server_key, bearer, status, body);
    equal_in_constant_time(shown, &expected)
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// A bearer value that proves something, taken apart.
pub(super) struct Presented<'a> {
    /// What the proof is over: challenge, nonce, who.
    named: &'a str,
    challenge: &'a str,
    /// The administrator it says it is of; none for the secret of the config.
    pub(super) name: Option<String>,
    proof: &'a str,
}

impl<'a> Presented<'a> {
    /// Nothing is believed yet.
    pub(super) fn parse(bearer: &'a str) -> Option<Self> {
        let (named, proof) = bearer.strip_prefix("proof.")?.rsplit_once('.')?;
        let (rest, who) = named.rsplit_once('.')?;
        let (challenge, _) = rest.rsplit_once('.')?;
        let name = if who.is_empty() { None } else { Some(decoded(who)?) };
        Some(Self { named, challenge, name, proof })
    }
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
        presented: &Presented<'_>,
        held: &StoredProof,
        asked: Asked<'_>,
    ) -> Option<()> {
        let Presented { named, challenge, proof, .. } = presented;
        let (text, seal) = challenge.rsplit_once('.')?;
        let (made, _) = text.split_once('.')?;
        let now = self.clock.now();
        let ends = Timestamp(made.parse().ok()?).plus(GOOD_FOR);
        let signature = mac(held.stored_key.as_bytes(), asked.text(named).as_bytes());
        let client_key = masked(proof, &signature)?;
        let is_proved = equal_in_constant_time(&mac(&self.key, text.as_bytes()), seal)
            && equal_in_constant_time(&sha256(client_key.as_bytes()), &held.stored_key);
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
        let asked = |method, target, body| Asked { method, target, body };
        let request = asked("POST", "/idp/users", b"{}");
        for secret in [Secret::new("a secret"), token_of("ann.b@acme", &Secret::new("hers"))] {
            let held = stored(&secret);
            let prove = |of: &str| of_request(&secret, (of, "nonce"), request);
            let check = |at: &Challenges, bearer: &str, held: &StoredProof, asked: Asked<'_>| {
                at.check(&Presented::parse(bearer)?, held, asked)
            };
            let good = prove(&here.make());
            assert!(check(&other, &good, &held, request).is_none(), "of another process");
            let another = stored(&Secret::new("another"));
            assert!(check(&here, &good, &another, request).is_none());
            for changed in [
                asked("GET", "/idp/users", b"{}"),
                asked("POST", "/idp/groups", b"{}"),
                asked("POST", "/idp/users", b"{ }"),
            ] {
                assert!(check(&here, &good, &held, changed).is_none(), "{}", changed.target);
            }
            // Who reads what checks a proof cannot make one of it.
            let read = Secret::new(held.stored_key.clone());
            let forged = of_request(&read, (&here.make(), "nonce"), request);
            assert!(check(&here, &forged, &held, request).is_none());
            let told = Presented::parse(&good).unwrap().name;
            assert_eq!(told.as_deref(), name_in(&secret));
            assert!(check(&here, &good, &held, request).is_some());
            assert!(check(&here, &good, &held, request).is_none(), "once");
            let late = prove(&here.make());
            time.fetch_add(61, Ordering::Relaxed);
            assert!(check(&here, &late, &held, request).is_none(), "too late");
            // An answer is to one request: not to another nonce, target, status or body.
            let answer = |bearer: &str, status| of_answer(&held.server_key, bearer, status, b"{}");
            let other = of_request(&secret, ("c", "other"), request);
            assert_ne!(answer(&good, 200), answer(&other, 200));
            assert_ne!(answer(&good, 200), answer(&good, 201));
            assert!(is_answer(&secret, &good, (200, b"{}"), &answer(&good, 200)));
            assert!(!is_answer(&read, &good, (200, b"{}"), &answer(&good, 200)));
            for text in ["", "proof.", "proof.1.2", "proof.x.y.z.w", "proof.1.2.3..5", "secret"] {
                assert!(check(&here, text, &held, request).is_none(), "{text}");
            }
        }
    }
}
