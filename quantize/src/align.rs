//! Which heads of cross-attention show where a target's words come from, measured on pairs of sentences.
//!
//! Pairs of sentences do not say which of their words belong together, but many pairs show it: words that often stand
//! in the same pairs translate one another (IBM Model 1; Brown et al., The Mathematics of Statistical Machine
//! Translation, 1993). Where two words of a pair are each other's likeliest partner, they are linked. Then every head
//! is judged by how many of the linked words it points at, in the step that predicts a word and in the step that reads
//! it.

use std::collections::HashMap;
use std::hash::Hash;

use t5_runtime::{AlignmentHeads, Error, Model, Result, Session, WordAlignment};

/// Pairs that heads are judged by; the rest only tell which words belong together.
const JUDGED: usize = 500;

/// Rounds of expectation and maximisation; likely partners change little after these.
const ROUNDS: usize = 6;

/// How likely a partner must be to be believed.
const BELIEVED: f64 = 0.2;

/// What was chosen, and how well it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The heads that were chosen.
    pub heads: AlignmentHeads,
    /// Linked words that were looked at.
    pub links: usize,
    /// Of these, how many the chosen heads find.
    pub found: usize,
    /// How many the average of all heads finds.
    pub by_average: usize,
}

/// Chooses the heads by which `model` aligns words. A source is what the model is given, with its task's prefix.
///
/// # Errors
/// If the model has no decoder or no vocabulary, or not enough pairs have words that are surely linked.
pub fn choose(model: &Model, pairs: &[(String, String)]) -> Result<Choice> {
    let words = |(source, target): &(String, String)| Ok((source_words(model, source)?, normal_words(target)));
    let lexicon = Lexicon::of(pairs.iter().map(words).collect::<Result<Vec<_>>>()?.into_iter());
    let heads = all_heads(model);
    let mut judged = Judged::default();
    let mut session = model.session();
    for (source, target) in pairs.iter().rev().take(JUDGED) {
        judged.look(&mut session, &lexicon, &heads, source, target)?;
    }
    judged.choose(&heads)
}

/// The words of a source as the model reads it, single letters where its task spells them out; without those of the
/// task's prefix.
fn source_words(model: &Model, source: &str) -> Result<Vec<String>> {
    let text = model.tokenizer()?.decode(&model.source_ids(source)?, true);
    Ok(normal_words(&text).into_iter().skip(prefix_words(model, source)).collect())
}

/// How many words the prefix has of the task that a source belongs to; none where it belongs to none that the model
/// names.
fn prefix_words(model: &Model, source: &str) -> usize {
    model.generation_defaults().task_of(source).map_or(0, |task| task.prefix.split_whitespace().count())
}

/// Every head alone, in both steps.
fn all_heads(model: &Model) -> Vec<AlignmentHeads> {
    let config = model.config();
    let head = |reading, block, head| AlignmentHeads { heads: vec![(block, head)], reading };
    let mut all = Vec::new();
    for reading in [false, true] {
        for block in 0..config.num_decoder_layers {
            all.extend((0..config.num_heads).map(|index| head(reading, block, index)));
        }
    }
    all
}

/// A word as it is counted: without marks and in small letters; empty for a mark alone.
fn normal(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

fn normal_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(normal).collect()
}

/// How likely words are each other's translation.
struct Lexicon {
    /// p(source word | target word).
    source_of: Table<String>,
    /// p(target word | source word).
    target_of: Table<String>,
}

impl Lexicon {
    fn of(pairs: impl Iterator<Item = (Vec<String>, Vec<String>)>) -> Lexicon {
        let (sources, targets): (Vec<_>, Vec<_>) = pairs.unzip();
        Lexicon { source_of: model_1(&targets, &sources), target_of: model_1(&sources, &targets) }
    }

    /// Pairs (target word, source word) that are each other's likeliest partner, by place.
    fn links(&self, source: &[String], target: &[String]) -> Vec<(usize, usize)> {
        let partner = |table: &Table<String>, word: &String, among: &[String]| {
            let likely =
                |place: &usize| table.get(word).and_then(|row| row.get(&among[*place])).copied().unwrap_or(0.0);
            let best = (0..among.len()).max_by(|a, b| likely(a).total_cmp(&likely(b)))?;
            (likely(&best) > BELIEVED).then_some(best)
        };
        let link = |(place, word): (usize, &String)| {
            let from = partner(&self.source_of, word, source).filter(|_| !word.is_empty())?;
            let back = partner(&self.target_of, &source[from], target)?;
            // A word that comes twice is linked with one of its places only, which may be the wrong one.
            let once = |words: &[String], word: &String| words.iter().filter(|other| *other == word).count() == 1;
            (back == place && once(source, &source[from]) && once(target, word)).then_some((place, from))
        };
        target.iter().enumerate().filter_map(link).collect()
    }
}

/// `[given word][word]`: a probability.
type Table<W> = HashMap<W, HashMap<W, f64>>;

/// IBM Model 1: p(word | given word) from texts side by side, beginning with all partners equally likely.
fn model_1<W: Clone + Eq + Hash>(given: &[Vec<W>], texts: &[Vec<W>]) -> Table<W> {
    let mut table = Table::new();
    for round in 0..ROUNDS {
        let mut counts = Table::new();
        for (given, text) in given.iter().zip(texts) {
            for word in text {
                let likely = |partner: &W| match round {
                    0 => 1.0,
                    _ => table.get(partner).and_then(|row: &HashMap<W, f64>| row.get(word)).copied().unwrap_or(0.0),
                };
                let all: f64 = given.iter().map(likely).sum();
                for partner in given {
                    let row = counts.entry(partner.clone()).or_insert_with(HashMap::new);
                    *row.entry(word.clone()).or_insert(0.0) += likely(partner) / all.max(f64::MIN_POSITIVE);
                }
            }
        }
        for row in counts.values_mut() {
            let all: f64 = row.values().sum();
            row.values_mut().for_each(|count| *count /= all);
        }
        table = counts;
    }
    table
}

/// What each head said of the judged pairs: for each linked target word, how much it looked at each source word.
#[derive(Default)]
struct Judged {
    /// The right source word of each link.
    right: Vec<usize>,
    /// `[links][heads][source words]`
    rows: Vec<Vec<Vec<f32>>>,
}

impl Judged {
    fn look(
        &mut self,
        session: &mut Session,
        lexicon: &Lexicon,
        heads: &[AlignmentHeads],
        source: &str,
        target: &str,
    ) -> Result<()> {
        let model = session.model().clone();
        let tokenizer = model.tokenizer()?;
        let prefix = prefix_words(&model, source);
        let (source, target) = (model.source_ids(source)?, tokenizer.encode(target));
        let look = |head| Ok(session.alignment_by(head, &source, &target)?.by_words(tokenizer, prefix));
        let looked = heads.iter().map(look).collect::<Result<Vec<WordAlignment>>>()?;
        let Some(words) = looked.first() else { return Ok(()) };
        let normal_of = |words: &[String]| words.iter().map(|word| normal(word)).collect::<Vec<_>>();
        for (place, from) in lexicon.links(&normal_of(&words.source), &normal_of(&words.target)) {
            let row =
                |words: &WordAlignment| words.weights[place * words.source.len()..][..words.source.len()].to_vec();
            self.rows.push(looked.iter().map(row).collect());
            self.right.push(from);
        }
        Ok(())
    }

    /// How many links the average of these heads finds.
    fn found(&self, heads: &[usize]) -> usize {
        let finds = |(rows, &right): (&Vec<Vec<f32>>, &usize)| {
            let sum = |word: usize| heads.iter().map(|&head| rows[head][word]).sum::<f32>();
            (0..rows[0].len()).all(|word| word == right || sum(word) < sum(right))
        };
        self.rows.iter().zip(&self.right).filter(|row| finds(*row)).count()
    }

    /// The best head, and others of the same step for as long as their average finds clearly more.
    fn choose(&self, heads: &[AlignmentHeads]) -> Result<Choice> {
        let links = self.right.len();
        if links == 0 {
            let what = "expected pairs of texts, SOURCE<TAB>TARGET, many enough to tell which words belong together; \
                        found no two words that do";
            return Err(Error::Option { option: "align", what: what.to_owned() });
        }
        let step = |reading: bool| (0..heads.len()).filter(move |&head| heads[head].reading == reading);
        let mut best: (usize, Vec<usize>) = (0, Vec::new());
        for reading in [false, true] {
            let mut chosen: Vec<usize> = Vec::new();
            let mut found = 0;
            loop {
                let with = |head: usize| [&chosen[..], &[head]].concat();
                let left = step(reading).filter(|head| !chosen.contains(head));
                // The first of equals.
                let next = left.rev().map(|head| (self.found(&with(head)), head)).max_by_key(|&(found, _)| found);
                let clearly = |more: usize| more > found + links / 100;
                let Some((more, head)) = next.filter(|&(more, _)| clearly(more)) else { break };
                found = more;
                chosen.push(head);
            }
            if found > best.0 {
                best = (found, chosen);
            }
        }
        let (found, chosen) = best;
        let reading = chosen.first().is_some_and(|&head| heads[head].reading);
        let heads_of = |head: &usize| heads[*head].heads.iter().copied();
        Ok(Choice {
            heads: AlignmentHeads { heads: chosen.iter().flat_map(heads_of).collect(), reading },
            links,
            found,
            by_average: self.found(&step(false).collect::<Vec<_>>()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        normal_words(text)
    }

    #[test]
    fn words_that_stand_in_the_same_pairs_are_linked() {
        let pairs = [
            ("The dog sleeps.", "Der Hund schläft."),
            ("The cat sleeps.", "Die Katze schläft."),
            ("A dog eats.", "Ein Hund frisst."),
            ("A cat drinks.", "Eine Katze trinkt."),
            ("the Dog drinks", "der Hund trinkt"),
        ];
        let lexicon = Lexicon::of(pairs.iter().map(|(source, target)| (words(source), words(target))));
        let links = lexicon.links(&words("A dog sleeps!"), &words("Hund, schläft ein"));
        assert!(links.contains(&(0, 1)) && links.contains(&(1, 2)), "{links:?}");
        // Of a word that comes twice nobody knows which is meant; a mark is no word; strangers have no partner.
        assert_eq!(lexicon.links(&words("dog dog"), &words("Hund")), []);
        assert_eq!(lexicon.links(&words("- dog"), &words("- Hund")), [(1, 1)]);
        assert_eq!(lexicon.links(&words("a bird"), &words("Vogel")), []);
    }

    /// Three heads over two source words: the first is right in its second step in nine of ten links, the second in
    /// one, the third in the tenth.
    #[test]
    fn heads_join_while_they_help_clearly() {
        let heads: Vec<AlignmentHeads> = [false, true]
            .into_iter()
            .flat_map(|reading| (0..3).map(move |head| AlignmentHeads { heads: vec![(1, head)], reading }))
            .collect();
        let (right, wrong, none) = (vec![0.6, 0.4], vec![0.4, 0.6], vec![0.5, 0.5]);
        let mut judged = Judged { right: vec![0; 10], rows: Vec::new() };
        for link in 0..10 {
            let first = if link < 9 { &right } else { &wrong };
            let second = if link == 0 { &right } else { &wrong };
            let third = if link == 9 { &vec![0.9, 0.1] } else { &none };
            judged.rows.push([&wrong, &wrong, &none, first, second, third].map(Clone::clone).to_vec());
        }
        let choice = judged.choose(&heads).unwrap();
        assert_eq!(choice.heads, AlignmentHeads { heads: vec![(1, 0), (1, 2)], reading: true });
        assert_eq!((choice.found, choice.links, choice.by_average), (10, 10, 0));
        let error = Judged::default().choose(&heads).unwrap_err().to_string();
        assert!(error.contains("found no two words that do"), "{error}");
    }
}
