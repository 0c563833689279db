//! Queue of sequences, the running sequences, and the KV blocks reserved for them.

use super::prefix_cache::{self, PrefixCache};
use super::sequence::SequenceState;
use super::settings::{Settings, Stats};
use espalier_tensor::kv_cache::BLOCK_SIZE;
use std::collections::VecDeque;

/// Queue of sequences and the set of running ones, within the KV cache's memory budget.
pub struct Scheduler {
    queued: VecDeque<SequenceState>,
    /// Sequences of admitted requests that are being tokenized.
    pub admitted: usize,
    /// Running sequences, by adapter version; those in the current step are taken out of it.
    pub running: Vec<SequenceState>,
    /// Number of sequences in the current step.
    pub in_step: usize,
    /// KV blocks of running sequences, including those in the current step.
    reserved_blocks: usize,
    prefix_cache: PrefixCache,
    max_blocks: usize,
    block_bytes: usize,
    max_running_sequences: usize,
    pub counters: Stats,
    last_arrival: u64,
    pub is_closed: bool,
}

impl Scheduler {
    pub fn new(settings: &Settings, block_bytes: usize) -> Self {
        Self {
            queued: VecDeque::new(),
            admitted: 0,
            running: Vec::new(),
            in_step: 0,
            reserved_blocks: 0,
            prefix_cache: PrefixCache::default(),
            max_blocks: (settings.kv_cache_bytes as usize / block_bytes).max(1),
            block_bytes,
            max_running_sequences: settings.max_running_sequences.max(1),
            counters: Stats::default(),
            last_arrival: 0,
            is_closed: false,
        }
    }

    /// KV blocks of one sequence, at most.
    pub fn max_blocks(&self) -> usize {
        self.max_blocks
    }

    /// Number of sequences admitted or queued.
    pub fn waiting_sequences(&self) -> usize {
        self.admitted + self.queued.len()
    }

    /// Whether no sequence is left to compute.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.running.is_empty()
    }

    pub fn stats(&self) -> Stats {
        Stats {
            running_sequences: (self.running.len() + self.in_step) as u64,
            queued_sequences: self.queued.len() as u64,
            reserved_blocks: self.reserved_blocks as u64,
            kv_cache_reserved_bytes: ((self.reserved_blocks + self.prefix_cache.len()) * self.block_bytes) as u64,
            ..self.counters
        }
    }

    pub fn push(&mut self, mut sequence: SequenceState) {
        self.last_arrival += 1;
        sequence.arrival_order = self.last_arrival;
        self.queued.push_back(sequence);
    }

    /// Removes all sequences, which closes their streams.
    pub fn clear(&mut self) {
        self.queued.clear();
        self.running.clear();
    }

    /// Removes cancelled sequences and starts queued ones in order of arrival while KV blocks are available. A sequence
    /// whose prefix is being computed by a running one waits for that prefix.
    pub fn start_queued(&mut self) {
        self.queued.retain(SequenceState::has_receiver);
        let cancelled: Vec<SequenceState> = self.running.extract_if(.., |sequence| !sequence.has_receiver()).collect();
        cancelled.iter().for_each(|sequence| self.release_blocks(sequence.reserved_blocks));
        let mut queue_index = 0;
        while self.running.len() < self.max_running_sequences
            && let Some(candidate) = self.queued.get(queue_index)
        {
            if self.running.iter().any(|running| is_computing_shared_prefix(running, candidate)) {
                queue_index += 1;
                continue;
            }
            let Some(mut sequence) = self.queued.remove(queue_index) else { return };
            // Before the reservation, which evicts the least recently used blocks.
            let cached_prefix = sequence.find_prefix(&mut self.prefix_cache);
            if !self.reserve_blocks(sequence.reserved_blocks) {
                self.queued.insert(queue_index, sequence);
                return;
            }
            if let Some((kv_cache, cached_tokens)) = cached_prefix {
                sequence.resume_from_prefix(kv_cache, cached_tokens);
                self.counters.prefix_cache_hit_tokens += cached_tokens as u64;
            }
            self.counters.prompt_tokens += sequence.prompt_ids().len() as u64;
            self.insert_running(sequence);
        }
    }

    /// Inserts a sequence beside those of the same adapter, which are computed together.
    pub fn insert_running(&mut self, sequence: SequenceState) {
        let version = sequence.adapter.version();
        let position = self.running.partition_point(|other| other.adapter.version() <= version);
        self.running.insert(position, sequence);
    }

    /// Reserves blocks, evicting blocks of the prefix cache if necessary. Returns false if the budget is exceeded.
    fn reserve_blocks(&mut self, block_count: usize) -> bool {
        while self.reserved_blocks + self.prefix_cache.len() + block_count > self.max_blocks {
            if self.reserved_blocks + block_count > self.max_blocks || !self.prefix_cache.evict_lru() {
                return false;
            }
        }
        self.reserved_blocks += block_count;
        true
    }

    pub fn release_blocks(&mut self, block_count: usize) {
        self.reserved_blocks -= block_count;
    }

    /// Inserts the full blocks of a sequence into the prefix cache, within the budget.
    pub fn cache_prefix(&mut self, sequence: &mut SequenceState) {
        if sequence.kv_cache.full_blocks().len() == sequence.cached_blocks {
            return;
        }
        sequence.cache_prefix(&mut self.prefix_cache);
        while self.reserved_blocks + self.prefix_cache.len() > self.max_blocks && self.prefix_cache.evict_lru() {}
    }
}

/// Whether `running` arrived earlier and is still computing blocks that `candidate` starts with as well.
fn is_computing_shared_prefix(running: &SequenceState, candidate: &SequenceState) -> bool {
    if !running.is_prefilling()
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
