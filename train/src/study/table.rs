//! A study's table as text: for a terminal, Markdown, CSV and LaTeX, in the form of the paper's, with the paper's own
//! figures in parentheses or below; and the table of what lies within two deviations of the best.

use std::fmt::Write;

use super::plan::Plan;
use super::score::{Cell, Results};

/// What stands for a figure that is not there.
const NONE: &str = "–";

/// What stands where nothing is said to be the best.
const LEGEND: &str = "* the best of a column; + within two standard deviations of it";

fn figure(cell: &Cell) -> String {
    match cell.deviation {
        Some(deviation) => format!("{:.2} ± {deviation:.2}", cell.mean),
        None => format!("{:.2}", cell.mean),
    }
}

fn paper(value: f64) -> String {
    if value.is_nan() { NONE.to_owned() } else { format!("{value:.2}") }
}

impl Results {
    /// Whether an arm is the best of a column, and whether it is within two deviations of it.
    fn marks(&self, arm: usize, column: usize) -> (bool, bool) {
        let judged = &self.judged[column];
        (judged.best == Some(arm), judged.within[arm])
    }

    /// Rows of cells, padded to the widest of each column.
    fn aligned(rows: &[Vec<String>]) -> String {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(index, (cell, &width))| {
                if index == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }

    /// For a terminal.
    pub fn terminal(&self, plan: &Plan) -> String {
        let header = std::iter::once(String::new()).chain(self.columns.iter().cloned()).collect();
        let mut rows: Vec<Vec<String>> = vec![header];
        for (index, arm) in self.arms.iter().enumerate() {
            let cells = arm.cells.iter().enumerate().map(|(column, cell)| match (cell, self.marks(index, column)) {
                (None, _) => format!("{NONE} "),
                (Some(cell), (true, _)) => format!("{}*", figure(cell)),
                (Some(cell), (_, true)) => format!("{}+", figure(cell)),
                (Some(cell), _) => format!("{} ", figure(cell)),
            });
            rows.push(std::iter::once(arm.name.clone()).chain(cells).collect());
            if arm.paper.iter().any(|value| !value.is_nan()) {
                rows.push(paper_row("  paper", &arm.paper));
            }
        }
        for row in &plan.study.rows {
            rows.push(paper_row(&format!("paper: {}", row.name), &row.paper));
        }
        let mut text = format!("{}\n\n{}\n{LEGEND}\n", plan.study.title, Results::aligned(&rows));
        notes(self, plan).iter().for_each(|note| {
            let _ = writeln!(text, "{note}");
        });
        text
    }

    /// In Markdown: the best of a column with a star, all within two deviations bold, the paper's figures in
    /// parentheses.
    pub fn markdown(&self, plan: &Plan) -> String {
        let mut text = format!("# {}\n\n{}\n\n| arm |", plan.study.title, plan.study.asks);
        self.columns.iter().for_each(|name| {
            let _ = write!(text, " {name} |");
        });
        text += "\n|---|";
        text += &"---:|".repeat(self.columns.len());
        text.push('\n');
        for (index, arm) in self.arms.iter().enumerate() {
            let _ = write!(text, "| {} |", arm.name);
            for (column, cell) in arm.cells.iter().enumerate() {
                let found = match (cell, self.marks(index, column)) {
                    (None, _) => NONE.to_owned(),
                    (Some(cell), (true, _)) => format!("**{}** ★", figure(cell)),
                    (Some(cell), (_, true)) => format!("**{}**", figure(cell)),
                    (Some(cell), _) => figure(cell),
                };
                let _ = write!(text, " {found} ({}) |", paper(arm.paper[column]));
            }
            text.push('\n');
        }
        for row in &plan.study.rows {
            let _ = write!(text, "| the paper's {} |", row.name);
            row.paper.iter().for_each(|&value| {
                let _ = write!(text, " ({}) |", paper(value));
            });
            text.push('\n');
        }
        text += "\n★ the best of a column; bold: within two standard deviations of it; in parentheses: the paper.\n";
        notes(self, plan).iter().for_each(|note| {
            let _ = write!(text, "\n{note}\n");
        });
        text += "\n## Within two deviations of the best\n\n| column | deviation |";
        self.arms.iter().for_each(|arm| {
            let _ = write!(text, " {} |", arm.name);
        });
        text += "\n|---|---:|";
        text += &"---:|".repeat(self.arms.len());
        text.push('\n');
        for row in self.significance() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text += "\nDeviations below the best, in units of the column's deviation (the baseline's over its seeds; where \
                 it has none, that of all arms).\n";
        text
    }

    /// For each column: its name, its deviation, and how many deviations each arm is below the best.
    fn significance(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for (column, name) in self.columns.iter().enumerate() {
            let judged = &self.judged[column];
            let best = judged.best.and_then(|best| self.arms[best].cells[column].as_ref());
            let deviation = judged.deviation.map_or(NONE.to_owned(), |deviation| format!("{deviation:.3}"));
            let mut row = vec![name.clone(), deviation];
            for (index, arm) in self.arms.iter().enumerate() {
                row.push(match (&arm.cells[column], best, judged.deviation) {
                    (Some(_), _, _) if judged.best == Some(index) => "best".to_owned(),
                    (Some(cell), Some(best), Some(deviation)) if deviation > 0.0 => {
                        let below = (best.mean - cell.mean) / deviation;
                        format!("{below:.1}{}", if judged.within[index] { ", within" } else { "" })
                    }
                    (Some(cell), Some(best), _) => format!("{:.2} points", best.mean - cell.mean),
                    _ => NONE.to_owned(),
                });
            }
            rows.push(row);
        }
        rows
    }

    /// One line for each arm and column, with the values of all seeds to the last digit.
    pub fn csv(&self) -> String {
        let mut text = "arm,column,mean,deviation,seeds,values,paper,best,within_two_deviations\n".to_owned();
        for (index, arm) in self.arms.iter().enumerate() {
            for (column, name) in self.columns.iter().enumerate() {
                let (best, within) = self.marks(index, column);
                let optional = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
                let cell = arm.cells[column].as_ref();
                let values: Vec<String> = cell.iter().flat_map(|cell| &cell.values).map(f64::to_string).collect();
                let paper = arm.paper[column];
                let _ = writeln!(
                    text,
                    "{},{},{},{},{},{},{},{best},{within}",
                    quoted(&arm.name),
                    quoted(name),
                    optional(cell.map(|cell| cell.mean)),
                    optional(cell.and_then(|cell| cell.deviation)),
                    values.len(),
                    values.join(";"),
                    optional((!paper.is_nan()).then_some(paper)),
                );
            }
        }
        text
    }

    /// A LaTeX table: the best of a column underlined, all within two deviations bold, the paper's figures small.
    pub fn latex(&self, plan: &Plan) -> String {
        let mut text =
            format!("% {}\n\\begin{{tabular}}{{l{}}}\n\\hline\n", plan.study.title, "r".repeat(self.columns.len()));
        let names: Vec<String> = self.columns.iter().map(|name| escaped(name)).collect();
        let _ = writeln!(text, " & {} \\\\\n\\hline", names.join(" & "));
        for (index, arm) in self.arms.iter().enumerate() {
            let mut row = vec![escaped(&arm.name)];
            for (column, cell) in arm.cells.iter().enumerate() {
                let found = cell.as_ref().map_or("--".to_owned(), |cell| match cell.deviation {
                    Some(deviation) => format!("{:.2} $\\pm$ {deviation:.2}", cell.mean),
                    None => format!("{:.2}", cell.mean),
                });
                let (best, within) = self.marks(index, column);
                let found = if within { format!("\\textbf{{{found}}}") } else { found };
                let found = if best { format!("\\underline{{{found}}}") } else { found };
                let value = arm.paper[column];
                let paper = if value.is_nan() { String::new() } else { format!(" {{\\scriptsize ({value:.2})}}") };
                row.push(found + &paper);
            }
            let _ = writeln!(text, "{} \\\\", row.join(" & "));
        }
        text + "\\hline\n\\end{tabular}\n"
    }
}

fn paper_row(name: &str, values: &[f64]) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(values.iter().map(|&value| format!("{} ", paper(value)))).collect()
}

/// What has to be said below a table: what columns are measured on, which arms are not run and why.
pub(super) fn notes(results: &Results, plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    for column in &plan.study.columns {
        match (column.left_out.as_str(), column.about.as_str()) {
            ("", "") => {}
            ("", about) => notes.push(format!("{}: {about}.", column.name)),
            (why, _) => notes.push(format!("{} is not measured: {why}.", column.name)),
        }
    }
    for arm in &results.arms {
        if let Some(why) = &arm.left_out {
            notes.push(format!("{} is not run: {why}.", arm.name));
        } else if arm.cells.iter().all(Option::is_none) {
            notes.push(format!("{} is not done yet.", arm.name));
        }
    }
    let seeds: Vec<String> = plan.study.seeds.iter().map(u64::to_string).collect();
    notes.push(format!("Scale {}, seeds {}.", plan.request.scale, seeds.join(", ")));
    notes
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '^' => escaped += "\\^{}",
            '~' => escaped += "\\~{}",
            '\\' => escaped += "\\textbackslash{}",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_say_mean_and_deviation() {
        assert_eq!(figure(&Cell::new(vec![1.0, 2.0, 3.0])), "2.00 ± 1.00");
        assert_eq!((figure(&Cell::new(vec![1.5])), paper(f64::NAN)), ("1.50".to_owned(), "–".to_owned()));
        assert_eq!(quoted("shared, \"x\""), "\"shared, \"\"x\"\"\"");
        assert_eq!(escaped("K=2^16 & 10 %"), "K=2\\^{}16 \\& 10 \\%");
    }
}
