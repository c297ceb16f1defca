//! What an event that waits says to whoever listens, if they are to be told of it.

use passavant_authority::authority::{Authority, Directory};
use passavant_proto::{
    jose::jwk::Algorithm,
    oauth::global_token_revocation::SubId,
    ssf::{EventType, SetClaims, Subject, Told},
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

/// The event, if the listener is to be told of it: it wants it, and may be told of this person.
pub(super) fn wanted(told: Told, stream: &SignalStream, signal: &Signal) -> Option<EventType> {
    let event = EventType::of_word(&signal.event)?;
    let about_stream = signal.user_id.is_empty();
    let may = told == Told::Everyone || signal.known;
    (about_stream || (may && stream.events.contains(&event))).then_some(event)
}

/// The token of an event; `None` if it is for nobody. However often it is made, it says the same.
pub(super) fn token<D: Directory>(
    authority: &Authority<D>,
    told: Told,
    stream: &SignalStream,
    signal: &Signal,
) -> Option<String> {
    // The database's clock may be ahead.
    let happened_at = signal.made_at.min(authority.now());
    let event = wanted(told, stream, signal)?;
    let mut content: Map<String, Value> = serde_json::from_str(&signal.facts).ok()?;
    let subject = if signal.user_id.is_empty() {
        Subject::Stream(stream.id.clone())
    } else {
        content.insert("event_timestamp".to_owned(), happened_at.0.into());
        if let Some(reason) = reason_of(event) {
            content.insert("reason_admin".to_owned(), json!({"en": reason}));
        }
        let person =
            SubId::IssSub { iss: authority.issuer.to_string(), sub: signal.user_id.clone() };
        match content.remove("session") {
            Some(Value::String(session)) => Subject::Session { person: Some(person), session },
            _ => Subject::Person(person),
        }
    };
    let whom = (stream.client_id.as_str(), signal.jti.as_str());
    let what = (event, content);
    let claims = SetClaims::new(&authority.issuer, whom, &subject, what, happened_at);
    // What the interoperability profile asks for, where there is such a key.
    Some(claims.sign(&authority.signing_as(Some(Algorithm::RS256))))
}
