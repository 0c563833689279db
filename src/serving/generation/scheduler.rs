//! Queue of sequences, the running sequences, and the memory reserved for them.
//!
//! Every KV block is counted once: those of the prefix cache there, however many sequences share them, and a sequence
//! reserves the others that it may need.

use super::metrics::GenerationMetrics;
use super::output::OutputSender;
use super::prefix_cache::{self, PrefixCache};
use super::reservation::Reservation;
use super::sequence::SequenceState;
use super::settings::{Settings, Stats};
use crate::serving::adapters::AdapterHandle;
use crate::serving::errors::shutting_down;
use espalier_tensor::kv_cache::BLOCK_SIZE;
use std::collections::VecDeque;

/// Queue of sequences and the set of running ones, within the KV cache's memory budget.
pub struct Scheduler {
    queued: VecDeque<SequenceState>,
    /// Sequences of admitted requests that are being tokenized.
    pub admitted: usize,
    /// Running sequences, by adapter version; those in the current step are taken out of it.
    pub running: Vec<SequenceState>,
    /// The sequences in the current step.
    pub in_step: Vec<InStep>,
    /// Memory of running sequences, including those in the current step.
    reserved: Reservation,
    prefix_cache: PrefixCache,
    max_blocks: usize,
    max_constraint_bytes: u64,
    block_bytes: usize,
    max_running_sequences: usize,
    pub counters: Stats,
    pub metrics: GenerationMetrics,
    last_arrival: u64,
    pub is_closed: bool,
    pub is_aborted: bool,
}

/// A sequence that is out of the scheduler's hands for the time of a step.
pub struct InStep {
    output_tx: OutputSender,
    adapter: AdapterHandle,
}

impl InStep {
    pub fn new(sequence: &SequenceState) -> Self {
        Self { output_tx: sequence.output_tx(), adapter: sequence.adapter.clone() }
    }
}

impl Scheduler {
    pub fn new(settings: &Settings, block_bytes: usize) -> Self {
        Self {
            queued: VecDeque::new(),
            admitted: 0,
            running: Vec::new(),
            in_step: Vec::new(),
            reserved: Reservation::default(),
            prefix_cache: PrefixCache::default(),
            max_blocks: (settings.kv_cache_bytes as usize / block_bytes).max(1),
            max_constraint_bytes: settings.constraint_bytes,
            block_bytes,
            max_running_sequences: settings.max_running_sequences.max(1),
            counters: Stats::default(),
            metrics: GenerationMetrics::default(),
            last_arrival: 0,
            is_closed: false,
            is_aborted: false,
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
            running_sequences: (self.running.len() + self.in_step.len()) as u64,
            queued_sequences: self.queued.len() as u64,
            admitted_sequences: self.admitted as u64,
            used_blocks: (self.reserved.kv_blocks + self.prefix_cache.pinned_blocks()) as u64,
            max_blocks: self.max_blocks as u64,
            reserved_blocks: self.reserved.kv_blocks as u64,
            kv_cache_reserved_bytes: ((self.reserved.kv_blocks + self.prefix_cache.len()) * self.block_bytes) as u64,
            ..self.counters
        }
    }

    /// Adapters of the running sequences, including those in the current step.
    pub fn running_adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        let in_step = self.in_step.iter().map(|sequence| &sequence.adapter);
        self.running.iter().map(|sequence| &sequence.adapter).chain(in_step)
    }

    pub fn queued_adapters(&self) -> impl Iterator<Item = &AdapterHandle> {
        self.queued.iter().map(|sequence| &sequence.adapter)
    }

    pub fn push(&mut self, mut sequence: SequenceState) {
        self.last_arrival += 1;
        sequence.arrival_order = self.last_arrival;
        self.queued.push_back(sequence);
    }

    /// Ends all streams with `Busy` (`shutting_down`), also those of the current step, without waiting for it.
    pub fn abort(&mut self) {
        (self.is_closed, self.is_aborted) = (true, true);
        for sequence in &self.in_step {
            // Fails when the stream was dropped.
            let _ = sequence.output_tx.send(Err(shutting_down()));
        }
        self.queued.iter_mut().chain(&mut self.running).for_each(|sequence| sequence.fail(shutting_down()));
    }

    /// Removes all sequences, which closes their streams.
    pub fn clear(&mut self) {
        self.queued.clear();
        self.running.clear();
        self.reserved = Reservation::default();
    }

    /// Removes cancelled sequences and starts queued ones in order of arrival while memory is available. A sequence whose
    /// prefix is being computed by a running one waits for that prefix.
    pub fn start_queued(&mut self) {
        self.queued.retain(SequenceState::has_receiver);
        let cancelled: Vec<SequenceState> = self.running.extract_if(.., |sequence| !sequence.has_receiver()).collect();
        self.release(cancelled.iter().map(SequenceState::reservation).sum());
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
            let cached_tokens = sequence.resume_from_cached_prefix(&mut self.prefix_cache);
            if !self.reserve(sequence.reservation()) {
                sequence.forget_prefix();
                self.queued.insert(queue_index, sequence);
                return;
            }
            self.counters.prefix_cache_hit_tokens += cached_tokens as u64;
            self.counters.prompt_tokens += sequence.prompt_ids().len() as u64;
            sequence.start_prefill(cached_tokens, &self.metrics);
            self.insert_running(sequence);
        }
    }

    /// Inserts a sequence beside those of the same adapter, which are computed together.
    fn insert_running(&mut self, sequence: SequenceState) {
        let version = sequence.adapter.version();
        let position = self.running.partition_point(|other| other.adapter.version() <= version);
        self.running.insert(position, sequence);
    }

    /// Reserves memory, evicting unused blocks of the prefix cache if necessary. Returns false if the budget is exceeded.
    fn reserve(&mut self, wanted: Reservation) -> bool {
        let total = self.reserved + wanted;
        // A constraint that alone exceeds the budget runs alone.
        let has_constraint_room =
            total.constraint_bytes <= self.max_constraint_bytes || self.reserved.constraint_bytes == 0;
        if !has_constraint_room && wanted.constraint_bytes > 0 {
            return false;
        }
        let is_full = |cached_blocks: usize| total.kv_blocks + cached_blocks > self.max_blocks;
        if is_full(self.prefix_cache.len()) && is_full(self.prefix_cache.pinned_blocks()) {
            return false;
        }
        while total.kv_blocks + self.prefix_cache.len() > self.max_blocks && self.prefix_cache.evict_lru() {}
        self.reserved = total;
        true
    }

    fn release(&mut self, reservation: Reservation) {
        self.reserved = self.reserved - reservation;
    }

    /// Takes the sequences of a step back, after their full blocks were given to the prefix cache. `reserved` is the
    /// reservation of all sequences of the step before it; that of lost and finished ones is released.
    pub fn return_from_step(&mut self, sequences: impl IntoIterator<Item = SequenceState>, reserved: Reservation) {
        self.release(reserved);
        self.in_step.clear();
        for mut sequence in sequences {
            sequence.end_step(&self.metrics);
            sequence.cache_prefix(&mut self.prefix_cache);
            if !sequence.is_finished() {
                self.reserved = self.reserved + sequence.reservation();
                self.insert_running(sequence);
            }
        }
        while self.reserved.kv_blocks + self.prefix_cache.len() > self.max_blocks && self.prefix_cache.evict_lru() {}
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
