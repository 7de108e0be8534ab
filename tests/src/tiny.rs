//! Models small enough to write out: the golden tiny forward of the specification, and Markov chains.

use std::path::Path;

use t5_runtime::Model;
use t5_runtime::config::T5Config;
use t5_runtime::schema;

use crate::checkpoint::{Part, specification_config, write_folder};

/// A model in the making: configuration and F32 tensors under their Hugging Face names.
pub struct Tiny {
    /// Its configuration.
    pub config: T5Config,
    /// Name, shape and values of each tensor.
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Tiny {
    /// A tensor's values.
    pub fn values(&self, name: &str) -> &[f32] {
        let tensor = self.tensors.iter().find(|(other, ..)| other == name);
        &tensor.unwrap_or_else(|| panic!("no tensor {name}")).2
    }

    /// A tensor's values, to be changed.
    pub fn values_mut(&mut self, name: &str) -> &mut Vec<f32> {
        let tensor = self.tensors.iter_mut().find(|(other, ..)| other == name);
        &mut tensor.unwrap_or_else(|| panic!("no tensor {name}")).2
    }

    /// Writes a Hugging Face folder.
    pub fn write(&self, folder: &Path) {
        let part = |shape: &[usize], values: &[f32]| Part::f32(shape, values.iter().copied());
        let parts = self.tensors.iter().map(|(name, shape, values)| (name.clone(), part(shape, values)));
        write_folder(folder, &self.config.to_json(), &parts.collect());
    }

    /// Writes the model to a temporary folder and opens it.
    pub fn open(&self) -> Model {
        let folder = tempfile::tempdir().expect("a temporary folder");
        self.write(folder.path());
        // The mapping outlives the folder's removal.
        Model::open(folder.path()).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The three models of the specification's golden tiny forward (docs/t5.md 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// ReLU, tied, scaled.
    V1_0,
    /// Gated gelu_new, untied, unscaled.
    V1_1,
    /// As 1.1 with a bias table in every block.
    UmT5,
}

/// The model of docs/t5.md 8.2: element i of tensor s, in the order given there, is
/// ((7919 s + 104729 i + 31 i²) mod 1009) / 1009 - 1/2.
pub fn specification(variant: Variant) -> Tiny {
    let gated = variant != Variant::V1_0;
    let feed_forward = if gated { "gated-gelu" } else { "relu" };
    let config = specification_config(feed_forward, !gated, if variant == Variant::UmT5 { "umt5" } else { "t5" });
    let (d, inner, f) = (config.d_model, config.inner_dim(), config.d_ff);
    let buckets = config.relative_attention_num_buckets;
    let heads = config.num_heads;
    let mut tensors = Vec::new();
    let mut draw = |name: String, shape: Vec<usize>, kind: Kind| {
        let s = tensors.len() as u64 + 1;
        let values = (0..shape.iter().product::<usize>() as u64).map(|i| {
            let v = ((7919 * s + 104_729 * i + 31 * i * i) % 1009) as f64 / 1009.0 - 0.5;
            match kind {
                Kind::Matrix => v as f32,
                Kind::Table => (2.0 * v) as f32,
                Kind::Norm => (1.0 + 0.2 * v) as f32,
            }
        });
        let values = values.collect();
        tensors.push((name, shape, values));
    };
    draw("shared.weight".to_owned(), vec![config.vocab_size, d], Kind::Table);
    for (stack, blocks) in [("encoder", 2), ("decoder", 2)] {
        for block in 0..blocks {
            let at = |rest: &str| format!("{stack}.block.{block}.layer.{rest}.weight");
            for part in ["q", "k", "v"] {
                draw(at(&format!("0.SelfAttention.{part}")), vec![inner, d], Kind::Matrix);
            }
            draw(at("0.SelfAttention.o"), vec![d, inner], Kind::Matrix);
            if block == 0 || config.relative_bias_per_block {
                draw(at("0.SelfAttention.relative_attention_bias"), vec![buckets, heads], Kind::Table);
            }
            draw(at("0.layer_norm"), vec![d], Kind::Norm);
            let mut last = 1;
            if stack == "decoder" {
                for part in ["q", "k", "v"] {
                    draw(at(&format!("1.EncDecAttention.{part}")), vec![inner, d], Kind::Matrix);
                }
                draw(at("1.EncDecAttention.o"), vec![d, inner], Kind::Matrix);
                draw(at("1.layer_norm"), vec![d], Kind::Norm);
                last = 2;
            }
            for wi in if gated { ["wi_0", "wi_1"].as_slice() } else { &["wi"] } {
                draw(at(&format!("{last}.DenseReluDense.{wi}")), vec![f, d], Kind::Matrix);
            }
            draw(at(&format!("{last}.DenseReluDense.wo")), vec![d, f], Kind::Matrix);
            draw(at(&format!("{last}.layer_norm")), vec![d], Kind::Norm);
        }
        draw(format!("{stack}.final_layer_norm.weight"), vec![d], Kind::Norm);
    }
    if gated {
        draw("lm_head.weight".to_owned(), vec![config.vocab_size, d], Kind::Matrix);
    }
    Tiny { config, tensors }
}

#[derive(Clone, Copy)]
enum Kind {
    Matrix,
    Table,
    Norm,
}

/// A model whose attention and feed-forward layers add nothing: every norm is 1, every other tensor 0.
pub fn silent(config: T5Config) -> Tiny {
    let tensors = schema::tensors(&config).into_iter().map(|spec| {
        let value = if spec.id.role.is_norm() { 1.0 } else { 0.0 };
        let count = spec.shape.iter().product();
        (spec.hf_name, spec.shape, vec![value; count])
    });
    let tensors = tensors.collect();
    Tiny { config, tensors }
}

/// A first-order chain: after token `i` the logits are `edges[i]`, whatever the source. The sequence begins after
/// token `start`; token 1 ends it.
pub fn markov(edges: &[Vec<f32>], start: u32) -> Model {
    let n = edges.len();
    let mut config = specification(Variant::V1_1).config;
    (config.vocab_size, config.d_model) = (n, n);
    config.decoder_start_token_id = start;
    let mut tiny = silent(config);
    // The stream holds unit vector i; its RMS norm has the one element sqrt(n) (but for epsilon).
    let norm = (1.0 / n as f64 + 1e-6).sqrt();
    let (embedding, head) = (0..n * n)
        .map(|at| (at / n, at % n))
        .map(|(row, column)| (if row == column { 1.0 } else { 0.0 }, (f64::from(edges[column][row]) * norm) as f32))
        .unzip();
    *tiny.values_mut("shared.weight") = embedding;
    *tiny.values_mut("lm_head.weight") = head;
    tiny.open()
}
