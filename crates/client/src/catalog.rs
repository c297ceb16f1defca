//! The company's catalog, and the person's installations: Passavant's own endpoints at the IdP,
//! found in its metadata.

use crate::{
    client::{Client, Verdicts},
    error::{Error, Leg},
};
use passavant_outbound::{Answer, OAuthError};
use passavant_proto::identifier::Resource;
use serde::{Deserialize, Serialize};
use std::sync::{MutexGuard, PoisonError};

/// The MCP servers that this person may reach through this client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Name of the company.
    #[serde(default)]
    pub company: String,
    /// The MCP servers, granted and refused.
    #[serde(default)]
    pub servers: Vec<CatalogServer>,
    /// MCP clients with native cross-app access, as IT registered them.
    #[serde(default)]
    pub native_clients: Vec<NativeClient>,
}

/// One MCP server of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogServer {
    /// Its resource identifier, which is its URL.
    pub resource: String,
    /// Its name for people.
    #[serde(default)]
    pub name: String,
    /// The vendor that operates it.
    #[serde(default)]
    pub vendor: String,
    /// The RAS that governs it.
    pub authorization_server: String,
    /// Whether the exchange would be granted.
    pub granted: bool,
    /// Granted scopes, separated by spaces.
    #[serde(default)]
    pub scopes: String,
    /// The client's id at the RAS, if it differs from its id at the IdP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ras_client_id: Option<String>,
    /// Why it is refused: the reason, as in the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is refused, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

impl CatalogServer {
    /// Its name, or else its resource identifier.
    pub fn title(&self) -> &str {
        if self.name.is_empty() { &self.resource } else { &self.name }
    }
}

/// An MCP client that IT registered, with what this person may reach through it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeClient {
    /// The program: `vscode`, `claude-code`.
    pub software: String,
    /// Its id at the IdP.
    pub client_id: String,
    /// The MCP servers.
    #[serde(default)]
    pub servers: Vec<CatalogServer>,
}

/// One of the person's installations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Its id.
    pub id: String,
    /// Name of the computer.
    pub device: String,
    /// When it was enrolled, in seconds since the epoch.
    pub enrolled_at: i64,
    /// When it was last used, in seconds since the epoch.
    pub used_at: i64,
    /// Whether it is the installation that sends this request.
    #[serde(default)]
    pub this_one: bool,
}

/// How long the IdP's answer about an MCP server is cached, in seconds.
const BELIEVED: i64 = 60;

#[derive(Deserialize)]
struct Verdict {
    company_decides: bool,
}

#[derive(Deserialize)]
struct Installations {
    installations: Vec<Installation>,
}

impl Client {
    /// The catalog, or `None` if the IdP has none (another vendor's IdP).
    pub async fn catalog(&self) -> Result<Option<Catalog>, Error> {
        let metadata = self.idp_metadata().await?;
        let Some(endpoint) = metadata.passavant_catalog_endpoint.clone() else { return Ok(None) };
        let answer = self.ask_own("GET", &endpoint).await?;
        let catalog: Catalog = read(&answer)?;
        let servers = catalog.servers.iter().map(|s| s.authorization_server.clone());
        self.company().extend(servers);
        Ok(Some(catalog))
    }

    /// The person's installations, including this one; `None` if the IdP has no installations.
    pub async fn installations(&self) -> Result<Option<Vec<Installation>>, Error> {
        let metadata = self.idp_metadata().await?;
        let Some(endpoint) = metadata.passavant_installations_endpoint.clone() else {
            return Ok(None);
        };
        let answer = self.ask_own("GET", &endpoint).await?;
        Ok(Some(read::<Installations>(&answer)?.installations))
    }

    /// Revokes one of the person's installations; `false` if there is none with this id.
    pub async fn revoke_installation(&self, id: &str) -> Result<bool, Error> {
        let metadata = self.idp_metadata().await?;
        let Some(endpoint) = metadata.passavant_installations_endpoint.clone() else {
            return Ok(false);
        };
        let plain =
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !plain {
            return Ok(false);
        }
        let answer = self.ask_own("DELETE", &format!("{endpoint}/{id}")).await;
        match answer {
            Ok(_) => Ok(true),
            Err(Error::Refused { error, .. }) if error.error == "not_found" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Why the company's policy refuses the MCP server at `url`, in words for the person, if the
    /// catalog says so: "Access to Canvas was refused by Acme's policy: group engineering required.
    /// Ask IT."
    pub async fn refusal(&self, url: &str) -> Option<String> {
        let catalog = self.catalog().await.ok()??;
        let asked = Resource::parse(url).ok()?;
        let is_asked = |s: &CatalogServer| Resource::parse(&s.resource).is_ok_and(|r| r == asked);
        let company =
            if catalog.company.is_empty() { "the company" } else { catalog.company.as_str() };
        let server = catalog.servers.iter().find(|server| is_asked(server));
        let title = server.map_or(url, CatalogServer::title);
        let why = server.filter(|server| !server.granted).and_then(|s| s.explanation.as_deref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        Some(format!("Access to {title} was refused by {company}'s policy{why}. Ask IT."))
    }

    /// Whether the company governs an MCP server. The IdP decides this: the server's metadata do
    /// not matter, and no consent can replace a refusal. An IdP without a catalog governs nothing.
    /// If there is a catalog, somebody has to be signed in to ask it.
    pub(crate) async fn company_decides(
        &self,
        resource: &Resource,
        authorization_server: &str,
    ) -> Result<bool, Error> {
        if !self.settings().governed {
            return Ok(false);
        }
        let key = (authorization_server.to_owned(), resource.clone());
        let now = self.0.clock.now();
        if let Some((verdict, at)) = self.verdicts().get(&key)
            && now.since(*at) < BELIEVED
        {
            return Ok(*verdict);
        }
        let metadata = self.idp_metadata().await?;
        let verdict = match &metadata.passavant_catalog_endpoint {
            None => false,
            Some(endpoint) => {
                let bad = |what: String| Error::BadAnswer { leg: Leg::Catalog, what };
                let mut url = url::Url::parse(endpoint).map_err(|e| bad(e.to_string()))?;
                url.query_pairs_mut()
                    .append_pair("resource", resource.as_str())
                    .append_pair("authorization_server", authorization_server);
                read::<Verdict>(&self.ask_own("GET", url.as_str()).await?)?.company_decides
            }
        };
        self.verdicts().insert(key, (verdict, now));
        Ok(verdict)
    }

    /// The last result of [`Client::company_decides`], however old.
    pub(crate) fn verdict(&self, resource: &Resource, authorization_server: &str) -> bool {
        let key = (authorization_server.to_owned(), resource.clone());
        self.verdicts().get(&key).is_some_and(|(verdict, _)| *verdict)
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.0.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_own(&self, method: &str, url: &str) -> Result<Answer, Error> {
        let token = self.idp_access_token().await?;
        let idp = &self.settings().idp;
        let reach = self.idp_metadata().await?.reach_of(url);
        let outbound = self.outbound();
        let mut answer = outbound.json(method, url, reach, Some(token.expose()), None).await?;
        if answer.status == 401 {
            // Only the token may have ended; the refresh token tells about the sign-in.
            let token = self.idp_access_token_instead_of(&token).await?;
            answer = outbound.json(method, url, reach, Some(token.expose()), None).await?;
        }
        match answer.status {
            200..=299 => Ok(answer),
            401 => Err(self.sign_in_needed()),
            status => {
                let error = answer.json().unwrap_or_else(|_| OAuthError {
                    error: format!("HTTP {status}"),
                    ..OAuthError::default()
                });
                Err(Error::Refused { leg: Leg::Catalog, party: idp.to_string(), error })
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    answer.json().map_err(|e| Error::BadAnswer { leg: Leg::Catalog, what: e.to_string() })
}
