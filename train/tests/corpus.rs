//! The command `corpus` on pages with planted faults and repeats, beside a plain loop; killed and gone on with; and a
//! run from the ids that it makes.

mod common;
#[path = "common/corpora.rs"]
mod corpora;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{command, fail, prepare, run, succeed, write_corpus};
use corpora::{config, contents, kept, pages, plain_loop, write_pages};
use t5_train::corpus::repeats::Unit;
use t5_train::files::open_alone;

#[test]
fn a_corpus_is_what_a_plain_loop_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(3000);
    write_pages(&dir.path().join("pages"), &pages);
    for (unit, name) in [(Unit::Lines, "lines"), (Unit::Spans, "spans")] {
        let path = config(dir.path(), name, &format!("repeats = \"{name}\"\nvalidation_per_thousand = 100"));
        let output = succeed(&["corpus", path.to_str().unwrap(), "--keep-removed", "2"]);
        let table = String::from_utf8(output.stdout).unwrap();
        let corpus = dir.path().join(name);
        let (train, validation) = (kept(&corpus, "train"), kept(&corpus, "validation"));
        let expected = plain_loop(&pages, unit);
        // About a tenth is held out: standard deviation 14 of 2,000.
        assert!(validation.len() * 20 > expected.len() && validation.len() * 7 < expected.len(), "{table}");
        let both: BTreeMap<String, String> = train.into_iter().chain(validation).collect();
        assert_eq!(both.len(), expected.len(), "{table}");
        assert_eq!(both, expected);
        for row in [
            "3000           pages read",
            "removed: of an address that another page has",
            "removed: lorem ipsum",
            "removed: a {",
            "removed: fewer than three sentences\n",
            "removed: fewer than three sentences that are not elsewhere",
            "removed: another language",
            "lines removed: no mark at the end, or ...",
            "lines removed: fewer than five words",
            "lines removed: JavaScript",
            "lines removed: cookies, terms or privacy",
            "lines or spans removed: elsewhere, too",
        ] {
            assert!(table.contains(row), "{row} in\n{table}");
        }
        // Removed and kept pages are all pages.
        let counts = |start: &str| -> u64 {
            let rows = table.lines().filter(|line| line.contains(start) && !line.contains("lines"));
            rows.map(|line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
        };
        assert_eq!(counts("removed:") + counts(" kept "), 3000, "{table}");
        let samples = fs::read_to_string(corpus.join("removed.jsonl")).unwrap();
        assert_eq!(samples.lines().filter(|line| line.contains("\"rule\":\"lorem-ipsum\"")).count(), 2, "{samples}");
        assert!(!corpus.join("work").exists());
        // Again there is nothing to do; with another rule there is.
        let before = contents(&corpus);
        let again = succeed(&["corpus", path.to_str().unwrap(), "--keep-removed", "2"]);
        assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
        assert!(String::from_utf8(again.stderr).unwrap().contains("was made before"));
        assert_eq!(contents(&corpus), before);
        let other = succeed(&["corpus", path.to_str().unwrap(), "--set", "language="]);
        assert!(!String::from_utf8(other.stdout).unwrap().contains("another language"));
    }
}

#[test]
fn a_killed_job_goes_on_and_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(6000);
    write_pages(&dir.path().join("pages"), &pages);
    write_corpus(dir.path());
    let more = "threads = 1\nvalidation_per_thousand = 100";
    let whole = config(dir.path(), "whole", more);
    succeed(&["corpus", whole.to_str().unwrap()]);
    let expected = contents(&dir.path().join("whole"));
    let path = config(dir.path(), "killed", more);
    let (mut kills, mut wait) = (0, 20);
    loop {
        let mut process = command(&["corpus", path.to_str().unwrap()]);
        let mut child = process.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        wait = wait * 4 / 3;
    }
    assert!(kills > 0);
    let mut found = contents(&dir.path().join("killed"));
    // Of what a killed process began nothing is left, and its name is its own.
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let report = Path::new("report.json");
    let without_name = |bytes: &[u8]| {
        let mut value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        value.as_object_mut().unwrap().remove("made_of");
        value
    };
    assert_eq!(without_name(&found[report]), without_name(&expected[report]));
    found.insert(report.to_owned(), expected[report].clone());
    assert!(found == expected, "{kills} kills");
}

#[test]
fn a_run_from_shards_is_the_run_from_the_text() {
    let dir = tempfile::tempdir().unwrap();
    write_corpus(dir.path());
    let folder = dir.path().display();
    let numbers = fs::read_to_string(dir.path().join("numbers.tsv")).unwrap();
    fs::create_dir(dir.path().join("pages")).unwrap();
    fs::write(dir.path().join("pages/text.txt"), numbers.replace('\t', " is ")).unwrap();
    let train = |name: &str, task: &str| {
        let text = format!(
            "[run]\noutput = \"{folder}/{name}\"\nsteps = 6\n[model]\nvocabulary = \"{folder}/tokenizer.json\"\n\
             d_model = 16\nd_kv = 8\nd_ff = 32\nnum_layers = 1\nnum_decoder_layers = 1\nnum_heads = 2\n\
             [data]\ndir = \"{folder}\"\ninputs_length = 40\ntargets_length = 30\nlimit_tokens = 5000\n\
             [[data.tasks]]\nname = \"text\"\n{task}\nexamples = {{ kind = \"denoise\", concatenate = true }}\n\
             [data.batches]\nrows = 4\nencoder_length = 80\ndecoder_length = 60\nwindow = 4\n\
             [vocabulary]\npieces = 150\n[evaluation]\nevery_steps = 0\n"
        );
        let path = dir.path().join(format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = train("text", "train = [\"pages/text.txt\"]");
    let tokenizer = dir.path().join("tokenizer.json");
    succeed(&["vocab", &text, "-o", tokenizer.to_str().unwrap()]);
    let more = format!("variant = \"text\"\ndocuments = \"lines\"\nvocabulary = \"{folder}/tokenizer.json\"");
    succeed(&["corpus", config(dir.path(), "corpus", &more).to_str().unwrap()]);
    let shards = train("shards", "source = { format = \"shards\" }\ntrain = [\"corpus/shards/train\"]");
    let weights = |config: &str, name: &str| {
        succeed(&["run", config]);
        let run = dir.path().join(name);
        let found = contents(&run).into_iter().filter(|(path, _)| path.ends_with("model.safetensors"));
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty());
        found
    };
    assert!(weights(&text, "text") == weights(&shards, "shards"), "other weights");
    // Shards that were changed are refused before anything is trained.
    let ids = dir.path().join("corpus/shards/train/00000.ids");
    let mut bytes = fs::read(&ids).unwrap();
    bytes[100] ^= 1;
    fs::write(&ids, bytes).unwrap();
    let message = fail(&["run", &shards]);
    assert!(message.contains("00000.ids: was changed or damaged"), "{message}");
    assert_eq!(message.lines().filter(|line| line.contains("00000.ids")).count(), 1, "{message}");
}

#[test]
fn a_corpus_stays_until_another_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    write_pages(&dir.path().join("pages"), &pages(300));
    let path = config(dir.path(), "corpus", "");
    let path = path.to_str().unwrap();
    succeed(&["corpus", path]);
    let before = contents(&dir.path().join("corpus"));
    // Other rules that keep nothing: there is no corpus by them.
    let message = fail(&["corpus", path, "--set", "language=de", "--set", "language_confidence=1.0"]);
    assert!(message.contains("expected pages that the rules keep, found none"), "{message}");
    let mut found = contents(&dir.path().join("corpus"));
    found.retain(|path, _| !path.starts_with("work"));
    assert!(found == before, "the corpus that was there is another now");
    // The first is made by its own rules still.
    let again = succeed(&["corpus", path]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("was made before"));
    // A corpus of fewer files has no file of the one before it.
    fs::remove_file(dir.path().join("pages/002.warc.wet.gz")).unwrap();
    succeed(&["corpus", path]);
    let found = contents(&dir.path().join("corpus"));
    let parts =
        |found: &BTreeMap<std::path::PathBuf, Vec<u8>>| found.keys().filter(|path| path.starts_with("train")).count();
    assert_eq!((parts(&before), parts(&found)), (3, 2));
}

#[test]
fn shards_go_with_the_texts_that_they_are_of() {
    let dir = tempfile::tempdir().unwrap();
    write_pages(&dir.path().join("pages"), &pages(300));
    prepare(dir.path(), "");
    let path = config(dir.path(), "corpus", "");
    let path = path.to_str().unwrap();
    let vocabulary = format!("vocabulary={}", dir.path().join("tokenizer.json").display());
    let indices =
        || ["train", "validation"].map(|split| dir.path().join("corpus/shards").join(split).join("index.json"));
    succeed(&["corpus", path, "--set", &vocabulary]);
    assert!(indices().iter().all(|index| index.exists()));
    // The same texts, of which no shards are asked for.
    succeed(&["corpus", path]);
    assert!(indices().iter().all(|index| index.exists()));
    succeed(&["corpus", path, "--set", "clean=false"]);
    assert!(!indices().iter().any(|index| index.exists()));
    succeed(&["corpus", path, "--set", &vocabulary]);
    assert!(indices().iter().all(|index| index.exists()));
}

#[test]
fn what_another_process_works_on_stays() {
    let dir = tempfile::tempdir().unwrap();
    write_pages(&dir.path().join("pages"), &pages(300));
    let path = config(dir.path(), "corpus", "");
    let path = path.to_str().unwrap();
    succeed(&["corpus", path]);
    let work = dir.path().join("corpus/work");
    fs::create_dir(&work).unwrap();
    let alone = open_alone(&work.join("lock"), "it is free").unwrap();
    let made_before = || {
        let output = succeed(&["corpus", path]);
        assert!(String::from_utf8(output.stderr).unwrap().contains("was made before"));
    };
    made_before();
    assert!(work.exists());
    // Other rules are another's, too.
    let message = fail(&["corpus", path, "--set", "language="]);
    assert!(message.contains("expected a corpus that no other process makes at this moment"), "{message}");
    drop(alone);
    made_before();
    assert!(!work.exists());
}

#[test]
fn what_a_job_would_write_over_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "corpus", "variant = \"text\"");
    let path = path.to_str().unwrap();
    let output = dir.path().join("own");
    let set_output = format!("output={}", output.display());
    let page = "{\"text\": \"A page.\"}\n";
    for (file, place, inputs) in [
        ("work/wet/a.jsonl", "work", ["work", "work/wet"]),
        ("train/part-00000.jsonl", "train", ["train", "train/part-00000.jsonl"]),
        ("removed.jsonl", "removed.jsonl", ["removed.jsonl", "../own/removed.jsonl"]),
    ] {
        fs::create_dir_all(output.join(file).parent().unwrap()).unwrap();
        fs::write(output.join(file), page).unwrap();
        for input in inputs.map(|input| output.join(input)) {
            let set_input = format!("input=[\"{}\"]", input.display());
            let message = fail(&["corpus", path, "--set", &set_input, "--set", &set_output]);
            let (place, input) = (output.join(place).display().to_string(), input.display());
            let expected = format!("input: expected files outside {place}, which the job writes, found {input}");
            assert!(message.contains(&expected), "{message}");
        }
        assert_eq!(fs::read_to_string(output.join(file)).unwrap(), page);
    }
    // Nor is a folder between the steps taken that is not a job's.
    fs::create_dir(dir.path().join("pages")).unwrap();
    fs::write(dir.path().join("pages/a.jsonl"), page).unwrap();
    let message = fail(&["corpus", path, "--set", &set_output]);
    assert!(message.contains("own/work: expected a folder that a job left"), "{message}");
    assert!(output.join("work/wet/a.jsonl").exists());
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("pages")).unwrap();
    let path = config(dir.path(), "corpus", "");
    let path = path.to_str().unwrap();
    assert!(fail(&["corpus", path]).contains("pages: expected a folder with files, found none"));
    #[cfg(not(feature = "stores"))]
    {
        let message = fail(&["corpus", path, "--set", "input=[\"s3://bucket/pages/\"]"]);
        let expected = "s3://bucket/pages/: expected a file of this machine, since this t5-train was built without";
        assert!(message.contains(expected), "{message}");
    }
    let pages = dir.path().join("pages");
    for output in [&pages, &pages.join("made/corpus"), &dir.path().join("pages/../pages/corpus")] {
        let message = fail(&["corpus", path, "--set", &format!("output={}", output.display())]);
        let (pages, output) = (pages.display(), output.display());
        let expected = format!("output: expected a folder outside the input {pages}, which is read, found {output}");
        assert!(message.contains(&expected), "{message}");
    }
    assert_eq!(fs::read_dir(&pages).unwrap().count(), 0);
    fs::write(dir.path().join("pages/.hidden"), "").unwrap();
    fs::write(dir.path().join("pages/empty.jsonl"), "").unwrap();
    let message = fail(&["corpus", path]);
    assert!(message.ends_with("expected pages that the rules keep, found none of 0 read\n"), "{message}");
    fs::write(dir.path().join("pages/a.jsonl"), "{\"text\": \"Too short.\"}\n").unwrap();
    let message = fail(&["corpus", path]);
    let expected = "expected pages that the rules keep, found none of 1 read, 1 removed (fewer than three sentences)\n";
    assert!(message.ends_with(expected), "{message}");
    fs::write(dir.path().join("pages/a.jsonl"), "{\"text\": \n").unwrap();
    assert!(fail(&["corpus", path]).contains("a.jsonl:1: expected a JSON object on one line"));
    let output = run(&["corpus", path, "--set", "language=xx"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("expected a code such as en, de or fra, found xx"));
}
