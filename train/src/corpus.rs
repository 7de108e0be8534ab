//! Corpora: raw web text becomes cleaned, de-duplicated and tokenised text, by the rules of C4, the corpus that T5 was
//! trained on.
//!
//! The rules are functions of a page or a line, in the order in which a page meets them: [`url`] (lists of sites and
//! addresses, one page of an address), [`clean`] (lines and whole pages, with [`bad_words`]), [`repeats`] (lines or
//! three-sentence spans that are elsewhere, too) and [`language`]. [`text`] has what they share.
//!
//! [`job`] applies them ([`rules`]) to the pages of files ([`read`]) as [`options`] say, and sorts on disk what it
//! compares ([`repeated`]): what it does to a file stands in `steps`, what lies between the steps in [`rows`], and who
//! does them in `engine` and, for several machines, in `cluster`. [`report`] says what each rule removed, and
//! [`samples`] show some of it.

pub mod bad_words;
pub mod clean;
#[cfg(feature = "cluster")]
pub mod cluster;
mod engine;
pub mod job;
pub mod language;
pub mod options;
pub mod read;
pub mod repeated;
pub mod repeats;
pub mod report;
pub mod rows;
pub mod rules;
pub mod samples;
mod steps;
pub mod text;
pub mod url;
