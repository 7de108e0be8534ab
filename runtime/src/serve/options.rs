//! Options of a generation by the library's names, which every protocol takes beside its own.

use serde_json::Value;
use t5_runtime::{EarlyStopping, LengthPenaltyKind, Overrides};

use super::fields::{Field, Fields};
use super::refusal::Refusal;

/// "t5" or "hf".
struct Kind(LengthPenaltyKind);

impl Field for Kind {
    const EXPECTED: &'static str = "\"t5\" or \"hf\"";

    fn read(value: &Value) -> Option<Kind> {
        match value.as_str()? {
            "t5" => Some(Kind(LengthPenaltyKind::T5)),
            "hf" => Some(Kind(LengthPenaltyKind::HuggingFace)),
            _ => None,
        }
    }
}

struct Stopping(EarlyStopping);

impl Field for Stopping {
    const EXPECTED: &'static str = "true, false or \"never\"";

    fn read(value: &Value) -> Option<Stopping> {
        match value {
            Value::Bool(true) => Some(Stopping(EarlyStopping::Yes)),
            Value::Bool(false) => Some(Stopping(EarlyStopping::No)),
            Value::String(never) if never == "never" => Some(Stopping(EarlyStopping::Never)),
            _ => None,
        }
    }
}

macro_rules! take {
    ($fields:ident, $overrides:ident, $($name:ident)*) => {
        $(if let Some(value) = $fields.get(stringify!($name))? {
            if $overrides.$name.is_some() {
                return Err($fields.refuse(stringify!($name), "expected it once, found it also by another name"));
            }
            $overrides.$name = Some(value);
        })*
    };
}

/// Takes what is there of them; what the protocol's own names have set may not be set again.
pub fn take(fields: &mut Fields, overrides: &mut Overrides) -> Result<(), Refusal> {
    take!(fields, overrides,
        task max_new_tokens min_new_tokens beams beam_groups diversity_penalty length_penalty n_best temperature top_k
        top_p min_p typical_p epsilon_cutoff eta_cutoff top_h seed repetition_penalty encoder_repetition_penalty
        no_repeat_ngram encoder_no_repeat_ngram exponential_decay split_sentences max_input_tokens truncate prefix
        prefix_ids forced_bos forced_eos suppress begin_suppress allowed bad_words sequence_bias choices renormalize
        remove_invalid stop);
    if let Some(Kind(kind)) = fields.get("length_penalty_kind")? {
        overrides.length_penalty_kind = Some(kind);
    }
    if let Some(Stopping(stopping)) = fields.get("early_stopping")? {
        overrides.early_stopping = Some(stopping);
    }
    Ok(())
}

/// A seed for who names none: another one each time.
pub fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Below 2^53, so that every language can give it back.
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 11
}
