//! A study as one self-contained HTML page: the table, bars with deviations, curves of each arm, what arms change, the
//! time, and the machine that wrote it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use toml::Value;

use super::plan::Plan;
use super::score::{Results, records, score};
use super::table::notes;
use crate::Result;
use crate::config::Config;
use crate::config::keys::compare;
use crate::record::Entry;
use crate::report::{COLORS, Line, STYLE, chart, duration, escape};

/// A bar's height, and what is beside the bars, in pixels.
const BAR: f64 = 22.0;
const NAMES: f64 = 190.0;
const BARS: f64 = 360.0;

impl Results {
    /// The page.
    ///
    /// # Errors
    /// Where a job's log is damaged.
    pub fn page(&self, plan: &Plan) -> Result<String> {
        let study = &plan.study;
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{0}</title>\n\
             <style>{STYLE}</style>\n<h1>{0}</h1>\n<p>{1}</p>\n<p>The paper: {2}</p>\n",
            escape(&study.title),
            escape(&study.asks),
            escape(&study.paper)
        );
        page += &self.table();
        page += "<ul>";
        for note in notes(self, plan) {
            let _ = write!(page, "<li>{}</li>", escape(&note));
        }
        page += "</ul>\n<h2>Means and deviations</h2>\n<div class=\"charts\">\n";
        for column in 0..self.columns.len() {
            page += &self.bars(column);
        }
        page += "</div>\n<h2>Curves</h2>\n<p>Of the first seed.</p>\n<div class=\"charts\">\n";
        for (title, lines) in curves(plan)? {
            page += &chart(&title, &lines);
        }
        page += "</div>\n<h2>What arms change</h2>\n";
        page += &changes(plan)?;
        page += &self.machine(plan);
        Ok(page + "</html>\n")
    }

    fn table(&self) -> String {
        let mut text = "<table><tr><th>arm</th>".to_owned();
        for name in &self.columns {
            let _ = write!(text, "<th class=\"number\">{}</th><th class=\"number\">paper</th>", escape(name));
        }
        text += "</tr>\n";
        for (index, arm) in self.arms.iter().enumerate() {
            let _ = write!(text, "<tr><td>{}</td>", escape(&arm.name));
            for (column, cell) in arm.cells.iter().enumerate() {
                let judged = &self.judged[column];
                let found = cell.as_ref().map_or("–".to_owned(), |cell| match cell.deviation {
                    Some(deviation) => format!("{:.2} ± {deviation:.2}", cell.mean),
                    None => format!("{:.2}", cell.mean),
                });
                let found = if judged.within[index] { format!("<b>{found}</b>") } else { found };
                let star = if judged.best == Some(index) { " ★" } else { "" };
                let value = arm.paper[column];
                let paper = if value.is_nan() { "–".to_owned() } else { format!("{value:.2}") };
                let _ = write!(text, "<td class=\"number\">{found}{star}</td><td class=\"number\">{paper}</td>");
            }
            text += "</tr>\n";
        }
        text + "</table>\n<p>★ the best of a column; bold: within two standard deviations of it.</p>\n"
    }

    /// One bar for each arm, from zero, with its deviation, and a mark for the paper's figure.
    fn bars(&self, column: usize) -> String {
        let ours = |arm: &super::score::ArmResult| {
            arm.cells[column].as_ref().map(|cell| cell.mean + cell.deviation.unwrap_or(0.0))
        };
        let all = self.arms.iter().flat_map(|arm| ours(arm).into_iter().chain(Some(arm.paper[column])));
        let most = all.filter(|value| value.is_finite()).fold(0.0, f64::max);
        if self.arms.iter().all(|arm| arm.cells[column].is_none()) || most <= 0.0 {
            return String::new();
        }
        let x = |value: f64| NAMES + BARS * (value / most).max(0.0);
        let height = BAR * self.arms.len() as f64 + 4.0;
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {} {height}\">",
            escape(&self.columns[column]),
            NAMES + BARS + 50.0
        );
        for (index, arm) in self.arms.iter().enumerate() {
            let top = BAR * index as f64 + 3.0;
            let middle = top + 0.5 * (BAR - 6.0);
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                NAMES - 6.0,
                middle + 4.0,
                escape(&arm.name)
            );
            if let Some(cell) = &arm.cells[column] {
                let color = COLORS[index % COLORS.len()];
                let (end, deviation) = (x(cell.mean), cell.deviation.unwrap_or(0.0));
                let _ = write!(
                    svg,
                    "<rect fill=\"{color}\" x=\"{NAMES}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{}\"/>\
                     <line stroke=\"#111827\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
                    end - NAMES,
                    BAR - 6.0,
                    x(cell.mean - deviation),
                    x(cell.mean + deviation),
                    x(cell.mean + deviation) + 4.0,
                    middle + 4.0,
                    cell.mean
                );
            }
            let value = arm.paper[column];
            if !value.is_nan() {
                let _ = write!(
                    svg,
                    "<line stroke=\"#6b7280\" stroke-dasharray=\"2 2\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" \
                     y2=\"{2:.1}\"/>",
                    x(value),
                    top - 2.0,
                    top + BAR - 4.0
                );
            }
        }
        svg + "</svg><p>Dashed: the paper's figure.</p></figure>\n"
    }

    fn machine(&self, plan: &Plan) -> String {
        let mut text = "<h2>Machine and time</h2>\n<p>Of the machine that wrote this page; runs may have been on \
                        others.</p>\n<table>"
            .to_owned();
        for (name, value) in machine() {
            let _ = write!(text, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
        }
        text += "</table>\n<p>Training of each arm, over all seeds; what arms share is counted in each.</p>\n<table>";
        for (arm, planned) in self.arms.iter().zip(&plan.arms) {
            let _ = write!(
                text,
                "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{} runs</td></tr>",
                escape(&arm.name),
                duration(arm.seconds),
                plan.runs(planned).len()
            );
        }
        text + "</table>\n"
    }
}

/// What the page is written on, and when.
fn machine() -> Vec<(&'static str, String)> {
    let field = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = vec![("date", today()), ("processor", format!("{processor}, {cores} at hand"))];
    if let Some(kilobytes) = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()) {
        let kilobytes: f64 = kilobytes;
        rows.push(("memory", format!("{:.1} GB", kilobytes * 1024.0 / 1e9)));
    }
    rows.push(("program", format!("t5-train {}", env!("CARGO_PKG_VERSION"))));
    rows
}

/// The day, in UTC.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil((seconds / 86_400) as i64);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// A job's arms, by the job.
type ByJob = BTreeMap<usize, Vec<String>>;

/// The curves: of each stage the training loss, and of each column its score, a line for each job of the first seed.
fn curves(plan: &Plan) -> Result<Vec<(String, Vec<Line>)>> {
    let mut charts: Vec<((String, Option<usize>), ByJob)> = Vec::new();
    for arm in &plan.arms {
        for (stage, column, job) in arm.seeds.first().iter().flat_map(|seed| &seed.stages) {
            let key = (stage.clone(), *column);
            let place = charts.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                charts.push((key, ByJob::new()));
                charts.len() - 1
            });
            charts[place].1.entry(*job).or_default().push(arm.arm.name.clone());
        }
    }
    let file = plan.request.file.display().to_string();
    let mut drawn = Vec::new();
    for ((stage, column), jobs) in charts {
        let on = column.map_or(String::new(), |column| format!(", {}", plan.study.columns[column].name));
        let (mut losses, mut scores) = (Vec::new(), BTreeMap::<usize, Vec<Line>>::new());
        for (job, arms) in jobs {
            let (name, records) = (arms.join(", "), records(plan, job)?);
            let loss = |entry: &Entry| match entry {
                Entry::Train { loss, .. } => Some(*loss),
                Entry::Evaluation { .. } => None,
            };
            let points = records.iter().filter_map(|record| Some((record.step as f64, loss(&record.entry)?)));
            losses.push(Line { name: name.clone(), points: points.collect() });
            let columns =
                plan.measured().map(|(index, _)| index).filter(|&index| column.is_none_or(|own| own == index));
            for index in columns {
                let groups = super::plan::groups(&plan.study, &file, index)?;
                let points = records.iter().filter_map(|record| match &record.entry {
                    Entry::Evaluation { report, .. } => {
                        let value = score(std::slice::from_ref(report), &groups, plan.study.checkpoints).ok()?;
                        Some((record.step as f64, value))
                    }
                    Entry::Train { .. } => None,
                });
                let points: Vec<_> = points.collect();
                if !points.is_empty() {
                    scores.entry(index).or_default().push(Line { name: name.clone(), points });
                }
            }
        }
        drawn.push((format!("{stage}{on}: loss (nats per token)"), losses));
        for (index, lines) in scores {
            drawn.push((format!("{stage}: {}", plan.study.columns[index].name), lines));
        }
    }
    Ok(drawn)
}

/// For each arm the knobs in which its runs differ from those of the baseline, or of the first arm.
fn changes(plan: &Plan) -> Result<String> {
    let run = plan.arms.iter().filter(|arm| !arm.seeds.is_empty());
    let Some(baseline) = run.clone().find(|arm| arm.arm.baseline).or_else(|| run.clone().next()) else {
        return Ok(String::new());
    };
    let config = |job: usize| -> Config {
        let mut config = plan.jobs[job].config.clone();
        // Which files and folders these are follows from the rest.
        config.model.from = String::from(if config.model.from.is_empty() { "" } else { "the stage before" });
        config.model.vocabulary.clear();
        config
    };
    let mut text = format!("<p>Beside those of {}:</p>\n<table>", escape(&baseline.arm.name));
    for arm in run.filter(|arm| arm.arm.name != baseline.arm.name) {
        let mut lines: Vec<String> = Vec::new();
        for (stage, column, job) in &arm.seeds[0].stages {
            let same = |other: &&(String, Option<usize>, usize)| other.0 == *stage && other.1 == *column;
            match baseline.seeds[0].stages.iter().find(same) {
                Some((_, _, other)) => {
                    for difference in config(*other).differences(&config(*job))? {
                        let line = format!("{stage}: {difference}");
                        if !lines.contains(&line) {
                            lines.push(line);
                        }
                    }
                }
                None => {
                    let line = format!("{stage}: runs of its own");
                    if !lines.contains(&line) {
                        lines.push(line);
                    }
                }
            }
        }
        let vocabularies = [baseline, arm].map(|arm| {
            let (_, _, first) = arm.seeds[0].stages.first()?;
            let vocabulary = plan.vocabulary_of(&plan.jobs[*first])?;
            Value::try_from(&plan.jobs[vocabulary].config.vocabulary).ok()
        });
        if let [Some(one), Some(other)] = &vocabularies {
            compare(one, other, "vocabulary", &mut lines);
        }
        if let Some(ensemble) = &arm.arm.ensemble {
            lines.push(format!("{} models, each with its own seed from {} on", ensemble.members, ensemble.from));
        }
        let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
        let _ = write!(text, "<tr><td>{}</td><td>{}</td></tr>", escape(&arm.arm.name), lines.join("<br>"));
    }
    Ok(text + "</table>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(20_785), (2026, 11, 28));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }
}
