//! Hostile counts must not make a reader allocate: everything is bounded by the bytes that are there.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Raw, array, header, key_value, tensor};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::gguf::File;
use t5_runtime::storage::Bytes;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// Counts the bytes that this thread asks for.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches only a thread-local number that
// needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get().saturating_add(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `run` allocates in all.
fn allocated(run: impl FnOnce()) -> usize {
    let before = ALLOCATED.get();
    run();
    ALLOCATED.get() - before
}

/// Far more than a message, far less than what the counts ask for.
const BOUND: usize = 32 << 10;

#[test]
fn counts_in_gguf_headers_allocate_nothing() {
    let value = |value: Vec<u8>| Raw { values: vec![value], ..Raw::default() }.bytes();
    let info = |info: Vec<u8>| Raw { tensors: vec![info], ..Raw::default() }.bytes();
    let long_string = |length: u64| [&length.to_le_bytes()[..], b"k"].concat();
    for huge in [1u64 << 20, 1 << 30, 1 << 40, 1 << 62, i64::MAX as u64, u64::MAX] {
        let mut files = vec![
            header(3, huge, 0),
            header(3, 0, huge),
            header(3, huge, huge),
            [header(3, 0, 1), long_string(huge)].concat(),
            [header(3, 1, 0), long_string(huge), vec![0; 40]].concat(),
            value(key_value("k", 8, &long_string(huge))),
            info(tensor("t", &[huge, huge], 0, 0)),
            info(tensor("t", &[huge], 0, huge & !31)),
        ];
        for element in [0, 4, 7, 8, 10, 12] {
            files.push(value(key_value("k", 9, &array(element, huge, &[0; 64]))));
        }
        for (i, file) in files.into_iter().enumerate() {
            let bytes = Bytes::from_vec(file);
            let count = allocated(|| assert!(File::parse("x.gguf", bytes).is_err(), "file {i}, count {huge}"));
            assert!(count < BOUND, "file {i}, count {huge}: {count} bytes");
        }
    }
}

#[test]
fn hyperparameters_allocate_nothing() {
    let json = common::tiny::config();
    for key in ["block_count", "decoder_block_count", "attention.head_count", "attention.relative_buckets_count"] {
        let mut file = common::tiny::Gguf::new(&json);
        file.set_u32(&format!("t5.{key}"), u32::MAX).remove("tokenizer.ggml.model");
        let bytes = Bytes::from_vec(file.bytes());
        let count = allocated(|| assert!(Checkpoint::from_gguf("x.gguf", bytes).is_err()));
        // The tensors' names and shapes are read before the keys are judged.
        assert!(count < 2 * BOUND, "{key}: {count} bytes");
    }
}

#[test]
fn sizes_in_safetensors_headers_allocate_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), common::tiny::config().to_string()).unwrap();
    for huge in [1u64 << 30, 1 << 62, u64::MAX] {
        let size = huge / 4;
        let text = format!(r#"{{"a":{{"dtype":"F32","shape":[{size}],"data_offsets":[0,{}]}}}}"#, size * 4);
        for file in [huge.to_le_bytes().to_vec(), [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()] {
            std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
            let count = allocated(|| assert!(Checkpoint::open(folder.path()).is_err()));
            assert!(count < BOUND, "{huge}: {count} bytes");
        }
    }
}
