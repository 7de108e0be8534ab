//! A program outside the workspace, built with settings that are not ours, gives the texts and the log-probabilities
//! that this process gives, which is built with ours. It prints its times, too: docs/architecture.md 4.1 has them
//! beside those of `t5 bench`.

use std::path::PathBuf;
use std::process::Command;

use t5_runtime::{GenerateOptions, Model};
use t5_tests::paths;

/// Builds `tests/outside` as its own manifest says.
fn build() -> PathBuf {
    let folder = paths::workspace().join("tests/outside");
    let target = paths::workspace().join("target/outside");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--release", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        // Flags that are meant for this process would make it another program.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join(format!("release/outside{}", std::env::consts::EXE_SUFFIX))
}

fn run(program: &PathBuf, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn a_program_with_other_settings_gives_the_same_texts() {
    let program = build();
    let printed = run(&program, &[]);
    let model = Model::pocket().unwrap();
    let mut session = model.session();
    let mut lines = 0;
    for line in printed.lines() {
        let [beams, request, text, score] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("expected four fields, found {line:?}");
        };
        let options = GenerateOptions::default().beams(beams.parse().unwrap());
        let best = session.generate(request, &options).unwrap().finish().swap_remove(0);
        assert_eq!((text, score), (&*best.text, &*format!("{:08x}", best.score.to_bits())), "{request:?}");
        lines += 1;
    }
    assert_eq!(lines, 8);
    println!("{}", run(&program, &["time"]));
}
