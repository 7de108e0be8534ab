//! Studies: arms that share stages, kills in the middle, the table in its four forms, and what is refused.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{command, fail, prepare, succeed};
use t5_train::study::{Kind, Plan, Request, Results, StudyFile};

/// A study of two columns in a folder with a corpus, whose runs have a step each; `more` is TOML at its end.
fn study(folder: &Path, steps: u64, more: &str) -> String {
    prepare(folder, "");
    let folder_text = folder.display();
    let text = format!(
        r#"
title = "Digits and words"
asks = "Does a stage before help?"
paper = "It was not asked."
seeds = [1, 2]

[base]
run = {{ steps = {steps}, threads = 1, precision = "f32" }}
data = {{ dir = "{folder_text}", inputs_length = 32, targets_length = 32, batches = {{ tokens = 200, window = 4 }} }}
schedule = {{ peak_rate = 0.05 }}
checkpoint = {{ every_steps = 2 }}
log = {{ every_steps = 1, tensorboard = false }}
evaluation = {{ every_steps = 0, examples = 4, max_tokens = 4 }}

[base.model]
vocabulary = "{folder_text}/tokenizer.json"
d_model = 32
d_kv = 8
d_ff = 64
num_layers = 1
num_decoder_layers = 1
num_heads = 2

[[tasks]]
name = "text"
source = {{ format = "tsv", columns = ["text", ""] }}
train = ["numbers.tsv"]
examples = {{ kind = "denoise" }}
[[tasks]]
name = "digits"
source = {{ format = "tsv", columns = ["words", "digits"] }}
train = ["numbers.tsv"]
hold_out = {{ field = "digits", share = 0.05 }}
examples = {{ kind = "template", input = "number: {{words}}", target = "{{digits}}" }}
metrics = ["chrf"]
[[tasks]]
name = "words"
like = "digits"
examples = {{ kind = "template", input = "words: {{digits}}", target = "{{words}}" }}
metrics = ["chrf", "exact-match"]

[[columns]]
name = "Digits"
tasks = ["digits"]
[[columns]]
name = "Words"
tasks = ["words"]
about = "spelt out"

[[stages]]
name = "pre-train"
tasks = ["text"]
[[stages]]
name = "fine-tune"
columns = "own"
config.evaluation.every_steps = 1

[[arms]]
name = "baseline"
baseline = true
paper = [83.28, 19.24]
[[arms]]
name = "no pre-training"
paper = [66.22, nan]
skip = ["pre-train"]
{more}
"#
    );
    let path = folder.join("study.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn runs(output: &Path) -> Vec<String> {
    let names = fs::read_dir(output.join("runs")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn of_stage<'a>(names: &'a [String], stage: &str) -> Vec<&'a String> {
    names.iter().filter(|name| name.starts_with(stage)).collect()
}

#[test]
fn two_arms_become_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = study(folder, 1, "");
    let output = folder.join("out");
    let path = output.display().to_string();
    let told = succeed(&["study", &file, "--output", &path]);
    let table = String::from_utf8(told.stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "Digits and words");
    assert!(lines[2].contains("Digits") && lines[2].contains("Words"), "{table}");
    assert!(lines[3].starts_with("baseline ") && lines[3].contains(" ± "), "{table}");
    assert!(lines[4].starts_with("  paper") && lines[4].contains("83.28") && lines[4].contains("19.24"), "{table}");
    assert!(lines[6].contains("66.22") && lines[6].contains('–'), "{table}");
    assert!(table.contains("Words: spelt out.") && table.contains("seeds 1, 2."), "{table}");
    assert_eq!(table.matches('*').count(), 3, "a best of each column and the legend: {table}");

    // One pre-training for each seed, two runs of fine-tuning for each arm and seed.
    let names = runs(&output);
    assert_eq!((of_stage(&names, "pre-train-").len(), of_stage(&names, "fine-tune-").len()), (2, 8), "{names:?}");
    let read = |name: &str| fs::read_to_string(output.join(name)).unwrap();
    let csv = read("table.csv");
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(csv.lines().nth(1).unwrap().starts_with("baseline,Digits,"), "{csv}");
    assert!(read("table.md").contains("(83.28)") && read("table.md").contains("## Within two deviations"));
    assert!(read("table.tex").contains("\\underline{") && read("table.tex").contains("$\\pm$"));
    let page = read("study.html");
    let machine = "Of the machine that wrote this page";
    for expected in ["<svg", "<rect", "What arms change", "no pre-training", "fine-tune: model.from was", machine] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(!page.contains("http") && !page.contains("src="), "nothing is loaded from elsewhere");

    // Called again it has nothing to do, and says the same.
    let again = succeed(&["study", &file, "--output", &path]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
    assert_eq!(runs(&output), names);
    // One arm alone, side by side: the same values.
    let other = folder.join("other");
    let path = other.display().to_string();
    succeed(&["study", &file, "--output", &path, "--arm", "no pre-training", "--jobs", "3"]);
    let names = runs(&other);
    assert_eq!((of_stage(&names, "pre-train-").len(), of_stage(&names, "fine-tune-").len()), (0, 4), "{names:?}");
    let lines = |text: &str| -> Vec<String> {
        let mean = |line: &str| line.split(',').take(6).collect::<Vec<_>>().join(",");
        text.lines().filter(|line| line.starts_with("no pre")).map(mean).collect()
    };
    assert_eq!(lines(&fs::read_to_string(other.join("table.csv")).unwrap()), lines(&csv));
    // A changed knob is another run; the first ones stay.
    let more = ["--set", "schedule.peak_rate=0.04", "--arm", "no pre-training", "--columns", "Digits"];
    succeed(&[&["study", &file, "--output", &path][..], &more].concat());
    assert_eq!(runs(&other).len(), 6);
}

#[test]
fn killed_studies_go_on_to_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = study(folder, 7, "[[arms]]\nname = \"two\"\nensemble = { members = 2, from = \"fine-tune\" }\n");
    let whole = folder.join("whole");
    succeed(&["study", &file, "--output", &whole.display().to_string()]);
    let killed = folder.join("killed");
    let path = killed.display().to_string();
    let arguments = ["study", &file, "--output", &path];
    let mut kills = 0;
    // Each attempt has a little longer: the first are killed on any machine, and the later ones in the later stages.
    for attempt in 1..=40 {
        let mut child = command(&arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15 * attempt));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(!ended || status.success(), "{status}");
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 4, "{kills} kills");
    succeed(&arguments);
    for name in ["table.csv", "table.md", "table.tex"] {
        let read = |folder: &Path| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read(&killed), read(&whole), "{name}");
    }
    let names = runs(&killed);
    assert_eq!(names, runs(&whole));
    // An ensemble's members are runs of the arm before and one more for each column and seed.
    assert_eq!((of_stage(&names, "ensemble-").len(), of_stage(&names, "fine-tune-").len()), (4, 12), "{names:?}");
    assert_eq!(of_stage(&names, "pre-train-").len(), 2);
    // The mean of two is neither of them.
    let csv = fs::read_to_string(whole.join("table.csv")).unwrap();
    assert_eq!(csv.lines().filter(|line| line.starts_with("two,")).count(), 2, "{csv}");
}

#[test]
fn what_cannot_be_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let more = "[[tasks]]\nname = \"gone\"\nlike = \"text\"\ntrain = [\"gone.txt\"]\n\
                published = \"https://example.org\"\n\
                [[arms]]\nname = \"gone\"\nstages.pre-train.tasks = [\"gone\"]\n\
                [[arms]]\nname = \"one stack\"\nneeds = \"models of one stack\"\n";
    let file = study(folder, 1, more);
    let path = folder.join("out").display().to_string();
    let arguments = ["study", &file, "--output", &path];
    let message = |more: &[&str]| fail(&[&arguments[..], more].concat()).trim_end().to_owned();
    let gone = format!("task gone: expected {}, found none", folder.join("gone.txt").display());
    let gone = format!("{gone}; its authors publish it at https://example.org");
    let told = message(&["--arm", "gone"]);
    assert!(told.ends_with(&format!("arm gone: {gone}")), "{told}");
    let told = message(&["--arm", "one stack"]);
    assert!(told.ends_with("arm one stack: it needs models of one stack, which are not there yet"), "{told}");
    let told = message(&["--arm", "none"]);
    let known = "--arm: expected one of baseline, no pre-training, gone, one stack, found none";
    assert!(told.contains(known), "{told}");
    assert!(message(&["--columns", "GLUE"]).contains("--columns: expected one of Digits, Words, found GLUE"));
    assert!(message(&["--set", "run.step=3"]).contains("did you mean run.steps?"));
    for set in ["run.seed=7", "run={seed=7}", "run.output=out"] {
        let told = message(&["--set", set]);
        let expected = "--set: expected another knob than run.";
        assert!(told.contains(expected) && told.ends_with(&format!("found {set}")), "{told}");
    }
    let told = message(&["--scale", "huge"]);
    assert!(told.ends_with(&format!("--scale: expected none, as {file} has no scales, found huge")), "{told}");
    // The others are run, and the table says why these are not.
    let told = succeed(&[&arguments[..], &["--columns", "Digits", "--set", "checkpoint.every_steps=1"]].concat());
    let errors = String::from_utf8(told.stderr).unwrap();
    assert!(errors.contains(&format!("arm gone is left out: {gone}")), "{errors}");
    let table = String::from_utf8(told.stdout).unwrap();
    assert!(table.contains("one stack is not run: it needs models of one stack"), "{table}");
    assert!(table.contains("Words is not measured: not asked for."), "{table}");

    let broken = |from: &str, to: &str| {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        let other = folder.join("broken.toml");
        fs::write(&other, text.replacen(from, to, 1)).unwrap();
        fail(&["study", &other.display().to_string(), "--output", &path])
    };
    let told = broken("skip = [\"pre-train\"]", "skip = [\"pretrain\"]");
    assert!(told.contains("arms.no pre-training: expected the name of a stage, found pretrain"), "{told}");
    let told = broken("paper = [83.28, 19.24]", "paper = [83.28]");
    assert!(told.contains("baseline.paper: expected 2 figures, one for each column, found 1"), "{told}");
    let told = broken("columns = \"own\"", "columns = \"none\"\ntasks = [\"digits\"]");
    assert!(told.contains("fine-tune: expected a last stage that learns the columns' own tasks"), "{told}");
    let told = broken("tasks = [\"words\"]", "tasks = [\"wurds\"]");
    assert!(told.contains("expected a task wurds, found none of this name"), "{told}");
    let told = broken("seeds = [1, 2]", "seeds = []");
    assert!(told.contains("seeds: expected one or more, found none"), "{told}");
    let told = broken("asks =", "ask =");
    assert!(told.contains("study: ask is not known; did you mean asks?"), "{told}");
}

#[test]
fn a_data_set_that_is_not_there_is_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data.dir={}", folder.path().join("none").display());
    let output = folder.path().join("out").display().to_string();
    let table2 = tables()[1].display().to_string();
    for (more, what) in [(&[][..], "no arm can be run"), (&["--arm", "encoder-decoder, denoising"], "arm ")] {
        let message = fail(&[&["study", &table2, "--output", &output, "--set", &data][..], more].concat());
        let mut lines: Vec<&str> = message.lines().collect();
        let last = lines.pop().unwrap();
        assert!(last.starts_with(&format!("t5-train: {what}")), "{message}");
        assert!(last.ends_with(&format!(": expected what the {} lines above name", lines.len())), "{message}");
        assert!(lines.len() > 3 && lines.iter().all(|line| line.starts_with("task ")), "{message}");
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count, "each once: {message}");
    }
}

/// The files of the paper's tables.
fn tables() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("studies");
    [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].map(|number| folder.join(format!("table{number}.toml"))).into()
}

#[test]
fn the_paper_s_studies_are_whole_at_every_scale() {
    // Files of all names that the studies read, empty: what is planned does not depend on them.
    let folder = tempfile::tempdir().unwrap();
    for file in tables() {
        for scale in ["tiny", "small", "base"] {
            let study = StudyFile::load(&file, scale).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(study.seeds.len(), 3);
            for task in &study.tasks {
                let names = |key: &str| task.get(key).and_then(|value| value.as_array()).cloned().unwrap_or_default();
                for name in names("train").into_iter().chain(names("dev")) {
                    let path = folder.path().join(name.as_str().unwrap());
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "").unwrap();
                }
            }
            let request = Request {
                file: file.clone(),
                scale: scale.to_owned(),
                output: folder.path().join("out"),
                sets: vec![format!("data.dir={}", folder.path().display())],
                ..Request::default()
            };
            let plan = Plan::new(&request).unwrap_or_else(|error| panic!("{scale}: {error}"));
            let whole = plan.arms.iter().all(|arm| arm.seeds.len() == 3 || !arm.arm.needs.is_empty());
            assert!(whole, "{}", file.display());
            let columns = if scale == "base" { 7 } else { 6 };
            assert_eq!(plan.measured().count(), columns, "{}", file.display());
            for arm in plan.arms.iter().filter(|arm| !arm.seeds.is_empty()) {
                assert_eq!(arm.seeds[0].columns.len(), columns, "{}", arm.arm.name);
            }
            assert!(plan.study.arms.iter().any(|arm| arm.paper.len() == 7), "{}", file.display());
        }
    }
}

#[test]
fn arms_share_what_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = study(
        folder.path(),
        1,
        "[[arms]]\nname = \"all but one\"\nstages.pre-train = { columns = \"others\", tasks = [] }\n\
         [[arms]]\nname = \"at once\"\nskip = [\"pre-train\"]\n\
         stages.fine-tune = { columns = \"all\", config.run.steps = 2 }\n\
         [[arms]]\nname = \"four\"\nensemble = { members = 4, from = \"pre-train\" }\n",
    );
    let request = Request { file: file.into(), scale: "tiny".to_owned(), ..Request::default() };
    let plan = Plan::new(&request).unwrap();
    let titles: Vec<&str> = plan.jobs.iter().map(|job| job.title.as_str()).collect();
    let count = |start: &str| titles.iter().filter(|title| title.starts_with(start)).count();
    // Seeds 1 and 2: the baseline's, all but one's for each column, three more members of each ensemble.
    assert_eq!(count("pre-train,"), 2 + 2 * 3, "{titles:?}");
    assert_eq!(count("pre-train Digits,"), 2, "{titles:?}");
    assert_eq!(count("fine-tune,"), 2, "at once: {titles:?}");
    assert_eq!(count("ensemble Words"), 2, "{titles:?}");
    let leave_out = plan.jobs.iter().find(|job| job.title == "pre-train Digits, seed 1").unwrap();
    let names: Vec<&str> = leave_out.config.data.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["words"], "what is left out of it is its own");
    let at_once = plan.jobs.iter().find(|job| job.title == "fine-tune, seed 2").unwrap();
    assert_eq!(at_once.config.data.tasks.len(), 2);
    assert_eq!(at_once.config.evaluation.best_by, "digits/chrf,words/chrf,words/exact-match");
    // Of each seed: a pre-training and two runs of fine-tuning; of an ensemble so many of each member.
    let runs = |name: &str| plan.runs(plan.arms.iter().find(|arm| arm.arm.name == name).unwrap()).len();
    assert_eq!((runs("baseline"), runs("at once"), runs("four")), (2 * 3, 2, 2 * 4 * 3));
    let page = Results::read(&plan).unwrap().page(&plan).unwrap();
    assert!(page.contains("<td>four</td><td class=\"number\">0 s</td><td class=\"number\">24 runs</td>"), "{page}");
}

#[test]
fn an_arm_has_the_vocabulary_of_its_own_knobs() {
    let folder = tempfile::tempdir().unwrap();
    let file = study(folder.path(), 1, "[[arms]]\nname = \"fewer pieces\"\nall.vocabulary.pieces = 120\n");
    let (text, named) =
        (fs::read_to_string(&file).unwrap(), format!("vocabulary = \"{}/tokenizer.json\"\n", folder.path().display()));
    assert!(text.contains(&named), "{text}");
    let trained = "seeds = [1, 2]\nvocabulary = [\"text\"]\n";
    fs::write(&file, text.replace(&named, "").replace("seeds = [1, 2]\n", trained)).unwrap();
    let request = Request { file: file.into(), scale: "tiny".to_owned(), ..Request::default() };
    let plan = Plan::new(&request).unwrap();
    let vocabularies = plan.jobs.iter().filter(|job| job.kind == Kind::Vocabulary);
    assert_eq!(vocabularies.map(|job| job.config.vocabulary.pieces).collect::<Vec<_>>(), [8000, 120]);
    let names = |name: &str| -> BTreeSet<&str> {
        let arm = plan.arms.iter().find(|arm| arm.arm.name == name).unwrap();
        plan.runs(arm).into_iter().map(|run| plan.jobs[run].config.model.vocabulary.as_str()).collect()
    };
    assert_eq!((names("baseline").len(), names("fewer pieces").len()), (1, 1), "all runs of an arm have one");
    assert_eq!(names("no pre-training"), names("baseline"));
    assert_ne!(names("fewer pieces"), names("baseline"));
    let page = Results::read(&plan).unwrap().page(&plan).unwrap();
    assert!(page.contains("<td>fewer pieces</td><td>vocabulary.pieces was 8000 and is 120</td>"), "{page}");
}
