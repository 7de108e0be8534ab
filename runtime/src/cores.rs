//! How many threads are worth having. The threads themselves are among the kernels, which share their work.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

/// A session's threads at most: more do not help at steps this short.
pub const MAX_THREADS: usize = 64;

/// More threads than this are not taken without being asked for: nobody has measured what they win, and each piece of
/// work that they share, a few of a thousandth of a millisecond for a token's step, is handed out part by part.
const UNASKED: usize = 16;

/// Physical cores that this process may use: products are limited by multipliers and memory, which the hardware threads
/// of a core share. At least 1. A limit on the time of processors (a container's) counts as fewer cores.
pub fn physical_cores() -> usize {
    cores_of_nodes(Path::new("/"), allowed_time()).iter().sum::<usize>().max(1)
}

/// Threads for one session where nobody says how many: the cores that this process may use of the NUMA node on which it
/// has the most, and no more than 16. All threads of a session read the same weights and wait for the last at every
/// step, and memory of another node is far. More may be worth their while for large models and long texts: `t5 bench
/// --threads N` shows it.
pub fn default_threads() -> usize {
    threads_of_nodes(&cores_of_nodes(Path::new("/"), allowed_time()))
}

fn threads_of_nodes(cores: &[usize]) -> usize {
    cores.iter().copied().max().unwrap_or(1).clamp(1, UNASKED)
}

/// Processors' worth of time that there is for this process: a control group may give less than there are processors.
fn allowed_time() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Cores of each NUMA node that this process may use, `most` of them all together at most, by the files that Linux has
/// below `root`. One node where it does not say, or on another system.
fn cores_of_nodes(root: &Path, most: usize) -> Vec<usize> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let status = read("proc/self/status").unwrap_or_default();
    let Some(allowed) = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")) else {
        return vec![most];
    };
    let mut nodes = BTreeMap::new();
    let online = read("sys/devices/system/node/online").unwrap_or_default();
    for node in ranges(&online).flatten() {
        let processors = read(&format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
        nodes.extend(ranges(&processors).flatten().map(|processor| (processor, node)));
    }
    // A core is named by the set of its hardware threads.
    let mut cores: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for processor in ranges(allowed).flatten() {
        let siblings = read(&format!("sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"));
        let node = nodes.get(&processor).copied().unwrap_or(0);
        cores.entry(node).or_default().insert(siblings.unwrap_or_else(|| processor.to_string()));
    }
    let mut left = most;
    let mut counts: Vec<usize> = cores.values().map(BTreeSet::len).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    for count in &mut counts {
        *count = (*count).min(left);
        left -= *count;
    }
    counts
}

/// A list such as `0-3,8,10-11`, as Linux writes them. What is no number ends it.
fn ranges(list: &str) -> impl Iterator<Item = RangeInclusive<usize>> {
    list.trim().split(',').map_while(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        // As many processors as a kernel can be built for.
        (last < 1 << 16).then_some(first..=last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a machine: processors that may be used, and of each node the cores with their hardware threads.
    fn machine(allowed: &str, nodes: &[&[&[usize]]]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |path: String, text: String| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        let list = |numbers: &[usize]| {
            let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
            numbers.join(",") + "\n"
        };
        write("proc/self/status".into(), format!("Name:\tt5\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1\n"));
        write("sys/devices/system/node/online".into(), format!("0-{}\n", nodes.len() - 1));
        for (node, cores) in nodes.iter().enumerate() {
            write(format!("sys/devices/system/node/node{node}/cpulist"), list(&cores.concat()));
            for core in *cores {
                for processor in *core {
                    let folder = format!("sys/devices/system/cpu/cpu{processor}/topology");
                    write(folder + "/thread_siblings_list", list(core));
                }
            }
        }
        root
    }

    #[test]
    fn there_is_a_core() {
        assert!((1..=allowed_time()).contains(&physical_cores()));
        assert!((1..=physical_cores().min(UNASKED)).contains(&default_threads()));
    }

    #[test]
    fn cores_are_counted_by_node() {
        let nodes: [&[&[usize]]; 2] = [&[&[0, 6], &[1, 7], &[2, 8]], &[&[3, 9], &[4, 10], &[5, 11]]];
        for (allowed, most, expected, threads) in [
            ("0-11", 12, vec![3, 3], 3),
            // A list of processors, as `taskset` gives it: one core, one and two, none of a node.
            ("1,7", 2, vec![1], 1),
            ("0,3-4", 3, vec![2, 1], 2),
            ("3-5,9-11", 6, vec![3], 3),
            // Less time than processors.
            ("0-11", 4, vec![3, 1], 3),
            ("0-11", 1, vec![1, 0], 1),
        ] {
            let root = machine(allowed, &nodes);
            let found = cores_of_nodes(root.path(), most);
            assert_eq!(found, expected, "{allowed}, time of {most}");
            assert_eq!(threads_of_nodes(&found), threads, "{allowed}, time of {most}");
        }
    }

    #[test]
    fn a_wide_machine_does_not_take_all() {
        let cores: Vec<[usize; 2]> = (0..48).map(|core| [core, core + 48]).collect();
        let cores: Vec<&[usize]> = cores.iter().map(|core| &core[..]).collect();
        let root = machine("0-95", &[&cores]);
        let found = cores_of_nodes(root.path(), 96);
        assert_eq!(found, [48]);
        assert_eq!(threads_of_nodes(&found), UNASKED);
    }

    #[test]
    fn what_linux_does_not_say_is_one_node() {
        let root = machine("0-3", &[&[&[0], &[1], &[2], &[3]]]);
        let sys = root.path().join("sys/devices/system");
        std::fs::remove_dir_all(sys.join("node")).expect("a folder");
        assert_eq!(cores_of_nodes(root.path(), 4), [4]);
        std::fs::remove_dir_all(sys.join("cpu")).expect("a folder");
        assert_eq!(cores_of_nodes(root.path(), 4), [4]);
        std::fs::remove_file(root.path().join("proc/self/status")).expect("a file");
        assert_eq!(cores_of_nodes(root.path(), 4), [4]);
        assert_eq!(threads_of_nodes(&[]), 1);
    }

    #[test]
    fn lists_are_read() {
        let read = |list| ranges(list).flatten().collect::<Vec<usize>>();
        assert_eq!(read("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert!(read("\n").is_empty());
        assert_eq!(read("1,x,2"), [1]);
        assert!(read("0-99999999999").is_empty());
    }
}
