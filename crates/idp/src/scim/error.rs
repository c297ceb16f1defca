//! What is answered to a provisioner whose request cannot be done (RFC 7644, section 3.12).

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};

/// The schema of errors.
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// The media type of every answer.
pub(super) const MEDIA_TYPE: &str = "application/scim+json";

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScimError {
    pub(super) status: StatusCode,
    /// One of the words of table 9.
    pub(super) scim_type: Option<&'static str>,
    pub(super) detail: String,
}

impl ScimError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, scim_type: None, detail: detail.into() }
    }

    fn bad(scim_type: &'static str, detail: impl Into<String>) -> Self {
        Self { scim_type: Some(scim_type), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    pub(super) fn syntax(detail: impl Into<String>) -> Self {
        Self::bad("invalidSyntax", detail)
    }

    pub(super) fn value(detail: impl Into<String>) -> Self {
        Self::bad("invalidValue", detail)
    }

    pub(super) fn path(detail: impl Into<String>) -> Self {
        Self::bad("invalidPath", detail)
    }

    pub(super) fn filter(detail: impl Into<String>) -> Self {
        Self::bad("invalidFilter", detail)
    }

    pub(super) fn mutability(attribute: &str) -> Self {
        Self::bad("mutability", format!("`{attribute}` is not a provisioner's to change"))
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::bad("tooMany", detail)
    }

    pub(super) fn taken(detail: impl Into<String>) -> Self {
        Self { scim_type: Some("uniqueness"), ..Self::new(StatusCode::CONFLICT, detail) }
    }

    pub(super) fn missing() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing of this upstream's at this address")
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// The body: `status` is a text there.
    pub(super) fn body(&self) -> Value {
        let mut body =
            json!({"schemas": [ERROR], "status": self.status.as_str(), "detail": self.detail});
        if let Some(word) = self.scim_type {
            body["scimType"] = word.into();
        }
        body
    }

    pub(super) fn answer(&self) -> Response<Body> {
        let mut response = answer(self.status, &self.body());
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer realm=\"provisioning\"");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

/// An answer that no cache may store.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
