//! Sign-in with a user name and a password.

use super::session::known_browser;
use crate::state::Idp;
use axum::http::{StatusCode, request::Parts};
use passavant_authority::{admission::UNDER_WAY, origin::origin_of, passwords};
use passavant_proto::{
    event::{Detail, RequestEvent},
    secret::{Secret, sha256},
};
use passavant_store::{AuditEvent, StoreError, User};
use std::time::Duration;

pub(crate) enum NotSignedIn {
    Wrong,
    Wait(u64),
    /// The maximum number of checks for this person is in progress.
    UnderWay,
    Broken(StoreError),
}

impl NotSignedIn {
    /// Status and text for the person, and how many seconds to wait.
    pub(crate) fn told(&self) -> (StatusCode, &'static str, Option<u64>) {
        match self {
            Self::Wrong => {
                let text = "User name or password is wrong, or your account is switched off.";
                (StatusCode::UNAUTHORIZED, text, None)
            }
            Self::Wait(seconds) => {
                let text = "Too many failed sign-ins. Wait a minute, then try again.";
                (StatusCode::TOO_MANY_REQUESTS, text, Some(*seconds))
            }
            Self::UnderWay => {
                let text = "Others are signing in with this name just now. Try again in a moment.";
                (StatusCode::TOO_MANY_REQUESTS, text, Some(2))
            }
            Self::Broken(_) => {
                let text = "The server cannot answer just now; try again.";
                (StatusCode::SERVICE_UNAVAILABLE, text, Some(5))
            }
        }
    }
}

/// How often a sign-in waits for others of the same person that are in progress, and how long each
/// time.
const TURNS: u32 = 20;

const TURN: Duration = Duration::from_millis(150);

/// Takes the same time for an unknown user as for a wrong password, and has the same result. The
/// attempt is counted before the password is checked.
pub(crate) async fn check_password(
    idp: &Idp,
    username: &str,
    password: &Secret,
    parts: &Parts,
) -> Result<User, NotSignedIn> {
    let state = &idp.0;
    let authority = &state.authority;
    let (request_id, address) = origin_of(parts);
    let username = passwords::normal_username(username);
    let found =
        authority.store.usable_by_name::<User>(&username).await.map_err(NotSignedIn::Broken)?;
    let browser = known_browser(idp, &parts.headers).await.map_err(NotSignedIn::Broken)?;
    let known = found.as_ref().zip(browser);
    let known = known.and_then(|(user, held)| held.of(&user.id, user.password_hash.as_deref()));
    let person = sha256(username.as_bytes());
    let mut turns = TURNS;
    let attempt = loop {
        match state.admission.sign_in(&address, &person, known.as_deref()) {
            Ok(attempt) => break attempt,
            Err(UNDER_WAY) if turns > 0 => {
                turns -= 1;
                tokio::time::sleep(TURN).await;
            }
            Err(UNDER_WAY) => return Err(NotSignedIn::UnderWay),
            Err(busy) => return Err(NotSignedIn::Wait(busy.0)),
        }
    };
    let live = found.filter(|user| !user.is_off());
    let hash = live.as_ref().and_then(|user| user.password_hash.as_deref());
    let short_enough = password.expose().len() <= passwords::LONGEST;
    let hash = hash.filter(|_| short_enough);
    let Ok(right) = state.passwords.verify(password, hash).await else {
        attempt.undone();
        return Err(NotSignedIn::Wait(5));
    };
    match live {
        Some(user) if right => {
            attempt.right();
            Ok(user)
        }
        known => {
            attempt.wrong();
            let event = AuditEvent::granted(RequestEvent::SignIn, authority.now())
                .person(known.map(|user| user.id).unwrap_or_default())
                .with(Detail::RequestId, request_id)
                .with(Detail::Address, address)
                .refused("sign_in.password");
            let recorded = authority.store.note(event, authority.now()).await;
            recorded.map_err(NotSignedIn::Broken)?;
            Err(NotSignedIn::Wrong)
        }
    }
}
