//! What Python, in which C4's rules are written, calls white space, lines and words.

/// White space, for which Python takes four separators more than Unicode's property has.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

/// Without white space at both ends.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The words between white space.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// The lines of a text, which end at `\n`, `\r`, `\r\n` and seven rarer marks, as `str.splitlines` has them.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1C}'..='\u{1E}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = match rest.find(ends) {
            None => (rest, ""),
            Some(at) if rest[at..].starts_with("\r\n") => (&rest[..at], &rest[at + 2..]),
            Some(at) => (&rest[..at], &rest[at + rest[at..].chars().next().map_or(1, char::len_utf8)..]),
        };
        rest = after;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Python 3.11.
    #[test]
    fn lines_and_words_are_python_s() {
        let found: Vec<&str> = lines("a\r\nb\rc\n\nd\u{B}e\u{2028}f\u{1D}g\u{85}").collect();
        assert_eq!(found, ["a", "b", "c", "", "d", "e", "f", "g"]);
        assert_eq!(lines("").count(), 0);
        assert_eq!(lines("\n").collect::<Vec<_>>(), [""]);
        assert_eq!(words(" a\u{1F}b\u{3000}c\u{200B}d ").collect::<Vec<_>>(), ["a", "b", "c\u{200B}d"]);
        assert_eq!(strip("\u{1C} a b\u{85}\n"), "a b");
    }
}
