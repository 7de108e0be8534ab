//! Many texts, their sentences side by side.

use std::collections::VecDeque;

use super::decoding::{Decoding, Outcome};
use super::plan::Plan;
use super::{GenerateOptions, Output, SIDE_BY_SIDE, SourceText};
use crate::error::Result;
use crate::session::Session;
use crate::under_way::Pieces;

/// Sentences that are decoded side by side: (text, sentence) of each.
struct Group {
    sentences: Vec<(usize, usize)>,
    options: GenerateOptions,
}

pub(super) struct Texts {
    sources: Vec<SourceText>,
    waiting: VecDeque<Group>,
    current: Option<(Vec<(usize, usize)>, Decoding)>,
    /// Of each text the results of the sentences that are done, in their order.
    done: Vec<Vec<Vec<Output>>>,
    stop: Vec<String>,
    /// Bytes of a forced prefix, with which the results of a first sentence begin.
    prefix_len: usize,
}

impl Texts {
    /// # Errors
    /// For wrong options and sources.
    pub fn begin(session: &mut Session, sources: Vec<SourceText>, options: &GenerateOptions) -> Result<Texts> {
        let plan = Plan::new(&session.model, options)?;
        let together = (SIDE_BY_SIDE / plan.sequences()).max(1);
        session.decoder()?;
        for ids in sources.iter().flat_map(SourceText::sentences) {
            session.model.check_source(ids)?;
        }
        // A forced prefix is the beginning of the first sentence of each text.
        let begins = if options.has_prefix() { 1 } else { usize::MAX };
        let places = |skip, take| -> Vec<(usize, usize)> {
            let of = |(text, source): (usize, &SourceText)| (0..source.sentences().len()).map(move |one| (text, one));
            sources.iter().enumerate().flat_map(|one| of(one).skip(skip).take(take)).collect()
        };
        let groups = |places: Vec<(usize, usize)>, options: GenerateOptions| -> Vec<Group> {
            let group = |some: &[(usize, usize)]| Group { sentences: some.to_vec(), options: options.clone() };
            places.chunks(together).map(group).collect()
        };
        let mut waiting = VecDeque::from(groups(places(0, begins), options.clone()));
        waiting.extend(groups(places(begins, usize::MAX), options.without_prefix()));
        let done = vec![Vec::new(); sources.len()];
        Ok(Texts { sources, waiting, current: None, done, stop: options.stop.clone(), prefix_len: plan.prefix_len })
    }
}

impl Pieces for Texts {
    type Results = Vec<Vec<Output>>;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        let Some((sentences, decoding)) = &mut self.current else {
            let Some(Group { sentences, options }) = self.waiting.pop_front() else { return Ok(false) };
            let ids = |&(text, one): &(usize, usize)| self.sources[text].sentences()[one].as_slice();
            let sources: Vec<&[u32]> = sentences.iter().map(ids).collect();
            let decoding = Decoding::begin(session, &sources, &options)?;
            self.current = Some((sentences, decoding));
            return Ok(true);
        };
        if decoding.work(session)? != Outcome::Done {
            return Ok(true);
        }
        for (&(text, _), results) in sentences.iter().zip(decoding.results(session)) {
            self.done[text].push(results);
        }
        self.current = None;
        Ok(!self.waiting.is_empty())
    }

    /// For each text its results, best first.
    fn results(self: Box<Self>) -> Vec<Vec<Output>> {
        let join = |(source, results): (&SourceText, _)| source.join(results, &self.stop, self.prefix_len);
        self.sources.iter().zip(self.done).map(join).collect()
    }
}
