//! Proof Key for Code Exchange, S256 only (RFC 7636).

use crate::secret::{equal_in_constant_time, sha256};

/// A well-formed S256 challenge: 43 characters of base64url.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct CodeChallenge(String);

impl CodeChallenge {
    /// Accepts only text that can be a SHA-256 hash in base64url.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (text.len() == 43 && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    /// The challenge of a verifier.
    pub fn of(verifier: &str) -> Self {
        Self(sha256(verifier.as_bytes()))
    }

    /// Whether `verifier` is well-formed (43 to 128 unreserved characters) and matches this
    /// challenge.
    pub fn is_answered_by(&self, verifier: &str) -> bool {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        (43..=128).contains(&verifier.len())
            && verifier.bytes().all(legal)
            && equal_in_constant_time(&self.0, &sha256(verifier.as_bytes()))
    }

    /// The text of the challenge.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7636_appendix_b_holds() {
        let challenge =
            CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
        assert!(challenge.is_answered_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert!(!challenge.is_answered_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl"));
        assert!(!CodeChallenge::of("short").is_answered_by("short"));
        assert_eq!(CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM"), None);
    }
}
