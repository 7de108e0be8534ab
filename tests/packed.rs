//! Packed weights in a file of their own: the same bits as without, on every instruction set and in every type; a file
//! that is damaged, stale or of something else is named or made anew, never believed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::kernels::{Isa, Kernels};
use t5_runtime::tensor::DType;
use t5_runtime::{GenerateOptions, Model, ModelOptions};
use t5_tests::{beside, convert, families, paths};

/// A model's file, and what it says.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(checkpoint: &Path, dtype: DType) -> Case {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        std::fs::write(case.model(), convert::gguf(checkpoint, dtype)).unwrap();
        case
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn packed(&self) -> PathBuf {
        self.folder.path().join("model.packed")
    }

    fn open(&self, isa: Option<Isa>) -> Model {
        let checkpoint = Checkpoint::open(&self.model()).unwrap();
        Model::from_checkpoint_and_packed(checkpoint, &ModelOptions { isa, ..ModelOptions::default() }, &self.packed())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn written(&self) -> SystemTime {
        std::fs::metadata(self.packed()).unwrap().modified().unwrap()
    }

    /// What the model says of the packed file.
    fn note(&self, model: &Model) -> String {
        let place = self.packed().display().to_string();
        model.notes().iter().filter(|note| note.starts_with(&place)).cloned().collect()
    }
}

/// States of an encoder, and where there is a decoder what it chooses and how probable that is, bit by bit.
fn bits(model: &Model) -> (Vec<u32>, Vec<u32>) {
    let mut session = model.session();
    let source = [3, 9, 17, 5, 20, 8, 1];
    let states = session.encode_ids(&source).unwrap().iter().map(|value| value.to_bits()).collect();
    if model.config().is_encoder_only() {
        return (states, Vec::new());
    }
    let options = GenerateOptions::default().max_new_tokens(8).min_new_tokens(4);
    let output = session.generate_ids(&source, &options).unwrap().finish().remove(0);
    (states, output.ids.into_iter().chain(output.logprobs.iter().map(|logprob| logprob.to_bits())).collect())
}

fn plain(path: &Path, isa: Option<Isa>) -> (Vec<u32>, Vec<u32>) {
    bits(&Model::open_with(path, &ModelOptions { isa, ..ModelOptions::default() }).unwrap())
}

#[test]
fn the_bits_are_those_without() {
    let mut stored = 0;
    // Encoder alone, a bias in each block, widths that no vector divides, an embedding of its own as the head.
    for name in ["encoder-only", "umt5", "odd", "t5-1.1"] {
        for dtype in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0] {
            let case = Case::new(&families::folder(name), dtype);
            for kernels in Kernels::available() {
                let isa = Some(kernels.isa());
                let place = format!("{name} {dtype} {}", kernels.isa().name());
                let expected = plain(&case.model(), isa);
                let made = case.open(isa);
                assert!(case.note(&made).contains(": made"), "{place}: {:?}", made.notes());
                assert_eq!(bits(&made), expected, "{place}");
                let written = case.written();
                let mapped = case.open(isa);
                assert_eq!(case.note(&mapped), "", "{place}");
                assert_eq!(case.written(), written, "{place}: written again");
                assert_eq!(bits(&mapped), expected, "{place}");
                stored += std::fs::metadata(case.packed()).unwrap().len();
            }
        }
    }
    assert!(stored > 1 << 20, "{stored} bytes: next to nothing was packed");
}

/// Runs of scales, super-blocks and the head of a real vocabulary.
#[test]
fn the_built_in_model_gives_its_bits_too() {
    let source = paths::workspace().join("runtime/model/pocket-t5.gguf");
    for dtype in [DType::Q8_0, DType::Q4_K] {
        let case = Case::new(&source, dtype);
        let expected = plain(&case.model(), None);
        for _ in 0..2 {
            assert_eq!(bits(&case.open(None)), expected, "{dtype}");
        }
    }
}

#[test]
fn a_damaged_file_is_made_anew() {
    let case = Case::new(&families::folder("t5-1.1"), DType::Q8_0);
    let expected = plain(&case.model(), None);
    case.open(None);
    let whole = std::fs::read(case.packed()).unwrap();
    let damages = (0..40).map(|part| {
        let mut bytes = whole.clone();
        let at = 16 + (bytes.len() - 17) * part / 39;
        bytes[at] ^= 1 << (part % 8);
        bytes
    });
    let cut = [17, 40, whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec());
    let longer = [&whole[..], b"x"].concat();
    for (index, bytes) in damages.chain(cut).chain([longer]).enumerate() {
        std::fs::write(case.packed(), &bytes).unwrap();
        let model = case.open(None);
        let padding = bytes.len() == whole.len() && case.note(&model).is_empty();
        assert!(padding || case.note(&model).contains(": made anew: it was "), "{index}: {:?}", model.notes());
        assert_eq!(bits(&model), expected, "{index}");
        if !padding {
            assert_eq!(std::fs::read(case.packed()).unwrap(), whole, "{index}");
        }
    }
}

#[test]
fn a_file_of_another_model_is_made_anew() {
    // Two models of one shape.
    let case = Case::new(&families::folder("t5-1.1"), DType::Q8_0);
    case.open(None);
    let mut other = std::fs::read(case.model()).unwrap();
    let last = other.len() - 40;
    let weights = last - 4000..last;
    other[weights].iter_mut().step_by(34).for_each(|byte| *byte ^= 1);
    let changed = case.folder.path().join("changed.gguf");
    std::fs::write(&changed, &other).unwrap();
    std::fs::rename(&changed, case.model()).unwrap();
    let expected = plain(&case.model(), None);
    let model = case.open(None);
    assert!(case.note(&model).contains("made anew: it was made of another model"), "{:?}", model.notes());
    assert_eq!(bits(&model), expected);
}

#[test]
fn other_files_are_left_alone() {
    let case = Case::new(beside::sentence_model("st5").path(), DType::Q8_0);
    for (name, bytes) in [("model.packed", &b"a text of mine"[..]), ("model.packed", b"")] {
        std::fs::write(case.folder.path().join(name), bytes).unwrap();
        let checkpoint = Checkpoint::open(&case.model()).unwrap();
        let error = Model::from_checkpoint_and_packed(checkpoint, &ModelOptions::default(), &case.packed());
        let error = error.err().unwrap().to_string();
        assert!(error.contains("model.packed: expected a file of packed weights or none, found another"), "{error}");
        assert_eq!(std::fs::read(case.packed()).unwrap(), bytes);
    }
    let checkpoint = Checkpoint::open(&case.model()).unwrap();
    let error = Model::from_checkpoint_and_packed(checkpoint, &ModelOptions::default(), &case.model());
    assert!(error.err().unwrap().to_string().contains("model.gguf: expected a file of packed weights or none"));
}
