//! `passavant doctor`: the check of the client library, with output for people and programs.

use crate::employee::Common;
use anyhow::Result;
use clap::Args;
use passavant_client::doctor::{Finding, Report, Stage, Verdict};
use passavant_host::plain;
use std::{path::PathBuf, process::ExitCode};

pub const EXIT_CODES: &str = "Exit codes: 0 it works. Where it does not: 10 login, 11 identity \
     provider, 12 MCP server, 13 authorization server, 14 client identity, 15 exchange, 16 redemption, \
     17 call. 1 for anything else.";

#[derive(Args)]
pub struct Doctor {
    /// The MCP server
    #[arg(required_unless_present = "upstream")]
    url: Option<String>,
    /// For IT: look at every leg of this upstream of the identity provider instead, as `admin upstream check` does
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    pub upstream: Option<String>,
    /// The config whose administration API to use for that
    #[arg(long, value_name = "FILE", default_value = "passavant.toml", requires = "upstream")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    common: Common,
}

pub async fn doctor(args: Doctor) -> Result<ExitCode> {
    let (client, _) = args.common.signed_in()?;
    let report = client.examine(args.url.as_deref().unwrap_or_default()).await;
    if args.json {
        println!("{}", passavant_host::json_text(&report)?);
    } else {
        print!("{}", text(&report));
    }
    Ok(ExitCode::from(report.stage.map_or(0, Stage::exit_code)))
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut stage = None;
    for finding in &report.findings {
        if stage != Some(finding.stage) {
            text.push_str(&format!("{}\n", finding.stage.title()));
            stage = Some(finding.stage);
        }
        text.push_str(&describe(finding));
    }
    text.push_str(&format!("\n{}\n", plain(&report.verdict)));
    text
}

fn describe(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Ok => "ok   ",
        Verdict::Note => "note ",
        Verdict::Wrong => "WRONG",
    };
    let mut text = format!("  {mark} {}\n", plain(&finding.what.replace("\nhint: ", "; ")));
    if let (Some(found), Some(expected), Some(at)) =
        (&finding.found, &finding.expected, finding.differs_at)
    {
        text.push_str(&format!("          found     {}\n", plain(found)));
        text.push_str(&format!("          expected  {}\n", plain(expected)));
        text.push_str(&format!("                    {}^ byte {at}\n", " ".repeat(at.min(200))));
    }
    if let (Some(party), Some(fix)) = (&finding.party, &finding.fix) {
        text.push_str(&format!("          who       {}\n", plain(party)));
        text.push_str(&format!("          do        {}\n", plain(fix)));
    }
    text
}
