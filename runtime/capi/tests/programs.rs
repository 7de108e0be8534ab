//! The examples, compiled by the machine's C and C++ compilers and run. Where there is none, the test says so.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo has put the library beside this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    let name = format!("{}pocket_t5{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = folder.join(name);
    assert!(library.exists(), "expected the library in {}", folder.display());
    library
}

/// Compiles an example against the shared library, as a user would; None where there is no compiler.
fn compile(compiler: &str, source: &str, arguments: &[&str], folder: &Path) -> Option<PathBuf> {
    if Command::new(compiler).arg("--version").output().is_err() {
        println!("skipped: there is no {compiler}");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The names that the linker and the loader look for.
    for name in ["libpocket_t5.so", &format!("libpocket_t5.so.{}", pocket_t5::pt5_abi())] {
        std::os::unix::fs::symlink(library(), folder.join(name)).unwrap();
    }
    let program = folder.join("program");
    let output = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-pthread"])
        .arg(root.join("examples").join(source))
        .arg("-o")
        .arg(&program)
        .arg("-I")
        .arg(root.join("include"))
        .arg("-L")
        .arg(folder)
        .arg("-lpocket_t5")
        .arg(format!("-Wl,-rpath,{}", folder.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

fn run(program: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
#[cfg(target_os = "linux")]
fn the_example_in_c_prints_a_translation() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("cc", "generate.c", &["-std=c99", "-pedantic"], folder.path()) else { return };
    let (code, text, _) = run(&program, &["translate English to German: Where is the station?"]);
    assert_eq!((code, text.as_str()), (Some(0), "Wo ist der Bahnhof?\n"));
    let family = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families/unigram");
    let (code, text, error) = run(&program, &["--model", family.to_str().unwrap(), "the quick fox"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let mut session = t5_runtime::Model::open(&family).unwrap().session();
    let options = t5_runtime::Overrides { max_new_tokens: Some(100), ..Default::default() };
    let options = session.model().options(&options).unwrap();
    assert_eq!(text.trim_end_matches('\n'), session.generate("the quick fox", &options).unwrap().finish()[0].text);
    let (code, text, error) = run(&program, &["--model", "/nowhere", "text"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(error.starts_with("/nowhere: "), "{error}");
    assert_eq!(run(&program, &[]).0, Some(2));
}

#[test]
#[cfg(target_os = "linux")]
fn the_tour_in_cpp_prints_what_the_library_gives() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("c++", "tour.cpp", &["-std=c++17", "-pedantic"], folder.path()) else { return };
    let (code, text, error) = run(&program, &[]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let mut session = t5_runtime::Model::pocket().unwrap().session();
    let mut expected = String::new();
    let german = "translate English to German: Where is the station?";
    for text in [german, "translate English to French: Good morning!", "pronounce: station"] {
        let options = t5_runtime::GenerateOptions::default().beams(4);
        let best = session.generate(text, &options).unwrap().finish().remove(0);
        expected += &format!("batch\t{}\t{:.6}\n", best.text, best.score);
    }
    let score = session.score(german, "Wo ist der Bahnhof?").unwrap();
    expected += &format!("score\t{} tokens\t{:.6}\n", score.ids.len(), score.sum);
    let choices = t5_runtime::Choices::new(session.model(), &["Guten Abend.", "Guten Morgen."]).unwrap();
    let ranked = session.choose("translate English to German: Good morning.", &choices).unwrap();
    expected += &format!("choose\t{}\t{:.6}\n", ranked[0].text, ranked[0].probability);
    expected += "choices\tGuten Abend.\n";
    let options = t5_runtime::EncodeOptions { normalize: true, ..Default::default() };
    let states = session.encode_batch(&[german, "translate English to French: Good morning!"], &options).unwrap();
    let cosine: f32 = states[0].values.iter().zip(&states[1].values).map(|(a, b)| a * b).sum();
    expected += &format!("embed\t256 values\t{cosine:.4}\n");
    let ids = session.model().tokenizer().unwrap().encode("Good morning!");
    expected += &format!("tokens\t{}\tGood morning!\n", ids.len());
    expected += "cancel\tcancelled\nerror\tbeams: expected 1 to 1024, found 5000\n";
    assert_eq!(text, expected);
}
