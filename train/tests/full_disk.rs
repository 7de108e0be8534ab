//! A disk that is full while checkpoints, corpora and shards are written: one sentence, and the same result when there
//! is room again.

#![cfg(target_os = "linux")]

mod common;
#[path = "common/corpora.rs"]
mod corpora;
#[path = "../../tests/src/small_disk.rs"]
mod small_disk;

use std::collections::BTreeSet;

use common::{command, log, prepare, result, succeed};
use corpora::{config, contents, pages, write_pages};
use small_disk::SmallDisk;

/// Runs a command until there is room enough for it, with a little more each time; gives what it said before.
fn until_it_fits(disk: &SmallDisk, arguments: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    let mut kib = 0;
    loop {
        disk.leave(kib);
        let output = command(arguments).output().unwrap();
        if output.status.success() {
            return said;
        }
        let errors = String::from_utf8(output.stderr).unwrap();
        let message = errors.trim_end().lines().last().unwrap().to_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            message.starts_with("t5-train: ") && message.ends_with("No space left on device (os error 28)"),
            "{errors}"
        );
        assert_eq!(errors.matches("No space left").count(), 1, "{errors}");
        said.push(message);
        kib += 4 + kib / 4;
        assert!(said.len() < 60, "{said:#?}");
    }
}

#[test]
fn a_full_disk_loses_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 24 << 10) else { return };
    let config = prepare(folder.path(), "");
    let steps = ["--set", "run.steps=12", "--set", "evaluation.every_steps=6"];
    let whole = format!("run.output={}", folder.path().join("whole").display());
    succeed(&[&["run", &config, "--set", &whole][..], &steps].concat());
    let run = folder.path().join("disk/run");
    let small = format!("run.output={}", run.display());
    let said = until_it_fits(&disk, &[&["run", &config, "--set", &small][..], &steps].concat());
    assert!(said.iter().any(|message| message.contains("/disk/run/checkpoints/")), "{said:#?}");
    assert!(result(&run, 12) == result(&folder.path().join("whole"), 12), "other weights after {said:#?}");
    assert_eq!(log(&run), log(&folder.path().join("whole")));
    println!("a run was refused {} times", said.len());
}

#[test]
fn a_full_disk_loses_nothing_of_a_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 24 << 10) else { return };
    write_pages(&folder.path().join("pages"), &pages(2000));
    prepare(folder.path(), "");
    let vocabulary = format!("vocabulary = \"{}/tokenizer.json\"\nthreads = 1", folder.path().display());
    let whole = config(folder.path(), "whole", &vocabulary);
    succeed(&["corpus", whole.to_str().unwrap(), "--keep-removed", "3"]);
    let small = config(folder.path(), "disk/corpus", &vocabulary);
    // The folder of its configuration is the small disk, too.
    let text = std::fs::read_to_string(&small).unwrap();
    let small = folder.path().join("small.toml");
    std::fs::write(&small, text).unwrap();
    let said = until_it_fits(&disk, &["corpus", small.to_str().unwrap(), "--keep-removed", "3"]);
    let places: BTreeSet<&str> = ["/work/pages/", "/work/gone-", "/work/texts-", "/work/shards-"]
        .into_iter()
        .filter(|place| said.iter().any(|message| message.contains(place)))
        .collect();
    assert!(places.len() >= 3, "{places:?} of {said:#?}");
    assert!(contents(&folder.path().join("disk/corpus")) == contents(&folder.path().join("whole")), "{said:#?}");
    println!("a corpus was refused {} times: {places:?}", said.len());
}
