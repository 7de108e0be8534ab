//! Model files that somebody writes while they are in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::{Batch, BatchEvent, Error, GenerateOptions, Model, ModelOptions, Output};

const TEXT: &str = "The house on the hill";
const WEIGHTS: &str = "model.safetensors";

/// A folder with a model of its own.
fn folder() -> tempfile::TempDir {
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", WEIGHTS, "tokenizer.json"] {
        fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn answer(model: &Model) -> Result<Vec<Output>, Error> {
    let mut session = model.session();
    let generation = session.generate(TEXT, &GenerateOptions::default().max_new_tokens(9))?;
    Ok(generation.finish())
}

#[track_caller]
fn assert_changed<T>(result: Result<T, Error>, file: &Path) {
    match result {
        Err(Error::Changed { file: found }) => assert_eq!(Path::new(&found), file),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was not seen"),
    }
}

fn copied() -> ModelOptions {
    ModelOptions { copy: true, ..ModelOptions::default() }
}

/// Writes in place what is there already.
fn write_in_place(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, bytes).unwrap();
    // Clocks can be coarse.
    let later = SystemTime::now() + Duration::from_secs(5);
    fs::File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
}

#[test]
fn requests_do_not_begin_on_a_file_that_was_written() {
    let folder = folder();
    let weights = folder.path().join(WEIGHTS);
    for cut in [false, true] {
        let model = Model::open(folder.path()).unwrap();
        let expected = answer(&model).unwrap();
        let mut batch = Batch::new(model.session(), 2).unwrap();
        let id = batch.add(TEXT, &GenerateOptions::default()).unwrap();
        match cut {
            false => write_in_place(&weights),
            true => fs::File::options().write(true).open(&weights).unwrap().set_len(100).unwrap(),
        }
        assert_changed(answer(&model), &weights);
        assert_changed(model.session().score(TEXT, "a hill"), &weights);
        assert_changed(model.session().embed(TEXT), &weights);
        match &batch.step()[..] {
            [BatchEvent::Failed { id: failed, error: Error::Changed { .. } }] => assert_eq!(*failed, id),
            events => panic!("{events:?}"),
        }
        assert!(batch.is_empty());
        if !cut {
            assert_eq!(answer(&Model::open(folder.path()).unwrap()).unwrap(), expected);
        }
    }
}

#[test]
fn a_file_that_is_replaced_by_renaming_stays_what_it_was() {
    let folder = folder();
    let weights = folder.path().join(WEIGHTS);
    let model = Model::open(folder.path()).unwrap();
    let expected = answer(&model).unwrap();
    fs::write(folder.path().join("new"), b"something else").unwrap();
    fs::rename(folder.path().join("new"), &weights).unwrap();
    assert_eq!(answer(&model).unwrap(), expected);
    fs::remove_file(&weights).unwrap();
    assert_eq!(answer(&model).unwrap(), expected);
}

#[test]
fn a_copy_does_not_know_its_file() {
    let folder = folder();
    let expected = answer(&Model::open(folder.path()).unwrap()).unwrap();
    let model = Model::open_with(folder.path(), &copied()).unwrap();
    assert_eq!(answer(&model).unwrap(), expected);
    fs::File::options().write(true).open(folder.path().join(WEIGHTS)).unwrap().set_len(0).unwrap();
    assert_eq!(answer(&model).unwrap(), expected);
}

/// Between looking at the header and reading the weights.
#[test]
fn a_file_that_is_written_while_it_is_opened_is_an_error() {
    for options in [ModelOptions::default(), copied()] {
        let folder = folder();
        let weights = folder.path().join(WEIGHTS);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let tensor = checkpoint.tensors().next().unwrap().1.data.clone();
        assert_eq!(tensor.copied().unwrap()[..], tensor[..]);
        fs::File::options().write(true).open(&weights).unwrap().set_len(100).unwrap();
        assert_changed(tensor.copied(), &weights);
        assert_changed(Model::from_checkpoint(checkpoint, &options), &weights);
    }
}

#[test]
fn packed_weights_are_mapped() {
    let folder = folder();
    let packed = folder.path().join("packed");
    let open = |options: &ModelOptions| {
        Model::from_checkpoint_and_packed(Checkpoint::open(folder.path()).unwrap(), options, &packed)
    };
    assert!(matches!(open(&copied()), Err(Error::Option { option: "copy", .. })));
    let model = open(&ModelOptions::default()).unwrap();
    answer(&model).unwrap();
    write_in_place(&packed);
    assert_changed(answer(&model), &packed);
}
