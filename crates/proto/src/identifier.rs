//! The URLs that identify parties: issuers and resources. They are different types because passing
//! one for the other is the most common mistake in this field.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{Ipv4Addr, Ipv6Addr},
};
use url::{Host, Url};

/// Longest URL accepted as an identifier, in bytes.
const LONGEST: usize = 2048;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// Not a URL at all, or one with characters no URL may have.
    #[error(
        "is not an absolute URL like https://idp.example, of printable ASCII characters, 2048 bytes at most"
    )]
    NotUrl,
    /// A scheme other than https, and not http on loopback.
    #[error("must begin with https:// (http:// is accepted on loopback only)")]
    Scheme,
    /// A host that no name server knows, such as a wildcard.
    #[error("must have a host of letters, digits, `-`, `.` and `_`, or an IP address")]
    Host,
    /// User name or password inside.
    #[error("must not carry a user name or password")]
    UserInfo,
    /// A `#fragment`.
    #[error("must not have a fragment (RFC 8707 section 2)")]
    Fragment,
    /// Not the entity ID of a SAML provider.
    #[error("is not an entity ID: 1 to 1024 of the characters that a URI may have")]
    EntityId,
    /// A `?query` in an issuer.
    #[error("must not have a query (RFC 8414 section 2)")]
    Query,
}

/// Whether a text has only the characters of RFC 3986: identifiers are written into other programs'
/// configs and command lines, some of which expand placeholders such as `${…}`.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b);
    text.bytes().all(plain) && !text.contains("$(")
}

fn parse_url(text: &str) -> Result<Url, IdentifierError> {
    if text.is_empty() || text.len() > LONGEST || !is_plain(text) {
        return Err(IdentifierError::NotUrl);
    }
    let url = Url::parse(text).map_err(|_| IdentifierError::NotUrl)?;
    // WHATWG parsing repairs `https:host` and `https:///host`; an identifier is not repaired.
    let authority = text.split_once("://").map(|(_, rest)| rest);
    if authority.is_none_or(|rest| rest.starts_with('/')) {
        return Err(if matches!(url.scheme(), "https" | "http") {
            IdentifierError::NotUrl
        } else {
            IdentifierError::Scheme
        });
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        _ => return Err(IdentifierError::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() || has_userinfo(authority) {
        return Err(IdentifierError::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(IdentifierError::Fragment);
    }
    let of_a_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if matches!(url.host(), Some(Host::Domain(name)) if !name.bytes().all(of_a_name)) {
        return Err(IdentifierError::Host);
    }
    Ok(url)
}

fn has_userinfo(authority: Option<&str>) -> bool {
    authority.is_some_and(|rest| rest.split(['/', '?', '#']).next().unwrap_or("").contains('@'))
}

/// Whether the URL's host is this machine: `localhost`, 127.0.0.0/8 or `::1`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => Ipv4Addr::is_loopback(&ip),
        Some(Host::Ipv6(ip)) => Ipv6Addr::is_loopback(&ip),
        None => false,
    }
}

/// An authorization server's issuer identifier (RFC 8414 section 2), the IdP's or a RAS's. Compared
/// byte for byte; as `aud` of an ID-JAG it is the *audience*, never the resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issuer(String);

impl Issuer {
    /// Checks that `text` can be an issuer: https (http on loopback), no query, no fragment.
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        let url = parse_url(text)?;
        if url.query().is_some() {
            return Err(IdentifierError::Query);
        }
        Ok(Self(text.to_owned()))
    }

    /// The exact spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` names this issuer, apart from one trailing slash. Use it only to *find* an
    /// audience that a client wrote with or without a slash, never to check a signed claim.
    pub fn is_spelled(&self, text: &str) -> bool {
        text.strip_suffix('/').unwrap_or(text) == self.0.strip_suffix('/').unwrap_or(&self.0)
    }

    /// The URL of a well-known document with the suffix inserted between host and path, as RFC 8414
    /// section 3.1 asks: `https://a/x` and `oauth-authorization-server` give
    /// `https://a/.well-known/oauth-authorization-server/x`.
    pub fn well_known_inserted(&self, suffix: &str) -> String {
        inserted(&self.0, suffix)
    }

    /// The URL of a well-known document appended to the issuer, as OIDC Discovery section 4 asks.
    pub fn well_known_appended(&self, suffix: &str) -> String {
        format!("{}/.well-known/{suffix}", self.0.trim_end_matches('/'))
    }

    /// Path below the issuer: `https://a/x` and `/token` give `https://a/x/token`.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.0.trim_end_matches('/'))
    }

    /// The issuer's own path without trailing slash, empty for an issuer at the origin.
    pub fn path(&self) -> &str {
        path_of(&self.0).trim_end_matches('/')
    }

    /// Scheme, host and port, without trailing slash.
    pub fn origin(&self) -> &str {
        self.0.strip_suffix(path_of(&self.0)).unwrap_or(&self.0)
    }
}

/// Who names a person: an issuer identifier, or the entity ID of a SAML identity provider, which may be
/// a URN or a URL at which nothing is. Compared byte for byte, never followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectIssuer(String);

impl SubjectIssuer {
    /// Checks that `text` can be an entity ID: up to 1024 characters of a URI (SAML 2.0 Core 8.3.6).
    pub fn entity_id(text: &str) -> Result<Self, IdentifierError> {
        if (1..=1024).contains(&text.len()) && is_plain(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(IdentifierError::EntityId)
    }

    /// One or the other, as it was stored.
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        Issuer::parse(text).map(Self::from).or_else(|_| Self::entity_id(text))
    }

    /// The exact spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Issuer> for SubjectIssuer {
    fn from(issuer: &Issuer) -> Self {
        Self(issuer.0.clone())
    }
}

impl From<Issuer> for SubjectIssuer {
    fn from(issuer: Issuer) -> Self {
        Self(issuer.0)
    }
}

fn path_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |i| i + 3);
    url[after_scheme..].find('/').map_or("", |i| &url[after_scheme + i..])
}

fn inserted(url: &str, suffix: &str) -> String {
    let path = path_of(url);
    let origin = url.strip_suffix(path).unwrap_or(url);
    format!("{origin}/.well-known/{suffix}{}", path.trim_end_matches('/'))
}

/// An MCP server's RFC 9728 resource identifier. Compared after the syntax-based normalization of
/// RFC 3986 section 6.2.2 (ID-JAG draft section 3.1); the given spelling is kept for responses.
#[derive(Clone, Debug)]
pub struct Resource {
    spelling: String,
    normal: String,
}

impl Resource {
    /// Checks that `text` can be a resource: https (http on loopback), no user info, no fragment.
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        let url = parse_url(text)?;
        Ok(Self { spelling: text.to_owned(), normal: normal_percent(url.as_str()) })
    }

    /// The spelling that was parsed.
    pub fn as_str(&self) -> &str {
        &self.spelling
    }

    /// The normalized form, equal for equal resources.
    pub fn normalized(&self) -> &str {
        &self.normal
    }

    /// The RFC 9728 section 3.1 metadata URL, with the well-known path inserted before the path.
    pub fn metadata_url(&self) -> String {
        let base = self.normal.split('?').next().unwrap_or(&self.normal);
        inserted(base, "oauth-protected-resource")
    }

    /// Path of the resource without trailing slash, empty at the origin.
    pub fn path(&self) -> &str {
        path_of(self.normal.split('?').next().unwrap_or("")).trim_end_matches('/')
    }
}

/// RFC 3986 section 6.2.2.1 and 6.2.2.2: upper-case hex digits, unreserved characters decoded.
/// Scheme, host, port and dot segments are normalized by the URL parser before this.
fn normal_percent(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    let bytes = url.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        // Exactly two hex digits: a number parser would also accept a sign.
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        let encoded = (bytes[i] == b'%').then(|| Some((digit(i + 1)?, digit(i + 2)?))).flatten();
        match encoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                i += 3;
            }
            None => {
                out.push(char::from(bytes[i]));
                i += 1;
            }
        }
    }
    out
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}
impl Eq for Resource {}
impl Hash for Resource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal.hash(state);
    }
}
impl PartialOrd for Resource {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Resource {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.normal.cmp(&other.normal)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelling)
    }
}
impl Serialize for Issuer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Issuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|e| D::Error::custom(format!("`{text}` {e}")))
    }
}
impl fmt::Display for SubjectIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SubjectIssuer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for SubjectIssuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|e| D::Error::custom(format!("`{text}` {e}")))
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.spelling)
    }
}
impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|e| D::Error::custom(format!("`{text}` {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_equal_exactly_when_their_normal_forms_are() {
        let r = |t: &str| Resource::parse(t).unwrap();
        assert_eq!(r("HTTPS://MCP.example:443/a/../b"), r("https://mcp.example/b"));
        assert_eq!(r("https://mcp.example/%61%2f"), r("https://mcp.example/a%2F"));
        assert_eq!(r("https://mcp.example"), r("https://mcp.example/"));
        assert_ne!(r("https://mcp.example/mcp"), r("https://mcp.example/mcp/"));
        assert_ne!(r("https://mcp.example/a%2Fb"), r("https://mcp.example/a/b"));
        assert_ne!(r("https://mcp.example/A"), r("https://mcp.example/a"));
        assert_ne!(r("https://mcp.example/a"), r("https://mcp.example:8443/a"));
        assert_eq!(r("HTTPS://mcp.example").as_str(), "HTTPS://mcp.example");
    }

    #[test]
    fn what_cannot_name_a_resource_is_refused() {
        use IdentifierError::*;
        let long = format!("https://a/{}", "x".repeat(4096));
        for (text, why) in [
            ("", NotUrl),
            ("/mcp", NotUrl),
            ("https://a/b#c", Fragment),
            ("https://u:p@a/", UserInfo),
            ("https://@a/", UserInfo),
            ("javascript:alert(1)", Scheme),
            ("http://mcp.example/", Scheme),
            ("https:\\\\a\\b", NotUrl),
            ("https:/a", NotUrl),
            ("https://*.example", Host),
            ("https://a(b)/", Host),
            ("https://mcp.example,evil.example/", Host),
            ("https:///a", NotUrl),
            ("https://a/\u{7f}", NotUrl),
            (" https://a/", NotUrl),
            (&long, NotUrl),
        ] {
            assert_eq!(Resource::parse(text).unwrap_err(), why, "{text}");
        }
        assert_eq!(Issuer::parse("https://a/?x=1").unwrap_err(), Query);
        assert!(Resource::parse("http://127.0.0.1:8000/mcp").is_ok());
    }

    #[test]
    fn well_known_urls_are_inserted_before_the_path() {
        let issuer = Issuer::parse("https://a.example/tenant/1").unwrap();
        assert_eq!(
            issuer.well_known_inserted("oauth-authorization-server"),
            "https://a.example/.well-known/oauth-authorization-server/tenant/1"
        );
        assert_eq!(
            issuer.well_known_appended("openid-configuration"),
            "https://a.example/tenant/1/.well-known/openid-configuration"
        );
        assert_eq!(issuer.path(), "/tenant/1");
        assert_eq!(issuer.origin(), "https://a.example");
        let at_origin = Issuer::parse("https://a.example").unwrap();
        assert_eq!(at_origin.endpoint("/token"), "https://a.example/token");
        assert_eq!(at_origin.path(), "");
        assert!(at_origin.is_spelled("https://a.example/"));
        assert!(!at_origin.is_spelled("https://a.example//"));
        let resource = Resource::parse("https://mcp.example/mcp").unwrap();
        assert_eq!(
            resource.metadata_url(),
            "https://mcp.example/.well-known/oauth-protected-resource/mcp"
        );
    }
}
