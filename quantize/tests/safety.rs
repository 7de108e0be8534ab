//! The old file survives kills and full disks, and memory stays small. Everything here looks at the process from
//! outside.
#![cfg(unix)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{checkpoint, names, write_sparse_checkpoint};

/// Half a gigabyte of which the largest tensor is an eighth: 64 MB embedding and head, 12 feed-forward matrices of 32.
const LARGE: &str = r#"{"model_type": "t5", "vocab_size": 32768, "d_model": 512, "d_kv": 64, "d_ff": 16384,
    "num_layers": 2, "num_heads": 8, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;

const SMALL: &str = r#"{"model_type": "t5", "vocab_size": 256, "d_model": 64, "d_kv": 16, "d_ff": 256,
    "num_layers": 2, "num_heads": 4}"#;

fn start(input: &Path, output: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_t5-quantize"))
        .args([input, output])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The partial file of a folder, if there is one.
fn partial(folder: &Path) -> Option<PathBuf> {
    names(folder).iter().find(|name| name.ends_with(".partial")).map(|name| folder.join(name))
}

#[test]
fn a_kill_in_mid_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("large"), folder.path().join("out/model.gguf"));
    write_sparse_checkpoint(&input, LARGE);
    let out = output.parent().unwrap();
    std::fs::create_dir(out).unwrap();
    std::fs::write(&output, "old").unwrap();
    // Killed when the partial file has so many bytes, of about 140 million. The machine may be busy and the moment
    // missed: then the file is there and whole, and it counts only as another try.
    let mut killed = 0;
    for at in [0, 1, 10_000_000, 50_000_000, 90_000_000, 130_000_000] {
        for _ in 0..20 {
            std::fs::write(&output, "old").unwrap();
            let mut child = start(&input, &output);
            let ended = loop {
                if child.try_wait().unwrap().is_some() {
                    break true;
                }
                // The name of the living process, not of one that was killed before it.
                let own = out.join(format!("model.gguf.{}.partial", child.id()));
                if own.metadata().is_ok_and(|metadata| metadata.len() >= at) {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            // SIGKILL.
            child.kill().unwrap();
            child.wait().unwrap();
            if !ended && partial(out).is_some() {
                assert_eq!(std::fs::read(&output).unwrap(), b"old", "killed at {at} bytes");
                killed += 1;
                break;
            }
        }
    }
    assert_eq!(killed, 6);
    assert!(partial(out).is_some(), "the killed process could not clean up");
    // The next run does.
    let small = checkpoint(folder.path(), SMALL);
    assert!(start(&small, &output).wait().unwrap().success());
    assert_eq!(names(out), ["model.gguf"]);
    assert_eq!(&std::fs::read(&output).unwrap()[..4], b"GGUF");
}

/// Runs a script with the command as `$1`, the checkpoint as `$2` and an empty folder as `$3`.
fn script(text: &str, input: &Path, folder: &Path) -> std::process::Output {
    Command::new("sh")
        .args(["-c", text, "sh", env!("CARGO_BIN_EXE_t5-quantize")])
        .args([input, folder])
        .output()
        .unwrap()
}

#[test]
fn a_file_size_limit_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = checkpoint(folder.path(), SMALL);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("model.gguf"), "old").unwrap();
    // 8 blocks are 4 or 8 kB. Ignored, the signal becomes an error of the write.
    let result = script("trap '' XFSZ; ulimit -f 8; exec \"$1\" \"$2\" \"$3/model.gguf\"", &input, &out);
    let message = String::from_utf8(result.stderr).unwrap();
    assert_eq!(result.status.code(), Some(1), "{message}");
    assert!(message.contains("model.gguf: File too large"), "{message}");
    assert_eq!(names(&out), ["model.gguf"]);
    assert_eq!(std::fs::read(out.join("model.gguf")).unwrap(), b"old");
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = checkpoint(folder.path(), SMALL);
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // A disk of 64 kB in a mount namespace of its own, which ends with the script.
    let text = r#"
        exec unshare --mount --map-root-user sh -c '
            mount -t tmpfs -o size=64k tmpfs "$3" || { echo no disk; exit; }
            printf old > "$3/model.gguf"
            "$1" "$2" "$3/model.gguf"
            echo "exit $?"
            ls -A "$3"
            cat "$3/model.gguf"
        ' sh "$1" "$2" "$3""#;
    let result = script(text, &input, &disk);
    let (stdout, stderr) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    if stdout == "no disk\n" || stdout.is_empty() {
        eprintln!("skipped: cannot mount a small disk here: {stderr}");
        return;
    }
    assert_eq!(stdout, "exit 1\nmodel.gguf\nold", "{stderr}");
    assert!(stderr.contains("model.gguf: No space left on device"), "{stderr}");
}

/// The rule: twice the largest tensor and 100 MB, whatever the size of the model.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("large");
    write_sparse_checkpoint(&input, LARGE);
    let model = std::fs::metadata(input.join("model.safetensors")).unwrap().len();
    let limit = 2 * 32768 * 512 * 4 + 100_000_000;
    assert!(model > 2 * limit, "the test could not fail");
    let mut child = start(&input, &folder.path().join("model.gguf"));
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // Gone between the two looks, or a process that has ended and has no memory any more.
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    assert!(peak > 1_000_000, "measured nothing");
    assert!(peak < limit, "{peak} bytes for a model of {model}, expected less than {limit}");
    eprintln!("peak memory {peak} bytes for a model of {model} bytes");
}
