//! Error responses (RFC 9457).

use crate::{acts::ActError, types::Problem};
use axum::{
    Json,
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};

/// Marks the response to a request that has to be processed again.
#[derive(Clone)]
pub(super) struct Again;

/// A refusal.
pub(super) fn refuse(
    status: StatusCode,
    detail: impl Into<String>,
    hint: Option<&str>,
) -> Response<Body> {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail: detail.into(),
        hint: hint.map(str::to_owned),
    };
    let mut response = (status, Json(problem)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A failure on our side; logged once.
pub(super) fn broken(error: &passavant_store::StoreError) -> Response<Body> {
    tracing::error!(%error, "an administration request failed");
    let detail =
        "the records cannot be read or written just now; whether a change was made is unknown";
    let mut response = refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        detail,
        Some("read the records to see whether the change was made, and repeat it if not"),
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(5));
    response
}

impl IntoResponse for ActError {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::Invalid(detail, hint) => refuse(StatusCode::BAD_REQUEST, detail, Some(&hint)),
            Self::Missing(detail, hint) => refuse(StatusCode::NOT_FOUND, detail, Some(&hint)),
            Self::Conflict(detail, hint) => refuse(StatusCode::CONFLICT, detail, Some(&hint)),
            Self::Changed => refuse(
                StatusCode::PRECONDITION_FAILED,
                "the record was changed since it was read; nothing was done",
                Some("read it again, and send its ETag in If-Match"),
            ),
            Self::Stale => {
                let mut response = refuse(
                    StatusCode::CONFLICT,
                    "other records were changed at the same time; nothing was done",
                    Some("ask again"),
                );
                response.extensions_mut().insert(Again);
                response
            }
            Self::DoneBefore => refuse(
                StatusCode::CONFLICT,
                "a request with this Idempotency-Key is being answered; nothing was done again",
                Some("ask again with the same key in a moment"),
            ),
            Self::Gone => refuse(
                StatusCode::UNAUTHORIZED,
                "your account as an administrator was removed meanwhile, or its token or role was \
                 changed; nothing was done",
                Some("ask an owner"),
            ),
            Self::Broken(error) => broken(&error),
        }
    }
}

/// Converts error responses of other parts of the server to the common format.
pub(super) async fn as_problem(response: Response<Body>) -> Response<Body> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let said = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    if said || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let json = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default();
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let plain = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty() && json.is_null());
    let detail = text("error").or_else(|| plain.map(str::to_owned));
    let reason = status.canonical_reason().unwrap_or_default();
    let hint = text("hint");
    let mut response =
        refuse(status, detail.unwrap_or_else(|| reason.to_lowercase()), hint.as_deref());
    for (name, value) in &head.headers {
        if *name == header::ALLOW || *name == header::RETRY_AFTER {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    response
}
