//! A stream of text allocates nothing per token.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use t5_runtime::tokenizer::{TextStream, Tokenizer, Vocabulary};

/// Counts the allocations of each thread.
struct Counting;

thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_stream_allocates_nothing_per_token() {
    let fallback = include_bytes!("tokenizer/fallback.model");
    for vocabulary in [Vocabulary::from_sentencepiece("test", fallback, 100).unwrap(), Vocabulary::bytes(384)] {
        let tokenizer = Tokenizer::new("test", &vocabulary).unwrap();
        let ids: Vec<u32> = (0..tokenizer.vocab_size() as u32 + 10).filter(|&id| id != tokenizer.eos_id()).collect();
        let mut stream = tokenizer.stream(false);
        let run = |stream: &mut TextStream| {
            let before = COUNT.get();
            let bytes: usize = ids.iter().map(|&id| stream.push(id).len()).sum();
            (bytes + stream.finish().len(), COUNT.get() - before)
        };
        assert_eq!(run(&mut stream).0, tokenizer.decode(&ids, false).len());
        assert_eq!(run(&mut stream).1, 0);
        assert_eq!(run(&mut stream).0, tokenizer.decode(&ids, false).len(), "the stream started over");
    }
}
