//! Real weights: flan-t5-small fine-tuned to write titles, from the shared folder, against values that the
//! transformers library computed in float32.

use t5_runtime::{GenerateOptions, LengthPenalty, Model, Session};
use t5_tests::golden::{floats, ids};
use t5_tests::{Case, Golden, Report, paths};

/// Log-probabilities and beam scores: the bound that the project promises. Float32 sums in another order err a
/// hundred times less (1.5e-5 here), so anything near the bound is a fault.
const LOGPROB: f32 = 2e-3;

/// Encoder states: values of 0.1 with six digits.
const ENCODER: f32 = 2e-5;

/// A choice that the reference itself makes by less than this may fall the other way.
const UNDECIDED: f32 = 1e-3;

const FOLDER: &str = "models/flan-t5-small-titler";

fn golden() -> Option<Golden> {
    paths::shared(FOLDER).map(|folder| Golden::read(&folder.join("golden.jsonl")))
}

fn open() -> Model {
    Model::open(paths::shared(FOLDER).expect("its golden values are there")).unwrap()
}

fn place(case: &Case) -> String {
    format!("line {}: {:.40}", case.line, case.text("text"))
}

/// Limits as the reference was run with: 64 new tokens where a case says nothing.
fn limits(case: &Case) -> GenerateOptions {
    let count = |key| case.has(key).then(|| case.get(key).as_u64().unwrap() as usize);
    GenerateOptions::default()
        .max_new_tokens(count("max_new_tokens").unwrap_or(64))
        .min_new_tokens(count("min_new_tokens").unwrap_or(0))
}

/// However many threads share a step, and however many there are beside it.
#[test]
fn threads_do_not_change_results() {
    let Some(golden) = golden() else { return };
    let model = open();
    let case = golden.cases.iter().max_by_key(|case| case.ids("input_ids").len()).unwrap();
    for beams in [1, 3] {
        let options = GenerateOptions::default().beams(beams).max_new_tokens(12);
        let run = |threads: usize| {
            let mut session = model.session();
            session.set_threads(threads);
            session.generate(case.text("text"), &options).unwrap().finish()
        };
        let alone = run(1);
        for threads in [2, 3] {
            assert_eq!(run(threads), alone, "{beams} beams, {threads} threads");
        }
    }
}

#[test]
fn input_ids() {
    let Some(golden) = golden() else { return };
    let model = open();
    let tokenizer = model.tokenizer().unwrap();
    let mut report = Report::default();
    for case in &golden.cases {
        // Some are longer than the 48 tokens at which this tokenizer.json would truncate.
        report.equal(&place(case), &tokenizer.encode(case.text("text")), &case.ids("input_ids"));
    }
    report.finish("input ids");
}

#[test]
fn encoder_states() {
    let Some(golden) = golden() else { return };
    let model = open();
    let mut session = model.session();
    let mut report = Report::default();
    for case in &golden.cases {
        let states = session.encode_ids(&case.ids("input_ids")).unwrap();
        let last = states.len() - model.config().d_model;
        report.close("encoder", &place(case), &states[..8], &case.floats("encoder_first8"), ENCODER);
        report.close("encoder", &place(case), &states[last..last + 8], &case.floats("encoder_last8"), ENCODER);
        let square: f64 = states.iter().map(|&x| f64::from(x).powi(2)).sum();
        let rms = (square / states.len() as f64).sqrt() as f32;
        report.close("encoder rms", &place(case), &[rms], &[case.number("encoder_rms")], ENCODER);
    }
    report.finish("encoder");
}

#[test]
fn greedy() {
    let Some(golden) = golden() else { return };
    let model = open();
    let mut session = model.session();
    let mut report = Report::default();
    for case in &golden.cases {
        check_greedy(&mut session, case, &mut report);
    }
    report.finish("greedy");
}

/// Ids up to a choice that the reference leaves undecided, log-probabilities of what precedes it, and text.
fn check_greedy(session: &mut Session, case: &Case, report: &mut Report) {
    let place = place(case);
    let output = session.generate(case.text("text"), &limits(case)).unwrap().finish().remove(0);
    let expected = case.ids("greedy_ids");
    let margins = case.floats("greedy_margin");
    let differs = output.ids.iter().zip(&expected).position(|(a, b)| a != b);
    match differs.filter(|&at| margins[at] < UNDECIDED) {
        Some(at) => {
            println!("{place}: token {at} differs where the reference's margin is {}", margins[at]);
            let logprobs = case.floats("greedy_logprobs");
            report.close("greedy", &place, &output.logprobs[..at], &logprobs[..at], LOGPROB);
        }
        None => {
            report.equal(&place, &output.ids, &expected);
            report.equal(&place, output.text.as_str(), case.text("greedy_text"));
            report.close("greedy", &place, &output.logprobs, &case.floats("greedy_logprobs"), LOGPROB);
        }
    }
}

#[test]
fn teacher_forced() {
    let Some(golden) = golden() else { return };
    let model = open();
    let mut session = model.session();
    let mut report = Report::default();
    for case in &golden.cases {
        let (source, target) = (case.ids("input_ids"), case.ids("greedy_ids"));
        let score = session.score_ids(&source, &target).unwrap();
        report.close("score", &place(case), &score.logprobs, &case.floats("greedy_logprobs"), LOGPROB);
        let logits = session.logits_ids(&source, &target[..1]).unwrap();
        for pair in case.get("first_logits_top8").as_array().unwrap() {
            let (id, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap() as f32);
            report.close("logits", &place(case), &[logits[id]], &[expected], LOGPROB);
        }
    }
    report.finish("teacher-forced");
}

#[test]
fn four_beams() {
    let Some(golden) = golden() else { return };
    let model = open();
    let mut session = model.session();
    let mut report = Report::default();
    for case in &golden.cases {
        let options = limits(case).beams(4).n_best(4).length_penalty(LengthPenalty::HuggingFace { exponent: 1.0 });
        let outputs = session.generate(case.text("text"), &options).unwrap().finish();
        let expected = case.get("beam4_ids").as_array().unwrap();
        report.equal(&place(case), &outputs.len(), &expected.len());
        for (output, expected) in outputs.iter().zip(expected) {
            // Padded with </s> behind the first.
            let mut expected = ids(expected);
            if let Some(end) = expected.iter().position(|&id| id == 1) {
                expected.truncate(end + 1);
            }
            report.equal(&place(case), &output.ids, &expected);
        }
        let scores: Vec<f32> = outputs.iter().map(|output| output.score).collect();
        report.close("beam score", &place(case), &scores, &floats(case.get("beam4_scores")), LOGPROB);
    }
    report.finish("four beams");
}

/// All documents side by side give what each gives alone, to the last bit.
#[test]
fn one_batch() {
    let Some(golden) = golden() else { return };
    let model = open();
    let mut session = model.session();
    let mut report = Report::default();
    let texts: Vec<&str> = golden.cases.iter().map(|case| case.text("text")).collect();
    let options = GenerateOptions::default().max_new_tokens(16);
    let batch = session.generate_batch(&texts, &options).unwrap();
    for (text, outputs) in texts.iter().zip(&batch) {
        let alone = session.generate(text, &options).unwrap().finish();
        report.equal(text, outputs, &alone);
    }
    report.finish("batch");
}
