//! What every call goes through: arguments that may be anything, errors as codes, and no panic to the other side.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::{MaybeUninit, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use t5_runtime::Error;

use crate::PT5_NUL;

/// How a call ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pt5_status {
    /// It did what it was to do.
    PT5_OK = 0,
    /// An argument cannot be: NULL, text that is not UTF-8, a size that nothing has.
    PT5_ARGUMENT = 1,
    /// An option is unknown, out of range, or contradicts another one.
    PT5_OPTION = 2,
    /// What was to be opened is no model, or not one that can be run.
    PT5_MODEL = 3,
    /// A file could not be read or written.
    PT5_IO = 4,
    /// A file was written in place while it was mapped: open the model again.
    PT5_CHANGED = 5,
    /// There is not enough memory.
    PT5_MEMORY = 6,
    /// The model hub could not be reached, or does not have it.
    PT5_HUB = 7,
    /// The session works on another call.
    PT5_BUSY = 8,
    /// The call was cancelled: only pt5_embed gives it, a generation ends with PT5_FINISH_CANCELLED.
    PT5_CANCELLED = 9,
    /// A mistake in the library. Please report it.
    PT5_INTERNAL = 10,
}

/// A status and the sentence that goes with it.
#[derive(Debug)]
pub struct Failure {
    pub status: pt5_status,
    pub message: String,
}

impl Failure {
    pub fn new(status: pt5_status, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into() }
    }

    pub fn argument(name: &str, what: impl std::fmt::Display) -> Failure {
        Failure::new(pt5_status::PT5_ARGUMENT, format!("{name}: {what}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::NotAModel { .. }
            | Error::Format { .. }
            | Error::Tensor { .. }
            | Error::Config { .. }
            | Error::Tokenizer { .. } => pt5_status::PT5_MODEL,
            Error::Io { .. } => pt5_status::PT5_IO,
            Error::Changed { .. } => pt5_status::PT5_CHANGED,
            Error::Option { .. } => pt5_status::PT5_OPTION,
            Error::Memory { .. } => pt5_status::PT5_MEMORY,
            Error::Hub { .. } => pt5_status::PT5_HUB,
            _ => pt5_status::PT5_INTERNAL,
        };
        Failure::new(status, error.to_string())
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs a call: its error, or its panic, becomes a status and this thread's last error.
pub fn call(work: impl FnOnce() -> Result<()>) -> pt5_status {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return pt5_status::PT5_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::new(pt5_status::PT5_INTERNAL, format!("internal error: {}", said(&*panic))),
    };
    remember(failure.message);
    failure.status
}

/// Runs what cannot fail: in a panic's place it gives `otherwise`.
pub fn call_or<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        remember(format!("internal error: {}", said(&*panic)));
        otherwise
    })
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

fn remember(message: String) {
    let message = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = message);
}

/// What was wrong with the last call of this thread that failed: one sentence, empty if none has. It stays until the
/// next call of this thread fails: ask for it in a statement of its own, behind the call's.
#[unsafe(no_mangle)]
pub extern "C" fn pt5_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn pt5_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The ABI of the library: a program compiled with another PT5_ABI must not call it.
#[unsafe(no_mangle)]
pub extern "C" fn pt5_abi() -> u32 {
    1
}

/// What a handle or a struct points to.
///
/// # Safety
/// If it is not NULL and aligned, it points to a `T` that lives as long as the call and that nobody writes meanwhile.
pub unsafe fn reference<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    check(name, pointer)?;
    // SAFETY: not NULL and aligned; the rest is the caller's to keep.
    Ok(unsafe { &*pointer })
}

/// Where a call puts what it gives; NULL until then.
///
/// # Safety
/// If it is not NULL and aligned, it may be written.
pub unsafe fn out<'a, T>(name: &str, pointer: *mut *mut T) -> Result<&'a mut *mut T> {
    check(name, pointer)?;
    // SAFETY: not NULL and aligned, and the caller says that it may be written; a pointer needs no drop.
    unsafe {
        pointer.write(std::ptr::null_mut());
        Ok(&mut *pointer)
    }
}

/// Refuses a pointer that cannot be one.
pub fn check<T>(name: &str, pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        return Err(Failure::argument(name, "expected a pointer, found NULL"));
    }
    if !pointer.is_aligned() {
        return Err(Failure::argument(name, "expected a pointer, found one that is not aligned"));
    }
    Ok(())
}

/// An array.
///
/// # Safety
/// If it is not NULL and aligned, there are so many elements.
pub unsafe fn array<'a, T>(name: &str, pointer: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    check(name, pointer)?;
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::argument(name, format_args!("expected what fits memory, found {count} elements")));
    }
    // SAFETY: not NULL, aligned, of a size that can be; that so many are there is the caller's to keep.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// The bytes of a text.
///
/// # Safety
/// If it is not NULL, there are so many bytes, or with [`PT5_NUL`] a zero behind them.
unsafe fn bytes<'a>(name: &str, text: *const c_char, len: usize) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(Failure::argument(name, "expected a text, found NULL"));
    }
    if len == PT5_NUL {
        // SAFETY: it is not NULL, and the caller says that a zero ends it.
        return Ok(unsafe { CStr::from_ptr(text) }.to_bytes());
    }
    // SAFETY: as the caller says.
    unsafe { array(name, text.cast(), len) }
}

/// A text.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn text<'a>(name: &str, text: *const c_char, len: usize) -> Result<&'a str> {
    // SAFETY: as the caller says.
    let bytes = unsafe { bytes(name, text, len) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        Failure::argument(name, format_args!("expected UTF-8, found other bytes from byte {} on", error.valid_up_to()))
    })
}

/// A text that may be left out, with a zero behind it.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn optional_text<'a>(name: &str, pointer: *const c_char) -> Result<Option<&'a str>> {
    // SAFETY: as the caller says.
    if pointer.is_null() { Ok(None) } else { unsafe { text(name, pointer, PT5_NUL) }.map(Some) }
}

/// Several texts; without lengths each has a zero behind it.
///
/// # Safety
/// There are so many texts, each as in [`bytes`], and lengths if any.
pub unsafe fn texts<'a>(
    name: &str,
    pointers: *const *const c_char,
    lens: *const usize,
    count: usize,
) -> Result<Vec<&'a str>> {
    // SAFETY: as the caller says.
    let pointers = unsafe { array(name, pointers, count) }?;
    let lens = match lens.is_null() {
        true => None,
        // SAFETY: as the caller says.
        false => Some(unsafe { array("lens", lens, count) }?),
    };
    let one = |(index, &pointer): (usize, &*const c_char)| {
        let len = lens.map_or(PT5_NUL, |lens| lens[index]);
        // SAFETY: as the caller says.
        unsafe { text(&format!("{name}[{index}]"), pointer, len) }
    };
    pointers.iter().enumerate().map(one).collect()
}

/// Where a file lies: its bytes where the system's paths are bytes, else UTF-8.
///
/// # Safety
/// As [`bytes`], with a zero behind it.
pub unsafe fn path<'a>(name: &str, pointer: *const c_char) -> Result<&'a std::path::Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: as the caller says.
        let bytes = unsafe { bytes(name, pointer, PT5_NUL) }?;
        Ok(std::ffi::OsStr::from_bytes(bytes).as_ref())
    }
    #[cfg(not(unix))]
    // SAFETY: as the caller says.
    Ok(unsafe { text(name, pointer, PT5_NUL) }?.as_ref())
}

/// A struct that begins with its size and may grow.
///
/// # Safety
/// It has such a size, which comes first, and zeros are a value of it.
pub unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &'static str;
}

/// What a struct of options says; all zeros for NULL. One that is shorter than the library's is of an older header:
/// what it lacks is zero. One that is longer is of a newer header, and good as long as it asks for nothing that is
/// unknown here.
///
/// # Safety
/// If it is not NULL and aligned, as many bytes are there as it says.
pub unsafe fn sized<T: Growing>(pointer: *const T) -> Result<T> {
    /// No struct grows beyond it: what claims to be larger has not been set.
    const MOST: usize = 4096;
    let mut value = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        check(T::NAME, pointer)?;
        // SAFETY: the size comes first.
        let size = unsafe { pointer.cast::<usize>().read() };
        if !(size_of::<usize>()..=MOST).contains(&size) {
            let what = format_args!("size: expected sizeof({}), found {size}", T::NAME);
            return Err(Failure::argument(T::NAME, what));
        }
        // SAFETY: so many bytes are there.
        let bytes = unsafe { slice::from_raw_parts(pointer.cast::<MaybeUninit<u8>>(), size) };
        let known = size.min(size_of::<T>());
        for byte in &bytes[known..] {
            // SAFETY: a field that this header does not know, and every byte behind the known ones was set.
            if unsafe { byte.assume_init() } != 0 {
                let most = size_of::<T>();
                let what = format_args!("size: expected {most}, found {size} with fields set that are unknown here");
                return Err(Failure::argument(T::NAME, what));
            }
        }
        // SAFETY: both are there and do not overlap; bytes need no alignment.
        unsafe { value.as_mut_ptr().cast::<MaybeUninit<u8>>().copy_from_nonoverlapping(bytes.as_ptr(), known) };
    }
    // SAFETY: zeros are a value, and what was copied over them is one.
    Ok(unsafe { value.assume_init() })
}

/// Gives a value to the caller, who frees it.
pub fn hand_over<T>(out: &mut *mut T, value: T) {
    *out = Box::into_raw(Box::new(value));
}

/// Takes back what [`hand_over`] gave; nothing for NULL.
///
/// # Safety
/// It came from there, and comes back once.
pub unsafe fn take_back<T>(pointer: *mut T) {
    // SAFETY: as the caller says.
    call_or((), || unsafe {
        if !pointer.is_null() {
            drop(Box::from_raw(pointer))
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_error() -> String {
        // SAFETY: it is a text of this thread, and no call comes between.
        unsafe { CStr::from_ptr(pt5_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_a_status() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let index = std::hint::black_box(7);
        let status = call(|| Err(Failure::argument("x", [1, 2][index])));
        let text = call_or("none", || panic!("a {}", "reason"));
        std::panic::set_hook(hook);
        assert_eq!((status, text), (pt5_status::PT5_INTERNAL, "none"));
        assert_eq!(last_error(), "internal error: a reason");
    }

    #[test]
    fn errors_are_of_their_thread_and_stay() {
        assert_eq!(call(|| Err(Failure::argument("a", "b\0c"))), pt5_status::PT5_ARGUMENT);
        assert_eq!(call(|| Ok(())), pt5_status::PT5_OK);
        assert_eq!(last_error(), "a: b\u{fffd}c");
        assert_eq!(std::thread::spawn(last_error).join().unwrap(), "");
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Options {
        size: usize,
        old: u32,
        new: u32,
    }

    // SAFETY: its size comes first, and it has only numbers.
    unsafe impl Growing for Options {
        const NAME: &'static str = "options";
    }

    #[test]
    fn structs_may_be_older_and_newer() {
        let read = |fields: &[usize; 3]| {
            // SAFETY: the sizes below are at most those of the array.
            unsafe { sized(fields.as_ptr().cast::<Options>()) }.map(|options| (options.old, options.new))
        };
        let fields = usize::from_ne_bytes({
            let mut bytes = [0; size_of::<usize>()];
            bytes[..4].copy_from_slice(&5u32.to_ne_bytes());
            bytes[4..].copy_from_slice(&6u32.to_ne_bytes());
            bytes
        });
        assert_eq!(read(&[size_of::<Options>(), fields, 0]).unwrap(), (5, 6));
        assert_eq!(read(&[size_of::<usize>() + 4, fields, 0]).unwrap(), (5, 0), "an older header");
        assert_eq!(read(&[size_of::<Options>() + 8, fields, 0]).unwrap(), (5, 6), "a newer header");
        let failure = read(&[size_of::<Options>() + 8, fields, 1]).unwrap_err();
        assert_eq!(failure.message, "options: size: expected 16, found 24 with fields set that are unknown here");
        for size in [0, 4, 1 << 20, usize::MAX] {
            let failure = read(&[size, fields, 0]).unwrap_err();
            assert_eq!(failure.message, format!("options: size: expected sizeof(options), found {size}"));
        }
        // SAFETY: NULL asks for nothing.
        assert_eq!(unsafe { sized(std::ptr::null::<Options>()) }.unwrap(), Options { size: 0, old: 0, new: 0 });
    }
}
