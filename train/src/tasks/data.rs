//! A task's training data as it lies in memory.

use std::hash::{Hash, Hasher};

use super::{example::Example, joined::Joined, mapped::Segments, slips::Slips};
use crate::{objectives::Objective, vocabulary::Vocabulary};

/// What keeps the random streams of a task apart.
pub(super) mod stream {
    pub const ORDER: u64 = 1;
    pub const EXAMPLE: u64 = 2;
    pub const DEV: u64 = 3;
    pub const TEXTS: u64 = 4;
    pub const CHUNK: u64 = 5;
    pub const DIVISION: u64 = 6;
}

/// Training data as it lies in memory.
pub(super) enum Data {
    /// Token ids of pairs.
    Pairs { inputs: Ragged, targets: Ragged },
    /// Token ids of unlabelled segments, corrupted anew each epoch.
    Segments { segments: Segments, objective: Objective, prefix: Vec<u32>, modes: [Vec<u32>; 3] },
    /// Clean texts, to which slips are added anew each epoch.
    Slips { texts: Vec<String>, prefix: String, slips: Slips },
    /// Records of which a few are put together anew each epoch.
    Joined(Joined),
}

/// Lists of ids of different lengths in one allocation.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Ragged {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl Ragged {
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.ends.push(self.ids.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, i: usize) -> &[u32] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.ids[start..self.ends[i]]
    }
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Data::Pairs { inputs, .. } => inputs.len(),
            Data::Segments { segments, .. } => segments.len(),
            Data::Slips { texts, .. } => texts.len(),
            Data::Joined(joined) => joined.len(),
        }
    }

    /// Hashes what was read; the knobs are in the configuration.
    pub fn hash_contents(&self, hasher: &mut impl Hasher) {
        match self {
            Data::Pairs { inputs, targets } => (inputs, targets).hash(hasher),
            Data::Segments { segments, prefix, .. } => {
                segments.hash_contents(hasher);
                prefix.hash(hasher);
            }
            Data::Slips { texts, prefix, .. } => (texts, prefix).hash(hasher),
            Data::Joined(joined) => joined.hash_contents(hasher),
        }
    }
}

/// Corrupts a segment and puts the task's prefix before it.
pub(super) fn denoise(
    tokens: &[u32],
    objective: &Objective,
    prefix: &[u32],
    modes: &[Vec<u32>; 3],
    vocabulary: &Vocabulary,
    seed: u64,
) -> Example {
    let mut denoised = objective.apply(tokens, vocabulary.sentinels(), vocabulary.size(), modes, seed);
    denoised.inputs.splice(..0, prefix.iter().copied());
    Example { inputs: denoised.inputs, targets: denoised.targets }
}
