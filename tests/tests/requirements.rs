//! Every requirement has a text, a clause, and tests that exist or a reason why there are none.

use passavant_tests::requirements::{GROUPS, YAML, document, read};
use std::{collections::BTreeSet, path::Path};

/// The number of rules in each group, so that none is forgotten.
const COUNTS: [(&str, usize); 10] = [
    ("id-jag", 6),
    ("exchange", 16),
    ("redemption", 18),
    ("client", 11),
    ("server", 7),
    ("authorization", 11),
    ("operations", 5),
    ("upstream", 8),
    ("revocation", 3),
    ("signals", 7),
];

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
            sources(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "mjs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_requirement_names_tests_that_exist_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut code = String::new();
    sources(&root.join("crates"), &mut code);
    sources(&root.join("tests"), &mut code);
    let rules = read(YAML);
    let mut ids = BTreeSet::new();
    for rule in &rules {
        let id = &rule.id;
        assert!(ids.insert(id), "{id} is there twice");
        let slug = id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        assert!(slug && !rule.group().is_empty(), "{id} is in no group");
        assert!(rule.text.len() > 20 && rule.text.ends_with('.'), "{id} says nothing");
        assert!(rule.clause.len() > 5, "{id} names no clause");
        assert!(rule.tests.is_empty() != rule.reason.is_empty(), "{id}: tests, or a reason");
        assert!(rule.reason.is_empty() || rule.reason.len() > 20, "{id} gives no reason");
        for test in &rule.tests {
            match test.strip_prefix("interop: ") {
                Some(party) => assert!(
                    code.contains(&format!("row('{party}'"))
                        || code.contains(&format!("['{party}', "))
                        || code.contains(&format!("`{party} ")),
                    "{id}: no interop row of {party}"
                ),
                None => assert!(code.contains(&format!("fn {test}(")), "{id}: no test {test}"),
            }
        }
    }
    assert_eq!(COUNTS.map(|(group, _)| group), GROUPS.map(|(group, _)| group));
    for (group, count) in COUNTS {
        let found = rules.iter().filter(|rule| rule.group() == group).count();
        assert_eq!(found, count, "{group}: a rule is missing");
    }
}

#[test]
fn the_document_of_requirements_is_what_the_program_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let held = std::fs::read_to_string(root.join("docs/requirements.md")).unwrap();
    assert!(
        held == document(&read(YAML)),
        "cargo run -p passavant-tests --example requirements > docs/requirements.md"
    );
}
