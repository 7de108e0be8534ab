//! The command as tests run it; apart from what other tests share, which are built without it, too.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// `t5` with these arguments and this standard input.
pub fn t5(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_t5"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}
