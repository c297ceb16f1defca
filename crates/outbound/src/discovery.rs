//! The metadata of an authorization server, with all checks that keep a hostile document from
//! redirecting us (RFC 8414, OpenID Connect Discovery).

use crate::{
    error::{Differs, DiscoveryError},
    http::{Answer, Outbound},
    reach::{Reach, checked},
    trouble::OutboundError,
};
use passavant_proto::{
    formerly, identifier::Issuer, oauth::metadata::AuthorizationServerMetadata, others_text::shown,
};
use std::ops::Deref;
use url::Url;

/// The metadata of an authorization server, and which addresses the URLs in them may reach: a URL
/// at the server's own origin as far as the server itself; any other one no closer to us than the
/// party that named it.
#[derive(Clone, Debug)]
pub struct Discovered {
    metadata: AuthorizationServerMetadata,
    own: Reach,
    named: Reach,
}

impl Deref for Discovered {
    type Target = AuthorizationServerMetadata;

    fn deref(&self) -> &AuthorizationServerMetadata {
        &self.metadata
    }
}

impl Discovered {
    /// Metadata that the operator wrote, not the party.
    pub fn configured(metadata: AuthorizationServerMetadata, reach: Reach) -> Self {
        Self { metadata, own: reach, named: reach }
    }

    /// Which addresses a request to a URL of these metadata may reach.
    pub fn reach_of(&self, url: &str) -> Reach {
        if origin_of(url) == origin_of(&self.metadata.issuer) { self.own } else { self.named }
    }

    /// The same with another token endpoint, for forms that are sent in the same way, such as
    /// revocations.
    #[must_use]
    pub fn at(&self, endpoint: String) -> Self {
        let metadata =
            AuthorizationServerMetadata { token_endpoint: endpoint, ..self.metadata.clone() };
        Self { metadata, ..self.clone() }
    }
}

/// Longest text of another party in an error, in characters.
pub const LONGEST: usize = 300;

/// The absolute URL that a redirect leads to.
pub fn redirect_of(url: &str, answer: &Answer) -> Option<String> {
    let location = answer.headers.get("location").filter(|_| (300..400).contains(&answer.status));
    let location = String::from_utf8_lossy(location?.as_bytes()).into_owned();
    let full = Url::parse(url).ok().and_then(|url| url.join(&location).ok());
    Some(shown(full.as_ref().map_or(location.as_str(), Url::as_str), LONGEST))
}

/// Scheme, host and port of a URL; empty for a text that is not a URL.
pub fn origin_of(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// Why there is no document at a well-known location. A body that is not a JSON object counts as
/// missing, because many servers answer every path with their start page.
pub enum Missed {
    NotThere,
    /// A status other than 404 and similar ones, and the server's message.
    Status(String, u16, String),
    Redirects(String, String),
    NotJson(String, String),
    Unreachable(OutboundError),
}

impl Missed {
    /// How informative it is. If several locations were tried, the most informative failure is
    /// reported.
    fn weight(&self) -> u8 {
        match self {
            Self::NotThere => 0,
            Self::NotJson(..) => 1,
            Self::Status(_, status, _) if *status < 500 && *status != 429 => 2,
            Self::Unreachable(_) => 3,
            Self::Redirects(..) => 4,
            Self::Status(..) => 5,
        }
    }

    /// What was found and what to do about it; `None` if nothing was found.
    fn told(&self) -> Option<String> {
        Some(match self {
            Self::NotThere => return None,
            Self::Status(place, status, _) if *status >= 500 || *status == 429 => format!(
                "{place} answers HTTP {status}: the server has a problem just now\n\
                 hint: try again later; if it lasts, tell its operator"
            ),
            Self::Status(place, status, said) if said.is_empty() => format!(
                "{place} answers HTTP {status}\n\
                 hint: its operator has to make that document public"
            ),
            Self::Status(place, status, said) => format!(
                "{place} answers HTTP {status}: {said}\n\
                 hint: its operator has to make that document public"
            ),
            Self::Redirects(place, to) => format!(
                "{place} redirects to {to}, and no redirect is followed\nhint: its operator has to serve the document \
                 there without one"
            ),
            Self::NotJson(place, kind) => format!(
                "{place} answers with {kind}, not with JSON\nhint: its operator has to serve the document there, and \
                 not the start page of an application"
            ),
            Self::Unreachable(error) => error.to_string(),
        })
    }
}

/// The JSON object at a well-known location.
pub async fn document(outbound: &Outbound, place: &str, reach: Reach) -> Result<Answer, Missed> {
    let answer = outbound.get(place, reach).await.map_err(Missed::Unreachable)?;
    if let Some(to) = redirect_of(place, &answer) {
        return Err(Missed::Redirects(place.to_owned(), to));
    }
    match answer.status {
        200 if answer.json::<serde_json::Map<String, serde_json::Value>>().is_ok() => Ok(answer),
        200 => {
            let kind = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
            let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("something");
            Err(Missed::NotJson(place.to_owned(), shown(kind, 60)))
        }
        404 | 405 | 410 => Err(Missed::NotThere),
        status => Err(Missed::Status(place.to_owned(), status, said(&answer))),
    }
}

/// The server's message with an error status: the message in its JSON, or the first line of its
/// text. HTML pages are ignored.
fn said(answer: &Answer) -> String {
    if let Ok(body) = answer.json::<serde_json::Value>() {
        let texts = [
            &body["error"]["message"],
            &body["error_description"],
            &body["message"],
            &body["error"],
        ];
        let text = texts.into_iter().find_map(serde_json::Value::as_str).unwrap_or_default();
        return shown(text, 200);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.trim().lines().next().unwrap_or_default();
    if line.starts_with('<') { String::new() } else { shown(line, 200) }
}

/// The most informative failure.
pub fn telling(missed: Vec<Missed>) -> Option<String> {
    missed.into_iter().max_by_key(Missed::weight)?.told()
}

/// Finds and checks the metadata of an authorization server or IdP.
pub async fn discover_authorization_server(
    outbound: &Outbound,
    issuer: &Issuer,
) -> Result<Discovered, DiscoveryError> {
    discover_named(outbound, issuer, issuer.as_str()).await
}

/// Like [`discover_authorization_server`], for a document that names another issuer: the one that an
/// administrator allowed for several tenants.
pub(crate) async fn discover_named(
    outbound: &Outbound,
    issuer: &Issuer,
    named: &str,
) -> Result<Discovered, DiscoveryError> {
    find(outbound, issuer, named, Reach::of_trusted_url(issuer.as_str())).await
}

/// The error for metadata of another issuer.
pub fn differs_from(issuer: &Issuer, found: &str) -> DiscoveryError {
    differs(issuer, issuer.as_str(), found)
}

fn differs(issuer: &Issuer, named: &str, found: &str) -> DiscoveryError {
    DiscoveryError::Differs(Differs {
        what: format!("the metadata of {issuer} belong to another issuer; nothing was sent to it"),
        found: shown(found, LONGEST),
        expected: named.to_owned(),
        hint:
            "the two have to be equal byte for byte (RFC 8414 section 3.3); mind a trailing slash"
                .to_owned(),
    })
}

/// RFC 8414 path-inserted, OpenID Connect path-inserted, OpenID Connect path-appended (MCP
/// authorization, metadata discovery); the `issuer` inside must be the one asked for, byte for byte
/// (RFC 8414 section 3.3).
pub async fn authorization_server(
    outbound: &Outbound,
    issuer: &Issuer,
    reach: Reach,
) -> Result<Discovered, DiscoveryError> {
    find(outbound, issuer, issuer.as_str(), reach).await
}

async fn find(
    outbound: &Outbound,
    issuer: &Issuer,
    named: &str,
    reach: Reach,
) -> Result<Discovered, DiscoveryError> {
    let places = [
        issuer.well_known_inserted("oauth-authorization-server"),
        issuer.well_known_inserted("openid-configuration"),
        issuer.well_known_appended("openid-configuration"),
    ];
    let mut missed = Vec::new();
    for place in places {
        let answer = match document(outbound, &place, reach).await {
            Ok(answer) => answer,
            Err(why) => {
                missed.push(why);
                continue;
            }
        };
        // Parse the original text first, so that a duplicate member is an error.
        let read = answer.json::<AuthorizationServerMetadata>().and_then(|_| {
            let mut document = answer.json()?;
            formerly::hear(&mut document);
            serde_json::from_value::<AuthorizationServerMetadata>(document)
        });
        let metadata = read.map_err(|e| {
            let why = shown(&e.to_string(), LONGEST);
            DiscoveryError::Unusable(format!(
                "{place} is not authorization-server metadata: {why}\n\
                 hint: its operator has to correct it"
            ))
        })?;
        if metadata.issuer != named {
            return Err(differs(issuer, named, &metadata.issuer));
        }
        // URLs in the metadata reach no closer than the address that answered, and no further than
        // the request for the metadata itself.
        return Ok(Discovered { metadata, own: reach, named: answer.near.min(reach) });
    }
    Err(DiscoveryError::Unusable(telling(missed).unwrap_or_else(|| {
        format!(
            "{issuer} serves no authorization-server metadata (RFC 8414 or OpenID Connect Discovery)\nhint: check the \
             issuer; if it is right, its operator has to serve {}",
            issuer.well_known_inserted("oauth-authorization-server")
        )
    })))
}

/// The authorization endpoint of metadata that announce PKCE with S256 (MCP authorization, code
/// protection).
pub fn authorization_endpoint(metadata: &Discovered) -> Result<String, DiscoveryError> {
    let issuer = &metadata.issuer;
    if !metadata.code_challenge_methods_supported.iter().any(|m| m == "S256") {
        return Err(DiscoveryError::Unusable(format!(
            "{issuer} does not offer PKCE with S256 (code_challenge_methods_supported), which is \
             required\nhint: its operator has to offer it, or to list it in that document"
        )));
    }
    any_authorization_endpoint(metadata)
}

/// The authorization endpoint, whether or not the metadata announce PKCE: several products offer it
/// and do not say so. For confidential clients that check a nonce.
pub(crate) fn any_authorization_endpoint(metadata: &Discovered) -> Result<String, DiscoveryError> {
    let issuer = &metadata.issuer;
    let endpoint = metadata.authorization_endpoint.as_deref().ok_or_else(|| {
        DiscoveryError::Unusable(format!("the metadata of {issuer} has no authorization_endpoint"))
    })?;
    // The browser is sent there: never to a scheme that starts a program, and never over plain
    // http. The parsed URL's own serialization is used, which cannot contain line breaks. A remote
    // party cannot make the browser open a page of this machine or of the local network.
    let url = checked(endpoint, metadata.reach_of(endpoint));
    url.map(String::from).map_err(|why| {
        DiscoveryError::Unusable(format!(
            "the authorization_endpoint of {issuer} is not a URL to open in a browser: {why}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_several_places_the_most_telling_answer_is_told() {
        let at = || "https://a.example/x".to_owned();
        let told = telling(vec![
            Missed::NotJson(at(), "text/html".to_owned()),
            Missed::Status(at(), 503, String::new()),
            Missed::NotThere,
        ]);
        assert!(told.unwrap().contains("503: the server has a problem just now"));
        let told =
            telling(vec![Missed::NotThere, Missed::Redirects(at(), "https://b/".to_owned())]);
        assert!(told.unwrap().contains("redirects to https://b/"));
        assert!(telling(vec![Missed::NotThere, Missed::NotThere]).is_none());
    }

    #[test]
    fn what_metadata_name_is_as_near_as_who_served_them_and_no_nearer() {
        let metadata =
            json!({"issuer": "https://as.example", "token_endpoint": "https://as.example/token"});
        let of = |named: Reach| Discovered {
            metadata: serde_json::from_value(metadata.clone()).unwrap(),
            own: Reach::Private,
            named,
        };
        // Whatever a URL is for, this rule applies: keys, token endpoint, introspection, documents.
        let far = of(Reach::Public);
        for url in [
            "https://10.9.9.9/internal/delete?all=1",
            "https://192.168.0.1/token",
            "https://127.0.0.1/jwks",
            "http://127.0.0.1:8080/",
            "https://[::1]/jwks",
            "https://[fd00::1]/jwks",
            "https://169.254.169.254/latest",
            "https://as.example:8443@10.0.0.1/jwks",
        ] {
            assert_eq!(far.reach_of(url), Reach::Public, "{url}");
            assert!(checked(url, far.reach_of(url)).is_err(), "{url}");
        }
        assert!(
            checked("https://keys.example/jwks", far.reach_of("https://keys.example/jwks")).is_ok()
        );
        // Its own origin has the reach that the operator allowed; another port is another origin.
        assert_eq!(far.reach_of("https://as.example/jwks"), Reach::Private);
        assert_eq!(far.reach_of("https://as.example:8443/jwks"), Reach::Public);
        assert_eq!(far.reach_of("https://as.example.evil/jwks"), Reach::Public);
        assert_eq!(
            far.at("https://10.0.0.1/revoke".to_owned()).reach_of("https://10.0.0.1/revoke"),
            Reach::Public
        );
        // A server in a private network may name its neighbours.
        assert_eq!(of(Reach::Private).reach_of("https://10.0.0.1/jwks"), Reach::Private);
    }
}
