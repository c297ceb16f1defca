//! How an administrator's program and the administration API prove to each other that they know the
//! same secret, without sending it: a program that listens on the port instead, or intercepts the
//! traffic, learns nothing it could use later. The API itself stores only what it needs to verify a
//! proof ([`StoredProof`], the keys of RFC 5802 section 3).
//!
//! 1. `GET /challenge` returns a challenge of this process, valid for a minute and for one request.
//! 2. The request carries `Authorization: Bearer proof.CHALLENGE.NONCE.WHO.PROOF`, a proof over the
//!    challenge, the client's nonce, its name, method, target and body. `WHO` is the name of an
//!    administrator in base64url, or empty for the secret of the config.
//! 3. The response contains a MAC over that bearer value, status and body in [`ANSWER`], which is
//!    valid for this request only.

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

/// Header with the proof of a response.
pub const ANSWER: &str = "passavant-proof";
/// Path for challenges.
pub const CHALLENGE: &str = "/challenge";
/// How long a challenge is valid, in seconds.
const GOOD_FOR: i64 = 60;
/// Prefix of a named administrator's token: `administrator.NAME.SECRET`.
const TOKEN: &str = "administrator.";

/// The token of an administrator, which contains their name.
pub fn token_of(name: &str, secret: &Secret) -> Secret {
    Secret::new(format!("{TOKEN}{name}.{}", secret.expose()))
}

/// The administrator whose token this is; `None` for the secret of a config.
pub fn name_in(token: &Secret) -> Option<&str> {
    let (name, _) = token.expose().strip_prefix(TOKEN)?.rsplit_once('.')?;
    Some(name)
}

/// The keys that are derived from a secret, for making proofs.
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

/// What proofs of a secret are verified with.
pub fn stored(secret: &Secret) -> StoredProof {
    let Keys { client_key, server_key } = Keys::of(secret);
    StoredProof { stored_key: sha256(client_key.as_bytes()), server_key }
}

/// Whether this is the secret itself.
pub(super) fn is_secret(held: &StoredProof, secret: &Secret) -> bool {
    equal_in_constant_time(&stored(secret).stored_key, &held.stored_key)
}

/// The parts of a request that a proof covers.
#[derive(Clone, Copy)]
pub struct ProvenRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

impl ProvenRequest<'_> {
    fn text(self, named: &str) -> String {
        let Self { method, target, body } = self;
        format!("request\n{named}\n{method}\n{target}\n{}", sha256(body))
    }
}

/// The bearer value of a request. It does not contain the secret, only a proof made with it.
pub fn of_request(
    secret: &Secret,
    (challenge, nonce): (&str, &str),
    request: ProvenRequest<'_>,
) -> String {
    let keys = Keys::of(secret);
    let who = name_in(secret).map(|name| URL_SAFE_NO_PAD.encode(name)).unwrap_or_default();
    let named = format!("{challenge}.{nonce}.{who}");
    let signature =
        mac(sha256(keys.client_key.as_bytes()).as_bytes(), request.text(&named).as_bytes());
    // Both have 32 bytes.
    let proof = masked(&keys.client_key, &signature).unwrap_or_default();
    format!("proof.{named}.{proof}")
}

/// The proof of a response to the request with this bearer value.
pub fn of_answer(server_key: &str, bearer: &str, status: u16, body: &[u8]) -> String {
    let text = format!("answer\n{bearer}\n{status}\n{}", sha256(body));
    mac(server_key.as_bytes(), text.as_bytes())
}

/// Whether a response comes from the API that stores the verifier of this secret.
pub fn is_answer(secret: &Secret, bearer: &str, (status, body): (u16, &[u8]), shown: &str) -> bool {
    let expected = of_answer(&Keys::of(secret).server_key, bearer, status, body);
    equal_in_constant_time(shown, &expected)
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// A bearer value with a proof, parsed.
pub(super) struct Presented<'a> {
    /// What the proof covers of it: challenge, nonce, name.
    named: &'a str,
    challenge: &'a str,
    /// The administrator that it claims; `None` for the secret of the config.
    pub(super) name: Option<String>,
    proof: &'a str,
}

impl<'a> Presented<'a> {
    /// Parses only; nothing is verified yet.
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
    /// Challenges that were used, until they expire. Only holders of the secret can add to them.
    used: Mutex<HashMap<String, Timestamp>>,
}

impl Challenges {
    pub(super) fn new(clock: Clock, entropy: Entropy) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self { key, clock, entropy, used: Mutex::default() }
    }

    /// Makes a challenge. Nothing is stored for it, so requesting many of them costs no memory.
    pub(super) fn make(&self) -> String {
        let text = format!("{}.{}", self.clock.now().0, self.entropy.id());
        let seal = mac(&self.key, text.as_bytes());
        format!("{text}.{seal}")
    }

    /// Whether a bearer value proves the secret for this request, for the first time.
    pub(super) fn check(
        &self,
        presented: &Presented<'_>,
        held: &StoredProof,
        request: ProvenRequest<'_>,
    ) -> Option<()> {
        let Presented { named, challenge, proof, .. } = presented;
        let (text, seal) = challenge.rsplit_once('.')?;
        let (made, _) = text.split_once('.')?;
        let now = self.clock.now();
        let ends = Timestamp(made.parse().ok()?).plus(GOOD_FOR);
        let signature = mac(held.stored_key.as_bytes(), request.text(named).as_bytes());
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
        let to = |method, target, body| ProvenRequest { method, target, body };
        let request = to("POST", "/idp/users", b"{}");
        for secret in [Secret::new("a secret"), token_of("ann.b@acme", &Secret::new("hers"))] {
            let held = stored(&secret);
            let prove = |of: &str| of_request(&secret, (of, "nonce"), request);
            let check =
                |at: &Challenges, bearer: &str, held: &StoredProof, request: ProvenRequest<'_>| {
                    at.check(&Presented::parse(bearer)?, held, request)
                };
            let good = prove(&here.make());
            assert!(check(&other, &good, &held, request).is_none(), "of another process");
            let another = stored(&Secret::new("another"));
            assert!(check(&here, &good, &another, request).is_none());
            for changed in [
                to("GET", "/idp/users", b"{}"),
                to("POST", "/idp/groups", b"{}"),
                to("POST", "/idp/users", b"{ }"),
            ] {
                assert!(check(&here, &good, &held, changed).is_none(), "{}", changed.target);
            }
            // A reader of the stored verifier cannot make a proof with it.
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
            // The proof of a response is for one request: not for another nonce, target, status or
            // body.
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
