//! A task's training data as it lies in memory.

use sha2::{Digest as _, Sha256};

use super::{example::Example, joined::Joined, mapped::Segments, slips::Slips};
use crate::{files::hex, objectives::Objective, vocabulary::Vocabulary};

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
#[derive(Clone, Debug, Default)]
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

    pub fn digest(&self, digest: &mut Digest) {
        digest.ids(&self.ids);
        self.ends.iter().for_each(|&end| digest.count(end));
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

    /// Digests what was read; the knobs are in the configuration.
    pub fn digest(&self, digest: &mut Digest) {
        match self {
            Data::Pairs { inputs, targets } => [inputs, targets].into_iter().for_each(|ids| ids.digest(digest)),
            Data::Segments { segments, prefix, .. } => {
                segments.digest(digest);
                digest.ids(prefix);
            }
            Data::Slips { texts, prefix, .. } => {
                digest.count(texts.len());
                texts.iter().chain([prefix]).for_each(|text| digest.text(text));
            }
            Data::Joined(joined) => joined.digest(digest),
        }
    }
}

/// A digest of what was read. Checkpoints keep it, so that it has to be the same on every machine and by every
/// compiler, which [`std::hash::Hash`] is not.
#[derive(Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    pub fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    pub fn ids(&mut self, ids: &[u32]) {
        self.count(ids.len());
        for some in ids.chunks(4096) {
            self.0.update(some.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
        }
    }

    /// As it is written.
    pub fn hex(self) -> String {
        hex(&self.0.finalize())
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
