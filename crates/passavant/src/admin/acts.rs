//! The requests to the administration API that each command makes.

use super::{
    api::Api,
    args::{
        Account, ById, Client, ClientHost, Connection, Gone, Group, Listing, Manner, Resource,
        Server, Trust, User,
    },
    secret_out::SecretOut,
};
use anyhow::{Context, Result, bail};
use passavant_admin::types::{
    Accounts, AuthorizationServers, ClientHosts, Clients, Connections, Fate, GovernedResources,
    Groups, Kind, LinkView, NewRecoveryLink, Resources, TrustedIssuers, Users,
};
use passavant_host::plain;
use passavant_proto::secret::Secret;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Converts command-line values to the API's type. An error names the path of the wrong value.
pub(super) fn typed<T: DeserializeOwned>(said: Value) -> Result<T> {
    serde_path_to_error::deserialize(said)
        .map_err(|error| anyhow::anyhow!("`{}`: {}", error.path(), error.inner()))
}

/// A request made from command-line options; options that were not given are left out.
pub(super) struct Saying(Map<String, Value>);

impl Saying {
    pub(super) fn new() -> Self {
        Self(Map::new())
    }

    pub(super) fn with(mut self, name: &str, said: Option<impl Into<Value>>) -> Self {
        if let Some(said) = said {
            self.0.insert(name.to_owned(), said.into());
        }
        self
    }

    /// Adds a list, if it has any elements.
    pub(super) fn list(self, name: &str, said: Vec<String>) -> Self {
        let said = (!said.is_empty()).then_some(said);
        self.with(name, said)
    }

    /// Adds a text; `-` removes the value.
    pub(super) fn or_none(self, name: &str, said: Option<String>) -> Self {
        let said = said.map(|text| if text == "-" { Value::Null } else { text.into() });
        self.with(name, said)
    }

    /// All that was said, also if that is nothing.
    pub(super) fn whole(self) -> Value {
        Value::Object(self.0)
    }

    pub(super) fn typed<T: DeserializeOwned>(self) -> Result<T> {
        if self.0.is_empty() {
            bail!("no change is given\nhint: --help lists what can be changed");
        }
        typed(Value::Object(self.0))
    }
}

pub(super) async fn list<K: Kind>(api: &Api, listing: &Listing) -> Result<Value> {
    let (items, unreadable) = api.server.all::<K>(listing.search.as_deref()).await?;
    let mut rows: Vec<Value> = items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    for record in unreadable {
        rows.push(serde_json::to_value(record)?);
    }
    Ok(rows.into())
}

pub(super) async fn one<K: Kind>(api: &Api, ById { id }: ById) -> Result<Value> {
    Ok(serde_json::to_value(api.server.show::<K>(&id).await?)?)
}

pub(super) async fn add<K: Kind>(api: &Api, new: Value) -> Result<Value> {
    Ok(serde_json::to_value(api.server.add::<K>(&typed(new)?).await?)?)
}

pub(super) async fn change<K: Kind>(api: &Api, id: &str, said: Saying) -> Result<Value> {
    Ok(serde_json::to_value(api.server.change::<K>(id, &said.typed()?, None).await?)?)
}

pub(super) async fn switch<K: Kind>(api: &Api, ById { id }: ById, on: bool) -> Result<Value> {
    Ok(serde_json::to_value(api.server.switch::<K>(&id, on).await?)?)
}

/// Prints the records that go with this one, and deletes it, unless this is a dry run.
pub(super) async fn delete<K: Kind>(api: &Api, Gone { id, dry_run }: Gone) -> Result<Value> {
    let with_it = api.server.dependents::<K>(&id).await?.records;
    for (fate, words) in [
        (Fate::Deleted, "deleted with it"),
        (Fate::Ended, "ended with it"),
        (Fate::Changed, "that name it, and lose it"),
    ] {
        let names: Vec<String> = with_it
            .iter()
            .filter(|record| record.then == fate)
            .map(|record| plain(&format!("{} {}", record.kind, record.name)))
            .collect();
        if !names.is_empty() {
            let shown = names.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 20 { ", …" } else { "" };
            eprintln!("{} {words}: {shown}{more}", names.len());
        }
    }
    if dry_run {
        return Ok(json!({"deleted": false, "would_go_with_it": with_it}));
    }
    api.server.delete::<K>(&id).await?;
    Ok(Value::Null)
}

/// A password or secret, from the terminal or the first line of standard input.
fn read_password() -> Result<Secret> {
    use std::io::{BufRead, IsTerminal};
    if std::io::stdin().is_terminal() {
        let password =
            Secret::new(rpassword::prompt_password("Password (12 characters or more): ")?);
        // The input is not echoed, so ask twice.
        let again = Secret::new(rpassword::prompt_password("The same again: ")?);
        if password != again {
            bail!("the two passwords differ; nothing was changed\nhint: run the command again");
        }
        return Ok(password);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

/// `NAME=VALUE` values as an object; `None` if none is given.
fn attributes_of(said: &[String]) -> Result<Option<Map<String, Value>>> {
    let mut attributes = Map::new();
    if said == ["-"] {
        return Ok(Some(attributes));
    }
    for pair in said {
        let (name, value) = pair.split_once('=').with_context(|| {
            format!("--attribute {pair}: not NAME=VALUE\nhint: for instance --attribute employeeNumber=0042")
        })?;
        attributes.insert(name.to_owned(), value.into());
    }
    Ok((!attributes.is_empty()).then_some(attributes))
}

pub(super) async fn users(api: &Api, user: User) -> Result<Value> {
    match user {
        User::Add {
            name,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            attributes,
            no_password,
        } => {
            let password = if no_password { None } else { Some(read_password()?) };
            let body = json!({
                "username": name, "email": email, "email_verified": email_verified,
                "display_name": display_name, "given_name": given_name, "family_name": family_name,
                "groups": groups, "attributes": attributes_of(&attributes)?.unwrap_or_default(),
                "password": password.as_ref().map(Secret::expose),
            });
            add::<Users>(api, body).await
        }
        User::List(listing) => list::<Users>(api, &listing).await,
        User::Show(id) => one::<Users>(api, id).await,
        User::Change {
            id,
            username,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            attributes,
        } => {
            let said = Saying::new()
                .with("attributes", attributes_of(&attributes)?)
                .with("username", username)
                .or_none("email", email)
                .with("email_verified", email_verified)
                .or_none("display_name", display_name)
                .or_none("given_name", given_name)
                .or_none("family_name", family_name);
            change::<Users>(api, &id, said).await
        }
        User::Disable(id) => switch::<Users>(api, id, false).await,
        User::Enable(id) => switch::<Users>(api, id, true).await,
        User::Delete(gone) => delete::<Users>(api, gone).await,
        User::Password { name } => {
            let password = read_password()?;
            Ok(serde_json::to_value(api.server.set_password(&name, &password).await?)?)
        }
        User::RecoveryLink { id, hours, forget_factors } => {
            let new = NewRecoveryLink { hours: Some(hours), forget_factors };
            Ok(serde_json::to_value(api.server.recovery_link(&id, &new).await?)?)
        }
        User::Groups { name, groups } => {
            change::<Users>(api, &name, Saying::new().with("groups", Some(groups))).await
        }
    }
}

pub(super) async fn groups(api: &Api, group: Group) -> Result<Value> {
    match group {
        Group::Add { name, description } => {
            add::<Groups>(api, json!({"name": name, "description": description})).await
        }
        Group::List(listing) => list::<Groups>(api, &listing).await,
        Group::Show(id) => one::<Groups>(api, id).await,
        Group::Change { id, description } => {
            let said = Saying::new().with("description", Some(description));
            change::<Groups>(api, &id, said).await
        }
        Group::Delete(gone) => delete::<Groups>(api, gone).await,
    }
}

impl Manner {
    /// Adds the options that were given; the rest is left to the server.
    fn said_in(self, saying: Saying) -> Saying {
        saying
            .with("id_token_signed_response_alg", self.id_token_algorithm)
            .with("pkce_optional", self.pkce_optional)
            .with("device_grant", self.device_grant)
            .with("dpop_bound_access_tokens", self.require_dpop)
            .with("require_pushed_authorization_requests", self.require_par)
    }
}

/// Reads a JWK Set from a file.
fn jwks_in(file: Option<PathBuf>) -> Result<Option<Value>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let jwks = serde_json::from_str(&text);
    Ok(Some(jwks.with_context(|| format!("{} is not JSON", file.display()))?))
}

pub(super) async fn clients(api: &Api, client: Client) -> Result<Value> {
    match client {
        Client::Add {
            name,
            id,
            redirect_uris,
            post_logout_redirect_uris,
            backchannel_logout_uri,
            id_token_lifetime,
            manner,
            jwks_file,
            jwks_uri,
            algorithm,
            public,
            software,
            resources,
            saml_entity_id,
            signals,
            secret_out,
        } => {
            let said = Saying::new()
                .with("name", Some(name))
                .with("id", id)
                .with("redirect_uris", Some(redirect_uris))
                .with("post_logout_redirect_uris", Some(post_logout_redirect_uris))
                .with("backchannel_logout_uri", backchannel_logout_uri)
                .with("id_token_lifetime", id_token_lifetime)
                .with("jwks", jwks_in(jwks_file)?)
                .with("jwks_uri", jwks_uri)
                .with("algorithm", algorithm)
                .with("public", Some(public))
                .with("software", software)
                .with("saml_entity_id", saml_entity_id)
                .with("signals", signals)
                .with("resources", Some(resources));
            let said = manner.said_in(said).whole();
            let mut out = SecretOut::new("--secret-out", secret_out)?;
            out.keep(add::<Clients>(api, said).await?, "client_secret")
        }
        Client::List(listing) => list::<Clients>(api, &listing).await,
        Client::Show(id) => one::<Clients>(api, id).await,
        Client::Change {
            id,
            name,
            redirect_uris,
            post_logout_redirect_uris,
            backchannel_logout_uri,
            id_token_lifetime,
            manner,
            jwks_file,
            jwks_uri,
            algorithm,
            saml_entity_id,
            signals,
        } => {
            let said = Saying::new()
                .with("name", name)
                .or_none("saml_entity_id", saml_entity_id)
                .or_none("signals", signals)
                .list("redirect_uris", redirect_uris)
                .list("post_logout_redirect_uris", post_logout_redirect_uris)
                .or_none("backchannel_logout_uri", backchannel_logout_uri)
                .with("id_token_lifetime", id_token_lifetime)
                .with("jwks", jwks_in(jwks_file)?)
                .with("jwks_uri", jwks_uri)
                .with("algorithm", algorithm);
            change::<Clients>(api, &id, manner.said_in(said)).await
        }
        Client::Disable(id) => switch::<Clients>(api, id, false).await,
        Client::Enable(id) => switch::<Clients>(api, id, true).await,
        Client::Delete(gone) => delete::<Clients>(api, gone).await,
        Client::Secret { id, overlap } => {
            Ok(serde_json::to_value(api.server.new_secret(&id, overlap).await?)?)
        }
    }
}

pub(super) async fn servers(api: &Api, server: Server) -> Result<Value> {
    match server {
        Server::Add {
            issuer,
            name,
            aliases,
            release,
            aud_tenant,
            aud_sub,
            sub_id,
            id_jag_algorithm,
            algorithm,
        } => {
            let said = Saying::new()
                .with("issuer", Some(issuer))
                .with("name", Some(name))
                .with("aliases", Some(aliases))
                .with("release", Some(release))
                .with("aud_tenant", aud_tenant)
                .with("aud_sub", aud_sub)
                .with("sub_id", sub_id)
                .with("id_jag_signing_alg", id_jag_algorithm)
                .with("algorithm", algorithm);
            add::<AuthorizationServers>(api, Value::Object(said.0)).await
        }
        Server::List(listing) => list::<AuthorizationServers>(api, &listing).await,
        Server::Show(id) => one::<AuthorizationServers>(api, id).await,
        Server::Change {
            issuer,
            name,
            aliases,
            release,
            aud_tenant,
            aud_sub,
            sub_id,
            id_jag_algorithm,
            algorithm,
        } => {
            let said = Saying::new()
                .with("name", name)
                .list("aliases", aliases)
                .list("release", release)
                .or_none("aud_tenant", aud_tenant)
                .or_none("aud_sub", aud_sub)
                .or_none("sub_id", sub_id)
                .or_none("id_jag_signing_alg", id_jag_algorithm)
                .with("algorithm", algorithm);
            change::<AuthorizationServers>(api, &issuer, said).await
        }
        Server::Disable(id) => switch::<AuthorizationServers>(api, id, false).await,
        Server::Enable(id) => switch::<AuthorizationServers>(api, id, true).await,
        Server::Delete(gone) => delete::<AuthorizationServers>(api, gone).await,
    }
}

/// Parses `SCOPE=TEXT` options.
fn descriptions(scope_texts: &[String]) -> Result<Map<String, Value>> {
    let mut descriptions = Map::new();
    for text in scope_texts {
        let Some((scope, words)) = text.split_once('=') else {
            bail!(
                "--scope-text: `{text}` is not SCOPE=TEXT\nhint: --scope-text 'notes.read=Read your notes'"
            )
        };
        descriptions.insert(scope.to_owned(), words.into());
    }
    Ok(descriptions)
}

pub(super) async fn resources(api: &Api, resource: Resource) -> Result<Value> {
    let is_ras = api.is_ras;
    match resource {
        Resource::Add {
            resource,
            server,
            name,
            scopes,
            default_scopes,
            scope_texts,
            algorithm,
            require_dpop,
            access_token_lifetime,
        } => {
            let descriptions = descriptions(&scope_texts)?;
            match (is_ras, server) {
                (false, Some(server)) => {
                    let body = json!({
                        "resource": resource, "authorization_server": server, "name": name,
                        "scopes": words(&scopes),
                    });
                    add::<Resources>(api, body).await
                }
                (false, None) => bail!(
                    "--server is missing\nhint: name the issuer of the authorization server that \
                     governs {resource}, or add --ras NAME to register it there"
                ),
                (true, Some(_)) => {
                    bail!("--server cannot be combined with --ras\nhint: leave it out")
                }
                (true, None) => {
                    let body = json!({
                        "resource": resource, "name": name, "scopes": words(&scopes),
                        "default_scopes": words(&default_scopes), "require_dpop": require_dpop,
                        "descriptions": descriptions,
                        "access_token_lifetime": access_token_lifetime,
                        "access_token_signing_alg": algorithm,
                    });
                    add::<GovernedResources>(api, body).await
                }
            }
        }
        Resource::List(listing) if is_ras => list::<GovernedResources>(api, &listing).await,
        Resource::List(listing) => list::<Resources>(api, &listing).await,
        Resource::Show(id) if is_ras => one::<GovernedResources>(api, id).await,
        Resource::Show(id) => one::<Resources>(api, id).await,
        Resource::Change {
            resource,
            name,
            scopes,
            default_scopes,
            scope_texts,
            algorithm,
            require_dpop,
            access_token_lifetime,
        } => {
            let texts = descriptions(&scope_texts)?;
            let said = Saying::new()
                .with("name", name)
                .with("scopes", scopes.map(|scopes| words(&scopes)))
                .with("default_scopes", default_scopes.map(|scopes| words(&scopes)))
                .with("descriptions", (!texts.is_empty()).then_some(texts))
                .or_none("access_token_signing_alg", algorithm)
                .with("require_dpop", require_dpop)
                .with("access_token_lifetime", access_token_lifetime);
            if is_ras {
                change::<GovernedResources>(api, &resource, said).await
            } else {
                change::<Resources>(api, &resource, said).await
            }
        }
        Resource::Disable(id) if is_ras => switch::<GovernedResources>(api, id, false).await,
        Resource::Disable(id) => switch::<Resources>(api, id, false).await,
        Resource::Enable(id) if is_ras => switch::<GovernedResources>(api, id, true).await,
        Resource::Enable(id) => switch::<Resources>(api, id, true).await,
        Resource::Delete(gone) if is_ras => delete::<GovernedResources>(api, gone).await,
        Resource::Delete(gone) => delete::<Resources>(api, gone).await,
    }
}

/// Warns about scopes that none of a connection's MCP servers has: they can never be granted.
fn warn_of_scopes(registered: &Value, resources: &[String], scopes: &[String]) {
    let named = |record: &&Value| {
        let resource = record.get("resource").and_then(Value::as_str);
        resources.is_empty() || resource.is_some_and(|one| resources.iter().any(|r| r == one))
    };
    let records = registered.as_array().into_iter().flatten().filter(named);
    let known: Vec<&str> = records
        .filter_map(|record| record.get("scopes")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let unknown: Vec<&str> =
        scopes.iter().map(String::as_str).filter(|scope| !known.contains(scope)).collect();
    if !unknown.is_empty() {
        eprintln!(
            "warning: no MCP server of this connection has the scope {}: `passavant admin resource \
             list` lists the scopes of each",
            plain(&unknown.join(", "))
        );
    }
}

pub(super) async fn connections(api: &Api, connection: Connection) -> Result<Value> {
    match connection {
        Connection::Add {
            id,
            client,
            audience,
            ras_client_id,
            resources,
            scopes,
            groups,
            users,
            everyone,
            max_age,
            acr_values,
        } => {
            if groups.is_empty() && users.is_empty() && !everyone {
                eprintln!(
                    "warning: this connection is for nobody yet: --group, --user or --everyone says whom it is for"
                );
            }
            let body = json!({
                "id": id, "idp_client_id": client, "audience": audience,
                "ras_client_id": ras_client_id, "resources": resources,
                "scopes": words(&scopes), "groups": groups, "users": users, "everyone": everyone,
                "conditions": {"max_authentication_age": max_age, "acr_values": acr_values},
            });
            let made = add::<Connections>(api, body).await?;
            warn_of_scopes(
                &list::<Resources>(api, &Listing::default()).await?,
                &resources,
                &words(&scopes),
            );
            Ok(made)
        }
        Connection::List(listing) => list::<Connections>(api, &listing).await,
        Connection::Show(id) => one::<Connections>(api, id).await,
        Connection::Change {
            id,
            ras_client_id,
            resources,
            scopes,
            groups,
            no_groups,
            users,
            no_users,
            everyone,
            max_age,
            acr_values,
            no_conditions,
        } => {
            let conditions = no_conditions || max_age.is_some() || !acr_values.is_empty();
            let conditions = conditions
                .then(|| json!({"max_authentication_age": max_age, "acr_values": acr_values}));
            let some = |list: Vec<String>, none: bool| (none || !list.is_empty()).then_some(list);
            let said = Saying::new()
                .with("ras_client_id", ras_client_id)
                .list("resources", resources)
                .with("scopes", scopes.map(|scopes| words(&scopes)))
                .with("groups", some(groups, no_groups))
                .with("users", some(users, no_users))
                .with("everyone", everyone)
                .with("conditions", conditions);
            change::<Connections>(api, &id, said).await
        }
        Connection::Disable(id) => switch::<Connections>(api, id, false).await,
        Connection::Enable(id) => switch::<Connections>(api, id, true).await,
        Connection::Delete(gone) => delete::<Connections>(api, gone).await,
    }
}

pub(super) async fn trusts(api: &Api, trust: Trust) -> Result<Value> {
    match trust {
        Trust::Add {
            issuer,
            algorithm,
            jwks_uri,
            tenant,
            aud_tenant,
            just_in_time,
            email_domains,
            installations,
        } => {
            let body = json!({
                "issuer": issuer, "algorithm": algorithm, "jwks_uri": jwks_uri, "tenant": tenant,
                "audience_tenant": aud_tenant,
                "accounts": {"just_in_time": just_in_time, "email_domains": email_domains},
                "client_documents": installations,
            });
            add::<TrustedIssuers>(api, body).await
        }
        Trust::SignIn { issuer, client_id, domains, off } => {
            let sign_in = json!({"client_id": client_id, "domains": domains});
            let sign_in = if off { Value::Null } else { sign_in };
            change::<TrustedIssuers>(api, &issuer, Saying::new().with("sign_in", Some(sign_in)))
                .await
        }
        Trust::List(listing) => list::<TrustedIssuers>(api, &listing).await,
        Trust::Show(id) => one::<TrustedIssuers>(api, id).await,
        Trust::Change {
            issuer,
            algorithm,
            jwks_uri,
            aud_tenant,
            just_in_time,
            email_domains,
            installations,
        } => {
            let accounts = if just_in_time.is_some() || !email_domains.is_empty() {
                let held = api.server.show::<TrustedIssuers>(&issuer).await?.accounts;
                let domains =
                    if email_domains.is_empty() { held.email_domains } else { email_domains };
                Some(json!({"just_in_time": just_in_time.unwrap_or(held.just_in_time),
                            "email_domains": domains}))
            } else {
                None
            };
            let said = Saying::new()
                .with("algorithm", algorithm)
                .or_none("jwks_uri", jwks_uri)
                .or_none("audience_tenant", aud_tenant)
                .with("accounts", accounts)
                .with("client_documents", installations);
            change::<TrustedIssuers>(api, &issuer, said).await
        }
        Trust::Disable(id) => switch::<TrustedIssuers>(api, id, false).await,
        Trust::Enable(id) => switch::<TrustedIssuers>(api, id, true).await,
        Trust::Delete(gone) => delete::<TrustedIssuers>(api, gone).await,
    }
}

pub(super) async fn client_hosts(api: &Api, host: ClientHost) -> Result<Value> {
    match host {
        ClientHost::Add { origin } => add::<ClientHosts>(api, json!({"origin": origin})).await,
        ClientHost::List(listing) => list::<ClientHosts>(api, &listing).await,
        ClientHost::Disable(id) => switch::<ClientHosts>(api, id, false).await,
        ClientHost::Enable(id) => switch::<ClientHosts>(api, id, true).await,
        ClientHost::Delete(gone) => delete::<ClientHosts>(api, gone).await,
    }
}

pub(super) async fn accounts(api: &Api, account: Account) -> Result<Value> {
    match account {
        Account::Add { email } => add::<Accounts>(api, json!({"email": email})).await,
        Account::List(listing) => list::<Accounts>(api, &listing).await,
        Account::Show(id) => one::<Accounts>(api, id).await,
        Account::Change { id, email } => {
            change::<Accounts>(api, &id, Saying::new().or_none("email", Some(email))).await
        }
        Account::Links(ById { id }) => {
            Ok(serde_json::to_value(api.server.links(&id).await?.items)?)
        }
        Account::Unlink { issuer, subject, tenant } => {
            let link = json!({"issuer": issuer, "subject": subject, "tenant": tenant});
            api.server.unlink(&typed::<LinkView>(link)?).await?;
            Ok(Value::Null)
        }
        Account::Delete(gone) => delete::<Accounts>(api, gone).await,
        Account::Disable(id) => switch::<Accounts>(api, id, false).await,
        Account::Enable(id) => switch::<Accounts>(api, id, true).await,
    }
}
