//! What each command asks of the administration API.

use super::{
    Account, Administrator, Api, Client, ClientHost, Connection, GatewayAct, Group, Installation,
    Key, Manner, Resource, Server, Trust, User, show,
};
use anyhow::{Context, Result, bail};
use passavant_host as system;
use passavant_host::plain;
use passavant_proto::secret::Secret;
use serde_json::{Value, json};

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A password, or a secret, from the terminal or the first line of standard input.
fn read_password() -> Result<Secret> {
    use std::io::{BufRead, IsTerminal};
    if std::io::stdin().is_terminal() {
        let password =
            Secret::new(rpassword::prompt_password("Password (12 characters or more): ")?);
        // Nobody sees what they type here.
        let again = Secret::new(rpassword::prompt_password("The same again: ")?);
        if password != again {
            bail!("the two are not the same\nhint: nothing was changed; run it again");
        }
        return Ok(password);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

pub(super) async fn users(api: &Api, user: User) -> Result<Value> {
    let one = |name: &str, act: &str| format!("/users/{}{act}", segment(name));
    match user {
        User::Add {
            name,
            email,
            email_verified,
            display_name,
            given_name,
            family_name,
            groups,
            no_password,
        } => {
            let password = if no_password { None } else { Some(read_password()?) };
            let body = json!({
                "username": name, "email": email, "email_verified": email_verified,
                "display_name": display_name, "given_name": given_name, "family_name": family_name,
                "groups": groups,
                "password": password.as_ref().map(Secret::expose),
            });
            api.ask("POST", "/users", Some(body)).await
        }
        User::List => api.ask("GET", "/users", None).await,
        User::Show { name } => api.ask("GET", &one(&name, ""), None).await,
        User::Disable { name } => api.ask("POST", &one(&name, "/disable"), None).await,
        User::Enable { name } => api.ask("POST", &one(&name, "/enable"), None).await,
        User::Delete { name } => api.ask("DELETE", &one(&name, ""), None).await,
        User::Password { name } => {
            let password = read_password()?;
            let body = json!({"password": password.expose()});
            api.ask("POST", &one(&name, "/password"), Some(body)).await
        }
        User::Groups { name, groups } => {
            api.ask("POST", &one(&name, "/groups"), Some(json!({"groups": groups}))).await
        }
    }
}

pub(super) async fn groups(api: &Api, group: Group) -> Result<Value> {
    match group {
        Group::Add { name, description } => {
            let body = json!({"name": name, "description": description});
            api.ask("POST", "/groups", Some(body)).await
        }
        Group::List => api.ask("GET", "/groups", None).await,
        Group::Delete { name } => {
            api.ask("DELETE", &format!("/groups/{}", segment(&name)), None).await
        }
    }
}

impl Manner {
    /// A request with what was said of it; the rest is left to the server.
    fn said_in(self, mut body: Value) -> Value {
        if let Some(algorithm) = self.id_token_algorithm {
            body["id_token_signed_response_alg"] = algorithm.into();
        }
        for (name, said) in [
            ("pkce_optional", self.pkce_optional),
            ("device_grant", self.device_grant),
            ("dpop_bound_access_tokens", self.require_dpop),
            ("require_pushed_authorization_requests", self.require_par),
        ] {
            if let Some(said) = said {
                body[name] = said.into();
            }
        }
        body
    }
}

pub(super) async fn clients(api: &Api, client: Client, is_ras: bool, as_json: bool) -> Result<()> {
    let named = |id: &str, act: &str| {
        if is_ras {
            (format!("/clients/{act}"), Some(json!({"id": id})))
        } else {
            (format!("/clients/{}/{act}", segment(id)), None)
        }
    };
    let value = match client {
        Client::Add {
            name,
            id,
            redirect_uris,
            post_logout_redirect_uris,
            id_token_lifetime,
            manner,
            jwks_file,
            jwks_uri,
            algorithm,
            public,
            software,
            resources,
            secret_out,
        } => {
            let jwks: Option<Value> = match jwks_file {
                None => None,
                Some(file) => {
                    let text = std::fs::read_to_string(&file)
                        .with_context(|| format!("{} cannot be read", file.display()))?;
                    Some(
                        serde_json::from_str(&text)
                            .with_context(|| format!("{} is not JSON", file.display()))?,
                    )
                }
            };
            let body = json!({
                "id": id, "name": name, "redirect_uris": redirect_uris,
                "post_logout_redirect_uris": post_logout_redirect_uris,
                "id_token_lifetime": id_token_lifetime, "jwks": jwks, "jwks_uri": jwks_uri,
                "public": public, "resources": resources, "software": software,
                "algorithm": algorithm,
            });
            let body = manner.said_in(body);
            let mut out = SecretOut::new("--secret-out", secret_out)?;
            out.keep(api.ask("POST", "/clients", Some(body)).await?, "client_secret")?
        }
        Client::List => api.ask("GET", "/clients", None).await?,
        Client::Change {
            id,
            name,
            redirect_uris,
            post_logout_redirect_uris,
            id_token_lifetime,
            manner,
        } => {
            let some = |uris: Vec<String>| (!uris.is_empty()).then_some(uris);
            let body = json!({
                "id": id, "name": name, "redirect_uris": some(redirect_uris),
                "post_logout_redirect_uris": some(post_logout_redirect_uris),
                "id_token_lifetime": id_token_lifetime,
            });
            let body = manner.said_in(body);
            api.ask("POST", "/clients/change", Some(body)).await?
        }
        Client::Disable { id } => {
            let (path, body) = named(&id, "disable");
            api.ask("POST", &path, body).await?
        }
        Client::Enable { id } => {
            let (path, body) = named(&id, "enable");
            api.ask("POST", &path, body).await?
        }
        Client::Delete { id } if is_ras => {
            api.ask("POST", "/clients/delete", Some(json!({"id": id}))).await?
        }
        Client::Delete { id } => {
            api.ask("DELETE", &format!("/clients/{}", segment(&id)), None).await?
        }
        Client::Secret { id, overlap } => {
            let path = format!("/clients/{}/secret", segment(&id));
            api.ask("POST", &path, Some(json!({"overlap": overlap}))).await?
        }
    };
    show(&value, as_json)?;
    Ok(())
}

pub(super) async fn servers(api: &Api, server: Server) -> Result<Value> {
    match server {
        Server::Add { issuer, name, aliases, release, id_jag_algorithm, algorithm } => {
            let mut body = json!({
                "issuer": issuer, "name": name, "aliases": aliases, "release": release,
                "id_jag_signing_alg": id_jag_algorithm,
            });
            if let Some(algorithm) = algorithm {
                body["algorithm"] = algorithm.into();
            }
            api.ask("POST", "/authorization-servers", Some(body)).await
        }
        Server::List => api.ask("GET", "/authorization-servers", None).await,
        Server::Delete { issuer } => {
            api.ask("POST", "/authorization-servers/delete", Some(json!({"id": issuer}))).await
        }
    }
}

pub(super) async fn resources(api: &Api, resource: Resource, is_ras: bool) -> Result<Value> {
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
            let mut descriptions = serde_json::Map::new();
            for text in &scope_texts {
                let Some((scope, words)) = text.split_once('=') else {
                    bail!(
                        "--scope-text: `{text}` is not SCOPE=TEXT\nhint: --scope-text 'notes.read=Read your notes'"
                    )
                };
                descriptions.insert(scope.to_owned(), words.into());
            }
            let body = match (is_ras, server) {
                (false, Some(server)) => json!({
                    "resource": resource, "authorization_server": server, "name": name,
                    "scopes": words(&scopes),
                }),
                (false, None) => bail!(
                    "--server is missing\nhint: name the issuer of the authorization server that \
                     governs {resource}, or add --ras NAME to register it there"
                ),
                (true, Some(_)) => bail!("--server does not go with --ras\nhint: leave it out"),
                (true, None) => json!({
                    "resource": resource, "name": name, "scopes": words(&scopes),
                    "default_scopes": words(&default_scopes), "require_dpop": require_dpop,
                    "descriptions": descriptions,
                    "access_token_lifetime": access_token_lifetime,
                    "access_token_signing_alg": algorithm,
                }),
            };
            api.ask("POST", "/resources", Some(body)).await
        }
        Resource::List => api.ask("GET", "/resources", None).await,
        Resource::Delete { resource } => {
            api.ask("POST", "/resources/delete", Some(json!({"id": resource}))).await
        }
    }
}

/// Scopes that none of the MCP servers of a connection has can never be granted by it.
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
            "warning: no MCP server of this connection has the scope {}: `passavant admin resource list` shows which there are",
            plain(&unknown.join(", "))
        );
    }
}

pub(super) async fn connections(api: &Api, connection: Connection) -> Result<Value> {
    let one = |id: &str, act: &str| format!("/connections/{}{act}", segment(id));
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
            let made = api.ask("POST", "/connections", Some(body)).await?;
            warn_of_scopes(&api.ask("GET", "/resources", None).await?, &resources, &words(&scopes));
            Ok(made)
        }
        Connection::List => api.ask("GET", "/connections", None).await,
        Connection::Disable { id } => api.ask("POST", &one(&id, "/disable"), None).await,
        Connection::Enable { id } => api.ask("POST", &one(&id, "/enable"), None).await,
        Connection::Delete { id } => api.ask("DELETE", &one(&id, ""), None).await,
    }
}

pub(super) async fn trusts(api: &Api, trust: Trust) -> Result<Value> {
    let act = |act: &str| format!("/trusted-issuers/{act}");
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
            api.ask("POST", "/trusted-issuers", Some(body)).await
        }
        Trust::SignIn { issuer, client_id, domains, off } => {
            let sign_in = (!off).then(|| json!({"client_id": client_id, "domains": domains}));
            let body = json!({"id": issuer, "sign_in": sign_in});
            api.ask("POST", &act("sign-in"), Some(body)).await
        }
        Trust::List => api.ask("GET", "/trusted-issuers", None).await,
        Trust::Disable { issuer } => {
            api.ask("POST", &act("disable"), Some(json!({"id": issuer}))).await
        }
        Trust::Enable { issuer } => {
            api.ask("POST", &act("enable"), Some(json!({"id": issuer}))).await
        }
        Trust::Delete { issuer } => {
            api.ask("POST", &act("delete"), Some(json!({"id": issuer}))).await
        }
    }
}

pub(super) async fn administrators(api: &Api, act: Administrator, as_json: bool) -> Result<()> {
    let (path, name, role, token) = match act {
        Administrator::List => {
            return administrator_table(&api.ask("GET", "/administrators", None).await?, as_json);
        }
        Administrator::Delete { name } => {
            let gone = Some(json!({"name": name}));
            return show(&api.ask("POST", "/administrators/delete", gone).await?, as_json);
        }
        Administrator::Add { name, role, token } => ("/administrators", name, Some(role), token),
        Administrator::Renew { name, token } => ("/administrators/renew", name, None, token),
    };
    let mut out = SecretOut::new("--token-out", token.token_out)?;
    let mut body = json!({"name": name, "days": token.days});
    if let Some(role) = role {
        body["role"] = role.into();
    }
    let made = out.keep(api.ask("POST", path, Some(body)).await?, "token")?;
    if as_json {
        return show(&made, as_json);
    }
    let text = |member: &str| plain(made.get(member).and_then(Value::as_str).unwrap_or_default());
    println!("{} has the role {}; the token ends {}.", text("name"), text("role"), ends(&made));
    match &out.file {
        Some(file) => println!(
            "The token is in {}: `passavant admin{} --secret-file {} …` acts by that name.",
            file.display(),
            api.again,
            system::quoted(&file.display().to_string())
        ),
        None => println!(
            "The token, shown this once; in a file (mode 0600) it is what --secret-file takes:\n{}",
            text("token")
        ),
    }
    Ok(())
}

/// When a token ends.
fn ends(administrator: &Value) -> String {
    let at = administrator.get("expires_at").and_then(Value::as_i64).unwrap_or_default();
    match at - system::clock().now().0 {
        ..=0 => "ended".to_owned(),
        1..=86_400 => "in less than a day".to_owned(),
        left => format!("in {} days", (left + 86_399) / 86_400),
    }
}

fn administrator_table(all: &Value, as_json: bool) -> Result<()> {
    if as_json || all.as_array().is_none_or(Vec::is_empty) {
        return show(all, as_json);
    }
    let mut table = vec![["NAME", "ROLE", "TOKEN ENDS", "ADDED BY"].map(str::to_owned)];
    for row in all.as_array().into_iter().flatten() {
        let text = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or_default());
        table.push([text("name"), text("role"), ends(row), text("added_by")]);
    }
    print!("{}", system::table(&table));
    Ok(())
}

/// A new file for a secret that is shown once.
struct SecretOut {
    file: Option<std::path::PathBuf>,
    kept: bool,
}

impl SecretOut {
    /// Before anything is made: the file is there then, empty and its owner's alone, and one that was there stays.
    fn new(option: &str, file: Option<std::path::PathBuf>) -> Result<Self> {
        if let Some(file) = &file {
            system::write_private(file, b"", true).with_context(|| option.to_owned())?;
        }
        Ok(Self { file, kept: false })
    }

    /// Writes the secret of an answer there, where there is one, and takes it out of the answer.
    fn keep(&mut self, mut answer: Value, member: &str) -> Result<Value> {
        if let (Some(file), Some(secret)) = (&self.file, answer.get(member)) {
            let secret = Secret::new(secret.as_str().unwrap_or_default());
            system::write_private(file, secret.expose().as_bytes(), false)?;
            self.kept = true;
            answer[member] = format!("(in {})", file.display()).into();
        }
        Ok(answer)
    }
}

impl Drop for SecretOut {
    /// Nothing was made: no file is left for it.
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| !self.kept) {
            let _ = std::fs::remove_file(file);
        }
    }
}

pub(super) async fn keys(api: &Api, act: Key) -> Result<Value> {
    match act {
        Key::List => api.ask("GET", "/keys", None).await,
        Key::Rotate { now, algorithm } => {
            let body = json!({"now": now, "algorithm": algorithm});
            api.ask("POST", "/keys/rotate", Some(body)).await
        }
        Key::Remove { kid } => api.ask("POST", "/keys/remove", Some(json!({"kid": kid}))).await,
    }
}

pub(super) async fn installations(api: &Api, act: Installation, as_json: bool) -> Result<()> {
    let rows = match act {
        Installation::Revoke { id } => {
            api.ask("DELETE", &format!("/installations/{}", segment(&id)), None).await?;
            println!("done");
            return Ok(());
        }
        Installation::List { user: None } => api.ask("GET", "/installations", None).await?,
        Installation::List { user: Some(user) } => {
            api.ask("GET", &format!("/installations?user={}", segment(&user)), None).await?
        }
    };
    if as_json {
        println!("{}", system::json_text(&rows)?);
        return Ok(());
    }
    let now = system::clock().now().0;
    let mut table = vec![["ID", "PERSON", "DEVICE", "ENROLLED", "LAST USED"].map(str::to_owned)];
    for row in rows.as_array().into_iter().flatten() {
        let text = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or(""));
        let when = |name: &str| {
            system::ago(now - row.get(name).and_then(Value::as_i64).unwrap_or_default())
        };
        let times = [when("enrolled_at"), when("used_at")];
        let [enrolled, used] = times;
        table.push([text("id"), text("user"), text("device"), enrolled, used]);
    }
    print!("{}", system::table(&table));
    Ok(())
}

pub(super) async fn client_hosts(api: &Api, host: ClientHost) -> Result<Value> {
    let act = |act: &str| format!("/client-hosts/{act}");
    match host {
        ClientHost::Add { origin } => {
            api.ask("POST", "/client-hosts", Some(json!({"origin": origin}))).await
        }
        ClientHost::List => api.ask("GET", "/client-hosts", None).await,
        ClientHost::Disable { origin } => {
            api.ask("POST", &act("disable"), Some(json!({"id": origin}))).await
        }
        ClientHost::Enable { origin } => {
            api.ask("POST", &act("enable"), Some(json!({"id": origin}))).await
        }
        ClientHost::Delete { origin } => {
            api.ask("POST", &act("delete"), Some(json!({"id": origin}))).await
        }
    }
}

pub(super) async fn accounts(api: &Api, account: Account) -> Result<Value> {
    match account {
        Account::Add { email } => api.ask("POST", "/accounts", Some(json!({"email": email}))).await,
        Account::List => api.ask("GET", "/accounts", None).await,
        Account::Links { id } => api.ask("POST", "/accounts/links", Some(json!({"id": id}))).await,
        Account::Unlink { issuer, subject, tenant } => {
            let link = json!({"issuer": issuer, "subject": subject, "tenant": tenant});
            api.ask("POST", "/accounts/unlink", Some(link)).await
        }
        Account::Delete { id } => {
            api.ask("POST", "/accounts/delete", Some(json!({"id": id}))).await
        }
        Account::Disable { id } => {
            api.ask("POST", "/accounts/disable", Some(json!({"id": id}))).await
        }
        Account::Enable { id } => {
            api.ask("POST", "/accounts/enable", Some(json!({"id": id}))).await
        }
    }
}

/// The gateways are beside the roles, whatever `--ras` says.
pub(super) async fn gateway(mut api: Api, act: GatewayAct, as_json: bool) -> Result<()> {
    "/gateway".clone_into(&mut api.role);
    match act {
        GatewayAct::Tools => {
            let all = api.ask("GET", "/tools", None).await?;
            if as_json {
                println!("{}", system::json_text(&all)?);
                return Ok(());
            }
            let mut table = vec![["MCP SERVER", "TOOL", "STATE", "READ-ONLY"].map(str::to_owned)];
            let mut differences = String::new();
            for (resource, tools) in all.as_object().into_iter().flatten() {
                for tool in tools.as_array().into_iter().flatten() {
                    let text = |name: &str| plain(tool[name].as_str().unwrap_or_default());
                    let read_only = if tool["read_only"] == true { "says so" } else { "" };
                    table.push([
                        plain(resource),
                        text("name"),
                        text("state"),
                        read_only.to_owned(),
                    ]);
                    for seen in tool["waiting"].as_array().into_iter().flatten() {
                        differences.push_str(&difference(resource, tool, seen));
                    }
                }
            }
            print!("{}{differences}", system::table(&table));
        }
        GatewayAct::Approve { resource, tool, fingerprint } => {
            let body = json!({"resource": resource, "tool": tool, "fingerprint": fingerprint});
            let done = api.ask("POST", "/approve", Some(body)).await?;
            if as_json {
                println!("{}", system::json_text(&done)?);
            } else {
                println!("This description of `{}` is approved.", plain(&tool));
            }
        }
    }
    Ok(())
}

/// What a tool says now beside what was approved, and how to approve it.
fn difference(resource: &str, tool: &Value, seen: &Value) -> String {
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    let pretty = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let read = serde_json::from_str::<Value>(text);
        let lines = read.map_or_else(|_| text.to_owned(), |value| format!("{value:#}"));
        // Each line is shown for what it is; the lines themselves are ours.
        lines.lines().map(|line| plain(line) + "\n").collect::<String>()
    };
    let (before, now) = (pretty(&tool["text"]), pretty(&seen["text"]));
    let name = text(&tool["name"]);
    let changes = similar::TextDiff::from_lines(&before, &now);
    let changes = changes.unified_diff().header("approved", "seen").to_string();
    let approve = format!(
        "passavant admin gateway approve {} {} {}",
        system::quoted(&plain(resource)),
        system::quoted(&name),
        text(&seen["fingerprint"])
    );
    let known = if before.is_empty() {
        "What was approved was not kept by an earlier version; this is all that it says now.\n"
    } else {
        ""
    };
    format!(
        "\n{name} says something that nobody has approved:\n{known}{changes}approve it: {approve}\n"
    )
}
