//! Parsing of a config: sets keys from variables, and reports everything that cannot be parsed,
//! without repeating any value.

use super::Written;
use anyhow::Result;

/// Maximum number of segments in a path.
const DEEPEST: usize = 16;

/// Sets the key at the path whose segments are in `name`; a number selects one of several tables.
pub(super) fn put(table: &mut toml::Table, name: &str, text: &str) -> Result<()> {
    let words: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
    let wrong = || {
        let name = passavant_host::plain(&name.chars().take(200).collect::<String>());
        anyhow::anyhow!(
            "PASSAVANT__{name} is not a key of the config\n\
             hint: two underscores between the words, and a number where there are several tables: \
             PASSAVANT__IDP__LISTEN, PASSAVANT__RAS__0__ISSUER"
        )
    };
    let (last, path) = words.split_last().ok_or_else(wrong)?;
    if words.iter().any(String::is_empty) || words.len() > DEEPEST {
        return Err(wrong());
    }
    let mut at = toml::Value::Table(std::mem::take(table));
    let mut here = &mut at;
    for (i, word) in path.iter().enumerate() {
        let several =
            path.get(i + 1).or(Some(last)).is_some_and(|next| next.parse::<usize>().is_ok());
        here = match (here, word.parse::<usize>()) {
            (toml::Value::Array(items), Ok(n)) if n <= items.len() && n < 100 => {
                if n == items.len() {
                    items.push(toml::Value::Table(toml::Table::new()));
                }
                &mut items[n]
            }
            (toml::Value::Table(members), Err(_)) => {
                members.entry(word.clone()).or_insert_with(|| {
                    if several {
                        toml::Value::Array(Vec::new())
                    } else {
                        toml::Value::Table(toml::Table::new())
                    }
                })
            }
            _ => return Err(wrong()),
        };
    }
    let toml::Value::Table(members) = here else { return Err(wrong()) };
    members.insert(last.clone(), read_value(text));
    let toml::Value::Table(whole) = at else { return Err(wrong()) };
    *table = whole;
    Ok(())
}

/// The value of a variable: what TOML parses as a number, boolean, array, table or quoted string;
/// otherwise the text itself.
pub(super) fn read_value(text: &str) -> toml::Value {
    let trimmed = text.trim();
    let is_other = matches!(trimmed, "true" | "false")
        || trimmed.parse::<i64>().is_ok()
        || trimmed.starts_with(['[', '{', '"']);
    let parsed = format!("x = {trimmed}").parse::<toml::Table>().ok();
    let parsed = parsed.filter(|_| is_other).and_then(|mut table| table.remove("x"));
    parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// Maximum number of keys that are reported at once.
pub(super) const MOST_MISREAD: usize = 50;

/// Every key that is unknown or has a value of the wrong type, with its path. Each is removed and
/// the rest is parsed again, until only missing keys remain.
pub(super) fn misread(
    text: &str,
    first: serde_path_to_error::Error<toml::de::Error>,
    set: &[(String, String)],
) -> (Vec<String>, Option<Written>) {
    let mut rest: toml::Table = text.parse().unwrap_or_default();
    let mut told = Vec::new();
    let mut taken = Taken::default();
    let mut next = Some(first);
    while let Some(error) = next.take() {
        let path = error.path();
        let is_missing = error.inner().message().starts_with("missing field");
        // A missing key that was removed before has been reported; remove its table, too.
        let is_told = told.is_empty() || !is_missing;
        if is_told {
            // If variables set keys, the text is not the file's, and its line numbers are
            // meaningless.
            let named = taken.as_written(path);
            let what = match named_by(set, &path.to_string()) {
                _ if set.is_empty() => unquoted(text, error.inner()).to_string(),
                Some(variable) => {
                    format!("{} (set by {variable})", unsaid(error.inner().message()))
                }
                None => unsaid(error.inner().message()),
            };
            told.push(format!("{named}: {what}"));
        }
        let is_alone = is_missing && is_told;
        if is_alone || told.len() == MOST_MISREAD || !take_out(&mut rest, path) {
            break;
        }
        taken.note(path);
        match serde_path_to_error::deserialize::<_, Written>(toml::Value::Table(rest.clone())) {
            Ok(read) => return (told, Some(read)),
            Err(error) => next = Some(error),
        }
    }
    (told, None)
}

/// The elements that were removed from arrays: later elements have another index now than in the
/// file.
#[derive(Default)]
struct Taken(Vec<(String, usize)>);

impl Taken {
    fn note(&mut self, path: &serde_path_to_error::Path) {
        let steps: Vec<_> = path.iter().collect();
        if let Some((serde_path_to_error::Segment::Seq { index }, before)) = steps.split_last() {
            let list = self.spelled(before);
            let place = self.place(&list, *index);
            self.0.push((list, place));
        }
    }

    /// The index in the file of the element that is at `index` now.
    fn place(&self, list: &str, index: usize) -> usize {
        let mut gone: Vec<usize> =
            self.0.iter().filter(|(of, _)| of == list).map(|(_, place)| *place).collect();
        gone.sort_unstable();
        gone.into_iter().fold(index, |place, gone| if gone <= place { place + 1 } else { place })
    }

    fn as_written(&self, path: &serde_path_to_error::Path) -> String {
        let named = self.spelled(&path.iter().collect::<Vec<_>>());
        if named.is_empty() { "(file)".to_owned() } else { named }
    }

    fn spelled(&self, steps: &[&serde_path_to_error::Segment]) -> String {
        let mut named = String::new();
        for step in steps {
            match step {
                serde_path_to_error::Segment::Seq { index } => {
                    named = format!("{named}[{}]", self.place(&named, *index));
                }
                serde_path_to_error::Segment::Map { key } => {
                    let dot = if named.is_empty() { "" } else { "." };
                    named = format!("{named}{dot}{}", shown_key(key));
                }
                serde_path_to_error::Segment::Enum { .. }
                | serde_path_to_error::Segment::Unknown => {}
            }
        }
        named
    }
}

/// A key, if it looks like one: somebody may have written a password in place of a key.
fn shown_key(key: &str) -> &str {
    let is_key =
        key.len() <= 40 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if is_key { key } else { "(a key that is not shown)" }
}

/// An error of the parser without the values that it repeats: any of them may be a misplaced
/// password.
fn unsaid(message: &str) -> String {
    if let Some((_, expected)) = message.rsplit_once(", expected ") {
        for (begins, kind) in [
            ("invalid type: string", "a text"),
            ("invalid value: string", "this text"),
            ("invalid type: map", "a table"),
            ("invalid type: sequence", "a list"),
            ("invalid type: integer", "a number"),
            ("invalid value: integer", "this number"),
            ("invalid type: floating point", "a number"),
            ("invalid type: boolean", "true or false"),
        ] {
            if message.starts_with(begins) {
                return format!("{kind} where {} is expected", in_words(expected));
            }
        }
    }
    for (begins, what) in
        [("unknown field `", "unknown key"), ("unknown variant `", "unknown word")]
    {
        if let Some(rest) = message.strip_prefix(begins)
            && let Some((name, expected)) = rest.rsplit_once("`, expected ")
        {
            return format!("{what} `{}`, expected {expected}", shown_key(name));
        }
    }
    without_passwords(message)
}

/// The expected type of a key, without names of the code.
fn in_words(expected: &str) -> &str {
    match expected {
        "a string" | "string" => "a text",
        "path string" => "a path",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number",
        other if other.starts_with("struct ") || other.starts_with("map") => "a table",
        other if other.starts_with("enum ") => "one of the allowed words",
        other => other,
    }
}

/// The variable that sets the key at this path, or one of its parents.
fn named_by(set: &[(String, String)], path: &str) -> Option<String> {
    let words = path.replace(['.', '['], "__").replace(']', "").to_ascii_uppercase();
    let names = set.iter().map(|(name, _)| name.to_ascii_uppercase());
    let mut names = names.filter(|name| words == *name || words.starts_with(&format!("{name}__")));
    names.next().map(|name| format!("PASSAVANT__{name}"))
}

/// Removes a key from a config; `false` if there is none at this path.
pub(super) fn take_out(table: &mut toml::Table, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let mut steps: Vec<&Segment> = path.iter().collect();
    let Some(last) = steps.pop() else { return false };
    let mut whole = toml::Value::Table(std::mem::take(table));
    let mut at = Some(&mut whole);
    for step in steps {
        at = match (at, step) {
            (Some(toml::Value::Table(table)), Segment::Map { key }) => table.get_mut(key),
            (Some(toml::Value::Array(items)), Segment::Seq { index }) => items.get_mut(*index),
            _ => None,
        };
    }
    let taken = match (at, last) {
        (Some(toml::Value::Table(table)), Segment::Map { key }) => table.remove(key).is_some(),
        (Some(toml::Value::Array(items)), Segment::Seq { index }) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    };
    if let toml::Value::Table(rest) = whole {
        *table = rest;
    }
    taken
}

/// The error and its line number, without the line, which may contain a password.
pub(super) fn unquoted(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or_default();
        format!("line {}: ", before.matches('\n').count() + 1)
    });
    anyhow::anyhow!("{}{}", line.unwrap_or_default(), unsaid(error.message()))
}

/// A message without words that may contain a password, such as a misplaced database URL.
pub(super) fn without_passwords(text: &str) -> String {
    let may_hold = |word: &str| {
        let word = word.to_ascii_lowercase();
        let named = ["password", "passwd", "pwd"].iter().any(|name| word.contains(name));
        // The example in our own hints contains no password.
        let example = word.starts_with("postgres://user@host/database");
        (word.contains("://") && word.contains('@') && !example) || (named && word.contains('='))
    };
    let words = text.split(' ').map(|word| if may_hold(word) { "(not shown)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
