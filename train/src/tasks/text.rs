//! Small text helpers: sentences of a paragraph.

/// Words before a full stop that do not end a sentence.
const ABBREVIATIONS: [&str; 24] = [
    "Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Rev", "Hon", "Capt", "Col", "Gen", "Lieut", "Lt", "Sgt", "Messrs", "Mme",
    "Mlle", "M", "Esq", "Jr", "Sr", "No", "vs", "viz",
];

/// The sentences of a paragraph, trimmed, in order. A sentence ends with `.`, `!` or `?` and closing quotes, before
/// white space and something that is not a small letter; initials and usual titles do not end one.
pub fn split_sentences(paragraph: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut start = 0;
    let mut chars = paragraph.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(c, '.' | '!' | '?') {
            continue;
        }
        let mut end = at + 1;
        while let Some(&(next, closing)) = chars.peek()
            && matches!(closing, '.' | '!' | '?' | '"' | '\'' | ')' | ']' | '”' | '’')
        {
            end = next + closing.len_utf8();
            chars.next();
        }
        let rest = &paragraph[end..];
        let after = rest.trim_start();
        let separated = rest.len() > after.len() && !after.starts_with(char::is_lowercase);
        let word = paragraph[start..at].rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
        let initial = word.len() == 1 && word != "I" && word.chars().all(char::is_uppercase);
        if separated && !(c == '.' && (initial || ABBREVIATIONS.contains(&word))) {
            sentences.push(paragraph[start..end].trim());
            start = end;
        }
    }
    sentences.push(paragraph[start..].trim());
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_marks_and_not_after_titles() {
        assert_eq!(
            split_sentences("\"Well!\" said Mr. Smith. \"J. B. is here; is he?\" He was...  Quite so."),
            ["\"Well!\" said Mr. Smith.", "\"J. B. is here; is he?\"", "He was...", "Quite so."]
        );
        assert_eq!(split_sentences("So do I. And you? 3.5 is a number."), ["So do I.", "And you?", "3.5 is a number."]);
        assert_eq!(split_sentences("  no mark "), ["no mark"]);
        assert!(split_sentences("  ").is_empty());
    }
}
