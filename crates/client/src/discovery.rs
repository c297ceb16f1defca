//! From an MCP server's URL to the authorization server that governs it, with every check that
//! keeps a hostile document from leading anywhere (RFC 9728, RFC 8414, MCP).

use crate::{
    error::Error,
    outbound::{Answer, Outbound, Reach},
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

/// Finds the RAS of the MCP server at `url`: challenge first, then the well-known places (MCP-C1).
/// `is_known` says whether an authorization server is the company's by its own word.
pub(crate) async fn mcp_server(
    outbound: &Outbound,
    url: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<McpServer, Error> {
    let own = Resource::parse(url)
        .map_err(|e| Error::Discovery(format!("the MCP server's URL `{url}` {e}")))?;
    let reach = Reach::of_trusted_url(url);
    let ping = json!({"jsonrpc": "2.0", "id": 0, "method": "ping"});
    let probe = outbound.json("POST", url, reach, None, Some(&ping)).await?;
    let challenge = bearer_challenge(&probe);
    let scopes = challenge.as_ref().and_then(|c| c.get("scope")).and_then(Scopes::parse);
    let named = challenge.as_ref().and_then(|c| c.get("resource_metadata")).map(str::to_owned);
    // A server far away must not send us somewhere near.
    let beyond = probe.near;
    let (metadata, expected) = resource_metadata(outbound, &own, named, (reach, beyond)).await?;
    let resource = Resource::parse(&metadata.resource).map_err(|e| {
        let resource = shown(&metadata.resource, LONGEST);
        Error::Discovery(format!("`resource` in the metadata of {url} {e}: {resource}"))
    })?;
    if resource != expected {
        return Err(Error::Discovery(format!(
            "the protected-resource metadata of {url} names another resource\n  \
             found:    {}\n  expected: {}\n\
             hint: use the URL that it names, if that is the server you mean; otherwise its operator has \
             to set `resource` to the URL that clients use",
            resource.as_str(),
            expected.as_str()
        )));
    }
    let named = metadata.authorization_servers.first().ok_or_else(|| {
        Error::Discovery(format!("the metadata of {url} names no authorization_servers"))
    })?;
    let issuer = Issuer::parse(named).map_err(|e| {
        let named = shown(named, LONGEST);
        Error::Discovery(format!("the authorization server `{named}` of {url} {e}"))
    })?;
    let scopes = scopes.or_else(|| {
        let listed = metadata.scopes_supported.as_ref()?;
        Some(listed.iter().map(String::as_str).collect::<Scopes>()).filter(|s| !s.is_empty())
    });
    let reach = reach_of_named(&own, (reach, beyond), &issuer, is_known);
    let found = authorization_server(outbound, &issuer, reach).await?;
    Ok(McpServer {
        url: url.to_owned(),
        resource,
        name: metadata.resource_name.map(|name| shown(&name, 100)),
        authorization_server: issuer,
        metadata: found,
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

/// The metadata document, and the resource it has to name (RFC 9728 section 3.3): the server's URL,
/// or its origin where the document was found at the root.
async fn resource_metadata(
    outbound: &Outbound,
    own: &Resource,
    named: Option<String>,
    (reach, beyond): (Reach, Reach),
) -> Result<(ProtectedResourceMetadata, Resource), Error> {
    let origin = origin_of(own.normalized());
    let root = Resource::parse(&origin).unwrap_or_else(|_| own.clone());
    let mut places = Vec::new();
    places.extend(named.map(|url| (url, own.clone())));
    places.push((own.metadata_url(), own.clone()));
    places.push((root.metadata_url(), root));
    for (place, expected) in places {
        // A place that does not answer is no reason not to ask the next.
        let reach = if origin_of(&place) == origin { reach } else { beyond };
        let Ok(answer) = outbound.get(&place, reach).await else { continue };
        if answer.status == 200 {
            let document = answer.json().map_err(|e| {
                Error::Discovery(format!(
                    "{place} is not protected-resource metadata: {}",
                    shown(&e.to_string(), LONGEST)
                ))
            })?;
            return Ok((document, expected));
        }
    }
    Err(Error::Discovery(format!(
        "{own} has no protected-resource metadata (RFC 9728), so its authorization server is not \
         known\nhint: check the URL (`carnet servers` lists yours); if it is right, its operator has to serve \
         {}",
        own.metadata_url()
    )))
}

/// Finds and checks the metadata of an authorization server or IdP.
pub async fn discover_authorization_server(
    outbound: &Outbound,
    issuer: &Issuer,
) -> Result<Discovered, Error> {
    authorization_server(outbound, issuer, Reach::of_trusted_url(issuer.as_str())).await
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
    let mut unreachable = None;
    for place in places {
        let answer = match outbound.get(&place, reach).await {
            Ok(answer) if answer.status == 200 => answer,
            Ok(_) => continue,
            Err(error) => {
                unreachable = Some(error);
                continue;
            }
        };
        let metadata: AuthorizationServerMetadata = answer.json().map_err(|e| {
            let why = shown(&e.to_string(), LONGEST);
            Error::Discovery(format!("{place} is not authorization-server metadata: {why}"))
        })?;
        if metadata.issuer != issuer.as_str() {
            return Err(Error::Discovery(format!(
                "{place} belongs to another issuer; nothing was sent to it\n  \
                 found:    {}\n  expected: {issuer}\n\
                 hint: the two have to be equal byte for byte (RFC 8414 section 3.3); mind a \
                 trailing slash",
                shown(&metadata.issuer, LONGEST)
            )));
        }
        // Where it answers from: nothing that it names is nearer, and nothing is further than it may be itself.
        return Ok(Discovered { metadata, own: reach, named: answer.near.min(reach) });
    }
    if let Some(error) = unreachable {
        return Err(error.into());
    }
    Err(Error::Discovery(format!(
        "{issuer} serves no authorization-server metadata (RFC 8414 or OpenID Connect Discovery)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::checked;

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
