//! Models.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::storage::Bytes;
use t5_runtime::{
    Batch, Choices, EncodeOptions, GenerateOptions, MAX_THREADS, ModelOptions, Output, Pooling, Session, SourceText,
    default_threads,
};

use crate::failure::{of_text, option, raised};
use crate::results::{Alignment, Choice, Score, outputs};
use crate::stream::{BatchStream, Stream};
use crate::{download, options, pieces};

/// A T5 model. Any number of threads may use one at the same time.
///
/// model: a GGUF file, a Hugging Face folder, a safetensors file, "hf:OWNER/NAME[@REVISION]", which is downloaded into
/// the Hugging Face cache, or a GGUF file's bytes. None: the model that comes with the package, whose card is below.
/// threads: how many share the work of one call, at most 64; None: the cores of a NUMA node, at most 16. Results do not
/// depend on it.
/// isa: the instruction set, such as "avx2"; None: the best that the machine has. Results do not depend on it.
/// packed: a file of packed weights, mapped, and made where it is not there: large models then start at once.
/// tokenizer: another tokenizer than the model's: a file, a folder, or "hf:OWNER/NAME".
/// copy: read weights into memory in place of mapping their files, which then may be written in place.
/// progress: of a download: True or None for a bar on a terminal, False, or a function of (file, bytes there, of all).
///
/// Options of generate() and outputs() are those of the Rust library, by keyword: beams, max_new_tokens, temperature,
/// seed, top_k, top_p, choices, stop, prefix, task, no_repeat_ngram, repetition_penalty, length_penalty and so on.
/// What is not given is as the checkpoint wants it; greedy search where it says nothing.
///
#[doc = include_str!("../../model/README.md")]
#[pyclass(frozen, module = "pocket_t5")]
pub struct Model {
    model: t5_runtime::Model,
    threads: usize,
    /// Sessions that no call works in.
    idle: Mutex<Vec<Session>>,
}

/// A text, or several.
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn of(text: &Bound<'_, PyAny>) -> PyResult<Texts> {
        // A str is a sequence of texts, too.
        if text.is_instance_of::<PyString>() {
            return text.extract().map(Texts::One);
        }
        let type_name = |one: &Bound<'_, PyAny>| match one.get_type().name() {
            Ok(name) => name.to_string(),
            Err(_) => "an object".to_owned(),
        };
        let wrong = |what: String| PyTypeError::new_err(format!("text: expected a str or several, found {what}"));
        let all = match text.try_iter() {
            Ok(all) if !text.is_instance_of::<PyBytes>() => all,
            _ => return Err(wrong(type_name(text))),
        };
        let texts = all.enumerate().map(|(index, text)| {
            let text = text?;
            match text.is_instance_of::<PyString>() {
                true => text.extract(),
                false => Err(wrong(format!("{} at place {index}", type_name(&text)))),
            }
        });
        texts.collect::<PyResult<_>>().map(Texts::Many)
    }
}

impl Model {
    fn session(&self) -> Session {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let mut session = self.model.session();
            session.set_threads(self.threads);
            session
        })
    }

    pub fn put_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    /// What is read of a text.
    fn source(&self, py: Python<'_>, text: &str, options: &GenerateOptions) -> PyResult<SourceText> {
        py.detach(|| options.source(&self.model, text)).map_err(|error| raised(py, error))
    }

    /// What is read of several texts.
    fn sources(&self, py: Python<'_>, texts: &[String], options: &GenerateOptions) -> PyResult<Vec<SourceText>> {
        // Without one no text is at fault.
        self.model.tokenizer().map_err(|error| raised(py, error))?;
        let read = |text: &String| options.source(&self.model, text);
        pieces::each(py, texts, read, |place, error| of_text(py, place, error))
    }

    /// Generates for one text.
    fn one(&self, py: Python<'_>, text: &str, options: &GenerateOptions) -> PyResult<Vec<Output>> {
        let source = self.source(py, text, options)?;
        let begun = self.session().into_generation(source, options);
        let mut generation = begun.map_err(|error| raised(py, error))?;
        if let Err(error) = pieces::work(py, || Ok(generation.work())) {
            self.put_back(generation.into_session());
            return Err(error);
        }
        let (outputs, session) = generation.finish_with_session();
        self.put_back(session);
        Ok(outputs)
    }

    /// Generates for several texts side by side.
    fn many(&self, py: Python<'_>, texts: &[String], options: &GenerateOptions) -> PyResult<Vec<Vec<Output>>> {
        let sources = self.sources(py, texts, options)?;
        let batch = self.session().into_batch(sources, options).map_err(|error| raised(py, error))?;
        pieces::finish(py, batch, |session| self.put_back(session))
    }
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (model=None, *, threads=None, isa=None, packed=None, tokenizer=None, copy=false, progress=None))]
    #[allow(clippy::too_many_arguments)] // each is one of Python's keywords
    fn new(
        py: Python<'_>,
        model: Option<&Bound<'_, PyAny>>,
        threads: Option<&Bound<'_, PyAny>>,
        isa: Option<&str>,
        packed: Option<PathBuf>,
        tokenizer: Option<PathBuf>,
        copy: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Model> {
        let threads = options::count("threads", threads)?.unwrap_or_else(default_threads);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(option(py, format!("threads: expected 1 to {MAX_THREADS}, found {threads}")));
        }
        let progress = match progress {
            Some(progress) => progress.clone(),
            None => true.into_bound_py_any(py)?,
        };
        let raise = |error| raised(py, error);
        let isa = isa.map(str::parse).transpose().map_err(raise)?;
        let mut checkpoint = match model {
            None => Checkpoint::pocket().map_err(raise)?,
            Some(bytes) if bytes.is_instance_of::<PyBytes>() => {
                let bytes = Bytes::from_vec(bytes.extract()?);
                py.detach(|| Checkpoint::from_gguf("a file in memory", bytes)).map_err(raise)?
            }
            Some(path) => {
                let path = download::local(&path.extract::<PathBuf>()?, false, &progress)?;
                py.detach(|| Checkpoint::open(&path)).map_err(raise)?
            }
        };
        if let Some(tokenizer) = &tokenizer {
            let tokenizer = download::local(tokenizer, true, &progress)?;
            py.detach(|| checkpoint.replace_tokenizer(&tokenizer)).map_err(raise)?;
        }
        let options = ModelOptions { isa, copy };
        let model = py.detach(|| match &packed {
            Some(packed) => t5_runtime::Model::from_checkpoint_and_packed(checkpoint, &options, packed),
            None => t5_runtime::Model::from_checkpoint(checkpoint, &options),
        });
        Ok(Model { model: model.map_err(raise)?, threads, idle: Mutex::default() })
    }

    fn __repr__(&self) -> String {
        format!("Model({:?}, isa={:?}, threads={})", self.model.file(), self.model.isa().name(), self.threads)
    }

    /// What the model was opened from.
    #[getter]
    fn file(&self) -> &str {
        self.model.file()
    }

    /// The instruction set that it runs on.
    #[getter]
    fn isa(&self) -> &'static str {
        self.model.isa().name()
    }

    /// How many threads share the work of one call.
    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    /// What the model says of itself: "file", "isa", "config", "generation" with its tasks, "tokenizer", "about", and
    /// "notes" on what was ignored.
    #[getter]
    fn info(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let json = self.model.to_json().to_string();
        Ok(py.import("json")?.getattr("loads")?.call1((json,))?.unbind())
    }

    /// Generates text.
    ///
    /// text: a str gives a str; several give a list, and take far less time than one after the other.
    /// stream: give an iterator of pieces as they come; of several texts, of (index, piece).
    /// options: see the class. For several results of each text, scores and ids: outputs().
    #[pyo3(signature = (text, *, stream=false, **options))]
    fn generate(
        this: &Bound<'_, Model>,
        text: &Bound<'_, PyAny>,
        stream: bool,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let (py, model) = (this.py(), this.get());
        let texts = Texts::of(text)?;
        let asked = options.map_or(Ok(None), |options| options.get_item("n_best"))?;
        if asked.is_some_and(|n_best| !n_best.is_none()) {
            return Err(option(py, "n_best: expected outputs() for several results, found generate()"));
        }
        let mut options = options::generate(py, &model.model, options)?;
        // Of several that the checkpoint asks for, the best.
        options.n_best = 1;
        let best = |outputs: Vec<Output>| outputs.into_iter().next().map(|output| output.text).unwrap_or_default();
        match (texts, stream) {
            (Texts::One(text), false) => best(model.one(py, &text, &options)?).into_py_any(py),
            (Texts::Many(texts), false) => {
                let results = model.many(py, &texts, &options)?;
                results.into_iter().map(best).collect::<Vec<_>>().into_py_any(py)
            }
            (Texts::One(text), true) => {
                let source = model.source(py, &text, &options)?;
                let generation = model.session().into_generation(source, &options);
                let generation = generation.map_err(|error| raised(py, error))?;
                Stream::new(this.clone().unbind(), generation).into_py_any(py)
            }
            (Texts::Many(texts), true) => {
                let sequences = options.sequences_of(texts.len());
                let batch = Batch::new(model.session(), sequences).map_err(|error| raised(py, error));
                let mut batch = batch?;
                let sources = model.sources(py, &texts, &options)?.into_iter();
                let ids = sources.map(|source| batch.add_source(source, &options)).collect::<t5_runtime::Result<_>>();
                let ids = ids.map_err(|error| raised(py, error))?;
                BatchStream::new(this.clone().unbind(), batch, ids).into_py_any(py)
            }
        }
    }

    /// Generates as generate() does, and gives for each text a list of outputs, best first: n_best of them, each with
    /// text, ids, logprobs, score and finish.
    #[pyo3(signature = (text, **options))]
    fn outputs(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let options = options::generate(py, &self.model, options)?;
        match Texts::of(text)? {
            Texts::One(text) => outputs(py, self.one(py, &text, &options)?).into_py_any(py),
            Texts::Many(texts) => {
                let results = self.many(py, &texts, &options)?;
                results.into_iter().map(|results| outputs(py, results)).collect::<Vec<_>>().into_py_any(py)
            }
        }
    }

    /// How likely the model holds a target to be as the answer to a source.
    fn score(&self, py: Python<'_>, source: &str, target: &str) -> PyResult<Score> {
        let raise = |error| raised(py, error);
        let tokenizer = self.model.tokenizer().map_err(raise)?;
        let ids = py.detach(|| Ok((self.model.source_ids(source)?, tokenizer.encode(target))));
        let (source, target) = ids.map_err(raise)?;
        let scoring = self.session().into_scoring(&source, &target).map_err(raise)?;
        Ok(Score::new(py, pieces::finish(py, scoring, |session| self.put_back(session))?))
    }

    /// How likely each of the choices is as the answer to a text, the likeliest first.
    fn choose(&self, py: Python<'_>, text: &str, choices: Vec<String>) -> PyResult<Vec<Choice>> {
        let raise = |error| raised(py, error);
        let begun = py.detach(|| {
            let choices = Choices::new(&self.model, &choices)?;
            self.session().into_choosing(text, &choices)
        });
        let choosing = begun.map_err(raise)?;
        let ranked = pieces::finish(py, choosing, |session| self.put_back(session))?;
        Ok(ranked.into_iter().map(Choice::from).collect())
    }

    /// Which word of a source each word of a target comes from.
    fn align(&self, py: Python<'_>, source: &str, target: &str) -> PyResult<Alignment> {
        let aligning = py.detach(|| self.session().into_aligning(source, target));
        let aligning = aligning.map_err(|error| raised(py, error))?;
        Alignment::new(py, pieces::finish(py, aligning, |session| self.put_back(session))?)
    }

    /// The encoder's states as vectors, float32: [width] for a text, [len(texts), width] for several.
    ///
    /// pooling: "none" keeps a vector for each token, [tokens, width], and of several texts a list of such; "mean",
    /// "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean"; None: what the model was trained with, or the
    /// mean.
    /// normalize: divide each vector by its length.
    /// pad_to: take each text for so many tokens; attend_to_padding: as image models want it.
    /// layer: the states behind so many blocks; -1 and None: the encoder's output.
    /// prompt: the name of a prompt of a sentence model; prefix: a text before each text.
    #[pyo3(signature = (
        text, *, pooling=None, normalize=false, pad_to=None, attend_to_padding=false, layer=None, prompt=None,
        prefix=None
    ))]
    #[allow(clippy::too_many_arguments)] // each is one of Python's keywords
    fn embed(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        pooling: Option<&str>,
        normalize: bool,
        pad_to: Option<&Bound<'_, PyAny>>,
        attend_to_padding: bool,
        layer: Option<isize>,
        prompt: Option<String>,
        prefix: Option<String>,
    ) -> PyResult<Py<PyAny>> {
        let raise = |error| raised(py, error);
        let pooling = pooling.map(|name| options::pooling(py, name)).transpose()?;
        let pad_to = options::count("pad_to", pad_to)?;
        let options = EncodeOptions { pooling, normalize, pad_to, pad_mask: !attend_to_padding, layer, prompt, prefix };
        let (texts, single) = match Texts::of(text)? {
            Texts::One(text) => (vec![text], true),
            Texts::Many(texts) => (texts, false),
        };
        let passages = pieces::each(py, &texts, |text| self.model.passage(text, &options), |_, error| raise(error))?;
        let encoding = self.session().into_encoding(&passages, &options).map_err(raise)?;
        let encoded = pieces::finish(py, encoding, |session| self.put_back(session))?;
        if options.pooling == Some(Pooling::None) {
            let array = |one: t5_runtime::Encoded| {
                let shape = [one.rows, one.width()];
                PyArray1::from_vec(py, one.values).reshape(shape).map(Bound::unbind)
            };
            let mut arrays = encoded.into_iter().map(array).collect::<PyResult<Vec<Py<PyArray2<f32>>>>>()?;
            return if single { arrays.remove(0).into_py_any(py) } else { arrays.into_py_any(py) };
        }
        let width = self.model.width_of(&options);
        let values: Vec<f32> = encoded.into_iter().flat_map(|one| one.values).collect();
        match single {
            true => PyArray1::from_vec(py, values).into_py_any(py),
            false => PyArray1::from_vec(py, values).reshape([texts.len(), width])?.into_py_any(py),
        }
    }

    /// The ids of a text, the end token behind them.
    fn tokenize(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        let tokenizer = self.model.tokenizer().map_err(|error| raised(py, error))?;
        Ok(py.detach(|| tokenizer.encode(text)))
    }

    /// The text of ids; skip_special: without special tokens and <extra_id_n>.
    #[pyo3(signature = (ids, skip_special=true))]
    fn detokenize(&self, py: Python<'_>, ids: Vec<Bound<'_, PyAny>>, skip_special: bool) -> PyResult<String> {
        let tokenizer = self.model.tokenizer().map_err(|error| raised(py, error))?;
        let ids = ids.iter().map(|id| {
            let known = options::integer::<u32>("ids", id)?.filter(|&known| (known as usize) < tokenizer.vocab_size());
            known.ok_or_else(|| option(py, format!("ids: expected 0 to {}, found {id}", tokenizer.vocab_size() - 1)))
        });
        let ids = ids.collect::<PyResult<Vec<u32>>>()?;
        Ok(py.detach(|| tokenizer.decode(&ids, skip_special)))
    }
}
