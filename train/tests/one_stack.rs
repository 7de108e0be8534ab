//! Models of one stack: values of a reference in float64 in trainer and runtime, gradients, packing, all that decodes,
//! and the road from a configuration to quantised files.

mod common;

use std::fs;
use std::path::Path;

use candle_core::Device;
use common::{bits, fail, golden_config, named, prepare, succeed};
use t5_quantize::{Policy, quantize};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::config::{OneStack, T5Config};
use t5_runtime::generate::{GenerateOptions, Lookup};
use t5_runtime::tensor::DType;
use t5_runtime::{Batch as RunningBatch, BatchEvent, EncodeOptions, Model as Runner, SourceText};
use t5_train::batches::Batch;
use t5_train::checkpoint::write_model;
use t5_train::model::{LossOptions, Model};
use t5_train::ops::Sequences;
use t5_train::ops::dropout::Plan;

#[derive(serde::Deserialize)]
struct Case {
    prefix: bool,
    gated: bool,
    logits: Vec<f64>,
    loss: f64,
    loss_on_targets: f64,
}

#[derive(serde::Deserialize)]
struct Golden {
    inputs: Vec<u32>,
    targets: Vec<u32>,
    cases: Vec<Case>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/one_stack.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn config(one: OneStack, gated: bool) -> T5Config {
    let base = golden_config(if gated { "gated-gelu" } else { "relu" }, !gated, one.model_type());
    T5Config { num_layers: 0, ..base }
}

/// Inputs and targets.
type Example<'e> = (&'e [u32], &'e [u32]);

/// A row of examples.
fn batch(examples: &[Example]) -> Batch {
    let ids = |of: fn(&Example) -> Vec<u32>| examples.iter().flat_map(of).collect::<Vec<u32>>();
    let segments = |len: fn(&(&[u32], &[u32])) -> usize| -> Vec<u32> {
        (1..).zip(examples).flat_map(|(segment, example)| std::iter::repeat_n(segment, len(example))).collect()
    };
    let (encoder_ids, decoder_target_ids) = (ids(|(inputs, _)| inputs.to_vec()), ids(|(_, targets)| targets.to_vec()));
    Batch {
        decoder_input_ids: ids(|(_, targets)| [&[0], &targets[..targets.len() - 1]].concat()),
        encoder_segments: segments(|(inputs, _)| inputs.len()),
        decoder_segments: segments(|(_, targets)| targets.len()),
        loss_weights: vec![1.0; decoder_target_ids.len()],
        rows: 1,
        enc_len: encoder_ids.len(),
        dec_len: decoder_target_ids.len(),
        encoder_ids,
        decoder_target_ids,
    }
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 2e-6, "{what}: {found} {expected}");
    }
}

/// The model as a folder and as a file with weights of a type.
fn written(folder: &Path, model: &Model, dtype: DType) -> Runner {
    write_model(&folder.join("model.safetensors"), model, None).unwrap();
    fs::write(folder.join("config.json"), model.config().to_json().to_string()).unwrap();
    let mut bytes = Vec::new();
    quantize(&Checkpoint::open(folder).unwrap(), &Policy::new(dtype), "model.gguf", &mut bytes, &mut ()).unwrap();
    fs::write(folder.join("model.gguf"), bytes).unwrap();
    Runner::open(folder.join("model.gguf")).unwrap()
}

#[test]
fn logits_and_losses_are_the_reference_s_in_trainer_and_runtime() {
    let Golden { inputs, targets, cases } = golden();
    for Case { prefix, gated, logits, loss, loss_on_targets } in cases {
        let one = if prefix { OneStack::Prefix } else { OneStack::Causal };
        let config = config(one, gated);
        let what = format!("{one:?}, gated {gated}");
        let model = named(&config);
        let sequences = |on_inputs| Sequences::for_model(&batch(&[(&inputs, &targets)]), &config, on_inputs).unwrap();
        let found = model.logits(sequences(true)).unwrap();
        close(&found, &logits, &what);
        close(&named(&config).composed_on(Device::Cpu).logits(sequences(true)).unwrap(), &logits, &what);
        for (on_inputs, expected) in [(true, loss), (false, loss_on_targets)] {
            let sequences = sequences(on_inputs);
            let options = LossOptions { label_smoothing: 0.0, z_loss: 0.0, denominator: sequences.weight() };
            let found = model.evaluate(sequences, &options).unwrap().0;
            assert!((f64::from(found) - expected).abs() < 2e-6, "{what}: {found} {expected}");
        }

        let folder = tempfile::tempdir().unwrap();
        let file = written(folder.path(), &model, DType::F32);
        let runner = Runner::open(folder.path()).unwrap();
        assert_eq!((runner.config(), file.config()), (&config, &config));
        let rows = inputs.len() * 11;
        let run = runner.session().logits_ids(&inputs, &targets).unwrap();
        close(&run, &logits[rows..], &what);
        assert_eq!(bits(&file.session().logits_ids(&inputs, &targets).unwrap()), bits(&run), "{what}");
        if one == OneStack::Causal {
            // With a short source, all that follows is the target.
            let rest = [&inputs[1..], &targets].concat();
            close(&runner.session().logits_ids(&inputs[..1], &rest).unwrap(), &logits[11..], &what);
        }
    }
}

#[test]
fn gradients_are_derivatives_of_the_loss_and_packing_changes_no_logits() {
    let Golden { inputs, targets, .. } = golden();
    let other: (&[u32], &[u32]) = (&[5, 2, 1], &[9, 9, 1]);
    for (one, on_inputs) in OneStack::ALL.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        let config = config(one, on_inputs);
        let model = named(&config);
        let examples: [(&[u32], &[u32]); 3] = [(&inputs, &targets), other, (&[], &[3, 4, 1])];
        let packed = || Sequences::for_model(&batch(&examples), &config, on_inputs).unwrap();
        let together = model.logits(packed()).unwrap();
        let mut at = 0;
        for example in examples {
            let alone = model.logits(Sequences::for_model(&batch(&[example]), &config, on_inputs).unwrap()).unwrap();
            for (alone, together) in alone.iter().zip(&together[at..]) {
                assert!((alone - together).abs() < 1e-5, "{one:?}: {alone} {together}");
            }
            at += alone.len();
        }
        assert_eq!(at, together.len());

        let options = LossOptions { label_smoothing: 0.1, z_loss: 0.01, denominator: 10.0 };
        for shared_over_length in [false, true] {
            let dropout = Plan { rate: 0.2, seed: 3, shared_over_length };
            model.gradients().clear();
            let (loss, _) = model.backward(packed(), &options, dropout).unwrap();
            let composed = named(&config).composed_on(Device::Cpu);
            let (other, _) = composed.backward(packed(), &options, dropout).unwrap();
            assert!((loss - other).abs() < 1e-5, "{one:?}: {loss} {other}");
            for (index, spec) in model.specs().iter().enumerate() {
                let gradient = model.gradients().get(index).clone();
                let name = &spec.hf_name;
                for (found, expected) in composed.gradients().get(index).iter().zip(&gradient) {
                    assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{name}: {found} {expected}");
                }
                let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                assert!(norm > 1e-6, "{name}: no gradient");
                let loss_at = |step: f64| {
                    let moved = Model::from_values(&config, |spec| {
                        let place = model.specs().iter().position(|other| other == spec).unwrap();
                        let values = model.values(place)?;
                        let move_by = |(&v, &g): (&f32, &f32)| (f64::from(v) + step * f64::from(g) / norm) as f32;
                        Ok(if place == index { values.iter().zip(&gradient).map(move_by).collect() } else { values })
                    });
                    f64::from(moved.unwrap().backward(packed(), &options, dropout).unwrap().0)
                };
                // Smaller steps than in tests/model.rs: rows of the embedding of four values bend the loss more.
                let slope = (loss_at(5e-4) - loss_at(-5e-4)) / 1e-3;
                // As for all parameters (tests/model.rs).
                assert!((slope - norm).abs() < 2e-3 + 0.01 * norm, "{one:?} {name}: slope {slope}, gradient {norm}");
            }
        }
    }
}

/// Greedy search, beams, draws, batches, scores and ensembles go on from the source, whatever runs beside it.
#[test]
fn all_that_decodes_agrees() {
    let sources: [&[u32]; 4] = [&[3, 7, 5, 9, 1], &[8, 1], &[2, 4, 6, 8, 10, 3, 5, 7, 9, 2, 4, 6, 8, 1], &[10, 10, 1]];
    for one in OneStack::ALL {
        let model = named(&config(one, true));
        let folder = tempfile::tempdir().unwrap();
        let runner = written(folder.path(), &model, DType::F32);
        let limit = GenerateOptions::default().max_new_tokens(12).logprobs(true);
        let draws = limit.clone().n_best(3).temperature(1.3).seed(5);
        for options in [limit.clone(), limit.clone().beams(3).n_best(3), draws] {
            let mut session = runner.session();
            let alone: Vec<_> =
                sources.iter().map(|ids| session.generate_ids(ids, &options).unwrap().finish()).collect();
            for (ids, outputs) in sources.iter().zip(&alone) {
                for output in outputs {
                    // The caches that were built on the way are those of reading it all at once.
                    let score = session.score_ids(ids, &output.ids).unwrap();
                    assert_eq!(bits(&score.logprobs), bits(&output.logprobs), "{one:?}");
                    let text = batch(&[(ids, &output.ids)]);
                    let logits = model.logits(Sequences::for_model(&text, model.config(), true).unwrap()).unwrap();
                    let rows = logits.chunks_exact(11).skip(ids.len());
                    for ((row, &id), found) in rows.zip(&output.ids).zip(&output.logprobs) {
                        let sum = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
                        let expected = f64::from(row[id as usize]) - sum;
                        assert!((f64::from(*found) - expected).abs() < 1e-5, "{one:?}: {found} {expected}");
                    }
                }
            }
            assert_eq!(session.generate_batch_ids(&sources, &options).unwrap(), alone, "{one:?}");
            // Those that join a running batch, in rows that others have left.
            let mut running = RunningBatch::new(runner.session(), 4).unwrap();
            for ids in sources {
                running.add_source(SourceText::from(ids), &options).unwrap();
            }
            let mut joined = vec![Vec::new(); sources.len()];
            while !running.is_empty() {
                for event in running.step() {
                    if let BatchEvent::Done { id, outputs } = event {
                        joined[id as usize] = outputs;
                    }
                }
            }
            assert_eq!(joined, alone, "{one:?}");
            if options.beams == 1 && options.n_best == 1 {
                let ahead = options.clone().lookup(Lookup::On);
                for (ids, outputs) in sources.iter().zip(&alone) {
                    assert_eq!(&session.generate_ids(ids, &ahead).unwrap().finish(), outputs, "{one:?}, looked up");
                }
                let twice = Runner::ensemble(vec![runner.clone(), runner.clone()], Default::default()).unwrap();
                let both = twice.session().generate_ids(sources[2], &options).unwrap().finish();
                assert_eq!(both[0].ids, alone[2][0].ids, "{one:?}, an ensemble");
            }
        }
        // What needs an encoder says so.
        let mut session = runner.session();
        let refused = [
            session.encode_ids(&[3, 1]).map(drop).unwrap_err(),
            session.embed_ids(&[3, 1]).map(drop).unwrap_err(),
            session.encode_passages(&[vec![3, 1].into()], &EncodeOptions::default()).map(drop).unwrap_err(),
            session.alignment_ids(&[3, 1], &[4, 1]).map(drop).unwrap_err(),
        ];
        let expected = format!("model_type: expected a model with an encoder, found one stack, {}", one.model_type());
        for error in refused {
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}

#[test]
fn a_run_is_trained_exported_and_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = prepare(folder, "");
    let path = |name: &str| folder.join(name).display().to_string();
    for (architecture, one) in [("language-model", OneStack::Causal), ("prefix-language-model", OneStack::Prefix)] {
        let (output, kind) =
            (format!("run.output={}", path(architecture)), format!("model.architecture={architecture}"));
        let sets = ["--set", &output, "--set", &kind, "--set", "run.recompute_blocks=true"];
        let told = succeed(&[&["run", &config][..], &sets].concat());
        assert!(String::from_utf8_lossy(&told.stderr).contains("computed again: blocks: activations of"));
        let (model, int8) = (path(&format!("{architecture}-model")), path(&format!("{architecture}.gguf")));
        succeed(&["export", &path(architecture), &model]);
        let checkpoint = Checkpoint::open(Path::new(&model)).unwrap();
        assert_eq!(checkpoint.config.one_stack(), Some(one));
        let mut bytes = Vec::new();
        quantize(&checkpoint, &Policy::new(DType::Q8_0), "model.gguf", &mut bytes, &mut ()).unwrap();
        fs::write(&int8, bytes).unwrap();
        let (exact, rounded) = (Runner::open(&model).unwrap(), Runner::open(&int8).unwrap());
        let options = GenerateOptions::default().max_new_tokens(12);
        for text in ["number: one two three", "number: nine zero seven", "number: five five eight"] {
            let texts = [&exact, &rounded]
                .map(|model| model.session().generate(text, &options).unwrap().finish().remove(0).text);
            assert_eq!(texts[0], texts[1], "{architecture}: {text}");
        }
        let report = succeed(&["eval", &config, "--model", &model, "-n", "3"]);
        assert!(String::from_utf8(report.stdout).unwrap().contains("numbers/exact-match"));
        let plan = succeed(&["plan", &config, "--set", &kind]);
        assert!(String::from_utf8(plan.stdout).unwrap().contains("of a batch of 0 and 200 tokens"));
        let told = fail(&["run", &config, "--set", &kind, "--set", "model.share_stacks=true"]);
        assert!(told.contains("model.share_stacks: expected false for a model of one stack"), "{told}");
    }
}
