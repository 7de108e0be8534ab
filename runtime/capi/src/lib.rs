//! Pocket T5 for C, and for what calls C: `include/pocket_t5.h`, which cbindgen makes of this crate, says how it is
//! used. Here is nothing but glue: what a model does is in `t5-runtime`.
//!
//! `border` is what each call goes through: arguments that may be anything, errors as codes, and no panic to the other
//! side. `memory` is what callers give back with `pt5_free`. The other modules are the calls, by what they are about.

// Names are those of C. What callers must keep to stands once, at the beginning of the header.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

mod border;
mod cancel;
mod embed;
mod generate;
mod memory;
mod model;
mod options;
mod results;
mod session;
mod tokens;

pub use border::{pt5_abi, pt5_last_error, pt5_status, pt5_version};
pub use cancel::{pt5_cancel, pt5_cancel_free, pt5_cancel_new, pt5_cancel_set};
pub use embed::{
    pt5_embed, pt5_embed_options, pt5_embeddings, pt5_embeddings_count, pt5_embeddings_free, pt5_embeddings_get,
    pt5_states,
};
pub use generate::{pt5_choice, pt5_choose, pt5_generate, pt5_generate_batch, pt5_generate_ids, pt5_piece, pt5_score};
pub use memory::pt5_free;
pub use model::{
    pt5_model, pt5_model_builtin, pt5_model_free, pt5_model_info, pt5_model_open, pt5_model_open_memory,
    pt5_model_options, pt5_progress,
};
pub use options::pt5_options;
pub use results::{
    pt5_finish, pt5_output, pt5_results, pt5_results_free, pt5_results_get, pt5_results_outputs, pt5_results_texts,
    pt5_token,
};
pub use session::{pt5_session, pt5_session_free, pt5_session_new};
pub use tokens::{pt5_detokenize, pt5_tokenize};

/// As the length of a text: a zero ends it.
pub const PT5_NUL: usize = usize::MAX;

/// What the header says of threads, as the compiler sees it.
const _: () = {
    const fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<pt5_model>();
    may_be_shared::<pt5_session>();
    may_be_shared::<pt5_cancel>();
};
