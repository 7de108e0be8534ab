//! Generating, scoring and choosing.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use t5_runtime::{Batch, BatchEvent, Choices, GenerateOptions, Output, Session, SourceText};

use crate::border::{Failure, Result, array, call, check, hand_over, out, pt5_status, reference, text, texts};
use crate::cancel::Cancel;
use crate::options::{self, pt5_options};
use crate::results::pt5_results;
use crate::session::pt5_session;

/// Gets a piece of a text as soon as it is there: its `len` bytes, with a zero behind them, never end inside a
/// character. `index` is the text's place in its batch. Beams and several draws come as a whole, or sentence by
/// sentence. Anything but 0 ends this text, which then has PT5_FINISH_CANCELLED.
pub type pt5_piece =
    Option<unsafe extern "C" fn(user: *mut c_void, index: usize, piece: *const c_char, len: usize) -> c_int>;

/// Whom to tell of pieces.
struct Listener {
    piece: pt5_piece,
    user: *mut c_void,
    /// The piece with a zero behind it.
    buffer: Vec<u8>,
}

impl Listener {
    fn new(piece: pt5_piece, user: *mut c_void) -> Listener {
        Listener { piece, user, buffer: Vec::new() }
    }

    /// Whether more is wanted.
    fn hears(&mut self, index: usize, piece: &str) -> bool {
        let Some(function) = self.piece else { return true };
        self.buffer.clear();
        self.buffer.extend_from_slice(piece.as_bytes());
        self.buffer.push(0);
        // SAFETY: the caller's function, called as the header says; the buffer outlives the call.
        unsafe { function(self.user, index, self.buffer.as_ptr().cast(), piece.len()) == 0 }
    }
}

/// Generates for a text. `piece` gets it as it comes; it and `results` may be NULL. Where memory runs out in the midst
/// of it, the output ends there, with PT5_FINISH_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_generate(
    session: *const pt5_session,
    text: *const c_char,
    len: usize,
    options: *const pt5_options,
    piece: pt5_piece,
    user: *mut c_void,
    results: *mut *mut pt5_results,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let request = Request::read(session, options, piece, user, results)?;
        let text = crate::border::text("text", text, len)?;
        request.one(|options, session| Ok(options.source(session.model(), text)?))
    })
}

/// As pt5_generate, from ids (which should end with the model's end token), before which no prefix is put.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_generate_ids(
    session: *const pt5_session,
    ids: *const u32,
    count: usize,
    options: *const pt5_options,
    piece: pt5_piece,
    user: *mut c_void,
    results: *mut *mut pt5_results,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let request = Request::read(session, options, piece, user, results)?;
        let ids = array("ids", ids, count)?;
        request.one(|options, session| Ok(options.source_of_ids(session.model(), ids)?))
    })
}

/// Generates for `count` texts side by side, which takes far less time than one after the other, and gives each the
/// same output. `lens` may be NULL where a zero ends each text. One that is wrong, or for which there is no memory,
/// fails the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_generate_batch(
    session: *const pt5_session,
    texts: *const *const c_char,
    lens: *const usize,
    count: usize,
    options: *const pt5_options,
    piece: pt5_piece,
    user: *mut c_void,
    results: *mut *mut pt5_results,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let request = Request::read(session, options, piece, user, results)?;
        let texts = crate::border::texts("texts", texts, lens, count)?;
        request.batch(&texts)
    })
}

/// A request whose arguments were read, apart from its texts.
struct Request<'a> {
    session: &'a pt5_session,
    overrides: t5_runtime::Overrides,
    cancel: Cancel,
    listener: Listener,
    results: Option<&'a mut *mut pt5_results>,
}

impl Request<'_> {
    /// # Safety
    /// As the header says.
    unsafe fn read<'a>(
        session: *const pt5_session,
        options: *const pt5_options,
        piece: pt5_piece,
        user: *mut c_void,
        results: *mut *mut pt5_results,
    ) -> Result<Request<'a>> {
        // SAFETY: as the caller says.
        unsafe {
            let results = if results.is_null() { None } else { Some(out("results", results)?) };
            let session = reference("session", session)?;
            let (overrides, cancel) = options::read(options)?;
            Ok(Request { session, overrides, cancel, listener: Listener::new(piece, user), results })
        }
    }

    fn one(mut self, source: impl FnOnce(&GenerateOptions, &Session) -> Result<SourceText>) -> Result<()> {
        let Request { session, overrides, cancel, listener, .. } = &mut self;
        let outputs = session.work(|working| {
            let options = working.model.options(overrides)?;
            let source = source(&options, working.session())?;
            stream(working.session(), source, options, cancel, listener)
        })?;
        self.give(vec![outputs]);
        Ok(())
    }

    fn batch(mut self, texts: &[&str]) -> Result<()> {
        let Request { session, overrides, cancel, listener, .. } = &mut self;
        let results = session.work(|working| {
            let options = working.model.options(overrides)?;
            side_by_side(working.session(), texts, &options, cancel, listener)
        })?;
        self.give(results);
        Ok(())
    }

    fn give(self, results: Vec<Vec<Output>>) {
        if let Some(out) = self.results {
            hand_over(out, pt5_results::new(results));
        }
    }
}

/// Generates for one source, and tells of each piece.
fn stream(
    session: &mut Session,
    source: SourceText,
    options: GenerateOptions,
    cancel: &Cancel,
    listener: &mut Listener,
) -> Result<Vec<Output>> {
    let end = Arc::new(AtomicBool::new(false));
    let options = options.cancel(end.clone());
    let mut generation = session.generate_source(source, &options)?;
    let mut wanted = true;
    loop {
        if cancel.is_set() {
            end.store(true, Ordering::Relaxed);
        }
        let more = generation.work();
        while wanted && let Some(piece) = generation.ready_piece() {
            wanted = listener.hears(0, piece);
            if !wanted {
                end.store(true, Ordering::Relaxed);
            }
        }
        if !more {
            return Ok(generation.finish());
        }
    }
}

/// Generates for several texts, and tells of each piece.
fn side_by_side(
    session: &mut Session,
    texts: &[&str],
    options: &GenerateOptions,
    cancel: &Cancel,
    listener: &mut Listener,
) -> Result<Vec<Vec<Output>>> {
    let mut batch = Batch::new(session, options.sequences_of(texts.len()))?;
    let mut places = HashMap::new();
    for (place, text) in texts.iter().enumerate() {
        let id = batch.add(text, options).map_err(|error| {
            let Failure { status, message } = error.into();
            Failure::new(status, format!("texts[{place}]: {message}"))
        })?;
        places.insert(id, place);
    }
    let mut results = vec![Vec::new(); texts.len()];
    let mut wanted = vec![true; texts.len()];
    while !batch.is_empty() {
        if cancel.is_set() {
            places.keys().for_each(|&id| batch.cancel(id));
        }
        for event in batch.step() {
            match event {
                BatchEvent::Piece { id, text, .. } => {
                    let place = places[&id];
                    if wanted[place] && !listener.hears(place, &text) {
                        wanted[place] = false;
                        batch.cancel(id);
                    }
                }
                BatchEvent::Done { id, outputs } => results[places[&id]] = outputs,
                BatchEvent::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(results)
}

/// How likely the model holds a target to be as the answer to a source: one output with the target's ids, the
/// log-probability of each, and as score their sum.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_score(
    session: *const pt5_session,
    source: *const c_char,
    source_len: usize,
    target: *const c_char,
    target_len: usize,
    results: *mut *mut pt5_results,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("results", results)?;
        let session = reference("session", session)?;
        let (source, target) = (text("source", source, source_len)?, text("target", target, target_len)?);
        let score = session.work(|working| Ok(working.session().score(source, target)?))?;
        hand_over(out, pt5_results::of_score(target, score));
        Ok(())
    })
}

/// One of several texts, and how likely it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct pt5_choice {
    /// Its place among the choices, from 0.
    pub index: usize,
    /// Its log-probability.
    pub logprob: f32,
    /// Its share: all of them together have 1.
    pub probability: f32,
}

/// How likely each of `count` choices is as the answer to a text: fills `ranked`, which has as many places, the
/// likeliest first. `lens` may be NULL where a zero ends each choice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_choose(
    session: *const pt5_session,
    text: *const c_char,
    len: usize,
    choices: *const *const c_char,
    lens: *const usize,
    count: usize,
    ranked: *mut pt5_choice,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        check("ranked", ranked)?;
        let session = reference("session", session)?;
        let text = crate::border::text("text", text, len)?;
        let choices = texts("choices", choices, lens, count)?;
        let found = session.work(|working| {
            let choices = Choices::new(&working.model, &choices)?;
            Ok(working.session().choose(text, &choices)?)
        })?;
        for (place, choice) in found.into_iter().enumerate() {
            let t5_runtime::Choice { index, logprob, probability, .. } = choice;
            ranked.add(place).write(pt5_choice { index, logprob, probability });
        }
        Ok(())
    })
}
