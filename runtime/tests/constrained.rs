//! Rules of the caller's, texts to choose from, and decoding by hand: each gives what scoring and searching give, to
//! the last bit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "grammar")]
use t5_runtime::Grammar;
use t5_runtime::{
    Batch, BatchEvent, Choices, Error, Finish, GenerateOptions, LogitsProcessor, Lookup, Model, Overrides,
};

fn model() -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    Model::open(folder).expect("the fixture opens")
}

const TEXT: &str = "The house on the hill";
const TEXTS: [&str; 3] = [TEXT, "a hill", "The old house is on the hill and the hill is old"];
const LABELS: [&str; 6] = ["house", "house on", "house on the hill", "hill", "the", "The house"];

fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (id, value) in row.iter().enumerate() {
        best = if *value > row[best] { id } else { best };
    }
    best as u32
}

#[test]
fn steps_by_hand_are_those_of_greedy_search() {
    let model = model();
    let source = model.tokenizer().unwrap().encode(TEXT);
    let options = GenerateOptions::default().max_new_tokens(100).min_new_tokens(100);
    let expected = model.session().generate_ids(&source, &options).unwrap().finish().remove(0);
    let mut session = model.session();
    let mut steps = session.start(&source).unwrap();
    for (&id, &logprob) in expected.ids.iter().zip(&expected.logprobs) {
        let mut row = steps.logits().to_vec();
        let found = row[id as usize] - model.kernels().log_sum_exp(&row);
        assert_eq!(found.to_bits(), logprob.to_bits());
        row[model.config().eos_token_id as usize] = f32::NEG_INFINITY;
        assert_eq!(largest(&row), id);
        steps.push(id).unwrap();
    }
    assert_eq!(steps.tokens(), expected.ids);
    // Another way from the middle, and the first one again.
    let mut expected = Vec::new();
    for tokens in [&[5, 6, 7][..], &[]] {
        steps.truncate(40).unwrap();
        tokens.iter().for_each(|&token| steps.push(token).unwrap());
        expected.push(steps.logits().to_vec());
    }
    steps.truncate(100).unwrap();
    assert_eq!(steps.tokens().len(), 40);
    let prefix = steps.tokens().to_vec();
    for (logits, tokens) in expected.iter().zip([&[5, 6, 7][..], &[]]) {
        let target = [&prefix, tokens, &[1]].concat();
        let all = session.logits_ids(&source, &target).unwrap();
        assert_eq!(&all[all.len() - logits.len()..], logits.as_slice());
    }
    assert!(session.start(&[]).is_err());
    let mut steps = session.start(&source).unwrap();
    let error = steps.push(model.config().vocab_size as u32).unwrap_err().to_string();
    assert!(error.contains("expected ids below"), "{error}");
    assert!(steps.tokens().is_empty());
}

/// A rule that does nothing, and one that does the opposite of what the model wants: with each search, alone and in a
/// batch.
#[test]
fn rules_work_with_every_search() {
    let model = model();
    let mut session = model.session();
    let calls = Arc::new(AtomicUsize::new(0));
    let idle = {
        let calls = calls.clone();
        LogitsProcessor::new(move |so_far, _| {
            assert_eq!(so_far[0], 0, "the start token is the first");
            calls.fetch_add(1, Ordering::Relaxed);
        })
    };
    // Raises a token far above all others, one for each place: where only the likeliest token is asked for, bounds
    // would rule it out.
    let raise = LogitsProcessor::new(|so_far, row| row[10 + so_far.len()] += 1e6);
    let base = || GenerateOptions::default().max_new_tokens(12).min_new_tokens(12);
    for options in [
        base(),
        base().logprobs(false),
        base().logprobs(false).lookup(Lookup::On),
        base().temperature(0.7).n_best(3),
        base().beams(4).n_best(4),
    ] {
        let plain = session.generate_batch(&TEXTS, &options).unwrap();
        let with = session.generate_batch(&TEXTS, &options.clone().processor(idle.clone())).unwrap();
        for (plain, with) in plain.iter().flatten().zip(with.iter().flatten()) {
            assert_eq!((&plain.ids, plain.finish), (&with.ids, with.finish));
            assert!(!options.logprobs || plain.logprobs == with.logprobs);
        }
        assert!(calls.swap(0, Ordering::Relaxed) >= 3 * 12, "each row of each step is shown to it");
        let raised = options.clone().processor(raise.clone());
        let together = session.generate_batch(&TEXTS, &raised).unwrap();
        for (text, outputs) in TEXTS.iter().zip(&together) {
            assert_eq!(&session.generate(text, &raised).unwrap().finish(), outputs);
            let expected: Vec<u32> = (11..23).collect();
            assert_eq!(outputs[0].ids, expected);
        }
    }
}

#[test]
fn a_rule_that_leaves_nothing_ends_the_text() {
    let model = model();
    let only = LogitsProcessor::allowing(|so_far| if so_far.len() <= 3 { vec![7, 5] } else { Vec::new() });
    for options in [
        GenerateOptions::default(),
        GenerateOptions::default().temperature(1.0),
        GenerateOptions::default().beams(3),
        GenerateOptions::default().logprobs(false).lookup(Lookup::On),
    ] {
        let output = model.session().generate(TEXT, &options.processor(only.clone())).unwrap().finish().remove(0);
        assert_eq!((output.ids.len(), output.finish), (3, Finish::Blocked), "{output:?}");
        assert!(output.ids.iter().all(|id| [5, 7].contains(id)));
    }
}

/// One token that may not come twice, and no end yet.
#[test]
fn options_that_leave_nothing_end_the_text() {
    let model = model();
    let base = GenerateOptions::default().allowed(vec![9]).no_repeat_ngram(1).min_new_tokens(5);
    for options in
        [base.clone(), base.clone().temperature(1.0), base.clone().beams(2), base.logprobs(false).lookup(Lookup::On)]
    {
        let output = model.session().generate(TEXT, &options).unwrap().finish().remove(0);
        assert_eq!((output.ids.as_slice(), output.finish), ([9].as_slice(), Finish::Blocked), "{output:?}");
    }
}

#[test]
fn choices_are_ranked_as_they_score() {
    let model = model();
    let mut session = model.session();
    let choices = Choices::new(&model, &LABELS).unwrap();
    for text in TEXTS {
        let ranked = session.choose(text, &choices).unwrap();
        assert!(ranked.is_sorted_by(|a, b| a.logprob >= b.logprob));
        // The same, in pieces.
        let mut choosing = model.session().into_choosing(text, &choices).unwrap();
        let pieces = std::iter::from_fn(|| choosing.work().unwrap().then_some(())).count();
        assert!(pieces >= LABELS.len(), "{pieces}");
        assert_eq!(choosing.finish().unwrap().0, ranked);
        assert!((ranked.iter().map(|choice| choice.probability).sum::<f32>() - 1.0).abs() < 1e-5);
        let mut indices: Vec<usize> = ranked.iter().map(|choice| choice.index).collect();
        for choice in &ranked {
            assert_eq!(choice.text, LABELS[choice.index]);
            let score = session.score(text, &choice.text).unwrap();
            assert_eq!(choice.logprob.to_bits(), score.sum.to_bits(), "{choice:?}");
        }
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn results_are_among_the_choices() {
    let model = model();
    let mut session = model.session();
    let choices = Choices::new(&model, &LABELS).unwrap();
    let request = Overrides { choices: Some(LABELS.map(str::to_owned).into()), ..Overrides::default() };
    for overrides in [
        request.clone(),
        Overrides { logprobs: Some(false), ..request.clone() },
        Overrides { temperature: Some(1.0), n_best: Some(5), ..request.clone() },
        Overrides { beams: Some(6), length_penalty: Some(0.0), ..request.clone() },
    ] {
        let options = model.options(&overrides).unwrap();
        for (text, outputs) in TEXTS.iter().zip(session.generate_batch(&TEXTS, &options).unwrap()) {
            for output in &outputs {
                assert!(LABELS.contains(&&*output.text), "{output:?}");
                assert_eq!(output.finish, Finish::EndOfSequence);
            }
            if overrides.beams.is_some() {
                // As many beams as choices look at all of them.
                let ranked = session.choose(text, &choices).unwrap();
                assert_eq!(outputs[0].text, ranked[0].text);
                assert!((outputs[0].score - ranked[0].logprob).abs() < 1e-4, "{outputs:?} {ranked:?}");
            }
        }
    }
}

/// Not as its tokens are: those have no space in front.
#[test]
fn a_choice_is_given_as_it_was_written() {
    let model = model();
    let mut session = model.session();
    let texts = [" house on", " the hill"];
    let request = Overrides { choices: Some(texts.map(str::to_owned).into()), ..Overrides::default() };
    for overrides in [
        request.clone(),
        Overrides { temperature: Some(1.0), n_best: Some(3), ..request.clone() },
        Overrides { beams: Some(2), n_best: Some(2), ..request },
    ] {
        let options = model.options(&overrides).unwrap();
        let together = session.generate_batch(&TEXTS, &options).unwrap();
        for (text, outputs) in TEXTS.iter().zip(&together) {
            assert!(outputs.iter().all(|output| texts.contains(&&*output.text)), "{outputs:?}");
            let mut generation = session.generate(text, &options).unwrap();
            let pieces: String = generation.by_ref().collect();
            assert_eq!((&pieces, &generation.finish()), (&outputs[0].text, outputs));
            let mut batch = Batch::new(model.session(), 3).unwrap();
            batch.add(text, &options).unwrap();
            let mut pieces = String::new();
            while !batch.is_empty() {
                for event in batch.step() {
                    match event {
                        BatchEvent::Piece { text, .. } => pieces.push_str(&text),
                        BatchEvent::Done { outputs: found, .. } => assert_eq!(&found, outputs),
                        event => panic!("{event:?}"),
                    }
                }
            }
            assert_eq!(pieces, outputs[0].text);
        }
    }
    // A stop string cuts it where it stands in the text.
    let options = model.options(&Overrides { stop: Some(vec![" h".to_owned()]), ..Overrides::default() }).unwrap();
    let output = session.generate(TEXT, &options.choices([" house".to_owned()])).unwrap().finish().remove(0);
    assert_eq!((output.text.as_str(), output.finish), ("", Finish::Stop));
}

#[test]
fn wrong_choices_are_named() {
    let model = model();
    let refused = |texts: &[&str], expected: &str| {
        let error = Choices::new(&model, texts).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[], "choices: expected at least one text, found none");
    refused(&["house", ""], "expected texts, found \"\"");
    refused(&["house", "the", " house"], "the same to the model");
    refused(&["house", "the \u{416}"], "expected texts of the model's vocabulary, found \"the \u{416}\"");
    let mut session = model.session();
    let mut wrong = |options: GenerateOptions, expected: &str| match session.generate(TEXT, &options) {
        Err(Error::Option { option, what }) => assert!(format!("{option}: {what}").contains(expected), "{what}"),
        other => panic!("expected an error, found {other:?}"),
    };
    let choices = || GenerateOptions::default().choices(LABELS.map(str::to_owned).to_vec());
    wrong(choices().prefix("The"), "choices: texts to choose from and a forced prefix exclude each other");
    wrong(choices().max_new_tokens(2), "max_new_tokens: expected at least");
}

/// Each search, alone and in a batch, with tokens of SentencePiece and of bytes, writes what the grammar allows.
#[cfg(feature = "grammar")]
#[test]
fn results_match_a_regular_expression() {
    let families = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
    let patterns = ["(the|a) (house|hill)( on the hill)?", "[a-z]{3,5} [a-z]+"];
    let whole = patterns.map(|pattern| regex::Regex::new(&format!("^({pattern})$")).unwrap());
    for family in ["unigram", "byt5"] {
        let model = Model::open(families.join(family)).unwrap();
        let mut session = model.session();
        for (pattern, expected) in patterns.into_iter().zip(&whole) {
            let grammar = Grammar::regex(&model, pattern).unwrap();
            let base = || GenerateOptions::default().max_new_tokens(48).processor(grammar.processor());
            for options in
                [base(), base().logprobs(false), base().temperature(1.0).n_best(3), base().beams(4).n_best(4)]
            {
                let together = session.generate_batch(&TEXTS, &options).unwrap();
                for (text, outputs) in TEXTS.iter().zip(&together) {
                    assert_eq!(&session.generate(text, &options).unwrap().finish(), outputs);
                    for output in outputs {
                        let ended = output.finish == Finish::EndOfSequence;
                        assert!(ended || output.finish == Finish::Length, "{family}: {output:?}");
                        assert!(!ended || expected.is_match(&output.text), "{family}: {:?}", output.text);
                        assert!(!ended || !output.text.is_empty());
                    }
                }
            }
        }
        // The first pattern is finite: each result ends.
        let grammar = Grammar::regex(&model, "(the|a) (house|hill)").unwrap();
        let options = GenerateOptions::default().max_new_tokens(48).processor(grammar.processor());
        let output = session.generate(TEXT, &options).unwrap().finish().remove(0);
        assert_eq!(output.finish, Finish::EndOfSequence, "{output:?}");
    }
}

#[cfg(feature = "grammar")]
#[test]
fn results_are_json_by_a_schema() {
    let families = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
    let model = Model::open(families.join("byt5")).unwrap();
    let schema = r#"{"type": "object", "properties": {
        "label": {"enum": ["house", "hill"]}, "sure": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 1, "maximum": 99}
    }, "required": ["label", "sure", "count"], "additionalProperties": false}"#;
    let grammar = Grammar::json_schema(&model, schema).unwrap();
    let base = || GenerateOptions::default().max_new_tokens(100).processor(grammar.processor());
    for options in [base(), base().temperature(1.0).n_best(3), base().beams(3)] {
        for output in model.session().generate(TEXT, &options).unwrap().finish() {
            assert_eq!(output.finish, Finish::EndOfSequence);
            let value: serde_json::Value = serde_json::from_str(&output.text).expect(&output.text);
            assert!(["house", "hill"].contains(&value["label"].as_str().unwrap()));
            assert!(value["sure"].is_boolean() && (1..=99).contains(&value["count"].as_i64().unwrap()));
        }
    }
}

#[cfg(feature = "grammar")]
#[test]
fn wrong_grammars_are_named() {
    let model = model();
    let said = |result: Result<Grammar, Error>| result.unwrap_err().to_string();
    let error = said(Grammar::regex(&model, "(a"));
    assert!(error.starts_with("regex: ") && error.contains("unclosed group"), "{error}");
    let error = said(Grammar::json_schema(&model, "{"));
    assert!(error.starts_with("json_schema: expected a JSON schema, found what is no JSON"), "{error}");
    let error = said(Grammar::json_schema(&model, r#"{"type": "thing"}"#));
    assert!(error.starts_with("json_schema: ") && error.contains("thing"), "{error}");
    // Its vocabulary has no braces.
    let error = said(Grammar::json_schema(&model, r#"{"type": "object"}"#));
    assert!(error.contains("the model's vocabulary has no tokens for \"{"), "{error}");
    // A character in the midst that it does not have.
    let grammar = Grammar::regex(&model, "the \u{4e00}").unwrap();
    let options = GenerateOptions::default().processor(grammar.processor());
    let output = model.session().generate(TEXT, &options).unwrap().finish().remove(0);
    assert_eq!((output.text.as_str(), output.finish), ("the ", Finish::Blocked));
}
