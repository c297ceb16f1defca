//! What an event that waits says to whoever listens, if they are to be told of it.

use passavant_authority::authority::{Authority, Directory};
use passavant_proto::{
    jose::jwk::Algorithm,
    oauth::global_token_revocation::SubId,
    ssf::{EventType, SetClaims, Subject, Told},
    time::Timestamp,
};
use passavant_store::{Signal, SignalStream};
use serde_json::{Map, Value, json};

/// What an administrator on the other side reads, where the profiles have a member for it.
fn reason_of(event: EventType) -> Option<&'static str> {
    match event {
        EventType::SessionRevoked => Some("The sign-in has ended at the identity provider."),
        EventType::CredentialChange => Some("A way to sign in was added, changed or taken away."),
        EventType::TokenClaimsChange => Some("The person is in other groups now."),
        EventType::AssuranceLevelChange => Some("The person signed in in another way."),
        _ => None,
    }
}

/// The token of an event; `None` if it is for nobody: the listener does not want it, or may not be told of
/// this person.
pub(super) fn token<D: Directory>(
    authority: &Authority<D>,
    told: Told,
    stream: &SignalStream,
    signal: &Signal,
    now: Timestamp,
) -> Option<String> {
    let event = EventType::of_word(&signal.event)?;
    let mut content: Map<String, Value> = serde_json::from_str(&signal.facts).ok()?;
    let subject = if signal.user_id.is_empty() {
        Subject::Stream(stream.id.clone())
    } else {
        if !stream.events.contains(&event) || !(told == Told::Everyone || signal.known) {
            return None;
        }
        content.insert("event_timestamp".to_owned(), signal.made_at.0.into());
        let person =
            SubId::IssSub { iss: authority.issuer.to_string(), sub: signal.user_id.clone() };
        if let Some(reason) = reason_of(event) {
            content.insert("reason_admin".to_owned(), json!({"en": reason}));
        }
        match content.remove("session") {
            Some(Value::String(session)) => Subject::Session { person: Some(person), session },
            _ => Subject::Person(person),
        }
    };
    let (audience, jti) = (stream.client_id.as_str(), signal.jti.as_str());
    let claims =
        SetClaims::new(&authority.issuer, (audience, jti), &subject, (event, content), now);
    // What the interoperability profile asks for, where there is such a key.
    Some(claims.sign(&authority.signing_as(Some(Algorithm::RS256))))
}
