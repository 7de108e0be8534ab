//! A vocabulary as arrays: what every tokenizer file is turned into, and what the GGUF writer stores.
//!
//! All fields are plain numbers, flags, strings and byte strings, so that a GGUF file can hold them one key each and
//! no JSON has to be parsed when a model starts.

use super::bytes;
use crate::error::Result;

/// A vocabulary, independent of the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Vocabulary {
    /// A SentencePiece model, with few exceptions Unigram: T5, T5 1.1, FLAN, LM-adapted, mT5, umT5, MADLAD.
    Unigram(UnigramVocabulary),
    /// UTF-8 bytes: ByT5.
    Bytes(ByteVocabulary),
    /// A `tokenizer.json` of another kind, as it is: byte-level BPE, WordPiece.
    Json(JsonVocabulary),
}

/// A `tokenizer.json` that only the `tokenizers` crate can run (the feature of that name).
#[derive(Clone, Debug, PartialEq)]
pub struct JsonVocabulary {
    /// The file's text.
    pub json: String,
    /// The type of its model: `BPE`, `WordPiece`, `WordLevel`.
    pub kind: String,
    /// The number of ids: one more than the highest that has a piece.
    pub count: usize,
    /// The id of `</s>`, which the model's configuration names.
    pub eos_id: u32,
    /// The id of `<pad>`, from there, too.
    pub pad_id: u32,
}

/// How a SentencePiece model cuts a text into pieces; the numbers are SentencePiece's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PieceModel {
    /// By the most probable path.
    #[default]
    Unigram = 1,
    /// By joining neighbours, the best pair first.
    Bpe = 2,
    /// Into words.
    Word = 3,
    /// Into characters.
    Char = 4,
}

impl PieceModel {
    /// Every model.
    pub const ALL: [PieceModel; 4] = [PieceModel::Unigram, PieceModel::Bpe, PieceModel::Word, PieceModel::Char];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            PieceModel::Unigram => "unigram",
            PieceModel::Bpe => "bpe",
            PieceModel::Word => "word",
            PieceModel::Char => "char",
        }
    }
}

/// A SentencePiece model, most often Unigram, with the tokens that were added to it.
///
/// Two kinds of files describe it, `tokenizer.json` and `spiece.model`; the fields are what both have in common, in
/// terms of what is done to a text, in this order:
///
/// 1. [`AddedToken`]s are cut out of the text; what lies between them are *stretches*.
/// 2. Each stretch is rewritten by `charsmap`.
/// 3. White space is treated as [`Whitespace`] says; each remaining U+0020 becomes `▁` (U+2581).
/// 4. A `▁` is put in front (`add_dummy_prefix`, `legacy`).
/// 5. The stretch is cut before each `▁` (`split_words`) and each part is segmented as the model does it: by
///    the most probable path.
///
/// Of other models than Unigram steps 2 to 5 are SentencePiece's own ([`Whitespace::removes_extra`] says all of 3).
#[derive(Clone, Debug, PartialEq)]
pub struct UnigramVocabulary {
    /// The pieces in id order. Only real ones: the filler rows by which a model's embedding is larger than its
    /// vocabulary (32128 against 32100) are not here, they decode as unknown.
    pub pieces: Vec<Piece>,
    /// How a text is cut into pieces.
    pub model: PieceModel,
    /// The id of `<unk>`.
    pub unk_id: u32,
    /// The id of `</s>`.
    pub eos_id: u32,
    /// The id of `<pad>`, which is also the id that starts a decoder.
    pub pad_id: u32,
    /// SentencePiece's `precompiled_charsmap` (the layout of `tokenizer.ggml.precompiled_charsmap`); none leaves
    /// every character as it is.
    pub charsmap: Option<Vec<u8>>,
    /// What happens to white space.
    pub whitespace: Whitespace,
    /// Whether a `▁` is put in front of the text, so that its first word is spelled as any other word is.
    pub add_dummy_prefix: bool,
    /// Whether that `▁` is also put in front of each stretch that follows an added token, as Hugging Face's "legacy"
    /// tokenizers do: `Hello <extra_id_0>.` is `▁Hello <extra_id_0> ▁ .` with it and `▁Hello <extra_id_0> .` without.
    /// Means nothing without `add_dummy_prefix`.
    pub legacy: bool,
    /// Whether no piece may reach beyond the `▁` that starts the next word. True for every `tokenizer.json` unless it
    /// says `"split": false`; false for SentencePiece itself. It changes ids only if pieces with an inner `▁` exist.
    pub split_words: bool,
    /// Whether a character without a piece is spelled by the 256 pieces `<0x00>` to `<0xFF>` ([`PieceKind::Byte`])
    /// and not replaced by `<unk>`.
    pub byte_fallback: bool,
    /// The tokens recognised in a text before it is segmented, such as `</s>` and `<extra_id_0>`.
    pub added: Vec<AddedToken>,
}

/// One piece of a [`UnigramVocabulary`].
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The piece, with `▁` (U+2581) for a space.
    pub text: String,
    /// The logarithm of its probability.
    pub score: f32,
    /// What it is for.
    pub kind: PieceKind,
}

/// What a piece is for; the numbers are SentencePiece's and GGUF's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PieceKind {
    /// Text.
    Normal = 1,
    /// `<unk>`.
    Unknown = 2,
    /// `<pad>` and `</s>`.
    Control = 3,
    /// A token added by hand: the sentinels.
    UserDefined = 4,
    /// Never produced.
    Unused = 5,
    /// One byte of a character that has no piece, `<0xE2>`. Text that spells this name does not produce it.
    Byte = 6,
}

impl PieceKind {
    /// The kind with SentencePiece's number `code`.
    pub fn from_code(code: u32) -> Option<PieceKind> {
        Some(match code {
            1 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return None,
        })
    }

    /// SentencePiece's number.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// What happens to the white space of a stretch once the character map has been applied.
///
/// The numbers are stored in files. GGUF's `remove_extra_whitespaces` is [`Whitespace::removes_extra`]; a file that
/// says no more than that has [`Whitespace::Split`] for true and [`Whitespace::Verbatim`] for false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Whitespace {
    /// Nothing is removed, and the dummy prefix is put in front even of a space. SentencePiece without
    /// `remove_extra_whitespaces` (MADLAD).
    Verbatim = 0,
    /// Nothing is removed; a stretch that starts with a space needs no dummy prefix. `Metaspace` alone.
    Keep = 1,
    /// Two or more spaces become one, at the ends too. `Replace " {2,}"` and `Metaspace`.
    Collapse = 2,
    /// White space at the end is removed, then two or more spaces become one. `Strip`, `Replace " {2,}"` and
    /// `Metaspace`: tokenizers converted by transformers since 2024.
    Trim = 3,
    /// The stretch is split at white space (any Unicode `White_Space` character), which is dropped, and each word gets
    /// its `▁`. `WhitespaceSplit` and `Metaspace`: the published T5 tokenizers, and how transformers reads
    /// SentencePiece models with `remove_extra_whitespaces`.
    Split = 4,
}

impl Whitespace {
    /// The rule with the number `code`.
    pub fn from_code(code: u32) -> Option<Whitespace> {
        Some(match code {
            0 => Whitespace::Verbatim,
            1 => Whitespace::Keep,
            2 => Whitespace::Collapse,
            3 => Whitespace::Trim,
            4 => Whitespace::Split,
            _ => return None,
        })
    }

    /// The number that files store.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The rule of a file that knows nothing but SentencePiece's `remove_extra_whitespaces`.
    pub fn from_removes_extra(remove: bool) -> Whitespace {
        if remove { Whitespace::Split } else { Whitespace::Verbatim }
    }

    /// SentencePiece's `remove_extra_whitespaces`.
    pub fn removes_extra(self) -> bool {
        matches!(self, Whitespace::Collapse | Whitespace::Trim | Whitespace::Split)
    }
}

/// A token that is recognised in a text before anything else is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its id; its text is that of the piece.
    pub id: u32,
    /// Whether decoding may leave it out.
    pub special: bool,
    /// Whether it swallows the white space on its left.
    pub lstrip: bool,
    /// Whether it swallows the white space on its right.
    pub rstrip: bool,
    /// Whether it is looked for (in its normalised form) after a stretch was rewritten by the character map and not
    /// before.
    pub normalized: bool,
    /// Whether the segmenter does not know it: it came on top of the model. (A token inside of the model can also be
    /// produced by text that only becomes its name through the character map, such as full-width letters.)
    pub outside: bool,
}

impl AddedToken {
    /// A special token such as `</s>`: part of the model, looked for in the text as it is.
    pub fn special(id: u32) -> AddedToken {
        AddedToken { id, special: true, lstrip: false, rstrip: false, normalized: false, outside: false }
    }

    /// The flags as a number, for files: 1 special, 2 lstrip, 4 rstrip, 8 normalized, 16 outside.
    pub fn flags(self) -> u32 {
        u32::from(self.special)
            | u32::from(self.lstrip) << 1
            | u32::from(self.rstrip) << 2
            | u32::from(self.normalized) << 3
            | u32::from(self.outside) << 4
    }

    /// The token `id` with the flags that [`AddedToken::flags`] gave; none if a bit is not known.
    pub fn from_flags(id: u32, flags: u32) -> Option<AddedToken> {
        let bit = |n: u32| flags >> n & 1 == 1;
        (flags < 32).then(|| AddedToken {
            id,
            special: bit(0),
            lstrip: bit(1),
            rstrip: bit(2),
            normalized: bit(3),
            outside: bit(4),
        })
    }
}

/// ByT5's vocabulary: the id of a byte is its value + `offset`; 0 is `<pad>`, 1 `</s>`, 2 `<unk>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteVocabulary {
    /// How many ids come before byte 0: 3.
    pub offset: u32,
    /// How many sentinels `<extra_id_n>` are recognised in a text.
    pub extra_ids: u32,
    /// Which ids they have. False: sentinel n has the id that pre-training gave it, `offset + 255 - n` (bytes 0xFF,
    /// 0xFE, ... which UTF-8 never uses). True: `offset + 256 + n`, as in the transformers library's tokenizer; those
    /// rows of a published embedding were never trained, those of a model trained with that tokenizer may be.
    pub extra_ids_above: bool,
    /// The number of rows of the model's embedding, 384. Ids above those of bytes and sentinels mean nothing.
    pub vocab_size: u32,
}

impl ByteVocabulary {
    /// The id of `<extra_id_n>`; none if there are not so many.
    pub fn sentinel_id(&self, n: u32) -> Option<u32> {
        if n >= self.extra_ids {
            None
        } else if self.extra_ids_above {
            self.offset.checked_add(256)?.checked_add(n)
        } else {
            self.offset.checked_add(255)?.checked_sub(n)
        }
    }

    /// The number of ids that mean something: 259, or 384 with sentinels above the bytes.
    pub fn id_count(&self) -> usize {
        self.offset as usize + 256 + if self.extra_ids_above { self.extra_ids as usize } else { 0 }
    }
}

impl Vocabulary {
    /// Reads a `tokenizer.json` whose model is Unigram. `file` is the name used in messages.
    ///
    /// What the file does to a text must be expressible as a [`UnigramVocabulary`], as it is for the T5 family; if not,
    /// the error names the step. Truncation and padding are no part of a vocabulary:
    /// [`Vocabulary::ignored_in_tokenizer_json`] tells of them.
    pub fn from_tokenizer_json(file: &str, bytes: &[u8]) -> Result<Vocabulary> {
        super::json::read(file, bytes).map(Vocabulary::Unigram)
    }

    /// The type of the model in a `tokenizer.json`: `Unigram`, `BPE`, `WordPiece`; `None` where none is to be seen.
    pub fn kind_in_tokenizer_json(bytes: &[u8]) -> Option<String> {
        super::json::kind_of_model(bytes)
    }

    /// One sentence for each setting of a `tokenizer.json` that [`Vocabulary::from_tokenizer_json`] leaves out.
    pub fn ignored_in_tokenizer_json(file: &str, bytes: &[u8]) -> Result<Vec<String>> {
        super::json::ignored(file, bytes)
    }

    /// Reads a SentencePiece model (`spiece.model`) and appends `extra_ids` sentinels (100 for T5 and mT5, 300 for
    /// umT5) unless it has sentinels already. `file` is the name used in messages.
    ///
    /// Texts are treated as by the tokenizer that the transformers library makes of the model, with two of the model's
    /// own settings that the library drops: byte fallback and a false `remove_extra_whitespaces`.
    pub fn from_sentencepiece(file: &str, bytes: &[u8], extra_ids: u32) -> Result<Vocabulary> {
        super::sentencepiece::read(file, bytes, extra_ids).map(Vocabulary::Unigram)
    }

    /// Adds tokens that other files than a SentencePiece model's list, each an object as in `added_tokens` of a
    /// `tokenizer.json`, which is what the transformers library makes of them. `file` is the name used in messages.
    /// Gives those that are left out, with the reason: an id is neither that of a piece with the token's text nor the
    /// next one, or not below `rows`, or a token may only be a word of its own.
    pub(crate) fn add_tokens(
        &mut self,
        file: &str,
        tokens: Vec<serde_json::Value>,
        rows: usize,
    ) -> Result<Vec<String>> {
        match self {
            Vocabulary::Unigram(unigram) => super::json::add_listed(file, unigram, tokens, rows),
            Vocabulary::Bytes(_) | Vocabulary::Json(_) => Ok(Vec::new()),
        }
    }

    /// Keeps a `tokenizer.json` of another kind as it is. Whether the crate can use it is seen when a tokenizer is
    /// made.
    ///
    /// # Errors
    /// Where it is no such file, or has no pieces.
    pub fn from_other_tokenizer_json(file: &str, bytes: &[u8], eos_id: u32, pad_id: u32) -> Result<Vocabulary> {
        super::json::other(file, bytes, eos_id, pad_id).map(Vocabulary::Json)
    }

    /// ByT5's vocabulary for an embedding of `vocab_size` rows (384), with the sentinels of pre-training.
    pub fn bytes(vocab_size: u32) -> Vocabulary {
        Vocabulary::Bytes(ByteVocabulary { offset: 3, extra_ids: 125, extra_ids_above: false, vocab_size })
    }

    /// The number of ids that mean something: 32100 for T5, 250100 for mT5, 259 for ByT5.
    pub fn len(&self) -> usize {
        match self {
            Vocabulary::Unigram(unigram) => unigram.pieces.len(),
            Vocabulary::Bytes(bytes) => bytes.id_count(),
            Vocabulary::Json(json) => json.count,
        }
    }

    /// The id of `</s>`.
    pub fn eos_id(&self) -> u32 {
        match self {
            Vocabulary::Unigram(unigram) => unigram.eos_id,
            Vocabulary::Bytes(_) => bytes::EOS,
            Vocabulary::Json(json) => json.eos_id,
        }
    }

    /// The id of `<pad>`.
    pub fn pad_id(&self) -> u32 {
        match self {
            Vocabulary::Unigram(unigram) => unigram.pad_id,
            Vocabulary::Bytes(_) => bytes::PAD,
            Vocabulary::Json(json) => json.pad_id,
        }
    }

    /// Whether there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl UnigramVocabulary {
    /// Appends `count` sentinels in T5's descending order, so that `<extra_id_0>` has the highest id: what a file
    /// that holds only the SentencePiece model lacks.
    pub fn append_sentinels(&mut self, count: u32) {
        for n in (0..count).rev() {
            self.added.push(AddedToken::special(self.pieces.len() as u32));
            self.pieces.push(Piece { text: format!("<extra_id_{n}>"), score: 0.0, kind: PieceKind::UserDefined });
        }
    }
}
