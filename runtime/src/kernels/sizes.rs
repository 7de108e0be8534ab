//! Sizes of what callers give and of what is made for them. Extents come from callers, and safe code may name any: here
//! they are multiplied, nowhere else, and what does not fit becomes `usize::MAX`, which no slice has and no memory
//! holds.

/// The product of extents, `usize::MAX` where that is too large.
pub(crate) fn product<const N: usize>(extents: [usize; N]) -> usize {
    extents.into_iter().fold(1, usize::saturating_mul)
}

/// How many rows of `width` values these are.
///
/// # Panics
/// If they are not whole rows, or rows have no values; the message is `what`.
#[inline]
pub(crate) fn rows(values: &[f32], width: usize, what: &str) -> usize {
    assert!(width > 0 && values.len().is_multiple_of(width), "{what}: found {} values, rows of {width}", values.len());
    values.len() / width
}

/// The part of `pieces` that part `part` of `parts` covers: parts meet, and together cover all.
pub(crate) fn share(pieces: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    // The whole part of `pieces * part / parts`, where the product may be too large.
    let (each, left) = (pieces / parts, pieces % parts);
    let start = |part: usize| each * part + left * part / parts;
    start(part)..start(part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_do_not_wrap() {
        assert_eq!(product([]), 1);
        assert_eq!(product([3, 5, 7]), 105);
        assert_eq!(product([usize::MAX / 2 + 9, 2]), usize::MAX);
        assert_eq!(product([usize::MAX, usize::MAX, 0]), 0);
    }

    #[test]
    fn shares_cover_all() {
        for (pieces, parts) in [(0, 1), (5, 3), (7, 7), (100, 8), (usize::MAX / 2 + 9, 4), (usize::MAX, 3)] {
            let mut next = 0;
            for part in 0..parts {
                let range = share(pieces, part, parts);
                assert!(range.start == next && range.start <= range.end, "{pieces} in {parts}");
                next = range.end;
            }
            assert_eq!(next, pieces);
        }
    }
}
