//! Memory of packed weights: zeroed, aligned to cache lines, and on Linux in huge pages.
//!
//! A decoding step reads every weight once, tens of megabytes, so with pages of 4 KiB each step misses the address
//! translation cache some ten thousand times. Huge pages need large mappings, and most matrices are smaller than
//! one such page; matrices therefore share mappings, one after the other.
//!
//! AddressSanitizer does not see where one matrix ends and the next begins in a mapping. Compiled with
//! `--cfg pocket_t5_heap`, every table is a piece of the heap as long as its values, and it reports what reads beyond:
//!
//! ```sh
//! RUSTFLAGS="-Zsanitizer=address --cfg pocket_t5_heap" cargo +nightly test -Zbuild-std \
//!     --target x86_64-unknown-linux-gnu -p t5-runtime
//! ```

use std::alloc::Layout;
use std::ptr::NonNull;

use super::simd::{BF16, F16};
use super::sizes::product;
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::storage::Bytes;

/// Types of which any bits are a value and which have no padding, no destructor and an alignment of at most 64.
///
/// # Safety
/// The type must be as described.
pub(crate) unsafe trait Zeroable: Copy {}

// SAFETY: plain numbers and arrays of them.
unsafe impl Zeroable for u8 {}
// SAFETY: as above.
unsafe impl Zeroable for F16 {}
// SAFETY: as above.
unsafe impl Zeroable for BF16 {}
// SAFETY: as above.
unsafe impl Zeroable for f32 {}
// SAFETY: as above.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}

/// A fixed number of values, first all zero.
pub(crate) struct Table<T> {
    start: *mut T,
    len: usize,
    /// Holds the values; gives the bytes back when it is dropped.
    memory: Holder,
}

/// What holds a table's values.
enum Holder {
    Own {
        _memory: Memory,
    },
    /// Bytes that others may read, too.
    #[cfg(not(target_arch = "wasm32"))]
    Shared {
        _bytes: Bytes,
    },
}

impl<T: Zeroable> Table<T> {
    /// Memory of weights, which stays as long as a model does.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is not enough.
    pub(crate) fn zeroed(len: usize) -> Result<Table<T>> {
        Table::of(len, "weights", places::shared)
    }

    /// Memory of a session's own, which comes and goes with its texts.
    ///
    /// # Errors
    /// As [`Table::zeroed`].
    pub(crate) fn apart(len: usize) -> Result<Table<T>> {
        Table::of(len, "keys and values", places::apart)
    }

    fn of(len: usize, what: &'static str, place: fn(usize) -> Option<Memory>) -> Result<Table<T>> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let bytes = product([len, size_of::<T>()]);
        // The most that a slice may span; it leaves room for whole pages.
        let memory = if bytes <= isize::MAX as usize { place(bytes) } else { None };
        let memory = memory.ok_or(Error::Memory { what, bytes })?;
        Ok(Table { start: memory.start().cast(), len, memory: Holder::Own { _memory: memory } })
    }

    /// The values that `bytes` are, which can only be read; `None` where they are not `len` values, or not aligned.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn shared(bytes: Bytes, len: usize) -> Option<Table<T>> {
        let start = bytes.as_ptr();
        let fits = bytes.len() == product([len, size_of::<T>()]) && start.addr().is_multiple_of(ALIGNMENT);
        fits.then(|| Table { start: start.cast_mut().cast(), len, memory: Holder::Shared { _bytes: bytes } })
    }

    /// The bytes of all values.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: plain values without padding, so all of their bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.start.cast(), size_of_val(&self[..])) }
    }
}

impl<T: Zeroable> std::ops::Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the memory is aligned, holds `len` values, no more than isize::MAX bytes, that are initialised (zero
        // or written since, or any bytes, of which each is a value), and no other table writes it.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Zeroable> std::ops::DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        assert!(matches!(self.memory, Holder::Own { .. }), "shared values are only read");
        // SAFETY: as for Deref; the memory is this table's own, and `&mut self` makes the access the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

// SAFETY: a table owns its memory alone, and gives out references by the usual rules.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Table<T> {}

/// Keys and values: working memory that grows, and that every step reads as it reads weights.
pub(crate) struct Buffer<T>(Option<Table<T>>);

impl<T> Default for Buffer<T> {
    fn default() -> Buffer<T> {
        Buffer(None)
    }
}

impl<T: Zeroable> Buffer<T> {
    /// All there is.
    pub(crate) fn values(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The first `len` values, for which there must be room.
    pub(crate) fn part(&mut self, len: usize) -> &mut [T] {
        &mut self.0.as_deref_mut().unwrap_or_default()[..len]
    }

    /// Makes room for `len` values; where there was less, all are zero now.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is not enough; nothing is held then.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<()> {
        if self.values().len() < len {
            self.0 = None; // given back before more is asked for
            self.0 = Some(Table::apart(len)?);
        }
        Ok(())
    }
}

/// Bytes of a cache line.
const ALIGNMENT: usize = 64;

/// Memory from the heap, zeroed.
struct Heap {
    start: NonNull<u8>,
    layout: Layout,
}

impl Heap {
    /// `None` where there is not enough.
    fn new(bytes: usize) -> Option<Heap> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        Some(Heap { start, layout })
    }

    /// The first byte; as many as were asked for follow.
    fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and is given back once.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

#[cfg(all(target_os = "linux", not(any(miri, pocket_t5_heap))))]
use huge as places;
use places::Memory;
#[cfg(not(all(target_os = "linux", not(any(miri, pocket_t5_heap)))))]
use plain as places;

#[cfg(all(target_os = "linux", not(any(miri, pocket_t5_heap))))]
mod huge {
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use memmap2::{Advice, MmapMut, MmapOptions};

    use super::{ALIGNMENT, Heap};

    const HUGE_PAGE: usize = 2 << 20;
    /// Address space of a mapping that small matrices share. What is never written takes no memory.
    const SHARED: usize = 32 << 20;
    /// From this many bytes on, mappings are asked to be of huge pages, and memory of a session's own has a mapping of
    /// its own. Clearing a huge page of which less is used would cost more than it saves; and address space is limited,
    /// so ten thousand short texts must not take two pages of it each.
    const LARGE: usize = HUGE_PAGE / 2;

    /// What holds a table's bytes.
    pub(super) enum Memory {
        Heap(Heap),
        /// Some bytes of a mapping, which lives until the last table in it is dropped.
        Mapped {
            start: *mut u8,
            _mapping: Arc<MmapMut>,
        },
    }

    impl Memory {
        /// The first byte; as many as were asked for follow, and no other table holds them.
        pub(super) fn start(&self) -> *mut u8 {
            match self {
                Memory::Heap(heap) => heap.start(),
                Memory::Mapped { start, .. } => *start,
            }
        }
    }

    /// The mapping that the next table may be cut from.
    struct Current {
        mapping: Weak<MmapMut>,
        next: *mut u8,
        free: usize,
    }

    // SAFETY: the pointer is only used to cut pieces, under the lock and while the mapping lives.
    unsafe impl Send for Current {}

    static CURRENT: Mutex<Current> = Mutex::new(Current { mapping: Weak::new(), next: std::ptr::null_mut(), free: 0 });

    /// A mapping, its first byte that huge pages allow, and how many bytes follow: at least `bytes`, which are at most
    /// isize::MAX. `None` where there is not enough memory or address space.
    fn map(bytes: usize) -> Option<(MmapMut, *mut u8, usize)> {
        // One huge page more than needed, so that the first table can begin at one.
        let size = bytes.checked_next_multiple_of(HUGE_PAGE)?.checked_add(HUGE_PAGE)?;
        let mut mapping = MmapOptions::new().len(size).map_anon().ok()?;
        // A kernel without huge pages refuses; that costs speed only.
        if bytes >= LARGE {
            let _ = mapping.advise(Advice::HugePage);
        }
        let start = mapping.as_mut_ptr();
        let skipped = start.align_offset(HUGE_PAGE).min(HUGE_PAGE);
        Some((mapping, start.wrapping_add(skipped), size - skipped))
    }

    /// Memory in a mapping that others may share.
    pub(super) fn shared(bytes: usize) -> Option<Memory> {
        let bytes = bytes.checked_next_multiple_of(ALIGNMENT)?;
        // Nothing here panics while it holds the lock.
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let mapping = match current.mapping.upgrade() {
            Some(mapping) if bytes <= current.free => mapping,
            _ => {
                let (mapping, start, size) = map(SHARED.max(bytes))?;
                let mapping = Arc::new(mapping);
                *current = Current { mapping: Arc::downgrade(&mapping), next: start, free: size };
                mapping
            }
        };
        let start = current.next;
        current.next = start.wrapping_add(bytes);
        current.free -= bytes;
        Some(Memory::Mapped { start, _mapping: mapping })
    }

    /// Memory that is given back by itself.
    pub(super) fn apart(bytes: usize) -> Option<Memory> {
        if bytes < LARGE {
            return Heap::new(bytes).map(Memory::Heap);
        }
        let (mapping, start, _) = map(bytes)?;
        Some(Memory::Mapped { start, _mapping: Arc::new(mapping) })
    }
}

#[cfg(not(all(target_os = "linux", not(any(miri, pocket_t5_heap)))))]
mod plain {
    use super::Heap;
    pub(super) use super::Heap as Memory;

    pub(super) fn shared(bytes: usize) -> Option<Memory> {
        Heap::new(bytes)
    }

    pub(super) fn apart(bytes: usize) -> Option<Memory> {
        Heap::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_zero_aligned_and_apart() {
        let mut tables: Vec<Table<[u8; 3]>> =
            [0, 1, 21, 22, 64, if cfg!(miri) { 1000 } else { 100_000 }].map(|len| Table::zeroed(len).unwrap()).into();
        let mut large: Table<f32> = Table::zeroed(if cfg!(miri) { 999 } else { (33 << 20) / 4 }).unwrap();
        assert!(large.iter().all(|&x| x == 0.0));
        large.fill(1.0);
        for (i, table) in tables.iter_mut().enumerate() {
            assert!(table.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert!(table.iter().all(|&x| x == [0; 3]), "table {i}");
            table.fill([i as u8 + 1; 3]);
        }
        for (i, table) in tables.iter().enumerate() {
            assert!(table.iter().all(|&x| x == [i as u8 + 1; 3]), "table {i}");
        }
        assert!(large.iter().all(|&x| x == 1.0));
    }

    #[test]
    fn keys_and_values_grow_and_keep_what_they_have() {
        let mut memory: Buffer<f32> = Buffer::default();
        memory.reserve(0).unwrap();
        assert!(memory.values().is_empty() && memory.part(0).is_empty());
        // On the heap, and in a mapping.
        for large in if cfg!(miri) { [70, 700] } else { [70_000, 700_000] } {
            memory.reserve(large).unwrap();
            memory.part(large).fill(1.0);
            memory.reserve(3).unwrap();
            assert_eq!(memory.values(), vec![1.0; large]);
            memory.reserve(large + 1).unwrap();
            assert_eq!(memory.values(), vec![0.0; large + 1]);
        }
    }

    /// Sizes that wrap around would make a slice of what is not there.
    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        for len in [usize::MAX / 4 - 15, usize::MAX / 4, usize::MAX / 2, usize::MAX] {
            let bytes = len.saturating_mul(4);
            for (what, result) in
                [("weights", Table::<f32>::zeroed(len)), ("keys and values", Table::<f32>::apart(len))]
            {
                let error = result.err().unwrap().to_string();
                assert!(error.contains(what) && error.contains(&bytes.to_string()), "{error}");
            }
            let mut memory: Buffer<f32> = Buffer::default();
            memory.reserve(10).unwrap();
            memory.reserve(len).unwrap_err();
            assert!(memory.values().is_empty());
        }
    }

    /// Ten thousand short texts take as much address space as their keys and values do, not a mapping each.
    #[test]
    #[cfg(all(target_os = "linux", not(any(miri, pocket_t5_heap))))]
    fn little_takes_little_address_space() {
        let size = || -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
        };
        let before = size();
        let tables: Vec<Table<f32>> = (0..1000).map(|_| Table::apart(1000).unwrap()).collect();
        let taken = size().saturating_sub(before);
        // Other tests run beside this one and take some as well: far from the 4 GB of a thousand mappings.
        assert!(taken < 1 << 30, "{} tables of 4 kB took {taken} bytes", tables.len());
    }

    #[test]
    fn memory_outlives_the_tables_beside_it() {
        let first: Table<u8> = Table::zeroed(1000).unwrap();
        let mut second: Table<u8> = Table::zeroed(1000).unwrap();
        drop(first);
        second.fill(7);
        let third: Table<u8> = Table::zeroed(1000).unwrap();
        assert!(third.iter().all(|&x| x == 0));
        assert!(second.iter().all(|&x| x == 7));
    }
}
