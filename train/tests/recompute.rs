//! Blocks that are computed again in the backward pass: the same gradients to the last bit, in less memory.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::golden_config;
use t5_runtime::config::{Adapters, OneStack, T5Config};
use t5_train::batches::Batch;
use t5_train::init::Scheme;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::Sequences;
use t5_train::ops::dropout::Plan;

/// The system's allocator, with the bytes that are in use and the most that were.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn gradients_are_the_same_and_memory_is_less() {
    let wide = T5Config {
        d_model: 32,
        d_kv: 8,
        d_ff: 64,
        num_heads: 4,
        num_layers: 8,
        num_decoder_layers: 8,
        ..golden_config("gated-gelu", false, "t5")
    };
    let prefix = T5Config { model_type: OneStack::Prefix.model_type().to_owned(), num_layers: 0, ..wide.clone() };
    let adapted = |inside| T5Config { adapters: Some(Adapters { size: 8, inside }), ..wide.clone() };
    let configs = [("t5", wide.clone()), ("shared", wide.clone()), ("one stack", prefix)];
    for (name, config) in configs.into_iter().chain([("adapters", adapted(false)), ("inside", adapted(true))]) {
        let ids = |len: usize| (0..len).map(|i| (i * 7 % 9 + 2) as u32).collect::<Vec<u32>>();
        let batch = Batch {
            encoder_ids: ids(120),
            encoder_segments: vec![1; 120],
            decoder_input_ids: ids(80),
            decoder_target_ids: ids(80),
            decoder_segments: vec![1; 80],
            loss_weights: vec![1.0; 80],
            rows: 1,
            enc_len: 120,
            dec_len: 80,
        };
        let options = LossOptions { label_smoothing: 0.1, z_loss: 1e-3, denominator: 80.0 };
        let dropout = Plan { rate: 0.1, seed: 5, shared_over_length: false };
        let mut found = Vec::new();
        for recomputes in [false, true] {
            let mut model = Model::new(&config, Scheme::T5x, 3).unwrap().recomputing_blocks(recomputes);
            if name == "shared" {
                model = model.with_shared_stacks().unwrap();
            }
            let sequences = Sequences::for_model(&batch, &config, true).unwrap();
            let before = NOW.load(Relaxed);
            MOST.store(before, Relaxed);
            let (loss, _) = model.backward(sequences, &options, dropout).unwrap();
            let most = MOST.load(Relaxed) - before;
            let gradients: Vec<Vec<u32>> = (0..model.vars().len())
                .map(|index| model.gradients().get(index).iter().map(|value| value.to_bits()).collect())
                .collect();
            found.push((loss.to_bits(), gradients, most));
        }
        assert_eq!(found[0].0, found[1].0, "{name}");
        for (index, (kept, again)) in found[0].1.iter().zip(&found[1].1).enumerate() {
            // New adapters have no gradient but that of their last matrices, which are zero.
            assert!(config.adapters.is_some() || kept.iter().any(|&bits| bits != 0), "{name}, parameter {index}");
            if name != "shared" {
                assert_eq!(kept, again, "{name}, parameter {index}");
                continue;
            }
            // Nothing says whether the decoder's first self-attention or the encoder adds to a shared gradient first.
            for (kept, again) in kept.iter().zip(again).map(|(a, b)| (f32::from_bits(*a), f32::from_bits(*b))) {
                assert!((kept - again).abs() <= 1e-6 + 1e-5 * kept.abs(), "{name}, parameter {index}: {kept} {again}");
            }
        }
        println!("{name}: {} bytes with all kept, {} with blocks computed again", found[0].2, found[1].2);
        // Of eight blocks a stack one is there at a time, and the inputs of all.
        assert!(found[1].2 * 2 < found[0].2, "{name}: {} and {}", found[0].2, found[1].2);
    }
}
