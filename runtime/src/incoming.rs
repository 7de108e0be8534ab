//! [`Incoming`]: a model from a GGUF file that arrives in pieces, front to back.
//!
//! The file is never whole in memory: rows of weights go into the form that products read as they arrive, so the model
//! takes the memory of one copy of its weights, while it loads as well. (Where files can be mapped, mapping one costs
//! less: the operating system takes its pages away again.)

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::gguf::MAGIC;
use crate::kernels::{Kernels, Matrix, Purpose};
use crate::loader::{Loader, WeightSource};
use crate::model::{Model, ModelOptions, Stacks};
use crate::order::sorted_by;
use crate::schema::EMBEDDING_ALIASES;
use crate::storage::Bytes;
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;

/// How many bytes have to be there before the header is read for the first time; it is tried again at each doubling.
const FIRST_TRY: usize = 64 << 10;

/// A model whose file is arriving.
///
/// ```no_run
/// # fn main() -> t5_runtime::Result<()> {
/// # let (size, pieces): (usize, Vec<Vec<u8>>) = (0, Vec::new());
/// let mut incoming = t5_runtime::Incoming::new("model.gguf", size, &Default::default())?;
/// for piece in pieces {
///     incoming.push(&piece)?;
/// }
/// let model = incoming.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct Incoming {
    file: String,
    /// Bytes of the whole file, and of those that have arrived.
    size: usize,
    received: usize,
    kernels: Kernels,
    stage: Stage,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("file", &self.file)
            .field("size", &self.size)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

enum Stage {
    /// What has arrived, until the header is whole; how much there must be for the next try to read it.
    Header(Vec<u8>, usize),
    Weights(Box<Arriving>),
}

/// Weights on their way, and where they go.
struct Arriving {
    checkpoint: Checkpoint,
    tokenizer: Option<Tokenizer>,
    /// Matrices by the name of their first tensor.
    matrices: Vec<(String, Matrix)>,
    /// By place in the file.
    tensors: Vec<Expected>,
    /// The first one that is not whole.
    next: usize,
    /// The beginning of one of its rows.
    row: Vec<u8>,
    kernels: Kernels,
}

/// A tensor of the file.
struct Expected {
    name: String,
    range: Range<usize>,
    row_bytes: usize,
    /// Which matrices its rows become part of, and from which row on.
    targets: Vec<(usize, usize)>,
    /// Its bytes, where they are needed as they are.
    stored: Option<Vec<u8>>,
}

impl Incoming {
    /// A file of `size` bytes, named `file` in messages.
    ///
    /// # Errors
    /// If the options name an instruction set that is not there.
    pub fn new(file: &str, size: usize, options: &ModelOptions) -> Result<Incoming> {
        let kernels = options.kernels()?.for_weights(size);
        Ok(Incoming { file: file.to_owned(), size, received: 0, kernels, stage: Stage::Header(Vec::new(), FIRST_TRY) })
    }

    /// How many bytes have arrived.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As soon as the file can be seen to be wrong; it is then of no use any more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.size - self.received {
            let found = self.received + bytes.len();
            let what = format!("expected {} bytes, found at least {found}", self.size);
            return Err(Error::format(&self.file, what));
        }
        let start = self.received;
        self.received += bytes.len();
        match &mut self.stage {
            Stage::Weights(arriving) => arriving.push(bytes, start),
            Stage::Header(header, next_try) => {
                header.extend_from_slice(bytes);
                // What is no GGUF file at all is refused at once.
                let wrong = header.iter().zip(&MAGIC).any(|(found, expected)| found != expected);
                if !wrong && self.received < self.size && header.len() < *next_try {
                    return Ok(());
                }
                *next_try = header.len() * 2;
                let header = std::mem::take(header);
                self.read_header(header, wrong)
            }
        }
    }

    /// Reads the header, and hands on what is behind it; waits for more if it is not whole.
    fn read_header(&mut self, header: Vec<u8>, wrong: bool) -> Result<()> {
        let arrived = header.len();
        let bytes = Bytes::from_beginning(header, self.size);
        match Checkpoint::from_gguf(&self.file, bytes.clone()) {
            Ok(mut checkpoint) => {
                // The header is given back before the weights' memory is taken.
                let tensors = checkpoint.tensors().map(|(_, tensor)| tensor.data.range().start);
                let start = tensors.min().unwrap_or(arrived).min(arrived);
                let rest = bytes.arrived()[start..].to_vec();
                checkpoint.forget_data();
                drop(bytes);
                let mut arriving = Box::new(Arriving::new(checkpoint, self.kernels)?);
                arriving.push(&rest, start)?;
                self.stage = Stage::Weights(arriving);
                Ok(())
            }
            // More bytes may mend it.
            Err(_) if !wrong && arrived < self.size => {
                if let Stage::Header(header, _) = &mut self.stage {
                    *header = bytes.into_beginning();
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The model.
    ///
    /// # Errors
    /// If bytes are missing.
    pub fn finish(self) -> Result<Model> {
        let cut_off = || Error::format(&self.file, format!("expected {} bytes, found {}", self.size, self.received));
        match self.stage {
            Stage::Weights(arriving) if self.received == self.size => arriving.finish(),
            // An empty file has not even been looked at.
            Stage::Header(..) if self.size == 0 => {
                Err(Checkpoint::from_gguf(&self.file, Bytes::from_vec(Vec::new())).err().unwrap_or_else(cut_off))
            }
            _ => Err(cut_off()),
        }
    }
}

impl Arriving {
    fn new(mut checkpoint: Checkpoint, kernels: Kernels) -> Result<Arriving> {
        let tokenizer = Model::tokenizer_of(&checkpoint)?;
        // The tokenizer has its own copy.
        checkpoint.vocabulary = None;
        let loader =
            Loader { checkpoint: &checkpoint, kernels, source: WeightSource::Expected(RefCell::new(Vec::new())) };
        Stacks::load(&loader)?;
        let WeightSource::Expected(expected) = loader.source else { unreachable!("set above") };

        // Tied embeddings are looked up in the head, where its type allows that.
        let embedding = EMBEDDING_ALIASES[0];
        let tied = checkpoint.config.tie_word_embeddings && !checkpoint.config.is_encoder_only();
        let looked_up = |tensor: &&Tensor| !(tied && Matrix::has_rows(tensor.dtype));
        let mut stored: HashMap<String, Vec<u8>> = HashMap::new();
        let mut store = |tensor: &Tensor| stored.insert(tensor.name.clone(), Vec::with_capacity(tensor.data.len()));
        checkpoint.tensor(embedding).filter(looked_up).map(&mut store);

        // The largest first: memory that earlier work has left in pieces then serves the small ones.
        let mut matrices = Vec::new();
        let mut targets: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        let all: Vec<(Vec<&Tensor>, Purpose)> = expected
            .into_inner()
            .iter()
            .map(|(names, purpose)| (names.iter().filter_map(|name| checkpoint.tensor(name)).collect(), *purpose))
            .collect();
        let bytes = |(parts, _): &(Vec<&Tensor>, Purpose)| parts.iter().map(|part| part.data.len()).sum::<usize>();
        for (parts, purpose) in sorted_by(all, |a, b| bytes(b).cmp(&bytes(a))) {
            let Some(matrix) = Matrix::zeroed(kernels, &parts, purpose)? else { continue };
            let mut first = 0;
            for part in &parts {
                targets.entry(part.name.clone()).or_default().push((matrices.len(), first));
                first += part.rows();
            }
            matrices.push((parts[0].name.clone(), matrix));
        }
        // What is in no matrix: norms, biases, and types that products read as they are.
        for (_, tensor) in checkpoint.tensors() {
            if !targets.contains_key(&tensor.name) && tensor.name != embedding {
                store(tensor);
            }
        }
        let tensors: Vec<Expected> = checkpoint
            .tensors()
            .map(|(_, tensor)| Expected {
                name: tensor.name.clone(),
                range: tensor.data.range(),
                row_bytes: tensor.data.len() / tensor.rows(),
                targets: targets.remove(&tensor.name).unwrap_or_default(),
                stored: stored.remove(&tensor.name),
            })
            .collect();
        let tensors = sorted_by(tensors, |a, b| a.range.start.cmp(&b.range.start));
        Ok(Arriving { checkpoint, tokenizer, matrices, tensors, next: 0, row: Vec::new(), kernels })
    }

    /// Takes the bytes of the file from `start` on.
    fn push(&mut self, bytes: &[u8], start: usize) -> Result<()> {
        while let Some(tensor) = self.tensors.get_mut(self.next) {
            // What lies between tensors is left out; so is the part that an earlier call has brought.
            let from = tensor.range.start.max(start).min(start + bytes.len());
            let until = tensor.range.end.min(start + bytes.len()).max(from);
            let part = &bytes[from - start..until - start];
            if let Some(stored) = &mut tensor.stored {
                stored.extend_from_slice(part);
            }
            let name = &tensor.name;
            let checked = self.checkpoint.tensor(name).expect("all names are the checkpoint's");
            let mut index = (from - tensor.range.start.min(from)) / tensor.row_bytes;
            let mut rest = if tensor.targets.is_empty() { &[][..] } else { part };
            while !rest.is_empty() {
                let (bytes, more) = rest.split_at(rest.len().min(tensor.row_bytes - self.row.len()));
                rest = more;
                let whole = if bytes.len() == tensor.row_bytes {
                    bytes
                } else {
                    self.row.extend_from_slice(bytes);
                    &self.row[..]
                };
                if whole.len() < tensor.row_bytes {
                    break;
                }
                for &(matrix, first) in &tensor.targets {
                    self.matrices[matrix].1.set_row(self.kernels, first + index, checked, index, whole)?;
                }
                self.row.clear();
                index += 1;
            }
            if until < tensor.range.end {
                return Ok(());
            }
            if let Some(stored) = tensor.stored.take()
                && let Some(tensor) = self.checkpoint.tensor_mut(name)
            {
                tensor.data = Bytes::from_vec(stored);
            }
            self.next += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Model> {
        let Arriving { checkpoint, tokenizer, matrices, kernels, .. } = self;
        let source = WeightSource::Made(RefCell::new(matrices.into_iter().collect()));
        let stacks = Stacks::load(&Loader { checkpoint: &checkpoint, kernels, source })?;
        Ok(Model::from_stacks(checkpoint, kernels, tokenizer, stacks, None))
    }
}

#[cfg(all(test, feature = "default-model"))]
mod tests {
    use super::*;
    use crate::pocket;

    /// The built-in model's file in pieces of `piece` bytes.
    fn receive(file: &[u8], size: usize, piece: usize) -> Result<Model> {
        let mut incoming = Incoming::new("arriving", size, &ModelOptions::default())?;
        for piece in file.chunks(piece) {
            incoming.push(piece)?;
        }
        incoming.finish()
    }

    fn message(result: Result<Model>) -> String {
        result.expect_err("expected an error").to_string()
    }

    #[test]
    fn pieces_of_any_size_make_the_model() {
        let whole = Model::pocket().unwrap();
        let (source, target) = ([7, 300, 41, 1], [5, 90, 8000, 1]);
        let expected = whole.session().logits_ids(&source, &target).unwrap();
        let file = pocket::bytes();
        for piece in [997, 65_536, 1 << 20, file.len()] {
            let model = receive(file, file.len(), piece).unwrap();
            assert!(matches!(model.data().embedding, crate::layers::Embedding::Head(_)));
            let found = model.session().logits_ids(&source, &target).unwrap();
            assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "pieces of {piece}");
            let text = "translate English to German: Good morning.";
            assert_eq!(model.tokenizer().unwrap().encode(text), whole.tokenizer().unwrap().encode(text));
            assert_eq!(model.config().to_json(), whole.config().to_json());
        }
    }

    #[test]
    fn wrong_files_are_refused_when_they_can_be_seen() {
        let file = pocket::bytes();
        let size = file.len();
        let found = message(receive(&file[..size - 1], size, 1 << 20));
        assert_eq!(found, format!("arriving: expected {size} bytes, found {}", size - 1));
        let found = message(receive(file, size - 1, 1 << 20));
        assert!(found.contains(&format!("expected {} bytes, found at least", size - 1)), "{found}");
        assert!(message(receive(&[], 0, 1)).contains("not a GGUF file"));

        let mut page = Incoming::new("page", size, &ModelOptions::default()).unwrap();
        let found = page.push(b"<html> and so on, for a while").unwrap_err().to_string();
        assert!(found.contains("not a GGUF file"), "{found}");

        // Cut off within the header, and so announced.
        let found = message(receive(&file[..1000], 1000, 100));
        assert!(found.starts_with("arriving: expected at most") && found.contains("bytes left"), "{found}");

        // The first scale of the first matrix becomes infinite.
        let mut damaged = file.to_vec();
        let checkpoint = Checkpoint::pocket().unwrap();
        let embedding = checkpoint.tensor("shared.weight").unwrap();
        let at = embedding.data.range().start;
        damaged[at..at + 2].copy_from_slice(&[0, 0x7c]);
        let found = message(receive(&damaged, size, 1 << 20));
        assert!(found.contains("shared.weight") && found.contains("expected a finite scale in row 0"), "{found}");
    }
}
