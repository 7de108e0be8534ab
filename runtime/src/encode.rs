//! Texts to states: many at once, padded or not, of any layer, as they are or pooled.

use std::ops::Range;

use crate::encoder::ROWS;
use crate::error::{Error, Result};
use crate::layers::Document;
use crate::memory;
use crate::model::Model;
use crate::order::sorted_by;
use crate::pooling::{self, Pooling};
use crate::sentence_model::SentenceModel;
use crate::session::Session;
use crate::under_way::{Pieces, UnderWay};

/// What is wanted of the encoder.
///
/// ```no_run
/// use t5_runtime::{EncodeOptions, Model, Pooling};
///
/// # fn main() -> t5_runtime::Result<()> {
/// let model = Model::open("t5-v1_1-xxl-encoder.gguf")?;
/// // As image models want it: 256 positions, of which those of padding are attended to.
/// let options = EncodeOptions {
///     pooling: Some(Pooling::None),
///     pad_to: Some(256),
///     pad_mask: false,
///     ..EncodeOptions::default()
/// };
/// for states in model.encode(&["a cat", "a red dog"], &options)? {
///     assert_eq!((states.rows, states.width()), (256, 4096));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeOptions {
    /// What is made of the states of a text's tokens; padding takes no part in it. `None`: what the model was trained
    /// with ([`Model::sentence_model`], all of it), or the mean.
    pub pooling: Option<Pooling>,
    /// Divide each vector by its length.
    pub normalize: bool,
    /// Take each text for so many positions: shorter ones get padding behind them, longer ones lose what stands before
    /// `</s>`.
    pub pad_to: Option<usize>,
    /// Whether padding is masked, so that it changes no state of a text; else it is attended to, as FLUX, Stable
    /// Diffusion 3 and CogVideoX do.
    pub pad_mask: bool,
    /// The states behind so many blocks, as transformers' `hidden_states` counts them: 0 are the embeddings,
    /// `num_layers` or `None` the encoder's output, the only ones behind the last norm. Negative numbers count from the
    /// end: -1 is the output.
    pub layer: Option<isize>,
    /// The name of a prompt of a sentence model, which is put before each text; `None`: its default.
    pub prompt: Option<String>,
    /// A text that is put before each text, in the place of a prompt.
    pub prefix: Option<String>,
}

impl Default for EncodeOptions {
    fn default() -> EncodeOptions {
        EncodeOptions {
            pooling: None,
            normalize: false,
            pad_to: None,
            pad_mask: true,
            layer: None,
            prompt: None,
            prefix: None,
        }
    }
}

impl EncodeOptions {
    /// How many blocks are to be passed, of a model with so many.
    fn blocks(&self, blocks: usize) -> Result<usize> {
        let Some(layer) = self.layer else { return Ok(blocks) };
        let wanted = if layer < 0 { layer.saturating_add_unsigned(blocks + 1) } else { layer };
        usize::try_from(wanted).ok().filter(|&wanted| wanted <= blocks).ok_or_else(|| {
            let first = blocks as isize + 1;
            Error::Option { option: "layer", what: format!("expected -{first} to {blocks}, found {layer}") }
        })
    }
}

/// Ids of a text, and which of them are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The ids that the encoder reads, which should end with `</s>`.
    pub ids: Vec<u32>,
    /// The tokens whose states are wanted, or pooled; `None`: all, and without pooling those of padding as well.
    pub wanted: Option<Range<usize>>,
}

impl From<Vec<u32>> for Passage {
    fn from(ids: Vec<u32>) -> Passage {
        Passage { ids, wanted: None }
    }
}

/// What the encoder makes of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// What it has read, padding included.
    pub input_ids: Vec<u32>,
    /// How many of them are the text's, and not padding.
    pub tokens: usize,
    /// Vectors: 1, or without pooling one for each token that is wanted.
    pub rows: usize,
    /// `[rows, width]`
    pub values: Vec<f32>,
}

impl Encoded {
    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.values.len() / self.rows.max(1)
    }
}

/// A passage with its padding, ready for the encoder.
struct Padded {
    ids: Vec<u32>,
    tokens: usize,
    wanted: Option<Range<usize>>,
}

impl Model {
    /// The encoder's states of texts, or what the options make of them, in a session of its own.
    ///
    /// # Errors
    /// As [`Session::encode_each`], and if the model has no tokenizer.
    pub fn encode<T: AsRef<str>>(&self, texts: &[T], options: &EncodeOptions) -> Result<Vec<Encoded>> {
        self.session().encode_batch(texts, options)
    }

    /// The ids of a text. A sentence model's has its prompt, is cut where such texts are, and perhaps has small letters
    /// only.
    ///
    /// # Errors
    /// If the model has no tokenizer, or no prompt of this name.
    pub fn passage(&self, text: &str, options: &EncodeOptions) -> Result<Passage> {
        let tokenizer = self.tokenizer()?;
        let plain = SentenceModel::default();
        let model = self.sentence_model().unwrap_or(&plain);
        let prompt = match &options.prefix {
            Some(prefix) => prefix,
            None => model.prompt(options.prompt.as_deref())?,
        };
        let ids = |text: String| {
            let mut ids = tokenizer.encode(&if model.lower_case { text.to_lowercase() } else { text });
            if let Some(length) = model.max_seq_length {
                cut(&mut ids, length, self.end_id());
            }
            ids
        };
        let mut passage: Passage = ids(format!("{prompt}{text}")).into();
        if options.pooling.is_none() && !prompt.is_empty() && !model.includes_prompt() {
            // Without its `</s>`.
            let first = ids(prompt.to_owned()).len() - 1;
            passage.wanted = Some(first..passage.ids.len());
        }
        Ok(passage)
    }

    /// Values of each vector that [`Session::encode_each`] gives.
    pub fn width_of(&self, options: &EncodeOptions) -> usize {
        let d_model = self.config().d_model;
        match (options.pooling, self.sentence_model()) {
            (None, Some(model)) => model.width(d_model),
            _ => d_model,
        }
    }

    /// How many vectors a passage gives, and how many of them are those of tokens, and not of padding.
    ///
    /// # Errors
    /// As [`Session::encode_each`].
    pub fn rows_of(&self, passage: &Passage, options: &EncodeOptions) -> Result<(usize, usize)> {
        let padded = self.padded(passage, options)?;
        Ok(match (options.pooling, padded.wanted) {
            (Some(Pooling::None), Some(wanted)) => (wanted.len(), wanted.len()),
            (Some(Pooling::None), None) => (padded.ids.len(), padded.tokens),
            _ => (1, 1),
        })
    }

    fn padded(&self, passage: &Passage, options: &EncodeOptions) -> Result<Padded> {
        self.check_source(&passage.ids)?;
        if options.pad_to == Some(0) {
            return Err(Error::Option { option: "pad_to", what: "expected at least 1, found 0".to_owned() });
        }
        let mut ids = passage.ids.clone();
        let whole = ids.len();
        if let Some(length) = options.pad_to {
            // Ids and states: the least that it takes, before any of it is taken.
            let row = size_of::<u32>() + size_of::<f32>() * self.config().d_model;
            memory::ask("texts of the length of pad_to", (length as u64).saturating_mul(row as u64))?;
            cut(&mut ids, length, self.end_id());
            ids.resize(length, self.config().pad_token_id);
        }
        let tokens = ids.len().min(whole);
        // Of tokens that are cut off nothing can be said.
        let last = if tokens < whole { tokens - 1 } else { tokens };
        let wanted = passage.wanted.clone().map(|wanted| wanted.start.min(last)..wanted.end.min(last));
        if wanted.as_ref().is_some_and(Range::is_empty) {
            let what = format!("expected at least one of the tokens that are wanted among {tokens}, found none");
            return Err(Error::Option { option: "pad_to", what });
        }
        Ok(Padded { ids, tokens, wanted })
    }
}

/// Cuts ids to a length; where there was an `end`, there is one again.
fn cut(ids: &mut Vec<u32>, length: usize, end: u32) {
    let ended = ids.last() == Some(&end);
    if ids.len() > length {
        ids.truncate(length);
        if let (true, Some(last)) = (ended, ids.last_mut()) {
            *last = end;
        }
    }
}

impl Session {
    /// The encoder's states of texts, or what the options make of them, in their order.
    ///
    /// # Errors
    /// As [`Session::encode_each`], and if the model has no tokenizer.
    pub fn encode_batch<T: AsRef<str>>(&mut self, texts: &[T], options: &EncodeOptions) -> Result<Vec<Encoded>> {
        let passages =
            texts.iter().map(|text| self.model.passage(text.as_ref(), options)).collect::<Result<Vec<_>>>()?;
        self.encode_passages(&passages, options)
    }

    /// As [`Session::encode_batch`] for texts that are ids already.
    ///
    /// # Errors
    /// As [`Session::encode_each`].
    pub fn encode_passages(&mut self, passages: &[Passage], options: &EncodeOptions) -> Result<Vec<Encoded>> {
        let mut all: Vec<Option<Encoded>> = vec![None; passages.len()];
        self.encode_each(passages, options, &mut |index, encoded| all[index] = Some(encoded))?;
        Ok(all.into_iter().flatten().collect())
    }

    /// Encodes passages, those of like length together, and gives each result with the place of its passage as soon as
    /// it is there. A result has the same bits whatever is encoded beside it.
    ///
    /// # Errors
    /// If a passage is empty or has ids outside the vocabulary, the options ask for a layer that is not there or for no
    /// positions, or there is no memory for one of this length. Nothing is given then, unless memory was too little for
    /// a later one.
    pub fn encode_each(
        &mut self,
        passages: &[Passage],
        options: &EncodeOptions,
        each: &mut dyn FnMut(usize, Encoded),
    ) -> Result<()> {
        let mut passages = Passages::new(&self.model, passages, options)?;
        while passages.work(self, each)? {}
        Ok(())
    }

    /// As [`Session::encode_passages`], a piece of work at a time.
    ///
    /// # Errors
    /// As [`Session::encode_each`]; the session is lost then.
    pub fn into_encoding(self, passages: &[Passage], options: &EncodeOptions) -> Result<UnderWay<Vec<Encoded>>> {
        let passages = Passages::new(&self.model, passages, options)?;
        let all = vec![None; passages.padded.len()];
        Ok(UnderWay::new(self, Collecting { passages, all }))
    }
}

/// Passages on their way through the encoder.
struct Passages {
    model: Model,
    options: EncodeOptions,
    /// How many blocks they pass.
    blocks: usize,
    padded: Vec<Padded>,
    /// Their places, those of like length together.
    order: Vec<usize>,
    /// Of `order`: which are in the encoder; all before them are done.
    group: Range<usize>,
}

impl Passages {
    fn new(model: &Model, passages: &[Passage], options: &EncodeOptions) -> Result<Passages> {
        model.check_alone("states")?;
        model.data().encoder()?;
        let blocks = options.blocks(model.config().num_layers)?;
        let padded = passages.iter().map(|passage| model.padded(passage, options)).collect::<Result<Vec<_>>>()?;
        // The longest first: whether there is memory for all of them is then seen at once.
        let longer = |a: &usize, b: &usize| padded[*b].ids.len().cmp(&padded[*a].ids.len());
        let order = sorted_by((0..padded.len()).collect(), longer);
        Ok(Passages { model: model.clone(), options: options.clone(), blocks, padded, order, group: 0..0 })
    }

    /// Does the next piece of work; false when there is none left. `each` gets what is done.
    fn work(&mut self, session: &mut Session, each: &mut dyn FnMut(usize, Encoded)) -> Result<bool> {
        if self.group.is_empty() && !self.begin(session)? {
            return Ok(false);
        }
        if session.encoder()?.run()? {
            return Ok(true);
        }
        session.finish_states()?;
        let d = self.model.config().d_model;
        let mut row = 0;
        for &index in &self.order[self.group.clone()] {
            let Padded { ids, tokens, wanted } = &self.padded[index];
            let states = &session.states[row * d..(row + ids.len()) * d];
            row += ids.len();
            let pooling = self.options.pooling.unwrap_or(Pooling::Mean);
            // Without pooling, padding has states, too.
            let all = if pooling == Pooling::None { ids.len() } else { *tokens };
            let range = wanted.clone().unwrap_or(0..all);
            let rows = if pooling == Pooling::None { range.len() } else { 1 };
            let mut values = match (self.options.pooling, self.model.sentence_model()) {
                (None, Some(sentence)) => sentence.apply(states, d, range),
                _ => pooling.pooled(states, d, range),
            };
            if self.options.normalize {
                let width = values.len() / rows;
                pooling::normalize(&mut values, width);
            }
            each(index, Encoded { input_ids: ids.clone(), tokens: *tokens, rows, values });
        }
        self.group = self.group.end..self.group.end;
        Ok(self.group.end < self.order.len())
    }

    /// Brings the next ones into the encoder, if there are any.
    fn begin(&mut self, session: &mut Session) -> Result<bool> {
        let mut rows = 0;
        let fits = |index: &&usize| {
            rows += self.padded[**index].ids.len();
            rows <= ROWS
        };
        let rest = &self.order[self.group.end..];
        if rest.is_empty() {
            return Ok(false);
        }
        let count = rest.iter().take_while(fits).count().max(1);
        let group = rest[..count].iter().map(|&index| &self.padded[index]);
        let lengths: Vec<usize> = group.clone().map(|padded| padded.ids.len()).collect();
        session.ask(&lengths, 0, 0)?;
        let document = |padded: &Padded| Document {
            rows: padded.ids.len(),
            visible: if self.options.pad_mask { padded.tokens } else { padded.ids.len() },
        };
        let ids = group.clone().flat_map(|padded| padded.ids.iter().copied());
        session.encoder()?.begin_to(self.blocks, ids, group.map(document));
        self.group = self.group.end..self.group.end + count;
        Ok(true)
    }
}

/// Passages under way, and what has come out.
struct Collecting {
    passages: Passages,
    all: Vec<Option<Encoded>>,
}

impl Pieces for Collecting {
    type Results = Vec<Encoded>;

    fn work(&mut self, session: &mut Session) -> Result<bool> {
        let Collecting { passages, all } = self;
        passages.work(session, &mut |index, encoded| all[index] = Some(encoded))
    }

    fn results(self: Box<Self>) -> Vec<Encoded> {
        self.all.into_iter().flatten().collect()
    }
}
