//! What is said to people while work is done.

use std::fmt::Display;
use std::io::Write;

/// Says a line on stderr. That nobody can read it, as where a log's disk is full, stops no work: `eprintln!` would.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
