//! `passavant admin`: a thin client of the administration API.

mod acts;
mod api;
mod args;
mod cut_off;
mod desk;
mod gateway;
mod secret_out;
mod show;
mod signals;
mod upstreams;

pub(crate) use show::audit_table;

use acts::{
    accounts, client_hosts, clients, connections, groups, resources, servers, trusts, users, words,
};
use anyhow::{Context, Result};
use api::Api;
use args::{ById, Noun, Upstream};
use clap::Args;
use cut_off::cut_off;
use desk::{administrators, installations, keys, sessions};
use gateway::gateway;
use passavant_admin::{
    client::{AdminClient, Entry},
    types::AuditQuery,
};
use passavant_host as system;
use passavant_host::plain;
use passavant_runtime::config::Config;
use serde_json::json;
use show::show;
use signals::{streams, transmitters};
use std::{path::PathBuf, process::ExitCode};
use upstreams::upstreams;

#[derive(Args)]
pub(crate) struct Admin {
    /// The config whose administration API to use
    #[arg(long, value_name = "FILE", default_value = "passavant.toml", global = true)]
    config: PathBuf,
    /// Address of the administration API, instead of a config
    #[arg(long, value_name = "URL", global = true, requires = "secret_file")]
    url: Option<String>,
    /// File with the administration secret or an administrator's token; the config's secret unless given
    #[arg(long, value_name = "FILE", global = true)]
    secret_file: Option<PathBuf>,
    /// Administer this resource authorization server instead of the identity provider
    #[arg(long, value_name = "NAME", global = true)]
    ras: Option<String>,
    /// Print the API's JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

pub(crate) async fn run(args: Admin) -> Result<ExitCode> {
    let tells = args.noun.cuts_off() && !args.json;
    let code = act(args).await?;
    if tells {
        println!(
            "Nothing new is granted from now on. Access tokens already issued expire within \
             minutes; they end at once where the MCP server introspects them."
        );
    }
    Ok(code)
}

/// `passavant doctor --upstream`: the same as `passavant admin upstream check`.
pub(crate) async fn check_upstream(config: PathBuf, name: String, json: bool) -> Result<ExitCode> {
    let noun = Noun::Upstream(Upstream::Check(ById { id: name }));
    run(Admin { config, url: None, secret_file: None, ras: None, json, noun }).await
}

/// The options that select the same server, for a follow-up command.
fn again(args: &Admin) -> String {
    let mut words = String::new();
    let default = PathBuf::from("passavant.toml");
    if let Some(url) = &args.url {
        words.push_str(&format!(" --url {}", system::quoted(&plain(url))));
    } else if args.config != default {
        words
            .push_str(&format!(" --config {}", system::quoted(&args.config.display().to_string())));
    }
    if let Some(name) = &args.ras {
        words.push_str(&format!(" --ras {}", system::quoted(&plain(name))));
    }
    words
}

#[cfg(unix)]
fn is_open(socket: &std::path::Path) -> bool {
    system::is_own_socket(socket)
}

#[cfg(not(unix))]
fn is_open(_: &std::path::Path) -> bool {
    false
}

/// The administration API that the options select: by default at the socket in the config's folder,
/// as the local owner.
fn api_of(args: &Admin) -> Result<Api> {
    let outbound = system::outbound(&[])?;
    // With the same rules as the server.
    let mut shared = system::Shared::Group;
    let (base, secret_file) = match (&args.url, &args.secret_file) {
        (Some(url), Some(file)) => (url.trim_end_matches('/').to_owned(), file.clone()),
        _ => {
            let config = Config::read(&args.config)?;
            shared = config.secrets;
            let admin = config.admin.context("the config has no [admin] table")?;
            if args.secret_file.is_none()
                && let Some(socket) = admin.socket.path().filter(|path| is_open(path))
            {
                let at = AdminClient::new(
                    "http://127.0.0.1",
                    Entry::Socket,
                    system::entropy(),
                    outbound.at_socket(socket),
                );
                return Ok(Api::new(at, args.ras.as_deref(), again(args)));
            }
            let file = args.secret_file.clone().unwrap_or(admin.secret_file);
            (format!("http://{}", admin.listen), file)
        }
    };
    let secret = system::read_secret(&secret_file, shared)?;
    let at = AdminClient::new(&base, Entry::Secret(secret), system::entropy(), outbound);
    Ok(Api::new(at, args.ras.as_deref(), again(args)))
}

async fn act(args: Admin) -> Result<ExitCode> {
    let api = api_of(&args)?;
    let done = |()| ExitCode::SUCCESS;
    let value = match args.noun {
        Noun::User(user) => users(&api, user).await?,
        Noun::Group(group) => groups(&api, group).await?,
        Noun::Client(client) => clients(&api, client).await?,
        Noun::Server(server) => servers(&api, server).await?,
        Noun::Resource(resource) => resources(&api, resource).await?,
        Noun::Connection(connection) => connections(&api, connection).await?,
        Noun::Upstream(upstream) => return upstreams(&api, upstream, args.json).await.map(done),
        Noun::Trust(trust) => trusts(&api, trust).await?,
        Noun::Account(account) => accounts(&api, account).await?,
        Noun::Key(act) => keys(&api, act).await?,
        Noun::Administrator(act) => return administrators(&api, act, args.json).await.map(done),
        Noun::Installation(installation) => {
            return installations(&api, installation, args.json).await.map(done);
        }
        Noun::Session(act) => return sessions(&api, act, args.json).await.map(done),
        Noun::ClientHost(host) => client_hosts(&api, host).await?,
        Noun::Transmitter(act) => transmitters(&api, act).await?,
        Noun::Stream(act) => streams(&api, act).await?,
        Noun::Gateway(act) => return gateway(&api, act, args.json).await.map(done),
        Noun::CutOff(act) => {
            return cut_off(&api, act, args.secret_file.as_deref(), args.json).await;
        }
        Noun::Audit { person, client, outcome, event, by, limit, ids } => {
            let outcome = outcome.map(|word| serde_json::from_value(word.into())).transpose()?;
            let limit = Some(i64::from(limit));
            let wanted = AuditQuery { person, client, outcome, event, by, before: None, limit };
            let rows = api.server.audit(&wanted).await?.items;
            if !args.json {
                print!("{}", audit_table(&serde_json::to_value(rows)?, ids));
                return Ok(ExitCode::SUCCESS);
            }
            serde_json::to_value(rows)?
        }
        Noun::Explain { user, client, resource, scopes, acr } => {
            let question = json!({"user": user, "client": client, "resource": resource,
                                  "scopes": scopes.map(|s| words(&s)), "acr": acr});
            let answer = api.server.explain(&acts::typed(question)?).await?;
            if !args.json {
                println!("{}\nrule: {}", plain(&answer.text), plain(&answer.rule));
                return Ok(ExitCode::SUCCESS);
            }
            serde_json::to_value(answer)?
        }
    };
    show(&value, args.json).map(done)
}

#[cfg(test)]
mod tests {
    use super::args::{Listing, User};
    use super::*;
    use clap::Parser;
    use passavant_proto::secret::Secret;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        admin: Admin,
    }

    /// Another program that took the port: it answers each connection with the next text, and
    /// records what it received.
    async fn squat(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let squatter = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 16 * 1024];
                let read = stream.read(&mut bytes).await.unwrap();
                seen.extend_from_slice(&bytes[..read]);
                let length = answer.len();
                let text = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{answer}"
                );
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            seen
        });
        (base, squatter)
    }

    #[tokio::test]
    async fn whoever_holds_the_port_is_not_given_the_secret_and_not_believed() {
        let cases: [&[&str]; 4] = [
            &["[]"],
            &["{}"],
            &[r#"{"challenge":"1.x.y"}"#, "[]"],
            &[r#"{"challenge":"1.x.y"}"#, r#"[{"username":"erin"}]"#],
        ];
        for answers in cases {
            let (base, squatter) = squat(answers).await;
            let secret = Secret::new("the-administration-secret-of-43-characters");
            let hash = secret.hash();
            let outbound = system::outbound(&[]).unwrap();
            let at = AdminClient::new(&base, Entry::Secret(secret), system::entropy(), outbound);
            let api = Api::new(at, None, String::new());
            let error = users(&api, User::List(Listing::default())).await.unwrap_err().to_string();
            assert!(error.contains("the secret was not sent"), "{error}");
            let seen = String::from_utf8(squatter.await.unwrap()).unwrap();
            assert!(!seen.contains("the-administration-secret"), "{seen}");
            assert!(!seen.contains(&hash), "{seen}");
        }
    }

    #[test]
    fn no_argument_of_a_command_changes_where_the_secret_is_sent() {
        let api = "http://127.0.0.1:7400";
        for command in [
            &["resource", "add", "https://evil.example/mcp", "--server", "https://as.example"][..],
            &["resource", "delete", "https://evil.example/mcp"],
            &["server", "add", "https://evil.example"],
            &["client", "add", "x", "--redirect-uri", "https://evil.example"],
            &["trust", "add", "https://evil.example"],
        ] {
            let base = ["admin", "--url", api, "--secret-file", "file"];
            let parsed = Cli::try_parse_from(base.iter().chain(command)).unwrap();
            assert_eq!(parsed.admin.url.as_deref(), Some(api), "{command:?}");
        }
    }
}
