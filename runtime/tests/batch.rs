//! Requests that join and leave a running batch: each gives what it gives alone, to the last bit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_runtime::{Batch, BatchEvent, Error, Finish, GenerateOptions, LengthPenalty, Model, Output, Session};

fn model() -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    Model::open(folder).expect("the fixture opens")
}

/// Texts and options of all kinds, and the number of the step before which each joins.
fn requests() -> Vec<(usize, String, GenerateOptions)> {
    let forced = |tokens| GenerateOptions::default().max_new_tokens(tokens).min_new_tokens(tokens);
    let long = "The old house is on the hill and the hill is old. ".repeat(12);
    let texts = ["The house on the hill", "a hill", "The old house. A hill! Is it old?", &long];
    let hugging_face = LengthPenalty::HuggingFace { exponent: 1.0 };
    let options = [
        forced(3),
        forced(70),
        forced(20).logprobs(false),
        forced(9).beams(4).n_best(2),
        GenerateOptions::default().max_new_tokens(30).beams(3).length_penalty(hugging_face),
        forced(25).temperature(0.9).top_k(20).n_best(3).seed(7),
        forced(12).prefix("The house is on the hill and the old house"),
        forced(15).repetition_penalty(1.3).no_repeat_ngram(2),
        GenerateOptions::default().max_new_tokens(6).split_sentences(true),
        GenerateOptions::default().max_new_tokens(6).split_sentences(true).prefix("a house"),
        GenerateOptions::default().max_new_tokens(1),
    ];
    let mut requests = Vec::new();
    for (i, options) in options.iter().enumerate() {
        for (j, text) in texts.iter().enumerate() {
            // Some together in the beginning, others one by one, the last long after the first are done.
            requests.push(((3 * i + 11 * j) * usize::from(i + j > 2), (*text).to_owned(), options.clone()));
        }
    }
    requests.sort_by_key(|(step, ..)| *step);
    requests
}

#[track_caller]
fn assert_equal(found: &[Output], alone: &[Output]) {
    assert_eq!(found.len(), alone.len());
    for (found, alone) in found.iter().zip(alone) {
        assert_eq!((&found.text, &found.ids, found.finish), (&alone.text, &alone.ids, alone.finish));
        let bits = |output: &Output| output.logprobs.iter().map(|logprob| logprob.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(found), bits(alone));
        assert!(found.score.to_bits() == alone.score.to_bits() || found.score.is_nan() && alone.score.is_nan());
    }
}

fn alone(session: &mut Session, text: &str, options: &GenerateOptions) -> Vec<Output> {
    session.generate(text, options).unwrap().finish()
}

#[test]
fn requests_join_and_leave_without_a_trace() {
    let model = model();
    let mut other = model.session();
    let requests = requests();
    for (sequences, threads) in [(5, 1), (64, 2)] {
        let mut session = model.session();
        session.set_threads(threads);
        let mut batch = Batch::new(session, sequences).unwrap();
        let (mut asked, mut pieces, mut done) = (BTreeMap::new(), BTreeMap::<u64, String>::new(), 0);
        let (mut step, mut waited, mut next) = (0, false, requests.iter().peekable());
        while next.peek().is_some() || !batch.is_empty() {
            while let Some((_, text, options)) = next.next_if(|(joins, ..)| *joins <= step) {
                asked.insert(batch.add(text, options).unwrap(), (text, options));
            }
            for event in batch.step() {
                match event {
                    BatchEvent::Piece { id, text, .. } => pieces.entry(id).or_default().push_str(&text),
                    BatchEvent::Done { id, outputs } => {
                        let (text, options) = asked[&id];
                        assert_equal(&outputs, &alone(&mut other, text, options));
                        assert_eq!(pieces.remove(&id).unwrap_or_default(), outputs[0].text);
                        done += 1;
                    }
                    event => panic!("{event:?}"),
                }
            }
            waited |= batch.is_full();
            step += 1;
        }
        assert_eq!((done, batch.len()), (requests.len(), 0));
        assert!(pieces.is_empty() && (waited || sequences == 64));
        // The session is as good as before.
        let (_, text, options) = &requests[0];
        assert_equal(&alone(&mut batch.into_session(), text, options), &alone(&mut other, text, options));
    }
}

/// Runs to the end: the results and pieces of each request.
fn finish(batch: &mut Batch<&mut Session>) -> BTreeMap<u64, (Vec<Output>, String)> {
    let mut found = BTreeMap::<u64, (Vec<Output>, String)>::new();
    while !batch.is_empty() {
        for event in batch.step() {
            match event {
                BatchEvent::Piece { id, text, .. } => found.entry(id).or_default().1.push_str(&text),
                BatchEvent::Done { id, outputs } => found.entry(id).or_default().0 = outputs,
                event => panic!("{event:?}"),
            }
        }
    }
    found
}

/// As many passes as if whoever is next took the row that is free first, not as many as groups that wait for their
/// longest.
#[test]
fn a_row_that_is_free_is_taken_at_once() {
    let model = model();
    let mut session = model.session();
    let lengths = [60, 3, 5, 40, 2, 7, 1, 30, 4, 4, 50, 1, 2, 9, 3, 21];
    for rows in [1, 3, 4] {
        let mut batch = Batch::new(&mut session, rows).unwrap();
        for tokens in lengths {
            let options = GenerateOptions::default().max_new_tokens(tokens).min_new_tokens(tokens);
            batch.add("The house on the hill", &options).unwrap();
        }
        let found = finish(&mut batch);
        assert_eq!(found.values().map(|(outputs, _)| outputs[0].ids.len()).collect::<Vec<_>>(), lengths);
        let mut busy = vec![0; rows];
        for tokens in lengths {
            *busy.iter_mut().min().unwrap() += tokens;
        }
        let (best, in_groups) = (busy.into_iter().max().unwrap(), lengths.chunks(rows).map(|group| group.iter().max()));
        assert_eq!(batch.passes(), best, "{rows} rows");
        let in_groups: usize = in_groups.flatten().sum();
        assert!(rows == 1 || 10 * best < 8 * in_groups, "{best} against {in_groups}");
    }
}

/// Wherever it begins and ends: in a sentence, or where two of them meet.
#[test]
fn stop_strings_end_a_text_of_sentences() {
    let model = model();
    let (mut session, mut other) = (model.session(), model.session());
    let text = "The old house.  A hill! Is it old?";
    let free = GenerateOptions::default().max_new_tokens(8).min_new_tokens(8).split_sentences(true);
    let whole = alone(&mut other, text, &free).remove(0).text;
    let characters: Vec<char> = whole.chars().collect();
    let stops: Vec<String> = characters.windows(3).map(|window| window.iter().collect()).collect();
    assert!(stops.iter().any(|stop| stop.contains("  ")), "{whole:?}");
    for prefix in ["", "the hill"] {
        let options: Vec<GenerateOptions> =
            stops.iter().map(|stop| free.clone().prefix(prefix).stop(vec![stop.clone(), "never".to_owned()])).collect();
        let mut batch = Batch::new(&mut session, 7).unwrap();
        let ids: Vec<u64> = options.iter().map(|options| batch.add(text, options).unwrap()).collect();
        let found = finish(&mut batch);
        for (id, options) in ids.iter().zip(&options) {
            let (outputs, pieces) = &found[id];
            assert_equal(outputs, &alone(&mut other, text, options));
            assert_eq!(pieces, &outputs[0].text);
        }
    }
}

#[test]
fn a_batch_can_move_to_a_thread() {
    let mut batch = Batch::new(model().session(), 1).unwrap();
    let id = batch.add("a hill", &GenerateOptions::default().max_new_tokens(1)).unwrap();
    let events = std::thread::spawn(move || batch.step()).join().unwrap();
    assert!(matches!(events.last(), Some(BatchEvent::Done { id: done, .. }) if *done == id), "{events:?}");
}

#[test]
fn stop_strings_end_a_request_where_they_end_a_text() {
    let model = model();
    let mut other = model.session();
    let free = GenerateOptions::default().max_new_tokens(40).min_new_tokens(40);
    let whole = alone(&mut other, "a hill", &free).remove(0).text;
    let middle: String = whole.chars().skip(whole.chars().count() / 2).take(3).collect();
    let options = free.clone().stop(vec![middle]);
    let mut session = model.session();
    let mut batch = Batch::new(&mut session, 4).unwrap();
    batch.add("The house", &free).unwrap();
    let stops = batch.add("a hill", &options).unwrap();
    let begins = batch.add("a hill", &free.clone().prefix("a hill").stop(vec!["hill".to_owned()])).unwrap();
    let found = finish(&mut batch);
    assert_equal(&found[&stops].0, &alone(&mut other, "a hill", &options));
    assert_eq!((found[&stops].0[0].finish, &found[&stops].1), (Finish::Stop, &found[&stops].0[0].text));
    assert_equal(&found[&begins].0, &alone(&mut other, "a hill", &free.prefix("a hill").stop(vec!["hill".to_owned()])));
}

#[test]
fn cancelled_requests_leave_the_others_alone() {
    let model = model();
    let options = GenerateOptions::default().max_new_tokens(50).min_new_tokens(50).prefix("the hill");
    // What could have become a stop string is handed out, too, when it is cut short.
    let options = options.stop(vec!["never".to_owned()]);
    let cancel = Arc::new(AtomicBool::new(false));
    let mut session = model.session();
    let mut batch = Batch::new(&mut session, 3).unwrap();
    let stays = batch.add("The house on the hill", &options).unwrap();
    let cut = batch.add("a hill", &options).unwrap();
    let by_flag = batch.add("a house", &options.clone().cancel(cancel.clone())).unwrap();
    let waits = batch.add("the old house", &options).unwrap();
    let after = batch.add("the hill", &options).unwrap();
    let (mut found, mut pieces) = (BTreeMap::new(), BTreeMap::<u64, String>::new());
    for step in 0.. {
        match step {
            10 => batch.cancel(cut),
            12 => batch.cancel(waits + 100),
            20 => cancel.store(true, Ordering::Relaxed),
            _ => {}
        }
        if step == 5 {
            batch.cancel(waits);
        }
        for event in batch.step() {
            match event {
                BatchEvent::Piece { id, text, .. } => pieces.entry(id).or_default().push_str(&text),
                BatchEvent::Done { id, outputs } => {
                    assert_eq!(pieces.remove(&id).unwrap_or_default(), outputs[0].text);
                    found.insert(id, outputs);
                }
                event => panic!("{event:?}"),
            }
        }
        if batch.is_empty() {
            break;
        }
    }
    let mut other = model.session();
    for (id, text) in [(stays, "The house on the hill"), (after, "the hill")] {
        assert_equal(&found[&id], &alone(&mut other, text, &options));
    }
    let whole = alone(&mut other, "a hill", &options).remove(0);
    for (id, tokens) in [(cut, 5..=10), (by_flag, 15..=20), (waits, 0..=0)] {
        let output = &found[&id][0];
        assert_eq!(output.finish, Finish::Cancelled);
        assert!(tokens.contains(&output.ids.len()), "{output:?}");
        assert!(id != cut || whole.ids.starts_with(&output.ids));
    }
}

#[test]
fn wrong_requests_do_not_join() {
    let model = model();
    assert!(Batch::new(model.session(), 0).is_err());
    let mut batch = Batch::new(model.session(), 2).unwrap();
    let beams = GenerateOptions::default().beams(3);
    match batch.add("a hill", &beams) {
        Err(Error::Option { option: "beams", what }) => {
            assert_eq!(what, "expected at most 2, the sequences of the batch, found 3")
        }
        other => panic!("{other:?}"),
    }
    assert!(batch.add("a hill", &GenerateOptions::default().max_new_tokens(0)).is_err());
    assert!(batch.is_empty() && batch.step().is_empty());
}

/// Tokens come with the text that they are, with what the result says of them, and each once.
#[test]
fn pieces_have_the_tokens_they_are_made_of() {
    let model = model();
    let mut session = model.session();
    let text = "The old house.  A hill! Is it old?";
    let forced = GenerateOptions::default().max_new_tokens(9).min_new_tokens(9).top_logprobs(3);
    let whole = alone(&mut session, text, &forced).remove(0).text;
    let stop: String = whole.chars().skip(4).take(3).collect();
    let draws = GenerateOptions::default().max_new_tokens(9).temperature(0.8).seed(3).top_logprobs(2);
    for options in [forced.clone(), forced.clone().split_sentences(true), forced.stop(vec![stop]), draws] {
        let mut batch = Batch::new(&mut session, 4).unwrap();
        batch.add(text, &options).unwrap();
        let (mut tokens, mut outputs) = (Vec::new(), Vec::new());
        while !batch.is_empty() {
            for event in batch.step() {
                match event {
                    BatchEvent::Piece { tokens: more, .. } => tokens.extend(more),
                    BatchEvent::Done { outputs: all, .. } => outputs = all,
                    event => panic!("{event:?}"),
                }
            }
        }
        let output = &outputs[0];
        assert!(!tokens.is_empty() && output.alternatives.len() == output.ids.len());
        for (place, token) in tokens.iter().enumerate() {
            assert_eq!(token.id, output.ids[place]);
            assert_eq!(token.logprob.to_bits(), output.logprobs[place].to_bits());
            assert_eq!(token.alternatives, output.alternatives[place]);
        }
    }
}

/// The likeliest tokens are those of the logits, and greedy search's own is the first of them.
#[test]
fn alternatives_are_the_likeliest_tokens() {
    let model = model();
    let mut session = model.session();
    let options = GenerateOptions::default().max_new_tokens(12).top_logprobs(4);
    let output = alone(&mut session, "The house on the hill", &options).remove(0);
    let source = model.tokenizer().unwrap().encode("The house on the hill");
    let logits = session.logits_ids(&source, &output.ids).unwrap();
    for (place, row) in logits.chunks_exact(model.config().vocab_size).enumerate() {
        let alternatives = &output.alternatives[place];
        assert_eq!(alternatives[0], (output.ids[place], output.logprobs[place]));
        let mut sorted: Vec<usize> = (0..row.len()).collect();
        sorted.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        assert_eq!(alternatives.iter().map(|(id, _)| *id as usize).collect::<Vec<_>>(), sorted[..4]);
        assert!(
            alternatives.is_sorted_by(|a, b| a.1 >= b.1) && alternatives.iter().all(|(_, logprob)| *logprob <= 0.0)
        );
    }
    let plain = alone(&mut session, "The house on the hill", &options.clone().top_logprobs(0)).remove(0);
    assert!(plain.alternatives.is_empty() && plain.ids == output.ids);
    for (options, named) in [(options.clone().beams(2), "beam"), (options.top_logprobs(101), "101")] {
        let error = session.generate("a hill", &options).unwrap_err().to_string();
        assert!(error.starts_with("top_logprobs: ") && error.contains(named), "{error}");
    }
}
