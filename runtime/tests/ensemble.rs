//! Models that decode as one: what is chosen follows the mean of what each predicts, whatever the search.

#[path = "common/command.rs"]
#[cfg(feature = "cli")]
mod command;

use std::path::{Path, PathBuf};

use t5_runtime::kernels::Kernels;
use t5_runtime::{
    Batch, BatchEvent, EncodeOptions, GenerateOptions, LengthPenalty, Lookup, Mean, Model, ModelOptions, Output,
    Session,
};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram")
}

/// The fixture with other values: `seed` moves every weight by up to a quarter of itself.
fn other(folder: &Path, seed: u32) -> PathBuf {
    let to = folder.join(format!("other-{seed}"));
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    let weights = to.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut state = seed;
    // F16: eight of the ten bits behind the point.
    for value in bytes[8 + header..].chunks_exact_mut(2) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value[0] ^= (state >> 24) as u8;
    }
    std::fs::write(weights, bytes).unwrap();
    to
}

struct Pair {
    models: [Model; 2],
    _folder: tempfile::TempDir,
    #[allow(dead_code)] // for the command
    paths: [PathBuf; 2],
}

fn pair() -> Pair {
    let folder = tempfile::tempdir().unwrap();
    let paths = [fixture(), other(folder.path(), 5)];
    let models = [0, 1].map(|index| Model::open(&paths[index]).unwrap());
    Pair { models, _folder: folder, paths }
}

fn together(models: &[Model], mean: Mean) -> Model {
    Model::ensemble(models.to_vec(), mean).unwrap()
}

const TEXT: &str = "The old house is on the hill";

fn bits(outputs: &[Output]) -> Vec<(String, Vec<u32>, Vec<u32>)> {
    let logprobs = |output: &Output| output.logprobs.iter().map(|logprob| logprob.to_bits()).collect();
    outputs.iter().map(|output| (output.text.clone(), output.ids.clone(), logprobs(output))).collect()
}

fn alone(session: &mut Session, text: &str, options: &GenerateOptions) -> Vec<Output> {
    session.generate(text, options).unwrap().finish()
}

/// The logits behind the start token and each of three tokens.
fn logits(model: &Model, source: &[u32], tokens: [u32; 3]) -> Vec<Vec<f32>> {
    let mut session = model.session();
    let mut steps = session.start(source).unwrap();
    let mut all = vec![steps.logits().to_vec()];
    for token in tokens {
        steps.push(token).unwrap();
        all.push(steps.logits().to_vec());
    }
    all
}

#[test]
fn three_tokens_by_hand() {
    let pair = pair();
    let source = pair.models[0].tokenizer().unwrap().encode(TEXT);
    let tokens = [17, 40, 9];
    let [ours, theirs] = [0, 1].map(|index| logits(&pair.models[index], &source, tokens));
    assert_ne!(ours, theirs);
    let mean = logits(&together(&pair.models, Mean::Logits), &source, tokens);
    let probabilities = logits(&together(&pair.models, Mean::Probabilities), &source, tokens);
    for step in 0..4 {
        let softmax = |row: &[f32]| {
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            row.iter().map(|&logit| f64::from(logit).exp() / sum).collect::<Vec<f64>>()
        };
        let (p, q, r) = (softmax(&ours[step]), softmax(&theirs[step]), softmax(&probabilities[step]));
        for id in 0..ours[step].len() {
            assert_eq!(mean[step][id], (ours[step][id] + theirs[step][id]) / 2.0, "step {step}, id {id}");
            // Of logits that are logarithms of probabilities: a few units in the last place of numbers up to 20.
            let by_hand = (0.5 * (p[id] + q[id])).ln();
            assert!((f64::from(probabilities[step][id]) - by_hand).abs() < 1e-5, "step {step}, id {id}");
            assert!((r[id] - 0.5 * (p[id] + q[id])).abs() < 1e-6, "step {step}, id {id}");
        }
    }
}

#[test]
fn one_model_alone_is_that_model() {
    let pair = pair();
    let [model, _] = &pair.models;
    let twice = [model.clone(), model.clone()];
    for options in [
        GenerateOptions::default().max_new_tokens(20).min_new_tokens(20),
        GenerateOptions::default().max_new_tokens(20).logprobs(false),
        GenerateOptions::default().max_new_tokens(20).beams(4).n_best(3),
        GenerateOptions::default().max_new_tokens(20).temperature(0.8).top_k(20).seed(3).n_best(2),
    ] {
        let expected = bits(&alone(&mut model.session(), TEXT, &options));
        for mean in [Mean::Logits, Mean::Probabilities] {
            let one = together(&pair.models[..1], mean);
            assert_eq!((one.members(), together(&twice, mean).members()), (1, 2));
            assert_eq!(bits(&alone(&mut one.session(), TEXT, &options)), expected);
        }
        // Half of twice a logit is that logit.
        assert_eq!(bits(&alone(&mut together(&twice, Mean::Logits).session(), TEXT, &options)), expected);
    }
}

#[test]
fn searches_follow_the_mean() {
    let pair = pair();
    for mean in [Mean::Logits, Mean::Probabilities] {
        let model = together(&pair.models, mean);
        let source = model.tokenizer().unwrap().encode(TEXT);
        let mut session = model.session();
        // Greedy search by hand.
        let mut steps = session.start(&source).unwrap();
        while steps.tokens().len() < 12 && steps.tokens().last() != Some(&1) {
            let best = steps.logits().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            let best = best.unwrap().0 as u32;
            steps.push(best).unwrap();
        }
        let by_hand = steps.tokens().to_vec();
        let greedy = GenerateOptions::default().max_new_tokens(12);
        for options in [greedy.clone(), greedy.clone().logprobs(false), greedy.clone().lookup(Lookup::On)] {
            assert_eq!(alone(&mut session, TEXT, &options)[0].ids, by_hand, "{mean:?}");
        }
        let singles = [0, 1].map(|index| alone(&mut pair.models[index].session(), TEXT, &greedy)[0].ids.clone());
        assert!(singles.iter().any(|ids| *ids != by_hand), "the models differ");
        // What beams say of their sequences is what scoring says of them.
        let beams = greedy.clone().min_new_tokens(6).beams(3).n_best(3);
        let beams = beams.length_penalty(LengthPenalty::HuggingFace { exponent: 0.0 });
        for output in alone(&mut session, TEXT, &beams) {
            let score = session.score_ids(&source, &output.ids).unwrap();
            assert!((score.sum - output.score).abs() < 1e-4, "{mean:?}: {} {}", score.sum, output.score);
        }
    }
}

#[test]
fn batches_and_threads_change_nothing() {
    let pair = pair();
    let model = together(&pair.models, Mean::Logits);
    let texts = [TEXT, "a hill", "The house on the hill. Is it old? The old house is on the hill and it is old."];
    let options = [
        GenerateOptions::default().max_new_tokens(15).min_new_tokens(4),
        GenerateOptions::default().max_new_tokens(9).beams(4).n_best(2),
        GenerateOptions::default().max_new_tokens(11).temperature(0.9).seed(4).n_best(3),
    ];
    let mut session = model.session();
    let mut expected = Vec::new();
    for options in &options {
        let singles: Vec<_> = texts.iter().map(|text| bits(&alone(&mut session, text, options))).collect();
        let mut threads = model.session();
        threads.set_threads(2);
        let batch = threads.generate_batch(&texts, options).unwrap();
        assert_eq!(batch.iter().map(|outputs| bits(outputs)).collect::<Vec<_>>(), singles);
        expected.extend(singles);
    }
    let mut batch = Batch::new(model.session(), 6).unwrap();
    let mut next = options.iter().flat_map(|options| texts.iter().map(move |text| (text, options)));
    let mut found = vec![Vec::new(); expected.len()];
    loop {
        if let Some((text, options)) = next.next() {
            batch.add(text, options).unwrap();
        } else if batch.is_empty() {
            break;
        }
        for event in batch.step() {
            if let BatchEvent::Done { id, outputs } = event {
                found[id as usize] = bits(&outputs);
            }
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn instruction_sets_give_the_same_bits() {
    let pair = pair();
    for mean in [Mean::Logits, Mean::Probabilities] {
        let mut all = Vec::new();
        for kernels in Kernels::available() {
            let options = ModelOptions { isa: Some(kernels.isa()), ..ModelOptions::default() };
            let models = pair.paths.iter().map(|path| Model::open_with(path, &options).unwrap()).collect();
            let model = Model::ensemble(models, mean).unwrap();
            let options = GenerateOptions::default().max_new_tokens(16).min_new_tokens(16).beams(2);
            all.push(bits(&alone(&mut model.session(), TEXT, &options)));
        }
        assert!(all.iter().all(|found| *found == all[0]), "{mean:?}");
    }
}

#[test]
fn what_cannot_be_one_is_refused() {
    let pair = pair();
    let message = |models: Vec<Model>| Model::ensemble(models, Mean::Logits).unwrap_err().to_string();
    assert_eq!(message(Vec::new()), "models: expected one model or more, found none");
    let another = Model::open(fixture().with_file_name("t5-1.0")).unwrap();
    let found = message(vec![pair.models[0].clone(), another]);
    assert!(found.starts_with("models: expected one vocabulary of ") && found.contains("t5-1.0"), "{found}");
    let model = together(&pair.models, Mean::Logits);
    let found = message(vec![model.clone(), pair.models[0].clone()]);
    assert_eq!(found, "models: expected one model for an ensemble of single models, found an ensemble of 2");
    let mut session = model.session();
    let source = model.tokenizer().unwrap().encode(TEXT);
    let failures = [
        session.encode_ids(&source).unwrap_err().to_string(),
        session.embed(TEXT).unwrap_err().to_string(),
        session.alignment_ids(&source, &[5, 1]).unwrap_err().to_string(),
        model.session().into_encoding(&[], &EncodeOptions::default()).map(|_| ()).unwrap_err().to_string(),
    ];
    for failure in failures {
        assert!(failure.contains("found an ensemble of 2"), "{failure}");
    }
}

#[cfg(feature = "cli")]
mod cli {
    use super::*;

    fn run(arguments: &[&str]) -> (String, String, Option<i32>) {
        let output = command::t5(arguments, b"");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    }

    #[test]
    fn several_models_are_named_one_after_the_other() {
        let pair = pair();
        let [ours, theirs] = pair.paths.each_ref().map(|path| path.to_str().unwrap());
        let options = ["--max-new-tokens", "12", TEXT];
        for (average, mean) in [("logits", Mean::Logits), ("probabilities", Mean::Probabilities)] {
            let arguments = ["generate", "--model", ours, "--model", theirs, "--average", average];
            let (text, errors, code) = run(&[&arguments[..], &options[..]].concat());
            assert_eq!(code, Some(0), "{errors}");
            let model = together(&pair.models, mean);
            let expected = &alone(&mut model.session(), TEXT, &GenerateOptions::default().max_new_tokens(12))[0].text;
            assert_eq!(text.trim_end_matches('\n'), expected);
        }
        let (text, errors, code) = run(&["tokenize", "--model", ours, "--model", theirs, TEXT]);
        assert_eq!((text.as_str(), code), ("", Some(2)));
        assert!(errors.contains("--model: expected one model for this, found 2"), "{errors}");
        let packed = ["generate", "--model", ours, "--model", theirs, "--packed", "/nowhere/packed", TEXT];
        let (_, errors, code) = run(&packed);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains("--packed: expected one --model with it, found 2"), "{errors}");
        let (_, errors, code) = run(&["generate", "--model", ours, "--average", "probabilities", TEXT]);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains("--average: expected two --model or more with it, found 1"), "{errors}");
    }
}
