//! One self-contained HTML page about a run: curves, the last evaluation's samples, the configuration.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::record::{self, Entry, EvaluationReport, LogRecord, RanksRecord};
use crate::{Error, Result};

/// Size of a chart in pixels, and its margins.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 10.0;

/// More points than this would only make the page larger: neighbours are averaged.
const POINTS: usize = 600;

/// A named line.
pub(crate) struct Line {
    pub name: String,
    pub points: Points,
}

/// Values by step; NaN where a score is no number.
pub(crate) type Points = Vec<(f64, f64)>;

/// What the page is made of: the log and the configuration.
pub fn files(run: &Path) -> [PathBuf; 2] {
    [run.join("log.jsonl"), run.join("config.toml")]
}

/// Reads a run's log and gives the page.
///
/// # Errors
/// Where the folder has no log, or the log is damaged.
pub fn html(run: &Path) -> Result<String> {
    let [path, config] = files(run);
    let records = records(run)?;
    let last = records.last().ok_or_else(|| Error::file(&path, "expected log records, found none"))?;
    let config = fs::read_to_string(config).unwrap_or_default();

    let title = run.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
         <h1>{0}</h1>\n<p>{1} steps, {2} tokens, {3} of training{4}.</p>\n<div class=\"charts\">\n",
        escape(&title),
        last.step,
        thousands(last.tokens),
        duration(last.seconds),
        exchanged(&records),
    );
    for (name, lines) in charts(&records) {
        page += &chart(&name, &lines);
    }
    page += "</div>\n";
    let evaluations = records.iter().rev().find_map(|record| match &record.entry {
        Entry::Evaluation { report, .. } => Some((record.step, report)),
        Entry::Train { .. } => None,
    });
    if let Some((step, report)) = evaluations {
        page += &evaluation(step, report);
    }
    if !config.is_empty() {
        let _ = write!(page, "<h2>Configuration</h2>\n<pre>{}</pre>\n", escape(&config));
    }
    page += "</html>\n";
    Ok(page)
}

/// A run's log.
///
/// # Errors
/// Where the folder has none, or it is damaged.
pub(crate) fn records(run: &Path) -> Result<Vec<LogRecord>> {
    let [path, _] = files(run);
    let text = record::read_log(&path)?;
    let record = |(index, line)| {
        serde_json::from_str(line)
            .map_err(|error| Error::data(&path, index + 1, format!("expected a log record: {error}")))
    };
    let (whole, rest) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
    let mut records: Vec<LogRecord> = whole.lines().enumerate().map(record).collect::<Result<_>>()?;
    // Half a line may be left of a process that was stopped, or of one that writes at this moment.
    records.extend(serde_json::from_str::<LogRecord>(rest));
    Ok(records)
}

/// What several ranks exchanged, in words; nothing where there was one.
fn exchanged(records: &[LogRecord]) -> String {
    let all = records.iter().filter_map(|record| of_ranks(&record.entry));
    let (mut size, mut bytes, mut seconds) = (0, 0, 0.0);
    for ranks in all {
        size = ranks.size;
        bytes += ranks.bytes;
        seconds += ranks.seconds;
    }
    if size == 0 {
        return String::new();
    }
    format!(", by {size} ranks, each of which exchanged {:.2} GB in {}", bytes as f64 / 1e9, duration(seconds))
}

/// What is drawn: training curves beside those of the evaluation, then one chart for each task.
fn charts(records: &[LogRecord]) -> Vec<(String, Vec<Line>)> {
    type Value = fn(&Entry) -> Option<f64>;
    let line = |name: &str, value: Value| Line {
        name: name.to_owned(),
        points: records.iter().filter_map(|record| Some((record.step as f64, value(&record.entry)?))).collect(),
    };
    macro_rules! train {
        ($field:ident) => {
            |entry| match entry {
                Entry::Train { $field, .. } => Some(*$field),
                Entry::Evaluation { .. } => None,
            }
        };
    }
    macro_rules! dev {
        ($field:ident) => {
            |entry| match entry {
                Entry::Evaluation { $field, .. } => Some(*$field),
                Entry::Train { .. } => None,
            }
        };
    }
    let mut charts = vec![
        (
            "Loss (nats per token)".to_owned(),
            vec![
                line("train", train!(loss)),
                line("dev", dev!(loss)),
                line("from teacher", |entry| match entry {
                    Entry::Train { divergence, .. } => *divergence,
                    Entry::Evaluation { .. } => None,
                }),
            ],
        ),
        ("Accuracy of the next token".to_owned(), vec![line("train", train!(accuracy)), line("dev", dev!(accuracy))]),
        ("Learning rate".to_owned(), vec![line("rate", train!(rate))]),
        ("Gradient norm".to_owned(), vec![line("norm", train!(gradient_norm))]),
        ("Tokens a second".to_owned(), vec![line("tok/s", train!(tokens_per_second))]),
        ("Efficiency of the ranks".to_owned(), vec![line("efficiency", |entry| Some(of_ranks(entry)?.efficiency))]),
        ("Seconds of exchange".to_owned(), vec![line("seconds", |entry| Some(of_ranks(entry)?.seconds))]),
    ];
    let mut by_task: BTreeMap<&str, BTreeMap<&str, Points>> = BTreeMap::new();
    for record in records {
        if let Entry::Evaluation { report, .. } = &record.entry {
            for (name, value) in &report.metrics {
                let (task, metric) = name.split_once('/').unwrap_or(("", name));
                by_task.entry(task).or_default().entry(metric).or_default().push((record.step as f64, *value));
            }
        }
    }
    for (task, metrics) in by_task {
        let lines = metrics.into_iter().map(|(name, points)| Line { name: name.to_owned(), points });
        charts.push((task.to_owned(), lines.collect()));
    }
    charts
}

fn of_ranks(entry: &Entry) -> Option<&RanksRecord> {
    match entry {
        Entry::Train { ranks, .. } => ranks.as_ref(),
        Entry::Evaluation { .. } => None,
    }
}

/// One chart as inline SVG.
pub(crate) fn chart(title: &str, lines: &[Line]) -> String {
    let lines: Vec<Line> = lines.iter().filter(|line| !line.points.is_empty()).map(thin).collect();
    if lines.is_empty() {
        return String::new();
    }
    let all = || lines.iter().flat_map(|line| &line.points);
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.filter(|value| value.is_finite()).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (left, right) = bounds(&mut all().map(|point| point.0));
    let (low, high) = bounds(&mut all().map(|point| point.1));
    let ticks = ticks(low, high);
    let (low, high) = (low.min(ticks[0]), high.max(ticks[ticks.len() - 1]));
    let x = |value: f64| LEFT + (value - left) / (right - left).max(1e-12) * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low).max(1e-12) * (HEIGHT - BOTTOM - TOP);

    let mut svg = format!("<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\">", escape(title));
    for tick in &ticks {
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            WIDTH - 10.0,
            y(*tick),
            LEFT - 6.0,
            y(*tick) + 4.0,
            number(*tick)
        );
    }
    for (value, anchor) in [(left, "start"), (right, "end")] {
        let (x, y) = (x(value), HEIGHT - 8.0);
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">step {value}</text>");
    }
    for (index, line) in lines.iter().enumerate() {
        let drawn: Vec<(f64, f64)> =
            line.points.iter().filter(|point| point.1.is_finite()).map(|&(step, value)| (x(step), y(value))).collect();
        let points: String = drawn.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let color = COLORS[index % COLORS.len()];
        let _ = write!(svg, "<polyline stroke=\"{color}\" points=\"{}\"/>", points.trim_end());
        if let Some((x, y)) = drawn.last() {
            let _ = write!(svg, "<circle fill=\"{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
    }
    svg += "</svg><p>";
    for (index, line) in lines.iter().enumerate() {
        let (color, end) = (COLORS[index % COLORS.len()], line.points[line.points.len() - 1].1);
        let _ = write!(svg, "<b style=\"color:{color}\">{}</b> {} ", escape(&line.name), number(end));
    }
    svg + "</p></figure>\n"
}

/// At most [`POINTS`] points: means of neighbours that are numbers, the last one kept as it is.
fn thin(line: &Line) -> Line {
    let step = line.points.len().div_ceil(POINTS).max(1);
    let mut points: Vec<(f64, f64)> = line
        .points
        .chunks(step)
        .map(|chunk| {
            let numbers = || chunk.iter().map(|point| point.1).filter(|value| value.is_finite());
            // NaN where there is none.
            let mean = numbers().sum::<f64>() / numbers().count() as f64;
            (chunk[chunk.len() - 1].0, mean)
        })
        .collect();
    if let (Some(thinned), Some(last)) = (points.last_mut(), line.points.last()) {
        *thinned = *last;
    }
    Line { name: line.name.clone(), points }
}

/// Round numbers that span a range, about five.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    // No value at all is a number.
    if low > high {
        return vec![0.0, 1.0];
    }
    let span = (high - low).max(high.abs() * 1e-3).max(1e-9);
    let power = 10f64.powf((span / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| span / step <= 5.0).unwrap_or(span);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last.max(first + 1)).map(|i| i as f64 * step).collect()
}

fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if size != 0.0 && !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

pub(crate) fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    if minutes >= 60 { format!("{} h {} min", minutes / 60, minutes % 60) } else { format!("{seconds:.0} s") }
}

fn evaluation(step: u64, report: &EvaluationReport) -> String {
    let mut text = format!("<h2>Evaluation after step {step}</h2>\n");
    if !report.metrics.is_empty() {
        text += "<table>";
        for (name, value) in &report.metrics {
            let _ = write!(text, "<tr><td>{}</td><td class=\"number\">{value:.2}</td></tr>", escape(name));
        }
        text += "</table>\n";
    }
    if !report.samples.is_empty() {
        text += "<table><tr><th>task</th><th>input</th><th>target</th><th>output</th></tr>\n";
        for sample in &report.samples {
            text += "<tr>";
            for cell in [&sample.task, &sample.input, &sample.target, &sample.output] {
                let _ = write!(text, "<td>{}</td>", escape(cell));
            }
            text += "</tr>\n";
        }
        text += "</table>\n";
    }
    text
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(crate) const COLORS: [&str; 12] = [
    "#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#92400e",
    "#1e3a8a", "#f472b6",
];

pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;\
padding:0 1em;color:#1f2937}\
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:1em}\
figure{margin:0;border:1px solid #e5e7eb;border-radius:6px;padding:.6em}figcaption{font-weight:600}\
figure p{margin:.2em 0 0;font-size:13px}svg{width:100%;display:block}svg text{font-size:11px;fill:#6b7280}\
.grid{stroke:#e5e7eb}polyline{fill:none;stroke-width:1.6}table{border-collapse:collapse;margin:1em 0}\
td,th{border-bottom:1px solid #e5e7eb;padding:.25em .8em .25em 0;text-align:left;vertical-align:top}\
.number{text-align:right}pre{background:#f9fafb;padding:1em;overflow:auto;font-size:13px}";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ticks_are_round_and_span_the_range() {
        assert_eq!(ticks(0.0, 4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        for (low, high) in [(0.0, 0.0), (1.3, 1.3), (-5.0, 17.0), (1e-5, 2e-5), (900.0, 1100.0)] {
            let ticks = ticks(low, high);
            assert!((2..=8).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks[0] <= low + 1e-12 && ticks[ticks.len() - 1] >= high - 1e-12, "{low} {high} {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([number(0.0), number(1.5), number(1234.5), number(1.5e-4)], ["0", "1.5", "1234", "1.50e-4"]);
        assert_eq!((thousands(7), thousands(1_234_567)), ("7".to_owned(), "1,234,567".to_owned()));
        assert_eq!((duration(59.0), duration(3720.0)), ("59 s".to_owned(), "1 h 2 min".to_owned()));
    }

    #[test]
    fn a_page_is_self_contained() {
        let folder = tempfile::tempdir().unwrap();
        let train = |step: u64| {
            let values = json!({"loss": 2.0, "z_loss": 0.0, "accuracy": 0.5, "rate": 0.01, "gradient_norm": 1.0,
                "tokens_per_second": 10.0, "peak_memory_mb": null});
            json!({"step": step, "tokens": step, "seconds": 1.0, "train": values})
        };
        let evaluation = json!({"step": 20, "tokens": 20, "seconds": 1.0, "evaluation": {"loss": 1.0, "accuracy": 0.5,
            "metrics": {"a<b/bleu": 31.5}, "samples": [{"task": "t", "input": "<i>", "target": "x", "output": "y"}]}})
        .to_string();
        fs::write(folder.path().join("log.jsonl"), format!("{}\n{}\n{evaluation}\n", train(10), train(20))).unwrap();
        let page = html(folder.path()).unwrap();
        assert!(
            page.contains("<svg") && page.contains("31.5") && page.contains("&lt;i&gt;") && page.contains("a&lt;b")
        );
        assert!(!page.contains("http") && !page.contains("src="), "nothing is loaded from elsewhere");
        // A score that is no number, and a dev loss that is none in the whole run.
        let evaluation = evaluation.replace("31.5", "null").replace(r#""loss":1.0"#, r#""loss":null"#);
        fs::write(folder.path().join("log.jsonl"), format!("{}\n{evaluation}\n", train(10))).unwrap();
        let page = html(folder.path()).unwrap();
        assert!(page.contains(r#"<td class="number">NaN</td>"#) && page.contains("</b> NaN"), "{page}");
        assert!(!page.contains("\"NaN") && !page.contains("NaN,") && !page.contains(",NaN"), "no NaN in coordinates");
        assert!(!page.contains("ranks"), "one rank says nothing of others");
        let ranks = json!({"size": 4, "bytes": 2_500_000_000u64, "seconds": 3.0, "efficiency": 0.93});
        let mut record = train(10);
        record["train"]["ranks"] = ranks;
        fs::write(folder.path().join("log.jsonl"), format!("{record}\n{record}\n")).unwrap();
        let page = html(folder.path()).unwrap();
        assert!(page.contains("by 4 ranks, each of which exchanged 5.00 GB in 6 s") && page.contains("</b> 0.93"));
        // Half a line at the end, torn inside a character.
        let half =
            [format!("{record}\n").as_bytes(), b"{\"step\": 30, \"evaluation\": {\"samples\": [\"\xe2\x82"].concat();
        fs::write(folder.path().join("log.jsonl"), half).unwrap();
        assert!(html(folder.path()).unwrap().contains("<p>10 steps, "));
        fs::write(folder.path().join("log.jsonl"), "{\n").unwrap();
        assert!(html(folder.path()).unwrap_err().to_string().contains("log.jsonl:1: expected a log record"));
    }
}
