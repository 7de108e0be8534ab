//! From files to a corpus: each file is a part, and each of its results appears under its name at once, so that what
//! is finished when a job is killed need not be done again.
//!
//! 1. Every part is read and cleaned (`work/pages`).
//! 2. Over all parts, pages of one address and repeated lines or spans are found (`work/gone`).
//! 3. Every part is written: without what was found, without other languages, divided into `train` and `validation`.
//! 4. Every part's texts become ids (`shards`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Compression, write::GzEncoder};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use t5_runtime::output::OutputFile;

use super::bad_words::BadWords;
use super::clean::{LineCounts, clean_page};
use super::language::Language;
use super::options::{Options, Variant};
use super::read::{Found, Page, files, for_each_page};
use super::repeated::{Buckets, Entry, PLACE, WHOLE, removed};
use super::repeats::{self, Unit, hash, hashes, without};
use super::report::{Removed, Report};
use super::url::{Listed, normalise};
use crate::files::{create_folder, hex, open_alone, replace};
use crate::shards::{self, Index, ShardInfo, ShardWriter};
use crate::source::{Columns, Format, for_each_record};
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Pages that are worked on together, or as many as have so many bytes.
const BATCH: (usize, usize) = (512, 4 << 20);

/// The division into pages to train on and pages held out, by their folders' names.
const SPLITS: [&str; 2] = ["train", "validation"];

/// What a job has done so far, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Pages read, written and tokenised, and the bytes of their texts.
    pub pages: AtomicU64,
    pub bytes: AtomicU64,
}

impl Progress {
    fn add(&self, pages: usize, bytes: usize) {
        self.pages.fetch_add(pages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A page between reading and writing.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    timestamp: String,
    /// Bytes of the text as it was read.
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<Removed>,
    #[serde(default, skip_serializing_if = "LineCounts::is_zero")]
    lines: LineCounts,
    #[serde(default)]
    text: String,
}

/// A page as it is written.
#[derive(Debug, Serialize)]
struct Kept<'a> {
    text: &'a str,
    timestamp: &'a str,
    url: &'a str,
}

/// A page that a rule removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sample {
    rule: Removed,
    url: String,
    text: String,
}

/// What `report.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// Of the files and rules.
    made_of: String,
    /// Of the vocabulary; empty without shards.
    vocabulary: String,
    #[serde(flatten)]
    report: Report,
}

/// The rules of a corpus, with the lists that they need.
struct Rules {
    options: Options,
    sites: Option<Listed>,
    addresses: Option<Listed>,
    bad_words: Option<BadWords>,
    language: Option<Language>,
}

impl Rules {
    fn new(options: &Options) -> Result<Rules> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        let list = |path: &Path| given(path).then(|| Listed::read(path)).transpose();
        let sites = match options.variant {
            Variant::Wikipedia => Some(Listed::of(["en.wikipedia.org"])),
            _ => list(&options.sites)?,
        };
        let bad_words = given(&options.bad_words)
            .then(|| BadWords::read(&options.bad_words, options.bad_words_in, &options.language))
            .transpose()?;
        let language = (!options.language.is_empty())
            .then(|| Language::new(&options.language, options.language_confidence))
            .transpose()?;
        Ok(Rules { options: options.clone(), sites, addresses: list(&options.addresses)?, bad_words, language })
    }

    /// What a page becomes before others are known.
    fn prepare(&self, found: Found) -> Row {
        let page = match found {
            Found::Page(page) => page,
            Found::NotText => return self.row(Page::default(), LineCounts::default(), Err(Removed::NotText)),
            Found::Empty => return self.row(Page::default(), LineCounts::default(), Err(Removed::Empty)),
        };
        let mut lines = LineCounts::default();
        let most = self.options.max_characters;
        if most > 0 && page.text.len() > most && page.text.chars().count() > most {
            return self.row(page, lines, Err(Removed::TooLong));
        }
        let key = normalise(&page.url);
        if self.sites.as_ref().is_some_and(|sites| !sites.has_site(&key))
            || self.addresses.as_ref().is_some_and(|addresses| !addresses.has_address(&key))
        {
            return self.row(page, lines, Err(Removed::NotListed));
        }
        let text = if self.options.clean {
            clean_page(&page.text, self.bad_words.as_ref(), &mut lines).map_err(Removed::from)
        } else {
            Ok(page.text.clone())
        };
        self.row(page, lines, text)
    }

    fn row(&self, page: Page, lines: LineCounts, text: Result<String, Removed>) -> Row {
        let bytes = page.text.len() as u64;
        let (removed, text) = match text {
            Ok(text) => (None, text),
            // The text is needed again only for a sample.
            Err(rule) => (Some(rule), if self.options.keep_removed > 0 { page.text } else { String::new() }),
        };
        Row { url: page.url, timestamp: page.timestamp, bytes, removed, lines, text }
    }

    /// What of a page is kept when others are known: `gone` has the numbers of what is elsewhere, too.
    fn finish(&self, row: &Row, gone: &BTreeSet<u32>) -> Result<String, Removed> {
        if gone.contains(&WHOLE) {
            return Err(Removed::SameAddress);
        }
        if let Some(rule) = row.removed {
            return Err(rule);
        }
        let text = without(&row.text, self.options.repeats, gone).ok_or(Removed::Repeated)?;
        if self.language.as_ref().is_some_and(|language| !language.is_of(&text)) {
            return Err(Removed::OtherLanguage);
        }
        if self.bad_words.as_ref().is_some_and(|bad| bad.in_page(&text)) {
            return Err(Removed::BadWord);
        }
        Ok(text)
    }

    /// Whether a page is held out: by its address, so that a corpus made again has it on the same side.
    fn holds_out(&self, url: &str) -> bool {
        let number = hash(&normalise(url)).iter().fold(0, |rest, &byte| (rest << 8 | u32::from(byte)) % 1000);
        number < self.options.validation_per_thousand
    }
}

/// Makes a corpus, or goes on with one. Gives the counts, and whether it was done before.
///
/// # Errors
/// Where a file cannot be read or written, or is not what its name says.
pub fn run(options: &Options, progress: &Progress) -> Result<(Report, bool)> {
    let job = Job::open(options)?;
    if let Some(report) = job.done()? {
        return Ok((report, true));
    }
    // No other process writes the same corpus.
    let taken = "expected a corpus that no other process makes at this moment, found one at work";
    let _alone = open_alone(&job.work.join("lock"), taken)?;
    job.pages(progress)?;
    job.gone()?;
    let report = job.texts(progress)?;
    job.shards(progress)?;
    job.write_samples()?;
    let done = Done { made_of: job.made_of.clone(), vocabulary: job.fingerprint(), report };
    write_json(&job.options.output.join("report.json"), &done)?;
    fs::remove_dir_all(&job.work).map_err(Error::io(&job.work))?;
    Ok((done.report, false))
}

/// A corpus that is being made.
struct Job {
    options: Options,
    rules: Rules,
    vocabulary: Option<Vocabulary>,
    work: PathBuf,
    /// The files, each with a name of its contents' place, size and time and of the rules.
    parts: Vec<(PathBuf, String)>,
    /// A hash of all parts' names.
    made_of: String,
}

impl Job {
    fn open(options: &Options) -> Result<Job> {
        let rules = Rules::new(options)?;
        let vocabulary =
            (!options.vocabulary.as_os_str().is_empty()).then(|| Vocabulary::read(&options.vocabulary)).transpose()?;
        // What decides about a part's pages: the options but for those that do not, and the lists' contents.
        let decisive = Options {
            input: Vec::new(),
            output: PathBuf::new(),
            vocabulary: PathBuf::new(),
            threads: 0,
            ..options.clone()
        };
        let mut of_rules = Sha256::new();
        of_rules.update(serde_json::to_string(&decisive).unwrap_or_default());
        for list in [&options.sites, &options.addresses, &options.bad_words] {
            if !list.as_os_str().is_empty() {
                of_rules.update(fs::read(crate::source::find(list)?).map_err(Error::io(list))?);
            }
        }
        let mut parts = Vec::new();
        let mut made_of = of_rules.clone();
        for path in files(&options.input)? {
            let metadata = fs::metadata(&path).map_err(Error::io(&path))?;
            let mut name = of_rules.clone();
            name.update(format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().ok()));
            let name = hex(&name.finalize()[..8]);
            made_of.update(&name);
            let number = parts.len();
            parts.push((path, format!("{number:05}-{name}")));
        }
        if parts.len() >= u32::MAX as usize {
            return Err(Error::Invalid("input: expected fewer files".into()));
        }
        let work = options.output.join("work");
        let made_of = hex(&made_of.finalize()[..16]);
        Ok(Job { options: options.clone(), rules, vocabulary, work, parts, made_of })
    }

    fn fingerprint(&self) -> String {
        self.vocabulary.as_ref().map_or(String::new(), Vocabulary::fingerprint)
    }

    /// The counts of a corpus that was made of the same.
    fn done(&self) -> Result<Option<Report>> {
        let done: Option<Done> = read_json(&self.options.output.join("report.json"))?;
        let same = |done: &Done| done.made_of == self.made_of && done.vocabulary == self.fingerprint();
        if let Some(done) = done.filter(same) {
            // A process that was killed at its very end leaves it.
            if self.work.exists() {
                fs::remove_dir_all(&self.work).map_err(Error::io(&self.work))?;
            }
            return Ok(Some(done.report));
        }
        create_folder(&self.work)?;
        Ok(None)
    }

    fn part_of_pages(&self, part: usize) -> PathBuf {
        self.work.join("pages").join(format!("{}.jsonl", self.parts[part].1))
    }

    /// Reads and cleans every part.
    fn pages(&self, progress: &Progress) -> Result<()> {
        create_folder(&self.work.join("pages"))?;
        (0..self.parts.len()).into_par_iter().try_for_each(|part| {
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
            Ok(out.into_inner().map_err(|error| Error::io(&target)(error.into_error()))?.commit()?)
        })
    }

    fn gone_folder(&self) -> PathBuf {
        self.work.join(format!("gone-{}", &self.made_of[..16]))
    }

    /// Finds what is elsewhere, too, over all parts.
    fn gone(&self) -> Result<()> {
        let target = self.gone_folder();
        if target.exists() {
            return Ok(());
        }
        let partial = self.work.join("gone.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io(&partial))?;
        }
        create_folder(&partial.join("addresses"))?;
        create_folder(&partial.join("repeats"))?;
        if self.options.one_of_an_address {
            let buckets = Buckets::create(partial.join("buckets"))?;
            self.each_row(|part, number, row| {
                // What no page could be made of has no address.
                if matches!(
                    row.removed,
                    Some(Removed::NotText | Removed::Empty | Removed::TooLong | Removed::NotListed)
                ) {
                    return Ok(());
                }
                // The newest has the smallest place: its time's digits are turned round. Of one time the first stays.
                let mut place = [0xFF; PLACE];
                place.iter_mut().zip(row.timestamp.bytes().take(PLACE)).for_each(|(place, byte)| *place = !byte);
                buckets.push(&Entry { hash: hash(&normalise(&row.url)), place, part, row: number, at: WHOLE })
            })?;
            buckets.remove_all_but_one(&partial.join("addresses"))?;
        }
        if self.options.repeats != Unit::None {
            let buckets = Buckets::create(partial.join("buckets"))?;
            let out: Vec<BTreeSet<u32>> = (0..self.parts.len() as u32)
                .map(|part| Ok(removed(&partial.join("addresses"), part)?.into_iter().map(|(row, _)| row).collect()))
                .collect::<Result<_>>()?;
            self.each_row(|part, number, row| {
                if row.removed.is_some() || out[part as usize].contains(&number) {
                    return Ok(());
                }
                let page = hash(&normalise(&row.url));
                for (at, hash) in (0..).zip(hashes(&row.text, self.options.repeats)) {
                    let mut place = [0; PLACE];
                    let begin = repeats::place(&page, at);
                    place[..begin.len()].copy_from_slice(&begin);
                    buckets.push(&Entry { hash, place, part, row: number, at })?;
                }
                Ok(())
            })?;
            buckets.remove_all_but_one(&partial.join("repeats"))?;
        }
        fs::rename(&partial, &target).map_err(Error::io(&target))
    }

    /// Calls `f` with part, number and row of every page, on all threads.
    fn each_row(&self, f: impl Fn(u32, u32, &Row) -> Result<()> + Sync) -> Result<()> {
        (0..self.parts.len()).into_par_iter().try_for_each(|part| {
            rows(&self.part_of_pages(part), |first, batch| {
                let batch: Vec<(u32, &Row)> = (first..).zip(batch).collect();
                batch.into_par_iter().try_for_each(|(number, row)| f(part as u32, number, row))
            })
        })
    }

    /// Writes what is kept, and adds up the counts.
    fn texts(&self, progress: &Progress) -> Result<Report> {
        create_folder(&self.text_marks())?;
        for split in SPLITS {
            create_folder(&self.options.output.join(split))?;
        }
        let reports: Result<Vec<Report>> = (0..self.parts.len())
            .into_par_iter()
            .map(|part| {
                let mark = self.text_mark(part);
                if let Some(report) = read_json(&mark)? {
                    return Ok(report);
                }
                let report = self.texts_of(part, progress)?;
                write_json(&mark, &report)?;
                Ok(report)
            })
            .collect();
        let mut sum = Report::default();
        reports?.iter().for_each(|report| sum.add(report));
        if sum.train[0] + sum.validation[0] == 0 {
            let table = sum.table();
            return Err(Error::Invalid(format!(
                "expected pages that the rules keep, found none:\n{}",
                table.trim_end()
            )));
        }
        Ok(sum)
    }

    fn text_marks(&self) -> PathBuf {
        self.work.join(format!("texts-{}", &self.made_of[..16]))
    }

    /// The file that has a part's counts when its texts are written.
    fn text_mark(&self, part: usize) -> PathBuf {
        self.text_marks().join(format!("{part:05}.json"))
    }

    fn text_file(&self, split: usize, part: usize) -> PathBuf {
        self.options.output.join(SPLITS[split]).join(format!("part-{part:05}.jsonl.gz"))
    }

    fn texts_of(&self, part: usize, progress: &Progress) -> Result<Report> {
        let mut gone: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for found in ["addresses", "repeats"] {
            for (row, at) in removed(&self.gone_folder().join(found), part as u32)? {
                gone.entry(row).or_default().insert(at);
            }
        }
        let targets = [0, 1].map(|split| self.text_file(split, part));
        let create = |path: &Path| -> Result<_> {
            let file = BufWriter::with_capacity(1 << 18, OutputFile::create(path)?);
            Ok(GzEncoder::new(file, Compression::new(4)))
        };
        let mut outputs = [create(&targets[0])?, create(&targets[1])?];
        let mut report = Report::default();
        let mut samples = Samples::new(self.options.keep_removed);
        let none = BTreeSet::new();
        rows(&self.part_of_pages(part), |first, batch| {
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
            let file = output.finish().map_err(Error::io(target))?;
            file.into_inner().map_err(|error| Error::io(target)(error.into_error()))?.commit()?;
        }
        samples.write(&self.sample_file(part))?;
        Ok(report)
    }

    fn sample_file(&self, part: usize) -> PathBuf {
        self.work.join(format!("removed-{part:05}.json"))
    }

    /// Puts the parts' samples together.
    fn write_samples(&self) -> Result<()> {
        if self.options.keep_removed == 0 {
            return Ok(());
        }
        let mut samples = Samples::new(self.options.keep_removed);
        for part in 0..self.parts.len() {
            let of_part: Option<Vec<Sample>> = read_json(&self.sample_file(part))?;
            of_part.into_iter().flatten().for_each(|sample| samples.insert(sample));
        }
        let path = self.options.output.join("removed.jsonl");
        let mut text = Vec::new();
        samples.sorted().try_for_each(|sample| write_line(&mut text, sample, &path))?;
        replace(&path, &text)
    }

    /// Makes ids of the texts.
    fn shards(&self, progress: &Progress) -> Result<()> {
        let Some(vocabulary) = &self.vocabulary else { return Ok(()) };
        for (split, name) in SPLITS.iter().enumerate() {
            let folder = self.options.output.join("shards").join(name);
            create_folder(&folder)?;
            // While the files change there is no index of them.
            let index = folder.join(shards::INDEX);
            if index.exists() {
                fs::remove_file(&index).map_err(Error::io(&index))?;
            }
            let kind = &vocabulary.fingerprint()[..16];
            let marks = self.work.join(format!("shards-{name}-{}-{kind}", &self.made_of[..16]));
            create_folder(&marks)?;
            let infos: Result<Vec<ShardInfo>> = (0..self.parts.len())
                .into_par_iter()
                .map(|part| {
                    let mark = marks.join(format!("{part:05}.json"));
                    if let Some(info) = read_json(&mark)? {
                        return Ok(info);
                    }
                    let report: Option<Report> = read_json(&self.text_mark(part))?;
                    let kept = report.map_or(0, |report| [report.train, report.validation][split][0]);
                    let text = (kept > 0).then(|| self.text_file(split, part));
                    let info = tokenise(text.as_deref(), &folder, part, vocabulary, progress)?;
                    write_json(&mark, &info)?;
                    Ok(info)
                })
                .collect();
            Index::new(vocabulary, infos?).write(&folder)?;
        }
        Ok(())
    }
}

/// Makes the shard of one part, of whose text nothing may be kept.
fn tokenise(
    path: Option<&Path>,
    folder: &Path,
    part: usize,
    vocabulary: &Vocabulary,
    progress: &Progress,
) -> Result<ShardInfo> {
    let mut shard = ShardWriter::create(folder, &format!("{part:05}"), vocabulary)?;
    let Some(path) = path else { return shard.finish() };
    let (mut texts, mut bytes) = (Vec::new(), 0);
    let mut write = |texts: &mut Vec<String>, bytes: &mut usize| -> Result<()> {
        progress.add(texts.len(), *bytes);
        *bytes = 0;
        let ids: Vec<Vec<u32>> = texts.par_drain(..).map(|text| vocabulary.encode(&text)).collect();
        ids.iter().try_for_each(|ids| shard.push(ids))
    };
    for_each_record(path, Format::Jsonl, &Columns::default(), |record| {
        let text = record.text("text").unwrap_or_default().into_owned();
        bytes += text.len();
        texts.push(text);
        if texts.len() >= BATCH.0 || bytes >= BATCH.1 { write(&mut texts, &mut bytes) } else { Ok(()) }
    })?;
    write(&mut texts, &mut bytes)?;
    shard.finish()
}

/// Calls `f` with the rows of a part, some at a time, and the first one's number.
fn rows(path: &Path, mut f: impl FnMut(u32, &[Row]) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path))?;
    let (mut batch, mut first, mut bytes) = (Vec::new(), 0u32, 0);
    for (line, number) in BufReader::with_capacity(1 << 20, file).lines().zip(1..) {
        let line = line.map_err(Error::io(path))?;
        bytes += line.len();
        let row = serde_json::from_str(&line)
            .map_err(|error| Error::data(path, number, format!("expected a page of this job: {error}")))?;
        batch.push(row);
        if batch.len() >= BATCH.0 || bytes >= BATCH.1 {
            f(first, &batch)?;
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            let few = || Error::file(path, "expected fewer than 4,294,967,295 pages in a file");
            first = first.checked_add(count).ok_or_else(few)?;
            batch.clear();
            bytes = 0;
        }
    }
    f(first, &batch)
}

/// Of each rule a few pages, those with the smallest hashes of their addresses: whatever order they come in.
struct Samples {
    most: usize,
    kept: BTreeMap<(Removed, repeats::Hash), Sample>,
}

impl Samples {
    fn new(most: usize) -> Samples {
        Samples { most, kept: BTreeMap::new() }
    }

    fn add(&mut self, rule: Removed, row: &Row) {
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

    fn sorted(&self) -> impl Iterator<Item = &Sample> {
        self.kept.values()
    }

    fn write(&self, path: &Path) -> Result<()> {
        if self.most == 0 { Ok(()) } else { write_json(path, &self.sorted().collect::<Vec<_>>()) }
    }
}

fn write_line(out: &mut impl Write, value: &impl Serialize, path: &Path) -> Result<()> {
    let mut line = serde_json::to_vec(value).map_err(|error| Error::file(path, error.to_string()))?;
    line.push(b'\n');
    out.write_all(&line).map_err(Error::io(path))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::file(path, error.to_string()))?;
    replace(path, &text)
}

/// The value in a file; `None` where there is no file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(path).map_err(Error::io(path))?;
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| Error::file(path, format!("expected what t5-train corpus wrote: {error}")))
}
