//! A result that follows a grammar: a regular expression or a JSON schema. `llguidance` tells which tokens may come
//! next.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use super::custom::{LogitsProcessor, keep_only};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tokenizer::Tokenizer;

/// First tokens that are followed one step further when a grammar is checked: more than the spellings of a space.
const FOLLOWED: usize = 8;

/// What a result must look like, in a model's vocabulary.
///
/// ```
/// use t5_runtime::{GenerateOptions, Grammar, Model};
///
/// let model = Model::pocket()?;
/// let grammar = Grammar::regex(&model, "Guten (Abend|Tag)[.!]")?;
/// let options = GenerateOptions::default().processor(grammar.processor());
/// let outputs = model.session().generate("translate English to German: Good morning.", &options)?.finish();
/// assert!(["Guten Tag.", "Guten Tag!", "Guten Abend.", "Guten Abend!"].contains(&outputs[0].text.as_str()));
/// # Ok::<(), t5_runtime::Error>(())
/// ```
pub struct Grammar {
    /// Before the first token.
    start: Matcher,
}

impl Grammar {
    /// A regular expression, in the syntax of the `regex` crate, that the whole text matches.
    ///
    /// # Errors
    /// If it is none, if the vocabulary cannot write what it begins with, or if the model has no tokenizer, or one of
    /// another kind than SentencePiece's and bytes.
    pub fn regex(model: &Model, pattern: &str) -> Result<Grammar> {
        let option = "regex";
        if let Err(error) = llguidance::derivre::RegexBuilder::new().mk_regex(pattern) {
            return Err(Error::Option { option, what: said(&error) });
        }
        Grammar::new(model, option, GrammarWithLexer::from_regex(pattern))
    }

    /// A JSON schema whose values the text is, without white space that the schema does not ask for. What of JSON
    /// Schema `llguidance` does not know is refused by name.
    ///
    /// Many T5 vocabularies have no token for `{` and `}`, which is said at once; ByT5's has.
    ///
    /// # Errors
    /// As [`Grammar::regex`].
    pub fn json_schema(model: &Model, schema: &str) -> Result<Grammar> {
        let option = "json_schema";
        let mut schema: Value = serde_json::from_str(schema).map_err(|error| Error::Option {
            option,
            what: format!("expected a JSON schema, found what is no JSON: {error}"),
        })?;
        if !schema.is_object() {
            return Err(Error::Option { option, what: format!("expected a JSON object, found {schema}") });
        }
        // A model that is free to choose may write spaces for ever.
        if schema.get("x-guidance").is_none() {
            schema["x-guidance"] = serde_json::json!({ "whitespace_flexible": false });
        }
        Grammar::new(model, option, GrammarWithLexer::from_json_schema(schema))
    }

    fn new(model: &Model, option: &'static str, mut body: GrammarWithLexer) -> Result<Grammar> {
        let wrong = |what: String| Error::Option { option, what };
        let tokenizer = model.tokenizer()?;
        let tokens = tokens(tokenizer, model.config().vocab_size)
            .ok_or_else(|| wrong("expected a model with a tokenizer of SentencePiece's or of bytes".to_owned()))?;
        let grammar = match tokenizer.drops_first_space() {
            // A text begins with the mark of a space, which is not written.
            true => {
                body.name = Some("body".to_owned());
                let start = GrammarWithLexer::from_lark("start: \" \" @body".to_owned());
                TopLevelGrammar { grammars: vec![start, body], max_tokens: None }
            }
            false => TopLevelGrammar::from_grammar(body),
        };
        let info = TokRxInfo::new(tokens.len() as u32, tokenizer.eos_id());
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &tokens)));
        let factory = ParserFactory::new_simple(&env).map(|mut factory| {
            factory.quiet();
            factory
        });
        let parser = factory.and_then(|factory| factory.create_parser(grammar));
        let mut start = Matcher::new(parser);
        let asked = start.deep_clone().compute_ff_bytes();
        let first = start.compute_mask_or_eos().map_err(|error| wrong(said(&error)))?;
        if blocked(&start, &first) {
            let asked = String::from_utf8_lossy(&asked);
            return Err(wrong(match asked.trim_start() {
                "" => "the model's vocabulary has no tokens for what the grammar begins with".to_owned(),
                text => format!("the model's vocabulary has no tokens for {text:?}, with which the grammar begins"),
            }));
        }
        Ok(Grammar { start })
    }

    /// Whether a text that follows the grammar can begin with the tokens of `prefix`, which a generation does not
    /// choose ([`GenerateOptions::prefix`](super::GenerateOptions)). A line break, with which no generation by a
    /// grammar begins, is none.
    ///
    /// # Errors
    /// If it cannot, or the model has no tokenizer.
    pub fn check_prefix(&self, model: &Model, prefix: &str) -> Result<()> {
        let mut matcher = self.start.deep_clone();
        let ids = model.tokenizer()?.encode_prefix(prefix);
        if ids.into_iter().any(|id| matcher.consume_token(id).is_err()) {
            let what = format!("expected tokens that a text by the grammar can begin with, found {prefix:?}");
            return Err(Error::Option { option: "prefix", what });
        }
        Ok(())
    }

    /// The rule by which a generation follows the grammar, whatever searches. A text that reaches the limit of new
    /// tokens ends in the midst of it, and one whose next character the vocabulary does not have ends with
    /// [`Finish::Blocked`](super::Finish). A space right behind a line break is lost, as in
    /// [`Tokenizer::decode`](crate::tokenizer::Tokenizer::decode).
    pub fn processor(&self) -> LogitsProcessor {
        let start = self.start.deep_clone();
        let walk = Mutex::new(Walk { matcher: start.deep_clone(), read: Vec::new() });
        LogitsProcessor::new(move |so_far, row| {
            let mut walk = walk.lock().unwrap_or_else(PoisonError::into_inner);
            match walk.after(&start, so_far.get(1..).unwrap_or_default()) {
                Some(allowed) => keep_only(allowed.iter(), row),
                None => row.fill(f32::NEG_INFINITY),
            }
        })
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// Where in the grammar a text is. The rows of beams and batches share one: it goes back to what they have in common.
struct Walk {
    matcher: Matcher,
    read: Vec<u32>,
}

impl Walk {
    /// What may come after these tokens; `None` if they do not follow the grammar.
    fn after(&mut self, start: &Matcher, tokens: &[u32]) -> Option<SimpleVob> {
        let mut common = self.read.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if common < self.read.len() && self.matcher.rollback(self.read.len() - common).is_err() {
            self.begin_anew(start);
            common = 0;
        }
        self.read.truncate(common);
        for &token in &tokens[common..] {
            if self.matcher.consume_token(token).is_err() {
                self.begin_anew(start);
                return None;
            }
            self.read.push(token);
        }
        let allowed = self.matcher.compute_mask_or_eos();
        if allowed.is_err() {
            self.begin_anew(start);
        }
        allowed.ok()
    }

    fn begin_anew(&mut self, start: &Matcher) {
        self.matcher = start.deep_clone();
        self.read.clear();
    }
}

/// Whether no token can come first, or none after each of the few that can.
fn blocked(start: &Matcher, first: &SimpleVob) -> bool {
    first.num_set() <= FOLLOWED
        && first.iter().all(|token| {
            let mut next = start.deep_clone();
            let ends = next.consume_token(token).is_err() || next.is_stopped();
            !ends && !next.compute_mask_or_eos().is_ok_and(|mask| !mask.is_zero())
        })
}

/// The bytes of each id as it stands in a sentence; none for those that are no text.
fn tokens(tokenizer: &Tokenizer, count: usize) -> Option<Vec<Vec<u8>>> {
    let special =
        |id: u32| [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.piece(id).unwrap_or_default().as_bytes()].concat();
    (0..count as u32)
        .map(|id| match tokenizer.is_special(id) {
            true => Some(special(id)),
            false => tokenizer.bytes_in_a_sentence(id),
        })
        .collect()
}

/// What is wrong, in one line: of a regular expression the last one, the others show where.
fn said(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let cause = text.lines().find_map(|line| line.strip_prefix("error: "));
    cause.or(text.lines().next()).unwrap_or_default().to_owned()
}
