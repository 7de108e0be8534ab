//! A few pages of each rule that removed some, to look at.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::repeats::{Hash, hash};
use super::report::Removed;
use super::rows::{Row, write_line};
use crate::Result;
use crate::files::{read_json, replace, write_json};

/// A page that a rule removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub rule: Removed,
    pub url: String,
    pub text: String,
}

/// Of each rule a few pages, those with the smallest hashes of their addresses: whatever order they come in.
pub struct Samples {
    most: usize,
    kept: BTreeMap<(Removed, Hash), Sample>,
}

impl Samples {
    /// None yet, and at most so many of each rule.
    pub fn new(most: usize) -> Samples {
        Samples { most, kept: BTreeMap::new() }
    }

    /// Looks at a page that a rule removed.
    pub fn add(&mut self, rule: Removed, row: &Row) {
        if self.most > 0 && !row.text.is_empty() {
            self.insert(Sample { rule, url: row.url.clone(), text: row.text.clone() });
        }
    }

    fn insert(&mut self, sample: Sample) {
        let rule = sample.rule;
        self.kept.insert((rule, hash(&sample.url)), sample);
        let of_rule = (rule, [0; 16])..=(rule, [0xFF; 16]);
        if self.kept.range(of_rule.clone()).count() > self.most
            && let Some(last) = self.kept.range(of_rule).next_back().map(|(key, _)| *key)
        {
            self.kept.remove(&last);
        }
    }

    /// Adds those that [`Samples::write`] wrote.
    ///
    /// # Errors
    /// Where the file cannot be read or has something else.
    pub fn read(&mut self, path: &Path) -> Result<()> {
        let samples: Option<Vec<Sample>> = read_json(path)?;
        samples.into_iter().flatten().for_each(|sample| self.insert(sample));
        Ok(())
    }

    /// Writes them for [`Samples::read`]; nothing where none are wanted.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        if self.most == 0 { Ok(()) } else { write_json(path, &self.kept.values().collect::<Vec<_>>()) }
    }

    /// Writes them as JSON lines, for people; nothing where none are wanted.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn write_lines(&self, path: &Path) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        let mut text = Vec::new();
        self.kept.values().try_for_each(|sample| write_line(&mut text, sample, path))?;
        replace(path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clean::LineCounts;
    use super::*;

    #[test]
    fn the_same_pages_are_kept_whatever_their_order_and_division() {
        let row = |i: usize| Row {
            url: format!("http://a.com/{i}"),
            timestamp: String::new(),
            bytes: 1,
            removed: None,
            lines: LineCounts::default(),
            text: if i == 7 { String::new() } else { "x".into() },
        };
        let rule = |i: usize| if i.is_multiple_of(3) { Removed::BadWord } else { Removed::TooLong };
        let folder = tempfile::tempdir().unwrap();
        let lines = |parts: &[Vec<usize>]| {
            let mut all = Samples::new(2);
            for part in parts {
                let mut samples = Samples::new(2);
                part.iter().for_each(|&i| samples.add(rule(i), &row(i)));
                samples.write(&folder.path().join("part")).unwrap();
                all.read(&folder.path().join("part")).unwrap();
            }
            all.write_lines(&folder.path().join("all")).unwrap();
            std::fs::read_to_string(folder.path().join("all")).unwrap()
        };
        let found = lines(&[(0..40).collect()]);
        assert_eq!(found.lines().count(), 4);
        assert_eq!(found.matches("\"rule\":\"bad-word\"").count(), 2);
        assert_eq!(lines(&[(20..40).rev().collect(), (0..20).collect(), vec![]]), found);
        Samples::new(0).write_lines(&folder.path().join("none")).unwrap();
        assert!(!folder.path().join("none").exists());
    }
}
