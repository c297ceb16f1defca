//! Redirect URIs: exact, but for the port of a loopback redirect (RFC 8252 section 7.3, MCP-A1).

use crate::identifier::is_loopback;
use url::Url;

/// Why a redirect URI cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an absolute https URL (or http on 127.0.0.1, [::1] or localhost) without fragment, \
     user name or wildcard"
)]
pub struct RedirectUriError;

/// Checks a redirect URI at registration.
pub fn check(text: &str) -> Result<(), RedirectUriError> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>*".contains(&b);
    if text.len() > 2048 || !text.bytes().all(plain) {
        return Err(RedirectUriError);
    }
    let url = Url::parse(text).map_err(|_| RedirectUriError)?;
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && is_loopback_literal(&url));
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    // `Url` lower-cases and completes; what is stored and compared is the text, so only a text
    // that already is in that form is unambiguous.
    let spelled = text.starts_with("https://") || text.starts_with("http://");
    // The host goes into a header of ours, where a semicolon or a comma begins something else.
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"-.[]:_".contains(&b);
    let spelled = spelled && url.host_str().is_some_and(|host| host.bytes().all(letters));
    if scheme && bare && spelled && !text.contains('@') { Ok(()) } else { Err(RedirectUriError) }
}

fn is_loopback_literal(url: &Url) -> bool {
    matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"))
}

/// Whether `presented` is one of `registered`: byte for byte, or, for an http loopback redirect,
/// equal in everything but the port.
pub fn is_registered(presented: &str, registered: &[String]) -> bool {
    registered.iter().any(|held| held == presented || same_but_for_loopback_port(presented, held))
}

fn same_but_for_loopback_port(presented: &str, registered: &str) -> bool {
    check(presented).is_ok()
        && match (without_port(presented), without_port(registered)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        }
}

/// Host and the rest of an http loopback URL, its port left out; `None` for any other URL.
fn without_port(text: &str) -> Option<(&str, &str)> {
    let url = Url::parse(text).ok()?;
    if !is_loopback(&url) || !is_loopback_literal(&url) {
        return None;
    }
    let rest = text.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = if authority.starts_with('[') {
        &authority[..=authority.find(']')?]
    } else {
        authority.split(':').next()?
    };
    Some((host, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_of_a_loopback_redirect_may_vary() {
        let registered = ["http://localhost/callback".to_owned(), "https://a.example/cb".into()];
        let is = |text: &str| is_registered(text, &registered);
        assert!(is("http://localhost:4711/callback"));
        assert!(is("http://localhost/callback"));
        assert!(is("https://a.example/cb"));
        for other in [
            "https://a.example:8443/cb",
            "https://a.example/cb/",
            "https://A.example/cb",
            "https://a.example/cb?x=1",
            "https://localhost:4711/callback",
            "http://127.0.0.1:4711/callback",
            "http://localhost.evil:80/callback",
            "http://localhost:4711/callback2",
            "http://localhost:4711@evil/callback",
            "http://localhost:4711/callback#x",
            "http://127.0.0.1.evil/callback",
        ] {
            assert!(!is(other), "{other}");
        }
        assert!(is_registered("http://[::1]:9/cb", &["http://[::1]/cb".to_owned()]));
    }

    #[test]
    fn a_script_a_wildcard_or_a_plain_http_host_cannot_be_registered() {
        for bad in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///x",
            "https://*.example/cb",
            "http://a.example/cb",
            "https://a.example/cb#f",
            "https://u@a.example/cb",
            "HTTPS://a.example/cb",
            "/cb",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
