//! Decoding by hand: a caller sees the logits and says which token comes.

use crate::error::Result;
use crate::layers::Query;
use crate::session::Session;

use super::options::MAX_NEW_TOKENS;

/// A text being decoded token by token, by the caller: what searches that this crate does not have are made of. Keys
/// and values of all tokens so far are kept, so that a token costs a step, whatever stands before it.
///
/// ```
/// let model = t5_runtime::Model::pocket()?;
/// let source = model.tokenizer()?.encode("translate English to German: Where is the station?");
/// let mut session = model.session();
/// let mut steps = session.start(&source)?;
/// while steps.tokens().last() != Some(&model.config().eos_token_id) {
///     let best = steps.logits().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
///     let best = best.map_or(0, |(id, _)| id as u32);
///     steps.push(best)?;
/// }
/// assert_eq!(model.tokenizer()?.decode(steps.tokens(), true), "Wo ist der Bahnhof?");
/// # Ok::<(), t5_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Steps<'s> {
    session: &'s mut Session,
    /// The start token and what was pushed.
    read: Vec<u32>,
    /// Tokens whose keys and values are kept.
    kept: usize,
}

impl Session {
    /// Encodes a source, whose ids should end with `</s>`, and reads the start token.
    ///
    /// # Errors
    /// If the model does not generate, the source is empty or has ids outside the vocabulary, or there is no memory for
    /// one of this length.
    pub fn start(&mut self, source: &[u32]) -> Result<Steps<'_>> {
        let mut encoding = self.begin_sources(&[source], 1, 1 + MAX_NEW_TOKENS)?;
        while self.encode_more(&mut encoding)? {}
        let start = self.model.start_token()?;
        let mut steps = Steps { session: self, read: vec![start], kept: 0 };
        steps.read_on()?;
        Ok(steps)
    }
}

impl Steps<'_> {
    /// The tokens that were pushed.
    pub fn tokens(&self) -> &[u32] {
        &self.read[1..]
    }

    /// The logits of what comes next, `[vocab_size]`, as the model gives them.
    pub fn logits(&mut self) -> &[f32] {
        self.session.decoder().expect("a model that has begun to decode has a decoder").last_logits()
    }

    /// Goes on by a token, whatever its logit is.
    ///
    /// # Errors
    /// For an id outside the vocabulary, and where there is no memory for more: what was read before is kept.
    pub fn push(&mut self, token: u32) -> Result<()> {
        self.session.model.check_ids("token", &[token])?;
        self.read.push(token);
        let done = self.read_on();
        if done.is_err() {
            self.read.pop();
        }
        done
    }

    /// Goes back to the first `tokens` of the pushed tokens, to continue them in another way. Nothing happens if there
    /// are no more.
    ///
    /// # Errors
    /// As [`Steps::push`].
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens >= self.tokens().len() {
            return Ok(());
        }
        self.read.truncate(1 + tokens);
        // The last one is read again, for its logits.
        self.kept = tokens;
        self.read_on()
    }

    /// Reads the last token.
    fn read_on(&mut self) -> Result<()> {
        let position = self.kept;
        let mut decoder = self.session.decoder()?;
        decoder.run(&[Query { token: self.read[position], sequence: 0, position }])?;
        decoder.head(&[0]);
        self.kept += 1;
        Ok(())
    }
}
