//! Request parsing: who acts, the body, the query. An error names its path.

use super::problem::{broken, refuse};
use crate::{
    acts::context::{ActContext, By},
    servers::Administration,
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, Method, Response, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use serde::de::DeserializeOwned;

/// The server, together with the administrator who sent the request.
pub(super) struct Acting<A> {
    pub(super) of: A,
    pub(super) context: ActContext,
}

/// The ETag that the record has to have: one strong ETag, or `*` for any.
fn expected(headers: &HeaderMap) -> Result<Option<String>, Response<Body>> {
    let mut all = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = all.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| all.next().is_none());
    match text {
        Some("*") => Ok(None),
        Some(text) => {
            let tag = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            tag.filter(|tag| !tag.contains('"')).map(|tag| Some(tag.to_owned())).ok_or_else(bad_tag)
        }
        None => Err(bad_tag()),
    }
}

fn bad_tag() -> Response<Body> {
    let hint = "send the ETag of a GET as it came, with its quotation marks";
    refuse(StatusCode::BAD_REQUEST, "`If-Match` is not exactly one ETag", Some(hint))
}

impl<A: Administration> FromRequestParts<A> for Acting<A> {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, of: &A) -> Result<Self, Self::Rejection> {
        // The gate inserts it; without it nobody was authenticated.
        let by = parts.extensions.get::<By>().cloned().ok_or_else(|| {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the request was not authenticated", None)
        })?;
        let expects = expected(&parts.headers)?;
        let deps = of.deps().clone();
        // An addition or change is checked against other records, which must be the same when it is
        // carried out.
        let checks = parts.method == Method::PATCH || parts.method == Method::POST;
        let policy = if checks {
            Some(deps.store.generation().await.map_err(|error| broken(&error))?)
        } else {
            None
        };
        Ok(Self { of: of.clone(), context: ActContext { deps, by, expects, policy } })
    }
}

/// A JSON body.
pub(super) struct Said<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        read(&bytes).map(Self).map_err(|text| refuse(StatusCode::BAD_REQUEST, text, None))
    }
}

/// Parses a body. Stored records are parsed tolerantly, requests are not: an unknown member is an
/// error, since it would have no effect.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // Serde also accepts an array for an object.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err("the body: expected an object, found an array".to_owned());
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path.to_string());
    };
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let read = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    let value = read.map_err(|error| format!("`{}`: {error}", track.path()))?;
    if let Some(unknown) = unknown {
        return Err(format!("`{unknown}`: there is no such member"));
    }
    json.end().map_err(|error| format!("after the body: {error}"))?;
    Ok(value)
}

/// A query.
pub(super) struct QueryParams<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Response<Body>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|query| Self(query.0)).map_err(|error| {
            refuse(StatusCode::BAD_REQUEST, format!("the query: {}", error.body_text()), None)
        })
    }
}
