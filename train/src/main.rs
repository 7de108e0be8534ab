//! The `t5-train` command.

fn main() {}
