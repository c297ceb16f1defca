//! Media types: parsed strictly, and written by this gateway. A sender's `Content-Type` is never
//! forwarded, since readers interpret it differently: if one ignores a charset and another decodes
//! by it, one body becomes two.

use http::{HeaderMap, HeaderValue, header};

/// The type of forwarded request bodies, and of answers that are JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The type of answers that are event streams.
pub(crate) const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
/// The type of every other answer: text for a person, never a page of this origin.
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The kind of an answer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One JSON document in UTF-8.
    Json,
    /// Server-sent events.
    Events,
    /// Something else.
    Other,
}

/// What is wrong with the media type of a body or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    /// There is none, there are two, or it is not ASCII.
    NotOne,
    /// It does not follow the syntax of RFC 9110, 8.3.1.
    Malformed,
    /// A charset other than UTF-8, or two charsets.
    Charset,
}

impl Odd {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NotOne => "There has to be exactly one Content-Type: application/json.",
            Self::Malformed => "Content-Type cannot be read; send: application/json.",
            Self::Charset => {
                "JSON is UTF-8: send Content-Type: application/json, without another charset."
            }
        }
    }
}

/// The essence of the one media type, in lower case, and whether its charset is UTF-8.
fn essence(headers: &HeaderMap) -> Result<(String, bool), Odd> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or(Odd::NotOne)?;
    if values.next().is_some() {
        return Err(Odd::NotOne);
    }
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let halves = essence.split_once('/').ok_or(Odd::Malformed)?;
    if !is_token(halves.0) || !is_token(halves.1) {
        return Err(Odd::Malformed);
    }
    let (mut charset, mut utf8) = (false, true);
    // An empty parameter is legal (RFC 9110, 5.6.6).
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or(Odd::Malformed)?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        // A quoted value with characters outside of a token could defeat the split at semicolons.
        let value = quoted.unwrap_or(value);
        if !is_token(name) || !is_token(value) {
            return Err(Odd::Malformed);
        }
        // Some readers take `charset*` for a charset (RFC 8187).
        if name
            .trim_end_matches(|c: char| c == '*' || c.is_ascii_digit())
            .eq_ignore_ascii_case("charset")
        {
            let named = value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8");
            utf8 = named && !charset && name.eq_ignore_ascii_case("charset");
            charset = true;
        }
        if !utf8 {
            break;
        }
    }
    Ok((essence.to_ascii_lowercase(), utf8))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Checks that a request's body is JSON in UTF-8, beyond doubt for any reader.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Odd> {
    match essence(headers)? {
        (essence, _) if essence != "application/json" => Err(Odd::NotOne),
        (_, true) => Ok(()),
        (_, false) => Err(Odd::Charset),
    }
}

/// The kind of an answer. An answer without a body has none.
pub(crate) fn of_answer(headers: &HeaderMap) -> Result<Option<Kind>, Odd> {
    if !headers.contains_key(header::CONTENT_TYPE) {
        return Ok(None);
    }
    let (essence, utf8) = essence(headers)?;
    let kind = match essence.as_str() {
        "application/json" => Kind::Json,
        "text/event-stream" => Kind::Events,
        _ => return Ok(Some(Kind::Other)),
    };
    if utf8 { Ok(Some(kind)) } else { Err(Odd::Charset) }
}

/// Whether the body has no content coding: the gateway could not inspect coded bytes, and readers
/// that do not decode them see something else.
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_TYPE, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn json_is_utf8_and_nothing_else() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; charset=utf8;",
            "application/json; profile=x",
        ] {
            assert_eq!(check_json(&headers(&[good])), Ok(()), "{good}");
        }
        for (bad, odd) in [
            ("application/json; charset=utf-7", Odd::Charset),
            ("application/json; charset=UTF-7", Odd::Charset),
            ("application/json; charset=\"utf-7\"", Odd::Charset),
            ("application/json; charset=utf-16", Odd::Charset),
            ("application/json; charset=utf-16le", Odd::Charset),
            ("application/json; charset=gbk", Odd::Charset),
            ("application/json; charset=shift_jis", Odd::Charset),
            ("application/json; charset=iso-8859-1", Odd::Charset),
            ("application/json; Charset=utf-7", Odd::Charset),
            ("application/json; charset=utf-8; charset=utf-7", Odd::Charset),
            ("application/json; charset=utf-8; charset=utf-8", Odd::Charset),
            ("application/json; charset*=utf-7", Odd::Charset),
            ("application/json; charset*0=utf-7", Odd::Charset),
            ("application/json; charset =utf-7", Odd::Malformed),
            ("application/json; charset= utf-7", Odd::Malformed),
            ("application/json; charset=", Odd::Malformed),
            ("application/json; charset", Odd::Malformed),
            ("application/json; x=\"a; charset=utf-7\"", Odd::Malformed),
            ("application/json, text/plain", Odd::Malformed),
            ("application/json charset=utf-7", Odd::Malformed),
            ("application/json-seq", Odd::NotOne),
            ("text/plain", Odd::NotOne),
            ("", Odd::Malformed),
        ] {
            assert_eq!(check_json(&headers(&[bad])), Err(odd), "{bad}");
        }
        assert_eq!(check_json(&headers(&[])), Err(Odd::NotOne));
        let twice = headers(&["application/json", "application/json; charset=utf-7"]);
        assert_eq!(check_json(&twice), Err(Odd::NotOne));
        assert_eq!(check_json(&headers(&["application/json"; 2])), Err(Odd::NotOne));
    }

    #[test]
    fn an_answer_is_json_events_or_words() {
        let of = |values: &[&str]| of_answer(&headers(values));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["application/json;charset=UTF-8"]), Ok(Some(Kind::Json)));
        assert_eq!(of(&["text/event-stream"]), Ok(Some(Kind::Events)));
        assert_eq!(of(&["text/html"]), Ok(Some(Kind::Other)));
        assert_eq!(of(&["text/html; charset=iso-8859-1"]), Ok(Some(Kind::Other)));
        assert_eq!(of(&["application/json-seq"]), Ok(Some(Kind::Other)));
        assert_eq!(of(&["application/json; charset=utf-16le"]), Err(Odd::Charset));
        assert_eq!(of(&["application/json", "text/html"]), Err(Odd::NotOne));
    }
}
