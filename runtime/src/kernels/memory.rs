//! Memory of packed weights: zeroed, aligned to cache lines, and on Linux in huge pages.
//!
//! A decoding step reads every weight once, tens of megabytes, so with pages of 4 KiB each step misses the address
//! translation cache some ten thousand times. Huge pages need large mappings, and most matrices are smaller than
//! one such page; matrices therefore share mappings, one after the other.

use std::marker::PhantomData;

use super::simd::{BF16, F16};

/// Types of which all bits zero is a value and which have no padding, no destructor and an alignment of at most 64.
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
    region: Region,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Zeroable> Table<T> {
    /// # Panics
    /// If the size overflows, or memory is not to be had.
    pub(crate) fn zeroed(len: usize) -> Table<T> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let bytes = len.checked_mul(size_of::<T>()).expect("sizes were checked against a file's");
        Table { region: Region::zeroed(bytes), len, of: PhantomData }
    }

    /// The same in a mapping of its own, which is given back when the table is dropped: for memory that comes and goes.
    ///
    /// # Panics
    /// As [`Table::zeroed`].
    pub(crate) fn apart(len: usize) -> Table<T> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let bytes = len.checked_mul(size_of::<T>()).expect("caches of texts fit in the address space");
        Table { region: Region::apart(bytes), len, of: PhantomData }
    }
}

impl<T: Zeroable> std::ops::Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the region is aligned, holds `len` values that are initialised (zero or written since), and no
        // other table shares it.
        unsafe { std::slice::from_raw_parts(self.region.start().cast(), self.len) }
    }
}

impl<T: Zeroable> std::ops::DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for Deref; `&mut self` makes the access the only one.
        unsafe { std::slice::from_raw_parts_mut(self.region.start().cast(), self.len) }
    }
}

// SAFETY: a table owns its part of the region alone, and gives out references by the usual rules.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Table<T> {}

/// Working memory that grows: what every step reads as it reads weights.
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

    /// The first `len` values; where there were fewer, all are zero now.
    pub(crate) fn part(&mut self, len: usize) -> &mut [T] {
        if self.values().len() < len {
            self.0 = None; // given back before more is asked for
            self.0 = Some(Table::apart(len));
        }
        &mut self.0.as_deref_mut().unwrap_or_default()[..len]
    }
}

/// Bytes of a cache line.
const ALIGNMENT: usize = 64;

#[cfg(all(target_os = "linux", not(miri)))]
use huge::Region;
#[cfg(not(all(target_os = "linux", not(miri))))]
use plain::Region;

#[cfg(all(target_os = "linux", not(miri)))]
mod huge {
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use memmap2::{Advice, MmapMut, MmapOptions};

    use super::ALIGNMENT;

    const HUGE_PAGE: usize = 2 << 20;
    /// Address space of a mapping that small matrices share. What is never written takes no memory.
    const SHARED: usize = 32 << 20;

    /// Bytes of a mapping, which lives until the last of its regions is dropped.
    pub(super) struct Region {
        _mapping: Arc<MmapMut>,
        start: *mut u8,
    }

    /// The mapping that the next region may be cut from.
    struct Current {
        mapping: Weak<MmapMut>,
        next: *mut u8,
        free: usize,
    }

    // SAFETY: the pointer is only used to cut regions, under the lock and while the mapping lives.
    unsafe impl Send for Current {}

    static CURRENT: Mutex<Current> = Mutex::new(Current { mapping: Weak::new(), next: std::ptr::null_mut(), free: 0 });

    /// A mapping, its first byte that huge pages allow, and how many bytes follow: at least `bytes`.
    fn map(bytes: usize) -> (MmapMut, *mut u8, usize) {
        // One huge page more than needed, so that the first region can begin at one.
        let size = bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let mut mapping = MmapOptions::new().len(size).map_anon().unwrap_or_else(|error| {
            std::alloc::handle_alloc_error(
                std::alloc::Layout::from_size_align(size, ALIGNMENT).unwrap_or_else(|_| panic!("{error}")),
            )
        });
        // Clearing a page that is hardly used would cost more than it saves. A kernel without huge pages refuses; that
        // costs speed only.
        if bytes >= HUGE_PAGE / 2 {
            let _ = mapping.advise(Advice::HugePage);
        }
        let start = mapping.as_mut_ptr();
        let skipped = start.align_offset(HUGE_PAGE).min(HUGE_PAGE);
        (mapping, start.wrapping_add(skipped), size - skipped)
    }

    impl Region {
        pub(super) fn zeroed(bytes: usize) -> Region {
            let bytes = bytes.checked_next_multiple_of(ALIGNMENT).expect("sizes were checked against a file's");
            // A panic while the lock was held (no memory) left the value as it was.
            let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            let mapping = match current.mapping.upgrade() {
                Some(mapping) if bytes <= current.free => mapping,
                _ => {
                    let (mapping, start, size) = map(SHARED.max(bytes));
                    current.next = start;
                    current.free = size;
                    let mapping = Arc::new(mapping);
                    current.mapping = Arc::downgrade(&mapping);
                    mapping
                }
            };
            let start = current.next;
            current.next = start.wrapping_add(bytes);
            current.free -= bytes;
            Region { _mapping: mapping, start }
        }

        pub(super) fn apart(bytes: usize) -> Region {
            let (mapping, start, _) = map(bytes.max(1));
            Region { _mapping: Arc::new(mapping), start }
        }

        /// First byte; as many as were asked for follow, and no other region holds them.
        pub(super) fn start(&self) -> *mut u8 {
            self.start
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod plain {
    /// A cache line.
    #[repr(align(64))]
    #[derive(Clone, Copy)]
    struct Line(#[allow(dead_code)] [u8; super::ALIGNMENT]);

    /// A buffer of its own.
    pub(super) struct Region {
        // The pointer is kept, not taken anew from the vector, so that shared access never makes a mutable one.
        _lines: Vec<Line>,
        start: *mut u8,
    }

    impl Region {
        pub(super) fn zeroed(bytes: usize) -> Region {
            let mut lines = vec![Line([0; super::ALIGNMENT]); bytes.div_ceil(super::ALIGNMENT)];
            let start = lines.as_mut_ptr().cast();
            Region { _lines: lines, start }
        }

        pub(super) fn apart(bytes: usize) -> Region {
            Region::zeroed(bytes)
        }

        /// First byte; as many as were asked for follow.
        pub(super) fn start(&self) -> *mut u8 {
            self.start
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_zero_aligned_and_apart() {
        let mut tables: Vec<Table<[u8; 3]>> =
            [0, 1, 21, 22, 64, if cfg!(miri) { 1000 } else { 100_000 }].map(Table::zeroed).into();
        let mut large: Table<f32> = Table::zeroed(if cfg!(miri) { 999 } else { (33 << 20) / 4 });
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
    fn buffers_grow_and_keep_what_they_have() {
        let mut buffer: Buffer<f32> = Buffer::default();
        assert!(buffer.part(0).is_empty() && buffer.values().is_empty());
        let large = if cfg!(miri) { 700 } else { 700_000 };
        buffer.part(large).fill(1.0);
        assert_eq!(buffer.part(3), [1.0; 3]);
        assert_eq!(buffer.values().len(), large);
        assert!(buffer.part(large + 1).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn memory_outlives_the_tables_beside_it() {
        let first: Table<u8> = Table::zeroed(1000);
        let mut second: Table<u8> = Table::zeroed(1000);
        drop(first);
        second.fill(7);
        let third: Table<u8> = Table::zeroed(1000);
        assert!(third.iter().all(|&x| x == 0));
        assert!(second.iter().all(|&x| x == 7));
    }
}
