//! From an MCP server's URL to the authorization server that governs it, with all checks that keep
//! a hostile document from redirecting the client (RFC 9728, RFC 8414, MCP).

use crate::error::Error;
use passavant_outbound::{
    Answer, Differs, Discovered, DiscoveryError, LONGEST, Outbound, Reach, authorization_server,
    differs_from, document, origin_of, redirect_of, telling,
};
use passavant_proto::{
    GRANT_PROFILE_ID_JAG,
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::challenge::Challenge,
    oauth::metadata::ProtectedResourceMetadata,
    oauth::scope::Scopes,
    others_text::shown,
};
use serde_json::json;

/// An MCP server and the RAS that governs it, both verified.
#[derive(Clone, Debug)]
pub struct McpServer {
    /// The URL that was asked for.
    pub url: String,
    /// Its resource identifier.
    pub resource: Resource,
    /// Its name for people.
    pub name: Option<String>,
    /// The RAS.
    pub authorization_server: Issuer,
    /// The RAS's metadata.
    pub metadata: Discovered,
    /// Scopes that its challenge names, or else its metadata; `None` if neither does.
    pub scopes: Option<Scopes>,
    /// Which addresses requests about it may reach.
    pub reach: Reach,
    /// Whether it takes DPoP-bound tokens, as its metadata or its challenge say.
    pub takes_dpop: bool,
}

impl McpServer {
    /// Whether the RAS advertises ID-JAGs (ID-JAG draft section 7.2).
    pub fn offers_cross_app_access(&self) -> bool {
        let profiles = &self.metadata.authorization_grant_profiles_supported;
        profiles.iter().any(|profile| profile == GRANT_PROFILE_ID_JAG)
    }
}

/// What an MCP server answers to a request without a token.
pub(crate) struct Probed {
    pub(crate) own: Resource,
    pub(crate) status: u16,
    pub(crate) challenge: Option<Challenge>,
    /// Whether it challenges for DPoP.
    pub(crate) asks_for_dpop: bool,
    /// Which addresses requests to the server may reach, and which addresses it may name: a server
    /// on the internet must not direct the client to a local address.
    pub(crate) reach: (Reach, Reach),
}

impl Probed {
    /// Where its challenge says its metadata are.
    pub(crate) fn named(&self) -> Option<&str> {
        self.challenge.as_ref()?.get("resource_metadata")
    }
}

/// Sends a request without a token to an MCP server.
pub(crate) async fn probe(outbound: &Outbound, url: &str) -> Result<Probed, Error> {
    let own = Resource::parse(url).map_err(|e| {
        Error::Discovery(format!(
            "the MCP server's URL `{}` {e}\nhint: `passavant servers` lists those that you may reach",
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
    let challenges = challenges(&answer);
    let asks_for_dpop = challenges.iter().any(|c| c.scheme.eq_ignore_ascii_case("dpop"));
    let challenge = challenges.into_iter().next();
    let reach = (reach, answer.near);
    Ok(Probed { own, status: answer.status, challenge, asks_for_dpop, reach })
}

/// The metadata of an MCP server, verified.
pub(crate) struct Described {
    /// The URL they were found at.
    pub(crate) place: String,
    pub(crate) metadata: ProtectedResourceMetadata,
    pub(crate) resource: Resource,
    pub(crate) authorization_server: Issuer,
}

/// Fetches the metadata of an MCP server and verifies what they name.
pub(crate) async fn described(outbound: &Outbound, probed: &Probed) -> Result<Described, Error> {
    let own = &probed.own;
    let (place, metadata) = resource_metadata(outbound, probed).await?;
    let resource = Resource::parse(&metadata.resource).map_err(|e| {
        let resource = shown(&metadata.resource, LONGEST);
        Error::Discovery(format!("`resource` in the metadata of {own} {e}: {resource}"))
    })?;
    if !may_name(own, &place, &resource) {
        let found = shown(resource.as_str(), LONGEST);
        return Err(Error::Differs(Differs {
            what: format!("the protected-resource metadata of {own} name another resource"),
            hint: format!(
                "use {found}, if that is the server you mean; otherwise its operator has to set `resource` in {place} \
                 to the URL that clients use"
            ),
            found,
            expected: own.as_str().to_owned(),
        }));
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

/// Whether a document at `place` may name `resource` as the identifier of the MCP server `own` (RFC
/// 9728 section 3.3): it has to be the server's URL, or that without a query which only selects
/// from what the server offers, or the origin if the document is the origin's own.
fn may_name(own: &Resource, place: &str, resource: &Resource) -> bool {
    let bare = own.normalized().split('?').next().and_then(|bare| Resource::parse(bare).ok());
    let root = Resource::parse(&origin_of(own.normalized())).ok();
    let root = root.filter(|root| root.metadata_url() == place);
    *resource == *own || bare.as_ref() == Some(resource) || root.as_ref() == Some(resource)
}

/// Finds the RAS of the MCP server at `url`: from the challenge, or else at the well-known
/// locations (MCP authorization, Authorization Server Discovery). `is_known` tells whether the
/// company itself names an authorization server.
pub(crate) async fn mcp_server(
    outbound: &Outbound,
    url: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<McpServer, Error> {
    let probed = probe(outbound, url).await?;
    let found = described(outbound, &probed).await?;
    governed(outbound, &probed, found, is_known).await
}

/// The last step: the metadata of the authorization server.
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
    let algorithms = metadata.dpop_signing_alg_values_supported.as_deref().unwrap_or_default();
    let takes_dpop = probed.asks_for_dpop
        || metadata.dpop_bound_access_tokens_required == Some(true)
        || algorithms.iter().any(|name| name == Algorithm::ES256.name());
    let reach = reach_of_named(&probed.own, probed.reach, &issuer, is_known);
    let metadata_of_it = match authorization_server(outbound, &issuer, reach).await {
        // For an origin, a trailing slash makes no difference (RFC 3986 6.2.3), and URL types of
        // some languages add it; the issuer is what its own metadata say. With a path, the two are
        // different.
        Err(DiscoveryError::Differs(Differs { found, .. }))
            if issuer.as_str().strip_suffix('/') == Some(&found) =>
        {
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
        takes_dpop,
    })
}

/// Which addresses requests about an authorization server that `own` names may reach: at the same
/// origin those of `own`, for a known one those the operator allowed, otherwise none more local
/// than `own` itself.
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

/// The Bearer (or DPoP) challenge of a 401 or 403 response.
pub(crate) fn bearer_challenge(answer: &Answer) -> Option<Challenge> {
    challenges(answer).into_iter().next()
}

/// The Bearer and DPoP challenges of a 401 or 403 response.
fn challenges(answer: &Answer) -> Vec<Challenge> {
    if !matches!(answer.status, 401 | 403) {
        return Vec::new();
    }
    let headers = answer.headers.get_all("www-authenticate");
    let headers: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
    let is_ours = |c: &Challenge| {
        c.scheme.eq_ignore_ascii_case("bearer") || c.scheme.eq_ignore_ascii_case("dpop")
    };
    Challenge::parse_all(headers).into_iter().filter(is_ours).collect()
}

/// The metadata document of an MCP server and its URL: the one that the challenge names, or one of
/// the well-known locations. If one location does not answer, the next one is tried.
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
                        "{place} is not protected-resource metadata: {why}\n\
                         hint: its operator has to correct it"
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
             the URL (`passavant servers` lists yours); if it is right, its operator has to serve {}",
            own.metadata_url()
        )
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
