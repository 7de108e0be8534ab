//! Where weights come from: a Hugging Face folder or a GGUF file of either dialect, checked against the schema.

mod assemble;
pub mod defaults;
pub(crate) mod folder;
pub mod llama_cpp;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use folder::VOCABULARY_FILES;

use crate::config::T5Config;
use crate::error::{Error, Result};
use crate::generate::GenerationDefaults;
use crate::head::{Head, HeadTask};
use crate::schema;
use crate::sentence_model::SentenceModel;
use crate::storage::{Bytes, check_file, is_same_file};
use crate::tensor::{DType, Tensor};
use crate::tokenizer::Vocabulary;

/// The tensors of a safetensors file that is not a whole model, such as an adapter's, by their names in it. `file`
/// names it in messages.
///
/// # Errors
/// If the bytes are not such a file, or a tensor is neither F32, F16 nor BF16.
pub fn safetensors(file: &str, bytes: &Bytes) -> Result<HashMap<String, Tensor>> {
    folder::safetensors::tensors(file, bytes)
}

/// A checked model file: every tensor of the schema is there with the right shape.
pub struct Checkpoint {
    /// The path it was opened from, for messages.
    pub file: String,
    /// What the files say, corrected by what the tensors say: `tie_word_embeddings` is whether there is no
    /// `lm_head`, `relative_bias_per_block` whether blocks after the first have a bias table.
    pub config: T5Config,
    /// `None` where the checkpoint has weights only; then only ids can be used.
    pub vocabulary: Option<Vocabulary>,
    /// How the checkpoint wants to be decoded.
    pub generation: GenerationDefaults,
    /// What is behind the encoder of a sentence model.
    pub sentence: Option<SentenceModel>,
    /// A head that does not generate, in the place of an output matrix.
    pub head: Option<Head>,
    /// `[d_model]`: what the encoder's output has to be multiplied with to be that of the model before it was balanced.
    /// The decoder of a balanced file takes it as it is.
    pub encoder_scale: Option<Vec<f32>>,
    /// What a GGUF file says of itself for people: the texts under `general.`, such as name, licence and attribution.
    pub about: BTreeMap<String, String>,
    /// What a curious user may want to know (settings ignored, tensors skipped).
    pub notes: Vec<String>,
    /// Of the notes, those that everybody should know: keys of config.json that change values and are not obeyed, and
    /// added tokens that the vocabulary has no place for.
    pub not_obeyed: Vec<String>,
    /// By canonical (Hugging Face) name.
    tensors: HashMap<String, Tensor>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("file", &self.file)
            .field("config", &self.config)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// Refuses the empty path, which the system's messages would not show.
pub(crate) fn expect_name(option: &'static str, path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Error::Option { option, what: "expected a file or a folder, found an empty name".to_owned() });
    }
    Ok(())
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a Diffusers pipeline's folder with one T5 in it, a GGUF file, or a safetensors
    /// file, which may hold other models beside the T5. Where there is no config.json, the tensors' shapes say what it
    /// would.
    ///
    /// Weights are mapped: nothing is read until it is used. Names, types, shapes and sizes are checked here;
    /// stored values are not (see [`crate::block::check`]).
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Checkpoint::open_any(path, None)
    }

    /// As [`Checkpoint::open`], with PyTorch's pickles where there is nothing better: this crate has no reader of them.
    pub fn open_with_pickles(path: &Path, read: &PickleReader) -> Result<Checkpoint> {
        Checkpoint::open_any(path, Some(read))
    }

    fn open_any(path: &Path, pickles: Option<&PickleReader>) -> Result<Checkpoint> {
        expect_name("model", path)?;
        if path.is_dir() {
            return folder::open_disk(path, pickles);
        }
        check_file(path)?;
        if is_weights(path) {
            return folder::open_file(path, pickles);
        }
        let mut start = Vec::new();
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        file.take(4).read_to_end(&mut start).map_err(Error::io(path))?;
        if start == crate::gguf::MAGIC || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            return llama_cpp::open(path);
        }
        let expected = "a Hugging Face folder, a .gguf file, or a .safetensors file";
        Err(Error::NotAModel { path: path.to_owned(), expected: expected.to_owned() })
    }

    /// Opens a GGUF file that is already in memory. `file` names it in messages.
    ///
    /// Only llama.cpp's dialect will do: candle's has its configuration and vocabulary in other files.
    pub fn from_gguf(file: &str, bytes: Bytes) -> Result<Checkpoint> {
        llama_cpp::from_memory(file, bytes)
    }

    /// Opens the files of a Hugging Face folder that are already in memory, by their names. `folder` names them all
    /// in messages.
    pub fn from_files(folder: &str, files: &HashMap<String, Bytes>) -> Result<Checkpoint> {
        folder::open_with_modules(folder::Files::Memory { name: folder, files })
    }

    /// Puts another tokenizer in the place of the checkpoint's: tokenizer.json, a SentencePiece model, a folder with
    /// one of them, or that of another GGUF file.
    ///
    /// # Errors
    /// Where there is none, it cannot be read, or it has more pieces than the embedding has rows.
    pub fn replace_tokenizer(&mut self, path: &Path) -> Result<()> {
        expect_name("tokenizer", path)?;
        let is = |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        let is_of_tokenizer = |note: &String| note.contains(folder::ADDED_TOKENS);
        let (mut notes, mut not_obeyed) = (Vec::new(), Vec::new());
        let vocabulary = if is("gguf") {
            let Checkpoint { vocabulary, not_obeyed: others, .. } = Checkpoint::open(path)?;
            not_obeyed = others.into_iter().filter(is_of_tokenizer).collect();
            notes.clone_from(&not_obeyed);
            vocabulary
        } else {
            folder::vocabulary_at(path, &self.config, &mut notes, &mut not_obeyed)?
        };
        let Some(vocabulary) = vocabulary else {
            let expected = "tokenizer.json, a SentencePiece model, a folder with one of them, or a GGUF file with a \
                            tokenizer";
            return Err(Error::NotAModel { path: path.to_owned(), expected: expected.to_owned() });
        };
        folder::check_rows(&path.display().to_string(), Some(&vocabulary), &self.config)?;
        self.vocabulary = Some(vocabulary);
        for (list, new) in [(&mut self.notes, notes), (&mut self.not_obeyed, not_obeyed)] {
            list.retain(|note| !is_of_tokenizer(note));
            list.extend(new);
        }
        Ok(())
    }

    /// Leaves the decoder out, and with it a head that reads its states. The embedding stays, whatever its rows were
    /// shared with.
    pub fn keep_encoder_only(&mut self) {
        self.config.num_decoder_layers = 0;
        self.config.tie_word_embeddings = true;
        let kept: HashSet<String> = schema::tensors(&self.config).into_iter().map(|spec| spec.hf_name).collect();
        self.tensors.retain(|name, _| kept.contains(name));
        self.head = self.head.take().filter(|head| head.task == HeadTask::Tokens);
        self.generation = GenerationDefaults::default();
    }

    /// Whether this checkpoint was read from `path`, among other files. By what paths are, not how they are spelled.
    pub fn reads(&self, path: &Path) -> bool {
        let opened = Path::new(&self.file);
        let folder = if opened.is_dir() { opened } else { opened.parent().unwrap_or(Path::new("")) };
        let names = folder::COMPANIONS.iter().chain(&folder::WEIGHTS).chain(&folder::PICKLES);
        let tokenizer = folder::tokenizer(folder);
        let in_tokenizer =
            tokenizer.iter().flat_map(|folder| folder::COMPANIONS.iter().map(move |name| folder.join(name)));
        let companions = names.map(|name| folder.join(name)).chain(in_tokenizer);
        let weights = self.tensors.values().map(|tensor| PathBuf::from(&tensor.file));
        let mut files = [opened.to_owned()].into_iter().chain(companions).chain(weights);
        files.any(|file| is_same_file(&file, path))
    }

    /// Bytes of all tensors as they are stored.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.data.len()).sum()
    }

    /// A tensor by its canonical name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Refuses files that were written in place since they were opened.
    ///
    /// # Errors
    /// [`Error::Changed`].
    pub fn check_unchanged(&self) -> Result<()> {
        self.tensors.values().try_for_each(|tensor| tensor.data.check_unchanged())
    }

    /// Lets the tensors' data go; names, types, shapes and places in the file stay.
    pub(crate) fn forget_data(&mut self) {
        for tensor in self.tensors.values_mut() {
            tensor.data = tensor.data.emptied();
        }
    }

    pub(crate) fn tensor_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        self.tensors.get_mut(name)
    }

    /// Puts other values, in f32, in the place of a tensor's.
    ///
    /// # Errors
    /// If there is no such tensor, or it has another number of values.
    pub fn replace_values(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let file = self.file.clone();
        let Some(tensor) = self.tensors.get_mut(name) else {
            return Err(Error::tensor(file, name, "expected a tensor of this name, found none"));
        };
        if values.len() != tensor.len() {
            return Err(tensor.error(format!("expected {} values, found {}", tensor.len(), values.len())));
        }
        tensor.dtype = DType::F32;
        tensor.scale = 1.0;
        tensor.data = Bytes::from_vec(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        Ok(())
    }

    /// All tensors, in the order of [`schema::tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = (schema::TensorSpec, &Tensor)> {
        schema::tensors(&self.config).into_iter().map(|spec| {
            let tensor = &self.tensors[&spec.hf_name];
            (spec, tensor)
        })
    }
}

/// What reads a PyTorch pickle: the tensors of the file, under the names that they have there.
pub type PickleReader = dyn Fn(&Path) -> Result<Vec<Tensor>>;

/// Whether the name of a file is one that weights beside a configuration have: safetensors, or PyTorch's pickles.
pub fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) || is_pickle(path)
}

/// Whether the name of a file is one that PyTorch's pickles have.
pub fn is_pickle(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["bin", "pt", "pth", "ckpt"].iter().any(|pickle| extension.eq_ignore_ascii_case(pickle))
}
