//! What tests of several modules use.

#[path = "../../tests/src/shared.rs"]
mod shared_folder;

pub use shared_folder::shared;

/// Decodes base64 without line breaks.
pub fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .bytes()
        .filter(|&b| b != b'=')
        .map(|b| DIGITS.iter().position(|&d| d == b).expect("a base64 digit") as u32)
        .collect();
    digits
        .chunks(4)
        .flat_map(|group| {
            let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
            bits.to_be_bytes()[1..group.len()].to_vec()
        })
        .collect()
}

/// The files of a `.tar.xz` of the shared folder in a temporary folder, or `None` where it is not there.
pub fn unpacked(archive: &str) -> Option<tempfile::TempDir> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(shared(archive)?).expect("the archive opens");
    std::io::Read::read_to_end(&mut lzma_rust2::XzReader::new(file, true), &mut bytes).expect("xz data");
    let folder = tempfile::tempdir().expect("a temporary folder");
    // ustar: blocks of 512 bytes; a header's name at 0, size in octal at 124, kind at 156.
    let mut at = 0;
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let text = |from: usize, to: usize| {
            let field = &bytes[at + from..at + to];
            let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_string()
        };
        let (name, kind) = (text(0, 100), bytes[at + 156]);
        let size = usize::from_str_radix(&text(124, 136), 8).expect("an octal size");
        if kind == b'0' {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, &bytes[at + 512..at + 512 + size]).expect("a file");
        }
        at += 512 + size.next_multiple_of(512);
    }
    Some(folder)
}

/// Sentence pairs that look like a little language, `count` different ones, as TSV.
pub fn sentence_pairs(count: usize) -> String {
    let mut random = crate::random::Random::new(77);
    let words = ["tom", "sees", "a", "red", "house", "near", "the", "river", "and", "walks", "home", "slowly"];
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        let len = random.between(2, 9);
        let sentence: Vec<&str> = (0..len).map(|_| words[random.below(words.len())]).collect();
        seen.insert(sentence.join(" "));
    }
    seen.iter().map(|s| format!("{s}.\t{}!\n", s.chars().rev().collect::<String>())).collect()
}
