//! Models: opened once, shared by all sessions.

use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};

use t5_runtime::checkpoint::Checkpoint;
#[cfg(feature = "hub")]
use t5_runtime::hub;
use t5_runtime::storage::Bytes;
use t5_runtime::{Model, ModelOptions};

use crate::border::{
    Growing, Result, array, call, hand_over, optional_text, out, path, pt5_status, reference, sized, take_back,
};
use crate::memory::give_text;

/// A model, ready to run. Never changed, so threads may share it.
pub struct pt5_model {
    pub(crate) model: Model,
}

/// Told how far a download is: `done` of the `size` bytes of a file.
pub type pt5_progress = Option<unsafe extern "C" fn(user: *mut c_void, file: *const c_char, done: u64, size: u64)>;

/// How a model is opened. Zeros: as usual.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pt5_model_options {
    /// sizeof(pt5_model_options)
    pub size: usize,
    /// The instruction set to use, such as "avx2" or "scalar"; NULL: the best that the machine has. Results are the
    /// same.
    pub isa: *const c_char,
    /// A file of packed weights, which is mapped, and made where it is not there or of another model or machine: so
    /// large models start at once, and processes share them. NULL: none.
    pub packed: *const c_char,
    /// Another tokenizer than the model's: a file, a folder, or hf:OWNER/NAME. NULL: the model's.
    pub tokenizer: *const c_char,
    /// Not 0: read weights into memory in place of mapping their files, which then may be written.
    pub copy: u32,
    /// Told how far a download is; NULL: nobody.
    pub progress: pt5_progress,
    /// What `progress` gets first.
    pub user: *mut c_void,
}

// SAFETY: its size comes first, and zeros are numbers, NULL and no function.
unsafe impl Growing for pt5_model_options {
    const NAME: &'static str = "pt5_model_options";
}

/// Opens a GGUF file, a Hugging Face folder, a safetensors file, or hf:OWNER/NAME, which is downloaded into the Hugging
/// Face cache; the variables HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_ENDPOINT are obeyed. Files are
/// mapped: replace them by renaming, never by writing in place. A zero ends the path, which is UTF-8 on Windows and any
/// bytes elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_model_open(
    path: *const c_char,
    options: *const pt5_model_options,
    model: *mut *mut pt5_model,
) -> pt5_status {
    // SAFETY: as the header says, here and below.
    call(|| unsafe {
        let out = out("model", model)?;
        let options = Opening::read(options)?;
        let path = options.local(crate::border::path("path", path)?)?;
        options.open(Checkpoint::open(&path)?, out)
    })
}

/// Opens a GGUF file that is in memory. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_model_open_memory(
    bytes: *const u8,
    len: usize,
    options: *const pt5_model_options,
    model: *mut *mut pt5_model,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("model", model)?;
        let options = Opening::read(options)?;
        let bytes = Bytes::from_vec(array("bytes", bytes, len)?.to_vec());
        options.open(Checkpoint::from_gguf("a file in memory", bytes)?, out)
    })
}

/// Opens the model that is part of the library: translation between English and German or French, pronunciation,
/// corrections, and gaps. runtime/model/README.md is its card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_model_builtin(
    options: *const pt5_model_options,
    model: *mut *mut pt5_model,
) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("model", model)?;
        let options = Opening::read(options)?;
        #[cfg(feature = "builtin-model")]
        return options.open(Checkpoint::pocket()?, out);
        #[cfg(not(feature = "builtin-model"))]
        {
            let _ = (options, out);
            Err(crate::border::Failure::new(
                pt5_status::PT5_OPTION,
                "this library was built without a model of its own",
            ))
        }
    })
}

/// What the model says of itself, as JSON: `file`, `isa`, `config`, `generation` with its tasks, `tokenizer`, `about`,
/// and `notes` on what was ignored. Free it with pt5_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_model_info(model: *const pt5_model, json: *mut *mut c_char) -> pt5_status {
    // SAFETY: as the header says.
    call(|| unsafe {
        let out = out("json", json)?;
        *out = give_text(&reference("model", model)?.model.to_json().to_string())?;
        Ok(())
    })
}

/// Frees a model. Its sessions keep what they need.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pt5_model_free(model: *mut pt5_model) {
    // SAFETY: as the header says.
    unsafe { take_back(model) }
}

/// Options that were read.
struct Opening {
    options: ModelOptions,
    packed: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    #[cfg(feature = "hub")]
    listener: Listener,
}

impl Opening {
    /// # Safety
    /// As the header says.
    unsafe fn read(options: *const pt5_model_options) -> Result<Opening> {
        // SAFETY: as the caller says.
        unsafe {
            let given = sized(options)?;
            let isa = optional_text("isa", given.isa)?.map(str::parse).transpose()?;
            let optional = |name, pointer: *const c_char| match pointer.is_null() {
                true => Ok(None),
                false => path(name, pointer).map(|path| Some(path.to_owned())),
            };
            Ok(Opening {
                options: ModelOptions { isa, copy: given.copy != 0 },
                packed: optional("packed", given.packed)?,
                tokenizer: optional("tokenizer", given.tokenizer)?,
                #[cfg(feature = "hub")]
                listener: Listener { progress: given.progress, user: given.user, ..Listener::default() },
            })
        }
    }

    /// The path itself, or where the hub's cache keeps the model.
    fn local(&self, path: &Path) -> Result<PathBuf> {
        #[cfg(feature = "hub")]
        if let Some(name) = path.to_str().filter(|name| hub::is_hub_name(name)) {
            return Ok(hub::fetch(name, &mut self.listener.clone())?);
        }
        #[cfg(not(feature = "hub"))]
        if path.as_os_str().as_encoded_bytes().starts_with(b"hf:") {
            let what = format!("{}: this library was built without downloads", path.display());
            return Err(crate::border::Failure::new(pt5_status::PT5_OPTION, what));
        }
        Ok(path.to_owned())
    }

    fn open(self, mut checkpoint: Checkpoint, out: &mut *mut pt5_model) -> Result<()> {
        if let Some(tokenizer) = &self.tokenizer {
            checkpoint.replace_tokenizer(&self.local_tokenizer(tokenizer)?)?;
        }
        let model = match &self.packed {
            Some(packed) => Model::from_checkpoint_and_packed(checkpoint, &self.options, packed)?,
            None => Model::from_checkpoint(checkpoint, &self.options)?,
        };
        hand_over(out, pt5_model { model });
        Ok(())
    }

    fn local_tokenizer(&self, path: &Path) -> Result<PathBuf> {
        #[cfg(feature = "hub")]
        if let Some(name) = path.to_str().filter(|name| hub::is_hub_name(name)) {
            return Ok(hub::fetch_tokenizer(name, &mut self.listener.clone())?);
        }
        self.local(path)
    }
}

/// A caller's function as the hub's listener.
#[cfg(feature = "hub")]
#[derive(Clone)]
struct Listener {
    progress: pt5_progress,
    user: *mut c_void,
    file: std::ffi::CString,
    done: u64,
    size: u64,
}

#[cfg(feature = "hub")]
impl Default for Listener {
    fn default() -> Listener {
        Listener { progress: None, user: std::ptr::null_mut(), file: Default::default(), done: 0, size: 0 }
    }
}

#[cfg(feature = "hub")]
impl Listener {
    fn tell(&self) {
        if let Some(progress) = self.progress {
            // SAFETY: the caller's function, called as the header says; the name outlives the call.
            unsafe { progress(self.user, self.file.as_ptr(), self.done, self.size) }
        }
    }
}

#[cfg(feature = "hub")]
impl hub::Progress for Listener {
    fn start(&mut self, file: &str, size: u64, done: u64) {
        self.file = std::ffi::CString::new(file).unwrap_or_default();
        (self.size, self.done) = (size, done);
        self.tell();
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        self.tell();
    }

    fn finish(&mut self) {
        self.done = self.size;
        self.tell();
    }
}
