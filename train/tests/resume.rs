//! A run that is killed and continued is the run that was not: bit by bit in weights, optimiser, data position.

#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use common::{command, fail, log, prepare, result, succeed};

#[test]
fn killed_runs_continue_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 2");
    let average = ["--set", "checkpoint.average_decay=0.9"];
    let whole = format!("run.output={}", folder.path().join("whole").display());
    succeed(&[&["run", &config, "--set", &whole][..], &average].concat());
    let expected = result(&folder.path().join("whole"), 60);
    assert!(expected.iter().any(|(name, _)| name == "average.safetensors"));

    // Kills at moments spread over start, steps, evaluations and saving: some right away, most a little after the
    // attempt's first new checkpoints.
    let killed = folder.path().join("killed");
    let output = format!("run.output={}", killed.display());
    let arguments = [&["run", &config, "--set", &output][..], &average].concat();
    let newest = || -> u64 {
        let names =
            fs::read_dir(killed.join("checkpoints")).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse().ok()).max().unwrap_or(0)
    };
    let mut kills_by_start = Vec::new();
    for attempt in 0..14u64 {
        let started_at = newest();
        let mut child = command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
        let wanted = started_at + if attempt % 4 == 0 { 0 } else { 3 };
        while newest() < wanted && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(300));
        }
        std::thread::sleep(Duration::from_micros(attempt * 7919 % 13 * 1500));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{status}");
        if !status.success() {
            kills_by_start.push(started_at);
        }
    }
    assert!(kills_by_start.len() >= 10, "{} kills", kills_by_start.len());
    kills_by_start.dedup();
    assert!(kills_by_start.len() >= 5, "runs were continued from {kills_by_start:?}");
    succeed(&arguments);
    assert!(result(&killed, 60) == expected, "the continued run differs");
    let (log, whole) = (log(&killed), log(&folder.path().join("whole")));
    if let Some(at) = (0..log.len().max(whole.len())).find(|&at| log.get(at) != whole.get(at)) {
        panic!("the continued run's log differs in line {}: {:#?} and {:#?}", at + 1, log.get(at), whole.get(at));
    }
    let left = fs::read_dir(killed.join("checkpoints")).unwrap();
    let hidden = |name: std::ffi::OsString| name.to_string_lossy().starts_with('.');
    assert_eq!(left.filter(|entry| hidden(entry.as_ref().unwrap().file_name())).count(), 0, "half folders are removed");
}

#[test]
fn results_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    let results: Vec<_> = [1, 3]
        .map(|threads| {
            let run = folder.path().join(format!("threads-{threads}"));
            let (output, threads) = (format!("run.output={}", run.display()), format!("run.threads={threads}"));
            succeed(&["run", &config, "--set", &output, "--set", &threads, "--set", "run.steps=9"]);
            result(&run, 9)
        })
        .into();
    assert!(results[0] == results[1]);
}

/// What `run.sum` and the number of ranks change is in `ranks.rs`; this is one rank, which needs no MPI.
#[test]
fn sums_are_exact_unless_floats_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 4");
    let run = |name: &str, sets: &[&str]| {
        let run = folder.path().join(name);
        let output = format!("run.output={}", run.display());
        succeed(&[&["run", &config, "--set", &output, "--set", "run.steps=6"][..], sets].concat());
        result(&run, 6)
    };
    let exact = run("exact", &["--set", "run.sum=exact"]);
    assert!(exact == run("default", &[]) && exact != run("float", &["--set", "run.sum=float"]));
    let more = format!("run.output={}", folder.path().join("float").display());
    let message = fail(&["run", &config, "--set", &more, "--set", "run.steps=9"]);
    assert!(message.contains("run.sum was \"float\" and is \"exact\""), "{message}");
}

#[test]
#[cfg(not(feature = "mpi"))]
fn one_of_several_processes_needs_mpi() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    for variable in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        let output = command(&["run", &config]).env(variable, "2").output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        let expected = format!("built without --features mpi; found 2 processes ({variable})");
        assert!(!output.status.success() && message.contains(&expected), "{message}");
        assert!(!folder.path().join("run").exists(), "nothing is written");
    }
    let output = command(&["run", &config, "--set", "run.steps=3"]).env("PMI_SIZE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_changed_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    succeed(&["run", &config, "--set", "run.steps=6"]);
    let before = result(&folder.path().join("run"), 6);
    let message = fail(&["run", &config, "--set", "schedule.peak_rate=0.02"]);
    assert!(message.contains("another configuration: schedule.peak_rate was 0.05 and is 0.02"), "{message}");
    let message = fail(&["run", &config, "--set", "data.batches.tokens=300"]);
    assert!(message.contains("data.batches.tokens was 200 and is 300"), "{message}");
    assert!(result(&folder.path().join("run"), 6) == before);
    // What does not change the results may change; so may the length of a run whose schedule does not depend on it.
    succeed(&[
        "run",
        &config,
        "--set",
        "run.steps=8",
        "--set",
        "log.every_steps=1",
        "--set",
        "evaluation.every_steps=0",
    ]);
}

#[test]
fn a_run_without_room_stops_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    succeed(&["run", &config, "--set", "run.steps=6"]);
    let before = result(&folder.path().join("run"), 6);

    // A file size limit stands for the full disk: writing fails with an error in the middle of a file.
    let shell = format!(
        "trap '' XFSZ; ulimit -f 40; exec {} run {config} --set run.steps=9 --set log.tensorboard=false",
        env!("CARGO_BIN_EXE_t5-train")
    );
    let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(message.contains("model.safetensors: File too large"), "{message}");
    assert!(result(&folder.path().join("run"), 6) == before);
    // With room again it goes on.
    succeed(&["run", &config, "--set", "run.steps=9"]);

    // A folder that cannot be written: a file stands where the run's folder would be.
    fs::write(folder.path().join("file"), "").unwrap();
    let output = format!("run.output={}", folder.path().join("file").display());
    let message = fail(&["run", &config, "--set", &output]);
    assert!(message.contains("file: "), "{message}");
}

#[test]
#[cfg(target_os = "linux")]
fn what_nobody_can_be_told_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("skipped: there is no /dev/full here");
        return;
    };
    let arguments = ["run", &config, "--set", "run.steps=3", "--set", "evaluation.every_steps=3"];
    assert!(command(&arguments).stderr(full).status().unwrap().success());
    assert!(folder.path().join("run/checkpoints/step-00000003").exists());
}

#[test]
fn numbers_that_are_none_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "");
    succeed(&["run", &config, "--set", "run.steps=3"]);
    let output = format!("run.output={}", folder.path().join("run").display());
    // A rate that overflows every weight in one step.
    fs::remove_dir_all(folder.path().join("run")).unwrap();
    let explode = ["--set", "schedule.peak_rate=1e6", "--set", "optimizer.clip_update=1e30", "--set", "run.steps=60"];
    let message = fail(&[&["run", &config, "--set", &output][..], &explode].concat());
    assert!(message.contains("the loss is") && message.contains("step "), "{message}");
    assert!(message.contains("checkpoint"), "{message}");
    assert!(folder.path().join("run/diverged.json").exists());
}
