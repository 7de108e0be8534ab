//! A place in bytes that moves forward and never past the end.

/// What went wrong, without the file and the field, which the caller knows.
pub(super) type Fault = String;

/// Reads little-endian fields one after the other.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    /// Bytes read.
    pub position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, position: 0 }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        if count > self.left() {
            return Err(format!("cut off: expected {count} bytes at byte {}, found {}", self.position, self.left()));
        }
        let bytes = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("take gives what is asked for"))
    }

    pub fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things of at least `least` bytes each: no more than the bytes left can hold.
    pub fn count(&mut self, things: &str, least: usize) -> Result<usize, Fault> {
        let count = self.u64()?;
        let most = self.left() / least;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= most)
            .ok_or_else(|| format!("expected at most {most} {things} in the {} bytes left, found {count}", self.left()))
    }

    /// A string: its length in bytes, then UTF-8.
    pub fn string(&mut self) -> Result<&'a str, Fault> {
        let length = self.count("bytes of a string", 1)?;
        let start = self.position;
        std::str::from_utf8(self.take(length)?)
            .map_err(|error| format!("expected UTF-8 in the string at byte {start}: {error}"))
    }

    /// A string that is a name or stands alone, without the trailing NULs that some writers of C leave. In an array it
    /// may be a piece of a vocabulary, and the NULs its text.
    pub fn trimmed_string(&mut self) -> Result<&'a str, Fault> {
        Ok(self.string()?.trim_end_matches('\0'))
    }
}
