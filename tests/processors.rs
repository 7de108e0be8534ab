//! The rarer settings of generation_config.json against the transformers library, on the tiny checkpoints: greedily,
//! with beams in groups and without, and by drawing.

use t5_runtime::Model;
use t5_tests::families;
use t5_tests::golden::Golden;
use t5_tests::paths;

fn check(name: &str) {
    let model = Model::open(families::folder(name)).unwrap();
    for file in [name.to_owned(), format!("{name}-top-h")] {
        let golden = Golden::read(&paths::golden("processors").join(format!("{file}.jsonl")));
        assert!(golden.cases.len() >= 3, "{file}");
        families::check_values(&golden, &file, &model);
    }
}

#[test]
fn t5_1_0() {
    check("t5-1.0");
}

#[test]
fn odd_sizes() {
    check("odd");
}

#[test]
fn several_ends() {
    check("several-ends");
}
