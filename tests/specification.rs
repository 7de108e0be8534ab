//! The tables and vectors of the specification (docs/t5.md 1, 7 and 8) that concern the runtime.

use t5_runtime::config::{Activation, FeedForwardKind, T5Config};
use t5_runtime::kernels::Kernels;
use t5_runtime::position::{Buckets, Direction};
use t5_runtime::{Finish, GenerateOptions, LengthPenalty, schema};
use t5_tests::golden::{difference, ids};
use t5_tests::tiny::{self, Variant};
use t5_tests::{Golden, paths};

/// The vectors are printed with six decimals and were computed in float64; float32 on a model of this size adds
/// about 1e-6.
const PRINTED: f32 = 5e-6;

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    let off = difference(found, expected);
    assert!(off <= tolerance, "off by {off}\nexpected {expected:?}\nfound    {found:?}");
}

// 1.2: buckets.

#[test]
fn buckets_are_those_of_the_library() {
    let golden = Golden::read(&paths::golden("buckets.jsonl"));
    let farthest = golden.header["farthest"].as_u64().unwrap() as usize;
    assert_eq!(golden.cases.len(), 16);
    for case in &golden.cases {
        let number = |key| case.get(key).as_u64().unwrap() as usize;
        let bidirectional = case.get("bidirectional").as_bool().unwrap();
        let direction = if bidirectional { Direction::Bidirectional } else { Direction::Causal };
        let (count, max_distance) = (number("num_buckets"), number("max_distance"));
        let buckets = Buckets::new(direction, count, max_distance);
        let starts: Vec<Vec<u32>> = case.get("starts").as_array().unwrap().iter().map(ids).collect();
        for distance in 0..=farthest {
            let place = starts.partition_point(|start| start[0] as usize <= distance) - 1;
            let expected = starts[place][1] as usize;
            let name = format!("{count} buckets to {max_distance}, {direction:?}, distance {distance}");
            assert_eq!(buckets.of(distance, 0), expected, "{name}, past");
            let future = if !bidirectional || distance == 0 { 0 } else { expected + count / 2 };
            assert_eq!(buckets.of(0, distance), future, "{name}, future");
        }
    }
}

#[test]
fn worked_bucket_matrices() {
    let both = Buckets::new(Direction::Bidirectional, 32, 128);
    let causal = Buckets::new(Direction::Causal, 32, 128);
    let matrix =
        |buckets: &Buckets| (0..3).map(|q| (0..2).map(|k| buckets.of(q, k)).collect()).collect::<Vec<Vec<usize>>>();
    assert_eq!(matrix(&both), [[0, 17], [1, 0], [2, 1]]);
    assert_eq!(matrix(&causal), [[0, 0], [1, 0], [2, 1]]);
    for far in [128, 129, 1000, 1 << 20] {
        assert_eq!((both.of(far, 0), both.of(0, far), causal.of(far, 0)), (15, 31, 31), "{far}");
    }
}

// 1.4 and 8.1: parameter counts.

fn parameters(config: &T5Config) -> usize {
    schema::tensors(config).iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
}

struct Size {
    d: usize,
    f: usize,
    h: usize,
    k: usize,
    layers: (usize, usize),
    vocab: usize,
}

fn config(size: &Size, feed_forward: &str, tied: bool, per_block: bool) -> T5Config {
    T5Config {
        vocab_size: size.vocab,
        d_model: size.d,
        d_kv: size.k,
        d_ff: size.f,
        num_layers: size.layers.0,
        num_decoder_layers: size.layers.1,
        num_heads: size.h,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        relative_bias_per_block: per_block,
        feed_forward: FeedForwardKind::from_name(feed_forward).unwrap(),
        tie_word_embeddings: tied,
        ..tiny::specification(Variant::V1_1).config
    }
}

#[test]
fn parameter_counts_of_published_models() {
    let size = |d, f, h, k, layers, vocab| Size { d, f, h, k, layers, vocab };
    let relu = [
        (size(512, 2048, 8, 64, (6, 6), 32128), 60_506_624),
        (size(768, 3072, 12, 64, (12, 12), 32128), 222_903_552),
        (size(1024, 4096, 16, 64, (24, 24), 32128), 737_668_096),
        (size(1024, 16384, 32, 128, (24, 24), 32128), 2_851_598_336),
        (size(1024, 65536, 128, 128, (24, 24), 32128), 11_307_321_344),
        (size(256, 1024, 4, 64, (4, 4), 32128), 15_570_688),
        (size(384, 1536, 8, 64, (4, 4), 32128), 31_220_480),
    ];
    for (size, count) in relu {
        assert_eq!(parameters(&config(&size, "relu", true, false)), count);
    }
    let gated = [
        (512, 1024, 6, 8, [76_961_152, 300_176_768, 306_601_984]),
        (768, 2048, 12, 12, [247_577_856, 582_401_280, 592_043_520]),
        (1024, 2816, 16, 24, [783_150_080, 1_229_581_312, 0]),
        (2048, 5120, 32, 24, [2_849_757_184, 3_742_619_648, 3_768_356_864]),
        (4096, 10240, 64, 24, [11_135_332_352, 12_921_057_280, 12_972_531_712]),
    ];
    for (d, f, h, layers, counts) in gated {
        let families = [(32128, false), (250_112, false), (256_384, true)];
        for ((vocab, per_block), count) in families.into_iter().zip(counts) {
            // There is no umT5 large.
            if count > 0 {
                let size = size(d, f, h, 64, (layers, layers), vocab);
                assert_eq!(parameters(&config(&size, "gated-gelu", false, per_block)), count);
            }
        }
    }
    let byt5 = [
        (size(1472, 3584, 6, 64, (12, 4), 384), 299_637_760),
        (size(1536, 3968, 12, 64, (18, 6), 384), 581_653_248),
        (size(1536, 3840, 16, 64, (36, 12), 384), 1_228_183_552),
        (size(2560, 6720, 32, 64, (36, 12), 384), 3_737_801_728),
        (size(4672, 12352, 64, 64, (36, 12), 384), 12_906_899_328),
    ];
    for (size, count) in byt5 {
        assert_eq!(parameters(&config(&size, "gated-gelu", false, false)), count);
    }
}

#[test]
fn parameter_counts_of_tiny_models() {
    let count = |layers, feed_forward: &str, tied| {
        let mut config = config(&Size { d: 32, f: 37, h: 4, k: 8, layers, vocab: 99 }, feed_forward, tied, false);
        config.relative_attention_num_buckets = 8;
        parameters(&config)
    };
    assert_eq!(count((2, 2), "relu", true), 37_664);
    assert_eq!(count((2, 2), "gated-gelu", false), 45_568);
    assert_eq!(count((5, 5), "relu", true), 89_216);
    assert_eq!(count((5, 5), "gated-gelu", false), 104_224);
    assert_eq!(count((2, 1), "relu", true), 27_008);
    // The reference code's test checkpoint: inner (128) is not d (32).
    let size = Size { d: 32, f: 64, h: 2, k: 64, layers: (2, 2), vocab: 32128 };
    let config = config(&size, "gated-gelu", false, false);
    assert_eq!((schema::tensors(&config).len(), parameters(&config)), (52, 2_179_584));
}

// 8.1, 3: functions, on every instruction set.

#[test]
fn norm_and_activation_vectors() {
    for kernels in Kernels::available() {
        let mut out = [0.0; 4];
        kernels.rms_norm(&[1.0, 2.0, 3.0, 4.0], &[1.0; 4], 1e-6, &mut out);
        assert_close(&out, &[0.365_148_3, 0.730_296_7, 1.095_445, 1.460_593_4], 5e-7);
        let mut out = [0.0; 3];
        kernels.activate(Activation::GeluNew, &[-1.0, 1.0, 3.0], &mut out);
        // The erf form would give -0.1586553, 0.8413447, 2.9959503.
        assert_close(&out, &[-0.158_808, 0.841_192, 2.996_362_6], 5e-7);
        assert_close(&[kernels.log_sum_exp(&[1.0, 2.0, 3.0])], &[3.407_606], 5e-7);
    }
}

// 8.2: the golden tiny forward.

const SOURCE: [u32; 7] = [3, 7, 5, 9, 10, 2, 1];
const TARGET: [u32; 4] = [4, 8, 6, 1];

struct Forward {
    variant: Variant,
    tensors: usize,
    parameters: usize,
    encoder_0: [f32; 4],
    encoder_6: [f32; 4],
    logits_0: [f32; 11],
    logits_3: [f32; 11],
    nll: [f32; 4],
    sum: f32,
    greedy: [u32; 8],
}

const FORWARDS: [Forward; 3] = [
    Forward {
        variant: Variant::V1_0,
        tensors: 47,
        parameters: 892,
        encoder_0: [-0.16476, -1.060625, 1.071088, 1.4973],
        encoder_6: [-0.762172, -0.146429, 0.124116, 1.91472],
        logits_0: [
            0.757994, 0.425273, -0.322584, 0.542997, -0.846824, -1.428956, 0.757348, -0.302274, 0.251542, -0.580002,
            -0.150892,
        ],
        logits_3: [
            0.67175, 0.377845, -0.465864, 0.182372, -0.739684, -1.25296, 0.970372, -0.14755, 0.226473, -0.506174,
            -0.241836,
        ],
        nll: [3.360914, 2.173198, 1.772724, 2.119588],
        sum: 9.426424,
        greedy: [0; 8],
    },
    Forward {
        variant: Variant::V1_1,
        tensors: 52,
        parameters: 1032,
        encoder_0: [0.202559, -1.216246, 1.594849, 0.221537],
        encoder_6: [-1.812497, 0.096031, -0.248839, 1.006954],
        logits_0: [
            -0.104983, -0.016625, -0.031402, 0.03739, -0.023818, -0.054737, 1.258606, -0.346287, -0.569501, 0.594276,
            -1.160184,
        ],
        logits_3: [
            -0.043624, -0.742031, 0.939314, 0.804702, 0.124935, 0.00275, -0.116938, -0.774347, 0.031549, -0.069498,
            -0.708266,
        ],
        nll: [2.568016, 2.775521, 2.437665, 3.241137],
        sum: 11.022338,
        greedy: [6; 8],
    },
    Forward {
        variant: Variant::UmT5,
        tensors: 54,
        parameters: 1064,
        encoder_0: [0.205979, -1.587346, 1.165161, 0.051509],
        encoder_6: [-0.796673, 0.145063, 0.571987, 1.682521],
        logits_0: [
            0.261443, -0.435215, -0.358474, 0.384981, 0.747815, 1.524876, -0.482501, -1.078341, 0.505725, -0.056509,
            0.804568,
        ],
        logits_3: [
            0.281696, -0.552882, -0.754426, -0.259938, 0.975139, 1.518375, 0.075234, -0.613102, 0.611915, -0.027674,
            0.63743,
        ],
        nll: [2.062646, 2.425993, 3.32681, 3.36748],
        sum: 11.182929,
        greedy: [5, 7, 4, 4, 4, 4, 4, 4],
    },
];

#[test]
fn golden_tiny_forward() {
    for expected in &FORWARDS {
        let tiny = tiny::specification(expected.variant);
        let count: usize = tiny.tensors.iter().map(|(.., values)| values.len()).sum();
        assert_eq!((tiny.tensors.len(), count), (expected.tensors, expected.parameters));
        assert_close(&tiny.values("shared.weight")[12..16], &[0.621407, -0.252725, 0.996036, 0.367691], PRINTED);

        let model = tiny.open();
        let mut session = model.session();
        // The specification's source ends with a masked pad; ours simply ends.
        let states = session.encode_ids(&SOURCE).unwrap();
        assert_close(&states[..4], &expected.encoder_0, PRINTED);
        assert_close(&states[24..28], &expected.encoder_6, PRINTED);
        let logits = session.logits_ids(&SOURCE, &TARGET).unwrap();
        assert_close(&logits[..11], &expected.logits_0, PRINTED);
        assert_close(&logits[33..44], &expected.logits_3, PRINTED);
        let score = session.score_ids(&SOURCE, &TARGET).unwrap();
        let nll: Vec<f32> = score.logprobs.iter().map(|logprob| -logprob).collect();
        assert_close(&nll, &expected.nll, PRINTED);
        assert_close(&[-score.sum], &[expected.sum], 4.0 * PRINTED);
        let options = GenerateOptions::default().max_new_tokens(8);
        let output = session.generate_ids(&SOURCE, &options).unwrap().finish();
        assert_eq!(output[0].ids, expected.greedy, "{:?}", expected.variant);
        assert_eq!(output[0].finish, Finish::Length);
    }
}

// 7.2 and 7.3: beam search.

#[test]
fn length_penalties() {
    let t5 = LengthPenalty::T5 { alpha: 0.6 };
    let lengths = [1, 2, 5, 10, 50, 128, 300];
    let found = lengths.map(|n| t5.divisor(n));
    assert_close(&found, &[1.0, 1.096903, 1.358655, 1.732862, 3.778565, 6.418303, 10.560614], 1e-6);
    assert_close(&[-2.0 / t5.divisor(5)], &[-1.47204], 1e-5);
    let hugging_face = |exponent| LengthPenalty::HuggingFace { exponent };
    assert_close(&[-2.0 / hugging_face(0.6).divisor(5)], &[-0.761462], 1e-6);
    assert_close(&[-2.0 / hugging_face(1.0).divisor(5)], &[-0.4], 1e-6);
}

fn beams(beams: usize, max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions::default()
        .beams(beams)
        .n_best(beams)
        .length_penalty(LengthPenalty::T5 { alpha: 0.0 })
        .max_new_tokens(max_new_tokens)
}

/// T5X's first-order toy model: from A or B stay or change at each of four transitions, staying earning +1, -1, +1,
/// -1 and changing the opposite. States are unrolled over time, so that a chain can tell the transitions apart.
#[test]
fn beams_of_the_toy_model() {
    const FORBIDDEN: f32 = -1e4;
    let (end, start) = (1, 2);
    let state = |letter: usize, time: usize| 3 + 2 * time + letter;
    let mut edges = vec![vec![FORBIDDEN; 13]; 13];
    edges[start][state(0, 0)] = 0.0;
    edges[start][state(1, 0)] = 0.0;
    for (time, stay) in [1.0, -1.0, 1.0, -1.0].into_iter().enumerate() {
        for letter in 0..2 {
            edges[state(letter, time)][state(letter, time + 1)] = stay;
            edges[state(letter, time)][state(1 - letter, time + 1)] = -stay;
        }
    }
    edges[state(0, 4)][end] = 0.0;
    edges[state(1, 4)][end] = 0.0;
    let model = tiny::markov(&edges, start as u32);
    let outputs = model.session().generate_ids(&[1], &beams(2, 6)).unwrap().finish();
    let mut paths: Vec<String> = outputs
        .iter()
        .map(|output| {
            output.ids.iter().map(|&id| if id == 1 { '.' } else { ['A', 'B'][(id as usize - 3) % 2] }).collect()
        })
        .collect();
    paths.sort();
    assert_eq!(paths, ["AABBA.", "BBAAB."]);
    assert!(outputs.iter().all(|output| output.finish == Finish::EndOfSequence));
    // Both paths: one half, then four times the better of two edges.
    let expected = 0.5f32.ln() - 4.0 * (1.0 + (-2.0f32).exp()).ln();
    assert_close(&[outputs[0].score, outputs[1].score], &[expected; 2], 1e-4);
}

/// T5X's test of forced prompts: constant logits that favour token 2 over 3, or 3 over 2; no end.
#[test]
fn beams_with_a_forced_prefix() {
    for (prefix, better, worse) in [(vec![7], 2, 3), (vec![4, 5], 3, 2)] {
        let mut row = vec![-1e4; 10];
        (row[better as usize], row[worse as usize]) = (-0.1, -0.9);
        let model = tiny::markov(&vec![row; 10], 0);
        let length = 5 - prefix.len();
        let options = beams(2, length).prefix_ids(prefix).suppress(vec![1]);
        let outputs = model.session().generate_ids(&[1], &options).unwrap().finish();
        assert_eq!(outputs[0].ids, vec![better; length]);
        // One worse token; where it stands is a tie that rounding decides.
        let mut second = outputs[1].ids.clone();
        second.sort_by_key(|&id| id == better);
        assert_eq!(second, [vec![worse], vec![better; length - 1]].concat());
        let logprob = |logit: f32| logit - ((-0.1f32).exp() + (-0.9f32).exp()).ln();
        let expected = logprob(-0.1) * length as f32;
        assert_close(&[outputs[0].score, outputs[1].score], &[expected, expected - 0.8], 1e-3);
        assert!(outputs.iter().all(|output| output.finish == Finish::Length));
    }
}

/// Greedy ties go to the lowest id, in every position relative to the vector width.
#[test]
fn ties_go_to_the_lowest_id() {
    for n in [5, 16, 17, 40] {
        for first in 2..n - 1 {
            let mut row = vec![0.0; n];
            (row[first], row[n - 1]) = (1.5, 1.5);
            let model = tiny::markov(&vec![row; n], 0);
            let options = GenerateOptions::default().max_new_tokens(1);
            let outputs = model.session().generate_ids(&[1], &options).unwrap().finish();
            assert_eq!(outputs[0].ids, [first as u32], "{n}");
        }
    }
}

// 8.1, 10: invariants.

/// With nothing in attention and feed-forward, logits are d^-1/2 RMS(E[t]) E^T.
#[test]
fn silent_layers_leave_the_embedding() {
    let source = tiny::specification(Variant::V1_0);
    let mut tiny = tiny::silent(source.config.clone());
    *tiny.values_mut("shared.weight") = source.values("shared.weight").to_vec();
    let logits = tiny.open().session().logits_ids(&SOURCE, &TARGET).unwrap();
    let embedding = source.values("shared.weight");
    for (step, input) in [0usize, 4, 8, 6].into_iter().enumerate() {
        let x = &embedding[input * 4..input * 4 + 4];
        let rms = (x.iter().map(|v| v * v).sum::<f32>() / 4.0 + 1e-6).sqrt();
        let expected: Vec<f32> = embedding
            .chunks_exact(4)
            .map(|row| row.iter().zip(x).map(|(a, b)| a * b / rms).sum::<f32>() * 0.5)
            .collect();
        assert_close(&logits[step * 11..(step + 1) * 11], &expected, 1e-6);
    }
}

/// A constant added to all buckets of one head cancels in the softmax; in one bucket it does not.
#[test]
fn a_constant_in_the_bias_table_changes_nothing() {
    for variant in [Variant::V1_0, Variant::V1_1, Variant::UmT5] {
        let tiny = tiny::specification(variant);
        let before = tiny.open().session().logits_ids(&SOURCE, &TARGET).unwrap();
        for stack in ["encoder", "decoder"] {
            let table = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
            let mut shifted = tiny::specification(variant);
            shifted.values_mut(&table).iter_mut().skip(1).step_by(2).for_each(|value| *value += 3.0);
            let after = shifted.open().session().logits_ids(&SOURCE, &TARGET).unwrap();
            assert_close(&after, &before, PRINTED);
            let mut bent = tiny::specification(variant);
            // Head 0, distance 1 in the past.
            bent.values_mut(&table)[2] += 3.0;
            let after = bent.open().session().logits_ids(&SOURCE, &TARGET).unwrap();
            assert!(difference(&after, &before) > 1e-3, "{variant:?} {stack}: the bias is not used");
        }
    }
}

/// Decoding with its cache gives what one teacher-forced pass gives, to the last bit: rows do not influence each other.
#[test]
fn cached_and_uncached_decoding_are_equal() {
    for variant in [Variant::V1_0, Variant::V1_1, Variant::UmT5] {
        let model = tiny::specification(variant).open();
        let mut session = model.session();
        let options = GenerateOptions::default().max_new_tokens(150).suppress(vec![1]);
        let output = session.generate_ids(&SOURCE, &options).unwrap().finish().remove(0);
        assert_eq!(output.ids.len(), 150);
        let score = session.score_ids(&SOURCE, &output.ids).unwrap();
        assert_eq!(score.logprobs, output.logprobs, "{variant:?}");
    }
}

/// Every instruction set of the machine gives the same bits.
#[test]
fn instruction_sets_agree() {
    use t5_runtime::{Model, ModelOptions};
    let folder = paths::golden("families/t5-1.1");
    let golden = Golden::read(&folder.join("golden.jsonl"));
    let source = golden.of_kind("score").last().unwrap().ids("input_ids");
    let target = golden.of_kind("score").last().unwrap().ids("target_ids");
    let mut first: Option<(String, Vec<f32>)> = None;
    for kernels in Kernels::available() {
        let isa = kernels.isa().name().to_owned();
        let model =
            Model::open_with(&folder, &ModelOptions { isa: Some(kernels.isa()), ..ModelOptions::default() }).unwrap();
        let logits = model.session().logits_ids(&source, &target).unwrap();
        match &first {
            None => first = Some((isa, logits)),
            Some((other, expected)) => assert!(logits == *expected, "{isa} differs from {other}"),
        }
    }
    assert!(first.is_some());
}
