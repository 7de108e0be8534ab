//! The keys of the objects that the command prints, as docs/json.md names them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// An object has the keys that the document's section names, and no others.
#[track_caller]
pub fn check(section: &str, object: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let document = std::fs::read_to_string(path).unwrap();
    let heading = format!("## {section}\n");
    let (_, text) = document.split_once(&heading).unwrap_or_else(|| panic!("docs/json.md has no section {section}"));
    let text = text.split("\n## ").next().unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<&str> = cells.flat_map(|cell| cell.trim_end_matches('`').split("`, `")).collect();
    let found: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, documented, "{section}");
}
