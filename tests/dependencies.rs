//! What each crate may depend on (docs/architecture.md 1): the runtime on no training framework, and on nothing of the
//! command where a library is asked for; the quantiser and the browser's module on no trainer.

use std::process::Command;

use t5_tests::paths;

/// Names of the packages that a package is built from, for this machine.
fn tree(package: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none"])
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
    let tree = tree("t5-runtime", &[]);
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
    let tree = tree("t5-runtime", &["--no-default-features"]);
    assert!(has(&tree, "half"), "{tree:?}");
    for command in ["clap", "anyhow", "indicatif", "hf-hub", "ureq", "axum", "tokio", "hyper", "tracing"] {
        assert!(!has(&tree, command), "the library alone depends on {command}");
    }
    // The server is asked for by name.
    let command = self::tree("t5-runtime", &[]);
    assert!(["axum", "tokio", "hyper"].iter().all(|server| !has(&command, server)), "{command:?}");
    assert!(has(&self::tree("t5-runtime", &["--features", "serve"]), "axum"));
    // Of the reference tokenizer the library needs the reader of character maps, which is a crate of its own.
    assert!(has(&tree, "spm_precompiled") && !has(&tree, "tokenizers"), "{tree:?}");
}

#[test]
fn crates_know_those_below_them() {
    for (package, arguments, expected, forbidden) in [
        ("t5-quantize", &[][..], "t5-runtime", ["t5-tests", "t5-train", "t5-wasm"]),
        // Of candle the command has the reader of pickles; what goes into other programs has not.
        ("t5-quantize", &["--no-default-features"], "t5-runtime", ["candle-core", "zip", "clap"]),
        ("t5-wasm", &[], "t5-quantize", ["candle-core", "t5-train", "clap"]),
        ("t5-capi", &[], "t5-runtime", ["t5-quantize", "anyhow", "clap"]),
        // The trainer reads pickles as the quantiser does, and measures what storing costs.
        ("t5-train", &[], "t5-quantize", ["t5-tests", "t5-wasm", "hf-hub"]),
    ] {
        let tree = tree(package, arguments);
        assert!(has(&tree, expected), "{expected} is missing from {tree:?}");
        let found = forbidden.iter().find(|name| has(&tree, name));
        assert!(found.is_none(), "{package} depends on {}", found.unwrap_or(&""));
    }
}
