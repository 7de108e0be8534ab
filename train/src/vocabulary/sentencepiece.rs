//! A vocabulary as a SentencePiece model, for tools that read no `tokenizer.json`.
//!
//! The file is a protocol buffer, `ModelProto` of sentencepiece_model.proto, of which a vocabulary needs four messages.

use t5_runtime::tokenizer::{PieceKind, UnigramVocabulary};

use crate::objectives::Sentinels;

/// The bytes of a `spiece.model` in the layout of the published ones: the sentinels, where they are the last pieces,
/// are left out, since every reader of such a file appends them itself.
///
/// What a SentencePiece model cannot say is how added tokens treat the text beside them, and two ways of treating white
/// space: a `tokenizer.json` may keep one space at the end of a text, or all spaces but no second one at its start.
/// Texts without white space at their ends have the same ids.
pub fn to_sentencepiece(vocabulary: &UnigramVocabulary, sentinels: Sentinels) -> Vec<u8> {
    let mut pieces = vocabulary.pieces.as_slice();
    if sentinels.count > 0 && sentinels.first as usize + 1 == pieces.len() {
        pieces = &pieces[..pieces.len() - sentinels.count as usize];
    }
    let mut model = Message::default();
    for piece in pieces {
        let mut message = Message::default();
        message.bytes(1, piece.text.as_bytes());
        message.float(2, piece.score);
        if piece.kind != PieceKind::Normal {
            message.number(3, i64::from(piece.kind.code()));
        }
        model.bytes(1, &message.0);
    }
    let name = |id: u32| pieces.get(id as usize).map_or(&b""[..], |piece| piece.text.as_bytes());

    let mut trainer = Message::default();
    trainer.number(3, 1); // model_type: UNIGRAM
    trainer.number(4, pieces.len() as i64); // vocab_size
    trainer.number(35, i64::from(vocabulary.byte_fallback));
    // There is no <s>, which -1 says.
    let special =
        [(40, Some(vocabulary.unk_id)), (41, None), (42, Some(vocabulary.eos_id)), (43, Some(vocabulary.pad_id))];
    for (field, id) in special {
        trainer.number(field, id.map_or(-1, i64::from));
    }
    for (field, id) in [(45, vocabulary.unk_id), (47, vocabulary.eos_id), (48, vocabulary.pad_id)] {
        trainer.bytes(field, name(id));
    }
    model.bytes(2, &trainer.0);

    let mut normalizer = Message::default();
    if let Some(charsmap) = &vocabulary.charsmap {
        normalizer.bytes(1, b"nmt_nfkc");
        normalizer.bytes(2, charsmap);
    } else {
        normalizer.bytes(1, b"identity");
    }
    normalizer.number(3, i64::from(vocabulary.add_dummy_prefix));
    normalizer.number(4, i64::from(vocabulary.whitespace.removes_extra())); // remove_extra_whitespaces
    normalizer.number(5, 1); // escape_whitespaces
    model.bytes(3, &normalizer.0);
    model.0
}

/// A message of a protocol buffer, field after field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer, an enum's number or a truth value. Negative ones take ten bytes, as protocol buffers have it.
    fn number(&mut self, field: u32, value: i64) {
        self.varint(u64::from(field << 3));
        self.varint(value as u64);
    }

    /// A text, bytes or a message.
    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn float(&mut self, field: u32, value: f32) {
        self.varint(u64::from(field << 3 | 5));
        self.0.extend(value.to_le_bytes());
    }
}
