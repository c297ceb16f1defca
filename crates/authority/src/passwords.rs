//! Passwords: Argon2id, a limited number at a time.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use passavant_proto::secret::Secret;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use unicode_normalization::UnicodeNormalization;

/// Longest accepted password, in bytes.
pub const LONGEST: usize = 1024;
/// Shortest password that can be set, in characters.
const SHORTEST: usize = 12;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Too many concurrent sign-ins.
#[derive(Debug)]
pub struct Busy;

/// Hashes and verifies passwords, at most as many at a time as it has permits. Further ones wait
/// for a permit, and give up after five seconds.
#[derive(Clone)]
pub struct Passwords {
    permits: Arc<Semaphore>,
    /// A hash that is verified for unknown users, so that timing does not reveal which users exist.
    nobody: Arc<str>,
}

/// Why a password cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Below 12 characters or above 1024 bytes.
    #[error("a password must have at least 12 characters and at most 1024 bytes")]
    Length,
    /// The hash could not be computed.
    #[error("the password could not be hashed")]
    Hash,
    /// Too many others are being hashed.
    #[error("too many passwords are being checked just now; try again in a few seconds")]
    Busy,
}

fn argon2() -> Argon2<'static> {
    // OWASP's first recommendation for Argon2id: 19 MiB, two passes, one lane. These equal the
    // crate's defaults, so that the fallback is the same.
    let params = Params::new(19 * 1024, 2, 1, Some(32)).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn normal(password: &Secret) -> Secret {
    Secret::new(password.expose().nfc().collect::<String>())
}

/// User names are compared in NFC and lower case.
pub fn normal_username(text: &str) -> String {
    text.trim().nfc().collect::<String>().to_lowercase()
}

impl Passwords {
    /// `at_once` hashes run at a time; each takes 19 MiB and some tens of milliseconds.
    pub fn new(at_once: usize) -> Self {
        let nobody = argon2().hash_password(b"nobody has this password");
        let nobody = nobody.map(|hash| hash.to_string()).unwrap_or_default();
        Self { permits: Arc::new(Semaphore::new(at_once.max(1))), nobody: nobody.into() }
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: &Secret) -> Result<String, PasswordError> {
        // Before anything is done with it, whatever length it has in another form.
        if password.expose().len() > 4 * LONGEST {
            return Err(PasswordError::Length);
        }
        let password = normal(password);
        let long_enough = password.expose().chars().count() >= SHORTEST;
        if !long_enough || password.expose().len() > LONGEST {
            return Err(PasswordError::Length);
        }
        let permit = timeout(PATIENCE, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| PasswordError::Busy)?.map_err(|_| PasswordError::Hash)?;
        let work = move || {
            let hash = argon2().hash_password(password.expose().as_bytes());
            hash.map(|hash| hash.to_string()).map_err(|_| PasswordError::Hash)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Hash)?
    }

    /// Whether `password` matches the hash. Without a hash it takes the same time and returns
    /// `false`.
    pub async fn verify(&self, password: &Secret, hash: Option<&str>) -> Result<bool, Busy> {
        let _permit =
            timeout(PATIENCE, self.permits.acquire()).await.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let known = hash.is_some();
        let hash = hash.map_or_else(|| self.nobody.to_string(), str::to_owned);
        let password = normal(password);
        let work = move || {
            PasswordHash::new(&hash).is_ok_and(|hash| {
                argon2().verify_password(password.expose().as_bytes(), &hash).is_ok()
            })
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Busy)? && known)
    }
}
