//! How and when a person signed in.

use crate::time::Timestamp;

/// The `acr` of a sign-in with a password; `pwd` for short.
pub const ACR_PASSWORD: &str = "urn:passavant:acr:password";

/// The `acr` of a sign-in with a password and a second factor; `mfa` for short.
pub const ACR_MULTI_FACTOR: &str = "urn:passavant:acr:mfa";

/// The `acr` of a sign-in with a passkey: no other site can ask for it (OpenID Connect EAP ACR Values,
/// section 2).
pub const ACR_PASSKEY: &str = "phr";

/// The `acr` of a sign-in by an administrator's one-time link. It reaches no class.
pub const ACR_RECOVERY: &str = "urn:passavant:acr:recovery";

/// Every class that a sign-in here reaches, from the weakest, with its short name.
pub const CLASSES: [(&str, &str); 3] =
    [(ACR_PASSWORD, "pwd"), (ACR_MULTI_FACTOR, "mfa"), (ACR_PASSKEY, ACR_PASSKEY)];

/// How strong a class is among [`CLASSES`]; `phrh` is `phr` with a key in hardware, which an upstream may
/// tell.
fn rank(acr: &str) -> Option<usize> {
    if acr == "phrh" {
        return Some(CLASSES.len());
    }
    CLASSES.iter().position(|(class, short)| acr == *class || acr == *short)
}

/// Whether a sign-in of the class `held` does where `wanted` is asked for: the same class, or a
/// stronger one of those that are ranked. Classes of others are compared, not ranked.
pub fn reaches(held: &str, wanted: &str) -> bool {
    let stronger = || Some(rank(held)? >= rank(wanted)?);
    held == wanted || stronger().unwrap_or_default()
}

/// One sign-in of one person, as ID tokens describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// When the person proved their identity.
    pub auth_time: Timestamp,
    /// Authentication context class reached.
    pub acr: String,
    /// Methods used (RFC 8176 names).
    pub amr: Vec<String>,
    /// The issuer that vouched for it, if it was another one.
    pub issuer: Option<crate::identifier::SubjectIssuer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stronger_class_does_where_a_weaker_one_is_asked_for() {
        for (held, wanted, does) in [
            (ACR_PASSWORD, "pwd", true),
            (ACR_PASSWORD, ACR_MULTI_FACTOR, false),
            (ACR_PASSWORD, "phr", false),
            (ACR_MULTI_FACTOR, "pwd", true),
            ("mfa", ACR_MULTI_FACTOR, true),
            (ACR_MULTI_FACTOR, "phr", false),
            (ACR_PASSKEY, "mfa", true),
            (ACR_PASSKEY, ACR_PASSWORD, true),
            (ACR_PASSKEY, "phrh", false),
            ("phrh", "phr", true),
            (ACR_RECOVERY, "pwd", false),
            ("urn:acme:gold", "pwd", false),
            ("urn:acme:gold", "urn:acme:gold", true),
            (ACR_PASSKEY, "urn:acme:gold", false),
            ("", "pwd", false),
        ] {
            assert_eq!(reaches(held, wanted), does, "{held} for {wanted}");
        }
    }
}
