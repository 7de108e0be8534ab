//! Zstandard: a file is any number of frames, one after the other, of which some hold no data.

use std::fmt::Display;
use std::io::{BufRead, Error, ErrorKind, Read, Result};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What all frames hold. The decoder itself ends with the first one, stops at those without data, and leaves checksums
/// to its caller.
pub(super) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Frames<R> {
    /// Begins with the first frame.
    ///
    /// # Errors
    /// Where there is none, or the source cannot be read.
    pub(super) fn new(mut source: R) -> Result<Frames<R>> {
        if source.fill_buf()?.is_empty() {
            return Err(wrong("found an empty file"));
        }
        let mut frames = Frames { source, decoder: FrameDecoder::new() };
        frames.begin()?;
        Ok(frames)
    }

    /// Begins the next frame with data; `false` where the source ends.
    fn begin(&mut self) -> Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    let skipped = std::io::copy(&mut self.source.by_ref().take(length), &mut std::io::sink())?;
                    if skipped < length {
                        return Err(wrong("the file ends within a frame"));
                    }
                }
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                let written = self.decoder.get_checksum_from_data();
                if written.is_some() && written != self.decoder.get_calculated_checksum() {
                    return Err(wrong("a frame has another checksum, so the file was damaged"));
                }
                if !self.begin()? {
                    return Ok(0);
                }
            } else {
                let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(wrong)?;
            }
        }
    }
}

fn wrong(what: impl Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("expected zstd data: {what}"))
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    /// "one\ntwo\n" as written by zstd.
    const TWO_LINES: &[u8] = include_bytes!("../../tests/data/two-lines.txt.zst");

    fn read(bytes: &[u8]) -> Result<String> {
        let mut text = String::new();
        // However the bytes come in.
        Frames::new(std::io::BufReader::with_capacity(3, bytes))?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn frames_are_read_one_after_the_other_and_those_without_data_passed_over() {
        let long = "a line of text\n".repeat(20_000);
        let frame = compress_to_vec(long.as_bytes(), CompressionLevel::Fastest);
        let empty = compress_to_vec(&b""[..], CompressionLevel::Fastest);
        let skipped = [&0x184D_2A53_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"notes"].concat();
        let all = [&skipped[..], TWO_LINES, &empty, &frame, &skipped, TWO_LINES, &skipped].concat();
        assert!(read(&all).unwrap() == format!("one\ntwo\n{long}one\ntwo\n"), "other text");
        assert_eq!(read(&skipped).unwrap(), "");
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let message = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let mut damaged = TWO_LINES.to_vec();
        let at = damaged.iter().position(|&byte| byte == b'o').unwrap();
        damaged[at] = b'p';
        let said = message(&[TWO_LINES, &damaged].concat());
        assert_eq!(said, "expected zstd data: a frame has another checksum, so the file was damaged");
        assert_eq!(message(b""), "expected zstd data: found an empty file");
        assert_eq!(message(&0x184D_2A50_u64.to_le_bytes()[..7]).split(": ").next(), Some("expected zstd data"));
        let cut = [&0x184D_2A50_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"not"].concat();
        assert_eq!(message(&cut), "expected zstd data: the file ends within a frame");
        for cut in [3, TWO_LINES.len() - 2] {
            assert!(message(&TWO_LINES[..cut]).starts_with("expected zstd data: "), "{cut}");
        }
        assert!(message(&[TWO_LINES, b"text"].concat()).starts_with("expected zstd data: "));
    }
}
