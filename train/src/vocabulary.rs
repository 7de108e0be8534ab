//! The vocabulary: reading one for training, and training one.

mod charsmap;
mod divide;
mod json;
mod sentencepiece;
mod training;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use t5_runtime::checkpoint::{Checkpoint, VOCABULARY_FILES, is_weights};
use t5_runtime::storage::Bytes;
use t5_runtime::tokenizer::{self, ByteVocabulary, PieceKind, Tokenizer, UnigramVocabulary};

pub use charsmap::nmt_nfkc;
pub use json::to_tokenizer_json;
pub use sentencepiece::to_sentencepiece;
pub use training::{VocabularyConfig, check_name, save, train};

use divide::Divisions;

use crate::{Error, Result, objectives::Sentinels, random::Random};

/// Id of padding and of the decoder's start.
pub const PAD: u32 = 0;
/// Id of the end mark.
pub const EOS: u32 = 1;
/// Id of what no piece covers.
pub const UNK: u32 = 2;

/// What names ByT5's vocabulary, which has no file.
const BYTES: &str = "bytes";
/// The rows of ByT5's embedding.
const ROWS_OF_BYTES: u32 = 384;

/// Sentinels of a SentencePiece model, which does not have them itself.
const EXTRA_IDS: u32 = 100;

/// The character that stands for a space in pieces, U+2581.
const SPACE: char = '\u{2581}';

/// Rows of an embedding for so many ids: padded as in the reference, so that the head splits evenly.
pub fn padded_rows(ids: usize) -> usize {
    ids.next_multiple_of(128)
}

/// A text that two vocabularies of the same pieces divide otherwise where their scores or characters differ.
const PROBE: &str =
    "  The ﬁrst “unrecognizable” straße, naïve Ｔ５ —  internationalisation\n\tof 3.14159 <extra_id_0> 日本語! ";

/// What unknown pieces are in a text, as SentencePiece writes them.
const UNKNOWN: &str = " \u{2047} ";

/// Text to ids and back while training, as the reference's SeqIO does it.
///
/// The text of corpora and tasks never becomes `<pad>`, `</s>` or `<unk>`: where it spells them they are text. Of
/// special tokens it can become sentinels alone, `<extra_id_n>` at the start of a word. For all other text the ids are
/// those of the runtime's tokenizer, so that a model is trained on what it will see.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    sentinels: Sentinels,
    kind: VocabularyKind,
    /// The ids that can be divided, and what into: found when first wanted, which most uses never do.
    ordinary: Vec<u32>,
    divisions: OnceLock<Divisions>,
    path: PathBuf,
}

/// What the ids of a vocabulary stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum VocabularyKind {
    Pieces {
        /// A text starts with a space of its own that decoding takes off again.
        drops_first_space: bool,
    },
    Bytes(ByteVocabulary),
}

impl Vocabulary {
    /// Reads a `tokenizer.json` or a SentencePiece model, or that of a checkpoint: of a folder, of weights in a file
    /// beside their vocabulary, or of a GGUF file. `bytes` is ByT5's.
    ///
    /// # Errors
    /// Where there is none, or where it is not a T5 vocabulary (pad 0, `</s>` 1, `<unk>` 2).
    pub fn read(path: &Path) -> Result<Vocabulary> {
        if is_name(path) {
            return Vocabulary::bytes(ROWS_OF_BYTES);
        }
        let from_file = |file: &Path| arrays(file, &Bytes::map(file)?);
        let Some(folder) = folder_of(path) else {
            let held = if is_gguf(path) { of_checkpoint(path)? } else { from_file(path)? };
            return Vocabulary::new(&held, path);
        };
        let beside = VOCABULARY_FILES.iter().map(|name| folder.join(name)).find(|file| file.exists());
        match (of_checkpoint(path), beside) {
            // Other files than the vocabulary's may add to it; only where none does, what becomes of the model has that
            // file as it is.
            (Ok(held), Some(file)) if !from_file(&file).is_ok_and(|read| read == held) => Vocabulary::new(&held, path),
            (Ok(held), file) => Vocabulary::new(&held, file.as_deref().unwrap_or(path)),
            // The folder of a vocabulary alone.
            (Err(_), Some(file)) => Vocabulary::new(&from_file(&file)?, &file),
            (Err(error), None) => Err(error),
        }
    }

    /// ByT5's vocabulary, for a model of so many embedding rows.
    ///
    /// # Errors
    /// Where the rows are too few.
    pub fn bytes(rows: u32) -> Result<Vocabulary> {
        Vocabulary::new(&tokenizer::Vocabulary::bytes(rows), Path::new(BYTES))
    }

    /// Checks that a vocabulary has T5's special tokens. `path` is where it was read, for messages and exports.
    ///
    /// # Errors
    /// As [`Vocabulary::read`].
    pub fn new(arrays: &tokenizer::Vocabulary, path: &Path) -> Result<Vocabulary> {
        let file = path.display().to_string();
        let tokenizer = Tokenizer::new(&file, arrays)?;
        for (text, found, id) in
            [("<pad>", tokenizer.pad_id(), PAD), ("</s>", tokenizer.eos_id(), EOS), ("<unk>", tokenizer.unk_id(), UNK)]
        {
            if found != id {
                return Err(Error::file(path, format!("expected {text} to have id {id}, found {found}")));
            }
        }
        let first = tokenizer.sentinel_id(0).unwrap_or(0);
        let mut count = 0;
        while first > count && tokenizer.sentinel_id(count) == Some(first - count) {
            count += 1;
        }
        let mut sentinels = Sentinels { first, count };
        let (tokenizer, kind, ordinary) = match arrays {
            tokenizer::Vocabulary::Unigram(unigram) => {
                let drops_first_space = unigram.add_dummy_prefix || unigram.whitespace.removes_extra();
                let unigram = without_special_tokens(unigram, sentinels);
                let ordinary = divide::ordinary(&unigram);
                let tokenizer = Tokenizer::new(&file, &tokenizer::Vocabulary::Unigram(unigram))?;
                (tokenizer, VocabularyKind::Pieces { drops_first_space }, ordinary)
            }
            tokenizer::Vocabulary::Json(json) => {
                let what = format!("expected a vocabulary of Unigram pieces or bytes, found {}", json.kind);
                return Err(Error::file(path, what));
            }
            tokenizer::Vocabulary::Bytes(bytes) => {
                // Objectives count sentinels downwards, as pre-training did.
                if bytes.extra_ids_above {
                    sentinels.count = 0;
                }
                (tokenizer, VocabularyKind::Bytes(bytes.clone()), Vec::new())
            }
        };
        let divisions = OnceLock::new();
        Ok(Vocabulary { tokenizer, sentinels, kind, ordinary, divisions, path: path.to_path_buf() })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The vocabulary's file for a Hugging Face folder: what was read, or the `tokenizer.json` of what is in a
    /// checkpoint; none of bytes.
    ///
    /// # Errors
    /// Where the file cannot be read again, or no such file can say what the vocabulary does.
    pub fn file(&self) -> Result<Option<Vec<u8>>> {
        if self.of_bytes().is_some() {
            return Ok(None);
        }
        if !is_gguf(&self.path) && folder_of(&self.path).is_none() {
            return std::fs::read(&self.path).map(Some).map_err(Error::io(&self.path));
        }
        match of_checkpoint(&self.path)? {
            tokenizer::Vocabulary::Unigram(unigram) => {
                to_tokenizer_json(&self.path.display().to_string(), &unigram).map(Some)
            }
            tokenizer::Vocabulary::Bytes(_) => Ok(None),
            tokenizer::Vocabulary::Json(json) => Ok(Some(json.json.into_bytes())),
        }
    }

    /// What there is to know of a vocabulary of bytes; `None` of one of pieces.
    pub(crate) fn of_bytes(&self) -> Option<&ByteVocabulary> {
        match &self.kind {
            VocabularyKind::Pieces { .. } => None,
            VocabularyKind::Bytes(bytes) => Some(bytes),
        }
    }

    /// Number of ids, sentinels included, without padding rows.
    pub fn size(&self) -> u32 {
        self.tokenizer.vocab_size() as u32
    }

    /// A sha256 of the pieces of all ids, and of the ids of a text that differ where pieces are chosen otherwise.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for id in 0..self.size() {
            hash.update(self.piece(id).as_bytes());
            hash.update([0]);
        }
        for id in self.encode(PROBE) {
            hash.update(id.to_le_bytes());
        }
        crate::files::hex(&hash.finalize())
    }

    /// What sets a checkpoint's vocabulary apart from this one, as "whose id 5 is ..."; `None` where all of this one's
    /// ids are the same pieces there.
    ///
    /// # Errors
    /// Where the checkpoint's vocabulary cannot be used.
    pub fn difference(&self, checkpoint: &Checkpoint) -> Result<Option<String>> {
        let Some(other) = &checkpoint.vocabulary else {
            return Ok(Some("which has no vocabulary".to_owned()));
        };
        let other = Tokenizer::new(&checkpoint.file, other)?;
        // A sentinel may be written with a space or without.
        let pieces = |id: u32| {
            let sentinel = is_sentinel(self.sentinels, id);
            [&other, &self.tokenizer]
                .map(|from| from.piece(id).map(|piece| if sentinel { piece.trim_start_matches(SPACE) } else { piece }))
        };
        let differs = |&id: &u32| {
            let [theirs, ours] = pieces(id);
            theirs != ours
        };
        Ok((0..self.size()).find(differs).map(|id| {
            let [theirs, ours] = pieces(id).map(|piece| match piece {
                Some(piece) => format!("{piece:?}"),
                None => "none".to_owned(),
            });
            format!("whose id {id} is {theirs} and not {ours}")
        }))
    }

    /// The ids that stand for removed spans; a count of 0 where the vocabulary has none.
    pub fn sentinels(&self) -> Sentinels {
        self.sentinels
    }

    /// The ids of a text, without an end mark.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.kind {
            VocabularyKind::Pieces { .. } => self.tokenizer.encode_prefix(text),
            VocabularyKind::Bytes(bytes) => text.bytes().map(|byte| u32::from(byte) + bytes.offset).collect(),
        }
    }

    /// Whether it has pieces that can be divided. Bytes cannot.
    pub fn can_divide(&self) -> bool {
        !self.ordinary.is_empty()
    }

    /// Ids of the same text in another spelling: each piece is divided into two with a probability, where the
    /// vocabulary has them, and its halves again. Sentinels and added tokens stay whole.
    pub fn divide(&self, ids: &[u32], probability: f64, random: &mut Random) -> Vec<u32> {
        let pieces = || self.ordinary.iter().map(|&id| (id, self.piece(id)));
        self.divisions.get_or_init(|| Divisions::new(pieces)).divide(ids, probability, random)
    }

    /// The text of ids up to the first end mark. Pad ids are left out, unknown ones are `" ⁇ "` (of bytes: nothing),
    /// sentinels are words `<extra_id_n>`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut stream = self.tokenizer.stream(false);
        for &id in ids.iter().take_while(|&&id| id != EOS).filter(|&&id| id != PAD) {
            match self.kind {
                VocabularyKind::Pieces { .. } if id == UNK || id >= self.size() => {
                    let written = stream.push(UNK);
                    text.push_str(written.strip_suffix("<unk>").unwrap_or(written));
                    text.push_str(UNKNOWN);
                }
                VocabularyKind::Pieces { drops_first_space } => {
                    let written = stream.push(id);
                    let first = text.is_empty() && drops_first_space;
                    text.push_str(written.strip_prefix(' ').filter(|_| first).unwrap_or(written));
                }
                VocabularyKind::Bytes(_) if id == UNK => {}
                VocabularyKind::Bytes(_) => text.push_str(stream.push(id)),
            }
        }
        text + stream.finish()
    }

    /// The piece of an id as it is spelled in the vocabulary.
    pub fn piece(&self, id: u32) -> &str {
        let piece = self.tokenizer.piece(id).unwrap_or("<unused>");
        if is_sentinel(self.sentinels, id) { piece.trim_start_matches(SPACE) } else { piece }
    }
}

/// Whether this names a vocabulary that has no file.
pub(crate) fn is_name(path: &Path) -> bool {
    path == Path::new(BYTES) && !path.exists()
}

/// Whether a file is a GGUF file by its name.
fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"))
}

/// The folder whose files belong to a path: a folder itself, or the one that weights in a file of their own lie in.
fn folder_of(path: &Path) -> Option<&Path> {
    if path.is_dir() { Some(path) } else { path.parent().filter(|_| is_weights(path)) }
}

/// The vocabulary that a checkpoint brings along.
fn of_checkpoint(path: &Path) -> Result<tokenizer::Vocabulary> {
    let vocabulary = t5_quantize::pytorch::open(path)?.vocabulary;
    vocabulary.ok_or_else(|| Error::file(path, "expected a model with its vocabulary, found weights alone"))
}

/// What a vocabulary's file holds, of which kind its name says.
pub(crate) fn arrays(path: &Path, bytes: &[u8]) -> Result<tokenizer::Vocabulary> {
    let file = path.display().to_string();
    Ok(if is_sentencepiece(path) {
        tokenizer::Vocabulary::from_sentencepiece(&file, bytes, EXTRA_IDS)?
    } else {
        tokenizer::Vocabulary::from_tokenizer_json(&file, bytes)?
    })
}

/// Whether a file is a SentencePiece model by its name, which a folder may have, too.
pub(crate) fn is_sentencepiece(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "model") && !path.is_dir()
}

fn is_sentinel(Sentinels { first, count }: Sentinels, id: u32) -> bool {
    first.checked_sub(id).is_some_and(|n| n < count)
}

/// The vocabulary as SeqIO has it: control tokens are not looked for in a text, and sentinels are pieces that start a
/// word and are better than any other spelling.
fn without_special_tokens(vocabulary: &UnigramVocabulary, sentinels: Sentinels) -> UnigramVocabulary {
    let mut vocabulary = vocabulary.clone();
    for (id, piece) in (0..).zip(&mut vocabulary.pieces) {
        if is_sentinel(sentinels, id) {
            piece.text.insert(0, SPACE);
            (piece.kind, piece.score) = (PieceKind::Normal, 0.0);
        } else if matches!(piece.kind, PieceKind::Control | PieceKind::Unknown) {
            piece.kind = PieceKind::Unused;
        }
    }
    let pieces = &vocabulary.pieces;
    vocabulary.added.retain(|token| pieces[token.id as usize].kind == PieceKind::UserDefined);
    vocabulary
}

#[cfg(test)]
mod tests {
    use t5_runtime::config::T5Config;

    use super::*;
    use crate::init::Scheme;
    use crate::model::Model;

    /// The published vocabulary, from both of its files.
    fn published() -> Option<[Vocabulary; 2]> {
        let folder = crate::testing::shared("models/t5-tokenizer")?;
        Some(["spiece.model", "tokenizer.json"].map(|name| Vocabulary::read(&folder.join(name)).unwrap()))
    }

    /// Values of the `sentencepiece` library, 0.2.0, with the 100 pieces that SeqIO appends to the published model.
    #[test]
    fn decodes_as_the_reference() {
        let Some(vocabularies) = published() else { return };
        let rows: &[(&[u32], &str)] = &[
            (&[262, 2, 5], "E ⁇ ."),
            (&[2, 5], " ⁇ ."),
            (&[2, 2], " ⁇  ⁇ "),
            (&[8, 2, 8], "the ⁇  the"),
            (&[8, 40_000], "the ⁇ "),
            (&[3, 2, 5], " ⁇ ."),
            (&[3, 3, 262], "E"),
            (&[3, 3], ""),
            (&[32099, 8, 1782], "<extra_id_0> the dog"),
            (&[8, 32098], "the <extra_id_1>"),
            (&[32099, 32098], "<extra_id_0> <extra_id_1>"),
            (&[3, 32099], "<extra_id_0>"),
            (&[2, 32099, 5], " ⁇  <extra_id_0>."),
            (&[8, 0, 5], "the."),
            (&[1], ""),
            // SeqIO gives the library what stands before the first end mark.
            (&[0, 8, 1, 5], "the"),
        ];
        for vocabulary in &vocabularies {
            for (ids, text) in rows {
                assert_eq!(vocabulary.decode(ids), *text, "{ids:?} of {}", vocabulary.path().display());
            }
        }
    }

    /// Values of the same library and model.
    #[test]
    fn text_never_becomes_control_tokens() {
        let Some(vocabularies) = published() else { return };
        let rows: &[(&str, &[u32])] = &[
            ("</s>", &[3, 2, 87, 7, 3155]),
            ("a</s>b", &[3, 9, 2, 87, 7, 3155, 115]),
            ("<pad> <unk>", &[3, 2, 5612, 3155, 3, 2, 6513, 3155]),
            ("<extra_id_2>", &[32097]),
            ("<extra_id_2>.", &[32097, 5]),
            ("<extra_id_2> b", &[32097, 3, 115]),
            ("b <extra_id_2>", &[3, 115, 32097]),
            ("a  <extra_id_1>  b", &[3, 9, 32098, 3, 115]),
            // Within a word it is text, and so is a sentinel that there is not.
            ("b<extra_id_2>", &[3, 115, 2, 25666, 834, 23, 26, 834, 357, 3155]),
            ("<extra_id_2>b <extra_id_0><extra_id_1>", &[32097, 115, 32099, 2, 25666, 834, 23, 26, 834, 536, 3155]),
            ("<extra_id_100>", &[3, 2, 25666, 834, 23, 26, 834, 2915, 3155]),
            ("<EXTRA_ID_1>", &[3, 2, 427, 4, 11359, 834, 4309, 834, 536, 3155]),
        ];
        for vocabulary in &vocabularies {
            for (text, ids) in rows {
                assert_eq!(vocabulary.encode(text), *ids, "{text} of {}", vocabulary.path().display());
            }
            assert_eq!([0, 1, 2, 32099].map(|id| vocabulary.piece(id)), ["<pad>", "</s>", "<unk>", "<extra_id_0>"]);
            assert_eq!(vocabulary.sentinels(), Sentinels { first: 32099, count: 100 });
        }
    }

    #[test]
    fn bytes_are_text_whatever_they_spell() {
        let vocabulary = Vocabulary::bytes(384).unwrap();
        for text in ["</s>", "a<pad> <unk>", "<extra_id_0>", "é日"] {
            let ids: Vec<u32> = text.bytes().map(|byte| u32::from(byte) + 3).collect();
            assert_eq!(vocabulary.encode(text), ids);
            assert_eq!(vocabulary.decode(&ids), text);
        }
        assert_eq!(vocabulary.decode(&[100, 2, 0, 101, 1, 102]), "ab");
    }

    fn golden(family: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families").join(family)
    }

    #[test]
    fn a_vocabulary_is_found_where_the_runtime_finds_it() {
        for name in VOCABULARY_FILES {
            let folder = tempfile::tempdir().unwrap();
            let [weights, file] = ["model.safetensors", name].map(|name| folder.path().join(name));
            let of_kind = if name.ends_with(".json") { name } else { "spiece.model" };
            for (from, to) in
                [("config.json", "config.json"), ("model.safetensors", "model.safetensors"), (of_kind, name)]
            {
                std::fs::copy(golden("unigram").join(from), folder.path().join(to)).unwrap();
            }
            let checkpoint = Checkpoint::open(&weights).unwrap();
            for path in [folder.path(), weights.as_path(), file.as_path()] {
                let vocabulary = Vocabulary::read(path).unwrap();
                assert_eq!(vocabulary.path(), file.as_path());
                assert_eq!(vocabulary.difference(&checkpoint).unwrap(), None, "{}", path.display());
            }
            std::fs::remove_file(&weights).unwrap();
            assert_eq!(Vocabulary::read(folder.path()).unwrap().path(), file.as_path());
        }
    }

    /// Where the runtime takes more than the file has, so does training.
    #[test]
    fn a_checkpoint_s_added_tokens_are_trained_on() {
        let folder = tempfile::Builder::new().suffix(".model").tempdir().unwrap();
        std::fs::copy(golden("unigram").join("spiece.model"), folder.path().join("spiece.model")).unwrap();
        // With rows for more than the file's pieces.
        let text = std::fs::read_to_string(golden("unigram").join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["vocab_size"] = 384.into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let config = T5Config::from_json("config.json", &config.to_string()).unwrap();
        let model = Model::new(&config, Scheme::T5x, 1).unwrap();
        crate::checkpoint::write_model(&folder.path().join("model.safetensors"), &model, None).unwrap();
        let plain = Vocabulary::read(folder.path()).unwrap();
        let text = "a <mine> house";
        let next = plain.size();
        std::fs::write(folder.path().join("added_tokens.json"), format!("{{\"<mine>\": {next}}}")).unwrap();
        let added = Vocabulary::read(folder.path()).unwrap();
        assert_eq!(added.size(), next + 1);
        assert!(added.encode(text).contains(&next));
        assert_eq!(added.difference(&Checkpoint::open(folder.path()).unwrap()).unwrap(), None);
        // What becomes of the model has a file that says it, of the kind that the name then says.
        assert!(!is_sentencepiece(added.path()));
        let file = folder.path().join("written.json");
        std::fs::write(&file, added.file().unwrap().unwrap()).unwrap();
        assert_eq!(Vocabulary::read(&file).unwrap().encode(text), added.encode(text));
    }

    #[test]
    fn bytes_are_the_checkpoint_s_or_named() {
        let folder = golden("byt5");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for path in [folder.clone(), folder.join("model.safetensors")] {
            let vocabulary = Vocabulary::read(&path).unwrap();
            assert_eq!(vocabulary.difference(&checkpoint).unwrap(), None);
            assert!(vocabulary.file().unwrap().is_none());
            // Its sentinels go upwards, which no objective does.
            assert_eq!((vocabulary.size(), vocabulary.sentinels().count), (384, 0));
        }
        let named = Vocabulary::read(Path::new("bytes")).unwrap();
        assert_eq!((named.size(), named.sentinels()), (259, Sentinels { first: 258, count: 125 }));
        // A folder with neither.
        let folder = tempfile::tempdir().unwrap();
        assert!(Vocabulary::read(folder.path()).is_err());
    }
}
