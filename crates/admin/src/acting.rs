//! Who acts, and what that takes.

use super::{Problem, ground::Ground};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use passavant_authority::origin::origin_of;
use passavant_proto::event::{Act, Detail, Event};
use passavant_proto::time::Timestamp;
use passavant_store::{AdminRole, AuditEvent, RestsOn};
use std::ops::Deref;

/// The name in rows of what whoever holds the secret of the config did.
const BY_SECRET: &str = "the config's secret";

/// The administrator behind a request: whatever is let in has one in its extensions.
#[derive(Clone, Debug)]
pub struct By {
    name: String,
    address: String,
    request_id: String,
    /// None for whoever holds the secret of the config.
    rests_on: Option<RestsOn>,
}

impl By {
    pub(super) fn new(rests_on: Option<RestsOn>, parts: &Parts) -> Self {
        let (request_id, address) = origin_of(parts);
        let name =
            rests_on.as_ref().map_or(BY_SECRET, |rests_on| rests_on.name.as_str()).to_owned();
        Self { name, address, request_id, rests_on }
    }

    /// Their name, or that of whoever holds the secret of the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The event of an act of theirs.
    pub fn act(&self, act: Act, kind: &'static str, now: Timestamp) -> AuditEvent {
        let mut event = AuditEvent::granted(Event::Admin(act, kind), now)
            .with(Detail::By, self.name.as_str())
            .with(Detail::Address, self.address.as_str())
            .with(Detail::RequestId, self.request_id.as_str());
        event.rests_on.clone_from(&self.rests_on);
        event
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    CutOff,
    Change,
    Appoint,
}

impl Need {
    /// By method and route, as the table of routes writes it below what is administered: no name of a record is looked
    /// at. Whatever is not known to be less is a change.
    pub(super) fn of(method: &Method, route: &str) -> Self {
        match *method {
            Method::GET | Method::HEAD => Self::Read,
            _ if route == "/administrators" || route.starts_with("/administrators/") => {
                Self::Appoint
            }
            Method::POST if matches!(route, "/explain" | "/accounts/links") => Self::Read,
            Method::POST if route.ends_with("/disable") => Self::CutOff,
            Method::DELETE if route == "/installations/{id}" => Self::CutOff,
            _ => Self::Change,
        }
    }

    /// The least role that may.
    pub(super) const fn least(self) -> AdminRole {
        match self {
            Self::Read => AdminRole::Auditor,
            Self::CutOff => AdminRole::Helpdesk,
            Self::Change => AdminRole::Admin,
            Self::Appoint => AdminRole::Owner,
        }
    }
}

/// What administration rests on: an IdP's, a RAS's.
pub(super) trait Administration: Clone + Send + Sync {
    fn ground(&self) -> &Ground;
}

/// The ground with who stands on it: there is no event without them.
pub(super) struct Desk {
    ground: Ground,
    pub(super) by: By,
}

impl Deref for Desk {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Desk {
    /// The event of an act.
    pub(super) fn act(&self, act: Act, kind: &'static str) -> AuditEvent {
        self.by.act(act, kind, self.now())
    }
}

/// Administration with the administrator who asks for something.
pub(super) struct Acting<A> {
    pub(super) of: A,
    pub(super) desk: Desk,
}

impl<A: Administration> FromRequestParts<A> for Acting<A> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, of: &A) -> Result<Self, Self::Rejection> {
        // The gate puts it there: without it nobody was let in.
        let by = parts.extensions.get::<By>().cloned().ok_or_else(|| {
            let problem = Problem::new("nobody is known to ask");
            (StatusCode::INTERNAL_SERVER_ERROR, Json(problem)).into_response()
        })?;
        Ok(Self { of: of.clone(), desk: Desk { ground: of.ground().clone(), by } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_known_to_be_less_is_a_change() {
        use Need::{Appoint, Change, CutOff, Read};
        for (method, path, need) in [
            (Method::GET, "/users", Read),
            (Method::GET, "/administrators", Read),
            (Method::POST, "/explain", Read),
            (Method::POST, "/accounts/links", Read),
            (Method::POST, "/users/{id}/disable", CutOff),
            (Method::POST, "/clients/disable", CutOff),
            (Method::DELETE, "/installations/{id}", CutOff),
            (Method::POST, "/users/{id}/enable", Change),
            (Method::POST, "/users/{id}/password", Change),
            (Method::DELETE, "/users/{id}", Change),
            (Method::POST, "/keys/rotate", Change),
            (Method::POST, "/new/route", Change),
            (Method::POST, "", Change),
            (Method::PUT, "/users/{id}/disable", Change),
            (Method::POST, "/administrators", Appoint),
            (Method::POST, "/administrators/delete", Appoint),
            (Method::POST, "/administrators/disable", Appoint),
        ] {
            assert_eq!(Need::of(&method, path), need, "{method} {path}");
        }
    }
}
