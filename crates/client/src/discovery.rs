//! From an MCP server's URL to the authorization server that governs it, with every check that
//! keeps a hostile document from leading anywhere (RFC 9728, RFC 8414, MCP).

use crate::{
    error::Error,
    outbound::{Answer, Outbound, OutboundError, Reach},
};
use carnet_proto::{
    GRANT_PROFILE_ID_JAG,
    challenge::Challenge,
    identifier::{Issuer, Resource},
    metadata::{AuthorizationServerMetadata, ProtectedResourceMetadata},
    others_text::shown,
    scope::Scopes,
};
use serde_json::json;
use std::ops::Deref;
use url::Url;

/// What an authorization server says of itself, and how far what it names may lead: a URL at its own origin as far as
/// itself, any other one no nearer than the party is that named it.
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
    /// Metadata that the operator wrote, and not the party.
    pub(crate) fn configured(metadata: AuthorizationServerMetadata, reach: Reach) -> Self {
        Self { metadata, own: reach, named: reach }
    }

    /// How far a request to a URL of these metadata may go.
    pub fn reach_of(&self, url: &str) -> Reach {
        if origin_of(url) == origin_of(&self.metadata.issuer) { self.own } else { self.named }
    }

    /// The same with another endpoint for forms: revocation is asked for as a token is.
    pub(crate) fn at(&self, endpoint: String) -> Self {
        let metadata =
            AuthorizationServerMetadata { token_endpoint: endpoint, ..self.metadata.clone() };
        Self { metadata, ..self.clone() }
    }
}

/// Longest text of others in an error, in characters.
const LONGEST: usize = 300;

/// An MCP server and the RAS that governs it, both checked.
#[derive(Clone, Debug)]
pub struct McpServer {
    /// The URL that was asked about.
    pub url: String,
    /// Its resource identifier.
    pub resource: Resource,
    /// What people call it.
    pub name: Option<String>,
    /// The RAS.
    pub authorization_server: Issuer,
    /// The RAS's metadata.
    pub metadata: Discovered,
    /// Scopes its challenge names, or else its metadata; `None` for neither.
    pub scopes: Option<Scopes>,
    /// How far requests about it may go.
    pub reach: Reach,
}

impl McpServer {
    /// Whether the RAS advertises ID-JAGs (JAG 7.2).
    pub fn offers_cross_app_access(&self) -> bool {
        let profiles = &self.metadata.authorization_grant_profiles_supported;
        profiles.iter().any(|profile| profile == GRANT_PROFILE_ID_JAG)
    }
}

/// What an MCP server says to a request without a token.
pub(crate) struct Probed {
    pub(crate) own: Resource,
    pub(crate) status: u16,
    pub(crate) challenge: Option<Challenge>,
    /// How far requests to it may go, and how near what it names may be: a server far away must not send us somewhere
    /// near.
    pub(crate) reach: (Reach, Reach),
}

impl Probed {
    /// Where its challenge says that its metadata is.
    pub(crate) fn named(&self) -> Option<&str> {
        self.challenge.as_ref()?.get("resource_metadata")
    }
}

/// Asks an MCP server without a token.
pub(crate) async fn probe(outbound: &Outbound, url: &str) -> Result<Probed, Error> {
    let own = Resource::parse(url).map_err(|e| {
        Error::Discovery(format!(
            "the MCP server's URL `{}` {e}\nhint: `carnet servers` lists those that you may reach",
            shown(url, 200)
        ))
    })?;
    let reach = Reach::of_trusted_url(url);
    let ping = json!({"jsonrpc": "2.0", "id": 0, "method": "ping"});
    let answer = outbound.json("POST", url, reach, None, Some(&ping)).await?;
    if let Some(place) = redirect_of(url, &answer) {
        return Err(Error::Discovery(format!(
            "{url} redirects to {place}, and no token is sent after a redirect\nhint: use that URL, if it is the \
             server you mean"
        )));
    }
    let challenge = bearer_challenge(&answer);
    Ok(Probed { own, status: answer.status, challenge, reach: (reach, answer.near) })
}

/// Where an answer sends on to, in full.
fn redirect_of(url: &str, answer: &Answer) -> Option<String> {
    let location = answer.headers.get("location").filter(|_| (300..400).contains(&answer.status));
    let location = String::from_utf8_lossy(location?.as_bytes()).into_owned();
    let full = Url::parse(url).ok().and_then(|url| url.join(&location).ok());
    Some(shown(full.as_ref().map_or(location.as_str(), Url::as_str), LONGEST))
}

/// What the metadata of an MCP server say, checked.
pub(crate) struct Described {
    /// Where they were found.
    pub(crate) place: String,
    pub(crate) metadata: ProtectedResourceMetadata,
    pub(crate) resource: Resource,
    pub(crate) authorization_server: Issuer,
}

/// Finds the metadata of an MCP server and checks what they name.
pub(crate) async fn described(outbound: &Outbound, probed: &Probed) -> Result<Described, Error> {
    let own = &probed.own;
    let (place, metadata) = resource_metadata(outbound, probed).await?;
    let resource = Resource::parse(&metadata.resource).map_err(|e| {
        let resource = shown(&metadata.resource, LONGEST);
        Error::Discovery(format!("`resource` in the metadata of {own} {e}: {resource}"))
    })?;
    if !may_name(own, &place, &resource) {
        let found = shown(resource.as_str(), LONGEST);
        return Err(Error::Differs {
            what: format!("the protected-resource metadata of {own} name another resource"),
            hint: format!(
                "use {found}, if that is the server you mean; otherwise its operator has to set `resource` in {place} \
                 to the URL that clients use"
            ),
            found,
            expected: own.as_str().to_owned(),
        });
    }
    let named = metadata.authorization_servers.first().ok_or_else(|| {
        Error::Discovery(format!(
            "the metadata of {own} name no authorization_servers\nhint: its operator has to list the issuer in {place}"
        ))
    })?;
    let authorization_server = Issuer::parse(named).map_err(|e| {
        let named = shown(named, LONGEST);
        Error::Discovery(format!("the authorization server `{named}` of {own} {e}"))
    })?;
    Ok(Described { place, metadata, resource, authorization_server })
}

/// Whether a document at `place` may name `resource` as the MCP server `own` (RFC 9728 section 3.3): its URL, or that
/// without a query that only chooses among what the server offers, or its origin where the document is the origin's own.
fn may_name(own: &Resource, place: &str, resource: &Resource) -> bool {
    let bare = own.normalized().split('?').next().and_then(|bare| Resource::parse(bare).ok());
    let root = Resource::parse(&origin_of(own.normalized())).ok();
    let root = root.filter(|root| root.metadata_url() == place);
    *resource == *own || bare.as_ref() == Some(resource) || root.as_ref() == Some(resource)
}

/// Finds the RAS of the MCP server at `url`: challenge first, then the well-known places (MCP-C1).
/// `is_known` says whether an authorization server is the company's by its own word.
pub(crate) async fn mcp_server(
    outbound: &Outbound,
    url: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<McpServer, Error> {
    let probed = probe(outbound, url).await?;
    let found = described(outbound, &probed).await?;
    governed(outbound, &probed, found, is_known).await
}

/// The last step: what the authorization server says of itself.
pub(crate) async fn governed(
    outbound: &Outbound,
    probed: &Probed,
    found: Described,
    is_known: impl Fn(&str) -> bool,
) -> Result<McpServer, Error> {
    let Described { metadata, resource, authorization_server: mut issuer, .. } = found;
    let scopes = probed.challenge.as_ref().and_then(|c| c.get("scope")).and_then(Scopes::parse);
    let scopes = scopes.or_else(|| {
        let listed = metadata.scopes_supported.as_ref()?;
        Some(listed.iter().map(String::as_str).collect::<Scopes>()).filter(|s| !s.is_empty())
    });
    let reach = reach_of_named(&probed.own, probed.reach, &issuer, is_known);
    let metadata_of_it = match authorization_server(outbound, &issuer, reach).await {
        // An origin with a slash is the same URL as without (RFC 3986 6.2.3), and URL types of some languages write it;
        // the issuer is what its own metadata say. With a path, the two are different.
        Err(Error::Differs { found, .. }) if issuer.as_str().strip_suffix('/') == Some(&found) => {
            let bare = Issuer::parse(&found).ok().filter(|bare| bare.path().is_empty());
            let again = bare.ok_or_else(|| differs_from(&issuer, &found));
            issuer = again?;
            authorization_server(outbound, &issuer, reach).await?
        }
        found => found?,
    };
    Ok(McpServer {
        url: probed.own.as_str().to_owned(),
        resource,
        name: metadata.resource_name.map(|name| shown(&name, 100)),
        authorization_server: issuer,
        metadata: metadata_of_it,
        scopes,
        reach,
    })
}

/// How far requests about an authorization server may go that `own` names: as far as for `own` at the
/// same origin, as far as the operator said for one that is known, else no nearer than `own` itself is.
pub(crate) fn reach_of_named(
    own: &Resource,
    (reach, beyond): (Reach, Reach),
    issuer: &Issuer,
    is_known: impl Fn(&str) -> bool,
) -> Reach {
    if origin_of(issuer.as_str()) == origin_of(own.normalized()) {
        reach
    } else if is_known(issuer.as_str()) {
        Reach::of_trusted_url(issuer.as_str())
    } else {
        beyond
    }
}

/// Scheme, host and port of a URL; nothing for what is none.
pub(crate) fn origin_of(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

/// The Bearer (or DPoP) challenge of a 401 or 403.
pub(crate) fn bearer_challenge(answer: &Answer) -> Option<Challenge> {
    if !matches!(answer.status, 401 | 403) {
        return None;
    }
    let headers = answer.headers.get_all("www-authenticate");
    let headers: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
    let is_ours = |c: &Challenge| {
        c.scheme.eq_ignore_ascii_case("bearer") || c.scheme.eq_ignore_ascii_case("dpop")
    };
    Challenge::parse_all(headers).into_iter().find(is_ours)
}

/// Why a well-known place holds no document. What is no JSON object is not there: many servers answer every path with
/// their start page.
enum Missed {
    NotThere,
    /// Any other status than 404 and its like, and what was said with it.
    Status(String, u16, String),
    Redirects(String, String),
    NotJson(String, String),
    Unreachable(OutboundError),
}

impl Missed {
    /// How much it tells: the cause that is spoken of, where several places were asked.
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

    /// What was met, and what to do about it; `None` where nothing was.
    fn told(&self) -> Option<String> {
        Some(match self {
            Self::NotThere => return None,
            Self::Status(place, status, _) if *status >= 500 || *status == 429 => format!(
                "{place} answers HTTP {status}: it is out of order just now\nhint: try again in a while; if it stays \
                 so, tell its operator"
            ),
            Self::Status(place, status, said) if said.is_empty() => format!(
                "{place} answers HTTP {status}\nhint: its operator has to let everybody read that document"
            ),
            Self::Status(place, status, said) => format!(
                "{place} answers HTTP {status}: {said}\nhint: its operator has to let everybody read that document"
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

/// The JSON object at a well-known place.
async fn document(outbound: &Outbound, place: &str, reach: Reach) -> Result<Answer, Missed> {
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

/// What a server says beside a status: the message of its JSON, or the first line of its text; a page says nothing.
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

/// The most telling of what was met.
fn telling(missed: Vec<Missed>) -> Option<String> {
    missed.into_iter().max_by_key(Missed::weight)?.told()
}

/// The metadata document of an MCP server, and where it is: where its challenge says, or at one of the well-known places.
/// A place that does not answer is no reason not to ask the next.
async fn resource_metadata(
    outbound: &Outbound,
    probed: &Probed,
) -> Result<(String, ProtectedResourceMetadata), Error> {
    let own = &probed.own;
    let origin = origin_of(own.normalized());
    let root = Resource::parse(&origin).unwrap_or_else(|_| own.clone());
    let mut places: Vec<String> = probed.named().map(str::to_owned).into_iter().collect();
    for place in [own.metadata_url(), root.metadata_url()] {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let (reach, beyond) = probed.reach;
    let mut missed = Vec::new();
    for place in places {
        let reach = if origin_of(&place) == origin { reach } else { beyond };
        match document(outbound, &place, reach).await {
            Ok(answer) => {
                let document = answer.json().map_err(|e| {
                    let place = shown(&place, LONGEST);
                    let why = shown(&e.to_string(), LONGEST);
                    Error::Discovery(format!(
                        "{place} is not protected-resource metadata: {why}\nhint: its operator has to mend it"
                    ))
                })?;
                return Ok((place, document));
            }
            Err(why) => missed.push(why),
        }
    }
    Err(Error::Discovery(telling(missed).unwrap_or_else(|| {
        format!(
            "{own} has no protected-resource metadata (RFC 9728), so its authorization server is not known\nhint: check \
             the URL (`carnet servers` lists yours); if it is right, its operator has to serve {}",
            own.metadata_url()
        )
    })))
}

/// Finds and checks the metadata of an authorization server or IdP.
pub async fn discover_authorization_server(
    outbound: &Outbound,
    issuer: &Issuer,
) -> Result<Discovered, Error> {
    authorization_server(outbound, issuer, Reach::of_trusted_url(issuer.as_str())).await
}

/// Metadata that are another issuer's.
fn differs_from(issuer: &Issuer, found: &str) -> Error {
    Error::Differs {
        what: format!("the metadata of {issuer} belong to another issuer; nothing was sent to it"),
        found: shown(found, LONGEST),
        expected: issuer.to_string(),
        hint:
            "the two have to be equal byte for byte (RFC 8414 section 3.3); mind a trailing slash"
                .to_owned(),
    }
}

/// RFC 8414 path-inserted, OpenID Connect path-inserted, OpenID Connect path-appended (MCP-C1); the
/// `issuer` inside must be the one asked for, byte for byte (JAG-C1).
pub(crate) async fn authorization_server(
    outbound: &Outbound,
    issuer: &Issuer,
    reach: Reach,
) -> Result<Discovered, Error> {
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
        let metadata: AuthorizationServerMetadata = answer.json().map_err(|e| {
            let why = shown(&e.to_string(), LONGEST);
            Error::Discovery(format!(
                "{place} is not authorization-server metadata: {why}\nhint: its operator has to mend it"
            ))
        })?;
        if metadata.issuer != issuer.as_str() {
            return Err(differs_from(issuer, &metadata.issuer));
        }
        // Where it answers from: nothing that it names is nearer, and nothing is further than it may be itself.
        return Ok(Discovered { metadata, own: reach, named: answer.near.min(reach) });
    }
    Err(Error::Discovery(telling(missed).unwrap_or_else(|| {
        format!(
            "{issuer} serves no authorization-server metadata (RFC 8414 or OpenID Connect Discovery)\nhint: check the \
             issuer; if it is right, its operator has to serve {}",
            issuer.well_known_inserted("oauth-authorization-server")
        )
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::checked;

    #[test]
    fn a_document_names_the_server_or_its_origin_where_it_is_the_origins_own() {
        let own = Resource::parse("https://a.example/mcp?toolsets=x").unwrap();
        let at_path = own.metadata_url();
        let at_root = "https://a.example/.well-known/oauth-protected-resource";
        for (place, resource, may) in [
            (at_path.as_str(), "https://a.example/mcp?toolsets=x", true),
            (&at_path, "https://a.example/mcp", true),
            (at_root, "https://a.example/mcp", true),
            (at_root, "https://a.example/", true),
            (
                "https://cdn.example/.well-known/oauth-protected-resource",
                "https://a.example",
                false,
            ),
            (&at_path, "https://a.example", false),
            (&at_path, "https://a.example/mcp?toolsets=y", false),
            (&at_path, "https://a.example/mcp/", false),
            (&at_path, "https://a.example/other", false),
            (at_root, "https://b.example", false),
        ] {
            let named = Resource::parse(resource).unwrap();
            assert_eq!(may_name(&own, place, &named), may, "{place}: {resource}");
        }
    }

    #[test]
    fn of_several_places_the_most_telling_answer_is_told() {
        let at = || "https://a.example/x".to_owned();
        let told = telling(vec![
            Missed::NotJson(at(), "text/html".to_owned()),
            Missed::Status(at(), 503, String::new()),
            Missed::NotThere,
        ]);
        assert!(told.unwrap().contains("503: it is out of order"));
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
        // Keys, token endpoint, introspection and documents: whatever the URL is for, this is asked.
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
        // Its own origin is as near as the operator let it be; another port is another origin.
        assert_eq!(far.reach_of("https://as.example/jwks"), Reach::Private);
        assert_eq!(far.reach_of("https://as.example:8443/jwks"), Reach::Public);
        assert_eq!(far.reach_of("https://as.example.evil/jwks"), Reach::Public);
        assert_eq!(
            far.at("https://10.0.0.1/revoke".to_owned()).reach_of("https://10.0.0.1/revoke"),
            Reach::Public
        );
        // Who is in a private network itself may name its neighbours.
        assert_eq!(of(Reach::Private).reach_of("https://10.0.0.1/jwks"), Reach::Private);
    }
}
