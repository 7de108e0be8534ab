//! Memory that callers give back.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_char, c_void};

use t5_runtime::Error;

use crate::border::{Failure, Result};

/// Before what the caller sees lies its size; a multiple of every alignment that is asked for.
const HEADER: usize = 16;

fn layout(bytes: usize) -> Result<Layout> {
    let size = bytes.checked_add(HEADER + 1);
    let layout = size.and_then(|size| Layout::from_size_align(size, HEADER).ok());
    layout.ok_or_else(|| none(bytes))
}

fn none(bytes: usize) -> Failure {
    Error::Memory { what: "a result", bytes }.into()
}

/// A copy of bytes with a zero behind it, until [`pt5_free`].
fn give(bytes: &[u8]) -> Result<*mut u8> {
    let layout = layout(bytes.len())?;
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        return Err(none(bytes.len()));
    }
    // SAFETY: the block holds the header, the bytes and the zero, and is aligned for a size.
    unsafe {
        block.cast::<usize>().write(bytes.len());
        let values = block.add(HEADER);
        values.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        values.add(bytes.len()).write(0);
        Ok(values)
    }
}

/// A text for the caller.
pub fn give_text(text: &str) -> Result<*mut c_char> {
    give(text.as_bytes()).map(<*mut u8>::cast)
}

/// Ids for the caller.
pub fn give_ids(ids: &[u32]) -> Result<*mut u32> {
    let bytes = ids.iter().flat_map(|id| id.to_ne_bytes()).collect::<Vec<u8>>();
    give(&bytes).map(<*mut u8>::cast)
}

/// Frees what a call gave as a `char *` or a `uint32_t *`. Nothing for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_free(memory: *mut c_void) {
    if memory.is_null() {
        return;
    }
    // SAFETY: it came from `give`, so a header with the size of what was allocated lies before it.
    unsafe {
        let block = memory.cast::<u8>().sub(HEADER);
        let bytes = block.cast::<usize>().read();
        dealloc(block, Layout::from_size_align_unchecked(bytes + HEADER + 1, HEADER));
    }
}
