//! `passavant connect`: the stdio bridge. Standard output carries the protocol and nothing else.

use crate::{
    connect_all::connect_all,
    employee::{Common, show},
};
use anyhow::Result;
use clap::Args;
use passavant_client::{
    Browser, Purpose,
    bridge::{self, Bridge},
};
use passavant_host::shutdown_signal;
use passavant_host::{plain_lines, told};
use std::sync::Arc;

#[derive(Args)]
pub struct Connect {
    /// The MCP server
    #[arg(required_unless_present = "all")]
    url: Option<String>,
    /// All that the company's catalog lists for you: their tools, under names like `notes__search`
    #[arg(long, conflicts_with = "url")]
    all: bool,
    /// Do not open a browser when a sign-in has ended; answer with what to do instead
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    common: Common,
}

/// Opens a browser for whatever is missing. The person may not expect it, because their agent
/// started this program.
struct AgentBrowser;

impl Browser for AgentBrowser {
    fn open(&self, url: &str, purpose: Purpose) -> bool {
        let what = match purpose {
            Purpose::SignIn => "your sign-in has ended",
            Purpose::StepUp => "the company's policy wants you to sign in again",
            Purpose::Consent => "this MCP server asks for your own consent, outside IT's control",
        };
        eprintln!("passavant: {what}; the browser opens");
        // If no browser opens, nobody sees the page: the agent is told which command to run
        // instead.
        show(url)
    }
}

pub async fn connect(args: Connect) -> Result<()> {
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    let client = match args.common.signed_in() {
        Ok((client, _)) => client,
        Err(error) => {
            let text = plain_lines(&told(&error));
            eprintln!("passavant: {text}");
            return Ok(bridge::refuse(&text, input, output).await?);
        }
    };
    let Some(url) = &args.url else {
        let client =
            if args.no_browser { client } else { client.with_browser(Arc::new(AgentBrowser)) };
        return connect_all(client).await;
    };
    if let Err(error) = client.outbound().streaming(url) {
        let text = plain_lines(&format!("`{url}` is not the URL of an MCP server: {error}"));
        eprintln!("passavant: {text}");
        return Ok(bridge::refuse(&text, input, output).await?);
    }
    let client = if args.no_browser { client } else { client.with_browser(Arc::new(AgentBrowser)) };
    let stop = async {
        // If signals cannot be received, the end of input still ends the bridge.
        match shutdown_signal() {
            Ok(told) => told.await,
            Err(_) => std::future::pending().await,
        }
    };
    Bridge::run(client, url, input, output, stop).await?;
    Ok(())
}
