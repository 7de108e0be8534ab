//! What a run will take, before it is begun: parameters, memory, arithmetic, and time at this machine's speed.

use std::fmt::Write;
use std::time::Instant;

use t5_runtime::config::{Activation, T5Config};
use t5_runtime::schema::{self, Role};

use crate::Result;
use crate::batches::{Batch, Layout};
use crate::config::{Config, Denominator};
use crate::init::Scheme;
use crate::model::{LossOptions, Model};
use crate::ops::Sequences;
use crate::ops::dropout::Plan as DropoutPlan;
use crate::sums::GradientSum;
use crate::tuning::{self, Method};
use crate::{optimizer, parameters};

/// Tokens of each stack in the step that is measured.
const MEASURED: usize = 512;
/// Rows of its vocabulary at most.
const MEASURED_ROWS: usize = 8192;
/// Steps that are measured, of which the fastest counts.
const STEPS: usize = 3;

/// What a run takes. Bytes, and operations in floating point.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub parameters: usize,
    pub trained: usize,
    pub weights: usize,
    pub gradients: usize,
    /// Sums of gradients, where several batches are accumulated.
    pub sums: usize,
    pub optimizer: usize,
    /// The average of the parameters, where one is kept.
    pub average: usize,
    /// What one batch keeps for its backward pass, at most.
    pub activations: usize,
    /// Encoder and decoder tokens of a batch, at most.
    pub tokens: [usize; 2],
    /// Of one update over the accumulated batches.
    pub flops: f64,
    /// What the same takes where blocks are not computed again: activations and operations; `None` where they are not.
    pub kept: Option<(usize, f64)>,
    pub steps: u64,
    pub accumulate: usize,
}

impl Plan {
    /// The plan of a run with a model of this configuration.
    pub fn new(config: &Config, model: &T5Config) -> Plan {
        let mut specs = schema::tensors(model);
        if config.model.share_stacks {
            specs.retain(|spec| !parameters::is_shared(spec));
        }
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let parameters = specs.iter().map(|spec| count(&spec.shape)).sum();
        let lora = config.tuning.method == Method::Lora;
        let (mut trained, mut gradients, mut slots, mut bases) = (0, 0, 0, 0);
        let adapters = config.tuning.method == Method::Adapters;
        for spec in &specs {
            let size = count(&spec.shape);
            if adapters && !tuning::is_chosen(spec.id.role, config.tuning.adapter_norms) {
                continue;
            }
            if !lora {
                trained += size;
                gradients += size;
                slots += optimizer::slot_values(&config.optimizer, &spec.shape);
            } else if let Some([a, b]) = tuning::factor_shapes(spec, &config.tuning) {
                trained += count(&a) + count(&b);
                gradients += size + count(&a) + count(&b);
                bases += size;
                slots += [a, b].iter().map(|shape| optimizer::slot_values(&config.optimizer, shape)).sum::<usize>();
            }
        }
        let batches = &config.data.batches;
        let tokens = match batches.layout {
            Layout::Pack => [batches.rows * batches.encoder_length, batches.rows * batches.decoder_length],
            Layout::Bucket => {
                let (inputs, targets) = (config.data.inputs_length, config.data.targets_length);
                let encoder = batches.tokens * inputs / (inputs + targets).max(1);
                [encoder, batches.tokens - encoder]
            }
        };
        let lengths = match batches.layout {
            Layout::Pack => [batches.encoder_length, batches.decoder_length],
            Layout::Bucket => [config.data.inputs_length, config.data.targets_length],
        };
        // A model of one stack reads both as one text.
        let [tokens, lengths] = [tokens, lengths].map(|pair| in_stacks(model, pair));
        let recomputes = config.run.recompute_blocks;
        let accumulate = config.run.accumulate as f64;
        let (kept, all) = (4 * activations(model, tokens, false), flops(model, tokens, lengths) * accumulate);
        let again = if recomputes { forward(model, tokens, lengths)[0] * accumulate } else { 0.0 };
        Plan {
            parameters,
            trained,
            weights: 4 * (parameters + bases + if lora { trained } else { 0 }),
            gradients: 4 * gradients,
            sums: GradientSum::bytes(config.run.sum, trained, config.run.accumulate),
            optimizer: 4 * slots,
            average: if config.checkpoint.average_decay > 0.0 { 4 * parameters } else { 0 },
            activations: if recomputes { 4 * activations(model, tokens, true) } else { kept },
            tokens,
            flops: all + again,
            kept: recomputes.then_some((kept, all)),
            steps: config.run.steps,
            accumulate: config.run.accumulate,
        }
    }

    /// All bytes together.
    pub fn bytes(&self) -> usize {
        self.weights + self.gradients + self.sums + self.optimizer + self.average + self.activations
    }

    /// What computing blocks again saves and costs, for people; `None` where they are not.
    pub fn cost_of_recomputing(&self) -> Option<String> {
        let (kept, flops) = self.kept?;
        let [now, before] = [self.activations, kept].map(|bytes| bytes as f64 / 1e9);
        let more = 100.0 * (self.flops / flops - 1.0);
        Some(format!(
            "blocks: activations of {now:.2} GB in the place of {before:.2} GB for {more:.0} % more operations"
        ))
    }

    /// For people; `speed` is in operations a second.
    pub fn table(&self, speed: f64) -> String {
        let gb = |bytes: usize| format!("{:.2} GB", bytes as f64 / 1e9);
        let tokens = (self.tokens[0] + self.tokens[1]) * self.accumulate;
        let step = self.flops / speed;
        let mut rows = vec![
            ("parameters", grouped(self.parameters)),
            ("trained", grouped(self.trained)),
            ("weights", gb(self.weights)),
            ("gradients", gb(self.gradients)),
            ("optimizer", gb(self.optimizer)),
        ];
        if self.sums > 0 {
            rows.push(("sums", gb(self.sums)));
        }
        if self.average > 0 {
            rows.push(("average", gb(self.average)));
        }
        rows.extend([
            (
                "activations",
                format!("{} of a batch of {} and {} tokens", gb(self.activations), self.tokens[0], self.tokens[1]),
            ),
            ("memory", gb(self.bytes())),
            ("FLOPs a token", format!("{:.3e}", self.flops / tokens.max(1) as f64)),
            ("FLOPs a step", format!("{:.3e}", self.flops)),
            ("speed", format!("{:.1} GFLOP/s, measured on a model of one block a stack", speed / 1e9)),
            ("a step", format!("{step:.2} s, {:.0} tokens a second", tokens as f64 / step)),
            ("the run", format!("{} steps, {}", self.steps, duration(step * self.steps as f64))),
        ]);
        rows.extend(self.cost_of_recomputing().map(|cost| ("recomputed", cost)));
        rows.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name:14} {value}");
            text
        })
    }
}

/// Encoder and decoder tokens as the stacks of a model see them.
fn in_stacks(model: &T5Config, [encoder, decoder]: [usize; 2]) -> [usize; 2] {
    if model.one_stack().is_some() { [0, encoder + decoder] } else { [encoder, decoder] }
}

/// f32 values that one batch keeps between its passes: what the operations save (crate::ops), and their outputs. Blocks
/// that are computed again keep their inputs, beside the activations of one.
fn activations(model: &T5Config, [encoder, decoder]: [usize; 2], recomputes: bool) -> usize {
    let (d, inner, f, heads) = (model.d_model, model.inner_dim(), model.d_ff, model.num_heads);
    let kind = model.feed_forward;
    // Norms keep a number for each token, layers their normalised input and their output.
    let layer = 1 + 2 * d;
    let attention = layer + 4 * inner + heads;
    let saved = match (kind.gated, kind.activation) {
        (false, Activation::Relu) => 1,
        (false, _) => 2,
        (true, _) => 3,
    };
    let feed_forward = layer + saved * f;
    let ends = 2 * d + 1;
    // Keys and values of cross-attention are the encoder's tokens'.
    let (cross, keys) = if model.one_stack().is_some() { (0, 0) } else { (layer + 2 * inner + heads, 2 * inner) };
    let of_encoder = encoder * (attention + feed_forward);
    let of_decoder = decoder * (attention + cross + feed_forward) + encoder * keys;
    let blocks = match recomputes {
        false => model.num_layers * of_encoder + model.num_decoder_layers * of_decoder,
        // One that is computed again has copies of its input and of the states that it reads.
        true => {
            let inputs = (model.num_layers * encoder + model.num_decoder_layers * decoder) * d;
            inputs + (of_encoder + encoder * d).max(of_decoder + (decoder + encoder) * d)
        }
    };
    // The head is packed for each of its products, and the logits of a part exist at a time.
    let head = 2 * model.vocab_size * d + 256.min(decoder) * model.vocab_size;
    blocks + encoder * ends + decoder * (ends + d) + head
}

/// Operations of the forward and backward passes of a batch, whose examples have `lengths` tokens: a product of a
/// matrix with a vector takes two for each of its values, and the backward pass twice as many as the forward one.
pub fn flops(model: &T5Config, tokens: [usize; 2], lengths: [usize; 2]) -> f64 {
    3.0 * forward(model, tokens, lengths).iter().sum::<f64>()
}

/// Operations of the forward pass, in the blocks and in the head.
fn forward(model: &T5Config, [encoder, decoder]: [usize; 2], lengths: [usize; 2]) -> [f64; 2] {
    let [encoder, decoder] = [encoder, decoder].map(|tokens| tokens as f64);
    let [inputs, targets] = lengths.map(|length| length as f64);
    let inner = model.inner_dim() as f64;
    let (mut blocks, mut head) = (0.0, 0.0);
    for spec in schema::tensors(model) {
        let size: f64 = spec.shape.iter().product::<usize>() as f64;
        match (spec.id.role, spec.id.stack) {
            (role, _) if role.is_norm() => {}
            (Role::RelativeBias, _) => {}
            (Role::TokenEmbedding, _) if !model.tie_word_embeddings => {}
            (Role::TokenEmbedding | Role::OutputHead, _) => head += 2.0 * size * decoder,
            (Role::CrossK | Role::CrossV, _) | (_, Some(schema::Stack::Encoder)) => blocks += 2.0 * size * encoder,
            _ => blocks += 2.0 * size * decoder,
        }
    }
    // Scores and their product with the values.
    let attention = |queries: f64, keys: f64| 4.0 * queries * keys * inner;
    blocks += model.num_layers as f64 * attention(encoder, inputs);
    blocks += model.num_decoder_layers as f64 * (attention(decoder, targets) + attention(decoder, inputs));
    [blocks, head]
}

/// Operations a second that training reaches on this machine: of a model with the same widths, one block a stack.
///
/// # Errors
/// Where memory runs out.
pub fn measure(config: &Config, model: &T5Config) -> Result<f64> {
    let small = T5Config {
        num_layers: model.num_layers.min(1),
        num_decoder_layers: 1,
        vocab_size: model.vocab_size.min(MEASURED_ROWS),
        ..model.clone()
    };
    let lengths = [config.data.inputs_length, config.data.targets_length].map(|length| length.min(MEASURED));
    let rows = lengths.map(|length| MEASURED / length.max(1));
    let rows = rows[0].min(rows[1]).max(1);
    let ids = |length: usize| (0..rows * length).map(|i| (i * 7919 % small.vocab_size) as u32).collect::<Vec<u32>>();
    let batch = Batch {
        encoder_ids: ids(lengths[0]),
        encoder_segments: vec![1; rows * lengths[0]],
        decoder_input_ids: ids(lengths[1]),
        decoder_target_ids: ids(lengths[1]),
        decoder_segments: vec![1; rows * lengths[1]],
        loss_weights: vec![1.0; rows * lengths[1]],
        rows,
        enc_len: lengths[0],
        dec_len: lengths[1],
    };
    let denominator = match config.loss.denominator {
        Denominator::None => 1.0,
        Denominator::Tokens | Denominator::Positions => (rows * lengths[1]) as f64,
    };
    let options = LossOptions { label_smoothing: config.loss.label_smoothing, z_loss: config.loss.z_loss, denominator };
    let trained = Model::new(&small, Scheme::T5x, 1)?.with_precision(config.run.precision.precision())?;
    let mut fastest = f64::INFINITY;
    for seed in 0..STEPS as u64 {
        let dropout = DropoutPlan {
            rate: config.model.dropout,
            seed,
            shared_over_length: config.model.dropout_shared_over_length,
        };
        let started = Instant::now();
        trained.backward(Sequences::for_model(&batch, &small, config.loss.on_inputs)?, &options, dropout)?;
        fastest = fastest.min(started.elapsed().as_secs_f64());
    }
    let tokens = in_stacks(&small, lengths.map(|length| rows * length));
    Ok(flops(&small, tokens, in_stacks(&small, lengths)) / fastest)
}

/// 1,234,567.
fn grouped(value: usize) -> String {
    let digits = value.to_string();
    let (head, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    rest.as_bytes().chunks(3).fold(head.to_owned(), |text, part| text + "," + &String::from_utf8_lossy(part))
}

fn duration(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match minutes {
        minutes if minutes < 120.0 => format!("{minutes:.0} minutes"),
        minutes if minutes < 48.0 * 60.0 => format!("{:.1} hours", minutes / 60.0),
        minutes => format!("{:.1} days", minutes / (24.0 * 60.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::Optimizer;

    fn sized(name: &str, sets: &[&str]) -> (Config, T5Config) {
        let text = format!("[model]\nsize = \"{name}\"");
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let config = Config::parse("run.toml", &text, &sets).unwrap();
        let model = config.model.t5_config("run.toml", 384).unwrap();
        (config, model)
    }

    #[test]
    fn published_sizes_have_their_parameters() {
        // docs/t5.md 1.4; every size but ul2, of which only "about 20 B" is published.
        let published: [(&str, usize); 30] = [
            ("t5-small", 60_506_624),
            ("t5-base", 222_903_552),
            ("t5-large", 737_668_096),
            ("t5-3b", 2_851_598_336),
            ("t5-11b", 11_307_321_344),
            ("t5-v1.1-small", 76_961_152),
            ("t5-v1.1-base", 247_577_856),
            ("t5-v1.1-large", 783_150_080),
            ("t5-v1.1-xl", 2_849_757_184),
            ("t5-v1.1-xxl", 11_135_332_352),
            ("t5-efficient-tiny", 15_570_688),
            ("t5-efficient-mini", 31_220_480),
            ("t5-efficient-small", 60_506_624),
            ("mt5-small", 300_176_768),
            ("mt5-base", 582_401_280),
            ("mt5-large", 1_229_581_312),
            ("mt5-xl", 3_742_619_648),
            ("mt5-xxl", 12_921_057_280),
            ("umt5-small", 306_601_984),
            ("umt5-base", 592_043_520),
            ("umt5-xl", 3_768_356_864),
            ("umt5-xxl", 12_972_531_712),
            ("byt5-small", 299_637_760),
            ("byt5-base", 581_653_248),
            ("byt5-large", 1_228_183_552),
            ("byt5-xl", 3_737_801_728),
            ("byt5-xxl", 12_906_899_328),
            ("t5-2x", 502_746_112),
            ("t5-4x", 972_590_080),
            ("t5-base-6-layers", 123_790_080),
        ];
        let mut names: Vec<&str> = published.iter().map(|&(name, _)| name).collect();
        for (name, parameters) in published {
            let (config, model) = sized(name, &[]);
            assert_eq!(Plan::new(&config, &model).parameters, parameters, "{name}");
        }
        let (config, model) = sized("ul2", &[]);
        let billions = Plan::new(&config, &model).parameters as f64 / 1e9;
        assert!((19.0..21.0).contains(&billions), "ul2: {billions}");
        names.push("ul2");
        names.sort_unstable();
        let mut known = crate::config::sizes();
        known.sort_unstable();
        assert_eq!(known, names, "every size is compared");
    }

    #[test]
    fn sizes_are_the_base_that_a_run_changes() {
        let (config, model) = sized("umt5-small", &["model.rows=0", "model.num_layers=2"]);
        assert_eq!((model.vocab_size, model.num_layers, model.num_decoder_layers), (384, 2, 8));
        assert!(model.relative_bias_per_block && model.model_type == "umt5" && config.model.size == "umt5-small");
        let error = Config::parse("run.toml", "[model]\nsize = \"t5-smal\"", &[]).unwrap_err().to_string();
        assert!(error.contains("model.size: expected one of") && error.contains("found t5-smal"), "{error}");
        let (config, _) = sized("byt5-small", &[]);
        let error = config.model.t5_config("run.toml", 385).unwrap_err().to_string();
        assert!(error.contains("model.rows: expected at least the vocabulary's 385"), "{error}");
        // What a run wrote down is read as the same run.
        assert_eq!(Config::parse("kept.toml", &config.to_toml().unwrap(), &[]).unwrap(), config);
    }

    #[test]
    fn states_and_operations_are_counted_as_they_are() {
        for kind in ["adafactor", "adamw"] {
            let set = format!("optimizer.kind={kind}");
            let (config, model) = sized("t5-efficient-tiny", &[&set, "model.rows=384"]);
            let plan = Plan::new(&config, &model);
            let made = Model::new(&model, Scheme::T5x, 1).unwrap();
            assert_eq!(plan.optimizer, Optimizer::new(&config.optimizer, &made.trained()).bytes(), "{kind}");
            assert_eq!((plan.parameters, plan.trained), (made.parameters(), made.trained_values()));
        }
        let (config, model) = sized("t5-efficient-tiny", &["tuning.method=lora", "model.from=x", "model.rows=384"]);
        let made = Model::new(&model, Scheme::T5x, 1).unwrap().with_lora(&config.tuning, "x", 1).unwrap();
        let plan = Plan::new(&config, &model);
        assert_eq!(plan.trained, made.trained_values());
        assert_eq!(plan.optimizer, Optimizer::new(&config.optimizer, &made.trained()).bytes());
        let kept: usize = (0..made.vars().len()).map(|index| made.gradients().get(index).len()).sum();
        assert_eq!(plan.gradients, 4 * (kept + made.trained_values()));

        let (config, model) = sized("t5-efficient-tiny", &["model.share_stacks=true", "model.rows=384"]);
        let made = Model::new(&model, Scheme::T5x, 1).unwrap().with_shared_stacks().unwrap();
        let plan = Plan::new(&config, &model);
        assert_eq!((plan.parameters, plan.trained), (made.parameters(), made.trained_values()));
        assert_eq!(plan.optimizer, Optimizer::new(&config.optimizer, &made.trained()).bytes());

        // By hand: two blocks of each stack, d 4, inner 6, f 6, 11 rows; 5 encoder and 3 decoder tokens in one example.
        let model = T5Config {
            vocab_size: 11,
            d_model: 4,
            d_kv: 3,
            d_ff: 6,
            num_heads: 2,
            num_layers: 2,
            num_decoder_layers: 2,
            ..model
        };
        let (attention, feed_forward, head) = (4.0 * 24.0, 2.0 * 24.0, 44.0);
        let of_encoder = 2.0 * 2.0 * 5.0 * (attention + feed_forward) + 2.0 * 4.0 * 5.0 * 5.0 * 6.0;
        let cross = 2.0 * 2.0 * (3.0 * 48.0 + 5.0 * 48.0) + 2.0 * 4.0 * 3.0 * 5.0 * 6.0;
        let of_decoder = 2.0 * 2.0 * 3.0 * (attention + feed_forward) + 2.0 * 4.0 * 3.0 * 3.0 * 6.0;
        let expected = 3.0 * (of_encoder + cross + of_decoder + 2.0 * 3.0 * head);
        assert_eq!(flops(&model, [5, 3], [5, 3]), expected);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([7, 1234, 1_234_567].map(grouped), ["7", "1,234", "1,234,567"]);
        assert_eq!([90.0, 3.0 * 3600.0, 86400.0 * 3.0].map(duration), ["2 minutes", "3.0 hours", "3.0 days"]);
    }
}
