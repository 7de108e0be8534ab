//! A text as a model reads it, whole, sentence by sentence or word by word, and its results put together again.

use super::options::GenerateOptions;
use super::settings::{GenerationDefaults, Settings};
use super::{Finish, Output};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::sentences::{ends_wide, sentences};

/// Whether a text is cut into sentences that the model reads one at a time, as models of translation want it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SplitSentences {
    /// Never.
    #[default]
    No,
    /// Always.
    Yes,
    /// As the task says whose prefix the text begins with; where it says nothing, or there is none, as the checkpoint
    /// says of all texts.
    ByTask,
}

impl From<bool> for SplitSentences {
    fn from(yes: bool) -> SplitSentences {
        if yes { SplitSentences::Yes } else { SplitSentences::No }
    }
}

/// The ids of a text: of all of it, or of each of its sentences, which may be words that are spelled out.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceText {
    /// In their order; each with a task's prefix before it and `</s>` behind it. At least one.
    sentences: Vec<Vec<u32>>,
    /// What stands before each sentence in the text, and behind the last one; the results have it, too.
    between: Vec<String>,
}

impl From<&[u32]> for SourceText {
    fn from(ids: &[u32]) -> SourceText {
        SourceText { sentences: vec![ids.to_vec()], between: vec![String::new(); 2] }
    }
}

impl SourceText {
    /// Cuts a text as the options, or the model's tasks, want it. A task's prefix before the text stands before each
    /// sentence, and before each word that is spelled out. A text of one sentence is read whole.
    pub(crate) fn new(model: &Model, text: &str, options: &GenerateOptions) -> Result<SourceText> {
        let tokenizer = model.tokenizer()?;
        let whole = if options.source_prefix.is_empty() { text } else { &format!("{}{text}", options.source_prefix) };
        let reading = Reading::new(model.generation_defaults(), whole, options);
        let (prefix, body) = whole.split_at(reading.prefix);
        let encode = |part: &str| tokenizer.encode(&[prefix, part].concat());
        if reading.spells {
            let words = spelled_words(body);
            let words = if reading.splits { words } else { vec![words.join(" ")] };
            let mut between = vec![" ".to_owned(); words.len() + 1];
            (between[0], between[words.len()]) = (String::new(), String::new());
            return Ok(SourceText { sentences: words.iter().map(|word| encode(word)).collect(), between });
        }
        let ranges = if reading.splits { sentences(body) } else { Vec::new() };
        if ranges.len() < 2 {
            return Ok(encode(body).as_slice().into());
        }
        let ends = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
        let begins = ranges.iter().map(|range| range.start).chain([body.len()]);
        let between = ends.zip(begins).map(|(end, begin)| body[end..begin].to_owned()).collect();
        Ok(SourceText { sentences: ranges.into_iter().map(|range| encode(&body[range])).collect(), between })
    }

    /// Refuses more ids than `most`, or cuts them off if wanted.
    pub(crate) fn limited(mut self, model: &Model, most: usize, truncate: bool) -> Result<SourceText> {
        let many = self.sentences.len() > 1;
        for (i, ids) in self.sentences.iter_mut().enumerate() {
            if ids.len() <= most {
                continue;
            }
            if !truncate {
                let place = if many { format!(" in sentence {}", i + 1) } else { String::new() };
                let what = format!("expected at most {most} tokens{place}, found {}", ids.len());
                return Err(Error::Option { option: "max_input_tokens", what });
            }
            let end = ids.last().copied().filter(|&id| id == model.end_id());
            ids.truncate(most);
            if let (Some(end), Some(last)) = (end, ids.last_mut()) {
                *last = end;
            }
        }
        Ok(self)
    }

    /// The ids of each sentence, or of the text as the only one.
    pub fn sentences(&self) -> &[Vec<u32>] {
        &self.sentences
    }

    /// What comes before the result of a sentence, or behind the last one, if the text so far is `text`.
    pub(super) fn before(&self, sentence: usize, text: &str) -> &str {
        match self.between[sentence].as_str() {
            // Chinese and Japanese need no space between sentences; what they are translated to may.
            "" if (1..self.sentences.len()).contains(&sentence) && !ends_wide(text) => " ",
            between => between,
        }
    }

    /// Puts the results of the sentences together as results of the text, best first: the i-th is made of the i-th of
    /// each sentence, or of its last where a sentence has fewer. The text ends with the first sentence that was cut
    /// short by anything but its limit of tokens. A sentence has no results if there was no memory for it. Those of the
    /// first begin with `prefix_len` bytes of a forced prefix.
    pub(super) fn join(&self, mut results: Vec<Vec<Output>>, stop: &[String], prefix_len: usize) -> Vec<Output> {
        if let ([_], [_]) = (self.sentences.as_slice(), results.as_slice()) {
            return results.remove(0);
        }
        let count = results.iter().map(Vec::len).max().unwrap_or(0);
        let from = self.behind_prefix(prefix_len);
        let ith = |i: usize| self.join_one(results.iter().map(|outputs| outputs.get(i).or(outputs.last())), stop, from);
        (0..count).map(ith).collect()
    }

    /// Where in the text's results stop strings are looked for: behind a forced prefix of so many bytes, if there is
    /// one, else from their beginning.
    pub(super) fn behind_prefix(&self, prefix_len: usize) -> usize {
        if prefix_len > 0 { self.before(0, "").len() + prefix_len } else { 0 }
    }

    /// The results of the sentences as one, in which stop strings are looked for from a byte on.
    fn join_one<'o>(
        &self,
        outputs: impl ExactSizeIterator<Item = Option<&'o Output>>,
        stop: &[String],
        from: usize,
    ) -> Output {
        let mut whole = Output {
            text: String::new(),
            ids: Vec::new(),
            logprobs: Vec::new(),
            alternatives: Vec::new(),
            score: 0.0,
            finish: Finish::EndOfSequence,
        };
        let complete = outputs.len() == self.sentences.len();
        for (sentence, output) in outputs.enumerate() {
            whole.text.push_str(self.before(sentence, &whole.text));
            let Some(output) = output else { continue };
            whole.text.push_str(&output.text);
            whole.ids.extend(&output.ids);
            whole.logprobs.extend(&output.logprobs);
            whole.alternatives.extend_from_slice(&output.alternatives);
            whole.score += output.score;
            if whole.stop(stop, from) {
                return whole;
            }
            match output.finish {
                Finish::EndOfSequence => {}
                short @ (Finish::Length | Finish::Blocked) => whole.finish = short,
                cut => return Output { finish: cut, ..whole },
            }
        }
        if !complete {
            return Output { finish: Finish::Memory, ..whole };
        }
        whole.text.push_str(self.before(self.sentences.len(), &whole.text));
        whole.stop(stop, from);
        whole
    }
}

/// How a text is read.
struct Reading {
    /// The length of the prefix before it.
    prefix: usize,
    /// Whether what follows is cut, into sentences, or into the words that are spelled out.
    splits: bool,
    spells: bool,
}

impl Reading {
    fn new(defaults: &GenerationDefaults, text: &str, options: &GenerateOptions) -> Reading {
        let task = defaults.task_of(text);
        let asked = |setting: fn(&Settings) -> Option<bool>| {
            task.and_then(|task| setting(&task.settings)).or_else(|| setting(&defaults.settings)).unwrap_or(false)
        };
        let spells = options.spell_words.unwrap_or_else(|| asked(|settings| settings.spell_words));
        let splits = match options.split_sentences {
            SplitSentences::No => false,
            // The answer is to all of it.
            _ if !options.choices.is_empty() => false,
            SplitSentences::Yes => true,
            SplitSentences::ByTask => spells || asked(|settings| settings.split_sentences),
        };
        // Behind the prefix of a task that was asked for, a text may go on as another task's prefix does.
        let typed = task.filter(|_| options.spell_words.is_none());
        let prefix = typed.map_or(0, |task| task.prefix.len()).max(options.source_prefix.len());
        Reading { prefix, splits, spells }
    }
}

/// The words of a text, each spelled out and without the marks around it; at least one, if of nothing. Where all are
/// single characters, they are the letters of a word that is spelled out already.
fn spelled_words(text: &str) -> Vec<String> {
    const AROUND: &str = ".,;:!?…\"“”„‚‘«»‹›()[]{}<>–—-/";
    let pieces: Vec<&str> = text.split_whitespace().collect();
    let trimmed = |piece: &&str| spelled(piece.trim_matches(|c| AROUND.contains(c)));
    let words: Vec<String> = pieces.iter().map(trimmed).filter(|word| !word.is_empty()).collect();
    if words.is_empty() || pieces.iter().all(|piece| piece.chars().nth(1).is_none()) {
        return vec![spelled(&pieces.concat())];
    }
    words
}

/// The letters of a word, small and with spaces between them.
fn spelled(word: &str) -> String {
    let letters: Vec<String> = word.to_lowercase().replace('’', "'").chars().map(String::from).collect();
    letters.join(" ")
}
