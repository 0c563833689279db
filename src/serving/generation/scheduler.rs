//! Who waits and who runs, and the memory that is promised to them. Knows nothing of how a step is computed.

use super::prefix_cache::{self, PrefixCache};
use super::sequence::SequenceState;
use super::{Settings, Stats};
use espalier_tensor::kv_cache::BLOCK_SIZE;
use std::collections::VecDeque;

pub struct Scheduler {
    pub queued: VecDeque<SequenceState>,
    /// Those that are computed now are taken out for the step.
    pub running: Vec<SequenceState>,
    /// How many of them are being computed.
    pub in_step: usize,
    /// Of those that run, also while they are computed.
    reserved_blocks: usize,
    prefix_cache: PrefixCache,
    max_blocks: usize,
    block_bytes: usize,
    max_running_sequences: usize,
    pub counters: Stats,
    /// Sequences that ever came.
    pub next_arrival: u64,
    pub is_closed: bool,
}

impl Scheduler {
    pub fn new(settings: &Settings, block_bytes: usize) -> Self {
        Self {
            queued: VecDeque::new(),
            running: Vec::new(),
            in_step: 0,
            reserved_blocks: 0,
            prefix_cache: PrefixCache::default(),
            max_blocks: (settings.kv_cache_bytes as usize / block_bytes).max(1),
            block_bytes,
            max_running_sequences: settings.max_running_sequences.max(1),
            counters: Stats::default(),
            next_arrival: 0,
            is_closed: false,
        }
    }

    /// Pages that a sequence may have at most.
    pub fn max_blocks(&self) -> usize {
        self.max_blocks
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

    /// Forgets those whom nobody listens to, and lets those in that there is room for, in their order; but one whose beginning
    /// somebody is just reading waits for that.
    pub fn admit(&mut self) {
        self.queued.retain(SequenceState::has_receiver);
        let cancelled: Vec<SequenceState> = self.running.extract_if(.., |sequence| !sequence.has_receiver()).collect();
        cancelled.iter().for_each(|sequence| self.finish(sequence));
        let mut queue_index = 0;
        while self.running.len() < self.max_running_sequences
            && let Some(candidate) = self.queued.get(queue_index)
        {
            if self.running.iter().any(|other| is_computing_shared_prefix(other, candidate)) {
                queue_index += 1;
                continue;
            }
            let Some(mut sequence) = self.queued.remove(queue_index) else { return };
            let (virtual_tokens, kv_cache_shape) = (sequence.virtual_tokens(), sequence.kv_cache.shape());
            // Looked for first: what is used is forgotten last.
            let cached_prefix =
                self.prefix_cache.lookup(&sequence.version, virtual_tokens, kv_cache_shape, sequence.prompt_ids());
            if !self.reserve_blocks(sequence.reserved_blocks) {
                self.queued.insert(queue_index, sequence);
                return;
            }
            self.reserved_blocks += sequence.reserved_blocks;
            if let Some((kv_cache, cached_tokens)) = cached_prefix {
                sequence.resume_from_prefix(kv_cache, cached_tokens);
                self.counters.prefix_cache_hit_tokens += cached_tokens as u64;
            }
            self.counters.prompt_tokens += sequence.prompt_ids().len() as u64;
            // Neighbours with the same adapter are computed together.
            let position = self.running.partition_point(|other| other.version <= sequence.version);
            self.running.insert(position, sequence);
        }
    }

    /// Whether so many more pages fit, if need be after forgetting some that are only kept for others.
    fn reserve_blocks(&mut self, block_count: usize) -> bool {
        while self.reserved_blocks + self.prefix_cache.len() + block_count > self.max_blocks {
            if self.reserved_blocks + block_count > self.max_blocks || !self.prefix_cache.evict_lru() {
                return false;
            }
        }
        true
    }

    /// A sequence runs no more.
    pub fn finish(&mut self, sequence: &SequenceState) {
        self.release_blocks(sequence.reserved_blocks);
    }

    /// Takes promised pages back.
    pub fn release_blocks(&mut self, block_count: usize) {
        self.reserved_blocks -= block_count;
    }

    /// Keeps what a sequence has computed for others that begin alike, as far as there is room.
    pub fn cache_prefix(&mut self, sequence: &mut SequenceState) {
        let full_blocks = sequence.kv_cache.full_blocks().len();
        if full_blocks == sequence.cached_blocks {
            return;
        }
        sequence.cached_blocks = full_blocks;
        let virtual_tokens = sequence.virtual_tokens();
        self.prefix_cache.insert(&sequence.version, virtual_tokens, &sequence.kv_cache, sequence.token_ids());
        while self.reserved_blocks + self.prefix_cache.len() > self.max_blocks && self.prefix_cache.evict_lru() {}
    }
}

/// Whether one that came before and reads has still to compute pages that the other begins with, too.
fn is_computing_shared_prefix(running: &SequenceState, candidate: &SequenceState) -> bool {
    if !running.is_prefilling()
        || running.arrival_order > candidate.arrival_order
        || running.version != candidate.version
    {
        return false;
    }
    let prompt = &candidate.prompt_ids()[..candidate.prompt_ids().len() - 1];
    let common_tokens = running.prompt_ids().iter().zip(prompt).take_while(|(one, other)| one == other).count();
    (common_tokens + prefix_cache::virtual_row_count(candidate.virtual_tokens())) / BLOCK_SIZE > running.cached_blocks
}
