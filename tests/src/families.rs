//! The tiny checkpoints under golden/families, and the checks of their values: exact ids, bounded numbers.

use std::path::PathBuf;

use t5_runtime::{Finish, GenerateOptions, Lookup, Model, Overrides, Session};

use crate::golden::{Case, Golden, Report, floats, ids};
use crate::paths;

/// How far values of the tiny families may be off. The library's float32 itself is up to 3.5e-5 from float64 on these
/// models (the header of each file says how far), and sums in another order err as much again. Margins of the goldens
/// are above 2e-3, so within this bound no choice can change.
const TOLERANCE: f32 = 1e-4;

/// Draws of each sampling case.
const DRAWS: usize = 1024;

/// The families: the names of their folders, sorted.
pub fn names() -> Vec<String> {
    let folders = std::fs::read_dir(paths::golden("families")).expect("golden/families");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    let mut names: Vec<String> = folders.map(|entry| name(entry).expect("a name")).collect();
    names.sort();
    names
}

/// The checkpoint of a family.
pub fn folder(name: &str) -> PathBuf {
    paths::golden("families").join(name)
}

/// Its golden values.
pub fn golden(name: &str) -> Golden {
    Golden::read(&folder(name).join("golden.jsonl"))
}

/// Checks every case of a family. Panics with all that is off; `label` says in messages how the model was stored.
pub fn check(family: &str, label: &str, model: &Model) {
    check_values(&golden(family), &format!("{family} {label}"), model);
}

/// Checks every case of `golden`. Panics with all that is off, under `name`.
pub fn check_values(golden: &Golden, name: &str, model: &Model) {
    let mut session = model.session();
    let mut report = Report::default();
    for case in &golden.cases {
        let place = format!("{name}, line {} ({})", case.line, case.kind());
        match case.kind() {
            "encode" => encode(&mut session, case, &place, &mut report),
            "greedy" => greedy(&mut session, case, &place, &mut report),
            "batch" => batch(&mut session, case, &place, &mut report),
            "beam" | "gnmt_beam" => beam(&mut session, case, case.options(), &place, &mut report),
            "defaults" => {
                let options = model.options(&Overrides::default()).unwrap();
                let beams = options.beams;
                let options = options.n_best(beams);
                beam(&mut session, case, options, &place, &mut report);
            }
            "score" => score(&mut session, case, &place, &mut report),
            "alignment" => alignment(&mut session, case, &place, &mut report),
            "distribution" => distribution(&mut session, case, &place, &mut report),
            "tokenize" => tokenize(model, case, &place, &mut report),
            "text" => text(&mut session, case, &place, &mut report),
            kind => panic!("{place}: no check for {kind}"),
        }
    }
    if model.config().is_encoder_only() {
        let refused = session.generate_ids(&[3, 1], &GenerateOptions::default()).err().map(|error| error.to_string());
        report.equal(name, &refused.is_some_and(|text| text.contains("encoder only")), &true);
    }
    report.finish(name);
}

fn encode(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let source = case.ids("input_ids");
    let d = session.model().config().d_model;
    let states = session.encode_ids(&source).unwrap().to_vec();
    report.equal(place, &states.len(), &(source.len() * d));
    report.close("encoder", place, &states[..d], &case.floats("first"), TOLERANCE);
    report.close("encoder", place, &states[states.len() - d..], &case.floats("last"), TOLERANCE);
    let square: f64 = states.iter().map(|&x| f64::from(x).powi(2)).sum();
    let rms = (square / states.len() as f64).sqrt() as f32;
    report.close("encoder", place, &[rms], &[case.number("rms")], TOLERANCE);
    let mean = session.embed_ids(&source).unwrap();
    report.close("embedding", place, &mean, &case.floats("mean"), TOLERANCE);
}

fn greedy(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let outputs = session.generate_ids(&case.ids("input_ids"), &case.options()).unwrap().finish();
    report.equal(place, &outputs.len(), &1);
    report.equal(place, &outputs[0].ids, &case.ids("ids"));
    report.close("greedy", place, &outputs[0].logprobs, &case.floats("logprobs"), TOLERANCE);
    // Another way to the same tokens.
    let without = case.options().logprobs(false);
    let fewer = session.generate_ids(&case.ids("input_ids"), &without).unwrap().finish();
    report.equal(place, &fewer[0].ids, &case.ids("ids"));
    let ahead = case.options().lookup(Lookup::On);
    let ahead = session.generate_ids(&case.ids("input_ids"), &ahead).unwrap().finish();
    report.equal(&format!("{place}, looked up"), &ahead, &outputs);
}

/// The reference pads and masks; ours is ragged. Both must give what each input gives alone, ours to the last bit.
fn batch(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let sources: Vec<Vec<u32>> = case.get("input_ids").as_array().unwrap().iter().map(ids).collect();
    let sources: Vec<&[u32]> = sources.iter().map(Vec::as_slice).collect();
    let options = case.options();
    let batch = session.generate_batch_ids(&sources, &options).unwrap();
    report.equal(place, &batch.len(), &sources.len());
    for (row, outputs) in batch.iter().enumerate() {
        report.equal(place, &outputs[0].ids, &ids(&case.get("ids")[row]));
        report.close("batch", place, &outputs[0].logprobs, &floats(&case.get("logprobs")[row]), TOLERANCE);
        let alone = session.generate_ids(sources[row], &options).unwrap().finish();
        report.equal(place, outputs, &alone);
    }
    let options = options.beams(3).n_best(3);
    let batch = session.generate_batch_ids(&sources, &options).unwrap();
    for (row, outputs) in batch.iter().enumerate() {
        let alone = session.generate_ids(sources[row], &options).unwrap().finish();
        report.equal(&format!("{place}, beams"), outputs, &alone);
    }
}

fn beam(session: &mut Session, case: &Case, options: GenerateOptions, place: &str, report: &mut Report) {
    let outputs = session.generate_ids(&case.ids("input_ids"), &options).unwrap().finish();
    let expected = case.n_best();
    let found: Vec<_> = outputs.iter().map(|output| output.ids.clone()).collect();
    report.equal(place, &found, &expected.iter().map(|(ids, _)| ids.clone()).collect());
    // A length penalty may divide by less than one: scores then grow with the length, and errors with them.
    for (output, (_, score)) in outputs.iter().zip(&expected) {
        let scale = score.abs().max(1.0);
        report.close("beam score", place, &[output.score / scale], &[score / scale], TOLERANCE);
    }
    if case.has("finished") {
        let ended = outputs[0].finish == Finish::EndOfSequence;
        report.equal(place, &ended, &case.get("finished").as_bool().unwrap());
    }
}

fn score(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let target = case.ids("target_ids");
    let score = session.score_ids(&case.ids("input_ids"), &target).unwrap();
    let expected = case.floats("logprobs");
    report.equal(place, &score.ids, &target);
    report.close("score", place, &score.logprobs, &expected, TOLERANCE);
    let sum: f32 = expected.iter().sum();
    report.close("score", place, &[score.sum / target.len() as f32], &[sum / target.len() as f32], TOLERANCE);
}

/// Ours is the mean over blocks and heads.
fn alignment(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let (source, target) = (case.ids("input_ids"), case.ids("target_ids"));
    let found = session.alignment_ids(&source, &target).unwrap();
    let size = source.len() * target.len();
    let all = case.floats("weights");
    let maps = all.len() / size;
    let mean: Vec<f32> = (0..size).map(|i| all.iter().skip(i).step_by(size).sum::<f32>() / maps as f32).collect();
    // Stored with five digits.
    report.close("alignment", place, &found.weights, &mean, TOLERANCE);
}

/// Seeded draws of one token against the library's filtered distribution: nothing outside of it, and each token as
/// often as it should be, within five standard errors (the seeds are fixed, so this does not vary from run to run).
fn distribution(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let source = case.ids("input_ids");
    let vocab = session.model().config().vocab_size;
    let mut expected = vec![0.0; vocab];
    let list = case.get("probabilities").as_array().unwrap();
    for pair in list {
        let pair = floats(pair);
        expected[pair[0] as usize] = f64::from(pair[1]);
    }
    let options = case.options().max_new_tokens(1).n_best(DRAWS).seed(1);
    // Filters without a temperature sample at 1.
    let temperature = if options.temperature == 0.0 { 1.0 } else { options.temperature };
    let filtered = has_filter(&options);
    let options = options.temperature(temperature);
    let mut counts = vec![0usize; vocab];
    let draws = session.generate_ids(&source, &options).unwrap().finish();
    draws.iter().for_each(|draw| counts[draw.ids[0] as usize] += 1);
    for (id, (&count, &p)) in counts.iter().zip(&expected).enumerate() {
        let frequency = count as f64 / DRAWS as f64;
        if p == 0.0 && filtered {
            report.equal(&format!("{place}: draws of {id}, which is filtered out"), &count, &0);
        } else if p > 0.01 {
            let error = (p * (1.0 - p) / DRAWS as f64).sqrt();
            let off = ((frequency - p) / error) as f32;
            report.close("standard errors", &format!("{place}: draws of {id}"), &[off], &[0.0], 5.0);
        }
    }
    let again = session.generate_ids(&source, &options).unwrap().finish();
    report.equal(&format!("{place}: the same seed"), &again, &draws);
}

fn has_filter(options: &GenerateOptions) -> bool {
    let cuts = [options.min_p, options.epsilon_cutoff, options.eta_cutoff, options.top_h];
    options.top_k > 0 || options.top_p.min(options.typical_p) < 1.0 || cuts.iter().any(|&cut| cut > 0.0)
}

fn tokenize(model: &Model, case: &Case, place: &str, report: &mut Report) {
    let tokenizer = model.tokenizer().unwrap();
    let ids = tokenizer.encode(case.text("text"));
    report.equal(place, &ids, &case.ids("ids"));
    report.equal(place, tokenizer.decode(&ids, true).as_str(), case.text("decoded"));
}

fn text(session: &mut Session, case: &Case, place: &str, report: &mut Report) {
    let options = case.options();
    let pieces: Vec<String> = session.generate(case.text("text"), &options).unwrap().collect();
    report.equal(place, pieces.concat().as_str(), case.text("output"));
    let outputs = session.generate(case.text("text"), &options).unwrap().finish();
    report.equal(place, &outputs[0].ids, &case.ids("ids"));
    report.equal(place, outputs[0].text.as_str(), case.text("output"));
    report.close("greedy", place, &outputs[0].logprobs, &case.floats("logprobs"), TOLERANCE);
}
