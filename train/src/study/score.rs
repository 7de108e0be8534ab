//! From evaluations to the table's figures: the score of a column in a run, its mean and deviation over seeds, and what
//! differs from the best by less than chance does.

use std::fs;
use std::path::Path;

use super::file::Checkpoints;
use super::plan::{ArmPlan, Kind, Plan, groups};
use super::run::{EVALUATION, done};
use crate::record::{Entry, EvaluationReport, LogRecord};
use crate::{Error, Result, report};

/// An arm in a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// One for each seed.
    pub values: Vec<f64>,
    pub mean: f64,
    /// Over the seeds, of a sample; none for one seed.
    pub deviation: Option<f64>,
}

impl Cell {
    pub fn new(values: Vec<f64>) -> Cell {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Cell { values, mean, deviation }
    }
}

/// What a column says of its arms.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The arm with the highest mean.
    pub best: Option<usize>,
    /// What chance does: the baseline's deviation, as in the paper, or where it has none that of all arms together.
    pub deviation: Option<f64>,
    /// Arms within two deviations of the best, it among them.
    pub within: Vec<bool>,
}

/// An arm with all that was found of it.
#[derive(Clone, Debug)]
pub struct ArmResult {
    pub name: String,
    pub baseline: bool,
    /// One for each column of the study; NaN where the paper has none.
    pub paper: Vec<f64>,
    /// `None` where it is not measured (yet).
    pub cells: Vec<Option<Cell>>,
    pub left_out: Option<String>,
    /// Seconds of training of all its jobs, shared ones among them.
    pub seconds: f64,
}

/// A study's table.
#[derive(Clone, Debug)]
pub struct Results {
    pub columns: Vec<String>,
    pub arms: Vec<ArmResult>,
    pub judged: Vec<Judged>,
}

impl Results {
    /// What is there of a plan on the disk.
    ///
    /// # Errors
    /// Where a job's log is damaged, or does not have a score that a column names.
    pub fn read(plan: &Plan) -> Result<Results> {
        let arms = plan.arms.iter().map(|arm| read_arm(plan, arm)).collect::<Result<Vec<_>>>()?;
        let columns: Vec<String> = plan.study.columns.iter().map(|column| column.name.clone()).collect();
        let judged = (0..columns.len()).map(|column| judge(&arms, column)).collect();
        Ok(Results { columns, arms, judged })
    }
}

fn read_arm(plan: &Plan, planned: &ArmPlan) -> Result<ArmResult> {
    let count = plan.study.columns.len();
    let mut cells = vec![None; count];
    for (column, _) in plan.measured() {
        let mut values = Vec::new();
        for seed in &planned.seeds {
            let Some(&job) = seed.columns.get(&column) else { continue };
            if done(&plan.folder(job)).is_some() {
                let groups = groups(&plan.study, &plan.request.file.display().to_string(), column)?;
                let evaluations = evaluations(plan, job)?;
                let score = score(&evaluations, &groups, plan.study.checkpoints);
                values.push(score.map_err(|what| Error::file(plan.folder(job), what))?);
            }
        }
        // Half of the seeds are no mean yet.
        if !values.is_empty() && values.len() == planned.seeds.len() {
            cells[column] = Some(Cell::new(values));
        }
    }
    let mut seconds = 0.0;
    for run in plan.runs(planned) {
        seconds += records(plan, run)?.last().map_or(0.0, |record| record.seconds);
    }
    let arm = &planned.arm;
    let paper = if arm.paper.is_empty() { vec![f64::NAN; count] } else { arm.paper.clone() };
    let left_out = planned.left_out.as_ref().map(|why| why.join("; "));
    Ok(ArmResult { name: arm.name.clone(), baseline: arm.baseline, paper, cells, left_out, seconds })
}

/// The log of a job, empty where there is none yet.
pub(super) fn records(plan: &Plan, job: usize) -> Result<Vec<LogRecord>> {
    let run = plan.folder(job);
    if report::files(&run)[0].exists() { report::records(&run) } else { Ok(Vec::new()) }
}

/// The evaluations of a job that is done, with their steps.
fn evaluations(plan: &Plan, job: usize) -> Result<Vec<EvaluationReport>> {
    if let Kind::Ensemble { .. } = plan.jobs[job].kind {
        return Ok(vec![read_evaluation(&plan.folder(job).join(EVALUATION))?]);
    }
    let report = |record: LogRecord| match record.entry {
        Entry::Evaluation { report, .. } => Some(report),
        Entry::Train { .. } => None,
    };
    Ok(records(plan, job)?.into_iter().filter_map(report).collect())
}

fn read_evaluation(path: &Path) -> Result<EvaluationReport> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::file(path, format!("expected an evaluation: {error}")))
}

/// A column's score in the evaluations of a run.
pub(super) fn score(
    evaluations: &[EvaluationReport],
    groups: &[Vec<String>],
    checkpoints: Checkpoints,
) -> Result<f64, String> {
    if evaluations.is_empty() {
        return Err("expected an evaluation, found none: evaluation.every_steps is 0 or above the steps".to_owned());
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let highest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
    // [evaluations][groups]
    let mut all = Vec::new();
    for report in evaluations {
        let mut of_groups = Vec::new();
        for group in groups {
            let mut values = Vec::new();
            for name in group {
                let Some(&value) = report.metrics.get(name) else {
                    let known: Vec<&str> = report.metrics.keys().map(String::as_str).collect();
                    return Err(format!("expected the score {name}, found {}", known.join(", ")));
                };
                if report.lower_is_better.contains(name) {
                    return Err(format!("expected scores of which the highest is the best, found {name}"));
                }
                // A correlation with a constant says that nothing was learnt.
                values.push(if value.is_nan() { 0.0 } else { value });
            }
            of_groups.push(mean(&values));
        }
        all.push(of_groups);
    }
    Ok(match checkpoints {
        Checkpoints::One => highest(&mut all.iter().map(|of_groups| mean(of_groups))),
        Checkpoints::Each => {
            let best = |group: usize| highest(&mut all.iter().map(|of_groups| of_groups[group]));
            mean(&(0..groups.len()).map(best).collect::<Vec<f64>>())
        }
    })
}

fn judge(arms: &[ArmResult], column: usize) -> Judged {
    let cells: Vec<(usize, &Cell)> =
        arms.iter().enumerate().filter_map(|(index, arm)| Some((index, arm.cells[column].as_ref()?))).collect();
    let best = cells.iter().copied().reduce(|best, cell| if cell.1.mean > best.1.mean { cell } else { best });
    let of_baseline = cells.iter().find(|(index, _)| arms[*index].baseline).and_then(|(_, cell)| cell.deviation);
    let variances: Vec<f64> = cells.iter().filter_map(|(_, cell)| cell.deviation).map(|d| d * d).collect();
    let pooled = (!variances.is_empty()).then(|| (variances.iter().sum::<f64>() / variances.len() as f64).sqrt());
    let deviation = of_baseline.or(pooled);
    let within = arms.iter().map(|arm| {
        let (Some(cell), Some((_, best)), Some(deviation)) = (&arm.cells[column], best, deviation) else {
            return false;
        };
        cell.mean >= best.mean - 2.0 * deviation
    });
    Judged { best: best.map(|(index, _)| index), deviation, within: within.collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn report(values: &[(&str, f64)]) -> EvaluationReport {
        let metrics: BTreeMap<String, f64> = values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        EvaluationReport { metrics, ..EvaluationReport::default() }
    }

    #[test]
    fn groups_have_their_best_evaluation_or_one_together() {
        // MNLI's two sets are one group; tasks have their best at different steps.
        let evaluations = [
            report(&[("mnli/m", 80.0), ("mnli/mm", 82.0), ("rte/accuracy", 50.0)]),
            report(&[("mnli/m", 70.0), ("mnli/mm", 74.0), ("rte/accuracy", 66.0)]),
        ];
        let groups = [vec!["mnli/m".to_owned(), "mnli/mm".to_owned()], vec!["rte/accuracy".to_owned()]];
        assert_eq!(score(&evaluations, &groups, Checkpoints::Each), Ok((81.0 + 66.0) / 2.0));
        assert_eq!(score(&evaluations, &groups, Checkpoints::One), Ok((72.0 + 66.0) / 2.0));
        let undefined = [report(&[("mnli/m", f64::NAN), ("mnli/mm", 4.0), ("rte/accuracy", 50.0)])];
        assert_eq!(score(&undefined, &groups, Checkpoints::Each), Ok((2.0 + 50.0) / 2.0));
        assert!(score(&[], &groups, Checkpoints::Each).unwrap_err().contains("expected an evaluation"));
        let unknown = [vec!["mnli/x".to_owned()]];
        assert!(score(&evaluations, &unknown, Checkpoints::Each).unwrap_err().contains("mnli/x, found mnli/m"));
        let mut rates = report(&[("p/wer", 3.0)]);
        rates.lower_is_better = BTreeSet::from(["p/wer".to_owned()]);
        assert!(score(&[rates], &[vec!["p/wer".to_owned()]], Checkpoints::Each).unwrap_err().contains("the highest"));
    }

    #[test]
    fn the_paper_s_averages_are_these() {
        // The baseline's figures for each task (Table 16) give those of Table 1.
        let glue: [&[f64]; 8] = [
            &[53.84],
            &[92.68],
            &[92.07, 88.92],
            &[88.02, 87.94],
            &[88.67, 91.56],
            &[84.24, 84.57],
            &[90.48],
            &[76.28],
        ];
        let values: Vec<(String, f64)> = glue
            .iter()
            .enumerate()
            .flat_map(|(task, scores)| scores.iter().enumerate().map(move |(i, &v)| (format!("{task}/{i}"), v)))
            .collect();
        let named: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let group = |task: usize| (0..glue[task].len()).map(|i| format!("{task}/{i}")).collect();
        let groups: Vec<Vec<String>> = (0..8).map(group).collect();
        let found = score(&[report(&named)], &groups, Checkpoints::Each).unwrap();
        assert!((found - 83.28).abs() < 0.005, "{found}");
    }

    fn arm(name: &str, baseline: bool, values: &[f64]) -> ArmResult {
        let cells = vec![(!values.is_empty()).then(|| Cell::new(values.to_vec()))];
        ArmResult { name: name.to_owned(), baseline, paper: vec![f64::NAN], cells, left_out: None, seconds: 0.0 }
    }

    #[test]
    fn two_deviations_are_the_baseline_s() {
        let cell = Cell::new(vec![1.0, 2.0, 3.0]);
        assert_eq!((cell.mean, cell.deviation), (2.0, Some(1.0)));
        // The baseline's deviation is 1: 7 is within two of 9, 6.9 is not.
        let arms = [
            arm("baseline", true, &[6.0, 7.0, 8.0]),
            arm("best", false, &[9.0, 9.0, 9.0]),
            arm("worse", false, &[6.9, 6.9, 6.9]),
            arm("not run", false, &[]),
        ];
        let judged = judge(&arms, 0);
        assert_eq!((judged.best, judged.deviation), (Some(1), Some(1.0)));
        assert_eq!(judged.within, [true, true, false, false]);
        // Without one it is that of all arms.
        let arms = [arm("a", false, &[0.0, 2.0]), arm("b", false, &[5.0, 5.0])];
        assert_eq!(judge(&arms, 0).deviation, Some(1.0));
        // One seed says nothing of chance.
        let judged = judge(&[arm("a", true, &[1.0]), arm("b", false, &[1.0])], 0);
        assert_eq!((judged.best, judged.deviation, judged.within), (Some(0), None, vec![false, false]));
    }
}
