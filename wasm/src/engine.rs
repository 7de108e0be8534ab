//! A model and its one working space, driven one token at a time.

use serde_json::json;
use t5_runtime::{GenerateOptions, Generation, Model, Session, SourceText};
use wasm_bindgen::prelude::*;

use crate::download::Download;
use crate::error::Failure;
use crate::{given, request};

/// An open model. One request runs at a time; the JavaScript side keeps the queue.
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

    /// Begins a generation from a text; one that is under way ends.
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

    /// Generates for several texts at once: a list of results for each, best first. JSON.
    #[wasm_bindgen(js_name = generateBatch)]
    pub fn generate_batch(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string[]")] texts: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] options: JsValue,
    ) -> JsResult<String> {
        let (texts, options) = (given::texts("texts", &texts)?, given::text("options", &options)?);
        Ok(self.try_batch(&texts, &options)?)
    }

    /// Does a piece of work of bounded size: some blocks of the encoder, some tokens of a forced prefix, or one token
    /// more. False when there is nothing left to do. Whoever listens for an abort in between is heard in the encoder,
    /// too.
    pub fn step(&mut self) -> bool {
        match &mut self.work {
            Work::Generating(generation) => generation.work(),
            _ => false,
        }
    }

    /// The text that has become ready since the last call; undefined where there is none.
    pub fn take(&mut self) -> Option<String> {
        match &mut self.work {
            Work::Generating(generation) => generation.ready_piece().map(str::to_owned),
            _ => None,
        }
    }

    /// Runs the generation to its end: the results, best first. JSON.
    pub fn finish(&mut self) -> JsResult<String> {
        Ok(self.try_finish()?)
    }

    /// Ends a generation where it is.
    pub fn cancel(&mut self) {
        self.session();
    }

    /// Log-probabilities of a target and `</s>` given a source. JSON.
    pub fn score(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] source: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] target: JsValue,
    ) -> JsResult<String> {
        let (source, target) = (given::text("source", &source)?, given::text("target", &target)?);
        Ok(self.session().score(&source, &target).map(|score| request::score(&score)).map_err(Failure::from)?)
    }

    /// One vector: a sentence model's, with its prompt and cut where its texts are, else the mean of the encoder's
    /// hidden states. With `most`, texts of more tokens are cut off (`truncate`) or refused, and no prompt stands
    /// before them.
    pub fn embed(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
        most: Option<u32>,
        truncate: Option<bool>,
    ) -> JsResult<Vec<f32>> {
        if most.is_none() {
            let text = given::text("text", &text)?;
            return Ok(self.session().embed(&text).map_err(Failure::from)?);
        }
        let ids = self.source("text", &text, most, truncate)?;
        Ok(self.session().embed_ids(&ids).map_err(Failure::from)?)
    }

    /// The encoder's hidden states, `[len, d_model]`, of the ids that `tokenize` gives; long texts as in `embed`.
    pub fn encode(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
        most: Option<u32>,
        truncate: Option<bool>,
    ) -> JsResult<Vec<f32>> {
        let ids = self.source("text", &text, most, truncate)?;
        Ok(self.session().encode_ids(&ids).map_err(Failure::from)?.to_vec())
    }

    /// Which source tokens each token of a target attends to. JSON.
    pub fn alignment(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string")] source: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] target: JsValue,
    ) -> JsResult<String> {
        let (source, target) = (given::text("source", &source)?, given::text("target", &target)?);
        Ok(self.try_alignment(&source, &target)?)
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
        let source = options.source(&self.model, &given::text(name, text)?)?;
        Ok(source.sentences()[0].clone())
    }

    /// The session; a generation under way ends.
    fn session(&mut self) -> &mut Session {
        let session = match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Idle(session) => session,
            Work::Generating(generation) => Box::new(generation.into_session()),
            Work::Lost => Box::new(session(&self.model, self.threads)),
        };
        self.work = Work::Idle(session);
        match &mut self.work {
            Work::Idle(session) => session,
            _ => unreachable!("set in the line above"),
        }
    }

    fn try_start(
        &mut self,
        source: impl FnOnce(&Model, &GenerateOptions) -> Result<SourceText, Failure>,
        options: &str,
    ) -> Result<(), Failure> {
        self.session();
        let options = self.model.options(&request::overrides(options)?)?;
        let source = source(&self.model, &options)?;
        if let Work::Idle(session) = std::mem::replace(&mut self.work, Work::Lost) {
            self.work = Work::Generating(Box::new(session.into_generation(source, &options)?));
        }
        Ok(())
    }

    fn try_batch(&mut self, texts: &[String], options: &str) -> Result<String, Failure> {
        let options = self.model.options(&request::overrides(options)?)?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let results = self.session().generate_batch(&texts, &options)?;
        let lists: Vec<String> = results.iter().map(|outputs| request::outputs(outputs)).collect();
        Ok(format!("[{}]", lists.join(",")))
    }

    fn try_finish(&mut self) -> Result<String, Failure> {
        match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Generating(generation) => {
                let (outputs, session) = generation.finish_with_session();
                self.work = Work::Idle(Box::new(session));
                Ok(request::outputs(&outputs))
            }
            other => {
                self.work = other;
                Err(Failure::new("failed", "finish: no generation is under way"))
            }
        }
    }

    fn try_alignment(&mut self, source: &str, target: &str) -> Result<String, Failure> {
        Ok(request::alignment(&self.session().align(source, target)?))
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
