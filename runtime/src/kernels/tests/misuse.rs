//! What safe code can ask of kernels and must not: each is a panic or an error with a sentence of ours, in release
//! builds too, where arithmetic wraps.

use super::*;

/// Asserts that `f` panics with a message that contains `expected`.
fn refused(expected: &str, f: impl FnOnce()) {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err(expected);
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap();
    assert!(message.contains(expected), "expected a message with {expected:?}, found {message:?}");
}

const ONE_HEAD: Heads = Heads { count: 1, width: 16 };
/// Their values together are 2^64 + 16.
const WRAPPING: Heads = Heads { count: (1 << 63) + 8, width: 2 };

#[test]
fn memory_that_no_machine_has() {
    for len in [usize::MAX / 4 - 15, usize::MAX] {
        let error = limits::Ones::new(len).err().unwrap().to_string();
        assert!(error.contains("not enough memory for weights"), "{error}");
    }
    for numbers in NUMBERS {
        for (heads, len, blocks) in [
            (ONE_HEAD, 1 << 57, 1),
            (ONE_HEAD, 1, 1 << 57),
            (ONE_HEAD, usize::MAX, usize::MAX),
            (Heads { count: 1, width: usize::MAX - 1 }, 1, 1),
            (WRAPPING, 8, 1),
        ] {
            let mut source = PackedKeyValues::default();
            source.begin(numbers, ONE_HEAD, 1, 1).unwrap();
            let error = source.begin(numbers, heads, len, blocks).unwrap_err().to_string();
            assert!(error.contains("not enough memory for keys and values"), "{error}");
            // What there was is gone, and nothing else is there.
            refused("no room", || source.pack(scalar(), 0, &[1.0; 16], &[1.0; 16]));
        }
    }
}

#[test]
fn blocks_that_there_is_no_room_for() {
    for (numbers, block) in
        NUMBERS.into_iter().flat_map(|numbers| [1, (1 << 58) / 17 - 1, usize::MAX].map(|b| (numbers, b)))
    {
        let mut source = PackedKeyValues::default();
        source.begin(numbers, ONE_HEAD, 1, 1).unwrap();
        refused("no room", || source.pack(scalar(), block, &[1.0; 16], &[1.0; 16]));
        source.pack(scalar(), 0, &[1.0; 16], &[1.0; 16]);
        let mut out = [0.0; 16];
        let workspace = &mut Workspace::default();
        refused("no room", || scalar().attend_packed(&[1.0; 16], &source, block, &mut out, None, workspace));
        scalar().attend_packed(&[1.0; 16], &source, 0, &mut out, None, workspace);
        assert_eq!(out, [1.0; 16]);
    }
    let mut source = PackedKeyValues::default();
    refused("at least one position", || source.begin(Numbers::Floats, ONE_HEAD, 0, 1).unwrap());
    refused("heads with values", || source.begin(Numbers::Floats, Heads { count: 0, width: 16 }, 1, 1).unwrap());
    refused("heads with values", || {
        scalar().attend_packed(&[], &PackedKeyValues::default(), 0, &mut [], None, &mut Workspace::default());
    });
    source.begin(Numbers::Floats, ONE_HEAD, 2, 1).unwrap();
    refused("expected keys and values", || source.pack(scalar(), 0, &[1.0; 16], &[1.0; 16]));
    source.pack(scalar(), 0, &[1.0; 32], &[1.0; 32]);
    for (q, out, alignment) in [(15, 15, 2), (16, 32, 2), (16, 16, 1)] {
        let (mut out, mut weights) = (vec![0.0; out], vec![0.0; alignment]);
        let alignment = Some(AlignmentOut { shares: &[1.0], out: &mut weights });
        let run = || scalar().attend_packed(&vec![1.0; q], &source, 0, &mut out, alignment, &mut Workspace::default());
        refused("", run);
    }
}

/// Two threads must not write the same columns, as they would if the number of heads wrapped around.
#[test]
fn heads_that_do_not_fit() {
    let table = [0.0; 64];
    let good = BiasRow { values: &table, head_stride: 16, offset: 8 };
    let visible = |heads: Heads, len: usize, visible: usize, out: usize, bias: BiasRow<'_>| {
        let mut workspace = Workspace::default();
        workspace.set_threads(2);
        let (qkv, mut out) = (vec![1.0; len], vec![0.0; out]);
        scalar().attend_all(Numbers::Floats, heads, &qkv, visible, bias, &mut out, &mut workspace).unwrap();
    };
    let run = |heads: Heads, len: usize, out: usize, bias: BiasRow<'_>| visible(heads, len, 8, out, bias);
    let heads = Heads { count: 4, width: 4 };
    run(heads, 8 * 48, 8 * 16, good);
    refused("qkv is [len, 3 * inner]", || run(WRAPPING, 8 * 48, 8 * 16, good));
    refused("qkv is [len, 3 * inner]", || run(Heads { count: usize::MAX, width: usize::MAX }, 8 * 48, 8 * 16, good));
    refused("qkv is [len, 3 * inner]", || run(heads, 8 * 48 + 1, 8 * 16, good));
    refused("out is [len, inner]", || run(heads, 8 * 48, 8 * 16 - 1, good));
    for none in [0, 9, usize::MAX] {
        refused("1 to 8 visible positions", || visible(heads, 8 * 48, none, 8 * 16, good));
    }
    for none in [Heads { count: 0, width: 4 }, Heads { count: 4, width: 0 }] {
        refused("heads with values", || run(none, 8 * 48, 8 * 16, good));
    }
    refused("biases of 8 positions", || run(heads, 8 * 48, 8 * 16, BiasRow { offset: 6, ..good }));
    refused("biases of 8 positions", || run(heads, 8 * 48, 8 * 16, BiasRow { offset: usize::MAX - 4, ..good }));
    refused("", || run(heads, 8 * 48, 8 * 16, BiasRow { head_stride: 1 << 62, ..good }));
}

#[test]
fn caches_that_do_not_fit() {
    let heads = Heads { count: 2, width: 8 };
    // Two slots of three positions.
    let keys = [0.5; 2 * 16 * 3];
    let cache = KeyValues { keys: &keys, values: &keys, positions: 3, slots: &[0, 1] };
    let run = |heads: Heads, inner: usize, cache: KeyValues<'_>, scores: usize| {
        let mut out = vec![0.0; inner];
        scalar().attend(heads, &vec![1.0; inner], cache, None, &mut vec![0.0; scores], &mut out);
        assert_eq!(out, vec![0.5; inner]);
    };
    run(heads, 16, cache, 4);
    refused("heads with values", || run(Heads { count: 0, width: 8 }, 0, cache, 0));
    refused("heads with values", || run(Heads { count: 2, width: 0 }, 0, cache, 4));
    refused("q and out are [inner]", || run(WRAPPING, 16, cache, 4));
    refused("scores are", || run(heads, 16, cache, 5));
    refused("scores are", || run(heads, 16, KeyValues { slots: &[], ..cache }, 0));
    refused("slots", || run(heads, 16, KeyValues { slots: &[0, 2], ..cache }, 4));
    refused("slots", || run(heads, 16, KeyValues { slots: &[0, u32::MAX], ..cache }, 4));
    refused("slots", || run(heads, 16, KeyValues { slots: &[0; 4], ..cache }, 8));
    refused("slots", || run(heads, 16, KeyValues { values: &keys[1..], ..cache }, 4));
    refused("keys are", || run(heads, 16, KeyValues { positions: 0, ..cache }, 4));
    refused("keys are", || run(heads, 16, KeyValues { positions: 1 << 60, ..cache }, 4));
}

#[test]
fn matrices_that_do_not_fit() {
    refused("at least one part", || drop(Matrix::new(scalar(), &[])));
    let empty = |shape: Vec<usize>| Tensor {
        name: "empty".to_owned(),
        file: "test".to_owned(),
        dtype: DType::F32,
        shape,
        data: Bytes::from_vec(Vec::new()),
        scale: 1.0,
    };
    for shape in [vec![usize::MAX, 0], vec![0, 32], vec![1 << 32, 1 << 32, 0], vec![0]] {
        let error = Matrix::new(scalar(), &[&empty(shape)]).err().unwrap().to_string();
        assert!(error.contains("test: tensor empty: expected extents above 0"), "{error}");
    }
    for shape in [vec![1 << 32, 1 << 32], vec![1 << 62, 1 << 62, 4], vec![usize::MAX, 1]] {
        assert!(Matrix::new(scalar(), &[&empty(shape)]).err().unwrap().to_string().contains("its size overflows"));
    }
    let w = tensor(&mut Random(16), DType::F32, 2, 2);
    let matrix = Matrix::new(scalar(), &[&w]).unwrap();
    for (x, m, y) in [(0, 1 << 63, 0), (2, (1 << 63) + 1, 2), (3, 1, 2), (2, 1, 3)] {
        refused("x is [m, k] and y is [m, n]", || {
            matrix.multiply(scalar(), &vec![1.0; x], m, &mut vec![0.0; y], &mut Workspace::default());
        });
    }
}

#[test]
fn rows_that_do_not_fit() {
    refused("[rows, d]", || scalar().rms_norm(&[], &[], 1e-6, &mut []));
    refused("[rows, d]", || scalar().rms_norm(&[1.0; 3], &[1.0; 2], 1e-6, &mut [0.0; 3]));
    refused("one length", || scalar().activate(Activation::Relu, &[1.0; 3], &mut [0.0; 2]));
    refused("x is [rows, 2f]", || scalar().activate_gated(Activation::Relu, &[], 0, &mut []));
    refused("x is [rows, 2f]", || scalar().activate_gated(Activation::Relu, &[1.0; 6], 2, &mut [0.0; 3]));
    refused("one length", || assert!(scalar().dot(&[1.0], &[]).is_nan()));
    refused("one length", || scalar().add(&mut [1.0], &[]));
    refused("one length", || scalar().axpy(1.0, &[1.0], &mut []));
}
