//! Redirect URIs: compared exactly, except for the port of a loopback redirect (RFC 8252 section
//! 7.3).

use crate::identifier::is_loopback;
use url::Url;

/// Redirect URIs of the person's own sign-in at the identity provider: loopback, any port (RFC
/// 8252).
pub const LOOPBACK_REDIRECTS: [&str; 3] =
    ["http://127.0.0.1/callback", "http://[::1]/callback", "http://localhost/callback"];

/// Why a redirect URI cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an absolute https URL (or http on 127.0.0.1, [::1] or localhost; or of a scheme of its own, for a public \
     client) without fragment, user name or wildcard"
)]
pub struct RedirectUriError;

/// Checks a redirect URI with a host.
fn check(text: &str) -> Result<(), RedirectUriError> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>*".contains(&b);
    if text.len() > 2048 || !text.bytes().all(plain) {
        return Err(RedirectUriError);
    }
    let url = Url::parse(text).map_err(|_| RedirectUriError)?;
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && is_loopback_literal(&url));
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    // `Url` lower-cases and completes; but the text itself is stored and compared, so only a text
    // that is in normal form already is unambiguous.
    let spelled = text.starts_with("https://") || text.starts_with("http://");
    // The host is written into a response header, where a semicolon or a comma would be a
    // separator.
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"-.[]:_".contains(&b);
    let spelled = spelled && url.host_str().is_some_and(|host| host.bytes().all(letters));
    if scheme && bare && spelled && !text.contains('@') { Ok(()) } else { Err(RedirectUriError) }
}

/// Schemes with a meaning for browsers, or for programs that most computers have: no client can own
/// them.
const TAKEN: [&str; 115] = [
    "about",
    "acap",
    "afp",
    "android-app",
    "bitcoin",
    "blob",
    "callto",
    "cid",
    "content",
    "cvs",
    "data",
    "dav",
    "davs",
    "dict",
    "dns",
    "facetime",
    "feed",
    "file",
    "filesystem",
    "firefox",
    "ftp",
    "ftps",
    "gemini",
    "geo",
    "git",
    "gopher",
    "gs",
    "hcp",
    "help",
    "http",
    "https",
    "ibooks",
    "imap",
    "intent",
    "ipp",
    "irc",
    "ircs",
    "itms",
    "itms-apps",
    "jar",
    "javascript",
    "jnlp",
    "jnlps",
    "ldap",
    "ldaps",
    "livescript",
    "macappstore",
    "magnet",
    "mailto",
    "maps",
    "market",
    "message",
    "mhtml",
    "mid",
    "mk",
    "mms",
    "mumble",
    "news",
    "nfs",
    "nntp",
    "nxm",
    "oid",
    "prefs",
    "pres",
    "rdp",
    "res",
    "resource",
    "rmi",
    "rsync",
    "rtmp",
    "rtsp",
    "rtsps",
    "s3",
    "search",
    "search-ms",
    "session",
    "settings",
    "sftp",
    "shell",
    "shortcuts",
    "sip",
    "sips",
    "skype",
    "slack",
    "smb",
    "sms",
    "spotify",
    "ssh",
    "steam",
    "stun",
    "svn",
    "teamspeak",
    "tel",
    "telnet",
    "tftp",
    "tg",
    "turn",
    "turns",
    "udp",
    "unix",
    "urn",
    "vbscript",
    "videos",
    "view-source",
    "vnc",
    "wais",
    "webcal",
    "webcals",
    "whatsapp",
    "workflow",
    "xmlrpc",
    "xmpp",
    "zoommtg",
    "zoomus",
    "zune",
];
/// Prefixes of whole families of such schemes.
const TAKEN_BEGINNINGS: [&str; 19] = [
    "ms-",
    "microsoft-",
    "chrome",
    "moz-",
    "edge",
    "opera",
    "brave",
    "safari-",
    "web+",
    "ws",
    "googlechrome",
    "firefox",
    "itms",
    "http",
    "x-apple",
    "x-web",
    "app-settings",
    "fb-",
    "vivaldi",
];
/// Suffixes of schemes that tunnel one protocol through another.
const TAKEN_ENDINGS: [&str; 4] = ["+ssh", "+http", "+https", "+unix"];

/// The scheme of a redirect URI, if it is private to a native program (RFC 8252 section 7.1):
/// `com.example.app:/callback`, or `editor://vendor.extension/callback`. It is compared byte for
/// byte, as registered.
pub fn private_use_scheme(text: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>*@#'`{}|^;,".contains(&b);
    let (scheme, rest) = text.split_once(':')?;
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let spelled = scheme.len() >= 3
        && scheme.bytes().all(letters)
        && scheme.starts_with(|c: char| c.is_ascii_lowercase());
    let taken = TAKEN.contains(&scheme)
        || TAKEN_BEGINNINGS.iter().any(|beginning| scheme.starts_with(beginning))
        || TAKEN_ENDINGS.iter().any(|ending| scheme.ends_with(ending));
    // One slash and a path, or two slashes and a name.
    let goes_somewhere =
        rest.starts_with('/') && rest.trim_start_matches('/').starts_with(|c: char| c != '?');
    let is_url = text.len() <= 2048 && text.bytes().all(plain) && Url::parse(text).is_ok();
    (spelled && !taken && goes_somewhere && is_url).then_some(scheme)
}

/// Checks a redirect URI at registration. A public client may be a program on a person's computer,
/// with a scheme of its own.
pub fn check_for(public: bool, text: &str) -> Result<(), RedirectUriError> {
    if public && private_use_scheme(text).is_some() { Ok(()) } else { check(text) }
}

fn is_loopback_literal(url: &Url) -> bool {
    matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"))
}

/// Whether `presented` is one of `registered`: equal byte for byte, or, for an http loopback
/// redirect, equal apart from the port.
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

/// Host and rest of an http loopback URL, without the port; `None` for any other URL.
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
    fn a_scheme_of_ones_own_is_nobody_elses() {
        for good in [
            "com.example.app:/oauth",
            "exampleeditor://vendor.example-mcp/oauth/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "vscode-insiders://vscode.example/cb?x=1",
        ] {
            assert!(check_for(true, good).is_ok(), "{good}");
            assert!(check(good).is_err(), "{good}: not for a web application");
            assert!(is_registered(good, &[good.to_owned()]));
            assert!(!is_registered(&format!("{good}x"), &[good.to_owned()]), "exactly");
        }
        for bad in [
            "javascript:alert(1)",
            "javascript://x/%0aalert(1)",
            "data:/text",
            "vbscript:/x",
            "file:///x",
            "blob:/x",
            "about:/x",
            "mailto:/x",
            "ms-msdt:/x",
            "chrome-extension://x/y",
            "wss://x/y",
            "intent://x/y",
            "Example:/x",
            "example:",
            "example:x",
            "ex:/x",
            "1ex:/x",
            "example:/x#y",
            "example://u@h/x",
            "example:/a b",
            "example:/a;b",
            "http://example.com/cb",
        ] {
            assert!(check_for(true, bad).is_err(), "{bad}");
        }
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
