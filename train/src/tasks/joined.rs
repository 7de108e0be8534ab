//! Examples of several neighbouring records, for models that are given paragraphs.

use super::data::Digest;
use super::example::{Limits, TextExample};
use super::formatters::{Examples, Template};
use crate::random::Random;
use crate::source::{Record, Value};
use crate::{Error, Result};

/// Records of which a few are put together anew each epoch. Each alone keeps to the limits.
pub(super) struct Joined {
    records: Vec<Record>,
    /// Tokens of each record's own input and target, end marks left out. With the template's text in each of them
    /// they are no fewer than those of the joined text.
    lengths: Vec<[usize; 2]>,
    input: Template,
    target: Template,
    least: usize,
    most: usize,
    separators: Vec<String>,
    /// Tokens of the longest separator.
    separator_tokens: usize,
}

impl Joined {
    /// Keeps the records that have lengths; the others are too long by themselves. `tokens` counts those of a
    /// separator.
    pub(super) fn new(
        examples: &Examples,
        records: &[Record],
        lengths: Vec<Option<[usize; 2]>>,
        tokens: impl Fn(&String) -> usize,
    ) -> Result<Joined> {
        let Examples::Joined { input, target, least, most, separators } = examples else {
            return Err(Error::Invalid("expected examples of the kind joined".into()));
        };
        let kept = records.iter().zip(&lengths).filter(|(_, length)| length.is_some());
        Ok(Joined {
            records: kept.map(|(record, _)| record.clone()).collect(),
            lengths: lengths.into_iter().flatten().collect(),
            input: Template::parse(input)?,
            target: Template::parse(target)?,
            least: *least,
            most: *most,
            separators: separators.clone(),
            separator_tokens: separators.iter().map(tokens).max().unwrap_or(0),
        })
    }

    /// One example begins with each record.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Digests the records.
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.count(self.records.len());
        for record in &self.records {
            digest.count(record.names().count());
            for name in record.names() {
                let values = record.values(name).unwrap_or_default();
                digest.text(name);
                digest.count(values.len());
                values.iter().for_each(|value| digest.text(value));
            }
        }
    }

    /// The example that begins with a record: so many of those behind it as are drawn, exist and fit.
    pub(super) fn draw(&self, index: usize, limits: Limits, seed: u64) -> TextExample {
        let random = &mut Random::new(seed);
        let wanted = random.between(self.least, self.most);
        let separator = random.choose(&self.separators).map_or("", String::as_str);
        let end = (index + wanted).min(self.len());
        // With the end mark.
        let tokens = |end: usize, side: usize| -> usize {
            let texts = self.lengths[index..end].iter().map(|lengths| lengths[side]).sum::<usize>();
            texts + (end - index - 1) * self.separator_tokens + 1
        };
        let fits = |&end: &usize| tokens(end, 0) <= limits.inputs_length && tokens(end, 1) <= limits.targets_length;
        let end = (index + 1..=end).rev().find(fits).unwrap_or(index + 1);
        self.join(index..end, separator)
    }

    /// Every record once, so many together as the mean of `least` and `most`, with one separator after the other.
    pub(super) fn groups(&self) -> impl Iterator<Item = TextExample> {
        let size = (self.least + self.most) / 2;
        let starts = (0..self.len()).step_by(size);
        starts
            .zip(self.separators.iter().cycle())
            .map(move |(start, separator)| self.join(start..(start + size).min(self.len()), separator))
    }

    fn join(&self, range: std::ops::Range<usize>, separator: &str) -> TextExample {
        let records = &self.records[range];
        let fields = records[0].names().map(|name| {
            let parts: Vec<_> = records.iter().filter_map(|record| record.text(name)).collect();
            (name.to_owned(), Value::Text(parts.join(separator)))
        });
        let record = Record::new(records[0].line, fields.collect());
        // Each record was filled in when the task was loaded.
        let fill = |template: &Template| template.fill(&record).unwrap_or_default();
        TextExample::new(fill(&self.input), fill(&self.target))
    }
}
