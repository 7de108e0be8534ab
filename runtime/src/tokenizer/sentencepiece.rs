//! `spiece.model`, a protocol buffer (sentencepiece_model.proto), to a vocabulary.

use super::{AddedToken, Piece, PieceKind, PieceModel, UnigramVocabulary, Whitespace, failure, sentinel_number};
use crate::error::{Error, Result};

/// Reads the model and appends `extra_ids` sentinels if it has none.
pub(super) fn read(file: &str, bytes: &[u8], extra_ids: u32) -> Result<UnigramVocabulary> {
    let model =
        ModelProto::parse(bytes).map_err(|what| Error::format(file, format!("not a SentencePiece model: {what}")))?;
    let refuse = |what: String| failure(file, what);
    let piece_model = PieceModel::ALL.into_iter().find(|known| *known as i32 == model.model_type);
    let piece_model = piece_model
        .ok_or_else(|| refuse(format!("the model has the unknown type {}, expected 1 to 4", model.model_type)))?;
    if model.whitespace_as_suffix {
        return Err(refuse("treat_whitespace_as_suffix is not supported".into()));
    }
    if !model.escape_whitespaces {
        return Err(refuse("escape_whitespaces = false is not supported".into()));
    }
    if model.has_denormalizer {
        return Err(refuse("a denormalizer is not supported".into()));
    }
    if extra_ids > 65536 {
        return Err(refuse(format!("{extra_ids} sentinels were asked for, expected at most 65536")));
    }

    let mut pieces = model.pieces;
    let mut added = Vec::new();
    let mut has_sentinels = false;
    let mut unk_id = None;
    for (id, piece) in (0..).zip(&mut pieces) {
        // SeqIO spells sentinels as words of their own: the space before them is theirs.
        let name = piece.text.trim_start_matches('▁');
        let is_sentinel = sentinel_number(name).is_some();
        let lstrip = is_sentinel && name.len() < piece.text.len();
        if is_sentinel {
            piece.text = name.into();
            piece.kind = PieceKind::UserDefined;
            has_sentinels = true;
        }
        match piece.kind {
            PieceKind::Unknown if unk_id.is_some() => return Err(refuse("there are two unknown pieces".into())),
            PieceKind::Unknown => unk_id = Some(id),
            PieceKind::Control | PieceKind::UserDefined => {}
            PieceKind::Normal | PieceKind::Unused | PieceKind::Byte => continue,
        }
        let special = is_sentinel || piece.kind != PieceKind::UserDefined;
        added.push(AddedToken { lstrip, special, ..AddedToken::special(id) });
    }
    let unk_id = unk_id.ok_or_else(|| refuse("there is no unknown piece".into()))?;
    let id_of = |text: &str| pieces.iter().position(|piece| piece.text == text).map(|id| id as u32);
    let valid = |id: i32| u32::try_from(id).ok().filter(|&id| (id as usize) < pieces.len());
    let eos_id =
        id_of("</s>").or_else(|| valid(model.eos_id)).ok_or_else(|| refuse("there is no piece </s>".into()))?;
    let pad_id = (id_of("<pad>").or_else(|| valid(model.pad_id)).or_else(|| id_of("<s>")))
        .ok_or_else(|| refuse("there is no piece <pad>".into()))?;

    let mut vocabulary = UnigramVocabulary {
        model: piece_model,
        unk_id,
        eos_id,
        pad_id,
        charsmap: (!model.charsmap.is_empty()).then_some(model.charsmap),
        whitespace: Whitespace::from_removes_extra(model.remove_extra_whitespaces),
        add_dummy_prefix: model.add_dummy_prefix,
        legacy: true,
        split_words: false,
        byte_fallback: model.byte_fallback,
        pieces,
        added,
    };
    if !has_sentinels {
        vocabulary.append_sentinels(extra_ids);
    }
    Ok(vocabulary)
}

/// The fields of a ModelProto that matter here, with the defaults of sentencepiece_model.proto.
struct ModelProto {
    pieces: Vec<Piece>,
    model_type: i32,
    eos_id: i32,
    pad_id: i32,
    byte_fallback: bool,
    whitespace_as_suffix: bool,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    has_denormalizer: bool,
}

impl ModelProto {
    fn parse(bytes: &[u8]) -> Result<ModelProto, String> {
        let mut model = ModelProto {
            pieces: Vec::new(),
            model_type: 1,
            eos_id: 2,
            pad_id: -1,
            byte_fallback: false,
            whitespace_as_suffix: false,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            has_denormalizer: false,
        };
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, WireValue::Bytes(piece)) => {
                    let piece = parse_piece(piece).map_err(|what| format!("piece {}: {what}", model.pieces.len()))?;
                    model.pieces.push(piece);
                }
                (2, WireValue::Bytes(trainer)) => model.parse_trainer(trainer)?,
                (3, WireValue::Bytes(normalizer)) => model.parse_normalizer(normalizer)?,
                (5, WireValue::Bytes(denormalizer)) => {
                    let mut fields = Fields { rest: denormalizer };
                    while let Some((number, value)) = fields.next()? {
                        model.has_denormalizer |= number == 2 && !matches!(value, WireValue::Bytes([]));
                    }
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() { Err("it has no pieces".into()) } else { Ok(model) }
    }

    fn parse_trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (3, WireValue::Number(number)) => self.model_type = number as i32,
                (24, WireValue::Number(number)) => self.whitespace_as_suffix = number != 0,
                (35, WireValue::Number(number)) => self.byte_fallback = number != 0,
                (42, WireValue::Number(number)) => self.eos_id = number as i32,
                (43, WireValue::Number(number)) => self.pad_id = number as i32,
                _ => {}
            }
        }
        Ok(())
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (2, WireValue::Bytes(charsmap)) => self.charsmap = charsmap.into(),
                (3, WireValue::Number(number)) => self.add_dummy_prefix = number != 0,
                (4, WireValue::Number(number)) => self.remove_extra_whitespaces = number != 0,
                (5, WireValue::Number(number)) => self.escape_whitespaces = number != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    let mut fields = Fields { rest: bytes };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, WireValue::Bytes(text)) => {
                piece.text = std::str::from_utf8(text).map_err(|_| "its text is not UTF-8")?.into();
            }
            (2, WireValue::Word32(score)) => piece.score = f32::from_bits(score),
            (3, WireValue::Number(code)) => {
                let kind = u32::try_from(code).ok().and_then(PieceKind::from_code);
                piece.kind = kind.ok_or_else(|| format!("its type is {code}, expected 1 to 6"))?;
            }
            _ => {}
        }
    }
    if piece.text.is_empty() { Err("it is empty".into()) } else { Ok(piece) }
}

/// The fields of a message, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's value in one of the four encodings of protocol buffers.
enum WireValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Word32(u32),
    Word64,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, WireValue<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => WireValue::Number(self.number()?),
            1 => {
                self.take(8)?;
                WireValue::Word64
            }
            2 => {
                let len = self.number()?;
                WireValue::Bytes(self.take(usize::try_from(len).map_err(|_| format!("a field of {len} bytes"))?)?)
            }
            5 => {
                let word = self.take(4)?;
                WireValue::Word32(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            }
            other => return Err(format!("field {} has the unknown encoding {other}", tag >> 3)),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// A number in groups of seven bits, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number of more than 64 bits".into())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| format!("{len} bytes were expected where {} are left", self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }
}
