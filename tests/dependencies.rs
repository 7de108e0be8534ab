//! What the runtime may depend on: no training framework, and nothing of the command where a library is asked for.

use std::process::Command;

use t5_tests::paths;

/// Names of the packages that `t5-runtime` is built from, for this machine.
fn tree(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "t5-runtime", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}"])
        .args(arguments)
        .current_dir(paths::workspace())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn has(tree: &[String], name: &str) -> bool {
    tree.iter().any(|package| package == name)
}

#[test]
fn the_runtime_knows_no_training_framework() {
    let tree = tree(&[]);
    // The list is what it should be: the package itself, something direct, something of the command.
    for expected in ["t5-runtime", "half", "clap"] {
        assert!(has(&tree, expected), "{expected} is missing from {tree:?}");
    }
    for package in &tree {
        let forbidden = ["candle", "tch", "burn", "ort", "t5-quantize", "t5-train"];
        let found = forbidden.iter().find(|name| package == *name || package.starts_with(&format!("{name}-")));
        assert!(found.is_none(), "t5-runtime depends on {package}");
    }
}

#[test]
fn the_library_leaves_the_command_out() {
    let tree = tree(&["--no-default-features"]);
    assert!(has(&tree, "half"), "{tree:?}");
    for command in ["clap", "anyhow", "indicatif", "hf-hub", "ureq"] {
        assert!(!has(&tree, command), "the library alone depends on {command}");
    }
}
