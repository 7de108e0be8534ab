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
use crate::files::{create_folder, hex, open_alone, read_json, replace, sync_parent, write_json};
use crate::shards::{self, Index, ShardInfo};
use crate::source::Input;
use crate::source::stores::is_address;
use crate::vocabulary::Vocabulary;
use crate::{Error, Result};

/// The division into pages to train on and pages held out, by their folders' names.
pub(super) const SPLITS: [&str; 2] = ["train", "validation"];

/// Besides them: what is between the steps, ids, counts, and samples of what was removed.
const WORK: &str = "work";
const SHARDS: &str = "shards";
const REPORT: &str = "report.json";
const REMOVED: &str = "removed.jsonl";

/// The file in the folder between the steps by which it is known for one.
const LOCK: &str = "lock";

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
    let shards = job.shards(engine, progress)?;
    job.publish(&shards)?;
    job.write_samples()?;
    let done = Done { made_of: job.made_of.clone(), vocabulary: job.fingerprint(), report };
    write_json(&job.report_file(), &done)?;
    job.remove_work()?;
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
        check_places(options)?;
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
        let work = options.output.join(WORK);
        Ok(Job { options: options.clone(), rules, vocabulary, work, parts, made_of })
    }

    /// [`Vocabulary::fingerprint`]; empty without shards.
    pub(super) fn fingerprint(&self) -> String {
        self.vocabulary.as_ref().map_or(String::new(), Vocabulary::fingerprint)
    }

    fn report_file(&self) -> PathBuf {
        self.options.output.join(REPORT)
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
                    Ok(_alone) => self.remove_work()?,
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
        open_alone(&self.work.join(LOCK), taken)
    }

    /// Removes what is between the steps, the lock last: without it the folder would be taken for somebody else's.
    fn remove_work(&self) -> Result<()> {
        for entry in fs::read_dir(&self.work).map_err(Error::io(&self.work))? {
            let path = entry.map_err(Error::io(&self.work))?.path();
            if path.is_dir() {
                remove_folder(&path)?;
            } else if path.file_name().is_some_and(|name| name != LOCK) {
                remove_file(&path)?;
            }
        }
        fs::remove_dir_all(&self.work).map_err(Error::io(&self.work))
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

    /// Writes what is kept, not into its place yet, and adds up the counts.
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
            let what = format!("expected pages that the rules keep, found none of {}", sum.in_words());
            return Err(Error::Invalid(what));
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

    /// The texts of a part: in their place already where a job was killed while it put them there, which may be asked
    /// for shards of another vocabulary then.
    pub(super) fn text_file(&self, split: usize, part: usize) -> PathBuf {
        let file = |folder: &Path| folder.join(SPLITS[split]).join(text_name(part));
        let new = file(&self.new_texts());
        // Other machines may see the new file late, and must not take an earlier corpus's for it.
        if self.begun_to_publish().exists() && !new.exists() { file(&self.options.output) } else { new }
    }

    /// The file that says that some texts may be in their places.
    fn begun_to_publish(&self) -> PathBuf {
        self.new_texts().join("published")
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
        samples.write_lines(&self.options.output.join(REMOVED))
    }

    /// Makes ids of the texts, not in their places yet, and gives the index of each split; none without a vocabulary.
    fn shards(&self, engine: &impl Engine, progress: &Progress) -> Result<Vec<Index>> {
        let Some(vocabulary) = &self.vocabulary else { return Ok(Vec::new()) };
        let of_split = |split: usize| -> Result<Index> {
            create_folder(&self.new_shards(split))?;
            engine.each(self, Step::Shards(split), progress)?;
            let infos: Result<Vec<ShardInfo>> =
                (0..self.parts.len()).map(|part| marked(&self.shard_mark(split, part))).collect();
            Ok(Index::new(vocabulary, infos?))
        };
        (0..SPLITS.len()).map(of_split).collect()
    }

    /// Puts texts and shards in the places of those of a corpus that was here before, of which nothing stays. A job
    /// that is killed meanwhile leaves neither a report nor an index, and goes on.
    fn publish(&self, indices: &[Index]) -> Result<()> {
        let places = SPLITS.map(|split| self.options.output.join(SHARDS).join(split));
        remove_file(&self.report_file())?;
        remove_file(&self.options.output.join(REMOVED))?;
        places.iter().try_for_each(|place| remove_file(&place.join(shards::INDEX)))?;
        // What other jobs have between the steps stands for files in their places, too.
        let mut own = vec![self.new_texts()];
        if !indices.is_empty() {
            own.extend((0..SPLITS.len()).map(|split| self.shard_folder(split)));
        }
        self.remove_folders(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            ["texts-", "shards-"].iter().any(|start| name.starts_with(start)) && !own.iter().any(|own| own == path)
        })?;
        replace(&self.begun_to_publish(), b"")?;
        for split in SPLITS {
            let place = self.options.output.join(split);
            move_files(&self.new_texts().join(split), &place)?;
            remove_further(self.parts.len(), |part| place.join(text_name(part)))?;
        }
        for (split, place) in places.iter().enumerate() {
            let index = indices.get(split);
            if index.is_some() {
                move_files(&self.new_shards(split), place)?;
            }
            for suffix in ["ids", "ends"] {
                let parts = index.map_or(0, |index| index.shards.len());
                remove_further(parts, |part| place.join(format!("{part:05}.{suffix}")))?;
            }
            if let Some(index) = index {
                index.write(place)?;
            }
        }
        Ok(())
    }

    /// Removes folders between the steps.
    fn remove_folders(&self, unwanted: impl Fn(&Path) -> bool) -> Result<()> {
        for entry in fs::read_dir(&self.work).map_err(Error::io(&self.work))? {
            let path = entry.map_err(Error::io(&self.work))?.path();
            if unwanted(&path) {
                remove_folder(&path)?;
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

/// Refuses an output that would be read, input that would be written over, and a folder between the steps that is not a
/// job's, as it is removed at the end.
fn check_places(options: &Options) -> Result<()> {
    let output = options.output.display();
    for path in options.input.iter().filter(|path| !is_address(path)) {
        let input = path.display();
        if lies_in(&options.output, path) {
            let what = format!("output: expected a folder outside the input {input}, which is read, found {output}");
            return Err(Error::Invalid(what));
        }
        let written = SPLITS.into_iter().chain([WORK, SHARDS, REPORT, REMOVED]);
        if let Some(place) = written.map(|name| options.output.join(name)).find(|place| lies_in(path, place)) {
            let place = place.display();
            let what = format!("input: expected files outside {place}, which the job writes, found {input}");
            return Err(Error::Invalid(what));
        }
    }
    let work = options.output.join(WORK);
    if !work.join(LOCK).exists() && fs::read_dir(&work).is_ok_and(|mut entries| entries.next().is_some()) {
        let what = "expected a folder that a job left, which goes at the end, found other files; name another output";
        return Err(Error::file(work, what));
    }
    Ok(())
}

/// Whether a path, which need not exist yet, lies in a folder or is it.
fn lies_in(path: &Path, folder: &Path) -> bool {
    // An empty path is the current folder.
    let (Ok(folder), Ok(path)) = (folder.canonicalize(), std::path::absolute(Path::new(".").join(path))) else {
        return false;
    };
    let there = path.ancestors().find_map(|parent| parent.canonicalize().ok());
    there.is_some_and(|parent| parent.starts_with(&folder))
}

pub(super) fn text_name(part: usize) -> String {
    format!("part-{part:05}.jsonl.gz")
}

/// The value of a mark that has to be there.
pub(super) fn marked<T: DeserializeOwned>(mark: &Path) -> Result<T> {
    read_json(mark)?.ok_or_else(|| Error::file(mark, "expected what a step of this job left, found nothing"))
}

/// Puts the files of a new folder in their places.
fn move_files(new: &Path, place: &Path) -> Result<()> {
    create_folder(place)?;
    let entries = fs::read_dir(new).map_err(Error::io(new))?;
    let mut files = entries.map(|entry| Ok(entry.map_err(Error::io(new))?.path())).collect::<Result<Vec<_>>>()?;
    // In order, so that the numbers in place begin at 0 and have no gap, wherever this ends: see `remove_further`.
    files.sort_by_cached_key(|file| (file.as_os_str().len(), file.clone()));
    for from in files {
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

/// Removes the files of parts from a number on, which a corpus of more of them left, the last first: where that is
/// interrupted, those that stay are found again.
fn remove_further(from: usize, file: impl Fn(usize) -> PathBuf) -> Result<()> {
    let further: Vec<PathBuf> = (from..).map(file).take_while(|file| file.exists()).collect();
    further.iter().rev().try_for_each(|file| remove_file(file))
}

/// Removes a folder of a job that may be killed meanwhile: first its name goes, as its marks may outlive what they
/// stand for.
fn remove_folder(path: &Path) -> Result<()> {
    let removed = path.with_extension("partial");
    let remove = || match fs::remove_dir_all(&removed) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&removed)(error)),
        _ => Ok(()),
    };
    remove()?;
    if removed == path {
        return Ok(());
    }
    fs::rename(path, &removed).map_err(Error::io(path))?;
    remove()
}

/// Removes a file that may be there.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The threads of this process, until shards are to be made.
    struct WithoutShards;

    impl Engine for WithoutShards {
        fn each(&self, job: &Job, step: Step, progress: &Progress) -> Result<()> {
            match step {
                Step::Shards(_) => Err(Error::Invalid("no shards".into())),
                _ => Threads.each(job, step, progress),
            }
        }

        fn repeated(&self, job: &Job, repeat: Repeat, gone: &Path) -> Result<()> {
            Threads.repeated(job, repeat, gone)
        }
    }

    fn options(folder: &Path, more: &str, keep_removed: usize) -> Options {
        let folder = folder.display();
        let text = format!("input = [\"{folder}/pages\"]\noutput = \"{folder}/corpus\"\nvariant = \"text\"\n{more}");
        Options::parse("c.toml", &text, &[], keep_removed).unwrap()
    }

    fn write_pages(folder: &Path, texts: &[&str]) {
        let pages = folder.join("pages");
        let _ = fs::remove_dir_all(&pages);
        fs::create_dir(&pages).unwrap();
        for (i, text) in texts.iter().enumerate() {
            fs::write(pages.join(format!("{i}.jsonl")), format!("{{\"text\": \"{text}\"}}\n")).unwrap();
        }
    }

    #[test]
    fn texts_and_shards_change_together() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), "vocabulary = \"bytes\"", 0);
        let names = ["train/part-00000.jsonl.gz", "shards/train/00000.ids", "shards/train/index.json", REPORT];
        let contents = || names.map(|name| fs::read(options.output.join(name)).unwrap());
        write_pages(dir.path(), &["One page.", "Another."]);
        run(&options, &Progress::default()).unwrap();
        let before = contents();
        write_pages(dir.path(), &["A page that is longer."]);
        let failed = run_on(&WithoutShards, &options, &Progress::default()).unwrap_err();
        assert_eq!(failed.to_string(), "no shards");
        assert!(contents() == before, "another corpus");
        run(&options, &Progress::default()).unwrap();
        assert!(contents().iter().zip(&before).all(|(now, then)| now != then), "the same corpus");
    }

    #[test]
    fn texts_that_are_in_their_places_become_shards_of_another_vocabulary() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path(), &["One page.", "Another."]);
        // As far as a job comes that is killed when its texts are in their places.
        let progress = Progress::default();
        let job = Job::open(&options(dir.path(), "", 0)).unwrap();
        assert!(job.done().unwrap().is_none());
        drop(job.alone().unwrap());
        create_folder(&job.work.join("pages")).unwrap();
        Threads.each(&job, Step::Pages, &progress).unwrap();
        job.gone(&Threads).unwrap();
        job.texts(&Threads, &progress).unwrap();
        job.publish(&[]).unwrap();
        let (report, before) = run(&options(dir.path(), "vocabulary = \"bytes\"", 0), &progress).unwrap();
        assert!(!before && report.train[0] == 2);
        let index: Option<Index> = read_json(&dir.path().join("corpus/shards/train/index.json")).unwrap();
        assert_eq!(index.unwrap().documents, 2);
    }

    #[test]
    fn nothing_stays_of_a_larger_corpus() {
        let dir = tempfile::tempdir().unwrap();
        let there = |name: &str| dir.path().join("corpus").join(name).exists();
        let larger = options(dir.path(), "vocabulary = \"bytes\"\nmax_characters = 10", 1);
        write_pages(dir.path(), &["One page.", "It is too long.", "Another."]);
        run(&larger, &Progress::default()).unwrap();
        let names = ["train/part-00002.jsonl.gz", "shards/train/00001.ids", "shards/validation/00002.ends", REMOVED];
        assert!(names.iter().all(|name| there(name)));
        write_pages(dir.path(), &["One page."]);
        let smaller = Options { keep_removed: 0, ..larger };
        run(&smaller, &Progress::default()).unwrap();
        assert!(!names.iter().any(|name| there(name)) && there("shards/train/00000.ids"));
        write_pages(dir.path(), &["A page."]);
        run(&Options { vocabulary: PathBuf::new(), ..smaller }, &Progress::default()).unwrap();
        assert!(there("train/part-00000.jsonl.gz") && !there("shards/train/00000.ids"));
    }
}
