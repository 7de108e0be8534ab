//! Calls as a C program makes them, right and wrong: what comes out is what the library gives, to the last bit, and
//! what is wrong is a status and a sentence.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::{ptr, slice};

use pocket_t5::*;
use t5_runtime::{EncodeOptions, GenerateOptions, Model, Output, Pooling};

const GERMAN: &CStr = c"translate English to German: Where is the station?";
const FRENCH: &CStr = c"translate English to French: Good morning!";

fn last_error() -> &'static str {
    // SAFETY: a text of this thread; tests read it before their next call.
    unsafe { CStr::from_ptr(pt5_last_error()) }.to_str().unwrap()
}

fn ok(status: pt5_status) {
    assert_eq!(status, pt5_status::PT5_OK, "{}", last_error());
}

#[track_caller]
fn refused(status: pt5_status, expected: pt5_status, message: &str) {
    assert_eq!((status, last_error()), (expected, message));
}

/// The built-in model and a session.
struct Open {
    model: *mut pt5_model,
    session: *mut pt5_session,
}

impl Open {
    fn new() -> Open {
        let (mut model, mut session) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both are written.
        unsafe {
            ok(pt5_model_builtin(ptr::null(), &mut model));
            ok(pt5_session_new(model, 1, &mut session));
        }
        Open { model, session }
    }

    fn generate(&self, text: &CStr, options: &pt5_options) -> Vec<Output> {
        let mut results = ptr::null_mut();
        // SAFETY: all that is given lives as long as the call.
        unsafe {
            ok(pt5_generate(self.session, text.as_ptr(), PT5_NUL, options, None, ptr::null_mut(), &mut results));
        }
        taken(results).remove(0)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: both came from calls. A session outlives its model.
        unsafe {
            pt5_model_free(self.model);
            pt5_session_free(self.session);
        }
    }
}

fn options() -> pt5_options {
    // SAFETY: zeros are options.
    pt5_options { size: size_of::<pt5_options>(), ..unsafe { std::mem::zeroed() } }
}

fn embed_options() -> pt5_embed_options {
    // SAFETY: zeros are options.
    pt5_embed_options { size: size_of::<pt5_embed_options>(), ..unsafe { std::mem::zeroed() } }
}

/// Results as the library has them; they are freed.
fn taken(results: *mut pt5_results) -> Vec<Vec<Output>> {
    // SAFETY: they came from a call and are freed after they were copied.
    unsafe {
        let output = |output: *const pt5_output| {
            let pt5_output { text, text_len, ids, logprobs, count, score, finish, alternatives, alternatives_each } =
                &*output;
            let bytes = slice::from_raw_parts(text.cast::<u8>(), text_len + 1);
            assert_eq!(bytes[*text_len], 0);
            let logprobs = if logprobs.is_null() { &[] } else { slice::from_raw_parts(*logprobs, *count) };
            Output {
                text: str::from_utf8(&bytes[..*text_len]).unwrap().to_owned(),
                ids: slice::from_raw_parts(*ids, *count).to_vec(),
                logprobs: logprobs.to_vec(),
                alternatives: match alternatives.is_null() {
                    true => Vec::new(),
                    false => slice::from_raw_parts(*alternatives, count * alternatives_each)
                        .chunks_exact(*alternatives_each)
                        .map(|tokens| tokens.iter().map(|token| (token.id, token.logprob)).collect())
                        .collect(),
                },
                score: *score,
                finish: match finish {
                    pt5_finish::PT5_FINISH_EOS => t5_runtime::Finish::EndOfSequence,
                    pt5_finish::PT5_FINISH_CANCELLED => t5_runtime::Finish::Cancelled,
                    pt5_finish::PT5_FINISH_STOP => t5_runtime::Finish::Stop,
                    other => panic!("{other:?}"),
                },
            }
        };
        let texts = 0..pt5_results_texts(results);
        let all = texts.map(|text| {
            let ranks = 0..pt5_results_outputs(results, text);
            ranks.map(|rank| output(pt5_results_get(results, text, rank))).collect()
        });
        let all = all.collect();
        pt5_results_free(results);
        all
    }
}

#[test]
fn results_are_those_of_the_library() {
    let open = Open::new();
    let mut session = Model::pocket().unwrap().session();
    let mut library = |text: &CStr, options| session.generate(text.to_str().unwrap(), &options).unwrap().finish();
    assert_eq!(open.generate(GERMAN, &options()), library(GERMAN, GenerateOptions::default()));

    let beams = pt5_options { beams: 4, n_best: 3, max_new_tokens: 40, ..options() };
    let expected = GenerateOptions::default().beams(4).n_best(3).max_new_tokens(40);
    assert_eq!(open.generate(GERMAN, &beams), library(GERMAN, expected));

    let json = CString::new(r#"{"top_k": 5, "repetition_penalty": 1.5}"#).unwrap();
    let draws = pt5_options { temperature: 0.75, seed: 7, json: json.as_ptr(), ..options() };
    let expected = GenerateOptions::default().temperature(0.75).seed(7).top_k(5).repetition_penalty(1.5);
    assert_eq!(open.generate(FRENCH, &draws), library(FRENCH, expected));

    let json = CString::new(r#"{"top_logprobs": 3}"#).unwrap();
    let alternatives = open.generate(GERMAN, &pt5_options { json: json.as_ptr(), ..options() });
    assert_eq!(alternatives, library(GERMAN, GenerateOptions::default().top_logprobs(3)));
    assert_eq!(alternatives[0].alternatives.len(), alternatives[0].ids.len());

    let stop = [c"Bahn".as_ptr()];
    let stopped = pt5_options { stop: stop.as_ptr(), stop_count: 1, ..options() };
    let stopped = open.generate(GERMAN, &stopped);
    assert_eq!(stopped, library(GERMAN, GenerateOptions::default().stop(["Bahn".to_owned()])));
    assert_eq!(stopped[0].text, "Wo ist der ");

    let json = CString::new(r#"{"logprobs": false}"#).unwrap();
    let without = open.generate(GERMAN, &pt5_options { json: json.as_ptr(), ..options() });
    assert!(without[0].logprobs.is_empty() && without[0].score.is_nan() && !without[0].ids.is_empty());
}

#[test]
fn ids_give_what_their_text_gives() {
    let open = Open::new();
    let (mut ids, mut count, mut results) = (ptr::null_mut(), 0, ptr::null_mut());
    // SAFETY: all that is given lives as long as the calls.
    unsafe {
        ok(pt5_tokenize(open.model, GERMAN.as_ptr(), GERMAN.count_bytes(), &mut ids, &mut count));
        ok(pt5_generate_ids(open.session, ids, count, ptr::null(), None, ptr::null_mut(), &mut results));
        let (mut text, mut len) = (ptr::null_mut(), 0);
        ok(pt5_detokenize(open.model, ids, count, 1, &mut text, &mut len));
        assert_eq!(CStr::from_ptr(text), GERMAN);
        assert_eq!(len, GERMAN.count_bytes());
        pt5_free(text.cast());
        pt5_free(ids.cast());
    }
    assert_eq!(taken(results).remove(0), open.generate(GERMAN, &options()));
}

/// What a callback has heard, and when it has heard enough.
#[derive(Default)]
struct Heard {
    texts: [String; 2],
    pieces: usize,
    enough: Option<usize>,
}

unsafe extern "C" fn hear(user: *mut c_void, index: usize, piece: *const c_char, len: usize) -> c_int {
    // SAFETY: what the tests below give, and a piece with a zero behind it.
    let (heard, piece) = unsafe { (&mut *user.cast::<Heard>(), CStr::from_ptr(piece).to_str().unwrap()) };
    assert_eq!(piece.len(), len);
    heard.texts[index].push_str(piece);
    heard.pieces += 1;
    c_int::from(heard.enough == Some(heard.pieces))
}

#[test]
fn pieces_come_until_the_callback_has_enough() {
    let open = Open::new();
    let whole = open.generate(GERMAN, &options());
    let generate = |heard: &mut Heard| {
        let mut results = ptr::null_mut();
        let user = ptr::from_mut(heard).cast();
        // SAFETY: all that is given lives as long as the call.
        unsafe {
            ok(pt5_generate(open.session, GERMAN.as_ptr(), PT5_NUL, ptr::null(), Some(hear), user, &mut results));
        }
        taken(results).remove(0).remove(0)
    };
    let mut heard = Heard::default();
    assert_eq!(generate(&mut heard), whole[0]);
    assert_eq!(heard.texts[0], whole[0].text);
    assert!(heard.pieces > 2, "{}", heard.pieces);

    let mut heard = Heard { enough: Some(2), ..Heard::default() };
    let cut = generate(&mut heard);
    assert_eq!((heard.pieces, cut.finish), (2, t5_runtime::Finish::Cancelled));
    assert!(whole[0].text.starts_with(&cut.text) && cut.text.starts_with(&heard.texts[0]), "{cut:?}");
    assert!(cut.ids.len() < whole[0].ids.len());
    // The session is as good as before.
    assert_eq!(open.generate(GERMAN, &options()), whole);
}

#[test]
fn a_batch_gives_what_each_text_gives_alone() {
    let open = Open::new();
    let texts = [GERMAN.as_ptr(), FRENCH.as_ptr()];
    let lens = [GERMAN.count_bytes(), FRENCH.count_bytes()];
    for beams in [1, 3] {
        let options = pt5_options { beams, n_best: beams, ..options() };
        let mut heard = Heard::default();
        let mut results = ptr::null_mut();
        let user = ptr::from_mut(&mut heard).cast();
        let (texts, lens) = (texts.as_ptr(), lens.as_ptr());
        // SAFETY: all that is given lives as long as the call.
        unsafe { ok(pt5_generate_batch(open.session, texts, lens, 2, &options, Some(hear), user, &mut results)) };
        let results = taken(results);
        assert_eq!(results, [open.generate(GERMAN, &options), open.generate(FRENCH, &options)]);
        assert_eq!(heard.texts.each_ref(), [&results[0][0].text, &results[1][0].text]);
    }
    // The text of the first piece is ended by it, the other goes on.
    let mut heard = Heard { enough: Some(1), ..Heard::default() };
    let mut results = ptr::null_mut();
    let user = ptr::from_mut(&mut heard).cast();
    let (texts, none) = (texts.as_ptr(), ptr::null());
    // SAFETY: as above.
    unsafe { ok(pt5_generate_batch(open.session, texts, none, 2, ptr::null(), Some(hear), user, &mut results)) };
    let results = taken(results).concat();
    let (ended, whole) = if results[0].finish == t5_runtime::Finish::Cancelled { (0, 1) } else { (1, 0) };
    assert_eq!(results[ended].finish, t5_runtime::Finish::Cancelled);
    assert_eq!(results[whole], open.generate([GERMAN, FRENCH][whole], &options())[0]);
    assert_eq!(heard.texts[whole], results[whole].text);
    let mut results = ptr::null_mut();
    // None at all is a batch, too.
    // SAFETY: nothing is given but where results go.
    unsafe {
        let (none, user) = (ptr::null(), ptr::null_mut());
        ok(pt5_generate_batch(open.session, ptr::null(), none, 0, ptr::null(), None, user, &mut results));
    }
    assert!(taken(results).is_empty());
}

#[test]
fn scores_choices_and_embeddings_are_those_of_the_library() {
    let open = Open::new();
    let mut session = Model::pocket().unwrap().session();
    let (target, mut results) = (c"Wo ist der Bahnhof?", ptr::null_mut());
    let choices = [c"Guten Abend.".as_ptr(), c"Guten Morgen.".as_ptr()];
    let mut ranked = [pt5_choice { index: 9, logprob: 0.0, probability: 0.0 }; 2];
    let texts = [GERMAN.as_ptr(), FRENCH.as_ptr()];
    let pooling = c"none";
    let (mut one, mut states) = (ptr::null_mut(), ptr::null_mut());
    let of_tokens = pt5_embed_options { pooling: pooling.as_ptr(), blocks_from_end: 1, ..embed_options() };
    // SAFETY: all that is given lives as long as the calls.
    unsafe {
        ok(pt5_score(open.session, GERMAN.as_ptr(), PT5_NUL, target.as_ptr(), PT5_NUL, &mut results));
        let text = c"translate English to German: Good morning.";
        let (choices, none) = (choices.as_ptr(), ptr::null());
        ok(pt5_choose(open.session, text.as_ptr(), PT5_NUL, choices, none, 2, ranked.as_mut_ptr()));
        ok(pt5_embed(open.session, texts.as_ptr(), none, 2, ptr::null(), &mut one));
        ok(pt5_embed(open.session, texts.as_ptr(), none, 2, &of_tokens, &mut states));
    }
    let score = taken(results).remove(0).remove(0);
    let expected = session.score(GERMAN.to_str().unwrap(), target.to_str().unwrap()).unwrap();
    assert_eq!((score.ids, score.logprobs, score.score), (expected.ids, expected.logprobs, expected.sum));
    assert_eq!((ranked[0].index, ranked[1].index), (1, 0));
    assert!(ranked[0].probability > 0.9 && (ranked[0].probability + ranked[1].probability - 1.0).abs() < 1e-6);

    let texts = [GERMAN.to_str().unwrap(), FRENCH.to_str().unwrap()];
    let layer = EncodeOptions { pooling: Some(Pooling::None), layer: Some(-2), ..EncodeOptions::default() };
    for (embeddings, options) in [(one, EncodeOptions::default()), (states, layer)] {
        let expected = session.encode_batch(&texts, &options).unwrap();
        // SAFETY: they came from a call, and are freed once they were read.
        unsafe {
            assert_eq!(pt5_embeddings_count(embeddings), 2);
            for (text, expected) in expected.iter().enumerate() {
                let states = &*pt5_embeddings_get(embeddings, text);
                assert_eq!((states.rows, states.width, states.tokens), (expected.rows, 256, expected.tokens));
                assert_eq!(slice::from_raw_parts(states.values, states.rows * states.width), expected.values);
                assert_eq!(slice::from_raw_parts(states.ids, states.ids_count), expected.input_ids);
            }
            assert!(pt5_embeddings_get(embeddings, 2).is_null());
            pt5_embeddings_free(embeddings);
        }
    }
}

#[test]
fn a_request_ends_when_it_is_cancelled() {
    let open = Open::new();
    let (mut cancel, mut embeddings) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the flag lives until it is freed.
    unsafe { ok(pt5_cancel_new(&mut cancel)) };
    let options = pt5_options { cancel, max_new_tokens: 1000, ..options() };
    assert_eq!(open.generate(GERMAN, &options)[0].finish, t5_runtime::Finish::EndOfSequence);
    let texts = [GERMAN.as_ptr()];
    // SAFETY: all that is given lives as long as the call.
    unsafe {
        pt5_cancel_set(cancel);
        let embed = pt5_embed_options { cancel, ..embed_options() };
        let status = pt5_embed(open.session, texts.as_ptr(), ptr::null(), 1, &embed, &mut embeddings);
        refused(status, pt5_status::PT5_CANCELLED, "the request was cancelled");
    }
    let cancelled = open.generate(GERMAN, &options);
    assert_eq!((cancelled[0].finish, cancelled[0].ids.len()), (t5_runtime::Finish::Cancelled, 0));
    let mut results = ptr::null_mut();
    // SAFETY: as above; the flag is freed after its last request.
    unsafe {
        let (none, user) = (ptr::null(), ptr::null_mut());
        ok(pt5_generate_batch(open.session, texts.as_ptr(), none, 1, &options, None, user, &mut results));
        pt5_cancel_free(cancel);
    }
    assert_eq!(taken(results)[0][0].finish, t5_runtime::Finish::Cancelled);
}

unsafe extern "C" fn call_again(user: *mut c_void, _: usize, _: *const c_char, _: usize) -> c_int {
    let session = user.cast::<pt5_session>();
    // SAFETY: the session of the call in which this is.
    let inner = unsafe { pt5_generate(session, GERMAN.as_ptr(), PT5_NUL, ptr::null(), None, user, ptr::null_mut()) };
    let message = "session: expected one that is free, found one that works on another call";
    refused(inner, pt5_status::PT5_BUSY, message);
    0
}

#[test]
fn a_session_that_works_is_busy() {
    let open = Open::new();
    let user = open.session.cast();
    // SAFETY: all that is given lives as long as the call.
    ok(unsafe {
        pt5_generate(open.session, GERMAN.as_ptr(), PT5_NUL, ptr::null(), Some(call_again), user, ptr::null_mut())
    });
}

fn family() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families/unigram")
}

#[test]
fn models_come_from_folders_and_memory() {
    let path = CString::new(family().to_str().unwrap()).unwrap();
    let (mut model, mut json) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: all that is given lives as long as the calls.
    unsafe {
        // SAFETY: zeros are options.
        let options = pt5_model_options { size: size_of::<pt5_model_options>(), ..std::mem::zeroed() };
        let scalar = pt5_model_options { isa: c"scalar".as_ptr(), copy: 1, ..options };
        ok(pt5_model_open(path.as_ptr(), &scalar, &mut model));
        ok(pt5_model_info(model, &mut json));
        let info: serde_json::Value = serde_json::from_slice(CStr::from_ptr(json).to_bytes()).unwrap();
        pt5_free(json.cast());
        pt5_model_free(model);
        assert_eq!((info["isa"].as_str(), info["config"]["model_type"].as_str()), (Some("scalar"), Some("t5")));
        assert_eq!(info["tokenizer"]["eos_id"], 1);

        let bytes = t5_runtime::pocket::bytes();
        ok(pt5_model_open_memory(bytes.as_ptr(), bytes.len(), ptr::null(), &mut model));
        pt5_model_free(model);
        let status = pt5_model_open_memory(bytes.as_ptr(), bytes.len() / 2, ptr::null(), &mut model);
        assert_eq!((status, model), (pt5_status::PT5_MODEL, ptr::null_mut()));
        assert!(last_error().starts_with("a file in memory: "), "{}", last_error());

        let status = pt5_model_open(c"/nowhere/model".as_ptr(), ptr::null(), &mut model);
        assert_eq!((status, model), (pt5_status::PT5_IO, ptr::null_mut()));
        assert!(last_error().starts_with("/nowhere/model: "), "{}", last_error());
        let empty = "expected a file or a folder, found an empty name";
        let status = pt5_model_open(c"".as_ptr(), ptr::null(), &mut model);
        refused(status, pt5_status::PT5_OPTION, &format!("model: {empty}"));
        let options_of = |tokenizer, packed| pt5_model_options { tokenizer, packed, ..options };
        let status = pt5_model_open(path.as_ptr(), &options_of(c"".as_ptr(), ptr::null()), &mut model);
        refused(status, pt5_status::PT5_OPTION, &format!("tokenizer: {empty}"));
        let status = pt5_model_open(path.as_ptr(), &options_of(ptr::null(), c"".as_ptr()), &mut model);
        refused(status, pt5_status::PT5_OPTION, &format!("packed: {empty}"));
        let unknown = pt5_model_options { isa: c"avx3".as_ptr(), ..options };
        assert_eq!(pt5_model_open(path.as_ptr(), &unknown, &mut model), pt5_status::PT5_OPTION);
        let status = pt5_model_open(c"hf:no-name".as_ptr(), ptr::null(), &mut model);
        assert_eq!(status, pt5_status::PT5_HUB, "{}", last_error());
        let tokenizer = pt5_model_options { tokenizer: c"/nowhere/tokenizer.json".as_ptr(), ..options };
        assert_eq!(pt5_model_open(path.as_ptr(), &tokenizer, &mut model), pt5_status::PT5_IO, "{}", last_error());
    }
}

#[test]
fn what_is_wrong_is_said() {
    use pt5_status::{PT5_ARGUMENT, PT5_OPTION};
    let open = Open::new();
    let text = GERMAN.as_ptr();
    let (none, user) = (ptr::null::<pt5_options>(), ptr::null_mut());
    let mut results: *mut pt5_results = ptr::dangling_mut();
    let (mut model, mut ids, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
    // SAFETY: what is wrong here is what calls promise to see.
    unsafe {
        let mut generate = |session, text, len, options| {
            let status = pt5_generate(session, text, len, options, None, user, &mut results);
            assert!(results.is_null());
            results = ptr::dangling_mut();
            status
        };
        let nowhere = generate(ptr::null(), text, PT5_NUL, none);
        refused(nowhere, PT5_ARGUMENT, "session: expected a pointer, found NULL");
        refused(generate(open.session, ptr::null(), 3, none), PT5_ARGUMENT, "text: expected a text, found NULL");
        let latin = c"caf\xe9";
        let message = "text: expected UTF-8, found other bytes from byte 3 on";
        refused(generate(open.session, latin.as_ptr(), PT5_NUL, none), PT5_ARGUMENT, message);
        refused(generate(open.session, latin.as_ptr(), 4, none), PT5_ARGUMENT, message);
        let long = usize::MAX - 1;
        let message = format!("text: expected what fits memory, found {long} elements");
        refused(generate(open.session, text, long, none), PT5_ARGUMENT, &message);
        let odd = ptr::without_provenance::<pt5_session>(9);
        let message = "session: expected a pointer, found one that is not aligned";
        refused(generate(odd, text, PT5_NUL, none), PT5_ARGUMENT, message);

        let unset = pt5_options { size: 0, ..options() };
        let message = "pt5_options: size: expected sizeof(pt5_options), found 0";
        refused(generate(open.session, text, PT5_NUL, &unset), PT5_ARGUMENT, message);
        for (json, message) in [
            (c"{\"beam\": 2}", "options: there is no option \"beam\""),
            (c"{\"top_k\": \"x\"}", "top_k: expected a whole number of 0 or more, found \"x\""),
            (c"[]", "json: expected an object, found []"),
            (c"{\"beams\": 2}", "beams: expected in its field or in json, found in both"),
        ] {
            let wrong = pt5_options { json: json.as_ptr(), beams: 3, ..options() };
            refused(generate(open.session, text, PT5_NUL, &wrong), PT5_OPTION, message);
        }
        let wrong = pt5_options { temperature: f32::NAN, ..options() };
        refused(
            generate(open.session, text, PT5_NUL, &wrong),
            PT5_OPTION,
            "temperature: expected 0 or more, found NaN",
        );
        let task = pt5_options { task: c"none".as_ptr(), ..options() };
        assert_eq!(generate(open.session, text, PT5_NUL, &task), PT5_OPTION);
        let choices = [text, ptr::null()];
        let task = pt5_options { choices: choices.as_ptr(), choices_count: 2, ..options() };
        refused(generate(open.session, text, PT5_NUL, &task), PT5_ARGUMENT, "choices[1]: expected a text, found NULL");

        let texts = [text, latin.as_ptr()];
        let mut batch = |count, options| {
            pt5_generate_batch(open.session, texts.as_ptr(), ptr::null(), count, options, None, user, &mut results)
        };
        let message = "texts[1]: expected UTF-8, found other bytes from byte 3 on";
        refused(batch(2, none), PT5_ARGUMENT, message);
        let huge = usize::MAX / 2;
        let message = format!("texts: expected what fits memory, found {huge} elements");
        refused(batch(huge, none), PT5_ARGUMENT, &message);
        let short = pt5_options { json: c"{\"max_input_tokens\": 3}".as_ptr(), ..options() };
        assert_eq!(batch(1, &short), PT5_OPTION);
        assert!(last_error().starts_with("texts[0]: max_input_tokens: expected at most 3 tokens, found "));

        refused(pt5_model_builtin(ptr::null(), ptr::null_mut()), PT5_ARGUMENT, "model: expected a pointer, found NULL");
        let status = pt5_session_new(open.model, 65, &mut ptr::null_mut());
        refused(status, PT5_ARGUMENT, "threads: expected at most 64, found 65");
        let status = pt5_model_open_memory(ptr::null(), 8, ptr::null(), &mut model);
        refused(status, PT5_ARGUMENT, "bytes: expected a pointer, found NULL");
        let status = pt5_tokenize(open.model, text, PT5_NUL, ptr::null_mut(), &mut count);
        refused(status, PT5_ARGUMENT, "ids: expected a pointer, found NULL");
        let status = pt5_tokenize(open.model, text, PT5_NUL, &mut ids, ptr::null_mut());
        refused(status, PT5_ARGUMENT, "count: expected a pointer, found NULL");
        let unknown = [5, 8_107];
        let status = pt5_detokenize(open.model, unknown.as_ptr(), 2, 1, &mut ptr::null_mut(), ptr::null_mut());
        refused(status, PT5_ARGUMENT, "ids: expected ids below 8107, found 8107");
        let (first, mut place) = ([text], [pt5_choice { index: 0, logprob: 0.0, probability: 0.0 }]);
        let choose =
            |count, ranked| pt5_choose(open.session, text, PT5_NUL, first.as_ptr(), ptr::null(), count, ranked);
        refused(choose(1, ptr::null_mut()), PT5_ARGUMENT, "ranked: expected a pointer, found NULL");
        let message = "choices: expected at least one text, found none";
        refused(choose(0, place.as_mut_ptr()), PT5_OPTION, message);
        let pooled = pt5_embed_options { pooling: c"sum".as_ptr(), ..embed_options() };
        let status = pt5_embed(open.session, first.as_ptr(), ptr::null(), 1, &pooled, &mut ptr::null_mut());
        assert_eq!(status, PT5_OPTION);
        let deep = pt5_embed_options { blocks_from_end: 99, ..embed_options() };
        let status = pt5_embed(open.session, first.as_ptr(), ptr::null(), 1, &deep, &mut ptr::null_mut());
        refused(status, PT5_OPTION, "blocks_from_end: expected 0 to 4, found 99");

        // What has nothing to say of itself.
        assert_eq!((pt5_results_texts(ptr::null()), pt5_results_outputs(ptr::null(), 0)), (0, 0));
        assert!(pt5_results_get(ptr::null(), 0, 0).is_null() && pt5_embeddings_get(ptr::null(), 0).is_null());
        pt5_results_free(ptr::null_mut());
        pt5_model_free(ptr::null_mut());
        pt5_session_free(ptr::null_mut());
        pt5_cancel_free(ptr::null_mut());
        pt5_cancel_set(ptr::null());
        pt5_free(ptr::null_mut());
    }
    // After all of it, the session works.
    assert_eq!(open.generate(GERMAN, &options())[0].text, "Wo ist der Bahnhof?");
}
