//! Options of a generation by the library's names, which every protocol takes beside its own.

use serde_json::Value;
use t5_runtime::{Error, Overrides};

use super::fields::{Fields, cut};
use super::refusal::Refusal;

/// What the protocols have their own names for, or the server decides.
const NOT_HERE: [&str; 4] = ["logprobs", "lookup", "source_prefix", "top_logprobs"];

/// Takes what is there of them; what the protocol's own names have set may not be set again.
pub fn take(fields: &mut Fields, overrides: &mut Overrides) -> Result<(), Refusal> {
    for name in fields.names() {
        // No option has null as a value, so this tells whether there is one of this name.
        let known = !matches!(Overrides::default().set(&name, &Value::Null), Ok(false));
        if !known || NOT_HERE.contains(&&*name) {
            continue;
        }
        let Some(value) = fields.value(&name) else { continue };
        if overrides.has(&name) {
            return Err(fields.refuse(&name, "expected it once, found it also by another name"));
        }
        overrides.set(&name, &value).map_err(|error| match error {
            Error::Option { option, what } => fields.refuse(option, cut(&what, 160)),
            error => fields.refuse(&name, error),
        })?;
    }
    Ok(())
}

/// A seed for who names none: another one each time.
pub fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Below 2^53, so that every language can give it back.
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 11
}
