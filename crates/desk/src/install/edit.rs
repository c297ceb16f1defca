//! Edits other programs' config files and leaves everything else unchanged: comments, order,
//! unrelated keys, line ends. A file that its own program could not read is not edited.

use anyhow::{Context, Result, anyhow, bail};
use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstObject, CstRootNode},
};
use serde_json::Value;
use std::str::FromStr;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table};
use yaml_edit::Document;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, as strict as its program parses it.
    Json {
        /// Comments are allowed.
        comments: bool,
        /// A comma after the last member is allowed.
        trailing_commas: bool,
    },
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Json { comments: false, .. } => "JSON",
            Self::Json { .. } => "JSON with comments",
            Self::Toml => "TOML",
            Self::Yaml => "YAML",
        }
    }

    fn json_options(self) -> ParseOptions {
        let (comments, trailing_commas) = match self {
            Self::Json { comments, trailing_commas } => (comments, trailing_commas),
            Self::Toml | Self::Yaml => (false, false),
        };
        ParseOptions {
            allow_comments: comments,
            allow_trailing_commas: trailing_commas,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        }
    }
}

const BOM: char = '\u{feff}';

/// The new value of an entry: the members that Passavant wants, and other members that are there. A
/// member that somebody changed since Passavant `wrote` it keeps its value; a member that Passavant
/// wrote and does not want any more is removed.
pub(super) fn merged(held: Option<&Value>, wrote: Option<&Value>, wanted: &Value) -> Value {
    let (Some(Value::Object(held)), Value::Object(wants)) = (held, wanted) else {
        let changed = held.is_some_and(|held| wrote.is_some_and(|wrote| wrote != held));
        return held.filter(|_| changed).unwrap_or(wanted).clone();
    };
    let wrote = wrote.and_then(Value::as_object);
    let wrote_of = |key: &String| wrote.and_then(|wrote| wrote.get(key));
    let mut entry = held.clone();
    entry.retain(|key, value| wants.contains_key(key) || wrote_of(key) != Some(&*value));
    for (key, wanted) in wants {
        match held.get(key) {
            // Somebody removed it since.
            None if wrote_of(key).is_some() => {}
            held => {
                entry.insert(key.clone(), merged(held, wrote_of(key), wanted));
            }
        }
    }
    Value::Object(entry)
}

/// `text` with `name` below `path` set to `value`, member by member, so that comments in it are
/// kept. Returns the same text if it has this value already.
pub(super) fn set(
    format: Format,
    text: &str,
    path: &[&str],
    name: &str,
    value: &Value,
) -> Result<String> {
    if entry(format, text, path, name)?.as_ref() == Some(value) {
        return Ok(text.to_owned());
    }
    let (bom, text) = without_bom(text);
    let changed = match format {
        Format::Json { .. } => {
            let root = json(format, text)?;
            let object = json_object(&root, path)?;
            set_json(&object, name, value);
            root.to_string()
        }
        Format::Toml => {
            let mut document = toml(text)?;
            let mut table = document.as_table_mut() as &mut dyn toml_edit::TableLike;
            for key in path {
                let item = table.entry(key).or_insert_with(|| {
                    let mut table = Table::new();
                    table.set_implicit(true);
                    Item::Table(table)
                });
                table = item.as_table_like_mut().with_context(|| not_a_table(key))?;
            }
            set_toml(table, name, value)?;
            document.to_string()
        }
        Format::Yaml => set_yaml(text, path, name, value)?,
    };
    let changed = ended_like(text, changed);
    check(format, &changed, path, name, Some(value))?;
    Ok(format!("{bom}{changed}"))
}

/// `text` without `name` below `path`.
pub(super) fn remove(format: Format, text: &str, path: &[&str], name: &str) -> Result<String> {
    if entry(format, text, path, name)?.is_none() {
        return Ok(text.to_owned());
    }
    let (bom, text) = without_bom(text);
    let changed = match format {
        Format::Json { .. } => {
            let root = json(format, text)?;
            if let Some(property) = json_object(&root, path)?.get(name) {
                property.remove();
            }
            root.to_string()
        }
        Format::Toml => {
            let mut document = toml(text)?;
            let mut table = document.as_table_mut() as &mut dyn toml_edit::TableLike;
            for key in path {
                table = table
                    .get_mut(key)
                    .and_then(Item::as_table_like_mut)
                    .with_context(|| not_a_table(key))?;
            }
            table.remove(name);
            document.to_string()
        }
        Format::Yaml => {
            let document = yaml(text)?;
            let root = document.as_mapping().with_context(|| not_a_table("the file"))?;
            if let Some(mapping) = path.first().and_then(|key| root.get_mapping(*key)) {
                mapping.remove(name);
            }
            document.to_string()
        }
    };
    let changed = ended_like(text, changed);
    check(format, &changed, path, name, None)?;
    Ok(format!("{bom}{changed}"))
}

/// The value of `name` below `path`, if it is there.
pub(super) fn entry(
    format: Format,
    text: &str,
    path: &[&str],
    name: &str,
) -> Result<Option<Value>> {
    Ok(entries(format, text, path)?.remove(name))
}

/// All entries below `path`. The whole file is parsed, so that a file its program could not read is
/// detected here.
pub(super) fn entries(
    format: Format,
    text: &str,
    path: &[&str],
) -> Result<serde_json::Map<String, Value>> {
    let (_, text) = without_bom(text);
    let unreadable = |error: &dyn std::fmt::Display| {
        anyhow!(
            "it cannot be read as {}: {error}\n\
             hint: the MCP client cannot read it either; correct the file, then try again",
            format.name()
        )
    };
    let root: Value = match format {
        _ if text.trim().is_empty() => Value::Object(serde_json::Map::new()),
        Format::Json { .. } => {
            let parsed = jsonc_parser::parse_to_serde_value::<Value>(text, &format.json_options());
            parsed.map_err(|e| unreadable(&e))?
        }
        Format::Toml => {
            let parsed: toml::Table = text.parse().map_err(|e| unreadable(&e))?;
            serde_json::to_value(parsed)?
        }
        Format::Yaml => serde_saphyr::from_str(text).map_err(|e| unreadable(&e))?,
    };
    let mut held = match root {
        // A YAML file of comments only.
        Value::Null => Value::Object(serde_json::Map::new()),
        root => root,
    };
    if !held.is_object() {
        bail!(
            "it does not contain {} members\nhint: correct the file, then try again",
            format.name()
        );
    }
    for key in path {
        held = match held.get_mut(*key).map(Value::take) {
            None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
            Some(next @ Value::Object(_)) => next,
            Some(_) => bail!(not_a_table(key)),
        };
    }
    match held {
        Value::Object(members) => Ok(members),
        _ => Ok(serde_json::Map::new()),
    }
}

/// Sets a member; of an object only the members that differ.
fn set_json(object: &CstObject, name: &str, value: &Value) {
    let Some(property) = object.get(name) else {
        object.append(name, to_cst(value));
        return;
    };
    match (value, property.object_value()) {
        (Value::Object(members), Some(held)) => {
            for gone in held.properties() {
                let name = gone.name().and_then(|name| name.decoded_value().ok());
                if name.is_some_and(|name| !members.contains_key(&name)) {
                    gone.remove();
                }
            }
            for (key, value) in members {
                set_json(&held, key, value);
            }
        }
        _ => {
            let same = property.value().and_then(|held| held.to_serde_value());
            if same.as_ref() != Some(value) {
                property.set_value(to_cst(value));
            }
        }
    }
}

/// Checks the result with a different parser from the one that wrote it: the entry must have the
/// intended value.
fn check(
    format: Format,
    changed: &str,
    path: &[&str],
    name: &str,
    expected: Option<&Value>,
) -> Result<()> {
    let found = entry(format, changed, path, name)?;
    if found.as_ref() == expected {
        return Ok(());
    }
    bail!("the changed file would not read back as intended, so nothing was written")
}

fn not_a_table(key: &str) -> String {
    format!(
        "`{key}` in it is not a table of entries\n\
         hint: the MCP client cannot read it either; correct the file, then try again"
    )
}

fn without_bom(text: &str) -> (&'static str, &str) {
    match text.strip_prefix(BOM) {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    }
}

/// Uses the line ends of the original file.
fn ended_like(before: &str, after: String) -> String {
    if before.contains("\r\n") { after.replace("\r\n", "\n").replace('\n', "\r\n") } else { after }
}

fn json(format: Format, text: &str) -> Result<CstRootNode> {
    CstRootNode::parse(text, &format.json_options()).map_err(|e| anyhow!("{e}"))
}

fn json_object(root: &CstRootNode, path: &[&str]) -> Result<CstObject> {
    let root = root.object_value_or_create().with_context(|| not_a_table("the file"))?;
    path.iter().try_fold(root, |object, key| {
        object.object_value_or_create(key).with_context(|| not_a_table(key))
    })
}

fn to_cst(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(flag) => CstInputValue::Bool(*flag),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(to_cst).collect()),
        Value::Object(members) => CstInputValue::Object(
            members.iter().map(|(key, value)| (key.clone(), to_cst(value))).collect(),
        ),
    }
}

fn toml(text: &str) -> Result<DocumentMut> {
    text.parse().map_err(|e: toml_edit::TomlError| anyhow!("{e}"))
}

/// Sets the members of an entry one by one, so that its other members are kept.
fn set_toml(table: &mut dyn toml_edit::TableLike, name: &str, value: &Value) -> Result<()> {
    let Value::Object(members) = value else { bail!("an entry is a table") };
    let held = table.entry(name).or_insert_with(|| Item::Table(Table::new()));
    let held = held.as_table_like_mut().with_context(|| not_a_table(name))?;
    let gone: Vec<String> = held
        .iter()
        .map(|(key, _)| key.to_owned())
        .filter(|key| !members.contains_key(key))
        .collect();
    for key in gone {
        held.remove(&key);
    }
    for (key, value) in members {
        match held.get_mut(key) {
            Some(item) if toml_holds(item, value) => {}
            // Replaces only the value: a comment after it is kept.
            Some(Item::Value(old)) if !value.is_object() => {
                let mut new = toml_value(value)?;
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
            Some(item) if item.is_table_like() && value.is_object() => set_toml(held, key, value)?,
            _ => {
                held.insert(key, Item::Value(toml_value(value)?));
            }
        }
    }
    Ok(())
}

/// Whether a member has this value already.
fn toml_holds(item: &Item, value: &Value) -> bool {
    let text = format!("x = {}", item.to_string().trim());
    let held = text.parse::<toml::Table>().ok().and_then(|table| table.get("x").cloned());
    held.and_then(|held| serde_json::to_value(held).ok()).as_ref() == Some(value)
}

fn toml_value(value: &Value) -> Result<toml_edit::Value> {
    Ok(match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => {
            number.as_i64().context("a number that TOML cannot represent")?.into()
        }
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            let items: Result<Vec<_>> = items.iter().map(toml_value).collect();
            toml_edit::Value::Array(Array::from_iter(items?))
        }
        Value::Object(members) => {
            let mut table = InlineTable::new();
            for (key, value) in members {
                table.insert(key, toml_value(value)?);
            }
            toml_edit::Value::InlineTable(table)
        }
        Value::Null => bail!("TOML has no null"),
    })
}

fn yaml(text: &str) -> Result<Document> {
    Document::from_str(text).map_err(|e| anyhow!("{e}"))
}

/// Sets an entry in YAML. JSON is valid YAML, so the entry's values are written as JSON.
fn set_yaml(text: &str, path: &[&str], name: &str, value: &Value) -> Result<String> {
    let ([key], Value::Object(members)) = (path, value) else { bail!("an entry is a mapping") };
    let lines = |indent: &str| {
        members
            .iter()
            .fold(String::new(), |text, (key, value)| format!("{text}{indent}{key}: {value}\n"))
    };
    let whole = || format!("{key}:\n  {name}:\n{}", lines("    "));
    let held = entries(Format::Yaml, text, &[])?;
    if held.is_empty() {
        // The file is empty, or has comments only.
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{separator}{}", whole()));
    }
    if matches!(held.get(*key), None | Some(Value::Null)) && !held.contains_key(*key) {
        let separator = if text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{separator}{}", whole()));
    }
    let entry = yaml(&lines(""))?.as_mapping().context("an entry is a mapping")?;
    let document = yaml(text)?;
    let root = document.as_mapping().with_context(|| not_a_table("the file"))?;
    match root.get_mapping(*key) {
        Some(mapping) if !mapping.is_empty() => {
            let found = entries(Format::Yaml, text, path)?;
            let before = found.get(name).and_then(Value::as_object);
            match (mapping.get_mapping(name), before) {
                (Some(held), Some(before)) => {
                    for gone in before.keys().filter(|key| !members.contains_key(*key)) {
                        held.remove(gone.as_str());
                    }
                    for (key, value) in members {
                        if before.get(key) != Some(value) {
                            let line = yaml(&format!("{key}: {value}\n"))?;
                            let line = line.as_mapping().context("a member is a mapping")?;
                            let value = line.get(key.as_str()).context("it was just written")?;
                            held.set(key.as_str(), value);
                        }
                    }
                }
                _ => mapping.set(name, entry),
            }
        }
        _ => {
            let fresh = yaml(&format!("{name}:\n{}", lines("  ")))?;
            let fresh = fresh.as_mapping().context("an entry is a mapping")?;
            root.set(*key, fresh);
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const JSONC: Format = Format::Json { comments: true, trailing_commas: true };
    const STRICT: Format = Format::Json { comments: false, trailing_commas: false };

    fn bridge() -> Value {
        json!({"command": "/usr/bin/passavant", "args": ["connect", "https://mcp.example/mcp"]})
    }

    #[test]
    fn comments_order_and_unrelated_members_stay() {
        let text = "// mine\n{\n  \"b\": 1, // one\n  \"servers\": {\n    /* keep */ \"own\": {\"url\": \"x\"},\n  },\n  \"a\": [1,2],\n}\n";
        let with = set(JSONC, text, &["servers"], "canvas", &bridge()).unwrap();
        for kept in
            ["// mine", "\"b\": 1, // one", "/* keep */ \"own\": {\"url\": \"x\"}", "\"a\": [1,2]"]
        {
            assert!(with.contains(kept), "{kept} is gone:\n{with}");
        }
        assert_eq!(entry(JSONC, &with, &["servers"], "canvas").unwrap(), Some(bridge()));
        let again = set(JSONC, &with, &["servers"], "canvas", &bridge()).unwrap();
        assert_eq!(with, again, "twice is once");
        let without = remove(JSONC, &with, &["servers"], "canvas").unwrap();
        assert_eq!(entries(JSONC, &without, &[]).unwrap(), entries(JSONC, text, &[]).unwrap());
        assert!(without.contains("// mine") && without.contains("/* keep */"));
    }

    #[test]
    fn what_somebody_changed_in_an_entry_stays_in_every_dialect() {
        let wrote = json!({"command": "/old/passavant", "args": ["connect", "u"], "enabled": true,
                           "timeout": 300, "env": {"PASSAVANT_HOME": "/a", "OLD": "1"}});
        let wanted = json!({"command": "/new/passavant", "args": ["connect", "u"], "enabled": true,
                            "timeout": 300, "env": {"PASSAVANT_HOME": "/b"}});
        let expected = json!({"command": "/new/passavant", "args": ["connect", "u"], "enabled": false,
                              "mine": ["x"], "env": {"PASSAVANT_HOME": "/b", "RUST_LOG": "debug"}});
        let edited = json!({"command": "/old/passavant", "args": ["connect", "u"], "enabled": false,
                            "mine": ["x"], "env": {"PASSAVANT_HOME": "/a", "OLD": "1", "RUST_LOG": "debug"}});
        assert_eq!(merged(Some(&edited), Some(&wrote), &wanted), expected);
        let once = merged(Some(&expected), Some(&wanted), &wanted);
        assert_eq!(once, expected, "twice is once");
        assert_eq!(merged(None, None, &wanted), wanted);
        let json = "{\n  \"s\": {\n    \"canvas\": {\n      // tuned\n      \"command\": \"/old/passavant\", // here\n      \"args\": [\"connect\", \"u\"],\n      \"enabled\": false, // off\n      \"mine\": [\"x\"],\n      \"env\": {\"PASSAVANT_HOME\": \"/a\", \"OLD\": \"1\", \"RUST_LOG\": \"debug\"}\n    }\n  }\n}\n";
        let toml = "[s.canvas]\ncommand = \"/old/passavant\" # here\nargs = [\"connect\", \"u\"]\nenabled = false # off\nmine = [\"x\"]\nenv = { PASSAVANT_HOME = \"/a\", OLD = \"1\", RUST_LOG = \"debug\" }\n";
        let yaml = "s:\n  canvas:\n    command: /old/passavant # here\n    args: [connect, u]\n    enabled: false # off\n    mine: [x]\n    env:\n      PASSAVANT_HOME: /a\n      OLD: \"1\"\n      RUST_LOG: debug\n";
        for (format, text) in [(JSONC, json), (Format::Toml, toml), (Format::Yaml, yaml)] {
            let held = entry(format, text, &["s"], "canvas").unwrap();
            assert_eq!(held.as_ref(), Some(&edited), "{format:?}");
            let with = set(format, text, &["s"], "canvas", &expected).unwrap();
            assert_eq!(entry(format, &with, &["s"], "canvas").unwrap(), Some(expected.clone()));
            assert!(with.contains("off"), "{format:?}: a comment is gone:\n{with}");
        }
    }

    #[test]
    fn toml_and_yaml_keep_what_is_theirs_too() {
        let toml = "# mine\nmodel = \"x\" # one\n\n[mcp_servers.own]\ncommand = \"y\"\n";
        let with = set(Format::Toml, toml, &["mcp_servers"], "canvas", &bridge()).unwrap();
        assert!(with.starts_with(toml), "{with}");
        assert_eq!(set(Format::Toml, &with, &["mcp_servers"], "canvas", &bridge()).unwrap(), with);
        assert_eq!(remove(Format::Toml, &with, &["mcp_servers"], "canvas").unwrap(), toml);
        let yaml = "# mine\nGOOSE_MODEL: x # one\nextensions:\n  # own\n  own:\n    enabled: true\n    type: builtin\n";
        let with = set(Format::Yaml, yaml, &["extensions"], "canvas", &bridge()).unwrap();
        for kept in ["# mine", "GOOSE_MODEL: x # one", "  # own\n  own:\n    enabled: true"] {
            assert!(with.contains(kept), "{kept} is gone:\n{with}");
        }
        assert_eq!(set(Format::Yaml, &with, &["extensions"], "canvas", &bridge()).unwrap(), with);
        let without = remove(Format::Yaml, &with, &["extensions"], "canvas").unwrap();
        assert_eq!(
            entries(Format::Yaml, &without, &[]).unwrap(),
            entries(Format::Yaml, yaml, &[]).unwrap()
        );
    }

    #[test]
    fn files_of_every_shape_are_met() {
        for (format, path) in
            [(STRICT, "mcpServers"), (Format::Toml, "mcp_servers"), (Format::Yaml, "extensions")]
        {
            for text in ["", "\n"] {
                let with = set(format, text, &[path], "canvas", &bridge()).unwrap();
                assert_eq!(
                    entry(format, &with, &[path], "canvas").unwrap(),
                    Some(bridge()),
                    "{with}"
                );
            }
        }
        for yaml in [
            "# only a comment\n",
            "a: 1\n",
            "a: 1",
            "extensions:\na: 1\n",
            "extensions: {}\n",
            "a: 1\nextensions:\n    wide:\n        enabled: true\n",
        ] {
            let with = set(Format::Yaml, yaml, &["extensions"], "canvas", &bridge()).unwrap();
            let found = entries(Format::Yaml, &with, &["extensions"]).unwrap();
            assert_eq!(found.get("canvas"), Some(&bridge()), "{yaml:?} gave:\n{with}");
            assert_eq!(found.contains_key("wide"), yaml.contains("wide"), "{with}");
        }
        let windows = "{\r\n  \"mcpServers\": {}\r\n}\r\n";
        let with = set(STRICT, windows, &["mcpServers"], "canvas", &bridge()).unwrap();
        assert!(!with.replace("\r\n", "").contains('\n'), "line ends: {with:?}");
        let marked = "\u{feff}{}";
        assert!(set(STRICT, marked, &["mcpServers"], "c", &bridge()).unwrap().starts_with(BOM));
    }

    #[test]
    fn what_its_own_program_could_not_read_is_not_touched() {
        for (format, text) in [
            (STRICT, "{\"a\": 1,}"),
            (STRICT, "// c\n{}"),
            (STRICT, "{a: 1}"),
            (JSONC, "{\"a\": }"),
            (JSONC, "[]"),
            (JSONC, "{\"servers\": []}"),
            (Format::Toml, "a = "),
            (Format::Toml, "servers = 1"),
            (Format::Yaml, "a: [1"),
            (Format::Yaml, "servers: [1]"),
            (Format::Yaml, "- 1"),
        ] {
            let refused = set(format, text, &["servers"], "canvas", &bridge());
            let error = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
            assert!(error.contains("hint:"), "{text:?}: {error:?}");
        }
    }
}
