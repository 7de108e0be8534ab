//! Runs on several processes: the same bits for any number of them, whoever is killed when, and one message where
//! something is wrong. Open MPI's `mpirun` starts them here, more than there are processors.

#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{command, log, prepare, result, succeed};
use t5_train::random::Random;
use t5_train::ranks::World;

/// No run here takes longer, and one that fails ends sooner.
const LIMIT: Duration = Duration::from_secs(120);
const FAILURE: Duration = Duration::from_secs(20);

/// `mpirun` of a program.
fn mpirun(ranks: usize, program: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string(), "--oversubscribe", "--bind-to", "none"]);
    // Ranks that wait leave the processor to others; copies between processes need rights that containers lack.
    command.args(["--mca", "mpi_yield_when_idle", "1", "--mca", "btl_vader_single_copy_mechanism", "none"]);
    command.args(program).stdin(Stdio::null());
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

/// `mpirun` of `t5-train run` with arguments.
fn ranks(count: usize, arguments: &[&str]) -> Command {
    mpirun(count, &[&[env!("CARGO_BIN_EXE_t5-train"), "run"], arguments].concat())
}

/// The same, with shell words for each rank: `$OMPI_COMM_WORLD_RANK` is its number.
fn ranks_of_shell(count: usize, script: &str) -> Command {
    mpirun(count, &["sh", "-c", script])
}

/// Waits for a command, but not for ever.
fn within(limit: Duration, command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mpirun starts");
    let (id, started) = (child.id(), Instant::now());
    let waiting = std::thread::spawn(move || child.wait_with_output());
    while !waiting.is_finished() {
        if started.elapsed() > limit {
            kill(id);
            panic!("not done after {limit:?}: {:?}", waiting.join().expect("it ends").expect("output"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    waiting.join().expect("it ends").expect("output")
}

fn trains(command: &mut Command) -> String {
    let output = within(LIMIT, command);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    message
}

/// Runs what has to fail soon. Gives what our command said: its lines, without those of mpirun.
fn refused(command: &mut Command) -> Vec<String> {
    let output = within(FAILURE, command);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{message}");
    let lines: Vec<String> = message.lines().filter(|line| line.starts_with("t5-train:")).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{message}");
    lines
}

fn kill(process: u32) {
    let status = Command::new("kill").args(["-9", &process.to_string()]).stderr(Stdio::null()).status();
    status.expect("kill starts");
}

/// The processes that a process has started and that have not ended.
fn children(parent: u32) -> Vec<u32> {
    let stat = |id: u32| fs::read_to_string(format!("/proc/{id}/stat")).ok();
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|&id| {
        let of_parent = |stat: String| {
            // The name, in brackets, may hold anything.
            let mut fields = stat.rsplit_once(") ")?.1.split(' ');
            let (state, parent_of) = (fields.next()?, fields.next()?);
            Some(state != "Z" && parent_of.parse() == Ok(parent))
        };
        stat(id).and_then(of_parent).unwrap_or(false)
    })
    .collect()
}

fn set_output(run: &Path) -> String {
    format!("run.output={}", run.display())
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 5\ncompare_steps = 4");
    let sets = ["--set", "checkpoint.average_decay=0.9", "--set", "run.steps=24", "--set", "checkpoint.every_steps=8"];
    let run = |name: &str, count: Option<usize>| {
        let run = folder.path().join(name);
        let output = set_output(&run);
        let arguments = [&[config.as_str(), "--set", &output][..], &sets].concat();
        match count {
            None => drop(succeed(&[&["run"], &arguments[..]].concat())),
            Some(count) => {
                let message = trains(&mut ranks(count, &arguments));
                assert_eq!(message.matches("model: ").count(), 1, "one rank speaks: {message}");
                let says = format!("{count} ranks");
                assert_eq!(count > 1, message.contains(&says), "{message}");
            }
        }
        (result(&run, 24), log(&run))
    };
    let expected = run("alone", None);
    assert!(expected.0.iter().any(|(name, _)| name == "average.safetensors"));
    assert!(expected.1.iter().any(|record| record["evaluation"]["metrics"]["numbers/exact-match"].is_f64()));
    for count in [1, 2, 3, 4] {
        let found = run(&format!("ranks-{count}"), Some(count));
        assert!(found.0 == expected.0, "{count} ranks make another model");
        assert_eq!(found.1, expected.1, "{count} ranks");
    }
    // What they exchanged is in the log: 8 bytes for every value, in every step.
    let text = fs::read_to_string(folder.path().join("ranks-3/log.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let (of_ranks, steps) = (&first["train"]["ranks"], first["step"].as_u64().unwrap());
    assert_eq!(of_ranks["size"], 3);
    let bytes = of_ranks["bytes"].as_u64().unwrap();
    assert!(bytes > 8 * 20_000 * steps && bytes.is_multiple_of(8 * steps), "{of_ranks}");
    let efficiency = of_ranks["efficiency"].as_f64().unwrap();
    assert!(efficiency > 0.0 && efficiency < 1.0, "{of_ranks}");
    assert!(!fs::read_to_string(folder.path().join("ranks-1/log.jsonl")).unwrap().contains("\"ranks\""));
}

#[test]
fn every_way_to_train_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 3");
    succeed(&["run", &config, "--set", "run.steps=3"]);
    let begun = folder.path().join("run/checkpoints/step-00000003").display().to_string();
    let (from, teacher) = (format!("model.from={begun}"), format!("distill.teacher={begun}"));
    let ways: [(&str, &[&str]); 5] = [
        ("adamw", &["optimizer.kind=adamw", "optimizer.clip_norm=0.5"]),
        ("lora", &["tuning.method=lora", &from]),
        ("gradual", &["tuning.method=gradual", "tuning.episode_steps=2"]),
        ("teacher", &[&teacher]),
        ("pack", &["data.batches.layout=pack", "data.batches.rows=3", "loss.denominator=positions"]),
    ];
    for (name, sets) in ways {
        let run = |count: Option<usize>| {
            let run = folder.path().join(format!("{name}-{count:?}"));
            let output = set_output(&run);
            let mut arguments = vec![config.as_str(), "--set", "run.steps=4"];
            sets.iter().chain([&output.as_str()]).for_each(|set| arguments.extend(["--set", set]));
            match count {
                None => drop(succeed(&[&["run"], &arguments[..]].concat())),
                Some(count) => drop(trains(&mut ranks(count, &arguments))),
            }
            (result(&run, 4), log(&run))
        };
        let (expected, found) = (run(None), run(Some(2)));
        assert!(found.0 == expected.0, "{name}: two ranks make another model");
        assert_eq!(found.1, expected.1, "{name}");
    }
}

#[test]
fn killed_ranks_change_nothing() {
    const KILLS: usize = 20;
    const STEPS: u64 = 150;
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 4");
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let steps = format!("run.steps={STEPS}");
    let sets = ["--set", &steps, "--set", "log.tensorboard=false"];
    let [to_whole, to_killed] = [&whole, &killed].map(|run| set_output(run));
    let of = |output| [&[config.as_str(), "--set", output][..], &sets].concat();
    succeed(&[&["run"], &of(&to_whole)[..]].concat());

    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let checkpoints = killed.join("checkpoints");
    let newest = || -> u64 {
        let steps = names(&checkpoints).into_iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok());
        steps.max().unwrap_or(0)
    };
    let random = &mut Random::new(18);
    let (mut kills, mut while_saving, mut starts) = (0, 0, Vec::new());
    while kills < KILLS {
        let (count, started_at) = (random.between(1, 4), newest());
        assert!(started_at < STEPS, "the run was over after {kills} kills");
        let mut command = ranks(count, &of(&to_killed));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A quarter right away, a quarter while the first rank saves, the others some time after a new checkpoint.
        let kind = kills % 4;
        let saving = || names(&checkpoints).iter().any(|name| name.starts_with(".partial-"));
        let ready = || match kind {
            0 => children(child.id()).len() == count,
            1 => saving(),
            _ => newest() > started_at,
        };
        let began = Instant::now();
        while !ready() {
            assert!(began.elapsed() < LIMIT, "no step was made");
            std::thread::sleep(Duration::from_micros(200));
        }
        if kind != 1 {
            std::thread::sleep(Duration::from_millis(random.between(0, 40) as u64));
        }
        let processes = children(child.id());
        if processes.is_empty() {
            // It was quicker.
            child.wait().unwrap();
            continue;
        }
        // What is saved is the first rank's; it has the smallest number.
        let victim = if kind == 1 { processes.iter().min() } else { random.choose(&processes) };
        kill(*victim.unwrap());
        while_saving += usize::from(saving());
        let killed_at = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if killed_at.elapsed() >= FAILURE {
                assert!(children(child.id()).is_empty(), "the other ranks wait for ever");
                // They have ended: mpirun (Open MPI 4.1) itself waits for ever at times where a rank dies as it starts.
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(!status.success(), "a rank was killed, and mpirun says that all is well");
        kills += 1;
        starts.push(started_at);
    }
    starts.dedup();
    println!("{kills} kills, {while_saving} of them while saving, in runs that went on from {starts:?}");
    assert!(starts.len() >= 8 && while_saving >= 2, "{starts:?}, {while_saving} while saving");
    trains(&mut ranks(3, &of(&to_killed)));
    assert!(result(&killed, STEPS) == result(&whole, STEPS), "the continued run differs");
    assert_eq!(log(&killed), log(&whole));
}

#[test]
fn one_failure_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 3");
    // The first rank cannot write the model to evaluate, and the others wait for it.
    let run = folder.path().join("file");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("evaluated"), "").unwrap();
    let lines = refused(&mut ranks(3, &[&config, "--set", &set_output(&run)]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("t5-train: rank 0: ") && lines[0].contains("evaluated: "), "{lines:?}");

    // All find the same numbers: one message.
    let explode = ["--set", "schedule.peak_rate=1e6", "--set", "optimizer.clip_update=1e30"];
    let output = set_output(&folder.path().join("explodes"));
    let lines = refused(&mut ranks(3, &[&[&config, "--set", &output][..], &explode].concat()));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("step ") && lines[0].contains("the loss is"), "{lines:?}");
    assert!(folder.path().join("explodes/diverged.json").exists());

    // Gradients that are numbers, but larger than the fixed point holds; as floats they are taken.
    let large = ["--set", "loss.denominator=none", "--set", "model.initializer_factor=300", "--set", "run.steps=1"];
    let output = |name: &str| set_output(&folder.path().join(name));
    let outputs = [output("large"), output("large-alone"), output("large-floats")];
    let of = |run: usize| [&[config.as_str(), "--set", &outputs[run]][..], &large].concat();
    let expected = "the largest gradients of its batches add up to";
    let lines = refused(&mut ranks(2, &of(0)));
    assert!(lines.len() == 1 && lines[0].contains(expected) && lines[0].contains("run.sum = \"float\""), "{lines:?}");
    let alone = command(&[&["run"], &of(1)[..]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    let sentence = |text: &str| text[text.find(expected).unwrap_or(0)..].split(';').next().unwrap().to_owned();
    assert_eq!(sentence(&said), sentence(&lines[0]), "one rank and two refuse the same");
    trains(&mut ranks(2, &[&of(2)[..], &["--set", "run.sum=float"]].concat()));
}

#[test]
#[ignore = "a part of a_panic_ends_all"]
fn one_rank_panics() {
    let world = World::join().unwrap();
    assert_eq!(world.ranks().rank(), 0, "only the first goes on");
    world.ranks().meet();
}

#[test]
fn a_panic_ends_all() {
    let program = std::env::current_exe().unwrap();
    let program = [program.to_str().unwrap(), "--exact", "one_rank_panics", "--ignored", "--nocapture"];
    let output = within(FAILURE, &mut mpirun(3, &program));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("only the first goes on"), "{message}");
}

#[test]
fn ranks_that_differ_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = prepare(folder.path(), "accumulate = 3");
    let program = env!("CARGO_BIN_EXE_t5-train");
    let output = folder.path().join("run");
    let on_rank_1 = |program: &str, arguments: &str| {
        let own = env!("CARGO_BIN_EXE_t5-train");
        let other = format!("if [ $OMPI_COMM_WORLD_RANK = 1 ]; then exec {program} run {config} {arguments}; fi");
        let script = format!("{other}; exec {own} run {config}");
        let lines = refused(&mut ranks_of_shell(3, &script));
        assert!(!output.exists(), "nothing is written");
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    let line = on_rank_1(program, "--set run.seed=2 --set run.threads=2 --set loss.z_loss=0.5");
    assert!(line.ends_with("found another on rank 1 than 0: loss.z_loss, run.seed"), "{line}");
    let line = on_rank_1(program, "--set run.sed=2");
    assert!(line.contains("rank 1: override: run.sed: unknown key; did you mean run.seed?"), "{line}");
    let line = on_rank_1(program, "--set run.accumulate=2");
    let expected = "rank 1: run.accumulate: expected 3 batches, one for each rank, or more; found 2";
    assert!(line.contains(expected), "{line}");

    // One digit of the 400 records.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let text = fs::read_to_string(folder.path().join("numbers.tsv")).unwrap();
    fs::write(other.join("numbers.tsv"), text.replacen("\t100\n", "\t101\n", 1)).unwrap();
    let line = on_rank_1(program, &format!("--set data.dir={}", other.display()));
    assert!(
        line.contains("expected the same data of the task numbers on all 3 ranks, found another on rank 1"),
        "{line}"
    );

    let copy = folder.path().join("t5-train");
    let mut bytes = fs::read(program).unwrap();
    bytes.push(0);
    fs::write(&copy, bytes).unwrap();
    fs::set_permissions(&copy, fs::metadata(program).unwrap().permissions()).unwrap();
    let line = on_rank_1(copy.to_str().unwrap(), "");
    assert!(line.contains("expected the same program on all 3 ranks, found another on rank 1"), "{line}");

    let lines = refused(&mut ranks(4, &[&config]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("run.accumulate: expected 4 batches, one for each rank, or more; found 3"), "{lines:?}");

    // Other ways to be started: by PMIx alone, as srun does it; by srun without it.
    let steps = "--set run.steps=3";
    trains(&mut ranks_of_shell(2, &format!("unset OMPI_COMM_WORLD_SIZE; exec {program} run {config} {steps}")));
    let stranger = command(&["run", &config]).env("SLURM_STEP_NUM_TASKS", "2").output().unwrap();
    let message = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(message.contains("srun started 2 processes that do not know each other"), "{message}");
    let finetune = [program, "finetune", "--from=a", "--data=b", "--input=c", "--target=d", "--output=e"];
    let lines = refused(&mut mpirun(2, &finetune));
    assert!(lines.iter().any(|line| line.contains("t5-train finetune: expected one process, found 2")), "{lines:?}");
}
