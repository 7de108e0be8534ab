//! Vectors of texts.

use std::ffi::c_char;
use std::ptr;

use t5_runtime::{EncodeOptions, Encoded, Pooling};

use crate::border::{
    Failure, Growing, Result, call, call_or, hand_over, optional_text, out, pt5_status, reference, sized, take_back,
};
use crate::cancel::{Cancel, pt5_cancel};
use crate::session::pt5_session;

/// What is wanted of the encoder. Zeros: one vector a text, as the model was trained for it, or the mean.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pt5_embed_options {
    /// sizeof(pt5_embed_options)
    pub size: usize,
    /// "none" (a vector for each token), "mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens" or "weightedmean".
    /// NULL: what the model was trained with, or the mean.
    pub pooling: *const c_char,
    /// A text before each text. NULL: none, or the model's prompt.
    pub prefix: *const c_char,
    /// The name of a prompt of a sentence model. NULL: its usual one.
    pub prompt: *const c_char,
    /// Take each text for so many tokens: shorter ones get padding, longer ones are cut. 0: as long as it is.
    pub pad_to: u32,
    /// Not 0: padding is attended to, as image models want it.
    pub attend_to_padding: u32,
    /// Not 0: divide each vector by its length.
    pub normalize: u32,
    /// So many blocks before the encoder's end; 0: its output.
    pub blocks_from_end: u32,
    /// Ends the request from another thread. NULL: nothing does.
    pub cancel: *const pt5_cancel,
}

// SAFETY: its size comes first, and zeros are numbers and NULL.
unsafe impl Growing for pt5_embed_options {
    const NAME: &'static str = "pt5_embed_options";
}

/// What the encoder makes of a text; it lives as long as the embeddings.
#[repr(C)]
pub struct pt5_states {
    /// `rows` vectors of `width` values, one after the other.
    pub values: *const f32,
    /// Vectors: 1, or with pooling "none" one for each token.
    pub rows: usize,
    /// Values of a vector.
    pub width: usize,
    /// The tokens that were read, padding included.
    pub ids: *const u32,
    /// How many.
    pub ids_count: usize,
    /// How many of them are the text's.
    pub tokens: usize,
}

/// What the encoder made of some texts.
pub struct pt5_embeddings {
    /// They point into `owned`.
    states: Vec<pt5_states>,
    /// Never changed: the vectors stay where they are.
    _owned: Vec<Encoded>,
}

/// Embeds `count` texts. `lens` may be NULL where a zero ends each of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_embed(
    session: *const pt5_session,
    texts: *const *const c_char,
    lens: *const usize,
    count: usize,
    options: *const pt5_embed_options,
    embeddings: *mut *mut pt5_embeddings,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("embeddings", embeddings)?;
        let session = reference("session", session)?;
        let (options, cancel) = read(options)?;
        let texts = crate::border::texts("texts", texts, lens, count)?;
        let encoded = session.work(|working| {
            // By the name and in the unit of this side.
            let (blocks, asked) = (working.model.config().num_layers, options.layer.map_or(0, |layer| -1 - layer));
            if asked > blocks as isize {
                let what = format!("blocks_from_end: expected 0 to {blocks}, found {asked}");
                return Err(Failure::new(pt5_status::PT5_OPTION, what));
            }
            let passage = |text: &&str| working.model.passage(text, &options);
            let passages = texts.iter().map(passage).collect::<t5_runtime::Result<Vec<_>>>()?;
            let mut encoding = working.take().into_encoding(&passages, &options)?;
            loop {
                if cancel.is_set() {
                    working.put_back(encoding.into_session());
                    return Err(Failure::new(pt5_status::PT5_CANCELLED, "the request was cancelled"));
                }
                if !encoding.work()? {
                    break;
                }
            }
            let (encoded, session) = encoding.finish()?;
            working.put_back(session);
            Ok(encoded)
        })?;
        hand_over(out, pt5_embeddings::new(encoded));
        Ok(())
    })
}

/// # Safety
/// As the header says.
unsafe fn read(options: *const pt5_embed_options) -> Result<(EncodeOptions, Cancel)> {
    // SAFETY: as the caller says.
    unsafe {
        let given = sized(options)?;
        let owned = |name, text| Ok::<_, Failure>(optional_text(name, text)?.map(str::to_owned));
        let options = EncodeOptions {
            pooling: optional_text("pooling", given.pooling)?.map(pooling).transpose()?,
            normalize: given.normalize != 0,
            pad_to: (given.pad_to > 0).then_some(given.pad_to as usize),
            pad_mask: given.attend_to_padding == 0,
            layer: (given.blocks_from_end > 0).then(|| -1 - given.blocks_from_end as isize),
            prompt: owned("prompt", given.prompt)?,
            prefix: owned("prefix", given.prefix)?,
        };
        Ok((options, Cancel::of(given.cancel)?))
    }
}

fn pooling(name: &str) -> Result<Pooling> {
    Pooling::asked(name).ok_or_else(|| {
        let known = std::iter::once(Pooling::None).chain(Pooling::VECTORS);
        let names = known.map(Pooling::name).collect::<Vec<_>>().join(", ");
        Failure::new(pt5_status::PT5_OPTION, format!("pooling: expected one of {names}, found {name}"))
    })
}

impl pt5_embeddings {
    fn new(owned: Vec<Encoded>) -> pt5_embeddings {
        let states = |one: &Encoded| pt5_states {
            values: one.values.as_ptr(),
            rows: one.rows,
            width: one.width(),
            ids: one.input_ids.as_ptr(),
            ids_count: one.input_ids.len(),
            tokens: one.tokens,
        };
        pt5_embeddings { states: owned.iter().map(states).collect(), _owned: owned }
    }
}

/// How many texts there are embeddings of; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_embeddings_count(embeddings: *const pt5_embeddings) -> usize {
    // SAFETY: as the header says.
    call_or(0, || unsafe { reference("embeddings", embeddings) }.map_or(0, |embeddings| embeddings.states.len()))
}

/// What became of a text, counted from 0; NULL where there is none. It lives as long as the embeddings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_embeddings_get(embeddings: *const pt5_embeddings, text: usize) -> *const pt5_states {
    call_or(ptr::null(), || {
        // SAFETY: as the header says.
        let embeddings = unsafe { reference("embeddings", embeddings) }.ok();
        embeddings.and_then(|embeddings| embeddings.states.get(text)).map_or(ptr::null(), ptr::from_ref)
    })
}

/// Frees embeddings and what they point to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_embeddings_free(embeddings: *mut pt5_embeddings) {
    // SAFETY: as the header says.
    unsafe { take_back(embeddings) }
}
