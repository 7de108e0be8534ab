//! Words without the marks around them.

/// A word without the marks around it, in small letters.
pub(super) fn lower_core(word: &str) -> String {
    core(word).to_lowercase().replace('’', "'")
}

fn core(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// Puts another word between the marks around a word, with its first capital.
pub(super) fn with_core(word: &str, other: &str) -> String {
    let old = core(word);
    let start = word.find(old).unwrap_or(0);
    let capital = old.starts_with(char::is_uppercase) && old != "I";
    let mut chars = other.chars();
    let other: String = match chars.next() {
        Some(first) if capital => first.to_uppercase().chain(chars).collect(),
        _ => other.to_string(),
    };
    format!("{}{other}{}", &word[..start], &word[start + old.len()..])
}
