//! `application/x-www-form-urlencoded` requests, parsed strictly.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Maximum number of parameters, more than any request needs.
const MOST: usize = 64;

/// Why a form is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Not UTF-8 after decoding, or with a NUL.
    #[error("the request is not a UTF-8 form without NUL characters")]
    NotUtf8,
    /// More than 64 parameters.
    #[error("the request has more than 64 parameters")]
    TooMany,
    /// A parameter other than `resource` occurs twice (RFC 6749 section 3.2).
    #[error("a parameter is repeated; only `resource` may be")]
    Repeated,
    /// A required parameter is absent or empty.
    #[error("the `{0}` parameter is missing or empty")]
    Missing(&'static str),
    /// The value of a parameter is malformed.
    #[error("the `{0}` parameter is malformed")]
    Malformed(&'static str),
}

/// A decoded form. Unknown parameters are ignored and empty ones count as absent (RFC 6749 3.1).
/// Only `resource` may be repeated.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Decodes a body or query.
    pub fn parse(text: &[u8]) -> Result<Self, FormError> {
        let text = std::str::from_utf8(text).map_err(|_| FormError::NotUtf8)?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            if pairs.len() == MOST {
                return Err(FormError::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if name != "resource" && pairs.iter().any(|(held, _)| *held == name) {
                return Err(FormError::Repeated);
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; `None` if it is absent or blank.
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The value of a required parameter, which must not be blank.
    pub fn required(&self, name: &'static str) -> Result<&str, FormError> {
        self.optional(name).ok_or(FormError::Missing(name))
    }

    /// All values of a parameter that may be repeated.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(held, value)| *held == name && !value.trim().is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The parameters with these names, as a query.
    pub fn only(&self, names: &[&str]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let wanted = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        query.extend_pairs(wanted).finish()
    }

    /// Whether a parameter was sent at all, even if blank.
    pub fn mentions(&self, name: &str) -> bool {
        self.0.iter().any(|(held, _)| held == name)
    }
}

fn decode(text: &str) -> Result<String, FormError> {
    let spaced: Cow<'_, str> =
        if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| FormError::NotUtf8)?;
    // Neither database columns nor identifiers may contain a NUL.
    if decoded.contains('\0') {
        return Err(FormError::NotUtf8);
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_absent_unknown_is_ignored_and_repeated_is_refused() {
        let form = Form::parse(b"a=1&b=&c=%20&resource=x&resource=y&d=p+q%2B").unwrap();
        assert_eq!(form.required("a"), Ok("1"));
        assert_eq!(form.required("b"), Err(FormError::Missing("b")));
        assert_eq!(form.required("c"), Err(FormError::Missing("c")));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(form.optional("d"), Some("p q+"));
        assert_eq!(Form::parse(b"a=1&a=1").unwrap_err(), FormError::Repeated);
        assert_eq!(Form::parse(b"a=%ff").unwrap_err(), FormError::NotUtf8);
        let many = (0..65).map(|i| format!("p{i}=1")).collect::<Vec<_>>().join("&");
        assert_eq!(Form::parse(many.as_bytes()).unwrap_err(), FormError::TooMany);
    }
}
