//! How many threads are worth having. The threads themselves are among the kernels, which share their work.

use std::collections::BTreeSet;

/// Physical cores that this process may use: products are limited by multipliers and memory, which the hardware threads
/// of a core share. At least 1.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    match cores_of_linux() {
        0 => allowed,
        cores => cores.min(allowed),
    }
}

/// Cores that the kernel lists; 0 where it lists none.
fn cores_of_linux() -> usize {
    let siblings = |cpu: usize| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
    };
    // Each core is named by its set of hardware threads. Numbers may have gaps where processors are offline.
    (0..1024).filter_map(siblings).collect::<BTreeSet<String>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core() {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=all).contains(&physical_cores()));
    }
}
