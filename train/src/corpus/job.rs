//! From files to a corpus: each file is a part, and each of its results appears under its name at once, so that what
//! is finished when a job is killed need not be done again.
//!
//! 1. Every part is read and cleaned (`work/pages`).
//! 2. Over all parts, pages of one address and repeated lines or spans are found (`work/gone`).
//! 3. Every part is written: without what was found, without other languages, divided into `train` and `validation`.
//! 4. Every part's texts become ids (`shards`).
//!
//! What is done to a part stands in `steps`, and who does it is an `Engine`. Texts and shards are put in their places
//! when all of them are there: until then the folder keeps the corpus that it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::engine::{Engine, Repeat, Step, Threads};
use super::options::Options;
use super::read::files;
use super::repeated::complete;
use super::repeats::Unit;
use super::report::Report;
use super::rules::{Rules, decisive};
use super::samples::Samples;
use crate::files::{create_folder, hex, open_alone, read_json, sync_parent, write_json};
use crate::shards::{self, Index, ShardInfo};
use crate::source::Input;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// The division into pages to train on and pages held out, by their folders' names.
pub(super) const SPLITS: [&str; 2] = ["train", "validation"];

/// What a job has done so far, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Pages read, written and tokenised, and the bytes of their texts.
    pub pages: AtomicU64,
    pub bytes: AtomicU64,
}

impl Progress {
    pub(super) fn add(&self, pages: usize, bytes: usize) {
        self.pages.fetch_add(pages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
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

/// Makes a corpus, or goes on with one. Gives the counts, and whether it was done before.
///
/// # Errors
/// Where a file cannot be read or written, or is not what its name says.
pub fn run(options: &Options, progress: &Progress) -> Result<(Report, bool)> {
    run_on(&Threads, options, progress)
}

pub(super) fn run_on(engine: &impl Engine, options: &Options, progress: &Progress) -> Result<(Report, bool)> {
    let job = Job::open(options)?;
    if let Some(report) = job.done()? {
        return Ok((report, true));
    }
    // No other process writes the same corpus.
    let _alone = job.alone()?;
    create_folder(&job.work.join("pages"))?;
    engine.each(&job, Step::Pages, progress)?;
    job.gone(engine)?;
    let report = job.texts(engine, progress)?;
    job.shards(engine, progress)?;
    job.write_samples()?;
    let done = Done { made_of: job.made_of.clone(), vocabulary: job.fingerprint(), report };
    write_json(&job.report_file(), &done)?;
    fs::remove_dir_all(&job.work).map_err(Error::io(&job.work))?;
    Ok((done.report, false))
}

/// A corpus that is being made.
pub(super) struct Job {
    pub(super) options: Options,
    pub(super) rules: Rules,
    pub(super) vocabulary: Option<Vocabulary>,
    /// The folder of what is between the steps.
    pub(super) work: PathBuf,
    /// The files, each with a name of its contents' place, size and time and of the rules.
    pub(super) parts: Vec<(PathBuf, String)>,
    /// A hash of all parts' names.
    pub(super) made_of: String,
}

impl Job {
    fn open(options: &Options) -> Result<Job> {
        if let Some(folder) = options.input.iter().find(|folder| lies_in(&options.output, folder)) {
            let (folder, output) = (folder.display(), options.output.display());
            let what = format!("output: expected a folder outside the input {folder}, which is read, found {output}");
            return Err(Error::Invalid(what));
        }
        let of_rules = decisive(options)?;
        let mut parts = Vec::new();
        let mut made_of = of_rules.clone();
        for Input { path, size, version } in files(&options.input)? {
            let mut name = of_rules.clone();
            name.update(format!("{} {size} {version}", path.display()));
            let name = hex(&name.finalize()[..8]);
            made_of.update(&name);
            let number = parts.len();
            parts.push((path, format!("{number:05}-{name}")));
        }
        if parts.len() >= u32::MAX as usize {
            return Err(Error::Invalid("input: expected fewer files".into()));
        }
        Job::of(options, parts, hex(&made_of.finalize()[..16]))
    }

    /// The job of parts that are known.
    pub(super) fn of(options: &Options, parts: Vec<(PathBuf, String)>, made_of: String) -> Result<Job> {
        let rules = Rules::new(options)?;
        let vocabulary =
            (!options.vocabulary.as_os_str().is_empty()).then(|| Vocabulary::read(&options.vocabulary)).transpose()?;
        let work = options.output.join("work");
        Ok(Job { options: options.clone(), rules, vocabulary, work, parts, made_of })
    }

    /// [`Vocabulary::fingerprint`]; empty without shards.
    pub(super) fn fingerprint(&self) -> String {
        self.vocabulary.as_ref().map_or(String::new(), Vocabulary::fingerprint)
    }

    fn report_file(&self) -> PathBuf {
        self.options.output.join("report.json")
    }

    /// The counts of a corpus that was made of the same.
    fn done(&self) -> Result<Option<Report>> {
        let done: Option<Done> = read_json(&self.report_file())?;
        // Shards of the same texts may stay where none are asked for.
        let same = |done: &Done| {
            done.made_of == self.made_of && (self.vocabulary.is_none() || done.vocabulary == self.fingerprint())
        };
        if let Some(done) = done.filter(same) {
            // A process that was killed at its very end leaves it; another may just be making a corpus by other rules.
            if self.work.exists() {
                match self.alone() {
                    Ok(_alone) => fs::remove_dir_all(&self.work).map_err(Error::io(&self.work))?,
                    Err(Error::File { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(Some(done.report));
        }
        create_folder(&self.work)?;
        Ok(None)
    }

    /// The right to write between the steps, for this process alone. [`Error::File`]: another has it.
    fn alone(&self) -> Result<fs::File> {
        let taken = "expected a corpus that no other process makes at this moment, found one at work";
        open_alone(&self.work.join("lock"), taken)
    }

    pub(super) fn gone_folder(&self) -> PathBuf {
        self.work.join(format!("gone-{}", &self.made_of[..16]))
    }

    /// Finds what is elsewhere, too, over all parts.
    fn gone(&self, engine: &impl Engine) -> Result<()> {
        let target = self.gone_folder();
        if target.exists() {
            return Ok(());
        }
        self.remove_folders(|path| path.extension().is_some_and(|suffix| suffix == "partial") && path.is_dir())?;
        // A name of its own: workers of a job that was killed may still write.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let partial = self.work.join(format!("gone-{}-{}.partial", std::process::id(), now.as_nanos()));
        for repeat in Repeat::ALL {
            let folder = partial.join(repeat.folder());
            create_folder(&folder)?;
            if match repeat {
                Repeat::Addresses => self.options.one_of_an_address,
                Repeat::Units => self.options.repeats != Unit::None,
            } {
                engine.repeated(self, repeat, &partial)?;
            }
            complete(&folder, self.parts.len() as u32)?;
        }
        fs::rename(&partial, &target).map_err(Error::io(&target))
    }

    /// Writes what is kept, and adds up the counts.
    fn texts(&self, engine: &impl Engine, progress: &Progress) -> Result<Report> {
        for split in SPLITS {
            create_folder(&self.new_texts().join(split))?;
        }
        engine.each(self, Step::Texts, progress)?;
        let mut sum = Report::default();
        (0..self.parts.len()).try_for_each(|part| -> Result<()> {
            sum.add(&marked(&self.text_mark(part))?);
            Ok(())
        })?;
        if sum.train[0] + sum.validation[0] == 0 {
            let table = sum.table();
            return Err(Error::Invalid(format!(
                "expected pages that the rules keep, found none:\n{}",
                table.trim_end()
            )));
        }
        // From here on the corpus is no longer the one of the last report.
        remove_file(&self.report_file())?;
        self.forget_others("texts-", &self.new_texts())?;
        for split in SPLITS {
            let folder = self.options.output.join(split);
            publish(&self.new_texts().join(split), &folder)?;
            // Nor does a corpus of more files leave some of its own.
            let further = (self.parts.len()..).map(|part| folder.join(text_name(part)));
            further.take_while(|file| file.exists()).try_for_each(|file| remove_file(&file))?;
        }
        Ok(sum)
    }

    pub(super) fn part_of_pages(&self, part: usize) -> PathBuf {
        self.work.join("pages").join(format!("{}.jsonl", self.parts[part].1))
    }

    /// The folder of texts that are not in their place yet, for another job may have made the corpus that is there.
    pub(super) fn new_texts(&self) -> PathBuf {
        self.work.join(format!("texts-{}", &self.made_of[..16]))
    }

    /// The file that has a part's counts when its texts are written.
    pub(super) fn text_mark(&self, part: usize) -> PathBuf {
        self.new_texts().join(format!("{part:05}.json"))
    }

    pub(super) fn sample_file(&self, part: usize) -> PathBuf {
        self.new_texts().join(format!("removed-{part:05}.json"))
    }

    /// Puts the parts' samples together.
    fn write_samples(&self) -> Result<()> {
        let mut samples = Samples::new(self.options.keep_removed);
        (0..self.parts.len()).try_for_each(|part| samples.read(&self.sample_file(part)))?;
        samples.write_lines(&self.options.output.join("removed.jsonl"))
    }

    /// Makes ids of the texts.
    fn shards(&self, engine: &impl Engine, progress: &Progress) -> Result<()> {
        let places = SPLITS.map(|name| self.options.output.join("shards").join(name));
        let Some(vocabulary) = &self.vocabulary else {
            // Those of a corpus that was here before are not of these texts.
            return places.iter().try_for_each(|folder| remove_file(&folder.join(shards::INDEX)));
        };
        for (split, (name, folder)) in SPLITS.iter().zip(&places).enumerate() {
            create_folder(&self.new_shards(split))?;
            engine.each(self, Step::Shards(split), progress)?;
            let infos: Result<Vec<ShardInfo>> =
                (0..self.parts.len()).map(|part| marked(&self.shard_mark(split, part))).collect();
            // While the files change there is no index of them.
            remove_file(&folder.join(shards::INDEX))?;
            self.forget_others(&format!("shards-{name}-"), &self.shard_folder(split))?;
            publish(&self.new_shards(split), folder)?;
            Index::new(vocabulary, infos?).write(folder)?;
        }
        Ok(())
    }

    /// Removes what other jobs have between the steps, whose files in their places are about to be replaced.
    fn forget_others(&self, start: &str, own: &Path) -> Result<()> {
        let is_other = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(start) && path != own
        };
        self.remove_folders(is_other)
    }

    /// Removes folders between the steps.
    fn remove_folders(&self, unwanted: impl Fn(&Path) -> bool) -> Result<()> {
        for entry in fs::read_dir(&self.work).map_err(Error::io(&self.work))? {
            let path = entry.map_err(Error::io(&self.work))?.path();
            if unwanted(&path) {
                fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }

    fn shard_folder(&self, split: usize) -> PathBuf {
        let kind = self.fingerprint();
        self.work.join(format!("shards-{}-{}-{}", SPLITS[split], &self.made_of[..16], &kind[..16]))
    }

    pub(super) fn new_shards(&self, split: usize) -> PathBuf {
        self.shard_folder(split).join("new")
    }

    pub(super) fn shard_mark(&self, split: usize, part: usize) -> PathBuf {
        self.shard_folder(split).join(format!("{part:05}.json"))
    }
}

/// Whether a path, which need not exist yet, lies in a folder or is it.
fn lies_in(path: &Path, folder: &Path) -> bool {
    // An empty path is the current folder.
    let (Ok(folder), Ok(path)) = (folder.canonicalize(), std::path::absolute(Path::new(".").join(path))) else {
        return false;
    };
    let there = path.ancestors().find_map(|parent| parent.canonicalize().ok());
    folder.is_dir() && there.is_some_and(|parent| parent.starts_with(&folder))
}

pub(super) fn text_name(part: usize) -> String {
    format!("part-{part:05}.jsonl.gz")
}

/// The value of a mark that has to be there.
pub(super) fn marked<T: DeserializeOwned>(mark: &Path) -> Result<T> {
    read_json(mark)?.ok_or_else(|| Error::file(mark, "expected what a step of this job left, found nothing"))
}

/// Puts the files of a new folder in their places.
fn publish(new: &Path, place: &Path) -> Result<()> {
    create_folder(place)?;
    for entry in fs::read_dir(new).map_err(Error::io(new))? {
        let from = entry.map_err(Error::io(new))?.path();
        // What a killed process began.
        if from.extension().is_some_and(|suffix| suffix == "partial") {
            continue;
        }
        if let Some(name) = from.file_name() {
            let to = place.join(name);
            fs::rename(&from, &to).map_err(Error::io(&to))?;
        }
    }
    sync_parent(&place.join("."))
}

/// Removes a file that may be there.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}
