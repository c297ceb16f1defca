//! Who acts, and what that takes.

use super::{Problem, records::Ground};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use carnet_authority::token_endpoint::origin_of;
use carnet_proto::time::Timestamp;
use carnet_store::{AdminRole, AuditEvent};
use std::ops::Deref;

/// The name in rows of what whoever holds the secret of the config did.
const BY_SECRET: &str = "the config's secret";

/// The administrator behind a request: whatever is let in has one in its extensions.
#[derive(Clone, Debug)]
pub struct By {
    name: String,
    address: String,
    request_id: String,
}

impl By {
    pub(super) fn new(name: Option<&str>, parts: &Parts) -> Self {
        let (request_id, address) = origin_of(parts);
        Self { name: name.unwrap_or(BY_SECRET).to_owned(), address, request_id }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The event of an act of theirs.
    pub fn act(&self, act: &str, now: Timestamp) -> AuditEvent {
        AuditEvent::granted(format!("admin.{act}"), now)
            .with("by", self.name.as_str())
            .with("address", self.address.as_str())
            .with("request_id", self.request_id.as_str())
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
    /// By method and path; whatever is not known to be less is a change.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        // The last two after the authorization server's own: a kind and what is done with it.
        let has = |part: &str| parts.contains(&part);
        match *method {
            Method::GET | Method::HEAD => Self::Read,
            _ if has("administrators") => Self::Appoint,
            Method::POST if path.ends_with("/explain") || path.ends_with("/accounts/links") => {
                Self::Read
            }
            Method::POST if path.ends_with("/disable") => Self::CutOff,
            Method::DELETE if parts.len() >= 3 && parts[parts.len() - 2] == "installations" => {
                Self::CutOff
            }
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
    pub(super) fn act(&self, act: &str) -> AuditEvent {
        self.by.act(act, self.now())
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
            (Method::GET, "/idp/users", Read),
            (Method::GET, "/idp/administrators", Read),
            (Method::POST, "/idp/explain", Read),
            (Method::POST, "/ras/notes/accounts/links", Read),
            (Method::POST, "/idp/users/erin/disable", CutOff),
            (Method::POST, "/ras/notes/clients/disable", CutOff),
            (Method::DELETE, "/idp/installations/x", CutOff),
            (Method::POST, "/idp/users/erin/enable", Change),
            (Method::POST, "/idp/users/erin/password", Change),
            (Method::DELETE, "/idp/users/disable", Change),
            (Method::DELETE, "/idp/users/erin", Change),
            (Method::POST, "/idp/keys/rotate", Change),
            (Method::POST, "/idp/new/route", Change),
            (Method::PUT, "/idp/users/x/disable", Change),
            (Method::POST, "/idp/administrators", Appoint),
            (Method::POST, "/ras/notes/administrators/delete", Appoint),
            (Method::POST, "/idp/administrators/disable", Appoint),
        ] {
            assert_eq!(Need::of(&method, path), need, "{method} {path}");
        }
    }
}
