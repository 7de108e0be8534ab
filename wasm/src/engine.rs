//! A model and its one working space, driven a piece of work at a time.

use serde_json::json;
use t5_runtime::{
    EncodeOptions, Encoded, GenerateOptions, Generation, Model, Output, Passage, Pooling, Score, Session, SourceText,
    UnderWay, WordAlignment,
};
use wasm_bindgen::prelude::*;

use crate::download::Download;
use crate::error::Failure;
use crate::{given, request};

/// An open model. One request runs at a time; the JavaScript side keeps the queue. Each begins with one of the calls
/// whose name begins with `start`; `step` does a piece of it, until there is none left, and `finish` or `finishStates`
/// gives the results.
#[wasm_bindgen]
pub struct Engine {
    model: Model,
    bytes: usize,
    threads: usize,
    work: Work,
}

/// Who has the session.
enum Work {
    Idle(Box<Session>),
    Generating(Box<Generation<Session>>),
    Batch(UnderWay<Vec<Vec<Output>>>),
    Scoring(UnderWay<Score>),
    Aligning(UnderWay<WordAlignment>),
    Encoding(UnderWay<Vec<Encoded>>),
    /// A request was refused; the next one makes a session anew.
    Lost,
}

type JsResult<T> = Result<T, JsValue>;

#[wasm_bindgen]
impl Engine {
    /// Opens a model that has arrived. Work is shared by `threads` threads, the caller's included, or by as
    /// many as there are workers for.
    pub fn open(download: Download, threads: usize) -> JsResult<Engine> {
        Ok(Engine::try_open(download, threads)?)
    }

    /// What is loaded: configuration, vocabulary, defaults, instruction set, sizes in bytes. JSON.
    pub fn info(&self) -> String {
        let tokenizer = self.model.tokenizer().ok();
        json!({
            "file": self.model.file(),
            "fileBytes": self.bytes,
            "memoryBytes": memory_bytes(),
            "threads": self.threads,
            "isa": self.model.kernels().isa().name(),
            "config": self.model.config().to_json(),
            "generation": self.model.generation_defaults().to_json(),
            "tokenizer": tokenizer.map(|tokenizer| json!({
                "vocabSize": tokenizer.vocab_size(),
                "padId": tokenizer.pad_id(),
                "eosId": tokenizer.eos_id(),
                "unkId": tokenizer.unk_id(),
            })),
            "about": self.model.about(),
            "notes": self.model.notes(),
        })
        .to_string()
    }

    /// Begins a generation from a text; what is under way ends, here and below.
    pub fn start(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] options: JsValue,
    ) -> JsResult<()> {
        let (text, options) = (given::text("text", &text)?, given::text("options", &options)?);
        Ok(self.try_start(|model, options| Ok(options.source(model, &text)?), &options)?)
    }

    /// Begins a generation from ids (which should end with `</s>`).
    #[wasm_bindgen(js_name = startIds)]
    pub fn start_ids(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "Uint32Array")] ids: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] options: JsValue,
    ) -> JsResult<()> {
        let (ids, options) = (given::ids("ids", &ids)?, given::text("options", &options)?);
        Ok(self.try_start(|model, options| Ok(options.source_of_ids(model, &ids)?), &options)?)
    }

    /// Remarks on what will not come out as these options give it: a prefix that the vocabulary does not have.
    pub fn notes(&self, #[wasm_bindgen(unchecked_param_type = "string")] options: JsValue) -> JsResult<Vec<String>> {
        let options = given::text("options", &options)?;
        let options = self.model.options(&request::overrides(&options)?).map_err(Failure::from)?;
        Ok(self.model.tokenizer().map(|tokenizer| options.notes(tokenizer)).unwrap_or_default())
    }

    /// Begins to generate for several texts at once; `finish` gives a list of results for each.
    #[wasm_bindgen(js_name = startBatch)]
    pub fn start_batch(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string[]")] texts: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] options: JsValue,
    ) -> JsResult<()> {
        let (texts, options) = (given::texts("texts", &texts)?, given::text("options", &options)?);
        Ok(self.try_batch(&texts, &options)?)
    }

    /// Begins to find the log-probabilities of a target and `</s>` given a source.
    #[wasm_bindgen(js_name = startScore)]
    pub fn start_score(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] source: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] target: JsValue,
    ) -> JsResult<()> {
        let (source, target) = (given::text("source", &source)?, given::text("target", &target)?);
        Ok(self.try_score(&source, &target)?)
    }

    /// Begins to find which source words each word of a target comes from.
    #[wasm_bindgen(js_name = startAlignment)]
    pub fn start_alignment(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] source: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] target: JsValue,
    ) -> JsResult<()> {
        let (source, target) = (given::text("source", &source)?, given::text("target", &target)?);
        let aligning = self.take_session().into_aligning(&source, &target).map_err(Failure::from)?;
        self.work = Work::Aligning(aligning);
        Ok(())
    }

    /// Begins to find one vector: a sentence model's, with its prompt and cut where its texts are, else the mean of the
    /// encoder's hidden states. With `most`, texts of more tokens are cut off (`truncate`) or refused, and no prompt
    /// stands before them. `finishStates` gives it.
    #[wasm_bindgen(js_name = startEmbed)]
    pub fn start_embed(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
        most: Option<u32>,
        truncate: Option<bool>,
    ) -> JsResult<()> {
        let options = EncodeOptions::default();
        let passage = match most {
            None => self.model.passage(&given::text("text", &text)?, &options).map_err(Failure::from)?,
            Some(_) => self.source("text", &text, most, truncate)?.into(),
        };
        Ok(self.try_encode(passage, &options)?)
    }

    /// Begins to find the encoder's hidden states, `[len, d_model]`, of the ids that `tokenize` gives; long texts as in
    /// `startEmbed`. `finishStates` gives them.
    #[wasm_bindgen(js_name = startEncode)]
    pub fn start_encode(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
        most: Option<u32>,
        truncate: Option<bool>,
    ) -> JsResult<()> {
        let options = EncodeOptions { pooling: Some(Pooling::None), ..EncodeOptions::default() };
        let passage = self.source("text", &text, most, truncate)?.into();
        Ok(self.try_encode(passage, &options)?)
    }

    /// Does a piece of work of bounded size: some blocks of the encoder, some tokens of a given target or prefix, or
    /// one token more of every text. False when there is nothing left to do. Whoever listens for an abort in between is
    /// heard in the encoder, too.
    pub fn step(&mut self) -> JsResult<bool> {
        Ok(self.try_step()?)
    }

    /// The text that has become ready since the last call; undefined where there is none.
    pub fn take(&mut self) -> Option<String> {
        match &mut self.work {
            Work::Generating(generation) => generation.ready_piece().map(str::to_owned),
            _ => None,
        }
    }

    /// Does what is left: the results of a generation, best first, or of what else was begun. JSON.
    pub fn finish(&mut self) -> JsResult<String> {
        Ok(self.try_finish()?)
    }

    /// Does what is left of `startEmbed` or `startEncode`: the vector, or the states.
    #[wasm_bindgen(js_name = finishStates)]
    pub fn finish_states(&mut self) -> JsResult<Vec<f32>> {
        Ok(self.try_finish_states()?)
    }

    /// Ends what is under way where it is.
    pub fn cancel(&mut self) {
        let session = self.take_session();
        self.work = Work::Idle(Box::new(session));
    }

    /// Where the sentences of a text begin and end, in turns, in UTF-16 units: `[2 sentences]`.
    pub fn sentences(&self, #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue) -> JsResult<Vec<u32>> {
        let text = given::text("text", &text)?;
        let (mut byte, mut unit) = (0, 0);
        let mut units = |to: usize| {
            unit += text[byte..to].encode_utf16().count() as u32;
            byte = to;
            unit
        };
        Ok(t5_runtime::sentences(&text).into_iter().flat_map(|range| [units(range.start), units(range.end)]).collect())
    }

    /// The ids of a text, `</s>` behind them.
    pub fn tokenize(&self, #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue) -> JsResult<Vec<u32>> {
        let text = given::text("text", &text)?;
        Ok(self.model.tokenizer().map_err(Failure::from)?.encode(&text))
    }

    /// The text of ids, special tokens left out.
    pub fn detokenize(&self, #[wasm_bindgen(unchecked_param_type = "Uint32Array")] ids: JsValue) -> JsResult<String> {
        let ids = given::ids("ids", &ids)?;
        Ok(self.model.tokenizer().map_err(Failure::from)?.decode(&ids, true))
    }
}

impl Engine {
    fn try_open(download: Download, threads: usize) -> Result<Engine, Failure> {
        let (model, size) = download.into_model()?;
        let session = session(&model, threads);
        let threads = session.threads();
        Ok(Engine { model, bytes: size, threads, work: Work::Idle(Box::new(session)) })
    }

    /// The ids of a text, as many as are wanted.
    fn source(
        &self,
        name: &str,
        text: &JsValue,
        most: Option<u32>,
        truncate: Option<bool>,
    ) -> Result<Vec<u32>, Failure> {
        let options = GenerateOptions::default()
            .max_input_tokens(most.map_or(usize::MAX, |most| most as usize))
            .truncate(truncate.unwrap_or(false));
        let ids = self.model.tokenizer()?.encode(&given::text(name, text)?);
        let source = options.source_of_ids(&self.model, &ids)?;
        Ok(source.sentences().concat())
    }

    /// Takes the session out; what is under way ends.
    fn take_session(&mut self) -> Session {
        match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Idle(session) => *session,
            Work::Generating(generation) => generation.into_session(),
            Work::Batch(batch) => batch.into_session(),
            Work::Scoring(scoring) => scoring.into_session(),
            Work::Aligning(aligning) => aligning.into_session(),
            Work::Encoding(encoding) => encoding.into_session(),
            Work::Lost => session(&self.model, self.threads),
        }
    }

    fn try_start(
        &mut self,
        source: impl FnOnce(&Model, &GenerateOptions) -> Result<SourceText, Failure>,
        options: &str,
    ) -> Result<(), Failure> {
        self.cancel();
        let options = self.model.options(&request::overrides(options)?)?;
        let source = source(&self.model, &options)?;
        let generation = self.take_session().into_generation(source, &options)?;
        self.work = Work::Generating(Box::new(generation));
        Ok(())
    }

    fn try_batch(&mut self, texts: &[String], options: &str) -> Result<(), Failure> {
        self.cancel();
        let options = self.model.options(&request::overrides(options)?)?;
        let sources = texts.iter().map(|text| options.source(&self.model, text)).collect::<Result<_, _>>()?;
        self.work = Work::Batch(self.take_session().into_batch(sources, &options)?);
        Ok(())
    }

    fn try_score(&mut self, source: &str, target: &str) -> Result<(), Failure> {
        self.cancel();
        let (source, target) = (self.model.source_ids(source)?, self.model.tokenizer()?.encode(target));
        self.work = Work::Scoring(self.take_session().into_scoring(&source, &target)?);
        Ok(())
    }

    fn try_encode(&mut self, passage: Passage, options: &EncodeOptions) -> Result<(), Failure> {
        self.work = Work::Encoding(self.take_session().into_encoding(&[passage], options)?);
        Ok(())
    }

    fn try_step(&mut self) -> Result<bool, Failure> {
        let more = match &mut self.work {
            Work::Generating(generation) => Ok(generation.work()),
            Work::Batch(batch) => batch.work(),
            Work::Scoring(scoring) => scoring.work(),
            Work::Aligning(aligning) => aligning.work(),
            Work::Encoding(encoding) => encoding.work(),
            Work::Idle(_) | Work::Lost => Ok(false),
        };
        if more.is_err() {
            self.cancel();
        }
        Ok(more?)
    }

    fn try_finish(&mut self) -> Result<String, Failure> {
        let (json, session) = match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Generating(generation) => {
                let (outputs, session) = generation.finish_with_session();
                (request::outputs(&outputs), session)
            }
            Work::Batch(batch) => {
                let (results, session) = batch.finish()?;
                let lists: Vec<String> = results.iter().map(|outputs| request::outputs(outputs)).collect();
                (format!("[{}]", lists.join(",")), session)
            }
            Work::Scoring(scoring) => {
                let (score, session) = scoring.finish()?;
                (request::score(&score), session)
            }
            Work::Aligning(aligning) => {
                let (words, session) = aligning.finish()?;
                (request::alignment(&words), session)
            }
            other => {
                self.work = other;
                return Err(Failure::new("failed", "finish: nothing of which it gives the results is under way"));
            }
        };
        self.work = Work::Idle(Box::new(session));
        Ok(json)
    }

    fn try_finish_states(&mut self) -> Result<Vec<f32>, Failure> {
        match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Encoding(encoding) => {
                let (encoded, session) = encoding.finish()?;
                self.work = Work::Idle(Box::new(session));
                // One passage was begun.
                Ok(encoded.into_iter().next().map(|one| one.values).unwrap_or_default())
            }
            other => {
                self.work = other;
                Err(Failure::new("failed", "finishStates: neither startEmbed nor startEncode is under way"))
            }
        }
    }
}

fn session(model: &Model, threads: usize) -> Session {
    let mut session = model.session();
    session.set_threads(threads);
    session
}

/// The size of the module's memory, which never shrinks.
fn memory_bytes() -> usize {
    #[cfg(target_arch = "wasm32")]
    return core::arch::wasm32::memory_size(0) * 65536;
    #[cfg(not(target_arch = "wasm32"))]
    0
}
