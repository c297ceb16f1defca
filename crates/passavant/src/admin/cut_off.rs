//! `passavant admin cut-off`: says what would end, ends it, and watches who has heard of it.

use super::api::Api;
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use passavant_admin::types::{
    CutOffCounts, CutOffPreview, CutOffReport, CutOffServerReport, CutOffServerState, CutOffTarget,
};
use passavant_host as system;
use passavant_host::plain;
use passavant_proto::{jose::jws, time::Timestamp, xaa::id_jag};
use std::{collections::BTreeSet, path::Path, process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// What the exit code says.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 it is done; with --watch, each authorization server has \
     acknowledged or cannot be told. 3 with --watch: some are still to be told after a minute, or were given up. \
     1 for anything else.";
const NOT_TOLD: u8 = 3;
/// How long it is watched.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is asked while it is watched.
const TURN: Duration = Duration::from_millis(150);

#[derive(Subcommand)]
pub(super) enum CutOff {
    /// Sign a person out everywhere, and switch them off; with --ras an account
    Person(Named),
    /// End the tokens of a client, and switch it off
    Client(Named),
    /// Revoke an installation of Passavant
    Installation(Named),
    /// Switch a connection off, and end what only it allowed
    Connection(Named),
    /// End what was issued for an authorization server, by its issuer, and switch it off
    Server(Named),
    /// End what came by way of a trusted issuer, and trust it no more (with --ras)
    Issuer(Named),
    /// End one ID-JAG and what was issued for it; nothing is switched off
    Grant {
        /// The `jti` of the ID-JAG, which access tokens name as `txn`; with --ras also the `jti` of an access token.
        /// `-` reads a token from standard input: only its id is sent
        #[arg(allow_hyphen_values = true)]
        jti: String,
        #[command(flatten)]
        how: How,
    },
    /// Show what a cut-off has ended until now, where and when
    Report {
        /// The id of its row in the audit trail
        id: i64,
        /// Wait until each authorization server has acknowledged, a minute at most
        #[arg(long)]
        watch: bool,
    },
}

/// What is cut off, and how.
#[derive(Args)]
pub(super) struct Named {
    /// Its id, or what people call it
    #[arg(allow_hyphen_values = true)]
    id: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
pub(super) struct How {
    /// Say what would end, and end nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Say when each authorization server acknowledges, and wait for that, a minute at most; Ctrl-C ends the
    /// watching alone
    #[arg(long)]
    watch: bool,
}

pub(super) async fn cut_off(
    api: &Api,
    act: CutOff,
    secret_file: Option<&Path>,
    as_json: bool,
) -> Result<ExitCode> {
    let with = secret_file.map(|file| system::quoted(&file.display().to_string()));
    let with = with.map(|file| format!(" --secret-file {file}")).unwrap_or_default();
    let again = format!("passavant admin{}{with} cut-off report", api.again);
    let (target, name, how) = match act {
        CutOff::Person(Named { id, how }) => (CutOffTarget::Person, id, how),
        CutOff::Client(Named { id, how }) => (CutOffTarget::Client, id, how),
        CutOff::Installation(Named { id, how }) => (CutOffTarget::Installation, id, how),
        CutOff::Connection(Named { id, how }) => (CutOffTarget::Connection, id, how),
        CutOff::Server(Named { id, how }) => (CutOffTarget::Server, id, how),
        CutOff::Issuer(Named { id, how }) => (CutOffTarget::Issuer, id, how),
        CutOff::Grant { jti, how } => (CutOffTarget::Grant, id_of_token(jti)?, how),
        CutOff::Report { id, watch } => {
            let report = api.server.cut_off_report(id).await?;
            return tell((api, &again), report, watch.then(|| Watch::new(None)), as_json).await;
        }
    };
    check_place(target, api.is_ras)?;
    if how.dry_run {
        let preview = api.server.preview_cut_off(target, &name).await?;
        if as_json {
            println!("{}", system::json_text(&preview)?);
        } else {
            print!("{}", preview_text(&preview, &name, system::clock().now()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    let report = api.server.cut_off(target, &name).await?;
    if !as_json {
        println!("Cut off: {} {}", word(target), plain(&name));
        println!("Ended here: {}", amount(&report.ended));
    }
    let watch = how.watch.then(|| Watch::new(Some(began)));
    tell((api, &again), report, watch, as_json).await
}

/// Says which of them are administered at the other kind of server.
fn check_place(target: CutOffTarget, is_ras: bool) -> Result<()> {
    let only_idp = matches!(
        target,
        CutOffTarget::Installation | CutOffTarget::Connection | CutOffTarget::Server
    );
    match (is_ras, target) {
        (false, CutOffTarget::Issuer) => bail!(
            "trusted issuers are administered at an authorization server\n\
             hint: add `--ras NAME`; an authorization server is cut off with `cut-off server`"
        ),
        (true, _) if only_idp => bail!(
            "this is administered at the identity provider\n\
             hint: leave out `--ras`"
        ),
        _ => Ok(()),
    }
}

/// The id of a token, or of the ID-JAG behind it. A token itself is never sent.
fn id_of_token(named: String) -> Result<String> {
    if named != "-" {
        if named.matches('.').count() == 2 && jws::peek(&named).is_ok() {
            bail!(
                "a token is read from standard input, not from the arguments, which other programs see\n\
                 hint: `passavant admin cut-off grant -`"
            );
        }
        return Ok(named);
    }
    let text = std::io::read_to_string(std::io::stdin())?;
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let (header, claims) = jws::peek(token).map_err(|error| {
        anyhow!(
            "this is not a JWT: {error}\n\
             hint: give the id of the token, as the audit trail has it (`jti`, `txn`)"
        )
    })?;
    let text = |name: &str| claims.value(name).and_then(|value| value.as_str());
    let is_id_jag = header.value("typ").is_some_and(|typ| typ == id_jag::TYPE);
    let behind = text("txn").filter(|_| !is_id_jag);
    let id = behind.or_else(|| text("jti")).map(str::to_owned);
    id.context("the token has no id (`jti`)")
}

const fn word(target: CutOffTarget) -> &'static str {
    match target {
        CutOffTarget::Person => "person",
        CutOffTarget::Client => "client",
        CutOffTarget::Installation => "installation",
        CutOffTarget::Connection => "connection",
        CutOffTarget::Server => "authorization server",
        CutOffTarget::Issuer => "trusted issuer",
        CutOffTarget::Grant => "grant",
    }
}

fn several(count: i64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// `2 sign-ins, 1 refresh token`.
fn amount(counts: &CutOffCounts) -> String {
    let all = [
        (counts.sign_ins, "sign-in", "sign-ins"),
        (counts.refresh_tokens, "refresh token", "refresh tokens"),
        (counts.installations, "installation", "installations"),
        (counts.id_jags, "ID-JAG", "ID-JAGs"),
        (counts.access_tokens, "access token", "access tokens"),
    ];
    let there = all.into_iter().filter(|(count, ..)| *count > 0);
    let there: Vec<String> = there.map(|(count, one, more)| several(count, one, more)).collect();
    if there.is_empty() { "nothing".to_owned() } else { there.join(", ") }
}

/// When tokens have expired by themselves.
fn expire(by: Option<Timestamp>, now: Timestamp) -> String {
    match by.map(|by| by.since(now)) {
        None => "when they expire".to_owned(),
        Some(..=0) => "have expired".to_owned(),
        Some(left) => format!("in {} min at most", (left + 59) / 60),
    }
}

/// What holds for access tokens of an authorization server that nobody has to be told about.
fn of_own_tokens(by: Option<Timestamp>, now: Timestamp) -> String {
    let Some(by) = by else { return String::new() };
    format!(
        "Access tokens end at once where the MCP server asks about them, as `passavant guard` does; elsewhere \
         they expire: {}.\n",
        expire(Some(by), now)
    )
}

fn preview_text(preview: &CutOffPreview, name: &str, now: Timestamp) -> String {
    let what = word(preview.target);
    let mut text =
        format!("This would end, of the {what} {}: {}\n", plain(name), amount(&preview.ends));
    if !preview.servers.is_empty() {
        let heads = ["AUTHORIZATION SERVER", "ID-JAGS", "IS TOLD", "ITS ACCESS TOKENS END"];
        let mut table = vec![heads.map(str::to_owned)];
        for server in &preview.servers {
            let (told, end) = match server.told {
                Some(true) => ("yes", "as soon as it is told".to_owned()),
                Some(false) => ("no", expire(server.tokens_expire_by, now)),
                None => ("unknown: no answer", expire(server.tokens_expire_by, now)),
            };
            table.push([plain(&server.issuer), server.id_jags.to_string(), told.to_owned(), end]);
        }
        text += &system::table(&table);
    }
    text += &of_own_tokens(preview.tokens_expire_by, now);
    text + "Nothing was changed.\n"
}

/// Since when it is watched, and until when.
struct Watch {
    /// When the act was asked for, if that is known to the millisecond.
    began: Option<Instant>,
    ends: Instant,
    said: BTreeSet<String>,
}

impl Watch {
    fn new(began: Option<Instant>) -> Self {
        Self { began, ends: Instant::now() + PATIENCE, said: BTreeSet::new() }
    }

    /// Says which authorization servers have become settled.
    fn say(&mut self, report: &CutOffReport, now: Timestamp) {
        if report.deciding {
            return;
        }
        for server in &report.servers {
            let settled = server.state != CutOffServerState::Waiting;
            if settled && self.said.insert(server.issuer.clone()) {
                let when = match (self.began, server.at) {
                    (Some(began), _) => format!("{} ms", began.elapsed().as_millis()),
                    (None, Some(at)) => format!("{} s", at.since(report.at)),
                    (None, None) => "-".to_owned(),
                };
                println!("{when:>9}  {}", line(server, now));
            }
        }
    }
}

fn line(server: &CutOffServerReport, now: Timestamp) -> String {
    let issuer = plain(&server.issuer);
    let expire = expire(server.tokens_expire_by, now);
    match server.state {
        CutOffServerState::Waiting => format!("{issuer} is still to be told"),
        CutOffServerState::Acknowledged => format!("{issuer} has acknowledged"),
        CutOffServerState::GivenUp => format!("{issuer} did not answer for a day and was given up"),
        CutOffServerState::NotTold => {
            format!("{issuer} cannot be told; its access tokens end: {expire}")
        }
    }
}

/// Says what has ended where, and watches if that is wanted.
async fn tell(
    (api, again): (&Api, &str),
    mut report: CutOffReport,
    mut watch: Option<Watch>,
    as_json: bool,
) -> Result<ExitCode> {
    let clock = system::clock();
    let again = format!("{again} {}", report.id);
    if let Some(watch) = &mut watch {
        loop {
            if !as_json {
                watch.say(&report, clock.now());
            }
            if report.done || Instant::now() >= watch.ends {
                break;
            }
            sleep(TURN).await;
            report = api.server.cut_off_report(report.id).await?;
        }
    }
    let untold = |server: &&CutOffServerReport| {
        matches!(server.state, CutOffServerState::Waiting | CutOffServerState::GivenUp)
    };
    let left = report.servers.iter().filter(untold).count();
    let code = match &watch {
        Some(_) if left > 0 || !report.done => ExitCode::from(NOT_TOLD),
        _ => ExitCode::SUCCESS,
    };
    if as_json {
        println!("{}", system::json_text(&report)?);
        return Ok(code);
    }
    let now = clock.now();
    if watch.is_none() {
        for server in &report.servers {
            let at = server.at.map(|at| format!(" ({} s later)", at.since(report.at)));
            println!("{}{}", line(server, now), at.unwrap_or_default());
        }
    }
    print!("{}", of_own_tokens(report.tokens_expire_by, now));
    print!("{}", summary(&report, &again));
    Ok(code)
}

fn summary(report: &CutOffReport, again: &str) -> String {
    let count = |state: CutOffServerState| {
        let of_it = report.servers.iter().filter(|server| server.state == state).count();
        i64::try_from(of_it).unwrap_or(i64::MAX)
    };
    let servers = |count: i64| several(count, "authorization server", "authorization servers");
    let mut parts = Vec::new();
    if report.deciding {
        parts.push("it is still being decided which ID-JAGs end".to_owned());
    }
    for (state, what) in [
        (CutOffServerState::Acknowledged, "acknowledged"),
        (CutOffServerState::NotTold, "cannot be told"),
        (CutOffServerState::Waiting, "still to be told, and tried for a day"),
        (CutOffServerState::GivenUp, "given up"),
    ] {
        if count(state) > 0 {
            parts.push(format!("{} {what}", servers(count(state))));
        }
    }
    let lost = if report.complete {
        ""
    } else {
        "Not all of it is on record any more: an ID-JAG is forgotten an hour after it has expired.\n"
    };
    if report.done {
        let parts =
            if parts.is_empty() { String::new() } else { format!(": {}", parts.join("; ")) };
        return format!("{lost}Done{parts}. Report: `{again}`\n");
    }
    format!("{lost}Not done yet: {}. To go on watching: `{again} --watch`\n", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use serde_json::json;

    fn report(deciding: bool, states: &[&str]) -> CutOffReport {
        let servers: Vec<_> = states
            .iter()
            .map(|state| {
                json!({"issuer": format!("https://{state}.example"), "state": state, "people": 1,
                       "waiting": 0, "id_jags": 1})
            })
            .collect();
        let counts = json!({"sign_ins": 1, "refresh_tokens": 0, "installations": 0, "id_jags": 2,
                            "access_tokens": 0});
        let done = !deciding && !states.contains(&"waiting");
        serde_json::from_value(json!({"id": 7, "at": 100, "by": "ann", "target": "person",
            "record": "x", "ended": counts, "deciding": deciding, "done": done, "complete": true,
            "servers": servers}))
        .unwrap()
    }

    #[test]
    fn the_last_line_says_who_has_heard_and_who_has_not() {
        let again = "passavant admin cut-off report 7";
        let text = summary(&report(false, &["acknowledged", "acknowledged", "not_told"]), again);
        assert_eq!(
            text,
            "Done: 2 authorization servers acknowledged; 1 authorization server cannot be told. Report: \
             `passavant admin cut-off report 7`\n"
        );
        let text = summary(&report(false, &["acknowledged", "waiting"]), again);
        assert_eq!(
            text,
            "Not done yet: 1 authorization server acknowledged; 1 authorization server still to be told, and \
             tried for a day. To go on watching: `passavant admin cut-off report 7 --watch`\n"
        );
        let text = summary(&report(true, &["acknowledged"]), again);
        assert!(text.starts_with("Not done yet: it is still being decided"), "{text}");
        assert_eq!(amount(&report(false, &[]).ended), "1 sign-in, 2 ID-JAGs");
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        act: CutOff,
    }

    #[test]
    fn an_id_may_begin_with_a_hyphen_and_nobody_watches_a_dry_run() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["cut-off"], words].concat());
        for words in [["grant", "-abc", "--dry-run"], ["grant", "--dry-run", "-abc"]] {
            match parse(&words).map(|cli| cli.act) {
                Ok(CutOff::Grant { jti, how }) => {
                    assert!(jti == "-abc" && how.dry_run && !how.watch);
                }
                _ => panic!("{words:?}"),
            }
        }
        assert!(parse(&["person", "erin", "--dry-run", "--watch"]).is_err());
        assert!(parse(&["person", "erin", "--watch"]).is_ok());
    }

    #[test]
    fn a_token_is_not_taken_from_the_arguments() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJhIn0.c2lnbmF0dXJl";
        let error = id_of_token(token.to_owned()).unwrap_err().to_string();
        assert!(error.contains("standard input"), "{error}");
        assert!(!error.contains("eyJ"), "{error}");
        assert_eq!(id_of_token("a.b.c".to_owned()).unwrap(), "a.b.c");
    }
}
