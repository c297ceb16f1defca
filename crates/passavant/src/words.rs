//! Tests of the texts about the command line: the help texts match the stored ones, and every
//! command in any text of the project is accepted by the parser.

use super::Cli;
use clap::{Command, CommandFactory, error::ErrorKind};
use passavant_admin::types::{
    Accounts, Administrators, AuthorizationServers, ClientHosts, Clients, Connections,
    GovernedResources, Groups, Kind as _, Resources, Transmitters, TrustedIssuers, Upstreams,
    Users,
};
use std::{fmt::Write as _, fs, path::Path};

/// The long help of every command.
fn helps() -> String {
    fn walk(command: &mut Command, path: &str, text: &mut String) {
        // Lines are wrapped at the width of the terminal: use a fixed one here.
        let help = command.clone().term_width(100).render_long_help().to_string();
        writeln!(text, "$ {path} --help\n{}\n", help.trim_end()).unwrap();
        for sub in command.get_subcommands_mut() {
            if !sub.is_hide_set() {
                let path = format!("{path} {}", sub.get_name());
                walk(sub, &path, text);
            }
        }
    }
    let mut text = String::new();
    let mut root = Cli::command();
    root.build();
    walk(&mut root, "passavant", &mut text);
    let lines = text.lines().map(str::trim_end);
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// `UPDATE_EXPECT=1 cargo test -p passavant` stores the current texts: read them first.
#[test]
fn every_help_is_the_one_that_is_kept() {
    expect_test::expect_file!["words/help.txt"].assert_eq(&helps());
}

/// Commands in texts: `passavant …` in backquotes, or at the start of a line of a shell script.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let lines = text.lines().map(|line| line.trim().trim_start_matches("$ "));
    let all = quoted.chain(lines);
    let all = all.filter(|words| words.starts_with("passavant ")).map(|words| {
        let words = words.split(" #").next().unwrap_or_default();
        words
            .split(['|', '>', ';', '&'])
            .next()
            .unwrap_or_default()
            .replace("\\\n", " ")
            .trim()
            .to_owned()
    });
    all.collect()
}

/// Placeholders in a text: `NAME`, `{id}`, `…`, `[--ras NAME]`.
fn stands_for(word: &str) -> bool {
    word.contains(['{', '}', '…', '[', ']', '(', ')', '<', '$', '%', '"', '\''])
        || word.ends_with(['.', ',', ':', '\\'])
}

/// Why the parser rejects a command, if it does. Arguments may be left out, but those that are
/// there have to be known.
fn trouble(command: &str) -> Option<String> {
    let words: Vec<&str> =
        command.split_whitespace().take_while(|word| !stands_for(word)).collect();
    match Cli::command().try_get_matches_from(&words) {
        Ok(_) => None,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand => None,
            // A name in capitals is a placeholder for one of several.
            ErrorKind::InvalidValue | ErrorKind::ValueValidation
                if words.iter().any(|word| {
                    word.len() > 1
                        && word.chars().all(|c| c.is_ascii_uppercase() || "|-_/".contains(c))
                }) || words.last().is_some_and(|last| last.starts_with("--")) =>
            {
                None
            }
            _ => Some(error.to_string()),
        },
    }
}

/// Ids that other parties chose may begin with a hyphen, which looks like an option.
#[test]
fn every_id_of_another_party_may_begin_with_a_hyphen() {
    fn walk(command: &Command, path: &str, seen: &mut usize, bad: &mut Vec<String>) {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            if ["client", "client_id", "ras_client_id", "subject", "user", "person"].contains(&id) {
                *seen += 1;
                if !arg.is_allow_hyphen_values_set() {
                    bad.push(format!("{path}: {id}"));
                }
            }
        }
        for sub in command.get_subcommands() {
            walk(sub, &format!("{path} {}", sub.get_name()), seen, bad);
        }
    }
    let (mut seen, mut bad) = (0, Vec::new());
    walk(&Cli::command(), "passavant", &mut seen, &mut bad);
    assert!(bad.is_empty() && seen > 15, "{seen}: {bad:?}");
    let id = "-VaoUbsPEaAhgMlG";
    let command = format!(
        "passavant admin connection add x --client {id} --audience https://as.example \
         --ras-client-id {id} --resource https://as.example/mcp --scopes read --everyone"
    );
    Cli::command().try_get_matches_from(command.split(' ')).unwrap();
}

#[test]
fn every_command_that_a_text_names_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut seen = 0;
    let mut bad = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("docs")];
    let mut files = vec![
        root.join("README.md"),
        root.join("SECURITY.md"),
        root.join("CONTRIBUTING.md"),
        root.join("RELEASING.md"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let ends = |ending| path.extension().is_some_and(|is| is == ending);
            if path.is_dir() {
                folders.push(path);
            } else if ends("rs") || ends("md") || ends("toml") {
                files.push(path);
            }
        }
    }
    for file in files {
        if file.ends_with("words.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // In code, a string may continue on the next line, and braces are placeholders.
        let text = text.replace("\\\n", " ");
        for command in commands(&text) {
            seen += 1;
            if let Some(why) = trouble(&command) {
                bad.push(format!(
                    "{}: `{command}`: {}",
                    file.display(),
                    why.lines().next().unwrap_or_default()
                ));
            }
        }
    }
    assert!(bad.is_empty(), "{} of {seen}:\n{}", bad.len(), bad.join("\n"));
    assert!(seen > 200, "{seen}");
    for noun in [
        Users::NOUN,
        Groups::NOUN,
        Clients::NOUN,
        AuthorizationServers::NOUN,
        Resources::NOUN,
        Connections::NOUN,
        TrustedIssuers::NOUN,
        Upstreams::NOUN,
        ClientHosts::NOUN,
        Transmitters::NOUN,
        GovernedResources::NOUN,
        Accounts::NOUN,
        Administrators::NOUN,
        "installation",
        "session",
        "key",
    ] {
        assert_eq!(trouble(&format!("passavant admin {noun} list")), None, "{noun}");
    }
    assert!(trouble("passavant admin trusted-issuer list").is_some(), "one that is none is found");
    assert!(
        trouble("passavant admin user add erin --colour red").is_some(),
        "an option that is none, too"
    );
}
