//! What a job does to one part.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufWriter;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use rayon::prelude::*;
use serde::Serialize;
use t5_runtime::output::OutputFile;

use super::engine::{Repeat, Step};
use super::job::{Job, Progress, SPLITS, marked, text_name};
use super::read::{Found, for_each_page};
use super::repeated::{Entry, PLACE, WHOLE, removed};
use super::repeats::{self, hash, hashes};
use super::report::{Removed, Report};
use super::rows::{BATCH, Row, for_each_rows, write_line};
use super::samples::Samples;
use super::url::normalise;
use crate::files::{commit, write_json};
use crate::shards::{ShardInfo, ShardWriter};
use crate::source::{Columns, Format, for_each_record};
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// A page as it is written.
#[derive(Debug, Serialize)]
struct Kept<'a> {
    text: &'a str,
    timestamp: &'a str,
    url: &'a str,
}

impl Job {
    /// Does a step for a part, of which it leaves the files. What is done already is not done again.
    pub(super) fn step(&self, step: Step, part: usize, progress: &Progress) -> Result<()> {
        match step {
            Step::Pages => self.pages_of(part, progress),
            Step::Texts => once(&self.text_mark(part), || self.texts_of(part, progress)),
            Step::Shards(split) => match &self.vocabulary {
                Some(vocabulary) => {
                    once(&self.shard_mark(split, part), || self.shard_of(split, part, vocabulary, progress))
                }
                None => Ok(()),
            },
        }
    }

    /// Reads and cleans a part.
    fn pages_of(&self, part: usize, progress: &Progress) -> Result<()> {
        let target = self.part_of_pages(part);
        if target.exists() {
            return Ok(());
        }
        let mut out = BufWriter::with_capacity(1 << 20, OutputFile::create(&target)?);
        let mut write = |batch: &mut Vec<Found>| {
            let rows: Vec<Row> = batch.par_drain(..).map(|found| self.rules.prepare(found)).collect();
            progress.add(rows.len(), rows.iter().map(|row| row.bytes as usize).sum());
            rows.iter().try_for_each(|row| write_line(&mut out, row, &target))
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for_each_page(&self.parts[part].0, self.options.documents, |found| {
            bytes += if let Found::Page(page) = &found { page.text.len() } else { 0 };
            batch.push(found);
            if batch.len() >= BATCH.0 || bytes >= BATCH.1 {
                bytes = 0;
                write(&mut batch)?;
            }
            Ok(())
        })?;
        write(&mut batch)?;
        commit(out, &target)
    }

    /// Calls `f` with what of a part is compared with others, some of it at a time; `gone` has what was found before.
    pub(super) fn for_each_entries(
        &self,
        repeat: Repeat,
        part: usize,
        gone: &Path,
        mut f: impl FnMut(&[Entry]) -> Result<()>,
    ) -> Result<()> {
        let number = part as u32;
        let out: BTreeSet<u32> = match repeat {
            Repeat::Addresses => BTreeSet::new(),
            Repeat::Units => {
                let addresses = removed(&gone.join(Repeat::Addresses.folder()), number)?;
                addresses.into_iter().map(|(row, _)| row).collect()
            }
        };
        let of_row = |row_number: u32, row: &Row| -> Vec<Entry> {
            let entry = |hash, place, at| Entry { hash, place, part: number, row: row_number, at };
            match repeat {
                Repeat::Addresses => match row.removed {
                    // What no page could be made of has no address.
                    Some(Removed::NotText | Removed::Empty | Removed::TooLong | Removed::NotListed) => Vec::new(),
                    _ => {
                        // The newest has the smallest place: its time's digits are turned round. Of one time the
                        // first stays.
                        let mut place = [0xFF; PLACE];
                        place.iter_mut().zip(row.timestamp.bytes()).for_each(|(place, byte)| *place = !byte);
                        vec![entry(hash(&normalise(&row.url)), place, WHOLE)]
                    }
                },
                Repeat::Units if row.removed.is_some() || out.contains(&row_number) => Vec::new(),
                Repeat::Units => {
                    let page = hash(&normalise(&row.url));
                    let of_unit = |(at, hash)| {
                        let mut place = [0; PLACE];
                        let begin = repeats::place(&page, at);
                        place[..begin.len()].copy_from_slice(&begin);
                        entry(hash, place, at)
                    };
                    hashes(&row.text, self.options.repeats).into_iter().map(of_unit).collect()
                }
            }
        };
        for_each_rows(&self.part_of_pages(part), |first, batch| {
            let numbered: Vec<(u32, &Row)> = (first..).zip(batch).collect();
            let entries: Vec<Entry> =
                numbered.into_par_iter().flat_map_iter(|(number, row)| of_row(number, row)).collect();
            f(&entries)
        })
    }

    fn texts_of(&self, part: usize, progress: &Progress) -> Result<Report> {
        let mut gone: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for repeat in Repeat::ALL {
            for (row, at) in removed(&self.gone_folder().join(repeat.folder()), part as u32)? {
                gone.entry(row).or_default().insert(at);
            }
        }
        let targets = SPLITS.map(|split| self.new_texts().join(split).join(text_name(part)));
        let create = |path: &Path| -> Result<_> {
            let file = BufWriter::with_capacity(1 << 18, OutputFile::create(path)?);
            Ok(GzEncoder::new(file, Compression::new(4)))
        };
        let mut outputs = [create(&targets[0])?, create(&targets[1])?];
        let mut report = Report::default();
        let mut samples = Samples::new(self.options.keep_removed);
        let none = BTreeSet::new();
        for_each_rows(&self.part_of_pages(part), |first, batch| {
            let numbered: Vec<(u32, &Row)> = (first..).zip(batch).collect();
            let finished: Vec<Result<String, Removed>> = numbered
                .par_iter()
                .map(|(number, row)| self.rules.finish(row, gone.get(number).unwrap_or(&none)))
                .collect();
            progress.add(batch.len(), batch.iter().map(|row| row.bytes as usize).sum());
            for ((number, row), finished) in numbered.into_iter().zip(finished) {
                report.pages += 1;
                report.bytes += row.bytes;
                if finished.as_ref().err() != Some(&Removed::SameAddress) {
                    report.lines.add(&row.lines);
                }
                match finished {
                    Err(rule) => {
                        report.removed[rule as usize] += 1;
                        samples.add(rule, row);
                    }
                    Ok(text) => {
                        report.repeats += gone.get(&number).map_or(0, BTreeSet::len) as u64;
                        let split = usize::from(self.rules.holds_out(&row.url));
                        let counts = if split == 0 { &mut report.train } else { &mut report.validation };
                        counts[0] += 1;
                        counts[1] += text.len() as u64;
                        let kept = Kept { text: &text, timestamp: &row.timestamp, url: &row.url };
                        write_line(&mut outputs[split], &kept, &targets[split])?;
                    }
                }
            }
            Ok(())
        })?;
        for (output, target) in outputs.into_iter().zip(&targets) {
            commit(output.finish().map_err(Error::io(target))?, target)?;
        }
        samples.write(&self.sample_file(part))?;
        Ok(report)
    }

    /// Makes the shard of one part, of whose text nothing may be kept.
    fn shard_of(&self, split: usize, part: usize, vocabulary: &Vocabulary, progress: &Progress) -> Result<ShardInfo> {
        let mut shard = ShardWriter::create(&self.new_shards(split), &format!("{part:05}"), vocabulary)?;
        let report: Report = marked(&self.text_mark(part))?;
        if [report.train, report.validation][split][0] == 0 {
            return shard.finish();
        }
        let path = self.text_file(split, part);
        let (mut texts, mut bytes) = (Vec::new(), 0);
        let mut write = |texts: &mut Vec<String>, bytes: &mut usize| -> Result<()> {
            progress.add(texts.len(), *bytes);
            *bytes = 0;
            let ids: Vec<Vec<u32>> = texts.par_drain(..).map(|text| vocabulary.encode(&text)).collect();
            ids.iter().try_for_each(|ids| shard.push(ids))
        };
        for_each_record(&path, Format::Jsonl, &Columns::default(), |record| {
            let text = record.text("text").unwrap_or_default().into_owned();
            bytes += text.len();
            texts.push(text);
            if texts.len() >= BATCH.0 || bytes >= BATCH.1 { write(&mut texts, &mut bytes) } else { Ok(()) }
        })?;
        write(&mut texts, &mut bytes)?;
        shard.finish()
    }
}

/// Does what leaves a value as its mark, unless the mark is there.
fn once<T: Serialize>(mark: &Path, work: impl FnOnce() -> Result<T>) -> Result<()> {
    if mark.exists() { Ok(()) } else { write_json(mark, &work()?) }
}
