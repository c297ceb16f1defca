//! One login, every MCP server: the passavant binary. Config, wiring and command line; the rules are
//! in `passavant-proto`.

mod admin;
mod demo;
#[cfg(test)]
mod words;

use anyhow::Result;
use clap::{Parser, Subcommand};
use passavant_desk::{connect, doctor, employee, inspect, install};
use passavant_host as system;
use passavant_runtime::{config, gateway, init, key_file, serve, telemetry};
use std::{path::PathBuf, process::ExitCode};

/// The system's allocator never returns the large blocks of password hashing, one set for each
/// thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One login, every MCP server: cross-app access for MCP, from identity provider to tool call.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A step of a key-encryption key that follows another.
#[derive(Subcommand)]
enum KeyFileStep {
    /// First: add a key, which opens and does not seal yet
    Add {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// Then, when every node has the file: let the added key seal
    Turn {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// At last: take the earlier key out, if nothing is sealed under it any more
    Trim {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// Look whether anything is sealed under another key than the first
    Check {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// Make the AES key that the config names in its PKCS#11 token (builds with the feature pkcs11)
    Generate {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
}

impl KeyFileStep {
    async fn take(self) -> Result<()> {
        match self {
            Self::Add { config } => key_file::add(&config::Config::read(&config)?),
            Self::Turn { config } => key_file::turn(&config::Config::read(&config)?),
            Self::Trim { config } => key_file::trim(&config::Config::read(&config)?).await,
            Self::Check { config } => key_file::check(&config::Config::read(&config)?).await,
            Self::Generate { config } => key_file::generate(&config::Config::read(&config)?),
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run a demo company on this machine: walk through the five steps, a refusal and a cut-off, then
    /// keep running
    Demo(demo::Demo),
    /// Run the roles that a config names, until SIGTERM or Ctrl-C
    Serve {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// Guard an MCP server in any language: an authorization server and a gateway in front of it, until
    /// SIGTERM or Ctrl-C
    Guard(gateway::guard::Guard),
    /// Write a commented config, a key file and an administration secret
    Init {
        /// Folder to write into
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Report everything wrong with a config
    Check {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// Let one key-encryption key follow another, while nodes run
    KeyFile {
        #[command(subcommand)]
        step: KeyFileStep,
    },
    /// Run once after a backup of the databases was restored, before `serve`: ends every session, code and
    /// token on record, since some of them were ended after the backup was made
    Restored {
        /// The config
        #[arg(long, value_name = "FILE", default_value = "passavant.toml")]
        config: PathBuf,
    },
    /// Administer a running identity provider or resource authorization server
    Admin(admin::Admin),
    /// Sign in to the company, once
    Login(employee::Login),
    /// Sign out: revoke and forget the sign-in
    Logout {
        /// Forget the identity provider and client registrations too
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        common: employee::Common,
    },
    /// Show who is signed in, and how it is kept
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: employee::Common,
    },
    /// List the MCP servers that you can use, and why others are refused
    Servers {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: employee::Common,
    },
    /// List the computers that you have enrolled, or revoke one
    Installations {
        /// Revoke this one
        #[arg(long, value_name = "ID")]
        revoke: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: employee::Common,
    },
    /// Keep the secret of a client that IT or a vendor registered at an authorization server
    Secret(employee::KeepSecret),
    /// List the tools of an MCP server
    Tools {
        /// The MCP server
        url: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: employee::Common,
    },
    /// Call a tool of an MCP server
    Call {
        /// The MCP server
        url: String,
        /// The tool
        tool: String,
        /// Its arguments, a JSON object
        #[arg(default_value = "{}")]
        arguments: String,
        #[command(flatten)]
        common: employee::Common,
    },
    /// Print an access token for an MCP server; treat it like a password
    Token {
        /// The MCP server
        url: String,
        /// Scopes to ask for, separated by spaces
        #[arg(long)]
        scope: Option<String>,
        #[command(flatten)]
        common: employee::Common,
    },
    /// Stdio bridge from an MCP client to a remote MCP server, using your sign-in (`passavant install`
    /// writes it into the client's config)
    Connect(connect::Connect),
    /// Write the MCP servers you may reach into the configs of MCP clients on this machine
    Install(install::Install),
    /// Remove the entries and restore the configs
    Uninstall(install::Uninstall),
    /// Check every step to an MCP server, and say who has to change what
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor(doctor::Doctor),
    /// Explain a JWT from standard input, claim by claim, against the rules for its kind; its
    /// signature is not verified
    Inspect {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// A token has no business among arguments, where every program can read it.
        #[arg(hide = true)]
        token: Vec<String>,
    },
}

fn main() -> ExitCode {
    system::keep_no_core();
    system::end_with_the_reader();
    let cli = Cli::parse();
    let mut builder = match cli.command {
        // A bridge is idle most of the time, and there is one for each server and agent.
        Command::Connect(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            system::complain(&format!("error: the process cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli.command));
    employee::warn_of_clock();
    // A thread may still be blocked on standard input; do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            system::complain(&format!("error: {}", system::plain_lines(&system::told(&error))));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    if !matches!(command, Command::Serve { .. } | Command::Guard(_)) {
        telemetry::quiet();
    }
    match command {
        Command::Demo(args) => Box::pin(demo::run(args)).await,
        Command::Serve { config } => serve::serve(config::Config::read(&config)?).await,
        Command::Guard(args) => gateway::guard::guard(args).await,
        Command::Init { folder } => init::init(&folder),
        Command::Check { config } => {
            serve::check_files(&config::Config::read(&config)?).await?;
            println!("{} is fine.", config.display());
            Ok(())
        }
        Command::KeyFile { step } => step.take().await,
        Command::Restored { config } => serve::restored(&config::Config::read(&config)?).await,
        Command::Admin(args) => return admin::run(args).await,
        Command::Login(args) => employee::login(args).await,
        Command::Logout { forget, common } => employee::logout(&common, forget).await,
        Command::Status { json, common } => employee::status(&common, json).await,
        Command::Servers { json, common } => employee::catalog::servers(&common, json).await,
        Command::Installations { revoke, json, common } => {
            employee::catalog::installations(&common, revoke.as_deref(), json).await
        }
        Command::Secret(args) => employee::keep_secret(args).await,
        Command::Tools { url, json, common } => employee::mcp::tools(&common, &url, json).await,
        Command::Call { url, tool, arguments, common } => {
            employee::mcp::call(&common, &url, &tool, &arguments).await
        }
        Command::Token { url, scope, common } => {
            employee::mcp::token(&common, &url, scope.as_deref()).await
        }
        Command::Connect(args) => connect::connect(args).await,
        Command::Install(args) => install::install(args).await,
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Doctor(doctor::Doctor { upstream: Some(name), config, json, .. }) => {
            return admin::check_upstream(config, name, json).await;
        }
        Command::Doctor(args) => return doctor::doctor(args).await,
        Command::Inspect { json, token } => return inspect::run(json, &token),
    }?;
    Ok(ExitCode::SUCCESS)
}
