//! WNLI as Winograd schemas: which pronoun of the premise the hypothesis replaces, and by what noun.

use regex::RegexBuilder;

/// Pronouns that WNLI's hypotheses replace.
const PRONOUNS: [&str; 9] = ["he", "she", "they", "it", "her", "his", "their", "them", "him"];
const ARTICLES: [&str; 3] = ["a", "an", "the"];
/// Marks that may follow a word, one at a time.
const MARKS: [char; 4] = ['.', ',', '?', '!'];

/// A WNLI pair as a Winograd schema: (inputs, the noun that the hypothesis puts in place of a pronoun), or `None`
/// where the premise has no pronoun.
///
/// Of the premise's pronouns, the one whose surroundings the hypothesis repeats most is meant, the first of equal ones.
/// Its noun is what the hypothesis has between the repeated parts, without what comes before an article; it is empty
/// where nothing is repeated.
pub fn wnli_to_wsc(premise: &str, hypothesis: &str) -> Option<(String, String)> {
    // Words of nothing but a mark or white space do not count, but stay in the text.
    let raw: Vec<&str> = premise.split(' ').collect();
    let (places, words): (Vec<usize>, Vec<String>) =
        raw.iter().enumerate().map(|(at, word)| (at, plain(word))).filter(|(_, word)| !word.is_empty()).unzip();
    let said: Vec<String> = hypothesis.split(' ').map(plain).filter(|word| !word.is_empty()).collect();

    let mut best: Option<Repeated> = None;
    for at in (0..words.len()).filter(|&at| PRONOUNS.contains(&words[at].as_str())) {
        let found = Repeated::find(&words, at, &said);
        if best.as_ref().is_none_or(|known| found.score() > known.score()) {
            best = Some(found);
        }
    }
    let best = best?;
    let noun = best.candidate(&words, &said.join(" "));
    Some((format!("wsc: {}", highlighted(&raw, places[best.at])), as_written(&noun, hypothesis)))
}

/// Small letters, without white space around them and without one last mark.
fn plain(word: &str) -> String {
    let word = word.trim().to_lowercase();
    word.strip_suffix(MARKS).unwrap_or(&word).to_string()
}

/// The text with asterisks around a word; a mark behind it is set off by a space.
fn highlighted(words: &[&str], at: usize) -> String {
    let word = words[at];
    let bare = word.strip_suffix(MARKS).unwrap_or(word);
    let mark = &word[bare.len()..];
    let marked = if mark.is_empty() { format!("*{bare}*") } else { format!("*{bare}* {mark}") };
    let mut words = words.to_vec();
    words[at] = &marked;
    words.join(" ")
}

/// How many words before and behind a pronoun another sentence repeats.
struct Repeated {
    /// The pronoun's place.
    at: usize,
    before: usize,
    after: usize,
}

impl Repeated {
    fn find(words: &[String], at: usize, said: &[String]) -> Repeated {
        // The reference compares the words of both sentences from their ends for what comes before the pronoun.
        let reversed = |words: &[String]| words.iter().rev().cloned().collect::<Vec<_>>();
        Repeated {
            at,
            before: repeated(&reversed(&words[..at]), &reversed(said).join(" ")),
            after: repeated(&words[at + 1..], &said.join(" ")),
        }
    }

    fn score(&self) -> usize {
        self.before + self.after
    }

    /// What a sentence has between the repeated parts; where they do not stand so, what it has before the one, and then
    /// behind the other.
    fn candidate(&self, words: &[String], said: &str) -> String {
        if self.score() == 0 {
            return String::new();
        }
        let before = words[self.at - self.before..self.at].join(" ");
        let after = words[self.at + 1..=self.at + self.after].join(" ");
        let found = between(said, &before, &after).or_else(|| between(said, "", &after));
        let found = found.or_else(|| between(said, &before, "")).unwrap_or("");
        let words: Vec<&str> = found.split(' ').collect();
        // The first place of each article, and of those the last.
        let articles = ARTICLES.iter().filter_map(|article| words.iter().position(|word| word == article));
        words[articles.max().unwrap_or(0)..].join(" ")
    }
}

/// How many of the first words stand in a text one after the other. As in the reference, they need not begin and end
/// where its words do.
fn repeated(words: &[String], text: &str) -> usize {
    (0..words.len()).find(|&len| !text.contains(&words[..=len].join(" "))).unwrap_or(words.len())
}

/// What stands between two parts of a text, one space away from each: from the first place of `before` to the last
/// place of `after`; an empty part stands for the text's end on its side.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let starts = text.char_indices().filter_map(|(at, _)| {
        let rest = &text[at..];
        if before.is_empty() { (at == 0).then_some(rest) } else { rest.strip_prefix(before)?.strip_prefix(' ') }
    });
    let after = if after.is_empty() { String::new() } else { format!(" {after}") };
    starts.filter_map(|rest| rest.rfind(&after).map(|end| &rest[..end])).find(|found| !found.is_empty())
}

/// A noun in the letters of the sentence that has it, without a last mark and without a possessive ending.
fn as_written(noun: &str, sentence: &str) -> String {
    let words: Vec<String> = noun.split(' ').map(|word| regex::escape(word) + r"[.,?!]?").collect();
    // A noun made of a text is a valid expression, so that nothing but its size could be refused.
    let regex = RegexBuilder::new(&words.join(" ")).case_insensitive(true).build();
    let found = regex.ok().and_then(|regex| regex.find(sentence)).map_or(noun, |found| found.as_str());
    let found = found.strip_suffix(MARKS).unwrap_or(found);
    found.strip_suffix('\'').or_else(|| found.strip_suffix("'s")).unwrap_or(found).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wnli_vectors_of_the_reference() {
        let cases = [
            (
                "Lily spoke to Donna breaking her silence.",
                "Lily spoke to Donna breaking Donna's silence.",
                "wsc: Lily spoke to Donna breaking *her* silence.",
                "Donna",
            ),
            (
                "The fish ate the worm. It was tasty.",
                "The worm was tasty.",
                "wsc: The fish ate the worm. *It* was tasty.",
                "The worm",
            ),
            (
                "Edward dropped adhesive tape onto his window sill, and when he pulled the tape off, some of the glue \
                 was stuck on it.",
                "Some of the glue was stuck on the window sill.",
                "wsc: Edward dropped adhesive tape onto his window sill, and when he pulled the tape off, some of the \
                 glue was stuck on *it* .",
                "the window sill",
            ),
            (
                "Al stole Bob's wallet and car, and then he was driving it really fast to get away.",
                "He was driving the car really fast to get away.",
                "wsc: Al stole Bob's wallet and car, and then he was driving *it* really fast to get away.",
                "the car",
            ),
        ];
        for (premise, hypothesis, inputs, noun) in cases {
            assert_eq!(wnli_to_wsc(premise, hypothesis), Some((inputs.to_string(), noun.to_string())));
        }
        assert_eq!(wnli_to_wsc("No pronoun here.", "None."), None);
    }

    /// Values of the reference's `wnli_simple`.
    #[test]
    fn nouns_of_the_reference() {
        let cases = [
            // The first place of each article counts, and letters as the hypothesis has them.
            (
                "The bird sat on the branch under the roof. It was warm.",
                "The branch under the roof was warm.",
                "The branch under the roof",
            ),
            ("The owners thanked the guests because they had paid.", "The Guests had paid.", "The Guests"),
            ("I met my uncle and he waved.", "My uncle waved.", "My uncle"),
            ("I met my uncle and he waved.", "I saw that my uncle waved.", "I saw that my uncle"),
            ("Jim told Bob that he won.", "Bob won.", "Bob"),
            ("The cat saw the dogs, but their bowl was empty.", "The dogs' bowl was empty.", "The dogs"),
            ("The cat saw the dog, but it ran.", "The dog's ran.", "The dog"),
            ("Ann has a dog in the yard. They say it is fine.", "They say a dog in the yard is fine.", "They"),
            ("The train, was late. It , stopped.", "The train stopped.", "The train"),
            // Nothing in common.
            ("Tom met Al and he left.", "Nobody.", ""),
            ("it", "", ""),
            ("He left.", "Tom", ""),
        ];
        for (premise, hypothesis, noun) in cases {
            assert_eq!(wnli_to_wsc(premise, hypothesis).unwrap().1, noun, "{premise} {hypothesis}");
        }
        let (inputs, _) = wnli_to_wsc("Tom put his coat in the bag and closed it.", "Tom closed the bag").unwrap();
        assert_eq!(inputs, "wsc: Tom put his coat in the bag and closed *it* .");
        // The reference counts words without the empty ones and marks the wrong one here ("*and* he").
        assert_eq!(wnli_to_wsc("Al  met Bo, and he left.", "Bo left.").unwrap().0, "wsc: Al  met Bo, and *he* left.");
    }

    /// Checksums of what the reference's `wnli_simple` makes of the real records, "inputs<tab>targets<newline>" each.
    #[test]
    fn every_record_is_as_the_reference_has_it() {
        let Some(folder) = crate::testing::unpacked("data/glue.tar.xz") else { return };
        for (file, records, checksum) in [("train.tsv", 635, 0xee39_f238), ("dev.tsv", 71, 0xc26e_de59)] {
            let text = std::fs::read_to_string(folder.path().join("glue/WNLI").join(file)).unwrap();
            let mut crc = flate2::Crc::new();
            let mut count = 0;
            for line in text.lines().skip(1) {
                let columns: Vec<&str> = line.split('\t').collect();
                let (inputs, noun) = wnli_to_wsc(columns[1], columns[2]).unwrap();
                crc.update(format!("{inputs}\t{noun}\n").as_bytes());
                count += 1;
            }
            assert_eq!((count, crc.sum()), (records, checksum), "{file}");
        }
    }
}
