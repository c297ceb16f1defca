//! Entries in MCP clients' configs: whether they are ours, which server they lead to, and their
//! names.

use passavant_client::CatalogServer;
use passavant_host as system;
use passavant_proto::formerly;
use serde_json::{Map, Value};
use std::path::Path;

/// The argument of the bridge that stands for all servers.
pub(super) const ALL: &str = "--all";

/// Whether an entry leads to this MCP server, by whatever means.
pub(super) fn reaches(entry: &Value, url: &str) -> bool {
    match entry {
        Value::String(text) => text == url,
        Value::Array(items) => items.iter().any(|item| reaches(item, url)),
        Value::Object(members) => members.values().any(|member| reaches(member, url)),
        _ => false,
    }
}

/// Whether an entry is ours: it runs this program with `connect`.
pub(super) fn is_bridge(entry: &Value) -> bool {
    bridged(entry).is_some()
}

/// The MCP server that one of our entries leads to.
pub(super) fn bridged(entry: &Value) -> Option<&str> {
    let mut words = Vec::new();
    for name in ["command", "cmd", "args"] {
        match &entry[name] {
            Value::String(word) => words.push(word.as_str()),
            Value::Array(items) => words.extend(items.iter().filter_map(Value::as_str)),
            _ => {}
        }
    }
    let program =
        words.first().map(|program| program.rsplit(['/', '\\']).next().unwrap_or(program));
    let ours = program.is_some_and(is_own_program) && words.get(1) == Some(&"connect");
    words.get(2).filter(|_| ours).copied()
}

/// Whether a file is this program: by its name, optionally followed by a version or an extension.
/// Another program's name may begin with the same word.
fn is_own_program(file: &str) -> bool {
    [formerly::NOW, formerly::NAME].into_iter().any(|name| {
        file.strip_prefix(name).is_some_and(|rest| {
            let rest = rest.strip_suffix(".exe").unwrap_or(rest);
            let version = rest.strip_prefix(['-', '@', '_']).unwrap_or(rest);
            rest.is_empty() || version.starts_with(|c: char| c.is_ascii_digit())
        })
    })
}

/// Whether an entry uses the client's native cross-app access.
pub(super) fn is_native(entry: &Value) -> bool {
    entry["oauth"]["xaa"] == true || entry["oauth"]["enterpriseManaged"] == true
}

/// The folder of the sign-in that an entry names.
pub(super) fn profile_of(entry: &Value) -> Option<String> {
    const HOME: &str = "PASSAVANT_HOME";
    let before = formerly::name(HOME);
    let held = ["env", "envs", "environment"].map(|name| &entry[name]);
    let mut homes = held.iter().flat_map(|env| [&env[HOME], &env[before.as_str()]]);
    let home = homes.find_map(Value::as_str)?;
    Some(system::current_folder(home.into()).to_str().unwrap_or(home).to_owned())
}

/// A name that every client accepts: letters, digits and hyphens, 30 at most. It is the name that
/// this server already has, or one that is free.
pub(super) fn free_name(held: &Map<String, Value>, server: &CatalogServer) -> String {
    let profile = system::unusual_home().ok().flatten();
    let is_ours = |value: &Value| {
        let home = profile_of(value);
        let same = home.as_deref() == profile.as_deref().and_then(Path::to_str);
        let native = !is_bridge(value) && is_native(value);
        reaches(value, &server.resource) && (native || (is_bridge(value) && same))
    };
    if let Some((name, _)) = held.iter().find(|(_, value)| is_ours(value)) {
        return name.clone();
    }
    let base = name_of(server);
    if !held.contains_key(&base) {
        return base;
    }
    // Among one more candidate than there are entries, one is free.
    let mut names = (2..=held.len() + 2).map(|n| format!("{base}-{n}"));
    names.find(|name| !held.contains_key(name)).unwrap_or(base)
}

/// A name for a server that every client accepts.
pub fn name_of(server: &CatalogServer) -> String {
    let mut base: String = server
        .title()
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect::<String>()
        .split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    base.truncate(26);
    let base = base.trim_end_matches('-');
    let begins_well = base.starts_with(|c: char| c.is_ascii_lowercase());
    let reserved =
        ["", "workspace", "claude-in-chrome"].contains(&base) || base.starts_with("filesystem");
    let base = if begins_well && !reserved { base.to_owned() } else { format!("mcp-{base}") };
    base.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(name: &str) -> CatalogServer {
        CatalogServer {
            name: name.to_owned(),
            resource: "https://mcp.example/mcp".to_owned(),
            granted: true,
            ..CatalogServer::default()
        }
    }

    #[test]
    fn names_are_such_as_every_client_takes() {
        let empty = Map::new();
        for (title, name) in [
            ("Canvas", "canvas"),
            ("Acme's Big_Canvas (prod)", "acme-s-big-canvas-prod"),
            ("7zip", "mcp-7zip"),
            ("workspace", "mcp-workspace"),
            ("日本", "mcp"),
            ("", "mcp-example-mcp"),
            ("A very long name that no client would take as it is", "a-very-long-name-that-no-c"),
        ] {
            assert_eq!(free_name(&empty, &server(title)), name, "{title}");
        }
        let mut held = Map::new();
        held.insert("canvas".to_owned(), json!({"command": "other"}));
        assert_eq!(free_name(&held, &server("Canvas")), "canvas-2", "someone else's entry stays");
        held.insert(
            "mine".to_owned(),
            json!({"command": "passavant", "args": ["connect", "https://mcp.example/mcp"]}),
        );
        assert_eq!(free_name(&held, &server("Canvas")), "mine", "the entry that is ours already");
        held.insert(
            "mine".to_owned(),
            json!({"command": "passavant", "env": {"PASSAVANT_HOME": "/other"},
            "args": ["connect", "https://mcp.example/mcp"]}),
        );
        assert_eq!(free_name(&held, &server("Canvas")), "canvas-2", "another sign-in's");
    }

    #[test]
    fn entries_of_an_earlier_build_are_ours() {
        let entry = |program: &str, home: &str| {
            json!({"command": program, "args": ["connect", "https://mcp.example/mcp"],
                   "env": {home: "/other"}})
        };
        let now = entry("/usr/bin/passavant", "PASSAVANT_HOME");
        let before =
            entry(&formerly::name("/usr/bin/passavant"), &formerly::name("PASSAVANT_HOME"));
        assert_ne!(now, before);
        assert_eq!(bridged(&before), bridged(&now));
        assert_eq!(profile_of(&before), Some("/other".to_owned()));
        let others = entry("/usr/bin/other", "PASSAVANT_HOME");
        assert_eq!(bridged(&others), None);
        for (program, own) in [
            ("passavant.exe", true),
            ("passavant-0.2.0", true),
            ("C:\\bin\\passavant.exe", true),
            ("passavant-notes", false),
            ("passavants", false),
        ] {
            assert_eq!(is_bridge(&entry(program, "PASSAVANT_HOME")), own, "{program}");
        }
    }
}
