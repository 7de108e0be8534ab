//! Texts read sentence by sentence: their results are those of the sentences, put together as the text was.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::{
    Batch, BatchEvent, EncodeOptions, Finish, GenerateOptions, Model, ModelOptions, Output, Overrides, SplitSentences,
};

/// The fixture with tasks: sentences before which stands "boat ", whole texts before which stands "boat house ".
fn model() -> Model {
    model_with(serde_json::json!({}))
}

/// The same with other values in its configuration.
fn model_with(changes: serde_json::Value) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("the fixture is there");
    let mut config: serde_json::Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["task_specific_params"] = serde_json::json!({
        "sentences": {"prefix": "boat ", "split_sentences": true, "max_length": 13},
        "texts": {"prefix": "boat house ", "split_sentences": false},
        "silent": {"prefix": "mill "},
        "letters": {"prefix": "hill ", "spell_words": true},
        "bare letters": {"prefix": "", "spell_words": true},
        "bare": {"prefix": ""},
        "other letters": {"prefix": "hill the ", "max_length": 9},
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let mut files = HashMap::from([("config.json".to_owned(), Bytes::from_vec(config.to_string().into_bytes()))]);
    for name in ["model.safetensors", "tokenizer.json"] {
        files.insert(name.to_owned(), Bytes::from_vec(read(name)));
    }
    Model::from_checkpoint(Checkpoint::from_files("folder", &files).unwrap(), &ModelOptions::default()).unwrap()
}

const SENTENCES: [&str; 3] = ["Who made the boat?", "We put the answer on the hill.", "A mill!"];
/// The same with white space, lines and bullets.
const TEXT: &str = "  Who made the boat?   We put the answer on the hill.\r\n\n- A mill!\n";
/// What stands before, between and behind them.
const BETWEEN: [&str; 4] = ["  ", "   ", "\r\n\n- ", "\n"];

fn limited(tokens: usize) -> GenerateOptions {
    GenerateOptions::default().max_new_tokens(tokens)
}

fn forced(tokens: usize) -> GenerateOptions {
    limited(tokens).min_new_tokens(tokens)
}

/// What a text's results must be, given those of its sentences and what stands around them: the i-th ones, or the last
/// one of a sentence that has fewer.
fn joined(parts: &[Vec<Output>], between: &[&str]) -> Vec<Output> {
    let one = |i: usize| {
        let parts: Vec<&Output> = parts.iter().map(|part| part.get(i).or(part.last()).unwrap()).collect();
        let text: String = parts.iter().zip(between).map(|(part, before)| before.to_string() + &part.text).collect();
        let cut = parts.iter().any(|part| part.finish == Finish::Length);
        Output {
            text: text + between[parts.len()],
            ids: parts.iter().flat_map(|part| part.ids.clone()).collect(),
            logprobs: parts.iter().flat_map(|part| part.logprobs.clone()).collect(),
            alternatives: Vec::new(),
            score: parts.iter().fold(0.0, |sum, part| sum + part.score),
            finish: if cut { Finish::Length } else { Finish::EndOfSequence },
        }
    };
    (0..parts.iter().map(Vec::len).max().unwrap()).map(one).collect()
}

#[test]
fn a_text_gives_what_its_sentences_give_alone() {
    let model = model();
    let mut session = model.session();
    for options in [
        limited(40),
        limited(5),
        limited(40).beams(3).n_best(3),
        limited(20).temperature(1.0).seed(3),
        limited(20).temperature(1.0).n_best(2).seed(9),
        limited(40).repetition_penalty(1.4).no_repeat_ngram(2),
    ] {
        let alone: Vec<Vec<Output>> =
            SENTENCES.iter().map(|text| session.generate(text, &options).unwrap().finish()).collect();
        assert!(alone[0][0].text != alone[1][0].text);
        let expected = joined(&alone, &BETWEEN);
        let split = options.clone().split_sentences(true);
        // Equal to the bit: log-probabilities, too.
        assert_eq!(session.generate(TEXT, &split).unwrap().finish(), expected);
        let pieces: String = session.generate(TEXT, &split).unwrap().collect();
        assert_eq!(pieces, expected[0].text);
        let batch = session.generate_batch(&["A", TEXT, SENTENCES[1]], &split).unwrap();
        assert_eq!(batch, [session.generate("A", &options).unwrap().finish(), expected, alone[1].clone()]);
        // One sentence is not touched, and ids have none.
        let one = " Who made the boat?\n";
        let untouched = session.generate(one, &options).unwrap().finish();
        assert_eq!(session.generate(one, &split).unwrap().finish(), untouched);
        let ids = model.tokenizer().unwrap().encode(TEXT);
        let whole = session.generate(TEXT, &options).unwrap().finish();
        assert_eq!(session.generate_ids(&ids, &split).unwrap().finish(), whole);
        assert_ne!(whole, joined(&alone, &BETWEEN));
    }
}

/// More sentences than go side by side; a pass of the decoder is for all that do.
#[test]
fn long_texts_go_group_by_group() {
    let model = model();
    let mut session = model.session();
    let text = SENTENCES.join(" ").repeat(17).replace("!Who", "!\nWho");
    let one: Vec<Vec<Output>> =
        SENTENCES.iter().map(|text| session.generate(text, &forced(12)).unwrap().finish()).collect();
    let parts: Vec<Vec<Output>> = (0..51).map(|i| one[i % 3].clone()).collect();
    let between: Vec<&str> = (0..52)
        .map(|i| {
            if i % 51 == 0 {
                ""
            } else if i % 3 == 0 {
                "\n"
            } else {
                " "
            }
        })
        .collect();
    let expected = joined(&parts, &between);
    for threads in [1, 2] {
        session.set_threads(threads);
        let mut generation = session.generate(&text, &forced(12).split_sentences(true)).unwrap();
        let mut pieces = 0;
        while generation.next_piece().is_some() {
            pieces += 1;
        }
        assert!(pieces > 24, "{pieces} pieces");
        // Four groups of twelve steps.
        assert!(generation.passes() == 48, "{} passes", generation.passes());
        assert_eq!(generation.finish(), expected);
    }
    assert_eq!(session.generate_batch(&[&text], &forced(12).split_sentences(true)).unwrap(), [expected]);
}

#[test]
fn chinese_sentences_need_no_space_and_what_they_become_may() {
    let model = model();
    let mut session = model.session();
    let mut give =
        |text: &str| session.generate(text, &forced(12).split_sentences(true)).unwrap().finish().remove(0).text;
    let (cat, dog) = (give("猫は眠る。"), give("犬は吠える？"));
    assert!(!cat.ends_with('。') && !cat.is_empty());
    assert_eq!(give("猫は眠る。犬は吠える？"), format!("{cat} {dog}"));
}

/// Explicit options go before the task's setting, and that before none.
#[test]
fn tasks_say_whether_they_go_by_sentences() {
    let model = model();
    let mut session = model.session();
    let mut sentences = |text: &str, overrides: Overrides| {
        let options = model.options(&overrides).unwrap();
        let source = options.source(&model, text).unwrap();
        let lists =
            source.sentences().iter().map(|ids| model.tokenizer().unwrap().decode(ids, true)).collect::<Vec<_>>();
        session
            .generate_batch_sources(
                &[source],
                &Overrides { max_new_tokens: Some(2), ..overrides }.apply(model.generation_defaults()).unwrap(),
            )
            .unwrap();
        lists
    };
    let ask = Overrides::default;
    let split = |yes| Overrides { split_sentences: Some(yes), ..ask() };
    let task = |name: &str| Overrides { task: Some(name.to_owned()), ..ask() };
    // Typed prefixes: the longest that fits counts.
    assert_eq!(sentences("boat The mill. A hill.", ask()), ["boat The mill.", "boat A hill."]);
    assert_eq!(sentences("boat house The mill. A hill.", ask()).len(), 1);
    assert_eq!(sentences("mill The mill. A hill.", ask()).len(), 1);
    assert_eq!(sentences("The mill. A hill.", ask()).len(), 1);
    // Tasks by name.
    assert_eq!(sentences("The mill. A hill.", task("sentences")), ["boat The mill.", "boat A hill."]);
    assert_eq!(sentences("The mill. A hill.", task("texts")).len(), 1);
    assert_eq!(sentences("The mill. A hill.", task("silent")).len(), 1);
    // Explicit options.
    assert_eq!(sentences("boat The mill. A hill.", split(false)).len(), 1);
    assert_eq!(
        sentences("The mill. A hill.", Overrides { split_sentences: Some(false), ..task("sentences") }).len(),
        1
    );
    let both = Overrides { split_sentences: Some(true), ..task("texts") };
    assert_eq!(sentences("The mill. A hill.", both), ["boat house The mill.", "boat house A hill."]);
    assert_eq!(sentences("mill The mill. A hill.", split(true)), ["mill The mill.", "mill A hill."]);
    assert_eq!(sentences("The mill. A hill.", split(true)), ["The mill.", "A hill."]);
    // The library's default does not look at tasks.
    assert_eq!(GenerateOptions::default().split_sentences, SplitSentences::No);
    assert_eq!(GenerateOptions::default().source(&model, "boat The mill. A hill.").unwrap().sentences().len(), 1);
}

/// Each word for itself, whatever stands around it; all in one where the text is to be whole; what is spelled out
/// already as it is.
#[test]
fn words_are_spelled_out_where_a_task_wants_it() {
    let model = model();
    let tokenizer = model.tokenizer().unwrap();
    let read = |text: &str, overrides: Overrides| {
        let options = model.options(&overrides).unwrap();
        options.source(&model, text).unwrap()
    };
    let ids = |texts: &[&str]| texts.iter().map(|text| tokenizer.encode(text)).collect::<Vec<_>>();
    let split = |yes| Overrides { split_sentences: Some(yes), ..Overrides::default() };
    let task = |name: &str| Overrides { task: Some(name.to_owned()), ..Overrides::default() };
    let both = ids(&["hill m i l l", "hill d o n ' t"]);
    for (text, overrides) in [
        ("hill mill don't", Overrides::default()),
        ("hill \u{201c}Mill,\u{201d}\n  Don\u{2019}t!", Overrides::default()),
        ("hill mill - don't", split(true)),
        ("mill don't", task("letters")),
        ("hill mill don't", Overrides { source_prefix: Some(String::new()), ..task("letters") }),
    ] {
        assert_eq!(read(text, overrides).sentences(), both, "{text}");
    }
    for (text, expected) in [
        ("hill mill", "hill m i l l"),
        ("hill m i l l", "hill m i l l"),
        ("hill a", "hill a"),
        ("hill ?!", "hill ? !"),
        ("hill A . M .", "hill a . m ."),
        ("hill ", "hill "),
        ("mill mill", "mill mill"),
        ("the mill", "the mill"),
    ] {
        assert_eq!(read(text, Overrides::default()).sentences(), ids(&[expected]), "{text}");
    }
    // A task that is asked for, whatever task's prefix the text happens to begin with.
    for (text, name, expected) in [
        ("mill don't", "bare letters", &["m i l l", "d o n ' t"][..]),
        ("the mill", "letters", &["hill t h e", "hill m i l l"]),
        ("hill mill", "bare", &["hill mill"]),
        ("hill mill", "bare letters", &["h i l l", "m i l l"]),
    ] {
        assert_eq!(read(text, task(name)).sentences(), ids(expected), "{text} {name}");
    }
    let whole = ids(&["hill m i l l d o n ' t"]);
    assert_eq!(read("hill mill don't", split(false)).sentences(), whole);
    assert_eq!(GenerateOptions::default().source(&model, "hill mill don't").unwrap().sentences(), whole);
    assert_eq!(model.source_ids("hill mill don't").unwrap(), whole[0]);

    // What the words give has spaces between it, and a score is that of the spelled source.
    let mut session = model.session();
    let options = model.options(&Overrides { max_new_tokens: Some(6), ..Overrides::default() }).unwrap();
    let mut give = |text: &str| session.generate(text, &options).unwrap().finish().remove(0);
    let (mill, boat) = (give("hill mill"), give("hill boat"));
    assert_eq!(give("hill mill,\nboat!").text, format!("{} {}", mill.text, boat.text));
    let spelled = session.score_ids(&ids(&["hill m i l l"])[0], &tokenizer.encode("house")).unwrap();
    assert_eq!(session.score("hill mill", "house").unwrap(), spelled);
    assert_eq!(session.score_batch(&[("hill mill", "house")]).unwrap(), [spelled]);
}

#[test]
fn a_forced_prefix_is_the_beginning_of_the_first_sentence() {
    let model = model();
    let mut session = model.session();
    for options in [limited(12), limited(12).beams(2)] {
        let mut parts = vec![session.generate(SENTENCES[0], &options.clone().prefix("hill boat")).unwrap().finish()];
        parts.extend(SENTENCES[1..].iter().map(|text| session.generate(text, &options).unwrap().finish()));
        let expected = joined(&parts, &BETWEEN);
        let split = options.prefix("hill boat").split_sentences(true);
        let mut generation = session.generate(TEXT, &split).unwrap();
        let pieces: String = generation.by_ref().collect();
        assert!(pieces.starts_with("  hill boat"), "{pieces}");
        assert_eq!((&pieces, generation.finish()), (&expected[0].text, expected.clone()));
        let batch = session.generate_batch(&[TEXT, SENTENCES[0]], &split).unwrap();
        assert_eq!(batch, [expected, parts.swap_remove(0)]);
    }
}

/// Wherever they are looked for: in the first sentence, and in all of the text.
#[test]
fn stop_strings_do_not_begin_in_the_prefix_of_sentences() {
    let model = model();
    let mut session = model.session();
    let options = forced(20).split_sentences(true).prefix("hill boat");
    let whole = session.generate(TEXT, &options).unwrap().finish().remove(0).text;
    let given = "  hill boat".len();
    assert_eq!(&whole[..given], "  hill boat");
    for stop in ["boat", " ", "\r\n"] {
        let expected = &whole[..whole[given..].find(stop).map_or(whole.len(), |end| given + end)];
        let options = options.clone().stop(vec![stop.to_owned()]);
        let pieces: String = session.generate(TEXT, &options).unwrap().collect();
        assert_eq!(pieces, expected, "{stop:?}");
        assert_eq!(session.generate(TEXT, &options).unwrap().finish()[0].text, expected);
        assert_eq!(session.generate_batch(&[TEXT], &options).unwrap()[0][0].text, expected);
        let mut batch = Batch::new(model.session(), 3).unwrap();
        batch.add(TEXT, &options).unwrap();
        let mut events = Vec::new();
        while !batch.is_empty() {
            events.extend(batch.step());
        }
        let Some(BatchEvent::Done { outputs, .. }) = events.last() else { panic!("{events:?}") };
        assert_eq!(outputs[0].text, expected);
        // Several draws: the text of each sentence comes at its end.
        let draws = options.temperature(1.0).n_best(2);
        let mut generation = session.generate(TEXT, &draws).unwrap();
        let pieces: String = generation.by_ref().collect();
        assert!(pieces.starts_with("  hill boat"), "{pieces:?}");
        assert_eq!(generation.finish()[0].text, pieces);
    }
}

/// In the middle of the second sentence, at the end of what stands before it, and from one to the other.
#[test]
fn stop_strings_end_the_whole_text() {
    let model = model();
    let mut session = model.session();
    let options = forced(20).split_sentences(true);
    let whole = session.generate(TEXT, &options).unwrap().finish().remove(0);
    let alone = session.generate(SENTENCES[1], &options).unwrap().finish().remove(0).text;
    let second = whole.text.find(&alone).unwrap();
    let inside: String = alone.chars().skip(alone.chars().count() / 2).take(6).collect();
    let across = &whole.text[second - 5..second + 2];
    for stop in [inside.as_str(), "\r\n", across, "\n- "] {
        let expected = &whole.text[..whole.text.find(stop).unwrap()];
        let options = options.clone().stop(vec![stop.to_owned()]);
        let pieces: String = session.generate(TEXT, &options).unwrap().collect();
        assert_eq!(pieces, expected, "{stop:?}");
        let output = session.generate(TEXT, &options).unwrap().finish().remove(0);
        assert_eq!((output.text.as_str(), output.finish), (expected, Finish::Stop));
        assert!(output.ids.len() <= 40 && whole.ids.starts_with(&output.ids), "{} tokens", output.ids.len());
        assert_eq!(output.ids.len(), output.logprobs.len());
        // The sum of the sentences' sums: 40 additions of numbers up to 128, each rounded to 2^-17.
        assert!((output.score - output.logprobs.iter().sum::<f32>()).abs() < 40.0 / (1 << 17) as f32, "{stop:?}");
        assert_eq!(session.generate_batch(&[TEXT], &options).unwrap()[0][0].text, expected);
        // Of several draws one may stop and another go on.
        let draws = options.temperature(1.0).n_best(3);
        let batch = session.generate_batch(&[TEXT], &draws).unwrap().remove(0);
        let mut generation = session.generate(TEXT, &draws).unwrap();
        let pieces: String = generation.by_ref().collect();
        assert_eq!(pieces, batch[0].text);
        assert_eq!(generation.finish(), batch);
    }
}

#[test]
fn a_cancelled_text_ends_where_it_is() {
    let model = model();
    let mut session = model.session();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = forced(30).split_sentences(true).cancel(cancel.clone());
    let text = SENTENCES.join(" ").repeat(11).replace("!Who", "! Who");
    let whole = session.generate(&text, &options).unwrap().finish().remove(0);
    // In the first group, between the first and the second, in the second; and before anything.
    for steps in [0, 7, 30, 45] {
        cancel.store(false, Ordering::Relaxed);
        let mut generation = session.generate(&text, &options).unwrap();
        assert!((0..steps).all(|_| generation.step()));
        cancel.store(true, Ordering::Relaxed);
        let pieces: String = generation.by_ref().collect();
        let output = generation.finish().remove(0);
        assert_eq!((output.text.as_str(), output.finish), (pieces.as_str(), Finish::Cancelled));
        // The first sentence that is not at its end is the last one.
        let tokens = if steps < 30 { steps } else { 16 * 30 + steps - 30 };
        assert_eq!(output.ids, whole.ids[..tokens], "{steps}");
        assert_eq!(output.logprobs, whole.logprobs[..tokens]);
        assert!(whole.text.starts_with(&pieces));
    }
    cancel.store(false, Ordering::Relaxed);
    assert_eq!(session.generate(&text, &options).unwrap().finish().remove(0), whole);
}

/// A limit of tokens is one of what the model reads at once.
#[test]
fn long_sources_are_refused_or_cut_off() {
    let model = model();
    let mut session = model.session();
    let ids = model.tokenizer().unwrap().encode(TEXT);
    let options = forced(6).max_input_tokens(5);
    let message = |result: t5_runtime::Result<Vec<Vec<Output>>>| result.unwrap_err().to_string();
    let expected = format!("max_input_tokens: expected at most 5 tokens, found {}", ids.len());
    assert_eq!(message(session.generate_batch(&["A", TEXT], &options)), expected);
    assert_eq!(message(session.generate_batch_ids(&[&ids], &options)), expected);
    assert_eq!(session.generate(TEXT, &options).err().unwrap().to_string(), expected);
    assert_eq!(session.generate_ids(&ids, &options).err().unwrap().to_string(), expected);

    // What is left ends as every text does.
    let cut = [&ids[..4], &ids[ids.len() - 1..]].concat();
    let expected = session.generate_ids(&cut, &forced(6)).unwrap().finish();
    let options = options.truncate(true);
    assert_eq!(session.generate(TEXT, &options).unwrap().finish(), expected);
    assert_eq!(session.generate_ids(&ids, &options).unwrap().finish(), expected);
    assert_eq!(session.generate_batch(&[TEXT], &options).unwrap(), [expected]);
    assert_eq!(session.generate_ids(&ids[..5], &options).unwrap().finish().len(), 1);

    // Of sentences, each for itself.
    let longest = SENTENCES.map(|text| model.tokenizer().unwrap().encode(text).len());
    let most = *longest.iter().max().unwrap();
    let options = forced(6).split_sentences(true).max_input_tokens(most);
    let whole = session.generate(TEXT, &forced(6).split_sentences(true)).unwrap().finish();
    assert_eq!(session.generate(TEXT, &options).unwrap().finish(), whole);
    let found = session.generate(TEXT, &options.max_input_tokens(most - 1)).err().unwrap().to_string();
    let sentence = 1 + longest.iter().position(|&len| len == most).unwrap();
    let what = format!("expected at most {} tokens in sentence {sentence}, found {most}", most - 1);
    assert_eq!(found, format!("max_input_tokens: {what}"));
    assert!(session.generate("A", &forced(6).max_input_tokens(0)).is_err());
}

/// What stands last is the tokenizer's `</s>`, whatever the configuration calls the end.
#[test]
fn what_is_left_of_a_long_source_ends_as_the_tokenizer_ends_it() {
    let model = model_with(serde_json::json!({"eos_token_id": 7}));
    let ids = model.tokenizer().unwrap().encode(TEXT);
    let cut = [&ids[..4], &[1]].concat();
    assert_eq!((ids.last(), model.config().eos_token_id), (Some(&1), 7));
    let options = forced(6).max_input_tokens(5).truncate(true);
    assert_eq!(options.source(&model, TEXT).unwrap().sentences(), std::slice::from_ref(&cut));
    assert_eq!(options.source_of_ids(&model, &ids).unwrap().sentences(), std::slice::from_ref(&cut));
    let options = EncodeOptions { pad_to: Some(5), ..EncodeOptions::default() };
    assert_eq!(model.encode(&[TEXT], &options).unwrap()[0].input_ids, cut);
}
