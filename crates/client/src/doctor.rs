//! The doctor: walks every leg from the sign-in to a tool list, compares each pair of texts that has to
//! be equal, and says which party has to change what. It stops before anything is sent to a party that
//! does not fit, and works with any maker's parties.

mod report;

use crate::{
    discovery::{Discovered, McpServer, bearer_challenge, origin_of, reach_of_named},
    error::Error,
    obtain::{Client, Credential, IdJagView},
    outbound::{Answer, Outbound, Reach},
};
use carnet_proto::{
    GRANT_JWT_BEARER, GRANT_PROFILE_ID_JAG, GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ID_JAG,
    client_document::{self, DocumentUrl},
    identifier::{Issuer, Resource},
    jws,
    metadata::ProtectedResourceMetadata,
    scope::Scopes,
};
use report::{difference, name_difference};
use serde_json::{Value, json};

pub use report::{Finding, Report, Stage, Verdict};

struct Walk<'a> {
    client: &'a Client,
    url: &'a str,
    findings: Vec<Finding>,
}

/// The walk ends here.
struct Stopped(Stage);

type Step<T> = Result<T, Stopped>;

const IDP: &str = "the identity provider's operator (IT)";
const SERVER: &str = "the MCP server's operator";
const RAS: &str = "the operator of the MCP server's authorization server";
const IT: &str = "IT, at the identity provider";
const YOU: &str = "you";

impl Client {
    /// Walks every leg to the MCP server at `url`. Nothing is kept, nobody is asked.
    pub async fn examine(&self, url: &str) -> Report {
        let mut walk = Walk { client: self, url, findings: Vec::new() };
        let outcome = walk.walk().await;
        let stage = outcome.err().map(|Stopped(stage)| stage);
        let wrong = walk.findings.iter().rfind(|finding| finding.verdict == Verdict::Wrong);
        let verdict = match (stage, wrong) {
            (None, _) => format!("{url} works: every leg from your sign-in to its tools."),
            (Some(_), Some(finding)) => {
                let party = finding.party.as_deref().unwrap_or("nobody in particular");
                let fix = finding.fix.as_deref().unwrap_or(&finding.what);
                let stage = finding.stage.title();
                format!("{url} does not work: {stage}. To be changed by {party}: {fix}")
            }
            (Some(stage), None) => {
                format!("{url} does not work; the walk ended at {}.", stage.title())
            }
        };
        Report {
            url: url.to_owned(),
            findings: walk.findings,
            works: stage.is_none(),
            stage,
            verdict,
        }
    }
}

impl Walk<'_> {
    fn outbound(&self) -> &Outbound {
        self.client.outbound()
    }

    fn push(&mut self, stage: Stage, verdict: Verdict, what: impl Into<String>) -> &mut Finding {
        self.findings.push(Finding {
            stage,
            verdict,
            what: what.into(),
            found: None,
            expected: None,
            differs_at: None,
            party: None,
            fix: None,
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn ok(&mut self, stage: Stage, what: impl Into<String>) {
        self.push(stage, Verdict::Ok, what);
    }

    fn note(&mut self, stage: Stage, what: impl Into<String>) {
        self.push(stage, Verdict::Note, what);
    }

    fn wrong<T>(
        &mut self,
        stage: Stage,
        what: impl Into<String>,
        party: &str,
        fix: impl Into<String>,
    ) -> Step<T> {
        let finding = self.push(stage, Verdict::Wrong, what);
        finding.party = Some(party.to_owned());
        finding.fix = Some(fix.into());
        Err(Stopped(stage))
    }

    /// Two texts that have to be equal byte for byte.
    fn compare(
        &mut self,
        stage: Stage,
        what: &str,
        (found, expected): (&str, &str),
        party: &str,
        fix: impl Into<String>,
    ) -> Step<()> {
        let at = difference(found, expected);
        let verdict = if at.is_none() { Verdict::Ok } else { Verdict::Wrong };
        let text = match at {
            None => what.to_owned(),
            Some(_) => format!("{what}: {}", name_difference(found, expected)),
        };
        let finding = self.push(stage, verdict, text);
        finding.found = Some(found.to_owned());
        finding.expected = Some(expected.to_owned());
        finding.differs_at = at;
        if at.is_none() {
            return Ok(());
        }
        finding.party = Some(party.to_owned());
        finding.fix = Some(fix.into());
        Err(Stopped(stage))
    }

    async fn walk(&mut self) -> Step<()> {
        self.login().await?;
        self.identity_provider().await?;
        let (resource, named) = self.mcp_server().await?;
        let server = self.authorization_server(resource, named).await?;
        self.client_identity(&server).await?;
        let id_jag = self.exchange(&server).await?;
        let token = self.redemption(&server, &id_jag).await?;
        self.call(&server, &token).await
    }

    async fn login(&mut self) -> Step<()> {
        const AT: Stage = Stage::Login;
        let settings = self.client.settings();
        let (issuer, id) = (settings.idp.clone(), settings.idp_client.client_id.clone());
        let fix = format!("run `carnet login --issuer {issuer}`");
        let session = match self.client.session().await {
            Ok(Some(session)) => session,
            Ok(None) => {
                return self.wrong(AT, format!("nobody is signed in at {issuer}"), YOU, fix);
            }
            Err(error) => return self.wrong(AT, error.to_string(), YOU, fix),
        };
        let renews =
            if session.refresh_token.is_some() { "renews itself" } else { "does not renew" };
        self.ok(AT, format!("signed in as {} at {issuer}; the sign-in {renews}", session.name));
        let Ok((_, claims)) = jws::peek(&session.id_token) else {
            return self.wrong(AT, "the ID token that is kept cannot be read", YOU, fix);
        };
        let iss = claims.optional_str("iss").ok().flatten().unwrap_or_default();
        let texts = (iss, issuer.as_str());
        self.compare(
            AT,
            "the ID token's iss is the issuer",
            texts,
            IDP,
            "issue tokens as the issuer",
        )?;
        let audiences = claims.optional_strings("aud").ok().flatten().unwrap_or_default();
        if !audiences.contains(&id.as_str()) {
            let what =
                format!("the ID token is for {}, not for this client, {id}", audiences.join(" "));
            return self.wrong(AT, what, YOU, fix);
        }
        let left = session.id_token_expires - self.client.0.clock.now().0;
        if left <= 0 && session.refresh_token.is_none() {
            return self.wrong(AT, "the ID token has expired, and nothing renews it", YOU, fix);
        }
        Ok(())
    }

    async fn identity_provider(&mut self) -> Step<()> {
        const AT: Stage = Stage::IdentityProvider;
        let issuer = self.client.settings().idp.clone();
        let metadata = match self.client.idp_metadata().await {
            Ok(metadata) => metadata,
            Err(error) => {
                let fix = format!("serve {}", issuer.well_known_appended("openid-configuration"));
                return self.wrong(AT, error.to_string(), IDP, fix);
            }
        };
        self.ok(AT, format!("its metadata names {issuer} as issuer, byte for byte"));
        match &metadata.grant_types_supported {
            Some(grants) if !grants.iter().any(|grant| grant == GRANT_TOKEN_EXCHANGE) => {
                self.note(
                    AT,
                    format!("grant_types_supported does not list {GRANT_TOKEN_EXCHANGE}"),
                );
            }
            Some(_) => self.ok(AT, "it offers token exchange"),
            None => self.note(AT, "its metadata does not say which grants it offers"),
        }
        // What the company's catalog names is the company's, whatever its metadata say.
        let _ = self.client.catalog().await;
        let requested = &metadata.identity_chaining_requested_token_types_supported;
        if requested.iter().any(|kind| kind == TOKEN_TYPE_ID_JAG) {
            self.ok(AT, "it offers ID-JAGs");
        } else {
            self.note(
                AT,
                "identity_chaining_requested_token_types_supported does not list ID-JAGs (JAG 7.1); \
                 the exchange will tell",
            );
        }
        Ok(())
    }

    /// The challenge, the metadata document, the resource and the authorization server it names.
    async fn mcp_server(&mut self) -> Step<(Resource, Found)> {
        const AT: Stage = Stage::McpServer;
        let url = self.url;
        let own = match Resource::parse(url) {
            Ok(own) => own,
            Err(error) => {
                let fix = "use the MCP server's https URL";
                return self.wrong(AT, format!("`{url}` {error}"), YOU, fix);
            }
        };
        let reach = Reach::of_trusted_url(url);
        let ping = json!({"jsonrpc": "2.0", "id": 0, "method": "ping"});
        let probe = match self.outbound().json("POST", url, reach, None, Some(&ping)).await {
            Ok(probe) => probe,
            Err(error) => {
                let fix = format!("see that {url} is right and that the server runs");
                return self.wrong(AT, error.to_string(), SERVER, fix);
            }
        };
        let challenge = bearer_challenge(&probe);
        match (probe.status, &challenge) {
            (401, Some(_)) => self.ok(AT, "without a token it answers 401 with a challenge"),
            (401, None) => {
                self.note(AT, "it answers 401 without a Bearer challenge (RFC 9728 5.1)");
            }
            (status, _) => self.note(AT, format!("without a token it answers {status}, not 401")),
        }
        let named = challenge.as_ref().and_then(|c| c.get("resource_metadata")).map(str::to_owned);
        if named.is_none() {
            self.note(
                AT,
                "its challenge names no resource_metadata; the well-known places are tried",
            );
        }
        let scopes = challenge.as_ref().and_then(|c| c.get("scope")).and_then(Scopes::parse);
        let Some((place, answer)) = self.metadata_document(&own, named, (reach, probe.near)).await
        else {
            let fix = format!(
                "check the URL (`carnet servers` lists yours); if it is right, serve {}",
                own.metadata_url()
            );
            let what = "it has no protected-resource metadata (RFC 9728)";
            return self.wrong(AT, what, SERVER, fix);
        };
        let metadata: ProtectedResourceMetadata = match answer.json() {
            Ok(metadata) => metadata,
            Err(error) => {
                let what = format!("{place} is not protected-resource metadata: {error}");
                return self.wrong(AT, what, SERVER, format!("mend {place}"));
            }
        };
        self.ok(AT, format!("its metadata is at {place}"));
        let resource = Resource::parse(&metadata.resource);
        // The origin may be named only where the document was found at the root.
        let at_root = Resource::parse(origin_of(own.normalized()).as_str());
        let at_root = at_root.ok().filter(|root| root.metadata_url() == place);
        let fits = resource
            .as_ref()
            .is_ok_and(|found| *found == own || at_root.as_ref().is_some_and(|root| found == root));
        if !fits {
            let fix = format!(
                "use {} if that is the server that is meant; otherwise set `resource` in {place} to \
                 \"{url}\"",
                metadata.resource
            );
            let texts = (metadata.resource.as_str(), url);
            self.compare(AT, "the metadata's resource is the server's URL", texts, SERVER, fix)?;
        }
        let Ok(resource) = resource else { return Err(Stopped(AT)) };
        self.ok(AT, format!("its resource identifier is {}", resource.as_str()));
        let Some(named) = metadata.authorization_servers.first() else {
            let fix = format!("list the issuer in `authorization_servers` of {place}");
            return self.wrong(AT, "its metadata names no authorization server", SERVER, fix);
        };
        let issuer = match Issuer::parse(named) {
            Ok(issuer) => issuer,
            Err(error) => {
                let fix = format!("correct `authorization_servers` in {place}");
                return self.wrong(
                    AT,
                    format!("its authorization server `{named}` {error}"),
                    SERVER,
                    fix,
                );
            }
        };
        if *named == self.client.settings().idp.as_str() {
            self.note(AT, "its authorization server is the identity provider itself (MCP-A4)");
        }
        let listed = metadata.scopes_supported.map(|list| list.into_iter().collect::<Scopes>());
        let known = |issuer: &str| self.client.is_known(issuer);
        let reach = reach_of_named(&own, (reach, probe.near), &issuer, known);
        let scopes = scopes.or(listed).filter(|s| !s.is_empty());
        Ok((resource, Found { issuer, place, scopes, reach }))
    }

    async fn metadata_document(
        &self,
        own: &Resource,
        named: Option<String>,
        (reach, beyond): (Reach, Reach),
    ) -> Option<(String, Answer)> {
        let root =
            Resource::parse(&origin_of(own.normalized())).ok().map(|root| root.metadata_url());
        let places = named.into_iter().chain([own.metadata_url()]).chain(root);
        for place in places {
            let same = origin_of(&place) == origin_of(own.normalized());
            let reach = if same { reach } else { beyond };
            if let Ok(answer) = self.outbound().get(&place, reach).await
                && answer.status == 200
            {
                return Some((place, answer));
            }
        }
        None
    }

    async fn authorization_server(&mut self, resource: Resource, found: Found) -> Step<McpServer> {
        const AT: Stage = Stage::AuthorizationServer;
        let Found { issuer, place, scopes, reach } = found;
        let places = [
            issuer.well_known_inserted("oauth-authorization-server"),
            issuer.well_known_inserted("openid-configuration"),
            issuer.well_known_appended("openid-configuration"),
        ];
        let mut document = None;
        for at in &places {
            if let Ok(answer) = self.outbound().get(at, reach).await
                && answer.status == 200
            {
                document = Some((at.clone(), answer));
                break;
            }
        }
        let Some((at, answer)) = document else {
            let what = format!("{issuer} serves no metadata (RFC 8414)");
            return self.wrong(AT, what, RAS, format!("serve {}", places[0]));
        };
        let raw: Value = answer.json().unwrap_or_default();
        let named = raw.get("issuer").and_then(Value::as_str).unwrap_or_default().to_owned();
        let fix = format!(
            "make the two equal: `issuer` in {at}, and `authorization_servers` in {place} (RFC 8414 \
             3.3)"
        );
        let texts = (named.as_str(), issuer.as_str());
        self.compare(
            AT,
            "its metadata's issuer is the one that the MCP server names",
            texts,
            RAS,
            fix,
        )?;
        let metadata: carnet_proto::metadata::AuthorizationServerMetadata = match answer.json() {
            Ok(metadata) => metadata,
            Err(error) => {
                let what = format!("{at} is not authorization-server metadata: {error}");
                return self.wrong(AT, what, RAS, format!("mend {at}"));
            }
        };
        let server = McpServer {
            url: self.url.to_owned(),
            resource,
            name: None,
            authorization_server: issuer.clone(),
            metadata: Discovered::configured(metadata, reach),
            scopes,
            reach,
        };
        if server.offers_cross_app_access() {
            self.ok(AT, "it offers cross-app access (the ID-JAG grant profile)");
        } else if self.client.may_use_cross_app_access(&server) {
            self.note(
                AT,
                "it does not list the ID-JAG grant profile, but is configured here by hand",
            );
        } else {
            let fix = format!(
                "list {GRANT_PROFILE_ID_JAG} in authorization_grant_profiles_supported of {at}, or tell \
                 people a client id there (`carnet secret {issuer} CLIENT_ID`)"
            );
            let what =
                "it does not offer cross-app access; `carnet tools` asks for your own consent";
            return self.wrong(AT, what, RAS, fix);
        }
        match &server.metadata.grant_types_supported {
            Some(grants) if !grants.iter().any(|grant| grant == GRANT_JWT_BEARER) => {
                self.note(AT, format!("grant_types_supported does not list {GRANT_JWT_BEARER}"));
            }
            _ => {}
        }
        Ok(server)
    }

    async fn client_identity(&mut self, server: &McpServer) -> Step<()> {
        const AT: Stage = Stage::Client;
        let settings = self.client.settings().clone();
        let own = settings.idp_client.client_id.clone();
        let ras = server.authorization_server.as_str();
        if let Ok(url) = DocumentUrl::parse(&own) {
            let reach = Reach::of_trusted_url(settings.idp.as_str());
            let read = match self.outbound().get(url.as_str(), reach).await {
                Ok(answer) if answer.status == 200 => {
                    client_document::read(&url, &answer.body).map_err(|error| error.to_string())
                }
                Ok(answer) => Err(format!("HTTP {}", answer.status)),
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(_) => self.ok(AT, format!("this installation is published at {own}")),
                Err(error) => {
                    let fix = "run `carnet login`, which enrols this computer anew";
                    let what = format!("this installation is not published any more: {error}");
                    return self.wrong(AT, what, YOU, fix);
                }
            }
            if server.metadata.client_id_metadata_document_supported {
                self.ok(AT, "the authorization server takes clients by their metadata documents");
                if own.starts_with("http://") && !ras.starts_with("http://") {
                    self.note(
                        AT,
                        "the document is on this machine: the authorization server cannot see it",
                    );
                }
                return Ok(());
            }
        }
        match settings.ras_clients.get(ras) {
            Some(known) => {
                let how = match known.credential {
                    Credential::Secret(_) => "with a secret",
                    Credential::Key(_) => "with a key",
                    Credential::None => "without any proof",
                };
                self.ok(AT, format!("this client is `{}` there, {how}", known.client_id));
            }
            None => self.note(
                AT,
                "no client registration for it is kept here; the ID-JAG will say which is needed",
            ),
        }
        Ok(())
    }

    async fn exchange(&mut self, server: &McpServer) -> Step<IdJagView> {
        const AT: Stage = Stage::Exchange;
        let scopes = server.scopes.clone();
        self.note(
            AT,
            format!(
                "asked with audience {} and resource {}",
                server.authorization_server,
                server.resource.as_str()
            ),
        );
        let id_jag = match self.client.id_jag(server, scopes.as_ref()).await {
            Ok(id_jag) => id_jag,
            Err(error) => return self.exchange_failed(server, &error).await,
        };
        let text = |name| id_jag.claims.optional_str(name).ok().flatten().unwrap_or_default();
        let aud = id_jag.claims.required_single_audience().unwrap_or_default().to_owned();
        let fix = "issue ID-JAGs with the authorization server's issuer as aud, byte for byte";
        let texts = (aud.as_str(), server.authorization_server.as_str());
        self.compare(AT, "the ID-JAG's aud is the authorization server", texts, IDP, fix)?;
        let fix = "issue ID-JAGs with your own issuer as iss";
        let idp = self.client.settings().idp.clone();
        self.compare(
            AT,
            "the ID-JAG's iss is the identity provider",
            (text("iss"), idp.as_str()),
            IDP,
            fix,
        )?;
        self.ok(AT, format!("the ID-JAG is for client `{}`", text("client_id")));
        match &id_jag.scopes {
            Some(scopes) => self.ok(AT, format!("it carries the scopes: {scopes}")),
            None => self.note(AT, "it carries no scope: the authorization server decides"),
        }
        Ok(id_jag)
    }

    async fn exchange_failed(&mut self, server: &McpServer, error: &Error) -> Step<IdJagView> {
        const AT: Stage = Stage::Exchange;
        match error {
            Error::RefusedByPolicy { error: answer, .. } => {
                let told = self.client.refusal(self.url).await;
                let own = &self.client.settings().idp_client;
                let client = match own.credential {
                    Credential::Key(_) => "carnet",
                    _ => own.client_id.as_str(),
                };
                let fix = match told {
                    Some(text) => text,
                    None => format!(
                        "allow audience {} and resource {} for you and client `{client}`; in Carnet, \
                         `carnet admin explain --user YOU --client {client} --resource {}` says more",
                        server.authorization_server,
                        server.resource.as_str(),
                        server.resource.as_str()
                    ),
                };
                let what =
                    format!("the policy refuses: {} ({})", answer.error, answer.error_description);
                self.wrong(AT, what, IT, fix)
            }
            Error::SignInNeeded { .. } | Error::EnrolmentEnded { .. } | Error::StepUpNeeded(_) => {
                self.wrong(AT, error.to_string(), YOU, "run `carnet login`")
            }
            Error::Refused { error: answer, .. } if answer.error == "invalid_client" => {
                let fix = "compare this client's id and secret or key with its registration there";
                self.wrong(AT, format!("{error}"), IDP, fix)
            }
            _ => self.wrong(AT, error.to_string(), IDP, "see what it says above"),
        }
    }

    async fn redemption(
        &mut self,
        server: &McpServer,
        id_jag: &IdJagView,
    ) -> Step<crate::obtain::AccessToken> {
        const AT: Stage = Stage::Redemption;
        let claimed = id_jag.claims.optional_str("client_id").ok().flatten().unwrap_or_default();
        let token = match self.client.redeem(server, id_jag, server.scopes.as_ref()).await {
            Ok(token) => token,
            Err(Error::ClientMismatch { registered, claimed, issuer }) => {
                let fix =
                    format!("set the connection's ras_client_id to the client's id at {issuer}");
                let texts = (claimed.as_str(), registered.as_str());
                self.compare(AT, "the ID-JAG names the client that is kept here", texts, IT, fix)?;
                return Err(Stopped(AT));
            }
            Err(error @ Error::NoRegistration { .. }) => {
                let fix = format!(
                    "run `carnet secret {} {claimed}` with the secret that IT has",
                    server.authorization_server
                );
                return self.wrong(AT, error.to_string(), YOU, fix);
            }
            Err(Error::Refused { error: answer, .. }) => {
                let idp = &self.client.settings().idp;
                let fix = match answer.error.as_str() {
                    "invalid_client" => format!(
                        "know the client `{claimed}`: register it, or accept metadata documents of \
                         {} (in Carnet: `carnet admin --ras NAME trust add {idp} --installations`)",
                        idp.origin()
                    ),
                    "invalid_grant" => format!(
                        "trust {idp} byte for byte, know the person, take {} as audience, and govern {} \
                         (in Carnet: `carnet admin --ras NAME resource add`); its audit trail names the \
                         reason",
                        server.authorization_server,
                        server.resource.as_str()
                    ),
                    "invalid_target" => format!("govern {}", server.resource.as_str()),
                    "invalid_scope" => "know the scopes that the ID-JAG carries".to_owned(),
                    _ => "see what it says above".to_owned(),
                };
                let what = format!("it refuses: {} ({})", answer.error, answer.error_description);
                return self.wrong(AT, what, RAS, fix);
            }
            Err(error) => return self.wrong(AT, error.to_string(), RAS, "see what it says above"),
        };
        self.ok(AT, format!("it answers with a token for the scopes: {}", token.scopes));
        // A JWT can be read (RFC 9068); an opaque token cannot, and need not be.
        if let Ok((_, claims)) = jws::peek(token.secret().expose()) {
            let aud = claims.required_single_audience().unwrap_or_default().to_owned();
            let texts = (aud.as_str(), server.resource.as_str());
            let same = Resource::parse(&aud).is_ok_and(|aud| aud == server.resource);
            if !same {
                let fix = "issue tokens with the MCP server's resource identifier as aud";
                self.compare(AT, "the token's aud is the MCP server", texts, RAS, fix)?;
            }
            self.ok(AT, "the token's aud is the MCP server");
        }
        Ok(token)
    }

    async fn call(&mut self, server: &McpServer, token: &crate::obtain::AccessToken) -> Step<()> {
        const AT: Stage = Stage::Call;
        let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "carnet doctor", "version": env!("CARGO_PKG_VERSION")}}});
        let bearer = Some(token.secret().expose());
        let sent = self.outbound().json("POST", self.url, server.reach, bearer, Some(&begin)).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                return self.wrong(AT, error.to_string(), SERVER, "see that the server runs");
            }
        };
        let challenge = bearer_challenge(&answer);
        let said = challenge
            .as_ref()
            .and_then(|c| c.get("error_description").or(c.get("error")))
            .unwrap_or("nothing more")
            .to_owned();
        match answer.status {
            200..=299 => {
                self.ok(AT, "the MCP server takes the token");
                Ok(())
            }
            401 => {
                let fix = format!(
                    "accept tokens whose iss is {} and whose aud is {}",
                    server.authorization_server,
                    server.resource.as_str()
                );
                self.wrong(AT, format!("it refuses the token: {said}"), SERVER, fix)
            }
            403 => {
                let scopes =
                    challenge.as_ref().and_then(|c| c.get("scope")).unwrap_or("more scope");
                let fix = format!("grant {scopes} in the connection");
                self.wrong(AT, format!("it wants more scope: {said}"), IT, fix)
            }
            // A server that only speaks the stateless revision says so in its own words.
            400 if answer.json::<Value>().is_ok_and(|body| body.get("error").is_some()) => {
                self.ok(AT, "the MCP server takes the token (and speaks a newer revision)");
                Ok(())
            }
            status => {
                let what = format!("with the token it answers HTTP {status}");
                self.wrong(AT, what, SERVER, "look into the server's log")
            }
        }
    }
}

/// What the MCP server's metadata leads to.
struct Found {
    issuer: Issuer,
    place: String,
    scopes: Option<Scopes>,
    reach: Reach,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commonest_differences_have_names() {
        for (found, expected, at, name) in [
            ("https://a/mcp/", "https://a/mcp", 13, "a trailing slash"),
            ("https://A/mcp", "https://a/mcp", 8, "upper and lower case"),
            ("http://a/mcp", "https://a/mcp", 4, "http against https"),
            ("http://localhost:1", "http://127.0.0.1:1", 7, "localhost against 127.0.0.1"),
            ("https://a/mcp", "https://a/sse", 10, "another text"),
        ] {
            assert_eq!(difference(found, expected), Some(at), "{found} {expected}");
            assert_eq!(name_difference(found, expected), name);
        }
        assert_eq!(difference("a", "a"), None);
    }
}
