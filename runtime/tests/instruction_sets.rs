//! Whole models on every instruction set of this machine: the reference's greedy ids, and the scalar kernels' bits.
//! Needs no command and nothing beside the repository, so it also runs where a processor is emulated.

use std::path::{Path, PathBuf};

use serde_json::Value;
use t5_runtime::kernels::{Isa, Kernels};
use t5_runtime::{GenerateOptions, Model, ModelOptions};

fn families() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families")
}

fn model(folder: &Path, isa: Isa) -> Model {
    Model::open_with(folder, &ModelOptions { isa: Some(isa), ..ModelOptions::default() }).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Greedy cases without processors: source, limits and expected ids.
fn cases(folder: &Path) -> Vec<(Vec<u32>, GenerateOptions, Vec<u32>)> {
    let text = std::fs::read_to_string(folder.join("golden.jsonl")).unwrap();
    let mut cases = Vec::new();
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        const KNOWN: [&str; 7] =
            ["kind", "input_ids", "max_new_tokens", "min_new_tokens", "ids", "logprobs", "min_margin"];
        let plain = case.as_object().unwrap().keys().all(|key| KNOWN.contains(&key.as_str()));
        if case["kind"] == "greedy" && plain {
            let count = |key: &str| case.get(key).map(|count| count.as_u64().unwrap() as usize);
            let options = GenerateOptions::default()
                .max_new_tokens(count("max_new_tokens").unwrap())
                .min_new_tokens(count("min_new_tokens").unwrap_or(0));
            cases.push((ids(&case["input_ids"]), options, ids(&case["ids"])));
        }
    }
    cases
}

#[test]
fn golden_ids_on_every_instruction_set() {
    // 1.0 and 1.1, an encoder shallower than the decoder, and widths that no vector divides.
    for name in ["t5-1.0", "t5-1.1", "shallow-encoder", "odd"] {
        let folder = families().join(name);
        let cases = cases(&folder);
        assert!(cases.len() >= 3, "{name}: {} cases", cases.len());
        let mut all = Vec::new();
        for kernels in Kernels::available() {
            let isa = kernels.isa().name();
            let mut session = model(&folder, kernels.isa()).session();
            let mut logprobs = Vec::new();
            for (source, options, expected) in &cases {
                let output = session.generate_ids(source, options).unwrap().finish().remove(0);
                assert_eq!(&output.ids, expected, "{name} on {isa}");
                logprobs.extend(output.logprobs.iter().map(|logprob| logprob.to_bits()));
            }
            all.push((isa, logprobs));
        }
        for (isa, logprobs) in &all {
            assert_eq!(logprobs, &all[0].1, "{name}: {isa} against {}", all[0].0);
        }
        let names: Vec<&str> = all.iter().map(|(isa, _)| *isa).collect();
        eprintln!("{name}: {} cases on {}", cases.len(), names.join(", "));
    }
}
