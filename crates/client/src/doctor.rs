//! The doctor: checks every step from the sign-in to a tool list, compares each pair of strings
//! that have to be equal, and says which party has to change what. It stops before it sends
//! anything to a party that does not fit, and works with the parties of any vendor.

mod report;

use crate::{
    client::Client,
    discovery::{self, Described, McpServer, Probed, bearer_challenge},
    dpop::wants_nonce,
    error::Error,
    obtain::IdJagView,
    settings::Credential,
};
use passavant_outbound::{Answer, Differs, Outbound, Reach, first_words};
use passavant_proto::{
    GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ID_JAG,
    identifier::Resource,
    jose::jws,
    oauth::client_document::{self, DocumentUrl},
    others_text::shown,
    secret::Secret,
};
use report::{difference, name_difference};
use serde_json::{Value, json};

pub use report::{Finding, Report, Stage, Verdict};

struct Walk<'a> {
    client: &'a Client,
    url: &'a str,
    findings: Vec<Finding>,
}

/// The check ends here.
struct Stopped(Stage);

type Step<T> = Result<T, Stopped>;

const IDP: &str = "the identity provider's operator (IT)";
const SERVER: &str = "the MCP server's operator";
const RAS: &str = "the operator of the MCP server's authorization server";
const IT: &str = "IT, at the identity provider";
const YOU: &str = "you";

impl Client {
    /// Checks every step to the MCP server at `url`. Nothing is stored, and the person is not asked
    /// for anything.
    pub async fn examine(&self, url: &str) -> Report {
        let mut walk = Walk { client: self, url, findings: Vec::new() };
        let outcome = walk.walk().await;
        walk.clocks();
        let stage = outcome.err().map(|Stopped(stage)| stage);
        let wrong = walk.findings.iter().rfind(|finding| finding.verdict == Verdict::Wrong);
        let verdict = match (stage, wrong) {
            (None, _) => format!("{url} works: every leg from your sign-in to its tools."),
            (Some(_), Some(finding)) => {
                let party = finding.party.as_deref().unwrap_or("nobody in particular");
                let fix = finding.fix.as_deref().unwrap_or(&finding.what);
                let stage = finding.stage.title();
                let what = finding.what.lines().next().unwrap_or_default();
                format!("{url} does not work: {stage}: {what}. To be changed by {party}: {fix}")
            }
            (Some(stage), None) => {
                format!("{url} does not work; the check ended at this stage: {}.", stage.title())
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

    /// Compares two strings that have to be equal byte for byte.
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
        let found = self.mcp_server().await?;
        let server = self.authorization_server(found).await?;
        let token = match self.governed_by(&server).await? {
            GovernedBy::CrossApp => {
                self.client_identity(&server).await?;
                let id_jag = self.exchange(&server).await?;
                let token = self.redemption(&server, &id_jag).await?;
                (token.secret().clone(), token.dpop_jkt.is_some())
            }
            GovernedBy::Consent => self.consent(&server).await?,
        };
        self.call(&server, &token).await
    }

    /// Reports clocks that are off, whatever else was found.
    fn clocks(&mut self) {
        if let Some(warning) = self.client.clock_warning() {
            self.note(Stage::Login, warning);
        }
    }

    async fn login(&mut self) -> Step<()> {
        const AT: Stage = Stage::Login;
        let settings = self.client.settings();
        let (issuer, id) = (settings.idp.clone(), settings.idp_client.client_id.clone());
        let fix = format!("run `passavant login --issuer {issuer}`");
        let session = match self.client.session().await {
            Ok(Some(session)) => session,
            Ok(None) => {
                let what = match self.client.nobody_signed_in().await {
                    Error::AccessEnded(ended) => ended.sentence(),
                    _ => format!("nobody is signed in at {issuer}"),
                };
                return self.wrong(AT, what, YOU, fix);
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
            return self.wrong(
                AT,
                "the ID token has expired, and there is no refresh token to renew it",
                YOU,
                fix,
            );
        }
        Ok(())
    }

    async fn identity_provider(&mut self) -> Step<()> {
        const AT: Stage = Stage::IdentityProvider;
        let issuer = self.client.settings().idp.clone();
        let metadata = match self.client.idp_metadata().await {
            Ok(metadata) => metadata,
            Err(error) => {
                return self.failed(AT, &error, IDP);
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
        // Authorization servers in the company's catalog are the company's, whatever their metadata
        // say.
        let _ = self.client.catalog().await;
        let requested = &metadata.identity_chaining_requested_token_types_supported;
        if requested.iter().any(|kind| kind == TOKEN_TYPE_ID_JAG) {
            self.ok(AT, "it offers ID-JAGs");
        } else {
            self.note(
                AT,
                "identity_chaining_requested_token_types_supported does not list ID-JAGs (ID-JAG draft section 7.1); \
                 the exchange will tell",
            );
        }
        Ok(())
    }

    /// Reports an error of the client, in the client's own words.
    fn failed<T>(&mut self, stage: Stage, error: &Error, party: &str) -> Step<T> {
        if let Error::Differs(Differs { what, found, expected, hint }) = error {
            let texts = (found.as_str(), expected.as_str());
            self.compare(stage, what, texts, party, hint.as_str())?;
            return Err(Stopped(stage));
        }
        let text = error.to_string();
        let (what, fix) = match text.split_once("\nhint: ") {
            Some((what, fix)) => (what.to_owned(), fix.to_owned()),
            None => (text.clone(), text.clone()),
        };
        self.wrong(stage, what, party, fix)
    }

    /// Checks the challenge, the metadata document, and the resource and authorization server that
    /// it names.
    async fn mcp_server(&mut self) -> Step<(Probed, Described)> {
        const AT: Stage = Stage::McpServer;
        let url = self.url;
        if let Err(error) = Resource::parse(url) {
            let fix = "use the MCP server's https URL";
            return self.wrong(AT, format!("`{url}` {error}"), YOU, fix);
        }
        let probed = match discovery::probe(self.outbound(), url).await {
            Ok(probed) => probed,
            Err(error @ Error::Discovery(_)) => return self.failed(AT, &error, YOU),
            Err(error) => {
                let text = error.to_string();
                let (what, fix) = match text.split_once("\nhint: ") {
                    Some((what, fix)) => (what.to_owned(), fix.to_owned()),
                    None => (
                        text.clone(),
                        format!("check that {url} is right and that the server is running"),
                    ),
                };
                return self.wrong(AT, what, SERVER, fix);
            }
        };
        match (probed.status, &probed.challenge) {
            (401, Some(_)) => self.ok(AT, "without a token it answers 401 with a challenge"),
            (401, None) => {
                self.note(AT, "it answers 401 without a Bearer challenge (RFC 9728 5.1)");
            }
            (status, _) => self.note(AT, format!("without a token it answers {status}, not 401")),
        }
        if probed.named().is_none() {
            self.note(
                AT,
                "its challenge names no resource_metadata; the well-known places are tried",
            );
        }
        let found = match discovery::described(self.outbound(), &probed).await {
            Ok(found) => found,
            Err(error) => return self.failed(AT, &error, SERVER),
        };
        self.ok(AT, format!("its metadata is at {}", found.place));
        self.ok(AT, format!("its resource identifier is {}", found.resource.as_str()));
        if found.authorization_server == self.client.settings().idp {
            self.note(AT, "its authorization server is the identity provider itself");
        }
        Ok((probed, found))
    }

    async fn authorization_server(
        &mut self,
        (probed, found): (Probed, Described),
    ) -> Step<McpServer> {
        const AT: Stage = Stage::AuthorizationServer;
        let known = |issuer: &str| self.client.is_known(issuer);
        let server = discovery::governed(self.outbound(), &probed, found, known).await;
        let server = match server {
            Ok(server) => server,
            Err(error) => return self.failed(AT, &error, RAS),
        };
        self.ok(AT, "its metadata's issuer is the one that the MCP server names");
        match &server.metadata.grant_types_supported {
            Some(grants)
                if server.offers_cross_app_access()
                    && !grants.iter().any(|grant| grant == GRANT_JWT_BEARER) =>
            {
                self.note(AT, format!("grant_types_supported does not list {GRANT_JWT_BEARER}"));
            }
            _ => {}
        }
        Ok(server)
    }

    /// Whether the company governs the server, or the person alone decides.
    async fn governed_by(&mut self, server: &McpServer) -> Step<GovernedBy> {
        const AT: Stage = Stage::AuthorizationServer;
        if server.offers_cross_app_access() {
            self.ok(AT, "it offers cross-app access (the ID-JAG grant profile)");
            return Ok(GovernedBy::CrossApp);
        }
        let issuer = server.authorization_server.as_str();
        if self.client.may_use_cross_app_access(server) {
            self.note(
                AT,
                "it does not list the ID-JAG grant profile, but is configured here by hand, or by the company",
            );
            return Ok(GovernedBy::CrossApp);
        }
        match self.client.company_decides(&server.resource, issuer).await {
            Ok(true) => Ok(GovernedBy::CrossApp),
            Ok(false) => {
                self.note(
                    AT,
                    "it does not offer cross-app access: you give consent yourself, and your company's IT does not see \
                     what is granted there",
                );
                Ok(GovernedBy::Consent)
            }
            Err(error) => self.failed(AT, &error, IDP),
        }
    }

    /// The token that the person's consent brought.
    async fn consent(&mut self, server: &McpServer) -> Step<(Secret, bool)> {
        const AT: Stage = Stage::Client;
        match self.client.silent_access(self.url).await {
            Ok(access) => {
                self.ok(AT, format!("you have given consent at {}", server.authorization_server));
                Ok((Secret::new(access.token), access.dpop_jkt.is_some()))
            }
            Err(Error::ConsentNeeded { issuer, .. }) => {
                let what = format!("you have not given consent at {issuer}, or it has ended");
                let fix = format!(
                    "run `passavant tools {}` in a terminal, which asks you for it",
                    self.url
                );
                self.wrong(AT, what, YOU, fix)
            }
            Err(error) => self.failed(AT, &error, RAS),
        }
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
                    let fix = "run `passavant login`, which enrols this computer anew; if the sign-in page refuses you, your \
                               account is switched off: ask IT";
                    let what = format!("this installation is not published any more: {error}");
                    return self.wrong(AT, what, YOU, fix);
                }
            }
            if server.metadata.client_id_metadata_document_supported {
                self.ok(AT, "the authorization server takes clients by their metadata documents");
                if own.starts_with("http://") && !ras.starts_with("http://") {
                    self.note(
                        AT,
                        "the client's metadata document is on this machine; the authorization \
                         server cannot fetch it",
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
                    Credential::None => "without authentication",
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
                    Credential::Key(_) => "passavant",
                    _ => own.client_id.as_str(),
                };
                let fix = match told {
                    Some(text) => text,
                    None => format!(
                        "allow audience {} and resource {} for you and client `{client}`; in Passavant, \
                         `passavant admin explain --user YOU --client {client} --resource {}` says more",
                        server.authorization_server,
                        server.resource.as_str(),
                        server.resource.as_str()
                    ),
                };
                let what = format!("the policy refuses: {answer}");
                self.wrong(AT, what, IT, fix)
            }
            Error::AccessEnded(ended) => self.wrong(AT, ended.sentence(), YOU, ended.advice()),
            Error::SignInNeeded { .. } | Error::EnrolmentEnded { .. } | Error::StepUpNeeded(_) => {
                self.wrong(AT, error.to_string(), YOU, "run `passavant login`")
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
    ) -> Step<crate::client::AccessToken> {
        const AT: Stage = Stage::Redemption;
        let claimed = id_jag.claims.optional_str("client_id").ok().flatten().unwrap_or_default();
        let (client, scopes) = (self.client, server.scopes.as_ref());
        let ras = server.authorization_server.as_str();
        let sent = client.sends_resource(ras);
        let fresh = || client.id_jag(server, scopes);
        let redeemed = client.redeem_or_again(server, scopes, id_jag, fresh).await;
        if sent && !client.sends_resource(ras) {
            self.note(
                AT,
                "it does not accept the `resource` parameter; the request was repeated without it",
            );
        }
        let token = match redeemed {
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
                    "run `passavant secret {} {claimed}` with the secret that IT has",
                    server.authorization_server
                );
                return self.wrong(AT, error.to_string(), YOU, fix);
            }
            Err(Error::Refused { error: answer, .. }) => {
                let idp = &self.client.settings().idp;
                let fix = match answer.error.as_str() {
                    "invalid_client" => format!(
                        "know the client `{claimed}`: register it, or accept metadata documents of \
                         {} (in Passavant: `passavant admin --ras NAME trust add {idp} --installations`)",
                        idp.origin()
                    ),
                    "invalid_grant" => format!(
                        "trust {idp} byte for byte, know the person, take {} as audience, and govern {} \
                         (in Passavant: `passavant admin --ras NAME resource add`); its audit trail names the \
                         reason",
                        server.authorization_server,
                        server.resource.as_str()
                    ),
                    "invalid_target" => format!("govern {}", server.resource.as_str()),
                    "invalid_scope" => "know the scopes that the ID-JAG carries".to_owned(),
                    _ => "see what it says above".to_owned(),
                };
                let what = format!("it refuses: {answer}");
                return self.wrong(AT, what, RAS, fix);
            }
            Err(error) => return self.wrong(AT, error.to_string(), RAS, "see what it says above"),
        };
        self.ok(AT, format!("it answers with a token for the scopes: {}", token.scopes));
        if token.dpop_jkt.is_some() {
            self.ok(AT, "the token is bound to this computer's key (DPoP)");
        }
        // A JWT can be parsed (RFC 9068); an opaque token cannot, and need not be.
        if let Ok((_, claims)) = jws::peek(token.secret().expose()) {
            let audiences = claims.optional_strings("aud").ok().flatten().unwrap_or_default();
            let is_it = |aud: &&str| Resource::parse(aud).is_ok_and(|aud| aud == server.resource);
            match audiences.as_slice() {
                [one] if is_it(one) => self.ok(AT, "the token's aud is the MCP server"),
                [one] => {
                    let texts = (*one, server.resource.as_str());
                    let fix = "issue tokens with the MCP server's resource identifier as aud";
                    self.compare(AT, "the token's aud is the MCP server", texts, RAS, fix)?;
                }
                many if many.iter().any(is_it) => {
                    let others = many.iter().filter(|aud| !is_it(aud)).copied();
                    let others = shown(&others.collect::<Vec<_>>().join(" "), 300);
                    self.note(
                        AT,
                        format!(
                            "the token's aud names the MCP server, and others beside it: {others}"
                        ),
                    );
                }
                many => {
                    let found = shown(&many.join(" "), 300);
                    let what =
                        format!("the token's aud does not name the MCP server; it names: {found}");
                    let fix = format!("issue tokens with {} in aud", server.resource.as_str());
                    return self.wrong(AT, what, RAS, fix);
                }
            }
        }
        Ok(token)
    }

    /// The last step: the server has to return a JSON-RPC result.
    async fn call(&mut self, server: &McpServer, token: &(Secret, bool)) -> Step<()> {
        const AT: Stage = Stage::Call;
        let info = json!({"name": "passavant doctor", "version": env!("CARGO_PKG_VERSION")});
        let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}});
        let answer = self.send(server, token, &begin, &[]).await?;
        if is_result(&answer) {
            self.ok(AT, "the MCP server takes the token, and answers a request");
            return Ok(());
        }
        // A server that supports only the stateless revision says so with an error of its own.
        let newer = rpc_error(&answer).is_some_and(|(code, _)| matches!(code, -32601 | -32022));
        if newer || answer.status == 400 {
            let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": info});
            let discover = json!({"jsonrpc": "2.0", "id": 2, "method": "server/discover",
                                  "params": {"_meta": meta}});
            let headers =
                [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "server/discover")];
            let answer = self.send(server, token, &discover, &headers).await?;
            if is_result(&answer) {
                self.ok(
                    AT,
                    "the MCP server takes the token, and answers a request (without sessions)",
                );
                return Ok(());
            }
        }
        self.no_result(server, &token.0, &answer)
    }

    async fn send(
        &mut self,
        server: &McpServer,
        (token, is_bound): &(Secret, bool),
        message: &Value,
        headers: &[(&str, &str)],
    ) -> Step<Answer> {
        let client = self.client;
        let send = async || {
            let presented = client.presenting("POST", self.url, token.expose(), *is_bound);
            let presented = presented
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
            let headers: Vec<(&str, &str)> = headers.iter().copied().chain(presented).collect();
            let outbound = client.outbound();
            outbound.json_with("POST", self.url, server.reach, None, Some(message), &headers).await
        };
        let mut sent = send().await;
        if let Ok(answer) = &sent
            && client.take_nonce(self.url, &answer.headers)
            && answer.status == 401
            && wants_nonce(&answer.headers)
        {
            sent = send().await;
        }
        match sent {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let text = error.to_string();
                let (what, fix) = match text.split_once("\nhint: ") {
                    Some((what, fix)) => (what.to_owned(), fix.to_owned()),
                    None => (text.clone(), "check that the server is running".to_owned()),
                };
                self.wrong(Stage::Call, what, SERVER, fix)
            }
        }
    }

    /// Reports what the server sent instead of a result, in its own words.
    fn no_result(&mut self, server: &McpServer, token: &Secret, answer: &Answer) -> Step<()> {
        const AT: Stage = Stage::Call;
        let challenge = bearer_challenge(answer);
        let said = challenge
            .as_ref()
            .and_then(|c| c.get("error_description").or(c.get("error")))
            .map(|text| shown(text, 300));
        let body = shown(first_words(&answer.body), 300);
        let said = said.or_else(|| (!body.is_empty()).then_some(body));
        let said = said.unwrap_or_else(|| "nothing more".to_owned());
        let named = challenge.as_ref().filter(|c| c.get("error") == Some("insufficient_scope"));
        match (answer.status, named) {
            (401, _) => {
                let named = jws::peek(token.expose()).ok();
                let alg = named.as_ref().and_then(|(header, _)| {
                    header.optional_str("alg").ok().flatten().map(str::to_owned)
                });
                let alg = alg.map(|alg| format!(", signed with {alg},")).unwrap_or_default();
                let fix = format!(
                    "accept tokens{alg} whose iss is {} and whose aud is {}",
                    server.authorization_server,
                    server.resource.as_str()
                );
                self.wrong(AT, format!("it refuses the token: {said}"), SERVER, fix)
            }
            (403, Some(challenge)) => {
                let scopes = challenge.get("scope").unwrap_or("more scope");
                let fix = format!("grant {} in the connection", shown(scopes, 300));
                self.wrong(AT, format!("it wants more scope: {said}"), IT, fix)
            }
            (403, None) => {
                let fix = "see why it forbids this: its own words are above (a Host or Origin that it does not know, a \
                           rule of its own)";
                self.wrong(AT, format!("with the token it answers HTTP 403: {said}"), SERVER, fix)
            }
            (status @ 200..=299, _) => {
                let what = match rpc_error(answer) {
                    Some((code, message)) => format!("it answers with the error {code}: {message}"),
                    None => format!("it answers HTTP {status} without a JSON-RPC result: {said}"),
                };
                self.wrong(
                    AT,
                    what,
                    SERVER,
                    "answer MCP requests at this URL with JSON-RPC results",
                )
            }
            (status, _) => {
                let what = format!("with the token it answers HTTP {status}: {said}");
                self.wrong(AT, what, SERVER, "check the server's log")
            }
        }
    }
}

/// Who decides about access to an MCP server.
enum GovernedBy {
    CrossApp,
    Consent,
}

/// The JSON-RPC message in a response.
fn rpc(answer: &Answer) -> Option<Value> {
    answer.json().ok()
}

/// Whether a response is a JSON-RPC result.
fn is_result(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
        && rpc(answer).is_some_and(|message| message.get("result").is_some_and(Value::is_object))
}

/// Code and message of a JSON-RPC error.
fn rpc_error(answer: &Answer) -> Option<(i64, String)> {
    let error = rpc(answer)?.get("error")?.clone();
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    Some((error.get("code")?.as_i64()?, shown(message, 300)))
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
