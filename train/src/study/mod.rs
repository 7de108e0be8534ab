//! Studies: the experiments of the T5 paper, and others of their form. A study has arms that differ in a few knobs, and
//! each goes through the same stages: it learns unlabelled texts, then each column's tasks, and is judged by them
//! through the runtime. `file` is its form, `plan` the jobs that follow from it, `run` does them, `score` makes figures
//! of what was found, `table` and `page` show them.

mod file;
mod page;
mod plan;
mod run;
mod score;
mod table;

pub use file::{StudyFile, USUAL_SCALE};
pub use plan::{Job, Kind, Plan, Request};
pub use run::{Train, run};
pub use score::{ArmResult, Cell, Judged, Results};

use std::path::PathBuf;

use crate::{Result, files};

/// Writes a study's results into its folder, as far as they are there: `table.md`, `table.csv`, `table.tex` and
/// `study.html`. Gives the page's path.
///
/// # Errors
/// Where a file cannot be written, or a job's log is damaged.
pub fn write(plan: &Plan, results: &Results) -> Result<PathBuf> {
    let folder = &plan.request.output;
    files::create_folder(folder)?;
    let page = folder.join("study.html");
    for (name, text) in [
        ("table.md", results.markdown(plan)),
        ("table.csv", results.csv()),
        ("table.tex", results.latex(plan)),
        ("study.html", results.page(plan)?),
    ] {
        files::replace(&folder.join(name), text.as_bytes())?;
    }
    Ok(page)
}
