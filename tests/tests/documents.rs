//! The book agrees with the code: every reason, every key of the config, and no broken links.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn source(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The first words of reasons.
const SUBJECTS: [&str; 28] = [
    "account",
    "administrator",
    "authorize",
    "client",
    "code",
    "consent",
    "device",
    "dpop",
    "exchange",
    "grant",
    "id_jag",
    "jti",
    "operation",
    "policy",
    "rate",
    "refresh",
    "request",
    "resource",
    "revoke",
    "scope",
    "session",
    "sign_in",
    "sign_out",
    "subject",
    "token",
    "tool",
    "upstream",
    "upstream_check",
];

fn is_reason(text: &str) -> bool {
    let word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
    text.split_once('.').is_some_and(|(subject, rest)| SUBJECTS.contains(&subject) && word(rest))
}

/// The reasons among the string literals in a folder's code, without its unit tests.
fn reasons_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            reasons_in(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let own = text.split("#[cfg(test)]").next().unwrap();
            found.extend(own.split('"').filter(|part| is_reason(part)).map(str::to_owned));
        }
    }
}

#[test]
fn every_reason_is_in_the_chapter_on_errors_and_no_other() {
    let mut reasons = BTreeSet::new();
    reasons_in(&root().join("crates"), &mut reasons);
    assert!(reasons.len() > 100, "{} reasons", reasons.len());
    let chapter = source("docs/errors.md");
    let missing: Vec<_> =
        reasons.iter().filter(|reason| !chapter.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "docs/errors.md does not explain: {missing:?}");
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let stale: Vec<_> = rows.filter(|word| is_reason(word) && !reasons.contains(*word)).collect();
    assert!(stale.is_empty(), "no code says: {stale:?}");
}

/// The fields of those structs of a file whose names match.
fn fields(text: &str, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("struct ") {
            inside = line.ends_with('{') && fits(rest.trim_end_matches(" {"));
        } else if line == "}" {
            inside = false;
        } else if inside && let Some((name, _)) = line.trim().split_once(": ") {
            let name = name.rsplit(' ').next().unwrap_or_default();
            if !name.is_empty() && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()) {
                found.push(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_key_of_the_config_is_in_its_chapter() {
    let chapter = source("docs/configuration.md");
    let written = |name: &str| name.starts_with("Written");
    let mut keys = fields(&source("crates/runtime/src/config/written.rs"), written);
    keys.extend(fields(&source("crates/runtime/src/gateway/config.rs"), written));
    let rules = source("crates/proto/src/mcp/operation_policy.rs");
    keys.extend(fields(&rules, |name| name == "Rule"));
    assert!(keys.len() > 100, "{keys:?}");
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| {
            let is_named = |spelled: String| chapter.contains(&spelled);
            !is_named(format!("`{key}`")) && !is_named(format!("[{key}]"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md does not explain: {missing:?}");
}

/// The targets of a document's links, without those in code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if !is_code {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_link_leads_somewhere_and_every_chapter_is_in_the_summary() {
    let root = root();
    let summary = source("docs/SUMMARY.md");
    let mut seen = 0;
    for folder in [root.clone(), root.join("docs"), root.join("docs/upstreams")] {
        let is_book = folder != root;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "md") {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let from_docs =
                path.strip_prefix(root.join("docs")).unwrap_or(&path).display().to_string();
            let in_summary = name == "SUMMARY.md" || summary.contains(&format!("({from_docs})"));
            assert!(!is_book || in_summary, "docs/SUMMARY.md does not name {name}");
            for link in links(&std::fs::read_to_string(&path).unwrap()) {
                let file = link.split('#').next().unwrap_or_default();
                if file.is_empty() || link.contains("://") {
                    continue;
                }
                let leads_to = folder.join(file).canonicalize();
                let leads_to = leads_to.unwrap_or_else(|_| panic!("{name}: {link} leads nowhere"));
                // A page of the book cannot link to files outside of it.
                let stays =
                    !is_book || leads_to.starts_with(root.join("docs").canonicalize().unwrap());
                assert!(stays, "{name}: {link} leaves the book");
                seen += 1;
            }
        }
    }
    assert!(seen > 60, "{seen} links");
}

/// The string literals of a Rust source, as the program has them; what comments say is none of it.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let fences = rest[..at].len() - rest[..at].trim_end_matches('#').len();
        let is_raw = rest[..at - fences].ends_with('r');
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(text) = rest.strip_prefix('"').filter(|_| is_raw) {
            let (text, after) = text.split_once(&format!("\"{}", "#".repeat(fences))).unwrap();
            found.push(text.to_owned());
            rest = after;
        } else if let Some(text) = rest.strip_prefix('"') {
            let (text, after) = literal(text);
            found.push(text);
            rest = after;
        } else {
            // A quote or a backslash as a single letter; else it is a lifetime, another letter, or a division.
            let letter =
                ["'\"'", "'\\''", "'\\\\'"].iter().find(|letter| rest.starts_with(**letter));
            rest = &rest[letter.map_or(1, |letter| letter.len())..];
        }
    }
    found
}

/// The text of a literal whose opening quote was read, and what follows the closing one.
fn literal(source: &str) -> (String, &str) {
    let mut text = String::new();
    let mut letters = source.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (text, &source[at + 1..]),
            '\\' => match letters.next().map(|(_, letter)| letter) {
                Some('n') => text.push('\n'),
                // A line that goes on: what it is indented by is no part of it.
                Some('\n') => {
                    let after = source[at + 2..].trim_start();
                    let (more, after) = literal(after);
                    return (text + &more, after);
                }
                Some(escaped) => text.push(escaped),
                None => break,
            },
            letter => text.push(letter),
        }
    }
    panic!("a literal does not end: {text}");
}

/// Whether a literal is a sentence, or the beginning of one, and not for a database.
fn is_prose(text: &str) -> bool {
    const SQL: &[&str] = &[
        "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "ALTER ", "DROP ", " AND ",
        " WHERE ",
    ];
    let words = text.split_whitespace().filter(|word| {
        word.len() > 1 && word.bytes().all(|b| b.is_ascii_lowercase() || b",.:;'()".contains(&b))
    });
    words.count() >= 3 && !SQL.iter().any(|word| text.contains(word))
}

fn prose_in(folder: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            prose_in(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let own = source.split("#[cfg(test)]\nmod tests").next().unwrap();
            let name = path.strip_prefix(root().join("crates")).unwrap().display().to_string();
            let texts = literals(own).into_iter().filter(|text| is_prose(text));
            found.extend(texts.map(|text| (name.clone(), text)));
        }
    }
}

/// Errors, hints, log lines, sentences of pages: all that the program says. `UPDATE_EXPECT=1 cargo test -p passavant-tests
/// every_sentence` stores the current ones: read them first, as somebody who meets them knows nothing else.
#[test]
fn every_sentence_that_the_program_says_was_read() {
    let mut found = BTreeSet::new();
    prose_in(&root().join("crates"), &mut found);
    assert!(found.len() > 500, "{} sentences", found.len());
    let mut text = String::new();
    let mut last = "";
    for (file, sentence) in &found {
        if file != last {
            text.push_str(&format!("\n{file}\n"));
            last = file;
        }
        text.push_str(&format!("  {}\n", sentence.replace('\n', "\n      ")));
    }
    expect_test::expect_file!["sentences.txt"].assert_eq(&text);
}
