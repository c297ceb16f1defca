//! Values that must never be printed.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::fmt;
use zeroize::Zeroizing;

/// A bearer value (code, token, client secret, password). It has no `Display`, no `Serialize`, and
/// its `Debug` shows nothing; its memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// In constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        equal_in_constant_time(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl Secret {
    /// Takes over `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself, for the code that sends or checks it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the value in base64url, which is stored instead of it. This suffices only because
    /// every value we issue has 256 random bits; passwords use Argon2id.
    pub fn hash(&self) -> String {
        sha256(self.0.as_bytes())
    }
}

impl Secret {
    /// A secret that is derived from this one and a salt. With only one of the two, nothing is
    /// known about it.
    #[must_use]
    pub fn derived(&self, salt: &str) -> Self {
        Self::new(mac(self.0.as_bytes(), salt.as_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of `bytes` in base64url without padding, 43 characters.
pub fn sha256(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}

/// Compares in time that depends only on the lengths.
pub fn equal_in_constant_time(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// HMAC-SHA-256 of `text` under `key`, in base64url, 43 characters.
pub fn mac(key: &[u8], text: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, text))
}

/// Exclusive-or of two values of 32 bytes in base64url, in the same form; `None` if either has
/// another form.
pub fn masked(a: &str, b: &str) -> Option<String> {
    let read = |text: &str| <[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    let (a, b) = (read(a)?, read(b)?);
    let bytes: Vec<u8> = a.iter().zip(b).map(|(a, b)| a ^ b).collect();
    Some(URL_SAFE_NO_PAD.encode(bytes))
}
