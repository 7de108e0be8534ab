//! Both forms of attention, in both kinds of numbers.

use super::*;

#[test]
fn threads_do_not_change_attention() {
    let mut random = Random(14);
    let heads = Heads { count: 5, width: 20 };
    let (inner, len) = (100, if cfg!(miri) { 5 } else { 90 });
    let qkv = random.values(len * 3 * inner);
    let table = random.values(heads.count * 2 * len);
    let bias = BiasRow { values: &table, head_stride: 2 * len, offset: len };
    for (kernels, numbers) in Kernels::available().flat_map(|kernels| NUMBERS.map(|numbers| (kernels, numbers))) {
        let mut source = PackedKeyValues::default();
        source.begin(numbers, heads, len, 1).unwrap();
        source.pack(kernels, 0, &qkv[..len * inner], &qkv[len * inner..2 * len * inner]);
        let run = |threads: usize| {
            let mut workspace = Workspace::default();
            workspace.set_threads(threads);
            let mut own = vec![f32::NAN; len * inner];
            kernels.attend_all(numbers, heads, &qkv, len, bias, &mut own, &mut workspace).unwrap();
            let mut cross = vec![f32::NAN; len * inner];
            let q = &qkv[2 * len * inner..];
            kernels.attend_packed(q, &source, 0, &mut cross, None, &mut workspace);
            [own, cross].concat()
        };
        let alone = run(1);
        for &threads in cases(&[2, 3, 7], &[3]) {
            assert_eq!(bits(&run(threads)), bits(&alone), "{threads} threads");
        }
    }
}

/// Attention in f64: the result `[queries, inner]` and the weights `[queries, heads, len]`.
fn attention_in_f64(
    heads: Heads,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    bias: impl Fn(usize, usize, usize) -> f32,
) -> (Vec<f64>, Vec<f64>) {
    let inner = heads.count * heads.width;
    let (count, len) = (q.len() / inner, keys.len() / inner);
    let mut out = vec![0.0; count * inner];
    let mut all_weights = Vec::new();
    for query in 0..count {
        for head in 0..heads.count {
            let at = |row: usize| row * inner + head * heads.width..row * inner + (head + 1) * heads.width;
            let score = |p: usize| {
                let products = q[at(query)].iter().zip(&keys[at(p)]).map(|(&q, &k)| f64::from(q) * f64::from(k));
                products.sum::<f64>() + f64::from(bias(query, head, p))
            };
            let exponentials: Vec<f64> = (0..len).map(|p| score(p).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            for (p, e) in exponentials.iter().enumerate() {
                for (out, &value) in out[at(query)].iter_mut().zip(&values[at(p)]) {
                    *out += e / sum * f64::from(value);
                }
                all_weights.push(e / sum);
            }
        }
    }
    (out, all_weights)
}

/// Queries, keys and values of a document, with scores of a few units, as in a model, and biases.
struct Document {
    heads: Heads,
    len: usize,
    /// `[len, 3 * inner]`
    qkv: Vec<f32>,
    table: Vec<f32>,
}

impl Document {
    fn all(seed: u64) -> impl Iterator<Item = Document> {
        let mut random = Random(seed);
        let shapes = cases(&[(1, 64), (2, 64), (3, 16), (2, 20), (4, 5), (1, 128), (1, 130)], &[(1, 20)]);
        let lengths = cases(&[1, 2, 15, 16, 17, 33, 40, 100], &[2, 17]);
        shapes.iter().flat_map(|&shape| lengths.iter().map(move |&len| (shape, len))).map(
            move |((count, width), len)| {
                let heads = Heads { count, width };
                let qkv = random.values(len * 3 * count * width).iter().map(|x| x * 1.5).collect();
                Document { heads, len, qkv, table: random.values(count * (2 * len + 3)) }
            },
        )
    }

    fn inner(&self) -> usize {
        self.heads.count * self.heads.width
    }

    /// Queries, keys or values, `[len, inner]`.
    fn column(&self, i: usize) -> Vec<f32> {
        let inner = self.inner();
        self.qkv.chunks_exact(3 * inner).flat_map(|row| row[i * inner..(i + 1) * inner].to_vec()).collect()
    }

    fn bias(&self) -> BiasRow<'_> {
        BiasRow { values: &self.table, head_stride: 2 * self.len + 3, offset: self.len + 2 }
    }

    fn bias_at(&self, query: usize, head: usize, p: usize) -> f32 {
        self.table[head * (2 * self.len + 3) + self.len + 2 - query + p]
    }

    fn name(&self) -> String {
        format!("attention of {} x {} over {}", self.heads.count, self.heads.width, self.len)
    }
}

#[test]
fn attention_over_documents() {
    for (document, numbers) in Document::all(10).flat_map(|document| {
        let document = std::rc::Rc::new(document);
        NUMBERS.map(|numbers| (document.clone(), numbers))
    }) {
        let (heads, len, inner) = (document.heads, document.len, document.inner());
        let (q, keys, values) = (document.column(0), document.column(1), document.column(2));
        let name = format!("{} in {numbers:?}", document.name());
        // Integers round each factor of a score, of up to 1.5, to a multiple of 1.5 / 4095: at 128 factors the score's
        // error has a standard deviation of 0.29 (1.5 / 4095) 0.87 sqrt(2 · 128) = 1.5e-3. Four of them, relative to
        // values of up to
        // 1.5 and weights of up to 1 (p (1 - p) is at most a quarter).
        let (close, close_weights) = if numbers == Numbers::Floats { (1e-4, 1e-5) } else { (9e-3, 1.5e-3) };

        let visible = |kernels: Kernels, rows: usize, visible: usize| {
            let mut out = vec![f32::NAN; rows * inner];
            let (qkv, bias) = (&document.qkv[..rows * 3 * inner], document.bias());
            let mut workspace = Workspace::default();
            kernels.attend_all(numbers, heads, qkv, visible, bias, &mut out, &mut workspace).unwrap();
            out
        };
        let all = |kernels: Kernels| visible(kernels, len, len);
        same_everywhere(&name, all);
        let bias_at = |query, head, p| document.bias_at(query, head, p);
        let (truth, _) = attention_in_f64(heads, &q, &keys, &values, bias_at);
        assert_close(&name, &all(scalar()), truth, close);
        // Masked positions see the others, which see nothing of them.
        let part = len.div_ceil(2);
        let masked = visible(scalar(), len, part);
        let (truth, _) = attention_in_f64(heads, &q, &keys[..part * inner], &values[..part * inner], bias_at);
        assert_close(&name, &masked, truth, close);
        assert_eq!(bits(&masked[..part * inner]), bits(&visible(scalar(), part, part)), "{name}");
        same_everywhere(&name, |kernels| visible(kernels, len, part));

        let (truth, weights) = attention_in_f64(heads, &q, &keys, &values, |_, _, _| 0.0);
        let across = |kernels: Kernels, queries: std::ops::Range<usize>| {
            let mut source = PackedKeyValues::default();
            // Twice: what was there before must not shine through.
            source.begin(numbers, heads, len + 3, 2).unwrap();
            let longer = [&keys[..], &vec![f32::NAN; 3 * inner]].concat();
            source.pack(kernels, 1, &longer, &longer);
            source.begin(numbers, heads, len, 2).unwrap();
            source.pack(kernels, 0, &values, &keys);
            source.pack(kernels, 1, &keys, &values);
            let mut out = vec![f32::NAN; queries.len() * inner];
            let mut weights = vec![0.0; queries.len() * len];
            let shares = vec![1.0 / heads.count as f32; heads.count];
            let alignment = AlignmentOut { shares: &shares, out: &mut weights };
            let q = &q[queries.start * inner..queries.end * inner];
            kernels.attend_packed(q, &source, 1, &mut out, Some(alignment), &mut Workspace::default());
            (out, weights)
        };
        same_everywhere(&name, |kernels| {
            let (out, weights) = across(kernels, 0..len);
            [out, weights].concat()
        });
        let (out, found) = across(scalar(), 0..len);
        assert_close(&name, &out, truth.iter().copied(), close);
        let mean = (0..len * len).map(|i| {
            let (query, p) = (i / len, i % len);
            (0..heads.count).map(|head| weights[(query * heads.count + head) * len + p]).sum::<f64>()
                / heads.count as f64
        });
        assert_close(&name, &found, mean, close_weights);

        for kernels in Kernels::available() {
            let whole = across(kernels, 0..len);
            for query in [0, len / 2, len - 1] {
                let alone = across(kernels, query..query + 1);
                assert_eq!(bits(&alone.0), bits(&whole.0[query * inner..(query + 1) * inner]), "{name}");
                assert_eq!(bits(&alone.1), bits(&whole.1[query * len..(query + 1) * len]), "{name}");
            }
        }
    }
}

/// The growing cache, of which positions are taken from two slots in turn.
#[test]
fn attention_over_a_growing_cache() {
    for document in Document::all(11) {
        let (heads, len, inner) = (document.heads, document.len, document.inner());
        let Heads { count, width } = heads;
        let (q, keys, values) = (document.column(0), document.column(1), document.column(2));
        let slots: Vec<u32> = (0..len).map(|p| (p % 2) as u32).collect();
        let positions = len + 3;
        let spread = |rows: &[f32]| -> Vec<f32> {
            let mut out = vec![f32::NAN; 2 * positions * inner];
            for (p, row) in rows.chunks_exact(inner).enumerate() {
                for (head, row) in row.chunks_exact(width).enumerate() {
                    let at = ((p % 2 * count + head) * positions + p) * width;
                    out[at..at + width].copy_from_slice(row);
                }
            }
            out
        };
        let (cache_keys, cache_values) = (spread(&keys), spread(&values));
        let query = len - 1;
        let step = |kernels: Kernels| {
            let cache = KeyValues { keys: &cache_keys, values: &cache_values, positions, slots: &slots };
            let bias = document.bias();
            let bias = BiasRow { offset: bias.offset - query, ..bias };
            let mut out = vec![f32::NAN; inner];
            let mut scores = vec![f32::NAN; count * len];
            let q = &q[query * inner..];
            kernels.attend(heads, q, cache, Some(bias), &mut scores, &mut out);
            [out, scores].concat()
        };
        let name = document.name();
        same_everywhere(&name, step);
        let bias_at = |_, head, p| document.bias_at(query, head, p);
        let (truth, weights) = attention_in_f64(heads, &q[query * inner..], &keys, &values, bias_at);
        assert_close(&name, &step(scalar()), truth.into_iter().chain(weights), 1e-4);
    }
}

/// What no product can be computed of shows in the result.
#[test]
fn attention_shows_what_is_not_a_number() {
    let heads = Heads { count: 1, width: 16 };
    let bias = BiasRow { values: &[0.0; 20], head_stride: 20, offset: 10 };
    for (numbers, broken) in NUMBERS.into_iter().flat_map(|numbers| [f32::NAN, f32::INFINITY].map(|x| (numbers, x))) {
        for column in 0..3 {
            let mut qkv = vec![0.5; 5 * 48];
            qkv[2 * 48 + column * 16 + 3] = broken;
            for kernels in Kernels::available() {
                let mut out = vec![0.0; 5 * 16];
                kernels.attend_all(numbers, heads, &qkv, 5, bias, &mut out, &mut Workspace::default()).unwrap();
                // A query spoils its own row, a key or a value all of them.
                let rows = if column == 0 { 2..3 } else { 0..5 };
                let spoilt = |row: usize| out[row * 16..(row + 1) * 16].iter().any(|x| !x.is_finite());
                assert!(rows.clone().all(spoilt), "{numbers:?}, {broken} in column {column}");
                assert!((0..5).filter(|row| !rows.contains(row)).all(|row| !spoilt(row)), "{numbers:?}");
            }
        }
    }
}
