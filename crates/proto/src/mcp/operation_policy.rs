//! What a caller may do at an MCP server: rules that map tools, prompts, resources and methods to
//! scopes. The most specific rule decides; a tool without a rule is denied.

use crate::{
    mcp::message::Target, oauth::scope::Scopes, oidc::authentication::reaches, time::Timestamp,
};
use serde::Deserialize;
use std::collections::HashMap;
use url::Url;

/// One rule as an administrator writes it. A pattern is a name, or a prefix followed by `*`; `*`
/// alone matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name in the audit trail; by default its first pattern.
    #[serde(default)]
    pub name: Option<String>,
    /// Tools by name.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Prompts by name.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// Resources by URI.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Methods, in addition to those that everybody may use.
    #[serde(default)]
    pub methods: Vec<String>,
    /// All tools whose approved description says `readOnlyHint`, as the MCP server claims.
    #[serde(default)]
    pub read_only_tools: bool,
    /// Scopes that it needs in addition to those of every request.
    #[serde(default)]
    pub scopes: Scopes,
    /// Maximum age of the sign-in, in seconds.
    #[serde(default)]
    pub max_age: Option<i64>,
    /// Authentication context classes, one of which the sign-in has to have reached.
    #[serde(default, deserialize_with = "crate::formerly::texts")]
    pub acr_values: Vec<String>,
    /// Nobody may use what it matches.
    #[serde(default)]
    pub deny: bool,
}

/// Why rules are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It has no patterns.
    #[error("rule {0} names no tool, prompt, resource or method")]
    Empty(usize),
    /// A `*` that is not at the end, or an empty pattern.
    #[error("rule {0}: `{1}` is not a valid pattern: `*` is allowed only at the end")]
    Pattern(usize, String),
    /// Two rules that are equally specific.
    #[error("rules {0} and {1} both name {2}")]
    Twice(usize, usize, String),
    /// It denies, and has conditions.
    #[error("rule {0} denies, so it cannot have scopes or conditions")]
    Contradiction(usize),
    /// An age below zero.
    #[error("rule {0}: max_age is a number of seconds from 0")]
    MaxAge(usize),
}

/// Methods that every caller may use with the scopes of every request: their results are filtered
/// by the rules, or they belong to the protocol itself.
const FREE: [&str; 14] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "logging/setLevel",
    "completion/complete",
    "subscriptions/listen",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
];

/// The patterns of one kind of target.
#[derive(Clone, Debug, Default)]
struct Patterns {
    exact: HashMap<String, usize>,
    /// Longest first.
    prefixes: Vec<(String, usize)>,
    all: Option<usize>,
}

impl Patterns {
    fn add(&mut self, pattern: &str, rule: usize, kind: &str) -> Result<(), RuleError> {
        let bad = || RuleError::Pattern(rule, pattern.to_owned());
        let twice = |other: usize| RuleError::Twice(other, rule, format!("the {kind} `{pattern}`"));
        match pattern.strip_suffix('*') {
            _ if pattern.is_empty() => return Err(bad()),
            Some(prefix) if prefix.contains('*') => return Err(bad()),
            None if pattern.contains('*') => return Err(bad()),
            Some("") => match self.all {
                Some(other) => return Err(twice(other)),
                None => self.all = Some(rule),
            },
            Some(prefix) => {
                if let Some((_, other)) = self.prefixes.iter().find(|(held, _)| held == prefix) {
                    return Err(twice(*other));
                }
                self.prefixes.push((prefix.to_owned(), rule));
                self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
            }
            None => {
                if let Some(other) = self.exact.insert(pattern.to_owned(), rule) {
                    return Err(twice(other));
                }
            }
        }
        Ok(())
    }

    /// The rule for `name`. If only `*` matches, `class` is asked first.
    fn find(&self, name: &str, class: impl FnOnce() -> Option<usize>) -> Option<usize> {
        if let Some(rule) = self.exact.get(name) {
            return Some(*rule);
        }
        // Patterns are not written with such names in mind.
        if name.is_empty() || name.trim() != name || name.chars().any(char::is_control) {
            return None;
        }
        let prefix = self.prefixes.iter().find(|(prefix, _)| name.starts_with(prefix.as_str()));
        prefix.map(|(_, rule)| *rule).or_else(class).or(self.all)
    }

    /// The rule for a URI. Rules match only URIs in normal form, and a URI with a query is a
    /// different resource from the one without.
    fn find_uri(&self, uri: &str) -> Option<usize> {
        // A trailing slash names a folder only if a rule has that very URI.
        let folder = self.exact.get(uri).filter(|_| uri.strip_suffix('/').is_some_and(is_normal));
        if folder.is_some() {
            return folder.copied();
        }
        if !is_normal(uri) {
            return None;
        }
        if let Some(rule) = self.exact.get(uri) {
            return Some(*rule);
        }
        let query = uri.contains('?');
        let speaks = |pattern: &str| !query || pattern.contains('?');
        let prefix = self.prefixes.iter().find(|(prefix, _)| uri.starts_with(prefix.as_str()));
        match prefix {
            // The most specific pattern decides, even if it does not apply.
            Some((prefix, rule)) => speaks(prefix).then_some(*rule),
            // `*` without any other pattern cannot be circumvented.
            None => {
                self.all.filter(|_| !query || (self.exact.is_empty() && self.prefixes.is_empty()))
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.all.is_none()
    }
}

/// The rules of one MCP server.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Scopes that every request needs.
    base: Scopes,
    rules: Vec<Rule>,
    tools: Patterns,
    prompts: Patterns,
    resources: Patterns,
    methods: Patterns,
    read_only_tools: Option<usize>,
}

/// What is known about a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolState {
    /// Its description was not seen yet.
    Unseen,
    /// Its description was approved.
    Approved {
        /// It says `readOnlyHint`.
        read_only: bool,
    },
    /// Its description differs from the approved one, and such tools are to be blocked.
    Changed,
}

/// What is known about the caller.
#[derive(Clone, Copy, Debug)]
pub struct CallerFacts<'a> {
    /// Scopes of the token.
    pub scopes: &'a Scopes,
    /// When the person signed in, if the token says so.
    pub auth_time: Option<Timestamp>,
    /// Authentication context class of the sign-in, if the token says so.
    pub acr: Option<&'a str>,
}

/// Why an operation is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAllowed {
    /// No rule matches it.
    NoRule {
        /// `tool`, `prompt`, `resource` or `method`.
        kind: &'static str,
    },
    /// A rule denies it.
    Denied {
        /// The rule.
        rule: String,
    },
    /// The tool's description changed since it was approved.
    Changed,
    /// The token lacks scopes.
    Scope {
        /// All scopes that are needed.
        needed: Scopes,
        /// The rule.
        rule: String,
    },
    /// The sign-in is too old or too weak (RFC 9470).
    Authentication {
        /// Maximum age of the sign-in, in seconds.
        max_age: Option<i64>,
        /// Authentication context classes, one of which is required.
        acr_values: Vec<String>,
        /// The rule.
        rule: String,
    },
}

impl NotAllowed {
    /// The reason for the audit trail.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoRule { .. } => "operation.no_rule",
            Self::Denied { .. } => "operation.denied",
            Self::Changed => "operation.tool_changed",
            Self::Scope { .. } => "operation.scope",
            Self::Authentication { .. } => "operation.authentication",
        }
    }

    /// The rule that decided, by name.
    pub fn rule(&self) -> &str {
        match self {
            Self::NoRule { .. } => "no rule",
            Self::Changed => "tool snapshot",
            Self::Denied { rule }
            | Self::Scope { rule, .. }
            | Self::Authentication { rule, .. } => rule,
        }
    }
}

/// The name that stands for the rule if no rule matches and the scopes of every request suffice.
const EVERY_REQUEST: &str = "every request";

/// Whether a URI is in normal form, so that each resource has one name: as URL libraries write it,
/// with characters of RFC 3986 only, nothing percent-encoded unnecessarily (2.4, 6.2.2), no segment
/// that some parsers resolve or drop, no user information, no fragment, no empty query.
fn is_normal(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    if url.as_str() != uri || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    if url.fragment().is_some() || url.query() == Some("") {
        return false;
    }
    let host = url.host_str().unwrap_or_default();
    if host.ends_with('.') || host.bytes().any(|b| b.is_ascii_uppercase()) {
        return false;
    }
    if url.scheme() == "urn" && url.path().split(':').next().is_some_and(has_uppercase) {
        return false;
    }
    let path = url.path();
    let segments = path.strip_prefix('/').unwrap_or(path);
    // The root has one empty segment; elsewhere some parsers drop empty segments.
    let odd_segment = |segment: &str| matches!(segment, "" | "." | "..");
    if !segments.is_empty() && segments.split('/').any(odd_segment) {
        return false;
    }
    is_spelled_once(path) && url.query().is_none_or(is_spelled_once)
}

fn has_uppercase(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether a path or query has characters of RFC 3986 only, and percent-encodes only what has to
/// be: in capitals, as UTF-8, once, and nothing that a parser would take for a separator or an end.
fn is_spelled_once(text: &str) -> bool {
    // pchar (3.3), and the other characters of a query.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&b);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            if !plain(b) {
                return false;
            }
            decoded.push(b);
            continue;
        }
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'A'..=b'F' => Some(b - b'A' + 10),
            _ => None,
        };
        let (Some(high), Some(low)) = (bytes.next().and_then(digit), bytes.next().and_then(digit))
        else {
            return false;
        };
        let b = high << 4 | low;
        // In a path `?` has to be encoded; control characters and backslashes are not allowed in a
        // name.
        if (plain(b) && b != b'?') || b.is_ascii_control() || b == b'\\' {
            return false;
        }
        decoded.push(b);
    }
    let Ok(decoded) = String::from_utf8(decoded) else { return false };
    // Decoding twice must not give another name.
    let hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
    let bytes = decoded.as_bytes();
    !decoded.chars().any(char::is_control)
        && !(0..bytes.len())
            .any(|i| bytes[i] == b'%' && hex(bytes.get(i + 1)) && hex(bytes.get(i + 2)))
}

impl Rules {
    /// Rules for a server where each request needs `base`.
    pub fn new(base: Scopes, rules: Vec<Rule>) -> Result<Self, RuleError> {
        let mut all = Self { base, ..Self::default() };
        for (i, rule) in rules.iter().enumerate() {
            let patterns = rule.tools.len()
                + rule.prompts.len()
                + rule.resources.len()
                + rule.methods.len()
                + usize::from(rule.read_only_tools);
            if patterns == 0 {
                return Err(RuleError::Empty(i));
            }
            let conditions =
                !rule.scopes.is_empty() || rule.max_age.is_some() || !rule.acr_values.is_empty();
            if rule.deny && conditions {
                return Err(RuleError::Contradiction(i));
            }
            if rule.max_age.is_some_and(|seconds| seconds < 0) {
                return Err(RuleError::MaxAge(i));
            }
            for (kind, patterns, names) in [
                ("tool", &mut all.tools, &rule.tools),
                ("prompt", &mut all.prompts, &rule.prompts),
                ("resource", &mut all.resources, &rule.resources),
                ("method", &mut all.methods, &rule.methods),
            ] {
                for pattern in names {
                    patterns.add(pattern, i, kind)?;
                }
            }
            if rule.read_only_tools
                && let Some(other) = all.read_only_tools.replace(i)
            {
                return Err(RuleError::Twice(other, i, "read-only tools".to_owned()));
            }
        }
        all.rules = rules;
        Ok(all)
    }

    /// Scopes that every request needs.
    pub fn base(&self) -> &Scopes {
        &self.base
    }

    /// Every scope that some rule or every request needs.
    pub fn scopes(&self) -> Scopes {
        self.rules.iter().fold(self.base.clone(), |all, rule| all.union(&rule.scopes))
    }

    fn name_of(&self, rule: usize) -> String {
        let rule = &self.rules[rule];
        let first = [&rule.tools, &rule.prompts, &rule.resources, &rule.methods];
        let first = first.into_iter().flatten().next().map(String::as_str);
        rule.name.as_deref().or(first).unwrap_or("read-only tools").to_owned()
    }

    /// The rule for a target; `Ok(None)` if the scopes of every request suffice.
    fn find(&self, target: Target<'_>, tool: ToolState) -> Result<Option<usize>, NotAllowed> {
        let none = || None;
        let (kind, found, free) = match target {
            Target::Answer => return Ok(None),
            Target::Tool(name) => {
                let class = || match tool {
                    ToolState::Approved { read_only: true } => self.read_only_tools,
                    _ => None,
                };
                ("tool", self.tools.find(name, class), false)
            }
            Target::Prompt(name) => {
                ("prompt", self.prompts.find(name, none), self.prompts.is_empty())
            }
            Target::Resource(_) if self.resources.is_empty() => ("resource", None, true),
            Target::Resource(uri) => ("resource", self.resources.find_uri(uri), false),
            Target::Method(method) => {
                ("method", self.methods.find(method, none), FREE.contains(&method))
            }
        };
        match found {
            Some(rule) if self.rules[rule].deny => {
                Err(NotAllowed::Denied { rule: self.name_of(rule) })
            }
            Some(rule) => Ok(Some(rule)),
            None if free => Ok(None),
            None => Err(NotAllowed::NoRule { kind }),
        }
    }

    /// Judges all targets of a request at once, so that a refusal for missing scopes names all that
    /// are needed. Returns the names of the rules that allow it.
    pub fn decide(
        &self,
        targets: &[Target<'_>],
        caller: CallerFacts<'_>,
        tool: impl Fn(&str) -> ToolState,
        now: Timestamp,
    ) -> Result<String, NotAllowed> {
        let mut deciding: Vec<usize> = Vec::new();
        for target in targets {
            let state = match target {
                Target::Tool(name) => tool(name),
                _ => ToolState::Unseen,
            };
            let found = self.find(*target, state)?;
            if state == ToolState::Changed {
                return Err(NotAllowed::Changed);
            }
            deciding.extend(found.filter(|rule| !deciding.contains(rule)));
        }
        let names = || {
            let names: Vec<_> = deciding.iter().map(|rule| self.name_of(*rule)).collect();
            if names.is_empty() { EVERY_REQUEST.to_owned() } else { names.join(", ") }
        };
        let sufficient = caller.scopes.contains_all(&self.base)
            && deciding.iter().all(|rule| caller.scopes.contains_all(&self.rules[*rule].scopes));
        if !sufficient {
            let needed =
                deciding.iter().fold(self.base.clone(), |all, i| all.union(&self.rules[*i].scopes));
            return Err(NotAllowed::Scope { needed, rule: names() });
        }
        for rule in &deciding {
            let Rule { max_age, acr_values, .. } = &self.rules[*rule];
            let young = max_age
                .is_none_or(|age| caller.auth_time.is_some_and(|at| now.since(at) <= age.max(0)));
            let strong = acr_values.is_empty()
                || caller
                    .acr
                    .is_some_and(|acr| acr_values.iter().any(|wanted| reaches(acr, wanted)));
            if !young || !strong {
                return Err(NotAllowed::Authentication {
                    max_age: *max_age,
                    acr_values: acr_values.clone(),
                    rule: self.name_of(*rule),
                });
            }
        }
        Ok(names())
    }

    /// Whether a list may show a target: if a rule allows it, and, if `scopes` are given, if they
    /// also suffice for it.
    pub fn shows(&self, target: Target<'_>, tool: ToolState, scopes: Option<&Scopes>) -> bool {
        match self.find(target, tool) {
            Err(_) => false,
            Ok(_) if tool == ToolState::Changed => false,
            Ok(None) => true,
            Ok(Some(rule)) => {
                scopes.is_none_or(|scopes| scopes.contains_all(&self.rules[rule].scopes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).unwrap()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn rules() -> Rules {
        let rules = vec![
            Rule { tools: names(&["read"]), scopes: scopes("r"), ..Rule::default() },
            Rule { tools: names(&["note_*"]), scopes: scopes("n"), ..Rule::default() },
            Rule { tools: names(&["note_wipe"]), deny: true, ..Rule::default() },
            Rule {
                name: Some("pay".to_owned()),
                tools: names(&["pay"]),
                scopes: scopes("p"),
                max_age: Some(60),
                acr_values: names(&["strong"]),
                ..Rule::default()
            },
            Rule { read_only_tools: true, scopes: scopes("ro"), ..Rule::default() },
            Rule { resources: names(&["file:///public/*"]), ..Rule::default() },
            Rule { methods: names(&["tasks/*"]), scopes: scopes("t"), ..Rule::default() },
        ];
        Rules::new(scopes("mcp"), rules).unwrap()
    }

    fn decide(targets: &[Target<'_>], held: &str, state: ToolState) -> Result<String, NotAllowed> {
        let held = scopes(held);
        let caller =
            CallerFacts { scopes: &held, auth_time: Some(Timestamp(1000)), acr: Some("strong") };
        rules().decide(targets, caller, |_| state, Timestamp(1030))
    }

    #[test]
    fn the_most_specific_rule_decides_and_what_none_names_is_denied() {
        use ToolState::{Approved, Changed, Unseen};
        let tool = |name: &'static str, held: &str| decide(&[Target::Tool(name)], held, Unseen);
        let no_rule = Err(NotAllowed::NoRule { kind: "tool" });
        assert_eq!(tool("read", "mcp r"), Ok("read".to_owned()));
        assert_eq!(tool("note_add", "mcp n"), Ok("note_*".to_owned()));
        assert_eq!(
            tool("note_wipe", "mcp n"),
            Err(NotAllowed::Denied { rule: "note_wipe".to_owned() })
        );
        for odd in ["Read", "rеad", "read ", "read\0", "other", "", "note_\u{0}x", "note_x "] {
            assert_eq!(decide(&[Target::Tool(odd)], "mcp r n", Unseen), no_rule, "{odd:?}");
        }
        // The rule for read-only tools depends on an approved description.
        let read_only = Approved { read_only: true };
        let held = "mcp ro";
        assert_eq!(decide(&[Target::Tool("list")], held, Unseen), no_rule);
        assert!(decide(&[Target::Tool("list")], held, read_only).is_ok());
        assert_eq!(decide(&[Target::Tool("list")], held, Approved { read_only: false }), no_rule);
        assert_eq!(decide(&[Target::Tool("read")], "mcp r", Changed), Err(NotAllowed::Changed));
        // Prompts are free as long as no rule matches prompts; resources are not.
        assert_eq!(decide(&[Target::Prompt("p")], "mcp", Unseen), Ok(EVERY_REQUEST.to_owned()));
        assert!(decide(&[Target::Resource("file:///public/a")], "mcp", Unseen).is_ok());
        let kind = |kind| Err(NotAllowed::NoRule { kind });
        assert_eq!(decide(&[Target::Resource("file:///etc")], "mcp", Unseen), kind("resource"));
        for odd in [
            "file:///public/../etc",
            "file:///public/%2e%2e/etc",
            "file:///public/..%2fetc",
            "FILE:///public/a",
            "file://localhost/public/a",
            "file:///public/./a",
            "file:///public/a\\..\\b",
            "public/a",
        ] {
            assert_eq!(decide(&[Target::Resource(odd)], "mcp", Unseen), kind("resource"), "{odd}");
        }
        assert!(decide(&[Target::Method("tools/list")], "mcp", Unseen).is_ok());
        assert!(decide(&[Target::Method("tasks/get")], "mcp t", Unseen).is_ok());
        assert_eq!(decide(&[Target::Method("new/method")], "mcp", Unseen), kind("method"));
        assert!(decide(&[Target::Answer], "mcp", Unseen).is_ok());
    }

    #[test]
    fn a_refusal_for_want_of_scopes_names_all_of_them_at_once() {
        let batch = [Target::Tool("read"), Target::Tool("note_add"), Target::Method("ping")];
        assert_eq!(
            decide(&batch, "r", ToolState::Unseen),
            Err(NotAllowed::Scope { needed: scopes("mcp r n"), rule: "read, note_*".to_owned() })
        );
        assert_eq!(decide(&batch, "mcp r n", ToolState::Unseen), Ok("read, note_*".to_owned()));
        assert!(matches!(
            decide(&[Target::Answer], "", ToolState::Unseen),
            Err(NotAllowed::Scope { .. })
        ));
    }

    #[test]
    fn a_tool_may_ask_for_a_fresh_and_strong_sign_in() {
        let held = scopes("mcp p");
        let pay = [Target::Tool("pay")];
        let ask = |auth_time: Option<i64>, acr: Option<&str>| {
            let auth_time = auth_time.map(Timestamp);
            let caller = CallerFacts { scopes: &held, auth_time, acr };
            rules().decide(&pay, caller, |_| ToolState::Unseen, Timestamp(1000))
        };
        assert_eq!(ask(Some(940), Some("strong")), Ok("pay".to_owned()));
        for (auth_time, acr) in [
            (Some(939), Some("strong")),
            (None, Some("strong")),
            (Some(990), None),
            (Some(990), Some("weak")),
        ] {
            assert_eq!(
                ask(auth_time, acr),
                Err(NotAllowed::Authentication {
                    max_age: Some(60),
                    acr_values: names(&["strong"]),
                    rule: "pay".to_owned()
                })
            );
        }
    }

    #[test]
    fn a_list_shows_what_a_rule_allows() {
        let rules = rules();
        let shows = |name, held: Option<&str>| {
            let held = held.map(scopes);
            rules.shows(Target::Tool(name), ToolState::Unseen, held.as_ref())
        };
        assert!(shows("read", None) && shows("note_add", None));
        assert!(!shows("note_wipe", None) && !shows("other", None));
        assert!(shows("read", Some("mcp r")) && !shows("read", Some("mcp")));
        assert!(!rules.shows(Target::Tool("read"), ToolState::Changed, None));
    }

    #[test]
    fn rules_that_cannot_be_told_apart_are_refused() {
        let tools = |list: &[&str]| Rule { tools: names(list), ..Rule::default() };
        let refused = |rules| Rules::new(Scopes::default(), rules).unwrap_err();
        assert!(matches!(refused(vec![Rule::default()]), RuleError::Empty(0)));
        assert!(matches!(refused(vec![tools(&["a"]), tools(&["a"])]), RuleError::Twice(0, 1, _)));
        assert!(matches!(refused(vec![tools(&["a*", "a*"])]), RuleError::Twice(0, 0, _)));
        assert!(matches!(refused(vec![tools(&["*"]), tools(&["*"])]), RuleError::Twice(0, 1, _)));
        assert!(matches!(refused(vec![tools(&["a*b"])]), RuleError::Pattern(0, _)));
        assert!(matches!(refused(vec![tools(&["**"])]), RuleError::Pattern(0, _)));
        assert!(matches!(refused(vec![tools(&[""])]), RuleError::Pattern(0, _)));
        let both = Rule { deny: true, scopes: scopes("a"), ..tools(&["a"]) };
        assert!(matches!(refused(vec![both]), RuleError::Contradiction(0)));
        let early = Rule { max_age: Some(-1), ..tools(&["a"]) };
        assert!(matches!(refused(vec![early]), RuleError::MaxAge(0)));
    }

    /// None of these is the normal form of a URI: a server may read each as a URI that a rule
    /// denies.
    const OTHER_SPELLINGS: &[&str] = &[
        "file:///d/%73ecret/key.txt",
        "file:///d/secre%74/key.txt",
        "file:///d//secret/key.txt",
        "file:///d/secret//key.txt/..",
        "file:////d/key.txt",
        "file:///d/key.txt?x",
        "file:///d/key.txt?",
        "file:///d/key.txt#x",
        "file:///d/key.txt#",
        "file:///d/key.txt/",
        "file:///d/folder//",
        "file:///d/key%2Etxt",
        "file:///d/key%2etxt",
        "file:///d/a%2Fb",
        "file:///d/a%2fb",
        "file:///d/a%5Cb",
        "file:///d/a%00",
        "file:///d/a%0A",
        "file:///d/a%7Fb",
        "file:///d/%2573ecret",
        "file:///d/a%3ab",
        "file:///d/a%3Ab",
        "file:///d/a%21",
        "file:///d/%c3%a9",
        "file:///d/\u{e9}",
        "file:///d/%FF",
        "file:///d/%C0%AE%C0%AE/x",
        "file:///d/%C2%85",
        "file:///d/a%",
        "file:///d/a%4",
        "file:///d/a%+f",
        "file:///d/a%zz",
        "file:///d/a|b",
        "file:///d/a^b",
        "file:///d/a b",
        "file:///d/a\tb",
        " file:///d/a",
        "file:///d/a\n",
        "file://user@localhost/d/a",
        "https://docs.example:443/b",
        "https://docs.example./b",
        "https://DOCS.example/b",
        "https://user@docs.example/b",
        "https://docs.example/b?v=2",
        "https://docs.example/a?v=%32",
        "https://docs.example/a?v=2&",
        "note://BOX/a",
        "note://box//a",
        "note://box/a/../b",
        "urn:X:a",
        "urn:x:a/../b",
    ];

    #[test]
    fn a_resource_has_one_name_that_rules_speak_of() {
        let of = |patterns: &[&str], deny: &[&str]| {
            let allow = Rule { resources: names(patterns), ..Rule::default() };
            let deny = Rule { resources: names(deny), deny: true, ..Rule::default() };
            let denies = !deny.resources.is_empty();
            let list = [Some(allow), denies.then_some(deny)].into_iter().flatten().collect();
            Rules::new(scopes(""), list).unwrap()
        };
        let judge = |rules: &Rules, uri: &str| {
            let none = scopes("");
            let caller = CallerFacts { scopes: &none, auth_time: None, acr: None };
            let outcome =
                rules.decide(&[Target::Resource(uri)], caller, |_| ToolState::Unseen, Timestamp(0));
            match outcome {
                Ok(_) => "allowed",
                Err(NotAllowed::Denied { .. }) => "denied",
                Err(_) => "no rule",
            }
        };
        let rules = of(
            &["file:///d/*", "https://docs.example/*", "note://box/*", "urn:x:*"],
            &[
                "file:///d/secret/*",
                "file:///d/key.txt",
                "file:///d/folder/",
                "https://docs.example/a?v=2",
            ],
        );
        for uri in [
            "file:///d/a",
            "file:///d/a%20b",
            "file:///d/%C3%A9",
            "file:///d/50%25",
            "file:///d/a!$&'()*+,;=:@b",
            "file:///d/a%23b",
            "file:///d/what%3F",
            "https://docs.example/b",
            "note://box/a",
            "urn:x:a",
        ] {
            assert_eq!(judge(&rules, uri), "allowed", "{uri}");
        }
        for uri in [
            "file:///d/secret/key.txt",
            "file:///d/key.txt",
            "file:///d/folder/",
            "https://docs.example/a?v=2",
        ] {
            assert_eq!(judge(&rules, uri), "denied", "{uri}");
        }
        for uri in OTHER_SPELLINGS {
            assert_eq!(judge(&rules, uri), "no rule", "{uri:?}");
        }
        // A pattern with a query matches queries; `*` matches everything only if it is the only
        // pattern.
        let rules = of(&["https://docs.example/a?v=*"], &[]);
        assert_eq!(judge(&rules, "https://docs.example/a?v=1"), "allowed");
        assert_eq!(judge(&of(&["*"], &[]), "file:///d/key.txt?x"), "allowed");
        assert_eq!(judge(&of(&["*"], &["file:///d/key.txt"]), "file:///d/key.txt?x"), "no rule");
        assert_eq!(judge(&of(&["*"], &["file:///d/key.txt"]), "file:///d/other"), "allowed");
    }
}
