//! The events that are told and heard.

use serde_json::{Map, Value};

/// An event, by its URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// CAEP: a session was revoked, or all of a person's.
    SessionRevoked,
    /// CAEP: claims of a person changed.
    TokenClaimsChange,
    /// CAEP: a credential was added, changed or taken away.
    CredentialChange,
    /// CAEP: a sign-in is stronger or weaker than before.
    AssuranceLevelChange,
    /// RISC: a person was switched off.
    AccountDisabled,
    /// RISC: a person was switched on.
    AccountEnabled,
    /// RISC: a person was deleted.
    AccountPurged,
    /// RISC: somebody else may know a credential. Heard only.
    CredentialCompromise,
    /// RISC, in its earlier form: all sessions were revoked. Heard only.
    SessionsRevoked,
    /// SSF: somebody tries whether a stream works.
    Verification,
    /// SSF: a stream's status was changed by its transmitter.
    StreamUpdated,
}

impl EventType {
    /// All that are known.
    const ALL: [Self; 11] = [
        Self::SessionRevoked,
        Self::TokenClaimsChange,
        Self::CredentialChange,
        Self::AssuranceLevelChange,
        Self::AccountDisabled,
        Self::AccountEnabled,
        Self::AccountPurged,
        Self::CredentialCompromise,
        Self::SessionsRevoked,
        Self::Verification,
        Self::StreamUpdated,
    ];

    /// Those that a receiver may ask for.
    pub const TOLD: [Self; 7] = [
        Self::SessionRevoked,
        Self::TokenClaimsChange,
        Self::CredentialChange,
        Self::AssuranceLevelChange,
        Self::AccountDisabled,
        Self::AccountEnabled,
        Self::AccountPurged,
    ];

    /// Its URI.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::SessionRevoked => {
                "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
            }
            Self::TokenClaimsChange => {
                "https://schemas.openid.net/secevent/caep/event-type/token-claims-change"
            }
            Self::CredentialChange => {
                "https://schemas.openid.net/secevent/caep/event-type/credential-change"
            }
            Self::AssuranceLevelChange => {
                "https://schemas.openid.net/secevent/caep/event-type/assurance-level-change"
            }
            Self::AccountDisabled => {
                "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
            }
            Self::AccountEnabled => {
                "https://schemas.openid.net/secevent/risc/event-type/account-enabled"
            }
            Self::AccountPurged => {
                "https://schemas.openid.net/secevent/risc/event-type/account-purged"
            }
            Self::CredentialCompromise => {
                "https://schemas.openid.net/secevent/risc/event-type/credential-compromise"
            }
            Self::SessionsRevoked => {
                "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked"
            }
            Self::Verification => "https://schemas.openid.net/secevent/ssf/event-type/verification",
            Self::StreamUpdated => {
                "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
            }
        }
    }

    /// The last part of its URI, by which it is stored and shown.
    pub fn word(self) -> &'static str {
        self.uri().rsplit('/').next().unwrap_or_default()
    }

    /// The one of a URI.
    pub fn of_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.uri() == uri)
    }

    /// The one that is stored as a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.word() == word)
    }

    /// Whether what a person has ends here when this is heard. That somebody is back, or has other
    /// claims, gives nothing back and takes nothing: the next sign-in says so.
    pub fn ends_access(self, content: &Map<String, Value>) -> bool {
        match self {
            Self::SessionRevoked
            | Self::AccountDisabled
            | Self::AccountPurged
            | Self::CredentialCompromise
            | Self::SessionsRevoked => true,
            Self::AssuranceLevelChange => {
                content.get("change_direction").and_then(Value::as_str) == Some("decrease")
            }
            // The credential that a sign-in may have rested on is no one any more.
            Self::CredentialChange => {
                matches!(
                    content.get("change_type").and_then(Value::as_str),
                    Some("revoke" | "delete")
                )
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_event_is_found_by_its_uri_and_its_word() {
        for event in EventType::ALL {
            assert_eq!(EventType::of_uri(event.uri()), Some(event));
            assert_eq!(EventType::of_word(event.word()), Some(event));
        }
        for other in ["", "session-revoked", "https://schemas.openid.net/secevent/caep/event-type/"]
        {
            assert_eq!(EventType::of_uri(other), None, "{other}");
        }
    }

    #[test]
    fn access_ends_with_what_takes_something_away() {
        let ends =
            |event: EventType, content: Value| event.ends_access(content.as_object().unwrap());
        assert!(ends(EventType::SessionRevoked, json!({})));
        assert!(ends(EventType::AccountPurged, json!({})));
        assert!(ends(EventType::AssuranceLevelChange, json!({"change_direction": "decrease"})));
        assert!(!ends(EventType::AssuranceLevelChange, json!({"change_direction": "increase"})));
        assert!(ends(EventType::CredentialChange, json!({"change_type": "revoke"})));
        assert!(!ends(EventType::CredentialChange, json!({"change_type": "create"})));
        for event in
            [EventType::AccountEnabled, EventType::Verification, EventType::TokenClaimsChange]
        {
            assert!(!ends(event, json!({"change_type": "revoke"})), "{event:?}");
        }
    }
}
