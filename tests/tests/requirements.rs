//! Every requirement is pinned by a test that exists, or says why it is not.

use std::{collections::BTreeMap, path::Path};

/// How many rules there are in each group, so that none is left out.
const GROUPS: [(&str, usize); 11] = [
    ("JAG-T", 6),
    ("JAG-X", 15),
    ("EMA-X", 1),
    ("JAG-R", 13),
    ("EMA-R", 1),
    ("JAG-C", 5),
    ("MCP-C", 4),
    ("EMA-C", 2),
    ("MCP-S", 6),
    ("MCP-A", 4),
    ("EMA-O", 3),
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
    let yaml = std::fs::read_to_string(root.join("docs/requirements.yaml")).unwrap();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for line in yaml.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (id, rest) = line.split_once(": {").unwrap_or_else(|| panic!("not a rule: {line}"));
        let group = id.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        *found.entry(group).or_default() += 1;
        if let Some(reason) = rest.trim().strip_prefix("reason: \"") {
            assert!(reason.len() > 20, "{id} gives no reason");
            continue;
        }
        let tests = rest.split_once('[').and_then(|(_, list)| list.split_once(']')).unwrap().0;
        assert!(!tests.trim().is_empty(), "{id} names no test");
        for test in tests.split(',').map(|test| test.trim().trim_matches('"')) {
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
    for (group, count) in GROUPS {
        assert_eq!(found.get(group).copied().unwrap_or(0), count, "{group}: a rule is missing");
    }
}
