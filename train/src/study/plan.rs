//! From a study to its jobs: every training run of every arm and seed, with its whole configuration, each once however
//! many arms need it. A job's name has a hash of all that decides its result, so that a changed knob is another job and
//! what is on the disk under a name is its result.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::file::{Arm, Column, Columns, Stage, StudyFile, overlay};
use super::run::done;
use crate::config::{Config, given};
use crate::metrics::Metric;
use crate::random::hash_bytes;
use crate::source::{self, Format};
use crate::tasks::TaskConfig;
use crate::{Error, Result};

/// Seeds of an ensemble's members are so far apart.
const MEMBERS_APART: u64 = 1000;

/// What is asked of a study.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub file: PathBuf,
    pub scale: String,
    /// The folder for all that is made.
    pub output: PathBuf,
    /// These arms alone; none: all.
    pub arms: Vec<String>,
    /// These columns alone; none: all.
    pub columns: Vec<String>,
    /// Knobs of every run that are changed, as KEY=VALUE.
    pub sets: Vec<String>,
}

/// A piece of work that has a folder of its own.
pub struct Job {
    /// Of its folder.
    pub name: String,
    /// For people.
    pub title: String,
    pub kind: Kind,
    /// Jobs that must be done before it.
    pub after: Vec<usize>,
    pub config: Config,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Trains a vocabulary on the texts of the configuration's tasks.
    Vocabulary,
    /// Trains a model; from the last checkpoint of another job where one is named.
    Train { from: Option<usize> },
    /// Judges the best checkpoints of other jobs as one.
    Ensemble { members: Vec<usize> },
}

/// An arm with its jobs.
pub struct ArmPlan {
    pub arm: Arm,
    /// One for each seed; none where it is left out.
    pub seeds: Vec<SeedPlan>,
    /// Why it is not run: lines.
    pub left_out: Option<Vec<String>>,
}

/// An arm with one seed.
#[derive(Clone)]
pub struct SeedPlan {
    /// By stage and, where it has one, column: for curves and configurations.
    pub stages: Vec<(String, Option<usize>, usize)>,
    /// The job that has each column's scores.
    pub columns: BTreeMap<usize, usize>,
}

/// A study that is ready to be run.
pub struct Plan {
    pub study: StudyFile,
    pub request: Request,
    pub arms: Vec<ArmPlan>,
    pub jobs: Vec<Job>,
}

impl Plan {
    /// Reads a study and finds out what is to be done.
    ///
    /// # Errors
    /// Where the file or a knob is wrong, an arm or a column is unknown or cannot be run though it is asked for, or no
    /// arm can be run.
    pub fn new(request: &Request) -> Result<Plan> {
        for (section, key) in [("run", "seed"), ("run", "output")] {
            if let Some(set) = request.sets.iter().find(|set| given(set, section, key).is_some()) {
                let what =
                    format!("expected another knob than {section}.{key}, which each run has its own of, found {set}");
                return Err(Error::Option { option: "set", what });
            }
        }
        let mut study = StudyFile::load(&request.file, &request.scale)?;
        let unknown = |option: &'static str, asked: &[String], known: Vec<&String>| {
            let found = asked.iter().find(|name| !known.contains(name))?;
            let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
            Some(Error::Option { option, what: format!("expected one of {}, found {found}", known.join(", ")) })
        };
        let arms = study.arms.iter().map(|arm| &arm.name).collect();
        let columns = study.columns.iter().map(|column| &column.name).collect();
        if let Some(error) =
            unknown("arm", &request.arms, arms).or_else(|| unknown("columns", &request.columns, columns))
        {
            return Err(error);
        }
        for column in &mut study.columns {
            if !request.columns.is_empty() && !request.columns.contains(&column.name) {
                "not asked for".clone_into(&mut column.left_out);
            }
        }
        let mut planner = Planner {
            study: &study,
            file: request.file.display().to_string(),
            request,
            jobs: Vec::new(),
            by_name: HashMap::new(),
            configs: HashMap::new(),
            missing: Vec::new(),
        };
        let mut arms = Vec::new();
        for arm in &study.arms {
            let planned = if arm.needs.is_empty() {
                study.seeds.iter().map(|&seed| planner.arm(arm, seed)).collect::<Result<Result<Vec<_>, _>>>()?
            } else {
                Err(vec![format!("it needs {}, which are not there yet", arm.needs)])
            };
            let asked = request.arms.contains(&arm.name);
            arms.push(match planned {
                Ok(seeds) => ArmPlan { arm: arm.clone(), seeds, left_out: None },
                Err(why) if asked => return Err(Error::LeftOut { what: format!("arm {}", arm.name), why }),
                Err(why) => ArmPlan { arm: arm.clone(), seeds: Vec::new(), left_out: Some(why) },
            });
        }
        let jobs = planner.jobs;
        if arms.iter().all(|arm| arm.left_out.is_some()) {
            // Arms have tasks in common.
            let mut why: Vec<String> = Vec::new();
            for line in arms.into_iter().filter_map(|arm| arm.left_out).flatten() {
                if !why.contains(&line) {
                    why.push(line);
                }
            }
            return Err(Error::LeftOut { what: "no arm can be run".to_owned(), why });
        }
        Ok(Plan { study, request: request.clone(), arms, jobs })
    }

    /// Where a job's files are.
    pub fn folder(&self, job: usize) -> PathBuf {
        self.request.output.join("runs").join(&self.jobs[job].name)
    }

    /// The jobs that are to be done, those before others first: all of the arms that are asked for.
    pub fn wanted(&self) -> Vec<usize> {
        let asked = |arm: &&ArmPlan| self.request.arms.is_empty() || self.request.arms.contains(&arm.arm.name);
        self.jobs_of(self.arms.iter().filter(asked))
    }

    /// The training runs of an arm with all its seeds, also those that others share and those of an ensemble's members.
    pub fn runs(&self, arm: &ArmPlan) -> Vec<usize> {
        let mut runs = self.jobs_of([arm]);
        runs.retain(|&job| matches!(self.jobs[job].kind, Kind::Train { .. }));
        runs
    }

    /// The jobs that arms' scores come from, those before others first.
    fn jobs_of<'a>(&self, arms: impl IntoIterator<Item = &'a ArmPlan>) -> Vec<usize> {
        let mut jobs: Vec<usize> = Vec::new();
        let seeds = arms.into_iter().flat_map(|arm| &arm.seeds);
        let mut open: Vec<usize> = seeds.flat_map(|seed| seed.columns.values().copied()).collect();
        while let Some(job) = open.pop() {
            if !jobs.contains(&job) {
                jobs.push(job);
                open.extend(&self.jobs[job].after);
            }
        }
        // A job is made after those that it needs.
        jobs.sort_unstable();
        jobs
    }

    /// The job whose vocabulary a training run has; `None` where its configuration names one.
    pub(super) fn vocabulary_of(&self, job: &Job) -> Option<usize> {
        job.after.iter().copied().find(|&before| self.jobs[before].kind == Kind::Vocabulary)
    }

    /// Whether a job is done.
    pub fn is_done(&self, job: usize) -> bool {
        done(&self.folder(job)).is_some()
    }

    /// The columns that are measured.
    pub fn measured(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.study.columns.iter().enumerate().filter(|(_, column)| column.left_out.is_empty())
    }
}

struct Planner<'a> {
    study: &'a StudyFile,
    file: String,
    request: &'a Request,
    jobs: Vec<Job>,
    by_name: HashMap<String, usize>,
    /// Configurations by their texts: seeds have the same.
    configs: HashMap<String, Config>,
    /// What data sets of the arm at hand are not there, a line each.
    missing: Vec<String>,
}

/// A run before it has a name.
struct Run<'a> {
    stage: &'a Stage,
    column: Option<usize>,
    seed: u64,
    from: Option<usize>,
    /// The knobs of the arm's vocabulary: those of its first stage.
    vocabulary: Option<&'a Value>,
}

impl Planner<'_> {
    /// The jobs of an arm with a seed, or why it cannot be run.
    fn arm(&mut self, arm: &Arm, seed: u64) -> Result<Result<SeedPlan, Vec<String>>> {
        let stages = self.study.stages_of(&self.file, arm)?;
        let key = format!("arms.{}", arm.name);
        let Some(last) = stages.last() else {
            return Err(Error::config(&self.file, key, "expected one stage or more, found none"));
        };
        if matches!(last.columns, Columns::None | Columns::Others) {
            let what = format!("{}: expected a last stage that learns the columns' own tasks", last.name);
            return Err(Error::config(&self.file, key, what));
        }
        let before = self.jobs.len();
        let planned = self.with_members(arm, &stages, seed)?;
        let missing = std::mem::take(&mut self.missing);
        if missing.is_empty() {
            return Ok(Ok(planned));
        }
        self.jobs.truncate(before);
        self.by_name.retain(|_, job| *job < before);
        Ok(Err(missing))
    }

    /// The stages of an arm with a seed: once, or for each member of an ensemble.
    fn with_members(&mut self, arm: &Arm, stages: &[Stage], seed: u64) -> Result<SeedPlan> {
        let Some(ensemble) = &arm.ensemble else {
            return self.chain(stages, |_| seed);
        };
        let from = stages.iter().position(|stage| stage.name == ensemble.from).unwrap_or(0);
        let member = |member: u64| move |stage: usize| seed + if stage >= from { MEMBERS_APART * member } else { 0 };
        let mut members = (0..ensemble.members).map(|m| self.chain(stages, member(m))).collect::<Result<Vec<_>>>()?;
        let mut plan = members[0].clone();
        for (column, job) in &mut plan.columns {
            *job = self.ensemble(members.iter_mut().map(|member| member.columns[column]).collect(), *column);
        }
        Ok(plan)
    }

    /// The stages one after the other, each with its seed.
    fn chain(&mut self, stages: &[Stage], seed: impl Fn(usize) -> u64) -> Result<SeedPlan> {
        let columns: Vec<usize> = (0..self.study.columns.len()).filter(|&column| self.is_measured(column)).collect();
        // The job that each column's next stage goes on from.
        let mut before: BTreeMap<usize, Option<usize>> = columns.iter().map(|&column| (column, None)).collect();
        let mut plan = SeedPlan { stages: Vec::new(), columns: BTreeMap::new() };
        let mut parted = false;
        let vocabulary = stages.first().and_then(|stage| stage.config.get("vocabulary"));
        for (index, stage) in stages.iter().enumerate() {
            parted |= stage.columns.is_each();
            for &column in &columns {
                // Behind a stage with a run for each column, every stage has one.
                let (from, seed) = (before[&column], seed(index));
                let run = Run { stage, column: parted.then_some(column), seed, from, vocabulary };
                let job = self.train(&run)?;
                before.insert(column, Some(job));
                if !plan.stages.iter().any(|(_, _, known)| *known == job) {
                    plan.stages.push((stage.name.clone(), run.column, job));
                }
            }
        }
        plan.columns = before.into_iter().filter_map(|(column, job)| Some((column, job?))).collect();
        Ok(plan)
    }

    fn is_measured(&self, column: usize) -> bool {
        self.study.columns[column].left_out.is_empty()
    }

    /// The names of the tasks of a run.
    fn task_names(&self, stage: &Stage, column: Option<usize>) -> Vec<String> {
        let mut names = stage.tasks.clone();
        for (index, other) in self.study.columns.iter().enumerate().filter(|(index, _)| self.is_measured(*index)) {
            let learnt = match stage.columns {
                Columns::None => false,
                Columns::All => true,
                Columns::Own => column == Some(index),
                Columns::Others => column != Some(index),
            };
            if learnt {
                names.extend(other.tasks.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
            }
        }
        names
    }

    /// A configuration of a study, with these tasks, in a run's form. `goes_on`: from a checkpoint, whose name is put
    /// in later.
    fn config(&mut self, mut knobs: Table, names: &[String], goes_on: bool) -> Result<Config> {
        let mut tasks = Vec::new();
        for name in names {
            tasks.push(Value::Table(self.study.task(&self.file, name)?.0));
        }
        let section = |name: &str, key: &str, value: Value| {
            Table::from_iter([(name.to_owned(), Value::Table(Table::from_iter([(key.to_owned(), value)])))])
        };
        overlay(&mut knobs, section("data", "tasks", Value::Array(tasks)));
        if goes_on {
            overlay(&mut knobs, section("model", "from", Value::String("-".to_owned())));
        }
        let text = toml::to_string(&knobs).map_err(|error| Error::Invalid(format!("configuration: {error}")))?;
        let config = match self.configs.get(&text) {
            Some(config) => config.clone(),
            None => {
                let config = Config::parse(&self.file, &text, &self.request.sets)?;
                config.data.check()?;
                self.configs.insert(text, config.clone());
                config
            }
        };
        for task in &config.data.tasks {
            self.note_missing(task, &config.data.dir)?;
        }
        Ok(config)
    }

    /// Notes what files of a task are not there.
    fn note_missing(&mut self, task: &TaskConfig, dir: &Path) -> Result<()> {
        let missing = missing_files(task, dir);
        if missing.is_empty() {
            return Ok(());
        }
        let files: Vec<String> = missing.iter().map(|file| file.display().to_string()).collect();
        let published = match self.study.task(&self.file, &task.name)?.1.as_str() {
            "" => String::new(),
            address => format!("; its authors publish it at {address}"),
        };
        let line = format!("task {}: expected {}, found none{published}", task.name, files.join(", "));
        if !self.missing.contains(&line) {
            self.missing.push(line);
        }
        Ok(())
    }

    fn train(&mut self, run: &Run) -> Result<usize> {
        let Run { stage, column, seed, from, .. } = *run;
        let names = self.task_names(stage, column);
        if names.is_empty() {
            let what = format!("{}: expected tasks to learn, found none", stage.name);
            return Err(Error::config(&self.file, "stages", what));
        }
        // A run writes its seed down as TOML, which has no larger numbers.
        if i64::try_from(seed).is_err() {
            return Err(Error::config(&self.file, "seeds", format!("expected 0 to 2^63 - 1, found {seed}")));
        }
        let mut config = self.config(stage.config.clone(), &names, from.is_some())?;
        config.run.seed = seed;
        if let Some(from) = from {
            // A name in place of the checkpoint, which is known when the job is done.
            config.model.from.clone_from(&self.jobs[from].name);
        }
        let mut after: Vec<usize> = from.into_iter().collect();
        if config.model.vocabulary.is_empty() && !self.study.vocabulary.is_empty() {
            let vocabulary = self.vocabulary(run.vocabulary)?;
            config.model.vocabulary = self.jobs[vocabulary].name.clone();
            after.push(vocabulary);
        }
        if config.evaluation.every_steps > 0 && config.evaluation.best_by == "loss" {
            let learnt: Vec<usize> = match stage.columns {
                Columns::All => (0..self.study.columns.len()).filter(|&column| self.is_measured(column)).collect(),
                Columns::Own => column.into_iter().collect(),
                Columns::None | Columns::Others => Vec::new(),
            };
            let groups = learnt.iter().map(|&column| self.groups(column)).collect::<Result<Vec<_>>>()?;
            if !groups.is_empty() {
                config.evaluation.best_by = groups.concat().concat().join(",");
            }
        }
        let on = column.map_or(String::new(), |column| format!(" {}", self.study.columns[column].name));
        self.job(format!("{}{on}", stage.name), seed, Kind::Train { from }, after, config)
    }

    /// The job of a vocabulary, which arms share whose `section` of knobs is the same.
    fn vocabulary(&mut self, section: Option<&Value>) -> Result<usize> {
        let mut knobs = self.study.base.clone();
        knobs.extend(section.map(|section| ("vocabulary".to_owned(), section.clone())));
        let config = self.config(knobs, &self.study.vocabulary, false)?;
        let seed = config.run.seed;
        self.job("vocabulary".to_owned(), seed, Kind::Vocabulary, Vec::new(), config)
    }

    fn ensemble(&mut self, members: Vec<usize>, column: usize) -> usize {
        let config = self.jobs[members[0]].config.clone();
        let title = format!("ensemble {}", self.study.columns[column].name);
        let names: Vec<&str> = members.iter().map(|&member| self.jobs[member].name.as_str()).collect();
        let name = folder_name(&title, &names.join(" "));
        self.add(name, title, Kind::Ensemble { members: members.clone() }, members, config)
    }

    /// Adds a job, unless there is the same one. Its configuration names other jobs in the place of their files.
    fn job(&mut self, title: String, seed: u64, kind: Kind, after: Vec<usize>, config: Config) -> Result<usize> {
        let mut decides = config.clone();
        (decides.run.output, decides.run.threads) = (PathBuf::new(), 0);
        decides.log.every_steps = 1;
        if kind != Kind::Vocabulary {
            decides.vocabulary = crate::vocabulary::VocabularyConfig::default();
        }
        let mut text = decides.to_toml()?;
        // A file that has grown is another one.
        for task in &config.data.tasks {
            for file in task.train.iter().chain(&task.dev) {
                let length = source::find(&config.data.dir.join(file)).ok().and_then(|file| file.metadata().ok());
                let _ = writeln!(text, "{} {:?}", file.display(), length.map(|metadata| metadata.len()));
            }
        }
        let name = folder_name(&title, &text);
        let title = if kind == Kind::Vocabulary { title } else { format!("{title}, seed {seed}") };
        Ok(self.add(name, title, kind, after, config))
    }

    fn add(&mut self, name: String, title: String, kind: Kind, after: Vec<usize>, mut config: Config) -> usize {
        if let Some(&job) = self.by_name.get(&name) {
            return job;
        }
        config.run.output = self.request.output.join("runs").join(&name);
        let job = self.jobs.len();
        self.by_name.insert(name.clone(), job);
        self.jobs.push(Job { name, title, kind, after, config });
        job
    }

    fn groups(&self, column: usize) -> Result<Vec<Vec<String>>> {
        groups(self.study, &self.file, column)
    }
}

/// The groups of scores of a column.
pub(super) fn groups(study: &StudyFile, file: &str, column: usize) -> Result<Vec<Vec<String>>> {
    let column = &study.columns[column];
    if !column.score.is_empty() {
        return Ok(column.score.clone());
    }
    let mut groups = Vec::new();
    for name in &column.tasks {
        let (task, _) = study.task(file, name)?;
        let name = task.get("name").and_then(Value::as_str).unwrap_or(name);
        let metrics = task.get("metrics").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut group = Vec::new();
        for metric in metrics.iter().filter_map(Value::as_str) {
            group.extend(Metric::named(metric)?.score_names().into_iter().map(|score| format!("{name}/{score}")));
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    if groups.is_empty() {
        let what = format!("{}: expected tasks with metrics, found none", column.name);
        return Err(Error::config(file, "columns", what));
    }
    Ok(groups)
}

/// A folder's name: what it is, in letters, and a hash of all that decides its contents.
fn folder_name(title: &str, contents: &str) -> String {
    let letters = title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    format!("{}-{:016x}", letters.collect::<String>(), hash_bytes(contents.as_bytes()))
}

/// Files of a task that are not there.
fn missing_files(task: &TaskConfig, dir: &Path) -> Vec<PathBuf> {
    let is_there = |path: &Path| {
        // A split of a data-set folder is no file of its own.
        let folder = task.source.format == Format::Parquet && path.parent().is_some_and(Path::is_dir);
        path.exists() || folder || source::find(path).is_ok()
    };
    task.train.iter().chain(&task.dev).map(|file| dir.join(file)).filter(|path| !is_there(path)).collect()
}
