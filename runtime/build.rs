//! What `t5 --version` says of a build: the target, and in releases the commit.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=POCKET_T5_COMMIT");
    let target = std::env::var("TARGET").unwrap_or_default();
    let build = match std::env::var("POCKET_T5_COMMIT").ok().or_else(commit) {
        Some(commit) => format!("{commit}, {target}"),
        None => target,
    };
    println!("cargo::rustc-env=POCKET_T5_BUILD={build}");
}

/// The commit of the checkout. Not where nobody asks for it, nor in debug builds: they would be made anew at each
/// commit.
fn commit() -> Option<String> {
    if std::env::var_os("CARGO_FEATURE_CLI").is_none() || std::env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    // A crate that was unpacked inside somebody else's repository is none of its commits.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for file in ["HEAD", "logs/HEAD"] {
        println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", file])?);
    }
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    git(&["rev-parse", "--short=10", "HEAD"]).map(|commit| if changed { commit + " with changes" } else { commit })
}
