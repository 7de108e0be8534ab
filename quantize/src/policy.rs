//! Which type each tensor gets: the default of its role, the user's exceptions, and what its width allows.

use t5_runtime::block;
use t5_runtime::config::T5Config;
use t5_runtime::schema::{self, Role, Stack, TensorSpec};
use t5_runtime::tensor::DType;
use t5_runtime::{Error, Result};

/// The types that a whole file may be asked for.
pub const FILE_TYPES: [DType; 5] = [DType::Q8_0, DType::F16, DType::F32, DType::Q4_0, DType::Q4_K];

/// The type of a role in a file of type `base`, before the width of its rows is looked at.
///
/// * Norms and bias tables are always F32: they are a few thousand numbers, and some readers expect nothing else.
/// * In Q8_0 files everything else is Q8_0. Measured on 2026-11-23 on a fine-tuned flan-t5-small
///   (`examples/agreement.rs`: 1,265 teacher-forced tokens, 356 of them the transformers library's answers), 99.4 % and
///   99.0 % of the tokens agree with F32, and the mean log-probability moves by 0.004 and 0.001; without
///   [`Policy::balance`] 96.9 % and 95.6 %, and 0.020 and 0.015. With `wo` in F16, which larger models need, 99.7 % and
///   98.9 %: it stays Q8_0 (`--keep wo=f16`).
/// * In four-bit files the embedding and the head stay Q8_0, as every other program keeps them wider: each of
///   their rows serves one token alone, and no sum averages its errors.
pub fn default_type(base: DType, role: Role) -> DType {
    match role {
        role if is_always_f32(role) => DType::F32,
        Role::TokenEmbedding | Role::OutputHead if matches!(base, DType::Q4_0 | DType::Q4_K) => DType::Q8_0,
        _ => base,
    }
}

/// Norms and bias tables.
pub fn is_always_f32(role: Role) -> bool {
    role.is_norm() || role == Role::RelativeBias
}

/// The type nearest to `dtype` whose blocks fill rows of `columns` values: F16 where blocks of 32 do not, Q8_0 where
/// only blocks of 256 do not.
///
/// llama.cpp goes from Q4_K to Q5_0 there, which we read and do not write: Q8_0 costs half as much again for a few
/// matrices (in flan-t5-small the 384 wide `o`, a tenth of the weights outside embedding and head) and loses less.
pub fn fitting(dtype: DType, columns: usize) -> DType {
    if columns.is_multiple_of(dtype.block_len()) {
        return dtype;
    }
    match dtype {
        DType::Q4_K => fitting(DType::Q8_0, columns),
        _ => DType::F16,
    }
}

/// An exception: tensors whose names match a pattern get another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// `*` stands for any characters, `?` for one. Matched against the Hugging Face name, the GGUF name and the
    /// role (`wo`, `cross_q`, `token_embedding` …, see [`role_pattern`]) of each tensor, as a whole.
    pub pattern: String,
    /// The type they get.
    pub dtype: DType,
}

impl Keep {
    /// Parses `PATTERN=TYPE`.
    pub fn parse(text: &str) -> Result<Keep> {
        let wrong = |what: String| Error::Option { option: "keep", what };
        let (pattern, dtype) = text
            .rsplit_once('=')
            .filter(|(pattern, _)| !pattern.is_empty())
            .ok_or_else(|| wrong(format!("expected PATTERN=TYPE, found {text}")))?;
        let writable = DType::from_name(dtype).filter(|dtype| block::WRITABLE.contains(dtype));
        let dtype = writable.ok_or_else(|| {
            let names: Vec<_> = block::WRITABLE.iter().map(|dtype| dtype.name()).collect();
            wrong(format!("expected one of {} after '=', found {dtype}", names.join(", ")))
        })?;
        Ok(Keep { pattern: pattern.to_owned(), dtype })
    }

    fn matches(&self, spec: &TensorSpec) -> bool {
        [&spec.hf_name, &spec.gguf_name, role_pattern(spec.id.role)].iter().any(|name| glob(&self.pattern, name))
    }
}

/// What [`Keep`] patterns call a role.
pub fn role_pattern(role: Role) -> &'static str {
    match role {
        Role::TokenEmbedding => "token_embedding",
        Role::OutputHead => "output_head",
        Role::RelativeBias => "relative_bias",
        Role::AttentionNorm => "attention_norm",
        Role::CrossAttentionNorm => "cross_attention_norm",
        Role::FeedForwardNorm => "feed_forward_norm",
        Role::FinalNorm => "final_norm",
        Role::SelfQ => "self_q",
        Role::SelfK => "self_k",
        Role::SelfV => "self_v",
        Role::SelfO => "self_o",
        Role::CrossQ => "cross_q",
        Role::CrossK => "cross_k",
        Role::CrossV => "cross_v",
        Role::CrossO => "cross_o",
        Role::Wi => "wi",
        Role::Wi0 => "wi_0",
        Role::Wi1 => "wi_1",
        Role::Wo => "wo",
        Role::AdapterNorm => "adapter_norm",
        Role::AdapterDown => "adapter_down",
        Role::AdapterUp => "adapter_up",
    }
}

/// How a checkpoint is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// One of [`FILE_TYPES`].
    pub base: DType,
    /// Exceptions; where several match a tensor, the last one counts.
    pub keep: Vec<Keep>,
    /// Whether matrices that are rounded to blocks trade factors with the norms before them: the same model, and a
    /// third of the loss.
    pub balance: bool,
    /// How many values share a scale in Q8_0 matrices that many rows of activations meet at once: 32, 128 or 256, or as
    /// many of them as fill a row. See [`scale_run`].
    pub scale_run: usize,
    /// The same in the decoder's other matrices.
    pub decoder_scale_run: usize,
}

/// The values of [`Policy::scale_run`] and [`Policy::decoder_scale_run`].
pub const SCALE_RUNS: [usize; 3] = [32, 128, 256];

/// How many values share a scale in a tensor of type `dtype`: what `policy` says of the encoder's matrices and of those
/// that make cross-attention's keys and values, and what it says of the decoder's others. A quarter or an eighth as
/// many scales make products faster. The decoder's own matrices meet a row at a time, which waits for memory where a
/// model is not small; they stay exact to blocks of 32 unless the policy has it otherwise.
///
/// Measured on 2026-11-28 with a fine-tuned flan-t5-small on an Intel Xeon (AVX-512 VNNI), one thread, in turns on a
/// busy machine, best of short runs: the encoder of 128 tokens takes 17.5 ms with 32, 16.4 with 128 and 15.6 with 256.
/// `t5-quantize --compare` on 1,317 tokens (2026-11-29; titles that the same model wrote of 150 abstracts, activations
/// in the same runs): KL divergence from F32 0.00068, 0.00084 and 0.00097 nats, the same likeliest token for 98.9, 97.8
/// and 97.9 % of them, mean log-probability -0.6435, -0.6435 and -0.6436 (F32: -0.6440). Of the 356 greedy tokens that
/// the transformers library has for it, 99.4, 99.2 and 99.4 % stay the likeliest, and log-probabilities move by 0.003,
/// 0.007 and 0.006 on average. The encoder of t5-base takes 31.2 ms with 128 and 30.2 with 256 (Zen 5, one thread).
///
/// The decoder of flan-t5-small, one thread of a Zen 5, 32, 128 and 256 (2026-11-30): a greedy step 1.03, 1.03 and
/// 1.05 ms, a step of four beams 1.18, 1.23 and 1.23, one of 16 texts 3.31, 3.27 and 3.24; and of 5,960 tokens of human
/// translations 98.3, 97.5 and 97.4 % stay the likeliest of the fine-tuned model, which is why 32 is the default.
///
/// With the built-in model all at 256 instead of 128 and 32 take 0.88 of the time for 600 sentences, 0.91 in batches of
/// 16, 0.85 and 0.83 with beams of four, and BLEU is the same within 0.3 (2026-11-29, Zen 5, one thread).
pub fn scale_run(policy: &Policy, dtype: DType, spec: &TensorSpec) -> usize {
    let matrix = dtype == DType::Q8_0 && spec.shape.len() == 2 && !is_always_f32(spec.id.role);
    let mut run = match (spec.id.stack, spec.id.role) {
        (_, Role::CrossK | Role::CrossV) | (Some(Stack::Encoder), _) if matrix => policy.scale_run,
        (Some(Stack::Decoder), _) if matrix => policy.decoder_scale_run,
        _ => return dtype.block_len(),
    };
    let columns = spec.shape.last().copied().unwrap_or(1);
    while !columns.is_multiple_of(run) {
        run /= 2;
    }
    run
}

impl Policy {
    /// The default policy of a file type.
    pub fn new(base: DType) -> Policy {
        Policy { base, keep: Vec::new(), balance: true, scale_run: 256, decoder_scale_run: 32 }
    }

    /// The tensors of a model in file order, each with its type.
    ///
    /// # Errors
    /// Where the base is not a file type, the run of scales not one of [`SCALE_RUNS`], or an exception matches no
    /// tensor that may have a type of its own.
    pub fn plan(&self, config: &T5Config) -> Result<Vec<(TensorSpec, DType)>> {
        if !FILE_TYPES.contains(&self.base) {
            let names: Vec<_> = FILE_TYPES.iter().map(|dtype| dtype.name()).collect();
            let what = format!("expected one of {}, found {}", names.join(", "), self.base);
            return Err(Error::Option { option: "type", what });
        }
        for (option, run) in [("scale-run", self.scale_run), ("decoder-scale-run", self.decoder_scale_run)] {
            if !SCALE_RUNS.contains(&run) {
                return Err(Error::Option { option, what: format!("expected 32, 128 or 256, found {run}") });
            }
        }
        let specs = schema::tensors(config);
        for keep in &self.keep {
            let matched: Vec<_> = specs.iter().filter(|spec| keep.matches(spec)).collect();
            let what = if matched.is_empty() {
                "expected a pattern that matches a tensor or a role, found none for"
            } else if matched.iter().all(|spec| is_always_f32(spec.id.role)) {
                "expected a pattern that matches a matrix, since norms and bias tables are always f32, found"
            } else {
                continue;
            };
            return Err(Error::Option { option: "keep", what: format!("{what} {}", keep.pattern) });
        }
        let typed = |spec: TensorSpec| {
            let columns = spec.shape.last().copied().unwrap_or(1);
            let chosen = match self.keep.iter().rev().find(|keep| keep.matches(&spec)) {
                Some(keep) if !is_always_f32(spec.id.role) => keep.dtype,
                _ => default_type(self.base, spec.id.role),
            };
            (spec, fitting(chosen, columns))
        };
        Ok(specs.into_iter().map(typed).collect())
    }
}

/// Whether `pattern` describes all of `name`. `*` is any characters, `?` any one.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to try again after the last star if what follows it does not match here: one byte later.
    let mut retry = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, n + 1));
            p += 1;
        } else if pattern.get(p).is_some_and(|byte| *byte == b'?' || *byte == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star, next)) = retry {
            p = star;
            n = next;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> T5Config {
        T5Config::from_json("config.json", json).unwrap()
    }

    /// flan-t5-small, two blocks of it: rows of 384 (six heads of 64), 512 and 1024.
    fn flan() -> T5Config {
        config(
            r#"{"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 2, "num_heads": 6,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#,
        )
    }

    fn planned(policy: &Policy, config: &T5Config) -> Vec<(String, DType)> {
        policy.plan(config).unwrap().into_iter().map(|(spec, dtype)| (spec.hf_name, dtype)).collect()
    }

    #[test]
    fn widths_decide_after_roles() {
        for (dtype, columns, expected) in [
            (DType::Q8_0, 512, DType::Q8_0),
            (DType::Q8_0, 33, DType::F16),
            (DType::Q4_0, 48, DType::F16),
            (DType::Q4_K, 512, DType::Q4_K),
            (DType::Q4_K, 384, DType::Q8_0),
            (DType::Q4_K, 40, DType::F16),
            (DType::F32, 7, DType::F32),
            (DType::BF16, 7, DType::BF16),
        ] {
            assert_eq!(fitting(dtype, columns), expected, "{dtype} in rows of {columns}");
        }
    }

    #[test]
    fn each_role_has_its_type() {
        for base in FILE_TYPES {
            for (spec, dtype) in Policy::new(base).plan(&flan()).unwrap() {
                let expected = match (base, spec.id.role) {
                    (_, role) if is_always_f32(role) => DType::F32,
                    (DType::Q4_0 | DType::Q4_K, Role::TokenEmbedding | Role::OutputHead) => DType::Q8_0,
                    // 384 wide.
                    (DType::Q4_K, Role::SelfO | Role::CrossO) => DType::Q8_0,
                    _ => base,
                };
                assert_eq!(dtype, expected, "{} in {base}", spec.hf_name);
            }
        }
    }

    #[test]
    fn exceptions_match_names_of_both_kinds_and_roles() {
        let keep = |pattern: &str| Keep { pattern: pattern.to_owned(), dtype: DType::F16 };
        let config = flan();
        for (pattern, count) in [
            ("wo", 4),
            ("*.wo.weight", 4),
            ("*ffn_down.weight", 4),
            ("decoder.*.wo.weight", 2),
            ("dec.blk.1.ffn_down.weight", 1),
            ("cross_?", 8),
            ("token_embd.weight", 1),
            ("output_head", 1),
            ("wi_?", 8),
            ("*", 2 * (7 + 11) + 2),
        ] {
            let policy = Policy { keep: vec![keep(pattern)], ..Policy::new(DType::Q8_0) };
            let found = planned(&policy, &config).iter().filter(|(_, dtype)| *dtype == DType::F16).count();
            assert_eq!(found, count, "{pattern}");
        }
        // The last one counts.
        let policy = Policy { keep: vec![keep("*"), Keep::parse("wo=q4_0").unwrap()], ..Policy::new(DType::Q8_0) };
        for (name, dtype) in planned(&policy, &config) {
            assert_eq!(dtype == DType::Q4_0, name.contains(".wo."), "{name}");
            assert_ne!(dtype, DType::Q8_0, "{name}");
        }
    }

    #[test]
    fn faulty_exceptions_are_refused() {
        for (text, expected) in [
            ("wo", "keep: expected PATTERN=TYPE, found wo"),
            ("=f16", "keep: expected PATTERN=TYPE, found =f16"),
            ("wo=int8", "keep: expected one of f32, f16, bf16, q8_0, q4_0, q4_k after '=', found int8"),
        ] {
            assert_eq!(Keep::parse(text).unwrap_err().to_string(), expected);
        }
        for (text, expected) in [
            ("wx=f16", "keep: expected a pattern that matches a tensor or a role, found none for wx"),
            (
                "*norm*=f16",
                "keep: expected a pattern that matches a matrix, since norms and bias tables are always f32, \
                 found *norm*",
            ),
        ] {
            let policy = Policy { keep: vec![Keep::parse(text).unwrap()], ..Policy::new(DType::Q8_0) };
            assert_eq!(policy.plan(&flan()).unwrap_err().to_string(), expected);
        }
        let error = Policy::new(DType::Q6_K).plan(&flan()).unwrap_err().to_string();
        assert_eq!(error, "type: expected one of q8_0, f16, f32, q4_0, q4_k, found q6_k");
    }

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*ab", "aaab", true),
            ("*a*b*", "xaxbx", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("?", "", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
