//! What was read and what each rule removed.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::clean::{LineCounts, PageRule};

/// Why a page is not in the corpus, in the order of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removed {
    NotText,
    Empty,
    TooLong,
    NotListed,
    SameAddress,
    LoremIpsum,
    CurlyBracket,
    BadWord,
    FewSentences,
    Repeated,
    OtherLanguage,
}

impl Removed {
    /// All of them, in order.
    pub const ALL: [Removed; 11] = [
        Removed::NotText,
        Removed::Empty,
        Removed::TooLong,
        Removed::NotListed,
        Removed::SameAddress,
        Removed::LoremIpsum,
        Removed::CurlyBracket,
        Removed::BadWord,
        Removed::FewSentences,
        Removed::Repeated,
        Removed::OtherLanguage,
    ];

    fn words(self) -> &'static str {
        match self {
            Removed::NotText => "no plain text in UTF-8, or too large",
            Removed::Empty => "no text or no address",
            Removed::TooLong => "too many characters",
            Removed::NotListed => "not of the list of sites or addresses",
            Removed::SameAddress => "of an address that another page has",
            Removed::LoremIpsum => "lorem ipsum",
            Removed::CurlyBracket => "a {",
            Removed::BadWord => "a bad word",
            Removed::FewSentences => "fewer than three sentences",
            Removed::Repeated => "fewer than three sentences that are not elsewhere",
            Removed::OtherLanguage => "another language",
        }
    }
}

impl From<PageRule> for Removed {
    fn from(rule: PageRule) -> Removed {
        match rule {
            PageRule::LoremIpsum => Removed::LoremIpsum,
            PageRule::CurlyBracket => Removed::CurlyBracket,
            PageRule::BadWord => Removed::BadWord,
            PageRule::FewSentences => Removed::FewSentences,
        }
    }
}

/// Counts of a part or of a whole corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Pages read.
    pub pages: u64,
    /// Bytes of their texts.
    pub bytes: u64,
    /// Pages removed by each of [`Removed::ALL`].
    pub removed: [u64; 11],
    /// Lines removed by each rule, of pages that came to it.
    pub lines: LineCounts,
    /// Lines or spans removed, of pages that are kept, as they are elsewhere.
    pub repeats: u64,
    /// Pages written to train on, and their bytes of text.
    pub train: [u64; 2],
    /// Pages held out, and their bytes of text.
    pub validation: [u64; 2],
}

impl Report {
    /// Adds a part's counts.
    pub fn add(&mut self, other: &Report) {
        self.pages += other.pages;
        self.bytes += other.bytes;
        self.removed.iter_mut().zip(other.removed).for_each(|(sum, count)| *sum += count);
        self.lines.add(&other.lines);
        self.repeats += other.repeats;
        for i in 0..2 {
            self.train[i] += other.train[i];
            self.validation[i] += other.validation[i];
        }
    }

    /// What was read and what each rule removed, for a sentence.
    pub fn in_words(&self) -> String {
        let removed = Removed::ALL.iter().zip(&self.removed).filter(|(_, count)| **count > 0);
        let removed = removed.map(|(rule, count)| format!(", {count} removed ({})", rule.words()));
        format!("{} read{}", self.pages, removed.collect::<String>())
    }

    /// What each rule removed, as a table; rules that removed nothing are left out.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let share = |count: u64| 100.0 * count as f64 / self.pages.max(1) as f64;
        let mut row = |count: u64, share: Option<f64>, what: &str| {
            let share = share.map_or(String::new(), |share| format!("{share:5.1} %"));
            let _ = writeln!(out, "{count:>12}  {share:>7}  {what}");
        };
        row(self.pages, None, &format!("pages read, {:.1} MB of text", self.bytes as f64 / 1e6));
        for (rule, &count) in Removed::ALL.iter().zip(&self.removed).filter(|(_, count)| **count > 0) {
            row(count, Some(share(count)), &format!("removed: {}", rule.words()));
        }
        for (count, what) in self.lines.rows().into_iter().filter(|(count, _)| *count > 0) {
            row(count, None, &format!("lines removed: {what}"));
        }
        if self.repeats > 0 {
            row(self.repeats, None, "lines or spans removed: elsewhere, too");
        }
        for ([count, bytes], what) in [(self.train, "to train on"), (self.validation, "held out")] {
            row(count, Some(share(count)), &format!("kept {what}, {:.1} MB of text", bytes as f64 / 1e6));
        }
        out
    }
}
