//! `include/pocket_t5.h` is what cbindgen makes of `src`. After a change here, write it anew:
//!
//!     POCKET_T5_WRITE=1 cargo test -p t5-capi --test header

use std::path::Path;

const MODULES: [&str; 10] =
    ["border", "memory", "model", "session", "cancel", "options", "results", "generate", "embed", "tokens"];

#[test]
fn the_header_is_that_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    // By the source alone: no cargo metadata, which would ask for the whole workspace.
    let mut builder = cbindgen::Builder::new().with_config(config);
    // In the order in which a reader wants it.
    for module in MODULES {
        builder = builder.with_src(root.join(format!("src/{module}.rs")));
    }
    // None is left out.
    let library = std::fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let declared = library.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    assert_eq!(declared.collect::<std::collections::BTreeSet<_>>(), MODULES.into_iter().collect());
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = root.join("include/pocket_t5.h");
    if std::env::var_os("POCKET_T5_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    for (line, (made, committed)) in made.lines().zip(committed.lines()).enumerate() {
        assert_eq!(committed, made, "line {}: see the head of this test", line + 1);
    }
    assert_eq!(committed.len(), made.len(), "see the head of this test");
}
