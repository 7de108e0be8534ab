//! Text to ids and back.

use std::ffi::{c_char, c_int};

use crate::border::{Failure, array, call, check, out, pt5_status, reference};
use crate::memory::{give_ids, give_text};
use crate::model::pt5_model;

/// The ids of a text, the end token behind them: `count` of them, to be freed with pt5_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_tokenize(
    model: *const pt5_model,
    text: *const c_char,
    len: usize,
    ids: *mut *mut u32,
    count: *mut usize,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("ids", ids)?;
        check("count", count)?;
        count.write(0);
        let tokenizer = reference("model", model)?.model.tokenizer()?;
        let ids = tokenizer.encode(crate::border::text("text", text, len)?);
        *out = give_ids(&ids)?;
        count.write(ids.len());
        Ok(())
    })
}

/// The text of ids: `len` bytes with a zero behind them, to be freed with pt5_free; `len` may be NULL. `skip_special`
/// not 0: without special tokens and <extra_id_n>.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_detokenize(
    model: *const pt5_model,
    ids: *const u32,
    count: usize,
    skip_special: c_int,
    text: *mut *mut c_char,
    len: *mut usize,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("text", text)?;
        if !len.is_null() {
            check("len", len)?;
            len.write(0);
        }
        let tokenizer = reference("model", model)?.model.tokenizer()?;
        let ids = array("ids", ids, count)?;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= tokenizer.vocab_size()) {
            let what = format!("expected ids below {}, found {id}", tokenizer.vocab_size());
            return Err(Failure::argument("ids", what));
        }
        let decoded = tokenizer.decode(ids, skip_special != 0);
        *out = give_text(&decoded)?;
        if !len.is_null() {
            len.write(decoded.len());
        }
        Ok(())
    })
}
