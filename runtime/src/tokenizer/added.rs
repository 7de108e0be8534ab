//! Tokens that are recognised in a text before it is segmented, such as `</s>` and `<extra_id_0>`.

use super::trie::Trie;

/// One token to look for.
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) id: u32,
    /// Whether it swallows the white space on its left, on its right.
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
}

/// Finds tokens in a text: leftmost first, the longest of those that start at one place.
pub(super) struct Matcher {
    patterns: Vec<Pattern>,
    /// From a pattern's text to its index.
    trie: Trie,
    /// The bytes that a pattern starts with.
    starts: Box<[bool; 256]>,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text between tokens and its position in the whole.
    Text(usize, &'a str),
    /// A token's id.
    Token(u32),
}

impl Matcher {
    /// A matcher for `patterns`; empty ones never match, of equal ones the last counts.
    pub(super) fn new(patterns: Vec<Pattern>) -> Matcher {
        let trie = Trie::new(patterns.iter().enumerate().map(|(index, p)| (p.text.as_bytes(), index as u32)));
        let mut starts = Box::new([false; 256]);
        patterns.iter().filter_map(|p| p.text.bytes().next()).for_each(|byte| starts[byte as usize] = true);
        Matcher { patterns, trie, starts }
    }

    /// Calls `part` for each part of `text` in order; parts of text are never empty.
    pub(super) fn split<'a>(&self, text: &'a str, is_space: impl Fn(char) -> bool, mut part: impl FnMut(Part<'a>)) {
        let bytes = text.as_bytes();
        let mut done = 0;
        let mut index = 0;
        while index < bytes.len() {
            if !self.starts[bytes[index] as usize] {
                index += 1;
                continue;
            }
            let Some((len, pattern)) = self.trie.longest_prefix(&bytes[index..]) else {
                index += 1;
                continue;
            };
            let Pattern { id, lstrip, rstrip, .. } = self.patterns[pattern as usize];
            let mut start = index;
            index += len;
            let mut end = index;
            if lstrip {
                start = text[..start].trim_end_matches(&is_space).len().max(done);
            }
            if rstrip {
                end = text.len() - text[end..].trim_start_matches(&is_space).len();
            }
            if done < start {
                part(Part::Text(done, &text[done..start]));
            }
            part(Part::Token(id));
            done = end;
        }
        if done < bytes.len() {
            part(Part::Text(done, &text[done..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str, id: u32, lstrip: bool, rstrip: bool) -> Pattern {
        Pattern { text: text.into(), id, lstrip, rstrip }
    }

    fn split<'a>(matcher: &Matcher, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        matcher.split(text, char::is_whitespace, |part| parts.push(part));
        parts
    }

    #[test]
    fn longest_of_the_leftmost_matches() {
        let matcher = Matcher::new(vec![pattern("<a>", 1, false, false), pattern("<a>b", 2, false, false)]);
        assert_eq!(
            split(&matcher, "é<a>b <<a>"),
            [Part::Text(0, "é"), Part::Token(2), Part::Text(6, " <"), Part::Token(1)]
        );
        assert_eq!(split(&matcher, ""), []);
        assert_eq!(split(&matcher, "<a"), [Part::Text(0, "<a")]);
    }

    #[test]
    fn strips_white_space_once() {
        let matcher = Matcher::new(vec![pattern("<l>", 1, true, false), pattern("<r>", 2, false, true)]);
        assert_eq!(
            split(&matcher, "a \u{3000}<l> b<r>  <l>"),
            [Part::Text(0, "a"), Part::Token(1), Part::Text(8, " b"), Part::Token(2), Part::Token(1)]
        );
    }
}
