//! What is done to a text before it is segmented: SentencePiece's character map and the white space rule.

use super::{Whitespace, failure};
use crate::error::Result;
use spm_precompiled::Precompiled;

/// Rewrites a stretch of text.
pub(super) struct Normalizer {
    charsmap: Option<Charsmap>,
    whitespace: Whitespace,
}

/// SentencePiece's compiled character map (NFKC and more).
struct Charsmap {
    /// The reference's own reader of the map, quirks included (it replaces whole grapheme clusters).
    map: Precompiled,
    /// The ASCII characters from space to tilde that the map leaves as they are.
    plain: [bool; 256],
}

impl Normalizer {
    /// Checks `charsmap`, since a damaged one would make its reader index out of bounds.
    pub(super) fn new(file: &str, charsmap: Option<&[u8]>, whitespace: Whitespace) -> Result<Normalizer> {
        let charsmap = charsmap.map(|bytes| Charsmap::new(file, bytes)).transpose()?;
        Ok(Normalizer { charsmap, whitespace })
    }

    /// Appends the normalised `text` to `out`, which is empty. Spaces are still spaces. Of [`Whitespace::Split`]
    /// nothing is done here.
    pub(super) fn normalize(&self, text: &str, out: &mut String) {
        match &self.charsmap {
            Some(charsmap) => charsmap.map(text, out),
            None => out.push_str(text),
        }
        if self.whitespace == Whitespace::Trim {
            out.truncate(out.trim_end().len());
        }
        if matches!(self.whitespace, Whitespace::Collapse | Whitespace::Trim) && out.contains("  ") {
            let mut after_space = false;
            out.retain(|c| {
                let keep = c != ' ' || !after_space;
                after_space = c == ' ';
                keep
            });
        }
    }
}

impl Charsmap {
    fn new(file: &str, bytes: &[u8]) -> Result<Charsmap> {
        check(bytes).map_err(|what| failure(file, format!("the precompiled character map is damaged: {what}")))?;
        let map = Precompiled::from(bytes)
            .map_err(|_| failure(file, "the precompiled character map is damaged: its replacements are not UTF-8"))?;
        let plain = std::array::from_fn(|byte| match u8::try_from(byte) {
            Ok(byte @ b' '..=b'~') => map.transform((byte as char).encode_utf8(&mut [0; 4])).is_none(),
            _ => false,
        });
        Ok(Charsmap { map, plain })
    }

    /// Appends the rewritten `text` to `out`.
    ///
    /// The map's reader works on grapheme clusters, and finding those takes longer than all the rest. Between two
    /// plain ASCII characters there is always a boundary, so such characters are copied and only the others, with the
    /// ASCII character on either side that they may be joined to, go through the reader.
    fn map(&self, text: &str, out: &mut String) {
        let bytes = text.as_bytes();
        let plain = |index: usize| self.plain[bytes[index] as usize];
        let mut copied = 0;
        while copied < bytes.len() {
            let mut end = copied;
            while end < bytes.len() && plain(end) {
                end += 1;
            }
            let rough = if end == bytes.len() { end } else { end.saturating_sub(1).max(copied) };
            out.push_str(&text[copied..rough]);
            if rough == bytes.len() {
                return;
            }
            // The first boundary between two plain characters after the character that is not plain.
            let mut boundary = end + 1;
            while boundary < bytes.len() && !(plain(boundary) && plain(boundary - 1)) {
                boundary += 1;
            }
            out.push_str(&self.map.normalize_string(&text[rough..boundary]));
            copied = boundary;
        }
    }
}

/// Says what is wrong with a character map, whose layout is: the size in bytes of a double array, its u32 units (a
/// Darts-clone trie), then replacements that end in NUL.
///
/// Each unit that a search can stand on must lead to units inside of the array, whatever the next byte, and to
/// replacements inside of the rest.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let size = bytes.first_chunk().map(|size| u32::from_le_bytes(*size) as usize).ok_or("it has no size field")?;
    let (units, strings) = bytes[4..].split_at_checked(size).ok_or("it is shorter than its size field says")?;
    if size % 4 != 0 {
        return Err(format!("the size {size} is not a multiple of 4"));
    }
    let strings = std::str::from_utf8(strings).map_err(|_| "its replacements are not UTF-8")?;
    if !strings.ends_with('\0') {
        return Err("its replacements do not end in NUL".into());
    }
    let units: Vec<u32> = units.chunks_exact(4).map(|unit| u32::from_le_bytes(unit.try_into().unwrap())).collect();
    if units.is_empty() {
        return Err("it has no unit".into());
    }
    for (index, &unit) in units.iter().enumerate() {
        let is_value = unit >> 31 == 1;
        let reachable = index == 0 || (!is_value && unit & 0xFF != 0);
        if !reachable {
            continue;
        }
        let base = index ^ ((unit as usize >> 10) << ((unit & 1 << 9) >> 6));
        if base | 0xFF >= units.len() {
            return Err(format!("unit {index} leads outside"));
        }
        if unit >> 8 & 1 == 1 && !strings.is_char_boundary((units[base] & 0x7FFF_FFFF) as usize) {
            return Err(format!("unit {index} has no replacement"));
        }
    }
    Ok(())
}
