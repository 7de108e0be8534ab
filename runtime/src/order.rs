//! Sorting with one copy of its code for all types: each type that the standard library sorts for itself takes some 4
//! kB of a browser's module. Where time counts (candidates of a token, the vocabulary), its own functions are used.

use std::cmp::Ordering;

/// Things in the order that `compare` gives; of equal ones, the first stays first.
pub(crate) fn sorted_by<T>(things: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let places = order(things.len(), &|a, b| compare(&things[a], &things[b]));
    let mut things: Vec<Option<T>> = things.into_iter().map(Some).collect();
    places.into_iter().filter_map(|place| things[place].take()).collect()
}

fn order(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    places.sort_by(|&a, &b| compare(a, b));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_stay_in_their_order() {
        let things: Vec<(usize, usize)> = (0..200).map(|i| (i * 7919 % 13, i)).collect();
        let mut expected = things.clone();
        expected.sort_by_key(|thing| thing.0);
        assert_eq!(sorted_by(things, |a, b| a.0.cmp(&b.0)), expected);
        assert!(sorted_by(Vec::<String>::new(), String::cmp).is_empty());
    }
}
