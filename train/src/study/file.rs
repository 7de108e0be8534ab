//! The form of a study's file: what is asked, the stages that every arm goes through, the arms with what they change,
//! and the columns that they are judged by. Files are laid one over another: those that a file includes, then the file
//! itself, then its scale.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::serde_path;
use crate::{Error, Result};

/// The scale that is meant where none is named.
pub const USUAL_SCALE: &str = "tiny";

/// A study as its file describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    pub title: String,
    /// The question.
    pub asks: String,
    /// What the paper found.
    #[serde(default)]
    pub paper: String,
    /// Each arm is run once with each.
    pub seeds: Vec<u64>,
    /// Tasks on whose texts a vocabulary is trained first, where the configuration names none.
    #[serde(default)]
    pub vocabulary: Vec<String>,
    /// Which evaluation of a run counts for a column.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// Knobs of every run.
    #[serde(default)]
    pub base: Table,
    /// Tasks by name. `like` begins with another's values, `published` says where the files are to be had, and the rest
    /// is as in a run's `[[data.tasks]]`.
    pub tasks: Vec<Table>,
    pub columns: Vec<Column>,
    pub stages: Vec<Table>,
    pub arms: Vec<Arm>,
    /// Figures of the paper that belong to no arm.
    #[serde(default)]
    pub rows: Vec<PaperRow>,
}

/// Which evaluation of a run counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoints {
    /// Each task (or group of scores) has its best one, as the paper reports.
    #[default]
    Each,
    /// The one with the best mean over the column's groups.
    One,
}

/// A column of the table: tasks that are learnt together, and the mean of their scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Scores as TASK/SCORE in groups: the column is the mean over groups of the mean over a group. Without any, a
    /// group is all scores of a task.
    #[serde(default)]
    pub score: Vec<Vec<String>>,
    /// What it is measured on, below the table.
    #[serde(default)]
    pub about: String,
    /// Why it is not measured at this scale.
    #[serde(default)]
    pub left_out: String,
}

/// One training run, or one for each column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    pub name: String,
    /// Tasks beside the columns'.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Which columns' tasks it learns.
    #[serde(default)]
    pub columns: Columns,
    /// Knobs of this stage's runs.
    #[serde(default)]
    pub config: Table,
}

/// Columns whose tasks a stage learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Columns {
    /// None: the stage's own tasks alone.
    #[default]
    None,
    /// All of them in one run.
    All,
    /// A run for each column, with its tasks.
    Own,
    /// A run for each column, with the tasks of all the others.
    Others,
}

impl Columns {
    /// Whether there is a run for each column.
    pub fn is_each(self) -> bool {
        matches!(self, Columns::Own | Columns::Others)
    }
}

/// An arm: what it changes, and the paper's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub name: String,
    /// Whose deviations the others are measured by.
    #[serde(default)]
    pub baseline: bool,
    /// The paper's figures, a column each; NaN where it has none.
    #[serde(default)]
    pub paper: Vec<f64>,
    /// Knobs of all its runs.
    #[serde(default)]
    pub all: Table,
    /// Changes of stages, by their names: tasks, columns, config.
    #[serde(default)]
    pub stages: BTreeMap<String, Table>,
    /// Stages that it goes without.
    #[serde(default)]
    pub skip: Vec<String>,
    /// What it needs and this program does not have.
    #[serde(default)]
    pub needs: String,
    pub ensemble: Option<Ensemble>,
}

/// Several models that are judged as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    pub members: u64,
    /// The stage from which on each member has a seed of its own.
    pub from: String,
}

/// A row of the paper's table without an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperRow {
    pub name: String,
    pub paper: Vec<f64>,
}

impl StudyFile {
    /// Reads a study at a scale.
    ///
    /// # Errors
    /// Where a file cannot be read or is not a study, or there is no such scale.
    pub fn load(path: &Path, scale: &str) -> Result<StudyFile> {
        let mut table = read(path)?;
        let file = path.display().to_string();
        let mut scales = match table.remove("scales") {
            Some(Value::Table(scales)) => scales,
            Some(_) => return Err(Error::config(&file, "scales", "expected tables, one for each scale")),
            None => Table::new(),
        };
        match scales.remove(scale) {
            Some(Value::Table(changes)) => overlay(&mut table, changes),
            None if scales.is_empty() && scale == USUAL_SCALE => {}
            _ => {
                let known = if scales.is_empty() {
                    format!("none, as {file} has no scales")
                } else {
                    format!("one of {:?}", scales.keys().collect::<Vec<_>>()).replace('"', "")
                };
                return Err(Error::Option { option: "scale", what: format!("expected {known}, found {scale}") });
            }
        }
        let study: StudyFile = serde_path(Value::Table(table)).map_err(|what| Error::config(&file, "study", what))?;
        study.check(&file)?;
        Ok(study)
    }

    fn check(&self, file: &str) -> Result<()> {
        let refuse = |key: &str, what: String| Err(Error::config(file, key, what));
        if self.seeds.is_empty() {
            return refuse("seeds", "expected one or more, found none".to_owned());
        }
        let stages = self.stages.iter().map(|stage| self.stage(file, stage.clone())).collect::<Result<Vec<_>>>()?;
        let lists: [(&str, Vec<&str>); 4] = [
            ("arms", self.arms.iter().map(|arm| arm.name.as_str()).collect()),
            ("columns", self.columns.iter().map(|column| column.name.as_str()).collect()),
            ("stages", stages.iter().map(|stage| stage.name.as_str()).collect()),
            ("tasks", self.tasks.iter().filter_map(|task| task.get("name")?.as_str()).collect()),
        ];
        for (key, names) in &lists {
            if names.is_empty() {
                return refuse(key, "expected one or more, found none".to_owned());
            }
            if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
                return refuse(key, format!("expected different names, found {} twice", twice.1));
            }
        }
        let known = |name: &str| stages.iter().any(|stage| stage.name == name);
        for arm in &self.arms {
            let key = format!("arms.{}", arm.name);
            let of_ensemble = arm.ensemble.iter().map(|ensemble| &ensemble.from);
            if let Some(name) = arm.skip.iter().chain(arm.stages.keys()).chain(of_ensemble).find(|name| !known(name)) {
                return refuse(&key, format!("expected the name of a stage, found {name}"));
            }
            if arm.ensemble.as_ref().is_some_and(|ensemble| !(2..=64).contains(&ensemble.members)) {
                return refuse(&key, "ensemble.members: expected 2 to 64".to_owned());
            }
        }
        let rows = self.rows.iter().map(|row| (&row.name, &row.paper));
        for (name, paper) in self.arms.iter().map(|arm| (&arm.name, &arm.paper)).chain(rows) {
            if !paper.is_empty() && paper.len() != self.columns.len() {
                let what =
                    format!("expected {} figures, one for each column, found {}", self.columns.len(), paper.len());
                return refuse(&format!("{name}.paper"), what);
            }
        }
        if self.arms.iter().filter(|arm| arm.baseline).count() > 1 {
            return refuse("arms", "expected one baseline at most".to_owned());
        }
        Ok(())
    }

    /// The stages that an arm goes through, with its changes.
    pub(super) fn stages_of(&self, file: &str, arm: &Arm) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        for stage in &self.stages {
            let mut stage = stage.clone();
            let name = stage.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if arm.skip.contains(&name) {
                continue;
            }
            if let Some(changes) = arm.stages.get(&name) {
                overlay(&mut stage, changes.clone());
            }
            let mut stage = self.stage(file, stage)?;
            let mut config = self.base.clone();
            // What an arm says of all stages goes before what the stages say, what it says of one behind.
            overlay(&mut config, stage.config);
            overlay(&mut config, arm.all.clone());
            if let Some(Value::Table(changes)) = arm.stages.get(&name).and_then(|stage| stage.get("config")) {
                overlay(&mut config, changes.clone());
            }
            stage.config = config;
            stages.push(stage);
        }
        Ok(stages)
    }

    fn stage(&self, file: &str, table: Table) -> Result<Stage> {
        serde_path(Value::Table(table)).map_err(|what| Error::config(file, "stages", what))
    }

    /// A task by its name: its table without what only a study knows, and where its files are published.
    pub(super) fn task(&self, file: &str, name: &str) -> Result<(Table, String)> {
        let named = |name: &str| {
            let found = self.tasks.iter().find(|task| task.get("name").and_then(Value::as_str) == Some(name));
            found
                .ok_or_else(|| Error::config(file, "tasks", format!("expected a task {name}, found none of this name")))
        };
        let mut chain = vec![named(name)?.clone()];
        while let Some(like) = chain[chain.len() - 1].get("like").and_then(Value::as_str) {
            if chain.len() > self.tasks.len() {
                return Err(Error::config(
                    file,
                    "tasks",
                    format!("{name}: expected to be like another, found a circle"),
                ));
            }
            chain.push(named(like)?.clone());
        }
        let mut task = Table::new();
        for table in chain.into_iter().rev() {
            // A task's parts are one choice each: another objective replaces the one before it.
            task.extend(table);
        }
        task.remove("like");
        let published = task.remove("published");
        Ok((task, published.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()))
    }
}

/// A file over those that it includes.
fn read(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let mut changes: Table = text.parse().map_err(|error: toml::de::Error| {
        Error::config(path.display().to_string(), "TOML", error.to_string().trim_end().replace('\n', " "))
    })?;
    let mut table = Table::new();
    if let Some(include) = changes.remove("include") {
        let names: Vec<PathBuf> = include.try_into().map_err(|error: toml::de::Error| {
            Error::config(path.display().to_string(), "include", error.message().to_owned())
        })?;
        for name in names {
            overlay(&mut table, read(&path.with_file_name(name))?);
        }
    }
    overlay(&mut table, changes);
    Ok(table)
}

/// Lays `changes` over a table: tables key by key, lists of named tables name by name, everything else as a whole.
pub(super) fn overlay(table: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(old)), Value::Table(change)) => overlay(old, change),
            (Some(Value::Array(old)), Value::Array(change)) if are_named(old) && are_named(&change) => {
                for change in change {
                    let Value::Table(change) = change else { continue };
                    let name = change.get("name").cloned();
                    let found =
                        old.iter_mut().filter_map(Value::as_table_mut).find(|old| old.get("name") == name.as_ref());
                    match found {
                        Some(old) => overlay(old, change),
                        None => old.push(Value::Table(change)),
                    }
                }
            }
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

fn are_named(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|value| value.get("name").is_some_and(Value::is_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn lists_of_named_tables_are_laid_over_by_name() {
        let mut one =
            table("a = 1\nlist = [1, 2]\n[[t]]\nname = \"x\"\nk = 1\n[[t]]\nname = \"y\"\nk = 2\n[b]\nc = 3\n");
        overlay(&mut one, table("a = 5\nlist = [3]\n[[t]]\nname = \"y\"\nk = 7\n[[t]]\nname = \"z\"\n[b]\nd = 4\n"));
        let expected = table(
            "a = 5\nlist = [3]\n[[t]]\nname = \"x\"\nk = 1\n[[t]]\nname = \"y\"\nk = 7\n[[t]]\nname = \"z\"\n\
                   [b]\nc = 3\nd = 4\n",
        );
        assert_eq!(one, expected);
    }
}
