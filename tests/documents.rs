//! The documents and the code agree: what is cited exists, links lead somewhere, and lines can be read side by side.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use t5_tests::paths;

/// What is not ours to read: built, downloaded, or made by a program.
const SKIPPED: [&str; 7] = ["target", "node_modules", "dist", "golden", "wasm-bindgen", "record", "shared"];

/// Files below `folder` with one of these endings, hidden ones left out.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry of a folder").path();
        let name = path.file_name().expect("entries have names").to_string_lossy().into_owned();
        // web/wasm is built by wasm/build.
        if name.starts_with('.') || SKIPPED.contains(&&*name) || path.ends_with("web/wasm") {
            continue;
        }
        if path.is_dir() {
            files(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

fn texts(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(paths::workspace(), endings, &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, text)
    };
    found.into_iter().map(read).collect()
}

/// The numbers of a document's headings: `## 1. Model` and `### 1.2 Position bias`.
fn headings(document: &str) -> HashSet<&str> {
    let lines = document.lines().filter_map(|line| line.strip_prefix("##"));
    lines
        .filter_map(|line| Some(line.trim_start_matches('#').split_whitespace().next()?.trim_end_matches('.')))
        .collect()
}

/// A section's number at the start of a text: `1.2` of `1.2).`
fn number(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some(text[..end].trim_end_matches('.')).filter(|number| !number.is_empty())
}

/// The sections that a citation names after the document: `1, 7 and 8`.
fn cited(mut text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.strip_prefix(' ');
    while let Some(section) = rest.and_then(number) {
        found.push(section);
        text = &rest.expect("it held a number")[section.len()..];
        rest = [", ", " and ", " to "].iter().find_map(|between| text.strip_prefix(between));
    }
    found
}

#[test]
fn sections_that_the_code_cites_exist() {
    let mut citations = 0;
    for (path, text) in texts(&[".rs", ".toml", ".ts", ".mjs", ".py", ".sh", ".md"]) {
        for (at, _) in text.match_indices("docs/") {
            let Some((name, after)) = text[at..].split_once(".md") else { continue };
            let sections = cited(after);
            // In documents also links, which have a test of their own.
            if name.contains(char::is_whitespace) || sections.is_empty() && path.extension().is_some_and(|e| e == "md")
            {
                continue;
            }
            let document = paths::workspace().join(format!("{name}.md"));
            let place = format!("{}: {name}.md", path.display());
            let document = fs::read_to_string(&document).unwrap_or_else(|error| panic!("{place}: {error}"));
            let known = headings(&document);
            for section in sections {
                citations += 1;
                assert!(known.contains(section), "{place} has no section {section}");
            }
        }
    }
    // The reading above finds them: there were 32 when it was written.
    assert!(citations >= 25, "found {citations} citations");
}

#[test]
fn citations_are_read_as_written() {
    assert_eq!(cited(" 1.2)."), ["1.2"]);
    assert_eq!(cited(" 1, 7 and 8) that"), ["1", "7", "8"]);
    assert_eq!(cited(" 8, items 12 to 19"), ["8"]);
    assert_eq!(cited(" 6.1. Then"), ["6.1"]);
    assert!(cited(" says 3").is_empty());
    assert_eq!(headings("# T\n## 1. A\n### 1.2 B\ntext 3.4\n"), HashSet::from(["1", "1.2"]));
}

#[test]
fn links_in_documents_lead_to_files() {
    let mut links = 0;
    for (path, text) in texts(&[".md"]) {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().expect("split gives a first part");
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            links += 1;
            let file = target.split('#').next().expect("split gives a first part");
            let file = path.parent().expect("files lie in folders").join(file);
            assert!(file.exists(), "{}: a link leads to {target}, which is not there", path.display());
        }
    }
    assert!(links >= 10, "found {links} links");
}

/// Columns of a line at most, as rustfmt.toml has it, which leaves comments and strings alone.
const WIDTH: usize = 120;

/// Whether a line may be wider: rows of tables, addresses, and words that are as long themselves.
fn may_be_wide(line: &str) -> bool {
    let text = line.trim_start_matches([' ', '/', '!', '*', '#']);
    text.starts_with('|') || line.contains("://") || line.split_whitespace().any(|word| word.chars().count() > 100)
}

#[test]
fn lines_are_no_wider_than_the_style_says() {
    let mut wide = Vec::new();
    for (path, text) in texts(&[".rs", ".ts", ".mjs", ".js", ".py", ".sh", ".md"]) {
        for (line, number) in text.lines().zip(1..) {
            if line.chars().count() > WIDTH && !may_be_wide(line) {
                wide.push(format!("{}:{number}: {} columns", path.display(), line.chars().count()));
            }
        }
    }
    assert!(wide.is_empty(), "expected at most {WIDTH} columns, found\n{}", wide.join("\n"));
}

/// The names that a source folder's files and folders give to modules.
fn modules(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(paths::workspace().join(folder)).expect("a folder of the workspace");
    let names = entries.map(|entry| entry.expect("an entry of a folder").path());
    let names = names.map(|path| path.file_stem().expect("entries have names").to_string_lossy().into_owned());
    names.filter(|name| !["lib", "main", "testing"].contains(&&**name)).collect()
}

#[test]
fn the_architecture_names_every_module() {
    let path = paths::workspace().join("docs/architecture.md");
    let document = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let words: HashSet<&str> = document.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    for folder in ["runtime/src", "train/src"] {
        let modules = modules(folder);
        assert!(modules.len() >= 20, "found {modules:?} in {folder}");
        let missing: Vec<&String> = modules.iter().filter(|name| !words.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "docs/architecture.md does not say what these of {folder} are: {missing:?}");
    }
}
