//! Lanes of running sequences. The sequences of a lane are computed together, by threads of their own.

use super::output::OutputSender;
use super::prefix_cache;
use super::sequence::SequenceState;
use crate::serving::adapters::AdapterHandle;
use crate::serving::owners::Owner;
use espalier_tensor::kv_cache::BLOCK_SIZE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Computed at normal priority.
    Normal,
    /// Sequences of owners that flood, computed at low priority: those of the other owners come first.
    Heavy,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Normal, Self::Heavy];

    pub fn other(self) -> Self {
        match self {
            Self::Normal => Self::Heavy,
            Self::Heavy => Self::Normal,
        }
    }
}

/// A sequence that is out of the scheduler's hands for the time of a step.
pub struct InStep {
    pub output_tx: OutputSender,
    pub adapter: AdapterHandle,
    pub owner: Owner,
}

impl InStep {
    pub fn new(sequence: &SequenceState) -> Self {
        let owner = Owner::clone(&sequence.owner);
        Self { output_tx: sequence.output_tx(), adapter: sequence.adapter.clone(), owner }
    }
}

/// Running sequences of a lane.
#[derive(Default)]
pub struct SequenceLane {
    /// By adapter version; those in the current step are taken out.
    pub running: Vec<SequenceState>,
    /// The sequences in the current step.
    pub in_step: Vec<InStep>,
    /// Whether a queued sequence of the lane waits for memory.
    pub lacks_memory: bool,
}

impl SequenceLane {
    /// Inserts a sequence beside those of the same adapter, which are computed together.
    pub fn insert(&mut self, sequence: SequenceState) {
        let version = sequence.adapter.version();
        let position = self.running.partition_point(|other| other.adapter.version() <= version);
        self.running.insert(position, sequence);
    }

    /// Removes the running sequences for which `condition` holds.
    pub fn remove_if(&mut self, condition: impl Fn(&SequenceState) -> bool) -> Vec<SequenceState> {
        self.running.extract_if(.., |sequence| condition(sequence)).collect()
    }

    /// Whether a thread of the lane has something to do now, or memory to wait for.
    pub fn has_work(&self) -> bool {
        self.in_step.is_empty() && (!self.running.is_empty() || self.lacks_memory)
    }

    /// Whether a running sequence computes blocks that `candidate` may take over.
    pub fn computes_prefix_of(&self, candidate: &SequenceState) -> bool {
        self.running.iter().any(|running| is_computing_shared_prefix(running, candidate))
    }

    /// Number of sequences, including those in the current step.
    pub fn len(&self) -> usize {
        self.running.len() + self.in_step.len()
    }

    /// Owners of the sequences, including those in the current step.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        let in_step = self.in_step.iter().map(|sequence| &sequence.owner);
        self.running.iter().map(|sequence| &sequence.owner).chain(in_step)
    }

    /// Adapters of the sequences, including those in the current step.
    pub fn adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        let in_step = self.in_step.iter().map(|sequence| &sequence.adapter);
        self.running.iter().map(|sequence| &sequence.adapter).chain(in_step)
    }
}

/// Whether `running` arrived earlier and is still computing blocks that `candidate` starts with as well and may take over.
fn is_computing_shared_prefix(running: &SequenceState, candidate: &SequenceState) -> bool {
    if !running.is_prefilling()
        || candidate.scores_prompt()
        || running.arrival_order > candidate.arrival_order
        || running.adapter.version() != candidate.adapter.version()
    {
        return false;
    }
    let prompt = candidate.cacheable_prompt_ids();
    let common_tokens = running.prompt_ids().iter().zip(prompt).take_while(|(one, other)| one == other).count();
    let virtual_rows = prefix_cache::virtual_row_count(candidate.adapter.virtual_tokens());
    (common_tokens + virtual_rows) / BLOCK_SIZE > running.cached_blocks
}
