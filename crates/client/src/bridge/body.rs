//! The media type of a response.

use http::HeaderValue;

/// The media type in lower case, without parameters.
pub(super) fn media_type(response: &reqwest::Response) -> String {
    let value =
        response.headers().get("content-type").map(HeaderValue::as_bytes).unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
