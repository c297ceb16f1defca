//! Parses `docs/requirements.yaml`, and makes `docs/requirements.md` from it.

/// All rules, each with its clause, and its tests or the reason why it has none.
pub const YAML: &str = include_str!("../../docs/requirements.yaml");

/// The groups: the prefix of their rules' ids, and their headings.
pub const GROUPS: [(&str, &str); 10] = [
    ("id-jag", "The ID-JAG"),
    ("exchange", "Token exchange at the identity provider"),
    ("redemption", "Redemption at the resource authorization server"),
    ("client", "Client"),
    ("server", "MCP server"),
    ("authorization", "Authorization servers in general"),
    ("operations", "Privacy and operations"),
    ("upstream", "Sign-in at an upstream"),
    ("revocation", "Access that ends between parties"),
    ("signals", "Shared signals"),
];

/// One rule. It has either tests or a reason.
#[derive(Debug, Default)]
pub struct Rule {
    pub id: String,
    pub text: String,
    pub clause: String,
    pub tests: Vec<String>,
    pub reason: String,
}

impl Rule {
    /// The prefix of its group; empty if it is in none.
    pub fn group(&self) -> &'static str {
        for (group, _) in GROUPS {
            if self.id.strip_prefix(group).is_some_and(|rest| rest.starts_with('-')) {
                return group;
            }
        }
        ""
    }
}

/// Parses the rules: an id on a line of its own, followed by `text`, `clause`, and `tests` or
/// `reason`, each on one line.
pub fn read(yaml: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in yaml.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some((key, value)) = line.strip_prefix("  ").and_then(|line| line.split_once(": "))
        else {
            let id = line.strip_suffix(':').unwrap_or_else(|| panic!("no id: {line}"));
            rules.push(Rule { id: id.to_owned(), ..Rule::default() });
            continue;
        };
        let rule = rules.last_mut().unwrap_or_else(|| panic!("before the first id: {line}"));
        let field = match key {
            "text" => &mut rule.text,
            "clause" => &mut rule.clause,
            "reason" => &mut rule.reason,
            "tests" => {
                assert!(rule.tests.is_empty(), "{}: tests twice", rule.id);
                rule.tests = names(value);
                continue;
            }
            _ => panic!("{}: unknown key {key}", rule.id),
        };
        assert!(field.is_empty(), "{}: {key} twice", rule.id);
        *field = quoted(value);
    }
    rules
}

fn quoted(value: &str) -> String {
    let text = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = text.unwrap_or_else(|| panic!("not in quotes: {value}"));
    assert!(!text.contains(['"', '\\', '|']), "a character that needs care: {text}");
    text.to_owned()
}

fn names(value: &str) -> Vec<String> {
    let list = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let list = list.unwrap_or_else(|| panic!("not a list: {value}"));
    list.split(", ").map(|name| name.trim_matches('"').to_owned()).collect()
}

/// `docs/requirements.md`.
pub fn document(rules: &[Rule]) -> String {
    let mut text = INTRODUCTION.to_owned();
    for (group, heading) in GROUPS {
        text += &format!(
            "\n## {heading}\n\n| rule | what it says | clause | tests, or why there are none |\n"
        );
        text += "|---|---|---|---|\n";
        for rule in rules.iter().filter(|rule| rule.group() == group) {
            let kept: Vec<_> = rule.tests.iter().map(|test| shown(test)).collect();
            let kept = if kept.is_empty() { rule.reason.clone() } else { kept.join(", ") };
            text += &format!("| `{}` | {} | {} | {kept} |\n", rule.id, rule.text, rule.clause);
        }
    }
    text
}

fn shown(test: &str) -> String {
    if test.starts_with("interop: ") { test.to_owned() } else { format!("`{test}`") }
}

const INTRODUCTION: &str = "# Requirements\n\n\
<!-- Made by `cargo run -p passavant-tests --example requirements > docs/requirements.md`; a test compares. -->\n\n\
The rules of the protocols that Passavant obeys, in our words, each with the public clause it comes from and the tests\n\
that pin it, or the reason why none does. They are kept in `requirements.yaml`. \"ID-JAG draft\" is\n\
draft-ietf-oauth-identity-assertion-authz-grant: the text of its editors of August 2026, or the revision that is named.\n\
\"MCP Enterprise-Managed Authorization\" is the MCP extension `io.modelcontextprotocol/enterprise-managed-authorization`.\n";
